package api

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/lxzan/gws"
	"golang.org/x/time/rate"

	"evernode/xahau"
)

// socket is a WebSocket connection. One goroutine reads requests and answers them
// one by one, another writes; what waits to be written is bounded.
type socket struct {
	s    *Server
	conn *gws.Conn
	rate *rate.Limiter

	mu      sync.Mutex
	more    sync.Cond
	queue   [][]byte
	waiting int // bytes in queue
	over    bool

	// What it is subscribed to, guarded by Server.mu; the value is the version of
	// the API.
	streams  map[string]int
	accounts map[xahau.AccountID]int
	proposed map[xahau.AccountID]int
}

// idle is how long a connection may be silent; it is pinged before.
const idle = 2 * time.Minute

type events struct {
	gws.BuiltinEventHandler
	s *Server
}

const sessionKey = "socket"

func socketOf(c *gws.Conn) *socket {
	v, _ := c.Session().Load(sessionKey)
	s, _ := v.(*socket)
	return s
}

// OnMessage answers a request.
func (e events) OnMessage(conn *gws.Conn, m *gws.Message) {
	defer m.Close()
	c := socketOf(conn)
	if c == nil {
		return
	}
	conn.SetReadDeadline(time.Now().Add(idle))
	c.send(e.s.handle(c, m.Bytes()))
}

// OnPing answers a ping.
func (e events) OnPing(conn *gws.Conn, payload []byte) {
	conn.SetReadDeadline(time.Now().Add(idle))
	conn.WritePong(payload)
}

// OnPong notes that the client is there.
func (e events) OnPong(conn *gws.Conn, payload []byte) {
	conn.SetReadDeadline(time.Now().Add(idle))
}

func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	full := len(s.sockets) >= s.cfg.Connections || s.closed
	s.mu.Unlock()
	if full {
		http.Error(w, "too many connections", http.StatusServiceUnavailable)
		return
	}
	conn, err := s.upgrader.Upgrade(w, r)
	if err != nil {
		s.cfg.Log.Debug("websocket refused", "peer", r.RemoteAddr, "error", err)
		return
	}
	c := &socket{s: s, conn: conn, rate: rate.NewLimiter(rate.Limit(s.cfg.Rate), s.cfg.Burst),
		streams: map[string]int{}, accounts: map[xahau.AccountID]int{}, proposed: map[xahau.AccountID]int{}}
	c.more.L = &c.mu
	conn.Session().Store(sessionKey, c)
	s.mu.Lock()
	if s.closed || len(s.sockets) >= s.cfg.Connections {
		s.mu.Unlock()
		conn.NetConn().Close()
		return
	}
	s.sockets[c] = true
	s.running.Add(2)
	s.mu.Unlock()
	conn.SetReadDeadline(time.Now().Add(idle))
	go func() {
		defer s.running.Done()
		conn.ReadLoop()
		c.close()
		s.mu.Lock()
		delete(s.sockets, c)
		s.mu.Unlock()
	}()
	go func() {
		defer s.running.Done()
		c.write()
	}()
}

// send queues a message. A client that does not read loses its connection.
func (c *socket) send(message map[string]any) {
	b, err := json.Marshal(message)
	if err != nil {
		c.s.cfg.Log.Error("message to a client", "error", err)
		c.close()
		return
	}
	c.push(b)
}

func (c *socket) push(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	if c.waiting > 0 && c.waiting+len(b) > c.s.cfg.Backlog {
		c.s.cfg.Log.Info("a client reads too slowly; its connection is closed", "peer", c.conn.RemoteAddr())
		c.shut()
		return
	}
	c.queue = append(c.queue, b)
	c.waiting += len(b)
	c.more.Signal()
}

func (c *socket) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut()
}

// shut ends the connection. The lock is held.
func (c *socket) shut() {
	if c.over {
		return
	}
	c.over = true
	c.queue = nil
	c.more.Broadcast()
	c.conn.NetConn().Close()
}

// write writes what is queued, and pings while there is nothing.
func (c *socket) write() {
	ticker := time.NewTicker(idle / 3)
	defer ticker.Stop()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-ticker.C:
				c.conn.WritePing(nil)
			case <-stop:
				return
			}
		}
	}()
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && !c.over {
			c.more.Wait()
		}
		if c.over {
			c.mu.Unlock()
			return
		}
		list := c.queue
		c.queue = nil
		c.mu.Unlock()
		for _, b := range list {
			c.conn.SetWriteDeadline(time.Now().Add(idle))
			if err := c.conn.WriteMessage(gws.OpcodeText, b); err != nil {
				c.close()
				return
			}
			c.mu.Lock()
			c.waiting -= len(b)
			c.mu.Unlock()
		}
	}
}
