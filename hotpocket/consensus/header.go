package consensus

import (
	"bytes"
	"fmt"
	"slices"

	"evernode/internal/digest"
	"evernode/internal/wire"
)

// Limits of what one ledger may name.
const (
	// MaxBundles is the greatest number of input bundles in one proposal or
	// ledger.
	MaxBundles = 4096
	// maxPresences allows one list of users per member.
	maxPresences = MaxMembers
)

// Outcome is what a ledger says about the run that was outstanding before it.
type Outcome uint8

const (
	// Pending: no result yet. The ledger is a heartbeat.
	Pending Outcome = iota
	// Agreed: q members share Header.Result.
	Agreed
	// Failed: the members' results cannot come to a quorum. The run is undone,
	// its inputs count as consumed.
	Failed
)

func (o Outcome) String() string {
	switch o {
	case Pending:
		return "pending"
	case Agreed:
		return "agreed"
	case Failed:
		return "failed"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Result is what a member found after executing a run. Genesis counts as a run
// whose result is the initial state.
type Result struct {
	// State is the root of the state folder's Merkle tree.
	State digest.Hash
	// Patch is the hash of patch.cfg.
	Patch digest.Hash
	// Output is the root of the tree of user outputs (spec/hotpocket.md section
	// 1.9), zero when there were none.
	Output digest.Hash
	// Nonces is the hash of the table of used nonces after the run's inputs,
	// Users and Inputs the hashes of the ledger's connected users and accepted
	// inputs (spec/hotpocket.md section 4.1). They follow from the ledger alone,
	// so honest members never differ in them.
	Nonces, Users, Inputs digest.Hash
}

const resultSize = 6 * digest.Size

func (r Result) append(b []byte) []byte {
	b = append(b, r.State[:]...)
	b = append(b, r.Patch[:]...)
	b = append(b, r.Output[:]...)
	b = append(b, r.Nonces[:]...)
	b = append(b, r.Users[:]...)
	return append(b, r.Inputs[:]...)
}

func readResult(r *wire.Reader) (v Result) {
	r.Fixed(v.State[:])
	r.Fixed(v.Patch[:])
	r.Fixed(v.Output[:])
	r.Fixed(v.Nonces[:])
	r.Fixed(v.Users[:])
	r.Fixed(v.Inputs[:])
	return v
}

// Header is a ledger: everything that the members agreed on at one height. The
// hash of its encoding is the ledger hash.
type Header struct {
	// Height is the ledger's sequence number, from 1. Height 0 is genesis, an
	// all-zero header with a zero hash.
	Height uint64
	// Prev is the hash of the ledger before.
	Prev digest.Hash
	// Time is the median of the counted members' clocks in milliseconds since
	// 1970, and later than the ledger before.
	Time uint64
	// Outcome is the verdict on the outstanding run, Run that run's height (0 is
	// genesis).
	Outcome Outcome
	Run     uint64
	// Contested counts the ledgers in a row in which a quorum had a result but
	// not the same one.
	Contested uint8
	// Result is the agreed result, or with Pending and Failed the latest agreed
	// one before with a zero Output. With Failed, Nonces, Users and Inputs are
	// those of the failed run all the same, since its inputs are consumed.
	Result Result
	// Bundles are the digests of the input bundles that this ledger consumes,
	// sorted. A Pending ledger has none.
	Bundles []digest.Hash
	// Presences are the digests of the counted members' lists of connected
	// users, sorted, without duplicates.
	Presences []digest.Hash
	// Expected are the members of the UNL in force at this height whose
	// proposals attempt 0 of the next height waits for.
	Expected Bits
}

// StartsRun reports whether the contract runs after this ledger.
func (h *Header) StartsRun() bool { return h.Height > 0 && h.Outcome != Pending }

// Outstanding returns the height of the run whose result is not yet known when
// this ledger has closed.
func (h *Header) Outstanding() uint64 {
	if h.Height == 0 || h.Outcome != Pending {
		return h.Height
	}
	return h.Run
}

// headerMin is the length of an encoded header without bundles and presences.
const headerMin = 1 + 8 + digest.Size + 8 + 1 + 8 + 1 + resultSize + 4 + 4 + MaxMembers/8

// headerVersion is the first byte of an encoded header.
const headerVersion = 1

// Append appends the encoding of h: version byte, then the fields in order,
// big-endian.
func (h *Header) Append(b []byte) []byte {
	b = slices.Grow(b, headerMin+(len(h.Bundles)+len(h.Presences))*digest.Size)
	b = wire.AppendU8(b, headerVersion)
	b = wire.AppendU64(b, h.Height)
	b = append(b, h.Prev[:]...)
	b = wire.AppendU64(b, h.Time)
	b = wire.AppendU8(b, uint8(h.Outcome))
	b = wire.AppendU64(b, h.Run)
	b = wire.AppendU8(b, h.Contested)
	b = h.Result.append(b)
	b = appendHashes(b, h.Bundles)
	b = appendHashes(b, h.Presences)
	return append(b, h.Expected[:]...)
}

// DecodeHeader reads what Append wrote.
func DecodeHeader(b []byte) (Header, error) {
	r := wire.NewReader(b)
	h := readHeader(r)
	if err := r.Close(); err != nil {
		return Header{}, fmt.Errorf("ledger header: %w", err)
	}
	return h, nil
}

func readHeader(r *wire.Reader) (h Header) {
	if v := r.U8(); v != headerVersion && r.Err() == nil {
		r.Fail(fmt.Errorf("header version is %d, want %d", v, headerVersion))
	}
	h.Height = r.U64()
	r.Fixed(h.Prev[:])
	h.Time = r.U64()
	h.Outcome = Outcome(r.U8())
	if h.Outcome > Failed {
		r.Fail(fmt.Errorf("unknown outcome %d", h.Outcome))
	}
	h.Run = r.U64()
	h.Contested = r.U8()
	h.Result = readResult(r)
	h.Bundles = readHashes(r, MaxBundles)
	h.Presences = readHashes(r, maxPresences)
	r.Fixed(h.Expected[:])
	return h
}

// Hash returns the ledger hash: zero for genesis.
func (h *Header) Hash() digest.Hash {
	if h.Height == 0 {
		return digest.Hash{}
	}
	return digest.Tagged("evernode hotpocket ledger", h.Append(nil))
}

func appendHashes(b []byte, hs []digest.Hash) []byte {
	b = wire.AppendU32(b, uint32(len(hs)))
	for i := range hs {
		b = append(b, hs[i][:]...)
	}
	return b
}

func readHashes(r *wire.Reader, limit int) []digest.Hash {
	n := r.Count(limit, digest.Size)
	if n == 0 {
		return nil
	}
	hs := make([]digest.Hash, n)
	for i := range hs {
		r.Fixed(hs[i][:])
	}
	return hs
}

// sortUnique sorts hashes bytewise and drops repetitions.
func sortUnique(hs []digest.Hash) []digest.Hash {
	slices.SortFunc(hs, func(a, b digest.Hash) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(hs)
}
