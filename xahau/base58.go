package xahau

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
)

// alphabet is the ledger's order of the Base58 digits.
const alphabet = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"

var base58Values = func() (v [256]int8) {
	for i := range v {
		v[i] = -1
	}
	for i := range len(alphabet) {
		v[alphabet[i]] = int8(i)
	}
	return
}()

// maxBase58 is the length of the longest text that is read, far more than any
// address or key has.
const maxBase58 = 128

var errChecksum = errors.New("wrong checksum")

func checksum(b []byte) []byte {
	h := sha256.Sum256(b)
	h = sha256.Sum256(h[:])
	return h[:4]
}

// encodeBase58 writes prefix, payload and checksum.
func encodeBase58(prefix, payload []byte) string {
	b := append(append(make([]byte, 0, len(prefix)+len(payload)+4), prefix...), payload...)
	b = append(b, checksum(b)...)
	zeros := 0
	for zeros < len(b) && b[zeros] == 0 {
		zeros++
	}
	// Digits of the number, the last first.
	digits := make([]byte, 0, len(b)*138/100+1)
	for _, x := range b[zeros:] {
		carry := int(x)
		for i := range digits {
			carry += int(digits[i]) << 8
			digits[i] = byte(carry % 58)
			carry /= 58
		}
		for carry > 0 {
			digits = append(digits, byte(carry%58))
			carry /= 58
		}
	}
	out := bytes.Repeat([]byte{alphabet[0]}, zeros)
	for i := len(digits) - 1; i >= 0; i-- {
		out = append(out, alphabet[digits[i]])
	}
	return string(out)
}

// decodeBase58 gives what stands between nothing and the checksum.
func decodeBase58(s string) ([]byte, error) {
	if len(s) > maxBase58 {
		return nil, fmt.Errorf("%d characters are too many", len(s))
	}
	n, base := new(big.Int), big.NewInt(58)
	zeros := 0
	for zeros < len(s) && s[zeros] == alphabet[0] {
		zeros++
	}
	for i := range len(s) {
		v := base58Values[s[i]]
		if v < 0 {
			return nil, fmt.Errorf("character %q is not a Base58 digit of the ledger", s[i])
		}
		n.Add(n.Mul(n, base), big.NewInt(int64(v)))
	}
	b := append(make([]byte, zeros), n.Bytes()...)
	if len(b) < 5 {
		return nil, errors.New("too short")
	}
	b, sum := b[:len(b)-4], b[len(b)-4:]
	if !bytes.Equal(checksum(b), sum) {
		return nil, errChecksum
	}
	return b, nil
}

// decodeAs expects a prefix and a length of what follows it.
func decodeAs(s string, prefix []byte, length int) ([]byte, error) {
	b, err := decodeBase58(s)
	if err != nil {
		return nil, err
	}
	if len(b) != len(prefix)+length || !bytes.HasPrefix(b, prefix) {
		return nil, errors.New("is something else")
	}
	return b[len(prefix):], nil
}
