package chain

import (
	"errors"
	"fmt"

	"evernode/xahau/standalone/shamap"
)

// Closed is a ledger that is kept.
type Closed struct {
	Header       Header
	Hash         Hash
	Transactions int // how many there are
}

func (l *info) closed() Closed {
	return Closed{Header: l.header, Hash: l.hash, Transactions: int(l.txs)}
}

// Last returns the last ledger; ok is false when there is none.
func (c *Chain) Last() (l Closed, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		return Closed{}, false
	}
	return c.last.closed(), true
}

// Range returns the first and the last ledger that is kept, 0 and 0 when there
// is none. All between them are kept, too.
func (c *Chain) Range() (first, last uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		return 0, 0
	}
	return c.first.Load(), c.last.header.Seq
}

// info returns what is kept of a ledger.
func (c *Chain) info(seq uint32) (*info, error) {
	c.mu.Lock()
	var l *info
	if c.last != nil {
		l = c.recent[seq%uint32(len(c.recent))]
	}
	c.mu.Unlock()
	if l != nil && l.header.Seq == seq {
		return l, nil
	}
	if first, last := c.Range(); seq < first || seq > last || last == 0 {
		return nil, fmt.Errorf("ledger %d: %w", seq, ErrNotFound)
	}
	l, err := c.findInfo(seq)
	if err != nil {
		return nil, fmt.Errorf("ledger %d: %w", seq, err)
	}
	return l, nil
}

// Ledger returns a ledger. The error of one that is not kept is ErrNotFound.
func (c *Chain) Ledger(seq uint32) (Closed, error) {
	l, err := c.info(seq)
	if err != nil {
		return Closed{}, err
	}
	return l.closed(), nil
}

// LedgerByHash returns the ledger with a hash. The error of one that is not
// kept is ErrNotFound.
func (c *Chain) LedgerByHash(h Hash) (Closed, error) {
	p, ok, err := c.index.hash(h)
	if err != nil {
		return Closed{}, fmt.Errorf("ledger %X: %w", h, err)
	}
	if !ok || p.len != ledgerRecord {
		return Closed{}, fmt.Errorf("ledger %X: %w", h, ErrNotFound)
	}
	l, err := c.readInfo(p)
	if err != nil {
		if !errors.Is(err, ErrNotFound) && c.isTransaction(p) {
			err = ErrNotFound // it is the hash of a transaction as long as a ledger's record
		}
		return Closed{}, fmt.Errorf("ledger %X: %w", h, err)
	}
	return l.closed(), nil
}

func (c *Chain) isTransaction(p place) bool {
	b, err := c.readLedgers(p)
	return err == nil && len(b) > 0 && b[0] == tagTransaction
}

// State returns the state of one of the last ledgers. The error is ErrNotFound
// for a ledger that is not kept and ErrStateGone for one whose state is not
// kept any more; reading a state that has been held for long may end with
// ErrStateGone, too.
func (c *Chain) State(seq uint32) (shamap.Map, error) {
	c.mu.Lock()
	l := c.recent[seq%uint32(len(c.recent))]
	c.mu.Unlock()
	if l == nil || l.header.Seq != seq {
		if _, err := c.info(seq); err != nil {
			return shamap.Map{}, err
		}
		return shamap.Map{}, fmt.Errorf("ledger %d: %w", seq, ErrStateGone)
	}
	return shamap.Open(c.cache, l.root), nil
}

// Transactions returns the transactions of a ledger in the order in which they
// were applied.
func (c *Chain) Transactions(seq uint32) ([]Transaction, error) {
	l, err := c.info(seq)
	if err != nil {
		return nil, err
	}
	p := place{l.at.off + ledgerRecord, l.txBytes}
	if p.len == 0 {
		return nil, nil
	}
	b, err := c.readLedgers(p)
	if err != nil {
		return nil, fmt.Errorf("transactions of ledger %d: %w", seq, err)
	}
	txs, _, err := parseTransactions(b, p.off, l)
	if err != nil {
		return nil, fmt.Errorf("transactions of ledger %d: %w", seq, err)
	}
	return txs, nil
}

// Transaction returns a transaction by its hash. The error of one that is not
// kept is ErrNotFound.
func (c *Chain) Transaction(h Hash) (Transaction, error) {
	p, ok, err := c.index.hash(h)
	var t Transaction
	switch {
	case err != nil:
	case !ok:
		err = ErrNotFound
	default:
		t, err = c.readTransaction(p)
		if err == nil && t.Hash != h {
			err = fmt.Errorf("%w: the index leads to transaction %X", ErrDamaged, t.Hash)
		}
	}
	if err != nil {
		return Transaction{}, fmt.Errorf("transaction %X: %w", h, err)
	}
	return t, nil
}

func (c *Chain) readTransaction(p place) (Transaction, error) {
	b, err := c.readLedgers(p)
	if err != nil {
		return Transaction{}, err
	}
	if b[0] == tagLedger {
		return Transaction{}, ErrNotFound
	}
	t, _, err := parseTransaction(b, p.off)
	return t, err
}

// Marker is where a list of transactions goes on.
type Marker struct {
	Ledger, Index uint32
}

// Query asks for the transactions of an account.
type Query struct {
	Account  Account
	Min, Max uint32 // ledgers; 0 = the first and the last that is kept
	Forward  bool   // from the oldest to the newest
	Limit    int    // how many at most
	After    *Marker
}

// AccountTransactions returns the transactions that affect an account, the
// newest first unless Forward is set. next is nil at the end; otherwise the
// query goes on with it as After: it names the transaction that comes next.
func (c *Chain) AccountTransactions(q Query) (txs []Transaction, next *Marker, err error) {
	first, last := c.Range()
	lo, hi := max(q.Min, first), last
	if q.Max != 0 {
		hi = min(q.Max, last)
	}
	if q.Limit <= 0 || lo > hi || last == 0 {
		return nil, nil, nil
	}
	from, until := position{lo, 0}, hi
	if !q.Forward {
		from, until = position{hi, ^uint32(0)}, lo
	}
	if q.After != nil {
		at := position{q.After.Ledger, q.After.Index}
		if q.Forward && from.before(at) || !q.Forward && at.before(from) {
			from = at
		}
	}
	list, err := c.index.list(q.Account, from, until, q.Forward, q.Limit+1)
	if err != nil {
		return nil, nil, fmt.Errorf("transactions of account %X: %w", q.Account, err)
	}
	if len(list) > q.Limit {
		p := list[q.Limit].pos
		next, list = &Marker{p.ledger, p.index}, list[:q.Limit]
	}
	for _, e := range list {
		t, err := c.readTransaction(e.at)
		if errors.Is(err, ErrNotFound) {
			continue // dropped in this moment
		}
		if err != nil {
			return nil, nil, fmt.Errorf("transactions of account %X: %w", q.Account, err)
		}
		txs = append(txs, t)
	}
	return txs, next, nil
}
