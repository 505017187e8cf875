package hook

import (
	"bytes"
	"slices"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

// States is the hook state that the hooks of one transaction have read and
// written. Strong runs share one, weak runs and runs again another, and each
// callback has its own; the transactor writes Changes to the ledger if the
// transaction goes through (chain.go says when).
type States struct {
	accounts map[xahau.AccountID]*accountStates
	modified int
}

type accountStates struct {
	// available is how many new entries the account has the reserve for.
	available  int64
	namespaces int
	scale      int64
	entries    map[xahau.Hash256]map[xahau.Hash256]*stateEntry
}

type stateEntry struct {
	modified bool
	value    []byte
}

// NewStates is the state before any hook ran.
func NewStates() *States {
	return &States{accounts: make(map[xahau.AccountID]*accountStates)}
}

// StateChange is an entry of hook state that is to be written.
type StateChange struct {
	Account        xahau.AccountID
	Namespace, Key xahau.Hash256
	// Value is the new value; empty deletes the entry.
	Value []byte
}

// Changes gives what was written, in the order in which the network writes it: by
// account, namespace and key.
func (s *States) Changes() []StateChange {
	var all []StateChange
	for account, a := range s.accounts {
		for namespace, entries := range a.entries {
			for key, e := range entries {
				if e.modified {
					all = append(all, StateChange{account, namespace, key, e.value})
				}
			}
		}
	}
	slices.SortFunc(all, func(x, y StateChange) int {
		if c := bytes.Compare(x.Account[:], y.Account[:]); c != 0 {
			return c
		}
		if c := x.Namespace.Compare(y.Namespace); c != 0 {
			return c
		}
		return x.Key.Compare(y.Key)
	})
	return all
}

func (s *States) lookup(account xahau.AccountID, namespace, key xahau.Hash256) *stateEntry {
	if a := s.accounts[account]; a != nil {
		return a.entries[namespace][key]
	}
	return nil
}

// remember puts a value into the states. The count of changes and the reserve are
// the network's: looking at an account's state for the first time takes room for
// one entry, the first change in an account or namespace is not counted in
// HookStateChangeCount, and a read of a further entry is.
func (r *run) remember(account xahau.AccountID, namespace, key xahau.Hash256, value []byte, modified bool) Code {
	s := r.call.States
	if modified && s.modified >= maxStateChanges {
		return TooManyStateModifications
	}
	a := s.accounts[account]
	newNamespace := func() bool {
		return r.entry(keylet.HookStateDirectory(account, namespace).Index) == nil
	}
	if a == nil {
		return r.rememberFirst(account, namespace, key, value, modified, newNamespace)
	}
	entries := a.entries[namespace]
	if entries == nil {
		if modified {
			if a.available < a.scale {
				return ReserveInsufficient
			}
			if newNamespace() {
				if a.namespaces+1 > maxNamespaces {
					return TooManyNamespaces
				}
				a.namespaces++
			}
			a.available -= a.scale
			s.modified++
		}
		a.entries[namespace] = map[xahau.Hash256]*stateEntry{key: {modified, value}}
		return 1
	}
	e := entries[key]
	if e == nil {
		if modified {
			if a.available < a.scale {
				return ReserveInsufficient
			}
			a.available -= a.scale
			s.modified++
		}
		entries[key] = &stateEntry{modified, value}
		r.result.StateChanges++
		return 1
	}
	if modified {
		if !e.modified {
			r.result.StateChanges++
		}
		s.modified++
		e.modified = true
	}
	e.value = value
	return 1
}

func (r *run) rememberFirst(account xahau.AccountID, namespace, key xahau.Hash256, value []byte, modified bool, newNamespace func() bool) Code {
	root := r.object(keylet.Account(account))
	if root == nil {
		return DoesntExist
	}
	balance, _ := root.drops(field.Balance)
	owned, _ := root.uint(field.OwnerCount)
	scale := stateScale(root)
	h := &r.c.Header
	available := (balance - h.Reserve - int64(owned)*h.Increment) / max(h.Increment, 1)
	if available < scale && modified {
		return ReserveInsufficient
	}
	namespaces := 0
	if p, ok := root.get(field.HookNamespaces); ok {
		namespaces = len(p.body) / 32
	}
	if newNamespace() {
		if namespaces++; namespaces > maxNamespaces {
			return TooManyNamespaces
		}
	}
	r.call.States.modified++
	r.call.States.accounts[account] = &accountStates{
		available: available - scale, namespaces: namespaces, scale: scale,
		entries: map[xahau.Hash256]map[xahau.Hash256]*stateEntry{namespace: {key: {modified, value}}},
	}
	return 1
}

// stateScale is how many times larger than usual an account's state entries may
// be, and how many times more reserve each of them needs.
func stateScale(root object) int64 {
	v, ok := root.uint(field.HookStateScale)
	if !ok || v == 0 {
		return 1
	}
	return int64(min(v, maxStateScale))
}

// stateKey pads a key with zeros on the left.
func stateKey(b []byte) (k xahau.Hash256) {
	copy(k[len(k)-len(b):], b)
	return k
}

func (r *run) state(p []uint64) Code {
	return r.readState(lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3]), 0, 0, 0, 0)
}

