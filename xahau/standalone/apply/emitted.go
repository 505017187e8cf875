package apply

import (
	"context"
	"fmt"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/hook"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// The life of an emitted transaction: emit puts it into the ledger with the
// transaction whose hook emitted it; Pending gives it to the next ledger; once it is
// applied, with whatever result that claims its fee, Hooks.After takes it out. One
// that cannot be applied stays until its LastLedgerSequence has passed; then an
// EmitFailure transaction takes it out, and tells the hook's callback.

// emit puts an emitted transaction at the end of the emitted directory. It is false
// if it is there already.
func (h *Hooks) emit(c *tx.Context, e hook.Emission) bool {
	k := keylet.EmittedTxn(e.ID)
	if view.Exists(c.View, k) {
		return false
	}
	t, err := c.View.Ledger().Defs.Decode(e.Tx)
	if err != nil {
		c.View.Fail(fmt.Errorf("emitted transaction %s: %w", e.ID, err))
		return false
	}
	// The order of emission is that of application, as later ones build on earlier
	// ones.
	page, ok := view.DirAppend(c.View, keylet.EmittedDirectory(), k.Index, func(o *xahau.Object) {
		o.Set(field.Flags, xahau.Uint32(xahau.LsfEmittedDir))
	})
	if !ok {
		return false
	}
	o := view.NewEntry(k)
	o.Set(field.EmittedTxn, t)
	o.Set(field.OwnerNode, xahau.Uint64(page))
	c.View.Insert(k, o)
	return true
}

// removeEmitted takes an emitted transaction out of the ledger.
func removeEmitted(v view.View, id xahau.Hash256) error {
	k := keylet.EmittedTxn(id)
	o := v.Read(k)
	if o == nil {
		return nil
	}
	if !view.DirRemove(v, keylet.EmittedDirectory(), o.Uint64(field.OwnerNode), k.Index, false) {
		return fmt.Errorf("emitted transaction %s is not in the emitted directory", id)
	}
	v.Erase(k)
	return nil
}

// Pending gives the transactions that hooks have emitted and that are due in the
// ledger that is being built, in the order in which they were emitted, and for
// those that have expired the transactions that end them; see Emissions.
func (h *Hooks) Pending(r view.Reader) ([]*tx.Prepared, error) {
	l := r.Ledger()
	var list []*tx.Prepared
	for index := range view.Dir(r, keylet.EmittedDirectory()) {
		o := r.Read(keylet.Keylet{Type: xahau.EntryEmittedTxn, Index: index})
		if o == nil {
			r.Fail(fmt.Errorf("emitted directory: there is no entry %s", index))
			break
		}
		t := o.Object(field.EmittedTxn)
		if t == nil {
			r.Fail(fmt.Errorf("entry %s has no EmittedTxn", index))
			break
		}
		b, err := l.Defs.Encode(t)
		if err != nil {
			return nil, fmt.Errorf("entry %s: %w", index, err)
		}
		id := xahau.BlobID(b)
		switch {
		case t.Uint32(field.LastLedgerSequence) < l.Seq:
			p, err := expiry(l, t, id)
			if err != nil {
				return nil, err
			}
			list = append(list, p)
		case t.Uint32(field.FirstLedgerSequence) > l.Seq:
		default:
			list = append(list, &tx.Prepared{Tx: t, Blob: b, ID: id, Emitted: true})
		}
	}
	return list, r.Err()
}

// expiry makes the transaction that ends an expired one.
func expiry(l *view.Ledger, expired *xahau.Object, id xahau.Hash256) (*tx.Prepared, error) {
	o := xahau.NewTransaction(xahau.TxEmitFailure, xahau.AccountID{})
	o.Set(field.Sequence, xahau.Uint32(0))
	o.Set(field.Fee, xahau.Drops(0))
	o.Set(field.SigningPubKey, xahau.Blob{})
	o.Set(field.LedgerSequence, xahau.Uint32(l.Seq))
	o.Set(field.TransactionHash, id)
	// The callback finds its hook by them.
	o.Set(field.EmitDetails, expired.Get(field.EmitDetails))
	b, err := l.Defs.Encode(o)
	if err != nil {
		return nil, fmt.Errorf("failure of emitted transaction %s: %w", id, err)
	}
	return &tx.Prepared{Tx: o, Blob: b, ID: xahau.BlobID(b)}, nil
}

// emitFailure is the transactor of the transaction that ends an expired one: it
// runs the callback of the hook, which still sees the expired transaction, and takes
// it out of the ledger.
func (h *Hooks) emitFailure(c *tx.Context) ter.Code {
	if c.Tx.Has(field.EmitDetails) {
		t, err := hook.NewTransaction(c.Blob, c.ID)
		if err != nil {
			c.View.Fail(err)
			return ter.TefINTERNAL
		}
		hc := h.context(c, t)
		err = h.callback(context.Background(), c, hc, func() (err error) {
			meta, _ := c.View.Metadata(view.Info{ID: c.ID, Result: ter.TesSUCCESS})
			hc.Meta, err = c.View.Ledger().Defs.Encode(meta)
			return err
		})
		if err != nil {
			c.View.Fail(err)
			return ter.TefINTERNAL
		}
	}
	if err := removeEmitted(c.View, c.Tx.Hash(field.TransactionHash)); err != nil {
		c.View.Fail(err)
		return ter.TefINTERNAL
	}
	return ter.TesSUCCESS
}
