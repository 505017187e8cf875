package chain

import (
	"errors"
	"fmt"
)

// recover finds out what the folder holds and leaves the chain ready to go on
// after its last ledger: the last of which both streams are complete.
func (c *Chain) recover() error {
	if err := c.index.load(); err != nil {
		return err
	}
	for _, s := range []*stream{c.state, c.history} {
		if err := s.list(); err != nil {
			return err
		}
		// What is read now may be in the page cache only, when it was the process
		// that died and not the machine.
		if err := s.sync(); err != nil {
			return err
		}
	}
	check := c.index.checkpoint()
	if check.ledger != 0 && (check.end > c.history.end() || check.stateEnd > c.state.end() ||
		check.end < c.history.first() || check.stateEnd < c.state.first()) {
		return fmt.Errorf("%w: ledger %d was durable, but files of it are missing or too short", ErrDamaged, check.ledger)
	}
	states, err := c.scanState(check)
	if err != nil {
		return err
	}
	last, err := c.scanLedgers(check, states)
	if err != nil {
		return err
	}
	if last.proved > last.ledger {
		return fmt.Errorf("%w: ledger %d is unreadable, but ledger %d was durable", ErrDamaged, last.ledger+1, last.proved)
	}
	if last.left > 0 {
		c.cfg.Log.Info("cut off what had not become durable", "folder", c.cfg.Dir, "after ledger", last.ledger)
	}
	if err := c.history.cut(last.end); err != nil {
		return err
	}
	if err := c.state.cut(last.stateEnd); err != nil {
		return err
	}
	return c.findRecent(last.ledger)
}

// found is where the ledgers end that are there.
type found struct {
	ledger   uint32 // 0 when there is none
	end      uint64 // of the streams after it
	stateEnd uint64
	proved   uint32 // highest ledger known to have been durable
	left     int64  // bytes behind the end
}

// states is what the stream of nodes holds after the checkpoint.
type states struct {
	first  uint32 // ledger of ends[0]
	ends   []uint64
	proved uint32
	left   int64
	cut    uint64
}

// end returns where the nodes of a ledger end; ok is false when they are not
// all there.
func (s *states) end(ledger uint32) (end uint64, ok bool) {
	if ledger < s.first || ledger-s.first >= uint32(len(s.ends)) {
		return 0, false
	}
	return s.ends[ledger-s.first], true
}

// past says whether a ledger is before the first whose nodes are still there.
func (s *states) past(ledger uint32) bool { return len(s.ends) > 0 && ledger < s.first }

func (c *Chain) scanState(check checkpoint) (*states, error) {
	s := &states{}
	from, first := check.stateEnd, check.ledger+1
	if check.ledger == 0 {
		from, first = c.state.first(), 0
	}
	got, err := c.state.scan(from, first, func(f frame, _ []byte) error {
		if s.first == 0 {
			s.first = f.ledger
		}
		s.ends = append(s.ends, f.end())
		return nil
	})
	s.proved, s.left, s.cut = got.proved, got.left, got.cut
	return s, err
}

// scanLedgers reads the ledgers after the checkpoint into the index, as far as
// their nodes are there, too.
func (c *Chain) scanLedgers(check checkpoint, s *states) (found, error) {
	last := found{ledger: check.ledger, end: check.end, stateEnd: check.stateEnd}
	from, first := check.end, check.ledger+1
	if check.ledger == 0 {
		from, first = c.history.first(), 0
	}
	var before *info
	complete := true
	got, err := c.history.scan(from, first, func(f frame, payload []byte) error {
		if !complete {
			return nil
		}
		l, txs, places, err := parseFrameOfLedger(f, payload)
		if err != nil {
			return err
		}
		if before != nil && l.header.ParentHash != before.hash {
			return fmt.Errorf("%w: it does not follow ledger %d", ErrDamaged, before.header.Seq)
		}
		end, ok := s.end(f.ledger)
		switch {
		case ok && end != l.stateEnd:
			return fmt.Errorf("%w: its nodes end at %d, not at %d", ErrDamaged, end, l.stateEnd)
		case !ok && !s.past(f.ledger):
			complete = false
			return nil
		}
		before = l
		last.ledger, last.end, last.stateEnd = f.ledger, f.end(), l.stateEnd
		c.index.add(l, txs, places, f.end(), int64(f.size)+int64(l.stateEnd-stateBegin(s, l)))
		// Only a start without index gets here: what is found is durable.
		if c.index.freeze(c.cfg.CheckpointBytes) {
			return c.index.flush(f.ledger, c.history.first())
		}
		return nil
	})
	if err != nil {
		return last, err
	}
	if end, ok := s.end(last.ledger); last.ledger != 0 && !ok && last.ledger != check.ledger {
		return last, fmt.Errorf("%w: the nodes of ledger %d are missing, they end at %d", ErrDamaged, last.ledger, end)
	}
	last.proved = max(got.proved, s.proved, check.ledger)
	last.left = int64(got.cut-last.end) + got.left + s.left
	if last.ledger == 0 {
		last.end, last.stateEnd = 0, 0
	}
	return last, nil
}

