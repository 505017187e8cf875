package consensus

import (
	"fmt"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// Certificate proves that a ledger closed: commits of q members, all of one
// attempt.
type Certificate struct {
	Attempt uint32
	Commits []Signed
}

// Signed is a signature and its author.
type Signed struct {
	Author key.Public
	Sig    key.Signature
}

// Append appends the encoding: attempt, number of commits, then author and
// signature of each.
func (c *Certificate) Append(b []byte) []byte {
	b = wire.AppendU32(b, c.Attempt)
	b = wire.AppendU32(b, uint32(len(c.Commits)))
	for i := range c.Commits {
		b = append(b, c.Commits[i].Author[:]...)
		b = append(b, c.Commits[i].Sig[:]...)
	}
	return b
}

func readCertificate(r *wire.Reader) (c Certificate) {
	c.Attempt = r.U32()
	n := r.Count(MaxMembers, key.PublicSize+key.SignatureSize)
	if n > 0 {
		c.Commits = make([]Signed, n)
	}
	for i := range c.Commits {
		r.Fixed(c.Commits[i].Author[:])
		r.Fixed(c.Commits[i].Sig[:])
	}
	return c
}

// AppendLedger appends a header and its certificate, each with its length.
func AppendLedger(b []byte, h *Header, c *Certificate) []byte {
	b = wire.AppendBytes(b, h.Append(nil))
	return wire.AppendBytes(b, c.Append(nil))
}

// DecodeLedger reads what AppendLedger wrote.
func DecodeLedger(b []byte) (Header, Certificate, error) {
	r := wire.NewReader(b)
	hr := wire.NewReader(r.View(len(b)))
	cr := wire.NewReader(r.View(len(b)))
	err := r.Close()
	if err != nil {
		return Header{}, Certificate{}, fmt.Errorf("closed ledger: %w", err)
	}
	h, c := readHeader(hr), readCertificate(cr)
	if err = hr.Close(); err == nil {
		err = cr.Close()
	}
	if err != nil {
		return Header{}, Certificate{}, fmt.Errorf("closed ledger: %w", err)
	}
	return h, c, nil
}

// Verify checks that c proves h under p, which must be the parameters in force
// at h.Height: those that follow from the patch hash of the ledger before. It
// needs nothing else and can be called by anybody.
func (c *Certificate) Verify(v Verifier, p Params, h *Header) error {
	hash := h.Hash()
	return c.verify(v, p, h.Height, hash)
}

func (c *Certificate) verify(v Verifier, p Params, height uint64, hash digest.Hash) error {
	var have Bits
	for _, s := range c.Commits {
		i := p.index(s.Author)
		if i < 0 {
			return fmt.Errorf("certificate of ledger %d: %s is not in the UNL", height, s.Author.Short())
		}
		if have.Has(i) {
			return fmt.Errorf("certificate of ledger %d: %s signed twice", height, s.Author.Short())
		}
		have.Set(i)
	}
	if q := p.Quorum(); len(c.Commits) < q {
		return fmt.Errorf("certificate of ledger %d: %d commits, want %d", height, len(c.Commits), q)
	}
	for _, s := range c.Commits {
		b := Ballot{Author: s.Author, Phase: Commit, Height: height, Attempt: c.Attempt, Hash: hash}
		if !v.Verify(s.Author, b.signed(p.Chain), s.Sig[:]) {
			return fmt.Errorf("certificate of ledger %d: wrong signature of %s", height, s.Author.Short())
		}
	}
	return nil
}
