package mount

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/statefs/volume"

	"golang.org/x/sys/unix"
)

func init() {
	children["lock"] = childLock
	children["map"] = childMap
	children["hold"] = childHold
	children["fill"] = childFill
}

// childLock tries to take a lock on a file, of the kind that it is told, and says
// whether it got it.
func childLock(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if args[1] == "flock" {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	} else {
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 10})
	}
	fmt.Print(err == nil)
	return nil
}

func TestLocksKeepOtherProcessesOut(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		f, err := os.Create(dir + "/f")
		must(t, err)
		defer f.Close()
		try := func(kind, want string) {
			t.Helper()
			out, err := child(t, "lock", dir+"/f", kind).Output()
			must(t, err)
			if string(out) != want {
				t.Errorf("%s by another process: %s, want %s", kind, out, want)
			}
		}
		fd := int(f.Fd())
		try("flock", "true")
		must(t, unix.Flock(fd, unix.LOCK_EX))
		try("flock", "false")
		must(t, unix.Flock(fd, unix.LOCK_UN))
		try("flock", "true")
		must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 5, Len: 1}))
		try("fcntl", "false")
		must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}))
		try("fcntl", "true")
	})
}

func TestNamesOf255Bytes(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		long := strings.Repeat("ñ", 127) + "x"
		must(t, os.WriteFile(filepath.Join(dir, long), []byte("a"), 0o644))
		must(t, os.Mkdir(filepath.Join(dir, "d"+long[1:]), 0o755))
		list, err := os.ReadDir(dir)
		must(t, err)
		if len(list) != 2 || len(list[1].Name()) != 255 {
			t.Fatalf("listed %v", list)
		}
		over := filepath.Join(dir, long+"y")
		for what, err := range map[string]error{
			"create":  os.WriteFile(over, nil, 0o644),
			"mkdir":   os.Mkdir(over, 0o755),
			"symlink": os.Symlink("x", over),
			"rename":  os.Rename(filepath.Join(dir, long), over),
			"link":    os.Link(filepath.Join(dir, long), over),
		} {
			if !errors.Is(err, unix.ENAMETOOLONG) {
				t.Errorf("%s of a name of 256 bytes: %v", what, err)
			}
		}
	})
}

func TestSparseFileOver4GiB(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		f, err := os.Create(dir + "/big")
		must(t, err)
		defer f.Close()
		must(t, f.Truncate(6<<30))
		const at = 5<<30 + 12345
		_, err = f.WriteAt([]byte("far"), at)
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Stat(dir+"/big", &st))
		if st.Size != 6<<30 || st.Blocks > 2048 {
			t.Errorf("size %d in %d blocks", st.Size, st.Blocks)
		}
		data, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
		must(t, err)
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		must(t, err)
		if data > at || hole <= at || hole-data > 1<<20 {
			t.Errorf("data from %d to %d, want around %d", data, hole, int64(at))
		}
		got := make([]byte, 6)
		_, err = f.ReadAt(got, at-3)
		must(t, err)
		if string(got) != "\x00\x00\x00far" {
			t.Errorf("read %q", got)
		}
	})
}

func TestFolderOf100000Entries(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	inVolume(t, func(t *testing.T, dir string) {
		const n = 100_000
		d := dir + "/many"
		must(t, os.Mkdir(d, 0o755))
		for i := range n {
			name := fmt.Sprintf("%s/entry-%06d", d, i)
			if i%20 == 0 {
				must(t, os.WriteFile(name, nil, 0o644))
			} else {
				must(t, os.Symlink("x", name))
			}
		}
		count := func() (names map[string]bool) {
			f, err := os.Open(d)
			must(t, err)
			defer f.Close()
			names = make(map[string]bool, n)
			for {
				list, err := f.Readdirnames(1000)
				for _, name := range list {
					if names[name] {
						t.Fatalf("%s is listed twice", name)
					}
					names[name] = true
				}
				if err == io.EOF {
					return names
				}
				must(t, err)
			}
		}
		if got := len(count()); got != n {
			t.Fatalf("%d entries, want %d", got, n)
		}
		// Removing while listing, as rm -r does it: nothing is left out.
		removeAll(t, d, n)
		must(t, os.Remove(d))
	})
}

