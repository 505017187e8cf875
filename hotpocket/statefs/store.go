package statefs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"evernode/internal/digest"
	"evernode/internal/wire"
)

// nodePack keeps the encoded folders of recent versions in one file, each
// found by its hash and proven by it, so that what is read back needs no trust
// in the disk.
type nodePack struct {
	path string
	mu   sync.Mutex // guards what follows
	f    *os.File
	size int64
	at   map[digest.Hash]span
	live int64 // bytes at the last compaction
	// least is the size below which the pack is not compacted.
	least int64
}

type span struct {
	off int64
	n   int
}

// A record is u32 length, u8 what, and the bytes.
const (
	packDir  uint8 = 'd'
	packPage uint8 = 'p'
	packHead       = 5
)

func openPack(path string) (*nodePack, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	p := &nodePack{path: path, f: f, at: make(map[digest.Hash]span), least: compactAt}
	for off := 0; len(data)-off >= packHead; {
		n := int(binary.BigEndian.Uint32(data[off:]))
		what := data[off+4]
		if n > MaxObject || n > len(data)-off-packHead {
			break
		}
		enc := data[off+packHead : off+packHead+n]
		h := HashDir(enc)
		if what == packPage {
			h = HashPage(enc)
		}
		// A record that was damaged gets a hash nobody asks for.
		p.at[h] = span{int64(off + packHead), n}
		off += packHead + n
		p.size = int64(off)
	}
	p.live = p.size
	if err := f.Truncate(p.size); err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// has reports whether a folder or page is in the pack.
func (p *nodePack) has(h digest.Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.at[h]
	return ok
}

func (p *nodePack) get(h digest.Hash) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.at[h]
	if !ok {
		return nil, ErrNotFound
	}
	b := make([]byte, s.n)
	if err := readFull(p.f, b, s.off); err != nil {
		return nil, err
	}
	if HashDir(b) != h && HashPage(b) != h {
		return nil, fmt.Errorf("folder %s on disk: %w", h.Short(), ErrDamaged)
	}
	return b, nil
}

// put appends records in one write. The caller holds mu.
func (p *nodePack) put(b *packBatch) error {
	if len(b.buf) == 0 {
		return nil
	}
	if _, err := p.f.WriteAt(b.buf, p.size); err != nil {
		return fmt.Errorf("write folder nodes: %w", err)
	}
	for h, s := range b.at {
		p.at[h] = span{s.off + p.size, s.n}
	}
	p.size += int64(len(b.buf))
	return nil
}

// reset leaves nothing but one version, proven by the caller.
func (p *nodePack) reset(tree *node) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rewrite(tree)
}

// addOne writes a single record.
func (p *nodePack) addOne(what uint8, h digest.Hash, enc []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.at[h]; ok {
		return nil
	}
	var b packBatch
	b.add(what, h, enc)
	return p.put(&b)
}

// empty removes everything.
func (p *nodePack) empty() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.at)
	p.size, p.live = 0, 0
	return p.f.Truncate(0)
}

// sync makes the pack durable.
func (p *nodePack) sync() error {
	p.mu.Lock()
	f := p.f
	p.mu.Unlock()
	// A file that is closed meanwhile was replaced by a durable one.
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// full reports whether compacting may be worth while.
func (p *nodePack) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size >= p.least
}

func (p *nodePack) close() error { return p.f.Close() }

// packBatch collects records for one append.
type packBatch struct {
	buf []byte
	at  map[digest.Hash]span
}

func (b *packBatch) add(what uint8, h digest.Hash, enc []byte) {
	if b.at == nil {
		b.at = make(map[digest.Hash]span)
	}
	if _, ok := b.at[h]; ok {
		return
	}
	b.buf = wire.AppendU32(b.buf, uint32(len(enc)))
	b.buf = append(b.buf, what)
	b.at[h] = span{int64(len(b.buf)), len(enc)}
	b.buf = append(b.buf, enc...)
}

// collect adds the folders of to that are neither in from nor in the pack.
func (p *nodePack) collect(b *packBatch, to *node) error {
	if _, ok := p.at[to.Hash]; ok {
		return nil // whoever added a folder added all below it first
	}
	for _, k := range to.kids {
		if k.Kind == KindDir {
			if err := p.collect(b, k); err != nil {
				return err
			}
		}
	}
	enc, pages, err := to.encode(false)
	if err != nil {
		return err
	}
	for _, pg := range pages {
		if h := HashPage(pg); p.at[h].n == 0 {
			b.add(packPage, h, pg)
		}
	}
	b.add(packDir, to.Hash, enc)
	return nil
}

// add writes the folders of a version.
func (p *nodePack) add(to *node) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b packBatch
	if err := p.collect(&b, to); err != nil {
		return err
	}
	return p.put(&b)
}

// compactAt is the size in bytes below which a pack is left alone.
const compactAt = 4 << 20

// compact rewrites the pack with the folders of the given versions when it has
// grown to four times what it was after the last time.
func (p *nodePack) compact(keep ...*node) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size < p.least || p.size < 4*p.live {
		return nil
	}
	return p.rewrite(keep...)
}

