package nodelog

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"evernode/hotpocket/config"
)

func TestLines(t *testing.T) {
	var console bytes.Buffer
	path := filepath.Join(t.TempDir(), "hp.log")
	log, closer, err := Open(config.Log{Level: "inf", MaxMBytesPerFile: 1, MaxFileCount: 2, Loggers: []string{"console", "file"}}, path, &console)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("not this")
	log.With("peer", "ed 01").WithGroup("g").Warn("two\nlines \x1b[2J \"q\"", "n", 7, slog.Group("in", "empty", ""))
	log.Error("bad", "err", os.ErrNotExist)
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(file) != console.String() {
		t.Errorf("file %q, console %q", file, &console)
	}
	want := `^\d{8} \d\d:\d\d:\d\d\.\d{3} \[wrn\]\[hpc\] two\\nlines \\x1b\[2J "q" peer="ed 01" g\.n=7 g\.in\.empty=""
\d{8} \d\d:\d\d:\d\d\.\d{3} \[err\]\[hpc\] bad err="file does not exist"
$`
	if !regexp.MustCompile(want).MatchString(console.String()) {
		t.Errorf("logged\n%s\nwant\n%s", &console, want)
	}
}

func TestRolling(t *testing.T) {
	dir := t.TempDir()
	log, closer, err := Open(config.Log{Level: "inf", MaxMBytesPerFile: 1, MaxFileCount: 3, Loggers: []string{"file"}},
		filepath.Join(dir, "hp.log"), nil)
	if err != nil {
		t.Fatal(err)
	}
	filler := strings.Repeat("x", 400<<10)
	for i := range 9 {
		log.Info(filler, "i", i)
	}
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 1<<20 {
			t.Errorf("%s has %d bytes", e.Name(), info.Size())
		}
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "hp.log hp_1.log hp_2.log" {
		t.Errorf("files %s", got)
	}
	newest, _ := os.ReadFile(filepath.Join(dir, "hp.log"))
	oldest, _ := os.ReadFile(filepath.Join(dir, "hp_2.log"))
	if !bytes.Contains(newest, []byte("i=8")) || bytes.Contains(oldest, []byte("i=8")) || !bytes.Contains(oldest, []byte("i=4")) {
		t.Error("the files are not in order")
	}
}

func TestFileThatCannotBeOpened(t *testing.T) {
	_, _, err := Open(config.Log{Loggers: []string{"file"}}, filepath.Join(t.TempDir(), "no", "hp.log"), nil)
	if err == nil {
		t.Error("no error")
	}
}
