package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/key"
)

func goldenPatch(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/patch.cfg")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestPatchTextIsTheOriginalsLayout(t *testing.T) {
	c, err := Parse(golden(t))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(c.Contract.Patch.Text()), string(goldenPatch(t)); got != want {
		t.Errorf("patch.cfg:\n%s\nwant:\n%s", got, want)
	}
}

func TestParsePatchDemandsEveryField(t *testing.T) {
	v, err := parse(goldenPatch(t))
	if err != nil {
		t.Fatal(err)
	}
	// Remove each field in turn, at both levels.
	var remove func(path string, at *value)
	remove = func(path string, at *value) {
		for i := range at.members {
			name := strings.TrimPrefix(path+"."+at.members[i].name, ".")
			whole := at.members
			at.members = append(append([]member(nil), whole[:i]...), whole[i+1:]...)
			_, err := ParsePatch(format(v))
			at.members = whole
			if name == "consensus.ledgers_per_roundtime" {
				if err != nil {
					t.Errorf("our own field is demanded: %v", err)
				}
			} else if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "is missing") {
				t.Errorf("without %s: %v", name, err)
			}
			if name != "environment" && whole[i].value.kind == kindObject {
				remove(name, &whole[i].value)
			}
		}
	}
	remove("", &v)
}

func TestParsePatchRejects(t *testing.T) {
	for _, tt := range []struct{ old, new, want string }{
		{`"version": "1.0"`, `"version": ""`, "version (line 2)"},
		{"\"unl\": [\n        \"" + testKey(t, 1).Public().String() + "\"\n    ]", `"unl": []`, "unl (line 3) is an empty list; allowed: a list of 1 to 128 public keys"},
		{`"ed8a88`, `"ee8a88`, "unl"},
		{`"<your contract binary here>"`, `""`, "bin_path"},
		{`"threshold": 66`, `"threshold": 0`, "consensus.threshold"},
		{`"mode": "private"`, `"mode": "secret"`, "consensus.mode"},
		{`"exec_timeout": 300000`, `"exec_timeout": 18446744073709551615`, "round_limits.exec_timeout"},
		{`"exec_timeout": 300000`, `"exec_timeout": 99999999999999999999`, "round_limits.exec_timeout"},
	} {
		text := strings.Replace(string(goldenPatch(t)), tt.old, tt.new, 1)
		if text == string(goldenPatch(t)) {
			t.Fatalf("%s is not in the file", tt.old)
		}
		if _, err := ParsePatch([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.new, err)
		}
	}
}

func TestApplyTakesTheAgreedPartOnly(t *testing.T) {
	text, err := os.ReadFile("testdata/full.cfg")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	agreed := strings.Replace(string(goldenPatch(t)), `"version": "1.0",`, `"version": "3", "id": "evil", "log": 1, "new_field": {"x": 1},`, 1)
	p, err := ParsePatch([]byte(agreed))
	if err != nil {
		t.Fatal(err)
	}
	next := c.Apply(p)
	if c.Contract.Version != "2.5" {
		t.Error("Apply changed its receiver")
	}
	if next.Contract.Version != "3" || next.Contract.Consensus.Roundtime != time.Second || len(next.Contract.UNL) != 1 {
		t.Error("the agreed part is not in force")
	}
	if next.Contract.ID != c.Contract.ID || next.Contract.Log != c.Contract.Log || next.User != c.User {
		t.Error("a patch changed what is the operator's")
	}
	out := string(next.Text())
	for _, want := range []string{`"new_field"`, `"unknown_in_contract"`, `"unknown_in_limits"`} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is lost:\n%s", want, out)
		}
	}
	if again, err := Parse([]byte(out)); err != nil || !again.Contract.Patch.Equal(p) {
		t.Errorf("the rewritten file means something else: %v", err)
	}
}

// A file that means the same keeps its bytes over a restart, whatever its
// layout: otherwise the node would differ from its cluster.
func TestPatchTextKeepsEqualFile(t *testing.T) {
	c, err := Parse(golden(t))
	if err != nil {
		t.Fatal(err)
	}
	compact := []byte(strings.ReplaceAll(strings.ReplaceAll(string(goldenPatch(t)), "\n", ""), "    ", ""))
	withMore := []byte(strings.Replace(string(goldenPatch(t)), `"version"`, `"more": 1, "version"`, 1))
	for _, existing := range [][]byte{compact, withMore} {
		if got := c.PatchText(existing); string(got) != string(existing) {
			t.Errorf("rewritten to %s", got)
		}
	}
	other := []byte(strings.Replace(string(goldenPatch(t)), `"1.0"`, `"1.1"`, 1))
	for _, existing := range [][]byte{nil, []byte("{"), other} {
		if got := c.PatchText(existing); string(got) != string(goldenPatch(t)) {
			t.Errorf("from %q: %s", existing, got)
		}
	}
}

