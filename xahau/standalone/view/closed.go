package view

import (
	"fmt"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/shamap"
)

const (
	fieldEntryType = field.LedgerEntryType
	fieldFlags     = field.Flags
)

// State is the tree of a ledger's entries, such as a shamap.Map.
type State interface {
	Get(key shamap.Key) ([]byte, error)
	Next(key shamap.Key) (shamap.Entry, bool, error)
}

// Closed reads the state of a closed ledger on which the next one is built. It
// keeps the entries that it has decoded. It is for one goroutine.
type Closed struct {
	state   State
	ledger  Ledger
	entries map[xahau.Hash256]*xahau.Object
	err     error
}

// NewClosed makes a reader of a state for transactions of the given next ledger.
func NewClosed(state State, next Ledger) *Closed {
	return &Closed{state: state, ledger: next, entries: make(map[xahau.Hash256]*xahau.Object)}
}

// Ledger tells which ledger is being built.
func (c *Closed) Ledger() *Ledger { return &c.ledger }

// Err is the first failure of the store.
func (c *Closed) Err() error { return c.err }

// Fail notes a failure.
func (c *Closed) Fail(err error) {
	if c.err == nil {
		c.err = fmt.Errorf("ledger %d: %w", c.ledger.Seq, err)
	}
}

// Read gives an entry, see Reader.
func (c *Closed) Read(k keylet.Keylet) *xahau.Object {
	o, ok := c.entries[k.Index]
	if !ok {
		o = c.load(k.Index)
		if c.err != nil {
			return nil
		}
		c.entries[k.Index] = o
	}
	return typed(o, k)
}

func (c *Closed) load(index xahau.Hash256) *xahau.Object {
	if c.err != nil {
		return nil
	}
	b, err := c.state.Get(shamap.Key(index))
	if err != nil {
		c.Fail(fmt.Errorf("read entry %s: %w", index, err))
		return nil
	}
	if b == nil {
		return nil
	}
	o, err := c.ledger.Defs.Decode(b)
	if err != nil {
		c.Fail(fmt.Errorf("entry %s: %w", index, err))
		return nil
	}
	return o
}

// Next gives the next index, see Reader.
func (c *Closed) Next(low, high xahau.Hash256) (xahau.Hash256, bool) {
	if c.err != nil {
		return xahau.Hash256{}, false
	}
	e, ok, err := c.state.Next(shamap.Key(low))
	if err != nil {
		c.Fail(fmt.Errorf("read what follows entry %s: %w", low, err))
		return xahau.Hash256{}, false
	}
	if index := xahau.Hash256(e.Key); ok && index.Compare(high) <= 0 {
		return index, true
	}
	return xahau.Hash256{}, false
}

// typed gives o if a keylet asks for its type.
func typed(o *xahau.Object, k keylet.Keylet) *xahau.Object {
	if o == nil || k.Type != xahau.EntryAny && o.EntryType() != k.Type {
		return nil
	}
	return o
}
