package consensus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"evernode/internal/digest"
)

// TestJudge tells verdicts on a run from what members report: a letter per
// member of the UNL, '.' for one that is not counted, '-' for one without a
// result, and equal letters for equal results.
func TestJudge(t *testing.T) {
	for _, x := range []struct {
		reports   string
		threshold int
		contested uint8 // of the ledger before
		outcome   Outcome
		then      uint8 // contested
	}{
		{"aaaa", 66, 0, Agreed, 0},
		{"aaa.", 66, 0, Agreed, 0},
		{"aab-", 66, 3, Pending, 4},
		{"aaab", 66, 2, Agreed, 0},
		{"aa--", 66, 0, Pending, 0},
		{"aa-.", 66, 4, Pending, 0},
		{"aab.", 66, 0, Pending, 1},
		{"aab.", 66, 1, Pending, 2},
		{"aab.", 66, 3, Pending, 4},
		{"aab.", 66, 4, Failed, 0},
		{"aabb", 66, 0, Failed, 0},
		{"abcd", 66, 0, Failed, 0},
		{"abc-", 66, 0, Failed, 0},
		{"ab--", 66, 0, Pending, 0},
		{"aaab", 100, 0, Failed, 0},
		{"aaa.", 100, 4, Pending, 0},
		{"aab", 50, 0, Agreed, 0},
		{"ab.", 50, 0, Pending, 1},
		{"a", 100, 0, Agreed, 0},
	} {
		t.Run(fmt.Sprint(x.reports, x.threshold, x.contested), func(t *testing.T) {
			params := fakeParams(len(x.reports), x.threshold)
			prev := &Header{Height: 7, Outcome: Agreed, Contested: x.contested, Result: Result{State: hashOf("before"), Output: hashOf("said before")}}
			var counted []*Proposal
			for i, r := range x.reports {
				p := &Proposal{Author: params.Members[i], Clock: 5}
				if r == '.' {
					continue
				}
				if r != '-' {
					p.Ran, p.Result = true, Result{State: hashOf(string(r)), Output: hashOf("out " + string(r)), Nonces: hashOf("nonces")}
				}
				p.Bundles = []digest.Hash{hashOf("bundle")}
				counted = append(counted, p)
			}
			h := assemble(params, prev, hashOf("prev"), counted)
			if h.Outcome != x.outcome || h.Contested != x.then || h.Run != 7 {
				t.Fatalf("outcome is %v, contested %d, run %d", h.Outcome, h.Contested, h.Run)
			}
			want := Result{State: hashOf("before")}
			switch x.outcome {
			case Agreed:
				want = Result{State: hashOf("a"), Output: hashOf("out a"), Nonces: hashOf("nonces")}
			case Failed:
				want.Nonces = hashOf("nonces")
			}
			if h.Result != want {
				t.Errorf("result is %+v", h.Result)
			}
			if got := len(h.Bundles); got != 1 && x.outcome != Pending || got != 0 && x.outcome == Pending {
				t.Errorf("%d bundles in a ledger that is %v", got, h.Outcome)
			}
		})
	}
}

// TestGenesisIsNeverGivenUp checks that members that begin with different states
// wait for each other instead of failing a run that there is no way back from.
func TestGenesisIsNeverGivenUp(t *testing.T) {
	params, prev := fakeParams(4, 66), &Header{}
	for range 300 {
		var counted []*Proposal
		for i, m := range params.Members {
			counted = append(counted, &Proposal{Author: m, Ran: true, Result: Result{State: hashOf(fmt.Sprint(i))}})
		}
		h := assemble(params, prev, prev.Hash(), counted)
		if h.Outcome != Pending || h.Run != 0 || h.Contested == 0 {
			t.Fatalf("ledger %d is %v, contested %d", h.Height, h.Outcome, h.Contested)
		}
		prev = &h
	}
}

func TestAssembleDoesNotDependOnOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	params := fakeParams(9, 66)
	prev := &Header{Height: 3, Time: 100}
	for range 200 {
		var counted []*Proposal
		pool := randomHashes(rng, 4)
		for _, m := range params.Members[:6+rng.IntN(4)] {
			p := &Proposal{Author: m, Clock: rng.Uint64N(300), Ran: rng.IntN(3) > 0, Presence: randomHash(rng)}
			p.Result.Nonces = pool[rng.IntN(3)]
			p.Result.State = pool[rng.IntN(2)]
			for range rng.IntN(6) {
				p.Bundles = append(p.Bundles, pool[rng.IntN(4)])
			}
			p.Seen[0], p.Seen[1] = byte(rng.Uint32()), byte(rng.Uint32())
			counted = append(counted, p)
		}
		h := assemble(params, prev, hashOf("prev"), counted)
		want := h.Hash()
		if h.Time <= prev.Time {
			t.Fatalf("time goes back to %d", h.Time)
		}
		for i := len(params.Members); i < MaxMembers; i++ {
			if h.Expected.Has(i) {
				t.Fatalf("member %d is expected and does not exist", i)
			}
		}
		for range 5 {
			rng.Shuffle(len(counted), func(i, j int) { counted[i], counted[j] = counted[j], counted[i] })
			if x := assemble(params, prev, hashOf("prev"), counted); x.Hash() != want {
				t.Fatalf("another order makes another ledger")
			}
		}
	}
}

func TestMajorityBundles(t *testing.T) {
	a, b := hashOf("a"), hashOf("b")
	named := func(lists ...[]digest.Hash) (out []*Proposal) {
		for _, l := range lists {
			out = append(out, &Proposal{Bundles: l})
		}
		return out
	}
	for _, x := range []struct {
		counted []*Proposal
		want    []digest.Hash
	}{
		{named([]digest.Hash{a, b}, []digest.Hash{b}, nil), []digest.Hash{b}},
		{named([]digest.Hash{a}, []digest.Hash{a}, nil, nil), nil},
		{named([]digest.Hash{a, a, a}, nil, nil), nil},
		{named([]digest.Hash{a}), []digest.Hash{a}},
		{named(nil, nil), nil},
	} {
		if got := majorityBundles(x.counted); !slices.Equal(got, x.want) {
			t.Errorf("got %v, want %v", got, x.want)
		}
	}
	many := make([]digest.Hash, 0, MaxBundles+10)
	for i := range MaxBundles + 10 {
		many = append(many, hashOf(fmt.Sprint(i)))
	}
	if got := majorityBundles(named(many)); len(got) != MaxBundles || !slices.IsSortedFunc(got, digest.Hash.Compare) {
		t.Errorf("%d bundles", len(got))
	}
}

func TestMedianClock(t *testing.T) {
	for _, x := range []struct {
		clocks []uint64
		want   uint64
	}{
		{[]uint64{5}, 5}, {[]uint64{9, 5}, 5}, {[]uint64{9, 5, 7}, 7}, {[]uint64{1, 1 << 63, 7, 6}, 6}, {[]uint64{1<<64 - 1}, maxClock},
	} {
		var counted []*Proposal
		for _, c := range x.clocks {
			counted = append(counted, &Proposal{Clock: c})
		}
		if got := medianClock(counted); got != x.want {
			t.Errorf("median of %v is %d, want %d", x.clocks, got, x.want)
		}
	}
}
