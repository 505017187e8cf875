package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"evernode/hotpocket/statefs"

	"golang.org/x/sys/unix"
)

func openView(t *testing.T, s *State) statefs.View {
	t.Helper()
	v, err := s.View(ctx)
	must(t, err)
	return v
}

func TestViewShowsTheAgreedVersionWhileTheNextRunWrites(t *testing.T) {
	s := openState(t, t.TempDir())
	large := bytes.Repeat([]byte("0123456789"), 200_000)
	work := func(seq uint64) func(dir string) {
		return func(dir string) {
			must(t, os.MkdirAll(fmt.Sprintf("%s/d/%d", dir, seq), 0o755))
			must(t, os.WriteFile(dir+"/f", fmt.Appendf(nil, "version %d", seq), 0o644))
			must(t, os.WriteFile(dir+"/d/large", append(large, byte(seq)), 0o600))
			os.Remove(dir + "/l")
			must(t, os.Symlink(fmt.Sprint(seq), dir+"/l"))
			must(t, os.WriteFile(dir+"/../patch.cfg", fmt.Appendf(nil, "patch %d", seq), 0o644))
			must(t, os.WriteFile(dir+"/../own.key", fmt.Appendf(nil, "key %d", seq), 0o600))
			must(t, os.MkdirAll(dir+"/../owndir/sub", 0o700))
			must(t, os.WriteFile(dir+"/../owndir/sub/x", nil, 0o600))
		}
	}
	type seen struct {
		v    statefs.View
		text string
	}
	var views []seen
	for seq := uint64(1); seq < 6; seq++ {
		agreed := commitRun(t, s, seq, work(seq))
		r, err := s.Begin(ctx, seq+1)
		must(t, err)
		must(t, os.WriteFile(r.Dir()+"/f", []byte("not agreed"), 0o644))
		must(t, os.RemoveAll(r.Dir()+"/d"))
		v := openView(t, s)
		if v.Version() != agreed {
			t.Errorf("view of %v, want %v", v.Version(), agreed)
		}
		text, err := treeText(v.Dir())
		must(t, err)
		must(t, r.Rollback(ctx))
		want, err := treeText(s.paths.state)
		must(t, err)
		if text != strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(want, "40755", "40555"), "100644", "100444"), "100600", "100400") {
			t.Errorf("version %d shows\n%s\nwant\n%s", seq, text, want)
		}
		if b, err := os.ReadFile(v.Dir() + "/../patch.cfg"); string(b) != fmt.Sprintf("patch %d", seq) {
			t.Errorf("version %d has patch.cfg %q, %v", seq, b, err)
		}
		views = append(views, seen{v, text})
	}
	for i, x := range views {
		text, err := treeText(x.v.Dir())
		must(t, err)
		if text != x.text {
			t.Errorf("version %d has changed:\n%s\nbefore:\n%s", i+1, text, x.text)
		}
		// Private files are those of now.
		if b, err := os.ReadFile(x.v.Dir() + "/../own.key"); string(b) != "key 5" {
			t.Errorf("version %d has the private file %q, %v", i+1, b, err)
		}
		list, err := listText(filepath.Dir(x.v.Dir()))
		if want := "[own.key ---------- owndir d--------- patch.cfg ---------- state d---------]"; list != want {
			t.Errorf("beside version %d there is %s, %v; want %s", i+1, list, err, want)
		}
		must(t, x.v.Close())
		if _, err := os.Stat(x.v.Dir()); i < len(views)-1 && !os.IsNotExist(err) {
			t.Errorf("version %d is there after its last view: %v", i+1, err)
		}
	}
}

