// Package wire is the binary form of everything our nodes exchange and store:
// big-endian integers, fixed arrays, and byte strings with a length in front.
//
// Writing is appending to a slice. Reading goes through a Reader that checks
// every length against what is left before anything is allocated, remembers the
// first error and returns zero values after it, so that a decoder is a straight
// list of fields with one check at its end. The package knows no message; it is
// called by the packages that own them.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrShort is the error of a value that ends before its fields do.
var ErrShort = errors.New("value is cut short")

// AppendU8 appends one byte.
func AppendU8(b []byte, v uint8) []byte { return append(b, v) }

// AppendBool appends 0 or 1.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendU16 appends 2 bytes, big-endian.
func AppendU16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }

// AppendU32 appends 4 bytes, big-endian.
func AppendU32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

// AppendU64 appends 8 bytes, big-endian.
func AppendU64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// AppendBytes appends a 4-byte length and the bytes.
func AppendBytes(b, v []byte) []byte {
	return append(AppendU32(b, uint32(len(v))), v...)
}

// AppendString appends a 4-byte length and the bytes of v.
func AppendString(b []byte, v string) []byte {
	return append(AppendU32(b, uint32(len(v))), v...)
}

// Reader reads values in the order in which they were appended. The zero
// Reader is empty; make one with NewReader.
type Reader struct {
	buf []byte
	err error
}

// NewReader reads from b, which must not change while slices returned by View
// are in use.
func NewReader(b []byte) *Reader { return &Reader{buf: b} }

// Err returns the first error met, or nil.
func (r *Reader) Err() error { return r.err }

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.buf) }

// Fail records err unless an earlier error stands.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.buf = nil
}

// Close returns the first error met, or an error when bytes are left over.
func (r *Reader) Close() error {
	if r.err == nil && len(r.buf) > 0 {
		return fmt.Errorf("%d bytes left over after the value", len(r.buf))
	}
	return r.err
}

func (r *Reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.buf) {
		r.Fail(ErrShort)
		return nil
	}
	v := r.buf[:n:n]
	r.buf = r.buf[n:]
	return v
}

// U8 reads one byte.
func (r *Reader) U8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

// Bool reads one byte that must be 0 or 1.
func (r *Reader) Bool() bool {
	v := r.U8()
	if v > 1 {
		r.Fail(fmt.Errorf("flag byte is %d, want 0 or 1", v))
	}
	return v == 1
}

// U16 reads 2 bytes.
func (r *Reader) U16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

// U32 reads 4 bytes.
func (r *Reader) U32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// U64 reads 8 bytes.
func (r *Reader) U64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// Fixed fills dst.
func (r *Reader) Fixed(dst []byte) {
	if v := r.take(len(dst)); v != nil {
		copy(dst, v)
	}
}

// View reads a length and returns that many bytes without copying them. A
// length above limit is an error.
func (r *Reader) View(limit int) []byte {
	n := r.U32()
	if r.err == nil && int64(n) > int64(limit) {
		r.Fail(fmt.Errorf("byte string of %d bytes, at most %d are allowed", n, limit))
		return nil
	}
	return r.take(int(n))
}

// Bytes is View with a copy of its own.
func (r *Reader) Bytes(limit int) []byte {
	v := r.View(limit)
	if v == nil {
		return nil
	}
	return append(make([]byte, 0, len(v)), v...)
}

// String reads a length and that many bytes as text.
func (r *Reader) String(limit int) string { return string(r.View(limit)) }

// Count reads a 4-byte number of elements, each of which takes at least
// minSize bytes: a count that cannot fit into what is left, or above limit, is
// an error, so that it is safe to allocate by.
func (r *Reader) Count(limit, minSize int) int {
	n := r.U32()
	if r.err != nil {
		return 0
	}
	if int64(n) > int64(limit) {
		r.Fail(fmt.Errorf("list of %d elements, at most %d are allowed", n, limit))
		return 0
	}
	if int64(n)*int64(minSize) > int64(len(r.buf)) {
		r.Fail(ErrShort)
		return 0
	}
	return int(n)
}
