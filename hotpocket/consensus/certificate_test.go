package consensus

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestCertificate(t *testing.T) {
	params := fakeParams(4, 66)
	h := randomHeader(rand.New(rand.NewPCG(1, 1)))
	hash := h.Hash()
	commit := func(p Params, member int, phase Phase, height uint64, attempt uint32) Signed {
		b := fakeBallot(p, member, phase, height, attempt, hash)
		return Signed{b.Author, b.Sig}
	}
	good := func(members ...int) (c Certificate) {
		c.Attempt = 2
		for _, i := range members {
			c.Commits = append(c.Commits, commit(params, i, Commit, h.Height, 2))
		}
		return c
	}
	other := params
	other.Chain = ChainOf("another contract")
	stricter := params
	stricter.Threshold = 100
	for name, x := range map[string]struct {
		cert   Certificate
		params Params
		change func(*Header)
		want   string
	}{
		"three of four":              {cert: good(0, 2, 3), params: params},
		"all in any order":           {cert: good(3, 1, 0, 2), params: params},
		"too few":                    {cert: good(0, 1), params: params, want: "2 commits, want 3"},
		"none":                       {cert: Certificate{Attempt: 2}, params: params, want: "0 commits"},
		"one twice":                  {cert: good(0, 1, 1), params: params, want: "signed twice"},
		"one twice beside enough":    {cert: good(0, 1, 2, 2), params: params, want: "signed twice"},
		"a stranger":                 {cert: good(0, 1, 7), params: params, want: "not in the UNL"},
		"a stranger beside enough":   {cert: good(0, 1, 2, 7), params: params, want: "not in the UNL"},
		"another contract":           {cert: good(0, 1, 2), params: other, want: "wrong signature"},
		"a stricter threshold":       {cert: good(0, 1, 2), params: stricter, want: "3 commits, want 4"},
		"another ledger":             {cert: good(0, 1, 2), params: params, change: func(h *Header) { h.Time++ }, want: "wrong signature"},
		"another height":             {cert: good(0, 1, 2), params: params, change: func(h *Header) { h.Height++ }, want: "wrong signature"},
		"another attempt":            {cert: Certificate{1, good(0, 1, 2).Commits}, params: params, want: "wrong signature"},
		"commits of mixed attempts":  {cert: Certificate{2, append(good(0, 1).Commits, commit(params, 2, Commit, h.Height, 1))}, params: params, want: "wrong signature"},
		"votes instead of commits":   {cert: Certificate{2, append(good(0, 1).Commits, commit(params, 2, Vote, h.Height, 2))}, params: params, want: "wrong signature"},
		"a signature of another one": {cert: Certificate{2, append(good(0, 1).Commits, Signed{fakeKey(2), commit(params, 3, Commit, h.Height, 2).Sig})}, params: params, want: "wrong signature"},
	} {
		t.Run(name, func(t *testing.T) {
			header := h
			if x.change != nil {
				x.change(&header)
			}
			err := x.cert.Verify(fakeVerifier{}, x.params, &header)
			if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
				t.Errorf("got %v, want %q", err, x.want)
			}
		})
	}
}
