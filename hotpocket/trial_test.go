package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/key"
	"evernode/sdk/client"
)

// trial builds the contract of testdata/trial.
func trial(t *testing.T) string {
	t.Helper()
	return buildGo(t, "./testdata/trial")
}

// fate is what a user knows of an input.
type fate struct {
	user   key.Public
	text   string
	hash   client.Hash
	ref    client.LedgerRef
	err    error // nil: accepted
	excuse bool  // the node went away before it told
}

// send submits an input and waits for its status.
func (u *user) send(text string, wait time.Duration, opts ...client.SubmitOption) fate {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	f := fate{user: u.Public(), text: text}
	s, err := u.Submit(ctx, []byte(text), opts...)
	if err != nil {
		f.err = err
		f.excuse = true
		return f
	}
	f.hash = s.Hash
	f.ref, f.err = s.Wait(ctx)
	var r *client.RejectedError
	f.excuse = f.err != nil && !errors.As(f.err, &r) && !errors.Is(f.err, context.DeadlineExceeded) && !errors.Is(f.err, client.ErrNoStatus)
	return f
}

func (f *fate) line() string { return f.user.String()[:10] + " " + f.text }

// verify compares what users were told with the ledgers of all nodes and with
// what the contract has executed.
func (c *cluster) verify(fates []fate, of ...*member) {
	c.t.Helper()
	told := map[client.Hash]*fate{}
	for i := range fates {
		f := &fates[i]
		if f.err != nil && !f.excuse {
			var r *client.RejectedError
			if !errors.As(f.err, &r) {
				c.t.Errorf("input %q got no status: %v", f.text, f.err)
			}
		}
		if f.hash != (client.Hash{}) {
			told[f.hash] = f
		}
	}
	var first string
	hashes := map[uint64]client.Hash{}
	in := map[client.Hash]map[uint64]bool{}
	for i, m := range of {
		u := m.user()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		last, err := u.LastLedger(ctx)
		if err != nil {
			c.t.Fatal(err)
		}
		for seq := uint64(1); seq <= last.SeqNo; seq++ {
			l, err := u.Ledger(ctx, seq, true, false)
			if err != nil {
				c.t.Fatalf("ledger %d of node %d: %v", seq, i, err)
			}
			if l.SeqNo == 0 {
				continue
			}
			if old, ok := hashes[seq]; ok && old != l.Hash {
				c.t.Fatalf("FORK at ledger %d: %s and %s", seq, old, l.Hash)
			}
			hashes[seq] = l.Hash
			for _, x := range l.Inputs {
				if in[x.Hash] == nil {
					in[x.Hash] = map[uint64]bool{}
				}
				in[x.Hash][seq] = true
			}
		}
		cancel()
		// The last run may not be confirmed yet.
		log := u.read("log")
		for until := time.Now().Add(10 * time.Second); time.Now().Before(until) && slices.ContainsFunc(fates, func(f fate) bool {
			return f.err == nil && !strings.Contains(log, f.line()+"\n")
		}); log = u.read("log") {
			time.Sleep(50 * time.Millisecond)
		}
		if i == 0 {
			first = log
		} else if log != first {
			c.t.Errorf("nodes 0 and %d have executed different inputs", i)
		}
		u.Close()
	}
	executed := map[string]int{}
	for line := range strings.Lines(strings.TrimPrefix(first, "log:")) {
		executed[strings.TrimSuffix(line, "\n")]++
	}
	for hash, at := range in {
		if len(at) != 1 {
			c.t.Errorf("input %s is in %d ledgers: %v", hash, len(at), at)
		}
	}
	accepted := 0
	for _, f := range told {
		n := executed[f.line()]
		switch {
		case f.err == nil:
			accepted++
			if n != 1 {
				c.t.Errorf("input %q was accepted and executed %d times", f.text, n)
			}
			if !in[f.hash][f.ref.SeqNo] {
				c.t.Errorf("input %q was accepted in ledger %d, it is in %v", f.text, f.ref.SeqNo, in[f.hash])
			}
			if hashes[f.ref.SeqNo] != f.ref.Hash {
				c.t.Errorf("input %q was accepted in ledger %d %s, which is %s", f.text, f.ref.SeqNo, f.ref.Hash, hashes[f.ref.SeqNo])
			}
		case f.excuse:
			if n > 1 {
				c.t.Errorf("input %q was executed %d times", f.text, n)
			}
		default:
			if n != 0 {
				c.t.Errorf("input %q was rejected (%v) and executed %d times", f.text, f.err, n)
			}
		}
	}
	for line, n := range executed {
		if n > 1 {
			c.t.Errorf("%q was executed %d times", line, n)
		}
	}
	c.t.Logf("checked %d inputs, %d of them accepted, %d executed, %d ledgers", len(fates), accepted, len(executed), len(hashes))
}

