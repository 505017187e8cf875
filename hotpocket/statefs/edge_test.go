package statefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"evernode/internal/digest"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// A large folder is cut into pages, and one more name costs little.
func TestLargeFolder(t *testing.T) {
	d := openTest(t, t.TempDir())
	commitRun(t, d, 1, func(dir string) {
		for i := range 3000 {
			must(t, os.WriteFile(fmt.Sprintf("%s/file%d", dir, i), nil, 0o644))
		}
	})
	before := d.pack.size
	commitRun(t, d, 2, func(dir string) { write(t, dir+"/one more", "x") })
	if grown := d.pack.size - before; grown > 300<<10 {
		t.Errorf("one new name wrote %d bytes of folders", grown)
	}
	checkWhole(t, d)
}

// A state whose process died, mounts and all, can be released and removed.
func TestRelease(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/seed/state/sub/f", "1")
	write(t, dir+"/seed/private/f", "1")
	d := openTest(t, dir)
	v, err := d.View(ctx)
	must(t, err)
	v.Close()
	d.cfg.failpoint = func(string) { t.Error("a killed process does nothing") }
	must(t, Release(dir))
	must(t, os.RemoveAll(dir))
	must(t, Release(dir))
	d.cfg.failpoint = nil
}

func TestHolesStayHoles(t *testing.T) {
	d := openTest(t, t.TempDir())
	const size = 64 << 20
	v := commitRun(t, d, 1, func(dir string) {
		f, err := os.Create(dir + "/sparse")
		must(t, err)
		defer f.Close()
		must(t, f.Truncate(size))
		f.WriteAt([]byte("in the middle"), size/2)
	})
	r, _, _ := runOnce(t, d, 2, func(dir string) { must(t, os.WriteFile(dir+"/sparse", []byte("short"), 0o644)) })
	must(t, r.Rollback(ctx))
	checkWhole(t, d)
	var st unix.Stat_t
	must(t, unix.Stat(d.paths.state+"/sparse", &st))
	if st.Size != size || st.Blocks*512 > size/8 {
		t.Errorf("restored to %d bytes in %d blocks", st.Size, st.Blocks)
	}
	if d.Agreed() != v {
		t.Error("agreed changed")
	}
}

func TestFileOver4GiB(t *testing.T) {
	if os.Getenv("STATEFS_TEST_LARGE") == "" {
		t.Skip("hashes 4 GiB twice; set STATEFS_TEST_LARGE=1")
	}
	dir := t.TempDir()
	fd, err := openDir(unix.AT_FDCWD, dir)
	must(t, err)
	defer unix.Close(fd)
	f, err := os.Create(dir + "/f")
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(4<<30+5))
	f.WriteAt([]byte("tail"), 4<<30+1)
	st, _ := f.Stat()
	group, _ := Groups(uint64(st.Size()))
	if group != 2*minGroup {
		t.Fatalf("groups of %d bytes", group)
	}
	h, _, err := hashContent(ctx, f, uint64(st.Size()), nil)
	must(t, err)
	plain := blake3.New()
	_, err = io.Copy(plain, f)
	must(t, err)
	if want := digest.Hash(plain.Sum(nil)); h != want {
		t.Errorf("hash %s, plain BLAKE3 is %s", h, want)
	}
}

// A file that is open and unlinked, and one that is written to by a process
// left behind, do not disturb.
func TestLeftBehind(t *testing.T) {
	d := openTest(t, t.TempDir())
	var f *os.File
	v := commitRun(t, d, 1, func(dir string) {
		var err error
		f, err = os.Create(dir + "/gone")
		must(t, err)
		f.WriteString("still here")
		must(t, os.Remove(dir+"/gone"))
		write(t, dir+"/kept", "1")
	})
	defer f.Close()
	if _, err := f.WriteString("more"); err != nil {
		t.Error(err)
	}
	// Changed between End and Commit: the copy is not what was hashed.
	r, err := d.Begin(ctx, 2)
	must(t, err)
	write(t, r.Dir()+"/kept", "2")
	d.cfg.failpoint = func(step string) {
		if step == "before copying an object" {
			write(t, r.Dir()+"/kept", "3")
		}
	}
	_, _, err = r.End(ctx)
	must(t, err)
	if err := r.Commit(ctx); !errors.Is(err, ErrChanged) {
		t.Fatalf("commit of a changed folder: %v", err)
	}
	d.cfg.failpoint = nil
	must(t, r.Rollback(ctx))
	if d.Agreed() != v {
		t.Errorf("agreed on %v, want %v", d.Agreed(), v)
	}
	checkWhole(t, d)
}

