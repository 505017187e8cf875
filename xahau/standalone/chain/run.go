package chain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"

	"evernode/internal/journal/disk"
)

// A run is a file of the index: the entries of some ledgers in a row, sorted
// and never changed. Runs of neighbouring ledgers are merged, so there are few.
//
// It consists of blocks of 4096 bytes, each with a CRC32C at its end. The first
// holds: magic "EVLI" | version u32 | first and last ledger u32 | records of
// the three sections u64 each. The sections follow, as many records of fixed
// length in each block as fit, zeros behind them:
//
//	hashes    hash 32 | place 10      of ledgers and transactions, by hash
//	accounts  account 20 | ledger u32 | index u32 | place 10
//	ledgers   ledger u32 | place 10
//
// A place is an offset in the stream of ledgers u48 and a length u32.
const (
	runMagic   = "EVLI"
	runVersion = 1
	blockSize  = 4096
	blockRoom  = blockSize - 4

	hashWidth    = 32 + 10
	accountWidth = 20 + 8 + 10
	ledgerWidth  = 4 + 10
)

// The sections of a run.
const (
	hashSection = iota
	accountSection
	ledgerSection
	sectionCount
)

var widths = [sectionCount]int{hashWidth, accountWidth, ledgerWidth}

// sections are sorted records in memory.
type sections struct {
	hashes, accounts, ledgers []byte
}

func appendHashRecord(b []byte, h Hash, p place) []byte { return appendPlace(append(b, h[:]...), p) }

func appendAccountRecord(b []byte, a Account, e entry) []byte {
	return appendPlace(appendPosition(append(b, a[:]...), e.pos), e.at)
}

func appendPosition(b []byte, p position) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, p.ledger), p.index)
}

func appendLedgerRecord(b []byte, seq uint32, p place) []byte {
	return appendPlace(binary.BigEndian.AppendUint32(b, seq), p)
}

// run is a run's file, open.
type run struct {
	name        string
	first, last uint32
	level       int // how many times it was merged
	file        disk.File
	count       [sectionCount]uint64
	start       [sectionCount + 1]uint64 // block at which each section begins, and the number of blocks
}

func runName(first, last uint32) string { return fmt.Sprintf("index-%010d-%010d", first, last) }

func (r *run) layout() {
	block := uint64(1)
	for i, n := range r.count {
		r.start[i] = block
		per := uint64(blockRoom / widths[i])
		block += (n + per - 1) / per
	}
	r.start[sectionCount] = block
}

