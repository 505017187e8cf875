package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"
)

// Close codes of RFC 6455 and its registry.
const (
	closeGoingAway = 1001
	closePolicy    = 1008
	closeTooLarge  = 1009
	closeTryLater  = 1013
)

const (
	// maxRequest is how long the HTTP request may be.
	maxRequest = 16 << 10
	// maxHandshake is how long a message may be before its user is verified.
	maxHandshake = 4 << 10
	// readBuffer is the size of a connection's read buffer. Longer payloads are
	// read past it.
	readBuffer = 2 << 10
	// largeMessage is from where on messages being received count towards the
	// memory shared by all.
	largeMessage = 64 << 10
)

// connection is one TCP connection of a user. To the WebSocket library it is
// the network: what it reads comes checked frame by frame, what it writes goes
// to the outbox.
type connection struct {
	net.Conn // TLS
	g        *Gateway
	raw      net.Conn // TCP
	addr     netip.Prefix
	out      outbox

	// These belong to the reading goroutine.
	requestLeft int // bytes that the HTTP request may still have; -1 afterwards
	frames      frameGuard
	bytes       meter

	verified atomic.Bool
	closed   atomic.Bool // by us; what still comes in is ignored

	mu        sync.Mutex
	upgrading bool      // the user may see the WebSocket open from now on
	socket    *gws.Conn // nil until upgraded
	badly     meter     // bad messages
	code      uint16    // with which it was closed by us
	reason    string    // why it was closed by us
}

func (g *Gateway) accept(ctx context.Context, raw net.Conn) {
	addr := hostOf(raw.RemoteAddr())
	if err := g.hosts.enter(addr); err != nil {
		g.counts.refused.Add(1)
		g.log.Debug("user connection refused", "host", addr, "reason", err)
		raw.Close()
		return
	}
	g.counts.accepted.Add(1)
	c := &connection{
		Conn: tls.Server(raw, g.cert.config()), g: g, raw: raw, addr: addr, requestLeft: maxRequest,
		bytes: meter{limit: g.limits.MaxBytesPerMinute},
		badly: meter{limit: g.limits.MaxBadMessagesPerMinute},
	}
	c.frames = frameGuard{limit: maxHandshake, budget: &g.budget}
	c.out = outbox{conn: c.Conn, budget: &g.budget, counts: &g.counts, pool: &g.buffers, spawn: g.spawn, limit: g.limits.SendBuffer, fail: c.broken}
	c.out.init()
	g.mu.Lock()
	closing := g.closing
	if !closing {
		g.conns[c] = struct{}{}
	}
	g.mu.Unlock()
	if closing {
		raw.Close()
		return
	}
	g.wait.Go(func() { c.serve(ctx) })
}

func (g *Gateway) spawn(f func()) { g.wait.Go(f) }

// serve runs the connection to its end.
func (c *connection) serve(ctx context.Context) {
	g := c.g
	s := &session{conn: c}
	defer func() {
		// The WebSocket library parses what strangers send. Should that ever
		// panic, it costs their connection and not the node. A panic of the
		// node itself is not swallowed: it may hold its locks.
		if p := recover(); p != nil {
			if s.inNode {
				panic(p)
			}
			g.log.Error("panic while serving a user", "host", c.addr, "panic", p, "stack", string(debug.Stack()))
		}
		c.end(s)
	}()
	socket, err := c.open(ctx)
	if err != nil {
		g.log.Debug("user connection failed", "host", c.addr, "error", err)
		return
	}
	s = socket.Session().(*session)
	s.conn, s.socket = c, socket
	c.mu.Lock()
	c.socket = socket
	closed, code, reason := c.closed.Load(), c.code, c.reason
	c.mu.Unlock()
	if closed {
		socket.WriteClose(code, []byte(reason))
		return
	}
	s.stopTimer = g.clock.AfterFunc(handshakeTimeout, func() {
		if !c.verified.Load() {
			c.close(closePolicy, "handshake took too long")
		}
	})
	socket.ReadLoop()
}

// open takes the connection through TLS and the HTTP upgrade.
func (c *connection) open(ctx context.Context) (*gws.Conn, error) {
	c.raw.SetDeadline(time.Now().Add(connectTimeout))
	if err := c.Conn.(*tls.Conn).HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	br := bufio.NewReaderSize(c, readBuffer)
	req, err := http.ReadRequest(br)
	if err != nil {
		return nil, fmt.Errorf("HTTP request: %w", err)
	}
	if br.Buffered() > 0 {
		return nil, errors.New("HTTP request is followed by something before it was answered")
	}
	c.requestLeft = -1
	c.raw.SetDeadline(time.Time{})
	c.mu.Lock()
	c.upgrading = !c.closed.Load()
	c.mu.Unlock()
	if !c.upgrading {
		return nil, errClosed
	}
	socket, err := c.g.upgrade.UpgradeFromConn(c, br, req)
	if err != nil {
		return nil, fmt.Errorf("WebSocket upgrade: %w", err)
	}
	return socket, nil
}

// end cleans up after the connection.
func (c *connection) end(s *session) {
	g := c.g
	if s.stopTimer != nil {
		s.stopTimer()
	}
	verified := c.verified.Load()
	if verified {
		g.leave(s)
		s.cancel()
	}
	c.closed.Store(true)
	g.reads.forget(s)
	if c.out.finish() {
		c.linger()
	}
	c.raw.Close()
	c.frames.release()
	if !verified && !s.full {
		g.counts.failedHandshakes.Add(1)
	}
	g.hosts.exit(c.addr, verified, s.full)
	g.mu.Lock()
	delete(g.conns, c)
	g.mu.Unlock()
}

