package statefs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"evernode/internal/digest"
)

func file(name, content string) Entry {
	return Entry{Name: name, Kind: KindFile, Mode: 0o644, Size: uint64(len(content)), Hash: digest.Sum([]byte(content))}
}

func rootOf(t testing.TB, entries ...Entry) digest.Hash {
	t.Helper()
	node, _, err := EncodeDir(entries, uint64(len(entries)), 0)
	if err != nil {
		t.Fatal(err)
	}
	return HashDir(node)
}

// The format is shared by all nodes of a cluster: a change of these values
// splits clusters whose nodes are of different versions.
func TestFormatIsFixed(t *testing.T) {
	sub := file("inner", "x")
	entries := []Entry{
		file("a", "hello"),
		{Name: "dir", Kind: KindDir, Mode: 0o755, Hash: rootOf(t, sub)},
		{Name: "link", Kind: KindSymlink, Mode: 0o777, Link: "dir/inner"},
	}
	node, _, err := EncodeDir(entries, 4, 6)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, got, want string }{
		{"empty folder", rootOf(t).String(), "e6afc7eed1c91f088dda19e617567c1aa8c74e28c02ae5052a6ee3881fe992fc"},
		{"small folder", HashDir(node).String(), "f21e2f2605bb83e81a47665ba79a124a098ac7bbca610f7e31d105483d81b9b5"},
		{"paged folder", rootOf(t, manyEntries(5000)...).String(), "abaf1ef8f7b65b9ee64d925e1781d5d3c3d6b3467f83a3cfc5e29fd9cf9a5e55"},
		{"patch", HashPatch([]byte("{}")).String(), "fc49dc62d39dc7bbbfc3dc743dcd9d715d477fb817aa737ffa6e106ab20581fd"},
	} {
		if c.got != c.want {
			t.Errorf("%s has hash %s, it was %s", c.what, c.got, c.want)
		}
	}
}

func manyEntries(n int) []Entry {
	list := make([]Entry, n)
	for i := range list {
		list[i] = file(fmt.Sprintf("file-%06d", i), fmt.Sprint(i))
	}
	return list
}

// Whatever is hashed makes a difference, and nothing can stand for something
// else.
func TestHashBindsEverything(t *testing.T) {
	base := func() []Entry {
		return []Entry{file("a", "1"), {Name: "b", Kind: KindDir, Mode: 0o755, Hash: rootOf(t)}, {Name: "c", Kind: KindSymlink, Mode: 0o777, Link: "x"}, file("d", "2")}
	}
	seen := map[digest.Hash]string{rootOf(t, base()...): "base"}
	for name, change := range map[string]func(e []Entry) []Entry{
		"name":           func(e []Entry) []Entry { e[0].Name = "aa"; return e },
		"mode":           func(e []Entry) []Entry { e[0].Mode = 0o600; return e },
		"set uid":        func(e []Entry) []Entry { e[0].Mode = 0o4644; return e },
		"content":        func(e []Entry) []Entry { e[0].Hash[31] ^= 1; return e },
		"size":           func(e []Entry) []Entry { e[0].Size++; return e },
		"kind":           func(e []Entry) []Entry { e[1].Kind = KindFile; return e },
		"folder mode":    func(e []Entry) []Entry { e[1].Mode = 0o700; return e },
		"folder content": func(e []Entry) []Entry { e[1].Hash = rootOf(t, file("x", "")); return e },
		"link target":    func(e []Entry) []Entry { e[2].Link = "y"; return e },
		"swapped":        func(e []Entry) []Entry { e[0].Hash, e[3].Hash = e[3].Hash, e[0].Hash; return e },
		"removed":        func(e []Entry) []Entry { return e[:3] },
		"added":          func(e []Entry) []Entry { return append(e, file("e", "")) },
		"same twice":     func(e []Entry) []Entry { return append(e, file("e", "1"), file("f", "1")) },
		"empty file":     func(e []Entry) []Entry { return append(e, file("f", "")) },
	} {
		h := rootOf(t, change(base())...)
		if other, ok := seen[h]; ok {
			t.Errorf("%s has the same hash as %s", name, other)
		}
		seen[h] = name
	}
}

