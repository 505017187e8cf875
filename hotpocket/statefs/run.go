package statefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// run is the open run of a Dir.
type run struct {
	d   *Dir
	seq uint64

	mu       sync.Mutex // held during End, Commit and Rollback
	ended    bool
	finished bool
	next     version
	objects  map[content]string // what prepare has copied; valid after copied is closed
	copied   chan struct{}
	copyErr  error
	cancel   context.CancelFunc
}

// Begin implements State.
func (d *Dir) Begin(ctx context.Context, seq uint64) (Run, error) {
	if err := d.enter(); err != nil {
		return nil, fmt.Errorf("begin run %d: %w", seq, err)
	}
	defer d.leave()
	d.mu.Lock()
	if d.damaged {
		d.mu.Unlock()
		return nil, fmt.Errorf("begin run %d: %w", seq, ErrDamaged)
	}
	if d.run != nil {
		d.mu.Unlock()
		return nil, fmt.Errorf("begin run %d: %w", seq, ErrBusy)
	}
	r := &run{d: d, seq: seq}
	d.run = r
	asAgreed := d.asAgreed
	d.mu.Unlock()
	if !asAgreed {
		if err := d.restoreOrDamaged(ctx); err != nil {
			d.finish(r)
			return nil, fmt.Errorf("begin run %d: %w", seq, err)
		}
	}
	d.mu.Lock()
	d.asAgreed = false
	d.mu.Unlock()
	return r, nil
}

func (d *Dir) finish(r *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run == r {
		d.run = nil
	}
}

// Dir implements Run.
func (r *run) Dir() string { return r.d.paths.state }

// End implements Run.
func (r *run) End(ctx context.Context) (root, patch digest.Hash, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.d
	if err := d.enter(); err != nil {
		return root, patch, fmt.Errorf("end run %d: %w", r.seq, err)
	}
	defer d.leave()
	switch {
	case r.finished:
		return root, patch, fmt.Errorf("end run %d: %w", r.seq, ErrFinished)
	case r.ended:
		return root, patch, fmt.Errorf("end run %d: it has ended before", r.seq)
	}
	d.mu.Lock()
	prev, agreed := d.working, d.agreed
	d.mu.Unlock()
	tree, err := d.scanner.scan(ctx, d.state, prev)
	if err != nil {
		return root, patch, fmt.Errorf("end run %d: %w", r.seq, err)
	}
	content, patch, ok, err := hashPatchAt(d.work, patchName)
	if err != nil {
		return root, patch, fmt.Errorf("end run %d: %w", r.seq, err)
	}
	if !ok {
		d.log.Warn("the contract left a patch.cfg that is not a file or is too large; the agreed one is put back", "limit", MaxPatch)
		if err := d.writePatch(d.work, agreed.patch, 0o644); err != nil {
			return root, patch, fmt.Errorf("end run %d: %w", r.seq, err)
		}
		content, patch = agreed.patch, agreed.Patch
	}
	r.next = version{Version{r.seq, tree.Hash, patch}, tree, content}
	d.mu.Lock()
	d.working = tree
	d.mu.Unlock()
	r.ended = true
	r.prepare(agreed)
	return tree.Hash, patch, nil
}

// prepare copies what the run changed while the cluster still compares results,
// so that Commit finds it done. The copies are made durable after that, behind
// Commit's back: what a power failure takes with it is found missing at the next
// start.
func (r *run) prepare(agreed version) {
	r.copied = make(chan struct{})
	if r.next.Root == agreed.Root {
		close(r.copied)
		r.cancel = func() {}
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.d.flushing.Add(1)
	go func() {
		defer r.d.flushing.Done()
		var open []*os.File
		r.objects, open, r.copyErr = r.d.copyObjects(ctx, agreed.tree, r.next.tree)
		failed := r.copyErr != nil
		many := len(r.objects) > len(open)
		close(r.copied)
		if !failed {
			if err := r.d.flush(r.next.tree, open, many); err != nil {
				r.d.log.Error("cannot make the state durable", "error", err)
			}
		}
		for _, f := range open {
			f.Close()
		}
	}()
}

// flushEach is up to how many files are flushed one by one. Above, the whole
// file system is.
const flushEach = 64

// copyObjects copies the files of to that from does not have into objects. The
// first copies stay open, to be flushed.
func (d *Dir) copyObjects(ctx context.Context, from, to *node) (objects map[content]string, open []*os.File, err error) {
	objects = make(map[content]string)
	gen := d.generation.Add(1)
	err = added(from, to, "", func(path string, n *node) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := content{n.Hash, n.Mode}
		if _, ok := objects[c]; ok {
			return nil
		}
		name := objectName(c, gen)
		objects[c] = name
		d.step("before copying an object")
		f, err := d.copyObject(ctx, path, n, name)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if len(open) < flushEach {
			open = append(open, f)
		} else {
			f.Close()
		}
		return nil
	})
	return objects, open, err
}

