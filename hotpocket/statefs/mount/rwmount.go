package mount

import (
	"log/slog"

	"evernode/hotpocket/statefs/volume"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// rwMount is the writable mount.
type rwMount struct {
	*rwFS
	dev *device
}

// mountRW mounts on path what t, which may be set later, holds. passthrough says
// that files may be handed to the kernel.
func mountRW(path string, t tree, owner fuse.Owner, log *slog.Logger, passthrough bool) (*rwMount, error) {
	fs := &rwFS{RawFileSystem: fuse.NewDefaultRawFileSystem(), tree: t, log: log, owner: owner, known: newKnown()}
	m := &rwMount{rwFS: fs}
	fs.expire = func(ino volume.Ino) { m.dev.server.InodeNotify(uint64(ino), -1, 0) }
	fs.handles = newHandles(nil, nil)
	if passthrough {
		fs.handles.register = func(fd int) (int32, error) {
			id, errno := m.dev.register(fd)
			if errno != 0 {
				return 0, errno
			}
			return id, nil
		}
		fs.handles.forget = func(id int32) { m.dev.server.UnregisterBackingFd(id) }
	}
	dev, err := mountAt(path, fs, log, writable)
	if err != nil {
		return nil, err
	}
	m.dev = dev
	return m, nil
}

// String implements fuse.RawFileSystem.
func (fs *rwFS) String() string { return "evernode state" }

// invalidate makes the kernel forget what is wrong now. It must be called
// without a lock that answering a request needs.
func (m *rwMount) invalidate(c volume.Changes) {
	if c.All {
		files, names := m.known.all()
		c.Inos, c.Names = files, nil
		for _, n := range names {
			c.Names = append(c.Names, volume.Name{Parent: volume.Root, Name: n})
		}
	}
	for _, n := range c.Names {
		m.told("a name", m.dev.server.EntryNotify(uint64(n.Parent), n.Name))
	}
	for _, ino := range c.Inos {
		m.told("a file", m.dev.server.InodeNotify(uint64(ino), 0, 0))
	}
}

func (m *rwMount) told(what string, st fuse.Status) {
	if st == fuse.OK || st == fuse.ENOENT {
		return
	}
	m.log.Error("the kernel does not forget "+what+" of the state folder", "error", unix.Errno(st))
}

// unmount ends the mount and closes what is open in it.
func (m *rwMount) unmount() error {
	if err := m.dev.unmount(); err != nil {
		return err
	}
	m.handles.drop()
	return nil
}
