package xahau

import (
	"errors"
	"fmt"
	"math/bits"

	"evernode/xahau/xfl"
)

// The arithmetic of amounts, digit by digit that of the ledger with amendment
// fixUniversalNumber off, as on the public network (see DefaultDefinitions).

// ErrOverflow is the error of arithmetic whose result no amount can hold.
var ErrOverflow = errors.New("amount is out of range")

// ErrIncomparable is the error of arithmetic with amounts of different currencies.
var ErrIncomparable = errors.New("amounts are of different currencies")

const (
	tenTo14 = 100_000_000_000_000
	tenTo17 = 100_000_000_000_000_000
)

// Zero is nothing of an issue.
func (i Issue) Zero() Amount {
	if i.IsNative() {
		return Amount{}
	}
	return Amount{issue: i}
}

// Add gives a + b, of the issue of a. The issuers may differ, as in trust lines.
func (a Amount) Add(b Amount) (Amount, error) {
	if a.issue.Currency != b.issue.Currency {
		return Amount{}, fmt.Errorf("%s + %s: %w", a, b, ErrIncomparable)
	}
	if a.IsNative() {
		sum := a.drops + b.drops
		if (sum > a.drops) != (b.drops > 0) && b.drops != 0 {
			return Amount{}, fmt.Errorf("%s + %s: %w", a, b, ErrOverflow)
		}
		return Drops(sum), nil
	}
	v, err := a.value.Sum(b.value)
	if err != nil {
		return Amount{}, fmt.Errorf("%s + %s: %w", a, b, ErrOverflow)
	}
	return Amount{value: v, issue: a.issue}, nil
}

// Sub gives a - b, of the issue of a.
func (a Amount) Sub(b Amount) (Amount, error) { return a.Add(b.Negate()) }

// Cmp is -1, 0 or 1 as a is less than, equal to or greater than b. Amounts of
// different currencies must not be compared; it panics.
func (a Amount) Cmp(b Amount) int {
	switch {
	case a.issue.Currency != b.issue.Currency:
		panic(fmt.Sprintf("compare %s with %s", a, b))
	case !a.IsNative():
		return a.value.Cmp(b.value)
	case a.drops < b.drops:
		return -1
	case a.drops > b.drops:
		return 1
	}
	return 0
}

// parts gives mantissa, exponent and sign, the mantissa with at least 16 digits.
func (a Amount) parts() (uint64, int, bool) {
	if !a.IsNative() {
		m, e, negative := a.value.Parts()
		return m, e, negative
	}
	m, e, negative := uint64(a.drops), 0, a.drops < 0
	if negative {
		m = uint64(-a.drops)
	}
	for m != 0 && m < xfl.MinMantissa {
		m *= 10
		e--
	}
	return m, e, negative
}

// mulDiv gives (a × b + add) / d, cut off.
func mulDiv(a, b, d, add uint64) (uint64, error) {
	hi, lo := bits.Mul64(a, b)
	lo, carry := bits.Add64(lo, add, 0)
	hi += carry
	if hi >= d {
		return 0, ErrOverflow
	}
	q, _ := bits.Div64(hi, lo, d)
	return q, nil
}

// canonical makes an amount of mantissa and exponent.
func (i Issue) canonical(m uint64, e int, negative bool) (Amount, error) {
	if !i.IsNative() {
		v, err := xfl.Normalize(m, e, negative)
		if err != nil {
			return Amount{}, ErrOverflow
		}
		return Amount{value: v, issue: i}, nil
	}
	if m == 0 || e <= -20 {
		return Amount{}, nil
	}
	if e > 17 {
		return Amount{}, ErrOverflow
	}
	for ; e < 0; e++ {
		m /= 10
	}
	for ; e > 0; e-- {
		if m > MaxDrops {
			return Amount{}, ErrOverflow
		}
		m *= 10
	}
	if m > MaxDrops {
		return Amount{}, ErrOverflow
	}
	if negative {
		return Drops(-int64(m)), nil
	}
	return Drops(int64(m)), nil
}

// nativeProduct is the product where everything is native.
func nativeProduct(a, b Amount) (Amount, error) {
	least, most := min(a.drops, b.drops), max(a.drops, b.drops)
	if least < 0 || least > 3_000_000_000 || uint64(most)>>32*uint64(least) > 2_095_475_792 {
		return Amount{}, ErrOverflow
	}
	// The ledger's bound above lets more pass than an amount can hold.
	if product := uint64(least) * uint64(most); product < amountPositive {
		return Drops(int64(product)), nil
	}
	return Amount{}, ErrOverflow
}

// Multiply gives a × b as an amount of an issue, rounded to the nearest as the
// ledger does it.
func Multiply(a, b Amount, issue Issue) (Amount, error) {
	if a.Signum() == 0 || b.Signum() == 0 {
		return issue.Zero(), nil
	}
	if a.IsNative() && b.IsNative() && issue.IsNative() {
		return wrapAmount("×", a, b)(nativeProduct(a, b))
	}
	m1, e1, n1 := a.parts()
	m2, e2, n2 := b.parts()
	m, err := mulDiv(m1, m2, tenTo14, 0)
	if err != nil {
		return wrapAmount("×", a, b)(Amount{}, err)
	}
	return wrapAmount("×", a, b)(issue.canonical(m+7, e1+e2+14, n1 != n2))
}

