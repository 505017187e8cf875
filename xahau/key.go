package xahau

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// KeyType is the kind of signature a key makes.
type KeyType uint8

// The two kinds of keys.
const (
	Secp256k1 KeyType = iota
	Ed25519
)

// String is the name servers use.
func (t KeyType) String() string {
	if t == Ed25519 {
		return "ed25519"
	}
	return "secp256k1"
}

// SeedSize is the length of a seed in bytes.
const SeedSize = 16

// Seed is what a key pair is derived from and what people write down (s... or
// sEd...). Its String is not the seed, lest it appear in a log; see Secret.
type Seed struct {
	entropy [SeedSize]byte
	kind    KeyType
}

var (
	seedPrefix        = []byte{0x21}
	seedEd25519Prefix = []byte{0x01, 0xE1, 0x4B}
	publicPrefix      = []byte{0x23}
	nodePublicPrefix  = []byte{0x1C}
)

// NewSeed makes a seed of 16 bytes of r, which must be as good as crypto/rand.Reader.
func NewSeed(r io.Reader, kind KeyType) (Seed, error) {
	s := Seed{kind: kind}
	if _, err := io.ReadFull(r, s.entropy[:]); err != nil {
		return Seed{}, fmt.Errorf("make a seed: %w", err)
	}
	return s, nil
}

// SeedFromEntropy makes a seed of 16 given bytes.
func SeedFromEntropy(entropy [SeedSize]byte, kind KeyType) Seed { return Seed{entropy, kind} }

// SeedFromPassphrase makes the seed that servers derive from a passphrase, such
// as the "masterpassphrase" of a new ledger's first account.
func SeedFromPassphrase(passphrase string, kind KeyType) Seed {
	h := Sha512Half([]byte(passphrase))
	return Seed{[SeedSize]byte(h[:SeedSize]), kind}
}

// ParseSeed reads a seed; its form tells the kind of key. The error does not
// contain the text.
func ParseSeed(secret string) (Seed, error) {
	b, err := decodeBase58(secret)
	if err != nil {
		if !errors.Is(err, errChecksum) {
			err = errors.New("malformed")
		}
		return Seed{}, fmt.Errorf("seed: %w", err)
	}
	for kind, prefix := range map[KeyType][]byte{Secp256k1: seedPrefix, Ed25519: seedEd25519Prefix} {
		if len(b) == len(prefix)+SeedSize && string(b[:len(prefix)]) == string(prefix) {
			return Seed{[SeedSize]byte(b[len(prefix):]), kind}, nil
		}
	}
	return Seed{}, errors.New("seed: is something else")
}

// Secret is the seed's text.
func (s Seed) Secret() string {
	if s.kind == Ed25519 {
		return encodeBase58(seedEd25519Prefix, s.entropy[:])
	}
	return encodeBase58(seedPrefix, s.entropy[:])
}

// String does not show the seed.
func (s Seed) String() string { return s.kind.String() + " seed" }

// GoString does not show the seed.
func (s Seed) GoString() string { return s.String() }

// Type tells the kind of key.
func (s Seed) Type() KeyType { return s.kind }

// Entropy is the 16 bytes of the seed.
func (s Seed) Entropy() [SeedSize]byte { return s.entropy }

// KeyPair derives the seed's key pair.
func (s Seed) KeyPair() KeyPair {
	if s.kind == Ed25519 {
		h := Sha512Half(s.entropy[:])
		return KeyPair{ed: ed25519.NewKeyFromSeed(h[:])}
	}
	// A root key, and the first account key derived from its public half.
	root := scalarFrom(s.entropy[:])
	public := secp256k1.NewPrivateKey(root).PubKey().SerializeCompressed()
	sum := scalarFrom(public, binary.BigEndian.AppendUint32(nil, 0))
	return KeyPair{k1: secp256k1.NewPrivateKey(sum.Add(root))}
}

// scalarFrom is the first hash of the parts and a counter that is a private key.
func scalarFrom(parts ...[]byte) *secp256k1.ModNScalar {
	for i := uint32(0); ; i++ {
		d := sha512.New()
		for _, p := range parts {
			d.Write(p)
		}
		d.Write(binary.BigEndian.AppendUint32(nil, i))
		var s secp256k1.ModNScalar
		if overflow := s.SetByteSlice(d.Sum(nil)[:32]); !overflow && !s.IsZero() {
			return &s
		}
	}
}

// Signer makes signatures, with a key in memory or elsewhere.
type Signer interface {
	Public() PublicKey
	// Sign signs a message of any length.
	Sign(message []byte) ([]byte, error)
}

// KeyPair is a private key with its public key, a Signer. The zero KeyPair
// signs nothing.
type KeyPair struct {
	k1 *secp256k1.PrivateKey
	ed ed25519.PrivateKey
}

// KeyPairFromPrivate takes a raw private key of 32 bytes.
func KeyPairFromPrivate(private []byte, kind KeyType) (KeyPair, error) {
	if len(private) != 32 {
		return KeyPair{}, fmt.Errorf("private key has %d bytes, want 32", len(private))
	}
	if kind == Ed25519 {
		return KeyPair{ed: ed25519.NewKeyFromSeed(private)}, nil
	}
	var s secp256k1.ModNScalar
	if overflow := s.SetByteSlice(private); overflow || s.IsZero() {
		return KeyPair{}, errors.New("private key is outside the curve's order")
	}
	return KeyPair{k1: secp256k1.NewPrivateKey(&s)}, nil
}

