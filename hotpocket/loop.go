package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/consensus"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/ledger"
	"evernode/internal/digest"
)

// maxLedgerBytes bounds the inputs that a member proposes for one ledger.
const maxLedgerBytes = 16 << 20

// loop owns the consensus core. All its methods run in one goroutine; others
// reach it through node.do.
type loop struct {
	n    *node
	core *consensus.Core

	outbox  []outgoing
	closed  []held // ledgers whose consequences wait for the disk
	durable uint64 // how far the store's journal is on disk
	need    uint64 // how far it has to be before the next message leaves

	promised uint64 // how far it had to be when the last ledger closed

	inherited bool // promises at this height are from before the start
	locked    bool // one of those at this height is a lock

	presence     digest.Hash // the list of this node's users that was flooded last
	presenceSeen uint64      // the gateway's version of that list

	previous consensus.Header // the last ledger whose consequences are drawn

	active map[key.Public]uint64 // when each member's last proposal came, wall clock in ms
	stuck  *consensus.Close      // closed, but the agreed patch.cfg is not here yet
	fatal  error
}

type outgoing struct {
	after uint64
	send  consensus.Send
}

// held is a ledger that this node has helped to close by a commit that is not on
// disk yet. Until it is, the ledger rests on fewer than q members, so nobody is
// told and nothing is made final.
type held struct {
	after uint64
	task  task
}

// do runs f in the loop's goroutine, later. It waits for a place in the queue,
// and does nothing once the node stops or before it has begun.
func (n *node) do(f func(*loop)) {
	if !n.awake.Load() {
		return
	}
	select {
	case n.posts <- f:
	case <-n.stopping:
	}
}

// ask runs f in the loop's goroutine and waits until it has. It reports false
// when the node stops: then f may run still, and what it sets must not be read.
func (n *node) ask(f func(*loop)) bool {
	if !n.awake.Load() {
		return false
	}
	done := make(chan struct{})
	n.do(func(l *loop) { f(l); close(done) })
	select {
	case <-done:
		return true
	case <-n.stopping:
		return false
	}
}

func (n *node) now() consensus.Now {
	return consensus.Now{Mono: time.Since(n.started), Clock: uint64(time.Now().UnixMilli())}
}

// run is the loop itself.
func (l *loop) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	l.tick()
	for _, p := range l.n.mesh.Peers() {
		l.greet(p.Key) // connected before the loop could be told
	}
	for {
		wait := l.core.Wake() - time.Since(l.n.started)
		timer.Reset(max(wait, 50*time.Microsecond))
		select {
		case <-ctx.Done():
			return nil
		case f := <-l.n.posts:
			f(l)
			l.drain()
		case <-l.n.durable.changed:
			l.flush()
		case <-timer.C:
			l.tick()
		}
		if l.fatal != nil {
			return l.fatal
		}
	}
}

// drain runs what else is queued, up to a bound, before the clock is looked at.
func (l *loop) drain() {
	for range 256 {
		select {
		case f := <-l.n.posts:
			f(l)
		default:
			return
		}
	}
}

func (l *loop) tick() { l.apply(l.core.Tick(l.n.now())) }

// apply carries out what the core asks for.
func (l *loop) apply(actions []consensus.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case consensus.Persist:
			l.persist(a)
		case consensus.Send:
			l.send(a)
		case consensus.Close:
			l.close(a)
		case consensus.Want:
			l.want(a)
		case consensus.Behind:
			l.n.catchUp(a)
		case consensus.Notice:
			if a.Fault {
				l.n.log.Warn(a.Text, "member", a.Member.Short())
			} else {
				l.n.log.Debug(a.Text)
			}
		}
	}
}

func (l *loop) fail(err error) {
	if l.fatal == nil {
		l.fatal = err
	}
}

// persist keeps a record of the core. Since attempts only rise, the last record
// of an attempt says all that those before it said, and so does a lock, which is
// of the attempt at hand; without that they would pile up while no ledger closes.
// It does not hold for a record of an attempt after a lock, nor for what was
// promised before the start, after which attempts begin anew.
func (l *loop) persist(p consensus.Persist) {
	if p.Locked != nil && len(p.Locked.Bundles)+len(p.Locked.Presences) > 0 {
		// A lock that outlives its content would be a promise that nobody can
		// keep, and this node's own commit may close the ledger at once. The
		// content was written when it came, so there is mostly nothing to wait
		// for.
		if err := l.n.content.sync(); err != nil {
			l.fail(fmt.Errorf("write the content of a ledger: %w", err))
			return
		}
	}
	if !l.inherited && (p.Locked != nil || !l.locked) {
		l.need = l.n.store.ReplacePromises(p.Record)
	} else {
		l.need = l.n.store.AppendPromise(p.Record)
	}
	l.locked = l.locked || p.Locked != nil
}

