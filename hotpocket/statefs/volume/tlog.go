package volume

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"

	"golang.org/x/sys/unix"
)

// treeLog is the file that says what names there are and which objects hold
// their contents: a full listing, and after it what every run changed. It is
// only appended to; when it has grown to a multiple of its listing a new one
// takes its place, under the next number.
//
// Record: u32 length of the payload, u8 type, payload, u64 check. The check is
// from BLAKE3 over the check before, type and payload, so that nothing but the
// end of the file can be lost without being noticed.
type treeLog struct {
	dir string
	num uint64

	mu    sync.Mutex
	f     *os.File
	size  int64
	check uint64
	base  int64 // size of the listing
	// shift is what a replaced log was longer: positions in the log, unlike
	// offsets in the file, never go back.
	shift int64
}

const (
	recHead    = 'h' // magic
	recDirs    = 'd' // changes of folders
	recEnd     = 'e' // a run ended with what the recDirs before say
	recCommit  = 'c' // a version became the agreed one
	recDurable = 's' // what the log says up to an offset is durable, with all objects
	recUndone  = 'r' // the run that ended last was rolled back
	recBoot    = 'b' // the kernel under which what follows is written
	recClean   = 'q' // everything is durable, and nobody has written since

	logMagic   = "evernode/state/tree/1"
	logPrefix  = "tree."
	maxRecord  = 4 << 20
	recOver    = 13 // length, type and check
	batchLimit = 512 << 10
)

func checkOf(prev uint64, kind byte, payload []byte) uint64 {
	var head [9]byte
	binary.BigEndian.PutUint64(head[:], prev)
	head[8] = kind
	h := digest.Sum(head[:], payload)
	return binary.BigEndian.Uint64(h[:])
}

// batch collects records for one write.
type batch struct {
	buf   []byte
	check uint64
	dirs  []byte // payload of a recDirs on its way
}

func (b *batch) add(kind byte, payload []byte) {
	b.flushDirs()
	b.record(kind, payload)
}

func (b *batch) record(kind byte, payload []byte) {
	b.check = checkOf(b.check, kind, payload)
	b.buf = wire.AppendU32(b.buf, uint32(len(payload)))
	b.buf = append(append(b.buf, kind), payload...)
	b.buf = wire.AppendU64(b.buf, b.check)
}

func (b *batch) flushDirs() {
	if len(b.dirs) > 0 {
		d := b.dirs
		b.dirs = nil
		b.record(recDirs, d)
		b.dirs = d[:0]
	}
}

// dirWriter adds the changes of one folder to a batch.
type dirWriter struct {
	b     *batch
	ino   Ino
	whole bool // what the folder had before does not count
	n     uint32
	at    int // where the number of entries stands
	open  bool
}

// Changes of a folder: u64 number, u8 1 when it begins empty, u32 count, and for
// each entry the name and a node, or mode 0 for a name that is gone.
func (w *dirWriter) put(name string, n *node) {
	if w.open && len(w.b.dirs) > batchLimit {
		w.close()
		w.b.flushDirs()
	}
	if !w.open {
		w.begin()
	}
	w.b.dirs = wire.AppendString(w.b.dirs, name)
	if n == nil {
		w.b.dirs = wire.AppendU16(w.b.dirs, 0)
	} else {
		w.b.dirs = appendNode(w.b.dirs, n)
	}
	w.n++
}

func (w *dirWriter) begin() {
	w.b.dirs = wire.AppendU64(w.b.dirs, uint64(w.ino))
	w.b.dirs = wire.AppendBool(w.b.dirs, w.whole)
	w.at = len(w.b.dirs)
	w.b.dirs = wire.AppendU32(w.b.dirs, 0)
	w.n, w.open, w.whole = 0, true, false
}

func (w *dirWriter) close() {
	if !w.open && w.whole {
		w.begin()
	}
	if w.open {
		binary.BigEndian.PutUint32(w.b.dirs[w.at:], w.n)
		w.open = false
	}
}

// appendNode appends what the log keeps of a node: u16 mode, u64 number, times;
// files: size, hash, blocks, signature, and their objects from low to high, each
// but the first with its limit; links: the target.
func appendNode(b []byte, n *node) []byte {
	b = wire.AppendU16(b, n.mode)
	b = wire.AppendU64(b, uint64(n.ino))
	b = wire.AppendU64(b, uint64(n.mtime))
	b = wire.AppendU64(b, uint64(n.ctime))
	b = wire.AppendU64(b, uint64(n.atime))
	switch n.kind() {
	case statefs.KindFile:
		b = wire.AppendU64(b, n.size)
		b = append(b, n.hash[:]...)
		b = wire.AppendU32(b, n.blocks)
		b = wire.AppendU64(b, n.sig)
		b = wire.AppendU64(b, n.obj)
		lay := n.layers()
		b = wire.AppendU16(b, uint16(len(lay)))
		for _, l := range lay {
			b = wire.AppendU64(b, l.obj)
			b = wire.AppendU64(b, l.limit)
		}
	case statefs.KindSymlink:
		b = wire.AppendString(b, n.link())
	}
	return b
}

