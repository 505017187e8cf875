package wire_test

import (
	"bytes"
	"errors"
	"testing"

	"evernode/internal/wire"
)

func TestRoundTrip(t *testing.T) {
	var b []byte
	b = wire.AppendU8(b, 7)
	b = wire.AppendBool(b, true)
	b = wire.AppendU16(b, 0x0102)
	b = wire.AppendU32(b, 0x01020304)
	b = wire.AppendU64(b, 0x0102030405060708)
	b = wire.AppendBytes(b, []byte("ab"))
	b = wire.AppendString(b, "")
	b = wire.AppendString(b, "xyz")
	want := []byte{7, 1, 1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 2, 'a', 'b', 0, 0, 0, 0, 0, 0, 0, 3, 'x', 'y', 'z'}
	if !bytes.Equal(b, want) {
		t.Fatalf("encoded %v, want %v", b, want)
	}
	r := wire.NewReader(b)
	if v := r.U8(); v != 7 {
		t.Errorf("U8 is %d", v)
	}
	if !r.Bool() {
		t.Error("Bool is false")
	}
	if v := r.U16(); v != 0x0102 {
		t.Errorf("U16 is %x", v)
	}
	if v := r.U32(); v != 0x01020304 {
		t.Errorf("U32 is %x", v)
	}
	if v := r.U64(); v != 0x0102030405060708 {
		t.Errorf("U64 is %x", v)
	}
	if v := r.Bytes(2); string(v) != "ab" {
		t.Errorf("Bytes is %q", v)
	}
	if v := r.String(0); v != "" {
		t.Errorf("String is %q", v)
	}
	if v := r.String(3); v != "xyz" {
		t.Errorf("String is %q", v)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestReaderRefuses(t *testing.T) {
	cases := []struct {
		name string
		in   []byte
		read func(*wire.Reader)
	}{
		{"short integer", []byte{1, 2, 3}, func(r *wire.Reader) { r.U32() }},
		{"empty", nil, func(r *wire.Reader) { r.U8() }},
		{"flag of 2", []byte{2}, func(r *wire.Reader) { r.Bool() }},
		{"length beyond the end", []byte{0, 0, 0, 9, 1}, func(r *wire.Reader) { r.View(100) }},
		{"length beyond the limit", []byte{0, 0, 0, 3, 1, 2, 3}, func(r *wire.Reader) { r.Bytes(2) }},
		{"huge length", []byte{255, 255, 255, 255, 1}, func(r *wire.Reader) { r.View(1 << 40) }},
		{"count that cannot fit", []byte{0, 0, 0, 9, 1, 2}, func(r *wire.Reader) { r.Count(100, 1) }},
		{"count beyond the limit", []byte{0, 0, 0, 2, 1, 2}, func(r *wire.Reader) { r.Count(1, 1) }},
		{"left over", []byte{1, 2}, func(r *wire.Reader) { r.U8() }},
	}
	for _, c := range cases {
		r := wire.NewReader(c.in)
		c.read(r)
		if r.Close() == nil {
			t.Errorf("%s is accepted", c.name)
		}
	}
}

func TestErrorSticks(t *testing.T) {
	r := wire.NewReader([]byte{2, 1, 1, 1, 1})
	r.Bool()
	first := r.Err()
	if first == nil {
		t.Fatal("no error")
	}
	if v := r.U32(); v != 0 {
		t.Errorf("U32 after an error is %d", v)
	}
	r.Fail(errors.New("another"))
	if r.Err() != first {
		t.Error("the first error was replaced")
	}
}
