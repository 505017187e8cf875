package view

import (
	"bytes"
	"fmt"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/ter"
)

// RateOne is the transfer rate and quality of 1.
const RateOne = 1_000_000_000

// Side is one of the two sides of a trust line.
type Side struct {
	Limit, QualityIn, QualityOut, Node field.Code
	Reserve, Auth, NoRipple, Freeze    uint32
	High                               bool
}

// SideOf is the side of account a on its line with account b.
func SideOf(a, b xahau.AccountID) Side {
	if bytes.Compare(a[:], b[:]) > 0 {
		return Side{field.HighLimit, field.HighQualityIn, field.HighQualityOut, field.HighNode,
			xahau.LsfHighReserve, xahau.LsfHighAuth, xahau.LsfHighNoRipple, xahau.LsfHighFreeze, true}
	}
	return Side{field.LowLimit, field.LowQualityIn, field.LowQualityOut, field.LowNode,
		xahau.LsfLowReserve, xahau.LsfLowAuth, xahau.LsfLowNoRipple, xahau.LsfLowFreeze, false}
}

// Signed is a line's balance as the side sees it.
func (s Side) Signed(balance xahau.Amount) xahau.Amount {
	if s.High {
		return balance.Negate()
	}
	return balance
}

// LineBalance is what b owes a on their line, below zero if a owes b; the issuer
// of the amount is b. It is 0 without a line.
func LineBalance(r Reader, a, b xahau.AccountID, c xahau.Currency) xahau.Amount {
	line := r.Read(keylet.Line(a, b, c))
	if line == nil {
		return xahau.Issue{Currency: c, Issuer: b}.Zero()
	}
	return SideOf(a, b).Signed(line.Amount(field.Balance)).WithIssuer(b)
}

// LineLimit is how much a lets b owe.
func LineLimit(r Reader, a, b xahau.AccountID, c xahau.Currency) xahau.Amount {
	line := r.Read(keylet.Line(a, b, c))
	if line == nil {
		return xahau.Issue{Currency: c, Issuer: a}.Zero()
	}
	return line.Amount(SideOf(a, b).Limit).WithIssuer(a)
}

// flagsOf gives an account's flags, 0 if there is no such account.
func flagsOf(r Reader, a xahau.AccountID) uint32 {
	if root := r.Read(keylet.Account(a)); root != nil {
		return root.Flags()
	}
	return 0
}

// Frozen tells whether an account cannot use what it has of an issue.
func Frozen(r Reader, account xahau.AccountID, i xahau.Issue) bool {
	if i.IsNative() {
		return false
	}
	if flagsOf(r, i.Issuer)&xahau.LsfGlobalFreeze != 0 {
		return true
	}
	return i.Issuer != account && LineFrozen(r, account, i)
}

// LineFrozen tells whether the issuer has frozen an account's line.
func LineFrozen(r Reader, account xahau.AccountID, i xahau.Issue) bool {
	line := r.Read(keylet.Line(account, i.Issuer, i.Currency))
	return line != nil && line.Flags()&SideOf(i.Issuer, account).Freeze != 0
}

// GloballyFrozen tells whether an issuer has frozen everything it issued.
func GloballyFrozen(r Reader, issuer xahau.AccountID) bool {
	return flagsOf(r, issuer)&xahau.LsfGlobalFreeze != 0
}

// Holds is how much of an issue an account can spend: above the reserve if native,
// nothing if frozen. For the issuer itself it is 0; see Funds.
func Holds(r Reader, account xahau.AccountID, i xahau.Issue) xahau.Amount {
	if i.IsNative() {
		return xahau.Drops(Liquid(r, account, 0))
	}
	if Frozen(r, account, i) {
		return i.Zero()
	}
	return LineBalance(r, account, i.Issuer, i.Currency)
}

// Funds is Holds, but an issuer has as much as it likes: the amount want.
func Funds(r Reader, account xahau.AccountID, want xahau.Amount) xahau.Amount {
	if !want.IsNative() && want.Issuer() == account {
		return want
	}
	return Holds(r, account, want.Issue())
}

