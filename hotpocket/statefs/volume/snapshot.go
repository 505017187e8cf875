package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// Snapshot is an agreed version that stays as it is until Close.
type Snapshot struct {
	v      *Volume
	ver    *version
	root   *node
	closed atomic.Bool
}

// Node is a file, folder or link of a Snapshot. It never changes.
// Nodes of what two versions share are the same.
type Node node

// Snapshot pins the agreed version.
func (v *Volume) Snapshot() (*Snapshot, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.damaged {
		return nil, statefs.ErrDamaged
	}
	v.agreed.pins++
	return &Snapshot{v: v, ver: v.agreed, root: v.agreed.root}, nil
}

// Close lets go of the version.
func (s *Snapshot) Close() error {
	if s.closed.Swap(true) {
		return os.ErrClosed
	}
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	s.ver.pins--
	if s.ver.pins == 0 && s.ver != s.v.agreed {
		s.v.forgetVersions()
		s.v.fold.wake()
	}
	return nil
}

// Version names the version.
func (s *Snapshot) Version() statefs.Version { return s.ver.Version }

// Patch returns its patch.cfg, nil when there is none.
func (s *Snapshot) Patch() []byte { return s.ver.patch }

// Root returns the top folder.
func (s *Snapshot) Root() *Node { return (*Node)(s.root) }

// Attr returns the attributes of n. Numbers are unique within a snapshot.
func (n *Node) Attr() Attr { return (*node)(n).attr() }

// Readlink returns the target of a symbolic link.
func (n *Node) Readlink() (string, error) {
	if (*node)(n).kind() != statefs.KindSymlink {
		return "", unix.EINVAL
	}
	return (*node)(n).link(), nil
}

// Lookup returns the entry name of the folder n; ENOENT, ENOTDIR.
func (n *Node) Lookup(name string) (*Node, error) {
	d := (*node)(n).dir()
	if d == nil {
		return nil, unix.ENOTDIR
	}
	if k := d.find(name); k != nil {
		return (*Node)(k), nil
	}
	return nil, unix.ENOENT
}

// ReadDir calls fn with the entries of the folder n from the given position
// (0 is the first; "." and ".." are not among them) until it returns false. pos
// is where the entry is; pos+1 is behind it, whatever stands there.
func (n *Node) ReadDir(from int, fn func(pos int, name string, k *Node) bool) error {
	d := (*node)(n).dir()
	if d == nil {
		return unix.ENOTDIR
	}
	if from < 0 {
		return unix.EINVAL
	}
	for pi, i := from>>16, from&0xffff; pi < len(d.pages); pi, i = pi+1, 0 {
		ents := d.pages[pi].ents
		for ; i < len(ents); i++ {
			if !fn(pi<<16+i, ents[i].name, (*Node)(ents[i].n)) {
				return nil
			}
		}
	}
	return nil
}

// SnapFile is an open file of a Snapshot. It must be closed before the Snapshot.
type SnapFile struct {
	v      *Volume
	c      *content
	plain  bool // the kernel may read it itself
	closed atomic.Bool
}

// Open opens the regular file n for reading.
func (s *Snapshot) Open(file *Node) (*SnapFile, error) {
	n := (*node)(file)
	switch n.kind() {
	case statefs.KindFile:
	case statefs.KindDir:
		return nil, unix.EISDIR
	default:
		return nil, unix.EINVAL
	}
	v := s.v
	f := &SnapFile{v: v}
	if n.obj != 0 && !packed(n.obj) && len(n.layers()) == 0 && v.cfg.Passthrough {
		v.mu.Lock()
		// What the kernel has open for the working tree may become the run's.
		if v.claims.live[n.obj] == 0 {
			v.claims.views[n.obj]++
			f.plain = true
		}
		v.mu.Unlock()
	}
	c, err := v.openContent(n.obj, n.layers(), n.size)
	if err != nil {
		if f.plain {
			v.mu.Lock()
			drop(v.claims.views, n.obj)
			v.mu.Unlock()
		}
		return nil, errno(err)
	}
	f.c = c
	return f, nil
}

// Backing is as in File; the descriptor must not be used for writing.
func (f *SnapFile) Backing() (fd int, key uint64) {
	if !f.plain {
		return -1, 0
	}
	return f.c.base.fd, f.c.base.id
}

// ReadAt is as in File.
func (f *SnapFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.c.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, errno(err)
	}
	return n, nil
}