// Without exact file times a file that changed in the tick of its scan is hashed
// again.
func TestRacyFilesAreHashedAgain(t *testing.T) {
	d := openTest(t, t.TempDir())
	d.scanner.exactTimes = false
	commitRun(t, d, 1, func(dir string) { write(t, dir+"/f", "1") })
	n := d.working.child("f")
	fd, err := unix.Open(d.paths.state, unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	again, err := d.scanner.scan(ctx, fd, d.working)
	must(t, err)
	if n.sig.racy && again.child("f") == n {
		t.Error("a racy signature was trusted")
	}
	// Once the tick is over the signature counts.
	for deadline := time.Now().Add(5 * time.Second); coarseNow() <= n.sig.ctime; {
		if time.Now().After(deadline) {
			t.Fatal("the coarse clock stands still")
		}
		time.Sleep(time.Millisecond)
	}
	settled, err := d.scanner.scan(ctx, fd, again)
	must(t, err)
	last, err := d.scanner.scan(ctx, fd, settled)
	must(t, err)
	if last != settled || settled.child("f").sig.racy {
		t.Error("an unchanged file was hashed again")
	}
}

func TestPatchChanges(t *testing.T) {
	dir := t.TempDir()
	d := openTest(t, dir)
	h, err := d.SetPatch(ctx, []byte("one"))
	must(t, err)
	if d.Agreed().Patch != h || h != HashPatch([]byte("one")) {
		t.Fatal("patch is not agreed")
	}
	checkWhole(t, d)
	r, err := d.Begin(ctx, 1)
	must(t, err)
	if _, err := d.SetPatch(ctx, []byte("two")); !errors.Is(err, ErrBusy) {
		t.Errorf("set during a run: %v", err)
	}
	must(t, os.Remove(r.Dir()+"/../patch.cfg"))
	_, patch, err := r.End(ctx)
	must(t, err)
	if !patch.IsZero() {
		t.Errorf("a missing patch.cfg has hash %s", patch)
	}
	must(t, r.Commit(ctx))
	checkWhole(t, d)
	if d.Patch() != nil {
		t.Errorf("patch %q", d.Patch())
	}
	_, err = d.SetPatch(ctx, nil)
	must(t, err)
	if d.Patch() == nil || d.Agreed().Patch != HashPatch(nil) {
		t.Error("an empty patch.cfg is not the same as none")
	}
	if _, err := d.SetPatch(ctx, make([]byte, MaxPatch+1)); err == nil {
		t.Error("an oversized patch.cfg was taken")
	}
	r, _, patch = runOnce(t, d, 2, func(dir string) {
		must(t, os.WriteFile(dir+"/../patch.cfg", make([]byte, MaxPatch+1), 0o644))
	})
	if patch != HashPatch(nil) {
		t.Errorf("an oversized patch.cfg was not put back: %s", patch)
	}
	must(t, r.Commit(ctx))
	must(t, d.Close())
	checkWhole(t, openTest(t, dir))
}

func TestClosedState(t *testing.T) {
	d := openTest(t, t.TempDir())
	r, err := d.Begin(ctx, 1)
	must(t, err)
	must(t, d.Close())
	must(t, d.Close())
	_, beginErr := d.Begin(ctx, 2)
	_, viewErr := d.View(ctx)
	_, stageErr := d.Stage(ctx)
	_, objErr := d.Object(ctx, Ref{Kind: RefDir})
	_, setErr := d.SetPatch(ctx, nil)
	_, _, endErr := r.End(ctx)
	for name, err := range map[string]error{"begin": beginErr, "view": viewErr, "stage": stageErr, "object": objErr, "patch": setErr, "end": endErr, "rollback": r.Rollback(ctx)} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// While runs are committed, every view shows one version from end to end.
func TestViewsDuringRuns(t *testing.T) {
	d := openTest(t, t.TempDir())
	both := func(dir string, n uint64) {
		for _, name := range []string{"a", "sub/b", "../private/c"} {
			write(t, dir+"/"+name, fmt.Sprint(n))
		}
	}
	commitRun(t, d, 1, func(dir string) { both(dir, 1) })
	stop := make(chan struct{})
	var readers sync.WaitGroup
	seen := make([]uint64, 4)
	for i := range seen {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				v, err := d.View(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				want := fmt.Sprint(v.Version().Seq)
				for range 3 {
					for _, name := range []string{"a", "sub/b"} {
						if got, err := os.ReadFile(v.Dir() + "/" + name); err != nil || string(got) != want {
							t.Errorf("%s of version %s: %q, %v", name, want, got, err)
						}
					}
				}
				if v.Version().Seq < seen[i] {
					t.Errorf("view of %d after one of %d", v.Version().Seq, seen[i])
				}
				seen[i] = v.Version().Seq
				v.Close()
			}
		}()
	}
	for n := uint64(2); n < 150; n++ {
		commitRun(t, d, n, func(dir string) { both(dir, n) })
	}
	close(stop)
	readers.Wait()
	t.Log("versions seen last:", seen)
	checkWhole(t, d)
}

// On a full disk a run fails with the reason and can be undone.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("cannot mount a small disk: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	d := openTest(t, dir+"/fs")
	v := commitRun(t, d, 1, func(dir string) { write(t, dir+"/f", strings.Repeat("x", 1<<20)) })
	for seq := uint64(2); seq < 5; seq++ {
		r, err := d.Begin(ctx, seq)
		must(t, err)
		must(t, os.WriteFile(r.Dir()+"/g", make([]byte, 1<<20), 0o644))
		must(t, os.WriteFile(r.Dir()+"/f", []byte("y"), 0o644))
		var full error
		for i := 0; full == nil; i++ {
			full = os.WriteFile(fmt.Sprintf("%s/h%d", r.Dir(), i), make([]byte, 4096), 0o644)
		}
		if !errors.Is(full, unix.ENOSPC) {
			t.Fatal(full)
		}
		if _, _, err = r.End(ctx); err == nil {
			err = r.Commit(ctx)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("commit on a full disk: %v", err)
		}
		must(t, r.Rollback(ctx))
		if d.Agreed() != v {
			t.Fatalf("agreed on %v, want %v", d.Agreed(), v)
		}
		checkWhole(t, d)
	}
	commitRun(t, d, 6, func(dir string) { write(t, dir+"/small", "s") })
	checkWhole(t, d)
}

