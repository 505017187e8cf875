package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"evernode/hotpocket/statefs"

	"golang.org/x/sys/unix"
)

func init() { children["permissions"] = childPermissions }

// childPermissions makes files with all kinds of modes as the user it is told,
// does what may be refused, and prints the answers.
func childPermissions(args []string) error {
	dir := args[0]
	uid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := unix.Setgroups(nil); err != nil {
		return err
	}
	if err := unix.Setresgid(uid, uid, uid); err != nil {
		return err
	}
	if err := unix.Setresuid(uid, uid, uid); err != nil {
		return err
	}
	unix.Umask(0)
	if err := os.Chdir(dir); err != nil {
		return err
	}
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		return err
	}
	say := func(what string, err error) {
		var errno unix.Errno
		if errors.As(err, &errno) {
			err = errno
		}
		fmt.Printf("%s: %v\n", what, err)
	}
	open := func(p string, flags int) error {
		fd, err := unix.Open(p, flags, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	for _, mode := range []uint32{0, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600, 0o700, 0o077, 0o4755} {
		p := fmt.Sprintf("f%04o", mode)
		if err := os.WriteFile(p, program, 0o600); err != nil {
			return err
		}
		if err := unix.Chmod(p, mode); err != nil {
			return err
		}
		say(p+" read", open(p, unix.O_RDONLY))
		say(p+" write", open(p, unix.O_WRONLY))
		say(p+" both", open(p, unix.O_RDWR|unix.O_APPEND))
		say(p+" truncate", unix.Truncate(p, int64(len(program))))
		say(p+" open to truncate", open(p, unix.O_RDONLY|unix.O_TRUNC))
		for _, want := range []uint32{unix.R_OK, unix.W_OK, unix.X_OK, unix.R_OK | unix.X_OK} {
			say(fmt.Sprintf("%s access %d", p, want), unix.Access(p, want))
		}
		say(p+" times", unix.UtimesNano(p, []unix.Timespec{{Sec: 5}, {Sec: 6}}))
		if err := os.Chmod(p, 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(p, program, 0o600); err != nil {
			return err
		}
		if err := unix.Chmod(p, mode); err != nil {
			return err
		}
		say(p+" run", exec.Command("./"+p).Run())

		d := fmt.Sprintf("d%04o", mode)
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
		for _, name := range []string{"/a", "/b", "/c"} {
			if err := os.WriteFile(d+name, nil, 0o600); err != nil {
				return err
			}
		}
		if err := os.Mkdir(d+"/e", 0o700); err != nil {
			return err
		}
		if err := unix.Chmod(d, mode&0o777); err != nil {
			return err
		}
		_, err := os.ReadDir(d)
		say(d+" list", err)
		say(d+" create", open(d+"/new", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY))
		say(d+" mkdir", unix.Mkdir(d+"/newdir", 0o700))
		say(d+" symlink", unix.Symlink("x", d+"/newlink"))
		say(d+" fifo", unix.Mkfifo(d+"/newpipe", 0o600))
		say(d+" link", unix.Link("f0600", d+"/linked"))
		say(d+" chdir", unix.Chdir(d))
		if err := os.Chdir(dir); err != nil {
			return err
		}
		say(d+" missing", open(d+"/missing", unix.O_RDONLY))
		// What is in it the kernel knows by now, and follows (perm.go).
		if mode&0o100 != 0 {
			say(d+" open", open(d+"/a", unix.O_RDONLY))
			say(d+" unlink", unix.Unlink(d+"/a"))
			say(d+" rmdir", unix.Rmdir(d+"/e"))
			say(d+" rename in", unix.Rename(d+"/b", d+"/bb"))
			say(d+" rename out", unix.Rename(d+"/c", "out"+d))
		}
		if err := unix.Chmod(d, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// TestPermissionsOfTheContractsUser compares what a user without privilege may do
// in our folder and in one of the disk.
func TestPermissionsOfTheContractsUser(t *testing.T) {
	needMount(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	const uid = 4711
	reach := func(dir string) string {
		for p := dir; p != "/tmp" && p != "/"; p = filepath.Dir(p) {
			must(t, os.Chmod(p, 0o755))
		}
		return dir
	}
	native := reach(t.TempDir())
	must(t, os.Chown(native, uid, uid))
	cfg := config(reach(t.TempDir()))
	cfg.Owner = &statefs.Owner{UID: uid, GID: uid}
	s, err := Open(ctx, cfg)
	must(t, err)
	defer s.Close()
	r, err := s.Begin(ctx, 1)
	must(t, err)
	want, err := child(t, "permissions", native, strconv.Itoa(uid)).Output()
	must(t, err)
	got, err := child(t, "permissions", r.Dir(), strconv.Itoa(uid)).Output()
	must(t, err)
	if string(got) != string(want) {
		w, g := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
		for i := range min(len(w), len(g)) {
			if w[i] != g[i] {
				t.Errorf("natively %q, here %q", w[i], g[i])
			}
		}
		t.Errorf("%d answers natively, %d here", len(w), len(g))
	}
	if out, err := child(t, "permissions", r.Dir(), "4712").CombinedOutput(); err == nil {
		t.Errorf("another user gets in:\n%s", out)
	}
	must(t, r.Rollback(ctx))
}
