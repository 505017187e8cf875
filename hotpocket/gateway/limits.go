package gateway

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits are the limits of the section "user" of hp.cfg (spec/hotpocket.md
// section 1.13) and a few of our own.
type Limits struct {
	// MaxMessage is the greatest message in bytes, 0 for 5 MiB.
	MaxMessage int
	// MaxBytesPerMinute is how much a connection may send within a fixed window
	// of 60 s, 0 for no limit.
	MaxBytesPerMinute uint64
	// MaxBadMessagesPerMinute is how many bad messages a connection may send
	// within a fixed window of 60 s, 0 for no limit.
	MaxBadMessagesPerMinute uint64
	// IdleTimeout closes a verified connection without a message in either
	// direction, 0 for never.
	IdleTimeout time.Duration
	// MaxConnections is how many verified connections there may be; 0 stands
	// for the hard cap.
	MaxConnections int
	// MaxPerHost is how many connections one host may have, 0 for no limit. An
	// IPv6 host is a /64 network.
	MaxPerHost int
	// ConcurrentReads is how many read requests run at a time; 0 leaves all
	// read requests unanswered.
	ConcurrentReads int

	// SendBuffer is how many bytes may wait for a user who does not read, 0 for
	// 4 MiB. One message may go beyond it.
	SendBuffer int
	// TotalBytes bounds what waits for all users together plus what large
	// messages are being received, 0 for 512 MiB.
	TotalBytes int64
}

const (
	defaultMessage    = 5 << 20
	defaultSendBuffer = 4 << 20
	defaultTotalBytes = 512 << 20
	// maxMessageLimit keeps BSON's 32-bit lengths and the arithmetic with them
	// far from their ends.
	maxMessageLimit = 1 << 30
	// maxReads is the greatest concurrent_read_requests of hp.cfg.
	maxReads = 32

	// hardConnections caps the connections of a node, verified or not.
	hardConnections = 1 << 16
	// hardPending caps the connections that are not verified.
	hardPending = 4096

	// handshakeTimeout is how long a user may take to prove its key.
	handshakeTimeout = 5 * time.Second
	// connectTimeout is how long TLS and the HTTP request may take.
	connectTimeout = 10 * time.Second

	// Each host may have failureAllowance failed handshakes, and earns one
	// back every failureRefill. Without allowance it may have slowLane
	// handshakes in progress.
	failureAllowance = 30
	failureRefill    = 2 * time.Second
	slowLane         = 4

	window = time.Minute
)

func (l Limits) withDefaults() (Limits, error) {
	if l.MaxMessage < 0 || l.MaxMessage > maxMessageLimit {
		return l, errors.New("maximum message size is negative or above 1 GiB")
	}
	if l.ConcurrentReads < 0 || l.ConcurrentReads > maxReads {
		return l, errors.New("concurrent read requests are not within 0 to 32")
	}
	if l.MaxConnections < 0 || l.MaxPerHost < 0 || l.IdleTimeout < 0 || l.SendBuffer < 0 || l.TotalBytes < 0 {
		return l, errors.New("a limit is negative")
	}
	if l.MaxMessage == 0 {
		l.MaxMessage = defaultMessage
	}
	if l.SendBuffer == 0 {
		l.SendBuffer = defaultSendBuffer
	}
	if l.TotalBytes == 0 {
		l.TotalBytes = defaultTotalBytes
	}
	if l.MaxConnections == 0 || l.MaxConnections > hardConnections {
		l.MaxConnections = hardConnections
	}
	return l, nil
}

// Clock is the time by which limits are measured.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f in its own goroutine after d, unless stop is called
	// before.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// meter counts up to a limit within fixed windows of a minute. It is not safe
// for concurrent use.
type meter struct {
	limit uint64 // 0 for none
	start time.Time
	count uint64
}

// add counts n and reports whether the limit still holds.
func (m *meter) add(now time.Time, n uint64) bool {
	if m.limit == 0 {
		return true
	}
	if now.Sub(m.start) >= window {
		m.start, m.count = now, 0
	}
	m.count += n
	return m.count <= m.limit
}

// budget bounds memory that many connections share.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take takes n bytes and reports whether there was room for them; they are
// taken either way.
func (b *budget) take(n int) bool { return b.used.Add(int64(n)) <= b.limit }

func (b *budget) give(n int) { b.used.Add(-int64(n)) }

// hosts counts connections and failed handshakes by host.
type hosts struct {
	clock      Clock
	maxPerHost int

	mu      sync.Mutex
	byAddr  map[netip.Prefix]*host
	open    int
	pending int
	sweepAt int
}

type host struct {
	open     int       // connections
	pending  int       // of which not verified
	failures float64   // failed handshakes not yet forgiven
	since    time.Time // when failures was computed
}

// hostsTracked is how many hosts are remembered for their failures alone.
const hostsTracked = 1 << 16

func newHosts(clock Clock, l Limits) *hosts {
	return &hosts{clock: clock, maxPerHost: l.MaxPerHost, byAddr: map[netip.Prefix]*host{}, sweepAt: 1024}
}

// hostOf returns the network that counts as one host.
func hostOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (h *host) forgive(now time.Time) {
	h.failures = max(0, h.failures-now.Sub(h.since).Seconds()/failureRefill.Seconds())
	h.since = now
}

// enter counts a new connection, or says why it is refused.
func (hs *hosts) enter(addr netip.Prefix) error {
	now := hs.clock.Now()
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if hs.open >= hardConnections || hs.pending >= hardPending {
		return errors.New("node has too many connections")
	}
	h := hs.byAddr[addr]
	if h == nil {
		hs.sweep(now)
		h = &host{since: now}
		hs.byAddr[addr] = h
	}
	if hs.maxPerHost > 0 && h.open >= hs.maxPerHost {
		return errors.New("host has too many connections")
	}
	h.forgive(now)
	if h.failures >= failureAllowance && h.pending >= slowLane {
		return errors.New("host has had too many failed handshakes and has more in progress")
	}
	h.open++
	h.pending++
	hs.open++
	hs.pending++
	return nil
}

// verified notes that a connection has completed its handshake.
func (hs *hosts) verified(addr netip.Prefix) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.byAddr[addr].pending--
	hs.pending--
}

// exit undoes enter. A connection that was not verified counts as a failed
// handshake, unless it is excused.
func (hs *hosts) exit(addr netip.Prefix, verified, excused bool) {
	now := hs.clock.Now()
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h := hs.byAddr[addr]
	h.open--
	hs.open--
	h.forgive(now)
	if !verified {
		h.pending--
		hs.pending--
		if !excused {
			h.failures = min(h.failures+1, 2*failureAllowance)
		}
	}
	if h.open == 0 && (h.failures == 0 || len(hs.byAddr) > hostsTracked) {
		delete(hs.byAddr, addr)
	}
}

// sweep forgets hosts of which nothing is left to remember, at a cost that is
// small per new host.
func (hs *hosts) sweep(now time.Time) {
	if len(hs.byAddr) < hs.sweepAt {
		return
	}
	for a, h := range hs.byAddr {
		if h.forgive(now); h.open == 0 && h.failures == 0 {
			delete(hs.byAddr, a)
		}
	}
	hs.sweepAt = max(1024, 2*len(hs.byAddr))
}
