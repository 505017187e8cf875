package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/mesh"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

const (
	// inFlight is how long content that members name is given to arrive by
	// itself, as it does within moments, before it is asked for.
	inFlight = 30 * time.Millisecond
	// requestTimeout bounds one request to one peer.
	requestTimeout = 5 * time.Second
	// maxFetches bounds the requests for content under way.
	maxFetches = 32
)

// asker asks peers for what it can verify.
type asker struct {
	mesh *mesh.Mesh
	log  *slog.Logger
}

func (n *node) asker() asker { return asker{n.mesh, n.log} }

func isPeer(k key.Public) func(mesh.PeerInfo) bool {
	return func(p mesh.PeerInfo) bool { return p.Key == k }
}

// peersFrom returns the connected peers, those given first, the others in
// random order.
func (a asker) peersFrom(first []key.Public) []key.Public {
	var out, rest []key.Public
	for _, p := range a.mesh.Peers() {
		if slices.Contains(first, p.Key) {
			out = append(out, p.Key)
		} else {
			rest = append(rest, p.Key)
		}
	}
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return append(out, rest...)
}

func (n *node) peersFrom(first []key.Public) []key.Public { return n.asker().peersFrom(first) }

// excused marks the error of an answer that is not its sender's fault.
type excused struct{ error }

func (e excused) Unwrap() error { return e.error }

// request asks peers one after the other until use accepts an answer.
func (a asker) request(ctx context.Context, first []key.Public, kind mesh.Kind, payload []byte, use func([]byte) error) error {
	return a.requestOf(ctx, a.peersFrom(first), kind, payload, use)
}

func (n *node) request(ctx context.Context, first []key.Public, kind mesh.Kind, payload []byte, use func([]byte) error) error {
	return n.asker().request(ctx, first, kind, payload, use)
}

