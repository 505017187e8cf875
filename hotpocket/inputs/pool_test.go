package inputs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// fake makes a verified bundle of the given size without signatures.
func fake(origin byte, epoch, seq, maxLedger uint64, size int) *Bundle {
	b := &Bundle{Origin: key.Public{key.Prefix, origin}, Epoch: epoch, Seq: seq, encoded: make([]byte, size),
		digest: hashOf(fmt.Sprint(origin, epoch, seq, maxLedger, size))}
	b.keep([]Input{{MaxLedger: maxLedger}, {MaxLedger: maxLedger / 2}})
	return b
}

// names writes digests as origin:seq.
func names(t *testing.T, p *Pool, digests []digest.Hash) string {
	t.Helper()
	var out []string
	for _, d := range digests {
		b := p.Get(d)
		if b == nil {
			t.Fatalf("pool does not have %s", d)
		}
		out = append(out, fmt.Sprintf("%d:%d", b.Origin[1], b.Seq))
	}
	return strings.Join(out, " ")
}

func add(t *testing.T, p *Pool, bundles ...*Bundle) {
	t.Helper()
	for _, b := range bundles {
		if err := p.Add(b); err != nil {
			t.Fatal(err)
		}
	}
}

func offered(t *testing.T, p *Pool, lastSeq uint64, want string) {
	t.Helper()
	if got := names(t, p, p.Offer(1<<30, 1000, lastSeq)); got != want {
		t.Fatalf("after ledger %d: offered %q, want %q", lastSeq, got, want)
	}
}

func TestPoolOffersInOrderOfArrival(t *testing.T) {
	p := NewPool(DefaultPoolLimits())
	a1, a2, a3 := fake(1, 5, 1, 99, 10), fake(1, 5, 2, 99, 10), fake(1, 5, 3, 99, 10)
	b1, b2 := fake(2, 5, 1, 99, 10), fake(2, 5, 2, 99, 10)
	add(t, p, b1, a2, a2, a1, b2, a3)
	if n, size := p.Pending(); n != 5 || size != 50 {
		t.Errorf("%d bundles, %d bytes", n, size)
	}
	// a2 became ready when a1 arrived.
	offered(t, p, 1, "2:1 1:1 1:2 2:2 1:3")
	for _, c := range []struct {
		bytes, count int
		want         string
	}{{30, 9, "2:1 1:1 1:2"}, {39, 9, "2:1 1:1 1:2"}, {99, 2, "2:1 1:1"}, {5, 9, "2:1"}, {99, 0, ""}} {
		if got := names(t, p, p.Offer(c.bytes, c.count, 1)); got != c.want {
			t.Errorf("%d bytes, %d bundles: %q, want %q", c.bytes, c.count, got, c.want)
		}
	}
	p.Consume(2, []digest.Hash{b1.Digest(), a1.Digest(), digest.Sum([]byte("never seen"))})
	offered(t, p, 2, "1:2 2:2 1:3")
	add(t, p, a1) // a late copy
	offered(t, p, 2, "1:2 2:2 1:3")
	if !p.Consumed(a1.Digest()) || p.Consumed(a2.Digest()) || !p.Has(a1.Digest()) || p.Get(a1.Digest()) != a1 {
		t.Error("consumed bundle is not known as such")
	}
	unseen := fake(3, 1, 1, 99, 10)
	p.Consume(3, []digest.Hash{unseen.Digest()})
	add(t, p, unseen)
	if p.Has(unseen.Digest()) {
		t.Error("consumed before it came, and yet pending")
	}
}

func TestPoolWaitsForMissing(t *testing.T) {
	l := DefaultPoolLimits()
	l.GapPatience = 3
	p := NewPool(l)
	bundle := func(seq uint64) *Bundle { return fake(1, 5, seq, 99, 10) }
	other := fake(2, 5, 1, 99, 10)
	add(t, p, bundle(2), other)
	offered(t, p, 10, "2:1")
	add(t, p, bundle(3))
	offered(t, p, 12, "2:1")
	add(t, p, bundle(1)) // it comes: all are ready
	offered(t, p, 12, "2:1 1:1 1:2 1:3")

	add(t, p, bundle(5))
	offered(t, p, 20, "2:1 1:1 1:2 1:3")
	add(t, p, bundle(7))
	offered(t, p, 22, "2:1 1:1 1:2 1:3")
	offered(t, p, 23, "2:1 1:1 1:2 1:3 1:5") // 5 has waited for long enough, 7 has not
	offered(t, p, 24, "2:1 1:1 1:2 1:3 1:5")
	add(t, p, bundle(6))
	offered(t, p, 24, "2:1 1:1 1:2 1:3 1:5 1:6 1:7")
	p.Consume(25, []digest.Hash{bundle(5).Digest(), bundle(1).Digest(), bundle(2).Digest(), bundle(3).Digest()})
	add(t, p, bundle(4)) // passed over, but welcome
	offered(t, p, 25, "2:1 1:4 1:6 1:7")

	// A new epoch begins at 1 again and is not held up by the old one, nor does
	// it wait for what is missing in the old one.
	add(t, p, bundle(9), fake(1, 6, 2, 99, 10))
	offered(t, p, 25, "2:1 1:4 1:6 1:7 1:9")
	add(t, p, fake(1, 6, 1, 99, 10))
	offered(t, p, 25, "2:1 1:4 1:6 1:7 1:9 1:1 1:2")
}

