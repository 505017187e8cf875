package consensus

import (
	"fmt"
	"slices"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// Message is what members send to each other: a *Proposal, *Ballot, *Candidate
// or *Ledger.
type Message interface {
	append(b []byte) []byte
}

// The first byte of an encoded message.
const (
	kindProposal = 1 + iota
	kindBallot
	kindCandidate
	kindLedger
)

// Signer signs with the node's key.
type Signer interface {
	Sign(msg []byte) key.Signature
}

// Verifier checks a signature.
type Verifier interface {
	Verify(k key.Public, msg, sig []byte) bool
}

// Proposal is a member's view at the start of a height or attempt.
type Proposal struct {
	Author  key.Public
	Height  uint64
	Attempt uint32
	// Prev is the hash of the last closed ledger.
	Prev digest.Hash
	// Ran says that the outstanding run has finished here with Result.
	Ran    bool
	Result Result
	// Clock is the author's wall clock in milliseconds since 1970.
	Clock uint64
	// Bundles are the pending input bundles that the author holds, in the order
	// of their arrival.
	Bundles []digest.Hash
	// Presence is the digest of the list of users connected to the author, zero
	// for none.
	Presence digest.Hash
	// Seen are the members (of the UNL in force at Height) whose proposals for
	// the previous height reached the author before that ledger closed.
	Seen Bits
	// OutputSig is the author's plain signature of Result.Output, which users
	// check (spec/hotpocket.md section 1.9). Zero when there are no outputs.
	OutputSig key.Signature
	Sig       key.Signature
}

// Phase tells votes from commits.
type Phase uint8

const (
	// Vote is for the candidate a member would accept; with a zero Hash it says
	// that it accepts none in this attempt.
	Vote Phase = 1
	// Commit says that its author has seen q votes and is locked.
	Commit Phase = 2
)

// Ballot is a vote or a commit.
type Ballot struct {
	Author  key.Public
	Phase   Phase
	Height  uint64
	Attempt uint32
	// Hash is the hash of the candidate ledger.
	Hash digest.Hash
	Sig  key.Signature
}

// Candidate is a coordinator's offer in an attempt after the first. It proves
// itself: either by the proposals that it was assembled from, or by q votes of
// an earlier attempt.
type Candidate struct {
	Author  key.Public
	Height  uint64
	Attempt uint32
	Header  Header
	// Proposals are at least q proposals of this attempt, when Votes is empty.
	Proposals []*Proposal
	// Votes are q votes of one earlier attempt for Header.
	Votes []*Ballot
	Sig   key.Signature
}

// Ledger is a closed ledger with its certificate, sent to those who miss it.
type Ledger struct {
	Header      Header
	Certificate Certificate
}

// signTag starts everything that is signed here. The byte 0xFF never occurs in
// UTF-8 text and the tag is longer than the 32 characters that a user may have
// a node sign in a handshake, so no signature given to a user can be taken for
// one of these.
const signTag = "evernode hotpocket consensus signature v1\xff"

func signedBytes(kind byte, chain digest.Hash, body digest.Hash) []byte {
	b := make([]byte, 0, len(signTag)+1+2*digest.Size)
	b = append(b, signTag...)
	b = append(b, kind)
	b = append(b, chain[:]...)
	return append(b, body[:]...)
}

func (p *Proposal) body(b []byte) []byte {
	b = slices.Grow(b, proposalMin+len(p.Bundles)*digest.Size)
	b = append(b, p.Author[:]...)
	b = wire.AppendU64(b, p.Height)
	b = wire.AppendU32(b, p.Attempt)
	b = append(b, p.Prev[:]...)
	b = wire.AppendBool(b, p.Ran)
	b = p.Result.append(b)
	b = wire.AppendU64(b, p.Clock)
	b = appendHashes(b, p.Bundles)
	b = append(b, p.Presence[:]...)
	return append(b, p.Seen[:]...)
}

func (p *Proposal) signed(chain digest.Hash) []byte {
	return signedBytes(kindProposal, chain, digest.Sum(p.body(nil)))
}

func (b *Ballot) signed(chain digest.Hash) []byte {
	out := make([]byte, 0, len(signTag)+1+digest.Size+1+8+4+digest.Size)
	out = append(out, signTag...)
	out = append(out, kindBallot)
	out = append(out, chain[:]...)
	out = append(out, byte(b.Phase))
	out = wire.AppendU64(out, b.Height)
	out = wire.AppendU32(out, b.Attempt)
	return append(out, b.Hash[:]...)
}

func (c *Candidate) signed(chain digest.Hash) []byte {
	return signedBytes(kindCandidate, chain, digest.Sum(c.body(nil)))
}

// VerifySignature checks the signature of a message's author, and of a
// proposal's outputs, but nothing that depends on who is a member: the Core
// does that, and checks what a Candidate or Ledger carries inside.
func VerifySignature(v Verifier, chain digest.Hash, m Message) error {
	switch m := m.(type) {
	case *Proposal:
		if !v.Verify(m.Author, m.signed(chain), m.Sig[:]) {
			return fmt.Errorf("proposal of %s for ledger %d has a wrong signature", m.Author.Short(), m.Height)
		}
		if m.Ran && !m.Result.Output.IsZero() && !v.Verify(m.Author, m.Result.Output[:], m.OutputSig[:]) {
			return fmt.Errorf("proposal of %s for ledger %d has a wrong signature of its outputs", m.Author.Short(), m.Height)
		}
	case *Ballot:
		if !v.Verify(m.Author, m.signed(chain), m.Sig[:]) {
			return fmt.Errorf("ballot of %s for ledger %d has a wrong signature", m.Author.Short(), m.Height)
		}
	case *Candidate:
		if !v.Verify(m.Author, m.signed(chain), m.Sig[:]) {
			return fmt.Errorf("candidate of %s for ledger %d has a wrong signature", m.Author.Short(), m.Height)
		}
	}
	return nil
}

// Author returns who signed a message; a Ledger is signed by its certificate
// only and has none.
func Author(m Message) (key.Public, bool) {
	switch m := m.(type) {
	case *Proposal:
		return m.Author, true
	case *Ballot:
		return m.Author, true
	case *Candidate:
		return m.Author, true
	}
	return key.Public{}, false
}

// Encode returns the wire form of a message: a kind byte, then its fields in
// order, big-endian.
func Encode(m Message) []byte { return m.append(nil) }

// Decode reads what Encode wrote. It checks form and limits, no signature.
func Decode(b []byte) (Message, error) {
	r := wire.NewReader(b)
	var m Message
	switch kind := r.U8(); kind {
	case kindProposal:
		m = readProposal(r)
	case kindBallot:
		m = readBallot(r)
	case kindCandidate:
		m = readCandidate(r)
	case kindLedger:
		m = &Ledger{Header: readHeader(r), Certificate: readCertificate(r)}
	default:
		r.Fail(fmt.Errorf("unknown kind %d", kind))
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("consensus message: %w", err)
	}
	return m, nil
}

func (p *Proposal) append(b []byte) []byte {
	b = append(b, kindProposal)
	b = p.body(b)
	b = append(b, p.OutputSig[:]...)
	return append(b, p.Sig[:]...)
}

// proposalMin is the length of a proposal without bundles, kind byte excluded.
const proposalMin = key.PublicSize + 8 + 4 + digest.Size + 1 + resultSize + 8 + 4 + digest.Size + MaxMembers/8 + 2*key.SignatureSize

func readProposal(r *wire.Reader) *Proposal {
	p := &Proposal{}
	r.Fixed(p.Author[:])
	p.Height = r.U64()
	p.Attempt = r.U32()
	r.Fixed(p.Prev[:])
	p.Ran = r.Bool()
	p.Result = readResult(r)
	p.Clock = r.U64()
	p.Bundles = readHashes(r, MaxBundles)
	r.Fixed(p.Presence[:])
	r.Fixed(p.Seen[:])
	r.Fixed(p.OutputSig[:])
	r.Fixed(p.Sig[:])
	return p
}

func (b *Ballot) append(out []byte) []byte {
	out = append(out, kindBallot)
	out = append(out, b.Author[:]...)
	out = append(out, byte(b.Phase))
	out = wire.AppendU64(out, b.Height)
	out = wire.AppendU32(out, b.Attempt)
	out = append(out, b.Hash[:]...)
	return append(out, b.Sig[:]...)
}

const ballotSize = key.PublicSize + 1 + 8 + 4 + digest.Size + key.SignatureSize

func readBallot(r *wire.Reader) *Ballot {
	b := &Ballot{}
	r.Fixed(b.Author[:])
	b.Phase = Phase(r.U8())
	if b.Phase != Vote && b.Phase != Commit {
		r.Fail(fmt.Errorf("ballot has unknown phase %d", b.Phase))
	}
	b.Height = r.U64()
	b.Attempt = r.U32()
	r.Fixed(b.Hash[:])
	r.Fixed(b.Sig[:])
	return b
}

func (c *Candidate) append(b []byte) []byte {
	b = append(b, kindCandidate)
	b = c.body(b)
	return append(b, c.Sig[:]...)
}

// body is all that a candidate's signature covers: its proof too, so that
// nobody who passes it on can spoil it in its author's name.
func (c *Candidate) body(b []byte) []byte {
	b = append(b, c.Author[:]...)
	b = wire.AppendU64(b, c.Height)
	b = wire.AppendU32(b, c.Attempt)
	b = c.Header.Append(b)
	b = wire.AppendU32(b, uint32(len(c.Proposals)))
	for _, p := range c.Proposals {
		b = p.append(b)
	}
	b = wire.AppendU32(b, uint32(len(c.Votes)))
	for _, v := range c.Votes {
		b = v.append(b)
	}
	return b
}

func readCandidate(r *wire.Reader) *Candidate {
	c := &Candidate{}
	r.Fixed(c.Author[:])
	c.Height = r.U64()
	c.Attempt = r.U32()
	c.Header = readHeader(r)
	nested := func(want byte) bool {
		if kind := r.U8(); kind != want && r.Err() == nil {
			r.Fail(fmt.Errorf("candidate carries kind %d, want %d", kind, want))
		}
		return r.Err() == nil
	}
	for i := r.Count(MaxMembers, 1+proposalMin); i > 0 && nested(kindProposal); i-- {
		c.Proposals = append(c.Proposals, readProposal(r))
	}
	for i := r.Count(MaxMembers, 1+ballotSize); i > 0 && nested(kindBallot); i-- {
		c.Votes = append(c.Votes, readBallot(r))
	}
	r.Fixed(c.Sig[:])
	return c
}

func (l *Ledger) append(b []byte) []byte {
	b = append(b, kindLedger)
	b = l.Header.Append(b)
	return l.Certificate.Append(b)
}
