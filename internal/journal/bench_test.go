package journal

import (
	"context"
	"slices"
	"testing"
	"time"
)

// BenchmarkAppendDurable measures one promise of 700 bytes from Append to
// durable on the disk of the temporary folder.
func BenchmarkAppendDurable(b *testing.B) {
	told := make(chan uint64, 1)
	l, _, err := Open(b.TempDir(), Options{OnDurable: func(lsn uint64) { told <- lsn }}, func(Entry) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	payload := make([]byte, 700)
	times := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for b.Loop() {
		start := time.Now()
		lsn, err := l.Append(1, payload)
		if err != nil {
			b.Fatal(err)
		}
		for <-told < lsn {
		}
		times = append(times, time.Since(start))
	}
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1e3, "p99-µs")
}

// BenchmarkGroupCommit measures how many records of 700 bytes become durable
// when nobody waits for a single one.
func BenchmarkGroupCommit(b *testing.B) {
	l, _, err := Open(b.TempDir(), Options{}, func(Entry) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	payload := make([]byte, 700)
	b.SetBytes(int64(len(payload)))
	var lsn uint64
	for b.Loop() {
		if lsn, err = l.Append(1, payload); err != nil {
			b.Fatal(err)
		}
		if lsn%20000 == 0 {
			if err := l.Truncate(l.Durable()); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := l.Sync(context.Background(), lsn); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(lsn)/b.Elapsed().Seconds(), "records/s")
}
