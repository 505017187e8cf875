package volume

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sort"
	"sync/atomic"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// sealed is a file's content as the run left it, hashed.
type sealed struct {
	in   *inode
	name nameRef // of which name, for files with several
	obj  uint64
	lay  []*layer
	size uint64
	hash digest.Hash
	sig  uint64
	// blocks and mtime are those of the object; mtime is 0 when the inode knows
	// better.
	blocks uint32
	mtime  int64
	// fresh are objects that were made or written in this run.
	fresh []uint64
	// apart says that the name gets an inode of its own.
	apart bool
	// same says that the content is the one that was sealed before.
	same bool
}

// sealContents hashes what the run changed. Nobody writes any more, except
// through descriptors that the kernel was given and that a process has not
// closed; such files are copied first, and the copy is what counts.
func (v *Volume) sealContents(ctx context.Context, touched []*inode) (_ []*sealed, err error) {
	type job struct {
		in    *inode
		names []nameRef
	}
	var jobs []job
	v.mu.RLock()
	for _, in := range touched {
		changed := in.file != nil && in.file.changed
		if in.nlink == 0 || !in.isFile() || !changed && len(in.more) == 0 {
			continue
		}
		names := append([]nameRef{{in.parent, in.name}}, in.more...)
		jobs = append(jobs, job{in, names})
	}
	v.mu.RUnlock()
	out := make([][]*sealed, len(jobs))
	defer func() {
		if err == nil {
			return
		}
		for _, list := range out {
			for _, s := range list {
				if s.apart {
					for _, id := range s.fresh {
						v.reap(id, s.size)
					}
				}
			}
		}
	}()
	workers := min(runtime.GOMAXPROCS(0), (len(jobs)+7)/8)
	g, gctx := errgroup.WithContext(ctx)
	for w := range workers {
		g.Go(func() error {
			buf := make([]byte, 64<<10)
			for i := w; i < len(jobs); i += workers {
				if err := gctx.Err(); err != nil {
					return err
				}
				var err error
				if out[i], err = v.sealFile(gctx, jobs[i].in, jobs[i].names, buf); err != nil {
					return fmt.Errorf("%s: %w", jobs[i].in.name, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var all []*sealed
	for _, list := range out {
		all = append(all, list...)
	}
	return all, nil
}

// sealFile hashes one file. Every name after the first gets a copy.
func (v *Volume) sealFile(ctx context.Context, in *inode, names []nameRef, buf []byte) (list []*sealed, err error) {
	in, f, err := v.lockSealing(in)
	if err != nil {
		return nil, err
	}
	defer f.io.Unlock()
	first := &sealed{in: in, name: names[0]}
	list = []*sealed{first}
	switch {
	case f.own:
		err = v.sealOwn(ctx, in, f, first, buf)
	case f.fresh:
		first.obj, first.size, first.hash, first.blocks = f.obj, in.size, f.sum, packedBlocks(in.size)
		first.fresh = append(first.fresh, f.obj)
	case f.over != nil:
		err = v.sealOverlay(ctx, in, f, first)
	default:
		n := in.n
		first.obj, first.lay, first.size, first.hash, first.sig, first.blocks, first.same = n.obj, n.layers(), n.size, n.hash, n.sig, n.blocks, true
	}
	if err != nil {
		return list, err
	}
	for _, name := range names[1:] {
		s, err := v.sealCopy(first)
		if err != nil {
			return list, err
		}
		s.in, s.name = in, name
		list = append(list, s)
	}
	return list, nil
}

// lockSealing takes a file's io, after which no write is under way.
func (v *Volume) lockSealing(in *inode) (*inode, *file, error) {
	v.mu.Lock()
	f := in.file
	if f == nil {
		f = &file{obj: in.n.obj, lay: in.n.layers()}
		in.file = f
	}
	v.mu.Unlock()
	f.io.Lock()
	return in, f, nil
}

// sealOwn hashes an object of the run.
func (v *Volume) sealOwn(ctx context.Context, in *inode, f *file, s *sealed, buf []byte) error {
	s.obj = f.obj
	fd, done, err := v.ownFd(f)
	if err != nil {
		return err
	}
	defer done()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	s.mtime = st.Mtim.Nano()
	// What was only read by the kernel could be mapped, too; End has waited for
	// it to be closed.
	survives := f.byKernel() || !alone(fd)
	if f.scratch != nil && st.Size <= packBelow {
		return v.sealSmall(in, f, s, buf, survives)
	}
	if f.scratch != nil && !survives {
		if _, err := v.keepScratch(in, f); err != nil {
			return err
		}
		s.obj = f.obj
		if f.open == nil {
			if fd, err = v.store.openFd(s.obj, unix.O_RDONLY); err != nil {
				return err
			}
			defer unix.Close(fd)
		}
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
	}
	if survives {
		v.log.Warn("a file is still open after the run: what is written to it from now on is not part of the state", "name", in.name)
		id, out, err := v.store.create()
		if err != nil {
			return err
		}
		defer unix.Close(out)
		s.obj, s.apart = id, true
		s.fresh = append(s.fresh, id)
		if err := copyFd(out, fd, uint64(st.Size)); err != nil {
			return err
		}
		if err := futimens(out, s.mtime); err != nil {
			return err
		}
		fd = out
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		v.step("copy of a surviving file made")
	} else {
		s.fresh = append(s.fresh, s.obj)
	}
	s.size = uint64(st.Size)
	var values []digest.Hash
	if s.hash, values, err = statefs.HashContent(ctx, fdReader(fd), s.size, buf); err != nil {
		return err
	}
	if values != nil {
		if err := v.keepValues(s.obj, &side{size: s.size, values: values}); err != nil {
			return err
		}
	}
	s.sig, s.blocks = sigOf(&st), blocksOf(&st)
	return nil
}

// sealSmall moves a small content to a pack.
func (v *Volume) sealSmall(in *inode, f *file, s *sealed, buf []byte, survives bool) error {
	p, err := v.packScratch(f.scratch.fd, buf)
	if err != nil {
		return err
	}
	s.obj, s.size, s.hash, s.blocks, s.mtime = p.obj, p.size, p.hash, packedBlocks(p.size), p.st.Mtim.Nano()
	s.fresh = append(s.fresh, p.obj)
	if survives {
		v.log.Warn("a file is still open after the run: what is written to it from now on is not part of the state", "name", in.name)
		s.apart = true
		return nil
	}
	v.mu.Lock()
	o := f.scratch
	f.scratch, f.own, f.fresh, f.obj, f.sum = nil, false, true, p.obj, p.hash
	in.learn(&p.st)
	v.mu.Unlock()
	o.put()
	return nil
}

func packedBlocks(size uint64) uint32 { return uint32((size + blockSize - 1) / blockSize) }

func (v *Volume) keepValues(id uint64, sd *side) error {
	v.step("before group values are written")
	if err := v.store.writeSide(id, sd); err != nil {
		return fmt.Errorf("write group values: %w", err)
	}
	v.values.put(id, sd.values)
	return nil
}

// sealOverlay hashes the groups of a large file in which blocks were written.
func (v *Volume) sealOverlay(ctx context.Context, in *inode, f *file, s *sealed) error {
	o, n := f.over, in.undo.base
	if o.size.Load() > statefs.MaxFileSize {
		return statefs.ErrFileTooLarge
	}
	size := o.size.Load()
	if size == n.size && o.limit == n.size && o.bits.count() == 0 {
		s.obj, s.lay, s.size, s.hash, s.sig, s.blocks, s.same = n.obj, n.layers(), n.size, n.hash, n.sig, n.blocks, true
		return nil
	}
	s.obj, s.size, s.mtime = f.obj, size, o.mtime.Load()
	top := &layer{obj: o.obj, limit: o.limit, bits: append(bitmap(nil), o.bits...)}
	s.lay = append(s.lay, f.lay...)
	s.lay = append(s.lay, top)
	// Layers whose blocks have arrived in the lowest object are no longer needed.
	for len(s.lay) > 1 && s.lay[0].folded.Load() {
		s.lay = s.lay[1:]
	}
	s.fresh = append(s.fresh, o.obj)
	var values []digest.Hash
	var err error
	c := o.content()
	oldGroup, oldCount := statefs.Groups(n.size)
	group, count := statefs.Groups(size)
	if oldCount > 1 && count > 1 && group == oldGroup {
		values, err = v.valuesOf(ctx, n)
		if err == nil {
			values, err = rehash(ctx, c, size, values, n.size, o.limit, o.bits)
			s.hash = statefs.FoldGroups(values)
		}
	} else {
		s.hash, values, err = statefs.HashContent(ctx, c, size, nil)
	}
	if err != nil {
		return err
	}
	if err := v.keepValues(o.obj, &side{size: size, limit: o.limit, bits: top.bits, values: values}); err != nil {
		return err
	}
	s.sig, s.blocks, err = v.signature(s.obj, s.lay)
	return err
}

// rehash brings group values up to date: those of the old size are old.
func rehash(ctx context.Context, c *content, size uint64, old []digest.Hash, oldSize, limit uint64, bits bitmap) ([]digest.Hash, error) {
	group, count := statefs.Groups(size)
	values := make([]digest.Hash, count)
	var dirty []int
	for i := range values {
		off, n := statefs.GroupRange(size, i)
		if i < len(old) && off+n <= limit && !bits.any(off/blockSize, (off+n+blockSize-1)/blockSize) {
			if _, was := statefs.GroupRange(oldSize, i); was == n {
				values[i] = old[i]
				continue
			}
		}
		dirty = append(dirty, i)
	}
	workers := min(runtime.GOMAXPROCS(0), (len(dirty)+7)/8)
	g, gctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range workers {
		g.Go(func() error {
			buf := make([]byte, group)
			for k := next.Add(1) - 1; k < int64(len(dirty)); k = next.Add(1) - 1 {
				i := dirty[k]
				if err := gctx.Err(); err != nil {
					return err
				}
				off, n := statefs.GroupRange(size, i)
				if err := c.read(len(c.over), buf[:n], off); err != nil {
					return err
				}
				values[i] = statefs.GroupValue(size, i, buf[:n])
			}
			return nil
		})
	}
	return values, g.Wait()
}

// signature condenses what the objects of a content look like.
func (v *Volume) signature(obj uint64, lay []*layer) (sig uint64, blocks uint32, err error) {
	add := func(id uint64) error {
		var st unix.Stat_t
		if err := v.store.stat(id, &st); err != nil {
			return err
		}
		sig = sig*31 + sigOf(&st)
		blocks += blocksOf(&st)
		return nil
	}
	if packed(obj) {
		return 0, 0, nil
	}
	if obj != 0 {
		if err := add(obj); err != nil {
			return 0, 0, err
		}
	}
	for _, l := range lay {
		if err := add(l.obj); err != nil {
			return 0, 0, err
		}
	}
	return sig, blocks, nil
}

// valuesOf returns the group values of a file of several groups.
func (v *Volume) valuesOf(ctx context.Context, n *node) ([]digest.Hash, error) {
	_, count := statefs.Groups(n.size)
	if values := v.values.get(n.top()); len(values) == count && statefs.FoldGroups(values) == n.hash {
		return values, nil
	}
	sd, err := v.store.readSide(n.top())
	if err == nil && len(sd.values) == count && statefs.FoldGroups(sd.values) == n.hash {
		v.values.put(n.top(), sd.values)
		return sd.values, nil
	}
	c, err := v.openContent(n.obj, n.layers(), n.size)
	if err != nil {
		return nil, err
	}
	defer c.close()
	h, values, err := statefs.HashContent(ctx, c, n.size, nil)
	if err != nil {
		return nil, err
	}
	if h != n.hash {
		return nil, fmt.Errorf("content has hash %s, not %s: %w", h.Short(), n.hash.Short(), statefs.ErrDamaged)
	}
	v.values.put(n.top(), values)
	return values, nil
}

// sealCopy makes a file of its own with the same content.
func (v *Volume) sealCopy(from *sealed) (*sealed, error) {
	s := *from
	s.fresh, s.lay, s.apart, s.same = nil, nil, true, false
	if from.size == 0 {
		s.obj, s.sig = 0, 0
		return &s, nil
	}
	if from.size <= packBelow {
		data := make([]byte, from.size)
		c, err := v.openContent(from.obj, from.lay, from.size)
		if err == nil {
			err = c.read(len(c.over), data, 0)
			c.close()
		}
		if err == nil && digest.Sum(data) != from.hash {
			err = statefs.ErrDamaged
		}
		if err != nil {
			return nil, err
		}
		if s.obj, err = v.pack(data); err != nil {
			return nil, err
		}
		s.sig, s.fresh = 0, []uint64{s.obj}
		return &s, nil
	}
	id, fd, err := v.store.create()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	s.obj = id
	s.fresh = []uint64{id}
	c, err := v.openContent(from.obj, from.lay, from.size)
	if err == nil {
		err = copyPlain(fd, c, from.size)
		c.close()
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil {
		if _, count := statefs.Groups(s.size); count > 1 {
			var values []digest.Hash
			if values, err = v.valuesFor(from); err == nil {
				err = v.keepValues(id, &side{size: s.size, values: values})
			}
		}
	}
	if err != nil {
		v.reap(id, 0)
		return nil, err
	}
	s.sig, s.blocks = sigOf(&st), blocksOf(&st)
	return &s, nil
}

func (v *Volume) valuesFor(s *sealed) ([]digest.Hash, error) {
	n := &node{obj: s.obj, size: s.size, hash: s.hash}
	if len(s.lay) > 0 {
		n.body = &layers{s.lay}
	}
	return v.valuesOf(context.Background(), n)
}

// sealTree makes the nodes of a version out of the working tree. The caller holds
// v.mu for writing.
func (v *Volume) sealTree(contents []*sealed, ch *Changes) error {
	run := v.run.id
	for _, in := range v.run.touched {
		if in.nlink > 0 && kindOf(in.mode) == 0 {
			v.log.Warn("removed from the state: not a file, folder or link", "name", in.name)
			for _, r := range append([]nameRef{{in.parent, in.name}}, in.more...) {
				ch.Names = append(ch.Names, Name{r.parent.ino, r.name})
				v.leave(r.parent, r.name, in, r.parent.mtime)
			}
			in.nlink, in.parent, in.name, in.more = 0, nil, "", nil
		}
	}
	done := make(map[*inode]bool, len(contents))
	for _, s := range contents {
		in := s.in
		if s.apart {
			in = v.part(s, ch)
		}
		if b := in.undo.base; b != nil && !s.apart && !s.same && s.hash == b.hash && s.size == b.size {
			v.keepBase(in, s, b)
		}
		n := v.fileNode(in, s)
		done[in] = true
		if n != in.n {
			s.name.parent.dir.set(s.name.name, n, run)
			in.n = n
		}
	}
	// Attributes of everything else but folders.
	for _, in := range v.run.touched {
		if in.nlink == 0 || in.isDir() || done[in] {
			continue
		}
		n := *in.n
		n.mode, n.mtime, n.ctime, n.atime = uint16(in.mode), in.mtime, in.ctime, in.atime
		if !sameNode(&n, in.n) || in.undo.base == nil {
			in.n = &n
			in.parent.dir.set(in.name, in.n, run)
		}
	}
	return v.sealDirs(ch)
}

// keepBase goes back to the objects of the version before for a content that was
// rewritten as it was. The caller holds mu.
func (v *Volume) keepBase(in *inode, s *sealed, base *node) {
	f := in.file
	if f == nil || !f.own && !f.fresh || f.open != nil || !f.io.TryLock() {
		return
	}
	defer f.io.Unlock()
	v.reap(f.obj, s.size)
	if f.scratch != nil {
		f.scratch.put()
	}
	f.obj, f.lay, f.own, f.fresh, f.scratch = base.obj, base.layers(), false, false, nil
	s.obj, s.lay, s.sig, s.blocks = base.obj, base.layers(), base.sig, base.blocks
}

// part gives a name an inode of its own.
func (v *Volume) part(s *sealed, ch *Changes) *inode {
	old := s.in
	ino := Ino(v.nextIno.Add(1))
	in := &inode{ino: ino, mode: old.mode, nlink: 1, size: s.size, blocks: s.blocks, mtime: old.mtime, ctime: old.ctime, atime: old.atime,
		parent: s.name.parent, name: s.name.name, undo: &undo{}}
	in.n = &node{ino: ino, mode: uint16(in.mode)}
	v.live[ino] = in
	v.run.touched = append(v.run.touched, in)
	ch.Names = append(ch.Names, Name{s.name.parent.ino, s.name.name})
	ch.Inos = append(ch.Inos, old.ino)
	if old.parent == s.name.parent && old.name == s.name.name {
		old.parent, old.name = nil, ""
		if len(old.more) > 0 {
			last := old.more[len(old.more)-1]
			old.parent, old.name, old.more = last.parent, last.name, old.more[:len(old.more)-1]
		}
	} else {
		for i, m := range old.more {
			if m == s.name {
				old.more = append(old.more[:i:i], old.more[i+1:]...)
				break
			}
		}
	}
	old.nlink--
	return in
}

// fileNode returns the node for a sealed file: the old one if nothing differs.
func (v *Volume) fileNode(in *inode, s *sealed) *node {
	mtime, ctime := in.mtime, in.ctime
	if s.mtime != 0 && s.mtime != mtime {
		mtime, ctime = s.mtime, max(ctime, s.mtime)
	}
	in.size, in.blocks, in.mtime, in.ctime = s.size, s.blocks, mtime, ctime
	n := &node{
		ino: in.ino, mode: uint16(in.mode), size: s.size, hash: s.hash, obj: s.obj, sig: s.sig, blocks: s.blocks,
		mtime: mtime, ctime: ctime, atime: in.atime,
	}
	if len(s.lay) > 0 {
		n.body = &layers{s.lay}
	}
	if in.undo.base != nil && (s.same || sameNode(n, in.n)) {
		n.body = in.n.body
		if sameNode(n, in.n) {
			return in.n
		}
	}
	return n
}

// sameNode compares everything but the layers, which do not change without the
// hash.
func sameNode(a, b *node) bool {
	return a.ino == b.ino && a.size == b.size && a.hash == b.hash && a.mtime == b.mtime && a.ctime == b.ctime && a.atime == b.atime &&
		a.obj == b.obj && a.sig == b.sig && a.mode == b.mode
}

// sealDirs makes new nodes for all folders above something new.
func (v *Volume) sealDirs(ch *Changes) error {
	run := v.run.id
	depth := make(map[*inode]int)
	var level func(in *inode) int
	level = func(in *inode) int {
		if d, ok := depth[in]; ok {
			return d
		}
		d := 0
		if in.parent != nil {
			d = level(in.parent) + 1
		}
		depth[in] = d
		return d
	}
	for _, in := range append([]*inode(nil), v.run.touched...) {
		if in.nlink == 0 {
			continue
		}
		if !in.isDir() {
			in = in.parent
		}
		if d := level(in); d > statefs.MaxDepth {
			return fmt.Errorf("%s: folders are nested deeper than %d", in.name, statefs.MaxDepth)
		}
	}
	dirs := make([]*inode, 0, len(depth))
	for in := range depth {
		dirs = append(dirs, in)
	}
	sort.Slice(dirs, func(i, j int) bool { return depth[dirs[i]] > depth[dirs[j]] })
	buf := make([]byte, 0, 4<<10)
	for _, in := range dirs {
		v.touch(in)
		dv, err := recut(in.dir.pages, buf)
		if err != nil {
			return fmt.Errorf("folder %s: %w", in.name, err)
		}
		dv.subdirs = in.dir.subdirs
		if dv.count != in.dir.count {
			return fmt.Errorf("folder %s has %d entries and counts %d: %w", in.name, dv.count, in.dir.count, errBroken)
		}
		enc, err := dv.encode(buf)
		if err != nil {
			return fmt.Errorf("folder %s: %w", in.name, err)
		}
		n := &node{
			ino: in.ino, mode: uint16(in.mode), hash: statefs.HashDir(enc), body: dv,
			mtime: in.mtime, ctime: in.ctime, atime: in.atime,
		}
		in.n = n
		in.dir.pages, in.dir.run = dv.pages, 0
		if in.parent != nil {
			in.parent.dir.set(in.name, n, run)
		}
	}
	return nil
}

var errBroken = errors.New("the working tree is inconsistent")

// diffPages calls fn with every entry in which two folders differ: n is nil for a
// name that is gone. Pages that both share cost nothing.
func diffPages(old, next []*page, fn func(name string, n *node)) {
	oi, oj, ni, nj := 0, 0, 0, 0
	for {
		for oi < len(old) && oj == len(old[oi].ents) {
			oi, oj = oi+1, 0
		}
		for ni < len(next) && nj == len(next[ni].ents) {
			ni, nj = ni+1, 0
		}
		if oi < len(old) && ni < len(next) && oj == 0 && nj == 0 && old[oi] == next[ni] {
			oi, ni = oi+1, ni+1
			continue
		}
		switch {
		case oi == len(old) && ni == len(next):
			return
		case oi == len(old):
			fn(next[ni].ents[nj].name, next[ni].ents[nj].n)
			nj++
			continue
		case ni == len(next):
			fn(old[oi].ents[oj].name, nil)
			oj++
			continue
		}
		a, b := &old[oi].ents[oj], &next[ni].ents[nj]
		switch {
		case a.name == b.name:
			if a.n != b.n {
				fn(b.name, b.n)
			}
			oj, nj = oj+1, nj+1
		case a.name < b.name:
			fn(a.name, nil)
			oj++
		default:
			fn(b.name, b.n)
			nj++
		}
	}
}