// readNode reads what appendNode wrote; nil for a name that is gone.
func readNode(r *wire.Reader) *node {
	n := &node{mode: r.U16()}
	if r.Err() != nil || n.mode == 0 {
		return nil
	}
	n.ino = Ino(r.U64())
	n.mtime, n.ctime, n.atime = int64(r.U64()), int64(r.U64()), int64(r.U64())
	switch n.kind() {
	case statefs.KindDir:
	case statefs.KindFile:
		n.size = r.U64()
		r.Fixed(n.hash[:])
		n.blocks, n.sig, n.obj = r.U32(), r.U64(), r.U64()
		if n.size > statefs.MaxFileSize || packed(n.obj) && n.size > packBelow {
			r.Fail(fmt.Errorf("file of %d bytes in object %x", n.size, n.obj))
			return nil
		}
		if count := int(r.U16()); count > 0 && r.Err() == nil {
			if count > maxLayers+1 {
				r.Fail(fmt.Errorf("file in %d layers", count))
				return nil
			}
			ls := &layers{}
			for range count {
				ls.over = append(ls.over, &layer{obj: r.U64(), limit: r.U64()})
			}
			n.body = ls
		}
	case statefs.KindSymlink:
		n.body = r.String(4095)
	default:
		r.Fail(fmt.Errorf("entry of mode %#o", n.mode))
	}
	return n
}

// endRecord says what a run left: with the recDirs before it.
type endRecord struct {
	full bool // the recDirs are a listing of everything
	seq  uint64
	root digest.Hash
	next Ino // the last number given out
	top  *node
}

func (e *endRecord) encode() []byte {
	b := wire.AppendBool(nil, e.full)
	b = wire.AppendU64(b, e.seq)
	b = append(b, e.root[:]...)
	b = wire.AppendU64(b, uint64(e.next))
	return appendNode(b, e.top)
}

func decodeEnd(p []byte) (*endRecord, error) {
	r := wire.NewReader(p)
	e := &endRecord{full: r.Bool(), seq: r.U64()}
	r.Fixed(e.root[:])
	e.next = Ino(r.U64())
	e.top = readNode(r)
	if err := r.Close(); err != nil {
		return nil, err
	}
	if e.top == nil || e.top.kind() != statefs.KindDir || e.top.ino != Root {
		return nil, errors.New("end of a run without its top folder")
	}
	return e, nil
}

// commitRecord says which version is agreed. ended tells that it is the run that
// ended last; otherwise the tree stays.
type commitRecord struct {
	ended bool
	v     statefs.Version
	patch []byte
}

func (c *commitRecord) encode() []byte {
	b := wire.AppendBool(nil, c.ended)
	b = wire.AppendU64(b, c.v.Seq)
	b = append(b, c.v.Root[:]...)
	b = append(b, c.v.Patch[:]...)
	return wire.AppendBytes(b, c.patch)
}

func decodeCommit(p []byte) (*commitRecord, error) {
	r := wire.NewReader(p)
	c := &commitRecord{ended: r.Bool(), v: statefs.Version{Seq: r.U64()}}
	r.Fixed(c.v.Root[:])
	r.Fixed(c.v.Patch[:])
	c.patch = r.Bytes(statefs.MaxPatch)
	if err := r.Close(); err != nil {
		return nil, err
	}
	if c.v.Patch.IsZero() {
		c.patch = nil
	} else if statefs.HashPatch(c.patch) != c.v.Patch {
		return nil, errors.New("patch.cfg in the log has a wrong hash")
	}
	return c, nil
}

// logNumbers returns the numbers of the logs in a folder.
func logNumbers(dir string) ([]uint64, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var nums []uint64
	for _, e := range list {
		if s, ok := strings.CutPrefix(e.Name(), logPrefix); ok {
			if n, err := strconv.ParseUint(s, 16, 64); err == nil {
				nums = append(nums, n)
			}
		}
	}
	return nums, nil
}

func logPath(dir string, num uint64) string {
	return filepath.Join(dir, logPrefix+strconv.FormatUint(num, 16))
}

// readLog calls fn with every record up to the first that is not whole, and
// returns where that is and the check there.
func readLog(f *os.File, fn func(kind byte, payload []byte, end int64) error) (size int64, check uint64, err error) {
	return readRecords(f, true, fn)
}

