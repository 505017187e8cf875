package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/hotpocket/gateway"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
	"evernode/internal/digest"
	"evernode/internal/usermsg"

	"github.com/lxzan/gws"
)

const patience = 10 * time.Second

// host is what a cluster needs of a test, and what an example can offer too.
type host interface {
	Helper()
	Error(...any)
	Fatal(...any)
	Cleanup(func())
	TempDir() string
}

func testKey(t host, fill byte) key.Private {
	t.Helper()
	k, err := key.FromSeed(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func hashOf(n uint64) (h digest.Hash) {
	for i := range h {
		h[i] = byte(n)
	}
	return h
}

// cluster stands in for the nodes behind real gateways: it closes a ledger for
// each input and has the contract answer with what answer says.
type cluster struct {
	t      host
	answer func(input string) []string
	nodes  []*clusterNode
	feed   chan inputs.Submission
	stop   context.CancelFunc
	ctx    context.Context

	mu      sync.Mutex
	seq     uint64
	silent  bool // inputs are swallowed
	signers []byte
	unl     []key.Public
}

// clusterNode is a node of the cluster: a gateway and what it asks for.
type clusterNode struct {
	c    *cluster
	fill byte
	gw   *gateway.Gateway
	addr string
	stop func()
}

func (n *clusterNode) Submit(s inputs.Submission) inputs.Reason {
	select {
	case n.c.feed <- s:
		return inputs.None
	default:
		return inputs.InputsOverflow
	}
}

func (n *clusterNode) Read(_ context.Context, _ key.Public, content []byte) ([][]byte, error) {
	if string(content) == "fail" {
		return nil, errors.New("contract failed")
	}
	return [][]byte{fmt.Appendf(nil, "%d read %s", n.fill, content), []byte("and more")}, nil
}

func (n *clusterNode) Stat() usermsg.Stat {
	seq, hash := n.LastLedger()
	return usermsg.Stat{LedgerSeqNo: seq, LedgerHash: hash, VoteStatus: usermsg.VoteSynced, RoundTime: 1500, CurrentUNL: n.c.unl, Peers: []string{"p:1"}}
}

func (n *clusterNode) LastLedger() (uint64, digest.Hash) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return n.c.seq, hashOf(n.c.seq)
}

func (n *clusterNode) Query(_ context.Context, q gateway.Query) ([]usermsg.LedgerRecord, error) {
	if seq, _ := n.LastLedger(); q.SeqNo > seq {
		return nil, nil
	}
	return []usermsg.LedgerRecord{{SeqNo: q.SeqNo, Timestamp: 1700000000123, Hash: hashOf(q.SeqNo), PrevHash: hashOf(q.SeqNo - 1),
		Inputs:  []usermsg.LedgerInput{{Public: q.User, Hash: hashOf(1), Nonce: 5, Blob: []byte("in")}},
		Outputs: []usermsg.LedgerOutput{{Public: q.User, Hash: hashOf(2), Blobs: [][]byte{[]byte("out")}}}}}, nil
}

func newCluster(t host, nodes int) *cluster {
	t.Helper()
	c := &cluster{t: t, feed: make(chan inputs.Submission, 4096), seq: 5, answer: func(in string) []string { return []string{"echo: " + in, "done"} }}
	c.ctx, c.stop = context.WithCancel(context.Background())
	for i := range nodes {
		c.unl = append(c.unl, testKey(t, byte(i+1)).Public())
		c.signers = append(c.signers, byte(i+1))
	}
	for i := range nodes {
		c.nodes = append(c.nodes, c.startNode(byte(i+1), "127.0.0.1:0"))
	}
	var wait sync.WaitGroup
	wait.Go(c.run)
	t.Cleanup(func() {
		c.stop()
		wait.Wait()
		for _, n := range c.nodes {
			n.stop()
		}
	})
	return c
}

func (c *cluster) startNode(fill byte, addr string) *clusterNode {
	c.t.Helper()
	n := &clusterNode{c: c, fill: fill}
	cfg := gateway.Config{ContractID: "contract", ContractVersion: func() string { return "1.0" }, HPVersion: "0.6.4", Key: testKey(c.t, fill),
		UNL: func() []key.Public { return c.unl }, Limits: gateway.Limits{ConcurrentReads: 4}}
	cfg.CertFile, cfg.KeyFile = writeCertificate(c.t)
	var err error
	if n.gw, err = gateway.New(cfg, n, slog.New(slog.DiscardHandler)); err != nil {
		c.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		c.t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.gw.Serve(ctx, ln) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	})
	return n
}