// removeAll removes every entry of a folder in the order of one listing.
func removeAll(t *testing.T, d string, want int) {
	t.Helper()
	f, err := os.Open(d)
	must(t, err)
	defer f.Close()
	removed := 0
	for {
		list, err := f.Readdirnames(500)
		for _, name := range list {
			must(t, os.Remove(filepath.Join(d, name)))
			removed++
		}
		if err == io.EOF {
			break
		}
		must(t, err)
	}
	if removed != want {
		t.Errorf("a listing gave %d entries while they were removed, want %d", removed, want)
	}
}

// TestListingGoesOnWhenTheFolderChanges removes what it lists, from a listing
// that the kernel keeps, in folders of all sizes, and between runs too.
func TestListingGoesOnWhenTheFolderChanges(t *testing.T) {
	fill := func(dir string, n int) string {
		d := fmt.Sprintf("%s/d%d", dir, n)
		must(t, os.Mkdir(d, 0o755))
		for i := range n {
			must(t, os.Symlink("x", fmt.Sprintf("%s/a-rather-long-name-of-entry-%d", d, i*7919%n)))
		}
		return d
	}
	sizes := []int{1, 3, 100, 1000, 5000}
	each(t, func(t *testing.T, dir string) {
		for _, n := range sizes {
			d := fill(dir, n)
			for range 2 { // the second comes from the kernel's memory
				list, err := os.ReadDir(d)
				must(t, err)
				if len(list) != n {
					t.Errorf("%d entries, want %d", len(list), n)
				}
			}
			removeAll(t, d, n)
			must(t, os.Remove(d))
		}
	})
	t.Run("over runs", func(t *testing.T) {
		s := openState(t, t.TempDir())
		commitRun(t, s, 1, func(dir string) {
			for _, n := range sizes {
				_, err := os.ReadDir(fill(dir, n))
				must(t, err)
			}
		})
		commitRun(t, s, 2, func(dir string) {
			for _, n := range sizes {
				removeAll(t, fmt.Sprintf("%s/d%d", dir, n), n)
			}
		})
	})
}

// childMap writes into files through shared mappings and leaves without
// unmapping, syncing or closing anything.
func childMap(args []string) error {
	for _, p := range args[1:] {
		fd, err := unix.Open(p, unix.O_RDWR, 0)
		if err != nil {
			return err
		}
		m, err := unix.Mmap(fd, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		copy(m[10_000:], args[0])
	}
	os.Exit(0)
	return nil
}

func TestModificationTimeFollowsEveryKindOfWrite(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		p := dir + "/f"
		must(t, os.WriteFile(p, make([]byte, 64<<10), 0o644))
		old := time.Unix(1_000_000_000, 123_456_789)
		check := func(how string) {
			t.Helper()
			// A mapping counts when its last user has gone, which the kernel
			// tells a moment later.
			deadline := time.Now().Add(5 * time.Second)
			for {
				st, err := os.Stat(p)
				must(t, err)
				if time.Since(st.ModTime()) < time.Hour {
					return
				}
				if time.Now().After(deadline) {
					t.Errorf("%s: modified %v", how, st.ModTime())
					return
				}
			}
		}
		reset := func() {
			t.Helper()
			must(t, os.Chtimes(p, old, old))
			st, err := os.Stat(p)
			must(t, err)
			if !st.ModTime().Equal(old) {
				t.Fatalf("set %v, got %v", old, st.ModTime())
			}
		}
		reset()
		f, err := os.OpenFile(p, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.Write([]byte("x"))
		must(t, err)
		check("write")
		must(t, f.Close())
		reset()
		must(t, os.Truncate(p, 64<<10-1))
		check("truncate")
		must(t, os.Truncate(p, 64<<10))
		reset()
		must(t, child(t, "map", "mapped", p).Run())
		check("mapping")
		b, err := os.ReadFile(p)
		must(t, err)
		if !bytes.Equal(b[10_000:10_006], []byte("mapped")) {
			t.Errorf("mapping wrote %q", b[10_000:10_006])
		}
	})
}

