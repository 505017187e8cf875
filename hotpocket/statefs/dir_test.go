package statefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

var ctx = context.Background()

type tb interface {
	testing.TB
}

func openTest(t tb, dir string, change ...func(*Config)) *Dir {
	t.Helper()
	cfg := Config{Dir: dir, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	for _, c := range change {
		c(&cfg)
	}
	d, err := OpenDir(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

type testWriter struct{ t tb }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t tb, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

// snapshot describes a folder byte by byte, in a way of its own.
func snapshot(t tb, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if rel == "." {
			return nil
		}
		fmt.Fprintf(&b, "%q %v", rel, fi.Mode())
		switch {
		case fi.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %s", len(data), digest.Sum(data))
		case fi.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %q", target)
		}
		b.WriteByte('\n')
		return nil
	})
	must(t, err)
	return b.String()
}

func runOnce(t tb, d *Dir, seq uint64, fn func(dir string)) (Run, digest.Hash, digest.Hash) {
	t.Helper()
	r, err := d.Begin(ctx, seq)
	must(t, err)
	fn(r.Dir())
	root, patch, err := r.End(ctx)
	must(t, err)
	return r, root, patch
}

func commitRun(t tb, d *Dir, seq uint64, fn func(dir string)) Version {
	t.Helper()
	r, root, patch := runOnce(t, d, seq, fn)
	must(t, r.Commit(ctx))
	v := Version{seq, root, patch}
	if got := d.Agreed(); got != v {
		t.Fatalf("agreed is %v after the commit of %v", got, v)
	}
	return v
}

// scratchRoot computes the root of a folder from nothing.
func scratchRoot(t tb, dir string) digest.Hash {
	t.Helper()
	tmp := t.TempDir()
	fd, err := openDir(unix.AT_FDCWD, dir)
	must(t, err)
	defer unix.Close(fd)
	tfd, err := openDir(unix.AT_FDCWD, tmp)
	must(t, err)
	defer unix.Close(tfd)
	s := scanner{log: slog.New(slog.DiscardHandler), tmp: &tmpFolder{fd: tfd}}
	n, err := s.scan(ctx, fd, nil)
	must(t, err)
	return n.Hash
}

func TestFirstStartTakesSeed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "seed/state/contract.js"), "code")
	write(t, filepath.Join(dir, "seed/state/lib/x"), "x")
	write(t, filepath.Join(dir, "seed/patch.cfg"), "{}")
	write(t, filepath.Join(dir, "seed/node.key"), "secret")
	d := openTest(t, dir)
	v := d.Agreed()
	if v.Seq != 0 || v.Patch != HashPatch([]byte("{}")) || string(d.Patch()) != "{}" {
		t.Fatalf("agreed %v, patch %q", v, d.Patch())
	}
	if got := scratchRoot(t, filepath.Join(dir, "mnt/rw/state")); got != v.Root {
		t.Fatalf("root %s, want %s", v.Root, got)
	}
	view, err := d.View(ctx)
	must(t, err)
	defer view.Close()
	for path, want := range map[string]string{"contract.js": "code", "lib/x": "x", "../patch.cfg": "{}", "../node.key": "secret", "../../../mnt/rw/state/lib/x": "x"} {
		got, err := os.ReadFile(view.Dir() + "/" + path)
		if err != nil || string(got) != want {
			t.Errorf("%s in a view: %q, %v; want %q", path, got, err, want)
		}
	}
	if rest, _ := os.ReadDir(filepath.Join(dir, "seed")); len(rest) != 0 {
		t.Errorf("left in seed: %v", rest)
	}
}

