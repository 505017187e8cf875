package statesync

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

func benchSync(b *testing.B, bytes int64, fill func(dir string)) {
	src := newNode(b, fill)
	b.SetBytes(bytes)
	for b.Loop() {
		b.StopTimer()
		dst := newNode(b, nil)
		c, _ := client(dst, newNetwork(src, src, src))
		b.StartTimer()
		syncTo(b, c, src.Agreed())
		b.StopTimer()
		dst.Close()
		b.StartTimer()
	}
}

// BenchmarkSync measures a whole sync of an empty node, over memory, until the
// working folder and the read-only copy hold the state.
func BenchmarkSync(b *testing.B) {
	b.Run("100MB", func(b *testing.B) {
		benchSync(b, 100<<20, func(dir string) {
			data := make([]byte, 100<<20)
			rng := rand.New(rand.NewPCG(1, 1))
			for j := 0; j < len(data); j += 8 {
				binary.LittleEndian.PutUint64(data[j:], rng.Uint64())
			}
			must(b, os.WriteFile(dir+"/big", data, 0o644))
		})
	})
	b.Run("10000files", func(b *testing.B) {
		benchSync(b, 10000<<10, func(dir string) {
			data := make([]byte, 1<<10)
			for i := range 10000 {
				if i%100 == 0 {
					must(b, os.Mkdir(fmt.Sprintf("%s/d%d", dir, i/100), 0o755))
				}
				binary.LittleEndian.PutUint64(data, uint64(i))
				must(b, os.WriteFile(fmt.Sprintf("%s/d%d/f%d", dir, i/100, i), data, 0o644))
			}
		})
	})
}