func TestAttributesAreRefusedCleanly(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		p := dir + "/f"
		must(t, os.WriteFile(p, nil, 0o644))
		if err := unix.Setxattr(p, "user.a", []byte("b"), 0); err != unix.EOPNOTSUPP {
			t.Errorf("setxattr: %v", err)
		}
		if _, err := unix.Getxattr(p, "user.a", make([]byte, 10)); err != unix.EOPNOTSUPP {
			t.Errorf("getxattr: %v", err)
		}
		if n, err := unix.Listxattr(p, make([]byte, 10)); n > 0 || err != nil && err != unix.EOPNOTSUPP {
			t.Errorf("listxattr: %d %v", n, err)
		}
		// Archives are unpacked with their owners by root.
		must(t, os.Lchown(p, 4711, 4711))
		for _, mode := range []uint32{unix.S_IFBLK, unix.S_IFCHR} {
			if err := unix.Mknod(dir+"/dev", mode|0o600, 0x501); err != unix.EPERM {
				t.Errorf("mknod of a device: %v", err)
			}
		}
		must(t, unix.Mkfifo(dir+"/pipe", 0o600))
		var st unix.Stat_t
		must(t, unix.Stat(dir+"/pipe", &st))
		if st.Mode&unix.S_IFMT != unix.S_IFIFO {
			t.Errorf("a pipe is %o", st.Mode)
		}
	})
}

// TestNewFileCostsThreeRequests and no other: looking the name up, creating,
// telling that it is closed. Looking at it again costs nothing.
func TestNewFileCostsThreeRequests(t *testing.T) {
	p := newPlainTree(t)
	m, dir := mountTree(t, p, true)
	must(t, os.WriteFile(dir+"/first", []byte("x"), 0o644)) // the kernel learns what is not there
	if _, err := m.settle(ctx); err != nil {
		t.Fatal(err)
	}
	before := map[string]int64{}
	names := []string{"Lookup", "Create", "Attr", "SetAttr", "OpenFile", "ReadAt", "WriteAt"}
	for _, n := range names {
		before[n] = p.counted(n)
	}
	const files = 50
	for i := range files {
		must(t, os.WriteFile(dir+"/f"+strconv.Itoa(i), []byte("x"), 0o644))
	}
	want := map[string]int64{"Lookup": files, "Create": files}
	if m.dev.passthrough(p.dir) != nil {
		want["WriteAt"] = files
	}
	for _, n := range names {
		if got := p.counted(n) - before[n]; got != want[n] {
			t.Errorf("%d requests of %s for %d new files, want %d", got, n, files, want[n])
		}
	}
	// Sizes are asked for once, because the kernel wrote them itself.
	for range 3 {
		for i := range files {
			st, err := os.Stat(dir + "/f" + strconv.Itoa(i))
			must(t, err)
			if st.Size() != 1 {
				t.Fatalf("size %d", st.Size())
			}
			if _, err := os.Stat(dir + "/missing"); !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	if got := p.counted("Lookup") - before["Lookup"]; got != files+1 {
		t.Errorf("%d lookups after looking again, want one more, for what is missing", got-files)
	}
	if got := p.counted("Attr") - before["Attr"]; got > files {
		t.Errorf("%d requests for attributes of %d files", got, files)
	}
}

// TestKernelForgetsWhatChangedByItself changes the tree behind the kernel's back,
// as a rollback does, and tells it.
func TestKernelForgetsWhatChangedByItself(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprintf("all=%v", all), func(t *testing.T) {
			p := newPlainTree(t)
			p.serve.Store(true)
			m, dir := mountTree(t, p, true)
			must(t, os.Mkdir(dir+"/d", 0o755))
			must(t, os.WriteFile(dir+"/d/content", []byte("old content"), 0o644))
			must(t, os.WriteFile(dir+"/d/goes", []byte("x"), 0o644))
			must(t, os.WriteFile(dir+"/top", []byte("top"), 0o644))
			// By names only: a listing makes the kernel ask for the folder's times,
			// and see from them that it has changed.
			look := func() string {
				t.Helper()
				text := ""
				for _, name := range []string{"d/content", "d/goes", "d/comes", "comes", "top"} {
					if b, err := os.ReadFile(dir + "/" + name); err == nil {
						text += fmt.Sprintf("%s: %q\n", name, b)
					}
				}
				return text
			}
			look()
			if _, err := treeText(dir); err != nil {
				t.Fatal(err)
			}
			before := look()
			d, err := p.Lookup(volume.Root, "d")
			must(t, err)
			content, err := p.Lookup(d.Ino, "content")
			must(t, err)
			must(t, os.WriteFile(p.object(content.Ino), []byte("new, and longer"), 0o600))
			must(t, p.Unlink(d.Ino, "goes"))
			for _, parent := range []volume.Ino{d.Ino, volume.Root} {
				_, f, err := p.Create(parent, "comes", 0o600, 0)
				must(t, err)
				must(t, f.Close())
			}
			must(t, p.Unlink(volume.Root, "top"))
			if got := look(); got != before {
				t.Fatalf("the kernel asks although it knows; this test shows nothing:\n%s", got)
			}
			if all {
				m.invalidate(volume.Changes{All: true})
			} else {
				m.invalidate(volume.Changes{
					Names: []volume.Name{{Parent: d.Ino, Name: "goes"}, {Parent: d.Ino, Name: "comes"}, {Parent: volume.Root, Name: "comes"}, {Parent: volume.Root, Name: "top"}},
					Inos:  []volume.Ino{content.Ino, d.Ino, volume.Root},
				})
			}
			got := look()
			for _, want := range []string{"d/comes: ", "\ncomes: ", "new, and longer"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in what is seen now:\n%s", want, got)
				}
			}
			listed, err := treeText(dir)
			must(t, err)
			if strings.Count(listed, "comes") != 2 {
				t.Errorf("listed:\n%s", listed)
			}
			got += listed
			for _, gone := range []string{"goes", "top"} {
				if strings.Contains(got, gone) {
					t.Errorf("%q is still seen:\n%s", gone, got)
				}
			}
		})
	}
}

