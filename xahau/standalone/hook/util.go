package hook

import (
	"bytes"
	"crypto/ed25519"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"evernode/xahau"
	"evernode/xahau/keylet"
)

// utilRaddr writes the address of an account.
func (r *run) utilRaddr(p []uint64) Code {
	wptr, wlen, rptr, rlen := lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3])
	if r.outside(wptr, wlen) || r.outside(rptr, rlen) {
		return OutOfBounds
	}
	if rlen != 20 {
		return InvalidArgument
	}
	address := xahau.AccountID(r.bytes(rptr, 20)).String()
	if int64(wlen) < int64(len(address)) {
		return TooSmall
	}
	r.spend(priceKeylet)
	return r.write(wptr, wlen, []byte(address))
}

// utilAccid writes the account of an address.
func (r *run) utilAccid(p []uint64) Code {
	wptr, wlen, rptr, rlen := lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3])
	if r.outside(wptr, wlen) || r.outside(rptr, rlen) {
		return OutOfBounds
	}
	if wlen < 20 {
		return TooSmall
	}
	if rlen > 49 {
		return TooBig
	}
	r.spend(priceKeylet)
	text, _, _ := bytes.Cut(r.bytes(rptr, rlen), []byte{0})
	id, err := xahau.ParseAddress(string(text))
	if err != nil {
		return InvalidArgument
	}
	return r.write(wptr, wlen, id[:])
}

// utilVerify checks a signature.
func (r *run) utilVerify(p []uint64) Code {
	dptr, dlen, sptr, slen, kptr, klen := lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3]), lo(p[4]), lo(p[5])
	if r.outside(dptr, dlen) || r.outside(sptr, slen) || r.outside(kptr, klen) {
		return OutOfBounds
	}
	if klen != 33 {
		return InvalidKey
	}
	if dlen == 0 || slen < 30 {
		return TooSmall
	}
	key := r.bytes(kptr, klen)
	if key[0] != 0xed && key[0] != 2 && key[0] != 3 {
		return InvalidKey
	}
	r.spend(priceVerify + int(dlen)*priceHashByte)
	if verify(key, r.bytes(dptr, dlen), r.bytes(sptr, slen)) {
		return 1
	}
	return 0
}

// verify accepts what the network accepts of hooks: unlike for transactions, an
// ECDSA signature may have the higher S.
func verify(key, data, signature []byte) bool {
	if key[0] == 0xed {
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(key[1:], data, signature)
	}
	public, err := secp256k1.ParsePubKey(key)
	if err != nil {
		return false
	}
	s, err := ecdsa.ParseDERSignature(signature)
	if err != nil {
		return false
	}
	h := xahau.Sha512Half(data)
	return s.Verify(h[:], public)
}

// utilSha512h writes the first half of SHA-512.
func (r *run) utilSha512h(p []uint64) Code {
	wptr, wlen, rptr, rlen := lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3])
	if wlen < 32 {
		return TooSmall
	}
	if r.outside(wptr, wlen) || r.outside(rptr, rlen) {
		return OutOfBounds
	}
	r.spend(int(rlen) * priceHashByte)
	h := xahau.Sha512Half(r.bytes(rptr, rlen))
	return r.write(wptr, 32, h[:])
}

// Types of keylets that util_keylet makes.
const (
	keyletHook           = 1
	keyletHookState      = 2
	keyletAccount        = 3
	keyletAmendments     = 4
	keyletChild          = 5
	keyletSkip           = 6
	keyletFees           = 7
	keyletNegativeUNL    = 8
	keyletLine           = 9
	keyletOffer          = 10
	keyletQuality        = 11
	keyletEmittedDir     = 12
	keyletSigners        = 14
	keyletCheck          = 15
	keyletDepositPreauth = 16
	keyletUnchecked      = 17
	keyletOwnerDir       = 18
	keyletPage           = 19
	keyletEscrow         = 20
	keyletPaychan        = 21
	keyletEmittedTxn     = 22
	keyletNFTOffer       = 23
	keyletHookDefinition = 24
	keyletHookStateDir   = 25
)

// Keylet types that stand for more than one type of entry.
const (
	entryAny   xahau.EntryType = 0
	entryChild xahau.EntryType = 0x1cd2
)

