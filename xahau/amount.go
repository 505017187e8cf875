package xahau

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"

	"evernode/xahau/xfl"
)

// DropsPerXAH is the number of drops of one unit of the native currency.
const DropsPerXAH = 1_000_000

// MaxDrops is the largest native amount that a transaction may have.
const MaxDrops = 100_000_000_000 * DropsPerXAH

// Amount is a native amount in drops or an amount of an issued currency. The
// zero Amount is 0 drops. Amounts can be compared with == if they are of one
// issue.
type Amount struct {
	drops int64
	value xfl.Float
	issue Issue
}

// Drops is a native amount.
func Drops(n int64) Amount { return Amount{drops: n} }

// Issued is an amount of an issued currency. The currency must not be native and
// the value a number.
func Issued(value xfl.Float, currency Currency, issuer AccountID) Amount {
	return Amount{value: value, issue: Issue{currency, issuer}}
}

// ParseAmount reads a native amount in drops, such as "1000000", or an issued
// one as value/currency/issuer, such as "12.5/EVR/rEvernodee8dJLaFsujS6q1EiXvZYmHXr8".
func ParseAmount(s string) (Amount, error) {
	a, err := parseAmount(s)
	if err != nil {
		return Amount{}, fmt.Errorf("amount %q: %w", shorten(s), err)
	}
	return a, nil
}

func parseAmount(s string) (Amount, error) {
	parts := make([]string, 0, 3)
	for rest := s; ; {
		i := -1
		if len(parts) < 2 {
			for j := range len(rest) {
				if rest[j] == '/' {
					i = j
					break
				}
			}
		}
		if i < 0 {
			parts = append(parts, rest)
			break
		}
		parts, rest = append(parts, rest[:i]), rest[i+1:]
	}
	switch len(parts) {
	case 1:
		a, err := parseDrops(s)
		if err == nil && (a.drops > MaxDrops || a.drops < -MaxDrops) {
			err = errors.New("is more than there is")
		}
		return a, err
	case 3:
		return parseIssued(parts[0], parts[1], parts[2])
	}
	return Amount{}, errors.New("is neither drops nor value/currency/issuer")
}

func parseDrops(s string) (Amount, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return Amount{}, errors.New("is not a number of drops")
	}
	if n >= amountPositive || n <= -amountPositive {
		return Amount{}, errors.New("has too many drops")
	}
	return Drops(n), nil
}

func parseIssued(value, currency, issuer string) (Amount, error) {
	v, err := xfl.Parse(value)
	if err != nil {
		return Amount{}, err
	}
	issue, err := parseIssue(currency, issuer)
	if err != nil {
		return Amount{}, err
	}
	if issue.IsNative() {
		return Amount{}, errNativeIssuer
	}
	return Amount{value: v, issue: issue}, nil
}

func parseIssue(currency, issuer string) (i Issue, err error) {
	if i.Currency, err = ParseCurrency(currency); err != nil {
		return i, err
	}
	if issuer == "" {
		if !i.IsNative() {
			return i, errNoIssuer
		}
		return i, nil
	}
	if i.IsNative() {
		return i, errNativeIssuer
	}
	i.Issuer, err = ParseAddress(issuer)
	return i, err
}

// IsNative tells whether the amount is in drops.
func (a Amount) IsNative() bool { return a.issue.IsNative() }

// Drops gives the drops of a native amount, 0 for an issued one.
func (a Amount) Drops() int64 { return a.drops }

// Value gives the number of an issued amount, 0 for a native one.
func (a Amount) Value() xfl.Float { return a.value }

// Issue is currency and issuer.
func (a Amount) Issue() Issue { return a.issue }

// WithIssuer is the same amount with another issuer.
func (a Amount) WithIssuer(issuer AccountID) Amount {
	a.issue.Issuer = issuer
	return a
}

// Currency is the currency's code.
func (a Amount) Currency() Currency { return a.issue.Currency }

// Issuer is the issuer, zero for native amounts.
func (a Amount) Issuer() AccountID { return a.issue.Issuer }

// Signum is -1, 0 or 1 as the amount is below, at or above zero.
func (a Amount) Signum() int {
	if !a.IsNative() {
		return a.value.Signum()
	}
	switch {
	case a.drops < 0:
		return -1
	case a.drops > 0:
		return 1
	}
	return 0
}

// Negate is the amount with the other sign.
func (a Amount) Negate() Amount {
	a.drops = -a.drops
	if n, err := a.value.Negate(); err == nil {
		a.value = n
	}
	return a
}

// String is the form that ParseAmount reads.
func (a Amount) String() string {
	if a.IsNative() {
		return strconv.FormatInt(a.drops, 10)
	}
	return a.value.String() + "/" + a.issue.Currency.String() + "/" + a.issue.Issuer.String()
}

const (
	amountIssued   = 1 << 63
	amountPositive = 1 << 62
)

// AppendBinary writes the 8 bytes of a native or 48 of an issued amount.
func (a Amount) AppendBinary(b []byte) ([]byte, error) {
	if a.IsNative() {
		if !a.issue.Issuer.IsZero() {
			return nil, errNativeIssuer
		}
		if a.drops == math.MinInt64 || a.drops >= amountPositive || a.drops <= -amountPositive {
			return nil, errors.New("has too many drops")
		}
		if a.drops < 0 {
			return binary.BigEndian.AppendUint64(b, uint64(-a.drops)), nil
		}
		return binary.BigEndian.AppendUint64(b, uint64(a.drops)|amountPositive), nil
	}
	if !a.value.Valid() {
		return nil, errors.New("has a value that is no number")
	}
	b = binary.BigEndian.AppendUint64(b, a.value.Issued())
	b = append(b, a.issue.Currency[:]...)
	return append(b, a.issue.Issuer[:]...), nil
}

// DecodeAmount reads an amount at the beginning of b and says how long it is.
func DecodeAmount(b []byte) (Amount, int, error) {
	if len(b) < 8 {
		return Amount{}, 0, errShort
	}
	v := binary.BigEndian.Uint64(b)
	if v&amountIssued == 0 {
		n := int64(v &^ amountPositive)
		if v&amountPositive == 0 {
			if n == 0 {
				return Amount{}, 0, errors.New("negative zero")
			}
			n = -n
		}
		return Drops(n), 8, nil
	}
	if len(b) < 48 {
		return Amount{}, 0, errShort
	}
	value, err := xfl.FromIssued(v)
	if err != nil {
		return Amount{}, 0, fmt.Errorf("value %016X is no number", v)
	}
	a := Issued(value, Currency(b[8:28]), AccountID(b[28:48]))
	if a.IsNative() || a.issue.Issuer.IsZero() {
		return Amount{}, 0, errors.New("issued amount of the native currency or without issuer")
	}
	return a, 48, nil
}
