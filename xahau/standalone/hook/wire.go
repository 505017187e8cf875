package hook

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"evernode/xahau"
	"evernode/xahau/field"
)

// Walking serialized objects. Hooks ask for single fields of transactions, ledger
// entries and metadata, most of which are never looked at, so the machine works on
// the bytes. All of this checks every length, as hooks hand in bytes of their own.

// Types of fields.
const (
	typeUInt16  = 1
	typeUInt32  = 2
	typeUInt64  = 3
	typeHash128 = 4
	typeHash256 = 5
	typeAmount  = 6
	typeBlob    = 7
	typeAccount = 8
	typeObject  = 14
	typeArray   = 15
	typeUInt8   = 16
	typeHash160 = 17
	typePathSet = 18
	typeVector  = 19
)

// Headers that end an object and an array.
const (
	endOfObject = 0xe1
	endOfArray  = 0xf1
)

// maxDepth bounds how deep objects can be nested; the network's bound is 10.
const maxDepth = 10

var errWire = errors.New("not a serialized object")

// part is a field in serialized form. value is what the Hook API calls the field's
// value: blobs, accounts and vectors with their length prefix, objects and arrays
// without header and end marker.
type part struct {
	code  field.Code
	head  []byte
	value []byte
	// body is value without the length prefix.
	body []byte
}

// readHeader reads a field's header.
func readHeader(b []byte) (code field.Code, n int, err error) {
	if len(b) == 0 {
		return 0, 0, errWire
	}
	typ, nth := int(b[0]>>4), int(b[0]&15)
	n = 1
	if typ == 0 {
		if n >= len(b) {
			return 0, 0, errWire
		}
		typ = int(b[n])
		n++
		if typ < 16 {
			return 0, 0, errWire
		}
	}
	if nth == 0 {
		if n >= len(b) {
			return 0, 0, errWire
		}
		nth = int(b[n])
		n++
		if nth < 16 {
			return 0, 0, errWire
		}
	}
	return field.NewCode(typ, nth), n, nil
}

func appendHeader(out []byte, c field.Code) []byte {
	typ, nth := byte(c.Type()), byte(c.Nth())
	switch {
	case typ < 16 && nth < 16:
		return append(out, typ<<4|nth)
	case typ < 16:
		return append(out, typ<<4, nth)
	case nth < 16:
		return append(out, nth, typ)
	}
	return append(out, 0, typ, nth)
}

// readLength reads a length prefix.
func readLength(b []byte) (length, n int, err error) {
	if len(b) == 0 {
		return 0, 0, errWire
	}
	switch c := int(b[0]); {
	case c <= 192:
		return c, 1, nil
	case c <= 240 && len(b) >= 2:
		return 193 + (c-193)*256 + int(b[1]), 2, nil
	case c > 240 && c <= 254 && len(b) >= 3:
		return 12481 + (c-241)*65536 + int(b[1])*256 + int(b[2]), 3, nil
	}
	return 0, 0, errWire
}

// nextPart reads the field at the beginning of b and gives what follows it.
func nextPart(b []byte, depth int) (p part, rest []byte, err error) {
	code, n, err := readHeader(b)
	if err != nil {
		return p, nil, err
	}
	p.code, p.head = code, b[:n]
	b = b[n:]
	size := 0
	switch code.Type() {
	case typeUInt8:
		size = 1
	case typeUInt16:
		size = 2
	case typeUInt32:
		size = 4
	case typeUInt64:
		size = 8
	case typeHash128:
		size = 16
	case typeHash160, 26:
		size = 20
	case typeHash256:
		size = 32
	case 20:
		size = 12
	case 21:
		size = 24
	case 22:
		size = 48
	case 23:
		size = 64
	case typeAmount:
		if len(b) == 0 {
			return p, nil, errWire
		}
		size = 8
		if b[0]&0x80 != 0 {
			size = 48
		}
	case 24: // an issue: a currency, and an issuer unless it is the native one
		if len(b) < 20 {
			return p, nil, errWire
		}
		size = 40
		if isZero(b[:20]) {
			size = 20
		}
	case typeBlob, typeAccount, typeVector:
		length, k, err := readLength(b)
		if err != nil {
			return p, nil, err
		}
		if length > len(b)-k {
			return p, nil, errWire
		}
		if code.Type() == typeAccount && length != 20 && length != 0 || code.Type() == typeVector && length%32 != 0 {
			return p, nil, errWire
		}
		p.value, p.body = b[:k+length], b[k:k+length]
		return p, b[k+length:], nil
	case typePathSet:
		if size, err = pathSetSize(b); err != nil {
			return p, nil, err
		}
	case typeObject, typeArray:
		return container(p, b, depth)
	default:
		return p, nil, errWire
	}
	if size > len(b) {
		return p, nil, errWire
	}
	p.value = b[:size]
	p.body = p.value
	return p, b[size:], nil
}

