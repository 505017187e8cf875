package mount

import (
	"errors"
	"log/slog"
	"path"
	"strconv"
	"sync"

	"evernode/hotpocket/statefs/volume"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// roFS answers the kernel's requests about the mount of read-only versions. Its
// top folder has a folder for every version that is shown, named by a number
// that is used once:
//
//	<n>/state      the version's state
//	<n>/patch.cfg  its patch.cfg
//	<n>/...        the private files as they are now
//
// Files of a state that did not change between two versions have the same number
// in both, so that the kernel keeps their contents. Folders have one in each: the
// kernel does not want a folder in two places.
type roFS struct {
	fuse.RawFileSystem
	log   *slog.Logger
	owner fuse.Owner
	work  int // the open folder mnt/rw
	// opens: every open is asked for. Otherwise the kernel is told not to ask,
	// and reads by the number of the file.
	opens bool

	files *snapFiles

	mu    sync.Mutex
	nodes map[uint64]*roNode
	byKey map[roKey]*roNode
	last  uint64
	shown map[string]*shown
}

// roKind says what a node is.
type roKind uint8

const (
	roTop      roKind = iota // the top folder
	roVersion                // <n>
	roDir                    // a folder of a state
	roFile                   // a file or link of a state
	roPatch                  // <n>/patch.cfg
	roOwnDir                 // a private folder
	roOwnFile                // a private file or link
	roUnwanted               // a private socket or the like
)

// roKey is what makes nodes the same.
type roKey struct {
	kind  roKind
	shown *shown       // nil for what versions share
	node  *volume.Node // of a state
	path  string       // of a private file, below mnt/rw
	dev   uint64
	ino   uint64
}

// roNode is a file as the kernel knows it.
type roNode struct {
	id  uint64
	key roKey
	// shown is the newest version in which the kernel found it.
	shown   *shown
	lookups uint64
}

func newRO(log *slog.Logger, owner fuse.Owner, work int, opens bool) *roFS {
	fs := &roFS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), log: log, owner: owner, work: work, opens: opens,
		files: newSnapFiles(openSnapFiles),
		nodes: make(map[uint64]*roNode), byKey: make(map[roKey]*roNode), shown: make(map[string]*shown),
		last: fuse.FUSE_ROOT_ID,
	}
	fs.nodes[fuse.FUSE_ROOT_ID] = &roNode{id: fuse.FUSE_ROOT_ID, key: roKey{kind: roTop}, lookups: 1}
	return fs
}

// String implements fuse.RawFileSystem.
func (fs *roFS) String() string { return "evernode views" }

// node returns what the kernel means by a number.
func (fs *roFS) node(id uint64) (roNode, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.nodes[id]
	if n == nil {
		return roNode{}, false
	}
	return *n, true
}

// tell returns the number of a node that the kernel is being told of.
func (fs *roFS) tell(key roKey, in *shown) uint64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.byKey[key]
	if n == nil {
		fs.last++
		n = &roNode{id: fs.last, key: key}
		fs.byKey[key] = n
		fs.nodes[n.id] = n
	}
	if n.shown == nil || in != nil && in.number > n.shown.number {
		n.shown = in
	}
	n.lookups++
	return n.id
}

// Forget implements fuse.RawFileSystem.
func (fs *roFS) Forget(id, count uint64) {
	fs.mu.Lock()
	n := fs.nodes[id]
	if n == nil || id == fuse.FUSE_ROOT_ID {
		fs.mu.Unlock()
		return
	}
	if count < n.lookups {
		n.lookups -= count
		fs.mu.Unlock()
		return
	}
	delete(fs.nodes, id)
	delete(fs.byKey, n.key)
	fs.mu.Unlock()
	if n.key.kind == roFile {
		fs.files.drop(n.key.node)
	}
}

// child finds the entry name of a folder. cache says that the answer stays true.
func (fs *roFS) child(p *roNode, name string) (key roKey, in *shown, cache bool, err error) {
	switch p.key.kind {
	case roTop:
		fs.mu.Lock()
		s := fs.shown[name]
		fs.mu.Unlock()
		if s == nil {
			return key, nil, false, unix.ENOENT
		}
		return roKey{kind: roVersion, shown: s}, s, true, nil
	case roVersion:
		s := p.shown
		switch name {
		case stateName:
			return roKey{kind: roDir, shown: s, node: s.snap.Root()}, s, true, nil
		case patchName:
			if s.snap.Patch() == nil {
				return key, s, true, unix.ENOENT
			}
			return roKey{kind: roPatch, shown: s}, s, true, nil
		}
		return fs.private(p, name)
	case roDir:
		k, err := p.key.node.Lookup(name)
		if err != nil {
			return key, p.shown, true, err
		}
		return stateKey(p.shown, k), p.shown, true, nil
	case roOwnDir:
		return fs.private(p, name)
	}
	return key, nil, false, unix.ENOTDIR
}

