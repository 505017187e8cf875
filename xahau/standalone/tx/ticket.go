package tx

import (
	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// maxTickets is how many tickets an account has at most.
const maxTickets = 250

var ticketCreate = Transactor{
	Preflight: func(t *xahau.Object, _ *view.Ledger) ter.Code {
		if n := t.Uint32(field.TicketCount); n < 1 || n > maxTickets {
			return ter.TemINVALID_COUNT
		}
		return ter.TesSUCCESS
	},
	Preclaim: func(c *Context) ter.Code {
		n := c.Root().Uint32(field.TicketCount) + c.Tx.Uint32(field.TicketCount)
		if _, ticket := sequenceOf(c.Tx); ticket {
			n-- // the one that the transaction uses up
		}
		if n > maxTickets {
			return ter.TecDIR_FULL
		}
		return ter.TesSUCCESS
	},
	Apply: func(c *Context) ter.Code {
		count := c.Tx.Uint32(field.TicketCount)
		if !c.CanReserve(int(count)) {
			return ter.TecINSUFFICIENT_RESERVE
		}
		first := c.Root().Uint32(field.Sequence)
		if first > ^uint32(0)-count {
			return ter.TefINTERNAL
		}
		for n := first; n < first+count; n++ {
			k := keylet.Ticket(c.Account, n)
			o := view.NewEntry(k)
			o.Set(field.Account, c.Account)
			o.Set(field.TicketSequence, xahau.Uint32(n))
			if code := c.Own(k, o); code != ter.TesSUCCESS {
				return code
			}
		}
		c.Edit(func(root *xahau.Object) {
			root.Set(field.TicketCount, xahau.Uint32(root.Uint32(field.TicketCount)+count))
			root.Set(field.Sequence, xahau.Uint32(first+count))
		})
		return ter.TesSUCCESS
	},
}

// maxInvokeBlob is the length of the longest Blob in bytes.
const maxInvokeBlob = 128 << 10

// invoke does nothing: hooks do.
var invoke = Transactor{
	Preflight: func(t *xahau.Object, _ *view.Ledger) ter.Code {
		if len(t.Blob(field.Blob)) > maxInvokeBlob {
			return ter.TemMALFORMED
		}
		return ter.TesSUCCESS
	},
	Preclaim: func(c *Context) ter.Code {
		if to, ok := xahau.Lookup[xahau.AccountID](c.Tx, field.Destination); ok && !view.Exists(c.View, keylet.Account(to)) {
			return ter.TecNO_TARGET
		}
		return ter.TesSUCCESS
	},
	Apply: func(*Context) ter.Code { return ter.TesSUCCESS },
	Fee: func(_ view.Reader, t *xahau.Object, general int64) int64 {
		return general + int64(len(t.Blob(field.Blob)))
	},
}
