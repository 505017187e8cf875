package mesh

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"Node1:22860":        "node1:22860",
		"node_2.example:1":   "node_2.example:1",
		"127.0.0.1:65535":    "127.0.0.1:65535",
		"[::1]:22860":        "[::1]:22860",
		"[2001:DB8:0::1]:5":  "[2001:db8::1]:5",
		"[::ffff:1.2.3.4]:5": "1.2.3.4:5",
		"host:0080":          "host:80",
		"host":               "", ":5": "", "host:": "", "host:0": "", "host:65536": "", "::1:22860": "",
		"0.0.0.0:5": "", "[::]:5": "", "ho st:5": "", "host:5:6": "", "host:-1": "", "ho/st:1": "",
		strings.Repeat("a", 254) + ":1": "",
		strings.Repeat("a", 999) + ":1": "",
	} {
		got, err := ParseAddress(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
		if want != "" {
			if again, err := ParseAddress(got); err != nil || again != got {
				t.Errorf("%q: canonical form %q becomes %q, %v", in, got, again, err)
			}
		}
	}
}

func TestConfigErrors(t *testing.T) {
	good := Config{Key: testKey(t, 1), ContractID: "x"}
	if _, err := good.checked(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"no node key":         func(c *Config) { c.Key = key.Private{} },
		"no contract id":      func(c *Config) { c.ContractID = "" },
		"max_connections":     func(c *Config) { c.MaxConnections = -1 },
		"max_bytes_per_msg":   func(c *Config) { c.MaxMessage = 2 << 30 },
		"queue":               func(c *Config) { c.MaxMessage, c.QueueBytes = 1000, 1000 },
		"interval":            func(c *Config) { c.Timing.SeenFor = -1 },
		"serve concurrency":   func(c *Config) { c.ServeConcurrency = -1 },
		"max_known_connectio": func(c *Config) { c.MaxKnownConnections = -1 },
	} {
		c := good
		change(&c)
		if _, err := c.checked(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	c := good
	c.KnownPeers = []string{"nowhere"}
	if _, err := New(c, nil, nil); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("bad known peer: %v", err)
	}
}

func TestReadFrame(t *testing.T) {
	const limit = 1 << 20
	read := func(b []byte) (frameType, []byte, error) {
		return readFrame(bufio.NewReader(bytes.NewReader(b)), limit)
	}
	for _, n := range []int{0, 1, growStep - 1, growStep, growStep + 1, limit} {
		payload := bytes.Repeat([]byte{7}, n)
		ft, body, err := read(messageFrame(9, payload))
		if err != nil || ft != frameMessage || body[0] != 9 || !bytes.Equal(body[1:], payload) {
			t.Errorf("%d bytes: type %d, %d bytes, %v", n, ft, len(body), err)
		}
	}
	if _, _, err := read(messageFrame(9, make([]byte, limit+1))); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too long: %v", err)
	}
	if _, _, err := read([]byte{0, 0, 0, 0, byte(framePing)}); err == nil {
		t.Error("length 0 passes")
	}
	if _, _, err := read([]byte{0, 0, 0, 1, 99}); err == nil || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("unknown type: %v", err)
	}
	if _, _, err := read(nil); err != io.EOF {
		t.Errorf("end between frames: %v", err)
	}
	if _, _, err := read(messageFrame(9, []byte("abc"))[:7]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("end within a frame: %v", err)
	}
	// A long frame that never comes does not cost its length.
	head := binary.BigEndian.AppendUint32(nil, 512<<20)
	in := bufio.NewReader(bytes.NewReader(append(head, byte(frameMessage))))
	if n := testing.AllocsPerRun(1, func() { readFrame(in, 1<<30) }); n > 5 {
		t.Errorf("%v allocations", n)
	}
}

