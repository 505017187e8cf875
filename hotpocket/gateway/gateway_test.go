package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
	"evernode/internal/digest"
	"evernode/internal/usermsg"

	"github.com/lxzan/gws"
)

const (
	testContract = "3c349abe-4d70-4f50-9fa6-018f1f2530ab"
	// patience bounds how long a test waits for something that must happen.
	patience = 10 * time.Second
)

func testKey(t testing.TB, fill byte) key.Private {
	t.Helper()
	k, err := key.FromSeed(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func hashOf(fill byte) (h digest.Hash) {
	for i := range h {
		h[i] = fill
	}
	return h
}

// writeCertificate makes a self-signed certificate and returns the paths of
// its two files.
func writeCertificate(t testing.TB, dir string) (certFile, keyFile string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, priv.Public(), priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "tlscert.pem"), filepath.Join(dir, "tlskey.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// fakeNode stands in for the node.
type fakeNode struct {
	submitted chan inputs.Submission

	mu     sync.Mutex
	reason inputs.Reason
	read   func(ctx context.Context, user key.Public, content []byte) ([][]byte, error)
	query  func(q Query) ([]usermsg.LedgerRecord, error)
}

func (n *fakeNode) Submit(s inputs.Submission) inputs.Reason {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.reason == inputs.None {
		n.submitted <- s
	}
	return n.reason
}

func (n *fakeNode) Read(ctx context.Context, user key.Public, content []byte) ([][]byte, error) {
	n.mu.Lock()
	read := n.read
	n.mu.Unlock()
	if read != nil {
		return read(ctx, user, content)
	}
	return [][]byte{append([]byte("read "), content...)}, nil
}

func (n *fakeNode) Stat() usermsg.Stat {
	return usermsg.Stat{LedgerSeqNo: 7, LedgerHash: hashOf(7), VoteStatus: usermsg.VoteSynced, RoundTime: 1000, ContractExecutionEnabled: true, CurrentUNL: []key.Public{}, Peers: []string{"a:1"}}
}

func (n *fakeNode) LastLedger() (uint64, digest.Hash) { return 7, hashOf(7) }

func (n *fakeNode) Query(_ context.Context, q Query) ([]usermsg.LedgerRecord, error) {
	n.mu.Lock()
	query := n.query
	n.mu.Unlock()
	if query != nil {
		return query(q)
	}
	return nil, nil
}

// fakeClock moves only when told.
type fakeClock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*fakeTimer]struct{}
}

type fakeTimer struct {
	at time.Time
	f  func()
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Unix(1700000000, 0), timers: map[*fakeTimer]struct{}{}}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &fakeTimer{c.now.Add(d), f}
	c.timers[t] = struct{}{}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, ok := c.timers[t]
		delete(c.timers, t)
		return ok
	}
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	var due []func()
	for t := range c.timers {
		if !t.at.After(c.now) {
			delete(c.timers, t)
			due = append(due, t.f)
		}
	}
	c.mu.Unlock()
	for _, f := range due {
		f()
	}
}

// server is a gateway under test.
type server struct {
	*Gateway
	node  *fakeNode
	clock *fakeClock
	addr  string
	cfg   Config
	stop  func() error // ends Serve and returns its result
}

func start(t testing.TB, change ...func(*Config)) *server {
	t.Helper()
	s := &server{node: &fakeNode{submitted: make(chan inputs.Submission, 1024)}, clock: newFakeClock()}
	unl := []key.Public{testKey(t, 1).Public(), testKey(t, 0x2a).Public()}
	s.cfg = Config{
		ContractID: testContract, ContractVersion: func() string { return "1.0" }, HPVersion: "0.6.4", Key: testKey(t, 1),
		UNL: func() []key.Public { return unl }, Clock: s.clock,
		Limits: Limits{ConcurrentReads: 4},
	}
	s.cfg.CertFile, s.cfg.KeyFile = writeCertificate(t, t.TempDir())
	for _, f := range change {
		f(&s.cfg)
	}
	g, err := New(s.cfg, s.node, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Gateway = g
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ln) }()
	var once sync.Once
	var result error
	s.stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case result = <-done:
			case <-time.After(patience):
				buf := make([]byte, 1<<20)
				result = fmt.Errorf("Serve does not return\n%s", buf[:runtime.Stack(buf, true)])
			}
		})
		return result
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		if n := g.budget.used.Load(); n != 0 {
			t.Errorf("%d bytes are still accounted for", n)
		}
	})
	return s
}

// user is a client made of nothing but the codec.
type user struct {
	t        testing.TB
	key      key.Private
	protocol usermsg.Protocol
	ws       *gws.Conn
	frames   chan frame
	closed   chan *gws.CloseError // what the server closed with; nil for a network error
}

