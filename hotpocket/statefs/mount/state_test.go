package mount

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// childHold goes into a folder, opens a file for writing, waits for a line on its
// input, and writes then.
func childHold(args []string) error {
	if err := os.Chdir(args[0]); err != nil {
		return err
	}
	f, err := os.OpenFile("held", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	_, err = f.Write([]byte("from the past"))
	fmt.Println("wrote", err)
	_, err = os.ReadDir(".")
	fmt.Println("listed", err)
	return nil
}

// hold starts childHold.
func hold(t *testing.T, dir string) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Reader) {
	t.Helper()
	cmd = child(t, "hold", dir)
	in, err := cmd.StdinPipe()
	must(t, err)
	pipe, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	out = bufio.NewReader(pipe)
	line, err := out.ReadString('\n')
	if line != "ready\n" {
		t.Fatal(line, err)
	}
	return cmd, in, out
}

// plainRoot is the root that the plain folder backend gives for what is in dir.
func plainRoot(t *testing.T, dir string, patch []byte) statefs.Version {
	t.Helper()
	c := t.TempDir()
	must(t, os.MkdirAll(c+"/seed", 0o755))
	if out, err := exec.Command("cp", "-a", dir, c+"/seed/state").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if patch != nil {
		must(t, os.WriteFile(c+"/seed/patch.cfg", patch, 0o644))
	}
	d, err := statefs.OpenDir(ctx, statefs.Config{Dir: c})
	must(t, err)
	defer d.Close()
	return d.Agreed()
}

func commitRun(t *testing.T, s *State, seq uint64, work func(dir string)) statefs.Version {
	t.Helper()
	r, err := s.Begin(ctx, seq)
	must(t, err)
	work(r.Dir())
	root, patch, err := r.End(ctx)
	must(t, err)
	must(t, r.Commit(ctx))
	want := statefs.Version{Seq: seq, Root: root, Patch: patch}
	if got := s.Agreed(); got != want {
		t.Fatalf("agreed on %v, want %v", got, want)
	}
	return want
}

func TestRunLeavesTheRootOfThePlainFolder(t *testing.T) {
	s := openState(t, t.TempDir())
	for seq := range uint64(3) {
		v := commitRun(t, s, seq+1, func(dir string) {
			d := fmt.Sprintf("%s/d%d", dir, seq)
			must(t, os.MkdirAll(d+"/sub", 0o755))
			must(t, os.WriteFile(d+"/f", bytes.Repeat([]byte("abc"), int(seq*100_000)), 0o640))
			must(t, os.Link(d+"/f", d+"/link"))
			must(t, os.Symlink("../x", d+"/sub/l"))
			must(t, unix.Mkfifo(d+"/pipe", 0o600))
			must(t, os.WriteFile(dir+"/../patch.cfg", fmt.Appendf(nil, "patch %d", seq), 0o600))
			must(t, os.WriteFile(dir+"/../private", fmt.Appendf(nil, "own %d", seq), 0o600))
		})
		if _, err := os.Lstat(fmt.Sprintf("%s/d%d/pipe", s.paths.state, seq)); !os.IsNotExist(err) {
			t.Errorf("a pipe outlives the run: %v", err)
		}
		want := plainRoot(t, s.paths.state, fmt.Appendf(nil, "patch %d", seq))
		if v.Root != want.Root || v.Patch != want.Patch {
			t.Fatalf("run %d: root %v patch %v, the plain folder says %v %v", seq, v.Root, v.Patch, want.Root, want.Patch)
		}
	}
}

// TestEndSeesAllThatWasWritten ends a run right after processes that wrote
// through mappings, and others that left files open, are gone.
func TestEndSeesAllThatWasWritten(t *testing.T) {
	s := openState(t, t.TempDir())
	commitRun(t, s, 1, func(dir string) {
		for i := range 20 {
			must(t, os.WriteFile(fmt.Sprintf("%s/f%d", dir, i), make([]byte, 64<<10), 0o644))
		}
		must(t, os.WriteFile(dir+"/large", make([]byte, 3<<20), 0o644))
	})
	for seq := uint64(2); seq < 12; seq++ {
		v := commitRun(t, s, seq, func(dir string) {
			args := []string{fmt.Sprintf("round %d", seq), dir + "/large"}
			for i := range 20 {
				args = append(args, fmt.Sprintf("%s/f%d", dir, i))
			}
			must(t, child(t, "map", args...).Run())
		})
		if want := plainRoot(t, s.paths.state, nil); v.Root != want.Root {
			t.Fatalf("run %d: root %v, the folder has %v", seq, v.Root, want.Root)
		}
		b, err := os.ReadFile(s.paths.state + "/large")
		must(t, err)
		if want := fmt.Sprintf("round %d", seq); string(b[10_000:10_000+len(want)]) != want {
			t.Fatalf("run %d: %q is agreed", seq, b[10_000:10_010])
		}
	}
}

