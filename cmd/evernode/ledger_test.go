package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"evernode/xahau"
	"evernode/xahau/client"
	"evernode/xahau/standalone"
)

// startLedger runs evernode ledger run as a process of its own, and gives the
// address that it says.
func startLedger(t *testing.T, args ...string) (process *exec.Cmd, server string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"ledger", "run", "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the ledger does not start: %q, %v", line, err)
	}
	_, server, _ = strings.Cut(strings.TrimSpace(line), "ws://")
	server, _, _ = strings.Cut(server, " ")
	return cmd, "ws://" + server
}

func ledgerJSON(t *testing.T, args ...string) object {
	t.Helper()
	out, errOut, code := evernode(t, append([]string{"ledger"}, args...)...)
	if code != 0 {
		t.Fatalf("%v: exit code %d, %s", args, code, errOut)
	}
	var o object
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return o
}

func TestLedgerCommands(t *testing.T) {
	_, server := startLedger(t, "--close-interval", "manual", "--network-id", "31337")
	at := []string{"--server", server}
	o := ledgerJSON(t, append(at, "fund", "--new", "--amount", "12.5", "--json")...)
	if o.text("account") == "" || o.text("seed") == "" || o.text("hash") == "" {
		t.Fatalf("fund: %v", o)
	}
	account := ledgerJSON(t, append(at, "account", o.text("account"), "--json")...)
	if got := account.object("account_data").text("Balance"); got != "12500000" {
		t.Errorf("balance %s", got)
	}
	tx := ledgerJSON(t, append(at, "tx", o.text("hash"), "--json")...)
	if tx["validated"] != true || tx.text("NetworkID") != "31337" {
		t.Errorf("transaction %v", tx)
	}
	before := ledgerJSON(t, append(at, "accept", "--json")...)
	after := ledgerJSON(t, append(at, "accept", "--count", "3", "--json")...)
	if a, b := before["ledger_current_index"].(float64), after["ledger_current_index"].(float64); b != a+3 {
		t.Errorf("ledger %v after %v", b, a)
	}
	for _, args := range [][]string{
		{"fund", o.text("account")}, {"account", o.text("account")}, {"tx", o.text("hash")}, {"hook", o.text("account")}, {"accept"},
	} {
		out, errOut, code := evernode(t, append(append([]string{"ledger"}, args...), at...)...)
		if code != 0 || out == "" {
			t.Errorf("%v: exit code %d, %s", args, code, errOut)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		say  string
	}{
		{[]string{"fund"}, 2, "--new"},
		{[]string{"fund", "bob"}, 2, "bob"},
		{[]string{"fund", "--new", "--amount", "-1"}, 2, "no amount of XAH"},
		{[]string{"fund", "--new", "--amount", "0.0000001"}, 2, "six decimals"},
		{[]string{"account", xahau.AccountOne.String()}, 1, "actNotFound"},
		{[]string{"tx", strings.Repeat("AB", 32)}, 1, "txnNotFound"},
		{[]string{"tx", "AB"}, 2, "hash of a transaction"},
		{[]string{"hook", o.text("account"), "--namespace", "xx"}, 2, "--namespace"},
		{[]string{"hook", o.text("account"), "--namespace", strings.Repeat("AB", 32)}, 1, "namespaceNotFound"},
		{[]string{"accept", "--count", "0"}, 2, "--count"},
		{[]string{"accept", "--server", "ftp://x"}, 2, "ftp"},
	} {
		args := append([]string{"ledger"}, c.args...)
		if !strings.Contains(strings.Join(args, " "), "--server") {
			args = append(args, at...)
		}
		if _, errOut, code := evernode(t, args...); code != c.code || !strings.Contains(errOut, c.say) {
			t.Errorf("%v: exit code %d, %s", c.args, code, errOut)
		}
	}
	for _, args := range [][]string{{"--close-interval", "1ms"}, {"--close-interval", "soon"}, {"--network-id", "0"}, {"--network-id", "x"}} {
		if _, errOut, code := evernode(t, append([]string{"ledger", "run"}, args...)...); code != 2 {
			t.Errorf("%v: exit code %d, %s", args, code, errOut)
		}
	}
	if _, errOut, code := evernode(t, "ledger", "run", "--listen", strings.TrimPrefix(server, "ws://")); code != 1 || !strings.Contains(errOut, "port") {
		t.Errorf("a port in use: exit code %d, %s", code, errOut)
	}
}

// What a client was told to be validated is there after kill -9, and a restart
// takes less than a second.
func TestLedgerKill(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	keys, err := standalone.Master()
	if err != nil {
		t.Fatal(err)
	}
	type final struct {
		hash   string
		ledger uint32
	}
	var sent []final
	hashes := map[uint32]string{}
	network := []string{"--network-id", "4242"}
	for round := range 4 {
		start := time.Now()
		process, server := startLedger(t, append([]string{"--dir", dir, "--close-interval", "100ms"}, network...)...)
		if took := time.Since(start); round > 0 && took > time.Second {
			t.Errorf("the restart took %s", took)
		}
		network = nil // the folder knows
		c, err := client.New(client.Options{Servers: []string{server}})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range sent {
			o, err := ask(ctx, c, "tx", map[string]any{"transaction": f.hash})
			if err != nil || o["validated"] != true || o["ledger_index"] != float64(f.ledger) {
				t.Fatalf("round %d: transaction %s of ledger %d: %v, %v", round, f.hash, f.ledger, o, err)
			}
		}
		for seq, hash := range hashes {
			o, err := ask(ctx, c, "ledger", map[string]any{"ledger_index": seq})
			if err != nil || o.text("ledger_hash") != hash {
				t.Fatalf("round %d: ledger %d is %s, was %s, %v", round, seq, o.text("ledger_hash"), hash, err)
			}
		}
		for i := range 5 {
			to := xahau.SeedFromPassphrase(fmt.Sprint("kill", round, i), xahau.Ed25519).KeyPair().Account()
			tx, err := c.Send(ctx, xahau.Payment(keys.Account(), to, xahau.Drops(20_000_000)), keys, client.SubmitOptions{})
			if err != nil {
				t.Fatal(err)
			}
			sent = append(sent, final{tx.Hash.String(), tx.Ledger})
			o, err := ask(ctx, c, "ledger", map[string]any{"ledger_index": "validated"})
			if err != nil {
				t.Fatal(err)
			}
			hashes[uint32(o["ledger_index"].(float64))] = o.text("ledger_hash")
		}
		process.Process.Kill()
		process.Wait()
		c.Close()
	}
	if _, errOut, code := evernode(t, "ledger", "run", "--dir", dir, "--network-id", "5", "--listen", "127.0.0.1:0"); code != 1 || !strings.Contains(errOut, "4242") {
		t.Errorf("another network's folder: exit code %d, %s", code, errOut)
	}
}
