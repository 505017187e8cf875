// Package chain keeps the closed ledgers of the embedded ledger: their headers,
// their transactions with metadata, an index of transactions by hash and by
// account, and the state of the last ledgers.
//
// Commit adds a ledger. It is readable at once and durable when Sync returns or
// OnDurable says so: one atomic step, whatever happens to the process or the
// machine. Ledgers that are committed while a sync is under way share the next.
//
// On disk there are two streams of records that only grow at their end: the
// nodes of the state, and the ledgers with their transactions. A node knows
// where its children stand, so nothing has to be searched for. What no kept
// state needs any more is collected by writing what is still needed from the
// beginning of the stream anew at its end, a little with every ledger. The
// index is derived from the stream of ledgers and can be thrown away.
//
// Package standalone calls it. It owns its folder, which it locks, and two
// goroutines. It knows no transaction type and no clock, verifies no signature,
// and never reports a ledger as durable before the disk has said so. The same
// code keeps everything in memory when it is given the file system Memory.
package chain

import (
	"errors"

	"evernode/xahau/standalone/shamap"
)

// Hash is SHA-512Half.
type Hash = shamap.Hash

// Account is the 20 bytes that stand for an account.
type Account = [20]byte

// Errors of a chain.
var (
	// ErrNotFound is returned for a ledger or transaction that is not kept.
	ErrNotFound = errors.New("not found")
	// ErrStateGone is wrapped where the state of a ledger is not kept any more.
	ErrStateGone = errors.New("the state of this ledger is not kept any more")
	// ErrDamaged is wrapped by the error of a file that cannot be what was
	// written.
	ErrDamaged = errors.New("damaged")
	// ErrFailed is wrapped by every error after a failed sync: what the disk
	// holds then is unknown, and only opening anew tells.
	ErrFailed = errors.New("the chain of ledgers has failed")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the chain of ledgers is closed")
)

// Ledger is a closed ledger to be committed.
type Ledger struct {
	Header Header
	State  shamap.Map // its hash is Header.AccountHash
	// Transactions in the order in which they were applied: the position is
	// sfTransactionIndex.
	Transactions []Transaction
}

// Transaction is a transaction of a closed ledger.
type Transaction struct {
	Hash     Hash
	Blob     []byte    // binary form
	Meta     []byte    // binary form of the metadata
	Accounts []Account // affected accounts, for AccountTransactions; at most 65535
	Ledger   uint32    // sequence of its ledger; set by reading
	Index    uint32    // position in its ledger; set by reading
}

// TransactionTree returns the tree of transactions with metadata whose hash
// goes into the header.
func TransactionTree(txs []Transaction) (shamap.Map, error) {
	changes := make([]shamap.Change, len(txs))
	for i := range txs {
		data, err := shamap.TransactionEntry(txs[i].Blob, txs[i].Meta)
		if err != nil {
			return shamap.Map{}, err
		}
		changes[i] = shamap.Change{Key: txs[i].Hash, Data: data}
	}
	return shamap.New(shamap.Transactions).Apply(changes)
}
