package statesync

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"evernode/hotpocket/statefs"
)

// pace lets all answers of a network together pass at a number of bytes per
// second.
func (w *network) pace(bytesPerSecond float64) {
	var mu sync.Mutex
	free := time.Now()
	for i := range len(w.serve) {
		w.spoil(i, func(next handler) handler {
			return func(ctx context.Context, req []byte) ([]byte, error) {
				reply, err := next(ctx, req)
				mu.Lock()
				if now := time.Now(); free.Before(now) {
					free = now
				}
				free = free.Add(time.Duration(float64(len(reply)) / bytesPerSecond * 1e9))
				wait := time.Until(free)
				mu.Unlock()
				select {
				case <-time.After(wait):
					return reply, err
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
		})
	}
}

// The cluster goes on every 100 ms, in one large file and in many small ones,
// while a node fetches everything at a pace that takes many times as long.
func TestSyncOfAStateThatMovesOn(t *testing.T) {
	const large = 24 << 20
	a := newNode(t, func(dir string) {
		writeRandom(t, dir+"/hot", large, 1)
		manyFiles(t, 4, 50, 2000)(dir)
		for i := range 40 {
			must(t, os.WriteFile(fmt.Sprintf("%s/still%d", dir, i), randomBytes(uint64(i), 50<<10), 0o644))
		}
	})
	b := newNode(t, nil)
	net := newNetwork(a, a, a)
	net.pace(16 << 20)
	c, blamed := client(b, net)
	first := a.Agreed()
	stop, ended := make(chan struct{}), make(chan struct{})
	var last atomic.Pointer[statefs.Version]
	changes := 0
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		rng := rand.New(rand.NewPCG(4, 4))
		for seq := uint64(1); ; seq++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			v := a.run(t, seq, func(dir string) {
				f, err := os.OpenFile(dir+"/hot", os.O_RDWR, 0)
				must(t, err)
				f.WriteAt(randomBytes(seq, 4096), rng.Int64N(large/4096)*4096)
				must(t, f.Close())
				for range 5 {
					name := fmt.Sprintf("%s/folder%d/file%05d", dir, rng.IntN(4), rng.IntN(50))
					must(t, os.WriteFile(name, fmt.Append(nil, seq), 0o644))
				}
			})
			changes++
			last.Store(&v)
			c.Retarget(v)
		}
	}()
	ctx, cancel := context.WithTimeout(bg, 60*time.Second)
	defer cancel()
	begin := time.Now()
	got, err := c.Sync(ctx, first)
	took := time.Since(begin)
	newest := last.Load()
	close(stop)
	<-ended
	must(t, err)
	if b.Agreed() != got {
		t.Fatalf("agreed on %v, Sync says %v", b.Agreed(), got)
	}
	t.Logf("in step after %v, at %d of %d, with %d bytes transferred", took.Round(time.Millisecond), got.Seq, newest.Seq, net.bytes.Load())
	if got.Seq+nearEnough+5 < newest.Seq || newest.Seq < 10 {
		t.Errorf("reached %d while the cluster was at %d", got.Seq, newest.Seq)
	}
	if n := net.bytes.Load(); n > 2*large {
		t.Errorf("transferred %d bytes", n)
	}
	if len(blamed.m) > 0 {
		t.Errorf("blamed %v", blamed.m)
	}
	syncTo(t, c, a.Agreed())
	sameState(t, a, b)
}

// A version that a peer fetches stays at hand although the state moves on, and
// is let go of afterwards; no more than two are kept.
func TestVersionsAreKeptForPeers(t *testing.T) {
	a := newNode(t, func(dir string) {
		writeRandom(t, dir+"/large", 300<<10, 1)
		must(t, os.WriteFile(dir+"/small", []byte("old"), 0o644))
	})
	s := NewServer(ServerConfig{State: a.Dir})
	defer s.Close()
	old := a.Agreed()
	files := map[string]statefs.Entry{}
	node, err := a.Object(bg, statefs.Ref{Kind: statefs.RefDir, Hash: old.Root})
	must(t, err)
	l, err := statefs.DecodeDir(node)
	must(t, err)
	for _, e := range l.Inline {
		files[e.Name] = e
	}
	get := func(root statefs.Version, ref statefs.Ref) status {
		reply, err := s.Serve(bg, peerKey(1), encodeRequest(root.Root, []question{{Ref: ref}}))
		must(t, err)
		answers, err := decodeReply(reply, 1)
		must(t, err)
		return answers[0].status
	}
	refs := []statefs.Ref{
		{Kind: statefs.RefDir, Hash: old.Root},
		{Kind: statefs.RefData, Path: "small", Hash: files["small"].Hash},
		{Kind: statefs.RefList, Path: "large", Hash: files["large"].Hash},
		{Kind: statefs.RefData, Path: "large", Hash: files["large"].Hash, Index: 4},
	}
	if get(old, refs[0]) != statusFound {
		t.Fatal("the root is not served")
	}
	seq := uint64(0)
	move := func(n int) {
		for range n {
			seq++
			a.run(t, seq, func(dir string) {
				writeRandom(t, dir+"/large", 300<<10, seq+10)
				must(t, os.WriteFile(dir+"/small", fmt.Append(nil, "new", seq), 0o644))
			})
		}
	}
	move(12)
	for _, ref := range refs {
		if got := get(old, ref); got != statusFound {
			t.Errorf("%d of %q after the state has moved on: status %d", ref.Kind, ref.Path, got)
		}
	}
	for name, ref := range map[string]statefs.Ref{
		"other content":    {Kind: statefs.RefData, Path: "small", Hash: files["large"].Hash},
		"group too far":    {Kind: statefs.RefData, Path: "large", Hash: files["large"].Hash, Index: 5},
		"out of the state": {Kind: statefs.RefData, Path: "../patch.cfg", Hash: files["small"].Hash},
		"no such file":     {Kind: statefs.RefList, Path: "gone", Hash: files["large"].Hash},
	} {
		if got := get(old, ref); got != statusMissing {
			t.Errorf("%s: status %d", name, got)
		}
	}
	if get(statefs.Version{}, refs[3]) != statusMissing {
		t.Error("an old version is found by those who did not begin with it")
	}
	get(a.Agreed(), statefs.Ref{Kind: statefs.RefDir, Hash: a.Agreed().Root})
	move(1)
	get(a.Agreed(), statefs.Ref{Kind: statefs.RefDir, Hash: a.Agreed().Root})
	if n := len(s.pins.at); n != maxPins {
		t.Errorf("%d versions are kept", n)
	}
	s.Close()
	if get(old, refs[3]) != statusMissing || len(s.pins.at) > 0 {
		t.Error("a version is kept after the end")
	}
}
