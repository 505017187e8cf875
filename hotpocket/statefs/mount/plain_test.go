package mount

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"evernode/hotpocket/statefs/volume"

	"golang.org/x/sys/unix"
)

// plainTree is a tree of the simplest kind: names in memory, contents in files
// of a folder, without versions. It lets the tests of the mount fail only where
// the mount is wrong, and can be told to serve everything or to be out of space.
type plainTree struct {
	dir   string
	serve atomic.Bool // no backing files

	mu    sync.Mutex
	files map[volume.Ino]*plainNode
	last  volume.Ino
	full  atomic.Bool
	calls sync.Map // name of a method to *atomic.Int64
}

type plainNode struct {
	attr  volume.Attr
	kids  map[string]volume.Ino
	link  string
	opens int
	up    volume.Ino
	// forgotten: it was unlinked and the kernel does not know it any more.
	forgotten bool
}

func newPlainTree(t testing.TB) *plainTree {
	p := &plainTree{dir: t.TempDir(), files: make(map[volume.Ino]*plainNode), last: volume.Root}
	now := time.Now().UnixNano()
	p.files[volume.Root] = &plainNode{kids: make(map[string]volume.Ino), up: volume.Root, attr: volume.Attr{
		Ino: volume.Root, Mode: unix.S_IFDIR | 0o755, Nlink: 2, Atime: now, Mtime: now, Ctime: now}}
	return p
}

func (p *plainTree) count(name string) {
	c, _ := p.calls.LoadOrStore(name, new(atomic.Int64))
	c.(*atomic.Int64).Add(1)
}

func (p *plainTree) counted(name string) int64 {
	c, ok := p.calls.Load(name)
	if !ok {
		return 0
	}
	return c.(*atomic.Int64).Load()
}

func (p *plainTree) object(ino volume.Ino) string { return filepath.Join(p.dir, fmt.Sprint(ino)) }

func (p *plainTree) dirNode(ino volume.Ino) (*plainNode, error) {
	n := p.files[ino]
	if n == nil {
		return nil, unix.ESTALE
	}
	if n.kids == nil {
		return nil, unix.ENOTDIR
	}
	return n, nil
}

func (p *plainTree) look(n *plainNode) volume.Attr {
	a := n.attr
	if a.Mode&unix.S_IFMT == unix.S_IFREG {
		var st unix.Stat_t
		if unix.Stat(p.object(a.Ino), &st) == nil {
			a.Size, a.Blocks = uint64(st.Size), uint64(st.Blocks)
			a.Mtime, a.Atime = st.Mtim.Nano(), st.Atim.Nano()
			a.Ctime = max(a.Ctime, st.Ctim.Nano())
		}
	}
	return a
}

func (p *plainTree) Lookup(parent volume.Ino, name string) (volume.Attr, error) {
	p.count("Lookup")
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := p.dirNode(parent)
	if err != nil {
		return volume.Attr{}, err
	}
	ino, ok := d.kids[name]
	if !ok {
		return volume.Attr{}, unix.ENOENT
	}
	return p.look(p.files[ino]), nil
}

func (p *plainTree) Forget(ino volume.Ino) {
	p.count("Forget")
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.files[ino]; n != nil && n.attr.Nlink == 0 {
		n.forgotten = true
		p.settle(n)
	}
}

func (p *plainTree) Attr(ino volume.Ino) (volume.Attr, error) {
	p.count("Attr")
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.files[ino]
	if n == nil {
		return volume.Attr{}, unix.ESTALE
	}
	return p.look(n), nil
}

func (p *plainTree) SetAttr(ino volume.Ino, c volume.Change) (volume.Attr, error) {
	p.count("SetAttr")
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.files[ino]
	if n == nil {
		return volume.Attr{}, unix.ESTALE
	}
	now := time.Now().UnixNano()
	n.attr.Ctime = now
	if c.Mode != nil {
		n.attr.Mode = n.attr.Mode&unix.S_IFMT | *c.Mode
	}
	reg := n.attr.Mode&unix.S_IFMT == unix.S_IFREG
	if c.Size != nil && reg {
		if err := os.Truncate(p.object(ino), int64(*c.Size)); err != nil {
			return volume.Attr{}, err.(*os.PathError).Err
		}
	}
	if c.Atime != nil || c.Mtime != nil {
		if c.Atime != nil {
			n.attr.Atime = *c.Atime
		}
		if c.Mtime != nil {
			n.attr.Mtime = *c.Mtime
		}
		if reg {
			a := p.look(n)
			if c.Atime != nil {
				a.Atime = *c.Atime
			}
			if c.Mtime != nil {
				a.Mtime = *c.Mtime
			}
			if err := os.Chtimes(p.object(ino), time.Unix(0, a.Atime), time.Unix(0, a.Mtime)); err != nil {
				return a, err
			}
		}
	}
	return p.look(n), nil
}

