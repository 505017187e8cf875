package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"evernode/xahau"

	"github.com/lxzan/gws"
)

// errLost is why a request did not get its answer; it may be sent again.
var errLost = errors.New("connection lost")

// maxPending is how many requests may wait for answers on one connection.
const maxPending = 4096

// connection is one connection to a server. Over HTTP it is no more than a name
// and a poller.
type connection struct {
	client *Client
	server string
	socket *gws.Conn // nil over HTTP
	done   chan struct{}

	mu      sync.Mutex
	err     error
	lastID  uint64
	pending map[uint64]chan<- reply
	heard   time.Time // of the last ledger
}

type reply struct {
	result json.RawMessage
	err    error
}

// fail ends the connection.
func (n *connection) fail(err error) {
	n.mu.Lock()
	if n.err != nil {
		n.mu.Unlock()
		return
	}
	n.err = err
	pending := n.pending
	n.pending = nil
	n.mu.Unlock()
	close(n.done)
	if n.socket != nil {
		n.socket.NetConn().Close()
	}
	for _, ch := range pending {
		ch <- reply{err: errLost}
	}
}

func (n *connection) cause() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// serve connects to a server and stays until the connection is over. worked
// tells whether the server was of use.
func (c *Client) serve(server string) (worked bool, err error) {
	n := &connection{client: c, server: server, done: make(chan struct{}), pending: map[uint64]chan<- reply{}, heard: time.Now()}
	defer n.fail(errLost)
	isHTTP := strings.HasPrefix(server, "http")
	if !isHTTP {
		ctx, cancel := context.WithTimeout(c.ctx, c.opt.RequestTimeout)
		err := n.open(ctx)
		cancel()
		if err != nil {
			return false, err
		}
		reading := make(chan struct{})
		go func() {
			defer close(reading)
			n.socket.ReadLoop()
			n.fail(errLost)
		}()
		defer func() { n.fail(errLost); <-reading }()
	}
	stop := context.AfterFunc(c.ctx, func() { n.fail(ErrClosed) })
	defer stop()

	network, err := n.functional()
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	accounts := make([]xahau.AccountID, 0, len(c.watches))
	for a := range c.watches {
		accounts = append(accounts, a)
	}
	c.mu.Unlock()
	var info LedgerInfo
	if isHTTP {
		info, err = n.lastLedger()
	} else {
		info, err = n.subscribe(accounts)
	}
	if err != nil {
		return false, err
	}
	c.update(func() {
		c.conn, c.network = n, network
	})
	defer c.update(func() { c.conn = nil })
	c.validated(info, true)
	c.log.Info("connected", "server", server, "network", network, "ledger", info.Index)
	// Accounts that somebody began to read in the meantime.
	c.mu.Lock()
	var missed []xahau.AccountID
	for a := range c.watches {
		missed = append(missed, a)
	}
	c.mu.Unlock()
	if !isHTTP && len(missed) > len(accounts) {
		if _, err := n.subscribe(missed); err != nil {
			return true, err
		}
	}
	interval := c.opt.StaleAfter
	if isHTTP {
		interval = c.opt.PollInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-n.done:
			return true, n.cause()
		case <-tick.C:
		}
		if isHTTP {
			next, err := n.lastLedger()
			if err != nil {
				return true, err
			}
			if next.Index != info.Index {
				info = next
				c.validated(info, true)
			}
			continue
		}
		n.mu.Lock()
		silent := time.Since(n.heard)
		n.mu.Unlock()
		if silent >= c.opt.StaleAfter {
			if _, err := n.functional(); err != nil {
				return true, fmt.Errorf("no ledger for %v: %w", silent.Round(time.Second), err)
			}
		}
	}
}

// open makes the WebSocket connection.
func (n *connection) open(ctx context.Context) error {
	u, err := url.Parse(n.server)
	if err != nil {
		return err
	}
	port := u.Port()
	secure := u.Scheme == "wss"
	if port == "" {
		port = map[bool]string{true: "443", false: "80"}[secure]
	}
	address := net.JoinHostPort(u.Hostname(), port)
	var conn net.Conn
	if secure {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if n.client.opt.TLS != nil {
			config = n.client.opt.TLS.Clone()
		}
		if config.ServerName == "" {
			config.ServerName = u.Hostname()
		}
		conn, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return err
	}
	deadline := context.AfterFunc(ctx, func() { conn.Close() })
	n.socket, _, err = gws.NewClientFromConn(events{n: n}, &gws.ClientOption{
		Addr: n.server, HandshakeTimeout: n.client.opt.RequestTimeout, ReadMaxPayloadSize: n.client.opt.MaxMessage,
	}, conn)
	if !deadline() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return fmt.Errorf("WebSocket: %w", err)
	}
	return nil
}

