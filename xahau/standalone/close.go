package standalone

import (
	"context"
	"fmt"
	"time"

	"evernode/xahau"
	"evernode/xahau/standalone/apply"
	"evernode/xahau/standalone/chain"
)

// Event is a ledger that has become final.
type Event struct {
	Ledger chain.Closed
	// First is the first ledger that is kept.
	First uint32
	// Closed has the ledger's transactions with results, and those that failed for
	// good.
	Closed *apply.Closed
}

// Listener is called with each ledger that has become final, in order. It must not
// wait, and not call Accept or Close.
type Listener struct{ f func(*Event) }

// Listen adds a listener. stop removes it.
func (l *Ledger) Listen(f func(*Event)) (stop func()) {
	n := &Listener{f}
	l.listeners.Lock()
	defer l.listeners.Unlock()
	l.onClosed[n] = struct{}{}
	return func() {
		l.listeners.Lock()
		defer l.listeners.Unlock()
		delete(l.onClosed, n)
	}
}

// Accept closes the open ledger and returns it once it is durable.
func (l *Ledger) Accept(ctx context.Context) (chain.Closed, error) {
	l.closing.Lock()
	defer l.closing.Unlock()
	closed, err := l.closeOpen(ctx)
	if err != nil {
		return chain.Closed{}, err
	}
	seq := closed.Ledger.Header.Seq
	// The ledger is there; who asked for it may be gone, others wait for it.
	if err := l.chain.Sync(context.WithoutCancel(ctx), seq); err != nil {
		return chain.Closed{}, fmt.Errorf("ledger %d: %w", seq, err)
	}
	now, err := l.chain.Ledger(seq)
	if err != nil {
		return chain.Closed{}, err
	}
	l.validated.Store(&now)
	l.announce(&Event{Ledger: now, First: l.First(), Closed: closed})
	return now, nil
}

func (l *Ledger) announce(e *Event) {
	l.listeners.Lock()
	defer l.listeners.Unlock()
	for n := range l.onClosed {
		n.f(e)
	}
}

// closeOpen closes the open ledger and opens the next.
func (l *Ledger) closeOpen(ctx context.Context) (*apply.Closed, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	ctx = context.WithoutCancel(ctx) // half a ledger is worth nothing
	parent := l.open.View().Ledger().ParentCloseTime
	closed, err := l.open.Close(ctx, max(xahau.LedgerTime(l.cfg.Now()), parent+1))
	if err != nil {
		return nil, err
	}
	state, err := l.chain.Commit(closed.Ledger)
	if err != nil {
		return nil, err
	}
	next, err := apply.Next(ctx, l.apply, closed.Ledger.Header, state, closed.Held)
	if err != nil {
		// The closed ledger is kept, but nothing can follow it before a restart.
		l.closed = true
		return nil, fmt.Errorf("ledger %d: %w", closed.Ledger.Header.Seq+1, err)
	}
	l.open = next
	return closed, nil
}

// Run closes a ledger on every tick until ctx ends or the store fails. A ledger
// that cannot be closed, as when the disk is full, stays open and is tried again.
func (l *Ledger) Run(ctx context.Context, ticks <-chan time.Time) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.chain.Failed():
			return l.chain.Err()
		case <-ticks:
		}
		c, err := l.Accept(ctx)
		if err != nil {
			if failed := l.chain.Err(); failed != nil {
				return failed
			}
			l.mu.Lock()
			over := l.closed
			l.mu.Unlock()
			if over {
				return err
			}
			l.cfg.Log.Error("the ledger could not be closed; it stays open", "error", err)
			continue
		}
		l.cfg.Log.Debug("ledger closed", "ledger", c.Header.Seq, "transactions", c.Transactions)
	}
}