// healthy fails the test when a node's result was ever not the agreed one.
func (c *cluster) healthy(of ...*member) {
	c.t.Helper()
	for i, m := range of {
		if s, ok := m.status(); !ok || s.Diverged > 0 || s.FailedRuns > 0 {
			c.t.Errorf("node %d: diverged %d, failed runs %d", i, s.Diverged, s.FailedRuns)
		}
	}
}

func full(conf *config.Config) { conf.Node.History = "full" }

func TestContractsThatMisbehave(t *testing.T) {
	c := newCluster(t, 4, trial(t), func(conf *config.Config) {
		full(conf)
		conf.Contract.Consensus.Roundtime = 300 * time.Millisecond
		conf.Contract.RoundLimits.ExecTimeout = 1200 * time.Millisecond
		conf.Contract.RoundLimits.UserOutputBytes = 1 << 20
	})
	c.inStep("ledgers close", 1, c.nodes...)
	bad, good := c.nodes[0].user(), c.nodes[2].user()
	var fates []fate
	for i, what := range []struct{ input, log string }{
		{"sleep 900", ""}, // heartbeats close meanwhile
		{"hang", "exec_timeout"},
		{"crash", "ended prematurely"},
		{"half", ""},
		{"flood", "user_output_bytes"},
		{"exit", "exit code"},
		{"patch-bad", "patch.cfg that cannot be used"},
		{"patch-gone", "patch.cfg that cannot be used"},
		{"patch-pipe", "patch.cfg that cannot be used"},
		{"patch-link", "patch.cfg that cannot be used"},
		{"patch-folder", "patch.cfg that cannot be used"},
	} {
		f := bad.send(what.input, 10*time.Second)
		if f.err != nil {
			t.Fatalf("%s: %v", what.input, f.err)
		}
		fates = append(fates, f)
		f = good.send(fmt.Sprintf("after %d", i), 10*time.Second)
		if f.err != nil {
			t.Fatalf("after %s: %v", what.input, f.err)
		}
		fates = append(fates, f)
		if got, want := good.output(), fmt.Sprintf("ok after %d", i); got != want {
			t.Fatalf("after %s: output %q, want %q", what.input, got, want)
		}
		for j, m := range c.nodes {
			if what.log != "" && !m.log.has(what.log) {
				t.Errorf("node %d does not say %q after %s", j, what.log, what.input)
			}
		}
	}
	c.inStep("all are in step", 0, c.nodes...)
	c.healthy(c.nodes...)
	c.verify(fates, c.nodes...)
}

func TestContractThatIsMissing(t *testing.T) {
	c := newCluster(t, 3, trial(t), func(conf *config.Config) {
		conf.Contract.BinPath = "./missing"
		conf.Contract.Consensus.Roundtime = 200 * time.Millisecond
	})
	c.inStep("ledgers close", 2, c.nodes...)
	if f := c.nodes[1].user().send("x", 10*time.Second); f.err != nil {
		t.Error(f.err)
	}
	c.inStep("and go on", 5, c.nodes...)
	c.healthy(c.nodes...)
	if !c.nodes[0].log.has("check contract.bin_path") {
		t.Error("the log does not say what to mend")
	}
}

// traffic has a user at each of some nodes send inputs until stop is closed.
func (c *cluster) traffic(stop <-chan struct{}, of ...*member) func() []fate {
	var mu sync.Mutex
	var all []fate
	var wg sync.WaitGroup
	for i, m := range of {
		u := m.user()
		for j := range 3 {
			wg.Go(func() {
				// Each of a user's senders must have nonces of its own order, so
				// nonces are given out under the lock.
				for k := 0; ; k++ {
					select {
					case <-stop:
						return
					case <-time.After(20 * time.Millisecond):
					}
					if len(u.Nodes()) == 0 {
						continue
					}
					f := u.send(fmt.Sprintf("%d-%d-%d", i, j, k), 15*time.Second)
					mu.Lock()
					all = append(all, f)
					mu.Unlock()
				}
			})
		}
	}
	return func() []fate {
		wg.Wait()
		return all
	}
}

