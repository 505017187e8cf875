package mount

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// run is the open run of a State.
type run struct {
	s   *State
	seq uint64

	mu       sync.Mutex // held during End, Commit and Rollback
	ended    bool
	finished bool
	patch    []byte
}

// Begin implements statefs.State.
func (s *State) Begin(ctx context.Context, seq uint64) (statefs.Run, error) {
	if err := s.enter(); err != nil {
		return nil, fmt.Errorf("begin run %d: %w", seq, err)
	}
	defer s.leave()
	if err := s.vol.Begin(ctx, seq); err != nil {
		return nil, fmt.Errorf("begin run %d: %w", seq, err)
	}
	if err := s.restorePatch(); err != nil {
		return nil, errors.Join(fmt.Errorf("begin run %d: %w", seq, err), s.vol.Rollback(ctx))
	}
	return &run{s: s, seq: seq}, nil
}

// Dir implements statefs.Run.
func (r *run) Dir() string { return r.s.paths.state }

// End implements statefs.Run.
func (r *run) End(ctx context.Context) (root, patch digest.Hash, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.s
	if err := s.enter(); err != nil {
		return root, patch, fmt.Errorf("end run %d: %w", r.seq, err)
	}
	defer s.leave()
	switch {
	case r.finished:
		return root, patch, fmt.Errorf("end run %d: %w", r.seq, statefs.ErrFinished)
	case r.ended:
		return root, patch, fmt.Errorf("end run %d: it has ended before", r.seq)
	}
	left, err := s.rw.settle(ctx)
	if err != nil {
		return root, patch, fmt.Errorf("end run %d: %w", r.seq, err)
	}
	if left > 0 {
		s.log.Warn("a process outlives the run and has files of the state open for writing; what it writes is lost", "files", left)
	}
	if root, err = s.vol.End(ctx); err != nil {
		return root, patch, fmt.Errorf("end run %d: %w", r.seq, err)
	}
	content, ok, err := s.takePatch()
	if err != nil {
		return root, patch, fmt.Errorf("end run %d: %w", r.seq, err)
	}
	if !ok {
		s.log.Warn("the contract left a patch.cfg that is not a file or is too large; the agreed one is put back", "limit", statefs.MaxPatch)
	}
	r.patch, r.ended = content, true
	return root, patchHash(content), nil
}

// Commit implements statefs.Run.
func (r *run) Commit(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.s
	if err := s.enter(); err != nil {
		return fmt.Errorf("commit run %d: %w", r.seq, err)
	}
	defer s.leave()
	switch {
	case r.finished:
		return fmt.Errorf("commit run %d: %w", r.seq, statefs.ErrFinished)
	case !r.ended:
		return fmt.Errorf("commit run %d: it has not ended", r.seq)
	}
	if err := s.vol.Commit(ctx, r.patch); err != nil {
		return fmt.Errorf("commit run %d: %w", r.seq, err)
	}
	r.finished = true
	s.ro.trim(r.seq)
	return nil
}

// Rollback implements statefs.Run.
func (r *run) Rollback(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.s
	if err := s.enter(); err != nil {
		return fmt.Errorf("roll back run %d: %w", r.seq, err)
	}
	defer s.leave()
	if r.finished {
		return fmt.Errorf("roll back run %d: %w", r.seq, statefs.ErrFinished)
	}
	if err := s.vol.Rollback(ctx); err != nil {
		return fmt.Errorf("roll back run %d: %w", r.seq, err)
	}
	r.finished = true
	if err := s.restorePatch(); err != nil {
		return fmt.Errorf("roll back run %d: %w", r.seq, err)
	}
	return nil
}

// settleGrace is how long a file that is still open for writing may take to be
// reported closed, after the kernel has sent all it had to send.
const settleGrace = 50 * time.Millisecond

// settle waits until the kernel has told of every file that was closed before,
// and returns how many are open for writing nevertheless: processes that outlive
// the run hold them. The kernel reports that a file is closed after close(2) and
// even the end of the process, but it hands out requests in their order.
func (m *rwMount) settle(ctx context.Context) (left int, err error) {
	for last := -1; ; {
		n, calm := m.handles.writers()
		if n == 0 || n == last {
			return n, ctx.Err()
		}
		last = n
		// Whatever was sent before has been taken out of the kernel's queue
		// when this is answered.
		var st unix.Statfs_t
		if err := unix.Statfs(m.dev.path, &st); err != nil {
			return n, fmt.Errorf("ask the state folder: %w", err)
		}
		select {
		case <-calm:
			return 0, nil
		case <-time.After(settleGrace):
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
}
