package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/hotpocket/key"
)

const patience = 20 * time.Second

// event is something that a node's handler was told.
type event struct {
	what    string // "up", "down", "got"
	peer    key.Public
	kind    Kind
	payload string
}

// node is a mesh with a handler that records.
type node struct {
	t      testing.TB
	mesh   *Mesh
	key    key.Public
	addr   string
	logs   *logBuffer
	cancel context.CancelFunc
	ended  chan struct{}

	judge func(kind Kind, payload []byte) Verdict
	serve func(ctx context.Context, from key.Public, kind Kind, payload []byte) ([]byte, error)
	hold  chan struct{} // Receive waits for it to be closed, if set

	mu     sync.Mutex
	events []event
	moved  chan struct{} // closed and replaced at every event
}

func (n *node) note(e event) {
	n.mu.Lock()
	// What Handler promises holds in every test.
	up := count(n.events, "up", e.peer) > count(n.events, "down", e.peer)
	if want := e.what != "up"; up != want {
		n.t.Errorf("node %s: %q of %s while up is %v", n.key.Short(), e.what, e.peer.Short(), up)
	}
	n.events = append(n.events, e)
	close(n.moved)
	n.moved = make(chan struct{})
	n.mu.Unlock()
}

func (n *node) Receive(from key.Public, kind Kind, payload []byte) Verdict {
	if n.hold != nil {
		<-n.hold
	}
	n.note(event{"got", from, kind, string(payload)})
	if n.judge != nil {
		return n.judge(kind, payload)
	}
	return Accept
}

func (n *node) Serve(ctx context.Context, from key.Public, kind Kind, payload []byte) ([]byte, error) {
	if n.serve == nil {
		return append([]byte("echo "), payload...), nil
	}
	return n.serve(ctx, from, kind, payload)
}

func (n *node) PeerUp(k key.Public)   { n.note(event{what: "up", peer: k}) }
func (n *node) PeerDown(k key.Public) { n.note(event{what: "down", peer: k}) }

// until waits for events until ok likes them.
func (n *node) until(what string, ok func([]event) bool) {
	n.t.Helper()
	deadline := time.After(patience)
	for {
		n.mu.Lock()
		good, moved := ok(n.events), n.moved
		n.mu.Unlock()
		if good {
			return
		}
		select {
		case <-moved:
		case <-deadline:
			n.mu.Lock()
			defer n.mu.Unlock()
			n.t.Fatalf("node %s: no %s; events %v\n%s", n.key.Short(), what, n.events, n.logs)
		}
	}
}

func count(events []event, what string, peer key.Public) int {
	c := 0
	for _, e := range events {
		if e.what == what && (peer == key.Public{} || e.peer == peer) {
			c++
		}
	}
	return c
}

// connected waits until each of the peers is up.
func (n *node) connected(peers ...*node) {
	n.t.Helper()
	n.until("connection", func(events []event) bool {
		for _, p := range peers {
			if count(events, "up", p.key) <= count(events, "down", p.key) {
				return false
			}
		}
		return true
	})
}

func (n *node) messages() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for _, e := range n.events {
		if e.what == "got" {
			list = append(list, e.payload)
		}
	}
	return list
}

// got waits for a message.
func (n *node) got(payload string) {
	n.t.Helper()
	n.until("message "+payload, func(events []event) bool {
		for _, e := range events {
			if e.what == "got" && e.payload == payload {
				return true
			}
		}
		return false
	})
}

// gotSoon is got for messages that may be lost: it only waits a second.
func (n *node) gotSoon(payload string) bool {
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if slices.Contains(n.messages(), payload) {
			return true
		}
	}
	return false
}

// logged waits for a text in the log.
func (n *node) logged(text string) {
	n.t.Helper()
	poll(n.t, "log line with "+text, func() bool { return strings.Contains(n.logs.String(), text) })
}

func (n *node) stop() {
	n.cancel()
	select {
	case <-n.ended:
	case <-time.After(patience):
		buf := make([]byte, 1<<20)
		n.t.Fatalf("Run does not end\n%s", buf[:runtime.Stack(buf, true)])
	}
}

