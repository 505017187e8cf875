package standalone

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t *testing.T, cfg Config) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

func accept(t *testing.T, l *Ledger) uint32 {
	t.Helper()
	c, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.Header.Seq
}

// pay signs a payment of the first account.
func pay(t *testing.T, l *Ledger, to string, drops int64, sequence uint32) []byte {
	t.Helper()
	keys, err := Master()
	if err != nil {
		t.Fatal(err)
	}
	tx := xahau.Payment(keys.Account(), account(to), xahau.Drops(drops))
	tx.Set(field.Sequence, xahau.Uint32(sequence))
	tx.Set(field.Fee, xahau.Drops(10))
	tx.Set(field.NetworkID, xahau.Uint32(l.NetworkID()))
	s, err := l.Definitions().Sign(tx, keys)
	if err != nil {
		t.Fatal(err)
	}
	return s.Blob
}

func account(name string) xahau.AccountID {
	return xahau.SeedFromPassphrase(name, xahau.Ed25519).KeyPair().Account()
}

func submit(t *testing.T, l *Ledger, blob []byte, want ter.Code) *Submission {
	t.Helper()
	s, err := l.Submit(t.Context(), blob)
	if err != nil {
		t.Fatal(err)
	}
	if s.Result != want {
		t.Fatalf("%s (%v), want %s", s.Result, s.Reason, want)
	}
	return s
}

func balance(t *testing.T, l *Ledger, name string) int64 {
	t.Helper()
	v, _, err := l.State(l.Validated())
	if err != nil {
		t.Fatal(err)
	}
	return view.Balance(v, account(name))
}

// A ledger in a folder goes on where it was, with the same network, hashes and
// money.
func TestGoesOn(t *testing.T) {
	c := newClock()
	cfg := Config{Dir: filepath.Join(t.TempDir(), "ledger"), NetworkID: 4711, Now: c.get}
	l := open(t, cfg)
	submit(t, l, pay(t, l, "alice", 5_000_000, 1), ter.TesSUCCESS)
	c.move(3 * time.Second)
	accept(t, l)
	submit(t, l, pay(t, l, "alice", 5_000_000, 2), ter.TesSUCCESS) // is lost
	before := l.Validated()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Submit(t.Context(), pay(t, l, "alice", 1, 3)); !errors.Is(err, ErrClosed) {
		t.Errorf("submitted after Close: %v", err)
	}
	if _, err := l.Accept(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("closed after Close: %v", err)
	}
	cfg.NetworkID = 4712
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "4711") {
		t.Errorf("opened as another network: %v", err)
	}
	cfg.NetworkID = 0
	l = open(t, cfg)
	if l.Validated() != before || l.NetworkID() != 4711 {
		t.Fatalf("goes on with %+v of network %d, was %+v", l.Validated(), l.NetworkID(), before)
	}
	if got := balance(t, l, "alice"); got != 5_000_000 {
		t.Errorf("balance %d", got)
	}
	submit(t, l, pay(t, l, "alice", 5_000_000, 1), ter.TefALREADY)
	submit(t, l, pay(t, l, "alice", 6_000_000, 1), ter.TefPAST_SEQ)
	submit(t, l, pay(t, l, "alice", 5_000_000, 2), ter.TesSUCCESS)
	// Times go up even if the clock does not.
	if seq := accept(t, l); seq != before.Header.Seq+1 || l.Validated().Header.CloseTime <= before.Header.CloseTime {
		t.Errorf("ledger %+v after %+v", l.Validated(), before)
	}
	if got := balance(t, l, "alice"); got != 10_000_000 {
		t.Errorf("balance %d", got)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, networkFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), networkFile) {
		t.Errorf("opened with a damaged file: %v", err)
	}
}

// Transactions that come too early wait, over ledgers too.
func TestHeld(t *testing.T) {
	c := newClock()
	l := open(t, Config{Now: c.get})
	s := submit(t, l, pay(t, l, "bob", 5_000_000, 2), ter.TerPRE_SEQ)
	if !s.Queued || s.Applied || s.Next != 1 {
		t.Errorf("%+v", s)
	}
	accept(t, l)
	if got := balance(t, l, "bob"); got != 0 {
		t.Fatalf("balance %d", got)
	}
	if p := l.Pending(s.Tx.ID); p == nil {
		t.Error("it is not pending")
	}
	s = submit(t, l, pay(t, l, "alice", 5_000_000, 1), ter.TesSUCCESS)
	if in, held := l.OpenTransactions(); in != 2 || held != 0 || s.Next != 3 {
		t.Errorf("%d transactions, %d held, %+v", in, held, s)
	}
	accept(t, l)
	if a, b := balance(t, l, "alice"), balance(t, l, "bob"); a != 5_000_000 || b != 5_000_000 {
		t.Errorf("balances %d, %d", a, b)
	}
}

func TestBounds(t *testing.T) {
	c := newClock()
	l := open(t, Config{Now: c.get, OpenTransactions: 1, Waiting: 1})
	submit(t, l, pay(t, l, "alice", 5_000_000, 1), ter.TesSUCCESS)
	submit(t, l, pay(t, l, "alice", 5_000_000, 2), ter.TelCAN_NOT_QUEUE_FULL)
	l.waiting <- struct{}{}
	if _, err := l.Submit(t.Context(), pay(t, l, "alice", 5_000_000, 2)); !errors.Is(err, ErrBusy) {
		t.Errorf("a transaction too many: %v", err)
	}
	<-l.waiting
	var malformed *MalformedError
	if _, err := l.Submit(t.Context(), []byte{1, 2, 3}); !errors.As(err, &malformed) {
		t.Errorf("nonsense: %v", err)
	}
	if _, err := l.Fee([]byte{1, 2, 3}); !errors.As(err, &malformed) {
		t.Errorf("the fee of nonsense: %v", err)
	}
}

// The clock that is handed in closes ledgers, and listeners hear of each, in order,
// when it is final.
func TestRun(t *testing.T) {
	c := newClock()
	l := open(t, Config{Now: c.get})
	heard := make(chan *Event, 10)
	stop := l.Listen(func(e *Event) {
		if l.Validated() != e.Ledger {
			t.Errorf("ledger %d is announced while %d is the last", e.Ledger.Header.Seq, l.Validated().Header.Seq)
		}
		heard <- e
	})
	ctx, cancel := context.WithCancel(t.Context())
	ticks := make(chan time.Time)
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, ticks) }()
	submit(t, l, pay(t, l, "alice", 5_000_000, 1), ter.TesSUCCESS)
	first := l.Validated().Header.Seq
	for i := range uint32(3) {
		c.move(3 * time.Second)
		ticks <- c.get()
		e := <-heard
		if e.Ledger.Header.Seq != first+1+i || e.Ledger.Header.CloseTime != xahau.LedgerTime(c.get()) {
			t.Errorf("heard of ledger %+v", e.Ledger.Header)
		}
		if n := len(e.Closed.Results); (n == 1) != (i == 0) {
			t.Errorf("ledger %d has %d transactions", e.Ledger.Header.Seq, n)
		}
	}
	stop()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// The current ledger can be read beside.
	err := l.Current(func(r view.Reader) error {
		if r.Ledger().Seq != first+4 || r.Read(keylet.Account(account("alice"))) == nil {
			t.Errorf("the current ledger is %+v", r.Ledger())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
