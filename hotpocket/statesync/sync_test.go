package statesync

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

var bg = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is a state with its folder.
type node struct {
	*statefs.Dir
	path string
}

func newNode(t testing.TB, fill func(state string)) *node {
	t.Helper()
	n := &node{path: t.TempDir()}
	seed := filepath.Join(n.path, "seed/state")
	must(t, os.MkdirAll(seed, 0o755))
	if fill != nil {
		fill(seed)
	}
	n.open(t)
	t.Cleanup(func() { n.Close() })
	return n
}

func (n *node) open(t testing.TB) {
	t.Helper()
	d, err := statefs.OpenDir(bg, statefs.Config{Dir: n.path, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	n.Dir = d
}

func (n *node) state() string { return filepath.Join(n.path, "mnt/rw/state") }

// run changes the state as a run of the contract would.
func (n *node) run(t testing.TB, seq uint64, change func(state string)) statefs.Version {
	t.Helper()
	r, err := n.Begin(bg, seq)
	must(t, err)
	change(r.Dir())
	_, _, err = r.End(bg)
	must(t, err)
	must(t, r.Commit(bg))
	return n.Agreed()
}

func peerKey(i int) (k key.Public) {
	k[0] = 0xed
	k[1] = byte(i)
	return k
}

// network is an in-memory transport. serve may be replaced per peer to misbehave.
type network struct {
	mu    sync.Mutex
	serve map[key.Public]func(ctx context.Context, req []byte) ([]byte, error)
	bytes atomic.Int64
	calls atomic.Int64
}

func newNetwork(nodes ...*node) *network {
	w := &network{serve: make(map[key.Public]func(context.Context, []byte) ([]byte, error))}
	for i, n := range nodes {
		w.serve[peerKey(i)] = serving(ServerConfig{State: n})
	}
	return w
}

// serving answers one peer from a state.
func serving(cfg ServerConfig) func(context.Context, []byte) ([]byte, error) {
	s := NewServer(cfg)
	return func(ctx context.Context, req []byte) ([]byte, error) { return s.Serve(ctx, peerKey(200), req) }
}

func (w *network) Request(ctx context.Context, to key.Public, payload []byte) ([]byte, error) {
	w.calls.Add(1)
	w.mu.Lock()
	serve := w.serve[to]
	w.mu.Unlock()
	reply, err := serve(ctx, payload)
	w.bytes.Add(int64(len(reply)))
	return reply, err
}

func (w *network) peers() []key.Public {
	var list []key.Public
	for i := range len(w.serve) {
		list = append(list, peerKey(i))
	}
	return list
}

// spoil wraps a peer.
func (w *network) spoil(i int, with func(next func(context.Context, []byte) ([]byte, error)) func(context.Context, []byte) ([]byte, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serve[peerKey(i)] = with(w.serve[peerKey(i)])
}

type blames struct {
	mu sync.Mutex
	m  map[key.Public]error
}

func (b *blames) add(p key.Public, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m == nil {
		b.m = make(map[key.Public]error)
	}
	b.m[p] = err
}

func client(n *node, w *network, change ...func(*Config)) (*Client, *blames) {
	b := &blames{}
	cfg := Config{State: n, Transport: w, Peers: w.peers, Blame: b.add, Retry: time.Millisecond, Timeout: time.Minute}
	for _, c := range change {
		c(&cfg)
	}
	return NewClient(cfg), b
}

func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		must(t, err)
		fi, err := e.Info()
		must(t, err)
		rel, _ := filepath.Rel(dir, p)
		if rel == "." {
			return nil
		}
		fmt.Fprintf(&b, "%q %v ", rel, fi.Mode())
		if fi.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			must(t, err)
			fmt.Fprint(&b, digest.Sum(data))
		} else if fi.Mode()&fs.ModeSymlink != 0 {
			l, _ := os.Readlink(p)
			fmt.Fprint(&b, l)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

func fillRandom(seed uint64, files int) func(string) {
	return func(dir string) {
		rng := rand.New(rand.NewPCG(seed, 7))
		for i := range files {
			d := fmt.Sprintf("%s/d%d/e%d", dir, rng.IntN(5), rng.IntN(3))
			os.MkdirAll(d, 0o750)
			b := make([]byte, []int{0, 10, 3000, 64 << 10, 200<<10 + 5, 700 << 10}[rng.IntN(6)])
			for j := 0; j+8 <= len(b); j += 8 {
				binary.LittleEndian.PutUint64(b[j:], rng.Uint64())
			}
			os.WriteFile(fmt.Sprintf("%s/f%d", d, i), b, os.FileMode([]uint32{0o644, 0o755, 0o600}[rng.IntN(3)]))
		}
		os.Symlink("d0", dir+"/link")
		os.Mkdir(dir+"/empty", 0o700)
		os.WriteFile(dir+"/copy1", []byte("same"), 0o644)
		os.WriteFile(dir+"/copy2", []byte("same"), 0o600)
	}
}

func sameState(t testing.TB, a, b *node) {
	t.Helper()
	if a.Agreed() != b.Agreed() {
		t.Fatalf("agreed on %v and %v", a.Agreed(), b.Agreed())
	}
	if x, y := tree(t, a.state()), tree(t, b.state()); x != y {
		t.Fatalf("folders differ:\n%s\n%s", x, y)
	}
	x, err := os.ReadFile(filepath.Join(a.path, "mnt/rw/patch.cfg"))
	y, err2 := os.ReadFile(filepath.Join(b.path, "mnt/rw/patch.cfg"))
	if !bytes.Equal(x, y) || (err == nil) != (err2 == nil) {
		t.Fatalf("patch.cfg %q and %q", x, y)
	}
	v, err := b.View(bg)
	must(t, err)
	defer v.Close()
	if os.Geteuid() == 0 {
		if x, y := tree(t, a.state()), tree(t, v.Dir()); x != y {
			t.Fatalf("view differs:\n%s\n%s", x, y)
		}
	}
}

func syncTo(t testing.TB, c *Client, v statefs.Version) {
	t.Helper()
	ctx, cancel := context.WithTimeout(bg, 60*time.Second)
	defer cancel()
	got, err := c.Sync(ctx, v)
	must(t, err)
	if got != v {
		t.Fatalf("switched to %v, want %v", got, v)
	}
}

func TestSyncFromOnePeer(t *testing.T) {
	a := newNode(t, fillRandom(1, 60))
	_, err := a.SetPatch(bg, []byte(`{"version":"1.0"}`))
	must(t, err)
	b := newNode(t, func(dir string) { os.WriteFile(dir+"/extra", []byte("x"), 0o644) })
	net := newNetwork(a)
	c, blamed := client(b, net)
	syncTo(t, c, a.Agreed())
	sameState(t, a, b)
	if len(blamed.m) > 0 {
		t.Errorf("blamed %v", blamed.m)
	}
	// The synced node serves in turn, and runs.
	v := b.run(t, 9, func(dir string) { must(t, os.WriteFile(dir+"/mine", []byte("m"), 0o644)) })
	c, _ = client(a, newNetwork(b))
	syncTo(t, c, v)
	sameState(t, b, a)
}

func TestSyncTransfersOnlyWhatDiffers(t *testing.T) {
	fill := func(dir string) {
		fillRandom(2, 40)(dir)
		big := make([]byte, 20<<20)
		rng := rand.New(rand.NewPCG(5, 5))
		for j := 0; j+8 <= len(big); j += 8 {
			binary.LittleEndian.PutUint64(big[j:], rng.Uint64())
		}
		os.WriteFile(dir+"/big", big, 0o644)
	}
	a, b := newNode(t, fill), newNode(t, fill)
	v := a.run(t, 2, func(dir string) {
		f, err := os.OpenFile(dir+"/big", os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		f.WriteAt([]byte("changed"), 7<<20)
		must(t, os.WriteFile(dir+"/new", []byte("n"), 0o600))
		must(t, os.Rename(dir+"/d1", dir+"/renamed"))
	})
	net := newNetwork(a)
	c, _ := client(b, net)
	syncTo(t, c, v)
	sameState(t, a, b)
	// One block of 64 KiB, the list of 20 MiB and some folders.
	if n := net.bytes.Load(); n > 100<<10 {
		t.Errorf("transferred %d bytes", n)
	}
}

func TestSyncWithBadPeers(t *testing.T) {
	good := newNode(t, fillRandom(3, 80))
	v := good.Agreed()
	b := newNode(t, nil)
	net := newNetwork(good, good, good, good, good, good)
	type handler = func(context.Context, []byte) ([]byte, error)
	// 1 lies: every piece it sends has one bit changed.
	net.spoil(1, func(next handler) handler {
		return func(ctx context.Context, req []byte) ([]byte, error) {
			reply, err := next(ctx, req)
			if err == nil {
				reply[len(reply)-1] ^= 1
			}
			return reply, err
		}
	})
	// 2 sends rubbish.
	net.spoil(2, func(handler) handler {
		return func(context.Context, []byte) ([]byte, error) { return []byte{0, 0, 0, 9, 7}, nil }
	})
	// 3 loses two of three replies.
	var n atomic.Int64
	net.spoil(3, func(next handler) handler {
		return func(ctx context.Context, req []byte) ([]byte, error) {
			if n.Add(1)%3 != 0 {
				return nil, errors.New("lost")
			}
			return next(ctx, req)
		}
	})
	// 4 has nothing.
	empty := newNode(t, nil)
	net.spoil(4, func(handler) handler { return serving(ServerConfig{State: empty}) })
	// 5 never answers.
	net.spoil(5, func(handler) handler {
		return func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
	})
	c, blamed := client(b, net, func(c *Config) { c.Timeout = 50 * time.Millisecond })
	syncTo(t, c, v)
	sameState(t, good, b)
	for i := range 6 {
		_, got := blamed.m[peerKey(i)]
		if want := i == 1 || i == 2; got != want {
			t.Errorf("peer %d blamed: %v (%v)", i, got, blamed.m[peerKey(i)])
		}
	}
}

// Each of two peers has a part only; together they have everything.
func TestSyncFromPartialPeers(t *testing.T) {
	good := newNode(t, fillRandom(4, 60))
	b := newNode(t, nil)
	net := newNetwork(good, good)
	for i := range 2 {
		net.serve[peerKey(i)] = serving(ServerConfig{State: half{good, byte(i)}})
	}
	c, blamed := client(b, net)
	syncTo(t, c, good.Agreed())
	sameState(t, good, b)
	if len(blamed.m) > 0 {
		t.Errorf("blamed %v", blamed.m)
	}
}

type half struct {
	Source
	bit byte
}

func (h half) Object(ctx context.Context, ref statefs.Ref) ([]byte, error) {
	if (ref.Hash[0]^byte(ref.Index))&1 != h.bit {
		return nil, statefs.ErrNotFound
	}
	return h.Source.Object(ctx, ref)
}

// A sync that is cut off again and again, with the process restarted in
// between, comes to its end without fetching much twice.
func TestSyncResumes(t *testing.T) {
	a := newNode(t, func(dir string) {
		fillRandom(6, 60)(dir)
		os.WriteFile(dir+"/big", bytes.Repeat([]byte("0123456789abcdef"), 600<<10), 0o644)
	})
	b := newNode(t, nil)
	net := newNetwork(a)
	rounds := 0
	for ; ; rounds++ {
		if rounds > 200 {
			t.Fatal("no end")
		}
		ctx, cancel := context.WithCancel(bg)
		before := net.bytes.Load()
		c, _ := client(b, net, func(c *Config) {
			c.Progress = func(p Progress) {
				if net.bytes.Load()-before > 4<<20 {
					cancel()
				}
			}
		})
		_, err := c.Sync(ctx, a.Agreed())
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		must(t, b.Close())
		b.open(t)
	}
	sameState(t, a, b)
	if rounds < 2 {
		t.Errorf("the sync was cut off %d times only", rounds)
	}
	var size int64
	filepath.WalkDir(a.state(), func(_ string, e fs.DirEntry, _ error) error {
		if fi, err := e.Info(); err == nil {
			size += fi.Size()
		}
		return nil
	})
	// What is in flight when it is cut off is lost: at most 16 replies of 1 MiB.
	if n := net.bytes.Load(); n > size+int64(rounds)*20<<20 {
		t.Errorf("transferred %d bytes of a state of %d in %d rounds", n, size, rounds)
	}
	if list, _ := filepath.Glob(b.path + "/store/sync/*"); len(list) != 1 {
		t.Errorf("left in staging: %v", list)
	}
}

func TestRetarget(t *testing.T) {
	a := newNode(t, fillRandom(8, 60))
	old := a.Agreed()
	b := newNode(t, nil)
	net := newNetwork(a)
	var newer statefs.Version
	var c *Client
	var once sync.Once
	type handler = func(context.Context, []byte) ([]byte, error)
	n := 0
	var mu sync.Mutex
	net.spoil(0, func(next handler) handler {
		return func(ctx context.Context, req []byte) ([]byte, error) {
			mu.Lock()
			n++
			move := n == 5
			mu.Unlock()
			if move {
				once.Do(func() {
					for seq := uint64(1); seq <= 20; seq++ { // far enough for the old root to be forgotten
						newer = a.run(t, seq, func(dir string) {
							must(t, os.WriteFile(fmt.Sprintf("%s/d0/new%d", dir, seq), fmt.Append(nil, seq), 0o644))
							must(t, os.WriteFile(dir+"/copy1", fmt.Append(nil, seq), 0o644))
						})
					}
					c.Retarget(newer)
				})
			}
			return next(ctx, req)
		}
	})
	c, _ = client(b, net)
	ctx, cancel := context.WithTimeout(bg, 60*time.Second)
	defer cancel()
	got, err := c.Sync(ctx, old)
	must(t, err)
	if got != newer {
		t.Fatalf("switched to %v, want %v", got, newer)
	}
	sameState(t, a, b)
}

func TestSyncLargeFolder(t *testing.T) {
	a := newNode(t, func(dir string) {
		for i := range 3000 {
			os.WriteFile(fmt.Sprintf("%s/file%d", dir, i), fmt.Append(nil, i%500), 0o644)
		}
	})
	b := newNode(t, nil)
	net := newNetwork(a, a)
	c, _ := client(b, net)
	syncTo(t, c, a.Agreed())
	sameState(t, a, b)
	// One more name: one page, not the whole folder.
	v := a.run(t, 1, func(dir string) { must(t, os.WriteFile(dir+"/new", []byte("n"), 0o644)) })
	before := net.bytes.Load()
	syncTo(t, c, v)
	sameState(t, a, b)
	if n := net.bytes.Load() - before; n > 150<<10 {
		t.Errorf("one new file transferred %d bytes", n)
	}
}

func TestSyncWaitsForAPeer(t *testing.T) {
	a := newNode(t, fillRandom(9, 10))
	b := newNode(t, nil)
	net := newNetwork(a)
	calls := 0
	c, _ := client(b, net, func(c *Config) {
		c.Peers = func() []key.Public {
			if calls++; calls < 5 {
				return nil
			}
			return net.peers()
		}
	})
	syncTo(t, c, a.Agreed())
	sameState(t, a, b)
	if _, err := c.Sync(bg, a.Agreed()); err != nil {
		t.Errorf("sync to what is there: %v", err)
	}
}

func TestSyncNeedsTheRunToEnd(t *testing.T) {
	a, b := newNode(t, fillRandom(10, 5)), newNode(t, nil)
	r, err := b.Begin(bg, 1)
	must(t, err)
	c, _ := client(b, newNetwork(a))
	if _, err := c.Sync(bg, a.Agreed()); !errors.Is(err, statefs.ErrBusy) {
		t.Fatalf("sync during a run: %v", err)
	}
	must(t, r.Rollback(bg))
	syncTo(t, c, a.Agreed())
	sameState(t, a, b)
}

// Views opened before a sync keep their version.
func TestSyncUnderViews(t *testing.T) {
	a := newNode(t, fillRandom(11, 20))
	b := newNode(t, func(dir string) { os.WriteFile(dir+"/copy1", []byte("old"), 0o644) })
	v1, err := b.View(bg)
	must(t, err)
	b.run(t, 1, func(dir string) { os.WriteFile(dir+"/copy1", []byte("older"), 0o644) })
	v2, err := b.View(bg)
	must(t, err)
	c, _ := client(b, newNetwork(a))
	syncTo(t, c, a.Agreed())
	for v, want := range map[statefs.View]string{v1: "old", v2: "older"} {
		if got, _ := os.ReadFile(v.Dir() + "/copy1"); string(got) != want {
			t.Errorf("view shows %q, want %q", got, want)
		}
		v.Close()
	}
	sameState(t, a, b)
}

// A copy that was damaged behind the node's back is found by its hash and
// fetched again.
func TestSyncRepairsDamage(t *testing.T) {
	a, b := newNode(t, fillRandom(12, 30)), newNode(t, fillRandom(12, 30))
	if a.Agreed() != b.Agreed() {
		t.Fatal("the same seed has two roots")
	}
	v, err := b.View(bg)
	must(t, err)
	damaged := filepath.Join(v.Dir(), "copy1")
	must(t, v.Close())
	must(t, b.Close())
	must(t, os.Chmod(damaged, 0o644))
	must(t, os.WriteFile(damaged, []byte("DAMN"), 0o644))
	must(t, os.WriteFile(filepath.Join(b.path, "mnt/rw/state/copy1"), []byte("edit"), 0o644))
	must(t, os.WriteFile(filepath.Join(b.path, "mnt/rw/state/copy2"), []byte("edit"), 0o644))
	b.open(t)
	if !b.Damaged() {
		t.Fatal("the damage was not noticed")
	}
	if _, err := b.Begin(bg, 1); !errors.Is(err, statefs.ErrDamaged) {
		t.Fatalf("begin: %v", err)
	}
	if _, err := b.View(bg); !errors.Is(err, statefs.ErrDamaged) {
		t.Fatalf("view: %v", err)
	}
	c, _ := client(b, newNetwork(a))
	syncTo(t, c, a.Agreed())
	if b.Damaged() {
		t.Fatal("still damaged")
	}
	sameState(t, a, b)
}

func TestBlob(t *testing.T) {
	a, b := newNode(t, nil), newNode(t, nil)
	value := []byte("a value")
	h := digest.Sum(value)
	net := newNetwork(a, a, a)
	net.serve[peerKey(1)] = serving(ServerConfig{State: a, Blobs: func(digest.Hash) ([]byte, bool) { return []byte("wrong"), true }})
	net.serve[peerKey(2)] = serving(ServerConfig{State: a, Blobs: func(x digest.Hash) ([]byte, bool) { return value, x == h }})
	c, blamed := client(b, net)
	got, err := c.Blob(bg, h)
	must(t, err)
	if string(got) != string(value) {
		t.Errorf("got %q", got)
	}
	if len(blamed.m) != 1 || blamed.m[peerKey(1)] == nil {
		t.Errorf("blamed %v", blamed.m)
	}
	delete(net.serve, peerKey(2))
	if _, err := c.Blob(bg, h); !errors.Is(err, statefs.ErrNotFound) {
		t.Errorf("a blob nobody has: %v", err)
	}
}