func TestRollbackUndoesEverything(t *testing.T) {
	s := openState(t, t.TempDir())
	agreed := commitRun(t, s, 1, func(dir string) {
		must(t, os.MkdirAll(dir+"/d/e", 0o755))
		for _, name := range []string{"a", "b", "d/c", "d/e/f"} {
			must(t, os.WriteFile(dir+"/"+name, []byte("agreed "+name), 0o644))
		}
		must(t, os.WriteFile(dir+"/large", bytes.Repeat([]byte("large"), 300_000), 0o644))
		must(t, os.Symlink("a", dir+"/l"))
		must(t, os.WriteFile(dir+"/../patch.cfg", []byte("agreed"), 0o644))
	})
	before, err := treeText(s.paths.state)
	must(t, err)
	for _, ended := range []bool{false, true} {
		for i, work := range []func(dir string){
			func(dir string) { must(t, os.WriteFile(dir+"/a", []byte("changed a"), 0o644)) },
			func(dir string) {
				f, err := os.OpenFile(dir+"/large", os.O_RDWR, 0)
				must(t, err)
				defer f.Close()
				_, err = f.WriteAt([]byte("overwritten"), 700_000)
				must(t, err)
				must(t, f.Truncate(1_000_000))
			},
			func(dir string) { must(t, os.RemoveAll(dir+"/d")) },
			func(dir string) {
				must(t, os.Rename(dir+"/d", dir+"/moved"))
				must(t, os.Rename(dir+"/a", dir+"/b"))
				must(t, os.WriteFile(dir+"/a", []byte("another"), 0o600))
				must(t, os.Mkdir(dir+"/d", 0o700))
			},
			func(dir string) {
				must(t, os.Remove(dir+"/l"))
				must(t, os.Symlink("b", dir+"/l"))
				must(t, os.Chmod(dir+"/b", 0o755))
				must(t, os.Remove(dir+"/../patch.cfg"))
			},
			func(dir string) { must(t, os.WriteFile(dir+"/../patch.cfg", []byte("other"), 0o644)) },
			func(dir string) {
				must(t, os.Remove(dir+"/../patch.cfg"))
				must(t, os.Mkdir(dir+"/../patch.cfg", 0o755))
			},
		} {
			r, err := s.Begin(ctx, 2)
			must(t, err)
			work(r.Dir())
			if _, err := treeText(r.Dir()); err != nil { // the kernel knows it all
				t.Fatal(err)
			}
			if ended {
				_, _, err := r.End(ctx)
				must(t, err)
			}
			must(t, r.Rollback(ctx))
			after, err := treeText(s.paths.state)
			must(t, err)
			if after != before {
				t.Errorf("work %d, ended %v: there is\n%s\nwant\n%s", i, ended, after, before)
			}
			if b, err := os.ReadFile(s.paths.rw + "/patch.cfg"); string(b) != "agreed" {
				t.Errorf("work %d: patch.cfg is %q, %v", i, b, err)
			}
			if s.Agreed() != agreed {
				t.Errorf("work %d: agreed on %v", i, s.Agreed())
			}
		}
	}
}