// Close ends the use of the file.
func (f *SnapFile) Close() error {
	if f.closed.Swap(true) {
		return unix.EBADF
	}
	if f.plain {
		f.v.mu.Lock()
		drop(f.v.claims.views, f.c.base.id)
		f.v.mu.Unlock()
	}
	f.c.close()
	return nil
}

// Object returns a piece of the agreed state, or of one shortly before it, or of
// one that a Snapshot pins, for a peer. statefs.ErrNotFound when it is not at
// hand.
func (v *Volume) Object(ctx context.Context, ref statefs.Ref) ([]byte, error) {
	return v.AppendObject(ctx, ref, nil)
}

// AppendObject is Object, appending to b.
func (v *Volume) AppendObject(ctx context.Context, ref statefs.Ref, b []byte) ([]byte, error) {
	data, err := v.object(ctx, ref, b)
	if err != nil {
		return nil, fmt.Errorf("object %s of %q: %w", ref.Hash.Short(), ref.Path, err)
	}
	return data, nil
}

// find returns the node at a slash separated path below n, or nil.
func (n *node) find(path string) *node {
	for path != "" && n != nil {
		d := n.dir()
		if d == nil {
			return nil
		}
		var name string
		name, path, _ = strings.Cut(path, "/")
		n = d.find(name)
	}
	return n
}

// hold pins the newest version that has what fn looks for; nil when there is
// none.
func (v *Volume) hold(fn func(*version) bool) *version {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.damaged {
		return nil
	}
	for i := len(v.kept); i >= 0; i-- {
		k := v.agreed
		if i < len(v.kept) {
			k = v.kept[i]
		}
		if fn(k) {
			k.pins++
			k.served = time.Now()
			return k
		}
	}
	return nil
}

func (v *Volume) letGo(k *version) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k.pins--; k.pins == 0 && k != v.agreed && len(v.kept) > keepRecent {
		v.forgetVersions()
	}
}

func (v *Volume) object(ctx context.Context, ref statefs.Ref, b []byte) ([]byte, error) {
	var patch []byte
	var found *node
	var pg *page
	k := v.hold(func(k *version) bool {
		switch ref.Kind {
		case statefs.RefPatch:
			patch = k.patch
			return k.patch != nil && k.Patch == ref.Hash
		case statefs.RefDir, statefs.RefList, statefs.RefData:
			found = k.root.find(ref.Path)
			want := statefs.KindFile
			if ref.Kind == statefs.RefDir {
				want = statefs.KindDir
			}
			return found != nil && found.kind() == want && found.hash == ref.Hash
		case statefs.RefPage:
			found = k.root.find(ref.Path)
			if found == nil || found.dir() == nil || len(found.dir().pages) < 2 {
				return false
			}
			for _, p := range found.dir().pages {
				if p.hash == ref.Hash {
					pg = p
					return true
				}
			}
		}
		return false
	})
	if k == nil {
		return nil, statefs.ErrNotFound
	}
	defer v.letGo(k)
	switch ref.Kind {
	case statefs.RefPatch:
		return append(b, patch...), nil
	case statefs.RefDir:
		enc, err := found.dir().encode(nil)
		return append(b, enc...), err
	case statefs.RefPage:
		return pg.encode(b), nil
	}
	_, count := statefs.Groups(found.size)
	if ref.Kind == statefs.RefList {
		if count < 2 {
			return nil, statefs.ErrNotFound
		}
		values, err := v.valuesOf(ctx, found)
		if err != nil {
			return nil, notFound(err)
		}
		b = slices.Grow(b, count*digest.Size)
		for i := range values {
			b = append(b, values[i][:]...)
		}
		return b, nil
	}
	if int64(ref.Index) >= int64(count) {
		return nil, statefs.ErrNotFound
	}
	c, err := v.openContent(found.obj, found.layers(), found.size)
	if err != nil {
		return nil, notFound(err)
	}
	defer c.close()
	off, n := statefs.GroupRange(found.size, int(ref.Index))
	b = slices.Grow(b, int(n))
	at := len(b)
	b = b[:at+int(n)]
	if err := c.read(len(c.over), b[at:], off); err != nil {
		return nil, err
	}
	return b, nil
}

// notFound makes of a content that is gone one that is not at hand.
func notFound(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, statefs.ErrDamaged) {
		return fmt.Errorf("%w: %w", statefs.ErrNotFound, err)
	}
	return err
}
