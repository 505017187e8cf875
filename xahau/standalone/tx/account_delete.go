package tx

import (
	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// Bounds of AccountDelete.
const (
	maxDeleted    = 1000
	deletionDelay = 255
)

// AccountDelete is not in force on the public network. There as here the first
// sequence number of an account is a time in seconds, so the network's own
// condition, which compares it with the number of the ledger, could never be met.
// Ours serves the same end: the account's next sequence number must lie behind the
// ledger's time, so that a new account at the same address begins above it.
var accountDelete = Transactor{
	Preflight: func(t *xahau.Object, _ *view.Ledger) ter.Code {
		if t.Account(field.Account) == t.Account(field.Destination) {
			return ter.TemDST_IS_SRC
		}
		return ter.TesSUCCESS
	},
	Fee:      func(r view.Reader, _ *xahau.Object, _ int64) int64 { return r.Ledger().Fees.Increment },
	Preclaim: preclaimAccountDelete,
	Apply:    applyAccountDelete,
}

func preclaimAccountDelete(c *Context) ter.Code {
	to := c.Tx.Account(field.Destination)
	dst := c.View.Read(keylet.Account(to))
	switch {
	case dst == nil:
		return ter.TecNO_DST
	case dst.Flags()&xahau.LsfRequireDestTag != 0 && !c.Tx.Has(field.DestinationTag):
		return ter.TecDST_TAG_NEEDED
	case dst.Flags()&xahau.LsfDepositAuth != 0 && !view.Exists(c.View, keylet.DepositPreauth(to, c.Account)):
		return ter.TecNO_PERMISSION
	}
	root := c.Root()
	if root.Has(field.ImportSequence) || root.Flags()&xahau.LsfURITokenIssuer != 0 ||
		root.Uint32(field.MintedNFTokens) != root.Uint32(field.BurnedNFTokens) {
		return ter.TecHAS_OBLIGATIONS
	}
	now := max(c.View.Ledger().Seq, c.View.Ledger().ParentCloseTime)
	if uint64(root.Uint32(field.Sequence))+deletionDelay > uint64(now) {
		return ter.TecTOO_SOON
	}
	if root.Has(field.HookNamespaces) || view.Exists(c.View, keylet.Hook(c.Account)) {
		return ter.TecHAS_OBLIGATIONS
	}
	count := 0
	for index := range view.Dir(c.View, keylet.OwnerDirectory(c.Account)) {
		o := c.View.Read(keylet.Keylet{Index: index})
		if o == nil {
			return ter.TefBAD_LEDGER
		}
		if !deletable(o.EntryType()) {
			return ter.TecHAS_OBLIGATIONS
		}
		if count++; count > maxDeleted {
			return ter.TefTOO_BIG
		}
	}
	return ter.TesSUCCESS
}

// deletable tells whether entries of a type go with their owner.
func deletable(t xahau.EntryType) bool {
	switch t {
	case xahau.EntryOffer, xahau.EntrySignerList, xahau.EntryTicket, xahau.EntryDepositPreauth, xahau.EntryURIToken:
		return true
	}
	return false
}

func applyAccountDelete(c *Context) ter.Code {
	dir := keylet.OwnerDirectory(c.Account)
	var owned []xahau.Hash256
	for index := range view.Dir(c.View, dir) {
		owned = append(owned, index)
	}
	for _, index := range owned {
		o := c.View.Read(keylet.Keylet{Index: index})
		if o == nil {
			continue // deleted with its ticket
		}
		k := keylet.Keylet{Type: o.EntryType(), Index: index}
		code := ter.TesSUCCESS
		switch o.EntryType() {
		case xahau.EntryOffer:
			if !view.DeleteOffer(c.View, k) {
				code = ter.TefBAD_LEDGER
			}
		case xahau.EntrySignerList:
			code = removeSignerList(c.View, c.Account)
		case xahau.EntryTicket:
			code = deleteTicket(c.View, c.Account, o.Uint32(field.TicketSequence))
		case xahau.EntryDepositPreauth, xahau.EntryURIToken:
			code = disown(c.View, c.Account, k, false)
		default:
			code = ter.TecHAS_OBLIGATIONS
		}
		if code != ter.TesSUCCESS {
			return code
		}
	}
	left := c.Source()
	editAccount(c.View, c.Tx.Account(field.Destination), func(dst *xahau.Object) {
		dst.Set(field.Balance, xahau.Drops(dst.Amount(field.Balance).Drops()+left))
		if left > 0 {
			dst.Set(field.Flags, xahau.Uint32(dst.Flags()&^xahau.LsfPasswordSpent))
		}
	})
	c.Edit(func(root *xahau.Object) { root.Set(field.Balance, xahau.Drops(0)) })
	delivered := xahau.Drops(left)
	c.Delivered = &delivered
	if page := c.View.Read(dir); page != nil {
		if len(page.Vector(field.Indexes)) > 0 || page.Uint64(field.IndexNext) != 0 {
			return ter.TecHAS_OBLIGATIONS
		}
		c.View.Erase(dir)
	}
	c.View.Erase(keylet.Account(c.Account))
	return ter.TesSUCCESS
}

// disown removes an entry that only its owner's directory lists.
func disown(v view.View, owner xahau.AccountID, k keylet.Keylet, keepRoot bool) ter.Code {
	o := v.Read(k)
	if o == nil || !view.DirRemove(v, keylet.OwnerDirectory(owner), o.Uint64(field.OwnerNode), k.Index, keepRoot) {
		return ter.TefBAD_LEDGER
	}
	view.AdjustOwnerCount(v, owner, -1)
	v.Erase(k)
	return ter.TesSUCCESS
}
