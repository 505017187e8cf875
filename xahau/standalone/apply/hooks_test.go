package apply

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/hook"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

func TestHooksBuild(t *testing.T) {
	for _, tool := range []string{"clang", "wasm-ld", "wasm-opt"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := t.TempDir()
	if out, err := exec.Command("testdata/hooks/build.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	sources, err := filepath.Glob("testdata/hooks/*.c")
	if err != nil || len(sources) == 0 {
		t.Fatal(err)
	}
	for _, source := range sources {
		name := strings.TrimSuffix(filepath.Base(source), ".c")
		for _, b := range [][]byte{testHook(t, name), must(os.ReadFile(filepath.Join(dir, name+".wasm")))} {
			if _, err := hook.Check(b); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// command adds parameters for the probe.
func command(o *xahau.Object, pairs ...string) *xahau.Object {
	for i := 0; i+1 < len(pairs); i += 2 {
		o.AddHookParameter([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	return o
}

func stateChange(a xahau.AccountID, key int, value string) hook.StateChange {
	k := xahau.Sha512Half([]byte(fmt.Sprint(key)))
	return hook.StateChange{Account: a, Namespace: space(9), Key: k, Value: []byte(value)}
}

// stateOf gives a value of hook state, "-" if there is none.
func (w *world) stateOf(name, key string) string {
	var k xahau.Hash256
	copy(k[32-len(key):], key)
	o := w.read(keylet.HookState(w.account(name), k, space(1)))
	if o == nil {
		return "-"
	}
	return string(o.Blob(field.HookStateData))
}

// executions writes the hook runs of metadata as "name code:flags:emitted reason".
func (w *world) executions(r Result, names ...string) string {
	var list []string
	for i, e := range r.Meta.Array(field.HookExecutions) {
		o := e.Object
		who := "?"
		for _, n := range names {
			if w.account(n) == o.Account(field.HookAccount) {
				who = n
			}
		}
		if int(o.Uint16(field.HookExecutionIndex)) != i || o.Uint64(field.HookInstructionCount) == 0 {
			w.t.Errorf("execution %d: %v", i, o)
		}
		code := int64(o.Uint64(field.HookReturnCode))
		if code < 0 {
			code = -(code & (1<<63 - 1))
		}
		list = append(list, fmt.Sprintf("%s %d:%d:%d%s", who, code, o.Flags(), o.Uint16(field.HookEmitCount), prefixed(o.Blob(field.HookReturnString))))
	}
	return strings.Join(list, ", ")
}

func prefixed(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return " " + string(b)
}

func (w *world) install(name, code string, flags uint32, pairs ...string) {
	w.t.Helper()
	h := xahau.HookCreate(testHook(w.t, code), everything, space(1), flags)
	if len(pairs) > 0 {
		h.Set(field.HookParameters, params(pairs...))
	}
	w.run(xahau.SetHook(w.account(name), h), name, "tesSUCCESS")
}

func (w *world) expect(r Result, want string, names ...string) {
	w.t.Helper()
	if got := w.executions(r, names...); got != want {
		w.t.Errorf("hooks: %q, want %q", got, want)
	}
}

func TestStrongHooks(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9, "carol": 1e9})
	alice, bob := w.account("alice"), w.account("bob")
	w.install("bob", "probe", 0, "SAY", "b")
	w.install("alice", "probe", 0, "SAY", "a")
	pay := func(pairs ...string) *xahau.Object {
		return command(xahau.Payment(alice, bob, xahau.Drops(1000)), pairs...)
	}

	// The sender's first, then the receiver's. What hooks cost is part of the fee, and
	// a stranger's transaction pays only the receiver's.
	fee := func(o *xahau.Object) int64 { return w.cfg.Engine.Fee(w.open.View(), o) }
	d := w.read(keylet.HookDefinition(xahau.HookHash(testHook(t, "probe"))))
	run := d.Amount(field.Fee).Drops()
	if got := fee(pay("DO", "S")); got != 10+3+2*run {
		t.Errorf("fee %d, a run costs %d", got, run)
	}
	if got := fee(xahau.Payment(w.account("carol"), bob, xahau.Drops(1))); got != 10+run {
		t.Errorf("fee %d, a run costs %d", got, run)
	}
	r := w.run(pay(), "alice", "tesSUCCESS")
	// bob's parameters are the definition's, alice's differ.
	w.expect(r, "alice 0:1:0 a, bob 0:1:0 b", "alice", "bob")

	// A rollback takes the payment and all states with it; who pays is the sender.
	before := w.read(keylet.Account(bob)).Amount(field.Balance)
	r = w.run(pay("DO", "R"), "alice", "tecHOOK_REJECTED")
	w.expect(r, "alice -7:1:0 no", "alice", "bob")
	if got := w.read(keylet.Account(bob)).Amount(field.Balance); got != before {
		t.Errorf("bob has %s, had %s", got, before)
	}
	r = w.run(command(xahau.Invoke(w.account("carol"), bob, nil), "DO", "X", "K", "k", "V", "v"), "carol", "tecHOOK_REJECTED")
	w.expect(r, "bob -7:1:0 no", "bob")
	if got := w.stateOf("bob", "k"); got != "-" {
		t.Errorf("the state is %q", got)
	}

	// State is written, changed and deleted, with its directory and counts.
	set := func(value, want string) Result {
		t.Helper()
		r := w.run(pay("DO", "S", "K", "k", "V", value), "alice", "tesSUCCESS")
		if got := w.stateOf("bob", "k"); got != want {
			t.Errorf("the state is %q, want %q", got, want)
		}
		return r
	}
	set("v", "v")
	// bob has a hook and a state, alice a parameter besides.
	if w.owned("bob") != 2 || w.owned("alice") != 3 {
		t.Errorf("bob owns %d, alice %d", w.owned("bob"), w.owned("alice"))
	}
	set("w", "w")
	root := w.read(keylet.Account(bob))
	if root.Uint32(field.HookStateCount) != 1 || len(root.Vector(field.HookNamespaces)) != 1 {
		t.Errorf("%v", root)
	}
	r = w.run(pay("DO", "S", "K", "k"), "alice", "tesSUCCESS")
	if w.stateOf("bob", "k") != "-" || w.owned("bob") != 1 || w.read(keylet.Account(bob)).Has(field.HookNamespaces) {
		t.Errorf("%v", r.Meta)
	}

	// A transaction that fails for another reason keeps its executions in the metadata
	// but none of the states.
	o := command(xahau.Payment(alice, bob, xahau.Drops(1e15)), "DO", "S", "K", "k", "V", "v")
	r = w.run(o, "alice", "tecUNFUNDED_PAYMENT")
	w.expect(r, "alice 0:1:0 a, bob 0:1:0 b", "alice", "bob")
	if w.stateOf("alice", "k") != "-" {
		t.Error("a state was written")
	}
}

// The reserve bounds how much a hook can write.
func TestStateReserve(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 20_000_000})
	w.install("bob", "probe", 0)
	bob := w.account("bob")
	// Leave the reserve for one entry.
	left := int64(1_000_000 + 2*200_000)
	spend := xahau.Payment(bob, w.account("alice"), xahau.Drops(1))
	fee := w.cfg.Engine.Fee(w.open.View(), spend)
	spend.Set(field.Amount, xahau.Drops(w.read(keylet.Account(bob)).Amount(field.Balance).Drops()-fee-left))
	w.run(spend, "bob", "tesSUCCESS")
	o := func(key string) *xahau.Object {
		return command(xahau.Invoke(w.account("alice"), bob, nil), "DO", "S", "K", key, "V", "v")
	}
	w.run(o("one"), "alice", "tesSUCCESS")
	w.run(o("two"), "alice", "tecHOOK_REJECTED")
	if w.stateOf("bob", "one") != "v" || w.stateOf("bob", "two") != "-" || w.owned("bob") != 2 {
		t.Errorf("%q %q %d", w.stateOf("bob", "one"), w.stateOf("bob", "two"), w.owned("bob"))
	}
}

func TestChainOfHooks(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9})
	probe, plain := testHook(t, "probe"), testHook(t, "plain")
	first := xahau.HookCreate(plain, everything, space(1), 0)
	second := xahau.HookCreate(probe, everything, space(1), 0)
	second.Set(field.HookParameters, params("SAY", "second"))
	only, err := xahau.HookOn(xahau.TxInvoke)
	if err != nil {
		t.Fatal(err)
	}
	fourth := xahau.HookCreate(probe, only, space(1), 0)
	w.run(xahau.SetHook(w.account("bob"), first, second, nil, fourth), "bob", "tesSUCCESS")
	r := w.run(xahau.Payment(w.account("alice"), w.account("bob"), xahau.Drops(1)), "alice", "tesSUCCESS")
	w.expect(r, "bob 0:1:0 ok, bob 0:1:0 second", "bob")
	r = w.run(xahau.Invoke(w.account("alice"), w.account("bob"), nil), "alice", "tesSUCCESS")
	w.expect(r, "bob 0:1:0 ok, bob 0:1:0 second, bob 0:1:0 second", "bob")
	// The chain stops at the first that does not accept.
	r = w.run(command(xahau.Invoke(w.account("alice"), w.account("bob"), nil), "DO", "R"), "alice", "tecHOOK_REJECTED")
	w.expect(r, "bob 0:1:0 ok, bob -7:1:0 no", "bob")
}

func TestWeakAndAgain(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9, "gw": 1e9})
	alice, gw := w.account("alice"), w.account("gw")
	usd := func(n string) xahau.Amount {
		a, err := xahau.ParseAmount(n + "/USD/" + gw.String())
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	w.install("gw", "probe", xahau.HsfCollect)
	trust := func(n string) Result { return w.run(xahau.TrustSet(alice, usd(n), 0), "alice", "tesSUCCESS") }
	// The issuer is a weak stakeholder, who must want it and pays himself.
	w.expect(trust("1"), "")
	set := xahau.AccountSet(gw)
	set.Set(field.SetFlag, xahau.Uint32(11))
	w.run(set, "gw", "tesSUCCESS")
	before := w.read(keylet.Account(gw)).Amount(field.Balance).Drops()
	w.expect(trust("2"), "gw 1:0:0", "gw")
	run := w.read(keylet.HookDefinition(xahau.HookHash(testHook(t, "probe")))).Amount(field.Fee).Drops()
	if got := w.read(keylet.Account(gw)).Amount(field.Balance).Drops(); got != before-run {
		t.Errorf("gw has %d, had %d, a run costs %d", got, before, run)
	}
	// What it writes is in the ledger; it cannot reject.
	r := w.run(command(xahau.TrustSet(alice, usd("3"), 0), "DO", "S", "K", "k", "V", "weak"), "alice", "tesSUCCESS")
	w.expect(r, "gw 1:0:0", "gw")
	if w.stateOf("gw", "k") != "weak" {
		t.Errorf("state %q", w.stateOf("gw", "k"))
	}
	w.expect(w.run(command(xahau.TrustSet(alice, usd("4"), 0), "DO", "R"), "alice", "tesSUCCESS"), "gw -7:0:0 no", "gw")

	// Without the flag on the hook it does not run weakly.
	w.run(xahau.SetHook(gw, hookObject(map[field.Code]xahau.Value{field.Flags: xahau.Uint32(0)})), "gw", "tesSUCCESS")
	w.expect(trust("5"), "")

	// A strong run that asks for it runs again after the payment, without fee.
	w.expect(w.run(command(xahau.Payment(alice, gw, xahau.Drops(1)), "DO", "A"), "alice", "tesSUCCESS"), "gw 0:5:0, gw 2:0:0", "gw")
	// So it does when the payment itself fails.
	w.expect(w.run(command(xahau.Payment(alice, gw, xahau.Drops(1e15)), "DO", "A"), "alice", "tecUNFUNDED_PAYMENT"), "gw 0:5:0, gw 2:0:0", "gw")
}

// emissions gives the ids in HookEmissions.
func emissions(r Result) (ids []xahau.Hash256) {
	for _, e := range r.Meta.Array(field.HookEmissions) {
		ids = append(ids, e.Object.Hash(field.EmittedTxnID))
	}
	return ids
}

func TestEmit(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9, "carol": 1e9})
	alice, bob, carol := w.account("alice"), w.account("bob"), w.account("carol")
	w.install("bob", "probe", 0)
	r := w.run(command(xahau.Invoke(alice, bob, nil), "DO", "E", "N", "\x03", "TO", string(carol[:])), "alice", "tesSUCCESS")
	ids := emissions(r)
	w.expect(r, "bob 0:1:3", "bob")
	if len(ids) != 3 {
		t.Fatalf("%v", r.Meta)
	}
	for _, id := range ids {
		e := w.read(keylet.EmittedTxn(id))
		d := e.Object(field.EmittedTxn).Object(field.EmitDetails)
		if d.Uint32(field.EmitGeneration) != 1 || d.Uint64(field.EmitBurden) != 3 || d.Hash(field.EmitParentTxnID) != r.Tx.ID || d.Account(field.EmitCallback) != bob {
			t.Errorf("%v", e)
		}
	}
	// The next ledger has them, in the order of emission, and calls back.
	before := w.read(keylet.Account(carol)).Amount(field.Balance).Drops()
	seq := w.read(keylet.Account(bob)).Uint32(field.Sequence)
	c := w.close(4)
	if len(c.Results) != 3 {
		t.Fatalf("%d transactions", len(c.Results))
	}
	for i, x := range c.Results {
		if x.Tx.ID != ids[i] || x.Code.String() != "tesSUCCESS" {
			t.Errorf("transaction %d is %s: %s", i, x.Tx.ID, x.Code)
		}
		w.expect(x, "bob 0:2:0 cbak", "bob")
	}
	if got := w.read(keylet.Account(carol)).Amount(field.Balance).Drops(); got != before+3 {
		t.Errorf("carol has %d, had %d", got, before)
	}
	if w.stateOf("bob", "done") != string(ids[2][:]) || w.read(keylet.Account(bob)).Uint32(field.Sequence) != seq {
		t.Errorf("state %X", w.stateOf("bob", "done"))
	}
	if w.read(keylet.EmittedDirectory()) != nil || w.read(keylet.EmittedTxn(ids[0])) != nil {
		t.Error("the emitted directory is not empty")
	}
	if c := w.close(4); len(c.Results) != 0 {
		t.Errorf("%d transactions", len(c.Results))
	}

	// Nothing is emitted by what was rolled back, or failed for another reason.
	r = w.run(command(xahau.Payment(alice, bob, xahau.Drops(1e15)), "DO", "E", "TO", string(carol[:])), "alice", "tecUNFUNDED_PAYMENT")
	if c := w.close(4); len(c.Results) != 0 {
		t.Errorf("%d transactions after %v", len(c.Results), r.Meta)
	}

	// An emitted transaction that fails claims its fee and calls back all the same.
	nobody := w.account("nobody")
	r = w.run(command(xahau.Invoke(alice, bob, nil), "DO", "E", "TO", string(nobody[:])), "alice", "tesSUCCESS")
	if c = w.close(4); len(c.Results) != 1 || c.Results[0].Code.String() != "tecNO_DST_INSUF_NATIVE" {
		t.Fatalf("%v", c.Results)
	}
	if id := emissions(r)[0]; w.stateOf("bob", "done") != string(id[:]) {
		t.Errorf("%q", w.executions(c.Results[0]))
	}

	// Nobody can submit it himself.
	o := w.sign(xahau.Payment(alice, bob, xahau.Drops(1)), "alice").Tx.Clone()
	o.Set(field.EmitDetails, r.Meta.Array(field.AffectedNodes)[0].Object)
	details := &xahau.Object{}
	for code, v := range map[field.Code]xahau.Value{field.EmitGeneration: xahau.Uint32(1), field.EmitBurden: xahau.Uint64(1), field.EmitParentTxnID: r.Tx.ID,
		field.EmitNonce: r.Tx.ID, field.EmitHookHash: r.Tx.ID} {
		details.Set(code, v)
	}
	o.Set(field.EmitDetails, details)
	o.Delete(field.TxnSignature)
	b, err := w.defs.Encode(o)
	if err != nil {
		t.Fatal(err)
	}
	if code := w.submit(w.prepare(b)); code.String() != "telNON_LOCAL_EMITTED_TXN" {
		t.Errorf("%s", code)
	}
}

// A registration emits a token and then its offer, which the other account buys.
func TestEmitTokenAndOffer(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9})
	alice, bob := w.account("alice"), w.account("bob")
	w.install("bob", "probe", 0)
	w.run(command(xahau.Payment(alice, bob, xahau.Drops(5)), "DO", "M"), "alice", "tesSUCCESS")
	c := w.close(4)
	if len(c.Results) != 2 || c.Results[0].Code.String() != "tesSUCCESS" || c.Results[1].Code.String() != "tesSUCCESS" {
		t.Fatalf("%v", c.Results)
	}
	// The second has alice as a strong stakeholder, who has no hooks.
	k := keylet.URIToken(bob, []byte("ever"))
	token := w.read(k)
	if token == nil || token.Account(field.Destination) != alice || token.Amount(field.Amount).Drops() != 1 || token.Flags() != xahau.LsfBurnable {
		t.Fatalf("%v", token)
	}
	r := w.run(xahau.URITokenBuy(alice, k.Index, xahau.Drops(1)), "alice", "tesSUCCESS")
	w.expect(r, "bob 0:1:0", "bob")
	if w.read(k).Account(field.Owner) != alice || w.owned("alice") != 1 {
		t.Errorf("%v", w.read(k))
	}
}

// A host that gives its token back offers it to the registry, whose hook then buys
// it, in a run after the offer is in the ledger.
func TestOfferToHookThatBuys(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9})
	alice, bob := w.account("alice"), w.account("bob")
	w.install("bob", "probe", 0)
	uri := []byte("host")
	w.run(xahau.URITokenMint(alice, uri, 0), "alice", "tesSUCCESS")
	k := keylet.URIToken(alice, uri)
	r := w.run(command(xahau.URITokenCreateSellOffer(alice, k.Index, xahau.Drops(1), &bob), "DO", "B"), "alice", "tesSUCCESS")
	w.expect(r, "bob 0:5:0, bob 2:0:1", "bob")
	c := w.close(4)
	if len(c.Results) != 1 || c.Results[0].Code.String() != "tesSUCCESS" || !c.Results[0].Tx.Emitted {
		t.Fatalf("%v", c.Results)
	}
	w.expect(c.Results[0], "bob 0:2:0 cbak", "bob")
	if w.read(k).Account(field.Owner) != bob || w.owned("alice") != 0 {
		t.Errorf("%v", w.read(k))
	}
}

// Transactions that hooks emit for emitted ones are of the next generation.
func TestGenerations(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9, "carol": 1e9})
	alice, bob, carol := w.account("alice"), w.account("bob"), w.account("carol")
	w.install("bob", "probe", 0)
	w.install("carol", "probe", 0)
	w.run(command(xahau.Invoke(alice, bob, nil), "DO", "E", "N", "\x02", "TO", string(carol[:])), "alice", "tesSUCCESS")
	c := w.close(4)
	if len(c.Results) != 2 {
		t.Fatalf("%d transactions", len(c.Results))
	}
	// carol's hook is a strong stakeholder of the emitted payments; bob's own is left
	// out, but for the callback.
	w.expect(c.Results[0], "carol 0:1:0, bob 0:2:0 cbak", "bob", "carol")
}

// A hook writes the state of another account if one of that account's hooks grants
// it to its code.
func TestForeignState(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9, "gov": 1e9})
	alice, bob, gov := w.account("alice"), w.account("bob"), w.account("gov")
	ns := space(1)
	w.install("bob", "foreign", 0, "OWNER", string(gov[:]), "SPACE", string(ns[:]))
	w.install("gov", "plain", 0)
	code := xahau.HookHash(testHook(t, "foreign"))
	pay := xahau.Payment(alice, bob, xahau.Drops(1))
	w.run(pay, "alice", "tecHOOK_REJECTED")
	grant := func(hash xahau.Hash256, to *xahau.AccountID) {
		t.Helper()
		w.run(xahau.SetHook(gov, hookObject(map[field.Code]xahau.Value{field.HookGrants: xahau.Array{xahau.HookGrant(hash, to)}})), "gov", "tesSUCCESS")
	}
	grant(code, &alice)
	w.run(pay, "alice", "tecHOOK_REJECTED")
	grant(space(7), nil)
	w.run(pay, "alice", "tecHOOK_REJECTED")
	if w.stateOf("gov", "key") != "-" {
		t.Error("a state was written without a grant")
	}
	grant(code, &bob)
	w.run(pay, "alice", "tesSUCCESS")
	// The hook, the grant and the state are the owner's.
	if w.stateOf("gov", "key") != "mine" || w.owned("gov") != 3 || w.owned("bob") != 1 {
		t.Errorf("state %q, gov owns %d, bob %d", w.stateOf("gov", "key"), w.owned("gov"), w.owned("bob"))
	}
}

// What cannot be applied in time ends with an EmitFailure, which tells the hook.
func TestEmitFailure(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9, "carol": 1e9})
	alice, bob, carol := w.account("alice"), w.account("bob"), w.account("carol")
	w.install("bob", "probe", 0)
	r := w.run(command(xahau.Invoke(alice, bob, nil), "DO", "E", "L", "\x02", "TO", string(carol[:])), "alice", "tesSUCCESS")
	id := emissions(r)[0]
	// The account becomes too poor for the fee before: nothing in the state prevents
	// that in a test.
	root := w.read(keylet.Account(bob)).Clone()
	rich := root.Amount(field.Balance)
	w.poke(keylet.Account(bob), root, xahau.Drops(0))
	for range 2 {
		if c := w.close(4); len(c.Results) != 0 || w.read(keylet.EmittedTxn(id)) == nil {
			t.Fatalf("%v", c.Results)
		}
	}
	w.poke(keylet.Account(bob), w.read(keylet.Account(bob)).Clone(), rich)
	c := w.close(4)
	if len(c.Results) != 1 {
		t.Fatalf("%d transactions, %v", len(c.Results), c.Failed)
	}
	f := c.Results[0]
	if f.Tx.Tx.TransactionType() != xahau.TxEmitFailure || f.Code.String() != "tesSUCCESS" || f.Tx.Tx.Hash(field.TransactionHash) != id {
		t.Fatalf("%v", f.Tx.Tx)
	}
	w.expect(f, "bob 1:2:0 cbak", "bob")
	// The callback sees the transaction that failed, and its entry is gone.
	if w.stateOf("bob", "failed") != string(id[:]) || w.read(keylet.EmittedTxn(id)) != nil || w.read(keylet.EmittedDirectory()) != nil {
		t.Errorf("state %X", w.stateOf("bob", "failed"))
	}
}

// poke changes a balance behind the ledger's back, against that of root.
func (w *world) poke(k keylet.Keylet, o *xahau.Object, balance xahau.Amount) {
	w.t.Helper()
	rootKey := keylet.Account(w.account("root"))
	root := w.read(rootKey).Clone()
	root.Set(field.Balance, xahau.Drops(root.Amount(field.Balance).Drops()+o.Amount(field.Balance).Drops()-balance.Drops()))
	o.Set(field.Balance, balance)
	s := view.NewSandbox(view.NewClosed(w.state, view.Ledger{Defs: w.defs}))
	s.Update(k, o)
	s.Update(rootKey, root)
	w.state = must2(w.state.Apply(w.changes(s)))
	w.last.AccountHash = w.state.Hash()
	w.next(nil)
}

// BenchmarkHookedPayments closes ledgers of payments to an account with a hook: a
// small one that counts, and one of the size of Evernode's. With submit they are
// tried in the open ledger before, as those of clients are.
func BenchmarkHookedPayments(b *testing.B) {
	large := must(os.ReadFile("../hook/testdata/hooks/large.wasm"))
	for _, x := range []struct {
		name   string
		code   []byte
		submit bool
	}{{"count", testHook(b, "count"), false}, {"large", large, false}, {"large, submit", large, true}} {
		b.Run(x.name, func(b *testing.B) { hookedPayments(b, x.code, x.submit) })
	}
}

func hookedPayments(b *testing.B, code []byte, submit bool) {
	w := newHookWorld(b, map[string]int64{"alice": 1e15, "bob": 1e12})
	alice, bob := w.account("alice"), w.account("bob")
	// What the large one expects: a number in its state, and two parameters.
	w.install("bob", "probe", 0)
	w.run(command(xahau.Invoke(alice, bob, nil), "DO", "S", "K", "number", "V", "\x01\x02"), "alice", "tesSUCCESS")
	w.run(xahau.SetHook(bob, xahau.HookCreate(code, everything, space(1), xahau.HsfOverride)), "bob", "tesSUCCESS")
	payment := func() *xahau.Object {
		return command(xahau.Payment(alice, bob, xahau.Drops(1)), "PA", "12345", strings.Repeat("n", 32), "1234")
	}
	fee := w.cfg.Engine.Fee(w.open.View(), payment())
	seq := w.read(keylet.Account(alice)).Uint32(field.Sequence)
	const batch = 500
	b.ResetTimer()
	for n := 0; n < b.N; n += batch {
		b.StopTimer()
		var list []*tx.Prepared
		for range batch {
			o := payment()
			o.Set(field.Sequence, xahau.Uint32(seq))
			o.Set(field.Fee, xahau.Drops(fee))
			seq++
			p := w.sign(o, "alice")
			if !submit {
				w.cfg.Engine.Preflight(p, w.open.View().Ledger())
			}
			list = append(list, p)
		}
		b.StartTimer()
		if !submit {
			w.open.txs = append(w.open.txs, list...)
		}
		for _, p := range list {
			if !submit {
				break
			}
			if code := w.submit(p); code != ter.TesSUCCESS {
				b.Fatal(code)
			}
		}
		c, err := w.open.Close(b.Context(), w.last.CloseTime+4)
		if err != nil || len(c.Results) != batch {
			b.Fatalf("%v, %d", err, len(c.Results))
		}
		if got := w.executions(c.Results[0], "bob"); !strings.HasPrefix(got, "bob 0:1:0") {
			b.Fatal(got)
		}
		w.last, w.state = c.Ledger.Header, c.Ledger.State
		b.StopTimer()
		w.next(nil)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
}