func TestPagesStayWhereTheyAre(t *testing.T) {
	entries := manyEntries(20000)
	node, pages, err := EncodeDir(entries, 0, 0)
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	seen := map[digest.Hash]bool{}
	for _, p := range pages {
		if len(p) > MaxObject {
			t.Fatalf("page of %d bytes", len(p))
		}
		seen[HashPage(p)] = true
	}
	more := append([]Entry{file("file-000000x", "new")}, entries...)
	sort.Slice(more, func(i, j int) bool { return more[i].Name < more[j].Name })
	_, pages2, err := EncodeDir(more, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, p := range pages2 {
		if !seen[HashPage(p)] {
			changed++
		}
	}
	if changed > 2 {
		t.Errorf("one new name changed %d of %d pages", changed, len(pages2))
	}
	// And back again.
	l, err := DecodeDir(node)
	if err != nil {
		t.Fatal(err)
	}
	var lists [][]Entry
	for _, p := range pages {
		e, err := DecodePage(p)
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, e)
	}
	got, err := Join(l, lists, HashDir(node))
	if err != nil || len(got) != len(entries) || got[777] != entries[777] {
		t.Fatalf("joined %d entries, %v", len(got), err)
	}
	lists[0], lists[1] = append(lists[0], lists[1][0]), lists[1][1:]
	if _, err := Join(l, lists, HashDir(node)); err != nil {
		t.Fatalf("where pages are cut on the way does not matter: %v", err)
	}
	if _, err := Join(l, lists[1:], HashDir(node)); err == nil {
		t.Error("a missing page was not noticed")
	}
}

// Names that are as long as can be still fit into messages.
func TestLongestEntries(t *testing.T) {
	var entries []Entry
	for i := range 3000 {
		name := fmt.Sprintf("%06d", i) + strings.Repeat("\xff", maxName-6)
		entries = append(entries, Entry{Name: name, Kind: KindSymlink, Mode: 0o777, Link: strings.Repeat("t", maxTarget)})
	}
	node, pages, err := EncodeDir(entries, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(pages, node) {
		if len(p) > MaxObject {
			t.Fatalf("object of %d bytes", len(p))
		}
	}
}

func TestHostileNodesAreRefused(t *testing.T) {
	valid := func() []Entry { return []Entry{file("a", "1"), file("b", "2")} }
	for name, change := range map[string]func(e []Entry){
		"parent":         func(e []Entry) { e[0].Name = ".." },
		"self":           func(e []Entry) { e[0].Name = "." },
		"empty name":     func(e []Entry) { e[0].Name = "" },
		"slash":          func(e []Entry) { e[0].Name = "a/b" },
		"leading slash":  func(e []Entry) { e[0].Name = "/etc" },
		"zero byte":      func(e []Entry) { e[0].Name = "a\x00" },
		"long name":      func(e []Entry) { e[0].Name = strings.Repeat("a", 256) },
		"twice":          func(e []Entry) { e[1].Name = "a" },
		"unsorted":       func(e []Entry) { e[0], e[1] = e[1], e[0] },
		"type in mode":   func(e []Entry) { e[0].Mode = 0o100644 & 0xffff },
		"kind zero":      func(e []Entry) { e[0].Kind = 0 },
		"kind four":      func(e []Entry) { e[0].Kind = 4 },
		"huge file":      func(e []Entry) { e[0].Size = MaxFileSize + 1 },
		"link mode":      func(e []Entry) { e[0] = Entry{Name: "a", Kind: KindSymlink, Mode: 0o755, Link: "x"} },
		"empty target":   func(e []Entry) { e[0] = Entry{Name: "a", Kind: KindSymlink, Mode: 0o777} },
		"zero in target": func(e []Entry) { e[0] = Entry{Name: "a", Kind: KindSymlink, Mode: 0o777, Link: "x\x00"} },
		"oversize target": func(e []Entry) {
			e[0] = Entry{Name: "a", Kind: KindSymlink, Mode: 0o777, Link: strings.Repeat("x", 4096)}
		},
	} {
		e := valid()
		change(e)
		node, _, err := EncodeDir(e, 2, 2)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeDir(node); err == nil {
			t.Errorf("%s: node was accepted", name)
		}
		page := node[17:]
		if _, err := DecodePage(page); err == nil {
			t.Errorf("%s: page was accepted", name)
		}
	}
	good, _, _ := EncodeDir(valid(), 2, 2)
	if _, err := DecodeDir(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := DecodeDir(good[:n]); err == nil {
			t.Errorf("a node cut to %d bytes was accepted", n)
		}
	}
	if _, err := DecodeDir(append(good, 0)); err == nil {
		t.Error("a node with a byte too many was accepted")
	}
}

// A folder whose node lies about what is below it is not loaded.
func TestLoadChecksTotals(t *testing.T) {
	entries := []Entry{file("a", "1")}
	for _, c := range []struct {
		n, bytes uint64
		ok       bool
	}{{1, 1, true}, {2, 1, false}, {1, 0, false}} {
		node, _, err := EncodeDir(entries, c.n, c.bytes)
		if err != nil {
			t.Fatal(err)
		}
		_, err = load(HashDir(node), func(digest.Hash) ([]byte, error) { return node, nil })
		if (err == nil) != c.ok {
			t.Errorf("%d entries, %d bytes: %v", c.n, c.bytes, err)
		}
	}
}

func FuzzDecodeDir(f *testing.F) {
	small, _, _ := EncodeDir([]Entry{file("a", "1"), {Name: "l", Kind: KindSymlink, Mode: 0o777, Link: "t"}, {Name: "z", Kind: KindDir, Mode: 0o755}}, 3, 1)
	paged, pages, _ := EncodeDir(manyEntries(1200), 1200, 0)
	f.Add(small)
	f.Add(paged)
	f.Add(pages[0])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := DecodeDir(b); err == nil {
			if l.Pages == nil {
				again, _, err := EncodeDir(l.Inline, l.Entries, l.Bytes)
				if err != nil || !bytes.Equal(again, b) {
					t.Fatalf("decoded and encoded again it is different: %v", err)
				}
			}
			for _, e := range l.Inline {
				if strings.ContainsAny(e.Name, "/\x00") || e.Name == ".." || e.Name == "." || e.Name == "" {
					t.Fatalf("name %q was let through", e.Name)
				}
			}
		}
		if list, err := DecodePage(b); err == nil && !sort.SliceIsSorted(list, func(i, j int) bool { return list[i].Name < list[j].Name }) {
			t.Fatal("unsorted page")
		}
	})
}

