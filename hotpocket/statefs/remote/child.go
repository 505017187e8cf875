package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ChildFD is the descriptor under which a child finds its end of the socket.
const ChildFD = 3

// selfExe is this process's program, also when its file has been replaced.
const selfExe = "/proc/self/exe"

// Child starts the state's process as a child, in a process group of its own so
// that a Ctrl-C meant for the node does not reach it. It ends when its
// connection does, so also when the node is killed.
type Child struct {
	// Argv is the program and its arguments.
	Argv []string
	// Env is its environment; nil: that of this process.
	Env []string
	// Dir is its working directory.
	Dir string
	// User, when not nil, is under whom it runs.
	User *syscall.Credential
	// Log takes what it prints.
	Log *slog.Logger
}

// Connect implements Connector.
func (c *Child) Connect(ctx context.Context) (Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Conn{}, fmt.Errorf("make a socket pair: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "state"), os.NewFile(uintptr(fds[1]), "node")
	defer theirs.Close()
	conn, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		return Conn{}, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		conn.Close()
		return Conn{}, err
	}
	defer in.Close()
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	if c.Argv[0] == selfExe {
		cmd.Args[0] = os.Args[0] // what people look for in a list of processes
	}
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.Stdout, cmd.Stderr = in, in
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.User}
	if err := cmd.Start(); err != nil {
		conn.Close()
		out.Close()
		return Conn{}, fmt.Errorf("start %s: %w", c.Argv[0], err)
	}
	go func() {
		passLog(out, c.Log)
		out.Close()
	}()
	ended := make(chan struct{})
	var how error
	go func() {
		how = cmd.Wait()
		close(ended)
	}()
	end := func(grace time.Duration) error {
		if grace > 0 {
			t := time.NewTimer(grace)
			defer t.Stop()
			select {
			case <-ended:
				return how
			case <-t.C:
			}
		}
		select {
		case <-ended:
		default:
			_ = cmd.Process.Kill() // it may just have ended
			<-ended
		}
		return how
	}
	return Conn{conn, end}, nil
}

// Dialer connects to a state's process that somebody else starts.
type Dialer struct {
	// Path is its socket.
	Path string
	// Wait is how long a connection is tried while nobody listens; 0 stands for
	// 15 s.
	Wait time.Duration
}

// Connect implements Connector.
func (d *Dialer) Connect(ctx context.Context) (Conn, error) {
	wait := d.Wait
	if wait <= 0 {
		wait = 15 * time.Second
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var nd net.Dialer
	for {
		conn, err := nd.DialContext(limited, "unix", d.Path)
		if err == nil {
			return Conn{Conn: conn}, nil
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
			return Conn{}, err
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return Conn{}, ctx.Err()
			}
			return Conn{}, fmt.Errorf("%w; start it with: evernode node state --dir CONTRACT_FS --socket %s", err, d.Path)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
