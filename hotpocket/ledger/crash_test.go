package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/journal/disk"
)

var crashSeeds = flag.Int("crash-seeds", 2000, "number of seeds of the crash tests")

// chainRecord returns ledger seq of the one chain of the tests.
func chainRecord(seq uint64, size int) Record {
	hash := func(n uint64) digest.Hash {
		if n == 0 {
			return digest.Hash{}
		}
		return digest.Tagged("test ledger", binary.BigEndian.AppendUint64(nil, n))
	}
	body := bytes.Repeat([]byte{byte(seq), byte(seq >> 8), 7}, size)
	return Record{Seq: seq, Hash: hash(seq), Prev: hash(seq - 1), Time: 1000 * seq, Body: body}
}

func chainRaw(seq uint64, n int) Raw {
	raw := Raw{Inputs: []RawInput{}, Outputs: []RawOutput{}}
	for i := range n {
		user := key.Public{key.Prefix, byte(seq), byte(i)}
		raw.Inputs = append(raw.Inputs, RawInput{User: user, Hash: digest.Sum(user[:]), Nonce: seq + uint64(i), Blob: []byte(fmt.Sprint("in ", seq, i))})
		raw.Outputs = append(raw.Outputs, RawOutput{User: user, Hash: digest.Sum(user[1:]), Blobs: [][]byte{{}, []byte(fmt.Sprint("out ", seq, i))}})
	}
	return raw
}

// op is one thing done to the store, to be done to the model as well.
type op struct {
	lsn   uint64
	apply func(*model)
}

// model is what the store must contain.
type model struct {
	last     uint64
	stored   map[uint64]bool // ever stored
	dropped  uint64          // ledgers before it may have been dropped
	promises [][]byte
	meta     map[string]string
	raw      map[uint64]*Raw
}

