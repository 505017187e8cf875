package hook

import (
	"evernode/xahau"
	"evernode/xahau/keylet"
)

func (r *run) feeBase([]uint64) Code        { return Code(r.c.Header.BaseFee) }
func (r *run) ledgerSeq([]uint64) Code      { return Code(r.c.Header.Seq) }
func (r *run) ledgerLastTime([]uint64) Code { return Code(r.c.Header.ParentCloseTime) }

func (r *run) ledgerLastHash(p []uint64) Code {
	ptr, length := lo(p[0]), lo(p[1])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if length < 32 {
		return TooSmall
	}
	return r.write(ptr, 32, r.c.Header.ParentHash[:])
}

// ledgerNonce writes a number that is the same on every server and new with every
// call.
func (r *run) ledgerNonce(p []uint64) Code {
	ptr, length := lo(p[0]), lo(p[1])
	if length < 32 {
		return TooSmall
	}
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if r.nonceCount > maxNonce {
		return TooManyNonces
	}
	r.spend(priceKeylet)
	h := &r.c.Header
	nonce := xahau.Sha512Half(xahau.PrefixHookNonce[:], be32(h.Seq), be32(h.ParentCloseTime), h.ParentHash[:],
		r.c.Tx.id[:], be16(r.nonceCount), r.call.Account[:])
	r.nonceCount++
	return r.write(ptr, 32, nonce[:])
}

// ledgerKeylet writes the first keylet of a range that is in the ledger.
func (r *run) ledgerKeylet(p []uint64) Code {
	wptr, wlen, lptr, llen, hptr, hlen := lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3]), lo(p[4]), lo(p[5])
	if r.outside(wptr, wlen) || r.outside(lptr, llen) || r.outside(hptr, hlen) {
		return OutOfBounds
	}
	if min(wlen, llen, hlen) < keylet.Size {
		return TooSmall
	}
	if max(wlen, llen, hlen) > keylet.Size {
		return TooBig
	}
	low, _ := keylet.FromBytes(r.bytes(lptr, llen))
	high, _ := keylet.FromBytes(r.bytes(hptr, hlen))
	if low.Type != high.Type {
		return DoesNotMatch
	}
	r.spend(priceLookup)
	found, ok, err := r.c.Ledger.Next(low.Index, high.Index)
	if err != nil {
		r.abort(err)
	}
	if !ok {
		return DoesntExist
	}
	b := keylet.Keylet{Type: low.Type, Index: found}.Bytes()
	return r.write(wptr, keylet.Size, b[:])
}
