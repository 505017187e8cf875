package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"slices"
	"sync"
	"time"

	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
)

// Options say whom to connect to and as whom.
type Options struct {
	// Servers are the addresses of nodes, like wss://host:8080.
	Servers []string
	// Key is the user's key, see GenerateKey and the package comment.
	Key key.Private
	// ContractID and ContractVersion are what nodes must run; empty for any.
	ContractID, ContractVersion string
	// TrustedKeys are the keys of nodes to trust, none for any node.
	TrustedKeys []key.Public
	// TrustedShare is the percentage of the trusted keys that must have signed
	// an output for it to be delivered, 50 to 100; 0 stands for 66, the default
	// threshold of a cluster. The number is rounded up and always more than
	// half. A cluster of n members with the threshold T needs q of them to
	// decide, T percent of n rounded up and more than half; all q sign, so a
	// share equal to the threshold suffices however many members the cluster
	// can do without. A greater share asks for more: with 80, which is fixed in
	// the JavaScript client, a cluster of four gives no verified outputs while
	// one of them is down. A node that lags may have fewer signatures to show
	// than there are, and no node waits for more than 80 %; with a second
	// connection the outputs may come from another that has them.
	TrustedShare int
	Protocol     Protocol
	// Connections is how many nodes to stay connected to, 0 for 1.
	Connections int
	// ConnectTimeout bounds each attempt to connect, 0 for 5 s. A client that
	// has fewer connections than it should for GiveUpAfter closes itself; 0
	// stands for 5 s, a negative value for never.
	ConnectTimeout, GiveUpAfter time.Duration
	// TLS is how to check certificates of nodes; nil for not at all, see the
	// package comment.
	TLS *tls.Config
	// MaxMessage is the greatest message in bytes that is taken from a node, 0
	// for 64 MiB.
	MaxMessage int
	Handler    Handler
	// Log gets what cannot be returned; nil for nothing.
	Log *slog.Logger
}

const (
	defaultTimeout = 5 * time.Second
	defaultMessage = 64 << 20
	// defaultShare is the threshold of a cluster that sets none.
	defaultShare = 66
	// retryPause is how long a server is left alone after it failed or was
	// lost.
	retryPause = 3 * time.Second
	// eventQueue is how many events may wait for the handler.
	eventQueue = 1024
	// seenOutputs is how many outputs are remembered to tell repetitions.
	seenOutputs = 1024
)

// GenerateKey makes a new key for a user. Its Hex is what to keep of it, as a
// secret, and key.ParsePrivate of evernode/hotpocket/key reads that again.
func GenerateKey() (key.Private, error) { return key.Generate() }

// Client is a connection to a cluster. Its methods may be called by several
// goroutines at once.
type Client struct {
	opt    Options
	log    *slog.Logger
	ctx    context.Context // ends when the client closes
	cancel context.CancelCauseFunc
	wait   sync.WaitGroup
	events chan func()

	mu        sync.Mutex
	servers   []*server
	changed   chan struct{} // closed and replaced when a server becomes free or nodes change
	nodes     []*Node       // connected, the longest connected first
	trusted   map[key.Public]bool
	subs      [channelCount]bool
	giveUp    *time.Timer // runs while connections are missing
	pending   map[Hash]*Submission
	graceTime time.Duration // statusGraceTime
	nonce     uint64
	ledger    uint64 // the last ledger heard of
	heardAt   time.Time
	seen      map[Hash]struct{} // outputs delivered, by hash of what they are
	order     []Hash            // of seen, oldest first
}

// server is an address and what is going on with it.
type server struct {
	url   string
	busy  bool
	after time.Time // not to be tried before
}

// Connect connects to as many nodes as are required. The context is for
// connecting only.
func Connect(ctx context.Context, opt Options) (*Client, error) {
	c, err := newClient(opt)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster: %w", err)
	}
	c.wait.Go(c.dispatch)
	c.countConnections()
	for range c.opt.Connections {
		c.wait.Go(c.keepConnected)
	}
	for {
		c.mu.Lock()
		n, changed := len(c.nodes), c.changed
		c.mu.Unlock()
		if n >= c.opt.Connections {
			return c, nil
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			err := context.Cause(c.ctx)
			c.Close()
			return nil, fmt.Errorf("connect to cluster: %w", err)
		case <-ctx.Done():
			c.Close()
			return nil, fmt.Errorf("connect to cluster: %w", ctx.Err())
		}
	}
}

