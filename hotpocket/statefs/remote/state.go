package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// Conn is a connection to the process that keeps the state.
type Conn struct {
	net.Conn
	// End is called when the connection is closed. It waits for the process if
	// it belongs to the node, kills it when it takes longer than the given time,
	// and says how it ended. Nil: there is nothing to wait for.
	End func(grace time.Duration) error
}

// Connector makes connections, one after the other.
type Connector interface {
	Connect(ctx context.Context) (Conn, error)
}

// Config says how a State reaches the process that keeps it.
type Config struct {
	// Connector starts or dials the process.
	Connector Connector
	// Dir is the node's contract_fs as this process sees it: what the other side
	// names relative to its own lies below it.
	Dir string
	// Confirmed and Owner are as in statefs.Config.
	Confirmed *statefs.Version
	Owner     *statefs.Owner
	Log       *slog.Logger

	// Patience is how long a call waits for the process to be back before it
	// fails with ErrGone; 0 stands for 10 s.
	Patience time.Duration
	// MinPause and MaxPause bound the pause before the process is started again
	// that died soon after its start; 0 stands for 20 ms and 5 s.
	MinPause, MaxPause time.Duration
}

const (
	// objectPatience is Patience for what a peer asks for: it has others to ask.
	objectPatience = 2 * time.Second
	// steady is how long a process has to have lived for its death not to be
	// the same trouble as the one before.
	steady = time.Second
	// viewsTime is how long a new process is not started because read requests
	// are still running in the folders of the dead one. They are being killed.
	viewsTime = 300 * time.Millisecond
	// firstTries is how often Open tries when the process dies while it opens
	// the state, or is not there yet.
	firstTries = 8
	// closeTime bounds closing: everything is made durable.
	closeTime = 60 * time.Second
)

// State is a statefs.State that another process keeps. It is made by Open. When
// that process dies it is started again; see ErrGone for what that means for who
// uses it. All methods may be called at any time from any goroutine.
type State struct {
	cfg Config
	log *slog.Logger

	closing chan struct{} // closed by Close
	over    chan struct{} // closed when nobody keeps the link any more

	mu        sync.Mutex
	link      *link // nil while there is none
	conn      Conn
	back      chan struct{} // closed when there is a link again
	now       status
	confirmed *statefs.Version // to be told at the next hello
	run       *Run             // open, or of a lost link and not decided
	views     map[*View]bool
	viewGone  chan struct{} // signalled when one is closed
	why       error         // why there is no link
	restarts  uint64
	closed    bool
}

// Open connects to the process and opens the state. What is wrong with the state
// itself is returned as the process reports it; ErrUnavailable says that another
// kind has to be chosen.
func Open(ctx context.Context, cfg Config) (*State, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 10 * time.Second
	}
	if cfg.MinPause <= 0 {
		cfg.MinPause = 20 * time.Millisecond
	}
	if cfg.MaxPause <= 0 {
		cfg.MaxPause = 5 * time.Second
	}
	s := &State{
		cfg: cfg, log: cfg.Log, confirmed: cfg.Confirmed,
		closing: make(chan struct{}), over: make(chan struct{}), back: make(chan struct{}),
		views: make(map[*View]bool), viewGone: make(chan struct{}, 1),
	}
	pause := cfg.MinPause
	for try := 1; ; try++ {
		l, err := s.connect(ctx)
		if err == nil {
			go s.keep(l)
			return s, nil
		}
		var told *callError
		if errors.As(err, &told) && !errors.Is(err, ErrTaken) || try == firstTries || ctx.Err() != nil {
			return nil, err
		}
		s.log.Warn("the state cannot be opened yet", "err", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, cfg.MaxPause)
	}
}

// connect makes a link and takes it into use.
func (s *State) connect(ctx context.Context) (*link, error) {
	conn, err := s.cfg.Connector.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("reach the state's process: %w", err)
	}
	s.mu.Lock()
	h := Hello{Confirmed: s.confirmed, Owner: s.cfg.Owner}
	s.mu.Unlock()
	l, err := dial(ctx, conn, h, s.told)
	if err != nil {
		var ended error
		if conn.End != nil {
			ended = conn.End(0)
		}
		if errors.Is(err, errLost) {
			err = fmt.Errorf("%w while it opened the state%s", ErrGone, howEnded(ended))
		}
		return nil, err
	}
	s.mu.Lock()
	s.link, s.conn, s.why = l, conn, nil
	close(s.back)
	s.mu.Unlock()
	return l, nil
}

