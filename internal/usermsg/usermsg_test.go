package usermsg

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
	"evernode/internal/digest"

	"go.mongodb.org/mongo-driver/v2/bson"
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

// The vectors of spec/hotpocket.md section 8.
func TestHandshakeVectors(t *testing.T) {
	user, node := testKey(t, 0x2a), testKey(t, 1)
	const challenge = "00112233445566778899aabbccddeeff"
	got := string(AppendChallenge(nil, Challenge{"0.6.4", "3c349abe-4d70-4f50-9fa6-018f1f2530ab", "1.0", challenge}))
	want := `{"hp_version":"0.6.4","type":"user_challenge","contract_id":"3c349abe-4d70-4f50-9fa6-018f1f2530ab","contract_version":"1.0","challenge":"` + challenge + `"}`
	if got != want {
		t.Errorf("challenge\n got %s\nwant %s", got, want)
	}
	c, err := DecodeChallenge([]byte(got))
	if err != nil || c.Challenge != challenge || c.ContractVersion != "1.0" {
		t.Errorf("challenge read back as %+v, %v", c, err)
	}

	got = string(AppendChallengeResponse(nil, ChallengeResponse{
		Sig: user.Sign([]byte(challenge)), Public: user.Public(), ServerChallenge: "0123456789abcdef0123456789abcdef", Protocol: BSON}))
	want = `{"type":"user_challenge_response","sig":"2344e359cfc4aa83c616ccee63a5d991af847a104a65c8923c6f387e2a347c0cac782dfb7136dffb3610ecca890f592bf4b7b1508ab8383b69d6f29dc1277304",` +
		`"pubkey":"ed197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61","server_challenge":"0123456789abcdef0123456789abcdef","protocol":"bson"}`
	if got != want {
		t.Errorf("challenge response\n got %s\nwant %s", got, want)
	}
	r, err := DecodeChallengeResponse([]byte(got))
	if err != nil || r.Public != user.Public() || r.Protocol != BSON || !r.Public.Verify([]byte(challenge), r.Sig[:]) {
		t.Errorf("challenge response read back as %+v, %v", r, err)
	}

	proof := ServerProof("0123456789abcdef0123456789abcdef", "3c349abe-4d70-4f50-9fa6-018f1f2530ab", "1.0")
	got = string(AppendServerResponse(nil, ServerResponse{node.Sign(proof), node.Public(), []key.Public{node.Public(), user.Public()}}))
	want = `{"type":"server_challenge_response","sig":"551776d8eaddb6adb2ab21a145bddcabae1f670861df4be6e4a7d1411b024db4098f5cbd71594836ff4437ca0b54ab57f9dd37e7acd88cce1c49991ddc14b604",` +
		`"pubkey":"ed8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c","unl":["ed8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c","ed197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61"]}`
	if got != want {
		t.Errorf("server response\n got %s\nwant %s", got, want)
	}
	s, err := DecodeServerResponse([]byte(got))
	if err != nil || len(s.UNL) != 2 || s.UNL[1] != user.Public() {
		t.Errorf("server response read back as %+v, %v", s, err)
	}
}

