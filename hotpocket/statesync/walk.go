package statesync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

// walk is one Sync. A single goroutine, run, owns the queue and the peers;
// requests, and the work on their replies, run beside it and report back.
type walk struct {
	c       *Client
	staging statefs.Staging
	results chan result

	target statefs.Version
	epoch  int    // counts targets
	queue  []item // a stack: what was found last is fetched first
	parked []item // no peer had them
	retry  <-chan time.Time
	// working, requests, sleepers: goroutines that will report; those among
	// working that ask a peer; those that wait for the end of a peer's rest.
	working, requests, sleepers int
	peers                       map[key.Public]*peer
	turn                        int // rotates the choice among equal peers
	prog                        Progress

	patch *patchSlot
	files *fileSet
	seen  *hashSet
}

// item is a piece to fetch.
type item struct {
	ref     statefs.Ref
	size    uint64 // of the file
	expect  int    // bytes of the answer, about
	file    *file  // RefData of a file with several groups
	refused []key.Public
}

type peer struct {
	inFlight int
	banned   bool
	resting  bool
	dry      bool // within dispatch: nothing left to ask it
	failures int
}

// result is what a goroutine reports.
type result struct {
	epoch   int
	from    *key.Public // nil: local work
	err     error       // the request failed
	blame   error       // the peer answered wrongly
	fatal   error       // nothing a peer can be blamed for
	more    []item      // newly found
	again   []item      // to be asked again, from anybody
	refused []item      // the peer does not have them
	bytes   uint64
	pieces  uint64
	wake    bool // a resting peer may be asked again
}

// patchSlot takes the wanted patch.cfg.
type patchSlot struct {
	mu      sync.Mutex
	content []byte
}

func (p *patchSlot) set(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.content = slices.Clone(b)
}

func (p *patchSlot) get() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.content
}

func newWalk(c *Client, s statefs.Staging) *walk {
	return &walk{c: c, staging: s, results: make(chan result), peers: make(map[key.Public]*peer)}
}

// switchAttempts bounds how often a state that looked complete is found
// incomplete when it is put together.
const switchAttempts = 5

func (w *walk) run(ctx context.Context, target statefs.Version) (statefs.Version, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for range w.working + w.sleepers {
			<-w.results
		}
		w.files.closeAll()
	}()
	w.begin(ctx, target)
	attempts := 0
	for {
		w.dispatch(ctx)
		if w.working == 0 && len(w.queue) == 0 && len(w.parked) == 0 {
			w.files.closeAll()
			err := w.staging.Switch(ctx, w.target, w.patch.get())
			if err == nil {
				return w.target, nil
			}
			attempts++
			if ctx.Err() != nil || !errors.Is(err, statefs.ErrNotFound) || attempts == switchAttempts {
				return w.target, err
			}
			w.c.cfg.Log.Warn("the fetched state is not complete; looking again", "error", err)
			w.begin(ctx, w.target)
			continue
		}
		select {
		case r := <-w.results:
			if err := w.take(ctx, r); err != nil {
				return w.target, err
			}
		case <-w.retry:
			w.retry = nil
			for i := range w.parked {
				w.parked[i].refused = nil
			}
			w.queue = append(w.queue, w.parked...)
			w.parked = nil
		case v := <-w.c.retarget:
			if v != w.target {
				w.begin(ctx, v)
			}
		case <-ctx.Done():
			return w.target, ctx.Err()
		}
		w.prog.Waiting = len(w.queue) + len(w.parked)
		w.c.cfg.Progress(w.prog)
	}
}

// begin turns to a target. What still arrives for an earlier one is kept, but
// leads to nothing further.
func (w *walk) begin(ctx context.Context, target statefs.Version) {
	if w.files != nil {
		w.files.closeAll()
	}
	w.epoch++
	w.target = target
	w.queue, w.parked, w.retry = nil, nil, nil
	w.patch, w.files, w.seen = &patchSlot{}, &fileSet{}, &hashSet{}
	w.prog.Target, w.prog.TotalBytes, w.prog.TotalEntries = target, 0, 0
	if !target.Patch.IsZero() {
		if mine := w.c.cfg.State.Patch(); mine != nil && statefs.HashPatch(mine) == target.Patch {
			w.patch.set(mine)
		} else {
			w.queue = append(w.queue, item{ref: statefs.Ref{Kind: statefs.RefPatch, Hash: target.Patch}, expect: 4 << 10})
		}
	}
	w.goOn(func(e explorer) (r result) {
		r.fatal = e.dir("", target.Root, &r.more)
		return r
	})
}

