package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
	"evernode/internal/usermsg"

	"github.com/lxzan/gws"
)

func TestBytesPerMinute(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.MaxBytesPerMinute = 20_000 })
	u := s.connect(t, 0x2a, usermsg.JSON)
	filler := func(n int) { u.write([]byte(`{"type":"lcl","x":"` + strings.Repeat("x", n) + `"}`)) }
	filler(15_000)
	get[*usermsg.LCL](u)
	// A new minute, a new allowance.
	s.clock.advance(time.Minute)
	filler(15_000)
	get[*usermsg.LCL](u)
	s.clock.advance(time.Minute - 1)
	filler(10_000)
	if reason := u.wantClose(closePolicy); !strings.Contains(reason, "bytes") {
		t.Errorf("reason %q", reason)
	}
	if n := s.Counters().ClosedOverLimit; n != 1 {
		t.Errorf("%d connections closed over a limit", n)
	}
}

func TestBadMessagesPerMinute(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.MaxBadMessagesPerMinute = 3 })
	u := s.connect(t, 0x2a, usermsg.JSON)
	bad := func(n int) {
		for range n {
			u.write([]byte("x"))
			get[*usermsg.InputStatus](u)
		}
	}
	bad(3)
	s.clock.advance(time.Minute)
	bad(3)
	u.write([]byte(`{"type":"subscription"}`))
	if reason := u.wantClose(closePolicy); !strings.Contains(reason, "bad messages") {
		t.Errorf("reason %q", reason)
	}
	// Bad signatures count, whoever finds them.
	v := s.connect(t, 0x2a, usermsg.JSON)
	for range 4 {
		s.Rejected(v.key.Public(), hashOf(1), inputs.BadSignature)
	}
	v.wantClose(closePolicy)
}

func TestIdle(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.IdleTimeout = time.Minute })
	u := s.connect(t, 0x2a, usermsg.JSON)
	pinger := s.connect(t, 3, usermsg.JSON)
	listener := s.connect(t, 4, usermsg.JSON)
	for range 5 {
		s.clock.advance(40 * time.Second)
		u.sync()
		// What is sent to a user counts as well, pings do not.
		s.Rejected(listener.key.Public(), hashOf(1), inputs.Expired)
		get[*usermsg.InputStatus](listener)
		if len(pinger.closed) == 0 && pinger.ws.WritePing(nil) == nil {
			select {
			case <-pinger.frames:
			case c := <-pinger.closed:
				pinger.closed <- c
			}
		}
	}
	pinger.wantClose(closePolicy)
	s.clock.advance(time.Minute)
	u.wantClose(closePolicy)
	listener.wantClose(closePolicy)
	if n := s.Counters().ClosedIdle; n != 3 {
		t.Errorf("%d idle connections", n)
	}
}

// refused reports whether a new connection is closed before TLS.
func (s *server) refused(t *testing.T) bool {
	t.Helper()
	conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return true
	}
	conn.Close()
	return false
}

func TestConnectionsPerHost(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.MaxPerHost = 2 })
	u := s.connect(t, 3, usermsg.JSON)
	v := s.connect(t, 4, usermsg.JSON)
	if !s.refused(t) {
		t.Error("a third connection was let in")
	}
	u.ws.NetConn().Close()
	eventually(t, "room for another", func() bool { users, _ := s.Users(); return len(users) == 1 })
	eventually(t, "the connection's end", func() bool {
		s.hosts.mu.Lock()
		defer s.hosts.mu.Unlock()
		return s.hosts.open == 1
	})
	s.connect(t, 5, usermsg.JSON)
	v.sync()
	if n := s.Counters().ConnectionsRefused; n != 1 {
		t.Errorf("%d connections refused", n)
	}
}

