package gateway

import (
	"context"
	"sync"
)

const (
	// maxReadsWaiting bounds the read requests of all users that wait, as in
	// the original, and maxReadBytes what they hold.
	maxReadsWaiting = 1024
	maxReadBytes    = 64 << 20
	// maxReadsOfUser bounds those of one connection, waiting or running.
	maxReadsOfUser = 64
)

// readRequest is one read request.
type readRequest struct {
	id      string
	content []byte
}

// readQueue runs read requests, a few at a time. Connections with waiting
// requests are served in turn, so that one with many does not hold up the
// others. When there is no room, push waits: reading that connection stops,
// which is felt by its user alone.
type readQueue struct {
	workers int
	run     func(context.Context, *session, readRequest)
	ctx     context.Context // of all sessions and all runs
	cancel  context.CancelFunc

	mu      sync.Mutex
	room    sync.Cond
	turn    []*session // with waiting requests, the next one first
	waiting int
	bytes   int
	running int
	stopped bool
	wait    sync.WaitGroup
}

func newReadQueue(workers int, run func(context.Context, *session, readRequest)) *readQueue {
	q := &readQueue{workers: workers, run: run}
	q.room.L = &q.mu
	return q
}

func (q *readQueue) start(ctx context.Context) { q.ctx, q.cancel = context.WithCancel(ctx) }

// push queues a request, waiting for room, and reports whether it did: not if
// the connection or the gateway closes first.
func (q *readQueue) push(s *session, r readRequest) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.stopped || s.conn.closed.Load() {
			return false
		}
		full := q.waiting >= maxReadsWaiting || (q.waiting > 0 && q.bytes+len(r.content) > maxReadBytes)
		if !full && s.outstanding < maxReadsOfUser {
			break
		}
		q.room.Wait()
	}
	if len(s.waiting) == 0 {
		q.turn = append(q.turn, s)
	}
	s.waiting = append(s.waiting, r)
	s.outstanding++
	q.waiting++
	q.bytes += len(r.content)
	if q.running < q.workers {
		q.running++
		q.wait.Go(q.work)
	}
	return true
}

// work runs requests until none waits.
func (q *readQueue) work() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.turn) > 0 && !q.stopped {
		s := q.turn[0]
		q.turn = q.turn[1:]
		r := s.waiting[0]
		s.waiting[0] = readRequest{}
		s.waiting = s.waiting[1:]
		if len(s.waiting) > 0 {
			q.turn = append(q.turn, s)
		}
		q.waiting--
		q.bytes -= len(r.content)
		q.mu.Unlock()
		q.run(s.ctx, s, r)
		q.mu.Lock()
		s.outstanding--
		q.room.Broadcast()
	}
	q.running--
}

// wake has those who wait for room look whether they are still wanted.
func (q *readQueue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.room.Broadcast()
}

// forget drops the waiting requests of a session that has ended.
func (q *readQueue) forget(s *session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(s.waiting) == 0 {
		return
	}
	for i, o := range q.turn {
		if o == s {
			q.turn = append(q.turn[:i:i], q.turn[i+1:]...)
			break
		}
	}
	for _, r := range s.waiting {
		q.waiting--
		q.bytes -= len(r.content)
		s.outstanding--
	}
	s.waiting = nil
	q.room.Broadcast()
}

// stop ends all runs and waits for them.
func (q *readQueue) stop() {
	q.mu.Lock()
	q.stopped = true
	q.mu.Unlock()
	q.cancel()
	q.wake()
	q.wait.Wait()
}
