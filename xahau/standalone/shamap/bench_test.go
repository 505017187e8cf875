package shamap

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func bigTree(b *testing.B, n int) (Map, []Key, *rand.Rand) {
	b.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	changes := make([]Change, n)
	keys := make([]Key, n)
	for i := range changes {
		for k := range keys[i] {
			keys[i][k] = byte(rng.Uint32())
		}
		changes[i] = Change{keys[i], make([]byte, 130)}
	}
	m, err := New(State).Apply(changes)
	must(b, err)
	return m, keys, rng
}

// BenchmarkApply changes 6000 entries of trees in memory: what 3000 payments do
// to a state.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{10_000, 300_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m, keys, rng := bigTree(b, n)
			for b.Loop() {
				b.StopTimer()
				changed := map[Key]bool{}
				var changes []Change
				for len(changes) < 6000 {
					if k := keys[rng.IntN(n)]; !changed[k] {
						changed[k] = true
						data := make([]byte, 130)
						data[rng.IntN(130)] = byte(rng.Uint32()) | 1
						changes = append(changes, Change{k, data})
					}
				}
				b.StartTimer()
				var err error
				m, err = m.Apply(changes)
				must(b, err)
			}
		})
	}
}

// BenchmarkGet reads random entries, in memory and through a cache that holds
// everything.
func BenchmarkGet(b *testing.B) {
	m, keys, rng := bigTree(b, 100_000)
	store := &memStore{}
	in, err := m.In(NewCache(store, State, 1<<30))
	must(b, err)
	saved := in.Save(store.write)
	saved.Keep()
	for name, m := range map[string]Map{"memory": m, "cache": saved.Map} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if data, err := m.Get(keys[rng.IntN(len(keys))]); err != nil || data == nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("next", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := saved.Map.Next(keys[rng.IntN(len(keys))]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