// add gives a new node a name. The caller holds mu.
func (p *plainTree) add(parent volume.Ino, name string, mode uint32) (*plainNode, error) {
	d, err := p.dirNode(parent)
	if err != nil {
		return nil, err
	}
	if _, ok := d.kids[name]; ok {
		return nil, unix.EEXIST
	}
	if p.full.Load() {
		return nil, unix.ENOSPC
	}
	p.last++
	now := time.Now().UnixNano()
	n := &plainNode{up: parent, attr: volume.Attr{Ino: p.last, Mode: mode, Nlink: 1, Atime: now, Mtime: now, Ctime: now}}
	if mode&unix.S_IFMT == unix.S_IFDIR {
		n.kids = make(map[string]volume.Ino)
		n.attr.Nlink = 2
		d.attr.Nlink++
	}
	p.files[p.last] = n
	d.kids[name] = p.last
	d.attr.Mtime, d.attr.Ctime = now, now
	return n, nil
}

func (p *plainTree) Create(parent volume.Ino, name string, mode, flags uint32) (volume.Attr, file, error) {
	p.count("Create")
	p.mu.Lock()
	n, err := p.add(parent, name, unix.S_IFREG|mode)
	if err != nil {
		p.mu.Unlock()
		return volume.Attr{}, nil, err
	}
	f, err := os.OpenFile(p.object(n.attr.Ino), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		p.mu.Unlock()
		return volume.Attr{}, nil, err
	}
	n.opens++
	a := p.look(n)
	p.mu.Unlock()
	return a, &plainFile{p: p, ino: a.Ino, f: f}, nil
}

func (p *plainTree) OpenFile(ino volume.Ino, flags uint32) (file, error) {
	p.count("OpenFile")
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.files[ino]
	if n == nil {
		return nil, unix.ESTALE
	}
	f, err := os.OpenFile(p.object(ino), os.O_RDWR|int(flags&unix.O_TRUNC), 0)
	if err != nil {
		return nil, err
	}
	n.opens++
	return &plainFile{p: p, ino: ino, f: f}, nil
}

func (p *plainTree) Mkdir(parent volume.Ino, name string, mode uint32) (volume.Attr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.add(parent, name, unix.S_IFDIR|mode)
	if err != nil {
		return volume.Attr{}, err
	}
	return n.attr, nil
}

func (p *plainTree) Mknod(parent volume.Ino, name string, mode uint32) (volume.Attr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch mode & unix.S_IFMT {
	case unix.S_IFBLK, unix.S_IFCHR:
		return volume.Attr{}, unix.EPERM
	}
	n, err := p.add(parent, name, mode)
	if err != nil {
		return volume.Attr{}, err
	}
	if mode&unix.S_IFMT == unix.S_IFREG {
		os.WriteFile(p.object(n.attr.Ino), nil, 0o600)
	}
	return n.attr, nil
}

func (p *plainTree) Symlink(parent volume.Ino, name, target string) (volume.Attr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.add(parent, name, unix.S_IFLNK|0o777)
	if err != nil {
		return volume.Attr{}, err
	}
	n.link, n.attr.Size = target, uint64(len(target))
	return n.attr, nil
}

func (p *plainTree) Readlink(ino volume.Ino) (string, error) {
	p.count("Readlink")
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.files[ino]
	if n == nil {
		return "", unix.ESTALE
	}
	return n.link, nil
}

func (p *plainTree) Link(ino, parent volume.Ino, name string) (volume.Attr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.files[ino]
	d, err := p.dirNode(parent)
	switch {
	case n == nil:
		return volume.Attr{}, unix.ESTALE
	case err != nil:
		return volume.Attr{}, err
	case n.kids != nil:
		return volume.Attr{}, unix.EPERM
	}
	if _, ok := d.kids[name]; ok {
		return volume.Attr{}, unix.EEXIST
	}
	now := time.Now().UnixNano()
	d.kids[name] = ino
	d.attr.Mtime, d.attr.Ctime = now, now
	n.attr.Nlink++
	n.attr.Ctime = now
	return p.look(n), nil
}

func (p *plainTree) unlink(d *plainNode, name string) {
	now := time.Now().UnixNano()
	n := p.files[d.kids[name]]
	delete(d.kids, name)
	d.attr.Mtime, d.attr.Ctime = now, now
	n.attr.Ctime = now
	if n.kids != nil {
		d.attr.Nlink--
		n.attr.Nlink = 0
	} else {
		n.attr.Nlink--
	}
	p.settle(n)
}

func (p *plainTree) settle(n *plainNode) {
	if n.attr.Nlink == 0 && n.opens == 0 && n.forgotten {
		delete(p.files, n.attr.Ino)
		os.Remove(p.object(n.attr.Ino))
	}
}

func (p *plainTree) Unlink(parent volume.Ino, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := p.dirNode(parent)
	if err != nil {
		return err
	}
	ino, ok := d.kids[name]
	switch {
	case !ok:
		return unix.ENOENT
	case p.files[ino].kids != nil:
		return unix.EISDIR
	}
	p.unlink(d, name)
	return nil
}

