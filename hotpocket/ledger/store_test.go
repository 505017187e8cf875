package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"evernode/internal/digest"
	"evernode/internal/journal/disk"
)

// small are options with tiny shards and segments.
func small(fsys disk.FS) Options {
	return Options{FS: fsys, PrimaryShard: 16, RawShard: 4, SegmentSize: 4096, CheckpointSize: 3000, MaxBacklog: 1 << 16}
}

func mustOpen(t testing.TB, opts Options) (*Store, Recovered) {
	t.Helper()
	s, rec, err := Open(context.Background(), "l", opts)
	if err != nil {
		t.Fatal(err)
	}
	return s, rec
}

func fill(t testing.TB, s *Store, from, to uint64) {
	t.Helper()
	for seq := from; seq <= to; seq++ {
		if _, err := s.AppendLedger(chainRecord(seq, 30)); err != nil {
			t.Fatal(err)
		}
	}
}

func settle(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Sync(context.Background(), s.journal.Next()-1); err != nil {
		t.Fatal(err)
	}
}

func TestOnDisk(t *testing.T) {
	dir := t.TempDir() + "/ledger"
	ctx := context.Background()
	told := make(chan uint64, 1000)
	s, rec, err := Open(ctx, dir, Options{MaxRaw: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !rec.Fresh || rec.Last.Seq != 0 || len(rec.Promises) != 0 {
		t.Fatalf("new store: %+v", rec)
	}
	if _, ok := s.Last(); ok {
		t.Fatal("new store has a last ledger")
	}
	s.OnDurable(func(lsn uint64) { told <- lsn })
	s.AppendPromise([]byte("for 1"))
	fill(t, s, 1, 100)
	raw := chainRaw(100, 2)
	if _, err := s.AppendRaw(100, Raw{Inputs: raw.Inputs}); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := s.RawOf(100); err != nil || !ok || got.Outputs != nil || !reflect.DeepEqual(got.Inputs, raw.Inputs) {
		t.Fatalf("inputs only: %v %v %v", got, ok, err)
	}
	if _, err := s.AppendRaw(100, Raw{Outputs: raw.Outputs}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AppendRaw(99, Raw{Inputs: []RawInput{}}); err != nil {
		t.Fatal(err)
	}
	s.AppendPromise([]byte("for 101, first"))
	lsn := s.AppendPromise([]byte("for 101, second"))
	for last := uint64(0); last < lsn; last = <-told {
	}
	if _, _, err := Open(ctx, dir, Options{}); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Fatalf("a second process gets %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.AppendPromise(nil) != never {
		t.Error("a closed store takes promises")
	}
	if _, err := s.AppendLedger(chainRecord(101, 1)); err == nil {
		t.Error("a closed store takes ledgers")
	}
	if _, _, err := s.Get(50); err == nil {
		t.Error("a closed store reads files")
	}

	s, rec, err = Open(ctx, dir, Options{MaxRaw: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if rec.Fresh || !reflect.DeepEqual(rec.Last, chainRecord(100, 30)) {
		t.Fatalf("recovered %+v", rec)
	}
	if got := fmt.Sprintf("%s", rec.Promises); got != "[for 101, first for 101, second]" {
		t.Fatal(got)
	}
	if got, ok, err := s.RawOf(100); err != nil || !ok || !reflect.DeepEqual(got, raw) {
		t.Fatalf("%v %v %v", got, ok, err)
	}
	if got, ok, err := s.RawOf(99); err != nil || !ok || got.Outputs != nil || got.Inputs == nil || len(got.Inputs) != 0 {
		t.Fatalf("known to be empty: %v %v %v", got, ok, err)
	}
	if _, ok, err := s.RawOf(98); err != nil || ok {
		t.Fatalf("unknown: %v %v", ok, err)
	}
}

func TestOrder(t *testing.T) {
	s, _ := mustOpen(t, small(disk.NewMem()))
	defer s.Close()
	wrongPrev := chainRecord(6, 1)
	wrongPrev.Prev = digest.Sum([]byte("elsewhere"))
	wantOrder := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := s.AppendLedger(chainRecord(2, 1))
	wantOrder("ledger 2 into an empty store", err)
	_, err = s.AppendRaw(1, Raw{})
	wantOrder("raw data of an unknown ledger", err)
	_, err = s.Backfill(chainRecord(1, 1))
	wantOrder("back-filling an empty store", err)
	if _, err := s.AppendLedger(Record{}); err == nil {
		t.Error("ledger 0 is taken")
	}
	if _, err := s.AppendLedger(Record{Seq: 1, Body: make([]byte, MaxBody+1)}); err == nil {
		t.Error("an oversized ledger is taken")
	}
	fill(t, s, 1, 5)
	_, err = s.AppendLedger(chainRecord(5, 1))
	wantOrder("the last one again", err)
	_, err = s.AppendLedger(chainRecord(7, 1))
	wantOrder("a gap", err)
	_, err = s.AppendLedger(wrongPrev)
	wantOrder("another chain", err)
	_, err = s.StartAt(chainRecord(5, 1))
	wantOrder("starting where we are", err)
	_, err = s.StartAt(wrongPrev)
	wantOrder("starting at a successor of another chain", err)
	if _, err := s.StartAt(chainRecord(10, 1)); err != nil {
		t.Fatal(err)
	}
	if from, to, ok := s.Missing(); !ok || from != 6 || to != 9 {
		t.Errorf("missing %d to %d, %v", from, to, ok)
	}
	if first, ok := s.First(); !ok || first != 10 {
		t.Errorf("first is %d", first)
	}
	_, err = s.Backfill(chainRecord(8, 1))
	wantOrder("back-filling with a gap", err)
	fake := chainRecord(9, 1)
	fake.Hash[0]++
	_, err = s.Backfill(fake)
	wantOrder("back-filling another hash", err)
	for seq := uint64(9); seq > 6; seq-- {
		if _, err := s.Backfill(chainRecord(seq, 1)); err != nil {
			t.Fatal(err)
		}
	}
	fake = chainRecord(6, 1)
	fake.Prev[0]++
	_, err = s.Backfill(fake)
	wantOrder("back-filling up to another chain", err)
	if _, err := s.Backfill(chainRecord(6, 1)); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := s.Missing(); ok {
		t.Error("something is missing still")
	}
	if first, _ := s.First(); first != 1 {
		t.Errorf("first is %d after the gap is filled", first)
	}
	var seqs []uint64
	for r, err := range s.Ledgers(3, 8) {
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, r.Seq)
	}
	if !slices.Equal(seqs, []uint64{3, 4, 5, 6, 7, 8}) {
		t.Error(seqs)
	}
}

func TestQueries(t *testing.T) {
	opts := small(disk.NewMem())
	opts.History = Full
	s, _ := mustOpen(t, opts)
	fill(t, s, 1, 40)
	if _, err := s.StartAt(chainRecord(60, 30)); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 61, 130)
	check := func() {
		t.Helper()
		for _, c := range []struct{ ms, want uint64 }{
			{59_999, 0}, {60_000, 60}, {60_999, 60}, {61_000, 61}, {100_500, 100}, {130_000, 130}, {1 << 60, 130},
		} {
			r, ok, err := s.AtTime(c.ms)
			if err != nil || ok != (c.want != 0) || r.Seq != c.want {
				t.Errorf("at %d ms: %d %v %v, want %d", c.ms, r.Seq, ok, err, c.want)
			}
		}
		for seq := uint64(0); seq < 140; seq++ {
			stored := seq >= 1 && seq <= 40 || seq >= 60 && seq <= 130
			r, ok, err := s.Get(seq)
			if err != nil || ok != stored || ok && !reflect.DeepEqual(r, chainRecord(seq, 30)) {
				t.Errorf("ledger %d: %v %v %v", seq, r, ok, err)
			}
			r, ok, err = s.ByHash(chainRecord(seq+1000*b2u(seq == 0), 0).Hash)
			if err != nil || ok != stored || ok && r.Seq != seq {
				t.Errorf("by hash of %d: %v %v %v", seq, r.Seq, ok, err)
			}
		}
		n := 0
		for r, err := range s.Ledgers(0, 1000) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 45 && r.Seq != 64 {
				t.Errorf("ledger number 45 in the iteration is %d", r.Seq)
			}
		}
		if n != 111 {
			t.Errorf("iteration yields %d ledgers", n)
		}
	}
	check() // partly from memory
	settle(t, s)
	check()
	s.Close()
	s, _ = mustOpen(t, opts)
	defer s.Close()
	check() // from files
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// shardFiles counts the index files in a folder, after the applier has done
// what there is to do.
func shardFiles(t *testing.T, fsys disk.FS, dir string) int {
	t.Helper()
	names, err := fsys.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		if strings.HasSuffix(name, ".idx") {
			n++
		}
	}
	return n
}

func TestRetention(t *testing.T) {
	for _, c := range []struct {
		history                History
		maxPrimary, maxRaw     uint64
		wantPrimary, wantRaw   int
		firstLedger, firstRaw  uint64
		thenPrimary, thenFirst uint64
	}{
		{Custom, 1, 0, 1, 0, 496, 0, 1, 496},
		{Custom, 3, 2, 3, 2, 464, 496, 2, 480},
		{Custom, 1, 9, 1, 9, 496, 468, 1, 496},
		{Full, 1, 0, 32, 126, 1, 1, 1, 1},
		{"", 0, 0, 1, 0, 496, 0, 1, 496},
	} {
		t.Run(fmt.Sprint(c.history, c.maxPrimary, c.maxRaw), func(t *testing.T) {
			mem := disk.NewMem()
			opts := small(mem)
			opts.History, opts.MaxPrimary, opts.MaxRaw = c.history, c.maxPrimary, c.maxRaw
			s, _ := mustOpen(t, opts)
			var most int64
			for seq := uint64(1); seq <= 500; seq++ {
				fill(t, s, seq, seq)
				if _, err := s.AppendRaw(seq, chainRaw(seq, 1)); err != nil {
					t.Fatal(err)
				}
				s.AppendPromise(make([]byte, 300))
				if seq%8 == 0 {
					drain(t, s)
				}
				most = max(most, mem.Used())
			}
			check := func() {
				t.Helper()
				for seq := uint64(1); seq <= 500; seq++ {
					if _, ok, err := s.Get(seq); err != nil || ok != (seq >= c.firstLedger) {
						t.Fatalf("ledger %d: %v %v", seq, ok, err)
					}
					if _, ok, err := s.RawOf(seq); err != nil || ok != (c.firstRaw > 0 && seq >= c.firstRaw) {
						t.Fatalf("raw data of ledger %d: %v %v", seq, ok, err)
					}
				}
			}
			check()
			s.Close()
			s, _ = mustOpen(t, opts)
			check()
			drain(t, s)
			if n := shardFiles(t, mem, "l/primary"); n != c.wantPrimary {
				t.Errorf("%d primary shards, want %d", n, c.wantPrimary)
			}
			if n := shardFiles(t, mem, "l/raw"); n != c.wantRaw {
				t.Errorf("%d raw shards, want %d", n, c.wantRaw)
			}
			if c.history == Custom && most > 120_000 {
				t.Errorf("up to %d bytes on disk", most)
			}
			s.Close()
			opts.MaxPrimary = c.thenPrimary
			s, _ = mustOpen(t, opts)
			if first, _ := s.First(); first != c.thenFirst {
				t.Errorf("with %d shards the first ledger is %d, want %d", c.thenPrimary, first, c.thenFirst)
			}
			drain(t, s)
			s.Close()
			// More again: nothing comes back by itself, everything can be back-filled.
			opts.MaxPrimary = 5
			s, _ = mustOpen(t, opts)
			defer s.Close()
			if first, _ := s.First(); first != c.thenFirst {
				t.Errorf("with more shards the first ledger is %d, want %d", first, c.thenFirst)
			}
			for from, to, ok := s.Missing(); ok; from, to, ok = s.Missing() {
				if from != 432 {
					t.Fatalf("missing from %d", from)
				}
				if _, err := s.Backfill(chainRecord(to, 30)); err != nil {
					t.Fatal(err)
				}
			}
			if c.history != Full {
				if _, err := s.Backfill(chainRecord(431, 30)); !errors.Is(err, ErrDropped) {
					t.Errorf("back-filling more than is kept: %v", err)
				}
			}
			settle(t, s)
			for seq := uint64(432); seq <= 500; seq++ {
				if r, ok, err := s.Get(seq); err != nil || !ok || r.Seq != seq {
					t.Fatalf("ledger %d: %v %v", seq, ok, err)
				}
			}
		})
	}
}

// drain waits until a checkpoint that was begun after the call is finished.
func drain(t testing.TB, s *Store) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due = true
	s.poke()
	for from := s.journal.Next(); s.kept < from; s.room.Wait() {
		if s.stopped {
			t.Fatal("the store has stopped")
		}
	}
}

func TestPromisesStayFew(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, small(mem))
	fill(t, s, 1, 3)
	for i := range 2000 {
		s.ReplacePromises(fmt.Appendf(make([]byte, 100), "promise %d", i))
		if i%100 == 0 {
			drain(t, s)
		}
	}
	s.AppendPromise([]byte("one more"))
	if used := mem.Used(); used > 60_000 {
		t.Errorf("a node that closes no ledger fills the disk: %d bytes", used)
	}
	s.Close()
	s, rec := mustOpen(t, small(mem))
	defer s.Close()
	if rec.Last.Seq != 3 || len(rec.Promises) != 2 || !bytes.HasSuffix(rec.Promises[0], []byte("promise 1999")) || string(rec.Promises[1]) != "one more" {
		t.Errorf("last %d, promises %q", rec.Last.Seq, rec.Promises)
	}
}

