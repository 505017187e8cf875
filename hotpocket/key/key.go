// Package key holds the Ed25519 keys of nodes and users in HotPocket's form: a
// public key of 33 bytes and a private key of 65 bytes, each with a leading
// 0xED, written as lower-case hex (spec/hotpocket.md section 1.2).
//
// Every signature in the system is checked by one rule, ZIP-215, whether alone
// or in a batch, because nodes that judged one signature differently would
// part ways.
package key

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519/extra/cache"
)

const (
	// Prefix is the first byte of every key.
	Prefix = 0xED
	// PublicSize is the length of a public key in bytes, prefix included.
	PublicSize = 33
	// PrivateSize is the length of a private key in bytes: prefix, 32-byte
	// seed, 32-byte public key.
	PrivateSize = 65
	// SignatureSize is the length of a signature in bytes.
	SignatureSize = ed25519.SignatureSize
	// SeedSize is the length of the seed of a private key in bytes.
	SeedSize = ed25519.SeedSize
)

// rule is the one way in which signatures are verified, alone and in batches.
var rule = &ed25519.Options{Verify: ed25519.VerifyOptionsZIP_215}

// Public is a public key with its prefix. It is comparable and orders bytewise.
type Public [PublicSize]byte

// Signature is a detached Ed25519 signature.
type Signature [SignatureSize]byte

// ParsePublic reads a public key from hex of either case.
func ParsePublic(s string) (Public, error) {
	var p Public
	if len(s) != 2*PublicSize {
		return p, fmt.Errorf("public key has %d characters, want %d", len(s), 2*PublicSize)
	}
	if _, err := hex.Decode(p[:], []byte(s)); err != nil {
		return Public{}, fmt.Errorf("public key: %w", err)
	}
	if p[0] != Prefix {
		return Public{}, fmt.Errorf("public key starts with %02x, want %02x", p[0], Prefix)
	}
	return p, nil
}

// PublicFromBytes copies a 33-byte public key.
func PublicFromBytes(b []byte) (Public, error) {
	var p Public
	if len(b) != PublicSize {
		return p, fmt.Errorf("public key has %d bytes, want %d", len(b), PublicSize)
	}
	if b[0] != Prefix {
		return p, fmt.Errorf("public key starts with %02x, want %02x", b[0], Prefix)
	}
	copy(p[:], b)
	return p, nil
}

// PublicFromEd25519 adds the prefix to a bare 32-byte key.
func PublicFromEd25519(b []byte) (Public, error) {
	var p Public
	if len(b) != ed25519.PublicKeySize {
		return p, fmt.Errorf("Ed25519 public key has %d bytes, want %d", len(b), ed25519.PublicKeySize)
	}
	p[0] = Prefix
	copy(p[1:], b)
	return p, nil
}

// String returns 66 lower-case hex digits.
func (p Public) String() string { return hex.EncodeToString(p[:]) }

// Short returns the first 8 hex digits after the prefix, for logs.
func (p Public) Short() string { return hex.EncodeToString(p[1:5]) }

// Compare orders keys bytewise.
func (p Public) Compare(o Public) int { return bytes.Compare(p[:], o[:]) }

// Ed25519 returns the bare 32-byte key.
func (p Public) Ed25519() []byte { return p[1:] }

// Verify reports whether sig is p's signature of msg.
func (p Public) Verify(msg, sig []byte) bool {
	return p[0] == Prefix && len(sig) == SignatureSize &&
		ed25519.VerifyWithOptions(p[1:], msg, sig, rule)
}

// MarshalText implements encoding.TextMarshaler.
func (p Public) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Public) UnmarshalText(b []byte) error {
	v, err := ParsePublic(string(b))
	if err == nil {
		*p = v
	}
	return err
}

// Private is a private key. Its zero value signs nothing and panics when used;
// make one with Generate, FromSeed or ParsePrivate. It never prints itself.
type Private struct {
	key ed25519.PrivateKey
}

// Generate makes a new random key.
func Generate() (Private, error) {
	var seed [SeedSize]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return Private{}, fmt.Errorf("generate key: %w", err)
	}
	return FromSeed(seed[:])
}