// rewrite replaces everything in the pack by the folders of the given versions.
// The caller holds mu.
func (p *nodePack) rewrite(keep ...*node) error {
	next := &nodePack{path: p.path, at: make(map[digest.Hash]span)}
	var b packBatch
	for _, n := range keep {
		if err := next.collect(&b, n); err != nil {
			return err
		}
	}
	if err := writeFileAtomic(p.path, b.buf, 0o600, true); err != nil {
		return fmt.Errorf("compact folder nodes: %w", err)
	}
	f, err := os.OpenFile(p.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	p.f.Close()
	p.f, p.at, p.size, p.live = f, b.at, int64(len(b.buf)), int64(len(b.buf))
	if p.at == nil {
		p.at = make(map[digest.Hash]span)
	}
	return nil
}

// load builds the tree with the given root out of folders found by hash. get
// returns the encoding for a hash; it is trusted to have checked it.
func load(root digest.Hash, get func(digest.Hash) ([]byte, error)) (*node, error) {
	n := &node{Entry: Entry{Kind: KindDir, Hash: root}}
	if err := loadDir(n, get, "", 0); err != nil {
		return nil, err
	}
	return n, nil
}

func loadDir(n *node, get func(digest.Hash) ([]byte, error), path string, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("%s: folders are nested deeper than %d", path, MaxDepth)
	}
	enc, err := get(n.Hash)
	if err != nil {
		return err
	}
	l, err := DecodeDir(enc)
	if err != nil {
		return fmt.Errorf("folder %q: %w", path, err)
	}
	entries := l.Inline
	if l.Pages != nil {
		pages := make([][]Entry, len(l.Pages))
		for i, h := range l.Pages {
			pg, err := get(h)
			if err != nil {
				return err
			}
			if pages[i], err = DecodePage(pg); err != nil {
				return fmt.Errorf("folder %q: %w", path, err)
			}
		}
		if entries, err = Join(l, pages, n.Hash); err != nil {
			return fmt.Errorf("folder %q: %w", path, err)
		}
	}
	nodes := make([]node, len(entries))
	n.kids = make([]*node, len(entries))
	for i := range entries {
		k := &nodes[i]
		k.Entry = entries[i]
		n.kids[i] = k
		if k.Kind == KindDir {
			if err := loadDir(k, get, join(path, k.Name), depth+1); err != nil {
				return err
			}
		}
	}
	want := n.Hash
	if err := n.seal(); err != nil {
		return err
	}
	if n.Hash != want || n.entries != l.Entries || n.bytes != l.Bytes {
		return fmt.Errorf("folder %q counts %d entries and %d bytes, its node says %d and %d", path, n.entries, n.bytes, l.Entries, l.Bytes)
	}
	return nil
}

// meta is the small record that says what is on disk. It is written in place,
// alternately into two slots, with a hash behind it: no write can leave less
// than one valid record.
type meta struct {
	gen     uint64
	boot    string // boot id of the kernel that ran the writer
	clean   bool   // everything was flushed and nobody has written since
	mounted bool   // read-only copies carry the real modes, a mount protects them
	agreed  Version
	sides   [2]sideMeta
}

// sideMeta is what a read-only copy holds; not settled means that it was being
// changed.
type sideMeta struct {
	settled bool
	holds   Version
}

const (
	metaSlot  = 4096
	metaMagic = "evernode/state/meta/1"
)

func (m *meta) encode() []byte {
	b := wire.AppendString(nil, metaMagic)
	b = wire.AppendU64(b, m.gen)
	b = wire.AppendString(b, m.boot)
	b = wire.AppendBool(b, m.clean)
	b = wire.AppendBool(b, m.mounted)
	b = appendVersion(b, m.agreed)
	for _, s := range m.sides {
		b = appendVersion(wire.AppendBool(b, s.settled), s.holds)
	}
	h := digest.Sum(b)
	return append(b, h[:]...)
}

func decodeMeta(b []byte) (meta, error) {
	var m meta
	r := wire.NewReader(b)
	if magic := r.String(64); r.Err() == nil && magic != metaMagic {
		return m, fmt.Errorf("state record begins with %q", magic)
	}
	m.gen, m.boot = r.U64(), r.String(64)
	m.clean, m.mounted = r.Bool(), r.Bool()
	m.agreed = readVersion(r)
	for i := range m.sides {
		m.sides[i] = sideMeta{settled: r.Bool(), holds: readVersion(r)}
	}
	n := len(b) - r.Len()
	var h digest.Hash
	r.Fixed(h[:])
	if r.Err() != nil {
		return m, r.Err()
	}
	if digest.Sum(b[:n]) != h {
		return m, errors.New("state record has a wrong hash")
	}
	return m, nil
}

func appendVersion(b []byte, v Version) []byte {
	b = wire.AppendU64(b, v.Seq)
	b = append(b, v.Root[:]...)
	return append(b, v.Patch[:]...)
}

func readVersion(r *wire.Reader) Version {
	v := Version{Seq: r.U64()}
	r.Fixed(v.Root[:])
	r.Fixed(v.Patch[:])
	return v
}

type metaFile struct {
	f   *os.File
	rec meta
}

// openMeta reads the newest valid record. found is false when there is none.
func openMeta(path string) (m *metaFile, found bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	m = &metaFile{f: f}
	var buf [2 * metaSlot]byte
	n, err := f.ReadAt(buf[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, false, err
	}
	for off := 0; off < n; off += metaSlot {
		rec, err := decodeMeta(buf[off:min(off+metaSlot, n)])
		if err == nil && (!found || rec.gen > m.rec.gen) {
			m.rec, found = rec, true
		}
	}
	return m, found, nil
}

func (m *metaFile) write() error {
	m.rec.gen++
	slot := int64(m.rec.gen%2) * metaSlot
	if _, err := m.f.WriteAt(m.rec.encode(), slot); err != nil {
		return fmt.Errorf("write state record: %w", err)
	}
	return nil
}

// bootID names the current run of the kernel; empty when unknown.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(bytes.TrimSpace(b)))
}
