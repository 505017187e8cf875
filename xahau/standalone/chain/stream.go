package chain

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"evernode/internal/journal/disk"
)

// stream is a sequence of bytes that grows at its end and is dropped from its
// beginning, kept in segment files. Offsets count from the beginning of time.
// One goroutine writes; any number read.
type stream struct {
	fs   disk.FS
	dir  string
	name string
	size int64 // of a segment, from which on the next is begun
	salt func() uint64

	mu   sync.RWMutex // files are closed and dropped only under Lock
	segs []*segment   // ascending
	open int          // files that are open
}

type segment struct {
	base   uint64 // offset of its first byte
	size   int64  // bytes in use, the header too
	salt   uint64
	file   disk.File // nil while closed
	synced int64     // bytes known to be durable
}

// maxOpen is how many files of a stream are open at most, apart from those
// that are being written.
const maxOpen = 128

func (g *segment) end() uint64 { return g.base + uint64(g.size) }

func (s *stream) path(base uint64) string {
	return path.Join(s.dir, fmt.Sprintf("%s-%012x", s.name, base))
}

// list finds the segments and reads their headers. A last segment without a
// header was being begun when the machine stopped; it is removed.
func (s *stream) list() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	var bases []uint64
	for _, name := range names {
		hex, ok := strings.CutPrefix(name, s.name+"-")
		if !ok {
			continue
		}
		base, err := strconv.ParseUint(hex, 16, 48)
		if err != nil || s.path(base) != path.Join(s.dir, name) {
			return fmt.Errorf("%s is no segment of ours", path.Join(s.dir, name))
		}
		bases = append(bases, base)
	}
	slices.Sort(bases)
	for i, base := range bases {
		f, err := s.fs.Open(s.path(base))
		if err != nil {
			return err
		}
		g := &segment{base: base, file: f}
		if g.size, err = f.Size(); err != nil {
			return err
		}
		b := make([]byte, min(g.size, segmentHeader))
		if _, err := readFull(f, b, 0); err != nil {
			return fmt.Errorf("reading %s: %w", s.path(base), err)
		}
		var ok bool
		if g.salt, ok = parseSegmentHeader(b, base); !ok {
			f.Close()
			if i < len(bases)-1 || g.size > segmentHeader {
				return fmt.Errorf("%w: %s has no valid header", ErrDamaged, s.path(base))
			}
			if err := s.fs.Remove(s.path(base)); err != nil {
				return err
			}
			return s.fs.SyncDir(s.dir)
		}
		s.segs = append(s.segs, g)
		s.open++
		s.closeSome(g)
	}
	return nil
}

func readFull(f disk.File, b []byte, off int64) (int, error) {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// first returns the offset of the first byte that is there, end the offset
// behind the last.
func (s *stream) first() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.segs) == 0 {
		return 0
	}
	return s.segs[0].base
}

func (s *stream) end() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.segs) == 0 {
		return 0
	}
	return s.segs[len(s.segs)-1].end()
}

// find returns the segment with an offset, nil when there is none. The caller
// holds mu.
func (s *stream) find(off uint64) *segment {
	i, found := slices.BinarySearchFunc(s.segs, off, func(g *segment, off uint64) int {
		switch {
		case g.base < off:
			return -1
		case g.base > off:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i < 0 || off >= s.segs[i].end() {
		return nil
	}
	return s.segs[i]
}

// errGone is the internal sign of an offset that is not in the stream.
var errGone = errors.New("it is not kept any more")

// read returns n bytes at an offset.
func (s *stream) read(off uint64, n int) ([]byte, error) {
	if n == 0 {
		return []byte{}, nil
	}
	s.mu.RLock()
	g := s.find(off)
	if g != nil && g.file == nil {
		s.mu.RUnlock()
		if err := s.reopen(off); err != nil {
			return nil, err
		}
		s.mu.RLock()
		g = s.find(off)
	}
	defer s.mu.RUnlock()
	if g == nil || g.file == nil {
		return nil, errGone
	}
	if n < 0 || off+uint64(n) > g.end() {
		return nil, fmt.Errorf("%w: %d bytes at offset %d of %s are beyond its end", ErrDamaged, n, off, s.path(g.base))
	}
	b := make([]byte, n)
	if _, err := readFull(g.file, b, int64(off-g.base)); err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.path(g.base), err)
	}
	return b, nil
}

func (s *stream) reopen(off uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.find(off)
	if g == nil || g.file != nil {
		return nil
	}
	f, err := s.fs.Open(s.path(g.base))
	if err != nil {
		return err
	}
	g.file = f
	s.open++
	s.closeSome(g)
	return nil
}

// closeSome keeps the number of open files bounded. The caller holds mu.
func (s *stream) closeSome(but *segment) {
	for _, g := range s.segs {
		if s.open <= maxOpen {
			return
		}
		if g != but && g.file != nil && g.synced == g.size && g != s.segs[len(s.segs)-1] {
			g.file.Close()
			g.file = nil
			s.open--
		}
	}
}

// next returns the offset at which the next frame will stand and the salt to
// seal it with; it begins a new segment when the last is full.
func (s *stream) next() (off, salt uint64, err error) {
	s.mu.RLock()
	var last *segment
	if len(s.segs) > 0 {
		last = s.segs[len(s.segs)-1]
	}
	s.mu.RUnlock()
	if last != nil && last.size < s.size {
		return last.end(), last.salt, nil
	}
	// Only the last segment can have an end that is not durable.
	if err := s.sync(); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", errSync, err)
	}
	g := &segment{salt: s.salt(), size: segmentHeader, synced: segmentHeader}
	if last != nil {
		g.base = last.end()
	}
	if g.base >= 1<<47 {
		return 0, 0, fmt.Errorf("the offsets of %s have run out", s.dir)
	}
	if err := s.begin(g); err != nil {
		return 0, 0, fmt.Errorf("beginning %s: %w", s.path(g.base), err)
	}
	return g.end(), g.salt, nil
}