// ParsePrivateKey reads a private key in the hex form of the JavaScript
// libraries: 00 or ED before 32 bytes, or 32 bytes of a secp256k1 key. The error
// does not contain the text.
func ParsePrivateKey(text string) (KeyPair, error) {
	b, err := decodeHex(text)
	switch {
	case err != nil:
		return KeyPair{}, errors.New("private key is not hex")
	case len(b) == 33 && b[0] == edPrefix:
		return KeyPairFromPrivate(b[1:], Ed25519)
	case len(b) == 33 && b[0] == 0:
		return KeyPairFromPrivate(b[1:], Secp256k1)
	}
	return KeyPairFromPrivate(b, Secp256k1)
}

// Private is the key's secret in the hex form of the JavaScript libraries.
func (k KeyPair) Private() string {
	switch {
	case k.ed != nil:
		return "ED" + upperHex(k.ed.Seed())
	case k.k1 != nil:
		return "00" + upperHex(k.k1.Serialize())
	}
	return ""
}

// String does not show the private key.
func (k KeyPair) String() string { return "key pair of " + k.Account().String() }

// GoString does not show the private key.
func (k KeyPair) GoString() string { return k.String() }

// Public is the public key.
func (k KeyPair) Public() (p PublicKey) {
	switch {
	case k.ed != nil:
		p[0] = edPrefix
		copy(p[1:], k.ed.Public().(ed25519.PublicKey))
	case k.k1 != nil:
		copy(p[:], k.k1.PubKey().SerializeCompressed())
	}
	return p
}

// Account is the account whose master key this is.
func (k KeyPair) Account() AccountID { return k.Public().Account() }

// Sign signs a message: Ed25519 the message itself, ECDSA its SHA-512Half, as
// DER, deterministic and with the lower of the two possible S, which alone is
// valid on the ledger.
func (k KeyPair) Sign(message []byte) ([]byte, error) {
	switch {
	case k.ed != nil:
		return ed25519.Sign(k.ed, message), nil
	case k.k1 != nil:
		h := Sha512Half(message)
		return ecdsa.Sign(k.k1, h[:]).Serialize(), nil
	}
	return nil, errors.New("sign: no key")
}

// PublicKeySize is the length of public keys in bytes.
const PublicKeySize = 33

const edPrefix = 0xED

// PublicKey is a compressed secp256k1 point, or ED and an Ed25519 key.
type PublicKey [PublicKeySize]byte

// ParsePublicKey reads a public key in hex, or as the ledger's Base58 of accounts
// (aB...) or nodes (n...).
func ParsePublicKey(s string) (PublicKey, error) {
	b, err := decodeHex(s)
	if err != nil {
		for _, prefix := range [][]byte{publicPrefix, nodePublicPrefix} {
			if b, err = decodeAs(s, prefix, PublicKeySize); err == nil {
				break
			}
		}
	}
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key %q: %w", shorten(s), err)
	}
	return PublicKeyFromBytes(b)
}

// PublicKeyFromBytes checks that b is a public key and copies it.
func PublicKeyFromBytes(b []byte) (PublicKey, error) {
	if len(b) != PublicKeySize {
		return PublicKey{}, fmt.Errorf("public key has %d bytes, want %d", len(b), PublicKeySize)
	}
	switch b[0] {
	case edPrefix:
	case 2, 3:
		if _, err := secp256k1.ParsePubKey(b); err != nil {
			return PublicKey{}, fmt.Errorf("public key: %w", err)
		}
	default:
		return PublicKey{}, fmt.Errorf("public key begins with %02X", b[0])
	}
	return PublicKey(b), nil
}

// Type tells the kind of key.
func (p PublicKey) Type() KeyType {
	if p[0] == edPrefix {
		return Ed25519
	}
	return Secp256k1
}

// Account is the account whose master key this is.
func (p PublicKey) Account() AccountID { return accountID(p[:]) }

// String is upper-case hex.
func (p PublicKey) String() string { return upperHex(p[:]) }

// Base58 is the form aB... of account keys.
func (p PublicKey) Base58() string { return encodeBase58(publicPrefix, p[:]) }

// NodeBase58 is the form n... of validators' and nodes' keys.
func (p PublicKey) NodeBase58() string { return encodeBase58(nodePublicPrefix, p[:]) }

// Verify checks a signature as the ledger does: an ECDSA signature must be strict
// DER with the lower S.
func (p PublicKey) Verify(message, signature []byte) bool {
	if p[0] == edPrefix {
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(p[1:], message, signature)
	}
	key, err := secp256k1.ParsePubKey(p[:])
	if err != nil {
		return false
	}
	s, err := ecdsa.ParseDERSignature(signature)
	if err != nil {
		return false
	}
	if high := s.S(); high.IsOverHalfOrder() {
		return false
	}
	h := Sha512Half(message)
	return s.Verify(h[:], key)
}
