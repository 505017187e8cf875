package xahau

import (
	"errors"
	"math/big"
	"testing"

	"evernode/xahau/xfl"
)

func (a Amount) rat() *big.Rat {
	if a.IsNative() {
		return new(big.Rat).SetInt64(a.drops)
	}
	return a.value.Rat()
}

// someAmount is one as they occur: no larger than trust lines and balances are.
func (r *random) someAmount(issue Issue) Amount {
	if issue.IsNative() {
		return Drops(1 + r.Int64N(1_000_000_000_000)>>r.IntN(40))
	}
	f, err := xfl.Normalize(1+r.Uint64N(xfl.MaxMantissa)>>r.IntN(50), -20+r.IntN(20), false)
	if err != nil {
		panic(err)
	}
	return Amount{value: f, issue: issue}
}

// Results lie close to the exact ones.
func TestArithmeticBounds(t *testing.T) {
	r := newRandom(30)
	eur := Issue{MustCurrency("EUR"), AccountOne}
	for range 30_000 {
		issues := []Issue{{}, eur}
		a, b, to := r.someAmount(issues[r.IntN(2)]), r.someAmount(issues[r.IntN(2)]), issues[r.IntN(2)]
		up := r.IntN(2) == 0
		for _, op := range []struct {
			name  string
			exact *big.Rat
			round func(Amount, Amount, Issue, bool) (Amount, error)
			near  func(Amount, Amount, Issue) (Amount, error)
		}{
			{"×", new(big.Rat).Mul(a.rat(), b.rat()), MulRound, Multiply},
			{"/", new(big.Rat).Quo(a.rat(), b.rat()), DivRound, Divide},
		} {
			got, err := op.round(a, b, to, up)
			if errors.Is(err, ErrOverflow) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			// Rounding down is exact; rounding up looks only at the last two digits
			// that are cut off.
			if !up && got.rat().Cmp(op.exact) > 0 {
				t.Fatalf("%s %s %s: %s is more than %s", a, op.name, b, got, op.exact.FloatString(30))
			}
			// A unit of the last place, for native amounts two drops.
			limit := new(big.Rat).Mul(op.exact, big.NewRat(1, xfl.MinMantissa/2))
			if to.IsNative() {
				limit.Add(limit, big.NewRat(2, 1))
			} else {
				limit.Add(limit, mustRat("1e-81"))
			}
			for _, x := range []func() (Amount, error){
				func() (Amount, error) { return got, nil },
				func() (Amount, error) { return op.near(a, b, to) },
			} {
				v, err := x()
				if err != nil {
					t.Fatal(err)
				}
				diff := new(big.Rat).Sub(v.rat(), op.exact)
				if diff.Abs(diff).Cmp(limit) > 0 {
					t.Fatalf("%s %s %s = %s, exactly %s", a, op.name, b, v, op.exact.FloatString(30))
				}
			}
		}
	}
}

func mustRat(s string) *big.Rat {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		panic(s)
	}
	return r
}

