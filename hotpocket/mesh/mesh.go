package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	randv2 "math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// Kind tells the messages of the caller apart; the mesh only carries it.
type Kind uint8

// Scope is whom a message is for.
type Scope uint8

const (
	// ScopeAll is every peer.
	ScopeAll Scope = 0
	// ScopeUNL is the peers whose key is in the UNL as this node knows it, the
	// private mode of spec/hotpocket.md section 4.6.
	ScopeUNL Scope = 1
)

// Verdict is what a Handler makes of a message.
type Verdict uint8

const (
	// Accept: the message is good; a flooded one is passed on.
	Accept Verdict = iota
	// Ignore: the message is of no use here, and nobody is to blame; a
	// flooded one is not passed on.
	Ignore
	// BadMessage: malformed; counts against max_bad_msgs_per_min of the peer
	// that delivered it.
	BadMessage
	// BadSignature: wrongly signed; counts against max_bad_msgsigs_per_min.
	BadSignature
)

// Handler takes what peers send. Its methods may call the Mesh's sending
// methods, except that Receive, PeerUp and PeerDown must not wait for Request
// to the same peer.
type Handler interface {
	// Receive takes an urgent message from the peer that delivered it, which
	// for a flooded one need not be its author. Calls for one peer come one
	// after another in the order of sending, except that messages of up to
	// 16 KiB overtake longer ones; those of different peers come at the same
	// time. While it runs nothing more is read from that peer, so it must be
	// quick. The payload is the Handler's to keep.
	Receive(from key.Public, kind Kind, payload []byte) Verdict
	// Serve answers a request. Up to Config.ServeConcurrency calls for one
	// peer run at the same time. ctx ends with the requester's patience or
	// connection. The text of an error is sent to the requester. The payload is
	// the Handler's to keep; the answer must not be changed afterwards.
	Serve(ctx context.Context, from key.Public, kind Kind, payload []byte) ([]byte, error)
	// PeerUp begins a stream of messages from and to a peer, PeerDown ends it:
	// what was sent in between may not have arrived. They alternate for each
	// peer, and every Receive comes between the two.
	PeerUp(key.Public)
	PeerDown(key.Public)
}

// Recycler is what a Handler may be besides: it gets the answers of its Serve
// back once they have left or are not wanted any more.
type Recycler interface {
	Recycle(kind Kind, answer []byte)
}

// Errors of Send and Request.
var (
	ErrNotConnected = errors.New("peer is not connected")
	ErrTooLarge     = errors.New("message is too large")
)

// PeerInfo describes a connected peer.
type PeerInfo struct {
	Key key.Public
	// Address is where the peer can be dialed: the dialed address, or for an
	// accepted peer its IP address and the port it says it listens on. Empty
	// if it does not listen.
	Address string
	// Inbound is true if the peer dialed this node.
	Inbound bool
	// Observer and Forwards are what the peer says of its role and of its
	// mesh.msg_forwarding.
	Observer, Forwards bool
	// InUNL is true if the key is in the UNL given to SetUNL.
	InUNL bool
	Since time.Time
	// RTT is the last measured round trip, 0 before the first.
	RTT time.Duration
	// Skew is the peer's clock minus ours, good to about half the round trip
	// and 1 ms.
	Skew time.Duration
	// Queued is the number of bytes waiting to be sent.
	Queued int
}

// Mesh is a node's side of the peer network. Make it with New, give it life
// with Run; all other methods may be called at any time by anyone, and do
// nothing useful while Run does not run.
type Mesh struct {
	config   Config
	handler  Handler
	recycler Recycler // the handler, if it is one
	log      *slog.Logger
	self     key.Public
	identity *identity
	contract digest.Hash
	instance [16]byte
	port     uint16
	start    time.Time // the zero of monotonic readings

	unl      atomic.Pointer[map[key.Public]struct{}]
	sessions atomic.Pointer[[]*session] // the values of byKey, for senders

	seenMu sync.Mutex
	seen   *seen

	redial   chan struct{} // the dialing loop has something to look at
	announce chan struct{} // the set of neighbours changed
	urgent   atomic.Bool   // and it shrank

	running sync.WaitGroup
	mu      sync.Mutex
	started bool
	stopped bool // Run is ending, or has not begun
	ctx     context.Context
	byKey   map[key.Public]*session
	ending  map[key.Public]*session  // dropped, PeerDown still to come
	pending map[key.Public]struct{}  // keys to which our hello is under way
	banned  map[key.Public]time.Time // broke a limit: until when
	opening map[net.Conn]uint64      // accepted connections before admission, by age
	opened  uint64
	number  uint64 // of the last session
	book    *book
}

