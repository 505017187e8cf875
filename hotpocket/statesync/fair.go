package statesync

import (
	"context"
	"sync"

	"evernode/hotpocket/key"
)

// turns lets a bounded number of requests be answered at a time, and of those
// that wait the one whose peer has been given the fewest bytes, so that a peer
// that asks much does not keep others waiting.
type turns struct {
	mu    sync.Mutex
	free  int
	floor uint64 // what the peer served last had been given
	lanes map[key.Public]*lane
}

// lane is a peer that is being served or waits.
type lane struct {
	given   uint64 // bytes, from the floor at which it came
	active  int
	waiting []chan struct{}
}

func newTurns(n int) *turns {
	return &turns{free: n, lanes: make(map[key.Public]*lane)}
}

// take waits for a turn of a peer. The caller gives it back.
func (t *turns) take(ctx context.Context, who key.Public) error {
	t.mu.Lock()
	l := t.lanes[who]
	if l == nil {
		l = &lane{given: t.floor}
		t.lanes[who] = l
	}
	if t.free > 0 { // then nobody waits
		t.free--
		l.active++
		t.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	l.waiting = append(l.waiting, turn)
	t.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, w := range l.waiting {
		if w == turn {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			t.leave(who, l)
			return ctx.Err()
		}
	}
	t.next(who, l, 0) // it came in this moment
	return ctx.Err()
}

// give gives a turn back in which bytes were sent.
func (t *turns) give(who key.Public, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next(who, t.lanes[who], bytes)
}

func (t *turns) next(who key.Public, l *lane, bytes int) {
	l.given += uint64(bytes)
	l.active--
	t.free++
	t.leave(who, l)
	var best *lane
	for _, l := range t.lanes {
		if len(l.waiting) > 0 && (best == nil || l.given < best.given) {
			best = l
		}
	}
	if best == nil {
		return
	}
	t.free--
	t.floor = max(t.floor, best.given)
	best.active++
	close(best.waiting[0])
	best.waiting = best.waiting[1:]
}

// leave forgets a peer that has nothing here any more.
func (t *turns) leave(who key.Public, l *lane) {
	if l.active == 0 && len(l.waiting) == 0 {
		delete(t.lanes, who)
	}
}
