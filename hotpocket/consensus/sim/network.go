package sim

import (
	"fmt"
	"math"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/internal/digest"
)

// network decides when, how often and whether a packet arrives.
type network struct {
	base    [][]time.Duration // least delay from node to node
	jitter  time.Duration     // mean of what is added to it
	loss    float64
	twice   float64 // probability that a packet arrives once more
	blocked [][]bool
	// rule, when set, has the last word on a packet.
	rule func(from, to *node, p *packet) bool
}

func newNetwork(n int) *network {
	net := &network{base: make([][]time.Duration, n), blocked: make([][]bool, n)}
	for i := range n {
		net.base[i] = make([]time.Duration, n)
		net.blocked[i] = make([]bool, n)
		for j := range n {
			net.base[i][j] = time.Millisecond
		}
	}
	return net
}

// packet is what travels: a consensus message or one of the requests and
// answers that a node's edge adds. It is shared by all who get it and never
// changed.
type packet struct {
	message consensus.Message

	content digest.Hash // a bundle or list of users that comes along
	bundle  bool        // content is a bundle
	want    digest.Hash // asks for content, or with header for a candidate
	header  *consensus.Header
	isWant  bool
	fetch   uint64 // asks for closed ledgers from this height on
	ledgers []*consensus.Ledger

	checked, genuine bool // whether the message's signature has been looked at
}

func (p *packet) String() string {
	switch {
	case p.message != nil:
		return describe(p.message)
	case p.isWant && p.header != nil:
		return "candidate wanted " + p.want.Short()
	case p.isWant:
		return "content wanted " + p.want.Short()
	case p.header != nil:
		return "candidate given"
	case p.fetch > 0:
		return fmt.Sprintf("ledgers wanted from %d", p.fetch)
	case p.ledgers != nil:
		return fmt.Sprintf("%d ledgers given", len(p.ledgers))
	case p.bundle:
		return "bundle " + p.content.Short()
	}
	return "presence " + p.content.Short()
}

func describe(m consensus.Message) string {
	switch m := m.(type) {
	case *consensus.Proposal:
		ran := ""
		if m.Ran {
			ran = " ran " + m.Result.State.Short()
		}
		return fmt.Sprintf("proposal %d/%d%s, %d bundles", m.Height, m.Attempt, ran, len(m.Bundles))
	case *consensus.Ballot:
		if m.Phase == consensus.Commit {
			return fmt.Sprintf("commit %d/%d %s", m.Height, m.Attempt, m.Hash.Short())
		}
		return fmt.Sprintf("vote %d/%d %s", m.Height, m.Attempt, m.Hash.Short())
	case *consensus.Candidate:
		h := m.Header.Hash()
		return fmt.Sprintf("candidate %d/%d %s of %d proposals, %d votes", m.Height, m.Attempt, h.Short(), len(m.Proposals), len(m.Votes))
	case *consensus.Ledger:
		return fmt.Sprintf("ledger %d", m.Header.Height)
	}
	return fmt.Sprintf("%T", m)
}

// send puts a packet on its way.
func (w *World) send(from, to *node, p *packet) {
	if from.place == to.place {
		return
	}
	w.report.Packets++
	net := w.net
	if net.rule != nil && !net.rule(from, to, p) {
		w.tell("%v: %v to %v is dropped", from, p, to)
		return
	}
	if net.blocked[from.place][to.place] || net.loss > 0 && w.rng.Float64() < net.loss {
		if w.tracing {
			w.tell("%v: %v to %v is lost", from, p, to)
		}
		return
	}
	w.after(w.delay(from, to), func() { w.arrive(from, to, p) })
	if net.twice > 0 && w.rng.Float64() < net.twice {
		w.after(w.delay(from, to), func() { w.arrive(from, to, p) })
	}
}

func (w *World) delay(from, to *node) time.Duration {
	d := w.net.base[from.place][to.place]
	if w.net.jitter > 0 {
		d += time.Duration(-math.Log(1-w.rng.Float64()) * float64(w.net.jitter))
	}
	return d
}

// partition lets packets pass only among the places of one group.
func (net *network) partition(group []int) {
	for i := range group {
		for j := range group {
			net.blocked[i][j] = group[i] != group[j]
		}
	}
}

func (net *network) heal() {
	for i := range net.blocked {
		clear(net.blocked[i])
	}
	net.loss, net.twice = 0, 0
}
