package usermsg

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
)

func FuzzDecodeRequest(f *testing.F) {
	for _, p := range []Protocol{JSON, BSON} {
		for _, r := range requests() {
			f.Add(p == BSON, AppendRequest(nil, p, r))
		}
	}
	f.Fuzz(func(t *testing.T, binary bool, data []byte) {
		p := JSON
		if binary {
			p = BSON
		}
		r, err := DecodeRequest(p, data)
		if err != nil {
			return
		}
		if p == JSON && !json.Valid(data) {
			t.Fatalf("%q is not JSON but was read", data)
		}
		again, err := DecodeRequest(p, AppendRequest(nil, p, r))
		if err != nil {
			t.Fatalf("%+v cannot be read back: %v", r, err)
		}
		if !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v was read back as %+v", r, again)
		}
	})
}

func FuzzDecodeMessage(f *testing.F) {
	for _, p := range []Protocol{JSON, BSON} {
		for _, m := range messages() {
			f.Add(p == BSON, m.Append(nil, p))
		}
	}
	f.Fuzz(func(t *testing.T, binary bool, data []byte) {
		p := JSON
		if binary {
			p = BSON
		}
		m, err := DecodeMessage(p, data)
		if err != nil {
			return
		}
		first := m.Append(nil, p)
		again, err := DecodeMessage(p, first)
		if err != nil {
			t.Fatalf("%q cannot be read back: %v", first, err)
		}
		// Texts that look like values lose their quotes on the way, so only
		// what is not a contract's own words is compared.
		if reflect.TypeOf(again) != reflect.TypeOf(m) {
			t.Fatalf("%T was read back as %T", m, again)
		}
	})
}

func FuzzDecodeHandshake(f *testing.F) {
	f.Add(AppendChallenge(nil, Challenge{"0.6.4", "id", "1.0", "00112233445566778899aabbccddeeff"}))
	pub := key.Public{0: key.Prefix}
	f.Add(AppendChallengeResponse(nil, ChallengeResponse{Public: pub, ServerChallenge: "aa"}))
	f.Add(AppendServerResponse(nil, ServerResponse{Public: pub, UNL: []key.Public{pub}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := DecodeChallenge(data); err == nil {
			if again, err := DecodeChallenge(AppendChallenge(nil, c)); err != nil || again != c {
				t.Fatalf("%+v was read back as %+v, %v", c, again, err)
			}
		}
		if r, err := DecodeChallengeResponse(data); err == nil {
			if again, err := DecodeChallengeResponse(AppendChallengeResponse(nil, r)); err != nil || again != r {
				t.Fatalf("%+v was read back as %+v, %v", r, again, err)
			}
		}
		if s, err := DecodeServerResponse(data); err == nil {
			again, err := DecodeServerResponse(AppendServerResponse(nil, s))
			if err != nil || again.Public != s.Public || len(again.UNL) != len(s.UNL) {
				t.Fatalf("%+v was read back as %+v, %v", s, again, err)
			}
		}
	})
}

// FuzzContent holds our idea of JSON against the standard library's, and
// checks that whatever a contract puts out makes valid JSON.
func FuzzContent(f *testing.F) {
	for _, s := range []string{`"a"`, `{"a":[1,2.5e-3,null]}`, `007`, `"\ud800"`, `[1,]`, "\xff", `"\u00zz"`, `-`, `1.`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		trimmed := bytes.Trim(data, " \t\r\n")
		if want := json.Valid(data) && utf8.Valid(data) && len(trimmed) == len(data); validJSON(data) != want && len(data) < maxDepth {
			t.Fatalf("%q: valid is %v", data, !want)
		}
		out := appendContent(nil, data)
		if !json.Valid(out) || !utf8.Valid(out) {
			t.Fatalf("%q is embedded as %q", data, out)
		}
		if utf8.Valid(data) && out[0] == '"' && !bytes.Equal(out, data) {
			var back string
			if err := json.Unmarshal(out, &back); err != nil || back != string(data) {
				t.Fatalf("%q is quoted as %s", data, out)
			}
			mine, whole := appendUnescaped(nil, out[1:len(out)-1])
			if !whole || !bytes.Equal(mine, data) {
				t.Fatalf("%q comes back as %q", data, mine)
			}
		}
	})
}

// BenchmarkDecodeInput reads the message that a busy node reads most: an input
// of 100 bytes.
func BenchmarkDecodeInput(b *testing.B) {
	for _, p := range []Protocol{JSON, BSON} {
		c := AppendContainer(nil, p, Container{bytes.Repeat([]byte("x"), 100), 1700000000000, 1000})
		data := AppendRequest(nil, p, Request{Type: RequestInput, Container: c, Sig: bytes.Repeat([]byte{7}, 64)})
		b.Run(p.String(), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeRequest(p, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendStatus(b *testing.B) {
	m := &InputStatus{Accepted: true, InputHash: hashOf(1), LedgerSeqNo: 5, LedgerHash: hashOf(2)}
	benchAppend(b, m)
}

func BenchmarkAppendOutput(b *testing.B) {
	m := &Output{LedgerSeqNo: 9, Outputs: [][]byte{bytes.Repeat([]byte("x"), 100)}, Tree: group(output.Node{Kind: output.OwnLeaf}, output.Node{Hash: hashOf(1)})}
	for i := range byte(4) {
		m.Signatures = append(m.Signatures, output.Signature{Key: key.Public{0: key.Prefix, 1: i}})
	}
	benchAppend(b, m)
}

func benchAppend(b *testing.B, m Message) {
	for _, p := range []Protocol{JSON, BSON} {
		b.Run(p.String(), func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = m.Append(buf[:0], p)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}