// New makes a mesh. On an error the listener is left to the caller.
func New(c Config, h Handler, log *slog.Logger) (*Mesh, error) {
	c, err := c.checked()
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		config: c, handler: h, log: log,
		self:     c.Key.Public(),
		contract: contractTag(c.ContractID),
		start:    time.Now(),
		seen:     newSeen(seenLimit, c.Timing.SeenFor),
		redial:   make(chan struct{}, 1),
		announce: make(chan struct{}, 1),
		stopped:  true,
		byKey:    make(map[key.Public]*session),
		ending:   make(map[key.Public]*session),
		pending:  make(map[key.Public]struct{}),
		banned:   make(map[key.Public]time.Time),
		opening:  make(map[net.Conn]uint64),
		book:     newBook(c.Timing),
	}
	m.recycler, _ = h.(Recycler)
	if m.identity, err = newIdentity(c.Key); err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	if _, err := rand.Read(m.instance[:]); err != nil {
		return nil, fmt.Errorf("mesh: random instance id: %w", err)
	}
	if c.Listener != nil {
		if tcp, ok := c.Listener.Addr().(*net.TCPAddr); ok {
			m.port = uint16(tcp.Port)
		}
	}
	m.sessions.Store(&[]*session{})
	m.SetUNL(c.UNL)
	now := time.Now()
	for _, a := range c.KnownPeers {
		address, err := ParseAddress(a)
		if err != nil {
			return nil, fmt.Errorf("mesh.known_peers: %w", err)
		}
		m.book.configure(address, now)
	}
	return m, nil
}

// Run accepts and dials peers until ctx ends, then tells the peers, closes
// everything and returns nil once every goroutine of the mesh has ended. It can
// be called once.
func (m *Mesh) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.started {
		m.mu.Unlock()
		return errors.New("mesh: run a second time")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.started, m.stopped, m.ctx = true, false, ctx
	m.mu.Unlock()

	if m.config.Listener != nil {
		m.spawn(m.acceptLoop)
	}
	m.spawn(m.dialLoop)
	m.spawn(m.pingLoop)
	m.spawn(m.announceLoop)
	if m.config.Discovery {
		m.spawn(m.discoverLoop)
	}
	<-ctx.Done()

	m.mu.Lock()
	m.stopped = true
	for c := range m.opening {
		c.Close()
	}
	m.mu.Unlock()
	if m.config.Listener != nil {
		m.config.Listener.Close()
	}
	for _, s := range *m.sessions.Load() {
		s.shut(errors.New("this node stops"), byeShutdown)
	}
	m.running.Wait()
	return nil
}

// spawn runs f in a goroutine that Run waits for; false if Run is ending.
func (m *Mesh) spawn(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spawnLocked(f)
}

