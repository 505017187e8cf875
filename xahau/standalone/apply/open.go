package apply

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/chain"
	"evernode/xahau/standalone/shamap"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// CloseResolution is what headers say the close time is rounded to, in seconds.
// One server that closes alone need not round.
const CloseResolution = 10

// Emissions gives the transactions that hooks have emitted in earlier ledgers and
// that are to be applied now, in their order; and those that are expired are
// replaced by the servers' transactions that remove them.
type Emissions interface {
	Pending(r view.Reader) ([]*tx.Prepared, error)
}

// Config is what all ledgers of a network have in common.
type Config struct {
	Engine    *tx.Engine
	Emissions Emissions // nil: there are none
	NetworkID uint32
	Defs      *xahau.Definitions
	// Held is how many transactions that came too early are kept at most; 0 is 2048.
	Held int
}

// Open is the ledger that is being built on a closed one. It is for one goroutine.
type Open struct {
	cfg    Config
	parent chain.Header
	hash   xahau.Hash256 // of the parent
	state  shamap.Map
	closed *view.Closed
	trial  *view.Sandbox // the transactions tried so far
	txs    []*tx.Prepared
	known  map[xahau.Hash256]bool
	held   []Held   // such as those with a later sequence number
	failed []Result // held ones that failed when this ledger was opened
}

// Held is a transaction that waits for others.
type Held struct {
	Tx *tx.Prepared
	// Since is the ledger that was open when it came.
	Since uint32
	// Code says what it waits for.
	Code ter.Code
}

// holdLedgers is for how many ledgers a transaction is held, so that nobody can
// fill the place for held ones for good.
const holdLedgers = 5

// Next opens a ledger on a closed one. held are transactions that were left over
// when that was closed; they are tried at once.
func Next(ctx context.Context, cfg Config, parent chain.Header, state shamap.Map, held []Held) (*Open, error) {
	if cfg.Held == 0 {
		cfg.Held = 2048
	}
	o := &Open{cfg: cfg, parent: parent, hash: parent.Hash(), state: state, known: make(map[xahau.Hash256]bool)}
	o.closed = o.reader()
	o.trial = view.NewSandbox(o.closed)
	if err := o.closed.Err(); err != nil {
		return nil, err
	}
	for _, h := range held {
		code, err := o.submit(ctx, h.Tx, h.Since)
		if err != nil {
			return nil, err
		}
		if !o.known[h.Tx.ID] {
			o.failed = append(o.failed, Result{Tx: h.Tx, Code: code})
		}
	}
	return o, nil
}

// reader reads the parent's state for transactions of this ledger.
func (o *Open) reader() *view.Closed {
	l := view.Ledger{Seq: o.parent.Seq + 1, ParentHash: o.hash, ParentCloseTime: o.parent.CloseTime,
		NetworkID: o.cfg.NetworkID, Defs: o.cfg.Defs}
	l.Fees = tx.ReadFees(view.NewClosed(o.state, l))
	return view.NewClosed(o.state, l)
}

// View is the ledger with the transactions tried so far: what a server calls the
// current ledger. It must not be changed.
func (o *Open) View() view.Reader { return o.trial }

// Transactions gives the transactions tried so far that will probably be in the
// ledger.
func (o *Open) Transactions() []*tx.Prepared { return o.txs }

// Held gives the transactions that wait for others.
func (o *Open) Held() []*tx.Prepared {
	list := make([]*tx.Prepared, len(o.held))
	for i, h := range o.held {
		list[i] = h.Tx
	}
	return list
}

// Submit tries a transaction. The result is preliminary; TerPRE_SEQ and its like
// mean that it is held for the next ledgers. The error is the store's.
func (o *Open) Submit(ctx context.Context, p *tx.Prepared) (ter.Code, error) {
	return o.submit(ctx, p, o.parent.Seq+1)
}

func (o *Open) submit(ctx context.Context, p *tx.Prepared, since uint32) (ter.Code, error) {
	if o.known[p.ID] {
		return ter.TefALREADY, nil
	}
	if o.servers(p) {
		return ter.TemINVALID, nil
	}
	code, applied, err := o.try(ctx, p)
	if err != nil {
		return 0, err
	}
	switch {
	case applied:
		return code, o.retryHeld(ctx, p)
	case code.IsRetry() && o.parent.Seq+1-since < holdLedgers:
		if len(o.held) >= o.cfg.Held {
			return ter.TelCAN_NOT_QUEUE_FULL, nil
		}
		o.known[p.ID] = true
		o.held = append(o.held, Held{p, since, code})
	}
	return code, nil
}

// Try is Submit without keeping the transaction.
func (o *Open) Try(ctx context.Context, p *tx.Prepared) (tx.Outcome, error) {
	if o.servers(p) {
		return tx.Outcome{Result: ter.TemINVALID}, nil
	}
	return o.cfg.Engine.Apply(ctx, view.NewSandbox(o.trial), p, tx.Mode{Open: true, Index: uint32(len(o.txs))})
}

