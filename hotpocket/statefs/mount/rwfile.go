package mount

import (
	"evernode/hotpocket/statefs/volume"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Create implements fuse.RawFileSystem.
func (fs *rwFS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if len(name) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	if st := fs.check(&in.Caller, in.NodeId, mayWrite|mayEnter); st != fuse.OK {
		return st
	}
	a, f, err := fs.tree.Create(volume.Ino(in.NodeId), name, in.Mode&0o7777, in.Flags)
	if err != nil {
		return fs.status("create", err)
	}
	fs.entry(in.NodeId, name, &a, &out.EntryOut)
	fs.opened(a.Ino, f, in.Flags, &out.OpenOut)
	return fuse.OK
}

// Open implements fuse.RawFileSystem.
func (fs *rwFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if st := fs.check(&in.Caller, in.NodeId, wanted(in.Flags)); st != fuse.OK {
		return st
	}
	f, err := fs.tree.OpenFile(volume.Ino(in.NodeId), in.Flags)
	if err != nil {
		return fs.status("open", err)
	}
	fs.opened(volume.Ino(in.NodeId), f, in.Flags, out)
	return fuse.OK
}

// opened answers the opening of a file: with a backing file, which the kernel
// reads and writes itself from then on, or as one that is served here, through
// the page cache.
func (fs *rwFS) opened(ino volume.Ino, f file, flags uint32, out *fuse.OpenOut) {
	mode := flags & unix.O_ACCMODE
	h := &handle{ino: ino, file: f, write: mode != unix.O_RDONLY || flags&unix.O_TRUNC != 0, both: mode == unix.O_RDWR}
	fh, id := fs.handles.add(h)
	out.Fh = fh
	if h.backed {
		if h.write {
			fs.known.openPassed(ino)
		}
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH
		out.BackingID = id
		return
	}
	if fs.known.openServed(ino) {
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
}

// Release implements fuse.RawFileSystem. The kernel sends it after close(2) has
// returned.
func (fs *rwFS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	h, done := fs.handles.remove(in.Fh)
	if h == nil {
		return
	}
	if err := h.file.Close(); err != nil {
		fs.log.Error("cannot close a file of the state", "error", err)
	}
	if h.backed && h.both {
		// It may have been written through a mapping, of which the kernel
		// keeps no account; its attributes are those from before.
		fs.expire(h.ino)
	}
	done()
}

// Read implements fuse.RawFileSystem.
func (fs *rwFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := fs.handles.get(in.Fh)
	if h == nil {
		return nil, fuse.EBADF
	}
	n, err := h.file.ReadAt(buf, int64(in.Offset))
	if err != nil {
		return nil, fs.status("read", err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write implements fuse.RawFileSystem.
func (fs *rwFS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h := fs.handles.get(in.Fh)
	if h == nil {
		return 0, fuse.EBADF
	}
	n, err := h.file.WriteAt(data, int64(in.Offset))
	if n > 0 {
		return uint32(n), fuse.OK
	}
	return 0, fs.status("write", err)
}

// Fallocate implements fuse.RawFileSystem.
func (fs *rwFS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h := fs.handles.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	return fs.status("fallocate", h.file.Allocate(in.Mode, int64(in.Offset), int64(in.Length)))
}

// Lseek implements fuse.RawFileSystem.
func (fs *rwFS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h := fs.handles.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	off, err := h.file.Seek(int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return fs.status("lseek", err)
}

// What follows says "not implemented" once; the kernel then does without and
// never asks again. Flush: everything written is here already. Fsync: a crash
// undoes the run, so there is nothing to make durable before it ends.

// Flush implements fuse.RawFileSystem.
func (fs *rwFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Fsync implements fuse.RawFileSystem.
func (fs *rwFS) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.ENOSYS }

// FsyncDir implements fuse.RawFileSystem.
func (fs *rwFS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.ENOSYS }
