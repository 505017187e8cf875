package apply

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
	"evernode/xahau/xfl"
)

// hookSimulation sends random transactions about tokens, offers and hooks; what must
// hold is checked after every ledger.
type hookSimulation struct {
	*world
	r      *rand.Rand
	names  []string
	tokens []xahau.Hash256
	codes  [3][]byte
	seen   map[string]int
}

func TestHookSimulation(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			s := newHookSimulation(t, seed, seen)
			for range *simulationLedgers {
				s.ledger()
			}
		})
	}
	if t.Failed() {
		return
	}
	var lines []string
	for c, n := range seen {
		lines = append(lines, fmt.Sprintf("%-50s %6d", c, n))
	}
	sort.Strings(lines)
	for _, l := range lines {
		t.Log(l)
	}
	for _, want := range []string{"URITokenMint tesSUCCESS", "URITokenBuy tesSUCCESS", "URITokenBurn tesSUCCESS", "URITokenCreateSellOffer tesSUCCESS",
		"URITokenCancelSellOffer tesSUCCESS", "OfferCreate tesSUCCESS", "OfferCreate tecKILLED", "OfferCancel tesSUCCESS", "SetHook tesSUCCESS",
		"Invoke tesSUCCESS", "Invoke tecHOOK_REJECTED", "emitted Payment tesSUCCESS", "emitted URITokenMint tesSUCCESS", "crossed"} {
		if seen[want] == 0 {
			t.Errorf("no %s", want)
		}
	}
}

func newHookSimulation(t testing.TB, seed uint64, seen map[string]int) *hookSimulation {
	balances := map[string]int64{}
	s := &hookSimulation{r: rand.New(rand.NewPCG(seed, 11)), seen: seen}
	for i := range 6 {
		name := fmt.Sprintf("%c%d", 'a'+i, i)
		s.names = append(s.names, name)
		balances[name] = 300_000_000
	}
	s.world = newHookWorld(t, balances)
	for i, name := range []string{"probe", "count", "plain"} {
		s.codes[i] = testHook(t, name)
	}
	for i, n := range s.names {
		set := xahau.AccountSet(s.account(n))
		set.Set(field.SetFlag, xahau.Uint32([]uint32{8, 11}[i%2]))
		if i < 2 {
			set.Set(field.TransferRate, xahau.Uint32(1_000_000_000+500_000*uint32(s.r.IntN(1000))))
			if s.r.IntN(2) == 0 {
				set.Set(field.TickSize, xahau.Uint8(5))
			}
		}
		s.submit(s.sign(set, n))
	}
	s.close(4)
	for _, n := range s.names {
		for _, gw := range s.names[:2] {
			if n == gw {
				continue
			}
			limit := xahau.Issued(must3(xfl.Set(3, 1)), xahau.MustCurrency("USD"), s.account(gw))
			s.submit(s.sign(xahau.TrustSet(s.account(n), limit, 0), n))
		}
	}
	s.close(4)
	for _, n := range s.names {
		for _, gw := range s.names[:2] {
			if n != gw {
				s.submit(s.sign(xahau.Payment(s.account(gw), s.account(n), s.usd(gw, 500)), gw))
			}
		}
	}
	s.close(4)
	return s
}

func must3(v xfl.Float, err error) xfl.Float {
	if err != nil {
		panic(err)
	}
	return v
}

func (s *hookSimulation) pick() string { return s.names[s.r.IntN(len(s.names))] }

func (s *hookSimulation) usd(gw string, most int64) xahau.Amount {
	return xahau.Issued(must3(xfl.Set(-4, 1+s.r.Int64N(most*10_000))), xahau.MustCurrency("USD"), s.account(gw))
}

func (s *hookSimulation) money() xahau.Amount {
	if s.r.IntN(2) == 0 {
		return xahau.Drops(1 + s.r.Int64N(20_000_000))
	}
	return s.usd(s.names[s.r.IntN(2)], 30)
}

func (s *hookSimulation) token() (xahau.Hash256, *xahau.Object) {
	if len(s.tokens) == 0 {
		return xahau.Hash256{1}, nil
	}
	id := s.tokens[s.r.IntN(len(s.tokens))]
	return id, s.open.View().Read(keylet.Keylet{Type: xahau.EntryURIToken, Index: id})
}

// owner is who has a token, most often.
func (s *hookSimulation) owner(o *xahau.Object, other string) string {
	if o != nil && s.r.IntN(5) > 0 {
		for _, n := range s.names {
			if s.account(n) == o.Account(field.Owner) {
				return n
			}
		}
	}
	return other
}

