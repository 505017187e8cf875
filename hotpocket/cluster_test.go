package hotpocket

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/key"
)

// cluster is a few nodes in one process, on real ports with real disks and
// contract processes.
type cluster struct {
	t     *testing.T
	nodes []*member
	tune  tuning
}

type member struct {
	c    *cluster
	dir  string
	conf *config.Config
	stop context.CancelFunc
	done chan error
	log  *lines
	// metrics is where the node serves its counters, if anywhere.
	metrics string
}

// ports hands out each port once, below those that the kernel gives to outgoing
// connections, so that nothing takes one before its node does.
var ports = struct {
	sync.Mutex
	next int
}{next: 10000 + os.Getpid()%900*10}

func freePort(t *testing.T) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 10000 {
		port := ports.next
		if ports.next++; ports.next >= 20000 {
			ports.next = 10000
		}
		ln, err := net.Listen("tcp", net.JoinHostPort("", itoa(port)))
		if err != nil {
			continue
		}
		ln.Close()
		return port
	}
	t.Fatal("no port is free")
	return 0
}

// newCluster makes n nodes that execute the program in bin, and starts them.
func newCluster(t *testing.T, n int, bin string, change func(*config.Config)) *cluster {
	t.Helper()
	c := makeCluster(t, n, n, bin, func(_ int, conf *config.Config) {
		if change != nil {
			change(conf)
		}
	})
	for _, m := range c.nodes {
		m.start()
	}
	return c
}

// makeCluster makes n nodes of which the first are members, and does not start
// them.
func makeCluster(t *testing.T, n, members int, bin string, change func(i int, conf *config.Config)) *cluster {
	t.Helper()
	c := &cluster{t: t}
	base := t.TempDir()
	var unl []key.Public
	var peers []string
	for i := range n {
		dir := filepath.Join(base, string(rune('a'+i)))
		conf, err := config.Create(dir, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		conf.Mesh.Port, conf.User.Port = freePort(t), freePort(t)
		if i < members {
			unl = append(unl, conf.Node.PublicKey)
		}
		peers = append(peers, net.JoinHostPort("127.0.0.1", itoa(conf.Mesh.Port)))
		c.nodes = append(c.nodes, &member{c: c, dir: dir, conf: conf})
	}
	slices.SortFunc(unl, key.Public.Compare)
	for i, m := range c.nodes {
		m.conf.Contract.ID = c.nodes[0].conf.Contract.ID
		m.conf.Contract.UNL = unl
		m.conf.Mesh.KnownPeers = peers
		m.conf.Contract.BinPath = "./contract"
		m.conf.Contract.Consensus.Roundtime = 500 * time.Millisecond
		change(i, m.conf)
		if err := m.conf.Save(m.dir); err != nil {
			t.Fatal(err)
		}
		state := config.Layout(m.dir).SeedState()
		if err := os.MkdirAll(state, 0o755); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(bin)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(state, "contract"), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, m := range c.nodes {
			m.kill()
		}
	})
	return c
}

func itoa(n int) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

// lines passes a node's log to the test's.
type lines struct {
	mu   sync.Mutex
	t    *testing.T
	is   bool
	text strings.Builder
}

// has reports whether the node has logged a text.
func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	if l.is {
		l.t.Log(strings.TrimRight(string(b), "\n"))
	}
	return len(b), nil
}

func (m *member) start() {
	ctx, stop := context.WithCancel(context.Background())
	m.stop, m.done = stop, make(chan error, 1)
	w := &lines{t: m.c.t, is: true}
	m.log = w
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", filepath.Base(m.dir))
	go func() {
		err := Run(ctx, m.dir, Options{Version: "test", Log: log, Metrics: m.metrics, tune: m.c.tune})
		w.mu.Lock()
		w.is = false
		w.mu.Unlock()
		m.done <- err
	}()
}

// kill ends a node and waits for it.
func (m *member) kill() {
	if m.stop == nil {
		return
	}
	m.stop()
	if err := <-m.done; err != nil {
		m.c.t.Errorf("node %s: %v", filepath.Base(m.dir), err)
	}
	m.stop = nil
}

func (m *member) status() (control.Status, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := control.Fetch(ctx, m.dir)
	return s, err == nil
}

// eventually waits until every node of the list satisfies cond.
func (c *cluster) eventually(what string, cond func([]control.Status) bool, of ...*member) []control.Status {
	c.t.Helper()
	var all []control.Status
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		all = all[:0]
		for _, m := range of {
			if s, ok := m.status(); ok {
				all = append(all, s)
			}
		}
		if len(all) == len(of) && cond(all) {
			return all
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Fatalf("%s: not within 30 s; last seen %+v", what, all)
	return nil
}

// build compiles one of the example contracts in C, or skips the test.
func build(t *testing.T, source string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "contract")
	b, err := exec.Command("cc", "-O2", "-static", "-o", out, source).CombinedOutput()
	if _, missing := exec.LookPath("cc"); missing != nil {
		t.Skip("no C compiler")
	}
	if err != nil {
		t.Fatalf("cc: %v\n%s", err, b)
	}
	return out
}

// inStep waits until the given nodes are synced, agree on the state and have
// reached a ledger.
func (c *cluster) inStep(what string, seq uint64, of ...*member) uint64 {
	c.t.Helper()
	all := c.eventually(what, func(all []control.Status) bool {
		for _, s := range all {
			if s.LedgerSeqNo < seq || s.StateHash != all[0].StateHash || s.VoteStatus != voteSynced {
				return false
			}
		}
		return true
	}, of...)
	return all[0].LedgerSeqNo
}

func TestClusterGoesOnThroughRestarts(t *testing.T) {
	c := newCluster(t, 4, build(t, "../examples/echo-c/echo.c"), nil)
	c.inStep("ledgers close", 3, c.nodes...)

	c.nodes[3].kill()
	at := c.inStep("three of four go on", 6, c.nodes[:3]...)
	c.nodes[3].start()
	at = c.inStep("the fourth is back", at+2, c.nodes...)

	for _, m := range c.nodes {
		m.kill()
	}
	for _, m := range c.nodes {
		m.start()
	}
	c.inStep("all are back after all were gone", at+2, c.nodes...)

	c.nodes[0].kill()
	c.nodes[1].kill()
	c.nodes[1].start()
	c.inStep("a restarted node makes up for a dead one", at+4, c.nodes[1:]...)
}
