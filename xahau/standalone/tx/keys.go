package tx

import (
	"bytes"
	"slices"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// The transactors of who may sign for an account and pay to it.

var setRegularKey = Transactor{
	Preflight: func(t *xahau.Object, _ *view.Ledger) ter.Code {
		if key, ok := xahau.Lookup[xahau.AccountID](t, field.RegularKey); ok && key == t.Account(field.Account) {
			return ter.TemBAD_REGKEY
		}
		return ter.TesSUCCESS
	},
	Fee: func(r view.Reader, t *xahau.Object, general int64) int64 {
		if freeKeyChange(r, t) {
			return 0
		}
		return general
	},
	Apply: func(c *Context) ter.Code {
		root := view.Edit(c.View, keylet.Account(c.Account))
		if freeKeyChange(c.View, c.Tx) {
			root.Set(field.Flags, xahau.Uint32(root.Flags()|xahau.LsfPasswordSpent))
		}
		if key, ok := xahau.Lookup[xahau.AccountID](c.Tx, field.RegularKey); ok {
			root.Set(field.RegularKey, key)
		} else {
			if root.Flags()&xahau.LsfDisableMaster != 0 && !view.Exists(c.View, keylet.SignerList(c.Account)) {
				return ter.TecNO_ALTERNATIVE_KEY
			}
			root.Delete(field.RegularKey)
		}
		c.View.Update(keylet.Account(c.Account), root)
		return ter.TesSUCCESS
	},
}

// freeKeyChange tells whether an account may change its key without a fee: once,
// with the master key, until somebody pays to it.
func freeKeyChange(r view.Reader, t *xahau.Object) bool {
	root := r.Read(keylet.Account(t.Account(field.Account)))
	return root != nil && signedWithMaster(t) && root.Flags()&xahau.LsfPasswordSpent == 0
}

var signerListSet = Transactor{
	Preflight: func(t *xahau.Object, _ *view.Ledger) ter.Code {
		quorum, has := t.Uint32(field.SignerQuorum), t.Has(field.SignerEntries)
		if quorum == 0 && !has {
			return ter.TesSUCCESS
		}
		if quorum == 0 || !has {
			return ter.TemMALFORMED
		}
		list := t.Array(field.SignerEntries)
		if len(list) == 0 || len(list) > maxSigners {
			return ter.TemMALFORMED
		}
		for _, s := range list {
			if s.Field != field.SignerEntry {
				return ter.TemMALFORMED
			}
		}
		list = sortedSigners(list)
		sum := uint64(0)
		for i, s := range list {
			if i > 0 && list[i-1].Object.Account(field.Account) == s.Object.Account(field.Account) {
				return ter.TemBAD_SIGNER
			}
		}
		for _, s := range list {
			weight := s.Object.Uint16(field.SignerWeight)
			if weight == 0 {
				return ter.TemBAD_WEIGHT
			}
			sum += uint64(weight)
			if s.Object.Account(field.Account) == t.Account(field.Account) {
				return ter.TemBAD_SIGNER
			}
		}
		if sum < uint64(quorum) {
			return ter.TemBAD_QUORUM
		}
		return ter.TesSUCCESS
	},
	Apply: func(c *Context) ter.Code {
		quorum := c.Tx.Uint32(field.SignerQuorum)
		root := c.Root()
		if quorum == 0 {
			if root.Flags()&xahau.LsfDisableMaster != 0 && !root.Has(field.RegularKey) {
				return ter.TecNO_ALTERNATIVE_KEY
			}
			return removeSignerList(c.View, c.Account)
		}
		if code := removeSignerList(c.View, c.Account); code != ter.TesSUCCESS {
			return code
		}
		if !c.CanReserve(1) {
			return ter.TecINSUFFICIENT_RESERVE
		}
		k := keylet.SignerList(c.Account)
		o := view.NewEntry(k)
		o.Set(field.Flags, xahau.Uint32(xahau.LsfOneOwnerCount))
		o.Set(field.SignerQuorum, xahau.Uint32(quorum))
		o.Set(field.SignerListID, xahau.Uint32(0))
		o.Set(field.SignerEntries, sortedSigners(c.Tx.Array(field.SignerEntries)))
		return c.Own(k, o)
	},
}

func sortedSigners(list xahau.Array) xahau.Array {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b xahau.Element) int {
		x, y := a.Object.Account(field.Account), b.Object.Account(field.Account)
		return bytes.Compare(x[:], y[:])
	})
	return list
}

func removeSignerList(v view.View, account xahau.AccountID) ter.Code {
	k := keylet.SignerList(account)
	o := v.Read(k)
	if o == nil {
		return ter.TesSUCCESS
	}
	if !view.DirRemove(v, keylet.OwnerDirectory(account), o.Uint64(field.OwnerNode), k.Index, false) {
		return ter.TefBAD_LEDGER
	}
	view.AdjustOwnerCount(v, account, -1)
	v.Erase(k)
	return ter.TesSUCCESS
}

var depositPreauth = Transactor{
	Preflight: func(t *xahau.Object, _ *view.Ledger) ter.Code {
		yes, hasYes := xahau.Lookup[xahau.AccountID](t, field.Authorize)
		no, hasNo := xahau.Lookup[xahau.AccountID](t, field.Unauthorize)
		switch {
		case hasYes == hasNo:
			return ter.TemMALFORMED
		case hasYes && yes.IsZero() || hasNo && no.IsZero():
			return ter.TemINVALID_ACCOUNT_ID
		case hasYes && yes == t.Account(field.Account):
			return ter.TemCANNOT_PREAUTH_SELF
		}
		return ter.TesSUCCESS
	},
	Preclaim: func(c *Context) ter.Code {
		if yes, ok := xahau.Lookup[xahau.AccountID](c.Tx, field.Authorize); ok {
			switch {
			case !view.Exists(c.View, keylet.Account(yes)):
				return ter.TecNO_TARGET
			case view.Exists(c.View, keylet.DepositPreauth(c.Account, yes)):
				return ter.TecDUPLICATE
			}
			return ter.TesSUCCESS
		}
		if !view.Exists(c.View, keylet.DepositPreauth(c.Account, c.Tx.Account(field.Unauthorize))) {
			return ter.TecNO_ENTRY
		}
		return ter.TesSUCCESS
	},
	Apply: func(c *Context) ter.Code {
		yes, ok := xahau.Lookup[xahau.AccountID](c.Tx, field.Authorize)
		if !ok {
			return disown(c.View, c.Account, keylet.DepositPreauth(c.Account, c.Tx.Account(field.Unauthorize)), false)
		}
		if !c.CanReserve(1) {
			return ter.TecINSUFFICIENT_RESERVE
		}
		k := keylet.DepositPreauth(c.Account, yes)
		o := view.NewEntry(k)
		o.Set(field.Account, c.Account)
		o.Set(field.Authorize, yes)
		return c.Own(k, o)
	},
}
