package statesync

import (
	"time"

	"evernode/hotpocket/key"
)

const (
	// asked is how long a request should take: its size follows from the speed
	// of the peer, so that a slow one holds little up and is asked for little.
	asked = 250 * time.Millisecond
	// leastBudget and firstBudget are how many bytes a slow and an unknown peer
	// is asked for at once.
	leastBudget, firstBudget = 64 << 10, 256 << 10
	// firstWindow is how many requests are under way to an unknown peer.
	firstWindow = 2
	// leastPatience is after how long at the earliest what a peer was asked for
	// is asked of another.
	leastPatience = 500 * time.Millisecond
	// maxBadDeltas is how many answers of a peer that do not follow from what
	// this node has are put down to chance.
	maxBadDeltas = 3
)

// peer is what a sync knows of a peer. Those that answer fast have more
// requests and larger ones under way.
type peer struct {
	out     int     // requests under way
	window  float64 // how many may be
	most    int     // bound of window
	rate    float64 // bytes per second of one request, smoothed; 0: unknown
	latency time.Duration

	banned    bool // it sent something wrong
	resting   bool // it failed and is left alone for a while
	stalled   bool // it has not answered what is now asked of others
	dry       bool // within dispatch: it has refused everything that is left
	failures  int
	badDeltas int
	bytes     uint64    // what came from it
	last      time.Time // when it last answered
}

func (p *peer) usable() bool { return !p.banned && !p.resting && !p.stalled }

func (p *peer) free() bool { return p.usable() && !p.dry && p.out < int(p.window) }

// load is what part of its window is under way.
func (p *peer) load() float64 { return float64(p.out) / p.window }

// budget is how many bytes the peer is asked for in one request.
func (p *peer) budget() int {
	if p.rate == 0 {
		return firstBudget
	}
	return int(min(max(p.rate*asked.Seconds(), leastBudget), softReply))
}

// answered learns from an answer.
func (p *peer) answered(bytes int, took time.Duration, now time.Time) {
	p.failures, p.stalled = 0, false
	p.last = now
	p.bytes += uint64(bytes)
	if p.latency == 0 {
		p.latency = took
	} else {
		p.latency += (took - p.latency) / 4
	}
	if rate := float64(bytes) / max(took.Seconds(), 1e-6); bytes >= leastBudget/2 {
		if p.rate == 0 {
			p.rate = rate
		} else {
			p.rate += (rate - p.rate) / 4
		}
	}
	switch {
	case took < asked/2:
		p.window = min(p.window+1, float64(p.most))
	case took > 2*asked:
		p.window = max(p.window/2, 1)
	}
}

// slow takes the share of a peer away that keeps this node waiting.
func (p *peer) slow() {
	p.stalled = true
	p.window = 1
	p.rate /= 2
}

// patience is how long a request may take before others are asked.
func (p *peer) patience() time.Duration { return max(leastPatience, 4*p.latency) }

// board is all peers of a sync.
type board struct {
	most  int // window of one
	peers map[key.Public]*peer
	turn  int
}

func newBoard(most int) *board { return &board{most: most, peers: make(map[key.Public]*peer)} }

func (b *board) of(id key.Public) *peer {
	p := b.peers[id]
	if p == nil {
		p = &peer{window: float64(min(firstWindow, b.most)), most: b.most}
		b.peers[id] = p
	}
	return p
}

// choose returns the peer that has the most of its window free.
func (b *board) choose(known []key.Public) (best key.Public, found *peer) {
	b.turn++
	for i := range known {
		id := known[(i+b.turn)%len(known)]
		p := b.of(id)
		if p.free() && (found == nil || p.load() < found.load() || p.load() == found.load() && p.rate > found.rate) {
			best, found = id, p
		}
	}
	return best, found
}

// activeFor is how long after its last answer a peer counts as one from which is
// fetched.
const activeFor = 5 * time.Second

// active counts the peers from which is being fetched.
func (b *board) active(now time.Time) (n int) {
	for _, p := range b.peers {
		if p.bytes > 0 && !p.banned && now.Sub(p.last) < activeFor {
			n++
		}
	}
	return n
}
