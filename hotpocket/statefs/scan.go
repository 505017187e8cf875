package statefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"evernode/internal/digest"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// MaxDepth bounds how deep folders nest, because every level holds a
// descriptor open.
const MaxDepth = 200

// scanner reads a folder into a tree of nodes, hashing only what changed since
// an earlier scan.
type scanner struct {
	log *slog.Logger
	tmp *tmpFolder
	// exactTimes says that the file system gives every change that follows a
	// stat a new ctime, so that no signature is racy.
	exactTimes bool
	// normalise removes what cannot be part of the state and separates hard
	// links, so that the folder holds after the scan exactly what the root
	// says: a node that fetched this root has the same folder.
	normalise bool
	// skipContent leaves changed files and all folders above them without a
	// hash: enough to restore an earlier version.
	skipContent bool
}

// scan returns the tree of the open folder fd. prev, which may be nil, is an
// earlier scan of the same folder.
func (s *scanner) scan(ctx context.Context, fd int, prev *node) (*node, error) {
	// The mode of the top folder is not part of the state, but a contract may
	// have locked it.
	if err := writableDir(fd); err != nil {
		return nil, err
	}
	top := Entry{Kind: KindDir}
	return s.dir(ctx, fd, top, prev, "", 0)
}

func (s *scanner) dir(ctx context.Context, fd int, self Entry, prev *node, path string, depth int) (*node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if depth > MaxDepth {
		return nil, fmt.Errorf("%s: folders are nested deeper than %d", path, MaxDepth)
	}
	if prev != nil && prev.Kind != KindDir {
		prev = nil
	}
	list, err := names(fd, make([]byte, 4<<10))
	if err != nil {
		return nil, fmt.Errorf("read folder %q: %w", path, err)
	}
	n := &node{Entry: self, kids: make([]*node, 0, len(list))}
	var dirty []*node
	complete := true
	j := 0
	for _, name := range list {
		var old *node
		if prev != nil {
			for j < len(prev.kids) && prev.kids[j].Name < name {
				j++
			}
			if j < len(prev.kids) && prev.kids[j].Name == name {
				old = prev.kids[j]
			}
		}
		k, changed, err := s.entry(ctx, fd, name, old, path, depth)
		if err != nil {
			return nil, err
		}
		if k == nil {
			continue
		}
		if changed {
			dirty = append(dirty, k)
		}
		if k.Kind == kindOther || k.Kind == KindDir && k.Hash.IsZero() {
			complete = false
		}
		n.kids = append(n.kids, k)
	}
	if s.skipContent {
		complete = complete && len(dirty) == 0
	} else if gone, err := s.hashFiles(ctx, fd, path, dirty); err != nil {
		return nil, err
	} else if gone {
		kept := n.kids[:0]
		for _, k := range n.kids {
			if k.Kind != kindOther {
				kept = append(kept, k)
			}
		}
		n.kids = kept
	}
	if prev != nil && equalKids(prev.kids, n.kids) {
		if prev.Entry.Mode == self.Mode && !prev.Hash.IsZero() {
			return prev, nil
		}
		n.kids = prev.kids
	}
	if complete {
		if err := n.seal(); err != nil {
			return nil, fmt.Errorf("folder %q: %w", path, err)
		}
	}
	return n, nil
}

func equalKids(a, b []*node) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// entry returns the node of one name. changed means that its content is still
// to be hashed. A nil node stands for a name that is not (any more) there.
func (s *scanner) entry(ctx context.Context, dir int, name string, old *node, path string, depth int) (_ *node, changed bool, _ error) {
	full := join(path, name)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("%s: %w", full, err)
	}
	mode := uint16(st.Mode & modeBits)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.Nlink > 1 && s.normalise {
			if err := s.separate(dir, name, mode); err != nil {
				return nil, false, fmt.Errorf("separate hard link %s: %w", full, err)
			}
			if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return nil, false, fmt.Errorf("%s: %w", full, err)
			}
		}
		if old != nil && old.Kind == KindFile && old.Mode == mode && old.Size == uint64(st.Size) && old.sig == sigOf(&st) {
			return old, false, nil
		}
		return &node{Entry: Entry{Name: name, Kind: KindFile, Mode: mode, Size: uint64(st.Size)}}, true, nil
	case unix.S_IFDIR:
		fd, done, err := openDirAt(dir, name)
		if errors.Is(err, unix.ENOENT) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("open folder %s: %w", full, err)
		}
		defer done()
		k, err := s.dir(ctx, fd, Entry{Name: name, Kind: KindDir, Mode: mode}, old, full, depth+1)
		return k, false, err
	case unix.S_IFLNK:
		target, err := readLinkAt(dir, name)
		if err != nil {
			return nil, false, fmt.Errorf("read link %s: %w", full, err)
		}
		if old != nil && old.Kind == KindSymlink && old.Link == target {
			return old, false, nil
		}
		return &node{Entry: Entry{Name: name, Kind: KindSymlink, Mode: 0o777, Link: target}}, false, nil
	}
	if s.skipContent {
		return &node{Entry: Entry{Name: name, Kind: kindOther}}, false, nil
	}
	if !s.normalise {
		return nil, false, nil
	}
	s.log.Warn("removed from the state what is neither file, folder nor link", "path", full, "mode", fmt.Sprintf("%#o", st.Mode))
	if err := removeAt(dir, name); err != nil {
		return nil, false, fmt.Errorf("remove %s: %w", full, err)
	}
	return nil, false, nil
}

