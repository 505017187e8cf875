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

// BufferedTransport is a Transport that reads the reply into buf if it fits, and
// otherwise allocates. When it returns an error buf may still be written to and
// is not used again.
type BufferedTransport interface {
	RequestInto(ctx context.Context, to key.Public, payload, buf []byte) ([]byte, error)
}

// Target is the part of a statefs.State into which is fetched. If it is a Source
// too, blocks that changed a little are fetched as changes.
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
	// and to one peer; 0 stands for 24 and 8.
	InFlight, InFlightPeer int
	// Timeout bounds one request; 0 stands for 10 s. What a peer is slow with is
	// asked of others long before.
	Timeout time.Duration
	// Retry is the pause before pieces that no peer had are asked for again; 0
	// stands for 200 ms.
	Retry time.Duration
	// Now and After are those of package time; handed in for tests.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
}

// Progress tells how far a sync is.
type Progress struct {
	Target statefs.Version
	// TotalBytes and TotalEntries are the size of the whole wanted state; zero
	// until its root is known. DoneBytes and DoneEntries of it are here, were
	// here already, or were looked at.
	TotalBytes, TotalEntries uint64
	DoneBytes, DoneEntries   uint64
	// FetchedBytes counts the bytes of all answers since Sync began, and
	// FetchedPieces the pieces in them.
	FetchedBytes, FetchedPieces uint64
	// SentBytes counts the bytes of all requests.
	SentBytes uint64
	// Rate is how many bytes arrived in a second of late, Left how long the rest
	// takes at the rate at which DoneBytes grows, 0 while that is unknown.
	Rate float64
	Left time.Duration
	// Peers is from how many peers pieces have come within the last seconds.
	Peers int
	// Waiting is how many pieces are known to be missing at this moment.
	Waiting int
	// Refused counts pieces that a peer did not have when asked.
	Refused uint64
	// Switching: everything is here and the working folder is being changed.
	Switching bool
}

// Client brings the local state to roots that the node names.
type Client struct {
	cfg  Config
	pool sync.Pool // of buffers for replies

	mu       sync.Mutex
	running  bool
	retarget chan statefs.Version // capacity 1; the newest target
}

// NewClient returns a Client.
func NewClient(cfg Config) *Client {
	if cfg.InFlight <= 0 {
		cfg.InFlight = 24
	}
	if cfg.InFlightPeer <= 0 {
		cfg.InFlightPeer = 8
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Retry <= 0 {
		cfg.Retry = 200 * time.Millisecond
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
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

// A state that moves on while it is fetched is fetched in passes: each goes for
// a version for as long as peers have it, since they keep what they are asked
// for, and the next has only to fetch what changed meanwhile. No further pass is
// made when the version reached is at most nearEnough ledgers old: the node
// executes these itself.
const (
	maxPasses  = 10
	nearEnough = 4
)

// Sync fetches whatever the version needs and makes it the agreed one. It
// returns the version that it switched to last, which is a later one, given to
// Retarget, if the state has moved on by more than a few ledgers or the peers no
// longer have the one wanted. It goes on until it succeeds, ctx ends, or the
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
	w := newWalk(c, target)
	for pass := 1; ; pass++ {
		reached, err := c.pass(ctx, w)
		if err != nil {
			if pass > 1 && ctx.Err() == nil {
				// The state is consistent, and an earlier version is in place.
				c.cfg.Log.Warn("the state could not be brought further", "error", err)
				return w.reached, nil
			}
			return reached, fmt.Errorf("sync state to %s: %w", reached.Root.Short(), err)
		}
		w.catchUp()
		if pass == maxPasses || w.newest.Seq <= reached.Seq+nearEnough {
			return reached, nil
		}
	}
}

// pass fetches one version.
func (c *Client) pass(ctx context.Context, w *walk) (statefs.Version, error) {
	staging, err := c.cfg.State.Stage(ctx)
	if err != nil {
		return w.newest, err
	}
	defer staging.Close()
	return w.run(ctx, staging)
}

// Retarget tells a running Sync that the cluster has moved on to another
// version. It does nothing when none is running.
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
	request := encodeRequest(digest.Hash{}, []question{{Ref: statefs.Ref{Kind: RefBlob, Hash: hash}}})
	err := error(statefs.ErrNotFound)
	for _, p := range c.cfg.Peers() {
		answers, _, e := c.ask(ctx, p, request, 1, nil)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("fetch %s: %w", hash.Short(), ctx.Err())
		}
		switch {
		case e != nil:
			err = e
		case answers[0].status == statusFound && digest.Sum(answers[0].data) == hash:
			return answers[0].data, nil
		case answers[0].status != statusMissing:
			c.cfg.Blame(p, fmt.Errorf("value for %s: %w", hash.Short(), statefs.ErrMismatch))
		}
	}
	return nil, fmt.Errorf("fetch %s: %w", hash.Short(), err)
}

// errMalformed marks replies that cannot be read: the peer's fault.
var errMalformed = errors.New("malformed reply")

// ask sends one request. The answers point into the reply.
func (c *Client) ask(ctx context.Context, to key.Public, request []byte, want int, buf []byte) (answers []answer, reply []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if t, ok := c.cfg.Transport.(BufferedTransport); ok && buf != nil {
		reply, err = t.RequestInto(ctx, to, request, buf)
	} else {
		reply, err = c.cfg.Transport.Request(ctx, to, request)
	}
	if err != nil {
		return nil, nil, err
	}
	if answers, err = decodeReply(reply, want); err != nil {
		return nil, reply, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return answers, reply, nil
}

// replyBuffer holds nearly every reply. Replies that are expected to be shorter
// than a quarter of it are read into memory of their own.
const replyBuffer = softReply + softReply/4

// buffer returns memory for a reply and how much of it the reply will hold on to.
func (c *Client) buffer(expect int) ([]byte, int) {
	if _, ok := c.cfg.Transport.(BufferedTransport); !ok || expect < replyBuffer/4 {
		return nil, expect
	}
	if b, ok := c.pool.Get().(*[]byte); ok {
		return *b, replyBuffer
	}
	return make([]byte, 0, replyBuffer), replyBuffer
}

func (c *Client) recycle(b []byte) {
	if cap(b) == replyBuffer {
		b = b[:0]
		c.pool.Put(&b)
	}
}
