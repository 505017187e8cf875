package volume

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

var ctx = context.Background()

type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openTest(t testing.TB, dir string, opts ...func(*Config)) *Volume {
	t.Helper()
	cfg := Config{Dir: dir, Log: quiet(), Passthrough: true}
	for _, o := range opts {
		o(&cfg)
	}
	v, err := Open(ctx, cfg)
	must(t, err)
	t.Cleanup(func() { v.Close() })
	return v
}

// world is a folder that operations are done on: a volume or a real one.
type world interface {
	write(path string, off int64, data []byte, flags int) error
	truncate(path string, size int64) error
	mkdir(path string, mode uint32) error
	symlink(target, path string) error
	link(old, path string) error
	unlink(path string) error
	rmdir(path string) error
	rename(old, path string, flags uint) error
	chmod(path string, mode uint32) error
	fifo(path string) error
	read(path string) ([]byte, error)
	list(path string) ([]string, error)
	nlink(path string) (uint64, error)
	allocate(path string, mode uint32, off, n int64) error
}

// real is a real folder.
type realDir string

func (r realDir) p(path string) string { return filepath.Join(string(r), path) }
func (r realDir) open(path string, flags int) (int, error) {
	fd, err := unix.Open(r.p(path), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return fd, err
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st); st.Mode&unix.S_IFMT == unix.S_IFIFO {
		unix.Close(fd)
		return -1, unix.ENXIO
	}
	return fd, nil
}
func (r realDir) write(path string, off int64, data []byte, flags int) error {
	fd, err := r.open(path, flags|unix.O_RDWR)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if len(data) > 0 {
		_, err = unix.Pwrite(fd, data, off)
	}
	return err
}
func (r realDir) truncate(path string, size int64) error {
	fd, err := r.open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Ftruncate(fd, size)
}
func (r realDir) mkdir(path string, mode uint32) error {
	if err := unix.Mkdir(r.p(path), 0o700); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(r.p(path), &st); err != nil {
		return err
	}
	return unix.Chmod(r.p(path), mode|st.Mode&unix.S_ISGID)
}
func (r realDir) symlink(target, path string) error { return unix.Symlink(target, r.p(path)) }
func (r realDir) link(old, path string) error       { return unix.Link(r.p(old), r.p(path)) }
func (r realDir) unlink(path string) error          { return unix.Unlink(r.p(path)) }
func (r realDir) rmdir(path string) error           { return unix.Rmdir(r.p(path)) }
func (r realDir) rename(old, path string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, r.p(old), unix.AT_FDCWD, r.p(path), flags)
}
func (r realDir) chmod(path string, mode uint32) error {
	var st unix.Stat_t
	if err := unix.Lstat(r.p(path), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return unix.Chmod(r.p(path), mode)
}
func (r realDir) fifo(path string) error { return unix.Mkfifo(r.p(path), 0o600) }
func (r realDir) read(path string) ([]byte, error) {
	fd, err := r.open(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var buf bytes.Buffer
	_, err = buf.ReadFrom(f)
	return buf.Bytes(), err
}
func (r realDir) list(path string) ([]string, error) {
	list, err := os.ReadDir(r.p(path))
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, err
}
func (r realDir) nlink(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Lstat(r.p(path), &st)
	return uint64(st.Nlink), err
}
func (r realDir) allocate(path string, mode uint32, off, n int64) error {
	fd, err := r.open(path, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fallocate(fd, mode, off, n)
}

// vol is a volume, with paths.
type vol struct{ v *Volume }

func (w vol) walk(path string) (Attr, error) {
	a, err := w.v.Attr(Root)
	if path == "" || err != nil {
		return a, err
	}
	for _, name := range strings.Split(path, "/") {
		if a, err = w.v.Lookup(a.Ino, name); err != nil {
			return a, err
		}
	}
	return a, nil
}
func (w vol) parent(path string) (Ino, string, error) {
	dir, name := filepath.Split(path)
	a, err := w.walk(strings.TrimSuffix(dir, "/"))
	return a.Ino, name, err
}
func (w vol) open(path string, flags int) (*File, error) {
	p, name, err := w.parent(path)
	if err != nil {
		return nil, err
	}
	a, err := w.v.Lookup(p, name)
	if err == unix.ENOENT && flags&unix.O_CREAT != 0 {
		_, f, err := w.v.Create(p, name, 0o644, uint32(flags))
		return f, err
	}
	if err != nil {
		return nil, err
	}
	if a.Kind == statefs.KindSymlink {
		return nil, unix.ELOOP
	}
	if a.Kind == 0 {
		return nil, unix.ENXIO
	}
	return w.v.OpenFile(a.Ino, uint32(flags))
}

// put writes as the kernel would: through the backing if there is one.
func put(f *File, off int64, data []byte) error {
	if fd, _ := f.Backing(); fd >= 0 {
		p := fmt.Sprintf("/proc/self/fd/%d", fd)
		g, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer g.Close()
		_, err = g.WriteAt(data, off)
		return err
	}
	_, err := f.WriteAt(data, off)
	return err
}

func (w vol) write(path string, off int64, data []byte, flags int) error {
	f, err := w.open(path, flags|unix.O_RDWR)
	if err != nil {
		return err
	}
	if len(data) > 0 {
		err = put(f, off, data)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
func (w vol) truncate(path string, size int64) error {
	f, err := w.open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = w.v.SetAttr(f.Ino(), Change{Size: ptr(uint64(size))})
	return err
}
func (w vol) mkdir(path string, mode uint32) error {
	p, name, err := w.parent(path)
	if err == nil {
		_, err = w.v.Mkdir(p, name, mode)
	}
	return err
}
func (w vol) symlink(target, path string) error {
	p, name, err := w.parent(path)
	if err == nil {
		_, err = w.v.Symlink(p, name, target)
	}
	return err
}
func (w vol) link(old, path string) error {
	a, err := w.walk(old)
	if err != nil {
		return err
	}
	p, name, err := w.parent(path)
	if err == nil {
		_, err = w.v.Link(a.Ino, p, name)
	}
	return err
}
func (w vol) unlink(path string) error {
	p, name, err := w.parent(path)
	if err == nil {
		err = w.v.Unlink(p, name)
	}
	return err
}
func (w vol) rmdir(path string) error {
	p, name, err := w.parent(path)
	if err == nil {
		err = w.v.Rmdir(p, name)
	}
	return err
}
func (w vol) rename(old, path string, flags uint) error {
	p, name, err := w.parent(old)
	if err != nil {
		return err
	}
	q, to, err := w.parent(path)
	if err == nil {
		err = w.v.Rename(p, name, q, to, uint32(flags))
	}
	return err
}
func (w vol) chmod(path string, mode uint32) error {
	a, err := w.walk(path)
	if err == nil {
		_, err = w.v.SetAttr(a.Ino, Change{Mode: &mode})
	}
	return err
}
func (w vol) fifo(path string) error {
	p, name, err := w.parent(path)
	if err == nil {
		_, err = w.v.Mknod(p, name, unix.S_IFIFO|0o600)
	}
	return err
}
func (w vol) read(path string) ([]byte, error) {
	f, err := w.open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := w.v.Attr(f.Ino())
	if err != nil {
		return nil, err
	}
	buf := make([]byte, a.Size+10)
	n, err := f.ReadAt(buf, 0)
	if err == nil && uint64(n) != a.Size {
		err = fmt.Errorf("read %d bytes of %d", n, a.Size)
	}
	return buf[:n], err
}
func (w vol) list(path string) ([]string, error) {
	a, err := w.walk(path)
	if err != nil {
		return nil, err
	}
	d, err := w.v.OpenDir(a.Ino)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var names []string
	for cookie := uint64(0); ; {
		n := 0
		err := d.Read(cookie, func(e Dirent) bool {
			if n == 7 {
				return false
			}
			n++
			cookie = e.Next
			if e.Name != "." && e.Name != ".." {
				names = append(names, e.Name)
			}
			return true
		})
		if err != nil || n == 0 {
			return names, err
		}
	}
}
func (w vol) nlink(path string) (uint64, error) {
	a, err := w.walk(path)
	return uint64(a.Nlink), err
}
func (w vol) allocate(path string, mode uint32, off, n int64) error {
	f, err := w.open(path, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Allocate(mode, off, n)
}

// op is one random operation.
func randomOp(rng *rand.Rand) func(world) (string, error) {
	var name func(depth int) string
	name = func(depth int) string {
		n := fmt.Sprint(string(rune('a'+rng.IntN(5))), rng.IntN(6))
		if depth > 0 && rng.IntN(2) == 0 {
			return fmt.Sprint("d", rng.IntN(4)) + "/" + name(depth-1)
		}
		if rng.IntN(3) == 0 {
			return fmt.Sprint("d", rng.IntN(4))
		}
		return n
	}
	a, b := name(2), name(2)
	switch k := rng.IntN(19); k {
	case 0, 1, 2, 3:
		data := make([]byte, []int{0, 1, 100, 5000, 70000, 300000}[rng.IntN(6)])
		fill := byte(rng.IntN(256))
		for i := range data {
			data[i] = fill + byte(i>>10)
		}
		off := int64(0)
		if rng.IntN(2) == 0 {
			off = int64(rng.IntN([]int{10, 10000, 400000}[rng.IntN(3)]))
		}
		flags := []int{unix.O_CREAT, unix.O_CREAT | unix.O_TRUNC, 0}[rng.IntN(3)]
		return func(w world) (string, error) {
			return fmt.Sprintf("write %s %d at %d %#x", a, len(data), off, flags), w.write(a, off, data, flags)
		}
	case 4:
		size := int64(rng.IntN([]int{10, 10000, 600000}[rng.IntN(3)]))
		return func(w world) (string, error) { return fmt.Sprintf("truncate %s %d", a, size), w.truncate(a, size) }
	case 5, 6:
		mode := []uint32{0o755, 0o700, 0o2755, 0o1777}[rng.IntN(4)]
		return func(w world) (string, error) { return fmt.Sprintf("mkdir %s %#o", a, mode), w.mkdir(a, mode) }
	case 7:
		return func(w world) (string, error) { return "symlink " + a, w.symlink("nowhere/"+b, a) }
	case 8:
		return func(w world) (string, error) { return "link " + a + " " + b, w.link(a, b) }
	case 9, 10:
		return func(w world) (string, error) { return "unlink " + a, w.unlink(a) }
	case 11:
		return func(w world) (string, error) { return "rmdir " + a, w.rmdir(a) }
	case 12, 13, 14:
		flags := []uint{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[rng.IntN(4)]
		return func(w world) (string, error) {
			return fmt.Sprintf("rename %s %s %d", a, b, flags), w.rename(a, b, flags)
		}
	case 15:
		mode := uint32(rng.IntN(0o10000)) | 0o600
		return func(w world) (string, error) { return fmt.Sprintf("chmod %s %#o", a, mode), w.chmod(a, mode) }
	case 16:
		return func(w world) (string, error) { return "fifo " + a, w.fifo(a) }
	case 17:
		mode := []uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE}[rng.IntN(5)]
		off, n := int64(rng.IntN(400000)), int64(1+rng.IntN(200000))
		return func(w world) (string, error) {
			return fmt.Sprintf("allocate %s %#x %d %d", a, mode, off, n), w.allocate(a, mode, off, n)
		}
	default:
		return func(w world) (string, error) {
			data, err := w.read(a)
			list, err2 := w.list("d0")
			sort.Strings(list)
			n, _ := w.nlink(b)
			if err2 == nil && strings.Contains(b, "d") {
				n = 0 // ext4 counts folders differently from 1 on
			}
			return fmt.Sprint("read ", a, digest.Sum(data).Short(), list, n), firstErr(err, err2)
		}
	}
}

func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// The same operations on a volume and on a plain folder give the same answers
// and the same roots, whatever is committed, rolled back or restarted between.
func TestSameRootsAsThePlainFolder(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			dir := t.TempDir()
			pass := func(c *Config) { c.Passthrough = seed%2 == 0 }
			d, err := statefs.OpenDir(ctx, statefs.Config{Dir: dir + "/plain", Log: quiet()})
			must(t, err)
			defer func() { d.Close(); statefs.Release(dir + "/plain") }()
			v := openTest(t, dir+"/volume", pass)
			for seq := uint64(1); seq <= uint64(rounds); seq++ {
				r, err := d.Begin(ctx, seq)
				must(t, err)
				must(t, v.Begin(ctx, seq))
				for range 5 + rng.IntN(60) {
					op := randomOp(rng)
					what, err1 := op(realDir(r.Dir()))
					what2, err2 := op(vol{v})
					if what != what2 || (err1 == nil) != (err2 == nil) {
						t.Fatalf("run %d: %s: %v; volume %s: %v", seq, what, err1, what2, err2)
					}
				}
				if rng.IntN(5) == 0 {
					must(t, r.Rollback(ctx))
					must(t, v.Rollback(ctx))
				} else {
					want, _, err := r.End(ctx)
					must(t, err)
					got, err := v.End(ctx)
					must(t, err)
					if got != want {
						t.Fatalf("run %d: root %s, the plain folder has %s\n%s", seq, got.Short(), want.Short(), compare(r.Dir(), v))
					}
					if rng.IntN(4) == 0 {
						must(t, r.Rollback(ctx))
						must(t, v.Rollback(ctx))
					} else {
						must(t, r.Commit(ctx))
						must(t, v.Commit(ctx, nil))
					}
				}
				if a, b := d.Agreed(), v.Agreed(); a != b {
					t.Fatalf("agreed %v, the plain folder %v", b, a)
				}
				if rng.IntN(6) == 0 {
					must(t, v.Close())
					v = openTest(t, dir+"/volume", pass)
					if v.Damaged() {
						t.Fatal("damaged after a restart")
					}
				}
			}
		})
	}
}

// compare lists where a folder and the working tree differ.
func compare(dir string, v *Volume) string {
	var b strings.Builder
	w := vol{v}
	var walk func(path string)
	walk = func(path string) {
		l1, _ := realDir(dir).list(path)
		l2, _ := w.list(path)
		sort.Strings(l2)
		if fmt.Sprint(l1) != fmt.Sprint(l2) {
			fmt.Fprintf(&b, "%q lists %v, volume %v\n", path, l1, l2)
		}
		for _, name := range l1 {
			p := join(path, name)
			var st unix.Stat_t
			unix.Lstat(filepath.Join(dir, p), &st)
			a, err := w.walk(p)
			if err != nil {
				continue
			}
			if a.Mode != st.Mode {
				fmt.Fprintf(&b, "%s has mode %#o, volume %#o\n", p, st.Mode, a.Mode)
			}
			switch a.Kind {
			case statefs.KindDir:
				walk(p)
			case statefs.KindFile:
				x, _ := realDir(dir).read(p)
				y, err := w.read(p)
				if !bytes.Equal(x, y) {
					fmt.Fprintf(&b, "%s has %d bytes, volume %d (%v)\n", p, len(x), len(y), err)
				}
				if n := v.live[a.Ino].n; n.hash != digest.Sum(y) {
					fmt.Fprintf(&b, "%s has node %s, content %s\n", p, n.hash.Short(), digest.Sum(y).Short())
				}
			}
		}
	}
	walk("")
	return b.String()
}
