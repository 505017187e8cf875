package statefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// recovery finds the parts of a version in whatever a stopped process left.
type recovery struct {
	d       *Dir
	working *node
	patches map[digest.Hash][]byte
	byHash  map[digest.Hash]place // made when first needed
}

// place is where a file with a certain content is.
type place struct {
	dir  int
	path string
	n    *node
}

// recover brings everything to one version. found says that the state was
// started before, trusted that what this package wrote is as it wrote it: the
// last process stopped properly, or only the process died, not the kernel.
func (d *Dir) recover(ctx context.Context, found, trusted bool) error {
	if !found {
		return d.firstStart(ctx)
	}
	if !trusted {
		d.log.Info("the state was not closed properly before the machine went down; everything is hashed anew")
	}
	var prev *node
	if trusted {
		var err error
		prev, err = readIndex(filepath.Join(d.paths.store, "index"), d.pack.get)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			d.log.Warn("the index of the state is not usable; everything is hashed anew", "error", err)
		}
	}
	working, err := d.scanner.scan(ctx, d.state, prev)
	if err != nil {
		return err
	}
	d.working = working
	r := &recovery{d: d, working: working, patches: make(map[digest.Hash][]byte)}
	if err := r.findPatches(); err != nil {
		return err
	}
	if err := r.findObjects(ctx); err != nil {
		return err
	}
	rec := &d.meta.rec
	for i, s := range d.sides {
		m := rec.sides[i]
		if trusted && m.settled {
			if m.holds.Root == working.Hash {
				s.holds.tree = working
			} else if tree, err := load(m.holds.Root, d.pack.get); err == nil {
				s.holds.tree = tree
			}
		}
		if s.holds.tree == nil {
			var like *node
			if m.holds.Root == working.Hash {
				like = working
			} else if tree, err := load(m.holds.Root, d.pack.get); err == nil {
				like = tree
			}
			if s.holds.tree, err = d.scanSide(ctx, s, like); err != nil {
				return fmt.Errorf("scan %s: %w", s.name, err)
			}
		}
		if s.holds.tree.Hash == m.holds.Root && m.settled {
			s.holds.Version, s.holds.patch = m.holds, r.patches[m.holds.Patch]
		}
		if rec.mounted != d.mounted || !d.mounted {
			if err := d.chmodSide(s, rec.mounted != d.mounted); err != nil {
				return fmt.Errorf("set modes in %s: %w", s.name, err)
			}
		}
	}
	var wants []Version
	if c := d.cfg.Confirmed; c != nil && c.Seq >= rec.agreed.Seq {
		wants = append(wants, *c)
	}
	wants = append(wants, rec.agreed)
	for _, m := range rec.sides {
		if m.holds.Seq > 0 || !m.holds.Root.IsZero() {
			wants = append(wants, m.holds)
		}
	}
	for i, want := range wants {
		v, err := r.assemble(ctx, want)
		if err != nil {
			d.log.Warn("a version of the state is not complete on disk", "seq", want.Seq, "root", want.Root.Short(), "error", err)
			continue
		}
		if want != rec.agreed {
			how := "the ledger confirmed it"
			if i > 0 && want.Seq < rec.agreed.Seq {
				how = "the newer one is lost"
			}
			d.log.Warn("the state was put together from what was on disk", "seq", want.Seq, "root", want.Root.Short(), "reason", how)
		}
		if !trusted {
			// The pack may have holes that do not show from above.
			if err := d.pack.reset(v.tree); err != nil {
				return err
			}
		}
		if err := d.adopt(ctx, v); err != nil {
			return err
		}
		return r.finish(ctx, trusted)
	}
	d.log.Error("the agreed state cannot be restored from disk and has to be fetched", "seq", rec.agreed.Seq, "root", rec.agreed.Root.Short())
	d.agreed.Version = rec.agreed
	d.damaged = true
	return nil
}

