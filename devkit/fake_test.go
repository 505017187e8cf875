package devkit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/key"
)

// The tests here are about what the developer's cluster does with folders and
// processes. So that they do not depend on the node, the test binary plays it:
// a real process that locks its folder and answers on its control socket.
// Files in the state folder make it misbehave.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "fake-node" {
		if err := fakeNode(os.Args[2]); err != nil {
			fmt.Println("fake node:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type fakeStatus struct{ cfg *config.Config }

func (f fakeStatus) Status(context.Context) (control.Status, error) {
	return control.Status{
		PublicKey: f.cfg.Node.PublicKey.String(),
		// The same on all nodes, as they agree.
		LedgerSeqNo: uint64(time.Now().UnixMilli() / 200),
		LedgerHash:  "aabbccddeeff",
		StateHash:   "112233445566",
		PatchHash:   "99",
		VoteStatus:  "synced",
		Peers:       len(f.cfg.Mesh.KnownPeers),
		Users:       1,
	}, nil
}

func fakeNode(dir string) error {
	lock, err := config.Acquire(dir)
	if err != nil {
		return err
	}
	defer lock.Release()
	cfg, err := config.Load(dir)
	if err != nil {
		return err
	}
	state := config.Layout(dir).SeedState()
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(state, name))
		return err == nil
	}
	if has("crash") {
		return errors.New("this contract is not to my taste")
	}
	fmt.Println("fake node runs in", dir)
	if has("orphan") {
		// A contract that outlives its node.
		child := exec.Command("sleep", "300")
		child.Dir = state
		child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := child.Start(); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "orphan.pid"), fmt.Append(nil, child.Process.Pid), 0o600); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return control.Serve(ctx, dir, fakeStatus{cfg}, slog.New(slog.DiscardHandler))
}

// recorder is a Reporter that remembers.
type recorder struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *recorder) Step(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(&r.text, text)
}

func (r *recorder) Wait(string) {}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func fakeEnv(t *testing.T) (Env, *recorder) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	return Env{Node: []string{self, "fake-node"}, Report: r}, r
}

// portsFrom is the next port that freeBase looks at. All are below those that the
// kernel gives to outgoing connections, which come and go while a test runs.
var portsFrom atomic.Int32

// freeBase finds a port from which on n ports are free, apart from those that
// it has found before.
func freeBase(t *testing.T, n int) int {
	t.Helper()
	const first, last = 26000, 32000
	for range (last - first) / n {
		base := first + int(portsFrom.Add(int32(n))-int32(n))%(last-first-n)
		free := true
		for p := base; p < base+n && free; p++ {
			l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", p))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// testBundle makes a contract folder out of files, given by name and content.
func testBundle(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// privateForTest is some node's key.
func privateForTest(t *testing.T) key.Private {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testOptions are three nodes on free ports.
func testOptions(t *testing.T) DeployOptions {
	base := freeBase(t, 12)
	return DeployOptions{Nodes: 3, UserPort: base, PeerPort: base + 6, Roundtime: 100 * time.Millisecond}
}

// testDeploy deploys a bundle on a new cluster that is removed with the test.
func testDeploy(t *testing.T, bundle string) (*Cluster, *recorder) {
	t.Helper()
	env, r := fakeEnv(t)
	c, err := Deploy(t.Context(), filepath.Join(t.TempDir(), "work"), bundle, testOptions(t), env)
	if c != nil {
		t.Cleanup(func() {
			if err := c.Clean(context.Background()); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("clean: %v", err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, r
}
