package contract

import (
	"context"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// postExecScript is run after a consensus run, if the contract left it in its
// folder (spec/hotpocket.md section 2.10).
const postExecScript = "post_exec.sh"

// PostExec is what came of post_exec.sh.
type PostExec struct {
	// StartError is why it could not be executed.
	StartError error
	// Exit is how it ended, TimedOut whether it was killed for taking too long.
	Exit     Exit
	TimedOut bool
	// Kept tells that the script is still there, to run again after the next run:
	// it asked for that by its exit code, or it failed, or could not be removed.
	Kept    bool
	Elapsed time.Duration
}

// Failed reports whether the script failed: it could not be executed, was ended
// by a signal, or by an exit code other than 0 and 3 to 125.
func (p *PostExec) Failed() bool {
	if p.StartError != nil || p.TimedOut || p.Exit.Signal != nil {
		return true
	}
	return p.Exit.Code != 0 && (p.Exit.Code < 3 || p.Exit.Code > 125)
}

// postExec runs the script after the run e, nil if there is none. Its streams go
// where the contract's go, but its exit code is its own.
func (e *Execution) postExec(ctx context.Context) *PostExec {
	path := filepath.Join(e.run.Dir, postExecScript)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	p := &Execution{
		runner: e.runner, log: e.log.With("program", postExecScript), pid: -1, pidfd: -1, epfd: -1,
		run: Run{Mode: Consensus}, script: true, done: make(chan struct{}), start: time.Now(),
	}
	p.controlIn.fd, p.nplIn.fd = -1, -1
	p.controlIn.broken, p.nplIn.broken = true, true
	p.prog.Limits.ExecTimeout = e.prog.Limits.PostExecTimeout
	if p.prog.Limits.ExecTimeout == 0 {
		p.prog.Limits.ExecTimeout = DefaultPostExecTimeout
	}
	if err := p.startPostExec(e); err != nil {
		p.closeAll()
		return &PostExec{StartError: err, Kept: true}
	}
	e.mu.Lock()
	e.after = p
	e.mu.Unlock()
	p.finish(ctx)

	res := &PostExec{Exit: p.result.Exit, TimedOut: p.result.TimedOut, Elapsed: p.result.Elapsed}
	res.Kept = res.Failed() || res.Exit.Code != 0
	if !res.Kept {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			e.log.Error("post_exec.sh ran and cannot be removed", "error", err)
			res.Kept = true
		}
	}
	return res
}

func (p *Execution) startPostExec(e *Execution) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	stdout, stderr, err := p.openStreams()
	if err != nil {
		return err
	}
	if p.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if p.runner.cgroups != nil {
		if p.cgroup, err = p.runner.cgroups.create(); err != nil {
			return err
		}
	}
	started := p.runner.spawner.start(command{
		path: postExecScript,
		argv: []string{postExecScript, strconv.FormatUint(e.run.LedgerSeq, 10), e.run.LedgerHash.String()},
		env:  postExecEnvironment(&e.prog), dir: e.run.Dir,
		files: []uintptr{null.Fd(), stdout, stderr}, cred: e.prog.RunAs, cgroup: p.cgroup,
	})
	for _, s := range p.streams {
		if s != nil {
			s.closeTheirs()
		}
	}
	if started.err != nil {
		return started.err
	}
	p.pid, p.pidfd = started.pid, started.pidfd
	if err := p.register(); err != nil {
		p.kill()
		wait(p.pid, nil)
		return err
	}
	return nil
}

// postExecEnvironment is what the script gets: where programs are found, a home,
// and the contract's own variables, which win. The original hands on the node's
// whole environment, and with it whatever secrets its service was started with.
func postExecEnvironment(prog *Program) []string {
	vars := map[string]string{"PATH": os.Getenv("PATH"), "HOME": os.Getenv("HOME")}
	if vars["PATH"] == "" {
		vars["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	if prog.RunAs != nil {
		vars["HOME"] = "/"
		if u, err := user.LookupId(strconv.FormatUint(uint64(prog.RunAs.UID), 10)); err == nil {
			vars["HOME"] = u.HomeDir
		}
	}
	for k, v := range prog.Environment {
		vars[k] = v
	}
	return environment(vars)
}
