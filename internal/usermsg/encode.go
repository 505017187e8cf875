package usermsg

import (
	"encoding/hex"
	"math"
	"strconv"

	"evernode/hotpocket/key"
	"evernode/internal/digest"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// binarySubtype is the BSON subtype of all binary values that we write, as the
// original does (section 1.5).
const binarySubtype = 0x80

// encoder appends one message in either form.
type encoder struct {
	b    []byte
	bson bool
}

// at says where a value goes: under a name in an object, or at an index in an
// array.
type at struct {
	name  string
	index int
}

func field(name string) at  { return at{name: name} }
func element(index int) at  { return at{index: index} }
func (a at) isMember() bool { return a.name != "" }

// comma separates what follows from what is there, unless that only just
// began. No value ends with an opening bracket.
func (e *encoder) comma() {
	if c := e.b[len(e.b)-1]; c != '{' && c != '[' {
		e.b = append(e.b, ',')
	}
}

func (e *encoder) head(a at, t bsoncore.Type) {
	if !e.bson {
		e.comma()
		if a.isMember() {
			e.b = append(e.b, '"')
			e.b = append(e.b, a.name...)
			e.b = append(e.b, '"', ':')
		}
		return
	}
	e.b = append(e.b, byte(t))
	if a.isMember() {
		e.b = append(e.b, a.name...)
	} else {
		e.b = strconv.AppendUint(e.b, uint64(a.index), 10)
	}
	e.b = append(e.b, 0)
}

// begin starts the message itself; its result goes to end.
func (e *encoder) begin() int32 {
	if e.bson {
		var start int32
		start, e.b = bsoncore.ReserveLength(e.b)
		return start
	}
	e.b = append(e.b, '{')
	return 0
}

// end closes what begin, object or array opened.
func (e *encoder) end(start int32, closer byte) {
	if !e.bson {
		e.b = append(e.b, closer)
		return
	}
	e.b = append(e.b, 0)
	e.b = bsoncore.UpdateLength(e.b, start, int32(len(e.b))-start)
}

func (e *encoder) object(a at) int32 {
	e.head(a, bsoncore.TypeEmbeddedDocument)
	return e.begin()
}

func (e *encoder) array(a at) int32 {
	e.head(a, bsoncore.TypeArray)
	if e.bson {
		return e.begin()
	}
	e.b = append(e.b, '[')
	return 0
}

func (e *encoder) text(a at, s string) {
	e.head(a, bsoncore.TypeString)
	if e.bson {
		e.b = bsoncore.AppendString(e.b, s)
	} else {
		e.b = appendQuoted(e.b, s)
	}
}

func (e *encoder) boolean(a at, v bool) {
	e.head(a, bsoncore.TypeBoolean)
	if e.bson {
		e.b = bsoncore.AppendBoolean(e.b, v)
	} else {
		e.b = strconv.AppendBool(e.b, v)
	}
}

func (e *encoder) null(a at) {
	e.head(a, bsoncore.TypeNull)
	if !e.bson {
		e.b = append(e.b, "null"...)
	}
}

// uint writes int32 in BSON when the value fits, else int64. Values above
// 2^63-1 do not occur (ledger numbers, milliseconds, counts) and are cut to it.
func (e *encoder) uint(a at, v uint64) {
	if !e.bson {
		e.head(a, 0)
		e.b = strconv.AppendUint(e.b, v, 10)
		return
	}
	if v <= math.MaxInt32 {
		e.head(a, bsoncore.TypeInt32)
		e.b = bsoncore.AppendInt32(e.b, int32(v))
		return
	}
	e.head(a, bsoncore.TypeInt64)
	e.b = bsoncore.AppendInt64(e.b, int64(min(v, math.MaxInt64)))
}

// long writes int64 in BSON whatever the value, as clients send numbers.
func (e *encoder) long(a at, v uint64) {
	if !e.bson {
		e.uint(a, v)
		return
	}
	e.head(a, bsoncore.TypeInt64)
	e.b = bsoncore.AppendInt64(e.b, int64(min(v, math.MaxInt64)))
}

// bytes writes hex text in JSON, binary in BSON.
func (e *encoder) bytes(a at, v []byte) {
	e.head(a, bsoncore.TypeBinary)
	if e.bson {
		e.b = bsoncore.AppendBinary(e.b, binarySubtype, v)
		return
	}
	e.b = append(e.b, '"')
	e.b = hex.AppendEncode(e.b, v)
	e.b = append(e.b, '"')
}

// said writes what a user says: a string in JSON, binary in BSON.
func (e *encoder) said(a at, v []byte) {
	e.head(a, bsoncore.TypeBinary)
	if e.bson {
		e.b = bsoncore.AppendBinary(e.b, binarySubtype, v)
	} else {
		e.b = appendQuoted(e.b, v)
	}
}

// content writes what a contract says (section 1.8).
func (e *encoder) content(a at, v []byte) {
	e.head(a, bsoncore.TypeBinary)
	if e.bson {
		e.b = bsoncore.AppendBinary(e.b, binarySubtype, v)
	} else {
		e.b = appendContent(e.b, v)
	}
}

func (e *encoder) hash(a at, h digest.Hash) { e.bytes(a, h[:]) }

func (e *encoder) keys(a at, keys []key.Public) {
	start := e.array(a)
	for i := range keys {
		e.bytes(element(i), keys[i][:])
	}
	e.end(start, ']')
}