func FuzzStoreFiles(f *testing.F) {
	m := meta{gen: 7, boot: "b", agreed: Version{3, digest.Sum(nil), digest.Hash{}}}
	f.Add(m.encode())
	n := &node{Entry: Entry{Kind: KindDir}, kids: []*node{{Entry: file("a", "1")}}}
	if err := n.seal(); err != nil {
		f.Fatal(err)
	}
	f.Add(encodeIndex(n))
	enc, _, _ := n.encode(false)
	get := func(h digest.Hash) ([]byte, error) {
		if h == n.Hash {
			return enc, nil
		}
		return nil, ErrNotFound
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMeta(b); err == nil && !bytes.HasPrefix(b, m.encode()) {
			t.Fatal("record read and written again is different")
		}
		if tree, err := decodeIndex(b, get); err == nil && tree.Hash != n.Hash {
			t.Fatal("index for another tree")
		}
		// With a right hash behind it the rest of the record is reached.
		h := digest.Sum(b)
		decodeMeta(append(bytes.Clone(b), h[:]...))
		decodeIndex(append(bytes.Clone(b), h[:]...), get)
	})
}

// Trees made at random are equal if and only if their roots are.
func TestRandomTreesAndRoots(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	var build func(depth int) (*node, string)
	build = func(depth int) (*node, string) {
		n := &node{Entry: Entry{Kind: KindDir}}
		var text strings.Builder
		for _, name := range []string{"a", "b", "c"} {
			k := &node{}
			switch rng.IntN(5) {
			case 0:
				if depth == 0 {
					continue
				}
				var sub string
				k, sub = build(depth - 1)
				k.Name, k.Mode = name, 0o755
				fmt.Fprintf(&text, "%s{%s}", name, sub)
			case 1:
				c := string("xyz"[rng.IntN(3)])
				k.Entry = file(name, c)
				k.Mode = []uint16{0o644, 0o600}[rng.IntN(2)]
				fmt.Fprintf(&text, "%s=%s %o ", name, c, k.Mode)
			case 2:
				l := string("xyz"[rng.IntN(3)])
				k.Entry = Entry{Name: name, Kind: KindSymlink, Mode: 0o777, Link: l}
				fmt.Fprintf(&text, "%s>%s ", name, l)
			default:
				continue
			}
			n.kids = append(n.kids, k)
		}
		if err := n.seal(); err != nil {
			t.Fatal(err)
		}
		return n, text.String()
	}
	byRoot, byText := map[digest.Hash]string{}, map[string]digest.Hash{}
	for range 20000 {
		n, text := build(2)
		if other, ok := byRoot[n.Hash]; ok && other != text {
			t.Fatalf("%q and %q have one root", text, other)
		}
		if other, ok := byText[text]; ok && other != n.Hash {
			t.Fatalf("%q has two roots", text)
		}
		byRoot[n.Hash], byText[text] = text, n.Hash
	}
}
