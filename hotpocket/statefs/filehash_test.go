package statefs

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"evernode/internal/digest"
)

func TestFileHashIsPlainBLAKE3(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 1023, 1024, 1025, minGroup - 1, minGroup, minGroup + 1, minGroup + 1024, 2 * minGroup, 2*minGroup + 1,
		3*minGroup + 5000, 7*minGroup + simdBytes + 1, 33 * minGroup, 40*minGroup + 1, 130*minGroup - 1}
	for range 20 {
		sizes = append(sizes, rng.IntN(20*minGroup))
	}
	for _, size := range sizes {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		h, values, err := hashContent(context.Background(), bytes.NewReader(data), uint64(size), nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := digest.Sum(data); h != want {
			t.Fatalf("size %d: hash %s, plain BLAKE3 is %s", size, h, want)
		}
		_, count := Groups(uint64(size))
		if count > 1 && len(values) != count || count == 1 && values != nil {
			t.Fatalf("size %d: %d group values, %d groups", size, len(values), count)
		}
		for i := range values {
			off, n := groupRange(uint64(size), i)
			if v := GroupValue(uint64(size), i, data[off:off+n]); v != values[i] {
				t.Fatalf("size %d: group %d has value %s in the list, %s by itself", size, i, values[i], v)
			}
		}
	}
}

func TestGroupsStayInBounds(t *testing.T) {
	for _, size := range []uint64{0, 1, minGroup, minGroup * maxGroups, minGroup*maxGroups + 1, MaxFileSize - 1, MaxFileSize} {
		group, count := Groups(size)
		if group > maxGroup || count > maxGroups || uint64(count)*group < size || count > 1 && uint64(count-1)*group >= size {
			t.Errorf("size %d: %d groups of %d bytes", size, count, group)
		}
	}
	if _, _, err := hashContent(context.Background(), bytes.NewReader(nil), MaxFileSize+1, nil); err == nil {
		t.Error("a file above the limit was hashed")
	}
}

// A large group size is used for files of many gigabytes only; its arithmetic is
// checked here on one value list.
func TestLargeGroupsFold(t *testing.T) {
	data := make([]byte, 5*maxGroup+777)
	for i := range data {
		data[i] = byte(i * 7)
	}
	var values []digest.Hash
	for off := 0; off < len(data); off += maxGroup {
		values = append(values, fromWords(subtree(data[off:min(off+maxGroup, len(data))], uint64(off/1024))))
	}
	if got, want := FoldGroups(values), digest.Sum(data); got != want {
		t.Fatalf("folded to %s, want %s", got, want)
	}
}
