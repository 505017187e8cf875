package tx

import (
	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// Flow moves an issued currency from one account to another through its issuers,
// along trust lines. It is the part of the network's payment engine that needs no
// paths and no order books.
type Flow struct {
	From, To     xahau.AccountID
	Deliver      xahau.Amount
	SendMax      xahau.Amount // what From spends at most
	Partial      bool         // deliver what is possible
	NoDefault    bool         // the way through the issuers is not allowed
	LimitQuality bool         // do nothing at a worse rate than SendMax : Deliver
}

// hop is a step from one account to the next along their trust line.
type hop struct {
	v        *view.Sandbox
	currency xahau.Currency
	src, dst xahau.AccountID
	prev     *hop
	last     bool
	// in and out are what went in and came out when the hop was last tried, and
	// redeemed tells whether the source paid back what it was owed then.
	in, out  xahau.Amount
	redeemed bool
}

// Run moves the amount in v, or nothing unless it succeeds. It gives what was
// delivered.
func (f *Flow) Run(v view.View) (xahau.Amount, ter.Code) {
	none := f.Deliver.Issue().Zero()
	if f.NoDefault {
		return none, ter.TemRIPPLE_EMPTY
	}
	if f.Deliver.IsNative() || f.SendMax.IsNative() || f.Deliver.Currency() != f.SendMax.Currency() {
		return none, ter.TecPATH_DRY
	}
	s := view.NewSandbox(v)
	hops := f.hops(s)
	for i := range hops {
		if code := hops[i].check(f, i); code != ter.TesSUCCESS {
			return none, code
		}
	}
	in, out, err := f.move(s, hops)
	if err != nil {
		return none, ter.TefEXCEPTION
	}
	if f.LimitQuality && out.Signum() > 0 && xahau.Rate(in, out) > xahau.Rate(f.SendMax, f.Deliver) {
		out = none
	}
	switch {
	case out.Cmp(f.Deliver) == 0:
	case !f.Partial:
		return none, ter.TecPATH_PARTIAL
	case out.Signum() == 0:
		return none, ter.TecPATH_DRY
	}
	if v.Err() != nil {
		return none, ter.TefINTERNAL
	}
	s.Apply(v)
	return out.WithIssuer(f.Deliver.Issuer()), ter.TesSUCCESS
}

// hops gives the way: from the sender through the issuer of what it spends and the
// issuer of what is delivered to the receiver.
func (f *Flow) hops(s *view.Sandbox) []hop {
	way := []xahau.AccountID{f.From}
	for _, a := range []xahau.AccountID{f.SendMax.Issuer(), f.Deliver.Issuer(), f.To} {
		if a != way[len(way)-1] {
			way = append(way, a)
		}
	}
	list := make([]hop, len(way)-1)
	for i := range list {
		list[i] = hop{v: s, currency: f.Deliver.Currency(), src: way[i], dst: way[i+1], last: i == len(list)-1}
		if i > 0 {
			list[i].prev = &list[i-1]
		}
	}
	return list
}

// check tells whether money can move along the hop at all.
func (h *hop) check(f *Flow, i int) ter.Code {
	if h.src.IsZero() || h.dst.IsZero() || h.src == h.dst || h.src == xahau.AccountOne || h.dst == xahau.AccountOne {
		return ter.TemBAD_PATH
	}
	for p := h.prev; p != nil; p = p.prev {
		if p.src == h.src || p.dst == h.dst {
			return ter.TemBAD_PATH_LOOP
		}
	}
	src := h.v.Read(keylet.Account(h.src))
	if src == nil {
		return ter.TerNO_ACCOUNT
	}
	line := h.v.Read(keylet.Line(h.src, h.dst, h.currency))
	mine, theirs := view.SideOf(h.src, h.dst), view.SideOf(h.dst, h.src)
	if !(i == 0 && h.last) {
		// What is only issued or only redeemed cannot be frozen.
		if view.GloballyFrozen(h.v, h.dst) || line != nil && line.Flags()&theirs.Freeze != 0 {
			return ter.TerNO_LINE
		}
	}
	if h.prev != nil {
		in := h.v.Read(keylet.Line(h.prev.src, h.src, h.currency))
		if in == nil || line == nil {
			return ter.TerNO_LINE
		}
		if in.Flags()&view.SideOf(h.src, h.prev.src).NoRipple != 0 && line.Flags()&mine.NoRipple != 0 {
			return ter.TerNO_RIPPLE
		}
	}
	if line == nil {
		return ter.TerNO_LINE
	}
	if src.Flags()&xahau.LsfRequireAuth != 0 && line.Flags()&mine.Auth == 0 && line.Amount(field.Balance).Signum() == 0 {
		return ter.TerNO_AUTH
	}
	if owed := view.LineBalance(h.v, h.dst, h.src, h.currency); owed.Signum() >= 0 {
		// The source issues: the destination must let it owe more. This is what the
		// destination holds of the source already.
		if limit := view.LineLimit(h.v, h.dst, h.src, h.currency); owed.Cmp(limit) >= 0 {
			return ter.TecPATH_DRY
		}
	}
	return ter.TesSUCCESS
}

// room tells how much can move, and whether the source pays back with it what the
// destination owes it.
func (h *hop) room() (xahau.Amount, bool, error) {
	has := view.LineBalance(h.v, h.src, h.dst, h.currency)
	if has.Signum() > 0 {
		return has, true, nil
	}
	limit := view.LineLimit(h.v, h.dst, h.src, h.currency)
	room, err := limit.Add(has)
	return room, false, err
}

// quality is what an account's side of the hop's line says money is worth, in
// billionths.
func (h *hop) quality(account, peer xahau.AccountID, in bool) uint32 {
	line := h.v.Read(keylet.Line(h.src, h.dst, h.currency))
	if line == nil {
		return view.RateOne
	}
	s := view.SideOf(account, peer)
	code := s.QualityOut
	if in {
		code = s.QualityIn
	}
	if q := line.Uint32(code); q != 0 {
		return q
	}
	return view.RateOne
}

// rates are what the source asks for, and what the destination counts. tried tells
// that the hop before has moved its amount already.
func (h *hop) rates(redeems, tried bool) (out, in uint32, err error) {
	if redeems {
		if h.prev == nil {
			return view.RateOne, view.RateOne, nil
		}
		out = max(h.quality(h.src, h.dst, false), h.prev.quality(h.prev.dst, h.prev.src, true))
		return out, view.RateOne, nil
	}
	out = view.RateOne
	if h.prev != nil {
		// An issuer takes the transfer rate of what comes back to it and goes on.
		before := h.prev.redeemed
		if !tried {
			if _, before, err = h.prev.room(); err != nil {
				return 0, 0, err
			}
		}
		if before {
			out = view.TransferRate(h.v, h.src)
		}
	}
	in = h.quality(h.dst, h.src, true)
	if h.last {
		in = min(in, view.RateOne)
	}
	return out, in, nil
}

// pull finds what must go in so that want comes out, or as much as there is room
// for, and moves it.
func (h *hop) pull(want xahau.Amount) error {
	room, redeems, err := h.room()
	if err != nil {
		return err
	}
	h.redeemed = redeems
	if room.Signum() <= 0 {
		h.in, h.out = want.Issue().Zero(), want.Issue().Zero()
		return nil
	}
	outRate, inRate, err := h.rates(redeems, false)
	if err != nil {
		return err
	}
	moved, err := want.MulRatio(view.RateOne, inRate, true)
	if err != nil {
		return err
	}
	h.out = want
	if moved.Cmp(room) > 0 {
		moved = room
		if h.out, err = moved.MulRatio(inRate, view.RateOne, false); err != nil {
			return err
		}
	}
	if h.in, err = moved.MulRatio(outRate, view.RateOne, true); err != nil {
		return err
	}
	return h.credit(moved)
}

// push finds what comes out when something goes in, or as much of it as there is
// room for, and moves it.
func (h *hop) push(give xahau.Amount) error {
	room, redeems, err := h.room()
	if err != nil {
		return err
	}
	h.redeemed = redeems
	if room.Signum() <= 0 {
		h.in, h.out = give.Issue().Zero(), give.Issue().Zero()
		return nil
	}
	outRate, inRate, err := h.rates(redeems, true)
	if err != nil {
		return err
	}
	moved, err := give.MulRatio(view.RateOne, outRate, false)
	if err != nil {
		return err
	}
	h.in = give
	if moved.Cmp(room) > 0 {
		moved = room
		if h.in, err = moved.MulRatio(outRate, view.RateOne, true); err != nil {
			return err
		}
	}
	if h.out, err = moved.MulRatio(inRate, view.RateOne, false); err != nil {
		return err
	}
	return h.credit(moved)
}

func (h *hop) credit(amount xahau.Amount) error {
	if code := view.Credit(h.v, h.src, h.dst, amount); code != ter.TesSUCCESS {
		return errCredit{code}
	}
	return nil
}

type errCredit struct{ code ter.Code }

func (e errCredit) Error() string { return "credit along a trust line: " + e.code.String() }

// move works backwards from what is to be delivered to the hop that limits it, and
// forwards from there.
func (f *Flow) move(s *view.Sandbox, hops []hop) (in, out xahau.Amount, err error) {
	zero := f.Deliver.Issue().Zero()
	want, limiting := f.Deliver, len(hops)
	var pushed xahau.Amount
	for i := len(hops) - 1; i >= 0; i-- {
		h := &hops[i]
		if err := h.pull(want); err != nil {
			return zero, zero, err
		}
		if h.out.Signum() <= 0 {
			return zero, zero, nil
		}
		switch {
		case i == 0 && h.in.Cmp(f.SendMax) > 0:
			s.Discard()
			limiting = i
			if err := h.push(f.SendMax); err != nil {
				return zero, zero, err
			}
			pushed = h.out
		case h.out.Cmp(want) != 0:
			s.Discard()
			limiting = i
			if err := h.pull(h.out); err != nil {
				return zero, zero, err
			}
			pushed = h.out
		}
		if h.out.Signum() <= 0 {
			return zero, zero, nil
		}
		want = h.in
	}
	for i := limiting + 1; i < len(hops); i++ {
		if err := hops[i].push(pushed); err != nil {
			return zero, zero, err
		}
		if pushed = hops[i].out; pushed.Signum() <= 0 {
			return zero, zero, nil
		}
	}
	return hops[0].in, hops[len(hops)-1].out, nil
}
