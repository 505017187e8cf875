package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/usermsg"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func mustBSON(t *testing.T, d bson.D) []byte {
	t.Helper()
	b, err := bson.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The table of spec/hotpocket.md section 1.6: which bad message gets what.
func TestBadMessages(t *testing.T) {
	sig := bytes.Repeat([]byte{7}, 64)
	sigHash := digest.Sum(sig)
	noSig := digest.Sum()
	unknown := digest.Hash{}
	type c struct {
		name   string
		json   string
		bson   bson.D
		reason inputs.Reason // "" for no reply
		hash   digest.Hash
		good   bool // not a bad message
	}
	bin := bson.Binary{Data: sig}
	cases := []c{
		{name: "no document", json: "\x00garbage", reason: inputs.BadFormat, hash: unknown},
		{name: "no type", json: `{"x":1}`, bson: bson.D{{Key: "x", Value: 1}}, reason: inputs.BadFormat, hash: unknown},
		{name: "type is no string", json: `{"type":1}`, bson: bson.D{{Key: "type", Value: 1}}, reason: inputs.BadFormat, hash: unknown},
		{name: "unknown type", json: `{"type":"hello"}`, bson: bson.D{{Key: "type", Value: "hello"}}, reason: inputs.InvalidType, hash: unknown},
		{name: "handshake again", json: `{"type":"user_challenge_response"}`, bson: bson.D{{Key: "type", Value: "user_challenge_response"}}, reason: inputs.InvalidType, hash: unknown},
		{name: "input without all", json: `{"type":"contract_input"}`, bson: bson.D{{Key: "type", Value: "contract_input"}}, reason: inputs.BadFormat, hash: noSig},
		{name: "input without container", json: `{"type":"contract_input","sig":"` + fmt.Sprintf("%x", sig) + `"}`,
			bson: bson.D{{Key: "type", Value: "contract_input"}, {Key: "sig", Value: bin}}, reason: inputs.BadFormat, hash: sigHash},
		{name: "input with another container", json: `{"type":"contract_input","input_container":{},"sig":"` + fmt.Sprintf("%x", sig) + `"}`,
			bson: bson.D{{Key: "type", Value: "contract_input"}, {Key: "input_container", Value: "text"}, {Key: "sig", Value: bin}}, reason: inputs.BadFormat, hash: sigHash},
		{name: "input with another sig", json: `{"type":"contract_input","input_container":"{}","sig":"xx"}`,
			bson: bson.D{{Key: "type", Value: "contract_input"}, {Key: "input_container", Value: bin}, {Key: "sig", Value: "text"}}, reason: inputs.BadFormat, hash: noSig},
		{name: "input with a short sig", json: `{"type":"contract_input","input_container":"{}","sig":"` + fmt.Sprintf("%x", sig[:10]) + `"}`,
			bson: bson.D{{Key: "type", Value: "contract_input"}, {Key: "input_container", Value: bin}, {Key: "sig", Value: bson.Binary{Data: sig[:10]}}}, reason: inputs.BadSignature, hash: digest.Sum(sig[:10])},
		{name: "read without id", json: `{"type":"contract_read_request","content":"x"}`,
			bson: bson.D{{Key: "type", Value: "contract_read_request"}, {Key: "content", Value: bin}}, reason: inputs.BadFormat, hash: unknown},
		{name: "read with other content", json: `{"type":"contract_read_request","id":"1","content":1}`,
			bson: bson.D{{Key: "type", Value: "contract_read_request"}, {Key: "id", Value: "1"}, {Key: "content", Value: "text"}}, reason: inputs.BadFormat, hash: unknown},
		{name: "subscription to nothing", json: `{"type":"subscription","channel":"x","enabled":true}`,
			bson: bson.D{{Key: "type", Value: "subscription"}, {Key: "channel", Value: "x"}, {Key: "enabled", Value: true}}},
		{name: "subscription of no kind", json: `{"type":"subscription","channel":"unl_change"}`, bson: bson.D{{Key: "type", Value: "subscription"}, {Key: "channel", Value: "unl_change"}}},
		{name: "query without id", json: `{"type":"ledger_query","filter_by":"seq_no","params":{"seq_no":1},"include":[]}`,
			bson: bson.D{{Key: "type", Value: "ledger_query"}, {Key: "filter_by", Value: "seq_no"}, {Key: "params", Value: bson.D{{Key: "seq_no", Value: 1}}}, {Key: "include", Value: bson.A{}}}},
		{name: "query by another", json: `{"type":"ledger_query","id":"1","filter_by":"hash","params":{"seq_no":1},"include":[]}`,
			bson: bson.D{{Key: "type", Value: "ledger_query"}, {Key: "id", Value: "1"}, {Key: "filter_by", Value: "hash"}, {Key: "params", Value: bson.D{{Key: "seq_no", Value: 1}}}, {Key: "include", Value: bson.A{}}}},
		{name: "extra field", json: `{"type":"subscription","channel":"unl_change","enabled":false,"more":[1,{}]}`,
			bson: bson.D{{Key: "type", Value: "subscription"}, {Key: "channel", Value: "unl_change"}, {Key: "enabled", Value: false}, {Key: "more", Value: bson.A{1}}}, good: true},
	}
	s := start(t)
	for _, p := range []usermsg.Protocol{usermsg.JSON, usermsg.BSON} {
		u := s.connect(t, byte(0x2a+p), p)
		for _, c := range cases {
			t.Run(p.String()+" "+c.name, func(t *testing.T) {
				u.t = t
				before := s.Counters().BadMessages
				data := []byte(c.json)
				if p == usermsg.BSON {
					data = []byte(c.json)
					if c.bson != nil {
						data = mustBSON(t, c.bson)
					}
				}
				u.write(data)
				if c.reason != "" {
					want := &usermsg.InputStatus{Reason: string(c.reason), InputHash: c.hash}
					if got := get[*usermsg.InputStatus](u); !reflect.DeepEqual(got, want) {
						t.Errorf("got %+v, want %+v", got, want)
					}
				}
				u.sync()
				want := uint64(1)
				if c.good {
					want = 0
				}
				if n := s.Counters().BadMessages - before; n != want {
					t.Errorf("%d bad messages were counted", n)
				}
			})
		}
	}
}

