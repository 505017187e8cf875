package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// The text that the contract finds on standard input, byte for byte.
func TestArgs(t *testing.T) {
	node, err := key.FromSeed(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	run := &Run{
		Mode: Consensus, HPVersion: "0.6.4", ContractID: "an \"id\"", NodeKey: node, LedgerSeq: 5, LedgerHash: digest.Hash{1, 0xab}, Timestamp: 99,
		Users: []UserIO{{Key: member(7)}, {Key: member(8)}},
		UNL:   []UNLMember{{Key: member(1), ActiveOn: 12345678901234}, {Key: member(2)}},
	}
	spans := [][]span{nil, {{0, 3}, {4096, 0}}}
	name := func(n byte) string { return member(n).String() }
	head := `{"hp_version":"0.6.4","contract_id":"an \"id\"","public_key":"` + node.Public().String() + `","private_key":"` + node.Hex() + `",`
	unl := `"unl":{"` + name(1) + `":{"active_on":12345678901234},"` + name(2) + `":{"active_on":0}},`
	check := func(want string) {
		t.Helper()
		got, err := appendArgs(nil, run, spans)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if !json.Valid(got) {
			t.Error("not JSON")
		}
	}
	check(head + `"timestamp":99,"readonly":false,"lcl_seq_no":5,"lcl_hash":"01ab` + strings.Repeat("0", 60) +
		`","npl_fd":5,"control_fd":4,"user_in_fd":3,"users":{"` + name(7) + `":[6],"` + name(8) + `":[7,[0,3],[4096,0]]},` + unl + `"mode":"consensus"}`)
	run.Mode, run.Users, spans = ReadRequest, run.Users[1:], spans[1:]
	check(head + `"timestamp":0,"readonly":true,"control_fd":4,"user_in_fd":3,"users":{"` + name(8) + `":[5,[0,3],[4096,0]]},` + unl + `"mode":"read_req"}`)
}

// Every input begins a page, and a zero follows it.
func TestInputFile(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 4095, 4096, 4097, 8192, 3 << 20}
	for range 3000 { // more than one call takes
		sizes = append(sizes, rnd.IntN(300))
	}
	users := []UserIO{{}, {}, {}}
	for i, n := range sizes {
		b := make([]byte, n)
		for j := range b {
			b[j] = byte(rnd.IntN(255) + 1)
		}
		users[i%3].Inputs = append(users[i%3].Inputs, b)
	}
	fd, spans, err := inputFile(users)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inputs")
	defer f.Close()
	content, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	end := int64(0)
	for i := range users {
		for j, in := range users[i].Inputs {
			s := spans[i][j]
			if s.offset%4096 != 0 || s.offset < end || s.size != len(in) {
				t.Fatalf("input %d of user %d lies at %+v, the one before ends at %d", j, i, s, end)
			}
			end = s.offset + int64(s.size)
			if !bytes.Equal(content[s.offset:end], in) {
				t.Fatalf("input %d of user %d is not what it should be", j, i)
			}
			if rest := content[end:min(int64(len(content)), (end/4096+1)*4096)]; len(rest) == 0 || bytes.Count(rest, []byte{0}) != len(rest) {
				t.Fatalf("input %d of user %d is not followed by zeros", j, i)
			}
		}
	}
}

// framesOf is what comes of a stream that is read in pieces.
func framesOf(stream []byte, piece func() int, limit uint64, g *budget) *frames {
	f := new(frames)
	for len(stream) > 0 {
		n := min(max(piece(), 1), len(stream))
		f.write(stream[:n], limit, g)
		stream = stream[n:]
	}
	f.end()
	return f
}

// The messages do not depend on how the stream is cut, take no more memory than
// bytes that came, and give the stream again.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03abc\x00\x00\x00\x00\x00\x00\x00\x05x"), uint64(0), uint64(1))
	f.Add([]byte("\xff\xff\xff\xff123"), uint64(5), uint64(2))
	f.Add([]byte("\x00\x00"), uint64(1), uint64(3))
	f.Fuzz(func(t *testing.T, stream []byte, limit, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		whole := framesOf(stream, func() int { return len(stream) }, limit, &budget{left: 1 << 40})
		pieces := framesOf(stream, func() int { return rnd.IntN(9) }, limit, &budget{left: 1 << 40})
		if !reflect.DeepEqual(whole.messages, pieces.messages) || whole.dropped != pieces.dropped {
			t.Fatalf("in one piece %q, in many %q", whole.messages, pieces.messages)
		}
		kept := stream
		if limit > 0 && uint64(len(stream)) > limit {
			kept = stream[:limit]
		}
		var again []byte
		for i, m := range whole.messages {
			if len(kept)-len(again) < 4 {
				t.Fatal("a message came from nowhere")
			}
			again = append(append(again, kept[len(again):len(again)+4]...), m...)
			if cap(m) > 2*len(m)+4096 {
				t.Fatalf("message %d of %d bytes takes %d", i, len(m), cap(m))
			}
		}
		if !bytes.HasPrefix(kept, again) || len(kept)-len(again) >= 4 {
			t.Fatalf("stream %q gave %q", kept, whole.messages)
		}
		small := &budget{left: 100}
		if framesOf(stream, func() int { return rnd.IntN(9) }, limit, small); !small.exceeded && len(kept) > 100+4*len(whole.messages)+4 {
			t.Fatal("the budget was exceeded unnoticed")
		}
	})
}

func FuzzParseControl(f *testing.F) {
	for _, s := range []string{
		`{"type":"peer_changeset","add":["a:1"],"remove":["b:2"]}`, `{"type":"peer_changeset","add":[],"remove":"*"}`,
		`{"type":"contract_end"}`, `{"type":null}`, `{"type":"peer_changeset","add":null,"remove":null}`, "{\"type\":\"x\"}\x00",
		`{"type":"peer_changeset","add":["[::1]:22860"],"remove":[]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseControl(b)
		if err != nil {
			if c.Add != nil || c.Remove != nil || c.ReplaceAll {
				t.Fatal("a change came with an error")
			}
			return
		}
		for _, p := range append(append([]string(nil), c.Add...), c.Remove...) {
			if !strings.Contains(p, ":") {
				t.Fatalf("peer %q was accepted", p)
			}
		}
	})
}

func TestParseControlRefuses(t *testing.T) {
	many := `"a:1"` + strings.Repeat(`,"a:1"`, maxPeerChange)
	for _, s := range []string{
		``, `{`, `null`, `{"type":null}`, `{"add":[],"remove":[]}`, `{"type":"peer_changeset"}`, `{"type":"peer_changeset","add":[],"remove":null}`,
		`{"type":"peer_changeset","add":[],"remove":"all"}`, `{"type":"peer_changeset","add":["a:0"],"remove":[]}`,
		`{"type":"peer_changeset","add":["a:65536"],"remove":[]}`, `{"type":"peer_changeset","add":[":1"],"remove":[]}`,
		`{"type":"peer_changeset","add":[],"remove":["x"]}`, fmt.Sprintf(`{"type":"peer_changeset","add":[%s],"remove":[]}`, many),
	} {
		if c, err := parseControl([]byte(s)); err == nil {
			t.Errorf("%.60s was taken as %+v", s, c)
		}
	}
}

func TestSplitArgs(t *testing.T) {
	if got := splitArgs("  a  'b c' \t "); !reflect.DeepEqual(got, []string{"a", "'b", "c'", "\t"}) {
		t.Errorf("%q", got)
	}
	if got := splitArgs(""); got != nil {
		t.Errorf("%q", got)
	}
}
