package apply

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/standalone/tx"
)

// BenchmarkPayments is what a simple payment costs from the submitted bytes to the
// closed ledger: decoding, signature, trial, application, metadata, trees.
func BenchmarkPayments(b *testing.B) {
	for _, kind := range []string{"secp256k1", "ed25519"} {
		b.Run(kind, func(b *testing.B) {
			const accounts, perLedger = 500, 1000
			balances := map[string]int64{}
			name := func(i int) string {
				if kind == "ed25519" {
					return fmt.Sprintf("e%d", i)
				}
				return fmt.Sprintf("s%d", i)
			}
			for i := range accounts {
				balances[name(i)] = 1_000_000_000
			}
			w := newWorld(b, balances)
			blobs := make([][]byte, b.N)
			for i := range blobs {
				from := name(i % accounts)
				o := xahau.Payment(w.account(from), w.account(name((i*7+1)%accounts)), xahau.Drops(1000))
				if o.Account(field.Account) == o.Account(field.Destination) {
					o.Set(field.Destination, w.account("root"))
				}
				o.Set(field.Fee, xahau.Drops(10))
				o.Set(field.Sequence, xahau.Uint32(1+i/accounts))
				o.Set(field.NetworkID, xahau.Uint32(testNetwork))
				s, err := w.defs.Sign(o, w.key(from))
				if err != nil {
					b.Fatal(err)
				}
				blobs[i] = s.Blob
			}
			b.ReportAllocs()
			start := processorTime(b)
			b.ResetTimer()
			done := 0
			for i, blob := range blobs {
				p, err := tx.Prepare(w.defs, blob)
				if err != nil {
					b.Fatal(err)
				}
				if code, err := w.open.Submit(context.Background(), p); err != nil || code != 0 {
					b.Fatalf("%v %v %v", code, err, p.Reason())
				}
				if i%perLedger == perLedger-1 || i == len(blobs)-1 {
					c, err := w.open.Close(context.Background(), w.last.CloseTime+4)
					if err != nil {
						b.Fatal(err)
					}
					done += len(c.Results)
					w.last, w.state = c.Ledger.Header, c.Ledger.State
					w.next(c.Held)
				}
			}
			if done != b.N {
				b.Fatalf("%d of %d payments are in ledgers", done, b.N)
			}
			// Processor time tells more than the clock on a machine that others use, too.
			cpu := processorTime(b) - start
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
			b.ReportMetric(float64(b.N)/cpu.Seconds(), "payments/cpu-s")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
