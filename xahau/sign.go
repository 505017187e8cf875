package xahau

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"evernode/xahau/field"
)

// TransactionID is the hash that names a signed transaction.
func (d *Definitions) TransactionID(tx *Object) (Hash256, error) {
	b, err := d.AppendBinary(bytes.Clone(PrefixTransaction[:]), tx)
	if err != nil {
		return Hash256{}, err
	}
	return Sha512Half(b), nil
}

// BlobID is the hash that names a transaction in binary form, provided that its
// fields are in canonical order.
func BlobID(blob []byte) Hash256 { return Sha512Half(PrefixTransaction[:], blob) }

// SigningData is what a single signature covers.
func (d *Definitions) SigningData(tx *Object) ([]byte, error) {
	return d.AppendSigning(bytes.Clone(PrefixSign[:]), tx)
}

// MultiSigningData is what the signature of one of several signers covers. tx
// must have an empty SigningPubKey.
func (d *Definitions) MultiSigningData(tx *Object, signer AccountID) ([]byte, error) {
	b, err := d.AppendSigning(bytes.Clone(PrefixMultiSign[:]), tx)
	if err != nil {
		return nil, err
	}
	return append(b, signer[:]...), nil
}

// Signed is a transaction ready to be submitted.
type Signed struct {
	Tx   *Object
	Blob []byte // binary form
	ID   Hash256
}

// Sign signs a transaction alone, with the account's master key or its regular
// key. tx is not changed.
func (d *Definitions) Sign(tx *Object, key Signer) (*Signed, error) {
	tx = tx.Clone()
	tx.Delete(field.Signers)
	tx.Delete(field.TxnSignature)
	public := key.Public()
	tx.Set(field.SigningPubKey, Blob(public[:]))
	data, err := d.SigningData(tx)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	signature, err := key.Sign(data)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	tx.Set(field.TxnSignature, Blob(signature))
	return d.signed(tx)
}

func (d *Definitions) signed(tx *Object) (*Signed, error) {
	blob, err := d.Encode(tx)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return &Signed{Tx: tx, Blob: blob, ID: BlobID(blob)}, nil
}

// MultiSign makes the signature of one of several signers: an element of Signers
// for Combine. account is the signer in the list, key its master or regular key.
func (d *Definitions) MultiSign(tx *Object, account AccountID, key Signer) (Element, error) {
	tx = tx.Clone()
	tx.Set(field.SigningPubKey, Blob{})
	data, err := d.MultiSigningData(tx, account)
	if err != nil {
		return Element{}, fmt.Errorf("sign for %s: %w", account, err)
	}
	signature, err := key.Sign(data)
	if err != nil {
		return Element{}, fmt.Errorf("sign for %s: %w", account, err)
	}
	public := key.Public()
	s := &Object{}
	s.Set(field.Account, account)
	s.Set(field.SigningPubKey, Blob(public[:]))
	s.Set(field.TxnSignature, Blob(signature))
	return Element{field.Signer, s}, nil
}

// Combine puts the signatures of several signers into a transaction, in the order
// the ledger demands. tx is not changed.
func (d *Definitions) Combine(tx *Object, signers ...Element) (*Signed, error) {
	tx = tx.Clone()
	tx.Delete(field.TxnSignature)
	tx.Set(field.SigningPubKey, Blob{})
	list := slices.Clone(Array(signers))
	account := func(e Element) AccountID { return e.Object.Account(field.Account) }
	for i, e := range list {
		if e.Field != field.Signer || e.Object == nil {
			return nil, fmt.Errorf("combine: element %d is not a signer", i)
		}
	}
	slices.SortFunc(list, func(a, b Element) int {
		x, y := account(a), account(b)
		return bytes.Compare(x[:], y[:])
	})
	for i := 1; i < len(list); i++ {
		if account(list[i]) == account(list[i-1]) {
			return nil, fmt.Errorf("combine: %s signed twice", account(list[i]))
		}
	}
	if len(list) == 0 {
		return nil, errors.New("combine: no signatures")
	}
	tx.Set(field.Signers, list)
	return d.signed(tx)
}

// Errors of CheckSignature.
var (
	ErrUnsigned     = errors.New("is not signed")
	ErrBadSignature = errors.New("has a wrong signature")
)

// CheckSignature checks the signatures that a transaction carries against the
// keys that it carries. Whether these keys may sign for the account only the
// ledger knows.
func (d *Definitions) CheckSignature(tx *Object) error {
	public := tx.Blob(field.SigningPubKey)
	if len(public) > 0 {
		if tx.Has(field.Signers) {
			return fmt.Errorf("transaction %w: it is signed both alone and by several", ErrBadSignature)
		}
		data, err := d.SigningData(tx)
		if err != nil {
			return err
		}
		return check(public, data, tx.Blob(field.TxnSignature))
	}
	signers := tx.Array(field.Signers)
	if len(signers) == 0 {
		return fmt.Errorf("transaction %w", ErrUnsigned)
	}
	if tx.Has(field.TxnSignature) {
		return fmt.Errorf("transaction %w: it is signed both alone and by several", ErrBadSignature)
	}
	data, err := d.AppendSigning(bytes.Clone(PrefixMultiSign[:]), tx)
	if err != nil {
		return err
	}
	var last AccountID
	for i, e := range signers {
		account := e.Object.Account(field.Account)
		if i > 0 && bytes.Compare(account[:], last[:]) <= 0 {
			return fmt.Errorf("transaction %w: the signers are not in ascending order", ErrBadSignature)
		}
		if account == tx.Account(field.Account) {
			return fmt.Errorf("transaction %w: the account is among its signers", ErrBadSignature)
		}
		last = account
		if err := check(e.Object.Blob(field.SigningPubKey), append(data[:len(data):len(data)], account[:]...), e.Object.Blob(field.TxnSignature)); err != nil {
			return fmt.Errorf("signer %s: %w", account, err)
		}
	}
	return nil
}

func check(public, data, signature []byte) error {
	key, err := PublicKeyFromBytes(public)
	if err != nil {
		return fmt.Errorf("transaction %w: %w", ErrBadSignature, err)
	}
	if !key.Verify(data, signature) {
		return fmt.Errorf("transaction %w", ErrBadSignature)
	}
	return nil
}

// ClaimData is what authorizes the claim of a payment channel in the native
// currency: sign it, or check the signature, with the channel's key.
func ClaimData(channel Hash256, amount Amount) ([]byte, error) {
	if !amount.IsNative() || amount.drops < 0 {
		return nil, fmt.Errorf("claim of %s: only native amounts above zero can be claimed so", amount)
	}
	b := append(bytes.Clone(PrefixClaim[:]), channel[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(amount.drops)), nil
}
