package apply

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
	"evernode/xahau/xfl"
)

var simulationLedgers = flag.Int("ledgers", 60, "how many ledgers TestSimulation closes for each seed")

// simulation sends random transactions, sensible and senseless, to a world.
type simulation struct {
	*world
	r      *rand.Rand
	names  []string
	checks []xahau.Hash256
	tokens []xahau.Hash256
	offers []offerOf // made so far
	codes  map[string]int
}

// offerOf is the offer that a transaction of an account made.
type offerOf struct {
	name string
	seq  uint32
}

var simulatedCurrencies = []string{"USD", "EVR"}

func TestSimulation(t *testing.T) {
	total := map[string]int{}
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			s := newSimulation(t, seed)
			for range *simulationLedgers {
				s.ledger()
			}
			for c, n := range s.codes {
				total[c] += n
			}
		})
	}
	if t.Failed() {
		return
	}
	var lines []string
	for c, n := range total {
		lines = append(lines, fmt.Sprintf("%-40s %6d", c, n))
	}
	sort.Strings(lines)
	for _, l := range lines {
		t.Log(l)
	}
	// Every type must have succeeded and failed, or the simulation tests nothing.
	for typ := range tx.Standard().Add(tx.Offers()).Add(tx.URITokens()) {
		name := xahau.DefaultDefinitions().TransactionName(typ)
		if typ == xahau.TxSetFee || typ == xahau.TxEnableAmendment {
			continue
		}
		if total[name+" tesSUCCESS"] == 0 {
			t.Errorf("no %s succeeded", name)
		}
	}
}

func newSimulation(t testing.TB, seed uint64) *simulation {
	balances := map[string]int64{}
	var names []string
	r := rand.New(rand.NewPCG(seed, 7))
	for i := range 8 {
		name := fmt.Sprintf("%c%d", 'a'+i, i)
		names = append(names, name)
		balances[name] = 1_000_000 + r.Int64N(20_000_000)
	}
	return &simulation{world: newWorld(t, balances), r: r, names: names, codes: map[string]int{}}
}

// name is a random account, most often one that exists.
func (s *simulation) name() string {
	n := s.names[s.r.IntN(len(s.names))]
	for range 10 {
		if s.open.View().Read(keylet.Account(s.account(n))) != nil || s.chance(10) {
			break
		}
		n = s.names[s.r.IntN(len(s.names))]
	}
	return n
}

func (s *simulation) chance(percent int) bool { return s.r.IntN(100) < percent }

// issued is an amount of a random issuer: one of the first three, mostly.
func (s *simulation) issued() xahau.Amount {
	issuer := s.names[s.r.IntN(3)]
	if s.chance(10) {
		issuer = s.name()
	}
	m := s.r.Int64N(9_000_000) + 1
	e := int32(s.r.IntN(6) - 8)
	if s.chance(5) {
		e = int32(s.r.IntN(120) - 70)
	}
	v, err := xfl.Set(e, m)
	if err != nil {
		v = xfl.One
	}
	return xahau.Issued(v, xahau.MustCurrency(simulatedCurrencies[s.r.IntN(2)]), s.account(issuer))
}

func (s *simulation) drops() xahau.Amount {
	return xahau.Drops(s.r.Int64N([]int64{10, 10_000, 3_000_000, 30_000_000}[s.r.IntN(4)]))
}

func (s *simulation) amount() xahau.Amount {
	if s.chance(50) {
		return s.drops()
	}
	return s.issued()
}

func (s *simulation) check() xahau.Hash256 {
	if len(s.checks) == 0 || s.chance(5) {
		return xahau.Hash256{1}
	}
	return s.checks[s.r.IntN(len(s.checks))]
}

// someLine makes a payment along a random trust line that has a balance.
func (s *simulation) someLine() (string, *xahau.Object) {
	v := s.open.View()
	for range 20 {
		a, b := s.name(), s.names[s.r.IntN(3)]
		c := xahau.MustCurrency(simulatedCurrencies[s.r.IntN(2)])
		from, issuer := s.account(a), s.account(b)
		if from == issuer {
			continue
		}
		room, err := view.LineLimit(v, from, issuer, c).Sub(view.LineBalance(v, from, issuer, c))
		if err == nil && s.chance(50) && room.Signum() > 0 {
			part, err := room.MulRatio(uint32(1+s.r.IntN(100)), 100, false)
			if err == nil && part.Signum() > 0 {
				return b, xahau.Payment(issuer, from, part.WithIssuer(issuer))
			}
		}
		has := view.LineBalance(v, from, issuer, c)
		to := s.account(s.name())
		if has.Signum() <= 0 || to == from {
			continue
		}
		part, err := has.MulRatio(uint32(1+s.r.IntN(100)), 100, false)
		if err == nil && part.Signum() > 0 {
			return a, xahau.Payment(from, to, part.WithIssuer(issuer))
		}
	}
	return "", nil
}

