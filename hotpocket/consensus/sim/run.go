package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"evernode/hotpocket/consensus"
)

// Failure is what was found wrong, with the story of how it came to it.
type Failure struct {
	Err   error
	Plan  string
	Story []string
}

func (f *Failure) Error() string { return f.Err.Error() }

// Tell returns the plan and the last lines of the story.
func (f *Failure) Tell(lines int) string {
	story := f.Story
	if len(story) > lines {
		story = append([]string{fmt.Sprintf("(%d lines left out)", len(story)-lines)}, story[len(story)-lines:]...)
	}
	return f.Plan + "\n" + strings.Join(story, "\n")
}

// Run lives through a plan. A failure is lived through a second time, to be
// told.
func Run(c Config, m Misfortune) (Report, *Failure) {
	w := newWorld(c)
	w.live(m)
	if w.err == nil {
		return w.report, nil
	}
	again := newWorld(c)
	again.tracing = true
	again.live(m)
	if again.err == nil || again.err.Error() != w.err.Error() {
		w.err = fmt.Errorf("%w (and not the same again: %v)", w.err, again.err)
	}
	return w.report, &Failure{w.err, c.String() + "\n" + m.String(), again.story}
}

// live is the life of a cluster: chaos, healing, progress.
func (w *World) live(m Misfortune) {
	w.afflict(m)
	for _, n := range w.nodes {
		n := n
		w.after(time.Duration(w.rng.Int64N(int64(w.cfg.Round/4)+1)), func() { n.start() })
		if n.twin != nil {
			w.after(0, func() { n.twin.start() })
		}
	}
	w.supply(m.Inputs)
	w.hazard(m)
	w.runUntil(m.Chaos, nil)
	if w.err == nil {
		w.recover(m)
	}
	w.report.Time = w.now
}

// afflict sets up what is wrong from the beginning.
func (w *World) afflict(m Misfortune) {
	rng := w.rng
	net := w.net
	net.jitter, net.loss, net.twice = m.Jitter, m.Loss, m.Twice
	for i := range net.base {
		for j := range i {
			d := time.Duration(rng.Int64N(int64(m.Latency)+1)) + 50*time.Microsecond
			net.base[i][j], net.base[j][i] = d, d
		}
	}
	order := rng.Perm(w.cfg.Members)
	for _, i := range order[:w.cfg.Liars] {
		w.corrupt(w.nodes[i])
	}
	honest := order[w.cfg.Liars:]
	// A configuration in which more lie than any protocol can bear is not one
	// that honest members would agree on.
	for i, p := range w.params[1:] {
		if w.liarsIn(p) > max(2*p.Quorum()-len(p.Members)-1, 0) {
			w.cfg.Changes = w.cfg.Changes[:i]
			w.params = w.params[:i+1]
			break
		}
	}
	some := func(k int, do func(*node)) {
		for range k {
			if len(honest) > 0 {
				do(w.nodes[honest[rng.IntN(len(honest))]])
			}
		}
	}
	some(m.Slow, func(n *node) { n.slow = []float64{3, 30}[rng.IntN(2)] })
	some(m.Wrong, func(n *node) { n.wrong = []float64{0.2, 1}[rng.IntN(2)] })
	some(m.Far, func(n *node) {
		for i := range net.base {
			net.base[i][n.place] *= 10
			net.base[n.place][i] *= 10
		}
	})
	some(m.Sluggish, func(n *node) { n.disk.latency *= 10 })
	some(m.Stuck, func(n *node) { n.stuck = []float64{0.2, 1}[rng.IntN(2)] })
	for _, n := range w.nodes {
		if m.Skew > 0 {
			n.clock = time.Duration(rng.Int64N(int64(2*m.Skew))) - m.Skew
		}
		if i := w.cfg.Members; n.place >= i {
			n.observer = w.rng.IntN(2) == 0 && len(w.cfg.Changes) == 0
		}
	}
}

// every lets something happen at random moments, so often per round time on
// average, until the chaos is over.
func (w *World) every(perRound float64, until time.Duration, do func()) {
	if perRound <= 0 {
		return
	}
	wait := time.Duration(-math.Log(1-w.rng.Float64()) * float64(w.cfg.Round) / perRound)
	if w.now+wait >= until {
		return
	}
	w.after(wait, func() {
		do()
		w.every(perRound, until, do)
	})
}

// supply brings inputs to nodes for as long as the simulation goes on.
func (w *World) supply(perRound float64) {
	w.every(perRound, math.MaxInt64/2, func() {
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		if !n.up || !n.honest() {
			return
		}
		if w.rng.IntN(8) == 0 {
			n.presence = w.hash()
			n.take(n.presence, false)
			return
		}
		b := w.hash()
		w.tell("%v takes bundle %s", n, b.Short())
		n.take(b, true)
	})
}

// hazard lets nodes crash, partitions come and go and clocks jump.
func (w *World) hazard(m Misfortune) {
	rng := w.rng
	short := func() time.Duration { return time.Duration(rng.Int64N(int64(w.cfg.Round))) }
	w.every(m.Crashes, m.Chaos, func() {
		victims := []*node{w.nodes[rng.IntN(len(w.nodes))]}
		if rng.IntN(6) == 0 {
			victims = w.nodes
		}
		for _, n := range victims {
			if n.up && n.honest() {
				n.crash()
				w.after(short()/2, func() { w.revive(n, m) })
			}
		}
	})
	w.every(m.Partitions, m.Chaos, func() {
		group := make([]int, len(w.nodes))
		for i := range group {
			group[i] = rng.IntN(2)
		}
		switch rng.IntN(3) {
		case 0: // one way only
			w.tell("one way is cut between %v", group)
			for i := range group {
				for j := range group {
					w.net.blocked[i][j] = group[i] < group[j]
				}
			}
		case 1: // a few links
			for i := range group {
				for j := range group {
					w.net.blocked[i][j] = rng.IntN(4) == 0
				}
			}
			w.tell("some links are cut")
		default:
			w.tell("partition %v", group)
			w.net.partition(group)
		}
		w.after(short(), func() { w.connect(m) })
	})
	w.every(m.Jumps, m.Chaos, func() {
		n := w.nodes[rng.IntN(len(w.nodes))]
		n.clock = time.Duration(rng.Int64N(int64(48*time.Hour))) - 24*time.Hour
		w.tell("the clock of %v jumps to %v", n, n.clock)
	})
}

