package sim

import (
	"slices"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/internal/digest"
)

// checker compares everything that honest nodes say and do with what must hold.
type checker struct {
	w        *World
	ledgers  []*consensus.Close // by height, from 1
	said     map[statement]digest.Hash
	voters   map[ballot]map[int]bool
	commits  map[place]ballot // the latest commit of a node at a height
	reports  map[uint64]map[int]map[consensus.Result]bool
	clocks   map[uint64][2]uint64            // lowest and highest clock that honest members reported at a height
	named    map[uint64]map[digest.Hash]bool // bundles that honest members proposed at a height
	times    map[uint64]time.Duration        // when each ledger closed first
	consumed map[digest.Hash]uint64          // the ledger that has each bundle
}

// statement is what an honest node says only once.
type statement struct {
	place   int
	kind    byte
	height  uint64
	attempt uint32
}

type ballot struct {
	phase   consensus.Phase
	height  uint64
	attempt uint32
	hash    digest.Hash
}

type place struct {
	place  int
	height uint64
}

func newChecker(w *World) *checker {
	return &checker{
		w:        w,
		said:     make(map[statement]digest.Hash),
		times:    make(map[uint64]time.Duration),
		consumed: make(map[digest.Hash]uint64),
		voters:   make(map[ballot]map[int]bool),
		commits:  make(map[place]ballot),
		reports:  make(map[uint64]map[int]map[consensus.Result]bool),
		clocks:   make(map[uint64][2]uint64),
		named:    make(map[uint64]map[digest.Hash]bool),
	}
}

// ledger returns the ledger that closed at a height, or nil.
func (c *checker) ledger(height uint64) *consensus.Close {
	if height == 0 || height > uint64(len(c.ledgers)) {
		return nil
	}
	return c.ledgers[height-1]
}

// sent looks at a message that leaves a node.
func (c *checker) sent(n *node, m consensus.Message) {
	switch m := m.(type) {
	case *consensus.Proposal:
		c.once(n, 'p', m.Height, m.Attempt, digest.Sum(m.Sig[:]))
	case *consensus.Ballot:
		c.balloted(n, m)
	case *consensus.Candidate:
		c.once(n, 'x', m.Height, m.Attempt, m.Header.Hash())
		if !n.honest() {
			return
		}
		// A vote may leave with a lock that survived a crash, while the ballot
		// itself was lost.
		for _, v := range m.Votes {
			c.voter(ballot{v.Phase, v.Height, v.Attempt, v.Hash}, c.w.byKey[v.Author].place)
		}
	}
}

// once fails when an honest node says two different things where it may say
// one, in this life or in different ones.
func (c *checker) once(n *node, kind byte, height uint64, attempt uint32, what digest.Hash) {
	if !n.honest() {
		return
	}
	s := statement{n.place, kind, height, attempt}
	if old, ok := c.said[s]; ok && old != what {
		c.w.fail("%v contradicts itself at ledger %d, attempt %d (%c): %s and %s", n, height, attempt, kind, old.Short(), what.Short())
	}
	c.said[s] = what
}

// proposed looks at a proposal that a node has made. It may count it before it
// has left.
func (c *checker) proposed(n *node, p *consensus.Proposal) {
	if !n.honest() {
		return
	}
	if p.Ran {
		of := c.reports[p.Height]
		if of == nil {
			of = make(map[int]map[consensus.Result]bool)
			c.reports[p.Height] = of
		}
		if of[n.place] == nil {
			of[n.place] = make(map[consensus.Result]bool)
		}
		of[n.place][p.Result] = true
	}
	lo, hi := p.Clock, p.Clock
	if x, ok := c.clocks[p.Height]; ok {
		lo, hi = min(lo, x[0]), max(hi, x[1])
	}
	c.clocks[p.Height] = [2]uint64{lo, hi}
	for _, b := range p.Bundles {
		if c.named[p.Height] == nil {
			c.named[p.Height] = make(map[digest.Hash]bool)
		}
		c.named[p.Height][b] = true
	}
}

func (c *checker) voter(b ballot, place int) {
	if c.voters[b] == nil {
		c.voters[b] = make(map[int]bool)
	}
	c.voters[b][place] = true
}

func (c *checker) balloted(n *node, b *consensus.Ballot) {
	key := ballot{b.Phase, b.Height, b.Attempt, b.Hash}
	c.voter(key, n.place)
	if !n.honest() {
		return
	}
	params, known := c.paramsAt(b.Height)
	if !known {
		c.w.fail("%v votes for ledger %d before the one below has closed", n, b.Height)
		return
	}
	q := params.Quorum()
	if b.Phase == consensus.Vote {
		c.once(n, 'v', b.Height, b.Attempt, b.Hash)
		if last, locked := c.commits[place{n.place, b.Height}]; locked && last.attempt < b.Attempt && !b.Hash.IsZero() && last.hash != b.Hash && !c.unlocked(last, b, q) {
			c.w.fail("%v is locked on %s since attempt %d of ledger %d and votes for %s in attempt %d",
				n, last.hash.Short(), last.attempt, b.Height, b.Hash.Short(), b.Attempt)
		}
		return
	}
	c.once(n, 'c', b.Height, b.Attempt, b.Hash)
	if got := len(c.voters[ballot{consensus.Vote, b.Height, b.Attempt, b.Hash}]); got < q {
		c.w.fail("%v commits to %s of ledger %d, attempt %d, with %d votes instead of %d", n, b.Hash.Short(), b.Height, b.Attempt, got, q)
	}
	if last, ok := c.commits[place{n.place, b.Height}]; !ok || last.attempt < b.Attempt {
		c.commits[place{n.place, b.Height}] = key
	}
	if n.core != nil {
		if h, ok := n.core.Candidate(b.Hash); ok {
			for _, d := range slices.Concat(h.Bundles, h.Presences) {
				if _, holds := n.held[d]; !holds {
					c.w.fail("%v commits to ledger %d without the content %s", n, b.Height, d.Short())
				}
			}
		}
	}
}

