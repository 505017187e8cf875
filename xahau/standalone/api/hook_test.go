package api

import (
	"fmt"
	"os"
	"testing"

	"evernode/xahau"
	"evernode/xahau/client"
	"evernode/xahau/field"
)

// A hook that is installed and run through the API: its fee, its executions in the
// metadata, its state, and its entries.
func TestHookThroughAPI(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.client()
	alice, bob := key("alice"), key("bob")
	w.fund(c, alice.Account(), bob.Account())
	// Counts the transactions in its state.
	code, err := os.ReadFile("../apply/testdata/hooks/count.wasm")
	if err != nil {
		t.Fatal(err)
	}
	on, err := xahau.HookOn(xahau.TxPayment)
	if err != nil {
		t.Fatal(err)
	}
	namespace := xahau.Hash256{31: 7}
	install := xahau.SetHook(alice.Account(), xahau.HookCreate(code, on, namespace, xahau.HsfOverride))
	if result, id := w.send(c, install, alice); result != "tesSUCCESS" {
		t.Fatal(result, w.rpc("tx", map[string]any{"transaction": id.String()}))
	}

	// fee asks with an unsigned transaction what the run costs.
	plain := xahau.Payment(bob.Account(), master(t).Account(), xahau.Drops(1))
	hooked := xahau.Payment(bob.Account(), alice.Account(), xahau.Drops(1))
	for _, tx := range []*xahau.Object{plain, hooked} {
		if err := c.Autofill(t.Context(), tx, client.AutofillOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if p, h := plain.Amount(field.Fee).Drops(), hooked.Amount(field.Fee).Drops(); p != 10 || h <= p {
		t.Errorf("fees %d without and %d with a hook", p, h)
	}
	cheap := hooked.Clone()
	cheap.Set(field.Fee, xahau.Drops(10))
	s, err := c.Definitions().Sign(cheap, bob)
	if err != nil {
		t.Fatal(err)
	}
	if r := w.rpc("submit", map[string]any{"tx_blob": fmt.Sprintf("%X", s.Blob)}); r["engine_result"] != "telINSUF_FEE_P" {
		t.Errorf("too low a fee: %v", r)
	}

	var last xahau.Hash256
	for range 3 {
		result, id := w.send(c, xahau.Payment(bob.Account(), alice.Account(), xahau.Drops(1)), bob)
		if result != "tesSUCCESS" {
			t.Fatal(result)
		}
		last = id
	}
	tx := w.rpc("tx", map[string]any{"transaction": last.String()})
	meta, _ := tx["meta"].(map[string]any)
	runs, _ := meta["HookExecutions"].([]any)
	if len(runs) != 1 {
		t.Fatalf("%v", tx)
	}
	run := runs[0].(map[string]any)["HookExecution"].(map[string]any)
	if run["HookAccount"] != alice.Account().String() || run["HookHash"] != xahau.HookHash(code).String() || run["HookResult"] != 3.0 ||
		run["HookStateChangeCount"] != 1.0 {
		t.Errorf("%v", run)
	}
	state := w.rpc("account_namespace", map[string]any{"account": alice.Account().String(), "namespace_id": namespace.String(), "ledger_index": "validated"})
	entries, _ := state["namespace_entries"].([]any)
	if len(entries) != 1 || entries[0].(map[string]any)["HookStateData"] != "0000000000000003" || entries[0].(map[string]any)["LedgerEntryType"] != "HookState" {
		t.Errorf("%v", state)
	}
	for _, q := range []map[string]any{
		{"hook": map[string]any{"account": alice.Account().String()}},
		{"hook_definition": xahau.HookHash(code).String()},
		{"hook_state": map[string]any{"account": alice.Account().String(), "namespace_id": namespace.String(), "key": xahau.Hash256{31: 'n'}.String()}},
	} {
		q["ledger_index"] = "validated"
		if r := w.rpc("ledger_entry", q); r["status"] != "success" {
			t.Errorf("%v: %v", q, r)
		}
	}
	// Its state one ledger ago can still be read.
	before := w.node.Validated().Header.Seq - 1
	state = w.rpc("account_namespace", map[string]any{"account": alice.Account().String(), "namespace_id": namespace.String(), "ledger_index": before})
	if entries, _ := state["namespace_entries"].([]any); len(entries) != 1 || entries[0].(map[string]any)["HookStateData"] != "0000000000000002" {
		t.Errorf("the ledger before: %v", state)
	}
}

// What a hook emits is in the next ledger, in its order, and told to subscribers.
func TestEmittedThroughAPI(t *testing.T) {
	w := newWorld(t, Config{})
	c := w.client()
	registry, host := key("registry"), key("host")
	w.fund(c, registry.Account(), host.Account())
	code, err := os.ReadFile("../apply/testdata/hooks/probe.wasm")
	if err != nil {
		t.Fatal(err)
	}
	on, err := xahau.HookOn(xahau.TxPayment)
	if err != nil {
		t.Fatal(err)
	}
	if result, _ := w.send(c, xahau.SetHook(registry.Account(), xahau.HookCreate(code, on, xahau.Hash256{}, xahau.HsfOverride)), registry); result != "tesSUCCESS" {
		t.Fatal(result)
	}
	p := w.dial()
	if m := p.ask(fmt.Sprintf(`{"command":"subscribe","accounts":[%q]}`, registry.Account())); m["status"] != "success" {
		t.Fatal(m)
	}
	tx := xahau.Payment(host.Account(), registry.Account(), xahau.Drops(1))
	tx.AddHookParameter([]byte("DO"), []byte("M")) // emits a mint and then an offer of the token
	if result, _ := w.send(c, tx, host); result != "tesSUCCESS" {
		t.Fatal(result)
	}
	trigger := p.next()
	meta, _ := trigger["meta"].(map[string]any)
	emissions, _ := meta["HookEmissions"].([]any)
	if len(emissions) != 2 {
		t.Fatalf("%v", trigger)
	}
	var ids []string
	for _, e := range emissions {
		id := e.(map[string]any)["HookEmission"].(map[string]any)["EmittedTxnID"].(string)
		ids = append(ids, id)
		if r := w.rpc("ledger_entry", map[string]any{"emitted_txn": id, "ledger_index": "validated"}); r["status"] != "success" {
			t.Errorf("emitted transaction %s is not in the ledger: %v", id, r)
		}
	}
	w.accept()
	for i, want := range []string{"URITokenMint", "URITokenCreateSellOffer"} {
		m := p.next()
		shown, _ := m["transaction"].(map[string]any)
		if shown["hash"] != ids[i] || shown["TransactionType"] != want || m["engine_result"] != "tesSUCCESS" ||
			m["ledger_index"] != trigger["ledger_index"].(float64)+1 {
			t.Errorf("emitted transaction %d: %v", i, m)
		}
	}
	objects := w.rpc("account_objects", map[string]any{"account": registry.Account().String(), "type": "uri_token", "ledger_index": "validated"})
	list, _ := objects["account_objects"].([]any)
	if len(list) != 1 {
		t.Fatalf("%v", objects)
	}
	if token := list[0].(map[string]any); token["Destination"] != host.Account().String() || token["Amount"] != "1" || token["Owner"] != registry.Account().String() {
		t.Errorf("%v", token)
	}
}
