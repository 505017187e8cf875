package output

import (
	"errors"
	"fmt"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// Signature is one node's signature of a root, an element of unl_sig.
type Signature struct {
	Key key.Public
	Sig key.Signature
}

// ErrUntrusted is the error of an output that too few trusted nodes signed.
var ErrUntrusted = errors.New("too few trusted nodes have signed the output")

// Sign signs the root of a tree, which must not be zero. The 32 bytes are signed
// as they are, for this is what existing clients check.
func Sign(node key.Private, root digest.Hash) key.Signature { return node.Sign(root[:]) }

// The least and the greatest share that VerifyShare takes, in percent: those of a
// cluster's threshold.
const (
	MinShare = 50
	MaxShare = 100
)

// Needed returns how many of n trusted keys must have signed for the JavaScript
// client: four fifths, rounded up, whatever the cluster's own threshold is
// (spec/hotpocket.md section 0, fact 8).
func Needed(n int) int { return (4*n + 4) / 5 }

// NeededShare returns how many of n trusted keys must have signed when a share in
// percent is asked for: the share rounded up, and always more than half. For a
// share equal to a cluster's threshold it is the cluster's quorum.
func NeededShare(n, percent int) int { return max((percent*n+99)/100, n/2+1) }

// Verify checks that outputs are what the cluster agreed on for the user, as the
// JavaScript client does: hash must be that of the outputs, the collapsed tree must
// have exactly one place for it, and at least Needed of the trusted keys must have
// signed the tree's root. Signatures of other keys and repetitions do not count.
// Nobody is trusted when trusted is empty, and a key listed twice counts once.
//
// The format has two weaknesses that no check of ours can mend, for existing clients
// and nodes depend on it. It proves the concatenation of the outputs and not where
// one ends and the next begins. And it does not tell leaves from groups: somebody
// who makes a contract send chosen bytes to himself, and runs a node as well, can
// put the leaf of an invented output for another user into his own
// (TestLeafCanPassForGroup). Programs that depend on outputs of a contract that
// repeats what it is told should ask several nodes.
func Verify(user key.Public, outputs [][]byte, hash digest.Hash, tree Node, sigs []Signature, trusted []key.Public) error {
	return verify(user, outputs, hash, tree, sigs, trusted, Needed)
}

// VerifyShare is Verify, but NeededShare of the trusted keys must have signed. It
// is an error when percent is not from MinShare to MaxShare.
func VerifyShare(user key.Public, outputs [][]byte, hash digest.Hash, tree Node, sigs []Signature, trusted []key.Public, percent int) error {
	if percent < MinShare || percent > MaxShare {
		return fmt.Errorf("share of trusted keys is %d %%, want %d to %d", percent, MinShare, MaxShare)
	}
	return verify(user, outputs, hash, tree, sigs, trusted, func(n int) int { return NeededShare(n, percent) })
}

// verify leaves it to need how many of n keys must have signed.
func verify(user key.Public, outputs [][]byte, hash digest.Hash, tree Node, sigs []Signature, trusted []key.Public, need func(n int) int) error {
	if got := Hash(user, outputs); got != hash {
		return fmt.Errorf("outputs hash to %s, the message says %s", got, hash)
	}
	root, err := tree.Root(hash)
	if err != nil {
		return err
	}
	if len(trusted) == 0 {
		return fmt.Errorf("%w: no key is trusted", ErrUntrusted)
	}
	waiting := make(map[key.Public]bool, len(trusted))
	for _, k := range trusted {
		waiting[k] = true
	}
	good, needed := 0, need(len(waiting))
	for _, s := range sigs {
		if good == needed {
			break
		}
		// A key is done with once a signature of it is good: a bad one must
		// not hide a good one after it.
		if waiting[s.Key] && s.Key.Verify(root[:], s.Sig[:]) {
			waiting[s.Key] = false
			good++
		}
	}
	if good < needed {
		return fmt.Errorf("%w: %d of %d keys, %d are needed", ErrUntrusted, good, len(waiting), needed)
	}
	return nil
}
