package devkit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sweep ends what a dead node left behind: processes of its session that work
// in its folder, which are contracts that outlived it, and mounts below the
// folder.
func sweep(ctx context.Context, node process, dir string) error {
	var errs []error
	for _, p := range sessionOf(node, dir) {
		errs = append(errs, p.signal(syscall.SIGKILL))
	}
	// Killed processes let go of their mounts a moment later.
	for _, p := range sessionOf(node, dir) {
		p.wait(ctx, 2*time.Second)
	}
	for _, point := range mountsBelow(dir) {
		// The mount goes now for whoever looks and in fact when its last user
		// is done.
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			errs = append(errs, &os.PathError{Op: "unmount", Path: point, Err: err})
		}
	}
	return errors.Join(errs...)
}

// sessionOf finds the processes that a node left: they are in the session that
// it led and work below its folder. The second condition keeps other sessions
// safe that came to have the same number, the first one a shell that somebody
// opened in the folder.
func sessionOf(node process, dir string) []process {
	if node.PID == 0 || node.Boot != bootID() || node.alive() {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		s, err := readStat(pid)
		if err != nil || s.session != node.PID || s.start < node.Start || s.state == 'Z' {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if err != nil || !below(strings.TrimSuffix(cwd, " (deleted)"), dir) {
			continue
		}
		found = append(found, process{pid, s.start, node.Boot})
	}
	return found
}

// below reports whether path is dir or lies in it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// mountsBelow lists mount points below a folder, the innermost first.
func mountsBelow(dir string) []string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if point := unescapeMount(f[4]); point != real && below(point, real) {
			points = append(points, point)
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(points)))
	return points
}

// unescapeMount reverses the octal escapes of mountinfo.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
