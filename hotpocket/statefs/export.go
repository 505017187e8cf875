package statefs

import (
	"context"
	"io"
	"os"

	"evernode/internal/digest"
)

// The functions of this file are what other backends of the state share with the
// plain folder.

// HashContent returns the plain BLAKE3 hash of the first size bytes of r and,
// for a file of several groups, their values. Large files are hashed on all
// cores. buf, which may be nil, is used for reading.
func HashContent(ctx context.Context, r io.ReaderAt, size uint64, buf []byte) (digest.Hash, []digest.Hash, error) {
	return hashContent(ctx, r, size, buf)
}

// GroupRange returns offset and length of group i of a file.
func GroupRange(size uint64, i int) (off, n uint64) { return groupRange(size, i) }

// ParseList reads the content of a RefList object and proves it against the hash
// of the file. ErrMismatch when it does not fit.
func ParseList(size uint64, hash digest.Hash, list []byte) ([]digest.Hash, error) {
	return parseList(size, hash, list)
}

// CopyContent copies the first size bytes of src to the empty file dst, sharing
// blocks where the file system can. Holes stay holes.
func CopyContent(dst, src *os.File, size int64) error { return copyContent(dst, src, size) }

// BootID names the current run of the kernel; empty when unknown.
func BootID() string { return bootID() }
