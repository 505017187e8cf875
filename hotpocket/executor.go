package hotpocket

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"evernode/hotpocket/config"
	"evernode/hotpocket/consensus"
	"evernode/hotpocket/contract"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/remote"
	"evernode/internal/digest"
)

const (
	// maxBacklog is how many ledgers may wait for the executor. Beyond it the
	// oldest are left out, and state and nonce table are fetched instead.
	maxBacklog = 256
	// maxHeld bounds the bytes of inputs that wait with those ledgers; beyond it
	// only this node's own are kept for sure.
	maxHeld = 32 << 20
	// farBehind is from how many waiting runs on fetching the newest state is
	// preferred to executing them all, once this node has to fetch anyway.
	farBehind = 8
	// snapshotEvery is after how many runs the nonce table is written down.
	snapshotEvery = 32
	// retryMin and retryMax bound the pause before a run is tried again for
	// which something was missing.
	retryMin, retryMax = 50 * time.Millisecond, 2 * time.Second
)

// task is a closed ledger on its way to the executor.
type task struct {
	consensus.Close
	conf    *config.Config // in force after this ledger
	active  map[key.Public]uint64
	bundles map[digest.Hash]*inputs.Bundle // what was here of its bundles when it closed
	expired []*inputs.Bundle
	replay  bool // closed before the restart: nobody is to be told
}

// attempt is a run that a ledger has started and that this node has not
// finished yet. Each step is taken once, however often one after it fails.
type attempt struct {
	task
	sel    inputs.Selection
	taken  bool // the inputs are selected, their users told
	users  []key.Public
	listed bool // the users are known
	wait   time.Duration
}

// executor brings the node to where a closed ledger expects it to be and runs
// the contract: one ledger after the other, in a goroutine of its own.
type executor struct {
	n      *node
	log    *slog.Logger
	runner *contract.Runner
	state  statefs.State
	nonces *inputs.Nonces
	npl    *party

	mu      sync.Mutex
	queue   []task
	left    []task // left out of the queue because it was full
	held    int    // bytes of bundles in the queue
	wake    chan struct{}
	current *contract.Execution
	height  uint64 // of the run in progress

	// Owned by the executor's goroutine.
	finished      *finished
	due           *attempt
	sinceSnapshot int    // runs
	snapshot      uint64 // the ledger of the newest nonce table written down

	// synced is false while this node lacks the agreed state.
	synced   atomic.Bool
	running  atomic.Bool
	diverged atomic.Uint64 // how often this node's result was not the agreed one
	failed   atomic.Uint64 // how many runs had no agreed result
	users    atomic.Int64  // connected anywhere, by the last ledger
	trouble  trouble
}

// finished is a run whose result the members have not confirmed yet.
type finished struct {
	attempt *attempt
	height  uint64
	hash    digest.Hash
	run     statefs.Run
	result  consensus.Result
	outputs []contract.UserOutput
	hashes  map[key.Public]digest.Hash
	tree    *output.Tree
	inputs  []inputs.UserInputs
}

func newExecutor(n *node, runner *contract.Runner, state statefs.State, nonces *inputs.Nonces) *executor {
	e := &executor{n: n, log: n.log, runner: runner, state: state, nonces: nonces, wake: make(chan struct{}, 1)}
	e.npl = newParty(e)
	return e
}

