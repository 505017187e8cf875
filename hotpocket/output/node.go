package output

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"evernode/internal/digest"
)

// Kind says what a Node is.
type Kind uint8

const (
	// HashNode is a hash: another user's leaf, the state, or a folded group.
	HashNode Kind = iota
	// OwnLeaf is the user's own leaf, which is null in messages.
	OwnLeaf
	// Group is a list of children.
	Group
)

const (
	// maxDepth is more than any tree needs: six levels of 16 hold 16 million
	// users.
	maxDepth = 16
	// maxGroup is the greatest number of children of a group.
	maxGroup = groupSize
)

// Node is a part of a collapsed tree, the hash_tree of a contract_output message:
// in JSON a hex text, null or an array, in BSON a binary, null or an array. The
// whole is always an array, for a tree has at least two leaves.
type Node struct {
	Kind Kind
	// Hash is set in a HashNode.
	Hash digest.Hash
	// Children are set in a Group.
	Children []Node
}

// AppendJSON appends the JSON form.
func (n *Node) AppendJSON(b []byte) []byte {
	switch n.Kind {
	case OwnLeaf:
		return append(b, "null"...)
	case Group:
		b = append(b, '[')
		for i := range n.Children {
			if i > 0 {
				b = append(b, ',')
			}
			b = n.Children[i].AppendJSON(b)
		}
		return append(b, ']')
	default:
		b = append(b, '"')
		b = hex.AppendEncode(b, n.Hash[:])
		return append(b, '"')
	}
}

// MarshalJSON implements json.Marshaler.
func (n Node) MarshalJSON() ([]byte, error) { return n.AppendJSON(nil), nil }

// UnmarshalJSON implements json.Unmarshaler. It accepts any nesting of arrays up
// to a depth of 16; Root checks the rest.
func (n *Node) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("hash tree: %w", err)
	}
	node, err := nodeOf(v, 0)
	if err != nil {
		return fmt.Errorf("hash tree: %w", err)
	}
	*n = node
	return nil
}

func nodeOf(v any, depth int) (Node, error) {
	switch v := v.(type) {
	case nil:
		return Node{Kind: OwnLeaf}, nil
	case string:
		h, err := digest.Parse(v)
		return Node{Kind: HashNode, Hash: h}, err
	case []any:
		if depth == maxDepth {
			return Node{}, fmt.Errorf("nested deeper than %d", maxDepth)
		}
		n := Node{Kind: Group, Children: make([]Node, len(v))}
		for i := range v {
			var err error
			if n.Children[i], err = nodeOf(v[i], depth+1); err != nil {
				return Node{}, err
			}
		}
		return n, nil
	}
	return Node{}, fmt.Errorf("element is a %T, must be a text, null or an array", v)
}

// Root computes the root of a collapsed tree with own in the place of the user's
// leaf. It is an error when the tree is no array, has not exactly one own leaf, or
// has groups that no tree of section 1.9 has.
func (n *Node) Root(own digest.Hash) (digest.Hash, error) {
	if n.Kind != Group {
		return digest.Hash{}, errors.New("hash tree is not an array")
	}
	found := 0
	h, err := n.root(own, &found, 0)
	if err != nil {
		return digest.Hash{}, fmt.Errorf("hash tree: %w", err)
	}
	if found != 1 {
		return digest.Hash{}, fmt.Errorf("hash tree has %d leaves of the user's own, want 1", found)
	}
	return h, nil
}

func (n *Node) root(own digest.Hash, found *int, depth int) (digest.Hash, error) {
	switch n.Kind {
	case HashNode:
		return n.Hash, nil
	case OwnLeaf:
		*found++
		return own, nil
	case Group:
		if depth == maxDepth {
			return digest.Hash{}, fmt.Errorf("nested deeper than %d", maxDepth)
		}
		if len(n.Children) < 2 || len(n.Children) > maxGroup {
			return digest.Hash{}, fmt.Errorf("group of %d, must have 2 to %d", len(n.Children), maxGroup)
		}
		hashes := make([]digest.Hash, len(n.Children))
		for i := range n.Children {
			var err error
			if hashes[i], err = n.Children[i].root(own, found, depth+1); err != nil {
				return digest.Hash{}, err
			}
		}
		return groupHash(hashes), nil
	}
	return digest.Hash{}, fmt.Errorf("element of unknown kind %d", n.Kind)
}
