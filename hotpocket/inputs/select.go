package inputs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// Params are the agreed values that decide about inputs.
type Params struct {
	// Seq is the seq_no of the ledger that the inputs are for, at least 1; the
	// last closed ledger is Seq-1.
	Seq uint64
	// MaxOffset is consensus' max_input_ledger_offset: how far an input's
	// MaxLedger may lie after the last closed ledger. 0 means no limit.
	MaxOffset uint64
	// UserInputBytes is round_limits.user_input_bytes: how many bytes of
	// payload one user may have in a ledger. 0 means no limit.
	UserInputBytes uint64
}

// check applies checks 3 to 5 of spec/hotpocket.md section 1.6; used is how many
// bytes the user has already.
func (p *Params) check(in *Input, used uint64) Reason {
	lcl := p.Seq - 1
	if p.MaxOffset > 0 && in.MaxLedger > lcl && in.MaxLedger-lcl > p.MaxOffset {
		return OffsetExceeded
	}
	if in.MaxLedger <= lcl {
		return Expired
	}
	// used is at most UserInputBytes whenever that is not 0.
	if p.UserInputBytes > 0 && (used > p.UserInputBytes || uint64(len(in.Payload)) > p.UserInputBytes-used) {
		return InputsOverflow
	}
	return None
}

// CheckSubmission judges an input at the node that takes it, by checks 3 to 6 of
// phase A in spec/hotpocket.md section 1.6 and in their order: offset, expiry,
// pending bytes, nonce. It changes nothing and returns None when the input is
// fine for now. p.Seq is the ledger that is being worked on (last closed ledger
// plus one), pending is how many bytes of payload of the same user the node has
// taken and not yet seen in a ledger.
//
// Other than in the original, the signature has been verified before (Check), so
// that nothing bad is ever flooded to other nodes.
func CheckSubmission(p Params, pending uint64, in *Input, nonces *Nonces) Reason {
	if r := p.check(in, pending); r != None {
		return r
	}
	return nonces.Check(in.User, in.Nonce, in.Hash, p.Seq-1)
}

// UserInputs are the inputs of one user in the order in which the contract gets
// them.
type UserInputs struct {
	User   key.Public
	Inputs []Input
}

// Rejection tells a user that an input will not be executed.
type Rejection struct {
	User   key.Public
	Hash   digest.Hash
	Reason Reason
}

// Selection is what a ledger makes of its bundles.
type Selection struct {
	// Users have at least one accepted input each and are sorted by key; the
	// inputs of each are sorted by nonce, then hash.
	Users []UserInputs
	// Rejected are sorted by user, then nonce, then hash.
	Rejected []Rejection

	accepted []Input
}

// Count returns the number of accepted inputs.
func (s *Selection) Count() int { return len(s.accepted) }

// InputHash returns BLAKE3 over the concatenated hashes of the accepted inputs of
// all users, in the order of 8-byte big-endian nonce and hash, or zero when there
// are none (spec/hotpocket.md sections 4.1 and 4.3).
func (s *Selection) InputHash() digest.Hash {
	if len(s.accepted) == 0 {
		return digest.Hash{}
	}
	order := make([]*Input, len(s.accepted))
	for i := range order {
		order[i] = &s.accepted[i]
	}
	slices.SortFunc(order, func(a, b *Input) int {
		if c := cmp.Compare(a.Nonce, b.Nonce); c != 0 {
			return c
		}
		return a.Hash.Compare(b.Hash)
	})
	b := make([]byte, 0, len(order)*digest.Size)
	for _, in := range order {
		b = append(b, in.Hash[:]...)
	}
	return digest.Sum(b)
}

// Select decides which inputs of a ledger's bundles run and remembers them in
// nonces, from which it first removes what has expired (Nonces.Expire). All
// bundles must have been verified. The result depends on the set of inputs and
// not on the order of bundles or of inputs in them.
//
// Each user's inputs are taken in the order of nonce and hash, and each is put to
// checks 3 to 6 of spec/hotpocket.md section 1.6 against the last closed ledger.
// A copy of an accepted input, in the same ledger or an earlier one, is dropped
// without a rejection, since its user gets or got an accepted status for it; so
// are repetitions of a rejected input.
func Select(p Params, nonces *Nonces, bundles []*Bundle) Selection {
	n := 0
	for _, b := range bundles {
		n += len(b.inputs)
	}
	order := make([]sortable, 0, n)
	for _, b := range bundles {
		for i := range b.inputs {
			in := &b.inputs[i]
			order = append(order, sortable{binary.BigEndian.Uint64(in.User[1:]), in})
		}
	}
	slices.SortFunc(order, sortable.compare)

	nonces.mu.Lock()
	defer nonces.mu.Unlock()
	lcl := p.Seq - 1
	nonces.expire(lcl)

	var (
		s    = Selection{accepted: make([]Input, 0, n)}
		last *Input
		used uint64
		from int // where the current user's accepted inputs begin
	)
	flush := func() {
		if last != nil && len(s.accepted) > from {
			s.Users = append(s.Users, UserInputs{last.User, s.accepted[from:len(s.accepted):len(s.accepted)]})
			from = len(s.accepted)
		}
	}
	for i := range order {
		in := order[i].in
		if last == nil || in.User != last.User {
			flush()
			used = 0
		} else if in.Nonce == last.Nonce && in.Hash == last.Hash {
			continue
		}
		last = in
		r := p.check(in, used)
		if r == None {
			r = nonces.accept(in, lcl)
		}
		switch r {
		case None:
			used += uint64(len(in.Payload))
			s.accepted = append(s.accepted, *in)
		case AlreadySubmitted:
		default:
			s.Rejected = append(s.Rejected, Rejection{in.User, in.Hash, r})
		}
	}
	flush()
	return s
}

// sortable is an input with the first bytes of its user's key at hand, which
// decide nearly all comparisons.
type sortable struct {
	prefix uint64
	in     *Input
}

// compare is a total order: inputs that compare as equal are the same in every
// field. It goes on after user, nonce and hash because equal hashes do not prove
// equal inputs: for the few Ed25519 keys of small order one signature is good for
// every message, so that two bundles can hold different containers under one
// hash. Whichever bundle comes first, all nodes must take the same one.
func (a sortable) compare(b sortable) int {
	if c := cmp.Compare(a.prefix, b.prefix); c != 0 {
		return c
	}
	if a.in == b.in {
		return 0
	}
	if c := a.in.User.Compare(b.in.User); c != 0 {
		return c
	}
	if c := cmp.Compare(a.in.Nonce, b.in.Nonce); c != 0 {
		return c
	}
	if c := a.in.Hash.Compare(b.in.Hash); c != 0 {
		return c
	}
	if c := cmp.Compare(a.in.MaxLedger, b.in.MaxLedger); c != 0 {
		return c
	}
	return bytes.Compare(a.in.Payload, b.in.Payload)
}
