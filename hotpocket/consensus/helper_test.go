package consensus

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// fakeSigner and fakeVerifier stand in for Ed25519: a signature is a hash of
// the author and the message.
type fakeSigner struct{ author key.Public }

func fakeSignature(k key.Public, msg []byte) (sig key.Signature) {
	h := digest.Tagged("fake signature", k[:], msg)
	copy(sig[:], h[:])
	return sig
}

func (s fakeSigner) Sign(msg []byte) key.Signature { return fakeSignature(s.author, msg) }

type fakeVerifier struct{}

func (fakeVerifier) Verify(k key.Public, msg, sig []byte) bool {
	want := fakeSignature(k, msg)
	return slices.Equal(want[:], sig)
}

func fakeKey(i int) key.Public {
	var k key.Public
	k[0] = key.Prefix
	binary.BigEndian.PutUint32(k[1:], uint32(i+1))
	return k
}

func fakeParams(n, threshold int) Params {
	p := Params{Chain: ChainOf("test"), Threshold: threshold, RoundTime: time.Second, PerRound: 10}
	for i := range n {
		p.Members = append(p.Members, fakeKey(i))
	}
	return p
}

func hashOf(name string) digest.Hash { return digest.Tagged("test", []byte(name)) }

// testCore is a core of the first of n members at the height after last, with
// everything held.
func testCore(t *testing.T, self int, params Params, restored Restored) *Core {
	t.Helper()
	k := fakeKey(self)
	c, err := New(Options{
		Self:     k,
		Signer:   fakeSigner{k},
		Verifier: fakeVerifier{},
		Holds:    func(digest.Hash) bool { return true },
		Offer:    func() ([]digest.Hash, digest.Hash) { return nil, digest.Hash{} },
	}, params, restored, Now{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (p *Proposal) signedBy(chain digest.Hash) *Proposal {
	p.Sig = fakeSignature(p.Author, p.signed(chain))
	p.OutputSig = fakeSignature(p.Author, p.Result.Output[:])
	return p
}

func fakeBallot(params Params, author int, phase Phase, height uint64, attempt uint32, hash digest.Hash) *Ballot {
	b := &Ballot{Author: fakeKey(author), Phase: phase, Height: height, Attempt: attempt, Hash: hash}
	b.Sig = fakeSignature(b.Author, b.signed(params.Chain))
	return b
}
