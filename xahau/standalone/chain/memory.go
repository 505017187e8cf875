package chain

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"sync"

	"evernode/internal/journal/disk"
)

// Memory returns a file system in memory, for a ledger that is gone when its
// process ends. Nothing in it is ever on a disk, and every sync is immediate.
func Memory() disk.FS {
	return &memory{files: map[string]*memoryFile{}, dirs: map[string]bool{}, locks: map[string]bool{}}
}

type memory struct {
	mu    sync.Mutex
	files map[string]*memoryFile
	dirs  map[string]bool
	locks map[string]bool
}

// chunk is the piece in which a file in memory grows: a large file is never
// copied.
const chunk = 64 << 10

type memoryFile struct {
	mu     sync.RWMutex
	chunks [][]byte
	size   int64
}

func notExist(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

func (m *memory) Create(name string) (disk.File, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[path.Dir(name)] {
		return nil, notExist("create", name)
	}
	f, ok := m.files[name]
	if !ok {
		f = &memoryFile{}
		m.files[name] = f
	}
	return f, nil
}

func (m *memory) Open(name string) (disk.File, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.files[name]; ok {
		return f, nil
	}
	return nil, notExist("open", name)
}

func (m *memory) Remove(name string) error {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[name]; !ok {
		return notExist("remove", name)
	}
	delete(m.files, name)
	return nil
}

func (m *memory) Rename(from, to string) error {
	from, to = path.Clean(from), path.Clean(to)
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.files[from]
	if !ok || !m.dirs[path.Dir(to)] {
		return notExist("rename", from)
	}
	delete(m.files, from)
	m.files[to] = f
	return nil
}

func (m *memory) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for d := path.Clean(name); !m.dirs[d]; d = path.Dir(d) {
		m.dirs[d] = true
	}
	return nil
}

func (m *memory) List(dir string) ([]string, error) {
	dir = path.Clean(dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[dir] {
		return nil, notExist("list", dir)
	}
	var out []string
	for name := range m.files {
		if path.Dir(name) == dir {
			out = append(out, path.Base(name))
		}
	}
	sort.Strings(out)
	return out, nil
}

func (m *memory) SyncDir(string) error { return nil }

type unlock func()

func (u unlock) Close() error { u(); return nil }

func (m *memory) Lock(name string) (io.Closer, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] {
		return nil, fmt.Errorf("%s is locked", name)
	}
	m.locks[name] = true
	return unlock(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.locks, name)
	}), nil
}

func (f *memoryFile) ReadAt(b []byte, off int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	n := 0
	for n < len(b) && off < f.size {
		c := f.chunks[off/chunk]
		k := copy(b[n:], c[off%chunk:min(int64(len(c)), f.size-off/chunk*chunk)])
		n += k
		off += int64(k)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memoryFile) WriteAt(b []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grow(off + int64(len(b)))
	for n := 0; n < len(b); {
		k := copy(f.chunks[off/chunk][off%chunk:], b[n:])
		n += k
		off += int64(k)
	}
	return len(b), nil
}

// grow makes the file at least so long. A small file has one short chunk, so
// that many of them cost little.
func (f *memoryFile) grow(size int64) {
	for need := (size + chunk - 1) / chunk; int64(len(f.chunks)) < need; {
		f.chunks = append(f.chunks, nil)
	}
	for i := f.size / chunk; i < int64(len(f.chunks)); i++ {
		want := min(size-i*chunk, chunk)
		if have := int64(len(f.chunks[i])); have < want {
			if i > 0 || want > chunk/2 {
				want = chunk
			} else {
				want = min(chunk, 2*want)
			}
			f.chunks[i] = append(make([]byte, 0, want), f.chunks[i]...)[:want]
		}
	}
	f.size = max(f.size, size)
}

func (f *memoryFile) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if size > f.size {
		f.grow(size)
		return nil
	}
	f.chunks = f.chunks[:(size+chunk-1)/chunk]
	if n := size % chunk; n > 0 {
		clear(f.chunks[len(f.chunks)-1][n:])
	}
	f.size = size
	return nil
}

func (f *memoryFile) Size() (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.size, nil
}

func (f *memoryFile) Allocate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grow(size)
	return nil
}

func (f *memoryFile) Sync() error  { return nil }
func (f *memoryFile) Close() error { return nil }
