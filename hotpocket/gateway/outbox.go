package gateway

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"evernode/internal/usermsg"
)

const (
	// writePiece is how much is written under one deadline.
	writePiece = 64 << 10
	// writeTimeout is how long a user may take to read one piece.
	writeTimeout = 30 * time.Second
	// closeTimeout is how long a closing connection may take to get rid of
	// what waits, and its user to answer.
	closeTimeout = 2 * time.Second
	// keepBuffer is the greatest buffer that is kept for reuse.
	keepBuffer = 64 << 10
	// smallShare is how much may wait for a user even while the memory shared
	// by all is used up.
	smallShare = 64 << 10

	frameBinary = 0x82 // a whole message, binary
	frameClose  = 0x88
)

// closeReply is what clients of the original get when they close.
var closeReply = []byte{frameClose, 6, 0x03, 0xE8, 'B', 'y', 'e', '!'}

var (
	errClosed = errors.New("connection is closed")
	errSlow   = errors.New("user does not read what is sent")
)

// outbox collects what is to be sent to a user and writes it in as few pieces
// as possible: whoever appends starts a flusher unless one runs, and whatever
// comes in while it writes goes out with its next write. An idle connection has
// neither buffer nor goroutine.
type outbox struct {
	conn   net.Conn // TLS
	budget *budget
	counts *counters
	pool   *sync.Pool
	spawn  func(func())
	limit  int
	fail   func(error) // called once, without the lock, when the outbox breaks

	mu       sync.Mutex
	idle     sync.Cond
	buf      *[]byte
	flushing bool
	closing  bool // a close frame is the last thing in buf or has been written
	err      error
}

func (o *outbox) init() { o.idle.L = &o.mu }

// pending returns the buffer to append to, or nil when nothing more can be
// sent. The caller holds the lock and calls commit afterwards.
func (o *outbox) pending() *[]byte {
	if o.err != nil || o.closing {
		return nil
	}
	if o.buf == nil {
		o.buf = o.pool.Get().(*[]byte)
	}
	return o.buf
}

// commit accounts for what was appended since the buffer had length before. It
// releases the lock.
func (o *outbox) commit(before int) {
	added := len(*o.buf) - before
	room := o.budget.take(added)
	if before >= o.limit || (!room && before+added > smallShare) {
		o.breakWith(errSlow)
		return
	}
	start := !o.flushing
	o.flushing = true
	o.mu.Unlock()
	if start {
		o.spawn(o.flush)
	}
}

// breakWith ends the outbox. It is called with the lock and releases it.
func (o *outbox) breakWith(err error) {
	first := o.err == nil
	if first {
		o.err = err
	}
	o.drop()
	o.mu.Unlock()
	if first {
		o.fail(err)
	}
}

// drop forgets what waits.
func (o *outbox) drop() {
	if o.buf != nil {
		o.budget.give(len(*o.buf))
		o.recycle(o.buf)
		o.buf = nil
	}
}

func (o *outbox) recycle(b *[]byte) {
	if cap(*b) <= keepBuffer {
		*b = (*b)[:0]
		o.pool.Put(b)
	}
}

// raw appends bytes that are framed already: what the WebSocket library sends,
// one frame at a time.
func (o *outbox) raw(b []byte) error {
	o.mu.Lock()
	buf := o.pending()
	if buf == nil {
		err := o.err
		o.mu.Unlock()
		if err == nil {
			err = errClosed
		}
		return err
	}
	before := len(*buf)
	isClose := len(b) > 0 && b[0] == frameClose
	if isClose && len(b) == 2 {
		b = closeReply
	}
	*buf = append(*buf, b...)
	if isClose {
		o.closing = true
	}
	o.commit(before)
	return nil
}

// frame appends an encoded message.
func (o *outbox) frame(payload []byte) {
	o.mu.Lock()
	buf := o.pending()
	if buf == nil {
		o.mu.Unlock()
		return
	}
	before := len(*buf)
	*buf = append(appendHeader(*buf, len(payload)), payload...)
	o.counts.frames.Add(1)
	o.commit(before)
}

// message appends a message, encoding it in place.
func (o *outbox) message(m usermsg.Message, p usermsg.Protocol) {
	o.mu.Lock()
	buf := o.pending()
	if buf == nil {
		o.mu.Unlock()
		return
	}
	before := len(*buf)
	// Most messages have 126 to 65535 bytes, whose header takes 4.
	const guess = 4
	b := append(*buf, make([]byte, guess)...)
	b = m.Append(b, p)
	var header [10]byte
	h := appendHeader(header[:0], len(b)-before-guess)
	if len(h) != guess {
		b = append(b, make([]byte, max(0, len(h)-guess))...)
		end := len(b) - max(0, len(h)-guess)
		copy(b[before+len(h):], b[before+guess:end])
		b = b[:end+len(h)-guess]
	}
	copy(b[before:], h)
	*buf = b
	o.counts.frames.Add(1)
	o.commit(before)
}

// appendHeader appends the header of a binary frame with n bytes of payload.
func appendHeader(b []byte, n int) []byte {
	switch {
	case n <= 125:
		return append(b, frameBinary, byte(n))
	case n <= 0xFFFF:
		return binary.BigEndian.AppendUint16(append(b, frameBinary, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, frameBinary, 127), uint64(n))
	}
}

// flush writes until nothing waits any more.
func (o *outbox) flush() {
	o.mu.Lock()
	for o.err == nil && o.buf != nil && len(*o.buf) > 0 {
		chunk := o.buf
		o.buf = nil
		o.mu.Unlock()
		err := o.write(*chunk)
		o.budget.give(len(*chunk))
		o.recycle(chunk)
		o.mu.Lock()
		if err != nil && o.err == nil {
			o.flushing = false
			o.idle.Broadcast()
			o.breakWith(err)
			return
		}
	}
	if o.err != nil {
		o.drop()
	}
	o.flushing = false
	o.idle.Broadcast()
	o.mu.Unlock()
}

func (o *outbox) write(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), writePiece)
		o.mu.Lock()
		if !o.closing {
			o.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		}
		o.mu.Unlock()
		if _, err := o.conn.Write(b[:n]); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				err = errSlow
			}
			return err
		}
		o.counts.writes.Add(1)
		b = b[n:]
	}
	return nil
}

// shut lets nothing more in and bounds the time for what is to go out and for
// the user's answer.
func (o *outbox) shut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closing = true
	o.conn.SetDeadline(time.Now().Add(closeTimeout))
}

// finish waits until everything is written, at most closeTimeout after shut,
// and reports whether it was.
func (o *outbox) finish() bool {
	o.shut()
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.flushing {
		o.idle.Wait()
	}
	clean := o.err == nil
	if clean {
		o.err = errClosed
	}
	o.drop()
	return clean
}
