package mesh

import (
	"slices"
	"time"

	"evernode/internal/digest"
)

// seenLimit is how many flooded messages are remembered at most.
const seenLimit = 1 << 15

// sightingsKept bounds the sessions remembered for one message.
const sightingsKept = 1024

// seen is the window of flooded messages that were delivered lately. It is not
// safe for concurrent use.
type seen struct {
	limit   int
	keep    time.Duration
	entries map[digest.Hash]*sighting
	order   []*sighting // ring, oldest at head
	head    int
}

// sighting is one remembered message and the sessions it came from, by number;
// 0 is this node itself.
type sighting struct {
	hash digest.Hash
	at   time.Time
	from []uint64
}

func newSeen(limit int, keep time.Duration) *seen {
	return &seen{limit: limit, keep: keep, entries: make(map[digest.Hash]*sighting)}
}

// add records that session from delivered a message. first is true if nobody
// did before within the window, again if this very session did.
func (s *seen) add(h digest.Hash, from uint64, now time.Time) (first, again bool) {
	s.expire(now)
	if e, ok := s.entries[h]; ok {
		again = slices.Contains(e.from, from)
		if !again && len(e.from) < sightingsKept {
			e.from = append(e.from, from)
		}
		return false, again
	}
	if len(s.order)-s.head >= s.limit {
		s.pop()
	}
	e := &sighting{hash: h, at: now, from: []uint64{from}}
	s.entries[h] = e
	s.order = append(s.order, e)
	return true, false
}

func (s *seen) expire(now time.Time) {
	for s.head < len(s.order) && now.Sub(s.order[s.head].at) > s.keep {
		s.pop()
	}
}

func (s *seen) pop() {
	delete(s.entries, s.order[s.head].hash)
	s.order[s.head] = nil
	s.head++
	if s.head > len(s.order)/2 && s.head > 64 {
		s.order = slices.Delete(s.order, 0, s.head)
		s.head = 0
	}
}

func (s *seen) len() int { return len(s.entries) }
