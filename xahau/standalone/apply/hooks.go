package apply

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/hook"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// Hooks joins transactions and the hook machine: which hooks run when, what they
// write to the ledger, and what the metadata tells of them (spec/ledger.md section
// 3; package hook says in which order). It is safe for use by several goroutines on
// different views.
type Hooks struct {
	machine *hook.Machine
	engine  *tx.Engine
	past    func(id xahau.Hash256) ([]byte, error)

	mu      sync.Mutex
	encoded map[xahau.Hash256]encoding
}

// encoding is the binary form of an entry, for as long as the entry is the same.
type encoding struct {
	of    *xahau.Object
	bytes []byte
}

// maxEncoded is how many entries are kept in binary form.
const maxEncoded = 128

// NewHooks makes the Hooks of an engine, and puts them and the pseudo-transaction
// that ends what was emitted and expired into it. past gives a transaction of a
// closed ledger, or nil; it may be nil itself, then hooks see none.
func NewHooks(m *hook.Machine, e *tx.Engine, past func(id xahau.Hash256) ([]byte, error)) *Hooks {
	h := &Hooks{machine: m, engine: e, past: past, encoded: make(map[xahau.Hash256]encoding)}
	e.Hooks = h
	e.Table[xahau.TxEmitFailure] = tx.Transactor{Pseudo: true, Apply: h.emitFailure}
	return h
}

// ledger is the machine's view of a transaction's view.
type ledger struct {
	h *Hooks
	r view.Reader
}

// Entry gives an entry in binary form. Those that most hooks read, and that are
// large, are not encoded again as long as they do not change.
func (l ledger) Entry(index xahau.Hash256) ([]byte, error) {
	o := l.r.Read(keylet.Keylet{Index: index})
	if err := l.r.Err(); err != nil || o == nil {
		return nil, err
	}
	t := o.EntryType()
	keep := t == xahau.EntryHook || t == xahau.EntryHookDefinition
	if keep {
		l.h.mu.Lock()
		e := l.h.encoded[index]
		l.h.mu.Unlock()
		if e.of == o {
			return e.bytes, nil
		}
	}
	b, err := l.r.Ledger().Defs.Encode(o)
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", index, err)
	}
	if keep {
		l.h.mu.Lock()
		if len(l.h.encoded) >= maxEncoded {
			clear(l.h.encoded)
		}
		l.h.encoded[index] = encoding{o, b}
		l.h.mu.Unlock()
	}
	return b, nil
}

func (l ledger) Next(low, high xahau.Hash256) (xahau.Hash256, bool, error) {
	index, found := l.r.Next(low, high)
	return index, found, l.r.Err()
}

func (l ledger) Transaction(id xahau.Hash256) ([]byte, error) {
	if l.h.past == nil {
		return nil, nil
	}
	return l.h.past(id)
}

func (l ledger) Fee(b []byte) (int64, error) {
	t, err := l.r.Ledger().Defs.Decode(b)
	if err != nil {
		return 0, err
	}
	return l.h.engine.Fee(l.r, t), l.r.Err()
}

func (l ledger) Preflight(b []byte) error {
	t, err := l.r.Ledger().Defs.Decode(b)
	if err != nil {
		return err
	}
	code, err := l.h.engine.PreflightEmitted(t, l.r.Ledger())
	switch {
	case code == ter.TesSUCCESS:
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", code, err)
	}
	return fmt.Errorf("%s", code)
}

// Fee is what the hooks add to a transaction's fee, in drops; see tx.Hooks. A
// transaction that cannot be written yet, because it lacks fields, adds nothing.
func (h *Hooks) Fee(r view.Reader, t *xahau.Object) int64 {
	b, err := r.Ledger().Defs.Encode(t)
	if err != nil {
		return 0
	}
	parsed, err := hook.NewTransaction(b, xahau.Hash256{})
	if err != nil {
		return 0
	}
	fee, err := hook.ExecutionFee(ledger{h, r}, parsed)
	if err != nil {
		r.Fail(err)
	}
	return fee
}

// running is what Hooks keeps of a transaction between Before and After.
type running struct {
	tx           *hook.Transaction
	stakeholders []hook.Stakeholder
	// again are the hooks that run again, by account in order.
	again []againAsWeak
}

type againAsWeak struct {
	account xahau.AccountID
	hooks   []xahau.Hash256
}

