package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"sync/atomic"

	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/usermsg"

	"github.com/lxzan/gws"
)

// session is what the gateway knows about one user's connection. Its states
// are: challenge issued, verified, closed (spec/hotpocket.md section 1.3). It
// travels as the session storage of the WebSocket library, which gives it back
// with each event.
type session struct {
	conn      *connection
	socket    *gws.Conn
	stopTimer func() bool // of the handshake, then of idleness
	challenge string
	version   string // contract version that was told to the user
	full      bool   // proved its key but found no room
	inNode    bool   // the reading goroutine is past reading a message

	// Set once, before the session is among the verified ones.
	user     key.Public
	protocol usermsg.Protocol
	ctx      context.Context
	cancel   context.CancelFunc

	channels atomic.Uint32 // bit by usermsg.Channel
	active   atomic.Int64  // time of the last message, in ns, if there is an idle timeout

	waiting     []readRequest // of the read queue and guarded by it
	outstanding int           // read requests waiting or running, guarded by the queue
}

// events hands the WebSocket library's events to the sessions.
type events struct{}

func sessionOf(socket *gws.Conn) *session { return socket.Session().(*session) }

// OnOpen implements gws.Event.
func (events) OnOpen(socket *gws.Conn) { sessionOf(socket).open() }

// OnClose implements gws.Event. The end of the read loop is the end of the
// session, see connection.serve.
func (events) OnClose(*gws.Conn, error) {}

// OnPing implements gws.Event.
func (events) OnPing(socket *gws.Conn, payload []byte) { socket.WritePong(payload) }

// OnPong implements gws.Event.
func (events) OnPong(*gws.Conn, []byte) {}

// OnMessage implements gws.Event. Text and binary messages are the same.
func (events) OnMessage(socket *gws.Conn, message *gws.Message) {
	defer message.Close()
	s := sessionOf(socket)
	switch {
	case s.conn.closed.Load():
	case s.conn.verified.Load():
		s.handle(message.Bytes())
	default:
		if code, err := s.verify(message.Bytes()); err != nil {
			s.conn.close(code, err.Error())
		}
	}
}

func (s *session) open() {
	g := s.conn.g
	var random [usermsg.ChallengeSize / 2]byte
	rand.Read(random[:]) // never fails
	s.challenge = hex.EncodeToString(random[:])
	s.version = g.cfg.ContractVersion()
	s.conn.out.frame(usermsg.AppendChallenge(nil, usermsg.Challenge{
		HPVersion:       g.cfg.HPVersion,
		ContractID:      g.cfg.ContractID,
		ContractVersion: s.version,
		Challenge:       s.challenge,
	}))
}

// verify takes the user's first message. On an error the connection is to be
// closed with the code.
func (s *session) verify(data []byte) (code uint16, err error) {
	g := s.conn.g
	r, err := usermsg.DecodeChallengeResponse(data)
	if err != nil {
		return closePolicy, err
	}
	if !r.Public.Verify([]byte(s.challenge), r.Sig[:]) {
		return closePolicy, errors.New("user challenge response: signature is wrong")
	}
	s.user, s.protocol = r.Public, r.Protocol
	s.ctx, s.cancel = context.WithCancel(g.reads.ctx)
	var response []byte
	if r.ServerChallenge != "" {
		unl := g.cfg.UNL()
		if !slices.IsSortedFunc(unl, key.Public.Compare) {
			unl = slices.Clone(unl)
			slices.SortFunc(unl, key.Public.Compare)
		}
		response = usermsg.AppendServerResponse(nil, usermsg.ServerResponse{
			Sig:    g.cfg.Key.Sign(usermsg.ServerProof(r.ServerChallenge, g.cfg.ContractID, s.version)),
			Public: g.cfg.Key.Public(),
			UNL:    unl,
		})
	}
	s.stopTimer()
	if err := g.admit(s, response); err != nil {
		s.full = true
		s.cancel()
		return closeTryLater, err
	}
	s.watchIdle()
	return 0, nil
}

// watchIdle arranges for the session to be closed when nothing happens.
func (s *session) watchIdle() {
	g := s.conn.g
	timeout := g.limits.IdleTimeout
	if timeout == 0 {
		s.stopTimer = func() bool { return false }
		return
	}
	s.touch()
	w := &idleWatch{s: s}
	s.stopTimer = w.stop
	w.arm(timeout)
}

// touch notes that a message came or went.
func (s *session) touch() {
	if g := s.conn.g; g.limits.IdleTimeout > 0 {
		s.active.Store(g.clock.Now().UnixNano())
	}
}

func (s *session) send(m usermsg.Message) {
	s.conn.out.message(m, s.protocol)
	s.touch()
}

func (s *session) subscribed(c usermsg.Channel) bool { return s.channels.Load()&(1<<c) != 0 }

// bad counts a bad message and closes the connection when there are too many.
func (s *session) bad(why string) {
	c := s.conn
	c.g.counts.badMessages.Add(1)
	c.g.log.Debug("bad message from a user", "user", s.user.Short(), "problem", why)
	c.mu.Lock()
	ok := c.badly.add(c.g.clock.Now(), 1)
	c.mu.Unlock()
	if !ok && !c.closed.Load() {
		c.g.counts.overLimit.Add(1)
		c.close(closePolicy, "too many bad messages in a minute")
	}
}

