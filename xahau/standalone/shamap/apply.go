package shamap

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

var errTooDeep = fmt.Errorf("%w: an inner node below the last level", ErrDamaged)

// Change sets the data of an entry, or deletes the entry when Data is empty.
type Change struct {
	Key  Key
	Data []byte
}

// From this many changes on Apply uses all cores: below it, starting
// goroutines costs more than it saves.
const parallelFrom = 256

// Set returns the tree with one entry set. Where there are more changes to
// make, Apply does less work: Set hashes the whole path to the root.
func (m Map) Set(key Key, data []byte) (Map, error) {
	if len(data) == 0 {
		return m, fmt.Errorf("entry %x without data", key)
	}
	return m.Apply([]Change{{key, data}})
}

// Delete returns the tree without an entry; one that is not there is fine.
func (m Map) Delete(key Key) (Map, error) { return m.Apply([]Change{{Key: key}}) }

// Apply returns the tree with all changes made. Every changed node is hashed
// once, on all cores when there are many. The order of the changes does not
// matter; two of one key are an error. The data is kept and must not be changed
// afterwards. Deleting what is not there and setting what is there already
// change nothing.
func (m Map) Apply(changes []Change) (Map, error) {
	if !slices.IsSortedFunc(changes, compareChanges) {
		changes = slices.Clone(changes)
		slices.SortFunc(changes, compareChanges)
	}
	for i := range changes {
		if i > 0 && changes[i].Key == changes[i-1].Key {
			return m, fmt.Errorf("two changes of entry %x", changes[i].Key)
		}
		if len(changes[i].Data) > MaxData {
			return m, fmt.Errorf("entry %x has %d bytes, at most %d are allowed", changes[i].Key, len(changes[i].Data), MaxData)
		}
	}
	if len(changes) == 0 {
		return m, nil
	}
	var root ref
	var delta counts
	var err error
	if len(changes) >= parallelFrom && runtime.GOMAXPROCS(0) > 1 {
		root, delta, err = m.applyParallel(changes)
	} else {
		a := applier{m: m}
		root, err = a.apply(m.root, 0, changes)
		delta = a.counts
	}
	if err != nil {
		return m, err
	}
	m.root = root
	m.count += delta.entries
	m.bytes += delta.bytes
	return m, nil
}

func compareChanges(a, b Change) int { return bytes.Compare(a.Key[:], b.Key[:]) }

// counts is by how much a tree's entries and written bytes differ.
type counts struct{ entries, bytes int64 }

// applier makes changes. Each goroutine has its own.
type applier struct {
	m Map
	counts
	scratch []byte
}

// keyed is a leaf whose key is known without loading it.
type keyed struct {
	key *Key
	ref ref
}

// apply returns what a subtree becomes. Changes are sorted by key, not empty,
// and all belong into the subtree.
func (a *applier) apply(r ref, depth int, changes []Change) (ref, error) {
	if r.empty() {
		return a.grow(depth, a.leaves(make([]keyed, 0, len(changes)), changes)), nil
	}
	n, err := a.m.load(&r)
	if err != nil {
		return r, err
	}
	switch n := n.(type) {
	case *leaf:
		return a.applyLeaf(r, n, depth, changes), nil
	case *inner:
		return a.applyInner(r, n, depth, changes)
	}
	return r, nil
}

// leaves appends what the changes set.
func (a *applier) leaves(to []keyed, changes []Change) []keyed {
	for i := range changes {
		if c := &changes[i]; len(c.Data) > 0 {
			to = append(to, keyed{&c.Key, a.newLeaf(c)})
			a.entries++
		}
	}
	return to
}

func (a *applier) newLeaf(c *Change) ref {
	r := ref{node: &leaf{key: c.Key, data: c.Data}, leaf: true}
	r.hash, a.scratch = hashLeaf(a.scratch, a.m.kind, &c.Key, c.Data)
	return r
}

func (a *applier) applyLeaf(r ref, n *leaf, depth int, changes []Change) ref {
	at, found := slices.BinarySearchFunc(changes, n.key, func(c Change, k Key) int { return bytes.Compare(c.Key[:], k[:]) })
	before, after := changes[:at], changes[at:]
	list := a.leaves(make([]keyed, 0, len(changes)+1), before)
	if found {
		c := &changes[at]
		after = changes[at+1:]
		switch {
		case bytes.Equal(c.Data, n.data):
			list = append(list, keyed{&n.key, r})
		case len(c.Data) > 0:
			a.drop(&r)
			list = append(list, keyed{&c.Key, a.newLeaf(c)})
		default:
			a.drop(&r)
			a.entries--
		}
	} else {
		list = append(list, keyed{&n.key, r})
	}
	return a.grow(depth, a.leaves(list, after))
}

