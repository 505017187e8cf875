package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// Volume is an open volume. Its methods may be called from any goroutine.
type Volume struct {
	cfg   Config
	log   *slog.Logger
	lock  *os.File
	store *store
	tlog  *treeLog
	boot  string

	values  valueCache
	nextIno atomic.Uint64
	lastKey atomic.Uint64
	runID   atomic.Uint64
	// open4Writing is writable, for a look without mu.
	open4Writing atomic.Bool

	// cachesAll says that the disk's file system cannot write past the page cache.
	cachesAll atomic.Bool

	// op is held by whatever moves the volume from one state to the next:
	// Begin, End, Commit, Rollback, SetPatch, a Staging's Switch, Close. It is
	// taken before a file's io and before mu.
	op     sync.Mutex
	closed bool // guarded by op

	// mu guards the working tree and what follows. Nothing slow happens under
	// it.
	mu       sync.RWMutex
	live     map[Ino]*inode
	root     *inode
	run      *run
	writable bool
	damaged  bool
	hot      map[Ino]bool
	claims   claims
	// lastClosed is closed when a file's last File is closed, if somebody waits.
	lastClosed chan struct{}
	agreed     *version
	kept       []*version // earlier versions that are still at hand, oldest first
	dead       []corpse
	stage      *stageStore

	sweep   sweeper
	flush   flusher
	fold    folder
	packs   packs
	scratch scratches
}

// version is an agreed version.
type version struct {
	statefs.Version
	ord   uint64 // 1, 2, 3... since the volume was opened
	root  *node
	patch []byte
	// objects with larger numbers are not part of it.
	lastObj uint64
	// end is where the log stands behind its commit.
	end     int64 // a position, not an offset
	durable bool
	pins    int
	served  time.Time // last request of a peer
}

// corpse is an object that versions from died on do not need.
type corpse struct {
	id   uint64
	size uint64
	died uint64
}

// run is the open run.
type run struct {
	id      uint64
	seq     uint64
	touched []*inode
	ended   bool
	root    *node // of the ended run
	logged  bool  // the log has what it changed
}

const (
	// keepRecent is how many earlier versions are kept for peers.
	keepRecent = 3
	// keepServed is for how long a version that a peer has begun to fetch is
	// kept after its last request, and keepServedMax how many of them.
	keepServed    = 15 * time.Second
	keepServedMax = 2
	// closeGrace is how long End waits for files to be closed that a process
	// has just let go of by exiting: the kernel tells with a delay.
	closeGrace = 100 * time.Millisecond
)

