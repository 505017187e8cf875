package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/contract"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/mesh"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// What nodes send each other.
const (
	kindConsensus mesh.Kind = 1 + iota // a consensus.Message
	kindBundle                         // an inputs.Bundle
	kindPresence                       // an inputs.Presence
	kindNPL                            // an nplMessage
	kindOutputSig                      // a member's signature of outputs, after the ledger
)

// What nodes ask each other for.
const (
	kindLedgers  mesh.Kind = 32 + iota // u64 from, u16 count: closed ledgers
	kindTip                            // nothing: the last closed ledger and the header before it, see serveTip
	kindContent                        // a digest: a kind byte and a bundle or list of users
	kindHeader                         // a hash: a candidate or closed ledger's header
	kindNonces                         // a hash: the nonce table
	kindPatch                          // a hash: a patch.cfg
	kindState                          // a request of package statesync
	kindAccepted                       // u64: the hashes of the inputs that a ledger has accepted
	kindAttest                         // an attestRequest: a member's attestation
	kindChanges                        // u64: the changes of the members after that ledger
	kindFates                          // hashes of inputs: in which ledgers they were accepted, see serveFates
)

const (
	// maxAnswer bounds the answer to kindLedgers, in bytes.
	maxAnswer = 4 << 20
	// maxRange is how many ledgers are asked for at a time.
	maxRange = 512
)

var _ mesh.Handler = (*node)(nil)

// Receive implements mesh.Handler. Signatures are checked here, in the
// goroutine of the peer's connection, so that the loop does not wait for them.
func (n *node) Receive(from key.Public, kind mesh.Kind, payload []byte) mesh.Verdict {
	switch kind {
	case kindConsensus:
		return n.receiveConsensus(from, payload)
	case kindBundle:
		return n.receiveBundle(from, payload)
	case kindPresence:
		return n.receivePresence(payload)
	case kindNPL:
		return n.receiveNPL(payload)
	case kindOutputSig:
		return n.receiveOutputSig(payload)
	}
	return mesh.BadMessage
}

func (n *node) receiveConsensus(from key.Public, payload []byte) mesh.Verdict {
	m, err := consensus.Decode(payload)
	if err != nil {
		n.log.Warn("bad message", "from", from.Short(), "err", err)
		return mesh.BadMessage
	}
	if err := consensus.VerifySignature(n.verifier, n.chain, m); err != nil {
		n.log.Warn("bad signature", "from", from.Short(), "err", err)
		return mesh.BadSignature
	}
	n.do(func(l *loop) { l.receive(from, m) })
	return mesh.Accept
}

// receiveBundle passes a bundle on to the checkers, since its many signatures
// would hold up the votes behind it.
func (n *node) receiveBundle(from key.Public, payload []byte) mesh.Verdict {
	b, err := inputs.DecodeBundle(payload)
	if err != nil {
		n.log.Warn("bad message", "from", from.Short(), "err", err)
		return mesh.BadMessage
	}
	if n.content.holds(b.Digest()) || !n.arriving.begin(b.Digest()) {
		return mesh.Accept
	}
	if len(b.Items) <= checkedInline {
		n.checkBundle(arrival{from, b})
		return mesh.Accept
	}
	select {
	case n.unchecked <- arrival{from, b}:
		return mesh.Accept
	case <-n.stopping:
		return mesh.Ignore
	}
}

// checkedInline is up to how many inputs a bundle is checked at once in the
// goroutine of the connection, which takes less time than finding another one.
const checkedInline = 8

// arrival is a bundle whose signatures have not been checked.
type arrival struct {
	from key.Public
	*inputs.Bundle
}

// check verifies bundles until ctx ends.
func (n *node) check(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-n.unchecked:
			n.checkBundle(a)
		}
	}
}

// checkBundle verifies a bundle and makes it pending.
func (n *node) checkBundle(a arrival) {
	defer n.arriving.end(a.Digest())
	if err := a.Verify(1, n.keys); err != nil {
		n.log.Warn("bad bundle of inputs", "from", a.from.Short(), "origin", a.Origin.Short(), "err", err)
		// Others pass bundles on before they have checked them.
		if a.from == a.Origin {
			n.mesh.ReportBad(a.from, mesh.BadSignature)
		}
		return
	}
	if err := n.content.addBundle(a.Bundle, false); err != nil {
		n.log.Warn("a bundle of inputs is not kept", "origin", a.Origin.Short(), "err", err)
		return
	}
	n.do(func(l *loop) { l.arrived() })
}

func (n *node) receivePresence(payload []byte) mesh.Verdict {
	p, err := inputs.DecodePresence(payload)
	if err != nil {
		n.log.Warn("bad list of users", "err", err)
		return mesh.BadMessage
	}
	if !slices.Contains(n.conf.Load().Contract.UNL, p.Origin) {
		// Only members propose, and anybody can make keys. Should it be of a
		// member that is not known here yet, it is asked for when it is needed.
		return mesh.Ignore
	}
	if err := n.content.addPresence(p, 0); err != nil {
		n.log.Error("a list of users cannot be kept", "origin", p.Origin.Short(), "err", err)
		return mesh.Ignore
	}
	n.do(func(l *loop) { l.arrived() })
	return mesh.Accept
}