func TestPoolTakesOriginFromLedger(t *testing.T) {
	// A node that starts late sees a sequence from its middle on; the first bundle
	// that a ledger consumes tells it where the others are.
	p := NewPool(DefaultPoolLimits())
	add(t, p, fake(1, 5, 57, 99, 10), fake(1, 5, 58, 99, 10))
	offered(t, p, 1, "")
	p.Consume(2, []digest.Hash{fake(1, 5, 57, 99, 10).Digest()})
	offered(t, p, 2, "1:58")
}

func TestPoolKeepsTwoBundlesOfOneNumber(t *testing.T) {
	// An origin that lies about its numbers is not the node's to judge: a ledger
	// may hold either bundle.
	p := NewPool(DefaultPoolLimits())
	add(t, p, fake(1, 5, 1, 98, 10), fake(1, 5, 1, 99, 10))
	offered(t, p, 1, "1:1 1:1")
}

func TestPoolIsBounded(t *testing.T) {
	l := PoolLimits{MaxBytes: 100, MaxCount: 5, MaxOriginBytes: 60, MaxOriginCount: 3, GapPatience: 1, KeepLedgers: 10, KeepBytes: 50, Remember: 4, MaxOrigins: 3}
	p := NewPool(l)
	refused := func(b *Bundle, part string) {
		t.Helper()
		if err := p.Add(b); !errors.Is(err, ErrPoolFull) || !strings.Contains(err.Error(), part) {
			t.Fatalf("error %v, want %q", err, part)
		}
		if p.Has(b.Digest()) {
			t.Fatal("refused and kept")
		}
	}
	add(t, p, fake(1, 1, 1, 99, 30), fake(1, 1, 2, 99, 30))
	refused(fake(1, 1, 3, 99, 1), "uses 60 of 60 bytes")
	refused(fake(2, 1, 1, 99, 41), "60 of 100 bytes")
	add(t, p, fake(2, 1, 1, 99, 1), fake(2, 1, 2, 99, 1), fake(2, 1, 3, 99, 1))
	refused(fake(3, 1, 1, 99, 1), "it has 5 bundles")
	p.Consume(2, []digest.Hash{fake(1, 1, 1, 99, 30).Digest()})
	refused(fake(2, 1, 4, 99, 1), "has 3 bundles")
	// What a ledger needs is taken nevertheless.
	needed := fake(2, 1, 4, 99, 100)
	if err := p.Require(needed); err != nil || p.Get(needed.Digest()) != needed {
		t.Fatal(err)
	}
	refused(fake(3, 1, 1, 99, 1), "133 of 100 bytes")
	if err := p.Add(&Bundle{}); err == nil || errors.Is(err, ErrPoolFull) {
		t.Errorf("not verified: %v", err)
	}

	// 30 + 30 bytes are more than may be kept: the older one goes.
	p.Consume(3, []digest.Hash{fake(1, 1, 2, 99, 30).Digest(), fake(2, 1, 1, 99, 1).Digest()})
	if p.Has(fake(1, 1, 1, 99, 30).Digest()) || !p.Has(fake(1, 1, 2, 99, 30).Digest()) || p.keptBytes != 31 {
		t.Errorf("%d bytes kept", p.keptBytes)
	}
	p.Consume(13, nil)
	if !p.Has(fake(1, 1, 2, 99, 30).Digest()) {
		t.Error("let go of too early")
	}
	p.Consume(14, nil)
	if p.Has(fake(1, 1, 2, 99, 30).Digest()) || p.keptBytes != 0 {
		t.Error("kept for too long")
	}
	// Consumed and let go: a ledger of a peer's may ask for it again.
	again := fake(1, 1, 2, 99, 30)
	if err := p.Require(again); err != nil || p.Get(again.Digest()) != again {
		t.Errorf("not taken again: %v", err)
	}
	if n, _ := p.Pending(); n != 3 {
		t.Errorf("%d pending", n)
	}

	for i := range byte(20) {
		p.Consume(15, []digest.Hash{{i}})
	}
	if len(p.consumed) != 4 || !p.Consumed(digest.Hash{19}) || p.Consumed(digest.Hash{15}) {
		t.Errorf("%d remembered", len(p.consumed))
	}
	p.Consume(16, []digest.Hash{needed.Digest()})
	for i := range byte(50) {
		b := fake(100+i, 1, 1, 99, 1)
		add(t, p, b)
		p.Consume(17, []digest.Hash{b.Digest()})
	}
	if len(p.origins) > l.MaxOrigins+1 {
		t.Errorf("%d origins remembered", len(p.origins))
	}
}

