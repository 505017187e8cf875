package statefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"evernode/internal/digest"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// ErrMismatch is returned for data that does not have the hash it was asked by.
var ErrMismatch = errors.New("data does not match its hash")

// Staging is where a state is put together from fetched pieces. Everything is
// checked before it is kept, and what is kept survives Close and a crash: the
// next Staging, for whatever version, goes on with it. Its methods may be called
// from several goroutines.
type Staging interface {
	// HasTree reports whether the folder at path has this hash already, so that
	// nothing below it need be looked at.
	HasTree(path string, hash digest.Hash) bool
	// Node returns the folder node or page with this hash if it is on disk.
	Node(hash digest.Hash) ([]byte, bool)
	// PutNode adds a folder node (RefDir) or page (RefPage).
	PutNode(kind RefKind, hash digest.Hash, data []byte) error
	// HasFile reports whether the content of a file is at hand.
	HasFile(hash digest.Hash) bool
	// PutFile adds a file of one group.
	PutFile(hash digest.Hash, data []byte) error
	// OpenFile begins or goes on with a file of several groups at path. list is
	// the content of its RefList object. Groups that an earlier attempt fetched
	// or that the local file at path has are taken from there.
	OpenFile(ctx context.Context, path string, size uint64, hash digest.Hash, list []byte) (StagedFile, error)
	// Switch makes the version, all of whose pieces are there, the agreed one
	// and brings the working folder to it. ErrNotFound when a piece is missing
	// after all, ErrBusy while a run is open.
	Switch(ctx context.Context, v Version, patch []byte) error
	// Close ends the staging; what was fetched stays for the next.
	Close() error
}

// StagedFile is a file of several groups on its way.
type StagedFile interface {
	// Missing returns the groups that are still to be fetched, in order.
	Missing() []uint32
	// Put adds a group.
	Put(index uint32, data []byte) error
	// Close ends the work on the file. When no group is missing the file is
	// there from then on.
	Close() error
}

// staging is the open Staging of a Dir. Its folder, store/sync, holds folder
// nodes in a pack of their own, files by their hash, and files on their way as
// <hash>.part.
type staging struct {
	d    *Dir
	dir  int
	pack *nodePack

	mu     sync.Mutex
	local  map[digest.Hash]place // files of the sides
	staged map[digest.Hash]bool
	trees  []*node
	closed bool
}

const partSuffix = ".part"

// Stage implements State.
func (d *Dir) Stage(ctx context.Context) (_ Staging, err error) {
	if err := d.enter(); err != nil {
		return nil, fmt.Errorf("open staging: %w", err)
	}
	defer d.leave()
	d.mu.Lock()
	if d.staging != nil {
		err = errors.New("a staging is open already")
	}
	s := &staging{d: d, dir: -1, staged: make(map[digest.Hash]bool)}
	if err == nil {
		d.staging = s
	}
	d.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("open staging: %w", err)
	}
	defer func() {
		if err != nil {
			s.Close()
			err = fmt.Errorf("open staging: %w", err)
		}
	}()
	path := filepath.Join(d.paths.store, "sync")
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	if s.dir, err = openDir(unix.AT_FDCWD, path); err != nil {
		return nil, err
	}
	if s.pack, err = openPack(filepath.Join(path, "folders")); err != nil {
		return nil, err
	}
	list, err := names(s.dir, make([]byte, 16<<10))
	if err != nil {
		return nil, err
	}
	for _, name := range list {
		h, err := digest.Parse(name)
		if err != nil {
			continue
		}
		ok := d.provenStart
		if !ok {
			if ok, err = s.check(ctx, name, h); err != nil {
				return nil, err
			}
		}
		if ok {
			s.staged[h] = true
		} else if err := removeAt(s.dir, name); err != nil {
			return nil, err
		}
	}
	return s, s.takeStock(ctx)
}

