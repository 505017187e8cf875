package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/ter"
)

// Transaction is a transaction of a validated ledger.
type Transaction struct {
	Hash   xahau.Hash256
	Ledger uint32
	// Index is the transaction's place in its ledger.
	Index  uint32
	Result ter.Code
	// Time is when its ledger closed; zero if the server does not say.
	Time time.Time
	// Delivered is what arrived at a payment's destination, which can be less than
	// its Amount. nil for others and where the server does not know.
	Delivered *xahau.Amount
	// Tx and Meta are nil if the definitions do not fit, see Err.
	Tx, Meta *xahau.Object
	// Err is why Tx or Meta cannot be read.
	Err error
	// RawTx and RawMeta are what the server sent.
	RawTx, RawMeta json.RawMessage
}

// HookExecution is one run of a hook during a transaction.
type HookExecution struct {
	Account    xahau.AccountID
	Hash       xahau.Hash256
	Result     uint8 // 3 accept, 2 rollback, 1 the code failed
	ReturnCode int64
	// ReturnString is what the hook said, without the zero bytes at its end.
	ReturnString string
	Emitted      uint16
}

// HookExecutions lists the runs of hooks during the transaction.
func (t *Transaction) HookExecutions() []HookExecution {
	if t.Meta == nil {
		return nil
	}
	var list []HookExecution
	for _, e := range t.Meta.Array(field.HookExecutions) {
		o := e.Object
		code := o.Uint64(field.HookReturnCode)
		// The ledger writes the sign as bit 63 with the magnitude below it.
		value := int64(code &^ (1 << 63))
		if code>>63 != 0 {
			value = -value
		}
		text := o.Blob(field.HookReturnString)
		for len(text) > 0 && text[len(text)-1] == 0 {
			text = text[:len(text)-1]
		}
		list = append(list, HookExecution{
			Account: o.Account(field.HookAccount), Hash: o.Hash(field.HookHash), Result: o.Uint8(field.HookResult),
			ReturnCode: value, ReturnString: string(text), Emitted: o.Uint16(field.HookEmitCount),
		})
	}
	return list
}

// parse reads a transaction as servers send it.
func (c *Client) parse(tx, meta json.RawMessage, ledger uint32) (*Transaction, error) {
	var t struct {
		Hash   xahau.Hash256 `json:"hash"`
		Date   uint32        `json:"date"`
		Ledger uint32        `json:"ledger_index"`
	}
	var m struct {
		Index     uint32          `json:"TransactionIndex"`
		Result    string          `json:"TransactionResult"`
		Delivered json.RawMessage `json:"delivered_amount"`
	}
	if err := json.Unmarshal(tx, &t); err != nil {
		return nil, fmt.Errorf("transaction: %w", err)
	}
	if err := json.Unmarshal(meta, &m); err != nil {
		return nil, fmt.Errorf("transaction %s: metadata: %w", t.Hash, err)
	}
	if t.Hash.IsZero() || m.Result == "" {
		return nil, errors.New("transaction without hash or result")
	}
	d := c.Definitions()
	code, ok := d.Result(m.Result)
	if !ok {
		return nil, fmt.Errorf("transaction %s: result %q is unknown", t.Hash, m.Result)
	}
	out := &Transaction{Hash: t.Hash, Ledger: t.Ledger, Index: m.Index, Result: ter.Code(code), RawTx: tx, RawMeta: meta}
	if out.Ledger == 0 {
		out.Ledger = ledger
	}
	if t.Date != 0 {
		out.Time = xahau.Time(t.Date)
	}
	var amount xahau.Amount
	if len(m.Delivered) > 0 && json.Unmarshal(m.Delivered, &amount) == nil {
		out.Delivered = &amount
	}
	var err, metaErr error
	if out.Tx, err = d.ParseServerJSON(tx); err != nil {
		out.Tx, out.Err = nil, fmt.Errorf("transaction %s: %w", t.Hash, err)
	}
	if out.Meta, metaErr = d.ParseServerJSON(meta); metaErr != nil {
		out.Meta, out.Err = nil, errors.Join(out.Err, fmt.Errorf("transaction %s: metadata: %w", t.Hash, metaErr))
	}
	return out, nil
}

// GapError tells of ledgers that no connected server has, and in which there may
// have been something.
type GapError struct{ From, To uint32 }