// A host from which handshakes keep failing is slowed down. Its users keep
// their connections and new ones still get in.
func TestFailedHandshakes(t *testing.T) {
	s := start(t)
	u := s.connect(t, 3, usermsg.JSON)
	for i := range failureAllowance + 10 {
		v := s.dial(t)
		v.ws.NetConn().Close()
		eventually(t, "the failure to be counted", func() bool { return s.Counters().HandshakesFailed == uint64(i+1) })
	}
	u.sync()
	s.connect(t, 4, usermsg.JSON).sync()

	var slow []*user
	for range slowLane {
		slow = append(slow, s.dial(t))
	}
	if !s.refused(t) {
		t.Error("more handshakes are in progress than the slow lane has room for")
	}
	// One that gets through makes room, and so do verified users.
	slow[0].login(testKey(t, 5), usermsg.JSON)
	slow[0].serverResponse()
	if s.refused(t) {
		t.Error("there is room but it is not given")
	}
	// With time all is forgiven.
	s.clock.advance(time.Hour)
	for range 2 * slowLane {
		s.dial(t).challenge()
	}
	u.sync()
}

func TestHosts(t *testing.T) {
	clock := newFakeClock()
	hs := newHosts(clock, Limits{})
	addr := func(s string) netip.Prefix {
		return hostOf(net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(s), 1)))
	}
	for a, b := range map[string]string{"10.0.0.1": "::ffff:10.0.0.1", "2001:db8::1": "2001:db8::ffff:2", "fe80::1%eth0": "fe80::2"} {
		if addr(a) != addr(b) {
			t.Errorf("%s and %s are different hosts", a, b)
		}
	}
	if addr("10.0.0.1") == addr("10.0.0.2") || addr("2001:db8::1") == addr("2001:db8:0:1::1") {
		t.Error("different hosts are the same")
	}
	// Hosts that have nothing to be remembered for are forgotten at once, others
	// when they are forgiven.
	for i := range 3000 {
		a := addr(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String())
		if err := hs.enter(a); err != nil {
			t.Fatal(err)
		}
		good := i%2 == 0
		if good {
			hs.verified(a)
		}
		hs.exit(a, good, false)
	}
	if n := len(hs.byAddr); n != 1500 {
		t.Errorf("%d hosts are remembered", n)
	}
	clock.advance(failureRefill)
	hs.sweepAt = 0
	if err := hs.enter(addr("10.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if n := len(hs.byAddr); n != 1 {
		t.Errorf("%d hosts are remembered after they were forgiven", n)
	}
	for range hardPending - 1 {
		if err := hs.enter(addr("10.0.0.1")); err != nil {
			t.Fatal(err)
		}
	}
	if err := hs.enter(addr("10.0.0.2")); err == nil {
		t.Error("there is no cap on handshakes in progress")
	}
}

func TestMeter(t *testing.T) {
	m := meter{limit: 10}
	now := time.Unix(1000, 0)
	if !m.add(now, 10) || m.add(now, 1) || m.add(now.Add(window-1), 0) {
		t.Error("limit is not 10 within a window")
	}
	if !m.add(now.Add(window), 10) || m.add(now.Add(window), 1) {
		t.Error("limit is not 10 in the next window")
	}
	none := meter{}
	for range 3 {
		if !none.add(now, 1<<60) {
			t.Error("no limit is a limit")
		}
	}
}

// A user who does not read is let go before he costs too much.
func TestSlowReader(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.SendBuffer = 1 << 20 })
	reader := s.connect(t, 3, usermsg.JSON)
	slow := s.connect(t, 4, usermsg.JSON)
	go func() {
		for range reader.frames {
		}
	}()
	slow.stopReading()
	big := [][]byte{[]byte(strings.Repeat("x", 300_000))}
	for range 1000 {
		outputs := []UserOutput{{User: reader.key.Public(), Outputs: big}, {User: slow.key.Public(), Outputs: big}}
		tree, _ := sealed(t, outputs)
		s.Outputs(1, hashOf(1), tree, outputs, nil)
		eventually(t, "the good reader to keep up", func() bool { return pendingOf(s, reader) == 0 })
		if s.Counters().ClosedSlow > 0 {
			break
		}
		if n := pendingOf(s, slow); n > 1<<20+400_000 {
			t.Fatalf("%d bytes wait for the slow reader", n)
		}
	}
	if n := s.Counters().ClosedSlow; n != 1 {
		t.Errorf("%d slow readers were let go", n)
	}
	eventually(t, "the slow reader to be gone", func() bool { return !s.Connected(slow.key.Public()) })
	if !s.Connected(reader.key.Public()) {
		t.Error("the good reader is gone")
	}
}

