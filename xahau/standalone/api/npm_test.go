package api

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"evernode/internal/npmtest"
)

// The client libraries, unmodified: the current one of the XRP ledger, and
// Evernode's.
const (
	xrplPackage     = "xrpl@5.3.0"
	evernodePackage = "evernode-js-client@0.6.61"
)

// The native part of the ledger works with the client library of the XRP ledger.
func TestXrplJS(t *testing.T) { runScript(t, xrplPackage, "testdata/xrpl.js", 100*time.Millisecond) }

// Evernode's client library connects, reads, submits, is told, and trades tokens. It
// looks for results once a second, and gives a transaction ten ledgers.
func TestEvernodeJS(t *testing.T) {
	runScript(t, evernodePackage, "testdata/evernode.js", 500*time.Millisecond)
}

// runScript runs a script that uses a package against a ledger that closes often.
func runScript(t *testing.T, pkg, script string, every time.Duration) {
	t.Helper()
	dir := npmtest.Install(t, pkg)
	w := newWorld(t, Config{Version: "2025.7.9"})
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	script, err := filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "node", script, w.socketURL())
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	ticks, stop := context.WithCancel(ctx)
	closed := make(chan error, 1)
	go func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticks.Done():
				closed <- nil
				return
			case <-ticker.C:
			}
			w.mu.Lock()
			w.now = w.now.Add(4 * time.Second)
			w.mu.Unlock()
			if _, err := w.node.Accept(ctx); err != nil {
				closed <- err
				return
			}
		}
	}()
	out, err := cmd.CombinedOutput()
	stop()
	if failed := <-closed; failed != nil {
		t.Error(failed)
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
