package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"evernode/internal/journal/disk"
)

func collect(into *[]string) func(Entry) error {
	return func(e Entry) error {
		*into = append(*into, fmt.Sprintf("%d:%d:%s", e.LSN, e.Kind, e.Payload))
		return nil
	}
}

func mustOpen(t testing.TB, fs disk.FS, dir string, opts Options) (*Log, []string, Recovery) {
	t.Helper()
	var got []string
	opts.FS = fs
	l, rec, err := Open(dir, opts, collect(&got))
	if err != nil {
		t.Fatal(err)
	}
	return l, got, rec
}

func mustAppend(t testing.TB, l *Log, kind byte, payload string) uint64 {
	t.Helper()
	lsn, err := l.Append(kind, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

func TestRoundTripOnDisk(t *testing.T) {
	dir := t.TempDir()
	opts := Options{SegmentSize: 1 << 12}
	l, got, rec := mustOpen(t, disk.OS{}, dir, opts)
	if len(got) != 0 || rec != (Recovery{First: 1}) {
		t.Fatalf("new log has %v %+v", got, rec)
	}
	var want []string
	for i := range 200 {
		payload := strings.Repeat("x", i)
		if i == 100 {
			payload = strings.Repeat("y", 3<<12) // more than a segment
		}
		lsn := mustAppend(t, l, byte(i), payload)
		want = append(want, fmt.Sprintf("%d:%d:%s", lsn, byte(i), payload))
	}
	if err := l.Sync(context.Background(), 200); err != nil {
		t.Fatal(err)
	}
	if l.Durable() != 200 || l.Next() != 201 {
		t.Fatalf("durable %d, next %d", l.Durable(), l.Next())
	}
	if _, _, err := Open(dir, opts, collect(&got)); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Fatalf("a second writer gets %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(1, nil); !errors.Is(err, ErrClosed) {
		t.Fatalf("appending to a closed log: %v", err)
	}
	l, got, rec = mustOpen(t, disk.OS{}, dir, opts)
	if !slices.Equal(got, want) {
		t.Fatalf("read %d records, not what was written", len(got))
	}
	if rec.Last != 200 || rec.CutBytes != 0 {
		t.Fatalf("%+v", rec)
	}
	if err := l.Truncate(150); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, got, rec = mustOpen(t, disk.OS{}, dir, opts)
	defer l.Close()
	if rec.First > 150 || rec.First < 120 || !slices.Equal(got, want[rec.First-1:]) {
		t.Fatalf("after dropping what is before 150 the log begins at %d", rec.First)
	}
}

func TestEmptyAndReservedRecords(t *testing.T) {
	mem := disk.NewMem()
	l, _, _ := mustOpen(t, mem, "j", Options{SegmentSize: 1 << 12})
	mustAppend(t, l, 0, "")
	if _, err := l.Append(kindMark, nil); err == nil {
		t.Error("a record of the reserved kind is taken")
	}
	if err := l.Sync(context.Background(), 7); err == nil {
		t.Error("waiting for a record that does not exist ends well")
	}
	l.Close()
	l, got, _ := mustOpen(t, mem, "j", Options{SegmentSize: 1 << 12})
	defer l.Close()
	if !slices.Equal(got, []string{"1:0:"}) {
		t.Errorf("got %q", got)
	}
}

// gate lets syncs of segment files wait until the test lets them through.
type gate struct {
	arrived, pass chan struct{}
	on            atomic.Bool
	syncs         atomic.Int64
}

func (g *gate) hook(op disk.Op, name string) error {
	if op == disk.OpSync && strings.HasSuffix(name, ".log") && g.on.Load() {
		g.syncs.Add(1)
	}
	return nil
}

// slowFS is a Mem whose files wait at the gate when they sync.
type slowFS struct {
	*disk.Mem
	g *gate
}

type slowFile struct {
	disk.File
	g *gate
}

func (f slowFS) Open(name string) (disk.File, error) {
	file, err := f.Mem.Open(name)
	return slowFile{file, f.g}, err
}

func (f slowFile) Sync() error {
	if f.g.on.Load() {
		f.g.arrived <- struct{}{}
		<-f.g.pass
	}
	return f.File.Sync()
}

// TestGroupCommit checks that everything appended during one sync becomes
// durable with the next one, and nothing before it.
func TestGroupCommit(t *testing.T) {
	mem := disk.NewMem()
	g := &gate{arrived: make(chan struct{}), pass: make(chan struct{})}
	mem.FailWith(g.hook)
	told := make(chan uint64, 100)
	l, _, _ := mustOpen(t, slowFS{mem, g}, "j", Options{OnDurable: func(lsn uint64) { told <- lsn }})
	g.on.Store(true)
	mustAppend(t, l, 1, "first")
	<-g.arrived
	for range 50 {
		mustAppend(t, l, 1, "more")
	}
	if l.Durable() != 0 {
		t.Fatalf("durable is %d during the first sync", l.Durable())
	}
	g.pass <- struct{}{}
	if lsn := <-told; lsn != 1 {
		t.Fatalf("first report is %d", lsn)
	}
	<-g.arrived
	// A waiter that gives up.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Sync(ctx, 51); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled wait: %v", err)
	}
	g.pass <- struct{}{}
	if lsn := <-told; lsn != 51 {
		t.Fatalf("second report is %d", lsn)
	}
	if g.syncs.Load() != 2 {
		t.Fatalf("%d syncs for two groups", g.syncs.Load())
	}
	g.on.Store(false)
	l.Close()
}

// TestBackpressure checks that what is not yet written is bounded.
func TestBackpressure(t *testing.T) {
	mem := disk.NewMem()
	g := &gate{arrived: make(chan struct{}), pass: make(chan struct{})}
	l, _, _ := mustOpen(t, slowFS{mem, g}, "j", Options{MaxPending: 10_000})
	g.on.Store(true)
	mustAppend(t, l, 1, "first")
	<-g.arrived
	var appended atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			if _, err := l.Append(1, make([]byte, 1000)); err != nil {
				t.Error(err)
			}
			appended.Add(1)
		}
	})
	// The appender cannot be through while the first sync waits.
	for range 3 {
		g.pass <- struct{}{}
		<-g.arrived
		if n := appended.Load(); n > 80 {
			t.Errorf("%d records of 1000 bytes were taken with a limit of 10000 and few syncs", n)
		}
	}
	g.on.Store(false)
	close(g.pass)
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l.Durable() != 101 {
		t.Fatalf("durable %d", l.Durable())
	}
}

