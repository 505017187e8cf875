package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs"
)

// cluster is a few node processes on this machine, all in one folder that goes
// when it does.
type cluster struct {
	dir   string
	nodes []*node
	spawn chan func() // to the thread that starts processes
}

// node is one process.
type node struct {
	dir      string
	user     string // address for users
	cmd      *exec.Cmd
	gone     chan struct{}
	expected bool // it was killed on purpose
}

// build compiles the contract, and the node unless there is one.
func build(ctx context.Context, dir, root, bin string) (node, contract string, err error) {
	contract = filepath.Join(dir, "echo")
	source := filepath.Join(root, "examples", "echo-c", "echo.c")
	if out, err := exec.CommandContext(ctx, "cc", "-O2", "-static", "-o", contract, source).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("compile the contract %s (a C compiler and a static C library are needed): %w\n%s", source, err, out)
	}
	if bin != "" {
		node, err = filepath.Abs(bin)
		return node, contract, err
	}
	node = filepath.Join(dir, "evernode")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", node, "./cmd/evernode")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("build the node: %w\n%s", err, out)
	}
	return node, contract, nil
}

// moduleRoot finds the repository from inside it.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	path := strings.TrimSpace(string(out))
	if path == "" || path == os.DevNull {
		return "", errors.New("run this inside the repository: its example contract is needed")
	}
	return filepath.Dir(path), nil
}

// ports returns free ports. Another program may take one before it is used; then
// the node says so at its start.
func ports(n int) ([]int, error) {
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}

// newCluster makes the folders of n nodes that run the contract.
func newCluster(dir string, n int, contract string, debug bool) (*cluster, error) {
	c := &cluster{dir: dir, spawn: make(chan func())}
	go func() {
		// The kernel ties the death signal of a child to the thread that started
		// it, so that thread must last as long as this process.
		runtime.LockOSThread()
		for f := range c.spawn {
			f()
		}
	}()
	free, err := ports(2 * n)
	if err != nil {
		return nil, fmt.Errorf("find free ports: %w", err)
	}
	program, err := os.ReadFile(contract)
	if err != nil {
		return nil, err
	}
	var confs []*config.Config
	var unl []key.Public
	var peers []string
	for i := range n {
		nd := &node{dir: filepath.Join(dir, "node"+strconv.Itoa(i+1))}
		conf, err := config.Create(nd.dir, time.Now())
		if err != nil {
			return nil, err
		}
		conf.User.Port, conf.Mesh.Port = free[2*i], free[2*i+1]
		nd.user = net.JoinHostPort("127.0.0.1", strconv.Itoa(conf.User.Port))
		peers = append(peers, net.JoinHostPort("127.0.0.1", strconv.Itoa(conf.Mesh.Port)))
		unl = append(unl, conf.Node.PublicKey)
		confs = append(confs, conf)
		c.nodes = append(c.nodes, nd)
	}
	slices.SortFunc(unl, key.Public.Compare)
	for i, conf := range confs {
		conf.Contract.ID = confs[0].Contract.ID
		conf.Contract.UNL = unl
		conf.Contract.BinPath = "./echo"
		conf.Contract.Consensus.Roundtime = roundtime
		// Inputs are signed before the run, so they cannot name a ledger close to
		// the one they will get into.
		conf.Contract.MaxInputLedgerOffset = 0
		conf.Mesh.KnownPeers = peers
		if debug {
			conf.Log.Level = "dbg"
		}
		if err := conf.Save(c.nodes[i].dir); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(config.Layout(c.nodes[i].dir).SeedState(), "echo"), program, 0o755); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// start starts all nodes with the given command and waits until each has closed
// a few ledgers.
func (c *cluster) start(ctx context.Context, command []string) error {
	for _, n := range c.nodes {
		log, err := os.Create(n.dir + ".log")
		if err != nil {
			return err
		}
		n.cmd = exec.Command(command[0], append(slices.Clone(command[1:]), n.dir)...)
		n.cmd.Stdout, n.cmd.Stderr = log, log
		// A group of its own, so that Ctrl-C reaches this program alone, which
		// then stops the nodes; and none outlives it, however it ends.
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		started := make(chan error)
		c.spawn <- func() { started <- n.cmd.Start() }
		err = <-started
		log.Close()
		if err != nil {
			n.cmd = nil
			return fmt.Errorf("start a node: %w", err)
		}
		n.gone = make(chan struct{})
		go func() {
			_ = n.cmd.Wait() // how it ended is in its log
			close(n.gone)
		}()
	}
	return c.await(ctx, "close its first ledgers", func(s control.Status) bool { return s.LedgerSeqNo >= 3 })
}

// live returns the nodes that have not been killed.
func (c *cluster) live() []*node {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n.expected || n.cmd == nil })
}

