// Package devkit is the developer's cluster: several nodes on one machine, each
// a real process with its own folder, and what a developer does with them:
// deploy a contract, start, stop and watch nodes, talk to the contract, and
// leave nothing behind. It also makes new contract projects from templates.
//
// The command line calls it (`evernode dev`), and so do the demonstration and
// tests that need real nodes. It works through what any operator has, that is
// node folders, the node program and its control socket, and reaches into no
// node. It keeps no process running itself: a cluster lives in its work folder
// and survives the command that started it and a restart of the machine.
package devkit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"evernode/hotpocket/config"
)

const (
	// DefaultNodes is the size of a new cluster: the smallest that survives
	// the loss or the lies of one node.
	DefaultNodes = 4
	// DefaultUserPort and DefaultPeerPort are the ports of node 1; node i has
	// the i-1st port after them.
	DefaultUserPort = 8081
	// DefaultPeerPort is the first peer port.
	DefaultPeerPort = 22861

	stateFile   = "cluster.json"
	stateFormat = 1
)

// Env is what a cluster needs of the program that works with it.
type Env struct {
	// Node is the command that runs a node; the node's folder is appended.
	Node []string
	// Report tells the person in front what happens.
	Report Reporter
}

// Cluster is a developer's cluster in its work folder. It is not safe for
// concurrent use; separate processes keep each other out where they change it.
type Cluster struct {
	env   Env
	dir   string
	state state
}

// state is what cluster.json holds.
type state struct {
	Format     int      `json:"format"`
	ContractID string   `json:"contract_id"`
	UserPort   int      `json:"user_port"`
	PeerPort   int      `json:"peer_port"`
	Roundtime  int      `json:"roundtime,omitempty"` // ms; 0: as the contract says
	Threshold  int      `json:"threshold,omitempty"` // %; 0: as the contract says
	Backend    string   `json:"backend,omitempty"`   // of the state; "": what this machine can have
	Deployed   bool     `json:"deployed"`
	Nodes      []record `json:"nodes"`
}

// record is what is remembered of one node; node i is at index i-1.
type record struct {
	Member  bool    `json:"member"`            // in the UNL from the start
	Process process `json:"process,omitempty"` // the last one started
}

// ErrNoCluster says that a work folder holds no cluster.
var ErrNoCluster = errors.New("there is no cluster")

// DefaultDir is the work folder that is used when none is named: one per user,
// in the folder that the XDG base directory specification has for state.
func DefaultDir() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no work folder: %w; name one with --dir", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "evernode", "dev"), nil
}

// Open reads the cluster in a work folder. It returns ErrNoCluster when there
// is none.
func Open(dir string, env Env) (*Cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s; make one with: evernode dev deploy DIR", ErrNoCluster, dir)
	}
	if err != nil {
		return nil, err
	}
	c := &Cluster{env: env, dir: dir}
	if err := json.Unmarshal(text, &c.state); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w); remove the folder %s and deploy again", filepath.Join(dir, stateFile), err, dir)
	}
	if c.state.Format != stateFormat || len(c.state.Nodes) == 0 {
		return nil, fmt.Errorf("%s was made by another version of evernode; use that one, or remove the folder and deploy again",
			filepath.Join(dir, stateFile))
	}
	return c, nil
}

// Dir is the work folder.
func (c *Cluster) Dir() string { return c.dir }

// Size is the number of nodes.
func (c *Cluster) Size() int { return len(c.state.Nodes) }

// NodeDir is the folder of node i, counted from 1.
func (c *Cluster) NodeDir(i int) string { return filepath.Join(c.dir, "node"+strconv.Itoa(i)) }

// LogFile holds what node i and its contract printed.
func (c *Cluster) LogFile(i int) string { return c.NodeDir(i) + ".log" }

// UserAddr is the address of node i for users, host:port.
func (c *Cluster) UserAddr(i int) string {
	return "127.0.0.1:" + strconv.Itoa(c.state.UserPort+i-1)
}

func (c *Cluster) peerAddr(i int) string {
	return "127.0.0.1:" + strconv.Itoa(c.state.PeerPort+i-1)
}

// all returns the numbers of all nodes.
func (c *Cluster) all() []int {
	nodes := make([]int, c.Size())
	for i := range nodes {
		nodes[i] = i + 1
	}
	return nodes
}

// members returns the numbers of the nodes that are in the UNL from the start.
func (c *Cluster) members() []int {
	return slices.DeleteFunc(c.all(), func(i int) bool { return !c.state.Nodes[i-1].Member })
}

// choose returns the nodes that a command is about: node n, or all when n is 0.
func (c *Cluster) choose(n int) ([]int, error) {
	if n == 0 {
		return c.all(), nil
	}
	if n < 1 || n > c.Size() {
		return nil, fmt.Errorf("there is no node %d; this cluster has nodes 1 to %d", n, c.Size())
	}
	return []int{n}, nil
}

// save writes cluster.json.
func (c *Cluster) save() error {
	text, err := json.MarshalIndent(c.state, "", "    ")
	if err != nil {
		return fmt.Errorf("encode the cluster's state: %w", err)
	}
	return config.WriteFile(filepath.Join(c.dir, stateFile), append(text, '\n'), 0o600)
}

// exclusively runs f while no other process changes the cluster, and on the
// state that the last one left.
func (c *Cluster) exclusively(f func() error) (err error) {
	lock, err := config.Acquire(c.dir)
	var inUse *config.InUseError
	if errors.As(err, &inUse) {
		return fmt.Errorf("another evernode dev command (process %d) is at work on %s; wait for it or stop it", inUse.PID, c.dir)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	fresh, err := Open(c.dir, c.env)
	if err != nil && !errors.Is(err, ErrNoCluster) {
		return err
	}
	if err == nil {
		c.state = fresh.state
	}
	return f()
}

// configs loads the configuration of every node, in order.
func (c *Cluster) configs() ([]*config.Config, error) {
	cfgs := make([]*config.Config, c.Size())
	for i := range cfgs {
		cfg, err := config.Load(c.NodeDir(i + 1))
		if err != nil {
			return nil, err
		}
		cfgs[i] = cfg
	}
	return cfgs, nil
}

// roundtime is the longest time between ledgers, as node 1 has it now.
func (c *Cluster) roundtime() time.Duration {
	cfg, err := config.Load(c.NodeDir(1))
	if err != nil {
		return time.Second
	}
	return cfg.Contract.Consensus.Roundtime
}
