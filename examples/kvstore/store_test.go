package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := newStore(dir, false)
	for _, c := range []struct{ in, want string }{
		{"get color", "error: not found"},
		{"set color dark blue", "ok"},
		{"get color", "dark blue"},
		{"set ../../etc/passwd x", "ok"},
		{"set c\x00\xff v\n", "ok"},
		{"keys", "../../etc/passwd\nc\x00\xff\ncolor"},
		{"keys co", "color"},
		{"FLUSH", ""},
		{"keys", "../../etc/passwd\nc\x00\xff\ncolor"},
		{"get c\x00\xff", "v"},
		{"set empty ", "ok"},
		{"FLUSH", ""},
		{"get empty", ""},
		{"del empty", "ok"},
		{"del empty", "error: not found"},
		{"keys e", ""},
		{"FLUSH", ""},
		{"get empty", "error: not found"},
		{"set color", "error: usage: set <key> <value>"},
		{"get", "error: a key has 1 to 80 bytes"},
		{"get " + strings.Repeat("k", 81), "error: a key has 1 to 80 bytes"},
		{"drop tables", `error: unknown command "drop", there are set, get, del and keys`},
		{`{"op":"get","key":"color","id":[1,"a"]}`, `{"id":[1,"a"],"ok":true,"value":"dark blue"}`},
		{`{"op":"set","key":"color","value":""}`, `{"ok":true}`},
		{`{"op":"get","key":"color"}`, `{"ok":true,"value":""}`},
		{`{"op":"set","key":"color"}`, `{"ok":false,"error":"set needs a value"}`},
		{`{"op":"keys","key":"nothing"}`, `{"ok":true,"keys":[]}`},
	} {
		if c.in == "FLUSH" {
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got := string(handle(s, []byte(c.in))); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
	if got := string(handle(s, []byte("{"))); !strings.Contains(got, "bad JSON") || !json.Valid([]byte(got)) {
		t.Errorf("bad JSON: %s", got)
	}
	// Nothing lies outside of the folder.
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	w := newStore(dir, false)
	if got := handle(w, []byte("set a b")); string(got) != "ok" {
		t.Fatalf("%s", got)
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	s := newStore(dir, true)
	for in, want := range map[string]string{
		"get a": "b", "keys": "a",
		"set a c": "error: a read request cannot change the store",
		"del a":   "error: a read request cannot change the store",
	} {
		if got := string(handle(s, []byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
