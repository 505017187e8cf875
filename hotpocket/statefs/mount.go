package statefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// sideNames are the folders below mnt in which read requests run.
var sideNames = [2]string{"ro.0", "ro.1"}

// Unmount detaches what a node that died left mounted below its contract_fs, so
// that the folder can be removed. It is not an error when nothing is mounted.
func Unmount(dir string) error {
	for _, name := range sideNames {
		if err := unmountAll(filepath.Join(dir, "mnt", name)); err != nil {
			return err
		}
	}
	return nil
}

func unmountAll(path string) error {
	// Without privilege nothing can have been mounted by us.
	for range 16 {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
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
