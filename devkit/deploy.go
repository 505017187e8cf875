package devkit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs/backend"
	"evernode/hotpocket/statefs/remote"
)

// DeployOptions are the choices for a deployment. A zero value leaves a choice
// as it was in the cluster, or at its default in a new one.
type DeployOptions struct {
	Nodes     int
	Roundtime time.Duration
	Threshold int // percent
	UserPort  int // of node 1
	PeerPort  int // of node 1
	// Backend is how the nodes keep the state, fuse or dir. When nobody has ever
	// said, it is fuse where this machine can have it.
	Backend string
}

// Deploy puts the contract in the folder bundle on a cluster in the folder
// work, which is made if there is none, and starts it from its first ledger. An
// existing cluster keeps its keys and contract id. It returns when every member
// has closed a ledger.
func Deploy(ctx context.Context, work, bundleDir string, o DeployOptions, env Env) (*Cluster, error) {
	b, err := openBundle(bundleDir)
	if err != nil {
		return nil, err
	}
	if work, err = filepath.Abs(work); err != nil {
		return nil, err
	}
	if overlaps(work, b.dir) {
		return nil, fmt.Errorf("the cluster's work folder %s and the contract's folder %s must lie apart; name another work folder with --dir", work, b.dir)
	}
	c, err := Open(work, env)
	isNew := errors.Is(err, ErrNoCluster)
	if isNew {
		c, err = create(work, o, env)
	}
	if err != nil {
		return nil, err
	}
	err = c.exclusively(func() error { return c.deploy(ctx, b, o) })
	if err != nil && isNew && !c.state.Deployed {
		// Nothing ran yet: leave no half cluster behind.
		err = errors.Join(err, c.remove())
	}
	return c, err
}

// create makes the work folder of a new cluster, without nodes.
func create(work string, o DeployOptions, env Env) (*Cluster, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("make a contract id: %w", err)
	}
	if entries, err := os.ReadDir(work); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("the work folder %s is not empty and holds no cluster; name another with --dir", work)
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, err
	}
	n := o.Nodes
	if n == 0 {
		n = DefaultNodes
	}
	c := &Cluster{env: env, dir: work, state: state{
		Format:     stateFormat,
		ContractID: id.String(),
		UserPort:   DefaultUserPort,
		PeerPort:   DefaultPeerPort,
	}}
	for range n {
		c.state.Nodes = append(c.state.Nodes, record{Member: true})
	}
	return c, c.save()
}

// check rejects choices that no cluster can have.
func (o DeployOptions) check() error {
	port := func(flag string, p int) error {
		if p < 0 || p > 65535 {
			return fmt.Errorf("%s is %d; allowed: 1 to 65535", flag, p)
		}
		return nil
	}
	switch {
	case o.Nodes < 0 || o.Nodes > config.MaxUNL:
		return fmt.Errorf("--nodes is %d; allowed: 1 to %d", o.Nodes, config.MaxUNL)
	case o.Threshold < 0 || o.Threshold > 100 || (o.Threshold > 0 && o.Threshold < 50):
		return fmt.Errorf("--threshold is %d; allowed: 50 to 100", o.Threshold)
	case o.Roundtime < 0 || o.Roundtime > time.Hour || (o.Roundtime > 0 && o.Roundtime < time.Millisecond):
		return fmt.Errorf("--roundtime is %d; allowed: 1 to 3600000 (milliseconds)", o.Roundtime.Milliseconds())
	}
	if o.Backend != "" && o.Backend != backend.FUSE && o.Backend != backend.Dir {
		return fmt.Errorf("--state-backend is %q; allowed: %s, %s", o.Backend, backend.FUSE, backend.Dir)
	}
	return errors.Join(port("--user-port", o.UserPort), port("--peer-port", o.PeerPort))
}

// choices takes over what the developer chose now.
func (c *Cluster) choices(o DeployOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if n := len(c.members()); o.Nodes != 0 && o.Nodes != n {
		return fmt.Errorf("this cluster has %d members and cannot become one of %d; remove it with evernode dev clean, or leave --nodes out", n, o.Nodes)
	}
	set := func(to *int, v int) {
		if v != 0 {
			*to = v
		}
	}
	set(&c.state.UserPort, o.UserPort)
	set(&c.state.PeerPort, o.PeerPort)
	set(&c.state.Roundtime, int(o.Roundtime.Milliseconds()))
	set(&c.state.Threshold, o.Threshold)
	if o.Backend != "" {
		c.state.Backend = o.Backend
	}
	u, p, n := c.state.UserPort, c.state.PeerPort, c.Size()
	if u+n-1 > 65535 || p+n-1 > 65535 {
		return fmt.Errorf("%d nodes from ports %d and %d on would need ports above 65535; choose lower ones with --user-port and --peer-port", n, u, p)
	}
	if u < p+n && p < u+n {
		return fmt.Errorf("the user ports %d to %d and the peer ports %d to %d overlap; choose others with --user-port or --peer-port", u, u+n-1, p, p+n-1)
	}
	return nil
}