func newClient(opt Options) (*Client, error) {
	if opt.Key.IsZero() {
		return nil, errors.New("no key")
	}
	if opt.Protocol != JSON && opt.Protocol != BSON {
		return nil, fmt.Errorf("protocol %d is not known", opt.Protocol)
	}
	if opt.MaxMessage < 0 || opt.MaxMessage > math.MaxInt32 || opt.Connections < 0 || opt.ConnectTimeout < 0 {
		return nil, errors.New("an option is out of range")
	}
	if opt.TrustedShare == 0 {
		opt.TrustedShare = defaultShare
	}
	if opt.TrustedShare < output.MinShare || opt.TrustedShare > output.MaxShare {
		return nil, fmt.Errorf("share of trusted keys is %d %%, want %d to %d", opt.TrustedShare, output.MinShare, output.MaxShare)
	}
	if opt.Connections == 0 {
		opt.Connections = 1
	}
	if opt.ConnectTimeout == 0 {
		opt.ConnectTimeout = defaultTimeout
	}
	if opt.GiveUpAfter == 0 {
		opt.GiveUpAfter = defaultTimeout
	}
	if opt.MaxMessage == 0 {
		opt.MaxMessage = defaultMessage
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		opt: opt, log: opt.Log, events: make(chan func(), eventQueue), changed: make(chan struct{}),
		graceTime: statusGraceTime,
		pending:   map[Hash]*Submission{}, seen: map[Hash]struct{}{},
	}
	for _, s := range opt.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "wss" || u.Hostname() == "" {
			return nil, fmt.Errorf("server %q is not an address like wss://host:port", s)
		}
		if !slices.ContainsFunc(c.servers, func(o *server) bool { return o.url == s }) {
			c.servers = append(c.servers, &server{url: s})
		}
	}
	if len(c.servers) < opt.Connections {
		return nil, fmt.Errorf("%d connections are required, but there are only %d servers", opt.Connections, len(c.servers))
	}
	if len(opt.TrustedKeys) > 0 {
		c.trusted = map[key.Public]bool{}
		for _, k := range opt.TrustedKeys {
			c.trusted[k] = true
		}
		// The list of trusted keys has to follow the cluster's UNL.
		c.subs[UNLChange] = true
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c, nil
}

// Close closes all connections and waits until no handler runs any more; a
// handler must not call it. Outstanding calls return ErrClosed or
// ErrConnectionLost.
func (c *Client) Close() {
	c.cancel(ErrClosed)
	c.mu.Lock()
	if c.giveUp != nil {
		c.giveUp.Stop()
	}
	c.mu.Unlock()
	c.wait.Wait()
	c.failAll(ErrClosed)
}

// Done is closed when the client is closed, by Close or because it gave up.
func (c *Client) Done() <-chan struct{} { return c.ctx.Done() }

// Err returns why the client is closed, ErrClosed or an ErrDisconnected, or nil
// while it is open.
func (c *Client) Err() error { return context.Cause(c.ctx) }

// Nodes returns the connected nodes, the longest connected first.
func (c *Client) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// Public returns the user's public key.
func (c *Client) Public() key.Public { return c.opt.Key.Public() }

// first returns the node that has been connected for longest.
func (c *Client) first() (*Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.nodes) > 0 {
		return c.nodes[0], nil
	}
	if err := context.Cause(c.ctx); err != nil {
		return nil, err
	}
	return nil, ErrNotConnected
}

// Read sends a read request to one node and returns the contract's first
// output. A contract that says nothing to a read request, and a node that does
// not serve it, give no answer, so ctx should have a deadline.
func (c *Client) Read(ctx context.Context, content []byte) ([]byte, error) {
	n, err := c.first()
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	return n.Read(ctx, content)
}

