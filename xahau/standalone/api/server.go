package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/lxzan/gws"
	"golang.org/x/time/rate"

	"evernode/xahau"
	"evernode/xahau/standalone"
	"evernode/xahau/standalone/chain"
)

// Config says how a Server works. The zero value of a field is its default.
type Config struct {
	// Manual lets clients close ledgers with ledger_accept.
	Manual bool
	// Version is what server_info calls the program's version.
	Version string
	// MaxRequest is the largest request in bytes; default 1 MiB.
	MaxRequest int
	// Connections is how many WebSocket connections there may be, and Requests how
	// many HTTP requests at the same time; default 1000 and 64.
	Connections, Requests int
	// Accounts is how many accounts a connection may subscribe to; default 1000.
	Accounts int
	// Rate is how many requests per second a connection may send, and Burst how many
	// at once; default 5000 and 10000. The requests over HTTP share one such budget.
	Rate, Burst int
	// Backlog is how many bytes may wait for a client that does not read; then its
	// connection is closed. Default 32 MiB.
	Backlog int
	Log     *slog.Logger // default: discards
}

func (c *Config) setDefaults() {
	or := func(at *int, n int) {
		if *at == 0 {
			*at = n
		}
	}
	or(&c.MaxRequest, 1<<20)
	or(&c.Connections, 1000)
	or(&c.Requests, 64)
	or(&c.Accounts, 1000)
	or(&c.Rate, 5000)
	or(&c.Burst, 2*c.Rate)
	or(&c.Backlog, 32<<20)
	if c.Version == "" {
		c.Version = "0.0.0"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Server shows a ledger to clients. It is an http.Handler.
type Server struct {
	cfg         Config
	node        *standalone.Ledger
	defs        *xahau.Definitions
	definitions map[string]any
	handlers    map[string]handler
	key         xahau.PublicKey
	upgrader    *gws.Upgrader
	requests    chan struct{} // an element for each request over HTTP
	rate        *rate.Limiter // of requests over HTTP
	stop        func()
	ctx         context.Context
	cancel      context.CancelFunc

	mu      sync.Mutex
	sockets map[*socket]bool
	closed  bool
	running sync.WaitGroup
}

// New makes the server of a ledger. Close ends it.
func New(node *standalone.Ledger, cfg Config) (*Server, error) {
	cfg.setDefaults()
	s := &Server{
		cfg: cfg, node: node, defs: node.Definitions(), handlers: commands(), requests: make(chan struct{}, cfg.Requests),
		rate: rate.NewLimiter(rate.Limit(cfg.Rate), cfg.Burst), sockets: map[*socket]bool{},
	}
	if err := json.Unmarshal(s.defs.Source(), &s.definitions); err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	s.definitions["hash"] = s.defs.Hash().String()
	seed, err := xahau.NewSeed(rand.Reader, xahau.Secp256k1)
	if err != nil {
		return nil, fmt.Errorf("key of the server: %w", err)
	}
	s.key = seed.KeyPair().Public()
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.upgrader = gws.NewUpgrader(events{s: s}, &gws.ServerOption{
		ReadMaxPayloadSize: cfg.MaxRequest, WriteMaxPayloadSize: 256 << 20, CheckUtf8Enabled: true, Recovery: gws.Recovery,
		Logger: gwsLog{cfg.Log}, PermessageDeflate: gws.PermessageDeflate{Enabled: true, Threshold: 4096},
	})
	s.stop = node.Listen(s.announce)
	return s, nil
}

// gwsLog takes what the WebSocket library logs: panics of handlers.
type gwsLog struct{ log *slog.Logger }

func (g gwsLog) Error(v ...any) { g.log.Error("websocket", "error", fmt.Sprint(v...)) }

// Close ends all connections.
func (s *Server) Close() {
	s.stop()
	s.cancel()
	s.mu.Lock()
	s.closed = true
	for c := range s.sockets {
		c.close()
	}
	s.mu.Unlock()
	s.running.Wait()
}

// handler answers one kind of request. Errors that are no *Error are internal.
type handler func(r *request) (map[string]any, error)

func commands() map[string]handler {
	return map[string]handler{
		"ping": ping, "random": random, "server_info": serverInfo, "server_state": serverState,
		"server_definitions": serverDefinitions, "fee": fee, "ledger": ledgerCommand, "ledger_closed": ledgerClosed,
		"ledger_current": ledgerCurrent, "ledger_data": ledgerData, "ledger_entry": ledgerEntry,
		"account_info": accountInfo, "account_lines": accountLines, "account_objects": accountObjects,
		"account_namespace": accountNamespace, "account_currencies": accountCurrencies, "account_offers": accountOffers,
		"account_tx": accountTx, "book_offers": bookOffers, "gateway_balances": gatewayBalances, "tx": txCommand,
		"submit": submit, "submit_multisigned": submitMultisigned, "subscribe": subscribe, "unsubscribe": unsubscribe,
		"ledger_accept": ledgerAccept, "wallet_propose": walletPropose,
		"sign": refuseSigning, "sign_for": refuseSigning,
	}
}

// do carries out a request.
func (s *Server) do(ctx context.Context, c *socket, command string, p params) (result map[string]any, version int, refusal *Error) {
	r := &request{Context: ctx, s: s, socket: c, params: p, version: 1}
	v, err := p.number("api_version", 1)
	if err != nil || v < 1 || v > 2 {
		return nil, 1, errBadVersion
	}
	r.version = int(v)
	h := s.handlers[command]
	if h == nil {
		return nil, r.version, errUnknownCommand
	}
	result, err = h(r)
	if err == nil {
		return result, r.version, nil
	}
	switch {
	case errors.As(err, &refusal):
	case errors.Is(err, standalone.ErrBusy):
		refusal = errTooBusy
	case errors.Is(err, standalone.ErrClosed), errors.Is(err, chain.ErrClosed):
		refusal = errShutDown
	case ctx.Err() != nil:
		refusal = errShutDown
	default:
		s.cfg.Log.Error("request failed", "command", command, "error", err)
		refusal = errInternal
	}
	return nil, r.version, refusal
}

// ServeHTTP takes JSON-RPC by POST, and turns a GET that asks for it into a
// WebSocket connection.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		s.connect(w, r)
		return
	}
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodPost:
	case http.MethodOptions:
		header.Set("Access-Control-Allow-Methods", "POST")
		header.Set("Access-Control-Allow-Headers", "Content-Type")
		w.WriteHeader(http.StatusNoContent)
		return
	case http.MethodGet, http.MethodHead:
		header.Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "Embedded ledger of network %d, ledger %d. WebSocket and JSON-RPC.\n", s.node.NetworkID(), s.node.Validated().Header.Seq)
		return
	default:
		http.Error(w, "POST a JSON-RPC request", http.StatusMethodNotAllowed)
		return
	}
	select {
	case s.requests <- struct{}{}:
		defer func() { <-s.requests }()
	default:
		http.Error(w, errTooBusy.Message, http.StatusServiceUnavailable)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxRequest)))
	if err != nil {
		http.Error(w, fmt.Sprintf("the request is longer than %d bytes or broken off", s.cfg.MaxRequest), http.StatusRequestEntityTooLarge)
		return
	}
	s.rpc(w, r.Context(), body)
}

