package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A process can leave its process group, but not its control group. If the node
// was given a folder of control groups (cgroup v2), each run gets one of its own,
// and no process that it started, however it hid, survives it. Without one, a
// process that makes itself a session survives, as it does in the original.

// cgroups makes the groups of runs below a folder that no other runner uses.
type cgroups struct {
	dir  string
	next atomic.Uint64
}

const cgroupPrefix = "contract-"

// newCgroups removes what an earlier process of the node left in dir, with all
// that still runs there.
func newCgroups(dir string, log *slog.Logger) *cgroups {
	entries, err := os.ReadDir(dir)
	if err != nil {
		log.Error("the folder of control groups cannot be used, contracts will not start", "error", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), cgroupPrefix) {
			(&cgroup{path: filepath.Join(dir, e.Name()), fd: -1}).end(log)
		}
	}
	return &cgroups{dir: dir}
}

// cgroup is the group of one run.
type cgroup struct {
	path string
	fd   int
}

func (c *cgroups) create() (*cgroup, error) {
	g := &cgroup{path: filepath.Join(c.dir, cgroupPrefix+strconv.FormatUint(c.next.Add(1), 10))}
	if err := os.Mkdir(g.path, 0o755); err != nil {
		return nil, fmt.Errorf("make the run's control group: %w", err)
	}
	var err error
	if g.fd, err = unix.Open(g.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		os.Remove(g.path)
		return nil, fmt.Errorf("open the run's control group: %w", err)
	}
	return g, nil
}

// end kills all processes of the group, waits until they are gone, and removes it.
func (g *cgroup) end(log *slog.Logger) {
	if g.fd >= 0 {
		unix.Close(g.fd)
		g.fd = -1
	}
	const limit = 5 * time.Second
	pause := 50 * time.Microsecond
	began := time.Now()
	for {
		// Removing it fails as long as a process is in it.
		err := os.Remove(g.path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		if !errors.Is(err, unix.EBUSY) || time.Since(began) > limit {
			log.Warn("the run's control group cannot be removed", "error", err)
			return
		}
		g.kill()
		time.Sleep(pause)
		pause = min(2*pause, 10*time.Millisecond)
	}
}

func (g *cgroup) kill() {
	if os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	// Before Linux 5.14 they must be killed one by one.
	list, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	if err != nil {
		return
	}
	for _, line := range bytes.Fields(list) {
		if pid, err := strconv.Atoi(string(line)); err == nil && pid > 0 {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}
