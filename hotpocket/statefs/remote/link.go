package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/wire"
)

const (
	// maxAsked is how many requests may be out at a time, besides those that
	// only end something.
	maxAsked = 128
	// pingEvery and silence say when a process that does not answer counts as
	// gone: a ping is answered at once, whatever else is at work.
	pingEvery = 5 * time.Second
	silence   = 30 * time.Second
)

// errLost is the error of a call whose connection ended before its reply came.
// Whether it was carried out is not known.
var errLost = errors.New("the connection to the state has ended")

// reply is what a call gets: the body, or an error.
type reply struct {
	body []byte
	err  error
}

// call is a request that waits for its reply. A body that fits goes into into.
type call struct {
	done chan reply
	into []byte
}

// link is one connection to a state. A link that is lost stays so.
type link struct {
	f      *framer
	tell   func(status) // of every status that arrives
	slots  chan struct{}
	gone   chan struct{} // closed when the connection has ended
	opened time.Time

	mu      sync.Mutex
	next    uint32
	pending map[uint32]call
	status  status
	heard   time.Time
	reason  error
}

// dial says hello on conn. An error that the other side has returned is a
// *callError, everything else wraps errLost.
func dial(ctx context.Context, conn net.Conn, h Hello, tell func(status)) (*link, error) {
	l := &link{
		f: newFramer(conn), tell: tell, slots: make(chan struct{}, maxAsked),
		gone: make(chan struct{}), pending: make(map[uint32]call), heard: time.Now(),
	}
	go l.read()
	body, err := l.call(ctx, opHello, h.encode())
	if err == nil {
		r := wire.NewReader(body)
		if v := r.U32(); r.Err() == nil && v != protocol {
			r.Fail(fmt.Errorf("%w: the state speaks version %d", ErrVersion, v))
		}
		err = r.Close()
	}
	if err != nil {
		l.close(err)
		return nil, err
	}
	l.opened = time.Now()
	go l.watch()
	return l, nil
}

// close ends the connection; calls that wait for their reply are lost.
func (l *link) close(reason error) {
	l.mu.Lock()
	if l.reason == nil {
		l.reason = reason
	}
	l.mu.Unlock()
	l.f.conn.Close()
}

// read takes replies until the connection ends.
func (l *link) read() {
	var err error
	for err == nil {
		var fr frame
		if fr, err = l.f.read(l.place); err == nil {
			err = l.take(fr)
		}
	}
	if errors.Is(err, io.EOF) {
		err = errLost
	}
	l.close(err)
	l.mu.Lock()
	pending := l.pending
	l.pending = nil
	l.mu.Unlock()
	close(l.gone)
	for _, c := range pending {
		c.done <- reply{err: errLost}
	}
}

// place finds room for a body where its caller wants it.
func (l *link) place(id uint32, kind uint8, n int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.pending[id]; kind == 0 && n > 0 && n <= cap(c.into) {
		return c.into[:n]
	}
	return nil
}

// take hands a reply to who waits for it.
func (l *link) take(fr frame) error {
	l.mu.Lock()
	l.heard = time.Now()
	c := l.pending[fr.id]
	delete(l.pending, fr.id)
	l.mu.Unlock()
	if fr.id == 0 {
		// Not a reply: the other side refuses to talk at all.
		err := decodeError(wire.NewReader(fr.body))
		l.mu.Lock()
		defer l.mu.Unlock()
		for id, c := range l.pending {
			delete(l.pending, id)
			c.done <- reply{err: err}
		}
		return err
	}
	r := wire.NewReader(fr.body)
	if fr.kind&flagStatus != 0 {
		s := readStatus(r, l.status.patch) // only this goroutine writes it
		if r.Err() != nil {
			if c.done != nil {
				c.done <- reply{err: errLost}
			}
			return fmt.Errorf("status: %w", r.Err())
		}
		l.mu.Lock()
		l.status = s
		l.mu.Unlock()
		l.tell(s)
	}
	body := fr.body[len(fr.body)-r.Len():]
	if c.done == nil {
		return nil // of a call that its caller has given up
	}
	if fr.kind&flagError != 0 {
		c.done <- reply{err: decodeError(wire.NewReader(body))}
		return nil
	}
	c.done <- reply{body: body}
	return nil
}

// watch ends the connection to a process that does not answer any more.
func (l *link) watch() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.gone:
			return
		case <-tick.C:
		}
		l.mu.Lock()
		quiet := time.Since(l.heard)
		l.mu.Unlock()
		if quiet > silence {
			l.close(fmt.Errorf("the state's process has not answered for %v", quiet.Round(time.Second)))
			return
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), silence)
			defer cancel()
			_, _ = l.call(ctx, opPing)
		}()
	}
}

// call sends a request and waits for its reply. When ctx ends, the other side is
// told, and its reply, which says what became of the request, is still waited
// for: what a run has come to must not be guessed.
func (l *link) call(ctx context.Context, o op, parts ...[]byte) ([]byte, error) {
	return l.callInto(ctx, nil, o, parts...)
}

// callInto is call with room for the reply's body, which may be used.
func (l *link) callInto(ctx context.Context, into []byte, o op, parts ...[]byte) ([]byte, error) {
	switch o {
	case opHello, opPing, opRelease, opRollback, opClose:
	default:
		select {
		case l.slots <- struct{}{}:
			defer func() { <-l.slots }()
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.gone:
			return nil, errLost
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := make(chan reply, 1)
	l.mu.Lock()
	if l.pending == nil {
		l.mu.Unlock()
		return nil, errLost
	}
	l.next++
	for l.next == 0 || l.pending[l.next].done != nil {
		l.next++
	}
	id := l.next
	l.pending[id] = call{c, into}
	l.mu.Unlock()
	if err := l.f.write(id, uint8(o), nil, parts...); err != nil {
		l.close(fmt.Errorf("send a request: %w", err))
	}
	select {
	case a := <-c:
		return a.body, a.err
	case <-ctx.Done():
	}
	if o == opHello {
		l.close(ctx.Err())
		return nil, ctx.Err()
	}
	if err := l.f.write(id, uint8(opCancel), nil); err != nil {
		l.close(fmt.Errorf("cancel a request: %w", err))
	}
	a := <-c
	return a.body, a.err
}

// text reads the name of a folder at the end of a body.
func text(r *wire.Reader) (string, error) {
	s := r.String(maxText)
	return s, r.Close()
}

// hash reads a body that is one hash or several.
func hashes(body []byte, into ...[]byte) error {
	r := wire.NewReader(body)
	for _, h := range into {
		r.Fixed(h)
	}
	return r.Close()
}

var _ statefs.State = (*State)(nil)
