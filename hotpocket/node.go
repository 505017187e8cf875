package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"evernode/hotpocket/config"
	"evernode/hotpocket/consensus"
	"evernode/hotpocket/contract"
	"evernode/hotpocket/control"
	"evernode/hotpocket/gateway"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/ledger"
	"evernode/hotpocket/mesh"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/usermsg"
)

// hpVersion is what users and contracts are told.
const hpVersion = config.HPVersion

// seenFor is how long flooded messages are remembered, which is longer than any
// is under way.
const seenFor = 15 * time.Second

// knownUsers is of how many users the expanded keys are kept, 2 KiB each.
const knownUsers = 4096

// Options are what a node is given beside its folder.
type Options struct {
	// Version is that of this program.
	Version string
	// Log takes what the operator should know.
	Log *slog.Logger
	// Metrics is the local address, host:port, at which counters are served in
	// the text form of Prometheus; empty for none.
	Metrics string
	// State says who keeps the contract's state.
	State StateOptions

	tune tuning // for tests
}

// node is a running node.
type node struct {
	opt   Options
	dir   config.Layout
	log   *slog.Logger
	key   key.Private
	chain digest.Hash

	started   time.Time // origin of the loop's monotonic clock
	startedAt time.Time
	verifier  *key.Cache // for members
	keys      *key.Cache // for users

	conf     atomic.Pointer[config.Config] // in force
	last     atomic.Pointer[lastLedger]
	newest   atomic.Pointer[newest]
	nonces   atomic.Pointer[inputs.Nonces]
	syncing  atomic.Pointer[control.Sync]
	closedAt atomic.Int64 // when the last ledger closed here since the start, Unix ms
	catching atomic.Bool
	awake    atomic.Bool   // the loop is about to run
	ready    chan struct{} // closed when awake
	shown    atomic.Uint64 // the last ledger that is durable
	counts   counts

	store      *ledger.Store
	content    *content
	patches    *patches
	changes    *changes
	tables     tables
	selections selections
	owed       atomic.Int64 // ledgers whose statuses are being found out
	states     *states
	mesh       *mesh.Mesh
	gate       *gateway.Gateway
	exec       *executor
	intake     *intake

	durable    position
	posts      chan func(*loop)
	unchecked  chan arrival
	arriving   *arrivals
	signed     *signatures
	deliveries chan delivery
	fetches    chan struct{}
	saves      chan *config.Config

	ctx      context.Context // of the running node, for spawn
	stopping <-chan struct{}
	spawned  sync.WaitGroup
}

// position is how far the journal of promises and ledgers is on disk.
type position struct {
	lsn     atomic.Uint64
	changed chan struct{}
}

