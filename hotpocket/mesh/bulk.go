package mesh

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"evernode/internal/wire"
)

const (
	// maxOutstanding is how many requests to one peer are under way at once;
	// further callers wait.
	maxOutstanding = 32
	// maxWaiting is how many requests of one peer wait to be served; an honest
	// peer never has more.
	maxWaiting = 2 * maxOutstanding
)

const (
	statusOK    = 0
	statusError = 1
)

// RemoteError is a peer's answer that it cannot or will not serve a request.
type RemoteError struct{ Text string }

// Error implements error.
func (e *RemoteError) Error() string { return fmt.Sprintf("the peer answered: %q", e.Text) }

var errBulkLost = errors.New("bulk connection was lost")

// bulk is the bulk side of a session: at most one connection, opened when first
// needed and again after it was lost.
type bulk struct {
	s     *session
	slots chan struct{} // one token per request under way

	mu      sync.Mutex
	closed  error
	conn    *bulkConn
	opening *opening
	attempt uint32 // number of the last attempt: dialed, or attached here
}

// opening is an attempt to get a connection, for all who wait for it.
type opening struct {
	done chan struct{}
	err  error
}

func (b *bulk) init(s *session) {
	b.s = s
	b.slots = make(chan struct{}, maxOutstanding)
}

// close ends the connection and all waiting for good.
func (b *bulk) close(cause error) {
	b.mu.Lock()
	conn, opening := b.conn, b.opening
	b.closed, b.conn, b.opening = cause, nil, nil
	b.mu.Unlock()
	if opening != nil {
		opening.err = cause
		close(opening.done)
	}
	if conn != nil {
		conn.close(cause)
	}
}