// transaction makes a random transaction, and tells who signs it.
func (s *simulation) transaction() (*xahau.Object, string) {
	by := s.name()
	from, to := s.account(by), s.account(s.name())
	var o *xahau.Object
	u32 := func(n int) xahau.Uint32 { return xahau.Uint32(s.r.IntN(n)) }
	switch k := s.r.IntN(140); {
	case k >= 100:
		o, by = s.trade(by, k)
		from = o.Account(field.Account)
	case k < 35:
		o = xahau.Payment(from, to, s.amount())
		if s.chance(30) {
			// Something that is there: a holder's currency to another holder or back.
			a, b := s.someLine()
			if b != nil {
				by, o = a, b
				from = o.Account(field.Account)
			}
		}
		if s.chance(15) {
			name := fmt.Sprintf("%c new %d", 'a'+s.r.IntN(26), s.r.IntN(1000))
			if len(s.names) < 30 {
				s.names = append(s.names, name)
			}
			o = xahau.Payment(from, s.account(name), xahau.Drops(900_000+s.r.Int64N(2_000_000)))
		}
		if s.chance(40) {
			o.Set(field.SendMax, s.amount())
		}
		if s.chance(30) {
			o.SetFlags(xahau.TfPartialPayment)
			if s.chance(30) {
				o.Set(field.DeliverMin, s.amount())
			}
		}
		if s.chance(10) {
			o.SetFlags(o.Flags() | xahau.TfLimitQuality)
		}
		if s.chance(20) {
			o.Set(field.DestinationTag, u32(10))
		}
	case k < 55:
		limit := s.issued()
		if s.chance(30) {
			limit = limit.Issue().Zero()
		}
		flags := uint32(0)
		for _, f := range []uint32{xahau.TfSetfAuth, xahau.TfSetNoRipple, xahau.TfClearNoRipple, xahau.TfSetFreeze, xahau.TfClearFreeze} {
			if s.chance(12) {
				flags |= f
			}
		}
		if s.chance(25) {
			// The issuer's side of a line.
			limit = limit.WithIssuer(to)
		}
		o = xahau.TrustSet(from, limit, flags)
		if s.chance(15) {
			o.Set(field.QualityIn, []xahau.Uint32{0, 900_000_000, 1_000_000_000, 1_100_000_000}[s.r.IntN(4)])
		}
		if s.chance(15) {
			o.Set(field.QualityOut, []xahau.Uint32{0, 900_000_000, 1_000_000_000, 1_100_000_000}[s.r.IntN(4)])
		}
	case k < 65:
		o = xahau.AccountSet(from)
		flag := xahau.Uint32([]uint32{0, 1, 2, 3, 5, 7, 8, 9, 11, 12, 13, 14, 15, 16, 4}[s.r.IntN(15)])
		if s.chance(35) {
			o.Set(field.SetFlag, flag)
		} else {
			o.Set(field.ClearFlag, flag)
		}
		if s.chance(20) {
			o.Set(field.TransferRate, []xahau.Uint32{0, 1_000_000_000, 1_005_000_000, 1_333_333_333, 2_000_000_000, 7}[s.r.IntN(6)])
		}
		if s.chance(20) {
			o.Set(field.Domain, xahau.Blob(make([]byte, s.r.IntN(300))))
		}
	case k < 67:
		o = xahau.AccountDelete(from, to)
		o.Set(field.DestinationTag, u32(10))
		for _, n := range s.names {
			// One that has nothing, if there is one.
			a := s.account(n)
			root := s.open.View().Read(keylet.Account(a))
			if root != nil && a != to && root.Uint32(field.OwnerCount) == 0 && s.chance(50) && view.DirEmpty(s.open.View(), keylet.OwnerDirectory(a)) {
				by, from = n, a
				o.Set(field.Account, a)
				break
			}
		}
	case k < 71:
		if s.chance(50) {
			o = xahau.SetRegularKey(from, &to)
		} else {
			o = xahau.SetRegularKey(from, nil)
		}
	case k < 75:
		quorum := uint32(s.r.IntN(4))
		var list []xahau.SignerEntry
		for range min(quorum, 1) * uint32(1+s.r.IntN(3)) {
			list = append(list, xahau.SignerEntry{Account: s.account(s.name()), Weight: uint16(s.r.IntN(4))})
		}
		o = xahau.SignerListSet(from, quorum, list...)
	case k < 80:
		if s.chance(60) {
			o = xahau.NewTransaction(xahau.TxDepositPreauth, from)
			o.Set(field.Authorize, to)
		} else {
			o = xahau.NewTransaction(xahau.TxDepositPreauth, from)
			o.Set(field.Unauthorize, to)
		}
	case k < 84:
		o = xahau.TicketCreate(from, uint32(s.r.IntN(40)))
	case k < 90:
		o = xahau.CheckCreate(from, to, s.amount())
		if s.chance(30) {
			o.Set(field.Expiration, xahau.Uint32(int64(s.last.CloseTime)+s.r.Int64N(200)-20))
		}
	case k < 96:
		id := s.check()
		amount := s.amount()
		if c := view.NewClosed(s.state, view.Ledger{Defs: s.defs}).Read(keylet.Keylet{Type: xahau.EntryCheck, Index: id}); c != nil && s.chance(80) {
			from, amount = c.Account(field.Destination), c.Amount(field.SendMax)
			for n, k := range s.keys {
				if k.Account() == from {
					by = n
				}
			}
		}
		o = xahau.CheckCash(from, id, amount)
		if s.chance(30) {
			o.Delete(field.Amount)
			o.Set(field.DeliverMin, amount)
		}
	case k < 98:
		o = xahau.CheckCancel(from, s.check())
	default:
		o = xahau.Invoke(from, to, make([]byte, s.r.IntN(50)))
	}
	// A ticket now and then, and things that are wrong.
	root := s.open.View().Read(keylet.Account(from))
	if root != nil && root.Uint32(field.TicketCount) > 0 && s.chance(40) {
		next := root.Uint32(field.Sequence)
		o.Set(field.Sequence, xahau.Uint32(0))
		o.Set(field.TicketSequence, xahau.Uint32(next-1-uint32(s.r.IntN(40))))
	}
	switch s.r.IntN(40) {
	case 0:
		o.Set(field.Sequence, u32(1000))
	case 1:
		o.Set(field.Fee, s.drops())
	case 2:
		by = s.name()
	case 3:
		o.SetFlags(o.Flags() ^ 1<<s.r.IntN(32))
	case 4:
		o.Set(field.LastLedgerSequence, xahau.Uint32(s.last.Seq+uint32(s.r.IntN(3))))
	case 5:
		o.Set(field.Sequence, xahau.Uint32(sequenceAt(root)+uint32(s.r.IntN(3))))
	}
	return o, by
}

