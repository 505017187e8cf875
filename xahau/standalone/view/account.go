package view

import (
	"fmt"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

// AdjustOwnerCount changes how many entries an account owns. It stops at 0 and at
// the largest number.
func AdjustOwnerCount(v View, account xahau.AccountID, delta int) {
	k := keylet.Account(account)
	root := Edit(v, k)
	if root == nil {
		v.Fail(fmt.Errorf("owner count of %s: no such account", account))
		return
	}
	n := int64(root.Uint32(field.OwnerCount)) + int64(delta)
	root.Set(field.OwnerCount, xahau.Uint32(min(max(n, 0), 1<<32-1)))
	v.Update(k, root)
}

// Balance is an account's native balance in drops.
func Balance(r Reader, account xahau.AccountID) int64 {
	root := r.Read(keylet.Account(account))
	if root == nil {
		return 0
	}
	return root.Amount(field.Balance).Drops()
}

// Liquid is how many drops an account can spend if it will own some more entries
// (or fewer, if negative): what is above its reserve.
func Liquid(r Reader, account xahau.AccountID, more int) int64 {
	root := r.Read(keylet.Account(account))
	if root == nil {
		return 0
	}
	owned := max(int64(root.Uint32(field.OwnerCount))+int64(more), 0)
	return max(root.Amount(field.Balance).Drops()-r.Ledger().Fees.AccountReserve(uint32(owned)), 0)
}

// AddDrops changes an account's native balance.
func AddDrops(v View, account xahau.AccountID, drops int64) {
	k := keylet.Account(account)
	root := Edit(v, k)
	if root == nil {
		v.Fail(fmt.Errorf("balance of %s: no such account", account))
		return
	}
	sum := root.Amount(field.Balance).Drops() + drops
	if sum < 0 {
		v.Fail(fmt.Errorf("balance of %s would be %d drops", account, sum))
		return
	}
	root.Set(field.Balance, xahau.Drops(sum))
	v.Update(k, root)
}
