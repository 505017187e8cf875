package tx

import (
	"context"
	"errors"
	"fmt"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

func errNoAccount(a xahau.AccountID) error { return fmt.Errorf("account %s does not exist", a) }

// Prepared is a transaction in all its forms, and what of it need not be checked
// again.
type Prepared struct {
	Tx   *xahau.Object
	Blob []byte
	ID   xahau.Hash256
	// Emitted tells that the transaction comes from the ledger's emitted directory;
	// only then may it have EmitDetails, and no signature.
	Emitted bool

	checked bool
	code    ter.Code
	reason  error
}

// Prepare reads a transaction in binary form.
func Prepare(defs *xahau.Definitions, blob []byte) (*Prepared, error) {
	o, err := defs.Decode(blob)
	if err != nil {
		return nil, fmt.Errorf("transaction: %w", err)
	}
	// Fields may come in any order; the id is that of the canonical form.
	canonical, err := defs.Encode(o)
	if err != nil {
		return nil, fmt.Errorf("transaction: %w", err)
	}
	return &Prepared{Tx: o, Blob: canonical, ID: xahau.BlobID(canonical)}, nil
}

// Reason says in words what Preflight found, nil if nothing.
func (p *Prepared) Reason() error { return p.reason }

// Engine applies transactions. It does not change and may be used by several
// goroutines on different views.
type Engine struct {
	Table Table
	Hooks Hooks // nil runs none
}

// Mode says how a transaction is applied.
type Mode struct {
	// Retry leaves transactions that would only pay their fee for a later pass.
	Retry bool
	// Open checks as for an open ledger: the fee must suffice, and who cannot pay it
	// waits.
	Open bool
	// Index is the position of the transaction in the ledger.
	Index uint32
}

// Outcome is what became of a transaction.
type Outcome struct {
	Result ter.Code
	// Applied tells that it is in the ledger. The rest is only set then.
	Applied bool
	// Reason is what went wrong inside if the result is TefINTERNAL: a fault of ours
	// or damage of the ledger that deserves a line in the log.
	Reason error
	Meta   *xahau.Object
	// Burned is what was destroyed, the fee included, and Minted what was made, in
	// drops.
	Burned, Minted int64
}

// Preflight checks what can be checked without the ledger, signatures included.
// The result is kept in p.
func (e *Engine) Preflight(p *Prepared, l *view.Ledger) ter.Code {
	if !p.checked {
		p.code, p.reason = e.preflight(p, l)
		p.checked = true
	}
	return p.code
}

// Fee is the least fee of a transaction, in drops. signers counts signatures that
// the transaction does not have yet.
func (e *Engine) Fee(r view.Reader, t *xahau.Object) int64 {
	general := e.generalFee(r, t)
	if x := e.Table[t.TransactionType()]; x.Fee != nil {
		return x.Fee(r, t, general)
	}
	return general
}

// Apply applies a transaction to a view, which changes only if it was Applied. The
// error is the store's.
func (e *Engine) Apply(ctx context.Context, to view.View, p *Prepared, mode Mode) (Outcome, error) {
	if code := e.Preflight(p, to.Ledger()); code != ter.TesSUCCESS {
		return Outcome{Result: code}, to.Err()
	}
	x := e.Table[p.Tx.TransactionType()]
	c := &Context{
		Tx: p.Tx, Blob: p.Blob, ID: p.ID, Account: p.Tx.Account(field.Account), View: view.NewIsolated(to),
		Emitted: p.Emitted, Retry: mode.Retry, Open: mode.Open,
	}
	code := e.preclaim(c, x)
	if c.View.Err() != nil {
		return failed(c, to)
	}
	if code != ter.TesSUCCESS && (!code.IsClaimed() || mode.Retry) {
		return Outcome{Result: code}, nil
	}
	if code == ter.TesSUCCESS && e.Hooks != nil && !x.Pseudo {
		code = e.Hooks.Before(ctx, c)
	}
	if code == ter.TesSUCCESS {
		if code = e.begin(c, x); code == ter.TesSUCCESS {
			code = x.Apply(c)
		}
	}
	if c.View.Err() != nil {
		return failed(c, to)
	}
	if c.View.Len() > maxChanges {
		code = ter.TecOVERSIZE
	}
	switch {
	case code == ter.TesSUCCESS, code == ter.TesPARTIAL:
	case !code.IsClaimed() || mode.Retry && !final(code):
		return Outcome{Result: code}, nil
	default:
		dead := unfundedOffers(c, code)
		if again := e.reset(c); again != ter.TesSUCCESS {
			return Outcome{Result: again}, to.Err()
		}
		removeOffers(c, dead)
	}
	if err := invariants(c, code); err != nil {
		if again := e.reset(c); again != ter.TesSUCCESS {
			return Outcome{Result: again}, to.Err()
		}
		code = ter.TecINVARIANT_FAILED
		if err := invariants(c, code); err != nil {
			return Outcome{Result: ter.TefINVARIANT_FAILED}, to.Err()
		}
	}
	c.Result = code
	if e.Hooks != nil && !x.Pseudo {
		e.Hooks.After(ctx, c, func() *xahau.Object {
			meta, _ := c.View.Metadata(c.info(mode.Index))
			return meta
		})
	}
	meta, threaded := c.View.Metadata(c.info(mode.Index))
	c.View.Thread(threaded)
	if c.View.Err() != nil {
		return failed(c, to)
	}
	c.View.Apply(to)
	return Outcome{Result: c.Result, Applied: true, Meta: meta, Burned: c.Fee + c.Burned, Minted: c.Minted}, to.Err()
}

// failed is the outcome of a transaction that went wrong inside, or the error of
// the store.
func failed(c *Context, to view.View) (Outcome, error) {
	if err := to.Err(); err != nil {
		return Outcome{}, err
	}
	return Outcome{Result: ter.TefINTERNAL, Reason: c.View.Err()}, nil
}

// maxChanges is how many entries a transaction may touch.
const maxChanges = 5200

// final tells whether a claimed result takes effect even if a later pass might do
// better.
func final(code ter.Code) bool {
	return code == ter.TecOVERSIZE || code == ter.TecKILLED || code == ter.TecEXPIRED
}

func (c *Context) info(index uint32) view.Info {
	return view.Info{ID: c.ID, Index: index, Result: c.Result, Delivered: c.Delivered,
		Executions: c.Executions, Emissions: c.Emissions}
}

// begin uses up the sequence number and takes the fee.
func (e *Engine) begin(c *Context, x Transactor) ter.Code {
	if x.Pseudo {
		return ter.TesSUCCESS
	}
	root := c.Root()
	if root == nil {
		return ter.TefINTERNAL
	}
	c.Prior = root.Amount(field.Balance).Drops()
	c.Fee = c.Tx.Amount(field.Fee).Drops()
	if code := consumeSequence(c); code != ter.TesSUCCESS {
		return code
	}
	c.Edit(func(root *xahau.Object) {
		root.Set(field.Balance, xahau.Drops(root.Amount(field.Balance).Drops()-c.Fee))
		if root.Has(field.AccountTxnID) {
			root.Set(field.AccountTxnID, c.ID)
		}
	})
	return ter.TesSUCCESS
}

// reset takes back everything and only claims the fee, or what is left of it.
func (e *Engine) reset(c *Context) ter.Code {
	c.View.Discard()
	c.Delivered, c.Minted, c.Weak = nil, 0, nil
	if e.Table[c.Tx.TransactionType()].Pseudo {
		return ter.TefINTERNAL
	}
	root := c.Root()
	if root == nil {
		return ter.TefINTERNAL
	}
	balance := root.Amount(field.Balance).Drops()
	c.Fee = min(c.Tx.Amount(field.Fee).Drops(), balance)
	if balance == 0 && c.Tx.Amount(field.Fee).Drops() > 0 {
		return ter.TefEXCEPTION
	}
	if code := consumeSequence(c); code != ter.TesSUCCESS {
		return code
	}
	c.Edit(func(root *xahau.Object) { root.Set(field.Balance, xahau.Drops(balance-c.Fee)) })
	return ter.TesSUCCESS
}

func consumeSequence(c *Context) ter.Code {
	if c.Emitted {
		return ter.TesSUCCESS
	}
	n, ticket := sequenceOf(c.Tx)
	if !ticket {
		c.Edit(func(root *xahau.Object) { root.Set(field.Sequence, xahau.Uint32(n+1)) })
		return ter.TesSUCCESS
	}
	return deleteTicket(c.View, c.Account, n)
}

func deleteTicket(v view.View, account xahau.AccountID, n uint32) ter.Code {
	k := keylet.Ticket(account, n)
	ticket := v.Read(k)
	if ticket == nil || !view.DirRemove(v, keylet.OwnerDirectory(account), ticket.Uint64(field.OwnerNode), k.Index, true) {
		return ter.TefBAD_LEDGER
	}
	editAccount(v, account, func(root *xahau.Object) {
		if count := root.Uint32(field.TicketCount); count > 1 {
			root.Set(field.TicketCount, xahau.Uint32(count-1))
		} else {
			root.Delete(field.TicketCount)
		}
	})
	view.AdjustOwnerCount(v, account, -1)
	v.Erase(k)
	return ter.TesSUCCESS
}

// unfundedOffers gives the offers that a transaction found without funds or
// expired: they are removed even if the transaction itself fails in one of the
// ways that come from working too much.
func unfundedOffers(c *Context, code ter.Code) []keylet.Keylet {
	if code != ter.TecOVERSIZE && code != ter.TecKILLED {
		return nil
	}
	var list []keylet.Keylet
	for _, ch := range c.View.Changes() {
		if ch.Kind == view.Deleted && ch.After.EntryType() == xahau.EntryOffer &&
			ch.Before.Amount(field.TakerPays) == ch.After.Amount(field.TakerPays) {
			list = append(list, keylet.Keylet{Type: xahau.EntryOffer, Index: ch.Index})
		}
	}
	return list
}

// maxRemovedOffers is how many of them go.
const maxRemovedOffers = 1000

func removeOffers(c *Context, list []keylet.Keylet) {
	for i, k := range list {
		if i == maxRemovedOffers {
			return
		}
		view.DeleteOffer(c.View, k)
	}
}

var errInvariant = errors.New("invariant violated")
