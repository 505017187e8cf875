package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"evernode/xahau"
)

// Options says how a Client works. The zero value of a field is its default.
type Options struct {
	// Servers are addresses (wss, ws, https, http) in the order of preference.
	Servers []string
	// Definitions are used for what is sent and received; default the embedded ones.
	Definitions *xahau.Definitions
	// Journal keeps submissions across restarts; default none.
	Journal Journal
	Logger  *slog.Logger // default: discards
	TLS     *tls.Config
	// RequestTimeout is how long a server may take to answer before the connection
	// counts as broken; default 20 s.
	RequestTimeout time.Duration
	// StaleAfter is how long no ledger may close before the server is asked whether
	// it is still part of the network; default 20 s.
	StaleAfter time.Duration
	// PollInterval is how often a server over HTTP is asked for its last ledger;
	// default 1 s.
	PollInterval time.Duration
	// MinBackoff and MaxBackoff bound the pauses after all servers have failed;
	// default 250 ms and 30 s.
	MinBackoff, MaxBackoff time.Duration
	// MaxMessage is the largest message accepted from a server, in bytes; default
	// 32 MiB.
	MaxMessage int
}

// ErrClosed is wrapped by all errors after Close.
var ErrClosed = errors.New("client is closed")

// LedgerInfo names a validated ledger.
type LedgerInfo struct {
	Index uint32
	Hash  xahau.Hash256
	// Time is when it closed.
	Time time.Time
}

// Client is a connection to a network. Its methods may be called at the same
// time.
type Client struct {
	opt    Options
	log    *slog.Logger
	defs   atomic.Pointer[xahau.Definitions]
	ctx    context.Context
	cancel context.CancelFunc
	over   sync.WaitGroup
	http   *http.Client

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when something below changes
	conn     *connection
	why      error // why there is no connection
	tip      LedgerInfo
	recent   map[uint32]LedgerInfo
	network  uint32
	watches  map[xahau.AccountID]*watch
	accounts map[xahau.AccountID]*sync.Mutex
}

// watch is an account that somebody reads the transactions of.
type watch struct {
	readers int
	// rung is the last ledger that may have transactions of the account.
	rung uint32
}

const (
	// recentLedgers is how many ledgers are remembered from the stream.
	recentLedgers = 256
	// recheck is after how many ledgers an account is looked at though nothing
	// was pushed for it.
	recheck = 20
)

// New makes a client and begins to connect. Close ends it.
func New(opt Options) (*Client, error) {
	if len(opt.Servers) == 0 {
		return nil, errors.New("no servers")
	}
	for _, s := range opt.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || !strings.Contains(" ws wss http https ", " "+u.Scheme+" ") {
			return nil, fmt.Errorf("server %q is not an address with ws, wss, http or https", s)
		}
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&opt.RequestTimeout, 20*time.Second)
	def(&opt.StaleAfter, 20*time.Second)
	def(&opt.PollInterval, time.Second)
	def(&opt.MinBackoff, 250*time.Millisecond)
	def(&opt.MaxBackoff, 30*time.Second)
	if opt.MaxMessage <= 0 {
		opt.MaxMessage = 32 << 20
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Definitions == nil {
		opt.Definitions = xahau.DefaultDefinitions()
	}
	c := &Client{
		opt:      opt,
		log:      opt.Logger,
		changed:  make(chan struct{}),
		recent:   map[uint32]LedgerInfo{},
		watches:  map[xahau.AccountID]*watch{},
		accounts: map[xahau.AccountID]*sync.Mutex{},
		why:      errors.New("not connected yet"),
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = opt.TLS
	c.http = &http.Client{Transport: transport}
	c.defs.Store(opt.Definitions)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.over.Add(1)
	go func() {
		defer c.over.Done()
		c.run()
	}()
	return c, nil
}

// Close ends the connection and everything that waits.
func (c *Client) Close() {
	c.cancel()
	c.over.Wait()
	c.http.CloseIdleConnections()
}

// Definitions are those in use.
func (c *Client) Definitions() *xahau.Definitions { return c.defs.Load() }

// UseServerDefinitions asks the server for its definitions and uses them from
// now on.
func (c *Client) UseServerDefinitions(ctx context.Context) error {
	raw, err := c.RequestRaw(ctx, "server_definitions", nil)
	if err != nil {
		return err
	}
	d, err := xahau.ParseDefinitions(raw)
	if err != nil {
		return fmt.Errorf("server_definitions: %w", err)
	}
	c.defs.Store(d)
	return nil
}

// update changes what others wait for.
func (c *Client) update(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// wait waits until f, which is called with the lock held, says so.
func (c *Client) wait(ctx context.Context, f func() bool) error {
	for {
		c.mu.Lock()
		ok, changed, why := f(), c.changed, c.why
		connected := c.conn != nil
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			if !connected && why != nil {
				return fmt.Errorf("%w, and no server is connected: %w", ctx.Err(), why)
			}
			return ctx.Err()
		}
	}
}

// connected waits for a connection.
func (c *Client) connected(ctx context.Context) (conn *connection, err error) {
	err = c.wait(ctx, func() bool {
		conn = c.conn
		return conn != nil
	})
	return conn, err
}

// Ledger is the last validated ledger known, after waiting for the first one.
func (c *Client) Ledger(ctx context.Context) (info LedgerInfo, err error) {
	err = c.wait(ctx, func() bool {
		info = c.tip
		return info.Index > 0
	})
	return info, err
}

// WaitLedger waits until a ledger or a later one is validated.
func (c *Client) WaitLedger(ctx context.Context, index uint32) (info LedgerInfo, err error) {
	err = c.wait(ctx, func() bool {
		info = c.tip
		return info.Index >= index && info.Index > 0
	})
	return info, err
}

// NetworkID is the network's number, as its servers say.
func (c *Client) NetworkID(ctx context.Context) (id uint32, err error) {
	err = c.wait(ctx, func() bool {
		id = c.network
		return c.tip.Index > 0
	})
	return id, err
}

// Server is the address of the server that is connected, "" for none.
func (c *Client) Server() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return ""
	}
	return c.conn.server
}

// run keeps a connection.
func (c *Client) run() {
	next, failures := 0, 0
	for c.ctx.Err() == nil {
		server := c.opt.Servers[next]
		start := time.Now()
		worked, err := c.serve(server)
		lasted := time.Since(start)
		if c.ctx.Err() != nil {
			break
		}
		c.log.Warn("connection to a server is over", "server", server, "worked", worked, "lasted", lasted.Round(time.Millisecond), "err", err)
		c.update(func() { c.why = fmt.Errorf("%s: %w", server, err) })
		// A server that worked and only lost the connection is tried again first.
		if !worked || !errors.Is(err, errLost) {
			next = (next + 1) % len(c.opt.Servers)
		}
		if worked && lasted >= c.opt.StaleAfter {
			failures = 0
		} else {
			failures++
		}
		if !worked && failures < len(c.opt.Servers) {
			continue
		}
		pause := min(c.opt.MinBackoff<<min(failures/len(c.opt.Servers), 16), c.opt.MaxBackoff)
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-c.ctx.Done():
		}
	}
	c.update(func() { c.why = ErrClosed })
}

// validated takes notice of a ledger.
func (c *Client) validated(info LedgerInfo, ringAll bool) {
	c.update(func() {
		c.recent[info.Index] = info
		delete(c.recent, info.Index-recentLedgers)
		if info.Index > c.tip.Index {
			c.tip = info
		}
		for _, w := range c.watches {
			if ringAll || info.Index >= w.rung+recheck {
				w.rung = max(w.rung, info.Index)
			}
		}
	})
}
