package xfl

import "strconv"

// Code is an error of the Hook API: the negative number that a host function
// returns to the hook. It is an error of this package's functions.
type Code int64

// The codes that float functions give.
const (
	TooBig             Code = -3
	TooSmall           Code = -4
	InvalidArgument    Code = -7
	NotAnObject        Code = -23
	InvalidFloat       Code = -10024
	DivisionByZero     Code = -25
	MantissaOversized  Code = -26
	MantissaUndersized Code = -27
	ExponentOversized  Code = -28
	ExponentUndersized Code = -29
	Overflow           Code = -30
	CantReturnNegative Code = -33
	ComplexUnsupported Code = -39
)

// Error names the code as the Hook API does.
func (c Code) Error() string {
	name := "HOOK_ERROR"
	switch c {
	case TooBig:
		name = "TOO_BIG"
	case TooSmall:
		name = "TOO_SMALL"
	case InvalidArgument:
		name = "INVALID_ARGUMENT"
	case NotAnObject:
		name = "NOT_AN_OBJECT"
	case InvalidFloat:
		name = "INVALID_FLOAT"
	case DivisionByZero:
		name = "DIVISION_BY_ZERO"
	case MantissaOversized:
		name = "MANTISSA_OVERSIZED"
	case MantissaUndersized:
		name = "MANTISSA_UNDERSIZED"
	case ExponentOversized:
		name = "EXPONENT_OVERSIZED"
	case ExponentUndersized:
		name = "EXPONENT_UNDERSIZED"
	case Overflow:
		name = "XFL_OVERFLOW"
	case CantReturnNegative:
		name = "CANT_RETURN_NEGATIVE"
	case ComplexUnsupported:
		name = "COMPLEX_NOT_SUPPORTED"
	}
	return name + " (" + strconv.FormatInt(int64(c), 10) + ")"
}
