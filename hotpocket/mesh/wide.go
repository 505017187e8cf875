package mesh

import (
	"net"
	"sync"
	"sync/atomic"
)

// wideBuffer is how many bytes of a bulk connection are read or written by one
// call of the system, where TLS by itself makes one for each record of 16 KiB.
const wideBuffer = 128 << 10

// wideConn is a network connection below TLS that reads and writes in large
// pieces once it was widened. Before that it changes nothing.
type wideConn struct {
	net.Conn
	wide atomic.Bool

	mu  sync.Mutex
	out []byte // not written yet

	in   []byte // read and not asked for yet; only the reader uses it
	room []byte
}

// widen begins to gather. Whoever writes has to call flush from now on.
func (c *wideConn) widen() { c.wide.Store(true) }

// Write implements net.Conn. What it keeps back leaves with flush.
func (c *wideConn) Write(b []byte) (int, error) {
	if !c.wide.Load() {
		return c.Conn.Write(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) > 0 && len(c.out)+len(b) > wideBuffer {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
	}
	if c.out == nil {
		c.out = make([]byte, 0, wideBuffer)
	}
	c.out = append(c.out, b...)
	return len(b), nil
}

func (c *wideConn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushLocked()
}

func (c *wideConn) flushLocked() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// Read implements net.Conn.
func (c *wideConn) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		if !c.wide.Load() || len(b) >= wideBuffer {
			return c.Conn.Read(b)
		}
		if c.room == nil {
			c.room = make([]byte, wideBuffer)
		}
		n, err := c.Conn.Read(c.room)
		c.in = c.room[:n]
		if err != nil && n == 0 {
			return 0, err
		}
	}
	n := copy(b, c.in)
	c.in = c.in[n:]
	return n, nil
}