// TransferRate is what holders pay for sending an issuer's currencies to each
// other, in billionths: at least RateOne.
func TransferRate(r Reader, issuer xahau.AccountID) uint32 {
	if root := r.Read(keylet.Account(issuer)); root != nil {
		if rate := root.Uint32(field.TransferRate); rate != 0 {
			return rate
		}
	}
	return RateOne
}

// RequireAuth tells whether an account may hold an issue: TecNO_LINE or TecNO_AUTH
// if the issuer demands an authorized line.
func RequireAuth(r Reader, i xahau.Issue, account xahau.AccountID) ter.Code {
	if i.IsNative() || i.Issuer == account {
		return ter.TesSUCCESS
	}
	if flagsOf(r, i.Issuer)&xahau.LsfRequireAuth == 0 {
		return ter.TesSUCCESS
	}
	line := r.Read(keylet.Line(account, i.Issuer, i.Currency))
	switch {
	case line == nil:
		return ter.TecNO_LINE
	case line.Flags()&SideOf(i.Issuer, account).Auth == 0:
		return ter.TecNO_AUTH
	}
	return ter.TesSUCCESS
}

// NewLine says what TrustCreate makes: the line of an account, which pays the
// reserve for it, with a peer.
type NewLine struct {
	Account, Peer          xahau.AccountID
	Limit                  xahau.Amount // what Account lets Peer owe; names the currency
	Balance                xahau.Amount // what Peer owes Account
	Auth, NoRipple, Freeze bool
	QualityIn, QualityOut  uint32
}

// TrustCreate makes a trust line.
func TrustCreate(v View, n NewLine) ter.Code {
	c := n.Limit.Currency()
	k := keylet.Line(n.Account, n.Peer, c)
	mine, theirs := SideOf(n.Account, n.Peer), SideOf(n.Peer, n.Account)
	peer := v.Read(keylet.Account(n.Peer))
	if peer == nil {
		return ter.TecNO_TARGET
	}
	line := NewEntry(k)
	low, high := n.Account, n.Peer
	if mine.High {
		low, high = high, low
	}
	for _, x := range []struct {
		account xahau.AccountID
		node    field.Code
	}{{low, field.LowNode}, {high, field.HighNode}} {
		page, ok := DirInsert(v, keylet.OwnerDirectory(x.account), k.Index, OwnedBy(x.account))
		if !ok {
			return ter.TecDIR_FULL
		}
		line.Set(x.node, xahau.Uint64(page))
	}
	line.Set(mine.Limit, n.Limit.WithIssuer(n.Account))
	line.Set(theirs.Limit, xahau.Issue{Currency: c, Issuer: n.Peer}.Zero())
	if n.QualityIn != 0 {
		line.Set(mine.QualityIn, xahau.Uint32(n.QualityIn))
	}
	if n.QualityOut != 0 {
		line.Set(mine.QualityOut, xahau.Uint32(n.QualityOut))
	}
	flags := mine.Reserve
	if n.Auth {
		flags |= mine.Auth
	}
	if n.NoRipple {
		flags |= mine.NoRipple
	}
	if n.Freeze {
		flags |= mine.Freeze
	}
	if peer.Flags()&xahau.LsfDefaultRipple == 0 {
		flags |= theirs.NoRipple
	}
	line.Set(fieldFlags, xahau.Uint32(flags))
	line.Set(field.Balance, mine.Signed(n.Balance).WithIssuer(xahau.AccountOne))
	AdjustOwnerCount(v, n.Account, 1)
	v.Insert(k, line)
	return ter.TesSUCCESS
}

// TrustDelete removes a trust line between two accounts.
func TrustDelete(v View, a, b xahau.AccountID, c xahau.Currency) ter.Code {
	k := keylet.Line(a, b, c)
	line := v.Read(k)
	if line == nil {
		return ter.TefBAD_LEDGER
	}
	if SideOf(a, b).High {
		a, b = b, a
	}
	if !DirRemove(v, keylet.OwnerDirectory(a), line.Uint64(field.LowNode), k.Index, false) ||
		!DirRemove(v, keylet.OwnerDirectory(b), line.Uint64(field.HighNode), k.Index, false) {
		return ter.TefBAD_LEDGER
	}
	v.Erase(k)
	return ter.TesSUCCESS
}