// Open opens the volume in cfg.Dir or makes a new one, and brings it to the
// agreed version, whatever happened before. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (_ *Volume, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	v := &Volume{
		cfg: cfg, log: cfg.Log, live: make(map[Ino]*inode), hot: make(map[Ino]bool),
		claims: claims{live: make(map[uint64]int), views: make(map[uint64]int)},
	}
	defer func() {
		if err != nil {
			v.release()
			err = fmt.Errorf("open volume in %s: %w", cfg.Dir, err)
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if v.lock, err = os.OpenFile(filepath.Join(cfg.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(v.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("it is in use by another process: %w", err)
	}
	if v.store, err = openStore(filepath.Join(cfg.Dir, "objects")); err != nil {
		return nil, err
	}
	if v.boot = cfg.boot; v.boot == "" {
		v.boot = statefs.BootID()
	}
	v.sweep.start(v)
	v.scratch.start(v)
	if err := v.recover(ctx); err != nil {
		return nil, err
	}
	err = v.note(recBoot, []byte(v.boot))
	if full(err) && v.makeRoom() {
		err = v.note(recBoot, []byte(v.boot))
	}
	if err != nil {
		return nil, err
	}
	// From here on what is on disk counts as unproven after a power failure;
	// that must be on disk before anything changes.
	if err := v.tlog.sync(); err != nil {
		return nil, err
	}
	v.fold.start(v)
	v.flush.start(v)
	return v, nil
}

func (v *Volume) note(kind byte, payload []byte) error {
	_, err := v.tlog.append(func(b *batch) { b.add(kind, payload) })
	return err
}

func (v *Volume) release() {
	v.flush.stop()
	v.fold.stop()
	v.sweep.stop()
	v.scratch.close()
	v.packs.close()
	if v.stage != nil && v.stage.f != nil {
		if err := v.stage.close(); err != nil {
			v.log.Warn("cannot keep what was fetched", "error", err)
		}
	}
	if v.tlog != nil && v.tlog.f != nil {
		v.tlog.f.Close()
	}
	if v.store != nil {
		v.store.close()
	}
	if v.lock != nil {
		v.lock.Close()
	}
}

func (v *Volume) step(name string) {
	if v.cfg.failpoint != nil {
		v.cfg.failpoint(name)
	}
}

// enterOp takes op for one step of the volume.
func (v *Volume) enterOp() error {
	v.op.Lock()
	if v.closed {
		v.op.Unlock()
		return os.ErrClosed
	}
	return nil
}

// Close ends what is open and makes everything durable. An open run is undone.
func (v *Volume) Close() error {
	v.op.Lock()
	defer v.op.Unlock()
	if v.closed {
		return nil
	}
	// A run that has ended stays on disk: it may yet be confirmed.
	if v.run != nil && !v.run.ended {
		if _, err := v.rollback(); err != nil {
			v.log.Error("the open run is undone at the next start", "error", err)
		}
	}
	v.closed = true
	v.mu.Lock()
	v.writable = false
	v.open4Writing.Store(false)
	v.mu.Unlock()
	v.flush.stop()
	v.fold.stop()
	err := v.flushOnce()
	if err == nil {
		v.step("before the clean mark")
		if err = v.note(recClean, nil); err == nil {
			err = v.tlog.sync()
		}
	}
	v.release()
	if err != nil {
		return fmt.Errorf("close volume: %w", err)
	}
	return nil
}

// Agreed returns the last agreed version.
func (v *Volume) Agreed() statefs.Version {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.agreed.Version
}

// Damaged reports whether the agreed version is incomplete on disk.
func (v *Volume) Damaged() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.damaged
}

// Patch returns the agreed patch.cfg, nil when there is none.
func (v *Volume) Patch() []byte {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.agreed.patch
}

// SetPatch replaces the agreed patch.cfg outside of any run and returns its
// hash.
func (v *Volume) SetPatch(ctx context.Context, content []byte) (digest.Hash, error) {
	if len(content) > statefs.MaxPatch {
		return digest.Hash{}, fmt.Errorf("patch.cfg of %d bytes, at most %d are allowed", len(content), statefs.MaxPatch)
	}
	if err := v.enterOp(); err != nil {
		return digest.Hash{}, fmt.Errorf("set patch.cfg: %w", err)
	}
	defer v.op.Unlock()
	h := statefs.HashPatch(content)
	switch {
	case v.run != nil:
		return digest.Hash{}, fmt.Errorf("set patch.cfg: %w", statefs.ErrBusy)
	case v.damaged:
		return digest.Hash{}, fmt.Errorf("set patch.cfg: %w", statefs.ErrDamaged)
	case v.agreed.Patch == h:
		return h, nil
	}
	next := statefs.Version{Seq: v.agreed.Seq, Root: v.agreed.Root, Patch: h}
	if err := v.adopt(next, bytes.Clone(append([]byte{}, content...)), v.agreed.root, false); err != nil {
		return digest.Hash{}, fmt.Errorf("set patch.cfg: %w", err)
	}
	return h, nil
}

// adopt writes that a version is agreed and makes it so. The caller holds op.
func (v *Volume) adopt(next statefs.Version, patch []byte, root *node, ended bool) error {
	v.step("before the commit record")
	c := commitRecord{ended: ended, v: next, patch: patch}
	write := func(b *batch) { b.add(recCommit, c.encode()) }
	end, err := v.tlog.append(write)
	if full(err) && v.makeRoom() {
		end, err = v.tlog.append(write)
	}
	if err != nil {
		return err
	}
	v.step("commit record written")
	v.mu.Lock()
	v.became(&version{Version: next, root: root, patch: patch, end: end})
	v.mu.Unlock()
	v.flush.wake()
	return nil
}

// became makes a version the agreed one. The caller holds mu.
func (v *Volume) became(next *version) {
	next.lastObj = v.store.next.Load()
	if old := v.agreed; old != nil {
		next.ord = old.ord + 1
		v.kept = append(v.kept, old)
	} else {
		next.ord = 1
	}
	v.agreed = next
	v.forgetVersions()
}

// forgetVersions lets go of versions that nobody needs, and of the objects that
// only they had. The caller holds mu.
func (v *Volume) forgetVersions() {
	now := time.Now()
	served := 0
	var kept []*version
	// Down to the newest durable version everything is kept: that is what a
	// power failure leaves.
	durable := v.agreed.durable
	for i := len(v.kept) - 1; i >= 0; i-- {
		k := v.kept[i]
		keep := k.pins > 0 || len(v.kept)-i <= keepRecent || !durable
		if !keep && now.Sub(k.served) < keepServed && served < keepServedMax {
			keep = true
			served++
		}
		durable = durable || k.durable
		if keep {
			kept = append(kept, k)
		}
	}
	for i, j := 0, len(kept)-1; i < j; i, j = i+1, j-1 {
		kept[i], kept[j] = kept[j], kept[i]
	}
	v.kept = kept
	var still []corpse
	for _, c := range v.dead {
		needed := false
		for _, k := range v.kept {
			if k.ord < c.died && (packed(c.id) || c.id <= k.lastObj) {
				needed = true
				break
			}
		}
		if needed {
			still = append(still, c)
		} else {
			v.reap(c.id, c.size)
		}
	}
	v.dead = still
}

// Begin opens the working tree for the run of ledger seq: from now on the
// methods that change it work. Errors: statefs.ErrBusy, statefs.ErrDamaged.
func (v *Volume) Begin(ctx context.Context, seq uint64) error {
	if err := v.enterOp(); err != nil {
		return fmt.Errorf("begin run %d: %w", seq, err)
	}
	defer v.op.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.damaged:
		return fmt.Errorf("begin run %d: %w", seq, statefs.ErrDamaged)
	case v.run != nil:
		return fmt.Errorf("begin run %d: %w", seq, statefs.ErrBusy)
	}
	v.run = &run{id: v.runID.Add(1), seq: seq}
	v.writable = true
	v.open4Writing.Store(true)
	return nil
}

// freeze ends all changes of the working tree. The caller holds op.
func (v *Volume) freeze() []*inode {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writable = false
	v.open4Writing.Store(false)
	return append([]*inode(nil), v.run.touched...)
}

// awaitClosed waits a little for the kernel to tell that files were closed.
func (v *Volume) awaitClosed(ctx context.Context, touched []*inode) {
	var timeout <-chan time.Time
	for {
		v.mu.Lock()
		open := 0
		for _, in := range touched {
			if f := in.file; f != nil && f.byKernel() && f.own && in.nlink > 0 {
				open++
			}
		}
		if open == 0 {
			v.mu.Unlock()
			return
		}
		if v.lastClosed == nil {
			v.lastClosed = make(chan struct{})
		}
		gone := v.lastClosed
		v.mu.Unlock()
		if timeout == nil {
			t := time.NewTimer(closeGrace)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-gone:
		case <-timeout:
			return
		case <-ctx.Done():
			return
		}
	}
}

// End closes the working tree, and returns the root of what the run left in it.
// Sockets and pipes are removed, every name of a file with hard links becomes a
// file of its own. When it fails, it may be tried again, or the run be rolled
// back.
func (v *Volume) End(ctx context.Context) (digest.Hash, error) {
	if err := v.enterOp(); err != nil {
		return digest.Hash{}, fmt.Errorf("end run: %w", err)
	}
	var ch Changes
	root, err := v.end(ctx, &ch)
	if full(err) && v.makeRoom() {
		root, err = v.end(ctx, &ch)
	}
	v.op.Unlock()
	v.tell(ch)
	return root, err
}

// tell hands changes to whoever looks after the kernel's caches.
func (v *Volume) tell(ch Changes) {
	if v.cfg.Invalidate != nil && (ch.All || len(ch.Names) > 0 || len(ch.Inos) > 0) {
		v.cfg.Invalidate(ch)
	}
}

func (v *Volume) end(ctx context.Context, ch *Changes) (digest.Hash, error) {
	r := v.run
	if r == nil {
		return digest.Hash{}, errors.New("end run: no run is open")
	}
	fail := func(err error) (digest.Hash, error) {
		return digest.Hash{}, fmt.Errorf("end run %d: %w", r.seq, err)
	}
	if r.ended {
		return fail(errors.New("it has ended before"))
	}
	touched := v.freeze()
	v.awaitClosed(ctx, touched)
	contents, err := v.sealContents(ctx, touched)
	if err != nil {
		return fail(err)
	}
	for _, s := range contents {
		v.flush.add(s.fresh...)
	}
	v.mu.Lock()
	err = v.sealTree(contents, ch)
	root := v.root.n
	v.mu.Unlock()
	if err != nil {
		return fail(err)
	}
	if root != v.agreed.root {
		v.step("before the end record")
		if _, err := v.tlog.append(func(b *batch) { v.record(b, r, root) }); err != nil {
			return fail(err)
		}
		r.logged = true
		v.step("end record written")
		v.flush.wake()
	}
	r.ended, r.root = true, root
	return root.hash, nil
}

// record writes what a run changed to the log. Nobody changes the tree.
func (v *Volume) record(b *batch, r *run, root *node) {
	for _, in := range r.touched {
		if !in.isDir() || in.nlink == 0 || in.n == in.undo.base {
			continue
		}
		w := &dirWriter{b: b, ino: in.ino}
		var old []*page
		if in.undo.base != nil {
			old = in.undo.base.dir().pages
		} else {
			w.whole = true
		}
		diffPages(old, in.n.dir().pages, w.put)
		w.close()
	}
	e := endRecord{seq: r.seq, root: root.hash, next: Ino(v.nextIno.Load()), top: root}
	b.add(recEnd, e.encode())
}

// Commit makes what End hashed, with this patch.cfg (nil for none), the agreed
// version.
func (v *Volume) Commit(ctx context.Context, patch []byte) error {
	if err := v.enterOp(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	defer v.op.Unlock()
	r := v.run
	switch {
	case r == nil:
		return fmt.Errorf("commit: %w", statefs.ErrFinished)
	case !r.ended:
		return fmt.Errorf("commit run %d: it has not ended", r.seq)
	case len(patch) > statefs.MaxPatch:
		return fmt.Errorf("commit run %d: patch.cfg of %d bytes, at most %d are allowed", r.seq, len(patch), statefs.MaxPatch)
	}
	next := statefs.Version{Seq: r.seq, Root: r.root.hash}
	if patch != nil {
		next.Patch = statefs.HashPatch(patch)
		patch = bytes.Clone(append([]byte{}, patch...))
	}
	// What the run replaced is needed until nobody holds an older version.
	v.mu.Lock()
	died := v.agreed.ord + 1
	var dead []corpse
	for _, in := range r.touched {
		if base := in.undo.base; base != nil && base != in.n || in.nlink == 0 && base != nil {
			now := make(map[uint64]bool)
			if in.nlink > 0 {
				in.n.objects(func(id, _ uint64) { now[id] = true })
			}
			base.objects(func(id, size uint64) {
				if !now[id] {
					dead = append(dead, corpse{id, size, died})
				}
			})
		}
	}
	v.mu.Unlock()
	if err := v.adopt(next, patch, r.root, r.logged); err != nil {
		return fmt.Errorf("commit run %d: %w", r.seq, err)
	}
	v.settle(r, dead)
	v.dropStaged()
	return nil
}

// settle makes the working tree of a committed run that of the agreed version.
func (v *Volume) settle(r *run, dead []corpse) {
	var folds []*node
	var later []*inode
	v.mu.Lock()
	for _, in := range r.touched {
		if in.nlink == 0 {
			if f := in.file; f == nil || f.open == nil {
				delete(v.live, in.ino)
				delete(v.hot, in.ino)
			}
			v.gone(in)
			in.undo = nil
			continue
		}
		if lay := in.n.layers(); len(lay) > 0 {
			if base := in.undo.base; base == nil || base.top() != in.n.top() {
				lay[len(lay)-1].ord = v.agreed.ord
			}
			folds = append(folds, in.n)
		}
		in.undo = nil
		f := in.file
		switch {
		case f == nil:
		case f.over == nil && f.io.TryLock():
			f.settle(in)
			f.io.Unlock()
		default:
			later = append(later, in)
		}
	}
	v.dead = append(v.dead, dead...)
	v.run = nil
	v.forgetVersions()
	v.mu.Unlock()
	for _, in := range later {
		v.settleBusy(in)
	}
	v.fold.add(folds)
}

// settle makes what is known of a content that of the version. io and mu are
// held.
func (f *file) settle(in *inode) {
	f.obj, f.lay, f.own, f.changed, f.fresh = in.n.obj, in.n.layers(), false, false, false
	if o := f.scratch; o != nil {
		f.scratch = nil
		o.put()
	}
	if f.open == nil {
		in.file = nil
	}
}

// settleBusy is settle for a file that is being read or has an overlay.
func (v *Volume) settleBusy(in *inode) {
	f := in.file
	f.io.Lock()
	defer f.io.Unlock()
	o := f.over
	var c *content
	if o != nil && f.open != nil {
		var err error
		if c, err = v.openContent(in.n.obj, in.n.layers(), in.n.size); err != nil {
			v.log.Error("cannot read a file any more", "name", in.name, "error", err)
			c = &content{}
		}
	}
	v.mu.Lock()
	f.over = nil
	if c != nil {
		f.open.layers = c
	}
	f.settle(in)
	v.mu.Unlock()
	if o != nil {
		o.close()
		if in.n.top() != o.obj {
			v.reap(o.obj, 0) // opened for writing, but not written
		}
	}
}

// Rollback brings the working tree back to the agreed version, instead of End or
// after it.
func (v *Volume) Rollback(ctx context.Context) error {
	if err := v.enterOp(); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	if v.run == nil {
		v.op.Unlock()
		return fmt.Errorf("roll back: %w", statefs.ErrFinished)
	}
	seq := v.run.seq
	ch, err := v.rollback()
	v.op.Unlock()
	v.tell(ch)
	if err != nil {
		return fmt.Errorf("roll back run %d: %w", seq, err)
	}
	return nil
}

// tellMax is how many changes are named one by one.
const tellMax = 4096

// rollback forgets what the open run has changed. The caller holds op.
func (v *Volume) rollback() (ch Changes, err error) {
	touched := v.freeze()
	if v.run.logged {
		err := v.note(recUndone, nil)
		if full(err) && v.makeRoom() {
			err = v.note(recUndone, nil)
		}
		if err != nil {
			// The record only spares the next start a look at what is gone.
			v.log.Warn("cannot note that a run was rolled back", "error", err)
		}
		v.step("undone record written")
	}
	var survivors []*inode
	given := make(map[uint64]bool) // objects that are being removed already
	for _, in := range touched {
		if f := in.file; f != nil && v.detach(in, f, given) && in.undo.base != nil {
			survivors = append(survivors, in)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, in := range touched {
		u := in.undo
		ch.Inos = append(ch.Inos, in.ino)
		for _, n := range append([]nameRef{{in.parent, in.name}, {u.parent, u.name}}, in.more...) {
			if n.parent != nil {
				ch.Names = append(ch.Names, Name{n.parent.ino, n.name})
			}
		}
		old := make(map[uint64]bool, 2)
		if u.base != nil {
			u.base.objects(func(id, _ uint64) { old[id] = true })
		}
		in.n.objects(func(id, size uint64) {
			if !old[id] && !given[id] {
				v.reap(id, size)
			}
		})
		in.undo = nil
		if u.base == nil {
			delete(v.live, in.ino)
			in.nlink, in.parent, in.name, in.more = 0, nil, "", nil
			continue
		}
		in.reset(u.base)
		in.parent, in.name = u.parent, u.name
		v.live[in.ino] = in
	}
	v.run = nil
	if len(ch.Names) > tellMax {
		ch = Changes{All: true}
	}
	return ch, v.renumber(survivors)
}

// detach takes the changed content of a file away. It returns whether somebody
// still has it open.
func (v *Volume) detach(in *inode, f *file, given map[uint64]bool) bool {
	f.io.Lock()
	defer f.io.Unlock()
	if !f.own && f.over == nil && !f.fresh {
		v.mu.Lock()
		defer v.mu.Unlock()
		f.changed = false
		if f.open == nil {
			in.file = nil
		}
		return false
	}
	v.mu.Lock()
	open := f.open != nil
	o, own, scratch := f.over, uint64(0), f.scratch
	if f.own || f.fresh {
		own = f.obj
	}
	size := in.size
	in.file, f.open, f.over, f.own, f.fresh, f.scratch = nil, nil, nil, false, false, nil
	v.mu.Unlock()
	if own != 0 {
		given[own] = true
		v.reap(own, size)
	}
	if scratch != nil {
		scratch.put()
	}
	if o != nil {
		o.close()
		given[o.obj] = true
		v.reap(o.obj, 0)
	}
	return open
}

// renumber gives files new numbers, because the kernel has the old ones open with
// a content that no longer counts. The hashed form stays. The caller holds op
// and mu.
func (v *Volume) renumber(files []*inode) error {
	if len(files) == 0 {
		return nil
	}
	v.run = &run{id: v.runID.Add(1)}
	defer func() { v.run = nil }()
	for _, old := range files {
		in := *old
		in.ino = Ino(v.nextIno.Add(1))
		n := *old.n
		n.ino = in.ino
		in.n = &n
		old.parent, old.name, old.nlink = nil, "", 0
		delete(v.live, old.ino)
		v.live[in.ino] = &in
		v.touch(&in)
		in.parent.dir.set(in.name, in.n, v.run.id)
	}
	var ch Changes
	err := v.sealDirs(&ch)
	for _, in := range v.run.touched {
		in.undo = nil
	}
	if err != nil {
		return err
	}
	if v.root.n.hash != v.agreed.Root {
		return errBroken
	}
	v.agreed.root = v.root.n
	return nil
}
