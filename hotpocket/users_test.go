package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/key"
	"evernode/sdk/client"
)

// user is a user of a cluster, connected to one of its nodes.
type user struct {
	t *testing.T
	*client.Client
	outputs chan client.Output
}

func (m *member) user() *user {
	m.c.t.Helper()
	k, err := client.GenerateKey()
	if err != nil {
		m.c.t.Fatal(err)
	}
	return m.userWith(k)
}

func (m *member) userWith(k key.Private) *user {
	m.c.t.Helper()
	var err error
	u := &user{t: m.c.t, outputs: make(chan client.Output, 1024)}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	u.Client, err = client.Connect(ctx, client.Options{
		Servers:     []string{fmt.Sprintf("wss://127.0.0.1:%d", m.conf.User.Port)},
		Key:         k,
		Protocol:    client.BSON,
		GiveUpAfter: -1,
		Handler:     client.Handler{Output: func(o client.Output) { u.outputs <- o }},
	})
	if err != nil {
		m.c.t.Fatal(err)
	}
	m.c.t.Cleanup(u.Close)
	return u
}

// do submits an input and waits until it is in a ledger.
func (u *user) do(input string, opts ...client.SubmitOption) (client.LedgerRef, error) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := u.Submit(ctx, []byte(input), opts...)
	if err != nil {
		return client.LedgerRef{}, err
	}
	return s.Wait(ctx)
}

// must is do with one output, which must be as wanted.
func (u *user) must(input, want string) client.LedgerRef {
	u.t.Helper()
	ref, err := u.do(input)
	if err != nil {
		u.t.Fatalf("%s: %v", input, err)
	}
	if got := u.output(); got != want {
		u.t.Fatalf("%s: output %q, want %q", input, got, want)
	}
	return ref
}

func (u *user) output() string {
	u.t.Helper()
	select {
	case o := <-u.outputs:
		var all []string
		for _, b := range o.Outputs {
			all = append(all, string(b))
		}
		return strings.Join(all, "|")
	case <-time.After(20 * time.Second):
		u.t.Fatal("no output within 20 s")
		return ""
	}
}

func (u *user) read(what string) string {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b, err := u.Read(ctx, []byte(what))
	if err != nil {
		u.t.Fatalf("read %s: %v", what, err)
	}
	return string(b)
}

// reconnected waits until the client has found its node again.
func (u *user) reconnected() {
	u.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(u.Nodes()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			u.t.Fatal("the client does not find its node again")
		}
	}
}

func buildGo(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "contract")
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, b)
	}
	return out
}

func TestUsersShareOneState(t *testing.T) {
	c := newCluster(t, 4, buildGo(t, "../examples/kvstore"), nil)
	c.inStep("ledgers close", 1, c.nodes...)
	ann, bob := c.nodes[0].user(), c.nodes[2].user()
	ann.must("set a 1", "ok")
	bob.must("get a", "1")
	bob.must("set b 2", "ok")
	ann.must("get b", "2")

	// A node that was away gets the state from the others.
	c.nodes[3].kill()
	for i := range 20 {
		ann.must(fmt.Sprintf("set k%d %d", i, i), "ok")
	}
	c.nodes[3].start()
	at := c.inStep("the fourth has the state", 0, c.nodes...)
	if got := c.nodes[3].user().read("get k19"); got != "19" {
		t.Errorf("the node that was away reads %q", got)
	}

	// So does one that has lost everything but its keys.
	c.nodes[3].kill()
	layout := config.Layout(c.nodes[3].dir)
	for _, d := range []string{layout.ContractFS(), layout.LedgerFS()} {
		if err := os.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
	}
	c.nodes[3].start()
	c.inStep("the fourth begins anew", at, c.nodes...)
	if got := c.nodes[3].user().read("get k19"); got != "19" {
		t.Errorf("the node that lost everything reads %q", got)
	}
	bob.must("get k3", "3")
}

func TestInputsAreTurnedAwayWithTheirReason(t *testing.T) {
	c := newCluster(t, 1, buildGo(t, "../examples/kvstore"), nil)
	c.inStep("ledgers close", 1, c.nodes...)
	u := c.nodes[0].user()
	ctx := context.Background()
	last, err := u.LastLedger(ctx)
	if err != nil {
		t.Fatal(err)
	}
	reject := func(want string, opts ...client.SubmitOption) {
		t.Helper()
		_, err := u.do("get a", opts...)
		var r *client.RejectedError
		if !errors.As(err, &r) || r.Reason != want {
			t.Errorf("%v, want rejection %s", err, want)
		}
	}
	reject("max_ledger_offset_exceeded", client.WithMaxLedger(last.SeqNo+1000))
	reject("max_ledger_expired", client.WithMaxLedger(last.SeqNo))
	if _, err := u.do("get a", client.WithNonce(100)); err != nil {
		t.Fatal(err)
	}
	reject("nonce_expired", client.WithNonce(99))
	// Nonces survive a restart: nothing can be replayed.
	c.nodes[0].kill()
	c.nodes[0].start()
	c.inStep("the node is back", last.SeqNo+2, c.nodes...)
	u.reconnected()
	reject("nonce_expired", client.WithNonce(99))
}

func TestMembersWithDifferentResults(t *testing.T) {
	// The contract writes what its node-private file says.
	script := filepath.Join(t.TempDir(), "contract")
	src := "#!/bin/sh\ncat ../private >> seen 2>/dev/null\nexit 0\n"
	if err := os.WriteFile(script, []byte(src), 0o755); err != nil {
		t.Fatal(err)
	}
	env := func(conf *config.Config) {
		conf.Contract.Environment = config.Environment{{Name: "PATH", Value: "/usr/bin:/bin"}}
	}
	c := newCluster(t, 4, script, env)
	at := c.inStep("ledgers close", 2, c.nodes...)
	write := func(m *member, what string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(config.Layout(m.dir).Mount(), "rw", "private"), []byte(what), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	write(c.nodes[1], "x")
	c.eventually("a minority of one is put right again and again, and the others go on", func(all []control.Status) bool {
		for i, s := range all {
			if s.LedgerSeqNo < at+6 || i != 1 && s.VoteStatus != voteSynced || (s.Diverged > 0) != (i == 1) {
				return false
			}
		}
		return all[0].StateHash == all[2].StateHash && all[0].StateHash == all[3].StateHash
	}, c.nodes...)
	write(c.nodes[1], "")
	at = c.inStep("the minority is cured", at+8, c.nodes...)

	for i, m := range c.nodes {
		write(m, strings.Repeat("y", i+1))
	}
	// Every run differs now: each is declared failed and undone, and the chain
	// goes on.
	c.inStep("ledgers close without any common result", at+5, c.nodes...)
	c.eventually("every node knows that runs failed", func(all []control.Status) bool {
		for _, s := range all {
			if s.FailedRuns < 2 {
				return false
			}
		}
		return true
	}, c.nodes...)
	for _, m := range c.nodes {
		write(m, "")
	}
	c.inStep("the contract is deterministic again", at+9, c.nodes...)
}
