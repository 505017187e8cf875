package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"evernode/hotpocket"
)

// nodeCommand is the first argument with which this program runs a node.
const nodeCommand = "node"

// profileSocket is where such a node serves its profiles, in its folder's name.
func profileSocket(nodeDir string) string { return nodeDir + ".pprof" }

// runNode runs a node as `evernode node run` does, with all that it logs in
// JSON and with profiles over a Unix socket beside its folder.
func runNode(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	runtime.SetMutexProfileFraction(20)
	runtime.SetBlockProfileRate(20_000) // one sample per 20 µs blocked
	ln, err := net.Listen("unix", profileSocket(dir))
	if err != nil {
		log.Error("profiles", "err", err)
		return 1
	}
	defer ln.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	go http.Serve(ln, mux)
	if err := hotpocket.Run(ctx, dir, hotpocket.Options{Version: "bench", Log: log}); err != nil {
		log.Error("node failed", "err", err)
		return 1
	}
	return 0
}

// profiles fetches profiles of the first and the second node.
type profiles struct {
	dir   string
	nodes []*node
}

func newProfiles(dir string, c *cluster) (*profiles, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return &profiles{dir, c.nodes[:2]}, nil
}

// begin takes processor profiles until the returned function is called, and
// then those that add up over the whole run.
func (p *profiles) begin(ctx context.Context, name string) (stop func()) {
	if p == nil {
		return func() {}
	}
	var wg sync.WaitGroup
	cpu, cancel := context.WithCancel(ctx)
	for i, n := range p.nodes {
		wg.Go(func() {
			// Several short ones, since the length of a section is not known.
			for k := 1; cpu.Err() == nil; k++ {
				p.fetch(ctx, n, "profile?seconds=10", fmt.Sprintf("%s.node%d.cpu.%d", name, i+1, k))
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
		for i, n := range p.nodes {
			for _, kind := range []string{"mutex", "block", "heap", "allocs", "goroutine"} {
				p.fetch(ctx, n, kind, fmt.Sprintf("%s.node%d.%s", name, i+1, kind))
			}
		}
	}
}

// fetch saves one profile. What fails is only reported: a profile is no
// measurement.
func (p *profiles) fetch(ctx context.Context, n *node, what, file string) {
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", profileSocket(n.dir))
		},
	}}
	err := func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/debug/pprof/"+what, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		f, err := os.Create(filepath.Join(p.dir, file+".pprof"))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(f, resp.Body)
		return err
	}()
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "profile", file+":", err)
		// Do not ask again at once when the node is gone.
		time.Sleep(time.Second)
	}
}

// event is what a node logged about a ledger.
type event struct {
	Time    time.Time     `json:"time"`
	Msg     string        `json:"msg"`
	Seq     uint64        `json:"seq"`
	Ledger  uint64        `json:"ledger"`
	Elapsed time.Duration `json:"elapsed"`
	Attempt uint32        `json:"attempt"`
	Bundles int           `json:"bundles"`
}

// ledger is what a node logged about one ledger.
type ledger struct {
	closed, ran time.Time
	elapsed     time.Duration // of its run
	bundles     int
	attempt     uint32
}

// readLog reads what a node logged about its ledgers.
func readLog(path string) (map[uint64]*ledger, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all := map[uint64]*ledger{}
	at := func(seq uint64) *ledger {
		if all[seq] == nil {
			all[seq] = new(ledger)
		}
		return all[seq]
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // the contract's own words
		}
		switch e.Msg {
		case "ledger closed":
			l := at(e.Seq)
			l.closed, l.bundles, l.attempt = e.Time, e.Bundles, e.Attempt
		case "contract ran":
			l := at(e.Ledger)
			l.ran, l.elapsed = e.Time, e.Elapsed
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return all, nil
}

// stages says where the time of lone inputs went, from the logs of the nodes
// that they were sent to, and what ledgers were like under load.
func (b *bench) stages() error {
	logs := make([]map[uint64]*ledger, len(b.cluster.nodes))
	for i, n := range b.cluster.nodes {
		var err error
		if logs[i], err = readLog(n.dir + ".log"); err != nil {
			return err
		}
	}
	if len(b.loneDone) > 0 {
		b.loneStages(logs)
	}
	for _, r := range b.loadDone {
		loadStages(r, logs[0])
	}
	return nil
}

func (b *bench) loneStages(logs []map[uint64]*ledger) {
	var closed, status, begin, contract, slowest, confirm, deliver samples
	for _, in := range b.loneDone {
		l, next := logs[in.node][in.ledger], logs[in.node][in.ledger+1]
		if l == nil || next == nil || l.ran.IsZero() || next.closed.IsZero() {
			continue
		}
		last := l.ran
		for _, of := range logs {
			if o := of[in.ledger]; o != nil && o.ran.After(last) {
				last = o.ran
			}
		}
		closed = append(closed, l.closed.Sub(in.sent))
		status = append(status, in.accepted-l.closed.Sub(in.sent))
		begin = append(begin, l.ran.Add(-l.elapsed).Sub(l.closed))
		contract = append(contract, l.elapsed)
		slowest = append(slowest, last.Sub(l.ran))
		confirm = append(confirm, next.closed.Sub(last))
		deliver = append(deliver, in.output-next.closed.Sub(in.sent))
	}
	fmt.Printf("\nStages of %d lone inputs at the node that took them, p50 / p90 / p99 in ms\n", len(closed))
	printStages([]stage{
		{"sent -> its ledger closed", closed}, {"closed -> status at the client", status}, {"closed -> contract being set up", begin},
		{"contract set up -> ended", contract}, {"own contract ended -> the last node's", slowest},
		{"last contract ended -> next ledger closed", confirm}, {"closed -> output at the client", deliver},
	})
}

// loadStages describes the ledgers of one step of load.
func loadStages(r *outcome, log map[uint64]*ledger) {
	var seqs []uint64
	for seq, l := range log {
		if l.closed.After(r.began) && l.closed.Before(r.began.Add(r.elapsed)) {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	var between, run samples
	var again, withInputs, bundles, most int
	for i, seq := range seqs {
		l := log[seq]
		if i > 0 {
			between = append(between, l.closed.Sub(log[seqs[i-1]].closed))
		}
		if !l.ran.IsZero() {
			run = append(run, l.elapsed)
		}
		if l.attempt > 0 {
			again++
		}
		if l.bundles > 0 {
			withInputs++
		}
		bundles += l.bundles
		most = max(most, l.bundles)
	}
	fmt.Printf("\nLoad of %d inputs for %.1f s at node 1: %d ledgers, %d with inputs, %d after more than one attempt; %d bundles, at most %d in a ledger; p50 / p90 / p99 in ms\n",
		len(r.accepted), r.elapsed.Seconds(), len(seqs), withInputs, again, bundles, most)
	printStages([]stage{{"from ledger to ledger", between}, {"contract set up -> ended", run}})
}

type stage struct {
	name string
	of   samples
}

func printStages(all []stage) {
	for _, s := range all {
		fmt.Printf("  %-44s %6s %6s %6s\n", s.name, number(s.of.quantile(.5)), number(s.of.quantile(.9)), number(s.of.quantile(.99)))
	}
}
