package inputs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// ErrPoolFull is the error of a bundle that has no room in the Pool.
var ErrPoolFull = errors.New("pool of pending inputs is full")

// PoolLimits bound a Pool.
type PoolLimits struct {
	// MaxBytes and MaxCount bound all pending bundles together.
	MaxBytes, MaxCount int
	// MaxOriginBytes and MaxOriginCount bound the pending bundles of one
	// origin, so that none can shut out the others.
	MaxOriginBytes, MaxOriginCount int
	// GapPatience is for how many ledgers later bundles of an origin wait
	// for a missing earlier one.
	GapPatience uint64
	// KeepLedgers is for how many ledgers the content of consumed bundles
	// stays available to peers that lag behind, and KeepBytes bounds it.
	KeepLedgers uint64
	KeepBytes   int
	// Remember is how many digests of consumed bundles are remembered.
	Remember int
	// MaxOrigins is of how many origins the place in their sequence is
	// remembered while they have nothing pending.
	MaxOrigins int
}

// DefaultPoolLimits returns limits that suit a node with a few hundred megabytes
// of memory.
func DefaultPoolLimits() PoolLimits {
	return PoolLimits{
		MaxBytes: 128 << 20, MaxCount: 16384,
		MaxOriginBytes: 32 << 20, MaxOriginCount: 4096,
		GapPatience: 3,
		KeepLedgers: 64, KeepBytes: 64 << 20,
		Remember:   65536,
		MaxOrigins: 4096,
	}
}

// Pool holds the verified bundles of all origins that no ledger has consumed
// yet, and for a while those that one has. It is a plain value of the consensus
// loop, whose answers follow from the order of calls alone; it is not safe for
// concurrent use.
type Pool struct {
	limits  PoolLimits
	pending map[digest.Hash]*pooled
	bytes   int
	arrived uint64 // number of the last arrival
	origins map[key.Public]*originState
	// ledger is the last ledger heard of in Consume or Expire.
	ledger uint64

	kept      map[digest.Hash]*Bundle
	keptOrder []keptBundle // oldest first
	keptBytes int

	consumed      map[digest.Hash]struct{}
	consumedOrder []digest.Hash // a ring once it has limits.Remember elements
	consumedNext  int
}

type pooled struct {
	bundle  *Bundle
	arrival uint64
	// held tells that the bundle has waited for an earlier one since the
	// offer after ledger since.
	held  bool
	since uint64
}

type keptBundle struct {
	digest digest.Hash
	ledger uint64
}

// originState is where an origin stands in its sequence. Only its newest epoch is
// followed: bundles of an older one come from a process that has ended, so that
// nothing that is missing will be sent again.
type originState struct {
	bytes, count int
	epoch        uint64
	next         uint64 // the Seq that is due in epoch
	used         uint64 // arrival number of the last use, to forget the longest idle
}

// NewPool returns an empty pool.
func NewPool(l PoolLimits) *Pool {
	return &Pool{
		limits:   l,
		pending:  map[digest.Hash]*pooled{},
		origins:  map[key.Public]*originState{},
		kept:     map[digest.Hash]*Bundle{},
		consumed: map[digest.Hash]struct{}{},
	}
}

// Add makes a verified bundle pending, if there is room: an error wraps
// ErrPoolFull and says which bound was met. A bundle that is here already or was
// consumed is no error.
func (p *Pool) Add(b *Bundle) error { return p.add(b, true) }

// Require is Add without bounds, for a bundle that a ledger about to close needs:
// the bounds of a ledger are what limits these. Get finds the bundle afterwards,
// even when it was consumed or expired before.
func (p *Pool) Require(b *Bundle) error { return p.add(b, false) }