func TestInputsThroughRestartsOfMinorities(t *testing.T) {
	c := newCluster(t, 4, trial(t), func(conf *config.Config) {
		full(conf)
		conf.Contract.Consensus.Roundtime = 300 * time.Millisecond
	})
	c.inStep("ledgers close", 1, c.nodes...)
	stop := make(chan struct{})
	wait := c.traffic(stop, c.nodes...)
	for range 5 {
		m := c.nodes[rand.IntN(len(c.nodes))]
		time.Sleep(time.Duration(200+rand.IntN(400)) * time.Millisecond)
		m.kill()
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
		m.start()
	}
	close(stop)
	fates := wait()
	for _, m := range c.nodes {
		m.kill()
	}
	for _, m := range c.nodes {
		m.start()
	}
	c.inStep("all are in step", 0, c.nodes...)
	c.healthy(c.nodes...)
	c.verify(fates, c.nodes...)
}

func TestConfigurationChangedByTheContract(t *testing.T) {
	// The fourth node is no member, and may follow.
	c := makeCluster(t, 4, 3, trial(t), func(_ int, conf *config.Config) {
		full(conf)
		conf.Contract.Consensus.Mode = "public"
		conf.Contract.Consensus.Roundtime = 300 * time.Millisecond
	})
	for _, m := range c.nodes {
		m.start()
	}
	c.inStep("ledgers close, also at a node that only follows", 2, c.nodes...)
	u := c.nodes[0].user()
	u.must("roundtime 200", "ok roundtime 200")
	members := func(n int) func([]control.Status) bool {
		return func(all []control.Status) bool {
			for _, s := range all {
				if len(s.UNL) != n || s.PatchHash != all[0].PatchHash || s.VoteStatus != voteSynced {
					return false
				}
			}
			return true
		}
	}
	spawned := c.nodes[3].conf.Node.PublicKey.String()
	u.must("add "+spawned, "ok add "+spawned)
	c.eventually("the fourth is a member", members(4), c.nodes...)
	c.nodes[0].kill()
	f := c.nodes[3].user().send("with the new one", 15*time.Second)
	if f.err != nil {
		t.Fatal(f.err)
	}
	c.nodes[0].start()
	at := c.inStep("three of four go on with the new one", 0, c.nodes...)
	u.reconnected()
	gone := c.nodes[1].conf.Node.PublicKey.String()
	u.must("remove "+gone, "ok remove "+gone)
	c.eventually("one is no member any more", members(3), c.nodes...)
	c.inStep("the chain goes on, and the former member follows", at+4, c.nodes...)
	for _, m := range c.nodes {
		m.kill()
	}
	for _, m := range c.nodes {
		m.start()
	}
	all := c.inStepStatus("all know the configuration after a restart", at+5, c.nodes...)
	for i, s := range all {
		if len(s.UNL) != 3 || slices.Contains(s.UNL, gone) {
			t.Errorf("node %d: UNL %v", i, s.UNL)
		}
	}
	c.healthy(c.nodes...)
}

func (c *cluster) inStepStatus(what string, seq uint64, of ...*member) []control.Status {
	c.t.Helper()
	c.inStep(what, seq, of...)
	var all []control.Status
	for _, m := range of {
		s, _ := m.status()
		all = append(all, s)
	}
	return all
}

func TestFollowersInPublicAndPrivateMode(t *testing.T) {
	for _, mode := range []string{"public", "private"} {
		t.Run(mode, func(t *testing.T) {
			c := makeCluster(t, 5, 4, trial(t), func(i int, conf *config.Config) {
				conf.Contract.Consensus.Mode = mode
				conf.Contract.Consensus.Roundtime = 200 * time.Millisecond
				if i == 3 {
					conf.Node.Role = "observer" // a member that takes no part
				}
			})
			for _, m := range c.nodes[:4] {
				m.start()
			}
			c.inStep("three members and an observer", 2, c.nodes[:4]...)
			c.nodes[4].start()
			u := c.nodes[0].user()
			u.must("hello", "ok hello")
			if mode == "public" {
				c.inStep("a stranger follows", 3, c.nodes...)
				// A user of a node that only follows is heard.
				if f := c.nodes[4].user().send("from outside", 10*time.Second); f.err != nil {
					t.Error(f.err)
				}
				return
			}
			at := c.inStep("members go on", 0, c.nodes[:4]...)
			c.inStep("members go on", at+4, c.nodes[:4]...)
			s, ok := c.nodes[4].status()
			if !ok || s.Peers == 0 {
				t.Fatalf("the stranger is not connected: %+v", s)
			}
			if s.LedgerSeqNo != 0 {
				t.Errorf("a stranger has ledger %d of a private chain", s.LedgerSeqNo)
			}
		})
	}
}

