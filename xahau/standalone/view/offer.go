package view

import (
	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

// DeleteOffer removes an offer from its owner, its order book and the ledger. It
// is false if the offer is not where it must be.
func DeleteOffer(v View, k keylet.Keylet) bool {
	o := v.Read(k)
	if o == nil {
		return false
	}
	owner := o.Account(field.Account)
	book := keylet.Keylet{Type: xahau.EntryDirectoryNode, Index: o.Hash(field.BookDirectory)}
	if !DirRemove(v, keylet.OwnerDirectory(owner), o.Uint64(field.OwnerNode), k.Index, false) ||
		!DirRemove(v, book, o.Uint64(field.BookNode), k.Index, false) {
		return false
	}
	AdjustOwnerCount(v, owner, -1)
	v.Erase(k)
	return true
}
