package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"evernode/xahau"
	"evernode/xahau/standalone"
)

// peer is a bare WebSocket client.
type peer struct {
	gws.BuiltinEventHandler
	t        *testing.T
	conn     *gws.Conn
	messages chan map[string]any
	closed   chan error
}

func (p *peer) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	var o map[string]any
	if err := json.Unmarshal(m.Bytes(), &o); err != nil {
		p.t.Errorf("%s: %v", m.Bytes(), err)
	}
	p.messages <- o
}

func (p *peer) OnClose(_ *gws.Conn, err error) { p.closed <- err }

func (w *world) dial() *peer {
	w.t.Helper()
	p := &peer{t: w.t, messages: make(chan map[string]any, 1000), closed: make(chan error, 1)}
	conn, _, err := gws.NewClient(p, &gws.ClientOption{Addr: w.socketURL()})
	if err != nil {
		w.t.Fatal(err)
	}
	p.conn = conn
	go conn.ReadLoop()
	w.t.Cleanup(func() { conn.NetConn().Close() })
	return p
}

func (p *peer) next() map[string]any {
	p.t.Helper()
	select {
	case m := <-p.messages:
		return m
	case <-time.After(20 * time.Second):
		p.t.Fatal("no message")
		return nil
	}
}

func (p *peer) ask(request string) map[string]any {
	p.t.Helper()
	if err := p.conn.WriteMessage(gws.OpcodeText, []byte(request)); err != nil {
		p.t.Fatal(err)
	}
	return p.next()
}