func TestFullDisk(t *testing.T) {
	mem := disk.NewMem()
	opts := small(mem)
	opts.History = Full
	s, _ := mustOpen(t, opts)
	mem.Limit(60_000)
	ctx := context.Background()
	durable := uint64(0)
	for {
		seq := durable + 1
		lsn, err := s.AppendLedger(chainRecord(seq, 100))
		if err == nil {
			err = s.Sync(ctx, lsn)
		}
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("on a full disk: %v", err)
			}
			break
		}
		durable = seq
	}
	<-s.Failed()
	if err := s.Err(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the store failed with %v", err)
	}
	if s.AppendPromise([]byte("x")) != never {
		t.Error("a promise is taken on a full disk")
	}
	if err := s.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("closing says %v", err)
	}
	if durable < 50 {
		t.Fatalf("only %d ledgers fit", durable)
	}
	mem.Limit(0)
	s, rec := mustOpen(t, opts)
	defer s.Close()
	if rec.Last.Seq < durable {
		t.Errorf("after making room the last ledger is %d, %d was durable", rec.Last.Seq, durable)
	}
	for seq := uint64(1); seq <= rec.Last.Seq; seq++ {
		if r, ok, err := s.Get(seq); err != nil || !ok || !reflect.DeepEqual(r, chainRecord(seq, 100)) {
			t.Fatalf("ledger %d: %v %v", seq, ok, err)
		}
	}
	fill(t, s, rec.Last.Seq+1, rec.Last.Seq+50)
	settle(t, s)
}

