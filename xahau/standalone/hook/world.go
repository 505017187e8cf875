package hook

import (
	"fmt"

	"evernode/xahau"
	"evernode/xahau/field"
)

// Ledger is what a run may know of the ledger and ask of the transactors. An error
// of a read is a failure of the store; it ends the run, and Run returns it.
type Ledger interface {
	// Entry gives an entry in serialized form, or nil if there is none. The
	// machine keeps it during the run and does not change it.
	Entry(index xahau.Hash256) ([]byte, error)
	// Next gives the first index above low and not above high.
	Next(low, high xahau.Hash256) (index xahau.Hash256, found bool, err error)
	// Transaction gives a transaction that is in a closed ledger, in serialized
	// form, or nil if there is none.
	Transaction(id xahau.Hash256) ([]byte, error)
	// Fee is the least fee, in drops, of a transaction that a hook may emit. The
	// fields are in canonical order. An error says what is wrong with it.
	Fee(tx []byte) (int64, error)
	// Preflight checks an emitted transaction as the network does before it looks
	// at the ledger, without signature and network id.
	Preflight(tx []byte) error
}

// Header is what hooks may know of the ledger that is being built.
type Header struct {
	// Seq is its number.
	Seq uint32
	// ParentHash and ParentCloseTime, in seconds since 2000, are those of the
	// ledger before.
	ParentHash      xahau.Hash256
	ParentCloseTime uint32
	// BaseFee is the fee of the simplest transaction, Reserve and Increment what an
	// account must keep for itself and for each of its entries; all in drops.
	BaseFee, Reserve, Increment int64
}

// Transaction is a transaction prepared for hooks.
type Transaction struct {
	id      xahau.Hash256
	raw     []byte
	fields  object
	typ     xahau.TransactionType
	account xahau.AccountID
	emit    object // EmitDetails
}

// NewTransaction reads a serialized transaction with the given id. It keeps raw.
func NewTransaction(raw []byte, id xahau.Hash256) (*Transaction, error) {
	fields, err := parts(raw)
	if err != nil {
		return nil, fmt.Errorf("transaction %s: %w", id, err)
	}
	t := &Transaction{id: id, raw: raw, fields: fields}
	typ, ok := t.fields.uint(field.TransactionType)
	if !ok {
		return nil, fmt.Errorf("transaction %s has no type", id)
	}
	t.typ = xahau.TransactionType(typ)
	account, _ := t.fields.account(field.Account)
	t.account = account
	if p, ok := t.fields.get(field.EmitDetails); ok {
		// Its fields were read above as part of the whole.
		t.emit, _ = parts(p.value)
	}
	return t, nil
}

// Type is the transaction's type.
func (t *Transaction) Type() xahau.TransactionType { return t.typ }

// Account is the account that the transaction is from.
func (t *Transaction) Account() xahau.AccountID { return t.account }

// Emitted tells whether a hook emitted the transaction.
func (t *Transaction) Emitted() bool { return t.fields.has(field.EmitDetails) }

// Context is what all runs for one transaction have in common.
type Context struct {
	Ledger Ledger
	Header Header
	Tx     *Transaction
	// Meta is the provisional metadata in serialized form, for what runs after the
	// transaction was applied; nil before.
	Meta []byte
}

// Mode tells why a hook runs.
type Mode int

const (
	// Strong runs before the transaction is applied and can reject it.
	Strong Mode = iota
	// Weak runs after it was applied.
	Weak
	// Again runs after it was applied because the hook's strong run called
	// hook_again.
	Again
	// Callback runs cbak after a transaction that the hook emitted was applied, or
	// expired.
	Callback
)

// Call is one run of one hook. Chains (chain.go) make them from the ledger.
type Call struct {
	// Hash and Code are those of the hook definition.
	Hash xahau.Hash256
	Code []byte
	// Account is where the hook is installed, Position its place in the chain from
	// 0 on.
	Account  xahau.AccountID
	Position uint8
	Mode     Mode
	// Namespace is that of the hook's own state.
	Namespace xahau.Hash256
	// Params are the hook's parameters by name.
	Params map[string][]byte
	// Overrides are what hooks before in the chain have set with hook_param_set.
	Overrides Overrides
	// HasCbak tells whether the definition has a callback.
	HasCbak bool
	// CanEmit, if not nil, restricts the types of transactions that the hook can
	// emit; its bits have the meaning of HookOn.
	CanEmit *xahau.Hash256
	// States holds the state that the hooks of this transaction have read and
	// written so far.
	States *States
}

// Overrides are parameters by hook hash and name.
type Overrides map[xahau.Hash256]map[string][]byte

func (o Overrides) set(hash xahau.Hash256, name string, value []byte) {
	if o[hash] == nil {
		o[hash] = make(map[string][]byte)
	}
	o[hash][name] = value
}

func (o Overrides) clone() Overrides {
	c := make(Overrides, len(o))
	for hash, params := range o {
		for name, value := range params {
			c.set(hash, name, value)
		}
	}
	return c
}

// Emission is an emitted transaction.
type Emission struct {
	ID    xahau.Hash256
	Nonce xahau.Hash256
	// Tx is the transaction in serialized form, its fields in canonical order.
	Tx []byte
}

// Result is what a run did. What it read and wrote of hook state is in the States
// of the call.
type Result struct {
	Hash    xahau.Hash256
	Account xahau.AccountID
	Mode    Mode

	Exit Exit
	// Code and Reason are what accept or rollback was called with.
	Code   int64
	Reason []byte
	// Instructions is how many instructions ran, as the network counts them; 0
	// after a trap.
	Instructions uint64
	Emitted      []Emission
	// Overrides are those of the call and what the run added; Skips are the hooks
	// that are not to run later in the chain.
	Overrides Overrides
	Skips     []xahau.Hash256
	// Again tells that the hook asks to run again after the transaction was applied.
	Again bool
	// StateChanges counts changed entries, in the network's way (states.go).
	StateChanges uint16
}

// ReturnCode is Code as it stands in metadata: numbers below zero have the top bit
// set before their absolute value.
func (r *Result) ReturnCode() uint64 {
	if r.Code >= 0 {
		return uint64(r.Code)
	}
	return 1<<63 + uint64(-r.Code)
}

// Flags are the flags of the execution in metadata: 1 strong, 2 callback, 4 asks to
// run again.
func (r *Result) Flags() uint32 {
	f := uint32(0)
	if r.Mode == Strong {
		f |= 1
	}
	if r.Mode == Callback {
		f |= 2
	}
	if r.Again {
		f |= 4
	}
	return f
}
