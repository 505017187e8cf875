package journal

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"evernode/internal/journal/disk"
)

var crashSeeds = flag.Int("crash-seeds", 2000, "number of seeds of the crash tests")

type written struct {
	kind    byte
	payload []byte
}

// TestCrash runs a log on a file system that loses power at a random
// operation, again and again, and checks after each restart that everything
// reported durable is there, that nothing is there that was not appended, and
// that the order is the order of appending.
func TestCrash(t *testing.T) {
	cuts, recovered := 0, 0
	for seed := range uint64(*crashSeeds) {
		c, r := crashOnce(t, seed)
		cuts += c
		recovered += r
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d torn ends cut, %d records recovered", cuts, recovered)
	if *crashSeeds >= 100 && (cuts == 0 || recovered == 0) {
		t.Error("the test did not reach a torn end or a recovered record: it proves nothing")
	}
}

func crashOnce(t *testing.T, seed uint64) (cuts, recovered int) {
	r := rand.New(rand.NewPCG(seed, 1))
	mem := disk.NewMem()
	model := map[uint64]written{}
	var durable, dropped, appended uint64
	ctx := context.Background()
	// Records of one length: what stands in the place of a lost one fits to
	// what is left behind it.
	sameSize := r.IntN(2) == 0
	for range 6 {
		mem.CrashAfter(r.IntN(60))
		last := uint64(0)
		l, rec, err := Open("j", Options{FS: mem, SegmentSize: 4096, MaxPending: 1 << 16}, func(e Entry) error {
			if last != 0 && e.LSN != last+1 {
				return fmt.Errorf("record %d after %d", e.LSN, last)
			}
			last = e.LSN
			w, ok := model[e.LSN]
			if !ok {
				return fmt.Errorf("record %d was never appended", e.LSN)
			}
			if w.kind != e.Kind || !bytes.Equal(w.payload, e.Payload) {
				return fmt.Errorf("record %d has other content", e.LSN)
			}
			recovered++
			return nil
		})
		if err == nil {
			if rec.Last < durable {
				t.Errorf("records up to %d were durable, found only up to %d", durable, rec.Last)
			}
			if rec.Last > appended {
				t.Errorf("found record %d, only %d were appended", rec.Last, appended)
			}
			if rec.First > max(dropped, 1) {
				t.Errorf("log begins at %d, records were dropped only before %d", rec.First, dropped)
			}
			if rec.CutBytes > 0 {
				cuts++
			}
			for lsn := rec.Last + 1; lsn <= appended; lsn++ {
				delete(model, lsn)
			}
			appended, durable = rec.Last, rec.Last
			var told atomic.Uint64
			told.Store(durable)
			l.OnDurable(func(lsn uint64) {
				if lsn < told.Load() {
					t.Errorf("durable went from %d to %d", told.Load(), lsn)
				}
				told.Store(lsn)
			})
			for {
				w := written{kind: byte(r.IntN(250)), payload: make([]byte, r.IntN(900))}
				if sameSize {
					w.payload = make([]byte, 512-recordSize)
				} else if r.IntN(30) == 0 {
					w.payload = make([]byte, 4096+r.IntN(9000))
				}
				for i := range w.payload {
					w.payload[i] = byte(r.Uint32())
				}
				lsn, err := l.Append(w.kind, w.payload)
				if err != nil {
					break
				}
				if lsn != appended+1 {
					t.Errorf("record after %d got number %d", appended, lsn)
				}
				model[lsn] = w
				appended = lsn
				if r.IntN(3) == 0 {
					if err := l.Sync(ctx, lsn); err == nil && l.Durable() < lsn {
						t.Errorf("Sync of %d returned at durable %d", lsn, l.Durable())
					}
				}
				if r.IntN(8) == 0 {
					at := told.Load() / 2
					dropped = max(dropped, at)
					l.Truncate(at)
				}
			}
			if r.IntN(2) == 0 {
				if err := l.Close(); !errors.Is(err, disk.ErrCrashed) {
					t.Errorf("Close after a crash says %v", err)
				}
				durable = told.Load()
			} else {
				// The committer may not be through with its last report.
				<-l.stopped
				durable = told.Load()
				l.Close()
			}
		} else if !errors.Is(err, disk.ErrCrashed) {
			t.Errorf("opening: %v", err)
		}
		mem = mem.Crash(r)
	}
	return cuts, recovered
}
