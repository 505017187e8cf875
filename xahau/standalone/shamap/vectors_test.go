package shamap

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evernode/internal/npmtest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	must(t, err)
	return b
}

func key(t testing.TB, s string) Key { return Key(unhex(t, s)) }

// The hashes that xrpld's own tests expect after each entry, and in reverse
// after each deletion.
func TestPublishedBuildAndTear(t *testing.T) {
	steps := []struct{ key, hash string }{
		{"b92891fe4ef6cee585fdc6fda1e09eb4d386363158ec3321b8123e5a772c6ca8", "B7387CFEA0465759ADC718E8C42B52D2309D179B326E239EB5075C64B6281F7F"},
		{"b92881fe4ef6cee585fdc6fda1e09eb4d386363158ec3321b8123e5a772c6ca8", "FBC195A9592A54AB44010274163CB6BA95F497EC5BA0A8831845467FB2ECE266"},
		{"b92691fe4ef6cee585fdc6fda1e09eb4d386363158ec3321b8123e5a772c6ca8", "4E7D2684B65DFD48937FFB775E20175C43AF0C94066F7D5679F51AE756795B75"},
		{"b92791fe4ef6cee585fdc6fda1e09eb4d386363158ec3321b8123e5a772c6ca8", "7A2F312EB203695FFD164E038E281839EEF06A1B99BFC263F3CECC6C74F93E07"},
		{"b91891fe4ef6cee585fdc6fda1e09eb4d386363158ec3321b8123e5a772c6ca8", "395A6691A372387A703FB0F2C6D2C405DAF307D0817F8F0E207596462B0E3A3E"},
		{"b99891fe4ef6cee585fdc6fda1e09eb4d386363158ec3321b8123e5a772c6ca8", "D044C0A696DE3169CC70AE216A1564D69DE96582865796142CE7D98A84D9DDE4"},
		{"f22891fe4ef6cee585fdc6fda1e09eb4d386363158ec3321b8123e5a772c6ca8", "76DCC77C4027309B5A91AD164083264D70B77B5E43E08AEDA5EBF94361143615"},
		{"292891fe4ef6cee585fdc6fda1e09eb4d386363158ec3321b8123e5a772c6ca8", "DF4220E93ADC6F5569063A01B4DC79F8DB9553B6A3222ADE23DEA02BBE7230E5"},
	}
	m := New(Candidates)
	if m.Hash() != (Hash{}) {
		t.Error("an empty tree has a hash")
	}
	var err error
	for i, s := range steps {
		m, err = m.Set(key(t, s.key), bytes.Repeat([]byte{byte(i)}, 32))
		must(t, err)
		if m.Hash() != key(t, s.hash) {
			t.Fatalf("after entry %d: %X", i, m.Hash())
		}
	}
	for i := len(steps) - 1; i >= 0; i-- {
		if m.Hash() != key(t, steps[i].hash) {
			t.Fatalf("before deleting entry %d: %X", i, m.Hash())
		}
		m, err = m.Delete(key(t, steps[i].key))
		must(t, err)
	}
	if m.Hash() != (Hash{}) || m.Len() != 0 {
		t.Errorf("torn down: %X, %d entries", m.Hash(), m.Len())
	}
}

func readState(t testing.TB, name string) (changes []Change) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	sc := bufio.NewScanner(z)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		k, data, _ := strings.Cut(sc.Text(), " ")
		changes = append(changes, Change{key(t, k), unhex(t, data)})
	}
	must(t, sc.Err())
	return changes
}

// The state of two ledgers of the main network has the hash that is in their
// headers, and so has the transaction of the first.
func TestRealLedgers(t *testing.T) {
	var states []Map
	for name, want := range map[string]string{
		"state-38129.gz": "2C23D15B6B549123FB351E4B5CDE81C564318EB845449CD43C3EA7953C4DB452",
		"state-40000.gz": "1B536BFBDFC92B9550F2F63D32F7269D451885FFB2CAB374332EBC2D663320E0",
	} {
		m, err := New(State).Apply(readState(t, name))
		must(t, err)
		if m.Hash() != key(t, want) {
			t.Errorf("%s: %X, want %s", name, m.Hash(), want)
		}
		states = append(states, m)
	}
	var changes []Change
	for d, err := range Diff(states[0], states[1]) {
		must(t, err)
		changes = append(changes, Change{d.Key, d.New})
	}
	m, err := states[0].Apply(changes)
	must(t, err)
	if m.Hash() != states[1].Hash() || len(changes) == 0 || len(changes) > 20 {
		t.Errorf("%d changes lead from one to %X", len(changes), m.Hash())
	}
	e, err := TransactionEntry(unhex(t, tx38129), unhex(t, meta38129))
	must(t, err)
	m, err = New(Transactions).Set(key(t, "3B1A4E1C9BB6A7208EB146BCDB86ECEA6068ED01466D933528CA2B4C64F753EF"), e)
	must(t, err)
	if m.Hash() != key(t, "DB83BF807416C5B3499A73130F843CF615AB8E797D79FE7D330ADF1BFA93951A") {
		t.Errorf("transactions: %X", m.Hash())
	}
}