func (l *loop) send(s consensus.Send) {
	if l.fatal != nil {
		return
	}
	l.outbox = append(l.outbox, outgoing{l.need, s})
	l.flush()
}

// flush sends what has become durable.
func (l *loop) flush() {
	l.durable = l.n.durable.lsn.Load()
	ready := 0
	for ready < len(l.closed) && l.durable >= l.closed[ready].after {
		l.n.shown.Store(l.closed[ready].task.Header.Height)
		l.n.exec.push(l.closed[ready].task)
		ready++
	}
	l.closed = slices.Delete(l.closed, 0, ready)
	sent := 0
	for _, o := range l.outbox {
		if l.durable < o.after {
			break
		}
		l.transmit(o.send)
		sent++
	}
	l.outbox = slices.Delete(l.outbox, 0, sent)
}

func (l *loop) transmit(s consensus.Send) {
	b := consensus.Encode(s.Message)
	if s.To != (key.Public{}) {
		if err := l.n.mesh.Send(s.To, kindConsensus, b); err != nil {
			l.n.log.Debug("message not sent", "to", s.To.Short(), "err", err)
		}
		return
	}
	scope := l.n.scope()
	if s.Again {
		l.n.mesh.Broadcast(kindConsensus, b, scope)
		return
	}
	l.n.mesh.Flood(l.n.key.Public(), kindConsensus, b, scope)
}

// offer is what the core proposes with.
func (l *loop) offer() ([]digest.Hash, digest.Hash) {
	l.announce()
	last, _ := l.core.Last()
	return l.n.content.offer(last.Header.Height), l.presence
}

// announce floods the list of this node's users when it has changed.
func (l *loop) announce() {
	users, version := l.n.gate.Users()
	// A list that no ledger has named for long is forgotten.
	kept := l.presence.IsZero() || l.n.content.presence(l.presence) != nil
	if version == l.presenceSeen && kept {
		return
	}
	l.presenceSeen = version
	l.presence = digest.Hash{}
	if len(users) == 0 {
		return
	}
	p, err := inputs.NewPresence(l.n.key.Public(), users)
	if err == nil {
		err = l.n.content.addPresence(p, l.core.Height())
	}
	if err != nil {
		l.n.log.Error("the list of connected users cannot be proposed", "users", len(users), "err", err)
		return
	}
	l.presence = p.Digest()
	l.n.mesh.Flood(l.n.key.Public(), kindPresence, p.Encoded(), l.n.scope())
}

// receive takes a consensus message whose signature is good.
func (l *loop) receive(from key.Public, m consensus.Message) {
	if p, ok := m.(*consensus.Proposal); ok && p.Height >= l.core.Height() {
		if len(l.active) > 4*consensus.MaxMembers {
			clear(l.active)
		}
		l.active[p.Author] = uint64(time.Now().UnixMilli())
	} else if ok && p.Ran && !p.Result.Output.IsZero() && slices.Contains(l.n.conf.Load().Contract.UNL, p.Author) {
		// Too late for the ledger, but not for users who want many signatures.
		l.n.signed.add(p.Result.Output, p.Author, p.OutputSig)
	}
	l.apply(l.core.Receive(l.n.now(), from, m))
}

func (l *loop) executed(height uint64, r consensus.Result) {
	l.apply(l.core.Executed(l.n.now(), height, r))
}

// arrived says that content has come.
func (l *loop) arrived() {
	l.apply(l.core.Arrived(l.n.now()))
	l.work()
}

// work tells the core whether inputs are pending.
func (l *loop) work() {
	count, _ := l.n.content.pending()
	l.apply(l.core.Work(l.n.now(), count > 0))
}

// close persists a closed ledger and begins the next height.
func (l *loop) close(c consensus.Close) {
	h := &c.Header
	l.promised = l.need
	lsn, err := l.n.store.AppendLedger(ledger.Record{
		Seq:  h.Height,
		Hash: c.Hash,
		Prev: h.Prev,
		Time: h.Time,
		Body: consensus.AppendLedger(nil, h, &c.Certificate),
	})
	if err != nil {
		l.fail(fmt.Errorf("write ledger %d: %w", h.Height, err))
		return
	}
	l.need = lsn
	l.inherited, l.locked = false, false
	l.n.closedAt.Store(time.Now().UnixMilli())
	l.n.last.Store(&lastLedger{h.Height, c.Hash, h.Time, h.Result})
	l.stuck = &c
	l.advance()
}

