package tx

import (
	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

var trustSet = Transactor{
	Flags: xahau.TfSetfAuth | xahau.TfSetNoRipple | xahau.TfClearNoRipple | xahau.TfSetFreeze | xahau.TfClearFreeze,
	Preflight: func(t *xahau.Object, _ *view.Ledger) ter.Code {
		limit := t.Amount(field.LimitAmount)
		switch {
		case !legalNet(limit):
			return ter.TemBAD_AMOUNT
		case limit.IsNative():
			return ter.TemBAD_LIMIT
		case badCurrency(limit.Currency()):
			return ter.TemBAD_CURRENCY
		case limit.Signum() < 0:
			return ter.TemBAD_LIMIT
		case limit.Issuer().IsZero() || limit.Issuer() == xahau.AccountOne:
			return ter.TemDST_NEEDED
		}
		return ter.TesSUCCESS
	},
	Preclaim: func(c *Context) ter.Code {
		limit := c.Tx.Amount(field.LimitAmount)
		peer := limit.Issuer()
		if c.Tx.Flags()&xahau.TfSetfAuth != 0 && c.Root().Flags()&xahau.LsfRequireAuth == 0 {
			return ter.TefNO_AUTH_REQUIRED
		}
		if peer == c.Account {
			return ter.TemDST_IS_SRC
		}
		dst := c.View.Read(keylet.Account(peer))
		if dst == nil {
			return ter.TecNO_DST
		}
		if dst.Flags()&xahau.LsfDisallowIncomingTrustline != 0 && !view.Exists(c.View, keylet.Line(c.Account, peer, limit.Currency())) {
			return ter.TecNO_PERMISSION
		}
		return ter.TesSUCCESS
	},
	Apply: applyTrustSet,
}

func applyTrustSet(c *Context) ter.Code {
	t, flags := c.Tx, c.Tx.Flags()
	limit := t.Amount(field.LimitAmount)
	peer, currency := limit.Issuer(), limit.Currency()
	// The first two entries of an account need no reserve, so that a new user can
	// hold currencies.
	canReserve := c.Root().Uint32(field.OwnerCount) < 2 || c.CanReserve(1)
	in, setIn := xahau.Lookup[xahau.Uint32](t, field.QualityIn)
	out, setOut := xahau.Lookup[xahau.Uint32](t, field.QualityOut)
	if out == view.RateOne {
		out = 0
	}
	setNoRipple, clearNoRipple := flags&xahau.TfSetNoRipple != 0, flags&xahau.TfClearNoRipple != 0
	setFreeze, clearFreeze := flags&xahau.TfSetFreeze != 0, flags&xahau.TfClearFreeze != 0
	setAuth := flags&xahau.TfSetfAuth != 0

	k := keylet.Line(c.Account, peer, currency)
	line := view.Edit(c.View, k)
	if line == nil {
		switch {
		case limit.Signum() == 0 && in == 0 && out == 0 && !setAuth:
			return ter.TecNO_LINE_REDUNDANT
		case !canReserve:
			return ter.TecNO_LINE_INSUF_RESERVE
		}
		return view.TrustCreate(c.View, view.NewLine{
			Account: c.Account, Peer: peer, Limit: limit.WithIssuer(c.Account),
			Balance: xahau.Issue{Currency: currency, Issuer: xahau.AccountOne}.Zero(),
			Auth:    setAuth, NoRipple: setNoRipple && !clearNoRipple, Freeze: setFreeze && !clearFreeze,
			QualityIn: uint32(in), QualityOut: uint32(out),
		})
	}

	mine, theirs := view.SideOf(c.Account, peer), view.SideOf(peer, c.Account)
	line.Set(mine.Limit, limit.WithIssuer(c.Account))
	for _, q := range []struct {
		set   bool
		value xahau.Uint32
		code  field.Code
	}{{setIn, in, mine.QualityIn}, {setOut, out, mine.QualityOut}} {
		switch {
		case q.set && q.value != 0:
			line.Set(q.code, q.value)
		case q.set:
			line.Delete(q.code)
		}
	}
	before := line.Flags()
	after := before
	balance := mine.Signed(line.Amount(field.Balance))
	switch {
	case setNoRipple && !clearNoRipple:
		if balance.Signum() < 0 {
			return ter.TecNO_PERMISSION
		}
		after |= mine.NoRipple
	case clearNoRipple && !setNoRipple:
		after &^= mine.NoRipple
	}
	switch {
	case setFreeze && !clearFreeze && c.Root().Flags()&xahau.LsfNoFreeze == 0:
		after |= mine.Freeze
	case clearFreeze && !setFreeze:
		after &^= mine.Freeze
	}

	// A side pays the reserve for the line if anything on it is not as it would be
	// without a line.
	needs := func(s view.Side, account xahau.AccountID, balance xahau.Amount) bool {
		quality := func(code field.Code) bool { q := line.Uint32(code); return q != 0 && q != view.RateOne }
		ripples := c.View.Read(keylet.Account(account)).Flags()&xahau.LsfDefaultRipple != 0
		return quality(s.QualityIn) || quality(s.QualityOut) || (after&s.NoRipple == 0) != ripples ||
			after&s.Freeze != 0 || line.Amount(s.Limit).Signum() != 0 || balance.Signum() > 0
	}
	mineNeeded, theirsNeeded := needs(mine, c.Account, balance), needs(theirs, peer, balance.Negate())
	if setAuth {
		after |= mine.Auth
	}
	more := false
	for _, s := range []struct {
		side    view.Side
		account xahau.AccountID
		needed  bool
	}{{mine, c.Account, mineNeeded}, {theirs, peer, theirsNeeded}} {
		switch reserved := before&s.side.Reserve != 0; {
		case s.needed && !reserved:
			view.AdjustOwnerCount(c.View, s.account, 1)
			after |= s.side.Reserve
			more = more || s.account == c.Account
		case !s.needed && reserved:
			view.AdjustOwnerCount(c.View, s.account, -1)
			after &^= s.side.Reserve
		}
	}
	line.Set(field.Flags, xahau.Uint32(after))
	if !mineNeeded && !theirsNeeded || badCurrency(currency) {
		c.View.Update(k, line)
		return view.TrustDelete(c.View, c.Account, peer, currency)
	}
	if more && !canReserve {
		return ter.TecINSUF_RESERVE_LINE
	}
	c.View.Update(k, line)
	return ter.TesSUCCESS
}
