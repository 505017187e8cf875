package tx

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// maxSigners is how many sign a transaction, or are in a list, at most.
const maxSigners = 32

// preflight checks a transaction without looking at the ledger's state.
func (e *Engine) preflight(p *Prepared, l *view.Ledger) (ter.Code, error) {
	t := p.Tx
	if err := l.Defs.CheckTransaction(t); err != nil {
		return ter.TemMALFORMED, err
	}
	x, ok := e.Table[t.TransactionType()]
	if !ok {
		return ter.TemDISABLED, fmt.Errorf("%s is not in force", l.Defs.TransactionName(t.TransactionType()))
	}
	if x.Pseudo {
		return preflightPseudo(t, x, l)
	}
	if code, err := preflightNetwork(t, l); code != ter.TesSUCCESS {
		return code, err
	}
	if t.Account(field.Account).IsZero() {
		return ter.TemBAD_SRC_ACCOUNT, errors.New("transactions of the account of zeros are the servers'")
	}
	if fee := t.Amount(field.Fee); !fee.IsNative() || fee.Signum() < 0 || !legalNet(fee) {
		return ter.TemBAD_FEE, fmt.Errorf("fee %s", fee)
	}
	emitted := t.Has(field.EmitDetails)
	if emitted && !p.Emitted {
		return ter.TelNON_LOCAL_EMITTED_TXN, errors.New("the transaction was not emitted by a hook here")
	}
	if !emitted {
		if key := t.Blob(field.SigningPubKey); len(key) > 0 && !isKeyLike(key) {
			return ter.TemBAD_SIGNATURE, errors.New("SigningPubKey is not a public key")
		}
	}
	if _, ticket := sequenceOf(t); ticket && t.Has(field.AccountTxnID) {
		return ter.TemINVALID, errors.New("AccountTxnID cannot be used with a ticket")
	}
	if err := checkParameters(t); err != nil {
		return ter.TemMALFORMED, err
	}
	if t.Flags()&^(x.Flags|xahau.TfFullyCanonicalSig) != 0 {
		return ter.TemINVALID_FLAG, fmt.Errorf("flags %08X", t.Flags())
	}
	if x.Preflight != nil {
		if code := x.Preflight(t, l); code != ter.TesSUCCESS {
			return code, nil
		}
	}
	if emitted {
		return ter.TesSUCCESS, nil
	}
	if err := checkMemos(l.Defs, t); err != nil {
		return ter.TemINVALID, err
	}
	if len(t.Array(field.Signers)) > maxSigners {
		return ter.TemINVALID, fmt.Errorf("%d signers", len(t.Array(field.Signers)))
	}
	if err := l.Defs.CheckSignature(t); err != nil {
		return ter.TemINVALID, err
	}
	return ter.TesSUCCESS, nil
}

// PreflightEmitted checks a transaction that a hook wants to emit.
func (e *Engine) PreflightEmitted(t *xahau.Object, l *view.Ledger) (ter.Code, error) {
	return e.preflight(&Prepared{Tx: t, Emitted: true}, l)
}

func preflightNetwork(t *xahau.Object, l *view.Ledger) (ter.Code, error) {
	if t.Has(field.EmitDetails) {
		return ter.TesSUCCESS, nil
	}
	id, has := xahau.Lookup[xahau.Uint32](t, field.NetworkID)
	switch {
	case l.NetworkID <= 1024 && has:
		return ter.TelNETWORK_ID_MAKES_TX_NON_CANONICAL, fmt.Errorf("network %d takes no NetworkID", l.NetworkID)
	case l.NetworkID > 1024 && !has:
		return ter.TelREQUIRES_NETWORK_ID, fmt.Errorf("network %d requires NetworkID", l.NetworkID)
	case has && uint32(id) != l.NetworkID:
		return ter.TelWRONG_NETWORK, fmt.Errorf("NetworkID %d on network %d", id, l.NetworkID)
	}
	return ter.TesSUCCESS, nil
}

func preflightPseudo(t *xahau.Object, x Transactor, l *view.Ledger) (ter.Code, error) {
	switch {
	case !t.Account(field.Account).IsZero():
		return ter.TemBAD_SRC_ACCOUNT, errors.New("only servers make such a transaction")
	case t.Amount(field.Fee) != xahau.Drops(0):
		return ter.TemBAD_FEE, errors.New("servers pay no fee")
	case len(t.Blob(field.SigningPubKey)) > 0 || t.Has(field.TxnSignature) || t.Has(field.Signers):
		return ter.TemBAD_SIGNATURE, errors.New("servers do not sign")
	case t.Uint32(field.Sequence) != 0 || t.Has(field.PreviousTxnID):
		return ter.TemBAD_SEQUENCE, errors.New("servers have no sequence")
	}
	if x.Preflight != nil {
		return x.Preflight(t, l), nil
	}
	return ter.TesSUCCESS, nil
}

