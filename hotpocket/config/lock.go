package config

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Lock is the right of one process to work in a node's folder.
type Lock struct {
	dir *os.File
}

// InUseError says that another process works in a node's folder.
type InUseError struct {
	Dir string
	PID int // 0 when unknown
}

func (e *InUseError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("%s works in the node's folder %s; stop it first", who, e.Dir)
}

// relicTime is how long a lock is waited for whose process has ended. A child that
// the process was about to start when it was killed holds it until it starts its
// own program.
const relicTime = 2 * time.Second

// ended reports whether a process that the kernel named is gone; so is one that it
// names no more.
func ended(pid int) bool { return pid <= 0 || errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// Acquire takes the lock on a node's folder, or returns an *InUseError. The
// lock is on the folder itself, so it leaves no file behind, outlives every
// rewrite of hp.cfg, and ends with the process however it ends.
func Acquire(dir string) (*Lock, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for until := time.Now().Add(relicTime); errors.Is(err, unix.EWOULDBLOCK) && ended(lockedBy(d)) && time.Now().Before(until); {
		time.Sleep(5 * time.Millisecond)
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &InUseError{dir, lockedBy(d)}
	} else if err != nil {
		err = fmt.Errorf("lock the node's folder %s: %w", dir, err)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return &Lock{d}, nil
}

// Release gives the lock back.
func (l *Lock) Release() error { return l.dir.Close() }

// Holder returns the process that holds the lock on a node's folder, without
// touching the lock, or 0 when there is none or the kernel does not tell.
func Holder(dir string) int {
	d, err := os.Open(dir)
	if err != nil {
		return 0
	}
	defer d.Close()
	return lockedBy(d)
}

// lockedBy finds the process that locks d, or 0. The kernel lists locks as
// "1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF".
func lockedBy(d *os.File) int {
	info, err := d.Stat()
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		if len(f) >= 6 && f[1] == "FLOCK" && f[5] == file {
			pid, _ := strconv.Atoi(f[4])
			return pid
		}
	}
	return 0
}
