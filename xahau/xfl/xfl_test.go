package xfl

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

func TestSet(t *testing.T) {
	for _, c := range []struct {
		exponent int32
		mantissa int64
		want     Float
		err      error
	}{
		{-5, 0, 0, nil},
		{50, 0, 0, nil},
		{-97, 1, 0, InvalidFloat},
		{97, 1, 0, InvalidFloat},
		{math.MaxInt32, 1, 0, InvalidFloat},
		{math.MinInt32, 1, 0, InvalidFloat},
		{0, 1, One, nil},
		{0, -1, 1478180677777522688, nil},
		{-5, 6541432897943971, 6275552114197674403, nil},
		{-83, 7906202688397446, 4871793800248533126, nil},
		{76, 4760131426754533, 7732937091994525669, nil},
		{37, -8019384286534438, 2421948784557120294, nil},
		{-26, -1754544005819476, 1280776838179040340, nil},
		{17, -4478222822793996, 2058119652903740172, nil},
		{71, -9138413713437220, 3035557363306410532, nil},
		// What the binary logarithm of the network makes of numbers just below a
		// power of ten.
		{0, 999_999_999_999_999, must(New(MinMantissa, 0, false)), nil},
		{0, 999_999_999_999_998, must(New(9_999_999_999_999_980, -1, false)), nil},
		{0, 9_999_999_999_999_999, must(New(MinMantissa, 1, false)), nil},
		{0, 9_999_999_999_999_985, must(New(9_999_999_999_999_980, 0, false)), nil},
		{0, math.MaxInt64, must(New(9_223_372_036_854_775, 3, false)), nil},
		{0, math.MinInt64, must(New(9_223_372_036_854_775, 3, true)), nil},
	} {
		got, err := Set(c.exponent, c.mantissa)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("Set(%d, %d) = %d, %v; want %d, %v", c.exponent, c.mantissa, got, err, c.want, c.err)
		}
	}
}

func must(f Float, err error) Float {
	if err != nil {
		panic(err)
	}
	return f
}

// The network's own examples, to which the network holds itself with the same
// tolerance.
func TestExamples(t *testing.T) {
	near := func(name string, got Float, err error, want Float) {
		t.Helper()
		gm, ge, gn := got.Parts()
		wm, we, wn := want.Parts()
		if ge == we-1 {
			wm, we = wm*10, we-1
		}
		if err != nil || ge != we || gn != wn || gm-wm+5_000_000 > 10_000_000 {
			t.Errorf("%s = %v (%d), %v; want %v", name, got, got, err, want)
		}
	}
	for _, c := range [][3]Float{
		{7791757438262485039, 4759088999670263908, 6470304726017852129},
		{7534790022873909775, 1017891960669847079, 2472307761756037979},
		{2151742066453140308, 437647738130579252, 5732835652591705549},
		{1823781083140711248, 1120252241608199010, 6090320310700749729},
		{1377509900308195934, 7702104197062186199, 2998768765665354000},
		{3189548536178311168, One, 3189548536178311168},
	} {
		got, err := c[0].Multiply(c[1])
		near("Multiply", got, err, c[2])
	}
	for _, c := range []struct {
		f        Float
		num, den uint32
		want     Float
	}{
		{2296131684119423544, 2210828011, 2814367554, 2294351094683836182},
		{565488225163275031, 2373474507, 4203973264, 562422045628095449},
		{6577058837932757648, 1423256719, 1338068927, 6577173649752398013},
		{311005347529659996, 992915590, 2433548552, 308187142737041830},
	} {
		got, err := c.f.MulRatio(false, c.num, c.den)
		near("MulRatio", got, err, c.want)
	}
	for _, c := range [][3]Float{
		{One, One, 6090866696204910592},
		{6165492090242838528, 6074309077695428608, 6165492124810638528},
		{1676857706508234512, 6396111470866104320, 6387097057170171072},
		{20028000442705357, 95248745393457140, 95248946753650462},
		{7607324992379065667, 95785354843184473, 7607324992379065667},
	} {
		got, err := c[0].Sum(c[1])
		near("Sum", got, err, c[2])
	}
	for _, c := range [][2]Float{
		{6107881094714392576, 6071852297695428608},
		{6126125493223874560, 6042953581977277649},
		{6360317241747140351, 5808736320061298855},
		{One, One},
	} {
		got, err := c[0].Invert()
		near("Invert", got, err, c[1])
	}
	for _, c := range [][2]Float{
		{6349533412187342878, 6108373858112734914},
		{6143909891733356544, 6091866696204910592},
		{6071976107695428608, 1468659350345448364},
		{5783744921543716864, 1496890038311378526},
		{7206759403792793600, 6113081094714392576},
	} {
		got, err := c[0].Log()
		near("Log", got, err, c[1])
	}
	for _, c := range []struct {
		f    Float
		n    uint32
		want Float
	}{{One, 2, One}, {6097866696204910592, 2, 6091866696204910592}, {6143909891733356544, 3, 6107881094714392576}, {0, 10, 0}} {
		got, err := c.f.Root(c.n)
		near("Root", got, err, c.want)
	}
}