// Every bad request gets the refusal of the network's servers, over both transports.
func TestRefusals(t *testing.T) {
	w := newWorld(t, Config{})
	p := w.dial()
	root := master(t).Account().String()
	for request, name := range map[string]string{
		`{"command":"dance"}`:                        "unknownCmd",
		`{}`:                                         "commandMissing",
		`{"command":7}`:                              "commandMissing",
		`{"command":"ping","api_version":3}`:         "invalid_API_version",
		`{"command":"account_info"}`:                 "invalidParams",
		`{"command":"account_info","account":7}`:     "invalidParams",
		`{"command":"account_info","account":"bob"}`: "actMalformed",
		`{"command":"account_info","account":"rrrrrrrrrrrrrrrrrrrrBZbvji"}`:                                  "actNotFound",
		`{"command":"account_info","account":"` + root + `","ledger_index":"soon"}`:                          "invalidParams",
		`{"command":"account_info","account":"` + root + `","ledger_index":77}`:                              "lgrNotFound",
		`{"command":"account_info","account":"` + root + `","ledger_hash":"77"}`:                             "invalidParams",
		`{"command":"account_info","account":"` + root + `","signer_lists":"yes"}`:                           "invalidParams",
		`{"command":"account_lines","account":"` + root + `","limit":-1}`:                                    "invalidParams",
		`{"command":"account_lines","account":"` + root + `","limit":"9"}`:                                   "invalidParams",
		`{"command":"account_lines","account":"` + root + `","peer":"bob"}`:                                  "actMalformed",
		`{"command":"account_lines","account":"` + root + `","marker":"x"}`:                                  "invalidParams",
		`{"command":"account_objects","account":"` + root + `","type":"cat"}`:                                "invalidParams",
		`{"command":"account_objects","account":"` + root + `","marker":{"a":1}}`:                            "invalidParams",
		`{"command":"account_namespace","account":"` + root + `"}`:                                           "invalidParams",
		`{"command":"account_namespace","account":"` + root + `","namespace_id":"` + repeat("AB", 32) + `"}`: "namespaceNotFound",
		`{"command":"account_tx","account":"` + root + `","ledger_index_min":50}`:                            "lgrIdxsInvalid",
		`{"command":"account_tx","account":"` + root + `","ledger_index_min":50,"api_version":2}`:            "invalidLgrRange",
		`{"command":"account_tx","account":"` + root + `","marker":7}`:                                       "invalidParams",
		`{"command":"tx"}`:                                          "invalidParams",
		`{"command":"tx","transaction":"short"}`:                    "notImpl",
		`{"command":"tx","transaction":"` + repeat("AB", 32) + `"}`: "txnNotFound",
		`{"command":"tx","transaction":"` + repeat("AB", 32) + `","min_ledger":5,"max_ledger":1}`:    "invalidLgrRange",
		`{"command":"tx","transaction":"` + repeat("AB", 32) + `","min_ledger":1,"max_ledger":5000}`: "excessiveLgrRange",
		`{"command":"ledger","full":true}`:                                       "noPermission",
		`{"command":"ledger_data","marker":"zz"}`:                                "invalidParams",
		`{"command":"ledger_entry"}`:                                             "malformedRequest",
		`{"command":"ledger_entry","index":"zz"}`:                                "malformedRequest",
		`{"command":"ledger_entry","account_root":"bob"}`:                        "malformedAddress",
		`{"command":"ledger_entry","check":"` + repeat("AB", 32) + `"}`:          "entryNotFound",
		`{"command":"ledger_entry","offer":{"account":"` + root + `"}}`:          "malformedRequest",
		`{"command":"ledger_entry","offer":{"account":"` + root + `","seq":-1}}`: "malformedRequest",
		`{"command":"ledger_entry","ripple_state":{"accounts":["` + root + `","rrrrrrrrrrrrrrrrrrrrBZbvji"],"currency":"TOOLONG"}}`:     "malformedCurrency",
		`{"command":"book_offers","taker_pays":{"currency":"XAH"},"taker_gets":{"currency":"XAH"}}`:                                     "badMarket",
		`{"command":"book_offers","taker_pays":{"currency":"USD"},"taker_gets":{"currency":"XAH"}}`:                                     "srcIsrMalformed",
		`{"command":"book_offers","taker_pays":{"currency":"XAH"},"taker_gets":{"currency":"U","issuer":"rrrrrrrrrrrrrrrrrrrrBZbvji"}}`: "dstAmtMalformed",
		`{"command":"fee","tx_blob":"zz"}`:                                   "invalidParams",
		`{"command":"fee","tx_blob":"1200"}`:                                 "invalidTransaction",
		`{"command":"submit"}`:                                               "invalidParams",
		`{"command":"submit","tx_blob":"DEADBEEF"}`:                          "invalidTransaction",
		`{"command":"submit","secret":"x","tx_json":{}}`:                     "notSupported",
		`{"command":"sign"}`:                                                 "notSupported",
		`{"command":"submit_multisigned"}`:                                   "invalidParams",
		`{"command":"submit_multisigned","tx_json":{"TransactionType":"x"}}`: "invalidTransaction",
		`{"command":"subscribe","streams":["cats"]}`:                         "malformedStream",
		`{"command":"subscribe","streams":"ledger"}`:                         "invalidParams",
		`{"command":"subscribe","accounts":[]}`:                              "actMalformed",
		`{"command":"subscribe","accounts":["bob"]}`:                         "actMalformed",
		`{"command":"subscribe","books":[]}`:                                 "notSupported",
		`{"command":"wallet_propose","key_type":"rsa"}`:                      "badKeyType",
		`{"command":"wallet_propose","seed":"sx"}`:                           "badSeed",
		`{"command":"wallet_propose","seed":"sx","secret":"y"}`:              "invalidParams",
	} {
		m := p.ask(request)
		if m["error"] != name || m["status"] != "error" || m["type"] != "response" {
			t.Errorf("%s: %v, want %s", request, m, name)
		}
		var q map[string]any
		if err := json.Unmarshal([]byte(request), &q); err != nil {
			t.Fatal(err)
		}
		if command, ok := q["command"].(string); ok && command != "subscribe" {
			delete(q, "command")
			if r := w.rpc(command, q); r["error"] != name || r["status"] != "error" {
				t.Errorf("%s over HTTP: %v, want %s", request, r, name)
			}
		}
	}
	if r := w.rpc("subscribe", map[string]any{"streams": []any{"ledger"}}); r["error"] != "noEvents" {
		t.Errorf("subscribe over HTTP: %v", r)
	}
	for _, text := range []string{"", "x", "[]", "7", "null", `{"command":`} {
		if m := p.ask(text); m["error"] != "jsonInvalid" {
			t.Errorf("%q: %v", text, m)
		}
	}
	m := p.ask(`{"command":"wallet_propose","seed":"mine","id":"x"}`)
	if b, _ := json.Marshal(m); bytes.Contains(b, []byte("mine")) || m["id"] != "x" {
		t.Errorf("the answer repeats a secret: %s", b)
	}
}

