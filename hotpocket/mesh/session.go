package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"evernode/hotpocket/key"
)

// session is a peer that is up: its urgent connection and what belongs to it.
type session struct {
	mesh     *Mesh
	number   uint64
	key      key.Public
	hello    hello
	outbound bool
	address  string // to dial, may be empty
	host     string // IP address of the other end
	since    time.Time
	link     *link
	meter    *meter
	bulk     bulk

	prev  *session      // must have ended before this one is reported up
	ended chan struct{} // PeerDown was called

	once  sync.Once
	cause error // why it was shut; set within once

	neighbours atomic.Pointer[map[key.Public]struct{}]
	lastIn     atomic.Int64 // when a frame was last read, ns since mesh.start
	handling   atomic.Bool  // the reader is in the Handler
	asked      atomic.Bool  // we asked for its peers
	lastAsk    time.Time    // it asked for ours; reader only
	pinged     atomic.Int64 // when the last ping was sent, ns since mesh.start
	rtt, skew  atomic.Int64 // ns
}

// send queues a frame; a peer that does not keep up is dropped.
func (s *session) send(frame []byte, payload int) error {
	if payload > int(s.hello.MaxMessage) {
		s.mesh.log.Warn("message is larger than the peer accepts and was not sent to it",
			"peer", s.key.Short(), "bytes", payload, "peer_max_bytes_per_msg", s.hello.MaxMessage)
		return ErrTooLarge
	}
	err := s.link.enqueue(frame, nil, nil)
	if errors.Is(err, errOverflow) {
		s.shut(fmt.Errorf("it does not keep up: more than %d bytes wait to be sent to it", s.link.limit), byeNone)
	}
	return err
}

// byeNone cuts a connection without a last word.
const byeNone byeCode = 255

// shut ends the session; the first cause counts. It does not wait.
func (s *session) shut(cause error, code byeCode) {
	s.once.Do(func() {
		s.cause = cause
		wait := time.Duration(0)
		if code == byeLimit {
			s.mesh.ban(s.key)
			wait = s.mesh.config.Timing.Penalty
		}
		if bye := (*ByeError)(nil); errors.As(cause, &bye) {
			switch bye.code {
			case byeLimit:
				wait = s.mesh.config.Timing.Penalty
			case byeFull, byeRemoved:
				wait = s.mesh.config.Timing.RedialMax
			}
		}
		s.mesh.drop(s, wait)
		if code == byeNone {
			s.link.close(nil)
		} else {
			s.link.close(byeFrame(code, cause.Error()))
		}
		s.bulk.close(errors.New("the peer's session ended"))
	})
}

// enforce shuts the session if err says that a limit was broken.
func (s *session) enforce(err error) {
	if err != nil {
		s.shut(err, byeLimit)
	}
}

// write is the goroutine that writes.
func (s *session) write() {
	if err := s.link.writeLoop(); err != nil {
		s.shut(fmt.Errorf("write: %w", err), byeNone)
	}
	s.link.finish()
}

// read is the goroutine that reads, and calls the Handler.
func (s *session) read() {
	m := s.mesh
	if s.prev != nil {
		<-s.prev.ended
		s.prev = nil
	}
	m.log.Info("peer connected", "peer", s.key.Short(), "address", s.address, "inbound", !s.outbound, "host", s.host)
	m.handler.PeerUp(s.key)
	if m.config.Discovery {
		s.askPeers()
	}
	s.touch()
	err := s.readFrames()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it closed the connection")
	}
	code := byeNone
	if protocol := (*protocolError)(nil); errors.As(err, &protocol) {
		code = byeOther
	}
	s.shut(err, code)
	m.log.Info("peer disconnected", "peer", s.key.Short(), "address", s.address, "reason", s.cause)
	m.handler.PeerDown(s.key)
	m.end(s)
}

// protocolError is a frame that no honest peer sends.
type protocolError struct{ err error }

func (e *protocolError) Error() string { return fmt.Sprintf("broken protocol: %v", e.err) }
func (e *protocolError) Unwrap() error { return e.err }

func (s *session) touch() { s.lastIn.Store(int64(time.Since(s.mesh.start))) }

