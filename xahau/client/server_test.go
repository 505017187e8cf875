package client

import (
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"

	"github.com/lxzan/gws"
)

// network is a ledger that lets tests say what happens; servers show it to
// clients.
type network struct {
	defs *xahau.Definitions

	mu      sync.Mutex
	ledgers [][]*xahau.Signed // from 1 on, at index 0 the first
	open    []*xahau.Signed   // for the next ledger
	// accept tells what becomes of a submitted transaction; default into the next
	// ledger with tesSUCCESS.
	accept  func(*xahau.Signed) (result string, in bool)
	results map[xahau.Hash256]string
	// submitted counts how often each was sent.
	submitted map[xahau.Hash256]int
	servers   []*fakeServer
}

func newNetwork() *network {
	return &network{defs: xahau.DefaultDefinitions(), ledgers: make([][]*xahau.Signed, 10), results: map[xahau.Hash256]string{}, submitted: map[xahau.Hash256]int{}}
}

func (n *network) tip() uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return uint32(len(n.ledgers))
}

// close ends the open ledger and announces it.
func (n *network) close() uint32 {
	n.mu.Lock()
	txs := n.open
	n.open = nil
	n.ledgers = append(n.ledgers, txs)
	index := uint32(len(n.ledgers))
	servers := n.servers
	n.mu.Unlock()
	for _, s := range servers {
		s.announce(index, txs)
	}
	return index
}

// put adds a transaction to the open ledger.
func (n *network) put(s *xahau.Signed) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = append(n.open, s)
}

func hashOf(index uint32) xahau.Hash256 { return xahau.Sha512Half([]byte(strconv.Itoa(int(index)))) }

// show gives a transaction as servers do. The lock is held.
func (n *network) show(s *xahau.Signed, ledger uint32, place int) (tx, meta map[string]any) {
	tx, err := n.defs.Map(s.Tx)
	if err != nil {
		panic(err)
	}
	tx["hash"], tx["ledger_index"], tx["date"] = s.ID.String(), ledger, 700_000_000+ledger
	result := n.results[s.ID]
	if result == "" {
		result = "tesSUCCESS"
	}
	meta = map[string]any{
		"TransactionResult": result, "TransactionIndex": place, "delivered_amount": "1",
		"AffectedNodes": []any{}, "HookExecutions": []any{map[string]any{"HookExecution": map[string]any{
			"HookResult": 3, "HookReturnCode": "8000000000000005", "HookReturnString": hex.EncodeToString([]byte("hello\x00")), "HookAccount": xahau.AccountOne.String(), "HookHash": hashOf(0).String(),
			"HookEmitCount": 1, "HookInstructionCount": "ff", "HookExecutionIndex": 0, "HookStateChangeCount": 0,
		}}},
	}
	return tx, meta
}

// fakeServer shows a network over WebSocket and HTTP.
type fakeServer struct {
	net  *network
	http *httptest.Server
	url  string // of the WebSocket

	mu          sync.Mutex
	sockets     map[*gws.Conn]bool
	subscribed  map[*gws.Conn]map[string]bool
	state       string
	from        uint32 // the first ledger that it has
	behind      uint32 // how many ledgers of the end it does not have yet
	mute        bool   // pushes nothing
	silent      bool   // answers nothing
	refuse      bool   // takes no connections
	slow        map[string]int
	asked       map[string]int
	connections int
	fee         string
	pageSize    int
	hook        func(command string)
	noSearched  bool
}

func (n *network) server(t *testing.T) *fakeServer {
	t.Helper()
	s := &fakeServer{net: n, sockets: map[*gws.Conn]bool{}, subscribed: map[*gws.Conn]map[string]bool{}, state: "full", from: 1, asked: map[string]int{}, slow: map[string]int{}, fee: "10", pageSize: 3}
	s.http = httptest.NewServer(s)
	s.url = "ws" + strings.TrimPrefix(s.http.URL, "http")
	n.mu.Lock()
	n.servers = append(n.servers, s)
	n.mu.Unlock()
	t.Cleanup(s.stop)
	return s
}

// tls shows the same over TLS.
func (n *network) tlsServer(t *testing.T) (*fakeServer, *tls.Config) {
	t.Helper()
	s := n.server(t)
	s.http.Close()
	s.http = httptest.NewTLSServer(s)
	s.url = "wss" + strings.TrimPrefix(s.http.URL, "https")
	config := s.http.Client().Transport.(*http.Transport).TLSClientConfig
	return s, config
}

func (s *fakeServer) stop() {
	s.set(func() { s.refuse = true })
	s.drop()
	s.http.Close()
}

