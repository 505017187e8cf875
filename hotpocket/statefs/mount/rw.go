package mount

import (
	"errors"
	"log/slog"
	"time"

	"evernode/hotpocket/statefs/volume"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// forever is for how long the kernel may keep what it was told. Nobody but the
// kernel itself changes the folder during a run, and what we change outside of
// one is taken back explicitly.
const forever = 10 * 365 * 24 * time.Hour

const maxName = 255

// rwFS answers the kernel's requests about the writable mount.
type rwFS struct {
	fuse.RawFileSystem // says ENOSYS to what is not here
	tree               tree
	log                *slog.Logger
	owner              fuse.Owner
	known              *known
	handles            *handles
	// expire makes the kernel ask for a file's attributes again.
	expire func(ino volume.Ino)
}

// status turns an error of the tree into what the kernel hands on.
func (fs *rwFS) status(op string, err error) fuse.Status {
	return status(fs.log, op, err)
}

func status(log *slog.Logger, op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno unix.Errno
	if errors.As(err, &errno) && errno != unix.ENOSYS {
		return fuse.Status(errno)
	}
	// ENOSYS would make the kernel never ask again.
	log.Error("the state folder cannot answer", "request", op, "error", err)
	return fuse.EIO
}

func (fs *rwFS) fill(out *fuse.Attr, a *volume.Attr) {
	fillAttr(out, a)
	out.Owner = fs.owner
}

func fillAttr(out *fuse.Attr, a *volume.Attr) {
	out.Ino = uint64(a.Ino)
	out.Size = a.Size
	out.Blocks = a.Blocks
	out.Atime, out.Atimensec = splitTime(a.Atime)
	out.Mtime, out.Mtimensec = splitTime(a.Mtime)
	out.Ctime, out.Ctimensec = splitTime(a.Ctime)
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Blksize = 4096
}

// splitTime returns seconds and nanoseconds, also of times before 1970.
func splitTime(ns int64) (uint64, uint32) {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return uint64(s), uint32(n)
}

// entry tells the kernel of a file that it then knows.
func (fs *rwFS) entry(parent uint64, name string, a *volume.Attr, out *fuse.EntryOut) {
	fs.known.add(a.Ino)
	fs.known.name(volume.Ino(parent), name)
	out.NodeId = uint64(a.Ino)
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	fs.fill(&out.Attr, a)
}

// Lookup implements fuse.RawFileSystem. That there is no such name is told with a
// lifetime, too: programs ask for the same missing files over and over.
func (fs *rwFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if st := fs.check(&h.Caller, h.NodeId, mayEnter); st != fuse.OK {
		return st
	}
	if len(name) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	a, err := fs.tree.Lookup(volume.Ino(h.NodeId), name)
	if errors.Is(err, unix.ENOENT) {
		fs.known.name(volume.Ino(h.NodeId), name)
		out.NodeId = 0
		out.SetEntryTimeout(forever)
		return fuse.OK
	}
	if err != nil {
		return fs.status("lookup", err)
	}
	fs.entry(h.NodeId, name, &a, out)
	return fuse.OK
}

// Forget implements fuse.RawFileSystem.
func (fs *rwFS) Forget(ino, n uint64) {
	if fs.known.drop(volume.Ino(ino), n) {
		fs.tree.Forget(volume.Ino(ino))
	}
}

// GetAttr implements fuse.RawFileSystem.
func (fs *rwFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	a, err := fs.tree.Attr(volume.Ino(in.NodeId))
	if err != nil {
		return fs.status("getattr", err)
	}
	out.SetTimeout(forever)
	fs.fill(&out.Attr, &a)
	return fuse.OK
}

// SetAttr implements fuse.RawFileSystem. A change of the owner does nothing, as
// everything always belongs to the contract: programs that unpack archives as
// root ask for it and would stop at an error.
func (fs *rwFS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if st := fs.checkChange(in); st != fuse.OK {
		return st
	}
	var c volume.Change
	if mode, ok := in.GetMode(); ok {
		c.Mode = &mode
	}
	if size, ok := in.GetSize(); ok {
		c.Size = &size
	}
	if t, ok := in.GetATime(); ok {
		ns := t.UnixNano()
		c.Atime = &ns
	}
	if t, ok := in.GetMTime(); ok {
		ns := t.UnixNano()
		c.Mtime = &ns
	}
	a, err := fs.tree.SetAttr(volume.Ino(in.NodeId), c)
	if err != nil {
		return fs.status("setattr", err)
	}
	out.SetTimeout(forever)
	fs.fill(&out.Attr, &a)
	return fuse.OK
}

// checkChange refuses changes that the caller may not make. Whoever has opened a
// file may truncate it.
func (fs *rwFS) checkChange(in *fuse.SetAttrIn) fuse.Status {
	if fs.owns(&in.Caller) {
		if _, ok := in.GetSize(); !ok || in.Caller.Uid == 0 || in.Valid&fuse.FATTR_FH != 0 {
			return fuse.OK
		}
		return fs.check(&in.Caller, in.NodeId, mayWrite)
	}
	const now = fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME_NOW
	times := in.Valid & (fuse.FATTR_ATIME | fuse.FATTR_MTIME)
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 || times != 0 && in.Valid&now != now {
		return fuse.EPERM
	}
	if in.Valid&fuse.FATTR_FH != 0 {
		return fuse.OK
	}
	return fs.check(&in.Caller, in.NodeId, mayWrite)
}

// made answers a request that made something.
func (fs *rwFS) made(op string, parent uint64, name string, a volume.Attr, err error, out *fuse.EntryOut) fuse.Status {
	if err != nil {
		return fs.status(op, err)
	}
	fs.entry(parent, name, &a, out)
	return fuse.OK
}

// Mknod implements fuse.RawFileSystem.
func (fs *rwFS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := fs.check(&in.Caller, in.NodeId, mayWrite|mayEnter); st != fuse.OK {
		return st
	}
	if len(name) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	a, err := fs.tree.Mknod(volume.Ino(in.NodeId), name, in.Mode)
	return fs.made("mknod", in.NodeId, name, a, err, out)
}

// Mkdir implements fuse.RawFileSystem.
func (fs *rwFS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := fs.check(&in.Caller, in.NodeId, mayWrite|mayEnter); st != fuse.OK {
		return st
	}
	if len(name) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	a, err := fs.tree.Mkdir(volume.Ino(in.NodeId), name, in.Mode&0o7777)
	return fs.made("mkdir", in.NodeId, name, a, err, out)
}

// Symlink implements fuse.RawFileSystem.
func (fs *rwFS) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if st := fs.check(&h.Caller, h.NodeId, mayWrite|mayEnter); st != fuse.OK {
		return st
	}
	if len(name) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	a, err := fs.tree.Symlink(volume.Ino(h.NodeId), name, target)
	return fs.made("symlink", h.NodeId, name, a, err, out)
}

