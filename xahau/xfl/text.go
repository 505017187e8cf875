package xfl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrSyntax is the error of Parse for what is no decimal number, ErrPrecision
// for numbers that 16 digits cannot hold, ErrRange for too large or small ones.
var (
	ErrSyntax    = errors.New("not a decimal number")
	ErrPrecision = errors.New("more than 16 significant digits")
	ErrRange     = errors.New("out of range of an issued amount")
)

// Parse reads a decimal number such as "-12.5" or "1e-7". It never rounds: what
// cannot be held exactly is an error.
func Parse(s string) (Float, error) {
	f, err := parse(s)
	if err != nil {
		if len(s) > 64 {
			s = s[:64] + "…"
		}
		return 0, fmt.Errorf("value %q: %w", s, err)
	}
	return f, nil
}

func parse(s string) (Float, error) {
	if len(s) > 1024 {
		return 0, ErrSyntax
	}
	negative := strings.HasPrefix(s, "-")
	if negative || strings.HasPrefix(s, "+") {
		s = s[1:]
	}
	exponent := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.Atoi(s[i+1:])
		if err != nil || e > 1<<20 || e < -1<<20 {
			return 0, ErrSyntax
		}
		s, exponent = s[:i], e
	}
	whole, fraction, point := strings.Cut(s, ".")
	if whole == "" && fraction == "" || point && fraction == "" {
		return 0, ErrSyntax
	}
	digits := whole + fraction
	exponent -= len(fraction)
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, ErrSyntax
		}
	}
	digits = strings.TrimLeft(digits, "0")
	trimmed := strings.TrimRight(digits, "0")
	exponent += len(digits) - len(trimmed)
	if trimmed == "" {
		return 0, nil
	}
	if len(trimmed) > 16 {
		return 0, ErrPrecision
	}
	m, err := strconv.ParseUint(trimmed, 10, 64)
	if err != nil {
		return 0, ErrSyntax
	}
	m *= powersOfTen[16-len(trimmed)]
	exponent -= 16 - len(trimmed)
	f, err := New(m, exponent, negative)
	if err != nil {
		return 0, ErrRange
	}
	return f, nil
}

// FromInt is an integer as a number; ErrPrecision if it has too many digits.
func FromInt(i int64) (Float, error) { return Parse(strconv.FormatInt(i, 10)) }

// String writes a number as servers write the value of an issued amount: all
// digits that count, and with an exponent if it is larger than 10^11 or smaller
// than 10^-10 or so. What is no number is written as such.
func (f Float) String() string {
	if f == 0 {
		return "0"
	}
	if !f.Valid() {
		return fmt.Sprintf("xfl(%#x)", uint64(f))
	}
	m, e, negative := f.Parts()
	b := make([]byte, 0, 48)
	if negative {
		b = append(b, '-')
	}
	if e != 0 && (e < -25 || e > -5) {
		b = strconv.AppendUint(b, m, 10)
		b = append(b, 'e')
		return string(strconv.AppendInt(b, int64(e), 10))
	}
	digits := strconv.FormatUint(m, 10)
	point := len(digits) + e
	if point <= 0 {
		b = append(b, "0."...)
		b = append(b, strings.Repeat("0", -point)...)
		return string(append(b, strings.TrimRight(digits, "0")...))
	}
	b = append(b, digits[:point]...)
	if rest := strings.TrimRight(digits[point:], "0"); rest != "" {
		b = append(b, '.')
		b = append(b, rest...)
	}
	return string(b)
}

// LittleEndian is the form in hook parameters and hook state, BigEndian the one
// in lease URIs (spec/ledger.md section 3).
func (f Float) LittleEndian() (b [8]byte) {
	binary.LittleEndian.PutUint64(b[:], uint64(f))
	return b
}

// BigEndian is the form in lease URIs.
func (f Float) BigEndian() (b [8]byte) {
	binary.BigEndian.PutUint64(b[:], uint64(f))
	return b
}

// FromLittleEndian reads a number from the first 8 bytes of a parameter or state.
func FromLittleEndian(b []byte) (Float, error) { return fromBytes(b, binary.LittleEndian) }

// FromBigEndian reads a number from the first 8 bytes of a lease URI's amount.
func FromBigEndian(b []byte) (Float, error) { return fromBytes(b, binary.BigEndian) }

func fromBytes(b []byte, order binary.ByteOrder) (Float, error) {
	if len(b) < 8 {
		return 0, fmt.Errorf("a number takes 8 bytes, here are %d", len(b))
	}
	f := Float(order.Uint64(b))
	if !f.Valid() {
		return 0, fmt.Errorf("%x is not a number: %w", b[:8], InvalidFloat)
	}
	return f, nil
}
