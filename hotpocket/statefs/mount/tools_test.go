package mount

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"evernode/internal/npmtest"
)

// in prepares a program that runs in dir. It goes there by itself: a thread of
// this process must not wait for an answer that this process gives while it
// starts another one, because no goroutine can be stopped then, and the garbage
// collector may want just that.
func in(dir, name string, args ...string) *exec.Cmd {
	return exec.Command("env", append([]string{"-C", dir, name}, args...)...)
}

// program runs a program in dir and returns its output.
func program(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := in(dir, name, args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "HOME="+t.TempDir())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", name, args, err, out, errs.Bytes())
	}
	return string(out)
}

func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
}

// TestSQLite fills databases with both kinds of journal, with several processes
// at once, kills one in the middle of a transaction, and compares with what the
// same statements give on the disk.
func TestSQLite(t *testing.T) {
	needProgram(t, "sqlite3")
	fill := func(t *testing.T, db, journal string) string {
		run := func(sql string) string {
			return program(t, filepath.Dir(db), "sqlite3", "-cmd", ".timeout 20000", db, sql)
		}
		if got := run("pragma journal_mode=" + journal); got != journal+"\n" {
			t.Fatalf("the journal is %q, want %s", got, journal)
		}
		run(`create table t(k integer primary key, v text, n int); create index tn on t(n);`)
		for i := range 10 {
			run(fmt.Sprintf(`pragma synchronous=full; with recursive c(x) as (select 1 union all select x+1 from c where x<500)
				insert into t(v,n) select hex(zeroblob(x%%40))||x, x*%d from c;
				update t set v=v||'u' where n%%7=%d; delete from t where n%%11=%d;`, i+1, i%7, i%11))
		}
		// Writers beside readers.
		var others []*exec.Cmd
		for i := range 4 {
			cmd := exec.Command("sqlite3", "-cmd", ".timeout 20000", db, fmt.Sprintf("begin immediate; insert into t(k,v,n) values(%d,'other',-%d); commit; select count(*) from t;", 1_000_000+i, i+1))
			must(t, cmd.Start())
			others = append(others, cmd)
		}
		for _, c := range others {
			if err := c.Wait(); err != nil {
				t.Errorf("a writer beside others: %v", err)
			}
		}
		// Killed in the middle of a transaction, with its pages written.
		cmd := exec.Command("sqlite3", db)
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		fmt.Fprintln(in, "pragma cache_size=1; begin; update t set v='half'; select 'written';")
		buf := make([]byte, 8)
		_, err = out.Read(buf)
		must(t, err)
		must(t, cmd.Process.Kill())
		cmd.Wait()
		if got := run("pragma integrity_check"); got != "ok\n" {
			t.Errorf("integrity: %s", got)
		}
		return run("select * from t order by k")
	}
	each(t, func(t *testing.T, dir string) {
		for _, journal := range []string{"wal", "delete", "truncate", "persist"} {
			t.Run(journal, func(t *testing.T) {
				got := fill(t, filepath.Join(dir, journal+".db"), journal)
				want := fill(t, filepath.Join(t.TempDir(), "x.db"), journal)
				if got != want {
					t.Errorf("%d bytes of rows here, %d on the disk, and they differ", len(got), len(want))
				}
			})
		}
	})
}

func TestGit(t *testing.T) {
	needProgram(t, "git")
	each(t, func(t *testing.T, dir string) {
		git := func(where string, args ...string) string {
			t.Helper()
			return program(t, filepath.Join(dir, where), "git", append([]string{"-c", "user.name=n", "-c", "user.email=e@x", "-c", "core.fsync=all"}, args...)...)
		}
		git("", "init", "-q", "repo")
		for i := range 200 {
			p := fmt.Sprintf("%s/repo/d%d/f%d", dir, i%10, i)
			must(t, os.MkdirAll(filepath.Dir(p), 0o755))
			must(t, os.WriteFile(p, bytes.Repeat(fmt.Append(nil, i), i*10), 0o644))
		}
		must(t, os.Symlink("d1/f1", dir+"/repo/link"))
		git("repo", "add", ".")
		git("repo", "commit", "-q", "-m", "first")
		for i := range 5 {
			must(t, os.WriteFile(dir+"/repo/d1/f1", fmt.Append(nil, "change ", i), 0o755))
			git("repo", "commit", "-q", "-a", "-m", fmt.Sprint("change ", i))
		}
		git("", "clone", "-q", "--local", "repo", "copy")
		git("repo", "gc", "-q", "--prune=now")
		git("repo", "fsck", "--strict")
		git("copy", "fsck", "--strict")
		for _, where := range []string{"repo", "copy"} {
			if out := git(where, "status", "--porcelain"); out != "" {
				t.Errorf("%s is not clean: %s", where, out)
			}
			if out := git(where, "log", "--oneline"); strings.Count(out, "\n") != 6 {
				t.Errorf("%s has the commits\n%s", where, out)
			}
		}
		git("copy", "checkout", "-q", "HEAD~3")
		git("copy", "checkout", "-q", "-b", "other")
		if b, err := os.ReadFile(dir + "/copy/d1/f1"); string(b) != "change 1" {
			t.Errorf("checked out %q, %v", b, err)
		}
	})
}

func TestNpmInstall(t *testing.T) {
	npmtest.Install(t, npmtest.Contract) // skips without npm or a registry
	each(t, func(t *testing.T, dir string) {
		must(t, os.WriteFile(dir+"/package.json", []byte(`{"name":"contract","version":"1.0.0"}`), 0o644))
		cmd := in(dir, "npm", "install", "--prefer-offline", "--no-audit", "--no-fund", npmtest.Contract)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out := program(t, dir, "node", "-e", `const HP = require("hotpocket-nodejs-contract"); console.log(typeof HP.Contract)`)
		if out != "function\n" {
			t.Errorf("the package gives %q", out)
		}
		cmd = in(dir, "npm", "ls", "--all")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("npm ls: %v\n%s", err, out)
		}
	})
}