// push hands over a closed ledger. It never blocks.
func (e *executor) push(t task) {
	e.mu.Lock()
	if t.Header.Outcome == consensus.Pending && len(t.expired) == 0 {
		// A heartbeat says nothing to the executor, and while a contract runs
		// for long there are many.
		e.mu.Unlock()
		return
	}
	if len(e.queue) >= maxBacklog {
		gone := len(e.queue) - maxBacklog/2
		for _, old := range e.queue[:gone] {
			e.held -= old.size()
		}
		e.left = append(e.left, e.queue[:gone]...)
		e.queue = append(e.queue[:0], e.queue[gone:]...)
	}
	if e.held+t.size() > maxHeld {
		own := e.n.key.Public()
		maps.DeleteFunc(t.bundles, func(_ digest.Hash, b *inputs.Bundle) bool { return b.Origin != own })
	}
	e.held += t.size()
	e.queue = append(e.queue, t)
	if t.Header.Outcome == consensus.Failed && e.current != nil && e.height == t.Header.Run {
		e.current.Kill()
	}
	e.mu.Unlock()
	if t.Header.StartsRun() {
		e.n.states.client.Retarget(version(&t.Header))
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// size is how many bytes of inputs a task keeps in memory.
func (t *task) size() (n int) {
	for _, b := range t.bundles {
		n += b.Size()
	}
	return n
}

// parameters are what decides about the inputs of a ledger.
func (t *task) parameters() inputs.Params {
	return inputs.Params{
		Seq:            t.Header.Height,
		MaxOffset:      uint64(t.conf.Contract.MaxInputLedgerOffset),
		UserInputBytes: t.conf.Contract.RoundLimits.UserInputBytes,
	}
}

// waiting returns how many runs wait behind the one at hand.
func (e *executor) waiting() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for i := range e.queue {
		if e.queue[i].Header.StartsRun() {
			n++
		}
	}
	return n
}

// leftOut returns what was left out of the queue since the last call.
func (e *executor) leftOut() []task {
	e.mu.Lock()
	defer e.mu.Unlock()
	left := e.left
	e.left = nil
	return left
}

func (e *executor) next() (task, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return task{}, false
	}
	t := e.queue[0]
	e.held -= t.size()
	e.queue[0] = task{}
	e.queue = e.queue[1:]
	return t, true
}

