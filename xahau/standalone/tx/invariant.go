package tx

import (
	"fmt"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// invariants checks what no transaction may do, whatever the transactor thinks: it
// is the last guard against a fault of ours.
func invariants(c *Context, code ter.Code) error {
	sum := int64(0)
	created, deleted := 0, 0
	for _, ch := range c.View.Changes() {
		if ch.Before != nil {
			if ch.Before.EntryType() != ch.After.EntryType() {
				return fmt.Errorf("%w: entry %s changed its type", errInvariant, ch.Index)
			}
			sum -= native(ch.Before)
		}
		if ch.Kind == view.Deleted {
			if ch.After.EntryType() == xahau.EntryAccountRoot {
				deleted++
			}
			if ch.After.EntryType() == xahau.EntryAccountRoot && native(ch.After) != 0 {
				return fmt.Errorf("%w: account %s was deleted with a balance", errInvariant, ch.After.Account(field.Account))
			}
			continue
		}
		sum += native(ch.After)
		switch ch.After.EntryType() {
		case xahau.EntryAccountRoot:
			if ch.Kind == view.Created {
				created++
			}
			balance := ch.After.Amount(field.Balance)
			if !balance.IsNative() || balance.Drops() < 0 || balance.Drops() > xahau.MaxDrops {
				return fmt.Errorf("%w: balance %s", errInvariant, balance)
			}
		case xahau.EntryRippleState:
			low, high := ch.After.Amount(field.LowLimit), ch.After.Amount(field.HighLimit)
			if low.IsNative() || high.IsNative() || low.Issuer() == high.Issuer() {
				return fmt.Errorf("%w: trust line %s", errInvariant, ch.Index)
			}
		case xahau.EntryOffer:
			pays, gets := ch.After.Amount(field.TakerPays), ch.After.Amount(field.TakerGets)
			if pays.Signum() < 0 || gets.Signum() < 0 || pays.IsNative() && gets.IsNative() {
				return fmt.Errorf("%w: offer %s", errInvariant, ch.Index)
			}
		}
	}
	if want := c.Minted - c.Fee - c.Burned; sum != want {
		return fmt.Errorf("%w: %d drops appeared, expected %d", errInvariant, sum, want)
	}
	if may := code == ter.TesSUCCESS && c.Tx.TransactionType() == xahau.TxAccountDelete; deleted > 0 && (!may || deleted > 1) || may && deleted == 0 {
		return fmt.Errorf("%w: %d accounts were deleted", errInvariant, deleted)
	}
	if created > 0 {
		switch c.Tx.TransactionType() {
		case xahau.TxPayment, xahau.TxRemit, xahau.TxImport:
			if created > 1 {
				return fmt.Errorf("%w: %d accounts were created", errInvariant, created)
			}
		case xahau.TxGenesisMint:
		default:
			return fmt.Errorf("%w: an account was created", errInvariant)
		}
	}
	return nil
}

// native is how many drops an entry holds.
func native(o *xahau.Object) int64 {
	switch o.EntryType() {
	case xahau.EntryAccountRoot:
		return o.Amount(field.Balance).Drops()
	case xahau.EntryEscrow:
		return o.Amount(field.Amount).Drops()
	case xahau.EntryPayChannel:
		return o.Amount(field.Amount).Drops() - o.Amount(field.Balance).Drops()
	}
	return 0
}
