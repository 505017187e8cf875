package mesh

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/key"
)

// rogue is a peer that the test plays itself.
type rogue struct {
	t    testing.TB
	conn *tls.Conn
	in   *bufio.Reader
}

func newRogue(t testing.TB, address string, c *tls.Config) *rogue {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	raw.SetDeadline(time.Now().Add(patience))
	conn := tls.Client(raw, c)
	return &rogue{t, conn, bufio.NewReader(conn)}
}

func (r *rogue) write(frame []byte) {
	r.t.Helper()
	if _, err := r.conn.Write(frame); err != nil {
		r.t.Fatal(err)
	}
}

// bye reads until the peer says why it closes.
func (r *rogue) bye() *ByeError {
	r.t.Helper()
	for {
		t, body, err := readFrame(r.in, DefaultMaxMessage)
		if err != nil {
			r.t.Fatalf("closed without a word: %v", err)
		}
		if t == frameBye {
			return parseBye(body)
		}
	}
}

func rogueIdentity(t testing.TB, i int) *tls.Config {
	t.Helper()
	id, err := newIdentity(testKey(t, i))
	if err != nil {
		t.Fatal(err)
	}
	return id.client
}

func rogueHello() hello {
	return hello{Contract: contractTag("test"), Class: classUrgent, MaxMessage: 1 << 20}
}

func TestBrokenFramesEndTheSession(t *testing.T) {
	var stranger key.Public
	long := binary.BigEndian.AppendUint32(nil, 1<<30)
	for name, c := range map[string]struct {
		frame []byte
		want  string
	}{
		"too long":          {append(long, byte(frameMessage)), "at most"},
		"unknown":           {[]byte{0, 0, 0, 1, 77}, "unknown frame type 77"},
		"second hello":      {rogueHello().frame(), "on the urgent connection"},
		"request":           {append(newFrame(frameRequest, requestHead), make([]byte, requestHead)...), "on the urgent connection"},
		"short flood":       {append(newFrame(frameFlood, 1), 1), "cut short"},
		"short message":     {newFrame(frameMessage, 0), "cut short"},
		"unasked peers":     {peersFrame([]string{"a:1"}), "not asked for"},
		"short neighbours":  {append(newFrame(frameNeighbours, 4), 0, 0, 0, 9), "cut short"},
		"ping":              {append(newFrame(framePing, 1), 1), "8 bytes"},
		"pong":              {append(newFrame(framePong, 1), 1), "16 bytes"},
		"dial yourself":     {append(newFrame(frameOpenBulk, 4), 0, 0, 0, 0), "dialed itself"},
		"fine until bye":    {byeFrame(byeOther, "enough of you"), "enough of you"},
		"flood from nobody": {append(floodFrame(1, ScopeAll, stranger, nil), 0, 0, 0, 0, 1), "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, 1, nil)
			r := newRogue(t, a.addr, rogueIdentity(t, 2))
			r.write(rogueHello().frame())
			a.until("session", func(e []event) bool { return count(e, "up", testKey(t, 2).Public()) == 1 })
			r.write(c.frame)
			if !strings.HasPrefix(name, "fine") {
				if bye := r.bye(); !strings.Contains(bye.Text, c.want) {
					t.Errorf("reason %q, want %q", bye.Text, c.want)
				}
			}
			a.logged(c.want)
			a.until("end", func(e []event) bool { return count(e, "down", testKey(t, 2).Public()) == 1 })
		})
	}
}

func TestHelloRefusals(t *testing.T) {
	a := start(t, 1, nil)
	for name, c := range map[string]struct {
		hello []byte
		code  byeCode
	}{
		"version": {func() []byte {
			f := rogueHello().frame()
			f[frameHead+len(helloMagic)+1]++
			return f
		}(), byeVersion},
		"contract": {func() []byte {
			h := rogueHello()
			h.Contract = contractTag("other")
			return h.frame()
		}(), byeContract},
		"bulk without session": {func() []byte {
			h := rogueHello()
			h.Class = classBulk
			return h.frame()
		}(), byeOther},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRogue(t, a.addr, rogueIdentity(t, 2))
			r.write(c.hello)
			if bye := r.bye(); bye.code != c.code {
				t.Errorf("code %d (%s), want %d", bye.code, bye.Text, c.code)
			}
		})
	}
	if n := len(a.mesh.Peers()); n != 0 {
		t.Errorf("%d peers", n)
	}
}

