package hotpocket

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
)

// edit changes the hp.cfg of a node that does not run and returns its new text.
func (m *member) edit(change func(*config.Config)) []byte {
	m.c.t.Helper()
	conf, err := config.Load(m.dir)
	if err != nil {
		m.c.t.Fatal(err)
	}
	change(conf)
	if err := conf.Save(m.dir); err != nil {
		m.c.t.Fatal(err)
	}
	return conf.Text()
}

// refusal starts a node that must not come up and returns why it did not.
func (m *member) refusal() string {
	m.c.t.Helper()
	m.start()
	select {
	case err := <-m.done:
		m.stop()
		m.stop = nil
		if err == nil {
			m.c.t.Fatal("the node ended without an error")
		}
		return err.Error()
	case <-time.After(20 * time.Second):
		m.c.t.Fatal("the node runs")
		return ""
	}
}

// What the members agreed on holds; an operator who edits it is told so and
// keeps the file.
func TestConfigureOverrulesEditsOfAgreedFields(t *testing.T) {
	c := newCluster(t, 1, trial(t), nil)
	m := c.nodes[0]
	const warning = "differ from what the members agreed on"
	at := c.inStep("ledgers close", 2, m)
	m.kill()
	m.edit(func(conf *config.Config) { conf.User.IdleTimeout = time.Hour })
	m.start()
	at = c.inStep("it goes on with an edit of a field that is the operator's", at+1, m)
	if m.log.has(warning) {
		t.Error("warned of a field that is the operator's")
	}
	m.kill()

	edited := m.edit(func(conf *config.Config) {
		conf.Contract.BinPath = "/nowhere/else"
		conf.Contract.Consensus.Roundtime = time.Minute
		conf.User.IdleTimeout = 2 * time.Hour
	})
	m.start()
	at = c.inStep("it goes on with the agreed fields", at+1, m)
	if !m.log.has(warning) || !m.log.has(`fields="contract.bin_path, contract.consensus.roundtime"`) {
		t.Error("no warning that names the fields")
	}
	path := config.Layout(m.dir).ConfigFile() + ".edited"
	if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, edited) {
		t.Errorf("the operator's file was not kept: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the kept file: %v, %v", info, err)
	}
	conf, err := config.Load(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	if conf.Contract.BinPath != "./contract" || conf.Contract.Consensus.Roundtime != 500*time.Millisecond || conf.User.IdleTimeout != 2*time.Hour {
		t.Errorf("hp.cfg has bin_path %s, roundtime %v, idle_timeout %v", conf.Contract.BinPath, conf.Contract.Consensus.Roundtime, conf.User.IdleTimeout)
	}
	m.kill()
	m.start()
	c.inStep("it goes on", at+1, m)
	if m.log.has(warning) {
		t.Error("warned again though nothing was edited")
	}
}

// Ledgers are never taken over by a contract with another id.
func TestConfigureRefusesAnotherContractsLedgers(t *testing.T) {
	c := newCluster(t, 1, trial(t), nil)
	m := c.nodes[0]
	at := c.inStep("ledgers close", 2, m)
	m.kill()
	id := m.conf.Contract.ID
	m.edit(func(conf *config.Config) { conf.Contract.ID = "another" })
	if err := m.refusal(); !strings.Contains(err, `"another"`) || !strings.Contains(err, id) || !strings.Contains(err, "put that id back") {
		t.Errorf("the node ended with: %s", err)
	}
	m.edit(func(conf *config.Config) { conf.Contract.ID = id })
	m.start()
	c.inStep("it goes on under its own id", at+1, m)
}

// A wrong id that is found before the first ledger costs no file of the contract.
func TestConfigureTakesAnotherIDWithoutLedgers(t *testing.T) {
	c := makeCluster(t, 2, 2, trial(t), func(i int, conf *config.Config) {
		if i == 1 {
			conf.Contract.ID = "mistyped"
		}
	})
	m := c.nodes[1]
	m.start()
	c.eventually("the node runs alone", func([]control.Status) bool { return true }, m)
	m.kill()
	m.edit(func(conf *config.Config) { conf.Contract.ID = c.nodes[0].conf.Contract.ID })
	if err := m.refusal(); !strings.Contains(err, "mistyped") || !strings.Contains(err, "remove the node's ledger_fs") {
		t.Errorf("the node ended with: %s", err)
	}
	if err := os.RemoveAll(config.Layout(m.dir).LedgerFS()); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.nodes {
		m.start()
	}
	c.inStep("ledgers close", 2, c.nodes...)
}
