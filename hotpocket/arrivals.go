package hotpocket

import (
	"sync"

	"evernode/internal/digest"
)

// arrivals names the content that is being received: checked, waiting to be
// checked, or asked for. What is on its way once is not asked for again, and a
// second copy is not checked. Without that a node whose checks fall behind would
// fetch what waits for them, and check that as well, and fall further behind.
type arrivals struct {
	mu sync.Mutex
	at map[digest.Hash]struct{}
}

func newArrivals() *arrivals { return &arrivals{at: make(map[digest.Hash]struct{})} }

// begin takes note of content, or reports that it is on its way already.
func (a *arrivals) begin(d digest.Hash) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.at[d]; ok {
		return false
	}
	a.at[d] = struct{}{}
	return true
}

func (a *arrivals) end(d digest.Hash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.at, d)
}
