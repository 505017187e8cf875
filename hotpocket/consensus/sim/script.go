package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/internal/digest"
)

// Play lives through a script: a cluster on a network without chance, in which
// every packet takes the same time and every fault is written down. It returns
// what went wrong, an expectation or anything that the checks of a simulation
// find, with the whole story.
//
// A script has one instruction per line; '#' begins a comment. Nodes are
// numbered from 1, lists of them are written 1,2,3 or *. The first line is
//
//	cluster nodes=4 threshold=66 round=1s per=10 latency=1ms observers=0 disk=0s run=0s leap=20
//
// where what is left out has the values shown. Lines like
//
//	change after=2 nodes=1,2,3 threshold=66
//
// may follow: configurations that the run after such a ledger results in.
// Then come, in any order:
//
//	start 1,2          start nodes (again); with a clean network they greet all
//	crash 3            crash nodes
//	liar 4 1,2 3       node 4 runs two cores, one speaks to 1 and 2, one to 3
//	run 100ms          let time pass
//	until 5 2s         let time pass until ledger 5 has closed everywhere, at most so long
//	input 1 a          node 1 gets bundle a and floods it
//	users 2 u          node 2 has the list of users u and floods it
//	drop vote 1 2,3 attempt=0 ledger=2    lose packets of a kind from nodes to nodes
//	pass               lose no more packets
//	cut 1,2 3,4        lose everything between two groups
//	delay 4 1,2 40ms   packets between these take so long
//	slow 3 10          node 3 executes ten times as slowly
//	stuck 3            runs of node 3 do not end from now on
//	wrong 3            results of node 3 are wrong from now on
//	sound 3            neither, any more
//	differ on|off      results differ everywhere
//	mark               count messages, ledgers and time from here
//
// and what is expected:
//
//	expect ledger 3            the last closed ledger (of nodes: "at 1,2")
//	expect attempt 1           the current attempt (of nodes: "at 1,2")
//	expect closed 3 attempt=1 outcome=agreed bundles=a,b users=u expected=1,2 contested=1
//	expect sent proposals=4 votes=4 commits=4 candidates=0
//	expect vote 3 2/1 none     how node 3 voted in attempt 1 of ledger 2: none, nothing, or a ledger
//	expect passed 10..12       ledgers closed since the mark
//	expect took 3 0..10ms      time from the mark until ledger 3 closed somewhere
//	expect blamed 4            somebody has noted a fault of node 4
//
// Kinds of packets are proposal, vote, commit, candidate, ledger, bundle, users,
// request, answer and all.
func Play(text string) (Report, *Failure) {
	s := &script{names: make(map[string]digest.Hash)}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		err := s.do(fields)
		if err == nil && s.w != nil {
			err = s.w.err
		}
		if err != nil {
			f := &Failure{Err: fmt.Errorf("line %d, %q: %w", i+1, strings.TrimSpace(line), err)}
			if s.w != nil {
				f.Plan, f.Story = s.w.cfg.String(), s.w.story
			}
			return Report{}, f
		}
	}
	return s.w.report, nil
}

type script struct {
	cfg     Config
	latency time.Duration
	w       *World
	names   map[string]digest.Hash
	drops   []drop
	mark    time.Duration
	height  uint64
	counted Report
}

// drop is a kind of packet that is lost.
type drop struct {
	kind     string
	from, to []int
	attempt  int64
	ledger   int64
}

func (s *script) do(f []string) error {
	switch f[0] {
	case "cluster":
		return s.cluster(f[1:])
	case "change":
		return s.change(f[1:])
	}
	if s.w == nil {
		s.begin()
	}
	w := s.w
	w.tell("> %s", strings.Join(f, " "))
	switch f[0] {
	case "start":
		return s.each(f, 2, func(n *node) error { w.revive(n, Misfortune{}); return nil })
	case "crash":
		return s.each(f, 2, func(n *node) error { n.crash(); return nil })
	case "stuck":
		return s.each(f, 2, func(n *node) error { n.stuck = 1; return nil })
	case "wrong":
		return s.each(f, 2, func(n *node) error { n.wrong = 1; return nil })
	case "sound":
		return s.each(f, 2, func(n *node) error { n.stuck, n.wrong = 0, 0; return nil })
	case "slow":
		return s.each(f, 3, func(n *node) error {
			x, err := strconv.ParseFloat(f[2], 64)
			n.slow = x
			return err
		})
	case "liar":
		return s.each(f, 4, func(n *node) error { return s.liar(n, f[2], f[3]) })
	case "run":
		d, err := duration(f, 1)
		w.runUntil(w.now+d, nil)
		return err
	case "until":
		return s.until(f)
	case "input", "users":
		return s.each(f, 3, func(n *node) error { return s.take(n, f[0], f[2]) })
	case "drop":
		return s.drop(f)
	case "pass":
		s.drops = nil
		w.net.heal()
		return nil
	case "cut":
		return s.cut(f)
	case "delay":
		return s.delay(f)
	case "differ":
		w.cfg.Differ = 0
		if len(f) > 1 && f[1] == "on" {
			w.cfg.Differ = 1
		}
		return nil
	case "mark":
		s.mark, s.height, s.counted = w.now, w.report.Height, w.report
		return nil
	case "expect":
		return s.expect(f[1:])
	}
	return fmt.Errorf("unknown instruction %q", f[0])
}

