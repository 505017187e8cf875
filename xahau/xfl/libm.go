package xfl

import (
	"math"
	"strconv"
)

// The network uses the C library's log10 and pow. Go's are a little less exact
// and differ between processors, so these compute with twice the digits and
// round once.

// double is an unevaluated sum of two binary floating point numbers, the second
// below half a unit of the last place of the first: about 106 bits.
type double struct{ hi, lo float64 }

func fastTwoSum(a, b float64) double {
	s := a + b
	return double{s, b - (s - a)}
}

func twoSum(a, b float64) double {
	s := a + b
	t := s - a
	return double{s, (a - (s - t)) + (b - t)}
}

func twoProduct(a, b float64) double {
	p := float64(a * b)
	return double{p, math.FMA(a, b, -p)}
}

func (a double) add(b double) double {
	s, t := twoSum(a.hi, b.hi), twoSum(a.lo, b.lo)
	s = fastTwoSum(s.hi, s.lo+t.hi)
	return fastTwoSum(s.hi, s.lo+t.lo)
}

func (a double) sub(b double) double { return a.add(double{-b.hi, -b.lo}) }

func (a double) mul(b double) double {
	p := twoProduct(a.hi, b.hi)
	return fastTwoSum(p.hi, p.lo+float64(a.hi*b.lo)+float64(a.lo*b.hi))
}

func (a double) scale(f float64) double {
	p := twoProduct(a.hi, f)
	return fastTwoSum(p.hi, p.lo+float64(a.lo*f))
}

func (a double) div(b double) double {
	q := a.hi / b.hi
	r := a.sub(b.scale(q))
	q2 := r.hi / b.hi
	r = r.sub(b.scale(q2))
	return fastTwoSum(q, q2).add(double{hi: r.hi / b.hi})
}

var (
	ln2 = double{0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56}
	// The reciprocals of small factorials, from 1/1! on.
	inverseFactorials = func() (f [14]double) {
		f[0] = double{hi: 1}
		for i := 1; i < len(f); i++ {
			f[i] = f[i-1].div(double{hi: float64(i + 1)})
		}
		return f
	}()
)

// expm1 is e^y - 1 for |y| up to about 1.
func expm1(y double) double {
	const halvings = 8
	t := y.scale(1.0 / (1 << halvings))
	s := inverseFactorials[len(inverseFactorials)-1]
	for i := len(inverseFactorials) - 2; i >= 0; i-- {
		s = s.mul(t).add(inverseFactorials[i])
	}
	s = s.mul(t)
	for range halvings {
		s = s.mul(s.add(double{hi: 2}))
	}
	return s
}

// logNear is the natural logarithm of a number between 1/2 and 2: a step of
// Newton's from the binary logarithm.
func logNear(x float64) double {
	if x == 1 {
		return double{}
	}
	y := double{hi: math.Log(x)}
	e := expm1(y)
	return y.add(double{hi: x - 1}.sub(e).div(e.add(double{hi: 1})))
}

// log10 is the decimal logarithm of a positive number, put together as the C
// library does it: logarithm of the mantissa and exponent separately, which
// rounds more than once.
func log10(x float64) float64 {
	const (
		inverseLn10 = 4.34294481903251816668e-01
		log10of2hi  = 3.01029995663611771306e-01
		log10of2lo  = 3.69423907715893078616e-13
	)
	m, k := math.Frexp(x)
	m, k = m*2, k-1
	if k < 0 {
		m, k = m/2, k+1
	}
	l := logNear(m)
	z := float64(float64(k)*log10of2lo) + float64(inverseLn10*l.hi)
	return z + float64(float64(k)*log10of2hi)
}

// pow10 is the C library's 10^e: the nearest binary floating point number, except
// for 10^23, which lies so near the middle of two that the library takes the
// other one.
func pow10(e int) float64 {
	if e == 23 {
		return math.Nextafter(1e23, math.Inf(1))
	}
	if e < 0 {
		if -e < len(tenths) {
			return tenths[-e]
		}
	} else if e < len(tens) {
		return tens[e]
	}
	return math.Pow10(e)
}

var tens, tenths = func() (up, down [128]float64) {
	for i := range up {
		// Parsing rounds correctly, multiplying would round twice.
		up[i], _ = strconv.ParseFloat("1e"+strconv.Itoa(i), 64)
		down[i], _ = strconv.ParseFloat("1e-"+strconv.Itoa(i), 64)
	}
	return
}()

// pow is x^y for x > 0 and 0 < y < 1.
func pow(x, y float64) float64 {
	m, k := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m, k = m*2, k-1
	}
	v := ln2.scale(float64(k)).add(logNear(m)).scale(y)
	n := math.Round(v.hi / ln2.hi)
	r := expm1(v.sub(ln2.scale(n))).add(double{hi: 1})
	return math.Ldexp(r.hi, int(n))
}