// firstStart makes version 0 out of what the operator supplied.
func (d *Dir) firstStart(ctx context.Context) error {
	for _, s := range d.sides {
		for _, dir := range []int{s.top, s.state} {
			list, err := names(dir, make([]byte, 4096))
			if err != nil {
				return err
			}
			for _, name := range list {
				if dir == s.top && name == "state" {
					continue
				}
				if err := removeAt(dir, name); err != nil {
					return err
				}
			}
		}
		empty := &node{Entry: Entry{Kind: KindDir}}
		if err := empty.seal(); err != nil {
			return err
		}
		s.holds.tree = empty
	}
	if err := d.clearObjects(nil); err != nil {
		return err
	}
	tree, err := d.scanner.scan(ctx, d.state, nil)
	if err != nil {
		return err
	}
	d.working = tree
	patch, h, ok, err := hashPatchAt(d.work, patchName)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s is not a file of at most %d bytes", d.paths.patch, MaxPatch)
	}
	objects, open, err := d.copyObjects(ctx, nil, tree)
	for _, f := range open {
		f.Close()
	}
	if err != nil {
		return err
	}
	d.pending = objects
	if err := d.adopt(ctx, version{Version{0, tree.Hash, h}, tree, patch}); err != nil {
		return err
	}
	d.asAgreed = true
	return nil
}

// findPatches reads every patch.cfg that is lying about.
func (r *recovery) findPatches() error {
	d := r.d
	for _, dir := range []int{d.work, d.sides[0].top, d.sides[1].top} {
		content, h, ok, err := hashPatchAt(dir, patchName)
		if err != nil {
			return err
		}
		if ok && content != nil {
			r.patches[h] = content
		}
	}
	kept, err := filepath.Glob(filepath.Join(d.paths.store, patchPrefix+"*"))
	if err != nil {
		return err
	}
	for _, name := range kept {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		r.patches[HashPatch(content)] = content
	}
	d.keptPatches = kept
	return nil
}

// findObjects takes stock of objects, keeping only files that are what their
// name says.
func (r *recovery) findObjects(ctx context.Context) error {
	d := r.d
	list, err := names(d.objects, make([]byte, 8<<10))
	if err != nil {
		return err
	}
	d.pending = make(map[content]string)
	for _, name := range list {
		c, gen, err := parseObjectName(name)
		good := err == nil
		if good {
			d.generation.Store(max(d.generation.Load(), gen))
			_, twice := d.pending[c]
			good = !twice
		}
		if good {
			f, err := openFileAt(d.objects, name)
			if err != nil {
				return err
			}
			st, err := f.Stat()
			if err == nil {
				good, err = hasContent(ctx, f, uint64(st.Size()), c.hash)
			}
			f.Close()
			if err != nil {
				return err
			}
		}
		if !good {
			if err := removeAt(d.objects, name); err != nil {
				return err
			}
			continue
		}
		if err := unix.Fchmodat(d.objects, name, uint32(d.viewMode(c.mode)), 0); err != nil {
			return err
		}
		d.pending[c] = name
	}
	return nil
}