func readLinkAt(dir int, name string) (string, error) {
	var buf [maxTarget + 1]byte
	n, err := unix.Readlinkat(dir, name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// separate gives one name of a file with several an inode of its own.
func (s *scanner) separate(dir int, name string, mode uint16) error {
	f, err := openFileAt(dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	tmp := s.tmp.name()
	if err := copyFile(s.tmp.fd, tmp, f, mode); err != nil {
		return err
	}
	return moveInto(s.tmp.fd, tmp, dir, name)
}

// moveInto renames a temporary file over name in dir, which may belong to
// an unprivileged owner who has locked it.
func moveInto(from int, tmp string, dir int, name string) error {
	err := unix.Renameat(from, tmp, dir, name)
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	var st unix.Stat_t
	if e := unix.Fstat(dir, &st); e != nil {
		return e
	}
	if e := unix.Fchmod(dir, st.Mode&modeBits|0o700); e != nil {
		return err
	}
	err = unix.Renameat(from, tmp, dir, name)
	if e := unix.Fchmod(dir, st.Mode&modeBits); e != nil && err == nil {
		err = e
	}
	return err
}

func sigOf(st *unix.Stat_t) sig {
	return sig{ino: st.Ino, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
}

// hashFiles fills in the hashes of files in one folder, several at a time when
// there are many. gone reports that some vanished meanwhile; their kind is
// kindOther.
func (s *scanner) hashFiles(ctx context.Context, dir int, path string, files []*node) (gone bool, err error) {
	if len(files) == 0 {
		return false, nil
	}
	one := func(ctx context.Context, n *node, buf []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.hashFile(ctx, dir, n, buf)
		if errors.Is(err, unix.ENOENT) {
			n.Kind = kindOther
			return nil
		}
		if err != nil {
			return fmt.Errorf("hash %s: %w", join(path, n.Name), err)
		}
		return nil
	}
	if workers := min(runtime.GOMAXPROCS(0), len(files)/8); workers > 1 {
		g, gctx := errgroup.WithContext(ctx)
		for w := range workers {
			g.Go(func() error {
				buf := make([]byte, minGroup)
				for i := w; i < len(files); i += workers {
					if err := one(gctx, files[i], buf); err != nil {
						return err
					}
				}
				return nil
			})
		}
		err = g.Wait()
	} else {
		var most uint64
		for _, n := range files {
			most = max(most, n.Size)
		}
		buf := make([]byte, min(most, minGroup))
		for _, n := range files {
			if err = one(ctx, n, buf); err != nil {
				break
			}
		}
	}
	if err != nil {
		return false, err
	}
	for _, n := range files {
		gone = gone || n.Kind == kindOther
	}
	return gone, nil
}

// hashAttempts is how often a file that changes while it is read is read again.
const hashAttempts = 3

func (s *scanner) hashFile(ctx context.Context, dir int, n *node, buf []byte) error {
	f, err := openFileAt(dir, n.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	for range hashAttempts {
		tick := coarseNow()
		var before, after unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &before); err != nil {
			return err
		}
		if before.Mode&unix.S_IFMT != unix.S_IFREG {
			return errors.New("is no longer a file")
		}
		h, _, err := hashContent(ctx, f, uint64(before.Size), buf)
		if err != nil && !errors.Is(err, errShrunk) {
			return err
		}
		if e := unix.Fstat(int(f.Fd()), &after); e != nil {
			return e
		}
		if err == nil && sigOf(&before) == sigOf(&after) && before.Size == after.Size {
			n.Mode, n.Size, n.Hash, n.sig = uint16(before.Mode&modeBits), uint64(before.Size), h, sigOf(&before)
			n.sig.racy = !s.exactTimes && n.sig.ctime >= tick
			return nil
		}
	}
	return errors.New("is still being written to")
}

// coarseNow reads the clock by which the kernel stamps files, in nanoseconds.
func coarseNow() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		return 0 // everything counts as racy
	}
	return ts.Nano()
}

// probeTimes finds out whether every change after a stat gets a new ctime in
// this folder's file system: Linux 6.13 and later do that on the usual ones,
// older kernels stamp with the timer tick, up to 10 ms.
func probeTimes(dir int) (bool, error) {
	const name = "probe"
	if err := removeAt(dir, name); err != nil {
		return false, err
	}
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	defer unix.Unlinkat(dir, name, 0)
	var last int64
	for i := range 32 {
		if _, err := f.WriteAt([]byte{byte(i)}, 0); err != nil {
			return false, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return false, err
		}
		if st.Ctim.Nano() <= last {
			return false, nil
		}
		last = st.Ctim.Nano()
	}
	return true, nil
}

// hashPatchAt returns content and hash of a patch.cfg in an open folder. A
// missing file has the zero hash. ok is false for what cannot be a
// configuration: something that is not a file, or one above MaxPatch bytes.
func hashPatchAt(dir int, name string) (content []byte, h digest.Hash, ok bool, err error) {
	f, err := openFileAt(dir, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, digest.Hash{}, true, nil
	case errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO):
		return nil, digest.Hash{}, false, nil
	case err != nil:
		return nil, digest.Hash{}, false, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, digest.Hash{}, false, err
	}
	if !st.Mode().IsRegular() || st.Size() > MaxPatch {
		return nil, digest.Hash{}, false, nil
	}
	content = make([]byte, st.Size())
	if err := readFull(f, content, 0); err != nil {
		return nil, digest.Hash{}, false, fmt.Errorf("read %s: %w", name, err)
	}
	return content, HashPatch(content), true, nil
}
