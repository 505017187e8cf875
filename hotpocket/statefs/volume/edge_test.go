package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

func commitRun(t testing.TB, v *Volume, seq uint64, change func(w vol)) statefs.Version {
	t.Helper()
	must(t, v.Begin(ctx, seq))
	change(vol{v})
	_, err := v.End(ctx)
	must(t, err)
	must(t, v.Commit(ctx, v.Patch()))
	return v.Agreed()
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func pattern(n int, salt byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>16)*7 + (byte(i>>8) ^ byte(i) ^ salt)
	}
	return b
}

func TestErrorsAreThoseOfAnyFileSystem(t *testing.T) {
	v := openTest(t, t.TempDir())
	w := vol{v}
	_, err := v.Mkdir(Root, "d", 0o755)
	wantErr(t, "mkdir outside of a run", err, unix.EROFS)
	must(t, v.Begin(ctx, 1))
	must(t, w.mkdir("d", 0o755))
	must(t, w.mkdir("d/e", 0o755))
	must(t, w.mkdir("empty", 0o755))
	must(t, w.write("f", 0, []byte("x"), unix.O_CREAT))
	wantErr(t, "mkdir over a folder", w.mkdir("d", 0o755), unix.EEXIST)
	wantErr(t, "rmdir", w.rmdir("d"), unix.ENOTEMPTY)
	wantErr(t, "rmdir of a file", w.rmdir("f"), unix.ENOTDIR)
	wantErr(t, "unlink of a folder", w.unlink("d"), unix.EISDIR)
	wantErr(t, "unlink of nothing", w.unlink("g"), unix.ENOENT)
	wantErr(t, "rename into itself", w.rename("d", "d/e/d", 0), unix.EINVAL)
	wantErr(t, "rename over what is not empty", w.rename("empty", "d", 0), unix.ENOTEMPTY)
	wantErr(t, "rename of a folder over a file", w.rename("d", "f", 0), unix.ENOTDIR)
	wantErr(t, "rename of a file over a folder", w.rename("f", "empty", 0), unix.EISDIR)
	wantErr(t, "rename without replacing", w.rename("f", "empty", unix.RENAME_NOREPLACE), unix.EEXIST)
	wantErr(t, "exchange with nothing", w.rename("f", "g", unix.RENAME_EXCHANGE), unix.ENOENT)
	wantErr(t, "exchange with what is below", w.rename("d", "d/e", unix.RENAME_EXCHANGE), unix.EINVAL)
	wantErr(t, "whiteout", w.rename("f", "g", unix.RENAME_WHITEOUT), unix.EINVAL)
	wantErr(t, "long name", w.mkdir(strings.Repeat("n", 256), 0o755), unix.ENAMETOOLONG)
	must(t, w.mkdir(strings.Repeat("n", 255), 0o755))
	wantErr(t, "link to a folder", w.link("d", "g"), unix.EPERM)
	_, err = v.Mknod(Root, "dev", unix.S_IFCHR|0o600)
	wantErr(t, "device", err, unix.EPERM)
	wantErr(t, "empty target", w.symlink("", "l"), unix.ENOENT)
	_, err = v.Attr(999)
	wantErr(t, "unknown number", err, unix.ESTALE)
	a, _ := w.walk("f")
	_, err = v.Lookup(a.Ino, "x")
	wantErr(t, "lookup in a file", err, unix.ENOTDIR)
	_, err = v.OpenDir(a.Ino)
	wantErr(t, "opendir of a file", err, unix.ENOTDIR)
	// A folder that was removed takes nothing any more.
	e, _ := w.walk("empty")
	must(t, w.rmdir("empty"))
	_, err = v.Mkdir(e.Ino, "x", 0o755)
	wantErr(t, "mkdir in a removed folder", err, unix.ENOENT)
	if got, err := v.Attr(e.Ino); err != nil || got.Nlink != 0 {
		t.Errorf("removed folder: %+v %v", got, err)
	}
	// Replacing an empty folder and a file.
	must(t, w.mkdir("empty", 0o755))
	must(t, w.rename("d", "empty", 0))
	must(t, w.write("g", 0, []byte("y"), unix.O_CREAT))
	must(t, w.rename("g", "f", 0))
	if got, _ := w.read("f"); string(got) != "y" {
		t.Errorf("f is %q", got)
	}
	// Depth.
	deep := "empty"
	for range statefs.MaxDepth {
		deep += "/d"
		must(t, w.mkdir(deep, 0o755))
	}
	if _, err := v.End(ctx); err == nil {
		t.Error("folders nested too deep were taken")
	}
	must(t, v.Rollback(ctx))
	checkWhole(t, v)
}