// trade makes a transaction with offers or tokens.
func (s *simulation) trade(by string, k int) (*xahau.Object, string) {
	from := s.account(by)
	switch {
	case k < 120:
		o := xahau.OfferCreate(from, s.amount(), s.amount())
		if s.chance(60) {
			// At about the rates of the others, so that offers cross.
			a, b := s.issued(), s.drops()
			if s.chance(30) {
				b = s.issued()
			}
			if s.chance(50) {
				a, b = b, a
			}
			o = xahau.OfferCreate(from, a, b)
		}
		flags := uint32(0)
		for _, f := range []uint32{xahau.TfPassive, xahau.TfImmediateOrCancel, xahau.TfFillOrKill, xahau.TfSell} {
			if s.chance(12) {
				flags |= f
			}
		}
		o.SetFlags(flags)
		if s.chance(10) {
			o.Set(field.Expiration, xahau.Uint32(int64(s.last.CloseTime)+s.r.Int64N(200)-20))
		}
		if len(s.offers) > 0 && s.chance(10) {
			if x := s.offers[s.r.IntN(len(s.offers))]; x.name == by {
				o.Set(field.OfferSequence, xahau.Uint32(x.seq))
			}
		}
		return o, by
	case k < 124:
		seq := uint32(1)
		if len(s.offers) > 0 && s.chance(90) {
			x := s.offers[s.r.IntN(len(s.offers))]
			by, seq = x.name, x.seq
		}
		return xahau.OfferCancel(s.account(by), seq), by
	case k < 129:
		return xahau.URITokenMint(from, []byte{byte(s.r.IntN(60)), 'x'}, uint32(s.r.IntN(2))), by
	}
	if len(s.tokens) == 0 {
		return xahau.URITokenBurn(from, xahau.Hash256{2}), by
	}
	id := s.tokens[s.r.IntN(len(s.tokens))]
	token := s.open.View().Read(keylet.Keylet{Type: xahau.EntryURIToken, Index: id})
	if token != nil && (k < 134 || k >= 137) && s.chance(85) {
		for n, key := range s.keys {
			if key.Account() == token.Account(field.Owner) {
				by = n
			}
		}
		from = s.account(by)
	}
	switch {
	case k < 134:
		var to *xahau.AccountID
		if s.chance(30) {
			a := s.account(s.name())
			to = &a
		}
		return xahau.URITokenCreateSellOffer(from, id, s.amount(), to), by
	case k < 137:
		amount := s.amount()
		if token != nil && token.Has(field.Amount) {
			amount = token.Amount(field.Amount)
			if to, ok := xahau.Lookup[xahau.AccountID](token, field.Destination); ok {
				for n, key := range s.keys {
					if key.Account() == to {
						by = n
					}
				}
			}
		}
		return xahau.URITokenBuy(s.account(by), id, amount), by
	case k < 138:
		return xahau.URITokenCancelSellOffer(from, id), by
	}
	return xahau.URITokenBurn(from, id), by
}

