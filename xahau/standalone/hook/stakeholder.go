package hook

import (
	"math"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

// Stakeholder is an account, other than that of the transaction, whose hooks run
// for a transaction: strong ones before it is applied, weak ones after.
type Stakeholder struct {
	Account xahau.AccountID
	Strong  bool
}

// burnable on a token lets its issuer burn it wherever it is.
const burnable = 1

type stakeholders struct {
	l    Ledger
	tx   *Transaction
	list []Stakeholder
}

func (s *stakeholders) add(account xahau.AccountID, strong bool) {
	if account == s.tx.account {
		return
	}
	for i := range s.list {
		if s.list[i].Account == account {
			s.list[i].Strong = s.list[i].Strong || strong
			return
		}
	}
	s.list = append(s.list, Stakeholder{account, strong})
}

// addField adds the account that a field of the transaction names.
func (s *stakeholders) addField(code field.Code, strong bool) {
	if a, ok := s.tx.fields.account(code); ok {
		s.add(a, strong)
	}
}

// entry reads an entry of a type; nil if there is none.
func (s *stakeholders) entry(index xahau.Hash256, t xahau.EntryType) (object, error) {
	b, err := s.l.Entry(index)
	if err != nil || b == nil || !isEntryOf(b, t) {
		return nil, err
	}
	return parts(b)
}

func (s *stakeholders) entryOf(code field.Code, t xahau.EntryType) (object, error) {
	index, ok := s.tx.fields.hash(code)
	if !ok {
		return nil, nil
	}
	return s.entry(index, t)
}

func (s *stakeholders) exists(account xahau.AccountID) (bool, error) {
	b, err := s.l.Entry(keylet.Account(account).Index)
	return b != nil, err
}

// Stakeholders gives the stakeholders of a transaction in the order in which their
// hooks run, by the ledger before it is applied. The weak stakeholders that a
// payment through order books or an offer adds are for the transactor to find.
// Types of transactions about tokens of the older kind have none here.
func Stakeholders(l Ledger, tx *Transaction) ([]Stakeholder, error) {
	s := &stakeholders{l: l, tx: tx}
	err := s.find()
	return s.list, err
}

func (s *stakeholders) find() error {
	switch s.tx.typ {
	case xahau.TxPayment, xahau.TxEscrowCreate, xahau.TxCheckCreate, xahau.TxAccountDelete, xahau.TxPaymentChannelCreate, xahau.TxInvoke:
		s.addField(field.Destination, true)
	case xahau.TxSetRegularKey:
		s.addField(field.RegularKey, true)
	case xahau.TxDepositPreauth:
		s.addField(field.Authorize, true)
	case xahau.TxClaimReward:
		s.addField(field.Issuer, true)
	case xahau.TxImport:
		s.addField(field.Issuer, false)
	case xahau.TxCron:
		s.addField(field.Owner, false)
	case xahau.TxTrustSet:
		s.addIssuer(field.LimitAmount)
	case xahau.TxClawback:
		s.addIssuer(field.Amount)
	case xahau.TxSignerListSet:
		s.addItems(field.SignerEntries, field.Account, true)
	case xahau.TxGenesisMint:
		s.addItems(field.GenesisMints, field.Destination, false)
	case xahau.TxEscrowCancel, xahau.TxEscrowFinish:
		return s.escrow()
	case xahau.TxPaymentChannelFund, xahau.TxPaymentChannelClaim:
		return s.twoParties(field.Channel, xahau.EntryPayChannel)
	case xahau.TxCheckCash, xahau.TxCheckCancel:
		return s.twoParties(field.CheckID, xahau.EntryCheck)
	case xahau.TxURITokenMint:
		s.addField(field.Destination, true)
	case xahau.TxURITokenBurn, xahau.TxURITokenBuy, xahau.TxURITokenCreateSellOffer, xahau.TxURITokenCancelSellOffer:
		return s.token()
	case xahau.TxRemit:
		return s.remit()
	}
	return nil
}

// addIssuer adds the issuer of an issued amount, weakly.
func (s *stakeholders) addIssuer(code field.Code) {
	if p, ok := s.tx.fields.get(code); ok && len(p.body) == 48 {
		s.add(xahau.AccountID(p.body[28:]), false)
	}
}

func (s *stakeholders) addItems(array, code field.Code, strong bool) {
	p, ok := s.tx.fields.get(array)
	if !ok {
		return
	}
	for _, o := range hookObjects(p.value) {
		if a, ok := o.account(code); ok {
			s.add(a, strong)
		}
	}
}

// twoParties adds the one who made an entry, strongly, and the one it is for.
func (s *stakeholders) twoParties(code field.Code, t xahau.EntryType) error {
	e, err := s.entryOf(code, t)
	if err != nil || e == nil {
		return err
	}
	from, _ := e.account(field.Account)
	to, _ := e.account(field.Destination)
	s.add(from, true)
	s.add(to, false)
	return nil
}

func (s *stakeholders) escrow() error {
	owner, ok := s.tx.fields.account(field.Owner)
	if !ok {
		return nil
	}
	var e object
	var err error
	if seq, ok := s.tx.fields.uint(field.OfferSequence); ok {
		e, err = s.entry(keylet.Escrow(owner, keylet.Seq(uint32(seq))).Index, xahau.EntryEscrow)
	} else {
		e, err = s.entryOf(field.EscrowID, xahau.EntryEscrow)
	}
	if err != nil || e == nil {
		return err
	}
	from, _ := e.account(field.Account)
	to, _ := e.account(field.Destination)
	s.add(from, true)
	if from != to {
		s.add(to, s.tx.typ == xahau.TxEscrowFinish)
	}
	return nil
}

// token adds who has to do with a token that is sold, bought or burned.
func (s *stakeholders) token() error {
	e, err := s.entryOf(field.URITokenID, xahau.EntryURIToken)
	if err != nil || e == nil {
		return err
	}
	owner, _ := e.account(field.Owner)
	issuer, _ := e.account(field.Issuer)
	flags, _ := e.uint(field.Flags)
	strongIssuer := flags&burnable != 0
	switch s.tx.typ {
	case xahau.TxURITokenBurn:
		if issuer == owner {
			return nil
		}
		if s.tx.account == owner {
			ok, err := s.exists(issuer)
			if err != nil {
				return err
			}
			if ok {
				s.add(issuer, false)
				return nil
			}
		}
		ok, err := s.exists(owner)
		if err != nil {
			return err
		}
		if ok {
			s.add(owner, false)
		}
	case xahau.TxURITokenBuy:
		s.add(owner, true)
		if issuer != owner {
			s.add(issuer, strongIssuer)
		}
	case xahau.TxURITokenCreateSellOffer:
		if issuer != owner {
			s.add(issuer, strongIssuer)
		}
		s.addField(field.Destination, true)
	case xahau.TxURITokenCancelSellOffer:
		if to, ok := e.account(field.Destination); ok {
			s.add(to, false)
		}
	}
	return nil
}

func (s *stakeholders) remit() error {
	to, _ := s.tx.fields.account(field.Destination)
	s.addField(field.Destination, true)
	if inform, ok := s.tx.fields.account(field.Inform); ok && inform != to {
		s.add(inform, false)
	}
	ids, _ := s.tx.fields.get(field.URITokenIDs)
	for b := ids.body; len(b) >= 32; b = b[32:] {
		e, err := s.entry(xahau.Hash256(b[:32]), xahau.EntryURIToken)
		if err != nil {
			return err
		}
		owner, _ := e.account(field.Owner)
		issuer, ok := e.account(field.Issuer)
		flags, _ := e.uint(field.Flags)
		if ok && issuer != owner && issuer != to {
			s.add(issuer, flags&burnable != 0)
		}
	}
	return nil
}

// ExecutionFee is what the hooks that run for a transaction add to its fee, in
// drops: those of its account, or the callback if a hook emitted it, and those of
// strong stakeholders. Weak ones pay for themselves.
func ExecutionFee(l Ledger, tx *Transaction) (int64, error) {
	if tx.typ == xahau.TxEmitFailure {
		return 0, nil
	}
	var fee int64
	var err error
	if tx.Emitted() {
		hash, _ := tx.emit.hash(field.EmitHookHash)
		fee, err = CallbackFee(l, hash)
	} else {
		fee, err = ChainFee(l, tx.account, tx.typ, true, false)
	}
	if err != nil {
		return 0, err
	}
	all, err := Stakeholders(l, tx)
	if err != nil {
		return 0, err
	}
	for _, s := range all {
		if !s.Strong {
			continue
		}
		add, err := ChainFee(l, s.Account, tx.typ, false, false)
		if err != nil {
			return 0, err
		}
		if fee > math.MaxInt64-add {
			return math.MaxInt64, nil
		}
		fee += add
	}
	return fee, nil
}