func (s *hookSimulation) transaction() (string, *xahau.Object) {
	from, to := s.pick(), s.pick()
	a, b := s.account(from), s.account(to)
	id, token := s.token()
	switch s.r.IntN(14) {
	case 0:
		uri := fmt.Appendf(nil, "t%d", s.r.IntN(1000))
		s.tokens = append(s.tokens, keylet.URIToken(a, uri).Index)
		return from, xahau.URITokenMint(a, uri, uint32(s.r.IntN(2)))
	case 1:
		from = s.owner(token, from)
		return from, xahau.URITokenBurn(s.account(from), id)
	case 2, 3:
		from = s.owner(token, from)
		if s.r.IntN(4) == 0 {
			return from, xahau.URITokenCreateSellOffer(s.account(from), id, s.money(), &b)
		}
		return from, xahau.URITokenCreateSellOffer(s.account(from), id, s.money(), nil)
	case 4, 5:
		price := s.money()
		if token != nil && token.Has(field.Amount) && s.r.IntN(5) > 0 {
			price = token.Amount(field.Amount)
		}
		return from, xahau.URITokenBuy(a, id, price)
	case 6:
		from = s.owner(token, from)
		if s.r.IntN(3) > 0 {
			return from, xahau.URITokenCreateSellOffer(s.account(from), id, s.money(), nil)
		}
		return from, xahau.URITokenCancelSellOffer(s.account(from), id)
	case 7, 8, 9:
		o := xahau.NewTransaction(xahau.TxOfferCreate, a)
		o.Set(field.TakerPays, s.money())
		o.Set(field.TakerGets, s.money())
		o.SetFlags([]uint32{0, 0, 0, xahau.TfSell, xahau.TfPassive, xahau.TfImmediateOrCancel, xahau.TfFillOrKill, xahau.TfSell | xahau.TfFillOrKill}[s.r.IntN(8)])
		if s.r.IntN(6) == 0 {
			o.Set(field.Expiration, xahau.Uint32(s.last.CloseTime+uint32(s.r.IntN(60))))
		}
		return from, o
	case 10:
		o := xahau.NewTransaction(xahau.TxOfferCancel, a)
		o.Set(field.OfferSequence, xahau.Uint32(1+s.r.IntN(30)))
		return from, o
	case 11:
		return from, s.setHook(a)
	}
	o := xahau.Invoke(a, b, nil)
	switch s.r.IntN(8) {
	case 0:
		command(o, "DO", "R")
	case 1, 2, 3:
		command(o, "DO", "S", "K", fmt.Sprint(s.r.IntN(5)), "V", []string{"", "x", "yy"}[s.r.IntN(3)])
	case 4:
		c := s.account(s.pick())
		command(o, "DO", "E", "N", string([]byte{byte(1 + s.r.IntN(3))}), "TO", string(c[:]))
	case 5:
		command(o, "DO", "M")
	case 6:
		command(o, "DO", "A")
	}
	return from, o
}

func (s *hookSimulation) setHook(a xahau.AccountID) *xahau.Object {
	var list []*xahau.Object
	for range 1 + s.r.IntN(3) {
		code := s.codes[s.r.IntN(3)]
		var h *xahau.Object
		switch s.r.IntN(7) {
		case 0, 1:
			h = xahau.HookCreate(code, everything, space(byte(1+s.r.IntN(2))), xahau.HsfOverride|uint32(s.r.IntN(2))*xahau.HsfCollect)
			if s.r.IntN(2) == 0 {
				h.Set(field.HookParameters, params("SAY", fmt.Sprint(s.r.IntN(3)), "b", "2"))
			}
		case 2:
			h = xahau.HookInstall(xahau.HookHash(code), xahau.HsfOverride)
			b := s.account(s.pick())
			if b != a {
				h.Set(field.HookGrants, xahau.Array{xahau.HookGrant(xahau.HookHash(code), &b)})
			}
		case 3:
			h = xahau.HookDelete()
		case 4:
			h = hookObject(map[field.Code]xahau.Value{field.HookNamespace: space(byte(1 + s.r.IntN(2))), field.Flags: xahau.Uint32(xahau.HsfNSDelete)})
		case 5:
			h = hookObject(map[field.Code]xahau.Value{field.HookParameters: params("SAY", "new", "b", "absent")})
		}
		list = append(list, h)
	}
	return xahau.SetHook(a, list...)
}

