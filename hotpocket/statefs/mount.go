package statefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// sideNames are the folders below mnt in which read requests run.
var sideNames = [2]string{"ro.0", "ro.1"}

// fuseNames are the folders below mnt on which package mount mounts.
var fuseNames = [2]string{"rw/state", "ro"}

// Release makes a contract_fs removable after its node died: it detaches what
// is still mounted below it and gives back the write permission of folders that
// were read-only. No node may be running on it. It is not an error when there is
// nothing to do. A node that was stopped properly has done it itself.
func Release(dir string) error {
	if err := unmountSides(dir); err != nil {
		return fmt.Errorf("release %s: %w", dir, err)
	}
	for _, name := range fuseNames {
		if err := detachFuse(filepath.Join(dir, "mnt", name)); err != nil {
			return fmt.Errorf("release %s: %w", dir, err)
		}
	}
	for _, name := range sideNames {
		if err := unlockFolders(filepath.Join(dir, "mnt", name)); err != nil {
			return fmt.Errorf("release %s: %w", dir, err)
		}
	}
	return nil
}

// unlockFolders lets the owner remove what is in a folder and all below it.
func unlockFolders(path string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	err := filepath.WalkDir(path, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		// WalkDir reads the folder after this.
		return os.Chmod(p, 0o755)
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func unmountSides(dir string) error {
	for _, name := range sideNames {
		if err := unmountAll(filepath.Join(dir, "mnt", name)); err != nil {
			return err
		}
	}
	return nil
}

// detachFuse takes away a FUSE file system whose process died. Where this
// process may not unmount, the program that mounted it for the dead one can.
func detachFuse(path string) error {
	if os.Geteuid() == 0 {
		// Whoever waits for an answer gets an error.
		return unmountWith(path, unix.MNT_FORCE)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	list, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil // then nothing can be known
	}
	// The kernel writes spaces and the like as octal numbers.
	escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(abs)
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) < 5 || f[4] != escaped {
			continue
		}
		if out, err := exec.Command("fusermount3", "-u", "-z", abs).CombinedOutput(); err != nil {
			return fmt.Errorf("unmount %s: %w: %s", abs, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

func unmountAll(path string) error { return unmountWith(path, 0) }

func unmountWith(path string, flags int) error {
	// Without privilege nothing can have been mounted by us.
	for range 16 {
		err := unix.Unmount(path, flags|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPERM):
			return nil
		}
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// mountReadOnly mounts path on itself, read-only. Descriptors of the folder
// that were opened before go on seeing the writable one.
func mountReadOnly(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", path, err)
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("", path, "", flags, ""); err != nil {
		unix.Unmount(path, unix.MNT_DETACH)
		return fmt.Errorf("make %s read-only: %w", path, err)
	}
	return nil
}

// canMount tries whether this process may mount, on the given folder.
func canMount(path string) bool {
	if os.Geteuid() != 0 {
		return false
	}
	if mountReadOnly(path) != nil {
		return false
	}
	return unix.Unmount(path, unix.MNT_DETACH) == nil
}
