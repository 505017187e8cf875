package xahau

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"evernode/xahau/field"
)

var (
	errShort = errors.New("ends too early")
	errDepth = errors.New("objects are nested too deep")
)

// MaxObject is the largest binary form that Decode reads, in bytes.
const MaxObject = 4 << 20

// Decode reads the binary form of an object. Fields may come in any order, as on
// the ledger, but none twice.
func (d *Definitions) Decode(b []byte) (*Object, error) {
	if len(b) > MaxObject {
		return nil, fmt.Errorf("decode: %d bytes are too many", len(b))
	}
	r := &reader{defs: d, b: b}
	o, err := r.object(0)
	if err != nil {
		return nil, fmt.Errorf("decode: at byte %d: %w", len(b)-len(r.b), err)
	}
	return o, nil
}

// DecodePrefix reads objects one after another: one that ends with an end
// marker, and how many bytes that took.
func (d *Definitions) DecodePrefix(b []byte) (*Object, int, error) {
	if len(b) > MaxObject {
		b = b[:MaxObject]
	}
	r := &reader{defs: d, b: b}
	o, err := r.object(1)
	if err != nil {
		return nil, 0, fmt.Errorf("decode: at byte %d: %w", len(b)-len(r.b), err)
	}
	return o, len(b) - len(r.b), nil
}

type reader struct {
	defs *Definitions
	b    []byte
}

