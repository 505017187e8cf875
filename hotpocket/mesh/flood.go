package mesh

import (
	"slices"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// floodHash names a flooded message by the body of its frame. It covers what the
// sender claims besides the payload, so that a false claim cannot stand in the
// way of the true one. It never leaves this node.
func floodHash(body []byte) digest.Hash { return digest.Sum(body) }

func (m *Mesh) sight(h digest.Hash, from uint64) (first, again bool) {
	now := time.Now()
	m.seenMu.Lock()
	defer m.seenMu.Unlock()
	return m.seen.add(h, from, now)
}

// takeFlood delivers a flooded message that is new, and passes it on if the
// Handler accepts it.
func (s *session) takeFlood(body []byte) {
	kind, scope := Kind(body[0]), Scope(body[1])
	author, payload := key.Public(body[2:floodHead]), body[floodHead:]
	first, again := s.mesh.sight(floodHash(body), s.number)
	if again {
		s.enforce(s.meter.countDup(time.Now()))
	}
	if first && s.deliver(kind, payload) == Accept && s.mesh.config.Forward {
		s.mesh.relay(s, author, scope, len(payload), func() []byte {
			return append(newFrame(frameFlood, len(body)), body...)
		})
	}
}

// relay sends a message to the peers that do not get it from its author; from
// is the session that delivered it, nil if it begins here. The frame is made
// when the first such peer is found.
func (m *Mesh) relay(from *session, author key.Public, scope Scope, payload int, encode func() []byte) {
	if from != nil && author == m.self {
		return // back from before a restart; every peer is connected to this node
	}
	var frame []byte
	for _, s := range *m.sessions.Load() {
		if s == from || s.key == author || scope == ScopeUNL && !m.inUNL(s.key) {
			continue
		}
		if from != nil && s.key == from.key {
			continue // it reconnected meanwhile
		}
		if author != m.self {
			if near := s.neighbours.Load(); near != nil {
				if _, ok := (*near)[author]; ok {
					continue
				}
			}
		}
		if frame == nil {
			frame = encode()
		}
		s.send(frame, payload)
	}
}

// announceLoop tells the peers which keys this node is connected to: at once
// when one is lost, since messages must now come another way, and a little
// later when one is gained.
func (m *Mesh) announceLoop() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.announce:
		}
		if !m.urgent.Swap(false) {
			timer := time.NewTimer(m.config.Timing.Announce)
		wait:
			for {
				select {
				case <-m.ctx.Done():
					timer.Stop()
					return
				case <-timer.C:
					break wait
				case <-m.announce:
					if m.urgent.Swap(false) {
						timer.Stop()
						break wait
					}
				}
			}
		}
		sessions := *m.sessions.Load()
		frame := neighboursOf(sessions)
		for _, s := range sessions {
			s.send(frame, 0)
		}
	}
}

// neighboursOf is the frame that announces the keys of the sessions.
func neighboursOf(sessions []*session) []byte {
	keys := make([]key.Public, 0, len(sessions))
	for _, s := range sessions {
		keys = append(keys, s.key)
	}
	slices.SortFunc(keys, key.Public.Compare)
	return neighboursFrame(keys[:min(len(keys), maxNeighbours)])
}
