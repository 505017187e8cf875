package mesh

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"evernode/hotpocket/key"
)

// counter is a handler for benchmarks: it counts and, if told so, answers.
type counter struct {
	mesh     *Mesh
	echo     bool
	received atomic.Int64
	target   atomic.Int64
	reached  chan struct{}
	ups      chan key.Public
}

func (c *counter) Receive(from key.Public, kind Kind, payload []byte) Verdict {
	if c.echo {
		c.mesh.Send(from, kind, payload)
	}
	if c.received.Add(1) == c.target.Load() {
		c.reached <- struct{}{}
	}
	return Accept
}

func (c *counter) Serve(_ context.Context, _ key.Public, _ Kind, payload []byte) ([]byte, error) {
	return payload, nil
}
func (c *counter) PeerUp(k key.Public) { c.ups <- k }
func (c *counter) PeerDown(key.Public) {}

// cluster starts n fully connected meshes.
func cluster(b *testing.B, n int) []*counter {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var nodes []*counter
	var ends []chan struct{}
	var known []string
	for i := range n {
		l := listen(b, "127.0.0.1:0")
		c := &counter{reached: make(chan struct{}, 1), ups: make(chan key.Public, n)}
		m, err := New(Config{Key: testKey(b, i+1), ContractID: "bench", Listener: l, KnownPeers: known, Forward: true, QueueBytes: 256 << 20},
			c, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		c.mesh = m
		known = append(known, l.Addr().String())
		end := make(chan struct{})
		go func() { defer close(end); m.Run(ctx) }()
		nodes, ends = append(nodes, c), append(ends, end)
	}
	b.Cleanup(func() {
		cancel()
		for _, e := range ends {
			<-e
		}
	})
	for _, c := range nodes {
		for range n - 1 {
			wait(b, c.ups)
		}
	}
	return nodes
}

// BenchmarkPingPong is the round trip of a 300-byte message over loopback TLS.
func BenchmarkPingPong(b *testing.B) {
	nodes := cluster(b, 2)
	nodes[1].echo = true
	payload := make([]byte, 300)
	for b.Loop() {
		nodes[0].target.Store(nodes[0].received.Load() + 1)
		nodes[0].mesh.Send(nodes[1].mesh.self, 1, payload)
		<-nodes[0].reached
	}
}

// BenchmarkBroadcast is the throughput of 300-byte messages to 3 peers until
// they have arrived.
func BenchmarkBroadcast(b *testing.B) {
	benchmarkBroadcast(b, func(m *Mesh, p []byte, i int) { m.Broadcast(1, p, ScopeAll) })
}

// BenchmarkFlood is the same with flooding, where every message is hashed.
func BenchmarkFlood(b *testing.B) {
	benchmarkBroadcast(b, func(m *Mesh, p []byte, i int) {
		p[0], p[1], p[2], p[3] = byte(i), byte(i>>8), byte(i>>16), byte(i>>24)
		m.Flood(m.self, 1, p, ScopeAll)
	})
}

func benchmarkBroadcast(b *testing.B, send func(*Mesh, []byte, int)) {
	nodes := cluster(b, 4)
	payload := make([]byte, 300)
	for _, c := range nodes[1:] {
		c.target.Store(int64(b.N))
	}
	b.SetBytes(int64(len(payload)))
	b.ResetTimer()
	for i := range b.N {
		send(nodes[0].mesh, payload, i)
	}
	for _, c := range nodes[1:] {
		<-c.reached
	}
}

// BenchmarkBroadcastCall is what a broadcast of 300 bytes to 3 peers costs its
// caller when the peers are idle, as in a round of consensus.
func BenchmarkBroadcastCall(b *testing.B) {
	nodes := cluster(b, 4)
	payload := make([]byte, 300)
	var spent time.Duration
	for range b.N {
		for _, c := range nodes[1:] {
			c.target.Store(c.received.Load() + 1)
		}
		begin := time.Now()
		nodes[0].mesh.Broadcast(1, payload, ScopeAll)
		spent += time.Since(begin)
		for _, c := range nodes[1:] {
			<-c.reached
		}
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/call")
}

// BenchmarkRequest is the throughput of 4 MiB answers, as in state sync, with
// four requests under way.
func BenchmarkRequest(b *testing.B) {
	nodes := cluster(b, 2)
	payload := make([]byte, 4<<20)
	b.SetBytes(int64(len(payload)))
	b.SetParallelism(2)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := nodes[0].mesh.Request(context.Background(), nodes[1].mesh.self, 1, payload); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
