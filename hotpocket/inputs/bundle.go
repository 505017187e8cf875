package inputs

import (
	"errors"
	"fmt"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

const (
	// MaxBundleBytes is the greatest size of an encoded bundle. A single
	// container must fit into it together with BundleOverhead and
	// ItemOverhead.
	MaxBundleBytes = 8 << 20
	// MaxBundleItems is the greatest number of inputs in a bundle.
	MaxBundleItems = 65536
	// BundleOverhead is what a bundle takes besides its items, in bytes.
	BundleOverhead = key.PublicSize + 8 + 8 + 4 + key.SignatureSize
	// ItemOverhead is what an item takes besides its container, in bytes.
	ItemOverhead = key.PublicSize + 1 + key.SignatureSize + 4

	bundleTag = "evernode hotpocket bundle of inputs, version 1"
	// bundleSignTag precedes the digest in what the origin signs. With the
	// same key a node signs texts that strangers choose a part of (the
	// challenge of spec/hotpocket.md section 1.3) and bare 32-byte output
	// roots. The byte 0xFF occurs in no UTF-8 text, and the tag alone is
	// longer than a root, so that neither can be passed off as a bundle.
	bundleSignTag = "evernode hotpocket \xff signed by its origin: bundle of inputs, version 1\n"
)

// Bundle is a list of inputs that one node took from its users and vouches for.
// It is made by Pack or DecodeBundle and never changes, except that Verify keeps
// what it parsed.
type Bundle struct {
	// Origin is the node that packed the bundle.
	Origin key.Public
	// Epoch is the start time of the origin's process in milliseconds, so
	// that Seq can begin anew with every process.
	Epoch uint64
	// Seq numbers the bundles of one epoch: 1, 2, 3 …
	Seq uint64
	// Items are the inputs; there is at least one.
	Items []Submission
	// Sig is the origin's signature.
	Sig key.Signature

	encoded   []byte
	digest    digest.Hash
	inputs    []Input
	maxLedger uint64
}

// Fit returns how many of the first items fit into one bundle. It is 0 when
// there are none or when the first is too large for any bundle.
func Fit(items []Submission) int {
	size := BundleOverhead
	for i := range items {
		size += ItemOverhead + len(items[i].Container)
		if size > MaxBundleBytes || i == MaxBundleItems {
			return i
		}
	}
	return len(items)
}

// Pack makes and signs a bundle of submissions that Check found to be good;
// parsed are the inputs that Check returned for them. The containers are copied.
func Pack(signer key.Private, epoch, seq uint64, items []Submission, parsed []Input) (*Bundle, error) {
	if len(items) == 0 {
		return nil, errors.New("pack bundle: it has no inputs")
	}
	if len(items) != len(parsed) {
		return nil, fmt.Errorf("pack bundle: %d submissions with %d parsed inputs", len(items), len(parsed))
	}
	if n := Fit(items); n < len(items) {
		return nil, fmt.Errorf("pack bundle: only %d of %d inputs fit into it", n, len(items))
	}
	size := BundleOverhead
	for i := range items {
		size += ItemOverhead + len(items[i].Container)
	}
	origin := signer.Public()
	b := append(make([]byte, 0, size), origin[:]...)
	b = wire.AppendU64(b, epoch)
	b = wire.AppendU64(b, seq)
	b = wire.AppendU32(b, uint32(len(items)))
	for i := range items {
		s := &items[i]
		b = append(b, s.User[:]...)
		b = wire.AppendU8(b, uint8(s.Protocol))
		b = append(b, s.Sig[:]...)
		b = wire.AppendBytes(b, s.Container)
	}
	sig := signer.Sign(bundleSigned(digest.Tagged(bundleTag, b)))
	bundle, err := DecodeBundle(append(b, sig[:]...))
	if err != nil {
		return nil, fmt.Errorf("pack bundle: %w", err)
	}
	for i := range parsed {
		if parsed[i].User != items[i].User {
			return nil, fmt.Errorf("pack bundle: parsed input %d is of another user", i)
		}
	}
	bundle.keep(append([]Input(nil), parsed...))
	return bundle, nil
}

func bundleSigned(d digest.Hash) []byte {
	return append([]byte(bundleSignTag), d[:]...)
}

// DecodeBundle reads an encoded bundle and checks its form and limits, but
// neither signatures nor containers: Verify does. The bundle keeps b, which must
// not change any more.
//
// The form is: origin (33 bytes), epoch, seq (8 bytes each), count (4 bytes); for
// each item user (33), protocol (1), signature (64), container (4-byte length and
// bytes); then the origin's signature (64). Integers are big-endian.
func DecodeBundle(b []byte) (*Bundle, error) {
	if len(b) > MaxBundleBytes {
		return nil, fmt.Errorf("bundle of %d bytes, at most %d are allowed", len(b), MaxBundleBytes)
	}
	if len(b) < BundleOverhead {
		return nil, fmt.Errorf("bundle of %d bytes: %w", len(b), wire.ErrShort)
	}
	content := b[: len(b)-key.SignatureSize : len(b)-key.SignatureSize]
	bundle := &Bundle{encoded: b}
	copy(bundle.Sig[:], b[len(content):])
	r := wire.NewReader(content)
	r.Fixed(bundle.Origin[:])
	bundle.Epoch = r.U64()
	bundle.Seq = r.U64()
	n := r.Count(MaxBundleItems, ItemOverhead)
	if r.Err() == nil && n == 0 {
		return nil, errors.New("bundle has no inputs")
	}
	bundle.Items = make([]Submission, n)
	for i := range bundle.Items {
		s := &bundle.Items[i]
		r.Fixed(s.User[:])
		s.Protocol = Protocol(r.U8())
		r.Fixed(s.Sig[:])
		s.Container = r.View(MaxBundleBytes)
		if r.Err() != nil {
			return nil, fmt.Errorf("bundle: item %d: %w", i, r.Err())
		}
		if s.User[0] != key.Prefix {
			return nil, fmt.Errorf("bundle: item %d: user's key starts with %02x, want %02x", i, s.User[0], key.Prefix)
		}
		if s.Protocol != JSON && s.Protocol != BSON {
			return nil, fmt.Errorf("bundle: item %d: unknown %s", i, s.Protocol)
		}
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if bundle.Origin[0] != key.Prefix {
		return nil, fmt.Errorf("bundle: origin's key starts with %02x, want %02x", bundle.Origin[0], key.Prefix)
	}
	bundle.digest = digest.Tagged(bundleTag, content)
	return bundle, nil
}

// Encoded returns the binary form, which must not be changed.
func (b *Bundle) Encoded() []byte { return b.encoded }

// Size returns the length of the binary form in bytes.
func (b *Bundle) Size() int { return len(b.encoded) }

// Digest names the bundle: a hash of everything in it but the origin's signature.
func (b *Bundle) Digest() digest.Hash { return b.digest }

// Verified reports whether Verify has succeeded (or Pack made the bundle).
func (b *Bundle) Verified() bool { return b.inputs != nil }

// Inputs returns the parsed inputs, one for each item and in the same order, or
// nil before Verify has succeeded. They must not be changed.
func (b *Bundle) Inputs() []Input { return b.inputs }

// MaxLedger returns the greatest seq_no of a ledger that may still hold any
// input of a verified bundle.
func (b *Bundle) MaxLedger() uint64 { return b.maxLedger }

func (b *Bundle) keep(parsed []Input) {
	for i := range parsed {
		b.maxLedger = max(b.maxLedger, parsed[i].MaxLedger)
	}
	b.inputs = parsed
}

// Verify checks the origin's signature, every user's signature and every
// container, and keeps the parsed inputs. It spreads the work over up to workers
// goroutines and returns when all have ended; with 1 or less it starts none. A
// second call costs nothing.
//
// One bad item makes the whole bundle bad, for honest origins check what they
// pack: the error names the item, and whoever sent the bundle can be blamed when
// the origin's signature is good, as it always is when the error names an item.
//
// Verify must not run at the same time as another method of the bundle.
func (b *Bundle) Verify(workers int, keys *key.Cache) error {
	if b.inputs != nil {
		return nil
	}
	if !b.Origin.Verify(bundleSigned(b.digest), b.Sig[:]) {
		return fmt.Errorf("bundle %s: signature of origin %s is wrong", b.digest.Short(), b.Origin.Short())
	}
	parsed, errs := Check(b.Items, workers, keys)
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("bundle %s of origin %s: item %d: %w", b.digest.Short(), b.Origin.Short(), i, err)
		}
	}
	b.keep(parsed)
	return nil
}