// utilKeylet writes where an entry stands. Its parameters are buffers and numbers,
// of which meaning depends on the type of keylet.
func (r *run) utilKeylet(p []uint64) Code {
	wptr, wlen, kind := lo(p[0]), lo(p[1]), lo(p[2])
	if r.outside(wptr, wlen) {
		return OutOfBounds
	}
	if wlen < keylet.Size {
		return TooSmall
	}
	r.spend(priceKeylet)
	var args [6]uint32
	for i := range args {
		args[i] = lo(p[3+i])
	}
	k, code := r.keylet(kind, args)
	if code < 0 {
		return code
	}
	b := k.Bytes()
	return r.write(wptr, keylet.Size, b[:])
}

func zero(args ...uint32) bool {
	for _, a := range args {
		if a != 0 {
			return false
		}
	}
	return true
}

func anyZero(args ...uint32) bool {
	for _, a := range args {
		if a == 0 {
			return true
		}
	}
	return false
}

// buffer reads a buffer that must have the given length.
func (r *run) buffer(ptr, length, want uint32) ([]byte, Code) {
	if r.outside(ptr, length) {
		return nil, OutOfBounds
	}
	if length != want {
		return nil, InvalidArgument
	}
	return r.bytes(ptr, length), 0
}

// sequence reads a number, or 32 bytes if length says so.
func (r *run) sequence(ptrOrNumber, length uint32) (keylet.Sequence, Code) {
	switch {
	case length == 0:
		return keylet.Seq(ptrOrNumber), 0
	case length != 32:
		return nil, InvalidArgument
	case r.outside(ptrOrNumber, 32):
		return nil, OutOfBounds
	}
	return keylet.Nonce(xahau.Hash256(r.bytes(ptrOrNumber, 32))), 0
}