// functional asks whether the server is part of its network (spec/hosting.md
// section 11.2), and gives the network's number.
func (n *connection) functional() (uint32, error) {
	var answer struct {
		State struct {
			ServerState string `json:"server_state"`
			NetworkID   uint32 `json:"network_id"`
		} `json:"state"`
	}
	if err := n.ask("server_state", map[string]any{"ledger_index": "current"}, &answer); err != nil {
		return 0, err
	}
	switch answer.State.ServerState {
	case "full", "validating", "proposing":
		return answer.State.NetworkID, nil
	}
	return 0, fmt.Errorf("the server is not in the network: its state is %q", answer.State.ServerState)
}

// subscribe asks for the ledgers and for what happens to accounts.
func (n *connection) subscribe(accounts []xahau.AccountID) (LedgerInfo, error) {
	params := map[string]any{"streams": []string{"ledger"}}
	if len(accounts) > 0 {
		params["accounts"] = accounts
	}
	var answer ledgerMessage
	if err := n.ask("subscribe", params, &answer); err != nil {
		return LedgerInfo{}, err
	}
	if answer.Index == 0 {
		// A server that does not say it here yet.
		return n.lastLedger()
	}
	return answer.info(), nil
}

// lastLedger asks for the last validated ledger.
func (n *connection) lastLedger() (LedgerInfo, error) { return n.ledger("validated") }

func (n *connection) ledger(index any) (LedgerInfo, error) {
	var answer ledgerAnswer
	if err := n.ask("ledger", map[string]any{"ledger_index": index}, &answer); err != nil {
		return LedgerInfo{}, err
	}
	return answer.info()
}

type ledgerAnswer struct {
	Index  json.Number   `json:"ledger_index"`
	Hash   xahau.Hash256 `json:"ledger_hash"`
	Ledger struct {
		Index     json.Number   `json:"ledger_index"`
		Hash      xahau.Hash256 `json:"ledger_hash"`
		CloseTime uint32        `json:"close_time"`
	} `json:"ledger"`
}

func (a *ledgerAnswer) info() (LedgerInfo, error) {
	if a.Index == "" {
		a.Index = a.Ledger.Index
	}
	if a.Hash.IsZero() {
		a.Hash = a.Ledger.Hash
	}
	index, err := a.Index.Int64()
	if err != nil || index < 1 || index > 1<<32-1 {
		return LedgerInfo{}, fmt.Errorf("ledger: the server gives no index (%q)", a.Index)
	}
	return LedgerInfo{uint32(index), a.Hash, xahau.Time(a.Ledger.CloseTime)}, nil
}

type ledgerMessage struct {
	Index uint32        `json:"ledger_index"`
	Hash  xahau.Hash256 `json:"ledger_hash"`
	Time  uint32        `json:"ledger_time"`
}

func (m ledgerMessage) info() LedgerInfo { return LedgerInfo{m.Index, m.Hash, xahau.Time(m.Time)} }

// ask is a request of the connection's own.
func (n *connection) ask(command string, params map[string]any, answer any) error {
	ctx, cancel := context.WithTimeout(n.client.ctx, n.client.opt.RequestTimeout)
	defer cancel()
	raw, err := n.request(ctx, command, params)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("%s: the answer is malformed: %w", command, err)
	}
	return nil
}