// requestOf is request of the given peers.
func (a asker) requestOf(ctx context.Context, peers []key.Public, kind mesh.Kind, payload []byte, use func([]byte) error) error {
	err := errors.New("no peer is connected")
	for _, p := range peers {
		one, cancel := context.WithTimeout(ctx, requestTimeout)
		var b []byte
		b, err = a.mesh.Request(one, p, kind, payload)
		cancel()
		if err == nil {
			if err = use(b); err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var innocent excused
			if errors.As(err, &innocent) {
				continue
			}
			a.log.Warn("a peer's answer is wrong", "from", p.Short(), "err", err)
			a.mesh.ReportBad(p, mesh.BadMessage)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

// want fetches what the core lacks.
func (l *loop) want(w consensus.Want) {
	n := l.n
	if len(n.fetches) == cap(n.fetches) {
		return // it is asked for again
	}
	n.fetches <- struct{}{}
	n.spawn(func(ctx context.Context) {
		defer func() { <-n.fetches }()
		if w.Header {
			n.wantHeader(ctx, w)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(inFlight):
		}
		if n.content.holds(w.Hash) || !n.arriving.begin(w.Hash) {
			return
		}
		defer n.arriving.end(w.Hash)
		if err := n.fetchContent(ctx, w.From, w.Hash); err != nil && ctx.Err() == nil {
			n.log.Debug("content is not to be had", "digest", w.Hash.Short(), "err", err)
		}
	})
}

func (n *node) wantHeader(ctx context.Context, w consensus.Want) {
	var h consensus.Header
	err := n.request(ctx, w.From, kindHeader, w.Hash[:], func(b []byte) (err error) {
		if h, err = consensus.DecodeHeader(b); err == nil && h.Hash() != w.Hash {
			err = fmt.Errorf("header of another ledger")
		}
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			n.log.Debug("a candidate is not to be had", "hash", w.Hash.Short(), "err", err)
		}
		return
	}
	n.do(func(l *loop) { l.apply(l.core.HeaderArrived(n.now(), h)) })
}

// fetchContent gets a bundle or list of users from a peer and keeps it.
func (n *node) fetchContent(ctx context.Context, from []key.Public, d digest.Hash) error {
	return n.request(ctx, from, kindContent, d[:], func(b []byte) error {
		if len(b) == 0 {
			return errors.New("empty answer")
		}
		switch b[0] {
		case entryBundle:
			x, err := inputs.DecodeBundle(b[1:])
			if err == nil && x.Digest() != d {
				err = errors.New("another bundle than asked for")
			}
			if err == nil {
				err = x.Verify(1, n.keys)
			}
			if err != nil {
				return err
			}
			if err := n.content.addBundle(x, true); err != nil {
				return excused{err}
			}
		case entryPresence:
			p, err := inputs.DecodePresence(b[1:])
			if err == nil && p.Digest() != d {
				err = errors.New("another list of users than asked for")
			}
			if err != nil {
				return err
			}
			if err := n.content.addPresence(p, n.last.Load().seq+1); err != nil {
				return excused{err}
			}
		default:
			return fmt.Errorf("content of unknown kind %d", b[0])
		}
		n.do(func(l *loop) { l.arrived() })
		return nil
	})
}

// fetchBundle gets a bundle that a closed ledger names.
func (n *node) fetchBundle(ctx context.Context, d digest.Hash) (*inputs.Bundle, error) {
	if err := n.fetchContent(ctx, nil, d); err != nil {
		return nil, err
	}
	if b := n.content.bundle(d); b != nil {
		return b, nil
	}
	return nil, errors.New("the peer sent something else than inputs")
}

// connected returns the users whom a closed ledger names.
func (n *node) connected(ctx context.Context, h *consensus.Header) ([]key.Public, error) {
	for {
		users, missing := n.content.users(h.Presences)
		if missing == nil {
			return users, nil
		}
		if err := n.fetchContent(ctx, nil, *missing); err != nil {
			return nil, err
		}
	}
}

// fetchNonces gets the nonce table with the given hash.
func (n *node) fetchNonces(ctx context.Context, want digest.Hash) (*inputs.Nonces, error) {
	var table *inputs.Nonces
	err := n.request(ctx, nil, kindNonces, want[:], func(b []byte) (err error) {
		table, err = inputs.DecodeNonces(b, want)
		return err
	})
	return table, err
}

// fetchPatch gets an agreed patch.cfg and lets the loop go on with it. Until it
// succeeds the node cannot.
func (n *node) fetchPatch(want digest.Hash) {
	n.spawn(func(ctx context.Context) {
		if err := n.awaitPatch(ctx, want); err == nil {
			n.do(func(l *loop) { l.advance() })
		}
	})
}

// awaitPatch asks peers for an agreed patch.cfg until it is here. Its error is
// that of ctx.
func (n *node) awaitPatch(ctx context.Context, want digest.Hash) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := n.request(ctx, nil, kindPatch, want[:], func(b []byte) error {
			if statefs.HashPatch(b) != want {
				return errors.New("another patch.cfg than asked for")
			}
			if err := n.patches.put(want, b); err != nil {
				return excused{err}
			}
			return nil
		})
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.log.Warn("the agreed patch.cfg cannot be had yet", "hash", want.Short(), "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// catchUp fetches the ledgers that this node has missed.
func (n *node) catchUp(b consensus.Behind) {
	if !n.catching.CompareAndSwap(false, true) {
		return
	}
	n.spawn(func(ctx context.Context) {
		defer n.catching.Store(false)
		if err := n.catchUpWith(ctx, b); err != nil && ctx.Err() == nil {
			n.log.Warn("ledgers that this node has missed cannot be had yet", "ledger", b.Height, "err", err)
		}
	})
}

func (n *node) catchUpWith(ctx context.Context, b consensus.Behind) error {
	next, ok := n.height()
	if !ok {
		return context.Canceled
	}
	if b.Height >= next+n.leapFrom() {
		if err := n.leap(ctx, b.From); err != nil {
			n.log.Info("the newest ledger cannot be verified by what this node knows: fetching all that lie between", "from", next, "to", b.Height, "reason", err)
		}
	}
	for leapt := false; ctx.Err() == nil; {
		if next, ok = n.height(); !ok || next > b.Height {
			return nil
		}
		err := n.fetchLedgers(ctx, b.From, next)
		if err == nil || ctx.Err() != nil {
			continue
		}
		// Maybe nobody keeps them any more.
		e := errors.New("it was tried")
		if !leapt {
			leapt = true
			e = n.leap(ctx, b.From)
		}
		if e != nil && !errors.Is(e, errHistory) {
			return fmt.Errorf("%w; without them: %w", err, e)
		}
	}
	return ctx.Err()
}

// fetchLedgers fetches and takes the ledgers from number next on, as many as one
// answer holds.
func (n *node) fetchLedgers(ctx context.Context, from key.Public, next uint64) error {
	req := wire.AppendU16(wire.AppendU64(nil, next), maxRange)
	return n.request(ctx, []key.Public{from}, kindLedgers, req, func(answer []byte) error {
		r := wire.NewReader(answer)
		if r.Len() == 0 {
			return excused{fmt.Errorf("the peer has no ledger %d", next)}
		}
		for r.Len() > 0 {
			body := r.View(maxAnswer)
			if r.Err() != nil {
				return r.Err()
			}
			h, cert, err := consensus.DecodeLedger(body)
			if err != nil {
				return err
			}
			if err := n.installOne(ctx, from, consensus.Ledger{Header: h, Certificate: cert}); err != nil {
				return err
			}
		}
		return nil
	})
}

// installOne hands a fetched ledger to the loop and waits until the next one
// can follow.
func (n *node) installOne(ctx context.Context, from key.Public, x consensus.Ledger) error {
	for {
		var height uint64
		var stuck bool
		done := n.ask(func(l *loop) {
			l.install(from, x)
			height, stuck = l.core.Height(), l.stuck != nil
		})
		switch {
		case !done:
			return context.Canceled
		case height > x.Header.Height && !stuck:
			return nil
		case !stuck:
			return fmt.Errorf("ledger %d is not proven by its certificate", x.Header.Height)
		}
		// The configuration that this ledger agreed on is being fetched.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// height returns the height being decided, and false when the node stops.
func (n *node) height() (uint64, bool) {
	var h uint64
	if !n.ask(func(l *loop) { h = l.core.Height() }) {
		return 0, false
	}
	return h, true
}
