package hotpocket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/gateway"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

const (
	// keptSelections and keptSelectionBytes bound what is remembered of which
	// inputs past ledgers have accepted.
	keptSelections     = 128
	keptSelectionBytes = 1 << 20
	// maxOwed bounds the ledgers whose statuses this node owes its users.
	maxOwed = 256
	// owedFor is for how long a node tries to find out about the inputs of a
	// ledger that it has left out.
	owedFor = 2 * time.Minute
)

// selections remembers which inputs the last ledgers have accepted, for nodes
// that have left a ledger out and owe their users an answer.
type selections struct {
	mu    sync.Mutex
	kept  map[uint64][]byte
	order []uint64
	bytes int
	// heard are inputs that ledgers which this node has left out have accepted,
	// asked those of which others are being asked whether that is so, with how they
	// are to be turned away if not.
	heard map[digest.Hash]bool
	asked map[digest.Hash]inputs.Reason
}

// put keeps the accepted inputs of a ledger.
func (x *selections) put(seq uint64, s inputs.Selection) {
	b := acceptedHashes(s)
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.kept[seq]; ok || len(b) == 0 {
		return
	}
	if x.kept == nil {
		x.kept = make(map[uint64][]byte)
	}
	x.kept[seq] = b
	x.order = append(x.order, seq)
	x.bytes += len(b)
	for len(x.order) > keptSelections || x.bytes > keptSelectionBytes {
		x.bytes -= len(x.kept[x.order[0]])
		delete(x.kept, x.order[0])
		x.order = x.order[1:]
	}
}

func (x *selections) get(seq uint64) []byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.kept[seq]
}

// recent is in how many of the last ledgers a copy of an input is looked for.
const recent = 64

// has reports whether one of the last ledgers has accepted an input.
func (x *selections) has(input digest.Hash) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.heard[input] {
		return true
	}
	for _, seq := range x.order[max(0, len(x.order)-recent):] {
		for b := x.kept[seq]; len(b) > 0; b = b[digest.Size:] {
			if digest.Hash(b[:digest.Size]) == input {
				return true
			}
		}
	}
	return false
}

// reject tells a user that an input was turned away, unless it is a second copy
// of one that was accepted, sent through two nodes for instance: an input has
// one status.
func (n *node) reject(user key.Public, input digest.Hash, reason inputs.Reason) {
	if !n.selections.has(input) && !n.selections.hold(input, reason) {
		if n.gate.Connected(user) {
			n.counts.rejected.Add(1)
		}
		n.gate.Rejected(user, input, reason)
	}
}

// acceptedHashes returns what Selection.InputHash hashes.
func acceptedHashes(s inputs.Selection) []byte {
	all := make([]*inputs.Input, 0, s.Count())
	for i := range s.Users {
		for j := range s.Users[i].Inputs {
			all = append(all, &s.Users[i].Inputs[j])
		}
	}
	slices.SortFunc(all, func(a, b *inputs.Input) int {
		return cmp.Or(cmp.Compare(a.Nonce, b.Nonce), a.Hash.Compare(b.Hash))
	})
	b := make([]byte, 0, len(all)*digest.Size)
	for _, in := range all {
		b = append(b, in.Hash[:]...)
	}
	return b
}

// owe takes note of a ledger that this node has left out on its way to a later
// one. Users of this node may have inputs in it and wait for their status.
func (n *node) owe(t task) {
	if t.replay {
		return
	}
	var own []*inputs.Bundle
	for _, d := range t.Header.Bundles {
		b := t.bundles[d]
		if b == nil {
			b = n.content.bundle(d)
		}
		if b != nil && b.Origin == n.key.Public() {
			own = append(own, b)
		}
	}
	if len(own) == 0 {
		return
	}
	if n.owed.Add(1) > maxOwed {
		n.owed.Add(-1)
		n.intake.done(own)
		n.log.Error("users are not told what became of their inputs: too many ledgers were left out", "ledger", t.Header.Height)
		return
	}
	n.spawn(func(ctx context.Context) {
		defer n.owed.Add(-1)
		defer n.intake.done(own)
		if err := n.answer(ctx, t, own); err != nil && ctx.Err() == nil {
			n.log.Error("users are not told what became of their inputs", "ledger", t.Header.Height, "err", err)
		}
	})
}

