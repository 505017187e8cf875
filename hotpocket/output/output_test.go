package output

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

func seeded(t testing.TB, seed byte) key.Private {
	t.Helper()
	k, err := key.FromSeed(bytes.Repeat([]byte{seed}, key.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// shape writes a collapsed tree with h for a hash and o for the user's own leaf.
func shape(n Node) string {
	switch n.Kind {
	case OwnLeaf:
		return "o"
	case HashNode:
		return "h"
	}
	var parts []string
	for _, c := range n.Children {
		parts = append(parts, shape(c))
	}
	return "[" + strings.Join(parts, "") + "]"
}

func TestVectors(t *testing.T) {
	// spec/hotpocket.md section 8.
	user, node := seeded(t, 0x2a).Public(), seeded(t, 0x01)
	outputs := [][]byte{[]byte("out1"), []byte("out2")}
	own := Hash(user, outputs)
	if got := own.String(); got != "ef8a11edf99904a115487a74ce3c3ecfb8391a9cf964eef7b823ae9f87fe870b" {
		t.Fatalf("output hash %s", got)
	}
	var state digest.Hash
	copy(state[:], bytes.Repeat([]byte{7}, digest.Size))
	for _, c := range []struct {
		others                int
		root, shape, rootSign string
	}{
		{0, "9a0696c357a4d2c6100c83c135dc613107a3360f24496d3dd578dd95a4ddc6a0", "[oh]",
			"3083489d949f4918fd44d5d8d36bdfd043adcbbde0b74f08103ef7a9252490e9f6af6271b4eae270dbb849dd4d32aab9caf1d57b244530a985786d1769577e02"},
		{18, "bd6b66bd88e2644933df1ade3d2ab9df75ed665eb3a3c6ce72a24b7780cbea9e", "[h[hohh]]", ""},
		{15, "a4105a8462f65bc85d24f6fdbd00642c66fbc947ab4f47ddbc92409219394150", "[[hhhhhhhhhhhhhhoh]h]", ""},
	} {
		hashes := []digest.Hash{own}
		for i := range c.others {
			hashes = append(hashes, digest.Sum(fmt.Appendf(nil, "other%d", i)))
		}
		tree := NewTree(hashes, state)
		if got := tree.Root().String(); got != c.root {
			t.Errorf("%d others: root %s, want %s", c.others, got, c.root)
		}
		collapsed, ok := tree.Collapse(own)
		if !ok {
			t.Fatal("own leaf not found")
		}
		// Where the own leaf is among its group follows from the hashes alone.
		got, want := shape(collapsed), c.shape
		if strings.ReplaceAll(got, "o", "h") != strings.ReplaceAll(want, "o", "h") || strings.Count(got, "o") != 1 {
			t.Errorf("%d others: shape %s, want %s", c.others, got, want)
		}
		sig := Sign(node, tree.Root())
		if c.rootSign != "" && hex.EncodeToString(sig[:]) != c.rootSign {
			t.Errorf("%d others: signature %x", c.others, sig)
		}
		if err := Verify(user, outputs, own, collapsed, []Signature{{node.Public(), sig}}, []key.Public{node.Public()}); err != nil {
			t.Errorf("%d others: %v", c.others, err)
		}
	}
}

// naiveRoot is the tree of section 1.9 written down in the plainest way.
func naiveRoot(level []digest.Hash) digest.Hash {
	for len(level) > 1 {
		var next []digest.Hash
		for i := 0; i < len(level); i += 16 {
			if i == len(level)-1 {
				next = append(next, level[i])
				continue
			}
			var b []byte
			for j := i; j < i+16 && j < len(level); j++ {
				b = append(b, level[j][:]...)
			}
			next = append(next, digest.Sum(b))
		}
		level = next
	}
	return level[0]
}

func TestTreeOfManySizes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	state := digest.Sum([]byte("state"))
	for users := 1; users <= 600; users++ {
		hashes := make([]digest.Hash, users)
		for i := range hashes {
			hashes[i] = digest.Sum(fmt.Appendf(nil, "%d of %d", i, users))
		}
		given := slices.Clone(hashes)
		tree := NewTree(hashes, state)
		if !slices.Equal(given, hashes) {
			t.Fatal("the caller's list was changed")
		}
		sorted := slices.SortedFunc(slices.Values(hashes), digest.Hash.Compare)
		if want := naiveRoot(append(sorted, state)); tree.Root() != want {
			t.Fatalf("%d users: root %s, want %s", users, tree.Root(), want)
		}
		rnd.Shuffle(users, func(i, j int) { hashes[i], hashes[j] = hashes[j], hashes[i] })
		if NewTree(hashes, state).Root() != tree.Root() {
			t.Fatalf("%d users: root depends on the order", users)
		}
		if NewTree(hashes, hashes[0]).Root() == tree.Root() {
			t.Fatalf("%d users: root does not cover the state", users)
		}
		check := hashes
		if users > 40 && users%97 != 0 && users != 255 && users != 256 && users != 257 {
			check = hashes[:8] // all of them for some sizes
		}
		for _, own := range check {
			n, ok := tree.Collapse(own)
			if !ok {
				t.Fatalf("%d users: leaf not found", users)
			}
			root, err := n.Root(own)
			if err != nil || root != tree.Root() {
				t.Fatalf("%d users: collapsed root %s, %v", users, root, err)
			}
			text, err := json.Marshal(n)
			if err != nil {
				t.Fatal(err)
			}
			var again Node
			if err := json.Unmarshal(text, &again); err != nil {
				t.Fatal(err)
			}
			if text2 := again.AppendJSON(nil); !bytes.Equal(text, text2) || text[0] != '[' {
				t.Fatalf("%d users: JSON %s became %s", users, text, text2)
			}
			if root, err := n.Root(digest.Sum(own[:])); err != nil || root == tree.Root() {
				t.Fatalf("%d users: another leaf gives the same root", users)
			}
		}
		if _, ok := tree.Collapse(state); ok {
			t.Fatalf("%d users: the state is taken for a user", users)
		}
	}
}

func TestNoOutputs(t *testing.T) {
	tree := NewTree(nil, digest.Sum([]byte("state")))
	if !tree.Root().IsZero() {
		t.Errorf("root %s", tree.Root())
	}
	if _, ok := tree.Collapse(digest.Hash{}); ok {
		t.Error("found a leaf")
	}
}

func TestNeededIsTheClientsRatio(t *testing.T) {
	for n := 1; n <= 300; n++ {
		for k := 0; k <= n; k++ {
			if (float64(k)/float64(n) >= 0.8) != (k >= Needed(n)) {
				t.Fatalf("%d of %d: the client says %v", k, n, k < Needed(n))
			}
		}
	}
}

func TestNeededShare(t *testing.T) {
	for _, c := range []struct{ n, percent, want int }{
		{1, 50, 1}, {1, 66, 1}, {1, 100, 1},
		{2, 50, 2}, {2, 66, 2}, {2, 100, 2},
		{3, 50, 2}, {3, 66, 2}, {3, 67, 3}, {3, 80, 3},
		{4, 50, 3}, {4, 66, 3}, {4, 75, 3}, {4, 76, 4}, {4, 80, 4}, {4, 100, 4},
		{5, 50, 3}, {5, 60, 3}, {5, 61, 4}, {5, 66, 4}, {5, 80, 4}, {5, 81, 5},
		{10, 50, 6}, {10, 66, 7}, {10, 80, 8}, {10, 100, 10},
		{100, 50, 51}, {100, 66, 66}, {128, 66, 85}, {128, 100, 128},
	} {
		if got := NeededShare(c.n, c.percent); got != c.want {
			t.Errorf("%d %% of %d: %d, want %d", c.percent, c.n, got, c.want)
		}
	}
	for n := 1; n <= 300; n++ {
		if NeededShare(n, 80) != Needed(n) {
			t.Errorf("80 %% of %d: %d, the JavaScript client needs %d", n, NeededShare(n, 80), Needed(n))
		}
		for percent := MinShare; percent <= MaxShare; percent++ {
			q := NeededShare(n, percent)
			if 2*q <= n || q > n || 100*q < percent*n || (2*(q-1) > n && 100*(q-1) >= percent*n) {
				t.Fatalf("%d %% of %d: %d", percent, n, q)
			}
		}
	}
}

func TestVerifyShare(t *testing.T) {
	user := seeded(t, 0x2a).Public()
	outputs := [][]byte{[]byte("a")}
	own := Hash(user, outputs)
	tree := NewTree([]digest.Hash{own}, digest.Sum([]byte("state")))
	node, _ := tree.Collapse(own)
	var (
		trusted []key.Public
		sigs    []Signature
	)
	for i := range byte(4) {
		k := seeded(t, i)
		trusted = append(trusted, k.Public())
		sigs = append(sigs, Signature{k.Public(), Sign(k, tree.Root())})
	}
	for _, c := range []struct {
		sigs    []Signature
		percent int
		err     string
	}{
		{sigs[:3], 66, ""},
		{sigs[1:], 50, ""},
		{sigs[:2], 66, "2 of 4 keys, 3 are needed"},
		{sigs[:2], 50, "2 of 4 keys, 3 are needed"},
		{[]Signature{sigs[0], sigs[1], sigs[0]}, 66, "2 of 4 keys, 3 are needed"},
		{sigs[:3], 80, "3 of 4 keys, 4 are needed"},
		{sigs, 100, ""},
		{sigs, 0, "share of trusted keys is 0 %, want 50 to 100"},
		{sigs, 49, "share of trusted keys is 49 %"},
		{sigs, 101, "share of trusted keys is 101 %"},
	} {
		err := VerifyShare(user, outputs, own, node, c.sigs, trusted, c.percent)
		if c.err == "" {
			if err != nil {
				t.Errorf("%d signatures, %d %%: %v", len(c.sigs), c.percent, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%d signatures, %d %%: error %v, want %q", len(c.sigs), c.percent, err, c.err)
		}
		if strings.Contains(c.err, "needed") && !errors.Is(err, ErrUntrusted) {
			t.Errorf("%v is not ErrUntrusted", err)
		}
	}
}

func TestVerify(t *testing.T) {
	user := seeded(t, 0x2a).Public()
	outputs := [][]byte{[]byte("a"), []byte("b")}
	own := Hash(user, outputs)
	tree := NewTree([]digest.Hash{own, digest.Sum([]byte("x"))}, digest.Sum([]byte("state")))
	node, _ := tree.Collapse(own)
	var (
		trusted []key.Public
		sigs    []Signature
	)
	for i := range byte(5) {
		k := seeded(t, i)
		trusted = append(trusted, k.Public())
		sigs = append(sigs, Signature{k.Public(), Sign(k, tree.Root())})
	}
	bad := sigs[1]
	bad.Sig[3] ^= 1
	stranger := Signature{seeded(t, 77).Public(), Sign(seeded(t, 77), tree.Root())}
	twice := Node{Kind: Group, Children: append(slices.Clone(node.Children), Node{Kind: OwnLeaf})}
	none := Node{Kind: Group, Children: slices.Repeat([]Node{{Kind: HashNode}}, 3)}
	for _, c := range []struct {
		name    string
		outputs [][]byte
		tree    Node
		sigs    []Signature
		trusted []key.Public
		err     string
	}{
		{"all", outputs, node, sigs, trusted, ""},
		{"just enough", outputs, node, sigs[:4], trusted, ""},
		{"a bad one before the good one", outputs, node, append([]Signature{bad}, sigs[:4]...), trusted, ""},
		{"too few", outputs, node, sigs[:3], trusted, "3 of 5 keys, 4 are needed"},
		{"one twice", outputs, node, append(slices.Clone(sigs[:3]), sigs[0]), trusted, "3 of 5"},
		{"one bad", outputs, node, append(slices.Clone(sigs[2:]), bad), trusted, "3 of 5"},
		{"a stranger", outputs, node, append(slices.Clone(sigs[:3]), stranger), trusted, "3 of 5"},
		{"nobody trusted", outputs, node, sigs, nil, "no key is trusted"},
		{"other outputs", [][]byte{[]byte("a"), []byte("c")}, node, sigs, trusted, "outputs hash to"},
		{"own leaf twice", outputs, twice, sigs, trusted, "2 leaves of the user's own"},
		{"no own leaf", outputs, none, sigs, trusted, "0 leaves of the user's own"},
		{"no array", outputs, Node{Kind: OwnLeaf}, sigs, trusted, "not an array"},
		{"lonely leaf", outputs, Node{Kind: Group, Children: []Node{{Kind: OwnLeaf}}}, sigs, trusted, "group of 1"},
		{"great group", outputs, Node{Kind: Group, Children: make([]Node, 17)}, sigs, trusted, "group of 17"},
		{"unknown kind", outputs, Node{Kind: Group, Children: []Node{{Kind: 9}, {}}}, sigs, trusted, "unknown kind"},
	} {
		err := Verify(user, c.outputs, own, c.tree, c.sigs, c.trusted)
		if c.err == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
		if strings.Contains(c.err, "keys") && !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v is not ErrUntrusted", c.name, err)
		}
	}
}

// TestLeafCanPassForGroup shows the weakness that Verify's comment names, so that
// nobody relies on more than the format gives.
func TestLeafCanPassForGroup(t *testing.T) {
	victim, attacker, node := seeded(t, 1).Public(), seeded(t, 2).Public(), seeded(t, 3)
	invented := [][]byte{[]byte("you own everything")}
	forged := Hash(victim, invented)
	// The contract repeats what the attacker sent: a list of 16 "hashes" but for
	// the first 33 bytes, which are the attacker's key.
	echo := make([]byte, 16*digest.Size-key.PublicSize)
	copy(echo[15*digest.Size-key.PublicSize:], forged[:])
	state := digest.Sum([]byte("state"))
	honest := NewTree([]digest.Hash{Hash(attacker, [][]byte{echo})}, state)
	sigs := []Signature{{node.Public(), Sign(node, honest.Root())}}

	group := Node{Kind: Group}
	for part := range slices.Chunk(slices.Concat(attacker[:], echo), digest.Size) {
		group.Children = append(group.Children, Node{Hash: digest.Hash(part)})
	}
	group.Children[15] = Node{Kind: OwnLeaf}
	tree := Node{Kind: Group, Children: []Node{group, {Hash: state}}}
	if err := Verify(victim, invented, forged, tree, sigs, []key.Public{node.Public()}); err != nil {
		t.Errorf("the format is stronger than its description says: %v", err)
	}
}

func TestNodeJSONIsStrict(t *testing.T) {
	h := `"` + strings.Repeat("ab", 32) + `"`
	for text, ok := range map[string]bool{
		`[null,` + h + `]`: true, `null`: true, h: true, `[]`: true,
		strings.Repeat("[", 16) + strings.Repeat("]", 16): true,
		strings.Repeat("[", 17) + strings.Repeat("]", 17): false,
		`["ab"]`: false, `[1]`: false, `{}`: false, `[`: false, `[true]`: false, `["` + strings.Repeat("zz", 32) + `"]`: false,
	} {
		var n Node
		if err := json.Unmarshal([]byte(text), &n); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzNodeJSON(f *testing.F) {
	own := digest.Sum([]byte("own"))
	for _, others := range []int{0, 15, 18, 300} {
		hashes := []digest.Hash{own}
		for i := range others {
			hashes = append(hashes, digest.Sum(fmt.Appendf(nil, "other%d", i)))
		}
		n, _ := NewTree(hashes, digest.Hash{7}).Collapse(own)
		f.Add(n.AppendJSON(nil))
	}
	f.Add([]byte(`[[],null]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var n, again Node
		if json.Unmarshal(b, &n) != nil {
			return
		}
		text := n.AppendJSON(nil)
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatalf("own JSON %s is refused: %v", text, err)
		}
		r1, err1 := n.Root(own)
		r2, err2 := again.Root(own)
		if r1 != r2 || (err1 == nil) != (err2 == nil) {
			t.Fatalf("%s: root %s, %v and %s, %v", text, r1, err1, r2, err2)
		}
	})
}

func BenchmarkTree600(b *testing.B) {
	hashes := make([]digest.Hash, 600)
	for i := range hashes {
		hashes[i] = digest.Sum(fmt.Appendf(nil, "%d", i))
	}
	b.Run("New", func(b *testing.B) {
		for b.Loop() {
			NewTree(hashes, digest.Hash{})
		}
	})
	tree := NewTree(hashes, digest.Hash{})
	b.Run("CollapseJSON", func(b *testing.B) {
		var buf []byte
		for b.Loop() {
			n, _ := tree.Collapse(hashes[77])
			buf = n.AppendJSON(buf[:0])
		}
	})
}