func TestRunCommitRollback(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "seed/state/a"), "1")
	write(t, filepath.Join(dir, "seed/state/sub/b"), "2")
	must(t, os.Symlink("../a", filepath.Join(dir, "seed/state/sub/link")))
	d := openTest(t, dir)
	first := d.Agreed()
	before := snapshot(t, d.paths.state)

	r, root, patch := runOnce(t, d, 5, func(dir string) {
		write(t, dir+"/a", "changed")
		write(t, dir+"/new/deep/file", "n")
		must(t, os.Chmod(dir+"/sub", 0o700))
		must(t, os.Remove(dir+"/sub/link"))
		must(t, os.Symlink("elsewhere", dir+"/sub/link"))
		write(t, dir+"/../patch.cfg", "cfg")
		write(t, dir+"/../private", "p")
	})
	if root == first.Root || patch != HashPatch([]byte("cfg")) {
		t.Fatalf("root %s, patch %s", root.Short(), patch.Short())
	}
	if d.Agreed() != first {
		t.Fatal("End alone changed the agreed version")
	}
	if _, err := d.Begin(ctx, 6); !errors.Is(err, ErrBusy) {
		t.Fatalf("second run: %v", err)
	}
	must(t, r.Rollback(ctx))
	if got := snapshot(t, d.paths.state); got != before {
		t.Fatalf("after the rollback:\n%swant\n%s", got, before)
	}
	if _, err := os.Stat(d.paths.patch); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("patch.cfg after the rollback: %v", err)
	}
	if b, err := os.ReadFile(d.paths.rw + "/private"); err != nil || string(b) != "p" {
		t.Fatalf("private file after the rollback: %q, %v", b, err)
	}
	if err := r.Commit(ctx); !errors.Is(err, ErrFinished) {
		t.Fatalf("commit after rollback: %v", err)
	}

	v := commitRun(t, d, 7, func(dir string) { write(t, dir+"/a", "changed") })
	if v.Root != scratchRoot(t, d.paths.state) {
		t.Fatal("root is not that of the folder")
	}
	// Without End.
	r, err := d.Begin(ctx, 8)
	must(t, err)
	must(t, os.RemoveAll(r.Dir()+"/sub"))
	must(t, r.Rollback(ctx))
	if scratchRoot(t, d.paths.state) != v.Root {
		t.Fatal("rollback without End did not restore the state")
	}
}

func TestViewsKeepTheirVersion(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "seed/state/n"), "0")
	d := openTest(t, dir)
	var views []View
	var want []string
	for i := 1; i <= 5; i++ {
		commitRun(t, d, uint64(i), func(dir string) { write(t, dir+"/n", fmt.Sprint(i)) })
		v, err := d.View(ctx)
		must(t, err)
		content, err := os.ReadFile(v.Dir() + "/n")
		must(t, err)
		if fmt.Sprint(v.Version().Seq) != string(content) {
			t.Fatalf("view of %d shows %s", v.Version().Seq, content)
		}
		views, want = append(views, v), append(want, string(content))
		if i <= 2 && v.Version().Seq != uint64(i) {
			t.Fatalf("view after commit %d is of %d", i, v.Version().Seq)
		}
	}
	for i, v := range views {
		content, err := os.ReadFile(v.Dir() + "/n")
		must(t, err)
		if string(content) != want[i] {
			t.Errorf("view %d showed %s, now %s", i, want[i], content)
		}
		must(t, v.Close())
	}
	v, err := d.View(ctx)
	must(t, err)
	defer v.Close()
	if v.Version() != d.Agreed() {
		t.Fatalf("view of %v, agreed %v", v.Version(), d.Agreed())
	}
	if list, _ := os.ReadDir(filepath.Join(dir, "store/objects")); len(list) != 0 {
		t.Errorf("%d objects left over", len(list))
	}
}

func TestViewIsReadOnly(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "seed/state/f"), "0")
	write(t, filepath.Join(dir, "seed/priv/f"), "0")
	write(t, filepath.Join(dir, "seed/patch.cfg"), "{}")
	d := openTest(t, dir)
	if !d.mounted && os.Geteuid() == 0 {
		t.Skip("root without the right to mount")
	}
	v, err := d.View(ctx)
	must(t, err)
	defer v.Close()
	denied := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, name := range []string{"f", "../patch.cfg", "../priv/f"} {
		_, err := os.OpenFile(v.Dir()+"/"+name, os.O_WRONLY, 0)
		denied("open "+name, err)
		denied("remove "+name, os.Remove(v.Dir()+"/"+name))
	}
	denied("create", os.WriteFile(v.Dir()+"/new", nil, 0o644))
	denied("create beside", os.WriteFile(v.Dir()+"/../new", nil, 0o644))
	denied("mkdir", os.Mkdir(v.Dir()+"/d", 0o755))
	denied("rename", os.Rename(v.Dir()+"/f", v.Dir()+"/g"))
}

