package volume

import "math/bits"

// blockSize is the unit in which changes of large files are tracked.
const blockSize = 4096

// bitmap is a set of blocks. It grows as needed; what it does not reach is not
// in it.
type bitmap []uint64

func (b bitmap) has(i uint64) bool {
	w := i / 64
	return w < uint64(len(b)) && b[w]&(1<<(i%64)) != 0
}

// setRange adds the blocks from up to (not including) to.
func (b *bitmap) setRange(from, to uint64) {
	if from >= to {
		return
	}
	if need := (to + 63) / 64; need > uint64(len(*b)) {
		*b = append(*b, make([]uint64, need-uint64(len(*b)))...)
	}
	for w := from / 64; w*64 < to; w++ {
		(*b)[w] |= mask(w, from, to)
	}
}

// clearFrom removes all blocks from i on.
func (b *bitmap) clearFrom(i uint64) {
	w := i / 64
	if w >= uint64(len(*b)) {
		return
	}
	(*b)[w] &= 1<<(i%64) - 1
	*b = (*b)[:w+1]
}

// mask has the bits of word w that are in [from, to).
func mask(w, from, to uint64) uint64 {
	m := ^uint64(0)
	if lo := w * 64; from > lo {
		m &= ^uint64(0) << (from - lo)
	}
	if hi := w*64 + 64; to < hi {
		m &= ^uint64(0) >> (hi - to)
	}
	return m
}

// any reports whether a block in [from, to) is in the set.
func (b bitmap) any(from, to uint64) bool {
	to = min(to, uint64(len(b))*64)
	for w := from / 64; w*64 < to; w++ {
		if b[w]&mask(w, from, to) != 0 {
			return true
		}
	}
	return false
}

// count returns the number of blocks in the set.
func (b bitmap) count() (n uint64) {
	for _, w := range b {
		n += uint64(bits.OnesCount64(w))
	}
	return n
}

// runEnd returns whether block from is in the set, and the first block behind it,
// at most to, that differs in that.
func (b bitmap) runEnd(from, to uint64) (in bool, end uint64) {
	in = b.has(from)
	for i := from; i < to; {
		w := i / 64
		if w >= uint64(len(b)) {
			if in {
				return in, i
			}
			return in, to
		}
		word := b[w]
		if in {
			word = ^word
		}
		word &= mask(w, i, w*64+64)
		if word != 0 {
			return in, min(to, w*64+uint64(bits.TrailingZeros64(word)))
		}
		i = w*64 + 64
	}
	return in, to
}