// readRecords is readLog, or, without chain, the same for records each of which
// has a check of its own.
func readRecords(f *os.File, chain bool, fn func(kind byte, payload []byte, end int64) error) (size int64, check uint64, err error) {
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, 1<<62), 1<<20)
	var head [5]byte
	var buf []byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return size, check, noEOF(err)
		}
		n := int(binary.BigEndian.Uint32(head[:]))
		if n > maxRecord {
			return size, check, nil
		}
		if cap(buf) < n+8 {
			buf = make([]byte, n+8)
		}
		buf = buf[:n+8]
		if _, err := io.ReadFull(r, buf); err != nil {
			return size, check, noEOF(err)
		}
		next := checkOf(check, head[4], buf[:n])
		if next != binary.BigEndian.Uint64(buf[n:]) {
			return size, check, nil
		}
		if chain {
			check = next
		}
		size += int64(n + recOver)
		if err := fn(head[4], buf[:n], size); err != nil {
			return size, check, err
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// append writes what build puts into a batch, and returns the position where it
// ends.
func (l *treeLog) append(build func(*batch)) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &batch{check: l.check}
	build(b)
	b.flushDirs()
	_, err := l.f.WriteAt(b.buf, l.size)
	if full(err) && l.useReserve() {
		_, err = l.f.WriteAt(b.buf, l.size)
	}
	if err != nil {
		return 0, fmt.Errorf("write the log of the state: %w", err)
	}
	l.size += int64(len(b.buf))
	l.check = b.check
	return l.shift + l.size, nil
}

// end returns where the log ends, as a position and as an offset in its file.
func (l *treeLog) end() (pos, offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shift + l.size, l.size
}

func appendOffset(off int64) []byte { return wire.AppendU64(nil, uint64(off)) }

// sync makes what was appended durable.
func (l *treeLog) sync() error {
	l.mu.Lock()
	f := l.f
	l.mu.Unlock()
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("flush the log of the state: %w", err)
	}
	return nil
}

// writeListing appends a whole version.
func writeListing(b *batch, v *version, next Ino, write func() error) error {
	// write is called now and then, to keep the batch small.
	var walk func(ino Ino, d *dirver) error
	walk = func(ino Ino, d *dirver) error {
		w := &dirWriter{b: b, ino: ino, whole: true}
		for _, p := range d.pages {
			for i := range p.ents {
				w.put(p.ents[i].name, p.ents[i].n)
			}
		}
		w.close()
		if len(b.dirs) > batchLimit {
			b.flushDirs()
			if err := write(); err != nil {
				return err
			}
		}
		for _, p := range d.pages {
			for i := range p.ents {
				if sub := p.ents[i].n.dir(); sub != nil {
					if err := walk(p.ents[i].n.ino, sub); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}
	if err := walk(Root, v.root.dir()); err != nil {
		return err
	}
	e := endRecord{full: true, seq: v.Seq, root: v.Root, next: next, top: v.root}
	b.add(recEnd, e.encode())
	c := commitRecord{ended: true, v: v.Version, patch: v.patch}
	b.add(recCommit, c.encode())
	return write()
}

// listing appends a whole version and its commit, and tells the position behind
// it. Records of a listing that did not come to its end do not count.
func (l *treeLog) listing(v *version, next Ino, end *int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	size, check := l.size, l.check
	b := &batch{check: check}
	err := writeListing(b, v, next, func() error {
		if _, err := l.f.WriteAt(b.buf, size); err != nil {
			return fmt.Errorf("write the log of the state: %w", err)
		}
		size += int64(len(b.buf))
		b.buf = b.buf[:0]
		return nil
	})
	if err != nil {
		return err
	}
	l.size, l.check = size, b.check
	*end = l.shift + l.size
	return nil
}

// newLog writes a log with nothing but one version, durably, under the given
// number. The file is still called tmp; use rename.
func newLog(dir string, num uint64, v *version, next Ino) (_ *treeLog, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "tmp"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			err = fmt.Errorf("write a new log of the state: %w", err)
		}
	}()
	l := &treeLog{dir: dir, num: num, f: f}
	b := &batch{}
	b.add(recHead, []byte(logMagic))
	err = writeListing(b, v, next, func() error {
		if _, err := f.WriteAt(b.buf, l.size); err != nil {
			return err
		}
		l.size += int64(len(b.buf))
		b.buf = b.buf[:0]
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.check, l.base = b.check, l.size
	return l, f.Sync()
}

// rename gives a new log its name, durably, and removes the one before.
func (l *treeLog) rename() error {
	if err := os.Rename(filepath.Join(l.dir, "tmp"), logPath(l.dir, l.num)); err != nil {
		return err
	}
	if err := syncDir(l.dir); err != nil {
		return err
	}
	nums, err := logNumbers(l.dir)
	if err != nil {
		return err
	}
	for _, n := range nums {
		if n < l.num {
			if err := os.Remove(logPath(l.dir, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