// Whatever the node says against an input gets to the user under the input's
// hash.
func TestRejections(t *testing.T) {
	s := start(t)
	for _, p := range []usermsg.Protocol{usermsg.JSON, usermsg.BSON} {
		u := s.connect(t, byte(0x2a+p), p)
		for i, reason := range []inputs.Reason{inputs.BadFormat, inputs.BadSignature, inputs.Expired, inputs.OffsetExceeded, inputs.NonceExpired, inputs.AlreadySubmitted, inputs.InputsOverflow} {
			in := container(u, "x", uint64(i+1))
			want := &usermsg.InputStatus{Reason: string(reason), InputHash: digest.Sum(in.Sig)}

			s.node.mu.Lock()
			s.node.reason = reason
			s.node.mu.Unlock()
			bad := s.Counters().BadMessages
			u.request(in)
			if got := get[*usermsg.InputStatus](u); !reflect.DeepEqual(got, want) {
				t.Errorf("at once: got %+v, want %+v", got, want)
			}
			u.sync()
			counts := reason == inputs.BadFormat || reason == inputs.BadSignature
			if got := s.Counters().BadMessages > bad; got != counts {
				t.Errorf("%s counts as a bad message: %v", reason, got)
			}

			s.node.mu.Lock()
			s.node.reason = inputs.None
			s.node.mu.Unlock()
			u.request(in)
			sub := <-s.node.submitted
			s.Rejected(sub.User, sub.Hash(), reason)
			if got := get[*usermsg.InputStatus](u); !reflect.DeepEqual(got, want) {
				t.Errorf("later: got %+v, want %+v", got, want)
			}
		}
	}
	// For those who are not here it is a matter of nothing.
	s.Rejected(testKey(t, 99).Public(), hashOf(1), inputs.BadSignature)
}