// handle takes one message of a verified user (spec/hotpocket.md sections 1.4
// and 1.6).
func (s *session) handle(data []byte) {
	g := s.conn.g
	g.counts.messages.Add(1)
	s.touch()
	r, err := usermsg.DecodeRequest(s.protocol, data)
	if err != nil {
		s.refuse(&r, err)
		return
	}
	s.inNode = true
	switch r.Type {
	case usermsg.RequestInput:
		s.submit(&r)
	case usermsg.RequestRead:
		s.read(&r)
	case usermsg.RequestStat:
		stat := g.node.Stat()
		stat.HPVersion = g.cfg.HPVersion
		s.send(&stat)
	case usermsg.RequestLCL:
		seq, hash := g.node.LastLedger()
		s.send(&usermsg.LCL{LedgerSeqNo: seq, LedgerHash: hash})
	case usermsg.RequestSubscription:
		if r.Enabled {
			s.channels.Or(1 << r.Channel)
		} else {
			s.channels.And(^uint32(1 << r.Channel))
		}
	case usermsg.RequestLedgerQuery:
		s.query(&r)
	}
	s.inNode = false
}

// refuse answers a message that could not be read as the table in section 1.6
// says.
func (s *session) refuse(r *usermsg.Request, err error) {
	switch {
	case errors.Is(err, usermsg.ErrUnknownType):
		s.reject(digest.Hash{}, inputs.InvalidType)
	case r.Type == usermsg.RequestInput:
		s.reject(digest.Sum(r.Sig), inputs.BadFormat)
	case r.Type == usermsg.RequestUnknown, r.Type == usermsg.RequestRead:
		s.reject(digest.Hash{}, inputs.BadFormat)
	}
	s.bad(err.Error())
}

func (s *session) reject(input digest.Hash, reason inputs.Reason) {
	s.send(&usermsg.InputStatus{Reason: string(reason), InputHash: input})
}

func (s *session) submit(r *usermsg.Request) {
	if len(r.Sig) != key.SignatureSize {
		s.reject(digest.Sum(r.Sig), inputs.BadSignature)
		s.bad("input with a signature of another length")
		return
	}
	in := inputs.Submission{User: s.user, Container: r.Container, Sig: key.Signature(r.Sig), Protocol: inputs.JSON}
	if s.protocol == usermsg.BSON {
		in.Protocol = inputs.BSON
	}
	if reason := s.conn.g.node.Submit(in); reason != inputs.None {
		s.reject(in.Hash(), reason)
		if reason == inputs.BadFormat || reason == inputs.BadSignature {
			s.bad(string(reason))
		}
	}
}

func (s *session) read(r *usermsg.Request) {
	g := s.conn.g
	if g.limits.ConcurrentReads == 0 {
		g.counts.readsIgnored.Add(1)
		return
	}
	if g.reads.push(s, readRequest{id: r.ID, content: r.Content}) {
		g.counts.reads.Add(1)
	}
}

func (s *session) query(r *usermsg.Request) {
	g := s.conn.g
	m := &usermsg.QueryResult{ReplyFor: r.ID}
	q := Query{User: s.user, SeqNo: r.SeqNo, Inputs: r.IncludeInputs, Outputs: r.IncludeOutputs}
	records, err := g.node.Query(s.ctx, q)
	switch {
	case err != nil:
		g.log.Warn("ledger query failed", "ledger", r.SeqNo, "error", err)
		m.Error = usermsg.ErrorExecFailure
	case len(records) == 0 && (q.Inputs || q.Outputs):
		// So does the original, though only in JSON: in BSON it crashes.
		m.Error = usermsg.ErrorExecFailure
	default:
		m.Results = g.visible(q, records)
	}
	s.send(m)
}

// visible returns what the user may see of the records: exactly the lists that
// were asked for and, in private mode, nothing of what other users said or got.
func (g *Gateway) visible(q Query, records []usermsg.LedgerRecord) []usermsg.LedgerRecord {
	private := g.cfg.Private != nil && g.cfg.Private()
	out := slices.Clone(records)
	for i := range out {
		r := &out[i]
		if !q.Inputs {
			r.Inputs = nil
		} else if r.Inputs = slices.Clone(r.Inputs); r.Inputs == nil {
			r.Inputs = []usermsg.LedgerInput{}
		}
		if !q.Outputs {
			r.Outputs = nil
		} else if r.Outputs = slices.Clone(r.Outputs); r.Outputs == nil {
			r.Outputs = []usermsg.LedgerOutput{}
		}
		if !private {
			continue
		}
		for j := range r.Inputs {
			if in := &r.Inputs[j]; in.Public != q.User {
				in.Blob = nil
			}
		}
		for j := range r.Outputs {
			if o := &r.Outputs[j]; o.Public != q.User {
				o.Blobs = make([][]byte, len(o.Blobs))
			}
		}
	}
	return out
}

// The session storage of the WebSocket library: a session carries itself and
// nothing else.

// Len implements gws.SessionStorage.
func (s *session) Len() int { return 0 }

// Load implements gws.SessionStorage.
func (s *session) Load(string) (any, bool) { return nil, false }

// Delete implements gws.SessionStorage.
func (s *session) Delete(string) {}

// Store implements gws.SessionStorage.
func (s *session) Store(string, any) {}

// Range implements gws.SessionStorage.
func (s *session) Range(func(string, any) bool) {}
