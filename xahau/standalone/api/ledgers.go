package api

import (
	"fmt"
	"strings"
	"time"

	"evernode/xahau"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/chain"
	"evernode/xahau/standalone/shamap"
	"evernode/xahau/standalone/view"
)

func ledgerClosed(r *request) (map[string]any, error) {
	c := r.node().Validated()
	return map[string]any{"ledger_hash": hex256(c.Hash), "ledger_index": c.Header.Seq}, nil
}

func ledgerCurrent(r *request) (map[string]any, error) {
	return map[string]any{"ledger_current_index": r.node().Validated().Header.Seq + 1}, nil
}

// isoTime is a close time as servers write it.
func isoTime(seconds uint32) string { return xahau.Time(seconds).UTC().Format(time.RFC3339) }

// showHeader gives a closed ledger's header as servers do.
func (r *request) showHeader(c chain.Closed) map[string]any {
	h := c.Header
	m := map[string]any{
		"account_hash": hex256(h.AccountHash), "close_flags": h.CloseFlags, "close_time": h.CloseTime,
		"close_time_human": xahau.Time(h.CloseTime).UTC().Format("2006-Jan-02 15:04:05.000000000 UTC"), "close_time_iso": isoTime(h.CloseTime),
		"close_time_resolution": h.CloseResolution, "closed": true, "ledger_hash": hex256(c.Hash),
		"parent_close_time": h.ParentCloseTime, "parent_hash": hex256(h.ParentHash), "total_coins": fmt.Sprint(h.Drops),
		"transaction_hash": hex256(h.TxHash), "ledger_index": h.Seq,
	}
	if r.version == 1 {
		m["ledger_index"], m["seqNum"], m["hash"], m["totalCoins"], m["accepted"] = fmt.Sprint(h.Seq), fmt.Sprint(h.Seq), m["ledger_hash"], m["total_coins"], true
	}
	return m
}

func ledgerCommand(r *request) (map[string]any, error) {
	var full, accounts, transactions, expand, binary, funds, queue bool
	err := r.params.flags(map[string]*bool{"full": &full, "accounts": &accounts, "transactions": &transactions, "expand": &expand,
		"binary": &binary, "owner_funds": &funds, "queue": &queue})
	if err != nil {
		return nil, err
	}
	if full || accounts {
		return nil, errNoPermission.with("Use ledger_data to read a whole state.")
	}
	l, err := r.ledgerOr("validated")
	if err != nil {
		return nil, err
	}
	m := r.answer(l)
	if l.current {
		c := r.node().Validated()
		show := map[string]any{"closed": false, "ledger_index": c.Header.Seq + 1, "parent_hash": hex256(c.Hash)}
		if r.version == 1 {
			show["ledger_index"], show["seqNum"] = fmt.Sprint(c.Header.Seq+1), fmt.Sprint(c.Header.Seq+1)
		}
		if transactions {
			list := []any{}
			for _, p := range r.node().OpenLedger() {
				switch {
				case !expand:
					list = append(list, p.ID.String())
				case binary:
					list = append(list, map[string]any{"tx_blob": fmt.Sprintf("%X", p.Blob)})
				default:
					t, err := r.s.defs.Map(p.Tx)
					if err != nil {
						return nil, err
					}
					list = append(list, r.listed(t, p.ID.String(), nil))
				}
			}
			show["transactions"] = list
		}
		m["ledger"] = show
		return m, nil
	}
	show := r.showHeader(l.closed)
	if binary {
		show = map[string]any{"closed": true, "ledger_data": fmt.Sprintf("%X", l.closed.Header.Append(nil))}
	}
	if transactions {
		if show["transactions"], err = r.ledgerTransactions(l.closed, expand, binary); err != nil {
			return nil, err
		}
	}
	m["ledger"] = show
	return m, nil
}

func (r *request) ledgerTransactions(c chain.Closed, expand, binary bool) ([]any, error) {
	txs, err := r.node().History().Transactions(c.Header.Seq)
	if err != nil {
		return nil, err
	}
	list := make([]any, 0, len(txs))
	for _, t := range txs {
		switch {
		case !expand:
			list = append(list, hex256(t.Hash))
		case binary && r.version > 1:
			list = append(list, map[string]any{"tx_blob": fmt.Sprintf("%X", t.Blob), "meta_blob": fmt.Sprintf("%X", t.Meta), "hash": hex256(t.Hash)})
		case binary:
			list = append(list, map[string]any{"tx_blob": fmt.Sprintf("%X", t.Blob), "meta": fmt.Sprintf("%X", t.Meta)})
		default:
			shown, meta, err := r.s.decode(t)
			if err != nil {
				return nil, err
			}
			list = append(list, r.listed(shown, hex256(t.Hash), meta))
		}
	}
	return list, nil
}