// Divide gives a / b as an amount of an issue, rounded to the nearest as the
// ledger does it.
func Divide(a, b Amount, issue Issue) (Amount, error) {
	if b.Signum() == 0 {
		return Amount{}, fmt.Errorf("%s / %s: division by zero", a, b)
	}
	if a.Signum() == 0 {
		return issue.Zero(), nil
	}
	m1, e1, n1 := a.parts()
	m2, e2, n2 := b.parts()
	m, err := mulDiv(m1, tenTo17, m2, 0)
	if err != nil {
		return wrapAmount("/", a, b)(Amount{}, err)
	}
	return wrapAmount("/", a, b)(issue.canonical(m+5, e1-e2-17, n1 != n2))
}

func wrapAmount(op string, a, b Amount) func(Amount, error) (Amount, error) {
	return func(r Amount, err error) (Amount, error) {
		if err != nil {
			return Amount{}, fmt.Errorf("%s %s %s: %w", a, op, b, err)
		}
		return r, nil
	}
}

// MulRound gives a × b as an amount of an issue, rounded up or down.
func MulRound(a, b Amount, issue Issue, up bool) (Amount, error) {
	if a.Signum() == 0 || b.Signum() == 0 {
		return issue.Zero(), nil
	}
	if a.IsNative() && b.IsNative() && issue.IsNative() {
		return wrapAmount("×", a, b)(nativeProduct(a, b))
	}
	m1, e1, n1 := a.parts()
	m2, e2, n2 := b.parts()
	negative := n1 != n2
	add := uint64(0)
	if negative != up {
		add = tenTo14 - 1
	}
	m, err := mulDiv(m1, m2, tenTo14, add)
	if err != nil {
		return wrapAmount("×", a, b)(Amount{}, err)
	}
	return wrapAmount("×", a, b)(issue.rounded(m, e1+e2+14, negative, up))
}

// DivRound gives a / b as an amount of an issue, rounded up or down.
func DivRound(a, b Amount, issue Issue, up bool) (Amount, error) {
	if b.Signum() == 0 {
		return Amount{}, fmt.Errorf("%s / %s: division by zero", a, b)
	}
	if a.Signum() == 0 {
		return issue.Zero(), nil
	}
	m1, e1, n1 := a.parts()
	m2, e2, n2 := b.parts()
	negative := n1 != n2
	add := uint64(0)
	if negative != up {
		add = m2 - 1
	}
	m, err := mulDiv(m1, tenTo17, m2, add)
	if err != nil {
		return wrapAmount("/", a, b)(Amount{}, err)
	}
	return wrapAmount("/", a, b)(issue.rounded(m, e1-e2-17, negative, up))
}

// rounded makes an amount of mantissa and exponent, rounding away from zero where
// that is the direction asked for.
func (i Issue) rounded(m uint64, e int, negative, up bool) (Amount, error) {
	if negative != up {
		m, e = roundAway(i.IsNative(), m, e)
	}
	r, err := i.canonical(m, e, negative)
	if err == nil && up && !negative && r.Signum() == 0 {
		if i.IsNative() {
			return Drops(1), nil
		}
		return i.canonical(xfl.MinMantissa, xfl.MinExponent, false)
	}
	return r, err
}

// roundAway cuts digits off and rounds up as the ledger does, that is not exactly:
// only the last one or two of the digits cut off count.
func roundAway(native bool, m uint64, e int) (uint64, int) {
	switch {
	case native && e < 0:
		loops := 0
		for ; e < -1; e++ {
			m /= 10
			loops++
		}
		if loops >= 2 {
			m += 9
		} else {
			m += 10
		}
		m /= 10
		e++
	case !native && m > xfl.MaxMantissa:
		for m > 10*xfl.MaxMantissa {
			m /= 10
			e++
		}
		m = (m + 9) / 10
		e++
	}
	return m, e
}

// MulRatio gives a × num / den, rounded up or down.
func (a Amount) MulRatio(num, den uint32, up bool) (Amount, error) {
	if den == 0 {
		return Amount{}, fmt.Errorf("%s × %d / %d: division by zero", a, num, den)
	}
	negative := a.Signum() < 0
	if !a.IsNative() {
		v, err := a.value.MulRatio(up != negative, num, den)
		if err != nil {
			return Amount{}, fmt.Errorf("%s × %d / %d: %w", a, num, den, ErrOverflow)
		}
		return Amount{value: v, issue: a.issue}, nil
	}
	m := uint64(a.drops)
	if negative {
		m = uint64(-a.drops)
	}
	hi, lo := bits.Mul64(m, uint64(num))
	if hi >= uint64(den) {
		return Amount{}, fmt.Errorf("%s × %d / %d: %w", a, num, den, ErrOverflow)
	}
	q, rest := bits.Div64(hi, lo, uint64(den))
	if rest != 0 && up != negative {
		q++
	}
	if q >= amountPositive {
		return Amount{}, fmt.Errorf("%s × %d / %d: %w", a, num, den, ErrOverflow)
	}
	if negative {
		return Drops(-int64(q)), nil
	}
	return Drops(int64(q)), nil
}

// unit is the issue of amounts that are only numbers.
var unit = Issue{Currency: Currency{19: 1}, Issuer: AccountOne}

// Rate is the quality of an offer that takes pays and gives gets: the lower, the
// better for who takes it. Order books are sorted by it. It is 0 if there is
// none.
func Rate(pays, gets Amount) uint64 {
	if gets.Signum() == 0 {
		return 0
	}
	r, err := Divide(pays, gets, unit)
	if err != nil || r.Signum() == 0 {
		return 0
	}
	m, e, _ := r.value.Parts()
	return uint64(e+100)<<56 | m
}

// RateAmount is the number that a quality stands for, as an amount of no currency
// in particular, to multiply and divide by.
func RateAmount(rate uint64) (Amount, error) {
	if rate == 0 {
		return unit.Zero(), nil
	}
	return unit.canonical(rate&(1<<56-1), int(rate>>56)-100, false)
}
