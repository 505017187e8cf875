package xfl

import "math/bits"

// u128 is an unsigned integer of 128 bits.
type u128 struct{ hi, lo uint64 }

func (a u128) add(b u128) u128 {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(a.hi, b.hi, carry)
	return u128{hi, lo}
}

func (a u128) sub(b u128) u128 {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, _ := bits.Sub64(a.hi, b.hi, borrow)
	return u128{hi, lo}
}

func (a u128) less(b u128) bool {
	return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo
}

func (a u128) mul(b uint64) u128 {
	hi, lo := bits.Mul64(a.lo, b)
	return u128{hi + a.hi*b, lo}
}

func (a u128) div(b uint64) (u128, uint64) {
	hi, r := a.hi/b, a.hi%b
	lo, r := bits.Div64(r, a.lo, b)
	return u128{hi, lo}, r
}

// log10Ceil is the smallest k with 10^k >= a, and 0 for 0.
func (a u128) log10Ceil() int {
	p := u128{lo: 1}
	for k := 0; ; k++ {
		if p.hi > a.hi || p.hi == a.hi && p.lo >= a.lo || k == 38 {
			return k
		}
		p = p.mul(10)
	}
}
