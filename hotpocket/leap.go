package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/consensus"
	"evernode/hotpocket/gateway"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// tuning changes what tests could not wait for. Zero values mean what holds
// otherwise.
type tuning struct {
	primaryShard uint64 // ledgers in a shard
	leapFrom     uint64 // see leapFrom
}

// leapFrom is how many missed ledgers make it worth to verify only the newest and
// those that changed the members.
const leapFrom = 2048

// leapPatience is how long ledgers that nobody has are looked for before a node
// that is not far behind does without them.
const leapPatience = 2 * time.Second

func (n *node) leapFrom() uint64 {
	if t := n.opt.tune.leapFrom; t > 0 {
		return t
	}
	return leapFrom
}

// errHistory says that the ledgers that were missing here have been had after all.
var errHistory = errors.New("peers have the ledgers between")

// leap goes to the newest ledger of a peer without those between, when what this
// node knows proves it: the members in force here have signed it, or they have
// signed a change of the members, and those the next one, and so on up to it.
// A node that is not far behind does so only when nobody has the ledgers between
// any more.
func (n *node) leap(ctx context.Context, from key.Public) error {
	err := errors.New("no peer is connected")
	peers := n.peersFrom([]key.Public{from})
	for _, p := range peers[:min(len(peers), maxAsked)] {
		if err = n.leapTo(ctx, p); err == nil || errors.Is(err, errHistory) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (n *node) leapTo(ctx context.Context, p key.Public) error {
	a, only := n.asker(), []key.Public{p}
	next, ok := n.height()
	if !ok {
		return context.Canceled
	}
	var t tip
	err := a.requestOf(ctx, only, kindTip, nil, func(b []byte) (err error) { t, err = decodeTip(b); return err })
	if err != nil {
		return err
	}
	h := &t.ledger.Header
	if h.Height < next {
		return fmt.Errorf("%s has no later ledger than %d", p.Short(), h.Height)
	}
	conf := n.conf.Load()
	passed, err := n.prove(ctx, p, conf, next-1, &t)
	if err != nil {
		return err
	}
	if h.Height < next+n.leapFrom() {
		// After a start the first peers may be such as have joined late.
		for until := time.Now().Add(leapPatience); time.Now().Before(until); {
			if n.fetchLedgers(ctx, p, next) == nil {
				return errHistory
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(leapPatience / 10):
			}
		}
	}
	for _, want := range []digest.Hash{t.before.Result.Patch, h.Result.Patch} {
		if n.patches.get(want) != nil || want.IsZero() {
			continue
		}
		text, err := a.fetchPatch(ctx, want)
		if err == nil {
			err = n.patches.put(want, text)
		}
		if err != nil {
			return err
		}
	}
	for i := range passed {
		if err := n.changes.add(&passed[i]); err != nil {
			return err
		}
	}
	if err := n.noteChange(&t.before, t.ledger); err != nil {
		return err
	}
	var left uint64
	if !n.ask(func(l *loop) {
		if at := l.core.Height(); l.stuck == nil && h.Height >= at {
			left = h.Height - at
			if err = l.leap(t.ledger); err != nil {
				l.fail(err)
			}
		}
	}) {
		return context.Canceled
	}
	if err == nil && left > 0 {
		n.counts.leftOut.Add(left)
		n.log.Info("the ledgers between are left out", "ledger", h.Height, "left_out", left, "changes_of_members", len(passed))
	}
	return err
}

// prove checks that the chain of ledger last, after which conf is in force, leads
// to a later ledger. It returns the changes of the members between.
func (n *node) prove(ctx context.Context, p key.Public, conf *config.Config, last uint64, t *tip) ([]change, error) {
	h := &t.ledger.Header
	closedUnder, err := n.parametersOf(ctx, conf, t.before.Result.Patch)
	if err != nil {
		return nil, err
	}
	known := parameters(conf)
	passed, now, err := n.follow(ctx, p, conf, known, last, h.Height)
	switch {
	case err == nil && sameMembers(now, closedUnder):
	case sameMembers(known, closedUnder):
		// They are the same again, or have been all the time. Nobody needs what lies
		// between to believe them.
		passed = nil
	case err != nil:
		return nil, err
	default:
		return nil, fmt.Errorf("ledger %d closed under members that the changes known to %s do not lead to", h.Height, p.Short())
	}
	if err := t.ledger.Certificate.Verify(n.verifier, closedUnder, h); err != nil {
		return nil, err
	}
	return passed, nil
}

// follow walks along the changes of the members from those known after ledger
// last up to another ledger.
func (n *node) follow(ctx context.Context, p key.Public, conf *config.Config, known consensus.Params, last, to uint64) (passed []change, now consensus.Params, err error) {
	now = known
	for {
		more := false
		err := n.asker().requestOf(ctx, []key.Public{p}, kindChanges, wire.AppendU64(nil, last), func(b []byte) error {
			page, err := decodeChanges(b)
			if err != nil {
				return err
			}
			for _, c := range page {
				h := &c.ledger.Header
				if h.Height <= last {
					return fmt.Errorf("a change by ledger %d where one after ledger %d is wanted", h.Height, last)
				}
				if h.Height >= to {
					return nil // the newest ledger itself comes with all that proves it
				}
				old, next, err := c.verify(n.verifier, conf)
				if err == nil && !sameMembers(old, now) {
					err = fmt.Errorf("the change of the members by ledger %d begins with others than are known", h.Height)
				}
				if err != nil {
					return err
				}
				passed, now, last, more = append(passed, c), next, h.Height, true
			}
			return nil
		})
		if err != nil || !more {
			return passed, now, err
		}
	}
}

// parametersOf are those under a patch.cfg that is known by its hash, zero for
// the one that this node began with.
func (n *node) parametersOf(ctx context.Context, conf *config.Config, patch digest.Hash) (consensus.Params, error) {
	if patch.IsZero() || patch == n.patches.inForce() {
		return parameters(conf), nil
	}
	text := n.patches.get(patch)
	if text == nil {
		var err error
		if text, err = n.asker().fetchPatch(ctx, patch); err != nil {
			return consensus.Params{}, err
		}
	}
	return patchParameters(conf, text)
}

// maxFates is about how many inputs are asked at once.
const maxFates = 4096

// answerLeap tells users of this node what became of their inputs in ledgers
// that it has left out on its way to another one. Nothing that is agreed on says
// so any more, but members remember which inputs the last ledgers have accepted,
// and n−q+1 who say the same are not all liars. An input that can be in no later
// ledger, and of which not so many members know, is rejected as expired.
func (n *node) answerLeap(height uint64, expired []*inputs.Bundle) {
	users := n.intake.open()
	if len(users) == 0 {
		return
	}
	// What has been accepted is still pending here, and would be turned away by the
	// next ledger as a repetition.
	n.selections.ask(users)
	n.spawn(func(ctx context.Context) {
		defer n.intake.done(expired)
		found := n.fates(ctx, users)
		if ctx.Err() != nil {
			return
		}
		told := make(map[digest.Hash]bool, len(found))
		for f, of := range found {
			in := make([]gateway.AcceptedInput, 0, len(of))
			for _, hash := range of {
				told[hash] = true
				in = append(in, gateway.AcceptedInput{User: users[hash], Hash: hash})
			}
			n.gate.Accepted(f.seq, f.ledger, in)
			n.counts.accepted.Add(uint64(len(in)))
		}
		for hash, reason := range n.selections.answer(users, told) {
			n.reject(users[hash], hash, reason)
		}
		unknown := 0
		n.eachInput(expired, func(in *inputs.Input) {
			if _, own := users[in.Hash]; own && !told[in.Hash] {
				unknown++
				n.reject(in.User, in.Hash, inputs.Expired)
			}
		})
		if len(told) > 0 || unknown > 0 {
			n.log.Warn("users had inputs pending in ledgers that were left out", "ledger", height, "accepted", len(told), "said_to_have_expired", unknown)
		}
	})
}

// fateOf is the ledger that accepted an input.
type fateOf struct {
	seq    uint64
	ledger digest.Hash
}

// fatesFor is how long members are asked who are not connected at once.
const fatesFor = 10 * time.Second

// fates asks members in which ledgers inputs were accepted, and returns what
// enough of them agree on.
func (n *node) fates(ctx context.Context, of map[digest.Hash]key.Public) map[fateOf][]digest.Hash {
	p := parameters(n.conf.Load())
	enough := len(p.Members) - p.Quorum() + 1
	hashes := slices.Collect(maps.Keys(of))
	said := make(map[digest.Hash]map[fateOf]int)
	answered := map[key.Public]bool{n.key.Public(): true}
	for until := time.Now().Add(fatesFor); ; {
		for _, m := range p.Members {
			if answered[m] {
				continue
			}
			if all, err := n.fatesBy(ctx, m, hashes); err == nil {
				answered[m] = true
				for h, f := range all {
					if said[h] == nil {
						said[h] = make(map[fateOf]int)
					}
					said[h][f]++
				}
			}
		}
		found := make(map[fateOf][]digest.Hash)
		count := 0
		for h, votes := range said {
			for f, v := range votes {
				if v >= enough {
					found[f] = append(found[f], h)
					count++
				}
			}
		}
		if count == len(hashes) || len(answered) >= len(p.Members) || time.Now().After(until) {
			return found
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fatesBy returns what one member says.
func (n *node) fatesBy(ctx context.Context, m key.Public, hashes []digest.Hash) (map[digest.Hash]fateOf, error) {
	said := make(map[digest.Hash]fateOf)
	for part := range slices.Chunk(hashes, maxFates) {
		var payload []byte
		for _, h := range part {
			payload = append(payload, h[:]...)
		}
		err := n.asker().requestOf(ctx, []key.Public{m}, kindFates, payload, func(b []byte) error {
			r := wire.NewReader(b)
			for _, h := range part {
				f := fateOf{seq: r.U64()}
				if f.seq > 0 {
					r.Fixed(f.ledger[:])
					said[h] = f
				}
			}
			return r.Close()
		})
		if err != nil {
			return nil, err
		}
	}
	return said, nil
}

// serveFates tells in which of the last ledgers inputs were accepted: for each
// hash the ledger's number and hash, or a zero number.
func (n *node) serveFates(payload []byte) ([]byte, error) {
	if len(payload)%digest.Size != 0 || len(payload) > maxFates*digest.Size {
		return nil, fmt.Errorf("request for %d bytes of hashes", len(payload))
	}
	wanted := make(map[digest.Hash]uint64, len(payload)/digest.Size)
	for b := payload; len(b) > 0; b = b[digest.Size:] {
		wanted[digest.Hash(b[:digest.Size])] = 0
	}
	n.selections.find(wanted)
	var out []byte
	for b := payload; len(b) > 0; b = b[digest.Size:] {
		seq := wanted[digest.Hash(b[:digest.Size])]
		if seq > n.shown.Load() {
			seq = 0
		}
		var hash digest.Hash
		if seq > 0 {
			r, ok, err := n.store.Get(seq)
			if err != nil {
				return nil, err
			}
			if hash = r.Hash; !ok {
				seq = 0
			}
		}
		if out = wire.AppendU64(out, seq); seq > 0 {
			out = append(out, hash[:]...)
		}
	}
	return out, nil
}

// find notes for each of the given hashes which ledger has accepted that input.
func (x *selections) find(wanted map[digest.Hash]uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for seq, b := range x.kept {
		for ; len(b) > 0; b = b[digest.Size:] {
			h := digest.Hash(b[:digest.Size])
			if _, ok := wanted[h]; ok {
				wanted[h] = seq
			}
		}
	}
}

// ask says that it is being found out whether inputs have been accepted.
func (x *selections) ask(of map[digest.Hash]key.Public) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.asked == nil {
		x.asked = make(map[digest.Hash]inputs.Reason)
	}
	for h := range of {
		if _, twice := x.asked[h]; !twice {
			x.asked[h] = inputs.None
		}
	}
}

// hold puts off the rejection of an input of which that is being found out.
func (x *selections) hold(input digest.Hash, reason inputs.Reason) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.asked[input]; !ok {
		return false
	}
	x.asked[input] = reason
	return true
}

// answer says which of the inputs have been accepted, and returns the rejections
// of others that were put off.
func (x *selections) answer(of map[digest.Hash]key.Public, accepted map[digest.Hash]bool) map[digest.Hash]inputs.Reason {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.heard == nil || len(x.heard) > maxQueued {
		x.heard = make(map[digest.Hash]bool)
	}
	due := make(map[digest.Hash]inputs.Reason)
	for h := range of {
		reason := x.asked[h]
		delete(x.asked, h)
		if accepted[h] {
			x.heard[h] = true
		} else if reason != inputs.None {
			due[h] = reason
		}
	}
	return due
}

// open returns the inputs of this node's users that no ledger known here has
// consumed, with who sent them.
func (k *intake) open() map[digest.Hash]key.Public {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.pending)
}
