package mount

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLikeNative does the same random things in our folder and in one of the disk
// below, and wants the same answers, contents and attributes from both: with
// reads, writes, appends, truncation, holes, shared and private mappings,
// renames over, exchanges, links, symbolic links, folders, unlinking of open
// files.
func TestLikeNative(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		native := t.TempDir()
		steps := "4000"
		if testing.Short() {
			steps = "500"
		}
		for seed := range 4 {
			must(t, os.Mkdir(fmt.Sprintf("%s/%d", dir, seed), 0o755))
			must(t, os.Mkdir(fmt.Sprintf("%s/%d", native, seed), 0o755))
			out, err := child(t, "twins", fmt.Sprintf("%s/%d", native, seed), fmt.Sprintf("%s/%d", dir, seed), strconv.Itoa(seed), steps).Output()
			if err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, out)
			}
			t.Logf("seed %d: %s", seed, out)
		}
	})
}

// twins is a native folder and ours.
type twins struct {
	root [2]string
	rnd  *rand.Rand
	open []twinFile
	step int
	log  []string
	good int
}

type twinFile struct {
	fd    [2]int
	flags int
	name  string
}

func init() { children["twins"] = childTwins }

func childTwins(args []string) error {
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	steps, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	w := &twins{root: [2]string{args[0], args[1]}, rnd: rand.New(rand.NewPCG(seed, 42))}
	for w.step = range steps {
		if err := w.one(); err != nil {
			for _, l := range w.log[max(0, len(w.log)-12):] {
				fmt.Println(l)
			}
			return err
		}
		if w.step%500 == 499 {
			if err := w.compare(""); err != nil {
				return err
			}
		}
	}
	for len(w.open) > 0 {
		w.closeFile(0)
	}
	if err := w.compare(""); err != nil {
		return err
	}
	fmt.Printf("%d of %d steps succeeded", w.good, steps)
	return nil
}

var twinDirs = []string{"", "a/", "b/", "a/c/", "a/c/d/"}

func (w *twins) path() string {
	return twinDirs[w.rnd.IntN(len(twinDirs))] + "f" + strconv.Itoa(w.rnd.IntN(12))
}

// both does something in both folders and wants the same error.
func (w *twins) both(what string, f func(i int, root string) error) error {
	w.log = append(w.log, fmt.Sprintf("%d: %s", w.step, what))
	e0, e1 := f(0, w.root[0]+"/"), f(1, w.root[1]+"/")
	var a, b unix.Errno
	errors.As(e0, &a)
	errors.As(e1, &b)
	if (e0 == nil) != (e1 == nil) || a != b {
		return fmt.Errorf("step %d: %s: natively %v, here %v", w.step, what, e0, e1)
	}
	if e0 == nil {
		w.good++
	}
	return nil
}

// same is both with results to compare.
func (w *twins) same(what string, f func(i int, root string) (any, error)) error {
	var got [2]any
	err := w.both(what, func(i int, root string) error {
		var err error
		got[i], err = f(i, root)
		return err
	})
	if err == nil && fmt.Sprint(got[0]) != fmt.Sprint(got[1]) {
		return fmt.Errorf("step %d: %s: natively %.300v, here %.300v", w.step, what, got[0], got[1])
	}
	return err
}

func (w *twins) data() []byte {
	n := w.rnd.IntN(20000)
	if w.rnd.IntN(4) == 0 {
		n = w.rnd.IntN(100)
	}
	b := make([]byte, n)
	c := byte(w.rnd.IntN(256))
	for i := range b {
		b[i] = c + byte(i)
	}
	return b
}

func (w *twins) closeFile(i int) {
	f := w.open[i]
	unix.Close(f.fd[0])
	unix.Close(f.fd[1])
	w.open = append(w.open[:i], w.open[i+1:]...)
}

