package statesync

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs"
)

const (
	// maxFlight and maxReplies bound the bytes and the number of answers that are
	// under way or being stored.
	maxFlight  = 24 << 20
	maxReplies = 64
	// tickEvery is how often slow requests and the progress are looked at.
	tickEvery = 50 * time.Millisecond
	// switchAttempts bounds how often a state that looked complete is found
	// incomplete when it is put together.
	switchAttempts = 5
)

// walk is one Sync. A single goroutine, run, owns all of it; requests, the work
// on their replies and the look for what is missing run beside it and report
// back.
type walk struct {
	c       *Client
	results chan result
	storing chan struct{} // tokens of those who work on replies
	board   *board
	meter   meter
	prog    Progress
	newest  statefs.Version // to which the cluster has come
	reached statefs.Version // that was switched to
	epoch   int             // counts targets

	// Of the target.
	target  statefs.Version
	staging statefs.Staging
	store   *store
	queue   queue
	parked  []*item // no peer had them
	arrived []cursor
	look    bool // the frontier may have more
	blocked bool // but not before what it has asked for is here
	looking bool
	held    int // bytes in the frontier
	nodes   int // nodes asked for or queued

	requests map[*request]struct{}
	flight   int // bytes of requests and of replies being stored
	// working and sleepers: goroutines that will report; those that wait for the
	// end of a peer's rest.
	working, sleepers int
	retry, tick       <-chan time.Time
}

// request is a request to a peer.
type request struct {
	to     key.Public
	items  []*item
	sent   time.Time
	buf    []byte
	hold   int // bytes of memory that it takes, about
	epoch  int
	target statefs.Version
	others bool // others are asked for the same
}

// result is what a goroutine reports.
type result struct {
	epoch int
	wake  *key.Public // a resting peer may be asked again

	req      *request // a reply has come, or none
	sent     int      // bytes of the request
	bytes    int      // of the reply
	err      error
	isStored bool // and its pieces are in stored

	stored stored
	found  *found // what a look at the frontier yielded
}

func newWalk(c *Client, target statefs.Version) *walk {
	return &walk{
		c: c, newest: target, board: newBoard(c.cfg.InFlightPeer),
		results: make(chan result), requests: make(map[*request]struct{}),
		storing: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))),
	}
}

// catchUp learns of the newest target.
func (w *walk) catchUp() {
	select {
	case v := <-w.c.retarget:
		w.newest = v
	default:
	}
}

// run fetches the newest version, or a later one, into staging and switches to
// it.
func (w *walk) run(ctx context.Context, staging statefs.Staging) (statefs.Version, error) {
	ctx, cancel := context.WithCancel(ctx)
	w.staging = staging
	defer func() {
		cancel()
		for w.working+w.sleepers > 0 {
			w.drain(<-w.results)
		}
		w.store.files.closeAll()
		w.flight, w.looking, w.retry, w.tick = 0, false, nil, nil
	}()
	w.begin(w.newest)
	w.tick = w.c.cfg.After(tickEvery)
	attempts := 0
	for {
		w.explore()
		w.dispatch(ctx)
		if w.complete() {
			w.store.files.closeAll()
			w.prog.Switching = true
			w.show()
			err := w.staging.Switch(ctx, w.target, w.store.getPatch())
			w.prog.Switching = false
			if err == nil {
				w.reached = w.target
				return w.target, nil
			}
			attempts++
			if ctx.Err() != nil || !errors.Is(err, statefs.ErrNotFound) || attempts == switchAttempts {
				return w.target, err
			}
			w.c.cfg.Log.Warn("the fetched state is not complete; looking again", "error", err)
			w.begin(w.target)
			continue
		}
		select {
		case r := <-w.results:
			if err := w.take(ctx, r); err != nil {
				return w.target, err
			}
		case <-w.retry:
			w.retry = nil
			for _, it := range w.parked {
				it.refused = nil
			}
			w.queue.front(w.parked)
			w.parked = nil
		case v := <-w.c.retarget:
			w.newest = v
		case <-w.tick:
			w.tick = w.c.cfg.After(tickEvery)
			w.hurry()
		case <-ctx.Done():
			return w.target, ctx.Err()
		}
		w.show()
	}
}

// drain takes a result after the end.
func (w *walk) drain(r result) {
	if r.wake != nil {
		w.sleepers--
		w.board.of(*r.wake).resting = false
		return
	}
	if r.req != nil && !r.isStored {
		delete(w.requests, r.req)
		p := w.board.of(r.req.to)
		p.out--
		p.stalled = false
		if r.err == nil {
			return // its pieces are still to come
		}
	}
	w.working--
	if r.stored.blame != nil {
		if p := w.board.of(r.req.to); !p.banned {
			w.ban(r.req.to, p, r.stored.blame)
		}
	}
}