func (s *Server) rpc(w http.ResponseWriter, ctx context.Context, body []byte) {
	var q struct {
		Method  string
		Params  []params
		ID      json.RawMessage `json:"id"`
		JSONRPC json.RawMessage `json:"jsonrpc"`
		Ripple  json.RawMessage `json:"ripplerpc"`
	}
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, "Unable to parse request: "+err.Error(), http.StatusBadRequest)
		return
	}
	if q.Method == "" {
		http.Error(w, "Null method", http.StatusBadRequest)
		return
	}
	if len(q.Params) > 1 {
		http.Error(w, "params unparseable", http.StatusBadRequest)
		return
	}
	p := params{}
	if len(q.Params) == 1 && q.Params[0] != nil {
		p = q.Params[0]
	}
	var result map[string]any
	var refusal *Error
	if s.rate.Allow() {
		result, _, refusal = s.do(ctx, nil, q.Method, p)
	} else {
		refusal = errSlowDown
	}
	status := http.StatusOK
	if refusal != nil {
		result = map[string]any{"request": masked(p, q.Method), "status": "error"}
		refusal.put(result)
		if refusal.Status != 0 {
			status = refusal.Status
		}
	} else {
		result["status"] = "success"
	}
	answer := map[string]any{"result": result}
	for name, v := range map[string]json.RawMessage{"id": q.ID, "jsonrpc": q.JSONRPC, "ripplerpc": q.Ripple} {
		if len(v) > 0 {
			answer[name] = v
		}
	}
	b, err := json.Marshal(answer)
	if err != nil {
		s.cfg.Log.Error("answer", "command", q.Method, "error", err)
		http.Error(w, errInternal.Message, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// secrets are fields that no answer repeats.
var secrets = []string{"secret", "seed", "seed_hex", "passphrase", "private_key"}

// masked is a request as the answer to it repeats it.
func masked(p params, command string) map[string]any {
	m := make(map[string]any, len(p)+1)
	for k, v := range p {
		if len(v) > 1024 {
			v = json.RawMessage(`"<long>"`)
		}
		m[k] = v
	}
	for _, k := range secrets {
		if _, ok := m[k]; ok {
			m[k] = "<masked>"
		}
	}
	m["command"] = command
	return m
}

// handle answers a message over WebSocket.
func (s *Server) handle(c *socket, message []byte) map[string]any {
	var p params
	if err := json.Unmarshal(message, &p); err != nil || p == nil {
		m := map[string]any{"type": "error"}
		errJSONInvalid.put(m)
		return m
	}
	answer := map[string]any{"type": "response"}
	for _, k := range []string{"id", "api_version", "jsonrpc", "ripplerpc"} {
		if v, ok := p[k]; ok && len(v) <= 1024 {
			answer[k] = v
		}
	}
	command, err := p.text("command")
	if command == "" && err == nil {
		command, err = p.text("method")
	}
	var result map[string]any
	var refusal *Error
	switch {
	case err != nil || command == "":
		refusal = errCommandMissing
	case !c.rate.Allow():
		refusal = errSlowDown
	default:
		result, _, refusal = s.do(s.ctx, c, command, p)
	}
	if refusal != nil {
		refusal.put(answer)
		answer["status"], answer["request"] = "error", masked(p, command)
		return answer
	}
	answer["status"], answer["result"] = "success", result
	return answer
}

// uptime is how long the ledger has been open, in seconds.
func (s *Server) uptime() int64 { return int64(s.node.Now().Sub(s.node.Started()) / time.Second) }
