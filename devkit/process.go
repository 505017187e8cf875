package devkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"evernode/hotpocket/config"
)

// process identifies a process for good: a number alone would in time name
// another one.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks from the machine's start to the process's
	Boot  string `json:"boot"`  // which start of the machine
}

// bootID names this run of the machine.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// stat is what /proc says of a process.
type stat struct {
	state   byte // 'Z': ended and not yet waited for
	session int
	start   uint64
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	// The name in parentheses may hold anything, so count from its end.
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < 20 {
		return stat{}, fmt.Errorf("process %d: /proc has %d fields", pid, len(f))
	}
	session, _ := strconv.Atoi(f[3])
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process %d: start time: %w", pid, err)
	}
	return stat{f[0][0], session, start}, nil
}

// identify returns the identity of the process that has the number pid now.
func identify(pid int) (process, error) {
	s, err := readStat(pid)
	if err != nil {
		return process{}, err
	}
	return process{pid, s.start, bootID()}, nil
}

// alive reports whether the process still runs.
func (p process) alive() bool {
	if p.PID == 0 {
		return false
	}
	s, err := readStat(p.PID)
	return err == nil && s.start == p.Start && s.state != 'Z' && s.state != 'X' && p.Boot == bootID()
}

// signal sends a signal to the process, and to no other that has its number
// now. A process that has ended is no error.
func (p process) signal(sig syscall.Signal) error {
	// The descriptor goes on to name the process that had the number when it
	// was opened, so what is checked after that stays true.
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// wait waits until the process has ended, and reports whether it did so in
// time.
func (p process) wait(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for p.alive() {
		select {
		case <-ctx.Done():
			return !p.alive()
		case <-tick.C:
		}
	}
	return true
}

// maxLogBytes is the size from which on a node's log is put aside when the node
// starts.
const maxLogBytes = 16 << 20

// launch starts a node in its own session, so that it outlives the terminal
// and the command that started it. ended is closed when it ends while we look.
func (c *Cluster) launch(i int) (p process, ended <-chan struct{}, err error) {
	path := c.LogFile(i)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogBytes {
		if err := os.Rename(path, path+".1"); err != nil {
			return process{}, nil, err
		}
	}
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return process{}, nil, err
	}
	defer log.Close()
	argv := append(append([]string(nil), c.env.Node...), c.NodeDir(i))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = c.NodeDir(i)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return process{}, nil, fmt.Errorf("start node %d: %w", i, err)
	}
	gone := make(chan struct{})
	p, err = identify(cmd.Process.Pid)
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(gone)
	}()
	return p, gone, err
}

// process returns the process that runs node i, if one does. Who holds the
// folder's lock counts even when somebody else started it.
func (c *Cluster) process(i int) (process, bool) {
	if p := c.state.Nodes[i-1].Process; p.alive() {
		return p, true
	}
	if pid := config.Holder(c.NodeDir(i)); pid > 0 {
		p, err := identify(pid)
		return p, err == nil
	}
	return process{}, false
}
