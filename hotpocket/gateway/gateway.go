package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
	"evernode/internal/digest"
	"evernode/internal/usermsg"

	"github.com/lxzan/gws"
)

// versionPrefix is what clients insist on (spec/hotpocket.md section 0, row 1).
const versionPrefix = "0.6."

// Config is what a gateway has to know.
type Config struct {
	// ContractID is the contract's id, not empty.
	ContractID string
	// ContractVersion returns contract.version, not empty. It is called for
	// each connection.
	ContractVersion func() string
	// HPVersion is what the node calls itself, starting with "0.6.".
	HPVersion string
	// Key is the node's key, with which it proves itself to users.
	Key key.Private
	// UNL returns the current UNL. It is called for each connection and the
	// result is not changed.
	UNL func() []key.Public
	// Private returns whether contract.consensus.mode is private, so that users
	// must not see each other's inputs and outputs. Nil stands for never.
	Private func() bool
	// CertFile and KeyFile name the TLS certificate chain and its key, both in
	// PEM.
	CertFile, KeyFile string
	Limits            Limits
	// Clock is the time by which limits are measured; nil is the system's.
	Clock Clock
}

// Node is what stands behind the gateway. Its methods are called by many
// goroutines at once.
type Node interface {
	// Submit takes an input whose signature has not been verified yet, or says
	// why not. It must not block; a node with no room answers
	// inputs.InputsOverflow. What is found out later about the input comes back
	// through Accepted or Rejected.
	Submit(s inputs.Submission) inputs.Reason
	// Read runs the contract on a read request and returns its outputs. It
	// ends early when ctx does, which is the case when the user is gone.
	Read(ctx context.Context, user key.Public, content []byte) ([][]byte, error)
	// Stat describes the node; the gateway fills in HPVersion.
	Stat() usermsg.Stat
	// LastLedger returns the last closed ledger's number and hash.
	LastLedger() (seq uint64, hash digest.Hash)
	// Query returns the ledgers that q asks for, with the inputs and outputs of
	// all users where they are asked for and kept, and none for a ledger that
	// does not exist. What a user may not see is taken out by the gateway.
	Query(ctx context.Context, q Query) ([]usermsg.LedgerRecord, error)
}

// Query is a ledger query (spec/hotpocket.md section 1.11).
type Query struct {
	User    key.Public
	SeqNo   uint64
	Inputs  bool
	Outputs bool
}

// Gateway serves users. Make one with New.
type Gateway struct {
	cfg     Config
	node    Node
	log     *slog.Logger
	clock   Clock
	limits  Limits
	cert    *certificate
	hosts   *hosts
	reads   *readQueue
	budget  budget
	counts  counters
	upgrade *gws.Upgrader
	buffers sync.Pool // of *[]byte, for the outboxes

	mu       sync.RWMutex
	users    map[key.Public][]*session // verified sessions by user
	sessions int                       // how many there are in users
	version  uint64                    // grows whenever the set of users changes
	sorted   []key.Public              // the set of users, nil when out of date
	conns    map[*connection]struct{}  // everything open, verified or not
	closing  bool
	vote     string // the last vote status that was published

	wait sync.WaitGroup // one for each goroutine of ours
}

// New makes a gateway. It loads the TLS certificate, so that a node without
// one does not start.
func New(cfg Config, node Node, log *slog.Logger) (*Gateway, error) {
	switch {
	case cfg.ContractID == "":
		return nil, errors.New("user gateway: no contract id")
	case !strings.HasPrefix(cfg.HPVersion, versionPrefix):
		return nil, fmt.Errorf("user gateway: version %q does not start with %s, clients would refuse it", cfg.HPVersion, versionPrefix)
	case cfg.Key.IsZero():
		return nil, errors.New("user gateway: no node key")
	case cfg.ContractVersion == nil || cfg.UNL == nil:
		return nil, errors.New("user gateway: no source of the contract version or of the UNL")
	}
	limits, err := cfg.Limits.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("user gateway: %w", err)
	}
	cert, err := loadCertificate(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("user gateway: %w", err)
	}
	g := &Gateway{
		cfg: cfg, node: node, log: log, clock: cfg.Clock, limits: limits, cert: cert,
		users: map[key.Public][]*session{}, conns: map[*connection]struct{}{},
	}
	if g.clock == nil {
		g.clock = systemClock{}
	}
	g.hosts = newHosts(g.clock, limits)
	g.budget.limit = limits.TotalBytes
	g.buffers.New = func() any { b := make([]byte, 0, 2<<10); return &b }
	g.reads = newReadQueue(limits.ConcurrentReads, g.runRead)
	g.upgrade = gws.NewUpgrader(events{}, &gws.ServerOption{
		ReadMaxPayloadSize:  limits.MaxMessage,
		WriteMaxPayloadSize: limits.MaxMessage, // we only write control frames through gws
		NewSession:          func() gws.SessionStorage { return &session{} },
		HandshakeTimeout:    connectTimeout,
	})
	return g, nil
}