// goOn does local work beside the loop.
func (w *walk) goOn(work func(explorer) result) {
	e := explorer{staging: w.staging, seen: w.seen}
	epoch := w.epoch
	w.working++
	go func() {
		r := work(e)
		r.epoch = epoch
		w.results <- r
	}()
}

// take applies a result.
func (w *walk) take(ctx context.Context, r result) error {
	if r.wake {
		w.sleepers--
		w.peers[*r.from].resting = false
		return nil
	}
	w.working--
	if r.from != nil {
		w.requests--
		p := w.peers[*r.from]
		p.inFlight--
		switch {
		case r.blame != nil:
			p.banned = true
			w.c.cfg.Log.Warn("a peer sent wrong state data and is not asked again", "peer", *r.from, "error", r.blame)
			w.c.cfg.Blame(*r.from, r.blame)
		case r.err != nil:
			w.rest(ctx, *r.from, p)
		default:
			p.failures = 0
		}
	}
	w.prog.FetchedBytes += r.bytes
	w.prog.FetchedPieces += r.pieces
	if r.epoch != w.epoch {
		return nil
	}
	if r.fatal != nil {
		return r.fatal
	}
	if w.prog.TotalEntries == 0 {
		if data, ok := w.staging.Node(w.target.Root); ok {
			if l, err := statefs.DecodeDir(data); err == nil {
				w.prog.TotalBytes, w.prog.TotalEntries = l.Bytes, l.Entries
			}
		}
	}
	for _, it := range r.refused {
		it.refused = append(slices.Clip(it.refused), *r.from)
		w.queue = append(w.queue, it)
		w.prog.Refused++
	}
	w.queue = append(w.queue, r.again...)
	w.queue = append(w.queue, r.more...)
	return nil
}

// maxRest bounds for how many times Retry a failing peer is left alone.
const maxRest = 32

// rest leaves a peer alone for a while after a failed request.
func (w *walk) rest(ctx context.Context, id key.Public, p *peer) {
	p.failures++
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
		w.results <- result{wake: true, from: &id}
	}()
}

// dispatch sends requests while there is something to ask and somebody to ask.
func (w *walk) dispatch(ctx context.Context) {
	if len(w.queue) == 0 {
		w.pause()
		return
	}
	known := w.c.cfg.Peers()
	for len(w.queue) > 0 && w.requests < w.c.cfg.InFlight {
		id, p, ok := w.choose(known)
		if !ok {
			break
		}
		free := w.c.cfg.InFlight - w.requests
		items := w.pop(id, max(1, len(w.queue)/free))
		if len(items) == 0 {
			p.dry = true // it has refused everything that is left
			continue
		}
		p.inFlight++
		w.requests++
		w.working++
		go w.fetch(ctx, id, items, w.epoch, explorer{w.staging, w.seen}, w.files, w.patch)
	}
	for _, p := range w.peers {
		p.dry = false
	}
	w.park(known)
	w.pause()
}

// choose returns the peer with the fewest requests out that may be asked.
func (w *walk) choose(known []key.Public) (best key.Public, found *peer, ok bool) {
	w.turn++
	for i := range known {
		id := known[(i+w.turn)%len(known)]
		p := w.peers[id]
		if p == nil {
			p = &peer{}
			w.peers[id] = p
		}
		if p.banned || p.resting || p.dry || p.inFlight >= w.c.cfg.InFlightPeer {
			continue
		}
		if found == nil || p.inFlight < found.inFlight {
			best, found = id, p
		}
	}
	return best, found, found != nil
}

// lookBack is how deep into the queue pop looks for pieces that a peer has not
// refused.
const lookBack = 4 * maxRefs