func TestBadChallengeResponses(t *testing.T) {
	user := testKey(t, 0x2a)
	good := string(AppendChallengeResponse(nil, ChallengeResponse{Sig: user.Sign([]byte("x")), Public: user.Public(), ServerChallenge: "aa"}))
	for name, change := range map[string][2]string{
		"type":             {"user_challenge_response", "contract_input"},
		"no protocol":      {`,"protocol":"json"`, ``},
		"other protocol":   {`"json"`, `"xml"`},
		"short sig":        {`"sig":"`, `"sig":"","x":"`},
		"sig not hex":      {`"sig":"`, `"sig":"zz`},
		"no pubkey":        {`"pubkey"`, `"pubkez"`},
		"key prefix":       {`"pubkey":"ed`, `"pubkey":"ee`},
		"challenge empty":  {`"aa"`, `""`},
		"challenge long":   {`"aa"`, `"` + strings.Repeat("a", 33) + `"`},
		"challenge number": {`"aa"`, `12`},
		"trailing comma":   {`"json"}`, `"json",}`},
		"trailing bytes":   {`"json"}`, `"json"} x`},
		"not an object":    {good, `[]`},
		"empty":            {good, ``},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Fatalf("%s: nothing changed", name)
		}
		if r, err := DecodeChallengeResponse([]byte(bad)); err == nil {
			t.Errorf("%s: %s was read as %+v", name, bad, r)
		}
	}
	upper := strings.Replace(good, user.Public().String(), strings.ToUpper(user.Public().String()), 1)
	if r, err := DecodeChallengeResponse([]byte(upper)); err != nil || r.Public != user.Public() {
		t.Errorf("upper-case key: %v", err)
	}
}

// requests holds one request of each kind, and messages below one of each
// message; both are also the seeds of the fuzz targets.
func requests() []Request {
	return []Request{
		{Type: RequestInput, Container: []byte(`{"input":"hi \"there\" é\n","nonce":1,"max_ledger_seq_no":14}`), Sig: bytes.Repeat([]byte{7}, 64)},
		{Type: RequestRead, ID: "17", Content: []byte("a \\ b \x01")},
		{Type: RequestRead, ID: "", Content: []byte{}},
		{Type: RequestStat},
		{Type: RequestLCL},
		{Type: RequestSubscription, Channel: ChannelLedgerEvent, Enabled: true},
		{Type: RequestSubscription, Channel: ChannelUNLChange},
		{Type: RequestLedgerQuery, ID: "q", SeqNo: 1 << 40, IncludeInputs: true, IncludeOutputs: true},
		{Type: RequestLedgerQuery, ID: "q", SeqNo: 0},
	}
}

func group(children ...output.Node) output.Node {
	return output.Node{Kind: output.Group, Children: children}
}

func messages() []Message {
	k := key.Public{0: key.Prefix, 5: 9}
	rec := LedgerRecord{SeqNo: 12, Timestamp: 1700000000000, Hash: hashOf(1), PrevHash: hashOf(2), StateHash: hashOf(3),
		ConfigHash: hashOf(4), UserHash: hashOf(5), InputHash: hashOf(6), OutputHash: hashOf(7)}
	full := rec
	full.Inputs = []LedgerInput{{k, hashOf(8), 1700000000001, []byte("blob")}}
	full.Outputs = []LedgerOutput{{k, hashOf(9), [][]byte{[]byte("o1"), []byte("o2")}}}
	bare := rec
	bare.Inputs, bare.Outputs = []LedgerInput{}, []LedgerOutput{}
	return []Message{
		&InputStatus{Reason: "bad_msg_format"},
		&InputStatus{Reason: "nonce_expired", InputHash: hashOf(1)},
		&InputStatus{Accepted: true, InputHash: hashOf(1), LedgerSeqNo: 5, LedgerHash: hashOf(2)},
		&Output{LedgerSeqNo: 1 << 33, LedgerHash: hashOf(1), Outputs: [][]byte{[]byte("out1"), []byte(`{"a":1}`), []byte("-5"), {}}, OutputHash: hashOf(2),
			Tree:       group(group(output.Node{Hash: hashOf(3)}, output.Node{Kind: output.OwnLeaf}), output.Node{Hash: hashOf(4)}),
			Signatures: []output.Signature{{Key: k, Sig: key.Signature{1, 2, 3}}}},
		&ReadResponse{ReplyFor: "r1", Content: []byte("text")},
		&Stat{HPVersion: "0.6.4", LedgerSeqNo: 3, LedgerHash: hashOf(1), VoteStatus: VoteSynced, RoundTime: 1000, ContractExecutionEnabled: true,
			ReadRequestsEnabled: true, CurrentUNL: []key.Public{k}, Peers: []string{"host:22860"}},
		&Stat{CurrentUNL: []key.Public{}, Peers: []string{}},
		&LCL{LedgerSeqNo: 13, LedgerHash: hashOf(7)},
		&UNLChange{UNL: []key.Public{k, k}},
		&LedgerCreated{Ledger: rec},
		&VoteStatus{Status: VoteDesync},
		&ProposalHealth{CommLatency: Latency{1, 2, 3}, ReadLatency: Latency{4, 5, 6}, BatchSize: 7},
		&Connectivity{PeerCount: 3},
		&QueryResult{ReplyFor: "q", Results: []LedgerRecord{full, bare, rec}},
		&QueryResult{ReplyFor: "q", Error: ErrorExecFailure, Results: []LedgerRecord{}},
	}
}

