package xahau

import (
	"fmt"

	"evernode/xahau/field"
)

// NewTransaction makes a transaction of any type with the account that sends it.
// Fee, Sequence, LastLedgerSequence and NetworkID are for a client's Autofill.
func NewTransaction(t TransactionType, account AccountID) *Object {
	o := &Object{}
	o.Set(field.TransactionType, Uint16(t))
	o.Set(field.Account, account)
	return o
}

// Payment pays an amount to an account.
func Payment(from, to AccountID, amount Amount) *Object {
	o := NewTransaction(TxPayment, from)
	o.Set(field.Destination, to)
	o.Set(field.Amount, amount)
	return o
}

// TrustSet sets how much of an issuer's currency an account holds at most; the
// issuer is that of the limit.
func TrustSet(account AccountID, limit Amount, flags uint32) *Object {
	o := NewTransaction(TxTrustSet, account)
	o.Set(field.LimitAmount, limit)
	o.SetFlags(flags)
	return o
}

// AccountSet changes settings of an account, which the caller sets: SetFlag,
// ClearFlag, Domain, MessageKey, WalletLocator...
func AccountSet(account AccountID) *Object { return NewTransaction(TxAccountSet, account) }

// AccountDelete deletes an account; the rest of its balance goes to another.
func AccountDelete(account, to AccountID) *Object {
	o := NewTransaction(TxAccountDelete, account)
	o.Set(field.Destination, to)
	return o
}

// SetRegularKey gives an account a second key, or takes it away if key is nil.
func SetRegularKey(account AccountID, key *AccountID) *Object {
	o := NewTransaction(TxSetRegularKey, account)
	if key != nil {
		o.Set(field.RegularKey, *key)
	}
	return o
}

// SignerEntry is one who may sign for an account together with others.
type SignerEntry struct {
	Account AccountID
	Weight  uint16
}

// SignerListSet sets who may sign together for an account, or with quorum 0
// that nobody may.
func SignerListSet(account AccountID, quorum uint32, signers ...SignerEntry) *Object {
	o := NewTransaction(TxSignerListSet, account)
	o.Set(field.SignerQuorum, Uint32(quorum))
	var list Array
	for _, s := range signers {
		e := &Object{}
		e.Set(field.Account, s.Account)
		e.Set(field.SignerWeight, Uint16(s.Weight))
		list = append(list, Element{field.SignerEntry, e})
	}
	if list != nil {
		o.Set(field.SignerEntries, list)
	}
	return o
}

// TicketCreate sets sequence numbers aside for later use in any order.
func TicketCreate(account AccountID, count uint32) *Object {
	o := NewTransaction(TxTicketCreate, account)
	o.Set(field.TicketCount, Uint32(count))
	return o
}

// OfferCreate offers one amount for another on the exchange.
func OfferCreate(account AccountID, pays, gets Amount) *Object {
	o := NewTransaction(TxOfferCreate, account)
	o.Set(field.TakerPays, pays)
	o.Set(field.TakerGets, gets)
	return o
}

// OfferCancel withdraws the offer that the transaction with this sequence made.
func OfferCancel(account AccountID, sequence uint32) *Object {
	o := NewTransaction(TxOfferCancel, account)
	o.Set(field.OfferSequence, Uint32(sequence))
	return o
}

// CheckCreate lets an account draw up to an amount.
func CheckCreate(from, to AccountID, most Amount) *Object {
	o := NewTransaction(TxCheckCreate, from)
	o.Set(field.Destination, to)
	o.Set(field.SendMax, most)
	return o
}

// CheckCash draws an amount of a check.
func CheckCash(account AccountID, check Hash256, amount Amount) *Object {
	o := NewTransaction(TxCheckCash, account)
	o.Set(field.CheckID, check)
	o.Set(field.Amount, amount)
	return o
}

// CheckCancel withdraws a check.
func CheckCancel(account AccountID, check Hash256) *Object {
	o := NewTransaction(TxCheckCancel, account)
	o.Set(field.CheckID, check)
	return o
}

// URITokenMint makes a token; flags is TfBurnable or 0.
func URITokenMint(account AccountID, uri []byte, flags uint32) *Object {
	o := NewTransaction(TxURITokenMint, account)
	o.Set(field.URI, Blob(uri))
	o.SetFlags(flags)
	return o
}

// URITokenBurn destroys a token.
func URITokenBurn(account AccountID, token Hash256) *Object {
	return uriToken(TxURITokenBurn, account, token)
}

// URITokenBuy buys a token for exactly the amount it is offered for.
func URITokenBuy(account AccountID, token Hash256, amount Amount) *Object {
	o := uriToken(TxURITokenBuy, account, token)
	o.Set(field.Amount, amount)
	return o
}

// URITokenCreateSellOffer offers a token for an amount, to anybody or, if to is
// not nil, to one account.
func URITokenCreateSellOffer(account AccountID, token Hash256, amount Amount, to *AccountID) *Object {
	o := uriToken(TxURITokenCreateSellOffer, account, token)
	o.Set(field.Amount, amount)
	if to != nil {
		o.Set(field.Destination, *to)
	}
	return o
}

// URITokenCancelSellOffer withdraws the offer of a token.
func URITokenCancelSellOffer(account AccountID, token Hash256) *Object {
	return uriToken(TxURITokenCancelSellOffer, account, token)
}