func (w *twins) one() error {
	p, q := w.path(), w.path()
	switch op := w.rnd.IntN(28); op {
	case 0, 1, 2:
		flags := []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR}[w.rnd.IntN(3)]
		for _, f := range []int{unix.O_CREAT, unix.O_CREAT, unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND} {
			if w.rnd.IntN(3) == 0 {
				flags |= f
			}
		}
		f := twinFile{flags: flags, name: p}
		err := w.both(fmt.Sprintf("open %s %#x", p, flags), func(i int, root string) error {
			var err error
			f.fd[i], err = unix.Open(root+p, flags|unix.O_CLOEXEC, 0o644)
			return err
		})
		if err == nil && f.fd[0] > 0 {
			w.open = append(w.open, f)
			if len(w.open) > 8 {
				w.closeFile(w.rnd.IntN(len(w.open)))
			}
		}
		return err
	case 3:
		d := twinDirs[1+w.rnd.IntN(len(twinDirs)-1)]
		return w.both("mkdir "+d, func(_ int, root string) error { return unix.Mkdir(root+d, 0o755) })
	case 4:
		if w.rnd.IntN(8) != 0 {
			return nil
		}
		d := twinDirs[1+w.rnd.IntN(len(twinDirs)-1)]
		return w.both("rmdir "+d, func(_ int, root string) error { return unix.Rmdir(filepath.Clean(root + d)) })
	case 5, 6:
		return w.both("unlink "+p, func(_ int, root string) error { return unix.Unlink(root + p) })
	case 7, 8:
		return w.both("rename "+p+" "+q, func(_ int, root string) error { return unix.Rename(root+p, root+q) })
	case 9:
		flag := []uint{unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[w.rnd.IntN(2)]
		return w.both(fmt.Sprintf("rename2 %s %s %d", p, q, flag), func(_ int, root string) error {
			return unix.Renameat2(unix.AT_FDCWD, root+p, unix.AT_FDCWD, root+q, flag)
		})
	case 10:
		return w.both("link "+p+" "+q, func(_ int, root string) error { return unix.Link(root+p, root+q) })
	case 11:
		return w.both("symlink "+p+" "+q, func(_ int, root string) error { return unix.Symlink(filepath.Base(p), root+q) })
	case 12:
		size := int64(w.rnd.IntN(60000))
		return w.both(fmt.Sprintf("truncate %s %d", p, size), func(_ int, root string) error { return unix.Truncate(root+p, size) })
	case 13:
		mode := uint32(0o600 | w.rnd.IntN(0o200))
		return w.both(fmt.Sprintf("chmod %s %o", p, mode), func(_ int, root string) error { return unix.Chmod(root+p, mode) })
	case 14:
		ts := []unix.Timespec{{Sec: int64(w.rnd.IntN(1 << 30)), Nsec: 5}, {Sec: int64(w.rnd.IntN(1 << 30)), Nsec: 7}}
		return w.same("utimes "+p, func(_ int, root string) (any, error) {
			if err := unix.UtimesNanoAt(unix.AT_FDCWD, root+p, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return nil, err
			}
			var st unix.Stat_t
			err := unix.Lstat(root+p, &st)
			return fmt.Sprint(st.Mtim, st.Atim), err
		})
	case 15:
		return w.same("stat "+p, func(_ int, root string) (any, error) { return statText(root + p) })
	case 16:
		return w.same("read "+p, func(_ int, root string) (any, error) {
			b, err := os.ReadFile(root + p)
			return string(b), err
		})
	case 17:
		d := twinDirs[w.rnd.IntN(len(twinDirs))]
		return w.same("list "+d, func(_ int, root string) (any, error) { return listText(root + d) })
	case 18:
		return w.same("readlink "+p, func(_ int, root string) (any, error) { return os.Readlink(root + p) })
	}
	if len(w.open) == 0 {
		return nil
	}
	k := w.rnd.IntN(len(w.open))
	f := w.open[k]
	what := fmt.Sprintf("of %s (%#x) fds %v", f.name, f.flags, f.fd)
	off := int64(w.rnd.IntN(60000))
	switch w.rnd.IntN(12) {
	case 0, 1, 2:
		b := w.data()
		return w.same(fmt.Sprintf("pwrite %d at %d %s", len(b), off, what), func(i int, _ string) (any, error) { return unix.Pwrite(f.fd[i], b, off) })
	case 3:
		b := w.data()
		return w.same("write "+what, func(i int, _ string) (any, error) { return unix.Write(f.fd[i], b) })
	case 4, 5:
		n := w.rnd.IntN(70000)
		return w.same(fmt.Sprintf("pread %d at %d %s", n, off, what), func(i int, _ string) (any, error) {
			b := make([]byte, n)
			c, err := unix.Pread(f.fd[i], b, off)
			return string(b[:max(c, 0)]), err
		})
	case 6:
		size := int64(w.rnd.IntN(60000))
		return w.both(fmt.Sprintf("ftruncate %d %s", size, what), func(i int, _ string) error { return unix.Ftruncate(f.fd[i], size) })
	case 7:
		return w.same("fstat "+what, func(i int, _ string) (any, error) {
			var st unix.Stat_t
			err := unix.Fstat(f.fd[i], &st)
			return fmt.Sprintf("%o %d %d", st.Mode, st.Nlink, st.Size), err
		})
	case 8:
		mode := []uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE}[w.rnd.IntN(4)]
		n := int64(1 + w.rnd.IntN(20000))
		return w.both(fmt.Sprintf("fallocate %#x %d %d %s", mode, off, n, what), func(i int, _ string) error { return unix.Fallocate(f.fd[i], mode, off, n) })
	case 9:
		b := w.data()
		c := byte(w.rnd.IntN(256))
		share := w.rnd.IntN(3) > 0
		return w.same(fmt.Sprintf("mmap shared=%v %s", share, what), func(i int, _ string) (any, error) { return mapAndWrite(f.fd[i], share, b, c) })
	case 10:
		w.log = append(w.log, "close "+what)
		w.closeFile(k)
	case 11:
		return w.both("fsync "+what, func(i int, _ string) error { return unix.Fsync(f.fd[i]) })
	}
	return nil
}

