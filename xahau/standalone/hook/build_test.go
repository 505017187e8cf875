package hook

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// toolchain is what the test hooks in the repository were built with.
const toolchain = "Debian clang version 14.0.6, Debian LLD 14.0.6, wasm-opt version 108"

// The test hooks are what their sources give: to the byte with the same tools, and
// with others at least something that may be installed.
func TestHooksAreBuiltFromTheirSources(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for many seconds")
	}
	t.Parallel()
	var versions []string
	for _, tool := range []string{"clang", "wasm-ld", "wasm-opt"} {
		out, err := exec.Command(tool, "--version").Output()
		if err != nil {
			t.Skipf("%s is not installed", tool)
		}
		first, _, _ := strings.Cut(string(out), "\n")
		versions = append(versions, first)
	}
	same := strings.Join(versions, ", ") == toolchain
	if !same {
		t.Logf("other tools: %s", strings.Join(versions, ", "))
	}
	dir := t.TempDir()
	if out, err := exec.Command("testdata/hooks/build.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	sources, err := filepath.Glob("testdata/hooks/*.c")
	if err != nil || len(sources) < 74 {
		t.Fatalf("%d sources, %v", len(sources), err)
	}
	for _, source := range sources {
		name := strings.TrimSuffix(filepath.Base(source), ".c")
		built, err := os.ReadFile(filepath.Join(dir, name+".wasm"))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := Check(built); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if same && !bytes.Equal(built, wasm(t, name)) {
			t.Errorf("%s.wasm is not what %s.c gives; run testdata/hooks/build.sh testdata/hooks", name, name)
		}
	}
}