// servers tells whether a transaction is one of the servers', which nobody can
// submit: they have no signature.
func (o *Open) servers(p *tx.Prepared) bool {
	return o.cfg.Engine.Table[p.Tx.TransactionType()].Pseudo
}

func (o *Open) try(ctx context.Context, p *tx.Prepared) (ter.Code, bool, error) {
	out, err := o.cfg.Engine.Apply(ctx, o.trial, p, tx.Mode{Open: true, Index: uint32(len(o.txs))})
	if err != nil {
		return 0, false, err
	}
	if out.Applied {
		o.known[p.ID] = true
		o.txs = append(o.txs, p)
	}
	return out.Result, out.Applied, nil
}

// retryHeld tries held transactions of the account of one that was applied.
func (o *Open) retryHeld(ctx context.Context, p *tx.Prepared) error {
	account := p.Tx.Account(field.Account)
	for again := true; again; {
		again = false
		for i, h := range o.held {
			if h.Tx.Tx.Account(field.Account) != account {
				continue
			}
			_, applied, err := o.try(ctx, h.Tx)
			if err != nil {
				return err
			}
			if applied {
				o.held = slices.Delete(o.held, i, i+1)
				again = true
				break
			}
		}
	}
	return nil
}

// Result is a transaction of a closed ledger.
type Result struct {
	Tx   *tx.Prepared
	Code ter.Code
	Meta *xahau.Object
}

// Closed is a ledger that was closed.
type Closed struct {
	Ledger  chain.Ledger
	Results []Result // in the order of application
	// Failed are those that are not in the ledger and will not be tried again.
	Failed []Result
	// Held are for Next.
	Held []Held
}

// Bounds of the passes over the transactions of a ledger.
const (
	passes      = 3
	retryPasses = 1
)

// Close closes the ledger: it applies the emitted transactions, extra ones of the
// servers, and all that were tried or held, and makes the header. closeTime is in
// seconds since 2000 and must be above that of the ledger before.
func (o *Open) Close(ctx context.Context, closeTime uint32, extra ...*tx.Prepared) (*Closed, error) {
	if closeTime <= o.parent.CloseTime {
		return nil, fmt.Errorf("close ledger %d: time %d is not after that of the ledger before, %d", o.parent.Seq+1, closeTime, o.parent.CloseTime)
	}
	// The trial has read the same state; what it has decoded is good again.
	built := view.NewSandbox(o.closed)
	b := &builder{o: o, ctx: ctx, view: built, failed: slices.Clone(o.failed)}
	if o.cfg.Emissions != nil {
		emitted, err := o.cfg.Emissions.Pending(built)
		if err != nil {
			return nil, fmt.Errorf("close ledger %d: emitted transactions: %w", o.parent.Seq+1, err)
		}
		if err := b.run(emitted); err != nil {
			return nil, err
		}
	}
	if err := b.run(extra); err != nil {
		return nil, err
	}
	all := slices.Clone(o.txs)
	since := make(map[*tx.Prepared]uint32, len(o.held))
	for _, h := range o.held {
		all = append(all, h.Tx)
		since[h.Tx] = h.Since
	}
	order, err := canonicalOrder(all)
	if err != nil {
		return nil, err
	}
	left, err := b.passes(order)
	if err != nil {
		return nil, err
	}
	for _, p := range left {
		h := Held{Tx: p, Since: since[p], Code: ter.TerRETRY}
		if h.Since == 0 {
			h.Since = o.parent.Seq + 1
		}
		b.held = append(b.held, h)
	}
	skipLists(built)
	return b.close(closeTime)
}

type builder struct {
	o      *Open
	ctx    context.Context
	view   *view.Sandbox
	done   []Result
	failed []Result
	held   []Held
	burned int64
	minted int64
}

// apply applies one transaction and tells whether it need not be tried again.
func (b *builder) apply(p *tx.Prepared, retry bool) (bool, error) {
	out, err := b.o.cfg.Engine.Apply(b.ctx, b.view, p, tx.Mode{Retry: retry, Index: uint32(len(b.done))})
	if err != nil {
		return false, fmt.Errorf("ledger %d: transaction %s: %w", b.o.parent.Seq+1, p.ID, err)
	}
	switch {
	case out.Applied:
		b.done = append(b.done, Result{p, out.Result, out.Meta})
		b.burned += out.Burned
		b.minted += out.Minted
		return true, nil
	case out.Result.IsRetry() || out.Result.IsClaimed():
		return false, nil
	}
	b.failed = append(b.failed, Result{Tx: p, Code: out.Result})
	return true, nil
}

// run applies transactions once, in their order.
func (b *builder) run(list []*tx.Prepared) error {
	for _, p := range list {
		finished, err := b.apply(p, false)
		if err != nil {
			return err
		}
		if !finished {
			b.failed = append(b.failed, Result{Tx: p, Code: ter.TefFAILURE})
		}
	}
	return nil
}