func TestErrors(t *testing.T) {
	minusOne := must(One.Negate())
	huge := must(New(MinMantissa, MaxExponent, false))
	tiny := must(New(MinMantissa, MinExponent, false))
	value := func(f Float, err error) error { return err }
	number := func(_ uint64, err error) error { return err }
	for name, c := range map[string][2]error{
		"multiply overflow":        {value(huge.Multiply(must(Set(0, 10)))), Overflow},
		"multiply nonsense":        {value(Float(-1).Multiply(One)), InvalidFloat},
		"multiply with nonsense":   {value(One.Multiply(1)), InvalidFloat},
		"mulratio by zero":         {value(One.MulRatio(false, 1, 0)), DivisionByZero},
		"mulratio overflow":        {value(huge.MulRatio(false, 10, 1)), Overflow},
		"sum overflow":             {value(must(New(MaxMantissa, MaxExponent, false)).Sum(huge)), Overflow},
		"divide by zero":           {value(One.Divide(0)), DivisionByZero},
		"invert zero":              {value(Float(0).Invert()), DivisionByZero},
		"divide overflow":          {value(huge.Divide(tiny)), Overflow},
		"int of negative":          {number(minusOne.Int(0, false)), CantReturnNegative},
		"int with many decimals":   {number(One.Int(16, false)), InvalidArgument},
		"int too big":              {number(huge.Int(0, false)), TooBig},
		"log of zero":              {value(Float(0).Log()), InvalidArgument},
		"log of negative":          {value(minusOne.Log()), ComplexUnsupported},
		"first root":               {value(One.Root(1)), InvalidArgument},
		"root of negative":         {value(minusOne.Root(2)), ComplexUnsupported},
		"negate nonsense":          {value(Float(math.MinInt64).Negate()), InvalidFloat},
		"mantissa oversized":       {value(New(MaxMantissa+1, 0, false)), MantissaOversized},
		"mantissa undersized":      {value(New(MinMantissa-1, 0, false)), MantissaUndersized},
		"exponent oversized":       {value(New(MinMantissa, MaxExponent+1, false)), ExponentOversized},
		"exponent undersized":      {value(New(MinMantissa, MinExponent-1, false)), ExponentUndersized},
		"sto_set of little":        {value(StoSet([]byte{1, 2, 3})), NotAnObject},
		"sto_set of a long header": {value(StoSet(make([]byte, 10))), NotAnObject},
		"sto_set of 256 bytes":     {value(StoSet(make([]byte, 256))), NotAnObject},
	} {
		if !errors.Is(c[0], c[1]) {
			t.Errorf("%s: %v, want %v", name, c[0], c[1])
		}
	}
	for _, mode := range []uint32{0, 7, 8, math.MaxUint32} {
		if _, err := One.Compare(One, mode); !errors.Is(err, InvalidArgument) {
			t.Errorf("Compare with mode %d: %v", mode, err)
		}
	}
	for name, f := range map[string]func() (Float, error){
		"multiply underflow": func() (Float, error) { return tiny.Multiply(tiny) },
		"divide underflow":   func() (Float, error) { return tiny.Divide(huge) },
		"sum to nothing":     func() (Float, error) { return One.Sum(minusOne) },
		"mulratio by none":   func() (Float, error) { return One.MulRatio(true, 0, 1) },
	} {
		if got, err := f(); got != 0 || err != nil {
			t.Errorf("%s: %v, %v, want 0", name, got, err)
		}
	}
	if got, err := tiny.MulRatio(true, 1, 3000); got != tiny || err != nil {
		t.Errorf("rounding up from below the smallest number gives %v, %v", got, err)
	}
}