// stopReading lets the user's reading block at the next message.
func (u *user) stopReading() {
	for range cap(u.frames) - len(u.frames) {
		u.frames <- frame{}
	}
}

func pendingOf(s *server, u *user) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for _, x := range s.users[u.key.Public()] {
		o := &x.conn.out
		o.mu.Lock()
		if o.buf != nil {
			n += len(*o.buf)
		}
		o.mu.Unlock()
	}
	return n
}

// When all users together have too much waiting, those with more than a small
// share go first.
func TestTotalBudget(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.TotalBytes = 1 << 20; c.Limits.SendBuffer = 1 << 30 })
	slow := s.connect(t, 4, usermsg.JSON)
	slow.stopReading()
	other := s.connect(t, 5, usermsg.JSON)
	big := [][]byte{[]byte(strings.Repeat("x", 100_000))}
	for i := 0; s.Counters().ClosedSlow == 0; i++ {
		if i == 1000 {
			t.Fatal("the budget has no effect")
		}
		outputs := []UserOutput{{User: slow.key.Public(), Outputs: big}}
		tree, _ := sealed(t, outputs)
		s.Outputs(1, hashOf(1), tree, outputs, nil)
		// Small messages for others pass all the time.
		other.sync()
	}
	eventually(t, "the memory to be free again", func() bool { return s.budget.used.Load() == 0 })

	// Large messages that are being received count as well.
	var held []*user
	for i := range byte(11) {
		u := s.connect(t, 10+i, usermsg.JSON)
		head := appendHeader(nil, 100_000)
		head[1] |= 0x80
		if _, err := u.ws.NetConn().Write(append(head, 0, 0, 0, 0, '{')); err != nil {
			t.Fatal(err)
		}
		held = append(held, u)
		if i < 10 {
			want := int64(i+1) * 100_000
			eventually(t, "the message to be accounted for", func() bool { return s.budget.used.Load() == want })
		}
	}
	held[10].wantClose(closeTryLater)
	other.sync()
	if _, err := held[0].ws.NetConn().Write([]byte(`"type":"lcl","x":"` + strings.Repeat("x", 100_000-1-20) + `"}`)); err != nil {
		t.Fatal(err)
	}
	get[*usermsg.LCL](held[0])
	eventually(t, "the message to be accounted for no more", func() bool { return s.budget.used.Load() == 900_000 })
}

// Many small messages go out in few writes.
func TestCoalescing(t *testing.T) {
	s := start(t)
	u := s.connect(t, 0x2a, usermsg.JSON)
	const n = 4000
	batch := make([]AcceptedInput, n)
	for i := range batch {
		batch[i] = AcceptedInput{u.key.Public(), hashOf(byte(i))}
	}
	before := s.Counters()
	s.Accepted(9, hashOf(9), batch)
	for i := range n {
		if m := get[*usermsg.InputStatus](u); m.InputHash != hashOf(byte(i)) && byte(i) != 0 {
			t.Fatalf("status %d is about %s", i, m.InputHash)
		}
	}
	after := s.Counters()
	if frames, writes := after.FramesSent-before.FramesSent, after.Writes-before.Writes; frames != n || writes > n/10 {
		t.Errorf("%d frames went out in %d writes", frames, writes)
	}
}

// An idle connection keeps no buffers and one goroutine.
func TestIdleConnectionsAreCheap(t *testing.T) {
	s := start(t)
	var before, after runtime.MemStats
	const n = 50
	users := make([]*user, n)
	goroutines := runtime.NumGoroutine()
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range users {
		users[i] = s.connect(t, byte(100+i), usermsg.JSON)
	}
	for _, u := range users {
		u.sync()
	}
	s.mu.RLock()
	for c := range s.conns {
		c.out.mu.Lock()
		if c.out.flushing {
			c.out.mu.Unlock()
			continue
		}
		if c.out.buf != nil {
			t.Error("an idle connection has a buffer")
		}
		c.out.mu.Unlock()
	}
	s.mu.RUnlock()
	// Two goroutines are those of the clients.
	eventually(t, "few goroutines", func() bool { return runtime.NumGoroutine()-goroutines <= 2*n })
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d KiB per connection, the client's side included", (after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/n/1024)
}