// begin makes a segment, durable with its header before anything else is
// written into it: so a segment with content and without a header is damaged.
func (s *stream) begin(g *segment) error {
	f, err := s.fs.Create(s.path(g.base))
	if err != nil {
		return err
	}
	steps := []func() error{
		func() error { return f.Truncate(0) },
		func() error { _, err := f.WriteAt(appendSegmentHeader(nil, g.base, g.salt), 0); return err },
		f.Sync,
		func() error { return s.fs.SyncDir(s.dir) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			f.Close()
			return errors.Join(err, s.fs.Remove(s.path(g.base)))
		}
	}
	g.file = f
	s.mu.Lock()
	s.segs = append(s.segs, g)
	s.open++
	s.closeSome(g)
	s.mu.Unlock()
	return nil
}

// write writes a frame where next has said. It counts only after advance.
func (s *stream) write(b []byte) error {
	s.mu.RLock()
	g := s.segs[len(s.segs)-1]
	s.mu.RUnlock()
	if _, err := g.file.WriteAt(b, g.size); err != nil {
		return fmt.Errorf("writing %s: %w", s.path(g.base), err)
	}
	return nil
}

func (s *stream) advance(n int) {
	s.mu.Lock()
	s.segs[len(s.segs)-1].size += int64(n)
	s.mu.Unlock()
}

// errSync is the internal sign of a sync that has failed.
var errSync = errors.New("sync")

// sync makes everything durable that was written before the call.
func (s *stream) sync() error {
	s.mu.RLock()
	if len(s.segs) == 0 {
		s.mu.RUnlock()
		return nil
	}
	g := s.segs[len(s.segs)-1]
	file, size := g.file, g.size
	s.mu.RUnlock()
	if err := file.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", s.path(g.base), err)
	}
	s.mu.Lock()
	g.synced = max(g.synced, size)
	s.mu.Unlock()
	return nil
}

// drop removes segments that end at or before an offset, but never the last,
// and at most limit: where a file system has to tell the disk which blocks are
// free, removing many files at once holds up everybody's syncs.
func (s *stream) drop(before uint64, limit int) error {
	s.mu.Lock()
	var dropped []*segment
	for len(s.segs) > 1 && s.segs[0].end() <= before && len(dropped) < limit {
		g := s.segs[0]
		if g.file != nil {
			g.file.Close()
			g.file = nil
			s.open--
		}
		dropped = append(dropped, g)
		s.segs = s.segs[1:]
	}
	s.mu.Unlock()
	for _, g := range dropped {
		if err := s.remove(g); err != nil {
			return err
		}
	}
	return nil
}

// frameAt reads the header of the frame at an offset.
func (s *stream) frameAt(off uint64) (frame, error) {
	b, err := s.read(off, frameHeader)
	if err != nil {
		return frame{}, err
	}
	s.mu.RLock()
	g := s.find(off)
	s.mu.RUnlock()
	if g == nil {
		return frame{}, errGone
	}
	f, ok := parseFrame(b, g.salt, off)
	if !ok {
		return frame{}, fmt.Errorf("%w: no frame at offset %d of %s", ErrDamaged, off-g.base, s.path(g.base))
	}
	return f, nil
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.segs {
		if g.file != nil {
			g.file.Close()
			g.file = nil
		}
	}
	s.segs = nil
}