func (c *Cluster) deploy(ctx context.Context, b *bundle, o DeployOptions) error {
	if err := c.choices(o); err != nil {
		return err
	}
	cfgs, err := c.identities()
	if err != nil {
		return err
	}
	// Everything that can be wrong is found before anything is stopped.
	held := map[int]bool{}
	for _, i := range c.all() {
		if _, running := c.process(i); running {
			held[cfgs[i-1].User.Port], held[cfgs[i-1].Mesh.Port] = true, true
		}
	}
	if err := c.freePorts(c.all(), held); err != nil {
		return err
	}
	if cfgs, err = c.configure(cfgs, b); err != nil {
		return err
	}
	if err := b.checkProgram(cfgs[0]); err != nil {
		return err
	}
	if err := c.chooseBackend(ctx, cfgs); err != nil {
		return err
	}
	if unknown := b.unknown(cfgs[0].Node); len(unknown) > 0 {
		c.env.Report.Step(fmt.Sprintf("note: %s has fields that have no effect: %s; docs/configuration.md lists those there are", overrideFile, strings.Join(unknown, ", ")))
	}
	for n := range b.disparate {
		if n > c.Size() {
			c.env.Report.Step(fmt.Sprintf("note: %s/%d is for a node that this cluster does not have", disparateDir, n))
		}
	}
	threshold := cfgs[0].Contract.Consensus.Threshold
	if w := config.Warning(len(c.members()), threshold); w != "" {
		c.env.Report.Step("note: " + w)
	}
	if err := c.halt(ctx, c.all()); err != nil {
		return err
	}
	// Again, for somebody may have taken a port that a node has just left.
	if err := c.freePorts(c.all(), nil); err != nil {
		return err
	}
	for _, i := range c.all() {
		l := config.Layout(c.NodeDir(i))
		if err := wipe(l); err != nil {
			return err
		}
		if err := b.install(l, i); err != nil {
			return err
		}
		if err := cfgs[i-1].Save(c.NodeDir(i)); err != nil {
			return err
		}
	}
	c.state.Deployed = true
	if err := c.save(); err != nil {
		return err
	}
	c.env.Report.Step(fmt.Sprintf("deployed %s to %d nodes in %s", b.dir, c.Size(), c.dir))
	if err := c.startNodes(ctx, c.all()); err != nil {
		return err
	}
	return c.awaitLedger(ctx, c.members(), 1)
}

// chooseBackend says how the nodes keep the state. A developer's machine that has
// no FUSE, in a container for instance, does with the plain folder: here nobody
// counts on its speed, and every deployment begins from the contract's files.
func (c *Cluster) chooseBackend(ctx context.Context, cfgs []*config.Config) error {
	kind := c.state.Backend
	if kind == "" {
		if cfgs[0].HPFS.Backend != backend.FUSE || cfgs[0].HPFS.Socket != "" {
			return nil // as hp.cfg.override says
		}
		switch err := backend.Check(ctx, backend.FUSE, c.dir); {
		case err == nil:
			return nil
		case !errors.Is(err, remote.ErrUnavailable):
			return fmt.Errorf("try the state's file system: %w", err)
		default:
			kind = backend.Dir
			c.env.Report.Step(fmt.Sprintf("note: the state is kept in plain folders, which is slower: %v", err))
		}
	}
	for _, cfg := range cfgs {
		cfg.HPFS.Backend = kind
	}
	return nil
}

// identities loads the configuration of every node, and makes the nodes that
// are not there yet.
func (c *Cluster) identities() ([]*config.Config, error) {
	var cfgs []*config.Config
	for _, i := range c.all() {
		cfg, err := config.Load(c.NodeDir(i))
		if errors.Is(err, os.ErrNotExist) {
			// What is there without hp.cfg is the rest of an interrupted start.
			if err := removeTree(c.NodeDir(i)); err != nil {
				return nil, err
			}
			cfg, err = config.Create(c.NodeDir(i), time.Now())
		}
		if err != nil {
			return nil, err
		}
		cfgs = append(cfgs, cfg)
	}
	return cfgs, nil
}

// configure gives every node its configuration for a new start of the
// contract. What the members agree on starts from the defaults each time, so
// that nothing of an earlier contract stays; what is the operator's stays.
func (c *Cluster) configure(cfgs []*config.Config, b *bundle) ([]*config.Config, error) {
	var unl []key.Public
	for _, i := range c.members() {
		unl = append(unl, cfgs[i-1].Node.PublicKey)
	}
	var notes []string
	configured := make([]*config.Config, len(cfgs))
	for i, cfg := range cfgs {
		fresh := config.New(cfg.Node.PrivateKey, c.state.ContractID)
		fresh.Contract.UNL = unl
		// Nodes that are added later could not follow a private consensus.
		fresh.Contract.Consensus.Mode = "public"
		fresh.Contract.NPL.Mode = "public"
		next := *cfg
		next.Contract.ID = c.state.ContractID
		next.Contract.Patch = fresh.Contract.Patch
		next.HPFS.Backend = config.DefaultBackend // see chooseBackend
		next.User.Port = c.state.UserPort + i
		next.Mesh.Port = c.state.PeerPort + i
		next.Mesh.KnownPeers = c.peersOf(i + 1)
		result := &next
		if b.override != nil {
			var err error
			if result, err = next.Override(b.override); err != nil {
				return nil, fmt.Errorf("%s: %w", filepath.Join(b.dir, overrideFile), err)
			}
			notes = keepOurs(result, &next)
		}
		if c.state.Roundtime > 0 {
			result.Contract.Consensus.Roundtime = time.Duration(c.state.Roundtime) * time.Millisecond
		}
		if c.state.Threshold > 0 {
			result.Contract.Consensus.Threshold = c.state.Threshold
		}
		configured[i] = result
	}
	if len(notes) > 0 {
		c.env.Report.Step("note: a developer's cluster has its own " + strings.Join(notes, ", ") + "; those of " + overrideFile + " are not used")
	}
	return configured, nil
}

