package mount

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// children are what this test program does when it is started again by a test,
// as a process of its own beside the one that serves the mount.
var children = map[string]func(args []string) error{
	"load": childLoad,
}

const childVar = "MOUNT_TEST_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childVar); name != "" {
		if err := children[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child prepares a process that does what children has under name.
func child(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), childVar+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// childLoad does one kind of work in a folder and prints how long it took.
func childLoad(args []string) error {
	runtime.LockOSThread()
	dir, kind := args[0], args[1]
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	var start time.Time
	fail := func(e error) {
		if e != nil && err == nil {
			err = e
		}
	}
	switch kind {
	case "create":
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("%s/f%05d", dir, i)
		}
		start = time.Now()
		for _, name := range names {
			fd, e := syscall.Open(name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o644)
			fail(e)
			_, e = syscall.Write(fd, buf[:1024])
			fail(e)
			fail(syscall.Close(fd))
		}
	case "stat":
		var st syscall.Stat_t
		for range 2 {
			start = time.Now()
			for i := range n {
				fail(syscall.Stat(fmt.Sprintf("%s/f%05d", dir, i), &st))
			}
		}
	case "write", "write4k":
		size := 1 << 20
		if kind == "write4k" {
			size = 4096
		}
		start = time.Now()
		fd, e := syscall.Open(dir+"/big", syscall.O_RDWR|syscall.O_CREAT|syscall.O_TRUNC, 0o644)
		fail(e)
		for range n << 20 / size {
			_, e := syscall.Write(fd, buf[:size])
			fail(e)
		}
		fail(syscall.Close(fd))
	case "read":
		start = time.Now()
		fd, e := syscall.Open(dir+"/big", syscall.O_RDONLY, 0)
		fail(e)
		for {
			m, e := syscall.Read(fd, buf)
			fail(e)
			if m <= 0 {
				break
			}
		}
		fail(syscall.Close(fd))
	case "random":
		fd, e := syscall.Open(dir+"/big", syscall.O_RDWR, 0)
		fail(e)
		start = time.Now()
		for i := range n {
			_, e := syscall.Pwrite(fd, buf[:4096], int64(i*7919%65536)*4096)
			fail(e)
		}
		fail(syscall.Close(fd))
	default:
		return fmt.Errorf("no such load: %s", kind)
	}
	fmt.Println(time.Since(start).Nanoseconds())
	return err
}

func load(t testing.TB, dir, kind string, n int) time.Duration {
	t.Helper()
	out, err := child(t, "load", dir, kind, strconv.Itoa(n)).Output()
	must(t, err)
	ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	must(t, err)
	return time.Duration(ns)
}
