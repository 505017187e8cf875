package hook

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
)

// The walker reads what the codec writes, field by field.
func TestWalkerAgreesWithTheCodec(t *testing.T) {
	raw := encode(t, xahau.NewObject(payment()))
	all, err := parts(raw)
	if err != nil {
		t.Fatal(err)
	}
	o := decode(t, raw)
	if len(all) != o.Len() {
		t.Errorf("%d fields instead of %d", len(all), o.Len())
	}
	for _, p := range all {
		if !o.Has(p.code) {
			t.Errorf("field %#x", uint32(p.code))
		}
		if !bytes.Equal(appendHeader(nil, p.code), p.head) {
			t.Errorf("header %x of %#x", p.head, uint32(p.code))
		}
	}
	if p, ok := findPart(raw, field.Memos); !ok || len(items(p.value)) != 2 {
		t.Error("memos")
	}
	if _, ok := findPart(raw, field.URI); ok {
		t.Error("a field that is not there")
	}
	for n := range len(raw) {
		if b, err := parts(raw[:n]); err == nil && len(b) >= len(all) {
			t.Errorf("%d of %d bytes are enough", n, len(raw))
		}
	}
}

// Fields in any order come into the one that the codec writes.
func TestCanonical(t *testing.T) {
	raw := encode(t, xahau.NewObject(payment()))
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		all, err := parts(raw)
		if err != nil {
			t.Fatal(err)
		}
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var mixed []byte
		for _, p := range all {
			mixed = append(append(mixed, p.head...), p.value...)
			switch p.code.Type() {
			case typeObject:
				mixed = append(mixed, endOfObject)
			case typeArray:
				mixed = append(mixed, endOfArray)
			}
		}
		got, err := canonical(mixed, 0)
		if err != nil || !bytes.Equal(got, raw) {
			t.Fatalf("%x, %v", got, err)
		}
	}
	for name, b := range map[string][]byte{
		"twice":        {0x12, 0, 0, 0x12, 0, 0},
		"unfinished":   {0x12, 0},
		"no end":       {0xea, 0x12, 0, 0},
		"end alone":    {0xe1},
		"bad header":   {0x02, 0x03, 0},
		"no type":      {0x90},
		"account of 5": {0x81, 5, 1, 2, 3, 4, 5},
		"bare array":   {0xf9, 0x12, 0, 0, 0xf1},
		"long length":  {0x7d, 0xff, 0, 0},
		"deep":         bytes.Repeat([]byte{0xea}, 50),
		"path":         {0x01, 0x12, 0x01, 5},
	} {
		if _, err := canonical(b, 0); err == nil {
			t.Errorf("%s is an object", name)
		}
	}
}

func FuzzWire(f *testing.F) {
	f.Add(encode(f, xahau.NewObject(payment())))
	f.Add([]byte{0x01, 0x12, 0x01, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := canonical(b, 0)
		if err != nil {
			return
		}
		if len(c) != len(b) {
			t.Fatalf("%d bytes became %d", len(b), len(c))
		}
		again, err := canonical(c, 0)
		if err != nil || !bytes.Equal(again, c) {
			t.Fatalf("canonical form changes: %v", err)
		}
		if o, err := defs.Decode(c); err == nil {
			// What the codec takes, it writes as we do.
			if w, err := defs.Encode(o); err == nil && !bytes.Equal(w, c) {
				t.Fatalf("%x, the codec writes %x", c, w)
			}
		}
	})
}

// FuzzSto calls the sto functions on any bytes.
func FuzzSto(f *testing.F) {
	f.Add(encode(f, xahau.NewObject(payment())), uint32(field.Fee), uint32(1))
	f.Add([]byte{0xe1, 0xe1, 0xf1, 0xf1}, uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, id, index uint32) {
		if len(b) > 4_000 {
			return
		}
		r := &run{mem: make([]byte, 1<<16), budget: 1 << 40}
		copy(r.mem[1000:], b)
		n := uint64(len(b))
		at := []uint64{1000, n, uint64(id)}
		if v := r.stoValidate(at); v > 1 {
			t.Fatal(v)
		}
		for _, c := range []Code{r.stoSubfield(at), r.stoSubarray([]uint64{1000, n, uint64(index)})} {
			if c > 0 && uint64(c)>>32 > n {
				t.Fatalf("a field at %d of %d", uint64(c)>>32, n)
			}
		}
		if c := r.stoErase([]uint64{20_000, n + 1, 1000, n, uint64(id)}); c > Code(n) {
			t.Fatalf("%d bytes became %d", n, c)
		}
		r.stoEmplace([]uint64{20_000, 2*n + 1, 1000, n, 1000 + n/2, n - n/2, uint64(id)})
		if !bytes.Equal(r.mem[1000:1000+n], b) {
			t.Fatal("the source was changed")
		}
	})
}
