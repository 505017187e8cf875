package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"evernode/hotpocket/statefs"
	"evernode/internal/wire"
)

// Errors of this package that callers tell apart.
var (
	// ErrGone says that the process that keeps the state has ended, or is not
	// back yet. What was open there (a run, a view, a staging) is undone; it has
	// to be begun again.
	ErrGone = errors.New("the process that keeps the contract's state is gone")
	// ErrUnavailable says that the kind of state that was asked for cannot be
	// had on this machine, now or later.
	ErrUnavailable = errors.New("this kind of state is not available here")
	// ErrTaken says that another node is connected to the state.
	ErrTaken = errors.New("another node is connected to this state")
	// ErrVersion says that the two sides do not understand each other.
	ErrVersion = errors.New("node and state are of different versions")
	// ErrRefused says that the other side is a user who may not connect.
	ErrRefused = errors.New("this user may not connect to the state")
)

// identities are the errors that stay what they are on the way: bit i of an
// error's mask says that it is identities[i]. New ones go to the end.
var identities = []error{
	statefs.ErrBusy, statefs.ErrFinished, statefs.ErrDamaged, statefs.ErrChanged, statefs.ErrNotFound,
	statefs.ErrMismatch, statefs.ErrFileTooLarge,
	context.Canceled, context.DeadlineExceeded, os.ErrClosed,
	ErrUnavailable, ErrTaken, ErrVersion, ErrRefused,
}

// callError is an error that the other side returned: its text, and what it is
// for errors.Is.
type callError struct {
	text  string
	mask  uint32
	errno syscall.Errno // 0: none
}

func (e *callError) Error() string { return e.text }

// Is implements the interface of package errors.
func (e *callError) Is(target error) bool {
	for i, known := range identities {
		if e.mask&(1<<i) != 0 && target == known {
			return true
		}
	}
	return e.errno != 0 && (target == error(e.errno) || e.errno.Is(target))
}

// As lets a caller look at the number of the system's error.
func (e *callError) As(target any) bool {
	if p, ok := target.(*syscall.Errno); ok && e.errno != 0 {
		*p = e.errno
		return true
	}
	return false
}

func appendError(b []byte, err error) []byte {
	var mask uint32
	for i, known := range identities {
		if errors.Is(err, known) {
			mask |= 1 << i
		}
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) && errors.Is(err, fs.ErrNotExist) {
		errno = syscall.ENOENT
	}
	text := err.Error()
	if len(text) > maxText {
		text = text[:maxText]
	}
	b = wire.AppendU32(b, mask)
	b = wire.AppendU32(b, uint32(errno))
	return wire.AppendString(b, strings.ToValidUTF8(text, "?"))
}

func decodeError(r *wire.Reader) error {
	e := &callError{mask: r.U32()}
	e.errno = syscall.Errno(r.U32())
	e.text = r.String(maxText + 4)
	if err := r.Close(); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	return e
}
