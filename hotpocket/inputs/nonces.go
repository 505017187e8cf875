package inputs

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

const (
	// MaxNonceUsers is how many users the nonce table remembers at most.
	// While it is full, inputs of users that are not in it are rejected with
	// InputsOverflow. Every node has the same table and so does the same.
	MaxNonceUsers = 1_000_000

	nonceEntrySize = key.PublicSize + 8 + digest.Size + 8

	nonceLeafTag  = "evernode hotpocket nonce table leaf, version 1"
	nonceInnerTag = "evernode hotpocket nonce table node, version 1"
	nonceRootTag  = "evernode hotpocket nonce table root, version 1"
)

// Nonces is the table behind the nonce rule (spec/hotpocket.md section 1.6),
// which keeps an input from being executed twice. It is part of what all nodes
// agree on: it changes only through Select, its Hash is the same on all nodes
// after the same ledgers, and a joining node gets it from others (Encode,
// DecodeNonces). So a replay stays impossible across restarts, which the
// original's table, local and in memory only, could not promise.
//
// The rule. For each user the table holds the nonce and hash of the accepted
// input with the highest nonce, and the greatest MaxLedger of all inputs accepted
// since the user's entry was made. An entry is forgotten when the chain has
// reached that MaxLedger. An input is fine when its user has no entry or its
// nonce is above the remembered one; otherwise it is AlreadySubmitted when it is
// the remembered input itself and NonceExpired when it is another.
//
// It matters that MaxLedger is the greatest of all and not that of the last
// input, as in the original: a user sends nonce 1 good until ledger 1000 and then
// nonce 2 good until ledger 10. The original forgets the user after ledger 10,
// and from then on to ledger 1000 anybody who saw the first input can have it
// executed again. Here, as long as any accepted input is within its time, the
// entry stands, and its nonce is at least that input's.
//
// Nonces is safe for concurrent use. A lock is enough, and better than immutable
// snapshots: Select holds it for well under a millisecond per ledger, so that
// Check in the sessions of users hardly waits, while snapshots would copy a part
// of the table that grows with the number of users for every ledger.
type Nonces struct {
	mu sync.RWMutex
	// The table is a tree of fixed shape: 256 × 256 leaves by the second and
	// third byte of the user's key (the first is the same for all), so that a
	// changed user costs the hashing of one small leaf, its 256 siblings' hashes
	// and the root's.
	inner [256]*nonceNode
	count int
	dirty bool
	root  digest.Hash
	// expiry files each user under one ledger that is not after its MaxLedger.
	// It is filed again only when that ledger comes, so that there is one
	// place per user, however often an entry's MaxLedger grows.
	expiry map[uint64][]key.Public
	due    ledgerHeap // the keys of expiry
}

type nonceNode struct {
	leaves [256]nonceLeaf
	hash   digest.Hash
	count  int
	dirty  bool
}

type nonceLeaf struct {
	entries []nonceEntry // sorted by user
	hash    digest.Hash
	dirty   bool
}

type nonceEntry struct {
	user      key.Public
	nonce     uint64
	hash      digest.Hash
	maxLedger uint64
}

type ledgerHeap []uint64

func (h ledgerHeap) Len() int           { return len(h) }
func (h ledgerHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h ledgerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ledgerHeap) Push(v any)        { *h = append(*h, v.(uint64)) }
func (h *ledgerHeap) Pop() any {
	v := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return v
}

// NewNonces returns an empty table.
func NewNonces() *Nonces {
	return &Nonces{dirty: true, expiry: map[uint64][]key.Public{}}
}

// Check judges a nonce without changing anything: it returns None, NonceExpired,
// AlreadySubmitted or, when the table is full, InputsOverflow. lcl is the seq_no
// of the last closed ledger.
func (n *Nonces) Check(user key.Public, nonce uint64, hash digest.Hash, lcl uint64) Reason {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.check(n.find(user), nonce, hash, lcl)
}

// Len returns how many users are remembered.
func (n *Nonces) Len() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.count
}

func (n *Nonces) check(e *nonceEntry, nonce uint64, hash digest.Hash, lcl uint64) Reason {
	switch {
	case e == nil:
		if n.count >= MaxNonceUsers {
			return InputsOverflow
		}
		return None
	case e.maxLedger <= lcl || nonce > e.nonce:
		return None
	case nonce == e.nonce && hash == e.hash:
		return AlreadySubmitted
	}
	return NonceExpired
}

// find returns the entry of a user, or nil. It is valid until the table changes.
func (n *Nonces) find(user key.Public) *nonceEntry {
	node := n.inner[user[1]]
	if node == nil {
		return nil
	}
	leaf := &node.leaves[user[2]]
	if i, ok := leaf.search(user); ok {
		return &leaf.entries[i]
	}
	return nil
}

func (l *nonceLeaf) search(user key.Public) (int, bool) {
	return slices.BinarySearchFunc(l.entries, user, func(e nonceEntry, u key.Public) int { return e.user.Compare(u) })
}

// touch returns the leaf of a user, made when there is none, and marks it and
// all above it for hashing.
func (n *Nonces) touch(user key.Public) (*nonceNode, *nonceLeaf) {
	node := n.inner[user[1]]
	if node == nil {
		node = &nonceNode{}
		n.inner[user[1]] = node
	}
	leaf := &node.leaves[user[2]]
	n.dirty, node.dirty, leaf.dirty = true, true, true
	return node, leaf
}