func (h *Hooks) context(c *tx.Context, t *hook.Transaction) *hook.Context {
	l := c.View.Ledger()
	return &hook.Context{
		Ledger: ledger{h, c.View},
		Header: hook.Header{
			Seq: l.Seq, ParentHash: l.ParentHash, ParentCloseTime: l.ParentCloseTime,
			BaseFee: l.Fees.Base, Reserve: l.Fees.Reserve, Increment: l.Fees.Increment,
		},
		Tx: t,
	}
}

// begin reads the transaction for hooks.
func (h *Hooks) begin(c *tx.Context) (*running, *hook.Context, error) {
	if r, ok := c.Hooks.(*running); ok {
		return r, h.context(c, r.tx), nil
	}
	t, err := hook.NewTransaction(c.Blob, c.ID)
	if err != nil {
		return nil, nil, err
	}
	r := &running{tx: t}
	hc := h.context(c, t)
	if r.stakeholders, err = hook.Stakeholders(hc.Ledger, t); err != nil {
		return nil, nil, err
	}
	c.Hooks = r
	return r, hc, nil
}

// Before runs the strong hooks: those of the transaction's account, unless a hook
// emitted it, and those of strong stakeholders. See tx.Hooks.
func (h *Hooks) Before(ctx context.Context, c *tx.Context) ter.Code {
	r, hc, err := h.begin(c)
	if err != nil {
		c.View.Fail(err)
		return ter.TefINTERNAL
	}
	states := hook.NewStates()
	var results []*hook.Result
	rejected := false
	run := func(account xahau.AccountID) {
		if rejected || err != nil || !view.Exists(c.View, keylet.Hook(account)) || !view.Exists(c.View, keylet.Account(account)) {
			return
		}
		var more []*hook.Result
		more, rejected, err = h.machine.Chain(ctx, hc, account, hook.Strong, states)
		results = append(results, more...)
	}
	if !c.Emitted {
		run(c.Account)
	}
	for _, s := range r.stakeholders {
		if s.Strong {
			run(s.Account)
		}
	}
	if err != nil {
		c.View.Fail(err)
		return ter.TefINTERNAL
	}
	if !rejected {
		h.write(c, states)
	}
	for _, result := range results {
		h.record(c, result, !rejected)
		if result.Again {
			r.runAgain(result)
		}
	}
	if rejected {
		return ter.TecHOOK_REJECTED
	}
	return ter.TesSUCCESS
}

// runAgain notes a hook that asked to run after the transaction was applied.
func (r *running) runAgain(result *hook.Result) {
	i, found := slices.BinarySearchFunc(r.again, result.Account, func(a againAsWeak, b xahau.AccountID) int {
		return bytes.Compare(a.account[:], b[:])
	})
	if !found {
		r.again = slices.Insert(r.again, i, againAsWeak{account: result.Account})
	}
	if !slices.Contains(r.again[i].hooks, result.Hash) {
		r.again[i].hooks = append(r.again[i].hooks, result.Hash)
	}
}

// After runs the callback, weak hooks and those that run again. See tx.Hooks.
func (h *Hooks) After(ctx context.Context, c *tx.Context, meta func() *xahau.Object) {
	if err := h.after(ctx, c, meta); err != nil {
		c.View.Fail(err)
	}
}

func (h *Hooks) after(ctx context.Context, c *tx.Context, meta func() *xahau.Object) error {
	r, hc, err := h.begin(c)
	if err != nil {
		return err
	}
	// All of them see the metadata as it is before the first of them runs. Most
	// transactions have none of them.
	provisional := func() error {
		if hc.Meta == nil {
			hc.Meta, err = c.View.Ledger().Defs.Encode(meta())
		}
		return err
	}
	if c.Emitted {
		if err := h.callback(ctx, c, hc, provisional); err != nil {
			return err
		}
		if err := removeEmitted(c.View, c.ID); err != nil {
			return err
		}
	}
	states := hook.NewStates()
	var results []*hook.Result
	for _, account := range weakStakeholders(c, r) {
		if !h.collect(c, hc, account) {
			continue
		}
		if err := provisional(); err != nil {
			return err
		}
		more, _, err := h.machine.Chain(ctx, hc, account, hook.Weak, states)
		if err != nil {
			return err
		}
		results = append(results, more...)
	}
	for _, a := range r.again {
		if err := provisional(); err != nil {
			return err
		}
		more, err := h.machine.AgainAsWeak(ctx, hc, a.account, a.hooks, states)
		if err != nil {
			return err
		}
		results = append(results, more...)
	}
	h.write(c, states)
	for _, result := range results {
		h.record(c, result, c.Result == ter.TesSUCCESS || c.Result == ter.TesPARTIAL)
	}
	return c.View.Err()
}

