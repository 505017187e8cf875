package sim

import (
	"flag"
	"testing"
	"time"
)

var (
	seeds = flag.Int("sim.seeds", 10_000, "how many seeds to simulate")
	start = flag.Uint64("sim.start", 1, "the first seed")
	lines = flag.Int("sim.lines", 80, "how many lines of a failure's story to print")
)

func TestSeeds(t *testing.T) {
	failed := 0
	for seed := *start; seed < *start+uint64(*seeds); seed++ {
		began := time.Now()
		r, f := Run(Plan(seed))
		if d := time.Since(began); d > time.Second {
			t.Logf("seed %d took %v for %d events", seed, d, r.Events)
		}
		if f != nil {
			t.Errorf("replay with -sim.start=%d -sim.seeds=1: %v\n%s", seed, f, f.Tell(*lines))
			if failed++; failed >= 3 {
				t.Fatal("and maybe more")
			}
		}
	}
}
