package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/ter"
)

// ResultError is the outcome of a transaction other than success: in a ledger,
// where it did nothing but pay its fee, or refused for good.
type ResultError struct {
	Code    ter.Code
	Message string
	// Transaction is nil if the transaction is in no ledger.
	Transaction *Transaction
}

// Error names the result.
func (e *ResultError) Error() string {
	text := "the result is " + e.Code.String()
	if e.Message != "" {
		text += ": " + e.Message
	}
	for _, h := range e.Transaction.hookSayings() {
		text += fmt.Sprintf(" (hook of %s: %q)", h.Account, h.ReturnString)
	}
	return text
}

func (t *Transaction) hookSayings() []HookExecution {
	if t == nil {
		return nil
	}
	var list []HookExecution
	for _, h := range t.HookExecutions() {
		if h.ReturnString != "" {
			list = append(list, h)
		}
	}
	return list
}

// ErrExpired is the outcome of a transaction that did not get into a ledger up to
// its last one, and never will.
var ErrExpired = errors.New("the transaction did not get into a ledger in time")

// SubmitOptions says how a transaction is submitted. The zero value of a field is
// its default.
type SubmitOptions struct {
	AutofillOptions
	// Note is kept in the Journal with the transaction.
	Note string
}

// Submit sends a signed transaction, again and again, until its outcome is
// certain: in a validated ledger, or not in one up to its LastLedgerSequence. A
// result other than tesSUCCESS is a *ResultError, no ledger in time ErrExpired.
// After any other error, such as that of ctx, the outcome is open: with a Journal
// Resume goes on, and submitting the same transaction once more is harmless.
func (c *Client) Submit(ctx context.Context, signed *xahau.Signed, opt SubmitOptions) (*Transaction, error) {
	p, err := c.pending(ctx, signed, opt.Note)
	if err != nil {
		return nil, fmt.Errorf("submit %s: %w", signed.ID, err)
	}
	return c.follow(ctx, p, true, nil)
}

// pending prepares a transaction and keeps it.
func (c *Client) pending(ctx context.Context, signed *xahau.Signed, note string) (Pending, error) {
	last := signed.Tx.Uint32(field.LastLedgerSequence)
	if last == 0 {
		return Pending{}, errors.New("the transaction has no LastLedgerSequence, so it could never be known to have failed")
	}
	info, err := c.Ledger(ctx)
	if err != nil {
		return Pending{}, err
	}
	p := Pending{ID: signed.ID, Blob: signed.Blob, First: info.Index, Last: last, Note: note}
	if err := p.check(); err != nil {
		return Pending{}, err
	}
	if c.opt.Journal != nil {
		if err := c.opt.Journal.Save(ctx, p); err != nil {
			return Pending{}, err
		}
	}
	return p, nil
}

// follow sends a pending transaction until its outcome is certain. fresh tells
// that it was not sent before; sent, if not nil, is called once the server has
// answered for the first time.
func (c *Client) follow(ctx context.Context, p Pending, fresh bool, sent func()) (*Transaction, error) {
	tx, err := c.outcome(ctx, p, fresh, sent)
	var failed *ResultError
	if err == nil || errors.As(err, &failed) || errors.Is(err, ErrExpired) {
		if c.opt.Journal != nil {
			if forget := c.opt.Journal.Remove(context.WithoutCancel(ctx), p.ID); forget != nil {
				c.log.Warn("a transaction with a known outcome stays in the journal", "hash", p.ID, "err", forget)
			}
		}
	}
	if err != nil {
		return tx, fmt.Errorf("submit %s: %w", p.ID, err)
	}
	return tx, nil
}

