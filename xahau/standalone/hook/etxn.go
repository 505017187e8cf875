package hook

import (
	"encoding/binary"
	"math/bits"

	"evernode/xahau"
	"evernode/xahau/field"
)

// Functions about transactions that the hook emits.

// The sizes of EmitDetails as etxn_details writes them: with callback and without.
const (
	detailsWithCallback = 138
	detailsWithout      = 116
)

func (r *run) etxnReserve(p []uint64) Code {
	n := lo(p[0])
	switch {
	case r.reserved >= 0:
		return AlreadySet
	case n < 1:
		return TooSmall
	case n > maxEmit:
		return TooBig
	}
	r.reserved = int64(n)
	return Code(n)
}

func (r *run) etxnBurden([]uint64) Code {
	b, code := r.burdenOut()
	if code < 0 {
		return code
	}
	return Code(b)
}

// burdenOut is the burden of transactions that this run emits: it grows with every
// transaction that a transaction leads to, and fees with it.
func (r *run) burdenOut() (uint64, Code) {
	if r.reserved < 0 {
		return 0, PrerequisiteNotMet
	}
	last := r.burden()
	high, b := bits.Mul64(last, uint64(r.reserved))
	if high != 0 || b < last {
		return 0, FeeTooLarge
	}
	return b, 0
}

func (r *run) etxnGeneration([]uint64) Code { return Code(r.generation() + 1) }

func (r *run) etxnNonce(p []uint64) Code {
	ptr, length := lo(p[0]), lo(p[1])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if r.emitNonces > maxNonce {
		return TooManyNonces
	}
	if length < 32 {
		return TooSmall
	}
	n, code := r.nonce()
	if code < 0 {
		return code
	}
	return r.write(ptr, 32, n[:])
}

// nonce makes a nonce for an emitted transaction, and remembers it.
func (r *run) nonce() (xahau.Hash256, Code) {
	if r.emitNonces > maxNonce {
		return xahau.Hash256{}, TooManyNonces
	}
	r.spend(priceKeylet)
	// The same hook can run more than once for a transaction.
	flags := uint32(r.call.Position) << 2
	if r.call.Mode == Strong {
		flags |= 2
	}
	if r.call.Mode == Callback {
		flags |= 1
	}
	n := xahau.Sha512Half(xahau.PrefixEmitNonce[:], r.c.Tx.id[:], be16(r.emitNonces), r.call.Account[:], r.call.Hash[:], be32(flags))
	r.emitNonces++
	if r.nonces == nil {
		r.nonces = make(map[xahau.Hash256]bool)
	}
	r.nonces[n] = true
	return n, 0
}

func (r *run) etxnFeeBase(p []uint64) Code {
	ptr, length := lo(p[0]), lo(p[1])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if r.reserved < 0 {
		return PrerequisiteNotMet
	}
	tx, err := canonical(r.bytes(ptr, length), 0)
	if err != nil {
		return InvalidTxn
	}
	r.spend(priceEmission)
	fee, err := r.c.Ledger.Fee(tx)
	if err != nil {
		return InvalidTxn
	}
	return Code(fee)
}

// etxnDetails writes the EmitDetails of a transaction to be emitted, with a nonce
// of its own.
func (r *run) etxnDetails(p []uint64) Code {
	ptr, length := lo(p[0]), lo(p[1])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	size := uint32(detailsWithout)
	if r.call.HasCbak {
		size = detailsWithCallback
	}
	if length < size {
		return TooSmall
	}
	if r.reserved < 0 {
		return PrerequisiteNotMet
	}
	burden, code := r.burdenOut()
	if code < 0 {
		return FeeTooLarge
	}
	nonce, code := r.nonce()
	if code < 0 {
		return InternalError
	}
	b := appendHeader(make([]byte, 0, size), field.EmitDetails)
	b = binary.BigEndian.AppendUint32(appendHeader(b, field.EmitGeneration), r.generation()+1)
	b = binary.BigEndian.AppendUint64(appendHeader(b, field.EmitBurden), burden)
	b = append(appendHeader(b, field.EmitParentTxnID), r.c.Tx.id[:]...)
	b = append(appendHeader(b, field.EmitNonce), nonce[:]...)
	b = append(appendHeader(b, field.EmitHookHash), r.call.Hash[:]...)
	if r.call.HasCbak {
		b = append(appendHeader(b, field.EmitCallback), 20)
		b = append(b, r.call.Account[:]...)
	}
	b = append(b, endOfObject)
	return r.write(ptr, length, b)
}

