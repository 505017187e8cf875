package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/standalone/chain"
	"evernode/xahau/ter"
)

// decode gives a transaction of a closed ledger and its metadata, with what it
// delivered, as servers show them.
func (s *Server) decode(t chain.Transaction) (shown, meta map[string]any, err error) {
	o, err := s.defs.Decode(t.Blob)
	if err != nil {
		return nil, nil, fmt.Errorf("transaction %X: %w", t.Hash, err)
	}
	m, err := s.defs.Decode(t.Meta)
	if err != nil {
		return nil, nil, fmt.Errorf("metadata of %X: %w", t.Hash, err)
	}
	return s.shown(o, m)
}

func (s *Server) shown(o, m *xahau.Object) (shown, meta map[string]any, err error) {
	if shown, err = s.defs.Map(o); err != nil {
		return nil, nil, err
	}
	if meta, err = s.defs.Map(m); err != nil {
		return nil, nil, err
	}
	if a, ok := delivered(o, m); ok {
		meta["delivered_amount"] = a
	}
	return shown, meta, nil
}

// delivered is what a transaction delivered; ok is false for those that deliver
// nothing.
func delivered(t, meta *xahau.Object) (any, bool) {
	switch t.TransactionType() {
	case xahau.TxPayment, xahau.TxCheckCash, xahau.TxAccountDelete:
	default:
		return nil, false
	}
	if ter.Code(meta.Uint8(field.TransactionResult)) != ter.TesSUCCESS {
		return nil, false
	}
	if a, ok := xahau.Lookup[xahau.Amount](meta, field.DeliveredAmount); ok {
		return a.JSON(), true
	}
	if a, ok := xahau.Lookup[xahau.Amount](t, field.Amount); ok {
		return a.JSON(), true
	}
	return "unavailable", true
}

// version2 changes a transaction to what version 2 of the API calls things.
func version2(t map[string]any) map[string]any {
	if t["TransactionType"] == "Payment" {
		if a, ok := t["Amount"]; ok {
			t["DeliverMax"] = a
			delete(t, "Amount")
		}
	}
	return t
}

// place is where a transaction stands.
type place struct {
	seq       uint32
	hash      chain.Hash
	closeTime uint32
}

func placeOf(c chain.Closed) place { return place{c.Header.Seq, c.Hash, c.Header.CloseTime} }

func (r *request) place(seq uint32) (place, error) {
	c, err := r.node().History().Ledger(seq)
	return placeOf(c), err
}

func txCommand(r *request) (map[string]any, error) {
	if !r.params.has("transaction") {
		if r.params.has("ctid") {
			return nil, errNotSupported.with("Transactions are found by their hash.")
		}
		return nil, errInvalidParams
	}
	s, err := r.params.text("transaction")
	if err != nil {
		return nil, err
	}
	id, err := xahau.ParseHash256(s)
	if err != nil {
		return nil, &Error{Name: "notImpl", Code: 74, Message: "Not implemented."}
	}
	binary, err := r.params.flag("binary")
	if err != nil {
		return nil, err
	}
	lo, err := r.params.number("min_ledger", -1)
	if err != nil {
		return nil, err
	}
	hi, err := r.params.number("max_ledger", -1)
	if err != nil {
		return nil, err
	}
	ranged := r.params.has("min_ledger") || r.params.has("max_ledger")
	if ranged {
		switch {
		case lo < 0 || hi < lo:
			return nil, errInvalidRange
		case hi-lo > 1000:
			return nil, errExcessiveRange
		}
	}
	// The range is looked at before the transaction: what becomes final in between
	// must not be reported as missing.
	first, last := r.node().First(), r.node().Validated().Header.Seq
	t, err := r.node().History().Transaction(chain.Hash(id))
	if errors.Is(err, chain.ErrNotFound) {
		if p := r.node().Pending(id); p != nil {
			shown, err := r.s.defs.Map(p.Tx)
			if err != nil {
				return nil, err
			}
			return r.showTx(shown, nil, id.String(), nil, binary, p.Blob, nil), nil
		}
		if !ranged {
			return nil, errTxnNotFound
		}
		return nil, errTxnNotFound.extra("searched_all", lo >= int64(first) && hi <= int64(last))
	}
	if err != nil {
		return nil, err
	}
	at, err := r.place(t.Ledger)
	if err != nil {
		return nil, err
	}
	shown, meta, err := r.s.decode(t)
	if err != nil {
		return nil, err
	}
	m := r.showTx(shown, meta, hex256(t.Hash), &at, binary, t.Blob, t.Meta)
	m["validated"] = t.Ledger <= r.node().Validated().Header.Seq
	return m, nil
}