func TestArithmeticExamples(t *testing.T) {
	usd := Issue{MustCurrency("USD"), AccountOne}
	num := func(s string) Amount {
		v, err := xfl.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return Amount{value: v, issue: usd}
	}
	for _, c := range []struct {
		name      string
		got       func() (Amount, error)
		want      Amount
		wantError error
	}{
		{"60 + 20", func() (Amount, error) { return num("60").Add(num("20")) }, num("80"), nil},
		{"cancels", func() (Amount, error) { return num("60.1").Sub(num("60.1")) }, num("0"), nil},
		{"drops", func() (Amount, error) { return Drops(5).Sub(Drops(7)) }, Drops(-2), nil},
		{"mixed", func() (Amount, error) { return Drops(5).Add(num("1")) }, Amount{}, ErrIncomparable},
		{"drops overflow", func() (Amount, error) { return Drops(1<<63 - 1).Add(Drops(1)) }, Amount{}, ErrOverflow},
		{"20 × 3", func() (Amount, error) { return Multiply(num("20"), num("3"), usd) }, num("60"), nil},
		{"20 × 3 drops", func() (Amount, error) { return Multiply(num("20"), num("3"), Issue{}) }, Drops(60), nil},
		{"drops × 3", func() (Amount, error) { return Multiply(Drops(20), num("3"), Issue{}) }, Drops(60), nil},
		{"drops × drops", func() (Amount, error) { return Multiply(Drops(20), Drops(3), Issue{}) }, Drops(60), nil},
		{"drops × drops too many", func() (Amount, error) { return Multiply(Drops(1<<40), Drops(1<<40), Issue{}) }, Amount{}, ErrOverflow},
		{"60 / 3", func() (Amount, error) { return Divide(num("60"), num("3"), usd) }, num("20"), nil},
		{"60 drops / 3", func() (Amount, error) { return Divide(Drops(60), num("3"), Issue{}) }, Drops(20), nil},
		{"1 / 3", func() (Amount, error) { return Divide(num("1"), num("3"), usd) }, num("0.3333333333333333"), nil},
		{"2 / 3", func() (Amount, error) { return Divide(num("2"), num("3"), usd) }, num("0.6666666666666667"), nil},
		{"1 / 3 up", func() (Amount, error) { return DivRound(num("1"), num("3"), usd, true) }, num("0.3333333333333334"), nil},
		{"2 / 3 down", func() (Amount, error) { return DivRound(num("2"), num("3"), usd, false) }, num("0.6666666666666666"), nil},
		{"tiny up", func() (Amount, error) { return MulRound(num("1e-81"), num("1e-81"), usd, true) }, num("1e-81"), nil},
		{"less than a drop up", func() (Amount, error) { return MulRound(num("0.001"), num("0.001"), Issue{}, true) }, Drops(1), nil},
		{"less than a drop down", func() (Amount, error) { return MulRound(num("0.001"), num("0.001"), Issue{}, false) }, Drops(0), nil},
		{"huge", func() (Amount, error) { return Multiply(num("1e90"), num("1e90"), usd) }, Amount{}, ErrOverflow},
		{"huge drops", func() (Amount, error) { return Multiply(num("1e90"), num("1"), Issue{}) }, Amount{}, ErrOverflow},
		{"ratio", func() (Amount, error) { return num("100").MulRatio(1_005_000_000, 1_000_000_000, true) }, num("100.5"), nil},
		{"ratio up", func() (Amount, error) { return Drops(10).MulRatio(1, 3, true) }, Drops(4), nil},
		{"ratio down", func() (Amount, error) { return Drops(10).MulRatio(1, 3, false) }, Drops(3), nil},
		{"ratio of negative up", func() (Amount, error) { return Drops(-10).MulRatio(1, 3, true) }, Drops(-3), nil},
		{"ratio of negative down", func() (Amount, error) { return Drops(-10).MulRatio(1, 3, false) }, Drops(-4), nil},
	} {
		got, err := c.got()
		if !errors.Is(err, c.wantError) || err == nil && got != c.want {
			t.Errorf("%s: %s, %v; want %s, %v", c.name, got, err, c.want, c.wantError)
		}
	}
	if _, err := Divide(num("1"), num("0"), usd); err == nil {
		t.Error("divided by zero")
	}
	// The quality in a known order book directory: 50,000 drops for 1.
	if q := Rate(Drops(50_000), num("1")); q != 0x5911C37937E08000 {
		t.Errorf("rate %016X", q)
	}
	r := newRandom(31)
	for range 1000 {
		a, b := r.someAmount(usd), r.someAmount(Issue{})
		q := Rate(a, b)
		v, err := RateAmount(q)
		if err != nil || Rate(v, Amount{value: xfl.One, issue: unit}) != q {
			t.Fatalf("rate %016X becomes %s, %v", q, v, err)
		}
	}
	if Rate(num("1"), num("0")) != 0 {
		t.Error("a rate for nothing")
	}
}