// await waits until all live nodes satisfy ok.
func (c *cluster) await(ctx context.Context, what string, ok func(control.Status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, n := range c.live() {
		for {
			if s, err := control.Fetch(ctx, n.dir); err == nil && ok(s) {
				break
			}
			select {
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.Canceled) {
					return ctx.Err()
				}
				return fmt.Errorf("%s did not %s within 30 s; its last words:\n%s", filepath.Base(n.dir), what, n.lastWords())
			case <-n.gone:
				return fmt.Errorf("%s ended; its last words:\n%s", filepath.Base(n.dir), n.lastWords())
			case <-tick.C:
			}
		}
	}
	return nil
}

// check reports a node that has ended although nobody wanted it to, and nodes
// that have come to different states.
func (c *cluster) check(ctx context.Context) error {
	for _, n := range c.live() {
		select {
		case <-n.gone:
			return fmt.Errorf("%s ended; its last words:\n%s", filepath.Base(n.dir), n.lastWords())
		default:
		}
	}
	return c.await(ctx, "stay in sync", func(s control.Status) bool { return s.VoteStatus == "synced" && s.PendingInputs == 0 })
}

func (n *node) lastWords() string {
	b, err := os.ReadFile(n.dir + ".log")
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

func (n *node) pid() int { return n.cmd.Process.Pid }

// kill ends a node as a power cut would.
func (n *node) kill() {
	n.expected = true
	_ = n.cmd.Process.Signal(syscall.SIGKILL)
	<-n.gone
}

// stop ends all nodes, kindly first.
func (c *cluster) stop() {
	if c == nil {
		return
	}
	for _, n := range c.live() {
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
	}
	late := time.After(5 * time.Second)
	for _, n := range c.live() {
		select {
		case <-n.gone:
		case <-late:
			n.kill()
		}
		n.expected = true
	}
}

// folderPrefix begins the names of the folders of all runs.
const folderPrefix = "evernode-bench-"

// remove removes the folder of a run whose nodes have ended, also those that
// were killed and had no time to unmount what they had mounted.
func remove(dir string) error {
	nodes, err := filepath.Glob(filepath.Join(dir, "node*", "contract_fs"))
	for _, state := range nodes {
		err = errors.Join(err, statefs.Release(state))
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// removeStale removes what runs left behind that were killed; their nodes died
// with them. A run that still lives holds its folder's lock, and folders kept on
// purpose have a note in them.
func removeStale() {
	all, err := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range all {
		if _, err := os.Stat(filepath.Join(dir, keptNote)); err == nil {
			continue
		}
		lock, err := config.Acquire(dir)
		if err != nil {
			continue
		}
		// What cannot be removed stays for whoever may.
		_ = lock.Release()
		_ = remove(dir)
	}
}

// keptNote is the name of the file that says that a folder is to be kept.
const keptNote = "kept"

// usage returns the processor time of each live node.
func (c *cluster) usage() ([]usage, error) {
	var out []usage
	for _, n := range c.live() {
		u, err := usageOf(n.pid())
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// resident returns the memory of each live node in MiB.
func (c *cluster) resident() ([]float64, error) {
	var out []float64
	for _, n := range c.live() {
		m, err := residentOf(n.pid())
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}
