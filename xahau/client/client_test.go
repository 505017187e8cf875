package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/ter"
)

func background(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, opt Options, servers ...*fakeServer) *Client {
	t.Helper()
	for _, s := range servers {
		opt.Servers = append(opt.Servers, s.url)
	}
	if opt.MinBackoff == 0 {
		opt.MinBackoff, opt.MaxBackoff = time.Millisecond, 20*time.Millisecond
	}
	if opt.PollInterval == 0 {
		opt.PollInterval = 5 * time.Millisecond
	}
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func keys(t *testing.T, name string) xahau.KeyPair {
	t.Helper()
	return xahau.SeedFromPassphrase(name, xahau.Ed25519).KeyPair()
}

// payment makes a signed payment that nobody has sent yet.
func payment(t *testing.T, from xahau.KeyPair, to xahau.AccountID, sequence, last uint32) *xahau.Signed {
	t.Helper()
	tx := xahau.Payment(from.Account(), to, xahau.Drops(1))
	tx.Set(field.Sequence, xahau.Uint32(sequence))
	tx.Set(field.Fee, xahau.Drops(10))
	tx.Set(field.NetworkID, xahau.Uint32(21338))
	if last > 0 {
		tx.Set(field.LastLedgerSequence, xahau.Uint32(last))
	}
	s, err := xahau.DefaultDefinitions().Sign(tx, from)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eventually waits for what has no channel.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestRequests(t *testing.T) {
	n := newNetwork()
	for _, kind := range []string{"WebSocket", "HTTP", "TLS"} {
		t.Run(kind, func(t *testing.T) {
			s, opt := n.server(t), Options{}
			switch kind {
			case "HTTP":
				s.url = s.http.URL
			case "TLS":
				s, opt.TLS = n.tlsServer(t)
			}
			c, ctx := connect(t, opt, s), background(t)
			info, err := c.Ledger(ctx)
			if err != nil || info.Index != n.tip() || info.Hash != hashOf(info.Index) || !info.Time.Equal(xahau.Time(700_000_000+info.Index)) {
				t.Fatalf("%+v, %v", info, err)
			}
			if id, err := c.NetworkID(ctx); id != 21338 || err != nil {
				t.Errorf("network %d, %v", id, err)
			}
			a, err := c.Account(ctx, keys(t, "a").Account(), "current")
			if err != nil || a.Root.Uint32(field.Sequence) < 5 || a.Root.Amount(field.Balance) != xahau.Drops(1_000_000_000) || a.Ledger != info.Index+1 {
				t.Errorf("%+v, %v", a, err)
			}
			_, err = c.Account(ctx, xahau.AccountZero, "validated")
			if !IsServerError(err, "actNotFound") || !strings.Contains(err.Error(), "account_info") {
				t.Errorf("%v", err)
			}
			if err := c.Request(ctx, "nonsense", nil, nil); !IsServerError(err, "unknownCmd") {
				t.Errorf("%v", err)
			}
			if err := c.UseServerDefinitions(ctx); err != nil {
				t.Error(err)
			}
			var pages []string
			err = c.Pages(ctx, "account_lines", map[string]any{"account": "r"}, func(raw json.RawMessage) error {
				pages = append(pages, string(raw))
				return nil
			})
			if err != nil || len(pages) != 4 {
				t.Errorf("%v, %v", pages, err)
			}
			if c.Server() != s.url {
				t.Errorf("server %q", c.Server())
			}
			c.Close()
			if err := c.Request(ctx, "ping", nil, nil); !errors.Is(err, ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, servers := range [][]string{nil, {""}, {"ftp://x"}, {"localhost:6006"}, {"ws://ok", "http://"}} {
		if c, err := New(Options{Servers: servers}); err == nil {
			c.Close()
			t.Errorf("%q is accepted", servers)
		}
	}
}

func TestBusyServerIsAskedAgain(t *testing.T) {
	n := newNetwork()
	s := n.server(t)
	s.slow["ping"] = 3
	c := connect(t, Options{}, s)
	if err := c.Request(background(t), "ping", nil, nil); err != nil {
		t.Fatal(err)
	}
	if s.count("ping") != 4 {
		t.Errorf("asked %d times", s.count("ping"))
	}
}

func TestFallsBackToAnotherServer(t *testing.T) {
	n := newNetwork()
	dead, syncing, good := n.server(t), n.server(t), n.server(t)
	dead.stop()
	syncing.state = "syncing"
	c, ctx := connect(t, Options{}, dead, syncing, good), background(t)
	if _, err := c.Ledger(ctx); err != nil || c.Server() != good.url {
		t.Fatalf("%v, connected to %s", err, c.Server())
	}
	// The one that was left behind catches up while the good one dies.
	syncing.set(func() { syncing.state = "full" })
	good.stop()
	eventually(t, "connected to the other server", func() bool { return c.Server() == syncing.url })
	if err := c.Request(ctx, "ping", nil, nil); err != nil {
		t.Error(err)
	}
}

func TestNoServerIsSaidWhy(t *testing.T) {
	n := newNetwork()
	s := n.server(t)
	s.state = "disconnected"
	c := connect(t, Options{}, s)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := c.Request(ctx, "ping", nil, nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "disconnected") {
		t.Errorf("%v", err)
	}
}

func TestRequestOutlivesTheConnection(t *testing.T) {
	n := newNetwork()
	s := n.server(t)
	var once sync.Once
	s.hook = func(command string) {
		if command == "ping" {
			once.Do(s.drop)
		}
	}
	c := connect(t, Options{}, s)
	if err := c.Request(background(t), "ping", nil, nil); err != nil {
		t.Fatal(err)
	}
	if s.count("ping") != 2 {
		t.Errorf("asked %d times", s.count("ping"))
	}
}

func TestServerThatDoesNotAnswerIsLeft(t *testing.T) {
	n := newNetwork()
	hung, good := n.server(t), n.server(t)
	c, ctx := connect(t, Options{RequestTimeout: 50 * time.Millisecond}, hung, good), background(t)
	if _, err := c.Ledger(ctx); err != nil || c.Server() != hung.url {
		t.Fatal(c.Server(), err)
	}
	hung.set(func() { hung.silent = true })
	if err := c.Request(ctx, "ping", nil, nil); err != nil {
		t.Fatal(err)
	}
	if c.Server() != good.url {
		t.Errorf("still connected to %s", c.Server())
	}
}

func TestStaleServerIsLeft(t *testing.T) {
	n := newNetwork()
	stale, good := n.server(t), n.server(t)
	c := connect(t, Options{StaleAfter: 20 * time.Millisecond}, stale, good)
	if _, err := c.Ledger(background(t)); err != nil {
		t.Fatal(err)
	}
	stale.set(func() { stale.mute, stale.state = true, "syncing" })
	eventually(t, "connected to the server that is in the network", func() bool { return c.Server() == good.url })
	// A quiet network is no reason to leave.
	before := good.count("subscribe")
	eventually(t, "asked about its state thrice", func() bool { return good.count("server_state") > 3 })
	if good.count("subscribe") != before {
		t.Error("a server was left because no ledger closed")
	}
}

// readAll collects an account's transactions in the background.
type reader struct {
	mu    sync.Mutex
	list  []*Transaction
	gaps  []GapError
	errs  []error
	done  chan struct{}
	close func()
}

func read(t *testing.T, ctx context.Context, stream *Transactions) *reader {
	ctx, cancel := context.WithCancel(ctx)
	r := &reader{done: make(chan struct{}), close: cancel}
	go func() {
		defer close(r.done)
		for {
			x, err := stream.Next(ctx)
			var gap *GapError
			r.mu.Lock()
			switch {
			case errors.As(err, &gap):
				r.gaps = append(r.gaps, *gap)
			case err != nil:
				if ctx.Err() == nil {
					r.errs = append(r.errs, err)
				}
				r.mu.Unlock()
				return
			default:
				r.list = append(r.list, x)
			}
			r.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-r.done })
	return r
}

func (r *reader) hashes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for _, x := range r.list {
		list = append(list, fmt.Sprintf("%d/%d %s", x.Ledger, x.Index, x.Hash))
	}
	for _, err := range r.errs {
		list = append(list, err.Error())
	}
	return list
}

// expected lists what a network's ledgers hold for an account from one on.
func (n *network) expected(account xahau.AccountID, from uint32) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for i, l := range n.ledgers {
		for place, x := range l {
			if uint32(i+1) >= from && (x.Tx.Account(field.Account) == account || x.Tx.Account(field.Destination) == account) {
				list = append(list, fmt.Sprintf("%d/%d %s", i+1, place, x.ID))
			}
		}
	}
	return list
}

func TestTransactionsAreReadAsTheyCome(t *testing.T) {
	n := newNetwork()
	s := n.server(t)
	c, ctx := connect(t, Options{}, s), background(t)
	a, b := keys(t, "a"), keys(t, "b")
	stream, err := c.Transactions(ctx, b.Account(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for i := range uint32(7) {
		n.put(payment(t, a, b.Account(), i, 0))
		n.put(payment(t, a, xahau.AccountOne, 100+i, 0))
	}
	ledger := n.close()
	for i := range 7 {
		x, err := stream.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if x.Ledger != ledger || x.Index != uint32(2*i) || x.Err != nil || x.Tx.Account(field.Destination) != b.Account() || x.Result != ter.TesSUCCESS || *x.Delivered != xahau.Drops(1) {
			t.Errorf("%+v", x)
		}
		h := x.HookExecutions()
		if len(h) != 1 || h[0].ReturnCode != -5 || h[0].ReturnString != "hello" || h[0].Result != 3 || h[0].Account != xahau.AccountOne {
			t.Errorf("%+v", h)
		}
		if !x.Time.Equal(xahau.Time(700_000_000 + ledger)) {
			t.Error(x.Time)
		}
	}
	if stream.Done() != ledger-1 {
		t.Errorf("done up to %d before the end is known", stream.Done())
	}
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	if x, err := stream.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", x, err)
	}
	if stream.Done() != ledger {
		t.Errorf("done up to %d, want %d", stream.Done(), ledger)
	}
	stream.Close()
	if _, err := stream.Next(ctx); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Whatever is lost on the way, a reader gets everything once and in order:
// servers come and go, some are behind, some push nothing, connections break.
func TestTransactionsMissNothing(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			n := newNetwork()
			servers := []*fakeServer{n.server(t), n.server(t), n.server(t)}
			if seed == 3 {
				servers[1].url = servers[1].http.URL
			}
			c, ctx := connect(t, Options{}, servers...), background(t)
			a, b := keys(t, "a"), keys(t, "b")
			start, err := c.Ledger(ctx)
			if err != nil {
				t.Fatal(err)
			}
			var readers []*reader
			for _, from := range []uint32{0, 5} {
				stream, err := c.Transactions(ctx, b.Account(), from)
				if err != nil {
					t.Fatal(err)
				}
				readers = append(readers, read(t, ctx, stream))
			}
			sequence := uint32(0)
			for range 120 {
				for range r.IntN(6) {
					to := b.Account()
					if r.IntN(3) == 0 {
						to = xahau.AccountOne
					}
					sequence++
					n.put(payment(t, a, to, sequence, 0))
				}
				n.close()
				s := servers[r.IntN(len(servers))]
				switch r.IntN(8) {
				case 0:
					s.drop()
				case 1:
					s.set(func() { s.mute = !s.mute })
				case 2:
					s.set(func() { s.behind = uint32(r.IntN(4)) })
				case 3:
					s.set(func() { s.slow["account_tx"] = 2 })
				case 4:
					s.set(func() { s.refuse = !s.refuse })
					s.drop()
				case 5:
					for _, s := range servers {
						s.drop()
					}
				}
			}
			for _, s := range servers {
				s.set(func() { s.behind, s.mute, s.refuse = 0, false, false })
				s.drop()
			}
			for i, r := range readers {
				from := []uint32{start.Index + 1, 5}[i]
				want := strings.Join(n.expected(b.Account(), from), "\n")
				eventually(t, "all transactions are read", func() bool {
					got := r.hashes()
					return len(got) >= strings.Count(want, "\n")+1
				})
				if got := strings.Join(r.hashes(), "\n"); got != want {
					t.Errorf("reader from %d got\n%s\nwant\n%s", from, got, want)
				}
				if len(r.gaps) > 0 {
					t.Errorf("gaps: %v", r.gaps)
				}
			}
		})
	}
}

// A push that never comes delays, but loses nothing.
func TestMutePushIsFoundOut(t *testing.T) {
	n := newNetwork()
	s := n.server(t)
	c, ctx := connect(t, Options{}, s), background(t)
	a, b := keys(t, "a"), keys(t, "b")
	stream, err := c.Transactions(ctx, b.Account(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.mute = true })
	n.put(payment(t, a, b.Account(), 1, 0))
	ledger := n.close()
	s.set(func() { s.mute = false })
	for range recheck + 1 {
		n.close()
	}
	if x, err := stream.Next(ctx); err != nil || x.Ledger != ledger {
		t.Errorf("%v, %v", x, err)
	}
}

func TestMissingHistoryIsToldAsAGap(t *testing.T) {
	n := newNetwork()
	s := n.server(t)
	a, b := keys(t, "a"), keys(t, "b")
	n.put(payment(t, a, b.Account(), 1, 0))
	n.close()
	for range 5 {
		n.close()
	}
	n.put(payment(t, a, b.Account(), 2, 0))
	last := n.close()
	s.from = last - 2
	c, ctx := connect(t, Options{}, s), background(t)
	stream, err := c.Transactions(ctx, b.Account(), 3)
	if err != nil {
		t.Fatal(err)
	}
	var gap *GapError
	if _, err := stream.Next(ctx); !errors.As(err, &gap) || gap.From != 3 || gap.To != s.from-1 {
		t.Fatalf("%v", err)
	}
	if x, err := stream.Next(ctx); err != nil || x.Ledger != last {
		t.Fatalf("%v, %v", x, err)
	}
	ledgers, err := c.Ledgers(ctx, 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledgers.Next(ctx); !errors.As(err, &gap) || gap.From != 4 || gap.To != s.from-1 {
		t.Fatalf("%v", err)
	}
	for i := s.from; i <= last; i++ {
		if info, err := ledgers.Next(ctx); err != nil || info.Index != i || info.Hash != hashOf(i) {
			t.Fatalf("%+v, %v", info, err)
		}
	}
}

func TestLedgersMissNothing(t *testing.T) {
	n := newNetwork()
	servers := []*fakeServer{n.server(t), n.server(t)}
	c, ctx := connect(t, Options{}, servers...), background(t)
	start, err := c.Ledger(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ledgers, err := c.Ledgers(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	go func() {
		for range 400 {
			n.close()
			if s := servers[r.IntN(2)]; r.IntN(10) == 0 {
				s.drop()
			}
		}
		for _, s := range servers {
			s.drop()
		}
	}()
	for i := start.Index + 1; i <= start.Index+400; i++ {
		info, err := ledgers.Next(ctx)
		if err != nil || info.Index != i || info.Hash != hashOf(i) || !info.Time.Equal(xahau.Time(700_000_000+i)) {
			t.Fatalf("%+v, %v, want ledger %d", info, err, i)
		}
	}
}

func TestAutofill(t *testing.T) {
	n := newNetwork()
	s := n.server(t)
	s.fee = "1234"
	c, ctx := connect(t, Options{}, s), background(t)
	a := keys(t, "a")
	tx := xahau.Payment(a.Account(), xahau.AccountOne, xahau.Drops(1))
	if err := c.Autofill(ctx, tx, AutofillOptions{}); err != nil {
		t.Fatal(err)
	}
	if tx.Uint32(field.NetworkID) != 21338 || tx.Uint32(field.Sequence) != 5 || tx.Uint32(field.LastLedgerSequence) != n.tip()+DefaultWindow || tx.Amount(field.Fee) != xahau.Drops(1234) {
		j, _ := n.defs.JSON(tx)
		t.Errorf("%s", j)
	}
	if err := n.defs.CheckTransaction(tx); err == nil || !strings.Contains(err.Error(), "SigningPubKey is missing") {
		t.Error(err)
	}
	// What is there stays.
	kept := tx.Clone()
	kept.Set(field.Fee, xahau.Drops(7))
	before := kept.Clone()
	if err := c.Autofill(ctx, kept, AutofillOptions{Window: 3}); err != nil || !kept.Equal(before) {
		t.Error(err)
	}
	ticket := xahau.Payment(a.Account(), xahau.AccountOne, xahau.Drops(1))
	ticket.Set(field.TicketSequence, xahau.Uint32(9))
	if err := c.Autofill(ctx, ticket, AutofillOptions{Window: 3, Signers: 2}); err != nil {
		t.Fatal(err)
	}
	if !ticket.Has(field.Sequence) || ticket.Uint32(field.Sequence) != 0 || ticket.Amount(field.Fee) != xahau.Drops(1254) || ticket.Uint32(field.LastLedgerSequence) != n.tip()+3 {
		j, _ := n.defs.JSON(ticket)
		t.Errorf("%s", j)
	}
	var fee *FeeError
	if err := c.Autofill(ctx, xahau.Payment(a.Account(), xahau.AccountOne, xahau.Drops(1)), AutofillOptions{MaxFee: 100}); !errors.As(err, &fee) || fee.Fee != 1234 {
		t.Error(err)
	}
	if err := c.Autofill(ctx, xahau.Payment(xahau.AccountZero, xahau.AccountOne, xahau.Drops(1)), AutofillOptions{}); !IsServerError(err, "actNotFound") {
		t.Error(err)
	}
	s.set(func() { s.fee = "much" })
	if _, err := c.Fee(ctx, tx, 0); err == nil {
		t.Error("a fee that is no number is accepted")
	}
}

// run closes ledgers until the test is over.
func (n *network) run(t *testing.T) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				n.close()
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

func TestSendOutcomes(t *testing.T) {
	n := newNetwork()
	s := n.server(t)
	journal := &MemoryJournal{}
	c, ctx := connect(t, Options{Journal: journal}, s), background(t)
	if _, err := c.Ledger(ctx); err != nil {
		t.Fatal(err)
	}
	n.run(t)
	a := keys(t, "a")
	send := func(window uint32) (*Transaction, error) {
		return c.Send(ctx, xahau.Payment(a.Account(), xahau.AccountOne, xahau.Drops(1)), a, SubmitOptions{AutofillOptions: AutofillOptions{Window: window}})
	}
	x, err := send(20)
	if err != nil || x.Result != ter.TesSUCCESS || x.Tx.Amount(field.Amount) != xahau.Drops(1) {
		t.Fatalf("%+v, %v", x, err)
	}
	if n.submitted[x.Hash] == 0 {
		t.Error("not submitted")
	}

	set := func(f func(*xahau.Signed) (string, bool)) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.accept = f
	}
	var failed *ResultError
	set(func(s *xahau.Signed) (string, bool) { n.results[s.ID] = "tecHOOK_REJECTED"; return "tesSUCCESS", true })
	x, err = send(20)
	if !errors.As(err, &failed) || failed.Code != ter.TecHOOK_REJECTED || x == nil || failed.Transaction != x || !strings.Contains(err.Error(), `"hello"`) {
		t.Errorf("%+v, %v", x, err)
	}
	set(func(*xahau.Signed) (string, bool) { return "temBAD_AMOUNT", false })
	x, err = send(20)
	if !errors.As(err, &failed) || failed.Code != ter.TemBAD_AMOUNT || x != nil || failed.Transaction != nil {
		t.Errorf("%+v, %v", x, err)
	}
	set(func(*xahau.Signed) (string, bool) { return "telINSUF_FEE_P", false })
	if x, err = send(5); !errors.Is(err, ErrExpired) || x != nil {
		t.Errorf("%+v, %v", x, err)
	}
	// Only the third time it gets in.
	times := 0
	set(func(*xahau.Signed) (string, bool) {
		if times++; times < 3 {
			return "terQUEUED", false
		}
		return "tesSUCCESS", true
	})
	if x, err = send(200); err != nil {
		t.Errorf("%+v, %v", x, err)
	}
	if left, _ := journal.Load(ctx); len(left) > 0 {
		t.Errorf("the journal keeps %v", left)
	}
	if x, err := c.Lookup(ctx, x.Hash); err != nil || x == nil {
		t.Error(x, err)
	}
	if x, err := c.Lookup(ctx, xahau.Hash256{1}); err != nil || x != nil {
		t.Error(x, err)
	}
	unending := payment(t, a, xahau.AccountOne, 50, 0)
	if _, err := c.Submit(ctx, unending, SubmitOptions{}); err == nil || !strings.Contains(err.Error(), "LastLedgerSequence") {
		t.Error(err)
	}
}

// Many at once, over connections that break all the time: each is in a ledger
// exactly once.
func TestSubmissionSurvivesBrokenConnections(t *testing.T) {
	n := newNetwork()
	servers := []*fakeServer{n.server(t), n.server(t)}
	c, ctx := connect(t, Options{}, servers...), background(t)
	if _, err := c.Ledger(ctx); err != nil {
		t.Fatal(err)
	}
	n.run(t)
	stop, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(7 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
				servers[i%2].drop()
			case <-stop:
				return
			}
		}
	}()
	var all sync.WaitGroup
	for i := range 5 {
		k := keys(t, fmt.Sprint(i))
		for range 5 {
			all.Go(func() {
				x, err := c.Send(ctx, xahau.Payment(k.Account(), xahau.AccountOne, xahau.Drops(1)), k, SubmitOptions{AutofillOptions: AutofillOptions{Window: 5000}})
				if err != nil || x.Result != ter.TesSUCCESS {
					t.Errorf("%+v, %v", x, err)
				}
			})
		}
	}
	all.Wait()
	close(stop)
	<-over
	for i := range 5 {
		account := keys(t, fmt.Sprint(i)).Account()
		sequences := map[uint32]bool{}
		n.mu.Lock()
		for _, l := range n.ledgers {
			for _, x := range l {
				if x.Tx.Account(field.Account) == account {
					sequences[x.Tx.Uint32(field.Sequence)] = true
				}
			}
		}
		n.mu.Unlock()
		if len(sequences) != 5 {
			t.Errorf("account %d has %d transactions", i, len(sequences))
		}
	}
}

// A program that ends in the middle goes on where it was, from the files it left.
func TestResumeAfterRestart(t *testing.T) {
	n := newNetwork()
	s := n.server(t)
	dir := DirJournal(t.TempDir())
	a := keys(t, "a")
	ctx := background(t)
	n.accept = func(*xahau.Signed) (string, bool) { return "terQUEUED", false }

	// One is in a ledger while the program is away, one comes too late, one was
	// saved but never sent.
	landed, late, unsent := payment(t, a, xahau.AccountOne, 1, 5000), payment(t, a, xahau.AccountOne, 2, 15), payment(t, a, xahau.AccountOne, 3, 5000)
	first := connect(t, Options{Journal: dir}, s)
	for _, x := range []*xahau.Signed{landed, late} {
		stop, cancel := context.WithCancel(ctx)
		go func() {
			eventually(t, "submitted", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.submitted[x.ID] > 0 })
			cancel()
		}()
		if _, err := first.Submit(stop, x, SubmitOptions{Note: "note of " + x.ID.String()}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if _, err := first.pending(ctx, unsent, ""); err != nil {
		t.Fatal(err)
	}
	first.Close()

	n.put(landed)
	for range 10 {
		n.close()
	}
	n.mu.Lock()
	n.accept = nil
	n.mu.Unlock()

	second := connect(t, Options{Journal: dir}, s)
	if _, err := second.Ledger(ctx); err != nil {
		t.Fatal(err)
	}
	n.run(t)
	outcomes := map[xahau.Hash256]error{}
	var mu sync.Mutex
	err := second.Resume(ctx, func(p Pending, x *Transaction, err error) {
		mu.Lock()
		defer mu.Unlock()
		outcomes[p.ID] = err
		if p.ID == landed.ID && (x == nil || x.Ledger == 0 || p.Note != "note of "+p.ID.String()) {
			t.Errorf("%+v %+v", p, x)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(outcomes) != 3 || outcomes[landed.ID] != nil || !errors.Is(outcomes[late.ID], ErrExpired) || outcomes[unsent.ID] != nil {
		t.Errorf("%v", outcomes)
	}
	if n.submitted[landed.ID] != 1 {
		t.Errorf("what had landed was sent %d times", n.submitted[landed.ID])
	}
	left, err := os.ReadDir(string(dir))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A server that lacks ledgers cannot tell that a transaction has failed.
func TestExpiryNeedsAllLedgers(t *testing.T) {
	n := newNetwork()
	s := n.server(t)
	a := keys(t, "a")
	c, ctx := connect(t, Options{}, s), background(t)
	if _, err := c.Ledger(ctx); err != nil {
		t.Fatal(err)
	}
	n.accept = func(*xahau.Signed) (string, bool) { return "terQUEUED", false }
	x := payment(t, a, xahau.AccountOne, 1, n.tip()+3)
	result := make(chan error, 1)
	go func() {
		_, err := c.Submit(ctx, x, SubmitOptions{})
		result <- err
	}()
	eventually(t, "submitted", func() bool { return s.count("submit") > 0 })
	from := s.from
	s.set(func() { s.from = n.tip() + 3 })
	for range 5 {
		n.close()
	}
	asked := s.count("tx")
	eventually(t, "asked thrice more", func() bool { return s.count("tx") > asked+3 })
	select {
	case err := <-result:
		t.Fatalf("the outcome is said to be known: %v", err)
	default:
	}
	s.set(func() { s.from = from })
	n.close()
	if err := <-result; !errors.Is(err, ErrExpired) {
		t.Error(err)
	}
}

func TestJournalFiles(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	j := DirJournal(dir)
	x := payment(t, keys(t, "a"), xahau.AccountOne, 1, 20)
	p := Pending{ID: x.ID, Blob: x.Blob, First: 3, Last: 20, Note: "a note"}
	if err := j.Save(ctx, p); err != nil {
		t.Fatal(err)
	}
	list, err := j.Load(ctx)
	if err != nil || len(list) != 1 || list[0].Note != "a note" || string(list[0].Blob) != string(x.Blob) || list[0].First != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "saving-123"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err = j.Load(ctx); err != nil || len(list) != 1 {
		t.Errorf("a half-written file is in the way: %v", err)
	}
	for range 2 {
		if err := j.Remove(ctx, x.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bad"+pendingSuffix), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Load(ctx); err == nil || !strings.Contains(err.Error(), "bad") {
		t.Errorf("%v", err)
	}
	if err := DirJournal(filepath.Join(dir, "none")).Save(ctx, p); err == nil {
		t.Error("saved nowhere")
	}
}

// Whatever a server sends, the client takes it or leaves the server.
func FuzzReceive(f *testing.F) {
	for _, s := range []string{`{"type":"ledgerClosed","ledger_index":5,"ledger_hash":"00"}`, `{"type":"transaction","validated":true,"ledger_index":3}`, `{"id":1,"result":{}}`, `{"id":1,"error":"x"}`, `[]`, `{"type":"ledgerClosed","ledger_index":4294967295}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Client{log: discard(), changed: make(chan struct{}), recent: map[uint32]LedgerInfo{}, watches: map[xahau.AccountID]*watch{{}: {}}}
		ch := make(chan reply, 1)
		n := &connection{client: c, done: make(chan struct{}), pending: map[uint64]chan<- reply{1: ch}}
		n.receive(b)
		n.receive(b)
	})
}

func FuzzTransaction(f *testing.F) {
	f.Add([]byte(`{"hash":"AB","TransactionType":"Payment"}`), []byte(`{"TransactionResult":"tesSUCCESS","delivered_amount":"unavailable","HookExecutions":[{"HookExecution":{}}]}`))
	f.Fuzz(func(t *testing.T, tx, meta []byte) {
		c := &Client{}
		c.defs.Store(xahau.DefaultDefinitions())
		if x, err := c.parse(tx, meta, 5); err == nil {
			x.HookExecutions()
		}
	})
}

func FuzzPending(f *testing.F) {
	f.Add([]byte(`{"id":"00","blob":"AAAA","last_ledger":5}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePending(b); err == nil && p.check() != nil {
			t.Fatal(p)
		}
	})
}