// weakStakeholders gives those that the transaction names and those whose balances
// it changed, each once, without those that were strong.
func weakStakeholders(c *tx.Context, r *running) []xahau.AccountID {
	var list []xahau.AccountID
	seen := map[xahau.AccountID]bool{c.Account: true}
	for _, s := range r.stakeholders {
		if !s.Strong && !seen[s.Account] {
			list = append(list, s.Account)
		}
		seen[s.Account] = true
	}
	for _, account := range c.Weak {
		if !seen[account] {
			list = append(list, account)
		}
		seen[account] = true
	}
	return list
}

// collect takes from a weak stakeholder what its hooks cost. It is false if none
// run: because there are none, or the account does not allow it or cannot pay.
func (h *Hooks) collect(c *tx.Context, hc *hook.Context, account xahau.AccountID) bool {
	if !view.Exists(c.View, keylet.Hook(account)) {
		return false
	}
	root := c.View.Read(keylet.Account(account))
	if root == nil || root.Flags()&xahau.LsfTshCollect == 0 {
		return false
	}
	fee, err := hook.ChainFee(hc.Ledger, account, hc.Tx.Type(), false, true)
	if err != nil {
		c.View.Fail(err)
		return false
	}
	spare := view.Liquid(c.View, account, 0)
	if fee <= 0 || fee > spare {
		return false
	}
	view.AddDrops(c.View, account, -fee)
	c.Burned += fee
	return true
}

// callback runs the callback of an emitted transaction.
func (h *Hooks) callback(ctx context.Context, c *tx.Context, hc *hook.Context, provisional func() error) error {
	d := c.Tx.Object(field.EmitDetails)
	account, wanted := xahau.Lookup[xahau.AccountID](d, field.EmitCallback)
	if !wanted || !view.Exists(c.View, keylet.Hook(account)) {
		return nil
	}
	if err := provisional(); err != nil {
		return err
	}
	results, err := h.machine.Callback(ctx, hc)
	if err != nil {
		return err
	}
	for _, result := range results {
		accepted := result.Exit == hook.Accept
		if accepted {
			h.write(c, result.States)
		}
		h.record(c, result.Result, accepted)
	}
	return nil
}

// write writes the hook state that runs have changed. As on the network it stops at
// the first change that cannot be written; the machine has checked all of them.
func (h *Hooks) write(c *tx.Context, states *hook.States) {
	for _, s := range states.Changes() {
		if code := tx.SetHookState(c.View, s); code != ter.TesSUCCESS {
			return
		}
	}
}

// record puts a run into the metadata, and what it emitted into the ledger.
func (h *Hooks) record(c *tx.Context, r *hook.Result, emit bool) {
	emitted := 0
	for _, e := range r.Emitted {
		if !emit || !h.emit(c, e) {
			continue
		}
		emitted++
		o := &xahau.Object{}
		o.Set(field.HookHash, r.Hash)
		o.Set(field.HookAccount, r.Account)
		o.Set(field.EmittedTxnID, e.ID)
		o.Set(field.EmitNonce, e.Nonce)
		c.Emissions = append(c.Emissions, xahau.Element{Field: field.HookEmission, Object: o})
	}
	o := &xahau.Object{}
	o.Set(field.HookResult, xahau.Uint8(r.Exit))
	o.Set(field.HookHash, r.Hash)
	o.Set(field.HookAccount, r.Account)
	o.Set(field.HookReturnCode, xahau.Uint64(r.ReturnCode()))
	reason := r.Reason
	if reason == nil {
		reason = []byte{}
	}
	o.Set(field.HookReturnString, xahau.Blob(reason))
	o.Set(field.HookInstructionCount, xahau.Uint64(r.Instructions))
	o.Set(field.HookExecutionIndex, xahau.Uint16(len(c.Executions)))
	o.Set(field.HookStateChangeCount, xahau.Uint16(r.StateChanges))
	o.Set(field.HookEmitCount, xahau.Uint16(emitted))
	o.Set(field.Flags, xahau.Uint32(r.Flags()))
	c.Executions = append(c.Executions, xahau.Element{Field: field.HookExecution, Object: o})
}
