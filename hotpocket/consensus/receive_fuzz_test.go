package consensus

import (
	"math/rand/v2"
	"testing"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// credulous takes every signature for good, so that fuzzing gets behind them.
type credulous struct{}

func (credulous) Verify(key.Public, []byte, []byte) bool { return true }

// FuzzReceive feeds a core whatever can be read as messages, one per second. It
// must not panic, spin, or speak twice.
func FuzzReceive(f *testing.F) {
	rng := rand.New(rand.NewPCG(19, 20))
	for range 4 {
		var b []byte
		for _, m := range randomMessages(rng)[:8] {
			// Near enough to the core's height to get in.
			switch m := m.(type) {
			case *Proposal:
				m.Height, m.Attempt, m.Prev = 1+uint64(rng.IntN(2)), uint32(rng.IntN(3)), digest.Hash{}
			case *Ballot:
				m.Height, m.Attempt = 1+uint64(rng.IntN(2)), uint32(rng.IntN(3))
			case *Candidate:
				m.Height, m.Attempt, m.Header.Height, m.Header.Prev = 1, 1+uint32(rng.IntN(3)), 1, digest.Hash{}
			case *Ledger:
				m.Header.Height = 1
			}
			b = wire.AppendBytes(b, Encode(m))
		}
		f.Add(b)
	}
	params := fakeParams(4, 66)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := testCore(t, 0, params, Restored{Fresh: true})
		c.opt.Verifier = credulous{}
		now := Now{Clock: 5}
		c.Executed(now, 0, Result{})
		voted := make(map[uint32]digest.Hash)
		for r := wire.NewReader(b); r.Len() > 0; {
			one := r.View(1 << 20)
			if r.Err() != nil {
				return
			}
			m, err := Decode(one)
			if err != nil {
				continue
			}
			now.Mono += time.Second
			actions := c.Receive(now, fakeKey(1), m)
			actions = append(actions, c.Tick(now)...)
			for _, v := range sent[*Ballot](actions) {
				if v.Phase == Vote && v.Author == fakeKey(0) {
					if old, has := voted[v.Attempt]; has && old != v.Hash {
						t.Fatalf("votes for %s and %s", old.Short(), v.Hash.Short())
					}
					voted[v.Attempt] = v.Hash
				}
			}
			for _, a := range actions {
				if _, closed := a.(Close); closed {
					return
				}
			}
			if at := c.Wake(); at <= now.Mono {
				if c.Tick(now); c.Wake() <= now.Mono {
					t.Fatalf("wants to be woken at %v, it is %v", at, now.Mono)
				}
			}
		}
	})
}
