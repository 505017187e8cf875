package hotpocket

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/consensus"
	"evernode/hotpocket/key"
	"evernode/hotpocket/ledger"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// group is some members with their keys, in the order of a UNL.
type group []key.Private

func newGroup(t testing.TB, n int) group {
	t.Helper()
	var g group
	for i := range n {
		seed := make([]byte, 32)
		seed[0], seed[1] = byte(i), byte(n)
		k, err := key.FromSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		g = append(g, k)
	}
	slices.SortFunc(g, func(a, b key.Private) int { return a.Public().Compare(b.Public()) })
	return g
}

// patch returns a configuration with these members and its patch.cfg.
func (g group) patch() (*config.Config, []byte) {
	c := config.New(g[0], "test")
	c.Contract.BinPath = "x"
	c.Contract.UNL = nil
	for _, k := range g {
		c.Contract.UNL = append(c.Contract.UNL, k.Public())
	}
	return c, c.Contract.Patch.Text()
}

// certify signs a ledger as members do. The bytes are those of a commit in
// attempt 0, see package consensus.
func (g group) certify(h *consensus.Header, q int) (c consensus.Certificate) {
	chain, hash := consensus.ChainOf("test"), h.Hash()
	b := append([]byte("evernode hotpocket consensus signature v1\xff"), 2)
	b = append(b, chain[:]...)
	b = append(b, 2)
	b = wire.AppendU64(b, h.Height)
	b = wire.AppendU32(b, 0)
	b = append(b, hash[:]...)
	for _, k := range g[:q] {
		c.Commits = append(c.Commits, consensus.Signed{Author: k.Public(), Sig: k.Sign(b)})
	}
	return c
}

// changeOf makes a ledger that replaces the members g by others.
func (g group) changeOf(height uint64, next group) *change {
	_, old := g.patch()
	_, new := next.patch()
	c := &change{old: old, next: new}
	c.before = consensus.Header{Height: height - 1, Time: height - 1, Outcome: consensus.Pending, Result: consensus.Result{Patch: statefs.HashPatch(old)}}
	c.ledger.Header = consensus.Header{
		Height: height, Time: height, Prev: c.before.Hash(), Outcome: consensus.Agreed,
		Result: consensus.Result{Patch: statefs.HashPatch(new)},
	}
	c.ledger.Certificate = g.certify(&c.ledger.Header, consensus.Quorum(len(g), config.DefaultThreshold))
	return c
}

func TestChangeProvesItself(t *testing.T) {
	g, next, liars := newGroup(t, 4), newGroup(t, 5), newGroup(t, 6)
	base, _ := g.patch()
	v := key.NewCache(64)
	good := g.changeOf(10, next)
	back, err := decodeChange(good.encode())
	if err != nil {
		t.Fatal(err)
	}
	old, now, err := back.verify(v, base)
	if err != nil || len(old.Members) != 4 || len(now.Members) != 5 {
		t.Fatalf("%d and %d members, %v", len(old.Members), len(now.Members), err)
	}
	for name, x := range map[string]struct {
		spoil func(*change)
		want  string
	}{
		"signed by too few":       {func(c *change) { c.ledger.Certificate = g.certify(&c.ledger.Header, 2) }, "2 commits, want 3"},
		"signed by the next ones": {func(c *change) { c.ledger.Certificate = next.certify(&c.ledger.Header, 4) }, "not in the UNL"},
		"other members before":    {func(c *change) { _, c.old = liars.patch() }, "another patch.cfg"},
		"other members after":     {func(c *change) { _, c.next = liars.patch() }, "another patch.cfg"},
		"another ledger before":   {func(c *change) { c.before.Time++ }, "does not follow"},
		"a ledger in between":     {func(c *change) { c.before.Height-- }, "does not follow"},
		"a ledger nobody signed":  {func(c *change) { c.ledger.Header.Time++ }, "wrong signature"},
		"nothing changes":         {func(c *change) { *c = *g.changeOf(10, g) }, "nothing changes"},
		"no configuration at all": {func(c *change) { c.before = consensus.Header{} }, "does not follow"},
		"the first ledger of all": {func(c *change) {
			c.before, c.ledger.Header.Height, c.ledger.Header.Prev = consensus.Header{}, 1, digest.Hash{}
		}, "does not follow"},
		"a patch.cfg of no meaning": {func(c *change) {
			c.next = []byte("{}")
			c.ledger.Header.Result.Patch = statefs.HashPatch(c.next)
			c.ledger.Certificate = g.certify(&c.ledger.Header, 3)
		}, "is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			c := *good
			x.spoil(&c)
			if _, _, err := c.verify(v, base); err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%v, want %q", err, x.want)
			}
		})
	}
}