func writeCertificate(t host) (certFile, keyFile string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, priv.Public(), priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "tlscert.pem"), filepath.Join(dir, "tlskey.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// run closes ledgers.
func (c *cluster) run() {
	for {
		var sub inputs.Submission
		select {
		case sub = <-c.feed:
		case <-c.ctx.Done():
			return
		}
		c.close(sub)
	}
}

func (c *cluster) each(f func(*gateway.Gateway)) {
	for _, n := range c.nodes {
		f(n.gw)
	}
}

func (c *cluster) close(sub inputs.Submission) {
	parsed, errs := inputs.Check([]inputs.Submission{sub}, 1, nil)
	c.mu.Lock()
	c.seq++
	seq, silent, signers := c.seq, c.silent, c.signers
	c.mu.Unlock()
	switch {
	case errs != nil:
		c.t.Error(errs[0])
		return
	case silent:
		return
	case string(parsed[0].Payload) == "refuse me":
		c.each(func(g *gateway.Gateway) { g.Rejected(sub.User, sub.Hash(), inputs.NonceExpired) })
		return
	case parsed[0].MaxLedger < seq:
		c.each(func(g *gateway.Gateway) { g.Rejected(sub.User, sub.Hash(), inputs.Expired) })
		return
	}
	var outs [][]byte
	for _, o := range c.answer(string(parsed[0].Payload)) {
		outs = append(outs, []byte(o))
	}
	outputs := []gateway.UserOutput{{User: sub.User, Outputs: outs, Hash: output.Hash(sub.User, outs)}}
	tree := output.NewTree([]digest.Hash{outputs[0].Hash, hashOf(77)}, hashOf(78))
	var sigs []output.Signature
	for _, fill := range signers {
		k := testKey(c.t, fill)
		sigs = append(sigs, output.Signature{Key: k.Public(), Sig: output.Sign(k, tree.Root())})
	}
	c.each(func(g *gateway.Gateway) {
		g.Accepted(seq, hashOf(seq), []gateway.AcceptedInput{{User: sub.User, Hash: sub.Hash()}})
		g.Publish(&usermsg.LedgerCreated{Ledger: usermsg.LedgerRecord{SeqNo: seq, Hash: hashOf(seq)}})
		g.Outputs(seq+1, hashOf(seq+1), tree, outputs, sigs)
	})
}

func (c *cluster) servers() (urls []string) {
	for _, n := range c.nodes {
		urls = append(urls, "wss://"+n.addr)
	}
	return urls
}

func (c *cluster) connect(t testing.TB, opt Options) *Client {
	t.Helper()
	if opt.Servers == nil {
		opt.Servers = c.servers()
	}
	if opt.Key.IsZero() {
		opt.Key = testKey(t, 0x2a)
	}
	cl, err := Connect(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func receive[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %T came", *new(T))
	}
	panic("unreachable")
}

func TestConversation(t *testing.T) {
	for _, p := range []Protocol{JSON, BSON} {
		t.Run(p.wire().String(), func(t *testing.T) {
			c := newCluster(t, 1)
			outputs := make(chan Output, 10)
			ledgers := make(chan Ledger, 10)
			cl := c.connect(t, Options{Protocol: p, ContractID: "contract", ContractVersion: "1.0", Handler: Handler{
				Output: func(o Output) { outputs <- o },
				Ledger: func(_ string, l Ledger) { ledgers <- l },
			}})
			ctx := within(t)
			if err := cl.Subscribe(LedgerEvents); err != nil {
				t.Fatal(err)
			}
			st, err := cl.Status(ctx)
			if err != nil || st.HPVersion != "0.6.4" || st.RoundTime != 1500*time.Millisecond || st.Ledger.SeqNo != 5 || len(st.UNL) != 1 || st.Peers[0] != "p:1" {
				t.Errorf("status %+v, %v", st, err)
			}
			if l, err := cl.LastLedger(ctx); err != nil || l != (LedgerRef{5, Hash(hashOf(5))}) {
				t.Errorf("last ledger %+v, %v", l, err)
			}
			if b, err := cl.Read(ctx, []byte("this")); err != nil || string(b) != "1 read this" {
				t.Errorf("read %q, %v", b, err)
			}

			s, err := cl.Submit(ctx, []byte("hello \"wörld\""))
			if err != nil {
				t.Fatal(err)
			}
			if l, err := s.Wait(ctx); err != nil || l != (LedgerRef{6, Hash(hashOf(6))}) {
				t.Errorf("ledger %+v, %v", l, err)
			}
			if s.MaxLedger != 15 {
				t.Errorf("last ledger for the input is %d", s.MaxLedger)
			}
			o := receive(t, outputs)
			if o.Ledger != (LedgerRef{7, Hash(hashOf(7))}) || len(o.Outputs) != 2 || string(o.Outputs[0]) != "echo: hello \"wörld\"" || o.Verified || o.Server != c.servers()[0] {
				t.Errorf("output %+v", o)
			}
			if l := receive(t, ledgers); l.SeqNo != 6 || l.Hash != Hash(hashOf(6)) {
				t.Errorf("ledger event %+v", l)
			}

			s, err = cl.Submit(ctx, []byte("refuse me"), WithMaxLedger(1000), WithNonce(7))
			if err != nil {
				t.Fatal(err)
			}
			var rejected *RejectedError
			if _, err := s.Wait(ctx); !errors.As(err, &rejected) || rejected.Reason != ReasonNonceExpired {
				t.Errorf("refused input: %v", err)
			}

			l, err := cl.Ledger(ctx, 4, true, true)
			if err != nil || l.SeqNo != 4 || l.Timestamp.UnixMilli() != 1700000000123 || l.Inputs[0].User != cl.Public() || string(l.Inputs[0].Blob) != "in" || string(l.Outputs[0].Blobs[0]) != "out" {
				t.Errorf("ledger %+v, %v", l, err)
			}
			if l, err := cl.Ledger(ctx, 4, false, false); err != nil || l.Inputs != nil || l.Outputs != nil {
				t.Errorf("ledger %+v, %v", l, err)
			}
			if _, err := cl.Ledger(ctx, 999, false, false); !errors.Is(err, ErrNotFound) {
				t.Errorf("missing ledger: %v", err)
			}
			if _, err := cl.Ledger(ctx, 999, true, false); !errors.Is(err, ErrQueryFailed) {
				t.Errorf("missing ledger with inputs: %v", err)
			}
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			if _, err := cl.Read(short, []byte("fail")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("read request that fails: %v", err)
			}
			if p == JSON {
				if _, err := cl.Submit(ctx, []byte{0xff}); err == nil {
					t.Error("bytes that are no text were sent as JSON")
				}
			}
			if _, err := cl.Submit(ctx, nil); err == nil {
				t.Error("an empty input was sent")
			}
		})
	}
}

// Many inputs at once have different nonces and all get their status.
func TestManyInputs(t *testing.T) {
	c := newCluster(t, 1)
	cl := c.connect(t, Options{})
	ctx := within(t)
	const n = 500
	nonces := map[uint64]bool{}
	var subs []*Submission
	for i := range n {
		s, err := cl.Submit(ctx, fmt.Appendf(nil, "input %d", i), WithMaxLedger(100000))
		if err != nil {
			t.Fatal(err)
		}
		nonces[s.Nonce] = true
		subs = append(subs, s)
	}
	if len(nonces) != n {
		t.Errorf("%d nonces for %d inputs", len(nonces), n)
	}
	for _, s := range subs {
		if _, err := s.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTrust(t *testing.T) {
	contract := map[string][]string{
		"text":          {"plain text", "more"},
		"quoted":        {`"a JSON string"`, `"another"`},
		"objects":       {`{"a": 1}`, `[1,2]`, `true`, `1.5`},
		"mixed":         {`"quoted"`, `plain`, `{"x":"y"}`, `"quoted too"`},
		"broken values": {`007`, `{bad}`, ``},
	}
	for _, p := range []Protocol{JSON, BSON} {
		for name, outs := range contract {
			t.Run(p.wire().String()+" "+name, func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, 5)
				c.answer = func(string) []string { return outs }
				outputs, untrusted := make(chan Output, 10), make(chan error, 10)
				cl := c.connect(t, Options{Protocol: p, TrustedKeys: c.unl, Handler: Handler{
					Output:    func(o Output) { outputs <- o },
					Untrusted: func(_ Output, err error) { untrusted <- err },
				}})
				ctx := within(t)
				// Four of five signatures are 80 %.
				c.mu.Lock()
				c.signers = []byte{1, 2, 4, 5}
				c.mu.Unlock()
				if _, err := cl.Submit(ctx, []byte("go")); err != nil {
					t.Fatal(err)
				}
				if o := receive(t, outputs); !o.Verified || len(o.Outputs) != len(outs) {
					t.Errorf("output %+v", o)
				}
				c.mu.Lock()
				c.signers = []byte{1, 2, 4, 9, 1}
				c.mu.Unlock()
				if _, err := cl.Submit(ctx, []byte("go again")); err != nil {
					t.Fatal(err)
				}
				if err := receive(t, untrusted); !errors.Is(err, output.ErrUntrusted) {
					t.Errorf("error %v", err)
				}
				if len(outputs) > 0 {
					t.Error("untrusted outputs were delivered")
				}
			})
		}
	}
}

// How many of four trusted nodes must have signed is for the user to say.
func TestTrustedShare(t *testing.T) {
	for _, tt := range []struct {
		name    string
		share   int
		signers []byte
		ok      bool
	}{
		{"default, one missing", 0, []byte{1, 2, 4}, true},
		{"default, two missing", 0, []byte{1, 2}, false},
		{"80, one missing", 80, []byte{1, 2, 4}, false},
		{"80, all", 80, []byte{1, 2, 3, 4}, true},
		{"50, half", 50, []byte{3, 4}, false},
		{"50, one missing", 50, []byte{2, 3, 4}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 4)
			c.mu.Lock()
			c.signers = tt.signers
			c.mu.Unlock()
			outcome := make(chan error, 10)
			cl := c.connect(t, Options{Servers: c.servers()[:1], TrustedKeys: c.unl, TrustedShare: tt.share, Handler: Handler{
				Output: func(o Output) {
					if !o.Verified {
						t.Errorf("output %+v is not verified", o)
					}
					outcome <- nil
				},
				Untrusted: func(_ Output, err error) { outcome <- err },
			}})
			if _, err := cl.Submit(within(t), []byte("go")); err != nil {
				t.Fatal(err)
			}
			err := receive(t, outcome)
			if tt.ok && err != nil {
				t.Errorf("refused: %v", err)
			}
			if !tt.ok && !errors.Is(err, output.ErrUntrusted) {
				t.Errorf("error %v, want %v", err, output.ErrUntrusted)
			}
		})
	}
}

