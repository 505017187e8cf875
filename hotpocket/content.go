package hotpocket

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/journal"
)

const (
	entryBundle   = 1
	entryPresence = 2
	entryMark     = 3 // a closed ledger; nothing in it

	// keepLedgers is for how many ledgers lists of users stay after they were
	// needed.
	keepLedgers = 256
	// keepRuns bounds for how many ledgers that started a run the contents stay
	// on disk when the nonce table cannot be written down.
	keepRuns = 1024
	// trimEvery is after how many ledgers the journal may be cut.
	trimEvery = 64
	// keptBytes and keptFor bound the bundles of closed ledgers that stay in memory,
	// for peers that are a moment behind. Others fetch state and nonce table.
	keptBytes = 4 << 20
	keptFor   = 16
	// maxPresences bounds the user lists kept in memory.
	maxPresences = 4 * consensus.MaxMembers
)

// content is what consensus moves only the digests of: bundles of inputs and
// lists of connected users. It is kept in memory for proposals and peers, and
// in a journal of its own, from the moment it arrives, for a restart.
type content struct {
	log *slog.Logger

	mu        sync.Mutex
	pool      *inputs.Pool
	presences map[digest.Hash]*presence
	arrivals  uint64 // of lists
	trimmed   uint64 // arrivals when the journal was last cut
	journal   *journal.Log
	written   map[digest.Hash]uint64 // where in the journal pending bundles are
	marks     []mark                 // journal positions of past ledgers
	needed    uint64                 // from which ledger on a restart begins
	runs      uint64                 // ledgers that started a run, since the start
	restored  map[digest.Hash][]byte
	cutting   sync.WaitGroup
}

type presence struct {
	*inputs.Presence
	used    uint64 // the last height at which a ledger needed it, 0 for none
	arrived uint64 // its place in the order of arrival
}

// mark is where the journal was when a ledger closed, and how many runs had been
// started.
type mark struct{ seq, lsn, runs uint64 }