func TestDifferencesNamesTheFields(t *testing.T) {
	base, err := ParsePatch(goldenPatch(t))
	if err != nil {
		t.Fatal(err)
	}
	a, b := testKey(t, 1).Public(), testKey(t, 2).Public()
	base.UNL = []key.Public{a, b}
	base.Environment = Environment{{"A", "1"}, {"B", "2"}}
	for _, tt := range []struct {
		want   string
		change func(*Patch)
	}{
		{"", func(*Patch) {}},
		{"", func(p *Patch) { p.UNL = []key.Public{b, a} }},
		{"", func(p *Patch) { p.Environment = Environment{{"B", "2"}, {"A", "1"}} }},
		{"", func(p *Patch) { p.extra = nil }},
		{"contract.version", func(p *Patch) { p.Version = "9" }},
		{"contract.unl", func(p *Patch) { p.UNL = []key.Public{a} }},
		{"contract.bin_path", func(p *Patch) { p.BinPath = "/x" }},
		{"contract.bin_args", func(p *Patch) { p.BinArgs = "x y" }},
		{"contract.environment", func(p *Patch) { p.Environment = Environment{{"A", "1"}, {"B", "3"}} }},
		{"contract.max_input_ledger_offset", func(p *Patch) { p.MaxInputLedgerOffset++ }},
		{"contract.consensus.mode", func(p *Patch) { p.Consensus.Mode = "public" }},
		{"contract.consensus.roundtime", func(p *Patch) { p.Consensus.Roundtime += time.Millisecond }},
		{"contract.consensus.stage_slice", func(p *Patch) { p.Consensus.StageSlice++ }},
		{"contract.consensus.threshold", func(p *Patch) { p.Consensus.Threshold++ }},
		{"contract.consensus.ledgers_per_roundtime", func(p *Patch) { p.Consensus.LedgersPerRoundtime++ }},
		{"contract.npl.mode", func(p *Patch) { p.NPL.Mode = "public" }},
		{"contract.round_limits.user_input_bytes", func(p *Patch) { p.RoundLimits.UserInputBytes++ }},
		{"contract.round_limits.exec_timeout", func(p *Patch) { p.RoundLimits.ExecTimeout = 0 }},
		{"contract.bin_path contract.consensus.roundtime", func(p *Patch) {
			p.BinPath, p.Consensus.Roundtime = "/x", time.Minute
		}},
	} {
		other := base
		tt.change(&other)
		got := strings.Join(base.Differences(other), " ")
		if got != tt.want || strings.Join(other.Differences(base), " ") != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
		if base.Equal(other) != (got == "") {
			t.Errorf("%q differ, but Equal says %v", got, base.Equal(other))
		}
	}
	if base.UNL[0] != a || base.Environment[0].Name != "A" {
		t.Error("the patch was changed")
	}
}

func TestUNLIsASet(t *testing.T) {
	a, b := testKey(t, 1).Public(), testKey(t, 2).Public()
	quote := func(keys ...key.Public) string {
		s := make([]string, len(keys))
		for i, k := range keys {
			s[i] = fmt.Sprintf("%q", strings.ToUpper(k.String()))
		}
		return strings.Join(s, ", ")
	}
	p, err := ParsePatch([]byte(strings.Replace(string(goldenPatch(t)), `"`+a.String()+`"`, quote(b, a, b), 1)))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.UNL) != 2 || p.UNL[0] != b || p.UNL[1] != a {
		t.Errorf("UNL %v", p.UNL)
	}
	if m := p.Members(); m[0].Compare(m[1]) >= 0 {
		t.Errorf("members are not sorted: %v", m)
	}
}

func TestQuorumAndWarning(t *testing.T) {
	for _, tt := range []struct {
		n, threshold, quorum, silent, lying int
		warning                             string
	}{
		{1, 66, 1, 0, 0, "one member"},
		{2, 66, 2, 0, 0, "all 2 must agree"},
		{3, 66, 2, 1, 0, "none that lies"},
		{3, 80, 3, 0, 0, "all 3 must agree"},
		{4, 66, 3, 1, 1, ""},
		{4, 80, 4, 0, 0, "all 4 must agree"},
		{4, 1, 3, 1, 1, ""},
		{5, 50, 3, 2, 0, "none that lies"},
		{5, 66, 4, 1, 1, ""},
		{7, 66, 5, 2, 2, ""},
		{100, 66, 66, 34, 31, ""},
		{128, 100, 128, 0, 0, "all 128"},
	} {
		silent, lying := FaultTolerance(tt.n, tt.threshold)
		if q := Quorum(tt.n, tt.threshold); q != tt.quorum || silent != tt.silent || lying != tt.lying {
			t.Errorf("n=%d threshold=%d: quorum %d, silent %d, lying %d; want %d, %d, %d",
				tt.n, tt.threshold, q, silent, lying, tt.quorum, tt.silent, tt.lying)
		}
		w := Warning(tt.n, tt.threshold)
		if (w == "") != (tt.warning == "") || !strings.Contains(w, tt.warning) {
			t.Errorf("n=%d threshold=%d: warning %q", tt.n, tt.threshold, w)
		}
	}
	// A threshold below 50 never lowers the quorum below that of 50.
	for n := 1; n <= MaxUNL; n++ {
		if Quorum(n, 1) != Quorum(n, 50) {
			t.Fatalf("n=%d: threshold 1 gives %d, 50 gives %d", n, Quorum(n, 1), Quorum(n, 50))
		}
	}
}

func FuzzParsePatch(f *testing.F) {
	f.Add(goldenPatch(f))
	f.Add([]byte(`{"version":"1","unl":["ed"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePatch(text)
		if err != nil {
			return
		}
		again, err := ParsePatch(p.Text())
		if err != nil || !again.Equal(p) {
			t.Fatalf("rewritten patch differs: %v", err)
		}
	})
}