// get returns the connection, opening it if need be.
func (b *bulk) get(ctx context.Context) (*bulkConn, error) {
	for {
		b.mu.Lock()
		if b.closed != nil || b.conn != nil {
			conn, err := b.conn, b.closed
			b.mu.Unlock()
			return conn, err
		}
		o := b.opening
		if o == nil {
			o = &opening{done: make(chan struct{})}
			b.opening = o
			attempt := b.attempt
			b.mu.Unlock()
			if b.s.outbound {
				b.start(o)
			} else {
				b.s.send(wire.AppendU32(newFrame(frameOpenBulk, 4), attempt), 0)
				b.expire(o)
			}
		} else {
			b.mu.Unlock()
		}
		select {
		case <-o.done:
			if o.err != nil {
				return nil, o.err
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("open bulk connection: %w", ctx.Err())
		}
	}
}

// asked opens the connection because the peer, which cannot, asked for it. The
// last one that the peer attached tells whether it lost the present one, or
// asked before that arrived.
func (b *bulk) asked(attached uint32) {
	b.mu.Lock()
	if b.closed != nil || b.opening != nil || b.conn != nil && b.attempt > attached {
		b.mu.Unlock()
		return
	}
	old := b.conn
	o := &opening{done: make(chan struct{})}
	b.conn, b.opening = nil, o
	b.mu.Unlock()
	if old != nil {
		old.close(errBulkLost)
	}
	b.start(o)
}

// start dials in the background on behalf of o.
func (b *bulk) start(o *opening) {
	if !b.s.mesh.spawn(func() {
		if err := b.connect(); err != nil {
			b.fail(o, fmt.Errorf("open bulk connection: %w", err))
		}
	}) {
		b.fail(o, errStopping)
	}
}

// expire gives the peer as long as a dial and a round trip may take.
func (b *bulk) expire(o *opening) {
	m := b.s.mesh
	m.spawn(func() {
		timer := time.NewTimer(2 * m.config.Timing.HandshakeTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			b.fail(o, errors.New("open bulk connection: the peer did not dial in time"))
		case <-o.done:
		case <-m.ctx.Done():
		}
	})
}

func (b *bulk) fail(o *opening, err error) {
	b.mu.Lock()
	if b.opening != o {
		b.mu.Unlock()
		return
	}
	b.opening = nil
	b.mu.Unlock()
	o.err = err
	close(o.done)
}

// connect dials where the urgent connection went and attaches the result.
func (b *bulk) connect() error {
	m := b.s.mesh
	ctx, cancel := context.WithTimeout(m.ctx, m.config.Timing.HandshakeTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.s.link.raw.RemoteAddr().String())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(m.ctx, func() { raw.Close() })
	defer stop()
	h, err := m.secure(ctx, raw, tls.Client, m.identity.client)
	if err == nil {
		err = b.introduce(h)
	}
	if err != nil {
		raw.Close()
	}
	return err
}

func (b *bulk) introduce(h *handshake) error {
	if h.key != b.s.key {
		return fmt.Errorf("another node, %s, answered", h.key.Short())
	}
	mine := b.s.mesh.hello(classBulk, b.s.hello.Session)
	b.mu.Lock()
	b.attempt++
	mine.Attempt = b.attempt
	b.mu.Unlock()
	if _, err := h.conn.Write(mine.frame()); err != nil {
		return fmt.Errorf("write hello: %w", err)
	}
	theirs, err := h.readHello()
	if err != nil {
		return err
	}
	if theirs.Session != mine.Session || theirs.Class != classBulk {
		return errors.New("hello: answers something else")
	}
	return b.attach(h, mine.Attempt)
}

// acceptBulk takes an accepted bulk connection to its session.
func (m *Mesh) acceptBulk(h *handshake, theirs hello) error {
	s := m.session(h.key)
	if s == nil || s.outbound || s.hello.Session != theirs.Session {
		h.refuse(&ByeError{byeOther, "no session that this bulk connection belongs to"})
		return errors.New("bulk connection without its session")
	}
	if _, err := h.conn.Write(m.hello(classBulk, theirs.Session).frame()); err != nil {
		return fmt.Errorf("write hello: %w", err)
	}
	return s.bulk.attach(h, theirs.Attempt)
}

// attach makes h the bulk connection; the peer that dials a second one has lost
// the first.
func (b *bulk) attach(h *handshake, attempt uint32) error {
	ctx, cancel := context.WithCancel(b.s.mesh.ctx)
	c := &bulkConn{
		b: b, s: b.s, link: h.link(0), ctx: ctx, cancel: cancel,
		calls: make(map[uint32]call), serving: make(map[uint32]context.CancelFunc),
	}
	b.mu.Lock()
	if b.closed != nil {
		b.mu.Unlock()
		cancel()
		return b.closed
	}
	old, o := b.conn, b.opening
	b.conn, b.opening, b.attempt = c, nil, attempt
	b.mu.Unlock()
	if old != nil {
		old.close(errBulkLost)
	}
	if o != nil {
		close(o.done)
	}
	m := b.s.mesh
	if !m.spawn(c.write) || !m.spawn(c.read) {
		c.close(errStopping)
		return errStopping
	}
	return nil
}

// lost ends one connection; the next request opens another.
func (b *bulk) lost(c *bulkConn, cause error) {
	b.mu.Lock()
	if b.conn == c {
		b.conn = nil
	}
	b.mu.Unlock()
	c.close(cause)
}

// bulkConn is one bulk connection.
type bulkConn struct {
	b      *bulk
	s      *session
	link   *link
	ctx    context.Context // of everything served here
	cancel context.CancelFunc

	mu           sync.Mutex
	closed       error
	nextID       uint32
	calls        map[uint32]call
	serving      map[uint32]context.CancelFunc // being served or waiting
	running      int
	waiting      []request
	waitingBytes int
}

// call is a request of ours that is under way.
type call struct {
	answers chan<- answer // buffered for one
	buf     []byte        // takes the payload of the answer if there is room
}

// answer is what a request of ours comes to.
type answer struct {
	payload []byte
	err     error
}

// request is a request of the peer.
type request struct {
	id      uint32
	kind    Kind
	ctx     context.Context
	payload []byte
}

func (c *bulkConn) close(cause error) {
	c.mu.Lock()
	if c.closed != nil {
		c.mu.Unlock()
		return
	}
	c.closed = cause
	calls := c.calls
	c.calls = nil
	c.waiting, c.waitingBytes = nil, 0
	cancels := c.serving
	c.serving = nil
	c.mu.Unlock()
	c.cancel()
	c.link.close(nil)
	for _, cancel := range cancels {
		cancel()
	}
	for _, call := range calls {
		call.answers <- answer{err: cause}
	}
}

func (c *bulkConn) write() {
	err := c.link.writeLoop()
	if err != nil {
		c.b.lost(c, fmt.Errorf("%w: %w", errBulkLost, err))
	}
	c.link.finish()
}

func (c *bulkConn) read() {
	err := c.readFrames()
	if protocol := (*protocolError)(nil); errors.As(err, &protocol) {
		c.s.shut(err, byeOther)
	}
	c.b.lost(c, fmt.Errorf("%w: %w", errBulkLost, err))
}

func (c *bulkConn) readFrames() error {
	for {
		t, size, err := readHead(c.link.in, c.s.mesh.config.MaxMessage)
		if err != nil {
			return err
		}
		if t == frameResponse {
			if err := c.readResponse(size); err != nil {
				return err
			}
			continue
		}
		body, err := readBody(c.link.in, size)
		if err != nil {
			return err
		}
		if err := c.s.meter.countBytes(frameHead+len(body), time.Now()); err != nil {
			c.s.enforce(err)
			return err
		}
		switch t {
		case frameRequest:
			err = c.takeRequest(body)
		case frameCancel:
			if len(body) != 4 {
				return &protocolError{errors.New("cancel is not 4 bytes long")}
			}
			c.cancelled(binary.BigEndian.Uint32(body))
		default:
			err = &protocolError{fmt.Errorf("frame of type %d on the bulk connection", t)}
		}
		if err != nil {
			return err
		}
	}
}

// readResponse reads the body of a response, its payload straight to where the
// caller wants it.
func (c *bulkConn) readResponse(size int) error {
	if size < responseHead {
		return &protocolError{errors.New("response is cut short")}
	}
	var head [responseHead]byte
	if err := fill(c.link.in, head[:]); err != nil {
		return err
	}
	id, status := binary.BigEndian.Uint32(head[:]), head[4]
	c.mu.Lock()
	buf := c.calls[id].buf
	c.mu.Unlock()
	n := size - responseHead
	if n > cap(buf) {
		payload, err := readBody(c.link.in, n)
		if err != nil {
			return err
		}
		return c.takeResponse(id, status, payload)
	}
	// Whoever gives the call up leaves buf to us.
	if err := fill(c.link.in, buf[:n]); err != nil {
		return err
	}
	return c.takeResponse(id, status, buf[:n])
}

// request makes a request of ours over the session's bulk connection.
func (s *session) request(ctx context.Context, kind Kind, payload, buf []byte) ([]byte, error) {
	slots := s.bulk.slots
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for earlier requests: %w", ctx.Err())
	}
	c, err := s.bulk.get(ctx)
	if err != nil {
		<-slots
		return nil, err
	}
	// The slot is free again when the request is over and its frame has left
	// the queue: giving up on many must not fill memory.
	var parts atomic.Int32
	parts.Store(2)
	return c.call(ctx, kind, payload, buf, func() {
		if parts.Add(-1) == 0 {
			<-slots
		}
	})
}

