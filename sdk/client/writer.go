package client

import (
	"net"
	"sync"
	"time"
)

const (
	// writeAhead is how much may wait to be written; whoever has more waits.
	writeAhead = 1 << 20
	// writeTimeout is how long a node may take to read what is written at once.
	writeTimeout = 30 * time.Second
	// closeTimeout is how long a closing connection may take.
	closeTimeout = time.Second
)

// writer writes what many goroutines have to say in few pieces: what comes in
// while it writes goes out with the next write.
type writer struct {
	net.Conn

	mu       sync.Mutex
	changed  sync.Cond
	buf      []byte
	spare    []byte
	flushing bool
	closing  bool
	err      error
}

func newWriter(conn net.Conn) *writer {
	w := &writer{Conn: conn}
	w.changed.L = &w.mu
	return w
}

// Write queues p, waiting while too much waits already.
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && len(w.buf) > writeAhead {
		w.changed.Wait()
	}
	if w.err != nil {
		return 0, w.err
	}
	w.buf = append(w.buf, p...)
	if !w.flushing {
		w.flushing = true
		go w.flush()
	}
	return len(p), nil
}

func (w *writer) flush() {
	w.mu.Lock()
	for w.err == nil && len(w.buf) > 0 {
		chunk := w.buf
		w.buf, w.spare = w.spare[:0], nil
		if !w.closing {
			w.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		}
		w.mu.Unlock()
		_, err := w.Conn.Write(chunk)
		w.mu.Lock()
		w.spare = chunk[:0]
		if err != nil && w.err == nil {
			w.err = err
		}
		w.changed.Broadcast()
	}
	w.flushing = false
	w.changed.Broadcast()
	w.mu.Unlock()
}

// hurry bounds the time for what is still to be written and read.
func (w *writer) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closing = true
	w.Conn.SetDeadline(time.Now().Add(closeTimeout))
}

// Close writes what waits, if that can be done soon, and closes the connection.
func (w *writer) Close() error {
	w.hurry()
	w.mu.Lock()
	for w.flushing {
		w.changed.Wait()
	}
	if w.err == nil {
		w.err = net.ErrClosed
	}
	w.changed.Broadcast()
	w.mu.Unlock()
	return w.Conn.Close()
}