// options reads name=value pairs.
func options(fields []string, set func(name, value string) error) error {
	for _, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			return fmt.Errorf("%q is not of the form name=value", f)
		}
		if err := set(name, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func duration(f []string, i int) (time.Duration, error) {
	if len(f) <= i {
		return 0, fmt.Errorf("a duration is missing")
	}
	return time.ParseDuration(f[i])
}

func (s *script) cluster(f []string) error {
	s.cfg = Config{Members: 4, Threshold: 66, Round: time.Second, PerRound: 10, Leap: 20}
	s.latency = time.Millisecond
	return options(f, func(name, value string) (err error) {
		number := func(to *int) { *to, err = strconv.Atoi(value) }
		span := func(to *time.Duration) { *to, err = time.ParseDuration(value) }
		switch name {
		case "nodes":
			number(&s.cfg.Members)
		case "observers":
			number(&s.cfg.Observers)
		case "threshold":
			number(&s.cfg.Threshold)
		case "per":
			number(&s.cfg.PerRound)
		case "leap":
			number(&s.cfg.Leap)
		case "round":
			span(&s.cfg.Round)
		case "latency":
			span(&s.latency)
		case "disk":
			span(&s.cfg.Disk)
		case "run":
			span(&s.cfg.RunTime)
		default:
			return fmt.Errorf("unknown option")
		}
		return err
	})
}

func (s *script) change(f []string) error {
	var c Change
	err := options(f, func(name, value string) (err error) {
		switch name {
		case "after":
			c.Height, err = strconv.ParseUint(value, 10, 64)
		case "nodes":
			c.Members, err = s.places(value)
		case "threshold":
			c.Threshold, err = strconv.Atoi(value)
		default:
			return fmt.Errorf("unknown option")
		}
		return err
	})
	s.cfg.Changes = append(s.cfg.Changes, c)
	return err
}

func (s *script) begin() {
	s.w = newWorld(s.cfg)
	s.w.tracing = true
	s.w.net.rule = s.passes
	for i := range s.w.net.base {
		for j := range s.w.net.base[i] {
			s.w.net.base[i][j] = s.latency
		}
	}
}

// places reads a list of nodes.
func (s *script) places(list string) ([]int, error) {
	var out []int
	for _, x := range strings.Split(list, ",") {
		if x == "*" {
			for i := range s.cfg.Members + s.cfg.Observers {
				out = append(out, i)
			}
			continue
		}
		i, err := strconv.Atoi(x)
		if err != nil || i < 1 || i > s.cfg.Members+s.cfg.Observers {
			return nil, fmt.Errorf("no node %q", x)
		}
		out = append(out, i-1)
	}
	return out, nil
}

// each does something with each of the nodes in the second field.
func (s *script) each(f []string, fields int, do func(*node) error) error {
	if len(f) != fields {
		return fmt.Errorf("%d words, want %d", len(f), fields)
	}
	places, err := s.places(f[1])
	if err != nil {
		return err
	}
	for _, i := range places {
		if err := do(s.w.nodes[i]); err != nil {
			return err
		}
	}
	return nil
}

// liar makes a node one that says one thing to some and another to others.
func (s *script) liar(n *node, one, other string) error {
	a, err := s.places(one)
	if err != nil {
		return err
	}
	b, err := s.places(other)
	if err != nil {
		return err
	}
	s.w.split(n, a, b)
	return nil
}

func (s *script) take(n *node, kind, name string) error {
	h, known := s.names[name]
	if !known {
		h = digest.Tagged("script", []byte(name))
		s.names[name] = h
	}
	if !n.up {
		return fmt.Errorf("%v is not up", n)
	}
	if kind == "users" {
		n.presence = h
	}
	n.take(h, kind == "input")
	return nil
}

func (s *script) until(f []string) error {
	limit, err := duration(f, 2)
	if err != nil {
		return err
	}
	height, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return err
	}
	done := s.w.runUntil(s.w.now+limit, func() bool {
		return !slices.ContainsFunc(s.w.nodes, func(n *node) bool { return n.up && n.honest() && n.lastHeight() < height })
	})
	if !done && s.w.err == nil {
		return fmt.Errorf("ledger %d has not closed everywhere within %v: %s", height, limit, s.where())
	}
	return nil
}