func TestUnlinkedFileLives(t *testing.T) {
	v := openTest(t, t.TempDir())
	w := vol{v}
	big := pattern(1<<20, 1)
	commitRun(t, v, 1, func(w vol) {
		must(t, w.write("small", 0, []byte("small"), unix.O_CREAT))
		must(t, w.write("big", 0, big, unix.O_CREAT))
	})
	must(t, v.Begin(ctx, 2))
	must(t, w.write("new", 0, []byte("new"), unix.O_CREAT))
	var open []*File
	for _, name := range []string{"small", "big", "new"} {
		f, err := w.open(name, unix.O_RDWR)
		must(t, err)
		must(t, w.unlink(name))
		must(t, put(f, 1, []byte("!")))
		a, err := v.Attr(f.Ino())
		must(t, err)
		if a.Nlink != 0 || a.Size == 0 {
			t.Errorf("%s: %+v", name, a)
		}
		b := make([]byte, 3)
		if n, err := f.ReadAt(b, 0); n != 3 || err != nil || b[1] != '!' {
			t.Errorf("%s reads %q %v", name, b[:n], err)
		}
		open = append(open, f)
	}
	must(t, open[1].Close())
	root, err := v.End(ctx)
	must(t, err)
	must(t, v.Commit(ctx, nil))
	for _, i := range []int{0, 2} {
		b := make([]byte, 3)
		if n, err := open[i].ReadAt(b, 0); n != 3 || err != nil {
			t.Errorf("after the commit: %v", err)
		}
		must(t, open[i].Close())
	}
	if v.Agreed().Root != root {
		t.Error("not agreed")
	}
	checkWhole(t, v)
}

