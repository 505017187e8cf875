package sim

import (
	"fmt"
	"slices"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// node is a simulated node: a core and the edge around it.
type node struct {
	w        *World
	place    int // its position among the nodes and on the network
	id       identity
	observer bool
	liar     *liar // nil for an honest node
	twin     *node // a second core that a liar runs with the same key

	core *consensus.Core
	up   bool
	life int // counts starts and crashes: events of another life do not happen

	mono  time.Duration // what this node's monotonic clock adds to the world's
	clock time.Duration // by how much its wall clock is wrong

	disk   disk
	outbox []outgoing
	log    []*consensus.Ledger // closed ledgers, durable or not
	closed *consensus.Close    // closed, not advanced yet

	held     map[digest.Hash]bool // true for bundles
	pending  []digest.Hash
	presence digest.Hash
	consumed map[digest.Hash]bool

	run     int         // counts runs: the end of an earlier one is ignored
	state   digest.Hash // what its state folder contains
	slow    float64     // how much longer than others it executes
	wrong   float64     // how often its result is wrong
	stuck   float64     // how often a run does not end
	wakeAt  time.Duration
	timer   int
	spins   int
	fetched time.Duration // until when an answer to a fetch is waited for
}

type outgoing struct {
	after uint64
	send  consensus.Send
}

func (n *node) String() string {
	if n.twin != nil && n.w.nodes[n.place] != n {
		return fmt.Sprintf("node %d'", n.place+1)
	}
	return fmt.Sprintf("node %d", n.place+1)
}

func (n *node) honest() bool { return n.liar == nil }

func (n *node) now() consensus.Now {
	clock := n.w.epoch + n.w.now + n.clock
	return consensus.Now{Mono: n.w.now + n.mono, Clock: uint64(max(clock.Milliseconds(), 0))}
}

// start begins a life with what the disk holds.
func (n *node) start() {
	w := n.w
	n.life++
	n.up = true
	n.mono = time.Duration(w.rng.Int64N(int64(time.Hour)))
	n.held = make(map[digest.Hash]bool)
	n.pending, n.outbox, n.closed = nil, nil, nil
	n.log = slices.Clone(n.disk.ledgers)
	r := consensus.Restored{Records: n.disk.records, Fresh: !n.disk.used}
	if len(n.log) > 0 {
		last := n.log[len(n.log)-1]
		r.Last, r.Certificate = last.Header, last.Certificate
	}
	n.consumed = w.consumedTo(r.Last.Height)
	for _, h := range sortedKeys(n.disk.content) {
		n.hold(h, n.disk.content[h])
	}
	opt := consensus.Options{
		Self:     n.id.public,
		Signer:   n.id.signer,
		Verifier: w.verifier,
		Holds:    func(h digest.Hash) bool { _, ok := n.held[h]; return ok },
		Offer:    n.offer,
		Observer: n.observer,
	}
	core, err := consensus.New(opt, w.paramsAfter(&r.Last), r, n.now())
	if err != nil {
		w.fail("%v cannot start: %v", n, err)
		return
	}
	n.core = core
	w.tell("%v starts after ledger %d with %d records", n, r.Last.Height, len(r.Records))
	n.resume()
	n.apply(n.core.Tick(n.now()))
	n.work()
}

// crash ends a life. What was not durable is lost from somewhere on.
func (n *node) crash() {
	if !n.up {
		return
	}
	survive := 0
	if k := len(n.disk.pending); k > 0 {
		survive = n.w.rng.IntN(k + 1)
	}
	n.w.tell("%v crashes at ledger %d, %d of %d writes survive", n, n.core.Height(), survive, len(n.disk.pending))
	n.lose(survive)
	n.up = false
	n.life++
	n.core = nil
}

// apply does what a core asks for.
func (n *node) apply(actions []consensus.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case consensus.Persist:
			n.write(write{record: a.Record})
		case consensus.Send:
			if p, ok := a.Message.(*consensus.Proposal); ok {
				n.w.check.proposed(n, p)
			}
			n.outbox = append(n.outbox, outgoing{n.disk.written, a})
			n.transmit()
		case consensus.Close:
			n.close(a)
		case consensus.Want:
			n.ask(a)
		case consensus.Behind:
			n.catchUp(a)
		case consensus.Notice:
			n.w.notice(n, a)
		}
	}
	n.schedule()
}

// schedule sets the timer to when the core wants to be woken.
func (n *node) schedule() {
	if n.core == nil {
		return
	}
	at := n.core.Wake() - n.mono
	if at == n.wakeAt {
		return
	}
	n.wakeAt = at
	n.timer++
	timer, life := n.timer, n.life
	n.w.at(max(at, n.w.now), func() {
		if n.life == life && n.timer == timer {
			n.tick()
		}
	})
}

// tick wakes the core, which must not ask to be woken at once for ever.
func (n *node) tick() {
	n.wakeAt = -1
	n.w.report.Ticks++
	height, attempt := n.core.Height(), n.core.Attempt()
	n.apply(n.core.Tick(n.now()))
	if n.core == nil || n.wakeAt > n.w.now || height != n.core.Height() || attempt != n.core.Attempt() {
		n.spins = 0
		return
	}
	if n.spins++; n.spins > 3 {
		n.w.fail("%v asks to be woken at once again and again at ledger %d, attempt %d", n, n.core.Height(), n.core.Attempt())
	}
}