func TestPrivateFilesInViews(t *testing.T) {
	d := openTest(t, t.TempDir())
	check := func(name, want string) {
		t.Helper()
		v, err := d.View(ctx)
		must(t, err)
		defer v.Close()
		b, err := os.ReadFile(v.Dir() + "/../" + name)
		if want == "" && !errors.Is(err, os.ErrNotExist) || want != "" && (err != nil || string(b) != want) {
			t.Errorf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
	write(t, d.paths.rw+"/k", "1")
	check("k", "1")
	write(t, d.paths.rw+"/k", "22")
	check("k", "22")
	must(t, os.WriteFile(d.paths.rw+"/k.tmp", []byte("333"), 0o600))
	must(t, os.Rename(d.paths.rw+"/k.tmp", d.paths.rw+"/k"))
	check("k", "333")
	write(t, d.paths.rw+"/dir/x/y", "z")
	check("dir/x/y", "z")
	must(t, os.RemoveAll(d.paths.rw+"/dir"))
	check("dir/x/y", "")
	must(t, os.Remove(d.paths.rw+"/k"))
	check("k", "")
	// A private file that moves into the state loses the names that views gave it.
	write(t, d.paths.rw+"/m", "moved")
	check("m", "moved")
	commitRun(t, d, 1, func(dir string) { must(t, os.Rename(dir+"/../m", dir+"/m")) })
	check("state/m", "moved")
	commitRun(t, d, 2, func(dir string) { must(t, os.WriteFile(dir+"/m", []byte("again"), 0o644)) })
	check("state/m", "again")
	check("m", "")
}

func TestEndMakesTheFolderAFunctionOfTheRoot(t *testing.T) {
	d := openTest(t, t.TempDir())
	v := commitRun(t, d, 1, func(dir string) {
		write(t, dir+"/a", "same")
		must(t, os.Link(dir+"/a", dir+"/b"))
		must(t, os.Mkdir(dir+"/empty", 0o711))
		must(t, unix.Mkfifo(dir+"/pipe", 0o600))
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		must(t, err)
		defer unix.Close(fd)
		wd, _ := os.Getwd()
		must(t, os.Chdir(dir))
		must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "sock"}))
		must(t, os.Chdir(wd))
		must(t, os.Mkdir(dir+"/../patch.cfg", 0o755))
	})
	if !v.Patch.IsZero() {
		t.Errorf("a folder named patch.cfg has hash %s", v.Patch)
	}
	if _, err := os.Lstat(d.paths.patch); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("patch.cfg: %v", err)
	}
	for _, gone := range []string{"pipe", "sock"} {
		if _, err := os.Lstat(d.paths.state + "/" + gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	must(t, os.WriteFile(d.paths.state+"/a", []byte("other"), 0o644))
	if b, _ := os.ReadFile(d.paths.state + "/b"); string(b) != "same" {
		t.Errorf("b is still a hard link of a: %q", b)
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	d := openTest(t, dir)
	v := commitRun(t, d, 3, func(dir string) {
		for i := range 50 {
			write(t, fmt.Sprintf("%s/d%d/f%d", dir, i%7, i), fmt.Sprint(i))
		}
		write(t, dir+"/../patch.cfg", "p")
	})
	if _, err := OpenDir(ctx, Config{Dir: dir}); err == nil {
		t.Fatal("the state could be opened twice")
	}
	must(t, d.Close())
	d = openTest(t, dir)
	if d.Agreed() != v || string(d.Patch()) != "p" {
		t.Fatalf("agreed %v, want %v", d.Agreed(), v)
	}
	n := 0
	must(t, added(nil, d.working, "", func(string, *node) error { n++; return nil }))
	if n != 50 {
		t.Fatalf("%d files", n)
	}
	// Changed while stopped: rolled back.
	must(t, d.Close())
	write(t, dir+"/mnt/rw/state/d1/f1", "edited")
	must(t, os.Remove(dir+"/mnt/rw/patch.cfg"))
	d = openTest(t, dir)
	if d.Agreed() != v || scratchRoot(t, d.paths.state) != v.Root {
		t.Fatal("an edit made while the node was stopped survived")
	}
	if b, err := os.ReadFile(d.paths.patch); string(b) != "p" {
		t.Fatalf("patch.cfg %q, %v", b, err)
	}
}

func TestConfirmedByTheLedger(t *testing.T) {
	dir := t.TempDir()
	d := openTest(t, dir)
	commitRun(t, d, 1, func(dir string) { write(t, dir+"/f", "1") })
	_, root, patch := runOnce(t, d, 2, func(dir string) { write(t, dir+"/f", "2") })
	want := Version{2, root, patch}
	must(t, d.Close()) // between End and Commit
	d = openTest(t, dir, func(c *Config) { c.Confirmed = &want })
	if d.Agreed() != want {
		t.Fatalf("agreed %v, the ledger confirmed %v", d.Agreed(), want)
	}
	if b, _ := os.ReadFile(d.paths.state + "/f"); string(b) != "2" {
		t.Fatalf("f is %q", b)
	}
	must(t, d.Close())
	other := Version{3, digest.Sum([]byte("x")), patch}
	d = openTest(t, dir, func(c *Config) { c.Confirmed = &other })
	if d.Agreed() != want {
		t.Fatalf("agreed %v, want the newest at hand %v", d.Agreed(), want)
	}
}

// randomChange changes a folder at random in every way a program can.
func randomChange(t tb, rng *rand.Rand, dir string) {
	t.Helper()
	var dirs, files []string
	must(t, filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		must(t, err)
		if fi.IsDir() {
			dirs = append(dirs, p)
		} else {
			files = append(files, p)
		}
		return nil
	}))
	sort.Strings(files)
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	name := func() string {
		return filepath.Join(pick(dirs), []string{"a", "b", "c", "naïve", " x", "-", strings.Repeat("n", 255)}[rng.IntN(7)]+[]string{"", "1", "2"}[rng.IntN(2)])
	}
	content := func() []byte {
		b := make([]byte, []int{0, 1, 100, 5000, minGroup, 3*minGroup + 7}[rng.IntN(6)])
		for i := range b {
			b[i] = byte(rng.Uint32() & 3)
		}
		return b
	}
	for range 1 + rng.IntN(6) {
		switch rng.IntN(10) {
		case 0, 1, 2:
			os.WriteFile(name(), content(), 0o644)
		case 3:
			os.Mkdir(name(), 0o755)
		case 4:
			os.Symlink([]string{"a", "../b", "/etc", strings.Repeat("t", 200)}[rng.IntN(4)], name())
		case 5:
			if len(files) > 0 {
				f, mode := pick(files), os.FileMode([]uint32{0o600, 0o755, 0o444, 0o640}[rng.IntN(4)])
				// A link may lead to a folder, which without x is closed to all but root.
				if st, err := os.Lstat(f); err == nil && st.Mode().IsRegular() {
					os.Chmod(f, mode)
				}
			}
		case 6:
			if len(files) > 0 {
				os.RemoveAll(pick(files))
			}
		case 7:
			if p := pick(dirs); p != dir {
				os.RemoveAll(p)
			}
		case 8:
			if len(files) > 0 {
				os.Rename(pick(files), name())
			}
		case 9:
			if len(files) > 0 {
				f, err := os.OpenFile(pick(files), os.O_WRONLY, 0)
				if err == nil {
					f.WriteAt([]byte{byte(rng.Uint32())}, int64(rng.IntN(2000)))
					f.Close()
				}
			}
		}
		dirs = dirs[:1]
		filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
			if err == nil && fi.IsDir() && p != dir {
				dirs = append(dirs, p)
			}
			return nil
		})
		kept := files[:0]
		for _, f := range files {
			if _, err := os.Lstat(f); err == nil {
				kept = append(kept, f)
			}
		}
		files = kept
	}
}

