package mesh

import (
	"fmt"
	"sync"
	"time"
)

// minuteCount counts what happens in a minute against a limit; 0 is no limit.
type minuteCount struct {
	limit uint64
	n     uint64
	until time.Time
}

// add reports whether the limit still holds after n more at time now.
func (c *minuteCount) add(n uint64, now time.Time) bool {
	if c.limit == 0 {
		return true
	}
	if !now.Before(c.until) {
		c.n, c.until = 0, now.Add(time.Minute)
	}
	c.n += n
	return c.n <= c.limit
}

// meter holds the per-minute limits of one peer.
type meter struct {
	mu                        sync.Mutex
	bytes, bad, badSigs, dups minuteCount
}

func newMeter(c *Config) *meter {
	return &meter{
		bytes:   minuteCount{limit: c.MaxBytesPerMin},
		bad:     minuteCount{limit: c.MaxBadPerMin},
		badSigs: minuteCount{limit: c.MaxBadSigsPerMin},
		dups:    minuteCount{limit: c.MaxDupPerMin},
	}
}

// limitError names the limit that a peer broke.
type limitError struct {
	name  string
	limit uint64
}

func (e *limitError) Error() string {
	return fmt.Sprintf("more than mesh.%s = %d", e.name, e.limit)
}

func (m *meter) countBytes(n int, now time.Time) error {
	return m.count(&m.bytes, "max_bytes_per_min", uint64(n), now)
}

func (m *meter) countDup(now time.Time) error {
	return m.count(&m.dups, "max_dup_msgs_per_min", 1, now)
}

func (m *meter) countVerdict(v Verdict, now time.Time) error {
	switch v {
	case BadMessage:
		return m.count(&m.bad, "max_bad_msgs_per_min", 1, now)
	case BadSignature:
		return m.count(&m.badSigs, "max_bad_msgsigs_per_min", 1, now)
	}
	return nil
}

func (m *meter) count(c *minuteCount, name string, n uint64, now time.Time) error {
	if c.limit == 0 { // fixed at creation
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !c.add(n, now) {
		return &limitError{name, c.limit}
	}
	return nil
}
