package contract

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Logs keeps what consensus runs write to their standard streams, in the files
// rw.stdout.log and rw.stderr.log of a folder (spec/hotpocket.md section 2.8).
type Logs struct{ streams [2]*outputLog }

// OpenLogs makes the folder if need be and removes surplus files. A file that has
// grown to maxFileBytes is set aside as rw_1.….log, the one of that name as
// rw_2.….log and so on; maxFiles is how many there are of each kind in all. Both
// must be positive.
func OpenLogs(dir string, maxFileBytes int64, maxFiles int) (*Logs, error) {
	if maxFileBytes <= 0 || maxFiles <= 0 {
		return nil, errors.New("contract log: the size and the number of files must be positive")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("contract log: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("contract log: %w", err)
	}
	logs := new(Logs)
	for i, stream := range []string{"stdout", "stderr"} {
		logs.streams[i] = &outputLog{dir: dir, maxBytes: maxFileBytes, maxFiles: maxFiles, stream: stream}
		for _, e := range entries {
			middle, ok := strings.CutPrefix(e.Name(), "rw_")
			middle, ok2 := strings.CutSuffix(middle, "."+stream+".log")
			if n, err := strconv.Atoi(middle); ok && ok2 && err == nil && n >= maxFiles {
				if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
					return nil, fmt.Errorf("contract log: %w", err)
				}
			}
		}
	}
	return logs, nil
}

// Close closes the files. No run that logs may go on.
func (l *Logs) Close() {
	for _, s := range l.streams {
		s.close()
	}
}

// outputLog is the log of one of the streams.
type outputLog struct {
	dir      string
	maxBytes int64
	maxFiles int
	stream   string // "stdout" or "stderr"

	mu     sync.Mutex
	file   *os.File
	size   int64
	failed bool // the last write failed, and this was logged
}

func (l *outputLog) path(n int) string {
	name := "rw"
	if n > 0 {
		name += "_" + strconv.Itoa(n)
	}
	return filepath.Join(l.dir, name+"."+l.stream+".log")
}

// write appends, and sets the file aside whenever it is full: before a run, and
// within one that writes much, so that no run fills the disk.
func (l *outputLog) write(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(b) > 0 {
		if l.file != nil && l.size >= l.maxBytes {
			l.file.Close()
			l.file = nil
			if err := l.rotate(); err != nil {
				return err
			}
		}
		if l.file == nil {
			if err := l.open(); err != nil {
				return err
			}
			continue
		}
		n, err := l.file.Write(b[:min(int64(len(b)), l.maxBytes-l.size)])
		l.size += int64(n)
		b = b[n:]
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *outputLog) open() error {
	f, err := os.OpenFile(l.path(0), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o664)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.size = f, info.Size()
	return nil
}

func (l *outputLog) rotate() error {
	for n := l.maxFiles - 1; n >= 0; n-- {
		var err error
		if n == l.maxFiles-1 {
			err = os.Remove(l.path(n))
		} else {
			err = os.Rename(l.path(n), l.path(n+1))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// beginRun sets a full file aside and marks the beginning of a run.
func (l *outputLog) beginRun(run *Run) error {
	return l.write(fmt.Appendf(nil, "Execution lcl %d-%s\n", run.LedgerSeq, run.LedgerHash))
}

func (l *outputLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// stream is one of a run's streams that is logged: the pipe it comes through, the
// log, and the node's own stream, to which it is copied.
type stream struct {
	fd     int // our end of the pipe, -1 when closed
	theirs int
	log    *outputLog
	copy   *os.File
	lost   int // bytes for which the node's own stream had no room
}

func newStream(l *outputLog, copy *os.File) (*stream, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	return &stream{fd: p[0], theirs: p[1], log: l, copy: copy}, nil
}

// read takes what is there. It reports whether there was something.
func (s *stream) read(buf []byte, log *slog.Logger) bool {
	if s.fd < 0 {
		return false
	}
	n, err := unix.Read(s.fd, buf)
	switch {
	case err == unix.EINTR:
		return true
	case err == unix.EAGAIN:
		return false
	case err != nil || n == 0:
		s.close()
		return false
	}
	if err := s.log.write(buf[:n]); err != nil {
		// The contract must not wait for a full disk to be cleaned.
		if !s.log.failed {
			log.Error("contract's output cannot be logged", "error", err)
		}
		s.log.failed = true
	} else {
		s.log.failed = false
	}
	s.lost += copyReady(s.copy, buf[:n])
	return true
}

// copyReady writes as much as f takes without waiting and returns how many bytes
// it did not take. The node's output may be a pipe that nobody reads.
func copyReady(f *os.File, b []byte) (lost int) {
	// The smallest amount for which a pipe that is ready has room.
	const atomic = 4096
	fd := int(f.Fd())
	for len(b) > 0 {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 || p[0].Revents&unix.POLLOUT == 0 {
			return len(b)
		}
		n, err = unix.Write(fd, b[:min(len(b), atomic)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return len(b)
		}
		b = b[n:]
	}
	return 0
}

func (s *stream) closeTheirs() {
	if s.theirs >= 0 {
		unix.Close(s.theirs)
		s.theirs = -1
	}
}

func (s *stream) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// openStreams gives an execution its standard output and error: pipes to the logs
// if there are any, otherwise the node's own.
func (e *Execution) openStreams() (stdout, stderr uintptr, err error) {
	r := e.runner
	if r.logs == nil || e.run.Mode != Consensus {
		return r.stdout.Fd(), r.stderr.Fd(), nil
	}
	for i, copy := range []*os.File{r.stdout, r.stderr} {
		if e.streams[i], err = newStream(r.logs.streams[i], copy); err != nil {
			return 0, 0, err
		}
	}
	return uintptr(e.streams[0].theirs), uintptr(e.streams[1].theirs), nil
}

// logBegin marks the beginning of a run in the logs.
func (e *Execution) logBegin() {
	for _, s := range e.streams {
		if s == nil {
			continue
		}
		if err := s.log.beginRun(&e.run); err != nil {
			e.log.Error("contract's log cannot be written", "error", err)
		}
	}
}
