package api

import (
	"fmt"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
)

func accountOffers(r *request) (map[string]any, error) {
	limit, err := r.params.limit(10, 200, 400)
	if err != nil {
		return nil, err
	}
	return r.about(func(v view.Reader, a xahau.AccountID, root *xahau.Object, m map[string]any) error {
		list := []any{}
		err := r.list(v, keylet.OwnerDirectory(a), limit, m, func(_ xahau.Hash256, o *xahau.Object) (bool, error) {
			if o.EntryType() != xahau.EntryOffer {
				return false, nil
			}
			e := map[string]any{
				"flags": o.Flags(), "seq": o.Uint32(field.Sequence), "quality": quality(o.Hash(field.BookDirectory)),
				"taker_gets": o.Amount(field.TakerGets).JSON(), "taker_pays": o.Amount(field.TakerPays).JSON(),
			}
			if o.Has(field.Expiration) {
				e["expiration"] = o.Uint32(field.Expiration)
			}
			list = append(list, e)
			return true, nil
		})
		m["offers"] = list
		return err
	})
}

// quality is the rate of an order book's directory as a number.
func quality(directory xahau.Hash256) string {
	a, err := xahau.RateAmount(keylet.QualityOf(directory))
	if err != nil {
		return "0"
	}
	return value(a)
}

// side reads one side of an order book.
func (r *request) side(name string, currency, issuer *Error) (xahau.Issue, error) {
	var i xahau.Issue
	if !r.params.has(name) {
		return i, missing(name)
	}
	o := r.params.object(name)
	if o == nil {
		return i, expected(name, "object")
	}
	if !o.has("currency") {
		return i, missing(name + ".currency")
	}
	s, err := o.text("currency")
	if err != nil {
		return i, expected(name+".currency", "string")
	}
	if s == "XRP" {
		s = r.s.defs.Native() // tools of the other network say so
	}
	if i.Currency, err = xahau.ParseCurrency(s); err != nil {
		return i, currency.with("Invalid field '%s.currency', bad currency.", name)
	}
	if !o.has("issuer") {
		if !i.Currency.IsNative() {
			return i, issuer.with("Invalid field '%s.issuer', expected non-native issuer.", name)
		}
		return i, nil
	}
	s, err = o.text("issuer")
	if err != nil {
		return i, expected(name+".issuer", "string")
	}
	if i.Issuer, err = xahau.ParseAddress(s); err != nil {
		return i, issuer.with("Invalid field '%s.issuer', bad issuer.", name)
	}
	if i.Currency.IsNative() {
		return i, issuer.with("Unneeded field '%s.issuer' for native currency specification.", name)
	}
	return i, nil
}

func bookOffers(r *request) (map[string]any, error) {
	pays, err := r.side("taker_pays", errSrcCurMalformed, errSrcIsrMalformed)
	if err != nil {
		return nil, err
	}
	gets, err := r.side("taker_gets", errDstAmtMalformed, errDstIsrMalformed)
	if err != nil {
		return nil, err
	}
	if pays == gets {
		return nil, errBadMarket
	}
	var taker xahau.AccountID
	if r.params.has("taker") {
		s, err := r.params.text("taker")
		if err != nil {
			return nil, err
		}
		if taker, err = xahau.ParseAddress(s); err != nil {
			return nil, invalid("taker")
		}
	}
	limit, err := r.params.limit(1, 60, 100)
	if err != nil {
		return nil, err
	}
	l, err := r.ledger()
	if err != nil {
		return nil, err
	}
	m := r.answer(l)
	err = r.read(l, func(v view.Reader) error {
		m["offers"], err = r.book(v, pays, gets, taker, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// book lists the offers of an order book, the best first, with what their owners
// have to give.
func (r *request) book(v view.Reader, pays, gets xahau.Issue, taker xahau.AccountID, limit int) ([]any, error) {
	list := []any{}
	left := map[xahau.AccountID]xahau.Amount{} // what owners have after the offers before
	book := keylet.Book(pays, gets)
	at, end := book.Index, keylet.BookEnd(book)
	frozen := view.GloballyFrozen(v, gets.Issuer) || view.GloballyFrozen(v, pays.Issuer)
	for {
		directory, ok := v.Next(at, end)
		if !ok {
			return list, nil
		}
		at = directory
		for index := range view.Dir(v, keylet.Keylet{Type: xahau.EntryDirectoryNode, Index: directory}) {
			if len(list) >= limit {
				return list, nil
			}
			o := v.Read(keylet.Keylet{Type: xahau.EntryOffer, Index: index})
			if o == nil {
				continue
			}
			e, err := r.show(index, o)
			if err != nil {
				return nil, err
			}
			e["quality"] = quality(directory)
			owner, wants := o.Account(field.Account), o.Amount(field.TakerGets)
			funds, known := left[owner]
			if !known {
				if funds = view.Funds(v, owner, wants); frozen {
					funds = gets.Zero()
				}
				if funds.Signum() < 0 {
					funds = gets.Zero()
				}
				if owner != gets.Issuer || gets.IsNative() {
					if gets.IsNative() {
						e["owner_funds"] = fmt.Sprint(funds.Drops())
					} else {
						e["owner_funds"] = value(funds)
					}
				}
			}
			if owner == gets.Issuer && !gets.IsNative() {
				list = append(list, e)
				continue
			}
			if funds, err = r.funded(v, o, e, directory, funds, taker); err != nil {
				return nil, err
			}
			left[owner] = funds
			list = append(list, e)
		}
	}
}

// funded notes what of an offer its owner can give, and returns what is left.
func (r *request) funded(v view.Reader, o *xahau.Object, e map[string]any, directory xahau.Hash256, funds xahau.Amount, taker xahau.AccountID) (xahau.Amount, error) {
	wants := o.Amount(field.TakerGets)
	gives := funds
	rate := uint32(0)
	if issuer := wants.Issuer(); !wants.IsNative() && taker != issuer {
		if rate = view.TransferRate(v, issuer); rate != 0 && rate != 1_000_000_000 {
			var err error
			if gives, err = view.DivideRate(funds, rate); err != nil {
				return funds, err
			}
		} else {
			rate = 0
		}
	}
	if gives.Cmp(wants) >= 0 {
		gives = wants
	} else {
		price, err := xahau.RateAmount(keylet.QualityOf(directory))
		if err != nil {
			return funds, err
		}
		pays := o.Amount(field.TakerPays)
		cost, err := xahau.MulRound(gives, price, pays.Issue(), true)
		if err != nil {
			return funds, err
		}
		if cost.Cmp(pays) > 0 {
			cost = pays
		}
		e["taker_gets_funded"], e["taker_pays_funded"] = gives.JSON(), cost.JSON()
	}
	if rate != 0 {
		var err error
		if gives, err = view.ApplyRate(gives, rate); err != nil {
			return funds, err
		}
	}
	rest, err := funds.Sub(gives)
	if err != nil || rest.Signum() < 0 {
		return wants.Issue().Zero(), nil
	}
	return rest, nil
}
