package xahau

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"strings"

	//lint:ignore SA1019 account identifiers of the ledger are made with it
	"golang.org/x/crypto/ripemd160"
)

// Hash256 is 32 bytes: the hash of a transaction or ledger, the index of a
// ledger entry, the key of a hook's state. Its text is upper-case hex.
type Hash256 [32]byte

// Hash160 is 20 bytes that are neither an account nor a currency by type.
type Hash160 [20]byte

// Hash128 is 16 bytes.
type Hash128 [16]byte

// ParseHash256 reads 64 hex digits of either case.
func ParseHash256(s string) (h Hash256, err error) {
	return h, parseHex(h[:], s)
}

func parseHex(dst []byte, s string) error {
	b, err := decodeHex(s)
	if err != nil {
		return err
	}
	if len(b) != len(dst) {
		return fmt.Errorf("%q has %d bytes, want %d", shorten(s), len(b), len(dst))
	}
	copy(dst, b)
	return nil
}

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// String is upper-case hex.
func (h Hash256) String() string { return upperHex(h[:]) }

// String is upper-case hex.
func (h Hash160) String() string { return upperHex(h[:]) }

// String is upper-case hex.
func (h Hash128) String() string { return upperHex(h[:]) }

// IsZero tells whether all bytes are zero.
func (h Hash256) IsZero() bool { return h == Hash256{} }

// Compare orders hashes as numbers with the first byte the highest.
func (h Hash256) Compare(g Hash256) int { return bytes.Compare(h[:], g[:]) }

// MarshalText writes upper-case hex.
func (h Hash256) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads hex of either case.
func (h *Hash256) UnmarshalText(text []byte) error { return parseHex(h[:], string(text)) }

// Prefix distinguishes what a hash is of: four bytes before the content.
type Prefix [4]byte

// The prefixes of the ledger.
var (
	PrefixTransaction  = Prefix{'T', 'X', 'N', 0}
	PrefixTxNode       = Prefix{'S', 'N', 'D', 0}
	PrefixLeafNode     = Prefix{'M', 'L', 'N', 0}
	PrefixInnerNode    = Prefix{'M', 'I', 'N', 0}
	PrefixLedger       = Prefix{'L', 'W', 'R', 0}
	PrefixSign         = Prefix{'S', 'T', 'X', 0}
	PrefixMultiSign    = Prefix{'S', 'M', 'T', 0}
	PrefixValidation   = Prefix{'V', 'A', 'L', 0}
	PrefixClaim        = Prefix{'C', 'L', 'M', 0}
	PrefixEmitNonce    = Prefix{'E', 'T', 'X', 0}
	PrefixHookNonce    = Prefix{'N', 'C', 'E', 0}
	PrefixHookCodeHash = Prefix{'W', 'S', 'M', 0}
)

// Sha512Half is the ledger's hash: the first half of SHA-512 of the parts in a row.
func Sha512Half(parts ...[]byte) (h Hash256) {
	if len(parts) == 1 {
		sum := sha512.Sum512(parts[0])
		copy(h[:], sum[:])
		return h
	}
	d := sha512.New()
	for _, p := range parts {
		d.Write(p)
	}
	var sum [sha512.Size]byte
	copy(h[:], d.Sum(sum[:0]))
	return h
}

// accountID is the account of a public key.
func accountID(public []byte) (id AccountID) {
	sum := sha256.Sum256(public)
	r := ripemd160.New()
	r.Write(sum[:])
	copy(id[:], r.Sum(nil))
	return id
}

// HookHash names a hook's code on the ledger (spec/ledger.md section 3).
func HookHash(wasm []byte) Hash256 { return Sha512Half(wasm) }
