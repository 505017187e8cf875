package consensus

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

func sent[M Message](actions []Action) (out []M) {
	for _, a := range actions {
		if s, ok := a.(Send); ok {
			if m, ok := s.Message.(M); ok {
				out = append(out, m)
			}
		}
	}
	return out
}

// TestOneMember lets a cluster of one node close a few ledgers: each takes no
// message of anybody else's.
func TestOneMember(t *testing.T) {
	c := testCore(t, 0, fakeParams(1, 100), Restored{Fresh: true})
	now := Now{Mono: 1, Clock: 1000}
	actions := c.Executed(now, 0, Result{State: hashOf("genesis")})
	if len(actions) != 1 || string(actions[0].(Persist).Record) != string(enteredRecord(1, 0)) {
		t.Fatalf("the first action is not the record of the first start: %+v", actions)
	}
	for height := uint64(1); height <= 3; height++ {
		now.Mono += time.Second
		actions = c.Tick(now)
		closed, ok := actions[len(actions)-1].(Close)
		if !ok || closed.Header.Height != height {
			t.Fatalf("ledger %d does not close: %+v", height, actions)
		}
		if err := closed.Certificate.Verify(fakeVerifier{}, c.Params(), &closed.Header); err != nil {
			t.Fatal(err)
		}
		if more := c.Tick(now); len(more) > 0 {
			t.Fatalf("goes on before Advance: %+v", more)
		}
		if _, err := c.Advance(now, c.Params()); err != nil {
			t.Fatal(err)
		}
		c.Executed(now, height, Result{State: hashOf("next")})
	}
	if _, err := c.Advance(now, c.Params()); err == nil || !strings.Contains(err.Error(), "has not closed") {
		t.Errorf("Advance twice: %v", err)
	}
	if _, err := c.Reset(now, Ledger{Header: Header{Height: 2}}, c.Params()); err == nil {
		t.Error("Reset goes back")
	}
}

// TestNothingIsSaidTwice feeds a restarted member its own messages from before:
// it must not take part in the attempts that they are of.
func TestRestartStaysOutOfOldAttempts(t *testing.T) {
	params := fakeParams(4, 66)
	c := testCore(t, 0, params, Restored{Records: [][]byte{enteredRecord(1, 2)}})
	var said []Message
	said = append(said, sent[*Proposal](c.Executed(Now{Mono: time.Second}, 0, Result{}))[0])
	for i := range 4 {
		p := (&Proposal{Author: fakeKey(i), Height: 1, Attempt: 2}).signedBy(params.Chain)
		for _, p := range sent[*Proposal](c.Receive(Now{Mono: 2 * time.Second}, p.Author, p)) {
			said = append(said, p)
		}
		b := fakeBallot(params, i, Vote, 1, 2, hashOf("x"))
		for _, v := range sent[*Ballot](c.Receive(Now{Mono: 2 * time.Second}, b.Author, b)) {
			said = append(said, v)
		}
	}
	for _, m := range said {
		attempt := uint32(0)
		switch m := m.(type) {
		case *Proposal:
			attempt = m.Attempt
		case *Ballot:
			attempt = m.Attempt
		}
		if attempt < 3 {
			t.Errorf("says %T of attempt %d", m, attempt)
		}
	}
}

// TestLockSurvivesARestart gives a member its lock back and offers it something
// else, and then the same with votes from before and after the lock.
func TestLockSurvivesARestart(t *testing.T) {
	params := fakeParams(4, 66)
	locked := Header{Height: 1, Time: 7}
	lock := &proven{attempt: 3, header: locked}
	for i := range 3 {
		lock.votes = append(lock.votes, fakeBallot(params, i, Vote, 1, 3, locked.Hash()))
	}
	other := Header{Height: 1, Time: 8}
	offer := func(h Header, attempt uint32, votesOf uint32) *Candidate {
		x := &Candidate{Author: params.Members[params.coordinator(1, attempt)], Height: 1, Attempt: attempt, Header: h}
		for i := 1; i < 4; i++ {
			x.Votes = append(x.Votes, fakeBallot(params, i, Vote, 1, votesOf, h.Hash()))
		}
		x.Sig = fakeSignature(x.Author, x.signed(params.Chain))
		return x
	}
	for _, x := range []struct {
		name    string
		header  Header
		votesOf uint32
		want    digest.Hash
	}{
		{"the same", locked, 3, locked.Hash()},
		{"another with older votes", other, 2, digest.Hash{}},
		{"another with newer votes", other, 4, other.Hash()},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := testCore(t, 0, params, Restored{Records: [][]byte{enteredRecord(1, 3), lockRecord(1, lock), enteredRecord(1, 4)}})
			c.Tick(Now{Mono: time.Second})
			if c.Attempt() != 5 {
				t.Fatalf("begins in attempt %d, want 5", c.Attempt())
			}
			var votes []*Ballot
			m := offer(x.header, 5, x.votesOf)
			votes = append(votes, sent[*Ballot](c.Receive(Now{Mono: time.Second}, m.Author, m))...)
			if len(votes) != 1 || votes[0].Hash != x.want || votes[0].Attempt != 5 {
				t.Errorf("votes %+v, want %s", votes, x.want.Short())
			}
		})
	}
}

