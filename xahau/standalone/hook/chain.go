package hook

import (
	"context"
	"fmt"
	"math"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

// How transactors run hooks, in the order of the network:
//
//  1. Before the transaction is applied, with one States: Chain(Strong) for the
//     account of the transaction, unless a hook emitted it, then for each strong
//     stakeholder. If one is rejected, the transaction is tecHOOK_REJECTED and
//     nothing of the states and emissions counts. Else write States.Changes and put
//     the emissions of all results in the emitted directory.
//  2. Apply the transaction.
//  3. With the metadata so far in Context.Meta: Callback, if a hook emitted the
//     transaction; write the changes and emissions of those that accepted. Remove
//     the transaction from the emitted directory.
//  4. With a new States: Chain(Weak) for each weak stakeholder that collects and can
//     pay ChainFee, then AgainAsWeak for the hooks whose strong result had Again.
//     Write the changes, and the emissions if the transaction succeeded.
//
// Each Result is one HookExecution of the metadata, each of its emissions one
// HookEmission.

// flagCollect on a hook allows weak runs.
const flagCollect = 4

// installed is a hook of an account's chain, with its definition.
type installed struct {
	position  uint8
	hash      xahau.Hash256
	hook, def object
}

func (i installed) flags() uint32 {
	v, ok := i.hook.uint(field.Flags)
	if !ok {
		v, _ = i.def.uint(field.Flags)
	}
	return uint32(v)
}

// on is the hook's HookOn; which of its forms counts depends on whether the
// transaction is from the account itself.
func (i installed) on(outgoing bool) xahau.Hash256 {
	special := field.HookOnIncoming
	if outgoing {
		special = field.HookOnOutgoing
	}
	for _, o := range []object{i.hook, i.def} {
		for _, code := range []field.Code{special, field.HookOn} {
			if h, ok := o.hash(code); ok {
				return h
			}
		}
	}
	return xahau.Hash256{}
}

func (i installed) namespace() xahau.Hash256 {
	ns, ok := i.hook.hash(field.HookNamespace)
	if !ok {
		ns, _ = i.def.hash(field.HookNamespace)
	}
	return ns
}

func (i installed) canEmit() *xahau.Hash256 {
	for _, o := range []object{i.hook, i.def} {
		if h, ok := o.hash(field.HookCanEmit); ok {
			return &h
		}
	}
	return nil
}

// params are the definition's parameters, overridden by those of the account.
func (i installed) params() map[string][]byte {
	all := make(map[string][]byte)
	for _, o := range []object{i.def, i.hook} {
		array, ok := o.get(field.HookParameters)
		if !ok {
			continue
		}
		for _, it := range items(array.value) {
			name, _ := findPart(it.value, field.HookParameterName)
			value, _ := findPart(it.value, field.HookParameterValue)
			all[string(name.body)] = value.body
		}
	}
	return all
}

func (i installed) call(account xahau.AccountID, mode Mode, states *States, overrides Overrides) *Call {
	code, _ := i.def.get(field.CreateCode)
	return &Call{
		Hash: i.hash, Code: code.body, Account: account, Position: i.position, Mode: mode,
		Namespace: i.namespace(), Params: i.params(), Overrides: overrides,
		HasCbak: i.def.has(field.HookCallbackFee), CanEmit: i.canEmit(), States: states,
	}
}

// readChain gives the hooks of an account; hooks without definition are left out.
func readChain(l Ledger, account xahau.AccountID) ([]installed, error) {
	b, err := l.Entry(keylet.Hook(account).Index)
	if err != nil || b == nil {
		return nil, err
	}
	array, ok := findPart(b, field.Hooks)
	if !ok {
		return nil, nil
	}
	var chain []installed
	for n, hook := range hookObjects(array.value) {
		hash, ok := hook.hash(field.HookHash)
		if !ok {
			continue // a blank position
		}
		d, err := l.Entry(keylet.HookDefinition(hash).Index)
		if err != nil {
			return nil, err
		}
		if d == nil {
			continue
		}
		def, err := parts(d)
		if err != nil {
			return nil, fmt.Errorf("definition of hook %s: %w", hash, err)
		}
		chain = append(chain, installed{position: uint8(n), hash: hash, hook: hook, def: def})
	}
	return chain, nil
}

// CanHook tells whether a hook with a HookOn fires on a type of transaction: a bit
// of 0 fires, but for SetHook a bit of 1.
func CanHook(t xahau.TransactionType, on xahau.Hash256) bool {
	if t > 255 {
		return false
	}
	set := on[31-t/8]>>(t%8)&1 == 1
	return set == (t == xahau.TxSetHook)
}

// ChainFee is what the runs of an account's hooks for a type of transaction cost,
// in drops. outgoing tells whether the transaction is from the account; collect
// counts only hooks that run weakly.
func ChainFee(l Ledger, account xahau.AccountID, t xahau.TransactionType, outgoing, collect bool) (int64, error) {
	chain, err := readChain(l, account)
	if err != nil {
		return 0, err
	}
	fee := int64(0)
	for _, h := range chain {
		if !CanHook(t, h.on(outgoing)) || collect && h.flags()&flagCollect == 0 {
			continue
		}
		add, _ := h.def.drops(field.Fee)
		if fee > math.MaxInt64-add {
			return math.MaxInt64, nil
		}
		fee += add
	}
	return fee, nil
}

// CallbackFee is what the callback of an emitted transaction costs, in drops.
func CallbackFee(l Ledger, hook xahau.Hash256) (int64, error) {
	b, err := l.Entry(keylet.HookDefinition(hook).Index)
	if err != nil || b == nil {
		return 0, err
	}
	all, err := parts(b)
	if err != nil {
		return 0, fmt.Errorf("definition of hook %s: %w", hook, err)
	}
	fee, _ := object(all).drops(field.HookCallbackFee)
	return fee, nil
}

// Chain runs the hooks of an account that fire on the transaction, in mode Strong
// or Weak. It stops at the first that does not accept; then rejected is true. The
// results of all that ran, that one included, are for the metadata.
func (m *Machine) Chain(ctx context.Context, c *Context, account xahau.AccountID, mode Mode, states *States) (results []*Result, rejected bool, err error) {
	chain, err := readChain(c.Ledger, account)
	if err != nil {
		return nil, false, err
	}
	var overrides Overrides
	skips := make(map[xahau.Hash256]bool)
	for _, h := range chain {
		if skips[h.hash] || !CanHook(c.Tx.typ, h.on(account == c.Tx.account)) {
			continue
		}
		if mode == Weak && h.flags()&flagCollect == 0 {
			continue
		}
		r, err := m.Run(ctx, c, h.call(account, mode, states, overrides))
		if err != nil {
			return results, false, err
		}
		results = append(results, r)
		if r.Exit != Accept {
			return results, true, nil
		}
		for _, s := range r.Skips {
			skips[s] = true
		}
		overrides = r.Overrides
	}
	return results, false, nil
}

// CallbackResult is a callback and the state that it wrote.
type CallbackResult struct {
	*Result
	States *States
}

// Callback runs the callback of an emitted transaction, if it names one and the
// hook is still there. A hook that is installed twice runs twice.
func (m *Machine) Callback(ctx context.Context, c *Context) ([]CallbackResult, error) {
	account, ok := c.Tx.emit.account(field.EmitCallback)
	if !ok {
		return nil, nil
	}
	hash, ok := c.Tx.emit.hash(field.EmitHookHash)
	if !ok {
		return nil, nil
	}
	chain, err := readChain(c.Ledger, account)
	if err != nil {
		return nil, err
	}
	var results []CallbackResult
	for _, h := range chain {
		if h.hash != hash || !h.def.has(field.HookCallbackFee) {
			continue
		}
		states := NewStates()
		r, err := m.Run(ctx, c, h.call(account, Callback, states, nil))
		if err != nil {
			return results, err
		}
		results = append(results, CallbackResult{r, states})
	}
	return results, nil
}

// AgainAsWeak runs the hooks of an account, given by their hashes, that asked for
// it with hook_again in their strong run.
func (m *Machine) AgainAsWeak(ctx context.Context, c *Context, account xahau.AccountID, hooks []xahau.Hash256, states *States) ([]*Result, error) {
	wanted := make(map[xahau.Hash256]bool, len(hooks))
	for _, h := range hooks {
		wanted[h] = true
	}
	chain, err := readChain(c.Ledger, account)
	if err != nil {
		return nil, err
	}
	var results []*Result
	for _, h := range chain {
		if !wanted[h.hash] {
			continue
		}
		r, err := m.Run(ctx, c, h.call(account, Again, states, nil))
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}
