package devkit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/key"
)

// stopTimeout is how long a node may take to stop before it is killed.
const stopTimeout = 15 * time.Second

// catchUpTimeout is how long a start waits for nodes to catch up before it says
// that they still do.
const catchUpTimeout = 30 * time.Second

// Start starts node n, or all when n is 0. It returns when they answer and, if
// enough members run for that, have caught up. Nodes that run already are left
// alone.
func (c *Cluster) Start(ctx context.Context, n int) error {
	nodes, err := c.choose(n)
	if err != nil {
		return err
	}
	return c.exclusively(func() error {
		if !c.state.Deployed {
			return fmt.Errorf("the cluster in %s has no contract; deploy one with: evernode dev deploy DIR", c.dir)
		}
		if err := c.startNodes(ctx, nodes); err != nil {
			return err
		}
		c.env.Report.Step(started(nodes))
		return c.catchUp(ctx, nodes)
	})
}

// catchUp waits until the nodes have come to where the cluster was when it was
// called. Nodes that take long are no failure: they go on by themselves.
func (c *Cluster) catchUp(ctx context.Context, nodes []int) error {
	all, err := c.Status(ctx)
	if err != nil {
		return err
	}
	cfg, err := config.Load(c.NodeDir(1))
	if err != nil {
		return err
	}
	unl, running, newest := cfg.Contract.Members(), 0, uint64(0)
	for _, s := range all {
		newest = max(newest, s.LedgerSeqNo)
		if k, err := key.ParsePublic(s.PublicKey); err == nil && s.Running && slices.Contains(unl, k) {
			running++
		}
	}
	if q := config.Quorum(len(unl), cfg.Contract.Consensus.Threshold); running < q {
		c.env.Report.Step(fmt.Sprintf("note: %d of %d members run; ledgers close again when %d do", running, len(unl), q))
		return nil
	}
	err = c.await(ctx, nodes, nil, catchUpTimeout, "have caught up", func(i int, s control.Status) bool {
		return s.LedgerSeqNo >= newest && c.agrees(ctx, i, s)
	})
	var late *lateError
	if errors.As(err, &late) {
		c.env.Report.Step(fmt.Sprintf("note: nodes %v still catch up; see evernode dev status", late.nodes))
		return nil
	}
	return err
}

// agrees reports whether node i, whose status is s, has what a member has: the
// same last ledger and the same state after it.
func (c *Cluster) agrees(ctx context.Context, i int, s control.Status) bool {
	if s.VoteStatus != "synced" || s.Sync != nil {
		return false
	}
	members := c.members()
	for _, j := range members {
		if j == i {
			continue
		}
		m, err := control.Fetch(ctx, c.NodeDir(j))
		if err == nil && m.LedgerSeqNo == s.LedgerSeqNo && m.VoteStatus == "synced" {
			return m.LedgerHash == s.LedgerHash && m.StateHash == s.StateHash && m.PatchHash == s.PatchHash
		}
	}
	// Alone it has nobody to differ from.
	return len(members) == 1 && members[0] == i
}

func started(nodes []int) string {
	if len(nodes) == 1 {
		return fmt.Sprintf("node %d runs", nodes[0])
	}
	return fmt.Sprintf("%d nodes run", len(nodes))
}

// Stop stops node n, or all when n is 0.
func (c *Cluster) Stop(ctx context.Context, n int) error {
	nodes, err := c.choose(n)
	if err != nil {
		return err
	}
	return c.exclusively(func() error { return c.halt(ctx, nodes) })
}

