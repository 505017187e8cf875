package tx

import (
	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// crossing takes offers of the book that an offer crosses: those that give what it
// wants to have, for what it gives, at its rate or a better one. It goes through
// the book one rate after the other; at each it finds first what everything wanted
// would cost and, if that is more than there is to spend, what the rest buys.
type crossing struct {
	c *Context
	// pays and gets are those of the offer, from the book's point of view the wrong
	// way round: pays is what comes out of the book. After run they are what is left
	// of the offer.
	pays, gets xahau.Amount

	book      keylet.Keylet
	threshold uint64 // the worst rate
	inRate    uint32 // what the issuer of gets takes of what comes in
	outRate   uint32 // what the issuer of pays takes of what offers' owners give
	sell      bool
	steps     int
	stale     []keylet.Keylet // found unfunded or expired, to remove whatever happens
}

// maxSteps is how many offers are looked at.
const maxSteps = 1000

func (x *crossing) run() ter.Code {
	v, account, flags := x.c.View, x.c.Account, x.c.Tx.Flags()
	in, out := x.gets, x.pays // what goes into the book and comes out
	x.sell = flags&xahau.TfSell != 0
	funds := view.Funds(v, account, in)
	if funds.Signum() <= 0 {
		return ter.TecUNFUNDED_OFFER
	}
	x.book = keylet.Book(in.Issue(), out.Issue())
	x.inRate, x.outRate = view.RateOne, view.RateOne
	most := in
	if !in.IsNative() && account != in.Issuer() {
		x.inRate = view.TransferRate(v, in.Issuer())
		var err error
		if most, err = in.MulRatio(x.inRate, view.RateOne, true); err != nil {
			return ter.TecINTERNAL
		}
	}
	if !out.IsNative() && account != out.Issuer() {
		x.outRate = view.TransferRate(v, out.Issuer())
	}
	x.threshold = xahau.Rate(most, out)
	if flags&xahau.TfPassive != 0 {
		x.threshold-- // only what is better
	}
	if most.Cmp(funds) > 0 {
		most = funds
	}

	// The book is used in a sandbox of its own: what is found stale in it is removed
	// even if everything else is taken back.
	s := view.NewSandbox(v)
	spent, got, err := x.take(s, most, out)
	if err != nil {
		return ter.TecINTERNAL
	}
	kill := flags&xahau.TfFillOrKill != 0 && (x.sell && spent.Cmp(most) != 0 || !x.sell && got.Cmp(out) != 0)
	if kill {
		s.Discard()
	}
	if !x.removeStale(s) {
		return ter.TefBAD_LEDGER
	}
	s.Apply(v)
	if kill || got.Signum() == 0 {
		return ter.TesSUCCESS
	}
	return x.rest(spent, got)
}

// removeStale removes what cannot be taken any more.
func (x *crossing) removeStale(s *view.Sandbox) bool {
	for _, k := range x.stale {
		if view.Exists(s, k) && !view.DeleteOffer(s, k) {
			return false
		}
	}
	return true
}

// kill takes back everything but the removal of what cannot be taken any more: the
// engine keeps that, and would keep the removal of an offer that the transaction
// replaces.
func (x *crossing) kill() ter.Code {
	x.c.View.Discard()
	if !x.removeStale(x.c.View) {
		return ter.TefBAD_LEDGER
	}
	return ter.TecKILLED
}

// rest computes what is left of the offer, at its own rate.
func (x *crossing) rest(spent, got xahau.Amount) ter.Code {
	in, out := x.gets, x.pays
	if view.Funds(x.c.View, x.c.Account, in).Signum() <= 0 {
		x.gets, x.pays = in.Issue().Zero(), out.Issue().Zero()
		return ter.TesSUCCESS
	}
	rate, err := xahau.RateAmount(xahau.Rate(in, out))
	if err == nil && x.sell {
		net := spent
		if x.inRate != view.RateOne {
			net, err = spent.MulRatio(view.RateOne, x.inRate, true)
		}
		if err == nil {
			x.gets, err = in.Sub(net)
		}
		if x.gets.Signum() < 0 {
			x.gets = in.Issue().Zero()
		}
		if err == nil {
			x.pays, err = xahau.DivRound(x.gets, rate, out.Issue(), false)
		}
	} else if err == nil {
		x.pays, err = out.Sub(got)
		if x.pays.Signum() < 0 {
			x.pays = out.Issue().Zero()
		}
		if err == nil {
			x.gets, err = xahau.MulRound(x.pays, rate, in.Issue(), true)
		}
	}
	if err != nil {
		return ter.TecINTERNAL
	}
	return ter.TesSUCCESS
}

// take buys up to want, or whatever comes if the offer sells, for at most most. It
// gives what it spent and got.
func (x *crossing) take(s *view.Sandbox, most, want xahau.Amount) (spent, got xahau.Amount, err error) {
	spent, got = most.Issue().Zero(), want.Issue().Zero()
	for x.steps < maxSteps {
		left, err := most.Sub(spent)
		if err != nil {
			return spent, got, err
		}
		var open xahau.Amount
		if !x.sell {
			if open, err = want.Sub(got); err != nil {
				return spent, got, err
			}
			if open.Signum() <= 0 {
				break
			}
		}
		if has := x.available(s); has.Cmp(left) < 0 {
			left = has
		}
		if left.Signum() <= 0 {
			break
		}
		try := view.NewSandbox(s)
		in, out, found, err := x.level(try, left, open)
		if err != nil {
			return spent, got, err
		}
		if !found {
			try.Apply(s) // stale offers are gone
			break
		}
		if in.Signum() <= 0 || out.Signum() <= 0 || xahau.Rate(in, out) > x.threshold {
			break
		}
		if err := x.settle(try, in, out); err != nil {
			return spent, got, err
		}
		try.Apply(s)
		if spent, err = spent.Add(in); err != nil {
			return spent, got, err
		}
		if got, err = got.Add(out); err != nil {
			return spent, got, err
		}
	}
	return spent, got, nil
}

// available is what the account can spend now. For a currency that it has no line
// for yet it need not have the reserve before.
func (x *crossing) available(s *view.Sandbox) xahau.Amount {
	account := x.c.Account
	if x.gets.IsNative() {
		more := 0
		if !x.pays.IsNative() && account != x.pays.Issuer() && !view.Exists(s, keylet.Line(account, x.pays.Issuer(), x.pays.Currency())) {
			more = -1
		}
		return xahau.Drops(view.Liquid(s, account, more))
	}
	return view.Funds(s, account, x.gets)
}

// settle moves what the account gives and gets.
func (x *crossing) settle(v view.View, in, out xahau.Amount) error {
	if err := move(v, x.c.Account, in.Issuer(), in); err != nil {
		return err
	}
	return move(v, out.Issuer(), x.c.Account, out)
}

// move moves an amount between an account and an issuer. The native currency has no
// issuer: it comes from and goes to what the owners of offers give and get.
func move(v view.View, from, to xahau.AccountID, amount xahau.Amount) error {
	switch {
	case from == to || amount.Signum() == 0:
		return nil
	case !amount.IsNative():
		if code := view.Credit(v, from, to, amount); code != ter.TesSUCCESS {
			return errCredit{code}
		}
	case from.IsZero():
		view.AddDrops(v, to, amount.Drops())
	default:
		view.AddDrops(v, from, -amount.Drops())
	}
	return nil
}

// level takes offers of the best rate that is left in the book: for up to open if
// that can be paid with left, else for left. found is false if there is nothing
// that the offer crosses.
func (x *crossing) level(s *view.Sandbox, left, open xahau.Amount) (in, out xahau.Amount, found bool, err error) {
	before := x.steps
	try := view.NewSandbox(s)
	in, out, found, err = x.walk(try, nil, open)
	if err != nil || !found {
		try.Apply(s)
		return in, out, found, err
	}
	if in.Cmp(left) > 0 {
		try.Discard()
		x.steps = before
		in, out, found, err = x.walk(try, &left, open)
	}
	try.Apply(s)
	return in, out, found, err
}

// offerPart is what is taken of an offer.
type offerPart struct {
	k     keylet.Keylet
	o     *xahau.Object
	rate  uint64
	owner xahau.AccountID
	// what the offer's owner gets, what the taker pays for it, with what the issuer
	// takes, what the taker gets, and what the owner gives for that.
	ownerGets, in, out, ownerGives xahau.Amount
	inRate, outRate                uint32
}

// walk takes offers of one rate, until there are no more of it, or open has come
// out, or limit, if any, has gone in.
func (x *crossing) walk(s *view.Sandbox, limit *xahau.Amount, open xahau.Amount) (in, out xahau.Amount, found bool, err error) {
	in, out = x.gets.Issue().Zero(), x.pays.Issue().Zero()
	level := uint64(0)
	for x.steps < maxSteps {
		p, ok, err := x.best(s)
		if err != nil {
			return in, out, found, err
		}
		if !ok || p.rate > x.threshold || found && p.rate != level {
			break
		}
		level, found = p.rate, true
		done := false
		if !x.sell {
			rest, err := open.Sub(out)
			if err != nil {
				return in, out, found, err
			}
			if rest.Signum() <= 0 {
				break
			}
			if p.out.Cmp(rest) > 0 {
				done = true
				if err := p.limitOut(rest, true); err != nil {
					return in, out, found, err
				}
			}
		}
		if limit != nil {
			rest, err := limit.Sub(in)
			if err != nil {
				return in, out, found, err
			}
			if rest.Signum() <= 0 {
				break
			}
			if p.in.Cmp(rest) > 0 {
				done = true
				if err := p.limitIn(rest); err != nil {
					return in, out, found, err
				}
			}
		}
		if in, err = in.Add(p.in); err != nil {
			return in, out, found, err
		}
		if out, err = out.Add(p.out); err != nil {
			return in, out, found, err
		}
		if err := p.consume(s); err != nil {
			return in, out, found, err
		}
		x.steps++
		if done {
			break
		}
	}
	return in, out, found, nil
}

// best gives the first offer of the book that can be taken. Offers before it that
// cannot are removed.
func (x *crossing) best(s *view.Sandbox) (*offerPart, bool, error) {
	end := keylet.BookEnd(x.book)
	for at := x.book.Index; x.steps < maxSteps; {
		dir, ok := s.Next(at, end)
		if !ok || dir == end {
			return nil, false, s.Err()
		}
		rate := keylet.QualityOf(dir)
		if rate > x.threshold {
			return nil, false, nil
		}
		for index := range view.Dir(s, keylet.Keylet{Type: xahau.EntryDirectoryNode, Index: dir}) {
			k := keylet.Keylet{Type: xahau.EntryOffer, Index: index}
			o := s.Read(k)
			if o == nil {
				continue
			}
			p, stale, err := x.part(s, k, o, rate)
			if err != nil {
				return nil, false, err
			}
			if p != nil {
				return p, true, nil
			}
			x.steps++
			if stale {
				x.stale = append(x.stale, k)
			}
			if !view.DeleteOffer(s, k) {
				return nil, false, errCredit{ter.TefBAD_LEDGER}
			}
		}
		at = dir
	}
	return nil, false, nil
}

// part gives what can be taken of an offer, nil if nothing. stale tells that it was
// so before this transaction.
func (x *crossing) part(s *view.Sandbox, k keylet.Keylet, o *xahau.Object, rate uint64) (p *offerPart, stale bool, err error) {
	owner := o.Account(field.Account)
	gets, gives := o.Amount(field.TakerPays), o.Amount(field.TakerGets)
	switch {
	case expired(s, o), gets.Signum() <= 0 || gives.Signum() <= 0:
		return nil, true, nil
	case owner == x.c.Account:
		// Nobody trades with himself; the new offer stands for the old one.
		return nil, true, nil
	case view.RequireAuth(s, gets.Issue(), owner) != ter.TesSUCCESS:
		return nil, true, nil
	}
	funds := view.Funds(s, owner, gives)
	if funds.Signum() <= 0 {
		return nil, view.Funds(x.c.View, owner, gives).Signum() <= 0, nil
	}
	p = &offerPart{k: k, o: o, rate: rate, owner: owner, ownerGets: gets, out: gives, inRate: x.inRate, outRate: x.outRate}
	if p.ownerGives, err = gives.MulRatio(p.outRate, view.RateOne, false); err != nil {
		return nil, false, err
	}
	if !gives.IsNative() && owner == gives.Issuer() {
		funds = p.ownerGives
	}
	if worse, err := worseThanItSays(gets, gives, funds, owner, rate); err != nil || worse {
		return nil, true, err
	}
	if p.in, err = gets.MulRatio(p.inRate, view.RateOne, true); err != nil {
		return nil, false, err
	}
	if funds.Cmp(p.ownerGives) < 0 {
		out, err := funds.MulRatio(view.RateOne, p.outRate, false)
		if err != nil {
			return nil, false, err
		}
		if err := p.limitOut(out, false); err != nil {
			return nil, false, err
		}
		p.ownerGives = funds
	}
	return p, false, nil
}

// worseThanItSays tells whether so little is left of an offer that by rounding it
// is of a worse rate than it stands for, and would block the book.
func worseThanItSays(gets, gives, funds xahau.Amount, owner xahau.AccountID, rate uint64) (bool, error) {
	if gives.IsNative() || !gets.IsNative() && gets.Value().Cmp(gives.Value()) >= 0 {
		return false, nil
	}
	if owner != gives.Issuer() && funds.Cmp(gives) < 0 {
		p := &offerPart{rate: rate, ownerGets: gets, out: gives, inRate: view.RateOne, outRate: view.RateOne}
		if err := p.limitOut(funds, false); err != nil {
			return false, err
		}
		gets, gives = p.ownerGets, p.out
	}
	switch {
	case gets.Signum() <= 0 || gives.Signum() <= 0:
		return true, nil
	case gets.IsNative() && gets.Drops() > 1, !gets.IsNative():
		return false, nil
	}
	return xahau.Rate(gets, gives) > rate, nil
}

// limitOut takes only so much of an offer that out comes out.
func (p *offerPart) limitOut(out xahau.Amount, up bool) error {
	rate, err := xahau.RateAmount(p.rate)
	if err != nil {
		return err
	}
	gets, err := xahau.MulRound(out, rate, p.ownerGets.Issue(), up)
	if err != nil {
		return err
	}
	if gets.Cmp(p.ownerGets) < 0 {
		p.ownerGets = gets
	}
	p.out = out
	if p.in, err = p.ownerGets.MulRatio(p.inRate, view.RateOne, true); err != nil {
		return err
	}
	p.ownerGives, err = out.MulRatio(p.outRate, view.RateOne, false)
	return err
}

// limitIn takes only so much of an offer that in goes in.
func (p *offerPart) limitIn(in xahau.Amount) error {
	rate, err := xahau.RateAmount(p.rate)
	if err != nil {
		return err
	}
	gets, err := in.MulRatio(view.RateOne, p.inRate, false)
	if err != nil {
		return err
	}
	out, err := xahau.DivRound(gets, rate, p.out.Issue(), false)
	if err != nil {
		return err
	}
	if out.Cmp(p.out) < 0 {
		p.out = out
	}
	p.in, p.ownerGets = in, gets
	p.ownerGives, err = p.out.MulRatio(p.outRate, view.RateOne, false)
	return err
}

// consume moves what the owner gets and gives, and takes it off the offer.
func (p *offerPart) consume(s *view.Sandbox) error {
	if err := move(s, p.ownerGets.Issuer(), p.owner, p.ownerGets); err != nil {
		return err
	}
	if err := move(s, p.owner, p.out.Issuer(), p.ownerGives); err != nil {
		return err
	}
	gets, err := p.o.Amount(field.TakerPays).Sub(p.ownerGets)
	if err != nil {
		return err
	}
	gives, err := p.o.Amount(field.TakerGets).Sub(p.out)
	if err != nil {
		return err
	}
	o := p.o.Clone()
	o.Set(field.TakerPays, gets)
	o.Set(field.TakerGets, gives)
	s.Update(p.k, o)
	if gets.Signum() <= 0 || gives.Signum() <= 0 {
		if !view.DeleteOffer(s, p.k) {
			return errCredit{ter.TefBAD_LEDGER}
		}
	}
	return nil
}