func random(r *rand.Rand, spread int) Float {
	if r.IntN(50) == 0 {
		return 0
	}
	m := MinMantissa + r.Uint64N(MaxMantissa-MinMantissa+1)
	switch r.IntN(6) {
	case 0:
		m = MinMantissa + r.Uint64N(30)
	case 1:
		m = MaxMantissa - r.Uint64N(30)
	case 2:
		m = (1 + r.Uint64N(9)) * MinMantissa
	}
	return must(New(m, -15-spread+r.IntN(2*spread+1), r.IntN(2) == 0))
}

// digits gives x as mantissa of 16 digits, cut off, and exponent.
func digits(x *big.Rat) (uint64, int) {
	if x.Sign() == 0 {
		return 0, 0
	}
	abs := new(big.Rat).Abs(x)
	f, _ := abs.Float64()
	e := int(math.Floor(math.Log10(f))) - 16
	if math.IsInf(f, 0) || f == 0 {
		panic("out of range of the test")
	}
	for {
		scaled := new(big.Rat).Quo(abs, pow10Rat(e))
		m := new(big.Int).Quo(scaled.Num(), scaled.Denom())
		if m.IsUint64() && m.Uint64() <= MaxMantissa {
			return m.Uint64(), e
		}
		e++
	}
}

func pow10Rat(e int) *big.Rat {
	p := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(e, -e))), nil))
	if e < 0 {
		p.Inv(p)
	}
	return p
}

// nearPower tells whether a mantissa is one of those that the binary logarithm
// takes for the next power of ten.
func nearPower(m uint64) bool { return m > MaxMantissa-60 }

// The rules in exact arithmetic: a product has the 16 digits of the exact one,
// cut off.
func TestMultiplyCutsOff(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		f, g := random(r, 30), random(r, 30)
		got, err := f.Multiply(g)
		if err != nil {
			t.Fatal(err)
		}
		// The network first cuts off 15 digits, then down to 16.
		m := new(big.Int).Mul(new(big.Int).SetUint64(f.mantissa()), new(big.Int).SetUint64(g.mantissa()))
		m.Quo(m, big.NewInt(MinMantissa))
		want, e := digits(new(big.Rat).Mul(new(big.Rat).SetInt(m), pow10Rat(f.exponent()+g.exponent()+15)))
		if f == 0 || g == 0 {
			want = 0
		}
		if nearPower(want) {
			continue
		}
		if got.mantissa() != want || want != 0 && (got.exponent() != e || got.negative() != (f.negative() != g.negative())) {
			t.Fatalf("%v × %v = %v, want %d e%d", f, g, got, want, e)
		}
	}
}

