package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"

	"evernode/internal/digest"
	"evernode/internal/journal/disk"
)

// A table holds the values of one shard in two or three files:
//
//	N.dat    the values, one after the other
//	N.idx    one slot of 64 bytes per value, at 64 × its number; zeros = absent:
//	         offset u64 | length u32 | crc u32 of the value | time u64 | hash 32 |
//	         4 zero bytes | crc u32 of shard number, slot number and this slot
//	N.hash   open addressing from the first 8 bytes of the hash modulo its
//	         2 × slots cells to u32 slot + 1; 0 = empty (ledger records only)
//
// Integers are big-endian and checksums CRC32C. The files are sparse and grow
// with what is in them; nothing of them is held in memory. Writing a value
// again is harmless, which is what recovery relies on: between two
// checkpoints the files may hold anything, and the journal says it all again.
type table struct {
	shard uint64
	slots uint64
	name  string // path without ending
	idx   disk.File
	dat   disk.File
	hash  disk.File // nil when values are not found by hash
	end   int64     // where the next value goes in dat
	dirty bool
}

const (
	slotSize = 64
	cellSize = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// slot is an index entry.
type slot struct {
	off  int64
	size uint32
	sum  uint32
	time uint64
	hash digest.Hash
}

func tableName(dir string, shard uint64) string { return path.Join(dir, fmt.Sprintf("%08d", shard)) }

// openTable opens the files of a shard; with create missing ones are made.
func openTable(fsys disk.FS, dir string, shard, slots uint64, hashed, create bool) (*table, error) {
	t := &table{shard: shard, slots: slots, name: tableName(dir, shard)}
	open := fsys.Open
	if create {
		open = fsys.Create
	}
	var err error
	if t.idx, err = open(t.name + ".idx"); err != nil {
		return nil, err
	}
	if t.dat, err = open(t.name + ".dat"); err != nil {
		t.close()
		return nil, err
	}
	if hashed {
		if t.hash, err = open(t.name + ".hash"); err != nil {
			t.close()
			return nil, err
		}
	}
	if t.end, err = t.dat.Size(); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *table) files() []disk.File {
	var out []disk.File
	for _, f := range []disk.File{t.dat, t.idx, t.hash} {
		if f != nil {
			out = append(out, f)
		}
	}
	return out
}

func (t *table) close() {
	for _, f := range t.files() {
		f.Close()
	}
}

func (t *table) slotSum(n uint64, b []byte) uint32 {
	var h [16]byte
	binary.BigEndian.PutUint64(h[:], t.shard)
	binary.BigEndian.PutUint64(h[8:], n)
	return crc32.Update(crc32.Checksum(h[:], castagnoli), castagnoli, b[:slotSize-4])
}

// entry reads slot n; ok is false when it is empty.
func (t *table) entry(n uint64) (s slot, ok bool, err error) {
	var b [slotSize]byte
	if _, err := t.idx.ReadAt(b[:], int64(n*slotSize)); err != nil && !errors.Is(err, io.EOF) {
		return slot{}, false, err
	}
	if b == [slotSize]byte{} {
		return slot{}, false, nil
	}
	if binary.BigEndian.Uint32(b[60:]) != t.slotSum(n, b[:]) {
		return slot{}, false, &damageError{fmt.Sprintf("%s.idx is damaged at offset %d", t.name, n*slotSize)}
	}
	s.off = int64(binary.BigEndian.Uint64(b[:]))
	s.size = binary.BigEndian.Uint32(b[8:])
	s.sum = binary.BigEndian.Uint32(b[12:])
	s.time = binary.BigEndian.Uint64(b[16:])
	copy(s.hash[:], b[24:])
	return s, true, nil
}

// damageError tells of stored bytes that are not what was written.
type damageError struct{ text string }

func (e *damageError) Error() string { return e.text }

// value reads what a slot points to.
func (t *table) value(s slot) ([]byte, error) {
	bad := &damageError{fmt.Sprintf("%s.dat is damaged at offset %d", t.name, s.off)}
	size, err := t.dat.Size()
	if err != nil {
		return nil, err
	}
	if s.off < 0 || s.off > size || int64(s.size) > size-s.off {
		return nil, bad
	}
	b := make([]byte, s.size)
	if n, err := t.dat.ReadAt(b, s.off); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		return nil, err
	}
	if crc32.Checksum(b, castagnoli) != s.sum {
		return nil, bad
	}
	return b, nil
}

