package tx

import (
	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// Bounds of AccountSet.
const (
	maxDomain   = 256
	minTickSize = 3
	maxTickSize = 16
)

var accountSet = Transactor{
	Flags: xahau.TfRequireDestTag | xahau.TfOptionalDestTag | xahau.TfRequireAuth | xahau.TfOptionalAuth |
		xahau.TfDisallowXRP | xahau.TfAllowXRP,
	Preflight: preflightAccountSet,
	Preclaim: func(c *Context) ter.Code {
		if setsOld(c.Tx, xahau.TfRequireAuth, xahau.AsfRequireAuth) && c.Root().Flags()&xahau.LsfRequireAuth == 0 &&
			!view.DirEmpty(c.View, keylet.OwnerDirectory(c.Account)) {
			if c.Retry {
				return ter.TerOWNERS
			}
			return ter.TecOWNERS
		}
		return ter.TesSUCCESS
	},
	Apply: applyAccountSet,
}

// oldFlags are the settings that have a flag of the transaction besides SetFlag and
// ClearFlag.
var oldFlags = []struct{ set, clear, asf, lsf uint32 }{
	{xahau.TfRequireAuth, xahau.TfOptionalAuth, xahau.AsfRequireAuth, xahau.LsfRequireAuth},
	{xahau.TfRequireDestTag, xahau.TfOptionalDestTag, xahau.AsfRequireDest, xahau.LsfRequireDestTag},
	{xahau.TfDisallowXRP, xahau.TfAllowXRP, xahau.AsfDisallowXRP, xahau.LsfDisallowXRP},
}

// plainFlags are the settings without conditions.
var plainFlags = []struct{ asf, lsf uint32 }{
	{xahau.AsfDefaultRipple, xahau.LsfDefaultRipple},
	{xahau.AsfDepositAuth, xahau.LsfDepositAuth},
	{xahau.AsfTshCollect, xahau.LsfTshCollect},
	{xahau.AsfDisallowIncomingNFTokenOffer, xahau.LsfDisallowIncomingNFTokenOffer},
	{xahau.AsfDisallowIncomingCheck, xahau.LsfDisallowIncomingCheck},
	{xahau.AsfDisallowIncomingPayChan, xahau.LsfDisallowIncomingPayChan},
	{xahau.AsfDisallowIncomingTrustline, xahau.LsfDisallowIncomingTrustline},
	{xahau.AsfDisallowIncomingRemit, xahau.LsfDisallowIncomingRemit},
}

func setsOld(t *xahau.Object, tf, asf uint32) bool {
	return t.Flags()&tf != 0 || t.Uint32(field.SetFlag) == asf
}

func clearsOld(t *xahau.Object, tf, asf uint32) bool {
	return t.Flags()&tf != 0 || t.Uint32(field.ClearFlag) == asf
}

func preflightAccountSet(t *xahau.Object, _ *view.Ledger) ter.Code {
	set, clr := t.Uint32(field.SetFlag), t.Uint32(field.ClearFlag)
	if set != 0 && set == clr {
		return ter.TemINVALID_FLAG
	}
	for _, f := range oldFlags {
		if setsOld(t, f.set, f.asf) && clearsOld(t, f.clear, f.asf) {
			return ter.TemINVALID_FLAG
		}
	}
	if rate := t.Uint32(field.TransferRate); rate != 0 && rate < view.RateOne || rate > 2*view.RateOne {
		return ter.TemBAD_TRANSFER_RATE
	}
	if tick := t.Uint8(field.TickSize); tick != 0 && (tick < minTickSize || tick > maxTickSize) {
		return ter.TemBAD_TICK_SIZE
	}
	if key := t.Blob(field.MessageKey); len(key) > 0 && !isKeyLike(key) {
		return ter.TelBAD_PUBLIC_KEY
	}
	if len(t.Blob(field.Domain)) > maxDomain {
		return ter.TelBAD_DOMAIN
	}
	if set == xahau.AsfAuthorizedNFTokenMinter && !t.Has(field.NFTokenMinter) ||
		clr == xahau.AsfAuthorizedNFTokenMinter && t.Has(field.NFTokenMinter) {
		return ter.TemMALFORMED
	}
	if t.Has(field.HookStateScale) {
		return ter.TemDISABLED // its amendment is still coming
	}
	return ter.TesSUCCESS
}

// isKeyLike tells whether bytes have the form of a public key, whether or not they
// are a point of the curve.
func isKeyLike(b []byte) bool {
	_, ok := publicKey(b)
	return ok
}

func applyAccountSet(c *Context) ter.Code {
	t, k := c.Tx, keylet.Account(c.Account)
	root := view.Edit(c.View, k)
	set, clr := t.Uint32(field.SetFlag), t.Uint32(field.ClearFlag)
	before := root.Flags()
	flags := before
	for _, f := range oldFlags {
		if setsOld(t, f.set, f.asf) {
			flags |= f.lsf
		}
		if clearsOld(t, f.clear, f.asf) {
			flags &^= f.lsf
		}
	}
	master := signedWithMaster(t)
	if set == xahau.AsfDisableMaster && before&xahau.LsfDisableMaster == 0 {
		if !master {
			return ter.TecNEED_MASTER_KEY
		}
		if !root.Has(field.RegularKey) && !view.Exists(c.View, keylet.SignerList(c.Account)) {
			return ter.TecNO_ALTERNATIVE_KEY
		}
		flags |= xahau.LsfDisableMaster
	}
	if clr == xahau.AsfDisableMaster {
		flags &^= xahau.LsfDisableMaster
	}
	if set == xahau.AsfNoFreeze {
		if !master && before&xahau.LsfDisableMaster == 0 {
			return ter.TecNEED_MASTER_KEY
		}
		flags |= xahau.LsfNoFreeze
	}
	if set == xahau.AsfGlobalFreeze {
		flags |= xahau.LsfGlobalFreeze
	}
	// Who has given up freezing cannot use the global freeze as a threat.
	if clr == xahau.AsfGlobalFreeze && flags&xahau.LsfNoFreeze == 0 {
		flags &^= xahau.LsfGlobalFreeze
	}
	if set == xahau.AsfAccountTxnID && !root.Has(field.AccountTxnID) {
		root.Set(field.AccountTxnID, xahau.Hash256{})
	}
	if clr == xahau.AsfAccountTxnID {
		root.Delete(field.AccountTxnID)
	}
	for _, f := range plainFlags {
		switch f.asf {
		case set:
			flags |= f.lsf
		case clr:
			flags &^= f.lsf
		}
	}
	if set == xahau.AsfAuthorizedNFTokenMinter {
		root.Set(field.NFTokenMinter, t.Account(field.NFTokenMinter))
	}
	if clr == xahau.AsfAuthorizedNFTokenMinter {
		root.Delete(field.NFTokenMinter)
	}
	// These fields are set to what the transaction says, or removed if that is the
	// value that stands for nothing.
	for _, f := range []struct {
		code  field.Code
		empty func(xahau.Value) bool
	}{
		{field.EmailHash, func(v xahau.Value) bool { return v == xahau.Hash128{} }},
		{field.WalletLocator, func(v xahau.Value) bool { return v == xahau.Hash256{} }},
		{field.MessageKey, isEmptyBlob},
		{field.Domain, isEmptyBlob},
		{field.TransferRate, func(v xahau.Value) bool { return v == xahau.Uint32(0) || v == xahau.Uint32(view.RateOne) }},
		{field.TickSize, func(v xahau.Value) bool { return v == xahau.Uint8(0) || v == xahau.Uint8(maxTickSize) }},
	} {
		v := t.Get(f.code)
		switch {
		case v == nil:
		case f.empty(v):
			root.Delete(f.code)
		default:
			root.Set(f.code, v)
		}
	}
	root.Set(field.Flags, xahau.Uint32(flags))
	c.View.Update(k, root)
	return ter.TesSUCCESS
}

func isEmptyBlob(v xahau.Value) bool {
	b, ok := v.(xahau.Blob)
	return ok && len(b) == 0
}