// What a process does after the end of its run does not reach the state.
func TestSurvivorsChangeNothing(t *testing.T) {
	for _, rollBack := range []bool{false, true} {
		for _, size := range []int{100, 1 << 20} {
			t.Run(fmt.Sprint(rollBack, size), func(t *testing.T) {
				dir := t.TempDir()
				var told Changes
				v := openTest(t, dir, func(c *Config) { c.Invalidate = func(ch Changes) { told = ch } })
				w := vol{v}
				commitRun(t, v, 1, func(w vol) { must(t, w.write("old", 0, pattern(size, 1), unix.O_CREAT)) })
				must(t, v.Begin(ctx, 2))
				must(t, w.write("mapped", 0, pattern(size, 2), unix.O_CREAT))
				held, err := w.open("held", unix.O_CREAT|unix.O_RDWR)
				must(t, err)
				must(t, put(held, 0, pattern(size, 3)))
				old, err := w.open("old", unix.O_RDWR|unix.O_TRUNC)
				must(t, err)
				must(t, put(old, 0, pattern(size, 4)))
				// A mapping outlives the File, as with the kernel.
				m, err := w.open("mapped", unix.O_RDWR)
				must(t, err)
				fd, _ := m.Backing()
				g, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
				must(t, err)
				mem, err := unix.Mmap(int(g.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				must(t, err)
				must(t, g.Close())
				must(t, m.Close())
				defer unix.Munmap(mem)
				mem[0] = 'm'
				oldIno := old.Ino()
				root, err := v.End(ctx)
				must(t, err)
				mem[1] = 'm'
				must(t, put(held, 5, []byte("late")))
				must(t, put(old, 5, []byte("late")))
				if rollBack {
					must(t, v.Rollback(ctx))
				} else {
					must(t, v.Commit(ctx, nil))
					if v.Agreed().Root != root {
						t.Error("another root")
					}
				}
				if len(told.Names) == 0 && !told.All {
					t.Error("nobody was told")
				}
				mem[2] = 'm'
				must(t, put(old, 6, []byte("later")))
				a, err := w.walk("old")
				must(t, err)
				if a.Ino == oldIno {
					t.Error("a file that is still open for writing kept its number")
				}
				checkWhole(t, v)
				must(t, held.Close())
				must(t, old.Close())
				checkWhole(t, v)
				must(t, v.Close())
				checkObjects(t, dir)
			})
		}
	}
}

// A file that the kernel reads by itself is opened for writing: readers see what
// is written, the agreed version does not.
func TestOpenForReadingThenForWriting(t *testing.T) {
	for _, size := range []int{1000, 100 << 10, 1 << 20} {
		v := openTest(t, t.TempDir())
		w := vol{v}
		content := pattern(size, 1)
		commitRun(t, v, 1, func(w vol) { must(t, w.write("f", 0, content, unix.O_CREAT)) })
		snap, err := v.Snapshot()
		must(t, err)
		must(t, v.Begin(ctx, 2))
		r, err := w.open("f", unix.O_RDONLY)
		must(t, err)
		rfd, rkey := r.Backing()
		k, err := snap.Root().Lookup("f")
		must(t, err)
		sf, err := snap.Open(k)
		must(t, err)
		if fd, _ := sf.Backing(); fd >= 0 && rfd >= 0 {
			t.Error("the kernel has an object open in both mounts")
		}
		wr, err := w.open("f", unix.O_RDWR)
		must(t, err)
		wfd, wkey := wr.Backing()
		if (rfd >= 0) != (wfd >= 0) || rkey != wkey {
			t.Errorf("size %d: backing %d %d for reading, %d %d for writing", size, rfd, rkey, wfd, wkey)
		}
		must(t, put(wr, 10, []byte("written")))
		b := make([]byte, 7)
		if rfd >= 0 {
			_, err = unix.Pread(rfd, b, 10)
		} else {
			_, err = r.ReadAt(b, 10)
		}
		if err != nil || string(b) != "written" {
			t.Errorf("size %d: the reader sees %q %v", size, b, err)
		}
		if got := content1(t, snap, k); !bytes.Equal(got, content) {
			t.Errorf("size %d: the view sees what the run writes", size)
		}
		if _, err := sf.ReadAt(b, 10); err != nil || !bytes.Equal(b, content[10:17]) {
			t.Errorf("size %d: the open view sees %q", size, b)
		}
		must(t, wr.Close())
		must(t, r.Close())
		must(t, sf.Close())
		if _, err := v.End(ctx); err != nil {
			t.Fatal(err)
		}
		must(t, v.Rollback(ctx))
		if got, _ := w.read("f"); !bytes.Equal(got, content) {
			t.Errorf("size %d: not rolled back", size)
		}
		must(t, snap.Close())
		checkWhole(t, v)
	}
}

// Layers of a large file pile up, are read through, and are folded as soon as
// nobody holds what is below.
func TestLayersAndFolding(t *testing.T) {
	dir := t.TempDir()
	v := openTest(t, dir)
	const size = 3 << 20
	model := pattern(size, 9)
	commitRun(t, v, 1, func(w vol) { must(t, w.write("f", 0, model, unix.O_CREAT)) })
	snap, err := v.Snapshot()
	must(t, err)
	first := bytes.Clone(model)
	rng := rand.New(rand.NewPCG(4, 4))
	change := func(seq uint64) {
		commitRun(t, v, seq, func(w vol) {
			for range 20 {
				off, n := rng.IntN(len(model)), 1+rng.IntN(20000)
				data := pattern(n, byte(rng.IntN(256)))
				must(t, w.write("f", int64(off), data, 0))
				if end := off + n; end > len(model) {
					model = append(model, make([]byte, end-len(model))...)
				}
				copy(model[off:], data)
			}
			if seq%4 == 0 {
				cut := len(model) * 3 / 4
				must(t, w.truncate("f", int64(cut)))
				must(t, w.truncate("f", int64(cut+300000)))
				model = append(model[:cut:cut], make([]byte, 300000)...)
			}
			if seq%3 == 0 {
				must(t, w.allocate("f", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 100001, 200002))
				clear(model[100001:300003])
			}
			if got, err := w.read("f"); err != nil || !bytes.Equal(got, model) {
				t.Fatalf("run %d reads something else (%v)", seq, err)
			}
		})
		if got := v.agreed.root.find("f").hash; got != digest.Sum(model) {
			t.Fatalf("run %d hashes something else", seq)
		}
	}
	seq := uint64(2)
	for ; seq < 12; seq++ {
		change(seq)
	}
	if n := len(v.agreed.root.find("f").layers()); n < 9 {
		t.Errorf("%d layers while the first version is held", n)
	}
	k, err := snap.Root().Lookup("f")
	must(t, err)
	if !bytes.Equal(content1(t, snap, k), first) {
		t.Fatal("the first version has changed")
	}
	must(t, snap.Close())
	// More runs let go of the versions between; then what is folded is dropped.
	deadline := time.Now().Add(20 * time.Second)
	for ; ; seq++ {
		change(seq)
		if n := len(v.agreed.root.find("f").layers()); n < 8 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%d layers are left", n)
		}
	}
	checkWhole(t, v)
	must(t, v.Close())
	v = openTest(t, dir)
	if got, err := (vol{v}).read("f"); err != nil || !bytes.Equal(got, model) {
		t.Fatalf("after a restart: %v", err)
	}
	change(seq + 1)
	checkWhole(t, v)
	must(t, v.Close())
	checkObjects(t, dir)
}

func TestLargeSparseFile(t *testing.T) {
	v := openTest(t, t.TempDir())
	const size = 5 << 30
	var st unix.Statfs_t
	must(t, unix.Fstatfs(v.store.root, &st))
	commitRun(t, v, 1, func(w vol) {
		must(t, w.write("f", 0, []byte("begin"), unix.O_CREAT))
		must(t, w.truncate("f", size))
		must(t, w.write("f", size-3, []byte("end"), 0))
	})
	n := v.agreed.root.find("f")
	if n.size != size || uint64(n.blocks)*4096 > 1<<20 {
		t.Errorf("%d bytes in %d blocks", n.size, n.blocks)
	}
	start := time.Now()
	commitRun(t, v, 2, func(w vol) { must(t, w.write("f", 1<<32+5, []byte("middle"), 0)) })
	took := time.Since(start)
	f, err := (vol{v}).open("f", unix.O_RDONLY)
	must(t, err)
	defer f.Close()
	b := make([]byte, 8)
	if _, err := f.ReadAt(b, 1<<32+4); err != nil || string(b) != "\x00middle\x00" {
		t.Errorf("reads %q %v", b, err)
	}
	if n, err := f.ReadAt(b, size-3); n != 3 || err != nil || string(b[:3]) != "end" {
		t.Errorf("ends with %q %v", b[:n], err)
	}
	t.Logf("one block of 5 GiB changed: %v", took)
}

// A listing survives what comes and goes while it is read.
func TestListingWhileItChanges(t *testing.T) {
	v := openTest(t, t.TempDir())
	w := vol{v}
	must(t, v.Begin(ctx, 1))
	must(t, w.mkdir("d", 0o755))
	const files = 5000
	for i := range files {
		must(t, w.symlink("x", fmt.Sprintf("d/%05d", i)))
	}
	a, err := w.walk("d")
	must(t, err)
	d, err := v.OpenDir(a.Ino)
	must(t, err)
	seen := map[string]int{}
	for cookie := uint64(0); ; {
		n := 0
		must(t, d.Read(cookie, func(e Dirent) bool {
			if n == 100 {
				return false
			}
			n++
			seen[e.Name]++
			cookie = e.Next
			return true
		}))
		if n == 0 {
			break
		}
		for i := range 50 {
			_ = w.unlink(fmt.Sprintf("d/%05d", (int(cookie)*7+i*31)%files))
			_ = w.symlink("y", fmt.Sprintf("d/new%d-%d", cookie, i))
		}
	}
	for i := range files {
		if seen[fmt.Sprintf("%05d", i)] != 1 {
			t.Fatalf("%05d was listed %d times", i, seen[fmt.Sprintf("%05d", i)])
		}
	}
	if seen["."] != 1 || seen[".."] != 1 {
		t.Error("dots")
	}
	_, err = v.End(ctx)
	must(t, err)
	must(t, v.Commit(ctx, nil))
	checkWhole(t, v)
}

func TestTimes(t *testing.T) {
	dir := t.TempDir()
	v := openTest(t, dir)
	set := int64(1234567890_000000001)
	big := pattern(300<<10, 0)
	commitRun(t, v, 1, func(w vol) {
		must(t, w.mkdir("d", 0o755))
		for _, name := range []string{"d/small", "d/big"} {
			must(t, w.write(name, 0, big[:100], unix.O_CREAT))
			if name == "d/big" {
				must(t, w.write(name, 0, big, 0))
			}
			a, _ := w.walk(name)
			_, err := v.SetAttr(a.Ino, Change{Mtime: &set, Atime: &set})
			must(t, err)
		}
		a, _ := w.walk("d")
		_, err := v.SetAttr(a.Ino, Change{Mtime: &set})
		must(t, err)
	})
	check := func(when string) {
		t.Helper()
		for _, name := range []string{"d", "d/small", "d/big"} {
			a, err := (vol{v}).walk(name)
			must(t, err)
			if a.Mtime != set {
				t.Errorf("%s: %s was changed at %d", when, name, a.Mtime)
			}
		}
	}
	check("after the run")
	must(t, v.Close())
	v = openTest(t, dir)
	check("after a restart")
	must(t, v.Begin(ctx, 2))
	for _, name := range []string{"d/small", "d/big"} {
		f, err := (vol{v}).open(name, unix.O_RDWR)
		must(t, err)
		must(t, f.Close())
	}
	check("opened for writing")
	root, err := v.End(ctx)
	must(t, err)
	if root != v.Agreed().Root {
		t.Error("another root")
	}
	must(t, v.Rollback(ctx))
	must(t, v.Begin(ctx, 3))
	before := time.Now().Add(-time.Second).UnixNano()
	w := vol{v}
	must(t, w.write("d/small", 0, []byte("x"), 0))
	must(t, w.write("d/big", 0, []byte("x"), 0))
	must(t, w.unlink("d/small"))
	for _, name := range []string{"d", "d/big"} {
		a, err := w.walk(name)
		must(t, err)
		if a.Mtime < before || a.Ctime < before {
			t.Errorf("%s was changed at %d", name, a.Mtime)
		}
	}
	must(t, v.Rollback(ctx))
	check("rolled back")
}

// Many at once, to be run with -race: whoever wins, the root is that of what is
// there.
func TestManyAtOnce(t *testing.T) {
	v := openTest(t, t.TempDir())
	for seq := uint64(1); seq <= 6; seq++ {
		must(t, v.Begin(ctx, seq))
		var wg sync.WaitGroup
		for g := range 6 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seq, uint64(g)))
				for range 150 {
					_, _ = randomOp(rng)(vol{v})
				}
			})
		}
		wg.Go(func() {
			for range 10 {
				s, err := v.Snapshot()
				must(t, err)
				if got := scratch(t, s); got != s.Version().Root {
					t.Errorf("a view has root %s", got.Short())
				}
				must(t, s.Close())
			}
		})
		wg.Wait()
		if seq%3 == 0 {
			must(t, v.Rollback(ctx))
			continue
		}
		_, err := v.End(ctx)
		must(t, err)
		must(t, v.Commit(ctx, nil))
		s, err := v.Snapshot()
		must(t, err)
		if got := scratch(t, s); got != s.Version().Root {
			t.Fatalf("run %d ended with %s, contents have %s", seq, s.Version().Root.Short(), got.Short())
		}
		must(t, s.Close())
	}
}