// begin turns to a target. What still arrives for an earlier one is kept, but
// leads to nothing further.
func (w *walk) begin(target statefs.Version) {
	if w.store != nil {
		w.store.files.closeAll()
	}
	w.epoch++
	w.target = target
	w.queue, w.parked, w.arrived, w.retry = queue{}, nil, nil, nil
	w.look, w.blocked, w.looking, w.held, w.nodes = true, false, false, 0, 0
	coming := &hashSet{}
	base := w.c.cfg.State.Agreed()
	w.store = &store{
		staging: w.staging, coming: coming, files: &fileSet{},
		frontier: newFrontier(w.staging, coming, target.Root, base.Root),
	}
	w.store.local, _ = w.c.cfg.State.(Source)
	w.meter.restart()
	w.prog.Target, w.prog.TotalBytes, w.prog.TotalEntries, w.prog.DoneBytes, w.prog.DoneEntries = target, 0, 0, 0, 0
	if target.Patch.IsZero() {
		return
	}
	if mine := w.c.cfg.State.Patch(); mine != nil && statefs.HashPatch(mine) == target.Patch {
		w.store.setPatch(mine)
		return
	}
	w.queue.add(&item{Ref: statefs.Ref{Kind: statefs.RefPatch, Hash: target.Patch}, expect: 4 << 10, epoch: w.epoch})
}

// complete reports whether nothing is missing any more.
func (w *walk) complete() bool {
	if w.look || w.looking || len(w.arrived) > 0 || w.queue.len() > 0 || len(w.parked) > 0 {
		return false
	}
	// What others were asked for as well may still be under way.
	if w.nodes > 0 {
		return false
	}
	for r := range w.requests {
		if r.epoch != w.epoch {
			continue
		}
		for _, it := range r.items {
			if !it.stored.Load() {
				return false
			}
		}
	}
	return w.busy() == 0
}

// busy counts the replies of this target that are being worked on.
func (w *walk) busy() int { return w.working - len(w.requests) - w.lookers() }

func (w *walk) lookers() int {
	if w.looking {
		return 1
	}
	return 0
}

// explore looks for more that is missing when little is known to be.
func (w *walk) explore() {
	if w.looking || !w.look && len(w.arrived) == 0 {
		return
	}
	want, nodes := maxQueue-w.queue.len(), maxNodes-w.nodes
	if len(w.arrived) == 0 && (w.blocked || want < maxQueue/4) {
		return
	}
	if w.held > maxHeld && w.nodes > 0 {
		nodes = 0
	}
	arrived, epoch, f := w.arrived, w.epoch, w.store.frontier
	w.arrived, w.looking = nil, true
	w.working++
	go func() {
		r := result{epoch: epoch}
		x, err := f.next(arrived, max(want, 0), max(nodes, 0))
		r.found, r.stored.fatal = &x, err
		w.results <- r
	}()
}

// take applies a result.
func (w *walk) take(ctx context.Context, r result) error {
	switch {
	case r.wake != nil:
		w.sleepers--
		w.board.of(*r.wake).resting = false
		return nil
	case r.found != nil:
		w.working--
		if r.epoch != w.epoch {
			return nil
		}
		w.looking = false
		if r.stored.fatal != nil {
			return r.stored.fatal
		}
		w.discovered(r.found)
		return nil
	case !r.isStored:
		w.replied(ctx, r)
		return nil
	}
	w.working--
	w.flight -= r.req.hold
	return w.kept(r)
}

// discovered takes what a look at the frontier yielded.
func (w *walk) discovered(x *found) {
	w.look, w.held = !x.end, x.held
	w.blocked = x.blocked
	w.prog.DoneBytes += x.done
	w.prog.DoneEntries += x.entries
	for _, it := range x.items {
		it.epoch = w.epoch
		if it.node() {
			w.nodes++
		}
		w.queue.add(it)
	}
}

