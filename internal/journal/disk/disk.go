// Package disk is the small part of a file system that our stores need, as an
// interface with two implementations: OS, the real one, and Mem, which keeps
// everything in memory, fails on demand and, in a simulated crash, loses
// whatever was not synced.
//
// It is called by internal/journal and by the stores built on it. It knows
// nothing of what the files contain. Names are slash-separated paths; the
// rules are those of POSIX: writes are durable after File.Sync, and creating,
// renaming and removing names are durable after SyncDir of their folder.
package disk

import "io"

// FS is a file system.
type FS interface {
	// Create opens a file for reading and writing and makes it when it is
	// missing. Existing content is kept.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing. The error of a
	// missing file satisfies errors.Is(err, fs.ErrNotExist).
	Open(name string) (File, error)
	// Remove deletes a file.
	Remove(name string) error
	// Rename moves a file, replacing the target.
	Rename(from, to string) error
	// MkdirAll makes a folder and its parents, and makes them durable.
	MkdirAll(name string) error
	// List returns the names, without path, of the files in a folder, sorted.
	List(dir string) ([]string, error)
	// SyncDir makes names created, renamed and removed in the folder durable.
	SyncDir(dir string) error
	// Lock takes the exclusive lock that the named file stands for, without
	// waiting; an error says that another process holds it. Closing frees it.
	Lock(name string) (io.Closer, error)
}

// File is an open file. It is safe for concurrent use.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length in bytes.
	Size() (int64, error)
	// Truncate sets the length in bytes.
	Truncate(size int64) error
	// Allocate reserves space for the first size bytes and extends the file
	// to at least that length.
	Allocate(size int64) error
	// Sync makes the content and length durable.
	Sync() error
}
