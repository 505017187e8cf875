package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"evernode/internal/journal/disk"
	"evernode/xahau"
	"evernode/xahau/standalone/apply"
	"evernode/xahau/standalone/chain"
	"evernode/xahau/standalone/hook"
	"evernode/xahau/standalone/shamap"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
)

// Errors of a Ledger.
var (
	// ErrBusy is returned when too many submissions wait already.
	ErrBusy = errors.New("too many transactions are waiting to be tried")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the ledger is closed")
)

// DefaultNetworkID is that of the public test network, which tools know.
const DefaultNetworkID = 21338

// MasterSeed is the seed of the account that holds all native currency of a new
// network. Everybody knows it, so it must not be used where money is at stake.
const MasterSeed = "snoPBrXtMeMyMHUVTgbuqAfg1SUTb"

// Master gives the keys of the account that holds all native currency of a new
// network.
func Master() (xahau.KeyPair, error) {
	seed, err := xahau.ParseSeed(MasterSeed)
	if err != nil {
		return xahau.KeyPair{}, fmt.Errorf("seed of the first account: %w", err)
	}
	return seed.KeyPair(), nil
}

// Config says how a ledger is kept. The zero value of a field is its default.
type Config struct {
	// Dir is the folder of the ledgers; without one they are kept in memory only.
	Dir string
	// NetworkID tells networks apart; default DefaultNetworkID. A folder keeps its own.
	NetworkID uint32
	// Genesis is the first ledger of a new network; by default the account of
	// MasterSeed has all there is. CloseTime and NetworkID are filled in.
	Genesis *apply.Genesis
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Waiting is how many submissions may wait at the same time; default 1024.
	Waiting int
	// OpenTransactions is how many the open ledger takes; default 20000.
	OpenTransactions int
	// StateLedgers and HistoryLedgers are as in chain.Config.
	StateLedgers, HistoryLedgers uint32
	Log                          *slog.Logger // default: discards
}

