package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// patchHash is the hash of a patch.cfg, the zero hash when there is none.
func patchHash(content []byte) digest.Hash {
	if content == nil {
		return digest.Hash{}
	}
	return statefs.HashPatch(content)
}

// readPatch reads mnt/rw/patch.cfg. ok is false when there is something that no
// other node could have.
func (s *State) readPatch() (content []byte, mode uint32, ok bool, err error) {
	fd, err := unix.Openat(s.work, patchName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, 0, true, nil
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO):
		return nil, 0, false, nil
	case err != nil:
		return nil, 0, false, fmt.Errorf("open %s: %w", patchName, err)
	}
	f := os.NewFile(uintptr(fd), patchName)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, 0, false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > statefs.MaxPatch {
		return nil, 0, false, nil
	}
	// One byte more shows whether it has grown meanwhile.
	content = make([]byte, st.Size+1)
	n := 0
	for n < len(content) {
		c, err := f.Read(content[n:])
		n += c
		if err != nil || c == 0 {
			break
		}
	}
	if n > statefs.MaxPatch {
		return nil, 0, false, nil
	}
	return content[:n:n], st.Mode & 0o7777, true, nil
}

// takePatch returns the patch.cfg that a run left. When it is something else than
// a file of at most MaxPatch bytes it puts the agreed one back, which counts then.
func (s *State) takePatch() (content []byte, ok bool, err error) {
	s.patchMu.Lock()
	defer s.patchMu.Unlock()
	content, _, ok, err = s.readPatch()
	if err != nil || ok {
		return content, ok, err
	}
	agreed := s.vol.Patch()
	return agreed, false, s.writePatch(agreed)
}

// restorePatch makes mnt/rw/patch.cfg the agreed one.
func (s *State) restorePatch() error {
	s.patchMu.Lock()
	defer s.patchMu.Unlock()
	agreed := s.vol.Patch()
	content, _, ok, err := s.readPatch()
	if err != nil {
		return err
	}
	if ok && (content == nil) == (agreed == nil) && bytes.Equal(content, agreed) {
		return nil
	}
	return s.writePatch(agreed)
}

// writePatch replaces mnt/rw/patch.cfg; nil removes it. The caller holds patchMu
// or is alone.
func (s *State) writePatch(content []byte) error {
	path := filepath.Join(s.paths.rw, patchName)
	err := func() error {
		if st, err := os.Lstat(path); err == nil && (st.IsDir() || content == nil) {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		if content == nil {
			return nil
		}
		tmp := filepath.Join(s.paths.store, patchName+".new")
		if err := os.WriteFile(tmp, content, 0o600); err != nil {
			return err
		}
		if o := s.cfg.Owner; o != nil {
			if err := os.Lchown(tmp, o.UID, o.GID); err != nil {
				return err
			}
		}
		if err := os.Chmod(tmp, 0o644); err != nil {
			return err
		}
		return os.Rename(tmp, path)
	}()
	if err != nil {
		return fmt.Errorf("write patch.cfg: %w", err)
	}
	return nil
}
