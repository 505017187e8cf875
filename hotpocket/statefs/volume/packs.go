package volume

import (
	"fmt"
	"sync"

	"evernode/hotpocket/statefs"

	"golang.org/x/sys/unix"
)

// Small contents lie one behind the other in packs: an object file of its own
// for each would cost the disk's file system more than everything else together.
// A pack is only appended to; what nobody needs any more is given back to the
// disk block by block.
//
// A place in a pack is told from the number of an object by its top bit: below
// it are the number of the pack and the offset in units of packAlign.
const (
	packedBit  = 1 << 63
	packAlign  = 8
	packOffset = 24 // bits for the offset
	packMax    = 32 << 20

	// packBelow is the size up to which a content goes into a pack. It is that of
	// a group: contents of several groups have something lying beside them.
	packBelow = 64 << 10
)

func packed(id uint64) bool { return id&packedBit != 0 }

// packAt returns the pack and the offset of a place.
func packAt(id uint64) (pack, off uint64) {
	return id &^ packedBit >> packOffset, id & (1<<packOffset - 1) * packAlign
}

func placeIn(pack, off uint64) uint64 { return packedBit | pack<<packOffset | off/packAlign }

// objectOf returns the number of the object file that holds a content.
func objectOf(id uint64) uint64 {
	if packed(id) {
		id, _ = packAt(id)
	}
	return id
}

// packs are the packs that hold something.
type packs struct {
	mu   sync.Mutex
	list map[uint64]*pack
	cur  *pack // the one that is appended to
}

// pack is one of them.
type pack struct {
	id   uint64
	o    *object
	size uint64
	live []uint16 // bytes in use in each block
	used uint64   // blocks with something in use
	busy int      // appends under way
}

// add accounts for a content that is in use.
func (p *pack) add(off, size uint64) {
	p.size = max(p.size, (off+size+packAlign-1)/packAlign*packAlign)
	for size > 0 {
		b := off / blockSize
		n := min(size, (b+1)*blockSize-off)
		for uint64(len(p.live)) <= b {
			p.live = append(p.live, 0)
		}
		if p.live[b] == 0 {
			p.used++
		}
		p.live[b] += uint16(n)
		off, size = off+n, size-n
	}
}

// drop takes back what add has accounted for, and calls empty with ranges of
// blocks in which nothing is in use any more.
func (p *pack) drop(off, size uint64, empty func(from, to uint64)) {
	for size > 0 {
		b := off / blockSize
		n := min(size, (b+1)*blockSize-off)
		if b >= uint64(len(p.live)) || uint64(p.live[b]) < n {
			return // never accounted for
		}
		if p.live[b] -= uint16(n); p.live[b] == 0 {
			p.used--
			// The block that is being filled is not empty for long.
			if (b+1)*blockSize <= p.size {
				empty(b*blockSize, (b+1)*blockSize)
			}
		}
		off, size = off+n, size-n
	}
}

// keepPacked takes the contents of a version into account at the start.
func (v *Volume) keepPacked(id, size uint64) error {
	if !packed(id) {
		return nil
	}
	n, off := packAt(id)
	s := &v.packs
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.list[n]
	if p == nil {
		o, err := v.store.get(n, true)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(o.fd, &st); err != nil {
			o.put()
			return err
		}
		p = &pack{id: n, o: o, size: (uint64(st.Size) + packAlign - 1) / packAlign * packAlign}
		if s.list == nil {
			s.list = make(map[uint64]*pack)
		}
		s.list[n] = p
		if s.cur == nil || s.cur.id < n {
			s.cur = p
		}
	}
	p.add(off, size)
	return nil
}

// pack puts a content into a pack and returns its place.
func (v *Volume) pack(data []byte) (uint64, error) {
	size := uint64(len(data))
	if size == 0 {
		return 0, nil
	}
	s := &v.packs
	s.mu.Lock()
	p := s.cur
	if p == nil || p.size+size > packMax {
		id, fd, err := v.store.create()
		if err != nil {
			s.mu.Unlock()
			return 0, err
		}
		v.step("pack made")
		p = &pack{id: id, o: v.store.adopt(id, fd)}
		if s.list == nil {
			s.list = make(map[uint64]*pack)
		}
		old := s.cur
		s.list[id], s.cur = p, p
		if old != nil {
			v.retire(old)
		}
	}
	off := p.size
	p.add(off, size)
	p.busy++
	s.mu.Unlock()
	_, err := p.o.WriteAt(data, int64(off))
	s.mu.Lock()
	defer s.mu.Unlock()
	p.busy--
	if err != nil {
		p.drop(off, size, func(from, to uint64) {})
		v.retire(p)
		return 0, fmt.Errorf("write to a pack: %w", err)
	}
	return placeIn(p.id, off), nil
}

// unpack gives the place of a content back.
func (v *Volume) unpack(id, size uint64) {
	n, off := packAt(id)
	s := &v.packs
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.list[n]
	if p == nil {
		return
	}
	var from, to uint64
	punch := func() {
		if from < to && p.used > 0 {
			v.step("before a hole is punched")
			_ = unix.Fallocate(p.o.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(from), int64(to-from))
		}
	}
	p.drop(off, size, func(f, t uint64) {
		if f != to {
			punch()
			from = f
		}
		to = t
	})
	punch()
	v.retire(p)
}

// retire removes a pack in which nothing is in use and that is not appended to.
// The caller holds packs.mu.
func (v *Volume) retire(p *pack) {
	if p.used > 0 || p.busy > 0 || v.packs.cur == p {
		return
	}
	delete(v.packs.list, p.id)
	p.o.put()
	v.reap(p.id, 0)
}

// close lets go of the packs.
func (s *packs) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.list {
		p.o.put()
	}
	s.list, s.cur = nil, nil
}

// holds reports whether the object file of a place reaches to its end.
func (v *Volume) holds(id, size uint64) error {
	n, off := packAt(id)
	var st unix.Stat_t
	if err := v.store.stat(n, &st); err != nil {
		return err
	}
	if uint64(st.Size) < off+size {
		return fmt.Errorf("pack %x ends at %d, before %d: %w", n, st.Size, off+size, statefs.ErrDamaged)
	}
	return nil
}
