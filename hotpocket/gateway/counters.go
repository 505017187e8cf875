package gateway

import "sync/atomic"

// counters count what happened since the start.
type counters struct {
	accepted, refused, acceptErrors   atomic.Uint64
	handshakes, failedHandshakes      atomic.Uint64
	messages, badMessages             atomic.Uint64
	reads, readsFailed, readsIgnored  atomic.Uint64
	slowReaders, overLimit, idleUsers atomic.Uint64
	writes, frames                    atomic.Uint64
}

// Counters tell what a gateway has done since its start.
type Counters struct {
	ConnectionsAccepted uint64
	ConnectionsRefused  uint64 // by caps on hosts and on the node
	AcceptErrors        uint64
	Handshakes          uint64 // completed
	HandshakesFailed    uint64
	Messages            uint64 // from verified users
	BadMessages         uint64
	Reads               uint64 // read requests taken
	ReadsFailed         uint64 // the contract could not be run, no reply
	ReadsIgnored        uint64 // read requests are disabled, no reply
	ClosedSlow          uint64 // connections closed because the user did not read
	ClosedOverLimit     uint64 // connections closed for bytes or bad messages
	ClosedIdle          uint64
	FramesSent          uint64
	Writes              uint64 // writes to TLS; fewer than frames when they are coalesced
	BytesPending        int64  // now waiting for users or being received
}

// Counters returns the counts so far.
func (g *Gateway) Counters() Counters {
	c := &g.counts
	return Counters{
		ConnectionsAccepted: c.accepted.Load(),
		ConnectionsRefused:  c.refused.Load(),
		AcceptErrors:        c.acceptErrors.Load(),
		Handshakes:          c.handshakes.Load(),
		HandshakesFailed:    c.failedHandshakes.Load(),
		Messages:            c.messages.Load(),
		BadMessages:         c.badMessages.Load(),
		Reads:               c.reads.Load(),
		ReadsFailed:         c.readsFailed.Load(),
		ReadsIgnored:        c.readsIgnored.Load(),
		ClosedSlow:          c.slowReaders.Load(),
		ClosedOverLimit:     c.overLimit.Load(),
		ClosedIdle:          c.idleUsers.Load(),
		FramesSent:          c.frames.Load(),
		Writes:              c.writes.Load(),
		BytesPending:        g.budget.used.Load(),
	}
}
