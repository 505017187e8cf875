package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// ErrUnavailable is returned by Open where this process cannot mount. The error
// says why and what would help; the plain folder (statefs.OpenDir) works there.
var ErrUnavailable = errors.New("no FUSE file system can be mounted here")

const (
	devicePath = "/dev/fuse"
	typeName   = "evernode"
	// maxRequest is how much data one request carries, the most that kernels
	// allow without tuning.
	maxRequest = 1 << 20
	// maxBackground is how many requests the kernel may have under way for
	// which nobody waits, RELEASE above all.
	maxBackground = 4096
	// readAheadKB is how far the kernel reads ahead in files that we serve.
	readAheadKB = 1024
	// stackDepth lets files on an overlay (as in a container) be passed through.
	stackDepth = 2
	// abandonAfter is how long a mount may be kept busy after it was taken away.
	abandonAfter = 2 * time.Second
)

// device is a mounted FUSE file system.
type device struct {
	path   string
	number string // major:minor, as in the list of mounts
	conn   *conn
	served chan struct{} // closed when nothing is served any more; nil before serve
}

// available reports why mounting cannot work, before anything is tried.
func available() error {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: there is no %s; load the kernel's fuse module (modprobe fuse), or give the container the device (--device %s --cap-add SYS_ADMIN)", ErrUnavailable, devicePath, devicePath)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %s may not be opened (%v); run as root or let this user read and write it", ErrUnavailable, devicePath, err)
	case err != nil:
		return fmt.Errorf("%w: open %s: %v", ErrUnavailable, devicePath, err)
	}
	unix.Close(fd)
	if os.Geteuid() != 0 {
		if _, err := fusermount(); err != nil {
			return fmt.Errorf("%w: only root may mount without the program fusermount3; run as root or install the package fuse3", ErrUnavailable)
		}
	}
	return nil
}

// mountKind says what a mount is for.
type mountKind uint8

const (
	// writable: only the kernel changes contents and attributes, and what we
	// change we take back; permissions are checked here.
	writable mountKind = iota
	// readOnly: the kernel checks permissions and looks again at what may have
	// changed.
	readOnly
)

// mountAt mounts fs on the folder path. Nothing is answered before serve.
func mountAt(path string, fs fuse.RawFileSystem, log *slog.Logger, kind mountKind) (*device, error) {
	options := []string{fmt.Sprintf("max_read=%d", maxRequest)}
	if kind == readOnly {
		options = append(options, "default_permissions")
	}
	var fd int
	var err error
	if os.Geteuid() == 0 {
		fd, err = mountDirectly(path, append(options, "allow_other"))
	} else {
		fd, err = mountByProgram(path, append(options, "nosuid", "nodev", "fsname="+typeName, "subtype="+typeName))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: mount %s: %v; run as root, in a container with --device %s --cap-add SYS_ADMIN", ErrUnavailable, path, err, devicePath)
	}
	d := &device{path: path}
	opts := &fuse.MountOptions{
		MaxWrite:                 maxRequest,
		MaxReadAhead:             maxRequest,
		MaxBackground:            maxBackground,
		DisableXAttrs:            true,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: kind == writable,
		MaxStackDepth:            stackDepth,
		ExtraCapabilities:        fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_READDIRPLUS_AUTO,
		Logger:                   stdlog.New(logWriter{log, path}, "", 0),
	}
	if d.conn, err = newConn(fd, pollFS{fs}, opts, log); err != nil {
		unix.Close(fd)
		return nil, errors.Join(fmt.Errorf("mount %s: %w", path, err), d.detach())
	}
	// From the list of mounts: stat(2) would ask us, and nobody answers yet.
	d.number = mountedDevice(path)
	// Reading further ahead than the kernel does by itself, where permitted.
	_ = os.WriteFile("/sys/class/bdi/"+d.number+"/read_ahead_kb", fmt.Appendf(nil, "%d", readAheadKB), 0)
	return d, nil
}

// logWriter is where go-fuse writes its complaints.
type logWriter struct {
	log  *slog.Logger
	path string
}

func (w logWriter) Write(b []byte) (int, error) {
	w.log.Log(context.Background(), slog.LevelWarn, "FUSE: "+string(bytes.TrimSpace(b)), "mount", w.path)
	return len(b), nil
}

var _ io.Writer = logWriter{}

// mountDirectly mounts as root.
func mountDirectly(path string, options []string) (fd int, err error) {
	fd, err = unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	options = append(options, fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d", fd, unix.S_IFDIR, os.Geteuid(), os.Getegid()))
	if err := unix.Mount(typeName, path, "fuse."+typeName, unix.MS_NOSUID|unix.MS_NODEV, strings.Join(options, ",")); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func fusermount() (string, error) {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}

// mountByProgram lets the program that is allowed to mount for every user do it.
// It hands over the connection through a socket.
func mountByProgram(path string, options []string) (fd int, err error) {
	bin, err := fusermount()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	cmd := exec.Command(bin, "-o", strings.Join(options, ","), "--", path)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	theirs.Close()
	if err != nil {
		return -1, fmt.Errorf("%s: %w: %s", filepath.Base(bin), err, bytes.TrimSpace(out))
	}
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return -1, err
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, fmt.Errorf("%s did not hand over the connection", filepath.Base(bin))
}

// serve answers requests from now on.
func (d *device) serve() error {
	d.served = make(chan struct{})
	go func() {
		defer close(d.served)
		d.conn.serve()
	}()
	if err := learn(d.path); err != nil {
		return fmt.Errorf("ask the mount on %s: %w", d.path, err)
	}
	return nil
}

// mountedDevice returns the number of what is mounted last on path.
func mountedDevice(path string) (number string) {
	list, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(path)
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == escaped {
			number = f[2]
		}
	}
	return number
}

// passthrough reports whether the kernel can be given files below dir to read
// and write by itself, and if not, why.
func (d *device) passthrough(dir string) error {
	if d.conn.flags&fuse.CAP_PASSTHROUGH == 0 {
		return errors.New("the kernel cannot (it can since Linux 6.9)")
	}
	f, err := os.CreateTemp(dir, "probe")
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	id, errno := d.conn.register(int(f.Fd()))
	if errno != 0 {
		return fmt.Errorf("the kernel refuses: %w", errno)
	}
	d.conn.unregister(id)
	return nil
}

// unmount takes the file system away and waits until nothing is served.
// Processes that are still in it get ENOTCONN from then on.
func (d *device) unmount() error {
	if err := d.detach(); err != nil {
		return fmt.Errorf("unmount %s: %w", d.path, err)
	}
	if d.served != nil {
		select {
		case <-d.served:
		case <-time.After(abandonAfter):
			// Somebody is in it and this process may not break the connection.
			return nil
		}
	}
	return unix.Close(d.conn.fd)
}

// detach takes the mount out of sight and breaks its connection.
func (d *device) detach() error {
	if os.Geteuid() != 0 {
		err := fusermountDetach(d.path)
		_, minor, _ := strings.Cut(d.number, ":")
		_ = os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0)
		return err
	}
	err := unix.Unmount(d.path, unix.UMOUNT_NOFOLLOW)
	if err != nil {
		err = unix.Unmount(d.path, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if errors.Is(err, unix.EINVAL) {
		return nil // somebody else took it away
	}
	return err
}

func fusermountDetach(path string) error {
	bin, err := fusermount()
	if err != nil {
		return err
	}
	if out, err := exec.Command(bin, "-u", "-z", path).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(bin), err, bytes.TrimSpace(out))
	}
	return nil
}
