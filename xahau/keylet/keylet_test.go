package keylet

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"evernode/internal/npmtest"
	"evernode/xahau"
)

func TestSingletons(t *testing.T) {
	for _, c := range []struct {
		k    Keylet
		want string
	}{
		{Fees(), "4BC50C9B0D8515D3EAAE1E74B29A95804346C491EE1A95BF25E4AAB854A6A651"},
		{Amendments(), "7DB0788C020F02780A673DC74757F23823FA3014C1866E72CC4CD8B226CD6EF4"},
		{NegativeUNL(), "2E8A59AA9D3B5B186B0B9E0F62E6C02587CA74A4D778938E957B6357D364B244"},
		{SkipList(), "B4979A36CDC7F3D3D5C31A4EAE2AC7D7209DDA877588B9AFC66799692AB0D66B"},
		{UNLReport(), "61E32E7A24A238F1C619D5F9DDCC41A94B33B66C0163F7EFCC8A19C9FD6F28DC"},
		// The genesis account.
		{Account(xahau.MustAddress("rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh")), "2B6AC232AA4C4BE41BF49D2459FA4A0347E1B543A4C92FCEE0821C0201E2E9A8"},
	} {
		if c.k.Index.String() != c.want {
			t.Errorf("index %s, want %s", c.k.Index, c.want)
		}
		b := c.k.Bytes()
		if back, err := FromBytes(b[:]); err != nil || back != c.k {
			t.Errorf("%x becomes %v, %v", b, back, err)
		}
	}
	if _, err := FromBytes(make([]byte, 33)); err == nil {
		t.Error("33 bytes are a keylet")
	}
}

// The formulas of spec/ledger.md sections 2 and 3, and that nothing shares an index.
func TestIndexes(t *testing.T) {
	a, b := xahau.AccountID{1}, xahau.AccountID{2}
	h, ns := xahau.Hash256{3}, xahau.Hash256{4}
	c := xahau.MustCurrency("EVR")
	if got, want := URIToken(a, []byte("uri")).Index, xahau.Sha512Half([]byte{0, 0x55}, a[:], []byte("uri")); got != want {
		t.Error("URIToken", got)
	}
	if got, want := HookState(a, h, ns).Index, xahau.Sha512Half([]byte{0, 0x76}, a[:], h[:], ns[:]); got != want {
		t.Error("HookState", got)
	}
	if got, want := HookDefinition(h).Index, xahau.Sha512Half([]byte{0, 0x44}, h[:]); got != want {
		t.Error("HookDefinition", got)
	}
	if Line(a, b, c) != Line(b, a, c) {
		t.Error("a trust line depends on the side")
	}
	seen := map[xahau.Hash256]int{}
	for i, k := range []Keylet{
		Account(a), Account(b), Line(a, b, c), Offer(a, Seq(1)), Offer(a, Nonce(h)), Check(a, Seq(1)), Escrow(a, Seq(1)), PayChannel(a, b, Seq(1)),
		Ticket(a, 1), SignerList(a), DepositPreauth(a, b), DepositPreauth(b, a), OwnerDirectory(a), Page(h, 0), Page(h, 1), Book(xahau.Issue{}, xahau.Issue{Currency: c, Issuer: a}),
		Book(xahau.Issue{Currency: c, Issuer: a}, xahau.Issue{}), URIToken(a, []byte("u")), Hook(a), HookDefinition(h), HookState(a, h, ns), HookStateDirectory(a, ns), EmittedTxn(h),
		EmittedDirectory(), Fees(), Amendments(), NegativeUNL(), UNLReport(), SkipList(), SkipListOf(1 << 16), ImportVLSequence(xahau.PublicKey{2}), NFTokenOffer(a, Seq(1)), NFTokenBuys(h), NFTokenSells(h), NFTokenPage(a, h),
	} {
		if j, ok := seen[k.Index]; ok {
			t.Errorf("%d and %d have one index", i, j)
		}
		seen[k.Index] = i
		if k.Type == 0 {
			t.Errorf("%d has no type", i)
		}
	}
	book := Book(xahau.Issue{}, xahau.Issue{Currency: c, Issuer: a})
	q := Quality(book, 0x1122334455667788)
	if QualityOf(q.Index) != 0x1122334455667788 || QualityOf(book.Index) != 0 {
		t.Error("quality")
	}
	if end := BookEnd(q); end.Compare(Quality(book, 1<<64-1).Index) <= 0 || QualityOf(end) != 0 {
		t.Error("end of the book", end)
	}
}

func TestNpmIndexes(t *testing.T) {
	modules := filepath.Join(npmtest.Install(t, "xrpl@5.3.0"), "node_modules")
	a, b := xahau.MustAddress("rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"), xahau.MustAddress("rGWrZyQqhTp9Xu7G5Pkayo7bXjH4k4QYpf")
	want := []xahau.Hash256{
		Account(a).Index, SignerList(a).Index, Offer(a, Seq(7)).Index, Line(a, b, xahau.MustCurrency("EVR")).Index,
		Escrow(a, Seq(7)).Index, PayChannel(a, b, Seq(7)).Index,
	}
	script := fmt.Sprintf(`const { hashes: h } = require("xrpl");
const a = "%s", b = "%s";
for (const x of [h.hashAccountRoot(a), h.hashSignerListId(a), h.hashOfferId(a, 7), h.hashTrustline(a, b, "EVR"), h.hashEscrow(a, 7), h.hashPaymentChannel(a, b, 7)]) console.log(x);`, a, b)
	cmd := exec.CommandContext(t.Context(), "node", "-e", script)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	for i, line := range strings.Fields(string(out)) {
		if !strings.EqualFold(line, want[i].String()) {
			t.Errorf("%d: %s, by npm %s", i, want[i], line)
		}
	}
}
