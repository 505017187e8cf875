package usermsg

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"evernode/hotpocket/key"
	"evernode/internal/digest"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

type kind uint8

const (
	kindNone   kind = iota // no such field
	kindNull               // null
	kindBool               // true or false
	kindInt                // JSON: a number without fraction or exponent; BSON: int32 or int64
	kindNumber             // any other number
	kindString             // text
	kindBytes              // BSON binary
	kindObject             // object or document
	kindArray              // array
	kindOther              // BSON types that no message uses
)

// value is one value of a message in either form. It aliases the message.
type value struct {
	kind    kind
	bson    bool
	escaped bool   // a JSON string with escapes in it
	data    []byte // JSON: the text, for a string what is between its quotes. BSON: content of string and binary, otherwise the encoded value.
	token   []byte // JSON: the text as it stands, quotes included
	typ     bsoncore.Type
}

// document returns the value of a whole message.
func document(p Protocol, data []byte) (value, error) {
	if p == BSON {
		n, _, ok := bsoncore.ReadLength(data)
		if !ok || int64(n) != int64(len(data)) || len(data) < 5 || data[len(data)-1] != 0 {
			return value{}, errors.New("not one BSON document")
		}
		return value{kind: kindObject, bson: true, data: data}, nil
	}
	if !utf8.Valid(data) {
		return value{}, errors.New("not valid UTF-8")
	}
	data = bytes.Trim(data, " \t\r\n")
	if len(data) == 0 || data[0] != '{' {
		return value{}, errors.New("not a JSON object")
	}
	// The members are checked while they are walked over, see members.next.
	return value{kind: kindObject, data: data}, nil
}

// members walks over the members of an object or the elements of an array.
type members struct {
	of    value
	rest  []byte // BSON: elements not read yet
	pos   int    // JSON: where the next member is looked for
	count int
	done  bool
	err   error
}

func (v value) members(want kind) members {
	m := members{of: v}
	switch {
	case v.kind != want:
		m.err = fmt.Errorf("%w, want %s", errKind(v.kind), kindName(want))
	case v.bson:
		if len(v.data) < 5 || v.data[len(v.data)-1] != 0 {
			m.err = errors.New("BSON document is cut short")
			break
		}
		m.rest = v.data[4 : len(v.data)-1]
	default:
		m.pos = skipSpace(v.data, 1)
	}
	return m
}

// next returns the next member. In arrays the key is of no use.
func (m *members) next() (k []byte, v value, ok bool) {
	if m.err != nil || m.done {
		return nil, value{}, false
	}
	if m.of.bson {
		k, v, ok = m.nextBSON()
	} else {
		k, v, ok = m.nextJSON()
	}
	if !ok {
		m.done = true
	}
	m.count++
	return k, v, ok
}

func (m *members) nextBSON() (k []byte, v value, ok bool) {
	if len(m.rest) == 0 {
		return nil, value{}, false
	}
	t, rest := bsoncore.Type(m.rest[0]), m.rest[1:]
	n := bytes.IndexByte(rest, 0)
	if n < 0 {
		m.err = errors.New("BSON element has no end")
		return nil, value{}, false
	}
	k, rest = rest[:n], rest[n+1:]
	bv, rest, ok := bsoncore.ReadValue(rest, t)
	if !ok {
		m.err = fmt.Errorf("BSON element %q is cut short", k)
		return nil, value{}, false
	}
	m.rest = rest
	v = value{bson: true, kind: kindOther, data: bv.Data, typ: t}
	switch t {
	case bsoncore.TypeNull:
		v.kind = kindNull
	case bsoncore.TypeBoolean:
		v.kind = kindBool
	case bsoncore.TypeInt32, bsoncore.TypeInt64:
		v.kind = kindInt
	case bsoncore.TypeDouble:
		v.kind = kindNumber
	case bsoncore.TypeEmbeddedDocument:
		v.kind = kindObject
	case bsoncore.TypeArray:
		v.kind = kindArray
	case bsoncore.TypeBinary:
		if _, v.data, _, ok = bsoncore.ReadBinary(bv.Data); !ok {
			m.err = fmt.Errorf("BSON binary %q is cut short", k)
			return nil, value{}, false
		}
		v.kind = kindBytes
	case bsoncore.TypeString:
		// Four bytes of length and the closing NUL are around the text.
		n := len(bv.Data)
		if n < 5 || bv.Data[n-1] != 0 || !utf8.Valid(bv.Data[4:n-1]) {
			m.err = fmt.Errorf("BSON string %q is not text", k)
			return nil, value{}, false
		}
		v.kind, v.data = kindString, bv.Data[4:n-1]
	}
	return k, v, true
}

func (m *members) nextJSON() (k []byte, v value, ok bool) {
	b, i := m.of.data, m.pos
	object := m.of.kind == kindObject
	closer := byte(']')
	if object {
		closer = '}'
	}
	if i < len(b) && b[i] == closer && m.count == 0 {
		return nil, value{}, m.end(i + 1)
	}
	if m.count > 0 {
		// pos stands at what follows the last member.
		if i < len(b) && b[i] == closer {
			return nil, value{}, m.end(i + 1)
		}
		if i >= len(b) || b[i] != ',' {
			m.err = errJSON
			return nil, value{}, false
		}
		i = skipSpace(b, i+1)
	}
	if object {
		if i >= len(b) || b[i] != '"' {
			m.err = errJSON
			return nil, value{}, false
		}
		end, escaped, good := scanString(b, i)
		if !good {
			m.err = errJSON
			return nil, value{}, false
		}
		k = b[i+1 : end-1]
		if escaped {
			k, _ = appendUnescaped(nil, k)
		}
		i = skipSpace(b, end)
		if i >= len(b) || b[i] != ':' {
			m.err = errJSON
			return nil, value{}, false
		}
		i = skipSpace(b, i+1)
	}
	v, end, err := scanJSON(b, i, 1)
	if err != nil {
		m.err = err
		return nil, value{}, false
	}
	m.pos = skipSpace(b, end)
	return k, v, true
}

