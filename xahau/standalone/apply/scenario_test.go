package apply

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// scenario is a file of testdata/scenarios. In its objects, names of accounts stand
// for addresses and "10/USD/gw" for amounts. $name is what a step has saved.
type scenario struct {
	// Accounts are those of the first ledger with their drops.
	Accounts map[string]int64
	// Common steps come before each case.
	Common []step
	Cases  map[string][]step
}

type step struct {
	Tx map[string]any
	// Result of the transaction, tesSUCCESS if absent.
	Result string
	// By signs instead of the account; several sign together if Signers is there, each
	// as account or account:key.
	By      string
	Signers []string
	// Wait is how many seconds later the ledger closes, 4 if absent; with Open it stays
	// open.
	Wait uint32
	Open bool
	// Final is the result in the closed ledger if it is another than Result.
	Final string
	// Delivered is the DeliveredAmount in the metadata, "none" for none.
	Delivered string
	// Nodes are the metadata's nodes as "Created AccountRoot", in any order.
	Nodes []string
	// Save keeps the index of an entry that the transaction made under a name.
	Save string
	// Balances are drops, or for "name USD/gw" numbers, after the step; Owners are
	// owner counts.
	Balances map[string]string
	Owners   map[string]uint32
	// Entries must be in the state and None must not be: objects of some fields each.
	Entries, None []map[string]any
}

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var s scenario
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.DisallowUnknownFields()
		d.UseNumber()
		if err := d.Decode(&s); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		for name, steps := range s.Cases {
			t.Run(strings.TrimSuffix(filepath.Base(f), ".json")+"/"+name, func(t *testing.T) {
				r := &runner{world: newWorld(t, s.Accounts), saved: map[string]string{}}
				for name := range s.Accounts {
					r.names = append(r.names, name)
				}
				for i, st := range append(append([]step(nil), s.Common...), steps...) {
					r.step(fmt.Sprintf("step %d", i-len(s.Common)+1), st)
				}
			})
		}
	}
}

type runner struct {
	*world
	names []string
	saved map[string]string
}

// resolve puts addresses and amounts in place of names.
func (r *runner) resolve(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for k, x := range v {
			m[k] = r.resolve(x)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, x := range v {
			l[i] = r.resolve(x)
		}
		return l
	case string:
		for _, n := range append(r.names, "root", "new", "nobody") {
			if v == n {
				return r.account(n).String()
			}
		}
		if s, ok := r.saved[v]; ok {
			return s
		}
		if p := strings.Split(v, "/"); len(p) == 3 {
			issuer := p[2]
			if issuer == "one" {
				issuer = xahau.AccountOne.String()
			} else if len(issuer) < 20 {
				issuer = r.account(issuer).String()
			}
			return map[string]any{"value": p[0], "currency": p[1], "issuer": issuer}
		}
	}
	return v
}

func (r *runner) object(m map[string]any) *xahau.Object {
	r.t.Helper()
	o, err := r.defs.FromMap(r.resolve(m).(map[string]any))
	if err != nil {
		r.t.Fatal(err)
	}
	return o
}

func (r *runner) step(at string, s step) {
	t := r.t
	t.Helper()
	if s.Tx != nil {
		r.transaction(at, s)
	} else if s.Wait > 0 {
		r.close(s.Wait)
	}
	v := view.NewClosed(r.state, view.Ledger{Defs: r.defs})
	for name, want := range s.Balances {
		who, what, issued := strings.Cut(name, " ")
		got := fmt.Sprint(view.Balance(v, r.account(who)))
		if issued {
			c, issuer, _ := strings.Cut(what, "/")
			got = view.LineBalance(v, r.account(who), r.account(issuer), xahau.MustCurrency(c)).Value().String()
		}
		if got != want {
			t.Errorf("%s: %s has %s, want %s", at, name, got, want)
		}
	}
	for name, want := range s.Owners {
		if got := v.Read(keylet.Account(r.account(name))).Uint32(field.OwnerCount); got != want {
			t.Errorf("%s: %s owns %d, want %d", at, name, got, want)
		}
	}
	for _, want := range s.Entries {
		if !r.matches(r.object(want)) {
			t.Errorf("%s: no entry like %v", at, want)
		}
	}
	for _, want := range s.None {
		if r.matches(r.object(want)) {
			t.Errorf("%s: there is an entry like %v", at, want)
		}
	}
}

