package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/key"
)

// newcomer makes the folder of a node that knows a contract id, one address and
// some keys, and nothing else. It is not started.
func (c *cluster) newcomer(name string, peer *member, trusted ...key.Public) *member {
	c.t.Helper()
	dir := filepath.Join(filepath.Dir(c.nodes[0].dir), name)
	conf, err := config.Create(dir, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	conf.Mesh.Port, conf.User.Port = freePort(c.t), freePort(c.t)
	conf.Contract.ID = c.nodes[0].conf.Contract.ID
	conf.Contract.UNL = trusted
	conf.Mesh.KnownPeers = []string{peer.address()}
	conf.Node.History = c.nodes[0].conf.Node.History
	if err := conf.Save(dir); err != nil {
		c.t.Fatal(err)
	}
	m := &member{c: c, dir: dir, conf: conf}
	c.t.Cleanup(m.kill)
	return m
}

func (m *member) address() string { return net.JoinHostPort("127.0.0.1", itoa(m.conf.Mesh.Port)) }

func (m *member) key() key.Public { return m.conf.Node.PublicKey }

func public(conf *config.Config) {
	full(conf)
	conf.Contract.Consensus.Mode = "public"
	conf.Contract.Consensus.Roundtime = 300 * time.Millisecond
}

// unl waits until all nodes have this UNL.
func (c *cluster) unl(what string, want []*member, of ...*member) {
	c.t.Helper()
	var keys []string
	for _, m := range want {
		keys = append(keys, m.key().String())
	}
	slices.Sort(keys)
	c.eventually(what, func(all []control.Status) bool {
		for _, s := range all {
			slices.Sort(s.UNL)
			if !slices.Equal(s.UNL, keys) {
				return false
			}
		}
		return true
	}, of...)
}

// A node that knows the contract's id, one address and one key joins under load,
// without a ledger of the past, becomes a member when the contract says so, and
// counts as one.
func TestJoinWithMinimalKnowledge(t *testing.T) {
	c := newCluster(t, 4, trial(t), public)
	c.inStep("ledgers close", 2, c.nodes...)
	stop := make(chan struct{})
	wait := c.traffic(stop, c.nodes...)
	u := c.nodes[0].user()
	for i := range 5 {
		u.must(fmt.Sprintf("before %d", i), fmt.Sprintf("ok before %d", i))
	}
	before, _ := c.nodes[0].status()

	// The address is that of another node than the key.
	x := c.newcomer("x", c.nodes[1], c.nodes[2].key())
	x.start()
	c.inStep("the newcomer follows", before.LedgerSeqNo+3, append(c.nodes, x)...)
	if !x.log.has("joined the chain") || !x.log.has("vouched="+c.nodes[2].key().String()) {
		t.Error("the newcomer does not say on whose word it has joined")
	}
	s, _ := x.status()
	if len(s.UNL) != 4 || s.Peers < 4 {
		t.Errorf("the newcomer knows %d members and has %d peers", len(s.UNL), s.Peers)
	}
	// It has nothing of what was before, and has not executed it.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if old, err := x.user().Ledger(ctx, 1, false, false); err == nil {
		t.Errorf("the newcomer has ledger 1: %+v", old)
	}
	if conf, err := config.Load(x.dir); err != nil || conf.Contract.BinPath != "./contract" || len(conf.Contract.UNL) != 4 {
		t.Errorf("the newcomer's hp.cfg: %v", err)
	}

	u.must("add "+x.key().String(), "ok add "+x.key().String())
	all := append(slices.Clone(c.nodes), x)
	c.unl("it is a member", all, all...)
	at := c.inStep("five members go on", 0, all...)
	// Four of five have to agree now: without the newcomer's votes they could not.
	c.nodes[3].kill()
	at = c.inStep("the newcomer's votes count", at+4, c.nodes[0], c.nodes[1], c.nodes[2], x)
	c.nodes[3].start()
	c.inStep("the fifth is back", at+2, all...)
	close(stop)
	fates := wait()
	x.kill()
	x.start()
	c.inStep("the newcomer restarts as one of them", at+4, all...)
	if x.log.has("joined the chain") {
		t.Error("a node that has joined joins again")
	}
	c.healthy(all...)
	c.verify(fates, c.nodes...)
	// Every input once, and in the order of the others.
	if got, want := x.user().read("log"), c.nodes[0].user().read("log"); got != want {
		t.Errorf("the newcomer has executed other inputs: %d bytes instead of %d", len(got), len(want))
	}
}

