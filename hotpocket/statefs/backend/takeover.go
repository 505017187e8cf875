package backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/volume"
)

// Where a state is on its way from the one kind to the other, below the store:
// until the volume has its second name it is what counts, afterwards the folder.
const (
	exported = "export"
	doneWith = "volume.was"
)

// openDir opens the plain folder, after writing into it what a volume holds.
func openDir(ctx context.Context, cfg statefs.Config) (statefs.State, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	store := filepath.Join(cfg.Dir, "store")
	_, err := os.Lstat(filepath.Join(store, "volume"))
	if err == nil {
		err = export(ctx, cfg)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("take the state over from the fuse backend: %w", err)
	}
	d, err := statefs.OpenDir(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(store, doneWith)); err != nil {
		cfg.Log.Warn("what the fuse backend had kept cannot be removed", "err", err)
	}
	return d, nil
}

// export writes a volume's agreed version into mnt/rw.
func export(ctx context.Context, cfg statefs.Config) (err error) {
	store, rw := filepath.Join(cfg.Dir, "store"), filepath.Join(cfg.Dir, "mnt", "rw")
	lock, err := os.OpenFile(filepath.Join(store, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("the state is in use by another process: %w", err)
	}
	if st, err := os.Lstat(filepath.Join(store, "meta")); err == nil && st.Size() > 0 {
		return fmt.Errorf("there are two states in %s, one of each backend; start once with the fuse backend, which says what to do", cfg.Dir)
	}
	if err := statefs.Release(cfg.Dir); err != nil {
		return err
	}
	to := filepath.Join(store, exported)
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(to)) // nothing is lost, and there may be no room
		}
	}()
	version, patch, err := read(ctx, cfg, to)
	if err != nil {
		return err
	}
	if o := cfg.Owner; o != nil {
		err := filepath.WalkDir(to, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(p, o.UID, o.GID)
		})
		if err != nil {
			return err
		}
	}
	// What lies under the mount is not part of the state. Should it still be one,
	// this fails.
	state := filepath.Join(rw, "state")
	if err := os.Remove(state); err != nil && !errors.Is(err, fs.ErrNotExist) {
		aside, e := os.MkdirTemp(rw, "state.was-")
		if e == nil {
			e = os.Rename(state, aside)
		}
		if e != nil {
			return errors.Join(err, e)
		}
		cfg.Log.Warn("files that were not part of the state lay under its mount; they are put aside", "folder", aside)
	}
	if err := os.Rename(to, state); err != nil {
		return err
	}
	if patch != nil {
		tmp := filepath.Join(store, "patch.new")
		if err := os.WriteFile(tmp, patch, 0o644); err != nil {
			return err
		}
		if o := cfg.Owner; o != nil {
			if err := os.Lchown(tmp, o.UID, o.GID); err != nil {
				return err
			}
		}
		if err := os.Rename(tmp, filepath.Join(rw, "patch.cfg")); err != nil {
			return err
		}
	}
	if err := unix.Syncfs(int(lock.Fd())); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(store, "volume"), filepath.Join(store, doneWith)); err != nil {
		return err
	}
	cfg.Log.Info("the state that the fuse backend has kept is now in a plain folder", "version", version.String())
	// The folder of views is no more than a place to mount on.
	_ = os.Remove(filepath.Join(cfg.Dir, "mnt", "ro"))
	return nil
}

// read writes the agreed version of the volume into a folder.
func read(ctx context.Context, cfg statefs.Config, to string) (v statefs.Version, patch []byte, err error) {
	vc := volume.Config{Dir: filepath.Join(cfg.Dir, "store", "volume"), Log: cfg.Log, Confirmed: cfg.Confirmed}
	if b, err := os.ReadFile(filepath.Join(cfg.Dir, "mnt", "rw", "patch.cfg")); err == nil && len(b) <= statefs.MaxPatch {
		vc.Patches = [][]byte{b}
	}
	vol, err := volume.Open(ctx, vc)
	if err != nil {
		return v, nil, err
	}
	defer func() { err = errors.Join(err, vol.Close()) }()
	if vol.Damaged() {
		return v, nil, fmt.Errorf("%w; start the node with the fuse backend once more, so that it is repaired, and then with the plain folder", statefs.ErrDamaged)
	}
	return vol.Agreed(), vol.Patch(), vol.Export(ctx, to)
}
