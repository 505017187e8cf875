// Package backend chooses how a contract's state is kept: by FUSE (package
// mount) or in a plain folder (statefs.Dir). Both give the same roots. It keeps
// a state that one of them left from being taken for an empty one by the other.
//
// The state's process calls it, through package remote, and the commands that
// want to know what this machine can do. It holds nothing itself.
package backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
		if err := refuseVolume(cfg.Dir); err != nil {
			return nil, err
		}
		return statefs.OpenDir(ctx, cfg)
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

// refuseVolume keeps the plain folder from starting beside a state that FUSE
// has kept: it would begin from an older state, or from none.
func refuseVolume(dir string) error {
	volume := filepath.Join(dir, "store", "volume")
	_, err := os.Lstat(volume)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("the state in %s was kept by the fuse backend, and only that can read it: go on with --state-backend fuse, "+
		"or move %s away, and this node fetches the state from the other members", dir, dir)
}
