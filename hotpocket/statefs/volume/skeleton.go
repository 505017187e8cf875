package volume

import (
	"context"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// Volume is an open volume.
type Volume struct{ cfg Config }

// Open opens the volume in cfg.Dir or makes a new one, and brings it to the
// agreed version, whatever happened before. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Volume, error) { return nil, unix.ENOSYS }

// Close ends what is open and makes everything durable. An open run is undone.
func (v *Volume) Close() error { return unix.ENOSYS }

// Agreed returns the last agreed version.
func (v *Volume) Agreed() statefs.Version { return statefs.Version{} }

// Damaged reports whether the agreed version is incomplete on disk.
func (v *Volume) Damaged() bool { return false }

// Patch returns the agreed patch.cfg, nil when there is none.
func (v *Volume) Patch() []byte { return nil }

// SetPatch replaces the agreed patch.cfg outside of any run and returns its
// hash.
func (v *Volume) SetPatch(ctx context.Context, content []byte) (digest.Hash, error) {
	return digest.Hash{}, unix.ENOSYS
}

// Begin opens the working tree for the run of ledger seq: from now on the
// methods that change it work. Errors: statefs.ErrBusy, statefs.ErrDamaged.
func (v *Volume) Begin(ctx context.Context, seq uint64) error { return unix.ENOSYS }

// End closes the working tree, and returns the root of what the run left in it.
func (v *Volume) End(ctx context.Context) (digest.Hash, error) { return digest.Hash{}, unix.ENOSYS }

// Commit makes what End hashed, with this patch.cfg (nil for none), the agreed
// version.
func (v *Volume) Commit(ctx context.Context, patch []byte) error { return unix.ENOSYS }

// Rollback brings the working tree back to the agreed version, instead of End or
// after it.
func (v *Volume) Rollback(ctx context.Context) error { return unix.ENOSYS }

// Object returns a piece of the agreed state, or of one shortly before it.
func (v *Volume) Object(ctx context.Context, ref statefs.Ref) ([]byte, error) {
	return nil, statefs.ErrNotFound
}

// Stage opens the area in which a state is put together from fetched pieces.
func (v *Volume) Stage(ctx context.Context) (statefs.Staging, error) { return nil, unix.ENOSYS }

// Lookup returns the attributes of the entry name of a folder.
func (v *Volume) Lookup(parent Ino, name string) (Attr, error) { return Attr{}, unix.ENOSYS }

// Forget tells that the kernel no longer knows a file, so that what is kept for
// it in memory can go.
func (v *Volume) Forget(ino Ino) {}

// Attr returns the attributes of a file. ESTALE when it does not exist (any
// more).
func (v *Volume) Attr(ino Ino) (Attr, error) { return Attr{}, unix.ENOSYS }

// SetAttr changes attributes and returns the new ones.
func (v *Volume) SetAttr(ino Ino, c Change) (Attr, error) { return Attr{}, unix.ENOSYS }

// Create makes a regular file with permission bits mode and opens it with the
// given open(2) flags. EEXIST when the name is taken, also without O_EXCL: the
// kernel looks names up before.
func (v *Volume) Create(parent Ino, name string, mode, flags uint32) (Attr, *File, error) {
	return Attr{}, nil, unix.ENOSYS
}

// OpenFile opens a regular file with the given open(2) flags, of which the access
// mode, O_TRUNC and O_APPEND matter.
func (v *Volume) OpenFile(ino Ino, flags uint32) (*File, error) { return nil, unix.ENOSYS }

// Mkdir makes a folder with permission bits mode.
func (v *Volume) Mkdir(parent Ino, name string, mode uint32) (Attr, error) {
	return Attr{}, unix.ENOSYS
}

// Mknod makes a socket, pipe or empty regular file as mode (st_mode) says;
// devices are refused with EPERM. Sockets and pipes vanish at End.
func (v *Volume) Mknod(parent Ino, name string, mode uint32) (Attr, error) {
	return Attr{}, unix.ENOSYS
}

// Symlink makes a symbolic link.
func (v *Volume) Symlink(parent Ino, name, target string) (Attr, error) { return Attr{}, unix.ENOSYS }

// Readlink returns the target of a symbolic link.
func (v *Volume) Readlink(ino Ino) (string, error) { return "", unix.ENOSYS }

// Link gives a file one more name. End makes it a file of its own.
func (v *Volume) Link(ino, parent Ino, name string) (Attr, error) { return Attr{}, unix.ENOSYS }

// Unlink removes a name of anything but a folder. The file lives on until its
// last File is closed.
func (v *Volume) Unlink(parent Ino, name string) error { return unix.ENOSYS }

// Rmdir removes an empty folder.
func (v *Volume) Rmdir(parent Ino, name string) error { return unix.ENOSYS }

// Rename moves an entry; flags are those of renameat2(2), RENAME_NOREPLACE and
// RENAME_EXCHANGE being known.
func (v *Volume) Rename(parent Ino, name string, toParent Ino, toName string, flags uint32) error {
	return unix.ENOSYS
}

// OpenDir opens a folder for listing.
func (v *Volume) OpenDir(ino Ino) (*DirStream, error) { return nil, unix.ENOSYS }

// Statfs tells about free space.
func (v *Volume) Statfs() (StatfsInfo, error) { return StatfsInfo{}, unix.ENOSYS }

// DirStream lists a folder. The listing is taken when it is read from cookie 0:
// what comes and goes later does not move what is still to be listed.
type DirStream struct{}

// Read calls fn with the entries behind the one whose Next is cookie, "." and
// ".." first, until fn returns false (that entry counts as not read) or there
// are no more.
func (d *DirStream) Read(cookie uint64, fn func(Dirent) bool) error { return unix.ENOSYS }

// Close ends the listing.
func (d *DirStream) Close() {}

// File is an open regular file of the working tree. It must be closed, and may
// be used by many goroutines.
type File struct{}

// Ino returns the number of the file.
func (f *File) Ino() Ino { return 0 }

// Backing returns a descriptor that the kernel may read and, when the file is
// open for writing, write itself, or -1 when every call has to come here. It is
// valid until Close. All Files of one Ino that are open at a time have a backing
// of the same file, or all have none. key names that backing file: Files with
// equal keys may share what the kernel registered for one of them, as long as
// one of them is open.
func (f *File) Backing() (fd int, key uint64) { return -1, 0 }

// ReadAt reads up to len(p) bytes; fewer, with a nil error, at the end of the
// file.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return 0, unix.ENOSYS }

// WriteAt writes all of p. A run that has ended refuses with EROFS.
func (f *File) WriteAt(p []byte, off int64) (int, error) { return 0, unix.ENOSYS }

// Allocate is fallocate(2) with its mode.
func (f *File) Allocate(mode uint32, off, length int64) error { return unix.ENOSYS }

// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE.
func (f *File) Seek(off int64, whence int) (int64, error) { return 0, unix.ENOSYS }

// Close ends the use of the file.
func (f *File) Close() error { return unix.ENOSYS }

// Snapshot is an agreed version that stays as it is until Close.
type Snapshot struct{}

// Node is a file, folder or link of a Snapshot. It never changes.
type Node struct{}

// Snapshot pins the agreed version.
func (v *Volume) Snapshot() (*Snapshot, error) { return nil, unix.ENOSYS }

// Close lets go of the version.
func (s *Snapshot) Close() error { return unix.ENOSYS }

// Version names the version.
func (s *Snapshot) Version() statefs.Version { return statefs.Version{} }

// Patch returns its patch.cfg, nil when there is none.
func (s *Snapshot) Patch() []byte { return nil }

// Root returns the top folder.
func (s *Snapshot) Root() *Node { return nil }

// Attr returns the attributes of n. Numbers are unique within a snapshot.
func (n *Node) Attr() Attr { return Attr{} }

// Readlink returns the target of a symbolic link.
func (n *Node) Readlink() (string, error) { return "", unix.ENOSYS }

// Lookup returns the entry name of the folder n; ENOENT, ENOTDIR.
func (n *Node) Lookup(name string) (*Node, error) { return nil, unix.ENOSYS }

// ReadDir calls fn with the entries of the folder n from the given position
// (0 is the first; "." and ".." are not among them) until it returns false.
func (n *Node) ReadDir(from int, fn func(pos int, name string, k *Node) bool) error {
	return unix.ENOSYS
}

// Open opens the regular file n for reading.
func (s *Snapshot) Open(n *Node) (*SnapFile, error) { return nil, unix.ENOSYS }

// SnapFile is an open file of a Snapshot. It must be closed before the Snapshot.
type SnapFile struct{}

// Backing is as in File; the descriptor must not be used for writing.
func (f *SnapFile) Backing() (fd int, key uint64) { return -1, 0 }

// ReadAt is as in File.
func (f *SnapFile) ReadAt(p []byte, off int64) (int, error) { return 0, unix.ENOSYS }

// Close ends the use of the file.
func (f *SnapFile) Close() error { return unix.ENOSYS }