func (s *session) readFrames() error {
	for {
		t, body, err := readFrame(s.link.in, s.mesh.config.MaxMessage)
		if err != nil {
			return err
		}
		s.touch()
		if err := s.meter.countBytes(frameHead+len(body), time.Now()); err != nil {
			s.enforce(err)
			return err
		}
		if err := s.take(t, body); err != nil {
			return err
		}
	}
}

// take handles one frame.
func (s *session) take(t frameType, body []byte) error {
	m := s.mesh
	switch t {
	case frameMessage:
		if len(body) < messageHead {
			return &protocolError{errors.New("message is cut short")}
		}
		s.deliver(Kind(body[0]), body[messageHead:])
	case frameFlood:
		if len(body) < floodHead {
			return &protocolError{errors.New("flooded message is cut short")}
		}
		s.takeFlood(body)
	case framePing:
		if len(body) != 8 {
			return &protocolError{errors.New("ping is not 8 bytes long")}
		}
		f := append(newFrame(framePong, 16), body...)
		s.send(binary.BigEndian.AppendUint64(f, unixMilli(time.Now())), 0)
	case framePong:
		return s.takePong(body)
	case frameNeighbours:
		keys, err := parseNeighbours(body)
		if err != nil {
			return &protocolError{err}
		}
		s.neighbours.Store(&keys)
	case frameAskPeers:
		now := time.Now()
		if now.Sub(s.lastAsk) < min(askInterval, m.config.DiscoveryEvery/2) {
			return nil
		}
		s.lastAsk = now
		s.send(peersFrame(m.sharedPeers(s)), 0)
	case framePeers:
		addresses, err := parsePeers(body)
		if err != nil {
			return &protocolError{err}
		}
		if !s.asked.CompareAndSwap(true, false) {
			return &protocolError{errors.New("a list of peers that was not asked for")}
		}
		m.learn(addresses)
	case frameOpenBulk:
		if !s.outbound {
			return &protocolError{errors.New("asked to dial by a peer that dialed itself")}
		}
		if len(body) != 4 {
			return &protocolError{errors.New("request for a bulk connection is not 4 bytes long")}
		}
		s.bulk.asked(binary.BigEndian.Uint32(body))
	case frameBye:
		return parseBye(body)
	default:
		return &protocolError{fmt.Errorf("frame of type %d on the urgent connection", t)}
	}
	return nil
}

// deliver hands a message to the Handler and counts a bad one.
func (s *session) deliver(kind Kind, payload []byte) Verdict {
	s.handling.Store(true)
	v := s.mesh.handler.Receive(s.key, kind, payload)
	s.touch()
	s.handling.Store(false)
	if v >= BadMessage {
		s.enforce(s.meter.countVerdict(v, time.Now()))
	}
	return v
}

func (s *session) takePong(body []byte) error {
	if len(body) != 16 {
		return &protocolError{errors.New("pong is not 16 bytes long")}
	}
	sent := int64(binary.BigEndian.Uint64(body))
	if sent != s.pinged.Load() {
		return nil // a later ping is under way
	}
	rtt := time.Since(s.mesh.start) - time.Duration(sent)
	s.rtt.Store(int64(rtt))
	theirs := time.UnixMilli(int64(binary.BigEndian.Uint64(body[8:]) & (1<<52 - 1)))
	s.skew.Store(int64(theirs.Sub(time.Now().Add(-rtt / 2))))
	return nil
}

func (s *session) ping() {
	now := int64(time.Since(s.mesh.start))
	s.pinged.Store(now)
	s.send(binary.BigEndian.AppendUint64(newFrame(framePing, 8), uint64(now)), 0)
}

// pingLoop sends keep-alives and drops the silent.
func (m *Mesh) pingLoop() {
	t := m.config.Timing
	ticker := time.NewTicker(t.PingEvery)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-ticker.C:
		}
		// After a pause of this very process the silence says nothing.
		now := time.Now()
		judge := now.Sub(last) < 2*t.PingEvery
		last = now
		for _, s := range *m.sessions.Load() {
			silent := time.Since(m.start) - time.Duration(s.lastIn.Load())
			if judge && silent > t.DeadAfter && !s.handling.Load() {
				s.shut(fmt.Errorf("nothing heard from it for %s", silent.Round(time.Millisecond)), byeNone)
				continue
			}
			s.ping()
		}
	}
}