func repeat(s string, n int) string { return strings.Repeat(s, n) }

func TestHTTP(t *testing.T) {
	w := newWorld(t, Config{MaxRequest: 2000})
	for _, c := range []struct {
		method, body string
		status       int
	}{
		{"POST", `{"method":"ping","params":[{}]}`, 200}, {"POST", `{"method":"ping"}`, 200}, {"POST", `x`, 400}, {"POST", `{}`, 400},
		{"POST", `{"method":"ping","params":[{},{}]}`, 400}, {"POST", `{"method":"ping","params":[7]}`, 400},
		{"POST", `{"method":"` + repeat("x", 3000) + `"}`, 413}, {"PUT", ``, 405}, {"GET", ``, 200}, {"OPTIONS", ``, 204},
	} {
		q, err := http.NewRequest(c.method, w.http.URL, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != c.status {
			t.Errorf("%s %.40s: %d, want %d: %s", c.method, c.body, r.StatusCode, c.status, text)
		}
	}
	// Over WebSocket, a request that is too long ends the connection.
	p := w.dial()
	if err := p.conn.WriteMessage(gws.OpcodeText, []byte(`{"command":"ping","x":"`+repeat("x", 3000)+`"}`)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.closed:
	case <-time.After(20 * time.Second):
		t.Error("the connection stays")
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t, Config{Accounts: 2, Rate: 1, Burst: 4, Connections: 1})
	p := w.dial()
	address := func(name string) string { return key(name).Account().String() }
	m := p.ask(fmt.Sprintf(`{"command":"subscribe","accounts":[%q,%q]}`, address("a"), address("b")))
	if m["status"] != "success" {
		t.Fatal(m)
	}
	if m = p.ask(fmt.Sprintf(`{"command":"subscribe","accounts":[%q,%q]}`, address("a"), address("b"))); m["status"] != "success" {
		t.Error(m)
	}
	if m = p.ask(fmt.Sprintf(`{"command":"subscribe","accounts":[%q]}`, address("c"))); m["error"] != "invalidParams" {
		t.Error(m)
	}
	p.ask(`{"command":"ping"}`)
	if m = p.ask(`{"command":"ping"}`); m["error"] != "slowDown" {
		t.Error(m)
	}
	if _, _, err := gws.NewClient(&peer{t: t}, &gws.ClientOption{Addr: w.socketURL()}); err == nil {
		t.Error("a connection too many")
	}
}

// Subscribers of accounts hear of every transaction that affects one of them: the
// seller of a token, too, whom the buyer's transaction does not name.
func TestAffectedAccounts(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.client()
	seller, buyer := key("seller"), key("buyer")
	w.fund(c, seller.Account(), buyer.Account())
	if result, _ := w.send(c, xahau.URITokenMint(seller.Account(), []byte("lease"), 0), seller); result != "tesSUCCESS" {
		t.Fatal(result)
	}
	objects := w.rpc("account_objects", map[string]any{"account": seller.Account().String(), "type": "uri_token", "ledger_index": "validated"})
	token := objects["account_objects"].([]any)[0].(map[string]any)["index"].(string)
	id, err := xahau.ParseHash256(token)
	if err != nil {
		t.Fatal(err)
	}
	if result, _ := w.send(c, xahau.URITokenCreateSellOffer(seller.Account(), id, xahau.Drops(5_000_000), nil), seller); result != "tesSUCCESS" {
		t.Fatal(result)
	}
	p := w.dial()
	if m := p.ask(fmt.Sprintf(`{"command":"subscribe","streams":["ledger"],"accounts":[%q]}`, seller.Account())); m["status"] != "success" {
		t.Fatal(m)
	}
	result, hash := w.send(c, xahau.URITokenBuy(buyer.Account(), id, xahau.Drops(5_000_000)), buyer)
	if result != "tesSUCCESS" {
		t.Fatal(result)
	}
	closed, tx := p.next(), p.next()
	if closed["type"] != "ledgerClosed" || closed["txn_count"] != 1.0 {
		t.Errorf("%v", closed)
	}
	shown, _ := tx["transaction"].(map[string]any)
	meta, _ := tx["meta"].(map[string]any)
	if tx["type"] != "transaction" || tx["validated"] != true || tx["engine_result"] != "tesSUCCESS" || shown["hash"] != hash.String() ||
		tx["ledger_index"] != closed["ledger_index"] || tx["ledger_hash"] != closed["ledger_hash"] || meta["TransactionResult"] != "tesSUCCESS" ||
		shown["date"] == nil {
		t.Errorf("%v", tx)
	}
	// The ledger before shows who had it: the way hosts find the seller.
	before := closed["ledger_index"].(float64) - 1
	objects = w.rpc("account_objects", map[string]any{"account": seller.Account().String(), "ledger_index": before})
	if list := objects["account_objects"].([]any); len(list) != 1 || list[0].(map[string]any)["index"] != token {
		t.Errorf("the ledger before: %v", objects)
	}
	objects = w.rpc("account_objects", map[string]any{"account": seller.Account().String(), "ledger_index": "validated"})
	if list := objects["account_objects"].([]any); len(list) != 0 {
		t.Errorf("now: %v", objects)
	}
}

// Lists of entries go on behind a marker, and give each entry once.
func TestMarkers(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.client()
	alice := key("alice")
	w.fund(c, alice.Account())
	const tickets = 75
	if result, _ := w.send(c, xahau.TicketCreate(alice.Account(), tickets), alice); result != "tesSUCCESS" {
		t.Fatal(result)
	}
	seen := map[string]bool{}
	q := map[string]any{"account": alice.Account().String(), "limit": 10, "ledger_index": "validated"}
	for pages := 0; ; pages++ {
		r := w.rpc("account_objects", q)
		list, _ := r["account_objects"].([]any)
		if len(list) > 10 || pages > 8 {
			t.Fatalf("page %d has %d entries", pages, len(list))
		}
		for _, e := range list {
			index := e.(map[string]any)["index"].(string)
			if seen[index] {
				t.Fatalf("%s is there twice", index)
			}
			seen[index] = true
		}
		if q["marker"] = r["marker"]; r["marker"] == nil {
			break
		}
	}
	if len(seen) != tickets {
		t.Errorf("%d entries, want %d", len(seen), tickets)
	}
	// All entries of the state, in both forms.
	for _, binary := range []bool{false, true} {
		n := 0
		q := map[string]any{"ledger_index": "validated", "limit": 7, "binary": binary}
		for {
			r := w.rpc("ledger_data", q)
			list, ok := r["state"].([]any)
			if !ok || len(list) == 0 {
				t.Fatal(r)
			}
			n += len(list)
			if q["marker"] = r["marker"]; r["marker"] == nil {
				break
			}
		}
		_, state, err := w.node.State(w.node.Validated())
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, err := range state.All() {
			if err != nil {
				t.Fatal(err)
			}
			want++
		}
		if n != want {
			t.Errorf("%d entries, want %d", n, want)
		}
	}
}

// No request makes the server fail, whatever it says.
func FuzzRequest(f *testing.F) {
	for _, command := range []string{"account_info", "ledger_entry", "account_tx", "book_offers", "submit_multisigned", "subscribe", "fee", "tx", "wallet_propose", "ledger"} {
		f.Add([]byte(`{"command":"` + command + `","account":"rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh","ledger_index":"validated","marker":{"ledger":1,"seq":0}}`))
	}
	f.Add([]byte(`{"command":"ledger_entry","offer":{"account":"rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh","seq":1}}`))
	f.Add([]byte(`{"command":"book_offers","taker_pays":{"currency":"XAH"},"taker_gets":{"currency":"USD","issuer":"rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"}}`))
	f.Add([]byte(`{"command":"submit_multisigned","tx_json":{"TransactionType":"Payment","Signers":[{"Signer":{}}],"SigningPubKey":"","Fee":"1","Sequence":1}}`))
	node, err := standalone.Open(f.Context(), standalone.Config{})
	if err != nil {
		f.Fatal(err)
	}
	s, err := New(node, Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		s.Close()
		if err := node.Close(context.Background()); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, message []byte) {
		var p params
		if json.Unmarshal(message, &p) != nil {
			return
		}
		command, _ := p.text("command")
		result, _, refusal := s.do(t.Context(), nil, command, p)
		if (result == nil) == (refusal == nil) || refusal == errInternal {
			t.Fatalf("%s: %v, %v", message, result, refusal)
		}
		if _, err := json.Marshal(result); err != nil {
			t.Fatal(err)
		}
	})
}