// replied learns from a reply, or from the lack of one.
func (w *walk) replied(ctx context.Context, r result) {
	now := w.c.cfg.Now()
	delete(w.requests, r.req)
	p := w.board.of(r.req.to)
	p.out--
	w.prog.SentBytes += uint64(r.sent)
	if r.err == nil {
		p.answered(r.bytes, now.Sub(r.req.sent), now)
		w.prog.FetchedBytes += uint64(r.bytes)
		if hold := max(r.bytes, cap(r.req.buf)); hold != r.req.hold {
			w.flight += hold - r.req.hold
			r.req.hold = hold
		}
		return
	}
	w.working--
	w.flight -= r.req.hold
	if errors.Is(r.err, errMalformed) {
		w.ban(r.req.to, p, r.err)
	} else {
		w.rest(ctx, r.req.to, p)
	}
	if r.req.epoch == w.epoch && !r.req.others {
		w.again(r.req.items)
	}
}

// kept takes what became of the pieces of a reply.
func (w *walk) kept(r result) error {
	s, p := &r.stored, w.board.of(r.req.to)
	if s.blame != nil && !p.banned {
		w.ban(r.req.to, p, s.blame)
	}
	p.badDeltas += s.deltas
	w.prog.FetchedPieces += s.pieces
	if r.epoch != w.epoch {
		return nil
	}
	if s.fatal != nil {
		return s.fatal
	}
	if w.nodes -= s.nodes; s.nodes > 0 {
		w.blocked = false
	}
	w.prog.DoneBytes += s.bytes
	w.arrived = append(w.arrived, s.cursors...)
	if w.prog.TotalEntries == 0 {
		w.size()
	}
	for _, it := range s.refused {
		it.refused = append(it.refused, r.req.to)
		w.prog.Refused++
	}
	w.again(s.refused)
	w.again(s.again)
	return nil
}

// size learns how large the wanted state is.
func (w *walk) size() {
	if data, ok := w.staging.Node(w.target.Root); ok {
		if l, err := statefs.DecodeDir(data); err == nil {
			w.prog.TotalBytes, w.prog.TotalEntries = l.Bytes, l.Entries
		}
	}
}

// again asks for items once more.
func (w *walk) again(items []*item) {
	w.queue.front(items)
}

func (w *walk) ban(id key.Public, p *peer, reason error) {
	p.banned = true
	w.c.cfg.Log.Warn("a peer sent wrong state data and is not asked again", "peer", id, "error", reason)
	w.c.cfg.Blame(id, reason)
}

// maxRest bounds for how many times Retry a failing peer is left alone.
const maxRest = 32

// rest leaves a peer alone for a while after a failed request.
func (w *walk) rest(ctx context.Context, id key.Public, p *peer) {
	p.failures++
	p.window = 1
	p.stalled = false
	if p.resting {
		return
	}
	p.resting = true
	wait := w.c.cfg.After(w.c.cfg.Retry * time.Duration(min(maxRest, 1<<min(p.failures-1, 8))))
	w.sleepers++
	go func() {
		select {
		case <-wait:
		case <-ctx.Done():
		}
		w.results <- result{wake: &id}
	}()
}

// hurry asks others for what a peer is slow with.
func (w *walk) hurry() {
	now := w.c.cfg.Now()
	for r := range w.requests {
		if r.others || r.epoch != w.epoch {
			continue
		}
		p := w.board.of(r.to)
		age := now.Sub(r.sent)
		if age < p.patience() && !(age > asked && w.queue.len() == 0 && !w.look) {
			continue
		}
		if age > p.patience() {
			p.slow()
		}
		r.others = true
		w.queue.front(r.items)
	}
	w.queue.drop(func(*item) bool { return false })
}

// dispatch sends requests while there is something to ask and somebody to ask.
func (w *walk) dispatch(ctx context.Context) {
	if w.queue.len() > 0 {
		known := w.c.cfg.Peers()
		for w.queue.len() > 0 && len(w.requests) < w.c.cfg.InFlight && w.flight < maxFlight && w.working < maxReplies {
			id, p := w.board.choose(known)
			if p == nil {
				break
			}
			items, expect := w.queue.pop(id, p.budget(), w.c.cfg.InFlight-len(w.requests))
			if len(items) == 0 {
				p.dry = true // it has refused everything that is left
				continue
			}
			r := &request{to: id, items: items, sent: w.c.cfg.Now(), epoch: w.epoch, target: w.target}
			r.buf, r.hold = w.c.buffer(expect)
			p.out++
			w.requests[r] = struct{}{}
			w.flight += r.hold
			w.working++
			go w.fetch(ctx, r, w.store, p.badDeltas >= maxBadDeltas)
		}
		for _, p := range w.board.peers {
			p.dry = false
		}
		w.park(known)
	}
	if w.retry == nil && (len(w.parked) > 0 || w.queue.len() > 0 && len(w.requests) == 0) {
		w.retry = w.c.cfg.After(w.c.cfg.Retry)
	}
}