func TestOnlyEd25519PeersOfOurProtocol(t *testing.T) {
	a := start(t, 1, nil)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	good := rogueIdentity(t, 2)
	for name, change := range map[string]func(*tls.Config){
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
		"ECDSA": func(c *tls.Config) {
			c.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}
		},
		"two certificates": func(c *tls.Config) {
			two := c.Certificates[0]
			two.Certificate = append([][]byte{two.Certificate[0]}, der)
			c.Certificates = []tls.Certificate{two}
		},
		"other protocol": func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"no protocol":    func(c *tls.Config) { c.NextProtos = nil },
		"TLS 1.2":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
	} {
		t.Run(name, func(t *testing.T) {
			c := good.Clone()
			c.VerifyConnection = nil
			change(c)
			r := newRogue(t, a.addr, c)
			// The server's refusal may come after the client's part is done.
			r.conn.Write(rogueHello().frame())
			_, _, err := readFrame(r.in, 0)
			if err == nil || isTimeout(err) {
				t.Errorf("answered: %v", err)
			}
		})
	}
	// The same with nothing wrong is answered.
	r := newRogue(t, a.addr, good)
	r.write(rogueHello().frame())
	if ft, _, err := readFrame(r.in, 0); err != nil || ft != frameHello {
		t.Errorf("frame type %d, %v", ft, err)
	}
}

// A liar about authors and neighbours cannot keep others from a message.
func TestLiesAboutAuthorsCostOnlyCopies(t *testing.T) {
	nodes := ring(t, 4, nil) // a, c are not connected, nor b, d
	a, b, c := nodes[0], nodes[1], nodes[2]
	r := newRogue(t, b.addr, rogueIdentity(t, 9))
	r.write(rogueHello().frame())
	b.until("session", func(e []event) bool { return count(e, "up", testKey(t, 9).Public()) == 1 })
	payload := []byte("signed by a")
	// As if c had sent it: b does not pass that copy on to c.
	r.write(floodFrame(1, ScopeAll, c.key, payload))
	b.got(string(payload))
	a.mesh.Flood(a.key, 1, payload, ScopeAll)
	c.got(string(payload))
}

// An answer that nobody asked for counts against the limit.
func TestUnaskedAnswersAreCounted(t *testing.T) {
	a := start(t, 1, func(_ *node, c *Config) { c.MaxBytesPerMin = 1000 })
	k := testKey(t, 2).Public()
	r := newRogue(t, a.addr, rogueIdentity(t, 2))
	r.write(rogueHello().frame())
	a.until("session", func(e []event) bool { return count(e, "up", k) == 1 })
	bulk := newRogue(t, a.addr, rogueIdentity(t, 2))
	h := rogueHello()
	h.Class, h.Attempt = classBulk, 1
	bulk.write(h.frame())
	if ft, _, err := readFrame(bulk.in, 0); err != nil || ft != frameHello {
		t.Fatal(ft, err)
	}
	bulk.write(append(responseFrame(1, statusOK, 2000), make([]byte, 2000)...))
	if bye := r.bye(); bye.code != byeLimit {
		t.Errorf("%v", bye)
	}
	if _, _, err := readFrame(bulk.in, 0); err == nil || isTimeout(err) {
		t.Errorf("the bulk connection is still there: %v", err)
	}
	again := newRogue(t, a.addr, rogueIdentity(t, 2))
	again.write(rogueHello().frame())
	if bye := again.bye(); bye.code != byeLimit {
		t.Errorf("let in again at once: %v", bye)
	}
}
