package xfl

import (
	"math"
	"math/big"
	"math/bits"
)

// Float is a number in the layout of the Hook API. Not every bit pattern is a
// number (see Valid); all functions answer InvalidFloat to those that are not.
type Float int64

// Bounds of the parts of a number other than zero.
const (
	MinMantissa = 1_000_000_000_000_000
	MaxMantissa = 9_999_999_999_999_999
	MinExponent = -96
	MaxExponent = 80
)

const (
	mantissaBits = 54
	mantissaMask = 1<<mantissaBits - 1
	positiveBit  = 1 << 62
	exponentBias = 97
)

// One is 1, the answer of float_one.
const One = Float(positiveBit | (-15+exponentBias)<<mantissaBits | MinMantissa)

var powersOfTen = func() (p [20]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()

// New puts a number together from its parts without changing them. It fails
// with the code of the part that is out of bounds.
func New(mantissa uint64, exponent int, negative bool) (Float, error) {
	switch {
	case mantissa == 0:
		return 0, nil
	case mantissa > MaxMantissa:
		return 0, MantissaOversized
	case mantissa < MinMantissa:
		return 0, MantissaUndersized
	case exponent > MaxExponent:
		return 0, ExponentOversized
	case exponent < MinExponent:
		return 0, ExponentUndersized
	}
	f := Float(mantissa) | Float(exponent+exponentBias)<<mantissaBits
	if !negative {
		f |= positiveBit
	}
	return f, nil
}

// Valid tells whether the bits are a number: zero, or a mantissa of 16 digits
// with an exponent within bounds and bit 63 clear.
func (f Float) Valid() bool {
	if f == 0 {
		return true
	}
	m, e := f.mantissa(), f.exponent()
	return f > 0 && m >= MinMantissa && m <= MaxMantissa && e >= MinExponent && e <= MaxExponent
}

func (f Float) mantissa() uint64 { return uint64(f) & mantissaMask }
func (f Float) exponent() int    { return int(uint64(f)>>mantissaBits&0xff) - exponentBias }
func (f Float) negative() bool   { return f != 0 && f&positiveBit == 0 }

// Parts gives mantissa, exponent and sign of a valid number, and 0, 0 and false
// for zero.
func (f Float) Parts() (mantissa uint64, exponent int, negative bool) {
	if f == 0 {
		return 0, 0, false
	}
	return f.mantissa(), f.exponent(), f.negative()
}

// signed gives the mantissa with its sign.
func (f Float) signed() int64 {
	m := int64(f.mantissa())
	if f.negative() {
		return -m
	}
	return m
}

// order is the power of ten that the network takes a positive number to have:
// the whole part of the binary logarithm of the number as a binary floating
// point number. Both roundings push numbers just below a power of ten onto it.
func order(m uint64) int {
	k := bits.Len64(m) * 1233 >> 12 // the order or one more
	if m < powersOfTen[k] {
		k--
	}
	// Only just below a power of ten can the rounding matter.
	if k < 19 && powersOfTen[k+1]-m > m>>40 {
		return k
	}
	return int(log10(float64(m)))
}

// normalize brings a number into the form with 16 digits as the network does.
// Too small numbers become zero, too large ones are an Overflow.
func normalize(m uint64, exponent int, negative bool) (Float, error) {
	if m == 0 {
		return 0, nil
	}
	if adjust := 15 - order(m); adjust > 0 {
		m *= powersOfTen[adjust]
		exponent -= adjust
	} else if adjust < 0 {
		m /= powersOfTen[-adjust]
		exponent -= adjust
	}
	if m < MinMantissa {
		if m == MinMantissa-1 {
			m++
		} else {
			m *= 10
			exponent--
		}
	}
	if m > MaxMantissa {
		if m == MaxMantissa+1 {
			m--
		} else {
			m /= 10
			exponent++
		}
	}
	if m == 0 || exponent < MinExponent {
		return 0, nil
	}
	if exponent > MaxExponent {
		return 0, Overflow
	}
	return New(m, exponent, negative)
}

// Set is float_set: mantissa × 10^exponent. What is too small or too large is
// InvalidFloat; more than 16 digits are cut off.
func Set(exponent int32, mantissa int64) (Float, error) {
	if mantissa == 0 {
		return 0, nil
	}
	if mantissa == math.MinInt64 {
		mantissa++
	}
	m, negative := uint64(mantissa), false
	if mantissa < 0 {
		m, negative = uint64(-mantissa), true
	}
	f, err := normalize(m, int(exponent), negative)
	if err == Overflow || err == nil && f == 0 {
		return 0, InvalidFloat
	}
	return f, err
}

// FromDrops is what slot_float makes of a native amount: drops × 10^-6.
func FromDrops(drops int64) (Float, error) {
	if drops < 0 {
		return normalize(uint64(-drops), -6, true)
	}
	return normalize(uint64(drops), -6, false)
}

// Multiply is float_multiply: the product, cut off. Too small becomes zero, too
// large is an Overflow.
func (f Float) Multiply(g Float) (Float, error) {
	if !f.Valid() || !g.Valid() {
		return 0, InvalidFloat
	}
	if f == 0 || g == 0 {
		return 0, nil
	}
	hi, lo := bits.Mul64(f.mantissa(), g.mantissa())
	m, _ := bits.Div64(hi, lo, powersOfTen[15])
	return normalize(m, f.exponent()+g.exponent()+15, f.negative() != g.negative())
}

// MulRatio is float_mulratio: f × numerator / denominator, computed with more
// digits than Multiply has and rounded away from zero if roundUp, else cut off.
func (f Float) MulRatio(roundUp bool, numerator, denominator uint32) (Float, error) {
	if !f.Valid() {
		return 0, InvalidFloat
	}
	if f == 0 {
		return 0, nil
	}
	if denominator == 0 {
		return 0, DivisionByZero
	}
	m, e, err := mulRatio(f.mantissa(), f.exponent(), numerator, denominator, roundUp)
	if err != nil {
		return 0, err
	}
	return New(m, e, f.negative())
}

// mulRatio is the network's multiplication of an issued amount by a ratio, for
// amounts above zero. The result is normalized, or 0.
func mulRatio(mantissa uint64, exponent int, num, den uint32, roundUp bool) (uint64, int, error) {
	const room = 18 // the order of the largest int64
	d := u128{lo: uint64(den)}
	hi, lo := bits.Mul64(mantissa, uint64(num))
	low, rem := u128{hi, lo}.div(d.lo)
	if rem != 0 {
		// Use all digits there is room for, so that as much of the rest as
		// possible counts.
		r := u128{lo: rem}
		if grow := room - low.log10Ceil(); grow > 0 {
			exponent -= grow
			low = low.mul(powersOfTen[grow])
			r = r.mul(powersOfTen[grow])
		}
		var more u128
		more, rem = r.div(d.lo)
		low = low.add(more)
	}
	inexact := rem != 0
	if shrink := low.log10Ceil() - room; shrink > 0 {
		exponent += shrink
		var cut uint64
		low, cut = low.div(powersOfTen[shrink])
		inexact = inexact || cut != 0
	}
	m, e, err := normalizeIssued(int64(low.lo), exponent)
	if err != nil {
		return 0, 0, err
	}
	if inexact && roundUp {
		if m == 0 {
			return MinMantissa, MinExponent, nil
		}
		if m, e, err = normalizeIssued(m+1, e); err != nil {
			return 0, 0, err
		}
	}
	return uint64(m), e, nil
}

// normalizeIssued is the network's normalization of issued amounts, which cuts
// digits off and, unlike normalize, has no surprises. Zero is 0, -100.
func normalizeIssued(m int64, e int) (int64, int, error) {
	if m == 0 {
		return 0, -100, nil
	}
	negative := m < 0
	if negative {
		m = -m
	}
	for m < MinMantissa && e > MinExponent {
		m *= 10
		e--
	}
	for m > MaxMantissa {
		if e >= MaxExponent {
			return 0, 0, Overflow
		}
		m /= 10
		e++
	}
	if e < MinExponent || m < MinMantissa {
		return 0, -100, nil
	}
	if e > MaxExponent {
		return 0, 0, Overflow
	}
	if negative {
		m = -m
	}
	return m, e, nil
}

// Negate is float_negate.
func (f Float) Negate() (Float, error) {
	if !f.Valid() {
		return 0, InvalidFloat
	}
	if f == 0 {
		return 0, nil
	}
	return f ^ positiveBit, nil
}

// The modes of Compare; they can be added, except all three.
const (
	Equal   = 1
	Less    = 2
	Greater = 4
)

// Normalize makes a number of any mantissa and exponent as the ledger does for
// issued amounts: digits that do not fit are cut off, what is too small is zero,
// what is too large an Overflow.
func Normalize(mantissa uint64, exponent int, negative bool) (Float, error) {
	if mantissa > math.MaxInt64 {
		mantissa, exponent = mantissa/10, exponent+1
	}
	m, e, err := normalizeIssued(int64(mantissa), exponent)
	if err != nil || m == 0 {
		return 0, err
	}
	return New(uint64(m), e, negative)
}

// Compare is float_compare: whether f stands to g as the mode says.
func (f Float) Compare(g Float, mode uint32) (bool, error) {
	if !f.Valid() || !g.Valid() {
		return false, InvalidFloat
	}
	if mode == 0 || mode >= Equal|Less|Greater {
		return false, InvalidArgument
	}
	switch f.Cmp(g) {
	case -1:
		return mode&Less != 0, nil
	case 1:
		return mode&Greater != 0, nil
	}
	return mode&Equal != 0, nil
}

// Cmp is -1, 0 or 1 as a valid f is less than, equal to or greater than a valid g.
func (f Float) Cmp(g Float) int {
	switch fs, gs := f.Signum(), g.Signum(); {
	case fs < gs:
		return -1
	case fs > gs:
		return 1
	case fs == 0:
		return 0
	case f == g:
		return 0
	case (f&^positiveBit > g&^positiveBit) == (fs > 0):
		// Exponent before mantissa, as in the layout.
		return 1
	}
	return -1
}

// Signum is -1, 0 or 1 for a number below, at or above zero.
func (f Float) Signum() int {
	switch {
	case f == 0:
		return 0
	case f.negative():
		return -1
	}
	return 1
}

// Sum is float_sum: both aligned to the larger exponent and cut off, then added.
// A result of at most 10 units of the last place is zero.
func (f Float) Sum(g Float) (Float, error) {
	if !f.Valid() || !g.Valid() {
		return 0, InvalidFloat
	}
	if f == 0 {
		return g, nil
	}
	if g == 0 {
		return f, nil
	}
	a, e, b, eb := f.signed(), f.exponent(), g.signed(), g.exponent()
	a, b, e = align(a, e, b, eb)
	m := a + b
	if m >= -10 && m <= 10 {
		return 0, nil
	}
	m, e, err := normalizeIssued(m, e)
	if err != nil {
		return 0, err
	}
	if m < 0 {
		return New(uint64(-m), e, true)
	}
	return New(uint64(m), e, false)
}

// SumNearest is float_sum where amendment fixUniversalNumber is on: the nearest
// number to the exact sum, of two equally near ones the even one. The public
// network had it off when its definitions were taken (see package xahau).
func (f Float) SumNearest(g Float) (Float, error) {
	if !f.Valid() || !g.Valid() {
		return 0, InvalidFloat
	}
	switch {
	case f == 0:
		return g, nil
	case g == 0:
		return f, nil
	case f == g^positiveBit:
		return 0, nil
	}
	if f.exponent() < g.exponent() {
		f, g = g, f
	}
	// 19 digits more than f has, and a rest that only tells whether anything
	// lies beyond them.
	const extra = 19
	m := u128{lo: f.mantissa()}.mul(powersOfTen[extra])
	e, negative := f.exponent()-extra, f.negative()
	n, rest := u128{lo: g.mantissa()}, false
	if by := g.exponent() - e; by >= 0 {
		n = n.mul(powersOfTen[by])
	} else if -by < len(powersOfTen) {
		var cut uint64
		n, cut = n.div(powersOfTen[-by])
		rest = cut != 0
	} else {
		n, rest = u128{}, true
	}
	if g.negative() == negative {
		m = m.add(n)
	} else if m.less(n) {
		m, negative = n.sub(m), !negative
	} else {
		m = m.sub(n)
		if rest {
			// The exact value lies between this and one less.
			m = m.sub(u128{lo: 1})
		}
	}
	for m.hi != 0 || m.lo > MaxMantissa*10+9 {
		var digit uint64
		m, digit = m.div(10)
		rest = rest || digit != 0
		e++
	}
	if m.lo > MaxMantissa {
		digit := m.lo % 10
		m.lo /= 10
		e++
		if digit > 5 || digit == 5 && (rest || m.lo&1 == 1) {
			m.lo++
		}
	}
	v, e, err := normalizeIssued(int64(m.lo), e)
	if err != nil || v == 0 {
		return 0, err
	}
	return New(uint64(v), e, negative)
}

func align(a int64, ea int, b int64, eb int) (int64, int64, int) {
	cut := func(m int64, by int) int64 {
		if by > 18 {
			return 0
		}
		return m / int64(powersOfTen[by])
	}
	if ea < eb {
		return cut(a, eb-ea), b, eb
	}
	return a, cut(b, ea-eb), ea
}

// Invert is float_invert: 1/f.
func (f Float) Invert() (Float, error) {
	if !f.Valid() {
		return 0, InvalidFloat
	}
	if f == 0 {
		return 0, DivisionByZero
	}
	if f == One {
		return One, nil
	}
	return divide(One, f)
}

// Divide is float_divide: f/g, cut off after about 16 digits.
func (f Float) Divide(g Float) (Float, error) {
	if !f.Valid() || !g.Valid() {
		return 0, InvalidFloat
	}
	return divide(f, g)
}

// divide is long division by subtraction, in which the divisor loses a digit for
// each digit of the quotient: the last digits of the result are what remains of
// a divisor of one or two digits, as in the network.
func divide(f, g Float) (Float, error) {
	if g == 0 {
		return 0, DivisionByZero
	}
	if f == 0 {
		return 0, nil
	}
	if g == One {
		return f, nil
	}
	// The network normalizes numbers that are normal already, which changes
	// those just below a power of ten.
	fn, err := normalize(f.mantissa(), f.exponent(), false)
	if err != nil {
		return 0, InvalidFloat
	}
	gn, err := normalize(g.mantissa(), g.exponent(), false)
	if err != nil {
		return 0, InvalidFloat
	}
	if fn == 0 {
		return 0, nil
	}
	m1, e1, m2, e2 := fn.mantissa(), fn.exponent(), gn.mantissa(), gn.exponent()
	for m2 > m1 {
		m2 /= 10
		e2++
	}
	if m2 == 0 {
		return 0, DivisionByZero
	}
	for m2 < m1 && m2*10 <= m1 {
		m2 *= 10
		e2--
	}
	m, e := uint64(0), e1-e2
	for {
		m = m*10 + m1/m2
		m1 %= m2
		m2 /= 10
		if m2 == 0 {
			break
		}
		e--
	}
	return normalize(m, e, f.negative() != g.negative())
}

// Mantissa is float_mantissa.
func (f Float) Mantissa() (uint64, error) {
	if !f.Valid() {
		return 0, InvalidFloat
	}
	return f.mantissa(), nil
}

// Sign is float_sign: 1 for numbers below zero, else 0.
func (f Float) Sign() (uint64, error) {
	if !f.Valid() {
		return 0, InvalidFloat
	}
	if f.negative() {
		return 1, nil
	}
	return 0, nil
}

// Int is float_int: f × 10^decimals as an integer, cut off; decimals is at most
// 15. Numbers below zero are CantReturnNegative unless absolute.
func (f Float) Int(decimals uint32, absolute bool) (uint64, error) {
	if !f.Valid() {
		return 0, InvalidFloat
	}
	if f == 0 {
		return 0, nil
	}
	if decimals > 15 {
		return 0, InvalidArgument
	}
	if f.negative() && !absolute {
		return 0, CantReturnNegative
	}
	switch shift := -(f.exponent() + int(decimals)); {
	case shift > 15:
		return 0, nil
	case shift < 0:
		return 0, TooBig
	default:
		return f.mantissa() / powersOfTen[shift], nil
	}
}

// Log is float_log: the decimal logarithm.
func (f Float) Log() (Float, error) {
	switch {
	case !f.Valid():
		return 0, InvalidFloat
	case f == 0:
		return 0, InvalidArgument
	case f.negative():
		return 0, ComplexUnsupported
	}
	return fromBinary(log10(float64(f.mantissa())) + float64(f.exponent()))
}

// Root is float_root: the n-th root, n at least 2.
func (f Float) Root(n uint32) (Float, error) {
	switch {
	case !f.Valid():
		return 0, InvalidFloat
	case f == 0:
		return 0, nil
	case n < 2:
		return 0, InvalidArgument
	case f.negative():
		return 0, ComplexUnsupported
	}
	x := float64(float64(f.mantissa()) * pow10(f.exponent()))
	return fromBinary(pow(x, 1/float64(n)))
}

// fromBinary is the network's way from binary to decimal floating point.
func fromBinary(x float64) (Float, error) {
	if x == 0 {
		return 0, nil
	}
	a := math.Abs(x)
	e := int(log10(a))
	m := int64(float64(a * pow10(15-e)))
	if m < MinMantissa {
		if m == MinMantissa-1 {
			m++
		} else {
			m *= 10
			e--
		}
	}
	if m > MaxMantissa {
		if m == MaxMantissa+1 {
			m--
		} else {
			m /= 10
			e++
		}
	}
	f, err := New(uint64(m), e-15, x < 0)
	if err == ExponentUndersized {
		return 0, nil
	}
	return f, err
}

// Rat is the exact value of a valid number.
func (f Float) Rat() *big.Rat {
	m, e, negative := f.Parts()
	r := new(big.Rat).SetInt(new(big.Int).SetUint64(m))
	p := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(e, -e))), nil))
	if e < 0 {
		r.Quo(r, p)
	} else {
		r.Mul(r, p)
	}
	if negative {
		r.Neg(r)
	}
	return r
}