// The pack of folders does not grow without end, and loses nothing that is
// needed.
func TestPackIsCompacted(t *testing.T) {
	dir := t.TempDir()
	d := openTest(t, dir)
	d.pack.least = 16 << 10
	var most int64
	for seq := uint64(1); seq < 200; seq++ {
		commitRun(t, d, seq, func(dir string) {
			for i := range 3 {
				write(t, fmt.Sprintf("%s/dir%d/sub/file%d", dir, i, seq%20), fmt.Sprint(seq))
			}
		})
		most = max(most, d.pack.size)
	}
	if most > 64<<10 {
		t.Errorf("the pack grew to %d bytes", most)
	}
	v := d.Agreed()
	must(t, d.Close())
	d = openTest(t, dir)
	if d.Agreed() != v {
		t.Errorf("agreed on %v, want %v", d.Agreed(), v)
	}
	checkWhole(t, d)
	if _, err := load(v.Root, d.pack.get); err != nil {
		t.Error(err)
	}
}

// With an owner, everything that the contract has to write belongs to it.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const uid, gid = 4711, 4712
	dir := t.TempDir()
	write(t, dir+"/seed/state/sub/f", "1")
	write(t, dir+"/seed/private", "1")
	src := openTest(t, t.TempDir())
	v := commitRun(t, src, 1, func(dir string) {
		write(t, dir+"/new/deep/f", "2")
		must(t, os.WriteFile(dir+"/big", make([]byte, 200<<10), 0o600))
		must(t, os.Symlink("big", dir+"/link"))
		write(t, dir+"/../patch.cfg", "p")
	})
	d := openTest(t, dir, func(c *Config) { c.Owner = &Owner{uid, gid} })
	check := func(root string) {
		t.Helper()
		must(t, filepath.Walk(root, func(p string, fi os.FileInfo, err error) error {
			must(t, err)
			st := fi.Sys().(*syscall.Stat_t)
			if st.Uid != uid || st.Gid != gid {
				t.Errorf("%s belongs to %d:%d", p, st.Uid, st.Gid)
			}
			return nil
		}))
	}
	check(d.paths.rw)
	st, err := d.Stage(ctx)
	must(t, err)
	fetchAll(t, src, st, v.Root)
	must(t, st.Switch(ctx, v, []byte("p")))
	must(t, st.Close())
	check(d.paths.rw)
	view, err := d.View(ctx)
	must(t, err)
	check(view.Dir())
	view.Close()
	r, err := d.Begin(ctx, 2)
	must(t, err)
	must(t, os.RemoveAll(r.Dir()+"/new"))
	must(t, os.Remove(r.Dir()+"/../patch.cfg"))
	must(t, r.Rollback(ctx))
	check(d.paths.rw)
	checkWhole(t, d)
}