// Serve accepts users until ctx ends, then closes all connections, waits for
// all of its goroutines and returns nil. It returns an error when the listener
// is closed by others. It closes ln and can be called once.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	g.reads.start(ctx)
	err := g.acceptLoop(ctx, ln)
	ln.Close()
	g.closeAll()
	cancel()
	g.reads.stop()
	g.wait.Wait()
	return err
}

// closeAll tells everybody that the node goes down.
func (g *Gateway) closeAll() {
	g.mu.Lock()
	g.closing = true
	open := make([]*connection, 0, len(g.conns))
	for c := range g.conns {
		open = append(open, c)
	}
	g.mu.Unlock()
	for _, c := range open {
		c.close(closeGoingAway, "node is going down")
	}
}

// ReloadCertificate reads the TLS certificate and key again. New connections
// use them, existing ones stay. After an error the old certificate stays in
// use.
func (g *Gateway) ReloadCertificate() error {
	if err := g.cert.load(); err != nil {
		return fmt.Errorf("user gateway: %w", err)
	}
	return nil
}

// Users returns the keys of all connected users, sorted bytewise, and a number
// that grows whenever the set changes. The slice is shared and must not be
// changed. The call is cheap while the set stays the same.
func (g *Gateway) Users() (users []key.Public, version uint64) {
	g.mu.RLock()
	users, version = g.sorted, g.version
	g.mu.RUnlock()
	if users != nil {
		return users, version
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sorted == nil {
		g.sorted = make([]key.Public, 0, len(g.users))
		for u := range g.users {
			g.sorted = append(g.sorted, u)
		}
		slices.SortFunc(g.sorted, key.Public.Compare)
	}
	return g.sorted, g.version
}

// Connected reports whether a user is connected, so that a node need not
// prepare outputs for those who are not.
func (g *Gateway) Connected(user key.Public) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.users[user] != nil
}

// errFull is why a user who proved its key is not let in.
var errFull = errors.New("node has its maximum number of users")

// admit registers a verified session and, so that nothing else can reach the
// user before it, sends the server's response first, if there is one.
func (g *Gateway) admit(s *session, response []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return errors.New("node is going down")
	}
	if g.sessions >= g.limits.MaxConnections {
		return errFull
	}
	s.conn.verified.Store(true)
	g.hosts.verified(s.conn.addr)
	g.counts.handshakes.Add(1)
	if len(response) > 0 {
		s.conn.out.frame(response)
	}
	before := g.users[s.user]
	// A reader may hold the old slice.
	g.users[s.user] = append(before[:len(before):len(before)], s)
	g.sessions++
	if len(before) == 0 {
		g.version++
		g.sorted = nil
	}
	return nil
}

// leave takes a verified session out again.
func (g *Gateway) leave(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var rest []*session
	for _, o := range g.users[s.user] {
		if o != s {
			rest = append(rest, o)
		}
	}
	g.sessions--
	if len(rest) > 0 {
		g.users[s.user] = rest
		return
	}
	delete(g.users, s.user)
	g.version++
	g.sorted = nil
}

// AcceptedInput names an input that a ledger contains.
type AcceptedInput struct {
	User key.Public
	Hash digest.Hash
}

// Accepted tells users that their inputs are in the ledger that was just
// closed. Inputs of users who are not connected here are passed over.
func (g *Gateway) Accepted(seq uint64, ledger digest.Hash, accepted []AcceptedInput) {
	m := &usermsg.InputStatus{Accepted: true, LedgerSeqNo: seq, LedgerHash: ledger}
	g.mu.RLock()
	defer g.mu.RUnlock()
	var user key.Public
	var sessions []*session
	for i := range accepted {
		if i == 0 || accepted[i].User != user {
			user = accepted[i].User
			sessions = g.users[user]
		}
		m.InputHash = accepted[i].Hash
		for _, s := range sessions {
			s.send(m)
		}
	}
}

