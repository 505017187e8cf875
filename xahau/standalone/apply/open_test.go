package apply

import (
	"context"
	"math/rand/v2"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/ter"
)

// TestOrderDoesNotMatter submits the same transactions in many orders, some of
// which need others: the ledger that closes is the same to the last bit.
func TestOrderDoesNotMatter(t *testing.T) {
	balances := map[string]int64{"alice": 50_000_000, "bob": 50_000_000, "carol": 50_000_000}
	w := newWorld(t, balances)
	var list []*tx.Prepared
	add := func(o *xahau.Object, by string, seq uint32) {
		o.Set(field.Sequence, xahau.Uint32(seq))
		o.Set(field.Fee, xahau.Drops(10))
		list = append(list, w.sign(o, by))
	}
	gw := w.account("carol")
	usd, err := xahau.ParseAmount("10/USD/" + gw.String())
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(5) {
		add(xahau.Payment(w.account("alice"), w.account("bob"), xahau.Drops(1000)), "alice", 1+i)
	}
	add(xahau.TrustSet(w.account("bob"), usd, 0), "bob", 1)
	add(xahau.Payment(gw, w.account("bob"), usd), "carol", 1)
	add(xahau.Payment(w.account("bob"), w.account("dora"), xahau.Drops(5_000_000)), "bob", 2)
	add(xahau.Payment(w.account("dora"), w.account("alice"), xahau.Drops(1)), "dora", testTime)

	var want *Closed
	r := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		w := newWorld(t, balances)
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, p := range list {
			// Those that come too early wait, and a payment that finds no line yet only
			// fails on trial.
			w.submit(p)
		}
		got, err := w.open.Close(context.Background(), w.last.CloseTime+4)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
			if len(got.Results) != len(list) || len(got.Held) != 0 || len(got.Failed) != 0 {
				t.Fatalf("%d of %d are in the ledger", len(got.Results), len(list))
			}
			for _, x := range got.Results {
				if x.Code != ter.TesSUCCESS {
					t.Fatalf("%v: %s", x.Tx.Tx, x.Code)
				}
			}
		}
		if got.Ledger.Header != want.Ledger.Header {
			t.Fatalf("the ledger is %+v, want %+v", got.Ledger.Header, want.Ledger.Header)
		}
	}
}

// TestHeld checks that what comes too early waits, but not for ever, and not in any
// number.
func TestHeld(t *testing.T) {
	w := newWorld(t, map[string]int64{"alice": 50_000_000, "bob": 50_000_000})
	w.cfg.Held = 2
	w.next(nil)
	pay := func(seq uint32) *tx.Prepared {
		o := xahau.Payment(w.account("alice"), w.account("bob"), xahau.Drops(1000))
		o.Set(field.Sequence, xahau.Uint32(seq))
		return w.sign(o, "alice")
	}
	first := pay(3)
	for _, x := range []struct {
		p    *tx.Prepared
		want ter.Code
	}{{first, ter.TerPRE_SEQ}, {first, ter.TefALREADY}, {pay(4), ter.TerPRE_SEQ}, {pay(5), ter.TelCAN_NOT_QUEUE_FULL}} {
		if got := w.submit(x.p); got != x.want {
			t.Fatalf("%s, want %s", got, x.want)
		}
	}
	w.close(4)
	if n := len(w.open.Held()); n != 2 {
		t.Fatalf("%d are held, want 2", n)
	}
	// What they wait for comes: all are applied at once.
	if got := w.submit(pay(1)); got != ter.TesSUCCESS {
		t.Fatal(got)
	}
	if got := w.submit(pay(2)); got != ter.TesSUCCESS {
		t.Fatal(got)
	}
	if len(w.open.Held()) != 0 || len(w.open.Transactions()) != 4 {
		t.Fatalf("%d held, %d tried", len(w.open.Held()), len(w.open.Transactions()))
	}
	if c := w.close(4); len(c.Results) != 4 {
		t.Fatalf("%d are in the ledger", len(c.Results))
	}
	w.submit(pay(9))
	var failed []Result
	for range holdLedgers + 1 {
		failed = append(failed, w.close(4).Failed...)
	}
	if len(failed) != 1 || failed[0].Code != ter.TerPRE_SEQ || len(w.open.Held()) != 0 {
		t.Fatalf("failed: %v, held: %d", failed, len(w.open.Held()))
	}
}

// TestBadSignature changes every byte of a signature and of what is signed.
func TestBadSignature(t *testing.T) {
	w := newWorld(t, map[string]int64{"alice": 50_000_000, "bob": 50_000_000})
	for _, by := range []string{"alice", "bob"} {
		good := w.sign(xahau.Payment(w.account(by), w.account("root"), xahau.Drops(1000)), by)
		for _, code := range []field.Code{field.TxnSignature, field.SigningPubKey} {
			for i := range good.Tx.Blob(code) {
				o := good.Tx.Clone()
				o.Blob(code)[i] ^= 1
				blob, err := w.defs.Encode(o)
				if err != nil {
					t.Fatal(err)
				}
				if got := w.submit(w.prepare(blob)); !got.IsMalformed() {
					t.Fatalf("%s with a changed byte gives %s", w.key(by).Public().Type(), got)
				}
			}
		}
		o := good.Tx.Clone()
		o.Set(field.Amount, xahau.Drops(1001))
		blob, err := w.defs.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.submit(w.prepare(blob)); got != ter.TemINVALID {
			t.Fatalf("another amount gives %s", got)
		}
		if got := w.submit(good); got != ter.TesSUCCESS {
			t.Fatal(got)
		}
	}
}

