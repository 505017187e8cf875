package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tags tell the loop which descriptor an event is of. Users' sockets are tagged
// tagUser plus their index.
const (
	tagExit = iota
	tagControl
	tagNPL
	tagStdout
	tagStderr
	tagUser
)

func (e *Execution) add(fd, tag int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(tag)}
	if err := unix.EpollCtl(e.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	return nil
}

func (e *Execution) register() error {
	err := e.add(e.pidfd, tagExit, unix.EPOLLIN)
	for _, tag := range []int{tagControl, tagNPL} {
		if fd := e.queueOf(tag).fd; fd >= 0 {
			err = errors.Join(err, e.add(fd, tag, unix.EPOLLIN|unix.EPOLLRDHUP))
		}
	}
	for i, s := range e.streams {
		if s != nil {
			err = errors.Join(err, e.add(s.fd, tagStdout+i, unix.EPOLLIN))
		}
	}
	for i := range e.users {
		if err != nil {
			return err
		}
		err = e.add(e.users[i].fd, tagUser+i, unix.EPOLLIN)
	}
	return err
}

func (e *Execution) queueOf(tag int) *packetQueue {
	if tag == tagControl {
		return &e.controlIn
	}
	return &e.nplIn
}

// watch makes the loop wait for room in the socket of a queue; it needs mu.
// Other goroutines call it too: the kernel takes it up while the loop sleeps.
func (e *Execution) watch(tag int) {
	q := e.queueOf(tag)
	if q.fd < 0 || e.epfd < 0 {
		return
	}
	events := uint32(0)
	if !q.deaf {
		events = unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if q.waiting {
		events |= unix.EPOLLOUT
	}
	unix.EpollCtl(e.epfd, unix.EPOLL_CTL_MOD, q.fd, &unix.EpollEvent{Events: events, Fd: int32(tag)})
}

// finish serves the contract until it has ended, takes what it left behind, and
// makes the result.
func (e *Execution) finish(ctx context.Context) {
	defer close(e.done)
	if e.result.StartError != nil {
		e.closeAll()
		return
	}
	stop := context.AfterFunc(ctx, e.Kill)
	buf := e.runner.buffers.Get().(*[]byte)
	e.serve(*buf)
	e.reap()
	e.drain(*buf)
	e.runner.buffers.Put(buf)
	stop()
	e.closeAll()
	e.collect()
	if e.hooks.NPL != nil {
		if last := e.endReport(); last != nil {
			e.hooks.NPL(last)
		}
	}
	if e.run.Mode == Consensus && !e.script && e.result.Normal() {
		e.result.PostExec = e.postExec(ctx)
	}
}

// serve moves the contract's traffic until its process has ended.
func (e *Execution) serve(buf []byte) {
	var deadline time.Time
	if t := e.prog.Limits.ExecTimeout; t > 0 {
		deadline = e.start.Add(t)
	}
	var lookAt time.Time
	if e.probe != nil {
		lookAt = e.start.Add(firstLook)
	}
	events := make([]unix.EpollEvent, 64)
	for {
		now := time.Now()
		if !deadline.IsZero() && !now.Before(deadline) {
			e.mu.Lock()
			e.timedOut = true
			e.kill()
			e.mu.Unlock()
			deadline, lookAt = time.Time{}, time.Time{}
		}
		if !lookAt.IsZero() && !now.Before(lookAt) {
			lookAt = e.look(now)
		}
		timeout := -1
		if next := earlier(deadline, lookAt); !next.IsZero() {
			timeout = int(min(max(next.Sub(now), 0)/time.Millisecond+1, 1<<30))
		}
		n, err := unix.EpollWait(e.epfd, events, timeout)
		if err != nil && err != unix.EINTR {
			// The descriptor is ours and valid; without it nothing can be waited for.
			e.log.Error("waiting for the contract failed, it is killed", "error", err)
			e.Kill()
			return
		}
		exited := false
		for i := 0; i < n; i++ {
			ev := &events[i]
			switch tag := int(ev.Fd); tag {
			case tagExit:
				exited = true
			case tagControl, tagNPL:
				e.packetEvent(tag, ev.Events, buf)
			case tagStdout, tagStderr:
				e.streams[tag-tagStdout].read(buf, e.log)
			default:
				e.readUser(tag-tagUser, buf)
			}
		}
		if exited {
			return
		}
	}
}

// earlier returns the earlier of two times, the zero time being never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// packetEvent serves the control or NPL socket.
func (e *Execution) packetEvent(tag int, events uint32, buf []byte) {
	q := e.queueOf(tag)
	if events&unix.EPOLLOUT != 0 {
		e.mu.Lock()
		q.flush()
		if !q.waiting {
			e.watch(tag)
		}
		e.mu.Unlock()
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return
	}
	got, open := e.readPacket(tag, buf)
	const hangup = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if open && (got || events&hangup == 0) {
		return
	}
	// The contract closed its end, or at least will write no more. Left watched,
	// the socket would wake the loop without end.
	e.mu.Lock()
	defer e.mu.Unlock()
	q.deaf = true
	if events&unix.EPOLLHUP != 0 || !open {
		q.stop()
		unix.EpollCtl(e.epfd, unix.EPOLL_CTL_DEL, q.fd, nil)
		return
	}
	e.watch(tag)
}

// readPacket takes one packet from the control or NPL socket. It reports whether
// there was one and whether more may come.
func (e *Execution) readPacket(tag int, buf []byte) (got, open bool) {
	fd := e.queueOf(tag).fd
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	switch {
	case err == unix.EINTR:
		return true, true
	case err == unix.EAGAIN:
		return false, true
	case err != nil:
		return false, false
	case n == 0:
		// Either a packet without content, which is ignored, or the end.
		more, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		return err == nil && more > 0, true
	case tag == tagControl:
		e.controlFromContract(buf[:n])
	default:
		e.nplFromContract(buf[:n])
	}
	return true, true
}

// readUser takes what is there of a user's stream. It reports whether there was
// something.
func (e *Execution) readUser(i int, buf []byte) bool {
	u := &e.users[i]
	if u.fd < 0 {
		return false
	}
	n, _, err := unix.Recvfrom(u.fd, buf, unix.MSG_DONTWAIT)
	switch {
	case err == unix.EINTR:
		return true
	case err == unix.EAGAIN:
		return false
	case err != nil || n == 0:
		u.close()
		return false
	}
	u.out.write(buf[:n], e.prog.Limits.UserOutputBytes, &e.left)
	return true
}

// reap ends everything the contract left in its process group and takes its exit
// status. The process has ended, but its number stays its own until it is
// waited for, so the group cannot be another's.
func (e *Execution) reap() {
	e.mu.Lock()
	unix.Kill(-e.pid, unix.SIGKILL)
	e.ended = true
	e.mu.Unlock()
	var usage unix.Rusage
	status, err := wait(e.pid, &usage)
	e.result.Elapsed = time.Since(e.start)
	if err != nil {
		e.log.Error("contract's exit status is lost", "error", err)
	}
	e.result.Exit = exitOf(status)
	e.result.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	e.result.MaxRSS = uint64(usage.Maxrss) << 10
	e.awaitGroup()
	e.endCgroup() // before the sockets are drained, so that all of its last words are
}

// awaitGroup waits until no process of the contract's group runs any more. A
// process that was killed may still finish the system call it is in, a write into
// the state for instance, which must not happen after the run.
func (e *Execution) awaitGroup() {
	const limit = 5 * time.Second
	pause := 50 * time.Microsecond
	for began := time.Now(); ; {
		if unix.Kill(-e.pid, 0) == unix.ESRCH {
			return
		}
		// Orphans become children of the node if it is the first process of a
		// container. Elsewhere it is another's task to take their exit status, who may
		// let them wait, dead as they are.
		for {
			pid, err := unix.Wait4(-e.pid, nil, unix.WNOHANG, nil)
			if err != nil || pid <= 0 {
				break
			}
		}
		if !groupRuns(e.pid) {
			return
		}
		if time.Since(began) > limit {
			e.log.Warn("processes of the contract do not end although they were killed", "group", e.pid)
			return
		}
		time.Sleep(pause)
		pause = min(2*pause, 10*time.Millisecond)
	}
}

// groupRuns reports whether a process of the group is alive. It assumes so when it
// cannot see.
func groupRuns(group int) bool {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	for _, p := range processes {
		if c := p.Name()[0]; c < '0' || c > '9' {
			continue
		}
		stat, err := os.ReadFile("/proc/" + p.Name() + "/stat")
		if err != nil {
			continue // it has just gone
		}
		// "pid (name) state parent group …", the name being anything.
		_, rest, _ := strings.Cut(string(stat[max(bytes.LastIndexByte(stat, ')'), 0):]), " ")
		f := strings.Fields(rest)
		if len(f) > 2 && f[2] == strconv.Itoa(group) && f[0] != "Z" && f[0] != "X" {
			return true
		}
	}
	return false
}

func exitOf(status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Code: -1, Signal: status.Signal()}
	}
	return Exit{Code: status.ExitStatus()}
}