func uriToken(t TransactionType, account AccountID, token Hash256) *Object {
	o := NewTransaction(t, account)
	o.Set(field.URITokenID, token)
	return o
}

// Invoke calls the hooks of an account with any bytes, which may be nil.
func Invoke(from, to AccountID, blob []byte) *Object {
	o := NewTransaction(TxInvoke, from)
	o.Set(field.Destination, to)
	if blob != nil {
		o.Set(field.Blob, Blob(blob))
	}
	return o
}

// SetHook changes an account's chain of hooks, element by element; a nil element
// leaves the hook at its place as it is.
func SetHook(account AccountID, hooks ...*Object) *Object {
	o := NewTransaction(TxSetHook, account)
	list := make(Array, len(hooks))
	for i, h := range hooks {
		if h == nil {
			h = &Object{}
		}
		list[i] = Element{field.Hook, h}
	}
	o.Set(field.Hooks, list)
	return o
}

// HookCreate is an element of SetHook that installs new code. A hook is called
// for the transaction types of on (see HookOn); flags is usually HsfOverride.
func HookCreate(wasm []byte, on, namespace Hash256, flags uint32) *Object {
	h := &Object{}
	h.Set(field.CreateCode, Blob(wasm))
	h.Set(field.HookOn, on)
	h.Set(field.HookNamespace, namespace)
	h.Set(field.HookApiVersion, Uint16(0))
	h.SetFlags(flags)
	return h
}

// HookInstall is an element of SetHook that installs code the ledger has already.
func HookInstall(hash Hash256, flags uint32) *Object {
	h := &Object{}
	h.Set(field.HookHash, hash)
	h.SetFlags(flags)
	return h
}

// HookDelete is an element of SetHook that removes the hook at its place.
func HookDelete() *Object {
	h := &Object{}
	h.Set(field.CreateCode, Blob{})
	h.SetFlags(HsfOverride)
	return h
}

// HookGrant is an entry of a hook's HookGrants: code that may change the hook's
// state, of any account or of one.
func HookGrant(hash Hash256, account *AccountID) Element {
	g := &Object{}
	g.Set(field.HookHash, hash)
	if account != nil {
		g.Set(field.Authorize, *account)
	}
	return Element{field.HookGrant, g}
}

// HookOn is the mask of the transaction types that a hook is called for. A bit
// is 0 for such a type, except SetHook's, which is 1 (spec/ledger.md section 3).
func HookOn(types ...TransactionType) (mask Hash256, err error) {
	for i := range mask {
		mask[i] = 0xff
	}
	mask[31-TxSetHook/8] &^= 1 << (TxSetHook % 8)
	for _, t := range types {
		if t > 255 {
			return Hash256{}, fmt.Errorf("transaction type %d cannot call hooks", t)
		}
		mask[31-t/8] ^= 1 << (t % 8)
	}
	return mask, nil
}

// FiresOn tells whether a hook with this mask is called for a transaction type.
func FiresOn(mask Hash256, t TransactionType) bool {
	if t > 255 {
		return false
	}
	bit := mask[31-t/8]>>(t%8)&1 == 1
	return bit == (t == TxSetHook)
}

// SetFlags sets Flags, or removes them if they are 0.
func (o *Object) SetFlags(flags uint32) {
	if flags == 0 {
		o.Delete(field.Flags)
		return
	}
	o.Set(field.Flags, Uint32(flags))
}

// appendTo adds an element to a list field.
func (o *Object) appendTo(list field.Code, e Element) {
	a := o.Array(list)
	o.Set(list, append(a[:len(a):len(a)], e))
}

// AddMemo adds a memo; parts that are nil are left out.
func (o *Object) AddMemo(typ, format, data []byte) {
	m := &Object{}
	for c, v := range map[field.Code][]byte{field.MemoType: typ, field.MemoFormat: format, field.MemoData: data} {
		if v != nil {
			m.Set(c, Blob(v))
		}
	}
	o.appendTo(field.Memos, Element{field.Memo, m})
}

// Memo is a memo of a transaction.
type Memo struct{ Type, Format, Data []byte }

// Memos gives a transaction's memos.
func (o *Object) Memos() []Memo {
	var list []Memo
	for _, e := range o.Array(field.Memos) {
		list = append(list, Memo{e.Object.Blob(field.MemoType), e.Object.Blob(field.MemoFormat), e.Object.Blob(field.MemoData)})
	}
	return list
}

// AddHookParameter adds a parameter to a transaction or to a hook that SetHook
// installs. A nil value, in SetHook, takes the parameter away.
func (o *Object) AddHookParameter(name, value []byte) {
	p := &Object{}
	p.Set(field.HookParameterName, Blob(name))
	if value != nil {
		p.Set(field.HookParameterValue, Blob(value))
	}
	o.appendTo(field.HookParameters, Element{field.HookParameter, p})
}

// HookParameter gives the value of the first parameter with a name.
func (o *Object) HookParameter(name []byte) ([]byte, bool) {
	for _, e := range o.Array(field.HookParameters) {
		if string(e.Object.Blob(field.HookParameterName)) == string(name) {
			return e.Object.Blob(field.HookParameterValue), true
		}
	}
	return nil, false
}
