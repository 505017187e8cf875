package xahau

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"evernode/xahau/field"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A round trip through binary and through JSON leaves an object as it is.
func roundTrip(t *testing.T, d *Definitions, o *Object) {
	t.Helper()
	b, err := d.Encode(o)
	if err != nil {
		t.Fatal(err)
	}
	back, err := d.Decode(b)
	if err != nil {
		t.Fatalf("%v\n%x", err, b)
	}
	if !back.Equal(o) {
		t.Fatalf("binary: %v becomes %v", o, back)
	}
	j, err := d.JSON(o)
	if err != nil {
		t.Fatal(err)
	}
	if back, err = d.ParseJSON(j); err != nil {
		t.Fatalf("%v\n%s", err, j)
	}
	if !back.Equal(o) {
		j2, _ := d.JSON(back)
		t.Fatalf("JSON:\n%s becomes\n%s", j, j2)
	}
	if c := o.Clone(); !c.Equal(o) {
		t.Fatal("a clone differs")
	}
}

func TestRoundTripOfEveryTransaction(t *testing.T) {
	d := DefaultDefinitions()
	r := newRandom(1)
	without := []string{"NicknameSet", "Contract", "SpinalTap"} // never in use
	for _, typ := range d.TransactionTypes() {
		if TransactionFormat(typ) == nil {
			if !slices.Contains(without, d.TransactionName(typ)) {
				t.Errorf("no format of %s", d.TransactionName(typ))
			}
			continue
		}
		for range 50 {
			tx := r.transaction(typ)
			roundTrip(t, d, tx)
			if err := d.CheckTransaction(tx); err != nil {
				t.Fatalf("%v", err)
			}
		}
	}
}