func (n *node) lastHeight() uint64 {
	last, _ := n.core.Last()
	return last.Header.Height
}

func (s *script) where() string {
	var out []string
	for _, n := range s.w.nodes {
		if n.up {
			out = append(out, fmt.Sprintf("%v has ledger %d and is in attempt %d", n, n.lastHeight(), n.core.Attempt()))
		}
	}
	return strings.Join(out, ", ")
}

func (s *script) cut(f []string) error {
	if len(f) != 3 {
		return fmt.Errorf("%d words, want 3", len(f))
	}
	for _, pair := range [][2]string{{f[1], f[2]}, {f[2], f[1]}} {
		if err := s.drop([]string{"drop", "all", pair[0], pair[1]}); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) delay(f []string) error {
	d, err := duration(f, 3)
	if err != nil {
		return err
	}
	from, err := s.places(f[1])
	if err != nil {
		return err
	}
	to, err := s.places(f[2])
	if err != nil {
		return err
	}
	for _, i := range from {
		for _, j := range to {
			s.w.net.base[i][j], s.w.net.base[j][i] = d, d
		}
	}
	return nil
}

func (s *script) drop(f []string) (err error) {
	if len(f) < 4 {
		return fmt.Errorf("%d words, want at least 4", len(f))
	}
	d := drop{kind: f[1], attempt: -1, ledger: -1}
	if d.from, err = s.places(f[2]); err != nil {
		return err
	}
	if d.to, err = s.places(f[3]); err != nil {
		return err
	}
	err = options(f[4:], func(name, value string) (err error) {
		switch name {
		case "attempt":
			d.attempt, err = strconv.ParseInt(value, 10, 64)
		case "ledger":
			d.ledger, err = strconv.ParseInt(value, 10, 64)
		default:
			return fmt.Errorf("unknown option")
		}
		return err
	})
	s.drops = append(s.drops, d)
	return err
}

// passes reports whether no drop loses a packet.
func (s *script) passes(from, to *node, p *packet) bool {
	kind, height, attempt := p.kind()
	return !slices.ContainsFunc(s.drops, func(d drop) bool {
		return (d.kind == kind || d.kind == "all") &&
			slices.Contains(d.from, from.place) && slices.Contains(d.to, to.place) &&
			(d.attempt < 0 || d.attempt == attempt) && (d.ledger < 0 || d.ledger == height)
	})
}

func (p *packet) kind() (kind string, height, attempt int64) {
	switch m := p.message.(type) {
	case *consensus.Proposal:
		return "proposal", int64(m.Height), int64(m.Attempt)
	case *consensus.Ballot:
		if m.Phase == consensus.Commit {
			return "commit", int64(m.Height), int64(m.Attempt)
		}
		return "vote", int64(m.Height), int64(m.Attempt)
	case *consensus.Candidate:
		return "candidate", int64(m.Height), int64(m.Attempt)
	case *consensus.Ledger:
		return "ledger", int64(m.Header.Height), 0
	}
	switch {
	case p.isWant || p.fetch > 0:
		return "request", 0, 0
	case p.header != nil || p.ledgers != nil:
		return "answer", 0, 0
	case p.bundle:
		return "bundle", 0, 0
	}
	return "users", 0, 0
}

func (s *script) expect(f []string) error {
	if len(f) < 2 {
		return fmt.Errorf("expect what?")
	}
	switch f[0] {
	case "ledger":
		return s.expectAt(f, func(n *node) uint64 { return n.lastHeight() })
	case "attempt":
		return s.expectAt(f, func(n *node) uint64 { return uint64(n.core.Attempt()) })
	case "closed":
		return s.expectClosed(f)
	case "sent":
		return s.expectSent(f[1:])
	case "vote":
		return s.expectVote(f)
	case "passed":
		return within(f[1], int(s.w.report.Height-s.height), strconv.Atoi)
	case "took":
		return s.expectTook(f)
	case "blamed":
		places, err := s.places(f[1])
		for _, i := range places {
			if s.w.report.Faults[i] == 0 {
				return fmt.Errorf("nobody blames node %d", i+1)
			}
		}
		return err
	}
	return fmt.Errorf("unknown expectation %q", f[0])
}

func (s *script) expectAt(f []string, get func(*node) uint64) error {
	want, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return err
	}
	nodes := slices.DeleteFunc(slices.Clone(s.w.nodes), func(n *node) bool { return !n.up || !n.honest() })
	if len(f) == 4 && f[2] == "at" {
		places, err := s.places(f[3])
		if err != nil {
			return err
		}
		nodes = slices.DeleteFunc(nodes, func(n *node) bool { return !slices.Contains(places, n.place) })
	}
	if len(nodes) == 0 {
		return fmt.Errorf("no such node is up")
	}
	for _, n := range nodes {
		if got := get(n); got != want {
			return fmt.Errorf("%v has %d, want %d (%s)", n, got, want, s.where())
		}
	}
	return nil
}