// publicKey gives a key by its form. Whether it is a point of the curve shows when
// the signature is checked; to find out costs a tenth of that.
func publicKey(b []byte) (xahau.PublicKey, bool) {
	if len(b) != xahau.PublicKeySize || b[0] != 2 && b[0] != 3 && b[0] != 0xED {
		return xahau.PublicKey{}, false
	}
	return xahau.PublicKey(b), true
}

// Bounds of the parameters of a transaction.
const (
	maxParameters     = 16
	maxParameterName  = 32
	maxParameterValue = 256
)

func checkParameters(t *xahau.Object) error {
	list := t.Array(field.HookParameters)
	if len(list) > maxParameters {
		return fmt.Errorf("%d hook parameters, at most %d are allowed", len(list), maxParameters)
	}
	seen := make(map[string]bool, len(list))
	for _, p := range list {
		if p.Field != field.HookParameter {
			return errors.New("the hook parameters contain something else")
		}
		name, value := p.Object.Blob(field.HookParameterName), p.Object.Blob(field.HookParameterValue)
		switch {
		case len(name) == 0 || len(name) > maxParameterName:
			return fmt.Errorf("hook parameter's name has %d bytes", len(name))
		case len(value) > maxParameterValue:
			return fmt.Errorf("hook parameter's value has %d bytes", len(value))
		case seen[string(name)]:
			return fmt.Errorf("hook parameter %X is there twice", name)
		}
		seen[string(name)] = true
	}
	return nil
}

// maxMemos is how long all memos of a transaction are at most, in binary form.
const maxMemos = 1024

func checkMemos(defs *xahau.Definitions, t *xahau.Object) error {
	memos := t.Array(field.Memos)
	if len(memos) == 0 {
		return nil
	}
	only := &xahau.Object{}
	only.Set(field.Memos, memos)
	b, err := defs.Encode(only)
	if err != nil {
		return err
	}
	if len(b)-2 > maxMemos {
		return fmt.Errorf("the memos have %d bytes, at most %d are allowed", len(b)-2, maxMemos)
	}
	for _, m := range memos {
		if m.Field != field.Memo {
			return errors.New("the memos contain something else")
		}
		for c, v := range m.Object.All() {
			b, ok := v.(xahau.Blob)
			if !ok {
				return errors.New("a memo contains something else")
			}
			if c == field.MemoData {
				continue
			}
			for _, x := range b {
				if !(x >= '0' && x <= '9' || x >= 'a' && x <= 'z' || x >= 'A' && x <= 'Z' || bytes.IndexByte([]byte("-._~:/?#[]@!$&'()*+,;=%"), x) >= 0) {
					return errors.New("MemoType and MemoFormat may only contain characters that are allowed in URLs")
				}
			}
		}
	}
	return nil
}

// preclaim checks a transaction against the ledger.
func (e *Engine) preclaim(c *Context, x Transactor) ter.Code {
	if !x.Pseudo {
		for _, check := range []func(*Context) ter.Code{checkSequence, checkPrior, e.checkFee, checkSigner} {
			if code := check(c); code != ter.TesSUCCESS {
				return code
			}
		}
	}
	if x.Preclaim == nil {
		return ter.TesSUCCESS
	}
	return x.Preclaim(c)
}

func checkSequence(c *Context) ter.Code {
	root := c.Root()
	if root == nil {
		return ter.TerNO_ACCOUNT
	}
	if c.Emitted {
		if !c.Tx.Has(field.FirstLedgerSequence) {
			return ter.TefINTERNAL
		}
		return ter.TesSUCCESS
	}
	if c.Tx.Has(field.FirstLedgerSequence) {
		return ter.TefINTERNAL
	}
	next := root.Uint32(field.Sequence)
	n, ticket := sequenceOf(c.Tx)
	switch {
	case !ticket && c.Tx.Has(field.TicketSequence):
		return ter.TemSEQ_AND_TICKET
	case !ticket && next < n:
		return ter.TerPRE_SEQ
	case !ticket && next > n:
		return ter.TefPAST_SEQ
	case ticket && next <= n:
		return ter.TerPRE_TICKET
	case ticket && !view.Exists(c.View, keylet.Ticket(c.Account, n)):
		return ter.TefNO_TICKET
	}
	return ter.TesSUCCESS
}

func checkPrior(c *Context) ter.Code {
	root := c.Root()
	if h, ok := xahau.Lookup[xahau.Hash256](c.Tx, field.AccountTxnID); ok && root.Hash(field.AccountTxnID) != h {
		return ter.TefWRONG_PRIOR
	}
	if last, ok := xahau.Lookup[xahau.Uint32](c.Tx, field.LastLedgerSequence); ok && c.View.Ledger().Seq > uint32(last) {
		return ter.TefMAX_LEDGER
	}
	return ter.TesSUCCESS
}

