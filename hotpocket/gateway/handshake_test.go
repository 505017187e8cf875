package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/usermsg"

	"github.com/lxzan/gws"
)

func TestHandshake(t *testing.T) {
	s := start(t)
	u := s.dial(t)
	k := testKey(t, 0x2a)
	u.key = k
	c := u.challenge()
	if c.HPVersion != "0.6.4" || c.ContractID != testContract || c.ContractVersion != "1.0" || len(c.Challenge) != 32 || strings.ToLower(c.Challenge) != c.Challenge {
		t.Errorf("challenge %+v", c)
	}
	response := usermsg.AppendChallengeResponse(nil, usermsg.ChallengeResponse{
		Sig: k.Sign([]byte(c.Challenge)), Public: k.Public(), ServerChallenge: "any text", Protocol: usermsg.BSON})
	// Keys may be in upper case, and text frames are as good as binary ones.
	response = bytes.Replace(response, []byte(k.Public().String()), []byte(strings.ToUpper(k.Public().String())), 1)
	if err := u.ws.WriteMessage(gws.OpcodeText, response); err != nil {
		t.Fatal(err)
	}
	r := u.serverResponse()
	if r.Public != testKey(t, 1).Public() || !r.Public.Verify([]byte("any text"+testContract+"1.0"), r.Sig[:]) {
		t.Errorf("server response %+v", r)
	}
	// Sorted, though the node's list was not.
	if want := []key.Public{k.Public(), testKey(t, 1).Public()}; len(r.UNL) != 2 || r.UNL[0] != want[0] || r.UNL[1] != want[1] {
		t.Errorf("UNL %v", r.UNL)
	}
	if users, _ := s.Users(); len(users) != 1 || users[0] != k.Public() || !s.Connected(k.Public()) {
		t.Errorf("users %v", users)
	}
	// From here on it is BSON.
	u.protocol = usermsg.BSON
	u.sync()

	s.connect(t, 3, usermsg.JSON)
	if n := s.Counters().Handshakes; n != 2 {
		t.Errorf("%d handshakes", n)
	}
}

func TestChallengesDiffer(t *testing.T) {
	s := start(t)
	seen := map[string]bool{}
	for range 5 {
		seen[s.dial(t).challenge().Challenge] = true
	}
	if len(seen) != 5 {
		t.Errorf("%d challenges for 5 users", len(seen))
	}
}

// Without a challenge to the server there is no response, and what follows at
// once is already a message of a verified user.
func TestHandshakeWithoutServerChallenge(t *testing.T) {
	s := start(t)
	u := s.dial(t)
	k := testKey(t, 0x2a)
	u.protocol = usermsg.BSON
	c := u.challenge()
	first := usermsg.AppendChallengeResponse(nil, usermsg.ChallengeResponse{Sig: k.Sign([]byte(c.Challenge)), Public: k.Public(), Protocol: usermsg.BSON})
	// Both in one piece, and the second one longer than a handshake may be.
	second := usermsg.AppendRequest(nil, usermsg.BSON, usermsg.Request{Type: usermsg.RequestRead, ID: "1", Content: bytes.Repeat([]byte("x"), 100_000)})
	var pieces []byte
	for _, m := range [][]byte{first, second} {
		pieces = append(pieces, maskedFrame(m)...)
	}
	if _, err := u.ws.NetConn().Write(pieces); err != nil {
		t.Fatal(err)
	}
	if m := get[*usermsg.ReadResponse](u); len(m.Content) != 100_005 {
		t.Errorf("%d bytes came back", len(m.Content))
	}
}

// maskedFrame is a binary frame with a mask of zeros.
func maskedFrame(payload []byte) []byte {
	b := appendHeader(nil, len(payload))
	b[1] |= 0x80
	return append(append(b, 0, 0, 0, 0), payload...)
}