type frame struct {
	op   gws.Opcode
	data []byte
}

type userEvents struct {
	gws.BuiltinEventHandler
	u *user
}

func (e userEvents) OnMessage(_ *gws.Conn, m *gws.Message) {
	e.u.frames <- frame{m.Opcode, bytes.Clone(m.Bytes())}
	m.Close()
}

func (e userEvents) OnPong(_ *gws.Conn, payload []byte) {
	e.u.frames <- frame{gws.OpcodePong, bytes.Clone(payload)}
}

func (e userEvents) OnClose(_ *gws.Conn, err error) {
	var c *gws.CloseError
	if errors.As(err, &c) {
		c = &gws.CloseError{Code: c.Code, Reason: bytes.Clone(c.Reason)}
	}
	e.u.closed <- c
}

// dial connects without answering the challenge.
func (s *server) dial(t testing.TB) *user {
	t.Helper()
	u, err := s.tryDial(t)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (s *server) tryDial(t testing.TB) (*user, error) {
	u := &user{t: t, frames: make(chan frame, 4096), closed: make(chan *gws.CloseError, 1)}
	ws, _, err := gws.NewClient(userEvents{u: u}, &gws.ClientOption{
		Addr: "wss://" + s.addr + "/any/path?and=query", TlsConfig: &tls.Config{InsecureSkipVerify: true}, ReadMaxPayloadSize: 64 << 20, WriteMaxPayloadSize: 64 << 20,
	})
	if err != nil {
		return nil, err
	}
	u.ws = ws
	go ws.ReadLoop()
	t.Cleanup(func() { ws.NetConn().Close() })
	return u, nil
}

func (u *user) next() frame {
	u.t.Helper()
	select {
	case f := <-u.frames:
		return f
	case <-time.After(patience):
		u.t.Fatal("no message came")
	case c := <-u.closed:
		u.closed <- c
		select {
		case f := <-u.frames:
			return f
		default:
		}
		u.t.Fatalf("connection was closed instead: %v", c)
	}
	return frame{}
}

func (u *user) challenge() usermsg.Challenge {
	u.t.Helper()
	f := u.next()
	c, err := usermsg.DecodeChallenge(f.data)
	if err != nil || f.op != gws.OpcodeBinary {
		u.t.Fatalf("first message %q with opcode %d: %v", f.data, f.op, err)
	}
	return c
}

// connect dials and goes through the handshake.
func (s *server) connect(t testing.TB, fill byte, p usermsg.Protocol) *user {
	t.Helper()
	u := s.dial(t)
	u.login(testKey(t, fill), p)
	u.serverResponse()
	return u
}

func (u *user) login(k key.Private, p usermsg.Protocol) {
	u.t.Helper()
	u.key, u.protocol = k, p
	c := u.challenge()
	u.write(usermsg.AppendChallengeResponse(nil, usermsg.ChallengeResponse{
		Sig: k.Sign([]byte(c.Challenge)), Public: k.Public(), ServerChallenge: "0123456789abcdef0123456789abcdef", Protocol: p}))
}

func (u *user) serverResponse() usermsg.ServerResponse {
	u.t.Helper()
	f := u.next()
	r, err := usermsg.DecodeServerResponse(f.data)
	if err != nil || f.op != gws.OpcodeBinary {
		u.t.Fatalf("%q with opcode %d: %v", f.data, f.op, err)
	}
	return r
}

func (u *user) write(data []byte) {
	u.t.Helper()
	if err := u.ws.WriteMessage(gws.OpcodeBinary, data); err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) request(r usermsg.Request) { u.write(usermsg.AppendRequest(nil, u.protocol, r)) }

func (u *user) message() usermsg.Message {
	u.t.Helper()
	f := u.next()
	m, err := usermsg.DecodeMessage(u.protocol, f.data)
	if err != nil || f.op != gws.OpcodeBinary {
		u.t.Fatalf("%q with opcode %d: %v", f.data, f.op, err)
	}
	return m
}

// get is message for a caller who knows what must come.
func get[T usermsg.Message](u *user) T {
	u.t.Helper()
	m := u.message()
	v, ok := m.(T)
	if !ok {
		u.t.Fatalf("got %+v, want a %T", m, v)
	}
	return v
}

// wantClose waits for the server to close the connection with a code.
func (u *user) wantClose(code uint16) string {
	u.t.Helper()
	select {
	case c := <-u.closed:
		if c == nil {
			u.t.Fatalf("connection ended without a close frame, want code %d", code)
		}
		if c.Code != code {
			u.t.Fatalf("closed with %d %s, want %d", c.Code, c.Reason, code)
		}
		return string(c.Reason)
	case <-time.After(patience):
		u.t.Fatal("connection was not closed")
	}
	return ""
}

// sync makes sure that the server has handled everything that was sent, and
// that nothing else had to be said about it.
func (u *user) sync() {
	u.t.Helper()
	u.request(usermsg.Request{Type: usermsg.RequestLCL})
	get[*usermsg.LCL](u)
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		runtime.Gosched()
	}
}

