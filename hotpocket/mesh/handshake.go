package mesh

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"evernode/hotpocket/key"
)

// maxOpening bounds accepted connections that have not been admitted yet. The
// oldest makes place for a new one: honest peers need only milliseconds.
const maxOpening = 128

// handshake is a connection on its way to become a link.
type handshake struct {
	conn *tls.Conn
	raw  net.Conn
	wide *wideConn
	in   *bufio.Reader
	key  key.Public
}

// secure does TLS and finds out who the other side is. All of it, and what
// follows until established, must happen within the handshake timeout.
func (m *Mesh) secure(ctx context.Context, raw net.Conn, side func(net.Conn, *tls.Config) *tls.Conn, config *tls.Config) (*handshake, error) {
	wide := &wideConn{Conn: raw}
	conn := side(wide, config)
	setUserTimeout(raw, m.config.Timing.DeadAfter)
	raw.SetDeadline(time.Now().Add(m.config.Timing.HandshakeTimeout))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	k, err := peerKey(conn.ConnectionState())
	if err != nil {
		return nil, err
	}
	return &handshake{conn: conn, raw: raw, wide: wide, in: bufio.NewReaderSize(conn, readBuffer), key: k}, nil
}

// readHello reads the first frame; a refusal comes back as a *ByeError.
func (h *handshake) readHello() (hello, error) {
	t, body, err := readFrame(h.in, 0)
	switch {
	case err != nil:
		return hello{}, fmt.Errorf("hello: %w", err)
	case t == frameHello:
		return parseHello(body)
	case t == frameBye:
		return hello{}, parseBye(body)
	}
	return hello{}, fmt.Errorf("frame of type %d instead of a hello", t)
}

// refuse says why and closes.
func (h *handshake) refuse(e *ByeError) {
	h.conn.Write(byeFrame(e.code, e.Text))
	h.raw.Close()
}

// link lifts the handshake's deadline. A limit makes an urgent connection, which
// goes before bulk ones also where this machine sends more than its network
// takes.
func (h *handshake) link(limit int) *link {
	h.raw.SetDeadline(time.Time{})
	l := newLink(h.conn, h.raw, h.in, limit)
	if limit > 0 {
		setLowWater(h.raw, 2*gatherLimit)
		setPriority(h.raw, priorityInteractive)
		return l
	}
	setPriority(h.raw, priorityBulk)
	h.wide.widen()
	l.wide = h.wide
	return l
}

func (m *Mesh) hello(c class, session [16]byte) hello {
	h := hello{
		Contract: m.contract, Class: c, Session: session, Instance: m.instance,
		Port: m.port, MaxMessage: uint32(m.config.MaxMessage), Time: unixMilli(time.Now()),
	}
	if m.config.Observer {
		h.Flags |= flagObserver
	}
	if m.config.Forward {
		h.Flags |= flagForwards
	}
	return h
}