// linger lets the user take what was written last: closing a TCP connection
// with unread bytes resets it, and the close frame with its reason would be
// lost. The deadline is that of the outbox's end.
func (c *connection) linger() {
	if c.Conn.(*tls.Conn).CloseWrite() != nil {
		return
	}
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
	io.Copy(io.Discard, c.raw)
}

// close ends the connection from our side, with a reason for the user if the
// WebSocket is open. It does not wait.
func (c *connection) close(code uint16, reason string) {
	c.mu.Lock()
	first := !c.closed.Swap(true)
	if first {
		c.code, c.reason = code, reason
	}
	socket, upgrading := c.socket, c.upgrading
	c.mu.Unlock()
	if !first {
		return
	}
	c.g.log.Debug("closing user connection", "host", c.addr, "reason", reason)
	c.g.reads.wake()
	switch {
	case socket != nil:
	case upgrading:
		return // serve says it, once the answer to the HTTP request is out
	default:
		c.raw.Close()
		return
	}
	socket.WriteClose(code, []byte(reason))
}

// broken is what the outbox calls when it cannot go on.
func (c *connection) broken(err error) {
	if errors.Is(err, errSlow) {
		c.g.counts.slowReaders.Add(1)
		c.g.log.Warn("closing user connection", "host", c.addr, "reason", err)
	}
	c.closed.Store(true)
	c.g.reads.wake()
	c.raw.Close()
}

// Read implements net.Conn for the WebSocket library.
func (c *connection) Read(p []byte) (int, error) {
	if c.requestLeft >= 0 {
		if c.requestLeft == 0 {
			return 0, fmt.Errorf("HTTP request is longer than %d bytes", maxRequest)
		}
		n, err := c.Conn.Read(p[:min(len(p), c.requestLeft)])
		c.requestLeft -= n
		return n, err
	}
	if !c.verified.Load() {
		// Nothing is read ahead while the user may become verified by what is
		// read: the next message falls under other limits.
		p = p[:min(len(p), c.frames.want())]
	} else {
		c.frames.limit = c.g.limits.MaxMessage
	}
	n, err := c.Conn.Read(p)
	if n > 0 && c.bytes.limit > 0 && !c.bytes.add(c.g.clock.Now(), uint64(n)) {
		c.g.counts.overLimit.Add(1)
		c.close(closePolicy, "too many bytes in a minute")
		return 0, errClosed
	}
	if code, problem := c.frames.inspect(p[:n]); problem != "" {
		c.close(code, problem)
		return 0, errors.New(problem)
	}
	return n, err
}

// Write implements net.Conn for the WebSocket library.
func (c *connection) Write(p []byte) (int, error) {
	if err := c.out.raw(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements net.Conn for the WebSocket library. What waits is still
// written; serve closes the network when reading has ended.
func (c *connection) Close() error {
	c.out.shut()
	return nil
}

// The deadlines are ours, not the WebSocket library's.

// SetDeadline does nothing.
func (c *connection) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *connection) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *connection) SetWriteDeadline(time.Time) error { return nil }

// frameGuard follows the frames of a connection before the WebSocket library
// sees them. The library allocates by the length in a frame's header; the guard
// sees to it that this length is within the limit and within what all
// connections may use together.
type frameGuard struct {
	limit  int // of one message
	budget *budget

	header  [14]byte
	have    int  // bytes of the header
	left    int  // bytes of the payload to come
	control bool // the frame is a control frame
	last    bool // it is the last frame of its message
	message int  // size of the message so far
	claimed int  // of which taken from the budget
}

// headerSize returns the length of the header, as far as it can be told.
func (f *frameGuard) headerSize() int {
	n := 2
	if f.have < 2 {
		return n
	}
	switch f.header[1] & 0x7F {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.header[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// want returns how many bytes can be read without going beyond the current
// frame, at least 1.
func (f *frameGuard) want() int {
	if f.left > 0 {
		return f.left
	}
	return f.headerSize() - f.have
}

// inspect follows b. It returns a close code and the problem when there is one.
func (f *frameGuard) inspect(b []byte) (code uint16, problem string) {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, len(b))
			f.left -= n
			b = b[n:]
			f.frameEnd()
			continue
		}
		n := copy(f.header[f.have:f.headerSize()], b)
		f.have += n
		b = b[n:]
		if f.have < 2 || f.have < f.headerSize() {
			continue
		}
		if code, problem = f.frameStart(); problem != "" {
			return code, problem
		}
		f.frameEnd()
	}
	return 0, ""
}

func (f *frameGuard) frameStart() (code uint16, problem string) {
	size := uint64(f.header[1] & 0x7F)
	switch size {
	case 126:
		size = uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		size = binary.BigEndian.Uint64(f.header[2:])
	}
	f.control = f.header[0]&0x08 != 0
	f.last = f.header[0]&0x80 != 0
	if size > uint64(f.limit) {
		return closeTooLarge, "message is too large"
	}
	f.left = int(size)
	if f.control {
		return 0, ""
	}
	f.message += f.left
	if f.message > f.limit {
		return closeTooLarge, "message is too large"
	}
	if f.message > largeMessage {
		more := f.message - f.claimed
		f.claimed += more
		if !f.budget.take(more) {
			return closeTryLater, "node has no memory for large messages now"
		}
	}
	return 0, ""
}

func (f *frameGuard) frameEnd() {
	if f.left > 0 {
		return
	}
	f.have = 0
	if f.last && !f.control {
		f.release()
	}
}

func (f *frameGuard) release() {
	f.budget.give(f.claimed)
	f.claimed, f.message = 0, 0
}
