package chain

import (
	"errors"
	"sync"
)

// syncLoop makes durable what was committed, until the chain is closed and
// nothing is left, or has failed.
func (c *Chain) syncLoop() {
	defer c.stopped.Done()
	defer close(c.synced)
	for {
		c.mu.Lock()
		for c.err == nil && !c.closing && (c.last == nil || c.last.header.Seq == c.durable) {
			c.work.Wait()
		}
		if c.err != nil || c.last == nil || c.last.header.Seq == c.durable {
			c.mu.Unlock()
			return
		}
		seq, unneeded := c.last.header.Seq, c.oldest()
		c.mu.Unlock()
		if err := c.syncBoth(); err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		c.durable, c.unneeded = seq, unneeded
		if c.advanced != nil {
			close(c.advanced)
			c.advanced = nil
		}
		c.mu.Unlock()
		if c.cfg.OnDurable != nil {
			c.cfg.OnDurable(seq)
		}
		c.wakeKeeper()
	}
}

func (c *Chain) wakeKeeper() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// oldest returns the smallest offset of a node that a kept state needs. The
// caller holds mu.
func (c *Chain) oldest() uint64 {
	// A state never needs an older node than the one before it.
	if next := c.recent[(c.last.header.Seq+1)%uint32(len(c.recent))]; next != nil {
		return next.root.Oldest
	}
	return 0
}

// syncBoth syncs the two streams at the same time. Neither is of use without
// the other, so it does not matter which is first.
func (c *Chain) syncBoth() error {
	var wg sync.WaitGroup
	var errState error
	wg.Go(func() { errState = c.state.sync() })
	errLedgers := c.history.sync()
	wg.Wait()
	return errors.Join(errLedgers, errState)
}

// keepLoop writes the index and drops what is not kept any more, each time
// something has become durable.
func (c *Chain) keepLoop() {
	defer c.stopped.Done()
	for {
		select {
		case <-c.kick:
		case <-c.synced:
			return
		}
		durable := c.Durable()
		err := c.keep()
		if err != nil {
			// Nothing is lost: it is tried again with the next ledger, and Commit
			// stops before too much is waiting.
			c.cfg.Log.Warn("cannot keep the index of ledgers", "folder", c.cfg.Dir, "error", err)
		}
		c.mu.Lock()
		c.keepErr, c.settled = err, durable
		close(c.kept)
		c.kept = make(chan struct{})
		c.mu.Unlock()
	}
}

func (c *Chain) keep() error {
	for c.index.freeze(c.cfg.CheckpointBytes) {
		before := c.index.checkpoint()
		if err := c.index.flush(c.Durable(), c.history.first()); err != nil {
			return err
		}
		if c.index.checkpoint() == before {
			break // it has to become durable first
		}
	}
	c.mu.Lock()
	unneeded, durable, settled := c.unneeded, c.durable, c.settled
	c.mu.Unlock()
	// A ledger begins at most one file of a stream, so this is enough to keep up.
	limit := 2 * int(min(max(durable-settled, 1), 1000))
	// A restart reads from the checkpoint on.
	check := c.index.checkpoint()
	if err := c.state.drop(min(unneeded, check.stateEnd), limit); err != nil {
		return err
	}
	return c.dropLedgers(durable, check.end, limit)
}

// dropLedgers drops the files that hold only ledgers which are not kept.
func (c *Chain) dropLedgers(durable uint32, end uint64, limit int) error {
	if c.cfg.HistoryLedgers == 0 || durable <= c.cfg.HistoryLedgers {
		return nil
	}
	wanted := durable - c.cfg.HistoryLedgers + 1
	for range limit {
		second, ok := c.history.second()
		if !ok || second > end {
			return nil
		}
		f, err := c.history.frameAt(second + segmentHeader)
		if errors.Is(err, errGone) {
			return nil // it was begun and holds nothing yet
		}
		if err != nil {
			return err
		}
		if f.ledger > wanted {
			return nil
		}
		// In this order: nobody asks for a ledger that is just going away.
		c.first.Store(f.ledger)
		if err := c.history.drop(second, 1); err != nil {
			return err
		}
	}
	return nil
}