// Members are replaced one by one until none of the first is left. Then a
// newcomer still verifies the chain, and so does a first member that comes back
// after it was away during all changes.
func TestAllMembersAreReplaced(t *testing.T) {
	for _, leap := range []uint64{0, 2} {
		t.Run(fmt.Sprintf("leap %d", leap), func(t *testing.T) {
			c := makeCluster(t, 4, 4, trial(t), func(_ int, conf *config.Config) { public(conf) })
			c.tune.leapFrom = leap
			for _, m := range c.nodes {
				m.start()
			}
			c.inStep("ledgers close", 2, c.nodes...)
			// The one that will have been away for long goes first.
			absent := c.nodes[3]
			absent.kill()
			c.nodes[0].user().must("first", "ok first")

			members := slices.Clone(c.nodes[:3])
			unl := slices.Clone(c.nodes)
			for i := range 4 {
				x := c.newcomer(fmt.Sprintf("new%d", i), members[0], members[len(members)-1].key())
				x.start()
				c.inStep("a newcomer follows", 1, append(members, x)...)
				u := x.user()
				u.must("add "+x.key().String(), "ok add "+x.key().String())
				unl = append(unl, x)
				members = append(members, x)
				c.unl("it is a member", unl, members...)
				// The absent one goes first, then the oldest.
				gone := unl[0]
				if i == 0 {
					gone = absent
				}
				u.must("remove "+gone.key().String(), "ok remove "+gone.key().String())
				isGone := func(m *member) bool { return m == gone }
				unl = slices.DeleteFunc(unl, isGone)
				c.unl("one has left", unl, members...)
				members = slices.DeleteFunc(members, isGone)
				if leap > 0 || gone == absent {
					gone.kill() // otherwise it stays as one who has all ledgers
				}
			}
			at := c.inStep("the new ones go on among themselves", 0, members...)
			last := c.newcomer("last", members[1], members[2].key())
			last.start()
			c.inStep("a last newcomer follows", at+1, append(members, last)...)

			// The absent one knows the first members only, and one address.
			absent.edit(func(conf *config.Config) { conf.Mesh.KnownPeers = []string{last.address()} })
			absent.start()
			at = c.inStep("who was away verifies all changes", at+2, append(members, last, absent)...)
			if leapt := absent.log.has("left out"); leapt != (leap > 0) {
				t.Errorf("ledgers were left out: %v", leapt)
			}
			// It has the changes, too, and so does who joined last: eight.
			for _, m := range []*member{absent, last, members[0]} {
				files, err := os.ReadDir(filepath.Join(config.Layout(m.dir).LedgerFS(), "changes"))
				if err != nil || len(files) != 8 {
					t.Errorf("node %s keeps %d changes of the members: %v", filepath.Base(m.dir), len(files), err)
				}
			}
			c.inStep("all go on", at+2, append(members, last, absent)...)
			c.healthy(append(members, last, absent)...)
		})
	}
}

// With almost no history kept anywhere, newcomers join, and who was away comes
// back.
func TestJoinWithPrunedHistory(t *testing.T) {
	c := makeCluster(t, 4, 4, trial(t), func(_ int, conf *config.Config) {
		public(conf)
		conf.Node.History = "custom"
		conf.Contract.Consensus.Roundtime = 100 * time.Millisecond
	})
	c.tune.primaryShard = 8
	for _, m := range c.nodes {
		m.start()
	}
	c.inStep("ledgers close", 2, c.nodes...)
	c.nodes[0].user().must("remember", "ok remember")
	c.nodes[3].kill()
	at := c.inStep("time passes", 0, c.nodes[:3]...)
	at = c.inStep("history goes", at+20, c.nodes[:3]...)
	x := c.newcomer("x", c.nodes[0], c.nodes[0].key())
	x.start()
	all := append(slices.Clone(c.nodes[:3]), x)
	at = c.inStep("a newcomer follows", at+2, all...)
	c.nodes[3].start()
	all = append(all, c.nodes[3])
	c.inStep("who was away is back without the ledgers that nobody has", at+2, all...)
	if !c.nodes[3].log.has("left out") {
		t.Error("the ledgers were there after all")
	}
	if got := x.user().read("log"); !strings.Contains(got, "remember") {
		t.Errorf("the newcomer's state: %s", got)
	}
	c.healthy(all...)
}

