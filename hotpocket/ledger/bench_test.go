package ledger

import (
	"context"
	"slices"
	"testing"
	"time"
)

// BenchmarkPromiseDurable measures one promise from AppendPromise to the call
// of OnDurable, with a ledger for every three of them.
func BenchmarkPromiseDurable(b *testing.B) {
	s, _, err := Open(context.Background(), b.TempDir()+"/l", Options{MaxRaw: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	told := make(chan uint64, 16)
	s.OnDurable(func(lsn uint64) { told <- lsn })
	wait := func(lsn uint64) {
		for lsn > <-told {
		}
	}
	promise := make([]byte, 700)
	times := make([]time.Duration, 0, b.N)
	seq := uint64(0)
	for b.Loop() {
		if len(times)%3 == 0 {
			seq++
			if _, err := s.AppendLedger(chainRecord(seq, 300)); err != nil {
				b.Fatal(err)
			}
		}
		start := time.Now()
		wait(s.AppendPromise(promise))
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1e3, "p99-µs")
}

// BenchmarkLedgers measures how many ledgers of 1 KB with 100 inputs of 100
// bytes are stored when nobody waits for a single one.
func BenchmarkLedgers(b *testing.B) {
	s, _, err := Open(context.Background(), b.TempDir()+"/l", Options{MaxRaw: 2})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	raw := chainRaw(1, 100)
	for i := range raw.Inputs {
		raw.Inputs[i].Blob = make([]byte, 100)
	}
	seq, lsn := uint64(0), uint64(0)
	for b.Loop() {
		seq++
		if _, err := s.AppendLedger(chainRecord(seq, 300)); err != nil {
			b.Fatal(err)
		}
		if lsn, err = s.AppendRaw(seq, raw); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Sync(context.Background(), lsn); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(seq)/b.Elapsed().Seconds(), "ledgers/s")
}

// BenchmarkGet reads ledgers from the files of a full shard by number and by
// hash.
func BenchmarkGet(b *testing.B) {
	s, _, err := Open(context.Background(), b.TempDir()+"/l", Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const n = 100_000
	fill(b, s, 1, n)
	drain(b, s)
	b.Run("seq", func(b *testing.B) {
		seq := uint64(1)
		for b.Loop() {
			if _, ok, err := s.Get(seq); err != nil || !ok {
				b.Fatal(err)
			}
			seq = seq*7%n + 1
		}
	})
	b.Run("hash", func(b *testing.B) {
		h := chainRecord(n/3, 0).Hash
		for b.Loop() {
			if _, ok, err := s.ByHash(h); err != nil || !ok {
				b.Fatal(err)
			}
		}
	})
}