// drain takes what the contract wrote before it ended. A process that escaped
// the group may hold sockets open and write on, so it takes no more than sockets
// can hold.
func (e *Execution) drain(buf []byte) {
	for _, tag := range []int{tagControl, tagNPL} {
		if e.queueOf(tag).fd < 0 {
			continue
		}
		for range 4096 {
			if got, open := e.readPacket(tag, buf); !got || !open {
				break
			}
		}
	}
	for _, s := range e.streams {
		for range 64 {
			if s == nil || !s.read(buf, e.log) {
				break
			}
		}
	}
	for i := range e.users {
		for range 64 {
			if !e.readUser(i, buf) {
				break
			}
		}
	}
}

// collect makes the result.
func (e *Execution) collect() {
	r := &e.result
	r.TimedOut, r.Canceled = e.timedOut, e.canceled && !e.timedOut
	for _, s := range e.streams {
		if s != nil && s.lost > 0 {
			e.log.Warn("the node's own output had no room for all that the contract wrote; its log has it", "missing_bytes", s.lost)
		}
	}
	if n := e.nplIn.dropped; n > 0 {
		e.log.Warn("contract did not read its NPL messages, some were dropped", "dropped", n)
	}
	if e.left.exceeded {
		r.OutputsLost = true
		return
	}
	for i := range e.users {
		out := &e.users[i].out
		out.end()
		if out.dropped > 0 {
			e.log.Warn("contract exceeded user_output_bytes, the rest was dropped",
				"user", e.run.Users[i].Key.Short(), "limit", e.prog.Limits.UserOutputBytes, "dropped_bytes", out.dropped)
		}
		if len(out.messages) > 0 {
			r.Outputs = append(r.Outputs, UserOutput{e.run.Users[i].Key, out.messages})
		}
	}
}
