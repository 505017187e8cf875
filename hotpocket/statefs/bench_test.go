package statefs

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"
)

func benchState(b *testing.B, files int) *Dir {
	dir := b.TempDir()
	for i := range files {
		path := fmt.Sprintf("%s/seed/state/d%d/f%d", dir, i/100, i)
		if i%100 == 0 {
			must(b, os.MkdirAll(fmt.Sprintf("%s/seed/state/d%d", dir, i/100), 0o755))
		}
		must(b, os.WriteFile(path, []byte(path), 0o644))
	}
	d, err := OpenDir(ctx, Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	must(b, err)
	b.Cleanup(func() { d.Close() })
	return d
}

// BenchmarkRun measures a whole run, Begin to Commit, without the contract.
func BenchmarkRun(b *testing.B) {
	for _, files := range []int{20, 10000} {
		for _, touched := range []int{0, 1} {
			b.Run(fmt.Sprintf("files=%d/touched=%d", files, touched), func(b *testing.B) {
				d := benchState(b, files)
				var end, commit int64
				seq := uint64(0)
				for b.Loop() {
					seq++
					r, err := d.Begin(ctx, seq)
					must(b, err)
					for i := range touched {
						must(b, os.WriteFile(fmt.Sprintf("%s/d0/f%d", r.Dir(), i), fmt.Append(nil, seq), 0o644))
					}
					t := now()
					_, _, err = r.End(ctx)
					must(b, err)
					end += now() - t
					if touched > 0 {
						<-r.(*run).copied // in a node the rounds of the ledger pass here
					}
					t = now()
					must(b, r.Commit(ctx))
					commit += now() - t
				}
				b.ReportMetric(float64(end)/float64(b.N)/1e6, "end-ms")
				b.ReportMetric(float64(commit)/float64(b.N)/1e6, "commit-ms")
			})
		}
	}
}

func BenchmarkView(b *testing.B) {
	d := benchState(b, 20)
	for b.Loop() {
		v, err := d.View(ctx)
		must(b, err)
		v.Close()
	}
}

var start = time.Now()

func now() int64 { return int64(time.Since(start)) }
