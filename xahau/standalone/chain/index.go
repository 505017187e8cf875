package chain

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"

	"evernode/internal/journal/disk"
)

const (
	manifestName    = "index"
	manifestTemp    = "index.tmp"
	runTemp         = "index-new"
	manifestMagic   = "EVLM"
	manifestVersion = 1
	// mergeRuns is how many neighbours of one level become one of the next.
	mergeRuns = 4
)

// checkpoint is up to where the runs go. Everything up to there was durable
// when it was written.
type checkpoint struct {
	ledger   uint32 // last ledger in the runs, 0 when there are none
	end      uint64 // of the stream of ledgers after it
	stateEnd uint64 // of the stream of nodes after it
}

// index finds ledgers and transactions: runs on disk, in order of ledgers, and
// behind them up to two tables in memory.
type index struct {
	fs  disk.FS
	dir string
	log *slog.Logger

	mu     sync.RWMutex
	runs   []*run
	frozen *table // being written, or waiting for it; nil when none
	active *table
	check  checkpoint
}

func (x *index) path(name string) string { return path.Join(x.dir, name) }

// load opens the runs that the manifest names and removes all others. Where
// something is wrong with them, it begins without any.
func (x *index) load() error {
	x.active = newTable()
	names, err := x.fs.List(x.dir)
	if err != nil {
		return err
	}
	if slices.Contains(names, manifestName) {
		if err := x.loadManifest(); err != nil {
			x.log.Warn("the index is built anew", "folder", x.dir, "error", err)
			x.closeRuns()
			x.check = checkpoint{}
			// Before anything else goes: a manifest must name only what is there.
			if err := x.fs.Remove(x.path(manifestName)); err != nil {
				return err
			}
			if err := x.fs.SyncDir(x.dir); err != nil {
				return err
			}
		}
	}
	for _, name := range names {
		isRun := strings.HasPrefix(name, manifestName+"-")
		if name != manifestTemp && (!isRun || slices.ContainsFunc(x.runs, func(r *run) bool { return r.name == name })) {
			continue
		}
		if err := x.fs.Remove(x.path(name)); err != nil {
			return err
		}
	}
	return nil
}

func (x *index) loadManifest() error {
	f, err := x.fs.Open(x.path(manifestName))
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size > 1<<20 {
		return fmt.Errorf("%w: the index's list of files has %d bytes", ErrDamaged, size)
	}
	b := make([]byte, size)
	if _, err := readFull(f, b, 0); err != nil {
		return err
	}
	check, parts, err := parseManifest(b)
	if err != nil {
		return err
	}
	for _, p := range parts {
		name := runName(p.first, p.last)
		r, err := openRun(x.fs, x.path(name), name, p.level)
		if err != nil {
			return err
		}
		x.runs = append(x.runs, r)
	}
	x.check = check
	return nil
}

// part names a run in the manifest.
type part struct {
	first, last uint32
	level       int
}

func appendManifest(b []byte, c checkpoint, runs []*run) []byte {
	at := len(b)
	b = append(b, manifestMagic...)
	b = binary.BigEndian.AppendUint32(b, manifestVersion)
	b = binary.BigEndian.AppendUint32(b, c.ledger)
	b = binary.BigEndian.AppendUint64(b, c.end)
	b = binary.BigEndian.AppendUint64(b, c.stateEnd)
	b = binary.BigEndian.AppendUint32(b, uint32(len(runs)))
	for _, r := range runs {
		b = binary.BigEndian.AppendUint32(b, r.first)
		b = binary.BigEndian.AppendUint32(b, r.last)
		b = binary.BigEndian.AppendUint32(b, uint32(r.level))
	}
	return binary.BigEndian.AppendUint32(b, checksum(b[at:]))
}

func parseManifest(b []byte) (c checkpoint, parts []part, err error) {
	const fixed = 4 + 4 + 4 + 8 + 8 + 4
	if len(b) < fixed+4 || string(b[:4]) != manifestMagic || binary.BigEndian.Uint32(b[len(b)-4:]) != checksum(b[:len(b)-4]) {
		return c, nil, fmt.Errorf("%w: the index's list of files", ErrDamaged)
	}
	if v := binary.BigEndian.Uint32(b[4:]); v != manifestVersion {
		return c, nil, fmt.Errorf("the index has format version %d, this program knows version %d", v, manifestVersion)
	}
	c = checkpoint{binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint64(b[12:]), binary.BigEndian.Uint64(b[20:])}
	n := uint64(binary.BigEndian.Uint32(b[28:]))
	b = b[fixed : len(b)-4]
	if n*12 != uint64(len(b)) {
		return c, nil, fmt.Errorf("%w: the index's list of files names %d and has %d bytes", ErrDamaged, n, len(b))
	}
	for ; len(b) > 0; b = b[12:] {
		p := part{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), int(binary.BigEndian.Uint32(b[8:]))}
		if p.first > p.last || len(parts) > 0 && p.first <= parts[len(parts)-1].last || p.last > c.ledger {
			return c, nil, fmt.Errorf("%w: the index's list of files names ledgers %d to %d", ErrDamaged, p.first, p.last)
		}
		parts = append(parts, p)
	}
	return c, parts, nil
}