func TestFailingShardStopsTheStore(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, small(mem))
	mem.FailWith(func(op disk.Op, name string) error {
		if op == disk.OpSync && strings.HasSuffix(name, ".dat") {
			return syscall.EIO
		}
		return nil
	})
	for seq := uint64(1); s.Err() == nil; seq++ {
		if _, err := s.AppendLedger(chainRecord(seq, 30)); err != nil && !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
	}
	if err := s.Close(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	mem.FailWith(nil)
	// The journal before the failed checkpoint is still there.
	s, rec := mustOpen(t, small(mem.Crash(rand.New(rand.NewPCG(3, 3)))))
	defer s.Close()
	for seq := s.st.spans[0].from; seq <= rec.Last.Seq; seq++ {
		if _, ok, err := s.Get(seq); err != nil || !ok {
			t.Fatalf("ledger %d: %v %v", seq, ok, err)
		}
	}
}

func TestLostJournalIsRefused(t *testing.T) {
	mem := disk.NewMem()
	opts := small(mem)
	s, _ := mustOpen(t, opts)
	fill(t, s, 1, 40)
	drain(t, s)
	s.Close()
	names, err := mem.List("l/journal")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := mem.Remove("l/journal/" + name); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := Open(context.Background(), "l", opts); err == nil || !strings.Contains(err.Error(), "promises of this node are lost") {
		t.Fatalf("got %v", err)
	}
}

