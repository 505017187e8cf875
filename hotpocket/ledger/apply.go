package ledger

import (
	"fmt"
	"math"

	"evernode/internal/digest"
)

// enqueue hands a record to the applier; it can be read from now on. The
// caller holds mu.
func (s *Store) enqueue(it item) {
	s.queue = append(s.queue, it)
	s.backlog += it.size()
	if it.ledger.Seq != 0 {
		s.ledgers[it.ledger.Seq] = it.ledger
	} else {
		s.raws[it.raw] = it.data
	}
}

// applyLoop moves durable records to the shards and makes checkpoints, until
// the store is closed or fails.
func (s *Store) applyLoop() {
	defer close(s.done)
	defer func() {
		s.mu.Lock()
		s.stopped = true
		s.room.Broadcast()
		s.mu.Unlock()
	}()
	under := checkpoint{lsn: never}
	for {
		select {
		case <-s.wake:
		case <-s.closing:
			return
		case <-s.journal.Failed():
			return
		}
		// Read before the queue: a checkpoint counts when all before it is applied.
		durable := s.durable.Load()
		err := s.apply(durable)
		if err == nil && under.lsn <= durable {
			err = s.finishCheckpoint(under)
			under.lsn = never
		}
		if err == nil && under.lsn == never {
			under, err = s.beginCheckpoint()
		}
		if err != nil {
			s.journal.Fail(err)
			return
		}
	}
}

// apply writes the queued records up to LSN durable to the shards.
func (s *Store) apply(durable uint64) error {
	for {
		s.mu.Lock()
		if len(s.queue) == 0 || s.queue[0].lsn > durable {
			s.mu.Unlock()
			return nil
		}
		it := s.queue[0]
		s.mu.Unlock()
		var err error
		if it.ledger.Seq != 0 {
			err = s.putLedger(it.ledger)
		} else {
			err = s.putRaw(it.raw, it.data)
		}
		if err != nil {
			return fmt.Errorf("writing to a shard: %w", err)
		}
		s.mu.Lock()
		s.queue[0] = item{}
		s.queue = s.queue[1:]
		s.backlog -= it.size()
		if it.ledger.Seq != 0 {
			delete(s.ledgers, it.ledger.Seq)
		} else if b := s.raws[it.raw]; len(b) > 0 && &b[0] == &it.data[0] {
			delete(s.raws, it.raw) // unless it was appended again meanwhile
		}
		s.room.Broadcast()
		s.mu.Unlock()
	}
}

func (s *Store) putLedger(r Record) error {
	return s.primary.put(r.Seq, r.Time, r.Hash, appendRecord(nil, r))
}

func (s *Store) putRaw(k rawKey, b []byte) error {
	if len(b) == 0 || s.opts.History == Custom && s.opts.MaxRaw == 0 {
		return nil
	}
	return s.raw.put(k.seq*parts+uint64(k.part), 0, digest.Hash{}, b)
}

// checkpoint is one that is on its way to the disk.
type checkpoint struct {
	lsn     uint64 // never: there is none
	floor   uint64 // first ledger kept
	rawKeep uint64 // first raw shard kept
}

// beginCheckpoint puts the state into the journal when it is time. Everything
// that the state does not say about earlier records is in the shards when the
// checkpoint is finished.
func (s *Store) beginCheckpoint() (checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.due && s.since < s.opts.CheckpointSize {
		return checkpoint{lsn: never}, nil
	}
	b := appendState(nil, &s.st)
	lsn, err := s.journal.Append(kindCheckpoint, b)
	if err != nil {
		return checkpoint{lsn: never}, err
	}
	// A state that is large itself must not call for the next one at once.
	s.since = -len(b)
	s.due = false
	return checkpoint{lsn: lsn, floor: s.st.floor, rawKeep: s.rawKeep()}, nil
}

// finishCheckpoint makes the shards durable, after which the journal before the
// checkpoint and the shards that it no longer wants can go.
func (s *Store) finishCheckpoint(c checkpoint) error {
	if err := s.primary.sync(); err != nil {
		return fmt.Errorf("syncing ledgers: %w", err)
	}
	if err := s.raw.sync(); err != nil {
		return fmt.Errorf("syncing raw data: %w", err)
	}
	if err := s.journal.Truncate(c.lsn); err != nil {
		return err
	}
	s.mu.Lock()
	// Back-filling may have begun below it, when the settings keep more now.
	floor := min(c.floor, s.st.floor)
	s.mu.Unlock()
	if err := s.primary.dropBefore(floor / s.opts.PrimaryShard); err != nil {
		return fmt.Errorf("deleting old ledgers: %w", err)
	}
	if err := s.raw.dropBefore(c.rawKeep); err != nil {
		return fmt.Errorf("deleting old raw data: %w", err)
	}
	s.mu.Lock()
	s.kept = c.lsn
	s.room.Broadcast()
	s.mu.Unlock()
	return nil
}

// rawKeep returns the first raw shard that the settings want. The caller holds mu.
func (s *Store) rawKeep() uint64 {
	floor := s.rawFloor(s.st.last.Seq)
	if floor == math.MaxUint64 {
		return floor
	}
	return floor / s.opts.RawShard
}

// unwanted tells whether there are shards to delete. The caller holds mu.
func (s *Store) unwanted() bool {
	return s.primary.oldest() < s.st.floor/s.opts.PrimaryShard || s.raw.oldest() < s.rawKeep()
}