func (p *Pool) add(b *Bundle, bounded bool) error {
	if !b.Verified() {
		return fmt.Errorf("bundle %s has not been verified", b.digest.Short())
	}
	if _, ok := p.pending[b.digest]; ok {
		return nil
	}
	if _, ok := p.consumed[b.digest]; ok {
		if !bounded {
			p.keep(b)
		}
		return nil
	}
	o := p.origins[b.Origin]
	if bounded {
		var bytes, count int
		if o != nil {
			bytes, count = o.bytes, o.count
		}
		l := &p.limits
		switch {
		case p.bytes+b.Size() > l.MaxBytes:
			return fmt.Errorf("%w: bundle %s of %d bytes, %d of %d bytes in use", ErrPoolFull, b.digest.Short(), b.Size(), p.bytes, l.MaxBytes)
		case len(p.pending) >= l.MaxCount:
			return fmt.Errorf("%w: it has %d bundles", ErrPoolFull, len(p.pending))
		case bytes+b.Size() > l.MaxOriginBytes:
			return fmt.Errorf("%w: bundle %s of %d bytes, origin %s uses %d of %d bytes", ErrPoolFull, b.digest.Short(), b.Size(), b.Origin.Short(), bytes, l.MaxOriginBytes)
		case count >= l.MaxOriginCount:
			return fmt.Errorf("%w: origin %s has %d bundles", ErrPoolFull, b.Origin.Short(), count)
		}
	}
	p.arrived++
	o = p.origin(b)
	o.bytes += b.Size()
	o.count++
	p.bytes += b.Size()
	p.pending[b.digest] = &pooled{bundle: b, arrival: p.arrived}
	return nil
}

// origin returns the state of a bundle's origin, moved to the bundle's epoch when
// that is newer.
func (p *Pool) origin(b *Bundle) *originState {
	o := p.origins[b.Origin]
	if o == nil {
		p.forgetOrigins()
		o = &originState{epoch: b.Epoch, next: 1}
		p.origins[b.Origin] = o
	}
	o.used = p.arrived
	if b.Epoch > o.epoch {
		o.epoch, o.next = b.Epoch, 1
	}
	return o
}

// forgetOrigins drops the longest idle half of the origins that have nothing
// pending when there are too many.
func (p *Pool) forgetOrigins() {
	if len(p.origins) < p.limits.MaxOrigins {
		return
	}
	type idle struct {
		origin key.Public
		used   uint64
	}
	var all []idle
	for k, o := range p.origins {
		if o.count == 0 {
			all = append(all, idle{k, o.used})
		}
	}
	slices.SortFunc(all, func(a, b idle) int {
		if c := cmp.Compare(a.used, b.used); c != 0 {
			return c
		}
		return a.origin.Compare(b.origin)
	})
	for _, i := range all[:(len(all)+1)/2] {
		delete(p.origins, i.origin)
	}
}

// Has reports whether the content of a bundle is here, pending or kept.
func (p *Pool) Has(d digest.Hash) bool { return p.Get(d) != nil }

// Get returns a bundle that is pending or was consumed lately, or nil.
func (p *Pool) Get(d digest.Hash) *Bundle {
	if e := p.pending[d]; e != nil {
		return e.bundle
	}
	return p.kept[d]
}

// Consumed reports whether a ledger is known to have consumed the bundle.
func (p *Pool) Consumed(d digest.Hash) bool {
	_, ok := p.consumed[d]
	return ok
}

// Pending returns the number of pending bundles and their size in bytes.
func (p *Pool) Pending() (count, bytes int) { return len(p.pending), p.bytes }

// Offer returns the digests that a node lists in its proposal after ledger
// lastSeq: pending bundles in the order of their arrival, up to the first that
// does not fit into maxCount or maxBytes; the first bundle is listed whatever its
// size, which never exceeds MaxBundleBytes.
//
// Bundles of an origin's newest epoch are listed in the order of Seq and without
// gaps, so that an input cannot overtake one that its user sent before it, whose
// nonce would then be taken for an old one. A missing bundle holds the later ones
// back for GapPatience ledgers, then it is passed over; should it still come, it
// is listed like any other.
func (p *Pool) Offer(maxBytes, maxCount int, lastSeq uint64) []digest.Hash {
	all := make([]*pooled, 0, len(p.pending))
	for _, e := range p.pending {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *pooled) int {
		if c := a.bundle.Origin.Compare(b.bundle.Origin); c != 0 {
			return c
		}
		if c := cmp.Compare(a.bundle.Epoch, b.bundle.Epoch); c != 0 {
			return c
		}
		if c := cmp.Compare(a.bundle.Seq, b.bundle.Seq); c != 0 {
			return c
		}
		return cmp.Compare(a.arrival, b.arrival)
	})
	type listed struct {
		*pooled
		arrival uint64 // the latest arrival in the sequence so far
	}
	ready := make([]listed, 0, len(all))
	for len(all) > 0 {
		n := 1
		first := all[0].bundle
		for n < len(all) && all[n].bundle.Origin == first.Origin && all[n].bundle.Epoch == first.Epoch {
			n++
		}
		var latest uint64
		for _, e := range p.contiguous(all[:n], lastSeq) {
			latest = max(latest, e.arrival)
			ready = append(ready, listed{e, latest})
		}
		all = all[n:]
	}
	// Stable, so that bundles of one sequence that became ready together stay
	// in its order.
	slices.SortStableFunc(ready, func(a, b listed) int { return cmp.Compare(a.arrival, b.arrival) })

	var (
		offer []digest.Hash
		bytes int
	)
	for _, e := range ready {
		bytes += e.bundle.Size()
		if len(offer) >= maxCount || bytes > maxBytes && len(offer) > 0 {
			break
		}
		offer = append(offer, e.bundle.digest)
	}
	return offer
}