func TestMulRatioRounds(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 20_000 {
		f := random(r, 30)
		num, den, up := r.Uint32(), r.Uint32()|1, r.IntN(2) == 0
		if r.IntN(3) == 0 {
			num, den = r.Uint32N(1000), 1+r.Uint32N(1000)
		}
		got, err := f.MulRatio(up, num, den)
		if err != nil {
			t.Fatal(err)
		}
		exact := new(big.Rat).Mul(f.Rat(), new(big.Rat).SetFrac64(int64(num), int64(den)))
		want, e := digits(exact)
		cut := new(big.Rat).Mul(new(big.Rat).SetInt(new(big.Int).SetUint64(want)), pow10Rat(e))
		if up && cut.Cmp(new(big.Rat).Abs(exact)) != 0 {
			// The network sees 18 digits and whether there is a rest behind them:
			// a fraction that ends before is cut off also when rounding up.
			if got.mantissa() == want && terminates(exact) {
				continue
			}
			if want++; want > MaxMantissa {
				want, e = MinMantissa, e+1
			}
		}
		if got.mantissa() != want || want != 0 && (got.exponent() != e || got.negative() != f.negative()) {
			t.Fatalf("%v × %d/%d (up: %v) = %v, want %d e%d", f, num, den, up, got, want, e)
		}
	}
}

func terminates(x *big.Rat) bool {
	d := new(big.Int).Set(x.Denom())
	for _, p := range []*big.Int{big.NewInt(2), big.NewInt(5)} {
		for {
			q, r := new(big.Int).QuoRem(d, p, new(big.Int))
			if r.Sign() != 0 {
				break
			}
			d = q
		}
	}
	return d.IsInt64() && d.Int64() == 1
}

func TestSumCutsOff(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 20_000 {
		f, g := random(r, 12), random(r, 12)
		if r.IntN(4) == 0 && f != 0 {
			g = must(New(min(MaxMantissa, f.mantissa()+r.Uint64N(20)), f.exponent(), !f.negative()))
		}
		got, err := f.Sum(g)
		if err != nil {
			t.Fatal(err)
		}
		back, err := g.Sum(f)
		if err != nil || back != got {
			t.Fatalf("%v + %v = %v but the other way round %v, %v", f, g, got, back, err)
		}
		switch {
		case f == 0 && got != g, g == 0 && got != f:
			t.Fatalf("%v + %v = %v", f, g, got)
		case f == 0 || g == 0:
			continue
		}
		e := max(f.exponent(), g.exponent())
		cut := func(x Float) *big.Int {
			q := new(big.Rat).Quo(x.Rat(), pow10Rat(e))
			return new(big.Int).Quo(q.Num(), q.Denom())
		}
		m := new(big.Int).Add(cut(f), cut(g))
		want, we := digits(new(big.Rat).Mul(new(big.Rat).SetInt(m), pow10Rat(e)))
		if new(big.Int).Abs(m).Cmp(big.NewInt(10)) <= 0 {
			want = 0
		}
		if got.mantissa() != want || want != 0 && (got.exponent() != we || got.negative() != (m.Sign() < 0)) {
			t.Fatalf("%v + %v = %v, want %v × 10^%d", f, g, got, m, e)
		}
	}
}

// With rounding a sum is the number nearest to the exact one.
func TestSumNearestRounds(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	for range 20_000 {
		f, g := random(r, 12), random(r, 12)
		got, err := f.SumNearest(g)
		if err != nil {
			t.Fatal(err)
		}
		exact := new(big.Rat).Add(f.Rat(), g.Rat())
		m, e := digits(exact)
		if m < MinMantissa && m != 0 {
			m, e = m*10, e-1
		}
		low := new(big.Rat).Mul(new(big.Rat).SetInt(new(big.Int).SetUint64(m)), pow10Rat(e))
		half := new(big.Rat).Mul(big.NewRat(1, 2), pow10Rat(e))
		switch new(big.Rat).Sub(new(big.Rat).Abs(exact), low).Cmp(half) {
		case 1:
			m++
		case 0:
			m += m & 1
		}
		if m > MaxMantissa {
			m, e = MinMantissa, e+1
		}
		if got.mantissa() != m || m != 0 && (got.exponent() != e || got.negative() != (exact.Sign() < 0)) {
			t.Fatalf("%v + %v = %v, want %d e%d", f, g, got, m, e)
		}
	}
}

