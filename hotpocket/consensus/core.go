package consensus

import (
	"fmt"
	"slices"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// Options are what a Core is given once and keeps.
type Options struct {
	Self     key.Public
	Signer   Signer
	Verifier Verifier
	// Holds reports whether the node has the content of a digest.
	Holds func(digest.Hash) bool
	// Offer returns what to propose: the pending bundles in order of arrival
	// and the digest of the list of connected users.
	Offer func() (bundles []digest.Hash, presence digest.Hash)
	// Observer keeps a node from taking part although it is in the UNL.
	Observer bool
}

// Restored is what a node remembers from before its start.
type Restored struct {
	// Last is the last closed ledger, the zero Header when there is none, and
	// Certificate what closed it.
	Last        Header
	Certificate Certificate
	// Records are the Persist records since then, in order.
	Records [][]byte
	// Fresh says that the node has never run: it cannot have promised anything.
	Fresh bool
}

// Core is the protocol at one node. It is not safe for concurrent use.
type Core struct {
	opt    Options
	params Params
	q      int
	// member is whether this node proposes and votes at this height.
	member bool

	last     Ledger
	lastHash digest.Hash
	// waiting is true between a Close and its Advance.
	waiting bool
	pace    pace

	height     uint64
	opened     time.Duration       // when this height began
	tries      uint32              // attempts at this height that came to nothing
	drifts     uint32              // moves to later attempts after single members
	self       int                 // this node's place in the UNL, or -1
	everybody  []int               // all places
	expected   []int               // the places of those whom attempt 0 waits for
	seenLast   []key.Public        // whose proposals came before the last ledger closed
	late       []key.Public        // whose proposals for that ledger come now, not too late to be waited for
	seenLate   []key.Public        // the same for the ledger before it
	fullLast   time.Duration       // fullAt of that ledger, 0 when it took other attempts
	reported   map[key.Public]bool // which of them had a result, nil when not known
	attempt    uint32
	startAt    uint32 // the first attempt in which this node may take part
	proposals  collected[*Proposal]
	votes      collected[*Ballot]
	commits    collected[*Ballot]
	candidates collected[*Candidate]
	known      map[digest.Hash]*Header // candidates by hash
	locked     *proven                 // what this node has committed to
	valid      *proven                 // the latest candidate with q votes
	asked      map[digest.Hash]request
	blamed     map[key.Public]bool
	curious    map[key.Public]int   // how much of what only one member names was asked for
	lacking    map[digest.Hash]bool // bundles that others propose and this node does not hold
	lackUntil  time.Duration        // until when they are worth waiting for

	quorumAt   time.Duration // when q members were first heard in this attempt
	heardAt    time.Duration // when q proposals of this attempt had come
	fullAt     time.Duration // when q of them could be counted
	deadline   time.Duration // end of this attempt, 0 while there is no quorum
	splitAt    time.Duration // when absent members may make the votes split, 0 when not
	retryAt    time.Duration
	askAt      time.Duration // when to ask again for what is missing, 0 when nothing is
	triedVote  bool          // a vote waits for content
	partial    bool          // a proposal waits for content to be counted
	undecided  bool          // fewer than q of the proposals have a result
	sentHeader bool          // this node, as coordinator, has sent its candidate
	offer      *assembled    // attempt 0's candidate, once the proposals were counted

	outcome  *Result                // result of the outstanding run, once executed here
	awaited  bool                   // the outstanding run had inputs: users wait for its outputs
	work     bool                   // inputs are pending
	offered  map[digest.Hash]uint64 // pending bundles and the height at which they were first proposed here
	future   []Message
	answered map[key.Public]time.Duration
	behind   map[key.Public]uint64 // whose ledgers this node was said to miss
	nudges   int
	aloneAt  time.Duration // when to ask again although nobody was heard of

	out []Action
}

// request is how often something was asked for, and when last.
type request struct {
	times int
	at    time.Duration
}

// assembled is a candidate with the proposals it was made of.
type assembled struct {
	header Header
	hash   digest.Hash
	from   []*Proposal
}

// New returns a Core that continues from what was restored. The parameters are
// those in force at the height after restored.Last.
func New(opt Options, params Params, restored Restored, now Now) (*Core, error) {
	if err := params.Validate(); err != nil {
		return nil, fmt.Errorf("consensus parameters: %w", err)
	}
	c := &Core{opt: opt, answered: make(map[key.Public]time.Duration), behind: make(map[key.Public]uint64), offered: make(map[digest.Hash]uint64)}
	c.last = Ledger{restored.Last, restored.Certificate}
	c.lastHash = restored.Last.Hash()
	c.awaited = restored.Last.Height > 0
	c.begin(params, now)
	kept, err := readPromises(c.height, restored.Records)
	if err != nil {
		return nil, err
	}
	if restored.Fresh {
		// The first thing on record is that there was a start, so that the next
		// one knows that it is not the first.
		c.emit(Persist{Record: enteredRecord(c.height, 0)})
	} else {
		// Whatever this node said before its end was said in an attempt up to
		// the last one on record.
		c.startAt = kept.attempt + 1
	}
	if kept.lock != nil {
		c.locked, c.valid = kept.lock, kept.lock
		c.known[kept.lock.header.Hash()] = &kept.lock.header
	}
	return c, nil
}

// Height returns the height being decided.
func (c *Core) Height() uint64 { return c.height }

// Attempt returns the current attempt at that height.
func (c *Core) Attempt() uint32 { return c.attempt }

// Last returns the last closed ledger and its hash.
func (c *Core) Last() (Ledger, digest.Hash) { return c.last, c.lastHash }

// Params returns the parameters in force.
func (c *Core) Params() Params { return c.params }

// Heard returns how many members' proposals for this height have arrived.
func (c *Core) Heard() int { return c.proposals.heard }

// Candidate returns a candidate ledger of this height, or the last closed one, by
// its hash, for peers that ask for it.
func (c *Core) Candidate(hash digest.Hash) (*Header, bool) {
	if hash == c.lastHash && c.last.Header.Height > 0 {
		return &c.last.Header, true
	}
	h, ok := c.known[hash]
	return h, ok
}

// begin sets up the height after the last ledger.
func (c *Core) begin(params Params, now Now) {
	previous := c.params.Members
	c.params, c.q = params, params.Quorum()
	c.self = params.index(c.opt.Self)
	c.member = !c.opt.Observer && c.self >= 0
	c.height = c.last.Header.Height + 1
	c.opened = now.Mono
	c.attempt, c.startAt, c.tries, c.drifts = 0, 0, 0, 0
	c.proposals = newCollected[*Proposal](len(params.Members))
	c.votes = newCollected[*Ballot](len(params.Members))
	c.commits = newCollected[*Ballot](len(params.Members))
	c.candidates = newCollected[*Candidate](len(params.Members))
	c.known = make(map[digest.Hash]*Header)
	c.asked = make(map[digest.Hash]request)
	c.blamed = make(map[key.Public]bool)
	c.curious = make(map[key.Public]int)
	c.lacking, c.lackUntil = make(map[digest.Hash]bool), 0
	c.locked, c.valid = nil, nil
	c.waiting = false
	c.pace.open(params, now.Mono)
	c.resetAttempt(now)

	// Expected by the last ledger, as far as still in the UNL, and newcomers.
	c.everybody, c.expected = c.everybody[:0], c.expected[:0]
	for place, m := range params.Members {
		c.everybody = append(c.everybody, place)
		i, was := slices.BinarySearchFunc(previous, m, key.Public.Compare)
		if !was || c.last.Header.Expected.Has(i) {
			c.expected = append(c.expected, place)
		}
	}
}

func (c *Core) resetAttempt(now Now) {
	c.quorumAt, c.heardAt, c.fullAt, c.deadline, c.splitAt = 0, 0, 0, 0, 0
	c.triedVote, c.partial, c.undecided, c.sentHeader, c.offer = false, false, false, false, nil
	c.retryAt = now.Mono + c.pace.retry()
}

// Advance begins the next height after a Close, under the parameters that
// follow from the closed ledger.
func (c *Core) Advance(now Now, params Params) ([]Action, error) {
	if err := params.Validate(); err != nil {
		return nil, fmt.Errorf("consensus parameters for ledger %d: %w", c.height+1, err)
	}
	if !c.waiting {
		return nil, fmt.Errorf("ledger %d has not closed", c.height)
	}
	c.begin(params, now)
	future := c.future
	c.future = nil
	for _, m := range future {
		c.receive(now, m)
	}
	return c.step(now), nil
}

// Reset makes the Core continue after a ledger that was fetched and verified by
// the caller, leaving out everything between. Promises for heights up to it
// have no more meaning. The ledger counts as a Close given before: it has to be
// durable before anything that is sent from now on leaves.
func (c *Core) Reset(now Now, ledger Ledger, params Params) ([]Action, error) {
	if err := params.Validate(); err != nil {
		return nil, fmt.Errorf("consensus parameters for ledger %d: %w", ledger.Header.Height+1, err)
	}
	if ledger.Header.Height < c.height {
		return nil, fmt.Errorf("ledger %d is not after ledger %d", ledger.Header.Height, c.height-1)
	}
	c.last, c.lastHash = ledger, ledger.Header.Hash()
	c.outcome, c.awaited = nil, true
	c.seenLast, c.seenLate, c.late, c.fullLast, c.reported = nil, nil, nil, 0, nil
	// Who was a member at the ledger's height is not known here, so its expected
	// set cannot be read: everybody is expected.
	c.params.Members = nil
	c.begin(params, now)
	future := c.future
	c.future = nil
	for _, m := range future {
		c.receive(now, m)
	}
	return c.step(now), nil
}

// Executed reports the result of a run. A result of any but the outstanding run
// is ignored.
func (c *Core) Executed(now Now, run uint64, result Result) []Action {
	if run == c.last.Header.Outstanding() {
		c.outcome = &result
	}
	return c.step(now)
}

// Work says whether inputs are pending, which makes the next ledger close
// early.
func (c *Core) Work(now Now, pending bool) []Action {
	c.work = pending
	if !pending {
		return nil
	}
	return c.step(now)
}

// Arrived says that content has come that Holds reports from now on.
func (c *Core) Arrived(now Now) []Action {
	if !c.triedVote && !c.partial && len(c.lacking) == 0 {
		return nil
	}
	return c.step(now)
}

// HeaderArrived brings a candidate that was wanted.
func (c *Core) HeaderArrived(now Now, h Header) []Action {
	if h.Height != c.height || h.Prev != c.lastHash {
		return nil
	}
	hash := h.Hash()
	if c.asked[hash].times == 0 || len(c.known) > 4*MaxMembers {
		return nil
	}
	c.known[hash] = &h
	return c.step(now)
}

// Tick lets time pass. It is due at Wake.
func (c *Core) Tick(now Now) []Action { return c.step(now) }

// Receive takes a message whose signature VerifySignature has accepted; from is
// the peer that it came from, who need not be its author.
func (c *Core) Receive(now Now, from key.Public, m Message) []Action {
	if l, ok := m.(*Ledger); ok {
		c.receiveLedger(from, l)
	} else {
		c.receive(now, m)
	}
	return c.step(now)
}

// Greeting returns what a newly connected node has to be told. The messages may
// leave when a Send given now might: see Action.
func (c *Core) Greeting() []Message {
	var out []Message
	if c.last.Header.Height > 0 {
		out = append(out, &Ledger{c.last.Header, c.last.Certificate})
	}
	return append(out, c.own()...)
}

// own returns this node's messages of the current attempt.
func (c *Core) own() []Message {
	var out []Message
	if p := c.proposals.at(c.self, c.attempt); p != nil {
		out = append(out, p)
	}
	if x := c.candidates.at(c.self, c.attempt); x != nil {
		out = append(out, x)
	}
	if v := c.votes.at(c.self, c.attempt); v != nil {
		out = append(out, v)
	}
	if x := c.commits.at(c.self, c.attempt); x != nil {
		out = append(out, x)
	}
	return out
}

// Bounds of the messages kept for the next height: per author, and of authors
// who are no members at this one.
const (
	perAuthor = 8
	strangers = 64
)

func (c *Core) receive(now Now, m Message) {
	switch m := m.(type) {
	case *Proposal:
		if c.current(now, m, m.Author, m.Height) && m.Attempt <= maxAttempt {
			c.receiveProposal(now, m)
		}
	case *Ballot:
		if c.current(now, m, m.Author, m.Height) && m.Attempt <= maxAttempt {
			c.receiveBallot(m)
		}
	case *Candidate:
		if c.current(now, m, m.Author, m.Height) && m.Attempt <= c.attempt+keepAttempts {
			c.receiveCandidate(m)
		}
	}
}

// current sorts out messages of other heights and of others than members.
func (c *Core) current(now Now, m Message, author key.Public, height uint64) bool {
	switch {
	case height == c.height && !c.waiting:
		return c.params.index(author) >= 0
	case height == c.height:
		return false
	case height == c.height+1:
		c.keepFuture(m, author)
	case height > c.height:
		if c.params.index(author) >= 0 {
			c.fallBehind(height-1, author)
		}
	default:
		if p, ok := m.(*Proposal); ok && height == c.height-1 && p.Attempt == 0 {
			c.seeLate(now, author)
		}
		c.help(now, author, height)
	}
	return false
}

// seeLate notes that a member's proposal has come after its ledger closed, but
// not so late that it could not be waited for. Members far from the others would
// otherwise never be counted, nor the users connected to them.
func (c *Core) seeLate(now Now, author key.Public) {
	late := now.Mono - c.fullLast
	if c.fullLast == 0 || late > c.pace.maxGrace() || c.params.index(author) < 0 || slices.Contains(c.late, author) {
		return
	}
	c.late = append(c.late, author)
	c.pace.arrived(late)
}

// keepFuture keeps a few messages per author for the next height, at which some
// members arrive a moment earlier than others.
func (c *Core) keepFuture(m Message, author key.Public) {
	own, alien := 0, 0
	for _, f := range c.future {
		a, _ := Author(f)
		if a == author {
			if own++; own == perAuthor || sameKind(f, m) {
				return
			}
		}
		if c.params.index(a) < 0 {
			alien++
		}
	}
	if c.params.index(author) < 0 && alien >= strangers {
		return
	}
	c.future = append(c.future, m)
}

// sameKind reports whether of two messages of one author and height the second
// is a repetition, or says something else where only one thing can be said. Of
// candidates, which are large, one is enough.
func sameKind(a, b Message) bool {
	switch a := a.(type) {
	case *Proposal:
		b, ok := b.(*Proposal)
		return ok && a.Attempt == b.Attempt
	case *Ballot:
		b, ok := b.(*Ballot)
		return ok && a.Attempt == b.Attempt && a.Phase == b.Phase
	case *Candidate:
		_, ok := b.(*Candidate)
		return ok
	}
	return false
}

// help sends the last ledger to a member that is still at an earlier height,
// unless its message was merely late or it was helped a moment ago.
func (c *Core) help(now Now, author key.Public, height uint64) {
	late := height+1 == c.height && now.Mono-c.opened < c.pace.retry()/2
	if c.waiting || c.last.Header.Height == 0 || late {
		return
	}
	if at, ok := c.answered[author]; ok && now.Mono-at < c.pace.retry()/2 {
		return
	}
	if len(c.answered) > 4*MaxMembers {
		clear(c.answered)
	}
	c.answered[author] = now.Mono
	c.emit(Send{To: author, Message: &Ledger{c.last.Header, c.last.Certificate}})
}

// fallBehind says that somebody claims to have a ledger that this node misses:
// once for each of them until the height has been silent for a while, so that
// nobody's empty claims can hide what others have.
func (c *Core) fallBehind(height uint64, from key.Public) {
	if old, told := c.behind[from]; told && old >= height || len(c.behind) >= 2*MaxMembers {
		return
	}
	c.behind[from] = height
	c.emit(Behind{Height: height, From: from})
}

func (c *Core) receiveLedger(from key.Public, l *Ledger) {
	switch {
	case c.waiting || l.Header.Height < c.height:
	case l.Header.Height > c.height:
		c.fallBehind(l.Header.Height, from)
	case l.Header.Prev != c.lastHash:
		c.emit(Notice{Text: fmt.Sprintf("a ledger %d was offered that does not follow ours", l.Header.Height)})
	default:
		if err := l.Certificate.Verify(c.opt.Verifier, c.params, &l.Header); err != nil {
			c.emit(Notice{Text: err.Error()})
			return
		}
		c.close(&l.Header, l.Certificate)
	}
}

func (c *Core) receiveProposal(now Now, p *Proposal) {
	if p.Prev != c.lastHash {
		c.blame(p.Author, "%s proposes ledger %d on another chain", p.Author.Short(), p.Height)
		return
	}
	place := c.params.index(p.Author)
	if old, added := c.proposals.add(place, p.Attempt, p); !added {
		if old.Sig != p.Sig {
			c.blame(p.Author, "%s made two proposals for ledger %d, attempt %d", p.Author.Short(), p.Height, p.Attempt)
		}
		return
	}
	if p.Attempt == 0 && c.attempt == 0 && c.offer != nil && slices.Contains(c.expected, place) {
		// Too late to be counted, but not gone: the grace has to grow.
		c.pace.arrived(now.Mono - c.fullAt)
	}
	for _, b := range p.Bundles {
		if c.opt.Holds(b) {
			continue
		}
		c.wonder(now, b, p.Author)
		if len(c.lacking) < MaxBundles {
			c.lacking[b] = true
			if c.lackUntil == 0 {
				c.lackUntil = now.Mono + c.pace.grace()
			}
		}
	}
	if !c.countable(p) {
		c.partial = true
		c.wonder(now, p.Presence, p.Author)
	}
}

// maxCurious is how much per height a member can have this node ask for by merely
// naming it. What a candidate needs is asked for in any number.
const maxCurious = 1024

// wonder asks for something that nothing depends on yet.
func (c *Core) wonder(now Now, h digest.Hash, from key.Public) {
	if c.curious[from] < maxCurious {
		c.curious[from]++
		c.want(now, h, from)
	}
}

// countable reports whether a proposal can be counted: its list of users, which
// goes into the ledger on this member's word alone, has to be here. A member
// that shows it to nobody would otherwise keep everybody from voting.
func (c *Core) countable(p *Proposal) bool {
	return p.Presence.IsZero() || c.opt.Holds(p.Presence)
}

// want asks one of those who should have something that is missing here, and
// when it does not come in time another one.
func (c *Core) want(now Now, h digest.Hash, from ...key.Public) {
	c.ask(now, Want{Hash: h}, from)
}

func (c *Core) ask(now Now, w Want, from []key.Public) {
	r := c.asked[w.Hash]
	if again := r.at + c.pace.again(); r.times > 0 && now.Mono < again {
		c.wakeToAsk(again)
		return
	}
	others := slices.DeleteFunc(slices.Clone(from), func(k key.Public) bool { return k == c.opt.Self })
	if len(others) == 0 {
		return
	}
	w.From = others[r.times%len(others):][:1]
	c.asked[w.Hash] = request{r.times + 1, now.Mono}
	c.wakeToAsk(now.Mono + c.pace.again())
	c.emit(w)
}

func (c *Core) wakeToAsk(at time.Duration) {
	if c.askAt == 0 || at < c.askAt {
		c.askAt = at
	}
}

// incomplete reports whether bundles that others propose are still on their way
// here. A proposal that waits for them for a moment puts them into this ledger;
// one that does not makes an empty ledger and a second one after it.
func (c *Core) incomplete(now Now) bool {
	if now.Mono >= c.lackUntil {
		return false
	}
	for h := range c.lacking {
		if c.opt.Holds(h) {
			delete(c.lacking, h)
		}
	}
	return len(c.lacking) > 0
}

func (c *Core) receiveBallot(b *Ballot) {
	of := &c.votes
	if b.Phase == Commit {
		of = &c.commits
	}
	if old, added := of.add(c.params.index(b.Author), b.Attempt, b); !added && old.Hash != b.Hash {
		c.blame(b.Author, "%s voted twice for ledger %d, attempt %d", b.Author.Short(), b.Height, b.Attempt)
	}
}

func (c *Core) receiveCandidate(x *Candidate) {
	place := c.params.coordinator(c.height, x.Attempt)
	if x.Attempt > 0 && x.Author != c.params.Members[place] && len(x.Votes) > 0 {
		c.receiveLock(x)
		return
	}
	if x.Attempt == 0 || x.Author != c.params.Members[place] {
		c.blame(x.Author, "%s does not coordinate attempt %d of ledger %d", x.Author.Short(), x.Attempt, x.Height)
		return
	}
	c.candidates.add(place, x.Attempt, x)
}

// receiveLock takes what another member shows the coordinator: a candidate with
// q votes. Only one that is later than what is known here is worth checking.
func (c *Core) receiveLock(x *Candidate) {
	if c.blamed[x.Author] || c.valid != nil && c.valid.attempt >= x.Votes[0].Attempt {
		return
	}
	hash := x.Header.Hash()
	if err := c.checkCandidate(x, hash); err != nil {
		c.blame(x.Author, "%v", err)
		return
	}
	c.known[hash] = &x.Header
	c.learn(&proven{x.Votes[0].Attempt, x.Header, x.Votes})
}

// blame notes a member's fault, one per member and height.
func (c *Core) blame(who key.Public, format string, args ...any) {
	if !c.blamed[who] {
		c.blamed[who] = true
		c.emit(Notice{Text: fmt.Sprintf(format, args...), Fault: true, Member: who})
	}
}

// Wake returns when Tick is due, on the clock of Now.Mono.
func (c *Core) Wake() time.Duration {
	if c.waiting {
		return c.opened + time.Hour
	}
	at := c.retryAt
	if c.member && c.proposals.at(c.self, c.attempt) == nil && c.mayJoin() {
		at = min(at, c.pace.heartbeat(c.opened))
		if c.ready() && c.urgent() {
			due := c.pace.early()
			if len(c.lacking) > 0 {
				due = max(due, c.lackUntil)
			}
			at = min(at, due)
		}
	}
	if c.deadline > 0 && c.attempt < maxAttempt {
		at = min(at, c.deadline)
	}
	if g := c.graceEnd(); g > 0 {
		at = min(at, g)
	}
	at = min(at, c.leave())
	if c.askAt > 0 {
		at = min(at, c.askAt)
	}
	return at
}

func (c *Core) emit(a Action) { c.out = append(c.out, a) }

// step does whatever is possible now.
func (c *Core) step(now Now) []Action {
	c.askAt = 0
	for !c.waiting && c.advanceOnce(now) {
	}
	if !c.waiting && now.Mono >= c.retryAt {
		c.retryAt = now.Mono + c.pace.retry()
		for _, m := range c.own() {
			c.emit(Send{Message: m, Again: true})
		}
		c.nudge(now)
		clear(c.behind)
	}
	out := c.out
	c.out = nil
	return out
}

// nudge is for a height that has been silent for a while: its ledger may have
// closed elsewhere. Those are asked, one after the other, who seem to know of
// it; without anybody of that kind a node that has nothing to say itself, which
// others would answer, asks any member.
func (c *Core) nudge(now Now) {
	knows := make(map[key.Public]bool)
	for _, m := range c.future {
		if a, ok := Author(m); ok {
			knows[a] = true
		}
	}
	silent := len(c.own()) == 0
	overdue := silent && now.Mono >= max(c.pace.heartbeat(c.opened)+c.pace.retry(), c.aloneAt)
	var from, any []key.Public
	for i, m := range c.params.Members {
		if i == c.self {
			continue
		}
		_, claims := c.behind[m]
		_, committed := c.commits.highest(i)
		if knows[m] || claims || silent && committed {
			from = append(from, m)
		}
		any = append(any, m)
	}
	if len(from) == 0 && overdue {
		from = any
		c.aloneAt = now.Mono + c.pace.round
	}
	if len(from) > 0 {
		c.nudges++
		c.emit(Behind{Height: c.height, From: from[c.nudges%len(from)]})
	}
}

// advanceOnce makes one step of the protocol and reports whether it made one.
func (c *Core) advanceOnce(now Now) bool {
	c.propose(now)
	c.watchQuorum(now)
	if c.tryClose(now) {
		return false
	}
	if c.attempt == 0 {
		c.voteCooperative(now)
	} else {
		c.coordinate(now)
		c.voteCoordinated(now)
	}
	c.tryLock(now)
	if c.tryClose(now) {
		return false
	}
	return c.moveOn(now)
}
