package xahau

import (
	"bytes"
	"iter"
	"slices"

	"evernode/xahau/field"
)

// Object is a transaction, a ledger entry, metadata or a part of these: fields
// with their values in canonical order. The zero Object has no fields. It is not
// safe for use by several goroutines while one changes it.
type Object struct {
	entries []entry
}

type entry struct {
	code  field.Code
	value Value
}

// NewObject makes an object of fields given in any order.
func NewObject(fields map[field.Code]Value) *Object {
	o := &Object{entries: make([]entry, 0, len(fields))}
	for c, v := range fields {
		o.Set(c, v)
	}
	return o
}

func (o *Object) find(c field.Code) (int, bool) {
	return slices.BinarySearchFunc(o.entries, c, func(e entry, c field.Code) int { return int(e.code) - int(c) })
}

// MarshalJSON writes the object as the embedded definitions have it, for logs and
// the like; see Definitions.JSON.
func (o *Object) MarshalJSON() ([]byte, error) { return DefaultDefinitions().JSON(o) }

// String is what MarshalJSON writes.
func (o *Object) String() string {
	if o == nil {
		return "no object"
	}
	b, err := o.MarshalJSON()
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Len is the number of fields.
func (o *Object) Len() int { return len(o.entries) }

// Has tells whether a field is present.
func (o *Object) Has(c field.Code) bool {
	_, ok := o.find(c)
	return ok
}

// Get gives a field's value, nil if it is not present.
func (o *Object) Get(c field.Code) Value {
	if i, ok := o.find(c); ok {
		return o.entries[i].value
	}
	return nil
}

// Set sets a field, or removes it if v is nil. Whether the value is of the
// field's type shows when the object is encoded.
func (o *Object) Set(c field.Code, v Value) {
	i, ok := o.find(c)
	switch {
	case v == nil && ok:
		o.entries = slices.Delete(o.entries, i, i+1)
	case v == nil:
	case ok:
		o.entries[i].value = v
	default:
		o.entries = slices.Insert(o.entries, i, entry{c, v})
	}
}

// Delete removes a field.
func (o *Object) Delete(c field.Code) { o.Set(c, nil) }

// All iterates over the fields in canonical order.
func (o *Object) All() iter.Seq2[field.Code, Value] {
	return func(yield func(field.Code, Value) bool) {
		for _, e := range o.entries {
			if !yield(e.code, e.value) {
				return
			}
		}
	}
}

// Lookup gives a field's value if it is present and of type T.
func Lookup[T Value](o *Object, c field.Code) (T, bool) {
	v, ok := o.Get(c).(T)
	return v, ok
}

// get gives a field's value, or the zero T if it is absent or of another type.
func get[T Value](o *Object, c field.Code) T {
	v, _ := o.Get(c).(T)
	return v
}

// Uint8 gives a field's number, 0 if it is absent; likewise the following.
func (o *Object) Uint8(c field.Code) uint8 { return uint8(get[Uint8](o, c)) }

// Uint16 gives a field's number.
func (o *Object) Uint16(c field.Code) uint16 { return uint16(get[Uint16](o, c)) }

// Uint32 gives a field's number.
func (o *Object) Uint32(c field.Code) uint32 { return uint32(get[Uint32](o, c)) }

// Uint64 gives a field's number.
func (o *Object) Uint64(c field.Code) uint64 { return uint64(get[Uint64](o, c)) }

// Hash gives a field's hash.
func (o *Object) Hash(c field.Code) Hash256 { return get[Hash256](o, c) }

// Blob gives a field's bytes, which are not to be changed.
func (o *Object) Blob(c field.Code) []byte { return get[Blob](o, c) }

// Account gives a field's account.
func (o *Object) Account(c field.Code) AccountID { return get[AccountID](o, c) }

// Amount gives a field's amount, 0 drops if it is absent.
func (o *Object) Amount(c field.Code) Amount { return get[Amount](o, c) }

// Vector gives a field's hashes, which are not to be changed.
func (o *Object) Vector(c field.Code) []Hash256 { return get[Vector](o, c) }

// Array gives a field's objects, which are not to be changed.
func (o *Object) Array(c field.Code) Array { return get[Array](o, c) }

// Object gives a field's object, nil if it is absent.
func (o *Object) Object(c field.Code) *Object { return get[*Object](o, c) }

// TransactionType is the type of a transaction.
func (o *Object) TransactionType() TransactionType {
	return TransactionType(o.Uint16(field.TransactionType))
}

// EntryType is the type of a ledger entry.
func (o *Object) EntryType() EntryType { return EntryType(o.Uint16(field.LedgerEntryType)) }

// Flags are the flags of a transaction or ledger entry.
func (o *Object) Flags() uint32 { return o.Uint32(field.Flags) }

// Clone copies an object with everything in it.
func (o *Object) Clone() *Object {
	if o == nil {
		return nil
	}
	c := &Object{entries: slices.Clone(o.entries)}
	for i := range c.entries {
		switch v := c.entries[i].value.(type) {
		case Blob:
			c.entries[i].value = slices.Clone(v)
		case Bits:
			c.entries[i].value = slices.Clone(v)
		case Vector:
			c.entries[i].value = slices.Clone(v)
		case *Object:
			c.entries[i].value = v.Clone()
		case Array:
			a := slices.Clone(v)
			for j := range a {
				a[j].Object = a[j].Object.Clone()
			}
			c.entries[i].value = a
		case PathSet:
			p := slices.Clone(v)
			for j := range p {
				p[j] = slices.Clone(p[j])
			}
			c.entries[i].value = p
		}
	}
	return c
}

// Equal tells whether two objects have the same fields with the same values.
func (o *Object) Equal(p *Object) bool {
	if o == nil || p == nil {
		return o == p
	}
	return slices.EqualFunc(o.entries, p.entries, func(a, b entry) bool {
		return a.code == b.code && ValuesEqual(a.value, b.value)
	})
}

// ValuesEqual tells whether two values are the same.
func ValuesEqual(a, b Value) bool {
	switch a := a.(type) {
	case Blob:
		b, ok := b.(Blob)
		return ok && bytes.Equal(a, b)
	case Bits:
		b, ok := b.(Bits)
		return ok && bytes.Equal(a, b)
	case Vector:
		b, ok := b.(Vector)
		return ok && slices.Equal(a, b)
	case *Object:
		b, ok := b.(*Object)
		return ok && a.Equal(b)
	case Array:
		b, ok := b.(Array)
		return ok && slices.EqualFunc(a, b, func(x, y Element) bool { return x.Field == y.Field && x.Object.Equal(y.Object) })
	case PathSet:
		b, ok := b.(PathSet)
		return ok && slices.EqualFunc(a, b, slices.Equal[Path])
	}
	return a == b
}