func TestHelloAndLists(t *testing.T) {
	h := hello{Contract: contractTag("x"), Class: classBulk, Session: [16]byte{1}, Instance: [16]byte{2},
		Port: 22860, Flags: flagObserver, MaxMessage: 5, Attempt: 3, Time: 1234567}
	frame := h.frame()
	got, err := parseHello(frame[frameHead:])
	if err != nil || got != h {
		t.Errorf("hello %+v, %v", got, err)
	}
	newer := bytes.Clone(frame[frameHead:])
	newer[len(helloMagic)+1] = 2
	var version versionError
	if _, err := parseHello(newer[:len(helloMagic)+2]); !errors.As(err, &version) || version != 2 {
		t.Errorf("newer hello: %v", err)
	}
	if _, err := parseHello(frame[frameHead : len(frame)-1]); err == nil {
		t.Error("short hello passes")
	}
	keys := []key.Public{testKey(t, 1).Public(), testKey(t, 2).Public()}
	near, err := parseNeighbours(neighboursFrame(keys)[frameHead:])
	if _, ok := near[keys[1]]; err != nil || len(near) != 2 || !ok {
		t.Errorf("neighbours %v, %v", near, err)
	}
	peers, err := parsePeers(peersFrame([]string{"a:1", "b:2"})[frameHead:])
	if err != nil || len(peers) != 2 || peers[1] != "b:2" {
		t.Errorf("peers %v, %v", peers, err)
	}
	long := parseBye(byeFrame(byeFull, strings.Repeat("x", 999))[frameHead:])
	if long.code != byeFull || len(long.Text) != maxBye-1 {
		t.Errorf("bye %d, %d bytes", long.code, len(long.Text))
	}
}

func TestSeenWindow(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newSeen(100, time.Minute)
	h := func(i int) digest.Hash { return digest.Sum([]byte{byte(i), byte(i >> 8)}) }
	check := func(i int, from uint64, first, again bool) {
		t.Helper()
		if f, a := s.add(h(i), from, now); f != first || a != again {
			t.Errorf("message %d from %d: first %v again %v", i, from, f, a)
		}
	}
	check(1, 7, true, false)
	check(1, 8, false, false)
	check(1, 7, false, true)
	check(1, 8, false, true)
	for i := range 99 {
		check(1000+i, 1, true, false)
	}
	check(1, 7, false, true)
	check(2000, 1, true, false) // pushes the oldest out
	check(1, 7, true, false)
	if s.len() != 100 {
		t.Errorf("%d entries", s.len())
	}
	now = now.Add(time.Minute + 1)
	check(2000, 1, true, false)
	if s.len() != 1 {
		t.Errorf("%d entries after expiry", s.len())
	}
	for i := range 10000 {
		now = now.Add(time.Second)
		s.add(h(i), 1, now)
	}
	if s.len() > 61 || len(s.order) > 300 {
		t.Errorf("%d entries, %d places", s.len(), len(s.order))
	}
}

func TestMinuteCount(t *testing.T) {
	now := time.Unix(1000, 0)
	c := minuteCount{limit: 3}
	for i, want := range []bool{true, true, true, false} {
		if c.add(1, now) != want {
			t.Errorf("event %d: %v", i, !want)
		}
	}
	if !c.add(3, now.Add(time.Minute)) || c.add(1, now.Add(2*time.Minute-1)) {
		t.Error("the next minute does not count afresh")
	}
	off := minuteCount{}
	if !off.add(1<<62, now) {
		t.Error("0 must be off")
	}
}

