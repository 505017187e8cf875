package shamap

import (
	"fmt"
	"sync"
)

// Source reads a node's record back from where it was saved. The bytes must
// not be changed afterwards by anybody. It is called by several goroutines.
type Source interface {
	ReadNode(Place) ([]byte, error)
}

// Cache keeps nodes of a store that were used lately, up to a bound in bytes.
// It is safe for concurrent use and serves all Maps of one store.
type Cache struct {
	source Source
	kind   Kind
	shards [cacheShards]cacheShard
}

const cacheShards = 16

// cacheShard keeps two generations: what is used moves into the young one, and
// when that has its share of the memory, the old one is forgotten and they
// change places. That is one map access for what is hot and no list to keep.
type cacheShard struct {
	mu         sync.Mutex
	young, old map[uint64]node
	bytes      int // in young
	limit      int // of young
}

// NewCache returns an empty cache in front of a store that holds trees of one
// kind. maxBytes is about the memory it uses at most; 0 keeps nothing.
func NewCache(source Source, kind Kind, maxBytes int) *Cache {
	c := &Cache{source: source, kind: kind}
	for i := range c.shards {
		c.shards[i].limit = maxBytes / cacheShards / 2
		c.shards[i].young = map[uint64]node{}
	}
	return c
}

func (c *Cache) shard(off uint64) *cacheShard {
	return &c.shards[off*0x9E3779B97F4A7C15>>60]
}

// get returns a node and remembers it.
func (c *Cache) get(r *ref) (node, error) {
	s := c.shard(r.off)
	s.mu.Lock()
	n, ok := s.young[r.off]
	if !ok {
		if n, ok = s.old[r.off]; ok {
			s.put(r.off, n)
		}
	}
	s.mu.Unlock()
	if ok {
		return n, nil
	}
	n, err := c.read(r)
	if err == nil {
		c.put(r.off, n)
	}
	return n, err
}

// peek returns a node that will hardly be wanted again.
func (c *Cache) peek(r *ref) (node, error) {
	s := c.shard(r.off)
	s.mu.Lock()
	n, ok := s.young[r.off]
	if !ok {
		n, ok = s.old[r.off]
	}
	s.mu.Unlock()
	if ok {
		return n, nil
	}
	return c.read(r)
}

// read reads a node from the store and checks it.
func (c *Cache) read(r *ref) (node, error) {
	b, err := c.source.ReadNode(Place{Off: r.off, Len: r.len})
	if err != nil {
		return nil, fmt.Errorf("reading node %x: %w", r.hash[:8], err)
	}
	n, err := decodeNode(b)
	if err == nil {
		err = checkNode(n, c.kind, r)
	}
	if err != nil {
		return nil, fmt.Errorf("node of %d bytes at offset %d: %w", r.len, r.off, err)
	}
	return n, nil
}

func (c *Cache) put(off uint64, n node) {
	s := c.shard(off)
	s.mu.Lock()
	s.put(off, n)
	s.mu.Unlock()
}

// put adds to the young generation. The caller holds mu.
func (s *cacheShard) put(off uint64, n node) {
	if _, ok := s.young[off]; !ok {
		s.bytes += n.memory()
	}
	s.young[off] = n
	if s.bytes > s.limit {
		s.old, s.young, s.bytes = s.young, make(map[uint64]node, len(s.young)), 0
	}
}
