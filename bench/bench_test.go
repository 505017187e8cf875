package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
	"evernode/internal/digest"
	"evernode/internal/usermsg"
)

func TestQuantile(t *testing.T) {
	var s samples
	for i := 100; i >= 1; i-- {
		s = append(s, time.Duration(i)*time.Millisecond)
	}
	for q, want := range map[float64]float64{.5: 50, .99: 99, 1: 100, 0: 1} {
		if got := s.quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if got := (samples)(nil).quantile(.5); got != 0 {
		t.Errorf("no samples: %v", got)
	}
}

// unmask reads a client's frame as a server does.
func unmask(t *testing.T, f []byte) []byte {
	t.Helper()
	if f[0] != binaryFrame || f[1]&maskBit == 0 {
		t.Fatalf("frame begins with % x", f[:2])
	}
	at, n := 2, int(f[1]&0x7F)
	switch n {
	case 126:
		n, at = int(f[2])<<8|int(f[3]), 4
	case 127:
		n, at = 0, 10
		for _, b := range f[2:10] {
			n = n<<8 | int(b)
		}
	}
	mask, body := f[at:at+4], bytes.Clone(f[at+4:])
	if len(body) != n {
		t.Fatalf("frame says %d bytes and has %d", n, len(body))
	}
	for i := range body {
		body[i] ^= mask[i&3]
	}
	return body
}

func TestFrame(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
		want := bytes.Repeat([]byte{7}, n)
		if got := unmask(t, frame(want)); !bytes.Equal(got, want) {
			t.Errorf("%d bytes do not come back", n)
		}
	}
}

func TestNext(t *testing.T) {
	long := bytes.Repeat([]byte{9}, 70000)
	var in []byte
	in = append(in, 0x82, 2, 'h', 'i')
	in = append(in, 0x89, 0) // ping
	in = append(in, 0x82, 126, 0, 200)
	in = append(in, long[:200]...)
	in = append(in, 0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70)
	in = append(in, long...)
	in = append(in, 0x88, 5, 0x03, 0xF0, 'b', 'a', 'd')
	s := &socket{r: bufio.NewReader(bytes.NewReader(in))}
	for _, want := range [][]byte{[]byte("hi"), long[:200], long} {
		if got, err := s.next(); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(want))
		}
	}
	if _, err := s.next(); err == nil || !strings.Contains(err.Error(), "1008 bad") {
		t.Fatalf("close frame: %v", err)
	}
}

// TestTake feeds what a node sends to the code that does not decode it.
func TestTake(t *testing.T) {
	for _, p := range []usermsg.Protocol{usermsg.JSON, usermsg.BSON} {
		t.Run(p.String(), func(t *testing.T) {
			k, err := key.Generate()
			if err != nil {
				t.Fatal(err)
			}
			b := &bench{protocol: p}
			u := &loadUser{user: &user{key: k, protocol: p}}
			o := b.prepare([]*loadUser{u}, step{3, time.Second})
			var hashes []digest.Hash
			var payloads [][]byte
			for i := range o.inputs {
				r, err := usermsg.DecodeRequest(p, unmask(t, o.inputs[i].frame))
				if err != nil {
					t.Fatal(err)
				}
				if !k.Public().Verify(r.Container, r.Sig) {
					t.Error("signature is wrong")
				}
				at := bytes.Index(r.Container, []byte(marker))
				payloads = append(payloads, r.Container[at:at+payloadSize])
				hashes = append(hashes, digest.Sum(r.Sig))
			}
			say := func(m usermsg.Message) { o.take(u, m.Append(nil, p), time.Second) }
			say(&usermsg.InputStatus{Accepted: true, InputHash: hashes[0], LedgerSeqNo: 5})
			say(&usermsg.InputStatus{Accepted: true, InputHash: hashes[1], LedgerSeqNo: 5})
			say(&usermsg.InputStatus{Reason: "nonce_expired", InputHash: hashes[2]})
			tree := output.Node{Kind: output.Group, Children: []output.Node{{Kind: output.OwnLeaf}}}
			say(&usermsg.Output{LedgerSeqNo: 6, Outputs: payloads[:2], Tree: tree})
			if n := o.settled.Load(); n != 3 {
				t.Errorf("%d settled, want 3", n)
			}
			var r outcome
			o.count(&r)
			if len(r.accepted) != 2 || len(r.output) != 2 || r.rejected["nonce_expired"] != 1 || r.missing+r.twice+r.strange != 0 {
				t.Errorf("%+v", r)
			}

			// What must not happen is noticed.
			say(&usermsg.InputStatus{Accepted: true, InputHash: hashes[0], LedgerSeqNo: 7})
			say(&usermsg.Output{LedgerSeqNo: 8, Outputs: payloads[1:2], Tree: tree})
			say(&usermsg.InputStatus{Accepted: true, InputHash: digest.Sum([]byte("x"))})
			r = outcome{}
			o.count(&r)
			if r.twice != 2 || r.strange != 1 || r.sustained(o.step) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestMarks(t *testing.T) {
	var r report
	r.add("fast", 3, "ms").must(atMost(8)).beside(2, "(peer)")
	r.add("slow", 9, "ms").must(atMost(8))
	r.add("many", 5000, "/s").must(atLeast(5000))
	r.add("few", 4999, "/s").must(atLeast(5000))
	r.add("worse", 20, "ms").beside(10, "(before)").must(&target{limit: 1.5, of: true})
	r.add("unknown", 20, "ms").must(&target{limit: 1.5, of: true})
	var names []string
	for _, m := range r.missed() {
		name, _, _ := strings.Cut(m, ":")
		names = append(names, name)
	}
	if got := strings.Join(names, " "); got != "slow few worse unknown" {
		t.Errorf("missed: %s", got)
	}
	path := filepath.Join(t.TempDir(), "bench.json")
	if err := r.writeJSON(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 6 || rows[0]["ratio"] != 1.5 || rows[1]["peer"] != nil || len(rows[0]) != 5 {
		t.Errorf("%s", text)
	}
}

func TestFlags(t *testing.T) {
	got, err := parseSteps("100x5,200x1")
	if err != nil || len(got) != 2 || got[0] != (step{100, 5 * time.Second}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "100", "x5", "0x5", "5x0", "5x5,"} {
		if _, err := parseSteps(bad); err == nil {
			t.Errorf("-load %q is taken", bad)
		}
	}
	if s, err := chosen("dead,read"); err != nil || len(s) != 2 || s[0].name != "read" {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := chosen("read,everything"); err == nil {
		t.Error("an unknown section is taken")
	}
}

// TestShortRun measures a real cluster for a moment and looks what it leaves.
func TestShortRun(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: no processes are started")
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	b := &bench{}
	f := &flags{sections: "load", steps: "200x2", protocol: "json"}
	if err := b.all(context.Background(), f); err != nil {
		if strings.Contains(err.Error(), "C compiler") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	if rate, ok := b.report.find("sustained inputs"); !ok || rate < 100 {
		t.Errorf("200 inputs per second are not sustained: %v", b.report.notes)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