func howEnded(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// told takes over what the state says of itself.
func (s *State) told(now status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
	v := now.agreed
	s.confirmed = &v
}

// lost notes that a link has ended.
func (s *State) lost(l *link) {
	l.mu.Lock()
	reason := l.reason
	l.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == l {
		s.link, s.back, s.why = nil, make(chan struct{}), reason
	}
}

// keep replaces links that are lost.
func (s *State) keep(l *link) {
	defer close(s.over)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	pause := time.Duration(0)
	for {
		select {
		case <-l.gone:
		case <-s.closing:
			return
		}
		s.lost(l)
		s.mu.Lock()
		conn, why := s.conn, s.why
		s.restarts++
		s.mu.Unlock()
		if conn.End != nil {
			if err := conn.End(0); err != nil {
				why = err
			}
		}
		s.log.Error("the process that keeps the contract's state has ended; it is started again", "reason", why)
		if time.Since(l.opened) >= steady {
			pause = 0
		}
		if !s.settled(ctx) {
			return
		}
		for {
			if pause > 0 {
				select {
				case <-time.After(pause):
				case <-ctx.Done():
					return
				}
			}
			pause = min(max(2*pause, s.cfg.MinPause), s.cfg.MaxPause)
			next, err := s.connect(ctx)
			if err == nil {
				l = next
				break
			}
			if ctx.Err() != nil {
				return
			}
			s.mu.Lock()
			s.why = err
			s.mu.Unlock()
			s.log.Error("the contract's state cannot be opened again yet", "err", err)
		}
		s.log.Info("the contract's state is back", "agreed", s.Agreed().String())
	}
}

// settled waits until what a dead process had open is done with: the run is
// decided, because its contract may still be writing and because the decision
// is what the next process has to be told; read requests have ended.
func (s *State) settled(ctx context.Context) bool {
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	if r != nil {
		select {
		case <-r.decided:
		case <-ctx.Done():
			return false
		}
	}
	limit := time.NewTimer(viewsTime)
	defer limit.Stop()
	for {
		s.mu.Lock()
		n := len(s.views)
		s.mu.Unlock()
		if n == 0 {
			return true
		}
		select {
		case <-s.viewGone:
		case <-limit.C:
			s.mu.Lock()
			clear(s.views)
			s.mu.Unlock()
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// current waits for a link, as long as patience, or as ctx when it is 0.
func (s *State) current(ctx context.Context, patience time.Duration) (*link, error) {
	var late <-chan time.Time
	for {
		s.mu.Lock()
		l, back, why, closed := s.link, s.back, s.why, s.closed
		s.mu.Unlock()
		if closed {
			return nil, os.ErrClosed
		}
		if l != nil {
			select {
			case <-l.gone:
				s.lost(l)
				continue
			default:
				return l, nil
			}
		}
		if late == nil && patience > 0 {
			t := time.NewTimer(patience)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-back:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.closing:
			return nil, os.ErrClosed
		case <-late:
			return nil, gone(why)
		}
	}
}

func gone(why error) error {
	if why == nil || errors.Is(why, errLost) {
		return ErrGone
	}
	return fmt.Errorf("%w: %w", ErrGone, why)
}

// do makes a call that may be made again, once, when its link is lost: what
// kills the process every time must not do so for ever.
func (s *State) do(ctx context.Context, patience time.Duration, f func(*link) error) error {
	for try := 0; ; try++ {
		l, err := s.current(ctx, patience)
		if err != nil {
			return err
		}
		err = f(l)
		if !errors.Is(err, errLost) {
			return err
		}
		s.lost(l)
		if try > 0 {
			return ErrGone
		}
	}
}

// Restarts returns how often the process had to be started again.
func (s *State) Restarts() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarts
}

// Down returns why there is no process at the moment, nil when there is one.
func (s *State) Down() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil || s.closed {
		return nil
	}
	return gone(s.why)
}

// Agreed implements statefs.State. While the process is down it is what it was
// before.
func (s *State) Agreed() statefs.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.agreed
}

// Damaged implements statefs.State.
func (s *State) Damaged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.damaged
}

// Patch implements statefs.State.
func (s *State) Patch() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.now.patch)
}