// advance takes over a new position; the journal's committer calls it.
func (p *position) advance(lsn uint64) {
	p.lsn.Store(lsn)
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// spawn runs f in a goroutine of its own, which ends before the node does.
func (n *node) spawn(f func(context.Context)) {
	n.spawned.Add(1)
	go func() {
		defer n.spawned.Done()
		f(n.ctx)
	}()
}

// Run runs the node in folder dir until ctx ends. It returns nil after a clean
// stop, and an error that says what to mend otherwise.
//
// The process should be the node's own: contracts inherit what descriptors it
// has open unless contract.CloseOnExecAll was called at its start, and each
// connected user takes two of them, for which see contract.RaiseFileLimit.
func Run(ctx context.Context, dir string, opt Options) (err error) {
	lock, err := config.Acquire(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	conf, err := config.Load(dir)
	if err != nil {
		return err
	}
	outer := ctx
	defer func() {
		if outer.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil // stopped while it was starting
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	n := &node{
		opt:        opt,
		dir:        config.Layout(dir),
		log:        opt.Log,
		key:        conf.Node.PrivateKey,
		chain:      consensus.ChainOf(conf.Contract.ID),
		started:    time.Now(),
		startedAt:  time.Now(),
		verifier:   key.NewCache(2 * consensus.MaxMembers),
		keys:       key.NewCache(knownUsers),
		posts:      make(chan func(*loop), 4096),
		unchecked:  make(chan arrival, 256),
		arriving:   newArrivals(),
		signed:     newSignatures(),
		deliveries: make(chan delivery, maxDeliveries),
		fetches:    make(chan struct{}, maxFetches),
		saves:      make(chan *config.Config, 1),
		ready:      make(chan struct{}),
		ctx:        ctx,
		stopping:   ctx.Done(),
	}
	n.durable.changed = make(chan struct{}, 1)
	return n.run(ctx, cancel, group, conf)
}

func (n *node) run(ctx context.Context, cancel context.CancelFunc, group *errgroup.Group, conf *config.Config) (err error) {
	closing := func(what string, f func() error) {
		if e := f(); e != nil {
			err = errors.Join(err, fmt.Errorf("close %s: %w", what, e))
		}
	}
	store, recovered, err := ledger.Open(ctx, filepath.Join(n.dir.LedgerFS(), "store"), ledger.Options{
		History:    ledger.History(conf.Node.History),
		MaxPrimary: conf.Node.HistoryConfig.MaxPrimaryShards,
		MaxRaw:     conf.Node.HistoryConfig.MaxRawShards,
		Logger:     n.log,

		PrimaryShard: n.opt.tune.primaryShard,
	})
	if err != nil {
		return fmt.Errorf("open the ledgers: %w", err)
	}
	n.store = store
	defer closing("the ledgers", store.Close)
	store.OnDurable(n.durable.advance)
	n.durable.lsn.Store(store.Durable())
	if n.content, err = openContent(n.dir.LedgerFS(), n.log); err != nil {
		return err
	}
	defer closing("the pending inputs", n.content.close)
	if n.patches, err = openPatches(filepath.Join(n.dir.LedgerFS(), "patch")); err != nil {
		return err
	}
	last, cert, err := decodeLast(recovered)
	if err != nil {
		return err
	}
	if n.changes, err = openChanges(filepath.Join(n.dir.LedgerFS(), "changes"), last.Height, n.log); err != nil {
		return err
	}
	n.shown.Store(last.Height)
	state, err := openState(ctx, n, conf, &last)
	if err != nil {
		return fmt.Errorf("open the state: %w", err)
	}
	defer closing("the state", state.Close)
	if conf, err = n.configure(ctx, conf, state, &last); err != nil {
		return err
	}
	n.last.Store(&lastLedger{last.Height, last.Hash(), last.Time, last.Result})

	runOptions := contract.Options{Log: n.log}
	if l := conf.Contract.Log; l.Enable {
		logs, err := contract.OpenLogs(n.dir.ContractLog(), int64(l.MaxMBytesPerFile)<<20, l.MaxFileCount)
		if err != nil {
			return fmt.Errorf("open the contract's logs: %w", err)
		}
		defer logs.Close()
		runOptions.Logs = logs
	}
	runner := contract.NewRunner(runOptions)
	defer runner.Close()
	nonces, from, err := n.loadNonces()
	if err != nil {
		return err
	}
	n.nonces.Store(nonces)
	n.exec = newExecutor(n, runner, state, nonces)
	n.exec.synced.Store(true)
	n.states = newStates(n, state, conf.HPFS.MaxUpload)
	defer n.states.server.Close()
	n.intake = newIntake(n)
	if n.gate, err = n.newGateway(conf); err != nil {
		return err
	}
	// Whatever ends the start or the node itself: nothing that is closed above
	// is in use any more.
	stop := func() error {
		cancel()
		err := group.Wait()
		n.spawned.Wait()
		return err
	}
	defer stop()
	if err := n.listen(ctx, group, conf); err != nil {
		return err
	}
	if conf, err = n.complete(ctx, conf, &last, &cert); err != nil {
		if ctx.Err() != nil {
			return stop()
		}
		return err
	}
	if err := n.recallChange(&last, cert); err != nil {
		return err
	}
	n.shown.Store(last.Height)
	n.awake.Store(true)
	close(n.ready)

	l := &loop{n: n, previous: last, inherited: len(recovered.Promises) > 0, active: make(map[key.Public]uint64)}
	l.core, err = consensus.New(consensus.Options{
		Self:     n.key.Public(),
		Signer:   n.key,
		Verifier: n.verifier,
		Holds:    n.content.holds,
		Offer:    l.offer,
		Observer: conf.Node.Role == "observer",
	}, parameters(conf), consensus.Restored{
		Last: last, Certificate: cert, Records: recovered.Promises, Fresh: recovered.Fresh,
	}, n.now())
	if err != nil {
		return err
	}
	if last.Outstanding() == 0 {
		v := state.Agreed()
		l.core.Executed(n.now(), 0, consensus.Result{State: v.Root, Patch: v.Patch, Nonces: nonces.Hash()})
	} else if err := n.replay(conf, from, &last); err != nil {
		return err
	}
	n.log.Info("node started", "public_key", n.key.Public().String(), "contract", conf.Contract.ID, "ledger", last.Height,
		"user_port", conf.User.Port, "peer_port", conf.Mesh.Port, "members", len(conf.Contract.UNL))
	if w := config.Warning(len(conf.Contract.UNL), conf.Contract.Consensus.Threshold); w != "" {
		n.log.Warn(w)
	}
	for _, f := range []func(context.Context) error{l.run, n.exec.run, n.intake.run, n.check, n.check, n.watch, n.save, n.deliverAll} {
		group.Go(func() error { return f(ctx) })
	}
	err = group.Wait()
	n.spawned.Wait()
	n.rememberPeers()
	n.log.Info("node stopped", "ledger", n.last.Load().seq)
	return err
}

func decodeLast(r ledger.Recovered) (consensus.Header, consensus.Certificate, error) {
	if r.Last.Seq == 0 {
		return consensus.Header{}, consensus.Certificate{}, nil
	}
	h, c, err := consensus.DecodeLedger(r.Last.Body)
	if err != nil {
		return h, c, fmt.Errorf("ledger %d: %w", r.Last.Seq, err)
	}
	return h, c, nil
}

// openState opens the contract's folder. The last ledger says what it should
// hold, in case the node died between that ledger and its consequences.
func openState(ctx context.Context, n *node, conf *config.Config, last *consensus.Header) (statefs.State, error) {
	c := statefs.Config{Dir: n.dir.ContractFS(), Log: n.log}
	if uid, gid, ok := conf.Contract.User(); ok {
		c.Owner = &statefs.Owner{UID: int(uid), GID: int(gid)}
	}
	var err error
	if c.Confirmed, err = n.confirmed(last); err != nil {
		return nil, err
	}
	return openBackend(ctx, n, conf, c)
}

// complete fetches the agreed configuration from peers when the node ended, the
// last time, before it had it. For a newcomer it finds the chain to join, and
// changes the last ledger and its certificate.
func (n *node) complete(ctx context.Context, conf *config.Config, last *consensus.Header, cert *consensus.Certificate) (*config.Config, error) {
	if last.Height == 0 && joins(conf) {
		return n.join(ctx, conf, last, cert)
	}
	want := last.Result.Patch
	if want == n.patches.inForce() || last.Height == 0 {
		return conf, nil
	}
	n.log.Warn("the agreed patch.cfg is not here; the node goes on when a peer has sent it", "hash", want.Short())
	if err := n.awaitPatch(ctx, want); err != nil {
		return nil, err
	}
	next, err := n.patches.apply(conf, want)
	if err != nil {
		return nil, fmt.Errorf("configuration agreed by ledger %d: %w", last.Height, err)
	}
	n.overrule(conf, next)
	n.adopt(conf, next)
	return next, nil
}

// adopt puts an agreed configuration in force.
func (n *node) adopt(old, next *config.Config) {
	n.conf.Store(next)
	n.counts.changes.Add(1)
	n.log.Info("configuration agreed by the members is in force", "version", next.Contract.Version, "members", len(next.Contract.UNL),
		"roundtime", next.Contract.Consensus.Roundtime, "threshold", next.Contract.Consensus.Threshold)
	if !slices.Equal(old.Contract.UNL, next.Contract.UNL) {
		members := parameters(next).Members
		n.mesh.SetUNL(members)
		n.publish(&usermsg.UNLChange{UNL: members})
	}
	select {
	case n.saves <- next:
	default: // an older one is still being written; the newest follows at the stop
	}
}

// save writes agreed configurations into hp.cfg.
func (n *node) save(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-n.saves:
			if err := c.Save(string(n.dir)); err != nil {
				n.log.Error("hp.cfg could not be written", "err", err)
			}
		}
	}
}

// rememberPeers writes hp.cfg with the peers that are worth dialing at the next
// start.
func (n *node) rememberPeers() {
	conf := *n.conf.Load()
	if peers := n.mesh.KnownPeers(); len(peers) > 0 {
		conf.Mesh.KnownPeers = peers
	}
	if err := conf.Save(string(n.dir)); err != nil {
		n.log.Error("hp.cfg could not be written", "err", err)
	}
}

func (n *node) newGateway(conf *config.Config) (*gateway.Gateway, error) {
	u := conf.User
	return gateway.New(gateway.Config{
		ContractID:      conf.Contract.ID,
		ContractVersion: func() string { return n.conf.Load().Contract.Version },
		HPVersion:       hpVersion,
		Key:             n.key,
		UNL:             func() []key.Public { return parameters(n.conf.Load()).Members },
		Private:         func() bool { return !n.conf.Load().Contract.Consensus.Public() },
		CertFile:        n.dir.TLSCert(),
		KeyFile:         n.dir.TLSKey(),
		Limits: gateway.Limits{
			MaxMessage:              int(u.MaxBytesPerMsg),
			MaxBytesPerMinute:       u.MaxBytesPerMin,
			MaxBadMessagesPerMinute: u.MaxBadMsgsPerMin,
			IdleTimeout:             u.IdleTimeout,
			MaxConnections:          u.MaxConnections,
			MaxPerHost:              u.MaxInConnectionsPerHost,
			ConcurrentReads:         u.ConcurrentReadRequests,
		},
	}, n, n.log)
}

// listen opens the ports and starts what serves them.
func (n *node) listen(ctx context.Context, group *errgroup.Group, conf *config.Config) error {
	var lc net.ListenConfig
	m := conf.Mesh
	mc := mesh.Config{
		Key: n.key, ContractID: conf.Contract.ID, Observer: conf.Node.Role == "observer",
		KnownPeers: m.KnownPeers, UNL: parameters(conf).Members,
		Forward: m.MsgForwarding, Discovery: m.PeerDiscovery.Enabled, DiscoveryEvery: m.PeerDiscovery.Interval,
		IdleTimeout: m.IdleTimeout, MaxConnections: m.MaxConnections, MaxKnownConnections: m.MaxKnownConnections,
		MaxInPerHost: m.MaxInConnectionsPerHost, MaxMessage: int(m.MaxBytesPerMsg), MaxBytesPerMin: m.MaxBytesPerMin,
		MaxBadPerMin: m.MaxBadMsgsPerMin, MaxBadSigsPerMin: m.MaxBadMsgSigsPerMin, MaxDupPerMin: m.MaxDupMsgsPerMin,
		Timing: mesh.Timing{SeenFor: seenFor},
	}
	if m.Listen {
		ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(m.Port)))
		if err != nil {
			return fmt.Errorf("peer port %d (mesh.port in hp.cfg): %w", m.Port, err)
		}
		mc.Listener = ln
	}
	var err error
	if n.mesh, err = mesh.New(mc, n, n.log); err != nil {
		if mc.Listener != nil {
			mc.Listener.Close()
		}
		return err
	}
	var users net.Listener
	if conf.User.Listen {
		if users, err = lc.Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(conf.User.Port))); err != nil {
			if mc.Listener != nil {
				mc.Listener.Close()
			}
			return fmt.Errorf("user port %d (user.port in hp.cfg): %w", conf.User.Port, err)
		}
	}
	ctl, err := control.Listen(ctx, string(n.dir))
	if err != nil {
		if mc.Listener != nil {
			mc.Listener.Close()
		}
		if users != nil {
			users.Close()
		}
		return err
	}
	if n.opt.Metrics != "" {
		metrics, err := listenMetrics(ctx, n.opt.Metrics)
		if err != nil {
			if mc.Listener != nil {
				mc.Listener.Close()
			}
			if users != nil {
				users.Close()
			}
			return errors.Join(err, ctl.Close())
		}
		n.log.Info("metrics are served", "address", metrics.Addr())
		group.Go(func() error { return serveMetrics(ctx, metrics, n.writeMetrics, n.log) })
	}
	group.Go(func() error { return n.mesh.Run(ctx) })
	group.Go(func() error { return ctl.Serve(ctx, n, n.log) })
	if users != nil {
		group.Go(func() error {
			// Users are told who the members are, which a newcomer has to find out.
			select {
			case <-n.ready:
			case <-ctx.Done():
				return users.Close()
			}
			return n.gate.Serve(ctx, users)
		})
	}
	return nil
}

