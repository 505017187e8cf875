// Package digest holds the 32-byte BLAKE3 hash that names everything HotPocket
// agrees on: ledgers, bundles of inputs, execution results, files and blocks.
//
// Two ways of hashing live here. Sum is plain BLAKE3, for values whose hash is
// part of a public format (input hashes, output trees, file contents). Tagged
// separates domains and binds the length of every part, for everything of our
// own: no two different lists of parts, and no two different kinds of value,
// can be hashed to the same input.
package digest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
)

// Size is the length of a Hash in bytes.
const Size = 32

// Hash is a 32-byte BLAKE3 hash. Its text form is lower-case hex.
type Hash [Size]byte

// Sum returns the plain BLAKE3 hash of the concatenation of the parts.
func Sum(parts ...[]byte) Hash {
	if len(parts) == 1 {
		return blake3.Sum256(parts[0])
	}
	h := blake3.New()
	for _, p := range parts {
		h.Write(p)
	}
	var out Hash
	h.Sum(out[:0])
	return out
}

// Tagged returns BLAKE3 over the domain tag and the parts, each preceded by its
// length as 8 bytes big-endian.
func Tagged(tag string, parts ...[]byte) Hash {
	h := blake3.New()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(tag)))
	h.Write(n[:])
	h.WriteString(tag)
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	var out Hash
	h.Sum(out[:0])
	return out
}

// Parse reads a hash from 64 hex digits of either case.
func Parse(s string) (Hash, error) {
	var h Hash
	if len(s) != 2*Size {
		return h, fmt.Errorf("hash has %d characters, want %d", len(s), 2*Size)
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return h, fmt.Errorf("hash %q: %w", s, err)
	}
	return h, nil
}

// String returns the hash as 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Short returns the first 8 hex digits, for logs.
func (h Hash) Short() string { return hex.EncodeToString(h[:4]) }

// IsZero reports whether h is 32 zero bytes, which stands for "none".
func (h Hash) IsZero() bool { return h == Hash{} }

// Compare orders hashes bytewise.
func (h Hash) Compare(o Hash) int { return bytes.Compare(h[:], o[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(b []byte) error {
	v, err := Parse(string(b))
	if err == nil {
		*h = v
	}
	return err
}
