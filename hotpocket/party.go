package hotpocket

import (
	"fmt"
	"sync"
	"sync/atomic"

	"evernode/hotpocket/contract"
	"evernode/hotpocket/key"
	"evernode/hotpocket/mesh"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

const (
	// maxEarly bounds the NPL messages kept for a run that has not begun here.
	maxEarly      = 1024
	maxEarlyBytes = 8 << 20
	// maxSent bounds what is remembered of a run's own packets, should it have to
	// be repeated.
	maxSent = 64 << 10
	nplTag  = "evernode hotpocket node party line signature v1\xff"
)

// party is the node party line (NPL): messages among the contracts of the
// members that execute the same ledger (spec/hotpocket.md section 2.5).
type party struct {
	e   *executor
	seq atomic.Uint64

	mu      sync.Mutex
	run     digest.Hash // the ledger being executed
	exec    *contract.Execution
	ended   digest.Hash // the ledger executed before
	early   []nplMessage
	bytes   int
	heard   []nplMessage  // what has been delivered to the run; see end
	sent    []digest.Hash // what contracts of ledger sentFor have sent, in order
	sentFor digest.Hash
}

// nplMessage is a packet of one member's contract. Seq makes equal packets
// different, so that flooding does not take the second for a copy.
type nplMessage struct {
	author key.Public
	ledger digest.Hash
	seq    uint64
	packet []byte
	sig    key.Signature
}

func newParty(e *executor) *party { return &party{e: e} }

func (m *nplMessage) signed(contractID string) []byte {
	var seq [8]byte
	copy(seq[:], wire.AppendU64(nil, m.seq))
	d := digest.Tagged("npl", []byte(contractID), m.author[:], m.ledger[:], seq[:], m.packet)
	return append([]byte(nplTag), d[:]...)
}

func (m *nplMessage) encode() []byte {
	b := append([]byte(nil), m.author[:]...)
	b = append(b, m.ledger[:]...)
	b = wire.AppendU64(b, m.seq)
	b = wire.AppendBytes(b, m.packet)
	return append(b, m.sig[:]...)
}

func decodeNPL(b []byte) (m nplMessage, err error) {
	r := wire.NewReader(b)
	r.Fixed(m.author[:])
	r.Fixed(m.ledger[:])
	m.seq = r.U64()
	m.packet = r.View(contract.MaxNPLPacket)
	r.Fixed(m.sig[:])
	if err := r.Close(); err != nil {
		return nplMessage{}, fmt.Errorf("NPL message: %w", err)
	}
	return m, nil
}

// sender returns what a run sends NPL messages with: nothing for a node that is
// not a validating member. A run that is repeated does not send again what the
// one before has sent.
func (p *party) sender(t task) func([]byte) {
	n := p.e.n
	if !n.validates(t.conf) {
		return nil
	}
	scope := mesh.ScopeUNL
	if t.conf.Contract.NPL.Mode == "public" {
		scope = mesh.ScopeAll
	}
	at := 0
	return func(packet []byte) {
		if p.already(t.Hash, at, packet) {
			at++
			return
		}
		at++
		m := nplMessage{author: n.key.Public(), ledger: t.Hash, seq: p.seq.Add(1), packet: packet}
		m.sig = n.key.Sign(m.signed(t.conf.Contract.ID))
		n.mesh.Flood(m.author, kindNPL, m.encode(), scope)
	}
}

// already notes the packet that a run of a ledger sends, the at-th, and reports
// whether an earlier run of it has sent the same.
func (p *party) already(ledger digest.Hash, at int, packet []byte) bool {
	h := digest.Sum(packet)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sentFor != ledger {
		p.sentFor, p.sent = ledger, p.sent[:0]
	}
	if at < len(p.sent) && p.sent[at] == h {
		return true
	}
	if at <= len(p.sent) && at < maxSent {
		p.sent = append(p.sent[:at], h)
	}
	return false
}

// begin delivers to a run what came before it began.
func (p *party) begin(ledger digest.Hash, x *contract.Execution) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.run, p.exec, p.heard = ledger, x, nil
	early := p.early
	p.early, p.bytes = nil, 0
	for _, m := range early {
		if m.ledger == ledger {
			p.deliver(m)
		}
	}
}

// end takes a run from the line. One that has to be repeated hears again what it
// has heard.
func (p *party) end(ledger digest.Hash, final bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exec = nil
	if final {
		p.ended, p.heard = ledger, nil
		return
	}
	p.run, p.early, p.heard = digest.Hash{}, p.heard, nil
}

// receive takes a message that another node's contract sent. Its signature is
// good and its author a member.
func (p *party) receive(m nplMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.exec != nil && m.ledger == p.run:
		p.deliver(m)
	case m.ledger == p.ended || m.ledger == p.run:
	case len(p.early) < maxEarly && p.bytes+len(m.packet) <= maxEarlyBytes:
		p.early = append(p.early, m)
		p.bytes += len(m.packet)
	default:
		p.e.log.Debug("an early NPL message is dropped, too many are kept", "from", m.author.Short())
	}
}

func (p *party) deliver(m nplMessage) {
	if len(p.heard) < maxEarly && p.bytes+len(m.packet) <= maxEarlyBytes {
		p.heard = append(p.heard, m)
		p.bytes += len(m.packet)
	}
	if err := p.exec.DeliverNPL(m.author, m.packet); err != nil {
		p.e.log.Warn("malformed NPL packet", "from", m.author.Short(), "err", err)
	}
}
