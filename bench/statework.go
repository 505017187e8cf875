package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/mount"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Arguments with which this program works in a folder, or serves one, in a
// process of its own: as a contract and a state's process do.
const (
	stateWorkCommand  = "state-work"
	stateServeCommand = "state-serve"
)

// runStateChild does what the arguments say and returns the exit code; ok is
// false when they are for somebody else.
func runStateChild(args []string) (code int, ok bool) {
	if len(args) < 2 {
		return 0, false
	}
	var err error
	switch {
	case args[0] == stateWorkCommand && len(args) == 4:
		err = stateWork(args[1], args[2], args[3])
	case args[0] == stateServeCommand && len(args) == 3:
		err = stateServe(args[1], args[2])
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", strings.Join(args, " ")+":", err)
		return 1, true
	}
	return 0, true
}

// stateWork does one kind of work in dir, n times or n MiB of it, and prints for
// how many nanoseconds.
func stateWork(kind, dir, count string) error {
	runtime.LockOSThread()
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	// As a contract does: its folder is its working directory.
	if err := os.Chdir(dir); err != nil {
		return err
	}
	w := &worker{dir: ".", buf: make([]byte, 1<<20)}
	for i := range w.buf {
		w.buf[i] = byte(i*7 + i>>8)
	}
	var took time.Duration
	switch kind {
	case "create":
		took = w.create(n)
	case "stat":
		took = w.stat(n)
	case "write":
		took = w.write("big", n<<20, 1<<20)
	case "write-small":
		took = w.write("small", n<<20, 4096)
	case "existing":
		took = w.write("existing", n<<20, 1<<20)
	case "read":
		took = w.read("big")
	case "random":
		took = w.random("existing", n)
	case "touch":
		took = w.touch(n)
	case "clear":
		w.check(os.RemoveAll(dir + "/big"))
		w.check(os.RemoveAll(dir + "/small"))
		w.check(os.RemoveAll(dir + "/many"))
	default:
		return fmt.Errorf("there is no work %q", kind)
	}
	fmt.Println(took.Nanoseconds())
	return w.err
}

// worker works with plain system calls, so that the runtime adds nothing. It
// keeps the first error.
type worker struct {
	dir string
	buf []byte
	err error
}

func (w *worker) check(err error) {
	if err != nil && w.err == nil {
		w.err = err
	}
}

func (w *worker) open(name string, flags int) int {
	fd, err := syscall.Open(name, flags, 0o644)
	w.check(err)
	return fd
}

// create makes n files of 1 KB.
func (w *worker) create(n int) time.Duration {
	w.check(os.MkdirAll(w.dir+"/many", 0o755))
	names := w.names(n)
	start := time.Now()
	for _, name := range names {
		fd := w.open(name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL)
		_, err := syscall.Write(fd, w.buf[:1024])
		w.check(err)
		w.check(syscall.Close(fd))
		if w.err != nil {
			break
		}
	}
	return time.Since(start)
}

func (w *worker) names(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s/many/file-%05d", w.dir, i)
	}
	return names
}

// stat looks at n files, for the third time.
func (w *worker) stat(n int) (took time.Duration) {
	names := w.names(n)
	var st syscall.Stat_t
	for range 3 {
		start := time.Now()
		for _, name := range names {
			w.check(syscall.Stat(name, &st))
		}
		took = time.Since(start)
	}
	return took
}

func (w *worker) write(name string, size, call int) time.Duration {
	start := time.Now()
	fd := w.open(w.dir+"/"+name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC)
	for range size / call {
		if _, err := syscall.Write(fd, w.buf[:call]); err != nil {
			w.check(err)
			break
		}
	}
	w.check(syscall.Close(fd))
	return time.Since(start)
}

func (w *worker) read(name string) time.Duration {
	start := time.Now()
	fd := w.open(w.dir+"/"+name, syscall.O_RDONLY)
	for {
		n, err := syscall.Read(fd, w.buf)
		w.check(err)
		if n <= 0 {
			break
		}
	}
	w.check(syscall.Close(fd))
	return time.Since(start)
}

// random writes n blocks of 4 KiB here and there into an existing file.
func (w *worker) random(name string, n int) time.Duration {
	var st syscall.Stat_t
	w.check(syscall.Stat(w.dir+"/"+name, &st))
	blocks := max(st.Size/4096, 1)
	start := time.Now()
	fd := w.open(w.dir+"/"+name, syscall.O_RDWR)
	for i := range int64(n) {
		if _, err := syscall.Pwrite(fd, w.buf[i:i+4096], i*7919%blocks*4096); err != nil {
			w.check(err)
			break
		}
	}
	w.check(syscall.Close(fd))
	return time.Since(start)
}

// touch rewrites the n-th of the small files.
func (w *worker) touch(n int) time.Duration {
	start := time.Now()
	w.check(os.WriteFile(fmt.Sprintf("%s/many/file-%05d", w.dir, n), fmt.Append(nil, "touched ", start.UnixNano()), 0o644))
	return time.Since(start)
}

// The kinds of folders that stateServe serves.
const (
	serveOurs                = "ours"
	serveLoopback            = "loopback"
	serveLoopbackPassthrough = "loopback-passthrough"
)

// stateServe serves a folder below dir until its input ends. It prints the path
// to work in and then, for each line "end", what ending the run and beginning the
// next one took.
func stateServe(kind, dir string) error {
	// A signal from the terminal reaches this process, too; it ends when the
	// one that started it is done with it, and leaves no mount behind.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	switch kind {
	case serveOurs:
		return serveState(dir)
	case serveLoopback, serveLoopbackPassthrough:
		return serveExample(dir, kind == serveLoopbackPassthrough)
	}
	return fmt.Errorf("there is no folder of kind %q", kind)
}

func serveState(dir string) error {
	ctx := context.Background()
	s, err := mount.Open(ctx, statefs.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := s.Begin(ctx, 1)
	if err != nil {
		return err
	}
	fmt.Println(r.Dir())
	in := bufio.NewScanner(os.Stdin)
	for seq := uint64(2); in.Scan(); seq++ {
		start := time.Now()
		if _, _, err := r.End(ctx); err != nil {
			return err
		}
		ended := time.Since(start)
		if err := r.Commit(ctx); err != nil {
			return err
		}
		if r, err = s.Begin(ctx, seq); err != nil {
			return err
		}
		fmt.Println(ended.Nanoseconds(), (time.Since(start) - ended).Nanoseconds())
	}
	return in.Err()
}

// serveExample mounts what go-fuse's program example/loopback mounts, with its
// options.
func serveExample(dir string, passthrough bool) error {
	original, point := dir+"/original", dir+"/mounted"
	for _, d := range []string{original, point} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	root, err := fs.NewLoopbackRoot(original)
	if err != nil {
		return err
	}
	sec := time.Second
	opts := &fs.Options{AttrTimeout: &sec, EntryTimeout: &sec, NullPermissions: true}
	opts.MountOptions = fuse.MountOptions{FsName: original, Name: "loopback", DirectMount: true}
	if !passthrough {
		opts.DisabledCapabilities = fuse.CAP_PASSTHROUGH
	}
	server, err := fs.Mount(point, root, opts)
	if err != nil {
		return err
	}
	fmt.Println(point)
	_, err = io.Copy(io.Discard, os.Stdin)
	if e := server.Unmount(); err == nil {
		err = e
	}
	return err
}