// answer tells users what a ledger has made of the inputs in bundles of this
// node. The members agree on a hash of what was accepted, so what it was can be
// asked of anybody.
func (n *node) answer(ctx context.Context, t task, own []*inputs.Bundle) error {
	h := &t.Header
	err := errors.New("no later ledger has confirmed its run")
	for until := time.Now().Add(owedFor); time.Now().Before(until); {
		verdict, known, e := n.verdict(h)
		if e != nil {
			return e
		}
		if known && verdict.Outcome == consensus.Failed {
			n.eachInput(own, func(in *inputs.Input) { n.gate.Rejected(in.User, in.Hash, reasonFailed) })
			return nil
		}
		if known {
			var accepted map[digest.Hash]bool
			if accepted, err = n.acceptedIn(ctx, t, verdict.Result.Inputs); err == nil {
				n.tellOwed(t, own, accepted)
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return err
}

// verdict returns the ledger that settled the run of another one.
func (n *node) verdict(of *consensus.Header) (h consensus.Header, known bool, err error) {
	for seq := of.Height + 1; ; seq++ {
		r, ok, err := n.store.Get(seq)
		if err != nil || !ok {
			return h, false, err
		}
		if h, _, err = consensus.DecodeLedger(r.Body); err != nil {
			return h, false, fmt.Errorf("ledger %d: %w", seq, err)
		}
		if h.Outcome != consensus.Pending {
			return h, true, nil
		}
	}
}

// acceptedIn returns the inputs that a ledger has accepted, given the hash of
// them all.
func (n *node) acceptedIn(ctx context.Context, t task, want digest.Hash) (map[digest.Hash]bool, error) {
	accepted := make(map[digest.Hash]bool)
	if want.IsZero() {
		return accepted, nil
	}
	use := func(b []byte) error {
		if len(b)%digest.Size != 0 || digest.Sum(b) != want {
			return errors.New("other inputs than the ledger has accepted")
		}
		for ; len(b) > 0; b = b[digest.Size:] {
			accepted[digest.Hash(b[:digest.Size])] = true
		}
		return nil
	}
	// Most often nothing was turned away.
	bundles := make([]*inputs.Bundle, 0, len(t.Header.Bundles))
	for _, d := range t.Header.Bundles {
		b := t.bundles[d]
		if b == nil {
			b = n.content.bundle(d)
		}
		if b != nil {
			bundles = append(bundles, b)
		}
	}
	all := inputs.Select(t.parameters(), inputs.NewNonces(), bundles)
	if use(acceptedHashes(all)) == nil {
		return accepted, nil
	}
	if err := n.request(ctx, nil, kindAccepted, wire.AppendU64(nil, t.Header.Height), use); err != nil {
		return nil, err
	}
	return accepted, nil
}

func (n *node) eachInput(of []*inputs.Bundle, f func(*inputs.Input)) {
	seen := make(map[digest.Hash]bool)
	for _, b := range of {
		ins := b.Inputs()
		for i := range ins {
			if !seen[ins[i].Hash] {
				seen[ins[i].Hash] = true
				f(&ins[i])
			}
		}
	}
}

func (n *node) tellOwed(t task, own []*inputs.Bundle, accepted map[digest.Hash]bool) {
	var in []gateway.AcceptedInput
	n.eachInput(own, func(i *inputs.Input) {
		switch {
		case accepted[i.Hash]:
			in = append(in, gateway.AcceptedInput{User: i.User, Hash: i.Hash})
		case i.MaxLedger < t.Header.Height:
			n.reject(i.User, i.Hash, inputs.Expired)
		default:
			n.reject(i.User, i.Hash, inputs.NonceExpired)
		}
	})
	n.gate.Accepted(t.Header.Height, t.Hash, in)
}

func (n *node) serveAccepted(payload []byte) ([]byte, error) {
	r := wire.NewReader(payload)
	seq := r.U64()
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("request for accepted inputs: %w", err)
	}
	if b := n.selections.get(seq); b != nil {
		return b, nil
	}
	return nil, errNotHeld
}
