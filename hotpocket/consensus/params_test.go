package consensus

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQuorum(t *testing.T) {
	for _, x := range []struct{ n, threshold, q, byzantine int }{
		{1, 50, 1, 0}, {1, 100, 1, 0},
		{2, 50, 2, 1}, {2, 66, 2, 1}, {2, 100, 2, 1},
		{3, 50, 2, 0}, {3, 66, 2, 0}, {3, 67, 3, 2}, {3, 80, 3, 2},
		{4, 50, 3, 1}, {4, 66, 3, 1}, {4, 75, 3, 1}, {4, 76, 4, 3}, {4, 80, 4, 3}, {4, 100, 4, 3},
		{5, 50, 3, 0}, {5, 66, 4, 2}, {5, 80, 4, 2}, {5, 81, 5, 4},
		{7, 66, 5, 2}, {10, 66, 7, 3}, {10, 80, 8, 5},
		{100, 66, 66, 31}, {128, 50, 65, 1}, {128, 66, 85, 41}, {128, 100, 128, 127},
	} {
		if q := Quorum(x.n, x.threshold); q != x.q {
			t.Errorf("Quorum(%d, %d) = %d, want %d", x.n, x.threshold, q, x.q)
		}
		if f := Byzantine(x.n, x.threshold); f != x.byzantine {
			t.Errorf("Byzantine(%d, %d) = %d, want %d", x.n, x.threshold, f, x.byzantine)
		}
	}
	for n := 1; n <= MaxMembers; n++ {
		for threshold := 50; threshold <= 100; threshold++ {
			q := Quorum(n, threshold)
			if 2*q <= n || q > n || 100*q < threshold*n || (q > n/2+1 && 100*(q-1) >= threshold*n) {
				t.Fatalf("Quorum(%d, %d) = %d", n, threshold, q)
			}
		}
	}
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	for _, x := range []struct {
		change func(*Params)
		want   string
	}{
		{func(p *Params) {}, ""},
		{func(p *Params) { p.Members = nil }, "0 members"},
		{func(p *Params) { p.Members = fakeParams(MaxMembers+1, 66).Members }, "129 members"},
		{func(p *Params) { slices.Reverse(p.Members) }, "not sorted"},
		{func(p *Params) { p.Members[1] = p.Members[0] }, "twice"},
		{func(p *Params) { p.Threshold = 49 }, "threshold is 49"},
		{func(p *Params) { p.Threshold = 101 }, "threshold is 101"},
		{func(p *Params) { p.RoundTime = time.Microsecond }, "roundtime"},
		{func(p *Params) { p.RoundTime = 2 * time.Hour }, "roundtime"},
		{func(p *Params) { p.PerRound = 0 }, "per roundtime is 0"},
	} {
		p := fakeParams(4, 66)
		x.change(&p)
		err := p.Validate()
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("got %v, want %q", err, x.want)
		}
	}
}

func TestBits(t *testing.T) {
	var b Bits
	members := fakeParams(MaxMembers, 66).Members
	for _, i := range []int{0, 7, 8, 127} {
		b.Set(i)
	}
	for i := range MaxMembers {
		if want := i == 0 || i == 7 || i == 8 || i == 127; b.Has(i) != want {
			t.Errorf("Has(%d) = %v", i, !want)
		}
	}
	if got := b.Keys(members); len(got) != 4 || got[3] != members[127] {
		t.Errorf("Keys = %v", got)
	}
	if b[0] != 0x81 || b[1] != 0x01 || b[15] != 0x80 {
		t.Errorf("bits are %x", b)
	}
}

// TestCoordinatorsTakeTurns checks that every member coordinates once in n
// attempts, and that no height begins with the same one as the height before.
func TestCoordinatorsTakeTurns(t *testing.T) {
	p := fakeParams(7, 66)
	for height := uint64(1); height < 20; height++ {
		seen := make(map[int]bool)
		for a := uint32(1); a <= 7; a++ {
			seen[p.coordinator(height, a)] = true
		}
		if len(seen) != 7 || p.coordinator(height, 1) == p.coordinator(height+1, 1) {
			t.Errorf("coordinators of ledger %d: %v", height, seen)
		}
	}
	if c := p.coordinator(1<<64-1, 1<<32-1); c < 0 || c > 6 {
		t.Errorf("coordinator at the end of time is %d", c)
	}
}