// TestContentsFollowTheWayOfAccess changes a file through passthrough between
// two times that it is read through our page cache.
func TestContentsFollowTheWayOfAccess(t *testing.T) {
	p := newPlainTree(t)
	m, dir := mountTree(t, p, true)
	if err := m.dev.passthrough(p.dir); err != nil {
		t.Skip(err)
	}
	f := dir + "/f"
	must(t, os.WriteFile(f, []byte("one"), 0o644))
	read := func(serve bool, want string) {
		t.Helper()
		if _, err := m.settle(ctx); err != nil {
			t.Fatal(err)
		}
		waitIdle(t, m)
		p.serve.Store(serve)
		b, err := os.ReadFile(f)
		must(t, err)
		if string(b) != want {
			t.Errorf("read %q, want %q (served: %v)", b, want, serve)
		}
		waitIdle(t, m)
	}
	read(true, "one")
	read(true, "one")
	p.serve.Store(false)
	must(t, os.WriteFile(f, []byte("two"), 0o644))
	read(false, "two")
	read(true, "two")
	read(true, "two")
	if n := p.counted("ReadAt"); n != 2 {
		t.Errorf("read %d times through the mount, want twice: the kernel keeps what did not change", n)
	}
}

// waitIdle waits until the kernel has told that everything is closed.
func waitIdle(t *testing.T, m *rwMount) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		m.handles.mu.Lock()
		n := len(m.handles.list) - len(m.handles.free)
		m.handles.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d files stay open", n)
		}
	}
}

// childFill writes until the disk is full and says how it was told.
func childFill(args []string) error {
	block := bytes.Repeat([]byte("full "), 20_000)
	var total int
	for i := 0; ; i++ {
		f, err := os.Create(fmt.Sprintf("%s/f%d", args[0], i))
		if err != nil {
			fmt.Printf("%v", errors.Is(err, unix.ENOSPC))
			return nil
		}
		for range 20 {
			n, err := f.Write(block)
			total += n
			if err != nil {
				fmt.Printf("%v", errors.Is(err, unix.ENOSPC))
				return nil
			}
		}
		if total > 256<<20 {
			return fmt.Errorf("the disk takes more than it has")
		}
		f.Close()
	}
}
