package apply

import (
	"bytes"
	"fmt"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

var everything xahau.Hash256 // a HookOn that fires on everything but SetHook

func space(b byte) (h xahau.Hash256) {
	for i := range h {
		h[i] = b
	}
	return h
}

// run submits a transaction, closes the ledger and gives what became of it.
func (w *world) run(o *xahau.Object, by, want string) Result {
	w.t.Helper()
	p := w.sign(o, by)
	if got := w.submit(p).String(); got != want {
		w.t.Fatalf("%s gives %s, want %s (%v)", w.defs.TransactionName(o.TransactionType()), got, want, p.Reason())
	}
	c := w.close(4)
	for _, r := range c.Results {
		if r.Tx.ID == p.ID {
			if r.Code.String() != want {
				w.t.Fatalf("%s is in the ledger with %s, want %s", w.defs.TransactionName(o.TransactionType()), r.Code, want)
			}
			return r
		}
	}
	if code := want; code == "tesSUCCESS" || code[:3] == "tec" {
		w.t.Fatalf("%s is not in the ledger", w.defs.TransactionName(o.TransactionType()))
	}
	return Result{}
}

func (w *world) read(k keylet.Keylet) *xahau.Object {
	w.t.Helper()
	v := view.NewClosed(w.state, view.Ledger{Defs: w.defs})
	o := v.Read(k)
	if v.Err() != nil {
		w.t.Fatal(v.Err())
	}
	return o
}

// chainOf gives the hooks of an account.
func (w *world) chainOf(name string) xahau.Array {
	o := w.read(keylet.Hook(w.account(name)))
	if o == nil {
		return nil
	}
	return o.Array(field.Hooks)
}

func (w *world) owned(name string) uint32 {
	return w.read(keylet.Account(w.account(name))).Uint32(field.OwnerCount)
}

// hookObject is an element of SetHook.
func hookObject(fields map[field.Code]xahau.Value) *xahau.Object { return xahau.NewObject(fields) }

func params(pairs ...string) xahau.Array {
	list := xahau.Array{}
	for i := 0; i+1 < len(pairs); i += 2 {
		p := &xahau.Object{}
		p.Set(field.HookParameterName, xahau.Blob(pairs[i]))
		if pairs[i+1] != "absent" {
			p.Set(field.HookParameterValue, xahau.Blob(pairs[i+1]))
		}
		list = append(list, xahau.Element{Field: field.HookParameter, Object: p})
	}
	return list
}

func paramText(o *xahau.Object) string {
	var b bytes.Buffer
	for _, e := range o.Array(field.HookParameters) {
		fmt.Fprintf(&b, "%s=%s ", e.Object.Blob(field.HookParameterName), e.Object.Blob(field.HookParameterValue))
	}
	return b.String()
}

func TestSetHookMalformed(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9})
	code, alice := testHook(t, "plain"), w.account("alice")
	good := func() *xahau.Object { return xahau.HookCreate(code, everything, space(1), 0) }
	with := func(o *xahau.Object, c field.Code, v xahau.Value) *xahau.Object { o.Set(c, v); return o }
	many := xahau.Array{}
	for i := range 17 {
		many = append(many, params(fmt.Sprint(i), "x")...)
	}
	grants := xahau.Array{}
	for i := range 9 {
		grants = append(grants, xahau.HookGrant(space(byte(i)), nil))
	}
	unguarded := bytes.Replace(code, []byte("_g"), []byte("_h"), 1)
	eleven := make([]*xahau.Object, 11)
	eleven[0] = good()
	for name, c := range map[string]struct {
		hooks []*xahau.Object
		code  string
	}{
		"none":                          {nil, "temMALFORMED"},
		"all blank":                     {[]*xahau.Object{nil, nil}, "temMALFORMED"},
		"too many":                      {eleven, "temMALFORMED"},
		"a field too many":              {[]*xahau.Object{with(good(), field.ReferenceCount, xahau.Uint64(1))}, "temMALFORMED"},
		"code and hash":                 {[]*xahau.Object{with(good(), field.HookHash, space(1))}, "temMALFORMED"},
		"named":                         {[]*xahau.Object{with(good(), field.HookName, xahau.Blob("name"))}, "temDISABLED"},
		"no code at all":                {[]*xahau.Object{with(good(), field.CreateCode, xahau.Blob("\x00asm"))}, "temMALFORMED"},
		"code without guard":            {[]*xahau.Object{with(good(), field.CreateCode, xahau.Blob(unguarded))}, "temMALFORMED"},
		"code too long":                 {[]*xahau.Object{with(good(), field.CreateCode, xahau.Blob(make([]byte, 65536)))}, "temMALFORMED"},
		"create without namespace":      {[]*xahau.Object{with(good(), field.HookNamespace, nil)}, "temMALFORMED"},
		"create without HookOn":         {[]*xahau.Object{with(good(), field.HookOn, nil)}, "temMALFORMED"},
		"create without version":        {[]*xahau.Object{with(good(), field.HookApiVersion, nil)}, "temMALFORMED"},
		"create with version 1":         {[]*xahau.Object{with(good(), field.HookApiVersion, xahau.Uint16(1))}, "temMALFORMED"},
		"one direction":                 {[]*xahau.Object{with(good(), field.HookOnIncoming, everything)}, "temMALFORMED"},
		"all directions":                {[]*xahau.Object{with(with(good(), field.HookOnIncoming, everything), field.HookOnOutgoing, space(1))}, "temMALFORMED"},
		"the same in both directions":   {[]*xahau.Object{with(with(with(good(), field.HookOn, nil), field.HookOnIncoming, everything), field.HookOnOutgoing, everything)}, "temMALFORMED"},
		"17 parameters":                 {[]*xahau.Object{with(good(), field.HookParameters, many)}, "temMALFORMED"},
		"parameter twice":               {[]*xahau.Object{with(good(), field.HookParameters, params("a", "1", "a", "2"))}, "temMALFORMED"},
		"parameter's name too long":     {[]*xahau.Object{with(good(), field.HookParameters, params(string(make([]byte, 33)), "1"))}, "temMALFORMED"},
		"parameter's value too long":    {[]*xahau.Object{with(good(), field.HookParameters, params("a", string(make([]byte, 257))))}, "temMALFORMED"},
		"9 grants":                      {[]*xahau.Object{with(good(), field.HookGrants, grants)}, "temMALFORMED"},
		"grant twice":                   {[]*xahau.Object{with(good(), field.HookGrants, xahau.Array{grants[0], grants[0]})}, "temMALFORMED"},
		"grant to oneself":              {[]*xahau.Object{with(good(), field.HookGrants, xahau.Array{xahau.HookGrant(space(1), &alice)})}, "temMALFORMED"},
		"install with version":          {[]*xahau.Object{with(xahau.HookInstall(space(1), 0), field.HookApiVersion, xahau.Uint16(0))}, "temMALFORMED"},
		"install what is not there":     {[]*xahau.Object{xahau.HookInstall(space(1), 0)}, "terNO_HOOK"},
		"delete without override":       {[]*xahau.Object{hookObject(map[field.Code]xahau.Value{field.CreateCode: xahau.Blob{}, field.Flags: xahau.Uint32(0)})}, "temMALFORMED"},
		"delete without flags":          {[]*xahau.Object{hookObject(map[field.Code]xahau.Value{field.CreateCode: xahau.Blob{}})}, "temMALFORMED"},
		"delete with unknown flags":     {[]*xahau.Object{hookObject(map[field.Code]xahau.Value{field.CreateCode: xahau.Blob{}, field.Flags: xahau.Uint32(9)})}, "temMALFORMED"},
		"delete and more":               {[]*xahau.Object{with(xahau.HookDelete(), field.HookNamespace, space(1))}, "temMALFORMED"},
		"update with override":          {[]*xahau.Object{hookObject(map[field.Code]xahau.Value{field.HookOn: everything, field.Flags: xahau.Uint32(1)})}, "temMALFORMED"},
		"update with version":           {[]*xahau.Object{hookObject(map[field.Code]xahau.Value{field.HookOn: everything, field.HookApiVersion: xahau.Uint16(0)})}, "temMALFORMED"},
		"NSDELETE without namespace":    {[]*xahau.Object{hookObject(map[field.Code]xahau.Value{field.Flags: xahau.Uint32(2)})}, "temMALFORMED"},
		"NSDELETE and more":             {[]*xahau.Object{hookObject(map[field.Code]xahau.Value{field.HookNamespace: space(1), field.HookOn: everything, field.Flags: xahau.Uint32(2)})}, "temMALFORMED"},
		"NSDELETE and other flags":      {[]*xahau.Object{hookObject(map[field.Code]xahau.Value{field.HookNamespace: space(1), field.Flags: xahau.Uint32(6)})}, "temMALFORMED"},
		"update of nothing":             {[]*xahau.Object{hookObject(map[field.Code]xahau.Value{field.HookOn: everything})}, "tecNO_ENTRY"},
		"delete of nothing":             {[]*xahau.Object{xahau.HookDelete()}, "tesSUCCESS"},
		"a namespace that is not there": {[]*xahau.Object{hookObject(map[field.Code]xahau.Value{field.HookNamespace: space(1), field.Flags: xahau.Uint32(2)})}, "tesSUCCESS"},
	} {
		o := xahau.SetHook(alice, c.hooks...)
		o.Set(field.Fee, xahau.Drops(50_000_000))
		p := w.sign(o, "alice")
		out, err := w.open.Try(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if out.Result.String() != c.code {
			t.Errorf("%s: %s, want %s (%v)", name, out.Result, c.code, p.Reason())
		}
	}
}