// TestNetworkID checks what transactions must say about the network.
func TestNetworkID(t *testing.T) {
	for _, x := range []struct {
		network uint32
		id      xahau.Value
		want    ter.Code
	}{
		{1024, xahau.Uint32(1024), ter.TelNETWORK_ID_MAKES_TX_NON_CANONICAL},
		{1024, nil, ter.TesSUCCESS},
		{1025, nil, ter.TelREQUIRES_NETWORK_ID},
		{1025, xahau.Uint32(1026), ter.TelWRONG_NETWORK},
		{1025, xahau.Uint32(1025), ter.TesSUCCESS},
	} {
		w := newWorld(t, map[string]int64{"alice": 50_000_000})
		w.cfg.NetworkID = x.network
		w.next(nil)
		o := w.fill(xahau.AccountSet(w.account("alice")))
		o.Set(field.NetworkID, x.id)
		s, err := w.defs.Sign(o, w.key("alice"))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.submit(w.prepare(s.Blob)); got != x.want {
			t.Errorf("NetworkID %v on network %d gives %s, want %s", x.id, x.network, got, x.want)
		}
	}
}

func TestCloseTimeMustGrow(t *testing.T) {
	w := newWorld(t, nil)
	if _, err := w.open.Close(context.Background(), w.last.CloseTime); err == nil {
		t.Fatal("a ledger closed at the time of the one before")
	}
}

// TestServersTransactions changes the fees and puts an amendment in force.
func TestServersTransactions(t *testing.T) {
	w := newWorld(t, map[string]int64{"alice": 50_000_000})
	server := func(typ xahau.TransactionType, set func(o *xahau.Object)) *tx.Prepared {
		o := xahau.NewTransaction(typ, xahau.AccountZero)
		o.Set(field.Sequence, xahau.Uint32(0))
		o.Set(field.Fee, xahau.Drops(0))
		o.Set(field.SigningPubKey, xahau.Blob{})
		o.Set(field.LedgerSequence, xahau.Uint32(w.last.Seq+1))
		set(o)
		b, err := w.defs.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		return w.prepare(b)
	}
	fee := server(xahau.TxSetFee, func(o *xahau.Object) {
		o.Set(field.BaseFee, xahau.Uint64(20))
		o.Set(field.ReferenceFeeUnits, xahau.Uint32(20))
		o.Set(field.ReserveBase, xahau.Uint32(2_000_000))
		o.Set(field.ReserveIncrement, xahau.Uint32(500_000))
	})
	amendment := server(xahau.TxEnableAmendment, func(o *xahau.Object) { o.Set(field.Amendment, xahau.Hash256{7}) })
	if got := w.submit(fee); got != ter.TemINVALID {
		t.Fatalf("somebody submits a transaction of the servers: %s", got)
	}
	before := w.state
	c, err := w.open.Close(context.Background(), w.last.CloseTime+4, fee, amendment)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Results) != 2 || len(c.Failed) != 0 {
		t.Fatalf("%v, failed %v", c.Results, c.Failed)
	}
	if err := checkLedger(w.defs, before, c); err != nil {
		t.Fatal(err)
	}
	w.last, w.state = c.Ledger.Header, c.Ledger.State
	w.next(nil)
	f := w.open.View().Ledger().Fees
	if f.Base != 20 || f.Reserve != 2_000_000 || f.Increment != 500_000 {
		t.Fatalf("fees are %+v", f)
	}
	if list := w.open.View().Read(keylet.Amendments()).Vector(field.Amendments); len(list) != 1 || list[0] != (xahau.Hash256{7}) {
		t.Fatalf("amendments are %v", list)
	}
	o := xahau.AccountSet(w.account("alice"))
	o.Set(field.Fee, xahau.Drops(19))
	if got := w.submit(w.sign(o, "alice")); got != ter.TelINSUF_FEE_P {
		t.Fatal(got)
	}
}

// TestSkipLists closes ledgers beyond the length of the lists of hashes.
func TestSkipLists(t *testing.T) {
	w := newWorld(t, nil)
	hashes := map[uint32]xahau.Hash256{}
	for range 520 {
		hashes[w.last.Seq] = w.last.Hash()
		c, err := w.open.Close(context.Background(), w.last.CloseTime+4)
		if err != nil {
			t.Fatal(err)
		}
		w.last, w.state = c.Ledger.Header, c.Ledger.State
		w.next(nil)
	}
	list := w.open.View().Read(keylet.SkipList())
	last := list.Uint32(field.LastLedgerSequence)
	if last != w.last.Seq-1 || len(list.Vector(field.Hashes)) != 256 {
		t.Fatalf("%d hashes up to %d, want 256 up to %d", len(list.Vector(field.Hashes)), last, w.last.Seq-1)
	}
	for i, h := range list.Vector(field.Hashes) {
		if h != hashes[last-255+uint32(i)] {
			t.Fatalf("hash %d is wrong", i)
		}
	}
	far := w.open.View().Read(keylet.SkipListOf(1)).Vector(field.Hashes)
	if len(far) != 2 || far[0] != hashes[256] || far[1] != hashes[512] {
		t.Fatalf("the far list is %v", far)
	}
}
