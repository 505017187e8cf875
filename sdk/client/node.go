package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/usermsg"

	"github.com/lxzan/gws"
)

// supportedVersion is how the version of a node must begin.
const supportedVersion = "0.6."

// Node is a connected node. It stays usable, with errors only, when the
// connection has ended.
type Node struct {
	client *Client
	server string
	socket *gws.Conn
	proto  usermsg.Protocol
	verify chan error // the outcome of the handshake

	// Of the handshake; they belong to the reading goroutine until it is over.
	state     int // 0 nothing heard, 1 response sent, 2 connected
	challenge string
	proof     []byte
	public    key.Public
	unl       []key.Public

	mu      sync.Mutex
	err     error // why the connection ended
	lastID  uint64
	stat    []chan<- usermsg.Message
	lcl     []chan<- usermsg.Message
	replies map[string]chan<- usermsg.Message // of read requests and queries, by id
}

// Server returns the node's address.
func (n *Node) Server() string { return n.server }

// Public returns the node's key.
func (n *Node) Public() key.Public { return n.public }

// serve connects to a server and returns when the connection is over.
func (c *Client) serve(s *server) error {
	n := &Node{client: c, server: s.url, proto: c.opt.Protocol.wire(), verify: make(chan error, 1), replies: map[string]chan<- usermsg.Message{}}
	ctx, cancel := context.WithTimeout(c.ctx, c.opt.ConnectTimeout)
	defer cancel()
	conn, err := dial(ctx, s.url, c.opt.TLS)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline := context.AfterFunc(ctx, func() { conn.Conn.Close() })
	n.socket, _, err = gws.NewClientFromConn(nodeEvents{n: n}, &gws.ClientOption{
		Addr: s.url, HandshakeTimeout: c.opt.ConnectTimeout, ReadMaxPayloadSize: c.opt.MaxMessage, WriteMaxPayloadSize: c.opt.MaxMessage,
	}, conn)
	if err != nil {
		return fmt.Errorf("WebSocket: %w", err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer func() {
			if p := recover(); p != nil {
				c.log.Error("panic while reading from a node", "server", s.url, "panic", p, "stack", string(debug.Stack()))
				n.fail(fmt.Errorf("message cannot be read: %v", p))
			}
		}()
		n.socket.ReadLoop()
	}()
	defer func() { conn.Close(); <-over }()
	select {
	case err = <-n.verify:
	case <-over:
		err = n.ended()
	}
	if !deadline() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	// Closing the client ends the connection politely but soon.
	defer context.AfterFunc(c.ctx, func() {
		conn.hurry()
		n.socket.WriteClose(1000, nil)
	})()
	c.added(n)
	<-over
	c.removed(n)
	return n.ended()
}

func dial(ctx context.Context, server string, config *tls.Config) (*writer, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	if config == nil {
		// The node proves itself with its own key.
		config = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	}
	config = config.Clone()
	config.DynamicRecordSizingDisabled = true
	if config.ServerName == "" {
		config.ServerName = u.Hostname()
	}
	d := tls.Dialer{Config: config}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	return newWriter(conn), nil
}

// added makes a connected node known.
func (c *Client) added(n *Node) {
	c.learnUNL(n, n.unl)
	c.mu.Lock()
	c.nodes = append(c.nodes, n)
	subs := c.subs
	c.mu.Unlock()
	for ch, on := range subs {
		if on {
			n.subscribe(Channel(ch), true)
		}
	}
	if f := c.opt.Handler.Connection; f != nil {
		c.event(func() { f(n.server, true) })
	}
	c.countConnections()
}

func (c *Client) removed(n *Node) {
	c.mu.Lock()
	c.nodes = slices.DeleteFunc(c.nodes, func(o *Node) bool { return o == n })
	c.mu.Unlock()
	c.lost(n)
	if f := c.opt.Handler.Connection; f != nil {
		c.event(func() { f(n.server, false) })
	}
	c.countConnections()
}

// learnUNL replaces the trusted keys with the UNL that a trusted node tells.
func (c *Client) learnUNL(n *Node, unl []key.Public) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trusted == nil || !c.trusted[n.public] || len(unl) == 0 {
		return
	}
	c.trusted = map[key.Public]bool{}
	for _, k := range unl {
		c.trusted[k] = true
	}
}

