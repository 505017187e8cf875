package sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestScripts plays every scenario of testdata.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, f := Play(string(text)); f != nil {
				t.Errorf("%s: %v\n%s", file, f, f.Tell(*lines))
			}
		})
	}
}