// emit takes a transaction that is to be applied in the next ledger, and writes its
// id.
func (r *run) emit(p []uint64) Code {
	wptr, wlen, rptr, rlen := lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3])
	if r.outside(rptr, rlen) || r.outside(wptr, wlen) {
		return OutOfBounds
	}
	if wlen < 32 {
		return TooSmall
	}
	if r.reserved < 0 {
		return PrerequisiteNotMet
	}
	if int64(len(r.result.Emitted)) >= r.reserved {
		return TooManyEmittedTxn
	}
	r.spend(priceEmission + int(rlen)*priceHashByte)
	e, why := r.emission(r.bytes(rptr, rlen))
	if why != "" {
		if r.tracing() {
			r.log.Debug("hook emission refused", "account", r.call.Account.String(), "hook", r.call.Hash.String(), "reason", why)
		}
		return EmissionFailure
	}
	code := r.write(wptr, 32, e.ID[:])
	if code == 32 {
		r.result.Emitted = append(r.result.Emitted, e)
	}
	return code
}

// emission checks a transaction by the rules of emission. The second result says
// which one it breaks.
func (r *run) emission(blob []byte) (e Emission, why string) {
	tx, err := canonical(blob, 0)
	if err != nil {
		return e, err.Error()
	}
	all, err := parts(tx)
	if err != nil {
		return e, err.Error()
	}
	t := object(all)
	typ, ok := t.uint(field.TransactionType)
	if !ok {
		return e, "no TransactionType"
	}
	if typ >= uint64(xahau.TxEnableAmendment) && typ <= uint64(xahau.TxUNLReport) || typ == uint64(xahau.TxCron) {
		return e, "a pseudo-transaction"
	}
	if r.call.CanEmit != nil && !CanHook(xahau.TransactionType(typ), *r.call.CanEmit) {
		return e, "a type that the hook may not emit"
	}
	if account, ok := t.account(field.Account); !ok || account != r.call.Account {
		return e, "Account is not that of the hook"
	}
	if seq, ok := t.uint(field.Sequence); !ok || seq != 0 {
		return e, "Sequence is not 0"
	}
	key, ok := t.get(field.SigningPubKey)
	if !ok || len(key.body) != 0 && len(key.body) != 33 || !isZero(key.body) {
		return e, "SigningPubKey is not zero"
	}
	for _, f := range []struct {
		code field.Code
		name string
	}{{field.Signers, "Signers"}, {field.TicketSequence, "TicketSequence"}, {field.AccountTxnID, "AccountTxnID"}, {field.TxnSignature, "TxnSignature"}} {
		if t.has(f.code) {
			return e, f.name + " is not allowed"
		}
	}
	if e.Nonce, why = r.checkDetails(t); why != "" {
		return e, why
	}
	last, ok := t.uint(field.LastLedgerSequence)
	seq := uint64(r.c.Header.Seq)
	if !ok || last < seq+1 || last > seq+maxEmissionLedgers {
		return e, "LastLedgerSequence is not one of the next five ledgers"
	}
	if first, ok := t.uint(field.FirstLedgerSequence); !ok || first > last {
		return e, "FirstLedgerSequence is after LastLedgerSequence"
	}
	least, err := r.c.Ledger.Fee(tx)
	if err != nil {
		return e, err.Error()
	}
	if least < 0 {
		return e, "the fee cannot be calculated"
	}
	if fee, ok := t.drops(field.Fee); !ok || fee < least {
		return e, "Fee is too low"
	}
	if err := r.c.Ledger.Preflight(tx); err != nil {
		return e, err.Error()
	}
	e.ID = xahau.BlobID(tx)
	e.Tx = tx
	return e, ""
}

func (r *run) checkDetails(t object) (nonce xahau.Hash256, why string) {
	p, ok := t.get(field.EmitDetails)
	if !ok {
		return nonce, "no EmitDetails"
	}
	all, err := parts(p.value)
	if err != nil {
		return nonce, err.Error()
	}
	d := object(all)
	generation, hasGeneration := d.uint(field.EmitGeneration)
	burden, hasBurden := d.uint(field.EmitBurden)
	parent, hasParent := d.hash(field.EmitParentTxnID)
	nonce, hasNonce := d.hash(field.EmitNonce)
	hash, hasHash := d.hash(field.EmitHookHash)
	if !hasGeneration || !hasBurden || !hasParent || !hasNonce || !hasHash {
		return nonce, "EmitDetails are not complete"
	}
	want, code := r.burdenOut()
	callback, hasCallback := d.account(field.EmitCallback)
	switch {
	case generation >= maxGeneration:
		return nonce, "too many generations of emitted transactions"
	case generation != uint64(r.generation()+1):
		return nonce, "EmitGeneration is wrong"
	case code < 0 || burden != want:
		return nonce, "EmitBurden is wrong"
	case parent != r.c.Tx.id:
		return nonce, "EmitParentTxnID is wrong"
	case !r.nonces[nonce]:
		return nonce, "EmitNonce is not from etxn_nonce or etxn_details"
	case hasCallback && callback != r.call.Account:
		return nonce, "EmitCallback is not the account of the hook"
	case hash != r.call.Hash:
		return nonce, "EmitHookHash is not that of the hook"
	}
	return nonce, ""
}