func TestStagingRefusesWrongData(t *testing.T) {
	src := openTest(t, t.TempDir())
	big := pattern(500000, 3)
	next := commitRun(t, src, 1, func(w vol) {
		must(t, w.write("small", 0, []byte("s"), unix.O_CREAT))
		must(t, w.write("big", 0, big, unix.O_CREAT))
		must(t, w.write("twin", 0, []byte("s"), unix.O_CREAT))
	})
	dir := t.TempDir()
	v := openTest(t, dir)
	st, err := v.Stage(ctx)
	must(t, err)
	if _, err := v.Stage(ctx); err == nil {
		t.Error("a second staging was opened")
	}
	node, err := src.Object(ctx, statefs.Ref{Kind: statefs.RefDir, Hash: next.Root})
	must(t, err)
	wantErr(t, "node", st.PutNode(statefs.RefDir, next.Root, append(bytes.Clone(node), 0)), statefs.ErrMismatch)
	wantErr(t, "node as page", st.PutNode(statefs.RefPage, next.Root, node), statefs.ErrMismatch)
	wantErr(t, "file", st.PutFile(digest.Sum([]byte("s")), []byte("t")), statefs.ErrMismatch)
	h, size := digest.Sum(big), uint64(len(big))
	list, err := src.Object(ctx, statefs.Ref{Kind: statefs.RefList, Path: "big", Hash: h})
	must(t, err)
	bad := bytes.Clone(list)
	bad[5] ^= 1
	_, err = st.OpenFile(ctx, "big", size, h, bad)
	wantErr(t, "list", err, statefs.ErrMismatch)
	f, err := st.OpenFile(ctx, "big", size, h, list)
	must(t, err)
	group := func(i uint32) []byte {
		data, err := src.Object(ctx, statefs.Ref{Kind: statefs.RefData, Path: "big", Hash: h, Index: i})
		must(t, err)
		return data
	}
	wantErr(t, "group at another place", f.Put(2, group(1)), statefs.ErrMismatch)
	wantErr(t, "short group", f.Put(1, group(1)[1:]), statefs.ErrMismatch)
	if err := f.Put(9999, group(1)); err == nil {
		t.Error("a group behind the end was taken")
	}
	must(t, f.Put(1, group(1)))
	run := append(append([]byte{}, group(3)...), group(4)...)
	wantErr(t, "run at another place", f.(*StagedFile).PutRun(4, run), statefs.ErrMismatch)
	must(t, f.(*StagedFile).PutRun(3, run))
	must(t, f.Close())
	if st.HasFile(h) {
		t.Error("an incomplete file counts as there")
	}
	wantErr(t, "switch to an incomplete state", st.Switch(ctx, next, nil), statefs.ErrNotFound)
	wantErr(t, "patch", st.Switch(ctx, statefs.Version{Seq: 1, Root: next.Root, Patch: digest.Sum(nil)}, []byte("x")), statefs.ErrMismatch)
	// What was fetched is there after a restart.
	must(t, st.PutFile(digest.Sum([]byte("s")), []byte("s")))
	must(t, st.Close())
	must(t, v.Close())
	v = openTest(t, dir)
	st, err = v.Stage(ctx)
	must(t, err)
	if !st.HasFile(digest.Sum([]byte("s"))) {
		t.Error("a fetched file is lost")
	}
	f, err = st.OpenFile(ctx, "big", size, h, list)
	must(t, err)
	if n := len(f.Missing()); n != len(list)/32-3 {
		t.Errorf("%d groups missing after three were fetched", n)
	}
	must(t, f.Close())
	must(t, v.Begin(ctx, 5))
	wantErr(t, "switch in a run", st.Switch(ctx, next, nil), statefs.ErrBusy)
	must(t, v.Rollback(ctx))
	fetchAll(t, src, st, next.Root)
	must(t, st.Switch(ctx, next, nil))
	must(t, st.Close())
	checkWhole(t, v)
	must(t, v.Close())
	checkObjects(t, dir)
}

