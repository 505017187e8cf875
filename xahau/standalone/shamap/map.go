package shamap

import (
	"errors"
	"fmt"
)

// Map is one version of a tree. The zero Map is an empty tree of kind State in
// memory. Maps are values: copy them freely.
type Map struct {
	kind  Kind
	root  ref
	count int64
	bytes int64 // of the records of all nodes that are written
	cache *Cache
}

// New returns an empty tree that lives in memory.
func New(kind Kind) Map { return Map{kind: kind} }

// In returns the tree with its nodes to be read through a cache once they are
// saved. A tree stays with one cache for ever.
func (m Map) In(c *Cache) (Map, error) {
	if m.cache == c {
		return m, nil
	}
	if m.cache != nil {
		return m, errors.New("the tree belongs to another store")
	}
	if m.kind != c.kind {
		return m, fmt.Errorf("a tree of kind %d for a store of kind %d", m.kind, c.kind)
	}
	m.cache = c
	return m, nil
}

// Root is what must be known of a saved tree to open it again.
type Root struct {
	Hash   Hash
	Place  Place  // zero for an empty tree
	Oldest uint64 // smallest offset of any node of the tree, 0 for an empty tree
	Count  uint64 // entries
	Bytes  uint64 // length of the records of all nodes together
}

// Open returns the tree with a root. Nothing is read before it is needed.
func Open(c *Cache, r Root) Map {
	m := Map{kind: c.kind, cache: c, count: int64(r.Count), bytes: int64(r.Bytes)}
	m.root = ref{hash: r.Hash, off: r.Place.Off, len: r.Place.Len, oldest: r.Oldest}
	return m
}

// Root returns what Open needs; ok is false when the tree has nodes that are
// not saved.
func (m Map) Root() (r Root, ok bool) {
	return Root{
		Hash: m.root.hash, Place: Place{m.root.off, m.root.len}, Oldest: m.root.oldest,
		Count: uint64(m.count), Bytes: uint64(m.bytes),
	}, m.root.node == nil
}

// Hash returns the root hash, zero for a tree without entries.
func (m Map) Hash() Hash { return m.root.hash }

// Len returns the number of entries.
func (m Map) Len() int { return int(m.count) }

// Kind returns what the entries are.
func (m Map) Kind() Kind { return m.kind }

func (m Map) load(r *ref) (node, error) {
	if r.node != nil {
		return r.node, nil
	}
	return m.cache.get(r)
}

// Get returns the data of an entry, nil when there is none. The data is shared
// and must not be changed.
func (m Map) Get(key Key) ([]byte, error) {
	r := &m.root
	if r.empty() {
		return nil, nil
	}
	for depth := 0; ; depth++ {
		n, err := m.load(r)
		if err != nil {
			return nil, err
		}
		switch n := n.(type) {
		case *leaf:
			if n.key != key {
				return nil, nil
			}
			return n.data, nil
		case *inner:
			if depth == maxDepth {
				return nil, errTooDeep
			}
			if r = n.at(nibble(&key, depth)); r == nil {
				return nil, nil
			}
		}
	}
}

// Has says whether there is an entry with the key.
func (m Map) Has(key Key) (bool, error) {
	data, err := m.Get(key)
	return data != nil, err
}
