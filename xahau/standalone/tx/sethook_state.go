package tx

import (
	"slices"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/hook"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// maxNamespaceDelete is how many entries of a namespace one transaction deletes;
// the next one continues.
const maxNamespaceDelete = 256

// maxStateData is how long the value of an entry of hook state is at most, in bytes,
// for an account of scale 1.
const maxStateData = 256

// SetHookState writes an entry of an account's hook state, with the directory of
// its namespace, the account's counts and the reserve for it; an empty value
// deletes the entry. Whether the hook may do so has been checked before.
func SetHookState(v view.View, s hook.StateChange) ter.Code {
	rootKey := keylet.Account(s.Account)
	root := view.Edit(v, rootKey)
	if root == nil {
		return ter.TefINTERNAL
	}
	scale := stateScale(root)
	if len(s.Value) > maxStateData*int(scale) {
		return ter.TemHOOK_DATA_TOO_LARGE
	}
	k, dir := keylet.HookState(s.Account, s.Key, s.Namespace), keylet.HookStateDirectory(s.Account, s.Namespace)
	entry := view.Edit(v, k)
	count := root.Uint32(field.HookStateCount)
	switch {
	case entry == nil && len(s.Value) == 0:
		return ter.TesSUCCESS
	case len(s.Value) == 0:
		if !view.DirRemove(v, dir, entry.Uint64(field.OwnerNode), k.Index, false) {
			return ter.TefBAD_LEDGER
		}
		v.Erase(k)
		if count > 0 {
			setStateCount(root, count-1)
			subtractOwned(root, scale)
		}
		if !view.Exists(v, dir) {
			removeNamespace(root, s.Namespace)
		}
		v.Update(rootKey, root)
		return ter.TesSUCCESS
	case entry != nil:
		entry.Set(field.HookStateData, xahau.Blob(s.Value))
		v.Update(k, entry)
		return ter.TesSUCCESS
	}
	owned := root.Uint32(field.OwnerCount) + scale
	if root.Amount(field.Balance).Drops() < v.Ledger().Fees.AccountReserve(owned) {
		return ter.TecINSUFFICIENT_RESERVE
	}
	page, ok := view.DirInsert(v, dir, k.Index, view.OwnedBy(s.Account))
	if !ok {
		return ter.TecDIR_FULL
	}
	entry = view.NewEntry(k)
	entry.Set(field.HookStateKey, s.Key)
	entry.Set(field.HookStateData, xahau.Blob(s.Value))
	entry.Set(field.OwnerNode, xahau.Uint64(page))
	v.Insert(k, entry)
	root.Set(field.OwnerCount, xahau.Uint32(owned))
	setStateCount(root, count+1)
	if list := root.Vector(field.HookNamespaces); !slices.Contains(list, s.Namespace) {
		root.Set(field.HookNamespaces, xahau.Vector(append(list[:len(list):len(list)], s.Namespace)))
	}
	v.Update(rootKey, root)
	return ter.TesSUCCESS
}

// stateScale is for how many entries each entry of an account's hook state counts.
func stateScale(root *xahau.Object) uint32 {
	return max(uint32(root.Uint16(field.HookStateScale)), 1)
}

func setStateCount(root *xahau.Object, n uint32) {
	if n == 0 {
		root.Delete(field.HookStateCount)
		return
	}
	root.Set(field.HookStateCount, xahau.Uint32(n))
}

func subtractOwned(root *xahau.Object, n uint32) {
	owned := root.Uint32(field.OwnerCount)
	root.Set(field.OwnerCount, xahau.Uint32(owned-min(owned, n)))
}

func removeNamespace(root *xahau.Object, ns xahau.Hash256) {
	list := slices.Clone(root.Vector(field.HookNamespaces))
	list = slices.DeleteFunc(list, func(h xahau.Hash256) bool { return h == ns })
	slices.SortFunc(list, xahau.Hash256.Compare)
	if len(list) == 0 {
		root.Delete(field.HookNamespaces)
		return
	}
	root.Set(field.HookNamespaces, xahau.Vector(list))
}

// deleteNamespace deletes entries of a namespace of an account's hook state. It is
// TesPARTIAL if there are more than one transaction may delete. A namespace that is
// not there is none to delete.
func deleteNamespace(v view.View, account xahau.AccountID, ns xahau.Hash256) ter.Code {
	rootKey, dir := keylet.Account(account), keylet.HookStateDirectory(account, ns)
	root := view.Edit(v, rootKey)
	if root == nil {
		return ter.TefBAD_LEDGER
	}
	var doomed []xahau.Hash256
	result := ter.TesSUCCESS
	for index := range view.Dir(v, dir) {
		if len(doomed) == maxNamespaceDelete {
			result = ter.TesPARTIAL
			break
		}
		doomed = append(doomed, index)
	}
	for _, index := range doomed {
		k := keylet.Keylet{Type: xahau.EntryHookState, Index: index}
		entry := v.Read(k)
		if entry == nil || !view.DirRemove(v, dir, entry.Uint64(field.OwnerNode), index, false) {
			return ter.TefBAD_LEDGER
		}
		v.Erase(k)
	}
	n, scale := uint32(len(doomed)), stateScale(root)
	count := root.Uint32(field.HookStateCount)
	if count < n || root.Uint32(field.OwnerCount) < n*scale {
		return ter.TefBAD_LEDGER
	}
	if n > 0 {
		setStateCount(root, count-n)
		subtractOwned(root, n*scale)
	}
	if result == ter.TesSUCCESS && root.Has(field.HookNamespaces) {
		removeNamespace(root, ns)
	}
	v.Update(rootKey, root)
	return result
}
