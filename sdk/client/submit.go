package client

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"evernode/internal/digest"
	"evernode/internal/usermsg"
)

// defaultOffset is how many ledgers an input has to get into one, as in the
// JavaScript client.
const defaultOffset = 10

// freshLedger is for how long what was heard about the last ledger is good
// enough to compute the last ledger for an input from.
const freshLedger = 200 * time.Millisecond

// statusGrace is for how many ledgers beyond an input's last one, and then for
// how long, its status is waited for. A node that was frozen or cut off hears of
// many ledgers at once and has to ask others what they have accepted.
const (
	statusGrace     = 10
	statusGraceTime = 10 * time.Second
)

// SubmitOption changes how an input is submitted.
type SubmitOption func(*submitOptions)

type submitOptions struct {
	nonce, maxLedger, offset uint64
}

// WithNonce sets the nonce. The cluster takes a user's inputs only with growing
// nonces, at least 1. By default it is the time in milliseconds, or one more
// than the last one.
func WithNonce(nonce uint64) SubmitOption { return func(o *submitOptions) { o.nonce = nonce } }

// WithMaxLedger sets the number of the last ledger in which the input may be.
func WithMaxLedger(seqNo uint64) SubmitOption {
	return func(o *submitOptions) { o.maxLedger = seqNo }
}

// WithLedgerOffset sets how many ledgers the input has to get into one, by
// default 10. The client asks the node for its last ledger first, unless it has
// just heard of it.
func WithLedgerOffset(n uint64) SubmitOption { return func(o *submitOptions) { o.offset = n } }

// Submission is an input on its way.
type Submission struct {
	// Hash is the input's hash, by which ledgers name it.
	Hash      Hash
	Nonce     uint64
	MaxLedger uint64

	node   *Node
	done   chan struct{}
	ledger LedgerRef
	err    error
	late   bool // its last ledger has gone by long ago; guarded by the client's mu
}

// Done is closed when it is known what became of the input.
func (s *Submission) Done() <-chan struct{} { return s.done }

// Wait waits until it is known what became of the input, and returns the ledger
// that it is in. The error is a *RejectedError if the cluster did not take it.
// After ErrConnectionLost, ErrClosed, ErrDisconnected and ErrNoStatus the input
// may be in a ledger or not.
func (s *Submission) Wait(ctx context.Context) (LedgerRef, error) {
	select {
	case <-s.done:
		if s.err != nil {
			return LedgerRef{}, fmt.Errorf("input %s: %w", s.Hash, s.err)
		}
		return s.ledger, nil
	case <-ctx.Done():
		return LedgerRef{}, fmt.Errorf("input %s: %w", s.Hash, ctx.Err())
	}
}

// Submit signs an input and sends it to one node. It returns as soon as the
// input is on its way.
func (c *Client) Submit(ctx context.Context, input []byte, opts ...SubmitOption) (*Submission, error) {
	o := submitOptions{offset: defaultOffset}
	for _, f := range opts {
		f(&o)
	}
	s, err := c.submit(ctx, input, o)
	if err != nil {
		return nil, fmt.Errorf("submit input: %w", err)
	}
	return s, nil
}

// checkText reports what the protocol cannot carry.
func (c *Client) checkText(b []byte) error {
	if c.opt.Protocol == JSON && !utf8.Valid(b) {
		return errors.New("it is not UTF-8 text, which the JSON protocol needs; use BSON")
	}
	return nil
}

func (c *Client) submit(ctx context.Context, input []byte, o submitOptions) (*Submission, error) {
	if len(input) == 0 {
		return nil, errors.New("it is empty")
	}
	if err := c.checkText(input); err != nil {
		return nil, err
	}
	n, err := c.first()
	if err != nil {
		return nil, err
	}
	if o.maxLedger == 0 {
		last, err := c.lastLedger(ctx, n)
		if err != nil {
			return nil, err
		}
		o.maxLedger = last + o.offset
	}
	s := &Submission{Nonce: o.nonce, MaxLedger: o.maxLedger, node: n, done: make(chan struct{})}
	if s.Nonce == 0 {
		s.Nonce = c.nextNonce()
	}
	container := usermsg.AppendContainer(nil, n.proto, usermsg.Container{Input: input, Nonce: s.Nonce, MaxLedgerNo: s.MaxLedger})
	sig := c.opt.Key.Sign(container)
	s.Hash = Hash(digest.Sum(sig[:]))
	c.mu.Lock()
	if c.pending[s.Hash] != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("the same input with nonce %d is already on its way", s.Nonce)
	}
	c.pending[s.Hash] = s
	c.mu.Unlock()
	if err := n.request(usermsg.Request{Type: usermsg.RequestInput, Container: container, Sig: sig[:]}); err != nil {
		c.settle(s.Hash, LedgerRef{}, err)
		return nil, err
	}
	// The connection may have been given up on before the input was pending.
	n.mu.Lock()
	broken := n.err
	n.mu.Unlock()
	if broken != nil {
		c.settle(s.Hash, LedgerRef{}, ErrConnectionLost)
	}
	return s, nil
}

// nextNonce returns the time in milliseconds, the measure of the JavaScript
// client, or more if that was used already: two inputs never share a nonce.
func (c *Client) nextNonce() uint64 {
	now := uint64(time.Now().UnixMilli())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nonce = max(c.nonce+1, now)
	return c.nonce
}

func (c *Client) lastLedger(ctx context.Context, n *Node) (uint64, error) {
	c.mu.Lock()
	last, at := c.ledger, c.heardAt
	c.mu.Unlock()
	if last > 0 && time.Since(at) < freshLedger {
		return last, nil
	}
	l, err := n.LastLedger(ctx)
	return l.SeqNo, err
}

// heard notes that a ledger is closed, and gives up on inputs that can be in no
// later one.
func (c *Client) heard(seqNo uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heardAt = time.Now()
	if seqNo <= c.ledger {
		return
	}
	c.ledger = seqNo
	for h, s := range c.pending {
		if !s.late && s.MaxLedger < seqNo && seqNo-s.MaxLedger > statusGrace {
			s.late = true
			time.AfterFunc(c.graceTime, func() { c.settle(h, LedgerRef{}, ErrNoStatus) })
		}
	}
}

// status takes the status of an input.
func (c *Client) status(m *usermsg.InputStatus) {
	h := Hash(m.InputHash)
	if !m.Accepted {
		c.settle(h, LedgerRef{}, &RejectedError{m.Reason})
		return
	}
	c.settle(h, LedgerRef{m.LedgerSeqNo, Hash(m.LedgerHash)}, nil)
	c.heard(m.LedgerSeqNo)
}

// settle says what became of an input, unless that is known.
func (c *Client) settle(h Hash, l LedgerRef, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.pending[h]; s != nil {
		delete(c.pending, h)
		s.ledger, s.err = l, err
		close(s.done)
	}
}

// lost gives up on the inputs that went to a node whose connection ended.
func (c *Client) lost(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for h, s := range c.pending {
		if s.node == n {
			delete(c.pending, h)
			s.err = ErrConnectionLost
			close(s.done)
		}
	}
}

func (c *Client) failAll(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for h, s := range c.pending {
		delete(c.pending, h)
		s.err = err
		close(s.done)
	}
}
