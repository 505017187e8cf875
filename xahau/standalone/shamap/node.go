package shamap

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Place says where a store keeps a node. Offsets grow with the time of writing.
type Place struct {
	Off uint64 // below 2^48
	Len uint32 // below 2^24; 0 = nowhere
}

// ref is how a parent knows a child: by its hash, and by where it is. A node
// that is not written yet is in memory only.
type ref struct {
	hash   Hash
	node   node   // nil when the store has it
	off    uint64 // Place.Off
	oldest uint64 // smallest Off in the subtree
	len    uint32 // Place.Len, 0 when not written
	leaf   bool
}

func (r *ref) empty() bool { return r.node == nil && r.len == 0 }

type node interface{ memory() int }

type leaf struct {
	key  Key
	data []byte
}

// inner holds the branches that are not empty, in order.
type inner struct {
	bits uint16
	kids []ref
}

// memory returns roughly how many bytes a node occupies in a cache.
func (n *leaf) memory() int  { return 160 + len(n.data) }
func (n *inner) memory() int { return 128 + 88*len(n.kids) }

// at returns the branch, nil when it is empty.
func (n *inner) at(i int) *ref {
	if n.bits&(1<<i) == 0 {
		return nil
	}
	return &n.kids[bits.OnesCount16(n.bits&(1<<i-1))]
}

// The form in which a store keeps nodes, integers big-endian:
//
//	leaf   1 | key 32 | data
//	inner  2 | branches u16 | branches that are leaves u16 |
//	       per branch: hash 32 | off u48 | len u24 | oldest off u48
//
// Bit i of branches is branch i.
const (
	tagLeaf    = 1
	tagInner   = 2
	leafHeader = 1 + 32
	branchSize = 32 + 6 + 3 + 6
)

func appendLeaf(b []byte, n *leaf) []byte {
	b = append(b, tagLeaf)
	b = append(b, n.key[:]...)
	return append(b, n.data...)
}

func appendInner(b []byte, n *inner) []byte {
	var leaves uint16
	k := 0
	for i := range fanout {
		if n.bits&(1<<i) != 0 {
			if n.kids[k].leaf {
				leaves |= 1 << i
			}
			k++
		}
	}
	b = append(b, tagInner)
	b = binary.BigEndian.AppendUint16(b, n.bits)
	b = binary.BigEndian.AppendUint16(b, leaves)
	for i := range n.kids {
		r := &n.kids[i]
		b = append(b, r.hash[:]...)
		b = appendUint48(b, r.off)
		b = append(b, byte(r.len>>16), byte(r.len>>8), byte(r.len))
		b = appendUint48(b, r.oldest)
	}
	return b
}

func appendUint48(b []byte, v uint64) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(v>>32))
	return binary.BigEndian.AppendUint32(b, uint32(v))
}

func uint48(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}

// decodeNode reads a node in a store's form. Data of a leaf is a part of b.
func decodeNode(b []byte) (node, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: no bytes", ErrDamaged)
	}
	switch b[0] {
	case tagLeaf:
		if len(b) <= leafHeader {
			return nil, fmt.Errorf("%w: a leaf of %d bytes", ErrDamaged, len(b))
		}
		n := &leaf{data: b[leafHeader:]}
		copy(n.key[:], b[1:])
		return n, nil
	case tagInner:
		if len(b) < 5 {
			return nil, fmt.Errorf("%w: an inner node of %d bytes", ErrDamaged, len(b))
		}
		n := &inner{bits: binary.BigEndian.Uint16(b[1:])}
		leaves := binary.BigEndian.Uint16(b[3:])
		count := bits.OnesCount16(n.bits)
		if count == 0 || leaves&^n.bits != 0 || len(b) != 5+count*branchSize {
			return nil, fmt.Errorf("%w: an inner node of %d bytes with branches %016b and leaves %016b", ErrDamaged, len(b), n.bits, leaves)
		}
		n.kids = make([]ref, 0, count)
		b = b[5:]
		for i := range fanout {
			if n.bits&(1<<i) == 0 {
				continue
			}
			r := ref{
				hash: Hash(b[:32]), off: uint48(b[32:]), oldest: uint48(b[41:]), leaf: leaves&(1<<i) != 0,
				len: uint32(b[38])<<16 | uint32(b[39])<<8 | uint32(b[40]),
			}
			if r.len == 0 || r.oldest > r.off {
				return nil, fmt.Errorf("%w: branch %d has length %d, offset %d, oldest offset %d", ErrDamaged, i, r.len, r.off, r.oldest)
			}
			n.kids = append(n.kids, r)
			b = b[branchSize:]
		}
		return n, nil
	}
	return nil, fmt.Errorf("%w: unknown tag %d", ErrDamaged, b[0])
}

// checkNode says whether a node is the one that a ref means.
func checkNode(n node, kind Kind, r *ref) error {
	var h Hash
	switch n := n.(type) {
	case *leaf:
		if !r.leaf {
			return fmt.Errorf("%w: a leaf where an inner node should be", ErrDamaged)
		}
		h, _ = hashLeaf(make([]byte, 0, len(n.data)+36), kind, &n.key, n.data)
	case *inner:
		if r.leaf {
			return fmt.Errorf("%w: an inner node where a leaf should be", ErrDamaged)
		}
		h, _ = hashInner(make([]byte, 0, 4+32*fanout), n)
	}
	if h != r.hash {
		return fmt.Errorf("%w: it has hash %x, its parent says %x", ErrDamaged, h[:8], r.hash[:8])
	}
	return nil
}