// A quotient is less exact than a product: it must lie within a unit of the
// 14th digit below the exact one, and divisions without rest must be exact.
func TestDivide(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 20_000 {
		f, g := random(r, 30), random(r, 30)
		if g == 0 {
			continue
		}
		got, err := f.Divide(g)
		if err != nil {
			t.Fatal(err)
		}
		exact := new(big.Rat).Quo(f.Rat(), g.Rat())
		diff := new(big.Rat).Sub(got.Rat(), exact)
		diff.Abs(diff)
		limit := new(big.Rat).Abs(exact)
		limit.Mul(limit, pow10Rat(-13))
		if diff.Cmp(limit) > 0 {
			t.Fatalf("%v / %v = %v, exactly %s", f, g, got, exact.FloatString(40))
		}
	}
	for _, c := range [][3]int64{{6, 2, 3}, {1, 4, 25}, {1000, 8, 125}, {-9, 3, -3}, {7, 7, 1}, {10, 5, 2}} {
		got, err := must(Set(0, c[0])).Divide(must(Set(0, c[1])))
		want := must(Set(0, c[2]))
		if c[0] == 1 {
			want = must(Set(-2, c[2]))
		}
		if got != want || err != nil {
			t.Errorf("%d / %d = %v, %v, want %v", c[0], c[1], got, err, want)
		}
	}
}

func TestCompareIsThatOfTheNumbers(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for range 20_000 {
		f, g := random(r, 2), random(r, 2)
		want := f.Rat().Cmp(g.Rat())
		if got := f.Cmp(g); got != want {
			t.Fatalf("Cmp(%v, %v) = %d, want %d", f, g, got, want)
		}
		for mode := uint32(1); mode < 7; mode++ {
			got, err := f.Compare(g, mode)
			holds := mode&Equal != 0 && want == 0 || mode&Less != 0 && want < 0 || mode&Greater != 0 && want > 0
			if got != holds || err != nil {
				t.Fatalf("Compare(%v, %v, %d) = %v, %v", f, g, mode, got, err)
			}
		}
	}
}

func TestInt(t *testing.T) {
	f := Float(6090101264186145159) // 1.234567981234567
	want := uint64(1234567981234567)
	for decimals := 15; decimals >= 0; decimals-- {
		for _, g := range []Float{f, must(f.Negate())} {
			if got, err := g.Int(uint32(decimals), true); got != want || err != nil {
				t.Errorf("Int(%d) = %d, %v, want %d", decimals, got, err, want)
			}
		}
		want /= 10
	}
	if got, err := Float(5819885286543915399).Int(15, false); got != 1 || err != nil {
		t.Errorf("1.2e-15 in 15 decimals is %d, %v", got, err)
	}
	if got, err := Float(5729808726015270912).Int(15, false); got != 0 || err != nil {
		t.Errorf("1.23e-20 in 15 decimals is %d, %v", got, err)
	}
}