// TestCrash does random things to a store on a file system that loses power at
// a random operation, again and again, and compares what each restart finds
// with what was done up to the record that the journal ends with.
func TestCrash(t *testing.T) {
	var total crashCounts
	for seed := range uint64(*crashSeeds) {
		crashOnce(t, seed, &total)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%+v", total)
	if *crashSeeds >= 100 && (total.restarts == 0 || total.ledgers == 0 || total.raws == 0 || total.promises == 0 || total.drops == 0 || total.checkpoints == 0) {
		t.Error("the test did not reach all it is for")
	}
}

type crashCounts struct{ restarts, ledgers, raws, promises, drops, checkpoints int }

func crashOnce(t *testing.T, seed uint64, total *crashCounts) {
	r := rand.New(rand.NewPCG(seed, 2))
	ctx := context.Background()
	mem := disk.NewMem()
	opts := Options{PrimaryShard: 16, RawShard: 4, SegmentSize: 4096, CheckpointSize: 3000, MaxBacklog: 1 << 14}
	if r.IntN(4) == 0 {
		opts.History = Full
	}
	opts.MaxRaw = uint64(r.IntN(3))
	var done []op // in order of LSN
	dropped := uint64(0)
	durable := uint64(0)
	blob := uint64(0) // the last one whose PutBlob returned
	for range 8 {
		if r.IntN(5) > 0 {
			mem.CrashAfter(r.IntN(250))
		} else {
			mem.CrashAfter(r.IntN(20))
		}
		opts.FS = mem
		opts.MaxPrimary = 1 + uint64(r.IntN(2))
		s, rec, err := Open(ctx, "node/ledger", opts)
		if err != nil {
			if !errors.Is(err, disk.ErrCrashed) {
				t.Errorf("opening: %v", err)
				return
			}
			mem = mem.Crash(r)
			continue
		}
		found := rec.LSN
		if found < durable {
			t.Errorf("found records up to %d, %d was durable", found, durable)
		}
		durable = found
		for len(done) > 0 && done[len(done)-1].lsn > found {
			done = done[:len(done)-1]
		}
		m := model{stored: map[uint64]bool{}, meta: map[string]string{}, raw: map[uint64]*Raw{}, dropped: dropped}
		for _, o := range done {
			o.apply(&m)
		}
		total.restarts++
		checkRecovered(t, s, rec, &m, total)
		checkBlobs(t, s, blob)
		if t.Failed() {
			return
		}
		do := func(lsn uint64, err error, apply func(*model)) bool {
			if err != nil || lsn == never {
				return false
			}
			apply(&m)
			done = append(done, op{lsn, apply})
			return true
		}
		advance := func(seq uint64) func(*model) {
			return func(m *model) {
				m.last = seq
				m.stored[seq] = true
				m.promises = nil
				// By the most frugal settings used in this test.
				if opts.History != Full && seq/16 > 0 {
					m.dropped = max(m.dropped, seq/16*16)
				}
			}
		}
		for ok := true; ok; {
			switch n := r.IntN(20); {
			case n < 6:
				b := []byte(fmt.Sprint("promise ", r.Uint32()))
				replace := n == 0
				var lsn uint64
				if replace {
					lsn = s.ReplacePromises(b)
				} else {
					lsn = s.AppendPromise(b)
				}
				ok = do(lsn, nil, func(m *model) {
					if replace {
						m.promises = nil
					}
					m.promises = append(m.promises, b)
				})
			case n < 12:
				seq := m.last + 1
				lsn, err := s.AppendLedger(chainRecord(seq, r.IntN(60)))
				ok = do(lsn, err, advance(seq))
			case n < 13:
				seq := m.last + 1 + uint64(r.IntN(20))
				lsn, err := s.StartAt(chainRecord(seq, r.IntN(60)))
				ok = do(lsn, err, advance(seq))
			case n < 15:
				if _, to, missing := s.Missing(); missing {
					lsn, err := s.Backfill(chainRecord(to, r.IntN(60)))
					ok = do(lsn, err, func(m *model) { m.stored[to] = true })
				}
			case n < 18:
				if m.last == 0 {
					continue
				}
				seq := m.last - min(m.last-1, uint64(r.IntN(6)))
				raw := chainRaw(seq, r.IntN(3))
				switch r.IntN(3) {
				case 0:
					raw.Inputs = nil
				case 1:
					raw.Outputs = nil
				}
				if seq < s.rawFloor(m.last) {
					if _, err := s.AppendRaw(seq, raw); err != nil {
						t.Errorf("raw data that is not kept: %v", err)
					}
					continue
				}
				lsn, err := s.AppendRaw(seq, raw)
				ok = do(lsn, err, func(m *model) {
					if m.raw[seq] == nil {
						m.raw[seq] = &Raw{}
					}
					if raw.Inputs != nil {
						m.raw[seq].Inputs = raw.Inputs
					}
					if raw.Outputs != nil {
						m.raw[seq].Outputs = raw.Outputs
					}
				})
			case n < 19:
				name, value := fmt.Sprint("name", r.IntN(3)), fmt.Sprint(r.IntN(3))
				if value == "0" {
					value = ""
				}
				lsn, err := s.SetMeta(name, []byte(value))
				ok = do(lsn, err, func(m *model) {
					if value == "" {
						delete(m.meta, name)
					} else {
						m.meta[name] = value
					}
				})
			default:
				if r.IntN(3) > 0 {
					s.Sync(ctx, s.journal.Next()-1)
				} else if s.PutBlob(ctx, "nonces", m.last, blobContent(m.last)) == nil {
					blob = m.last
				}
			}
			if r.IntN(10) == 0 && ok {
				checkContent(t, s, &m, nil)
			}
		}
		s.Close()
		durable = max(durable, s.Durable())
		dropped = m.dropped
		if from := s.journal.Durable(); from > 0 && s.since < 0 {
			total.checkpoints++
		}
		mem = mem.Crash(r)
	}
}

func blobContent(seq uint64) []byte { return bytes.Repeat([]byte{byte(seq)}, 700) }

// checkBlobs wants all blobs there are to be whole, and none of before the last
// finished one to be the newest.
func checkBlobs(t *testing.T, s *Store, last uint64) {
	seqs, err := s.Blobs("nonces")
	if errors.Is(err, disk.ErrCrashed) {
		return
	}
	if last != 0 && (len(seqs) == 0 || seqs[len(seqs)-1] < last) {
		t.Errorf("blobs are of ledgers %v, one was stored of ledger %d", seqs, last)
	}
	for _, seq := range seqs {
		b, err := s.Blob("nonces", seq)
		if errors.Is(err, disk.ErrCrashed) {
			return
		}
		if err != nil || !bytes.Equal(b, blobContent(seq)) {
			t.Errorf("blob of ledger %d: %v", seq, err)
		}
	}
}

func checkRecovered(t *testing.T, s *Store, rec Recovered, m *model, total *crashCounts) {
	if rec.Last.Seq != m.last {
		t.Errorf("last ledger is %d, want %d", rec.Last.Seq, m.last)
	}
	if rec.Fresh && (m.last != 0 || len(m.promises) > 0) {
		t.Error("store says it is fresh")
	}
	if len(rec.Promises) != len(m.promises) {
		t.Errorf("%d promises, want %d", len(rec.Promises), len(m.promises))
		return
	}
	for i := range rec.Promises {
		total.promises++
		if !bytes.Equal(rec.Promises[i], m.promises[i]) {
			t.Errorf("promise %d is %q, want %q", i, rec.Promises[i], m.promises[i])
		}
	}
	for i := range 3 {
		name := fmt.Sprint("name", i)
		if got := string(s.Meta(name)); got != m.meta[name] {
			t.Errorf("%s is %q, want %q", name, got, m.meta[name])
		}
	}
	checkContent(t, s, m, total)
}

// checkContent compares ledgers and raw data. A crash of the disk while it
// reads ends it.
func checkContent(t *testing.T, s *Store, m *model, total *crashCounts) {
	for seq := uint64(1); seq <= m.last+2; seq++ {
		got, ok, err := s.Get(seq)
		if errors.Is(err, disk.ErrCrashed) {
			return
		}
		s.mu.Lock()
		claimed := s.st.contains(seq)
		s.mu.Unlock()
		switch {
		case err != nil:
			t.Errorf("ledger %d: %v", seq, err)
		case ok != claimed:
			t.Errorf("ledger %d is said to be stored: %v, but found: %v", seq, claimed, ok)
		case ok && !m.stored[seq]:
			t.Errorf("ledger %d was never stored", seq)
		case !ok && m.stored[seq] && seq >= m.dropped:
			t.Errorf("ledger %d is lost", seq)
		}
		if !ok {
			if total != nil && m.stored[seq] {
				total.drops++
			}
			continue
		}
		if total != nil {
			total.ledgers++
		}
		want := chainRecord(seq, len(got.Body)/3)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("ledger %d is %v, want %v", seq, got, want)
		}
		by, ok, err := s.ByHash(got.Hash)
		if errors.Is(err, disk.ErrCrashed) {
			return
		}
		if err != nil || !ok || by.Seq != seq {
			t.Errorf("by hash of ledger %d: %d %v %v", seq, by.Seq, ok, err)
		}
		want2 := m.raw[seq]
		if seq < s.rawFloor(m.last) {
			want2 = nil
		}
		raw, ok, err := s.RawOf(seq)
		if errors.Is(err, disk.ErrCrashed) {
			return
		}
		if err != nil || ok != (want2 != nil) || ok && !reflect.DeepEqual(raw, *want2) {
			t.Errorf("raw data of ledger %d is %v %v %v, want %v", seq, raw, ok, err, want2)
		}
		if ok && total != nil {
			total.raws++
		}
	}
}
