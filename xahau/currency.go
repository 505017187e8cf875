package xahau

import (
	"errors"
	"fmt"
	"strings"
)

// Currency is a currency's code; all zeros is the native currency.
type Currency [20]byte

// The characters of three-letter codes.
const currencyChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789<>(){}[]|?!@#$%^&*"

// nativeCode is how the ledger names its native currency.
const nativeCode = "XAH"

// ParseCurrency reads a code of three characters, 40 hex digits, or "XAH" for
// the native currency.
func ParseCurrency(s string) (c Currency, err error) {
	switch {
	case s == nativeCode:
		return c, nil
	case len(s) == 3:
		for i := range 3 {
			if !strings.Contains(currencyChars, s[i:i+1]) {
				return c, fmt.Errorf("currency %q has characters that codes cannot have", s)
			}
		}
		copy(c[12:], s)
		return c, nil
	case len(s) != 40:
		return c, fmt.Errorf("currency %q is neither three characters nor 40 hex digits", shorten(s))
	}
	if err = parseHex(c[:], s); err != nil {
		return Currency{}, fmt.Errorf("currency: %w", err)
	}
	return c, nil
}

// MustCurrency is ParseCurrency for codes in the program text; it panics.
func MustCurrency(s string) Currency {
	c, err := ParseCurrency(s)
	if err != nil {
		panic(err)
	}
	return c
}

// IsNative tells whether this is the native currency.
func (c Currency) IsNative() bool { return c == Currency{} }

// String is the code as servers write it: three characters if it can be written
// so, "XAH" for the native currency, else upper-case hex.
func (c Currency) String() string {
	if c.IsNative() {
		return nativeCode
	}
	code := c
	copy(code[12:15], []byte{0, 0, 0})
	if text := string(c[12:15]); code.IsNative() && text != nativeCode && strings.Trim(text, currencyChars) == "" {
		return text
	}
	return upperHex(c[:])
}

// errNativeIssuer and errNoIssuer are the two ways in which an issue can
// contradict itself.
var (
	errNativeIssuer = errors.New("the native currency has no issuer")
	errNoIssuer     = errors.New("issued currency without issuer")
)