// connect ends all partitions.
func (w *World) connect(m Misfortune) {
	w.tell("partitions end")
	for i, a := range w.nodes {
		clear(w.net.blocked[i])
		if m.Silent {
			continue
		}
		for _, b := range w.nodes[:i] {
			w.greet(a, b)
		}
	}
}

func (w *World) revive(n *node, m Misfortune) {
	if n.up || w.err != nil {
		return
	}
	n.start()
	if n.twin != nil {
		n.twin.start()
	}
	if !m.Silent {
		for _, other := range w.nodes {
			if other != n {
				w.greet(n, other)
			}
		}
	}
}

// recover heals the network, starts all but the dead, and waits for progress.
func (w *World) recover(m Misfortune) {
	w.tell("the network heals")
	w.net.loss, w.net.twice = 0, 0
	honest := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return !n.honest() })
	dead := 0
	for _, i := range w.rng.Perm(len(honest)) {
		n := honest[i]
		if dead < m.Dead && n.place < w.cfg.Members {
			dead++
			n.crash()
			continue
		}
		w.revive(n, m)
	}
	w.connect(m)
	honest = slices.DeleteFunc(honest, func(n *node) bool { return !n.up })
	if !w.canGoOn() {
		// Too many lie or are dead: nothing may break, but nothing has to go
		// on.
		w.runUntil(w.now+4*w.cfg.Round, nil)
		return
	}
	began, from := w.now, w.report.Height
	limit := w.patience(m)
	done := w.runUntil(began+limit, func() bool {
		for _, n := range honest {
			if n.core.Height() < from+4 {
				return false
			}
		}
		return true
	})
	w.report.Recovery = w.now - began
	if !done {
		w.stall(honest, "no progress within %v after healing at ledger %d", limit, from)
		return
	}
	// In a network that is slow for the round time, members that have no result
	// can be heard before those who have one.
	if w.canAgree(honest) && 8*(m.Latency*w.furthest(m)+m.Jitter) <= w.cfg.Round {
		w.include(honest, m)
	}
}

// include checks that a bundle that reaches everybody is soon in a ledger.
func (w *World) include(honest []*node, m Misfortune) {
	b, at := w.hash(), honest[w.rng.IntN(len(honest))]
	w.tell("%v takes bundle %s, which has to be in a ledger soon", at, b.Short())
	at.take(b, true)
	first := uint64(0)
	for _, n := range honest {
		first = max(first, n.core.Height())
	}
	limit := w.patience(m)
	done := w.runUntil(w.now+limit, func() bool {
		return w.check.consumed[b] > 0 && !slices.ContainsFunc(honest, func(n *node) bool { return !n.consumed[b] })
	})
	if !done {
		w.stall(honest, "bundle %s is in no ledger after %v", b.Short(), limit)
		return
	}
	passed := 0
	for h := first; h < w.check.consumed[b]; h++ {
		if w.check.ledger(h).Header.Outcome != consensus.Pending {
			passed++
		}
	}
	if passed > 5 {
		w.fail("bundle %s was passed over by %d ledgers", b.Short(), passed)
	}
}

// stall fails with where everybody is.
func (w *World) stall(nodes []*node, format string, args ...any) {
	if w.err != nil {
		return
	}
	var where []string
	for _, n := range nodes {
		where = append(where, fmt.Sprintf("%v at %d/%d heard %d", n, n.core.Height(), n.core.Attempt(), n.core.Heard()))
	}
	w.fail("%s: %s", fmt.Sprintf(format, args...), strings.Join(where, ", "))
}

// canAgree reports whether q honest members finish their runs with the right
// results.
func (w *World) canAgree(honest []*node) bool {
	for _, p := range w.params {
		able := 0
		for _, n := range honest {
			if slices.Contains(p.Members, n.id.public) && !n.observer && n.wrong == 0 && n.stuck == 0 {
				able++
			}
		}
		if able < p.Quorum() {
			return false
		}
	}
	return true
}

// canGoOn reports whether q honest members of the configuration in force, and
// of those that may come, are up.
func (w *World) canGoOn() bool {
	for _, p := range w.params {
		up := 0
		for _, m := range p.Members {
			if n := w.byKey[m]; n.honest() && n.up && !n.observer {
				up++
			}
		}
		if up < p.Quorum() {
			return false
		}
	}
	return true
}

// furthest is by what the latency of the furthest members is multiplied.
func (w *World) furthest(m Misfortune) time.Duration {
	if m.Far > 0 {
		return 10
	}
	return 1
}

// patience is how long progress may take after the healing: enough for a few
// heartbeats, the slowest run, and for several attempts that liars spoil.
func (w *World) patience(m Misfortune) time.Duration {
	delay := 2*(m.Latency*w.furthest(m)+5*m.Jitter) + w.cfg.Disk + w.cfg.Pause + w.cfg.SyncTime
	if m.Sluggish > 0 {
		delay += 9 * w.cfg.Disk
	}
	if m.Slow > 0 {
		delay += w.cfg.RunTime
	}
	return 15*w.cfg.Round + 50*delay + 60*w.cfg.RunTime + 3*time.Second
}
