package mesh

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"slices"
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
	// quickFrame is the longest frame, in bytes, that goes before longer ones on
	// an urgent connection.
	quickFrame = 16 << 10
	// byeTime is how long a last frame may take to leave.
	byeTime = 500 * time.Millisecond
)

// item is one frame in a send queue, in one or two parts. release, if set, is called exactly once:
// when the frame was handed to the network or never will be.
type item struct {
	frame   []byte
	rest    []byte
	release func()
}

func (it *item) cost() int { return len(it.frame) + len(it.rest) + itemCost }

// link is one established TLS connection: a bounded queue, the goroutine that
// writes it out, and the buffered reader for the goroutine that reads. On an
// urgent connection short frames overtake long ones, so that a vote does not
// wait for bundles of inputs; each sort keeps its order.
type link struct {
	conn   *tls.Conn
	raw    net.Conn
	wide   *wideConn // below conn on a bulk connection
	in     *bufio.Reader
	urgent bool
	limit  int // of queued bytes, 0 is none

	wake chan struct{} // there is something to write
	done chan struct{} // closed: no more frames

	mu     sync.Mutex
	quick  []item
	long   []item
	queued int // bytes waiting or being written
	closed bool
	bye    bool // write what is queued before closing
}

// newLink makes the link of an urgent connection, whose queue has a limit, or
// of a bulk connection with limit 0, whose users bound what they queue.
func newLink(conn *tls.Conn, raw net.Conn, in *bufio.Reader, limit int) *link {
	return &link{
		conn: conn, raw: raw, in: in, urgent: limit > 0, limit: limit,
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
}

// enqueue queues a frame, of which rest may be the end, and never blocks. The
// frame may be shared and must not change before release. On an error release is
// not called.
func (l *link) enqueue(frame, rest []byte, release func()) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return errLinkClosed
	}
	it := item{frame, rest, release}
	cost := it.cost()
	if l.limit > 0 && l.queued+cost > l.limit {
		l.mu.Unlock()
		return errOverflow
	}
	if l.urgent && len(frame) > quickFrame {
		l.long = append(l.long, it)
	} else {
		l.quick = append(l.quick, it)
	}
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
// the short frames queued before it are still written if the network takes
// them within byeTime; without one the connection is cut at once.
func (l *link) close(bye []byte) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	if bye != nil {
		l.bye = true
		l.quick = append(l.quick, item{frame: bye})
	}
	l.mu.Unlock()
	if bye != nil {
		l.raw.SetWriteDeadline(time.Now().Add(byeTime))
	} else {
		l.raw.Close()
	}
	close(l.done)
}

// writeLoop writes queued frames until the link is closed or the network fails,
// which it returns. The owner then calls finish.
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
			if len(l.quick)+len(l.long) == 0 || l.closed && (!l.bye || len(l.quick) == 0) {
				l.mu.Unlock()
				break
			}
			batch, l.quick = l.quick, batch[:0]
			if len(l.long) > 0 && !l.closed { // one at a time, to look for quick ones in between
				batch = append(batch, l.long[0])
				l.long = slices.Delete(l.long, 0, 1)
			}
			l.mu.Unlock()

			buffer, err = l.write(batch, buffer)
			cost := 0
			for i, it := range batch {
				cost += it.cost()
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
	return err
}

// write writes the batch in as few writes as possible, copying short frames
// together into buffer, which it returns for the next time.
func (l *link) write(batch []item, buffer []byte) ([]byte, error) {
	buffer = buffer[:0]
	for _, it := range batch {
		for _, part := range [2][]byte{it.frame, it.rest} {
			if len(buffer) > 0 && len(buffer)+len(part) > gatherLimit {
				if _, err := l.conn.Write(buffer); err != nil {
					return buffer, err
				}
				buffer = buffer[:0]
			}
			if len(part) > gatherLimit/2 && len(buffer) == 0 {
				if _, err := l.conn.Write(part); err != nil {
					return buffer, err
				}
				continue
			}
			buffer = append(buffer, part...)
		}
	}
	if len(buffer) > 0 {
		if _, err := l.conn.Write(buffer); err != nil {
			return buffer, err
		}
	}
	if l.wide != nil {
		return buffer, l.wide.flush()
	}
	return buffer, nil
}

// finish closes the connection and gives up what is still queued, after
// writeLoop has ended or if it never began.
func (l *link) finish() {
	l.close(nil)
	l.raw.Close()
	l.mu.Lock()
	queue := slices.Concat(l.quick, l.long)
	l.quick, l.long, l.queued = nil, nil, 0
	l.mu.Unlock()
	for _, it := range queue {
		if it.release != nil {
			it.release()
		}
	}
}
