package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evernode/hotpocket/config"
)

// evernode runs a command line and returns what it printed and its exit code.
func evernode(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &o, &e)
	return o.String(), e.String(), code
}

func TestNodeNewAndRekey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	out, errOut, code := evernode(t, "node", "new", dir)
	if code != 0 {
		t.Fatal(errOut)
	}
	c, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, c.Node.PublicKey.String()) || !strings.Contains(out, c.Contract.ID) {
		t.Errorf("printed %q", out)
	}
	if strings.Contains(out+errOut, c.Node.PrivateKey.Hex()) {
		t.Error("the private key was printed")
	}
	if !strings.Contains(errOut, "no fault is survived") {
		t.Errorf("no warning about a single member: %q", errOut)
	}
	if _, errOut, code = evernode(t, "node", "new", dir); code != 1 || !strings.Contains(errOut, "is there already") {
		t.Errorf("again: exit code %d, %q", code, errOut)
	}
	if out, errOut, code = evernode(t, "node", "rekey", dir); code != 0 {
		t.Fatal(errOut)
	}
	after, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if after.Node.PublicKey == c.Node.PublicKey || !strings.Contains(out, after.Node.PublicKey.String()) {
		t.Errorf("rekey printed %q", out)
	}
	if err := os.MkdirAll(filepath.Join(config.Layout(dir).LedgerFS(), "store", "journal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code = evernode(t, "node", "rekey", dir); code != 1 || !strings.Contains(errOut, "may have ledgers") || !strings.Contains(errOut, "--force") {
		t.Errorf("rekey of a node with ledgers: exit code %d, %q", code, errOut)
	}
	if out, errOut, code = evernode(t, "node", "rekey", "--force", dir); code != 0 || strings.Contains(out, after.Node.PublicKey.String()) {
		t.Errorf("forced: exit code %d, %q, %q", code, out, errOut)
	}
}

func TestWrongUse(t *testing.T) {
	work := filepath.Join(t.TempDir(), "work")
	t.Setenv("XDG_STATE_HOME", filepath.Dir(work))
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"nonsense", 2, "no command"},
		{"node nonsense", 2, "no command"},
		{"node new", 2, "usage: evernode node new DIR"},
		{"node new a b", 2, "usage: evernode node new DIR"},
		{"node new --what", 2, "see evernode node new --help"},
		{"node rekey /nowhere", 1, "/nowhere"},
		{"dev deploy", 2, "usage: evernode dev deploy DIR"},
		{"dev deploy --nodes 0 .", 2, "--nodes is 0"},
		{"dev deploy --threshold -1 .", 2, "--threshold is -1"},
		{"dev deploy --user-port x .", 2, "--user-port"},
		{"dev deploy /nowhere", 1, "is not there"},
		{"dev deploy --nodes 200 .", 1, "allowed: 1 to 128"},
		{"dev logs x", 2, "not the number of a node"},
		{"dev logs 1 -n 0", 2, "--lines is 0"},
		{"dev start 0", 2, "not the number of a node"},
		{"dev status", 1, "make one with: evernode dev deploy DIR"},
		{"dev start --dir /nowhere", 1, "there is no cluster in /nowhere"},
		{"dev clean", 0, "nothing to clean"},
	} {
		out, errOut, code := evernode(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(errOut, tt.want) {
			t.Errorf("%s: exit code %d, %q; want %d, %q", tt.args, code, errOut, tt.code, tt.want)
		}
		if out != "" {
			t.Errorf("%s: printed %q", tt.args, out)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(work), "evernode")); err == nil {
		t.Error("a failed command made the work folder")
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"node"}, {"dev"}, {"dev", "deploy", "--help"}} {
		out, errOut, code := evernode(t, args...)
		if code != 0 || errOut != "" || !strings.Contains(out, "Usage:") {
			t.Errorf("%v: exit code %d, %q, %q", args, code, out, errOut)
		}
	}
	for _, args := range [][]string{{"version"}, {"node", "version"}, {"--version"}} {
		out, _, code := evernode(t, args...)
		if code != 0 || !strings.HasPrefix(out, "evernode ") || !strings.Contains(out, "HotPocket "+config.HPVersion) {
			t.Errorf("%v: exit code %d, %q", args, code, out)
		}
	}
}
