package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"evernode/hotpocket/consensus"
)

// Misfortune is what happens to a cluster while it is in chaos.
type Misfortune struct {
	// Chaos is how long it lasts.
	Chaos time.Duration
	// Latency is the greatest least delay of a link, Jitter the mean of what
	// comes on top. Loss and Twice are probabilities per packet.
	Latency, Jitter time.Duration
	Loss, Twice     float64
	// Crashes, Partitions and Jumps (of wall clocks) are mean numbers per round
	// time.
	Crashes, Partitions, Jumps float64
	// Skew is the greatest error of a wall clock.
	Skew time.Duration
	// Slow, Wrong and Stuck are how many honest members execute slowly, with
	// wrong results now and then, or with runs that never end.
	Slow, Wrong, Stuck int
	// Far members have ten times the latency, Sluggish ones disks that take ten
	// times as long.
	Far, Sluggish int
	// Dead members never start again after the chaos.
	Dead int
	// Inputs is the mean number of bundles per round time.
	Inputs float64
	// Silent connections do not tell a node that has just connected anything.
	Silent bool
}

// Plan draws a cluster and its misfortunes from a seed.
func Plan(seed uint64) (Config, Misfortune) {
	rng := rand.New(rand.NewPCG(seed, 0xd1ce))
	pick := func(xs ...int) int { return xs[rng.IntN(len(xs))] }
	ms := func(xs ...int) time.Duration { return time.Duration(pick(xs...)) * time.Millisecond }
	oneIn := func(k int) bool { return rng.IntN(k) == 0 }

	c := Config{
		Seed:      seed,
		Members:   pick(1, 2, 3, 3, 4, 4, 4, 4, 5, 5, 6, 7, 7),
		Threshold: pick(50, 51, 66, 66, 66, 67, 75, 80, 90, 100),
		Round:     ms(50, 200, 1000, 1000, 4000),
		PerRound:  pick(1, 2, 5, 10),
		Disk:      ms(0, 1, 5, 30),
		Pause:     ms(0, 0, 0, 3, 50),
		RunTime:   ms(0, 0, 1, 10, 300),
		SyncTime:  ms(0, 5, 100),
		Leap:      pick(1, 3, 20),
		Wire:      oneIn(16),
		RealKeys:  oneIn(1000),
	}
	switch {
	case oneIn(300):
		c.Members = pick(16, 24, 32)
	case oneIn(60):
		c.Members = pick(8, 9, 10, 11, 12, 13)
	}
	if oneIn(4) {
		c.Observers = pick(1, 1, 2)
	}
	if oneIn(8) {
		c.Differ = []float64{0.1, 0.5}[rng.IntN(2)]
	}
	n, q := c.Members, consensus.Quorum(c.Members, c.Threshold)
	var m Misfortune
	if f := tolerable(c); f > 0 && oneIn(2) {
		c.Liars = 1 + rng.IntN(f)
		if oneIn(2) {
			// As many as leave the others able to go on.
			c.Liars = min(c.Liars, max(n-q, 1))
		}
	}
	if spare := n - q - c.Liars; spare > 0 && oneIn(2) {
		m.Dead = 1 + rng.IntN(spare)
	}
	if oneIn(6) {
		c.Changes = changes(rng, c)
	}
	m.Chaos = c.Round * time.Duration(pick(2, 3, 4, 6))
	m.Latency, m.Jitter = ms(0, 1, 5, 50, 150), ms(0, 0, 1, 10, 100)
	if !oneIn(4) {
		m.Latency, m.Jitter = min(m.Latency, c.Round/16), min(m.Jitter, c.Round/16)
	}
	if oneIn(2) {
		m.Loss = []float64{0.01, 0.1, 0.3}[rng.IntN(3)]
	}
	if oneIn(3) {
		m.Twice = 0.2
	}
	if oneIn(2) {
		m.Crashes = []float64{0.2, 1, 3}[rng.IntN(3)]
	}
	if oneIn(2) {
		m.Partitions = []float64{0.2, 1, 3}[rng.IntN(3)]
	}
	if oneIn(3) {
		m.Jumps = 1
	}
	m.Skew = ms(0, 10, 5000)
	if oneIn(3) {
		m.Slow = pick(1, 1, 2)
	}
	if oneIn(4) {
		m.Wrong = 1
	}
	if oneIn(5) {
		m.Stuck = 1
	}
	if oneIn(6) {
		m.Far = 1
	}
	if oneIn(6) {
		m.Sluggish = 1
	}
	if oneIn(100) {
		m.Chaos *= 8
	}
	m.Inputs = []float64{0, 0.5, 2, 5}[rng.IntN(4)]
	m.Silent = oneIn(4)
	return c, m
}

// tolerable is how many liars a cluster is safe from.
func tolerable(c Config) int { return consensus.Byzantine(c.Members, c.Threshold) }

// changes draws configurations that follow each other in a cluster.
func changes(rng *rand.Rand, c Config) []Change {
	var out []Change
	all := rng.Perm(c.Members + c.Observers)
	height := uint64(0)
	for range 1 + rng.IntN(3) {
		height += 1 + uint64(rng.IntN(5))
		k := 1 + rng.IntN(len(all))
		members := slices.Clone(all[:k])
		if rng.IntN(2) == 0 {
			members = make([]int, c.Members)
			for i := range members {
				members[i] = i
			}
			if len(members) > 1 {
				drop := rng.IntN(len(members))
				members = slices.Delete(members, drop, drop+1)
			}
			if c.Observers > 0 {
				members = append(members, c.Members)
			}
		}
		out = append(out, Change{height, members, 50 + rng.IntN(51)})
	}
	return out
}

// String tells the plan in a few lines.
func (c Config) String() string {
	q := consensus.Quorum(c.Members, c.Threshold)
	return fmt.Sprintf("seed %d: %d members, threshold %d (quorum %d), %d liars, %d observers, round time %v with %d ledgers, disk %v, pause %v, runs %v, sync %v, leap %d, %.1f runs differ, changes %v",
		c.Seed, c.Members, c.Threshold, q, c.Liars, c.Observers, c.Round, c.PerRound, c.Disk, c.Pause, c.RunTime, c.SyncTime, c.Leap, c.Differ, c.Changes)
}

// String tells the misfortunes in a few lines.
func (m Misfortune) String() string {
	return fmt.Sprintf("chaos for %v: latency %v+%v, loss %.2f, twice %.2f; per round %.1f crashes, %.1f partitions, %.1f clock jumps; skew %v; %d slow, %d wrong, %d stuck, %d far, %d sluggish, %d dead; %.1f inputs; silent %v",
		m.Chaos, m.Latency, m.Jitter, m.Loss, m.Twice, m.Crashes, m.Partitions, m.Jumps, m.Skew, m.Slow, m.Wrong, m.Stuck, m.Far, m.Sluggish, m.Dead, m.Inputs, m.Silent)
}