// showTx gives a transaction as the tx request does; at is nil while it is in no
// closed ledger.
func (r *request) showTx(shown, meta map[string]any, hash string, at *place, binary bool, blob, metaBlob []byte) map[string]any {
	m := map[string]any{"validated": false}
	switch {
	case binary && r.version > 1:
		m["tx_blob"] = fmt.Sprintf("%X", blob)
		if meta != nil {
			m["meta_blob"] = fmt.Sprintf("%X", metaBlob)
		}
	case binary:
		m["tx"] = fmt.Sprintf("%X", blob)
		if meta != nil {
			m["meta"] = fmt.Sprintf("%X", metaBlob)
		}
	case r.version > 1:
		m["tx_json"] = version2(shown)
	default:
		for k, v := range shown {
			m[k] = v
		}
	}
	if meta != nil && !binary {
		m["meta"] = meta
	}
	m["hash"] = hash
	if at == nil {
		return m
	}
	m["ledger_index"] = at.seq
	if r.version > 1 {
		m["ledger_hash"], m["close_time_iso"] = hex256(at.hash), isoTime(at.closeTime)
		if !binary {
			shown["ledger_index"], shown["date"] = at.seq, at.closeTime
		}
		return m
	}
	m["inLedger"], m["date"] = at.seq, at.closeTime
	return m
}

// Bounds of the transactions of one answer to account_tx.
const (
	defaultTransactions = 200
	maxTransactions     = 400
)

