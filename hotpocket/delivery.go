package hotpocket

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"evernode/hotpocket/gateway"
	"evernode/hotpocket/key"
	"evernode/hotpocket/mesh"
	"evernode/hotpocket/output"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

const (
	// maxDeliveries bounds the runs whose outputs wait to be delivered.
	maxDeliveries = 64
	// signaturePatience is how long outputs wait for signatures of members that
	// are expected to give them.
	signaturePatience = 250 * time.Millisecond
	// keptRoots is of how many runs the signatures of outputs are kept.
	keptRoots = 64
)

// signatures collects the members' signatures of output trees. A ledger closes
// with the results of q members, while existing clients that trust certain nodes
// want signatures of four fifths of them (spec/hotpocket.md section 0, fact 8);
// so those that come after the ledger count as well.
type signatures struct {
	mu      sync.Mutex
	of      map[digest.Hash]map[key.Public]key.Signature
	order   []digest.Hash
	changed chan struct{} // closed at the next change
}

func newSignatures() *signatures {
	return &signatures{of: make(map[digest.Hash]map[key.Public]key.Signature), changed: make(chan struct{})}
}

// add takes a member's signature of a root, which the caller has verified.
func (s *signatures) add(root digest.Hash, by key.Public, sig key.Signature) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.of[root]
	if of == nil {
		if len(s.order) == keptRoots {
			delete(s.of, s.order[0])
			s.order = slices.Delete(s.order, 0, 1)
		}
		of = make(map[key.Public]key.Signature)
		s.of[root] = of
		s.order = append(s.order, root)
	}
	if _, known := of[by]; !known {
		of[by] = sig
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// by returns the signatures of a root by members, in their order, and a channel
// that is closed when there may be more.
func (s *signatures) by(root digest.Hash, members []key.Public) ([]output.Signature, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []output.Signature
	for _, m := range members {
		if sig, ok := s.of[root][m]; ok {
			out = append(out, output.Signature{Key: m, Sig: sig})
		}
	}
	return out, s.changed
}

// delivery is what a confirmed run has to say to users.
type delivery struct {
	*finished
	task
}

// deliver hands the confirmed outputs of a run over to be delivered.
func (n *node) deliver(f *finished, t task) {
	n.keepOutputs(t.Header.Height, f)
	if len(f.outputs) == 0 {
		return
	}
	for _, s := range t.OutputSigs {
		n.signed.add(f.result.Output, s.Author, s.Sig)
	}
	n.signLate(f, t)
	if t.replay {
		return
	}
	select {
	case n.deliveries <- delivery{f, t}:
	case <-n.stopping:
	}
}

// deliverAll delivers outputs in the order of their ledgers until ctx ends.
func (n *node) deliverAll(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-n.deliveries:
			sigs := n.awaitSignatures(ctx, d)
			outs := make([]gateway.UserOutput, len(d.outputs))
			for i := range d.outputs {
				o := &d.outputs[i]
				outs[i] = gateway.UserOutput{User: o.Key, Outputs: o.Messages, Hash: d.hashes[o.Key]}
			}
			n.gate.Outputs(d.Header.Height, d.Hash, d.tree, outs, sigs)
		}
	}
}

// awaitSignatures returns the signatures of a run's outputs. When there are too
// few for clients that check them, it waits a little for members that the ledger
// expects to take part, unless other outputs pile up meanwhile.
func (n *node) awaitSignatures(ctx context.Context, d delivery) []output.Signature {
	p := parameters(d.conf)
	members := p.Members
	enough := max(output.Needed(len(members)), p.Quorum())
	expected := d.Header.Expected.Keys(members)
	root := d.result.Output
	patience := time.After(signaturePatience)
	for {
		sigs, changed := n.signed.by(root, members)
		missing := slices.ContainsFunc(expected, func(m key.Public) bool {
			return !slices.ContainsFunc(sigs, func(s output.Signature) bool { return s.Key == m })
		})
		if len(sigs) >= enough || !missing || len(n.deliveries) > maxDeliveries/4 {
			return sigs
		}
		select {
		case <-ctx.Done():
			return sigs
		case <-patience:
			return sigs
		case <-changed:
		}
	}
}

// signLate signs a run that the others have confirmed before this node's result
// was there, so that users who want many signatures get this one too.
func (n *node) signLate(f *finished, t task) {
	self := n.key.Public()
	if !n.validates(t.conf) {
		return
	}
	if sigs, _ := n.signed.by(f.result.Output, []key.Public{self}); len(sigs) > 0 {
		return
	}
	sig := output.Sign(n.key, f.result.Output)
	n.signed.add(f.result.Output, self, sig)
	if t.replay {
		return
	}
	n.mesh.Flood(self, kindOutputSig, encodeOutputSig(self, f.result.Output, sig), mesh.ScopeAll)
}

func encodeOutputSig(by key.Public, root digest.Hash, sig key.Signature) []byte {
	b := append([]byte(nil), by[:]...)
	b = append(b, root[:]...)
	return append(b, sig[:]...)
}

func decodeOutputSig(b []byte) (by key.Public, root digest.Hash, sig key.Signature, err error) {
	r := wire.NewReader(b)
	r.Fixed(by[:])
	r.Fixed(root[:])
	r.Fixed(sig[:])
	if err = r.Close(); err == nil && root.IsZero() {
		err = fmt.Errorf("nothing is signed")
	}
	if err != nil {
		return key.Public{}, digest.Hash{}, key.Signature{}, fmt.Errorf("signature of outputs: %w", err)
	}
	return by, root, sig, nil
}

// receiveOutputSig takes a late signature.
func (n *node) receiveOutputSig(payload []byte) mesh.Verdict {
	by, root, sig, err := decodeOutputSig(payload)
	if err != nil {
		n.log.Warn("bad message", "err", err)
		return mesh.BadMessage
	}
	if !slices.Contains(n.conf.Load().Contract.UNL, by) {
		return mesh.Ignore
	}
	if !n.verifier.Verify(by, root[:], sig[:]) {
		return mesh.BadSignature
	}
	n.signed.add(root, by, sig)
	return mesh.Accept
}
