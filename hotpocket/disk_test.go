package hotpocket

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"evernode/hotpocket/config"
)

// A node whose disk is full stops and says so; the others go on, and with room
// again it comes back.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	c := makeCluster(t, 4, 4, trial(t), func(_ int, conf *config.Config) {
		conf.Contract.Consensus.Roundtime = 100 * time.Millisecond
	})
	dir := config.Layout(c.nodes[3].dir).LedgerFS()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		c.nodes[3].kill()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	for _, m := range c.nodes {
		m.start()
	}
	at := c.inStep("ledgers close", 2, c.nodes...)
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<16)
	for err == nil {
		_, err = f.Write(block)
	}
	f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	// Journals are laid out in advance, so the end takes some inputs.
	u := c.nodes[0].user()
	big := "x " + strings.Repeat("y", 100000)
	var stopped error
	for i := 0; stopped == nil && i < 400; i++ {
		if got := u.send(big, 10*time.Second); got.err != nil {
			t.Fatal(got.err)
		}
		<-u.outputs
		select {
		case stopped = <-c.nodes[3].done:
			c.nodes[3].stop()
			c.nodes[3].stop = nil
		default:
		}
	}
	if !errors.Is(stopped, syscall.ENOSPC) {
		t.Fatalf("the node with the full disk ended with %v", stopped)
	}
	at = c.inStep("the others go on", at+4, c.nodes[:3]...)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	c.nodes[3].start()
	c.inStep("and it comes back", at+2, c.nodes...)
	c.healthy(c.nodes...)
}

// A node that ended before it had the content of an agreed patch.cfg asks for it.
func TestAgreedConfigurationIsLost(t *testing.T) {
	c := newCluster(t, 4, trial(t), func(conf *config.Config) { conf.Contract.Consensus.Roundtime = 200 * time.Millisecond })
	c.inStep("ledgers close", 1, c.nodes...)
	u := c.nodes[0].user()
	old := c.nodes[3].dir + "/cfg/hp.cfg"
	before, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	u.must("roundtime 150", "ok roundtime 150")
	at := c.inStep("it is in force", 3, c.nodes...)
	c.nodes[3].kill()
	l := config.Layout(c.nodes[3].dir)
	for _, d := range []string{filepath.Join(l.LedgerFS(), "patch"), l.ContractFS()} {
		if err := os.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(old, before, 0o600); err != nil {
		t.Fatal(err)
	}
	c.nodes[3].start()
	c.inStep("the node has asked for the configuration", at+2, c.nodes...)
	conf, err := config.Load(c.nodes[3].dir)
	for end := time.Now().Add(5 * time.Second); err == nil && conf.Contract.Consensus.Roundtime != 150*time.Millisecond && time.Now().Before(end); conf, err = config.Load(c.nodes[3].dir) {
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil || conf.Contract.Consensus.Roundtime != 150*time.Millisecond {
		t.Errorf("hp.cfg says %v, %v", conf.Contract.Consensus.Roundtime, err)
	}
}