// Link implements fuse.RawFileSystem.
func (fs *rwFS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := fs.check(&in.Caller, in.NodeId, mayWrite|mayEnter); st != fuse.OK {
		return st
	}
	if len(name) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	a, err := fs.tree.Link(volume.Ino(in.Oldnodeid), volume.Ino(in.NodeId), name)
	return fs.made("link", in.NodeId, name, a, err, out)
}

// Readlink implements fuse.RawFileSystem.
func (fs *rwFS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	target, err := fs.tree.Readlink(volume.Ino(h.NodeId))
	if err != nil {
		return nil, fs.status("readlink", err)
	}
	return []byte(target), fuse.OK
}

// Unlink implements fuse.RawFileSystem.
func (fs *rwFS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if st := fs.check(&h.Caller, h.NodeId, mayWrite|mayEnter); st != fuse.OK {
		return st
	}
	return fs.status("unlink", fs.tree.Unlink(volume.Ino(h.NodeId), name))
}

// Rmdir implements fuse.RawFileSystem.
func (fs *rwFS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if st := fs.check(&h.Caller, h.NodeId, mayWrite|mayEnter); st != fuse.OK {
		return st
	}
	return fs.status("rmdir", fs.tree.Rmdir(volume.Ino(h.NodeId), name))
}

// Rename implements fuse.RawFileSystem.
func (fs *rwFS) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if st := fs.check(&in.Caller, in.NodeId, mayWrite|mayEnter); st != fuse.OK {
		return st
	}
	if len(to) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return fuse.EINVAL
	}
	if in.Newdir != in.NodeId {
		if st := fs.check(&in.Caller, in.Newdir, mayWrite|mayEnter); st != fuse.OK {
			return st
		}
	}
	fs.known.name(volume.Ino(in.NodeId), from)
	fs.known.name(volume.Ino(in.Newdir), to)
	return fs.status("rename", fs.tree.Rename(volume.Ino(in.NodeId), from, volume.Ino(in.Newdir), to, in.Flags))
}

// OpenDir implements fuse.RawFileSystem. The kernel may keep the listing: it
// drops it when a name comes or goes. If that happens while somebody reads what
// it keeps, it goes on with the rest here, so the listing is taken now.
func (fs *rwFS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if st := fs.check(&in.Caller, in.NodeId, mayRead); st != fuse.OK {
		return st
	}
	l, err := fs.tree.OpenDir(volume.Ino(in.NodeId))
	if err != nil {
		return fs.status("opendir", err)
	}
	if err := l.Read(0, func(volume.Dirent) bool { return false }); err != nil {
		l.Close()
		return fs.status("opendir", err)
	}
	out.Fh = fs.handles.addDir(l)
	out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// ReleaseDir implements fuse.RawFileSystem.
func (fs *rwFS) ReleaseDir(in *fuse.ReleaseIn) { fs.handles.removeDir(in.Fh) }

// readDir calls fn with the entries of an open folder from a cookie on.
func (fs *rwFS) readDir(in *fuse.ReadIn, fn func(volume.Dirent) bool) fuse.Status {
	d := fs.handles.dir(in.Fh)
	if d == nil {
		return fuse.EBADF
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return fs.status("readdir", d.list.Read(in.Offset, fn))
}

// ReadDir implements fuse.RawFileSystem.
func (fs *rwFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.readDir(in, func(e volume.Dirent) bool {
		return out.AddDirEntry(fuse.DirEntry{Mode: e.Type, Name: e.Name, Ino: uint64(e.Ino), Off: e.Next})
	})
}

// ReadDirPlus implements fuse.RawFileSystem.
func (fs *rwFS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.readDir(in, func(e volume.Dirent) bool {
		o := out.AddDirLookupEntry(fuse.DirEntry{Mode: e.Type, Name: e.Name, Ino: uint64(e.Ino), Off: e.Next})
		if o == nil {
			return false
		}
		if e.Name == "." || e.Name == ".." {
			return true
		}
		a, err := fs.tree.Attr(e.Ino)
		if err == nil {
			fs.entry(in.NodeId, e.Name, &a, o)
		}
		return true
	})
}

// StatFs implements fuse.RawFileSystem.
func (fs *rwFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	s, err := fs.tree.Statfs()
	if err != nil {
		return fs.status("statfs", err)
	}
	out.Bsize, out.Frsize = uint32(s.BlockSize), uint32(s.BlockSize)
	out.Blocks, out.Bfree, out.Bavail = s.Blocks, s.Free, s.Available
	out.Files, out.Ffree = s.Files, s.FreeFiles
	out.NameLen = s.NameMax
	return fuse.OK
}