func (r *run) keylet(kind uint32, args [6]uint32) (k keylet.Keylet, code Code) {
	a, b, c, d, e, f := args[0], args[1], args[2], args[3], args[4], args[5]
	refused := func(code Code) (keylet.Keylet, Code) { return keylet.Keylet{}, code }
	switch kind {
	case keyletQuality:
		if anyZero(a, b) || !zero(e, f) {
			return refused(InvalidArgument)
		}
		dir, code := r.buffer(a, b, keylet.Size)
		if code < 0 {
			return refused(code)
		}
		if dir[0] != 0 || xahau.EntryType(dir[1]) != xahau.EntryDirectoryNode {
			return refused(InvalidArgument)
		}
		book, err := keylet.FromBytes(dir)
		if err != nil {
			return refused(NoSuchKeylet)
		}
		return keylet.Quality(book, uint64(c)<<32+uint64(d)), 0

	case keyletHookDefinition, keyletChild, keyletEmittedTxn, keyletUnchecked:
		if anyZero(a, b) || !zero(c, d, e, f) {
			return refused(InvalidArgument)
		}
		b, code := r.buffer(a, b, 32)
		if code < 0 {
			return refused(code)
		}
		id := xahau.Hash256(b)
		switch kind {
		case keyletChild:
			return keylet.Keylet{Type: entryChild, Index: id}, 0
		case keyletEmittedTxn:
			return keylet.EmittedTxn(id), 0
		case keyletHookDefinition:
			return keylet.HookDefinition(id), 0
		}
		return keylet.Keylet{Type: entryAny, Index: id}, 0

	case keyletOwnerDir, keyletSigners, keyletAccount, keyletHook:
		if anyZero(a, b) || !zero(c, d, e, f) {
			return refused(InvalidArgument)
		}
		b, code := r.buffer(a, b, 20)
		if code < 0 {
			return refused(code)
		}
		id := xahau.AccountID(b)
		switch kind {
		case keyletHook:
			return keylet.Hook(id), 0
		case keyletSigners:
			return keylet.SignerList(id), 0
		case keyletOwnerDir:
			return keylet.OwnerDirectory(id), 0
		}
		return keylet.Account(id), 0

	case keyletOffer, keyletCheck, keyletEscrow, keyletNFTOffer:
		if anyZero(a, b) || !zero(e, f) {
			return refused(InvalidArgument)
		}
		b, code := r.buffer(a, b, 20)
		if code < 0 {
			return refused(code)
		}
		id := xahau.AccountID(b)
		seq, code := r.sequence(c, d)
		if code < 0 {
			return refused(code)
		}
		switch kind {
		case keyletCheck:
			return keylet.Check(id, seq), 0
		case keyletEscrow:
			return keylet.Escrow(id, seq), 0
		case keyletNFTOffer:
			return keylet.NFTokenOffer(id, seq), 0
		}
		return keylet.Offer(id, seq), 0

	case keyletPage:
		if anyZero(a, b) || !zero(e, f) {
			return refused(InvalidArgument)
		}
		b, code := r.buffer(a, b, 32)
		if code < 0 {
			return refused(code)
		}
		return keylet.Page(xahau.Hash256(b), uint64(c)<<32+uint64(d)), 0

	case keyletHookState:
		if anyZero(a, b, c, d, e, f) {
			return refused(InvalidArgument)
		}
		if r.outside(a, b) || r.outside(c, d) || r.outside(e, f) {
			return refused(OutOfBounds)
		}
		if b != 20 || d != 32 || f != 32 {
			return refused(InvalidArgument)
		}
		return keylet.HookState(xahau.AccountID(r.bytes(a, 20)), xahau.Hash256(r.bytes(c, 32)), xahau.Hash256(r.bytes(e, 32))), 0

	case keyletHookStateDir:
		if anyZero(a, b, c, d) || !zero(e, f) {
			return refused(InvalidArgument)
		}
		if r.outside(a, b) || r.outside(c, d) {
			return refused(OutOfBounds)
		}
		if b != 20 || d != 32 {
			return refused(InvalidArgument)
		}
		return keylet.HookStateDirectory(xahau.AccountID(r.bytes(a, 20)), xahau.Hash256(r.bytes(c, 32))), 0

	case keyletSkip:
		if !zero(c, d, e, f) || b > 1 {
			return refused(InvalidArgument)
		}
		if b == 0 {
			return keylet.SkipList(), 0
		}
		return keylet.SkipListOf(a), 0

	case keyletAmendments, keyletFees, keyletNegativeUNL, keyletEmittedDir:
		if !zero(a, b, c, d, e, f) {
			return refused(InvalidArgument)
		}
		switch kind {
		case keyletAmendments:
			return keylet.Amendments(), 0
		case keyletFees:
			return keylet.Fees(), 0
		case keyletNegativeUNL:
			return keylet.NegativeUNL(), 0
		}
		return keylet.EmittedDirectory(), 0

	case keyletLine:
		if anyZero(a, b, c, d, e, f) {
			return refused(InvalidArgument)
		}
		if r.outside(a, b) || r.outside(c, d) || r.outside(e, f) {
			return refused(OutOfBounds)
		}
		if b != 20 || d != 20 {
			return refused(InvalidArgument)
		}
		currency, ok := parseCurrency(r.bytes(e, f))
		if !ok {
			return refused(InvalidArgument)
		}
		return keylet.Line(xahau.AccountID(r.bytes(a, 20)), xahau.AccountID(r.bytes(c, 20)), currency), 0

	case keyletDepositPreauth:
		if anyZero(a, b, c, d) || !zero(e, f) {
			return refused(InvalidArgument)
		}
		if r.outside(a, b) || r.outside(c, d) {
			return refused(OutOfBounds)
		}
		if b != 20 || d != 20 {
			return refused(InvalidArgument)
		}
		return keylet.DepositPreauth(xahau.AccountID(r.bytes(a, 20)), xahau.AccountID(r.bytes(c, 20))), 0

	case keyletPaychan:
		if anyZero(a, b, c, d, e) {
			return refused(InvalidArgument)
		}
		if r.outside(a, b) || r.outside(c, d) {
			return refused(OutOfBounds)
		}
		if b != 20 || d != 20 {
			return refused(InvalidArgument)
		}
		seq, code := r.sequence(e, f)
		if code < 0 {
			return refused(code)
		}
		return keylet.PayChannel(xahau.AccountID(r.bytes(a, 20)), xahau.AccountID(r.bytes(c, 20)), seq), 0
	}
	return refused(InvalidArgument)
}

// parseCurrency reads a currency in full or by its three letters.
func parseCurrency(b []byte) (c xahau.Currency, ok bool) {
	switch len(b) {
	case 20:
		return xahau.Currency(b), true
	case 3:
		for _, x := range b {
			if (x < 'a' || x > 'z') && (x < 'A' || x > 'Z') && (x < '0' || x > '9') && bytes.IndexByte([]byte("?!@#$%^&*<>(){}[]|"), x) < 0 {
				return c, false
			}
		}
		copy(c[12:], b)
		return c, true
	}
	return c, false
}