func TestChangesOutlastRestarts(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	dir := filepath.Join(t.TempDir(), "changes")
	c, err := openChanges(dir, 0, log)
	if err != nil {
		t.Fatal(err)
	}
	groups := []group{newGroup(t, 3), newGroup(t, 4), newGroup(t, 5), newGroup(t, 6)}
	var all []*change
	for i := range 3 {
		all = append(all, groups[i].changeOf(uint64(10*(i+1)), groups[i+1]))
	}
	// In any order, as they are fetched; and again.
	for _, i := range []int{2, 0, 1, 1} {
		if err := c.add(all[i]); err != nil {
			t.Fatal(err)
		}
	}
	var want digest.Hash
	for i, x := range all {
		if got := c.upTo(uint64(10*(i+1)) - 1); got != want {
			t.Errorf("before ledger %d: %s, want %s", 10*(i+1), got, want)
		}
		h := x.ledger.Header.Hash()
		want = digest.Tagged(changesTag, want[:], h[:])
		if got := c.upTo(uint64(10 * (i + 1))); got != want {
			t.Errorf("after ledger %d: %s, want %s", 10*(i+1), got, want)
		}
	}
	heights := func(c *changes, after, last uint64) (out []uint64) {
		b, err := c.page(after, last)
		if err != nil {
			t.Fatal(err)
		}
		page, err := decodeChanges(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range page {
			out = append(out, x.ledger.Header.Height)
		}
		return out
	}
	for _, x := range []struct {
		after, last uint64
		want        []uint64
	}{{0, 100, []uint64{10, 20, 30}}, {9, 100, []uint64{10, 20, 30}}, {10, 100, []uint64{20, 30}}, {10, 29, []uint64{20}}, {30, 100, nil}, {0, 9, nil}} {
		if got := heights(c, x.after, x.last); !slices.Equal(got, x.want) {
			t.Errorf("after %d up to %d: %v, want %v", x.after, x.last, got, x.want)
		}
	}
	// What is newer than the last durable ledger, and half-written files, go.
	if err := os.WriteFile(filepath.Join(dir, ".00000000000000000040.123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openChanges(dir, 29, log)
	if err != nil {
		t.Fatal(err)
	}
	if got := heights(again, 0, 100); !slices.Equal(got, []uint64{10, 20}) {
		t.Errorf("after a restart: %v", got)
	}
	if again.upTo(100) != c.upTo(20) {
		t.Error("another hash after a restart")
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("%d files are left", len(files))
	}
	// Another ledger of the same height takes its place.
	other := groups[1].changeOf(20, groups[3])
	if err := again.add(other); err != nil || again.upTo(20) == c.upTo(20) {
		t.Errorf("replaced: %v", err)
	}
}

func TestAttestationsAreFreshAndBound(t *testing.T) {
	k, other := newGroup(t, 2)[0], newGroup(t, 2)[1]
	chain := consensus.ChainOf("test")
	c, err := newChallenge()
	if err != nil {
		t.Fatal(err)
	}
	a := attestation{height: 7, ledger: digest.Sum([]byte("ledger")), changes: digest.Sum([]byte("changes"))}
	a.sig = k.Sign(a.signed(chain, c, k.Public()))
	a, err = decodeAttestation(a.encode())
	if err != nil {
		t.Fatal(err)
	}
	good := func(a attestation, chain digest.Hash, c challenge, author key.Public) bool {
		return author.Verify(a.signed(chain, c, author), a.sig[:])
	}
	if !good(a, chain, c, k.Public()) {
		t.Fatal("the attestation itself is refused")
	}
	later, stale := a, c
	later.height++
	stale[3]++
	fewer, wrong := a, a
	fewer.changes = digest.Hash{}
	wrong.ledger[0]++
	for name, ok := range map[string]bool{
		"another height":    good(later, chain, c, k.Public()),
		"another ledger":    good(wrong, chain, c, k.Public()),
		"other changes":     good(fewer, chain, c, k.Public()),
		"another challenge": good(a, chain, stale, k.Public()),
		"another contract":  good(a, consensus.ChainOf("other"), c, k.Public()),
		"another author":    good(a, chain, c, other.Public()),
	} {
		if ok {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzChange(f *testing.F) {
	good := newGroup(f, 2).changeOf(10, newGroup(f, 3)).encode()
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{changeVersion, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeChange(b)
		if err == nil && !bytes.Equal(c.encode(), b) {
			t.Error("another encoding")
		}
		if _, err := decodeChanges(b); err == nil && len(b) > 0 && len(b) < 5 {
			t.Error("too short to be any")
		}
	})
}

func FuzzAttestation(f *testing.F) {
	q := attestRequest{relayed: true, member: newGroup(f, 1)[0].Public(), height: 9}
	a := attestation{height: 3}
	h := consensus.Header{Height: 1, Outcome: consensus.Agreed}
	none := consensus.Header{}
	f.Add(q.encode())
	f.Add(a.encode())
	f.Add(wire.AppendBytes(wire.AppendBytes(nil, none.Append(nil)), consensus.AppendLedger(nil, &h, &consensus.Certificate{})))
	f.Add(wire.AppendBytes(nil, consensus.AppendLedger(nil, &h, &consensus.Certificate{})))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeAttestRequest(b); err == nil && !bytes.Equal(q.encode(), b) {
			t.Error("another encoding of a request")
		}
		if a, err := decodeAttestation(b); err == nil && !bytes.Equal(a.encode(), b) {
			t.Error("another encoding of an attestation")
		}
		if x, err := decodeTip(b); err == nil && x.ledger.Header.Height != x.before.Height+1 {
			t.Error("a tip that does not follow")
		}
		for _, height := range []uint64{1, 2} {
			if x, err := decodePair(b, height); err == nil && x.ledger.Header.Height != height {
				t.Error("another ledger than asked for")
			}
		}
	})
}

// After heartbeats and failed runs the last agreed state is still known.
func TestConfirmedLooksBack(t *testing.T) {
	store, _, err := ledger.Open(context.Background(), filepath.Join(t.TempDir(), "store"), ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	n := &node{store: store}
	var prev digest.Hash
	var last consensus.Header
	add := func(o consensus.Outcome, run uint64, state string) {
		t.Helper()
		last = consensus.Header{Height: last.Height + 1, Prev: prev, Time: last.Time + 1, Outcome: o, Run: run}
		if state != "" {
			last.Result = consensus.Result{State: digest.Sum([]byte(state)), Patch: digest.Sum([]byte("patch"))}
		}
		prev = last.Hash()
		_, err := store.AppendLedger(ledger.Record{Seq: last.Height, Hash: prev, Prev: last.Prev, Time: last.Time,
			Body: consensus.AppendLedger(nil, &last, &consensus.Certificate{})})
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(run uint64, state string) {
		t.Helper()
		got, err := n.confirmed(&last)
		if err != nil {
			t.Fatal(err)
		}
		if state == "" && got != nil || state != "" && (got == nil || got.Seq != run || got.Root != digest.Sum([]byte(state))) {
			t.Errorf("after ledger %d: %v, want the state %q of run %d", last.Height, got, state, run)
		}
	}
	expect(0, "")
	add(consensus.Pending, 0, "")
	expect(0, "")
	add(consensus.Agreed, 0, "first")
	expect(0, "first")
	add(consensus.Agreed, 2, "second")
	add(consensus.Pending, 3, "second")
	add(consensus.Pending, 3, "second")
	expect(2, "second")
	add(consensus.Failed, 3, "second")
	expect(2, "second")
	add(consensus.Pending, 6, "second")
	expect(2, "second")
}

// A node that comes back is shown another chain with the same id, further ahead.
func TestReturningNodeIsNotLedAstray(t *testing.T) {
	c := makeCluster(t, 4, 4, trial(t), func(_ int, conf *config.Config) { public(conf) })
	c.tune.leapFrom = 2
	liars := makeCluster(t, 2, 2, trial(t), func(_ int, conf *config.Config) {
		public(conf)
		conf.Contract.ID = c.nodes[0].conf.Contract.ID
		conf.Contract.Consensus.Roundtime = 50 * time.Millisecond
	})
	for _, m := range append(slices.Clone(c.nodes), liars.nodes...) {
		m.start()
	}
	at := c.inStep("ledgers close", 2, c.nodes...)
	m := c.nodes[3]
	m.kill()
	before, err := config.Load(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	// The liars even have changed their members, which is signed as it should be, by
	// themselves.
	u := liars.nodes[0].user()
	u.must("add "+m.key().String(), "ok add "+m.key().String())
	liars.inStep("the liars are far ahead", at+20, liars.nodes...)
	m.edit(func(conf *config.Config) {
		conf.Mesh.KnownPeers = []string{liars.nodes[0].address(), liars.nodes[1].address()}
	})
	m.start()
	for deadline := time.Now().Add(20 * time.Second); !m.log.has("cannot be had yet"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the node does not say that it cannot catch up")
		}
	}
	s, ok := m.status()
	if !ok || len(s.UNL) != 4 || s.LedgerSeqNo > at+10 {
		t.Errorf("the node went along: %+v", s)
	}
	m.kill()
	m.edit(func(conf *config.Config) { conf.Mesh.KnownPeers = before.Mesh.KnownPeers })
	m.start()
	c.inStep("among its own it goes on", at+4, c.nodes...)
	c.healthy(c.nodes...)
}