func (p *plainTree) Rmdir(parent volume.Ino, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := p.dirNode(parent)
	if err != nil {
		return err
	}
	ino, ok := d.kids[name]
	switch {
	case !ok:
		return unix.ENOENT
	case p.files[ino].kids == nil:
		return unix.ENOTDIR
	case len(p.files[ino].kids) > 0:
		return unix.ENOTEMPTY
	}
	p.unlink(d, name)
	return nil
}

func (p *plainTree) Rename(parent volume.Ino, name string, toParent volume.Ino, toName string, flags uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := p.dirNode(parent)
	if err != nil {
		return err
	}
	e, err := p.dirNode(toParent)
	if err != nil {
		return err
	}
	ino, ok := d.kids[name]
	if !ok {
		return unix.ENOENT
	}
	n := p.files[ino]
	other, taken := e.kids[toName]
	now := time.Now().UnixNano()
	if flags&unix.RENAME_EXCHANGE != 0 {
		if !taken {
			return unix.ENOENT
		}
		m := p.files[other]
		d.kids[name], e.kids[toName] = other, ino
		n.up, m.up = toParent, parent
		if (n.kids != nil) != (m.kids != nil) && d != e {
			if n.kids != nil {
				d.attr.Nlink, e.attr.Nlink = d.attr.Nlink-1, e.attr.Nlink+1
			} else {
				d.attr.Nlink, e.attr.Nlink = d.attr.Nlink+1, e.attr.Nlink-1
			}
		}
		return nil
	}
	if taken {
		m := p.files[other]
		switch {
		case flags&unix.RENAME_NOREPLACE != 0:
			return unix.EEXIST
		case other == ino:
			return nil
		case n.kids != nil && m.kids == nil:
			return unix.ENOTDIR
		case n.kids == nil && m.kids != nil:
			return unix.EISDIR
		case len(m.kids) > 0:
			return unix.ENOTEMPTY
		}
		p.unlink(e, toName)
	}
	delete(d.kids, name)
	e.kids[toName] = ino
	if n.kids != nil && d != e {
		d.attr.Nlink--
		e.attr.Nlink++
	}
	n.up = toParent
	n.attr.Ctime, d.attr.Mtime, d.attr.Ctime, e.attr.Mtime, e.attr.Ctime = now, now, now, now, now
	return nil
}

func (p *plainTree) OpenDir(ino volume.Ino) (listing, error) {
	p.count("OpenDir")
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.dirNode(ino); err != nil {
		return nil, err
	}
	return &plainListing{p: p, ino: ino}, nil
}

type plainListing struct {
	p    *plainTree
	ino  volume.Ino
	list []volume.Dirent
}

func (l *plainListing) Read(cookie uint64, fn func(volume.Dirent) bool) error {
	if cookie == 0 {
		l.p.mu.Lock()
		d, err := l.p.dirNode(l.ino)
		if err != nil {
			l.p.mu.Unlock()
			return err
		}
		l.list = []volume.Dirent{{Name: ".", Ino: l.ino, Type: unix.S_IFDIR}, {Name: "..", Ino: d.up, Type: unix.S_IFDIR}}
		for name, ino := range d.kids {
			l.list = append(l.list, volume.Dirent{Name: name, Ino: ino, Type: l.p.files[ino].attr.Mode & unix.S_IFMT})
		}
		l.p.mu.Unlock()
		sort.Slice(l.list[2:], func(i, j int) bool { return l.list[i+2].Name < l.list[j+2].Name })
		for i := range l.list {
			l.list[i].Next = uint64(i + 1)
		}
	}
	for i := int(min(cookie, uint64(len(l.list)))); i < len(l.list) && fn(l.list[i]); i++ {
	}
	return nil
}

func (l *plainListing) Close() {}

func (p *plainTree) Statfs() (volume.StatfsInfo, error) {
	var st unix.Statfs_t
	err := unix.Statfs(p.dir, &st)
	return volume.StatfsInfo{BlockSize: uint64(st.Bsize), Blocks: st.Blocks, Free: st.Bfree, Available: st.Bavail, Files: st.Files, FreeFiles: st.Ffree, NameMax: 255}, err
}

type plainFile struct {
	p   *plainTree
	ino volume.Ino
	f   *os.File
}

func (f *plainFile) Backing() (int, uint64) {
	if f.p.serve.Load() {
		return -1, 0
	}
	return int(f.f.Fd()), uint64(f.ino)
}

func (f *plainFile) ReadAt(b []byte, off int64) (int, error) {
	f.p.count("ReadAt")
	n, err := f.f.ReadAt(b, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *plainFile) WriteAt(b []byte, off int64) (int, error) {
	f.p.count("WriteAt")
	if f.p.full.Load() {
		return 0, unix.ENOSPC
	}
	return f.f.WriteAt(b, off)
}

func (f *plainFile) Allocate(mode uint32, off, n int64) error {
	return unix.Fallocate(int(f.f.Fd()), mode, off, n)
}

func (f *plainFile) Seek(off int64, whence int) (int64, error) {
	return unix.Seek(int(f.f.Fd()), off, whence)
}

func (f *plainFile) Close() error {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	n := f.p.files[f.ino]
	n.opens--
	f.p.settle(n)
	return f.f.Close()
}
