package contract

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// RaiseFileLimit raises the process's limit of open files to at least want. A
// node needs two descriptors for each user connected anywhere in its cluster
// while a run is set up. The program's main function calls it at start; contracts
// inherit the raised limit, because Go restores the original one in children only
// as long as a program has not asked for another.
//
// It returns the limit now in force. It fails when the limit cannot be raised to
// want; what could be had is in force then.
func RaiseFileLimit(want uint64) (uint64, error) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	hard := lim.Max
	if hard < want {
		// Only a privileged process may raise the hard limit.
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: want}); err == nil {
			return want, nil
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: hard, Max: hard}); err != nil {
		return lim.Cur, fmt.Errorf("raise the limit of open files from %d to %d: %w", lim.Cur, hard, err)
	}
	if hard < want {
		return hard, fmt.Errorf("the limit of open files is %d, %d are needed: raise it for the node's service (ulimit -Hn, LimitNOFILE)", hard, want)
	}
	return hard, nil
}

// CloseOnExecAll marks every open descriptor except the three standard ones as
// not to be inherited. The program's main function calls it at start: what the
// node itself opens is marked from birth, but not what its parent left open.
func CloseOnExecAll() error {
	if err := unix.CloseRange(3, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors close-on-exec: %w", err)
	}
	return nil
}