func TestBook(t *testing.T) {
	c, err := Config{Key: testKey(t, 1), ContractID: "x"}.checked()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	k := testKey(t, 2).Public()
	nobody := func(key.Public) bool { return false }
	due := func(b *book) []string { a, _ := b.due(now, 99, nobody); return a }

	t.Run("backoff", func(t *testing.T) {
		now := now
		b := newBook(c.Timing)
		b.configure("a:1", now)
		want := 50 * time.Millisecond
		for i := range 40 {
			a, _ := b.due(now, 1, nobody)
			if len(a) != 1 {
				t.Fatalf("attempt %d is not due", i)
			}
			if again, _ := b.due(now, 1, nobody); len(again) != 0 {
				t.Fatal("dialed twice at once")
			}
			if n, gone := b.failed("a:1", now, 0.5); n != i+1 || gone {
				t.Fatalf("failure %d, gone %v", n, gone)
			}
			_, next := b.due(now, 1, nobody)
			if got := next.Sub(now); got != want {
				t.Errorf("pause %d is %s, want %s", i, got, want)
			}
			want = min(2*want, 5*time.Second)
			now = next
		}
		if lo, hi := b.pause(99, 0), b.pause(99, 0.999); lo != 3750*time.Millisecond || hi < 6*time.Second || hi > 6250*time.Millisecond {
			t.Errorf("jitter from %s to %s", lo, hi)
		}
	})
	t.Run("discovered addresses are given up", func(t *testing.T) {
		now := now
		b := newBook(c.Timing)
		if !b.discover("a:1", now) || b.discover("a:1", now) {
			t.Fatal("discover")
		}
		for i := range maxFailures {
			if _, gone := b.failed("a:1", now, 0); gone != (i == maxFailures-1) {
				t.Errorf("failure %d: gone %v", i, gone)
			}
		}
		if b.discover("a:1", now.Add(c.Timing.Block-1)) {
			t.Error("not blocked")
		}
		if !b.discover("a:1", now.Add(c.Timing.Block)) {
			t.Error("blocked for too long")
		}
		for i := 0; len(b.entries) < bookLimit; i++ {
			b.discover(strings.Repeat("x", i+1)+":1", now)
		}
		if b.discover("y:1", now) || !b.full() {
			t.Error("no bound")
		}
	})
	t.Run("sessions", func(t *testing.T) {
		b := newBook(c.Timing)
		b.configure("a:1", now)
		b.configure("b:1", now)
		if got := due(b); len(got) != 2 {
			t.Fatal(got)
		}
		b.up("a:1", k, now)
		b.busy("b:1", k, now, c.Timing.Recheck)
		if got := due(b); len(got) != 0 {
			t.Error(got)
		}
		b.down(k, time.Hour, now, 0, 0.5)
		_, next := b.due(now, 99, nobody)
		if next.Sub(now) != 25*time.Millisecond {
			t.Errorf("redial after %s", next.Sub(now))
		}
		b.off("a:1", "wrong")
		b.configure("a:1", now)
		if got := due(b); len(got) != 1 || got[0] != "a:1" {
			t.Error(got)
		}
	})
	t.Run("order and room", func(t *testing.T) {
		b := newBook(c.Timing)
		b.discover("found:1", now)
		b.configure("configured:1", now)
		b.discover("member:1", now)
		b.busy("member:1", k, now, 0)
		got, _ := b.due(now, 1, func(p key.Public) bool { return p == k })
		if len(got) != 2 || got[0] != "member:1" || got[1] != "configured:1" {
			t.Error(got)
		}
		if b.dialed() != 2 {
			t.Error(b.dialed())
		}
	})
}