func TestBadHandshakes(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.ConcurrentReads = 1 })
	k := testKey(t, 0x2a)
	good := func(c usermsg.Challenge) string {
		return string(usermsg.AppendChallengeResponse(nil, usermsg.ChallengeResponse{
			Sig: k.Sign([]byte(c.Challenge)), Public: k.Public(), ServerChallenge: "aa", Protocol: usermsg.JSON}))
	}
	replace := func(old, new string) func(usermsg.Challenge) string {
		return func(c usermsg.Challenge) string {
			g := good(c)
			b := strings.Replace(g, old, new, 1)
			if b == g {
				t.Errorf("%s is not in %s", old, g)
			}
			return b
		}
	}
	for name, c := range map[string]struct {
		message func(usermsg.Challenge) string
		code    uint16
	}{
		"garbage":            {func(usermsg.Challenge) string { return "hello" }, closePolicy},
		"another type":       {func(usermsg.Challenge) string { return `{"type":"stat"}` }, closePolicy},
		"wrong type field":   {replace("user_challenge_response", "contract_input"), closePolicy},
		"bad protocol":       {replace(`"json"`, `"xml"`), closePolicy},
		"no protocol":        {replace(`,"protocol":"json"`, ``), closePolicy},
		"empty challenge":    {replace(`"aa"`, `""`), closePolicy},
		"long challenge":     {replace(`"aa"`, `"`+strings.Repeat("a", 33)+`"`), closePolicy},
		"numeric challenge":  {replace(`"aa"`, `1`), closePolicy},
		"wrong key":          {replace(k.Public().String(), testKey(t, 3).Public().String()), closePolicy},
		"wrong prefix":       {replace(`"pubkey":"ed`, `"pubkey":"ee`), closePolicy},
		"other's signature":  {func(c usermsg.Challenge) string { c.Challenge += "x"; return good(c) }, closePolicy},
		"decoded challenge":  {func(c usermsg.Challenge) string { c.Challenge = "0"; return good(c) }, closePolicy},
		"longer than needed": {func(c usermsg.Challenge) string { return good(c) + strings.Repeat(" ", maxHandshake) }, closeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			u := s.dial(t)
			u.write([]byte(c.message(u.challenge())))
			if reason := u.wantClose(c.code); reason == "" {
				t.Error("no reason was given")
			}
		})
	}
	if users, _ := s.Users(); len(users) != 0 {
		t.Errorf("users %v", users)
	}
	eventually(t, "failed handshakes to be counted", func() bool { return s.Counters().HandshakesFailed == 13 })
}

func TestHandshakeTakesTooLong(t *testing.T) {
	s := start(t)
	u, v := s.dial(t), s.connect(t, 0x2a, usermsg.JSON)
	u.challenge()
	s.clock.advance(handshakeTimeout - 1)
	v.sync()
	s.clock.advance(1)
	u.wantClose(closePolicy)
	v.sync()
}

// A user may be connected more than once: every connection gets everything,
// and the user counts once.
func TestSameKeyTwice(t *testing.T) {
	s := start(t)
	u, v := s.connect(t, 0x2a, usermsg.JSON), s.connect(t, 0x2a, usermsg.BSON)
	users, version := s.Users()
	if len(users) != 1 {
		t.Errorf("users %v", users)
	}
	outputs := []UserOutput{{User: u.key.Public(), Outputs: [][]byte{[]byte("x")}}}
	tree, sigs := sealed(t, outputs, 1)
	s.Outputs(9, hashOf(9), tree, outputs, sigs)
	s.Accepted(9, hashOf(9), []AcceptedInput{{u.key.Public(), hashOf(1)}})
	for _, w := range []*user{u, v} {
		if m := get[*usermsg.Output](w); string(m.Outputs[0]) != "x" {
			t.Errorf("output %+v", m)
		}
		get[*usermsg.InputStatus](w)
	}
	u.ws.WriteClose(1000, nil)
	eventually(t, "one of the two to be gone", func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.sessions == 1
	})
	if again, v := s.Users(); len(again) != 1 || v != version {
		t.Errorf("users %v in version %d, before %d", again, v, version)
	}
	v.sync()
	v.ws.WriteClose(1000, nil)
	eventually(t, "the user to be gone", func() bool { users, v := s.Users(); return len(users) == 0 && v > version })
	if s.Connected(u.key.Public()) {
		t.Error("still connected")
	}
}

