package xfl

import "encoding/binary"

// Short is the field code with which float_sto writes an issued value without
// header, currency and issuer.
const Short = 0xFFFFFFFF

// Issue is the currency and issuer that float_sto writes behind a value.
type Issue struct {
	Currency, Issuer [20]byte
}

// Sto is float_sto: f as a serialized amount. Field code 0 asks for the 8 bytes
// of a native amount in drops (f counts drops, cut off), Short for the 8 bytes of
// an issued value, any other for header, value and issue; then, and only then,
// issue must be given. room is the length of the hook's buffer, in bytes.
func (f Float) Sto(issue *Issue, fieldCode uint32, room int) ([]byte, error) {
	if !f.Valid() {
		return nil, InvalidFloat
	}
	native, short := fieldCode == 0, fieldCode == Short
	if (issue != nil) == (native || short) {
		return nil, InvalidArgument
	}
	var out []byte
	if issue != nil {
		field, typ := byte(fieldCode), byte(fieldCode>>16)
		manyFields, manyTypes := fieldCode&0xFFFF > 15, fieldCode>>16 > 15
		switch {
		case !manyFields && !manyTypes:
			out = append(out, typ<<4+field)
		case manyFields && !manyTypes:
			out = append(out, typ<<4, field)
		case !manyFields && manyTypes:
			out = append(out, field<<4, typ)
		default:
			out = append(out, 0, typ, field)
		}
	}
	needed := len(out) + 8
	if issue != nil {
		needed += 40
	}
	if needed > room {
		return nil, TooSmall
	}
	if native {
		drops, err := f.nativeBits()
		if err != nil {
			return nil, err
		}
		return binary.BigEndian.AppendUint64(out, drops), nil
	}
	out = binary.BigEndian.AppendUint64(out, f.Issued())
	if issue != nil {
		out = append(out, issue.Currency[:]...)
		out = append(out, issue.Issuer[:]...)
	}
	return out, nil
}

func (f Float) nativeBits() (uint64, error) {
	m, e, negative := f.mantissa(), f.exponent(), f.negative()
	if f == 0 {
		// Zero has no sign bit in the layout, and the network takes that for a
		// number below zero here.
		e, negative = 0, true
	}
	if e > 0 || e < -15 {
		return 0, Overflow
	}
	m /= powersOfTen[-e]
	if !negative {
		m |= 1 << 62
	}
	return m, nil
}

// Issued is the 64 bit value of an issued amount as the ledger serializes it.
func (f Float) Issued() uint64 { return uint64(f) | 1<<63 }

// FromIssued is the reverse of Issued. It fails with InvalidFloat for anything
// that is not the one form of a number.
func FromIssued(bits uint64) (Float, error) {
	if bits == 1<<63 {
		return 0, nil
	}
	f := Float(bits &^ (1 << 63))
	if bits>>63 == 0 || f == 0 || !f.Valid() {
		return 0, InvalidFloat
	}
	return f, nil
}

// StoSet is float_sto_set: the number in a serialized amount, with or without
// the field header. A native amount counts drops. As in the network the length
// counts modulo 256.
func StoSet(data []byte) (Float, error) {
	length := len(data) & 0xff
	if length > 8 {
		skip := 1
		switch hi, lo := data[0]>>4, data[0]&15; {
		case hi == 0 && lo == 0:
			skip = 3
		case hi == 0 || lo == 0:
			skip = 2
		}
		if length < skip+8 {
			return 0, NotAnObject
		}
		data = data[skip:]
		length -= skip
	}
	if length < 8 {
		return 0, NotAnObject
	}
	v := binary.BigEndian.Uint64(data)
	m, e := v&mantissaMask, 0
	if v>>63 != 0 {
		e = int(v>>mantissaBits&0xff) - exponentBias
	}
	return normalize(m, e, v&(1<<62) == 0)
}
