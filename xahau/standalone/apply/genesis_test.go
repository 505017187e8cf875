package apply

import (
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
)

func TestGenesis(t *testing.T) {
	defs := xahau.DefaultDefinitions()
	// An account that nobody has the key to, at an address that others expect.
	governor := xahau.MustAddress("rBvKgF3jSZWdJcwSsmoJspoXLLDVLDp6jg")
	g := Genesis{Seq: 5, CloseTime: testTime, NetworkID: testNetwork, Amendments: []xahau.Hash256{{1}, {2}},
		Accounts: []Account{{ID: governor, Balance: 7, Flags: xahau.LsfDisableMaster}, {ID: xahau.AccountOne, Balance: 8, Sequence: 4}},
		Fees:     view.Fees{Base: 12, Reserve: 20, Increment: 3}}
	l, err := g.Ledger(defs)
	if err != nil {
		t.Fatal(err)
	}
	if l.Header.Seq != 5 || l.Header.Drops != 15 || l.Header.CloseTime != testTime || l.Header.AccountHash != l.State.Hash() {
		t.Fatalf("header %+v", l.Header)
	}
	again, err := g.Ledger(defs)
	if err != nil || again.Header != l.Header {
		t.Fatalf("the same ledger has another header: %+v, %v", again.Header, err)
	}
	v := view.NewClosed(l.State, view.Ledger{Defs: defs})
	for _, k := range []keylet.Keylet{keylet.Account(governor), keylet.Account(xahau.AccountOne), keylet.Fees(), keylet.Amendments()} {
		o := v.Read(k)
		if o == nil {
			t.Fatalf("entry %s is missing: %v", k.Index, v.Err())
		}
		if err := defs.CheckEntry(o); err != nil {
			t.Error(err)
		}
	}
	root := v.Read(keylet.Account(governor))
	if root.Amount(field.Balance) != xahau.Drops(7) || root.Uint32(field.Sequence) != 1 || root.Flags() != xahau.LsfDisableMaster {
		t.Errorf("account %v", root)
	}
	if f := tx.ReadFees(v); f != g.Fees {
		t.Errorf("fees %+v", f)
	}
	for name, bad := range map[string]Genesis{
		"twice":        {Accounts: []Account{{ID: governor}, {ID: governor}}},
		"too much":     {Accounts: []Account{{ID: governor, Balance: xahau.MaxDrops}, {ID: xahau.AccountOne, Balance: 1}}},
		"below zero":   {Accounts: []Account{{ID: governor, Balance: -1}}},
		"large fees":   {Fees: view.Fees{Base: 10, Reserve: 1 << 32}},
		"entry twice":  {Entries: map[xahau.Hash256]*xahau.Object{keylet.Fees().Index: view.NewEntry(keylet.Fees())}},
		"unencodable ": {Entries: map[xahau.Hash256]*xahau.Object{{1}: xahau.NewObject(map[field.Code]xahau.Value{field.Account: xahau.Uint8(1)})}},
	} {
		if _, err := bad.Ledger(defs); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
