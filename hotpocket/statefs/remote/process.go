package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"evernode/hotpocket/statefs"
)

// lockWait is how long a process waits for the one before it, which may still be
// closing the same state.
const lockWait = 30 * time.Second

// Process is a process that keeps a state.
type Process struct {
	// Dir is the contract_fs.
	Dir string
	// Open opens the state: statefs.OpenDir, or what uses FUSE.
	Open func(ctx context.Context, cfg statefs.Config) (statefs.State, error)
	// Owner, when not nil, is who the contract's files belong to, whatever the
	// node says.
	Owner *statefs.Owner
	// Log takes what the operator, or the node, should know.
	Log *slog.Logger
}

func (p *Process) options() (Options, error) {
	root, err := filepath.Abs(p.Dir)
	if err != nil {
		return Options{}, err
	}
	open := func(ctx context.Context, h Hello) (statefs.State, error) {
		cfg := statefs.Config{Dir: root, Log: p.Log, Confirmed: h.Confirmed, Owner: h.Owner}
		if p.Owner != nil {
			cfg.Owner = p.Owner
		}
		for until := time.Now().Add(lockWait); ; {
			s, err := p.Open(ctx, cfg)
			if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(until) {
				return s, err
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return Options{Open: open, Root: root, Log: p.Log}, nil
}

// RunChild serves the node that started this process, at descriptor ChildFD,
// until its connection ends.
func (p *Process) RunChild(ctx context.Context) error {
	f := os.NewFile(ChildFD, "node")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("descriptor %d is not the socket to a node: %w; give --socket to start a service", ChildFD, err)
	}
	o, err := p.options()
	if err != nil {
		return err
	}
	// A child is of its node, whoever that is.
	o.Allow = func(uint32) bool { return true }
	return ServeConn(ctx, conn, o)
}

// Access says who may connect to a service.
type Access struct {
	// Users are the uids that may, besides this process's own and root. With any,
	// everybody can open the socket, and who it is decides.
	Users []uint32
	// Group, when it is not negative, is the group that may open the socket.
	Group int
}

// RunService serves the nodes that connect to the socket at path until ctx ends.
func (p *Process) RunService(ctx context.Context, path string, a Access) error {
	o, err := p.options()
	if err != nil {
		return err
	}
	o.Allow = func(uid uint32) bool { return ownUsers(uid) || slices.Contains(a.Users, uid) }
	l, err := listen(ctx, path, a)
	if err != nil {
		return err
	}
	p.Log.Info("the state waits for its node", "socket", path, "dir", o.Root)
	return Serve(ctx, l, o)
}

// listen opens a service's socket. One that a killed process left behind is
// replaced, one that answers is not.
func listen(ctx context.Context, path string, a Access) (net.Listener, error) {
	var d net.Dialer
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another process listens on %s", path)
	}
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("%s is in the way: it is no socket", path)
	case err == nil:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the socket of an earlier process: %w", err)
		}
	}
	// The socket gets a mode before it has a name, so that there is no moment in
	// which those could open it who may not.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, chmod)
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	mode := os.FileMode(0o600)
	if a.Group >= 0 {
		err, mode = os.Chown(path, -1, a.Group), 0o660
	}
	if len(a.Users) > 0 {
		mode = 0o666
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("let others open the socket: %w", err)
	}
	return l, nil
}