func (s *fakeServer) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeServer) count(command string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[command]
}

// drop breaks all connections.
func (s *fakeServer) drop() {
	s.mu.Lock()
	var list []*gws.Conn
	for c := range s.sockets {
		list = append(list, c)
	}
	s.mu.Unlock()
	for _, c := range list {
		c.NetConn().Close()
	}
}

func (s *fakeServer) announce(index uint32, txs []*xahau.Signed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mute || s.behind > 0 {
		return
	}
	for c, accounts := range s.subscribed {
		s.write(c, map[string]any{"type": "ledgerClosed", "ledger_index": index, "ledger_hash": hashOf(index).String(), "ledger_time": 700_000_000 + index})
		for i, tx := range txs {
			s.net.mu.Lock()
			show, meta := s.net.show(tx, index, i)
			s.net.mu.Unlock()
			b, _ := json.Marshal(show)
			for a := range accounts {
				if strings.Contains(string(b), a) {
					s.write(c, map[string]any{"type": "transaction", "validated": true, "ledger_index": index, "transaction": show, "meta": meta, "engine_result": "tesSUCCESS"})
					break
				}
			}
		}
	}
}

func (s *fakeServer) write(c *gws.Conn, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	c.WriteMessage(gws.OpcodeText, b)
}

// ServeHTTP takes WebSocket and JSON-RPC.
func (s *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	refuse := s.refuse
	s.mu.Unlock()
	if refuse {
		http.Error(w, "no", http.StatusServiceUnavailable)
		return
	}
	if r.Header.Get("Upgrade") != "" {
		up := gws.NewUpgrader(serverEvents{s: s}, nil)
		c, err := up.Upgrade(w, r)
		if err != nil {
			return
		}
		s.set(func() { s.sockets[c] = true; s.connections++ })
		go func() {
			c.ReadLoop()
			s.set(func() { delete(s.sockets, c); delete(s.subscribed, c) })
		}()
		return
	}
	var q struct {
		Method string
		Params []map[string]any
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	result := s.answer(nil, q.Method, q.Params[0])
	if result["status"] == nil {
		result["status"] = "success"
	}
	json.NewEncoder(w).Encode(map[string]any{"result": result})
}

type serverEvents struct {
	gws.BuiltinEventHandler
	s *fakeServer
}

func (e serverEvents) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	var q map[string]any
	if err := json.Unmarshal(m.Bytes(), &q); err != nil {
		c.NetConn().Close()
		return
	}
	command, _ := q["command"].(string)
	result := e.s.answer(c, command, q)
	e.s.mu.Lock()
	silent := e.s.silent
	e.s.mu.Unlock()
	if silent {
		return
	}
	if result["error"] != nil {
		result["id"], result["type"] = q["id"], "response"
		e.s.write(c, result)
		return
	}
	e.s.write(c, map[string]any{"id": q["id"], "type": "response", "status": "success", "result": result})
}

func refusal(name string) map[string]any {
	return map[string]any{"status": "error", "error": name, "error_message": "a test says so"}
}

func number(v any, or uint32) uint32 {
	if f, ok := v.(float64); ok {
		return uint32(f)
	}
	return or
}