func TestRoundTripOfEveryEntry(t *testing.T) {
	d := DefaultDefinitions()
	r := newRandom(2)
	without := []string{"GeneratorMap", "Nickname", "Contract"} // no longer in use
	for _, typ := range d.EntryTypes() {
		if EntryFormat(typ) == nil {
			if !slices.Contains(without, d.EntryName(typ)) {
				t.Errorf("no format of %s", d.EntryName(typ))
			}
			continue
		}
		for range 50 {
			o := r.ledgerEntry(typ)
			roundTrip(t, d, o)
			if err := d.CheckEntry(o); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRoundTripOfAnything(t *testing.T) {
	r := newRandom(3)
	for range 3000 {
		roundTrip(t, r.defs, r.object(0))
	}
}

// Every field that can be serialized survives alone.
func TestRoundTripOfEveryField(t *testing.T) {
	r := newRandom(4)
	for _, f := range r.fields() {
		for range 5 {
			o := &Object{}
			o.Set(f.Code, r.value(f, 0))
			roundTrip(t, r.defs, o)
		}
	}
}

func TestFieldsOutOfOrderAreSorted(t *testing.T) {
	d := DefaultDefinitions()
	o, err := d.Decode(unhex(t, "2400000002"+"120000"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Encode(o)
	if err != nil || hex.EncodeToString(b) != "1200002400000002" {
		t.Errorf("%x, %v", b, err)
	}
}

func TestEmptyAccount(t *testing.T) {
	d := DefaultDefinitions()
	o, err := d.ParseJSON([]byte(`{"TransactionType":"UNLModify","Account":""}`))
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, d, o)
	if b, err := d.Encode(o); err != nil || hex.EncodeToString(b) != "1200668100" {
		t.Errorf("%x, %v", b, err)
	}
	if !o.Account(field.Account).IsZero() {
		t.Error("the account is not zero")
	}
}

func TestDecodeRefuses(t *testing.T) {
	d := DefaultDefinitions()
	deep := strings.Repeat("ea", 12) + strings.Repeat("e1", 12)
	for name, c := range map[string]struct{ hex, says string }{
		"an early end":            {"1200", "TransactionType"},
		"an early end in length":  {"74c1", "TxnSignature"},
		"a field twice":           {"24000000022400000003", "Sequence is there twice"},
		"an unknown field":        {"1f", "field 15 of type 1"},
		"an unknown type":         {"a1", "type 10"},
		"a long header":           {"0001" + "02", "too many bytes"},
		"a short account":         {"8113" + strings.Repeat("00", 19), "an account of 19 bytes"},
		"half a hash":             {"031305" + strings.Repeat("00", 5), "no list of hashes"},
		"an open object":          {"ea7c0101", "Memo"},
		"an end without start":    {"e1", "does not belong here"},
		"an array's end":          {"f1", "does not belong here"},
		"too much nesting":        {deep, "nested too deep"},
		"negative zero":           {"610000000000000000", "negative zero"},
		"a value with few digits": {"61c000000000000001" + strings.Repeat("01", 40), "no number"},
		"issued native":           {"61d4838d7ea4c68000" + strings.Repeat("00", 20) + strings.Repeat("01", 20), "issued amount"},
		"an empty path":           {"011200", "empty path"},
		"a wrong step":            {"011202" + strings.Repeat("00", 20) + "00", "step of type"},
		"a field in an array":     {"f9120000f1", "not an object"},
	} {
		o, err := d.Decode(unhex(t, c.hex))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			j, _ := json.Marshal(o)
			t.Errorf("%s: %v (%s), want an error that says %q", name, err, j, c.says)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	d := DefaultDefinitions()
	deep := &Object{}
	for range 12 {
		o := &Object{}
		o.Set(field.Memo, deep)
		deep = o
	}
	for name, c := range map[string]struct {
		code field.Code
		v    Value
		says string
	}{
		"a wrong type":         {field.Sequence, Uint16(1), "Sequence: a xahau.Uint16"},
		"an unknown field":     {field.NewCode(1, 200), Uint16(1), "is not defined"},
		"a long blob":          {field.URI, make(Blob, maxLength+1), "URI: 918745 bytes are too long"},
		"a value of nonsense":  {field.Amount, Issued(1, Currency{1}, AccountOne), "Amount: has a value"},
		"too many drops":       {field.Amount, Drops(1 << 62), "Amount: has too many"},
		"no object":            {field.Memo, (*Object)(nil), "Memo: no object"},
		"an array of numbers":  {field.Memos, Array{{field.Sequence, &Object{}}}, "Memos: element 0"},
		"too deep":             {field.Memo, deep, "nested too deep"},
		"no paths":             {field.Paths, PathSet{}, "Paths: an empty path"},
		"an issuer of natives": {field.Asset, Issue{Issuer: AccountOne}, "no issuer"},
	} {
		o := &Object{}
		o.Set(c.code, c.v)
		if b, err := d.Encode(o); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %x, %v, want an error that says %q", name, b, err, c.says)
		}
	}
}

func TestParseJSONRefuses(t *testing.T) {
	d := DefaultDefinitions()
	for in, says := range map[string]string{
		`[]`:                               "not a JSON object",
		`{} {}`:                            "more than one",
		`{"Nonsense":1}`:                   `"Nonsense" is not defined`,
		`{"Sequence":-1}`:                  "Sequence: ",
		`{"Sequence":4294967296}`:          "Sequence: ",
		`{"Sequence":1.5}`:                 "Sequence: ",
		`{"Sequence":"x"}`:                 "Sequence: ",
		`{"Sequence":null}`:                "Sequence: ",
		`{"TransactionType":"Nonsense"}`:   "TransactionType: ",
		`{"Account":"r123"}`:               "Account: ",
		`{"Account":1}`:                    "Account: ",
		`{"Amount":1}`:                     "Amount: ",
		`{"Amount":"1.5"}`:                 "Amount: ",
		`{"Amount":"4611686018427387904"}`: "Amount: ",
		`{"Amount":{"value":"1","currency":"EVR"}}`:                                                       "without issuer",
		`{"Amount":{"value":"1","currency":"XAH","issuer":"rrrrrrrrrrrrrrrrrrrrBZbvji"}}`:                 "no issuer",
		`{"Amount":{"value":"1","currency":"EVR","issuer":"rrrrrrrrrrrrrrrrrrrrBZbvji","x":"y"}}`:         "does not belong",
		`{"Amount":{"value":"12345678901234567","currency":"EVR","issuer":"rrrrrrrrrrrrrrrrrrrrBZbvji"}}`: "16 significant digits",
		`{"URI":"0"}`:                   "URI: is not hex",
		`{"URITokenID":"00"}`:           "URITokenID: ",
		`{"Memos":{}}`:                  "Memos: ",
		`{"Memos":[{"Memo":{},"X":1}]}`: "Memos: element 0",
		`{"Memos":[{"URI":{}}]}`:        "Memos: element 0",
		`{"Paths":[[{}]]}`:              "Paths: path 0: step 0",
		`{"IndexNext":"g"}`:             "IndexNext: ",
		`{"HookNamespaces":[1]}`:        "HookNamespaces: element 0",
		`{"DestinationTag":1,"Destination":"XVLhHMPHU98es4dbozjVtdWzVrDjtV18pX8yuPT7y4xaEHi"}`: "DestinationTag: 1 differs",
	} {
		if o, err := d.ParseJSON([]byte(in)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v, want an error that says %q", in, o, err, says)
		}
	}
}

func TestServerJSON(t *testing.T) {
	d := DefaultDefinitions()
	o, err := d.ParseServerJSON([]byte(`{"Sequence":2,"hash":"x","date":5,"urlgravatar":"http://x","inLedger":7,"OwnerNode":"1f"}`))
	if err != nil {
		t.Fatal(err)
	}
	if o.Uint32(field.Sequence) != 2 || o.Uint64(field.OwnerNode) != 31 || o.Len() != 2 {
		t.Errorf("%v", o)
	}
	if _, err := d.ParseServerJSON([]byte(`{"Sequence":"x"}`)); err == nil {
		t.Error("nonsense in a known field is let through")
	}
}

func TestXAddressesInJSON(t *testing.T) {
	d := DefaultDefinitions()
	o, err := d.ParseJSON([]byte(`{"TransactionType":"Payment","Amount":"1","Destination":"XVLhHMPHU98es4dbozjVtdWzVrDjtV18pX8yuPT7y4xaEHi","Account":"XVLhHMPHU98es4dbozjVtdWzVrDjtV5fdx1mHp98tDMoQXb"}`))
	if err != nil {
		t.Fatal(err)
	}
	account := MustAddress("rGWrZyQqhTp9Xu7G5Pkayo7bXjH4k4QYpf")
	if o.Account(field.Destination) != account || !o.Has(field.DestinationTag) || o.Account(field.Account) != account || o.Has(field.SourceTag) {
		j, _ := d.JSON(o)
		t.Errorf("%s", j)
	}
}

// Definitions of a server take the place of the embedded ones.
func TestDefinitionsOfAServer(t *testing.T) {
	server := bytes.Replace(DefaultDefinitions().Source(), []byte(`["Version",`), []byte(`["Newcomer",{"nth":90,"isVLEncoded":true,"isSerialized":true,"isSigningField":true,"type":"Blob"}],["Version",`), 1)
	server = bytes.Replace(server, []byte(`"Invoke": 99`), []byte(`"Invoke": 99, "Dance": 200`), 1)
	d, err := ParseDefinitions([]byte(`{"result":` + strings.Replace(string(server), "{", `{"hash":"`+strings.Repeat("AB", 32)+`",`, 1) + `,"status":"success"}`))
	if err != nil {
		t.Fatal(err)
	}
	o, err := d.ParseJSON([]byte(`{"TransactionType":"Dance","Newcomer":"00FF"}`))
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, d, o)
	b, err := d.Encode(o)
	if err != nil || hex.EncodeToString(b) != "1200c8705a0200ff" {
		t.Errorf("%x, %v", b, err)
	}
	if d.Hash().String() != strings.Repeat("AB", 32) || d.TransactionName(200) != "Dance" {
		t.Error("hash or name is wrong")
	}
	if _, err := DefaultDefinitions().Decode(b); err == nil {
		t.Error("the embedded definitions know the field")
	}
	for _, bad := range []string{``, `{}`, `{"FIELDS":[["X",{"nth":1,"type":"Y"}]],"TYPES":{"Z":1},"TRANSACTION_TYPES":{}}`, `{"FIELDS":[[1,2]],"TYPES":{"Z":1},"TRANSACTION_TYPES":{}}`} {
		if _, err := ParseDefinitions([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// A number with several names is written by the ledger's own.
func TestNamesOfPseudoTransactions(t *testing.T) {
	d := DefaultDefinitions()
	for name, n := range map[string]TransactionType{"EnableAmendment": 100, "SetFee": 101, "Payment": 0, "UNLModify": 102} {
		if got := d.TransactionName(n); got != name {
			t.Errorf("%d is %s", n, got)
		}
	}
	if n, ok := d.TransactionType("Amendment"); !ok || n != 100 {
		t.Error("Amendment")
	}
}

func FuzzDecode(f *testing.F) {
	r := newRandom(5)
	for range 40 {
		b, err := r.defs.Encode(r.object(0))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xe1})
	d := DefaultDefinitions()
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := d.Decode(b)
		if err != nil {
			return
		}
		again, err := d.Encode(o)
		if err != nil {
			t.Fatalf("%x is read but cannot be written: %v", b, err)
		}
		if len(again) != len(b) {
			t.Fatalf("%x is written as %x", b, again)
		}
		roundTrip(t, d, o)
	})
}

func FuzzParseJSON(f *testing.F) {
	r := newRandom(6)
	for range 40 {
		b, err := r.defs.JSON(r.object(0))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"Sequence":1e3}`))
	d := DefaultDefinitions()
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func([]byte) (*Object, error){d.ParseJSON, d.ParseServerJSON} {
			o, err := parse(b)
			if err != nil {
				continue
			}
			if _, err := d.JSON(o); err != nil {
				t.Fatalf("%s is read but cannot be written: %v", b, err)
			}
			if bin, err := d.Encode(o); err == nil {
				if _, err := d.Decode(bin); err != nil {
					t.Fatalf("%s is encoded as %x, which is refused: %v", b, bin, err)
				}
			}
		}
	})
}

func FuzzParseDefinitions(f *testing.F) {
	f.Add([]byte(`{"FIELDS":[["X",{"nth":1,"type":"Blob","isSerialized":true}]],"TYPES":{"Blob":7},"TRANSACTION_TYPES":{"A":1}}`))
	f.Add([]byte(`{"result":{"FIELDS":[]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDefinitions(b)
		if err != nil {
			return
		}
		d.Decode(b)
		d.ParseJSON(b)
	})
}