// TestCensorship offers a candidate that leaves out a bundle which most members
// hold, once soon after the bundle came and once long after.
func TestCensorship(t *testing.T) {
	params := fakeParams(5, 50)
	bundle := hashOf("bundle")
	last := Header{Height: 20, Outcome: Agreed}
	for _, x := range []struct {
		since uint64
		votes bool
	}{{20, true}, {21 - patience, false}} {
		c := testCore(t, 0, params, Restored{Last: last})
		c.opt.Offer = func() ([]digest.Hash, digest.Hash) { return []digest.Hash{bundle}, digest.Hash{} }
		c.offered[bundle] = x.since
		now := Now{Mono: time.Second}
		c.Executed(now, 20, Result{})
		attempt := uint32(1)
		for params.coordinator(21, attempt) == 0 {
			attempt++
		}
		for c.Attempt() < attempt {
			now.Mono += time.Minute
			c.Tick(now)
		}
		x1 := &Candidate{Author: params.Members[params.coordinator(21, attempt)], Height: 21, Attempt: attempt}
		for i := 1; i < 5; i++ {
			p := &Proposal{Author: fakeKey(i), Height: 21, Attempt: attempt, Prev: last.Hash(), Ran: true}
			if i < 3 {
				p.Bundles = []digest.Hash{bundle}
			}
			p.signedBy(params.Chain)
			c.Receive(now, p.Author, p)
			if i > 1 {
				x1.Proposals = append(x1.Proposals, p)
			}
		}
		x1.Header = assemble(params, &last, last.Hash(), x1.Proposals)
		if slices.Contains(x1.Header.Bundles, bundle) {
			t.Fatal("the candidate is no censor's")
		}
		x1.Sig = fakeSignature(x1.Author, x1.signed(params.Chain))
		votes := sent[*Ballot](c.Receive(now, x1.Author, x1))
		if len(votes) == 0 || votes[0].Hash.IsZero() == x.votes {
			t.Errorf("bundle of ledger %d left out of ledger 21: votes %+v", x.since, votes)
		}
	}
}

// TestSpamIsBounded feeds a core far more than any honest network would, from
// members and others, and looks at what it keeps.
func TestSpamIsBounded(t *testing.T) {
	params := fakeParams(4, 66)
	c := testCore(t, 0, params, Restored{Fresh: true})
	c.opt.Holds = func(digest.Hash) bool { return false }
	rng := rand.New(rand.NewPCG(1, 1))
	now := Now{Mono: time.Millisecond}
	wants, behind := 0, 0
	for i := range 60_000 {
		author := fakeKey(1 + rng.IntN(3))
		if i%2 == 0 {
			author = fakeKey(rng.IntN(10_000))
		}
		height := []uint64{1, 2, 3, 1 << 40, rng.Uint64()}[rng.IntN(5)]
		attempt := []uint32{0, 1, rng.Uint32() % 1000, rng.Uint32()}[rng.IntN(4)]
		var m Message
		switch rng.IntN(4) {
		case 0:
			p := &Proposal{Author: author, Height: height, Attempt: attempt, Bundles: randomHashes(rng, 5), Presence: randomHash(rng)}
			m = p.signedBy(params.Chain)
		case 1:
			b := &Ballot{Author: author, Phase: Phase(1 + rng.IntN(2)), Height: height, Attempt: attempt, Hash: randomHash(rng)}
			b.Sig = fakeSignature(author, b.signed(params.Chain))
			m = b
		case 2:
			x := &Candidate{Author: author, Height: height, Attempt: attempt, Header: Header{Height: height}}
			for range rng.IntN(4) {
				x.Votes = append(x.Votes, randomBallot(rng))
			}
			x.Sig = fakeSignature(author, x.signed(params.Chain))
			m = x
		case 3:
			m = &Ledger{Header: Header{Height: height}}
		}
		for _, a := range c.Receive(now, author, m) {
			switch a.(type) {
			case Want:
				wants++
			case Behind:
				behind++
			}
		}
	}
	// Per member: four attempts of each kind, eight messages for the next height.
	for name, x := range map[string]struct{ is, bound int }{
		"future":    {len(c.future), 4*perAuthor + strangers},
		"known":     {len(c.known), 4 * MaxMembers},
		"asked":     {len(c.asked), 3*maxCurious + 100},
		"curious":   {len(c.curious), 4},
		"behind":    {len(c.behind), 2 * MaxMembers},
		"answered":  {len(c.answered), 4*MaxMembers + 1},
		"blamed":    {len(c.blamed), 4},
		"lacking":   {len(c.lacking), MaxBundles},
		"proposals": {len(c.proposals.counts), 4 * keepAttempts},
		"votes":     {len(c.votes.counts), 4 * keepAttempts},
		"commits":   {len(c.commits.counts), 4 * keepAttempts},
		"behinds":   {behind, 60_000 / 4},
	} {
		if x.is > x.bound {
			t.Errorf("%s: %d, want at most %d", name, x.is, x.bound)
		}
	}
	t.Logf("wants %d, behind %d, asked %d", wants, behind, len(c.asked))
	if c.Attempt() > maxAttempt {
		t.Errorf("in attempt %d", c.Attempt())
	}
}

