package contract

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spawner starts processes from one operating-system thread of its own, which
// lives as long as the runner. Two things in the kernel belong to the thread
// that forked and not to its process: tracing, by which limits are set before a
// program's first instruction, and the death signal, by which contracts die with
// a node that is killed, instead of writing on into the state.
type spawner struct {
	requests chan spawnRequest
	quit     chan struct{}
	done     chan struct{}
}

type spawnRequest struct {
	command command
	reply   chan<- spawned
}

// command is a process to be started.
type command struct {
	path   string
	argv   []string
	env    []string
	dir    string
	files  []uintptr // become descriptors 0, 1, 2, …
	cred   *Credential
	limits []rlimit
	cgroup *cgroup
}

type rlimit struct {
	resource int
	value    uint64
}

type spawned struct {
	pid, pidfd int
	err        error
	program    bool // err is the program's fault, not the node's or the machine's
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan spawnRequest), quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		for {
			select {
			case req := <-s.requests:
				req.reply <- spawn(req.command)
			case <-s.quit:
				return
			}
		}
	}()
	return s
}

func (s *spawner) start(c command) spawned {
	reply := make(chan spawned, 1)
	select {
	case s.requests <- spawnRequest{c, reply}:
		return <-reply
	case <-s.quit:
		return spawned{err: errors.New("the runner is closed")}
	}
}

// close ends the thread, which kills what it started and still runs.
func (s *spawner) close() {
	close(s.quit)
	<-s.done
}

// spawn starts c as leader of a process group of its own with nothing but the
// given descriptors and environment. The caller's thread must be locked.
func spawn(c command) spawned {
	pidfd := -1
	attr := &syscall.ProcAttr{
		Dir:   c.dir,
		Env:   c.env,
		Files: c.files,
		Sys: &syscall.SysProcAttr{
			Setpgid:   true,
			Pdeathsig: syscall.SIGKILL,
			PidFD:     &pidfd,
			// A traced child stops at the end of execve, before its first
			// instruction. Go has no other place between fork and exec where limits
			// could be set for the child alone.
			Ptrace: len(c.limits) > 0,
		},
	}
	if c.cred != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: c.cred.UID, Gid: c.cred.GID}
	}
	if c.cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, c.cgroup.fd
	}
	var pid int
	var err error
	for try := 0; ; try++ {
		pid, _, err = syscall.StartProcess(c.path, c.argv, attr)
		// While another process is being forked it holds a copy of every
		// descriptor of the node, also of one through which the program has just
		// been written.
		if err != syscall.ETXTBSY || try == 20 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		switch err {
		case unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EBADF, unix.EIO:
			return spawned{err: fmt.Errorf("start a process: %w", err)}
		}
		return spawned{err: describeStartError(c, err), program: true}
	}
	if pidfd < 0 {
		unix.Kill(pid, unix.SIGKILL)
		wait(pid, nil)
		return spawned{err: errors.New("the kernel gives no process descriptors, Linux 5.3 or later is needed")}
	}
	if len(c.limits) > 0 {
		if err := setLimits(pid, c.limits); err != nil {
			unix.Kill(pid, unix.SIGKILL)
			wait(pid, nil)
			unix.Close(pidfd)
			return spawned{err: err}
		}
	}
	return spawned{pid: pid, pidfd: pidfd}
}

// setLimits sets the limits of a child that is stopped at its execve and lets it
// go.
func setLimits(pid int, limits []rlimit) error {
	status, err := wait(pid, nil)
	if err != nil {
		return fmt.Errorf("wait for the contract to stop at its start: %w", err)
	}
	if !status.Stopped() {
		return fmt.Errorf("contract did not stop at its start to have its limits set (status %#x)", uint32(status))
	}
	for _, l := range limits {
		// What the node itself was given cannot be exceeded.
		var own unix.Rlimit
		if err := unix.Getrlimit(l.resource, &own); err == nil {
			l.value = min(l.value, own.Max)
		}
		r := unix.Rlimit{Cur: l.value, Max: l.value}
		err := unix.Prlimit(pid, l.resource, &r, nil)
		if err == unix.EPERM {
			err = limitFromInside(pid, l.resource, l.value)
		}
		if err != nil {
			return fmt.Errorf("set limit %s of the contract to %d: %w", limitName(l.resource), l.value, err)
		}
	}
	if err := unix.PtraceDetach(pid); err != nil {
		return fmt.Errorf("let the contract go after its limits were set: %w", err)
	}
	return nil
}

// rlimits lists the limits that are set at all.
func (l *Limits) rlimits() []rlimit {
	var out []rlimit
	if l.CPUSeconds > 0 {
		out = append(out, rlimit{unix.RLIMIT_CPU, l.CPUSeconds})
	}
	if l.MemoryBytes > 0 {
		out = append(out, rlimit{unix.RLIMIT_DATA, l.MemoryBytes})
	}
	if l.OpenFiles > 0 {
		out = append(out, rlimit{unix.RLIMIT_NOFILE, l.OpenFiles})
	}
	return out
}

func limitName(resource int) string {
	switch resource {
	case unix.RLIMIT_CPU:
		return "proc_cpu_seconds"
	case unix.RLIMIT_DATA:
		return "proc_mem_bytes"
	case unix.RLIMIT_NOFILE:
		return "proc_ofd_count"
	}
	return fmt.Sprint("number ", resource)
}

// wait reaps a child or learns that it stopped.
func wait(pid int, usage *unix.Rusage) (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, usage)
		if err != unix.EINTR {
			return status, err
		}
	}
}

// splitArgs splits bin_args on single spaces and drops empty pieces
// (spec/hotpocket.md section 2.1).
func splitArgs(s string) []string {
	var out []string
	for piece := range strings.SplitSeq(s, " ") {
		if piece != "" {
			out = append(out, piece)
		}
	}
	return out
}

// environment turns the configured variables into the contract's environment.
// It is never nil.
func environment(vars map[string]string) []string {
	out := make([]string, 0, len(vars))
	for k, v := range vars {
		out = append(out, k+"="+v)
	}
	return out
}

// describeStartError says which path could not be executed and why, which the
// bare error number of the child does not.
func describeStartError(c command, err error) error {
	path := c.path
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.dir, path)
	}
	fail := func(why string) error {
		return fmt.Errorf("execute %q in %q: %w (%s)", c.path, c.dir, err, why)
	}
	if info, dirErr := os.Stat(c.dir); dirErr != nil || !info.IsDir() {
		return fail("the working directory cannot be entered")
	}
	info, statErr := os.Stat(path)
	switch {
	case c.path == "":
		return fail("no bin_path is configured")
	case errors.Is(statErr, fs.ErrNotExist) && !strings.Contains(c.path, "/"):
		return fail("there is no such file in the contract's folder; PATH is not searched")
	case errors.Is(statErr, fs.ErrNotExist):
		return fail("there is no such file")
	case statErr != nil:
		return fail(statErr.Error())
	case info.IsDir():
		return fail("it is a folder")
	case info.Mode()&0o111 == 0:
		return fail("the file is not executable")
	case errors.Is(err, syscall.ENOENT):
		return fail("the file exists, but the interpreter or loader it names does not")
	case errors.Is(err, syscall.ENOEXEC):
		return fail("the file is neither a program for this machine nor a script with a #! line")
	case errors.Is(err, syscall.EPERM) && c.cred != nil:
		return fail(fmt.Sprintf("the node may not run it as user %d and group %d", c.cred.UID, c.cred.GID))
	}
	return fmt.Errorf("execute %q in %q: %w", c.path, c.dir, err)
}