// listed gives a transaction as ledgers show it.
func (r *request) listed(t map[string]any, hash string, meta map[string]any) map[string]any {
	if r.version == 1 {
		t["hash"] = hash
		if meta != nil {
			t["metaData"] = meta
		}
		return t
	}
	m := map[string]any{"tx_json": version2(t), "hash": hash}
	if meta != nil {
		m["meta"] = meta
	}
	return m
}

// Bounds of the entries of one answer to ledger_data.
const (
	maxEntries       = 256
	maxBinaryEntries = 2048
)

func ledgerData(r *request) (map[string]any, error) {
	binary, err := r.params.flag("binary")
	if err != nil {
		return nil, err
	}
	most := maxEntries
	if binary {
		most = maxBinaryEntries
	}
	limit, err := r.params.limit(1, most, most)
	if err != nil {
		return nil, err
	}
	want, err := r.entryType()
	if err != nil {
		return nil, err
	}
	var from xahau.Hash256
	if r.params.has("marker") {
		if from, err = r.params.hash("marker"); err != nil {
			return nil, err
		}
	}
	l, err := r.ledgerOr("validated")
	if err != nil {
		return nil, err
	}
	if l.current {
		// The open ledger has no tree to walk.
		l = ledger{closed: r.node().Validated()}
	}
	_, state, err := r.node().State(l.closed)
	if err != nil {
		return nil, errLgrNotFound.with("The state of this ledger is not kept any more.")
	}
	m := r.answer(l)
	if !r.params.has("marker") {
		m["ledger"] = r.showHeader(l.closed)
	}
	list := []any{}
	last, seen := shamap.Key(from), 0
	for e, err := range state.From(nextKey(from, r.params.has("marker"))) {
		if err != nil {
			return nil, err
		}
		if len(list) >= limit || seen >= 10*maxBinaryEntries {
			m["marker"] = hex256(last)
			break
		}
		seen, last = seen+1, e.Key
		o, err := r.s.defs.Decode(e.Data)
		if err != nil {
			return nil, err
		}
		if want != xahau.EntryAny && o.EntryType() != want {
			continue
		}
		if binary {
			list = append(list, map[string]any{"data": fmt.Sprintf("%X", e.Data), "index": hex256(e.Key)})
			continue
		}
		shown, err := r.show(e.Key, o)
		if err != nil {
			return nil, err
		}
		list = append(list, shown)
	}
	m["state"] = list
	return m, nil
}

// nextKey is the key after one, or the first.
func nextKey(k xahau.Hash256, after bool) shamap.Key {
	if after {
		for i := len(k) - 1; i >= 0; i-- {
			if k[i]++; k[i] != 0 {
				break
			}
		}
	}
	return shamap.Key(k)
}

