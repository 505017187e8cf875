package tx

import (
	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
	"evernode/xahau/xfl"
)

var checkCreate = Transactor{
	Preflight: func(t *xahau.Object, _ *view.Ledger) ter.Code {
		most := t.Amount(field.SendMax)
		expiration, expires := xahau.Lookup[xahau.Uint32](t, field.Expiration)
		switch {
		case t.Account(field.Account) == t.Account(field.Destination):
			return ter.TemREDUNDANT
		case !legalNet(most) || most.Signum() <= 0:
			return ter.TemBAD_AMOUNT
		case badCurrency(most.Currency()):
			return ter.TemBAD_CURRENCY
		case expires && expiration == 0:
			return ter.TemBAD_EXPIRATION
		}
		return ter.TesSUCCESS
	},
	Preclaim: func(c *Context) ter.Code {
		to := c.Tx.Account(field.Destination)
		dst := c.View.Read(keylet.Account(to))
		switch {
		case dst == nil:
			return ter.TecNO_DST
		case dst.Flags()&xahau.LsfDisallowIncomingCheck != 0:
			return ter.TecNO_PERMISSION
		case dst.Flags()&xahau.LsfRequireDestTag != 0 && !c.Tx.Has(field.DestinationTag):
			return ter.TecDST_TAG_NEEDED
		}
		if most := c.Tx.Amount(field.SendMax); !most.IsNative() {
			issuer := most.Issuer()
			if view.GloballyFrozen(c.View, issuer) {
				return ter.TecFROZEN
			}
			if issuer != c.Account && view.LineFrozen(c.View, c.Account, most.Issue()) {
				return ter.TecFROZEN
			}
			if issuer != to {
				line := c.View.Read(keylet.Line(issuer, to, most.Currency()))
				if line != nil && line.Flags()&view.SideOf(to, issuer).Freeze != 0 {
					return ter.TecFROZEN
				}
			}
		}
		if expired(c.View, c.Tx) {
			return ter.TecEXPIRED
		}
		return ter.TesSUCCESS
	},
	Apply: func(c *Context) ter.Code {
		if !c.CanReserve(1) {
			return ter.TecINSUFFICIENT_RESERVE
		}
		t, to := c.Tx, c.Tx.Account(field.Destination)
		k := keylet.Check(c.Account, c.Sequence())
		o := view.NewEntry(k)
		o.Set(field.Account, c.Account)
		o.Set(field.Destination, to)
		o.Set(field.Sequence, xahau.Uint32(c.SequenceNumber()))
		o.Set(field.SendMax, t.Amount(field.SendMax))
		for _, code := range []field.Code{field.SourceTag, field.DestinationTag, field.InvoiceID, field.Expiration} {
			o.Set(code, t.Get(code))
		}
		page, ok := view.DirInsert(c.View, keylet.OwnerDirectory(to), k.Index, view.OwnedBy(to))
		if !ok {
			return ter.TecDIR_FULL
		}
		o.Set(field.DestinationNode, xahau.Uint64(page))
		return c.Own(k, o)
	},
}

// checkKeylet is the check that a transaction names.
func checkKeylet(t *xahau.Object) keylet.Keylet {
	return keylet.Keylet{Type: xahau.EntryCheck, Index: t.Hash(field.CheckID)}
}

// removeCheck removes a check from both accounts and the ledger.
func removeCheck(v view.View, k keylet.Keylet) ter.Code {
	o := v.Read(k)
	from, to := o.Account(field.Account), o.Account(field.Destination)
	if from != to && !view.DirRemove(v, keylet.OwnerDirectory(to), o.Uint64(field.DestinationNode), k.Index, true) {
		return ter.TefBAD_LEDGER
	}
	return disown(v, from, k, true)
}

var checkCancel = Transactor{
	Preclaim: func(c *Context) ter.Code {
		o := c.View.Read(checkKeylet(c.Tx))
		switch {
		case o == nil:
			return ter.TecNO_ENTRY
		case !expired(c.View, o) && c.Account != o.Account(field.Account) && c.Account != o.Account(field.Destination):
			return ter.TecNO_PERMISSION
		}
		return ter.TesSUCCESS
	},
	Apply: func(c *Context) ter.Code { return removeCheck(c.View, checkKeylet(c.Tx)) },
}

var checkCash = Transactor{
	Preflight: func(t *xahau.Object, _ *view.Ledger) ter.Code {
		if t.Has(field.Amount) == t.Has(field.DeliverMin) {
			return ter.TemMALFORMED
		}
		switch value := cashed(t); {
		case !legalNet(value) || value.Signum() <= 0:
			return ter.TemBAD_AMOUNT
		case badCurrency(value.Currency()):
			return ter.TemBAD_CURRENCY
		}
		return ter.TesSUCCESS
	},
	Preclaim: preclaimCheckCash,
	Apply:    applyCheckCash,
}

// cashed is the amount, or the least amount, that a CheckCash asks for.
func cashed(t *xahau.Object) xahau.Amount {
	if a, ok := xahau.Lookup[xahau.Amount](t, field.Amount); ok {
		return a
	}
	return t.Amount(field.DeliverMin)
}