// Error names the ledgers.
func (e *GapError) Error() string {
	return fmt.Sprintf("the server does not have ledgers %d to %d", e.From, e.To)
}

// Transactions are those of validated ledgers that affect an account, each once
// and in the ledger's order. It is for one goroutine.
type Transactions struct {
	c       *Client
	account xahau.AccountID
	closed  bool

	done uint32 // all of this ledger and earlier ones has been returned
	to   uint32 // the ledger up to which is being read; 0 for none
	last struct{ ledger, index uint32 }
	any  bool // whether last is set

	page   []*Transaction
	marker json.RawMessage
	conn   *connection // that the marker is of
	full   bool        // page is the last one up to to
}

// Transactions begins to follow an account: from a ledger on or, if from is 0,
// from the next one that is validated.
func (c *Client) Transactions(ctx context.Context, account xahau.AccountID, from uint32) (*Transactions, error) {
	t := &Transactions{c: c, account: account}
	if from > 0 {
		t.done = from - 1
	} else {
		info, err := c.Ledger(ctx)
		if err != nil {
			return nil, fmt.Errorf("follow %s: %w", account, err)
		}
		t.done = info.Index
	}
	var conn *connection
	c.update(func() {
		w := c.watches[account]
		if w == nil {
			w = &watch{}
			c.watches[account] = w
			conn = c.conn
		}
		w.readers++
		// What happened until the subscription is in place.
		w.rung = max(w.rung, c.tip.Index)
	})
	if conn != nil && conn.socket != nil {
		if _, err := conn.subscribe([]xahau.AccountID{account}); err != nil && !errors.Is(err, errLost) {
			t.Close()
			return nil, fmt.Errorf("follow %s: %w", account, err)
		}
		// And what happened while it was put into place.
		c.update(func() { c.watches[account].rung = max(c.watches[account].rung, c.tip.Index) })
	}
	return t, nil
}

// Close ends it.
func (t *Transactions) Close() {
	if t.closed {
		return
	}
	t.closed = true
	var conn *connection
	t.c.update(func() {
		w := t.c.watches[t.account]
		if w.readers--; w.readers == 0 {
			delete(t.c.watches, t.account)
			conn = t.c.conn
		}
	})
	if conn != nil && conn.socket != nil {
		// Of no use any more; that it may fail does not matter.
		go conn.ask("unsubscribe", map[string]any{"accounts": []xahau.AccountID{t.account}}, &struct{}{})
	}
}

// Done is the ledger up to which all transactions have been returned. A reader
// that begins after it misses nothing.
func (t *Transactions) Done() uint32 { return t.done }

// Next gives the next transaction and waits for it. Ledgers that the server does
// not have are told as *GapError, once; the call after that goes on behind them.
func (t *Transactions) Next(ctx context.Context) (*Transaction, error) {
	for {
		if t.closed {
			return nil, ErrClosed
		}
		for len(t.page) > 0 {
			x := t.page[0]
			t.page = t.page[1:]
			if t.any && (x.Ledger < t.last.ledger || x.Ledger == t.last.ledger && x.Index <= t.last.index) {
				continue // from a page that was asked for again
			}
			t.any = true
			t.last.ledger, t.last.index = x.Ledger, x.Index
			return x, nil
		}
		if t.full {
			t.done, t.to, t.full, t.marker = t.to, 0, false, nil
		}
		if t.to == 0 {
			err := t.c.wait(ctx, func() bool {
				w := t.c.watches[t.account]
				t.to = min(w.rung, t.c.tip.Index)
				return t.to > t.done
			})
			if err != nil {
				t.to = 0
				return nil, fmt.Errorf("follow %s: %w", t.account, err)
			}
		}
		if err := t.fetch(ctx); err != nil {
			return nil, err
		}
	}
}

