package tx

import (
	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

var payment = Transactor{
	Flags:     xahau.TfNoRippleDirect | xahau.TfPartialPayment | xahau.TfLimitQuality,
	Preflight: preflightPayment,
	Preclaim:  preclaimPayment,
	Apply:     applyPayment,
}

// Bounds of the paths of a payment.
const (
	maxPaths      = 6
	maxPathLength = 8
)

// sourceLimit is the most a payment may cost its sender.
func sourceLimit(t *xahau.Object) xahau.Amount {
	if limit, ok := xahau.Lookup[xahau.Amount](t, field.SendMax); ok {
		return limit
	}
	amount := t.Amount(field.Amount)
	if amount.IsNative() {
		return amount
	}
	return amount.WithIssuer(t.Account(field.Account))
}

func preflightPayment(t *xahau.Object, _ *view.Ledger) ter.Code {
	flags := t.Flags()
	partial := flags&xahau.TfPartialPayment != 0
	amount, limit := t.Amount(field.Amount), sourceLimit(t)
	hasMax, hasPaths := t.Has(field.SendMax), t.Has(field.Paths)
	to := t.Account(field.Destination)
	direct := amount.IsNative() && limit.IsNative()
	switch {
	case !legalNet(amount) || !legalNet(limit):
		return ter.TemBAD_AMOUNT
	case to.IsZero():
		return ter.TemDST_NEEDED
	case hasMax && limit.Signum() <= 0:
		return ter.TemBAD_AMOUNT
	case amount.Signum() <= 0:
		return ter.TemBAD_AMOUNT
	case badCurrency(amount.Currency()) || badCurrency(limit.Currency()):
		return ter.TemBAD_CURRENCY
	case t.Account(field.Account) == to && amount.Currency() == limit.Currency() && !hasPaths:
		return ter.TemREDUNDANT
	case direct && hasMax:
		return ter.TemBAD_SEND_NATIVE_MAX
	case direct && hasPaths:
		return ter.TemBAD_SEND_NATIVE_PATHS
	case direct && partial:
		return ter.TemBAD_SEND_NATIVE_PARTIAL
	case direct && flags&xahau.TfLimitQuality != 0:
		return ter.TemBAD_SEND_NATIVE_LIMIT
	case direct && flags&xahau.TfNoRippleDirect != 0:
		return ter.TemBAD_SEND_NATIVE_NO_DIRECT
	}
	if least, ok := xahau.Lookup[xahau.Amount](t, field.DeliverMin); ok {
		if !partial || !legalNet(least) || least.Signum() <= 0 || least.Issue() != amount.Issue() || least.Cmp(amount) > 0 {
			return ter.TemBAD_AMOUNT
		}
	}
	return ter.TesSUCCESS
}

func preclaimPayment(c *Context) ter.Code {
	t := c.Tx
	amount := t.Amount(field.Amount)
	to := c.View.Read(keylet.Account(t.Account(field.Destination)))
	switch {
	case to != nil:
		if to.Flags()&xahau.LsfRequireDestTag != 0 && !t.Has(field.DestinationTag) {
			return ter.TecDST_TAG_NEEDED
		}
	case !amount.IsNative():
		return ter.TecNO_DST
	case c.Open && t.Flags()&xahau.TfPartialPayment != 0:
		return ter.TelNO_DST_PARTIAL
	case amount.Drops() < c.View.Ledger().Fees.AccountReserve(0):
		return ter.TecNO_DST_INSUF_NATIVE
	}
	if paths, ok := xahau.Lookup[xahau.PathSet](t, field.Paths); ok && c.Open {
		if len(paths) > maxPaths {
			return ter.TelBAD_PATH_COUNT
		}
		for _, p := range paths {
			if len(p) > maxPathLength {
				return ter.TelBAD_PATH_COUNT
			}
		}
	}
	return ter.TesSUCCESS
}

func applyPayment(c *Context) ter.Code {
	t := c.Tx
	amount, to := t.Amount(field.Amount), t.Account(field.Destination)
	if !view.Exists(c.View, keylet.Account(to)) {
		CreateAccount(c.View, to)
	}
	if t.Has(field.Paths) || t.Has(field.SendMax) || !amount.IsNative() {
		return applyIssued(c, amount, to)
	}

	root := c.Root()
	reserve := c.View.Ledger().Fees.AccountReserve(root.Uint32(field.OwnerCount))
	if c.Prior < amount.Drops()+max(reserve, c.Fee) {
		return ter.TecUNFUNDED_PAYMENT
	}
	dst := c.View.Read(keylet.Account(to))
	if dst.Flags()&xahau.LsfDepositAuth != 0 && !view.Exists(c.View, keylet.DepositPreauth(to, c.Account)) {
		// Accounts that are nearly empty can be paid what they need for fees.
		least := c.View.Ledger().Fees.AccountReserve(0)
		if amount.Drops() > least || dst.Amount(field.Balance).Drops() > least {
			return ter.TecNO_PERMISSION
		}
	}
	view.AddDrops(c.View, c.Account, -amount.Drops())
	editAccount(c.View, to, func(dst *xahau.Object) {
		dst.Set(field.Balance, xahau.Drops(dst.Amount(field.Balance).Drops()+amount.Drops()))
		dst.Set(field.Flags, xahau.Uint32(dst.Flags()&^xahau.LsfPasswordSpent))
	})
	return ter.TesSUCCESS
}

func applyIssued(c *Context, amount xahau.Amount, to xahau.AccountID) ter.Code {
	t := c.Tx
	if dst := c.View.Read(keylet.Account(to)); dst.Flags()&xahau.LsfDepositAuth != 0 && to != c.Account &&
		!view.Exists(c.View, keylet.DepositPreauth(to, c.Account)) {
		return ter.TecNO_PERMISSION
	}
	f := Flow{From: c.Account, To: to, Deliver: amount, SendMax: sourceLimit(t),
		Partial: t.Flags()&xahau.TfPartialPayment != 0, NoDefault: t.Flags()&xahau.TfNoRippleDirect != 0,
		LimitQuality: t.Flags()&xahau.TfLimitQuality != 0}
	out, code := f.Run(c.View)
	if code == ter.TesSUCCESS && out != amount {
		if least, ok := xahau.Lookup[xahau.Amount](t, field.DeliverMin); ok && out.Cmp(least) < 0 {
			return ter.TecPATH_PARTIAL
		}
		c.Delivered = &out
	}
	if code.IsRetry() {
		code = ter.TecPATH_DRY
	}
	if code == ter.TesSUCCESS {
		c.Weak = append(c.Weak, changedHolders(c.View)...)
	}
	return code
}

// changedHolders gives the accounts whose balances of issued currencies changed, as
// weak stakeholders: of each changed line the side whose balance rose if it is
// the low one, else the high one.
func changedHolders(s *view.Sandbox) []xahau.AccountID {
	var list []xahau.AccountID
	for _, ch := range s.Changes() {
		if ch.After.EntryType() != xahau.EntryRippleState {
			continue
		}
		after := ch.After.Amount(field.Balance)
		if ch.Before != nil {
			diff, err := after.Sub(ch.Before.Amount(field.Balance))
			if err != nil || diff.Signum() == 0 {
				continue
			}
			after = diff
		}
		side := field.LowLimit
		if after.Signum() < 0 {
			side = field.HighLimit
		}
		list = append(list, ch.After.Amount(side).Issuer())
	}
	return list
}

// CreateAccount makes an account with nothing in it. Its first sequence number is
// the time, so that no transaction of an account that was there before can be
// applied again, here or on another network.
func CreateAccount(v view.View, a xahau.AccountID) {
	k := keylet.Account(a)
	root := view.NewEntry(k)
	root.Set(field.Account, a)
	root.Set(field.Sequence, xahau.Uint32(v.Ledger().ParentCloseTime))
	root.Set(field.Balance, xahau.Drops(0))
	root.Set(field.OwnerCount, xahau.Uint32(0))
	if fees := view.Edit(v, keylet.Fees()); fees != nil {
		n := fees.Uint64(field.AccountCount)
		root.Set(field.AccountIndex, xahau.Uint64(n))
		fees.Set(field.AccountCount, xahau.Uint64(n+1))
		v.Update(keylet.Fees(), fees)
	}
	v.Insert(k, root)
}