func TestTrustedShareOutOfRange(t *testing.T) {
	for _, share := range []int{-1, 1, 49, 101} {
		cl, err := Connect(context.Background(), Options{Key: testKey(t, 1), Servers: []string{"wss://127.0.0.1:1"}, TrustedShare: share, GiveUpAfter: 300 * time.Millisecond})
		if err == nil {
			cl.Close()
		}
		if want := fmt.Sprintf("share of trusted keys is %d %%, want 50 to 100", share); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("share %d: error %v, want %q", share, err, want)
		}
	}
}

// The keys to trust follow the UNL.
func TestTrustFollowsUNL(t *testing.T) {
	c := newCluster(t, 2)
	outputs := make(chan Output, 10)
	changes := make(chan []key.Public, 10)
	cl := c.connect(t, Options{Servers: c.servers()[:1], TrustedKeys: []key.Public{testKey(t, 1).Public()}, Handler: Handler{
		Output:    func(o Output) { outputs <- o },
		UNLChange: func(_ string, unl []key.Public) { changes <- unl },
	}})
	ctx := within(t)
	want := []key.Public{testKey(t, 3).Public(), testKey(t, 4).Public()}
	// Subscribing happens on its own; asking for the status makes sure of it.
	if _, err := cl.Status(ctx); err != nil {
		t.Fatal(err)
	}
	c.nodes[0].gw.Publish(&usermsg.UNLChange{UNL: want})
	if got := receive(t, changes); len(got) != 2 || got[0] != want[0] {
		t.Errorf("UNL %v", got)
	}
	c.mu.Lock()
	c.signers = []byte{3, 4}
	c.mu.Unlock()
	if _, err := cl.Submit(ctx, []byte("go")); err != nil {
		t.Fatal(err)
	}
	if o := receive(t, outputs); !o.Verified {
		t.Errorf("output %+v", o)
	}
}

