package statesync

import (
	"encoding/binary"
	"errors"
	"fmt"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// A piece that changed a little need not travel as a whole. The asker sends
// tags, the first 4 bytes of the BLAKE3 hashes of the parts of what it has in
// the same place; the answer consists of those parts of the piece whose tags are
// not among them. What is put together is checked against the hash of the piece
// like any other answer, so a tag that two different parts share costs nothing
// but a second question. The parts are:
//
//   - of a block (RefData): its stretches of 4 KiB, each compared with the one at
//     the same place. Delta: a bitmap of the stretches that follow, then these.
//   - of a folder or page: its entries, wherever they stand. Delta: the bytes in
//     front of the entries, then runs: u16 how many entries to take from those
//     of the asker, u16 from which on, and the bytes that follow them.
const (
	tagSize = 4
	stretch = 4 << 10
	// leastDelta is the size in bytes below which a piece is not worth a delta.
	leastDelta = 1 << 10
)

func appendTag(b, part []byte) []byte {
	h := digest.Sum(part)
	return append(b, h[:tagSize]...)
}

// blockTags returns the tags of a block.
func blockTags(data []byte) []byte {
	tags := make([]byte, 0, tagSize*(len(data)/stretch+1))
	for len(data) > 0 {
		n := min(len(data), stretch)
		tags = appendTag(tags, data[:n])
		data = data[n:]
	}
	return tags
}

// appendBlockDelta appends the delta of a block and reports whether it is worth
// it; if not, b is as before.
func appendBlockDelta(b, data, have []byte) ([]byte, bool) {
	count := (len(data) + stretch - 1) / stretch
	if len(data) < leastDelta || len(have)%tagSize != 0 {
		return b, false
	}
	start := len(b)
	b = append(b, make([]byte, (count+7)/8)...)
	saved := 0
	var tag [tagSize]byte
	for i := range count {
		part := data[i*stretch : min((i+1)*stretch, len(data))]
		if (i+1)*tagSize <= len(have) && string(appendTag(tag[:0], part)) == string(have[i*tagSize:(i+1)*tagSize]) {
			saved += len(part)
			continue
		}
		b[start+i/8] |= 1 << (i % 8)
		b = append(b, part...)
	}
	if saved < len(data)/8 {
		return b[:start], false
	}
	return b, true
}

var errDelta = errors.New("malformed delta")

// applyBlockDelta returns the block of the given size that a delta describes,
// on top of base.
func applyBlockDelta(size int, base, delta []byte) ([]byte, error) {
	count := (size + stretch - 1) / stretch
	if len(delta) < (count+7)/8 {
		return nil, errDelta
	}
	bitmap, rest := delta[:(count+7)/8], delta[(count+7)/8:]
	data := make([]byte, size)
	copy(data, base)
	for i := range count {
		if bitmap[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		part := data[i*stretch : min((i+1)*stretch, size)]
		if len(rest) < len(part) {
			return nil, errDelta
		}
		copy(part, rest)
		rest = rest[len(part):]
	}
	if len(rest) > 0 {
		return nil, errDelta
	}
	return data, nil
}

// maxNodeEntries bounds the entries of a folder node or page that are compared.
const maxNodeEntries = 4096

// splitNode returns where the entries of an encoded folder node (RefDir) or page
// begin and end: ends[0] is the end of what comes before the first. A folder of
// several pages has the hashes of these in place of entries.
func splitNode(kind statefs.RefKind, node []byte) (ends []int, err error) {
	r := wire.NewReader(node)
	hashes := false
	if kind == statefs.RefDir {
		hashes = r.U8() == 1
		r.U64()
		r.U64()
	}
	n := r.U32()
	if r.Err() != nil || hashes || n > maxNodeEntries {
		return nil, errDelta
	}
	ends = make([]int, 0, n+1)
	ends = append(ends, len(node)-r.Len())
	var hash digest.Hash
	for range n {
		kind := statefs.Kind(r.U8())
		r.U16()
		r.View(statefs.MaxObject)
		switch kind {
		case statefs.KindFile:
			r.U64()
			r.Fixed(hash[:])
		case statefs.KindDir:
			r.Fixed(hash[:])
		case statefs.KindSymlink:
			r.View(statefs.MaxObject)
		}
		if r.Err() != nil {
			return nil, errDelta
		}
		ends = append(ends, len(node)-r.Len())
	}
	if r.Len() > 0 {
		return nil, errDelta
	}
	return ends, nil
}

// nodeTags returns the tags of a folder node or page, nil if there is nothing to
// compare.
func nodeTags(kind statefs.RefKind, node []byte) []byte {
	ends, err := splitNode(kind, node)
	if err != nil || len(ends) < 2 {
		return nil
	}
	tags := make([]byte, 0, tagSize*len(ends))
	for i := 1; i < len(ends); i++ {
		tags = appendTag(tags, node[ends[i-1]:ends[i]])
	}
	return tags
}

// appendNodeDelta appends the delta of a folder node or page and reports whether
// it is worth it; if not, b is as before.
func appendNodeDelta(b []byte, kind statefs.RefKind, node, have []byte) ([]byte, bool) {
	if len(node) < leastDelta || len(have)%tagSize != 0 || len(have) > tagSize*maxNodeEntries {
		return b, false
	}
	ends, err := splitNode(kind, node)
	if err != nil {
		return b, false
	}
	at := make(map[[tagSize]byte]int, len(have)/tagSize)
	for i := 0; i < len(have); i += tagSize {
		at[[tagSize]byte(have[i:])] = i / tagSize
	}
	start := len(b)
	b = wire.AppendBytes(b, node[:ends[0]])
	for i := 1; i < len(ends); {
		first, n := 0, 0
		for i+n < len(ends) {
			var tag [tagSize]byte
			appendTag(tag[:0], node[ends[i+n-1]:ends[i+n]])
			k, ok := at[tag]
			if !ok || n > 0 && k != first+n {
				break
			}
			if n == 0 {
				first = k
			}
			n++
		}
		i += n
		from := i
		for i < len(ends) {
			var tag [tagSize]byte
			appendTag(tag[:0], node[ends[i-1]:ends[i]])
			if _, ok := at[tag]; ok {
				break
			}
			i++
		}
		b = wire.AppendU16(wire.AppendU16(b, uint16(n)), uint16(first))
		b = wire.AppendBytes(b, node[ends[from-1]:ends[i-1]])
		if len(b)-start > len(node)*7/8 {
			return b[:start], false
		}
	}
	return b, true
}

// applyNodeDelta puts a folder node or page together from the delta and base.
func applyNodeDelta(kind statefs.RefKind, base, delta []byte) ([]byte, error) {
	ends, err := splitNode(kind, base)
	if err != nil {
		return nil, err
	}
	r := wire.NewReader(delta)
	out := append(make([]byte, 0, len(base)+len(delta)), r.View(statefs.MaxObject)...)
	for r.Err() == nil && r.Len() > 0 {
		n, first := int(r.U16()), int(r.U16())
		if first+n >= len(ends) && n > 0 {
			return nil, errDelta
		}
		if n > 0 {
			out = append(out, base[ends[first]:ends[first+n]]...)
		}
		out = append(out, r.View(statefs.MaxObject)...)
		if len(out) > statefs.MaxObject {
			return nil, errDelta
		}
	}
	if r.Err() != nil {
		return nil, fmt.Errorf("%w: %w", errDelta, r.Err())
	}
	return out, nil
}

// pairPages tells for each page of a folder which page of the folder's earlier
// form it probably came from, -1 if there is none: between pages that both have,
// the others are taken in order.
func pairPages(old, new []digest.Hash) []int {
	at := make(map[uint64]int, len(old))
	for i := range old {
		at[binary.BigEndian.Uint64(old[i][:])] = i
	}
	pairs := make([]int, len(new))
	next, from := 0, 0 // of old, of new
	gap := func(end, oldEnd int) {
		for i := from; i < end; i++ {
			if pairs[i] = next + i - from; pairs[i] >= oldEnd {
				pairs[i] = -1
			}
		}
	}
	for i := range new {
		k, ok := at[binary.BigEndian.Uint64(new[i][:])]
		if !ok || k < next || old[k] != new[i] {
			continue
		}
		gap(i, k)
		pairs[i], next, from = k, k+1, i+1
	}
	gap(len(new), len(old))
	return pairs
}
