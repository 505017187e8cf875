package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/remote"
)

// goneOf returns what is closed when the process that keeps a run's or a view's
// folder dies; nil for a state without such a process.
func goneOf(of any) <-chan struct{} {
	if g, ok := of.(interface{ Gone() <-chan struct{} }); ok {
		return g.Gone()
	}
	return nil
}

func isGone(of any) bool {
	select {
	case <-goneOf(of):
		return true
	default:
		return false
	}
}

// undo brings the state back to before a run, however long that takes: nothing
// else can be done with it before.
func (e *executor) undo(ctx context.Context, run statefs.Run) {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := run.Rollback(context.WithoutCancel(ctx))
		switch {
		case err == nil, errors.Is(err, statefs.ErrFinished), errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, statefs.ErrDamaged):
			e.synced.Store(false)
			e.log.Error("the state is damaged; it is fetched from other members", "err", err)
			return
		}
		e.trouble.is(e.log, "a run could not be undone yet", 0, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// commit makes the result of a run, which the members have confirmed, the agreed
// state. If the result is no longer there (somebody has changed the folder, the
// state's process died and took it along, the disk was full) the run is undone
// and executed again, until the others are further than this node and the state
// can be had from them. It reports whether the state has the result.
func (e *executor) commit(ctx context.Context, f *finished) bool {
	wait := retryMin
	for run := f.run; ; {
		if run != nil {
			err := run.Commit(ctx)
			if err == nil {
				e.trouble.over(e.log)
				return true
			}
			if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
				return false
			}
			if noRoom(err) && e.waiting() == 0 {
				// The result is still there; only room is missing.
				e.trouble.is(e.log, "the confirmed result of a run cannot be kept yet", f.height, err)
				select {
				case <-ctx.Done():
					return false
				case <-time.After(wait):
				}
				wait = min(2*wait, retryMax)
				continue
			}
			e.undo(ctx, run)
			run = nil
			what := "the confirmed result of a run is lost; the run is executed again"
			if e.waiting() > 0 {
				what = "the confirmed result of a run is lost; the agreed state is fetched"
			}
			e.trouble.is(e.log, what, f.height, err)
		}
		if e.waiting() > 0 {
			return false // the others have it
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMax)
		want := f.attempt.Header.Result
		if v := e.state.Agreed(); v.Root == f.result.State && v.Patch == f.result.Patch && !e.state.Damaged() {
			return true // it came back with the state's process
		} else if v.Root != want.State || v.Patch != want.Patch || e.state.Damaged() {
			return false
		}
		again, err := e.perform(ctx, f.attempt)
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil:
			e.trouble.is(e.log, "the run could not be done", f.height, err)
		case again == nil:
		case again.result != f.result:
			e.diverged.Add(1)
			e.log.Error("the run was executed again and led to another result: it is undone and the agreed state fetched",
				"ledger", f.height, "root", again.result.State.Short(), "agreed", f.result.State.Short())
			e.undo(ctx, again.run)
			return false
		default:
			run = again.run
		}
	}
}

// sayAgain is after what time a trouble that lasts is logged again.
const sayAgain = 30 * time.Second

// trouble is what keeps the executor from its work.
type trouble struct {
	mu    sync.Mutex
	text  string
	class string // of what was logged last
	said  time.Time
	full  string // the disk has no room
}

func noRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// is notes a trouble and logs it, unless it is the one that was logged last.
func (t *trouble) is(log *slog.Logger, what string, ledger uint64, err error) {
	if noRoom(err) {
		err = fmt.Errorf("%w: make room on the disk of contract_fs", err)
	}
	text := what + ": " + err.Error()
	class := text
	switch {
	case noRoom(err):
		class = "room: " + what
	case errors.Is(err, remote.ErrGone):
		class = "gone"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = text
	if class == t.class && time.Since(t.said) < sayAgain {
		return
	}
	t.class, t.said = class, time.Now()
	attrs := []any{"err", err}
	if ledger > 0 {
		attrs = append(attrs, "ledger", ledger)
	}
	log.Error(what, attrs...)
}

// over notes that the work goes on.
func (t *trouble) over(log *slog.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.text != "" {
		log.Info("the contract's state works again", "was", t.text)
		t.text, t.class = "", ""
	}
}

// now describes what is wrong at the moment, "" when nothing is.
func (t *trouble) now(state statefs.State) string {
	if s, ok := state.(*remote.State); ok {
		if err := s.Down(); err != nil {
			return err.Error()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full != "" {
		return t.full
	}
	return t.text
}

const (
	// diskEvery is how often the room for the state is looked at.
	diskEvery = time.Second
	// littleRoom is with how many bytes a disk counts as full.
	littleRoom = 1 << 20
)

// watchDisk tells the operator when there is no room for the state, and when
// there is again. The contract sees that as errors of its writes, which is its
// own business; what it makes of them may differ from what other nodes have.
func (e *executor) watchDisk(ctx context.Context) {
	dir := e.n.dir.ContractFS()
	tick := time.NewTicker(diskEvery)
	defer tick.Stop()
	for {
		free, err := room(dir)
		e.trouble.disk(e.log, dir, free, err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (t *trouble) disk(log *slog.Logger, dir string, free uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil:
	case free < littleRoom && t.full == "":
		t.full = fmt.Sprintf("the disk of %s is full", dir)
		log.Error("the disk is full: the contract cannot write, and this node may fall behind until there is room", "dir", dir, "free_bytes", free)
	case free >= littleRoom && t.full != "":
		t.full = ""
		log.Info("there is room on the disk again", "dir", dir, "free_bytes", free)
	}
}

// room is how many bytes this process can still write below dir.
func room(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 {
		// Root may use what is set aside for it, but for what ext4 keeps for
		// itself, 2 % and at most 4096 blocks.
		kept := min(st.Blocks/50, 4096)
		blocks = max(blocks, st.Bfree-min(st.Bfree, kept))
	}
	return blocks * uint64(st.Bsize), nil
}
