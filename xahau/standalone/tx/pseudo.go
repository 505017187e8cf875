package tx

import (
	"slices"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// The transactions of the servers.

// setFee changes the ledger's fees. Both forms of its fields are understood; they
// are stored as they come.
var setFee = Transactor{Pseudo: true, Apply: func(c *Context) ter.Code {
	k := keylet.Fees()
	o := view.Edit(c.View, k)
	fresh := o == nil
	if fresh {
		o = view.NewEntry(k)
	}
	for _, code := range []field.Code{field.BaseFee, field.ReferenceFeeUnits, field.ReserveBase, field.ReserveIncrement,
		field.BaseFeeDrops, field.ReserveBaseDrops, field.ReserveIncrementDrops} {
		if v := c.Tx.Get(code); v != nil {
			o.Set(code, v)
		}
	}
	if fresh {
		c.View.Insert(k, o)
	} else {
		c.View.Update(k, o)
	}
	return ter.TesSUCCESS
}}

// enableAmendment puts an amendment in force.
var enableAmendment = Transactor{Pseudo: true, Apply: func(c *Context) ter.Code {
	k := keylet.Amendments()
	o := view.Edit(c.View, k)
	fresh := o == nil
	if fresh {
		o = view.NewEntry(k)
	}
	list, id := o.Vector(field.Amendments), c.Tx.Hash(field.Amendment)
	if slices.Contains(list, id) {
		return ter.TefALREADY
	}
	o.Set(field.Amendments, xahau.Vector(append(slices.Clone(list), id)))
	if fresh {
		c.View.Insert(k, o)
	} else {
		c.View.Update(k, o)
	}
	return ter.TesSUCCESS
}}

// ReadFees reads the fees that a state asks for, in drops, or gives those of the
// public network where it says nothing.
func ReadFees(r view.Reader) view.Fees {
	f := view.Fees{Base: 10, Reserve: 1_000_000, Increment: 200_000}
	o := r.Read(keylet.Fees())
	if o == nil {
		return f
	}
	if v, ok := xahau.Lookup[xahau.Uint64](o, field.BaseFee); ok {
		f.Base = int64(min(uint64(v), xahau.MaxDrops))
	}
	if v, ok := xahau.Lookup[xahau.Uint32](o, field.ReserveBase); ok {
		f.Reserve = int64(v)
	}
	if v, ok := xahau.Lookup[xahau.Uint32](o, field.ReserveIncrement); ok {
		f.Increment = int64(v)
	}
	for code, at := range map[field.Code]*int64{field.BaseFeeDrops: &f.Base, field.ReserveBaseDrops: &f.Reserve, field.ReserveIncrementDrops: &f.Increment} {
		if v, ok := xahau.Lookup[xahau.Amount](o, code); ok && v.IsNative() && v.Signum() >= 0 {
			*at = v.Drops()
		}
	}
	return f
}