func TestReadRequests(t *testing.T) {
	s := start(t)
	s.node.read = func(_ context.Context, user key.Public, content []byte) ([][]byte, error) {
		switch string(content) {
		case "fail":
			return nil, errors.New("contract failed")
		case "none":
			return nil, nil
		}
		return [][]byte{user[:], []byte(`{"json":true}`)}, nil
	}
	u := s.connect(t, 0x2a, usermsg.BSON)
	for _, content := range []string{"fail", "none", "two"} {
		u.request(usermsg.Request{Type: usermsg.RequestRead, ID: content, Content: []byte(content)})
	}
	// Each output is a response of its own, and only those are.
	for _, want := range [][]byte{u.key.Public().Ed25519(), []byte(`{"json":true}`)} {
		if m := get[*usermsg.ReadResponse](u); m.ReplyFor != "two" || !bytes.HasSuffix(m.Content, want) {
			t.Errorf("response %+v", m)
		}
	}
	u.sync()
	if c := s.Counters(); c.Reads != 3 || c.BadMessages != 0 {
		t.Errorf("counters %+v", c)
	}
	eventually(t, "the failure to be counted", func() bool { return s.Counters().ReadsFailed == 1 })
}

func TestReadRequestsDisabled(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.ConcurrentReads = 0 })
	u := s.connect(t, 0x2a, usermsg.JSON)
	u.request(usermsg.Request{Type: usermsg.RequestRead, ID: "1", Content: []byte("x")})
	u.sync()
	if c := s.Counters(); c.ReadsIgnored != 1 || c.Reads != 0 || c.BadMessages != 0 {
		t.Errorf("counters %+v", c)
	}
}

// Never more read requests run than allowed, users take turns, and however many
// a user sends, none is lost.
func TestReadQueue(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.ConcurrentReads = 2 })
	entered, proceed := make(chan string, 1000), make(chan struct{})
	s.node.read = func(ctx context.Context, user key.Public, content []byte) ([][]byte, error) {
		entered <- user.Short()
		<-proceed
		return [][]byte{content}, nil
	}
	greedy, modest := s.connect(t, 3, usermsg.JSON), s.connect(t, 4, usermsg.JSON)
	const many = 3 * maxReadsOfUser
	for i := range many {
		greedy.request(usermsg.Request{Type: usermsg.RequestRead, ID: fmt.Sprint(i), Content: []byte("x")})
	}
	eventually(t, "the greedy user's share to be used up", func() bool {
		s.reads.mu.Lock()
		defer s.reads.mu.Unlock()
		return s.reads.waiting == maxReadsOfUser-2 && s.reads.running == 2
	})
	modest.request(usermsg.Request{Type: usermsg.RequestRead, ID: "m", Content: []byte("x")})
	eventually(t, "the modest user's request", func() bool {
		s.reads.mu.Lock()
		defer s.reads.mu.Unlock()
		return len(s.reads.turn) == 2
	})
	for range 2 {
		if who := <-entered; who != greedy.key.Public().Short() {
			t.Errorf("%s came first", who)
		}
	}
	if len(entered) > 0 {
		t.Error("more than two run at once")
	}
	// The modest user comes second although dozens were there before.
	turns := map[string]int{}
	for range 2 {
		proceed <- struct{}{}
		turns[<-entered]++
	}
	if turns[modest.key.Public().Short()] != 1 {
		t.Errorf("turns %v", turns)
	}
	close(proceed)
	if m := get[*usermsg.ReadResponse](modest); m.ReplyFor != "m" {
		t.Errorf("response %+v", m)
	}
	seen := map[string]bool{}
	for range many {
		seen[get[*usermsg.ReadResponse](greedy).ReplyFor] = true
	}
	if len(seen) != many {
		t.Errorf("%d of %d read requests were answered", len(seen), many)
	}
}