func stateKey(s *shown, n *volume.Node) roKey {
	if n.Attr().Mode&unix.S_IFMT == unix.S_IFDIR {
		return roKey{kind: roDir, shown: s, node: n}
	}
	return roKey{kind: roFile, node: n}
}

// Lookup implements fuse.RawFileSystem.
func (fs *roFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	p, ok := fs.node(h.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	if len(name) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	key, in, cache, err := fs.child(&p, name)
	if errors.Is(err, unix.ENOENT) && cache {
		out.SetEntryTimeout(forever)
		return fuse.OK
	}
	if err != nil {
		return status(fs.log, "lookup", err)
	}
	return fs.entry(key, in, cache, out)
}

// entry tells the kernel of a node.
func (fs *roFS) entry(key roKey, in *shown, cache bool, out *fuse.EntryOut) fuse.Status {
	if err := fs.attr(&roNode{key: key, shown: in}, &out.Attr); err != nil {
		return status(fs.log, "lookup", err)
	}
	out.NodeId = fs.tell(key, in)
	if cache {
		out.SetEntryTimeout(forever)
		if key.kind != roVersion {
			out.SetAttrTimeout(forever)
		}
	}
	return fuse.OK
}

// noWrite are the permission bits that a read-only file does not show.
const noWrite = 0o222

// attr fills in the attributes of a node. Numbers of private files are told
// apart from those of the state by their top bit.
func (fs *roFS) attr(n *roNode, out *fuse.Attr) error {
	switch n.key.kind {
	case roTop, roVersion, roOwnDir, roOwnFile:
		var st unix.Stat_t
		p := n.key.path
		if p == "" {
			p = "."
		}
		if err := unix.Fstatat(fs.work, p, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if n.key.kind == roOwnFile && (st.Ino != n.key.ino || st.Dev != n.key.dev) {
			return unix.ESTALE
		}
		out.Ino = st.Ino | 1<<63
		if n.key.kind == roTop || n.key.kind == roVersion {
			out.Ino = 1<<62 | n.id
			st.Nlink = 2
		}
		out.Size, out.Blocks, out.Nlink, out.Blksize = uint64(st.Size), uint64(st.Blocks), uint32(st.Nlink), 4096
		out.Atime, out.Atimensec = splitTime(st.Atim.Nano())
		out.Mtime, out.Mtimensec = splitTime(st.Mtim.Nano())
		out.Ctime, out.Ctimensec = splitTime(st.Ctim.Nano())
		out.Mode = st.Mode
		out.Owner = fuse.Owner{Uid: st.Uid, Gid: st.Gid}
	case roDir, roFile:
		a := n.key.node.Attr()
		fillAttr(out, &a)
		out.Owner = fs.owner
	case roPatch:
		s := n.shown
		out.Ino = 1<<62 | 1<<61 | s.number
		out.Size = uint64(len(s.snap.Patch()))
		out.Blocks = (out.Size + 511) / 512
		out.Mode, out.Nlink, out.Blksize = unix.S_IFREG|0o644, 1, 4096
		out.Owner = fs.owner
	}
	if out.Mode&unix.S_IFMT != unix.S_IFLNK {
		out.Mode &^= noWrite
	}
	return nil
}

// GetAttr implements fuse.RawFileSystem.
func (fs *roFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, ok := fs.node(in.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	if err := fs.attr(&n, &out.Attr); err != nil {
		return status(fs.log, "getattr", err)
	}
	if k := n.key.kind; k == roDir || k == roFile || k == roPatch {
		out.SetTimeout(forever)
	}
	return fuse.OK
}

// Readlink implements fuse.RawFileSystem.
func (fs *roFS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, ok := fs.node(h.NodeId)
	if !ok {
		return nil, fuse.Status(unix.ESTALE)
	}
	switch n.key.kind {
	case roFile:
		target, err := n.key.node.Readlink()
		return []byte(target), status(fs.log, "readlink", err)
	case roOwnFile:
		buf := make([]byte, unix.PathMax)
		c, err := unix.Readlinkat(fs.work, n.key.path, buf)
		if err != nil {
			return nil, status(fs.log, "readlink", err)
		}
		return buf[:c], fuse.OK
	}
	return nil, fuse.EINVAL
}

// Open implements fuse.RawFileSystem. The kernel checks permissions, but not
// root's, so contracts that run as root are asked to come here.
func (fs *roFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !fs.opens {
		return fuse.ENOSYS
	}
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY || in.Flags&unix.O_TRUNC != 0 {
		return fuse.EACCES
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// Release implements fuse.RawFileSystem.
func (fs *roFS) Release(<-chan struct{}, *fuse.ReleaseIn) {}

// Read implements fuse.RawFileSystem.
func (fs *roFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, ok := fs.node(in.NodeId)
	if !ok {
		return nil, fuse.Status(unix.ESTALE)
	}
	c, err := fs.read(&n, buf, int64(in.Offset))
	if err != nil {
		return nil, status(fs.log, "read", err)
	}
	return fuse.ReadResultData(buf[:c]), fuse.OK
}

func (fs *roFS) read(n *roNode, buf []byte, off int64) (int, error) {
	switch n.key.kind {
	case roFile:
		f, err := fs.files.get(n)
		if err != nil {
			return 0, err
		}
		defer fs.files.put(f)
		return f.file.ReadAt(buf, off)
	case roPatch:
		p := n.shown.snap.Patch()
		if off >= int64(len(p)) {
			return 0, nil
		}
		return copy(buf, p[off:]), nil
	case roOwnFile:
		return fs.readPrivate(n, buf, off)
	}
	return 0, unix.EISDIR
}

// OpenDir implements fuse.RawFileSystem: folders are read by their number.
func (fs *roFS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// ReleaseDir implements fuse.RawFileSystem.
func (fs *roFS) ReleaseDir(*fuse.ReleaseIn) {}

// roEntry is what a folder lists.
type roEntry struct {
	name  string
	key   roKey
	in    *shown
	cache bool
	typ   uint32
}

// list calls fn with the entries of a folder from a position on, "." and ".."
// being the first two, with the position behind each.
func (fs *roFS) list(n *roNode, from uint64, fn func(e *roEntry, next uint64) bool) error {
	for i, name := range []string{".", ".."} {
		if from <= uint64(i) && !fn(&roEntry{name: name, typ: unix.S_IFDIR}, uint64(i)+1) {
			return nil
		}
	}
	from = max(from, 2)
	if n.key.kind == roDir {
		return n.key.node.ReadDir(int(from-2), func(pos int, name string, k *volume.Node) bool {
			e := roEntry{name: name, key: stateKey(n.shown, k), in: n.shown, cache: true, typ: k.Attr().Mode & unix.S_IFMT}
			return fn(&e, uint64(pos)+3)
		})
	}
	var all []roEntry
	switch n.key.kind {
	case roTop:
		fs.mu.Lock()
		for name, s := range fs.shown {
			all = append(all, roEntry{name: name, key: roKey{kind: roVersion, shown: s}, in: s, cache: true, typ: unix.S_IFDIR})
		}
		fs.mu.Unlock()
	case roVersion, roOwnDir:
		if n.key.kind == roVersion {
			for _, name := range []string{stateName, patchName} {
				key, in, cache, err := fs.child(n, name)
				if err == nil {
					typ := uint32(unix.S_IFREG)
					if name == stateName {
						typ = unix.S_IFDIR
					}
					all = append(all, roEntry{name: name, key: key, in: in, cache: cache, typ: typ})
				}
			}
		}
		own, err := fs.listPrivate(n)
		if err != nil {
			return err
		}
		all = append(all, own...)
	default:
		return unix.ENOTDIR
	}
	for i := from - 2; i < uint64(len(all)); i++ {
		if !fn(&all[i], i+3) {
			break
		}
	}
	return nil
}

// ReadDir implements fuse.RawFileSystem.
func (fs *roFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n, ok := fs.node(in.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	err := fs.list(&n, in.Offset, func(e *roEntry, next uint64) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: e.name, Mode: e.typ, Off: next, Ino: fs.listedIno(e)})
	})
	return status(fs.log, "readdir", err)
}

func (fs *roFS) listedIno(e *roEntry) uint64 {
	if e.key.node != nil {
		return uint64(e.key.node.Attr().Ino)
	}
	return e.key.ino | 1<<63
}

// ReadDirPlus implements fuse.RawFileSystem.
func (fs *roFS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n, ok := fs.node(in.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	err := fs.list(&n, in.Offset, func(e *roEntry, next uint64) bool {
		o := out.AddDirLookupEntry(fuse.DirEntry{Name: e.name, Mode: e.typ, Off: next, Ino: fs.listedIno(e)})
		if o == nil {
			return false
		}
		if e.name != "." && e.name != ".." {
			if fs.entry(e.key, e.in, e.cache, o) != fuse.OK {
				o.NodeId = 0
			}
		}
		return true
	})
	return status(fs.log, "readdir", err)
}

// StatFs implements fuse.RawFileSystem.
func (fs *roFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fs.work, &st); err != nil {
		return status(fs.log, "statfs", err)
	}
	out.Bsize, out.Frsize, out.NameLen = uint32(st.Bsize), uint32(st.Frsize), maxName
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree
	return fuse.OK
}

// private finds a private file.
func (fs *roFS) private(p *roNode, name string) (key roKey, in *shown, cache bool, err error) {
	rel := path.Join(p.key.path, name)
	var st unix.Stat_t
	if err := unix.Fstatat(fs.work, rel, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return key, nil, false, err
	}
	key = privateKey(p.shown, rel, st.Mode, st.Dev, st.Ino)
	if key.kind == roUnwanted {
		return key, nil, false, unix.ENOENT
	}
	return key, p.shown, false, nil
}

func privateKey(s *shown, rel string, mode uint32, dev, ino uint64) roKey {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return roKey{kind: roOwnDir, shown: s, path: rel, dev: dev, ino: ino}
	case unix.S_IFREG, unix.S_IFLNK:
		return roKey{kind: roOwnFile, path: rel, dev: dev, ino: ino}
	}
	return roKey{kind: roUnwanted}
}

// beneath opens what is at a path below a folder, without following links.
func beneath(dir int, rel string, flags uint64) (int, error) {
	if rel == "" {
		rel = "."
	}
	return unix.Openat2(dir, rel, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

func (fs *roFS) readPrivate(n *roNode, buf []byte, off int64) (int, error) {
	fd, err := beneath(fs.work, n.key.path, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if st.Ino != n.key.ino || st.Dev != n.key.dev {
		return 0, unix.ESTALE
	}
	return unix.Pread(fd, buf, off)
}

func (fs *roFS) listPrivate(n *roNode) ([]roEntry, error) {
	fd, err := beneath(fs.work, n.key.path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var out []roEntry
	buf := make([]byte, 16<<10)
	for {
		c, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return nil, err
		}
		if c == 0 {
			return out, nil
		}
		_, _, list := unix.ParseDirent(buf[:c], -1, nil)
		for _, name := range list {
			if n.key.kind == roVersion && (name == stateName || name == patchName) {
				continue
			}
			var st unix.Stat_t
			if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue // gone meanwhile
			}
			key := privateKey(n.shown, path.Join(n.key.path, name), st.Mode, st.Dev, st.Ino)
			if key.kind != roUnwanted {
				out = append(out, roEntry{name: name, key: key, in: n.shown, typ: st.Mode & unix.S_IFMT})
			}
		}
	}
}

// Everything that would change something is refused, as for the owner of a
// read-only folder (spec/hotpocket.md section 2.9).

// SetAttr implements fuse.RawFileSystem.
func (fs *roFS) SetAttr(<-chan struct{}, *fuse.SetAttrIn, *fuse.AttrOut) fuse.Status {
	return fuse.EACCES
}

// Mknod implements fuse.RawFileSystem.
func (fs *roFS) Mknod(<-chan struct{}, *fuse.MknodIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EACCES
}

// Mkdir implements fuse.RawFileSystem.
func (fs *roFS) Mkdir(<-chan struct{}, *fuse.MkdirIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EACCES
}

// Unlink implements fuse.RawFileSystem.
func (fs *roFS) Unlink(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.EACCES }

// Rmdir implements fuse.RawFileSystem.
func (fs *roFS) Rmdir(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.EACCES }

// Rename implements fuse.RawFileSystem.
func (fs *roFS) Rename(<-chan struct{}, *fuse.RenameIn, string, string) fuse.Status {
	return fuse.EACCES
}

// Link implements fuse.RawFileSystem.
func (fs *roFS) Link(<-chan struct{}, *fuse.LinkIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EACCES
}

// Symlink implements fuse.RawFileSystem.
func (fs *roFS) Symlink(<-chan struct{}, *fuse.InHeader, string, string, *fuse.EntryOut) fuse.Status {
	return fuse.EACCES
}

// Create implements fuse.RawFileSystem.
func (fs *roFS) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.EACCES
}

// Tmpfile implements fuse.RawFileSystem.
func (fs *roFS) Tmpfile(<-chan struct{}, *fuse.CreateIn, *fuse.CreateOut) fuse.Status {
	return fuse.EACCES
}

// Write implements fuse.RawFileSystem.
func (fs *roFS) Write(<-chan struct{}, *fuse.WriteIn, []byte) (uint32, fuse.Status) {
	return 0, fuse.EACCES
}

// Fallocate implements fuse.RawFileSystem.
func (fs *roFS) Fallocate(<-chan struct{}, *fuse.FallocateIn) fuse.Status { return fuse.EACCES }

// versionName is the name of a version's folder.
func versionName(number uint64) string { return strconv.FormatUint(number, 10) }