// advance goes on after a closed ledger, once the configuration that it agreed
// on is here.
func (l *loop) advance() {
	c := l.stuck
	if c == nil {
		return
	}
	conf := l.n.conf.Load()
	if c.Header.Outcome == consensus.Agreed && c.Header.Result.Patch != l.n.patches.inForce() {
		next, err := l.n.patches.apply(conf, c.Header.Result.Patch)
		if errors.Is(err, errNoPatch) {
			l.n.fetchPatch(c.Header.Result.Patch)
			return
		}
		if err != nil {
			l.fail(fmt.Errorf("apply the patch.cfg agreed by ledger %d: %w", c.Header.Height, err))
			return
		}
		if err := l.n.noteChange(&l.previous, consensus.Ledger{Header: c.Header, Certificate: c.Certificate}); err != nil {
			l.fail(err)
			return
		}
		l.n.adopt(conf, next)
		conf = next
	}
	l.stuck, l.previous = nil, c.Header
	taken, expired, err := l.n.content.closed(&c.Header)
	if err != nil {
		l.fail(fmt.Errorf("keep the content of ledger %d: %w", c.Header.Height, err))
		return
	}
	t := task{Close: *c, conf: conf, bundles: taken, expired: expired}
	if c.Header.StartsRun() {
		t.active = make(map[key.Public]uint64, len(conf.Contract.UNL))
		for _, m := range conf.Contract.UNL {
			t.active[m] = l.active[m]
		}
	}
	l.closed = append(l.closed, held{l.promised, t})
	l.flush()
	l.n.log.Debug("ledger closed", "seq", c.Header.Height, "hash", c.Hash.Short(), "outcome", c.Header.Outcome.String(),
		"bundles", len(c.Header.Bundles), "attempt", c.Certificate.Attempt)
	count, _ := l.n.content.pending()
	l.core.Work(l.n.now(), false)
	actions, err := l.core.Advance(l.n.now(), parameters(conf))
	if err != nil {
		l.fail(err)
		return
	}
	l.apply(actions)
	if count > 0 {
		l.apply(l.core.Work(l.n.now(), true))
	}
}

// parameters are what consensus takes from the configuration.
func parameters(c *config.Config) consensus.Params {
	members := slices.Clone(c.Contract.UNL)
	slices.SortFunc(members, key.Public.Compare)
	return consensus.Params{
		Chain:     consensus.ChainOf(c.Contract.ID),
		Members:   members,
		Threshold: max(c.Contract.Consensus.Threshold, 50),
		RoundTime: c.Contract.Consensus.Roundtime,
		PerRound:  max(c.Contract.Consensus.LedgersPerRoundtime, 1),
	}
}

// install takes a closed ledger that was fetched. It reports whether the next
// one can follow at once.
func (l *loop) install(from key.Public, x consensus.Ledger) bool {
	if l.stuck != nil {
		return false
	}
	l.apply(l.core.Receive(l.n.now(), from, &x))
	return l.stuck == nil
}

// leap goes on after a ledger that many others precede, without them. The
// caller has verified its certificate, keeps the changes of the members before
// it and has the content of its patch.cfg.
func (l *loop) leap(x consensus.Ledger) error {
	h := &x.Header
	conf := l.n.conf.Load()
	if h.Result.Patch != l.n.patches.inForce() {
		next, err := l.n.patches.apply(conf, h.Result.Patch)
		if err != nil {
			return fmt.Errorf("apply the patch.cfg agreed by ledger %d: %w", h.Height, err)
		}
		l.n.adopt(conf, next)
		conf = next
	}
	hash := h.Hash()
	lsn, err := l.n.store.StartAt(ledger.Record{
		Seq: h.Height, Hash: hash, Prev: h.Prev, Time: h.Time,
		Body: consensus.AppendLedger(nil, h, &x.Certificate),
	})
	if err != nil {
		return fmt.Errorf("write ledger %d: %w", h.Height, err)
	}
	l.need = lsn
	l.inherited, l.locked = false, false
	l.previous = *h
	l.n.closedAt.Store(time.Now().UnixMilli())
	l.n.last.Store(&lastLedger{h.Height, hash, h.Time, h.Result})
	taken, expired, err := l.n.content.closed(h)
	if err != nil {
		return fmt.Errorf("keep the content of ledger %d: %w", h.Height, err)
	}
	// A ledger between may have accepted what is pending here or has expired.
	l.n.answerLeap(h.Height, expired)
	actions, err := l.core.Reset(l.n.now(), x, parameters(conf))
	if err != nil {
		return err
	}
	l.closed = append(l.closed, held{l.need, task{Close: consensus.Close{Header: *h, Hash: hash, Certificate: x.Certificate}, conf: conf, bundles: taken}})
	l.apply(actions)
	l.flush()
	return nil
}

// validates reports whether this node is a member that takes part.
func (n *node) validates(c *config.Config) bool {
	return c.Node.Role != "observer" && slices.Contains(c.Contract.UNL, n.key.Public())
}
