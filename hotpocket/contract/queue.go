package contract

import "golang.org/x/sys/unix"

// packetQueue holds packets for a SEQPACKET socket of the contract that it has
// not made room for. Sending never blocks: what exceeds the bounds is refused.
type packetQueue struct {
	fd       int
	items    []queued
	bytes    int
	waiting  bool // the loop watches for room in the socket
	broken   bool // the contract closed its end or the node did
	deaf     bool // nothing more will be read from it
	messages int  // whole messages in items
	dropped  int  // messages refused
	sent     int  // packets handed to the socket
}

// queued is a packet; last marks the end of a message, which may take several
// packets.
type queued struct {
	data []byte
	last bool
}

// Bounds of a packetQueue: the original's number of messages and a number of
// bytes that it does not have.
const (
	maxQueuedMessages = 1023
	maxQueuedBytes    = 32 << 20
)

// push sends a message of one or more packets, or queues it. It reports whether
// the caller must begin to watch for room in the socket.
func (q *packetQueue) push(packets ...[]byte) (watch bool) {
	if q.broken {
		return false
	}
	size := 0
	for _, p := range packets {
		size += len(p)
	}
	if q.messages >= maxQueuedMessages || q.bytes+size > maxQueuedBytes {
		q.dropped++
		return false
	}
	for i, p := range packets {
		q.items = append(q.items, queued{p, i == len(packets)-1})
	}
	q.messages++
	q.bytes += size
	if q.waiting {
		return false
	}
	return q.flush()
}

// flush sends what fits. It reports whether packets remain and nobody watches
// for room yet.
func (q *packetQueue) flush() (watch bool) {
	for len(q.items) > 0 && !q.broken {
		err := unix.Send(q.fd, q.items[0].data, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			q.sent++
			q.bytes -= len(q.items[0].data)
			if q.items[0].last {
				q.messages--
			}
			q.items[0].data = nil
			q.items = q.items[1:]
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS:
			watch = !q.waiting
			q.waiting = true
			return watch
		default: // EPIPE or ECONNRESET: nobody will read any more
			q.stop()
			return false
		}
	}
	if len(q.items) == 0 {
		q.items = nil
	}
	q.waiting = false
	return false
}

// stop gives up what is queued and refuses what follows.
func (q *packetQueue) stop() {
	q.broken, q.waiting = true, false
	q.items, q.bytes, q.messages = nil, 0, 0
}
