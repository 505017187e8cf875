package ledger

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"evernode/internal/wire"
)

// The kinds of records in the journal.
const (
	kindPromise        = 1 // opaque
	kindReplacePromise = 2 // opaque; all earlier promises are void
	kindLedger         = 3 // Record that follows the last one
	kindStart          = 4 // Record that becomes the last one, after a gap
	kindBackfill       = 5 // Record before the oldest one
	kindRaw            = 6 // sequence u64, inputs, outputs
	kindMeta           = 7 // name, value; an empty value deletes
	kindCheckpoint     = 8 // state: everything before it is in the shards
)

const (
	checkpointVersion = 1
	maxSpans          = 1 << 20
	maxPromises       = 1 << 24
	maxMetas          = 1 << 16
)

// span is a run of ledgers without gaps, both ends included.
type span struct{ from, to uint64 }

// state is what the journal's records add up to, apart from the content of the
// shards. It is a value without locks: the store applies each change to it as
// it appends the record, and recovery applies the same changes again.
type state struct {
	last     Record // Seq 0: none
	spans    []span // ascending; the last one ends with last
	floor    uint64 // ledgers before it have been dropped
	promises [][]byte
	meta     map[string][]byte
}

func (s *state) addPromise(b []byte, replace bool) {
	if replace {
		s.promises = nil
	}
	s.promises = append(s.promises, b)
}

func (s *state) setMeta(name string, value []byte) {
	if len(value) == 0 {
		delete(s.meta, name)
		return
	}
	if s.meta == nil {
		s.meta = map[string][]byte{}
	}
	s.meta[name] = value
}

// advance makes r the last ledger. Promises were about r or what it replaces.
func (s *state) advance(r Record) {
	if n := len(s.spans); n > 0 && s.spans[n-1].to+1 == r.Seq {
		s.spans[n-1].to = r.Seq
	} else {
		s.spans = append(s.spans, span{r.Seq, r.Seq})
	}
	s.last = r
	s.promises = nil
}

// extendDown adds ledger seq before the newest span and joins spans that touch.
func (s *state) extendDown(seq uint64) {
	n := len(s.spans)
	s.spans[n-1].from = seq
	s.floor = min(s.floor, seq)
	if n > 1 && s.spans[n-2].to+1 == seq {
		s.spans[n-2].to = s.spans[n-1].to
		s.spans = s.spans[:n-1]
	}
}

// raiseFloor forgets the ledgers before floor; true when that is a change.
func (s *state) raiseFloor(floor uint64) bool {
	if floor <= s.floor {
		return false
	}
	s.floor = floor
	for len(s.spans) > 0 && s.spans[0].to < floor {
		s.spans = s.spans[1:]
	}
	if len(s.spans) > 0 {
		s.spans[0].from = max(s.spans[0].from, floor)
	}
	return true
}

func (s *state) contains(seq uint64) bool {
	i := sort.Search(len(s.spans), func(i int) bool { return s.spans[i].to >= seq })
	return i < len(s.spans) && s.spans[i].from <= seq
}

// newest returns the span that ends with the last ledger.
func (s *state) newest() (span, bool) {
	if len(s.spans) == 0 {
		return span{}, false
	}
	return s.spans[len(s.spans)-1], true
}

func appendState(b []byte, s *state) []byte {
	b = wire.AppendU8(b, checkpointVersion)
	b = wire.AppendBool(b, s.last.Seq != 0)
	if s.last.Seq != 0 {
		b = appendRecord(b, s.last)
	}
	b = wire.AppendU32(b, uint32(len(s.spans)))
	for _, v := range s.spans {
		b = wire.AppendU64(wire.AppendU64(b, v.from), v.to)
	}
	b = wire.AppendU64(b, s.floor)
	b = wire.AppendU32(b, uint32(len(s.promises)))
	for _, p := range s.promises {
		b = wire.AppendBytes(b, p)
	}
	names := make([]string, 0, len(s.meta))
	for name := range s.meta {
		names = append(names, name)
	}
	slices.Sort(names)
	b = wire.AppendU32(b, uint32(len(names)))
	for _, name := range names {
		b = wire.AppendBytes(wire.AppendString(b, name), s.meta[name])
	}
	return b
}

func parseState(b []byte) (*state, error) {
	r := wire.NewReader(b)
	if v := r.U8(); r.Err() == nil && v != checkpointVersion {
		return nil, fmt.Errorf("checkpoint has version %d, this program knows version %d", v, checkpointVersion)
	}
	s := &state{}
	if r.Bool() {
		s.last = readRecord(r)
	}
	s.spans = make([]span, r.Count(maxSpans, 16))
	after := uint64(0)
	for i := range s.spans {
		s.spans[i] = span{r.U64(), r.U64()}
		if v := s.spans[i]; r.Err() == nil && (v.from <= after || v.to < v.from || v.to == math.MaxUint64) {
			r.Fail(fmt.Errorf("ledgers %d to %d are out of order", v.from, v.to))
		}
		after = s.spans[i].to
	}
	s.floor = r.U64()
	s.promises = make([][]byte, r.Count(maxPromises, 4))
	for i := range s.promises {
		s.promises[i] = r.Bytes(MaxPromise)
	}
	for range r.Count(maxMetas, 8) {
		name := r.String(maxName)
		s.setMeta(name, r.Bytes(MaxMeta))
	}
	if r.Err() == nil && s.last.Seq != after {
		r.Fail(fmt.Errorf("the last ledger is %d but ledgers end at %d", s.last.Seq, after))
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return s, nil
}