// What cannot be joined is refused, with a reason that helps.
func TestJoinRefusals(t *testing.T) {
	c := newCluster(t, 3, trial(t), public)
	c.inStep("ledgers close", 2, c.nodes...)
	// Somebody else runs a chain of his own under the same contract id, and gives
	// its address to newcomers.
	liars := makeCluster(t, 1, 1, trial(t), func(_ int, conf *config.Config) {
		public(conf)
		conf.Contract.ID = c.nodes[0].conf.Contract.ID
	})
	liars.nodes[0].start()
	liars.inStep("the liar's ledgers close", 2, liars.nodes...)
	other := newCluster(t, 1, trial(t), public)
	stranger, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name    string
		peer    *member
		trusted []key.Public
		want    []string
	}{
		{"liar", liars.nodes[0], []key.Public{c.nodes[0].key()}, []string{c.nodes[0].key().String() + " is none", "Check the key"}},
		{"stranger", c.nodes[0], []key.Public{stranger.Public()}, []string{stranger.Public().String() + " is none", "3 members"}},
		{"too-few", c.nodes[0], []key.Public{c.nodes[0].key(), stranger.Public()}, []string{"1 of the 2 trusted members", "2 have to"}},
		{"other-contract", other.nodes[0], []key.Public{other.nodes[0].key()}, []string{"another contract id", other.nodes[0].address()}},
	} {
		t.Run(x.name, func(t *testing.T) {
			m := c.newcomer(x.name, x.peer, x.trusted...)
			got := m.refusal()
			for _, want := range x.want {
				if !strings.Contains(got, want) {
					t.Errorf("the node ended with: %s\nwithout: %s", got, want)
				}
			}
		})
	}
	t.Run("nothing answers", func(t *testing.T) {
		m := c.newcomer("nothing", c.nodes[0], c.nodes[0].key())
		m.conf.Mesh.KnownPeers = []string{net.JoinHostPort("127.0.0.1", itoa(freePort(t)))}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := Seek(ctx, m.conf, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), m.conf.Mesh.KnownPeers[0]+": dial tcp") {
			t.Errorf("Seek: %v", err)
		}
		var no *RefusedError
		if errors.As(err, &no) {
			t.Error("a peer that may come yet counts as a refusal")
		}
	})
	t.Run("found", func(t *testing.T) {
		m := c.newcomer("found", c.nodes[1], c.nodes[0].key(), c.nodes[2].key(), stranger.Public())
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		f, err := Seek(ctx, m.conf, slog.New(slog.DiscardHandler))
		if err != nil || f.Ledger == 0 || len(f.Members) != 3 || f.Quorum != 2 || len(f.Vouched) != 2 {
			t.Errorf("Seek: %+v, %v", f, err)
		}
	})
}

// A node whose private file makes the contract do something else there is put
// right, says so everywhere, and is in step again at once.
func TestWrongResult(t *testing.T) {
	c := makeCluster(t, 4, 4, trial(t), func(i int, conf *config.Config) { public(conf) })
	for i, m := range c.nodes {
		text := "same"
		if i == 2 {
			text = "different"
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(config.Layout(m.dir).SeedState()), "private"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		m.metrics = net.JoinHostPort("127.0.0.1", itoa(freePort(t)))
		m.start()
	}
	c.inStep("ledgers close", 2, c.nodes...)
	odd := c.nodes[2]
	u, v := c.nodes[0].user(), odd.user()
	ref := u.must("copy ../private", "ok copy ../private")
	c.eventually("the odd one notices", func(all []control.Status) bool { return all[0].Diverged == 1 }, odd)
	all := c.inStepStatus("it is in step again", ref.SeqNo+2, c.nodes...)
	if at := all[2].LedgerSeqNo; at > ref.SeqNo+12 {
		t.Errorf("the result of ledger %d was undone; in step at ledger %d only", ref.SeqNo, at)
	}
	if got := v.read("log"); !strings.Contains(got, "copy ../private") {
		t.Errorf("the state that was fetched: %s", got)
	}
	if !odd.log.has("is the contract deterministic?") {
		t.Error("the log has no hint")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for i, u := range []*user{v, u} {
		stat, err := u.Status(ctx)
		if err != nil || stat.DivergedRuns != uint64(1-i) {
			t.Errorf("stat of user %d: diverged %d, %v", i, stat.DivergedRuns, err)
		}
	}
	got := odd.scrape()
	for _, want := range []string{"\nevernode_runs_diverged_total 1\n", "\nevernode_state_syncs_total 1\n", `evernode_vote_status{status="synced"} 1`, "\nevernode_unl_members 4\n", "\nevernode_peers 3\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the metrics lack %s:\n%s", want, got)
		}
	}
	// It goes on as a full member: three have to agree.
	c.nodes[0].kill()
	v.must("goes on", "ok goes on")
	if s, _ := odd.status(); s.Diverged != 1 {
		t.Errorf("it differs again: %d", s.Diverged)
	}
}

// scrape returns what the node counts.
func (m *member) scrape() string {
	m.c.t.Helper()
	r, err := http.Get("http://" + m.metrics + "/metrics")
	if err != nil {
		m.c.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		m.c.t.Fatalf("metrics: %s, %v", r.Status, err)
	}
	return string(b)
}

