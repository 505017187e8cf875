package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	alice  = "ed00000000000000000000000000000000000000000000000000000000000000aa"
	bob    = "ed00000000000000000000000000000000000000000000000000000000000000bb"
	nodeID = "ed11111111111111111111111111111111111111111111111111111111111111cc"
)

// socketpair returns two ends, of which the first is the node's.
func socketpair(t *testing.T, kind int) (node *os.File, contract int) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind, 0)
	if err != nil {
		t.Fatal(err)
	}
	node = os.NewFile(uintptr(fds[0]), "node")
	t.Cleanup(func() { node.Close() })
	return node, fds[1]
}

func TestLoad(t *testing.T) {
	inputs, err := os.Create(filepath.Join(t.TempDir(), "inputs"))
	if err != nil {
		t.Fatal(err)
	}
	defer inputs.Close()
	inputs.WriteAt([]byte("first"), 0)
	inputs.WriteAt([]byte("second"), 4096)
	control, controlFD := socketpair(t, syscall.SOCK_SEQPACKET)
	aliceOut, aliceFD := socketpair(t, syscall.SOCK_STREAM)
	text := fmt.Sprintf(`{"hp_version":"0.6.4","contract_id":"id","public_key":"%s","private_key":"secret","timestamp":1700000000123,
		"readonly":false,"lcl_seq_no":7,"lcl_hash":"00ff","control_fd":%d,"user_in_fd":%d,
		"users":{"%s":[99],"%s":[%d,[0,5],[4096,6],[0,0]]},"unl":{"%s":{"active_on":5}},"something":[1,{"new":2}]}`,
		nodeID, controlFD, inputs.Fd(), bob, alice, aliceFD, nodeID)
	ctx, err := Load(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Mode != Consensus || ctx.LedgerSeq != 7 || ctx.LedgerHash != "00ff" || ctx.ContractID != "id" || ctx.PrivateKey != "secret" {
		t.Errorf("context %+v", ctx)
	}
	if got := ctx.Time(); !got.Equal(time.Unix(1700000000, 123e6)) {
		t.Errorf("time %v", got)
	}
	if len(ctx.Users) != 2 || ctx.Users[0].PublicKey != bob || len(ctx.Users[0].Inputs) != 0 {
		t.Fatalf("users are not in the order of the text: %+v", ctx.Users)
	}
	u := ctx.User(alice)
	var got []string
	for _, in := range u.Inputs {
		got = append(got, string(in))
	}
	if !reflect.DeepEqual(got, []string{"first", "second", ""}) {
		t.Errorf("inputs %q", got)
	}
	if ctx.User("nobody") != nil {
		t.Error("found a user who is not there")
	}
	if m, ok := ctx.UNL.Find(nodeID); !ok || m.ActiveOn != 5 {
		t.Errorf("member %+v, %v", m, ok)
	}

	for _, message := range []string{"", "hello", strings.Repeat("x", 5000)} {
		if err := u.Send([]byte(message)); err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, 4+len(message))
		if _, err := io.ReadFull(aliceOut, frame); err != nil {
			t.Fatal(err)
		}
		want := append([]byte{0, 0, byte(len(message) >> 8), byte(len(message))}, message...)
		if !bytes.Equal(frame, want) {
			t.Errorf("frame %.20q, want %.20q", frame, want)
		}
	}
	if err := u.SendJSON(map[string]int{"a": 1}); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 11)
	if _, err := io.ReadFull(aliceOut, frame); err != nil || string(frame) != "\x00\x00\x00\x07{\"a\":1}" {
		t.Errorf("frame %q, %v", frame, err)
	}

	packet := func() string {
		b := make([]byte, 1000)
		n, err := control.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if err := ctx.UpdatePeers([]string{"a:1"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := packet(); got != `{"add":["a:1"],"remove":[],"type":"peer_changeset"}` {
		t.Errorf("peer changeset %s", got)
	}
	if err := ctx.ReplacePeers(nil); err != nil {
		t.Fatal(err)
	}
	if got := packet(); got != `{"add":[],"remove":"*","type":"peer_changeset"}` {
		t.Errorf("peer changeset %s", got)
	}
	if err := ctx.UNL.Send([]byte("x")); !errors.Is(err, ErrReadOnly) {
		t.Errorf("NPL without a channel: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, text := range []string{
		``, `{`, `[]`, `{"users":{"a":[]}}`, `{"users":{"a":["x"]}}`, `{"users":[1]}`, `{"users":{"a":[5,[1]],"b":`,
		`{"user_in_fd":-1,"users":{"a":[5,[0,1]]}}`, `{"unl":{"a":3}}`, `{"users":{"a":[5,[-1,1]]}}`,
	} {
		if _, err := Load(strings.NewReader(text)); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

func TestLoadReadRequest(t *testing.T) {
	ctx, err := Load(strings.NewReader(`{"readonly":true,"timestamp":0,"users":{},"unl":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Mode != ReadRequest || !ctx.ReadOnly || !ctx.Time().IsZero() {
		t.Errorf("context %+v", ctx)
	}
}

func TestNPL(t *testing.T) {
	node, fd := socketpair(t, syscall.SOCK_SEQPACKET)
	unl, err := loadUNL(nil, &fd)
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, MaxMessage)
	if err := unl.Send(big); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, MaxMessage+1)
	if n, err := node.Read(buf); err != nil || n != MaxMessage {
		t.Errorf("%d, %v", n, err)
	}
	if unl.Send(nil) == nil || unl.Send(append(big, 1)) == nil {
		t.Error("a message of a forbidden size was accepted")
	}
	node.Write([]byte(nodeID))
	node.Write([]byte("hello"))
	node.Write([]byte(nodeID)) // a message of which only the sender has come
	m, err := unl.Receive(t.Context())
	if err != nil || m.From != nodeID || string(m.Data) != "hello" {
		t.Fatalf("%+v, %v", m, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := unl.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	node.Write([]byte("later"))
	if m, err = unl.Receive(t.Context()); err != nil || m.From != nodeID || string(m.Data) != "later" {
		t.Fatalf("%+v, %v", m, err)
	}
	node.Close()
	if _, err := unl.Receive(t.Context()); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "patch.cfg")
	const text = `{
    "version": "1.0",
    "unl": [
        "` + nodeID + `"
    ],
    "bin_path": "/usr/bin/node",
    "bin_args": "index.js",
    "environment": {
        "B": "<&>",
        "A": "2"
    },
    "max_input_ledger_offset": 10,
    "consensus": {
        "mode": "private",
        "roundtime": 1000,
        "stage_slice": 25,
        "threshold": 80,
        "fallback": {
            "execute": false
        }
    },
    "npl": {
        "mode": "private"
    },
    "round_limits": {
        "user_input_bytes": 0,
        "user_output_bytes": 0,
        "npl_output_bytes": 0,
        "proc_cpu_seconds": 0,
        "proc_mem_bytes": 0,
        "proc_ofd_count": 0,
        "exec_timeout": 300000
    },
    "mine": [],
    "other": {}
}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if err := writeConfig(path, cfg); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != text {
		t.Errorf("an unchanged configuration became\n%s", got)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode became %v", info.Mode())
	}
	cfg.Consensus.RoundTime = 2000
	cfg.UNL = append(cfg.UNL, strings.ToUpper(alice))
	delete(cfg.Environment, "B")
	cfg.Environment["C"] = "3"
	if err := writeConfig(path, cfg); err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(`"roundtime": 1000`, `"roundtime": 2000`,
		nodeID+"\"\n", nodeID+"\",\n        \""+strings.ToUpper(alice)+"\"\n",
		"\"B\": \"<&>\",\n        ", "", `"A": "2"`, "\"A\": \"2\",\n        \"C\": \"3\"").Replace(text)
	if got := read(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	before := read()
	for name, change := range map[string]func(*Config){
		"version":     func(c *Config) { c.Version = "" },
		"unl":         func(c *Config) { c.UNL = nil },
		"public key":  func(c *Config) { c.UNL = []string{"ed00"} },
		"bin_path":    func(c *Config) { c.BinPath = "" },
		"roundtime":   func(c *Config) { c.Consensus.RoundTime = 0 },
		"stage_slice": func(c *Config) { c.Consensus.StageSlice = 34 },
		"threshold":   func(c *Config) { c.Consensus.Threshold = 101 },
		"npl.mode":    func(c *Config) { c.NPL.Mode = "secret" },
	} {
		bad, err := readConfig(path)
		if err != nil {
			t.Fatal(err)
		}
		change(bad)
		if err := writeConfig(path, bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if read() != before {
		t.Error("a refused configuration was written")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"users":{"a":[-1,[0,1]]},"unl":{"a":{"active_on":1}},"user_in_fd":-1}`))
	f.Add([]byte(`{"mode":"read_req","users":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if strings.Contains(string(b), "_fd") { // descriptors of the test itself are not to be played with
			return
		}
		Load(strings.NewReader(string(b)))
	})
}
