package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"
	"sync"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Staging is where a state is put together from fetched pieces; it implements
// statefs.Staging.
type Staging struct {
	v *Volume
	s *stageStore

	mu sync.Mutex
	// local is what the agreed version has, found when first asked for.
	local  *localIndex
	byPath map[string]*StagedFile // the last file at a path, closed or not
	closed bool
	// asked are the files that the state that is being fetched has, full that the
	// disk was full. Guarded by stageStore.mu.
	asked map[digest.Hash]bool
	full  bool
}

// localIndex finds the parts of a version by their hashes.
type localIndex struct {
	root  *node
	dirs  map[digest.Hash]*dirver
	pages map[digest.Hash]*page
	files map[digest.Hash]*node
}

// Stage opens the area in which a state is put together from fetched pieces. At
// most one is open.
func (v *Volume) Stage(ctx context.Context) (statefs.Staging, error) {
	if err := v.enterOp(); err != nil {
		return nil, fmt.Errorf("open staging: %w", err)
	}
	defer v.op.Unlock()
	s := &Staging{v: v, s: v.stage, byPath: make(map[string]*StagedFile), asked: make(map[digest.Hash]bool)}
	v.stage.mu.Lock()
	defer v.stage.mu.Unlock()
	if v.stage.open != nil {
		return nil, errors.New("open staging: a staging is open already")
	}
	v.stage.open = s
	return s, nil
}

// index returns what the agreed version has.
func (s *Staging) index() *localIndex {
	s.v.mu.RLock()
	root := s.v.agreed.root
	s.v.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.local != nil && s.local.root == root {
		return s.local
	}
	l := &localIndex{
		root: root, dirs: make(map[digest.Hash]*dirver), pages: make(map[digest.Hash]*page), files: make(map[digest.Hash]*node),
	}
	var walk func(n *node)
	walk = func(n *node) {
		d := n.dir()
		l.dirs[n.hash] = d
		for _, p := range d.pages {
			if len(d.pages) > 1 {
				l.pages[p.hash] = p
			}
			for i := range p.ents {
				switch k := p.ents[i].n; k.kind() {
				case statefs.KindDir:
					walk(k)
				case statefs.KindFile:
					l.files[k.hash] = k
				}
			}
		}
	}
	walk(root)
	s.local = l
	return l
}

// HasTree reports whether the folder at path has this hash already.
func (s *Staging) HasTree(path string, hash digest.Hash) bool {
	s.v.mu.RLock()
	root := s.v.agreed.root
	s.v.mu.RUnlock()
	n := root.find(path)
	return n != nil && n.kind() == statefs.KindDir && n.hash == hash
}

// Node returns the folder node or page with this hash if it is on disk.
func (s *Staging) Node(hash digest.Hash) ([]byte, bool) {
	data, err := s.get(s.index(), hash)
	return data, err == nil
}

func (s *Staging) get(l *localIndex, hash digest.Hash) ([]byte, error) {
	if d := l.dirs[hash]; d != nil {
		return d.encode(nil)
	}
	if p := l.pages[hash]; p != nil {
		return p.encode(nil), nil
	}
	return s.s.node(hash)
}

// PutNode adds a folder node (RefDir) or page (RefPage).
func (s *Staging) PutNode(kind statefs.RefKind, hash digest.Hash, data []byte) error {
	switch kind {
	case statefs.RefDir:
		if statefs.HashDir(data) != hash {
			return statefs.ErrMismatch
		}
		if _, err := statefs.DecodeDir(data); err != nil {
			return err
		}
	case statefs.RefPage:
		if statefs.HashPage(data) != hash {
			return statefs.ErrMismatch
		}
		if _, err := statefs.DecodePage(data); err != nil {
			return err
		}
	default:
		return fmt.Errorf("kind %d is not a folder node", kind)
	}
	return s.room(func() error { return s.s.addNode(kind, hash, data) })
}

// HasFile reports whether the content of a file is at hand.
func (s *Staging) HasFile(hash digest.Hash) bool {
	s.s.mu.Lock()
	_, ok := s.s.files[hash]
	s.asked[hash] = true
	s.s.mu.Unlock()
	return ok || s.index().files[hash] != nil
}