func openRun(fs disk.FS, file string, name string, level int) (*run, error) {
	r := &run{name: name, level: level}
	if _, err := fmt.Sscanf(name, "index-%010d-%010d", &r.first, &r.last); err != nil || runName(r.first, r.last) != name {
		return nil, fmt.Errorf("%w: %q is no name of a part of the index", ErrDamaged, name)
	}
	f, err := fs.Open(file)
	if err != nil {
		return nil, err
	}
	r.file = f
	if err := r.readHeader(); err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

func (r *run) readHeader() error {
	b, err := r.block(0)
	if err != nil {
		return err
	}
	if string(b[:4]) != runMagic || binary.BigEndian.Uint32(b[4:]) != runVersion ||
		binary.BigEndian.Uint32(b[8:]) != r.first || binary.BigEndian.Uint32(b[12:]) != r.last {
		return r.damaged(0)
	}
	for i := range r.count {
		if r.count[i] = binary.BigEndian.Uint64(b[16+8*i:]); r.count[i] > 1<<40 {
			return r.damaged(0)
		}
	}
	r.layout()
	size, err := r.file.Size()
	if err != nil {
		return err
	}
	if uint64(size) != r.start[sectionCount]*blockSize {
		return fmt.Errorf("%w: index file %s has %d bytes instead of %d", ErrDamaged, r.name, size, r.start[sectionCount]*blockSize)
	}
	return nil
}

func (r *run) damaged(block uint64) error {
	return fmt.Errorf("%w: index file %s at offset %d; when it is removed, the index is built anew at the next start", ErrDamaged, r.name, block*blockSize)
}

// block returns the records of a block.
func (r *run) block(i uint64) ([]byte, error) {
	b := make([]byte, blockSize)
	if _, err := readFull(r.file, b, int64(i*blockSize)); err != nil {
		return nil, fmt.Errorf("reading index file %s: %w", r.name, err)
	}
	if binary.BigEndian.Uint32(b[blockRoom:]) != checksum(b[:blockRoom]) {
		return nil, r.damaged(i)
	}
	return b[:blockRoom], nil
}

// cursor walks the records of a section.
type cursor struct {
	r       *run
	section int
	i       int64  // number of the record
	b       []byte // its block
	loaded  uint64 // number of that, 0 when none
}

// record returns the record that the cursor is at, nil outside the section. It
// is valid until the cursor moves on.
func (c *cursor) record() ([]byte, error) {
	if c.i < 0 || uint64(c.i) >= c.r.count[c.section] {
		return nil, nil
	}
	per := uint64(blockRoom / widths[c.section])
	block := c.r.start[c.section] + uint64(c.i)/per
	if c.loaded != block {
		b, err := c.r.block(block)
		if err != nil {
			return nil, err
		}
		c.b, c.loaded = b, block
	}
	at := int(uint64(c.i)%per) * widths[c.section]
	return c.b[at : at+widths[c.section]], nil
}

// seek puts the cursor at the first record that is not smaller than key, which
// may be behind the last.
func (c *cursor) seek(key []byte) error {
	width := widths[c.section]
	per := int64(blockRoom / width)
	n := int64(c.r.count[c.section])
	lo, hi := int64(0), (n+per-1)/per // the record is in block lo-1 … hi, at the end of which it may be missing
	loKey, hiKey := 0.0, math.Ldexp(1, 64)
	want := head(key)
	for guesses := 0; lo < hi; guesses++ {
		mid := lo + (hi-lo)/2
		// Hashes are spread evenly, so a guess is nearly right at once.
		if c.section == hashSection && guesses < 3 && hiKey > loKey {
			mid = lo + int64(float64(hi-lo)*(want-loKey)/(hiKey-loKey))
			mid = min(max(mid, lo), hi-1)
		}
		c.i = mid * per
		first, err := c.record()
		if err != nil {
			return err
		}
		if bytes.Compare(first[:len(key)], key) >= 0 {
			hi, hiKey = mid, head(first)
			continue
		}
		lo = mid + 1
		// The last record of the block is at hand, too.
		c.i = min(mid*per+per, n) - 1
		last, err := c.record()
		if err != nil {
			return err
		}
		if bytes.Compare(last[:len(key)], key) >= 0 {
			break
		}
		loKey = head(last)
	}
	if lo == 0 {
		c.i = 0
		return nil
	}
	begin := (lo - 1) * per
	var err error
	at := sort.Search(int(min(n-begin, per)), func(i int) bool {
		c.i = begin + int64(i)
		b, e := c.record()
		if e != nil {
			err = e
			return true
		}
		return bytes.Compare(b[:len(key)], key) >= 0
	})
	c.i = begin + int64(at)
	return err
}

// head returns the first eight bytes of a key as a number.
func head(key []byte) float64 {
	var b [8]byte
	copy(b[:], key)
	return float64(binary.BigEndian.Uint64(b[:]))
}

// runWriter writes a run, section by section.
type runWriter struct {
	w       io.Writer
	section int
	block   []byte
	count   [sectionCount]uint64
}

// put adds a record to the current section.
func (w *runWriter) put(rec []byte) error {
	if len(w.block)+len(rec) > blockRoom {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.block = append(w.block, rec...)
	w.count[w.section]++
	return nil
}

func (w *runWriter) flush() error {
	if len(w.block) == 0 {
		return nil
	}
	_, err := w.w.Write(sealBlock(w.block))
	w.block = w.block[:0]
	return err
}

// nextSection ends a section.
func (w *runWriter) nextSection() error {
	w.section++
	return w.flush()
}

func sealBlock(b []byte) []byte {
	b = append(b, make([]byte, blockRoom-len(b))...)
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

// fileWriter writes a file from a position on, in large pieces.
type fileWriter struct {
	f   disk.File
	off int64
	buf []byte
}

func (w *fileWriter) Write(b []byte) (int, error) {
	w.buf = append(w.buf, b...)
	if len(w.buf) < 1<<18 {
		return len(b), nil
	}
	return len(b), w.flush()
}

func (w *fileWriter) flush() error {
	_, err := w.f.WriteAt(w.buf, w.off)
	w.off += int64(len(w.buf))
	w.buf = w.buf[:0]
	return err
}

// writeRun makes a run's file, durable but for its name. fill puts the records.
func writeRun(fs disk.FS, file string, first, last uint32, level int, fill func(*runWriter) error) (*run, error) {
	f, err := fs.Create(file)
	if err != nil {
		return nil, err
	}
	r := &run{name: runName(first, last), first: first, last: last, level: level, file: f}
	if err := r.write(fill); err != nil {
		f.Close()
		return nil, errors.Join(fmt.Errorf("writing index file %s: %w", r.name, err), fs.Remove(file))
	}
	return r, nil
}

func (r *run) write(fill func(*runWriter) error) error {
	if err := r.file.Truncate(0); err != nil {
		return err
	}
	out := &fileWriter{f: r.file, off: blockSize}
	w := &runWriter{w: out}
	if err := fill(w); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	if err := out.flush(); err != nil {
		return err
	}
	r.count = w.count
	r.layout()
	b := append([]byte(nil), runMagic...)
	b = binary.BigEndian.AppendUint32(b, runVersion)
	b = binary.BigEndian.AppendUint32(b, r.first)
	b = binary.BigEndian.AppendUint32(b, r.last)
	for _, n := range r.count {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	if _, err := r.file.WriteAt(sealBlock(b), 0); err != nil {
		return err
	}
	return r.file.Sync()
}

// fillFrom puts the sections of a table.
func (w *runWriter) fillFrom(s sections) error {
	for i, all := range [][]byte{s.hashes, s.accounts, s.ledgers} {
		for ; len(all) > 0; all = all[widths[i]:] {
			if err := w.put(all[:widths[i]]); err != nil {
				return err
			}
		}
		if i+1 < sectionCount {
			if err := w.nextSection(); err != nil {
				return err
			}
		}
	}
	return nil
}

// merge puts the sections of several runs, without what stands before keep in
// the stream of ledgers.
func (w *runWriter) merge(runs []*run, keep uint64) error {
	for section := range sectionCount {
		heads := make([]*cursor, len(runs))
		recs := make([][]byte, len(runs))
		for i, r := range runs {
			heads[i] = &cursor{r: r, section: section}
			var err error
			if recs[i], err = heads[i].record(); err != nil {
				return err
			}
		}
		for {
			least := -1
			for i, rec := range recs {
				if rec != nil && (least < 0 || bytes.Compare(rec, recs[least]) < 0) {
					least = i
				}
			}
			if least < 0 {
				break
			}
			rec := recs[least]
			if parsePlace(rec[len(rec)-10:]).off >= keep {
				if err := w.put(rec); err != nil {
					return err
				}
			}
			heads[least].i++
			var err error
			if recs[least], err = heads[least].record(); err != nil {
				return err
			}
		}
		if section+1 < sectionCount {
			if err := w.nextSection(); err != nil {
				return err
			}
		}
	}
	return nil
}

// hash returns the place of a ledger or transaction.
func (r *run) hash(h Hash) (place, bool, error) {
	c := cursor{r: r, section: hashSection}
	if err := c.seek(h[:]); err != nil {
		return place{}, false, err
	}
	rec, err := c.record()
	if err != nil || rec == nil || Hash(rec[:32]) != h {
		return place{}, false, err
	}
	return parsePlace(rec[32:]), true, nil
}

// ledger returns the place of a ledger.
func (r *run) ledger(seq uint32) (place, bool, error) {
	c := cursor{r: r, section: ledgerSection}
	key := binary.BigEndian.AppendUint32(nil, seq)
	if err := c.seek(key); err != nil {
		return place{}, false, err
	}
	rec, err := c.record()
	if err != nil || rec == nil || !bytes.Equal(rec[:4], key) {
		return place{}, false, err
	}
	return parsePlace(rec[4:]), true, nil
}

// list appends up to limit transactions of an account from a position on, in
// the given direction.
func (r *run) list(out []entry, a Account, from position, forward bool, limit int) ([]entry, error) {
	c := cursor{r: r, section: accountSection}
	key := appendPosition(append([]byte(nil), a[:]...), from)
	if err := c.seek(key); err != nil {
		return out, err
	}
	step := int64(1)
	if !forward {
		step = -1
		rec, err := c.record()
		if err != nil {
			return out, err
		}
		if rec == nil || !bytes.Equal(rec[:len(key)], key) {
			c.i--
		}
	}
	for ; len(out) < limit; c.i += step {
		rec, err := c.record()
		if err != nil {
			return out, err
		}
		if rec == nil || !bytes.Equal(rec[:20], a[:]) {
			break
		}
		pos := position{binary.BigEndian.Uint32(rec[20:]), binary.BigEndian.Uint32(rec[24:])}
		out = append(out, entry{pos, parsePlace(rec[28:])})
	}
	return out, nil
}
