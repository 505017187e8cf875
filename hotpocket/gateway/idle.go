package gateway

import (
	"sync"
	"time"
)

// idleWatch closes a session without messages. It looks when the session could
// be idle at the earliest and costs nothing in between.
type idleWatch struct {
	s *session

	mu      sync.Mutex
	cancel  func() bool
	stopped bool
}

func (w *idleWatch) arm(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.cancel = w.s.conn.g.clock.AfterFunc(d, w.look)
	}
}

func (w *idleWatch) look() {
	g := w.s.conn.g
	idle := time.Duration(g.clock.Now().UnixNano() - w.s.active.Load())
	if left := g.limits.IdleTimeout - idle; left > 0 {
		w.arm(left)
		return
	}
	g.counts.idleUsers.Add(1)
	w.s.conn.close(closePolicy, "no message for too long")
}

func (w *idleWatch) stop() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	return w.cancel()
}
