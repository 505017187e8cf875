package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"sort"
	"sync"
	"syscall"
)

// ErrCrashed is returned by every operation of a Mem after its crash point.
var ErrCrashed = errors.New("the simulated machine has crashed")

const sector = 512

// Op names a kind of operation of a Mem, for failure hooks.
type Op string

// The operations that change something, and reading.
const (
	OpCreate   Op = "create"
	OpRemove   Op = "remove"
	OpRename   Op = "rename"
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpSync     Op = "sync"
	OpSyncDir  Op = "syncdir"
	OpRead     Op = "read"
)

// Mem is a file system in memory for tests. Content becomes durable by Sync
// and names by SyncDir; Crash returns what a machine could find after losing
// power: of every unsynced write any subset of its 512-byte sectors, and of
// the unsynced changes of names any prefix.
type Mem struct {
	mu      sync.Mutex
	names   map[string]*node // as seen by the running program
	dirs    map[string]bool
	durable map[string]*node
	pending []nameChange // unsynced, in order
	locks   map[string]bool
	fail    func(Op, string) error
	steps   int
	crashAt int // step at which everything stops, 0 = never
	crashed bool
	limit   int64 // bytes of all files, 0 = no limit
}

type nameChange struct {
	from, to string // from "" = create, to "" = remove
	node     *node
}

type node struct {
	data    []byte // as seen by the running program
	durable []byte
	pending []change
	space   int64 // bytes that count against the limit
	broken  bool  // a sync failed: Linux forgets what was dirty, so later ones prove nothing
}

// change is an unsynced write, or a truncation when data is nil.
type change struct {
	off  int64
	data []byte
}

// NewMem returns an empty file system.
func NewMem() *Mem {
	return &Mem{names: map[string]*node{}, dirs: map[string]bool{".": true, "/": true}, durable: map[string]*node{}, locks: map[string]bool{}}
}

// FailWith sets a hook that is asked before every operation; a non-nil error
// makes the operation fail without effect, except that a failed sync leaves
// the unsynced data in doubt for ever, as on Linux.
func (m *Mem) FailWith(hook func(op Op, name string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = hook
}

// Limit makes writes beyond n bytes in all files together fail with ENOSPC;
// 0 lifts the limit.
func (m *Mem) Limit(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = n
}

// Used returns the bytes that all files occupy.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used()
}

// CrashAfter lets n more changing operations happen; the one after them is
// done in part or not at all and fails with ErrCrashed, like all later ones.
func (m *Mem) CrashAfter(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crashAt = m.steps + n + 1
}

// Steps returns the number of changing operations so far.
func (m *Mem) Steps() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.steps
}

// Crash stops the file system and returns what a restarted machine finds.
func (m *Mem) Crash(r *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crashed = true
	n := NewMem()
	for d := range m.dirs {
		n.dirs[d] = true
	}
	keep := 0
	if len(m.pending) > 0 {
		keep = r.IntN(len(m.pending) + 1)
	}
	names := map[string]*node{}
	for k, v := range m.durable {
		names[k] = v
	}
	for _, c := range m.pending[:keep] {
		c.apply(names)
	}
	// In a fixed order, so that one seed always gives one result.
	sorted := make([]string, 0, len(names))
	for k := range names {
		sorted = append(sorted, k)
	}
	sort.Strings(sorted)
	for _, k := range sorted {
		survived := names[k].crash(r)
		f := &node{data: survived, durable: slices.Clone(survived), space: int64(len(survived))}
		n.names[k] = f
		n.durable[k] = f
	}
	return n
}

func (c nameChange) apply(names map[string]*node) {
	if c.from != "" {
		delete(names, c.from)
	}
	if c.to != "" {
		names[c.to] = c.node
	}
}

// crash returns the content after losing power. One crash in four loses
// everything unsynced and one in four nothing, to reach the extremes.
func (n *node) crash(r *rand.Rand) []byte {
	out := slices.Clone(n.durable)
	mode := r.IntN(4)
	for _, c := range n.pending {
		if c.data == nil {
			if mode == 0 || mode > 1 && r.IntN(2) == 0 {
				continue
			}
			out = resize(out, c.off)
			continue
		}
		for off := c.off; off < c.off+int64(len(c.data)); {
			next := min((off/sector+1)*sector, c.off+int64(len(c.data)))
			if mode == 1 || mode > 1 && r.IntN(2) == 0 {
				if int64(len(out)) < next {
					out = resize(out, next)
				}
				copy(out[off:next], c.data[off-c.off:])
			}
			off = next
		}
	}
	return out
}

func resize(b []byte, n int64) []byte {
	if int64(len(b)) >= n {
		return b[:n:n]
	}
	return append(b, make([]byte, n-int64(len(b)))...)
}

func (m *Mem) used() int64 {
	var sum int64
	for _, n := range m.names {
		sum += n.space
	}
	return sum
}

