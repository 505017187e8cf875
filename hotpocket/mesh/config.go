package mesh

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"evernode/hotpocket/key"
)

// DefaultMaxMessage is the largest payload of a message in bytes when
// Config.MaxMessage is 0.
const DefaultMaxMessage = 16 << 20

// maxMessageCeiling keeps a frame's length within its 4 bytes.
const maxMessageCeiling = 1 << 30

// Config is what a mesh needs to know. Key, ContractID and the peers come from
// the caller; fields named after hp.cfg have the meaning of spec/hotpocket.md
// section 3.3, and their zero value means what it means there. Zero durations
// in Timing take the defaults written beside them.
type Config struct {
	// Key is the node's key, which is its identity to peers.
	Key key.Private
	// ContractID must be the same on both sides of a connection.
	ContractID string
	// Listener accepts peers. Run takes it over and closes it. Nil is
	// mesh.listen false: the node only dials.
	Listener net.Listener
	// Observer is told to peers.
	Observer bool
	// KnownPeers are the addresses to dial, "host:port" or "[ipv6]:port".
	KnownPeers []string
	// UNL is the initial UNL; see Mesh.SetUNL.
	UNL []key.Public

	// Forward is mesh.msg_forwarding: pass flooded messages on to peers that
	// are not connected to their author.
	Forward bool
	// Discovery is mesh.peer_discovery.enabled, DiscoveryEvery its interval.
	Discovery      bool
	DiscoveryEvery time.Duration

	// IdleTimeout is mesh.idle_timeout: a peer that sends nothing at all (not
	// even keep-alives) for so long is dropped. It can only shorten
	// Timing.DeadAfter. 0 leaves that alone.
	IdleTimeout time.Duration
	// MaxConnections bounds the number of peers, MaxKnownConnections the
	// number of dialed ones, MaxInPerHost the number of accepted ones from one
	// IP address. 0 is unlimited. Members of the UNL displace others.
	MaxConnections, MaxKnownConnections, MaxInPerHost int
	// MaxMessage is mesh.max_bytes_per_msg: the largest payload in bytes, sent
	// or received. 0 is DefaultMaxMessage.
	MaxMessage int
	// MaxBytesPerMin counts what one peer sends unasked (all but answers to
	// our requests), MaxBadPerMin and MaxBadSigsPerMin what the Handler
	// reported, MaxDupPerMin flooded messages that one peer sent twice. 0 is
	// off. A breach closes the connection and keeps the peer away for
	// Timing.Penalty.
	MaxBytesPerMin, MaxBadPerMin, MaxBadSigsPerMin, MaxDupPerMin uint64

	// QueueBytes bounds what waits to be sent to one peer on its urgent
	// connection; a peer that lags further behind is dropped. 0 is twice
	// MaxMessage, at least 16 MiB.
	QueueBytes int
	// ServeConcurrency is how many requests of one peer are served at once;
	// 0 is 8.
	ServeConcurrency int

	Timing Timing
}