// mapAndWrite maps a file, reads it through the mapping, writes somewhere in it
// and returns what the file reads as afterwards.
func mapAndWrite(fd int, share bool, b []byte, c byte) (any, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size == 0 {
		return "empty", nil
	}
	flags := unix.MAP_PRIVATE
	if share {
		flags = unix.MAP_SHARED
	}
	m, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, err
	}
	before := bytes.Clone(m)
	at := int(c) * len(m) / 256
	copy(m[at:], b)
	after := bytes.Clone(m)
	if share && c%2 == 0 {
		if err := unix.Msync(m, unix.MS_SYNC); err != nil {
			return nil, err
		}
	}
	if err := unix.Munmap(m); err != nil {
		return nil, err
	}
	now := make([]byte, st.Size)
	n, err := unix.Pread(fd, now, 0)
	if err != nil {
		return nil, err
	}
	return string(before) + string(after) + string(now[:n]), nil
}

func statText(p string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return "", err
	}
	size, nlink := st.Size, st.Nlink
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size, nlink = 0, 0 // up to the file system
	}
	return fmt.Sprintf("%o %d %d", st.Mode, nlink, size), nil
}

func listText(p string) (string, error) {
	list, err := os.ReadDir(p)
	if err != nil {
		return "", err
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name()+" "+e.Type().String())
	}
	sort.Strings(out)
	return fmt.Sprint(out), nil
}

// compare walks both folders.
func (w *twins) compare(rel string) error {
	var got [2]string
	for i, root := range w.root {
		var err error
		if got[i], err = treeText(root); err != nil {
			return err
		}
	}
	if got[0] != got[1] {
		return fmt.Errorf("step %d: the folders differ:\n%s\n---\n%s", w.step, got[0], got[1])
	}
	return nil
}

// treeText tells all that is in a folder.
func treeText(root string) (string, error) {
	var out bytes.Buffer
	err := filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		st, err := statText(p)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s %s", rel, st)
		switch {
		case e.Type().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %x", sum(b))
		case e.Type()&os.ModeSymlink != 0:
			l, err := os.Readlink(p)
			if err != nil {
				return err
			}
			out.WriteString(" -> " + l)
		}
		out.WriteByte('\n')
		return nil
	})
	return out.String(), err
}