func (n *node) receiveNPL(payload []byte) mesh.Verdict {
	m, err := decodeNPL(payload)
	if err != nil {
		n.log.Warn("bad message", "err", err)
		return mesh.BadMessage
	}
	conf := n.conf.Load()
	if !slices.Contains(conf.Contract.UNL, m.author) {
		return mesh.Ignore
	}
	if !n.verifier.Verify(m.author, m.signed(conf.Contract.ID), m.sig[:]) {
		return mesh.BadSignature
	}
	n.exec.npl.receive(m)
	return mesh.Accept
}

// PeerUp implements mesh.Handler: a new peer is told where this node is.
func (n *node) PeerUp(k key.Public) {
	n.do(func(l *loop) { l.greet(k) })
	n.connectivity()
}

// greet tells a peer where this node is.
func (l *loop) greet(k key.Public) {
	if !l.n.admits(k) {
		return
	}
	for _, m := range l.core.Greeting() {
		l.send(consensus.Send{To: k, Message: m})
	}
	if p := l.n.content.presence(l.presence); p != nil {
		if err := l.n.mesh.Send(k, kindPresence, p.Encoded()); err != nil {
			l.n.log.Debug("message not sent", "to", k.Short(), "err", err)
		}
	}
}

// admits reports whether a peer may follow the chain: anybody in public mode,
// members only in private mode (spec/hotpocket.md section 4.6).
func (n *node) admits(k key.Public) bool {
	conf := n.conf.Load()
	return conf.Contract.Consensus.Public() || slices.Contains(conf.Contract.UNL, k)
}

// scope is to whom consensus and what belongs to it is flooded.
func (n *node) scope() mesh.Scope {
	if n.conf.Load().Contract.Consensus.Public() {
		return mesh.ScopeAll
	}
	return mesh.ScopeUNL
}

// PeerDown implements mesh.Handler.
func (n *node) PeerDown(k key.Public) {
	n.connectivity()
}

// changePeers carries out a peer_changeset of the contract.
func (n *node) changePeers(c contract.PeerChange) {
	if n.conf.Load().Mesh.PeerDiscovery.Enabled {
		n.log.Warn("the contract wants to change the known peers, which is ignored while mesh.peer_discovery.enabled is true")
		return
	}
	if err := n.mesh.ChangePeers(c.Add, c.Remove, c.ReplaceAll); err != nil {
		n.log.Warn("the contract's change of the known peers cannot be used", "err", err)
	}
}

var (
	errNotHeld = errors.New("not held")
	// ErrPrivate is what a peer answers, and is wrapped by the error of a node that
	// cannot join before the contract has put its key into the UNL.
	ErrPrivate = errors.New("only members may follow this chain (consensus.mode is private)")
)

// Serve implements mesh.Handler.
func (n *node) Serve(ctx context.Context, from key.Public, kind mesh.Kind, payload []byte) ([]byte, error) {
	if !n.awake.Load() {
		return nil, errNotHeld
	}
	if !n.admits(from) {
		return nil, ErrPrivate
	}
	switch kind {
	case kindLedgers:
		return n.serveLedgers(payload)
	case kindTip:
		return n.serveTip()
	case kindAttest:
		return n.serveAttest(ctx, payload)
	case kindChanges:
		return n.serveChanges(payload)
	case kindFates:
		return n.serveFates(payload)
	case kindAccepted:
		return n.serveAccepted(payload)
	case kindState:
		return n.states.server.Serve(ctx, from, payload)
	}
	if len(payload) != digest.Size {
		return nil, fmt.Errorf("request of %d bytes, want a hash", len(payload))
	}
	hash := digest.Hash(payload)
	switch kind {
	case kindContent:
		kind, b := n.content.encoded(hash)
		if b == nil {
			return nil, errNotHeld
		}
		return append([]byte{kind}, b...), nil
	case kindHeader:
		return n.serveHeader(hash)
	case kindNonces:
		if b := n.tables.get(hash, n.nonces.Load()); b != nil {
			return b, nil
		}
		return nil, errNotHeld
	case kindPatch:
		if b := n.patches.get(hash); b != nil {
			return b, nil
		}
		return nil, errNotHeld
	}
	return nil, fmt.Errorf("unknown request %d", kind)
}

func (n *node) serveLedgers(payload []byte) ([]byte, error) {
	r := wire.NewReader(payload)
	from, count := r.U64(), uint64(r.U16())
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("request for ledgers: %w", err)
	}
	if from == 0 || count == 0 {
		return nil, fmt.Errorf("request for %d ledgers from number %d", count, from)
	}
	var out []byte
	// What is not durable here may yet be forgotten: see consensus.Action.
	for rec, err := range n.store.Ledgers(from, min(from+min(count, maxRange)-1, n.shown.Load())) {
		if err != nil {
			return nil, err
		}
		if rec.Seq != from || len(out)+len(rec.Body) > maxAnswer && len(out) > 0 {
			break
		}
		out = wire.AppendBytes(out, rec.Body)
		from++
	}
	return out, nil
}

func (n *node) serveHeader(hash digest.Hash) ([]byte, error) {
	var b []byte
	done := n.ask(func(l *loop) {
		if h, ok := l.core.Candidate(hash); ok {
			b = h.Append(nil)
		}
	})
	if !done {
		return nil, errNotHeld
	}
	if b != nil {
		return b, nil
	}
	r, ok, err := n.store.ByHash(hash)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errNotHeld
	}
	h, _, err := consensus.DecodeLedger(r.Body)
	if err != nil {
		return nil, err
	}
	return h.Append(nil), nil
}