func TestLineOfNodes(t *testing.T) {
	c := makeCluster(t, 4, 4, trial(t), func(i int, conf *config.Config) {
		conf.Contract.Consensus.Roundtime = 300 * time.Millisecond
		conf.Mesh.PeerDiscovery.Enabled = false
		conf.Mesh.MsgForwarding = true
	})
	for i, m := range c.nodes {
		m.conf.Mesh.KnownPeers = nil
		if i > 0 {
			m.conf.Mesh.KnownPeers = []string{fmt.Sprintf("127.0.0.1:%d", c.nodes[i-1].conf.Mesh.Port)}
		}
		if err := m.conf.Save(m.dir); err != nil {
			t.Fatal(err)
		}
		m.start()
	}
	c.inStep("ledgers close along the line", 2, c.nodes...)
	ends := []*user{c.nodes[0].user(), c.nodes[3].user()}
	for i := range 3 {
		for _, u := range ends {
			u.must(fmt.Sprintf("x %d", i), fmt.Sprintf("ok x %d", i))
		}
	}
	for i, m := range c.nodes {
		if s, _ := m.status(); s.Peers > 2 {
			t.Errorf("node %d has %d peers: this is no line", i, s.Peers)
		}
	}
	c.inStep("in step", 0, c.nodes...)
	c.healthy(c.nodes...)
}

func TestOneInputThroughTwoNodes(t *testing.T) {
	c := newCluster(t, 3, trial(t), func(conf *config.Config) {
		full(conf)
		conf.Contract.Consensus.Roundtime = 300 * time.Millisecond
	})
	c.inStep("ledgers close", 1, c.nodes...)
	k, err := client.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.nodes[0].userWith(k), c.nodes[1].userWith(k)
	last, err := a.LastLedger(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var fates []fate
	for i := range 5 {
		// The same bytes, since signatures follow from key and content.
		opts := []client.SubmitOption{client.WithNonce(uint64(100 + i)), client.WithMaxLedger(last.SeqNo + 10)}
		last.SeqNo++
		text := fmt.Sprintf("twice %d", i)
		got := make([]fate, 2)
		var wg sync.WaitGroup
		for j, u := range []*user{a, b} {
			wg.Go(func() { got[j] = u.send(text, 10*time.Second, opts...) })
		}
		wg.Wait()
		for _, f := range got {
			var r *client.RejectedError
			if f.err != nil && (!errors.As(f.err, &r) || r.Reason != "already_submitted") {
				t.Errorf("%s: %v", text, f.err)
			}
		}
		if got[0].hash != got[1].hash {
			t.Fatal("not the same container")
		}
		if got[0].err == nil {
			fates = append(fates, got[0])
		} else {
			fates = append(fates, got[1])
		}
		if f := b.send(text, 10*time.Second, opts...); f.err == nil {
			t.Errorf("%s was accepted once more", text)
		}
	}
	if f := a.send("twice 0", 10*time.Second, client.WithNonce(100), client.WithMaxLedger(last.SeqNo+5)); f.err == nil {
		t.Error("an old nonce was accepted")
	}
	c.inStep("in step", 0, c.nodes...)
	c.verify(fates, c.nodes...)
}

func TestStopLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	c := newCluster(t, 3, trial(t), func(conf *config.Config) {
		conf.Contract.Consensus.Roundtime = 200 * time.Millisecond
	})
	c.inStep("ledgers close", 2, c.nodes...)
	u := c.nodes[0].user()
	u.must("x", "ok x")
	if f := u.send("sleep 3000", 10*time.Second); f.err != nil {
		t.Error(f.err)
	}
	u.Close()
	for _, m := range c.nodes {
		m.kill() // in the middle of a run
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if base := filepath.Dir(c.nodes[0].dir); strings.Contains(string(mounts), base) {
		t.Error("mounts are left behind")
	}
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines more than before:\n%s", n-before, buf[:runtime.Stack(buf, true)])
	}
}
