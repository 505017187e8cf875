package sim

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// Config describes a simulated cluster. Times are virtual.
type Config struct {
	Seed      uint64
	Members   int
	Observers int
	Threshold int
	Round     time.Duration
	PerRound  int
	// Liars are how many members are Byzantine.
	Liars int
	// Disk is the longest that making something durable takes.
	Disk time.Duration
	// Pause is the longest between a closed ledger and the next height.
	Pause time.Duration
	// RunTime is the mean time of an execution, SyncTime what a node needs to
	// fetch a state.
	RunTime, SyncTime time.Duration
	// Leap is from how many missed ledgers on a node leaves them out.
	Leap int
	// Differ is how often a run has a different result everywhere.
	Differ float64
	// Changes are the configurations that follow the first one.
	Changes []Change
	// Wire sends every message through its encoding, RealKeys signs with
	// Ed25519.
	Wire, RealKeys bool
	// CheckAll lets every receiver check a signature that the simulation
	// otherwise checks once.
	CheckAll bool
}

// Change is a configuration that the run after a ledger of at least that height
// results in.
type Change struct {
	Height    uint64
	Members   []int // places
	Threshold int
}

// Report is what a simulation has seen.
type Report struct {
	Height    uint64        // the highest ledger closed
	Time      time.Duration // virtual
	Events    int
	Packets   int
	Ticks     int
	Proposals int // messages sent by honest nodes, repeats left out
	Votes     int
	Commits   int
	Offers    int // candidates
	Repeats   int
	Attempts  map[uint32]int // ledgers by the attempt that closed them
	Outcomes  map[consensus.Outcome]int
	Faults    map[int]int   // fault notices by the place of the accused
	Recovery  time.Duration // from the healing of the network to progress everywhere
}

// World is a simulated cluster.
type World struct {
	cfg      Config
	rng      *rand.Rand
	now      time.Duration
	epoch    time.Duration // wall clock at the beginning
	seq      uint64
	events   queue
	nodes    []*node
	byKey    map[key.Public]*node
	net      *network
	verifier consensus.Verifier
	chainID  digest.Hash
	genesis  consensus.Result
	params   []consensus.Params // by configuration
	patches  map[digest.Hash]int
	check    *checker
	report   Report
	err      error

	tracing bool
	story   []string
}

// maxEvents is far above what any simulation of up to ten members needs.
const maxEvents = 400_000

// newWorld makes a cluster whose nodes are not started.
func newWorld(cfg Config) *World {
	w := &World{
		cfg:     cfg,
		rng:     rand.New(rand.NewPCG(cfg.Seed, 0x5eed)),
		epoch:   1_700_000_000 * time.Second,
		byKey:   make(map[key.Public]*node),
		net:     newNetwork(cfg.Members + cfg.Observers),
		patches: make(map[digest.Hash]int),
		report: Report{
			Attempts: make(map[uint32]int),
			Outcomes: make(map[consensus.Outcome]int),
			Faults:   make(map[int]int),
		},
	}
	w.check = newChecker(w)
	w.chainID = consensus.ChainOf(fmt.Sprint("contract ", cfg.Seed))
	w.verifier = fakeVerifier{}
	if cfg.RealKeys {
		w.verifier = key.NewCache(consensus.MaxMembers)
	}
	ids := make([]identity, cfg.Members+cfg.Observers)
	for i := range ids {
		ids[i] = w.newIdentity()
	}
	// In the order of keys, so that node i is also member i.
	slices.SortFunc(ids, func(a, b identity) int { return a.public.Compare(b.public) })
	for i, id := range ids {
		n := &node{w: w, place: i, id: id, slow: 1}
		n.disk = disk{latency: cfg.Disk, content: make(map[digest.Hash]bool)}
		w.nodes = append(w.nodes, n)
		w.byKey[id.public] = n
	}
	first := Change{Threshold: cfg.Threshold}
	for i := range cfg.Members {
		first.Members = append(first.Members, i)
	}
	for i, c := range append([]Change{first}, cfg.Changes...) {
		p := consensus.Params{Chain: w.chainID, Threshold: c.Threshold, RoundTime: cfg.Round, PerRound: cfg.PerRound}
		for _, place := range c.Members {
			p.Members = append(p.Members, ids[place].public)
		}
		slices.SortFunc(p.Members, key.Public.Compare)
		w.params = append(w.params, p)
		w.patches[mixed("patch", w.chainID, uint64(i))] = i
	}
	w.genesis = consensus.Result{State: mixed("genesis", w.chainID, 0), Patch: mixed("patch", w.chainID, 0)}
	return w
}

// at schedules an event.
func (w *World) at(t time.Duration, do func()) {
	w.seq++
	w.events.push(event{t, w.seq, do})
}

func (w *World) after(d time.Duration, do func()) { w.at(w.now+d, do) }

