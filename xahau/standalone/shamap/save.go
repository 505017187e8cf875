package shamap

// Saved is a tree whose nodes have all been handed to a writer.
type Saved struct {
	Map Map // equal to the tree that was saved; holds no node in memory

	places []uint64
	nodes  []node
}

// Keep puts the nodes that were written into the cache. It is called when the
// store has them, and before it nobody may read Saved.Map.
func (s Saved) Keep() {
	if s.Map.cache == nil {
		return
	}
	for i, off := range s.places {
		s.Map.cache.put(off, s.nodes[i])
	}
}

// Save hands the record of every node that is not yet saved to write, children
// before parents, and returns the tree in which they are where write says.
// Places must come with growing offsets, all above those of nodes saved before.
// The record is valid only during the call. A tree made in memory first has to
// be told its cache with In.
func (m Map) Save(write func(record []byte) Place) Saved {
	s := saver{write: write}
	m.root = s.save(m.root)
	m.bytes += s.bytes
	return Saved{Map: m, places: s.places, nodes: s.nodes}
}

type saver struct {
	write   func([]byte) Place
	bytes   int64
	scratch []byte
	places  []uint64
	nodes   []node
}

func (s *saver) save(r ref) ref {
	switch n := r.node.(type) {
	case *leaf:
		s.scratch = appendLeaf(s.scratch[:0], n)
		s.written(&r, n)
		r.oldest = r.off
	case *inner:
		out := &inner{bits: n.bits, kids: make([]ref, len(n.kids))}
		oldest := ^uint64(0)
		for i := range n.kids {
			out.kids[i] = s.save(n.kids[i])
			oldest = min(oldest, out.kids[i].oldest)
		}
		s.scratch = appendInner(s.scratch[:0], out)
		s.written(&r, out)
		r.oldest = oldest
	}
	return r
}

func (s *saver) written(r *ref, n node) {
	p := s.write(s.scratch)
	r.node, r.off, r.len = nil, p.Off, p.Len
	s.bytes += int64(p.Len)
	s.places = append(s.places, p.Off)
	s.nodes = append(s.nodes, n)
}

// Refresh returns the tree with nodes that stand before an offset of the store
// marked as not saved, so that the next Save writes them anew: about budget
// bytes of them, in order of keys, the rest at later calls. When Root().Oldest
// of a saved tree has reached the offset, nothing in it needs what is stored
// before. The content and the hash stay.
func (m Map) Refresh(before uint64, budget int) (Map, error) {
	f := refresher{m: m, before: before, budget: budget}
	root, err := f.refresh(m.root, 0)
	if err != nil {
		return m, err
	}
	m.root = root
	m.bytes -= f.bytes
	return m, nil
}

type refresher struct {
	m      Map
	before uint64
	budget int
	bytes  int64
}

func (f *refresher) refresh(r ref, depth int) (ref, error) {
	if f.budget <= 0 || r.empty() || r.node == nil && r.oldest >= f.before {
		return r, nil
	}
	n := r.node
	if n == nil {
		var err error
		if n, err = f.m.cache.peek(&r); err != nil {
			return r, err
		}
	}
	if in, ok := n.(*inner); ok {
		if depth == maxDepth {
			return r, errTooDeep
		}
		var out *inner
		for i := range in.kids {
			kid, err := f.refresh(in.kids[i], depth+1)
			if err != nil {
				return r, err
			}
			if kid.node != in.kids[i].node {
				if out == nil {
					out = &inner{bits: in.bits, kids: append([]ref(nil), in.kids...)}
				}
				out.kids[i] = kid
			}
		}
		switch {
		case out != nil:
			n = out
		case r.node != nil || r.off >= f.before:
			return r, nil
		}
	}
	if r.node == nil {
		f.bytes += int64(r.len)
		f.budget -= int(r.len)
	}
	r.node, r.off, r.len, r.oldest = n, 0, 0, 0
	return r, nil
}
