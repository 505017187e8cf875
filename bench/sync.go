package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"evernode/hotpocket/key"
	"evernode/hotpocket/mesh"
	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/mount"
	"evernode/hotpocket/statesync"
)

const (
	// syncPeers is how many nodes serve the state that one fetches.
	syncPeers   = 3
	syncLarge   = 1 << 30
	syncFiles   = 100_000
	syncKind    = mesh.Kind(40)
	syncPing    = mesh.Kind(41)
	syncTimeout = 5 * time.Minute
)

// syncBackend is a way to keep a state.
type syncBackend struct {
	name string
	open func(ctx context.Context, dir string) (statefs.State, error)
}

func syncBackends() []syncBackend {
	quiet := slog.New(slog.DiscardHandler)
	return []syncBackend{
		{"FUSE", func(ctx context.Context, dir string) (statefs.State, error) {
			return mount.Open(ctx, statefs.Config{Dir: dir, Log: quiet})
		}},
		{"plain folder", func(ctx context.Context, dir string) (statefs.State, error) {
			return statefs.OpenDir(ctx, statefs.Config{Dir: dir, Log: quiet})
		}},
	}
}

// runSync measures how a node gets the state of others: nodes of one process,
// real connections.
func (b *bench) runSync(ctx context.Context) error {
	dir, err := os.MkdirTemp(filepath.Dir(b.cluster.nodes[0].dir), "sync")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	floor, err := tlsCopy(ctx, dir, 256<<20)
	if err != nil {
		return err
	}
	for i, backend := range syncBackends() {
		s := &syncBench{b: b, backend: backend, dir: filepath.Join(dir, fmt.Sprint(i)), floor: floor}
		err := s.run(ctx)
		if errors.Is(err, mount.ErrUnavailable) {
			b.report.note("sync: %s is not measured: %v", backend.name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", backend.name, err)
		}
		if err := os.RemoveAll(s.dir); err != nil {
			return err
		}
	}
	return nil
}

// syncBench measures one backend.
type syncBench struct {
	b       *bench
	backend syncBackend
	dir     string
	floor   float64
	opened  int
}

func (s *syncBench) run(ctx context.Context) error {
	if err := s.large(ctx); err != nil {
		return err
	}
	return s.small(ctx)
}

func (s *syncBench) name(what string) string { return "sync, " + s.backend.name + ": " + what }

// node opens a state in a folder of its own.
func (s *syncBench) node(ctx context.Context, fill func(dir string) error) (statefs.State, error) {
	s.opened++
	dir := filepath.Join(s.dir, fmt.Sprint(s.opened))
	if fill != nil {
		seed := filepath.Join(dir, "seed", "state")
		if err := os.MkdirAll(seed, 0o755); err != nil {
			return nil, err
		}
		if err := fill(seed); err != nil {
			return nil, err
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return s.backend.open(ctx, dir)
}

// syncChange runs a change as a contract would.
func syncChange(ctx context.Context, st statefs.State, seq uint64, f func(dir string) error) error {
	run, err := st.Begin(ctx, seq)
	if err != nil {
		return err
	}
	if err := f(run.Dir()); err != nil {
		return errors.Join(err, run.Rollback(ctx))
	}
	if _, _, err := run.End(ctx); err != nil {
		return err
	}
	return run.Commit(ctx)
}

// large fetches a large file, and then one part in a hundred of it.
func (s *syncBench) large(ctx context.Context) (err error) {
	const files = 4
	src, err := s.node(ctx, func(dir string) error {
		for i := range files {
			if err := syncFile(filepath.Join(dir, fmt.Sprint("large", i)), syncLarge/files, uint64(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := s.node(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	got, err := s.fetch(ctx, src, dst, true)
	if err != nil {
		return err
	}
	s.b.report.add(s.name("1 GB from 3 peers"), float64(got.Progress.FetchedBytes)/1e6/got.fetch.Seconds(), "MB/s").
		beside(s.floor, "TLS into a file").must(atLeast(300))
	s.b.report.add(s.name("putting 1 GB into place"), got.place.Seconds(), "s")
	s.b.report.add(s.name("urgent message meanwhile, 99 of 100"), float64(got.ping.Microseconds())/1e3, "ms")
	if err := syncChange(ctx, src, 1, func(dir string) error {
		rng := rand.New(rand.NewPCG(7, 7))
		block := make([]byte, 4096)
		for range syncLarge / 100 / len(block) {
			syncNoise(block, rng)
			if err := syncOverwrite(filepath.Join(dir, fmt.Sprint("large", rng.IntN(files))), block, rng.Int64N(syncLarge/files/4096)*4096); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if got, err = s.fetch(ctx, src, dst, false); err != nil {
		return err
	}
	s.b.report.add(s.name("1 % behind, scattered 4 KiB of 1 GB"), got.percent(), "%").must(atMost(2))
	return nil
}

// small fetches many small files, and then one in a hundred of them.
func (s *syncBench) small(ctx context.Context) (err error) {
	name := func(i int) string { return fmt.Sprintf("file%06d", i) }
	src, err := s.node(ctx, func(dir string) error {
		data := make([]byte, 1000)
		for i := range syncFiles {
			binary.LittleEndian.PutUint64(data, uint64(i))
			if err := os.WriteFile(filepath.Join(dir, name(i)), data, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := s.node(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	got, err := s.fetch(ctx, src, dst, false)
	if err != nil {
		return err
	}
	s.b.report.add(s.name("100,000 files of 1 KB in one folder"), (got.fetch + got.place).Seconds(), "s").must(atMost(20))
	if err := syncChange(ctx, src, 1, func(dir string) error {
		rng := rand.New(rand.NewPCG(8, 8))
		data := make([]byte, 1000)
		for range syncFiles / 100 {
			syncNoise(data, rng)
			if err := os.WriteFile(filepath.Join(dir, name(rng.IntN(syncFiles))), data, 0o644); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if got, err = s.fetch(ctx, src, dst, false); err != nil {
		return err
	}
	s.b.report.add(s.name("1 % behind, 1,000 of 100,000 files"), got.percent(), "%").must(atMost(2))
	return nil
}

// fetched is what a sync took.
type fetched struct {
	statesync.Progress
	fetch, place time.Duration // until the last block, and from then on
	ping         time.Duration
}

// percent is what went over the network, of the size of the state.
func (f *fetched) percent() float64 {
	return 100 * float64(f.FetchedBytes+f.SentBytes) / float64(max(f.TotalBytes, 1))
}

// fetch brings dst to the state of src, which all peers serve.
func (s *syncBench) fetch(ctx context.Context, src, dst statefs.State, ping bool) (f fetched, err error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	node := func(c mesh.Config, server *statesync.Server) (*syncNode, error) {
		k, err := key.Generate()
		if err != nil {
			return nil, err
		}
		c.Key, c.ContractID = k, "bench"
		n := &syncNode{server: server, ups: make(chan struct{}, syncPeers), pongs: make(chan time.Duration, 1)}
		if n.mesh, err = mesh.New(c, n, slog.New(slog.DiscardHandler)); err != nil {
			return nil, err
		}
		running.Go(func() { n.mesh.Run(ctx) })
		return n, nil
	}
	var known []string
	for range syncPeers {
		server := statesync.NewServer(statesync.ServerConfig{State: src})
		defer server.Close()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return f, err
		}
		known = append(known, l.Addr().String())
		if _, err := node(mesh.Config{Listener: l}, server); err != nil {
			l.Close()
			return f, err
		}
	}
	n, err := node(mesh.Config{KnownPeers: known}, nil)
	if err != nil {
		return f, err
	}
	for range syncPeers {
		select {
		case <-n.ups:
		case <-ctx.Done():
			return f, fmt.Errorf("connect to the peers: %w", ctx.Err())
		}
	}
	var begin, last time.Time
	client := statesync.NewClient(statesync.Config{
		State: dst, Transport: n, Peers: n.peers,
		Progress: func(p statesync.Progress) {
			if p.Switching {
				last = time.Now()
			}
			f.Progress = p
			s.b.progress("%d of %d bytes are here", p.DoneBytes, p.TotalBytes)
		},
	})
	done, pinged := make(chan struct{}), make(chan time.Duration, 1)
	go func() {
		if ping {
			pinged <- n.pings(ctx, done)
		} else {
			pinged <- 0
		}
	}()
	begin = time.Now()
	reached, err := client.Sync(ctx, src.Agreed())
	end := time.Now()
	close(done)
	f.ping = <-pinged
	if err != nil {
		return f, err
	}
	if reached != src.Agreed() || dst.Agreed() != reached {
		return f, fmt.Errorf("came to state %v, want %v", dst.Agreed(), src.Agreed())
	}
	f.fetch, f.place = last.Sub(begin), end.Sub(last)
	return f, nil
}

// syncNode is a node that serves a state, or fetches one.
type syncNode struct {
	mesh   *mesh.Mesh
	server *statesync.Server
	ups    chan struct{}
	pongs  chan time.Duration
}

// Receive implements mesh.Handler: an urgent message is sent back, with the
// time at which it was sent.
func (n *syncNode) Receive(from key.Public, kind mesh.Kind, payload []byte) mesh.Verdict {
	if n.server != nil {
		_ = n.mesh.Send(from, kind, payload)
	} else if len(payload) == 8 {
		select {
		case n.pongs <- time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(payload)))):
		default:
		}
	}
	return mesh.Accept
}

// Serve implements mesh.Handler.
func (n *syncNode) Serve(ctx context.Context, from key.Public, _ mesh.Kind, payload []byte) ([]byte, error) {
	return n.server.Serve(ctx, from, payload)
}

// Recycle implements mesh.Recycler.
func (n *syncNode) Recycle(_ mesh.Kind, answer []byte) { n.server.Recycle(answer) }

// PeerUp implements mesh.Handler.
func (n *syncNode) PeerUp(key.Public) {
	select {
	case n.ups <- struct{}{}:
	default:
	}
}

// PeerDown implements mesh.Handler.
func (n *syncNode) PeerDown(key.Public) {}

func (n *syncNode) peers() (list []key.Public) {
	for _, p := range n.mesh.Peers() {
		list = append(list, p.Key)
	}
	return list
}

// Request implements statesync.Transport.
func (n *syncNode) Request(ctx context.Context, to key.Public, payload []byte) ([]byte, error) {
	return n.mesh.Request(ctx, to, syncKind, payload)
}

// RequestInto implements statesync.BufferedTransport.
func (n *syncNode) RequestInto(ctx context.Context, to key.Public, payload, buf []byte) ([]byte, error) {
	return n.mesh.RequestInto(ctx, to, syncKind, payload, buf)
}

// pings sends an urgent message every 10 ms, as consensus would, until done is
// closed, and returns how long 99 of 100 took there and back.
func (n *syncNode) pings(ctx context.Context, done chan struct{}) time.Duration {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	peers := n.peers()
	var took []time.Duration
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-done:
			slices.Sort(took)
			if len(took) == 0 {
				return 0
			}
			return took[len(took)*99/100]
		}
		_ = n.mesh.Send(peers[i%len(peers)], syncPing, binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())))
		select {
		case d := <-n.pongs:
			took = append(took, d)
		case <-time.After(time.Second):
			took = append(took, time.Second)
		case <-ctx.Done():
		}
	}
}

// tlsCopy is what this machine does at best: n bytes over one TLS 1.3
// connection into a file, in MB/s.
func tlsCopy(ctx context.Context, dir string, n int64) (float64, error) {
	cert, err := syncCertificate()
	if err != nil {
		return 0, err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	if err != nil {
		return 0, err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		block := make([]byte, 1<<20)
		for range n / int64(len(block)) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}
	c, err := d.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	f, err := os.CreateTemp(dir, "copy")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	begin := time.Now()
	got, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{c}, make([]byte, 1<<20))
	if err != nil || got != n {
		return 0, fmt.Errorf("copy over TLS: %d bytes of %d: %w", got, n, err)
	}
	return float64(n) / 1e6 / time.Since(begin).Seconds(), nil
}

// syncCertificate makes a certificate such as nodes have.
func syncCertificate() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, err
}

func syncNoise(b []byte, rng *rand.Rand) {
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
}

// syncFile makes a file of bytes that repeat nowhere.
func syncFile(name string, size int, seed uint64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	block := make([]byte, 1<<20)
	for range size / len(block) {
		syncNoise(block, rng)
		if _, err := f.Write(block); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

func syncOverwrite(name string, b []byte, at int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, at)
	return errors.Join(err, f.Close())
}
