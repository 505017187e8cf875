package view

import (
	"fmt"
	"slices"

	"evernode/xahau"
	"evernode/xahau/keylet"
)

// Kind tells what happened to an entry.
type Kind uint8

// The kinds of changes.
const (
	Created Kind = iota
	Modified
	Deleted
)

// Change is what happened to an entry.
type Change struct {
	Kind  Kind
	Index xahau.Hash256
	// Before is the entry before, nil if it was created; After the entry after, or,
	// if it was deleted, as it was at last.
	Before, After *xahau.Object
}

// Sandbox collects changes. It is for one goroutine.
type Sandbox struct {
	parent  Reader
	changes map[xahau.Hash256]change
	created []xahau.Hash256 // indexes that are in no parent, in order
	// isolated sandboxes keep what goes wrong in them to themselves, as err.
	isolated bool
	err      error
}

type change struct {
	kind Kind
	last *xahau.Object
}

// NewSandbox makes a sandbox without changes.
func NewSandbox(parent Reader) *Sandbox {
	return &Sandbox{parent: parent, changes: make(map[xahau.Hash256]change)}
}

// NewIsolated makes a sandbox for one transaction. What its changes violate is an
// error of this sandbox, not of what it stands on: the transaction fails, others
// can go on.
func NewIsolated(parent Reader) *Sandbox {
	s := NewSandbox(parent)
	s.isolated = true
	return s
}

// Ledger tells which ledger is being built.
func (s *Sandbox) Ledger() *Ledger { return s.parent.Ledger() }

// Err is the first failure of the store, or of an isolated sandbox.
func (s *Sandbox) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.parent.Err()
}

// Fail notes a failure.
func (s *Sandbox) Fail(err error) {
	switch {
	case !s.isolated:
		s.parent.Fail(err)
	case s.err == nil:
		s.err = err
	}
}

// Discard forgets all changes and failures.
func (s *Sandbox) Discard() {
	clear(s.changes)
	s.created = nil
	s.err = nil
}

// Read gives an entry, see Reader.
func (s *Sandbox) Read(k keylet.Keylet) *xahau.Object {
	c, ok := s.changes[k.Index]
	switch {
	case !ok:
		return s.parent.Read(k)
	case c.kind == Deleted:
		return nil
	}
	return typed(c.last, k)
}

// Next gives the next index, see Reader.
func (s *Sandbox) Next(low, high xahau.Hash256) (xahau.Hash256, bool) {
	next, found := s.parent.Next(low, high)
	for found && s.changes[next].kind == Deleted {
		next, found = s.parent.Next(next, high)
	}
	i, exact := slices.BinarySearchFunc(s.created, low, xahau.Hash256.Compare)
	if exact {
		i++
	}
	if i < len(s.created) && s.created[i].Compare(high) <= 0 && (!found || s.created[i].Compare(next) < 0) {
		return s.created[i], true
	}
	return next, found
}

// Insert adds an entry, see View.
func (s *Sandbox) Insert(k keylet.Keylet, o *xahau.Object) {
	c, ok := s.changes[k.Index]
	switch {
	case ok && c.kind == Deleted:
		s.changes[k.Index] = change{Modified, o}
	case ok || s.parent.Read(anyType(k)) != nil:
		s.Fail(fmt.Errorf("insert entry %s: it exists", k.Index))
	default:
		s.changes[k.Index] = change{Created, o}
		i, _ := slices.BinarySearchFunc(s.created, k.Index, xahau.Hash256.Compare)
		s.created = slices.Insert(s.created, i, k.Index)
	}
}

// Update changes an entry, see View.
func (s *Sandbox) Update(k keylet.Keylet, o *xahau.Object) {
	c, ok := s.changes[k.Index]
	switch {
	case ok && c.kind == Deleted, !ok && s.parent.Read(anyType(k)) == nil:
		s.Fail(fmt.Errorf("update entry %s: it does not exist", k.Index))
	case ok:
		s.changes[k.Index] = change{c.kind, o}
	default:
		s.changes[k.Index] = change{Modified, o}
	}
}

// Erase removes an entry, see View.
func (s *Sandbox) Erase(k keylet.Keylet) {
	c, ok := s.changes[k.Index]
	switch {
	case ok && c.kind == Created:
		delete(s.changes, k.Index)
		i, _ := slices.BinarySearchFunc(s.created, k.Index, xahau.Hash256.Compare)
		s.created = slices.Delete(s.created, i, i+1)
	case ok && c.kind == Modified:
		s.changes[k.Index] = change{Deleted, c.last}
	case ok:
		s.Fail(fmt.Errorf("erase entry %s: it does not exist", k.Index))
	default:
		o := s.parent.Read(anyType(k))
		if o == nil {
			s.Fail(fmt.Errorf("erase entry %s: it does not exist", k.Index))
			return
		}
		s.changes[k.Index] = change{Deleted, o}
	}
}

func anyType(k keylet.Keylet) keylet.Keylet { return keylet.Keylet{Index: k.Index} }

// Len is the number of entries that were touched.
func (s *Sandbox) Len() int { return len(s.changes) }

// Changes gives what happened, by index. Entries that were given to Update without
// a difference are left out.
func (s *Sandbox) Changes() []Change {
	list := make([]Change, 0, len(s.changes))
	for index, c := range s.changes {
		ch := Change{Kind: c.kind, Index: index, After: c.last}
		if c.kind != Created {
			ch.Before = s.parent.Read(keylet.Keylet{Index: index})
		}
		if c.kind == Modified && (ch.Before == c.last || ch.Before.Equal(c.last)) {
			continue
		}
		list = append(list, ch)
	}
	slices.SortFunc(list, func(a, b Change) int { return a.Index.Compare(b.Index) })
	return list
}

// Apply makes the changes in what the sandbox stands on, which must be a View, and
// forgets them.
func (s *Sandbox) Apply(to View) {
	for _, c := range s.Changes() {
		k := keylet.Keylet{Type: c.After.EntryType(), Index: c.Index}
		switch c.Kind {
		case Created:
			to.Insert(k, c.After)
		case Modified:
			to.Update(k, c.After)
		case Deleted:
			if c.After != c.Before {
				to.Update(k, c.After)
			}
			to.Erase(k)
		}
	}
	s.Discard()
}
