package mesh

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

var (
	errLinkClosed = errors.New("connection is closed")
	errOverflow   = errors.New("send queue is full")
)

const (
	readBuffer = 32 << 10
	// gatherLimit is how many bytes of queued frames are put into one write.
	gatherLimit = 64 << 10
	// itemCost is what a queued frame costs besides its bytes.
	itemCost = 64
	// byeTime is how long a last frame may take to leave.
	byeTime = 500 * time.Millisecond
)

// item is one frame in a send queue. release, if set, is called exactly once:
// when the frame was handed to the network or never will be.
type item struct {
	frame   []byte
	release func()
}

// link is one established TLS connection: a bounded queue, the goroutine that
// writes it out, and the buffered reader for the goroutine that reads.
type link struct {
	conn  *tls.Conn
	raw   net.Conn
	in    *bufio.Reader
	limit int // of queued bytes, 0 is none

	wake chan struct{} // there is something to write
	done chan struct{} // closed: no more frames

	mu     sync.Mutex
	queue  []item
	queued int // bytes waiting or being written
	closed bool
	bye    bool // write what is queued before closing
}

func newLink(conn *tls.Conn, raw net.Conn, in *bufio.Reader, limit int) *link {
	return &link{
		conn: conn, raw: raw, in: in, limit: limit,
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
}

// enqueue queues a frame and never blocks. The frame may be shared and must
// not change. On an error release is not called.
func (l *link) enqueue(frame []byte, release func()) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return errLinkClosed
	}
	cost := len(frame) + itemCost
	if l.limit > 0 && l.queued+cost > l.limit {
		l.mu.Unlock()
		return errOverflow
	}
	l.queue = append(l.queue, item{frame, release})
	l.queued += cost
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// waiting returns the number of bytes not yet handed to the network.
func (l *link) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queued
}

// close ends the link; only the first call counts. With a bye frame, that and
// what is queued are still written if the network takes them within byeTime;
// without one the connection is cut at once.
func (l *link) close(bye []byte) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	if bye != nil {
		l.bye = true
		l.queue = append(l.queue, item{frame: bye})
	}
	l.mu.Unlock()
	if bye != nil {
		l.raw.SetWriteDeadline(time.Now().Add(byeTime))
	} else {
		l.raw.Close()
	}
	close(l.done)
}

// writeLoop writes queued frames until the link is closed, and then closes the
// connection. It returns the error that the network gave, if any; the owner
// then closes the link.
func (l *link) writeLoop() error {
	var (
		batch  []item
		buffer = make([]byte, 0, 4<<10)
		err    error
	)
	for open := true; open && err == nil; {
		select {
		case <-l.wake:
		case <-l.done:
			open = false
		}
		for err == nil {
			l.mu.Lock()
			if len(l.queue) == 0 || (l.closed && !l.bye) {
				l.mu.Unlock()
				break
			}
			batch, l.queue = l.queue, batch[:0]
			l.mu.Unlock()

			buffer, err = l.write(batch, buffer)
			cost := 0
			for i, it := range batch {
				cost += len(it.frame) + itemCost
				if it.release != nil {
					it.release()
				}
				batch[i] = item{}
			}
			l.mu.Lock()
			l.queued -= cost
			l.mu.Unlock()
		}
	}
	l.raw.Close()
	return err
}

// write writes the batch in as few writes as possible, copying short frames
// together into buffer, which it returns for the next time.
func (l *link) write(batch []item, buffer []byte) ([]byte, error) {
	buffer = buffer[:0]
	for _, it := range batch {
		if len(buffer) > 0 && len(buffer)+len(it.frame) > gatherLimit {
			if _, err := l.conn.Write(buffer); err != nil {
				return buffer, err
			}
			buffer = buffer[:0]
		}
		if len(it.frame) > gatherLimit/2 && len(buffer) == 0 {
			if _, err := l.conn.Write(it.frame); err != nil {
				return buffer, err
			}
			continue
		}
		buffer = append(buffer, it.frame...)
	}
	if len(buffer) > 0 {
		if _, err := l.conn.Write(buffer); err != nil {
			return buffer, err
		}
	}
	return buffer, nil
}

// drain gives up what is still queued after the link was closed and its writer
// has ended.
func (l *link) drain() {
	l.mu.Lock()
	queue := l.queue
	l.queue, l.queued = nil, 0
	l.mu.Unlock()
	for _, it := range queue {
		if it.release != nil {
			it.release()
		}
	}
}