func TestSto(t *testing.T) {
	f := Float(6198187654261802496) // 1234567
	issue := &Issue{Currency: [20]byte{12: 'U', 'S', 'D'}, Issuer: [20]byte{1, 2, 3}}
	tail := "0000000000000000000000005553440000000000" + "0102030000000000000000000000000000000000"
	for _, c := range []struct {
		f     Float
		issue *Issue
		code  uint32
		room  int
		want  string
		err   error
	}{
		{f, nil, 0, 8, "400000000012d687", nil},
		{f, nil, Short, 8, "d60462d5077c8600", nil},
		{0, nil, Short, 8, "8000000000000000", nil},
		{0, nil, 0, 8, "0000000000000000", nil},
		{f, issue, 0x60001, 49, "61d60462d5077c8600" + tail, nil},
		{f, issue, 0x60012, 50, "6012d60462d5077c8600" + tail, nil},
		{f, issue, 0x110001, 50, "1011d60462d5077c8600" + tail, nil},
		{f, issue, 0x110012, 51, "001112d60462d5077c8600" + tail, nil},
		{f, issue, 0x60001, 48, "", TooSmall},
		{f, nil, 0, 7, "", TooSmall},
		{f, issue, 0, 60, "", InvalidArgument},
		{f, issue, Short, 60, "", InvalidArgument},
		{f, nil, 0x60001, 60, "", InvalidArgument},
		{must(Set(20, 1)), nil, 0, 8, "", Overflow},
		{must(Set(-1, 1)), nil, 0, 8, "", Overflow},
		{1, nil, 0, 8, "", InvalidFloat},
	} {
		got, err := c.f.Sto(c.issue, c.code, c.room)
		if !errors.Is(err, c.err) || hex.EncodeToString(got) != c.want {
			t.Errorf("Sto(%v, %#x, %d) = %x, %v; want %s, %v", c.f, c.code, c.room, got, err, c.want, c.err)
			continue
		}
		if err == nil {
			if back, err := StoSet(got); back != c.f || err != nil {
				t.Errorf("StoSet(%x) = %v, %v, want %v", got, back, err, c.f)
			}
		}
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"0", "0"}, {"-0.00", "0"}, {"1", "1"}, {"-1.50", "-1.5"}, {"0.00000001", "0.00000001"},
		{"99999999999999", "99999999999999"}, {"1234567.1", "1234567.1"}, {"1e3", "1000"}, {"1E+3", "1000"},
		{"100000000000", "100000000000"}, {"1000000000000", "1000000000000000e-3"}, {"9999999999999999e80", "9999999999999999e80"},
		{"1e-81", "1000000000000000e-96"}, {"0.0000000000000001", "1000000000000000e-31"}, {"123e-2", "1.23"}, {"00012.00", "12"},
	} {
		f, err := Parse(c.in)
		if c.in == "1000000000000" || c.in == "99999999999999" || c.in == "100000000000" {
			// Servers write integers of more than 11 digits with an exponent.
			m, _, _ := f.Parts()
			if back, err2 := Parse(f.String()); err != nil || err2 != nil || back != f || m == 0 {
				t.Errorf("%s does not survive: %v, %v, %v", c.in, f, err, err2)
			}
			continue
		}
		if err != nil || f.String() != c.out {
			t.Errorf("Parse(%q) = %v, %v, want %s", c.in, f, err, c.out)
		}
	}
	for _, c := range []struct {
		in  string
		err error
	}{
		{"", ErrSyntax}, {"-", ErrSyntax}, {".", ErrSyntax}, {"1.", ErrSyntax}, {"1e", ErrSyntax}, {"0x1", ErrSyntax}, {"1 ", ErrSyntax},
		{"NaN", ErrSyntax}, {"1.2.3", ErrSyntax}, {"1e99999999999999999999", ErrSyntax}, {"--1", ErrSyntax},
		{"12345678901234567", ErrPrecision}, {"1e97", ErrRange}, {"1e-82", ErrRange},
	} {
		if f, err := Parse(c.in); !errors.Is(err, c.err) {
			t.Errorf("Parse(%q) = %v, %v, want %v", c.in, f, err, c.err)
		}
	}
	r := rand.New(rand.NewPCG(15, 16))
	for range 20_000 {
		f := random(r, 60)
		if back, err := Parse(f.String()); back != f || err != nil {
			t.Fatalf("%d becomes %q becomes %d, %v", f, f, back, err)
		}
		if exact, ok := new(big.Rat).SetString(f.String()); !ok || exact.Cmp(f.Rat()) != 0 {
			t.Fatalf("%q is not %v", f, f.Rat())
		}
		le, be := f.LittleEndian(), f.BigEndian()
		if a, err := FromLittleEndian(le[:]); a != f || err != nil {
			t.Fatal(a, err)
		}
		if b, err := FromBigEndian(be[:]); b != f || err != nil {
			t.Fatal(b, err)
		}
		if back, err := FromIssued(f.Issued()); back != f || err != nil {
			t.Fatal(back, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "-1.5e3", "1e-81", "9999999999999999e80", ".5", "", "1e+"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := Parse(s)
		if err != nil {
			return
		}
		if !x.Valid() {
			t.Fatalf("%q is read as %d", s, x)
		}
		if back, err := Parse(x.String()); back != x || err != nil {
			t.Fatalf("%q is written as %q: %v", s, x, err)
		}
	})
}

