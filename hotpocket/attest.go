package hotpocket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// attestTag starts what a member signs when it vouches for its chain. The byte
// 0xFF never occurs in UTF-8 text and the tag is longer than the 32 characters
// that a user may have the node sign (spec/hotpocket.md section 1.3), so that no
// signature given to a user can be taken for one of these, nor for a ballot,
// whose tag is another one.
const attestTag = "evernode hotpocket attestation of the chain v1\xff"

// challengeSize is the length in bytes of what makes an attestation fresh.
const challengeSize = 32

type challenge [challengeSize]byte

func newChallenge() (c challenge, err error) {
	if _, err := rand.Read(c[:]); err != nil {
		return c, fmt.Errorf("random challenge: %w", err)
	}
	return c, nil
}

// attestation is a member's word, given on a challenge and so not older than
// that: a ledger of this height and hash has closed here, I am a member, and
// these are all changes of the members so far.
type attestation struct {
	height uint64
	ledger digest.Hash
	// changes is the hash over all ledgers up to this one that changed the
	// members (changes.upTo).
	changes digest.Hash
	sig     key.Signature
}

func (a *attestation) signed(chain digest.Hash, c challenge, author key.Public) []byte {
	b := make([]byte, 0, len(attestTag)+4*digest.Size+key.PublicSize+8)
	b = append(b, attestTag...)
	b = append(b, chain[:]...)
	b = append(b, c[:]...)
	b = append(b, author[:]...)
	b = wire.AppendU64(b, a.height)
	b = append(b, a.ledger[:]...)
	return append(b, a.changes[:]...)
}

func (a *attestation) encode() []byte {
	b := wire.AppendU64(nil, a.height)
	b = append(b, a.ledger[:]...)
	b = append(b, a.changes[:]...)
	return append(b, a.sig[:]...)
}

func decodeAttestation(b []byte) (a attestation, err error) {
	r := wire.NewReader(b)
	a.height = r.U64()
	r.Fixed(a.ledger[:])
	r.Fixed(a.changes[:])
	r.Fixed(a.sig[:])
	if err := r.Close(); err != nil {
		return attestation{}, fmt.Errorf("attestation: %w", err)
	}
	return a, nil
}

// attestRequest asks for a member's attestation, of the member or of somebody
// who is connected to it.
type attestRequest struct {
	relayed bool // not to be passed on again
	member  key.Public
	challenge
	height uint64 // 0: the newest ledger
}

func (q *attestRequest) encode() []byte {
	b := wire.AppendBool(nil, q.relayed)
	b = append(b, q.member[:]...)
	b = append(b, q.challenge[:]...)
	return wire.AppendU64(b, q.height)
}

func decodeAttestRequest(b []byte) (q attestRequest, err error) {
	r := wire.NewReader(b)
	q.relayed = r.Bool()
	r.Fixed(q.member[:])
	r.Fixed(q.challenge[:])
	q.height = r.U64()
	if err := r.Close(); err != nil {
		return attestRequest{}, fmt.Errorf("request for an attestation: %w", err)
	}
	return q, nil
}

var (
	errNoMember     = errors.New("this node is not a member of the UNL")
	errNoLedger     = errors.New("no such ledger has closed here yet")
	errNotConnected = errors.New("this node is not connected to that member")
)

// serveAttest gives this node's attestation, or gets that of a member that is
// connected here: a newcomer may not be able to reach it by itself.
func (n *node) serveAttest(ctx context.Context, payload []byte) ([]byte, error) {
	q, err := decodeAttestRequest(payload)
	if err != nil {
		return nil, err
	}
	if q.member != n.key.Public() {
		if q.relayed || !slices.ContainsFunc(n.mesh.Peers(), isPeer(q.member)) {
			return nil, errNotConnected
		}
		q.relayed = true
		return n.mesh.Request(ctx, q.member, kindAttest, q.encode())
	}
	if !slices.Contains(n.conf.Load().Contract.UNL, n.key.Public()) {
		return nil, errNoMember
	}
	newest := n.shown.Load()
	if q.height == 0 {
		q.height = newest
	}
	if q.height == 0 || q.height > newest {
		return nil, errNoLedger
	}
	r, ok, err := n.store.Get(q.height)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errNotHeld
	}
	a := attestation{height: r.Seq, ledger: r.Hash, changes: n.changes.upTo(r.Seq)}
	a.sig = n.key.Sign(a.signed(n.chain, q.challenge, q.member))
	return a.encode(), nil
}

// serveTip answers with the last closed ledger and the header before it, which
// names the patch.cfg under which it closed.
func (n *node) serveTip() ([]byte, error) {
	seq := n.shown.Load()
	if seq == 0 {
		return nil, errNotHeld
	}
	last, ok, err := n.store.Get(seq)
	if err != nil || !ok {
		return nil, errors.Join(err, errNotHeld)
	}
	var before consensus.Header
	if seq > 1 {
		r, ok, err := n.store.Get(seq - 1)
		if err != nil || !ok {
			return nil, errors.Join(err, errNotHeld)
		}
		if before, _, err = consensus.DecodeLedger(r.Body); err != nil {
			return nil, fmt.Errorf("ledger %d: %w", r.Seq, err)
		}
	}
	return wire.AppendBytes(wire.AppendBytes(nil, before.Append(nil)), last.Body), nil
}

// tip is a closed ledger with the header before it.
type tip struct {
	before consensus.Header
	ledger consensus.Ledger
}

// decodeTip reads what serveTip wrote and checks that its parts belong together,
// but no signature.
func decodeTip(b []byte) (t tip, err error) {
	r := wire.NewReader(b)
	before, ledger := r.View(len(b)), r.View(len(b))
	if err = r.Close(); err == nil {
		t.before, err = consensus.DecodeHeader(before)
	}
	if err == nil {
		t.ledger.Header, t.ledger.Certificate, err = consensus.DecodeLedger(ledger)
	}
	if h := &t.ledger.Header; err == nil && (h.Height == 0 || h.Height != t.before.Height+1 || h.Prev != t.before.Hash()) {
		err = fmt.Errorf("ledger %d does not follow the given ledger %d", h.Height, t.before.Height)
	}
	if err != nil {
		return tip{}, fmt.Errorf("newest ledger: %w", err)
	}
	return t, nil
}