// copyObject copies one file of the working folder and makes sure that the copy
// is what was hashed.
func (d *Dir) copyObject(ctx context.Context, path string, n *node, name string) (*os.File, error) {
	src, err := openPath(d.state, path)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			err = fmt.Errorf("%w: %w", ErrChanged, err)
		}
		return nil, err
	}
	defer src.Close()
	if err := copyFile(d.objects, name, src, d.viewMode(n.Mode)); err != nil {
		if errors.Is(err, errShrunk) {
			err = fmt.Errorf("%w: %w", ErrChanged, err)
		}
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return nil, err
	}
	f, err := openFileAt(d.objects, name)
	if err != nil {
		return nil, err
	}
	now := sigOf(&st)
	if now != n.sig || uint64(st.Size) != n.Size {
		// Racy, changed, or only touched: reading a locked file is enough.
		ok, err := hasContent(ctx, f, n.Size, n.Hash)
		if err == nil && !ok {
			err = ErrChanged
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// flush makes a version's folders, the given files and the folder of objects
// durable.
func (d *Dir) flush(tree *node, files []*os.File, all bool) error {
	if err := d.pack.add(tree); err != nil {
		return err
	}
	if err := d.pack.sync(); err != nil {
		return err
	}
	if all {
		return unix.Syncfs(d.objects)
	}
	for _, f := range files {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return unix.Fsync(d.objects)
}

// wait waits for the copies of an ended run.
func (r *run) wait(ctx context.Context) error {
	select {
	case <-r.copied:
		return r.copyErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// again begins the copying anew for the next Commit: that there was no room for
// it may pass, and what the run left is still in the working folder.
func (r *run) again() {
	for _, name := range r.objects {
		if err := removeAt(r.d.objects, name); err != nil {
			r.d.log.Warn("cannot remove a spare copy", "error", err)
		}
	}
	r.objects, r.copyErr = nil, nil
	r.d.mu.Lock()
	v, staging := r.d.agreed, r.d.staging
	r.d.mu.Unlock()
	if staging == nil {
		// What was fetched for a state that this run has made needless.
		if err := os.RemoveAll(filepath.Join(r.d.paths.store, "sync")); err != nil {
			r.d.log.Warn("cannot remove what was fetched", "error", err)
		}
	}
	r.prepare(v)
}

// Commit implements Run.
func (r *run) Commit(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.d
	if err := d.enter(); err != nil {
		return fmt.Errorf("commit run %d: %w", r.seq, err)
	}
	defer d.leave()
	switch {
	case r.finished:
		return fmt.Errorf("commit run %d: %w", r.seq, ErrFinished)
	case !r.ended:
		return fmt.Errorf("commit run %d: it has not ended", r.seq)
	}
	if err := r.wait(ctx); err != nil {
		if ctx.Err() == nil && !errors.Is(err, ErrChanged) {
			r.again()
		}
		return fmt.Errorf("commit run %d: %w", r.seq, err)
	}
	d.settling.Lock()
	defer d.settling.Unlock()
	d.mu.Lock()
	if d.pending == nil {
		d.pending = make(map[content]string, len(r.objects))
	}
	var twice []string
	for c, name := range r.objects {
		if _, ok := d.pending[c]; ok {
			twice = append(twice, name)
		} else {
			d.pending[c] = name
		}
	}
	d.mu.Unlock()
	if err := d.adopt(ctx, r.next); err != nil {
		d.mu.Lock()
		for c, name := range r.objects {
			if d.pending[c] == name {
				delete(d.pending, c)
			}
		}
		d.mu.Unlock()
		return fmt.Errorf("commit run %d: %w", r.seq, err)
	}
	for _, name := range twice {
		if err := removeAt(d.objects, name); err != nil {
			d.log.Warn("cannot remove a spare copy", "error", err)
		}
	}
	r.finished = true
	d.mu.Lock()
	d.asAgreed = true
	d.mu.Unlock()
	d.finish(r)
	return nil
}

// Rollback implements Run.
func (r *run) Rollback(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.d
	if err := d.enter(); err != nil {
		return fmt.Errorf("roll back run %d: %w", r.seq, err)
	}
	defer d.leave()
	if r.finished {
		return fmt.Errorf("roll back run %d: %w", r.seq, ErrFinished)
	}
	if r.ended {
		r.cancel()
		select {
		case <-r.copied:
		case <-ctx.Done():
			return fmt.Errorf("roll back run %d: %w", r.seq, ctx.Err())
		}
		for _, name := range r.objects {
			if err := removeAt(d.objects, name); err != nil {
				d.log.Warn("cannot remove a spare copy", "error", err)
			}
		}
		r.objects = nil
	}
	err := d.restoreOrDamaged(ctx)
	if err == nil || errors.Is(err, ErrDamaged) {
		r.finished = true
		d.finish(r)
	}
	if err != nil {
		return fmt.Errorf("roll back run %d: %w", r.seq, err)
	}
	return nil
}