// A user who leaves takes waiting and running read requests along.
func TestReadsOfAUserWhoLeaves(t *testing.T) {
	s := start(t, func(c *Config) { c.Limits.ConcurrentReads = 1 })
	entered, left := make(chan struct{}, 1000), make(chan struct{}, 1000)
	s.node.read = func(ctx context.Context, _ key.Public, _ []byte) ([][]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		left <- struct{}{}
		return nil, ctx.Err()
	}
	u := s.connect(t, 3, usermsg.JSON)
	for range maxReadsOfUser {
		u.request(usermsg.Request{Type: usermsg.RequestRead, ID: "1", Content: []byte("x")})
	}
	eventually(t, "all requests to be there", func() bool {
		s.reads.mu.Lock()
		defer s.reads.mu.Unlock()
		return s.reads.waiting == maxReadsOfUser-1
	})
	<-entered
	u.ws.NetConn().Close()
	<-left
	eventually(t, "the queue to be empty", func() bool {
		s.reads.mu.Lock()
		defer s.reads.mu.Unlock()
		return s.reads.waiting == 0 && s.reads.running == 0 && s.reads.bytes == 0 && len(s.reads.turn) == 0
	})
	if len(entered) > 0 {
		t.Error("another request was run")
	}
}

func TestLedgerQueries(t *testing.T) {
	private := false
	s := start(t, func(c *Config) { c.Private = func() bool { return private } })
	me, other := testKey(t, 0x2a).Public(), testKey(t, 3).Public()
	rec := usermsg.LedgerRecord{SeqNo: 5, Hash: hashOf(5),
		Inputs:  []usermsg.LedgerInput{{Public: me, Hash: hashOf(1), Nonce: 1, Blob: []byte("mine")}, {Public: other, Hash: hashOf(2), Nonce: 2, Blob: []byte("other's")}},
		Outputs: []usermsg.LedgerOutput{{Public: me, Hash: hashOf(3), Blobs: [][]byte{[]byte("m")}}, {Public: other, Hash: hashOf(4), Blobs: [][]byte{[]byte("o"), []byte("o")}}}}
	s.node.query = func(q Query) ([]usermsg.LedgerRecord, error) {
		switch q.SeqNo {
		case 5:
			return []usermsg.LedgerRecord{rec}, nil
		case 6:
			return []usermsg.LedgerRecord{{SeqNo: 6}}, nil
		case 7:
			return nil, errors.New("disk is gone")
		}
		return nil, nil
	}
	for _, p := range []usermsg.Protocol{usermsg.JSON, usermsg.BSON} {
		u := s.connect(t, 0x2a, p)
		ask := func(seq uint64, in, out bool) *usermsg.QueryResult {
			u.request(usermsg.Request{Type: usermsg.RequestLedgerQuery, ID: "q", SeqNo: seq, IncludeInputs: in, IncludeOutputs: out})
			m := get[*usermsg.QueryResult](u)
			if m.ReplyFor != "q" {
				t.Errorf("result %+v", m)
			}
			return m
		}
		private = false
		if m := ask(5, false, false); m.Error != "" || len(m.Results) != 1 || m.Results[0].Inputs != nil || m.Results[0].Outputs != nil || m.Results[0].Hash != hashOf(5) {
			t.Errorf("result %+v", m)
		}
		if m := ask(5, true, true); !reflect.DeepEqual(m.Results[0], rec) {
			t.Errorf("result %+v", m)
		}
		private = true
		if m := ask(5, true, true); string(m.Results[0].Inputs[0].Blob) != "mine" || len(m.Results[0].Inputs[1].Blob) != 0 || m.Results[0].Inputs[1].Hash != hashOf(2) ||
			string(m.Results[0].Outputs[0].Blobs[0]) != "m" || len(m.Results[0].Outputs[1].Blobs) != 2 || len(m.Results[0].Outputs[1].Blobs[0]) != 0 {
			t.Errorf("private result %+v", m)
		}
		if string(rec.Inputs[1].Blob) != "other's" {
			t.Fatal("the node's record was changed")
		}
		// A ledger whose inputs are not kept.
		if m := ask(6, true, true); m.Error != "" || m.Results[0].Inputs == nil || m.Results[0].Outputs == nil {
			t.Errorf("result %+v", m)
		}
		if m := ask(7, false, false); m.Error != usermsg.ErrorExecFailure || len(m.Results) != 0 {
			t.Errorf("result %+v", m)
		}
		if m := ask(1234, false, false); m.Error != "" || len(m.Results) != 0 {
			t.Errorf("result %+v", m)
		}
		if m := ask(1234, true, false); m.Error != usermsg.ErrorExecFailure || len(m.Results) != 0 {
			t.Errorf("result %+v", m)
		}
	}
}

