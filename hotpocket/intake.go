package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"evernode/hotpocket/gateway"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

const (
	// maxQueued and maxQueuedBytes bound what users have sent and this node has
	// not yet packed.
	maxQueued      = 32768
	maxQueuedBytes = 64 << 20
	// longestLinger bounds linger.
	longestLinger = 25 * time.Millisecond
)

// intake takes the inputs of this node's users: checks them in batches, packs
// them into bundles and floods these.
type intake struct {
	n     *node
	epoch uint64

	mu      sync.Mutex
	queue   []inputs.Submission
	bytes   int
	pending map[digest.Hash]key.Public // taken and not yet in a ledger
	ofUser  map[key.Public]uint64      // their bytes by user
	wake    chan struct{}
}

func newIntake(n *node) *intake {
	return &intake{
		n:       n,
		epoch:   uint64(n.startedAt.UnixMilli()),
		pending: make(map[digest.Hash]key.Public),
		ofUser:  make(map[key.Public]uint64),
		wake:    make(chan struct{}, 1),
	}
}

// linger is the shortest time between two bundles of this node. A lone input
// never waits for it; under load it lets bundles grow, since a signature, a frame
// to every peer, a digest in every proposal and a record on every disk are the
// price of a bundle. A fifth of the time between two ledgers delays no input to a
// later one.
func (k *intake) linger() time.Duration {
	p := parameters(k.n.conf.Load())
	return min(p.RoundTime/time.Duration(5*p.PerRound), longestLinger)
}

// submit takes one input or says why not (spec/hotpocket.md section 1.6, phase
// A). The signature is checked later, together with others.
func (k *intake) submit(s inputs.Submission) inputs.Reason {
	in, err := s.Input()
	if err != nil {
		return inputs.BadFormat
	}
	conf := k.n.conf.Load()
	last := k.n.last.Load()
	k.mu.Lock()
	pending := k.ofUser[s.User]
	k.mu.Unlock()
	// Without the lock, because the nonce table may be busy with a ledger. Two
	// inputs of one user at once may thus exceed a limit by one of them, which the
	// ledger then enforces.
	reason := inputs.CheckSubmission(inputs.Params{
		Seq:            last.seq + 1,
		MaxOffset:      uint64(conf.Contract.MaxInputLedgerOffset),
		UserInputBytes: conf.Contract.RoundLimits.UserInputBytes,
	}, pending, &in, k.n.nonces.Load())
	if reason != inputs.None {
		return reason
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, twice := k.pending[in.Hash]; twice {
		return inputs.AlreadySubmitted
	}
	if len(k.queue) >= maxQueued || k.bytes+len(s.Container) > maxQueuedBytes {
		return inputs.InputsOverflow
	}
	k.queue = append(k.queue, s)
	k.bytes += len(s.Container)
	k.pending[in.Hash] = s.User
	k.ofUser[s.User] += uint64(len(in.Payload))
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return inputs.None
}

// forget takes back what submit noted about an input.
func (k *intake) forget(in *inputs.Input) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(in)
}

func (k *intake) drop(in *inputs.Input) {
	if _, ok := k.pending[in.Hash]; !ok {
		return
	}
	delete(k.pending, in.Hash)
	if left := k.ofUser[in.User]; left > uint64(len(in.Payload)) {
		k.ofUser[in.User] = left - uint64(len(in.Payload))
	} else {
		delete(k.ofUser, in.User)
	}
}

// done takes note that bundles of this node have been consumed or have expired.
func (k *intake) done(bundles []*inputs.Bundle) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range bundles {
		if b.Origin != k.n.key.Public() {
			continue
		}
		ins := b.Inputs()
		for i := range ins {
			k.drop(&ins[i])
		}
	}
}

// queued returns how many inputs wait to be packed.
func (k *intake) queued() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.queue)
}

func (k *intake) take() []inputs.Submission {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := inputs.Fit(k.queue)
	items := k.queue[:n:n]
	k.queue = k.queue[n:]
	if len(k.queue) == 0 {
		k.queue = nil
	}
	for i := range items {
		k.bytes -= len(items[i].Container)
	}
	return items
}

// run packs bundles until ctx ends.
func (k *intake) run(ctx context.Context) error {
	var seq uint64
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		}
		for k.queued() > 0 && ctx.Err() == nil {
			items := k.take()
			if len(items) == 0 {
				break
			}
			if items, parsed := k.check(items); len(items) > 0 {
				seq++
				if err := k.pack(seq, items, parsed); err != nil {
					return err
				}
			}
			timer.Reset(k.linger())
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
	}
}

// check verifies signatures and turns away what is bad.
func (k *intake) check(items []inputs.Submission) ([]inputs.Submission, []inputs.Input) {
	workers := 1
	if len(items) > 256 {
		workers = runtime.GOMAXPROCS(0)
	}
	parsed, errs := inputs.Check(items, workers, k.n.keys)
	if errs == nil {
		return items, parsed
	}
	var good []inputs.Submission
	var ins []inputs.Input
	for i := range items {
		if errs[i] == nil {
			good, ins = append(good, items[i]), append(ins, parsed[i])
			continue
		}
		if in, err := items[i].Input(); err == nil {
			k.forget(&in)
		}
		k.n.gate.Rejected(items[i].User, items[i].Hash(), inputs.BadSignature)
	}
	return good, ins
}

func (k *intake) pack(seq uint64, items []inputs.Submission, parsed []inputs.Input) error {
	b, err := inputs.Pack(k.n.key, k.epoch, seq, items, parsed)
	if err != nil {
		return err
	}
	if err := k.n.content.addBundle(b, false); err != nil {
		if !errors.Is(err, inputs.ErrPoolFull) {
			return fmt.Errorf("keep pending inputs: %w", err)
		}
		k.n.log.Warn("inputs are turned away: too many are pending", "inputs", len(parsed), "err", err)
		for i := range parsed {
			k.forget(&parsed[i])
			k.n.gate.Rejected(parsed[i].User, parsed[i].Hash, inputs.InputsOverflow)
		}
		return nil
	}
	k.n.mesh.Flood(k.n.key.Public(), kindBundle, b.Encoded(), k.n.scope())
	k.n.do(func(l *loop) { l.arrived() })
	return nil
}

// tellExpired tells users about inputs that no ledger can hold any more.
func (n *node) tellExpired(t task) {
	n.intake.done(t.expired)
	for _, b := range t.expired {
		for _, in := range b.Inputs() {
			n.reject(in.User, in.Hash, inputs.Expired)
		}
	}
}

// consumed tells users what became of the inputs of a ledger and keeps them for
// queries.
func (n *node) consumed(t task, bundles []*inputs.Bundle, sel inputs.Selection) {
	n.intake.done(bundles)
	if !t.replay {
		for _, r := range sel.Rejected {
			n.reject(r.User, r.Hash, r.Reason)
		}
		accepted := make([]gateway.AcceptedInput, 0, sel.Count())
		for i := range sel.Users {
			for j := range sel.Users[i].Inputs {
				accepted = append(accepted, gateway.AcceptedInput{User: sel.Users[i].User, Hash: sel.Users[i].Inputs[j].Hash})
			}
		}
		n.gate.Accepted(t.Header.Height, t.Hash, accepted)
		for i := range accepted {
			if n.gate.Connected(accepted[i].User) {
				n.counts.accepted.Add(1)
			}
		}
	}
	n.keepInputs(t.Header.Height, sel)
}
