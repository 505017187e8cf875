package consensus

import (
	"fmt"
	"slices"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// ready reports whether the outstanding run has finished here.
func (c *Core) ready() bool { return c.outcome != nil }

// urgent reports whether somebody waits for the next ledger, and it can bring
// something new.
func (c *Core) urgent() bool {
	if c.last.Header.Contested == 0 || c.reported == nil {
		return c.work || c.awaited || c.proposals.heard > 0
	}
	// Members differ about a run, and only those who had no result yet can
	// decide it. They get whole round times, not the moments that ledgers take
	// which nobody waits for: otherwise one liar and one slow member would make
	// good runs fail.
	if c.ready() && !c.reported[c.opt.Self] {
		return true
	}
	for i, m := range c.params.Members {
		if p := c.anyProposal(i); p != nil && p.Ran && !c.reported[m] {
			return true
		}
	}
	return false
}

// mayJoin reports whether this node can have been in the current attempt only
// once: after a restart it stays out of those it may have spoken in.
func (c *Core) mayJoin() bool { return c.attempt >= c.startAt }

// propose sends this node's proposal for the current attempt when it is due.
func (c *Core) propose(now Now) {
	if !c.member || !c.mayJoin() || c.proposals.at(c.self, c.attempt) != nil {
		return
	}
	if now.Mono < c.pace.heartbeat(c.opened) {
		// Later attempts are in a hurry, but a result that comes within the
		// round time is worth waiting for in any.
		due := c.urgent() && now.Mono >= c.pace.early() || c.attempt > 0
		if !c.ready() || !due || c.attempt == 0 && c.incomplete(now) {
			return
		}
	}
	p := &Proposal{
		Author:  c.opt.Self,
		Height:  c.height,
		Attempt: c.attempt,
		Prev:    c.lastHash,
		Clock:   now.Clock,
	}
	if c.outcome != nil {
		p.Ran, p.Result = true, *c.outcome
		if !p.Result.Output.IsZero() {
			p.OutputSig = c.opt.Signer.Sign(p.Result.Output[:])
		}
	}
	p.Bundles, p.Presence = c.opt.Offer()
	p.Bundles = p.Bundles[:min(len(p.Bundles), MaxBundles)]
	if !c.countable(p) {
		p.Presence = digest.Hash{} // nobody could count it
	}
	c.remember(p.Bundles)
	for _, k := range slices.Concat(c.seenLast, c.seenLate) {
		if i := c.params.index(k); i >= 0 {
			p.Seen.Set(i)
		}
	}
	p.Sig = c.opt.Signer.Sign(p.signed(c.params.Chain))
	c.proposals.add(c.self, p.Attempt, p)
	c.retryAt = now.Mono + c.pace.retry()
	c.tellLock()
	c.emit(Send{Message: p})
}

// tellLock shows the coordinator of a later attempt the candidate that has had q
// votes, if there is one: otherwise it may offer another one, and wait for those
// who are locked.
func (c *Core) tellLock() {
	who := c.params.Members[c.coordinator()]
	if c.valid == nil || c.valid.attempt >= c.attempt || who == c.opt.Self {
		return
	}
	x := &Candidate{Author: c.opt.Self, Height: c.height, Attempt: c.attempt, Header: c.valid.header, Votes: c.valid.votes}
	x.Sig = c.opt.Signer.Sign(x.signed(c.params.Chain))
	c.emit(Send{To: who, Message: x})
}

// remember notes since when each pending bundle has been proposed here.
func (c *Core) remember(bundles []digest.Hash) {
	next := make(map[digest.Hash]uint64, len(bundles))
	for _, b := range bundles {
		if since, ok := c.offered[b]; ok {
			next[b] = since
		} else {
			next[b] = c.height
		}
	}
	c.offered = next
}

// watchQuorum starts the clock of the attempt once q members take part in it or
// a later one: before that nobody is late.
func (c *Core) watchQuorum(now Now) {
	if c.deadline > 0 && c.heardAt > 0 {
		return
	}
	took := 0
	for i := range c.params.Members {
		if a, ok := c.reached(i); ok && a >= c.attempt {
			took++
		}
	}
	if c.deadline == 0 && took >= c.q {
		c.quorumAt = now.Mono
		c.deadline = now.Mono + c.pace.attempt(c.failed())
	}
	if c.heardAt == 0 && c.proposals.count(c.attempt) >= c.q {
		c.heardAt = max(now.Mono, 1)
	}
}

// reached returns the highest attempt in which a member has said anything.
func (c *Core) reached(member int) (uint32, bool) {
	a, ok := c.proposals.highest(member)
	for _, of := range []*collected[*Ballot]{&c.votes, &c.commits} {
		if b, has := of.highest(member); has {
			a, ok = max(a, b), true
		}
	}
	return a, ok
}

// proposed returns the proposals of an attempt that can be counted, in the order
// of the UNL, of all members or only of those given.
func (c *Core) proposed(now Now, of []int, attempt uint32) []*Proposal {
	var out []*Proposal
	for _, i := range of {
		p := c.proposals.at(i, attempt)
		if p == nil {
			continue
		}
		if !c.countable(p) {
			c.partial = true
			c.want(now, p.Presence, p.Author)
			continue
		}
		out = append(out, p)
	}
	return out
}

// counted returns the proposals that a candidate of the current attempt is made
// of, or nil while it is worth waiting for more.
func (c *Core) counted(now Now) []*Proposal {
	var all []*Proposal
	c.partial = false
	if c.proposals.count(c.attempt) >= c.q {
		all = c.proposed(now, c.everybody, c.attempt)
	}
	if len(all) < c.q {
		// They may have been enough before, until somebody went on to attempts so
		// much later that this one was forgotten.
		c.fullAt = 0
		return nil
	}
	if c.fullAt == 0 {
		c.fullAt = max(now.Mono, 1)
	}
	expected := c.proposed(now, c.expected, c.attempt)
	if len(expected) == len(c.expected) && len(expected) >= c.q {
		return expected
	}
	reported := 0
	for _, p := range all {
		if p.Ran {
			reported++
		}
	}
	c.undecided = reported < c.q
	if now.Mono < c.graceEnd() {
		return nil
	}
	if len(expected) >= c.q {
		return expected
	}
	return all
}

// graceEnd is when q proposals are enough, 0 when there are fewer or nobody
// waits for more.
func (c *Core) graceEnd() time.Duration {
	waits := c.offer == nil && c.votes.at(c.self, 0) == nil
	if c.attempt > 0 {
		waits = c.coordinating()
	}
	if c.fullAt == 0 || !waits {
		return 0
	}
	if c.undecided {
		// Without a result nobody waits for this ledger, but somebody may wait
		// for the one that a late member brings.
		return c.fullAt + c.pace.longGrace()
	}
	return c.fullAt + c.pace.grace()
}

// coordinator returns the place of the current attempt's coordinator.
func (c *Core) coordinator() int { return c.params.coordinator(c.height, c.attempt) }

// coordinating reports whether this node still owes a candidate. Votes of the
// same attempt or of later ones would prove nothing in it.
func (c *Core) coordinating() bool {
	return c.attempt > 0 && c.mayVote() && !c.sentHeader && c.coordinator() == c.self &&
		(c.valid == nil || c.valid.attempt < c.attempt)
}

// voteCooperative votes in attempt 0 for the candidate that follows from the
// proposals. A node that does not vote learns the candidate in the same way.
func (c *Core) voteCooperative(now Now) {
	if c.votes.at(c.self, 0) != nil {
		return
	}
	if c.offer == nil {
		counted := c.counted(now)
		if counted == nil {
			return
		}
		if len(counted) == len(c.expected) {
			c.pace.arrived(now.Mono - c.fullAt)
		}
		h := assemble(c.params, &c.last.Header, c.lastHash, counted)
		c.offer = &assembled{h, h.Hash(), counted}
		c.known[c.offer.hash] = &c.offer.header
	}
	if c.mayVote() && c.holdsContent(now, &c.offer.header, c.offer.from) {
		c.vote(c.offer.hash)
	}
}

func (c *Core) mayVote() bool { return c.member && c.mayJoin() }

// holdsContent reports whether all that a candidate names is here, and asks for
// the rest those who should have it: the members that named it in the proposals
// given, and the others given.
func (c *Core) holdsContent(now Now, h *Header, named []*Proposal, others ...key.Public) bool {
	all := true
	for _, list := range [][]digest.Hash{h.Bundles, h.Presences} {
		for _, d := range list {
			if c.opt.Holds(d) {
				continue
			}
			all = false
			var from []key.Public
			for _, p := range named {
				if p.Presence == d || slices.Contains(p.Bundles, d) {
					from = append(from, p.Author)
				}
			}
			c.want(now, d, append(from, others...)...)
		}
	}
	c.triedVote = !all
	return all
}

func authors(of []*Ballot) []key.Public {
	out := make([]key.Public, len(of))
	for i, b := range of {
		out[i] = b.Author
	}
	return out
}

func (c *Core) vote(hash digest.Hash) { c.ballot(Vote, hash) }

func (c *Core) ballot(phase Phase, hash digest.Hash) {
	b := &Ballot{Author: c.opt.Self, Phase: phase, Height: c.height, Attempt: c.attempt, Hash: hash}
	b.Sig = c.opt.Signer.Sign(b.signed(c.params.Chain))
	if phase == Vote {
		c.votes.add(c.self, b.Attempt, b)
	} else {
		c.commits.add(c.self, b.Attempt, b)
	}
	c.emit(Send{Message: b})
}

// coordinate sends the candidate of an attempt after the first when that is
// this node's part.
func (c *Core) coordinate(now Now) {
	if !c.coordinating() {
		return
	}
	x := &Candidate{Author: c.opt.Self, Height: c.height, Attempt: c.attempt}
	if c.valid != nil {
		x.Header, x.Votes = c.valid.header, c.valid.votes
	} else {
		x.Proposals = c.counted(now)
		if x.Proposals == nil {
			return
		}
		x.Header = assemble(c.params, &c.last.Header, c.lastHash, x.Proposals)
	}
	x.Sig = c.opt.Signer.Sign(x.signed(c.params.Chain))
	c.sentHeader = true
	c.candidates.add(c.self, x.Attempt, x)
	c.emit(Send{Message: x})
}

// voteCoordinated votes on the coordinator's candidate.
func (c *Core) voteCoordinated(now Now) {
	if c.votes.at(c.self, c.attempt) != nil {
		return
	}
	place := c.coordinator()
	who := c.params.Members[place]
	x := c.candidates.at(place, c.attempt)
	if x == nil {
		if now.Mono >= c.missing() {
			c.vote(digest.Hash{})
		}
		return
	}
	hash := x.Header.Hash()
	if _, checked := c.known[hash]; !checked || len(x.Votes) > 0 {
		if err := c.checkCandidate(x, hash); err != nil {
			c.blame(who, "%v", err)
			c.candidates.remove(place, c.attempt)
			if c.mayVote() {
				c.vote(digest.Hash{})
			}
			return
		}
		c.known[hash] = &x.Header
		if len(x.Votes) > 0 {
			c.learn(&proven{x.Votes[0].Attempt, x.Header, x.Votes})
		}
	}
	if !c.mayVote() {
		return
	}
	if !c.lockAllows(x, hash) || c.censors(now, x) {
		c.vote(digest.Hash{})
		return
	}
	// The coordinator holds what it counted, whatever the authors do.
	from := []key.Public{who}
	if len(x.Votes) > 0 {
		from = authors(x.Votes)
	}
	if c.holdsContent(now, &x.Header, x.Proposals, from...) {
		c.vote(hash)
	}
}

// lockAllows applies Tendermint's rule: a locked member votes for its lock, or
// for a candidate with q votes from an attempt not before the lock.
func (c *Core) lockAllows(x *Candidate, hash digest.Hash) bool {
	if c.locked == nil || c.locked.header.Hash() == hash {
		return true
	}
	return len(x.Votes) > 0 && x.Votes[0].Attempt >= c.locked.attempt
}

// missing is when the coordinator of a later attempt counts as missing: q others
// have proposed, it has not, and they have waited long enough. The others then
// say so by voting for nothing, and go on to the next one.
func (c *Core) missing() time.Duration {
	who := c.coordinator()
	if c.attempt == 0 || c.heardAt == 0 || !c.mayVote() || c.votes.at(c.self, c.attempt) != nil ||
		c.proposals.at(who, c.attempt) != nil || c.candidates.at(who, c.attempt) != nil {
		return never
	}
	return c.absentFrom()
}

// absentFrom is when members that have not proposed in this attempt, while q
// others have, count as absent from it.
func (c *Core) absentFrom() time.Duration {
	return c.heardAt + min(c.pace.grace()<<min(c.failed(), 10), c.pace.attempt(c.failed()))
}

// patience is for how many heights a bundle may be passed over before a
// coordinator that leaves it out gets no vote.
const patience = 8

// censors reports whether a candidate leaves out a bundle that has been pending
// here for long and that most members propose.
func (c *Core) censors(now Now, x *Candidate) bool {
	if x.Header.Outcome == Pending || len(x.Votes) > 0 || len(x.Header.Bundles) == MaxBundles {
		return false
	}
	var late []digest.Hash
	for b, since := range c.offered {
		if c.height >= since+patience {
			if _, in := slices.BinarySearchFunc(x.Header.Bundles, b, digest.Hash.Compare); !in {
				late = append(late, b)
			}
		}
	}
	if len(late) == 0 {
		return false
	}
	held := majorityBundles(c.proposed(now, c.everybody, c.attempt))
	for _, b := range late {
		if _, most := slices.BinarySearchFunc(held, b, digest.Hash.Compare); most {
			return true
		}
	}
	return false
}

// checkCandidate checks what a candidate proves itself with.
func (c *Core) checkCandidate(x *Candidate, hash digest.Hash) error {
	if x.Header.Height != c.height || x.Header.Prev != c.lastHash {
		return fmt.Errorf("candidate of %s does not follow ledger %d", x.Author.Short(), c.height-1)
	}
	if len(x.Votes) > 0 {
		return c.checkVotes(x, hash)
	}
	var have Bits
	for _, p := range x.Proposals {
		i := c.params.index(p.Author)
		if i < 0 || have.Has(i) || p.Height != c.height || p.Attempt != x.Attempt || p.Prev != c.lastHash {
			return fmt.Errorf("candidate of %s counts a proposal that does not belong to it", x.Author.Short())
		}
		have.Set(i)
		if mine := c.proposals.at(i, p.Attempt); mine != nil && mine.Sig == p.Sig && mine.Clock == p.Clock {
			if digest.Sum(mine.body(nil)) == digest.Sum(p.body(nil)) {
				continue // checked when it came on its own
			}
		}
		if err := VerifySignature(c.opt.Verifier, c.params.Chain, p); err != nil {
			return fmt.Errorf("candidate of %s: %w", x.Author.Short(), err)
		}
	}
	if len(x.Proposals) < c.q {
		return fmt.Errorf("candidate of %s counts %d proposals, want %d", x.Author.Short(), len(x.Proposals), c.q)
	}
	want := assemble(c.params, &c.last.Header, c.lastHash, x.Proposals)
	if want.Hash() != hash {
		return fmt.Errorf("candidate of %s does not follow from its proposals", x.Author.Short())
	}
	return nil
}

func (c *Core) checkVotes(x *Candidate, hash digest.Hash) error {
	var have Bits
	for _, v := range x.Votes {
		i := c.params.index(v.Author)
		if i < 0 || have.Has(i) || v.Phase != Vote || v.Height != c.height || v.Hash != hash ||
			v.Attempt != x.Votes[0].Attempt || v.Attempt >= x.Attempt {
			return fmt.Errorf("candidate of %s shows a vote that does not belong to it", x.Author.Short())
		}
		have.Set(i)
		if err := VerifySignature(c.opt.Verifier, c.params.Chain, v); err != nil {
			return fmt.Errorf("candidate of %s: %w", x.Author.Short(), err)
		}
	}
	if len(x.Votes) < c.q {
		return fmt.Errorf("candidate of %s shows %d votes, want %d", x.Author.Short(), len(x.Votes), c.q)
	}
	return nil
}

// majority returns the hash that q members' ballots of an attempt name.
func (c *Core) majority(of *collected[*Ballot], attempt uint32) (digest.Hash, []*Ballot) {
	if of.count(attempt) < c.q {
		return digest.Hash{}, nil
	}
	by := make(map[digest.Hash][]*Ballot, 1)
	for i := range c.params.Members {
		if b := of.at(i, attempt); b != nil && !b.Hash.IsZero() {
			by[b.Hash] = append(by[b.Hash], b)
			if len(by[b.Hash]) >= c.q {
				return b.Hash, by[b.Hash]
			}
		}
	}
	return digest.Hash{}, nil
}

// tryLock locks and commits what has q votes.
func (c *Core) tryLock(now Now) {
	done := !c.mayVote() || c.commits.at(c.self, c.attempt) != nil
	if done && c.valid != nil && c.valid.attempt == c.attempt {
		return
	}
	hash, votes := c.majority(&c.votes, c.attempt)
	if votes == nil {
		return
	}
	h := c.header(now, hash, votes)
	if h == nil {
		return
	}
	c.learn(&proven{c.attempt, *h, votes})
	if done {
		return
	}
	// Whatever closes is held by q members: those who commit.
	if !c.holdsContent(now, h, nil, authors(votes)...) {
		return
	}
	if c.locked == nil || c.locked.attempt < c.attempt || c.locked.header.Hash() != hash {
		c.locked = &proven{c.attempt, *h, votes}
		c.emit(Persist{Record: lockRecord(c.height, c.locked), Locked: h})
	}
	c.ballot(Commit, hash)
}

// learn keeps the latest candidate that has had q votes.
func (c *Core) learn(p *proven) {
	if c.valid == nil || c.valid.attempt < p.attempt {
		c.valid = p
	}
}

// header returns a candidate by its hash, or asks those who know it.
func (c *Core) header(now Now, hash digest.Hash, from []*Ballot) *Header {
	if h := c.known[hash]; h != nil {
		return h
	}
	c.ask(now, Want{Hash: hash, Header: true}, authors(from))
	return nil
}

// tryClose closes the ledger when q commits of one attempt are there.
func (c *Core) tryClose(now Now) bool {
	if c.waiting {
		return true
	}
	var attempts []uint32
	for a, n := range c.commits.counts {
		if n >= c.q {
			attempts = append(attempts, a)
		}
	}
	slices.Sort(attempts)
	for _, a := range attempts {
		hash, commits := c.majority(&c.commits, a)
		if commits == nil {
			continue
		}
		h := c.header(now, hash, commits)
		if h == nil {
			continue
		}
		cert := Certificate{Attempt: a}
		for _, b := range commits {
			cert.Commits = append(cert.Commits, Signed{b.Author, b.Sig})
		}
		c.close(h, cert)
		return true
	}
	return false
}

func (c *Core) close(h *Header, cert Certificate) {
	done := Close{Header: *h, Hash: h.Hash(), Certificate: cert}
	c.seenLate, c.late = c.late, c.seenLate[:0]
	c.fullLast = 0
	if c.attempt == 0 {
		c.fullLast = c.fullAt
	}
	c.seenLast, c.reported = c.seenLast[:0], make(map[key.Public]bool)
	for i, m := range c.params.Members {
		p := c.anyProposal(i)
		if p == nil || !c.countable(p) {
			continue
		}
		c.seenLast = append(c.seenLast, m)
		c.reported[m] = p.Ran
		if h.Outcome == Agreed && !h.Result.Output.IsZero() && p.Ran && p.Result == h.Result {
			done.OutputSigs = append(done.OutputSigs, Signed{m, p.OutputSig})
		}
	}
	if h.Outcome != Pending {
		c.outcome = nil
		c.awaited = len(h.Bundles) > 0
	}
	c.last, c.lastHash = Ledger{*h, cert}, done.Hash
	c.waiting = true
	c.emit(done)
}

// anyProposal returns a member's latest proposal for this height.
func (c *Core) anyProposal(member int) *Proposal {
	a, _ := c.proposals.highest(member)
	return c.proposals.at(member, a)
}

// maxAttempt is the last attempt there is at a height. No honest member comes
// near it, and the number must not wrap around to attempts already made.
const maxAttempt = 1 << 30

// moveOn goes to a later attempt when this one is over: its time is up, its
// votes cannot come to a quorum any more, or too few members are left in it.
func (c *Core) moveOn(now Now) bool {
	if c.member && c.attempt < c.startAt {
		// Straight to the first attempt that is free of old promises.
		return c.enter(now, c.startAt, "this node was restarted")
	}
	if c.valid != nil && c.valid.attempt > c.attempt {
		return c.enter(now, c.valid.attempt, "a quorum has voted in it")
	}
	ahead, lowest := c.ahead()
	if ahead > 0 && len(c.params.Members)-ahead < c.q {
		return c.enter(now, lowest, "the others have moved on")
	}
	if c.attempt >= maxAttempt {
		return false
	}
	if ahead > 0 && now.Mono >= c.scattered() {
		c.drifts++
		return c.enter(now, c.attempt+1, "too few are left in this one")
	}
	if c.votesSplit(now) {
		c.tries++
		return c.enter(now, c.attempt+1, "the votes differ")
	}
	if c.deadline > 0 && now.Mono >= c.deadline {
		c.tries++
		return c.enter(now, c.attempt+1, "time is up")
	}
	return false
}

// ahead returns how many members have reached a later attempt, and the lowest
// that one of them has.
func (c *Core) ahead() (n int, lowest uint32) {
	for i := range c.params.Members {
		if a, ok := c.reached(i); ok && a > c.attempt {
			if n++; n == 1 || a < lowest {
				lowest = a
			}
		}
	}
	return n, lowest
}

// leave is when this attempt may have to be left or voted against because of
// somebody's absence.
func (c *Core) leave() time.Duration {
	at := c.missing()
	if c.splitAt > 0 {
		at = min(at, c.splitAt)
	}
	if n, _ := c.ahead(); n > 0 && c.attempt < maxAttempt {
		at = min(at, c.scattered())
	}
	return at
}

// failed returns how many attempts at this height count as having come to
// nothing: those that split or ran out of time, and one for every few times that
// this node has followed single members. Whoever is ahead honestly is reached
// quickly, and a liar that is always ahead does not keep attempts short.
func (c *Core) failed() uint32 { return c.tries + c.drifts/4 }

// scattered is when to follow even a single member towards a later attempt: it
// cannot take part in this one any more, as after a restart, and those who are
// left may be too few for it. Before q take part it is never. It is followed by
// one attempt at a time: a liar could lead the others from one attempt that it
// coordinates to the next.
func (c *Core) scattered() time.Duration {
	if c.deadline == 0 {
		return never
	}
	return c.quorumAt + max(c.pace.attempt(c.failed())/4, c.pace.grace())
}

// never is later than anything.
const never = time.Duration(1<<63 - 1)

// votesSplit reports whether no candidate can get q votes in this attempt, from
// those who are not absent from it.
func (c *Core) votesSplit(now Now) bool {
	c.splitAt = 0
	if c.votes.count(c.attempt) == 0 {
		return false
	}
	gone := false
	if c.heardAt > 0 {
		if at := c.absentFrom(); now.Mono >= at {
			gone = true
		} else {
			c.splitAt = at
		}
	}
	by := make(map[digest.Hash]int, 1)
	most, left := 0, 0
	for i := range c.params.Members {
		b := c.votes.at(i, c.attempt)
		if b == nil {
			if !gone || c.proposals.at(i, c.attempt) != nil {
				left++
			}
		} else if !b.Hash.IsZero() {
			by[b.Hash]++
			most = max(most, by[b.Hash])
		}
	}
	return most+left < c.q
}

func (c *Core) enter(now Now, attempt uint32, why string) bool {
	c.attempt = attempt
	c.resetAttempt(now)
	c.forgetCandidates()
	if c.member {
		c.emit(Persist{Record: enteredRecord(c.height, attempt)})
	}
	c.emit(Notice{Text: fmt.Sprintf("ledger %d needs attempt %d: %s", c.height, attempt, why)})
	return true
}

// forgetCandidates drops the candidates that nothing refers to any more, once
// there are many.
func (c *Core) forgetCandidates() {
	if len(c.known) <= 2*keepAttempts {
		return
	}
	named := make(map[digest.Hash]bool)
	for i := range c.params.Members {
		for _, of := range []*collected[*Ballot]{&c.votes, &c.commits} {
			for _, s := range of.of[i] {
				named[s.message.Hash] = true
			}
		}
	}
	for _, p := range []*proven{c.locked, c.valid} {
		if p != nil {
			named[p.header.Hash()] = true
		}
	}
	for h := range c.known {
		if !named[h] {
			delete(c.known, h)
		}
	}
}
