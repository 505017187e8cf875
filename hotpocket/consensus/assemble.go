package consensus

import (
	"cmp"
	"slices"

	"evernode/internal/digest"
)

// contestedLimit is after how many ledgers in a row with a quorum of differing
// results a run is given up although a member that has not reported could
// still complete a quorum.
const contestedLimit = 4

// assemble makes the ledger that follows prev out of the counted proposals. It
// depends on nothing else and not on their order, so members that count the
// same proposals get the same hash.
func assemble(p Params, prev *Header, prevHash digest.Hash, counted []*Proposal) Header {
	h := Header{
		Height: prev.Height + 1,
		Prev:   prevHash,
		Time:   max(medianClock(counted), prev.Time+1),
		Run:    prev.Outstanding(),
		Result: prev.Result,
	}
	h.Result.Output = digest.Hash{}
	h.Outcome, h.Contested = judge(p, prev, counted, &h.Result)
	if h.Outcome != Pending {
		h.Bundles = majorityBundles(counted)
	}
	var seen [MaxMembers]int
	for _, c := range counted {
		h.Expected.Set(p.index(c.Author))
		if !c.Presence.IsZero() {
			h.Presences = append(h.Presences, c.Presence)
		}
		for i := range p.Members {
			if c.Seen.Has(i) {
				seen[i]++
			}
		}
	}
	h.Presences = sortUnique(h.Presences)
	for i := range p.Members {
		if 2*seen[i] > len(counted) {
			h.Expected.Set(i)
		}
	}
	return h
}

// maxClock is far beyond any date.
const maxClock = 1 << 62

func medianClock(counted []*Proposal) uint64 {
	clocks := make([]uint64, len(counted))
	for i, c := range counted {
		// No clock may leave no later time for the next ledger.
		clocks[i] = min(c.Clock, maxClock)
	}
	slices.Sort(clocks)
	return clocks[(len(clocks)-1)/2]
}

// judge decides on the outstanding run and puts an agreed result into result.
func judge(p Params, prev *Header, counted []*Proposal, result *Result) (Outcome, uint8) {
	q, n := p.Quorum(), len(p.Members)
	votes := make(map[Result]int, 1)
	reported, most := 0, 0
	for _, c := range counted {
		if !c.Ran {
			continue
		}
		reported++
		votes[c.Result]++
		if v := votes[c.Result]; v > most {
			most = v
			if v >= q {
				*result = c.Result
				return Agreed, 0
			}
		}
	}
	if reported < q {
		return Pending, 0
	}
	// Before the first run there is nothing to go back to: members that begin
	// with different states stay here until they are given the same one.
	if prev.Outstanding() == 0 {
		return Pending, min(prev.Contested+1, contestedLimit)
	}
	if most+n-reported < q || prev.Contested >= contestedLimit {
		c := pluralityConsumed(counted)
		result.Nonces, result.Users, result.Inputs = c.nonces, c.users, c.inputs
		return Failed, 0
	}
	return Pending, prev.Contested + 1
}

// consumed is the part of a result that does not depend on the contract.
type consumed struct{ nonces, users, inputs digest.Hash }

func (r *Result) consumed() consumed { return consumed{r.Nonces, r.Users, r.Inputs} }

func (c consumed) compare(o consumed) int {
	return cmp.Or(c.nonces.Compare(o.nonces), c.users.Compare(o.users), c.inputs.Compare(o.inputs))
}

// pluralityConsumed returns what most members say that the run has consumed,
// the lowest where several do.
func pluralityConsumed(counted []*Proposal) (best consumed) {
	votes := make(map[consumed]int)
	for _, c := range counted {
		if c.Ran {
			votes[c.Result.consumed()]++
		}
	}
	for h, v := range votes {
		if b := votes[best]; v > b || v == b && h.compare(best) < 0 {
			best = h
		}
	}
	return best
}

// majorityBundles returns the bundles that more than half of the counted
// members hold.
func majorityBundles(counted []*Proposal) []digest.Hash {
	votes := make(map[digest.Hash]int)
	var out []digest.Hash
	for _, c := range counted {
		// A bundle named twice by one member counts once.
		named := sortUnique(slices.Clone(c.Bundles))
		for _, b := range named {
			votes[b]++
			if votes[b] == len(counted)/2+1 {
				out = append(out, b)
			}
		}
	}
	out = sortUnique(out)
	if len(out) > MaxBundles {
		out = out[:MaxBundles]
	}
	return out
}