func (c *Config) setDefaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Waiting == 0 {
		c.Waiting = 1024
	}
	if c.OpenTransactions == 0 {
		c.OpenTransactions = 20_000
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Ledger is an open network of one server. Its methods are safe for concurrent use.
type Ledger struct {
	cfg     Config
	network uint32
	defs    *xahau.Definitions
	chain   *chain.Chain
	machine *hook.Machine
	engine  *tx.Engine
	apply   apply.Config
	waiting chan struct{} // an element for each submission that waits or is tried
	started time.Time

	closing sync.Mutex // held while a ledger is closed, made durable and announced

	mu     sync.Mutex // guards the open ledger
	open   *apply.Open
	closed bool

	validated atomic.Pointer[chain.Closed]

	listeners sync.Mutex
	onClosed  map[*Listener]struct{}
}

// Open opens the ledger in a folder, or makes a new one.
func Open(ctx context.Context, cfg Config) (_ *Ledger, err error) {
	cfg.setDefaults()
	l := &Ledger{
		cfg: cfg, defs: xahau.DefaultDefinitions(), waiting: make(chan struct{}, cfg.Waiting), started: cfg.Now(),
		onClosed: map[*Listener]struct{}{},
	}
	config := chain.Config{Dir: cfg.Dir, StateLedgers: cfg.StateLedgers, HistoryLedgers: cfg.HistoryLedgers, Log: cfg.Log}
	if cfg.Dir == "" {
		config.Dir, config.FS = "ledger", chain.Memory()
	} else {
		config.FS = disk.OS{}
	}
	if l.chain, err = chain.Open(config); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.release(ctx)
		}
	}()
	// The folder is locked by the chain from here on.
	if l.network, err = networkOf(cfg); err != nil {
		return nil, err
	}
	if l.machine, err = hook.New(ctx, hook.Config{Log: cfg.Log, Definitions: l.defs}); err != nil {
		return nil, fmt.Errorf("hook machine: %w", err)
	}
	l.engine = &tx.Engine{Table: tx.Standard().Add(tx.URITokens()).Add(tx.Offers()).Add(tx.SetHook(l.machine, cfg.Log))}
	hooks := apply.NewHooks(l.machine, l.engine, l.past)
	l.apply = apply.Config{Engine: l.engine, Emissions: hooks, NetworkID: l.network, Defs: l.defs}
	if err := l.begin(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// past gives hooks the transactions of closed ledgers.
func (l *Ledger) past(id xahau.Hash256) ([]byte, error) {
	t, err := l.chain.Transaction(chain.Hash(id))
	if errors.Is(err, chain.ErrNotFound) {
		return nil, nil
	}
	return t.Blob, err
}

// begin goes on from the last ledger that is kept, or makes the first.
func (l *Ledger) begin(ctx context.Context) error {
	last, ok := l.chain.Last()
	var state shamap.Map
	var err error
	if ok {
		state, err = l.chain.State(last.Header.Seq)
	} else {
		var first chain.Ledger
		if first, err = l.genesis(); err == nil {
			if state, err = l.chain.Commit(first); err == nil {
				err = l.chain.Sync(ctx, first.Header.Seq)
			}
			last, _ = l.chain.Last()
		}
	}
	if err != nil {
		return fmt.Errorf("last ledger: %w", err)
	}
	if l.open, err = apply.Next(ctx, l.apply, last.Header, state, nil); err != nil {
		return fmt.Errorf("ledger %d: %w", last.Header.Seq+1, err)
	}
	l.validated.Store(&last)
	return nil
}

func (l *Ledger) genesis() (chain.Ledger, error) {
	var g apply.Genesis
	if l.cfg.Genesis != nil {
		g = *l.cfg.Genesis
	} else {
		keys, err := Master()
		if err != nil {
			return chain.Ledger{}, err
		}
		g.Accounts = []apply.Account{{ID: keys.Account(), Balance: xahau.MaxDrops}}
	}
	g.NetworkID = l.network
	if g.CloseTime == 0 {
		g.CloseTime = xahau.LedgerTime(l.cfg.Now())
	}
	return g.Ledger(l.defs)
}

// NetworkID tells networks apart; transactions must name those above 1024.
func (l *Ledger) NetworkID() uint32 { return l.network }

// Definitions are those of the binary forms.
func (l *Ledger) Definitions() *xahau.Definitions { return l.defs }

// Started is when the ledger was opened.
func (l *Ledger) Started() time.Time { return l.started }

// Now is the clock's time.
func (l *Ledger) Now() time.Time { return l.cfg.Now() }

// Failed is closed when the store of the ledgers has failed and the ledger must
// stop; Err then tells why.
func (l *Ledger) Failed() <-chan struct{} { return l.chain.Failed() }

// Err is why the store of the ledgers has failed, nil while it works.
func (l *Ledger) Err() error { return l.chain.Err() }

// Close ends the ledger. What was closed is kept; transactions of the open ledger
// are lost, as they are on a server of the network.
func (l *Ledger) Close(ctx context.Context) error {
	l.closing.Lock()
	defer l.closing.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	return l.release(ctx)
}

func (l *Ledger) release(ctx context.Context) error {
	err := l.chain.Close()
	if l.machine != nil {
		err = errors.Join(err, l.machine.Close(ctx))
	}
	return err
}

// Validated is the last ledger that is durable.
func (l *Ledger) Validated() chain.Closed { return *l.validated.Load() }

// First is the first ledger that is kept.
func (l *Ledger) First() uint32 {
	first, _ := l.chain.Range()
	return first
}

// History gives what is kept of closed ledgers. Ledgers after Validated are not
// durable yet and must not be shown as final.
func (l *Ledger) History() *chain.Chain { return l.chain }

// State gives the state of a closed ledger, for one goroutine. Errors are those of
// chain.Chain.State.
func (l *Ledger) State(c chain.Closed) (*view.Closed, shamap.Map, error) {
	m, err := l.chain.State(c.Header.Seq)
	if err != nil {
		return nil, m, err
	}
	v := view.Ledger{Seq: c.Header.Seq, ParentHash: xahau.Hash256(c.Header.ParentHash), ParentCloseTime: c.Header.ParentCloseTime,
		NetworkID: l.network, Defs: l.defs}
	v.Fees = tx.ReadFees(view.NewClosed(m, v))
	return view.NewClosed(m, v), m, nil
}

// Current lets f read the open ledger with the transactions tried so far. Nothing
// else goes on meanwhile: f must be short, and must not keep the reader.
func (l *Ledger) Current(f func(r view.Reader) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if err := f(l.open.View()); err != nil {
		return err
	}
	return l.open.View().Err()
}