// nodeEvents hands the WebSocket library's events to the node.
type nodeEvents struct {
	gws.BuiltinEventHandler
	n *Node
}

// OnMessage implements gws.Event.
func (e nodeEvents) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	if e.n.state < 2 {
		if done, err := e.n.handshake(m.Bytes()); err != nil || done {
			select {
			case e.n.verify <- err:
			default: // it failed before, and this message was underway
			}
			if err != nil {
				e.n.fail(err)
				e.n.socket.NetConn().Close()
			}
		}
		return
	}
	msg, err := usermsg.DecodeMessage(e.n.proto, m.Bytes())
	if err != nil {
		e.n.client.log.Warn("message of a node cannot be read", "server", e.n.server, "error", err)
		return
	}
	e.n.receive(msg)
}

// OnPing implements gws.Event.
func (e nodeEvents) OnPing(socket *gws.Conn, payload []byte) { socket.WritePong(payload) }

// OnClose implements gws.Event.
func (e nodeEvents) OnClose(_ *gws.Conn, err error) {
	var closed *gws.CloseError
	if errors.As(err, &closed) {
		err = fmt.Errorf("node closed the connection with code %d: %s", closed.Code, closed.Reason)
	}
	e.n.fail(err)
}

// handshake takes a message before the connection is established (see
// spec/hotpocket.md section 1.3).
func (n *Node) handshake(data []byte) (done bool, err error) {
	opt := &n.client.opt
	if n.state == 0 {
		c, err := usermsg.DecodeChallenge(data)
		switch {
		case err != nil:
			return false, err
		case !strings.HasPrefix(c.HPVersion, supportedVersion):
			return false, fmt.Errorf("node has version %q, supported are %s*", c.HPVersion, supportedVersion)
		case opt.ContractID != "" && opt.ContractID != c.ContractID:
			return false, fmt.Errorf("node runs contract %q", c.ContractID)
		case opt.ContractVersion != "" && opt.ContractVersion != c.ContractVersion:
			return false, fmt.Errorf("node runs version %q of the contract", c.ContractVersion)
		case len(c.Challenge) != usermsg.ChallengeSize:
			// The key must not be made to sign anything that could be something
			// else, such as an input.
			return false, fmt.Errorf("challenge has %d characters, want %d", len(c.Challenge), usermsg.ChallengeSize)
		}
		if _, err := hex.DecodeString(c.Challenge); err != nil {
			return false, fmt.Errorf("challenge is not hex: %w", err)
		}
		var random [16]byte
		rand.Read(random[:]) // never fails
		n.challenge = hex.EncodeToString(random[:])
		n.proof = usermsg.ServerProof(n.challenge, c.ContractID, c.ContractVersion)
		n.state = 1
		return false, n.write(usermsg.AppendChallengeResponse(nil, usermsg.ChallengeResponse{
			Sig: opt.Key.Sign([]byte(c.Challenge)), Public: opt.Key.Public(), ServerChallenge: n.challenge, Protocol: n.proto,
		}))
	}
	r, err := usermsg.DecodeServerResponse(data)
	if err != nil {
		return false, err
	}
	n.client.mu.Lock()
	trusted := n.client.trusted == nil || n.client.trusted[r.Public]
	n.client.mu.Unlock()
	if !trusted {
		return false, fmt.Errorf("node's key %s is not trusted", r.Public)
	}
	if !r.Public.Verify(n.proof, r.Sig[:]) {
		return false, errors.New("node does not have the key it claims to have")
	}
	n.public, n.unl, n.state = r.Public, r.UNL, 2
	return true, nil
}

// ended returns why the connection ended.
func (n *Node) ended() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		return ErrConnectionLost
	}
	return n.err
}