func (s *script) expectClosed(f []string) error {
	height, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return err
	}
	c := s.w.check.ledger(height)
	if c == nil {
		return fmt.Errorf("ledger %d has not closed", height)
	}
	return options(f[2:], func(name, value string) error {
		var got string
		switch name {
		case "attempt":
			got = strconv.Itoa(int(c.Certificate.Attempt))
		case "outcome":
			got = c.Header.Outcome.String()
		case "contested":
			got = strconv.Itoa(int(c.Header.Contested))
		case "expected":
			got = s.listed(c.Header.Expected)
		case "bundles":
			got = s.named(c.Header.Bundles)
		case "users":
			got = s.named(c.Header.Presences)
		default:
			return fmt.Errorf("unknown option")
		}
		if got != value {
			return fmt.Errorf("ledger %d has %s, want %s", height, got, value)
		}
		return nil
	})
}

func (s *script) listed(b consensus.Bits) string {
	var out []string
	for i := range consensus.MaxMembers {
		if b.Has(i) {
			out = append(out, strconv.Itoa(i+1))
		}
	}
	return strings.Join(out, ",")
}

func (s *script) named(hs []digest.Hash) string {
	var out []string
	for name, h := range s.names {
		if slices.Contains(hs, h) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ",")
}

func (s *script) expectSent(f []string) error {
	return options(f, func(name, value string) error {
		now, then := s.w.report, s.counted
		var got int
		switch name {
		case "proposals":
			got = now.Proposals - then.Proposals
		case "votes":
			got = now.Votes - then.Votes
		case "commits":
			got = now.Commits - then.Commits
		case "candidates":
			got = now.Offers - then.Offers
		case "repeats":
			got = now.Repeats - then.Repeats
		default:
			return fmt.Errorf("unknown option")
		}
		return within(value, got, strconv.Atoi)
	})
}

func (s *script) expectVote(f []string) error {
	if len(f) != 4 {
		return fmt.Errorf("want a node, ledger/attempt and a vote")
	}
	places, err := s.places(f[1])
	if err != nil {
		return err
	}
	var height uint64
	var attempt uint32
	if _, err := fmt.Sscanf(f[2], "%d/%d", &height, &attempt); err != nil {
		return err
	}
	for _, i := range places {
		hash, voted := s.w.check.said[statement{i, 'v', height, attempt}]
		got := "none"
		if voted && hash.IsZero() {
			got = "nothing"
		} else if voted {
			got = "ledger"
		}
		if got != f[3] {
			return fmt.Errorf("node %d voted for %s", i+1, got)
		}
	}
	return nil
}

func (s *script) expectTook(f []string) error {
	height, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil || len(f) != 3 {
		return fmt.Errorf("want a ledger and a duration")
	}
	at, closed := s.w.check.times[height]
	if !closed {
		return fmt.Errorf("ledger %d has not closed", height)
	}
	return within(f[2], at-s.mark, time.ParseDuration)
}

// within checks a value against a range a..b, or one value.
func within[T int | time.Duration](span string, got T, parse func(string) (T, error)) error {
	lo, hi, ok := strings.Cut(span, "..")
	if !ok {
		hi = lo
	}
	low, err := parse(lo)
	if err != nil {
		return err
	}
	high, err := parse(hi)
	if err != nil {
		return err
	}
	if got < low || got > high {
		return fmt.Errorf("is %v, want %s", got, span)
	}
	return nil
}