// Whatever a hook passes, a function answers with a number or a code.
func FuzzFunctions(f *testing.F) {
	f.Add(int64(One), int64(One), uint32(1), uint32(1), []byte{0x61, 0xd6, 4, 98, 213, 58, 142, 112, 0})
	f.Add(int64(-1), int64(1), uint32(0), uint32(7), []byte{0})
	f.Add(int64(7801234554605699072), int64(18014398509481984), uint32(math.MaxUint32), uint32(2), bytes.Repeat([]byte{0xff}, 300))
	f.Fuzz(func(t *testing.T, a, b int64, x, y uint32, data []byte) {
		p, q := Float(a), Float(b)
		check := func(name string, f Float, err error) {
			if err == nil && !f.Valid() {
				t.Fatalf("%s(%d, %d, %d, %d) = %d", name, a, b, x, y, f)
			}
			if err != nil {
				if c, ok := err.(Code); !ok || c >= 0 {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		do := func(name string, f func() (Float, error)) { v, err := f(); check(name, v, err) }
		do("Set", func() (Float, error) { return Set(int32(x), b) })
		do("FromDrops", func() (Float, error) { return FromDrops(a) })
		do("Multiply", func() (Float, error) { return p.Multiply(q) })
		do("MulRatio", func() (Float, error) { return p.MulRatio(x&1 == 0, x, y) })
		do("Negate", p.Negate)
		do("SumNearest", func() (Float, error) { return p.SumNearest(q) })
		do("Sum", func() (Float, error) { return p.Sum(q) })
		do("Divide", func() (Float, error) { return p.Divide(q) })
		do("Invert", p.Invert)
		do("Log", p.Log)
		do("Root", func() (Float, error) { return p.Root(x) })
		do("StoSet", func() (Float, error) { return StoSet(data) })
		if _, err := p.Compare(q, x); err != nil && !errors.Is(err, InvalidFloat) && !errors.Is(err, InvalidArgument) {
			t.Fatal(err)
		}
		if _, err := p.Int(x, y&1 == 0); err == nil && !p.Valid() {
			t.Fatal("an integer of nonsense")
		}
		for _, issue := range []*Issue{nil, {}} {
			if b, err := p.Sto(issue, x, int(y)); err == nil && len(b) > int(y) {
				t.Fatalf("%d bytes into %d", len(b), y)
			}
		}
		if _, err := p.Mantissa(); (err == nil) != p.Valid() {
			t.Fatal(err)
		}
		if _, err := p.Sign(); (err == nil) != p.Valid() {
			t.Fatal(err)
		}
		_ = p.String()
	})
}

func BenchmarkMultiply(b *testing.B) {
	f := must(Parse("1234.5678901"))
	for b.Loop() {
		f.Multiply(f)
	}
}

func BenchmarkSum(b *testing.B) {
	f, g := must(Parse("1234.5678901")), must(Parse("0.00912381"))
	for b.Loop() {
		f.Sum(g)
	}
}

func BenchmarkDivide(b *testing.B) {
	f, g := must(Parse("1234.5678901")), must(Parse("0.00912381"))
	for b.Loop() {
		f.Divide(g)
	}
}

func BenchmarkRoot(b *testing.B) {
	f := must(Parse("1234.5678901"))
	for b.Loop() {
		f.Root(5)
	}
}
