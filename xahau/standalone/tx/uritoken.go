package tx

import (
	"bytes"
	"unicode/utf8"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// maxURI is how long the URI of a token is at most, in bytes.
const maxURI = 256

// URITokens gives the transactors of tokens: made, burned, offered and bought. A
// token belongs to its issuer's name space for ever, as its id is made of issuer
// and URI, and to the directory of who owns it now.
func URITokens() Table {
	return Table{
		xahau.TxURITokenMint:            {Flags: xahau.TfBurnable, Preflight: preflightToken, Preclaim: preclaimTokenMint, Apply: applyTokenMint},
		xahau.TxURITokenBurn:            {Preflight: preflightToken, Preclaim: preclaimTokenBurn, Apply: applyTokenBurn},
		xahau.TxURITokenBuy:             {Preflight: preflightToken, Preclaim: preclaimTokenBuy, Apply: applyTokenBuy},
		xahau.TxURITokenCreateSellOffer: {Preflight: preflightToken, Preclaim: preclaimTokenSell, Apply: applyTokenSell},
		xahau.TxURITokenCancelSellOffer: {Preflight: preflightToken, Preclaim: preclaimTokenCancel, Apply: applyTokenCancel},
	}
}

func preflightToken(t *xahau.Object, _ *view.Ledger) ter.Code {
	to, forOne := xahau.Lookup[xahau.AccountID](t, field.Destination)
	price, priced := xahau.Lookup[xahau.Amount](t, field.Amount)
	switch {
	case priced && (!legalNet(price) || price.Signum() < 0):
		return ter.TemBAD_AMOUNT
	case priced && badCurrency(price.Currency()):
		return ter.TemBAD_CURRENCY
	case priced && price.Signum() == 0 && !forOne && t.TransactionType() != xahau.TxURITokenBuy:
		// Who gives a token away says to whom.
		return ter.TemMALFORMED
	case forOne && !priced:
		return ter.TemMALFORMED
	case t.Has(field.URI) && !validURI(t.Blob(field.URI)):
		return ter.TemMALFORMED
	case forOne && to == t.Account(field.Account):
		return ter.TemREDUNDANT
	}
	return ter.TesSUCCESS
}

// validURI tells whether a URI is of allowed length and UTF-8 without the two
// characters of three bytes that are none.
func validURI(b []byte) bool {
	return len(b) > 0 && len(b) <= maxURI && utf8.Valid(b) &&
		!bytes.Contains(b, []byte("\uFFFE")) && !bytes.Contains(b, []byte("\uFFFF"))
}

// token gives the token that a transaction names, nil if it or its owner is not
// there.
func token(c *Context) (keylet.Keylet, *xahau.Object) {
	k := keylet.Keylet{Type: xahau.EntryURIToken, Index: c.Tx.Hash(field.URITokenID)}
	o := c.View.Read(k)
	if o == nil || !view.Exists(c.View, keylet.Account(o.Account(field.Owner))) {
		return k, nil
	}
	return k, o
}

func preclaimTokenMint(c *Context) ter.Code {
	if view.Exists(c.View, keylet.URIToken(c.Account, c.Tx.Blob(field.URI))) {
		return ter.TecDUPLICATE
	}
	return ter.TesSUCCESS
}

func applyTokenMint(c *Context) ter.Code {
	if code := reserveForToken(c); code != ter.TesSUCCESS {
		return code
	}
	// A hook may have done something in between.
	if code := preclaimTokenMint(c); code != ter.TesSUCCESS {
		return code
	}
	k := keylet.URIToken(c.Account, c.Tx.Blob(field.URI))
	o := view.NewEntry(k)
	o.Set(field.Owner, c.Account)
	o.Set(field.Issuer, c.Account)
	for _, code := range []field.Code{field.URI, field.Digest, field.Amount, field.Destination} {
		o.Set(code, c.Tx.Get(code))
	}
	o.Set(field.Flags, xahau.Uint32(c.Tx.Flags()&xahau.TfBurnable))
	if code := c.Own(k, o); code != ter.TesSUCCESS {
		return code
	}
	// From now on the account cannot be deleted.
	c.Edit(func(root *xahau.Object) {
		root.Set(field.Flags, xahau.Uint32(root.Flags()|xahau.LsfURITokenIssuer))
	})
	return ter.TesSUCCESS
}

// reserveForToken tells whether the account can own one entry more, after the fee.
func reserveForToken(c *Context) ter.Code {
	fees := &c.View.Ledger().Fees
	if c.Prior-c.Fee < fees.AccountReserve(c.Root().Uint32(field.OwnerCount)+1) {
		return ter.TecINSUFFICIENT_RESERVE
	}
	return ter.TesSUCCESS
}

func preclaimTokenBurn(c *Context) ter.Code {
	_, o := token(c)
	switch {
	case o == nil:
		return ter.TecNO_ENTRY
	case o.Account(field.Owner) == c.Account:
	case o.Account(field.Issuer) == c.Account && o.Flags()&xahau.LsfBurnable != 0:
	default:
		return ter.TecNO_PERMISSION
	}
	return ter.TesSUCCESS
}

func applyTokenBurn(c *Context) ter.Code {
	if code := preclaimTokenBurn(c); code != ter.TesSUCCESS {
		return code
	}
	k, o := token(c)
	owner := o.Account(field.Owner)
	if !view.DirRemove(c.View, keylet.OwnerDirectory(owner), o.Uint64(field.OwnerNode), k.Index, true) {
		return ter.TefBAD_LEDGER
	}
	c.View.Erase(k)
	view.AdjustOwnerCount(c.View, owner, -1)
	return ter.TesSUCCESS
}

func preclaimTokenBuy(c *Context) ter.Code {
	_, o := token(c)
	if o == nil {
		return ter.TecNO_ENTRY
	}
	if o.Account(field.Owner) == c.Account {
		return ter.TecCANT_ACCEPT_OWN_NFTOKEN_OFFER
	}
	pays := c.Tx.Amount(field.Amount)
	if code := offered(c, o, pays); code != ter.TesSUCCESS {
		return code
	}
	if pays.IsNative() {
		root := c.Root()
		reserve := c.View.Ledger().Fees.AccountReserve(root.Uint32(field.OwnerCount) + 1)
		if reserve+c.Tx.Amount(field.Fee).Drops()+pays.Drops() > root.Amount(field.Balance).Drops() {
			return ter.TecINSUFFICIENT_FUNDS
		}
		return ter.TesSUCCESS
	}
	if pays.Cmp(view.Funds(c.View, c.Account, pays)) > 0 {
		return ter.TecINSUFFICIENT_FUNDS
	}
	return ter.TesSUCCESS
}

// offered tells whether a token is offered to the account for what it pays.
func offered(c *Context, o *xahau.Object, pays xahau.Amount) ter.Code {
	price, forSale := xahau.Lookup[xahau.Amount](o, field.Amount)
	to, forOne := xahau.Lookup[xahau.AccountID](o, field.Destination)
	switch {
	case !forSale, forOne && to != c.Account:
		return ter.TecNO_PERMISSION
	case pays.Issue() != price.Issue():
		return ter.TemBAD_CURRENCY
	case pays.Cmp(price) < 0:
		return ter.TecINSUFFICIENT_PAYMENT
	}
	return ter.TesSUCCESS
}

func applyTokenBuy(c *Context) ter.Code {
	if code := reserveForToken(c); code != ter.TesSUCCESS {
		return code
	}
	k, o := token(c)
	if o == nil {
		return ter.TecNO_ENTRY
	}
	owner, pays := o.Account(field.Owner), c.Tx.Amount(field.Amount)
	if owner == c.Account {
		return ter.TecCANT_ACCEPT_OWN_NFTOKEN_OFFER
	}
	if code := offered(c, o, pays); code != ter.TesSUCCESS {
		return code
	}
	fees := &c.View.Ledger().Fees
	if pays.IsNative() {
		reserve := fees.AccountReserve(c.Root().Uint32(field.OwnerCount) + 1)
		if reserve+c.Fee+pays.Drops() > c.Prior {
			return ter.TecINSUFFICIENT_FUNDS
		}
	} else {
		if code := transferAllowed(c.View, pays.Issue(), c.Account, owner); code != ter.TesSUCCESS {
			return code
		}
		if pays.Cmp(view.Funds(c.View, c.Account, pays)) > 0 {
			return ter.TecINSUFFICIENT_FUNDS
		}
	}
	if code := sendLessRate(c.View, c.Account, owner, pays); code != ter.TesSUCCESS {
		return code
	}

	page, ok := view.DirInsert(c.View, keylet.OwnerDirectory(c.Account), k.Index, view.OwnedBy(c.Account))
	if !ok {
		return ter.TecDIR_FULL
	}
	if !view.DirRemove(c.View, keylet.OwnerDirectory(owner), o.Uint64(field.OwnerNode), k.Index, true) {
		return ter.TefBAD_LEDGER
	}
	view.AdjustOwnerCount(c.View, owner, -1)
	view.AdjustOwnerCount(c.View, c.Account, 1)
	o = o.Clone()
	o.Delete(field.Amount)
	o.Delete(field.Destination)
	o.Set(field.Owner, c.Account)
	o.Set(field.OwnerNode, xahau.Uint64(page))
	c.View.Update(k, o)

	// The seller's new trust line, if any, needs a reserve too.
	if !hasReserve(c.View, c.Account) {
		return ter.TecINSUFFICIENT_RESERVE
	}
	if !hasReserve(c.View, owner) {
		return ter.TecINSUF_RESERVE_SELLER
	}
	return ter.TesSUCCESS
}

// hasReserve tells whether an account's balance covers its reserve.
func hasReserve(r view.Reader, a xahau.AccountID) bool {
	root := r.Read(keylet.Account(a))
	return root != nil && root.Amount(field.Balance).Drops() >= r.Ledger().Fees.AccountReserve(root.Uint32(field.OwnerCount))
}

// transferAllowed tells whether two accounts may give each other an issued
// currency: nothing is frozen, their lines are authorized where the issuer demands
// it, and the issuer lets payments through between them.
func transferAllowed(r view.Reader, i xahau.Issue, parties ...xahau.AccountID) ter.Code {
	if badCurrency(i.Currency) {
		return ter.TecNO_PERMISSION
	}
	issuer := r.Read(keylet.Account(i.Issuer))
	switch {
	case issuer == nil:
		return ter.TecNO_ISSUER
	case issuer.Flags()&xahau.LsfGlobalFreeze != 0:
		return ter.TecFROZEN
	}
	mustAuth := issuer.Flags()&xahau.LsfRequireAuth != 0
	for _, p := range parties {
		if p == i.Issuer {
			continue
		}
		line := r.Read(keylet.Line(p, i.Issuer, i.Currency))
		if line == nil {
			if mustAuth {
				return ter.TecNO_AUTH
			}
			continue
		}
		side, flags := view.SideOf(i.Issuer, p), line.Flags()
		switch {
		case flags&side.Freeze != 0:
			return ter.TecFROZEN
		case len(parties) > 1 && flags&side.NoRipple != 0:
			return ter.TecPATH_DRY
		case mustAuth && flags&side.Auth == 0:
			return ter.TecNO_AUTH
		}
	}
	return ter.TesSUCCESS
}

// sendLessRate moves an amount, of which the receiver pays the transfer rate where
// neither side is the issuer.
func sendLessRate(v view.View, from, to xahau.AccountID, amount xahau.Amount) ter.Code {
	issuer := amount.Issuer()
	if amount.IsNative() || amount.Signum() == 0 || from == issuer || to == issuer {
		return view.Send(v, from, to, amount)
	}
	arrives, err := view.DivideRate(amount, view.TransferRate(v, issuer))
	if err != nil {
		return ter.TecINTERNAL
	}
	if code := view.Credit(v, issuer, to, arrives); code != ter.TesSUCCESS {
		return code
	}
	return view.Credit(v, from, issuer, amount)
}

func preclaimTokenSell(c *Context) ter.Code {
	_, o := token(c)
	price := c.Tx.Amount(field.Amount)
	switch {
	case o == nil:
		return ter.TecNO_ENTRY
	case o.Account(field.Owner) != c.Account:
		return ter.TecNO_PERMISSION
	case !price.IsNative() && !view.Exists(c.View, keylet.Account(price.Issuer())):
		return ter.TecNO_ISSUER
	}
	return ter.TesSUCCESS
}

func applyTokenSell(c *Context) ter.Code {
	if code := preclaimTokenSell(c); code != ter.TesSUCCESS {
		return code
	}
	k, o := token(c)
	o = o.Clone()
	o.Set(field.Amount, c.Tx.Get(field.Amount))
	o.Set(field.Destination, c.Tx.Get(field.Destination))
	c.View.Update(k, o)
	return ter.TesSUCCESS
}

func preclaimTokenCancel(c *Context) ter.Code {
	_, o := token(c)
	switch {
	case o == nil:
		return ter.TecNO_ENTRY
	case o.Account(field.Owner) != c.Account:
		return ter.TecNO_PERMISSION
	}
	return ter.TesSUCCESS
}

func applyTokenCancel(c *Context) ter.Code {
	if code := preclaimTokenCancel(c); code != ter.TesSUCCESS {
		return code
	}
	k, o := token(c)
	o = o.Clone()
	o.Delete(field.Amount)
	o.Delete(field.Destination)
	c.View.Update(k, o)
	return ter.TesSUCCESS
}