// greet tells a node that has just connected where this one is.
func (n *node) greet(to *node) {
	for _, m := range n.core.Greeting() {
		n.outbox = append(n.outbox, outgoing{n.disk.written, consensus.Send{To: to.id.public, Message: m, Again: true}})
	}
	n.transmit()
}

// transmit sends what everything before has become durable for.
func (n *node) transmit() {
	sent := 0
	for _, o := range n.outbox {
		if o.after > n.disk.durable {
			break
		}
		sent++
		n.leave(o.send)
	}
	n.outbox = n.outbox[sent:]
}

func (n *node) leave(s consensus.Send) {
	w := n.w
	w.check.sent(n, s.Message)
	if n.liar != nil {
		n.liar.sends(n, s)
		return
	}
	if w.tracing {
		w.tell("%v sends %s", n, describe(s.Message))
	}
	w.count(s)
	p := w.pack(s.Message)
	for _, to := range w.nodes {
		if to.place != n.place && (s.To == key.Public{} || s.To == to.id.public) {
			w.send(n, to, p)
		}
	}
}

// pack makes a packet of a message, with a detour through its wire form if the
// simulation is to take it.
func (w *World) pack(m consensus.Message) *packet {
	if w.cfg.Wire {
		decoded, err := consensus.Decode(consensus.Encode(m))
		if err != nil {
			w.fail("%s cannot be read back: %v", describe(m), err)
			return &packet{message: m}
		}
		m = decoded
	}
	return &packet{message: m}
}

// receive takes what has arrived.
func (n *node) receive(from *node, p *packet) {
	if !n.up {
		return
	}
	if n.liar != nil && n.w.nodes[n.place] == n {
		n.liar.hears(from, p)
	}
	switch {
	case p.message != nil:
		n.apply(n.core.Receive(n.now(), from.id.public, p.message))
	case p.isWant && p.header != nil:
		if h, ok := n.core.Candidate(p.want); ok {
			n.w.send(n, from, &packet{header: h})
		}
	case p.isWant:
		if bundle, ok := n.held[p.want]; ok {
			n.w.send(n, from, &packet{content: p.want, bundle: bundle})
		}
	case p.header != nil:
		n.apply(n.core.HeaderArrived(n.now(), *p.header))
	case p.fetch > 0:
		n.serve(from, p.fetch)
	case p.ledgers != nil:
		n.install(from, p.ledgers)
	default:
		if _, ok := n.held[p.content]; !ok {
			n.keep(p.content, p.bundle)
			n.apply(n.core.Arrived(n.now()))
			n.work()
		}
	}
}

// take brings a new bundle, or list of users, to the node, which floods it.
func (n *node) take(h digest.Hash, bundle bool) {
	n.keep(h, bundle)
	p := &packet{content: h, bundle: bundle}
	for _, to := range n.w.nodes {
		if to.place != n.place {
			n.w.send(n, to, p)
		}
	}
	n.apply(n.core.Arrived(n.now()))
	n.work()
}

func (n *node) keep(h digest.Hash, bundle bool) {
	n.write(write{content: h, bundle: bundle})
	n.hold(h, bundle)
}

func (n *node) hold(h digest.Hash, bundle bool) {
	n.held[h] = bundle
	if bundle && !n.consumed[h] {
		n.pending = append(n.pending, h)
	}
}

func (n *node) offer() ([]digest.Hash, digest.Hash) {
	if n.liar != nil {
		return n.liar.offer(n)
	}
	return slices.Clone(n.pending), n.presence
}

func (n *node) work() {
	if n.core != nil {
		n.apply(n.core.Work(n.now(), len(n.pending) > 0))
	}
}

func (n *node) ask(a consensus.Want) {
	p := &packet{want: a.Hash, isWant: true}
	if a.Header {
		p.header = &consensus.Header{}
	}
	for _, k := range a.From {
		if to := n.w.byKey[k]; to != nil {
			n.w.send(n, to, p)
		}
	}
}

// close takes down a closed ledger, and goes on after it at once or later.
func (n *node) close(a consensus.Close) {
	l := &consensus.Ledger{Header: a.Header, Certificate: a.Certificate}
	n.write(write{ledger: l})
	n.log = append(n.log, l)
	n.closed = &a
	if n.w.cfg.Pause == 0 {
		n.advance()
		return
	}
	life := n.life
	n.w.after(time.Duration(n.w.rng.Int64N(int64(n.w.cfg.Pause))), func() {
		if n.life == life {
			n.advance()
		}
	})
}

func (n *node) advance() {
	for n.closed != nil && n.w.err == nil {
		n.advanceOnce()
	}
}

