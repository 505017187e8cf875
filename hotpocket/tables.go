package hotpocket

import (
	"sync"

	"evernode/hotpocket/inputs"
	"evernode/internal/digest"
)

const (
	// keptTables is how many past nonce tables are kept for joining nodes, and
	// maxKeptUsers up to which size.
	keptTables   = 4
	maxKeptUsers = 5000
)

// tables holds the nonce tables of the last ledgers for nodes that join: the
// agreed one is always a ledger behind the one in use.
type tables struct {
	mu   sync.Mutex
	kept []table
}

type table struct {
	hash    digest.Hash
	encoded []byte
}

// put keeps a table before it changes.
func (x *tables) put(hash digest.Hash, n *inputs.Nonces) {
	if n.Len() > maxKeptUsers {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.kept) > 0 && x.kept[len(x.kept)-1].hash == hash {
		return
	}
	if len(x.kept) == keptTables {
		copy(x.kept, x.kept[1:])
		x.kept = x.kept[:keptTables-1]
	}
	x.kept = append(x.kept, table{hash, n.Encode()})
}

// get returns the encoded table with that hash: one that was kept or the
// current one.
func (x *tables) get(hash digest.Hash, current *inputs.Nonces) []byte {
	x.mu.Lock()
	for _, t := range x.kept {
		if t.hash == hash {
			x.mu.Unlock()
			return t.encoded
		}
	}
	x.mu.Unlock()
	if current.Hash() != hash {
		return nil
	}
	return current.Encode()
}