// Timing are the intervals of a mesh. A zero field takes its default.
type Timing struct {
	PingEvery        time.Duration // 5 s: keep-alives, also the round trip measurement
	DeadAfter        time.Duration // 15 s without a byte: the peer is gone
	HandshakeTimeout time.Duration // 5 s: dial, TLS and hello
	RedialMin        time.Duration // 50 ms: first pause before an address is dialed again
	RedialMax        time.Duration // 5 s: longest pause
	Penalty          time.Duration // 10 s: how long a peer that broke a limit stays away
	SeenFor          time.Duration // 60 s: how long a flooded message is remembered
	Announce         time.Duration // 20 ms: new neighbours told to peers together
	Recheck          time.Duration // 5 min: dial a second address of a connected peer again
	Block            time.Duration // 5 min: a discovered address that failed too often
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// checked returns c with defaults filled in, or what is wrong with it.
func (c Config) checked() (Config, error) {
	if c.Key.IsZero() {
		return c, errors.New("mesh: no node key")
	}
	if c.ContractID == "" {
		return c, errors.New("mesh: no contract id")
	}
	for _, n := range []struct {
		name string
		v    int
	}{
		{"max_connections", c.MaxConnections}, {"max_known_connections", c.MaxKnownConnections},
		{"max_in_connections_per_host", c.MaxInPerHost}, {"max_bytes_per_msg", c.MaxMessage},
		{"queue bytes", c.QueueBytes}, {"serve concurrency", c.ServeConcurrency},
	} {
		if n.v < 0 {
			return c, fmt.Errorf("mesh: %s is negative", n.name)
		}
	}
	c.MaxMessage = or(c.MaxMessage, DefaultMaxMessage)
	if c.MaxMessage > maxMessageCeiling {
		return c, fmt.Errorf("mesh: max_bytes_per_msg is %d, at most %d is possible", c.MaxMessage, maxMessageCeiling)
	}
	c.QueueBytes = or(c.QueueBytes, max(2*c.MaxMessage, 16<<20))
	c.ServeConcurrency = or(c.ServeConcurrency, 8)
	if c.QueueBytes < c.MaxMessage+1024 {
		return c, fmt.Errorf("mesh: queue of %d bytes is too short for messages of %d", c.QueueBytes, c.MaxMessage)
	}
	c.DiscoveryEvery = or(c.DiscoveryEvery, 30*time.Second)
	t := &c.Timing
	t.PingEvery = or(t.PingEvery, 5*time.Second)
	t.DeadAfter = or(t.DeadAfter, 15*time.Second)
	if c.IdleTimeout > 0 {
		t.DeadAfter = min(t.DeadAfter, c.IdleTimeout)
	}
	t.PingEvery = min(t.PingEvery, t.DeadAfter/2)
	t.HandshakeTimeout = or(t.HandshakeTimeout, 5*time.Second)
	t.RedialMin = or(t.RedialMin, 50*time.Millisecond)
	t.RedialMax = or(t.RedialMax, 5*time.Second)
	t.Penalty = or(t.Penalty, 10*time.Second)
	t.SeenFor = or(t.SeenFor, time.Minute)
	t.Announce = or(t.Announce, 20*time.Millisecond)
	t.Recheck = or(t.Recheck, 5*time.Minute)
	t.Block = or(t.Block, 5*time.Minute)
	for _, d := range []time.Duration{c.DiscoveryEvery, t.PingEvery, t.DeadAfter, t.HandshakeTimeout, t.RedialMin,
		t.RedialMax, t.Penalty, t.SeenFor, t.Announce, t.Recheck, t.Block} {
		if d <= 0 {
			return c, errors.New("mesh: an interval is not positive")
		}
	}
	return c, nil
}

// maxAddress bounds the text of an address: a DNS name of 253 characters, two
// brackets, a colon and a port.
const maxAddress = 253 + 2 + 1 + 5

// ParseAddress checks the address of a peer, "host:port", "1.2.3.4:port" or
// "[ipv6]:port", and returns its canonical text: lower-case host, shortest form
// of an IP address. Host names are not resolved.
func ParseAddress(s string) (string, error) {
	if len(s) > maxAddress {
		return "", fmt.Errorf("peer address of %d characters, at most %d are allowed", len(s), maxAddress)
	}
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("peer address %q: want host:port or [ipv6]:port", s)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return "", fmt.Errorf("peer address %q: port is not a number from 1 to 65535", s)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() || ip.IsMulticast() {
			return "", fmt.Errorf("peer address %q: nobody can be dialed at %s", s, ip)
		}
		host = ip.Unmap().String()
	} else {
		if !isHostName(host) {
			return "", fmt.Errorf("peer address %q: %q is neither a host name nor an IP address", s, host)
		}
		host = strings.ToLower(host)
	}
	return net.JoinHostPort(host, strconv.FormatUint(port, 10)), nil
}

// isHostName accepts what resolvers commonly do, container names with an
// underscore included.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