// call sends a request and waits. It sees to it that part is called twice:
// when the call is over, and when its frame is no longer queued.
func (c *bulkConn) call(ctx context.Context, kind Kind, payload, buf []byte, part func()) ([]byte, error) {
	defer part()
	answers := make(chan answer, 1)
	c.mu.Lock()
	if c.closed != nil {
		c.mu.Unlock()
		part()
		return nil, c.closed
	}
	c.nextID++
	id := c.nextID
	c.calls[id] = call{answers, buf}
	c.mu.Unlock()

	left := uint32(0) // no end
	if deadline, ok := ctx.Deadline(); ok {
		left = uint32(min(max(time.Until(deadline).Milliseconds(), 1), 1<<31))
	}
	frame := newFrame(frameRequest, requestHead+len(payload))
	frame = wire.AppendU32(wire.AppendU32(frame, id), left)
	frame = append(append(frame, byte(kind)), payload...)
	if err := c.link.enqueue(frame, nil, part); err != nil {
		c.forget(id)
		part()
		return nil, fmt.Errorf("%w: %w", errBulkLost, err)
	}
	select {
	case a := <-answers:
		return a.payload, a.err
	case <-ctx.Done():
		c.forget(id)
		// Best effort: a lost connection cancels as well.
		_ = c.link.enqueue(wire.AppendU32(newFrame(frameCancel, 4), id), nil, nil)
		return nil, ctx.Err()
	}
}

func (c *bulkConn) forget(id uint32) {
	c.mu.Lock()
	delete(c.calls, id)
	c.mu.Unlock()
}

func (c *bulkConn) takeResponse(id uint32, status byte, payload []byte) error {
	c.mu.Lock()
	call, ok := c.calls[id]
	delete(c.calls, id)
	c.mu.Unlock()
	if !ok { // given up, or never asked for
		err := c.s.meter.countBytes(frameHead+responseHead+len(payload), time.Now())
		c.s.enforce(err)
		return err
	}
	switch {
	case status == statusOK:
		call.answers <- answer{payload: payload}
	case status == statusError && len(payload) <= maxErrorText:
		call.answers <- answer{err: &RemoteError{string(payload)}}
	default:
		err := &protocolError{fmt.Errorf("response with status %d and %d bytes", status, len(payload))}
		call.answers <- answer{err: err}
		return err
	}
	return nil
}