// pop takes up to limit items for a peer off the queue, together about a full
// reply.
func (w *walk) pop(id key.Public, limit int) []item {
	limit = min(limit, maxRefs)
	var items, kept []item
	expect := 0
	i := len(w.queue)
	for ; i > 0 && len(items) < limit && len(kept) < lookBack; i-- {
		it := w.queue[i-1]
		if slices.Contains(it.refused, id) {
			kept = append(kept, it)
			continue
		}
		if len(items) > 0 && expect+it.expect > softReply {
			break
		}
		expect += it.expect
		items = append(items, it)
	}
	w.queue = w.queue[:i]
	slices.Reverse(kept)
	w.queue = append(w.queue, kept...)
	return items
}

// park sets aside what every peer that can be asked has refused.
func (w *walk) park(known []key.Public) {
	if len(w.queue) == 0 || w.requests > 0 {
		return
	}
	kept := w.queue[:0]
	for _, it := range w.queue {
		somebody := false
		for _, id := range known {
			p := w.peers[id]
			somebody = somebody || (p == nil || !p.banned) && !slices.Contains(it.refused, id)
		}
		if somebody {
			kept = append(kept, it)
		} else {
			w.parked = append(w.parked, it)
		}
	}
	w.queue = kept
}

// pause sets the timer for another attempt when nothing else will wake the loop
// or something is parked.
func (w *walk) pause() {
	if w.retry != nil {
		return
	}
	if len(w.parked) > 0 || len(w.queue) > 0 && w.requests == 0 {
		w.retry = w.c.cfg.After(w.c.cfg.Retry)
	}
}

// fetch asks one peer and works on the answers.
func (w *walk) fetch(ctx context.Context, id key.Public, items []item, epoch int, e explorer, files *fileSet, patch *patchSlot) {
	r := result{epoch: epoch, from: &id}
	defer func() { w.results <- r }()
	refs := make([]statefs.Ref, len(items))
	for i := range items {
		refs[i] = items[i].ref
	}
	answers, err := w.c.ask(ctx, id, encodeRequest(refs), len(refs))
	if err != nil {
		r.again = items
		if errors.Is(err, errMalformed) {
			r.blame = err
		} else {
			r.err = err
		}
		return
	}
	for i, a := range answers {
		it := items[i]
		switch {
		case r.blame != nil || a.status == statusLater:
			r.again = append(r.again, it)
			continue
		case a.status == statusMissing:
			r.refused = append(r.refused, it)
			continue
		}
		err := receive(ctx, it, a.data, e, files, patch, &r.more)
		switch {
		case errors.Is(err, statefs.ErrMismatch):
			r.blame = fmt.Errorf("%s of %q: %w", it.ref.Hash.Short(), it.ref.Path, err)
			r.again = append(r.again, it)
		case err != nil:
			r.fatal = err
			return
		default:
			r.pieces++
			r.bytes += uint64(len(a.data))
		}
	}
}

// receive checks and keeps one piece, and appends what it shows to be missing.
func receive(ctx context.Context, it item, data []byte, e explorer, files *fileSet, patch *patchSlot, more *[]item) error {
	ref := it.ref
	switch ref.Kind {
	case statefs.RefDir:
		if err := e.staging.PutNode(ref.Kind, ref.Hash, data); err != nil {
			return err
		}
		return e.dir(ref.Path, ref.Hash, more)
	case statefs.RefPage:
		if err := e.staging.PutNode(ref.Kind, ref.Hash, data); err != nil {
			return err
		}
		return e.page(ref.Path, ref.Hash, more)
	case statefs.RefPatch:
		if len(data) > statefs.MaxPatch || statefs.HashPatch(data) != ref.Hash {
			return statefs.ErrMismatch
		}
		patch.set(data)
		return nil
	case statefs.RefList:
		staged, err := e.staging.OpenFile(ctx, ref.Path, it.size, ref.Hash, data)
		if err != nil {
			return err
		}
		missing := staged.Missing()
		if len(missing) == 0 {
			return staged.Close()
		}
		f := &file{staged: staged}
		f.left.Store(int64(len(missing)))
		group, _ := statefs.Groups(it.size)
		for _, i := range slices.Backward(missing) { // the queue is a stack
			*more = append(*more, item{
				ref:    statefs.Ref{Kind: statefs.RefData, Path: ref.Path, Hash: ref.Hash, Index: i},
				size:   it.size,
				expect: int(group),
				file:   f,
			})
		}
		return files.add(f)
	case statefs.RefData:
		if it.file != nil {
			return it.file.put(ref.Index, data)
		}
		if uint64(len(data)) != it.size {
			return statefs.ErrMismatch
		}
		return e.staging.PutFile(ref.Hash, data)
	}
	return fmt.Errorf("unknown kind %d", ref.Kind)
}