// keepOurs restores what an override cannot know about this cluster and names
// what it restored.
func keepOurs(result, ours *config.Config) (restored []string) {
	if result.Contract.ID != ours.Contract.ID {
		result.Contract.ID = ours.Contract.ID
		restored = append(restored, "contract.id")
	}
	if !slices.Equal(result.Contract.UNL, ours.Contract.UNL) {
		result.Contract.UNL = ours.Contract.UNL
		restored = append(restored, "contract.unl")
	}
	if result.User.Port != ours.User.Port {
		result.User.Port = ours.User.Port
		restored = append(restored, "user.port")
	}
	if result.Mesh.Port != ours.Mesh.Port {
		result.Mesh.Port = ours.Mesh.Port
		restored = append(restored, "mesh.port")
	}
	if !slices.Equal(result.Mesh.KnownPeers, ours.Mesh.KnownPeers) {
		result.Mesh.KnownPeers = ours.Mesh.KnownPeers
		restored = append(restored, "mesh.known_peers")
	}
	return restored
}

// peersOf lists the addresses of the members other than node i.
func (c *Cluster) peersOf(i int) []string {
	var peers []string
	for _, j := range c.members() {
		if j != i {
			peers = append(peers, c.peerAddr(j))
		}
	}
	return peers
}

// startTimeout is how long a node may take to answer after its start.
const startTimeout = 30 * time.Second

// startNodes starts those of the nodes that do not run and waits until all
// answer.
func (c *Cluster) startNodes(ctx context.Context, nodes []int) error {
	var down []int
	for _, i := range nodes {
		if _, running := c.process(i); !running {
			down = append(down, i)
		}
	}
	if err := c.freePorts(down, nil); err != nil {
		return err
	}
	ended := map[int]<-chan struct{}{}
	for _, i := range down {
		p, gone, err := c.launch(i)
		if err != nil {
			return err
		}
		ended[i] = gone
		c.state.Nodes[i-1].Process = p
		// At once, so that a node is found again whatever happens to us.
		if err := c.save(); err != nil {
			return err
		}
	}
	return c.await(ctx, nodes, ended, startTimeout, "answer", func(int, control.Status) bool { return true })
}

// awaitLedger waits until each of the nodes has closed ledger seq.
func (c *Cluster) awaitLedger(ctx context.Context, nodes []int, seq uint64) error {
	what := fmt.Sprintf("have closed ledger %d", seq)
	return c.await(ctx, nodes, nil, startTimeout+4*c.roundtime(), what, func(_ int, s control.Status) bool { return s.LedgerSeqNo >= seq })
}

// await waits until ok holds of each of the nodes' status, and says which lags
// and why when it does not come to that.
func (c *Cluster) await(ctx context.Context, nodes []int, ended map[int]<-chan struct{}, limit time.Duration, what string, ok func(i int, s control.Status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	waiting := slices.Clone(nodes)
	for first := true; ; first = false {
		waiting = slices.DeleteFunc(waiting, func(i int) bool {
			s, err := control.Fetch(ctx, c.NodeDir(i))
			return err == nil && ok(i, s)
		})
		if len(waiting) == 0 {
			return nil
		}
		if !first {
			c.env.Report.Wait(fmt.Sprintf("waiting: %d of %d nodes %s", len(nodes)-len(waiting), len(nodes), what))
		}
		for _, i := range waiting {
			select {
			case <-ended[i]:
				return fmt.Errorf("node %d ended; see evernode dev logs %d; its last words:\n%s", i, i, c.lastWords(i))
			default:
			}
			if _, running := c.process(i); !running && ended[i] == nil {
				return fmt.Errorf("node %d does not run; start it with evernode dev start %d; its last words:\n%s", i, i, c.lastWords(i))
			}
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return &lateError{limit, waiting, what, c.lastWords(waiting[0])}
		case <-tick.C:
		}
	}
}

// lateError says which nodes did not come to something in time.
type lateError struct {
	limit     time.Duration
	nodes     []int
	what      string
	lastWords string // of the first of them
}

func (e *lateError) Error() string {
	return fmt.Sprintf("after %v, nodes that do not %s: %v; see evernode dev logs %d; its last words:\n%s",
		e.limit, e.what, e.nodes, e.nodes[0], e.lastWords)
}
