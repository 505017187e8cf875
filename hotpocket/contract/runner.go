package contract

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"evernode/hotpocket/key"
)

// Options are the settings of a Runner that hold for all runs.
type Options struct {
	// Log takes what the operator should know of runs.
	Log *slog.Logger
	// Stdout and Stderr are what contracts inherit; nil means the node's own.
	Stdout, Stderr *os.File
	// Logs is where the output of consensus runs is kept, besides being copied to
	// Stdout and Stderr. Nil means that they inherit these and nothing is kept.
	Logs *Logs
	// Cgroup is a folder of cgroup v2 in which the node may make groups and which
	// nobody else uses. With it no process that a run started survives the run;
	// without it those that left the run's process group do. Empty is none.
	Cgroup string
	// NPLGrace is how long a contract that only waits for NPL messages is let
	// waiting when not all members of the UNL are known to have nothing to say any
	// more. Then its NPL ends. Zero is DefaultNPLGrace.
	NPLGrace time.Duration
}

// DefaultNPLGrace is long for messages among machines that work, and short
// against the default exec_timeout of five minutes.
const DefaultNPLGrace = 2 * time.Second

// Runner starts runs. It is safe for concurrent use: read requests run beside
// each other and beside a consensus run.
type Runner struct {
	log            *slog.Logger
	stdout, stderr *os.File
	logs           *Logs
	cgroups        *cgroups // nil without control groups
	spawner        *spawner
	buffers        sync.Pool
	nplGrace       time.Duration
	probeFails     sync.Once
}

// recvSize is what is read at once. It exceeds MaxPacket so that a packet over
// the limit is noticed instead of cut, and takes all that a socket holds by
// default.
const recvSize = 256 << 10

// NewRunner makes a runner. Close must be called when all of its runs have
// ended.
func NewRunner(o Options) *Runner {
	r := &Runner{log: o.Log, stdout: o.Stdout, stderr: o.Stderr, logs: o.Logs, nplGrace: o.NPLGrace, spawner: newSpawner()}
	if r.nplGrace == 0 {
		r.nplGrace = DefaultNPLGrace
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.stdout == nil {
		r.stdout = os.Stdout
	}
	if r.stderr == nil {
		r.stderr = os.Stderr
	}
	if o.Cgroup != "" {
		r.cgroups = newCgroups(o.Cgroup, r.log)
	}
	r.buffers.New = func() any { b := make([]byte, recvSize); return &b }
	return r
}

// Close releases the runner. A run that has not ended is killed.
func (r *Runner) Close() { r.spawner.close() }

// Execution is a run that has been started.
type Execution struct {
	runner *Runner
	prog   Program
	run    Run
	script bool // this is post_exec.sh
	hooks  Hooks
	self   key.Public
	log    *slog.Logger

	pid   int
	pidfd int
	epfd  int
	users []userSocket
	// streams are standard output and error, nil if inherited.
	streams [2]*stream
	cgroup  *cgroup // nil without control groups
	left    budget
	start   time.Time

	nplOutBytes uint64
	nplOutFull  bool
	complaints  int    // messages of the contract that were complained of
	probe       *probe // nil in a read request

	// mu guards what other goroutines reach while the run lasts. The sockets of
	// both queues belong to it; the loop reads from them without it.
	mu        sync.Mutex
	controlIn packetQueue
	nplIn     packetQueue
	term      termination
	ended     bool // the process was reaped: its number may belong to another
	timedOut  bool
	canceled  bool
	after     *Execution // post_exec.sh while it runs

	done   chan struct{}
	result Result
}

type userSocket struct {
	fd  int // -1 when closed
	out frames
}

// Execute starts a run and waits for its end.
func (r *Runner) Execute(ctx context.Context, prog Program, run Run, hooks Hooks) (Result, error) {
	e, err := r.begin(ctx, prog, run, hooks)
	if err != nil {
		return Result{}, err
	}
	e.finish(ctx)
	return e.result, nil
}

// Start begins a run and returns while it goes on; Wait returns its result.
// Canceling ctx kills it. An error means that the node itself could not set up
// the run, for want of descriptors for instance. A program that cannot be
// executed is no such error: it makes a run that has ended, with
// Result.StartError.
func (r *Runner) Start(ctx context.Context, prog Program, run Run, hooks Hooks) (*Execution, error) {
	e, err := r.begin(ctx, prog, run, hooks)
	if err != nil {
		return nil, err
	}
	go e.finish(ctx)
	return e, nil
}

// Wait returns the result when the run has ended, post_exec.sh included.
func (e *Execution) Wait() Result {
	<-e.done
	return e.result
}

// Done is closed when the run has ended.
func (e *Execution) Done() <-chan struct{} { return e.done }

// begin sets up the descriptors and starts the process. Either it fails, and
// nothing is left, or finish must be called.
func (r *Runner) begin(ctx context.Context, prog Program, run Run, hooks Hooks) (e *Execution, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("run contract: %w", err)
	}
	if err := checkRun(&prog, &run); err != nil {
		return nil, fmt.Errorf("run contract: %w", err)
	}
	e = &Execution{
		runner: r, prog: prog, run: run, hooks: hooks, self: run.NodeKey.Public(),
		log:  r.log,
		pid:  -1,
		done: make(chan struct{}), start: time.Now(),
		users: make([]userSocket, len(run.Users)),
	}
	e.left.left = prog.Limits.totalOutput()
	e.pidfd, e.epfd, e.controlIn.fd, e.nplIn.fd = -1, -1, -1, -1
	for i := range e.users {
		e.users[i].fd = -1
	}
	if run.Mode == Consensus {
		e.log = r.log.With("ledger", run.LedgerSeq)
	}

	// The contract's ends, closed here once it has them.
	var child []int
	defer func() {
		for _, fd := range child {
			unix.Close(fd)
		}
		for _, s := range e.streams {
			if s != nil {
				s.closeTheirs()
			}
		}
		if err != nil {
			e.closeAll()
			e = nil
			err = fmt.Errorf("set up contract run: %w", err)
		}
	}()

	inputs, spans, err := inputFile(run.Users)
	if err != nil {
		return e, err
	}
	child = append(child, inputs)
	args, err := appendArgs(make([]byte, 0, 1024+128*(len(run.Users)+len(run.UNL))), &run, spans)
	if err != nil {
		return e, err
	}
	stdin, err := memoryFile("stdin", args)
	clear(args) // the node's private key is in it
	if err != nil {
		return e, err
	}
	child = append(child, stdin)

	pair := func(kind int) (ours, theirs int, err error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, -1, describePairError(err, len(run.Users))
		}
		child = append(child, fds[1])
		return fds[0], fds[1], nil
	}
	files := make([]uintptr, 0, childNPL+1+len(run.Users))
	stdout, stderr, err := e.openStreams()
	if err != nil {
		return e, err
	}
	files = append(files, uintptr(stdin), stdout, stderr, uintptr(inputs))
	var theirs int
	if e.controlIn.fd, theirs, err = pair(unix.SOCK_SEQPACKET); err != nil {
		return e, err
	}
	files = append(files, uintptr(theirs))
	if run.Mode == Consensus {
		if e.nplIn.fd, theirs, err = pair(unix.SOCK_SEQPACKET); err != nil {
			return e, err
		}
		files = append(files, uintptr(theirs))
	} else {
		e.nplIn.broken = true
	}
	for i := range e.users {
		if e.users[i].fd, theirs, err = pair(unix.SOCK_STREAM); err != nil {
			return e, err
		}
		files = append(files, uintptr(theirs))
	}

	// From here on the loop watches; a program that ends at once is noticed too.
	if e.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return e, fmt.Errorf("make epoll: %w", err)
	}
	if r.cgroups != nil {
		if e.cgroup, err = r.cgroups.create(); err != nil {
			return e, err
		}
	}
	e.logBegin()
	started := r.spawner.start(command{
		path: prog.BinPath, argv: slices.Concat([]string{prog.BinPath}, splitArgs(prog.BinArgs)),
		env: environment(prog.Environment), dir: run.Dir, files: files,
		cred: prog.RunAs, limits: prog.Limits.rlimits(), cgroup: e.cgroup,
	})
	if started.err != nil && !started.program {
		return e, started.err
	}
	if started.err != nil {
		e.result.StartError = started.err
		return e, nil
	}
	e.pid, e.pidfd = started.pid, started.pidfd
	if run.Mode == Consensus {
		e.probe = newProbe(e.pid, childNPL, len(files))
		e.term.active = e.start
	}
	if err := e.register(); err != nil {
		e.kill()
		wait(e.pid, nil)
		return e, err
	}
	return e, nil
}