// A damaged copy is noticed when it is needed, and repaired by a staging.
func TestDamageIsNoticed(t *testing.T) {
	dir := t.TempDir()
	src := openTest(t, t.TempDir())
	d := openTest(t, dir)
	fill := func(dir string) {
		write(t, dir+"/a/f", "good")
		write(t, dir+"/g", "good too")
	}
	v := commitRun(t, src, 1, fill)
	commitRun(t, d, 1, fill)
	side := d.sides[d.current]
	f, err := openPath(side.state, "a/f")
	must(t, err)
	must(t, os.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), 0o644))
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0)
	if errors.Is(err, unix.EROFS) {
		fd, err2 := unix.Openat(side.state, "a/f", unix.O_WRONLY, 0)
		must(t, err2)
		w, err = os.NewFile(uintptr(fd), "f"), nil
	}
	must(t, err)
	_, err = w.WriteString("BAAD")
	must(t, err)
	w.Close()
	f.Close()
	r, err := d.Begin(ctx, 2)
	must(t, err)
	must(t, os.RemoveAll(r.Dir()+"/a"))
	if err := r.Rollback(ctx); !errors.Is(err, ErrDamaged) || !d.Damaged() {
		t.Fatalf("rollback from a damaged copy: %v", err)
	}
	if _, err := d.Begin(ctx, 3); !errors.Is(err, ErrDamaged) {
		t.Fatalf("begin: %v", err)
	}
	st, err := d.Stage(ctx)
	must(t, err)
	if h := digest.Sum([]byte("good")); st.HasFile(h) {
		t.Error("the damaged file is offered as at hand")
	}
	fetchAll(t, src, st, v.Root)
	must(t, st.Switch(ctx, v, nil))
	must(t, st.Close())
	checkWhole(t, d)
}