// Kill ends node n at once, as a power failure would.
func (c *Cluster) Kill(ctx context.Context, n int) error {
	if _, err := c.choose(n); err != nil {
		return err
	}
	p, running := c.process(n)
	if !running {
		return fmt.Errorf("node %d does not run", n)
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if !p.wait(ctx, stopTimeout) {
		return fmt.Errorf("node %d (process %d) does not end", n, p.PID)
	}
	return nil
}

// halt stops nodes together and ends what they leave behind.
func (c *Cluster) halt(ctx context.Context, nodes []int) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for at, i := range nodes {
		all.Go(func() { errs[at] = c.haltOne(ctx, i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (c *Cluster) haltOne(ctx context.Context, i int) error {
	p, running := c.process(i)
	if running {
		if err := p.signal(syscall.SIGTERM); err != nil {
			return err
		}
		if !p.wait(ctx, stopTimeout) {
			if err := ctx.Err(); err != nil {
				return err
			}
			c.env.Report.Step(fmt.Sprintf("node %d did not stop within %v and is killed", i, stopTimeout))
			if err := p.signal(syscall.SIGKILL); err != nil {
				return err
			}
			if !p.wait(ctx, stopTimeout) {
				return fmt.Errorf("node %d (process %d) does not end", i, p.PID)
			}
		}
		c.env.Report.Step(fmt.Sprintf("node %d stopped", i))
	} else {
		p = c.state.Nodes[i-1].Process
	}
	if err := sweep(ctx, p, c.NodeDir(i)); err != nil {
		return fmt.Errorf("clean up after node %d: %w", i, err)
	}
	return nil
}

// Spawn adds a node that is no member and knows only the contract's id, the
// address of one node and the public key of one member; everything else it finds
// out and fetches. It returns the node's number when the node follows the others.
func (c *Cluster) Spawn(ctx context.Context) (n int, err error) {
	err = c.exclusively(func() error {
		if !c.state.Deployed {
			return fmt.Errorf("the cluster in %s has no contract; deploy one with: evernode dev deploy DIR", c.dir)
		}
		n = c.Size() + 1
		if n > 255 {
			return errors.New("a developer's cluster has at most 255 nodes")
		}
		first, err := config.Load(c.NodeDir(1))
		if err != nil {
			return err
		}
		if !first.Contract.Consensus.Public() {
			return errors.New("the contract keeps its consensus private (contract.consensus.mode), so nobody but members can follow; set it to public in hp.cfg.override and deploy again")
		}
		peer, member, err := c.sponsors(ctx)
		if err != nil {
			return err
		}
		c.state.Nodes = append(c.state.Nodes, record{})
		if err := c.freePorts([]int{n}, nil); err != nil {
			return err
		}
		if err := removeTree(c.NodeDir(n)); err != nil {
			return err
		}
		cfg, err := config.Newcomer(first.Contract.ID, []string{c.peerAddr(peer)}, []key.Public{member})
		if err != nil {
			return err
		}
		cfg.User.Port, cfg.Mesh.Port = c.state.UserPort+n-1, c.state.PeerPort+n-1
		cfg.HPFS.Backend = first.HPFS.Backend
		if err := cfg.CreateIn(c.NodeDir(n), time.Now()); err != nil {
			return err
		}
		if err := c.save(); err != nil {
			return err
		}
		if err := c.startNodes(ctx, []int{n}); err != nil {
			return err
		}
		c.env.Report.Step(fmt.Sprintf("node %d runs and is no member; user port %d", n, cfg.User.Port))
		return c.await(ctx, []int{n}, nil, startTimeout+10*c.roundtime(), "follow", func(i int, s control.Status) bool {
			return s.LedgerSeqNo > 0 && c.agrees(ctx, i, s)
		})
	})
	return n, err
}

// sponsors returns a node that runs and the key of a member that does, the first
// of each.
func (c *Cluster) sponsors(ctx context.Context) (peer int, member key.Public, err error) {
	all, err := c.Status(ctx)
	if err != nil {
		return 0, key.Public{}, err
	}
	for _, n := range all {
		if !n.Running || n.silent != "" {
			continue
		}
		if peer == 0 {
			peer = n.Node
		}
		if n.member {
			member, err = key.ParsePublic(n.PublicKey)
			return peer, member, err
		}
	}
	return 0, key.Public{}, errors.New("no member of the cluster runs, so nobody could be followed; start them with: evernode dev start")
}

// Clean stops all nodes and removes the cluster. What it did not put into the
// work folder stays.
func (c *Cluster) Clean(ctx context.Context) error {
	return c.exclusively(func() error {
		if err := c.halt(ctx, c.all()); err != nil {
			return err
		}
		return c.remove()
	})
}

// remove removes the files of a cluster whose nodes are stopped.
func (c *Cluster) remove() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var foreign []string
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == stateFile: // last
		case strings.HasPrefix(name, "node") || name == usersDir || strings.HasPrefix(name, "."+stateFile):
			if err := removeTree(filepath.Join(c.dir, name)); err != nil {
				return err
			}
		default:
			foreign = append(foreign, name)
		}
	}
	if err := os.Remove(filepath.Join(c.dir, stateFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(foreign) > 0 {
		c.env.Report.Step(fmt.Sprintf("%s stays, because it holds files that are not the cluster's: %s", c.dir, strings.Join(foreign, ", ")))
		return nil
	}
	return os.Remove(c.dir)
}