// writeManifest makes runs and a checkpoint what the next start finds.
func (x *index) writeManifest(c checkpoint, runs []*run) error {
	temp := x.path(manifestTemp)
	f, err := x.fs.Create(temp)
	if err != nil {
		return err
	}
	b := appendManifest(nil, c, runs)
	for _, step := range []func() error{
		func() error { return f.Truncate(0) },
		func() error { _, err := f.WriteAt(b, 0); return err },
		f.Sync,
	} {
		if err := step(); err != nil {
			f.Close()
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := x.fs.Rename(temp, x.path(manifestName)); err != nil {
		return err
	}
	return x.fs.SyncDir(x.dir)
}

// add adds a ledger to the active table.
func (x *index) add(l *info, txs []Transaction, places []place, end uint64, read int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.active.add(l, txs, places)
	x.active.end, x.active.stateEnd = end, l.stateEnd
	x.active.bytes += read
}

// freeze makes the active table the one to be written, when it is large enough
// and there is none yet. It says whether there is one.
func (x *index) freeze(from int64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.frozen == nil && x.active.bytes >= from {
		x.frozen, x.active = x.active, newTable()
	}
	return x.frozen != nil
}

// backlog returns the bytes that wait in the active table.
func (x *index) backlog() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.active.bytes
}

// flush writes the frozen table as a run when all of it is durable, and merges
// runs while there are enough of one level. keep is the first offset of the
// stream of ledgers.
func (x *index) flush(durable uint32, keep uint64) error {
	x.mu.RLock()
	t, runs := x.frozen, slices.Clone(x.runs)
	x.mu.RUnlock()
	if t == nil || t.last > durable {
		return nil
	}
	s := t.sections()
	r, err := x.make(t.first, t.last, 0, func(w *runWriter) error { return w.fillFrom(s) })
	if err != nil {
		return err
	}
	runs = append(runs, r)
	check := checkpoint{t.last, t.end, t.stateEnd}
	if err := x.writeManifest(check, runs); err != nil {
		r.file.Close()
		return err
	}
	x.mu.Lock()
	x.runs, x.check, x.frozen = runs, check, nil
	x.mu.Unlock()
	for {
		merged, err := x.mergeOnce(keep)
		if err != nil || !merged {
			return err
		}
	}
}

func (x *index) make(first, last uint32, level int, fill func(*runWriter) error) (*run, error) {
	r, err := writeRun(x.fs, x.path(runTemp), first, last, level, fill)
	if err != nil {
		return nil, err
	}
	if err := x.fs.Rename(x.path(runTemp), x.path(r.name)); err != nil {
		r.file.Close()
		return nil, err
	}
	return r, nil
}

// mergeOnce merges the first neighbours that are enough of one level.
func (x *index) mergeOnce(keep uint64) (bool, error) {
	x.mu.RLock()
	runs, check := slices.Clone(x.runs), x.check
	x.mu.RUnlock()
	begin, end := 0, 0
	for i := range runs {
		if runs[i].level != runs[begin].level {
			begin = i
		}
		if i-begin+1 == mergeRuns {
			end = i + 1
			break
		}
	}
	if end == 0 {
		return false, nil
	}
	old := runs[begin:end]
	r, err := x.make(old[0].first, old[len(old)-1].last, old[0].level+1, func(w *runWriter) error { return w.merge(old, keep) })
	if err != nil {
		return false, err
	}
	now := slices.Concat(runs[:begin], []*run{r}, runs[end:])
	if err := x.writeManifest(check, now); err != nil {
		r.file.Close()
		return false, err
	}
	x.mu.Lock()
	x.runs = now
	for _, o := range old {
		o.file.Close()
	}
	x.mu.Unlock()
	for _, o := range old {
		if err := x.fs.Remove(x.path(o.name)); err != nil {
			return true, err
		}
	}
	return true, nil
}

// checkpoint returns up to where the runs go.
func (x *index) checkpoint() checkpoint {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.check
}

func (x *index) tables() []*table {
	if x.frozen != nil {
		return []*table{x.frozen, x.active}
	}
	return []*table{x.active}
}

// hash returns the place of the record of a ledger or transaction.
func (x *index) hash(h Hash) (place, bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, t := range x.tables() {
		if p, ok := t.hashes[h]; ok {
			return p, true, nil
		}
	}
	for _, r := range slices.Backward(x.runs) {
		if p, ok, err := r.hash(h); ok || err != nil {
			return p, ok, err
		}
	}
	return place{}, false, nil
}

// ledger returns the place of the record of a ledger.
func (x *index) ledger(seq uint32) (place, bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, t := range x.tables() {
		if t.first != 0 && seq >= t.first && seq <= t.last {
			return t.ledgers[seq-t.first], true, nil
		}
	}
	for _, r := range slices.Backward(x.runs) {
		if seq >= r.first && seq <= r.last {
			return r.ledger(seq)
		}
	}
	return place{}, false, nil
}

// list returns up to limit transactions of an account that stand at from or
// behind it in the given direction, up to the ledger last in that direction.
func (x *index) list(a Account, from position, last uint32, forward bool, limit int) ([]entry, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	type source struct {
		first, last uint32
		list        func(out []entry, limit int) ([]entry, error)
	}
	var all []source
	for _, r := range x.runs {
		all = append(all, source{r.first, r.last, func(out []entry, limit int) ([]entry, error) {
			return r.list(out, a, from, forward, limit)
		}})
	}
	for _, t := range x.tables() {
		all = append(all, source{t.first, t.last, func(out []entry, limit int) ([]entry, error) {
			return t.list(out, a, from, forward, limit), nil
		}})
	}
	if !forward {
		slices.Reverse(all)
	}
	var out []entry
	for _, s := range all {
		if forward && (s.last < from.ledger || s.first > last) || !forward && (s.first > from.ledger || s.last < last) {
			continue
		}
		var err error
		if out, err = s.list(out, limit); err != nil {
			return nil, err
		}
		for i, e := range out {
			if forward && e.pos.ledger > last || !forward && e.pos.ledger < last {
				return out[:i], nil
			}
		}
		if len(out) >= limit {
			break
		}
	}
	return out, nil
}

func (x *index) closeRuns() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.runs {
		r.file.Close()
	}
	x.runs = nil
}