// A file of which a group has changed is fetched by that group, a folder of many
// entries by its page.
func TestFetchingLittle(t *testing.T) {
	src, v := openTest(t, t.TempDir()), openTest(t, t.TempDir())
	big := pattern(4<<20, 1)
	fillBoth := func(w vol) {
		must(t, w.write("big", 0, big, unix.O_CREAT))
		must(t, w.mkdir("d", 0o755))
		for i := range 3000 {
			must(t, w.symlink("x", fmt.Sprintf("d/%d", i)))
		}
	}
	commitRun(t, v, 1, fillBoth)
	commitRun(t, src, 1, fillBoth)
	if v.Agreed() != src.Agreed() {
		t.Fatal("different from the beginning")
	}
	next := commitRun(t, src, 2, func(w vol) {
		must(t, w.write("big", 70000, []byte("changed"), 0))
		must(t, w.unlink("d/77"))
	})
	st, err := v.Stage(ctx)
	must(t, err)
	// A run of its own meanwhile.
	commitRun(t, v, 2, func(w vol) { must(t, w.write("other", 0, []byte("o"), unix.O_CREAT)) })
	counted := &counting{Staging: st}
	fetchAll(t, src, counted, next.Root)
	if counted.nodes > 4 || counted.groups != 1 {
		t.Errorf("%d folder nodes and pages, %d groups", counted.nodes, counted.groups)
	}
	must(t, st.Switch(ctx, next, nil))
	must(t, st.Close())
	checkWhole(t, v)
}