// TestStrangersLeaveRoom fills the messages kept for the next height with those
// of invented keys: those of members must still be kept.
func TestStrangersLeaveRoom(t *testing.T) {
	params := fakeParams(4, 66)
	c := testCore(t, 0, params, Restored{Fresh: true})
	for i := range 5000 {
		b := fakeBallot(params, 100+i, Vote, 2, 0, hashOf("x"))
		c.Receive(Now{}, b.Author, b)
	}
	for range 20 { // repeated, as on a bad network
		p := (&Proposal{Author: fakeKey(1), Height: 2}).signedBy(params.Chain)
		c.Receive(Now{}, p.Author, p)
	}
	commit := fakeBallot(params, 1, Commit, 2, 0, hashOf("x"))
	c.Receive(Now{}, commit.Author, commit)
	var kept int
	for _, m := range c.future {
		if a, _ := Author(m); a == fakeKey(1) {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d messages of a member are kept, want 2", kept)
	}
}

// TestFarClaimsHideNobody lets a member claim a height that does not exist; what
// another says is reported all the same.
func TestFarClaimsHideNobody(t *testing.T) {
	params := fakeParams(4, 66)
	c := testCore(t, 0, params, Restored{Fresh: true})
	var from []key.Public
	for _, b := range []*Ballot{fakeBallot(params, 3, Vote, 1<<63, 0, hashOf("x")), fakeBallot(params, 1, Vote, 9, 0, hashOf("x")), fakeBallot(params, 1, Vote, 9, 0, hashOf("x"))} {
		for _, a := range c.Receive(Now{}, b.Author, b) {
			if x, ok := a.(Behind); ok {
				from = append(from, x.From)
			}
		}
	}
	if !slices.Equal(from, []key.Public{fakeKey(3), fakeKey(1)}) {
		t.Errorf("behind %v", from)
	}
}

// TestAttemptsDoNotWrap lets as many as the others need name the last attempt
// there can be.
func TestAttemptsDoNotWrap(t *testing.T) {
	params := fakeParams(4, 100)
	c := testCore(t, 0, params, Restored{Fresh: true})
	now := Now{Mono: time.Second}
	c.Executed(now, 0, Result{})
	for _, attempt := range []uint32{1<<32 - 1, maxAttempt, maxAttempt - 1} {
		for i := 1; i < 4; i++ {
			b := fakeBallot(params, i, Vote, 1, attempt, digest.Hash{})
			c.Receive(now, b.Author, b)
		}
		for range 100 {
			now.Mono += time.Minute
			before := c.Attempt()
			c.Tick(now)
			if c.Attempt() < before || c.Attempt() > maxAttempt {
				t.Fatalf("goes from attempt %d to %d", before, c.Attempt())
			}
		}
		if at := c.Wake(); c.Attempt() == maxAttempt && at <= now.Mono {
			t.Fatalf("wants to be woken at %v, it is %v", at, now.Mono)
		}
	}
}

// TestForgedCandidates offers candidates that do not prove themselves: the
// coordinator is blamed and gets no vote.
func TestForgedCandidates(t *testing.T) {
	params := fakeParams(4, 66)
	last := Header{Height: 5, Outcome: Agreed}
	const attempt = 1
	who := params.coordinator(6, attempt)
	proposals := func(members ...int) (out []*Proposal) {
		for _, i := range members {
			p := &Proposal{Author: fakeKey(i), Height: 6, Attempt: attempt, Prev: last.Hash(), Clock: uint64(i + 1)}
			out = append(out, p.signedBy(params.Chain))
		}
		return out
	}
	votes := func(h *Header, attempt uint32, members ...int) (out []*Ballot) {
		for _, i := range members {
			out = append(out, fakeBallot(params, i, Vote, 6, attempt, h.Hash()))
		}
		return out
	}
	good := func() *Candidate {
		x := &Candidate{Author: fakeKey(who), Height: 6, Attempt: attempt, Proposals: proposals(1, 2, 3)}
		x.Header = assemble(params, &last, last.Hash(), x.Proposals)
		return x
	}
	for name, x := range map[string]struct {
		change func(*Candidate)
		want   string
	}{
		"good":                        {func(x *Candidate) {}, ""},
		"too few proposals":           {func(x *Candidate) { x.Proposals = x.Proposals[:2] }, "counts 2 proposals"},
		"none at all":                 {func(x *Candidate) { x.Proposals = nil }, "counts 0 proposals"},
		"a proposal twice":            {func(x *Candidate) { x.Proposals[2] = x.Proposals[1] }, "does not belong"},
		"a stranger's":                {func(x *Candidate) { x.Proposals[2] = proposals(8)[0] }, "does not belong"},
		"another header":              {func(x *Candidate) { x.Header.Time++ }, "does not follow from its proposals"},
		"another chain":               {func(x *Candidate) { x.Header.Prev[0]++ }, "does not follow ledger 5"},
		"a proposal of attempt 0":     {func(x *Candidate) { x.Proposals[1].Attempt = 0; x.Proposals[1].signedBy(params.Chain) }, "does not belong"},
		"a changed proposal":          {func(x *Candidate) { x.Proposals[1].Clock = 9 }, "wrong signature"},
		"too few votes":               {func(x *Candidate) { x.Votes = votes(&x.Header, 0, 1, 2) }, "shows 2 votes"},
		"a vote twice":                {func(x *Candidate) { x.Votes = votes(&x.Header, 0, 1, 2, 2) }, "does not belong"},
		"votes of this attempt":       {func(x *Candidate) { x.Votes = votes(&x.Header, 1, 1, 2, 3) }, "does not belong"},
		"votes for another":           {func(x *Candidate) { x.Votes = votes(&last, 0, 1, 2, 3) }, "does not belong"},
		"votes of different attempts": {func(x *Candidate) { x.Votes = append(votes(&x.Header, 0, 1, 2), votes(&x.Header, 1, 3)...) }, "does not belong"},
		"commits for votes":           {func(x *Candidate) { x.Votes = votes(&x.Header, 0, 1, 2, 3); x.Votes[0].Phase = Commit }, "does not belong"},
		"a forged vote":               {func(x *Candidate) { x.Votes = votes(&x.Header, 0, 1, 2, 3); x.Votes[2].Sig[0]++ }, "wrong signature"},
	} {
		t.Run(name, func(t *testing.T) {
			c := testCore(t, 0, params, Restored{Last: last})
			now := Now{Mono: time.Second}
			c.Tick(now)
			if c.Attempt() != attempt || who == 0 {
				t.Fatalf("attempt %d, coordinator %d", c.Attempt(), who)
			}
			m := good()
			x.change(m)
			m.Sig = fakeSignature(m.Author, m.signed(params.Chain))
			var notes []string
			actions := c.Receive(now, m.Author, m)
			for _, a := range actions {
				if n, ok := a.(Notice); ok {
					if n.Fault && n.Member != m.Author {
						t.Errorf("blames %s", n.Member.Short())
					}
					notes = append(notes, n.Text)
				}
			}
			voted := sent[*Ballot](actions)
			if len(voted) == 0 || voted[0].Hash.IsZero() != (x.want != "") {
				t.Errorf("votes %+v", voted)
			}
			if all := strings.Join(notes, "; "); x.want != "" && !strings.Contains(all, x.want) || x.want == "" && all != "" {
				t.Errorf("notes %q, want %q", all, x.want)
			}
		})
	}
}

func TestCollected(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	c := newCollected[*Ballot](3)
	want := make([]map[uint32]*Ballot, 3)
	for i := range want {
		want[i] = make(map[uint32]*Ballot)
	}
	for range 5000 {
		i, attempt := rng.IntN(3), rng.Uint32N(12)
		if rng.IntN(10) == 0 {
			c.remove(i, attempt)
			delete(want[i], attempt)
		} else {
			b := &Ballot{}
			old, added := c.add(i, attempt, b)
			if have := want[i][attempt]; added != (have == nil) || !added && old != have {
				t.Fatalf("add says %v", added)
			}
			if added {
				want[i][attempt] = b
				lowest := attempt
				for a := range want[i] {
					lowest = min(lowest, a)
				}
				if len(want[i]) > keepAttempts {
					delete(want[i], lowest)
				}
			}
		}
		counts := make(map[uint32]int)
		for m := range want {
			highest := uint32(0)
			for a, b := range want[m] {
				counts[a]++
				highest = max(highest, a)
				if c.at(m, a) != b {
					t.Fatalf("at(%d, %d) is wrong", m, a)
				}
			}
			if h, ok := c.highest(m); ok != (len(want[m]) > 0) || h != highest {
				t.Fatalf("highest(%d) = %d, want %d", m, h, highest)
			}
		}
		for a := range uint32(12) {
			if c.count(a) != counts[a] {
				t.Fatalf("count(%d) = %d, want %d", a, c.count(a), counts[a])
			}
		}
	}
	if c.at(-1, 0) != nil {
		t.Error("somebody who is no member has a message")
	}
}

// TestOneMemberLeadsOneAttemptAtATime lets a single member be far ahead, while q
// take part. It may be a restarted one that has to be followed, or a liar that
// would like to choose the attempts, and with them their coordinators.
func TestOneMemberLeadsOneAttemptAtATime(t *testing.T) {
	params := fakeParams(4, 66)
	c := testCore(t, 0, params, Restored{Fresh: true})
	now := Now{Mono: time.Second}
	c.Executed(now, 0, Result{})
	p := (&Proposal{Author: fakeKey(1), Height: 1}).signedBy(params.Chain)
	c.Receive(now, p.Author, p)
	b := fakeBallot(params, 3, Vote, 1, 50, digest.Hash{})
	c.Receive(now, b.Author, b)
	for want := uint32(0); want < 12; want++ {
		if c.Attempt() != want {
			t.Fatalf("in attempt %d after %v, want %d", c.Attempt(), now.Mono, want)
		}
		if c.Wake() <= now.Mono {
			t.Fatalf("wants to be woken at %v, it is %v", c.Wake(), now.Mono)
		}
		if want == 4 && now.Mono > 1600*time.Millisecond {
			t.Errorf("four attempts take until %v", now.Mono)
		}
		// The other honest member follows as well.
		for c.Attempt() == want {
			now.Mono = c.Wake()
			c.Tick(now)
		}
		p := (&Proposal{Author: fakeKey(1), Height: 1, Attempt: c.Attempt()}).signedBy(params.Chain)
		c.Receive(now, p.Author, p)
	}
}

// TestOwnVoteFromBefore brings a member that has lost its disk, and so does not
// know that it has voted, its own vote back. It must neither vote again nor spin.
func TestOwnVoteFromBefore(t *testing.T) {
	params := fakeParams(4, 66)
	c := testCore(t, 0, params, Restored{Fresh: true})
	now := Now{Mono: time.Second}
	b := fakeBallot(params, 0, Vote, 1, 0, hashOf("before"))
	c.Receive(now, b.Author, b)
	c.Executed(now, 0, Result{})
	for i := 1; i < 3; i++ {
		p := (&Proposal{Author: fakeKey(i), Height: 1}).signedBy(params.Chain)
		c.Receive(now, p.Author, p)
	}
	for range 20 {
		now.Mono = c.Wake()
		actions := c.Tick(now)
		if c.Attempt() > 0 {
			return
		}
		for _, v := range sent[*Ballot](actions) {
			if v.Hash != b.Hash {
				t.Fatalf("votes again, for %s", v.Hash.Short())
			}
		}
		if c.Wake() <= now.Mono {
			t.Fatalf("wants to be woken at %v, it is %v", c.Wake(), now.Mono)
		}
	}
}