// complain logs what is wrong with a message of the contract, a few times in a
// run: a contract must not be able to fill the node's log.
func (e *Execution) complain(msg string, args ...any) {
	const limit = 10
	if e.complaints++; e.complaints <= limit {
		e.log.Warn(msg, args...)
	} else if e.complaints == limit+1 {
		e.log.Warn("contract sent more messages that cannot be used, they are not logged")
	}
}

// checkRun refuses what could not be told to a contract or be answered by it.
func checkRun(prog *Program, run *Run) error {
	switch run.Mode {
	case Consensus:
	case ReadRequest:
		if len(run.Users) != 1 || len(run.Users[0].Inputs) != 1 {
			return errors.New("a read request has exactly one user with one input")
		}
	default:
		return fmt.Errorf("unknown mode %q", run.Mode)
	}
	if run.NodeKey.IsZero() {
		return errors.New("no node key")
	}
	for k := range prog.Environment {
		if k == "" {
			return errors.New("a variable of the environment has no name")
		}
	}
	return nil
}

func describePairError(err error, users int) error {
	if err == unix.EMFILE || err == unix.ENFILE {
		return fmt.Errorf("make a socket for each of %d users: %w (the limit of open files is too low)", users, err)
	}
	return fmt.Errorf("make socket: %w", err)
}

// Kill ends the run early, with everything it started in its process group, and
// post_exec.sh if that is running.
func (e *Execution) Kill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.canceled = e.canceled || !e.ended
	e.kill()
	if e.after != nil {
		e.after.Kill()
	}
}

// kill needs mu, or that nobody else has the execution.
func (e *Execution) kill() {
	if e.ended || e.pid < 0 {
		return
	}
	// The process itself may have moved to another group.
	unix.PidfdSendSignal(e.pidfd, unix.SIGKILL, nil, 0)
	unix.Kill(-e.pid, unix.SIGKILL)
}

// closeAll closes the node's ends.
func (e *Execution) closeAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	e.controlIn.stop()
	e.nplIn.stop()
	for _, fd := range []*int{&e.controlIn.fd, &e.nplIn.fd, &e.pidfd, &e.epfd} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
	for _, s := range e.streams {
		if s != nil {
			s.closeTheirs()
			s.close()
		}
	}
	for i := range e.users {
		e.users[i].close()
	}
	e.endCgroup()
}

func (e *Execution) endCgroup() {
	if e.cgroup != nil {
		e.cgroup.end(e.log)
		e.cgroup = nil
	}
}

func (u *userSocket) close() {
	if u.fd >= 0 {
		unix.Close(u.fd)
		u.fd = -1
	}
}