func TestMetricsAreLocal(t *testing.T) {
	for _, bad := range []string{"9090", ":9090", "0.0.0.0:9090", "192.0.2.1:9090", "example.org:9090"} {
		if l, err := listenMetrics(t.Context(), bad); err == nil {
			l.Close()
			t.Errorf("%s is accepted", bad)
		}
	}
	for _, good := range []string{"127.0.0.1:0", "localhost:0"} {
		l, err := listenMetrics(t.Context(), good)
		if err != nil {
			t.Errorf("%s: %v", good, err)
			continue
		}
		l.Close()
	}
}

// A newcomer that reaches one node only, which is not the one that it trusts.
func TestJoinThroughOnePeer(t *testing.T) {
	c := newCluster(t, 3, trial(t), public)
	at := c.inStep("ledgers close", 2, c.nodes...)
	x := c.newcomer("x", c.nodes[0], c.nodes[1].key(), c.nodes[2].key())
	x.edit(func(conf *config.Config) { conf.Mesh.Listen, conf.Mesh.PeerDiscovery.Enabled = false, false })
	x.start()
	c.inStep("the newcomer follows", at+2, append(c.nodes, x)...)
	if s, _ := x.status(); s.Peers != 1 {
		t.Errorf("%d peers", s.Peers)
	}
}

// Nobody but members may follow a private contract; so the key comes first.
func TestJoinPrivateContract(t *testing.T) {
	c := newCluster(t, 3, trial(t), func(conf *config.Config) {
		public(conf)
		conf.Contract.Consensus.Mode = "private"
	})
	c.inStep("ledgers close", 2, c.nodes...)
	x := c.newcomer("x", c.nodes[0], c.nodes[1].key())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := Seek(ctx, x.conf, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrPrivate) || !strings.Contains(err.Error(), x.key().String()) {
		t.Errorf("Seek: %v", err)
	}
	x.start()
	c.eventually("the newcomer waits", func(all []control.Status) bool { return all[0].Peers == 3 }, x)
	if s, _ := x.status(); s.LedgerSeqNo != 0 {
		t.Errorf("the newcomer has ledger %d of a private contract", s.LedgerSeqNo)
	}
	u := c.nodes[0].user()
	u.must("add "+x.key().String(), "ok add "+x.key().String())
	all := append(slices.Clone(c.nodes), x)
	c.unl("it has joined as a member", all, all...)
	c.nodes[2].kill()
	at := c.inStep("three of four go on", 0, c.nodes[0], c.nodes[1], x)
	c.inStep("three of four go on", at+3, c.nodes[0], c.nodes[1], x)
}

// A node that ended before it had the agreed patch.cfg fetches it, and tells the
// operator what of an edited hp.cfg no longer counts.
func TestConfigurationFetchedAtTheStart(t *testing.T) {
	c := newCluster(t, 4, trial(t), public)
	c.inStep("ledgers close", 2, c.nodes...)
	m := c.nodes[3]
	m.kill()
	before := filepath.Join(t.TempDir(), "contract_fs")
	if err := os.CopyFS(before, os.DirFS(config.Layout(m.dir).ContractFS())); err != nil {
		t.Fatal(err)
	}
	m.start()
	c.inStep("it is back", 2, c.nodes...)
	c.nodes[0].user().must("roundtime 200", "ok roundtime 200")
	at := c.eventually("the change is in force", func([]control.Status) bool {
		conf, err := config.Load(m.dir)
		return err == nil && conf.Contract.Consensus.Roundtime == 200*time.Millisecond
	}, m)[0].LedgerSeqNo
	m.kill()
	// As if it had died when the ledger was written and nothing else.
	for _, dir := range []string{config.Layout(m.dir).ContractFS(), filepath.Join(config.Layout(m.dir).LedgerFS(), "patch")} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(config.Layout(m.dir).ContractFS(), os.DirFS(before)); err != nil {
		t.Fatal(err)
	}
	edited := m.edit(func(conf *config.Config) { conf.Contract.Consensus.Roundtime = 7 * time.Second })
	m.start()
	c.inStep("it goes on", at+2, c.nodes...)
	if !m.log.has("the agreed patch.cfg is not here") || !m.log.has(`fields=contract.consensus.roundtime`) {
		t.Error("the operator is not told")
	}
	if kept, err := os.ReadFile(config.Layout(m.dir).ConfigFile() + ".edited"); err != nil || string(kept) != string(edited) {
		t.Errorf("the operator's file was not kept: %v", err)
	}
}
