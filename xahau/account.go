package xahau

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// AccountID is the 20 bytes that an account's address stands for.
type AccountID [20]byte

// The accounts that nobody has a key to.
var (
	// AccountZero is rrrrrrrrrrrrrrrrrrrrrhoLvTp.
	AccountZero AccountID
	// AccountOne is rrrrrrrrrrrrrrrrrrrrBZbvji, the issuer that balances of trust
	// lines name.
	AccountOne = AccountID{19: 1}
)

var (
	accountPrefix  = []byte{0x00}
	xMainPrefix    = []byte{0x05, 0x44}
	xTestPrefix    = []byte{0x04, 0x93}
	errAccountForm = errors.New("is not an account address")
)

// ParseAddress reads a classic address (r...).
func ParseAddress(s string) (AccountID, error) {
	b, err := decodeAs(s, accountPrefix, len(AccountID{}))
	if err != nil {
		return AccountID{}, fmt.Errorf("address %q: %w", shorten(s), err)
	}
	return AccountID(b), nil
}

// MustAddress is ParseAddress for addresses in the program text; it panics.
func MustAddress(s string) AccountID {
	id, err := ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return id
}

// String is the classic address.
func (a AccountID) String() string { return encodeBase58(accountPrefix, a[:]) }

// IsZero tells whether this is the account of all zeros, which also stands for
// no issuer.
func (a AccountID) IsZero() bool { return a == AccountID{} }

// MarshalText writes the classic address.
func (a AccountID) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads a classic address.
func (a *AccountID) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAddress(string(text))
	return err
}

// XAddress is an account with the tag that a payment to or from it must carry.
type XAddress struct {
	Account AccountID
	Tag     uint32
	HasTag  bool
	Test    bool // of a test network
}

// ParseXAddress reads an X-address (X... on the main network, T... on others).
func ParseXAddress(s string) (XAddress, error) {
	x, err := parseXAddress(s)
	if err != nil {
		return XAddress{}, fmt.Errorf("tagged address %q: %w", shorten(s), err)
	}
	return x, nil
}

func parseXAddress(s string) (x XAddress, err error) {
	b, err := decodeBase58(s)
	if err != nil {
		return x, err
	}
	if len(b) != 2+20+1+8 {
		return x, errAccountForm
	}
	switch string(b[:2]) {
	case string(xMainPrefix):
	case string(xTestPrefix):
		x.Test = true
	default:
		return x, errAccountForm
	}
	copy(x.Account[:], b[2:])
	tag := binary.LittleEndian.Uint64(b[23:])
	switch flag := b[22]; {
	case flag > 1:
		return x, fmt.Errorf("flag %d is not supported", flag)
	case tag>>32 != 0, flag == 0 && tag != 0:
		return x, errors.New("the tag is malformed")
	default:
		x.HasTag, x.Tag = flag == 1, uint32(tag)
	}
	return x, nil
}

// String is the X-address.
func (x XAddress) String() string {
	prefix := xMainPrefix
	if x.Test {
		prefix = xTestPrefix
	}
	b := append([]byte{}, x.Account[:]...)
	if x.HasTag {
		b = append(b, 1)
	} else {
		b = append(b, 0)
		x.Tag = 0
	}
	return encodeBase58(prefix, binary.LittleEndian.AppendUint64(b, uint64(x.Tag)))
}

// shorten keeps what somebody sent from filling an error message.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func decodeHex(s string) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not hex: %w", shorten(s), err)
	}
	return b, nil
}
