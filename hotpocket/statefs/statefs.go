// Package statefs keeps a contract's folder: the memory of the replicated
// program. It opens the folder for a run, names what the run left behind by one
// hash (the root of a Merkle tree over names, modes, kinds, link targets and
// contents), makes that the agreed state or undoes it, shows the last agreed
// state to read requests while the next run writes, and hands out and takes in
// pieces of a state by their hashes.
//
// The node opens a State, brackets every run of the contract with Begin, End
// and Commit or Rollback, and gives the State to package statesync, which
// serves peers from it and fetches states through its Staging. This package
// never talks to the network, never starts the contract and never decides what
// is agreed.
//
// Folders, below the node's contract_fs (spec/hotpocket.md sections 2.12 and
// 3.2):
//
//	seed/            what an operator puts there before the first start
//	mnt/rw/state     working folder of a run, the hashed state
//	mnt/rw/patch.cfg contract configuration, hashed by itself
//	mnt/rw/...       private files of this node, kept but not hashed
//	mnt/ro.0 ro.1    the last agreed state and the one before, read-only
//	store/           what the package keeps for itself
package statefs

import (
	"context"
	"errors"
	"fmt"

	"evernode/internal/digest"
)

// Version names an agreed state: the ledger whose run led to it, the root of
// the state folder and the hash of patch.cfg (zero when there is none).
type Version struct {
	Seq   uint64
	Root  digest.Hash
	Patch digest.Hash
}

// String returns "seq root/patch" with short hashes, for logs.
func (v Version) String() string {
	return fmt.Sprintf("%d %s/%s", v.Seq, v.Root.Short(), v.Patch.Short())
}

// Errors that callers tell apart.
var (
	// ErrBusy is returned by Begin, Stage's Switch and SetPatch while a run is
	// open.
	ErrBusy = errors.New("a run of the contract is open")
	// ErrFinished is returned by a Run after Commit or Rollback.
	ErrFinished = errors.New("the run is already committed or rolled back")
	// ErrDamaged is returned when the agreed state is no longer complete on
	// disk (power was lost, somebody changed the files). A Staging repairs it.
	ErrDamaged = errors.New("the agreed state is damaged and has to be fetched again")
	// ErrChanged is returned by Commit when the folder is no longer what End
	// hashed. The run can only be rolled back.
	ErrChanged = errors.New("the state folder was changed after the run ended")
	// ErrNotFound is returned by Object for what is not at hand (any more).
	ErrNotFound = errors.New("no such object in the state")
)

// State is a contract's folder. All methods may be called at any time from any
// goroutine.
type State interface {
	// Agreed returns the last agreed version.
	Agreed() Version
	// Damaged reports whether the agreed version is incomplete on disk.
	Damaged() bool
	// Patch returns the content of the agreed patch.cfg, nil when there is none.
	Patch() []byte
	// SetPatch replaces the agreed patch.cfg outside of any run and returns
	// its hash. The root stays.
	SetPatch(ctx context.Context, content []byte) (digest.Hash, error)
	// Begin opens the working folder for the run of ledger seq. At most one run
	// is open.
	Begin(ctx context.Context, seq uint64) (Run, error)
	// View opens the last agreed version for reading.
	View(ctx context.Context) (View, error)
	// Object returns a piece of the agreed state, or of one shortly before it,
	// for a peer. ErrNotFound when it is not at hand.
	Object(ctx context.Context, ref Ref) ([]byte, error)
	// Stage opens the area in which a state is put together from fetched
	// pieces. At most one is open.
	Stage(ctx context.Context) (Staging, error)
	// Close ends what is open and makes everything durable.
	Close() error
}

// Run is one run of the contract on the working folder.
type Run interface {
	// Dir is the working directory for the contract, <root>/state.
	Dir() string
	// End hashes what the run left. The contract must have exited. End removes
	// sockets, pipes and devices, gives every hard link an inode of its own and
	// restores a patch.cfg that is not a file of at most MaxPatch bytes,
	// because another node could not have them.
	End(ctx context.Context) (root, patch digest.Hash, err error)
	// Commit makes what End hashed the agreed version.
	Commit(ctx context.Context) error
	// Rollback brings state and patch.cfg back to the agreed version. It may be
	// called instead of End or after it.
	Rollback(ctx context.Context) error
}

// View is an agreed version that stays as it is until Close.
type View interface {
	// Dir is the working directory for a read request. Writing to anything
	// below it or beside it fails.
	Dir() string
	Version() Version
	Close() error
}

// RefKind says what a Ref asks for.
type RefKind uint8

// What can be asked for.
const (
	// RefDir asks for the node of the folder Path with hash Hash.
	RefDir RefKind = 1
	// RefPage asks for the page with hash Hash of the folder Path.
	RefPage RefKind = 2
	// RefList asks for the group values of the file Path with content hash
	// Hash: 32 bytes for each group, no more and no less.
	RefList RefKind = 3
	// RefData asks for group Index of that file; for one of a single group,
	// index 0 is the whole content.
	RefData RefKind = 4
	// RefPatch asks for the content of the patch.cfg with hash Hash.
	RefPatch RefKind = 5
)

// Ref names a piece of a state by its hash. Path, relative to the state folder
// with slashes between names, is where the asking side found the hash; it spares
// the answering side an index of all hashes.
type Ref struct {
	Kind  RefKind
	Path  string
	Hash  digest.Hash
	Index uint32
}
