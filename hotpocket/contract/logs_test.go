package contract_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/contract"
)

// logging runs a bench whose runs are logged, with at most so many bytes in so
// many files. The copies go to the returned file.
func logging(t *testing.T, maxBytes int64, maxFiles int) (b *bench, dir string, console *os.File) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "log", "contract")
	logs, err := contract.OpenLogs(dir, maxBytes, maxFiles)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(logs.Close)
	console, err = os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { console.Close() })
	return newBench(t, func(o *contract.Options) { o.Logs, o.Stdout, o.Stderr = logs, console, console }), dir, console
}

func content(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func shell(script string) contract.Program {
	// Arguments cannot hold spaces; tabs and semicolons do.
	return contract.Program{BinPath: "/bin/sh", BinArgs: "-c " + strings.ReplaceAll(script, " ", "\t"), Limits: contract.Limits{ExecTimeout: 20 * time.Second}}
}

func TestLogs(t *testing.T) {
	b, dir, console := logging(t, 1<<20, 3)
	run := consensusRun(t, []string{"x"})
	res := b.execute(t, shell("echo out; echo err >&2; exit 5"), run)
	if !res.Normal() || res.Exit.Code != 5 {
		t.Errorf("logging hides the end: %+v", res)
	}
	b.execute(t, shell("printf more"), run)
	head := fmt.Sprintf("Execution lcl 7-%s\n", run.LedgerHash)
	if got := content(t, dir, "rw.stdout.log"); got != head+"out\n"+head+"more" {
		t.Errorf("stdout log %q", got)
	}
	if got := content(t, dir, "rw.stderr.log"); got != head+"err\n"+head {
		t.Errorf("stderr log %q", got)
	}
	if got := content(t, console.Name()); got != "out\nerr\nmore" && got != "err\nout\nmore" {
		t.Errorf("console %q", got)
	}
	// Read requests are not logged.
	run.Mode = contract.ReadRequest
	b.execute(t, shell("echo read"), run)
	if got := content(t, dir, "rw.stdout.log"); strings.Contains(got, "read") {
		t.Errorf("stdout log %q", got)
	}
	if got := content(t, console.Name()); !strings.HasSuffix(got, "read\n") {
		t.Errorf("console %q", got)
	}
}

// However much contracts print, the files stay within their bounds.
func TestLogRotation(t *testing.T) {
	const maxBytes, maxFiles = 300 << 10, 3
	b, dir, _ := logging(t, maxBytes, maxFiles)
	run := consensusRun(t, []string{"x"})
	b.execute(t, hostile(t, "print 2"), run)
	b.execute(t, shell("echo end"), run)
	sizes := func() map[string]int64 {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]int64{}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() > maxBytes {
				t.Errorf("%s has %d bytes", e.Name(), info.Size())
			}
			out[e.Name()] = info.Size()
		}
		return out
	}
	got := sizes()
	if len(got) != maxFiles+1 || got["rw_1.stdout.log"] != maxBytes || got["rw_2.stdout.log"] != maxBytes {
		t.Errorf("files %v", got)
	}
	if tail := content(t, dir, "rw.stdout.log"); !strings.HasSuffix(tail, "\nend\n") {
		t.Errorf("the latest output is not in the newest file: %.100q", tail)
	}
	// Fewer files allowed at the next start.
	logs, err := contract.OpenLogs(dir, maxBytes, 2)
	if err != nil {
		t.Fatal(err)
	}
	logs.Close()
	if got := sizes(); len(got) != 3 || got["rw_2.stdout.log"] != 0 {
		t.Errorf("files after a restart %v", got)
	}
	for _, bad := range []func() (*contract.Logs, error){
		func() (*contract.Logs, error) { return contract.OpenLogs(dir, 0, 1) },
		func() (*contract.Logs, error) { return contract.OpenLogs(dir, 1, 0) },
		func() (*contract.Logs, error) { return contract.OpenLogs(filepath.Join(dir, "rw.stdout.log"), 1, 1) },
	} {
		if _, err := bad(); err == nil {
			t.Error("bad settings were accepted")
		}
	}
}

