package sim

import (
	"math"
	"slices"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// liar is what makes a member Byzantine. It runs two cores under one key, each
// of which speaks to a part of the others, and does more that no honest node
// does as far as its habits go.
type liar struct {
	w     *World
	id    identity
	place int

	speaks [2][]bool // to which places each core speaks
	mute   float64   // how often it says nothing
	lies   float64   // how often a proposal says something else to everybody
	echo   bool      // it votes and commits for whatever anybody votes for
	hides  bool      // it proposes content that it gives to nobody, or to few
	junk   time.Duration
	heard  []consensus.Message // what it may repeat later
}

// split makes a node a liar that runs one core for some of the others and one
// for some.
func (w *World) split(n *node, some, others []int) *liar {
	l := &liar{w: w, id: n.id, place: n.place}
	n.liar = l
	n.twin = &node{w: w, place: n.place, id: n.id, liar: l, twin: n, slow: n.slow}
	n.twin.disk = disk{content: make(map[digest.Hash]bool)}
	n.twin.clock = n.clock + time.Second
	for core, places := range [][]int{some, others} {
		l.speaks[core] = make([]bool, len(w.nodes))
		for _, i := range places {
			l.speaks[core][i] = true
		}
	}
	return l
}

// corrupt makes a node a liar with habits drawn at random.
func (w *World) corrupt(n *node) {
	l := w.split(n, nil, nil)
	n.twin.wrong = 0.5
	split := w.rng.IntN(3)
	for i := range w.nodes {
		switch {
		case split == 0: // to everybody with both
			l.speaks[0][i], l.speaks[1][i] = true, true
		case split == 1 || w.rng.IntN(4) > 0: // to each with one of them
			l.speaks[w.rng.IntN(2)][i] = true
		default:
			l.speaks[0][i], l.speaks[1][i] = w.rng.IntN(2) == 0, w.rng.IntN(2) == 0
		}
	}
	l.mute = []float64{0, 0, 0.3, 0.9, 1}[w.rng.IntN(5)]
	l.lies = []float64{0, 0.3, 1}[w.rng.IntN(3)]
	l.echo = w.rng.IntN(2) == 0
	l.hides = w.rng.IntN(3) == 0
	if w.rng.IntN(2) == 0 {
		l.junk = w.cfg.Round / time.Duration(4+w.rng.IntN(20))
		l.plague()
	}
}

// sends passes on what one of its cores wants to send.
func (l *liar) sends(n *node, s consensus.Send) {
	w := l.w
	core := 0
	if w.nodes[l.place] != n {
		core = 1
	}
	p := w.pack(s.Message)
	for _, to := range w.nodes {
		if to.place == l.place || !l.speaks[core][to.place] || w.rng.Float64() < l.mute {
			continue
		}
		if x, ok := s.Message.(*consensus.Proposal); ok && l.lies > 0 && w.rng.Float64() < l.lies {
			w.send(n, to, w.pack(l.twist(x)))
			continue
		}
		w.send(n, to, p)
	}
}

// twist changes a proposal and signs it again.
func (l *liar) twist(p *consensus.Proposal) *consensus.Proposal {
	rng := l.w.rng
	x := *p
	switch rng.IntN(6) {
	case 0:
		x.Clock = []uint64{0, math.MaxUint64, x.Clock + 1, x.Clock / 2, x.Clock * 2}[rng.IntN(5)]
	case 1:
		x.Ran, x.Result.State = true, l.w.hash()
	case 2:
		x.Ran, x.Result = false, consensus.Result{}
	case 3:
		x.Bundles = nil
		for range rng.IntN(4) {
			x.Bundles = append(x.Bundles, l.w.hash())
		}
	case 4:
		x.Presence = l.w.hash()
	case 5:
		for i := range x.Seen {
			x.Seen[i] = byte(rng.Uint32())
		}
	}
	l.sign(&x)
	return &x
}

// capture is a verifier that finds out what has to be signed.
type capture struct{ msgs [][]byte }

func (c *capture) Verify(_ key.Public, msg, _ []byte) bool {
	c.msgs = append(c.msgs, slices.Clone(msg))
	return true
}

// sign signs a message of its own.
func (l *liar) sign(m consensus.Message) {
	var c capture
	if err := consensus.VerifySignature(&c, l.w.chainID, m); err != nil || len(c.msgs) == 0 {
		return
	}
	sig := l.id.signer.Sign(c.msgs[0])
	switch m := m.(type) {
	case *consensus.Proposal:
		m.Sig = sig
		if len(c.msgs) > 1 {
			m.OutputSig = l.id.signer.Sign(c.msgs[1])
		}
	case *consensus.Ballot:
		m.Sig = sig
	case *consensus.Candidate:
		m.Sig = sig
	}
}

func (l *liar) ballot(phase consensus.Phase, height uint64, attempt uint32, hash digest.Hash) *consensus.Ballot {
	b := &consensus.Ballot{Author: l.id.public, Phase: phase, Height: height, Attempt: attempt, Hash: hash}
	l.sign(b)
	return b
}

// hears is called with all that it receives.
func (l *liar) hears(from *node, p *packet) {
	m := p.message
	if m == nil {
		return
	}
	rng := l.w.rng
	if len(l.heard) < 64 {
		l.heard = append(l.heard, m)
	} else if rng.IntN(8) == 0 {
		l.heard[rng.IntN(len(l.heard))] = m
	}
	if b, ok := m.(*consensus.Ballot); ok && l.echo && !b.Hash.IsZero() && l.w.byKey[b.Author].honest() {
		to := []*node{from, l.anybody()}
		for _, to := range to {
			l.send(to, l.ballot(consensus.Vote, b.Height, b.Attempt, b.Hash))
			l.send(to, l.ballot(consensus.Commit, b.Height, b.Attempt, b.Hash))
		}
	}
}

func (l *liar) anybody() *node { return l.w.nodes[l.w.rng.IntN(len(l.w.nodes))] }

// send sends something of its own making, of which the checker has to know as
// well: its votes count.
func (l *liar) send(to *node, m consensus.Message) {
	n := l.w.nodes[l.place]
	if b, ok := m.(*consensus.Ballot); ok && b.Author == l.id.public {
		l.w.check.balloted(n, b)
	}
	l.w.send(n, to, l.w.pack(m))
}

// offer is what its cores propose.
func (l *liar) offer(n *node) ([]digest.Hash, digest.Hash) {
	bundles, presence := slices.Clone(n.pending), n.presence
	if !l.hides {
		return bundles, presence
	}
	rng := l.w.rng
	switch rng.IntN(3) {
	case 0:
		bundles = append(bundles, l.w.hash())
	case 1:
		bundles = nil
	}
	presence = l.w.hash()
	if rng.IntN(2) == 0 {
		for _, to := range l.w.nodes {
			if rng.IntN(2) == 0 {
				l.w.send(n, to, &packet{content: presence})
			}
		}
	}
	return bundles, presence
}

// plague sends junk from time to time.
func (l *liar) plague() {
	w := l.w
	w.after(l.junk/2+time.Duration(w.rng.Int64N(int64(l.junk))), func() {
		l.pester()
		l.plague()
	})
}

func (l *liar) pester() {
	w, rng := l.w, l.w.rng
	to := l.anybody()
	height := w.report.Height + 1 + []uint64{0, 0, 0, 1, 2, 1000, math.MaxUint64 - 1 - w.report.Height}[rng.IntN(7)]
	attempt := []uint32{0, 1, 2, 3, uint32(rng.IntN(100)), math.MaxUint32, math.MaxUint32 - 1}[rng.IntN(7)]
	last := consensus.Header{}
	var lastHash digest.Hash
	if x := w.check.ledger(w.report.Height); x != nil {
		last, lastHash = x.Header, x.Hash
	}
	switch rng.IntN(7) {
	case 0: // a ballot for anything
		hash := w.hash()
		if rng.IntN(2) == 0 {
			hash = lastHash
		}
		l.send(to, l.ballot(consensus.Phase(1+rng.IntN(2)), height, attempt, hash))
	case 1: // something old
		if len(l.heard) > 0 {
			l.send(to, l.heard[rng.IntN(len(l.heard))])
		}
	case 2: // a proposal out of place
		p := &consensus.Proposal{Author: l.id.public, Height: height, Attempt: attempt, Prev: lastHash, Clock: rng.Uint64(), Presence: w.hash()}
		for range rng.IntN(20) {
			p.Bundles = append(p.Bundles, w.hash())
		}
		l.sign(p)
		l.send(to, p)
	case 3: // a candidate made of what it has heard
		x := &consensus.Candidate{Author: l.id.public, Height: height, Attempt: attempt}
		x.Header = consensus.Header{Height: height, Prev: lastHash, Time: last.Time + 1, Run: last.Outstanding(), Outcome: consensus.Outcome(rng.IntN(3)), Result: last.Result}
		hash := x.Header.Hash()
		for _, m := range l.heard {
			switch m := m.(type) {
			case *consensus.Proposal:
				if m.Height == height && rng.IntN(2) == 0 {
					x.Proposals = append(x.Proposals, m)
				}
			case *consensus.Ballot:
				if m.Height == height && m.Phase == consensus.Vote && len(x.Proposals) == 0 {
					b := *m
					if rng.IntN(2) == 0 {
						b.Hash = hash
					}
					x.Votes = append(x.Votes, &b)
				}
			}
		}
		l.sign(x)
		l.send(to, x)
	case 4: // a ledger that never closed
		x := &consensus.Ledger{Header: consensus.Header{Height: height, Prev: lastHash, Time: last.Time + 1}}
		hash := x.Header.Hash()
		for _, n := range w.nodes {
			b := l.ballot(consensus.Commit, height, 0, hash)
			x.Certificate.Commits = append(x.Certificate.Commits, consensus.Signed{Author: n.id.public, Sig: b.Sig})
		}
		l.send(to, x)
	case 5: // a ledger with a part of its proof, or one for another
		if c := w.check.ledger(w.report.Height); c != nil {
			x := &consensus.Ledger{Header: c.Header, Certificate: consensus.Certificate{Attempt: c.Certificate.Attempt, Commits: slices.Clone(c.Certificate.Commits)}}
			if rng.IntN(2) == 0 {
				x.Header.Height++
				x.Header.Prev = lastHash
			} else {
				x.Certificate.Commits = x.Certificate.Commits[1:]
			}
			l.send(to, x)
		}
	case 6: // something in the name of another
		b := l.ballot(consensus.Commit, w.report.Height+1, 0, w.hash())
		b.Author = l.anybody().id.public
		l.w.send(w.nodes[l.place], to, w.pack(b))
	}
}