// Rejected tells a user why an input that Submit had taken was rejected after
// all. A bad signature counts as a bad message of the user.
func (g *Gateway) Rejected(user key.Public, input digest.Hash, reason inputs.Reason) {
	m := &usermsg.InputStatus{Reason: string(reason), InputHash: input}
	g.mu.RLock()
	sessions := g.users[user]
	g.mu.RUnlock()
	for _, s := range sessions {
		s.send(m)
		if reason == inputs.BadSignature {
			s.bad("input with a bad signature")
		}
	}
}

// UserOutput holds the outputs of one run for one user.
type UserOutput struct {
	User    key.Public
	Outputs [][]byte
	Hash    digest.Hash // output.Hash of the two
}

// Outputs delivers the outputs of the run that ledger seq confirms: tree is the
// tree over all outputs of the run, sigs are UNL members' signatures of its
// root. Outputs of users who are not connected here are passed over.
func (g *Gateway) Outputs(seq uint64, ledger digest.Hash, tree *output.Tree, outputs []UserOutput, sigs []output.Signature) {
	for i := range outputs {
		o := &outputs[i]
		g.mu.RLock()
		sessions := g.users[o.User]
		g.mu.RUnlock()
		if len(sessions) == 0 {
			continue
		}
		node, ok := tree.Collapse(o.Hash)
		if !ok {
			g.log.Error("output of a user is not in the output tree, it cannot be delivered", "user", o.User.Short(), "ledger", seq)
			continue
		}
		m := &usermsg.Output{LedgerSeqNo: seq, LedgerHash: ledger, Outputs: o.Outputs, OutputHash: o.Hash, Tree: node, Signatures: sigs}
		for _, s := range sessions {
			s.send(m)
		}
	}
}

// Publish sends an event to those who subscribed to its channel: a
// *usermsg.UNLChange, *usermsg.LedgerCreated, *usermsg.VoteStatus,
// *usermsg.ProposalHealth or *usermsg.Connectivity; other messages are not
// events and an error. A vote status is sent only when it differs from the last
// one (spec/hotpocket.md section 1.12).
func (g *Gateway) Publish(m usermsg.Message) error {
	var ch usermsg.Channel
	switch m := m.(type) {
	case *usermsg.UNLChange:
		ch = usermsg.ChannelUNLChange
	case *usermsg.LedgerCreated:
		ch = usermsg.ChannelLedgerEvent
	case *usermsg.VoteStatus:
		ch = usermsg.ChannelLedgerEvent
		g.mu.Lock()
		same := g.vote == m.Status
		g.vote = m.Status
		g.mu.Unlock()
		if same {
			return nil
		}
	case *usermsg.ProposalHealth, *usermsg.Connectivity:
		ch = usermsg.ChannelHealthEvent
	default:
		return fmt.Errorf("user gateway: %T is not an event", m)
	}
	var encoded [2][]byte
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, sessions := range g.users {
		for _, s := range sessions {
			if s.subscribed(ch) {
				if encoded[s.protocol] == nil {
					encoded[s.protocol] = m.Append(nil, s.protocol)
				}
				s.conn.out.frame(encoded[s.protocol])
				s.touch()
			}
		}
	}
	return nil
}

// runRead is what the workers of the read queue do.
func (g *Gateway) runRead(ctx context.Context, s *session, r readRequest) {
	outputs, err := g.node.Read(ctx, s.user, r.content)
	if err != nil {
		// The protocol has no word for it; the client's own timeout ends it.
		g.counts.readsFailed.Add(1)
		g.log.Debug("read request failed", "user", s.user.Short(), "error", err)
		return
	}
	for _, o := range outputs {
		s.send(&usermsg.ReadResponse{ReplyFor: r.id, Content: o})
	}
}

// acceptBackoff is how long the accept loop waits after an error, doubling up
// to acceptBackoffMax: running out of file descriptors passes.
const (
	acceptBackoff    = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

func (g *Gateway) acceptLoop(ctx context.Context, ln net.Listener) error {
	backoff := time.Duration(0)
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept users: %w", err)
		case err != nil:
			backoff = min(max(2*backoff, acceptBackoff), acceptBackoffMax)
			g.counts.acceptErrors.Add(1)
			g.log.Warn("cannot accept a user, waiting", "error", err, "wait", backoff)
			wait := time.NewTimer(backoff)
			select {
			case <-ctx.Done():
				wait.Stop()
				return nil
			case <-wait.C:
			}
			continue
		}
		backoff = 0
		g.accept(ctx, conn)
	}
}
