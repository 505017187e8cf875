package hook

import (
	"errors"

	"evernode/xahau/xfl"
)

// floatResult gives what a float function returns: the number or its error code.
func floatResult[T ~int64 | ~uint64](r *run, v T, err error) Code {
	r.spend(priceFloat)
	if err == nil {
		return Code(v)
	}
	var code xfl.Code
	if errors.As(err, &code) {
		return Code(code)
	}
	return InternalError
}

func floatSet(r *run, p []uint64) Code {
	f, err := xfl.Set(int32(lo(p[0])), int64(p[1]))
	return floatResult(r, f, err)
}

func floatMultiply(r *run, p []uint64) Code {
	f, err := xfl.Float(p[0]).Multiply(xfl.Float(p[1]))
	return floatResult(r, f, err)
}

func floatMulratio(r *run, p []uint64) Code {
	f, err := xfl.Float(p[0]).MulRatio(lo(p[1]) > 0, lo(p[2]), lo(p[3]))
	return floatResult(r, f, err)
}

func floatNegate(r *run, p []uint64) Code {
	f, err := xfl.Float(p[0]).Negate()
	return floatResult(r, f, err)
}

func floatCompare(r *run, p []uint64) Code {
	yes, err := xfl.Float(p[0]).Compare(xfl.Float(p[1]), lo(p[2]))
	v := int64(0)
	if yes {
		v = 1
	}
	return floatResult(r, v, err)
}

func floatSum(r *run, p []uint64) Code {
	f, err := xfl.Float(p[0]).Sum(xfl.Float(p[1]))
	return floatResult(r, f, err)
}

func floatInvert(r *run, p []uint64) Code {
	f, err := xfl.Float(p[0]).Invert()
	return floatResult(r, f, err)
}

func floatDivide(r *run, p []uint64) Code {
	f, err := xfl.Float(p[0]).Divide(xfl.Float(p[1]))
	return floatResult(r, f, err)
}

func floatOne(*run, []uint64) Code { return Code(xfl.One) }

func floatMantissa(r *run, p []uint64) Code {
	v, err := xfl.Float(p[0]).Mantissa()
	return floatResult(r, v, err)
}

func floatSign(r *run, p []uint64) Code {
	v, err := xfl.Float(p[0]).Sign()
	return floatResult(r, v, err)
}

func floatInt(r *run, p []uint64) Code {
	v, err := xfl.Float(p[0]).Int(lo(p[1]), lo(p[2]) != 0)
	return floatResult(r, v, err)
}

func floatLog(r *run, p []uint64) Code {
	f, err := xfl.Float(p[0]).Log()
	return floatResult(r, f, err)
}

func floatRoot(r *run, p []uint64) Code {
	f, err := xfl.Float(p[0]).Root(lo(p[1]))
	return floatResult(r, f, err)
}

// floatSto writes a number as a serialized amount.
func (r *run) floatSto(p []uint64) Code {
	wptr, wlen, cptr, clen, iptr, ilen := lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3]), lo(p[4]), lo(p[5])
	f, fieldCode := xfl.Float(p[6]), lo(p[7])
	if r.outside(wptr, wlen) {
		return OutOfBounds
	}
	issue := &xfl.Issue{}
	hasCurrency, hasIssuer := clen != 0, ilen != 0
	if hasCurrency {
		if clen != 20 && clen != 3 {
			return InvalidArgument
		}
		if r.outside(cptr, clen) {
			return OutOfBounds
		}
		currency, ok := parseCurrency(r.bytes(cptr, clen))
		if !ok {
			return InvalidArgument
		}
		issue.Currency = currency
	} else if cptr != 0 {
		return InvalidArgument
	}
	if hasIssuer {
		if ilen != 20 {
			return InvalidArgument
		}
		if r.outside(iptr, ilen) {
			return OutOfBounds
		}
		copy(issue.Issuer[:], r.bytes(iptr, ilen))
	} else if iptr != 0 {
		return InvalidArgument
	}
	if !f.Valid() {
		return InvalidFloat
	}
	if hasCurrency != hasIssuer {
		return InvalidArgument
	}
	if !hasIssuer {
		issue = nil
	}
	out, err := f.Sto(issue, fieldCode, int(wlen))
	if err != nil {
		return floatResult(r, int64(0), err)
	}
	return r.write(wptr, wlen, out)
}

func (r *run) floatStoSet(p []uint64) Code {
	ptr, length := lo(p[0]), lo(p[1])
	if length < 8 {
		return NotAnObject
	}
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	f, err := xfl.StoSet(r.bytes(ptr, length))
	return floatResult(r, f, err)
}
