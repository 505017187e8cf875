package sim

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkHeight is the CPU time of one ledger on all nodes of a cluster
// together, every message signed once and checked by each receiver. The metric
// node-µs is the share of one node.
func BenchmarkHeight(b *testing.B) {
	for _, n := range []int{4, 16, 64} {
		for _, real := range []bool{false, true} {
			name := fmt.Sprintf("n=%d/fake", n)
			if real {
				name = fmt.Sprintf("n=%d/ed25519", n)
			}
			b.Run(name, func(b *testing.B) {
				w := newWorld(Config{Members: n, Threshold: 66, Round: time.Second, PerRound: 10, Leap: 20, RealKeys: real, CheckAll: true})
				for _, n := range w.nodes {
					n.start()
				}
				w.runUntil(3*time.Second, nil)
				from := w.report.Height
				b.ReportAllocs()
				for b.Loop() {
					from++
					w.runUntil(time.Hour*10000, func() bool { return w.report.Height >= from })
				}
				if w.err != nil {
					b.Fatal(w.err)
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "node-µs/op")
			})
		}
	}
}