// Status asks one node for its status.
func (c *Client) Status(ctx context.Context) (NodeStatus, error) {
	n, err := c.first()
	if err != nil {
		return NodeStatus{}, fmt.Errorf("status: %w", err)
	}
	return n.Status(ctx)
}

// LastLedger asks one node for its last closed ledger.
func (c *Client) LastLedger(ctx context.Context) (LedgerRef, error) {
	n, err := c.first()
	if err != nil {
		return LedgerRef{}, fmt.Errorf("last ledger: %w", err)
	}
	return n.LastLedger(ctx)
}

// Ledger asks one node for a ledger, with its inputs and outputs if wanted. The
// error is ErrNotFound for a ledger that the node does not have.
func (c *Client) Ledger(ctx context.Context, seqNo uint64, inputs, outputs bool) (Ledger, error) {
	n, err := c.first()
	if err != nil {
		return Ledger{}, fmt.Errorf("ledger %d: %w", seqNo, err)
	}
	return n.Ledger(ctx, seqNo, inputs, outputs)
}

// Subscribe turns a channel on, on all connections including later ones.
func (c *Client) Subscribe(ch Channel) error { return c.subscribe(ch, true) }

// Unsubscribe turns a channel off. With trusted keys the client itself needs
// UNLChange, which then stays on.
func (c *Client) Unsubscribe(ch Channel) error {
	if ch == UNLChange && len(c.opt.TrustedKeys) > 0 {
		return nil
	}
	return c.subscribe(ch, false)
}

func (c *Client) subscribe(ch Channel, on bool) error {
	if ch >= channelCount {
		return fmt.Errorf("channel %d is not known", ch)
	}
	c.mu.Lock()
	c.subs[ch] = on
	nodes := slices.Clone(c.nodes)
	c.mu.Unlock()
	for _, n := range nodes {
		// A connection that breaks is replaced, and subscribed, by another.
		n.subscribe(ch, on)
	}
	return nil
}

// keepConnected keeps one connection, to one server after the other.
func (c *Client) keepConnected() {
	for {
		s := c.takeServer()
		if s == nil {
			return
		}
		err := c.serve(s)
		if c.ctx.Err() == nil {
			c.log.Info("connection to server ended", "server", s.url, "error", err)
		}
		c.mu.Lock()
		s.busy, s.after = false, time.Now().Add(retryPause)
		c.announce()
		c.mu.Unlock()
	}
}

// announce wakes those who wait for a change. It is called with the lock.
func (c *Client) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// takeServer waits for a server that may be tried and takes the one that was
// left alone for longest. It returns nil when the client is closed.
func (c *Client) takeServer() *server {
	for {
		c.mu.Lock()
		var best *server
		for _, s := range c.servers {
			if !s.busy && (best == nil || s.after.Before(best.after)) {
				best = s
			}
		}
		changed := c.changed
		var timer <-chan time.Time
		if best != nil {
			wait := time.Until(best.after)
			if wait <= 0 && c.ctx.Err() == nil {
				best.busy = true
				c.mu.Unlock()
				return best
			}
			timer = time.After(wait)
		}
		c.mu.Unlock()
		select {
		case <-c.ctx.Done():
			return nil
		case <-changed:
		case <-timer:
		}
	}
}

// countConnections starts or stops the time after which a client with too few
// connections gives up.
func (c *Client) countConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	missing := len(c.nodes) < c.opt.Connections
	switch {
	case missing && c.giveUp == nil && c.opt.GiveUpAfter > 0 && c.ctx.Err() == nil:
		c.giveUp = time.AfterFunc(c.opt.GiveUpAfter, func() {
			c.cancel(ErrDisconnected)
			c.failAll(ErrDisconnected)
		})
	case !missing && c.giveUp != nil:
		c.giveUp.Stop()
		c.giveUp = nil
	}
	c.announce()
}

// dispatch calls the handler.
func (c *Client) dispatch() {
	for {
		select {
		case f := <-c.events:
			f()
		case <-c.ctx.Done():
			return
		}
	}
}

// event has a function called after all earlier ones, waiting while too many
// wait already.
func (c *Client) event(f func()) {
	select {
	case c.events <- f:
	case <-c.ctx.Done():
	}
}
