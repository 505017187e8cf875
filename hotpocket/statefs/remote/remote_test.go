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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

// stateDir is the variable that makes the test binary a state's process.
const stateDir = "REMOTE_TEST_STATE"

func openDir(ctx context.Context, c statefs.Config) (statefs.State, error) {
	return statefs.OpenDir(ctx, c)
}

func TestMain(m *testing.M) {
	dir := os.Getenv(stateDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	p := Process{Dir: dir, Open: openDir, Log: ChildLog(os.Stderr)}
	if err := p.RunChild(context.Background()); err != nil {
		p.Log.Error("state failed", "err", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child is a Connector that remembers the process it has started last.
type child struct {
	Child
	mu   sync.Mutex
	hold chan struct{} // when not nil, the next start waits for it
}

func newChild(dir string) *child {
	c := &child{}
	c.Argv = []string{"/proc/self/exe"}
	c.Env = append(os.Environ(), stateDir+"="+dir)
	return c
}

func (c *child) Connect(ctx context.Context) (Conn, error) {
	c.mu.Lock()
	hold := c.hold
	c.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return Conn{}, ctx.Err()
		}
	}
	conn, err := c.Child.Connect(ctx)
	return conn, err
}

// kill ends the process that serves s.
func kill(t *testing.T, s *State) {
	t.Helper()
	s.mu.Lock()
	conn, l := s.conn, s.link
	s.mu.Unlock()
	if l == nil {
		t.Fatal("there is no process")
	}
	_ = conn.End(0) // killed
	<-l.gone
}

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(bytes.TrimRight(b, "\n")))
	return len(b), nil
}