// Whatever a run does: the incremental root is the root computed from nothing,
// equal roots mean equal folders, a rollback restores every byte, and what a view
// shows is what was committed.
func TestRandomRuns(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 99))
			dir := t.TempDir()
			d := openTest(t, dir, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
			byRoot := map[digest.Hash]string{}
			bySnap := map[string]digest.Hash{}
			agreed := snapshot(t, d.paths.state)
			for seq := uint64(1); seq <= 60; seq++ {
				r, root, _ := runOnce(t, d, seq, func(dir string) { randomChange(t, rng, dir) })
				if want := scratchRoot(t, d.paths.state); root != want {
					t.Fatalf("run %d: incremental root %s, from nothing %s", seq, root.Short(), want.Short())
				}
				snap := snapshot(t, d.paths.state)
				if other, ok := byRoot[root]; ok && other != snap {
					t.Fatalf("run %d: two folders have root %s:\n%s\n%s", seq, root, snap, other)
				}
				if other, ok := bySnap[snap]; ok && other != root {
					t.Fatalf("run %d: one folder has two roots", seq)
				}
				byRoot[root], bySnap[snap] = snap, root
				if rng.IntN(2) == 0 {
					must(t, r.Commit(ctx))
					agreed = snap
				} else {
					must(t, r.Rollback(ctx))
					if got := snapshot(t, d.paths.state); got != agreed {
						t.Fatalf("run %d: rolled back to\n%swant\n%s", seq, got, agreed)
					}
				}
				v, err := d.View(ctx)
				must(t, err)
				if d.mounted {
					if got := snapshot(t, v.Dir()); got != agreed {
						t.Fatalf("run %d: view shows\n%swant\n%s", seq, got, agreed)
					}
				}
				must(t, v.Close())
				if rng.IntN(10) == 0 {
					must(t, d.Close())
					d = openTest(t, dir, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
				}
			}
		})
	}
}