type counting struct {
	statefs.Staging
	nodes, groups int
}

func (c *counting) PutNode(kind statefs.RefKind, h digest.Hash, data []byte) error {
	c.nodes++
	return c.Staging.PutNode(kind, h, data)
}

func (c *counting) OpenFile(ctx context.Context, path string, size uint64, h digest.Hash, list []byte) (statefs.StagedFile, error) {
	f, err := c.Staging.OpenFile(ctx, path, size, h, list)
	if err == nil {
		c.groups += len(f.Missing())
	}
	return f, err
}

func TestConfirmedRunIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	v := openTest(t, dir)
	must(t, v.Begin(ctx, 1))
	must(t, vol{v}.write("f", 0, pattern(100000, 1), unix.O_CREAT))
	root, err := v.End(ctx)
	must(t, err)
	must(t, v.Close())
	patch := []byte("patch")
	want := statefs.Version{Seq: 1, Root: root, Patch: statefs.HashPatch(patch)}
	// Without the content of patch.cfg it cannot be had.
	v = openTest(t, dir, func(c *Config) { c.Confirmed = &want })
	if v.Agreed().Seq != 0 {
		t.Errorf("agreed is %v", v.Agreed())
	}
	must(t, v.Begin(ctx, 1))
	must(t, vol{v}.write("f", 0, pattern(100000, 1), unix.O_CREAT))
	_, err = v.End(ctx)
	must(t, err)
	must(t, v.Close())
	v = openTest(t, dir, func(c *Config) { c.Confirmed, c.Patches = &want, [][]byte{[]byte("other"), patch} })
	if v.Agreed() != want || string(v.Patch()) != "patch" {
		t.Errorf("agreed is %v", v.Agreed())
	}
	checkWhole(t, v)
	must(t, v.Close())
	v = openTest(t, dir)
	if v.Agreed() != want {
		t.Errorf("agreed is %v after a restart", v.Agreed())
	}
	checkWhole(t, v)
}

