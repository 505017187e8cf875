package client

import (
	"encoding/binary"

	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
	"evernode/internal/digest"
	"evernode/internal/usermsg"
)

// maxReadings bounds the number of readings of JSON outputs that are tried.
const maxReadings = 1 << 10

// output delivers the outputs of a run, if they can be trusted.
func (c *Client) output(n *Node, m *usermsg.Output) {
	c.heard(m.LedgerSeqNo)
	out := Output{Ledger: LedgerRef{m.LedgerSeqNo, Hash(m.LedgerHash)}, Outputs: m.Outputs, Hash: Hash(m.OutputHash), Server: n.server}
	c.mu.Lock()
	trusted := make([]key.Public, 0, len(c.trusted))
	for k := range c.trusted {
		trusted = append(trusted, k)
	}
	check := c.trusted != nil
	c.mu.Unlock()
	if check {
		if err := c.verify(m, trusted); err != nil {
			c.log.Warn("outputs cannot be trusted", "server", n.server, "ledger", m.LedgerSeqNo, "error", err)
			if f := c.opt.Handler.Untrusted; f != nil {
				c.event(func() { f(out, err) })
			}
			return
		}
		out.Verified = true
	}
	if c.opt.Handler.Output != nil && c.isNew(m) {
		c.event(func() { c.opt.Handler.Output(out) })
	}
}

// verify checks outputs as the JavaScript client does, but for the share of keys
// that must have signed. In a JSON message it cannot be seen whether the
// contract's output was a text or that text in quotes, so both are tried.
func (c *Client) verify(m *usermsg.Output, trusted []key.Public) error {
	user := c.opt.Key.Public()
	outputs := readings(user, m)
	return output.VerifyShare(user, outputs, m.OutputHash, m.Tree, m.Signatures, trusted, c.opt.TrustedShare)
}

// readings returns the reading of the outputs that has the hash of the message,
// or the plain one when none has.
func readings(user key.Public, m *usermsg.Output) [][]byte {
	if output.Hash(user, m.Outputs) == m.OutputHash || m.JSONTokens == nil {
		return m.Outputs
	}
	var texts []int // outputs with two readings
	for i, t := range m.JSONTokens {
		if len(t) > 0 && t[0] == '"' {
			texts = append(texts, i)
		}
	}
	read := append([][]byte(nil), m.Outputs...)
	// All at once comes first: a contract is mostly of one mind.
	for _, i := range texts {
		read[i] = m.JSONTokens[i]
	}
	if output.Hash(user, read) == m.OutputHash {
		return read
	}
	if len(texts) < 64 && 1<<len(texts) <= maxReadings {
		for choice := range 1 << len(texts) {
			for bit, i := range texts {
				read[i] = m.Outputs[i]
				if choice&(1<<bit) != 0 {
					read[i] = m.JSONTokens[i]
				}
			}
			if output.Hash(user, read) == m.OutputHash {
				return read
			}
		}
	}
	return m.Outputs
}

// isNew reports whether outputs are delivered for the first time, whichever
// node they come from.
func (c *Client) isNew(m *usermsg.Output) bool {
	var seq [8]byte
	binary.BigEndian.PutUint64(seq[:], m.LedgerSeqNo)
	id := Hash(digest.Tagged("client output", seq[:], m.LedgerHash[:], m.OutputHash[:]))
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.seen[id]; ok {
		return false
	}
	c.seen[id] = struct{}{}
	c.order = append(c.order, id)
	if len(c.order) > seenOutputs {
		delete(c.seen, c.order[0])
		c.order = c.order[1:]
	}
	return true
}
