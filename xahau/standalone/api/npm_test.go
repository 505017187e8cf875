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

// xrplPackage is the current client library of the XRP ledger, unmodified.
const xrplPackage = "xrpl@5.3.0"

// The native part of the ledger works with the unmodified client library.
func TestXrplJS(t *testing.T) {
	dir := npmtest.Install(t, xrplPackage)
	w := newWorld(t, Config{Version: "2025.7.9"})
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	script, err := filepath.Abs("testdata/xrpl.js")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "node", script, w.socketURL())
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	ticks, stop := context.WithCancel(ctx)
	closed := make(chan error, 1)
	go func() {
		ticker := time.NewTicker(100 * time.Millisecond)
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