// scanned is what scan has found in a stream from some offset on.
type scanned struct {
	proved uint32 // highest ledger that any frame, also behind the valid ones, says was durable
	cut    uint64 // offset at which the valid frames end
	left   int64  // bytes behind it
}

// scan reads the frames from an offset on, which is where a frame begins or the
// stream ends. first is the ledger of the first frame, 0 when that is not
// known. visit gets every valid frame with its payload, which it may keep; it
// sees ledgers one after the other.
func (s *stream) scan(off uint64, first uint32, visit func(frame, []byte) error) (scanned, error) {
	out := scanned{cut: off}
	for i, g := range s.segs {
		if g.end() <= off && i+1 < len(s.segs) {
			continue
		}
		at := max(off, g.base+segmentHeader)
		for at < g.end() {
			f, payload, err := s.valid(g, at)
			if err != nil {
				return out, err
			}
			if payload == nil || first != 0 && f.ledger != first {
				break
			}
			if err := visit(f, payload); err != nil {
				return out, fmt.Errorf("ledger %d in %s: %w", f.ledger, s.path(g.base), err)
			}
			out.proved = max(out.proved, f.durable)
			first = f.ledger + 1
			at = f.end()
		}
		out.cut = at
		if i+1 == len(s.segs) {
			if at >= g.end() {
				break
			}
			rest, err := s.read(at, int(g.end()-at))
			if err != nil {
				return out, err
			}
			out.left = int64(len(rest))
			out.proved = max(out.proved, provedDurable(rest, g.salt, at))
		} else if at != g.end() || g.end() != s.segs[i+1].base {
			// A segment is begun only after the one before it is durable.
			return out, fmt.Errorf("%w: %s has no valid frame at offset %d", ErrDamaged, s.path(g.base), at-g.base)
		}
	}
	return out, nil
}

// valid reads the frame at an offset; the payload is nil when there is none.
func (s *stream) valid(g *segment, at uint64) (frame, []byte, error) {
	if at+frameHeader > g.end() {
		return frame{}, nil, nil
	}
	b, err := s.read(at, frameHeader)
	if err != nil {
		return frame{}, nil, err
	}
	f, ok := parseFrame(b, g.salt, at)
	if !ok || f.end() > g.end() {
		return frame{}, nil, nil
	}
	payload, err := s.read(at+frameHeader, int(f.size))
	if err != nil {
		return frame{}, nil, err
	}
	if checksum(payload) != f.sum {
		return frame{}, nil, nil
	}
	return f, payload, nil
}

// cut removes everything from an offset on, which is the end of a frame or of
// the header of a segment, or a place where no segment is, and makes that and
// what is before it durable.
func (s *stream) cut(off uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.segs) - 1; n >= 0 && s.segs[n].base >= off; n-- {
		g := s.segs[n]
		if g.file != nil {
			g.file.Close()
			s.open--
		}
		if err := s.remove(g); err != nil {
			return err
		}
		s.segs = s.segs[:n]
	}
	// The one before is shortened only when those behind it are gone for good:
	// a segment that is followed by another must be complete.
	if len(s.segs) > 0 {
		g := s.segs[len(s.segs)-1]
		if g.file == nil {
			f, err := s.fs.Open(s.path(g.base))
			if err != nil {
				return err
			}
			g.file = f
			s.open++
		}
		if g.end() > off {
			if err := g.file.Truncate(int64(off - g.base)); err != nil {
				return err
			}
			g.size = int64(off - g.base)
		}
		// Also what was read may be in the page cache only, when it was the
		// process that died and not the machine.
		if err := g.file.Sync(); err != nil {
			return err
		}
	}
	for _, g := range s.segs {
		g.synced = g.size
	}
	return nil
}

// remove deletes a segment's file for good, so that files go one after the
// other and never leave a gap.
func (s *stream) remove(g *segment) error {
	if err := s.fs.Remove(s.path(g.base)); err != nil {
		return err
	}
	return s.fs.SyncDir(s.dir)
}

// second returns where the second segment begins.
func (s *stream) second() (base uint64, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.segs) < 2 {
		return 0, false
	}
	return s.segs[1].base, true
}