// run processes ledgers until ctx ends.
func (e *executor) run(ctx context.Context) error {
	defer e.abandon()
	e.n.spawn(e.watchDisk)
	for {
		var again <-chan time.Time
		if e.due != nil {
			again = time.After(e.due.wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
			if err := e.try(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		case <-e.wake:
		}
		for {
			t, ok := e.next()
			if !ok || ctx.Err() != nil {
				break
			}
			if err := e.process(ctx, t); err != nil && ctx.Err() == nil {
				return fmt.Errorf("ledger %d: %w", t.Header.Height, err)
			}
		}
	}
}

// abandon undoes an unconfirmed run at shutdown; it is executed again at the
// next start.
func (e *executor) abandon() {
	if e.finished != nil {
		if err := e.finished.run.Rollback(context.Background()); err != nil {
			e.log.Error("the last run could not be undone", "err", err)
		}
		e.finished = nil
	}
}

func (e *executor) process(ctx context.Context, t task) error {
	for _, old := range e.leftOut() {
		e.n.tellExpired(old)
		if old.Header.StartsRun() {
			e.n.owe(old)
		}
	}
	e.n.tellExpired(t)
	if err := e.settle(ctx, t); err != nil {
		return err
	}
	if !t.Header.StartsRun() {
		return nil
	}
	e.due = &attempt{task: t, wait: retryMin}
	return e.try(ctx)
}

// try goes on with the run that is due, as far as that is possible now. What is
// missing for it may come: unless enough other members finish the run without
// this node, nobody starts a later one, so that giving up could stop the chain.
func (e *executor) try(ctx context.Context) error {
	a := e.due
	a.wait = min(2*a.wait, retryMax)
	if !a.taken {
		sel, ok := e.take(ctx, a.task)
		if !ok {
			e.synced.Store(false)
			return nil
		}
		a.sel, a.taken = sel, true
	}
	if !a.listed {
		users, err := e.n.connected(ctx, &a.Header)
		if err != nil {
			if ctx.Err() == nil {
				e.log.Warn("a list of users cannot be had from anybody now", "ledger", a.Header.Height, "err", err)
			}
			e.synced.Store(false)
			return nil
		}
		a.users, a.listed = users, true
		e.users.Store(int64(len(users)))
		e.n.created(a.task, users, a.sel)
	}
	if a.replay && e.waiting() > 0 && e.state.Agreed().Seq >= a.Header.Height {
		e.due = nil // the state has been through this run before the restart
		return nil
	}
	if !e.reach(ctx, a.task) {
		return nil
	}
	return e.execute(ctx, a)
}

// settle draws the consequences of a ledger's verdict on the run before it.
func (e *executor) settle(ctx context.Context, t task) error {
	if t.Header.Outcome == consensus.Pending {
		return nil
	}
	if a := e.due; a != nil {
		// The others went on without this node.
		e.due = nil
		if !a.taken {
			e.n.owe(a.task)
		}
		if t.Header.Outcome == consensus.Failed && t.Header.Run == a.Header.Height {
			e.failed.Add(1)
			if a.taken && !a.replay {
				e.n.tellFailed(a.sel.Users)
			}
		}
	}
	f := e.finished
	if f == nil {
		return nil
	}
	e.finished = nil
	if t.Header.Run != f.height {
		// Ledgers between were left out.
		e.undo(ctx, f.run)
		return nil
	}
	switch {
	case t.Header.Outcome == consensus.Failed:
		e.log.Error("the members did not come to one result: the run is undone, its inputs are consumed",
			"ledger", f.height, "root", f.result.State.Short(), "outputs", f.result.Output.Short())
		e.failed.Add(1)
		if !t.replay {
			e.n.tellFailed(f.inputs)
		}
		e.undo(ctx, f.run)
		return nil
	case t.Header.Result != f.result:
		e.diverged.Add(1)
		e.synced.Store(false)
		e.log.Error("this node's result is not the agreed one: it is undone and the agreed state fetched; is the contract deterministic?",
			"ledger", f.height, "root", f.result.State.Short(), "agreed", t.Header.Result.State.Short(),
			"outputs", f.result.Output.Short(), "agreed_outputs", t.Header.Result.Output.Short())
		e.undo(ctx, f.run)
		return nil
	}
	if !e.commit(ctx, f) {
		if ctx.Err() != nil {
			return nil // the next start takes it up
		}
		e.synced.Store(false)
	}
	// Only now, so that whoever reads the state after an output sees what led to
	// it.
	e.n.deliver(f, t)
	return nil
}

// take selects a ledger's inputs and tells their users. It reports false when
// this node lacks what that takes and a later ledger is the better place to
// begin again.
func (e *executor) take(ctx context.Context, t task) (inputs.Selection, bool) {
	h := &t.Header
	if e.nonces.Hash() != h.Result.Nonces {
		if e.waiting() > 0 {
			return inputs.Selection{}, false
		}
		table, err := e.n.fetchNonces(ctx, h.Result.Nonces)
		if err != nil {
			if ctx.Err() == nil {
				e.log.Warn("the agreed nonce table cannot be had from anybody now", "ledger", h.Height, "err", err)
			}
			return inputs.Selection{}, false
		}
		e.nonces = table
		e.n.nonces.Store(table)
	}
	bundles := make([]*inputs.Bundle, 0, len(h.Bundles))
	for _, d := range h.Bundles {
		b := t.bundles[d]
		if b == nil {
			b = e.n.content.bundle(d)
		}
		if b == nil {
			if e.waiting() > farBehind {
				return inputs.Selection{}, false
			}
			var err error
			if b, err = e.n.fetchBundle(ctx, d); err != nil {
				if ctx.Err() == nil {
					e.log.Warn("inputs of a ledger cannot be had from anybody", "ledger", h.Height, "bundle", d.Short(), "err", err)
				}
				return inputs.Selection{}, false
			}
		}
		bundles = append(bundles, b)
	}
	if e.sinceSnapshot++; e.sinceSnapshot >= snapshotEvery && e.state.Agreed().Root == h.Result.State {
		e.n.saveNonces(e.nonces, h.Height, e.snapshot)
		e.snapshot, e.sinceSnapshot = h.Height, 0
	}
	e.n.tables.put(h.Result.Nonces, e.nonces)
	sel := inputs.Select(t.parameters(), e.nonces, bundles)
	e.n.selections.put(h.Height, sel)
	e.n.consumed(t, bundles, sel)
	return sel, true
}

// reach brings the state to what a ledger expects to run on.
func (e *executor) reach(ctx context.Context, t task) bool {
	want := t.Header.Result
	have := func() bool {
		v := e.state.Agreed()
		return v.Root == want.State && v.Patch == want.Patch && !e.state.Damaged()
	}
	if have() {
		e.synced.Store(true)
		return true
	}
	e.synced.Store(false)
	if e.waiting() > 0 {
		return false
	}
	e.log.Info("fetching the agreed state", "ledger", t.Header.Height, "root", want.State.Short())
	if err := e.n.fetchState(ctx, &t.Header); err != nil {
		switch {
		case ctx.Err() != nil:
		case noRoom(err), errors.Is(err, remote.ErrGone):
			e.trouble.is(e.log, "the agreed state could not be fetched yet", t.Header.Height, err)
		default:
			e.log.Warn("the agreed state could not be fetched yet", "root", want.State.Short(), "err", err)
		}
		return false
	}
	if !have() {
		return false // it is that of a later ledger
	}
	e.log.Info("the agreed state is here", "ledger", t.Header.Height, "root", want.State.Short())
	e.synced.Store(true)
	return true
}

// execute runs the contract for a ledger and reports the result. What keeps it
// from that (the state's process is gone, the disk is full) may pass: the run
// stays due.
func (e *executor) execute(ctx context.Context, a *attempt) error {
	h := &a.Header
	f, err := e.perform(ctx, a)
	if err != nil {
		if ctx.Err() == nil {
			e.synced.Store(false)
			e.trouble.is(e.log, "the run could not be done; the node tries again, or takes the result of the others", h.Height, err)
		}
		return nil
	}
	if f == nil {
		return nil
	}
	e.trouble.over(e.log)
	e.due = nil
	e.finished = f
	e.n.do(func(l *loop) { l.executed(h.Height, f.result) })
	return nil
}

// perform runs the contract for a ledger. An error has undone the run; so has
// nil in place of the result, when the run was canceled.
func (e *executor) perform(ctx context.Context, a *attempt) (f *finished, err error) {
	h := &a.Header
	run, err := e.state.Begin(ctx, h.Height)
	if err != nil {
		return nil, err
	}
	defer func() {
		if f == nil {
			e.undo(ctx, run)
		}
	}()
	f = &finished{attempt: a, height: h.Height, hash: a.Hash, run: run, inputs: a.sel.Users}
	if a.conf.Contract.Execute {
		res, err := e.contract(ctx, a, run)
		if err != nil {
			// The node itself could not set the run up, for want of descriptors
			// for instance: that is not the contract's result.
			return nil, fmt.Errorf("start the contract: %w", err)
		}
		if isGone(run) {
			return nil, remote.ErrGone
		}
		if ctx.Err() != nil || res.Canceled {
			return nil, nil
		}
		e.report(h.Height, &res)
		f.outputs = res.Outputs
	}
	if err := e.checkPatch(run.Dir(), a.conf); err != nil {
		return nil, err
	}
	root, patch, err := run.End(ctx)
	if err != nil {
		return nil, fmt.Errorf("hash the state: %w", err)
	}
	f.result = consensus.Result{State: root, Patch: patch, Nonces: e.nonces.Hash(), Users: inputs.UserHash(a.users), Inputs: a.sel.InputHash()}
	f.seal()
	if patch != h.Result.Patch {
		content, err := readPatch(run.Dir())
		if err != nil || statefs.HashPatch(content) != patch {
			return nil, fmt.Errorf("read the changed patch.cfg: %w", cmp.Or(err, errors.New("it has changed again")))
		}
		if err := e.n.patches.put(patch, content); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// seal computes what users can check the outputs by.
func (f *finished) seal() {
	f.hashes = make(map[key.Public]digest.Hash, len(f.outputs))
	leaves := make([]digest.Hash, 0, len(f.outputs))
	for i := range f.outputs {
		hash := output.Hash(f.outputs[i].Key, f.outputs[i].Messages)
		f.hashes[f.outputs[i].Key] = hash
		leaves = append(leaves, hash)
	}
	f.tree = output.NewTree(leaves, f.result.State)
	f.result.Output = f.tree.Root()
}

func patchFile(stateDir string) string { return filepath.Join(filepath.Dir(stateDir), "patch.cfg") }

// readPatch reads what a run has left as patch.cfg, which need not be a file.
func readPatch(stateDir string) ([]byte, error) {
	fd, err := unix.Open(patchFile(stateDir), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open patch.cfg: %w", err)
	}
	f := os.NewFile(uintptr(fd), "patch.cfg")
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("patch.cfg is no file: %s", info.Mode())
	case info.Size() > statefs.MaxPatch:
		return nil, fmt.Errorf("patch.cfg has %d bytes, at most %d are allowed", info.Size(), statefs.MaxPatch)
	}
	return io.ReadAll(io.LimitReader(f, statefs.MaxPatch+1))
}

// checkPatch puts the old patch.cfg back when the contract left one that cannot
// be applied, on every node alike.
func (e *executor) checkPatch(dir string, conf *config.Config) error {
	old := e.state.Patch()
	now, err := readPatch(dir)
	if err == nil && bytes.Equal(old, now) {
		return nil
	}
	if err == nil {
		var p config.Patch
		if p, err = config.ParsePatch(now); err == nil {
			if err = parameters(conf.Apply(p)).Validate(); err == nil {
				return nil
			}
		}
	}
	e.log.Error("the contract left a patch.cfg that cannot be used; the old one stays in force", "err", err)
	if info, err := os.Lstat(patchFile(dir)); err == nil && !info.Mode().IsRegular() {
		if err := os.RemoveAll(patchFile(dir)); err != nil {
			return fmt.Errorf("remove what the contract left as patch.cfg: %w", err)
		}
	}
	if err := config.WriteFile(patchFile(dir), old, 0o644); err != nil {
		return fmt.Errorf("restore patch.cfg: %w", err)
	}
	return nil
}

func (e *executor) report(seq uint64, res *contract.Result) {
	switch {
	case res.StartError != nil:
		e.log.Error("the contract could not be executed; check contract.bin_path", "ledger", seq, "err", res.StartError)
	case res.TimedOut:
		e.log.Error("the contract was killed because it ran longer than round_limits.exec_timeout", "ledger", seq, "after", res.Elapsed)
	case !res.Normal():
		e.log.Warn("the contract ended prematurely", "ledger", seq, "signal", res.Exit.Signal)
	case res.Exit.Code != 0:
		e.log.Info("the contract ended with an exit code", "ledger", seq, "code", res.Exit.Code)
	}
	if res.OutputsLost {
		e.log.Error("the contract's outputs were too large and are lost", "ledger", seq)
	}
	if p := res.PostExec; p != nil {
		log := e.log.Info
		if p.Failed() {
			log = e.log.Error
		}
		log("post_exec.sh ran", "ledger", seq, "failed", p.Failed(), "code", p.Exit.Code, "timed_out", p.TimedOut, "kept", p.Kept, "err", p.StartError)
	}
	e.log.Debug("contract ran", "ledger", seq, "elapsed", res.Elapsed, "cpu", res.CPU, "users_with_output", len(res.Outputs))
}

// contract executes the contract for a closed ledger.
func (e *executor) contract(ctx context.Context, a *attempt, on statefs.Run) (contract.Result, error) {
	t, h := a.task, &a.Header
	run := e.n.describe(t.conf, contract.Consensus, on.Dir())
	run.LedgerSeq, run.LedgerHash, run.Timestamp = h.Height, t.Hash, h.Time
	run.Users = merge(a.users, a.sel.Users)
	for _, m := range t.conf.Contract.UNL {
		run.UNL = append(run.UNL, contract.UNLMember{Key: m, ActiveOn: t.active[m]})
	}
	e.running.Store(true)
	defer e.running.Store(false)
	e.n.counts.runs.Add(1)
	x, err := e.runner.Start(ctx, program(t.conf), run, contract.Hooks{
		NPL:   e.npl.sender(t),
		Peers: e.n.changePeers,
	})
	if err != nil {
		return contract.Result{}, err
	}
	e.setCurrent(x, h.Height)
	e.npl.begin(t.Hash, x)
	// A folder that has lost its process is of no use to the contract, and what
	// it still writes must not reach the next one.
	done := make(chan struct{})
	go func() {
		select {
		case <-goneOf(on):
			x.Kill()
		case <-done:
		}
	}()
	res := x.Wait()
	close(done)
	e.npl.end(t.Hash, !isGone(on))
	e.setCurrent(nil, 0)
	return res, nil
}

func (e *executor) setCurrent(x *contract.Execution, height uint64) {
	e.mu.Lock()
	e.current, e.height = x, height
	e.mu.Unlock()
}

// merge adds each user's inputs to the list of all connected users. A user whose
// input is in the ledger but who has gone by now is in it too.
func merge(connected []key.Public, with []inputs.UserInputs) []contract.UserIO {
	out := make([]contract.UserIO, 0, len(connected)+len(with))
	for len(connected) > 0 || len(with) > 0 {
		order := 1
		if len(with) == 0 {
			order = -1
		} else if len(connected) > 0 {
			order = connected[0].Compare(with[0].User)
		}
		var io contract.UserIO
		if order <= 0 {
			io.Key = connected[0]
			connected = connected[1:]
		}
		if order >= 0 {
			io.Key = with[0].User
			for i := range with[0].Inputs {
				io.Inputs = append(io.Inputs, with[0].Inputs[i].Payload)
			}
			with = with[1:]
		}
		out = append(out, io)
	}
	return out
}

// program is what the configuration says about the contract's process.
func program(c *config.Config) contract.Program {
	p := contract.Program{
		BinPath:     c.Contract.BinPath,
		BinArgs:     c.Contract.BinArgs,
		Environment: make(map[string]string, len(c.Contract.Environment)),
		Limits: contract.Limits{
			UserOutputBytes: c.Contract.RoundLimits.UserOutputBytes,
			NPLOutputBytes:  c.Contract.RoundLimits.NPLOutputBytes,
			CPUSeconds:      c.Contract.RoundLimits.ProcCPUSeconds,
			MemoryBytes:     c.Contract.RoundLimits.ProcMemBytes,
			OpenFiles:       c.Contract.RoundLimits.ProcOFDCount,
			ExecTimeout:     c.Contract.RoundLimits.ExecTimeout,
		},
	}
	for _, v := range c.Contract.Environment {
		p.Environment[v.Name] = v.Value
	}
	if uid, gid, ok := c.Contract.User(); ok {
		p.RunAs = &contract.Credential{UID: uid, GID: gid}
	}
	return p
}

// describe fills in what every run is told.
func (n *node) describe(c *config.Config, mode contract.Mode, dir string) contract.Run {
	return contract.Run{
		Mode:       mode,
		Dir:        dir,
		HPVersion:  config.HPVersion,
		ContractID: c.Contract.ID,
		NodeKey:    n.key,
	}
}

// read answers a read request by a run on the last agreed state.
func (e *executor) read(ctx context.Context, user key.Public, content []byte) ([][]byte, error) {
	conf := e.n.conf.Load()
	if !conf.Contract.Execute {
		return nil, errors.New("this node does not execute the contract")
	}
	view, err := e.state.View(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the agreed state: %w", err)
	}
	defer view.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-goneOf(view):
			cancel(remote.ErrGone)
		case <-ctx.Done():
		}
	}()
	run := e.n.describe(conf, contract.ReadRequest, view.Dir())
	run.Users = []contract.UserIO{{Key: user, Inputs: [][]byte{content}}}
	for _, m := range conf.Contract.UNL {
		run.UNL = append(run.UNL, contract.UNLMember{Key: m})
	}
	start := time.Now()
	res, err := e.runner.Execute(ctx, program(conf), run, contract.Hooks{})
	if err != nil {
		return nil, err
	}
	e.log.Debug("read request", "elapsed", time.Since(start), "outputs", len(res.Outputs))
	switch {
	case errors.Is(context.Cause(ctx), remote.ErrGone):
		return nil, remote.ErrGone
	case res.StartError != nil:
		return nil, res.StartError
	case res.TimedOut:
		return nil, errors.New("the contract was killed because it ran longer than round_limits.exec_timeout")
	case len(res.Outputs) == 0:
		return nil, nil
	}
	return res.Outputs[0].Messages, nil
}
