package statefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// How a version becomes the agreed one, and what a crash leaves at each step:
//
//  1. every file that the old version does not have is copied into objects, and
//     every folder into the pack (nothing has changed yet);
//  2. the meta record names the new version (from here on it is the agreed one:
//     its parts are in objects, in the pack and in the side that held the old);
//  3. the free side is marked as unsettled, changed by links, marked as settled;
//  4. the objects are removed.
//
// A start finds each part by its hash wherever it is and finishes the work.

// adopt makes next the agreed version. Its new files are in pending. The caller
// holds settling.
func (d *Dir) adopt(ctx context.Context, next version) error {
	d.step("before the folders are written")
	if err := d.pack.add(next.tree); err != nil {
		return err
	}
	d.step("before the patch is kept")
	if err := d.keepPatch(next); err != nil {
		return err
	}
	d.step("before the record is written")
	d.meta.rec.agreed = next.Version
	if err := d.meta.write(); err != nil {
		return err
	}
	d.step("after the record was written")
	d.mu.Lock()
	if d.agreed.tree != nil && d.agreed.Root != next.Root {
		d.recent = append(d.recent, d.agreed)
		if len(d.recent) > keepRecent {
			d.recent = append([]version(nil), d.recent[1:]...)
		}
	}
	d.agreed = next
	d.damaged = false
	d.mu.Unlock()
	if err := d.settle(ctx); err != nil {
		// The version is agreed and safe; views stay behind until this works.
		d.log.Error("cannot update the read-only copy of the state", "error", err)
	}
	return nil
}

// keepPatch saves the patch.cfg of a version until a side has it: the working
// one may be changed by the next run before that.
func (d *Dir) keepPatch(v version) error {
	d.mu.Lock()
	old := d.agreed.Patch
	d.mu.Unlock()
	if v.patch == nil || v.Patch == old {
		return nil
	}
	name := filepath.Join(d.paths.store, patchPrefix+v.Patch.String())
	if err := writeFileAtomic(name, v.patch, 0o600, false); err != nil {
		return fmt.Errorf("keep patch.cfg: %w", err)
	}
	d.keptPatches = append(d.keptPatches, name)
	return nil
}

const patchPrefix = "patch."

// settle brings a side that nobody reads to the agreed version and turns new
// views to it: the older side, or the current one when only the older is being
// read; then new views wait for it, so that none is older than one before. When
// both are being read it does nothing; the next view or commit tries again. The
// caller holds settling.
func (d *Dir) settle(ctx context.Context) error {
	d.mu.Lock()
	next := d.agreed
	cur := d.sides[d.current]
	if cur.holds.tree != nil && cur.holds.Root == next.Root && cur.holds.Patch == next.Patch {
		cur.holds.Seq = next.Seq
		d.mu.Unlock()
		return d.dropObjects()
	}
	i := 1 - d.current
	if d.sides[i].refs > 0 {
		i = d.current
		if cur.refs > 0 {
			d.mu.Unlock()
			return nil
		}
	}
	s := d.sides[i]
	s.busy = true
	d.mu.Unlock()

	err := d.advance(ctx, i, next)

	d.mu.Lock()
	s.busy = false
	d.settled.Broadcast()
	if err == nil {
		s.holds = next
		d.current = i
	} else {
		s.holds = version{}
		d.current = 1 - i
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return d.dropObjects()
}

// advance changes side i to a version. Nobody reads it.
func (d *Dir) advance(ctx context.Context, i int, next version) error {
	s, other := d.sides[i], d.sides[1-i]
	d.meta.rec.sides[i].settled = false
	if err := d.meta.write(); err != nil {
		return err
	}
	d.step("side unsettled")
	from := s.holds.tree
	if from == nil {
		var err error
		if from, err = d.scanSide(ctx, s, next.tree); err != nil {
			return err
		}
	}
	t := transform{mode: d.viewDirMode, owner: d.cfg.Owner}
	t.place = func(_ context.Context, dir int, path string, n *node, exists bool) error {
		if exists {
			if err := unix.Unlinkat(dir, n.Name, 0); err != nil {
				return err
			}
		}
		d.step("in a side")
		mode := d.viewMode(n.Mode)
		if name, ok := d.pendingFile(n); ok {
			return linkInto(d.tmp, d.objects, name, dir, n.Name, mode)
		}
		if o := other.holds.tree; o != nil {
			if f := o.find(path); f != nil && f.same(n) {
				return linkInto(d.tmp, other.state, path, dir, n.Name, mode)
			}
		}
		return fmt.Errorf("content %s: %w", n.Hash.Short(), ErrDamaged)
	}
	if err := t.apply(ctx, s.state, from, next.tree, ""); err != nil {
		return err
	}
	if err := unix.Fchmod(s.state, uint32(d.viewDirMode(0o755))); err != nil {
		return err
	}
	if s.holds.tree == nil || s.holds.Patch != next.Patch {
		if err := d.writeViewPatch(s, next.patch); err != nil {
			return err
		}
	}
	d.step("before the side is settled")
	d.meta.rec.sides[i] = sideMeta{settled: true, holds: next.Version}
	return d.meta.write()
}

func (d *Dir) writeViewPatch(s *side, content []byte) error {
	s.privateMu.Lock()
	defer s.privateMu.Unlock()
	if err := writableDir(s.top); err != nil {
		return err
	}
	if err := d.writePatch(s.top, content, d.viewMode(0o644)); err != nil {
		return err
	}
	return unix.Fchmod(s.top, uint32(d.viewDirMode(0o755)))
}

func (d *Dir) pendingFile(n *node) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, ok := d.pending[content{n.Hash, n.Mode}]
	return name, ok
}