func (r *run) stateForeign(p []uint64) Code {
	return r.readState(lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3]), lo(p[4]), lo(p[5]), lo(p[6]), lo(p[7]))
}

func (r *run) readState(wptr, wlen, kptr, klen, nptr, nlen, aptr, alen uint32) Code {
	foreign := aptr != 0
	switch {
	case !foreign && alen != 0, foreign && alen != 20:
		return InvalidArgument
	case klen > 32:
		return TooBig
	case klen < 1:
		return TooSmall
	case wlen < 1 && wptr != 0:
		return TooSmall
	case !(nlen == 0 && !foreign) && nlen != 32:
		return InvalidArgument
	case r.outside(kptr, klen), r.outside(nptr, nlen), r.outside(aptr, alen), r.outside(wptr, wlen):
		return OutOfBounds
	}
	namespace, account := r.call.Namespace, r.call.Account
	if nlen != 0 {
		namespace = xahau.Hash256(r.bytes(nptr, 32))
	}
	if foreign {
		account = xahau.AccountID(r.bytes(aptr, 20))
	}
	key := stateKey(r.bytes(kptr, klen))
	if e := r.call.States.lookup(account, namespace, key); e != nil {
		return r.give(wptr, wlen, e.value)
	}
	r.spend(priceKeylet)
	b := r.entry(keylet.HookState(account, key, namespace).Index)
	if b == nil {
		return DoesntExist
	}
	data, ok := findPart(b, field.HookStateData)
	if !ok {
		return DoesntExist
	}
	if r.remember(account, namespace, key, data.body, false) < 0 {
		return InternalError
	}
	return r.give(wptr, wlen, data.body)
}

func (r *run) stateSet(p []uint64) Code {
	return r.writeState(lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3]), 0, 0, 0, 0)
}

func (r *run) stateForeignSet(p []uint64) Code {
	return r.writeState(lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3]), lo(p[4]), lo(p[5]), lo(p[6]), lo(p[7]))
}

func (r *run) writeState(rptr, rlen, kptr, klen, nptr, nlen, aptr, alen uint32) Code {
	remove := rptr == 0 && rlen == 0
	switch {
	case !remove && r.outside(rptr, rlen):
		return OutOfBounds
	case klen > 32:
		return TooBig
	case klen < 1:
		return TooSmall
	case nlen != 0 && nlen != 32, alen != 0 && alen != 20:
		return InvalidArgument
	case r.outside(kptr, klen):
		return OutOfBounds
	case nptr == 0 && nlen == 0 && !(aptr == 0 && alen == 0):
		return InvalidArgument
	case nlen != 0 && r.outside(nptr, nlen), alen != 0 && r.outside(aptr, alen):
		return OutOfBounds
	}
	if r.ownScale == 0 {
		own := r.object(keylet.Account(r.call.Account))
		if own == nil {
			return InternalError
		}
		r.ownScale = stateScale(own)
	}
	if int64(rlen) > maxStateData*r.ownScale {
		return TooBig
	}
	namespace, account := r.call.Namespace, r.call.Account
	if nlen != 0 {
		namespace = xahau.Hash256(r.bytes(nptr, 32))
	}
	if alen != 0 {
		account = xahau.AccountID(r.bytes(aptr, 20))
	}
	key := stateKey(r.bytes(kptr, klen))
	value := bytes.Clone(r.bytes(rptr, rlen))
	if account != r.call.Account {
		if r.noForeign {
			return PreviousFailurePreventsRetry
		}
		// What the hook was allowed to write once it may write again.
		if e := r.call.States.lookup(account, namespace, key); e == nil || !e.modified {
			if code := r.granted(account, namespace); code < 0 {
				return code
			}
		}
	}
	if code := r.remember(account, namespace, key, value, true); code < 0 {
		return code
	}
	return Code(rlen)
}

// granted looks for a grant: a hook of the account whose namespace this is must
// name the running hook, and the account where it runs or none.
func (r *run) granted(account xahau.AccountID, namespace xahau.Hash256) Code {
	chain, ok := r.chainOf(account)
	if !ok {
		return InternalError
	}
	for _, h := range chain {
		hash, ok := h.hash(field.HookHash)
		if !ok {
			continue
		}
		grants, ok := h.get(field.HookGrants)
		if !ok || len(grants.value) == 0 {
			continue
		}
		ns, ok := h.hash(field.HookNamespace)
		if !ok {
			def := r.object(keylet.HookDefinition(hash))
			if def == nil {
				continue
			}
			ns, _ = def.hash(field.HookNamespace)
		}
		if ns != namespace {
			continue
		}
		for _, g := range hookObjects(grants.value) {
			to, _ := g.hash(field.HookHash)
			who, restricted := g.account(field.Authorize)
			if to == r.call.Hash && (!restricted || who == r.call.Account) {
				return 1
			}
		}
	}
	// The search is expensive, so that the hook gets one attempt.
	r.noForeign = true
	return NotAuthorized
}