func TestPoolExpires(t *testing.T) {
	p := NewPool(DefaultPoolLimits())
	a1, a2, b1 := fake(1, 5, 1, 20, 10), fake(1, 5, 2, 30, 10), fake(2, 5, 1, 20, 10)
	add(t, p, b1, a1, a2)
	if got := p.Expire(19); got != nil {
		t.Fatalf("expired early: %v", got)
	}
	if got := p.Expire(20); !reflect.DeepEqual(got, []*Bundle{b1, a1}) {
		t.Fatalf("expired %v", got)
	}
	offered(t, p, 20, "1:2")
	add(t, p, a1)
	if got := p.Expire(21); got != nil {
		t.Error("told twice")
	}
	if n, size := p.Pending(); n != 1 || size != 10 {
		t.Errorf("%d pending, %d bytes", n, size)
	}
}

// TestPoolProperties deals random calls to a pool and checks what must always
// hold.
func TestPoolProperties(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		l := PoolLimits{MaxBytes: 4000, MaxCount: 60, MaxOriginBytes: 2000, MaxOriginCount: 30, GapPatience: 2, KeepLedgers: 5, KeepBytes: 500, Remember: 1000, MaxOrigins: 10}
		p := NewPool(l)
		next := map[byte]uint64{}
		for ledger := uint64(1); ledger < 60; ledger++ {
			var fresh []*Bundle
			for range rnd.IntN(15) {
				origin := byte(rnd.IntN(4))
				next[origin]++
				if rnd.IntN(8) > 0 { // the others are lost
					fresh = append(fresh, fake(origin, ledger/25, next[origin], ledger+rnd.Uint64N(9), 1+rnd.IntN(60)))
				}
			}
			rnd.Shuffle(len(fresh), func(i, j int) { fresh[i], fresh[j] = fresh[j], fresh[i] })
			for _, b := range fresh {
				if err := p.Add(b); err != nil && !errors.Is(err, ErrPoolFull) {
					t.Fatal(err)
				}
			}
			offer := p.Offer(300, 10, ledger)
			last := map[byte]*Bundle{}
			size := 0
			for i, d := range offer {
				b := p.Get(d)
				if b == nil || p.Consumed(d) || slices.Contains(offer[:i], d) {
					t.Fatal("offers what it must not")
				}
				if prev := last[b.Origin[1]]; prev != nil && prev.Epoch == b.Epoch && prev.Seq > b.Seq {
					t.Fatalf("seed %d: %d offered before %d", seed, prev.Seq, b.Seq)
				}
				last[b.Origin[1]] = b
				size += b.Size()
			}
			if size > 300 || len(offer) > 10 {
				t.Fatalf("%d bytes, %d bundles offered", size, len(offer))
			}
			p.Consume(ledger, offer[:len(offer)-len(offer)/3])
			p.Expire(ledger)
			bytes, perOrigin := 0, map[key.Public]int{}
			for _, e := range p.pending {
				bytes += e.bundle.Size()
				perOrigin[e.bundle.Origin]++
				if e.bundle.MaxLedger() <= ledger {
					t.Fatal("expired bundle is pending")
				}
			}
			if bytes != p.bytes || bytes > l.MaxBytes || len(p.pending) > l.MaxCount || p.keptBytes > l.KeepBytes || len(p.kept) != len(p.keptOrder) {
				t.Fatalf("%d bytes pending (%d counted), %d kept", bytes, p.bytes, p.keptBytes)
			}
			for k, o := range p.origins {
				if o.count != perOrigin[k] {
					t.Fatalf("origin has %d bundles, %d counted", perOrigin[k], o.count)
				}
			}
		}
		// Nothing waits forever.
		for ledger := uint64(60); ledger < 80; ledger++ {
			p.Consume(ledger, p.Offer(1<<20, 1000, ledger))
		}
		if n, size := p.Pending(); n != 0 || size != 0 {
			t.Fatalf("seed %d: %d bundles are left", seed, n)
		}
	}
}

func BenchmarkPoolOffer1000(b *testing.B) {
	p := NewPool(DefaultPoolLimits())
	for i := range 1000 {
		if err := p.Add(fake(byte(i%10), 1, uint64(1+i/10), 99, 100)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if n := len(p.Offer(1<<20, 2000, 1)); n != 1000 {
			b.Fatal(n)
		}
	}
}