// FromSeed derives the key of a 32-byte seed.
func FromSeed(seed []byte) (Private, error) {
	if len(seed) != SeedSize {
		return Private{}, fmt.Errorf("key seed has %d bytes, want %d", len(seed), SeedSize)
	}
	return Private{ed25519.NewKeyFromSeed(seed)}, nil
}

// ParsePrivate reads a private key from 130 hex digits and checks that its two
// halves belong together.
func ParsePrivate(s string) (Private, error) {
	if len(s) != 2*PrivateSize {
		return Private{}, fmt.Errorf("private key has %d characters, want %d", len(s), 2*PrivateSize)
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		// The cause would quote a part of the key.
		return Private{}, errors.New("private key is not hex")
	}
	if b[0] != Prefix {
		return Private{}, fmt.Errorf("private key does not start with %02x", Prefix)
	}
	k := ed25519.NewKeyFromSeed(b[1 : 1+SeedSize])
	if !bytes.Equal(k, b[1:]) {
		return Private{}, errors.New("private key's public half does not belong to its seed")
	}
	return Private{k}, nil
}

// Public returns the public key.
func (k Private) Public() Public {
	var p Public
	p[0] = Prefix
	copy(p[1:], k.key[SeedSize:])
	return p
}

// Seed returns the 32-byte seed.
func (k Private) Seed() []byte { return k.key.Seed() }

// Hex returns the 130 hex digits that ParsePrivate reads. It is a secret.
func (k Private) Hex() string { return hex.EncodeToString(append([]byte{Prefix}, k.key...)) }

// String hides the key.
func (k Private) String() string { return "private key" }

// GoString hides the key.
func (k Private) GoString() string { return "key.Private{…}" }

// IsZero reports whether k holds no key.
func (k Private) IsZero() bool { return k.key == nil }

// Sign signs msg.
func (k Private) Sign(msg []byte) Signature {
	var s Signature
	copy(s[:], ed25519.Sign(k.key, msg))
	return s
}

// Ed25519 returns the 64-byte key as the standard library lays it out.
func (k Private) Ed25519() []byte { return bytes.Clone(k.key) }

// Cache verifies signatures faster for keys that sign often, such as the
// members of a UNL: it keeps their expanded form. It is safe for concurrent
// use.
type Cache struct {
	verifier *cache.Verifier
}

// NewCache keeps the expanded form of up to n keys, the least recently used
// making place for others.
func NewCache(n int) *Cache {
	return &Cache{cache.NewVerifier(cache.NewLRUCache(n))}
}

// Verify reports whether sig is p's signature of msg.
func (c *Cache) Verify(p Public, msg, sig []byte) bool {
	return p[0] == Prefix && len(sig) == SignatureSize &&
		c.verifier.VerifyWithOptions(p[1:], msg, sig, rule)
}

// Batch verifies many signatures at once, at about half the cost of one by one.
// It is not safe for concurrent use.
type Batch struct {
	v    *ed25519.BatchVerifier
	keys *Cache // may be nil
	bad  []bool
}

// NewBatch makes room for n signatures.
func NewBatch(n int) *Batch { return &Batch{v: ed25519.NewBatchVerifierWithCapacity(n)} }

// NewBatch makes room for n signatures, most of which are of keys that have
// signed before: that saves another quarter. A nil Cache keeps nothing.
func (c *Cache) NewBatch(n int) *Batch {
	b := NewBatch(n)
	b.keys = c
	return b
}

// Add adds one signature to be verified.
func (b *Batch) Add(p Public, msg, sig []byte) {
	wrong := p[0] != Prefix || len(sig) != SignatureSize
	b.bad = append(b.bad, wrong)
	if wrong {
		sig = make([]byte, SignatureSize)
	}
	if b.keys != nil {
		b.keys.verifier.AddWithOptions(b.v, p[1:], msg, sig, rule)
		return
	}
	b.v.AddWithOptions(p[1:], msg, sig, rule)
}

// Verify returns a verdict for each signature in the order in which they were
// added, each the same as Public.Verify's.
func (b *Batch) Verify() []bool {
	_, ok := b.v.Verify(rand.Reader)
	for i, wrong := range b.bad {
		if wrong {
			ok[i] = false
		}
	}
	return ok
}