// unlocked reports whether q votes since the lock allow a vote for something
// else.
func (c *checker) unlocked(lock ballot, b *consensus.Ballot, q int) bool {
	for a := lock.attempt; a < b.Attempt; a++ {
		if len(c.voters[ballot{consensus.Vote, b.Height, a, b.Hash}]) >= q {
			return true
		}
	}
	return false
}

// paramsAt returns what is in force at a height, if the ledger below has
// closed.
func (c *checker) paramsAt(height uint64) (consensus.Params, bool) {
	if height <= 1 {
		return c.w.params[0], true
	}
	below := c.ledger(height - 1)
	if below == nil {
		return consensus.Params{}, false
	}
	return c.w.paramsAfter(&below.Header), true
}

// closed looks at a ledger that a node has closed and has on disk. Even of a liar
// it is proven.
func (c *checker) closed(n *node, l *consensus.Ledger) {
	w := c.w
	h := &l.Header
	a := consensus.Close{Header: *h, Hash: h.Hash(), Certificate: l.Certificate}
	if old := c.ledger(h.Height); old != nil {
		if old.Hash != a.Hash {
			w.fail("fork at ledger %d: %v closes %s, others %s", h.Height, n, a.Hash.Short(), old.Hash.Short())
		}
		c.certified(n, &a)
		return
	}
	if h.Height != uint64(len(c.ledgers))+1 {
		w.fail("%v closes ledger %d, %d have closed before", n, h.Height, len(c.ledgers))
		return
	}
	c.certified(n, &a)
	c.ledgers = append(c.ledgers, &a)
	c.valid(n, h)
	for _, b := range h.Bundles {
		c.consumed[b] = h.Height
	}
	c.times[h.Height] = w.now
	w.report.Height = h.Height
	w.report.Attempts[a.Certificate.Attempt]++
	w.report.Outcomes[h.Outcome]++
	if w.tracing {
		w.tell("%v is the first to close ledger %d %s (%v, %d bundles, attempt %d)", n, h.Height, a.Hash.Short(), h.Outcome, len(h.Bundles), a.Certificate.Attempt)
	}
}

// certified checks the proof of a ledger.
func (c *checker) certified(n *node, a *consensus.Close) {
	params, _ := c.paramsAt(a.Header.Height)
	if err := a.Certificate.Verify(c.w.verifier, params, &a.Header); err != nil {
		c.w.fail("%v closes without proof: %v", n, err)
	}
}

// valid checks what a ledger says against what honest members said.
func (c *checker) valid(n *node, h *consensus.Header) {
	w := c.w
	var prev consensus.Header
	var prevHash digest.Hash
	if below := c.ledger(h.Height - 1); below != nil {
		prev, prevHash = below.Header, below.Hash
	}
	params, _ := c.paramsAt(h.Height)
	q, liars := params.Quorum(), w.liarsIn(params)
	switch {
	case h.Prev != prevHash:
		w.fail("ledger %d does not follow ledger %d", h.Height, h.Height-1)
	case h.Time <= prev.Time:
		w.fail("the time of ledger %d is %d, that of the one before %d", h.Height, h.Time, prev.Time)
	case h.Run != prev.Outstanding():
		w.fail("ledger %d is about run %d instead of %d", h.Height, h.Run, prev.Outstanding())
	}
	if h.Outcome == consensus.Agreed {
		same := 0
		for _, results := range c.reports[h.Height] {
			if results[h.Result] {
				same++
			}
		}
		if same+liars < q {
			w.fail("ledger %d agrees on a result of %d honest members and at most %d others", h.Height, same, liars)
		}
	} else {
		r := h.Result
		r.Nonces, r.Users, r.Inputs = prev.Result.Nonces, prev.Result.Users, prev.Result.Inputs
		want := prev.Result
		want.Output = digest.Hash{}
		if r != want {
			w.fail("ledger %d is %v but changes the result", h.Height, h.Outcome)
		}
	}
	if h.Outcome == consensus.Failed && len(c.reports[h.Height])+liars < q {
		w.fail("ledger %d gives a run up that only %d honest members have finished", h.Height, len(c.reports[h.Height]))
	}
	if h.Outcome == consensus.Pending && len(h.Bundles) > 0 {
		w.fail("ledger %d is a heartbeat with inputs", h.Height)
	}
	// As long as fewer than half of any quorum lie, what honest members say
	// bounds all the rest.
	if 2*liars >= q {
		return
	}
	x := c.clocks[h.Height]
	if h.Time < x[0] || h.Time > max(x[1], prev.Time+1) {
		w.fail("the time of ledger %d is %d, honest clocks said %d to %d", h.Height, h.Time, x[0], x[1])
	}
	for _, b := range h.Bundles {
		if !c.named[h.Height][b] {
			w.fail("ledger %d has a bundle that no honest member proposed", h.Height)
		}
		if below := c.consumed[b]; below > 0 {
			w.fail("ledger %d consumes a bundle that ledger %d has consumed", h.Height, below)
		}
	}
}

// liarsIn counts the liars among members.
func (w *World) liarsIn(p consensus.Params) int {
	k := 0
	for _, m := range p.Members {
		if !w.byKey[m].honest() {
			k++
		}
	}
	return k
}