// step counts a changing operation. It returns ErrCrashed from the crash point
// on; last is true at the very operation that the crash interrupts.
func (m *Mem) step(op Op, name string) (last bool, err error) {
	if m.crashed {
		return false, ErrCrashed
	}
	m.steps++
	if m.crashAt != 0 && m.steps >= m.crashAt {
		m.crashed = true
		return true, ErrCrashed
	}
	if m.fail != nil {
		return false, m.fail(op, name)
	}
	return false, nil
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if n, ok := m.names[name]; ok {
		if m.crashed {
			return nil, ErrCrashed
		}
		return &memFile{m: m, n: n, name: name}, nil
	}
	if !m.dirs[path.Dir(name)] {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrNotExist}
	}
	if _, err := m.step(OpCreate, name); err != nil {
		return nil, err
	}
	n := &node{}
	m.change(nameChange{to: name, node: n})
	return &memFile{m: m, n: n, name: name}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.crashed {
		return nil, ErrCrashed
	}
	n, ok := m.names[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memFile{m: m, n: n, name: name}, nil
}

func (m *Mem) change(c nameChange) {
	c.apply(m.names)
	m.pending = append(m.pending, c)
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.names[name]
	if !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if _, err := m.step(OpRemove, name); err != nil {
		return err
	}
	m.change(nameChange{from: name, node: n})
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	from, to = path.Clean(from), path.Clean(to)
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.names[from]
	if !ok || !m.dirs[path.Dir(to)] {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if _, err := m.step(OpRename, from); err != nil {
		return err
	}
	m.change(nameChange{from: from, to: to, node: n})
	return nil
}

// MkdirAll implements FS. Folders survive crashes.
func (m *Mem) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.crashed {
		return ErrCrashed
	}
	for d := path.Clean(name); !m.dirs[d]; d = path.Dir(d) {
		m.dirs[d] = true
	}
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	dir = path.Clean(dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.crashed {
		return nil, ErrCrashed
	}
	if !m.dirs[dir] {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	var out []string
	for name := range m.names {
		if path.Dir(name) == dir {
			out = append(out, path.Base(name))
		}
	}
	sort.Strings(out)
	return out, nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	dir = path.Clean(dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step(OpSyncDir, dir); err != nil {
		return err
	}
	var rest []nameChange
	for _, c := range m.pending {
		if c.from != "" && path.Dir(c.from) == dir || c.to != "" && path.Dir(c.to) == dir {
			c.apply(m.durable)
		} else {
			rest = append(rest, c)
		}
	}
	m.pending = rest
	return nil
}

type memLock struct {
	m    *Mem
	name string
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.crashed {
		return nil, ErrCrashed
	}
	if m.locks[name] {
		return nil, fmt.Errorf("%s is locked: another process uses this folder", name)
	}
	m.locks[name] = true
	return memLock{m, name}, nil
}

func (l memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.locks, l.name)
	return nil
}

type memFile struct {
	m      *Mem
	n      *node
	name   string
	closed bool
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.crashed {
		return 0, ErrCrashed
	}
	if f.closed {
		return 0, fs.ErrClosed
	}
	if f.m.fail != nil {
		if err := f.m.fail(OpRead, f.name); err != nil {
			return 0, err
		}
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return 0, fs.ErrClosed
	}
	last, err := f.m.step(OpWrite, f.name)
	if err != nil && !last {
		return 0, err
	}
	end := off + int64(len(p))
	if grow := end - f.n.space; grow > 0 && f.m.limit > 0 && f.m.used()+grow > f.m.limit {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
	}
	if end > int64(len(f.n.data)) {
		f.n.data = resize(f.n.data, end)
	}
	f.n.space = max(f.n.space, end)
	copy(f.n.data[off:], p)
	// A write cut by the crash counts as pending: any of it may survive.
	f.n.pending = append(f.n.pending, change{off: off, data: append(make([]byte, 0, len(p)), p...)})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.closed = true
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.crashed {
		return 0, ErrCrashed
	}
	return int64(len(f.n.data)), nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if _, err := f.m.step(OpTruncate, f.name); err != nil {
		return err
	}
	f.n.data = resize(f.n.data, size)
	f.n.space = size
	f.n.pending = append(f.n.pending, change{off: size})
	return nil
}

func (f *memFile) Allocate(size int64) error {
	f.m.mu.Lock()
	n := int64(len(f.n.data))
	over := f.m.limit > 0 && size > f.n.space && f.m.used()+size-f.n.space > f.m.limit
	f.m.mu.Unlock()
	if over {
		return &fs.PathError{Op: "allocate", Path: f.name, Err: syscall.ENOSPC}
	}
	if n >= size {
		return nil
	}
	return f.Truncate(size)
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if _, err := f.m.step(OpSync, f.name); err != nil {
		f.n.broken = true
		return err
	}
	if f.n.broken {
		return nil
	}
	for _, c := range f.n.pending {
		if c.data == nil {
			f.n.durable = resize(f.n.durable, c.off)
			continue
		}
		if end := c.off + int64(len(c.data)); end > int64(len(f.n.durable)) {
			f.n.durable = resize(f.n.durable, end)
		}
		copy(f.n.durable[c.off:], c.data)
	}
	f.n.pending = nil
	return nil
}
