package hook

import "evernode/xahau/field"

// Functions about the transaction that the hook runs for.

// otxnBurden is 1 unless a hook emitted the transaction.
func (r *run) otxnBurden([]uint64) Code { return Code(r.burden()) }

func (r *run) burden() uint64 {
	b, ok := r.c.Tx.emit.uint(field.EmitBurden)
	if !ok {
		return 1
	}
	return b & (1<<63 - 1)
}

func (r *run) otxnGeneration([]uint64) Code { return Code(r.generation()) }

func (r *run) generation() uint32 {
	g, _ := r.c.Tx.emit.uint(field.EmitGeneration)
	return uint32(g)
}

func (r *run) otxnField(p []uint64) Code {
	ptr, length, id := lo(p[0]), lo(p[1]), field.Code(lo(p[2]))
	if ptr == 0 {
		if length != 0 {
			return InvalidArgument
		}
	} else if r.outside(ptr, length) {
		return OutOfBounds
	}
	if !r.known(id) {
		return InvalidField
	}
	f, ok := r.otxn().fields.get(id)
	if !ok {
		return DoesntExist
	}
	return r.give(ptr, length, fieldValue(f.code, f.value))
}

// otxnID writes the transaction's id; for a transaction that expired, with flags
// the id of the pseudo-transaction that cleans it up.
func (r *run) otxnID(p []uint64) Code {
	ptr, length, flags := lo(p[0]), lo(p[1]), lo(p[2])
	id := r.otxn().id
	if flags != 0 {
		id = r.c.Tx.id
	}
	if length < 32 {
		return TooSmall
	}
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	return r.write(ptr, 32, id[:])
}

func (r *run) otxnType([]uint64) Code { return Code(r.otxn().typ) }

func (r *run) otxnSlot(p []uint64) Code {
	n := lo(p[0])
	if n > maxSlots {
		return InvalidArgument
	}
	code := wholeTransaction
	if r.failed != nil {
		code = field.EmittedTxn
	}
	return r.put(n, slot{code, r.otxn().raw})
}

func (r *run) otxnParam(p []uint64) Code {
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
	params, ok := r.c.Tx.fields.get(field.HookParameters)
	if !ok {
		return DoesntExist
	}
	name := string(r.bytes(rptr, rlen))
	r.spend(len(params.value) * priceByte)
	for _, it := range items(params.value) {
		n, ok := findPart(it.value, field.HookParameterName)
		if !ok || string(n.body) != name {
			continue
		}
		v, ok := findPart(it.value, field.HookParameterValue)
		if !ok || len(v.body) == 0 {
			return DoesntExist
		}
		if int64(len(v.body)) > int64(wlen) {
			return TooSmall
		}
		return r.write(wptr, wlen, v.body)
	}
	return DoesntExist
}