// childRefused tries all that changes something below and beside a view.
func childRefused(args []string) error {
	if len(args) > 1 {
		var uid int
		fmt.Sscan(args[1], &uid)
		if err := errors.Join(unix.Setgroups(nil), unix.Setresgid(uid, uid, uid)); err != nil {
			return err
		}
		if err := unix.Setresuid(uid, uid, uid); err != nil {
			return err
		}
	}
	if err := os.Chdir(args[0]); err != nil {
		return err
	}
	open := func(name string, flags int) error {
		fd, err := unix.Open(name, flags, 0o644)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	for what, err := range map[string]error{
		"create":                open("new", unix.O_CREAT|unix.O_WRONLY),
		"create beside":         open("../new", unix.O_CREAT|unix.O_WRONLY),
		"open to write":         open("f", unix.O_WRONLY),
		"open to read, write":   open("f", unix.O_RDWR),
		"open to append":        open("f", unix.O_WRONLY|unix.O_APPEND),
		"open to truncate":      open("f", unix.O_RDONLY|unix.O_TRUNC),
		"truncate":              unix.Truncate("f", 0),
		"unlink":                unix.Unlink("f"),
		"rmdir":                 unix.Rmdir("d"),
		"mkdir":                 unix.Mkdir("e", 0o755),
		"rename":                unix.Rename("f", "g"),
		"rename beside":         unix.Rename("f", "../g"),
		"link":                  unix.Link("f", "g"),
		"symlink":               unix.Symlink("f", "g"),
		"mknod":                 unix.Mknod("g", unix.S_IFREG|0o644, 0),
		"chmod":                 unix.Chmod("f", 0o777),
		"write patch.cfg":       open("../patch.cfg", unix.O_WRONLY),
		"unlink patch.cfg":      unix.Unlink("../patch.cfg"),
		"write a private file":  open("../own", unix.O_WRONLY),
		"unlink a private file": unix.Unlink("../own"),
		"make a private file":   open("../owndir/new", unix.O_CREAT|unix.O_WRONLY),
		"create above":          open("../../new", unix.O_CREAT|unix.O_WRONLY),
	} {
		// The owner is refused to change modes in words of its own.
		if err != unix.EACCES && !(what == "chmod" && err == unix.EPERM) {
			fmt.Printf("%s: %v\n", what, err)
		}
	}
	for _, name := range []string{"f", "../own", "../patch.cfg"} {
		if _, err := os.ReadFile(name); err != nil {
			fmt.Printf("read %s: %v\n", name, err)
		}
	}
	return nil
}

func init() { children["refused"] = childRefused }

func TestViewRefusesEveryChange(t *testing.T) {
	run := func(t *testing.T, cfg statefs.Config, args ...string) {
		s, err := Open(ctx, cfg)
		must(t, err)
		defer s.Close()
		commitRun(t, s, 1, func(dir string) {
			must(t, os.WriteFile(dir+"/f", []byte("x"), 0o666))
			must(t, os.Mkdir(dir+"/d", 0o777))
			must(t, os.WriteFile(dir+"/../patch.cfg", []byte("p"), 0o666))
			must(t, os.WriteFile(dir+"/../own", []byte("o"), 0o644))
			must(t, os.Mkdir(dir+"/../owndir", 0o777))
			if o := cfg.Owner; o != nil {
				must(t, os.Chown(dir+"/../own", o.UID, o.GID))
				must(t, os.Chown(dir+"/../owndir", o.UID, o.GID))
			}
		})
		v := openView(t, s)
		out, err := child(t, "refused", append([]string{v.Dir()}, args...)...).Output()
		must(t, err)
		if len(out) > 0 {
			t.Errorf("not refused with EACCES, or not readable:\n%s", out)
		}
		must(t, v.Close())
	}
	needMount(t)
	t.Run("user of the node", func(t *testing.T) { run(t, config(t.TempDir())) })
	t.Run("user of the contract", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root can be somebody else")
		}
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o755))
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		cfg := config(dir)
		cfg.Owner = &statefs.Owner{UID: 4711, GID: 4711}
		run(t, cfg, "4711")
	})
}

// TestViewsAreCheap opens many views, at once and while versions change.
func TestViewsAreCheap(t *testing.T) {
	s := openState(t, t.TempDir())
	commitRun(t, s, 1, func(dir string) {
		must(t, os.WriteFile(dir+"/same", bytes.Repeat([]byte("same"), 1000), 0o644))
		must(t, os.WriteFile(dir+"/f", []byte("1"), 0o644))
	})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v, err := s.View(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				b, err := os.ReadFile(v.Dir() + "/f")
				if err != nil || string(b) != fmt.Sprint(v.Version().Seq) {
					t.Errorf("version %d reads %q, %v", v.Version().Seq, b, err)
				}
				if b, err := os.ReadFile(v.Dir() + "/same"); err != nil || len(b) != 4000 {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				if err := v.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for seq := uint64(2); seq < 40; seq++ {
		commitRun(t, s, seq, func(dir string) { must(t, os.WriteFile(dir+"/f", fmt.Append(nil, seq), 0o644)) })
	}
	close(stop)
	wg.Wait()
	s.ro.mu.Lock()
	n := len(s.ro.shown)
	s.ro.mu.Unlock()
	if n > 2 {
		t.Errorf("%d versions stay in the mount", n)
	}
}

// TestUnchangedFilesStayInTheCacheOverVersions counts the reads that reach the
// process.
func TestUnchangedFilesStayInTheCacheOverVersions(t *testing.T) {
	s := openState(t, t.TempDir())
	commitRun(t, s, 1, func(dir string) {
		must(t, os.WriteFile(dir+"/same", bytes.Repeat([]byte("same"), 100_000), 0o644))
	})
	var id [2]uint64
	for i := range id {
		v := openView(t, s)
		_, err := os.ReadFile(v.Dir() + "/same")
		must(t, err)
		s.ro.mu.Lock()
		for key, n := range s.ro.byKey {
			if key.kind == roFile {
				if id[i] != 0 {
					t.Error("the file is known twice")
				}
				id[i] = n.id
			}
		}
		s.ro.mu.Unlock()
		must(t, v.Close())
		commitRun(t, s, uint64(i+2), func(dir string) { must(t, os.WriteFile(fmt.Sprintf("%s/other%d", dir, i), nil, 0o644)) })
	}
	if id[0] != id[1] || id[0] == 0 {
		t.Errorf("an unchanged file is number %d, then %d", id[0], id[1])
	}
}

func TestClosedStateHasNoViews(t *testing.T) {
	s := openState(t, t.TempDir())
	must(t, s.Close())
	if _, err := s.View(ctx); !errors.Is(err, os.ErrClosed) {
		t.Errorf("view of a closed state: %v", err)
	}
}
