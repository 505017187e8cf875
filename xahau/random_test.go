package xahau

import (
	"math/rand/v2"
	"slices"
	"strings"

	"evernode/xahau/field"
	"evernode/xahau/xfl"
)

// random makes values of every type.
type random struct {
	*rand.Rand
	defs *Definitions
	// plain leaves out what the JavaScript codec cannot write: native amounts
	// below zero, names it does not have, < and > in currency codes.
	plain bool
}

func newRandom(seed uint64) *random {
	return &random{rand.New(rand.NewPCG(seed, 7)), DefaultDefinitions(), false}
}

func (r *random) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (r *random) account() (a AccountID) {
	copy(a[:], r.bytes(20))
	if r.IntN(10) == 0 {
		return AccountOne
	}
	return a
}

func (r *random) currency() (c Currency) {
	switch r.IntN(4) {
	case 0:
		copy(c[:], r.bytes(20))
		c[0] |= 2
	case 1:
		chars := currencyChars
		if r.plain {
			chars = strings.NewReplacer("<", "", ">", "").Replace(chars)
		}
		for i := range 3 {
			c[12+i] = chars[r.IntN(len(chars))]
		}
	default:
		copy(c[12:], []string{"EVR", "USD", "BTC", "eur"}[r.IntN(4)])
	}
	return c
}

func (r *random) issue() Issue {
	if r.IntN(3) == 0 {
		return Issue{}
	}
	return Issue{r.currency(), r.account()}
}

func (r *random) float() xfl.Float {
	if r.IntN(20) == 0 {
		return 0
	}
	m := xfl.MinMantissa + r.Uint64N(xfl.MaxMantissa-xfl.MinMantissa+1)
	if r.IntN(2) == 0 {
		m = (1 + r.Uint64N(9999)) * 1_000_000_000_000
		for m < xfl.MinMantissa {
			m *= 10
		}
	}
	e := xfl.MinExponent + r.IntN(xfl.MaxExponent-xfl.MinExponent+1)
	if r.IntN(2) == 0 {
		e = -25 + r.IntN(20)
	}
	f, err := xfl.New(m, e, r.IntN(4) == 0)
	if err != nil {
		panic(err)
	}
	return f
}

func (r *random) amount() Amount {
	if r.IntN(2) == 0 {
		n := r.Int64N(MaxDrops + 1)
		if r.IntN(2) == 0 {
			n = r.Int64N(1000)
		}
		if !r.plain && r.IntN(4) == 0 {
			n = -n
		}
		return Drops(n)
	}
	return Issued(r.float(), r.currency(), r.account())
}

func (r *random) blobLength() int {
	switch r.IntN(100) {
	case 0, 3, 4:
		return 0
	case 1, 5, 6:
		return 190 + r.IntN(8)
	case 2:
		return 12478 + r.IntN(6)
	}
	return r.IntN(300)
}

func (r *random) value(f *Field, depth int) Value {
	switch f.kind {
	case kindUint8:
		if f.Code == field.TransactionResult {
			return Uint8([]uint8{0, 100, 124, 153, 189}[r.IntN(5)])
		}
		return Uint8(r.Uint32())
	case kindUint16:
		switch f.Code {
		case field.TransactionType:
			types := r.defs.TransactionTypes()
			if r.plain {
				types = slices.DeleteFunc(types, func(t TransactionType) bool { return t == TxEnableAmendment || t == TxSetFee || t == TxUNLModify })
			}
			slices.Sort(types)
			return Uint16(types[r.IntN(len(types))])
		case field.LedgerEntryType:
			types := r.defs.EntryTypes()
			slices.Sort(types)
			return Uint16(types[r.IntN(len(types))])
		}
		return Uint16(r.Uint32())
	case kindUint32:
		return Uint32(r.Uint32())
	case kindUint64:
		return Uint64(r.Uint64() >> r.IntN(64))
	case kindHash128:
		return Hash128(r.bytes(16))
	case kindHash160:
		return Hash160(r.bytes(20))
	case kindHash256:
		return Hash256(r.bytes(32))
	case kindBits:
		return Bits(r.bytes(bitsWidth(f.Type)))
	case kindAmount:
		return r.amount()
	case kindBlob:
		return Blob(r.bytes(r.blobLength()))
	case kindAccount:
		return r.account()
	case kindVector:
		v := make(Vector, r.IntN(5))
		for i := range v {
			v[i] = Hash256(r.bytes(32))
		}
		return v
	case kindCurrency:
		return r.currency()
	case kindIssue:
		return r.issue()
	case kindBridge:
		return Bridge{r.account(), r.issue(), r.account(), r.issue()}
	case kindPathSet:
		set := make(PathSet, 1+r.IntN(3))
		for i := range set {
			set[i] = make(Path, 1+r.IntN(3))
			for j := range set[i] {
				s := PathStep{HasAccount: r.IntN(2) == 0}
				if s.HasAccount {
					s.Account = r.account()
				} else {
					s.HasCurrency, s.HasIssuer = true, r.IntN(2) == 0
					if s.Currency = r.currency(); !s.HasIssuer && r.IntN(2) == 0 {
						s.Currency = Currency{}
					}
					if s.HasIssuer {
						s.Issuer = r.account()
					}
				}
				set[i][j] = s
			}
		}
		return set
	case kindObject:
		if part := PartFormat(f.Code); part != nil {
			return r.format(part, depth+1)
		}
		return r.object(depth + 1)
	case kindArray:
		a := Array{}
		for range r.IntN(3) {
			inner := r.field(kindObject)
			a = append(a, Element{inner.Code, r.value(inner, depth+1).(*Object)})
		}
		return a
	}
	return nil
}