// request sends a command and waits for the answer.
func (n *connection) request(ctx context.Context, command string, params map[string]any) (json.RawMessage, error) {
	if n.socket == nil {
		return n.post(ctx, command, params)
	}
	ch := make(chan reply, 1)
	n.mu.Lock()
	if n.err != nil {
		n.mu.Unlock()
		return nil, errLost
	}
	if len(n.pending) >= maxPending {
		n.mu.Unlock()
		return nil, fmt.Errorf("%d requests are waiting already", maxPending)
	}
	n.lastID++
	id := n.lastID
	n.pending[id] = ch
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.pending, id)
		n.mu.Unlock()
	}()
	message := map[string]any{"id": id, "command": command}
	for k, v := range params {
		message[k] = v
	}
	b, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	if err := n.socket.WriteMessage(gws.OpcodeText, b); err != nil {
		n.fail(fmt.Errorf("%w: %w", errLost, err))
		return nil, errLost
	}
	select {
	case r := <-ch:
		return r.result, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answer is a server's answer over WebSocket, or what is in "result" over HTTP.
type answer struct {
	ID      uint64          `json:"id"`
	Type    string          `json:"type"`
	Status  string          `json:"status"`
	Result  json.RawMessage `json:"result"`
	Error   string          `json:"error"`
	Code    int             `json:"error_code"`
	Message string          `json:"error_message"`
	// More is set in the answer to tx: whether all ledgers asked for were searched.
	SearchedAll *bool `json:"searched_all"`
}

func (a *answer) failure() error {
	if a.Error == "" && a.Status != "error" {
		return nil
	}
	return &ServerError{Name: a.Error, Code: a.Code, Message: a.Message, SearchedAll: a.SearchedAll}
}

// post sends a command over HTTP.
func (n *connection) post(ctx context.Context, command string, params map[string]any) (json.RawMessage, error) {
	if params == nil {
		params = map[string]any{}
	}
	b, err := json.Marshal(map[string]any{"method": command, "params": []any{params}})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.server, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := n.client.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", errLost, err)
	}
	defer resp.Body.Close()
	limit := int64(n.client.opt.MaxMessage)
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errLost, err)
	case int64(len(body)) > limit:
		return nil, fmt.Errorf("the answer has more than %d bytes", limit)
	case resp.StatusCode/100 == 5 || resp.StatusCode == http.StatusTooManyRequests:
		return nil, fmt.Errorf("%w: the server says %s", errLost, resp.Status)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the server says %s", resp.Status)
	}
	var outer struct {
		Result json.RawMessage `json:"result"`
	}
	var inner answer
	if err := json.Unmarshal(body, &outer); err != nil {
		return nil, fmt.Errorf("the answer is malformed: %w", err)
	}
	if err := json.Unmarshal(outer.Result, &inner); err != nil {
		return nil, fmt.Errorf("the answer is malformed: %w", err)
	}
	return outer.Result, inner.failure()
}

// events hands the WebSocket library's events to the connection.
type events struct {
	gws.BuiltinEventHandler
	n *connection
}

// OnPing implements gws.Event.
func (e events) OnPing(socket *gws.Conn, payload []byte) { socket.WritePong(payload) }

// OnMessage implements gws.Event.
func (e events) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	e.n.receive(m.Bytes())
}

// receive handles one message. It is called for one after another.
func (n *connection) receive(b []byte) {
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		n.fail(fmt.Errorf("the server sends what is not JSON: %w", err))
		return
	}
	switch a.Type {
	case "ledgerClosed":
		var m ledgerMessage
		if err := json.Unmarshal(b, &m); err != nil || m.Index == 0 {
			n.client.log.Warn("a server announces a ledger that cannot be read", "server", n.server, "err", err)
			return
		}
		n.mu.Lock()
		n.heard = time.Now()
		n.mu.Unlock()
		n.client.validated(m.info(), false)
	case "transaction":
		var m struct {
			Index     uint32 `json:"ledger_index"`
			Validated bool   `json:"validated"`
		}
		if err := json.Unmarshal(b, &m); err == nil && m.Validated {
			n.client.ring(b, m.Index)
		}
	case "response", "":
		n.mu.Lock()
		ch := n.pending[a.ID]
		delete(n.pending, a.ID)
		n.mu.Unlock()
		if ch != nil {
			// The message's memory is the library's.
			ch <- reply{bytes.Clone(a.Result), a.failure()}
		}
	}
}

// ring marks the watched accounts that a message speaks of.
func (c *Client) ring(message []byte, ledger uint32) {
	c.update(func() {
		for a, w := range c.watches {
			if ledger > w.rung && bytes.Contains(message, []byte(a.String())) {
				w.rung = ledger
			}
		}
	})
}
