package ledger

import (
	"fmt"
	"iter"
	"sort"

	"evernode/internal/digest"
)

// Last returns the last closed ledger. It may not be durable yet.
func (s *Store) Last() (Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.st.last.Seq == 0 {
		return Record{}, false
	}
	return s.st.last.clone(), true
}

// First returns the number of the oldest ledger from which all up to the last
// one are stored.
func (s *Store) First() (seq uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	span, ok := s.st.newest()
	return span.from, ok
}

// Get returns ledger seq; ok is false when it is not stored.
func (s *Store) Get(seq uint64) (r Record, ok bool, err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return Record{}, false, errClosed
	}
	if !s.st.contains(seq) {
		s.mu.Unlock()
		return Record{}, false, nil
	}
	if seq == s.st.last.Seq {
		defer s.mu.Unlock()
		return s.st.last.clone(), true, nil
	}
	if r, ok := s.ledgers[seq]; ok {
		s.mu.Unlock()
		return r.clone(), true, nil
	}
	s.mu.Unlock()
	b, ok, err := s.primary.get(seq)
	if err != nil || !ok {
		return Record{}, false, err // not ok: dropped in this moment
	}
	if r, err = parseRecord(b); err == nil && r.Seq != seq {
		err = fmt.Errorf("ledger %d stands in the place of ledger %d", r.Seq, seq)
	}
	if err != nil {
		return Record{}, false, err
	}
	return r, true, nil
}

// ByHash returns the ledger with the given hash. The whole history kept is
// searched, in constant time per shard.
func (s *Store) ByHash(h digest.Hash) (Record, bool, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return Record{}, false, errClosed
	}
	if s.st.last.Seq != 0 && s.st.last.Hash == h {
		defer s.mu.Unlock()
		return s.st.last.clone(), true, nil
	}
	for _, r := range s.ledgers {
		if r.Hash == h {
			defer s.mu.Unlock()
			return r.clone(), true, nil
		}
	}
	s.mu.Unlock()
	b, ok, err := s.primary.find(h)
	if err != nil || !ok {
		return Record{}, false, err
	}
	r, err := parseRecord(b)
	if err != nil {
		return Record{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.st.contains(r.Seq) {
		return Record{}, false, nil
	}
	return r, true, nil
}

// Ledgers yields the stored ledgers from number from to number to, ascending,
// without those that are missing. An error ends it.
func (s *Store) Ledgers(from, to uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for seq, ok := s.nextStored(from); ok && seq <= to; seq, ok = s.nextStored(seq + 1) {
			r, ok, err := s.Get(seq)
			if err != nil {
				yield(Record{}, err)
				return
			}
			if ok && !yield(r, nil) {
				return
			}
		}
	}
}

// nextStored returns the first stored ledger that is not before seq.
func (s *Store) nextStored(seq uint64) (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.st.spans {
		if seq <= v.to {
			return max(seq, v.from), true
		}
	}
	return 0, false
}

// AtTime returns the last ledger that closed at or before a time in
// milliseconds since 1970, among those from First on.
func (s *Store) AtTime(ms uint64) (Record, bool, error) {
	s.mu.Lock()
	span, ok := s.st.newest()
	s.mu.Unlock()
	if !ok {
		return Record{}, false, nil
	}
	var failed error
	// The number of ledgers that closed at or before ms.
	n := sort.Search(int(span.to-span.from+1), func(i int) bool {
		t, err := s.timeOf(span.from + uint64(i))
		if err != nil && failed == nil {
			failed = err
		}
		return t > ms
	})
	if failed != nil || n == 0 {
		return Record{}, false, failed
	}
	return s.Get(span.from + uint64(n) - 1)
}

func (s *Store) timeOf(seq uint64) (uint64, error) {
	s.mu.Lock()
	if seq == s.st.last.Seq {
		defer s.mu.Unlock()
		return s.st.last.Time, nil
	}
	r, ok := s.ledgers[seq]
	s.mu.Unlock()
	if ok {
		return r.Time, nil
	}
	e, ok, err := s.primary.entry(seq)
	if err == nil && !ok {
		err = fmt.Errorf("ledger %d was dropped during the search", seq)
	}
	return e.time, err
}

// RawOf returns what is stored of a ledger's raw data; ok is false when neither
// part is.
func (s *Store) RawOf(seq uint64) (raw Raw, ok bool, err error) {
	var data [parts][]byte
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return Raw{}, false, errClosed
	}
	if seq < s.rawFloor(s.st.last.Seq) || seq > s.st.last.Seq {
		s.mu.Unlock()
		return Raw{}, false, nil
	}
	for part := range data {
		data[part] = s.raws[rawKey{seq, part}]
	}
	s.mu.Unlock()
	for part := range data {
		if data[part] == nil {
			if data[part], _, err = s.raw.get(seq*parts + uint64(part)); err != nil {
				return Raw{}, false, fmt.Errorf("raw data of ledger %d: %w", seq, err)
			}
		}
	}
	if b := data[partInputs]; b != nil {
		if raw.Inputs, err = parseInputs(b); err != nil {
			return Raw{}, false, fmt.Errorf("raw data of ledger %d: %w", seq, err)
		}
	}
	if b := data[partOutputs]; b != nil {
		if raw.Outputs, err = parseOutputs(b); err != nil {
			return Raw{}, false, fmt.Errorf("raw data of ledger %d: %w", seq, err)
		}
	}
	return raw, raw.Inputs != nil || raw.Outputs != nil, nil
}
