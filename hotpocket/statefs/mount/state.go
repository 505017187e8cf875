// Package mount is the state in a FUSE file system: a statefs.State over a
// volume (package volume). The contract works in an ordinary folder, whose files
// the kernel reads and writes by itself where it can, while every change is known
// to us: ending a run costs in proportion to what changed, and undoing one costs
// next to nothing. Every read request gets a read-only folder with the version
// that was agreed when it came.
//
// The node, or the process that it runs the state in (package remote), calls
// Open. This package translates between the kernel and the volume and keeps
// patch.cfg and the private files, which are plain files beside the state. It
// never looks into a file of the state and never decides what is agreed. A process
// that calls it must not start programs with their working directory in these
// folders (os/exec with Dir), nor map their files: as long as one of its threads
// waits for an answer there, it may not be able to give one.
//
// Folders, below the node's contract_fs (spec/hotpocket.md sections 2.9 and
// 2.12):
//
//	seed/              what an operator puts there before the first start
//	mnt/rw/state       mounted: the state, writable during a run
//	mnt/rw/patch.cfg   contract configuration, a plain file
//	mnt/rw/...         private files of this node, plain files
//	mnt/ro/<n>/        mounted: an agreed version with patch.cfg and private files
//	store/volume/      the volume
package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/volume"
	"evernode/internal/digest"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	stateName = "state"
	patchName = "patch.cfg"
)

// State implements statefs.State over a volume.
type State struct {
	cfg   statefs.Config
	log   *slog.Logger
	paths paths
	lock  *os.File
	work  int // the open folder mnt/rw
	vol   *volume.Volume
	rw    *rwMount
	ro    *roMount

	// life is read-held by every operation, and held by Close.
	life   sync.RWMutex
	closed bool

	patchMu sync.Mutex // held while patch.cfg is looked at or replaced
}

type paths struct{ root, rw, state, ro, store, volume, marker, plainMeta, seed string }

func pathsIn(root string) paths {
	mnt, store := filepath.Join(root, "mnt"), filepath.Join(root, "store")
	return paths{
		root: root, rw: filepath.Join(mnt, "rw"), state: filepath.Join(mnt, "rw", stateName), ro: filepath.Join(mnt, "ro"),
		store: store, volume: filepath.Join(store, "volume"), marker: filepath.Join(store, "import"),
		plainMeta: filepath.Join(store, "meta"), seed: filepath.Join(root, "seed"),
	}
}

// Open opens the state in cfg.Dir: it takes over seed/ or what the plain folder
// backend left at the first start, detaches what a killed process left mounted,
// brings the folder to the agreed version and mounts it. ctx bounds the opening
// only. Where it cannot be mounted the error is ErrUnavailable.
func Open(ctx context.Context, cfg statefs.Config) (_ *State, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	root, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	s := &State{cfg: cfg, log: cfg.Log, paths: pathsIn(root), work: -1}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open state in %s: %w", root, err), s.release())
		}
	}()
	if err := available(); err != nil {
		return nil, err
	}
	plain, err := s.plainState(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.openFolders(); err != nil {
		return nil, err
	}
	if err := s.takeOverSeed(plain != nil); err != nil {
		return nil, err
	}
	owner := fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	if o := cfg.Owner; o != nil {
		owner = fuse.Owner{Uid: uint32(o.UID), Gid: uint32(o.GID)}
		// The contract writes beside its state: patch.cfg, private files.
		if err := os.Lchown(s.paths.rw, o.UID, o.GID); err != nil {
			return nil, err
		}
	}
	if err := s.shut(); err != nil {
		return nil, err
	}
	// This mount comes first, to learn what the kernel can do.
	ro, err := mountRO(s.paths.ro, newRO(s.log, owner, s.work, owner.Uid == 0))
	if err != nil {
		return nil, err
	}
	s.ro = ro
	if err := ro.dev.serve(); err != nil {
		return nil, err
	}
	refused := ro.dev.passthrough(s.paths.store)
	if refused != nil {
		s.log.Info("files of the state are read and written through this process, which costs speed", "reason", refused)
	}
	if err := s.openVolume(ctx, plain, refused == nil); err != nil {
		return nil, err
	}
	rw, err := mountRW(s.paths.state, volumeTree{s.vol}, owner, s.log, refused == nil)
	if err != nil {
		return nil, err
	}
	s.rw = rw
	if err := rw.dev.serve(); err != nil {
		return nil, err
	}
	if err := s.restorePatch(); err != nil {
		return nil, err
	}
	return s, nil
}

// shut lets nobody into mnt but this user, root and the contract (perm.go).
func (s *State) shut() error {
	mnt, mode := filepath.Dir(s.paths.rw), os.FileMode(0o700)
	if o := s.cfg.Owner; o != nil {
		mode = 0o710
		if err := os.Lchown(mnt, -1, o.GID); err != nil {
			return err
		}
	}
	return os.Chmod(mnt, mode)
}

func (s *State) openFolders() error {
	for _, p := range []string{s.paths.rw, s.paths.store} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(s.paths.store, 0o700); err != nil {
		return err
	}
	// The plain folder backend takes the same lock.
	lock, err := os.OpenFile(filepath.Join(s.paths.store, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("the state is in use by another process: %w", err)
	}
	s.lock = lock
	if err := statefs.Release(s.paths.root); err != nil {
		return err
	}
	for _, p := range []string{s.paths.state, s.paths.ro} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
	}
	s.work, err = unix.Open(s.paths.rw, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open folder %s: %w", s.paths.rw, err)
	}
	return nil
}

