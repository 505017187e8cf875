package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"

	"evernode/internal/journal/disk"
)

// segments is the set of files of a log.
type segments struct {
	fs   disk.FS
	dir  string
	size int64

	mu       sync.Mutex // held during file operations that change the set
	firsts   []uint64   // first LSN of each segment, ascending
	hasSpare bool

	need chan struct{} // one element: a spare is wanted
	done chan struct{} // closed when the spare loop has ended
}

func randomSalt() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

func segmentName(first uint64) string { return fmt.Sprintf(namePattern, first) }

func (s *segments) path(name string) string { return path.Join(s.dir, name) }

// begin makes a new last segment, durable with its header, from the spare or
// from nothing.
func (s *segments) begin(at seal) (disk.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fillSpare(); err != nil {
		return nil, err
	}
	name := s.path(segmentName(at.first))
	if err := s.fs.Rename(s.path(spareName), name); err != nil {
		return nil, err
	}
	s.hasSpare = false
	f, err := s.fs.Open(name)
	if err != nil {
		return nil, err
	}
	if err := s.start(f, at); err != nil {
		f.Close()
		return nil, err
	}
	s.firsts = append(s.firsts, at.first)
	s.wantSpare()
	return f, nil
}

func (s *segments) start(f disk.File, at seal) error {
	if _, err := f.WriteAt(appendHeader(nil, at), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return s.fs.SyncDir(s.dir)
}

func (s *segments) makeSpare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fillSpare()
}

// fillSpare makes the spare unless it is there. Zeros are really written: in
// space that is only reserved, each first write would change metadata and make
// its sync slower.
func (s *segments) fillSpare() error {
	if s.hasSpare {
		return nil
	}
	temp := s.path(spareTempName)
	f, err := s.fs.Create(temp)
	if err != nil {
		return err
	}
	if err := s.zeroAll(f); err != nil {
		f.Close()
		return errors.Join(err, s.fs.Remove(temp))
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := s.fs.Rename(temp, s.path(spareName)); err != nil {
		return err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	s.hasSpare = true
	return nil
}

func (s *segments) zeroAll(f disk.File) error {
	if err := f.Allocate(s.size); err != nil {
		return err
	}
	if err := zero(f, 0, s.size); err != nil {
		return err
	}
	return f.Sync()
}

func zero(f disk.File, from, to int64) error {
	block := make([]byte, min(1<<20, max(to-from, 0)))
	for from < to {
		n := min(int64(len(block)), to-from)
		if _, err := f.WriteAt(block[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

func (s *segments) dropBefore(lsn uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dropped := 0
	for len(s.firsts) > 1 && s.firsts[1] <= lsn {
		if err := s.fs.Remove(s.path(segmentName(s.firsts[0]))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.firsts = s.firsts[1:]
		dropped++
	}
	if dropped == 0 {
		return nil
	}
	return s.fs.SyncDir(s.dir)
}

func (s *segments) wantSpare() {
	select {
	case s.need <- struct{}{}:
	default:
	}
}

// waitForNeed returns true when a spare is wanted, false when the log closes.
func (s *segments) waitForNeed() bool {
	if _, ok := <-s.need; ok {
		return true
	}
	close(s.done)
	return false
}

func (s *segments) close() {
	close(s.need)
	<-s.done
}