// get reads value n.
func (t *table) get(n uint64) ([]byte, bool, error) {
	s, ok, err := t.entry(n)
	if err != nil || !ok {
		return nil, false, err
	}
	b, err := t.value(s)
	return b, err == nil, err
}

// put stores value n. What stands there already is left alone when it is the
// same and replaced when it is not, or is damaged.
func (t *table) put(n, time uint64, hash digest.Hash, b []byte) error {
	t.dirty = true
	sum := crc32.Checksum(b, castagnoli)
	var damage *damageError
	old, ok, err := t.entry(n)
	if err != nil && !errors.As(err, &damage) {
		return err
	}
	same := false
	if ok && old.sum == sum && old.size == uint32(len(b)) && old.time == time && old.hash == hash {
		_, err := t.value(old)
		if err != nil && !errors.As(err, &damage) {
			return err
		}
		same = err == nil
	}
	if !same {
		if _, err := t.dat.WriteAt(b, t.end); err != nil {
			return err
		}
		var s [slotSize]byte
		binary.BigEndian.PutUint64(s[:], uint64(t.end))
		binary.BigEndian.PutUint32(s[8:], uint32(len(b)))
		binary.BigEndian.PutUint32(s[12:], sum)
		binary.BigEndian.PutUint64(s[16:], time)
		copy(s[24:], hash[:])
		binary.BigEndian.PutUint32(s[60:], t.slotSum(n, s[:]))
		if _, err := t.idx.WriteAt(s[:], int64(n*slotSize)); err != nil {
			return err
		}
		t.end += int64(len(b))
	}
	if t.hash == nil {
		return nil
	}
	return t.putHash(hash, n)
}

// probe visits the cells in which hash may stand, until f is through or an
// empty cell has been visited.
func (t *table) probe(hash digest.Hash, f func(cell int64, n uint64, empty bool) (done bool, err error)) error {
	cells := 2 * t.slots
	at := binary.BigEndian.Uint64(hash[:]) % cells
	var b [64 * cellSize]byte
	for seen := uint64(0); seen < cells; {
		run := min(uint64(len(b)/cellSize), cells-at, cells-seen)
		clear(b[:])
		if _, err := t.hash.ReadAt(b[:run*cellSize], int64(at*cellSize)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := range run {
			v := binary.BigEndian.Uint32(b[i*cellSize:])
			done, err := f(int64((at+i)*cellSize), uint64(v)-1, v == 0)
			if done || err != nil || v == 0 {
				return err
			}
		}
		seen += run
		at = (at + run) % cells
	}
	return nil
}

func (t *table) putHash(hash digest.Hash, n uint64) error {
	stored := false
	err := t.probe(hash, func(cell int64, have uint64, empty bool) (bool, error) {
		if !empty {
			stored = have == n
			return stored, nil
		}
		var b [cellSize]byte
		binary.BigEndian.PutUint32(b[:], uint32(n+1))
		_, err := t.hash.WriteAt(b[:], cell)
		stored = err == nil
		return true, err
	})
	if err == nil && !stored {
		return &damageError{t.name + ".hash is damaged: it is full"}
	}
	return err
}

// find returns the value with the given hash.
func (t *table) find(hash digest.Hash) (value []byte, ok bool, err error) {
	err = t.probe(hash, func(_ int64, n uint64, empty bool) (bool, error) {
		if empty || n >= t.slots {
			return false, nil
		}
		s, used, err := t.entry(n)
		if err != nil || !used || s.hash != hash {
			return false, err
		}
		value, err = t.value(s)
		ok = err == nil
		return true, err
	})
	return value, ok, err
}

func removeTable(fsys disk.FS, dir string, shard uint64) error {
	// The index goes last: what is left of a shard by a crash is still found.
	for _, ending := range []string{".hash", ".dat", ".idx"} {
		if err := fsys.Remove(tableName(dir, shard) + ending); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