// poll is for conditions that nothing announces.
func poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("no %s", what)
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func testKey(t testing.TB, i int) key.Private {
	t.Helper()
	k, err := key.FromSeed(bytes.Repeat([]byte{byte(i)}, key.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	var l net.Listener
	var err error
	poll(t, "listener", func() bool { l, err = net.Listen("tcp", address); return err == nil })
	return l
}

// fast are intervals for tests.
func fast() Timing {
	return Timing{RedialMin: 5 * time.Millisecond, RedialMax: 100 * time.Millisecond, Announce: time.Millisecond}
}

// start runs a node with the key of number i; change may edit it and its
// configuration first.
func start(t testing.TB, i int, change func(*node, *Config)) *node {
	t.Helper()
	n := &node{t: t, logs: &logBuffer{}, ended: make(chan struct{}), moved: make(chan struct{})}
	c := Config{Key: testKey(t, i), ContractID: "test", Forward: true, Timing: fast()}
	c.Listener = listen(t, "127.0.0.1:0")
	n.addr = c.Listener.Addr().String()
	if change != nil {
		change(n, &c)
	}
	n.key = c.Key.Public()
	if c.Listener != nil {
		n.addr = c.Listener.Addr().String()
	}
	m, err := New(c, n, slog.New(slog.NewTextHandler(n.logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	n.mesh = m
	ctx, cancel := context.WithCancel(t.Context())
	n.cancel = cancel
	go func() {
		defer close(n.ended)
		if err := m.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(n.stop)
	return n
}

// knowing configures peers.
func knowing(peers ...*node) func(*node, *Config) {
	return func(_ *node, c *Config) {
		for _, p := range peers {
			c.KnownPeers = append(c.KnownPeers, p.addr)
		}
	}
}

func TestFullMeshBroadcastSendRequest(t *testing.T) {
	var nodes []*node
	for i := range 4 {
		nodes = append(nodes, start(t, i+1, knowing(nodes...)))
	}
	for _, n := range nodes {
		for _, o := range nodes {
			if o != n {
				n.connected(o)
			}
		}
	}
	for i, n := range nodes {
		n.mesh.Broadcast(7, fmt.Appendf(nil, "from %d", i), ScopeAll)
	}
	for i, n := range nodes {
		for j := range nodes {
			if j != i {
				n.got(fmt.Sprintf("from %d", j))
			}
		}
		if got := len(n.messages()); got != 3 {
			t.Errorf("node %d has %d messages, want 3", i, got)
		}
	}
	for i, n := range nodes {
		for j, o := range nodes {
			if i == j {
				continue
			}
			if err := n.mesh.Send(o.key, 9, fmt.Appendf(nil, "%d to %d", i, j)); err != nil {
				t.Fatal(err)
			}
			answer, err := n.mesh.Request(t.Context(), o.key, 3, fmt.Appendf(nil, "%d?", i))
			if err != nil || string(answer) != fmt.Sprintf("echo %d?", i) {
				t.Fatalf("request %d to %d: %q, %v", i, j, answer, err)
			}
			o.got(fmt.Sprintf("%d to %d", i, j))
		}
	}
	if p := nodes[0].mesh.Peers(); len(p) != 3 || p[0].Key.Compare(p[1].Key) >= 0 {
		t.Errorf("peers %v", p)
	}
}

func TestSendErrors(t *testing.T) {
	a := start(t, 1, func(_ *node, c *Config) { c.MaxMessage = 1000 })
	b := start(t, 2, func(n *node, c *Config) { knowing(a)(n, c); c.MaxMessage = 2000 })
	a.connected(b)
	b.connected(a)
	if err := a.mesh.Send(testKey(t, 9).Public(), 1, nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("send to a stranger: %v", err)
	}
	if _, err := a.mesh.Request(t.Context(), testKey(t, 9).Public(), 1, nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("request to a stranger: %v", err)
	}
	// b may send 2000 bytes, but a takes only 1000.
	if err := b.mesh.Send(a.key, 1, make([]byte, 1001)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("send too much: %v", err)
	}
	if err := b.mesh.Send(a.key, 1, bytes.Repeat([]byte{'x'}, 1000)); err != nil {
		t.Error(err)
	}
	a.got(strings.Repeat("x", 1000))
	a.mesh.Broadcast(1, make([]byte, 1001), ScopeAll)
	a.logged("too large for peers")
}

// ring starts n nodes, each connected to the next.
func ring(t testing.TB, n int, change func(*node, *Config)) []*node {
	t.Helper()
	listeners := make([]net.Listener, n)
	for i := range n {
		listeners[i] = listen(t, "127.0.0.1:0")
	}
	nodes := make([]*node, n)
	for i := range n {
		nodes[i] = start(t, i+1, func(node *node, c *Config) {
			c.Listener.Close()
			c.Listener = listeners[i]
			c.KnownPeers = []string{listeners[(i+1)%n].Addr().String()}
			if change != nil {
				change(node, c)
			}
		})
	}
	for i := range n {
		nodes[i].connected(nodes[(i+1)%n], nodes[(i+n-1)%n])
	}
	for i := range n {
		poll(t, "lists of neighbours", func() bool {
			for _, s := range *nodes[i].mesh.sessions.Load() {
				if near := s.neighbours.Load(); near == nil || len(*near) != min(2, n-1) {
					return false
				}
			}
			return true
		})
	}
	return nodes
}

func TestFloodInARingReachesAllOnce(t *testing.T) {
	nodes := ring(t, 6, nil)
	for i, n := range nodes {
		n.mesh.Flood(n.key, 5, fmt.Appendf(nil, "flood %d", i), ScopeAll)
		n.mesh.Flood(n.key, 5, fmt.Appendf(nil, "flood %d", i), ScopeAll) // has no effect
	}
	for i, n := range nodes {
		for j := range nodes {
			if i != j {
				n.got(fmt.Sprintf("flood %d", j))
			}
		}
	}
	// Whatever was still under way has arrived when an answer came from
	// everywhere after it.
	for i, n := range nodes {
		n.mesh.Flood(n.key, 5, fmt.Appendf(nil, "end %d", i), ScopeAll)
	}
	for i, n := range nodes {
		for j := range nodes {
			if i != j {
				n.got(fmt.Sprintf("end %d", j))
			}
		}
		seen := map[string]int{}
		for _, m := range n.messages() {
			if seen[m]++; seen[m] > 1 {
				t.Errorf("node %d got %q twice", i, m)
			}
		}
	}
}

func TestFloodIsNotForwardedWhenBadOrForbidden(t *testing.T) {
	nodes := ring(t, 4, func(n *node, c *Config) {
		n.judge = func(kind Kind, _ []byte) Verdict { return Verdict(kind) }
	})
	a, b, c, d := nodes[0], nodes[1], nodes[2], nodes[3]
	for v := Accept; v <= BadSignature; v++ {
		a.mesh.Flood(a.key, Kind(v), fmt.Appendf(nil, "verdict %d", v), ScopeAll)
	}
	b.got("verdict 3")
	d.got("verdict 3")
	c.got("verdict 0")
	// Order is kept on every path, so c would have got the others by now.
	b.mesh.Broadcast(Kind(Accept), []byte("end"), ScopeAll)
	d.mesh.Broadcast(Kind(Accept), []byte("end of d"), ScopeAll)
	c.got("end")
	c.got("end of d")
	for _, m := range c.messages() {
		if strings.HasPrefix(m, "verdict") && m != "verdict 0" {
			t.Errorf("c got %q, which b and d did not accept", m)
		}
	}
}

func TestForwardingOff(t *testing.T) {
	b := start(t, 2, func(_ *node, c *Config) { c.Forward = false })
	a, c := start(t, 1, knowing(b)), start(t, 3, knowing(b))
	b.connected(a, c)
	a.connected(b)
	a.mesh.Flood(a.key, 1, []byte("hello"), ScopeAll)
	b.got("hello")
	b.mesh.Broadcast(1, []byte("end"), ScopeAll)
	c.got("end")
	if got := c.messages(); len(got) != 1 {
		t.Errorf("c got %v", got)
	}
}

func TestScopeUNL(t *testing.T) {
	unl := []key.Public{testKey(t, 1).Public(), testKey(t, 2).Public(), testKey(t, 4).Public()}
	with := func(peers ...*node) func(*node, *Config) {
		return func(n *node, c *Config) { knowing(peers...)(n, c); c.UNL = unl }
	}
	a := start(t, 1, with())
	b := start(t, 2, with(a))
	stranger := start(t, 3, with(a, b))
	d := start(t, 4, with(b)) // gets a's messages only through b
	a.connected(b, stranger)
	b.connected(a, stranger, d)
	a.mesh.Flood(a.key, 1, []byte("secret"), ScopeUNL)
	a.mesh.Broadcast(1, []byte("members"), ScopeUNL)
	a.mesh.Broadcast(1, []byte("all"), ScopeAll)
	b.mesh.Broadcast(1, []byte("all of b"), ScopeAll)
	b.got("members")
	d.got("secret")
	stranger.got("all")
	stranger.got("all of b")
	if got := stranger.messages(); len(got) != 2 {
		t.Errorf("a stranger got %v", got)
	}
	if !a.mesh.WeaklyConnected() { // itself and b: 2 of 3 is below 70 %
		t.Error("2 of 3 must count as weakly connected")
	}
	if b.mesh.WeaklyConnected() {
		t.Error("3 of 3 must not count as weakly connected")
	}
}

func TestContractMismatch(t *testing.T) {
	a := start(t, 1, nil)
	b := start(t, 2, func(n *node, c *Config) { knowing(a)(n, c); c.ContractID = "another" })
	b.logged("belongs to another contract id")
	b.mesh.mu.Lock()
	off := b.mesh.book.entries[a.addr].off
	b.mesh.mu.Unlock()
	if off == "" {
		t.Error("the address is still dialed")
	}
	if len(a.mesh.Peers())+len(b.mesh.Peers()) != 0 {
		t.Error("connected")
	}
	if err := b.mesh.ChangePeers([]string{a.addr}, nil, false); err != nil {
		t.Fatal(err)
	}
	poll(t, "second attempt", func() bool { return strings.Count(b.logs.String(), "belongs to another contract id") == 2 })
}

func TestOwnAddressAndTwin(t *testing.T) {
	own := listen(t, "127.0.0.1:0")
	a := start(t, 1, func(_ *node, c *Config) {
		c.Listener.Close()
		c.Listener = own
		c.KnownPeers = []string{own.Addr().String()}
	})
	a.logged("this node itself")
	if k := a.mesh.KnownPeers(); len(k) != 0 {
		t.Errorf("known peers %v", k)
	}
	twin := start(t, 1, knowing(a))
	twin.logged("another running node uses this node's key")
}

func TestTwoAddressesOfOnePeerAreMerged(t *testing.T) {
	a := start(t, 1, nil)
	_, port, _ := net.SplitHostPort(a.addr)
	b := start(t, 2, func(_ *node, c *Config) {
		c.KnownPeers = []string{a.addr, "localhost:" + port}
	})
	b.connected(a)
	poll(t, "both addresses known", func() bool {
		b.mesh.mu.Lock()
		defer b.mesh.mu.Unlock()
		for _, e := range b.mesh.book.entries {
			if !e.known || e.dialing {
				return false
			}
		}
		return true
	})
	if n := len(a.mesh.Peers()); n != 1 {
		t.Errorf("%d peers, want 1", n)
	}
}

func TestMutualDialsSettleOnOneSession(t *testing.T) {
	for range 10 {
		la, lb := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
		with := func(own, other net.Listener) func(*node, *Config) {
			return func(_ *node, c *Config) {
				c.Listener.Close()
				c.Listener = own
				c.KnownPeers = []string{other.Addr().String()}
			}
		}
		a := start(t, 1, with(la, lb))
		b := start(t, 2, with(lb, la))
		a.connected(b)
		b.connected(a)
		if err := a.mesh.Send(b.key, 1, []byte("one")); err != nil {
			t.Fatal(err)
		}
		if err := b.mesh.Send(a.key, 1, []byte("two")); err != nil {
			t.Fatal(err)
		}
		a.got("two")
		b.got("one")
		for _, n := range []*node{a, b} {
			n.mu.Lock()
			if c := count(n.events, "up", key.Public{}); c != 1 {
				t.Errorf("%d sessions, want 1: %s", c, n.logs)
			}
			n.mu.Unlock()
		}
		a.stop()
		b.stop()
	}
}

func TestKilledPeerIsBack(t *testing.T) {
	a := start(t, 1, nil)
	b := start(t, 2, knowing(a))
	a.connected(b)
	b.connected(a)
	addr := a.addr
	a.stop()
	b.until("loss", func(e []event) bool { return count(e, "down", a.key) == 1 })
	b.logged("this node stops")
	again := start(t, 1, func(_ *node, c *Config) {
		c.Listener.Close()
		c.Listener = listen(t, addr)
	})
	b.until("return", func(e []event) bool { return count(e, "up", a.key) == 2 })
	again.connected(b)
	if _, err := b.mesh.Request(t.Context(), a.key, 1, []byte("x")); err != nil {
		t.Error(err)
	}
}

// A peer whose connection is cut without a word is replaced when it returns
// with a new process, even before silence gives it away.
func TestRestartReplacesStaleSession(t *testing.T) {
	a := start(t, 1, nil)
	b := start(t, 2, knowing(a))
	a.connected(b)
	b.connected(a)
	// A second process with b's key dials a, which still has the old session.
	c := start(t, 2, knowing(a))
	c.connected(a)
	a.until("replacement", func(e []event) bool { return count(e, "up", b.key) >= 2 && count(e, "down", b.key) >= 1 })
	a.logged("took its place")
	c.mesh.Broadcast(1, []byte("from the new one"), ScopeAll)
	a.got("from the new one")
}

func TestSlowPeerIsDropped(t *testing.T) {
	hold := make(chan struct{})
	slow := start(t, 1, func(n *node, c *Config) { n.hold = hold })
	a := start(t, 2, func(n *node, c *Config) {
		knowing(slow)(n, c)
		c.MaxMessage, c.QueueBytes = 64<<10, 256<<10
	})
	a.connected(slow)
	slow.connected(a)
	payload := make([]byte, 32<<10)
	for len(a.mesh.Peers()) == 1 {
		start := time.Now()
		a.mesh.Broadcast(1, payload, ScopeAll)
		if d := time.Since(start); d > 5*time.Second {
			t.Fatalf("broadcast blocked for %s", d)
		}
	}
	a.logged("does not keep up")
	close(hold)
	// It comes back by itself.
	a.until("return", func(e []event) bool { return count(e, "up", slow.key) >= 2 })
}

func TestSilentPeerIsDropped(t *testing.T) {
	a := start(t, 1, func(_ *node, c *Config) {
		c.Timing.PingEvery, c.Timing.DeadAfter = 20*time.Millisecond, 200*time.Millisecond
	})
	// A relay that stops carrying anything stands for a dead network.
	relay := listen(t, "127.0.0.1:0")
	defer relay.Close()
	frozen := make(chan struct{})
	go func() {
		for {
			in, err := relay.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", a.addr)
			if err != nil {
				in.Close()
				return
			}
			for _, p := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					defer p[1].Close()
					buf := make([]byte, 4096)
					for {
						n, err := p[0].Read(buf)
						if err != nil {
							return
						}
						select {
						case <-frozen:
							<-t.Context().Done()
							return
						default:
						}
						p[1].Write(buf[:n])
					}
				}()
			}
		}
	}()
	b := start(t, 2, func(_ *node, c *Config) { c.KnownPeers = []string{relay.Addr().String()} })
	a.connected(b)
	b.connected(a)
	poll(t, "round trip time", func() bool { return a.mesh.Peers()[0].RTT > 0 })
	if skew := a.mesh.Peers()[0].Skew.Abs(); skew > time.Second {
		t.Errorf("skew of one clock against itself is %s", skew)
	}
	close(frozen)
	a.until("loss", func(e []event) bool { return count(e, "down", b.key) == 1 })
	a.logged("nothing heard from it")
}

func TestBusyHandlerIsNotSilence(t *testing.T) {
	hold := make(chan struct{})
	quick := func(_ *node, c *Config) {
		c.Timing.PingEvery, c.Timing.DeadAfter = 10*time.Millisecond, 50*time.Millisecond
	}
	a := start(t, 1, func(n *node, c *Config) { quick(n, c); n.hold = hold })
	b := start(t, 2, func(n *node, c *Config) { quick(n, c); knowing(a)(n, c) })
	a.connected(b)
	b.connected(a)
	b.mesh.Broadcast(1, []byte("think about it"), ScopeAll)
	poll(t, "handling", func() bool { return (*a.mesh.sessions.Load())[0].handling.Load() })
	time.Sleep(200 * time.Millisecond) // several times DeadAfter
	close(hold)
	a.got("think about it")
	for _, n := range []*node{a, b} {
		n.mu.Lock()
		if count(n.events, "down", key.Public{}) > 0 {
			t.Errorf("dropped: %s", n.logs)
		}
		n.mu.Unlock()
	}
}

func TestMessageLimits(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit func(*Config)
		judge Verdict
		abuse func(*node)
	}{
		{"max_bytes_per_min", func(c *Config) { c.MaxBytesPerMin = 10000 }, Accept, func(b *node) {
			b.mesh.Broadcast(1, make([]byte, 10000), ScopeAll)
		}},
		{"max_bad_msgs_per_min", func(c *Config) { c.MaxBadPerMin = 2 }, BadMessage, func(b *node) {
			for range 3 {
				b.mesh.Broadcast(1, []byte("bad"), ScopeAll)
			}
		}},
		{"max_bad_msgsigs_per_min", func(c *Config) { c.MaxBadSigsPerMin = 2 }, BadSignature, func(b *node) {
			for i := range 3 {
				b.mesh.Flood(b.key, 1, fmt.Appendf(nil, "bad %d", i), ScopeAll)
			}
		}},
		{"max_dup_msgs_per_min", func(c *Config) { c.MaxDupPerMin = 2 }, Accept, func(b *node) {
			frame := floodFrame(1, ScopeAll, b.key, []byte("again"))
			for range 4 {
				(*b.mesh.sessions.Load())[0].send(frame, 0)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := start(t, 1, func(n *node, cfg *Config) {
				c.limit(cfg)
				cfg.Timing.Penalty = 200 * time.Millisecond
				n.judge = func(Kind, []byte) Verdict { return c.judge }
			})
			b := start(t, 2, func(n *node, cfg *Config) {
				knowing(a)(n, cfg)
				cfg.Timing.Penalty = 200 * time.Millisecond // also how long it heeds a reproach
			})
			a.connected(b)
			b.connected(a)
			c.abuse(b)
			a.until("end", func(e []event) bool { return count(e, "down", b.key) == 1 })
			a.logged("more than mesh." + c.name)
			b.logged("more than mesh." + c.name)
			a.until("return after the penalty", func(e []event) bool { return count(e, "up", b.key) == 2 })
		})
	}
}

func TestReportBad(t *testing.T) {
	a := start(t, 1, func(n *node, c *Config) { c.MaxBadSigsPerMin = 1; c.Timing.Penalty = time.Hour })
	b := start(t, 2, knowing(a))
	a.connected(b)
	a.mesh.ReportBad(b.key, BadSignature)
	a.mesh.ReportBad(b.key, BadMessage)
	if len(a.mesh.Peers()) != 1 {
		t.Fatal("dropped within the limit")
	}
	a.mesh.ReportBad(b.key, BadSignature)
	a.until("end", func(e []event) bool { return count(e, "down", b.key) == 1 })
}

func TestConnectionLimits(t *testing.T) {
	t.Run("per host", func(t *testing.T) {
		a := start(t, 1, func(_ *node, c *Config) { c.MaxInPerHost = 1 })
		b := start(t, 2, knowing(a))
		a.connected(b)
		start(t, 3, knowing(a))
		a.logged("max_in_connections_per_host")
		if n := len(a.mesh.Peers()); n != 1 {
			t.Errorf("%d peers", n)
		}
	})
	t.Run("a UNL member displaces a stranger", func(t *testing.T) {
		a := start(t, 1, func(_ *node, c *Config) {
			c.MaxConnections = 1
			c.UNL = []key.Public{c.Key.Public(), testKey(t, 3).Public()}
		})
		b := start(t, 2, knowing(a))
		a.connected(b)
		member := start(t, 3, knowing(a))
		a.connected(member)
		a.until("displacement", func(e []event) bool { return count(e, "down", b.key) == 1 })
		a.logged("mesh.max_connections")
		if p := a.mesh.Peers(); len(p) != 1 || p[0].Key != member.key || !p[0].InUNL {
			t.Errorf("peers %v", p)
		}
	})
	t.Run("dialed", func(t *testing.T) {
		b, c := start(t, 2, nil), start(t, 3, nil)
		a := start(t, 1, func(n *node, cfg *Config) { knowing(b, c)(n, cfg); cfg.MaxKnownConnections = 1 })
		poll(t, "a connection", func() bool { return len(a.mesh.Peers()) == 1 })
		a.mesh.mu.Lock()
		room := a.mesh.room()
		a.mesh.mu.Unlock()
		if room != 0 {
			t.Errorf("room for %d more", room)
		}
	})
}

func TestDiscoveryFromOneAddress(t *testing.T) {
	with := func(peers ...*node) func(*node, *Config) {
		return func(n *node, c *Config) {
			knowing(peers...)(n, c)
			c.Discovery, c.DiscoveryEvery = true, 20*time.Millisecond
		}
	}
	first := start(t, 1, with())
	nodes := []*node{first}
	for i := range 4 {
		nodes = append(nodes, start(t, i+2, with(first)))
	}
	for _, n := range nodes {
		for _, o := range nodes {
			if o != n {
				n.connected(o)
			}
		}
	}
	for _, n := range nodes {
		poll(t, "addresses of all", func() bool { return len(n.mesh.KnownPeers()) >= 4 })
	}
}

func TestOutboundOnlyNodeCanBeAsked(t *testing.T) {
	a := start(t, 1, nil)
	b := start(t, 2, func(n *node, c *Config) {
		knowing(a)(n, c)
		c.Listener.Close()
		c.Listener = nil
	})
	a.connected(b)
	if p := a.mesh.Peers(); p[0].Address != "" || !p[0].Inbound {
		t.Errorf("peer %+v", p[0])
	}
	answer, err := a.mesh.Request(t.Context(), b.key, 1, []byte("you there"))
	if err != nil || string(answer) != "echo you there" {
		t.Errorf("%q, %v", answer, err)
	}
}

func TestChangePeers(t *testing.T) {
	a, b, c := start(t, 1, nil), start(t, 2, nil), start(t, 3, nil)
	n := start(t, 4, knowing(a, b))
	n.connected(a, b)
	if err := n.mesh.ChangePeers([]string{c.addr, "nonsense"}, nil, false); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("bad address: %v", err)
	}
	if k := n.mesh.KnownPeers(); len(k) != 2 {
		t.Errorf("known %v", k)
	}
	if err := n.mesh.ChangePeers([]string{c.addr}, []string{a.addr}, false); err != nil {
		t.Fatal(err)
	}
	n.connected(c)
	n.until("removal", func(e []event) bool { return count(e, "down", a.key) == 1 })
	if err := n.mesh.ChangePeers([]string{c.addr}, nil, true); err != nil {
		t.Fatal(err)
	}
	n.until("removal", func(e []event) bool { return count(e, "down", b.key) == 1 })
	if k := n.mesh.KnownPeers(); len(k) != 1 || k[0] != c.addr {
		t.Errorf("known %v", k)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if count(n.events, "down", c.key) != 0 {
		t.Error("the kept peer was dropped")
	}
}

func TestShortMessagesOvertakeLongOnes(t *testing.T) {
	hold := make(chan struct{})
	a := start(t, 1, func(n *node, _ *Config) { n.hold = hold })
	b := start(t, 2, func(n *node, c *Config) { knowing(a)(n, c); c.QueueBytes = 64 << 20 })
	a.connected(b)
	b.connected(a)
	long := make([]byte, 1<<20)
	for range 40 { // more than the network holds while a does not read
		b.mesh.Broadcast(1, long, ScopeAll)
	}
	b.mesh.Broadcast(1, []byte("one"), ScopeAll)
	b.mesh.Broadcast(1, []byte("two"), ScopeAll)
	close(hold)
	a.until("all messages", func(e []event) bool { return count(e, "got", b.key) == 42 })
	got := a.messages()
	one, two := slices.Index(got, "one"), slices.Index(got, "two")
	if one < 0 || two != one+1 || one > 38 {
		t.Errorf("short messages came as number %d and %d", one, two)
	}
}

// Connections are cut and nodes restarted at random; in the end everybody is
// connected to everybody, once, and messages pass.
func TestMeshHealsAfterRandomCuts(t *testing.T) {
	const n = 5
	random := rand.New(rand.NewPCG(1, 2))
	var addresses []string
	var listeners []net.Listener
	for range n {
		l := listen(t, "127.0.0.1:0")
		listeners = append(listeners, l)
		addresses = append(addresses, l.Addr().String())
	}
	nodes := make([]*node, n)
	launch := func(i int, l net.Listener) {
		nodes[i] = start(t, i+1, func(_ *node, c *Config) {
			c.Listener.Close()
			c.Listener = l
			c.KnownPeers = addresses // its own included
			c.Timing.HandshakeTimeout = 500 * time.Millisecond
		})
	}
	for i := range n {
		launch(i, listeners[i])
	}
	for range 60 {
		i := random.IntN(n)
		if random.IntN(6) == 0 {
			nodes[i].stop()
			launch(i, listen(t, addresses[i]))
			continue
		}
		sessions := *nodes[i].mesh.sessions.Load()
		if len(sessions) > 0 {
			sessions[random.IntN(len(sessions))].link.raw.Close()
		}
	}
	whole := func() bool {
		for _, node := range nodes {
			if len(node.mesh.Peers()) != n-1 {
				return false
			}
		}
		return true
	}
	poll(t, "full mesh", whole)
	for round := range 10 {
		// A message proves that both ends mean the same connection.
		arrived := true
		for i, a := range nodes {
			for j, b := range nodes {
				if i == j {
					continue
				}
				text := fmt.Sprintf("%d to %d in round %d", i, j, round)
				if a.mesh.Send(b.key, 1, []byte(text)) != nil || !b.gotSoon(text) {
					arrived = false
				}
			}
		}
		if arrived && whole() {
			return
		}
	}
	t.Error("the mesh does not come to rest")
}

func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	a := start(t, 1, func(_ *node, c *Config) { c.Listener.Close(); c.Listener = l })
	b := start(t, 2, knowing(a))
	b.connected(a)
	a.connected(b)
	if got := a.mesh.Peers()[0].Address; got != b.addr && !strings.HasPrefix(got, "[::1]:") {
		t.Errorf("address %s", got)
	}
}

func TestGarbageAndIdlersAreTurnedAway(t *testing.T) {
	a := start(t, 1, func(_ *node, c *Config) { c.Timing.HandshakeTimeout = 100 * time.Millisecond })
	for _, send := range []string{"", "GET / HTTP/1.1\r\n\r\n"} {
		c, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, send); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("connection that said %q was kept: %v", send, err)
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestTooManyIdlersMakePlace(t *testing.T) {
	a := start(t, 1, nil)
	for range maxOpening + 20 {
		c, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	b := start(t, 2, knowing(a))
	b.connected(a)
	a.logged("closed the oldest")
}

func TestShutdownLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("life", func(t *testing.T) {
		nodes := ring(t, 3, func(_ *node, c *Config) { c.Discovery = true })
		for _, n := range nodes {
			for _, o := range nodes {
				if o != n {
					if _, err := n.mesh.Request(t.Context(), o.key, 1, nil); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for _, n := range nodes {
			n.stop()
		}
	})
	poll(t, "end of goroutines", func() bool { return runtime.NumGoroutine() <= before })
}