// end records an error unless the object or array ends at i as its text does.
func (m *members) end(i int) bool {
	if i != len(m.of.data) {
		m.err = errors.New("something follows the JSON value")
	}
	return false
}

func kindName(k kind) string {
	switch k {
	case kindNone:
		return "nothing"
	case kindNull:
		return "null"
	case kindBool:
		return "a bool"
	case kindInt:
		return "an integer"
	case kindNumber:
		return "a number with a fraction"
	case kindString:
		return "a string"
	case kindBytes:
		return "binary"
	case kindObject:
		return "an object"
	case kindArray:
		return "an array"
	}
	return "a value of another type"
}

func errKind(k kind) error { return errors.New("got " + kindName(k)) }

func (v value) wrong(want string) error {
	return fmt.Errorf("%w, want %s", errKind(v.kind), want)
}

// text returns a copy of a string.
func (v value) text() (string, error) {
	if v.kind != kindString {
		return "", v.wrong("a string")
	}
	if !v.escaped {
		return string(v.data), nil
	}
	b, whole := appendUnescaped(nil, v.data)
	if !whole {
		return "", errors.New("string with half a surrogate pair")
	}
	return string(b), nil
}

// is reports whether v is the string s.
func (v value) is(s string) bool {
	if v.kind != kindString {
		return false
	}
	if !v.escaped {
		return string(v.data) == s
	}
	t, err := v.text()
	return err == nil && t == s
}

// boolean returns a bool.
func (v value) boolean() (bool, error) {
	if v.kind != kindBool {
		return false, v.wrong("a bool")
	}
	if v.bson {
		return v.data[0] != 0, nil
	}
	return v.data[0] == 't', nil
}

// uint returns an integer that is not negative.
func (v value) uint() (uint64, error) {
	if v.kind != kindInt {
		return 0, v.wrong("an integer")
	}
	if v.bson {
		var n int64
		if v.typ == bsoncore.TypeInt32 {
			i, _, _ := bsoncore.ReadInt32(v.data)
			n = int64(i)
		} else {
			n, _, _ = bsoncore.ReadInt64(v.data)
		}
		if n < 0 {
			return 0, fmt.Errorf("got %d, want an integer that is not negative", n)
		}
		return uint64(n), nil
	}
	if v.data[0] == '-' {
		return 0, fmt.Errorf("got %.24s, want an integer that is not negative", v.data)
	}
	var n uint64
	for _, c := range v.data {
		d := uint64(c - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, fmt.Errorf("got %.24s, which does not fit into 64 bits", v.data)
		}
		n = n*10 + d
	}
	return n, nil
}

// size returns the length of what appendBytes appends, or an upper bound.
func (v value) size() int { return len(v.data) }

// appendBytes appends binary: hex text in JSON, binary in BSON.
func (v value) appendBytes(dst []byte) ([]byte, error) {
	if v.bson {
		if v.kind != kindBytes {
			return dst, v.wrong("binary")
		}
		return append(dst, v.data...), nil
	}
	if v.kind != kindString || v.escaped {
		return dst, v.wrong("hex text")
	}
	if len(v.data)%2 != 0 {
		return dst, errors.New("hex text has an odd number of digits")
	}
	out, err := hex.AppendDecode(dst, v.data)
	if err != nil {
		return dst, fmt.Errorf("hex text: %w", err)
	}
	return out, nil
}

// appendContent appends what a user or a contract says: the text of a string
// in JSON, binary in BSON.
func (v value) appendContent(dst []byte) ([]byte, error) {
	if v.bson {
		if v.kind != kindBytes {
			return dst, v.wrong("binary")
		}
		return append(dst, v.data...), nil
	}
	if v.kind != kindString {
		return dst, v.wrong("a string")
	}
	if !v.escaped {
		return append(dst, v.data...), nil
	}
	out, whole := appendUnescaped(dst, v.data)
	if !whole {
		return dst, errors.New("string with half a surrogate pair")
	}
	return out, nil
}

// fixed fills dst, whose length the binary must have.
func (v value) fixed(dst []byte) error {
	if v.size() > 4*len(dst)+8 {
		return fmt.Errorf("binary is longer than %d bytes", len(dst))
	}
	b, err := v.appendBytes(make([]byte, 0, 2*len(dst)))
	if err != nil {
		return err
	}
	if len(b) != len(dst) {
		return fmt.Errorf("binary has %d bytes, want %d", len(b), len(dst))
	}
	copy(dst, b)
	return nil
}

func (v value) hash() (h digest.Hash, err error) {
	err = v.fixed(h[:])
	return h, err
}

func (v value) public() (p key.Public, err error) {
	if err = v.fixed(p[:]); err == nil && p[0] != key.Prefix {
		err = fmt.Errorf("public key starts with %02x, want %02x", p[0], key.Prefix)
	}
	return p, err
}

// array calls f with each element of an array.
func (v value) array(f func(value) error) error {
	m := v.members(kindArray)
	for {
		_, e, ok := m.next()
		if !ok {
			return m.err
		}
		if err := f(e); err != nil {
			return fmt.Errorf("element %d: %w", m.count-1, err)
		}
	}
}

// object calls f with each member of an object.
func (v value) object(f func(k []byte, v value) error) error {
	m := v.members(kindObject)
	for {
		k, e, ok := m.next()
		if !ok {
			return m.err
		}
		if err := f(k, e); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
}
