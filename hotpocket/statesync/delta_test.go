package statesync

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

func randomBytes(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestBlockDelta(t *testing.T) {
	old := randomBytes(1, 64<<10)
	changed := slices.Clone(old)
	copy(changed[20<<10:], "changed")
	for name, c := range map[string]struct {
		old, new []byte
		most     int // bytes of the delta, 0: not worth it
	}{
		"one stretch":      {old, changed, 4<<10 + 2},
		"longer":           {old[:30<<10], changed[:40<<10], 20<<10 + 2},
		"shorter":          {old, changed[:30<<10], 6<<10 + 1},
		"shorter by a bit": {old, old[:len(old)-1], 4<<10 + 1},
		"another":          {old, randomBytes(2, 64<<10), 0},
		"tiny":             {old[:500], old[:500], 0},
	} {
		delta, worth := appendBlockDelta([]byte("x"), c.new, blockTags(c.old))
		if worth != (c.most > 0) {
			t.Errorf("%s: worth it: %v", name, worth)
		}
		if !worth {
			if string(delta) != "x" {
				t.Errorf("%s: left %d bytes", name, len(delta))
			}
			continue
		}
		if n := len(delta) - 1; n > c.most {
			t.Errorf("%s: delta of %d bytes, want at most %d", name, n, c.most)
		}
		got, err := applyBlockDelta(len(c.new), c.old, delta[1:])
		if err != nil || !bytes.Equal(got, c.new) {
			t.Errorf("%s: %v, equal %v", name, err, bytes.Equal(got, c.new))
		}
		if _, err := applyBlockDelta(len(c.new), c.old, delta[1:len(delta)-1]); !errors.Is(err, errDelta) {
			t.Errorf("%s: cut short: %v", name, err)
		}
		if _, err := applyBlockDelta(len(c.new), c.old, append(delta[1:], 0)); !errors.Is(err, errDelta) {
			t.Errorf("%s: with more behind: %v", name, err)
		}
	}
}

func entries(n int) (list []statefs.Entry) {
	for i := range n {
		e := statefs.Entry{Name: fmt.Sprintf("name%05d", i), Kind: statefs.KindFile, Mode: 0o644, Size: uint64(i), Hash: digest.Sum(fmt.Append(nil, i))}
		switch i % 10 {
		case 3:
			e.Kind, e.Size = statefs.KindDir, 0
		case 6:
			e = statefs.Entry{Name: e.Name, Kind: statefs.KindSymlink, Mode: 0o777, Link: "to"}
		}
		list = append(list, e)
	}
	return list
}

func TestNodeDelta(t *testing.T) {
	encode := func(list []statefs.Entry) []byte {
		node, pages, err := statefs.EncodeDir(list, uint64(len(list)), 0)
		must(t, err)
		if pages != nil {
			t.Fatalf("%d pages", len(pages))
		}
		return node
	}
	base := entries(60)
	old := encode(base)
	change := func(f func(list []statefs.Entry) []statefs.Entry) []byte { return encode(f(slices.Clone(base))) }
	for name, node := range map[string][]byte{
		"one changed": change(func(l []statefs.Entry) []statefs.Entry { l[7].Mode = 0o600; return l }),
		"the first":   change(func(l []statefs.Entry) []statefs.Entry { l[0].Mode = 0o600; return l }),
		"the last":    change(func(l []statefs.Entry) []statefs.Entry { l[59].Mode = 0o600; return l }),
		"removed":     change(func(l []statefs.Entry) []statefs.Entry { return slices.Delete(l, 5, 9) }),
		"added": change(func(l []statefs.Entry) []statefs.Entry {
			return slices.Insert(l, 9, statefs.Entry{Name: "name00008a", Kind: statefs.KindFile, Mode: 0o644})
		}),
		"equal": old,
	} {
		delta, worth := appendNodeDelta(nil, statefs.RefDir, node, nodeTags(statefs.RefDir, old))
		if !worth || len(delta) > 200 {
			t.Errorf("%s: worth it: %v, %d bytes", name, worth, len(delta))
			continue
		}
		got, err := applyNodeDelta(statefs.RefDir, old, delta)
		if err != nil || !bytes.Equal(got, node) {
			t.Errorf("%s: %v, equal %v", name, err, bytes.Equal(got, node))
		}
	}
	other := slices.Clone(base)
	for i := range other {
		other[i].Mode = 0o711
		if other[i].Kind == statefs.KindSymlink {
			other[i] = statefs.Entry{Name: other[i].Name, Kind: statefs.KindSymlink, Mode: 0o777, Link: "from"}
		}
	}
	if _, worth := appendNodeDelta(nil, statefs.RefDir, encode(other), nodeTags(statefs.RefDir, old)); worth {
		t.Error("a folder of which nothing is left is sent as a delta")
	}
	// A paged folder has nothing to compare, its pages have.
	paged, pages, err := statefs.EncodeDir(entries(3000), 3000, 0)
	must(t, err)
	if len(pages) < 2 || nodeTags(statefs.RefDir, paged) != nil || nodeTags(statefs.RefPage, pages[0]) == nil {
		t.Errorf("%d pages", len(pages))
	}
}

func TestPagesArePaired(t *testing.T) {
	h := func(names string) (list []digest.Hash) {
		for _, c := range names {
			list = append(list, digest.Sum([]byte(string(c))))
		}
		return list
	}
	for _, c := range []struct {
		old, new string
		want     []int
	}{
		{"abcd", "abcd", []int{0, 1, 2, 3}},
		{"abcd", "aXcd", []int{0, 1, 2, 3}},
		{"abcd", "aXYcd", []int{0, 1, -1, 2, 3}},
		{"abcd", "XbYd", []int{0, 1, 2, 3}},
		{"abcd", "ad", []int{0, 3}},
		{"ab", "XYZ", []int{0, 1, -1}},
		{"abc", "cba", []int{2, -1, -1}},
		{"", "X", []int{-1}},
	} {
		if got := pairPages(h(c.old), h(c.new)); !slices.Equal(got, c.want) {
			t.Errorf("%s to %s: %v, want %v", c.old, c.new, got, c.want)
		}
	}
}

func FuzzDelta(f *testing.F) {
	node, _, _ := statefs.EncodeDir(entries(40), 40, 0)
	delta, _ := appendNodeDelta(nil, statefs.RefDir, node, nodeTags(statefs.RefDir, node))
	f.Add(node, delta, nodeTags(statefs.RefDir, node))
	f.Add(make([]byte, 9000), []byte{1, 2}, blockTags(make([]byte, 5000)))
	f.Fuzz(func(t *testing.T, base, delta, have []byte) {
		for _, kind := range []statefs.RefKind{statefs.RefDir, statefs.RefPage} {
			if out, err := applyNodeDelta(kind, base, delta); err == nil && len(out) > 2*statefs.MaxObject {
				t.Fatalf("%d bytes", len(out))
			}
			if d, worth := appendNodeDelta(nil, kind, base, have); worth && len(d) > len(base) {
				t.Fatalf("delta of %d bytes for %d", len(d), len(base))
			}
			if d, worth := appendNodeDelta(nil, kind, base, nodeTags(kind, base)); worth {
				if out, err := applyNodeDelta(kind, base, d); err != nil || !bytes.Equal(out, base) {
					t.Fatalf("a folder from itself: %v", err)
				}
			}
		}
		if out, err := applyBlockDelta(len(base), have, delta); err == nil && len(out) != len(base) {
			t.Fatalf("%d bytes", len(out))
		}
		if d, worth := appendBlockDelta(nil, base, blockTags(delta)); worth {
			if out, err := applyBlockDelta(len(base), delta, d); err != nil || !bytes.Equal(out, base) {
				t.Fatalf("a block from another: %v", err)
			}
		}
	})
}