// contiguous returns those of the bundles of one origin and epoch, sorted by Seq,
// that need not wait for a missing one.
func (p *Pool) contiguous(all []*pooled, lastSeq uint64) []*pooled {
	o := p.origins[all[0].bundle.Origin]
	if all[0].bundle.Epoch != o.epoch {
		return all
	}
	due, ready := o.next, 0
	for i, e := range all {
		if seq := e.bundle.Seq; seq > due {
			if !e.held {
				e.held, e.since = true, lastSeq
			}
			if lastSeq < e.since || lastSeq-e.since < p.limits.GapPatience {
				continue
			}
		}
		due = max(due, e.bundle.Seq+1)
		ready = i + 1
	}
	return all[:ready]
}

// Consume takes note that the given ledger has consumed bundles: they are pending
// no more and cannot become so again, but Get still finds those that were here
// for a while. A digest that is not here is remembered too.
func (p *Pool) Consume(ledger uint64, digests []digest.Hash) {
	p.advance(ledger)
	for _, d := range digests {
		if e := p.pending[d]; e != nil {
			p.retire(e.bundle)
		}
		p.remember(d)
	}
	p.trim()
}

// Expire drops the pending bundles of which no input can get into a ledger after
// the given one, and returns them in the order of their arrival, so that their
// users can be told Expired.
func (p *Pool) Expire(ledger uint64) []*Bundle {
	p.advance(ledger)
	var gone []*pooled
	for _, e := range p.pending {
		if e.bundle.maxLedger <= ledger {
			gone = append(gone, e)
		}
	}
	slices.SortFunc(gone, func(a, b *pooled) int { return cmp.Compare(a.arrival, b.arrival) })
	var expired []*Bundle
	for _, e := range gone {
		expired = append(expired, e.bundle)
		p.retire(e.bundle)
		p.remember(e.bundle.digest)
	}
	p.trim()
	return expired
}

func (p *Pool) advance(ledger uint64) { p.ledger = max(p.ledger, ledger) }

// retire moves a bundle from the pending to the kept ones.
func (p *Pool) retire(b *Bundle) {
	delete(p.pending, b.digest)
	p.bytes -= b.Size()
	o := p.origins[b.Origin]
	o.bytes -= b.Size()
	o.count--
	if b.Epoch == o.epoch {
		o.next = max(o.next, b.Seq+1)
	}
	p.keep(b)
}

func (p *Pool) keep(b *Bundle) {
	if p.kept[b.digest] != nil {
		return
	}
	p.kept[b.digest] = b
	p.keptOrder = append(p.keptOrder, keptBundle{b.digest, p.ledger})
	p.keptBytes += b.Size()
}

// trim lets go of what is kept for too long or in too great numbers.
func (p *Pool) trim() {
	n := 0
	for _, k := range p.keptOrder {
		if p.ledger-k.ledger <= p.limits.KeepLedgers && p.keptBytes <= p.limits.KeepBytes {
			break
		}
		p.keptBytes -= p.kept[k.digest].Size()
		delete(p.kept, k.digest)
		n++
	}
	p.keptOrder = slices.Delete(p.keptOrder, 0, n)
}

func (p *Pool) remember(d digest.Hash) {
	if _, ok := p.consumed[d]; ok || p.limits.Remember <= 0 {
		return
	}
	p.consumed[d] = struct{}{}
	if len(p.consumedOrder) < p.limits.Remember {
		p.consumedOrder = append(p.consumedOrder, d)
		return
	}
	delete(p.consumed, p.consumedOrder[p.consumedNext])
	p.consumedOrder[p.consumedNext] = d
	p.consumedNext = (p.consumedNext + 1) % p.limits.Remember
}
