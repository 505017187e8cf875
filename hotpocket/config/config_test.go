package config

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/key"
)

func testKey(t *testing.T, n byte) key.Private {
	t.Helper()
	seed := make([]byte, key.SeedSize)
	for i := range seed {
		seed[i] = n
	}
	k, err := key.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func golden(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/new.cfg")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The file that New writes is the one of the original, field for field in its
// order and layout, but for the threshold and our own field.
func TestNewTextIsTheOriginalsLayout(t *testing.T) {
	c := New(testKey(t, 1), "3c349abe-4d70-4f50-9fa6-018f1f2530ab")
	if got, want := string(c.Text()), string(golden(t)); got != want {
		t.Errorf("text of a new configuration:\n%s\nwant:\n%s", got, want)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestParseReadsEveryField(t *testing.T) {
	text, err := os.ReadFile("testdata/full.cfg")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	uid, gid, ok := c.Contract.User()
	checks := map[string]bool{
		"hp_version":       c.HPVersion == "0.6.3",
		"role":             c.Node.Observer(),
		"history":          c.Node.FullHistory(),
		"history_config":   c.Node.HistoryConfig == HistoryConfig{2, 3},
		"execute":          !c.Contract.Execute,
		"run_as":           uid == 1001 && gid == 1002 && ok,
		"contract.log":     c.Contract.Log == ContractLog{true, 6, 7},
		"version":          c.Contract.Version == "2.5",
		"unl":              len(c.Contract.UNL) == 2 && c.Contract.Member(testKey(t, 2).Public()),
		"bin":              c.Contract.BinPath == "/usr/bin/node" && c.Contract.BinArgs == "index.js a",
		"environment":      slices.Equal(c.Contract.Environment.Strings(), []string{"B=1", "A=x=y"}),
		"offset":           c.Contract.MaxInputLedgerOffset == 11,
		"consensus":        c.Contract.Consensus == Consensus{"public", 2 * time.Second, 20, 80, 3},
		"npl":              c.Contract.NPL.Public(),
		"limits":           c.Contract.RoundLimits == RoundLimits{1, 2, 3, 4, 5, 6, 7 * time.Millisecond},
		"mesh":             c.Mesh.Port == 1234 && !c.Mesh.Listen && c.Mesh.IdleTimeout == time.Second && !c.Mesh.MsgForwarding,
		"known_peers":      slices.Equal(c.Mesh.KnownPeers, []string{"a:1", "10.0.0.1:65535"}),
		"mesh connections": c.Mesh.MaxConnections == 9 && c.Mesh.MaxKnownConnections == 8 && c.Mesh.MaxInConnectionsPerHost == 7,
		"mesh limits": c.Mesh.MaxBytesPerMsg == 10485760 && c.Mesh.MaxBytesPerMin == 21 && c.Mesh.MaxBadMsgsPerMin == 22 &&
			c.Mesh.MaxBadMsgSigsPerMin == 23 && c.Mesh.MaxDupMsgsPerMin == 24,
		"discovery": c.Mesh.PeerDiscovery == PeerDiscovery{false, 65535 * time.Millisecond},
		"user":      c.User == User{4321, false, 2 * time.Second, 31, 32, 33, 34, 35, 32},
		"hpfs":      c.HPFS == HPFS{External: true, LogLevel: "dbg", Backend: "dir", Socket: "/run/state", RunAs: "7:8", MaxUpload: 77},
		"log":       c.Log.Level == "err" && c.Log.MaxMBytesPerFile == 41 && c.Log.MaxFileCount == 42 && c.Log.Console() && !c.Log.File(),
	}
	for what, ok := range checks {
		if !ok {
			t.Errorf("%s was not read as written: %+v", what, c)
		}
	}
}

// What we do not know survives at every level, digits and order included.
func TestRewriteKeepsUnknownFields(t *testing.T) {
	text, err := os.ReadFile("testdata/full.cfg")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Text(); string(got) != string(text) {
		t.Errorf("rewritten:\n%s\nwant unchanged:\n%s", got, text)
	}
	c.User.Port = 99
	want := strings.Replace(string(text), "4321", "99", 1)
	if got := c.Text(); string(got) != want {
		t.Errorf("after a change:\n%s\nwant:\n%s", got, want)
	}
}

// A file with nothing but what has no default gets all defaults.
func TestParseFillsDefaults(t *testing.T) {
	k := testKey(t, 1)
	c, err := Parse([]byte(`{"node":{"public_key":"` + k.Public().String() + `","private_key":"` + k.Hex() + `"},
		"contract":{"id":"3c349abe-4d70-4f50-9fa6-018f1f2530ab","unl":["` + strings.ToUpper(k.Public().String()) + `"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Text(); string(got) != string(golden(t)) {
		t.Errorf("defaults:\n%s", got)
	}
}

func TestParseNamesEveryBadField(t *testing.T) {
	const p = "contract.consensus."
	for _, tt := range []struct{ old, new, want string }{
		{`"roundtime": 1000`, `"roundtime": 0`, p + `roundtime (line 32) is 0; allowed: a whole number from 1 to 3600000 (milliseconds)`},
		{`"roundtime": 1000`, `"roundtime": 3600001`, p + `roundtime (line 32) is 3600001`},
		{`"roundtime": 1000`, `"roundtime": 1.5`, p + `roundtime (line 32) is 1.5`},
		{`"roundtime": 1000`, `"roundtime": "1000"`, p + `roundtime (line 32) is "1000"`},
		{`"threshold": 66`, `"threshold": 101`, p + `threshold (line 34) is 101; allowed: a whole number from 1 to 100`},
		{`"threshold": 66`, `"threshold": -1`, p + `threshold (line 34) is -1`},
		{`"stage_slice": 25`, `"stage_slice": 34`, p + `stage_slice`},
		{`"ledgers_per_roundtime": 10`, `"ledgers_per_roundtime": 0`, p + `ledgers_per_roundtime`},
		{`"hp_version": "0.6.4"`, `"hp_version": "0.6.2"`, `hp_version (line 2) is "0.6.2"; allowed: a version from 0.6.3`},
		{`"hp_version": "0.6.4"`, `"hp_version": "0.6"`, `hp_version`},
		{`"role": "validator"`, `"role": "boss"`, `node.role (line 6) is "boss"; allowed: validator, observer`},
		{`"max_primary_shards": 1`, `"max_primary_shards": 0`, `node.history_config.max_primary_shards is 0; allowed: at least 1`},
		{`"execute": true`, `"execute": 1`, `contract.execute (line 15) is 1; allowed: true or false`},
		{`"run_as": ""`, `"run_as": "root"`, `contract.run_as (line 16) is "root"; allowed: "uid:gid"`},
		{`"enable": false`, `"enable": true`, ``},
		{`"bin_args": ""`, `"bin_args": "a\u0000b"`, `contract.bin_args`},
		{`"environment": {}`, `"environment": {"A": 1}`, `contract.environment`},
		{`"environment": {}`, `"environment": {"A=B": "1"}`, `contract.environment`},
		{`"environment": {}`, `"environment": []`, `contract.environment (line 28) is an empty list`},
		{`"port": 22860`, `"port": 0`, `mesh.port`},
		{`"known_peers": []`, `"known_peers": ["a"]`, `mesh.known_peers (line 54) is ["a"]; allowed: a list of "host:port"`},
		{`"known_peers": []`, `"known_peers": ["a:1:2"]`, `mesh.known_peers`},
		{`"known_peers": []`, `"known_peers": ["a:0"]`, `mesh.known_peers`},
		{`"max_connections": 0`, `"max_connections": 5`, `mesh.max_known_connections is 0; allowed: 1 to mesh.max_connections, which is 5`},
		{`"interval": 30000`, `"interval": 65536`, `mesh.peer_discovery.interval`},
		{`"concurrent_read_requests": 4`, `"concurrent_read_requests": 33`, `user.concurrent_read_requests`},
		{`"log_level": "inf"`, `"log_level": "all"`, `log.log_level`},
		{`"file"`, `"syslog"`, `log.loggers`},
		{`"mesh": {`, `"mesh": 1, "x": {`, `mesh (line 50) is 1; allowed: an object`},
		{`"id": "3c349abe-4d70-4f50-9fa6-018f1f2530ab"`, `"id": ""`, `contract.id (line 14) is ""; allowed: a text that is not empty`},
		{`"id": "3c349abe-4d70-4f50-9fa6-018f1f2530ab",`, ``, `contract.id (line 13) is missing`},
		{`"role"`, `"role": "validator", "role"`, `line 6, column 30: the key "role" is there twice`},
		{`"role": "validator",`, `"role": "validator"`, `line 7, column 9: expected ',' or '}', found '"'`},
	} {
		text := strings.Replace(string(golden(t)), tt.old, tt.new, 1)
		if text == string(golden(t)) {
			t.Fatalf("%s is not in the file", tt.old)
		}
		_, err := Parse([]byte(text))
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.new, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v\nwant %s", tt.new, err, tt.want)
		}
	}
}

func TestParseReportsAllProblemsAtOnceAndNoSecret(t *testing.T) {
	secret := testKey(t, 1).Hex()
	broken := secret[:129] + "0"
	text := strings.Replace(string(golden(t)), secret, broken, 1)
	text = strings.Replace(text, `"port": 8080`, `"port": 70000`, 1)
	_, err := Parse([]byte(text))
	if err == nil {
		t.Fatal("a broken private key was accepted")
	}
	for _, want := range []string{"node.private_key (line 5) is not usable (not shown)", "user.port"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	if strings.Contains(err.Error(), broken[10:60]) {
		t.Error("the error shows the private key")
	}

	// Two whole keys that do not belong together.
	text = strings.Replace(string(golden(t)), secret, testKey(t, 2).Hex(), 1)
	if _, err = Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "node.public_key") {
		t.Errorf("a wrong pair of keys: %v", err)
	}
}

func TestParsePositions(t *testing.T) {
	for _, tt := range []struct {
		text         string
		line, column int
		problem      string
	}{
		{"", 1, 1, "expected a JSON value, found the end of the file"},
		{"[]", 1, 1, "expected an object"},
		{"{\n  \"ä\": x}", 2, 8, "expected a JSON value, found 'x'"},
		{"{} {}", 1, 4, "more text after the end"},
		{`{"a":1,}`, 1, 8, "expected a key in double quotes, found '}'"},
		{`{"a":01}`, 1, 7, "expected ',' or '}'"},
		{`{"a":1.}`, 1, 8, "expected a digit after the point"},
		{`{"a":-}`, 1, 7, "expected a digit"},
		{`{"a":1e}`, 1, 8, "expected a digit in the exponent"},
		{`{"a":"b`, 1, 6, "has no closing quote"},
		{"{\"a\":\"\n\"}", 1, 7, "must be escaped"},
		{`{"a":"\x"}`, 1, 7, "unknown escape"},
		{`{"a":"\u12"}`, 1, 7, "expected four hex digits"},
		{`{"a":"\ud800"}`, 1, 7, "surrogate"},
		{"{\"a\":\"\xff\"}", 1, 7, "not valid UTF-8"},
		{"{\"a\":" + strings.Repeat("[", 100), 1, 70, "nested more than 64 levels"},
		{"// c\n{}", 1, 1, "expected a JSON value, found '/'"},
	} {
		_, err := Parse([]byte(tt.text))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%q: error %v, want a syntax error", tt.text, err)
			continue
		}
		if syntax.Line != tt.line || syntax.Column != tt.column || !strings.Contains(syntax.Problem, tt.problem) {
			t.Errorf("%q: %v, want line %d, column %d: %s", tt.text, err, tt.line, tt.column, tt.problem)
		}
	}
}

func TestStringsAreWrittenAsJavaScriptDoes(t *testing.T) {
	const in = `"\u0000\u001f\b\t\n\f\r\"\\\/<>&ü\u2028😀\ud83d\ude00\u007f"`
	v, err := parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	want := "\"\\u0000\\u001f\\b\\t\\n\\f\\r\\\"\\\\/<>&ü\u2028😀😀\u007f\""
	if got := string(format(v)); got != want {
		t.Errorf("written %s, want %s", got, want)
	}
}

func TestOverride(t *testing.T) {
	c, err := Parse(golden(t))
	if err != nil {
		t.Fatal(err)
	}
	c2, err := c.Override([]byte(`{"contract":{"bin_path":"/usr/bin/node","bin_args":"index.js",
		"consensus":{"roundtime":2000,"fallback":{"execute":true}}},"mesh":{"known_peers":["a:1"]},"own":{"x":1.50}}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Contract.BinPath != BinPathPlaceholder || c.Contract.Consensus.Roundtime != time.Second {
		t.Error("the original was changed")
	}
	if c2.Contract.BinPath != "/usr/bin/node" || c2.Contract.Consensus.Roundtime != 2*time.Second ||
		c2.Contract.Consensus.Threshold != 66 || !slices.Equal(c2.Mesh.KnownPeers, []string{"a:1"}) {
		t.Errorf("override was not laid over: %s", c2.Text())
	}
	if !strings.Contains(string(c2.Text()), `"x": 1.50`) || !strings.Contains(string(c2.Contract.Patch.Text()), "fallback") {
		t.Errorf("unknown fields of the override are lost: %s", c2.Text())
	}
	for _, bad := range []string{`[]`, `{"contract":{"consensus":{"roundtime":0}}}`, `{"contract":null}`, `{"user":{"port":"x"}}`} {
		if _, err := c.Override([]byte(bad)); err == nil {
			t.Errorf("override %s was accepted", bad)
		}
	}
}

func TestParsePeer(t *testing.T) {
	for in, want := range map[string]string{"a:1": "a", "[::1]:80": "::1", "node-1.example.org:22861": "node-1.example.org"} {
		if host, _, err := ParsePeer(in); err != nil || host != want {
			t.Errorf("%s: %q, %v", in, host, err)
		}
	}
	for _, in := range []string{"", "a", ":1", "a:", "a:x", "a:65536", "::1:80", "a b:1", "a:+1"} {
		if _, _, err := ParsePeer(in); err == nil {
			t.Errorf("%q was accepted", in)
		}
	}
}

// Whatever is accepted is written so that it reads back the same.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/new.cfg", "testdata/full.cfg"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"a":[1e5,-0.5,"\ud83d\ude00",{}],"b":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if v, err := parse(text); err == nil {
			out := format(v)
			again, err := parse(out)
			if err != nil {
				t.Fatalf("%q was written as %q, which does not parse: %v", text, out, err)
			}
			if string(format(again)) != string(out) {
				t.Fatalf("%q changes when it is written twice", text)
			}
		}
		c, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(c.Text())
		if err != nil {
			t.Fatalf("an accepted file is rejected after a rewrite: %v", err)
		}
		if string(again.Text()) != string(c.Text()) {
			t.Fatal("a file changes when it is rewritten twice")
		}
	})
}