// openVolume opens the volume, at the first start with what is in mnt/rw/state.
func (s *State) openVolume(ctx context.Context, plain *plainState, passthrough bool) error {
	if _, err := os.Lstat(s.paths.volume); errors.Is(err, os.ErrNotExist) {
		// As long as the marker is there, what is in mnt/rw/state counts, or is
		// what is left of what did.
		if err := os.WriteFile(s.paths.marker, nil, 0o600); err != nil {
			return err
		}
	}
	patch, _, ok, err := s.readPatch()
	if err != nil {
		return err
	}
	cfg := volume.Config{
		Dir: s.paths.volume, Log: s.log, Confirmed: s.cfg.Confirmed, Passthrough: passthrough,
		Import: s.paths.state, Invalidate: s.invalidate,
	}
	if ok && patch != nil {
		cfg.Patches, cfg.ImportPatch = [][]byte{patch}, patch
	}
	if plain != nil {
		cfg.ImportVersion, cfg.ImportPatch = plain.version, plain.patch
	}
	vol, err := volume.Open(ctx, cfg)
	if err != nil {
		return err
	}
	s.vol = vol
	return s.clearPlain(plain)
}

// invalidate hands what has changed by itself to the kernel.
func (s *State) invalidate(c volume.Changes) {
	if s.rw != nil {
		s.rw.invalidate(c)
	}
}

// enter begins an operation that leave ends.
func (s *State) enter() error {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return os.ErrClosed
	}
	return nil
}

func (s *State) leave() { s.life.RUnlock() }

// Agreed implements statefs.State.
func (s *State) Agreed() statefs.Version { return s.vol.Agreed() }

// Damaged implements statefs.State.
func (s *State) Damaged() bool { return s.vol.Damaged() }

// Patch implements statefs.State.
func (s *State) Patch() []byte { return s.vol.Patch() }

// SetPatch implements statefs.State.
func (s *State) SetPatch(ctx context.Context, content []byte) (h digest.Hash, err error) {
	if len(content) > statefs.MaxPatch {
		return h, fmt.Errorf("patch.cfg of %d bytes, at most %d are allowed", len(content), statefs.MaxPatch)
	}
	if err := s.enter(); err != nil {
		return h, fmt.Errorf("set patch.cfg: %w", err)
	}
	defer s.leave()
	if h, err = s.vol.SetPatch(ctx, content); err != nil {
		return h, fmt.Errorf("set patch.cfg: %w", err)
	}
	if err := s.restorePatch(); err != nil {
		return h, fmt.Errorf("set patch.cfg: %w", err)
	}
	return h, nil
}

// Object implements statefs.State.
func (s *State) Object(ctx context.Context, ref statefs.Ref) ([]byte, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	return s.vol.Object(ctx, ref)
}

// Stage implements statefs.State.
func (s *State) Stage(ctx context.Context) (statefs.Staging, error) {
	if err := s.enter(); err != nil {
		return nil, fmt.Errorf("open staging: %w", err)
	}
	defer s.leave()
	st, err := s.vol.Stage(ctx)
	if err != nil {
		return nil, err
	}
	return &staging{Staging: st, s: s}, nil
}

// staging is the volume's, with patch.cfg.
type staging struct {
	statefs.Staging
	s *State
}

// Switch implements statefs.Staging.
func (st *staging) Switch(ctx context.Context, v statefs.Version, patch []byte) error {
	s := st.s
	if err := s.enter(); err != nil {
		return fmt.Errorf("switch to %v: %w", v, err)
	}
	defer s.leave()
	if err := st.Staging.Switch(ctx, v, patch); err != nil {
		return err
	}
	s.ro.forget()
	if err := s.restorePatch(); err != nil {
		return fmt.Errorf("switch to %v: %w", v, err)
	}
	return nil
}

// View implements statefs.State. Views of one version share a folder.
func (s *State) View(ctx context.Context) (statefs.View, error) {
	if err := s.enter(); err != nil {
		return nil, fmt.Errorf("open view: %w", err)
	}
	defer s.leave()
	if s.vol.Damaged() {
		return nil, fmt.Errorf("open view: %w", statefs.ErrDamaged)
	}
	sh, err := s.ro.show(s.vol.Agreed(), s.vol.Snapshot)
	if err != nil {
		return nil, fmt.Errorf("open view: %w", err)
	}
	return &view{s: s, shown: sh}, nil
}

// view is an open View.
type view struct {
	s     *State
	shown *shown
	once  sync.Once
}

// Dir implements statefs.View.
func (v *view) Dir() string { return v.s.ro.dir(v.shown) }

// Version implements statefs.View.
func (v *view) Version() statefs.Version { return v.shown.snap.Version() }

// Close implements statefs.View.
func (v *view) Close() (err error) {
	v.once.Do(func() {
		if v.s.enter() != nil {
			return // closed with the state
		}
		defer v.s.leave()
		err = v.s.ro.done(v.shown)
	})
	return err
}

// Close implements statefs.State. It takes the mounts away, also when a process
// still has its working directory there. An open run is undone.
func (s *State) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if err := s.release(); err != nil {
		return fmt.Errorf("close state: %w", err)
	}
	return nil
}

// release closes whatever is open, in the order that leaves nothing behind.
func (s *State) release() error {
	var errs []error
	if s.rw != nil {
		errs = append(errs, s.rw.unmount())
	}
	if s.ro != nil {
		errs = append(errs, s.ro.unmount())
	}
	if s.vol != nil {
		errs = append(errs, s.vol.Close())
	}
	if s.work >= 0 {
		unix.Close(s.work)
		s.work = -1
	}
	if s.lock != nil {
		s.lock.Close()
	}
	return errors.Join(errs...)
}