func (m *Mesh) spawnLocked(f func()) bool {
	if m.stopped {
		return false
	}
	m.running.Go(f)
	return true
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// SetUNL tells the mesh which keys are the UNL now. It decides who gets
// messages of ScopeUNL, who may displace others when connections are scarce,
// and WeaklyConnected.
func (m *Mesh) SetUNL(keys []key.Public) {
	unl := make(map[key.Public]struct{}, len(keys))
	for _, k := range keys {
		unl[k] = struct{}{}
	}
	m.unl.Store(&unl)
	poke(m.redial)
}

func (m *Mesh) inUNL(k key.Public) bool {
	_, ok := (*m.unl.Load())[k]
	return ok
}

// WeaklyConnected reports whether fewer than 70 % of the UNL are connected,
// this node counting as connected to itself (spec/hotpocket.md section 4.7).
func (m *Mesh) WeaklyConnected() bool {
	unl := *m.unl.Load()
	connected := 0
	if m.inUNL(m.self) {
		connected++
	}
	for _, s := range *m.sessions.Load() {
		if m.inUNL(s.key) {
			connected++
		}
	}
	return 10*connected < 7*len(unl)
}

// Broadcast sends a message to the peers of the scope that are connected now.
// Nobody passes it on. It never blocks; the payload is copied.
func (m *Mesh) Broadcast(kind Kind, payload []byte, scope Scope) {
	if !m.fits(kind, payload) {
		return
	}
	frame := messageFrame(kind, payload)
	for _, s := range *m.sessions.Load() {
		if scope == ScopeAll || m.inUNL(s.key) {
			s.send(frame, len(payload))
		}
	}
}

// Flood sends a message to every node of the scope that can be reached, over
// other nodes if need be. For a message of this node's own (author is its key)
// that means all connected peers; for somebody else's, those that are not
// connected to the author. A message that was flooded or received before,
// within Timing.SeenFor, is not sent again. It never blocks; the payload is
// copied.
func (m *Mesh) Flood(author key.Public, kind Kind, payload []byte, scope Scope) {
	if !m.fits(kind, payload) {
		return
	}
	frame := floodFrame(kind, scope, author, payload)
	if first, _ := m.sight(floodHash(frame[frameHead:]), 0); !first {
		return
	}
	m.relay(nil, author, scope, len(payload), func() []byte { return frame })
}

// fits guards the broadcasts: a message that no peer could take is a mistake
// of the caller, and is logged as such.
func (m *Mesh) fits(kind Kind, payload []byte) bool {
	if len(payload) <= m.config.MaxMessage {
		return true
	}
	m.log.Error("message is too large for peers and was not sent", "kind", kind, "bytes", len(payload), "max_bytes_per_msg", m.config.MaxMessage)
	return false
}

// Send sends a message to one peer. It never blocks; the payload is copied. An
// error means that it was not sent; no error does not mean that it arrives.
func (m *Mesh) Send(to key.Public, kind Kind, payload []byte) error {
	s := m.session(to)
	if s == nil {
		return fmt.Errorf("send to %s: %w", to.Short(), ErrNotConnected)
	}
	if len(payload) > min(m.config.MaxMessage, int(s.hello.MaxMessage)) {
		return fmt.Errorf("send %d bytes to %s: %w", len(payload), to.Short(), ErrTooLarge)
	}
	if err := s.send(messageFrame(kind, payload), len(payload)); err != nil {
		return fmt.Errorf("send to %s: %w", to.Short(), err)
	}
	return nil
}

// Request asks one peer and waits for its answer, over the bulk connection. It
// waits while too many requests to that peer are under way. A *RemoteError is
// the peer's own; otherwise the error says why there is no answer. The request
// may have been served even then.
func (m *Mesh) Request(ctx context.Context, to key.Public, kind Kind, payload []byte) ([]byte, error) {
	return m.RequestInto(ctx, to, kind, payload, nil)
}

// RequestInto is Request with memory for the answer, which is read into buf if
// its capacity suffices and allocated otherwise. After an error buf may still be
// written to, and the caller must not use it again.
func (m *Mesh) RequestInto(ctx context.Context, to key.Public, kind Kind, payload, buf []byte) ([]byte, error) {
	s := m.session(to)
	if s == nil {
		return nil, fmt.Errorf("request to %s: %w", to.Short(), ErrNotConnected)
	}
	if len(payload) > min(m.config.MaxMessage, int(s.hello.MaxMessage)) {
		return nil, fmt.Errorf("request of %d bytes to %s: %w", len(payload), to.Short(), ErrTooLarge)
	}
	answer, err := s.request(ctx, kind, payload, buf)
	if err != nil {
		return nil, fmt.Errorf("request to %s: %w", to.Short(), err)
	}
	return answer, nil
}

// ReportBad counts a message that turned out bad after Receive had returned,
// against the peer that delivered it. BadMessage and BadSignature count, other
// verdicts do not.
func (m *Mesh) ReportBad(from key.Public, what Verdict) {
	if s := m.session(from); s != nil {
		s.enforce(s.meter.countVerdict(what, time.Now()))
	}
}

func (m *Mesh) session(k key.Public) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byKey[k]
}

// Peers returns the connected peers, ordered by key.
func (m *Mesh) Peers() []PeerInfo {
	var peers []PeerInfo
	for _, s := range *m.sessions.Load() {
		peers = append(peers, PeerInfo{
			Key: s.key, Address: s.address, Inbound: !s.outbound,
			Observer: s.hello.Flags&flagObserver != 0,
			Forwards: s.hello.Flags&flagForwards != 0,
			InUNL:    m.inUNL(s.key),
			Since:    s.since,
			RTT:      time.Duration(s.rtt.Load()),
			Skew:     time.Duration(s.skew.Load()),
			Queued:   s.link.waiting(),
		})
	}
	slices.SortFunc(peers, func(a, b PeerInfo) int { return a.Key.Compare(b.Key) })
	return peers
}

// KnownPeers returns the addresses to be kept for the next start: all that were
// configured, except the node's own, and up to 100 found by discovery that
// answered.
func (m *Mesh) KnownPeers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.book.known()
}