func (s *fakeServer) answer(c *gws.Conn, command string, q map[string]any) map[string]any {
	s.mu.Lock()
	s.asked[command]++
	slow := s.slow[command] > 0
	if slow {
		s.slow[command]--
	}
	state, from, behind, fee, pageSize, hook := s.state, s.from, s.behind, s.fee, s.pageSize, s.hook
	s.mu.Unlock()
	if hook != nil {
		hook(command)
	}
	if slow {
		return refusal("slowDown")
	}
	n := s.net
	tip := n.tip() - behind
	switch command {
	case "server_state":
		return map[string]any{"state": map[string]any{"server_state": state, "network_id": 21338}}
	case "server_definitions":
		var m map[string]any
		json.Unmarshal(n.defs.Source(), &m)
		return m
	case "subscribe":
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.subscribed[c] == nil {
			s.subscribed[c] = map[string]bool{}
		}
		if list, ok := q["accounts"].([]any); ok {
			for _, a := range list {
				s.subscribed[c][a.(string)] = true
			}
		}
		return map[string]any{"ledger_index": tip, "ledger_hash": hashOf(tip).String(), "ledger_time": 700_000_000 + tip}
	case "unsubscribe", "ping":
		return map[string]any{}
	case "ledger":
		index := number(q["ledger_index"], tip)
		if index > tip || index < from {
			return refusal("lgrNotFound")
		}
		return map[string]any{"ledger_index": index, "ledger_hash": hashOf(index).String(), "validated": true, "ledger": map[string]any{"close_time": 700_000_000 + index, "ledger_index": fmt.Sprint(index)}}
	case "account_info":
		if q["account"] == xahau.AccountZero.String() {
			return refusal("actNotFound")
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		sequence := uint32(5)
		for _, l := range append(n.ledgers, n.open) {
			for _, tx := range l {
				if tx.Tx.Account(field.Account).String() == q["account"] {
					sequence++
				}
			}
		}
		return map[string]any{"ledger_current_index": tip + 1, "account_data": map[string]any{
			"LedgerEntryType": "AccountRoot", "Account": q["account"], "Sequence": sequence, "Balance": "1000000000", "Flags": 0, "index": hashOf(1).String(),
		}}
	case "fee":
		if blob, ok := q["tx_blob"].(string); ok {
			b, err := hex.DecodeString(blob)
			if err != nil {
				return refusal("invalidParams")
			}
			tx, err := n.defs.Decode(b)
			if err != nil || tx.Amount(field.Fee) != xahau.Drops(0) || !tx.Has(field.SigningPubKey) || !tx.Has(field.Sequence) {
				return refusal("invalidTransaction")
			}
			return map[string]any{"drops": map[string]any{"base_fee": fee}}
		}
		return map[string]any{"drops": map[string]any{"base_fee": "10"}}
	case "submit":
		b, err := hex.DecodeString(q["tx_blob"].(string))
		if err != nil {
			return refusal("invalidTransaction")
		}
		tx, err := n.defs.Decode(b)
		if err != nil {
			return refusal("invalidTransaction")
		}
		signed := &xahau.Signed{Tx: tx, Blob: b, ID: xahau.BlobID(b)}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.submitted[signed.ID]++
		for _, l := range append(n.ledgers, n.open) {
			for _, x := range l {
				if x.ID == signed.ID {
					return map[string]any{"engine_result": "tefPAST_SEQ", "tx_json": map[string]any{"hash": signed.ID.String()}}
				}
			}
		}
		result, in := "tesSUCCESS", true
		if n.accept != nil {
			result, in = n.accept(signed)
		}
		if in {
			n.open = append(n.open, signed)
		}
		return map[string]any{"engine_result": result, "engine_result_message": "a test says so", "tx_json": map[string]any{"hash": signed.ID.String()}}
	case "tx":
		n.mu.Lock()
		defer n.mu.Unlock()
		for i, l := range n.ledgers {
			if uint32(i+1) > tip || uint32(i+1) < from {
				continue
			}
			for place, x := range l {
				if x.ID.String() == q["transaction"] {
					tx, meta := n.show(x, uint32(i+1), place)
					tx["meta"], tx["validated"] = meta, true
					return tx
				}
			}
		}
		r := refusal("txnNotFound")
		s.mu.Lock()
		if lo := number(q["min_ledger"], 0); lo > 0 && !s.noSearched {
			r["searched_all"] = lo >= from && number(q["max_ledger"], 0) <= tip
		}
		s.mu.Unlock()
		return r
	case "account_tx":
		lo, hi := number(q["ledger_index_min"], 1), number(q["ledger_index_max"], tip)
		if lo > tip {
			return refusal("lgrIdxsInvalid")
		}
		lo, hi = max(lo, from), min(hi, tip)
		skip := 0
		if m, ok := q["marker"].(map[string]any); ok {
			skip = int(number(m["seq"], 0))
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		var list []any
		for i := lo; i <= hi; i++ {
			for place, x := range n.ledgers[i-1] {
				tx, meta := n.show(x, i, place)
				b, _ := json.Marshal(tx)
				if strings.Contains(string(b), q["account"].(string)) {
					list = append(list, map[string]any{"tx": tx, "meta": meta, "validated": true})
				}
			}
		}
		list = list[min(skip, len(list)):]
		r := map[string]any{"ledger_index_min": lo, "ledger_index_max": hi, "account": q["account"]}
		if len(list) > pageSize {
			list = list[:pageSize]
			r["marker"] = map[string]any{"ledger": lo, "seq": skip + pageSize}
		}
		r["transactions"] = list
		return r
	case "account_lines":
		start := int(number(q["marker"], 0))
		r := map[string]any{"ledger_index": 7, "lines": []any{start}}
		if start > 0 && number(q["ledger_index"], 0) != 7 {
			return refusal("invalidParams")
		}
		if start < 3 {
			r["marker"] = start + 1
		}
		return r
	}
	return refusal("unknownCmd")
}