// sealed fills in the hashes of outputs and has nodes sign the tree over them.
func sealed(t testing.TB, outputs []UserOutput, nodes ...byte) (*output.Tree, []output.Signature) {
	t.Helper()
	var hashes []digest.Hash
	for i := range outputs {
		outputs[i].Hash = output.Hash(outputs[i].User, outputs[i].Outputs)
		hashes = append(hashes, outputs[i].Hash)
	}
	tree := output.NewTree(hashes, hashOf(7))
	var sigs []output.Signature
	for _, fill := range nodes {
		k := testKey(t, fill)
		sigs = append(sigs, output.Signature{Key: k.Public(), Sig: output.Sign(k, tree.Root())})
	}
	return tree, sigs
}

func container(u *user, text string, nonce uint64) usermsg.Request {
	c := usermsg.AppendContainer(nil, u.protocol, usermsg.Container{Input: []byte(text), Nonce: nonce, MaxLedgerNo: 17})
	sig := u.key.Sign(c)
	return usermsg.Request{Type: usermsg.RequestInput, Container: c, Sig: sig[:]}
}

func TestConversation(t *testing.T) {
	for _, p := range []usermsg.Protocol{usermsg.JSON, usermsg.BSON} {
		t.Run(p.String(), func(t *testing.T) {
			s := start(t)
			u := s.connect(t, 0x2a, p)

			u.request(usermsg.Request{Type: usermsg.RequestStat})
			if m := get[*usermsg.Stat](u); m.HPVersion != "0.6.4" || m.LedgerSeqNo != 7 || m.Peers[0] != "a:1" {
				t.Errorf("stat %+v", m)
			}
			u.request(usermsg.Request{Type: usermsg.RequestLCL})
			if m := get[*usermsg.LCL](u); m.LedgerSeqNo != 7 || m.LedgerHash != hashOf(7) {
				t.Errorf("lcl %+v", m)
			}
			u.request(usermsg.Request{Type: usermsg.RequestRead, ID: "r1", Content: []byte("this")})
			if m := get[*usermsg.ReadResponse](u); m.ReplyFor != "r1" || string(m.Content) != "read this" {
				t.Errorf("read response %+v", m)
			}

			in := container(u, "hello", 1)
			u.request(in)
			sub := <-s.node.submitted
			if sub.User != u.key.Public() || !bytes.Equal(sub.Container, in.Container) || !bytes.Equal(sub.Sig[:], in.Sig) || sub.Protocol.String() != p.String() {
				t.Errorf("submission %+v", sub)
			}
			s.Accepted(8, hashOf(8), []AcceptedInput{{testKey(t, 9).Public(), hashOf(1)}, {u.key.Public(), sub.Hash()}})
			if m := get[*usermsg.InputStatus](u); !m.Accepted || m.LedgerSeqNo != 8 || m.LedgerHash != hashOf(8) || m.InputHash != sub.Hash() {
				t.Errorf("status %+v", m)
			}
			outputs := []UserOutput{{User: testKey(t, 9).Public(), Outputs: [][]byte{[]byte("no")}}, {User: u.key.Public(), Outputs: [][]byte{[]byte("a"), []byte("b")}}}
			tree, sigs := sealed(t, outputs, 1)
			s.Outputs(9, hashOf(9), tree, outputs, sigs)
			m := get[*usermsg.Output](u)
			if m.LedgerSeqNo != 9 || len(m.Outputs) != 2 || string(m.Outputs[1]) != "b" || m.Signatures[0] != sigs[0] {
				t.Errorf("output %+v", m)
			}
			if err := output.Verify(u.key.Public(), m.Outputs, m.OutputHash, m.Tree, m.Signatures, []key.Public{testKey(t, 1).Public()}); err != nil {
				t.Error(err)
			}
			s.Rejected(u.key.Public(), hashOf(5), inputs.Expired)
			if m := get[*usermsg.InputStatus](u); m.Accepted || m.Reason != "max_ledger_expired" || m.InputHash != hashOf(5) {
				t.Errorf("status %+v", m)
			}
		})
	}
}
