package hook

import (
	"slices"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

func TestStakeholders(t *testing.T) {
	s := newScene(t, wasm(t, "hook_pos"))
	issuer, third := fill20(0x55), fill20(0x66)
	s.w.account(t, issuer, 1, 0)
	token := func(id byte, owner xahau.AccountID, flags uint32, to *xahau.AccountID) xahau.Hash256 {
		f := fields{field.LedgerEntryType: xahau.Uint16(xahau.EntryURIToken), field.Owner: owner, field.Issuer: issuer, field.Flags: xahau.Uint32(flags)}
		if to != nil {
			f[field.Destination] = *to
		}
		s.w.entries[fill32(id)] = encode(t, xahau.NewObject(f))
		return fill32(id)
	}
	owned, ownedBurnable := token(0xc0, own, 0, &third), token(0xc1, own, burnable, nil)
	issued := token(0xc2, issuer, burnable, nil)
	party := func(id byte, typ xahau.EntryType) xahau.Hash256 {
		s.w.entries[fill32(id)] = encode(t, xahau.NewObject(fields{field.LedgerEntryType: xahau.Uint16(typ), field.Account: own, field.Destination: third}))
		return fill32(id)
	}
	check, channel, escrow := party(0xd0, xahau.EntryCheck), party(0xd1, xahau.EntryPayChannel), party(0xd2, xahau.EntryEscrow)
	s.w.entries[keylet.Escrow(own, keylet.Seq(8)).Index] = s.w.entries[escrow]
	strong := func(a xahau.AccountID) Stakeholder { return Stakeholder{a, true} }
	weak := func(a xahau.AccountID) Stakeholder { return Stakeholder{a, false} }
	for _, c := range []struct {
		name string
		from xahau.AccountID
		typ  xahau.TransactionType
		f    fields
		want []Stakeholder
	}{
		{"payment", sender, xahau.TxPayment, fields{field.Destination: own}, []Stakeholder{strong(own)}},
		{"to oneself", own, xahau.TxPayment, fields{field.Destination: own}, nil},
		{"invoke", sender, xahau.TxInvoke, fields{}, nil},
		{"set", sender, xahau.TxAccountSet, fields{field.Destination: own}, nil},
		{"trust", sender, xahau.TxTrustSet, fields{field.LimitAmount: amount(t, "5")}, []Stakeholder{weak(foreign)}},
		{"key", sender, xahau.TxSetRegularKey, fields{field.RegularKey: third}, []Stakeholder{strong(third)}},
		{"no key", sender, xahau.TxSetRegularKey, fields{}, nil},
		{"signers", sender, xahau.TxSignerListSet, fields{field.SignerEntries: xahau.Array{
			element(field.SignerEntry, fields{field.Account: third}), element(field.SignerEntry, fields{field.Account: own}),
		}}, []Stakeholder{strong(third), strong(own)}},
		{"check by the payer", own, xahau.TxCheckCancel, fields{field.CheckID: check}, []Stakeholder{weak(third)}},
		{"check by the payee", third, xahau.TxCheckCash, fields{field.CheckID: check}, []Stakeholder{strong(own)}},
		{"no check", third, xahau.TxCheckCash, fields{field.CheckID: channel}, nil},
		{"channel", third, xahau.TxPaymentChannelClaim, fields{field.Channel: channel}, []Stakeholder{strong(own)}},
		{"finish", sender, xahau.TxEscrowFinish, fields{field.Owner: own, field.OfferSequence: xahau.Uint32(8)}, []Stakeholder{strong(own), strong(third)}},
		{"cancel", sender, xahau.TxEscrowCancel, fields{field.Owner: own, field.EscrowID: escrow}, []Stakeholder{strong(own), weak(third)}},
		{"mint", sender, xahau.TxURITokenMint, fields{field.Destination: own}, []Stakeholder{strong(own)}},
		{"burn by the owner", own, xahau.TxURITokenBurn, fields{field.URITokenID: owned}, []Stakeholder{weak(issuer)}},
		{"burn by the issuer", issuer, xahau.TxURITokenBurn, fields{field.URITokenID: owned}, []Stakeholder{weak(own)}},
		{"burn of one's own", issuer, xahau.TxURITokenBurn, fields{field.URITokenID: issued}, nil},
		{"buy", sender, xahau.TxURITokenBuy, fields{field.URITokenID: owned}, []Stakeholder{strong(own), weak(issuer)}},
		{"buy burnable", sender, xahau.TxURITokenBuy, fields{field.URITokenID: ownedBurnable}, []Stakeholder{strong(own), strong(issuer)}},
		{"sell", own, xahau.TxURITokenCreateSellOffer, fields{field.URITokenID: owned, field.Destination: third}, []Stakeholder{weak(issuer), strong(third)}},
		{"sell burnable to the issuer", own, xahau.TxURITokenCreateSellOffer, fields{field.URITokenID: ownedBurnable, field.Destination: issuer}, []Stakeholder{strong(issuer)}},
		{"do not sell", own, xahau.TxURITokenCancelSellOffer, fields{field.URITokenID: owned}, []Stakeholder{weak(third)}},
		{"no token", own, xahau.TxURITokenBuy, fields{field.URITokenID: fill32(1)}, nil},
		{"remit", sender, xahau.TxRemit, fields{field.Destination: third, field.Inform: foreign, field.URITokenIDs: xahau.Vector{ownedBurnable, issued, fill32(1)}},
			[]Stakeholder{strong(third), weak(foreign), strong(issuer)}},
	} {
		c.f[field.TransactionType], c.f[field.Account] = xahau.Uint16(c.typ), c.from
		got, err := Stakeholders(s.w, transaction(t, c.f))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestExecutionFee(t *testing.T) {
	s := newScene(t, wasm(t, "hook_pos"))
	first, call := s.define(t, wasm(t, "chain_first"), nil), s.define(t, wasm(t, "callback"), nil)
	s.install(t, own, fields{field.HookHash: first}, fields{field.HookHash: call})
	s.install(t, sender, fields{field.HookHash: call})
	a, _ := Check(wasm(t, "chain_first"))
	b, _ := Check(wasm(t, "callback"))
	fee := func(f fields) int64 {
		t.Helper()
		got, err := ExecutionFee(s.w, transaction(t, f))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got, want := fee(payment()), int64(a.HookFee+2*b.HookFee); got != want {
		t.Errorf("payment %d, want %d", got, want)
	}
	f := payment()
	f[field.EmitDetails] = xahau.NewObject(fields{field.EmitGeneration: xahau.Uint32(1), field.EmitBurden: xahau.Uint64(1),
		field.EmitParentTxnID: fill32(1), field.EmitNonce: fill32(2), field.EmitHookHash: call})
	if got, want := fee(f), int64(b.CbakFee+a.HookFee+b.HookFee); got != want {
		t.Errorf("emitted payment %d, want %d", got, want)
	}
	if got := fee(fields{field.TransactionType: xahau.Uint16(xahau.TxEmitFailure), field.Account: sender}); got != 0 {
		t.Errorf("failure %d", got)
	}
}
