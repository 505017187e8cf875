package standalone

import (
	"context"
	"errors"
	"fmt"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/chain"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// Submission is what became of a transaction for now.
type Submission struct {
	Tx *tx.Prepared
	// Result is preliminary: only a validated ledger is final.
	Result ter.Code
	// Reason says in words what is wrong with the transaction itself; nil if the
	// result says it all.
	Reason error
	// Applied tells that the transaction is in the open ledger, and Queued that it
	// waits for others.
	Applied, Queued bool
	// Next is the sequence number that the account's next transaction needs.
	Next uint32
	// Current is the open ledger, and Validated the last one that is final.
	Current, Validated uint32
}

// Submit tries a transaction in binary form in the open ledger. The errors are that
// of a transaction that cannot be read, ErrBusy, ErrClosed, and those of the store.
func (l *Ledger) Submit(ctx context.Context, blob []byte) (*Submission, error) {
	p, err := tx.Prepare(l.defs, blob)
	if err != nil {
		return nil, &MalformedError{err}
	}
	select {
	case l.waiting <- struct{}{}:
		defer func() { <-l.waiting }()
	default:
		return nil, ErrBusy
	}
	// Signatures take most of the time; they are checked outside of the lock.
	next := l.Validated().Header.Seq + 1
	l.engine.Preflight(p, &view.Ledger{Seq: next, NetworkID: l.network, Defs: l.defs})

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	s := &Submission{Tx: p, Result: ter.TelCAN_NOT_QUEUE_FULL}
	tried := len(l.open.Transactions())
	switch _, err := l.chain.Transaction(chain.Hash(p.ID)); {
	case err == nil:
		s.Result = ter.TefALREADY
	case !errors.Is(err, chain.ErrNotFound):
		return nil, err
	case tried < l.cfg.OpenTransactions:
		if s.Result, err = l.open.Submit(ctx, p); err != nil {
			return nil, fmt.Errorf("transaction %s: %w", p.ID, err)
		}
		s.Applied = len(l.open.Transactions()) > tried
		s.Queued = !s.Applied && s.Result.IsRetry()
		s.Reason = p.Reason()
	}
	r := l.open.View()
	s.Current, s.Validated = r.Ledger().Seq, l.Validated().Header.Seq
	if root := r.Read(keylet.Account(p.Tx.Account(field.Account))); root != nil {
		s.Next = root.Uint32(field.Sequence)
	}
	return s, r.Err()
}

// MalformedError is that of a transaction that cannot be read.
type MalformedError struct{ Err error }

// Error says what is wrong.
func (e *MalformedError) Error() string { return e.Err.Error() }

// Unwrap gives what is wrong.
func (e *MalformedError) Unwrap() error { return e.Err }

// Fee is the least fee of a transaction in drops, the runs of hooks included. The
// transaction need not be signed.
func (l *Ledger) Fee(blob []byte) (int64, error) {
	t, err := l.defs.Decode(blob)
	if err != nil {
		return 0, &MalformedError{fmt.Errorf("transaction: %w", err)}
	}
	if !t.Has(field.TransactionType) || !t.Has(field.Account) {
		return 0, &MalformedError{errors.New("transaction: TransactionType or Account is missing")}
	}
	var fee int64
	err = l.Current(func(r view.Reader) error {
		fee = l.engine.Fee(r, t)
		return nil
	})
	return fee, err
}

// Pending is a transaction that is not in a closed ledger yet; nil if there is
// none of that hash.
func (l *Ledger) Pending(id xahau.Hash256) *tx.Prepared {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.open.Transactions() {
		if p.ID == id {
			return p
		}
	}
	for _, p := range l.open.Held() {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// OpenTransactions is how many transactions are in the open ledger, and how many
// wait for others.
func (l *Ledger) OpenTransactions() (in, held int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open.Transactions()), len(l.open.Held())
}

// OpenLedger gives the transactions of the open ledger so far.
func (l *Ledger) OpenLedger() []*tx.Prepared {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.open.Transactions()
	return list[:len(list):len(list)]
}