func TestSetHookOperations(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9, "mini": 1_000_000 + 200_000 + 150_000})
	plain, count := testHook(t, "plain"), testHook(t, "count")
	hash, other := xahau.HookHash(plain), xahau.HookHash(count)
	definition := func(h xahau.Hash256) *xahau.Object { return w.read(keylet.HookDefinition(h)) }
	set := func(name, want string, hooks ...*xahau.Object) Result {
		t.Helper()
		return w.run(xahau.SetHook(w.account(name), hooks...), name, want)
	}

	// Create: 500 drops a byte and one for each byte of the parameters.
	create := xahau.HookCreate(plain, everything, space(1), xahau.HsfOverride|xahau.HsfCollect)
	create.Set(field.HookParameters, params("b", "1", "a", "22"))
	bob := w.account("bob")
	create.Set(field.HookGrants, xahau.Array{xahau.HookGrant(other, &bob)})
	if fee, want := w.cfg.Engine.Fee(w.open.View(), xahau.SetHook(w.account("alice"), create)), int64(10+500*len(plain)+5); fee != want {
		t.Errorf("the fee is %d, want %d", fee, want)
	}
	r := set("alice", "tesSUCCESS", nil, create)
	d := definition(hash)
	if d == nil || d.Uint64(field.ReferenceCount) != 1 || d.Hash(field.HookSetTxnID) != r.Tx.ID || paramText(d) != "b=1 a=22 " || d.Flags() != xahau.HsfCollect ||
		d.Hash(field.HookNamespace) != space(1) || d.Amount(field.Fee).Drops() <= 0 || d.Has(field.HookCallbackFee) {
		t.Errorf("definition %v", d)
	}
	chain := w.chainOf("alice")
	if len(chain) != 2 || chain[0].Object.Len() != 0 || chain[1].Object.Hash(field.HookHash) != hash || chain[1].Object.Has(field.HookParameters) {
		t.Errorf("chain %v", chain)
	}
	// One for the hook and one for the grant; the parameters are the definition's.
	if n := w.owned("alice"); n != 2 {
		t.Errorf("alice owns %d", n)
	}
	set("alice", "tecREQUIRES_FLAG", nil, xahau.HookInstall(hash, 0))
	set("alice", "tecREQUIRES_FLAG", nil, xahau.HookCreate(count, everything, space(1), 0))

	// Install by hash, with what differs from the definition.
	install := xahau.HookInstall(hash, 0)
	install.Set(field.HookNamespace, space(2))
	install.Set(field.HookParameters, params("a", "22", "c", "3", "d", "", "b", ""))
	set("bob", "tesSUCCESS", install)
	b := w.chainOf("bob")[0].Object
	if b.Hash(field.HookNamespace) != space(2) || b.Has(field.HookOn) || paramText(b) != "b= c=3 " || b.Has(field.Flags) {
		t.Errorf("bob's hook %v", b)
	}
	if definition(hash).Uint64(field.ReferenceCount) != 2 || w.owned("bob") != 3 {
		t.Errorf("%d references, bob owns %d", definition(hash).Uint64(field.ReferenceCount), w.owned("bob"))
	}
	// Creating code that is there installs it; the same fields as the definition's are
	// left out.
	set("bob", "tesSUCCESS", nil, xahau.HookCreate(plain, everything, space(1), 0))
	if definition(hash).Uint64(field.ReferenceCount) != 3 || w.chainOf("bob")[1].Object.Has(field.HookNamespace) {
		t.Errorf("%v", w.chainOf("bob"))
	}

	// Update.
	on, err := xahau.HookOn(xahau.TxInvoke)
	if err != nil {
		t.Fatal(err)
	}
	set("bob", "tesSUCCESS", hookObject(map[field.Code]xahau.Value{field.HookOn: on, field.HookParameters: params("c", "absent", "b", "absent", "e", "5"),
		field.HookGrants: xahau.Array{xahau.HookGrant(hash, nil)}}))
	b = w.chainOf("bob")[0].Object
	if b.Hash(field.HookOn) != on || b.Hash(field.HookNamespace) != space(2) || paramText(b) != "e=5 " || b.Has(field.Flags) || len(b.Array(field.HookGrants)) != 1 {
		t.Errorf("bob's hook %v", b)
	}
	set("bob", "tesSUCCESS", hookObject(map[field.Code]xahau.Value{field.HookOn: everything, field.HookNamespace: space(1), field.HookParameters: xahau.Array{},
		field.HookGrants: xahau.Array{}, field.Flags: xahau.Uint32(xahau.HsfCollect)}))
	if b = w.chainOf("bob")[0].Object; b.Len() != 2 || b.Flags() != xahau.HsfCollect {
		t.Errorf("bob's hook %v", b)
	}
	set("bob", "tesSUCCESS", hookObject(map[field.Code]xahau.Value{field.HookOnIncoming: on, field.HookOnOutgoing: everything, field.HookCanEmit: on}))
	if b = w.chainOf("bob")[0].Object; b.Has(field.HookOn) || b.Hash(field.HookOnIncoming) != on || !b.Has(field.HookOnOutgoing) || b.Hash(field.HookCanEmit) != on {
		t.Errorf("bob's hook %v", b)
	}

	// Replace, both by new code and by what is there.
	set("bob", "tesSUCCESS", xahau.HookCreate(count, everything, space(3), xahau.HsfOverride))
	if definition(hash).Uint64(field.ReferenceCount) != 2 || definition(other).Uint64(field.ReferenceCount) != 1 {
		t.Error("references after replacing")
	}
	// The same code at several places of one transaction.
	set("bob", "tesSUCCESS", xahau.HookInstall(hash, xahau.HsfOverride), xahau.HookInstall(other, xahau.HsfOverride), xahau.HookInstall(hash, 0), xahau.HookInstall(other, 0))
	if definition(hash).Uint64(field.ReferenceCount) != 3 || definition(other).Uint64(field.ReferenceCount) != 2 || w.owned("bob") != 4 {
		t.Error("references after changing places")
	}

	// Delete: definitions go with the last reference, and the entry with the last hook.
	set("bob", "tesSUCCESS", xahau.HookDelete(), xahau.HookDelete(), xahau.HookDelete(), xahau.HookDelete())
	if definition(other) != nil || definition(hash).Uint64(field.ReferenceCount) != 1 || w.chainOf("bob") != nil || w.owned("bob") != 0 {
		t.Error("references after deleting")
	}
	set("alice", "tesSUCCESS", nil, xahau.HookDelete())
	if definition(hash) != nil || w.owned("alice") != 0 {
		t.Error("the definition is still there")
	}

	// The reserve counts hooks, parameters and grants, after the fee.
	few := xahau.HookCreate(plain, everything, space(1), 0)
	few.Set(field.HookGrants, xahau.Array{xahau.HookGrant(hash, nil)})
	o := xahau.SetHook(w.account("mini"), few)
	w.run(o, "mini", "tecINSUFFICIENT_RESERVE")
}

