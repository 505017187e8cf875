package main

import (
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	in := `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise of a passing test\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: no npm here\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestC/sub","Output":"    c_test.go:9: it broke\n"}
{"Action":"fail","Package":"p","Test":"TestC/sub"}
{"Action":"fail","Package":"p","Test":"TestC"}
{"Action":"fail","Package":"p","Elapsed":1}
{"Action":"build-output","ImportPath":"q","Output":"q.go:1: syntax error\n"}
{"Action":"build-fail","ImportPath":"q"}
{"Action":"fail","Package":"q"}
not json
{"Action":"pass","Package":"r","Elapsed":2}
`
	var out strings.Builder
	c, err := read(strings.NewReader(in), &out)
	if err != nil {
		t.Fatal(err)
	}
	if want := (count{passed: 1, failed: 3, skipped: 1}); c != want {
		t.Errorf("counted %+v, want %+v", c, want)
	}
	if c.String() != "1 passed, 3 failed, 1 skipped" {
		t.Errorf("summary %q", c)
	}
	for _, want := range []string{"skip  p TestB: no npm here\n", "it broke", "q.go:1: syntax error", "not json", "ok    r (2.0s)", "FAIL  q"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "noise") {
		t.Error("the output shows what a passing test said")
	}
}