func TestDamagedShardIsNamed(t *testing.T) {
	for _, ending := range []string{"idx", "dat"} {
		mem := disk.NewMem()
		opts := small(mem)
		opts.History = Full
		s, _ := mustOpen(t, opts)
		fill(t, s, 1, 200)
		drain(t, s)
		s.Close()
		f, err := mem.Open("l/primary/00000000." + ending)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{0xA5, 0x5A}, 5*slotSize+3); err != nil {
			t.Fatal(err)
		}
		s, _ = mustOpen(t, opts)
		bad := 0
		for seq := uint64(1); seq < 16; seq++ {
			r, ok, err := s.Get(seq)
			switch {
			case err != nil && strings.Contains(err.Error(), "00000000."+ending+" is damaged at offset"):
				bad++
			case err != nil || !ok || !reflect.DeepEqual(r, chainRecord(seq, 30)):
				t.Errorf("%s: ledger %d: %v %v", ending, seq, ok, err)
			}
		}
		if bad != 1 {
			t.Errorf("%s: %d ledgers are said to be damaged, want 1", ending, bad)
		}
		s.Close()
	}
}

func TestBlobs(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, small(mem))
	ctx := context.Background()
	big := bytes.Repeat([]byte("nonce"), 100_000)
	for seq := range uint64(5) {
		if err := s.PutBlob(ctx, "nonces", seq, append(big, byte(seq))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutBlob(ctx, "other", 9, nil); err != nil {
		t.Fatal(err)
	}
	if seqs, err := s.Blobs("nonces"); err != nil || !slices.Equal(seqs, []uint64{3, 4}) {
		t.Fatalf("%v %v", seqs, err)
	}
	if b, err := s.Blob("nonces", 4); err != nil || !bytes.Equal(b, append(big, 4)) {
		t.Fatal(err)
	}
	if b, err := s.Blob("other", 9); err != nil || len(b) != 0 {
		t.Fatal(err)
	}
	if _, err := s.Blob("nonces", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("an old one: %v", err)
	}
	for _, name := range []string{"", "../x", "A", "a.b", strings.Repeat("a", 65)} {
		if err := s.PutBlob(ctx, name, 1, nil); err == nil {
			t.Errorf("name %q is taken", name)
		}
		if _, err := s.SetMeta(name, nil); err == nil {
			t.Errorf("name %q is taken", name)
		}
	}
	mem.Limit(mem.Used() + 1000)
	if err := s.PutBlob(ctx, "nonces", 5, big); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	mem.Limit(0)
	if seqs, err := s.Blobs("nonces"); err != nil || !slices.Equal(seqs, []uint64{3, 4}) {
		t.Errorf("after a full disk: %v %v", seqs, err)
	}
	if s.Err() != nil {
		t.Error("a blob that does not fit stops the store")
	}
	f, err := mem.Open("l/blobs/" + blobFile("nonces", 4))
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte{1}, 1000)
	if _, err := s.Blob("nonces", 4); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("a damaged blob gives %v", err)
	}
	s.Close()
}

func TestMeta(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, small(mem))
	set := func(name, value string) {
		t.Helper()
		if _, err := s.SetMeta(name, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	set("a", "1")
	set("b", "2")
	fill(t, s, 1, 100)
	drain(t, s)
	set("a", "")
	set("c", "3")
	if _, err := s.SetMeta("big", make([]byte, MaxMeta+1)); err == nil {
		t.Error("an oversized value is taken")
	}
	s.Close()
	s, _ = mustOpen(t, small(mem))
	defer s.Close()
	for name, want := range map[string]string{"a": "", "b": "2", "c": "3"} {
		if got := string(s.Meta(name)); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{History: "some"}, {PrimaryShard: 1 << 40}, {RawShard: 1 << 31}} {
		o.FS = disk.NewMem()
		if _, _, err := Open(context.Background(), "l", o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	mem := disk.NewMem()
	s, _ := mustOpen(t, small(mem))
	fill(t, s, 1, 3)
	s.Close()
	cancel()
	if _, _, err := Open(ctx, "l", small(mem)); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled Open says %v", err)
	}
	s, _ = mustOpen(t, small(mem)) // the folder is free again
	s.Close()
}