// What a namespace holds is deleted at most 256 entries at a time.
func TestDeleteNamespace(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9, "bob": 1e9})
	alice := w.account("alice")
	w.run(xahau.SetHook(alice, xahau.HookCreate(testHook(t, "probe"), everything, space(1), 0)), "alice", "tesSUCCESS")
	for i := range 3 {
		w.run(command(xahau.Invoke(w.account("bob"), alice, nil), "DO", "S", "K", fmt.Sprint(i), "V", "x"), "bob", "tesSUCCESS")
	}
	if w.owned("alice") != 4 {
		t.Fatalf("alice owns %d", w.owned("alice"))
	}
	drop := func() *xahau.Object {
		return hookObject(map[field.Code]xahau.Value{field.HookNamespace: space(1), field.Flags: xahau.Uint32(xahau.HsfNSDelete)})
	}
	r := w.run(xahau.SetHook(alice, drop()), "alice", "tesSUCCESS")
	root := w.read(keylet.Account(alice))
	if w.owned("alice") != 1 || root.Has(field.HookStateCount) || root.Has(field.HookNamespaces) || len(w.chainOf("alice")) != 1 {
		t.Errorf("%v after %v", root, r.Meta)
	}
	// With the hook itself, too.
	w.run(command(xahau.Invoke(w.account("bob"), alice, nil), "DO", "S", "K", "k", "V", "x"), "bob", "tesSUCCESS")
	del := xahau.HookDelete()
	del.SetFlags(xahau.HsfOverride | xahau.HsfNSDelete)
	w.run(xahau.SetHook(alice, del), "alice", "tesSUCCESS")
	if w.owned("alice") != 0 || w.chainOf("alice") != nil {
		t.Errorf("alice owns %d", w.owned("alice"))
	}
}