func container(p part, b []byte, depth int) (part, []byte, error) {
	if depth >= maxDepth {
		return p, nil, errWire
	}
	end := byte(endOfObject)
	if p.code.Type() == typeArray {
		end = endOfArray
	}
	rest := b
	for {
		if len(rest) == 0 {
			return p, nil, errWire
		}
		if rest[0] == end {
			p.value = b[:len(b)-len(rest)]
			p.body = p.value
			return p, rest[1:], nil
		}
		inner, after, err := nextPart(rest, depth+1)
		if err != nil {
			return p, nil, err
		}
		if end == endOfArray && inner.code.Type() != typeObject {
			return p, nil, errWire
		}
		rest = after
	}
}

func pathSetSize(b []byte) (int, error) {
	for i := 0; i < len(b); {
		switch kind := b[i]; {
		case kind == 0:
			return i + 1, nil
		case kind == 0xff:
			i++
		case kind&^0x31 != 0:
			return 0, errWire
		default:
			i++
			for bit := byte(1); bit <= 0x20; bit <<= 1 {
				if kind&bit != 0 {
					i += 20
				}
			}
		}
	}
	return 0, errWire
}

// findPart finds a field in the contents of an object.
func findPart(b []byte, code field.Code) (part, bool) {
	for len(b) > 0 {
		p, rest, err := nextPart(b, 0)
		if err != nil {
			return part{}, false
		}
		if p.code == code {
			return p, true
		}
		b = rest
	}
	return part{}, false
}

// parts reads all fields of an object.
func parts(b []byte) ([]part, error) { return partsAt(b, 0) }

func partsAt(b []byte, depth int) ([]part, error) {
	all := make([]part, 0, 16)
	for len(b) > 0 {
		p, rest, err := nextPart(b, depth)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
		b = rest
	}
	return all, nil
}

// canonical gives an object with the fields of every level in canonical order, and
// the fields of the first level. A field that is there twice is an error.
func canonical(b []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, errWire
	}
	all, err := partsAt(b, depth)
	if err != nil {
		return nil, err
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].code < all[j].code })
	out := make([]byte, 0, len(b))
	for i, p := range all {
		if i > 0 && all[i-1].code == p.code {
			return nil, fmt.Errorf("field %#x twice: %w", uint32(p.code), errWire)
		}
		out = append(out, p.head...)
		switch p.code.Type() {
		case typeObject:
			inner, err := canonical(p.value, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(append(out, inner...), endOfObject)
		case typeArray:
			items, err := partsAt(p.value, depth+1)
			if err != nil {
				return nil, err
			}
			for _, item := range items {
				inner, err := canonical(item.value, depth+2)
				if err != nil {
					return nil, err
				}
				out = append(append(append(out, item.head...), inner...), endOfObject)
			}
			out = append(out, endOfArray)
		default:
			out = append(out, p.value...)
		}
	}
	return out, nil
}

// item gives the i-th object of an array's contents.
func item(b []byte, i uint32) (part, bool) {
	for len(b) > 0 {
		p, rest, err := nextPart(b, 0)
		if err != nil {
			return part{}, false
		}
		if i == 0 {
			return p, true
		}
		i--
		b = rest
	}
	return part{}, false
}

// items gives all objects of an array's contents.
func items(b []byte) []part {
	all, err := parts(b)
	if err != nil {
		return nil
	}
	return all
}

// object is an object whose fields are looked up more than once.
type object []part

func (o object) get(code field.Code) (part, bool) {
	for _, p := range o {
		if p.code == code {
			return p, true
		}
	}
	return part{}, false
}

func (o object) has(code field.Code) bool {
	_, ok := o.get(code)
	return ok
}

func (o object) uint(code field.Code) (uint64, bool) {
	p, ok := o.get(code)
	if !ok {
		return 0, false
	}
	v := uint64(0)
	for _, c := range p.body[:min(8, len(p.body))] {
		v = v<<8 | uint64(c)
	}
	return v, true
}

func (o object) hash(code field.Code) (h xahau.Hash256, ok bool) {
	p, ok := o.get(code)
	if !ok || len(p.body) != 32 {
		return h, false
	}
	return xahau.Hash256(p.body), true
}

func (o object) account(code field.Code) (a xahau.AccountID, ok bool) {
	p, ok := o.get(code)
	if !ok || len(p.body) != 20 {
		return a, false
	}
	return xahau.AccountID(p.body), true
}

// drops gives a native amount.
func (o object) drops(code field.Code) (int64, bool) {
	p, ok := o.get(code)
	if !ok || len(p.body) != 8 {
		return 0, false
	}
	return nativeDrops(p.body), true
}

func nativeDrops(b []byte) int64 {
	v := binary.BigEndian.Uint64(b)
	d := int64(v & (1<<62 - 1))
	if v&(1<<62) == 0 {
		return -d
	}
	return d
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
