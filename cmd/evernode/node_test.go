package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
)

// A node made with `node new` runs alone, keeps others out of its folder, and
// ends with 0 when it is told to stop.
func TestNodeRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	if _, errOut, code := evernode(t, "node", "new", dir); code != 0 {
		t.Fatal(errOut)
	}
	c, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.User.Listen, c.Mesh.Listen = false, false
	c.Contract.Execute = false
	c.Contract.Consensus.Roundtime = 100 * time.Millisecond
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		node := exec.Command(self, "node", "run", dir)
		var out strings.Builder
		node.Stdout, node.Stderr = &out, &out
		if err := node.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- node.Wait() }()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for {
			s, err := control.Fetch(ctx, dir)
			if err == nil && s.LedgerSeqNo > 0 {
				break
			}
			if err != nil && !errors.Is(err, control.ErrNotRunning) {
				t.Fatal(err)
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case err := <-ended:
				t.Fatalf("the node ended: %v\n%s", err, &out)
			case <-ctx.Done():
				_ = node.Process.Kill()
				t.Fatal("a node alone closes no ledger")
			}
		}
		second, err := exec.Command(self, "node", "run", dir).CombinedOutput()
		if err == nil || !strings.Contains(string(second), "works in the node's folder") {
			t.Errorf("a second node in the folder: %v, %s", err, second)
		}
		if err := node.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("after %v: %v\n%s", sig, err, &out)
			}
		case <-time.After(30 * time.Second):
			_ = node.Process.Kill()
			t.Fatalf("the node does not stop after %v", sig)
		}
		if _, err := os.Stat(config.Layout(dir).ControlSocket()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after %v the control socket is left: %v", sig, err)
		}
	}
}