// fail ends all waiting for answers.
func (n *Node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return
	}
	if err == nil || err.Error() == "" {
		err = ErrConnectionLost
	}
	n.err = err
	for _, w := range n.stat {
		close(w)
	}
	for _, w := range n.lcl {
		close(w)
	}
	for _, w := range n.replies {
		close(w)
	}
	n.stat, n.lcl, n.replies = nil, nil, nil
}

func (n *Node) write(data []byte) error { return n.socket.WriteMessage(gws.OpcodeBinary, data) }

func (n *Node) request(r usermsg.Request) error {
	if err := n.write(usermsg.AppendRequest(nil, n.proto, r)); err != nil {
		return fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	return nil
}

func (n *Node) subscribe(ch Channel, on bool) {
	err := n.request(usermsg.Request{Type: usermsg.RequestSubscription, Channel: channelOnWire[ch], Enabled: on})
	if err != nil {
		n.client.log.Debug("cannot subscribe", "server", n.server, "error", err)
	}
}

// ask registers with wait before it sends a request, then waits for the
// answer. The answer comes through a channel with room for it.
func (n *Node) ask(ctx context.Context, r usermsg.Request, register func(chan<- usermsg.Message), forget func(chan<- usermsg.Message)) (usermsg.Message, error) {
	answer := make(chan usermsg.Message, 1)
	n.mu.Lock()
	if n.err != nil {
		n.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrConnectionLost, n.err)
	}
	register(answer)
	n.mu.Unlock()
	err := n.request(r)
	if err == nil {
		select {
		case m, ok := <-answer:
			if !ok {
				return nil, fmt.Errorf("%w: %w", ErrConnectionLost, n.ended())
			}
			return m, nil
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	n.mu.Lock()
	forget(answer)
	n.mu.Unlock()
	return nil, err
}

func without(list []chan<- usermsg.Message, w chan<- usermsg.Message) []chan<- usermsg.Message {
	return slices.DeleteFunc(list, func(o chan<- usermsg.Message) bool { return o == w })
}

func (n *Node) askByID(ctx context.Context, r usermsg.Request) (usermsg.Message, error) {
	n.mu.Lock()
	n.lastID++
	r.ID = strconv.FormatUint(n.lastID, 10)
	n.mu.Unlock()
	return n.ask(ctx, r,
		func(w chan<- usermsg.Message) { n.replies[r.ID] = w },
		func(chan<- usermsg.Message) { delete(n.replies, r.ID) })
}

// Read sends a read request to the node and returns the contract's first
// output, see Client.Read.
func (n *Node) Read(ctx context.Context, content []byte) ([]byte, error) {
	if err := n.client.checkText(content); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	m, err := n.askByID(ctx, usermsg.Request{Type: usermsg.RequestRead, Content: content})
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	r, ok := m.(*usermsg.ReadResponse)
	if !ok {
		return nil, fmt.Errorf("read request: answered by %T", m)
	}
	return r.Content, nil
}

// Status asks the node for its status.
func (n *Node) Status(ctx context.Context) (NodeStatus, error) {
	m, err := n.ask(ctx, usermsg.Request{Type: usermsg.RequestStat},
		func(w chan<- usermsg.Message) { n.stat = append(n.stat, w) },
		func(w chan<- usermsg.Message) { n.stat = without(n.stat, w) })
	if err != nil {
		return NodeStatus{}, fmt.Errorf("status: %w", err)
	}
	s := m.(*usermsg.Stat)
	return NodeStatus{
		HPVersion: s.HPVersion, Ledger: LedgerRef{s.LedgerSeqNo, Hash(s.LedgerHash)}, VoteStatus: s.VoteStatus,
		RoundTime: time.Duration(s.RoundTime) * time.Millisecond, ContractExecutionEnabled: s.ContractExecutionEnabled,
		ReadRequestsEnabled: s.ReadRequestsEnabled, FullHistory: s.IsFullHistoryNode, WeaklyConnected: s.WeaklyConnected,
		UNL: s.CurrentUNL, Peers: s.Peers, DivergedRuns: s.DivergedRuns,
	}, nil
}

// LastLedger asks the node for its last closed ledger.
func (n *Node) LastLedger(ctx context.Context) (LedgerRef, error) {
	m, err := n.ask(ctx, usermsg.Request{Type: usermsg.RequestLCL},
		func(w chan<- usermsg.Message) { n.lcl = append(n.lcl, w) },
		func(w chan<- usermsg.Message) { n.lcl = without(n.lcl, w) })
	if err != nil {
		return LedgerRef{}, fmt.Errorf("last ledger: %w", err)
	}
	l := m.(*usermsg.LCL)
	return LedgerRef{l.LedgerSeqNo, Hash(l.LedgerHash)}, nil
}

// Ledger asks the node for a ledger, see Client.Ledger.
func (n *Node) Ledger(ctx context.Context, seqNo uint64, inputs, outputs bool) (Ledger, error) {
	m, err := n.askByID(ctx, usermsg.Request{Type: usermsg.RequestLedgerQuery, SeqNo: seqNo, IncludeInputs: inputs, IncludeOutputs: outputs})
	if err != nil {
		return Ledger{}, fmt.Errorf("ledger %d: %w", seqNo, err)
	}
	r, ok := m.(*usermsg.QueryResult)
	switch {
	case !ok:
		return Ledger{}, fmt.Errorf("ledger %d: answered by %T", seqNo, m)
	case r.Error != "":
		return Ledger{}, fmt.Errorf("ledger %d: %w: %s", seqNo, ErrQueryFailed, r.Error)
	case len(r.Results) == 0:
		return Ledger{}, fmt.Errorf("ledger %d: %w", seqNo, ErrNotFound)
	}
	return ledgerOf(&r.Results[0]), nil
}

// answer gives m to all of the waiting.
func answer(waiting []chan<- usermsg.Message, m usermsg.Message) []chan<- usermsg.Message {
	for _, w := range waiting {
		w <- m
	}
	return nil
}

// reply gives m to whoever waits for the request with the id.
func (n *Node) reply(id string, m usermsg.Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	// Only the first answer counts: a contract may say more than one thing.
	if w, ok := n.replies[id]; ok {
		delete(n.replies, id)
		w <- m
	}
}

// receive takes a message of the node.
func (n *Node) receive(m usermsg.Message) {
	c, h := n.client, &n.client.opt.Handler
	switch m := m.(type) {
	case *usermsg.InputStatus:
		c.status(m)
	case *usermsg.Output:
		c.output(n, m)
	case *usermsg.ReadResponse:
		n.reply(m.ReplyFor, m)
	case *usermsg.QueryResult:
		n.reply(m.ReplyFor, m)
	case *usermsg.Stat:
		n.mu.Lock()
		n.stat = answer(n.stat, m)
		n.mu.Unlock()
	case *usermsg.LCL:
		n.mu.Lock()
		n.lcl = answer(n.lcl, m)
		n.mu.Unlock()
		c.heard(m.LedgerSeqNo)
	case *usermsg.UNLChange:
		c.learnUNL(n, m.UNL)
		if h.UNLChange != nil {
			c.event(func() { h.UNLChange(n.server, m.UNL) })
		}
	case *usermsg.LedgerCreated:
		c.heard(m.Ledger.SeqNo)
		if h.Ledger != nil {
			c.event(func() { h.Ledger(n.server, ledgerOf(&m.Ledger)) })
		}
	case *usermsg.VoteStatus:
		if h.VoteStatus != nil {
			c.event(func() { h.VoteStatus(n.server, m.Status) })
		}
	case *usermsg.ProposalHealth:
		if h.Health != nil {
			p := &ProposalHealth{latencyOf(m.CommLatency), latencyOf(m.ReadLatency), m.BatchSize}
			c.event(func() { h.Health(n.server, Health{Proposal: p}) })
		}
	case *usermsg.Connectivity:
		if h.Health != nil {
			p := &Connectivity{m.PeerCount, m.WeaklyConnected}
			c.event(func() { h.Health(n.server, Health{Connectivity: p}) })
		}
	}
}
