package apply

import (
	"fmt"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/chain"
	"evernode/xahau/standalone/shamap"
	"evernode/xahau/standalone/view"
)

// Account is an account of the first ledger. Nobody needs its key.
type Account struct {
	ID       xahau.AccountID
	Balance  int64  // drops
	Sequence uint32 // 0 is 1
	Flags    uint32
}

// Genesis says what the first ledger of a network holds.
type Genesis struct {
	Seq        uint32 // 0 is 1
	CloseTime  uint32 // seconds since 2000
	Accounts   []Account
	Fees       view.Fees // zero is that of the public network
	Amendments []xahau.Hash256
	// NetworkID is noted in the ledger unless it is 0.
	NetworkID uint32
	// Entries are any further entries; nothing about them is checked.
	Entries map[xahau.Hash256]*xahau.Object
}

// DefaultFees are those of the public network: 10 drops, 1 XAH and 0.2 XAH.
func DefaultFees() view.Fees { return view.Fees{Base: 10, Reserve: 1_000_000, Increment: 200_000} }

// Ledger makes the first ledger.
func (g Genesis) Ledger(defs *xahau.Definitions) (chain.Ledger, error) {
	if g.Fees == (view.Fees{}) {
		g.Fees = DefaultFees()
	}
	if g.Fees.Base < 0 || g.Fees.Reserve < 0 || g.Fees.Reserve > 1<<32-1 || g.Fees.Increment < 0 || g.Fees.Increment > 1<<32-1 {
		return chain.Ledger{}, fmt.Errorf("first ledger: fees %+v are out of range", g.Fees)
	}
	entries := make(map[xahau.Hash256]*xahau.Object, len(g.Accounts)+len(g.Entries)+2)
	put := func(k keylet.Keylet, o *xahau.Object) error {
		if entries[k.Index] != nil {
			return fmt.Errorf("first ledger: entry %s is there twice", k.Index)
		}
		entries[k.Index] = o
		return nil
	}
	total := int64(0)
	for n, a := range g.Accounts {
		if a.Balance < 0 || a.Balance > xahau.MaxDrops-total {
			return chain.Ledger{}, fmt.Errorf("first ledger: account %s has %d drops, more than there can be", a.ID, a.Balance)
		}
		total += a.Balance
		k := keylet.Account(a.ID)
		root := view.NewEntry(k)
		root.Set(field.Account, a.ID)
		root.Set(field.Sequence, xahau.Uint32(max(a.Sequence, 1)))
		root.Set(field.Balance, xahau.Drops(a.Balance))
		root.Set(field.OwnerCount, xahau.Uint32(0))
		root.Set(field.Flags, xahau.Uint32(a.Flags))
		root.Set(field.AccountIndex, xahau.Uint64(n))
		// Nothing came before the first transaction of an account.
		root.Set(field.PreviousTxnID, xahau.Hash256{})
		root.Set(field.PreviousTxnLgrSeq, xahau.Uint32(0))
		if err := put(k, root); err != nil {
			return chain.Ledger{}, err
		}
	}
	fees := view.NewEntry(keylet.Fees())
	fees.Set(field.BaseFee, xahau.Uint64(g.Fees.Base))
	fees.Set(field.ReferenceFeeUnits, xahau.Uint32(g.Fees.Base))
	fees.Set(field.ReserveBase, xahau.Uint32(g.Fees.Reserve))
	fees.Set(field.ReserveIncrement, xahau.Uint32(g.Fees.Increment))
	fees.Set(field.AccountCount, xahau.Uint64(len(g.Accounts)))
	fees.Set(field.XahauActivationLgrSeq, xahau.Uint32(max(g.Seq, 1)))
	if g.NetworkID != 0 {
		fees.Set(field.NetworkID, xahau.Uint32(g.NetworkID))
	}
	if err := put(keylet.Fees(), fees); err != nil {
		return chain.Ledger{}, err
	}
	if len(g.Amendments) > 0 {
		o := view.NewEntry(keylet.Amendments())
		o.Set(field.Amendments, xahau.Vector(g.Amendments))
		if err := put(keylet.Amendments(), o); err != nil {
			return chain.Ledger{}, err
		}
	}
	for index, o := range g.Entries {
		if err := put(keylet.Keylet{Index: index}, o); err != nil {
			return chain.Ledger{}, err
		}
	}
	changes := make([]shamap.Change, 0, len(entries))
	for index, o := range entries {
		b, err := defs.Encode(o)
		if err != nil {
			return chain.Ledger{}, fmt.Errorf("first ledger: entry %s: %w", index, err)
		}
		changes = append(changes, shamap.Change{Key: index, Data: b})
	}
	state, err := shamap.New(shamap.State).Apply(changes)
	if err != nil {
		return chain.Ledger{}, fmt.Errorf("first ledger: %w", err)
	}
	return chain.Ledger{
		Header: chain.Header{Seq: max(g.Seq, 1), Drops: uint64(total), AccountHash: state.Hash(), CloseTime: g.CloseTime,
			CloseResolution: CloseResolution},
		State: state,
	}, nil
}
