package hook

import (
	"bytes"
	"slices"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

// Functions about the hook itself and its chain.

func (r *run) hookAccount(p []uint64) Code {
	ptr, length := lo(p[0]), lo(p[1])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if length < 20 {
		return TooSmall
	}
	return r.write(ptr, 20, r.call.Account[:])
}

// chain gives the hooks of the account, blank positions included.
func (r *run) chain() ([]object, bool) { return r.chainOf(r.call.Account) }

func (r *run) chainOf(account xahau.AccountID) ([]object, bool) {
	o := r.object(keylet.Hook(account))
	hooks, ok := o.get(field.Hooks)
	if !ok {
		return nil, false
	}
	return hookObjects(hooks.value), true
}

// hookObjects reads the array of an account's hooks.
func hookObjects(array []byte) []object {
	var all []object
	for _, p := range items(array) {
		o, _ := parts(p.value)
		all = append(all, o)
	}
	return all
}

func (r *run) hookHash(p []uint64) Code {
	ptr, length, n := lo(p[0]), lo(p[1]), int32(lo(p[2]))
	if length < 32 {
		return TooSmall
	}
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	hash := r.call.Hash
	if n != -1 {
		chain, ok := r.chain()
		if !ok {
			return InternalError
		}
		if n < 0 || int(n) >= len(chain) {
			return DoesntExist
		}
		if hash, ok = chain[n].hash(field.HookHash); !ok {
			return DoesntExist
		}
	}
	return r.write(ptr, length, hash[:])
}

func (r *run) hookPos([]uint64) Code { return Code(r.call.Position) }

func (r *run) hookAgain([]uint64) Code {
	if r.result.Again {
		return AlreadySet
	}
	if r.call.Mode != Strong {
		return PrerequisiteNotMet
	}
	r.result.Again = true
	return 1
}

// overridesNow are the overrides in force: those of the call and the run's own.
func (r *run) overridesNow() Overrides {
	if r.result.Overrides != nil {
		return r.result.Overrides
	}
	return r.call.Overrides
}

// hookParam writes a parameter, or as much of it as fits.
func (r *run) hookParam(p []uint64) Code {
	wptr, wlen, rptr, rlen := lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3])
	if r.outside(rptr, rlen) || r.outside(wptr, wlen) {
		return OutOfBounds
	}
	if rlen < 1 {
		return TooSmall
	}
	if rlen > maxParameterName {
		return TooBig
	}
	name := r.bytes(rptr, rlen)
	value, ok := r.overridesNow()[r.call.Hash][string(name)]
	if !ok {
		value = r.call.Params[string(name)]
	}
	if len(value) == 0 {
		// A hook can take a parameter away from a later one by an empty override.
		return DoesntExist
	}
	return r.write(wptr, wlen, value)
}

// hookParamSet overrides a parameter of a hook that is later in the chain.
func (r *run) hookParamSet(p []uint64) Code {
	rptr, rlen, kptr, klen, hptr, hlen := lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3]), lo(p[4]), lo(p[5])
	if r.outside(rptr, rlen) || r.outside(kptr, klen) || r.outside(hptr, hlen) {
		return OutOfBounds
	}
	switch {
	case klen < 1:
		return TooSmall
	case klen > maxParameterName:
		return TooBig
	case hlen != 32:
		return InvalidArgument
	case rlen > maxParameterValue:
		return TooBig
	case r.overrides >= maxOverrides:
		return TooManyParams
	}
	r.overrides++
	if r.result.Overrides == nil {
		r.result.Overrides = r.call.Overrides.clone()
	}
	r.result.Overrides.set(xahau.Hash256(r.bytes(hptr, 32)), string(r.bytes(kptr, klen)), bytes.Clone(r.bytes(rptr, rlen)))
	return Code(rlen)
}

// hookSkip puts a hook of the chain on the list of those not to run, or takes it
// off.
func (r *run) hookSkip(p []uint64) Code {
	ptr, length, flags := lo(p[0]), lo(p[1]), lo(p[2])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if length != 32 || flags > 1 {
		return InvalidArgument
	}
	hash := xahau.Hash256(r.bytes(ptr, 32))
	if flags == 1 {
		if !r.skips[hash] {
			return DoesntExist
		}
		delete(r.skips, hash)
		return 1
	}
	if r.skips[hash] {
		return 1
	}
	chain, ok := r.chain()
	if !ok {
		return InternalError
	}
	for _, h := range chain {
		if found, ok := h.hash(field.HookHash); ok && found == hash {
			if r.skips == nil {
				r.skips = make(map[xahau.Hash256]bool)
			}
			r.skips[hash] = true
			return 1
		}
	}
	return DoesntExist
}

func sortedHashes(set map[xahau.Hash256]bool) []xahau.Hash256 {
	var all []xahau.Hash256
	for h := range set {
		all = append(all, h)
	}
	slices.SortFunc(all, xahau.Hash256.Compare)
	return all
}