func (r *runner) transaction(at string, s step) {
	t := r.t
	t.Helper()
	o := r.fill(r.object(s.Tx))
	var signed *xahau.Signed
	var err error
	if len(s.Signers) > 0 {
		if _, ok := s.Tx["Fee"]; !ok {
			o.Set(field.Fee, xahau.Drops(10*int64(1+len(s.Signers))))
		}
		var list []xahau.Element
		for _, x := range s.Signers {
			account, key, other := strings.Cut(x, ":")
			if !other {
				key = account
			}
			e, err := r.defs.MultiSign(o, r.account(account), r.key(key))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, e)
		}
		signed, err = r.defs.Combine(o, list...)
	} else {
		by := s.By
		if by == "" {
			by, _ = s.Tx["Account"].(string)
		}
		signed, err = r.defs.Sign(o, r.key(by))
	}
	if err != nil {
		t.Fatal(err)
	}
	want := s.Result
	if want == "" {
		want = "tesSUCCESS"
	}
	p, err := tx.Prepare(r.defs, signed.Blob)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.submit(p); got.String() != want {
		t.Fatalf("%s: %s gives %s, want %s (%v)", at, s.Tx["TransactionType"], got, want, p.Reason())
	}
	if s.Open {
		return
	}
	c := r.close(max(s.Wait, 4))
	if s.Final != "" {
		want = s.Final
	}
	var done *Result
	for i := range c.Results {
		if c.Results[i].Tx.ID == p.ID {
			done = &c.Results[i]
		}
	}
	if in := want == ter.TesSUCCESS.String() || strings.HasPrefix(want, "tec"); in != (done != nil) {
		t.Fatalf("%s: in the ledger: %v, want %v", at, done != nil, in)
	}
	if done == nil {
		return
	}
	if done.Code.String() != want || ter.Code(done.Meta.Uint8(field.TransactionResult)) != done.Code {
		t.Fatalf("%s: in the ledger with %s, want %s", at, done.Code, want)
	}
	if s.Delivered != "" {
		got := "none"
		if a, ok := xahau.Lookup[xahau.Amount](done.Meta, field.DeliveredAmount); ok {
			got = a.String()
			if !a.IsNative() {
				got = a.Value().String() + "/" + a.Currency().String()
			}
		}
		if got != s.Delivered {
			t.Errorf("%s: delivered %s, want %s", at, got, s.Delivered)
		}
	}
	var nodes []string
	for _, n := range done.Meta.Array(field.AffectedNodes) {
		kind := map[field.Code]string{field.CreatedNode: "Created", field.ModifiedNode: "Modified", field.DeletedNode: "Deleted"}[n.Field]
		typ := r.defs.EntryName(n.Object.EntryType())
		nodes = append(nodes, kind+" "+typ)
		if s.Save != "" && kind == "Created" && typ != "DirectoryNode" {
			r.saved["$"+s.Save] = n.Object.Hash(field.LedgerIndex).String()
		}
	}
	if s.Nodes != nil && !sameStrings(nodes, s.Nodes) {
		t.Errorf("%s: nodes %q, want %q", at, nodes, s.Nodes)
	}
}

func sameStrings(a, b []string) bool {
	count := map[string]int{}
	for _, x := range a {
		count[x]++
	}
	for _, x := range b {
		count[x]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// matches tells whether the state has an entry with all fields of want.
func (r *runner) matches(want *xahau.Object) bool {
	r.t.Helper()
	for e, err := range r.state.All() {
		if err != nil {
			r.t.Fatal(err)
		}
		o, err := r.defs.Decode(e.Data)
		if err != nil {
			r.t.Fatal(err)
		}
		ok := true
		for c, v := range want.All() {
			w := o.Get(c)
			ok = ok && w != nil && xahau.ValuesEqual(v, w)
		}
		if ok {
			return true
		}
	}
	return false
}