// accept judges an input and, when it is fine, remembers it.
func (n *Nonces) accept(in *Input, lcl uint64) Reason {
	e := n.find(in.User)
	if r := n.check(e, in.Nonce, in.Hash, lcl); r != None {
		return r
	}
	node, leaf := n.touch(in.User)
	if e == nil {
		n.insert(node, leaf, nonceEntry{in.User, in.Nonce, in.Hash, in.MaxLedger})
		return None
	}
	e.nonce, e.hash = in.Nonce, in.Hash
	// An entry past its time may still be here when expire was not called up
	// to lcl; it is filed under a ledger that is due, so its MaxLedger may grow.
	e.maxLedger = max(e.maxLedger, in.MaxLedger)
	return None
}

func (n *Nonces) insert(node *nonceNode, leaf *nonceLeaf, e nonceEntry) {
	i, _ := leaf.search(e.user)
	leaf.entries = slices.Insert(leaf.entries, i, e)
	node.count++
	n.count++
	n.file(e.user, e.maxLedger)
}

func (n *Nonces) file(user key.Public, ledger uint64) {
	list, ok := n.expiry[ledger]
	if !ok {
		heap.Push(&n.due, ledger)
	}
	n.expiry[ledger] = append(list, user)
}

// expire forgets every user whose MaxLedger is not above lcl.
func (n *Nonces) expire(lcl uint64) {
	for len(n.due) > 0 && n.due[0] <= lcl {
		ledger := heap.Pop(&n.due).(uint64)
		users := n.expiry[ledger]
		delete(n.expiry, ledger)
		for _, u := range users {
			if e := n.find(u); e.maxLedger > lcl {
				n.file(u, e.maxLedger)
				continue
			}
			n.remove(u)
		}
	}
}

func (n *Nonces) remove(user key.Public) {
	node, leaf := n.touch(user)
	i, _ := leaf.search(user)
	leaf.entries = slices.Delete(leaf.entries, i, i+1)
	n.count--
	if node.count--; node.count == 0 {
		n.inner[user[1]] = nil
	} else if len(leaf.entries) == 0 {
		leaf.entries = nil
	}
}

// Expire forgets what is past its time once ledger lcl has closed. Select does
// the same at its beginning; a ledger without a Select needs an Expire, on every
// node alike.
func (n *Nonces) Expire(lcl uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expire(lcl)
}

// Hash returns the hash of the whole table. It costs time in proportion to what
// has changed since the last call.
func (n *Nonces) Hash() digest.Hash {
	n.mu.RLock()
	root, dirty := n.root, n.dirty
	n.mu.RUnlock()
	if !dirty {
		return root
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rehash()
}

func (n *Nonces) rehash() digest.Hash {
	if !n.dirty {
		return n.root
	}
	// Children are listed by number and hash, so that empty ones cost nothing.
	var top, mid, low []byte
	for i, node := range n.inner {
		if node == nil {
			continue
		}
		if node.dirty {
			mid = mid[:0]
			for j := range node.leaves {
				leaf := &node.leaves[j]
				if leaf.dirty {
					low = low[:0]
					for k := range leaf.entries {
						low = leaf.entries[k].append(low)
					}
					leaf.hash = digest.Tagged(nonceLeafTag, low)
					leaf.dirty = false
				}
				if len(leaf.entries) > 0 {
					mid = append(append(mid, byte(j)), leaf.hash[:]...)
				}
			}
			node.hash = digest.Tagged(nonceInnerTag, mid)
			node.dirty = false
		}
		top = append(append(top, byte(i)), node.hash[:]...)
	}
	n.root = digest.Tagged(nonceRootTag, top)
	n.dirty = false
	return n.root
}

func (e *nonceEntry) append(b []byte) []byte {
	b = append(b, e.user[:]...)
	b = wire.AppendU64(b, e.nonce)
	b = append(b, e.hash[:]...)
	return wire.AppendU64(b, e.maxLedger)
}

// Encode returns the table for a joining node: count (4 bytes), then for each
// user, sorted, key (33), nonce (8), hash (32) and MaxLedger (8). Integers are
// big-endian.
func (n *Nonces) Encode() []byte {
	n.mu.RLock()
	defer n.mu.RUnlock()
	b := make([]byte, 0, 4+n.count*nonceEntrySize)
	b = binary.BigEndian.AppendUint32(b, uint32(n.count))
	for _, node := range n.inner {
		if node == nil {
			continue
		}
		for j := range node.leaves {
			for k := range node.leaves[j].entries {
				b = node.leaves[j].entries[k].append(b)
			}
		}
	}
	return b
}

// DecodeNonces reads an encoded table and accepts it only when its hash is want.
func DecodeNonces(b []byte, want digest.Hash) (*Nonces, error) {
	r := wire.NewReader(b)
	count := r.Count(MaxNonceUsers, nonceEntrySize)
	n := NewNonces()
	var last key.Public
	for range count {
		var e nonceEntry
		r.Fixed(e.user[:])
		e.nonce = r.U64()
		r.Fixed(e.hash[:])
		e.maxLedger = r.U64()
		if e.user[0] != key.Prefix {
			return nil, fmt.Errorf("nonce table: user %s: key has the wrong prefix", e.user)
		}
		if e.user.Compare(last) <= 0 {
			return nil, fmt.Errorf("nonce table: user %s is out of order", e.user)
		}
		if e.nonce == 0 {
			return nil, fmt.Errorf("nonce table: user %s has nonce 0", e.user)
		}
		last = e.user
		node, leaf := n.touch(e.user)
		n.insert(node, leaf, e)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("nonce table: %w", err)
	}
	if got := n.rehash(); got != want {
		return nil, fmt.Errorf("%w: it hashes to %s, want %s", ErrNonceHash, got, want)
	}
	return n, nil
}

// ErrNonceHash is the error of a table that is not the wanted one.
var ErrNonceHash = errors.New("nonce table is not the agreed one")
