package statefs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"runtime"
	"sync/atomic"

	"evernode/internal/digest"

	"golang.org/x/sync/errgroup"
	"lukechampine.com/blake3/guts"
)

// A file is named by the plain BLAKE3 hash of its content, the same that
// b3sum prints. BLAKE3 is itself a binary tree over chunks of 1 KiB; cutting
// that tree at a power of two gives groups whose chaining values fold up to
// exactly this hash. So the list of a file's group values proves itself against
// the plain hash, every group proves itself against the list, and nothing is
// hashed twice: there is no second list of block hashes to keep or to trust.
const (
	// minGroup is the size of a group in bytes, unless the file is so large
	// that the list of its groups would grow past maxGroups.
	minGroup = 64 << 10
	// maxGroups bounds the list of a file: 64 Ki values of 32 bytes are 2 MiB.
	maxGroups = 64 << 10
	// maxGroup is the largest group, which has to travel in one message.
	maxGroup = 2 << 20

	// MaxFileSize is the largest file that can be part of the state: 128 GiB.
	MaxFileSize = maxGroup * maxGroups

	simdBytes = guts.MaxSIMD * guts.ChunkSize
)

// ErrFileTooLarge is the error of a file above MaxFileSize.
var ErrFileTooLarge = fmt.Errorf("file is larger than %d bytes", int64(MaxFileSize))

// Groups returns the group size in bytes for a file of the given size and the
// number of its groups. A file that fits into one group, an empty one too, has
// exactly one and needs no list. size must not exceed MaxFileSize.
func Groups(size uint64) (group uint64, count int) {
	group = minGroup
	for group < maxGroup && (size+group-1)/group > maxGroups {
		group *= 2
	}
	return group, max(1, int((size+group-1)/group))
}

// groupRange returns offset and length of group i of a file.
func groupRange(size uint64, i int) (off, n uint64) {
	group, _ := Groups(size)
	off = uint64(i) * group
	return off, min(group, size-off)
}

// GroupValue returns the BLAKE3 chaining value of group i of a file with more
// than one group. data is the whole group.
func GroupValue(size uint64, i int, data []byte) digest.Hash {
	group, _ := Groups(size)
	return fromWords(subtree(data, uint64(i)*(group/guts.ChunkSize)))
}

// subtree returns the chaining value of the subtree over data that begins at
// the given chunk of the file.
func subtree(data []byte, chunk uint64) [8]uint32 {
	if len(data) <= simdBytes {
		var node guts.Node
		if len(data) == simdBytes {
			node = guts.CompressBuffer((*[simdBytes]byte)(data), simdBytes, &guts.IV, chunk, 0)
		} else {
			var buf [simdBytes]byte
			copy(buf[:], data)
			node = guts.CompressBuffer(&buf, len(data), &guts.IV, chunk, 0)
		}
		return guts.ChainingValue(node)
	}
	// The left subtree is the largest complete one that leaves something over.
	left := simdBytes << (bits.Len(uint((len(data)-1)/simdBytes)) - 1)
	l := subtree(data[:left], chunk)
	r := subtree(data[left:], chunk+uint64(left/guts.ChunkSize))
	return guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, 0))
}

// FoldGroups returns the plain BLAKE3 hash of the file whose group values are
// given; there must be at least two.
func FoldGroups(values []digest.Hash) digest.Hash {
	return fromWords(fold(values, guts.FlagRoot))
}

func fold(values []digest.Hash, flags uint32) [8]uint32 {
	if len(values) == 1 {
		return toWords(values[0])
	}
	left := 1 << (bits.Len(uint(len(values)-1)) - 1)
	l, r := fold(values[:left], 0), fold(values[left:], 0)
	return guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, flags))
}

func toWords(h digest.Hash) (w [8]uint32) {
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(h[4*i:])
	}
	return w
}

func fromWords(w [8]uint32) (h digest.Hash) {
	for i, v := range w {
		binary.LittleEndian.PutUint32(h[4*i:], v)
	}
	return h
}

// errShrunk is the error of a file that ended before the size it had when it
// was opened.
var errShrunk = errors.New("file became shorter while it was read")

// hashContent returns the plain BLAKE3 hash of the first size bytes of r and,
// for a file of several groups, their values. Large files are hashed on all
// cores.
func hashContent(ctx context.Context, r io.ReaderAt, size uint64, buf []byte) (digest.Hash, []digest.Hash, error) {
	if size > MaxFileSize {
		return digest.Hash{}, nil, ErrFileTooLarge
	}
	group, count := Groups(size)
	if count == 1 {
		if uint64(len(buf)) < size {
			buf = make([]byte, size)
		}
		if err := readFull(r, buf[:size], 0); err != nil {
			return digest.Hash{}, nil, err
		}
		return digest.Sum(buf[:size]), nil, nil
	}
	values := make([]digest.Hash, count)
	// A worker takes runs of groups, so that reads are large and what was read
	// is still in its cache when it is hashed, and takes the next one when it is
	// done, so that nobody waits for a worker that was held up.
	const runBytes = 256 << 10
	perRun := max(1, int(runBytes/group))
	runs := (count + perRun - 1) / perRun
	workers := min(runtime.GOMAXPROCS(0), (runs+3)/4)
	var next atomic.Int64
	work := func(ctx context.Context, buf []byte) error {
		if len(buf) < perRun*int(group) {
			buf = make([]byte, perRun*int(group))
		}
		for k := next.Add(1) - 1; k < int64(runs); k = next.Add(1) - 1 {
			if err := ctx.Err(); err != nil {
				return err
			}
			i := int(k) * perRun
			off := uint64(i) * group
			end := min(uint64(i+perRun)*group, size)
			data := buf[:end-off]
			if err := readFull(r, data, int64(off)); err != nil {
				return err
			}
			for j := i; len(data) > 0; j++ {
				n := min(uint64(len(data)), group)
				values[j] = GroupValue(size, j, data[:n])
				data = data[n:]
			}
		}
		return nil
	}
	if workers == 1 {
		if err := work(ctx, buf); err != nil {
			return digest.Hash{}, nil, err
		}
		return FoldGroups(values), values, nil
	}
	g, gctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error { return work(gctx, nil) })
	}
	if err := g.Wait(); err != nil {
		return digest.Hash{}, nil, err
	}
	return FoldGroups(values), values, nil
}

func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return errShrunk
	}
	return err
}