func TestRequestsRoundTrip(t *testing.T) {
	for _, p := range []Protocol{JSON, BSON} {
		for _, want := range requests() {
			data := AppendRequest(nil, p, want)
			checkForm(t, p, data)
			got, err := DecodeRequest(p, data)
			if err != nil {
				t.Errorf("%s %s: %v", p, data, err)
				continue
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s\n got %+v\nwant %+v", p, data, got, want)
			}
		}
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	for _, p := range []Protocol{JSON, BSON} {
		for _, want := range messages() {
			data := want.Append(nil, p)
			checkForm(t, p, data)
			got, err := DecodeMessage(p, data)
			if err != nil {
				t.Errorf("%s %s: %v", p, data, err)
				continue
			}
			if o, ok := got.(*Output); ok {
				if p == JSON && len(o.JSONTokens) != len(o.Outputs) {
					t.Errorf("%d tokens for %d outputs", len(o.JSONTokens), len(o.Outputs))
				}
				o.JSONTokens = nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s\n got %+v\nwant %+v", p, data, got, want)
			}
		}
	}
}

// checkForm has the standard libraries of both forms judge what we wrote.
func checkForm(t *testing.T, p Protocol, data []byte) {
	t.Helper()
	if p == JSON {
		if !json.Valid(data) {
			t.Errorf("not JSON: %s", data)
		}
	} else if err := bson.Raw(data).Validate(); err != nil {
		t.Errorf("not BSON: %x: %v", data, err)
	}
}

// The texts are what the original sends, field for field.
func TestMessageText(t *testing.T) {
	h := strings.Repeat("01", 32)
	for _, c := range []struct {
		m    Message
		want string
	}{
		{&InputStatus{Reason: "bad_msg_format"}, `{"type":"contract_input_status","status":"rejected","reason":"bad_msg_format","input_hash":""}`},
		{&InputStatus{Accepted: true, InputHash: hashOf(1), LedgerSeqNo: 5, LedgerHash: hashOf(1)},
			`{"type":"contract_input_status","status":"accepted","input_hash":"` + h + `","ledger_seq_no":5,"ledger_hash":"` + h + `"}`},
		{&Output{LedgerSeqNo: 5, LedgerHash: hashOf(1), Outputs: [][]byte{[]byte("a"), []byte("[1]")}, OutputHash: hashOf(1),
			Tree: group(output.Node{Kind: output.OwnLeaf}, output.Node{Hash: hashOf(1)})},
			`{"type":"contract_output","ledger_seq_no":5,"ledger_hash":"` + h + `","outputs":["a",[1]],"output_hash":"` + h + `","hash_tree":[null,"` + h + `"],"unl_sig":[]}`},
		{&ReadResponse{"7", []byte("x")}, `{"type":"contract_read_response","reply_for":"7","content":"x"}`},
		{&Stat{HPVersion: "0.6.4", VoteStatus: VoteUnknown, RoundTime: 9},
			`{"type":"stat_response","hp_version":"0.6.4","ledger_seq_no":0,"ledger_hash":"` + strings.Repeat("0", 64) + `","vote_status":"unknown","round_time":9,` +
				`"contract_execution_enabled":false,"read_requests_enabled":false,"is_full_history_node":false,"weakly_connected":false,"current_unl":[],"peers":[]}`},
		{&Stat{HPVersion: "0.6.4", VoteStatus: VoteUnknown, DivergedRuns: 2},
			`{"type":"stat_response","hp_version":"0.6.4","ledger_seq_no":0,"ledger_hash":"` + strings.Repeat("0", 64) + `","vote_status":"unknown","round_time":0,` +
				`"contract_execution_enabled":false,"read_requests_enabled":false,"is_full_history_node":false,"weakly_connected":false,"current_unl":[],"peers":[],"diverged_runs":2}`},
		{&LCL{13, hashOf(1)}, `{"type":"lcl_response","ledger_seq_no":13,"ledger_hash":"` + h + `"}`},
		{&VoteStatus{VoteSynced}, `{"type":"ledger_event","event":"vote_status","vote_status":"synced"}`},
		{&Connectivity{2, true}, `{"type":"health_event","event":"connectivity","peer_count":2,"weakly_connected":true}`},
		{&ProposalHealth{Latency{1, 2, 3}, Latency{4, 5, 6}, 7},
			`{"type":"health_event","event":"proposal","comm_latency":{"min":1,"max":2,"avg":3},"read_latency":{"min":4,"max":5,"avg":6},"batch_size":7}`},
		{&QueryResult{ReplyFor: "q"}, `{"type":"ledger_query_result","reply_for":"q","error":null,"results":[]}`},
	} {
		if got := string(c.m.Append(nil, JSON)); got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
	}
}

// A message that lacks what it is about is not taken for one with zeros.
func TestMissingFields(t *testing.T) {
	for _, want := range messages() {
		data := want.Append(nil, JSON)
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(data, &fields); err != nil {
			t.Fatal(err)
		}
		for name := range fields {
			switch name {
			case "error", "round_time", "contract_execution_enabled", "read_requests_enabled", "is_full_history_node", "weakly_connected":
				continue
			case "ledger_seq_no":
				if _, ok := want.(*InputStatus); ok {
					continue
				}
			}
			without := maps.Clone(fields)
			delete(without, name)
			b, err := json.Marshal(without)
			if err != nil {
				t.Fatal(err)
			}
			if m, err := DecodeMessage(JSON, b); err == nil {
				t.Errorf("%s was read as %+v", b, m)
			}
		}
	}
}

// The sample of section 8: a BSON lcl_response at ledger 13.
func TestBSONSample(t *testing.T) {
	got := (&LCL{13, hashOf(0xab)}).Append(nil, BSON)
	want := "61000000" + "02" + hex.EncodeToString([]byte("type\x00")) + "0d000000" + hex.EncodeToString([]byte("lcl_response\x00")) +
		"10" + hex.EncodeToString([]byte("ledger_seq_no\x00")) + "0d000000" +
		"05" + hex.EncodeToString([]byte("ledger_hash\x00")) + "20000000" + "80" + strings.Repeat("ab", 32) + "00"
	if hex.EncodeToString(got) != want {
		t.Errorf("\n got %x\nwant %s", got, want)
	}
	big := (&LCL{1 << 31, hashOf(1)}).Append(nil, BSON)
	if !bytes.Contains(big, append([]byte("\x12ledger_seq_no\x00"), 0, 0, 0, 0x80, 0, 0, 0, 0)) {
		t.Errorf("2^31 is not an int64: %x", big)
	}
	tree := (&Output{Tree: group(output.Node{Kind: output.OwnLeaf})}).Append(nil, BSON)
	if !bytes.Contains(tree, []byte("hash_tree\x00\x08\x00\x00\x00\x0a0\x00\x00")) {
		t.Errorf("own leaf is not null: %x", tree)
	}
}

func TestContentEmbedding(t *testing.T) {
	for in, want := range map[string]string{
		`"quoted"`: `"quoted"`, `{"a":1}`: `{"a":1}`, `[1, 2]`: `[1, 2]`, `true`: `true`, `false`: `false`, `1.5`: `1.5`, `0`: `0`, `42`: `42`,
		// Not embedded by the original either.
		``: `""`, `-5`: `"-5"`, `null`: `"null"`, `text`: `"text"`, ` {}`: `" {}"`, `1e3`: `"1e3"`, `1.2.3`: `"1.2.3"`, "é\t": `"é\t"`,
		// Embedded by the original although they are no JSON.
		`007`: `"007"`, `.`: `"."`, `1.`: `"1."`, `.5`: `".5"`, `[x]`: `"[x]"`, `{bad}`: `"{bad}"`, `"`: `"\""`, `"a"b"`: `"\"a\"b\""`, `{"a":1}{}`: `"{\"a\":1}{}"`,
		"\"\xff\"": `"\"` + "\uFFFD" + `\""`, "\xff\x00": `"` + "\uFFFD" + `\u0000"`, `[1,]`: `"[1,]"`,
	} {
		got := string(appendContent(nil, []byte(in)))
		if got != want {
			t.Errorf("%q is embedded as %s, want %s", in, got, want)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("%q gives invalid JSON %s", in, got)
		}
	}
	deep := strings.Repeat("[", 600) + strings.Repeat("]", 600)
	if got := appendContent(nil, []byte(deep)); got[0] != '"' {
		t.Error("an array nested 600 deep is embedded")
	}
}

func TestBadRequests(t *testing.T) {
	sig := bytes.Repeat([]byte{7}, 64)
	hexSig := hex.EncodeToString(sig)
	for _, c := range []struct {
		in      string
		typ     RequestType
		unknown bool
		sig     []byte
	}{
		{in: ``}, {in: `x`}, {in: `[]`}, {in: `{"type":1}`}, {in: `{}`}, {in: `{"type":"stat"`}, {in: `{"type":"stat",}`}, {in: `{"type":"stat"} x`},
		{in: `{"type":"stat" /* */}`}, {in: "{\"type\":\"stat\xff\"}"}, {in: `{"type":"stat","type":"lcl"}`}, {in: `{'type':'stat'}`},
		{in: `{"type":"hello"}`, unknown: true},
		{in: `{"type":"contract_input"}`, typ: RequestInput},
		{in: `{"type":"contract_input","input_container":"{}","sig":"zz"}`, typ: RequestInput},
		{in: `{"type":"contract_input","input_container":7,"sig":"` + hexSig + `"}`, typ: RequestInput, sig: sig},
		{in: `{"type":"contract_input","sig":"` + hexSig + `"}`, typ: RequestInput, sig: sig},
		{in: `{"type":"contract_input","input_container":"","sig":"` + hexSig + `"}`, typ: RequestInput, sig: sig},
		{in: `{"type":"contract_input","input_container":"\ud800","sig":"` + hexSig + `"}`, typ: RequestInput, sig: sig},
		{in: `{"type":"contract_input","input_container":"{}","sig":"abc"}`, typ: RequestInput},
		{in: `{"type":"contract_read_request","content":"x"}`, typ: RequestRead},
		{in: `{"type":"contract_read_request","id":7,"content":"x"}`, typ: RequestRead},
		{in: `{"type":"contract_read_request","id":"7","content":7}`, typ: RequestRead},
		{in: `{"type":"subscription","channel":"other","enabled":true}`, typ: RequestSubscription},
		{in: `{"type":"subscription","channel":"unl_change"}`, typ: RequestSubscription},
		{in: `{"type":"subscription","channel":"unl_change","enabled":1}`, typ: RequestSubscription},
		{in: `{"type":"ledger_query","id":"","filter_by":"seq_no","params":{"seq_no":1},"include":[]}`, typ: RequestLedgerQuery},
		{in: `{"type":"ledger_query","id":"1","filter_by":"hash","params":{"seq_no":1},"include":[]}`, typ: RequestLedgerQuery},
		{in: `{"type":"ledger_query","id":"1","filter_by":"seq_no","params":{},"include":[]}`, typ: RequestLedgerQuery},
		{in: `{"type":"ledger_query","id":"1","filter_by":"seq_no","params":{"seq_no":-1},"include":[]}`, typ: RequestLedgerQuery},
		{in: `{"type":"ledger_query","id":"1","filter_by":"seq_no","params":{"seq_no":1.5},"include":[]}`, typ: RequestLedgerQuery},
		{in: `{"type":"ledger_query","id":"1","filter_by":"seq_no","params":{"seq_no":99999999999999999999},"include":[]}`, typ: RequestLedgerQuery},
		{in: `{"type":"ledger_query","id":"1","filter_by":"seq_no","params":{"seq_no":1},"include":"inputs"}`, typ: RequestLedgerQuery},
	} {
		r, err := DecodeRequest(JSON, []byte(c.in))
		if err == nil {
			t.Errorf("%s was read as %+v", c.in, r)
			continue
		}
		if r.Type != c.typ || errors.Is(err, ErrUnknownType) != c.unknown || !bytes.Equal(r.Sig, c.sig) {
			t.Errorf("%s: type %s, sig %x, error %v", c.in, r.Type, r.Sig, err)
		}
	}
	// What must be taken.
	for _, in := range []string{
		` { "type" : "stat" , "more" : [ { "a" : -1.5e+3 } , null ] } `,
		`{"\u0074ype":"st\u0061t"}`,
		`{"type":"ledger_query","id":"1","filter_by":"seq_no","params":{"seq_no":1,"x":2},"include":["blobs",7]}`,
	} {
		if _, err := DecodeRequest(JSON, []byte(in)); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestBadBSON(t *testing.T) {
	good := AppendRequest(nil, BSON, requests()[0])
	for n := range len(good) {
		if _, err := DecodeRequest(BSON, good[:n]); err == nil {
			t.Errorf("%d of %d bytes were read", n, len(good))
		}
	}
	query, _ := bson.Marshal(bson.D{{Key: "type", Value: "ledger_query"}, {Key: "id", Value: "1"}, {Key: "filter_by", Value: "seq_no"},
		{Key: "params", Value: bson.D{{Key: "seq_no", Value: int32(7)}}}, {Key: "include", Value: bson.A{"inputs"}}})
	r, err := DecodeRequest(BSON, query)
	if err != nil || r.SeqNo != 7 || !r.IncludeInputs || r.IncludeOutputs {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestContainer(t *testing.T) {
	c := Container{[]byte("hi"), 1234567890123, 14}
	text := AppendContainer(nil, JSON, c)
	if string(text) != `{"input":"hi","nonce":1234567890123,"max_ledger_seq_no":14}` {
		t.Errorf("container %s", text)
	}
	sig := testKey(t, 0x2a).Sign(text)
	if h := digest.Sum(sig[:]); h.String() != "f4f47e5224b8ef2c995f57fbcaf787eab13a66f9fc6de3991964169f87e5bb1a" {
		t.Errorf("input hash %s", h)
	}
	for p, q := range map[Protocol]inputs.Protocol{JSON: inputs.JSON, BSON: inputs.BSON} {
		got, err := inputs.Parse(q, AppendContainer(nil, p, c))
		if err != nil || string(got.Payload) != "hi" || got.Nonce != c.Nonce || got.MaxLedger != c.MaxLedgerNo {
			t.Errorf("%s: %+v, %v", p, got, err)
		}
	}
}

func TestNothingAliasesTheMessage(t *testing.T) {
	for _, p := range []Protocol{JSON, BSON} {
		for _, want := range requests() {
			data := AppendRequest(nil, p, want)
			got, err := DecodeRequest(p, data)
			if err != nil {
				t.Fatal(err)
			}
			clear(data)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s changed with the message", p, want.Type)
			}
		}
	}
}