// Unreached is a configured address to which there is no connection.
type Unreached struct {
	Address string
	// Reason is what came of the last attempt, empty before its end.
	Reason string
	// Final says that it is not dialed again: the address is this node's own, or
	// belongs to another contract id.
	Final bool
}

// Unreached returns the configured addresses without a connection, sorted.
func (m *Mesh) Unreached() []Unreached {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Unreached
	for _, e := range m.book.entries {
		if up := e.known && m.byKey[e.key] != nil; e.configured && !e.current && !up {
			list = append(list, Unreached{e.address, e.trouble, e.off != ""})
		}
	}
	slices.SortFunc(list, func(a, b Unreached) int { return strings.Compare(a.Address, b.Address) })
	return list
}

// ChangePeers applies a peer_changeset of the control channel (spec/hotpocket.md
// section 2.6) or of the operator: addresses to add, and to remove or, with
// replaceAll, all others to remove. Connections to removed addresses are
// closed. Adding an address also lifts a refusal remembered for it. If an
// address is malformed nothing is changed.
func (m *Mesh) ChangePeers(add, remove []string, replaceAll bool) error {
	parse := func(list []string) ([]string, error) {
		parsed := make([]string, len(list))
		for i, a := range list {
			var err error
			if parsed[i], err = ParseAddress(a); err != nil {
				return nil, fmt.Errorf("change peers: %w", err)
			}
		}
		return parsed, nil
	}
	add, err := parse(add)
	if err != nil {
		return err
	}
	remove, err = parse(remove)
	if err != nil {
		return err
	}
	now := time.Now()
	m.mu.Lock()
	if replaceAll {
		for a := range m.book.entries {
			remove = append(remove, a)
		}
	}
	keep := make(map[string]bool, len(add))
	kept := make(map[key.Public]bool) // a peer may have several addresses
	for _, a := range add {
		keep[a] = true
		m.book.configure(a, now)
		if e := m.book.entries[a]; e.known {
			kept[e.key] = true
		}
	}
	var gone []*session
	for _, a := range remove {
		if keep[a] {
			continue
		}
		e := m.book.remove(a)
		for _, s := range m.byKey {
			if !kept[s.key] && !keep[s.address] && (s.address == a || e != nil && e.known && e.key == s.key) {
				gone = append(gone, s)
			}
		}
	}
	m.mu.Unlock()
	for _, s := range gone {
		s.shut(errors.New("its address was removed from the known peers"), byeRemoved)
	}
	poke(m.redial)
	return nil
}

// register makes s the session of its key, under m.mu, and returns the session
// whose place it takes.
func (m *Mesh) register(s *session) *session {
	old := m.byKey[s.key]
	if old == nil {
		old = m.ending[s.key]
	}
	m.number++
	s.number = m.number
	m.byKey[s.key] = s
	m.listSessions()
	dialed := ""
	if s.outbound {
		dialed = s.address
	}
	m.book.up(dialed, s.key, time.Now())
	poke(m.announce)
	return old
}

// end says that nothing more is reported of s.
func (m *Mesh) end(s *session) {
	close(s.ended)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ending[s.key] == s {
		delete(m.ending, s.key)
	}
}

// drop ends the registration of s, if it is (still) registered.
func (m *Mesh) drop(s *session, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byKey[s.key] != s {
		return
	}
	delete(m.byKey, s.key)
	// Its PeerDown is still to come, and must before the next PeerUp.
	m.ending[s.key] = s
	m.listSessions()
	now := time.Now()
	m.book.down(s.key, now.Sub(s.since), now, wait, randv2.Float64())
	m.urgent.Store(true)
	poke(m.announce)
	poke(m.redial)
}

func (m *Mesh) listSessions() {
	list := make([]*session, 0, len(m.byKey))
	for _, s := range m.byKey {
		list = append(list, s)
	}
	m.sessions.Store(&list)
}

// ban keeps a peer away for a while.
func (m *Mesh) ban(k key.Public) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for b, until := range m.banned {
		if now.After(until) {
			delete(m.banned, b)
		}
	}
	m.banned[k] = now.Add(m.config.Timing.Penalty)
}

// room returns how many more peers may be dialed, under m.mu.
func (m *Mesh) room() int {
	dialed := m.book.dialed()
	room := math.MaxInt
	if n := m.config.MaxConnections; n > 0 {
		room = n - len(m.byKey) - dialed
	}
	if n := m.config.MaxKnownConnections; n > 0 {
		out := dialed
		for _, s := range m.byKey {
			if s.outbound {
				out++
			}
		}
		room = min(room, n-out)
	}
	return room
}