// Credit moves an issued amount along the line between two accounts, whichever of
// them is the issuer. It makes a line if there is none, and removes one that has
// become pointless.
func Credit(v View, from, to xahau.AccountID, amount xahau.Amount) ter.Code {
	c := amount.Currency()
	k := keylet.Line(from, to, c)
	line := Edit(v, k)
	if line == nil {
		return TrustCreate(v, NewLine{
			Account: to, Peer: from,
			Limit:    xahau.Issue{Currency: c, Issuer: to}.Zero(),
			Balance:  amount,
			NoRipple: flagsOf(v, to)&xahau.LsfDefaultRipple == 0,
		})
	}
	mine, theirs := SideOf(from, to), SideOf(to, from)
	before := mine.Signed(line.Amount(field.Balance))
	after, err := before.Sub(amount)
	if err != nil {
		v.Fail(fmt.Errorf("credit of %s: %w", amount, err))
		return ter.TefINTERNAL
	}
	flags := line.Flags()
	remove := false
	if before.Signum() > 0 && after.Signum() <= 0 && flags&mine.Reserve != 0 &&
		(flags&mine.NoRipple != 0) != (flagsOf(v, from)&xahau.LsfDefaultRipple != 0) &&
		flags&mine.Freeze == 0 && line.Amount(mine.Limit).Signum() == 0 &&
		line.Uint32(mine.QualityIn) == 0 && line.Uint32(mine.QualityOut) == 0 {
		AdjustOwnerCount(v, from, -1)
		line.Set(fieldFlags, xahau.Uint32(flags&^mine.Reserve))
		remove = after.Signum() == 0 && flags&theirs.Reserve == 0
	}
	line.Set(field.Balance, mine.Signed(after).WithIssuer(xahau.AccountOne))
	v.Update(k, line)
	if remove {
		return TrustDelete(v, from, to, c)
	}
	return ter.TesSUCCESS
}

// Send moves an amount from one account to another. Of what neither of them
// issues, the sender pays the transfer rate on top. Whether the sender has it,
// and whether lines allow it, is for the caller to check.
func Send(v View, from, to xahau.AccountID, amount xahau.Amount) ter.Code {
	if amount.Signum() == 0 || from == to {
		return ter.TesSUCCESS
	}
	if amount.IsNative() {
		AddDrops(v, from, -amount.Drops())
		AddDrops(v, to, amount.Drops())
		return ter.TesSUCCESS
	}
	issuer := amount.Issuer()
	if from == issuer || to == issuer {
		return Credit(v, from, to, amount)
	}
	total := amount
	if rate := TransferRate(v, issuer); rate != RateOne {
		var err error
		if total, err = ApplyRate(amount, rate); err != nil {
			return ter.TefINTERNAL
		}
	}
	if code := Credit(v, issuer, to, amount); code != ter.TesSUCCESS {
		return code
	}
	return Credit(v, from, issuer, total)
}

// ApplyRate multiplies an amount by a rate in billionths, rounded to the nearest.
func ApplyRate(amount xahau.Amount, rate uint32) (xahau.Amount, error) {
	if rate == RateOne {
		return amount, nil
	}
	return xahau.Multiply(amount, rateAmount(rate), amount.Issue())
}

// DivideRate divides an amount by a rate in billionths, rounded to the nearest.
func DivideRate(amount xahau.Amount, rate uint32) (xahau.Amount, error) {
	if rate == RateOne {
		return amount, nil
	}
	return xahau.Divide(amount, rateAmount(rate), amount.Issue())
}

func rateAmount(rate uint32) xahau.Amount {
	// The rate as a quality: mantissa × 10^-9 with 16 digits.
	m, e := uint64(rate), -9
	for m < 1_000_000_000_000_000 {
		m *= 10
		e--
	}
	a, err := xahau.RateAmount(uint64(e+100)<<56 | m)
	if err != nil {
		return xahau.Amount{}
	}
	return a
}