func TestSyncFailureIsFinal(t *testing.T) {
	for _, bad := range []disk.Op{disk.OpSync, disk.OpWrite} {
		mem := disk.NewMem()
		var reports atomic.Uint64
		l, _, _ := mustOpen(t, mem, "j", Options{SegmentSize: 1 << 12, OnDurable: func(lsn uint64) { reports.Store(lsn) }})
		mustAppend(t, l, 1, "good")
		if err := l.Sync(context.Background(), 1); err != nil {
			t.Fatal(err)
		}
		var once atomic.Bool
		mem.FailWith(func(op disk.Op, name string) error {
			if op == bad && strings.HasSuffix(name, ".log") && once.CompareAndSwap(false, true) {
				return syscall.EIO
			}
			return nil
		})
		mustAppend(t, l, 1, "bad")
		<-l.Failed()
		if err := l.Err(); !errors.Is(err, syscall.EIO) || !errors.Is(err, ErrFailed) {
			t.Errorf("%s: the log failed with %v", bad, err)
		}
		if _, err := l.Append(1, []byte("later")); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: appending after the failure: %v", bad, err)
		}
		if err := l.Sync(context.Background(), 2); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: waiting after the failure: %v", bad, err)
		}
		if err := l.Close(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: closing after the failure: %v", bad, err)
		}
		if reports.Load() != 1 || l.Durable() != 1 {
			t.Errorf("%s: durable %d, reported %d, though record 2 was never synced", bad, l.Durable(), reports.Load())
		}
		// Whatever the disk made of it, the log opens again with what was durable.
		mem2 := mem.Crash(rand.New(rand.NewPCG(1, 1)))
		l, got, _ := mustOpen(t, mem2, "j", Options{SegmentSize: 1 << 12})
		if len(got) < 1 || got[0] != "1:1:good" {
			t.Errorf("%s: after a restart: %q", bad, got)
		}
		l.Close()
	}
}