const (
	tx38129   = "1200002200000000240000003E6140000002540BE40068400000000000000A7321034AADB09CFF4A4804073701EC53C3510CDC95917C2BB0150FB742D0C66E6CEE9E74473045022022EB32AECEF7C644C891C19F87966DF9C62B1F34BABA6BE774325E4BB8E2DD62022100A51437898C28C2B297112DF8131F2BB39EA5FE613487DDD611525F17962646398114550FC62003E785DC231A1058A05E56E3F09CF4E68314D4CC8AB5B21D86A82C3E9E8D0ECF2404B77FECBA"
	meta38129 = "201C00000000F8E3110061564C6ACBD635B0F07101F7FA25871B0925F8836155462152172755845CE691C49EE824000000016240000002540BE4008114D4CC8AB5B21D86A82C3E9E8D0ECF2404B77FECBAE1E1E51100612500007A55552485FDC606352F1B0785DA5DE96FB9DBAF43EB60ECBB01B7F6FA970F512CDA5F56B33FDD5CF3445E1A7F2BE9B06336BEBD73A5E3EE885D3EF93F7E3E2992E46F1AE6240000003E62400000E6D8EEB01EE1E72200000000240000003F2D0000000062400000E484E2CC148114550FC62003E785DC231A1058A05E56E3F09CF4E6E1E1F1031000"
)

const npmScript = `
const shamap = require(process.argv[1] + '/node_modules/xrpl/dist/npm/utils/hashes/SHAMap');
const out = [];
for (const c of JSON.parse(require('fs').readFileSync(0))) {
  const m = new shamap.default();
  for (const [k, d] of c.Entries) m.addItem(k, d, c.Kind);
  out.push(m.hash);
}
console.log(JSON.stringify(out));`

// Random trees of all kinds have the hash that the npm package xrpl computes.
func TestLikeXrplJS(t *testing.T) {
	dir := npmtest.Install(t, "xrpl@5.3.0")
	type tree struct {
		Kind    int
		Entries [][2]string
	}
	var trees []tree
	var want []Hash
	rng := rand.New(rand.NewPCG(1, 1))
	npmKind := map[Kind]int{Candidates: 2, Transactions: 3, State: 4}
	for range 60 {
		for kind, number := range npmKind {
			var changes []Change
			c := tree{Kind: number}
			for range 1 + rng.IntN(1+rng.IntN(120)) {
				ch := Change{randomKey(rng), randomData(rng)}
				if slices.ContainsFunc(changes, func(c Change) bool { return c.Key == ch.Key }) {
					continue
				}
				changes = append(changes, ch)
				c.Entries = append(c.Entries, [2]string{strings.ToUpper(hex.EncodeToString(ch.Key[:])), strings.ToUpper(hex.EncodeToString(ch.Data))})
			}
			m, err := New(kind).Apply(changes)
			must(t, err)
			trees = append(trees, c)
			want = append(want, m.Hash())
		}
	}
	input, err := json.Marshal(trees)
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "node", "-e", npmScript, dir)
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var got []string
	must(t, json.Unmarshal(out, &got))
	if len(got) != len(want) || len(got) < 100 {
		t.Fatalf("%d trees compared, want %d", len(got), len(want))
	}
	for i := range got {
		if key(t, got[i]) != want[i] {
			t.Errorf("tree %d with %d entries: %X, the package says %s", i, len(trees[i].Entries), want[i], got[i])
		}
	}
}

// randomKey often has a long prefix in common with others.
func randomKey(rng *rand.Rand) (k Key) {
	for i := range k {
		k[i] = byte(rng.Uint32())
	}
	if rng.IntN(2) == 0 {
		for i := range rng.IntN(33) {
			k[i] = 0x55
		}
	}
	if rng.IntN(4) == 0 {
		k = Key{31: byte(rng.IntN(40))}
	}
	return k
}

func randomData(rng *rand.Rand) []byte {
	b := make([]byte, 1+rng.IntN(200))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}
