package ledger

import (
	"fmt"
	"math"
	"slices"

	"evernode/internal/wire"
)

// never is the LSN of what cannot become durable.
const never = math.MaxUint64

// AppendPromise stores something that the node must remember before it tells
// others. It belongs to the time after the last ledger: AppendLedger makes it
// void. The LSN says when it is durable; when the store has failed, it is one
// that never becomes durable.
func (s *Store) AppendPromise(b []byte) (lsn uint64) { return s.promise(b, false) }

// ReplacePromises is AppendPromise of something that says all that the earlier
// promises said: they are void from now on. A node that makes promises without
// closing ledgers uses it to keep their number small.
func (s *Store) ReplacePromises(b []byte) (lsn uint64) { return s.promise(b, true) }

func (s *Store) promise(b []byte, replace bool) uint64 {
	if len(b) > MaxPromise {
		s.journal.Fail(fmt.Errorf("a promise of %d bytes, at most %d are allowed", len(b), MaxPromise))
		return never
	}
	kind := byte(kindPromise)
	if replace {
		kind = kindReplacePromise
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lsn, err := s.append(kind, b)
	if err != nil {
		return never
	}
	s.st.addPromise(slices.Clone(b), replace)
	return lsn
}

// lockWithRoom takes mu when the shards are not too far behind.
func (s *Store) lockWithRoom() {
	s.mu.Lock()
	for s.backlog > s.opts.MaxBacklog && !s.stopped {
		s.room.Wait()
	}
}

// append puts a record into the journal. The caller holds mu.
func (s *Store) append(kind byte, b []byte) (uint64, error) {
	lsn, err := s.journal.Append(kind, b)
	if err != nil {
		return never, err
	}
	s.since += len(b)
	return lsn, nil
}

// AppendLedger stores the ledger that follows the last one, or the first one,
// which must be number 1. It can be read at once; the LSN says when it is
// durable. An error that wraps ErrOrder says that it does not follow.
func (s *Store) AppendLedger(r Record) (lsn uint64, err error) {
	if err := r.check(); err != nil {
		return never, err
	}
	s.lockWithRoom()
	defer s.mu.Unlock()
	if err := s.follows(r); err != nil {
		return never, err
	}
	return s.advance(kindLedger, r)
}

// follows checks that r is the successor of the last ledger.
func (s *Store) follows(r Record) error {
	last := s.st.last
	if r.Seq != last.Seq+1 {
		return fmt.Errorf("%w: ledger %d was offered, the last is %d", ErrOrder, r.Seq, last.Seq)
	}
	if last.Seq != 0 && r.Prev != last.Hash {
		return fmt.Errorf("%w: ledger %d follows %s, but ledger %d is %s", ErrOrder, r.Seq, r.Prev.Short(), last.Seq, last.Hash.Short())
	}
	return nil
}

// StartAt makes r the last ledger, for a node that joins or rejoins a chain
// without the ledgers before it. They can be added by Backfill.
func (s *Store) StartAt(r Record) (lsn uint64, err error) {
	if err := r.check(); err != nil {
		return never, err
	}
	s.lockWithRoom()
	defer s.mu.Unlock()
	if r.Seq <= s.st.last.Seq {
		return never, fmt.Errorf("%w: starting at ledger %d, but the last is %d", ErrOrder, r.Seq, s.st.last.Seq)
	}
	if r.Seq == s.st.last.Seq+1 {
		if err := s.follows(r); err != nil {
			return never, err
		}
	}
	return s.advance(kindStart, r)
}

func (s *Store) advance(kind byte, r Record) (uint64, error) {
	lsn, err := s.append(kind, appendRecord(nil, r))
	if err != nil {
		return never, err
	}
	r = r.clone()
	s.st.advance(r)
	if r.Seq%s.opts.RawShard == 0 {
		s.due = true // raw shards may be due for deletion
	}
	s.raise()
	s.enqueue(item{lsn: lsn, ledger: r})
	return lsn, nil
}

// Backfill stores the ledger just before the oldest one that Missing tells of.
// It must be the one whose hash its successor names, so that nothing but the
// true chain can be stored.
func (s *Store) Backfill(r Record) (lsn uint64, err error) {
	if err := r.check(); err != nil {
		return never, err
	}
	s.mu.Lock()
	newest, ok := s.st.newest()
	floor := s.keepFrom()
	s.mu.Unlock()
	if !ok || r.Seq != newest.from-1 {
		return never, fmt.Errorf("%w: ledger %d was offered, wanted is the one before %d", ErrOrder, r.Seq, newest.from)
	}
	if r.Seq < floor {
		return never, fmt.Errorf("%w: ledger %d, the first kept is %d", ErrDropped, r.Seq, floor)
	}
	next, ok, err := s.Get(newest.from)
	if err == nil && !ok {
		err = fmt.Errorf("ledger %d is missing", newest.from)
	}
	if err != nil {
		return never, fmt.Errorf("back-filling ledger %d: %w", r.Seq, err)
	}
	if next.Prev != r.Hash {
		return never, fmt.Errorf("%w: ledger %d is %s, but ledger %d follows %s", ErrOrder, r.Seq, r.Hash.Short(), next.Seq, next.Prev.Short())
	}
	below, ok, err := s.Get(r.Seq - 1)
	if err != nil {
		return never, fmt.Errorf("back-filling ledger %d: %w", r.Seq, err)
	}
	if ok && below.Hash != r.Prev {
		return never, fmt.Errorf("%w: ledger %d follows %s, but the ledger %d stored here is %s: this node was on another chain",
			ErrOrder, r.Seq, r.Prev.Short(), below.Seq, below.Hash.Short())
	}
	s.lockWithRoom()
	defer s.mu.Unlock()
	// The lock was open while the neighbours were read.
	if now, ok := s.st.newest(); !ok || now.from != newest.from {
		return never, fmt.Errorf("%w: ledger %d was offered while another one was stored", ErrOrder, r.Seq)
	}
	lsn, err = s.append(kindBackfill, appendRecord(nil, r))
	if err != nil {
		return never, err
	}
	s.st.extendDown(r.Seq)
	s.enqueue(item{lsn: lsn, ledger: r.clone()})
	return lsn, nil
}

// Missing returns the newest gap of ledgers that the history settings want:
// from the oldest to the newest missing one, which is the next for Backfill.
func (s *Store) Missing() (from, to uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest, ok := s.st.newest()
	if !ok {
		return 0, 0, false
	}
	from = max(s.keepFrom(), 1)
	if n := len(s.st.spans); n > 1 {
		from = max(from, s.st.spans[n-2].to+1)
	}
	if from >= newest.from {
		return 0, 0, false
	}
	return from, newest.from - 1, true
}

// keepFrom returns the first ledger that the settings want kept. The caller
// holds mu.
func (s *Store) keepFrom() uint64 {
	shard := s.st.last.Seq / s.opts.PrimaryShard
	if s.opts.History == Full || shard < s.opts.MaxPrimary {
		return 0
	}
	return (shard - s.opts.MaxPrimary + 1) * s.opts.PrimaryShard
}

// AppendRaw stores raw data of a ledger that is stored: the inputs when it
// closes, the outputs with them or later. A part that is nil is left as it is.
// Nothing is stored when the history settings do not want it; the LSN is then
// that of the record before.
func (s *Store) AppendRaw(seq uint64, raw Raw) (lsn uint64, err error) {
	if n := raw.size(); n > MaxRaw {
		return never, fmt.Errorf("raw data of ledger %d has %d bytes, at most %d are allowed", seq, n, MaxRaw)
	}
	s.lockWithRoom()
	defer s.mu.Unlock()
	if seq == 0 || seq > s.st.last.Seq {
		return never, fmt.Errorf("%w: raw data of ledger %d, the last is %d", ErrOrder, seq, s.st.last.Seq)
	}
	if seq < s.rawFloor(s.st.last.Seq) {
		return s.journal.Next() - 1, nil
	}
	data := [parts][]byte{partInputs: encodeInputs(raw.Inputs), partOutputs: encodeOutputs(raw.Outputs)}
	b := wire.AppendU64(make([]byte, 0, raw.size()+16), seq)
	for _, d := range data {
		b = wire.AppendBytes(b, d)
	}
	if lsn, err = s.append(kindRaw, b); err != nil {
		return never, err
	}
	for part, d := range data {
		if len(d) > 0 {
			s.enqueue(item{lsn: lsn, raw: rawKey{seq, part}, data: d})
		}
	}
	return lsn, nil
}

// SetMeta stores a small value under a name, durable with the LSN; an empty
// value deletes it.
func (s *Store) SetMeta(name string, value []byte) (lsn uint64, err error) {
	if err := checkName(name); err != nil {
		return never, err
	}
	if len(value) > MaxMeta {
		return never, fmt.Errorf("named value %s has %d bytes, at most %d are allowed", name, len(value), MaxMeta)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.st.meta[name]; !known && len(s.st.meta) >= maxNames {
		return never, fmt.Errorf("named value %s would be more than %d", name, maxNames)
	}
	if lsn, err = s.append(kindMeta, wire.AppendBytes(wire.AppendString(nil, name), value)); err != nil {
		return never, err
	}
	s.st.setMeta(name, slices.Clone(value))
	return lsn, nil
}

// Meta returns the value stored under a name, nil when there is none.
func (s *Store) Meta(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.st.meta[name])
}