// explorer looks through what is known of a tree for what is missing. It runs
// beside the loop.
type explorer struct {
	staging statefs.Staging
	seen    *hashSet
}

// dir appends what is missing of the folder at path.
func (e explorer) dir(path string, hash digest.Hash, more *[]item) error {
	if strings.Count(path, "/") > statefs.MaxDepth {
		return fmt.Errorf("%s: folders are nested deeper than %d", path, statefs.MaxDepth)
	}
	if e.staging.HasTree(path, hash) {
		return nil
	}
	data, ok := e.staging.Node(hash)
	if !ok {
		*more = append(*more, item{ref: statefs.Ref{Kind: statefs.RefDir, Path: path, Hash: hash}, expect: 4 << 10})
		return nil
	}
	l, err := statefs.DecodeDir(data)
	if err != nil {
		return fmt.Errorf("folder %q: %w", path, err)
	}
	for _, h := range l.Pages {
		if err := e.page(path, h, more); err != nil {
			return err
		}
	}
	return e.entries(path, l.Inline, more)
}

// page appends what is missing of one page of the folder at path.
func (e explorer) page(path string, hash digest.Hash, more *[]item) error {
	data, ok := e.staging.Node(hash)
	if !ok {
		*more = append(*more, item{ref: statefs.Ref{Kind: statefs.RefPage, Path: path, Hash: hash}, expect: 24 << 10})
		return nil
	}
	entries, err := statefs.DecodePage(data)
	if err != nil {
		return fmt.Errorf("folder %q: %w", path, err)
	}
	return e.entries(path, entries, more)
}

func (e explorer) entries(path string, entries []statefs.Entry, more *[]item) error {
	for _, n := range entries {
		full := n.Name
		if path != "" {
			full = path + "/" + n.Name
		}
		switch n.Kind {
		case statefs.KindDir:
			if err := e.dir(full, n.Hash, more); err != nil {
				return err
			}
		case statefs.KindFile:
			if e.staging.HasFile(n.Hash) || !e.seen.add(n.Hash) {
				continue
			}
			it := item{ref: statefs.Ref{Kind: statefs.RefData, Path: full, Hash: n.Hash}, size: n.Size, expect: int(n.Size)}
			if _, count := statefs.Groups(n.Size); count > 1 {
				it.ref.Kind, it.expect = statefs.RefList, count*digest.Size
			}
			*more = append(*more, it)
		}
	}
	return nil
}

// hashSet remembers which contents are being fetched: the same file may have
// many names.
type hashSet struct {
	mu sync.Mutex
	m  map[digest.Hash]struct{}
}

func (s *hashSet) add(h digest.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.m[h]; ok {
		return false
	}
	if s.m == nil {
		s.m = make(map[digest.Hash]struct{})
	}
	s.m[h] = struct{}{}
	return true
}

// file is a file of several groups on its way.
type file struct {
	mu     sync.RWMutex // read-held while a group is written
	staged statefs.StagedFile
	closed bool
	left   atomic.Int64
}

// put adds a group and closes the file after the last. Groups that come after
// the sync has turned away are dropped.
func (f *file) put(index uint32, data []byte) error {
	f.mu.RLock()
	if f.closed {
		f.mu.RUnlock()
		return nil
	}
	err := f.staged.Put(index, data)
	f.mu.RUnlock()
	if err == nil && f.left.Add(-1) == 0 {
		err = f.close()
	}
	return err
}

func (f *file) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.staged.Close()
}

// fileSet knows the files that may be open.
type fileSet struct {
	mu     sync.Mutex
	open   map[*file]struct{}
	closed bool
}

// add takes over f; it is closed at once when the set is.
func (s *fileSet) add(f *file) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return f.close()
	}
	if s.open == nil {
		s.open = make(map[*file]struct{})
	}
	s.open[f] = struct{}{}
	for o := range s.open {
		if o != f && o.left.Load() == 0 {
			delete(s.open, o)
		}
	}
	return nil
}

func (s *fileSet) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for f := range s.open {
		f.close()
	}
	s.open = nil
}