// clearObjects removes all objects that are not named in keep.
func (d *Dir) clearObjects(keep map[content]string) error {
	used := make(map[string]bool, len(keep))
	for _, name := range keep {
		used[name] = true
	}
	list, err := names(d.objects, make([]byte, 8<<10))
	if err != nil {
		return err
	}
	for _, name := range list {
		if !used[name] {
			if err := removeAt(d.objects, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// scanSide hashes what a side holds. Sides that are protected by their modes
// have lost the write permissions of their files; where the rest agrees with
// like, its modes are taken.
func (d *Dir) scanSide(ctx context.Context, s *side, like *node) (*node, error) {
	sc := d.scanner
	sc.normalise, sc.skipContent = false, false
	tree, err := sc.scan(ctx, s.state, nil)
	if err != nil {
		return nil, err
	}
	if !d.mounted && like != nil {
		if err := d.takeModes(tree, like); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

func (d *Dir) takeModes(n, like *node) error {
	for _, k := range n.kids {
		o := like.child(k.Name)
		if o == nil || o.Kind != k.Kind {
			continue
		}
		switch {
		case k.Kind == KindDir:
			if d.viewDirMode(o.Mode) == k.Mode {
				k.Mode = o.Mode
			}
			if err := d.takeModes(k, o); err != nil {
				return err
			}
		case k.Kind == KindFile && d.viewMode(o.Mode) == k.Mode:
			k.Mode = o.Mode
		}
	}
	return n.seal()
}

// chmodSide gives all folders in a side the modes they have to have: without
// mounts they are writable while no node runs. After the node has gained or lost
// the right to mount it is the turn of the files, too.
func (d *Dir) chmodSide(s *side, files bool) error {
	var walk func(dir int, n *node) error
	walk = func(dir int, n *node) error {
		for _, k := range n.kids {
			switch k.Kind {
			case KindFile:
				if !files {
					continue
				}
				if err := unix.Fchmodat(dir, k.Name, uint32(d.viewMode(k.Mode)), 0); err != nil {
					return err
				}
			case KindDir:
				fd, err := openDir(dir, k.Name)
				if err != nil {
					return err
				}
				err = walk(fd, k)
				if err == nil {
					err = unix.Fchmod(fd, uint32(d.viewDirMode(k.Mode)))
				}
				unix.Close(fd)
				if err != nil {
					return err
				}
			}
		}
		return nil
	}
	return walk(s.state, s.holds.tree)
}

// assemble finds every part of a version. Files that no side has at their place
// end up in pending.
func (r *recovery) assemble(ctx context.Context, want Version) (version, error) {
	d := r.d
	v := version{Version: want}
	if !want.Patch.IsZero() {
		var ok bool
		if v.patch, ok = r.patches[want.Patch]; !ok {
			return v, fmt.Errorf("patch.cfg %s is missing", want.Patch.Short())
		}
	}
	switch want.Root {
	case r.working.Hash:
		v.tree = r.working
	case d.sides[0].holds.tree.Hash:
		v.tree = d.sides[0].holds.tree
	case d.sides[1].holds.tree.Hash:
		v.tree = d.sides[1].holds.tree
	default:
		var err error
		if v.tree, err = load(want.Root, d.pack.get); err != nil {
			return v, fmt.Errorf("folders of %s: %w", want.Root.Short(), err)
		}
	}
	// Only files that differ from both sides are looked for elsewhere.
	err := added(d.sides[0].holds.tree, v.tree, "", func(path string, n *node) error {
		if f := d.sides[1].holds.tree.find(path); f != nil && f.same(n) {
			return nil
		}
		c := content{n.Hash, n.Mode}
		if _, ok := d.pending[c]; ok {
			return nil
		}
		name := objectName(c, d.generation.Add(1))
		if err := r.gather(ctx, path, n, name); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		d.pending[c] = name
		return nil
	})
	return v, err
}

// gather copies a file into objects from any place that has its content.
func (r *recovery) gather(ctx context.Context, path string, n *node, name string) error {
	d := r.d
	try := func(p place) error {
		f, err := openPath(p.dir, p.path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := copyFile(d.objects, name, f, d.viewMode(n.Mode)); err != nil {
			return err
		}
		out, err := openFileAt(d.objects, name)
		if err != nil {
			return err
		}
		defer out.Close()
		ok, err := hasContent(ctx, out, n.Size, n.Hash)
		if err != nil {
			return err
		}
		if !ok {
			if err := removeAt(d.objects, name); err != nil {
				return err
			}
			return ErrNotFound
		}
		return nil
	}
	if f := r.working.find(path); f != nil && f.Kind == KindFile && f.Hash == n.Hash {
		return try(place{d.state, path, f})
	}
	for c, file := range d.pending { // the same content with another mode
		if c.hash == n.Hash {
			return try(place{d.objects, file, nil})
		}
	}
	if r.byHash == nil {
		r.byHash = make(map[digest.Hash]place)
		for _, t := range []struct {
			dir  int
			tree *node
		}{{d.state, r.working}, {d.sides[0].state, d.sides[0].holds.tree}, {d.sides[1].state, d.sides[1].holds.tree}} {
			err := added(nil, t.tree, "", func(path string, n *node) error {
				r.byHash[n.Hash] = place{t.dir, path, n}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	p, ok := r.byHash[n.Hash]
	if !ok {
		return fmt.Errorf("content %s is missing", n.Hash.Short())
	}
	return try(p)
}

// finish brings working folder and objects to the agreed version.
func (r *recovery) finish(ctx context.Context, trusted bool) error {
	d := r.d
	if !trusted {
		// The side that was not updated just now was scanned, not settled.
		for i, s := range d.sides {
			d.meta.rec.sides[i].settled = s.holds.tree != nil && d.meta.rec.sides[i].settled && s.holds.tree.Hash == d.meta.rec.sides[i].holds.Root
		}
	}
	d.mu.Lock()
	keep := d.pending
	d.mu.Unlock()
	if err := d.clearObjects(keep); err != nil {
		return err
	}
	_, patch, ok, err := hashPatchAt(d.work, patchName)
	if err != nil {
		return err
	}
	if r.working.Hash == d.agreed.Root && ok && patch == d.agreed.Patch {
		d.asAgreed = true
		return nil
	}
	d.log.Warn("the working folder is not the agreed state: it is rolled back", "found", r.working.Hash.Short(), "agreed", d.agreed.Root.Short())
	err = d.restoreOrDamaged(ctx)
	if errors.Is(err, ErrDamaged) {
		return nil
	}
	return err
}
