package view

import (
	"evernode/xahau"
	"evernode/xahau/keylet"
)

// Fees are what the ledger asks for, in drops.
type Fees struct {
	// Base is the fee of the simplest transaction.
	Base int64
	// Reserve is what an account must keep, Increment what it must keep for each
	// entry that it owns.
	Reserve, Increment int64
}

// AccountReserve is what an account with a number of entries must keep, in drops.
func (f Fees) AccountReserve(owned uint32) int64 { return f.Reserve + int64(owned)*f.Increment }

// Ledger is what transactions know of the ledger that is being built.
type Ledger struct {
	Seq uint32
	// ParentHash and ParentCloseTime, in seconds since 2000, are those of the
	// ledger before.
	ParentHash      xahau.Hash256
	ParentCloseTime uint32
	Fees            Fees
	// NetworkID tells networks apart; transactions must name those above 1024.
	NetworkID uint32
	Defs      *xahau.Definitions
}

// Reader reads a ledger's state.
type Reader interface {
	// Read gives an entry, or nil if there is none, or none of the keylet's type
	// (EntryAny fits all). The entry must not be changed.
	Read(k keylet.Keylet) *xahau.Object
	// Next gives the first index above low and not above high.
	Next(low, high xahau.Hash256) (xahau.Hash256, bool)
	// Ledger tells which ledger this is.
	Ledger() *Ledger
	// Err is the first failure of the store, or within an isolated sandbox.
	Err() error
	// Fail makes Err give an error that wraps err, for what a reader finds in
	// entries that cannot be.
	Fail(err error)
}

// View reads and changes a ledger's state. Entries that are given to it must not
// be changed afterwards.
type View interface {
	Reader
	// Insert adds an entry where there is none.
	Insert(k keylet.Keylet, o *xahau.Object)
	// Update changes an entry that is there.
	Update(k keylet.Keylet, o *xahau.Object)
	// Erase removes an entry. Its content of now is what metadata shows as final.
	Erase(k keylet.Keylet)
}

// Edit gives a copy of an entry to change and give to Update, or nil.
func Edit(r Reader, k keylet.Keylet) *xahau.Object { return r.Read(k).Clone() }

// Exists tells whether there is an entry.
func Exists(r Reader, k keylet.Keylet) bool { return r.Read(k) != nil }

// NewEntry begins an entry of a type, with no flags.
func NewEntry(k keylet.Keylet) *xahau.Object {
	o := &xahau.Object{}
	o.Set(fieldEntryType, xahau.Uint16(k.Type))
	o.Set(fieldFlags, xahau.Uint32(0))
	return o
}