// flakyListener fails a few times before it accepts.
type flakyListener struct {
	net.Listener
	mu    sync.Mutex
	fails int
}

func (l *flakyListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails > 0 {
		l.fails--
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

func TestAcceptErrors(t *testing.T) {
	s := start(t)
	g, err := New(s.cfg, s.node, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := &server{Gateway: g, addr: ln.Addr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, &flakyListener{Listener: ln, fails: 3}) }()
	other.connect(t, 3, usermsg.JSON).sync()
	if n := g.Counters().AcceptErrors; n != 3 {
		t.Errorf("%d accept errors", n)
	}
	// A listener that somebody closed is not worth waiting for.
	ln.Close()
	if err := <-done; err == nil {
		t.Error("Serve ended without an error")
	}
}

func TestShutdown(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("serve", func(t *testing.T) {
		s := start(t)
		s.node.read = func(ctx context.Context, _ key.Public, _ []byte) ([][]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		verified, waiting := s.connect(t, 3, usermsg.JSON), s.dial(t)
		for range maxReadsOfUser + 10 {
			verified.request(usermsg.Request{Type: usermsg.RequestRead, ID: "x", Content: []byte("x")})
		}
		raw, err := net.Dial("tcp", s.addr) // says nothing, not even TLS
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		eventually(t, "all to be connected", func() bool { return s.Counters().ConnectionsAccepted == 3 })
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		for _, u := range []*user{verified, waiting} {
			if reason := u.wantClose(closeGoingAway); reason != "node is going down" {
				t.Errorf("reason %q", reason)
			}
		}
		if users, _ := s.Users(); len(users) != 0 {
			t.Errorf("users %v", users)
		}
		// Late news from the node go nowhere.
		s.Accepted(1, hashOf(1), []AcceptedInput{{verified.key.Public(), hashOf(1)}})
		s.Outputs(1, hashOf(1), output.NewTree(nil, hashOf(1)), []UserOutput{{User: verified.key.Public()}}, nil)
	})
	eventually(t, "all goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

// Users come and go while the node has news for them.
func TestComingAndGoing(t *testing.T) {
	s := start(t)
	stop := make(chan struct{})
	var outputs []UserOutput
	var accepted []AcceptedInput
	for i := range byte(8) {
		user := testKey(t, 50+i).Public()
		outputs = append(outputs, UserOutput{User: user, Outputs: [][]byte{[]byte("x")}})
		accepted = append(accepted, AcceptedInput{user, hashOf(1)})
	}
	tree, sigs := sealed(t, outputs, 1)
	var news sync.WaitGroup
	news.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			s.Accepted(1, hashOf(1), accepted)
			s.Outputs(1, hashOf(1), tree, outputs, sigs)
			s.Publish(&usermsg.UNLChange{UNL: []key.Public{accepted[0].User}})
			s.Users()
		}
	})
	var users sync.WaitGroup
	for i := range byte(8) {
		users.Go(func() {
			for range 5 {
				u, err := s.tryDial(t)
				if err != nil {
					t.Error(err)
					return
				}
				k := testKey(t, 50+i)
				c, err := usermsg.DecodeChallenge((<-u.frames).data)
				if err != nil {
					t.Error(err)
					return
				}
				u.ws.WriteMessage(gws.OpcodeText, usermsg.AppendChallengeResponse(nil, usermsg.ChallengeResponse{Sig: k.Sign([]byte(c.Challenge)), Public: k.Public(), ServerChallenge: "x"}))
				// The first message is the server's response, whatever news there
				// are.
				if _, err := usermsg.DecodeServerResponse((<-u.frames).data); err != nil {
					t.Error(err)
				}
				u.ws.WriteMessage(gws.OpcodeText, []byte(`{"type":"subscription","channel":"unl_change","enabled":true}`))
				<-u.frames
				u.ws.NetConn().Close()
			}
		})
	}
	users.Wait()
	close(stop)
	news.Wait()
	eventually(t, "all to be gone", func() bool { users, _ := s.Users(); return len(users) == 0 })
}
