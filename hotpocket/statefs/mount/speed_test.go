package mount

import (
	"os"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// loopback mounts what go-fuse's example mounts.
func loopback(t testing.TB, passthrough bool) string {
	needMount(t)
	root, err := fs.NewLoopbackRoot(t.TempDir())
	must(t, err)
	sec := time.Second
	opts := &fs.Options{AttrTimeout: &sec, EntryTimeout: &sec, NullPermissions: true}
	opts.MountOptions = fuse.MountOptions{DirectMount: true, FsName: "x", Name: "loopback"}
	if !passthrough {
		opts.MountOptions.DisabledCapabilities = fuse.CAP_PASSTHROUGH
	}
	dir := t.TempDir()
	s, err := fs.Mount(dir, root, opts)
	must(t, err)
	t.Cleanup(func() { must(t, s.Unmount()) })
	return dir
}

func TestSpeedBeside(t *testing.T) {
	if os.Getenv("MOUNT_SPEED") == "" {
		t.Skip("measures only when MOUNT_SPEED is set")
	}
	dirs := []struct{ name, dir string }{
		{"native", t.TempDir()},
		{"loopback", loopback(t, false)},
		{"loopback passthrough", loopback(t, true)},
	}
	p := newPlainTree(t)
	_, ours := mountTree(t, p, true)
	s := newPlainTree(t)
	s.serve = true
	_, served := mountTree(t, s, true)
	st := openState(t, t.TempDir())
	r, err := st.Begin(ctx, 1)
	must(t, err)
	dirs = append(dirs, struct{ name, dir string }{"state", r.Dir()})
	dirs = append(dirs, struct{ name, dir string }{"ours", ours}, struct{ name, dir string }{"ours served", served})
	for _, l := range []struct {
		kind string
		n    int
	}{{"create", 5000}, {"stat", 5000}, {"write", 256}, {"read", 256}, {"write4k", 64}, {"write", 256}} {
		for _, d := range dirs {
			t.Logf("%-8s %-22s %v", l.kind, d.name, load(t, d.dir, l.kind, l.n))
		}
		if l.kind == "stat" || l.kind == "write" {
			a := time.Now()
			_, _, err := r.End(ctx)
			must(t, err)
			t.Logf("end %v", time.Since(a))
			a = time.Now()
			must(t, r.Commit(ctx))
			t.Logf("commit %v", time.Since(a))
			r, err = st.Begin(ctx, 2)
			must(t, err)
		}
	}
	for _, d := range dirs {
		t.Logf("%-8s %-22s %v", "random", d.name, load(t, d.dir, "random", 10000))
	}
	a := time.Now()
	_, _, err = r.End(ctx)
	must(t, err)
	t.Logf("end %v", time.Since(a))
}