func openChild(t *testing.T, dir string, confirmed *statefs.Version) *State {
	t.Helper()
	s, err := Open(t.Context(), Config{Connector: newChild(dir), Dir: dir, Confirmed: confirmed, MinPause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, s statefs.State, seq uint64) statefs.Run {
	t.Helper()
	r, err := s.Begin(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func end(t *testing.T, r statefs.Run) statefs.Version {
	t.Helper()
	root, patch, err := r.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return statefs.Version{Root: root, Patch: patch}
}

// A whole life of a state, through a process of its own.
func TestChild(t *testing.T) {
	dir, plain := t.TempDir(), t.TempDir()
	s := openChild(t, dir, nil)
	d, err := statefs.OpenDir(t.Context(), statefs.Config{Dir: plain})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	patch := []byte(`{"a":1}`)
	h, err := s.SetPatch(t.Context(), patch)
	if err != nil || h != statefs.HashPatch(patch) || !bytes.Equal(s.Patch(), patch) || s.Agreed().Patch != h {
		t.Fatalf("SetPatch: %s, %v, agreed %s", h.Short(), err, s.Agreed())
	}
	if _, err := d.SetPatch(t.Context(), patch); err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= 3; seq++ {
		var ends [2]statefs.Version
		for i, st := range []statefs.State{s, d} {
			r := begin(t, st, seq)
			if _, err := st.Begin(t.Context(), seq); !errors.Is(err, statefs.ErrBusy) {
				t.Fatalf("second Begin: %v", err)
			}
			write(t, r.Dir(), "file", fmt.Sprint("run ", seq))
			ends[i] = end(t, r)
			if err := r.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := r.Commit(t.Context()); !errors.Is(err, statefs.ErrFinished) {
				t.Fatalf("second Commit: %v", err)
			}
			if st.Agreed() != (statefs.Version{Seq: seq, Root: ends[i].Root, Patch: h}) {
				t.Fatalf("agreed %s after run %d", st.Agreed(), seq)
			}
		}
		if ends[0] != ends[1] {
			t.Fatalf("run %d: %s through the process, %s without", seq, ends[0], ends[1])
		}
	}
	r := begin(t, s, 4)
	write(t, r.Dir(), "file", "undone")
	if err := r.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, err := s.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(v.Dir(), "file"))
	if err != nil || string(b) != "run 3" || v.Version() != s.Agreed() {
		t.Fatalf("view %s: %q, %v", v.Version(), b, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	b, err = s.Object(t.Context(), statefs.Ref{Kind: statefs.RefData, Path: "file", Hash: digest.Sum([]byte("run 3"))})
	if err != nil || string(b) != "run 3" {
		t.Fatalf("Object: %q, %v", b, err)
	}
	for _, room := range []int{0, 3, 100} {
		b, err := s.AppendObject(t.Context(), statefs.Ref{Kind: statefs.RefData, Path: "file", Hash: digest.Sum([]byte("run 3"))}, append(make([]byte, 0, 2+room), "> "...))
		if err != nil || string(b) != "> run 3" {
			t.Fatalf("AppendObject: %q, %v", b, err)
		}
	}
	if _, err = s.Object(t.Context(), statefs.Ref{Kind: statefs.RefDir, Hash: digest.Sum(b)}); !errors.Is(err, statefs.ErrNotFound) {
		t.Fatalf("Object of an unknown hash: %v", err)
	}
}

// copyState moves the agreed state of one State to another through its staging.
func copyState(ctx context.Context, from statefs.State, to statefs.Staging) error {
	v := from.Agreed()
	var walk func(path string, hash digest.Hash) error
	get := func(kind statefs.RefKind, path string, hash digest.Hash, index uint32) ([]byte, error) {
		return from.Object(ctx, statefs.Ref{Kind: kind, Path: path, Hash: hash, Index: index})
	}
	walk = func(path string, hash digest.Hash) error {
		b, err := get(statefs.RefDir, path, hash, 0)
		if err != nil {
			return err
		}
		if err := to.PutNode(statefs.RefDir, hash, b); err != nil {
			return err
		}
		l, err := statefs.DecodeDir(b)
		if err != nil {
			return err
		}
		for _, e := range l.Inline {
			p := filepath.Join(path, e.Name)
			switch e.Kind {
			case statefs.KindDir:
				if err := walk(p, e.Hash); err != nil {
					return err
				}
			case statefs.KindFile:
				if _, n := statefs.Groups(e.Size); n == 1 {
					b, err := get(statefs.RefData, p, e.Hash, 0)
					if err != nil {
						return err
					}
					if err := to.PutFile(e.Hash, b); err != nil {
						return err
					}
					continue
				}
				list, err := get(statefs.RefList, p, e.Hash, 0)
				if err != nil {
					return err
				}
				f, err := to.OpenFile(ctx, p, e.Size, e.Hash, list)
				if err != nil {
					return err
				}
				if group, _ := statefs.Groups(e.Size); len(f.Missing()) > 4 {
					// The first four in one piece.
					var run []byte
					for i := range uint32(4) {
						b, err := get(statefs.RefData, p, e.Hash, i)
						if err != nil {
							return err
						}
						run = append(run, b...)
					}
					w := f.(interface {
						PutRun(first uint32, data []byte) error
					})
					run[group]++
					if err := w.PutRun(0, run); !errors.Is(err, statefs.ErrMismatch) {
						return fmt.Errorf("a run with a wrong byte: %v", err)
					}
					run[group]--
					if err := w.PutRun(0, run); err != nil {
						return err
					}
				}
				for _, i := range f.Missing() {
					b, err := get(statefs.RefData, p, e.Hash, i)
					if err != nil {
						return err
					}
					if err := f.Put(i, b); err != nil {
						return err
					}
				}
				if err := f.Close(); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk("", v.Root); err != nil {
		return err
	}
	return to.Switch(ctx, v, from.Patch())
}

func TestStaging(t *testing.T) {
	a, b := openChild(t, t.TempDir(), nil), openChild(t, t.TempDir(), nil)
	r := begin(t, a, 1)
	write(t, r.Dir(), "small", "x")
	write(t, r.Dir(), "large", string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16)))
	if err := os.Mkdir(filepath.Join(r.Dir(), "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, r.Dir(), "sub/f", "y")
	end(t, r)
	if err := r.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err := b.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.PutFile(digest.Sum([]byte("x")), []byte("y")); !errors.Is(err, statefs.ErrMismatch) {
		t.Fatalf("wrong content: %v", err)
	}
	if err := st.Switch(t.Context(), a.Agreed(), nil); !errors.Is(err, statefs.ErrNotFound) {
		t.Fatalf("Switch to what is not there: %v", err)
	}
	if st.HasTree("", a.Agreed().Root) || st.HasFile(digest.Sum([]byte("x"))) {
		t.Fatal("the staging has what nobody gave it")
	}
	if err := copyState(t.Context(), a, st); err != nil {
		t.Fatal(err)
	}
	if b.Agreed() != a.Agreed() {
		t.Fatalf("agreed %s, want %s", b.Agreed(), a.Agreed())
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err = b.Stage(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !st.HasTree("", a.Agreed().Root) || !st.HasFile(digest.Sum([]byte("x"))) {
		t.Fatal("the staging does not know the agreed state")
	}
	if _, ok := st.Node(a.Agreed().Root); !ok {
		t.Fatal("the top folder is missing")
	}
	kill(t, b)
	if err := st.PutFile(digest.Sum([]byte("z")), []byte("z")); !errors.Is(err, ErrGone) {
		t.Fatalf("a staging of a dead process: %v", err)
	}
	st.Close()
	// The next goes on.
	if st, err = b.Stage(t.Context()); err != nil {
		t.Fatal(err)
	}
	st.Close()
}

// The process dies at every moment of a run.
func TestProcessDies(t *testing.T) {
	dir := t.TempDir()
	s := openChild(t, dir, nil)
	seq := uint64(0)
	good := func(text string) {
		t.Helper()
		seq++
		r := begin(t, s, seq)
		write(t, r.Dir(), "file", text)
		end(t, r)
		if err := r.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(text string) {
		t.Helper()
		v, err := s.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if b, err := os.ReadFile(filepath.Join(v.Dir(), "file")); err != nil || string(b) != text {
			t.Fatalf("the agreed state holds %q, %v; want %q", b, err, text)
		}
	}
	good("one")
	was := s.Agreed()

	r := begin(t, s, 2)
	write(t, r.Dir(), "file", "lost")
	kill(t, s)
	select {
	case <-r.(*Run).Gone():
	default:
		t.Fatal("the run does not say that it is gone")
	}
	if _, _, err := r.End(t.Context()); !errors.Is(err, ErrGone) {
		t.Fatalf("End: %v", err)
	}
	if s.Down() == nil {
		t.Fatal("a new process was started before the run was decided")
	}
	if _, err := s.View(timeout(t, 50*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("View meanwhile: %v", err)
	}
	if err := r.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	shows("one")
	if s.Agreed() != was {
		t.Fatalf("agreed %s, want %s", s.Agreed(), was)
	}
	good("two")
	shows("two")

	// Between End and Commit.
	r = begin(t, s, 3)
	write(t, r.Dir(), "file", "three")
	v := end(t, r)
	v.Seq = 3
	kill(t, s)
	if err := r.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Agreed() != v {
		t.Fatalf("agreed %s, want %s", s.Agreed(), v)
	}
	shows("three")

	// Between End and Rollback.
	r = begin(t, s, 4)
	write(t, r.Dir(), "file", "four")
	end(t, r)
	kill(t, s)
	if err := r.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Rollback(t.Context()); !errors.Is(err, statefs.ErrFinished) {
		t.Fatalf("second Rollback: %v", err)
	}
	shows("three")

	// The result is lost with the process.
	r = begin(t, s, 4)
	write(t, r.Dir(), "file", "four")
	end(t, r)
	kill(t, s)
	write(t, filepath.Join(dir, "mnt/rw/state"), "file", "changed by somebody")
	objects, err := filepath.Glob(filepath.Join(dir, "store/objects/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if err := os.Remove(o); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Commit(t.Context()); !errors.Is(err, statefs.ErrChanged) {
		t.Fatalf("Commit of a lost result: %v", err)
	}
	shows("three")

	// Idle, and during a view.
	view, err := s.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kill(t, s)
	<-view.(*View).Gone()
	if err := view.Close(); err != nil {
		t.Fatal(err)
	}
	shows("three")
	if s.Restarts() != 5 {
		t.Errorf("%d restarts", s.Restarts())
	}
}

func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// While there is no process, calls fail with an error that says so; a process
// that does not come up at first is tried again.
func TestProcessStaysAway(t *testing.T) {
	c := newChild(t.TempDir())
	s, err := Open(t.Context(), Config{Connector: c, Patience: 30 * time.Millisecond, MinPause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	hold := make(chan struct{})
	c.mu.Lock()
	c.hold = hold
	c.mu.Unlock()
	kill(t, s)
	if _, err := s.Begin(t.Context(), 1); !errors.Is(err, ErrGone) {
		t.Fatalf("Begin: %v", err)
	}
	if _, err := s.Object(t.Context(), statefs.Ref{Kind: statefs.RefDir}); !errors.Is(err, ErrGone) {
		t.Fatalf("Object: %v", err)
	}
	if err := s.Down(); !errors.Is(err, ErrGone) {
		t.Fatalf("Down: %v", err)
	}
	close(hold)
	for until := time.Now().Add(10 * time.Second); s.Down() != nil && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	r := begin(t, s, 1)
	if err := r.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// fake is a State whose methods a test fills in.
type fake struct {
	setPatch func([]byte) (digest.Hash, error)
	mu       sync.Mutex
	agreed   statefs.Version
	begin    func(context.Context, uint64) (statefs.Run, error)
	object   func(context.Context, statefs.Ref) ([]byte, error)
	view     func(context.Context) (statefs.View, error)
	staging  statefs.Staging
	closed   int
}

func (f *fake) Agreed() statefs.Version {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.agreed
}
func (f *fake) SetPatch(_ context.Context, b []byte) (digest.Hash, error) { return f.setPatch(b) }
func (f *fake) Damaged() bool                                             { return false }
func (f *fake) Patch() []byte                                             { return nil }
func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return nil
}
func (f *fake) Begin(ctx context.Context, seq uint64) (statefs.Run, error) { return f.begin(ctx, seq) }
func (f *fake) Object(ctx context.Context, ref statefs.Ref) ([]byte, error) {
	return f.object(ctx, ref)
}
func (f *fake) View(ctx context.Context) (statefs.View, error)     { return f.view(ctx) }
func (f *fake) Stage(ctx context.Context) (statefs.Staging, error) { return f.staging, nil }

type fakeRun struct {
	mu         sync.Mutex
	root       digest.Hash
	committed  int
	rolledBack int
}

func (r *fakeRun) Dir() string { return "/somewhere" }
func (r *fakeRun) End(context.Context) (root, patch digest.Hash, err error) {
	return r.root, patch, nil
}
func (r *fakeRun) Commit(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.committed++
	return nil
}
func (r *fakeRun) Rollback(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rolledBack++
	return nil
}

func (r *fakeRun) counts() (committed, rolledBack int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.committed, r.rolledBack
}

type fakeView struct{ closed chan struct{} }

func (v fakeView) Dir() string              { return "/somewhere/else" }
func (v fakeView) Version() statefs.Version { return statefs.Version{Seq: 7} }
func (v fakeView) Close() error             { close(v.closed); return nil }

// service serves a state on a socket until the test ends.
func service(t testing.TB, f *fake, o Options) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(t.Context(), path, Access{Group: -1})
	if err != nil {
		t.Fatal(err)
	}
	if o.Open == nil {
		o.Open = Opened(f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func connect(t testing.TB, path string, confirmed *statefs.Version) *State {
	t.Helper()
	s, err := Open(context.Background(), Config{Connector: &Dialer{Path: path}, Confirmed: confirmed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestErrorsKeepTheirIdentity(t *testing.T) {
	var fails atomic.Pointer[error]
	f := &fake{object: func(context.Context, statefs.Ref) ([]byte, error) { return nil, *fails.Load() }}
	s := connect(t, service(t, f, Options{}), nil)
	for _, want := range append(append([]error(nil), identities...),
		unix.ENOSPC, unix.EIO, os.ErrNotExist, os.ErrPermission, &os.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}) {
		given := fmt.Errorf("in the middle: %w", want)
		fails.Store(&given)
		_, err := s.Object(t.Context(), statefs.Ref{})
		is := want
		if p := (*os.PathError)(nil); errors.As(want, &p) {
			is = p.Err
		}
		if want == os.ErrPermission {
			is = nil // no number, no sentinel of ours: its text is what is left
		}
		if is != nil && !errors.Is(err, is) || err == nil || err.Error() != "in the middle: "+want.Error() {
			t.Errorf("%v came back as %v", want, err)
		}
		for _, other := range identities {
			if other != is && errors.Is(err, other) != errors.Is(want, other) {
				t.Errorf("%v came back as %v", want, other)
			}
		}
	}
	var errno syscall.Errno
	given := error(unix.EXDEV)
	fails.Store(&given)
	if _, err := s.Object(t.Context(), statefs.Ref{}); !errors.As(err, &errno) || errno != unix.EXDEV {
		t.Errorf("the number of %v is %v", err, errno)
	}
}

func TestCancel(t *testing.T) {
	entered := make(chan struct{})
	f := &fake{begin: func(ctx context.Context, _ uint64) (statefs.Run, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	s := connect(t, service(t, f, Options{}), nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := s.Begin(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("Begin: %v", err)
	}
}

// Slow requests do not keep back others, and a run that begins although its
// caller has given up is not left open.
func TestManyInFlight(t *testing.T) {
	free := make(chan struct{})
	f := &fake{object: func(_ context.Context, ref statefs.Ref) ([]byte, error) {
		if ref.Index%2 == 0 {
			<-free
		}
		return bytes.Repeat([]byte{byte(ref.Index)}, int(ref.Index)*1000), nil
	}}
	s := connect(t, service(t, f, Options{}), nil)
	var slow, quick sync.WaitGroup
	for i := range uint32(100) {
		wg := &slow
		if i%2 == 1 {
			wg = &quick
		}
		wg.Go(func() {
			b, err := s.Object(t.Context(), statefs.Ref{Index: i})
			if err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, int(i)*1000)) {
				t.Errorf("object %d: %d bytes, %v", i, len(b), err)
			}
		})
	}
	quick.Wait()
	close(free)
	slow.Wait()
}

// What a node leaves open is put right when it goes away, and one node after the
// other is served.
func TestNodeGoesAway(t *testing.T) {
	run := &fakeRun{root: digest.Sum([]byte("result"))}
	view := fakeView{make(chan struct{})}
	f := &fake{
		begin: func(context.Context, uint64) (statefs.Run, error) { return run, nil },
		view:  func(context.Context) (statefs.View, error) { return view, nil },
	}
	path := service(t, f, Options{})
	away := func(s *State) {
		s.mu.Lock()
		l := s.link
		s.closed = true // so that it does not come back
		s.mu.Unlock()
		close(s.closing)
		<-s.over
		l.close(nil)
	}
	eventually := func(what string, cond func() bool) {
		t.Helper()
		for until := time.Now().Add(5 * time.Second); !cond(); time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal(what)
			}
		}
	}
	s := connect(t, path, nil)
	begin(t, s, 1)
	if v, err := s.View(t.Context()); err != nil || v.Dir() != "/somewhere/else" || v.Version().Seq != 7 {
		t.Fatal(v, err)
	}
	away(s)
	<-view.closed
	eventually("the open run was not rolled back", func() bool { _, r := run.counts(); return r == 1 })

	s = connect(t, path, nil)
	v := end(t, begin(t, s, 2))
	away(s)
	v.Seq = 2
	s = connect(t, path, &v)
	if c, r := run.counts(); c != 1 || r != 1 {
		t.Fatalf("committed %d, rolled back %d: the confirmed run was not committed", c, r)
	}
	end(t, begin(t, s, 3))
	away(s)
	s = connect(t, path, &v)
	if c, r := run.counts(); c != 1 || r != 2 {
		t.Fatalf("committed %d, rolled back %d: the run that nobody confirmed was not undone", c, r)
	}
	// The end of a node is not the end of the state.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	connect(t, path, nil)
	if f.closed != 0 {
		t.Fatal("the state was closed")
	}
}

func TestWhoMayConnect(t *testing.T) {
	path := service(t, &fake{}, Options{Allow: func(uint32) bool { return false }})
	if _, err := Open(t.Context(), Config{Connector: &Dialer{Path: path}}); !errors.Is(err, ErrRefused) {
		t.Errorf("a stranger: %v", err)
	}
	path = service(t, &fake{}, Options{Open: func(context.Context, Hello) (statefs.State, error) {
		return nil, fmt.Errorf("no FUSE: %w", ErrUnavailable)
	}})
	if _, err := Open(t.Context(), Config{Connector: &Dialer{Path: path}}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("what cannot be had: %v", err)
	}
	path = service(t, &fake{}, Options{})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fr := newFramer(c)
	h := Hello{}.encode()
	h[7]++
	if err := fr.write(1, uint8(opHello), nil, h); err != nil {
		t.Fatal(err)
	}
	answer, err := fr.read(nil)
	if err != nil || answer.kind != flagError || !bytes.Contains(answer.body, []byte("version 2")) {
		t.Errorf("another version: %q, %v", answer.body, err)
	}
	if _, err := Open(t.Context(), Config{Connector: &Dialer{Path: path + "x", Wait: time.Millisecond}, MinPause: 1, MaxPause: 1}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("nobody there: %v", err)
	}
}

// A service in real life: its socket, and a process that comes back by itself.
func TestService(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "s")
	start := func() (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		p := Process{Dir: dir, Open: openDir, Log: logger(t)}
		go func() { done <- p.RunService(ctx, path, Access{Group: -1}) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := start()
	s, err := Open(t.Context(), Config{Connector: &Dialer{Path: path}, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("socket: %v, %v", info.Mode(), err)
	}
	r := begin(t, s, 1)
	write(t, r.Dir(), "f", "1")
	end(t, r)
	stop()
	done := make(chan error)
	go func() { done <- r.Commit(t.Context()) }()
	defer start()()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s.Agreed().Seq != 1 {
		t.Fatalf("agreed %s", s.Agreed())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func newFile(fd int) *os.File { return os.NewFile(uintptr(fd), "socket") }

// What a child prints reaches the node's log with its level.
func TestLog(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var in bytes.Buffer
	ChildLog(&in).Warn("something", "n", 3, "err", errors.New("x y"))
	in.WriteString("panic: " + string(bytes.Repeat([]byte("z"), 2*maxLine)) + "\n\nlast line")
	passLog(&in, log)
	got := out.String()
	for _, want := range []string{`level=WARN msg=something err="x y" n=3`, `level=ERROR msg="the state's process says" text="panic: zzz`, `text="last line"`} {
		if !bytes.Contains([]byte(got), []byte(want)) {
			t.Errorf("the log lacks %q:\n%.300s", want, got)
		}
	}
	if len(got) > 2*maxLine {
		t.Errorf("%d bytes of log", len(got))
	}
}
