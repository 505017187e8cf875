package statefs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions of this file work on names relative to an open folder and never
// follow a symbolic link in the last component, so that nothing a contract
// leaves in its folder can lead them out of it. Where an unprivileged node meets
// a mode that locks it out of its own file, the mode is lifted for the moment.

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// openDirAt opens a folder. done closes it; if its mode locked us out, it is
// locked again then.
func openDirAt(parent int, name string) (fd int, done func(), err error) {
	fd, err = openRetry(parent, name, dirFlags)
	if err != nil && !errors.Is(err, unix.EACCES) {
		return -1, nil, err
	}
	if os.Geteuid() == 0 {
		return fd, func() { closeFd(fd) }, err
	}
	var st unix.Stat_t
	if e := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); e != nil {
		closeFd(fd)
		return -1, nil, e
	}
	mode := st.Mode & modeBits
	if err == nil && mode&0o500 == 0o500 {
		return fd, func() { closeFd(fd) }, nil
	}
	closeFd(fd)
	if e := unix.Fchmodat(parent, name, mode|0o700, 0); e != nil {
		return -1, nil, e
	}
	fd, err = openRetry(parent, name, dirFlags)
	if err != nil {
		return -1, nil, err
	}
	return fd, func() {
		// If this fails the folder has another mode than before, and whoever
		// compares modes will notice.
		_ = unix.Fchmod(fd, mode)
		closeFd(fd)
	}, nil
}

// openDir opens a folder of our own, for good.
func openDir(parent int, name string) (int, error) { return openRetry(parent, name, dirFlags) }

func openFileAt(parent int, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := openRetry(parent, name, flags)
	if errors.Is(err, unix.EACCES) {
		var st unix.Stat_t
		if e := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); e != nil {
			return nil, e
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG || unix.Fchmodat(parent, name, st.Mode&modeBits|0o400, 0) != nil {
			return nil, err
		}
		fd, err = openRetry(parent, name, flags)
		if e := unix.Fchmodat(parent, name, st.Mode&modeBits, 0); e != nil && err == nil {
			unix.Close(fd)
			return nil, e
		}
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func openRetry(parent int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(parent, name, flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openPath opens the file at a slash separated path below root, refusing links
// on the way.
func openPath(root int, path string) (*os.File, error) {
	name, rest, more := strings.Cut(path, "/")
	if !more {
		return openFileAt(root, name)
	}
	dir, done, err := openDirAt(root, name)
	if err != nil {
		return nil, err
	}
	defer done()
	return openPath(dir, rest)
}

// names returns the names in an open folder, sorted.
func names(fd int, buf []byte) ([]string, error) {
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		return nil, err
	}
	var list []string
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		_, _, list = parseDirent(buf[:n], list)
	}
	sort.Strings(list)
	return list, nil
}

// parseDirent appends the names in buf to list, leaving out "." and "..".
func parseDirent(buf []byte, list []string) (int, int, []string) {
	return syscall.ParseDirent(buf, -1, list)
}

// removeAt removes whatever has the name, with everything below it. A name that
// does not exist is not an error.
func removeAt(parent int, name string) error {
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	if e := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); e == nil {
		return nil
	}
	fd, done, e := openDirAt(parent, name)
	if e != nil {
		if errors.Is(e, unix.ENOTDIR) {
			return err
		}
		return e
	}
	defer done()
	if err := writableDir(fd); err != nil {
		return err
	}
	list, err := names(fd, make([]byte, 8<<10))
	if err != nil {
		return err
	}
	for _, n := range list {
		if err := removeAt(fd, n); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}

// writableDir lets the owner of a folder add and remove names in it.
func writableDir(fd int) error {
	if os.Geteuid() == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&0o700 == 0o700 {
		return nil
	}
	return unix.Fchmod(fd, st.Mode&modeBits|0o700)
}

// ficlone is the ioctl that shares the blocks of two files where the file
// system can (btrfs, xfs).
const ficlone = 0x40049409

// copyFile writes a copy of src as name in dst, with mode, owner (when
// privileged) and times of src. Holes stay holes.
func copyFile(dst int, name string, src *os.File, mode uint16) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	fd, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), name)
	defer out.Close()
	if st.Size > 0 {
		if err := copyContent(out, src, st.Size); err != nil {
			return err
		}
	}
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	if err := unix.Fchmod(fd, uint32(mode)); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := utimesFd(fd, times); err != nil {
		return err
	}
	return out.Close()
}

func utimesFd(fd int, ts []unix.Timespec) error {
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func copyContent(dst, src *os.File, size int64) error {
	if size >= 4096 {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, dst.Fd(), ficlone, src.Fd()); e == 0 {
			return nil
		}
	}
	in := int(src.Fd())
	var buf []byte
	for off := int64(0); off < size; {
		data, err := unix.Seek(in, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // nothing but a hole up to the end
		}
		end := size
		if err != nil {
			data = off // holes are not reported here
		} else if end, err = unix.Seek(in, data, unix.SEEK_HOLE); errors.Is(err, unix.ENXIO) {
			return errShrunk
		} else if err != nil {
			return err
		}
		end = min(end, size)
		for off = data; off < end; {
			if n := end - off; n >= 64<<10 {
				from, to := off, off
				m, err := unix.CopyFileRange(in, &from, int(dst.Fd()), &to, int(min(n, 1<<30)), 0)
				if err == nil && m > 0 {
					off += int64(m)
					continue
				}
				if err == nil {
					return errShrunk
				}
			}
			if buf == nil {
				buf = make([]byte, min(1<<20, size))
			}
			b := buf[:min(int64(len(buf)), end-off)]
			if err := readFull(src, b, off); err != nil {
				return err
			}
			if _, err := dst.WriteAt(b, off); err != nil {
				return err
			}
			off += int64(len(b))
		}
	}
	return dst.Truncate(size)
}

// writeFileAtomic replaces the file at path by one with the given content: a
// reader sees the old or the new content, never a part.
func writeFileAtomic(path string, data []byte, mode os.FileMode, sync bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if sync {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