// A file with as many names as its file system allows is copied.
func TestTooManyLinks(t *testing.T) {
	if os.Getenv("STATEFS_TEST_LARGE") == "" {
		t.Skip("makes 65,000 links; set STATEFS_TEST_LARGE=1")
	}
	dir := t.TempDir()
	write(t, dir+"/f", "content")
	var err error
	for i := 0; err == nil && i < 200000; i++ {
		err = os.Link(dir+"/f", fmt.Sprintf("%s/l%d", dir, i))
	}
	if !errors.Is(err, unix.EMLINK) {
		t.Skip("this file system has no limit: ", err)
	}
	fd, err := openDir(unix.AT_FDCWD, dir)
	must(t, err)
	defer unix.Close(fd)
	must(t, os.Mkdir(dir+"/tmp", 0o755))
	tmp, err := openDir(unix.AT_FDCWD, dir+"/tmp")
	must(t, err)
	defer unix.Close(tmp)
	must(t, linkInto(&tmpFolder{fd: tmp}, fd, "f", fd, "copied", 0o600))
	if b, err := os.ReadFile(dir + "/copied"); string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestCancelledEndCanBeRolledBack(t *testing.T) {
	d := openTest(t, t.TempDir())
	r, err := d.Begin(ctx, 1)
	must(t, err)
	write(t, r.Dir()+"/f", "1")
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := r.End(gone); !errors.Is(err, context.Canceled) {
		t.Fatalf("end: %v", err)
	}
	must(t, r.Rollback(ctx))
	checkWhole(t, d)
}

func TestObjects(t *testing.T) {
	d := openTest(t, t.TempDir())
	big := bytes.Repeat([]byte("abcdefgh"), 20000)
	v1 := commitRun(t, d, 1, func(dir string) {
		write(t, dir+"/sub/small", "s")
		must(t, os.WriteFile(dir+"/big", big, 0o644))
		write(t, dir+"/../patch.cfg", "p")
	})
	old := d.working.find("sub/small").Hash
	commitRun(t, d, 2, func(dir string) { write(t, dir+"/sub/small", "t") })
	h := d.working.find("big").Hash
	for _, c := range []struct {
		name string
		ref  Ref
		want string // "" = not found
	}{
		{"version before", Ref{Kind: RefData, Path: "sub/small", Hash: old}, "s"},
		{"group", Ref{Kind: RefData, Path: "big", Hash: h, Index: 1}, string(big[minGroup : 2*minGroup])},
		{"last group", Ref{Kind: RefData, Path: "big", Hash: h, Index: 2}, string(big[2*minGroup:])},
		{"group behind the end", Ref{Kind: RefData, Path: "big", Hash: h, Index: 3}, ""},
		{"largest index", Ref{Kind: RefData, Path: "big", Hash: h, Index: 1<<32 - 1}, ""},
		{"list of a small file", Ref{Kind: RefList, Path: "sub/small", Hash: old}, ""},
		{"patch", Ref{Kind: RefPatch, Hash: v1.Patch}, "p"},
		{"other patch", Ref{Kind: RefPatch, Hash: h}, ""},
		{"other hash", Ref{Kind: RefData, Path: "big", Hash: old}, ""},
		{"folder as file", Ref{Kind: RefData, Path: "sub", Hash: h}, ""},
		{"outside", Ref{Kind: RefData, Path: "../patch.cfg", Hash: h}, ""},
		{"absolute", Ref{Kind: RefData, Path: "/etc/passwd", Hash: h}, ""},
		{"no such folder", Ref{Kind: RefDir, Hash: h}, ""},
		{"unknown kind", Ref{Kind: 99, Hash: h}, ""},
	} {
		got, err := d.Object(ctx, c.ref)
		if c.want == "" && !errors.Is(err, ErrNotFound) || c.want != "" && (err != nil || string(got) != c.want) {
			t.Errorf("%s: %.20q, %v", c.name, got, err)
		}
	}
}

// Everything works without privilege as well; then missing permissions, not
// mounts, keep read requests from writing.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests do it: not root")
	}
	const uid = 65534
	dir := t.TempDir()
	for p := dir; p != "/" && p != os.TempDir(); p = filepath.Dir(p) {
		must(t, os.Chmod(p, 0o755))
	}
	bin := dir + "/test"
	src, err := os.Open(os.Args[0])
	must(t, err)
	defer src.Close()
	dst, err := os.OpenFile(bin, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(dst, src)
	must(t, err)
	must(t, dst.Close())
	tmp := dir + "/tmp"
	must(t, os.Mkdir(tmp, 0o755))
	must(t, os.Chown(tmp, uid, uid))
	cmd := exec.Command(bin, "-test.v", "-test.short", "-test.run", "First|Run|View|Private|End|Reopen|Confirmed|Power|Staging|Patch|Left|Locked|Killed")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.Dir = tmp
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "--- PASS"); n < 15 {
		t.Errorf("only %d tests passed:\n%s", n, out)
	}
}

// Files and folders whose modes lock out their owner are hashed, copied and
// restored all the same.
func TestLockedFiles(t *testing.T) {
	d := openTest(t, t.TempDir())
	commitRun(t, d, 1, func(dir string) {
		write(t, dir+"/locked/in/file", "1")
		write(t, dir+"/secret", "2")
		must(t, os.Chmod(dir+"/secret", 0))
		must(t, os.Chmod(dir+"/locked/in/file", 0o200))
		must(t, os.Chmod(dir+"/locked/in", 0o555))
		must(t, os.Chmod(dir+"/locked", 0))
	})
	unlock := func() {
		os.Chmod(d.paths.state+"/locked", 0o755)
		os.Chmod(d.paths.state+"/locked/in", 0o755)
	}
	checkWhole(t, d)
	r, _, _ := runOnce(t, d, 2, func(dir string) {
		unlock()
		must(t, os.RemoveAll(dir+"/locked/in"))
		must(t, os.Remove(dir+"/secret"))
		must(t, os.Chmod(dir+"/locked", 0o111))
	})
	must(t, r.Rollback(ctx))
	checkWhole(t, d)
	var st unix.Stat_t
	must(t, unix.Stat(d.paths.state+"/locked", &st))
	if st.Mode&modeBits != 0 {
		t.Errorf("locked has mode %#o", st.Mode)
	}
	commitRun(t, d, 3, func(dir string) {
		unlock()
		must(t, os.RemoveAll(dir+"/locked"))
	})
	checkWhole(t, d)
}
