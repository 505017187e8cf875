// Package backend chooses how a contract's state is kept: by FUSE (package
// mount) or in a plain folder (statefs.Dir). Both give the same roots. It keeps
// a state that one of them left from being taken for an empty one by the other.
//
// The state's process calls it, through package remote, and the commands that
// want to know what this machine can do. It holds nothing itself.
//
// Who changes the kind keeps the state: package mount takes over a plain folder,
// and this package writes what FUSE has kept into a plain folder, which needs no
// FUSE. Either copies the state once.
package backend

import (
	"context"
	"errors"
	"fmt"
	"os"

	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/mount"
	"evernode/hotpocket/statefs/remote"
)

// The kinds of state.
const (
	FUSE = "fuse"
	Dir  = "dir"
)

// Open opens the state in cfg.Dir. A kind that this machine cannot have is
// remote.ErrUnavailable, with what to do about it.
func Open(ctx context.Context, kind string, cfg statefs.Config) (statefs.State, error) {
	switch kind {
	case FUSE:
		return openFUSE(ctx, cfg)
	case Dir:
		return openDir(ctx, cfg)
	}
	return nil, fmt.Errorf("there is no state backend %q; choose %s or %s", kind, FUSE, Dir)
}

func openFUSE(ctx context.Context, cfg statefs.Config) (statefs.State, error) {
	s, err := mount.Open(ctx, cfg)
	if errors.Is(err, mount.ErrUnavailable) {
		return nil, fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Check tries whether this machine can have a kind of state, in a folder of its
// own below dir, which is removed again. remote.ErrUnavailable says that it
// cannot.
func Check(ctx context.Context, kind, dir string) (err error) {
	tmp, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, statefs.Release(tmp), os.RemoveAll(tmp))
	}()
	s, err := Open(ctx, kind, statefs.Config{Dir: tmp})
	if err != nil {
		return err
	}
	return s.Close()
}
