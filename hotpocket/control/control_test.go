package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"evernode/hotpocket/config"
)

type fixed struct {
	status Status
	err    error
}

func (f fixed) Status(context.Context) (Status, error) { return f.status, f.err }

// start serves node in dir and returns a function that stops it.
func start(t *testing.T, dir string, node Node) (stop func() error) {
	t.Helper()
	l, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx, node, slog.New(slog.DiscardHandler)) }()
	return func() error {
		cancel()
		return <-done
	}
}

func TestProgressForAPerson(t *testing.T) {
	for want, s := range map[string]Sync{
		"0 B fetched": {},
		"1.0 GB of 1.1 GB (95 %), 312 MB/s, 1s left, from 3 peers": {Here: 1020e6, Total: 1073e6, Rate: 312e6, Left: 1, Peers: 3},
		"999 B of 1.5 kB (66 %), from 1 peer":                      {Here: 999, Total: 1500, Peers: 1},
		"20 MB of 20 MB (100 %), putting it into place":            {Here: 20e6, Total: 20e6, Finishing: true, Peers: 2},
		"7.5 TB fetched, 95 kB/s":                                  {Done: 7500e9, Rate: 95e3},
	} {
		if got := s.Progress(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestStatusOverTheSocket(t *testing.T) {
	want := Status{
		PublicKey: "ed01", PID: 7, UserPort: 8081, PeerPort: 22861, LedgerSeqNo: 1 << 60, LedgerHash: "aa",
		VoteStatus: "synced", UNL: []string{"ed01"}, Peers: 3, Users: 2, Sync: &Sync{What: "state", Done: 1, Total: 2, Here: 1, Rate: 3, Left: 4, Peers: 5},
	}
	for name, dir := range map[string]string{
		"short path": t.TempDir(),
		"long path":  filepath.Join(t.TempDir(), strings.Repeat("long", 40)),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := Fetch(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
				t.Errorf("before the start: %v", err)
			}
			stop := start(t, dir, fixed{status: want})
			info, err := os.Stat(config.Layout(dir).ControlSocket())
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o600 {
				t.Errorf("the socket's mode is %v", info.Mode())
			}
			got, err := Fetch(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("status %+v, want %+v", got, want)
			}
			if err := stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 0 {
				t.Errorf("left behind: %v", entries)
			}
			if _, err := Fetch(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
				t.Errorf("after the stop: %v", err)
			}
		})
	}
}

// A node that was killed leaves its socket; the next one takes its place.
func TestSocketOfAKilledNodeIsReplaced(t *testing.T) {
	dir := t.TempDir()
	dead, err := net.Listen("unix", config.Layout(dir).ControlSocket())
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	if _, err := Fetch(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a dead socket: %v", err)
	}
	stop := start(t, dir, fixed{})
	if _, err := Fetch(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestNodeThatCannotAnswer(t *testing.T) {
	dir := t.TempDir()
	stop := start(t, dir, fixed{err: errors.New("disk on fire")})
	if _, err := Fetch(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("error %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestListenErrors(t *testing.T) {
	if _, err := Listen(t.Context(), filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a socket in a folder that is not there")
	}
	// Something that is not a socket stands in the way and cannot be removed.
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(config.Layout(dir).ControlSocket(), "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "control socket") {
		t.Errorf("error %v", err)
	}
}
