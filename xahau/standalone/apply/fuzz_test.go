package apply

import (
	"context"
	"testing"

	"evernode/xahau/field"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
)

// FuzzTransaction applies transactions made of any bytes, as if their signatures
// were right, to a small world: nothing may panic, no invariant may be violated, and
// what must hold after a ledger must hold.
func FuzzTransaction(f *testing.F) {
	s := newSimulation(f, 1)
	for range 60 {
		o, by := s.transaction()
		f.Add(s.sign(o, by).Blob)
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		w := newWorld(t, map[string]int64{"a0": 10_000_000, "b1": 10_000_000, "c2": 10_000_000, "d3": 10_000_000})
		p, err := tx.Prepare(w.defs, blob)
		if err != nil {
			return
		}
		// Signed anew, if it is from one of them.
		for name, k := range w.keys {
			if k.Account() == p.Tx.Account(field.Account) {
				if signed, err := w.defs.Sign(p.Tx, w.key(name)); err == nil {
					p = w.prepare(signed.Blob)
				}
				break
			}
		}
		before := w.state
		if code := w.submit(p); code.String() == "tefINTERNAL" || code.String() == "tecINVARIANT_FAILED" {
			out, err := w.open.Try(context.Background(), p)
			if err != nil || out.Reason != nil {
				t.Fatalf("%s: %v %v", code, out.Reason, err)
			}
		}
		c, err := w.open.Close(context.Background(), w.last.CloseTime+4)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkLedger(w.defs, before, c); err != nil {
			t.Fatal(err)
		}
		for _, r := range c.Results {
			view.AffectedAccounts(r.Meta)
			if r.Tx.Tx.TransactionType() != p.Tx.TransactionType() {
				t.Fatal("another transaction is in the ledger")
			}
		}
	})
}