// takeRequest serves a request now or puts it in line. The reader never waits
// here, because answers to our own requests come the same way.
func (c *bulkConn) takeRequest(body []byte) error {
	if len(body) < requestHead {
		return &protocolError{errors.New("request is cut short")}
	}
	r := request{id: binary.BigEndian.Uint32(body), kind: Kind(body[8]), payload: body[requestHead:]}
	left := time.Duration(binary.BigEndian.Uint32(body[4:])) * time.Millisecond
	var cancel context.CancelFunc
	if left > 0 {
		r.ctx, cancel = context.WithTimeout(c.ctx, left)
	} else {
		r.ctx, cancel = context.WithCancel(c.ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil {
		cancel()
		return c.closed
	}
	if _, twice := c.serving[r.id]; twice {
		cancel()
		return &protocolError{fmt.Errorf("request number %d is used twice", r.id)}
	}
	if len(c.serving) >= maxWaiting {
		cancel()
		return &protocolError{fmt.Errorf("more than %d requests at once", maxWaiting)}
	}
	c.serving[r.id] = cancel
	switch {
	case c.running < c.s.mesh.config.ServeConcurrency:
		c.running++
		if !c.s.mesh.spawn(func() { c.serveLoop(r) }) {
			cancel()
			return errStopping
		}
	case c.waitingBytes+len(r.payload) > 2*c.s.mesh.config.MaxMessage:
		cancel()
		text := []byte("too many bytes wait in earlier requests")
		_ = c.link.enqueue(responseFrame(r.id, statusError, len(text)), text, func() { c.finish(r.id) })
	default:
		c.waiting = append(c.waiting, r)
		c.waitingBytes += len(r.payload)
	}
	return nil
}

// responseFrame is a response whose payload of n bytes follows.
func responseFrame(id uint32, status byte, n int) []byte {
	frame := wire.AppendU32(wire.AppendU32(make([]byte, 0, frameHead+responseHead), uint32(1+responseHead+n)), id)
	return append(slices.Insert(frame, 4, byte(frameResponse)), status)
}

// serveLoop serves r and then what waits in line.
func (c *bulkConn) serveLoop(r request) {
	for {
		c.serve(r)
		c.mu.Lock()
		if len(c.waiting) == 0 {
			c.running--
			c.mu.Unlock()
			return
		}
		r = c.waiting[0]
		c.waiting = slices.Delete(c.waiting, 0, 1)
		c.waitingBytes -= len(r.payload)
		c.mu.Unlock()
	}
}

// serve answers one request and stays until the answer has left, so that no
// more answers are held in memory than are served at once.
func (c *bulkConn) serve(r request) {
	defer c.finish(r.id)
	if r.ctx.Err() != nil {
		return
	}
	payload, err := c.s.mesh.handler.Serve(r.ctx, c.s.key, r.kind, r.payload)
	if again := c.s.mesh.recycler; again != nil && err == nil {
		answer := payload
		defer func() { again.Recycle(r.kind, answer) }()
	}
	if r.ctx.Err() != nil {
		return // nobody waits for it any more
	}
	status := byte(statusOK)
	if limit := min(c.s.mesh.config.MaxMessage, int(c.s.hello.MaxMessage)); err == nil && len(payload) > limit {
		err = fmt.Errorf("the answer has %d bytes, at most %d can be sent", len(payload), limit)
		c.s.mesh.log.Error("answer to a request is too large", "peer", c.s.key.Short(), "kind", r.kind, "bytes", len(payload), "limit", limit)
	}
	if err != nil {
		text := err.Error()
		status, payload = statusError, []byte(text[:min(len(text), maxErrorText)])
	}
	left := make(chan struct{})
	if c.link.enqueue(responseFrame(r.id, status, len(payload)), payload, func() { close(left) }) == nil {
		<-left
	}
}

// finish ends what is kept for a request of the peer: it was answered, or
// cancelled by the peer.
func (c *bulkConn) finish(id uint32) {
	c.mu.Lock()
	cancel := c.serving[id]
	delete(c.serving, id)
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// cancelled is the peer's word that it no longer waits.
func (c *bulkConn) cancelled(id uint32) {
	c.mu.Lock()
	cancel := c.serving[id]
	if i := slices.IndexFunc(c.waiting, func(r request) bool { return r.id == id }); i >= 0 {
		c.waitingBytes -= len(c.waiting[i].payload)
		c.waiting = slices.Delete(c.waiting, i, i+1)
		delete(c.serving, id)
	}
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