func TestUsersAreSorted(t *testing.T) {
	s := start(t)
	last := uint64(0)
	for _, fill := range []byte{5, 3, 9, 4, 8} {
		s.connect(t, fill, usermsg.JSON)
		users, version := s.Users()
		if version <= last {
			t.Errorf("version %d after %d", version, last)
		}
		last = version
		for i := range users {
			if i > 0 && users[i-1].Compare(users[i]) >= 0 {
				t.Errorf("users %v are not sorted", users)
			}
		}
		again, _ := s.Users()
		if &again[0] != &users[0] {
			t.Error("the list was made again although nothing changed")
		}
	}
}

func TestFullNode(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.MaxConnections = 2 })
	u := s.connect(t, 3, usermsg.JSON)
	s.connect(t, 4, usermsg.JSON)
	v := s.dial(t)
	v.login(testKey(t, 5), usermsg.JSON)
	// The close frame comes instead of the server's response.
	v.wantClose(closeTryLater)
	if len(v.frames) > 0 {
		t.Errorf("got %q before", (<-v.frames).data)
	}
	u.ws.WriteClose(1000, nil)
	eventually(t, "room", func() bool { users, _ := s.Users(); return len(users) == 1 })
	s.connect(t, 5, usermsg.JSON)
}

func TestClosing(t *testing.T) {
	s := start(t)
	for name, payload := range map[string][]byte{"no code": nil, "normal": {0x03, 0xE8}, "going away": append([]byte{0x03, 0xE9}, "bye"...)} {
		t.Run(name, func(t *testing.T) {
			u := s.connect(t, 0x2a, usermsg.JSON)
			u.request(usermsg.Request{Type: usermsg.RequestLCL})
			frame := append([]byte{0x88, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
			if _, err := u.ws.NetConn().Write(frame); err != nil {
				t.Fatal(err)
			}
			// What was asked before is answered before.
			get[*usermsg.LCL](u)
			u.wantClose(1000)
		})
	}
}

func TestPing(t *testing.T) {
	s := start(t)
	u := s.connect(t, 0x2a, usermsg.JSON)
	if err := u.ws.WritePing([]byte("payload")); err != nil {
		t.Fatal(err)
	}
	if f := u.next(); f.op != gws.OpcodePong || string(f.data) != "payload" {
		t.Errorf("got %d %q", f.op, f.data)
	}
	if err := u.ws.WritePong([]byte("unasked")); err != nil {
		t.Fatal(err)
	}
	u.sync()
}

func TestFragments(t *testing.T) {
	s := start(t)
	u := s.connect(t, 0x2a, usermsg.JSON)
	var b []byte
	for i, piece := range []string{`{"ty`, ``, `pe":"l`, `cl"}`} {
		first := byte(0)
		if i == 0 {
			first = 1 // text
		}
		if i == 3 {
			first |= 0x80
		}
		b = append(b, first, 0x80|byte(len(piece)), 0, 0, 0, 0)
		b = append(b, piece...)
		if i == 1 {
			b = append(b, 0x89, 0x80, 0, 0, 0, 0) // a ping in between
		}
	}
	if _, err := u.ws.NetConn().Write(b); err != nil {
		t.Fatal(err)
	}
	if f := u.next(); f.op != gws.OpcodePong {
		t.Errorf("got %d", f.op)
	}
	get[*usermsg.LCL](u)
}

func TestTooLarge(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.MaxMessage = 100_000 })
	for name, frames := range map[string][]byte{
		"frame":     appendHeader(nil, 100_001),
		"negative":  {0x82, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF},
		"fragments": nil,
	} {
		t.Run(name, func(t *testing.T) {
			u := s.connect(t, 0x2a, usermsg.JSON)
			if frames == nil {
				piece := maskedFrame(make([]byte, 60_000))
				piece[0] = 0x02
				frames = append(frames, piece...)
				piece[0] = 0x80
				frames = append(frames, piece...)
			} else {
				frames[1] |= 0x80
				frames = append(frames, 0, 0, 0, 0)
			}
			if _, err := u.ws.NetConn().Write(frames); err != nil {
				t.Fatal(err)
			}
			u.wantClose(closeTooLarge)
		})
	}
	// The reason arrives even while the user goes on sending.
	flood := s.connect(t, 0x2a, usermsg.JSON)
	header := appendHeader(nil, 8<<20)
	header[1] |= 0x80
	if _, err := flood.ws.NetConn().Write(append(header, make([]byte, 8<<20)...)); err != nil {
		t.Fatal(err)
	}
	flood.wantClose(closeTooLarge)

	u := s.connect(t, 0x2a, usermsg.JSON)
	u.write([]byte(`{"type":"lcl","x":"` + strings.Repeat("x", 99_000) + `"}`))
	get[*usermsg.LCL](u)
}