func TestImportAndExport(t *testing.T) {
	dir := t.TempDir()
	d, err := statefs.OpenDir(ctx, statefs.Config{Dir: dir + "/plain", Log: quiet()})
	must(t, err)
	r, err := d.Begin(ctx, 7)
	must(t, err)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		_, _ = randomOp(rng)(realDir(r.Dir()))
	}
	_, _, err = r.End(ctx)
	must(t, err)
	must(t, r.Commit(ctx))
	want := d.Agreed()
	must(t, d.Close())
	must(t, statefs.Release(dir+"/plain"))
	v := openTest(t, dir+"/vol", func(c *Config) {
		c.Import, c.ImportVersion, c.ImportPatch = dir+"/plain/mnt/rw/state", want, nil
	})
	if v.Agreed() != want {
		t.Fatalf("imported %v, want %v", v.Agreed(), want)
	}
	checkWhole(t, v)
	must(t, os.Mkdir(dir+"/out", 0o755))
	must(t, v.Export(ctx, dir+"/out"))
	w := openTest(t, dir+"/again", func(c *Config) { c.Import = dir + "/out" })
	if w.Agreed().Root != want.Root {
		t.Fatalf("exported %v, want %v", w.Agreed(), want)
	}
	must(t, v.Close())
	v = openTest(t, dir+"/vol")
	if v.Agreed() != want {
		t.Fatalf("%v after a restart, want %v", v.Agreed(), want)
	}
	checkWhole(t, v)
}

// After a power failure files may have lost their content. Whatever is gone, the
// volume comes up with a version it once had, whole, or says that it is damaged,
// and a staging repairs it.
func TestPowerFailureNeverGivesAWrongRoot(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 8))
		dir := t.TempDir()
		v := openTest(t, dir)
		known := map[statefs.Version]bool{v.Agreed(): true}
		for seq := uint64(1); seq <= 6; seq++ {
			known[commitRun(t, v, seq, func(w vol) { randomRun(rng, v) })] = true
		}
		last := v.Agreed()
		src := openTest(t, t.TempDir())
		commitRun(t, src, 9, func(w vol) { randomRun(rng, src) })
		// As if killed: nothing is written at the end.
		v.op.Lock()
		v.closed = true
		v.op.Unlock()
		v.release()
		var files []string
		must(t, filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
			if err == nil && fi.Mode().IsRegular() && fi.Size() > 0 {
				files = append(files, p)
			}
			return err
		}))
		for range rng.IntN(4) {
			p := files[rng.IntN(len(files))]
			fi, err := os.Stat(p)
			must(t, err)
			must(t, os.Truncate(p, rng.Int64N(fi.Size()+1)))
		}
		v = openTest(t, dir, func(c *Config) { c.boot = "another boot" })
		switch a := v.Agreed(); {
		case v.Damaged():
			outcomes["damaged"]++
			wantErr(t, "begin on a damaged volume", v.Begin(ctx, 9), statefs.ErrDamaged)
			st, err := v.Stage(ctx)
			must(t, err)
			fetchAll(t, src, st, src.Agreed().Root)
			must(t, st.Switch(ctx, src.Agreed(), nil))
			must(t, st.Close())
			checkWhole(t, v)
		case !known[a]:
			t.Fatalf("seed %d: came up with %v, which never was", seed, a)
		default:
			if a == last {
				outcomes["last"]++
			} else {
				outcomes["earlier"]++
			}
			checkWhole(t, v)
		}
		must(t, v.Close())
	}
	t.Log(outcomes)
	if outcomes["last"] == 0 || outcomes["damaged"] == 0 {
		t.Error("not everything that can happen has happened")
	}
}

