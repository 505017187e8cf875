package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// Run is an open run of a State.
//
// When the state's process dies, no new one is started before the run is
// decided. Rollback decides that it is undone. Commit, of a run that has ended,
// decides that its result is the agreed one: the new process is told so, and
// makes it from what the old one had on disk.
type Run struct {
	s       *State
	l       *link
	id      uint32
	dir     string
	decided chan struct{}

	mu       sync.Mutex // held during End, Commit and Rollback
	ended    bool
	finished bool
	version  statefs.Version
}

// Begin implements statefs.State.
func (s *State) Begin(ctx context.Context, seq uint64) (statefs.Run, error) {
	var run *Run
	err := s.do(ctx, s.cfg.Patience, func(l *link) error {
		r := &Run{s: s, l: l, decided: make(chan struct{}), version: statefs.Version{Seq: seq}}
		s.mu.Lock()
		busy := s.run != nil
		if !busy {
			s.run = r // before the other side can have begun it
		}
		s.mu.Unlock()
		if busy {
			return statefs.ErrBusy
		}
		body, err := l.call(ctx, opBegin, wire.AppendU64(nil, seq))
		if err == nil {
			rd := wire.NewReader(body)
			r.id = rd.U32()
			var dir string
			dir, err = text(rd)
			r.dir = s.place(dir)
		}
		if err != nil {
			s.decide(r, nil)
			return err
		}
		run = r
		return nil
	})
	if err != nil {
		return nil, told("begin", seq, err)
	}
	return run, nil
}

// told wraps an error of this side; one of the other says by itself what failed.
func told(what string, seq uint64, err error) error {
	if _, theirs := err.(*callError); theirs {
		return err
	}
	return fmt.Errorf("%s run %d: %w", what, seq, err)
}

// decide ends a run for this side. The next process is told of the confirmed
// version if there is one.
func (s *State) decide(r *Run, confirmed *statefs.Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != r {
		return
	}
	s.run = nil
	if confirmed != nil {
		v := *confirmed
		s.confirmed = &v
	}
	close(r.decided)
}

// Dir implements statefs.Run.
func (r *Run) Dir() string { return r.dir }

// Gone is closed when the process that keeps the run's folder has died: the
// contract has to be ended and the run be undone.
func (r *Run) Gone() <-chan struct{} { return r.l.gone }

func (r *Run) handle() []byte { return wire.AppendU32(nil, r.id) }

// End implements statefs.Run.
func (r *Run) End(ctx context.Context) (root, patch digest.Hash, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return root, patch, told("end", r.version.Seq, statefs.ErrFinished)
	}
	body, err := r.l.call(ctx, opEnd, r.handle())
	if err == nil {
		err = hashes(body, root[:], patch[:])
	}
	if errors.Is(err, errLost) {
		err = ErrGone
	}
	if err != nil {
		return digest.Hash{}, digest.Hash{}, told("end", r.version.Seq, err)
	}
	r.ended, r.version.Root, r.version.Patch = true, root, patch
	return root, patch, nil
}

// Commit implements statefs.Run. When the process has died it waits for the next
// one, as long as ctx; statefs.ErrChanged then says that the result is lost. The
// run is finished in that case, and has to be executed again.
func (r *Run) Commit(ctx context.Context) error {
	if err := r.commit(ctx); err != nil {
		return told("commit", r.version.Seq, err)
	}
	return nil
}

func (r *Run) commit(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return statefs.ErrFinished
	}
	if !r.ended {
		return errors.New("it has not ended")
	}
	_, err := r.l.call(ctx, opCommit, r.handle())
	if err == nil {
		r.finished = true
		r.s.decide(r, nil)
		return nil
	}
	if !errors.Is(err, errLost) {
		return err
	}
	r.finished = true
	r.s.lost(r.l)
	r.s.decide(r, &r.version)
	if _, err := r.s.current(ctx, 0); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if now := r.s.Agreed(); now != r.version {
		return fmt.Errorf("%w: the state's process died, and what is on disk is version %s", statefs.ErrChanged, now)
	}
	return nil
}

// Rollback implements statefs.Run. A run of a process that has died is undone
// before the next one answers.
func (r *Run) Rollback(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return told("roll back", r.version.Seq, statefs.ErrFinished)
	}
	_, err := r.l.call(ctx, opRollback, r.handle())
	switch {
	case errors.Is(err, errLost):
		err = nil
		r.s.lost(r.l)
	case err == nil, errors.Is(err, statefs.ErrDamaged), errors.Is(err, statefs.ErrFinished):
	default:
		return told("roll back", r.version.Seq, err)
	}
	r.finished = true
	r.s.decide(r, nil)
	if err != nil {
		return told("roll back", r.version.Seq, err)
	}
	return nil
}