func (c *Client) outcome(ctx context.Context, p Pending, fresh bool, sent func()) (*Transaction, error) {
	seen := uint32(0)
	for {
		info, err := c.Ledger(ctx)
		if err != nil {
			return nil, err
		}
		// What is in a ledger counts, whatever a server says to the transaction
		// itself. A transaction that was never sent is in none.
		if !fresh || info.Index > p.First {
			tx, searched, err := c.lookup(ctx, p.ID, p.First, p.Last)
			switch {
			case tx != nil:
				if !tx.Result.IsSuccess() {
					return tx, &ResultError{Code: tx.Result, Transaction: tx}
				}
				return tx, nil
			case err != nil && !IsServerError(err, "txnNotFound"):
				return nil, err
			case err != nil && info.Index >= p.Last && (searched == nil || *searched):
				return nil, ErrExpired
			}
		}
		if info.Index < p.Last && info.Index > seen {
			seen = info.Index
			// A refusal for good is one only if no server has passed the
			// transaction on before.
			if err := c.send(ctx, p); err != nil && (fresh || !refused(err)) {
				return nil, err
			}
			fresh = false
		}
		if sent != nil {
			sent()
			sent = nil
		}
		// The ledger after the one just looked at, or a server that knows more.
		if info.Index < p.Last {
			_, err = c.WaitLedger(ctx, info.Index+1)
		} else {
			err = c.later(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
}

func refused(err error) bool {
	var r *ResultError
	return errors.As(err, &r)
}

// send submits once. Most answers mean nothing yet; only what no ledger would
// ever take is an error.
func (c *Client) send(ctx context.Context, p Pending) error {
	var answer struct {
		Result  string `json:"engine_result"`
		Message string `json:"engine_result_message"`
	}
	err := c.Request(ctx, "submit", map[string]any{"tx_blob": hex.EncodeToString(p.Blob)}, &answer)
	if err != nil {
		return err
	}
	code, ok := c.Definitions().Result(answer.Result)
	if !ok {
		c.log.Warn("a server answers submit with an unknown result", "hash", p.ID, "result", answer.Result)
		return nil
	}
	c.log.Debug("submitted", "hash", p.ID, "result", answer.Result)
	if ter.Code(code).IsMalformed() {
		return &ResultError{Code: ter.Code(code), Message: answer.Message}
	}
	return nil
}

// Send completes, signs and submits a transaction. Transactions of one account
// get their sequence numbers one after another, but their outcomes are waited
// for at the same time.
func (c *Client) Send(ctx context.Context, tx *xahau.Object, key xahau.Signer, opt SubmitOptions) (*Transaction, error) {
	account := tx.Account(field.Account)
	c.mu.Lock()
	order := c.accounts[account]
	if order == nil {
		order = &sync.Mutex{}
		c.accounts[account] = order
	}
	c.mu.Unlock()

	order.Lock()
	next := sync.OnceFunc(order.Unlock)
	defer next()
	tx = tx.Clone()
	if err := c.Autofill(ctx, tx, opt.AutofillOptions); err != nil {
		return nil, err
	}
	signed, err := c.Definitions().Sign(tx, key)
	if err != nil {
		return nil, err
	}
	p, err := c.pending(ctx, signed, opt.Note)
	if err != nil {
		return nil, fmt.Errorf("submit %s: %w", signed.ID, err)
	}
	return c.follow(ctx, p, true, next)
}

// Resume goes on with the transactions that the Journal kept when the program
// ended, several at the same time, and tells the outcome of each to done as
// Submit would return it. It returns when all are known, or with ctx.
func (c *Client) Resume(ctx context.Context, done func(Pending, *Transaction, error)) error {
	if c.opt.Journal == nil {
		return errors.New("resume: there is no journal")
	}
	list, err := c.opt.Journal.Load(ctx)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	const atOnce = 16
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for _, p := range list {
		if err := p.check(); err != nil {
			done(p, nil, fmt.Errorf("resume %s: %w", p.ID, err))
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			tx, err := c.follow(ctx, p, false, nil)
			done(p, tx, err)
		})
	}
	all.Wait()
	return ctx.Err()
}