func (r *random) fields() []*Field {
	list := r.defs.Fields()
	slices.SortFunc(list, func(a, b *Field) int { return int(a.Code) - int(b.Code) })
	return slices.DeleteFunc(list, func(f *Field) bool {
		return !f.Serialized || f.kind == kindUnknown || f.Code == field.ObjectEndMarker || f.Code == field.ArrayEndMarker
	})
}

func (r *random) field(k kind) *Field {
	list := slices.DeleteFunc(r.fields(), func(f *Field) bool { return f.kind != k })
	return list[r.IntN(len(list))]
}

// object has any fields.
func (r *random) object(depth int) *Object {
	o := &Object{}
	list := r.fields()
	for range r.IntN(8) {
		f := list[r.IntN(len(list))]
		if depth > 2 && (f.kind == kindObject || f.kind == kindArray) {
			continue
		}
		o.Set(f.Code, r.value(f, depth))
	}
	return o
}

// format has the fields of a format.
func (r *random) format(f *Format, depth int) *Object {
	o := &Object{}
	for _, x := range f.Fields {
		if x.Presence != Required && (depth > 2 || r.IntN(3) > 0) {
			continue
		}
		def, ok := r.defs.FieldByCode(x.Field)
		if !ok {
			panic("undefined field in format")
		}
		v := r.value(def, depth)
		if a, ok := v.(Array); ok {
			v = r.array(x.Field, a, depth)
		}
		o.Set(x.Field, v)
	}
	return o
}

// array has elements of the field that belongs to it.
func (r *random) array(c field.Code, any Array, depth int) Array {
	inner, ok := map[field.Code]field.Code{
		field.Signers: field.Signer, field.SignerEntries: field.SignerEntry, field.Memos: field.Memo, field.Hooks: field.Hook,
		field.HookParameters: field.HookParameter, field.HookGrants: field.HookGrant, field.Amounts: field.AmountEntry,
		field.GenesisMints: field.GenesisMint, field.Remarks: field.Remark, field.Majorities: field.Majority,
		field.DisabledValidators: field.DisabledValidator, field.NFTokens: field.NFToken, field.ActiveValidators: field.ActiveValidator,
		field.ImportVLKeys: field.ImportVLKey,
	}[c]
	if !ok {
		return any
	}
	a := Array{}
	for range 1 + r.IntN(3) {
		a = append(a, Element{inner, r.format(PartFormat(inner), depth+2)})
	}
	return a
}

// transaction is a random transaction of a type.
func (r *random) transaction(t TransactionType) *Object {
	o := r.format(TransactionFormat(t), 0)
	o.Set(field.TransactionType, Uint16(t))
	return o
}

// ledgerEntry is a random ledger entry of a type.
func (r *random) ledgerEntry(t EntryType) *Object {
	o := r.format(EntryFormat(t), 0)
	o.Set(field.LedgerEntryType, Uint16(t))
	return o
}
