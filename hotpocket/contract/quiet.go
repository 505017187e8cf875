package contract

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A contract written with the Node.js library that has listened to NPL does not
// end by itself: a read of the socket stays pending, and the library has no means
// of taking it back (spec/hotpocket.md section 2.5). From outside it looks just
// like a contract that waits for one more message. What can be seen is that
// nothing else than NPL keeps it alive. Such a process is called quiet here. It
// has ended, in effect, as soon as no NPL message can come any more; the runners
// of the UNL find that out together (termination.go), and if one of them does not
// answer a time limit decides.
//
// Node.js, like all that is built upon libuv, has a loop that counts what keeps
// it running: active handles (timers, sockets, child processes and so on) and
// requests under way. A process is quiet when its main thread waits for events in
// that loop, there is no active handle, the one request under way is the read of
// NPL, and no other thread runs. The timers that the JavaScript engine sets for
// itself are not counted, so the loop tells more than the system call's time
// limit does.
//
// Of another program less can be known. It is quiet when its main thread waits for
// events without a time limit, some thread reads NPL, all others sleep without a
// time limit, and there are no child processes and no sockets of its own.

// probe looks at a process from outside.
type probe struct {
	pid      int
	nplFD    int // in the contract
	knownFDs int // descriptors below this number are those it was given
	buf      []byte
	proc     string // where the process is found, "/proc/<pid>"

	searched bool
	loop     uintptr // address of libuv's loop, 0 if there is none
}

func newProbe(pid, nplFD, knownFDs int) *probe {
	return &probe{pid: pid, nplFD: nplFD, knownFDs: knownFDs, buf: make([]byte, 4096), proc: "/proc/" + strconv.Itoa(pid)}
}

// errNoProbe means that the system does not let the node see what it needs.
var errNoProbe = errors.New("the state of the contract's threads cannot be read")

// quiet reports whether the process is quiet, and how often its threads have been
// put to sleep in all. The picture is not taken at one instant; but if two
// pictures are quiet and the number has not changed, nothing ran in between.
func (p *probe) quiet() (quiet bool, switches uint64, err error) {
	main, err := p.syscall(strconv.Itoa(p.pid))
	epfd, waits := main.waitsForEvents()
	if err != nil || waits == no {
		return false, 0, err
	}
	tasks, err := os.ReadDir(p.proc + "/task")
	if err != nil {
		return false, 0, nil // it has just ended
	}
	calls := make([]syscallState, len(tasks))
	reads := false
	for i, t := range tasks {
		if calls[i], err = p.syscall(t.Name()); err != nil {
			return false, 0, err
		}
		reads = reads || calls[i].reads(p.nplFD)
	}
	if !reads {
		return false, 0, nil
	}
	if !p.searched {
		p.loop, p.searched = findLoop(p.pid, p.proc, epfd), true
	}
	need := endless
	if p.loop != 0 {
		if !loopOnlyReads(p.pid, p.loop, epfd) {
			return false, 0, nil
		}
		need = limited
	}
	for i, t := range tasks {
		_, waits := calls[i].waitsForEvents()
		if waits < need && calls[i].sleeps() < need && !calls[i].reads(p.nplFD) {
			return false, 0, nil
		}
		n, err := p.switches(t.Name())
		if err != nil {
			return false, 0, nil
		}
		switches += n
	}
	if p.loop == 0 && (waits < endless || p.hasChildren(tasks) || p.ownSockets()) {
		return false, 0, nil
	}
	return true, switches, nil
}

func (p *probe) read(name string) (string, error) {
	f, err := os.Open(p.proc + "/" + name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	n, err := f.Read(p.buf)
	if n == 0 && err != nil && err.Error() != "EOF" {
		return "", err
	}
	return string(p.buf[:n]), nil
}

// syscallState is what a thread waits for in the kernel; number is -1 when it is
// not in a system call.
type syscallState struct {
	number int
	args   [6]uint64
}

// syscall reads /proc/<pid>/task/<tid>/syscall: "running", or the number of the
// system call and its arguments.
func (p *probe) syscall(tid string) (syscallState, error) {
	text, err := p.read("task/" + tid + "/syscall")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			if _, gone := os.Stat(p.proc + "/task/" + tid); gone != nil {
				return syscallState{number: -1}, nil
			}
		}
		return syscallState{}, fmt.Errorf("%w: %w", errNoProbe, err)
	}
	s := syscallState{number: -1}
	for i, f := range strings.Fields(text) {
		if i == 0 {
			if s.number, err = strconv.Atoi(f); err != nil {
				return syscallState{number: -1}, nil // "running"
			}
			continue
		}
		if i > len(s.args) {
			break
		}
		if s.args[i-1], err = strconv.ParseUint(f, 0, 64); err != nil {
			return syscallState{number: -1}, nil
		}
	}
	return s, nil
}

