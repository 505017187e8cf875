package statesync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

// Transport sends a request to a peer and returns its reply, which must not be
// longer than MaxReply. The mesh has this shape.
type Transport interface {
	Request(ctx context.Context, to key.Public, payload []byte) ([]byte, error)
}

// Target is the part of a statefs.State into which is fetched.
type Target interface {
	Stage(ctx context.Context) (statefs.Staging, error)
	Agreed() statefs.Version
	Patch() []byte
}

// Config says how a Client fetches.
type Config struct {
	State     Target
	Transport Transport
	// Peers returns the peers that can be asked now. It is called again and
	// again, so peers may come and go.
	Peers func() []key.Public
	// Blame, when not nil, is told of a peer that answered something else than
	// it was asked for. The peer is not asked again by this sync.
	Blame func(peer key.Public, reason error)
	// Progress, when not nil, is told about every step. It is called from one
	// goroutine and must not block.
	Progress func(Progress)
	Log      *slog.Logger

	// InFlight is how many requests are out at a time, to all peers together
	// and to one peer; 0 stands for 16 and 4.
	InFlight, InFlightPeer int
	// Timeout bounds one request; 0 stands for 10 s.
	Timeout time.Duration
	// Retry is the pause before pieces that no peer had are asked for again; 0
	// stands for 200 ms.
	Retry time.Duration
	// After is time.After; handed in for tests.
	After func(time.Duration) <-chan time.Time
}

// Progress tells how far a sync is.
type Progress struct {
	Target statefs.Version
	// TotalBytes and TotalEntries are the size of the whole wanted state; zero
	// until its root is known. Most of it may be there already.
	TotalBytes, TotalEntries uint64
	// FetchedBytes, FetchedPieces count what has arrived since Sync began.
	FetchedBytes, FetchedPieces uint64
	// Waiting is how many pieces are known to be missing at this moment.
	Waiting int
	// Refused counts pieces that no peer had when asked; if only this grows,
	// the cluster has moved on and Retarget is due.
	Refused uint64
}

// Client brings the local state to roots that the node names.
type Client struct {
	cfg Config

	mu       sync.Mutex
	running  bool
	retarget chan statefs.Version // capacity 1; the newest target
}

// NewClient returns a Client.
func NewClient(cfg Config) *Client {
	if cfg.InFlight <= 0 {
		cfg.InFlight = 16
	}
	if cfg.InFlightPeer <= 0 {
		cfg.InFlightPeer = 4
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Retry <= 0 {
		cfg.Retry = 200 * time.Millisecond
	}
	if cfg.After == nil {
		cfg.After = time.After
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Blame == nil {
		cfg.Blame = func(key.Public, error) {}
	}
	if cfg.Progress == nil {
		cfg.Progress = func(Progress) {}
	}
	return &Client{cfg: cfg, retarget: make(chan statefs.Version, 1)}
}

// ErrRunning is returned by Sync while another Sync of the same Client runs.
var ErrRunning = errors.New("a sync is running already")

// Sync fetches whatever the version needs and makes it the agreed one. It
// returns the version that it switched to, which is the one last given to
// Retarget if that came in time. It goes on until it succeeds, ctx ends, or the
// disk fails; what it has fetched by then is kept for the next Sync.
func (c *Client) Sync(ctx context.Context, target statefs.Version) (statefs.Version, error) {
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return statefs.Version{}, ErrRunning
	}
	c.running = true
	select {
	case <-c.retarget: // left over from an earlier Sync
	default:
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.running = false
		c.mu.Unlock()
	}()
	staging, err := c.cfg.State.Stage(ctx)
	if err != nil {
		return statefs.Version{}, fmt.Errorf("sync state: %w", err)
	}
	defer staging.Close()
	w := newWalk(c, staging)
	v, err := w.run(ctx, target)
	if err != nil {
		return v, fmt.Errorf("sync state to %s: %w", v.Root.Short(), err)
	}
	return v, nil
}

// Retarget makes a running Sync go for another version, because the cluster has
// moved on. It does nothing when none is running.
func (c *Client) Retarget(v statefs.Version) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running {
		return
	}
	select {
	case <-c.retarget:
	default:
	}
	c.retarget <- v
}

// Blob fetches a value of at most MaxBlob bytes by its plain BLAKE3 hash, from
// the first peer that has it. statefs.ErrNotFound when none does.
func (c *Client) Blob(ctx context.Context, hash digest.Hash) ([]byte, error) {
	request := encodeRequest([]statefs.Ref{{Kind: RefBlob, Hash: hash}})
	err := error(statefs.ErrNotFound)
	for _, p := range c.cfg.Peers() {
		answers, e := c.ask(ctx, p, request, 1)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("fetch %s: %w", hash.Short(), ctx.Err())
		}
		switch {
		case e != nil:
			err = e
		case answers[0].status == statusFound && digest.Sum(answers[0].data) == hash:
			return answers[0].data, nil
		case answers[0].status == statusFound:
			c.cfg.Blame(p, fmt.Errorf("value for %s: %w", hash.Short(), statefs.ErrMismatch))
		}
	}
	return nil, fmt.Errorf("fetch %s: %w", hash.Short(), err)
}

// errMalformed marks replies that cannot be read: the peer's fault.
var errMalformed = errors.New("malformed reply")

// ask sends one request.
func (c *Client) ask(ctx context.Context, to key.Public, request []byte, want int) ([]answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	reply, err := c.cfg.Transport.Request(ctx, to, request)
	if err != nil {
		return nil, err
	}
	answers, err := decodeReply(reply, want)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return answers, nil
}
