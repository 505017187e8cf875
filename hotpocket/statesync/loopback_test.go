package statesync

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"evernode/hotpocket/key"
	"evernode/hotpocket/mesh"
	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/mount"

	"golang.org/x/sys/unix"
)

// loop is a node of a real mesh over loopback TLS that serves a state.
type loop struct {
	mesh   *mesh.Mesh
	server *Server
	ups    chan key.Public
}

const kindTest mesh.Kind = 7

func (l *loop) Receive(key.Public, mesh.Kind, []byte) mesh.Verdict { return mesh.Accept }
func (l *loop) PeerUp(k key.Public)                                { l.ups <- k }
func (l *loop) PeerDown(key.Public)                                {}
func (l *loop) Serve(ctx context.Context, from key.Public, _ mesh.Kind, payload []byte) ([]byte, error) {
	return l.server.Serve(ctx, from, payload)
}

func (l *loop) Request(ctx context.Context, to key.Public, payload []byte) ([]byte, error) {
	return l.mesh.Request(ctx, to, kindTest, payload)
}

func (l *loop) RequestInto(ctx context.Context, to key.Public, payload, buf []byte) ([]byte, error) {
	return l.mesh.RequestInto(ctx, to, kindTest, payload, buf)
}

func (l *loop) Recycle(_ mesh.Kind, answer []byte) { l.server.Recycle(answer) }

func (l *loop) peers() (list []key.Public) {
	for _, p := range l.mesh.Peers() {
		list = append(list, p.Key)
	}
	return list
}

// loops starts a mesh of which the first node connects to all others, which
// serve the sources.
func loops(t testing.TB, sources ...Source) *loop {
	t.Helper()
	ctx, cancel := context.WithCancel(bg)
	var known []string
	var ends []chan struct{}
	t.Cleanup(func() {
		cancel()
		for _, e := range ends {
			<-e
		}
	})
	begin := func(c mesh.Config, s Source) *loop {
		k, err := key.Generate()
		must(t, err)
		c.Key, c.ContractID = k, "sync"
		l := &loop{ups: make(chan key.Public, 16), server: NewServer(ServerConfig{State: s})}
		l.mesh, err = mesh.New(c, l, slog.New(slog.DiscardHandler))
		must(t, err)
		end := make(chan struct{})
		ends = append(ends, end)
		go func() { defer close(end); l.mesh.Run(ctx) }()
		return l
	}
	for _, s := range sources {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		known = append(known, l.Addr().String())
		begin(mesh.Config{Listener: l}, s)
	}
	l := begin(mesh.Config{KnownPeers: known}, nil)
	for range sources {
		select {
		case <-l.ups:
		case <-time.After(10 * time.Second):
			t.Fatal("the nodes do not find each other")
		}
	}
	return l
}

func writeRandom(t testing.TB, name string, size int, seed uint64) {
	data := make([]byte, size)
	rng := rand.New(rand.NewPCG(seed, 1))
	for j := 0; j+8 <= len(data); j += 8 {
		binary.LittleEndian.PutUint64(data[j:], rng.Uint64())
	}
	must(t, os.WriteFile(name, data, 0o644))
}

func megabytes(def int) int {
	if n, err := strconv.Atoi(os.Getenv("SYNC_MB")); err == nil {
		return n
	}
	return def
}

// cpuTime is what the process has used of all cores.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// timed is a Target that tells when its staging was complete.
type timed struct {
	statefs.State
	switched time.Time
	cpu      time.Duration
}

type timedStaging struct {
	statefs.Staging
	t *timed
}

func (t *timed) Stage(ctx context.Context) (statefs.Staging, error) {
	s, err := t.State.Stage(ctx)
	return timedStaging{s, t}, err
}

func (s timedStaging) Switch(ctx context.Context, v statefs.Version, patch []byte) error {
	s.t.switched, s.t.cpu = time.Now(), cpuTime()
	return s.Staging.Switch(ctx, v, patch)
}

// fresh opens a state of the backend that the environment names.
func fresh(b *testing.B, fill func(dir string)) statefs.State {
	if os.Getenv("SYNC_BACKEND") != "fuse" {
		return newNode(b, fill).Dir
	}
	dir := b.TempDir()
	if fill != nil {
		seed := filepath.Join(dir, "seed", "state")
		must(b, os.MkdirAll(seed, 0o755))
		fill(seed)
	}
	s, err := mount.Open(bg, statefs.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	must(b, err)
	b.Cleanup(func() { s.Close() })
	return s
}

func benchLoopback(b *testing.B, fill func(dir string)) {
	src := fresh(b, fill)
	for b.Loop() {
		b.StopTimer()
		dst := fresh(b, nil)
		l := loops(b, src, src, src)
		target := &timed{State: dst}
		fetched := uint64(0)
		c := NewClient(Config{State: target, Transport: l, Peers: l.peers, Progress: func(p Progress) { fetched = p.FetchedBytes }})
		begin, cpu := time.Now(), cpuTime()
		b.StartTimer()
		syncTo(b, c, src.Agreed())
		b.StopTimer()
		took := target.switched.Sub(begin)
		b.ReportMetric(float64(fetched)/1e6/took.Seconds(), "MB/s")
		b.ReportMetric(took.Seconds(), "fetch-s")
		b.ReportMetric((target.cpu - cpu).Seconds(), "fetch-cpu-s")
		b.ReportMetric(time.Since(target.switched).Seconds(), "switch-s")
		dst.Close()
		b.StartTimer()
	}
}

// BenchmarkLoopback is a fresh node that fetches a state from three peers over
// real connections.
func BenchmarkLoopback(b *testing.B) {
	b.Run("large", func(b *testing.B) {
		benchLoopback(b, func(dir string) {
			for i := range megabytes(256) / 64 {
				writeRandom(b, fmt.Sprintf("%s/f%d", dir, i), 64<<20, uint64(i))
			}
		})
	})
	b.Run("small", func(b *testing.B) {
		benchLoopback(b, func(dir string) {
			data := make([]byte, 1<<10)
			for i := range files(100000) {
				if i%1000 == 0 {
					must(b, os.Mkdir(fmt.Sprintf("%s/d%d", dir, i/1000), 0o755))
				}
				binary.LittleEndian.PutUint64(data, uint64(i))
				must(b, os.WriteFile(fmt.Sprintf("%s/d%d/f%d", dir, i/1000, i), data, 0o644))
			}
		})
	})
}

func files(def int) int {
	if n, err := strconv.Atoi(os.Getenv("SYNC_FILES")); err == nil {
		return n
	}
	return def
}