func ledgerEntry(r *request) (map[string]any, error) {
	k, err := r.wanted()
	if err != nil {
		return nil, err
	}
	binary, err := r.params.flag("binary")
	if err != nil {
		return nil, err
	}
	l, err := r.ledger()
	if err != nil {
		return nil, err
	}
	m := r.answer(l)
	err = r.read(l, func(v view.Reader) error {
		o := v.Read(keylet.Keylet{Index: k.Index})
		switch {
		case v.Err() != nil:
			return nil // read tells it
		case o == nil:
			return errEntryNotFound
		case k.Type != xahau.EntryAny && o.EntryType() != k.Type:
			return &Error{Name: "unexpectedLedgerType", Message: "The entry is of another type."}
		}
		m["index"] = k.Index.String()
		if binary {
			b, err := r.s.defs.Encode(o)
			m["node_binary"] = fmt.Sprintf("%X", b)
			return err
		}
		m["node"], err = r.show(k.Index, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// wanted gives where the entry stands that ledger_entry asks for.
func (r *request) wanted() (keylet.Keylet, error) {
	p := r.params
	for _, name := range []string{"index", "account_root", "check", "deposit_preauth", "directory", "emitted_txn", "escrow", "hook",
		"hook_definition", "hook_state", "offer", "payment_channel", "ripple_state", "signer_list", "ticket", "uri_token"} {
		if !p.has(name) {
			continue
		}
		typ := entryTypes[strings.TrimPrefix(name, "account_")]
		switch name {
		case "index":
			typ = xahau.EntryAny
		case "account_root":
			typ = xahau.EntryAccountRoot
		case "ripple_state":
			typ = xahau.EntryRippleState
		}
		text, err := p.text(name)
		if err == nil {
			switch name {
			case "account_root", "hook", "signer_list":
				a, err := xahau.ParseAddress(text)
				if err != nil {
					return keylet.Keylet{}, errMalformedAddress
				}
				switch name {
				case "hook":
					return keylet.Hook(a), nil
				case "signer_list":
					return keylet.SignerList(a), nil
				}
				return keylet.Account(a), nil
			}
			h, err := xahau.ParseHash256(text)
			if err != nil {
				return keylet.Keylet{}, errMalformedRequest
			}
			switch name {
			case "emitted_txn":
				return keylet.EmittedTxn(h), nil
			case "hook_definition":
				return keylet.HookDefinition(h), nil
			}
			return keylet.Keylet{Type: typ, Index: h}, nil
		}
		o := p.object(name)
		if o == nil {
			return keylet.Keylet{}, errMalformedRequest
		}
		return wantedBy(name, o)
	}
	return keylet.Keylet{}, errMalformedRequest
}

// wantedBy is wanted for what is named by several fields.
func wantedBy(name string, o params) (keylet.Keylet, error) {
	var failed error
	account := func(field string, e *Error) xahau.AccountID {
		s, _ := o.text(field)
		a, err := xahau.ParseAddress(s)
		if err != nil && failed == nil {
			failed = e
			if !o.has(field) {
				failed = errMalformedRequest
			}
		}
		return a
	}
	sequence := func(field string) uint32 {
		n, err := o.number(field, -1)
		if (err != nil || n < 0 || n > 1<<32-1) && failed == nil {
			failed = errMalformedRequest
		}
		return uint32(n)
	}
	hash := func(field string) xahau.Hash256 {
		h, err := o.hash(field)
		if err != nil && failed == nil {
			failed = errMalformedRequest
		}
		return h
	}
	var k keylet.Keylet
	switch name {
	case "deposit_preauth":
		k = keylet.DepositPreauth(account("owner", errMalformedOwner), account("authorized", errMalformedAddress))
	case "directory":
		n, err := o.number("sub_index", 0)
		if err != nil || n < 0 || o.has("dir_root") == o.has("owner") {
			return k, errMalformedRequest
		}
		if o.has("dir_root") {
			k = keylet.Page(hash("dir_root"), uint64(n))
		} else {
			k = keylet.Page(keylet.OwnerDirectory(account("owner", errMalformedAddress)).Index, uint64(n))
		}
	case "escrow":
		k = keylet.Escrow(account("owner", errMalformedOwner), keylet.Seq(sequence("seq")))
	case "hook":
		k = keylet.Hook(account("account", errMalformedAddress))
	case "hook_state":
		k = keylet.HookState(account("account", errMalformedAddress), hash("key"), hash("namespace_id"))
	case "offer":
		k = keylet.Offer(account("account", errMalformedAddress), keylet.Seq(sequence("seq")))
	case "check":
		k = keylet.Check(account("account", errMalformedAddress), keylet.Seq(sequence("seq")))
	case "ticket":
		k = keylet.Ticket(account("account", errMalformedAddress), sequence("ticket_seq"))
	case "uri_token":
		uri, err := o.text("uri")
		if err != nil || uri == "" {
			return k, errMalformedRequest
		}
		k = keylet.URIToken(account("account", errMalformedAddress), []byte(uri))
	case "ripple_state":
		list, err := o.list("accounts")
		if err != nil || len(list) != 2 || list[0] == list[1] {
			return k, errMalformedRequest
		}
		a, errA := xahau.ParseAddress(list[0])
		b, errB := xahau.ParseAddress(list[1])
		if errA != nil || errB != nil {
			return k, errMalformedAddress
		}
		s, _ := o.text("currency")
		c, err := xahau.ParseCurrency(s)
		if err != nil || c.IsNative() {
			return k, errMalformedMoney
		}
		k = keylet.Line(a, b, c)
	default:
		return k, errMalformedRequest
	}
	return k, failed
}