const (
	sysEpollPwait2   = 441 // on all architectures
	amd64EpollWait   = 232 // only there
	forever          = 0xffffffff
	futexCommandMask = 127
)

// patience is how long a thread waits.
type patience int

const (
	no      patience = iota // it does not
	limited                 // for some time
	endless
)

// waitsForEvents: epoll, of which descriptor.
func (s *syscallState) waitsForEvents() (epfd int, p patience) {
	switch {
	case s.number == unix.SYS_EPOLL_PWAIT, s.number == amd64EpollWait && runtime.GOARCH == "amd64":
		p = limited
		if uint32(s.args[3]) == forever {
			p = endless
		}
	case s.number == sysEpollPwait2:
		p = limited
		if s.args[3] == 0 {
			p = endless
		}
	}
	return int(int32(s.args[0])), p
}

// reads: a read of fd.
func (s *syscallState) reads(fd int) bool {
	switch s.number {
	case unix.SYS_READ, unix.SYS_READV, unix.SYS_RECVFROM, unix.SYS_RECVMSG:
		return int(int32(s.args[0])) == fd
	}
	return false
}

// sleeps: waits for another thread of the process.
func (s *syscallState) sleeps() patience {
	const wait, waitBitset = 0, 9
	op := s.args[1] & futexCommandMask
	switch {
	case s.number != unix.SYS_FUTEX || op != wait && op != waitBitset:
		return no
	case s.args[3] == 0:
		return endless
	}
	return limited
}

// switches is how often a thread gave up the processor.
func (p *probe) switches(tid string) (uint64, error) {
	text, err := p.read("task/" + tid + "/status")
	if err != nil {
		return 0, err
	}
	total := uint64(0)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		if name == "voluntary_ctxt_switches" || name == "nonvoluntary_ctxt_switches" {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read context switches: %w", err)
			}
			total += n
		}
	}
	return total, nil
}

// hasChildren reports whether the process has child processes, or may have.
func (p *probe) hasChildren(tasks []os.DirEntry) bool {
	for _, t := range tasks {
		children, err := p.read("task/" + t.Name() + "/children")
		if err != nil || strings.TrimSpace(children) != "" {
			return true
		}
	}
	return false
}

// ownSockets reports whether the process holds something besides what it was
// given by which the world could wake it. When in doubt it does.
func (p *probe) ownSockets() bool {
	dir := p.proc + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return true
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			return true
		}
		if n < p.knownFDs {
			continue
		}
		target, err := os.Readlink(dir + "/" + e.Name())
		if err != nil {
			return true
		}
		switch {
		case strings.HasPrefix(target, "socket:"),
			strings.HasPrefix(target, "anon_inode:") && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]":
			return true
		}
	}
	return false
}

// Times of looking. The first look comes when every contract that does not use
// NPL at all and is quick has ended; after that the longer nothing happened the
// rarer they become.
const (
	firstLook   = 15 * time.Millisecond
	shortestGap = 3 * time.Millisecond
	longestGap  = 100 * time.Millisecond
)

// look decides whether the contract only waits for NPL, and is called by the loop
// when it is time. It returns when to look again; zero is never.
func (e *Execution) look(now time.Time) time.Time {
	quiet, switches, err := e.probe.quiet()
	if err != nil {
		e.runner.probeFails.Do(func() {
			e.runner.log.Warn("the node cannot see what contracts wait for: one that has listened to NPL by the Node.js library and does not end itself lasts until exec_timeout", "error", err)
		})
		return time.Time{}
	}
	e.mu.Lock()
	t := &e.term
	switch {
	case e.nplIn.broken:
		e.mu.Unlock()
		return time.Time{}
	case !quiet || len(e.nplIn.items) > 0 || underWay(e.nplIn.fd):
		t.quiet, t.seen = false, false
	case !t.seen || switches != t.switches || t.looked.Before(t.active):
		// Quiet for the first time.
		t.quiet, t.seen, t.switches, t.since = false, true, switches, now
	default:
		t.quiet = true
	}
	t.looked = now
	report := t.report(&e.run)
	e.tryEndNPL(now)
	idle := now.Sub(t.active)
	e.mu.Unlock()
	if report != nil && e.hooks.NPL != nil {
		e.hooks.NPL(report)
	}
	return now.Add(max(shortestGap, min(idle/8, longestGap)))
}

// underWay reports whether packets wait in the socket: such that the contract has
// not read, or such that the node has not.
func underWay(fd int) bool {
	for _, direction := range []uint{unix.TIOCOUTQ, unix.TIOCINQ} {
		if n, err := unix.IoctlGetInt(fd, direction); err != nil || n > 0 {
			return true
		}
	}
	return false
}
