package contract

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"evernode/hotpocket/key"
)

// Runners tell each other when their contract is quiet, that is, only an NPL
// message can make it go on, and how many messages it has sent and received by
// then. When all contracts of the UNL are quiet (or have ended) and each has
// received all that every other has sent, no message can come any more: to send
// one a contract would first have to receive one. Each runner then ends the
// reading side of NPL.
//
// The reports need not be of the same instant. If a contract went on after its
// report, it had received a message that its report does not count, so the
// sender's report does not count it either, so the sender went on after its
// report before; followed back, the first to go on had no cause.

// packetQuiet carries a report: a byte that is 1 if the contract has ended, the
// number of messages it sent, and the number of entries that follow, each a
// public key and the number of messages received from it. Numbers are unsigned
// varints.
const packetQuiet = 2

// report is what a runner tells of its contract.
type report struct {
	ended    bool
	sent     uint64
	received map[key.Public]uint64
}

// maxReportEntries bounds a report: members of a UNL.
const maxReportEntries = 2000

func (r *report) encode() []byte {
	b := []byte{packetQuiet, 0}
	if r.ended {
		b[1] = 1
	}
	b = binary.AppendUvarint(b, r.sent)
	keys := make([]key.Public, 0, len(r.received))
	for k, n := range r.received {
		if n > 0 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, key.Public.Compare)
	b = binary.AppendUvarint(b, uint64(len(keys)))
	for _, k := range keys {
		b = append(b, k[:]...)
		b = binary.AppendUvarint(b, r.received[k])
	}
	return b
}

func parseReport(b []byte) (*report, error) {
	bad := func(what string) (*report, error) { return nil, fmt.Errorf("%w: report: %s", errNPLPacket, what) }
	if len(b) < 2 || b[0] != packetQuiet || b[1] > 1 {
		return bad("no head")
	}
	r := &report{ended: b[1] == 1}
	b = b[2:]
	number := func() (uint64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		return v, true
	}
	var count uint64
	var ok bool
	if r.sent, ok = number(); !ok {
		return bad("bad number of sent messages")
	}
	if count, ok = number(); !ok || count > maxReportEntries || count > uint64(len(b)/(key.PublicSize+1)) {
		return bad("bad number of entries")
	}
	r.received = make(map[key.Public]uint64, count)
	for range count {
		if len(b) < key.PublicSize {
			return bad("cut short")
		}
		k, err := key.PublicFromBytes(b[:key.PublicSize])
		if err != nil {
			return bad(err.Error())
		}
		b = b[key.PublicSize:]
		if r.received[k], ok = number(); !ok {
			return bad("bad number of received messages")
		}
	}
	if len(b) > 0 {
		return bad("bytes after its end")
	}
	return r, nil
}

// termination is what a run knows of its own contract and of the others'. The
// execution's mu guards it.
type termination struct {
	quiet    bool      // nothing but NPL can wake the contract
	seen     bool      // it was quiet at the last look
	switches uint64    // of that look
	looked   time.Time // when that was
	since    time.Time // when it was first seen quiet
	active   time.Time // when the last NPL message moved

	sent     uint64                // messages handed to Hooks.NPL
	received map[key.Public]uint64 // messages from the other members
	reports  map[key.Public]*report
	told     bool // the present state was reported
	involved bool // something was sent or received, so others may ask
}

// moved notes that an NPL message went to or came from the contract.
func (t *termination) moved(now time.Time) {
	t.active = now
	t.quiet, t.seen, t.told = false, false, false
	t.involved = true
}

// report is what to tell the others now, nil if nothing new.
func (t *termination) report(run *Run) []byte {
	if !t.quiet || t.told || len(run.UNL) < 2 {
		return nil
	}
	t.told, t.involved = true, true
	r := report{sent: t.sent, received: t.received}
	return r.encode()
}

// complete reports whether no member of the UNL can send a message any more.
func (t *termination) complete(self key.Public, unl []UNLMember) bool {
	if !t.quiet {
		return false
	}
	sent := func(k key.Public) (uint64, bool) {
		if k == self {
			return t.sent, true
		}
		r := t.reports[k]
		if r == nil {
			return 0, false
		}
		return r.sent, true
	}
	for _, from := range unl {
		n, known := sent(from.Key)
		if !known || from.Key != self && t.received[from.Key] != n {
			return false
		}
		for _, to := range unl {
			if to.Key == self || to.Key == from.Key { // one's own words come back at once
				continue
			}
			r := t.reports[to.Key]
			if r == nil || !r.ended && r.received[from.Key] != n {
				return false
			}
		}
	}
	return true
}

// takeReport stores what another runner tells.
func (e *Execution) takeReport(from key.Public, r *report) {
	if from == e.self || !slices.ContainsFunc(e.run.UNL, func(m UNLMember) bool { return m.Key == from }) {
		return
	}
	t := &e.term
	t.involved = true
	if t.reports == nil {
		t.reports = make(map[key.Public]*report, len(e.run.UNL))
	}
	t.reports[from] = r
	e.tryEndNPL(time.Now())
}

// tryEndNPL ends the reading side of the contract's NPL socket if it only waits
// for messages that cannot come, or has waited for too long. It needs mu.
func (e *Execution) tryEndNPL(now time.Time) {
	t := &e.term
	if e.nplIn.broken || !t.quiet {
		return
	}
	if !t.complete(e.self, e.run.UNL) && now.Sub(t.since) < e.runner.nplGrace {
		return
	}
	e.nplIn.stop()
	e.shutdownNPL()
}

// endReport is the last word of a run that has taken part in NPL, nil for others.
func (e *Execution) endReport() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := &e.term
	if !t.involved || len(e.run.UNL) < 2 {
		return nil
	}
	r := report{ended: true, sent: t.sent}
	return r.encode()
}