// Nobody reads the node's own output: the contract's reaches its log all the same
// and does not wait.
func TestLogConsoleBlocked(t *testing.T) {
	dir := t.TempDir()
	logs, err := contract.OpenLogs(dir, 100<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	b := newBench(t, func(o *contract.Options) { o.Logs, o.Stdout, o.Stderr = logs, w, w })
	run := consensusRun(t, []string{"x"})
	if res := b.execute(t, hostile(t, "print 5"), run); !res.Normal() {
		t.Fatalf("%+v", res)
	}
	want := fmt.Sprintf("Execution lcl 7-%s\n", run.LedgerHash)
	if got := content(t, dir, "rw.stdout.log"); len(got) != len(want)+5<<20 {
		t.Errorf("log has %d bytes", len(got))
	}
	b.logged(t, "missing_bytes")
}

// The disk is full, as far as the logs are concerned.
func TestLogCannotBeWritten(t *testing.T) {
	b, dir, console := logging(t, 1<<20, 2)
	if err := os.Symlink("/dev/full", filepath.Join(dir, "rw.stdout.log")); err != nil {
		t.Skip(err)
	}
	run := consensusRun(t, []string{"x"})
	if res := b.execute(t, shell("echo out"), run); !res.Normal() {
		t.Errorf("%+v", res)
	}
	if got := content(t, console.Name()); got != "out\n" {
		t.Errorf("console %q", got)
	}
	b.logged(t, "no space left")
}

func TestPostExec(t *testing.T) {
	t.Setenv("NODE_SECRET", "of the node")
	for _, c := range []struct {
		name, script string
		mode         os.FileMode
		failed, kept bool
		code         int
	}{
		{"success", "#!/bin/sh\nexit 0\n", 0o755, false, false, 0},
		{"kept", "#!/bin/sh\nexit 3\n", 0o755, false, true, 3},
		{"kept too", "#!/bin/sh\nexit 125\n", 0o755, false, true, 125},
		{"failure", "#!/bin/sh\nexit 1\n", 0o755, true, true, 1},
		{"another failure", "#!/bin/sh\nexit 126\n", 0o755, true, true, 126},
		{"signal", "#!/bin/sh\nkill -INT $$\n", 0o755, true, true, -1},
		{"not executable", "#!/bin/sh\nexit 0\n", 0o644, true, true, 0},
		{"removes itself", "#!/bin/sh\nrm post_exec.sh\n", 0o755, false, false, 0},
		{"hangs", "#!/bin/sh\nsleep 100 & wait\n", 0o755, true, true, -1},
	} {
		for _, logged := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/logged=%v", c.name, logged), func(t *testing.T) {
				b := newBench(t)
				if logged {
					b, _, _ = logging(t, 1<<20, 2)
				}
				run := consensusRun(t, []string{"x"})
				path := filepath.Join(run.Dir, "post_exec.sh")
				if err := os.WriteFile(path, []byte(c.script), c.mode); err != nil {
					t.Fatal(err)
				}
				prog := contract.Program{BinPath: compile(t, echoSource)}
				prog.Limits.PostExecTimeout = 300 * time.Millisecond
				if c.name != "hangs" {
					prog.Limits.PostExecTimeout = 20 * time.Second
				}
				res := b.execute(t, prog, run)
				p := res.PostExec
				if p == nil {
					t.Fatal("the script was not run")
				}
				if p.Failed() != c.failed || p.Kept != c.kept || p.Exit.Code != c.code || p.TimedOut != (c.name == "hangs") {
					t.Errorf("%+v", p)
				}
				if exists(t, path) != c.kept {
					t.Error("the file is not as it should be")
				}
				if got := firstUser(run, res); !reflect.DeepEqual(got, []string{"x"}) || res.Exit.Code != 0 {
					t.Errorf("outputs %q, %+v", got, res.Exit)
				}
			})
		}
	}
}

func TestPostExecSurroundings(t *testing.T) {
	t.Setenv("NODE_SECRET", "of the node")
	b, dir, _ := logging(t, 1<<20, 2)
	run := consensusRun(t, []string{"x"})
	script := "#!/bin/sh\necho \"$0 $# $1 $2 in $PWD secret=$NODE_SECRET mine=$MINE home=$HOME stdin=$(cat)\" >&2\nls / >/dev/null && echo found\n"
	if err := os.WriteFile(filepath.Join(run.Dir, "post_exec.sh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	prog := contract.Program{BinPath: compile(t, echoSource), Environment: map[string]string{"MINE": "yes", "HOME": "/here"}}
	b.execute(t, prog, run)
	want := fmt.Sprintf("post_exec.sh 2 7 %s in %s secret= mine=yes home=/here stdin=\n", run.LedgerHash, run.Dir)
	if got := content(t, dir, "rw.stderr.log"); !strings.HasSuffix(got, want) {
		t.Errorf("log %q, want %q", got, want)
	}
	if got := content(t, dir, "rw.stdout.log"); !strings.HasSuffix(got, "\nfound\n") {
		t.Errorf("log %q", got)
	}
}

// The script runs after consensus runs that ended normally, and is a file.
func TestPostExecIsNotRun(t *testing.T) {
	b := newBench(t)
	run := consensusRun(t, []string{"x"})
	path := filepath.Join(run.Dir, "post_exec.sh")
	write := func() {
		t.Helper()
		if err := os.WriteFile(path, []byte("#!/bin/sh\ntouch ran\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, res contract.Result) {
		t.Helper()
		if res.PostExec != nil || exists(t, filepath.Join(run.Dir, "ran")) {
			t.Errorf("%s: the script was run", what)
		}
	}
	write()
	check("crash", b.execute(t, hostile(t, "crash"), run))
	prog := hostile(t, "hang")
	prog.Limits.ExecTimeout = 50 * time.Millisecond
	check("timeout", b.execute(t, prog, run))
	check("no program", b.execute(t, contract.Program{BinPath: "missing"}, run))
	read := run
	read.Mode = contract.ReadRequest
	check("read request", b.execute(t, contract.Program{BinPath: compile(t, echoSource)}, read))
	if err := os.Rename(path, path+".x"); err != nil {
		t.Fatal(err)
	}
	check("no script", b.execute(t, hostile(t, "exit 0"), run))
	if err := os.Symlink("post_exec.sh.x", path); err != nil {
		t.Fatal(err)
	}
	check("link", b.execute(t, hostile(t, "exit 0"), run))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write()
	// The forced end of the Node.js library is a normal one.
	if res := b.execute(t, hostile(t, "interrupt"), run); res.PostExec == nil || res.PostExec.Failed() {
		t.Errorf("after SIGINT: %+v", res.PostExec)
	}
}
