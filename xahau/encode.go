package xahau

import (
	"encoding/binary"
	"errors"
	"fmt"

	"evernode/xahau/field"
)

const (
	objectEnd = 0xE1
	arrayEnd  = 0xF1
	// maxDepth is how deep objects may be nested, as in the ledger.
	maxDepth = 10
	// maxLength is the largest length that the prefix of a variable field holds.
	maxLength = 918744
)

// Encode gives the binary form of an object, without an end marker.
func (d *Definitions) Encode(o *Object) ([]byte, error) {
	return d.AppendBinary(nil, o)
}

// AppendBinary appends the binary form of an object to b.
func (d *Definitions) AppendBinary(b []byte, o *Object) ([]byte, error) {
	return d.appendObject(b, o, false, 0)
}

// AppendSigning appends what a signature of the object covers: its binary form
// without signatures. Those inside other fields stay, as on the ledger.
func (d *Definitions) AppendSigning(b []byte, o *Object) ([]byte, error) {
	return d.appendObject(b, o, true, 0)
}

func (d *Definitions) appendObject(b []byte, o *Object, signing bool, depth int) (_ []byte, err error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	for _, e := range o.entries {
		f, ok := d.codes[e.code]
		if !ok {
			return nil, fmt.Errorf("%s is not defined", d.name(e.code))
		}
		if !f.Serialized || signing && !f.Signing {
			continue
		}
		if e.value.kind() != f.kind {
			return nil, fmt.Errorf("%s: a %T is not a value of type %s", f.Name, e.value, f.Type)
		}
		b = appendHeader(b, f.Code)
		if b, err = d.appendValue(b, f, e.value, depth); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return b, nil
}

// appendHeader writes the one to three bytes before a field.
func appendHeader(b []byte, c field.Code) []byte {
	t, n := byte(c.Type()), byte(c.Nth())
	switch {
	case t < 16 && n < 16:
		return append(b, t<<4|n)
	case t < 16:
		return append(b, t<<4, n)
	case n < 16:
		return append(b, n, t)
	}
	return append(b, 0, t, n)
}

// appendLength writes the one to three bytes before the bytes of a variable field.
func appendLength(b []byte, n int) ([]byte, error) {
	switch {
	case n <= 192:
		return append(b, byte(n)), nil
	case n <= 12480:
		n -= 193
		return append(b, byte(193+n>>8), byte(n)), nil
	case n <= maxLength:
		n -= 12481
		return append(b, byte(241+n>>16), byte(n>>8), byte(n)), nil
	}
	return nil, fmt.Errorf("%d bytes are too long", n)
}

func (d *Definitions) appendValue(b []byte, f *Field, v Value, depth int) (_ []byte, err error) {
	switch v := v.(type) {
	case Uint8:
		return append(b, byte(v)), nil
	case Uint16:
		return binary.BigEndian.AppendUint16(b, uint16(v)), nil
	case Uint32:
		return binary.BigEndian.AppendUint32(b, uint32(v)), nil
	case Uint64:
		return binary.BigEndian.AppendUint64(b, uint64(v)), nil
	case Hash128:
		return append(b, v[:]...), nil
	case Hash160:
		return append(b, v[:]...), nil
	case Hash256:
		return append(b, v[:]...), nil
	case Bits:
		if want := bitsWidth(f.Type); len(v) != want {
			return nil, fmt.Errorf("%d bytes, want %d", len(v), want)
		}
		return append(b, v...), nil
	case Amount:
		return v.AppendBinary(b)
	case Blob:
		if b, err = appendLength(b, len(v)); err != nil {
			return nil, err
		}
		return append(b, v...), nil
	case AccountID:
		return append(append(b, byte(len(v))), v[:]...), nil
	case NoAccount:
		return append(b, 0), nil
	case Vector:
		if b, err = appendLength(b, len(v)*len(Hash256{})); err != nil {
			return nil, err
		}
		for i := range v {
			b = append(b, v[i][:]...)
		}
		return b, nil
	case *Object:
		if v == nil {
			return nil, errors.New("no object")
		}
		if b, err = d.appendObject(b, v, false, depth+1); err != nil {
			return nil, err
		}
		return append(b, objectEnd), nil
	case Array:
		for i, e := range v {
			ef, ok := d.codes[e.Field]
			if !ok || ef.kind != kindObject || e.Object == nil {
				return nil, fmt.Errorf("element %d is not an object", i)
			}
			b = appendHeader(b, e.Field)
			if b, err = d.appendObject(b, e.Object, false, depth+2); err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			b = append(b, objectEnd)
		}
		return append(b, arrayEnd), nil
	case PathSet:
		return appendPaths(b, v)
	case Issue:
		return appendIssue(b, v)
	case Currency:
		return append(b, v[:]...), nil
	case Bridge:
		b = append(append(b, 20), v.LockingDoor[:]...)
		if b, err = appendIssue(b, v.LockingIssue); err != nil {
			return nil, err
		}
		b = append(append(b, 20), v.IssuingDoor[:]...)
		return appendIssue(b, v.IssuingIssue)
	}
	return nil, fmt.Errorf("type %s is not supported", f.Type)
}

func appendIssue(b []byte, i Issue) ([]byte, error) {
	b = append(b, i.Currency[:]...)
	if i.IsNative() {
		if !i.Issuer.IsZero() {
			return nil, errNativeIssuer
		}
		return b, nil
	}
	return append(b, i.Issuer[:]...), nil
}

const (
	stepAccount  = 0x01
	stepCurrency = 0x10
	stepIssuer   = 0x20
	pathNext     = 0xFF
	pathsEnd     = 0x00
)

func (s PathStep) typ() (t byte) {
	if s.HasAccount {
		t |= stepAccount
	}
	if s.HasCurrency {
		t |= stepCurrency
	}
	if s.HasIssuer {
		t |= stepIssuer
	}
	return t
}

var (
	errEmptyPath = errors.New("an empty path")
	errEmptyStep = errors.New("a step that leads nowhere")
)

func appendPaths(b []byte, paths PathSet) ([]byte, error) {
	if len(paths) == 0 {
		return nil, errEmptyPath
	}
	for i, p := range paths {
		if i > 0 {
			b = append(b, pathNext)
		}
		if len(p) == 0 {
			return nil, errEmptyPath
		}
		for _, s := range p {
			t := s.typ()
			if t == 0 {
				return nil, errEmptyStep
			}
			b = append(b, t)
			if s.HasAccount {
				b = append(b, s.Account[:]...)
			}
			if s.HasCurrency {
				b = append(b, s.Currency[:]...)
			}
			if s.HasIssuer {
				b = append(b, s.Issuer[:]...)
			}
		}
	}
	return append(b, pathsEnd), nil
}
