package mount

import (
	"evernode/hotpocket/statefs/volume"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Permissions of the writable mount are checked here, not by the kernel. The
// kernel would ask for a folder's attributes again after every name that comes or
// goes in it, one request more for every new file. What is lost is that a path
// which the kernel knows by heart is followed through folders that may not be
// entered; so folder mnt lets nobody in but the contract's group and the node's user, as
// the original does.

// What somebody wants to do, in the bits of a mode.
const (
	mayRead  = 4
	mayWrite = 2
	mayEnter = 1
)

// openExec is set among the flags of an open that runs the file (the kernel's
// FMODE_EXEC); it needs no permission to read.
const openExec = 0x20

// allowed reports whether a caller may do something with a file, as path_resolution(7)
// has it.
func (fs *rwFS) allowed(who *fuse.Caller, mode uint32, want uint32) bool {
	switch {
	case who.Uid == 0:
		return true
	case who.Uid == fs.owner.Uid:
		mode >>= 6
	case who.Gid == fs.owner.Gid:
		mode >>= 3
	}
	return mode&want == want
}

// check refuses what a caller may not do with a file.
func (fs *rwFS) check(who *fuse.Caller, ino uint64, want uint32) fuse.Status {
	if who.Uid == 0 {
		return fuse.OK
	}
	a, err := fs.tree.Attr(volume.Ino(ino))
	if err != nil {
		return fs.status("permission", err)
	}
	if !fs.allowed(who, a.Mode, want) {
		return fuse.EACCES
	}
	return fuse.OK
}

// owns reports whether a caller may change modes and times.
func (fs *rwFS) owns(who *fuse.Caller) bool { return who.Uid == 0 || who.Uid == fs.owner.Uid }

// wanted is what an open with these flags needs.
func wanted(flags uint32) (want uint32) {
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		want = mayRead
		if flags&openExec != 0 {
			want = mayEnter
		}
	case unix.O_WRONLY:
		want = mayWrite
	default:
		want = mayRead | mayWrite
	}
	if flags&unix.O_TRUNC != 0 {
		want |= mayWrite
	}
	return want
}

// Access implements fuse.RawFileSystem: access(2) and chdir(2).
func (fs *rwFS) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	a, err := fs.tree.Attr(volume.Ino(in.NodeId))
	if err != nil {
		return fs.status("access", err)
	}
	if in.Uid == 0 {
		// Root may do everything, but not run what nobody may run.
		if in.Mask&mayEnter != 0 && a.Mode&unix.S_IFMT == unix.S_IFREG && a.Mode&0o111 == 0 {
			return fuse.EACCES
		}
		return fuse.OK
	}
	if !fs.allowed(&in.Caller, a.Mode, in.Mask&7) {
		return fuse.EACCES
	}
	return fuse.OK
}