// SetPatch implements statefs.State.
func (s *State) SetPatch(ctx context.Context, content []byte) (h digest.Hash, err error) {
	if len(content) > statefs.MaxPatch {
		return h, fmt.Errorf("patch.cfg of %d bytes, at most %d are allowed", len(content), statefs.MaxPatch)
	}
	err = s.do(ctx, s.cfg.Patience, func(l *link) error {
		body, err := l.call(ctx, opSetPatch, wire.AppendBytes(nil, content))
		if err != nil {
			return err
		}
		return hashes(body, h[:])
	})
	return h, err
}

// Object implements statefs.State.
func (s *State) Object(ctx context.Context, ref statefs.Ref) (data []byte, err error) {
	if len(ref.Path) > maxPath {
		return nil, statefs.ErrNotFound
	}
	err = s.do(ctx, min(objectPatience, s.cfg.Patience), func(l *link) error {
		data, err = l.call(ctx, opObject, appendRef(nil, ref))
		return err
	})
	return data, err
}

// AppendObject is Object that appends to b and returns b as it was on an error.
func (s *State) AppendObject(ctx context.Context, ref statefs.Ref, b []byte) ([]byte, error) {
	if len(ref.Path) > maxPath {
		return b, statefs.ErrNotFound
	}
	var data []byte
	err := s.do(ctx, min(objectPatience, s.cfg.Patience), func(l *link) (err error) {
		data, err = l.callInto(ctx, b[len(b):cap(b)], opObject, appendRef(nil, ref))
		return err
	})
	if err != nil {
		return b, err
	}
	if len(data) > 0 && cap(b)-len(b) >= len(data) && &data[0] == &b[:len(b)+1][len(b)] {
		return b[:len(b)+len(data)], nil
	}
	return append(b, data...), nil
}

// place is where a folder that the other side names is for this process.
func (s *State) place(dir string) string {
	if filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(s.cfg.Dir, dir)
}

// View implements statefs.State.
func (s *State) View(ctx context.Context) (statefs.View, error) {
	v := &View{s: s}
	err := s.do(ctx, s.cfg.Patience, func(l *link) error {
		v.l = l
		s.mu.Lock()
		s.views[v] = true
		s.mu.Unlock()
		body, err := l.call(ctx, opView)
		if err == nil {
			r := wire.NewReader(body)
			v.id, v.version = r.U32(), readVersion(r)
			var dir string
			dir, err = text(r)
			v.dir = s.place(dir)
		}
		if err != nil {
			s.forget(v)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (s *State) forget(v *View) {
	s.mu.Lock()
	delete(s.views, v)
	s.mu.Unlock()
	select {
	case s.viewGone <- struct{}{}:
	default:
	}
}

// View is an open view of a State.
type View struct {
	s       *State
	l       *link
	id      uint32
	dir     string
	version statefs.Version
	once    sync.Once
	err     error
}

// Dir implements statefs.View.
func (v *View) Dir() string { return v.dir }

// Version implements statefs.View.
func (v *View) Version() statefs.Version { return v.version }

// Gone is closed when the view's folder is no longer what it was, because the
// process that shows it has died. What runs in it has to be ended.
func (v *View) Gone() <-chan struct{} { return v.l.gone }

// Close implements statefs.View.
func (v *View) Close() error {
	v.once.Do(func() {
		v.err = release(v.l, v.id)
		v.s.forget(v)
	})
	return v.err
}

// release closes something on the other side. What is gone is closed.
func release(l *link, id uint32) error {
	_, err := l.call(context.Background(), opRelease, wire.AppendU32(nil, id))
	if errors.Is(err, errLost) {
		return nil
	}
	return err
}

// Close implements statefs.State. A process of the node's own ends; a service
// keeps the state open for the next node.
func (s *State) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.closing)
	<-s.over
	s.mu.Lock()
	l, conn := s.link, s.conn
	s.mu.Unlock()
	if l == nil {
		return nil // the next start puts it right
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := l.call(context.Background(), opClose)
		done <- err
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = fmt.Errorf("the state's process does not close it: %w", ctx.Err())
	}
	if errors.Is(err, errLost) {
		err = nil // likewise
	}
	l.close(nil)
	if conn.End != nil {
		if e := conn.End(10 * time.Second); e != nil {
			s.log.Warn("the state's process did not end well", "err", e)
		}
	}
	return err
}