// fetch reads one page.
func (t *Transactions) fetch(ctx context.Context) error {
	from := t.done + 1
	params := map[string]any{
		"account": t.account, "ledger_index_min": from, "ledger_index_max": t.to, "forward": true, "limit": 200, "binary": false,
	}
	t.c.mu.Lock()
	current := t.c.conn
	t.c.mu.Unlock()
	if t.marker != nil && t.conn == current {
		params["marker"] = t.marker
	} else {
		t.marker = nil
	}
	first := t.marker == nil
	raw, conn, err := t.c.request(ctx, "account_tx", params)
	if err != nil {
		var refusal *ServerError
		switch {
		case IsServerError(err, "actNotFound"):
			// An account that does not exist has no transactions.
			t.full = true
			return nil
		case errors.As(err, &refusal) && t.marker != nil:
			t.marker = nil // from the beginning, skipping what was returned
			return nil
		case IsServerError(err, "lgrIdxInvalid"), IsServerError(err, "lgrIdxsInvalid"), IsServerError(err, "lgrNotFound"), IsServerError(err, "lgrIdxMalformed"):
			// A server that is behind, or lost its history.
			t.to = 0
			return t.c.later(ctx)
		}
		return fmt.Errorf("follow %s: %w", t.account, err)
	}
	var page struct {
		Min          uint32          `json:"ledger_index_min"`
		Max          uint32          `json:"ledger_index_max"`
		Marker       json.RawMessage `json:"marker"`
		Transactions []struct {
			Tx        json.RawMessage `json:"tx"`
			Meta      json.RawMessage `json:"meta"`
			Validated bool            `json:"validated"`
		} `json:"transactions"`
	}
	if err := json.Unmarshal(raw, &page); err != nil {
		return fmt.Errorf("follow %s: account_tx: the answer is malformed: %w", t.account, err)
	}
	if params["marker"] != nil && conn != current {
		// Another server was asked with the marker of the one before.
		t.marker = nil
		return nil
	}
	t.marker, t.conn = nil, conn
	if string(page.Marker) != "null" && len(page.Marker) > 0 {
		t.marker = page.Marker
	}
	if first && page.Max > 0 && page.Max < t.to {
		if page.Max < from {
			t.to = 0
			return t.c.later(ctx)
		}
		t.to = page.Max // the rest when the server has it
	}
	if first && page.Min > from {
		// What is there comes with the next call.
		t.done, t.marker = min(page.Min-1, t.to), nil
		gap := &GapError{from, t.done}
		if t.done >= t.to {
			t.to = 0
		}
		return gap
	}
	t.full = t.marker == nil
	for _, x := range page.Transactions {
		if !x.Validated {
			t.marker, t.full, t.to = nil, false, 0
			return t.c.later(ctx)
		}
		parsed, err := t.c.parse(x.Tx, x.Meta, 0)
		if err != nil {
			return fmt.Errorf("follow %s: %w", t.account, err)
		}
		if parsed.Ledger < from || parsed.Ledger > t.to {
			return fmt.Errorf("follow %s: the server gives a transaction of ledger %d when asked for %d to %d", t.account, parsed.Ledger, from, t.to)
		}
		t.page = append(t.page, parsed)
	}
	return nil
}

// later waits for a new ledger or connection, or a moment.
func (c *Client) later(ctx context.Context) error {
	c.mu.Lock()
	changed := c.changed
	c.mu.Unlock()
	select {
	case <-changed:
	case <-time.After(c.opt.PollInterval):
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
		return ErrClosed
	}
	return nil
}

// Ledgers are the validated ledgers one after another. It is for one goroutine.
type Ledgers struct {
	c    *Client
	next uint32
}

// Ledgers begins to follow the ledgers: from one on or, if from is 0, from the
// next one that is validated.
func (c *Client) Ledgers(ctx context.Context, from uint32) (*Ledgers, error) {
	if from == 0 {
		info, err := c.Ledger(ctx)
		if err != nil {
			return nil, fmt.Errorf("follow ledgers: %w", err)
		}
		from = info.Index + 1
	}
	return &Ledgers{c, from}, nil
}

// Next gives the next ledger and waits for it. Ledgers that the server does not
// have are told as *GapError, once; the call after that goes on behind them.
func (l *Ledgers) Next(ctx context.Context) (LedgerInfo, error) {
	for {
		tip, err := l.c.WaitLedger(ctx, l.next)
		if err != nil {
			return LedgerInfo{}, fmt.Errorf("follow ledgers: %w", err)
		}
		l.c.mu.Lock()
		info, ok := l.c.recent[l.next]
		l.c.mu.Unlock()
		if ok {
			l.next++
			return info, nil
		}
		var answer ledgerAnswer
		err = l.c.Request(ctx, "ledger", map[string]any{"ledger_index": l.next}, &answer)
		switch {
		case IsServerError(err, "lgrNotFound"):
			from := l.next
			l.next = l.firstKnown(ctx, from, tip.Index)
			if l.next == from {
				// Not there yet.
				if err := l.c.later(ctx); err != nil {
					return LedgerInfo{}, fmt.Errorf("follow ledgers: %w", err)
				}
				continue
			}
			return LedgerInfo{}, &GapError{from, l.next - 1}
		case err != nil:
			return LedgerInfo{}, fmt.Errorf("follow ledgers: %w", err)
		}
		if info, err = answer.info(); err != nil {
			return LedgerInfo{}, fmt.Errorf("follow ledgers: %w", err)
		}
		if info.Index != l.next {
			return LedgerInfo{}, fmt.Errorf("follow ledgers: the server gives ledger %d when asked for %d", info.Index, l.next)
		}
		l.next++
		return info, nil
	}
}