func TestRefusedServers(t *testing.T) {
	c := newCluster(t, 1)
	for name, opt := range map[string]Options{
		"untrusted":     {TrustedKeys: []key.Public{testKey(t, 9).Public()}},
		"contract":      {ContractID: "other"},
		"version":       {ContractVersion: "2.0"},
		"not listening": {Servers: []string{"wss://127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opt.Key, opt.GiveUpAfter = testKey(t, 0x2a), 300*time.Millisecond
			if opt.Servers == nil {
				opt.Servers = c.servers()
			}
			cl, err := Connect(context.Background(), opt)
			if !errors.Is(err, ErrDisconnected) {
				t.Fatalf("%v, %v", cl, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Connect(ctx, Options{Key: testKey(t, 1), Servers: c.servers(), TrustedKeys: []key.Public{testKey(t, 9).Public()}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for name, opt := range map[string]Options{
		"no key":       {Servers: c.servers()},
		"no server":    {Key: testKey(t, 1)},
		"bad server":   {Key: testKey(t, 1), Servers: []string{"ws://host"}},
		"too few":      {Key: testKey(t, 1), Servers: append(c.servers(), c.servers()...), Connections: 2},
		"bad protocol": {Key: testKey(t, 1), Servers: c.servers(), Protocol: 7},
	} {
		if cl, err := Connect(context.Background(), opt); err == nil {
			cl.Close()
			t.Errorf("%s: connected", name)
		}
	}
}

// Several connections: every node can be asked, outputs come once, and a lost
// node is replaced by another.
func TestSeveralNodes(t *testing.T) {
	c := newCluster(t, 3)
	outputs := make(chan Output, 10)
	type change struct {
		server string
		up     bool
	}
	changes := make(chan change, 10)
	cl := c.connect(t, Options{Connections: 2, Handler: Handler{
		Output:     func(o Output) { outputs <- o },
		Connection: func(server string, up bool) { changes <- change{server, up} },
	}})
	ctx := within(t)
	nodes := cl.Nodes()
	if len(nodes) != 2 || nodes[0].Server() == nodes[1].Server() || nodes[0].Public() == nodes[1].Public() {
		t.Fatalf("nodes %v", nodes)
	}
	for _, n := range nodes {
		if b, err := n.Read(ctx, []byte("x")); err != nil || len(b) == 0 {
			t.Errorf("read %q, %v", b, err)
		}
	}
	for range 2 {
		if ch := receive(t, changes); !ch.up {
			t.Errorf("%+v", ch)
		}
	}
	submit := func() {
		t.Helper()
		s, err := cl.Submit(ctx, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		receive(t, outputs)
	}
	submit()

	for _, n := range c.nodes {
		if "wss://"+n.addr == nodes[0].Server() {
			n.stop()
		}
	}
	if ch := receive(t, changes); ch.up || ch.server != nodes[0].Server() {
		t.Errorf("%+v", ch)
	}
	if ch := receive(t, changes); !ch.up || ch.server == nodes[0].Server() {
		t.Errorf("%+v", ch)
	}
	if _, err := nodes[0].Status(ctx); !errors.Is(err, ErrConnectionLost) {
		t.Errorf("lost node: %v", err)
	}
	submit()
	// Each output came from two nodes.
	if len(outputs) > 0 {
		t.Errorf("output came again: %+v", <-outputs)
	}
}

func TestLostConnection(t *testing.T) {
	c := newCluster(t, 1)
	cl := c.connect(t, Options{GiveUpAfter: 200 * time.Millisecond})
	ctx := within(t)
	c.mu.Lock()
	c.silent = true
	c.mu.Unlock()
	s, err := cl.Submit(ctx, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[0].stop()
	if _, err := s.Wait(ctx); !errors.Is(err, ErrConnectionLost) {
		t.Errorf("input of a lost connection: %v", err)
	}
	select {
	case <-cl.Done():
	case <-ctx.Done():
		t.Fatal("client did not give up")
	}
	if !errors.Is(cl.Err(), ErrDisconnected) {
		t.Errorf("client ended with %v", cl.Err())
	}
	if _, err := cl.Submit(ctx, []byte("x")); !errors.Is(err, ErrDisconnected) {
		t.Errorf("submit after the end: %v", err)
	}
}

// A node that comes back is connected to again.
func TestReconnect(t *testing.T) {
	if testing.Short() {
		t.Skip("waits out the pause before a server is tried again")
	}
	c := newCluster(t, 1)
	changes := make(chan bool, 10)
	cl := c.connect(t, Options{GiveUpAfter: -1, Handler: Handler{Connection: func(_ string, up bool) { changes <- up }}})
	if !receive(t, changes) {
		t.Fatal("not connected")
	}
	addr := c.nodes[0].addr
	c.nodes[0].stop()
	if receive(t, changes) {
		t.Fatal("not lost")
	}
	c.nodes[0] = c.startNode(1, addr)
	if !receive(t, changes) {
		t.Fatal("not connected again")
	}
	if _, err := cl.Status(within(t)); err != nil {
		t.Error(err)
	}
}

// An input of which nothing is heard is given up on when its ledgers have gone
// by.
func TestNoStatus(t *testing.T) {
	c := newCluster(t, 1)
	cl := c.connect(t, Options{})
	cl.mu.Lock()
	cl.graceTime = time.Millisecond
	cl.mu.Unlock()
	ctx := within(t)
	c.mu.Lock()
	c.silent = true
	c.mu.Unlock()
	s, err := cl.Submit(ctx, []byte("x"), WithLedgerOffset(2))
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.seq += 100
	c.mu.Unlock()
	if _, err := cl.LastLedger(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Wait(ctx); !errors.Is(err, ErrNoStatus) {
		t.Errorf("%v", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	c := newCluster(t, 2)
	before := runtime.NumGoroutine()
	for range 5 {
		cl, err := Connect(context.Background(), Options{Key: testKey(t, 0x2a), Servers: c.servers(), Connections: 2})
		if err != nil {
			t.Fatal(err)
		}
		cl.Close()
		cl.Close()
		if _, err := cl.Read(context.Background(), []byte("x")); !errors.Is(err, ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// A node that breaks the WebSocket protocol costs its own connection only.
func TestHostileNode(t *testing.T) {
	for name, frame := range map[string][]byte{
		"negative length": {0x82, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 'x'},
		"too large":       {0x82, 127, 0, 0, 0, 0x10, 0, 0, 0, 0, 'x'},
		"garbage":         {0x82, 3, 'a', 'b', 'c'},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			certFile, keyFile := writeCertificate(t)
			cert, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{}, 100)
			srv := &http.Server{
				TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
					conn, _, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(accept[:]))
					conn.Write(frame)
					served <- struct{}{}
					io.Copy(io.Discard, conn)
				}),
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer srv.Close()
			go srv.ServeTLS(ln, "", "")
			_, err = Connect(context.Background(), Options{Key: testKey(t, 1), Servers: []string{"wss://" + ln.Addr().String()}, GiveUpAfter: 300 * time.Millisecond})
			if !errors.Is(err, ErrDisconnected) {
				t.Errorf("error %v", err)
			}
			receive(t, served)
		})
	}
}

// impostor is a node that claims a key which it does not have.
type impostor struct {
	gws.BuiltinEventHandler
	t     *testing.T
	asked chan struct{}
}

func (i impostor) OnOpen(socket *gws.Conn) {
	socket.WriteMessage(gws.OpcodeBinary, usermsg.AppendChallenge(nil, usermsg.Challenge{HPVersion: "0.6.4", ContractID: "contract", ContractVersion: "1.0", Challenge: "00112233445566778899aabbccddeeff"}))
}

func (i impostor) OnMessage(socket *gws.Conn, m *gws.Message) {
	r, err := usermsg.DecodeChallengeResponse(m.Bytes())
	if err != nil {
		i.t.Error(err)
		return
	}
	proof := usermsg.ServerProof(r.ServerChallenge, "contract", "1.0")
	claimed := testKey(i.t, 1).Public()
	socket.WriteMessage(gws.OpcodeBinary, usermsg.AppendServerResponse(nil, usermsg.ServerResponse{Sig: testKey(i.t, 2).Sign(proof), Public: claimed, UNL: []key.Public{claimed}}))
	select {
	case i.asked <- struct{}{}:
	default:
	}
}

func TestImpostor(t *testing.T) {
	certFile, keyFile := writeCertificate(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 1)
	upgrade := gws.NewUpgrader(impostor{t: t, asked: asked}, nil)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		socket, err := upgrade.Upgrade(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		socket.ReadLoop()
	})}
	defer srv.Close()
	go srv.ServeTLS(ln, certFile, keyFile)
	_, err = Connect(context.Background(), Options{Key: testKey(t, 7), Servers: []string{"wss://" + ln.Addr().String()}, TrustedKeys: []key.Public{testKey(t, 1).Public()}, GiveUpAfter: 300 * time.Millisecond})
	if !errors.Is(err, ErrDisconnected) {
		t.Errorf("error %v", err)
	}
	receive(t, asked)
}
