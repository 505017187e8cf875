package mesh

import (
	"errors"
	randv2 "math/rand/v2"
	"slices"
	"time"
)

// askInterval is how often a peer gets an answer when it asks for our peers.
const askInterval = time.Second

// dialLoop dials the addresses of the book whenever they are due.
func (m *Mesh) dialLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.redial:
		case <-timer.C:
		}
		now := time.Now()
		m.mu.Lock()
		addresses, next := m.book.due(now, m.room(), m.inUNL)
		for _, a := range addresses {
			m.spawnLocked(func() { m.dial(a) })
		}
		m.mu.Unlock()
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// dial makes one attempt and writes its outcome into the book.
func (m *Mesh) dial(address string) {
	k, err := m.connect(address)
	if err == nil {
		return // register has told the book
	}
	if m.ctx.Err() != nil {
		return
	}
	defer poke(m.redial)
	t := m.config.Timing
	var bye *ByeError
	code := byeOther
	if errors.As(err, &bye) {
		code = bye.code
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.book.entries[address] == nil {
		return // removed meanwhile
	}
	m.book.entries[address].trouble = err.Error()
	now := time.Now()
	switch {
	case errors.Is(err, errSelf):
		m.book.off(address, selfAddress)
		m.log.Info("a known peer is this node itself, not dialing it", "address", address)
	case errors.Is(err, errSelfTwice):
		m.book.off(address, err.Error())
		m.log.Error("another running node uses this node's key, not dialing it", "address", address)
	case errors.Is(err, errOtherChain), code == byeContract:
		m.book.off(address, errOtherChain.Error())
		m.log.Warn("peer belongs to another contract id, not dialing it again until it is configured anew", "address", address, "peer", k.Short())
	case errors.Is(err, errBusy):
		m.book.busy(address, k, now, t.Recheck)
		if m.byKey[k] == nil { // the other attempt may still fail
			m.book.busy(address, k, now, t.HandshakeTimeout)
		}
	case code == byeDuplicate:
		// The peer's own connection is on its way; if it never comes, dial again.
		m.book.busy(address, k, now, t.RedialMax)
	case code == byeLimit:
		m.book.busy(address, k, now, t.Penalty)
	case code == byeFull:
		m.book.busy(address, k, now, t.RedialMax)
		m.log.Debug("peer has no room", "address", address, "error", err)
	default:
		failures, gone := m.book.failed(address, now, randv2.Float64())
		switch {
		case gone:
			m.log.Info("gave up an address found by discovery", "address", address, "failures", failures, "error", err)
		case failures == 3:
			m.log.Warn("cannot reach peer, still trying", "address", address, "error", err)
		default:
			m.log.Debug("cannot reach peer", "address", address, "failures", failures, "error", err)
		}
	}
}

// discoverLoop asks a random peer for its peers every interval, five times more
// rarely when the book is full. (A new peer is asked when it connects.)
func (m *Mesh) discoverLoop() {
	ticker := time.NewTicker(m.config.DiscoveryEvery)
	defer ticker.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-m.ctx.Done():
			return
		case <-ticker.C:
		}
		m.mu.Lock()
		full := m.book.full()
		m.mu.Unlock()
		if full && turn%5 != 0 {
			continue
		}
		if sessions := *m.sessions.Load(); len(sessions) > 0 {
			sessions[randv2.IntN(len(sessions))].askPeers()
		}
	}
}

func (s *session) askPeers() {
	s.asked.Store(true)
	s.send(newFrame(frameAskPeers, 0), 0)
}

// sharedPeers is what a peer gets that asks for peers: addresses of those
// connected to us, then others that once answered.
func (m *Mesh) sharedPeers(asker *session) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []string
	for _, s := range m.byKey {
		if s != asker && s.address != "" {
			list = append(list, s.address)
		}
	}
	for _, e := range m.book.entries {
		if e.known && e.off == "" && e.key != asker.key && !slices.Contains(list, e.address) {
			list = append(list, e.address)
		}
	}
	return list[:min(len(list), maxSharedPeers)]
}

// learn takes addresses told by peers into the book.
func (m *Mesh) learn(addresses []string) {
	if !m.config.Discovery {
		return
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range addresses {
		address, err := ParseAddress(a)
		if err != nil {
			m.log.Debug("a peer told of an address that cannot be used", "error", err)
			continue
		}
		if m.book.discover(address, now) {
			// An inbound peer's own address needs no dialing while it is up.
			for k, s := range m.byKey {
				if s.address == address {
					m.book.busy(address, k, now, m.config.Timing.Recheck)
				}
			}
		}
	}
	poke(m.redial)
}