// PutFile adds a file of one group.
func (s *Staging) PutFile(hash digest.Hash, data []byte) error {
	if digest.Sum(data) != hash {
		return statefs.ErrMismatch
	}
	s.ask(hash)
	return s.room(func() error { return s.putFile(hash, data) })
}

func (s *Staging) putFile(hash digest.Hash, data []byte) error {
	s.s.mu.Lock()
	_, have := s.s.files[hash]
	s.s.mu.Unlock()
	if have {
		return nil
	}
	if len(data) > packBelow {
		return fmt.Errorf("stage a file: %d bytes are more than one group", len(data))
	}
	id, err := s.v.pack(data)
	if err != nil {
		return fmt.Errorf("stage a file: %w", err)
	}
	s.v.step("fetched file written")
	return s.arrived(hash, stageFile{id, uint64(len(data))}, false)
}

// arrived notes that a file is there. part says that it was on its way for a
// while.
func (s *Staging) arrived(hash digest.Hash, f stageFile, part bool) error {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	if part && s.s.parts[hash].obj != f.obj {
		return nil // there already, or a Switch has done away with it
	}
	if old, ok := s.s.files[hash]; ok {
		if old.obj != f.obj {
			s.v.reap(f.obj, f.size) // two have fetched it
		}
		return nil
	}
	s.s.files[hash] = f
	delete(s.s.parts, hash)
	return s.s.addFile(recFile, hash, f)
}

// StagedFile is a file of several groups on its way; it implements
// statefs.StagedFile.
type StagedFile struct {
	s      *Staging
	fd     int
	obj    uint64
	hash   digest.Hash
	size   uint64
	values []digest.Hash
	order  []uint32

	mu     sync.Mutex
	have   []bool
	left   int
	closed bool
}

// OpenFile begins or goes on with a file of several groups at path.
func (s *Staging) OpenFile(ctx context.Context, path string, size uint64, hash digest.Hash, list []byte) (statefs.StagedFile, error) {
	values, err := statefs.ParseList(size, hash, list)
	if err != nil {
		return nil, err
	}
	sf := &StagedFile{s: s, fd: -1, hash: hash, size: size, values: values, have: make([]bool, len(values)), left: len(values)}
	s.ask(hash)
	s.mu.Lock()
	before := s.byPath[path]
	s.byPath[path] = sf
	s.mu.Unlock()
	err = s.room(func() error {
		if sf.fd >= 0 {
			unix.Close(sf.fd)
			sf.fd = -1
		}
		return sf.open(ctx, path, before)
	})
	if err != nil {
		if sf.fd >= 0 {
			unix.Close(sf.fd)
		}
		return nil, fmt.Errorf("stage %s: %w", path, err)
	}
	return sf, nil
}

