package tx

import (
	"context"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// Transactor is one type of transaction.
type Transactor struct {
	// Flags are those that a transaction may have, besides TfFullyCanonicalSig.
	Flags uint32
	// Preflight checks what can be checked without the ledger; nil checks nothing.
	Preflight func(t *xahau.Object, l *view.Ledger) ter.Code
	// Preclaim checks the transaction against the ledger before anything is changed;
	// nil checks nothing.
	Preclaim func(c *Context) ter.Code
	// Apply changes the ledger. Sequence and fee are dealt with before; whatever is
	// not TesSUCCESS takes back all changes.
	Apply func(c *Context) ter.Code
	// Fee changes the least fee, in drops, from what it is in general; nil leaves it.
	Fee func(r view.Reader, t *xahau.Object, general int64) int64
	// Pseudo transactions are made by servers: they have no account, no fee and no
	// signature.
	Pseudo bool
}

// Table is the transactors by type.
type Table map[xahau.TransactionType]Transactor

// Add puts the transactors of another table in, in place of those of the same type.
func (t Table) Add(other Table) Table {
	for typ, x := range other {
		t[typ] = x
	}
	return t
}

// Standard gives the transactors of this package.
func Standard() Table {
	return Table{
		xahau.TxPayment:         payment,
		xahau.TxTrustSet:        trustSet,
		xahau.TxAccountSet:      accountSet,
		xahau.TxAccountDelete:   accountDelete,
		xahau.TxSetRegularKey:   setRegularKey,
		xahau.TxSignerListSet:   signerListSet,
		xahau.TxDepositPreauth:  depositPreauth,
		xahau.TxTicketCreate:    ticketCreate,
		xahau.TxCheckCreate:     checkCreate,
		xahau.TxCheckCash:       checkCash,
		xahau.TxCheckCancel:     checkCancel,
		xahau.TxInvoke:          invoke,
		xahau.TxSetFee:          setFee,
		xahau.TxEnableAmendment: enableAmendment,
	}
}

// Hooks runs the code that accounts have installed. Failures of the store go to
// the view's Fail.
type Hooks interface {
	// Fee is what the runs that a transaction pays for cost, in drops: the hooks of
	// its account and of strong stakeholders, or the callback.
	Fee(r view.Reader, t *xahau.Object) int64
	// Before runs the hooks that can reject a transaction. It adds to c.Executions
	// whatever happens, to c.Emissions and to the view only if none rejects.
	Before(ctx context.Context, c *Context) ter.Code
	// After runs the others, with c.Result and the changes so far in c.View; meta
	// gives the provisional metadata.
	After(ctx context.Context, c *Context, meta func() *xahau.Object)
}

// Context is a transaction being applied.
type Context struct {
	Tx *xahau.Object
	// Blob is the transaction in binary form.
	Blob    []byte
	ID      xahau.Hash256
	Account xahau.AccountID
	// View has the changes of this transaction and of nothing else.
	View *view.Sandbox
	// Emitted tells that a hook emitted the transaction.
	Emitted bool
	// Retry tells that the transaction will be tried again if it cannot succeed.
	Retry bool
	// Open tells that this is a trial in an open ledger.
	Open bool
	// Prior is the account's balance before the fee, in drops.
	Prior int64
	// Fee is what was paid, in drops.
	Fee int64
	// Burned is what was destroyed besides the fee, in drops.
	Burned int64
	// Minted is what a transaction of the servers added, in drops.
	Minted int64
	// Result is the outcome, known from Hooks.After on.
	Result ter.Code
	// Delivered is what a payment delivered, if the metadata is to tell it.
	Delivered *xahau.Amount
	// Weak are stakeholders whose hooks run weakly besides those that the
	// transaction itself names: those whose balances it changed.
	Weak []xahau.AccountID
	// Executions and Emissions are for the metadata.
	Executions, Emissions xahau.Array
	// Hooks is for whatever Hooks keeps between Before and After.
	Hooks any
}

// Root gives the transaction's account.
func (c *Context) Root() *xahau.Object { return c.View.Read(keylet.Account(c.Account)) }

// Edit changes the transaction's account.
func (c *Context) Edit(change func(root *xahau.Object)) { editAccount(c.View, c.Account, change) }

// Source is the balance of the transaction's account after the fee, in drops.
func (c *Context) Source() int64 { return c.Root().Amount(field.Balance).Drops() }

// Sequence tells the entries apart that transactions of the account make.
func (c *Context) Sequence() keylet.Sequence {
	if c.Emitted {
		return keylet.Nonce(c.Tx.Object(field.EmitDetails).Hash(field.EmitNonce))
	}
	n, _ := sequenceOf(c.Tx)
	return keylet.Seq(n)
}

// SequenceNumber is the transaction's sequence number or ticket.
func (c *Context) SequenceNumber() uint32 {
	n, _ := sequenceOf(c.Tx)
	return n
}

// CanReserve tells whether the account had the reserve for some more entries
// before it paid the fee.
func (c *Context) CanReserve(more int) bool {
	owned := int64(c.Root().Uint32(field.OwnerCount)) + int64(more)
	return c.Prior >= c.View.Ledger().Fees.AccountReserve(uint32(max(owned, 0)))
}

// Own puts a new entry into the account's directory, counts it, and inserts it.
func (c *Context) Own(k keylet.Keylet, o *xahau.Object) ter.Code {
	page, ok := view.DirInsert(c.View, keylet.OwnerDirectory(c.Account), k.Index, view.OwnedBy(c.Account))
	if !ok {
		return ter.TecDIR_FULL
	}
	o.Set(field.OwnerNode, xahau.Uint64(page))
	view.AdjustOwnerCount(c.View, c.Account, 1)
	c.View.Insert(k, o)
	return ter.TesSUCCESS
}

func editAccount(v view.View, a xahau.AccountID, change func(root *xahau.Object)) {
	k := keylet.Account(a)
	root := view.Edit(v, k)
	if root == nil {
		v.Fail(errNoAccount(a))
		return
	}
	change(root)
	v.Update(k, root)
}

// sequenceOf gives a transaction's sequence number, or its ticket and true.
func sequenceOf(t *xahau.Object) (uint32, bool) {
	n := t.Uint32(field.Sequence)
	if ticket, ok := xahau.Lookup[xahau.Uint32](t, field.TicketSequence); ok && n == 0 {
		return uint32(ticket), true
	}
	return n, false
}

// expired tells whether an optional time of the ledger has come.
func expired(r view.Reader, o *xahau.Object) bool {
	t, ok := xahau.Lookup[xahau.Uint32](o, field.Expiration)
	return ok && r.Ledger().ParentCloseTime >= uint32(t)
}

// badCurrency tells whether a currency of three letters is called as the native
// one, or as that of the other ledger.
func badCurrency(c xahau.Currency) bool {
	bad := func(name string) bool {
		var b xahau.Currency
		copy(b[12:], name)
		return c == b
	}
	return bad("XAH") || bad("XRP")
}

// legalNet tells whether a native amount is not more than can exist.
func legalNet(a xahau.Amount) bool {
	return !a.IsNative() || a.Drops() <= xahau.MaxDrops && a.Drops() >= -xahau.MaxDrops
}