// An HTTP client that is none of ours is told so and costs nothing.
func TestNoWebSocket(t *testing.T) {
	s := start(t)
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + s.addr + "/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d", resp.StatusCode)
	}
	for name, request := range map[string]string{
		"endless header": "GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", maxRequest),
		"no HTTP":        "\x00\x01\x02\r\n\r\n",
		"hasty":          "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\x81\x80\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			io.WriteString(conn, request) // the other side may close in the middle of it
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err == nil && strings.Contains(line, "101") {
				t.Errorf("answered by %q", line)
			}
			var timeout interface{ Timeout() bool }
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the connection stays open")
			}
		})
	}
	eventually(t, "all to be gone", func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return len(s.conns) == 0
	})
}

func TestReloadCertificate(t *testing.T) {
	s := start(t)
	u := s.connect(t, 0x2a, usermsg.JSON)
	serial := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	writeCertificate(t, filepath.Dir(s.cfg.CertFile))
	if serial() != before {
		t.Error("certificate changed by itself")
	}
	if err := s.ReloadCertificate(); err != nil {
		t.Fatal(err)
	}
	after := serial()
	if after == before {
		t.Error("certificate is the old one")
	}
	if err := os.Truncate(s.cfg.KeyFile, 10); err != nil {
		t.Fatal(err)
	}
	if err := s.ReloadCertificate(); err == nil || !strings.Contains(err.Error(), s.cfg.KeyFile) {
		t.Errorf("bad key: %v", err)
	}
	if serial() != after {
		t.Error("a bad certificate replaced a good one")
	}
	u.sync()
}

func TestNewRefuses(t *testing.T) {
	s := start(t)
	for name, change := range map[string]func(*Config){
		"no id":        func(c *Config) { c.ContractID = "" },
		"version":      func(c *Config) { c.HPVersion = "1.0.0" },
		"no key":       func(c *Config) { c.Key = key.Private{} },
		"no UNL":       func(c *Config) { c.UNL = nil },
		"no cert":      func(c *Config) { c.CertFile = "/nowhere" },
		"many readers": func(c *Config) { c.Limits.ConcurrentReads = 33 },
		"negative":     func(c *Config) { c.Limits.MaxPerHost = -1 },
		"huge":         func(c *Config) { c.Limits.MaxMessage = 1 << 31 },
	} {
		cfg := s.cfg
		change(&cfg)
		if _, err := New(cfg, s.node, s.log); err == nil {
			t.Errorf("%s: no error", name)
		} else if !strings.HasPrefix(fmt.Sprint(err), "user gateway: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