func (r *reader) take(n int) ([]byte, error) {
	if n > len(r.b) {
		return nil, errShort
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b, nil
}

func (r *reader) byte() (byte, error) {
	b, err := r.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (r *reader) header() (field.Code, error) {
	h, err := r.byte()
	if err != nil {
		return 0, err
	}
	t, n := h>>4, h&15
	if t == 0 {
		if t, err = r.byte(); err != nil {
			return 0, err
		}
		if t < 16 {
			return 0, fmt.Errorf("type %d is written with too many bytes", t)
		}
	}
	if n == 0 {
		if n, err = r.byte(); err != nil {
			return 0, err
		}
		if n < 16 {
			return 0, fmt.Errorf("field %d is written with too many bytes", n)
		}
	}
	return field.NewCode(int(t), int(n)), nil
}

func (r *reader) length() (int, error) {
	b, err := r.byte()
	if err != nil {
		return 0, err
	}
	switch {
	case b <= 192:
		return int(b), nil
	case b <= 240:
		c, err := r.byte()
		if err != nil {
			return 0, err
		}
		return 193 + int(b-193)<<8 + int(c), nil
	case b <= 254:
		c, err := r.take(2)
		if err != nil {
			return 0, err
		}
		return 12481 + int(b-241)<<16 + int(c[0])<<8 + int(c[1]), nil
	}
	return 0, errors.New("the length is malformed")
}

func (r *reader) variable() ([]byte, error) {
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

// object reads fields up to the end of the input, or for depth above 0 up to the
// end marker.
func (r *reader) object(depth int) (*Object, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	o := &Object{}
	sorted := true
	for {
		if len(r.b) == 0 {
			if depth > 0 {
				return nil, errShort
			}
			break
		}
		if r.b[0] == objectEnd && depth > 0 {
			r.b = r.b[1:]
			break
		}
		c, err := r.header()
		if err != nil {
			return nil, err
		}
		f, ok := r.defs.codes[c]
		if !ok || !f.Serialized || c == field.ObjectEndMarker || c == field.ArrayEndMarker {
			return nil, fmt.Errorf("%s does not belong here", r.defs.name(c))
		}
		v, err := r.value(f, depth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if n := len(o.entries); n > 0 && o.entries[n-1].code >= c {
			sorted = false
		}
		o.entries = append(o.entries, entry{c, v})
	}
	if !sorted {
		slices.SortStableFunc(o.entries, func(a, b entry) int { return int(a.code) - int(b.code) })
		for i := 1; i < len(o.entries); i++ {
			if o.entries[i].code == o.entries[i-1].code {
				return nil, fmt.Errorf("%s is there twice", r.defs.name(o.entries[i].code))
			}
		}
	}
	return o, nil
}

func (r *reader) value(f *Field, depth int) (Value, error) {
	fixed := func(n int) []byte {
		b, err := r.take(n)
		if err != nil {
			return nil
		}
		return b
	}
	switch f.kind {
	case kindUint8:
		if b := fixed(1); b != nil {
			return Uint8(b[0]), nil
		}
	case kindUint16:
		if b := fixed(2); b != nil {
			return Uint16(binary.BigEndian.Uint16(b)), nil
		}
	case kindUint32:
		if b := fixed(4); b != nil {
			return Uint32(binary.BigEndian.Uint32(b)), nil
		}
	case kindUint64:
		if b := fixed(8); b != nil {
			return Uint64(binary.BigEndian.Uint64(b)), nil
		}
	case kindHash128:
		if b := fixed(16); b != nil {
			return Hash128(b), nil
		}
	case kindHash160:
		if b := fixed(20); b != nil {
			return Hash160(b), nil
		}
	case kindHash256:
		if b := fixed(32); b != nil {
			return Hash256(b), nil
		}
	case kindCurrency:
		if b := fixed(20); b != nil {
			return Currency(b), nil
		}
	case kindBits:
		if b := fixed(bitsWidth(f.Type)); b != nil {
			return Bits(slices.Clone(b)), nil
		}
	case kindAmount:
		a, n, err := DecodeAmount(r.b)
		if err != nil {
			return nil, err
		}
		r.b = r.b[n:]
		return a, nil
	case kindBlob:
		b, err := r.variable()
		if err != nil {
			return nil, err
		}
		return Blob(append([]byte{}, b...)), nil
	case kindAccount:
		b, err := r.variable()
		if err != nil {
			return nil, err
		}
		if len(b) == 0 {
			return NoAccount{}, nil
		}
		if len(b) != 20 {
			return nil, fmt.Errorf("an account of %d bytes", len(b))
		}
		return AccountID(b), nil
	case kindVector:
		b, err := r.variable()
		if err != nil {
			return nil, err
		}
		if len(b)%32 != 0 {
			return nil, fmt.Errorf("%d bytes are no list of hashes", len(b))
		}
		v := make(Vector, len(b)/32)
		for i := range v {
			v[i] = Hash256(b[i*32:])
		}
		return v, nil
	case kindObject:
		return r.object(depth + 1)
	case kindArray:
		return r.array(depth + 1)
	case kindPathSet:
		return r.paths()
	case kindIssue:
		return r.issue()
	case kindBridge:
		return r.bridge()
	default:
		return nil, fmt.Errorf("type %s is not supported", f.Type)
	}
	return nil, errShort
}

func (r *reader) array(depth int) (Array, error) {
	a := Array{}
	for {
		if len(r.b) == 0 {
			return nil, errShort
		}
		if r.b[0] == arrayEnd {
			r.b = r.b[1:]
			return a, nil
		}
		c, err := r.header()
		if err != nil {
			return nil, err
		}
		f, ok := r.defs.codes[c]
		if !ok || f.kind != kindObject || c == field.ObjectEndMarker {
			return nil, fmt.Errorf("element %d: %s is not an object", len(a), r.defs.name(c))
		}
		o, err := r.object(depth + 1)
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", len(a), err)
		}
		a = append(a, Element{c, o})
	}
}

func (r *reader) paths() (PathSet, error) {
	var set PathSet
	var path Path
	for {
		t, err := r.byte()
		if err != nil {
			return nil, err
		}
		if t == pathsEnd || t == pathNext {
			if len(path) == 0 {
				return nil, errEmptyPath
			}
			set, path = append(set, path), nil
			if t == pathsEnd {
				return set, nil
			}
			continue
		}
		if t&^(stepAccount|stepCurrency|stepIssuer) != 0 {
			return nil, fmt.Errorf("a step of type %02X", t)
		}
		s := PathStep{HasAccount: t&stepAccount != 0, HasCurrency: t&stepCurrency != 0, HasIssuer: t&stepIssuer != 0}
		for _, part := range []struct {
			has bool
			dst []byte
		}{{s.HasAccount, s.Account[:]}, {s.HasCurrency, s.Currency[:]}, {s.HasIssuer, s.Issuer[:]}} {
			if part.has {
				b, err := r.take(20)
				if err != nil {
					return nil, err
				}
				copy(part.dst, b)
			}
		}
		path = append(path, s)
	}
}

func (r *reader) issue() (i Issue, err error) {
	b, err := r.take(20)
	if err != nil {
		return i, err
	}
	i.Currency = Currency(b)
	if i.IsNative() {
		return i, nil
	}
	if b, err = r.take(20); err != nil {
		return i, err
	}
	i.Issuer = AccountID(b)
	if i.Issuer.IsZero() {
		return i, errNoIssuer
	}
	return i, nil
}

func (r *reader) bridge() (v Bridge, err error) {
	for _, end := range []struct {
		door  *AccountID
		issue *Issue
	}{{&v.LockingDoor, &v.LockingIssue}, {&v.IssuingDoor, &v.IssuingIssue}} {
		b, err := r.variable()
		if err != nil {
			return v, err
		}
		if len(b) != 20 {
			return v, fmt.Errorf("an account of %d bytes", len(b))
		}
		*end.door = AccountID(b)
		if *end.issue, err = r.issue(); err != nil {
			return v, err
		}
	}
	return v, nil
}
