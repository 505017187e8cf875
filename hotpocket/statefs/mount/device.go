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
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// ErrUnavailable is returned by Open where this process cannot mount. The error
// says why and what would help; the plain folder (statefs.OpenDir) works there.
var ErrUnavailable = errors.New("no FUSE file system can be mounted here")

const (
	devicePath = "/dev/fuse"
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
	server *fuse.Server
	served chan struct{} // closed when nothing is served any more
	ending atomic.Bool
	// serving says that serve was called.
	serving bool
}

// logTo returns where go-fuse writes its complaints. Those about a connection
// that we break ourselves are none.
func (d *device) logTo(log *slog.Logger) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		level := slog.LevelWarn
		if d.ending.Load() {
			level = slog.LevelDebug
		}
		log.Log(context.Background(), level, "FUSE: "+string(bytes.TrimSpace(b)), "mount", d.path)
		return len(b), nil
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

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

func fusermount() (string, error) {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
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
	root := os.Geteuid() == 0
	opts := &fuse.MountOptions{
		Name:                     "evernode",
		FsName:                   "evernode",
		AllowOther:               root,
		Options:                  []string{"nosuid", "nodev"},
		MaxWrite:                 maxRequest,
		MaxReadAhead:             maxRequest,
		MaxBackground:            maxBackground,
		DisableXAttrs:            true,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: kind == writable,
		DisableSplice:            true,
		DirectMountStrict:        root,
		MaxStackDepth:            stackDepth,
		ExtraCapabilities:        fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_READDIRPLUS_AUTO,
	}
	if kind == readOnly {
		opts.Options = append(opts.Options, "default_permissions")
	}
	d := &device{path: path, served: make(chan struct{})}
	opts.Logger = stdlog.New(d.logTo(log), "", 0)
	server, err := fuse.NewServer(pollFS{fs}, path, opts)
	if err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("%w: mounting on %s is not permitted (%v); run as root, in a container with --cap-add SYS_ADMIN", ErrUnavailable, path, err)
		}
		return nil, fmt.Errorf("%w: mount %s: %v", ErrUnavailable, path, err)
	}
	d.server = server
	d.readAhead()
	return d, nil
}

// serve answers requests from now on.
func (d *device) serve() error {
	d.serving = true
	go func() {
		defer close(d.served)
		d.server.Serve()
	}()
	if err := learn(d.path); err != nil {
		return fmt.Errorf("ask the mount on %s: %w", d.path, err)
	}
	return nil
}

// readAhead lets the kernel read further ahead than its default, where that is
// permitted.
func (d *device) readAhead() {
	// From the list of mounts: stat(2) would ask us, and nobody answers yet.
	dev, err := mountedDevice(d.path)
	if err != nil {
		return
	}
	_ = os.WriteFile("/sys/class/bdi/"+dev+"/read_ahead_kb", fmt.Appendf(nil, "%d", readAheadKB), 0)
}

// mountedDevice returns the number, major:minor, of what is mounted last on path.
func mountedDevice(path string) (string, error) {
	list, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	dev := ""
	for line := range bytes.Lines(list) {
		f := strings.Fields(string(line))
		if len(f) > 4 && unescape(f[4]) == path {
			dev = f[2]
		}
	}
	if dev == "" {
		return "", os.ErrNotExist
	}
	return dev, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// passthrough reports whether the kernel can be given files below dir to read
// and write by itself, and if not, why.
func (d *device) passthrough(dir string) error {
	if d.server.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0 {
		return errors.New("the kernel cannot (it can since Linux 6.9)")
	}
	f, err := os.CreateTemp(dir, "probe")
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	id, errno := d.register(int(f.Fd()))
	if errno != 0 {
		return fmt.Errorf("the kernel refuses: %w", errno)
	}
	d.server.UnregisterBackingFd(id)
	return nil
}

func (d *device) register(fd int) (int32, unix.Errno) {
	return d.server.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
}

// unmount takes the file system away and waits until nothing is served.
// Processes that are still in it get ENOTCONN from then on.
func (d *device) unmount() error {
	d.ending.Store(true)
	if err := d.detach(); err != nil {
		return fmt.Errorf("unmount %s: %w", d.path, err)
	}
	if !d.serving {
		return nil
	}
	select {
	case <-d.served:
	case <-time.After(abandonAfter):
		// Somebody is in it, and this process may not break the connection.
	}
	return nil
}

// detach takes the mount out of sight and breaks its connection.
func (d *device) detach() error {
	if os.Geteuid() != 0 {
		number, _ := mountedDevice(d.path)
		err := fusermountDetach(d.path)
		_, minor, _ := strings.Cut(number, ":")
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