func (s *staging) check(ctx context.Context, name string, h digest.Hash) (bool, error) {
	f, err := openFileAt(s.dir, name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	return hasContent(ctx, f, uint64(st.Size()), h)
}

// takeStock lists what the sides hold. After damage they are hashed anew.
func (s *staging) takeStock(ctx context.Context) error {
	d := s.d
	d.settling.Lock()
	defer d.settling.Unlock()
	local := make(map[digest.Hash]place)
	var trees []*node
	for _, side := range d.sides {
		d.mu.Lock()
		tree := side.holds.tree
		d.mu.Unlock()
		if tree == nil {
			var err error
			if tree, err = d.scanSide(ctx, side, nil); err != nil {
				return err
			}
			d.mu.Lock()
			side.holds.tree = tree
			d.mu.Unlock()
		}
		trees = append(trees, tree)
		err := added(nil, tree, "", func(path string, n *node) error {
			local[n.Hash] = place{side.state, path, n}
			return nil
		})
		if err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.local, s.trees = local, trees
	return nil
}

// HasTree implements Staging.
func (s *staging) HasTree(path string, hash digest.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.trees {
		if n := t.find(path); n != nil && n.Kind == KindDir && n.Hash == hash && s.d.pack.has(hash) {
			return true
		}
	}
	return false
}

// Node implements Staging.
func (s *staging) Node(hash digest.Hash) ([]byte, bool) {
	if s.d.enter() != nil {
		return nil, false
	}
	defer s.d.leave()
	data, err := s.get(hash)
	return data, err == nil
}

func (s *staging) get(hash digest.Hash) ([]byte, error) {
	if data, err := s.d.pack.get(hash); err == nil {
		return data, nil
	}
	return s.pack.get(hash)
}

// PutNode implements Staging.
func (s *staging) PutNode(kind RefKind, hash digest.Hash, data []byte) error {
	var err error
	switch kind {
	case RefDir:
		if HashDir(data) != hash {
			return ErrMismatch
		}
		if _, err = DecodeDir(data); err == nil {
			err = s.pack.addOne(packDir, hash, data)
		}
	case RefPage:
		if HashPage(data) != hash {
			return ErrMismatch
		}
		if _, err = DecodePage(data); err == nil {
			err = s.pack.addOne(packPage, hash, data)
		}
	default:
		err = fmt.Errorf("kind %d is not a folder node", kind)
	}
	return err
}

// HasFile implements Staging.
func (s *staging) HasFile(hash digest.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.staged[hash] {
		return true
	}
	_, ok := s.local[hash]
	return ok
}

// PutFile implements Staging.
func (s *staging) PutFile(hash digest.Hash, data []byte) error {
	if digest.Sum(data) != hash {
		return ErrMismatch
	}
	if err := s.d.enter(); err != nil {
		return err
	}
	defer s.d.leave()
	s.mu.Lock()
	have := s.staged[hash]
	s.mu.Unlock()
	if have {
		return nil
	}
	tmp := s.d.tmp.name()
	f, err := s.create(s.d.tmp.fd, tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		unix.Unlinkat(s.d.tmp.fd, tmp, 0)
		return err
	}
	return s.arrived(s.d.tmp.fd, tmp, hash)
}

func (s *staging) create(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if o := s.d.cfg.Owner; o != nil {
		if err := f.Chown(o.UID, o.GID); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

func (s *staging) arrived(dir int, name string, hash digest.Hash) error {
	err := unix.Renameat(dir, name, s.dir, hash.String())
	if errors.Is(err, unix.ENOENT) {
		// Two may have worked on one file, when the target changed meanwhile.
		var st unix.Stat_t
		err = unix.Fstatat(s.dir, hash.String(), &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.staged[hash] = true
	s.mu.Unlock()
	return nil
}

// stagedFile is a file of several groups on its way.
type stagedFile struct {
	s      *staging
	f      *os.File
	hash   digest.Hash
	size   uint64
	values []digest.Hash

	mu      sync.Mutex
	missing map[uint32]bool
	order   []uint32
}

// OpenFile implements Staging.
func (s *staging) OpenFile(ctx context.Context, path string, size uint64, hash digest.Hash, list []byte) (StagedFile, error) {
	values, err := parseList(size, hash, list)
	if err != nil {
		return nil, err
	}
	if err := s.d.enter(); err != nil {
		return nil, err
	}
	defer s.d.leave()
	f, err := s.create(s.dir, hash.String()+partSuffix)
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", path, err)
	}
	sf := &stagedFile{s: s, f: f, hash: hash, size: size, values: values, missing: make(map[uint32]bool)}
	for i := range values {
		sf.missing[uint32(i)] = true
	}
	st, err := f.Stat()
	if err == nil && st.Size() > 0 {
		err = sf.take(ctx, f, uint64(st.Size()), false)
	}
	if err == nil {
		err = sf.takeLocal(ctx, path)
	}
	if err == nil {
		err = f.Truncate(int64(size))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("stage %s: %w", path, err)
	}
	for i := range values {
		if sf.missing[uint32(i)] {
			sf.order = append(sf.order, uint32(i))
		}
	}
	return sf, nil
}

// parseList reads and checks the group values of a file.
func parseList(size uint64, hash digest.Hash, list []byte) ([]digest.Hash, error) {
	if size > MaxFileSize {
		return nil, ErrFileTooLarge
	}
	_, count := Groups(size)
	if count < 2 || len(list) != count*digest.Size {
		return nil, fmt.Errorf("list of %d bytes for %d groups: %w", len(list), count, ErrMismatch)
	}
	values := make([]digest.Hash, count)
	for i := range values {
		copy(values[i][:], list[i*digest.Size:])
	}
	if FoldGroups(values) != hash {
		return nil, ErrMismatch
	}
	return values, nil
}

// takeLocal copies the groups that the local file at the same path has, where
// they have not moved.
func (sf *stagedFile) takeLocal(ctx context.Context, path string) error {
	d := sf.s.d
	sf.s.mu.Lock()
	trees := sf.s.trees
	sf.s.mu.Unlock()
	for i, t := range trees {
		n := t.find(path)
		if n == nil || n.Kind != KindFile {
			continue
		}
		if i > 0 && n.Hash == hashAt(trees[0], path) {
			continue
		}
		f, err := openPath(d.sides[i].state, path)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		err = sf.take(ctx, f, n.Size, true)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func hashAt(t *node, path string) digest.Hash {
	if n := t.find(path); n != nil {
		return n.Hash
	}
	return digest.Hash{}
}

// take looks for missing groups at their place in src, on all cores.
func (sf *stagedFile) take(ctx context.Context, src *os.File, have uint64, copyThem bool) error {
	var open []uint32
	for i := range sf.values {
		off, n := groupRange(sf.size, i)
		if sf.missing[uint32(i)] && off+n <= have {
			open = append(open, uint32(i))
		}
	}
	workers := min(runtime.GOMAXPROCS(0), (len(open)+15)/16)
	g, gctx := errgroup.WithContext(ctx)
	for w := range workers {
		g.Go(func() error {
			group, _ := Groups(sf.size)
			buf := make([]byte, group)
			for _, i := range open[w*len(open)/workers : (w+1)*len(open)/workers] {
				if err := gctx.Err(); err != nil {
					return err
				}
				off, n := groupRange(sf.size, int(i))
				data := buf[:n]
				err := readFull(src, data, int64(off))
				if errors.Is(err, errShrunk) {
					return nil
				}
				if err != nil {
					return err
				}
				if GroupValue(sf.size, int(i), data) != sf.values[i] {
					continue
				}
				if copyThem {
					if _, err := sf.f.WriteAt(data, int64(off)); err != nil {
						return err
					}
				}
				sf.mu.Lock()
				delete(sf.missing, i)
				sf.mu.Unlock()
			}
			return nil
		})
	}
	return g.Wait()
}

// Missing implements StagedFile.
func (sf *stagedFile) Missing() []uint32 { return sf.order }

// Put implements StagedFile.
func (sf *stagedFile) Put(index uint32, data []byte) error {
	if int64(index) >= int64(len(sf.values)) {
		return fmt.Errorf("group %d of %d", index, len(sf.values))
	}
	off, n := groupRange(sf.size, int(index))
	if uint64(len(data)) != n || GroupValue(sf.size, int(index), data) != sf.values[index] {
		return ErrMismatch
	}
	if _, err := sf.f.WriteAt(data, int64(off)); err != nil {
		return fmt.Errorf("stage group %d: %w", index, err)
	}
	sf.mu.Lock()
	delete(sf.missing, index)
	sf.mu.Unlock()
	return nil
}

// Close implements StagedFile.
func (sf *stagedFile) Close() error {
	if err := sf.f.Close(); err != nil {
		return err
	}
	sf.mu.Lock()
	defer sf.mu.Unlock()
	if len(sf.missing) > 0 {
		return nil
	}
	return sf.s.arrived(sf.s.dir, sf.hash.String()+partSuffix, sf.hash)
}

// Switch implements Staging.
func (s *staging) Switch(ctx context.Context, v Version, patch []byte) error {
	if err := s.change(ctx, v, patch); err != nil {
		return fmt.Errorf("switch to state %s: %w", v.Root.Short(), err)
	}
	return nil
}

func (s *staging) change(ctx context.Context, v Version, patch []byte) error {
	d := s.d
	if err := d.enter(); err != nil {
		return err
	}
	defer d.leave()
	if v.Patch.IsZero() {
		patch = nil
	} else if HashPatch(patch) != v.Patch {
		return fmt.Errorf("patch.cfg: %w", ErrMismatch)
	}
	d.settling.Lock()
	defer d.settling.Unlock()
	_, done, err := d.exclude()
	if err != nil {
		return err
	}
	defer done()
	tree, err := load(v.Root, s.get)
	if err != nil {
		return err
	}
	if err := s.provide(ctx, tree); err != nil {
		return err
	}
	if err := d.adopt(ctx, version{v, tree, bytes.Clone(patch)}); err != nil {
		return err
	}
	if err := d.restoreOrDamaged(ctx); err != nil {
		return err
	}
	d.step("before the staging is cleared")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clear()
}

// provide puts every file that neither side has at its place into objects.
func (s *staging) provide(ctx context.Context, tree *node) error {
	d := s.d
	d.mu.Lock()
	a, b := d.sides[0].holds.tree, d.sides[1].holds.tree
	pending := make(map[content]string, len(d.pending))
	for c, name := range d.pending {
		pending[c] = name
	}
	d.mu.Unlock()
	gen := d.generation.Add(1)
	err := added(a, tree, "", func(path string, n *node) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if b != nil {
			if f := b.find(path); f != nil && f.same(n) {
				return nil
			}
		}
		c := content{n.Hash, n.Mode}
		if _, ok := pending[c]; ok {
			return nil
		}
		name := objectName(c, gen)
		d.step("before a fetched file is taken over")
		if err := s.provideFile(ctx, n, name); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		pending[c] = name
		return nil
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.pending = pending
	d.mu.Unlock()
	return nil
}

func (s *staging) provideFile(ctx context.Context, n *node, name string) error {
	d := s.d
	mode := d.viewMode(n.Mode)
	key := n.Hash.String()
	s.mu.Lock()
	staged := s.staged[n.Hash]
	at, local := s.local[n.Hash]
	s.mu.Unlock()
	if staged {
		// A second name, so that nothing is lost when this does not come to its
		// end; a further mode needs a copy of its own.
		var st unix.Stat_t
		if err := unix.Fstatat(s.dir, key, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Nlink == 1 {
			if err := unix.Fchmodat(s.dir, key, uint32(mode), 0); err != nil {
				return err
			}
			return linkInto(d.tmp, s.dir, key, d.objects, name, mode)
		}
		at = place{s.dir, key, n}
	} else if !local {
		return ErrNotFound
	}
	f, err := openPath(at.dir, at.path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return ErrNotFound // a side has moved on meanwhile
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := copyInto(d.tmp, f, d.objects, name, mode); err != nil {
		return err
	}
	out, err := openFileAt(d.objects, name)
	if err != nil {
		return err
	}
	defer out.Close()
	ok, err := hasContent(ctx, out, n.Size, n.Hash)
	if err == nil && !ok {
		err = ErrNotFound
		s.mu.Lock()
		delete(s.local, n.Hash)
		s.mu.Unlock()
	}
	return err
}

// clear removes what was fetched. The caller holds mu.
func (s *staging) clear() error {
	list, err := names(s.dir, make([]byte, 16<<10))
	if err != nil {
		return err
	}
	for _, name := range list {
		if _, err := digest.Parse(strings.TrimSuffix(name, partSuffix)); err != nil {
			continue
		}
		if err := removeAt(s.dir, name); err != nil {
			return err
		}
	}
	clear(s.staged)
	return s.pack.empty()
}

// Close implements Staging.
func (s *staging) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	closeFd(s.dir)
	var err error
	if s.pack != nil {
		err = s.pack.close()
	}
	s.d.mu.Lock()
	if s.d.staging == s {
		s.d.staging = nil
	}
	s.d.mu.Unlock()
	return err
}

var _ State = (*Dir)(nil)
