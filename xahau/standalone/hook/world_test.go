package hook

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

//go:embed testdata/hooks/*.wasm
var testHooks embed.FS

func wasm(t testing.TB, name string) []byte {
	t.Helper()
	b, err := testHooks.ReadFile("testdata/hooks/" + name + ".wasm")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var defs = xahau.DefaultDefinitions()

func fill20(c byte) (a xahau.AccountID) {
	for i := range a {
		a[i] = c
	}
	return a
}

func fill32(c byte) (h xahau.Hash256) {
	for i := range h {
		h[i] = c
	}
	return h
}

// The accounts and namespaces that hookapi.h names.
var (
	own     = fill20(0x11)
	sender  = fill20(0x22)
	foreign = fill20(0x33)

	ownSpace     = fill32(0x5a)
	foreignSpace = fill32(0x5b)
	closedSpace  = fill32(0x5c)
)

// world is a ledger in memory.
type world struct {
	entries map[xahau.Hash256][]byte
	txs     map[xahau.Hash256][]byte
	fee     int64
	fail    error // for every read
}

func (w *world) Entry(i xahau.Hash256) ([]byte, error) { return w.entries[i], w.fail }

func (w *world) Next(low, high xahau.Hash256) (xahau.Hash256, bool, error) {
	var all []xahau.Hash256
	for k := range w.entries {
		if k.Compare(low) > 0 && k.Compare(high) <= 0 {
			all = append(all, k)
		}
	}
	if len(all) == 0 {
		return xahau.Hash256{}, false, w.fail
	}
	return slices.MinFunc(all, xahau.Hash256.Compare), true, w.fail
}

func (w *world) Transaction(id xahau.Hash256) ([]byte, error) { return w.txs[id], w.fail }

func (w *world) Fee(tx []byte) (int64, error) {
	if _, err := defs.Decode(tx); err != nil {
		return 0, err
	}
	return w.fee, nil
}

func (w *world) Preflight(tx []byte) error {
	o, err := defs.Decode(tx)
	if err != nil {
		return err
	}
	if !slices.Contains(defs.TransactionTypes(), o.TransactionType()) {
		return errors.New("temUNKNOWN")
	}
	if o.TransactionType() == xahau.TxPayment && o.Amount(field.Amount).Signum() <= 0 {
		return errors.New("temBAD_AMOUNT")
	}
	return nil
}

func encode(t testing.TB, o *xahau.Object) []byte {
	t.Helper()
	b, err := defs.Encode(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type fields = map[field.Code]xahau.Value

func (w *world) put(t testing.TB, k keylet.Keylet, f fields) {
	t.Helper()
	f[field.LedgerEntryType] = xahau.Uint16(k.Type)
	w.entries[k.Index] = encode(t, xahau.NewObject(f))
}

func (w *world) account(t testing.TB, id xahau.AccountID, drops int64, owned uint32) {
	w.put(t, keylet.Account(id), fields{field.Account: id, field.Balance: xahau.Drops(drops), field.OwnerCount: xahau.Uint32(owned),
		field.Sequence: xahau.Uint32(5), field.Flags: xahau.Uint32(0)})
}

func (w *world) state(t testing.TB, id xahau.AccountID, namespace xahau.Hash256, key, value string) {
	w.put(t, keylet.HookState(id, stateKey([]byte(key)), namespace), fields{field.HookStateKey: stateKey([]byte(key)), field.HookStateData: xahau.Blob(value)})
	w.put(t, keylet.HookStateDirectory(id, namespace), fields{field.RootIndex: keylet.HookStateDirectory(id, namespace).Index})
}

func element(c field.Code, f fields) xahau.Element {
	return xahau.Element{Field: c, Object: xahau.NewObject(f)}
}

func payment() fields {
	return fields{
		field.TransactionType: xahau.Uint16(xahau.TxPayment), field.Account: sender, field.Destination: own,
		field.Amount: xahau.Drops(5_000_000), field.Fee: xahau.Drops(12), field.Sequence: xahau.Uint32(7), field.Flags: xahau.Uint32(0x80000000),
		field.SigningPubKey: xahau.Blob(bytes.Repeat([]byte{2}, 33)), field.TxnSignature: xahau.Blob(bytes.Repeat([]byte{3}, 70)),
		field.Memos: xahau.Array{
			element(field.Memo, fields{field.MemoData: xahau.Blob("hello")}),
			element(field.Memo, fields{field.MemoData: xahau.Blob{1, 2}}),
		},
		field.HookParameters: xahau.Array{
			element(field.HookParameter, fields{field.HookParameterName: xahau.Blob("PA"), field.HookParameterValue: xahau.Blob("value")}),
			element(field.HookParameter, fields{field.HookParameterName: xahau.Blob("EMPTY"), field.HookParameterValue: xahau.Blob("")}),
			element(field.HookParameter, fields{field.HookParameterName: xahau.Blob("NONE")}),
			element(field.HookParameter, fields{field.HookParameterName: xahau.Blob(bytes.Repeat([]byte("n"), 32)), field.HookParameterValue: xahau.Blob("long")}),
		},
	}
}

// scene is a world with everything that a test hook needs, and the call of it.
type scene struct {
	w    *world
	c    *Context
	call *Call
}

func transaction(t testing.TB, f fields) *Transaction {
	t.Helper()
	raw := encode(t, xahau.NewObject(f))
	tx, err := NewTransaction(raw, xahau.BlobID(raw))
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// newScene sets up a payment from sender to own, whose chain is a hook A0, a blank
// position, and the hook.
func newScene(t testing.TB, code []byte) *scene {
	t.Helper()
	w := &world{entries: make(map[xahau.Hash256][]byte), txs: make(map[xahau.Hash256][]byte), fee: 25}
	w.account(t, own, 100_000_000, 3)
	w.account(t, sender, 50_000_000, 0)
	w.account(t, foreign, 50_000_000, 1)
	hash := xahau.HookHash(code)
	w.put(t, keylet.Hook(own), fields{field.Account: own, field.Hooks: xahau.Array{
		element(field.Hook, fields{field.HookHash: fill32(0xa0)}),
		element(field.Hook, fields{}),
		element(field.Hook, fields{field.HookHash: hash}),
	}})
	w.put(t, keylet.Hook(foreign), fields{field.Account: foreign, field.Hooks: xahau.Array{
		element(field.Hook, fields{field.HookHash: fill32(0xb1), field.HookNamespace: closedSpace, field.HookGrants: xahau.Array{
			element(field.HookGrant, fields{field.HookHash: fill32(0xee)}),
			element(field.HookGrant, fields{field.HookHash: hash, field.Authorize: sender}),
		}}),
		element(field.Hook, fields{field.HookHash: fill32(0xb0), field.HookGrants: xahau.Array{
			element(field.HookGrant, fields{field.HookHash: hash}),
		}}),
	}})
	w.put(t, keylet.HookDefinition(fill32(0xb0)), fields{field.HookHash: fill32(0xb0), field.HookNamespace: foreignSpace})
	w.state(t, own, ownSpace, "abc", "present")
	w.state(t, own, ownSpace, "number", "\x00\x00\x00\x00\x00\x00\x01\x02")
	w.state(t, foreign, foreignSpace, "f", "foreign")
	w.entries[fill32(0x99)] = encode(t, xahau.NewObject(fields{field.LedgerEntryType: xahau.Uint16(xahau.EntryOffer), field.Account: own,
		field.TakerPays: amount(t, "1.5"), field.TakerGets: xahau.Drops(2_500_000)}))
	w.txs[fill32(0x77)] = encode(t, xahau.NewObject(payment()))
	s := &scene{w: w}
	s.c = &Context{Ledger: w, Tx: transaction(t, payment()), Header: Header{
		Seq: 1000, ParentHash: fill32(0xab), ParentCloseTime: 760_000_000, BaseFee: 10, Reserve: 1_000_000, Increment: 200_000,
	}}
	s.call = &Call{Hash: hash, Code: code, Account: own, Position: 2, Namespace: ownSpace, States: NewStates(), Params: map[string][]byte{
		"P1": []byte("one"), "LONG": bytes.Repeat([]byte("x"), 256), "TAKEN": []byte("away"), "OVER": []byte("old"),
	}, Overrides: Overrides{hash: {"OVER": []byte("new"), "TAKEN": nil, "ADDED": []byte("too")}}}
	return s
}

func amount(t testing.TB, value string) xahau.Amount {
	t.Helper()
	a, err := xahau.ParseAmount(value + "/EUR/" + foreign.String())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var ctx = context.Background()

func newMachine(t testing.TB, cfg Config) *Machine {
	t.Helper()
	m, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (s *scene) run(t testing.TB, m *Machine) *Result {
	t.Helper()
	r, err := m.Run(ctx, s.c, s.call)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// lines is a log that keeps messages.
type lines struct {
	slog.Handler
	all []string
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "account" && a.Key != "hook" {
			text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		}
		return true
	})
	l.all = append(l.all, text)
	return nil
}
