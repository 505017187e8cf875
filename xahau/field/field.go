// Package field names the fields of transactions, ledger entries and metadata by
// their codes, as the definitions that package xahau carries give them. It is a
// vocabulary for code that works with one field or another (obj.Uint32(field.Flags));
// what a server's own definitions add has codes too, found by name.
package field

//go:generate go run generate.go

// Code identifies a field: the type code in the upper 16 bits, the number of
// the field within its type in the lower. Ascending codes are the canonical
// order of serialization.
type Code uint32

// NewCode puts a code together.
func NewCode(typ, nth int) Code { return Code(uint32(typ)<<16 | uint32(uint16(nth))) }

// Type is the code of the field's type.
func (c Code) Type() int { return int(c >> 16) }

// Nth is the number of the field within its type.
func (c Code) Nth() int { return int(c & 0xffff) }
