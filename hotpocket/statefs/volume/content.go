package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"

	"golang.org/x/sys/unix"
)

// layers are the object files over the lowest one of a large file, from low to
// high.
type layers struct{ over []*layer }

// layer is an object that holds the blocks that one run changed in a large file,
// at their place. It never changes once a version contains it.
type layer struct {
	obj uint64
	// limit is how many bytes of what lies below show through; behind them are
	// zeros where the layer itself has nothing.
	limit uint64
	bits  bitmap
	// ord is the ordinal of the version that brought it, 0 for those of the
	// version that the volume was opened with. It is set before the layer is given
	// to be folded.
	ord uint64
	// folded is set when the blocks are in the lowest object, too.
	folded atomic.Bool
}

// content is an open content in one or more objects.
type content struct {
	base *object // nil: nothing but zeros
	off  uint64  // where the content begins in it
	over []openLayer
	size uint64
}

type openLayer struct {
	*layer
	o *object
}

// openContent opens what a node's content is in.
func (v *Volume) openContent(obj uint64, lay []*layer, size uint64) (_ *content, err error) {
	c := &content{size: size}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if packed(obj) {
		_, c.off = packAt(obj)
	}
	if obj != 0 {
		if c.base, err = v.store.get(objectOf(obj), false); err != nil {
			return nil, err
		}
	}
	for _, l := range lay {
		o, err := v.store.get(l.obj, false)
		if err != nil {
			return nil, err
		}
		c.over = append(c.over, openLayer{l, o})
	}
	return c, nil
}

func (c *content) close() {
	if c.base != nil {
		c.base.put()
	}
	for _, l := range c.over {
		l.o.put()
	}
}

// ReadAt implements io.ReaderAt.
func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	var err error
	if uint64(off) >= c.size {
		return 0, io.EOF
	}
	if uint64(len(p)) > c.size-uint64(off) {
		p, err = p[:c.size-uint64(off)], io.EOF
	}
	if e := c.read(len(c.over), p, uint64(off)); e != nil {
		return 0, e
	}
	return len(p), err
}

// read fills p from the lowest n layers and the base; what they do not have is
// zero.
func (c *content) read(n int, p []byte, off uint64) error {
	if n == 0 {
		if c.base == nil {
			clear(p)
			return nil
		}
		return readOrZero(c.base, p, c.off+off)
	}
	l := c.over[n-1]
	end := off + uint64(len(p))
	for off < end {
		in, until := l.bits.runEnd(off/blockSize, (end+blockSize-1)/blockSize)
		part := p[:min(until*blockSize, end)-off]
		p = p[len(part):]
		if in {
			if err := readOrZero(l.o, part, off); err != nil {
				return err
			}
			off += uint64(len(part))
			continue
		}
		shown := uint64(0)
		if l.limit > off {
			shown = min(l.limit-off, uint64(len(part)))
			if err := c.read(n-1, part[:shown], off); err != nil {
				return err
			}
		}
		clear(part[shown:])
		off += uint64(len(part))
	}
	return nil
}

func readOrZero(o io.ReaderAt, p []byte, off uint64) error {
	n, err := o.ReadAt(p, int64(off))
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return nil
	}
	return err
}

// overlay is the layer that the open run writes.
type overlay struct {
	layer
	o     *object  // open as long as the overlay is
	below *content // open, too
	size  atomic.Uint64
	// mtime is the time of the last write, 0 before.
	mtime atomic.Int64
}

// close ends the use of the objects.
func (o *overlay) close() {
	if o.below != nil {
		o.below.close()
	}
	o.o.put()
}

// content is the overlay and what lies below it as one. It is valid while the
// file's io is held.
func (o *overlay) content() *content {
	over := make([]openLayer, 0, len(o.below.over)+1)
	over = append(append(over, o.below.over...), openLayer{&o.layer, o.o})
	return &content{base: o.below.base, off: o.below.off, over: over, size: o.size.Load()}
}

func (o *overlay) stamp() { o.mtime.Store(now()) }

// writeAt is called with the file's io held for writing.
func (o *overlay) writeAt(p []byte, off uint64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	end := off + uint64(len(p))
	if end < off || end > 1<<62 {
		return 0, unix.EFBIG
	}
	first, last := off/blockSize, (end-1)/blockSize
	// Blocks of which only a part is written need the rest from below.
	if err := o.fill(first, off, end); err != nil {
		return 0, err
	}
	if last != first {
		if err := o.fill(last, off, end); err != nil {
			return 0, err
		}
	}
	n, err := o.o.WriteAt(p, int64(off))
	if err != nil {
		// What was written counts as far as whole blocks go; the rest keeps
		// showing what was there.
		done := (off + uint64(n)) / blockSize
		if n > 0 && done > first {
			o.bits.setRange(first, done)
			n = int(done*blockSize - off)
			o.size.Store(max(o.size.Load(), off+uint64(n)))
			o.stamp()
			return n, nil
		}
		return 0, err
	}
	o.bits.setRange(first, last+1)
	if end > o.size.Load() {
		o.size.Store(end)
	}
	o.stamp()
	return n, nil
}

// fill brings a block into the overlay unless [from, to) covers it anyway.
func (o *overlay) fill(block, from, to uint64) error {
	start := block * blockSize
	if o.bits.has(block) || from <= start && to >= start+blockSize || start >= o.limit {
		return nil
	}
	var buf [blockSize]byte
	n := min(blockSize, o.limit-start)
	if err := o.below.read(len(o.below.over), buf[:n], start); err != nil {
		return err
	}
	if _, err := o.o.WriteAt(buf[:], int64(start)); err != nil {
		return err
	}
	o.bits.setRange(block, block+1)
	return nil
}