// acceptLoop accepts connections until the listener is closed.
func (m *Mesh) acceptLoop() {
	for {
		raw, err := m.config.Listener.Accept()
		if err != nil {
			if m.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			m.log.Warn("cannot accept peers, trying again", "error", err)
			select {
			case <-m.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		m.mu.Lock()
		if m.stopped {
			m.mu.Unlock()
			raw.Close()
			return
		}
		if len(m.opening) >= maxOpening {
			var oldest net.Conn
			for c, n := range m.opening {
				if oldest == nil || n < m.opening[oldest] {
					oldest = c
				}
			}
			oldest.Close()
			delete(m.opening, oldest)
			m.log.Warn("too many connections wait for admission, closed the oldest", "from", oldest.RemoteAddr())
		}
		m.opened++
		m.opening[raw] = m.opened
		m.spawnLocked(func() {
			err := m.accept(raw)
			m.mu.Lock()
			delete(m.opening, raw)
			m.mu.Unlock()
			if err != nil {
				raw.Close()
				m.log.Debug("connection was not admitted", "from", raw.RemoteAddr(), "error", err)
			}
		})
		m.mu.Unlock()
	}
}

// accept takes an accepted connection to its admission.
func (m *Mesh) accept(raw net.Conn) error {
	h, err := m.secure(m.ctx, raw, tls.Server, m.identity.server)
	if err != nil {
		return err
	}
	theirs, err := h.readHello()
	if err != nil {
		if version := versionError(0); errors.As(err, &version) {
			h.refuse(&ByeError{byeVersion, fmt.Sprintf("this node speaks mesh protocol version %d only", protocolVersion)})
		}
		return err
	}
	if h.key == m.self {
		// The dialer compares the instances and draws the conclusions.
		_, err := h.conn.Write(m.hello(theirs.Class, theirs.Session).frame())
		raw.Close()
		return err
	}
	if theirs.Contract != m.contract {
		h.refuse(&ByeError{byeContract, "this node belongs to another contract id"})
		return fmt.Errorf("peer %s belongs to another contract id", h.key.Short())
	}
	if theirs.Class == classBulk {
		return m.acceptBulk(h, theirs)
	}
	host := hostOf(raw.RemoteAddr())
	address := ""
	if theirs.Port != 0 {
		address, _ = ParseAddress(net.JoinHostPort(host, fmt.Sprint(theirs.Port)))
	}
	s := m.newSession(h, theirs, false, address)
	if refusal := m.admit(s); refusal != nil {
		h.refuse(refusal)
		return fmt.Errorf("refused peer %s: %s", h.key.Short(), refusal.Text)
	}
	if _, err := h.conn.Write(m.hello(classUrgent, theirs.Session).frame()); err != nil {
		s.cutShort(fmt.Errorf("write hello: %w", err))
		return err
	}
	m.begin(s)
	if m.config.Discovery && address != "" {
		m.learn([]string{address})
	}
	return nil
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// dialResult is what came of an attempt to connect, besides errors.
var (
	errSelf       = errors.New(selfAddress)
	errSelfTwice  = errors.New("another node uses this node's key")
	errBusy       = errors.New("the peer is connected already")
	errOtherChain = errors.New("it belongs to another contract id")
	errStopping   = errors.New("this node stops")
)

// connect dials an address and takes the connection to a running session. The
// key is set if it became known.
func (m *Mesh) connect(address string) (key.Public, error) {
	ctx, cancel := context.WithTimeout(m.ctx, m.config.Timing.HandshakeTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return key.Public{}, err
	}
	h, err := m.secure(ctx, raw, tls.Client, m.identity.client)
	if err != nil {
		raw.Close()
		return key.Public{}, err
	}
	if err := m.introduce(h, address); err != nil {
		raw.Close()
		return h.key, err
	}
	return h.key, nil
}

// introduce is the dialer's side of the hello.
func (m *Mesh) introduce(h *handshake, address string) error {
	if h.key != m.self {
		m.mu.Lock()
		if m.banned[h.key].After(time.Now()) {
			m.mu.Unlock()
			return &ByeError{byeLimit, "kept away after it broke a limit"}
		}
		_, twice := m.pending[h.key]
		if m.byKey[h.key] != nil || twice {
			m.mu.Unlock()
			return errBusy
		}
		m.pending[h.key] = struct{}{}
		m.mu.Unlock()
		defer func() {
			m.mu.Lock()
			delete(m.pending, h.key)
			m.mu.Unlock()
		}()
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("random session id: %w", err)
	}
	// A peer that stops or is gone must not keep Run waiting.
	stop := context.AfterFunc(m.ctx, func() { h.raw.Close() })
	defer stop()
	if _, err := h.conn.Write(m.hello(classUrgent, id).frame()); err != nil {
		return fmt.Errorf("write hello: %w", err)
	}
	theirs, err := h.readHello()
	if err != nil {
		return err
	}
	switch {
	case h.key == m.self && theirs.Instance == m.instance:
		return errSelf
	case h.key == m.self:
		return errSelfTwice
	case theirs.Contract != m.contract:
		return errOtherChain
	case theirs.Session != id || theirs.Class != classUrgent:
		return errors.New("hello: answers something else")
	}
	s := m.newSession(h, theirs, true, address)
	if refusal := m.admit(s); refusal != nil {
		if refusal.code == byeDuplicate {
			return errBusy
		}
		return refusal
	}
	m.begin(s)
	return nil
}

func (m *Mesh) newSession(h *handshake, theirs hello, outbound bool, address string) *session {
	now := time.Now()
	s := &session{
		mesh: m, key: h.key, hello: theirs, outbound: outbound, address: address,
		host: hostOf(h.raw.RemoteAddr()), since: now,
		link:  h.link(m.config.QueueBytes),
		meter: newMeter(&m.config), ended: make(chan struct{}),
	}
	s.bulk.init(s)
	s.skew.Store(int64(time.UnixMilli(int64(theirs.Time & (1<<52 - 1))).Sub(now)))
	s.touch()
	return s
}

// admit decides whether s becomes the session of its peer, and registers it.
// Nothing is read or written on it before begin.
func (m *Mesh) admit(s *session) *ByeError {
	m.mu.Lock()
	victim, refusal := m.admitLocked(s)
	if refusal != nil {
		m.mu.Unlock()
		return refusal
	}
	s.prev = m.register(s)
	m.mu.Unlock()
	if s.prev != nil {
		s.prev.shut(errors.New("a newer connection took its place"), byeReplaced)
	}
	if victim != nil {
		victim.shut(errors.New("its place was needed for a member of the UNL"), byeFull)
	}
	return nil
}

// admitLocked decides. If the newcomer takes the place of another peer, that
// is returned.
func (m *Mesh) admitLocked(s *session) (victim *session, refusal *ByeError) {
	if m.stopped {
		return nil, &ByeError{byeShutdown, errStopping.Error()}
	}
	if m.banned[s.key].After(time.Now()) {
		return nil, &ByeError{byeLimit, "kept away for breaking a limit"}
	}
	old := m.byKey[s.key]
	if s.outbound {
		// introduce saw no session, so old was accepted meanwhile.
		if old != nil {
			return nil, &ByeError{byeDuplicate, "already connected"}
		}
		if m.book.entries[s.address] == nil {
			return nil, &ByeError{byeRemoved, "its address was removed from the known peers"}
		}
	} else if refusal := m.duplicate(s, old); refusal != nil {
		return nil, refusal
	}
	if old != nil {
		return nil, nil
	}
	if n := m.config.MaxInPerHost; n > 0 && !s.outbound {
		for _, o := range m.byKey {
			if !o.outbound && o.host == s.host {
				n--
			}
		}
		if n <= 0 {
			return nil, &ByeError{byeFull, "too many connections from one host (mesh.max_in_connections_per_host)"}
		}
	}
	if n := m.config.MaxConnections; n > 0 && len(m.byKey) >= n {
		full := &ByeError{byeFull, "no room for more peers (mesh.max_connections)"}
		if !m.inUNL(s.key) {
			return nil, full
		}
		for _, o := range m.byKey {
			if !m.inUNL(o.key) && (victim == nil || o.number > victim.number) {
				victim = o
			}
		}
		if victim == nil {
			return nil, full
		}
	}
	return victim, nil
}

// duplicate decides about an accepted connection when there is, or is about to
// be, another one with the same peer.
func (m *Mesh) duplicate(s, old *session) *ByeError {
	smaller := m.self.Compare(s.key) < 0
	if _, dialing := m.pending[s.key]; dialing && smaller {
		return &ByeError{byeDuplicate, "our own connection to you is under way"}
	}
	// A peer does not dial while it knows of a session. So either it lost the
	// old one, or it said its hello before it learned of the one that we had
	// dialed, which can only be very young.
	if old != nil && old.outbound && smaller && old.hello.Instance == s.hello.Instance &&
		time.Since(old.since) < m.config.Timing.HandshakeTimeout {
		return &ByeError{byeDuplicate, "already connected"}
	}
	return nil
}

// begin starts the goroutines of an admitted session.
func (m *Mesh) begin(s *session) {
	if !m.spawn(s.write) {
		s.cutShort(errStopping)
		return
	}
	if !m.spawn(s.read) {
		s.shut(errStopping, byeShutdown)
		m.end(s)
	}
}

// cutShort ends a session whose goroutines never started, and whose peer was
// never reported up.
func (s *session) cutShort(cause error) {
	s.shut(cause, byeNone)
	s.link.finish()
	if s.prev != nil {
		<-s.prev.ended
	}
	s.mesh.end(s)
}