func TestFullDisk(t *testing.T) {
	mem := disk.NewMem()
	opts := Options{SegmentSize: 1 << 12}
	l, _, _ := mustOpen(t, mem, "j", opts)
	mem.Limit(4 << 12)
	var durable uint64
	for {
		lsn, err := l.Append(1, make([]byte, 500))
		if err == nil {
			err = l.Sync(context.Background(), lsn)
		}
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("on a full disk: %v", err)
			}
			break
		}
		durable = lsn
	}
	if durable < 20 {
		t.Fatalf("only %d records fit", durable)
	}
	l.Close()
	mem.Limit(0)
	l, got, _ := mustOpen(t, mem, "j", opts)
	defer l.Close()
	if uint64(len(got)) < durable {
		t.Fatalf("%d records after making room, %d were durable", len(got), durable)
	}
	if err := l.Sync(context.Background(), mustAppend(t, l, 1, "again")); err != nil {
		t.Fatal(err)
	}
	// With no room at all the error comes at once.
	full := disk.NewMem()
	full.Limit(100)
	if _, _, err := Open("j", Options{FS: full, SegmentSize: 1 << 12}, collect(&got)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("opening on a full disk: %v", err)
	}
}

// damaged writes a log of several segments, each record synced, and lets a
// function damage it.
func damaged(t *testing.T, harm func(mem *disk.Mem, segments []string)) (*Log, []string, Recovery, error) {
	t.Helper()
	mem := disk.NewMem()
	opts := Options{FS: mem, SegmentSize: 1 << 12}
	l, _, _ := mustOpen(t, mem, "j", opts)
	for range 20 {
		lsn := mustAppend(t, l, 1, strings.Repeat("z", 600))
		if err := l.Sync(context.Background(), lsn); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	names, err := mem.List("j")
	if err != nil {
		t.Fatal(err)
	}
	var segments []string
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			segments = append(segments, "j/"+name)
		}
	}
	if len(segments) < 3 {
		t.Fatalf("only %d segments", len(segments))
	}
	harm(mem, segments)
	var got []string
	l, rec, err := Open("j", opts, collect(&got))
	if l != nil {
		t.Cleanup(func() { l.Close() })
	}
	return l, got, rec, err
}