func sequenceAt(root *xahau.Object) uint32 {
	if root == nil {
		return 0
	}
	return root.Uint32(field.Sequence)
}

// signWith tells who signs for an account: its regular key if it has one and its
// master key is of no use.
func (s *simulation) signWith(o *xahau.Object, by string) string {
	root := s.open.View().Read(keylet.Account(o.Account(field.Account)))
	if root == nil {
		return by
	}
	if regular, ok := xahau.Lookup[xahau.AccountID](root, field.RegularKey); ok && (root.Flags()&xahau.LsfDisableMaster != 0 || s.chance(20)) {
		for n, k := range s.keys {
			if k.Account() == regular {
				return n
			}
		}
	}
	return by
}

func (s *simulation) ledger() {
	s.t.Helper()
	for range 1 + s.r.IntN(20) {
		o, by := s.transaction()
		o = s.fill(o)
		p := s.sign(o, s.signWith(o, by))
		code := s.submit(p)
		if code.IsLocal() || code.IsMalformed() || code.IsFailure() || code.IsRetry() {
			s.codes[s.defs.TransactionName(o.TransactionType())+" "+code.String()]++
		}
	}
	seconds := uint32(4)
	if s.chance(3) {
		seconds = 300
	}
	for _, r := range s.close(seconds).Results {
		s.codes[s.defs.TransactionName(r.Tx.Tx.TransactionType())+" "+r.Code.String()]++
		if r.Code.String() == "tecINVARIANT_FAILED" {
			s.t.Fatalf("an invariant failed: %v", r.Tx.Tx)
		}
		for _, n := range r.Meta.Array(field.AffectedNodes) {
			if n.Field == field.CreatedNode {
				f := n.Object.Object(field.NewFields)
				switch n.Object.EntryType() {
				case xahau.EntryURIToken:
					s.tokens = append(s.tokens, n.Object.Hash(field.LedgerIndex))
				case xahau.EntryOffer:
					for name, k := range s.keys {
						if k.Account() == f.Account(field.Account) {
							s.offers = append(s.offers, offerOf{name, f.Uint32(field.Sequence)})
						}
					}
				}
			}
			if n.Object.EntryType() != xahau.EntryCheck {
				continue
			}
			i := n.Object.Hash(field.LedgerIndex)
			if n.Field == field.CreatedNode {
				s.checks = append(s.checks, i)
			} else if at := slices.Index(s.checks, i); at >= 0 && s.chance(90) {
				s.checks = slices.Delete(s.checks, at, at+1)
			}
		}
	}
	// Whoever is poor gets something, so that the world goes on.
	if s.chance(20) {
		s.submit(s.sign(xahau.Payment(s.account("root"), s.account(s.name()), xahau.Drops(3_000_000)), "root"))
	}
}