// firstKnown finds the first ledger from one on that the server has, by
// halving; servers have all from some ledger on.
func (l *Ledgers) firstKnown(ctx context.Context, from, tip uint32) uint32 {
	have := func(i uint32) (bool, error) {
		var answer ledgerAnswer
		err := l.c.Request(ctx, "ledger", map[string]any{"ledger_index": i}, &answer)
		if IsServerError(err, "lgrNotFound") {
			return false, nil
		}
		return err == nil, err
	}
	if ok, err := have(tip); err != nil || !ok {
		return from
	}
	lo, hi := from, tip // lo is missing, hi is there
	for hi-lo > 1 {
		mid := lo + (hi-lo)/2
		ok, err := have(mid)
		if err != nil {
			return from
		}
		if ok {
			hi = mid
		} else {
			lo = mid
		}
	}
	return hi
}

// Lookup asks for a transaction by its hash: nil if it is in no validated ledger
// that the server knows.
func (c *Client) Lookup(ctx context.Context, id xahau.Hash256) (*Transaction, error) {
	tx, _, err := c.lookup(ctx, id, 0, 0)
	if IsServerError(err, "txnNotFound") {
		return nil, nil
	}
	return tx, err
}

// lookup also tells, if the transaction is not found, whether the server has all
// ledgers from min to max; nil if it does not say.
func (c *Client) lookup(ctx context.Context, id xahau.Hash256, min, max uint32) (*Transaction, *bool, error) {
	params := map[string]any{"transaction": id, "binary": false}
	if max > 0 && max-min <= 1000 {
		params["min_ledger"], params["max_ledger"] = min, max
	}
	raw, err := c.RequestRaw(ctx, "tx", params)
	if err != nil {
		var refusal *ServerError
		if errors.As(err, &refusal) {
			return nil, refusal.SearchedAll, err
		}
		return nil, nil, err
	}
	var answer struct {
		Validated bool            `json:"validated"`
		Meta      json.RawMessage `json:"meta"`
		Ledger    uint32          `json:"ledger_index"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, nil, fmt.Errorf("tx: the answer is malformed: %w", err)
	}
	if !answer.Validated {
		return nil, nil, nil
	}
	t, err := c.parse(raw, answer.Meta, answer.Ledger)
	if err != nil {
		return nil, nil, fmt.Errorf("tx: %w", err)
	}
	if t.Hash != id {
		return nil, nil, fmt.Errorf("tx: the server gives transaction %s when asked for %s", t.Hash, id)
	}
	return t, nil, nil
}

// AccountInfo is an account as a ledger has it.
type AccountInfo struct {
	Root   *xahau.Object // the AccountRoot entry
	Ledger uint32
}

// Account reads an account: ledger is "validated", "current" or a number. An
// account that does not exist is a *ServerError named actNotFound.
func (c *Client) Account(ctx context.Context, account xahau.AccountID, ledger string) (*AccountInfo, error) {
	var index any = ledger
	if n, err := strconv.ParseUint(ledger, 10, 32); err == nil {
		index = n
	}
	var answer struct {
		Data    json.RawMessage `json:"account_data"`
		Index   uint32          `json:"ledger_index"`
		Current uint32          `json:"ledger_current_index"`
	}
	if err := c.Request(ctx, "account_info", map[string]any{"account": account, "ledger_index": index}, &answer); err != nil {
		return nil, err
	}
	root, err := c.Definitions().ParseServerJSON(answer.Data)
	if err != nil {
		return nil, fmt.Errorf("account_info: %w", err)
	}
	return &AccountInfo{root, max(answer.Index, answer.Current)}, nil
}