const nonceBlob = "nonces"

// saveNonces writes down the nonce table that ledger seq expects to find; last is
// the ledger of the table written before this one.
func (n *node) saveNonces(t *inputs.Nonces, seq, last uint64) {
	data := t.Encode()
	hash := t.Hash()
	n.spawn(func(ctx context.Context) {
		if err := n.store.PutBlob(ctx, nonceBlob, seq, append(hash[:], data...)); err != nil {
			if ctx.Err() == nil {
				n.log.Error("the nonce table could not be saved", "ledger", seq, "err", err)
			}
			return
		}
		// Should the newest be damaged, the one before has to do.
		n.content.beginsAt(last)
	})
}

// loadNonces reads the newest nonce table that was written down and the ledger
// that it belongs before; without one, the empty table before ledger 1.
func (n *node) loadNonces() (*inputs.Nonces, uint64, error) {
	seqs, err := n.store.Blobs(nonceBlob)
	if err != nil {
		return nil, 0, fmt.Errorf("read the nonce table: %w", err)
	}
	for _, seq := range slices.Backward(seqs) {
		b, err := n.store.Blob(nonceBlob, seq)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(b) < digest.Size {
			err = errors.New("file is cut short")
		}
		var t *inputs.Nonces
		if err == nil {
			t, err = inputs.DecodeNonces(b[digest.Size:], digest.Hash(b[:digest.Size]))
		}
		if err != nil {
			n.log.Warn("a saved nonce table cannot be used", "ledger", seq, "err", err)
			continue
		}
		return t, seq, nil
	}
	return inputs.NewNonces(), 1, nil
}

// replay gives the executor the ledgers from the given one to the last again:
// it finds out by itself from where on the state lacks them.
func (n *node) replay(conf *config.Config, from uint64, last *consensus.Header) error {
	confs := map[digest.Hash]*config.Config{}
	if first, ok := n.store.First(); ok {
		from = max(from, first)
	}
	for r, err := range n.store.Ledgers(from, last.Height) {
		if err != nil {
			return fmt.Errorf("read ledgers: %w", err)
		}
		h, cert, err := consensus.DecodeLedger(r.Body)
		if err != nil {
			return fmt.Errorf("ledger %d: %w", r.Seq, err)
		}
		if h.Outcome == consensus.Pending {
			continue
		}
		c := confs[h.Result.Patch]
		if c == nil {
			c = conf
			if b := n.patches.get(h.Result.Patch); b != nil {
				if p, err := config.ParsePatch(b); err == nil {
					c = conf.Apply(p)
				}
			}
			confs[h.Result.Patch] = c
		}
		n.exec.push(task{Close: consensus.Close{Header: h, Hash: r.Hash, Certificate: cert}, conf: c, replay: true})
	}
	return nil
}
