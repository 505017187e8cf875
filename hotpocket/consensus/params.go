package consensus

import (
	"fmt"
	"slices"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// MaxMembers is the greatest number of members of a UNL.
const MaxMembers = 128

// Params is the part of the agreed configuration that consensus depends on. It
// is in force for whole heights; see Core.Advance.
type Params struct {
	// Chain separates the signatures of one contract from those of another:
	// the hash of the contract id, see ChainOf.
	Chain digest.Hash
	// Members is the UNL, sorted bytewise and without duplicates.
	Members []key.Public
	// Threshold is the percentage of members that make a quorum, 50 to 100.
	Threshold int
	// RoundTime is the longest time between two ledgers.
	RoundTime time.Duration
	// PerRound is how many ledgers may close in a round time on average.
	PerRound int
}

// ChainOf derives Params.Chain from the contract id.
func ChainOf(contractID string) digest.Hash {
	return digest.Tagged("evernode hotpocket chain", []byte(contractID))
}

// Validate reports the first value that is out of its range.
func (p Params) Validate() error {
	switch {
	case len(p.Members) == 0 || len(p.Members) > MaxMembers:
		return fmt.Errorf("UNL has %d members, want 1 to %d", len(p.Members), MaxMembers)
	case !slices.IsSortedFunc(p.Members, key.Public.Compare):
		return fmt.Errorf("UNL is not sorted by public key")
	case p.Threshold < 50 || p.Threshold > 100:
		return fmt.Errorf("threshold is %d, want 50 to 100", p.Threshold)
	case p.RoundTime < time.Millisecond || p.RoundTime > time.Hour:
		return fmt.Errorf("roundtime is %v, want 1ms to 1h", p.RoundTime)
	case p.PerRound < 1:
		return fmt.Errorf("ledgers per roundtime is %d, want at least 1", p.PerRound)
	}
	for i := 1; i < len(p.Members); i++ {
		if p.Members[i] == p.Members[i-1] {
			return fmt.Errorf("UNL lists %s twice", p.Members[i])
		}
	}
	return nil
}

// Quorum returns q, how many members make a decision.
func (p Params) Quorum() int { return Quorum(len(p.Members), p.Threshold) }

// Quorum returns q for n members and a threshold in percent.
func Quorum(n, threshold int) int {
	return max((threshold*n+99)/100, n/2+1)
}

// Byzantine returns how many of n members may lie or contradict themselves
// without two ledgers closing at one height: 2q−n−1.
func Byzantine(n, threshold int) int { return 2*Quorum(n, threshold) - n - 1 }

// index returns a member's place in the UNL, or -1.
func (p Params) index(k key.Public) int {
	i, ok := slices.BinarySearchFunc(p.Members, k, key.Public.Compare)
	if !ok {
		return -1
	}
	return i
}

// coordinator returns the place of who assembles the candidate of an attempt after the
// first. It changes with every attempt, and where it starts with every height.
func (p Params) coordinator(height uint64, attempt uint32) int {
	return int((height + uint64(attempt)) % uint64(len(p.Members)))
}

// Bits is a set of members by their place in the UNL, lowest bit of the first
// byte first.
type Bits [MaxMembers / 8]byte

// Has reports whether member i is in the set.
func (b Bits) Has(i int) bool { return b[i/8]&(1<<(i%8)) != 0 }

// Set adds member i.
func (b *Bits) Set(i int) { b[i/8] |= 1 << (i % 8) }

// Keys returns the members of the set.
func (b Bits) Keys(members []key.Public) []key.Public {
	var out []key.Public
	for i, m := range members {
		if b.Has(i) {
			out = append(out, m)
		}
	}
	return out
}