// openContent reads back what was kept.
func openContent(dir string, log *slog.Logger) (*content, error) {
	limits := inputs.DefaultPoolLimits()
	limits.KeepBytes, limits.KeepLedgers = keptBytes, keptFor
	c := &content{
		log:       log,
		pool:      inputs.NewPool(limits),
		presences: make(map[digest.Hash]*presence),
		restored:  make(map[digest.Hash][]byte),
		written:   make(map[digest.Hash]uint64),
	}
	j, rec, err := journal.Open(filepath.Join(dir, "content"), journal.Options{Logger: log}, func(e journal.Entry) error {
		switch e.Kind {
		case entryBundle:
			b, err := inputs.DecodeBundle(append([]byte(nil), e.Payload...))
			if err != nil {
				return fmt.Errorf("content record %d: %w", e.LSN, err)
			}
			c.restored[b.Digest()] = b.Encoded()
		case entryPresence:
			p, err := inputs.DecodePresence(append([]byte(nil), e.Payload...))
			if err != nil {
				return fmt.Errorf("content record %d: %w", e.LSN, err)
			}
			c.arrivals++
			c.presences[p.Digest()] = &presence{Presence: p, arrived: c.arrivals}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open content journal: %w", err)
	}
	if rec.CutBytes > 0 {
		log.Info("cut off what a crash left half-written", "file", rec.CutFile, "bytes", rec.CutBytes)
	}
	c.journal = j
	return c, nil
}

// bundle returns a verified bundle, from memory or from what a restart found.
func (c *content) bundle(d digest.Hash) *inputs.Bundle {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.pool.Get(d); b != nil {
		return b
	}
	enc := c.restored[d]
	if enc == nil {
		return nil
	}
	b, err := inputs.DecodeBundle(enc)
	if err == nil {
		err = b.Verify(1, nil)
	}
	if err != nil {
		c.log.Error("a kept bundle is damaged", "bundle", d.Short(), "err", err)
		delete(c.restored, d)
		return nil
	}
	return b
}

// presence returns a list of users, or nil.
func (c *content) presence(d digest.Hash) *inputs.Presence {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.presences[d]; p != nil {
		return p.Presence
	}
	return nil
}

func (c *content) holds(d digest.Hash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pool.Has(d) || c.presences[d] != nil || c.restored[d] != nil
}

// encoded returns the bytes of whatever has that digest, for a peer.
func (c *content) encoded(d digest.Hash) (kind byte, b []byte) {
	if x := c.bundle(d); x != nil {
		return entryBundle, x.Encoded()
	}
	if p := c.presence(d); p != nil {
		return entryPresence, p.Encoded()
	}
	return 0, nil
}

// addBundle takes a verified bundle. With required it is taken whatever the
// bounds, because a ledger that is about to close or has closed names it.
func (c *content) addBundle(b *inputs.Bundle, required bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.pool.Has(b.Digest())
	var err error
	if required {
		err = c.pool.Require(b)
	} else {
		err = c.pool.Add(b)
	}
	if err != nil || known || !c.pool.Has(b.Digest()) {
		return err
	}
	lsn, err := c.journal.Append(entryBundle, b.Encoded())
	if err == nil && !c.pool.Consumed(b.Digest()) {
		c.written[b.Digest()] = lsn
	}
	return err
}

// addPresence takes a list of users that a ledger of the given height needs, or
// with height 0 one that may be needed. Lists carry no signature, so those that
// no ledger has needed yet go first when there are too many.
func (c *content) addPresence(p *inputs.Presence, height uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.presences[p.Digest()]; old != nil {
		old.used = max(old.used, height)
		return nil
	}
	if len(c.presences) >= maxPresences {
		c.dropPresence()
	}
	c.arrivals++
	c.presences[p.Digest()] = &presence{p, height, c.arrivals}
	_, err := c.journal.Append(entryPresence, p.Encoded())
	return err
}

// dropPresence forgets the list that was used the longest time ago.
func (c *content) dropPresence() {
	var oldest digest.Hash
	var found *presence
	for d, p := range c.presences {
		if found == nil || p.used < found.used || p.used == found.used && p.arrived < found.arrived {
			oldest, found = d, p
		}
	}
	delete(c.presences, oldest)
}

// offer returns the pending bundles to propose after ledger last.
func (c *content) offer(last uint64) []digest.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pool.Offer(maxLedgerBytes, consensus.MaxBundles, last)
}

func (c *content) pending() (count, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pool.Pending()
}

// sync waits until everything taken so far is on disk.
func (c *content) sync() error {
	return c.journal.Sync(context.Background(), c.journal.Next()-1)
}

// closed takes note of a closed ledger, and returns those of its bundles that are
// here, and the pending ones none of whose inputs can get into a ledger any
// more.
func (c *content) closed(h *consensus.Header) (taken map[digest.Hash]*inputs.Bundle, expired []*inputs.Bundle, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken = make(map[digest.Hash]*inputs.Bundle, len(h.Bundles))
	for _, d := range h.Bundles {
		if b := c.pool.Get(d); b != nil {
			taken[d] = b
		}
	}
	c.pool.Consume(h.Height, h.Bundles)
	for _, d := range h.Bundles {
		delete(c.written, d)
	}
	expired = c.pool.Expire(h.Height)
	for _, b := range expired {
		delete(c.written, b.Digest())
	}
	for _, d := range h.Presences {
		if p := c.presences[d]; p != nil {
			p.used = h.Height
		}
	}
	if h.StartsRun() {
		c.runs++
	}
	if h.Height%trimEvery == 0 {
		err = c.trim(h.Height)
	}
	return taken, expired, err
}

// beginsAt says from which ledger on a restart takes the ledgers up again. What
// only earlier ones have used may go.
func (c *content) beginsAt(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.needed = max(c.needed, seq)
}

// trim frees the disk of what only ledgers long past have used.
func (c *content) trim(height uint64) error {
	for d, p := range c.presences {
		if p.used+keepLedgers < height && (p.used > 0 || p.arrived <= c.trimmed) {
			delete(c.presences, d)
		}
	}
	c.trimmed = c.arrivals
	lsn, err := c.journal.Append(entryMark, nil)
	if err != nil {
		return err
	}
	// Lists still in use may have been written long ago.
	for _, p := range c.presences {
		if _, err := c.journal.Append(entryPresence, p.Encoded()); err != nil {
			return err
		}
	}
	c.marks = append(c.marks, mark{height, lsn, c.runs})
	cut := 0
	for cut+1 < len(c.marks) && (c.marks[cut+1].seq < c.needed || c.marks[cut+1].runs+keepRuns < c.runs) {
		cut++
	}
	if cut == 0 {
		return nil
	}
	// What closed before the mark may go, but not what is pending since.
	before := c.marks[cut].lsn
	for d, at := range c.written {
		b := c.pool.Get(d)
		if b == nil {
			delete(c.written, d)
		} else if at < before {
			if c.written[d], err = c.journal.Append(entryBundle, b.Encoded()); err != nil {
				return err
			}
		}
	}
	c.marks = slices.Delete(c.marks, 0, cut)
	clear(c.restored)
	c.cutting.Go(func() {
		if err := c.journal.Truncate(before); err != nil {
			c.log.Error("old content could not be removed", "err", err)
		}
	})
	return nil
}

func (c *content) close() error {
	c.cutting.Wait()
	return c.journal.Close()
}

// users returns everybody whom the given lists name, or nil and a digest that
// is missing.
func (c *content) users(lists []digest.Hash) (users []key.Public, missing *digest.Hash) {
	ps := make([]*inputs.Presence, 0, len(lists))
	for i := range lists {
		p := c.presence(lists[i])
		if p == nil {
			return nil, &lists[i]
		}
		ps = append(ps, p)
	}
	return inputs.Union(ps...), nil
}
