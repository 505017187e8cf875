package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"evernode/hotpocket/statefs"
)

// plainState is what the plain folder backend left.
type plainState struct {
	version statefs.Version
	patch   []byte
}

// plainNames are what that backend has in the store and in mnt and this one has
// not.
var plainNames = []string{"store/folders", "store/index", "store/objects", "store/tmp", "store/sync", "mnt/ro.0", "mnt/ro.1"}

// plainState lets the plain folder backend bring its working folder to the
// version that it agreed on, if it was used here before. nil when it was not.
func (s *State) plainState(ctx context.Context) (*plainState, error) {
	st, err := os.Lstat(s.paths.plainMeta)
	if errors.Is(err, os.ErrNotExist) || err == nil && st.Size() == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := statefs.Release(s.paths.root); err != nil {
		return nil, err
	}
	d, err := statefs.OpenDir(ctx, s.cfg)
	if err != nil {
		return nil, fmt.Errorf("take over the plain folder: %w", err)
	}
	p := &plainState{version: d.Agreed(), patch: d.Patch()}
	damaged := d.Damaged()
	if err := d.Close(); err != nil {
		return nil, fmt.Errorf("take over the plain folder: %w", err)
	}
	if damaged {
		return nil, fmt.Errorf("take over the plain folder: %w; start the node with the plain folder once more, so that it is repaired, and then with FUSE", statefs.ErrDamaged)
	}
	return p, nil
}

// clearPlain removes what the volume holds now: the plain folder's files, under
// the mount, and what its backend kept.
func (s *State) clearPlain(plain *plainState) error {
	_, err := os.Lstat(s.paths.marker)
	marked := err == nil
	if plain != nil {
		if v := s.vol.Agreed(); v != plain.version {
			return fmt.Errorf("there are two states here: %v in %s and %v in the plain folder %s; remove %s to go on with the plain folder, or %s to go on with the other", v, s.paths.volume, plain.version, s.paths.state, s.paths.volume, s.paths.plainMeta)
		}
		marked = true
	}
	list, err := os.ReadDir(s.paths.state)
	if err != nil {
		return err
	}
	if !marked {
		if len(list) > 0 {
			s.log.Warn("files that are not part of the state lie under its mount; they are not used", "folder", s.paths.state, "files", len(list))
		}
		return nil
	}
	// As long as the marker is there, a start goes on from here.
	if err := os.WriteFile(s.paths.marker, nil, 0o600); err != nil {
		return err
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(s.paths.state, e.Name())); err != nil {
			return err
		}
	}
	for _, name := range append(plainNames, "store/meta") {
		if err := os.RemoveAll(filepath.Join(s.paths.root, name)); err != nil {
			return err
		}
	}
	return os.Remove(s.paths.marker)
}

// takeOverSeed moves what the operator put into seed/ to its place, once.
func (s *State) takeOverSeed(started bool) error {
	list, err := os.ReadDir(s.paths.seed)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read seed: %w", err)
	}
	_, errV := os.Lstat(s.paths.volume)
	_, errM := os.Lstat(s.paths.marker)
	if started || errV == nil && errM != nil {
		if len(list) > 0 {
			s.log.Warn("seed is ignored: this state was started before; remove everything in contract_fs to start anew", "seed", s.paths.seed)
		}
		return nil
	}
	for _, e := range list {
		from, to := filepath.Join(s.paths.seed, e.Name()), filepath.Join(s.paths.rw, e.Name())
		if e.Name() == stateName {
			// It is there already, as the place to mount on.
			if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
				s.log.Warn("not taken over from seed: the name exists already", "name", e.Name())
				continue
			}
		} else if _, err := os.Lstat(to); err == nil {
			s.log.Warn("not taken over from seed: the name exists already", "name", e.Name())
			continue
		}
		if err := os.Rename(from, to); err != nil {
			return fmt.Errorf("take over seed: %w", err)
		}
		if o := s.cfg.Owner; o != nil {
			err := filepath.WalkDir(to, func(p string, _ os.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Lchown(p, o.UID, o.GID)
			})
			if err != nil {
				return fmt.Errorf("take over seed: %w", err)
			}
		}
	}
	return os.MkdirAll(s.paths.state, 0o755)
}
