package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/xahau"
	"evernode/xahau/client"
	"evernode/xahau/standalone"
	"evernode/xahau/ter"
)

// world is a served ledger in a test, whose clock the test moves.
type world struct {
	t      *testing.T
	node   *standalone.Ledger
	server *Server
	http   *httptest.Server
	mu     sync.Mutex
	now    time.Time
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	var err error
	if w.node, err = standalone.Open(t.Context(), standalone.Config{Now: w.clock}); err != nil {
		t.Fatal(err)
	}
	cfg.Manual = true
	if w.server, err = New(w.node, cfg); err != nil {
		t.Fatal(err)
	}
	w.http = httptest.NewServer(w.server)
	t.Cleanup(func() {
		w.server.Close()
		w.http.Close()
		if err := w.node.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) socketURL() string { return "ws" + strings.TrimPrefix(w.http.URL, "http") }

func (w *world) accept() uint32 {
	w.t.Helper()
	w.mu.Lock()
	w.now = w.now.Add(4 * time.Second)
	w.mu.Unlock()
	c, err := w.node.Accept(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Header.Seq
}

func (w *world) client() *client.Client {
	w.t.Helper()
	c, err := client.New(client.Options{Servers: []string{w.socketURL()}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

func master(t testing.TB) xahau.KeyPair {
	t.Helper()
	k, err := standalone.Master()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func key(name string) xahau.KeyPair { return xahau.SeedFromPassphrase(name, xahau.Secp256k1).KeyPair() }

// send signs, submits and closes, and gives the preliminary result and the hash.
func (w *world) send(c *client.Client, t *xahau.Object, k xahau.KeyPair) (string, xahau.Hash256) {
	w.t.Helper()
	if err := c.Autofill(w.t.Context(), t, client.AutofillOptions{}); err != nil {
		w.t.Fatal(err)
	}
	s, err := c.Definitions().Sign(t, k)
	if err != nil {
		w.t.Fatal(err)
	}
	var r struct {
		Result string `json:"engine_result"`
	}
	if err := c.Request(w.t.Context(), "submit", map[string]any{"tx_blob": fmt.Sprintf("%X", s.Blob)}, &r); err != nil {
		w.t.Fatal(err)
	}
	w.accept()
	return r.Result, s.ID
}

func (w *world) fund(c *client.Client, accounts ...xahau.AccountID) {
	w.t.Helper()
	for _, a := range accounts {
		if result, _ := w.send(c, xahau.Payment(master(w.t).Account(), a, xahau.Drops(1_000_000_000)), master(w.t)); result != "tesSUCCESS" {
			w.t.Fatal(result)
		}
	}
}

// rpc sends a request over HTTP and gives the result.
func (w *world) rpc(method string, p map[string]any) map[string]any {
	w.t.Helper()
	b, err := json.Marshal(map[string]any{"method": method, "params": []any{p}})
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.Post(w.http.URL, "application/json", bytes.NewReader(b))
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	var m struct{ Result map[string]any }
	if err := json.Unmarshal(text, &m); err != nil {
		w.t.Fatalf("%s: %s", method, text)
	}
	return m.Result
}

// Our own client submits reliably, reads, and follows ledgers and transactions.
func TestOurClient(t *testing.T) {
	w := newWorld(t, Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := w.client()
	alice := key("alice")
	stream, err := c.Transactions(ctx, alice.Account(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	done := make(chan error, 1)
	go func() {
		tx, err := c.Send(ctx, xahau.Payment(master(t).Account(), alice.Account(), xahau.Drops(123_000_000)), master(t), client.SubmitOptions{})
		if err == nil && (tx.Result != ter.TesSUCCESS || tx.Delivered == nil || *tx.Delivered != xahau.Drops(123_000_000)) {
			err = fmt.Errorf("outcome %+v", tx)
		}
		done <- err
	}()
	w.whenOpen(1)
	w.accept()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got, err := stream.Next(ctx)
	if err != nil || got.Delivered == nil || *got.Delivered != xahau.Drops(123_000_000) {
		t.Fatalf("stream gives %+v, %v", got, err)
	}
	if got.Time.IsZero() || got.Ledger != w.node.Validated().Header.Seq {
		t.Errorf("stream gives ledger %d at %s", got.Ledger, got.Time)
	}
	info, err := c.Account(ctx, alice.Account(), "validated")
	if err != nil || info.Root == nil {
		t.Fatal(info, err)
	}
	if _, err := c.Account(ctx, key("nobody").Account(), "validated"); !client.IsServerError(err, "actNotFound") {
		t.Errorf("an account that is not there: %v", err)
	}
	if tx, err := c.Lookup(ctx, xahau.Hash256{1}); err != nil || tx != nil {
		t.Errorf("a transaction that is not there: %v, %v", tx, err)
	}
	if id, err := c.NetworkID(ctx); err != nil || id != standalone.DefaultNetworkID {
		t.Error(id, err)
	}
	if err := c.UseServerDefinitions(ctx); err != nil {
		t.Error(err)
	}
}

// whenOpen waits until the open ledger has some transactions.
func (w *world) whenOpen(n int) {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		if in, _ := w.node.OpenTransactions(); in >= n {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal("the transaction does not arrive")
		}
		time.Sleep(time.Millisecond)
	}
}
