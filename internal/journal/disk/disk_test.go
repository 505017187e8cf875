package disk

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
)

// TestBothAlike does the same things to both file systems and wants the same
// results.
func TestBothAlike(t *testing.T) {
	for name, c := range map[string]struct {
		fsys FS
		dir  string
	}{"os": {OS{}, t.TempDir()}, "mem": {NewMem(), "m"}} {
		t.Run(name, func(t *testing.T) {
			f, dir := c.fsys, c.dir+"/a/b"
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := f.List(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("listing what is missing: %v", err)
			}
			must(f.MkdirAll(dir))
			must(f.MkdirAll(dir))
			if _, err := f.Open(dir + "/x"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("opening what is missing: %v", err)
			}
			if err := f.Remove(dir + "/x"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("removing what is missing: %v", err)
			}
			if err := f.Rename(dir+"/x", dir+"/y"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("renaming what is missing: %v", err)
			}
			if _, err := f.Create(dir + "/none/x"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("creating in what is missing: %v", err)
			}
			x, err := f.Create(dir + "/x")
			must(err)
			_, err = x.WriteAt([]byte("hello"), 3)
			must(err)
			must(x.Allocate(6)) // already longer
			must(x.Sync())
			must(f.SyncDir(dir))
			must(x.Close())
			y, err := f.Create(dir + "/y")
			must(err)
			must(y.Close())
			must(f.Rename(dir+"/x", dir+"/y"))
			y, err = f.Create(dir + "/y") // keeps the content
			must(err)
			b := make([]byte, 10)
			n, err := y.ReadAt(b, 0)
			if n != 8 || err != io.EOF || string(b[:8]) != "\x00\x00\x00hello" {
				t.Errorf("read %d %q %v", n, b, err)
			}
			if n, err := y.ReadAt(b[:2], 4); n != 2 || err != nil || string(b[:2]) != "el" {
				t.Errorf("read %d %q %v", n, b[:2], err)
			}
			must(y.Allocate(20))
			if n, err := y.Size(); n != 20 || err != nil {
				t.Errorf("size %d %v", n, err)
			}
			must(y.Truncate(4))
			must(y.Truncate(9))
			if n, err := y.ReadAt(b, 0); n != 9 || err != io.EOF || string(b[:9]) != "\x00\x00\x00h\x00\x00\x00\x00\x00" {
				t.Errorf("after cutting: %d %q %v", n, b, err)
			}
			if names, err := f.List(dir); err != nil || !slices.Equal(names, []string{"y"}) {
				t.Errorf("%v %v", names, err)
			}
			must(y.Close())
			if _, err := y.ReadAt(b, 0); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("reading a closed file: %v", err)
			}
			must(f.Remove(dir + "/y"))
			l, err := f.Lock(dir + "/lock")
			must(err)
			if _, err := f.Lock(dir + "/lock"); err == nil {
				t.Error("locked twice")
			}
			must(l.Close())
			l, err = f.Lock(dir + "/lock")
			must(err)
			must(l.Close())
		})
	}
}

// TestMemCrash checks the promises that Mem keeps and those that it breaks.
func TestMemCrash(t *testing.T) {
	lostData, keptData, tornData, lostName, keptName := 0, 0, 0, 0, 0
	for seed := range uint64(200) {
		m := NewMem()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		f, err := m.Create("f")
		must(err)
		_, err = f.WriteAt(make([]byte, 4*sector), 0)
		must(err)
		must(f.Sync())
		must(m.SyncDir("."))
		ones := make([]byte, 4*sector)
		for i := range ones {
			ones[i] = 1
		}
		_, err = f.WriteAt(ones, 0)
		must(err)
		_, err = m.Create("g")
		must(err)
		after := m.Crash(rand.New(rand.NewPCG(seed, 0)))
		if _, err := f.WriteAt(ones, 0); !errors.Is(err, ErrCrashed) {
			t.Fatalf("writing after the crash: %v", err)
		}
		f, err = after.Open("f")
		must(err)
		b := make([]byte, 4*sector)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		sum := 0
		for i, v := range b {
			sum += int(v)
			if v != b[i/sector*sector] {
				t.Fatal("a sector is torn")
			}
		}
		switch sum {
		case 0:
			lostData++
		case 4 * sector:
			keptData++
		default:
			tornData++
		}
		if _, err := after.Open("g"); err == nil {
			keptName++
		} else {
			lostName++
		}
	}
	if lostData == 0 || keptData == 0 || tornData == 0 || lostName == 0 || keptName == 0 {
		t.Errorf("lost %d, kept %d, torn %d; names lost %d, kept %d", lostData, keptData, tornData, lostName, keptName)
	}
}

// TestMemFailedSync checks that a sync that failed once proves nothing later.
func TestMemFailedSync(t *testing.T) {
	m := NewMem()
	f, err := m.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	m.FailWith(func(op Op, _ string) error {
		if op == OpSync {
			return syscall.EIO
		}
		return nil
	})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	m.FailWith(nil)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	lost := false
	for seed := range uint64(50) {
		f, err := m.Crash(rand.New(rand.NewPCG(seed, 0))).Open("f")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := f.Size(); err != nil || n == 0 {
			lost = true
		}
	}
	if !lost {
		t.Error("data whose sync failed is never lost")
	}
}
