package statefs

import (
	"fmt"
	"sort"
	"strings"

	"evernode/internal/digest"
)

// node is one file, link or folder of a version of the state. Nodes are never
// changed once a scan has returned them: versions share what is equal, and
// comparing two of them costs what differs.
type node struct {
	Entry
	kids []*node // folders: sorted by name

	// Folders: totals below, and whether the encoding is split into pages.
	entries uint64
	bytes   uint64

	// Files: what the file looked like when its content was hashed. Zero for
	// nodes that did not come from a scan.
	sig sig
}

// sig tells an unchanged file from a changed one without reading it. ctime
// cannot be set by a program, and every write, truncation, chmod, rename and
// link moves it on.
type sig struct {
	ino   uint64
	mtime int64 // nanoseconds
	ctime int64 // nanoseconds
	// racy: the file changed within the clock tick in which it was hashed, so
	// that a later change in the same tick would not show. Never trusted.
	racy bool
}

// kindOther marks what cannot be part of the state (sockets, pipes, devices) in
// trees made for a rollback. It is never hashed.
const kindOther Kind = 0

func (n *node) child(name string) *node {
	i := sort.Search(len(n.kids), func(i int) bool { return n.kids[i].Name >= name })
	if i < len(n.kids) && n.kids[i].Name == name {
		return n.kids[i]
	}
	return nil
}

// find returns the node at a slash separated path below n, or nil. The empty
// path is n itself.
func (n *node) find(path string) *node {
	for path != "" && n != nil {
		name, rest, _ := strings.Cut(path, "/")
		if n.Kind != KindDir {
			return nil
		}
		n, path = n.child(name), rest
	}
	return n
}

// seal computes totals and hash of a folder from its children.
func (n *node) seal() error {
	_, _, err := n.encode(true)
	return err
}

// encode returns the encoded directory node and its pages.
func (n *node) encode(seal bool) (enc []byte, pages [][]byte, err error) {
	entries := make([]Entry, len(n.kids))
	var count, bytes uint64
	for i, k := range n.kids {
		entries[i] = k.Entry
		count += 1 + k.entries
		bytes += k.bytes
		if k.Kind == KindFile {
			bytes += k.Size
		}
	}
	enc, pages, err = EncodeDir(entries, count, bytes)
	if err != nil {
		return nil, nil, err
	}
	if seal {
		n.entries, n.bytes, n.Hash = count, bytes, HashDir(enc)
	}
	return enc, pages, nil
}

// same reports whether two nodes are equal in everything that is hashed, the
// name apart.
func (n *node) same(o *node) bool {
	return n.Kind == o.Kind && n.Kind != kindOther && n.Mode == o.Mode && n.Hash == o.Hash && n.Size == o.Size && n.Link == o.Link
}

// content identifies a file as the read-only copies keep it: two names may
// share one inode only if content and mode are equal.
type content struct {
	hash digest.Hash
	mode uint16
}

func (c content) String() string { return fmt.Sprintf("%s-%04o", c.hash, c.mode) }

// added calls fn with every file of to that is not the same in from, and its
// path.
func added(from, to *node, path string, fn func(path string, n *node) error) error {
	if from != nil && from.Kind == KindDir && from.Hash == to.Hash {
		return nil
	}
	j := 0
	for _, k := range to.kids {
		var old *node
		if from != nil {
			for j < len(from.kids) && from.kids[j].Name < k.Name {
				j++
			}
			if j < len(from.kids) && from.kids[j].Name == k.Name {
				old = from.kids[j]
			}
		}
		switch {
		case k.Kind == KindDir:
			if err := added(old, k, join(path, k.Name), fn); err != nil {
				return err
			}
		case k.Kind == KindFile && (old == nil || !old.same(k)):
			if err := fn(join(path, k.Name), k); err != nil {
				return err
			}
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