// runUntil lets events happen until a moment, or until done says so.
func (w *World) runUntil(t time.Duration, done func() bool) bool {
	for w.err == nil {
		if done != nil && done() {
			return true
		}
		if len(w.events) == 0 || w.events[0].at > t {
			break
		}
		e := w.events.pop()
		if w.report.Events++; w.report.Events > maxEvents*max(1, w.cfg.Members/10) {
			w.fail("%d events and no end", w.report.Events)
			return false
		}
		w.now = e.at
		e.do()
	}
	if w.err == nil {
		w.now = t
	}
	return false
}

// arrive hands a packet to the node it was sent to. As in a real node, what has
// a wrong signature does not reach the core.
func (w *World) arrive(from, to *node, p *packet) {
	if p.message != nil && (!p.checked || w.cfg.CheckAll) {
		p.checked = true
		p.genuine = consensus.VerifySignature(w.verifier, w.chainID, p.message) == nil
	}
	if p.message != nil && !p.genuine {
		return
	}
	if w.tracing {
		w.tell("%v gets %v from %v", to, p, from)
	}
	to.receive(from, p)
	if to.twin != nil {
		to.twin.receive(from, p)
	}
}

// greet lets two nodes that have just connected tell each other where they are.
func (w *World) greet(a, b *node) {
	for _, pair := range [][2]*node{{a, b}, {b, a}} {
		if pair[0].up && pair[1].up && pair[0].liar == nil {
			pair[0].greet(pair[1])
		}
	}
}

// paramsAfter returns what is in force at the height after a ledger.
func (w *World) paramsAfter(h *consensus.Header) consensus.Params {
	return w.params[w.patches[h.Result.Patch]]
}

// paramsOf returns what was in force at a ledger, if the one before has closed.
func (w *World) paramsOf(h *consensus.Header) (consensus.Params, bool) {
	if h.Height == 1 {
		return w.params[0], true
	}
	before := w.check.ledger(h.Height - 1)
	if before == nil || before.Hash != h.Prev {
		return consensus.Params{}, false
	}
	return w.paramsAfter(&before.Header), true
}

// resultOf is what every honest execution after a ledger results in.
func (w *World) resultOf(h *consensus.Header) consensus.Result {
	hash := h.Hash()
	r := consensus.Result{
		State:  mixed("state", h.Result.State, h.Height),
		Patch:  h.Result.Patch,
		Nonces: mixed("nonces", hash, h.Height),
	}
	if i := w.patches[h.Result.Patch]; i < len(w.cfg.Changes) && w.cfg.Changes[i].Height <= h.Height {
		r.Patch = mixed("patch", w.chainID, uint64(i+1))
	}
	if len(h.Bundles) > 0 {
		r.Output = mixed("output", hash, h.Height)
	}
	return r
}

// differs reports whether the run after a ledger is one that has a different
// result on every node.
func (w *World) differs(h *consensus.Header) bool {
	return w.cfg.Differ > 0 && float64(mixed("differs", w.chainID, h.Height)[0]) < 256*w.cfg.Differ
}

func (w *World) runTime(h *consensus.Header) time.Duration {
	if w.cfg.RunTime == 0 {
		return 0
	}
	return time.Duration(float64(w.cfg.RunTime) * float64(mixed("time", w.chainID, h.Height)[0]) / 128)
}

// consumedTo returns the bundles of all ledgers up to a height.
func (w *World) consumedTo(height uint64) map[digest.Hash]bool {
	all := make(map[digest.Hash]bool)
	for h := uint64(1); h <= height; h++ {
		for _, b := range w.check.ledger(h).Header.Bundles {
			all[b] = true
		}
	}
	return all
}

// count counts a message that an honest node sends.
func (w *World) count(s consensus.Send) {
	if s.Again {
		w.report.Repeats++
		return
	}
	switch m := s.Message.(type) {
	case *consensus.Proposal:
		w.report.Proposals++
	case *consensus.Candidate:
		w.report.Offers++
	case *consensus.Ballot:
		if m.Phase == consensus.Commit {
			w.report.Commits++
		} else {
			w.report.Votes++
		}
	}
}

func (w *World) notice(n *node, a consensus.Notice) {
	w.tell("%v notes: %s", n, a.Text)
	if !a.Fault || !n.honest() {
		return
	}
	who := w.byKey[a.Member]
	if who == nil {
		return
	}
	w.report.Faults[who.place]++
	if who.honest() {
		w.fail("%v accuses %v, which is honest: %s", n, who, a.Text)
	}
}

// tell adds a line to the story.
func (w *World) tell(format string, args ...any) {
	if w.tracing {
		w.story = append(w.story, fmt.Sprintf("%10.3fms  ", float64(w.now.Microseconds())/1000)+fmt.Sprintf(format, args...))
	}
}

// fail ends the simulation.
func (w *World) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
		w.tell("FAILED: %v", w.err)
	}
}

func sortedKeys(m map[digest.Hash]bool) []digest.Hash {
	return slices.SortedFunc(maps.Keys(m), func(a, b digest.Hash) int { return bytes.Compare(a[:], b[:]) })
}
