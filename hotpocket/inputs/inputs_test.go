package inputs

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"evernode/hotpocket/key"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func user(t testing.TB, seed byte) key.Private {
	t.Helper()
	k, err := key.FromSeed(bytes.Repeat([]byte{seed}, key.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestVector(t *testing.T) {
	// spec/hotpocket.md section 8.
	u := user(t, 0x2a)
	s := Submission{User: u.Public(), Protocol: JSON,
		Container: []byte(`{"input":"hi","nonce":1234567890123,"max_ledger_seq_no":14}`)}
	s.Sig = u.Sign(s.Container)
	const sig = "c355b27e9ad6dec64fd27dcfd30fa6f6298ec8897ad7ba029d3472cb3784f86e0b4e65b32f87ad81af30581c2a82ac512d7bde93edeadc27015cbac8a0c27807"
	if got := hex.EncodeToString(s.Sig[:]); got != sig {
		t.Errorf("signature %s, want %s", got, sig)
	}
	in, err := s.Input()
	if err != nil {
		t.Fatal(err)
	}
	if got := in.Hash.String(); got != "f4f47e5224b8ef2c995f57fbcaf787eab13a66f9fc6de3991964169f87e5bb1a" {
		t.Errorf("input hash %s", got)
	}
	if in.User != s.User || in.Nonce != 1234567890123 || in.MaxLedger != 14 || string(in.Payload) != "hi" {
		t.Errorf("parsed %+v", in)
	}
}

func TestParseJSON(t *testing.T) {
	deep := func(n int) string {
		return `{"input":"a","nonce":1,"max_ledger_seq_no":2,"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	const rest = `,"nonce":1,"max_ledger_seq_no":2}`
	for _, c := range []struct {
		name, text string
		want       Input
		err        string // part of the error, or "" for none
	}{
		{name: "plain", text: `{"input":"a","nonce":1,"max_ledger_seq_no":2}`, want: Input{Nonce: 1, MaxLedger: 2, Payload: []byte("a")}},
		{name: "any order, white space", text: " {\n\"nonce\"\t: 7 ,\r\n\"max_ledger_seq_no\":0,\"input\" : \"x y\" } \n", want: Input{Nonce: 7, Payload: []byte("x y")}},
		{name: "empty input", text: `{"input":""` + rest, want: Input{Nonce: 1, MaxLedger: 2, Payload: []byte{}}},
		{name: "greatest numbers", text: `{"input":"","nonce":18446744073709551615,"max_ledger_seq_no":18446744073709551615}`, want: Input{Nonce: math.MaxUint64, MaxLedger: math.MaxUint64, Payload: []byte{}}},
		{name: "escapes", text: `{"input":"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00\u0000"` + rest, want: Input{Nonce: 1, MaxLedger: 2, Payload: []byte("\"\\/\b\f\n\r\té😀\x00")}},
		{name: "wide text", text: `{"input":"héé😀"` + rest, want: Input{Nonce: 1, MaxLedger: 2, Payload: []byte("héé😀")}},
		{name: "name with escapes", text: `{"\u0069nput":"a"` + rest, want: Input{Nonce: 1, MaxLedger: 2, Payload: []byte("a")}},
		{name: "other fields", text: `{"x":[1,-0.5e+3,{"a":null,"b":[]},true,false,{}],"x":1,"input":"a"` + rest, want: Input{Nonce: 1, MaxLedger: 2, Payload: []byte("a")}},
		{name: "nested as deep as allowed", text: deep(maxDepth), want: Input{Nonce: 1, MaxLedger: 2, Payload: []byte("a")}},

		{name: "nested too deep", text: deep(maxDepth + 1), err: "nested"},
		{name: "empty", text: "", err: "ends where '{'"},
		{name: "array", text: `[]`, err: "'{'"},
		{name: "no fields", text: `{}`, err: "field input is missing"},
		{name: "no nonce", text: `{"input":"a","max_ledger_seq_no":2}`, err: "field nonce is missing"},
		{name: "no max ledger", text: `{"input":"a","nonce":2}`, err: "field max_ledger_seq_no is missing"},
		{name: "name in other case", text: `{"Input":"a"` + rest, err: "field input is missing"},
		{name: "trailing comma", text: `{"input":"a","nonce":1,"max_ledger_seq_no":2,}`, err: "comma"},
		{name: "trailing comma in a list", text: `{"x":[1,],"input":"a"` + rest, err: "a value"},
		{name: "leading comma", text: `{,"input":"a"` + rest, err: "a text"},
		{name: "missing comma", text: `{"input":"a" "nonce":1,"max_ledger_seq_no":2}`, err: "','"},
		{name: "comment", text: `{/**/"input":"a"` + rest, err: "a text"},
		{name: "something after it", text: `{"input":"a"` + rest + `x`, err: "the end"},
		{name: "zero byte after it", text: `{"input":"a"` + rest + "\x00", err: "the end"},
		{name: "second object after it", text: `{"input":"a"` + rest + `{}`, err: "the end"},
		{name: "byte order mark", text: "\xef\xbb\xbf" + `{"input":"a"` + rest, err: "'{'"},
		{name: "input twice", text: `{"input":"a","input":"a"` + rest, err: "input appears twice"},
		{name: "nonce twice", text: `{"input":"a","nonce":1` + rest, err: "nonce appears twice"},
		{name: "nonce twice, one with escapes", text: `{"input":"a","\u006eonce":1` + rest, err: "nonce appears twice"},
		{name: "input is a number", text: `{"input":1` + rest, err: "input is not a text"},
		{name: "input is null", text: `{"input":null` + rest, err: "input is not a text"},
		{name: "nonce 0", text: `{"input":"a","nonce":0,"max_ledger_seq_no":2}`, err: "nonce is 0"},
		{name: "nonce negative", text: `{"input":"a","nonce":-1,"max_ledger_seq_no":2}`, err: "nonce is not an unsigned integer"},
		{name: "nonce is a text", text: `{"input":"a","nonce":"1","max_ledger_seq_no":2}`, err: "nonce is not a number"},
		{name: "nonce with fraction", text: `{"input":"a","nonce":1.0,"max_ledger_seq_no":2}`, err: "nonce is not an unsigned"},
		{name: "nonce with exponent", text: `{"input":"a","nonce":1e3,"max_ledger_seq_no":2}`, err: "nonce is not an unsigned"},
		{name: "nonce with leading zero", text: `{"input":"a","nonce":01,"max_ledger_seq_no":2}`, err: "','"},
		{name: "nonce too large", text: `{"input":"a","nonce":18446744073709551616,"max_ledger_seq_no":2}`, err: "64 bits"},
		{name: "max ledger -0", text: `{"input":"a","nonce":1,"max_ledger_seq_no":-0}`, err: "max_ledger_seq_no is not an unsigned"},
		{name: "bad UTF-8", text: "{\"input\":\"a\xff\"" + rest, err: "UTF-8"},
		{name: "bad UTF-8 elsewhere", text: "{\"x\":\"\xc3\",\"input\":\"a\"" + rest, err: "UTF-8"},
		{name: "control character", text: "{\"input\":\"a\nb\"" + rest, err: "control character"},
		{name: "bad escape", text: `{"input":"\x41"` + rest, err: "bad escape"},
		{name: "short escape", text: `{"input":"\u00"` + rest, err: "bad escape"},
		{name: "half a pair", text: `{"input":"\ud83d"` + rest, err: "bad escape"},
		{name: "wrong half first", text: `{"input":"\ude00\ud83d"` + rest, err: "bad escape"},
		{name: "text without end", text: `{"input":"a`, err: "inside a text"},
		{name: "escape at the end", text: `{"input":"a\`, err: "bad escape"},
		{name: "bad word", text: `{"x":nul,"input":"a"` + rest, err: "null"},
		{name: "bad number", text: `{"x":1.,"input":"a"` + rest, err: "a digit"},
		{name: "bad exponent", text: `{"x":1e,"input":"a"` + rest, err: "a digit"},
		{name: "bare minus", text: `{"x":-,"input":"a"` + rest, err: "a digit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkParse(t, JSON, []byte(c.text), c.want, c.err)
		})
	}
}

func checkParse(t *testing.T, p Protocol, container []byte, want Input, errPart string) {
	t.Helper()
	in, err := Parse(p, container)
	if errPart != "" {
		if err == nil {
			t.Fatalf("accepted as %+v", in)
		}
		if !strings.Contains(err.Error(), errPart) {
			t.Fatalf("error %q, want it to mention %q", err, errPart)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if in.Nonce != want.Nonce || in.MaxLedger != want.MaxLedger || !bytes.Equal(in.Payload, want.Payload) {
		t.Fatalf("parsed %+v, want %+v", in, want)
	}
}

func bsonOf(t testing.TB, d bson.D) []byte {
	t.Helper()
	b, err := bson.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseBSON(t *testing.T) {
	in := bson.E{Key: "input", Value: bson.Binary{Data: []byte{0, 1, 255}}}
	nonce := bson.E{Key: "nonce", Value: int64(1234567890123)}
	maxLedger := bson.E{Key: "max_ledger_seq_no", Value: int32(14)}
	want := Input{Nonce: 1234567890123, MaxLedger: 14, Payload: []byte{0, 1, 255}}
	js := bson.CodeWithScope{Code: "x", Scope: bson.D{{Key: "a", Value: 1}}}
	id := bson.NewObjectID()
	all := bson.D{
		{Key: "a", Value: 1.5}, {Key: "b", Value: "text"}, {Key: "c", Value: bson.D{{Key: "input", Value: 1}}},
		{Key: "d", Value: bson.A{1, "x"}}, {Key: "e", Value: bson.Binary{Subtype: 2, Data: []byte("old")}}, {Key: "f", Value: bson.Undefined{}},
		{Key: "g", Value: id}, {Key: "h", Value: true}, {Key: "i", Value: bson.DateTime(5)}, {Key: "j", Value: nil},
		{Key: "k", Value: bson.Regex{Pattern: "p", Options: "i"}}, {Key: "l", Value: bson.DBPointer{DB: "d", Pointer: id}},
		{Key: "m", Value: bson.JavaScript("x")}, {Key: "n", Value: bson.Symbol("s")}, {Key: "o", Value: js}, {Key: "p", Value: int32(1)},
		{Key: "q", Value: bson.Timestamp{T: 1, I: 2}}, {Key: "r", Value: int64(1)}, {Key: "s", Value: bson.NewDecimal128(1, 2)},
		{Key: "t", Value: bson.MinKey{}}, {Key: "u", Value: bson.MaxKey{}}, in, nonce, maxLedger,
	}
	good := bsonOf(t, bson.D{in, nonce, maxLedger})
	for _, c := range []struct {
		name string
		doc  []byte
		want Input
		err  string
	}{
		{name: "plain", doc: good, want: want},
		{name: "any order", doc: bsonOf(t, bson.D{maxLedger, nonce, in}), want: want},
		{name: "all types", doc: bsonOf(t, all), want: want},
		{name: "other subtype", doc: bsonOf(t, bson.D{{Key: "input", Value: bson.Binary{Subtype: 0x80, Data: []byte("a")}}, nonce, maxLedger}),
			want: Input{Nonce: want.Nonce, MaxLedger: 14, Payload: []byte("a")}},

		{name: "empty", doc: nil, err: "0 bytes"},
		{name: "no fields", doc: []byte{5, 0, 0, 0, 0}, err: "input is missing"},
		{name: "cut short", doc: good[:len(good)-1], err: "says that it has"},
		{name: "longer", doc: append(bytes.Clone(good), 0), err: "says that it has"},
		{name: "old subtype", doc: bsonOf(t, bson.D{{Key: "input", Value: bson.Binary{Subtype: 2, Data: []byte("a")}}, nonce, maxLedger}), err: "subtype 2"},
		{name: "input is a text", doc: bsonOf(t, bson.D{{Key: "input", Value: "a"}, nonce, maxLedger}), err: "must be a binary"},
		{name: "nonce is a double", doc: bsonOf(t, bson.D{in, {Key: "nonce", Value: 5.0}, maxLedger}), err: "field nonce has type 0x01"},
		{name: "nonce 0", doc: bsonOf(t, bson.D{in, {Key: "nonce", Value: int64(0)}, maxLedger}), err: "nonce is 0"},
		{name: "nonce negative", doc: bsonOf(t, bson.D{in, {Key: "nonce", Value: int64(-1)}, maxLedger}), err: "nonce is negative"},
		{name: "max ledger negative", doc: bsonOf(t, bson.D{in, nonce, {Key: "max_ledger_seq_no", Value: int32(-1)}}), err: "max_ledger_seq_no is negative"},
		{name: "input twice", doc: bsonOf(t, bson.D{in, in, nonce, maxLedger}), err: "input appears twice"},
		{name: "no nonce", doc: bsonOf(t, bson.D{in, maxLedger}), err: "nonce is missing"},
		{name: "unknown type", doc: []byte("\x09\x00\x00\x00\x55a\x00\x00\x00"), err: "type 0x55"},
		{name: "name without end", doc: []byte("\x08\x00\x00\x00\x10ab\x00"), err: "does not end"},
		{name: "ends early", doc: append(append([]byte{byte(len(good) + 1), 0, 0, 0}, good[4:]...), 0), err: "does not end"},
		{name: "binary longer than the document", doc: []byte("\x11\x00\x00\x00\x05input\x00\xff\xff\xff\x7f\x00\x00"), err: "cut short"},
		{name: "binary of negative length", doc: []byte("\x11\x00\x00\x00\x05input\x00\xff\xff\xff\xff\x00\x00"), err: "damaged"},
		{name: "no zero at the end", doc: append(bytes.Clone(good[:len(good)-1]), 1), err: "zero byte"},
		{name: "JSON", doc: []byte(`{"input":"a","nonce":1,"max_ledger_seq_no":2}`), err: "says that it has"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkParse(t, BSON, c.doc, c.want, c.err)
		})
	}
}

func TestParseUnknownProtocol(t *testing.T) {
	if _, err := Parse(3, []byte(`{}`)); err == nil || !strings.Contains(err.Error(), "unknown protocol 3") {
		t.Fatal(err)
	}
}

func TestParseJSONAllocates(t *testing.T) {
	c := []byte(`{"input":"some text of moderate length","nonce":1234567890123,"max_ledger_seq_no":14}`)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := Parse(JSON, c); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// FuzzParseJSON compares with the standard library, which reads the same grammar
// but is lenient about UTF-8, surrogates, repetitions and the case of names.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{
		`{"input":"hi","nonce":1234567890123,"max_ledger_seq_no":14}`,
		`{"x":[1,-0.5e+3,{"a":null}],"input":"\u00e9\ud83d\ude00\n","nonce":1,"max_ledger_seq_no":0}`,
		`{"\u0069nput":"","nonce":18446744073709551615,"max_ledger_seq_no":1} `,
		`{"input":"a","input":"b","nonce":1,"max_ledger_seq_no":2}`,
		`{"input":"a","nonce":1.0,"max_ledger_seq_no":2,}`, `{`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := Parse(JSON, b)
		var m map[string]json.RawMessage
		stdErr := json.Unmarshal(b, &m)
		if err == nil {
			if stdErr != nil {
				t.Fatalf("accepted what the standard library refuses: %v", stdErr)
			}
			var payload string
			if err := json.Unmarshal(m["input"], &payload); err != nil || payload != string(in.Payload) {
				t.Fatalf("input %q, the standard library says %q, %v", in.Payload, payload, err)
			}
			for name, v := range map[string]uint64{"nonce": in.Nonce, "max_ledger_seq_no": in.MaxLedger} {
				if got := strings.TrimSpace(string(m[name])); got != strconv.FormatUint(v, 10) {
					t.Fatalf("%s is %d, text %q", name, v, got)
				}
			}
			if _, err := Parse(BSON, b); err == nil {
				t.Fatal("is both JSON and BSON")
			}
			return
		}
		if stdErr != nil || m == nil || !utf8.Valid(b) {
			return
		}
		// What is left to object to.
		for _, part := range []string{"is missing", "appears twice", "is not a", "is 0", "64 bits", "nested", "bad escape"} {
			if strings.Contains(err.Error(), part) {
				return
			}
		}
		t.Fatalf("refused what the standard library accepts: %v", err)
	})
}

// FuzzParseBSON checks that an accepted document is read as the driver reads it.
func FuzzParseBSON(f *testing.F) {
	in := bson.E{Key: "input", Value: bson.Binary{Data: []byte{0, 1, 255}}}
	f.Add(bsonOf(f, bson.D{in, {Key: "nonce", Value: int64(1234567890123)}, {Key: "max_ledger_seq_no", Value: int32(14)}}))
	f.Add(bsonOf(f, bson.D{{Key: "x", Value: bson.A{1, bson.D{}}}, {Key: "nonce", Value: 1}, in, {Key: "max_ledger_seq_no", Value: int64(0)}}))
	f.Add(bsonOf(f, bson.D{{Key: "r", Value: bson.Regex{Pattern: "a", Options: "b"}}, {Key: "nonce", Value: 1.0}, in}))
	f.Add([]byte{5, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Parse(BSON, b)
		if err != nil {
			return
		}
		raw := bson.Raw(b)
		_, data, ok := raw.Lookup("input").BinaryOK()
		if !ok || !bytes.Equal(data, got.Payload) {
			t.Fatalf("input %x, the driver says %x, %v", got.Payload, data, ok)
		}
		for name, v := range map[string]uint64{"nonce": got.Nonce, "max_ledger_seq_no": got.MaxLedger} {
			if n, ok := raw.Lookup(name).AsInt64OK(); !ok || uint64(n) != v {
				t.Fatalf("%s is %d, the driver says %d, %v", name, v, n, ok)
			}
		}
		if _, err := Parse(JSON, b); err == nil {
			t.Fatal("is both JSON and BSON")
		}
	})
}

func BenchmarkParseJSON(b *testing.B) {
	c := []byte(`{"input":"` + strings.Repeat("x", 100) + `","nonce":1234567890123,"max_ledger_seq_no":14}`)
	b.SetBytes(int64(len(c)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(JSON, c); err != nil {
			b.Fatal(err)
		}
	}
}
