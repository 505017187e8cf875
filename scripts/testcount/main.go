// Command testcount reads the output of "go test -json" and prints what a
// person wants to see of it: a line per package, everything that a failed test
// said, the reason of every skip, and how many tests passed, failed and were
// skipped. It exits with 1 when anything failed. `make test` and CI use it.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is a line of go test -json, see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// count is the result of a whole run.
type count struct {
	passed, failed, skipped int
}

func (c count) String() string {
	s := fmt.Sprintf("%d passed, %d failed", c.passed, c.failed)
	if c.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", c.skipped)
	}
	return s
}

func main() {
	summary := flag.String("summary", "", "file to write the counts to")
	flag.Parse()
	c, err := read(os.Stdin, os.Stdout)
	if err == nil && *summary != "" {
		err = os.WriteFile(*summary, []byte(c.String()+"\n"), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testcount:", err)
		os.Exit(1)
	}
	fmt.Printf("tests: %d, of them failed: %d, skipped: %d\n", c.passed+c.failed+c.skipped, c.failed, c.skipped)
	if c.failed > 0 || c.passed == 0 {
		os.Exit(1)
	}
}

// read counts tests and subtests. A package that fails without a failed test,
// because it does not build or ends early, counts as one failed test.
func read(in io.Reader, out io.Writer) (count, error) {
	var c count
	said := map[string]*strings.Builder{} // output by package and test
	failedIn := map[string]bool{}         // packages with a failed test
	text := func(e event) *strings.Builder {
		name := e.Package + e.ImportPath + "\x00" + e.Test
		if said[name] == nil {
			said[name] = &strings.Builder{}
		}
		return said[name]
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(out, lines.Text())
			continue
		}
		switch e.Action {
		case "output":
			text(e).WriteString(e.Output)
			continue
		case "build-output":
			fmt.Fprint(out, e.Output)
			continue
		case "pass", "fail", "skip":
		default:
			continue
		}
		if e.Test == "" {
			switch {
			case e.Action == "fail":
				if !failedIn[e.Package] {
					c.failed++
					fmt.Fprint(out, text(e))
				}
				fmt.Fprintf(out, "FAIL  %s (%.1fs)\n", e.Package, e.Elapsed)
			case e.Action == "pass":
				fmt.Fprintf(out, "ok    %s (%.1fs)\n", e.Package, e.Elapsed)
			}
			continue
		}
		switch e.Action {
		case "pass":
			c.passed++
		case "skip":
			c.skipped++
			fmt.Fprintf(out, "skip  %s %s: %s\n", e.Package, e.Test, reason(text(e).String()))
		case "fail":
			c.failed++
			failedIn[e.Package] = true
			fmt.Fprint(out, text(e))
		}
		delete(said, e.Package+"\x00"+e.Test)
	}
	return c, lines.Err()
}

// reason finds in the output of a skipped test why it was skipped: the line
// that t.Skip wrote, without its place in the source.
func reason(output string) string {
	var why string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		why = line
	}
	if file, rest, ok := strings.Cut(why, ".go:"); ok && !strings.Contains(file, " ") {
		if _, rest, ok = strings.Cut(rest, ": "); ok {
			why = rest
		}
	}
	return why
}