func TestQueueIsBoundedAndReleased(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	l := newLink(nil, near, nil, 1000)
	released := 0
	if err := l.enqueue(make([]byte, 900), nil, func() { released++ }); err != nil {
		t.Fatal(err)
	}
	if err := l.enqueue(make([]byte, 100), nil, nil); !errors.Is(err, errOverflow) {
		t.Errorf("over the limit: %v", err)
	}
	l.finish()
	if released != 1 || l.waiting() != 0 {
		t.Errorf("released %d, waiting %d", released, l.waiting())
	}
	if err := l.enqueue(nil, nil, nil); !errors.Is(err, errLinkClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	var k key.Public
	k[0] = key.Prefix
	f.Add(messageFrame(1, []byte("payload")))
	f.Add(floodFrame(1, ScopeUNL, k, []byte("payload")))
	f.Add(neighboursFrame([]key.Public{k}))
	f.Add(peersFrame([]string{"host:1"}))
	f.Add(byeFrame(byeFull, "full"))
	f.Add(hello{Class: classUrgent}.frame())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 16
		in := bufio.NewReader(bytes.NewReader(b))
		used := 0
		for {
			ft, body, err := readFrame(in, limit)
			if err != nil {
				return
			}
			if len(body) > bodyLimit(ft, limit) {
				t.Fatalf("type %d with %d bytes", ft, len(body))
			}
			again := append(newFrame(ft, len(body)), body...)
			// newFrame's length assumes the body that follows.
			if !bytes.Equal(again, b[used:used+len(again)]) {
				t.Fatal("frame changed")
			}
			used += len(again)
			switch ft {
			case frameHello:
				if h, err := parseHello(body); err == nil && !bytes.Equal(h.frame()[frameHead:], body) {
					t.Fatal("hello changed")
				}
			case frameBye:
				_ = parseBye(body).Error()
			case frameNeighbours:
				if keys, err := parseNeighbours(body); err == nil && len(keys) > (len(body)-4)/key.PublicSize {
					t.Fatal("keys from nowhere")
				}
			case framePeers:
				if list, err := parsePeers(body); err == nil && !bytes.Equal(peersFrame(list)[frameHead:], body) {
					t.Fatal("list of peers changed")
				}
			}
		}
	})
}

func FuzzParseHello(f *testing.F) {
	f.Add(hello{Class: classUrgent, Port: 22860, MaxMessage: 1 << 24, Time: 1 << 40}.frame()[frameHead:])
	f.Add(hello{Class: classBulk, Attempt: 1}.frame()[frameHead:])
	f.Add([]byte(helloMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHello(b); err == nil && !bytes.Equal(h.frame()[frameHead:], b) {
			t.Fatalf("%x became %x", b, h.frame()[frameHead:])
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"host:1", "[::1]:2", "1.2.3.4:65535", ":", "[fe80::1%eth0]:3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if again, err := ParseAddress(a); err != nil || again != a || len(a) > maxAddress {
			t.Fatalf("%q becomes %q becomes %q, %v", s, a, again, err)
		}
	})
}

// FuzzSessionFrames feeds frames to a session as a peer would.
func FuzzSessionFrames(f *testing.F) {
	k := testKey(f, 2).Public()
	add := func(frame []byte) { f.Add(frame[4], frame[frameHead:]) }
	add(messageFrame(1, []byte("x")))
	add(floodFrame(1, ScopeAll, k, []byte("x")))
	add(neighboursFrame([]key.Public{k}))
	add(peersFrame([]string{"host:1"}))
	add(byeFrame(byeShutdown, "bye"))
	f.Add(byte(framePing), make([]byte, 8))
	f.Add(byte(framePong), make([]byte, 16))
	f.Add(byte(frameOpenBulk), make([]byte, 4))
	f.Add(byte(frameRequest), append(make([]byte, requestHead), 1, 2, 3))
	f.Add(byte(frameResponse), make([]byte, responseHead))
	f.Add(byte(frameCancel), make([]byte, 4))
	n := &counter{}
	// A mesh that does not run dials nobody.
	m, err := New(Config{Key: testKey(f, 1), ContractID: "test", Discovery: true}, n, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	n.mesh = m
	f.Fuzz(func(t *testing.T, ft byte, body []byte) {
		if len(body) > 1<<16 {
			return
		}
		s := &session{mesh: n.mesh, key: k, outbound: true, meter: newMeter(&n.mesh.config), ended: make(chan struct{})}
		s.link = newLink(nil, nil, nil, 1<<20)
		s.bulk.init(s)
		s.bulk.closed = errStopping
		_ = s.take(frameType(ft), body)
	})
}