func TestNothingIsWrittenBetweenRuns(t *testing.T) {
	s := openState(t, t.TempDir())
	commitRun(t, s, 1, func(dir string) { must(t, os.WriteFile(dir+"/f", []byte("x"), 0o644)) })
	dir := s.paths.state
	for what, err := range map[string]error{
		"create":   os.WriteFile(dir+"/g", nil, 0o644),
		"write":    os.WriteFile(dir+"/f", []byte("y"), 0o644),
		"truncate": os.Truncate(dir+"/f", 0),
		"remove":   os.Remove(dir + "/f"),
		"mkdir":    os.Mkdir(dir+"/d", 0o755),
		"rename":   os.Rename(dir+"/f", dir+"/g"),
		"chmod":    os.Chmod(dir+"/f", 0o600),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestProcessThatOutlivesItsRunChangesNothing keeps a file open for writing over
// the end of a run and writes into it during the next.
func TestProcessThatOutlivesItsRunChangesNothing(t *testing.T) {
	s := openState(t, t.TempDir())
	commitRun(t, s, 1, func(dir string) {})
	r, err := s.Begin(ctx, 2)
	must(t, err)
	_, in, out := hold(t, r.Dir())
	must(t, os.WriteFile(r.Dir()+"/other", []byte("x"), 0o644))
	start := time.Now()
	root, patch, err := r.End(ctx)
	must(t, err)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the end took %v", d)
	}
	must(t, r.Commit(ctx))
	r, err = s.Begin(ctx, 3)
	must(t, err)
	io.WriteString(in, "go\n")
	line, _ := out.ReadString('\n')
	t.Logf("it %s", strings.TrimSpace(line))
	root2, patch2, err := r.End(ctx)
	must(t, err)
	if root2 != root || patch2 != patch {
		t.Errorf("the next run ends with %v, want what was agreed, %v", root2, root)
	}
	must(t, r.Commit(ctx))
	if b, err := os.ReadFile(s.paths.state + "/held"); err != nil || len(b) != 0 {
		t.Errorf("the file has %q, %v", b, err)
	}
}

func TestUnusablePatchIsReplacedByTheAgreedOne(t *testing.T) {
	s := openState(t, t.TempDir())
	h, err := s.SetPatch(ctx, []byte("agreed"))
	must(t, err)
	for i, work := range []func(p string){
		func(p string) { must(t, os.Mkdir(p, 0o755)); must(t, os.WriteFile(p+"/x", nil, 0o644)) },
		func(p string) { must(t, os.Symlink("/etc/passwd", p)) },
		func(p string) { must(t, unix.Mkfifo(p, 0o644)) },
		func(p string) { must(t, os.WriteFile(p, make([]byte, statefs.MaxPatch+1), 0o644)) },
	} {
		r, err := s.Begin(ctx, uint64(i+1))
		must(t, err)
		p := filepath.Join(r.Dir(), "..", "patch.cfg")
		must(t, os.Remove(p))
		work(p)
		_, patch, err := r.End(ctx)
		must(t, err)
		if patch != h {
			t.Errorf("%d: patch.cfg hashes to %v, want the agreed %v", i, patch, h)
		}
		must(t, r.Commit(ctx))
		if b, err := os.ReadFile(p); string(b) != "agreed" {
			t.Errorf("%d: there is %q, %v", i, b, err)
		}
	}
	// A missing one is a result, too.
	v := commitRun(t, s, 9, func(dir string) { must(t, os.Remove(dir+"/../patch.cfg")) })
	if v.Patch != (digest.Hash{}) || s.Patch() != nil {
		t.Errorf("a removed patch.cfg hashes to %v, content %q", v.Patch, s.Patch())
	}
}

// TestSeedIsTakenOver starts with what an operator left.
func TestSeedIsTakenOver(t *testing.T) {
	c := t.TempDir()
	must(t, os.MkdirAll(c+"/seed/state/sub", 0o755))
	must(t, os.WriteFile(c+"/seed/state/sub/f", []byte("seed"), 0o644))
	must(t, os.WriteFile(c+"/seed/patch.cfg", []byte("p"), 0o644))
	must(t, os.WriteFile(c+"/seed/own.key", []byte("k"), 0o600))
	want := plainRoot(t, c+"/seed/state", []byte("p"))
	for range 2 {
		s := openState(t, c)
		if v := s.Agreed(); v.Root != want.Root || v.Patch != want.Patch {
			t.Errorf("agreed on %v, want %v", v, want)
		}
		for name, content := range map[string]string{"state/sub/f": "seed", "patch.cfg": "p", "own.key": "k"} {
			if b, err := os.ReadFile(s.paths.rw + "/" + name); string(b) != content {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
		must(t, s.Close())
		if list, err := os.ReadDir(s.paths.state); err != nil || len(list) != 0 {
			t.Errorf("under the mount: %v, %v", list, err)
		}
	}
}

// TestPlainFolderIsTakenOver goes on where the plain folder backend stopped.
func TestPlainFolderIsTakenOver(t *testing.T) {
	c := t.TempDir()
	d, err := statefs.OpenDir(ctx, statefs.Config{Dir: c})
	must(t, err)
	r, err := d.Begin(ctx, 7)
	must(t, err)
	must(t, os.WriteFile(r.Dir()+"/f", []byte("plain"), 0o644))
	must(t, os.WriteFile(r.Dir()+"/../patch.cfg", []byte("p"), 0o644))
	must(t, os.WriteFile(r.Dir()+"/../own", []byte("o"), 0o644))
	_, _, err = r.End(ctx)
	must(t, err)
	must(t, r.Commit(ctx))
	want := d.Agreed()
	must(t, d.Close())
	for range 2 {
		s := openState(t, c)
		if got := s.Agreed(); got != want {
			t.Errorf("agreed on %v, want %v", got, want)
		}
		for name, content := range map[string]string{"state/f": "plain", "patch.cfg": "p", "own": "o"} {
			if b, err := os.ReadFile(s.paths.rw + "/" + name); string(b) != content {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
		must(t, s.Close())
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	c := t.TempDir()
	openState(t, c)
	if s, err := Open(ctx, config(c)); err == nil || !strings.Contains(err.Error(), "in use") {
		if s != nil {
			s.Close()
		}
		t.Errorf("opened twice: %v", err)
	}
	if _, err := statefs.OpenDir(ctx, statefs.Config{Dir: c}); err == nil {
		t.Error("opened as a plain folder, too")
	}
}

func TestCloseDetachesAProcessThatIsStillInThere(t *testing.T) {
	c := t.TempDir()
	s := openState(t, c)
	r, err := s.Begin(ctx, 1)
	must(t, err)
	_, in, out := hold(t, r.Dir())
	must(t, s.Close())
	io.WriteString(in, "go\n")
	all, _ := io.ReadAll(out)
	if !strings.Contains(string(all), unix.ENOTCONN.Error()) {
		t.Errorf("it goes on there: %s", all)
	}
	if list, err := os.ReadDir(s.paths.state); err != nil || len(list) != 0 {
		t.Errorf("the mount is still there: %v, %v", list, err)
	}
	openState(t, c)
}

func init() { children["serve"] = childServe }

// childServe opens a state and a run, tells that, and stays until it is killed.
func childServe(args []string) error {
	s, err := Open(ctx, config(args[0]))
	if err != nil {
		return err
	}
	r, err := s.Begin(ctx, 99)
	if err != nil {
		return err
	}
	v, err := s.View(ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.Dir()+"/unfinished", []byte("x"), 0o644); err != nil {
		return err
	}
	fmt.Println("ready", v.Dir())
	select {}
}

// TestKilledProcessLeavesNoDeadMount kills the process that serves the mounts,
// while another one is in them.
func TestKilledProcessLeavesNoDeadMount(t *testing.T) {
	c := t.TempDir()
	s := openState(t, c)
	want := commitRun(t, s, 1, func(dir string) { must(t, os.WriteFile(dir+"/f", []byte("x"), 0o644)) })
	must(t, s.Close())
	for _, how := range []string{"opened again", "released"} {
		cmd := child(t, "serve", c)
		pipe, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		line, err := bufio.NewReader(pipe).ReadString('\n')
		if !strings.HasPrefix(line, "ready ") {
			t.Fatal(line, err)
		}
		_, in, _ := hold(t, c+"/mnt/rw/state")
		must(t, cmd.Process.Kill())
		cmd.Wait()
		if _, err := os.ReadDir(c + "/mnt/rw/state"); err == nil {
			t.Fatal("the mount is not dead; this test shows nothing")
		}
		if how == "released" {
			must(t, statefs.Release(c))
			must(t, os.RemoveAll(c))
			continue
		}
		s := openState(t, c)
		if got := s.Agreed(); got != want {
			t.Errorf("agreed on %v, want %v", got, want)
		}
		if text, err := treeText(s.paths.state); err != nil || strings.Contains(text, "unfinished") || !strings.Contains(text, "f 100644") {
			t.Errorf("there is %s, %v", text, err)
		}
		in.Close()
		must(t, s.Close())
	}
}

// TestFullDisk lets a contract fill a small disk: it is told, and the state goes
// on.
func TestFullDisk(t *testing.T) {
	needMount(t)
	c := t.TempDir()
	if err := unix.Mount("small", c, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(c, unix.MNT_DETACH)) })
	s := openState(t, c)
	agreed := commitRun(t, s, 1, func(dir string) {
		must(t, os.WriteFile(dir+"/f", bytes.Repeat([]byte("keep"), 200_000), 0o644))
	})
	before, err := treeText(s.paths.state)
	must(t, err)
	r, err := s.Begin(ctx, 2)
	must(t, err)
	out, err := child(t, "fill", r.Dir()).Output()
	if err != nil || string(out) != "true" {
		t.Fatalf("the contract is told of a full disk: %s, %v", out, err)
	}
	if _, _, err := r.End(ctx); err != nil {
		t.Logf("end: %v", err)
	}
	must(t, r.Rollback(ctx))
	after, err := treeText(s.paths.state)
	must(t, err)
	if after != before || s.Agreed() != agreed {
		t.Errorf("after it there is %v:\n%s\nwant %v:\n%s", s.Agreed(), after, agreed, before)
	}
	commitRun(t, s, 2, func(dir string) { must(t, os.WriteFile(dir+"/f", []byte("goes on"), 0o644)) })
}

// TestSwitchIsSeenAtOnce brings a state, of which the kernel knows all, to one
// that was fetched.
func TestSwitchIsSeenAtOnce(t *testing.T) {
	fill := func(s *State, seq uint64, files map[string]string, patch string) statefs.Version {
		return commitRun(t, s, seq, func(dir string) {
			for name, content := range files {
				must(t, os.WriteFile(dir+"/"+name, []byte(content), 0o644))
			}
			must(t, os.WriteFile(dir+"/../patch.cfg", []byte(patch), 0o644))
		})
	}
	from, to := openState(t, t.TempDir()), openState(t, t.TempDir())
	want := fill(from, 5, map[string]string{"same": "same", "other": "there", "new": "new", "more": "more"}, "there")
	fill(to, 1, map[string]string{"same": "same", "other": "here", "gone": "gone"}, "here")
	look := func() string {
		text := ""
		for _, name := range []string{"same", "other", "new", "more", "gone", "../patch.cfg"} {
			b, err := os.ReadFile(to.paths.state + "/" + name)
			text += fmt.Sprintf("%s: %q %v\n", name, b, os.IsNotExist(err))
		}
		return text
	}
	look()
	v := openView(t, to)
	before, err := treeText(v.Dir())
	must(t, err)
	st, err := to.Stage(ctx)
	must(t, err)
	object := func(ref statefs.Ref) []byte {
		t.Helper()
		b, err := from.Object(ctx, ref)
		must(t, err)
		return b
	}
	node := object(statefs.Ref{Kind: statefs.RefDir, Hash: want.Root})
	must(t, st.PutNode(statefs.RefDir, want.Root, node))
	l, err := statefs.DecodeDir(node)
	must(t, err)
	for _, e := range l.Inline {
		if !st.HasFile(e.Hash) {
			must(t, st.PutFile(e.Hash, object(statefs.Ref{Kind: statefs.RefData, Path: e.Name, Hash: e.Hash})))
		}
	}
	must(t, st.Switch(ctx, want, from.Patch()))
	must(t, st.Close())
	if got := to.Agreed(); got != want {
		t.Errorf("agreed on %v, want %v", got, want)
	}
	if got, want := look(), `same: "same" false
other: "there" false
new: "new" false
more: "more" false
gone: "" true
../patch.cfg: "there" false
`; got != want {
		t.Errorf("there is now\n%s\nwant\n%s", got, want)
	}
	// Who looked at the old version goes on seeing it.
	after, err := treeText(v.Dir())
	must(t, err)
	if after != before {
		t.Errorf("a view has changed:\n%s", after)
	}
	must(t, v.Close())
	if text, err := treeText(openView(t, to).Dir()); err != nil || !strings.Contains(text, "more") {
		t.Errorf("the next view shows %s, %v", text, err)
	}
}

func init() { children["unprivileged"] = childUnprivileged }

// childUnprivileged opens a state as nobody and says what it is told.
func childUnprivileged(args []string) error {
	if err := unix.Setresuid(65534, 65534, 65534); err != nil {
		return err
	}
	s, err := Open(ctx, config(args[0]))
	if err == nil {
		s.Close()
	}
	fmt.Print(errors.Is(err, ErrUnavailable), " ", err)
	return nil
}

func TestWithoutRightsTheReasonIsClear(t *testing.T) {
	needMount(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o777))
	out, err := child(t, "unprivileged", dir).Output()
	must(t, err)
	if _, err := fusermount(); err == nil && strings.HasPrefix(string(out), "false <nil>") {
		t.Skip("every user may mount here")
	}
	if !strings.HasPrefix(string(out), "true ") || !strings.Contains(string(out), "run as root") {
		t.Errorf("told: %s", out)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("it leaves %v behind, %v", list, err)
	}
	t.Logf("%s", out)
}