// More entries than one transaction deletes, in a view of its own.
func TestDeleteLargeNamespace(t *testing.T) {
	w := newHookWorld(t, map[string]int64{"alice": 1e9})
	alice := w.account("alice")
	s := view.NewSandbox(w.open.View())
	for i := range 600 {
		if code := tx.SetHookState(s, stateChange(alice, i, "x")); code != ter.TesSUCCESS {
			t.Fatal(code)
		}
	}
	// Change and delete single ones.
	for i := range 80 {
		if code := tx.SetHookState(s, stateChange(alice, i, [2]string{"y", ""}[i%2])); code != ter.TesSUCCESS {
			t.Fatal(code)
		}
	}
	root := s.Read(keylet.Account(alice))
	if root.Uint32(field.HookStateCount) != 560 || root.Uint32(field.OwnerCount) != 560 || len(root.Vector(field.HookNamespaces)) != 1 {
		t.Fatalf("%v", root)
	}
	c := &tx.Context{Tx: xahau.SetHook(alice, hookObject(map[field.Code]xahau.Value{field.HookNamespace: space(9), field.Flags: xahau.Uint32(xahau.HsfNSDelete)})),
		Account: alice, View: s}
	for _, want := range []struct {
		code ter.Code
		left uint32
	}{{ter.TesPARTIAL, 304}, {ter.TesPARTIAL, 48}, {ter.TesSUCCESS, 0}} {
		code := w.cfg.Engine.Table[xahau.TxSetHook].Apply(c)
		root := s.Read(keylet.Account(alice))
		if code != want.code || root.Uint32(field.HookStateCount) != want.left || root.Uint32(field.OwnerCount) != want.left ||
			root.Has(field.HookNamespaces) != (want.left > 0) {
			t.Fatalf("%s %v", code, root)
		}
	}
	if view.Exists(s, keylet.HookStateDirectory(alice, space(9))) {
		t.Error("the directory is still there")
	}
}
