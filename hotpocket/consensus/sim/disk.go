package sim

import (
	"time"

	"evernode/hotpocket/consensus"
	"evernode/internal/digest"
)

// write is something on its way to a disk: one of a record, a closed ledger or
// a piece of content.
type write struct {
	record  []byte
	ledger  *consensus.Ledger
	content digest.Hash
	bundle  bool
}

// disk makes writes durable in their order, as many as have gathered at a time.
// A crash loses an arbitrary tail of those that were not durable yet.
type disk struct {
	latency time.Duration // greatest time that making writes durable takes
	pending []write
	busy    bool
	written uint64 // how many writes were ever given
	durable uint64 // how many of them would survive a crash

	records [][]byte // since the last ledger
	ledgers []*consensus.Ledger
	content map[digest.Hash]bool // true for bundles
	used    bool                 // something was ever made durable
}

// persist makes writes durable. Only now has a ledger closed as far as anybody
// else may know: without its own commit's lock on disk a node could forget both.
func (n *node) persist(ws []write) {
	d := &n.disk
	for _, x := range ws {
		d.used = true
		switch {
		case x.record != nil:
			d.records = append(d.records, x.record)
		case x.ledger != nil:
			d.ledgers = append(d.ledgers, x.ledger)
			d.records = nil
			n.w.check.closed(n, x.ledger)
		default:
			d.content[x.content] = x.bundle
		}
	}
	d.durable += uint64(len(ws))
}

// write hands something to the node's disk.
func (n *node) write(x write) {
	d := &n.disk
	d.pending = append(d.pending, x)
	d.written++
	n.flush()
}

// flush starts making durable what waits, unless the disk is busy with what
// came before.
func (n *node) flush() {
	d := &n.disk
	if d.busy || len(d.pending) == 0 {
		return
	}
	if d.latency == 0 {
		n.persist(d.pending)
		d.pending = nil
		return
	}
	d.busy = true
	count, life := len(d.pending), n.life
	n.w.after(time.Duration(n.w.rng.Int64N(int64(d.latency))+1), func() {
		if n.life != life {
			return
		}
		d.busy = false
		n.persist(d.pending[:count])
		d.pending = d.pending[count:]
		n.transmit()
		n.flush()
	})
}

// lose is what a crash does to a disk.
func (n *node) lose(survive int) {
	d := &n.disk
	n.persist(d.pending[:survive])
	d.pending, d.busy = nil, false
	d.written = d.durable
}
