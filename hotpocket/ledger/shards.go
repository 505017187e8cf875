package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"evernode/internal/digest"
	"evernode/internal/journal/disk"
)

// openTables is how many shards of a kind are held open when all are clean.
const openTables = 4

// shards is the tables of one kind, as many as there are on disk. Reading is
// for anybody; put, sync and dropBefore are for one goroutine.
type shards struct {
	fs     disk.FS
	dir    string
	slots  uint64 // per shard
	hashed bool

	mu      sync.RWMutex // read lock to read tables, write lock to write them or change the fields below
	open    map[uint64]*table
	have    []uint64 // ascending
	newName bool     // files were made since the last sync
	closed  bool
}

var errClosed = errors.New("ledger store is closed")

func openShards(fsys disk.FS, dir string, slots uint64, hashed bool) (*shards, error) {
	s := &shards{fs: fsys, dir: dir, slots: slots, hashed: hashed, open: map[uint64]*table{}}
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, err
	}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		base, _, ok := strings.Cut(name, ".")
		n, err := strconv.ParseUint(base, 10, 64)
		if ok && err == nil && !slices.Contains(s.have, n) {
			s.have = append(s.have, n)
		}
	}
	slices.Sort(s.have)
	return s, nil
}

// load opens shard n and returns it, nil when there is none. As soon as the
// lock is free again the table may be closed by another goroutine's load.
func (s *shards) load(n uint64, create bool) (*table, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if t := s.open[n]; t != nil {
		return t, nil
	}
	_, exists := slices.BinarySearch(s.have, n)
	if !exists && !create {
		return nil, nil
	}
	for m, t := range s.open {
		if len(s.open) < openTables {
			break
		}
		if !t.dirty {
			t.close()
			delete(s.open, m)
		}
	}
	t, err := openTable(s.fs, s.dir, n, s.slots, s.hashed, create)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // what a crash while dropping or making the shard has left
	}
	if err != nil {
		return nil, err
	}
	if create {
		s.newName = true
	}
	if !exists {
		i, _ := slices.BinarySearch(s.have, n)
		s.have = slices.Insert(s.have, i, n)
	}
	s.open[n] = t
	return t, nil
}

// with calls f with shard n while the table cannot go away; f is not called
// when there is no such shard.
func (s *shards) with(n uint64, f func(*table) error) error {
	for {
		s.mu.RLock()
		if t := s.open[n]; t != nil {
			defer s.mu.RUnlock()
			return f(t)
		}
		s.mu.RUnlock()
		if t, err := s.load(n, false); t == nil || err != nil {
			return err
		}
	}
}

func (s *shards) get(n uint64) (b []byte, ok bool, err error) {
	err = s.with(n/s.slots, func(t *table) error {
		b, ok, err = t.get(n % s.slots)
		return err
	})
	return b, ok, err
}

func (s *shards) entry(n uint64) (e slot, ok bool, err error) {
	err = s.with(n/s.slots, func(t *table) error {
		e, ok, err = t.entry(n % s.slots)
		return err
	})
	return e, ok, err
}

// find looks for a hash, newest shard first.
func (s *shards) find(hash digest.Hash) (b []byte, ok bool, err error) {
	s.mu.RLock()
	have := slices.Clone(s.have)
	s.mu.RUnlock()
	for _, n := range slices.Backward(have) {
		err = s.with(n, func(t *table) error {
			b, ok, err = t.find(hash)
			return err
		})
		if ok || err != nil {
			return b, ok, err
		}
	}
	return nil, false, nil
}

func (s *shards) put(n, time uint64, hash digest.Hash, b []byte) error {
	if _, err := s.load(n/s.slots, true); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.open[n/s.slots]
	if t == nil {
		// A reader that needed room has closed it again: it was clean.
		var err error
		if t, err = openTable(s.fs, s.dir, n/s.slots, s.slots, s.hashed, true); err != nil {
			return err
		}
		s.open[n/s.slots] = t
	}
	return t.put(n%s.slots, time, hash, b)
}

// sync makes everything put so far durable.
func (s *shards) sync() error {
	s.mu.RLock()
	var dirty []*table
	for _, t := range s.open {
		if t.dirty {
			dirty = append(dirty, t)
		}
	}
	names := s.newName
	s.mu.RUnlock()
	for _, t := range dirty {
		if err := s.syncTable(t); err != nil {
			return fmt.Errorf("syncing %s: %w", t.name, err)
		}
	}
	if names {
		if err := s.fs.SyncDir(s.dir); err != nil {
			return err
		}
		s.mu.Lock()
		s.newName = false
		s.mu.Unlock()
	}
	return nil
}

// syncTable waits for the disk without a lock: a dirty table is never closed
// by others, and only our own goroutine makes it dirty.
func (s *shards) syncTable(t *table) error {
	for _, f := range t.files() {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	t.dirty = false
	s.mu.Unlock()
	return nil
}

// oldest returns the number of the oldest shard, the greatest number when there
// is none.
func (s *shards) oldest() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.have) == 0 {
		return math.MaxUint64
	}
	return s.have[0]
}

// dropBefore deletes the shards before number n.
func (s *shards) dropBefore(n uint64) error {
	s.mu.Lock()
	var drop []uint64
	for len(s.have) > 0 && s.have[0] < n {
		m := s.have[0]
		if t := s.open[m]; t != nil {
			t.close()
			delete(s.open, m)
		}
		drop = append(drop, m)
		s.have = s.have[1:]
	}
	s.mu.Unlock()
	for _, m := range drop {
		if err := removeTable(s.fs, s.dir, m); err != nil {
			return err
		}
	}
	if len(drop) == 0 {
		return nil
	}
	return s.fs.SyncDir(s.dir)
}

func (s *shards) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for n, t := range s.open {
		t.close()
		delete(s.open, n)
	}
}