func TestSubscriptions(t *testing.T) {
	events := []usermsg.Message{
		&usermsg.UNLChange{UNL: []key.Public{testKey(t, 1).Public()}},
		&usermsg.LedgerCreated{Ledger: usermsg.LedgerRecord{SeqNo: 3}},
		&usermsg.VoteStatus{Status: usermsg.VoteSynced},
		&usermsg.ProposalHealth{CommLatency: usermsg.Latency{Min: 1, Max: 2, Avg: 3}, BatchSize: 4},
		&usermsg.Connectivity{PeerCount: 5, WeaklyConnected: true},
	}
	channel := []usermsg.Channel{usermsg.ChannelUNLChange, usermsg.ChannelLedgerEvent, usermsg.ChannelLedgerEvent, usermsg.ChannelHealthEvent, usermsg.ChannelHealthEvent}
	s := start(t)
	for _, p := range []usermsg.Protocol{usermsg.JSON, usermsg.BSON} {
		u := s.connect(t, 0x2a, p)
		for _, ch := range []usermsg.Channel{usermsg.ChannelUNLChange, usermsg.ChannelLedgerEvent, usermsg.ChannelHealthEvent} {
			for _, on := range []bool{false, true} {
				u.request(usermsg.Request{Type: usermsg.RequestSubscription, Channel: ch, Enabled: on})
				u.sync()
				// Another status in between, so that it is a change.
				if err := s.Publish(&usermsg.VoteStatus{Status: usermsg.VoteDesync}); err != nil {
					t.Fatal(err)
				}
				if on && ch == usermsg.ChannelLedgerEvent {
					get[*usermsg.VoteStatus](u)
				}
				for i, e := range events {
					if err := s.Publish(e); err != nil {
						t.Fatal(err)
					}
					if on && channel[i] == ch {
						if got := u.message(); !reflect.DeepEqual(got, e) {
							t.Errorf("got %+v, want %+v", got, e)
						}
					}
				}
				u.sync()
			}
			u.request(usermsg.Request{Type: usermsg.RequestSubscription, Channel: ch, Enabled: false})
		}
	}
	u := s.connect(t, 3, usermsg.JSON)
	u.request(usermsg.Request{Type: usermsg.RequestSubscription, Channel: usermsg.ChannelLedgerEvent, Enabled: true})
	u.sync()
	for _, status := range []string{usermsg.VoteDesync, usermsg.VoteDesync, usermsg.VoteSynced} {
		if err := s.Publish(&usermsg.VoteStatus{Status: status}); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{usermsg.VoteDesync, usermsg.VoteSynced} {
		if got := get[*usermsg.VoteStatus](u); got.Status != want {
			t.Errorf("status %s, want %s", got.Status, want)
		}
	}
	u.sync()
	if err := s.Publish(&usermsg.LCL{}); err == nil {
		t.Error("a reply was published as an event")
	}
}