func (s *hookSimulation) ledger() {
	s.t.Helper()
	for range 12 {
		from, o := s.transaction()
		name := s.defs.TransactionName(o.TransactionType())
		if code := s.submit(s.sign(o, from)); !code.IsClaimed() && code != ter.TesSUCCESS {
			s.seen[name+" "+code.String()]++
		}
	}
	c := s.close(4)
	for _, r := range c.Results {
		name := s.defs.TransactionName(r.Tx.Tx.TransactionType())
		if r.Tx.Emitted {
			name = "emitted " + name
		}
		s.seen[name+" "+r.Code.String()]++
		if r.Code == ter.TecINVARIANT_FAILED || r.Code == ter.TecINTERNAL {
			s.t.Errorf("%s: %s: %v", name, r.Code, r.Tx.Tx)
		}
		if r.Tx.Tx.TransactionType() == xahau.TxOfferCreate {
			s.checkOffer(r)
		}
	}
	for _, r := range c.Failed {
		s.seen["failed "+s.defs.TransactionName(r.Tx.Tx.TransactionType())+" "+r.Code.String()]++
	}
	// No book offers less for a currency than another takes for it: they would have
	// crossed. Offers that have lost their funds meanwhile may stand.
	s.checkBooks()
}

// checkOffer checks that nobody who offered got less than the rate of his offer, as
// far as rounding to drops goes.
func (s *hookSimulation) checkOffer(r Result) {
	for _, n := range r.Meta.Array(field.AffectedNodes) {
		if n.Object.Uint16(field.LedgerEntryType) != uint16(xahau.EntryOffer) || n.Field == field.CreatedNode {
			continue
		}
		before, after := n.Object.Object(field.PreviousFields), n.Object.Object(field.FinalFields)
		if before == nil || !before.Has(field.TakerPays) {
			continue
		}
		s.seen["crossed"]++
		got, err := before.Amount(field.TakerPays).Sub(after.Amount(field.TakerPays))
		if err != nil {
			s.t.Fatal(err)
		}
		gave, err := before.Amount(field.TakerGets).Sub(after.Amount(field.TakerGets))
		if err != nil {
			s.t.Fatal(err)
		}
		if gave.Signum() <= 0 || got.Signum() <= 0 {
			s.t.Errorf("an offer got %s for %s: %v", got, gave, n.Object)
			continue
		}
		want, rate := keylet.QualityOf(after.Hash(field.BookDirectory)), xahau.Rate(got, gave)
		if ratio := rateOf(rate) / rateOf(want); ratio < 1-3e-6 && !(got.IsNative() && got.Drops() < 1_000_000) && !(gave.IsNative() && gave.Drops() < 1_000_000) {
			s.t.Errorf("an offer got %s for %s, %.9f of its rate: %v", got, gave, ratio, n.Object)
		}
	}
}

func rateOf(rate uint64) float64 {
	f := float64(rate & (1<<56 - 1))
	for e := int(rate>>56) - 100; e != 0; {
		if e > 0 {
			f *= 10
			e--
		} else {
			f /= 10
			e++
		}
	}
	return f
}

func (s *hookSimulation) checkBooks() {
	v := view.NewClosed(s.state, view.Ledger{Defs: s.defs, Seq: s.last.Seq, ParentCloseTime: s.last.CloseTime, Fees: DefaultFees()})
	best := map[[2]xahau.Issue]float64{}
	for e, err := range s.state.All() {
		if err != nil {
			s.t.Fatal(err)
		}
		o := v.Read(keylet.Keylet{Type: xahau.EntryOffer, Index: xahau.Hash256(e.Key)})
		if o == nil || view.Funds(v, o.Account(field.Account), o.Amount(field.TakerGets)).Signum() <= 0 || o.Has(field.Expiration) {
			continue
		}
		if o.Flags()&xahau.LsfPassive != 0 {
			continue
		}
		pays, gets := o.Amount(field.TakerPays), o.Amount(field.TakerGets)
		if pays.Issuer() == o.Account(field.Account) || gets.Issuer() == o.Account(field.Account) {
			continue
		}
		k := [2]xahau.Issue{pays.Issue(), gets.Issue()}
		rate := rateOf(keylet.QualityOf(o.Hash(field.BookDirectory)))
		if old, ok := best[k]; !ok || rate < old {
			best[k] = rate
		}
	}
	for k, a := range best {
		b, ok := best[[2]xahau.Issue{k[1], k[0]}]
		// The transfer rate is at most 50 % here.
		if ok && a*b < 1/2.3 {
			s.t.Errorf("offers of %v stand at %g and %g and did not cross", k, a, b)
		}
	}
}