func TestLogIsCompacted(t *testing.T) {
	dir := t.TempDir()
	v := openTest(t, dir)
	v.tlog.mu.Lock()
	v.tlog.base = 0
	v.tlog.mu.Unlock()
	rng := rand.New(rand.NewPCG(1, 1))
	num := v.tlog.num
	deadline := time.Now().Add(30 * time.Second)
	for seq := uint64(1); ; seq++ {
		commitRun(t, v, seq, func(w vol) {
			for i := range 3000 {
				_ = w.unlink(fmt.Sprint("l", i))
				must(t, w.symlink(fmt.Sprint(strings.Repeat("x", 200), rng.Uint64()), fmt.Sprint("l", i)))
			}
		})
		v.tlog.mu.Lock()
		done := v.tlog.num > num
		v.tlog.mu.Unlock()
		if done {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the log grows without end")
		}
	}
	for seq := uint64(1000); seq < 1003; seq++ {
		commitRun(t, v, seq, func(w vol) { must(t, w.write("f", 0, []byte{byte(seq)}, unix.O_CREAT)) })
	}
	want := v.Agreed()
	must(t, v.Close())
	v = openTest(t, dir)
	if v.Agreed() != want {
		t.Errorf("%v after a restart, want %v", v.Agreed(), want)
	}
	checkWhole(t, v)
}

// However many files a run makes, few descriptors are held for them.
func TestFewDescriptors(t *testing.T) {
	v := openTest(t, t.TempDir())
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(list)
	}
	before, most := count(), 0
	must(t, v.Begin(ctx, 1))
	small, large := pattern(1000, 1), pattern(packBelow+1, 2)
	for i := range 1500 {
		data := small
		if i%2 == 0 {
			data = large
		}
		must(t, vol{v}.write(fmt.Sprint("f", i), 0, data, unix.O_CREAT))
		most = max(most, count())
	}
	if most > before+scratchKept+idleMax {
		t.Errorf("%d descriptors", most-before)
	}
	_, err := v.End(ctx)
	must(t, err)
	must(t, v.Commit(ctx, nil))
	checkWhole(t, v)
}

// A disk that has become full keeps nobody from undoing a run, and what was
// fetched of another state makes room.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	v := openTest(t, dir+"/vol")
	defer v.Close()
	commitRun(t, v, 1, func(w vol) { must(t, w.write("f", 0, pattern(300000, 1), unix.O_CREAT)) })
	// A staging that brought too much.
	src := openTest(t, t.TempDir())
	big := make([]byte, 30<<20)
	for i := range big {
		big[i] = byte(i>>19) ^ byte(i>>8) ^ byte(i)
	}
	commitRun(t, src, 2, func(w vol) {
		for i := range 60 {
			must(t, w.write(fmt.Sprint("part", i), 0, big[i<<19:(i+1)<<19], unix.O_CREAT))
		}
	})
	st, err := v.Stage(ctx)
	must(t, err)
	err = func() (err error) {
		for i := range 60 {
			name := fmt.Sprint("part", i)
			n := src.agreed.root.find(name)
			list, err := src.Object(ctx, statefs.Ref{Kind: statefs.RefList, Path: name, Hash: n.hash})
			must(t, err)
			f, err := st.OpenFile(ctx, name, n.size, n.hash, list)
			if err != nil {
				return err
			}
			for _, i := range f.Missing() {
				data, err := src.Object(ctx, statefs.Ref{Kind: statefs.RefData, Path: name, Hash: n.hash, Index: i})
				must(t, err)
				if err := f.Put(i, data); err != nil {
					f.Close()
					return err
				}
			}
			must(t, f.Close())
		}
		return nil
	}()
	wantErr(t, "a state that does not fit", err, unix.ENOSPC)
	must(t, st.Close())
	// A run that fills the disk.
	must(t, v.Begin(ctx, 2))
	for i := 0; ; i++ {
		if err = (vol{v}).write(fmt.Sprint("g", i), 0, big[:1<<20], unix.O_CREAT); err != nil {
			break
		}
	}
	wantErr(t, "a run that fills the disk", err, unix.ENOSPC)
	_, endErr := v.End(ctx)
	t.Logf("end on a full disk: %v", endErr)
	must(t, v.Rollback(ctx))
	v.sweep.wait()
	checkWhole(t, v)
	commitRun(t, v, 3, func(w vol) { must(t, w.write("h", 0, big[:1<<20], unix.O_CREAT)) })
	checkWhole(t, v)
	must(t, v.Close())
	v = openTest(t, dir+"/vol")
	checkWhole(t, v)
	must(t, v.Close())
}