// truncate changes the size, with io held for writing.
func (o *overlay) truncate(size uint64) error {
	old := o.size.Load()
	if size < old {
		if err := unix.Ftruncate(o.o.fd, int64(size)); err != nil {
			return err
		}
		o.bits.clearFrom((size + blockSize - 1) / blockSize)
		o.limit = min(o.limit, size)
	}
	o.size.Store(size)
	o.stamp()
	return nil
}

// zero makes [off, end) zeros without taking up space.
func (o *overlay) zero(off, end uint64) error {
	if off >= end {
		return nil
	}
	var none [blockSize]byte
	first, last := (off+blockSize-1)/blockSize, end/blockSize
	if first > last { // within one block
		_, err := o.writeAt(none[:end-off], off)
		return err
	}
	if off < first*blockSize {
		if _, err := o.writeAt(none[:first*blockSize-off], off); err != nil {
			return err
		}
	}
	if last*blockSize < end {
		if _, err := o.writeAt(none[:end-last*blockSize], last*blockSize); err != nil {
			return err
		}
	}
	if first < last {
		err := unix.Fallocate(o.o.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(first*blockSize), int64((last-first)*blockSize))
		if err != nil {
			return err
		}
		o.bits.setRange(first, last)
	}
	o.stamp()
	return nil
}

// allocate is fallocate(2), with io held for writing.
func (o *overlay) allocate(mode uint32, off, length uint64) error {
	end, size := off+length, o.size.Load()
	keep := mode&unix.FALLOC_FL_KEEP_SIZE != 0
	switch mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case 0:
	case unix.FALLOC_FL_PUNCH_HOLE:
		return o.zero(off, min(end, size))
	case unix.FALLOC_FL_ZERO_RANGE:
		if err := o.zero(off, min(end, size)); err != nil {
			return err
		}
	default:
		return unix.EOPNOTSUPP
	}
	if !keep && end > size {
		o.size.Store(end)
		o.stamp()
	}
	return nil
}

// side is what lies beside the uppermost object of a file of several groups.
type side struct {
	size   uint64
	limit  uint64 // of the layer; 0 for a plain object
	bits   bitmap
	values []digest.Hash
}

const sideMagic = "evernode/state/side/1"

// maxSideBits bounds the blocks of the largest file.
const maxSideBits = statefs.MaxFileSize / blockSize / 64

func (s *side) encode() []byte {
	b := wire.AppendString(nil, sideMagic)
	b = wire.AppendU64(b, s.size)
	b = wire.AppendU64(b, s.limit)
	b = wire.AppendU32(b, uint32(len(s.bits)))
	for _, w := range s.bits {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	b = wire.AppendU32(b, uint32(len(s.values)))
	for i := range s.values {
		b = append(b, s.values[i][:]...)
	}
	h := digest.Sum(b)
	return append(b, h[:]...)
}

func decodeSide(b []byte) (*side, error) {
	if len(b) < digest.Size {
		return nil, wire.ErrShort
	}
	body := b[:len(b)-digest.Size]
	if digest.Sum(body) != digest.Hash(b[len(body):]) {
		return nil, errors.New("record of a file's groups has a wrong hash")
	}
	r := wire.NewReader(body)
	if magic := r.String(64); r.Err() == nil && magic != sideMagic {
		return nil, fmt.Errorf("record of a file's groups begins with %q", magic)
	}
	s := &side{size: r.U64(), limit: r.U64()}
	s.bits = make(bitmap, r.Count(maxSideBits, 8))
	for i := range s.bits {
		s.bits[i] = r.U64()
	}
	s.values = make([]digest.Hash, r.Count(64<<10, digest.Size))
	for i := range s.values {
		r.Fixed(s.values[i][:])
	}
	return s, r.Close()
}

func (s *store) writeSide(id uint64, sd *side) error {
	return s.writeFile(id, objectName(id)+sideSuffix, sd.encode())
}

func (s *store) writeFile(id uint64, name string, data []byte) error {
	fd, err := retry(func() (int, error) {
		return unix.Openat(s.shard(id), name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	})
	if err != nil {
		return err
	}
	_, err = pwrite(fd, data, 0)
	if e := unix.Close(fd); err == nil {
		err = e
	}
	return err
}

func (s *store) readSide(id uint64) (*side, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(s.shard(id), objectName(id)+sideSuffix, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "groups")
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSideBits*8+4<<20))
	if err != nil {
		return nil, err
	}
	return decodeSide(b)
}

// valueCache keeps the group values of large files that are written or fetched
// at the moment. They are on disk beside their object, and prove themselves
// against the hash of the file.
type valueCache struct {
	mu    sync.Mutex
	at    map[uint64][]digest.Hash
	order []uint64 // oldest first
	size  int
}

// valueCacheMax is 256 Ki values, 8 MiB: those of 16 GiB of files.
const valueCacheMax = 256 << 10

func (c *valueCache) get(id uint64) []digest.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[id]
}

func (c *valueCache) put(id uint64, values []digest.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == nil {
		c.at = make(map[uint64][]digest.Hash)
	}
	if old, ok := c.at[id]; ok {
		c.size += len(values) - len(old)
		c.at[id] = values
		return
	}
	for len(c.order) > 0 && c.size+len(values) > valueCacheMax {
		c.size -= len(c.at[c.order[0]])
		delete(c.at, c.order[0])
		c.order = c.order[1:]
	}
	c.at[id] = values
	c.order = append(c.order, id)
	c.size += len(values)
}