func (sf *StagedFile) open(ctx context.Context, path string, before *StagedFile) error {
	v, st := sf.s.v, sf.s.s
	st.mu.Lock()
	whole, done := st.files[sf.hash]
	part, begun := st.parts[sf.hash]
	st.mu.Unlock()
	var err error
	switch {
	case done:
		sf.obj = whole.obj
		for i := range sf.have {
			sf.have[i] = true
		}
		sf.left = 0
		sf.fd, err = v.store.openFd(sf.obj, unix.O_RDONLY)
		return err
	case begun:
		sf.obj = part.obj
		if sf.fd, err = v.store.openFd(sf.obj, unix.O_RDWR); err != nil {
			return err
		}
		if err := sf.check(ctx); err != nil {
			return err
		}
	default:
		if sf.obj, sf.fd, err = v.store.create(); err != nil {
			return err
		}
		if err := unix.Ftruncate(sf.fd, int64(sf.size)); err != nil {
			v.reap(sf.obj, 0)
			return err
		}
		st.mu.Lock()
		st.parts[sf.hash] = stageFile{sf.obj, sf.size}
		err := st.addFile(recPart, sf.hash, stageFile{sf.obj, sf.size})
		st.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if before != nil && before.hash != sf.hash {
		if err := sf.takeFrom(ctx, before.values, before.has, fdAt{v, before.obj}); err != nil {
			return err
		}
	}
	v.mu.RLock()
	n := v.agreed.root.find(path)
	v.mu.RUnlock()
	if n != nil && n.kind() == statefs.KindFile {
		if err := sf.takeLocal(ctx, n); err != nil {
			return err
		}
	}
	sf.order = sf.order[:0]
	for i := range sf.have {
		if !sf.have[i] {
			sf.order = append(sf.order, uint32(i))
		}
	}
	return nil
}

func (sf *StagedFile) has(i int) bool {
	sf.mu.Lock()
	defer sf.mu.Unlock()
	return sf.have[i]
}

func (sf *StagedFile) got(i int) {
	sf.mu.Lock()
	defer sf.mu.Unlock()
	if !sf.have[i] {
		sf.have[i] = true
		sf.left--
	}
}

// fdAt reads an object that may be gone by now.
type fdAt struct {
	v   *Volume
	obj uint64
}

func (r fdAt) ReadAt(p []byte, off int64) (int, error) {
	fd, err := r.v.store.openFd(r.obj, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return fdReader(fd).ReadAt(p, off)
}

// check finds out which groups an earlier process has put.
func (sf *StagedFile) check(ctx context.Context) error {
	group, count := statefs.Groups(sf.size)
	workers := min(runtime.GOMAXPROCS(0), (count+15)/16)
	g, gctx := errgroup.WithContext(ctx)
	for w := range workers {
		g.Go(func() error {
			buf := make([]byte, group)
			for i := w * count / workers; i < (w+1)*count/workers; i++ {
				if err := gctx.Err(); err != nil {
					return err
				}
				off, n := statefs.GroupRange(sf.size, i)
				if got, err := (fdReader(sf.fd)).ReadAt(buf[:n], int64(off)); got < int(n) && err != nil && !errors.Is(err, io.EOF) {
					return err
				} else if got == int(n) && statefs.GroupValue(sf.size, i, buf[:n]) == sf.values[i] {
					sf.got(i)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// takeLocal takes the groups that the agreed file at the same path has.
func (sf *StagedFile) takeLocal(ctx context.Context, n *node) error {
	a, _ := statefs.Groups(n.size)
	b, _ := statefs.Groups(sf.size)
	if _, count := statefs.Groups(n.size); count < 2 || a != b {
		return nil
	}
	values, err := sf.s.v.valuesOf(ctx, n)
	if err != nil {
		return nil // then it is fetched
	}
	c, err := sf.s.v.openContent(n.obj, n.layers(), n.size)
	if err != nil {
		return nil
	}
	defer c.close()
	return sf.takeFrom(ctx, values, func(int) bool { return true }, c)
}

// takeFrom copies groups that another file has at the same place.
func (sf *StagedFile) takeFrom(ctx context.Context, values []digest.Hash, has func(int) bool, r io.ReaderAt) error {
	group, _ := statefs.Groups(sf.size)
	buf := make([]byte, group)
	for i := range min(len(values), len(sf.values)) {
		if values[i] != sf.values[i] || sf.has(i) || !has(i) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		off, n := statefs.GroupRange(sf.size, i)
		if got, _ := r.ReadAt(buf[:n], int64(off)); got < int(n) || statefs.GroupValue(sf.size, i, buf[:n]) != values[i] {
			continue
		}
		if _, err := pwrite(sf.fd, buf[:n], int64(off)); err != nil {
			return err
		}
		sf.got(i)
	}
	return nil
}

// Missing returns the groups that are still to be fetched, in order.
func (sf *StagedFile) Missing() []uint32 { return sf.order }

// Put adds a group.
func (sf *StagedFile) Put(index uint32, data []byte) error {
	if int64(index) >= int64(len(sf.values)) {
		return fmt.Errorf("group %d of %d", index, len(sf.values))
	}
	if _, n := statefs.GroupRange(sf.size, int(index)); uint64(len(data)) != n {
		return statefs.ErrMismatch
	}
	return sf.PutRun(index, data)
}

// PutRun adds several whole groups in a row, beginning with group first, with one
// write. statefs.ErrMismatch when any of them is wrong; nothing is added then.
func (sf *StagedFile) PutRun(first uint32, data []byte) error {
	group, count := statefs.Groups(sf.size)
	if int64(first) >= int64(count) || len(data) == 0 {
		return fmt.Errorf("%d bytes from group %d of %d", len(data), first, count)
	}
	i := int(first)
	for rest := data; len(rest) > 0; i++ {
		if i >= count {
			return statefs.ErrMismatch
		}
		_, n := statefs.GroupRange(sf.size, i)
		if uint64(len(rest)) < n || statefs.GroupValue(sf.size, i, rest[:n]) != sf.values[i] {
			return statefs.ErrMismatch
		}
		rest = rest[n:]
	}
	err := sf.s.room(func() error {
		return sf.write(data, int64(uint64(first)*group))
	})
	if err != nil {
		return fmt.Errorf("stage group %d: %w", first, err)
	}
	for j := int(first); j < i; j++ {
		sf.got(j)
	}
	return nil
}

// uncachedFrom is the size in bytes from which fetched files are not kept in the
// page cache: filling it costs more than everything else, and whoever reads a
// large state next is another process at another time.
const uncachedFrom = 4 << 20

// rwfDontcache asks that pages are dropped once they are written (Linux 6.14).
const rwfDontcache = 0x80

func (sf *StagedFile) write(data []byte, off int64) error {
	v := sf.s.v
	if sf.size >= uncachedFrom && !v.cachesAll.Load() {
		n, err := retry(func() (int, error) { return unix.Pwritev2(sf.fd, [][]byte{data}, off, rwfDontcache) })
		if err == nil && n == len(data) {
			return nil
		}
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			v.cachesAll.Store(true)
		} else if err != nil {
			return err
		}
	}
	_, err := pwrite(sf.fd, data, off)
	return err
}

// Close ends the work on the file. When no group is missing the file is there
// from then on.
func (sf *StagedFile) Close() error {
	sf.mu.Lock()
	if sf.closed {
		sf.mu.Unlock()
		return os.ErrClosed
	}
	sf.closed = true
	whole := sf.left == 0
	sf.mu.Unlock()
	if err := unix.Close(sf.fd); err != nil {
		return err
	}
	if !whole {
		return nil
	}
	if err := sf.s.v.keepValues(sf.obj, &side{size: sf.size, values: sf.values}); err != nil {
		return err
	}
	return sf.s.arrived(sf.hash, stageFile{sf.obj, sf.size}, true)
}

// Switch makes the version, all of whose pieces are there, the agreed one and
// brings the working tree to it.
func (s *Staging) Switch(ctx context.Context, next statefs.Version, patch []byte) error {
	v := s.v
	if err := v.enterOp(); err != nil {
		return fmt.Errorf("switch to state %s: %w", next.Root.Short(), err)
	}
	err := s.change(ctx, next, patch)
	v.op.Unlock()
	if err != nil {
		return fmt.Errorf("switch to state %s: %w", next.Root.Short(), err)
	}
	v.tell(Changes{All: true})
	return nil
}

// builder puts the tree of a version together.
type builder struct {
	s     *Staging
	ctx   context.Context
	local *localIndex
	now   int64
	taken map[uint64]bool   // staged objects that are part of the new tree
	fresh map[uint64]uint64 // objects made on the way, and their sizes
}

func (s *Staging) change(ctx context.Context, next statefs.Version, patch []byte) (err error) {
	v := s.v
	if next.Patch.IsZero() {
		patch = nil
	} else if statefs.HashPatch(patch) != next.Patch {
		return fmt.Errorf("patch.cfg: %w", statefs.ErrMismatch)
	}
	if v.run != nil {
		return statefs.ErrBusy
	}
	b := &builder{s: s, ctx: ctx, local: s.index(), now: now(), taken: make(map[uint64]bool), fresh: make(map[uint64]uint64)}
	defer func() {
		if err != nil {
			for id := range b.fresh {
				v.reap(id, b.fresh[id])
			}
		}
	}()
	old := v.agreed
	root, err := b.folder("", next.Root, old.root, 0)
	if err != nil {
		return err
	}
	if root == old.root {
		c := *root
		root = &c
	}
	root.ino, root.mode = Root, old.root.mode
	if err := v.flushStaged(); err != nil {
		return err
	}
	ver := &version{Version: next, root: root, patch: bytes.Clone(patch)}
	if patch != nil && ver.patch == nil {
		ver.patch = []byte{}
	}
	v.step("before the fetched version is written down")
	var end int64
	err = v.tlog.listing(ver, Ino(v.nextIno.Load()), &end)
	if err != nil {
		return err
	}
	ver.end = end
	v.step("fetched version written down")
	// The fetched objects belong to the version from here on.
	used := make(map[uint64]bool)
	eachFile(root, "", func(_ string, n *node) error {
		n.objects(func(id, _ uint64) { used[id] = true })
		return nil
	})
	var dead []corpse
	eachFile(old.root, "", func(_ string, n *node) error {
		n.objects(func(id, size uint64) {
			if !used[id] {
				dead = append(dead, corpse{id, size, old.ord + 1})
			}
		})
		return nil
	})
	v.mu.Lock()
	v.damaged = false
	v.dead = append(v.dead, dead...)
	v.became(ver)
	v.retarget(root)
	v.mu.Unlock()
	v.flush.wake()
	s.mu.Lock()
	s.byPath = make(map[string]*StagedFile)
	s.mu.Unlock()
	if err := s.s.clear(v, b.taken); err != nil {
		v.log.Warn("cannot clear what was fetched", "error", err)
	}
	return nil
}

// flushStaged has everything fetched flushed before the next durable mark.
func (v *Volume) flushStaged() error {
	f := &v.flush
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unsynced, f.all = nil, true
	return nil
}

// folder returns the folder with the given hash; old is what is at its path now,
// or nil.
func (b *builder) folder(path string, hash digest.Hash, old *node, depth int) (*node, error) {
	if err := b.ctx.Err(); err != nil {
		return nil, err
	}
	if depth > statefs.MaxDepth {
		return nil, fmt.Errorf("%s: folders are nested deeper than %d", path, statefs.MaxDepth)
	}
	if old != nil && old.kind() != statefs.KindDir {
		old = nil
	}
	if old != nil && old.hash == hash {
		return old, nil
	}
	enc, err := b.s.get(b.local, hash)
	if err != nil {
		return nil, fmt.Errorf("folder %q: %w", path, err)
	}
	l, err := statefs.DecodeDir(enc)
	if err != nil {
		return nil, fmt.Errorf("folder %q: %w", path, err)
	}
	n := &node{mode: unix.S_IFDIR, mtime: b.now, ctime: b.now, atime: b.now}
	var od *dirver
	if old != nil {
		n.ino, od = old.ino, old.dir()
	} else {
		n.ino = Ino(b.s.v.nextIno.Add(1))
	}
	var pages []*page
	subdirs := 0
	add := func(entries []statefs.Entry) error {
		if len(entries) == 0 {
			return nil
		}
		p := &page{ents: make([]ent, 0, len(entries))}
		for i := range entries {
			e := &entries[i]
			var was *node
			if od != nil {
				was = od.find(e.Name)
			}
			k, err := b.entry(join(path, e.Name), e, was, depth)
			if err != nil {
				return err
			}
			if e.Kind == statefs.KindDir {
				subdirs++
			}
			p.ents = append(p.ents, ent{e.Name, k})
		}
		pages = append(pages, p)
		return nil
	}
	if l.Pages == nil {
		err = add(l.Inline)
	}
	for _, h := range l.Pages {
		if p := samePage(od, h); p != nil {
			for i := range p.ents {
				if p.ents[i].n.kind() == statefs.KindDir {
					subdirs++
				}
			}
			pages = append(pages, p)
			continue
		}
		enc, err := b.s.get(b.local, h)
		if err != nil {
			return nil, fmt.Errorf("folder %q: %w", path, err)
		}
		entries, err := statefs.DecodePage(enc)
		if err != nil {
			return nil, fmt.Errorf("folder %q: %w", path, err)
		}
		if err := add(entries); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	for i := 1; i < len(pages); i++ {
		prev := pages[i-1].ents
		if prev[len(prev)-1].name >= pages[i].ents[0].name {
			return nil, fmt.Errorf("folder %q: pages are not in order", path)
		}
	}
	if err := sealFolder(n, pages, subdirs); err != nil {
		return nil, fmt.Errorf("folder %q: %w", path, err)
	}
	if n.hash != hash {
		return nil, fmt.Errorf("folder %q has hash %s, not %s", path, n.hash.Short(), hash.Short())
	}
	return n, nil
}

// samePage returns the page with the given hash of a folder.
func samePage(d *dirver, h digest.Hash) *page {
	if d == nil || len(d.pages) < 2 {
		return nil
	}
	for _, p := range d.pages {
		if p.hash == h {
			return p
		}
	}
	return nil
}

// entry returns the node for one entry; was is what has the name now, or nil.
func (b *builder) entry(path string, e *statefs.Entry, was *node, depth int) (*node, error) {
	v := b.s.v
	if e.Kind == statefs.KindDir {
		n, err := b.folder(path, e.Hash, was, depth+1)
		if err != nil {
			return nil, err
		}
		mode := unix.S_IFDIR | e.Mode
		if n.mode != mode {
			c := *n
			c.mode = mode
			n = &c
		}
		return n, nil
	}
	if was != nil && was.entry(e.Name) == *e {
		return was, nil
	}
	n := &node{mtime: b.now, ctime: b.now, atime: b.now}
	if was != nil && was.kind() == e.Kind && !v.isOpen(was.ino) {
		n.ino = was.ino
	} else {
		n.ino = Ino(v.nextIno.Add(1))
	}
	if e.Kind == statefs.KindSymlink {
		n.mode, n.body = unix.S_IFLNK|0o777, e.Link
		return n, nil
	}
	n.mode, n.size, n.hash = unix.S_IFREG|e.Mode, e.Size, e.Hash
	if was != nil && was.kind() == statefs.KindFile && was.hash == e.Hash && was.size == e.Size {
		n.obj, n.sig, n.blocks, n.body = was.obj, was.sig, was.blocks, was.body
		n.ino, n.mtime = was.ino, was.mtime
		return n, nil
	}
	if err := b.content(n); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

func (v *Volume) isOpen(ino Ino) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	in := v.live[ino]
	return in != nil && in.file != nil && in.file.open != nil
}

// content finds the content of a file.
func (b *builder) content(n *node) error {
	if n.size == 0 {
		return nil
	}
	v := b.s.v
	b.s.s.mu.Lock()
	f, ok := b.s.s.files[n.hash]
	b.s.s.mu.Unlock()
	if ok && f.size == n.size && !b.taken[f.obj] {
		b.taken[f.obj] = true
		n.obj = f.obj
		var err error
		n.sig, n.blocks, err = v.signature(n.obj, nil)
		if packed(n.obj) {
			n.blocks = packedBlocks(n.size)
		}
		return err
	}
	// Somebody else has the object: a further file gets a copy.
	from := &sealed{obj: f.obj, size: f.size, hash: n.hash}
	if !ok || f.size != n.size {
		l := b.local.files[n.hash]
		if l == nil || l.size != n.size {
			return statefs.ErrNotFound
		}
		from.obj, from.lay, from.size = l.obj, l.layers(), l.size
	}
	c, err := v.sealCopy(from)
	if err != nil {
		return err
	}
	for _, id := range c.fresh {
		b.fresh[id] = c.size
	}
	n.obj, n.sig, n.blocks = c.obj, c.sig, c.blocks
	return nil
}

// retarget makes the working tree show another version. The caller holds op and
// mu, and no run is open.
func (v *Volume) retarget(root *node) {
	kids := make(map[*inode][]*inode)
	for _, in := range v.live {
		if in.parent != nil {
			kids[in.parent] = append(kids[in.parent], in)
		}
	}
	for _, list := range kids {
		sort.Slice(list, func(i, j int) bool { return list[i].ino < list[j].ino })
	}
	var lose func(in *inode)
	lose = func(in *inode) {
		delete(v.live, in.ino)
		for _, k := range kids[in] {
			lose(k)
		}
		in.parent, in.name, in.nlink = nil, "", 0
	}
	var keep func(in *inode, n *node)
	keep = func(in *inode, n *node) {
		list := kids[in]
		in.reset(n)
		for _, k := range list {
			if c := in.dir.find(k.name); c != nil && c.ino == k.ino {
				if k.file != nil {
					k.file.obj, k.file.lay = c.obj, c.layers()
				}
				keep(k, c)
			} else {
				lose(k)
			}
		}
	}
	keep(v.root, root)
}

// Close ends the staging; what was fetched stays for the next.
func (s *Staging) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	if s.s.open == s {
		s.s.open = nil
	}
	if s.full {
		// A full disk helps nobody: the next attempt fetches again.
		for id, size := range s.s.objects() {
			s.v.reap(id, size)
		}
		s.s.reset()
		s.s.size, s.s.buf = 0, nil
		return s.s.f.Truncate(0)
	}
	return s.s.write()
}

var _ statefs.Staging = (*Staging)(nil)
