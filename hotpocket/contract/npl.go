package contract

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"evernode/hotpocket/key"
)

// What the runners of different nodes send each other are packets, which the
// nodes carry without looking into them: a byte that tells the kind and a body.
// packetMessage carries a message of the contract.
const packetMessage = 1

// MaxNPLPacket is the largest packet given to Hooks.NPL, in bytes.
const MaxNPLPacket = MaxPacket + 1

var errNPLPacket = errors.New("bad NPL packet")

// DeliverNPL hands the contract a packet that another node's runner gave to its
// Hooks.NPL while executing the same ledger. The packet must not be changed
// afterwards. It never blocks: what the contract leaves unread beyond the bounds
// of its queue, and what arrives after its end, is dropped and counted. An error
// means that the packet itself is malformed, which is the sender's fault.
func (e *Execution) DeliverNPL(from key.Public, packet []byte) error {
	switch {
	case len(packet) == 0:
		return fmt.Errorf("%w: empty", errNPLPacket)
	case len(packet) > MaxNPLPacket:
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", errNPLPacket, len(packet), MaxNPLPacket)
	case packet[0] == packetMessage && len(packet) > 1: // empty, it would look like the end of NPL
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.term.received == nil {
			e.term.received = make(map[key.Public]uint64)
		}
		e.term.received[from]++
		e.deliverMessage(from, packet[1:])
		return nil
	case packet[0] == packetQuiet:
		r, err := parseReport(packet)
		if err != nil {
			return err
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.takeReport(from, r)
		return nil
	}
	return fmt.Errorf("%w: kind %d and %d bytes", errNPLPacket, packet[0], len(packet)-1)
}

// deliverMessage writes the two packets of a message, back to back: the sender's
// key as hex text and the content.
func (e *Execution) deliverMessage(from key.Public, data []byte) {
	e.term.moved(time.Now())
	if e.nplIn.push(hex.AppendEncode(make([]byte, 0, 2*key.PublicSize), from[:]), data) {
		e.watch(tagNPL)
	}
}

// nplFromContract takes a message that the contract sent.
func (e *Execution) nplFromContract(data []byte) {
	if len(data) > MaxPacket {
		e.complain("contract sent an NPL message that is too large, it is dropped", "limit", MaxPacket)
		return
	}
	if e.hooks.NPL == nil {
		return
	}
	if limit := e.prog.Limits.NPLOutputBytes; limit > 0 {
		if e.nplOutBytes+uint64(len(data)) > limit {
			if !e.nplOutFull {
				e.nplOutFull = true
				e.log.Warn("contract exceeded npl_output_bytes, further NPL messages of this run are dropped", "limit", limit)
			}
			return
		}
		e.nplOutBytes += uint64(len(data))
	}
	if e.nplOutFull {
		return
	}
	packet := make([]byte, 1+len(data))
	packet[0] = packetMessage
	copy(packet[1:], data)
	e.mu.Lock()
	e.term.sent++
	e.mu.Unlock()
	e.hooks.NPL(packet)
	e.mu.Lock()
	e.deliverMessage(e.self, packet[1:])
	e.mu.Unlock()
}

// shutdownNPL makes the contract's next read of NPL find its end. What it sends
// is still taken. It needs mu.
func (e *Execution) shutdownNPL() {
	if e.nplIn.fd >= 0 {
		unix.Shutdown(e.nplIn.fd, unix.SHUT_WR)
	}
}
