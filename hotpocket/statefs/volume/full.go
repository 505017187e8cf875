package volume

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A full disk must not keep a node from undoing a run, from going on with an
// agreed state that has become small again, or from taking in another one.

// full reports whether an error is that of a full disk.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// reserve is the size in bytes of a file that is given up when the log cannot
// grow otherwise.
const reserve = 256 << 10

func reservePath(dir string) string { return filepath.Join(dir, "reserve") }

// keepReserve sets space aside, if there is any.
func (l *treeLog) keepReserve() {
	if st, err := os.Stat(reservePath(l.dir)); err == nil && st.Size() == reserve {
		return
	}
	f, err := os.OpenFile(reservePath(l.dir), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Fallocate(int(f.Fd()), 0, 0, reserve) != nil {
		_ = f.Truncate(0)
	}
}

// useReserve gives the space up, and returns whether there was any.
func (l *treeLog) useReserve() bool {
	st, err := os.Stat(reservePath(l.dir))
	return err == nil && st.Size() > 0 && os.Truncate(reservePath(l.dir), 0) == nil
}

// makeRoom removes what closed stagings have left behind, which only spares
// fetching it again. It returns whether there was any. The caller holds op.
func (v *Volume) makeRoom() bool {
	s := v.stage
	s.mu.Lock()
	some := s.open == nil && (s.size > 0 || len(s.buf) > 0)
	s.mu.Unlock()
	if !some {
		return false
	}
	if err := s.clear(v, nil); err != nil {
		v.log.Warn("cannot clear what was fetched", "error", err)
	}
	v.sweep.wait()
	v.log.Warn("the disk is full: what was fetched of another state was removed")
	return true
}

// dropStaged removes what closed stagings have left behind: the node is no longer
// behind. The caller holds op.
func (v *Volume) dropStaged() {
	s := v.stage
	s.mu.Lock()
	some := s.open == nil && (s.size > 0 || len(s.buf) > 0)
	s.mu.Unlock()
	if some {
		if err := s.clear(v, nil); err != nil {
			v.log.Warn("cannot clear what was fetched", "error", err)
		}
	}
}

// unwanted removes what earlier stagings have fetched and this one has not asked
// for, since its state does not have it. It returns whether there was any.
func (s *Staging) unwanted() bool {
	st := s.s
	st.mu.Lock()
	some := false
	for h, f := range st.files {
		if !s.asked[h] {
			s.v.reap(f.obj, f.size)
			delete(st.files, h)
			some = true
		}
	}
	for h, f := range st.parts {
		if !s.asked[h] {
			s.v.reap(f.obj, f.size)
			delete(st.parts, h)
			some = true
		}
	}
	st.mu.Unlock()
	if some {
		s.v.sweep.wait()
	}
	return some
}

// room runs a step of a staging that may find the disk full.
func (s *Staging) room(step func() error) error {
	err := step()
	if err == nil || !full(err) {
		return err
	}
	if s.unwanted() {
		err = step()
	}
	if full(err) {
		s.s.mu.Lock()
		s.full = true
		s.s.mu.Unlock()
	}
	return err
}

// ask notes that the state that is being fetched has a file.
func (s *Staging) ask(h [32]byte) {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	s.asked[h] = true
}
