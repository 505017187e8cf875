package hotpocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"evernode/hotpocket/control"
)

// counts are what a node counts since its start, beside what its parts count
// themselves.
type counts struct {
	accepted   atomic.Uint64 // inputs of its users
	rejected   atomic.Uint64
	runs       atomic.Uint64 // of the contract, read requests excluded
	syncs      atomic.Uint64 // of the state, that succeeded
	syncBytes  atomic.Uint64 // fetched for it
	syncFailed atomic.Uint64
	changes    atomic.Uint64 // of the agreed configuration
	leftOut    atomic.Uint64 // ledgers between which this node has leapt
}

// synced counts a sync of the state that has ended with what was last known of
// its progress.
func (c *counts) synced(p *control.Sync, err error) {
	if p != nil {
		c.syncBytes.Add(p.Done)
	}
	if err != nil {
		c.syncFailed.Add(1)
		return
	}
	c.syncs.Add(1)
}

// metricsTimeout bounds how long a scrape may take.
const metricsTimeout = 5 * time.Second

// listenMetrics opens the address at which counters are served. Only addresses
// of this machine itself are taken: what a node counts says a lot about its users,
// and nobody is asked who he is.
func listenMetrics(ctx context.Context, address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address for metrics %q: want host:port, as 127.0.0.1:9090", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("address for metrics %q: only addresses of this machine itself are possible, as 127.0.0.1:%s", address, port)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("address for metrics: %w", err)
	}
	return l, nil
}

// serveMetrics answers GET /metrics with what write writes, until ctx ends.
func serveMetrics(ctx context.Context, l net.Listener, write func(*bytes.Buffer), log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		write(&b)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		if _, err := w.Write(b.Bytes()); err != nil {
			log.Debug("metrics not delivered", "err", err)
		}
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: metricsTimeout,
		WriteTimeout:      metricsTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve metrics: %w", err)
	case <-ctx.Done():
	}
	err := server.Close()
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// exposition writes metrics in the text form of Prometheus, version 0.0.4.
type exposition struct{ b *bytes.Buffer }

func (x exposition) head(name, kind, help string) {
	fmt.Fprintf(x.b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (x exposition) counter(name, help string, v uint64) {
	x.head(name, "counter", help)
	fmt.Fprintf(x.b, "%s %d\n", name, v)
}

func (x exposition) gauge(name, help string, v float64) {
	x.head(name, "gauge", help)
	fmt.Fprintf(x.b, "%s %s\n", name, strconv.FormatFloat(v, 'f', -1, 64))
}

func (x exposition) flag(name, help string, v bool) {
	f := 0.0
	if v {
		f = 1
	}
	x.gauge(name, help, f)
}

// writeMetrics writes what is known of this node. Names and meanings are listed
// in docs/joining.md.
func (n *node) writeMetrics(b *bytes.Buffer) {
	x := exposition{b}
	conf, last := n.conf.Load(), n.last.Load()
	x.head("evernode_info", "gauge", "What runs here; always 1.")
	fmt.Fprintf(b, "evernode_info{version=%q,contract=%q,public_key=%q} 1\n", n.opt.Version, conf.Contract.ID, n.key.Public())
	x.gauge("evernode_start_time_seconds", "When the node started, Unix time.", float64(n.startedAt.UnixMilli())/1000)

	x.gauge("evernode_ledger_height", "Number of the last closed ledger.", float64(last.seq))
	x.gauge("evernode_ledger_time_seconds", "Agreed time of the last closed ledger, Unix time.", float64(last.time)/1000)
	x.counter("evernode_ledgers_left_out_total", "Ledgers that the node has leapt over.", n.counts.leftOut.Load())
	x.head("evernode_vote_status", "gauge", "How the node stands to the others: 1 for the status that holds.")
	status := n.voteStatus()
	for _, s := range []string{voteUnknown, voteUnreliable, voteDesync, voteSynced} {
		v := 0
		if s == status {
			v = 1
		}
		fmt.Fprintf(b, "evernode_vote_status{status=%q} %d\n", s, v)
	}
	p := parameters(conf)
	x.gauge("evernode_unl_members", "Members of the UNL in force.", float64(len(p.Members)))
	x.gauge("evernode_unl_quorum", "How many members close a ledger.", float64(p.Quorum()))
	x.flag("evernode_unl_member", "Whether this node proposes and votes.", n.validates(conf))
	x.counter("evernode_config_changes_total", "Agreed configurations that were put in force.", n.counts.changes.Load())

	x.counter("evernode_contract_runs_total", "Runs of the contract for ledgers.", n.counts.runs.Load())
	x.flag("evernode_contract_running", "Whether the contract runs for a ledger now.", n.exec.running.Load())
	x.counter("evernode_runs_diverged_total", "Runs whose result here was not the agreed one.", n.exec.diverged.Load())
	x.counter("evernode_runs_failed_total", "Runs without an agreed result.", n.exec.failed.Load())
	x.gauge("evernode_runs_waiting", "Closed ledgers whose run waits here.", float64(n.exec.waiting()))

	x.counter("evernode_state_syncs_total", "Times that the agreed state was fetched.", n.counts.syncs.Load())
	x.counter("evernode_state_syncs_failed_total", "Times that it could not be.", n.counts.syncFailed.Load())
	x.counter("evernode_state_sync_bytes_total", "Bytes of state fetched from peers.", n.counts.syncBytes.Load())
	x.flag("evernode_state_syncing", "Whether the node is fetching something now.", n.syncing.Load() != nil)

	peers, members := 0, 0
	for _, p := range n.mesh.Peers() {
		if peers++; p.InUNL {
			members++
		}
	}
	x.gauge("evernode_peers", "Connected peers.", float64(peers))
	x.gauge("evernode_peers_in_unl", "Connected peers that are members.", float64(members))
	x.flag("evernode_weakly_connected", "Whether fewer than 70 % of the members are connected.", n.mesh.WeaklyConnected())

	users, _ := n.gate.Users()
	pending, bytes := n.content.pending()
	x.gauge("evernode_users", "Users connected to this node.", float64(len(users)))
	x.gauge("evernode_cluster_users", "Users connected to any node, by the last ledger.", float64(n.exec.users.Load()))
	x.counter("evernode_inputs_accepted_total", "Inputs of users of this node that ledgers accepted.", n.counts.accepted.Load())
	x.counter("evernode_inputs_rejected_total", "Inputs of users of this node that were rejected after they had been taken.", n.counts.rejected.Load())
	x.gauge("evernode_bundles_pending", "Bundles of inputs that wait for a ledger.", float64(pending))
	x.gauge("evernode_bundles_pending_bytes", "Their size.", float64(bytes))
	g := n.gate.Counters()
	x.counter("evernode_user_connections_total", "Connections of users accepted.", g.ConnectionsAccepted)
	x.counter("evernode_user_connections_refused_total", "Connections of users refused.", g.ConnectionsRefused)
	x.counter("evernode_user_messages_total", "Messages of verified users.", g.Messages)
	x.counter("evernode_user_messages_bad_total", "Messages of users that were malformed.", g.BadMessages)
	x.counter("evernode_reads_total", "Read requests taken.", g.Reads)
	x.counter("evernode_reads_failed_total", "Read requests for which the contract could not be run.", g.ReadsFailed)
}