// dropObjects removes the files that a side has taken over by now.
func (d *Dir) dropObjects() error {
	d.mu.Lock()
	pending := d.pending
	d.pending = nil
	d.mu.Unlock()
	for _, name := range pending {
		d.step("before an object is removed")
		if err := removeAt(d.objects, name); err != nil {
			return err
		}
	}
	for _, name := range d.keptPatches {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	d.keptPatches = nil
	return d.compactPack()
}

func (d *Dir) compactPack() error {
	if !d.pack.full() {
		return nil
	}
	d.mu.Lock()
	keep := []*node{d.agreed.tree}
	for _, s := range d.sides {
		if s.holds.tree != nil {
			keep = append(keep, s.holds.tree)
		}
	}
	if d.working != nil && !d.working.Hash.IsZero() {
		keep = append(keep, d.working)
	}
	d.mu.Unlock()
	return d.pack.compact(keep...)
}

// openContent opens a file of the agreed version in whatever place has it.
func (d *Dir) openContent(path string, n *node) (*os.File, error) {
	if name, ok := d.pendingFile(n); ok {
		f, err := openFileAt(d.objects, name)
		if err == nil || !errors.Is(err, unix.ENOENT) {
			return f, err
		}
		// A side has taken it over in this moment.
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		busy := false
		for _, s := range d.sides {
			if s.busy || s.holds.tree == nil {
				busy = busy || s.busy
				continue
			}
			if f := s.holds.tree.find(path); f != nil && f.Kind == KindFile && f.Hash == n.Hash {
				// An open file keeps its content: sides never write into one.
				return openPath(s.state, path)
			}
		}
		if !busy {
			break
		}
		d.settled.Wait()
	}
	return nil, fmt.Errorf("content %s: %w", n.Hash.Short(), ErrDamaged)
}

// restore brings the working folder to the agreed version. Nobody else writes
// to it.
func (d *Dir) restore(ctx context.Context) error {
	d.mu.Lock()
	to, prev := d.agreed, d.working
	d.asAgreed = false
	d.mu.Unlock()
	quick := d.scanner
	quick.normalise, quick.skipContent = false, true
	from, err := quick.scan(ctx, d.state, prev)
	if err != nil {
		return err
	}
	t := transform{mode: func(m uint16) uint16 { return m }, owner: d.cfg.Owner}
	t.place = func(_ context.Context, dir int, path string, n *node, _ bool) error {
		src, err := d.openContent(path, n)
		if err != nil {
			return err
		}
		defer src.Close()
		d.step("in the working folder")
		return copyInto(d.tmp, src, dir, n.Name, n.Mode)
	}
	err = t.apply(ctx, d.state, from, to.tree, "")
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		// Make room: what will be replaced or removed need not stay until then.
		if err = prune(d.state, from, to.tree, ""); err == nil {
			err = t.apply(ctx, d.state, from, to.tree, "")
		}
	}
	if err != nil {
		return err
	}
	now, err := d.scanner.scan(ctx, d.state, from)
	if err != nil {
		return err
	}
	_, patch, ok, err := hashPatchAt(d.work, patchName)
	if err != nil {
		return err
	}
	if !ok || patch != to.Patch {
		if err := d.writePatch(d.work, to.patch, 0o644); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.working = now
	if now.Hash != to.Root {
		return fmt.Errorf("state folder has root %s after it was restored to %s: %w", now.Hash.Short(), to.Root.Short(), errWrongRoot)
	}
	d.asAgreed = true
	return nil
}

var errWrongRoot = errors.New("either a process still writes to it or the copy is damaged")

// restoreOrDamaged is restore with a second attempt; if the reason is a damaged
// copy, the state counts as damaged from then on.
func (d *Dir) restoreOrDamaged(ctx context.Context) error {
	err := d.restore(ctx)
	if errors.Is(err, errWrongRoot) {
		err = d.restore(ctx)
	}
	if err == nil || !errors.Is(err, errWrongRoot) && !errors.Is(err, ErrDamaged) {
		return err
	}
	bad := errors.Is(err, ErrDamaged)
	if !bad {
		d.mu.Lock()
		from, to := d.working, d.agreed.tree
		d.mu.Unlock()
		checkErr := added(from, to, "", func(path string, n *node) error {
			return d.checkContent(ctx, path, n)
		})
		bad = errors.Is(checkErr, ErrDamaged)
	}
	if bad {
		d.mu.Lock()
		d.damaged = true
		for _, s := range d.sides {
			s.holds = version{} // to be hashed before anything is taken from them
		}
		d.mu.Unlock()
		d.log.Error("the kept copy of the agreed state is damaged", "error", err)
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// checkContent verifies the kept copy of one file.
func (d *Dir) checkContent(ctx context.Context, path string, n *node) error {
	f, err := d.openContent(path, n)
	if err != nil {
		return err
	}
	defer f.Close()
	ok, err := hasContent(ctx, f, n.Size, n.Hash)
	if err == nil && !ok {
		err = fmt.Errorf("%s: %w", path, ErrDamaged)
	}
	return err
}

// hasContent reports whether a file has the given length and hash.
func hasContent(ctx context.Context, f *os.File, size uint64, hash digest.Hash) (bool, error) {
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !st.Mode().IsRegular() || uint64(st.Size()) != size {
		return false, nil
	}
	h, _, err := hashContent(ctx, f, size, nil)
	if errors.Is(err, errShrunk) {
		return false, nil
	}
	return h == hash, err
}

// objectName is the name of a file in objects: what it holds, and a number that
// keeps the work of different runs apart.
func objectName(c content, gen uint64) string { return fmt.Sprintf("%s.%d", c, gen) }

func parseObjectName(name string) (c content, gen uint64, err error) {
	key, num, ok := strings.Cut(name, ".")
	if !ok || len(key) != 2*digest.Size+5 {
		return c, 0, fmt.Errorf("%q does not name an object", name)
	}
	if c.hash, err = digest.Parse(key[:2*digest.Size]); err != nil {
		return c, 0, err
	}
	if _, err = fmt.Sscanf(key[2*digest.Size:], "-%o", &c.mode); err != nil {
		return c, 0, fmt.Errorf("%q does not name an object: %w", name, err)
	}
	if _, err = fmt.Sscanf(num, "%d", &gen); err != nil {
		return c, 0, fmt.Errorf("%q does not name an object: %w", name, err)
	}
	return c, gen, nil
}
