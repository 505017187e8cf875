package mount

import (
	"path/filepath"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// pollFS adds a file to a file system that is there only while it starts.
//
// A Go program that opens a file asks the kernel whether it can be polled, while
// it holds one of the few threads that run goroutines. If the file is served by
// the same program and nobody is left to answer, both wait for ever. So the
// kernel is made to learn beforehand, from a plain poll(2) of this file, that
// nothing here can be polled. Closing it sends nothing: a process that is killed
// at this moment would otherwise wait for an answer of its own.
type pollFS struct {
	fuse.RawFileSystem
}

const (
	pollName = ".evernode-poll"
	pollNode = 1<<64 - 2
)

// Lookup implements fuse.RawFileSystem.
func (p pollFS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId == fuse.FUSE_ROOT_ID && name == pollName {
		out.NodeId = pollNode
		out.Attr = pollAttr()
		return fuse.OK
	}
	return p.RawFileSystem.Lookup(cancel, h, name, out)
}

func pollAttr() fuse.Attr { return fuse.Attr{Ino: pollNode, Mode: unix.S_IFREG | 0o400, Nlink: 1} }

// GetAttr implements fuse.RawFileSystem.
func (p pollFS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == pollNode {
		out.Attr = pollAttr()
		return fuse.OK
	}
	return p.RawFileSystem.GetAttr(cancel, in, out)
}

// Open implements fuse.RawFileSystem.
func (p pollFS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId == pollNode {
		out.Fh = pollNode
		out.OpenFlags = fuse.FOPEN_NOFLUSH | fuse.FOPEN_DIRECT_IO
		return fuse.OK
	}
	return p.RawFileSystem.Open(cancel, in, out)
}

// Release implements fuse.RawFileSystem.
func (p pollFS) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	if in.NodeId != pollNode {
		p.RawFileSystem.Release(cancel, in)
	}
}

// Forget implements fuse.RawFileSystem.
func (p pollFS) Forget(id, n uint64) {
	if id != pollNode {
		p.RawFileSystem.Forget(id, n)
	}
}

// learn makes the kernel ask once whether files below path can be polled.
func learn(path string) error {
	fd, err := unix.Open(filepath.Join(path, pollName), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return unix.Close(fd)
}