func (b *builder) passes(list []*tx.Prepared) ([]*tx.Prepared, error) {
	retry := true
	for pass := 0; pass < passes; pass++ {
		changed := false
		var left []*tx.Prepared
		for _, p := range list {
			n := len(b.done)
			finished, err := b.apply(p, retry)
			if err != nil {
				return nil, err
			}
			changed = changed || len(b.done) > n
			if !finished {
				left = append(left, p)
			}
		}
		list = left
		if !changed && !retry {
			break
		}
		if !changed || pass >= retryPasses {
			retry = false
		}
	}
	return list, nil
}

// canonicalOrder sorts transactions so that nobody can choose his place: by
// account, mixed with the hash of the set, and each account's by sequence number,
// tickets last.
func canonicalOrder(list []*tx.Prepared) ([]*tx.Prepared, error) {
	changes := make([]shamap.Change, len(list))
	for i, p := range list {
		changes[i] = shamap.Change{Key: p.ID, Data: p.Blob}
	}
	set, err := shamap.New(shamap.Candidates).Apply(changes)
	if err != nil {
		return nil, fmt.Errorf("set of transactions: %w", err)
	}
	salt := set.Hash()
	type key struct {
		account [32]byte
		ticket  bool
		seq     uint32
	}
	keys := make(map[*tx.Prepared]key, len(list))
	for _, p := range list {
		k := key{seq: p.Tx.Uint32(field.Sequence)}
		if t, ok := xahau.Lookup[xahau.Uint32](p.Tx, field.TicketSequence); ok && k.seq == 0 {
			k.ticket, k.seq = true, uint32(t)
		}
		account := p.Tx.Account(field.Account)
		copy(k.account[:], account[:])
		for i := range k.account {
			k.account[i] ^= salt[i]
		}
		keys[p] = k
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(p, q *tx.Prepared) int {
		a, b := keys[p], keys[q]
		if c := bytes.Compare(a.account[:], b.account[:]); c != 0 {
			return c
		}
		if a.ticket != b.ticket {
			if a.ticket {
				return 1
			}
			return -1
		}
		if a.seq != b.seq {
			if a.seq < b.seq {
				return -1
			}
			return 1
		}
		return p.ID.Compare(q.ID)
	})
	return list, nil
}

// skipLists notes the parent's hash where those of earlier ledgers are found.
func skipLists(v view.View) {
	l := v.Ledger()
	before := l.Seq - 1
	add := func(k keylet.Keylet, most int) {
		e := view.Edit(v, k)
		fresh := e == nil
		if fresh {
			e = view.NewEntry(k)
		}
		hashes := slices.Clone(e.Vector(field.Hashes))
		if most > 0 && len(hashes) >= most {
			hashes = hashes[1:]
		}
		e.Set(field.Hashes, xahau.Vector(append(hashes, l.ParentHash)))
		e.Set(field.LastLedgerSequence, xahau.Uint32(before))
		if fresh {
			v.Insert(k, e)
		} else {
			v.Update(k, e)
		}
	}
	if before&0xFF == 0 {
		add(keylet.SkipListOf(before), 0)
	}
	add(keylet.SkipList(), 256)
}

func (b *builder) close(closeTime uint32) (*Closed, error) {
	o := b.o
	fail := func(err error) (*Closed, error) {
		return nil, fmt.Errorf("close ledger %d: %w", o.parent.Seq+1, err)
	}
	if err := b.view.Err(); err != nil {
		return fail(err)
	}
	txs := make([]chain.Transaction, len(b.done))
	for i, r := range b.done {
		meta, err := o.cfg.Defs.Encode(r.Meta)
		if err != nil {
			return fail(fmt.Errorf("metadata of %s: %w", r.Tx.ID, err))
		}
		txs[i] = chain.Transaction{Hash: chain.Hash(r.Tx.ID), Blob: r.Tx.Blob, Meta: meta, Ledger: o.parent.Seq + 1, Index: uint32(i)}
		for _, a := range view.AffectedAccounts(r.Meta) {
			txs[i].Accounts = append(txs[i].Accounts, chain.Account(a))
		}
	}
	tree, err := chain.TransactionTree(txs)
	if err != nil {
		return fail(err)
	}
	var changes []shamap.Change
	for _, ch := range b.view.Changes() {
		c := shamap.Change{Key: ch.Index}
		if ch.Kind != view.Deleted {
			if c.Data, err = o.cfg.Defs.Encode(ch.After); err != nil {
				return fail(fmt.Errorf("entry %s: %w", ch.Index, err))
			}
		}
		changes = append(changes, c)
	}
	state, err := o.state.Apply(changes)
	if err != nil {
		return fail(err)
	}
	header := chain.Header{
		Seq: o.parent.Seq + 1, Drops: uint64(int64(o.parent.Drops) - b.burned + b.minted),
		ParentHash: chain.Hash(o.hash), TxHash: tree.Hash(), AccountHash: state.Hash(),
		ParentCloseTime: o.parent.CloseTime, CloseTime: closeTime, CloseResolution: CloseResolution,
	}
	return &Closed{Ledger: chain.Ledger{Header: header, State: state, Transactions: txs}, Results: b.done, Failed: b.failed, Held: b.held}, nil
}
