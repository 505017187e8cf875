package inputs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The BSON element types that a container's own fields can have, and those that
// are only measured (bsonspec.org, version 1.1).
const (
	bsonDouble     = 0x01
	bsonString     = 0x02
	bsonDocument   = 0x03
	bsonArray      = 0x04
	bsonBinary     = 0x05
	bsonUndefined  = 0x06
	bsonObjectID   = 0x07
	bsonBool       = 0x08
	bsonDateTime   = 0x09
	bsonNull       = 0x0A
	bsonRegex      = 0x0B
	bsonDBPointer  = 0x0C
	bsonCode       = 0x0D
	bsonSymbol     = 0x0E
	bsonScopedCode = 0x0F
	bsonInt32      = 0x10
	bsonTimestamp  = 0x11
	bsonInt64      = 0x12
	bsonDecimal128 = 0x13
	bsonMaxKey     = 0x7F
	bsonMinKey     = 0xFF

	bsonOldBinary = 2 // subtype with a second length inside
)

func parseBSON(b []byte) (Input, error) {
	var (
		in  Input
		met fieldSet
	)
	if len(b) < 5 {
		return in, fmt.Errorf("document of %d bytes, has at least 5", len(b))
	}
	if n := binary.LittleEndian.Uint32(b); uint64(n) != uint64(len(b)) {
		return in, fmt.Errorf("document says that it has %d bytes, but has %d", n, len(b))
	}
	if b[len(b)-1] != 0 {
		return in, errors.New("document does not end with a zero byte")
	}
	rest := b[4 : len(b)-1]
	for len(rest) > 0 {
		kind := rest[0]
		end := bytes.IndexByte(rest[1:], 0)
		if end < 0 {
			return in, errors.New("name of a field does not end")
		}
		name := rest[1 : 1+end]
		rest = rest[end+2:]
		n := bsonSize(kind, rest)
		if n < 0 || n > len(rest) {
			return in, fmt.Errorf("value of type 0x%02x at byte %d is damaged or cut short", kind, len(b)-1-len(rest))
		}
		value := rest[:n:n]
		rest = rest[n:]
		f := fieldOf(name)
		if err := met.add(f); err != nil {
			return in, err
		}
		var err error
		switch f {
		case fieldInput:
			if kind != bsonBinary {
				return in, fmt.Errorf("field input has type 0x%02x, must be a binary", kind)
			}
			if value[4] == bsonOldBinary {
				return in, errors.New("field input is a binary of the outdated subtype 2")
			}
			in.Payload = value[5:]
		case fieldNonce:
			in.Nonce, err = bsonUnsigned(f, kind, value)
		case fieldMaxLedger:
			in.MaxLedger, err = bsonUnsigned(f, kind, value)
		}
		if err != nil {
			return in, err
		}
	}
	return in, met.check(&in)
}

func bsonUnsigned(f field, kind byte, value []byte) (uint64, error) {
	var v int64
	switch kind {
	case bsonInt32:
		v = int64(int32(binary.LittleEndian.Uint32(value)))
	case bsonInt64:
		v = int64(binary.LittleEndian.Uint64(value))
	default:
		return 0, fmt.Errorf("field %s has type 0x%02x, must be an int32 or int64", f, kind)
	}
	if v < 0 {
		return 0, fmt.Errorf("field %s is negative", f)
	}
	return uint64(v), nil
}

// bsonSize returns how many bytes the value takes that b starts with, which may
// be more than b has, or -1 when that cannot be told.
func bsonSize(kind byte, b []byte) int {
	switch kind {
	case bsonUndefined, bsonNull, bsonMinKey, bsonMaxKey:
		return 0
	case bsonBool:
		return 1
	case bsonInt32:
		return 4
	case bsonDouble, bsonDateTime, bsonTimestamp, bsonInt64:
		return 8
	case bsonObjectID:
		return 12
	case bsonDecimal128:
		return 16
	case bsonString, bsonCode, bsonSymbol:
		return bsonTextSize(b)
	case bsonDBPointer:
		n := bsonTextSize(b)
		if n < 0 {
			return -1
		}
		return n + 12
	case bsonBinary:
		n := bsonLen(b, 0)
		if n < 0 {
			return -1
		}
		return 4 + 1 + n
	case bsonDocument, bsonArray:
		n := bsonLen(b, 5)
		if n < 0 || n > len(b) || b[n-1] != 0 {
			return -1
		}
		return n
	case bsonScopedCode:
		return bsonLen(b, 14)
	case bsonRegex:
		p := bytes.IndexByte(b, 0)
		if p < 0 {
			return -1
		}
		o := bytes.IndexByte(b[p+1:], 0)
		if o < 0 {
			return -1
		}
		return p + 1 + o + 1
	}
	return -1
}

// bsonTextSize returns the size of a text with its length and final zero.
func bsonTextSize(b []byte) int {
	n := bsonLen(b, 1)
	if n < 0 || 4+n > len(b) || b[4+n-1] != 0 {
		return -1
	}
	return 4 + n
}

// bsonLen reads a length of at least least and at most 2³¹-1, or returns -1.
func bsonLen(b []byte, least int32) int {
	if len(b) < 4 {
		return -1
	}
	n := int32(binary.LittleEndian.Uint32(b))
	if n < least {
		return -1
	}
	return int(n)
}
