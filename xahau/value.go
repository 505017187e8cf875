package xahau

import "evernode/xahau/field"

// Value is the value of a field: one of the types of this package that say so.
type Value interface{ kind() kind }

// kind is the form of a value.
type kind uint8

const (
	kindUnknown kind = iota
	kindUint8
	kindUint16
	kindUint32
	kindUint64
	kindHash128
	kindHash160
	kindHash256
	kindBits // the widths without a Go type of their own
	kindAmount
	kindBlob
	kindAccount
	kindObject
	kindArray
	kindPathSet
	kindVector
	kindIssue
	kindCurrency
	kindBridge
)

var kinds = map[string]kind{
	"UInt8": kindUint8, "UInt16": kindUint16, "UInt32": kindUint32, "UInt64": kindUint64,
	"Hash128": kindHash128, "Hash160": kindHash160, "Hash256": kindHash256,
	"UInt96": kindBits, "Hash192": kindBits, "UInt192": kindBits, "UInt384": kindBits, "Hash384": kindBits,
	"UInt512": kindBits, "Hash512": kindBits,
	"Amount": kindAmount, "Blob": kindBlob, "AccountID": kindAccount, "STObject": kindObject, "STArray": kindArray,
	"PathSet": kindPathSet, "Vector256": kindVector, "Issue": kindIssue, "Currency": kindCurrency, "XChainBridge": kindBridge,
}

func kindOf(typ string) kind { return kinds[typ] }

// bitsWidth is the width in bytes of the types of kindBits.
func bitsWidth(typ string) int {
	switch typ {
	case "UInt96":
		return 12
	case "Hash192", "UInt192":
		return 24
	case "Hash384", "UInt384":
		return 48
	}
	return 64
}

// The values that Go has types for already.
type (
	Uint8  uint8
	Uint16 uint16
	Uint32 uint32
	Uint64 uint64
	// Blob is bytes of any number; hex in JSON.
	Blob []byte
	// Bits is a number or hash of 12, 24, 48 or 64 bytes.
	Bits []byte
	// Vector is a list of hashes.
	Vector []Hash256
)

// NoAccount is an account field that is there but empty, as in some transactions
// that validators make. It is "" in JSON.
type NoAccount struct{}

// Array is a list of objects, each under a field of its own, such as Memos of
// which each element is a Memo.
type Array []Element

// Element is one object of an Array.
type Element struct {
	Field  field.Code
	Object *Object
}

// Issue is a currency and who issues it; the zero Issue is the native currency.
type Issue struct {
	Currency Currency
	Issuer   AccountID
}

// IsNative tells whether this is the native currency.
func (i Issue) IsNative() bool { return i.Currency.IsNative() }

// Bridge is the two ends of a cross-chain bridge.
type Bridge struct {
	LockingDoor  AccountID
	LockingIssue Issue
	IssuingDoor  AccountID
	IssuingIssue Issue
}

// PathSet is the paths of a payment, Path the steps of one.
type (
	PathSet []Path
	Path    []PathStep
)

// PathStep leads on to an account, or to an order book with another currency,
// issuer or both.
type PathStep struct {
	Account                            AccountID
	Currency                           Currency
	Issuer                             AccountID
	HasAccount, HasCurrency, HasIssuer bool
}

func (Uint8) kind() kind     { return kindUint8 }
func (Uint16) kind() kind    { return kindUint16 }
func (Uint32) kind() kind    { return kindUint32 }
func (Uint64) kind() kind    { return kindUint64 }
func (Hash128) kind() kind   { return kindHash128 }
func (Hash160) kind() kind   { return kindHash160 }
func (Hash256) kind() kind   { return kindHash256 }
func (Bits) kind() kind      { return kindBits }
func (Amount) kind() kind    { return kindAmount }
func (Blob) kind() kind      { return kindBlob }
func (AccountID) kind() kind { return kindAccount }
func (NoAccount) kind() kind { return kindAccount }
func (*Object) kind() kind   { return kindObject }
func (Array) kind() kind     { return kindArray }
func (PathSet) kind() kind   { return kindPathSet }
func (Vector) kind() kind    { return kindVector }
func (Issue) kind() kind     { return kindIssue }
func (Currency) kind() kind  { return kindCurrency }
func (Bridge) kind() kind    { return kindBridge }