func (e *Engine) checkFee(c *Context) ter.Code {
	fee := c.Tx.Amount(field.Fee).Drops()
	if c.Open && !c.Emitted && fee < e.Fee(c.View, c.Tx) {
		return ter.TelINSUF_FEE_P
	}
	if fee == 0 {
		return ter.TesSUCCESS
	}
	if balance := c.Root().Amount(field.Balance).Drops(); balance < fee {
		if balance > 0 && !c.Open {
			return ter.TecINSUFF_FEE
		}
		return ter.TerINSUF_FEE_B
	}
	return ter.TesSUCCESS
}

// generalFee is (base + bytes of parameters and memos) × burden + signers × base +
// hooks (spec/ledger.md section 3).
func (e *Engine) generalFee(r view.Reader, t *xahau.Object) int64 {
	base := r.Ledger().Fees.Base
	size := 0
	for _, m := range t.Array(field.Memos) {
		for _, v := range m.Object.All() {
			if b, ok := v.(xahau.Blob); ok {
				size += len(b)
			}
		}
	}
	for _, p := range t.Array(field.HookParameters) {
		size += len(p.Object.Blob(field.HookParameterName)) + len(p.Object.Blob(field.HookParameterValue))
	}
	fee := base + int64(size)
	if d := t.Object(field.EmitDetails); d != nil {
		burden := max(d.Uint64(field.EmitBurden), 1)
		if fee > 0 && burden > uint64(xahau.MaxDrops/fee) {
			return xahau.MaxDrops
		}
		fee *= int64(burden)
	}
	fee += int64(len(t.Array(field.Signers))) * base
	if e.Hooks != nil {
		hooks := e.Hooks.Fee(r, t)
		if hooks > math.MaxInt64-fee {
			return xahau.MaxDrops
		}
		fee += hooks
	}
	return min(fee, xahau.MaxDrops)
}

func checkSigner(c *Context) ter.Code {
	if c.Emitted {
		return ter.TesSUCCESS
	}
	if len(c.Tx.Blob(field.SigningPubKey)) == 0 {
		return checkSigners(c)
	}
	key, ok := publicKey(c.Tx.Blob(field.SigningPubKey))
	if !ok {
		return ter.TefBAD_AUTH
	}
	signer, root := key.Account(), c.Root()
	if regular, ok := xahau.Lookup[xahau.AccountID](root, field.RegularKey); ok && regular == signer {
		return ter.TesSUCCESS
	}
	switch {
	case signer != c.Account:
		return ter.TefBAD_AUTH
	case root.Flags()&xahau.LsfDisableMaster != 0:
		return ter.TefMASTER_DISABLED
	}
	return ter.TesSUCCESS
}

// checkSigners checks the accounts that signed together; their signatures are
// checked already, and that they are in ascending order.
func checkSigners(c *Context) ter.Code {
	list := c.View.Read(keylet.SignerList(c.Account))
	if list == nil {
		return ter.TefNOT_MULTI_SIGNING
	}
	weights := make(map[xahau.AccountID]uint32)
	for _, s := range list.Array(field.SignerEntries) {
		weights[s.Object.Account(field.Account)] = uint32(s.Object.Uint16(field.SignerWeight))
	}
	sum := uint32(0)
	for _, s := range c.Tx.Array(field.Signers) {
		account := s.Object.Account(field.Account)
		weight, ok := weights[account]
		if !ok {
			return ter.TefBAD_SIGNATURE
		}
		key, ok := publicKey(s.Object.Blob(field.SigningPubKey))
		if !ok {
			return ter.TefBAD_SIGNATURE
		}
		root := c.View.Read(keylet.Account(account))
		switch signer := key.Account(); {
		case signer == account:
			// An account that is not in the ledger may sign, too.
			if root != nil && root.Flags()&xahau.LsfDisableMaster != 0 {
				return ter.TefMASTER_DISABLED
			}
		case root == nil:
			return ter.TefBAD_SIGNATURE
		default:
			if regular, ok := xahau.Lookup[xahau.AccountID](root, field.RegularKey); !ok || regular != signer {
				return ter.TefBAD_SIGNATURE
			}
		}
		sum += weight
	}
	if sum < list.Uint32(field.SignerQuorum) {
		return ter.TefBAD_QUORUM
	}
	return ter.TesSUCCESS
}

// signedWithMaster tells whether a transaction is signed with its account's master
// key alone.
func signedWithMaster(t *xahau.Object) bool {
	key, ok := publicKey(t.Blob(field.SigningPubKey))
	return ok && key.Account() == t.Account(field.Account)
}