func preclaimCheckCash(c *Context) ter.Code {
	o := c.View.Read(checkKeylet(c.Tx))
	if o == nil {
		return ter.TecNO_ENTRY
	}
	from, to := o.Account(field.Account), o.Account(field.Destination)
	if c.Account != to {
		return ter.TecNO_PERMISSION
	}
	if from == to {
		return ter.TecINTERNAL
	}
	dst := c.Root()
	switch {
	case !view.Exists(c.View, keylet.Account(from)):
		return ter.TecNO_ENTRY
	case dst.Flags()&xahau.LsfRequireDestTag != 0 && !o.Has(field.DestinationTag):
		return ter.TecDST_TAG_NEEDED
	case expired(c.View, o):
		return ter.TecEXPIRED
	}
	value, most := cashed(c.Tx), o.Amount(field.SendMax)
	if value.Issue() != most.Issue() {
		return ter.TemMALFORMED
	}
	if value.Cmp(most) > 0 {
		return ter.TecPATH_PARTIAL
	}
	funds := view.Funds(c.View, from, value)
	if value.IsNative() {
		// The check's own reserve becomes free.
		funds = xahau.Drops(funds.Drops() + c.View.Ledger().Fees.Increment)
	}
	if value.Cmp(funds) > 0 {
		return ter.TecPATH_PARTIAL
	}
	issuer := value.Issuer()
	if value.IsNative() || issuer == to {
		return ter.TesSUCCESS
	}
	root := c.View.Read(keylet.Account(issuer))
	if root == nil {
		return ter.TecNO_ISSUER
	}
	if root.Flags()&xahau.LsfRequireAuth != 0 {
		line := c.View.Read(keylet.Line(to, issuer, value.Currency()))
		if line == nil || line.Flags()&view.SideOf(issuer, to).Auth == 0 {
			return ter.TecNO_AUTH
		}
	}
	if view.Frozen(c.View, to, value.Issue()) {
		return ter.TecFROZEN
	}
	return ter.TesSUCCESS
}

func applyCheckCash(c *Context) ter.Code {
	k := checkKeylet(c.Tx)
	o := c.View.Read(k)
	from := o.Account(field.Account)
	most, value := o.Amount(field.SendMax), cashed(c.Tx)
	flexible := c.Tx.Has(field.DeliverMin)
	if !most.IsNative() {
		if code := cashIssued(c, from, value, most, flexible); code != ter.TesSUCCESS {
			return code
		}
		return removeCheck(c.View, k)
	}
	liquid := view.Liquid(c.View, from, -1)
	drops := value.Drops()
	if flexible {
		drops = max(drops, min(most.Drops(), liquid))
	}
	if liquid < drops {
		return ter.TecUNFUNDED_PAYMENT
	}
	if flexible {
		delivered := xahau.Drops(drops)
		c.Delivered = &delivered
	}
	view.AddDrops(c.View, from, -drops)
	view.AddDrops(c.View, c.Account, drops)
	return removeCheck(c.View, k)
}

// cashIssued moves what a check of an issued currency is good for. Who cashes it
// wants it, so the limit of its trust line does not count, and the line is made if
// it is not there.
func cashIssued(c *Context, from xahau.AccountID, value, most xahau.Amount, flexible bool) ter.Code {
	issuer, currency := value.Issuer(), value.Currency()
	lk := keylet.Line(c.Account, issuer, currency)
	if c.Account != issuer && !view.Exists(c.View, lk) {
		if !c.CanReserve(1) {
			return ter.TecNO_LINE_INSUF_RESERVE
		}
		code := view.TrustCreate(c.View, view.NewLine{
			Account: c.Account, Peer: issuer,
			Limit:    xahau.Issue{Currency: currency, Issuer: c.Account}.Zero(),
			Balance:  xahau.Issue{Currency: currency, Issuer: xahau.AccountOne}.Zero(),
			NoRipple: c.Root().Flags()&xahau.LsfDefaultRipple == 0,
		})
		if code != ter.TesSUCCESS {
			return code
		}
	}
	s := view.NewSandbox(c.View)
	side := view.SideOf(c.Account, issuer)
	var limit xahau.Amount
	if c.Account != issuer {
		line := view.Edit(s, lk)
		limit = line.Amount(side.Limit)
		line.Set(side.Limit, largest(xahau.Issue{Currency: currency, Issuer: c.Account}, xfl.MaxExponent))
		s.Update(lk, line)
	}
	f := Flow{From: from, To: c.Account, Deliver: value, SendMax: most, Partial: flexible}
	if flexible {
		f.Deliver = largest(value.Issue(), xfl.MaxExponent-1)
	}
	out, code := f.Run(s)
	if code != ter.TesSUCCESS {
		return code
	}
	if flexible && out.Cmp(value) < 0 {
		return ter.TecPATH_PARTIAL
	}
	if c.Account != issuer {
		if line := view.Edit(s, lk); line != nil {
			line.Set(side.Limit, limit)
			s.Update(lk, line)
		}
	}
	c.Delivered = &out
	s.Apply(c.View)
	c.Weak = append(c.Weak, changedHolders(c.View)...)
	return ter.TesSUCCESS
}

// largest is about the largest amount of an issue.
func largest(i xahau.Issue, exponent int) xahau.Amount {
	v, err := xfl.New(xfl.MaxMantissa, exponent, false)
	if err != nil {
		return i.Zero()
	}
	return xahau.Issued(v, i.Currency, i.Issuer)
}