// drop counts a node that is no longer part of the tree.
func (a *applier) drop(r *ref) { a.bytes -= int64(r.len) }

// grow makes a subtree of leaves, sorted by key. A tree's root is always an
// inner node; below it, a leaf stands as near to the root as it can.
func (a *applier) grow(depth int, list []keyed) ref {
	if len(list) == 0 {
		return ref{}
	}
	if len(list) == 1 && depth > 0 {
		return list[0].ref
	}
	n := &inner{}
	for len(list) > 0 {
		b := nibble(list[0].key, depth)
		end := 1
		for end < len(list) && nibble(list[end].key, depth) == b {
			end++
		}
		n.bits |= 1 << b
		n.kids = append(n.kids, a.grow(depth+1, list[:end]))
		list = list[end:]
	}
	return a.newInner(n)
}

func (a *applier) newInner(n *inner) ref {
	r := ref{node: n}
	r.hash, a.scratch = hashInner(a.scratch, n)
	return r
}

func (a *applier) applyInner(r ref, n *inner, depth int, changes []Change) (ref, error) {
	if depth == maxDepth {
		return r, errTooDeep
	}
	var e edits
	for len(changes) > 0 {
		b, end := group(changes, depth)
		if err := a.edit(&e, n, b, depth, changes[:end]); err != nil {
			return r, err
		}
		changes = changes[end:]
	}
	return a.join(r, n, depth, &e), nil
}

// edits are the branches of an inner node that become something else; an empty
// ref is a branch that goes away.
type edits struct {
	kids    [fanout]ref
	changed [fanout]bool
}

// edit makes the changes that belong into one branch.
func (a *applier) edit(e *edits, n *inner, branch, depth int, changes []Change) error {
	var old ref
	if k := n.at(branch); k != nil {
		old = *k
	}
	kid, err := a.apply(old, depth+1, changes)
	if err != nil {
		return err
	}
	if kid.hash != old.hash {
		e.kids[branch], e.changed[branch] = kid, true
	}
	return nil
}

// group returns the branch of the first change and how many changes go there.
func group(changes []Change, depth int) (branch, end int) {
	branch = nibble(&changes[0].Key, depth)
	for end = 1; end < len(changes) && nibble(&changes[end].Key, depth) == branch; end++ {
	}
	return branch, end
}

// join returns an inner node with its edits.
func (a *applier) join(r ref, n *inner, depth int, e *edits) ref {
	if e.changed == ([fanout]bool{}) {
		return r
	}
	out := &inner{kids: make([]ref, 0, fanout)}
	for i := range fanout {
		k := n.at(i)
		if e.changed[i] {
			k = &e.kids[i]
		}
		if k != nil && !k.empty() {
			out.bits |= 1 << i
			out.kids = append(out.kids, *k)
		}
	}
	a.drop(&r)
	if len(out.kids) == 0 {
		return ref{}
	}
	if len(out.kids) == 1 && depth > 0 && out.kids[0].leaf {
		return out.kids[0]
	}
	out.kids = slices.Clip(out.kids)
	return a.newInner(out)
}

// applyParallel does at the root what applyInner does, with the branches
// shared out among the cores.
func (m Map) applyParallel(changes []Change) (ref, counts, error) {
	top := &inner{}
	if !m.root.empty() {
		n, err := m.load(&m.root)
		if err != nil {
			return m.root, counts{}, err
		}
		var ok bool
		if top, ok = n.(*inner); !ok {
			return m.root, counts{}, fmt.Errorf("%w: the root is a leaf", ErrDamaged)
		}
	}
	type task struct {
		branch  int
		changes []Change
	}
	var tasks []task
	for rest := changes; len(rest) > 0; {
		b, end := group(rest, 0)
		tasks = append(tasks, task{b, rest[:end]})
		rest = rest[end:]
	}
	var e edits // each branch is written by one goroutine only
	workers := make([]applier, min(runtime.GOMAXPROCS(0), len(tasks)))
	errs := make([]error, len(workers))
	var next atomic.Int32
	var wg sync.WaitGroup
	for w := range workers {
		workers[w].m = m
		wg.Go(func() {
			a := &workers[w]
			for {
				i := int(next.Add(1)) - 1
				if i >= len(tasks) {
					return
				}
				if err := a.edit(&e, top, tasks[i].branch, 0, tasks[i].changes); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	var sum applier
	sum.m = m
	for w := range workers {
		if errs[w] != nil {
			return m.root, counts{}, errs[w]
		}
		sum.entries += workers[w].entries
		sum.bytes += workers[w].bytes
	}
	root := sum.join(m.root, top, 0, &e)
	return root, sum.counts, nil
}
