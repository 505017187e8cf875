// Package shamap is the SHAMap of the XRP Ledger and of Xahau: a 16-way radix
// tree over 256-bit keys whose root hash stands for everything in it, as in
// xrpld and xahaud to the last bit.
//
// A Map is an immutable value. Apply returns a new Map that shares every
// unchanged node with the old one, so the states of many ledgers cost only what
// changed between them, and any number of goroutines may read them. A new Map
// lives in memory; Save writes the nodes that are not yet written to a store,
// and from then on they are read back when somebody needs them, through a cache
// of bounded size: memory stays flat however large the state is.
//
// The embedded ledger keeps its state and its transaction trees in it;
// package chain is the store. It never interprets what is in an entry, and it
// owns no file, clock or goroutine that outlives a call.
package shamap

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
)

// Hash is SHA-512Half: the first 32 bytes of a SHA-512. A Map without entries
// has the zero hash.
type Hash = [32]byte

// Key is what an entry is found by, compared bytewise.
type Key = [32]byte

// Kind says what the entries of a tree are, and so what a leaf's hash covers.
type Kind byte

const (
	// State entries are ledger objects: hash over "MLN\0", data and key.
	State Kind = iota
	// Transactions are transactions with metadata, in the form of
	// TransactionEntry: hash over "SND\0", data and key.
	Transactions
	// Candidates are transactions without metadata: hash over "TXN\0" and data.
	// The key is not hashed, it is the hash.
	Candidates
)

// The prefixes of what is hashed, three letters and a zero byte.
const (
	prefixInner       = 'M'<<24 | 'I'<<16 | 'N'<<8
	prefixState       = 'M'<<24 | 'L'<<16 | 'N'<<8
	prefixTransaction = 'S'<<24 | 'N'<<16 | 'D'<<8
	prefixCandidate   = 'T'<<24 | 'X'<<16 | 'N'<<8
)

const (
	fanout   = 16
	maxDepth = 64
	// MaxData is the greatest length of an entry's data in bytes.
	MaxData = 1<<24 - 1 - leafHeader
)

// ErrDamaged is wrapped by the error of a node that cannot be what its parent
// says: the store is damaged.
var ErrDamaged = errors.New("damaged node")

// Entry is a key with its data. The data is shared with the tree and must not
// be changed.
type Entry struct {
	Key  Key
	Data []byte
}

// Half returns SHA-512Half of data.
func Half(data []byte) Hash {
	full := sha512.Sum512(data)
	return Hash(full[:32])
}

// nibble returns the four bits of the key that choose the branch at a depth.
func nibble(k *Key, depth int) int {
	b := k[depth/2]
	if depth%2 == 0 {
		return int(b >> 4)
	}
	return int(b & 15)
}

// hashLeaf returns the hash of an entry. scratch is reused memory.
func hashLeaf(scratch []byte, kind Kind, key *Key, data []byte) (Hash, []byte) {
	b := scratch[:0]
	switch kind {
	case State:
		b = binary.BigEndian.AppendUint32(b, prefixState)
	case Transactions:
		b = binary.BigEndian.AppendUint32(b, prefixTransaction)
	case Candidates:
		b = binary.BigEndian.AppendUint32(b, prefixCandidate)
	}
	b = append(b, data...)
	if kind != Candidates {
		b = append(b, key[:]...)
	}
	return Half(b), b
}

// hashInner returns the hash of an inner node: all sixteen branches, zeros for
// those that are empty.
func hashInner(scratch []byte, n *inner) (Hash, []byte) {
	b := binary.BigEndian.AppendUint32(scratch[:0], prefixInner)
	var none Hash
	next := 0
	for i := range fanout {
		if n.bits&(1<<i) == 0 {
			b = append(b, none[:]...)
			continue
		}
		b = append(b, n.kids[next].hash[:]...)
		next++
	}
	return Half(b), b
}

// TransactionEntry returns the data of an entry in a tree of kind Transactions:
// transaction and metadata, each after its length in the ledger's
// variable-length form. Each may have at most 918,744 bytes.
func TransactionEntry(tx, meta []byte) ([]byte, error) {
	b := make([]byte, 0, len(tx)+len(meta)+6)
	for _, part := range [][]byte{tx, meta} {
		var err error
		if b, err = appendLength(b, len(part)); err != nil {
			return nil, err
		}
		b = append(b, part...)
	}
	return b, nil
}

func appendLength(b []byte, n int) ([]byte, error) {
	switch {
	case n <= 192:
		return append(b, byte(n)), nil
	case n <= 12480:
		n -= 193
		return append(b, byte(193+n>>8), byte(n)), nil
	case n <= 918744:
		n -= 12481
		return append(b, byte(241+n>>16), byte(n>>8), byte(n)), nil
	}
	return nil, fmt.Errorf("%d bytes are too many for a length prefix, at most 918744 are allowed", n)
}