// stateBegin returns where the nodes of a ledger begin, as near as is known.
func stateBegin(s *states, l *info) uint64 {
	if end, ok := s.end(l.header.Seq - 1); ok {
		return end
	}
	return l.stateEnd
}

func parseFrameOfLedger(f frame, payload []byte) (*info, []Transaction, []place, error) {
	off := f.off + frameHeader
	l, err := parseLedger(payload, off)
	if err != nil {
		return nil, nil, nil, err
	}
	if l.header.Seq != f.ledger || l.header.Hash() != l.hash {
		return nil, nil, nil, fmt.Errorf("%w: its record is that of ledger %d", ErrDamaged, l.header.Seq)
	}
	txs, places, err := parseTransactions(payload[ledgerRecord:], off+ledgerRecord, l)
	return l, txs, places, err
}

// parseTransactions reads all transactions of a ledger.
func parseTransactions(b []byte, off uint64, l *info) (txs []Transaction, places []place, err error) {
	if uint32(len(b)) != l.txBytes {
		return nil, nil, fmt.Errorf("%w: %d bytes of transactions instead of %d", ErrDamaged, len(b), l.txBytes)
	}
	for i := uint32(0); len(b) > 0; i++ {
		t, rest, err := parseTransaction(b, off)
		if err != nil {
			return nil, nil, err
		}
		if t.Ledger != l.header.Seq || t.Index != i {
			return nil, nil, fmt.Errorf("%w: transaction %d of ledger %d stands at %d of ledger %d", ErrDamaged, t.Index, t.Ledger, i, l.header.Seq)
		}
		n := len(b) - len(rest)
		txs, places = append(txs, t), append(places, place{off, uint32(n)})
		b, off = rest, off+uint64(n)
	}
	if uint32(len(txs)) != l.txs {
		return nil, nil, fmt.Errorf("%w: %d transactions instead of %d", ErrDamaged, len(txs), l.txs)
	}
	return txs, places, nil
}

// findRecent reads what is kept in memory of the last ledgers.
func (c *Chain) findRecent(last uint32) error {
	c.durable, c.settled = last, last
	if last == 0 {
		return nil
	}
	f, err := c.history.frameAt(c.history.first() + segmentHeader)
	if err != nil {
		return err
	}
	c.first.Store(f.ledger)
	for seq := last; seq >= f.ledger && seq+uint32(len(c.recent)) > last; seq-- {
		l, err := c.findInfo(seq)
		if err != nil {
			return fmt.Errorf("ledger %d: %w", seq, err)
		}
		if c.last == nil {
			c.last = l
		}
		c.recent[seq%uint32(len(c.recent))] = l
	}
	return nil
}

// findInfo reads the record of a ledger.
func (c *Chain) findInfo(seq uint32) (*info, error) {
	p, ok, err := c.index.ledger(seq)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, ErrNotFound
	}
	l, err := c.readInfo(p)
	if err == nil && l.header.Seq != seq {
		err = fmt.Errorf("%w: the index leads to ledger %d", ErrDamaged, l.header.Seq)
	}
	return l, err
}

func (c *Chain) readInfo(p place) (*info, error) {
	b, err := c.readLedgers(p)
	if err != nil {
		return nil, err
	}
	return parseLedger(b, p.off)
}

// readLedgers reads a record of the stream of ledgers.
func (c *Chain) readLedgers(p place) ([]byte, error) {
	b, err := c.history.read(p.off, int(p.len))
	if errors.Is(err, errGone) {
		return nil, ErrNotFound
	}
	return b, err
}