func flip(t *testing.T, mem *disk.Mem, name string, off int64) {
	t.Helper()
	f, err := mem.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

func TestDamage(t *testing.T) {
	last := func(s []string) string { return s[len(s)-1] }
	at := func(name func([]string) string, off int64) func(*disk.Mem, []string) {
		return func(mem *disk.Mem, s []string) { flip(t, mem, name(s), off) }
	}
	first := func(s []string) string { return s[0] }
	for _, c := range []struct {
		name string
		harm func(*disk.Mem, []string)
		want []string // in the error
	}{
		{"payload in an old segment", at(first, 700), []string{"00000000000000000001.log", "offset"}},
		{"length in an old segment", at(first, headerSize+1), []string{"records 1 to", "offset 28"}},
		{"header of an old segment", at(first, 2), []string{"00000000000000000001.log is damaged at offset 0"}},
		{"header of the last segment", at(last, 9), []string{"is damaged at offset 0"}},
		{"durable record in the last segment", at(last, headerSize+markSize+30), []string{"damaged at offset", "was durable up to record"}},
		{"a segment is missing", func(mem *disk.Mem, s []string) { mem.Remove(s[1]) }, []string{"are missing"}},
		{"a segment has another's name", func(mem *disk.Mem, s []string) { mem.Rename(s[1], "j/"+segmentName(999)) }, []string{"are missing"}},
		{"newer format", func(mem *disk.Mem, s []string) {
			f, _ := mem.Open(s[0])
			h := appendHeader(nil, seal{1, 1})
			h[7] = 9
			// A right checksum over the wrong version.
			f.WriteAt(reseal(h), 0)
		}, []string{"version 9"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, _, err := damaged(t, c.harm)
			if err == nil {
				t.Fatal("damage is not noticed")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
	t.Run("torn end", func(t *testing.T) {
		_, got, rec, err := damaged(t, func(mem *disk.Mem, s []string) {
			// The very last record: no mark says that it was durable.
			f, err := mem.Open(last(s))
			if err != nil {
				t.Fatal(err)
			}
			b, err := readAll(f)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, mem, last(s), int64(lastNonZero(b)-1))
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 19 || rec.CutBytes != recordSize+600 || !strings.HasSuffix(rec.CutFile, ".log") || rec.CutOffset == 0 {
			t.Errorf("%d records, %+v", len(got), rec)
		}
	})
	t.Run("foreign file", func(t *testing.T) {
		_, got, _, err := damaged(t, func(mem *disk.Mem, s []string) {
			mem.Create("j/notes.txt")
			mem.Create("j/spare.tmp")
		})
		if err != nil || len(got) != 20 {
			t.Errorf("%d records, %v", len(got), err)
		}
	})
}

func TestVisitErrorEndsOpen(t *testing.T) {
	mem := disk.NewMem()
	l, _, _ := mustOpen(t, mem, "j", Options{})
	mustAppend(t, l, 1, "a")
	l.Close()
	stop := errors.New("stop")
	if _, _, err := Open("j", Options{FS: mem}, func(Entry) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	// The lock is free again.
	l, got, _ := mustOpen(t, mem, "j", Options{})
	defer l.Close()
	if len(got) != 1 {
		t.Fatal(got)
	}
}

// TestPayloadThatLooksLikeRecords puts a copy of a whole segment into a payload
// and tears it: what is in it must not count as marks or records.
func TestPayloadThatLooksLikeRecords(t *testing.T) {
	mem := disk.NewMem()
	salts := uint64(0)
	opts := Options{SegmentSize: 1 << 14, salt: func() uint64 { salts++; return salts }}
	l, _, _ := mustOpen(t, mem, "j", opts)
	mustAppend(t, l, 1, "one")
	// Marks at every offset they could have, but sealed with a guessed salt.
	var forged []byte
	off := int64(headerSize + recordSize + 3 + recordSize)
	for range 100 {
		forged = appendRecord(forged, seal{first: 1, salt: 99}, off+int64(len(forged)), kindMark, []byte{0, 0, 0, 0, 0, 0, 0, 200})
	}
	mustAppend(t, l, 1, string(forged))
	l.Close()
	flip(t, mem, "j/"+segmentName(1), off-3)
	l, got, rec := mustOpen(t, mem, "j", opts)
	defer l.Close()
	if !slices.Equal(got, []string{"1:1:one"}) || rec.CutBytes == 0 {
		t.Errorf("%q %+v", got, rec)
	}
}

// TestCutRecordsStayCut tears a record in the middle of a group, so that whole
// records stand behind it, and then writes one of the same length in its place.
func TestCutRecordsStayCut(t *testing.T) {
	mem := disk.NewMem()
	g := &gate{arrived: make(chan struct{}), pass: make(chan struct{})}
	l, _, _ := mustOpen(t, slowFS{mem, g}, "j", Options{SegmentSize: 1 << 12})
	g.on.Store(true)
	mustAppend(t, l, 1, "a")
	<-g.arrived
	for _, p := range []string{"b", "c", "d", "e"} {
		mustAppend(t, l, 1, p)
	}
	g.pass <- struct{}{}
	<-g.arrived
	g.on.Store(false)
	g.pass <- struct{}{}
	l.Close()
	flip(t, mem, "j/"+segmentName(1), headerSize+2*(recordSize+1)+recordSize)
	l, got, rec := mustOpen(t, mem, "j", Options{SegmentSize: 1 << 12})
	if !slices.Equal(got, []string{"1:1:a", "2:1:b"}) || rec.CutBytes != 3*(recordSize+1) {
		t.Fatalf("%q %+v", got, rec)
	}
	mustAppend(t, l, 1, "C")
	l.Close()
	l, got, _ = mustOpen(t, mem, "j", Options{SegmentSize: 1 << 12})
	defer l.Close()
	if !slices.Equal(got, []string{"1:1:a", "2:1:b", "3:1:C"}) {
		t.Fatalf("%q", got)
	}
}

func reseal(h []byte) []byte {
	v := h[7]
	s := seal{first: 1, salt: 1}
	out := appendHeader(nil, s)
	out[7] = v
	sum := crcOf(out[:24])
	copy(out[24:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return out
}

func FuzzParseRecord(f *testing.F) {
	s := seal{first: 7, salt: 3}
	f.Add(appendRecord(nil, s, 28, 4, []byte("payload")))
	f.Add(appendRecord(nil, s, 28, kindMark, []byte{1, 2, 3, 4, 5, 6, 7, 8}))
	f.Add(appendRecord(nil, s, 28, kindMark, []byte{1, 2}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1})
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, payload, n, err := parseRecord(b, s, 28)
		provedDurable(b, s, 28)
		if _, err := parseHeader(b); err == nil && len(b) < headerSize {
			t.Error("short header")
		}
		if err != nil {
			return
		}
		if !bytes.Equal(appendRecord(nil, s, 28, kind, payload), b[:n]) {
			t.Error("a record that parses is not what would be written")
		}
	})
}

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
