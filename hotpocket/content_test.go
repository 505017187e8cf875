package hotpocket

import (
	"fmt"
	"log/slog"
	"testing"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

func signed(user key.Private, nonce, maxLedger uint64) inputs.Submission {
	c := fmt.Appendf(nil, `{"input":"%d","nonce":%d,"max_ledger_seq_no":%d}`, nonce, nonce, maxLedger)
	return inputs.Submission{User: user.Public(), Container: c, Sig: user.Sign(c), Protocol: inputs.JSON}
}

func testBundle(t *testing.T, node, user key.Private, seq, maxLedger uint64) *inputs.Bundle {
	t.Helper()
	items := []inputs.Submission{signed(user, seq, maxLedger)}
	parsed, errs := inputs.Check(items, 1, nil)
	if errs != nil {
		t.Fatal(errs)
	}
	b, err := inputs.Pack(node, 1, seq, items, parsed)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newKey(t *testing.T) key.Private {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What a restart may need survives any number of heartbeats, and what is pending
// survives the cut; what neither needs is gone.
func TestContentSurvivesAsLongAsItIsNeeded(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	node, user := newKey(t), newKey(t)
	open := func() *content {
		t.Helper()
		c, err := openContent(dir, log)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	add := func(b *inputs.Bundle) digest.Hash {
		t.Helper()
		if err := c.addBundle(b, false); err != nil {
			t.Fatal(err)
		}
		return b.Digest()
	}
	ledgers := func(from, to uint64, of ...digest.Hash) {
		t.Helper()
		for h := from; h <= to; h++ {
			l := &consensus.Header{Height: h, Outcome: consensus.Pending, Run: from}
			if h == from {
				l.Outcome, l.Bundles = consensus.Agreed, of
			}
			if _, _, err := c.closed(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := add(testBundle(t, node, user, 1, 1<<40))
	long := add(testBundle(t, node, user, 3, 1<<40)) // stays pending
	ledgers(1, 2000, first)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	c = open()
	for _, d := range []digest.Hash{first, long} {
		if c.bundle(d) == nil {
			t.Errorf("bundle %s is lost while its run goes on", d.Short())
		}
	}
	long = add(c.bundle(long))
	second := add(testBundle(t, node, user, 2, 1<<40))
	c.beginsAt(2001) // the nonce table was written
	ledgers(2001, 4000, second)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	c = open()
	if c.bundle(second) == nil || c.bundle(long) == nil {
		t.Error("a bundle that is needed is lost")
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}

// Nobody can push out the lists in use by making up others.
func TestMadeUpListsOfUsers(t *testing.T) {
	c, err := openContent(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	list := func(origin key.Public, height uint64) digest.Hash {
		p, err := inputs.NewPresence(origin, []key.Public{newKey(t).Public()})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.addPresence(p, height); err != nil {
			t.Fatal(err)
		}
		return p.Digest()
	}
	member := newKey(t).Public()
	used := list(member, 5)
	for range 2 * maxPresences {
		list(member, 0)
	}
	if c.presence(used) == nil {
		t.Error("a list in use is gone")
	}
	if len(c.presences) > maxPresences {
		t.Errorf("%d lists are kept", len(c.presences))
	}
}

// What a node serves to others about accepted inputs is what the ledgers hash.
func TestAcceptedHashesAreWhatLedgersHash(t *testing.T) {
	node := newKey(t)
	var bundles []*inputs.Bundle
	for i := range 5 {
		u := newKey(t)
		bundles = append(bundles, testBundle(t, node, u, uint64(9-i), 100), testBundle(t, node, u, uint64(20+i), 100))
	}
	sel := inputs.Select(inputs.Params{Seq: 3}, inputs.NewNonces(), bundles)
	if sel.Count() != 10 || digest.Sum(acceptedHashes(sel)) != sel.InputHash() {
		t.Errorf("%d inputs, %s, want %s", sel.Count(), digest.Sum(acceptedHashes(sel)), sel.InputHash())
	}
	var x selections
	for seq := uint64(1); seq < 2*keptSelections; seq++ {
		x.put(seq, sel)
	}
	if !x.has(sel.Users[0].Inputs[0].Hash) || x.has(digest.Hash{1}) || x.get(1) != nil || len(x.kept) != keptSelections {
		t.Errorf("%d selections are kept", len(x.kept))
	}
}
