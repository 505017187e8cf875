package mount

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hanwen/go-fuse/v2/posixtest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needMount skips a test where nothing can be mounted.
func needMount(t testing.TB) {
	t.Helper()
	if err := available(); err != nil {
		t.Skip(err)
	}
}

// mountTree mounts a tree writable for the time of a test.
func mountTree(t testing.TB, tr tree, passthrough bool) (*rwMount, string) {
	t.Helper()
	needMount(t)
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	m, err := mountRW(dir, tr, fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}, log, passthrough)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, m.unmount()) })
	must(t, m.dev.serve())
	if passthrough {
		if err := m.dev.passthrough(t.TempDir()); err != nil {
			t.Logf("without passthrough: %v", err)
		}
	}
	return m, dir
}

// TestOrdinaryDisk runs the suite that go-fuse checks file systems with.
func TestOrdinaryDisk(t *testing.T) {
	for name, fn := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if name == "FcntlFlockLocksFile" {
				t.Skip("it wants a lock of the process against the process itself, which no file system of Linux gives")
			}
			each(t, func(t *testing.T, dir string) {
				if name == "FdLeak" && strings.HasSuffix(t.Name(), "/volume") {
					t.Skip("the volume keeps a bounded stock of open files for new ones")
				}
				fn(t, dir)
			})
		})
	}
}
