// Package volume is the versioned folder behind the FUSE mount: a contract's
// state without the kernel. It keeps names and attributes in a tree whose pages
// are shared between versions and copied when they change, and contents in
// numbered object files, so that a rename, a link or a rollback moves no data.
// One working tree is open for a run; End names what the run left by the root
// hash that the plain folder (statefs.Dir) would have, at a cost in proportion
// to what changed; Commit makes it the agreed version and Rollback forgets it.
// Earlier versions stay readable as long as somebody holds them.
//
// Package mount calls it from many goroutines with what the kernel asks, and
// turns it into a statefs.State. This package never talks to FUSE, never looks
// at patch.cfg or private files on disk, and never modifies an object file that
// an agreed version needs.
//
// Errors that go to the kernel are unix.Errno values; all others are wrapped
// with what was being done.
package volume

import (
	"log/slog"

	"evernode/hotpocket/statefs"
)

// Ino numbers a file, folder or link of the working tree. A number stays with
// its file over renames, runs and restarts and is never given to another file.
type Ino uint64

// Root is the number of the top folder.
const Root Ino = 1

// Attr is what stat(2) tells about a file, apart from its owner.
type Attr struct {
	Ino  Ino
	Kind statefs.Kind // 0 for a socket or pipe, which only live until End
	// Mode is st_mode: the type of the file and its permission bits.
	Mode  uint32
	Nlink uint32
	// Size is in bytes, Blocks in units of 512 bytes.
	Size, Blocks uint64
	// Times are nanoseconds since 1970.
	Atime, Mtime, Ctime int64
}

// Change is what SetAttr changes; nil fields stay.
type Change struct {
	Mode         *uint32 // permission, setuid, setgid and sticky bits
	Size         *uint64
	Atime, Mtime *int64 // nanoseconds since 1970
}

// Changes names what a kernel may have cached and is wrong now.
type Changes struct {
	// All says that anything may have changed.
	All bool
	// Names are entries that have come, gone or turned into something else.
	Names []Name
	// Inos are files whose attributes or contents have changed, and folders
	// whose listings have.
	Inos []Ino
}

// Name is an entry of a folder.
type Name struct {
	Parent Ino
	Name   string
}

// Config says where a Volume lives.
type Config struct {
	// Dir is the volume's own folder, usually store/volume; it is made if
	// missing.
	Dir string
	// Log gets warnings about what is put right.
	Log *slog.Logger
	// Confirmed is as in statefs.Config: what the node's ledger records as
	// agreed. If the last run ended with exactly this version it becomes the
	// agreed one.
	Confirmed *statefs.Version
	// Patches are contents of patch.cfg that are lying about, one of which may
	// be the one that Confirmed names.
	Patches [][]byte
	// Import, when not empty, is a plain folder that becomes the content of a
	// volume that does not exist yet, under ImportVersion's Seq and with
	// ImportPatch (nil for none) as its patch.cfg. The folder stays as it is.
	// Sockets, pipes and devices in it are left out.
	Import        string
	ImportVersion statefs.Version
	ImportPatch   []byte
	// Passthrough says that the kernel can read and write a file's backing
	// descriptor itself, so that File.Backing is worth giving.
	Passthrough bool
	// Invalidate, when not nil, is told what a kernel may have cached and is
	// wrong after the working tree changed by itself: by End, Rollback and a
	// Staging's Switch. It is called before these return, without any lock
	// held, but must not wait for a call that changes the working tree.
	Invalidate func(Changes)

	// failpoint, when not nil, is called between the steps that change the
	// disk; tests kill the process in it.
	failpoint func(step string)
	// boot, when not empty, stands for statefs.BootID; for tests.
	boot string
}

// Dirent is one name that a folder lists.
type Dirent struct {
	Name string
	Ino  Ino
	// Type is the type of the file as in st_mode (unix.S_IFDIR and so on).
	Type uint32
	// Next is the cookie that goes on behind this entry.
	Next uint64
}

// StatfsInfo is what statfs(2) tells: of the disk below, but with the volume's
// own count of files.
type StatfsInfo struct {
	BlockSize, Blocks, Free, Available uint64
	Files, FreeFiles                   uint64
	NameMax                            uint32
}
