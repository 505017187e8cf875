package hook

import (
	"bytes"
	"strings"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

// fireOn is a HookOn that fires on one type of transaction besides what its
// inverted bit means for SetHook.
func fireOn(types ...xahau.TransactionType) xahau.Hash256 {
	on := fill32(0xff)
	on[31-xahau.TxSetHook/8] &^= 1 << (xahau.TxSetHook % 8)
	for _, t := range types {
		on[31-t/8] ^= 1 << (t % 8)
	}
	return on
}

func TestCanHook(t *testing.T) {
	all := xahau.Hash256{}
	for typ := range xahau.TransactionType(256) {
		if CanHook(typ, all) != (typ != xahau.TxSetHook) {
			t.Errorf("zeros on %d", typ)
		}
		if CanHook(typ, fireOn(xahau.TxInvoke)) != (typ == xahau.TxInvoke) {
			t.Errorf("Invoke on %d", typ)
		}
		if CanHook(typ, fireOn(xahau.TxSetHook)) != (typ == xahau.TxSetHook) {
			t.Errorf("SetHook on %d", typ)
		}
	}
	if CanHook(300, all) {
		t.Error("a type beyond the bits")
	}
}

func parameter(name string, value []byte) xahau.Element {
	return element(field.HookParameter, fields{field.HookParameterName: xahau.Blob(name), field.HookParameterValue: xahau.Blob(value)})
}

// define puts a definition into the world.
func (s *scene) define(t *testing.T, code []byte, more fields) xahau.Hash256 {
	t.Helper()
	v, err := Check(code)
	if err != nil {
		t.Fatal(err)
	}
	hash := xahau.HookHash(code)
	f := fields{field.HookHash: hash, field.HookNamespace: ownSpace, field.HookOn: xahau.Hash256{}, field.CreateCode: xahau.Blob(code),
		field.Fee: xahau.Drops(int64(v.HookFee)), field.HookParameters: xahau.Array{}, field.Flags: xahau.Uint32(0)}
	if v.HasCbak {
		f[field.HookCallbackFee] = xahau.Drops(int64(v.CbakFee))
	}
	for k, x := range more {
		f[k] = x
	}
	s.w.put(t, keylet.HookDefinition(hash), f)
	return hash
}

func (s *scene) install(t *testing.T, account xahau.AccountID, hooks ...fields) {
	t.Helper()
	var all xahau.Array
	for _, h := range hooks {
		all = append(all, element(field.Hook, h))
	}
	s.w.put(t, keylet.Hook(account), fields{field.Account: account, field.Hooks: all})
}

func reasons(results []*Result) string {
	var all []string
	for _, r := range results {
		all = append(all, string(bytes.TrimSpace(r.Reason)))
	}
	return strings.Join(all, "|")
}

func TestChain(t *testing.T) {
	m := newMachine(t, Config{})
	s := newScene(t, wasm(t, "hook_pos"))
	first := s.define(t, wasm(t, "chain_first"), nil)
	last := s.define(t, wasm(t, "chain_last"), fields{field.HookParameters: xahau.Array{parameter("WHO", []byte("deflt"))}})
	run := func(mode Mode, hooks ...fields) ([]*Result, bool, *States) {
		t.Helper()
		s.install(t, own, hooks...)
		states := NewStates()
		results, rejected, err := m.Chain(ctx, s.c, own, mode, states)
		if err != nil {
			t.Fatal(err)
		}
		return results, rejected, states
	}
	of := func(hash xahau.Hash256, params ...xahau.Element) fields {
		f := fields{field.HookHash: hash}
		if params != nil {
			f[field.HookParameters] = xahau.Array(params)
		}
		return f
	}

	// The definition's parameter, and the state that the first hook wrote.
	results, rejected, states := run(Strong, of(first), fields{}, of(last))
	if rejected || reasons(results) != "ok|deflt first 02" || len(states.Changes()) != 2 {
		t.Errorf("%q %v", reasons(results), rejected)
	}
	// The account's parameter instead.
	results, _, _ = run(Strong, of(last, parameter("WHO", []byte("mine!"))))
	if reasons(results) != "mine!       00" {
		t.Errorf("%q", reasons(results))
	}
	// The first hook overrides it.
	results, _, _ = run(Strong, of(first, parameter("NEXT", last[:])), of(last, parameter("WHO", []byte("mine!"))))
	if reasons(results) != "ok|set   first 01" {
		t.Errorf("%q", reasons(results))
	}
	// The first hook skips the second.
	results, rejected, _ = run(Strong, of(first, parameter("SKIP", last[:])), of(last))
	if rejected || reasons(results) != "ok" {
		t.Errorf("%q", reasons(results))
	}
	// A hook that rejects ends the chain.
	results, rejected, _ = run(Strong, of(last, parameter("REJECT", []byte{1})), of(first))
	if !rejected || len(results) != 1 || results[0].Code != -5 || results[0].Exit != Rollback {
		t.Errorf("%q %v", reasons(results), rejected)
	}
	// HookOn of the account counts more than the definition's, and the one for the
	// direction most.
	never := fireOn()
	off := of(first)
	off[field.HookOn] = never
	if results, _, _ = run(Strong, off); len(results) != 0 {
		t.Errorf("%d ran", len(results))
	}
	off[field.HookOnIncoming] = xahau.Hash256{}
	if results, _, _ = run(Strong, off); len(results) != 1 {
		t.Errorf("%d ran", len(results))
	}
	delete(off, field.HookOnIncoming)
	off[field.HookOnOutgoing] = xahau.Hash256{}
	if results, _, _ = run(Strong, off); len(results) != 0 {
		t.Errorf("%d ran", len(results))
	}
	// Weak runs need the flag.
	collect := of(last)
	collect[field.Flags] = xahau.Uint32(flagCollect)
	results, _, _ = run(Weak, of(first), collect)
	if reasons(results) != "deflt       11" {
		t.Errorf("%q", reasons(results))
	}
	// Hooks without definition, and accounts without hooks.
	if results, _, _ = run(Strong, of(fill32(9)), of(first)); len(results) != 1 {
		t.Errorf("%d ran", len(results))
	}
	if results, rejected, err := m.Chain(ctx, s.c, sender, Strong, NewStates()); err != nil || rejected || results != nil {
		t.Error(results, err)
	}
	// Fees: what fires, and for weak runs what collects.
	s.install(t, own, of(first), collect, off)
	fee := func(typ xahau.TransactionType, collectOnly bool) int64 {
		f, err := ChainFee(s.w, own, typ, false, collectOnly)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	one, _ := Check(wasm(t, "chain_first"))
	two, _ := Check(wasm(t, "chain_last"))
	if fee(xahau.TxPayment, false) != int64(one.HookFee+two.HookFee) || fee(xahau.TxPayment, true) != int64(two.HookFee) || fee(xahau.TxSetHook, false) != 0 {
		t.Errorf("fees %d %d", fee(xahau.TxPayment, false), fee(xahau.TxPayment, true))
	}
}

func TestAgainAsWeak(t *testing.T) {
	m := newMachine(t, Config{})
	s := newScene(t, wasm(t, "hook_pos"))
	last := s.define(t, wasm(t, "chain_last"), nil)
	s.install(t, own, fields{}, fields{field.HookHash: last, field.HookParameters: xahau.Array{parameter("AGAIN", []byte{1})}})
	results, rejected, err := m.Chain(ctx, s.c, own, Strong, NewStates())
	if err != nil || rejected || len(results) != 1 || !results[0].Again {
		t.Fatal(results, err)
	}
	states := NewStates()
	s.c.Meta = metadata(t)
	again, err := m.AgainAsWeak(ctx, s.c, own, []xahau.Hash256{results[0].Hash}, states)
	if err != nil || reasons(again) != "21" || again[0].Mode != Again || again[0].Again || len(states.Changes()) != 1 {
		t.Fatal(reasons(again), err)
	}
	if again, err = m.AgainAsWeak(ctx, s.c, own, []xahau.Hash256{fill32(3)}, states); err != nil || again != nil {
		t.Fatal(again, err)
	}
}

func TestCallback(t *testing.T) {
	m := newMachine(t, Config{})
	code := wasm(t, "callback")
	s := newScene(t, code)
	hash := s.define(t, code, nil)
	s.install(t, own, fields{field.HookHash: fill32(9)}, fields{field.HookHash: hash})
	emitted(2, 3)(s)
	inner := s.c.Tx
	s.c.Meta = metadata(t)
	results, err := m.Callback(ctx, s.c)
	if err != nil || len(results) != 1 {
		t.Fatal(results, err)
	}
	r := results[0]
	if r.Exit != Accept || string(r.Reason) != "called back" || r.Code != 0 || r.Flags() != 2 {
		t.Fatalf("%v %s line %d", r.Exit, r.Reason, r.Code)
	}
	value := func(key string) []byte {
		for _, c := range results[0].States.Changes() {
			if c.Key == stateKey([]byte(key)) {
				return c.Value
			}
		}
		return nil
	}
	if !bytes.Equal(value("id"), inner.id[:]) || !bytes.Equal(value("pseudo"), inner.id[:]) {
		t.Error("other ids")
	}
	fee, err := CallbackFee(s.w, hash)
	if v, _ := Check(code); err != nil || fee != int64(v.CbakFee) || fee == 0 {
		t.Errorf("callback costs %d, %v", fee, err)
	}
	if fee, err = CallbackFee(s.w, fill32(9)); fee != 0 || err != nil {
		t.Error(fee, err)
	}

	// The transaction expired: the callback sees it, and is told so.
	s.w.put(t, keylet.EmittedTxn(inner.id), fields{field.EmittedTxn: decode(t, inner.raw), field.OwnerNode: xahau.Uint64(0)})
	s.c.Tx = transaction(t, fields{field.TransactionType: xahau.Uint16(xahau.TxEmitFailure), field.TransactionHash: inner.id,
		field.Account: xahau.AccountID{}, field.Fee: xahau.Drops(0), field.Sequence: xahau.Uint32(0), field.SigningPubKey: xahau.Blob{},
		field.LedgerSequence: xahau.Uint32(1000), field.EmitDetails: decode(t, inner.raw).Object(field.EmitDetails)})
	if results, err = m.Callback(ctx, s.c); err != nil || len(results) != 1 {
		t.Fatal(results, err)
	}
	if r := results[0]; r.Exit != Accept || r.Code != 1 {
		t.Fatalf("%v %s line %d", r.Exit, r.Reason, r.Code)
	}
	if !bytes.Equal(value("id"), inner.id[:]) || !bytes.Equal(value("pseudo"), s.c.Tx.id[:]) {
		t.Error("other ids")
	}
	// It is not in the directory any more.
	delete(s.w.entries, keylet.EmittedTxn(inner.id).Index)
	if _, err = m.Callback(ctx, s.c); err == nil {
		t.Error("a callback for a transaction that is not there")
	}
	// The hook was taken away.
	s.c.Tx = inner
	s.install(t, own, fields{field.HookHash: fill32(9)})
	if results, err = m.Callback(ctx, s.c); err != nil || results != nil {
		t.Error(results, err)
	}
	// The transaction was not emitted, or by a hook without callback.
	s.c.Tx = transaction(t, payment())
	if results, err = m.Callback(ctx, s.c); err != nil || results != nil {
		t.Error(results, err)
	}
}

func decode(t *testing.T, raw []byte) *xahau.Object {
	t.Helper()
	o, err := defs.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// What hooks emit in a transaction that was emitted carries its burden on.
func TestLargeHook(t *testing.T) {
	m := newMachine(t, Config{})
	s, r := accepts(t, m, "large")
	if len(s.call.Code) < 15_000 || r.Instructions < 3_000 {
		t.Errorf("%d bytes, %d instructions", len(s.call.Code), r.Instructions)
	}
}

func BenchmarkLargeHook(b *testing.B) {
	m := newMachine(b, Config{})
	code := wasm(b, "large")
	s := newScene(b, code)
	if r := s.run(b, m); r.Exit != Accept {
		b.Fatalf("%v %d %s", r.Exit, r.Code, r.Reason)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		s.call.States = NewStates()
		if _, err := m.Run(ctx, s.c, s.call); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	code := wasm(b, "large")
	m := newMachine(b, Config{Modules: 1})
	other := wasm(b, "hook_pos")
	b.SetBytes(int64(len(code)))
	for range b.N {
		for _, c := range [][]byte{code, other} {
			if _, err := m.Validate(ctx, c); err != nil {
				b.Fatal(err)
			}
		}
	}
}