func (n *node) advanceOnce() {
	h := n.closed.Header
	n.closed = nil
	n.consume(&h)
	if h.StartsRun() {
		n.execute(&h)
	}
	n.core.Work(n.now(), false)
	actions, err := n.core.Advance(n.now(), n.w.paramsAfter(&h))
	if err != nil {
		n.w.fail("%v cannot go on after ledger %d: %v", n, h.Height, err)
		return
	}
	n.apply(actions)
	n.work()
}

func (n *node) consume(h *consensus.Header) {
	if len(h.Bundles) == 0 {
		return
	}
	for _, b := range h.Bundles {
		n.consumed[b] = true
	}
	n.pending = slices.DeleteFunc(n.pending, func(b digest.Hash) bool { return n.consumed[b] })
}

// resume executes what was outstanding before a start, if the ledger that
// began it is here.
func (n *node) resume() {
	last, _ := n.core.Last()
	run := last.Header.Outstanding()
	if run == 0 {
		life := n.life
		n.w.after(0, func() {
			if n.life == life {
				n.state = n.w.genesis.State
				n.apply(n.core.Executed(n.now(), 0, n.w.genesis))
			}
		})
		return
	}
	n.catchRun(run)
}

// catchRun executes a run that was outstanding when the node came to where it
// is. The ledger that began it is fetched if need be.
func (n *node) catchRun(run uint64) {
	if l := n.ledger(run); l != nil {
		n.execute(&l.Header)
	} else if c := n.w.check.ledger(run); c != nil {
		n.execute(&c.Header)
	}
}

func (n *node) ledger(height uint64) *consensus.Ledger {
	i, ok := slices.BinarySearchFunc(n.log, height, func(l *consensus.Ledger, h uint64) int {
		return int(int64(l.Header.Height) - int64(h))
	})
	if !ok {
		return nil
	}
	return n.log[i]
}

// execute runs the contract after a ledger. Whatever ran before is stopped.
func (n *node) execute(h *consensus.Header) {
	w := n.w
	n.run++
	if n.stuck > 0 && w.rng.Float64() < n.stuck {
		w.tell("%v: run %d does not end", n, h.Height)
		return
	}
	took := time.Duration(float64(w.runTime(h)) * n.slow)
	if n.state != h.Result.State {
		took += w.cfg.SyncTime
	}
	result := w.resultOf(h)
	if n.wrong > 0 && w.rng.Float64() < n.wrong || w.differs(h) {
		result.State = mixed("wrong", result.State, uint64(n.place))
	}
	run, life, height := n.run, n.life, h.Height
	w.after(took, func() {
		if n.life == life && n.run == run {
			n.state = result.State
			n.apply(n.core.Executed(n.now(), height, result))
		}
	})
}

// catchUp asks another node for the ledgers from here on.
func (n *node) catchUp(a consensus.Behind) {
	to := n.w.byKey[a.From]
	if to == nil || n.fetched > n.w.now {
		return
	}
	n.fetched = n.w.now + 200*time.Millisecond
	n.w.send(n, to, &packet{fetch: n.core.Height()})
}

// serve answers a fetch with ledgers from a height on, durable ones only.
func (n *node) serve(to *node, from uint64) {
	log := n.disk.ledgers
	i, _ := slices.BinarySearchFunc(log, from, func(l *consensus.Ledger, h uint64) int {
		return int(int64(l.Header.Height) - int64(h))
	})
	if i < len(log) {
		n.w.send(n, to, &packet{ledgers: slices.Clone(log[i:])})
	}
}

// install takes fetched ledgers: one by one while they follow, with a leap to
// the last where they do not or there are many.
func (n *node) install(from *node, ledgers []*consensus.Ledger) {
	n.fetched = 0
	last := ledgers[len(ledgers)-1]
	if len(ledgers) > n.w.cfg.Leap || ledgers[0].Header.Height > n.core.Height() {
		n.leap(last)
		return
	}
	for _, l := range ledgers {
		n.advance()
		if l.Header.Height == n.core.Height() {
			n.apply(n.core.Receive(n.now(), from.id.public, l))
		}
		if !n.up || n.w.err != nil {
			return
		}
	}
	n.advance()
}

func (n *node) leap(l *consensus.Ledger) {
	n.advance()
	h := &l.Header
	if h.Height < n.core.Height() {
		return
	}
	params, known := n.w.paramsOf(h)
	if !known || l.Certificate.Verify(n.w.verifier, params, h) != nil {
		n.w.tell("%v refuses ledger %d", n, h.Height)
		return
	}
	n.w.tell("%v leaps from ledger %d to %d", n, n.core.Height()-1, h.Height)
	// Nobody honest may have closed it yet: its proof is enough.
	n.w.check.closed(n, l)
	n.write(write{ledger: l})
	n.log = append(n.log, l)
	n.consumed = n.w.consumedTo(h.Height)
	n.consume(h)
	n.pending = slices.DeleteFunc(n.pending, func(b digest.Hash) bool { return n.consumed[b] })
	n.run++
	actions, err := n.core.Reset(n.now(), *l, n.w.paramsAfter(h))
	if err != nil {
		n.w.fail("%v cannot leap to ledger %d: %v", n, h.Height, err)
		return
	}
	n.catchRun(h.Outstanding())
	n.apply(actions)
	n.work()
}
