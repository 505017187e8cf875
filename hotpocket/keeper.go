package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"evernode/hotpocket/config"
	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/backend"
	"evernode/hotpocket/statefs/remote"
)

// StateOptions say who keeps the contract's state.
type StateOptions struct {
	// Command starts a process of this program that keeps a state (evernode node
	// state); what it needs to know is appended. Without it this process keeps
	// the state itself, in a plain folder: for tests and for programs that embed
	// a node.
	Command []string
	// Backend and Socket override hpfs.backend and hpfs.socket when not empty.
	Backend, Socket string
}

// openBackend opens the state in the way that options and configuration ask for.
func openBackend(ctx context.Context, n *node, conf *config.Config, c statefs.Config) (statefs.State, error) {
	o := n.opt.State
	kind, socket := conf.HPFS.Backend, conf.HPFS.Socket
	if o.Backend != "" {
		kind = o.Backend
	}
	if o.Socket != "" {
		socket = o.Socket
	}
	rc := remote.Config{Dir: c.Dir, Confirmed: c.Confirmed, Owner: c.Owner, Log: n.log}
	switch {
	case socket != "":
		rc.Connector = &remote.Dialer{Path: socket}
	case len(o.Command) == 0:
		return statefs.OpenDir(ctx, c)
	default:
		// So that whoever looks for what works in a node's folder finds it there.
		if err := os.MkdirAll(c.Dir, 0o755); err != nil {
			return nil, err
		}
		child := &remote.Child{
			Argv: append(append([]string(nil), o.Command...), "--dir", c.Dir, "--backend", kind),
			Dir:  c.Dir,
			Log:  n.log.With("process", "state"),
		}
		if uid, gid, ok := conf.HPFS.User(); ok {
			if err := handOver(c.Dir, uid, gid); err != nil {
				return nil, fmt.Errorf("give %s to the user of hpfs.run_as: %w", c.Dir, err)
			}
			child.User = &syscall.Credential{Uid: uid, Gid: gid, Groups: []uint32{gid}}
		}
		rc.Connector = child
	}
	s, err := remote.Open(ctx, rc)
	if errors.Is(err, remote.ErrUnavailable) && kind == backend.FUSE {
		return nil, fmt.Errorf("%w. Or keep the state in a plain folder, slower but with the same results: --state-backend dir, or \"backend\": \"dir\" under hpfs in hp.cfg", err)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// handOver gives a folder with all that is in it to the user under whom the
// state's process runs, if it is not his already.
func handOver(dir string, uid, gid uint32) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == uid && st.Gid == gid {
		return nil
	}
	if err := statefs.Release(dir); err != nil {
		return err
	}
	err = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		return os.Lchown(p, int(uid), int(gid))
	})
	if err != nil {
		return err
	}
	return os.Lchown(dir, int(uid), int(gid)) // last: until then it is done again
}
