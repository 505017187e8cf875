package tx

import (
	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// Offers gives the transactors of the order books. Offers cross those of the book
// directly between the two currencies; a bridge over the native currency is not
// looked for.
//
// Unlike on the network, OfferID does not let an account cancel the offers of
// others.
func Offers() Table {
	return Table{
		xahau.TxOfferCreate: {
			Flags:     xahau.TfPassive | xahau.TfImmediateOrCancel | xahau.TfFillOrKill | xahau.TfSell,
			Preflight: preflightOffer, Preclaim: preclaimOffer, Apply: applyOffer,
		},
		xahau.TxOfferCancel: {Preflight: preflightOfferCancel, Preclaim: preclaimOfferCancel, Apply: applyOfferCancel},
	}
}

func preflightOffer(t *xahau.Object, _ *view.Ledger) ter.Code {
	const both = xahau.TfImmediateOrCancel | xahau.TfFillOrKill
	pays, gets := t.Amount(field.TakerPays), t.Amount(field.TakerGets)
	switch {
	case t.Flags()&both == both:
		return ter.TemINVALID_FLAG
	case t.Has(field.Expiration) && t.Uint32(field.Expiration) == 0:
		return ter.TemBAD_EXPIRATION
	case t.Has(field.OfferSequence) && t.Uint32(field.OfferSequence) == 0, t.Has(field.OfferSequence) && t.Has(field.OfferID):
		return ter.TemBAD_SEQUENCE
	case !legalNet(pays) || !legalNet(gets):
		return ter.TemBAD_AMOUNT
	case pays.IsNative() && gets.IsNative(), pays.Signum() <= 0, gets.Signum() <= 0:
		return ter.TemBAD_OFFER
	case pays.Issue() == gets.Issue():
		return ter.TemREDUNDANT
	case badCurrency(pays.Currency()) || badCurrency(gets.Currency()):
		return ter.TemBAD_CURRENCY
	case pays.IsNative() != pays.Issuer().IsZero() || gets.IsNative() != gets.Issuer().IsZero():
		return ter.TemBAD_ISSUER
	}
	return ter.TesSUCCESS
}

func preclaimOffer(c *Context) ter.Code {
	pays, gets := c.Tx.Amount(field.TakerPays), c.Tx.Amount(field.TakerGets)
	switch {
	case view.GloballyFrozen(c.View, pays.Issuer()) || view.GloballyFrozen(c.View, gets.Issuer()):
		return ter.TecFROZEN
	case view.Funds(c.View, c.Account, gets).Signum() <= 0:
		return ter.TecUNFUNDED_OFFER
	}
	if code := checkOfferSequence(c); code != ter.TesSUCCESS {
		return code
	}
	if expired(c.View, c.Tx) {
		return ter.TecEXPIRED
	}
	return mayAccept(c, pays.Issue())
}

// checkOfferSequence tells whether the offer to cancel can be there already.
func checkOfferSequence(c *Context) ter.Code {
	if c.Tx.Has(field.OfferSequence) && c.Root().Uint32(field.Sequence) <= c.Tx.Uint32(field.OfferSequence) {
		return ter.TemBAD_SEQUENCE
	}
	return ter.TesSUCCESS
}

// mayAccept tells whether the account may hold a currency. What is not there yet
// may come with another transaction of the ledger.
func mayAccept(c *Context, i xahau.Issue) ter.Code {
	if i.IsNative() {
		return ter.TesSUCCESS
	}
	later := func(wait, claim ter.Code) ter.Code {
		if c.Retry {
			return wait
		}
		return claim
	}
	if !view.Exists(c.View, keylet.Account(i.Issuer)) {
		return later(ter.TerNO_ACCOUNT, ter.TecNO_ISSUER)
	}
	switch code := view.RequireAuth(c.View, i, c.Account); code {
	case ter.TecNO_LINE:
		return later(ter.TerNO_LINE, code)
	case ter.TecNO_AUTH:
		return later(ter.TerNO_AUTH, code)
	}
	return ter.TesSUCCESS
}

func applyOffer(c *Context) ter.Code {
	flags := c.Tx.Flags()
	if k, ok := offerToCancel(c); ok {
		if o := c.View.Read(k); o != nil && o.Account(field.Account) == c.Account && !view.DeleteOffer(c.View, k) {
			return ter.TefBAD_LEDGER
		}
	}
	if expired(c.View, c.Tx) {
		return ter.TecEXPIRED
	}
	pays, gets, code := tickSized(c)
	if code != ter.TesSUCCESS {
		return code
	}
	if pays.Signum() == 0 || gets.Signum() == 0 {
		return ter.TesSUCCESS // rounded to nothing
	}
	rate := xahau.Rate(pays, gets)

	x := &crossing{c: c, pays: pays, gets: gets}
	code = x.run()
	if code != ter.TesSUCCESS {
		return code
	}
	crossed := x.pays != pays || x.gets != gets
	pays, gets = x.pays, x.gets
	c.Weak = append(c.Weak, changedHolders(c.View)...)
	switch {
	case pays.Signum() < 0 || gets.Signum() < 0:
		return ter.TefINTERNAL
	case pays.Signum() == 0 || gets.Signum() == 0:
		return ter.TesSUCCESS
	case flags&xahau.TfFillOrKill != 0, flags&xahau.TfImmediateOrCancel != 0 && !crossed:
		return x.kill()
	case flags&xahau.TfImmediateOrCancel != 0:
		return ter.TesSUCCESS
	case !c.CanReserve(1) && crossed:
		return ter.TesSUCCESS
	case !c.CanReserve(1):
		return ter.TecINSUF_RESERVE_OFFER
	}
	return placeOffer(c, pays, gets, rate)
}

// tickSized gives what the offer pays and gets, rounded to the tick size of the
// issuers: the side that the offer does not insist on becomes a little better for
// who makes the offer.
func tickSized(c *Context) (pays, gets xahau.Amount, code ter.Code) {
	pays, gets = c.Tx.Amount(field.TakerPays), c.Tx.Amount(field.TakerGets)
	const most = 16
	digits := most
	for _, a := range []xahau.Amount{pays, gets} {
		if root := c.View.Read(keylet.Account(a.Issuer())); !a.IsNative() && root != nil && root.Has(field.TickSize) {
			digits = min(digits, int(root.Uint8(field.TickSize)))
		}
	}
	if digits >= most {
		return pays, gets, ter.TesSUCCESS
	}
	rate, err := xahau.RateAmount(roundRate(xahau.Rate(pays, gets), digits))
	if err != nil {
		return pays, gets, ter.TecINTERNAL
	}
	if c.Tx.Flags()&xahau.TfSell != 0 {
		pays, err = xahau.Multiply(gets, rate, pays.Issue())
	} else {
		gets, err = xahau.Divide(pays, rate, gets.Issue())
	}
	if err != nil {
		return pays, gets, ter.TecINTERNAL
	}
	return pays, gets, ter.TesSUCCESS
}

// roundRate rounds a rate up to a number of digits.
func roundRate(rate uint64, digits int) uint64 {
	step := uint64(1)
	for range 16 - digits {
		step *= 10
	}
	mantissa := rate&(1<<56-1) + step - 1
	return rate>>56<<56 | (mantissa - mantissa%step)
}

// offerToCancel gives the offer that the transaction takes back.
func offerToCancel(c *Context) (keylet.Keylet, bool) {
	if id, ok := xahau.Lookup[xahau.Hash256](c.Tx, field.OfferID); ok {
		return keylet.Keylet{Type: xahau.EntryOffer, Index: id}, true
	}
	if seq, ok := xahau.Lookup[xahau.Uint32](c.Tx, field.OfferSequence); ok {
		return keylet.Offer(c.Account, keylet.Seq(uint32(seq))), true
	}
	return keylet.Keylet{}, false
}

// placeOffer puts what is left of an offer into the order book, at the rate that it
// had before it crossed others.
func placeOffer(c *Context, pays, gets xahau.Amount, rate uint64) ter.Code {
	k := keylet.Offer(c.Account, c.Sequence())
	o := view.NewEntry(k)
	book := keylet.Quality(keylet.Book(pays.Issue(), gets.Issue()), rate)
	node, ok := view.DirAppend(c.View, book, k.Index, func(page *xahau.Object) {
		p, g := pays.Issue(), gets.Issue()
		page.Set(field.TakerPaysCurrency, xahau.Hash160(p.Currency))
		page.Set(field.TakerPaysIssuer, xahau.Hash160(p.Issuer))
		page.Set(field.TakerGetsCurrency, xahau.Hash160(g.Currency))
		page.Set(field.TakerGetsIssuer, xahau.Hash160(g.Issuer))
		page.Set(field.ExchangeRate, xahau.Uint64(rate))
	})
	if !ok {
		return ter.TecDIR_FULL
	}
	flags := uint32(0)
	if c.Tx.Flags()&xahau.TfPassive != 0 {
		flags |= xahau.LsfPassive
	}
	if c.Tx.Flags()&xahau.TfSell != 0 {
		flags |= xahau.LsfSell
	}
	o.Set(field.Flags, xahau.Uint32(flags))
	o.Set(field.Account, c.Account)
	o.Set(field.Sequence, xahau.Uint32(c.SequenceNumber()))
	o.Set(field.TakerPays, pays)
	o.Set(field.TakerGets, gets)
	o.Set(field.BookDirectory, book.Index)
	o.Set(field.BookNode, xahau.Uint64(node))
	o.Set(field.Expiration, c.Tx.Get(field.Expiration))
	return c.Own(k, o)
}

func preflightOfferCancel(t *xahau.Object, _ *view.Ledger) ter.Code {
	if t.Has(field.OfferSequence) == t.Has(field.OfferID) {
		return ter.TemBAD_SEQUENCE
	}
	return ter.TesSUCCESS
}

func preclaimOfferCancel(c *Context) ter.Code { return checkOfferSequence(c) }

func applyOfferCancel(c *Context) ter.Code {
	k, _ := offerToCancel(c)
	o := c.View.Read(k)
	switch {
	case o == nil:
		return ter.TesSUCCESS // it may have been taken meanwhile
	case o.Account(field.Account) != c.Account:
		return ter.TecNO_PERMISSION
	case !view.DeleteOffer(c.View, k):
		return ter.TefBAD_LEDGER
	}
	return ter.TesSUCCESS
}