func accountTx(r *request) (map[string]any, error) {
	a, err := r.params.account("account")
	if err != nil {
		return nil, err
	}
	var binary, forward bool
	if err := r.params.flags(map[string]*bool{"binary": &binary, "forward": &forward}); err != nil {
		return nil, err
	}
	limit, err := r.params.limit(1, defaultTransactions, maxTransactions)
	if err != nil {
		return nil, err
	}
	lo, hi, err := r.txRange()
	if err != nil {
		return nil, err
	}
	q := chain.Query{Account: chain.Account(a), Min: lo, Max: hi, Forward: forward, Limit: limit}
	if r.params.has("marker") {
		var marker struct{ Ledger, Seq *uint32 }
		if json.Unmarshal(r.params["marker"], &marker) != nil || marker.Ledger == nil || marker.Seq == nil {
			return nil, errInvalidParams.with("invalid marker. Provide ledger index via ledger field, and transaction sequence number via seq field")
		}
		q.After = &chain.Marker{Ledger: *marker.Ledger, Index: *marker.Seq}
	}
	txs, next, err := r.node().History().AccountTransactions(q)
	if err != nil {
		return nil, err
	}
	m := map[string]any{"account": a.String(), "ledger_index_min": lo, "ledger_index_max": hi, "limit": limit, "validated": true}
	if next != nil {
		m["marker"] = map[string]any{"ledger": next.Ledger, "seq": next.Index}
	}
	list := make([]any, 0, len(txs))
	var at place
	for _, t := range txs {
		if at.seq != t.Ledger {
			if at, err = r.place(t.Ledger); err != nil {
				return nil, err
			}
		}
		e, err := r.showAccountTx(t, at, binary)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	m["transactions"] = list
	return m, nil
}

func (r *request) showAccountTx(t chain.Transaction, at place, binary bool) (map[string]any, error) {
	m := map[string]any{"validated": true}
	if r.version > 1 {
		m["hash"], m["ledger_hash"], m["close_time_iso"], m["ledger_index"] = hex256(t.Hash), hex256(at.hash), isoTime(at.closeTime), at.seq
	}
	if binary {
		m["tx_blob"], m["ledger_index"] = fmt.Sprintf("%X", t.Blob), at.seq
		if r.version > 1 {
			m["meta_blob"] = fmt.Sprintf("%X", t.Meta)
		} else {
			m["meta"] = fmt.Sprintf("%X", t.Meta)
		}
		return m, nil
	}
	shown, meta, err := r.s.decode(t)
	if err != nil {
		return nil, err
	}
	shown["ledger_index"], shown["date"] = at.seq, at.closeTime
	m["meta"] = meta
	if r.version > 1 {
		m["tx_json"] = version2(shown)
		return m, nil
	}
	shown["hash"], shown["inLedger"] = hex256(t.Hash), at.seq
	m["tx"] = shown
	return m, nil
}

// txRange gives the ledgers that account_tx looks at.
func (r *request) txRange() (lo, hi uint32, err error) {
	first, last := r.node().First(), r.node().Validated().Header.Seq
	ranged := r.params.has("ledger_index_min") || r.params.has("ledger_index_max")
	single := r.params.has("ledger_index") || r.params.has("ledger_hash")
	if ranged && single && r.version > 1 {
		return 0, 0, errInvalidParams
	}
	if single && !ranged {
		l, err := r.ledger()
		if err != nil {
			return 0, 0, err
		}
		if l.current {
			return 0, 0, &Error{Name: "lgrNotValidated", Code: 22, Message: "Ledger not validated."}
		}
		return l.closed.Header.Seq, l.closed.Header.Seq, nil
	}
	from, err := r.params.number("ledger_index_min", -1)
	if err != nil {
		return 0, 0, err
	}
	to, err := r.params.number("ledger_index_max", -1)
	if err != nil {
		return 0, 0, err
	}
	lo, hi = first, last
	if from > int64(lo) {
		lo = uint32(min(from, 1<<32-1))
	}
	if to >= 0 && to < int64(hi) {
		hi = uint32(to)
	}
	if hi < lo {
		if r.version > 1 {
			return 0, 0, errInvalidRange
		}
		return 0, 0, errLgrIdxsInvalid
	}
	return lo, hi, nil
}

func refuseSigning(r *request) (map[string]any, error) {
	return nil, errNotSupported.with("Signing is not supported by this server.")
}

func submit(r *request) (map[string]any, error) {
	if !r.params.has("tx_blob") {
		if r.params.has("tx_json") || r.params.has("secret") || r.params.has("seed") || r.params.has("passphrase") {
			return refuseSigning(r)
		}
		return nil, missing("tx_blob")
	}
	// It changes nothing here, where nothing is relayed.
	if _, err := r.params.flag("fail_hard"); err != nil {
		return nil, err
	}
	blob, err := r.blob("tx_blob")
	if err != nil {
		return nil, err
	}
	return r.submit(blob)
}

func submitMultisigned(r *request) (map[string]any, error) {
	if !r.params.has("tx_json") {
		return nil, missing("tx_json")
	}
	t, err := r.s.defs.ParseServerJSON(r.params["tx_json"])
	if err != nil {
		return nil, errInvalidTx.extra("error_exception", err.Error())
	}
	switch {
	case !t.Has(field.Signers) || len(t.Array(field.Signers)) == 0:
		return nil, missing("tx_json.Signers")
	case !t.Has(field.Sequence):
		return nil, missing("tx_json.Sequence")
	case !t.Has(field.Fee):
		return nil, missing("tx_json.Fee")
	case !t.Has(field.SigningPubKey) || len(t.Blob(field.SigningPubKey)) > 0:
		return nil, errInvalidParams.with("When multi-signing 'SigningPubKey' must be empty.")
	case t.Has(field.TxnSignature):
		return nil, &Error{Name: "signingMalformed", Code: 63, Message: "Signing of transaction is malformed."}
	}
	signers := slices.Clone(t.Array(field.Signers))
	for _, s := range signers {
		if s.Field != field.Signer || s.Object == nil {
			return nil, errInvalidParams.with("Signers array may only contain Signer entries.")
		}
	}
	slices.SortFunc(signers, func(a, b xahau.Element) int {
		x, y := a.Object.Account(field.Account), b.Object.Account(field.Account)
		return bytes.Compare(x[:], y[:])
	})
	t.Set(field.Signers, signers)
	blob, err := r.s.defs.Encode(t)
	if err != nil {
		return nil, errInvalidTx.extra("error_exception", err.Error())
	}
	return r.submit(blob)
}

func (r *request) submit(blob []byte) (map[string]any, error) {
	s, err := r.node().Submit(r, blob)
	if err != nil {
		return nil, malformed(err)
	}
	shown, err := r.s.defs.Map(s.Tx.Tx)
	if err != nil {
		return nil, err
	}
	if s.Applied {
		r.s.propose(s)
	}
	if r.version > 1 {
		shown = version2(shown)
	}
	shown["hash"] = s.Tx.ID.String()
	return map[string]any{
		"accepted": s.Applied || s.Queued, "applied": s.Applied, "broadcast": s.Applied, "kept": s.Applied || s.Queued, "queued": s.Queued,
		"account_sequence_available": s.Next, "account_sequence_next": s.Next, "open_ledger_cost": "10",
		"engine_result": s.Result.String(), "engine_result_code": int(s.Result), "engine_result_message": resultMessage(s.Result, s.Reason),
		"tx_blob": fmt.Sprintf("%X", s.Tx.Blob), "tx_json": shown, "validated_ledger_index": s.Validated,
	}, nil
}

// messages are what servers say about the most frequent results.
var messages = map[ter.Code]string{
	ter.TesSUCCESS:             "The transaction was applied. Only final in a validated ledger.",
	ter.TefALREADY:             "The exact transaction was already in this ledger.",
	ter.TefPAST_SEQ:            "This sequence number has already passed.",
	ter.TefMAX_LEDGER:          "Ledger sequence too high.",
	ter.TefBAD_AUTH:            "Transaction's public key is not authorized.",
	ter.TefMASTER_DISABLED:     "Master key is disabled.",
	ter.TefNO_TICKET:           "Ticket is not in ledger.",
	ter.TerPRE_SEQ:             "Missing/inapplicable prior transaction.",
	ter.TerPRE_TICKET:          "Ticket is not yet in ledger.",
	ter.TerNO_ACCOUNT:          "The source account does not exist.",
	ter.TerINSUF_FEE_B:         "Account balance can't pay fee.",
	ter.TecPATH_DRY:            "Path could not send partial amount.",
	ter.TecUNFUNDED_PAYMENT:    "Insufficient XAH balance to send.",
	ter.TecNO_DST:              "Destination does not exist.",
	ter.TecNO_DST_INSUF_NATIVE: "Destination does not exist. Too little XAH sent to create it.",
	ter.TecNO_ENTRY:            "No matching entry found.",
	ter.TecHOOK_REJECTED:       "Rejected by hook on sending or receiving account.",
	ter.TelINSUF_FEE_P:         "Fee insufficient.",
	ter.TelWRONG_NETWORK:       "Transaction specifies a Network ID that differs from that of the local node.",
	ter.TelREQUIRES_NETWORK_ID: "Transactions submitted to this node/network must include a correct NetworkID field.",
	ter.TelCAN_NOT_QUEUE_FULL:  "Can not queue at this time: queue is full.",
}

// resultMessage says in words what a result means.
func resultMessage(c ter.Code, reason error) string {
	m, ok := messages[c]
	switch {
	case ok:
	case c.IsClaimed():
		m = "Claimed fee only. Only final in a validated ledger."
	case c.IsRetry():
		m = "Retry: a later ledger may take the transaction."
	case c.IsFailure():
		m = "Failed: this ledger's state does not let the transaction in."
	case c.IsMalformed():
		m = "Malformed: no ledger would take the transaction."
	case c.IsLocal():
		m = "Local failure: this server does not take the transaction."
	default:
		m = c.String()
	}
	if reason != nil {
		m += " (" + reason.Error() + ")"
	}
	return m
}
