package shamap

import (
	"bytes"
	"iter"
)

// First returns the entry with the smallest key; ok is false when there is
// none.
func (m Map) First() (e Entry, ok bool, err error) {
	return m.next(&m.root, 0, nil)
}

// Next returns the entry with the smallest key greater than key; ok is false
// when there is none.
func (m Map) Next(key Key) (e Entry, ok bool, err error) {
	return m.next(&m.root, 0, &key)
}

// Prev returns the entry with the greatest key smaller than key; ok is false
// when there is none.
func (m Map) Prev(key Key) (e Entry, ok bool, err error) {
	return m.prev(&m.root, 0, &key)
}

// Last returns the entry with the greatest key; ok is false when there is none.
func (m Map) Last() (e Entry, ok bool, err error) {
	return m.prev(&m.root, 0, nil)
}

// next finds the first entry of a subtree, behind a key unless that is nil.
func (m Map) next(r *ref, depth int, after *Key) (Entry, bool, error) {
	if r.empty() {
		return Entry{}, false, nil
	}
	n, err := m.load(r)
	if err != nil {
		return Entry{}, false, err
	}
	if n, ok := n.(*leaf); ok {
		return Entry{n.key, n.data}, after == nil || bytes.Compare(n.key[:], after[:]) > 0, nil
	}
	if depth == maxDepth {
		return Entry{}, false, errTooDeep
	}
	in := n.(*inner)
	b := 0
	if after != nil {
		b = nibble(after, depth)
	}
	for ; b < fanout; b++ {
		if k := in.at(b); k != nil {
			if e, ok, err := m.next(k, depth+1, after); ok || err != nil {
				return e, ok, err
			}
		}
		after = nil
	}
	return Entry{}, false, nil
}

// prev finds the last entry of a subtree, in front of a key unless that is nil.
func (m Map) prev(r *ref, depth int, before *Key) (Entry, bool, error) {
	if r.empty() {
		return Entry{}, false, nil
	}
	n, err := m.load(r)
	if err != nil {
		return Entry{}, false, err
	}
	if n, ok := n.(*leaf); ok {
		return Entry{n.key, n.data}, before == nil || bytes.Compare(n.key[:], before[:]) < 0, nil
	}
	if depth == maxDepth {
		return Entry{}, false, errTooDeep
	}
	in := n.(*inner)
	b := fanout - 1
	if before != nil {
		b = nibble(before, depth)
	}
	for ; b >= 0; b-- {
		if k := in.at(b); k != nil {
			if e, ok, err := m.prev(k, depth+1, before); ok || err != nil {
				return e, ok, err
			}
		}
		before = nil
	}
	return Entry{}, false, nil
}

// From goes through the entries with keys from the given one on, in order. It
// ends with the first error.
func (m Map) From(key Key) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		m.walk(&m.root, 0, &key, yield)
	}
}

// All goes through all entries in order of their keys. It ends with the first
// error.
func (m Map) All() iter.Seq2[Entry, error] { return m.From(Key{}) }

// walk yields the entries of a subtree, from a key on unless that is nil.
func (m Map) walk(r *ref, depth int, from *Key, yield func(Entry, error) bool) bool {
	if r.empty() {
		return true
	}
	n, err := m.load(r)
	if err == nil && depth > maxDepth {
		err = errTooDeep
	}
	if err != nil {
		yield(Entry{}, err)
		return false
	}
	if n, ok := n.(*leaf); ok {
		return from != nil && bytes.Compare(n.key[:], from[:]) < 0 || yield(Entry{n.key, n.data}, nil)
	}
	in := n.(*inner)
	b := 0
	if from != nil && depth < maxDepth {
		b = nibble(from, depth)
	}
	for ; b < fanout; b++ {
		if k := in.at(b); k != nil && !m.walk(k, depth+1, from, yield) {
			return false
		}
		from = nil
	}
	return true
}

// Difference is an entry that two trees do not have in common. Old or New is
// nil where a tree does not have it.
type Difference struct {
	Key      Key
	Old, New []byte
}

// Diff goes through what must be changed to make new of old, in order of keys.
// Subtrees that are equal are not looked at: the work is in proportion to the
// difference. It ends with the first error.
func Diff(old, new Map) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		d := differ{old, new, yield}
		d.diff(&old.root, &new.root, 0)
	}
}

type differ struct {
	old, new Map
	yield    func(Difference, error) bool
}

func (d *differ) fail(err error) bool {
	d.yield(Difference{}, err)
	return false
}

func (d *differ) diff(a, b *ref, depth int) bool {
	if a.hash == b.hash {
		return true
	}
	na, err := d.loadOr(d.old, a, depth)
	if err != nil {
		return d.fail(err)
	}
	nb, err := d.loadOr(d.new, b, depth)
	if err != nil {
		return d.fail(err)
	}
	ia, okA := na.(*inner)
	ib, okB := nb.(*inner)
	if !okA {
		la, _ := na.(*leaf)
		return d.mixed(la, d.new, b, depth, func(one, other []byte) (old, new []byte) { return one, other })
	}
	if !okB {
		lb, _ := nb.(*leaf)
		return d.mixed(lb, d.old, a, depth, func(one, other []byte) (old, new []byte) { return other, one })
	}
	var none ref
	for i := range fanout {
		ka, kb := ia.at(i), ib.at(i)
		if ka == nil {
			ka = &none
		}
		if kb == nil {
			kb = &none
		}
		if !d.diff(ka, kb, depth+1) {
			return false
		}
	}
	return true
}

func (d *differ) loadOr(m Map, r *ref, depth int) (node, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	if r.empty() {
		return nil, nil
	}
	return m.load(r)
}

// mixed compares at most one entry of one tree with a subtree of the other.
// order puts what is found in them into the order of the trees.
func (d *differ) mixed(one *leaf, m Map, r *ref, depth int, order func(one, other []byte) (old, new []byte)) bool {
	tell := func(key Key, a, b []byte) bool {
		diff := Difference{Key: key}
		diff.Old, diff.New = order(a, b)
		return bytes.Equal(a, b) || d.yield(diff, nil)
	}
	ok := m.walk(r, depth, nil, func(e Entry, err error) bool {
		if err != nil {
			return d.fail(err)
		}
		c := 1
		if one != nil {
			c = bytes.Compare(one.key[:], e.Key[:])
		}
		if c > 0 {
			return tell(e.Key, nil, e.Data)
		}
		was := one
		one = nil
		if c == 0 {
			return tell(e.Key, was.data, e.Data)
		}
		return tell(was.key, was.data, nil) && tell(e.Key, nil, e.Data)
	})
	return ok && (one == nil || tell(one.key, one.data, nil))
}
