// Package output computes what nodes sign about the outputs of a contract run:
// the hash of each user's outputs and the tree over all of them and the state
// (spec/hotpocket.md section 1.9). It also checks, for user libraries, an output
// that a node has delivered.
//
// The format is the original's, byte for byte, because existing clients verify
// it. The package is pure; it is called by the consensus loop, the gateway and the
// Go client library, and knows neither messages nor connections.
package output

import (
	"slices"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// groupSize is how many nodes of the tree have one parent.
const groupSize = 16

// Hash returns the hash of one user's outputs in a run: BLAKE3 over the user's
// 33-byte key and the outputs in the order of their emission, without lengths.
func Hash(user key.Public, outputs [][]byte) digest.Hash {
	parts := make([][]byte, 0, 1+len(outputs))
	parts = append(parts, user[:])
	return digest.Sum(append(parts, outputs...)...)
}

// Tree is the tree over the output hashes of all users of a run. It never
// changes.
type Tree struct {
	// levels begin with the leaves and end with the root alone. A level's
	// groups of groupSize nodes are the next level; a last group of one node
	// is that node.
	levels [][]digest.Hash
}

// NewTree makes the tree of the output hashes of those users that have outputs,
// in any order, and the state hash after the run.
func NewTree(hashes []digest.Hash, state digest.Hash) *Tree {
	if len(hashes) == 0 {
		return &Tree{}
	}
	level := append(make([]digest.Hash, 0, len(hashes)+1), hashes...)
	slices.SortFunc(level, digest.Hash.Compare)
	level = append(level, state)
	t := &Tree{levels: [][]digest.Hash{level}}
	for len(level) > 1 {
		next := make([]digest.Hash, 0, (len(level)+groupSize-1)/groupSize)
		for group := range slices.Chunk(level, groupSize) {
			next = append(next, groupHash(group))
		}
		t.levels = append(t.levels, next)
		level = next
	}
	return t
}

func groupHash(group []digest.Hash) digest.Hash {
	if len(group) == 1 {
		return group[0]
	}
	b := make([]byte, 0, groupSize*digest.Size)
	for i := range group {
		b = append(b, group[i][:]...)
	}
	return digest.Sum(b)
}

// Root returns the hash that nodes sign, or zero when no user has outputs.
func (t *Tree) Root() digest.Hash {
	if len(t.levels) == 0 {
		return digest.Hash{}
	}
	return t.levels[len(t.levels)-1][0]
}

// Collapse returns the tree as the user with the given output hash gets it: all
// that does not lead to the user's leaf is folded into hashes. It reports false
// when the hash is no user's.
func (t *Tree) Collapse(own digest.Hash) (Node, bool) {
	if len(t.levels) == 0 {
		return Node{}, false
	}
	leaves := t.levels[0]
	at, ok := slices.BinarySearchFunc(leaves[:len(leaves)-1], own, digest.Hash.Compare)
	if !ok {
		return Node{}, false
	}
	node := Node{Kind: OwnLeaf}
	for _, level := range t.levels[:len(t.levels)-1] {
		from := at - at%groupSize
		group := level[from:min(from+groupSize, len(level))]
		if len(group) > 1 {
			children := make([]Node, len(group))
			for i, h := range group {
				children[i] = Node{Kind: HashNode, Hash: h}
			}
			children[at-from] = node
			node = Node{Kind: Group, Children: children}
		}
		at /= groupSize
	}
	return node, true
}