// park sets aside what every peer that can be asked has refused. If the cluster
// has moved on meanwhile, so does this.
func (w *walk) park(known []key.Public) {
	if w.queue.len() == 0 || len(w.requests) > 0 {
		return
	}
	w.parked = append(w.parked, w.queue.drop(func(it *item) bool {
		for _, id := range known {
			if !w.board.of(id).banned && !slices.Contains(it.refused, id) {
				return false
			}
		}
		return true
	})...)
	if len(w.parked) > 0 && len(known) > 0 && w.newest != w.target {
		w.c.cfg.Log.Debug("the peers no longer have the wanted state", "wanted", w.target, "now", w.newest)
		w.begin(w.newest)
	}
}

// fetch asks one peer and works on the answers.
func (w *walk) fetch(ctx context.Context, r *request, s *store, whole bool) {
	questions := make([]question, len(r.items))
	size := 0
	for i, it := range r.items {
		q := s.question(ctx, it, whole || size > MaxRequest/2)
		size += q.requestSize()
		questions[i] = q
	}
	payload := encodeRequest(r.target.Root, questions)
	answers, reply, err := w.c.ask(ctx, r.to, payload, len(questions), r.buf)
	w.results <- result{epoch: r.epoch, req: r, sent: len(payload), bytes: len(reply), err: err}
	if err != nil {
		return
	}
	w.storing <- struct{}{}
	kept := s.take(ctx, r.items, questions, answers, reply)
	<-w.storing
	w.c.recycle(reply)
	w.results <- result{epoch: r.epoch, req: r, isStored: true, stored: kept}
}

// show tells how far it is.
func (w *walk) show() {
	now := w.c.cfg.Now()
	p := &w.prog
	p.Waiting = w.queue.len() + len(w.parked)
	p.Peers = w.board.active(now)
	p.Rate, p.Left = w.meter.at(now, p)
	w.c.cfg.Progress(*p)
}

// queue is what is to be asked for: folders and lists first, because they lead
// to more.
type queue struct {
	nodes, data []*item
}

func (q *queue) len() int { return len(q.nodes) + len(q.data) }

func (q *queue) add(it *item) {
	if it.node() {
		q.nodes = append(q.nodes, it)
	} else {
		q.data = append(q.data, it)
	}
}

// front puts back what is wanted soonest, unless it has arrived meanwhile.
func (q *queue) front(items []*item) {
	var nodes, data []*item
	for _, it := range items {
		switch {
		case it.stored.Load():
		case it.node():
			nodes = append(nodes, it)
		default:
			data = append(data, it)
		}
	}
	if nodes != nil {
		q.nodes = append(nodes, q.nodes...)
	}
	if data != nil {
		q.data = append(data, q.data...)
	}
}

// pop takes items for a peer off the queue: of what it has not refused about
// budget bytes, and no more of the items than one of share requests would get.
func (q *queue) pop(id key.Public, budget, share int) ([]*item, int) {
	if items, n := take(&q.nodes, id, budget, share); len(items) > 0 {
		return items, n
	}
	return take(&q.data, id, budget, share)
}

// lookBack is how deep into the queue take looks for pieces that a peer has not
// refused.
const lookBack = maxRefs

func take(list *[]*item, id key.Public, budget, share int) (items []*item, expect int) {
	l := *list
	limit := min(maxRefs, max(1, (len(l)+share-1)/share))
	var kept []*item
	path, i := 0, 0
	for ; i < len(l) && len(items) < limit && len(kept) < lookBack; i++ {
		it := l[i]
		if it.stored.Load() {
			continue
		}
		if slices.Contains(it.refused, id) {
			kept = append(kept, it)
			continue
		}
		if len(items) > 0 && (expect+it.expect > budget || path+len(it.Path) > MaxRequest/4) {
			break
		}
		expect += it.expect
		path += len(it.Path)
		items = append(items, it)
	}
	l = l[i:]
	if len(kept) > 0 {
		l = append(kept, l...)
	}
	*list = l
	return items, expect
}

// drop removes the items for which f is true and returns them.
func (q *queue) drop(f func(*item) bool) (out []*item) {
	for _, list := range []*[]*item{&q.nodes, &q.data} {
		*list = slices.DeleteFunc(*list, func(it *item) bool {
			if it.stored.Load() {
				return true
			}
			if f(it) {
				out = append(out, it)
				return true
			}
			return false
		})
	}
	return out
}
