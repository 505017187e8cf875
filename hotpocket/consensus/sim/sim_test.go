package sim

import (
	"flag"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	seeds = flag.Int("sim.seeds", 10_000, "how many seeds to simulate")
	start = flag.Uint64("sim.start", 1, "the first seed")
	lines = flag.Int("sim.lines", 80, "how many lines of a failure's story to print")
)

// TestSeeds simulates many clusters and misfortunes. What fails is told by
// go test -run TestSeeds -sim.start=SEED -sim.seeds=1.
func TestSeeds(t *testing.T) {
	count := *seeds
	if testing.Short() {
		count = min(count, 500)
	}
	failed := 0
	for seed := *start; seed < *start+uint64(count); seed++ {
		began := time.Now()
		r, f := Run(Plan(seed))
		if d := time.Since(began); d > 2*time.Second {
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

// TestReplay checks that a seed is lived through in the same way each time.
func TestReplay(t *testing.T) {
	for seed := uint64(1); seed <= 40; seed++ {
		a, _ := Run(Plan(seed))
		b, _ := Run(Plan(seed))
		if !reflect.DeepEqual(a, b) {
			t.Errorf("seed %d: %+v and then %+v", seed, a, b)
		}
	}
}

// TestOneLiarTooMany gives up the protocol's one assumption: with 2q−n liars
// clusters fork, and the simulation notices.
func TestOneLiarTooMany(t *testing.T) {
	forks := 0
	for seed := uint64(1); seed <= 3000 && forks == 0; seed++ {
		c, m := Plan(seed)
		if c.Liars == 0 {
			continue
		}
		c.Liars = tolerable(c) + 1
		if _, f := Run(c, m); f != nil && strings.Contains(f.Error(), "fork") {
			forks++
		}
	}
	if forks == 0 {
		t.Error("no cluster has forked")
	}
}

// TestLargeClusters simulates UNLs as large as they may be.
func TestLargeClusters(t *testing.T) {
	if testing.Short() {
		t.Skip("large clusters take seconds each")
	}
	for i, n := range []int{64, 100, 128} {
		c, _ := Plan(uint64(1000 + i))
		c.Members, c.Threshold, c.Liars, c.Observers, c.Changes = n, 66, 5, 1, nil
		c.Round, c.PerRound, c.Disk, c.Pause, c.RunTime, c.SyncTime = time.Second, 2, 5*time.Millisecond, 0, 10*time.Millisecond, 0
		m := Misfortune{Chaos: 2 * time.Second, Latency: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.02, Crashes: 1, Partitions: 0.5, Inputs: 1, Dead: 3}
		r, f := Run(c, m)
		if f != nil {
			t.Errorf("%d members: %v\n%s", n, f, f.Tell(*lines))
		}
		t.Logf("%d members: %d ledgers, recovered after %v, %d events", n, r.Height, r.Recovery, r.Events)
	}
}

// TestRealKeys signs a few simulations with Ed25519 and sends every message
// through its wire form.
func TestRealKeys(t *testing.T) {
	for seed := uint64(1); seed <= 12; seed++ {
		c, m := Plan(seed)
		c.RealKeys, c.Wire = true, true
		if _, f := Run(c, m); f != nil {
			t.Errorf("seed %d: %v\n%s", seed, f, f.Tell(*lines))
		}
	}
}
