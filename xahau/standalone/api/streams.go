package api

import (
	"encoding/json"
	"maps"

	"evernode/xahau"
	"evernode/xahau/standalone"
	"evernode/xahau/standalone/apply"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// streams that clients can subscribe to. Those of consensus and of validators are
// silent here: there is one server.
var streamNames = map[string]bool{
	"ledger": true, "transactions": true, "transactions_proposed": true, "server": true, "validations": true, "manifests": true,
	"consensus": true, "peer_status": true, "book_changes": true,
}

// subscription is what a request wants to be told of.
type subscription struct {
	streams            []string
	accounts, proposed []xahau.AccountID
}

func (r *request) subscription() (s subscription, err error) {
	if r.socket == nil {
		if r.params.has("url") {
			return s, errNoPermission.with("This server calls no URLs; subscribe over WebSocket.")
		}
		return s, errNoEvents
	}
	if r.params.has("books") {
		return s, errNotSupported.with("Order books cannot be subscribed to; subscribe to transactions.")
	}
	if r.params.has("url") {
		return s, errNoPermission.with("This server calls no URLs; subscribe over WebSocket.")
	}
	if r.params.has("streams") {
		if s.streams, err = r.params.list("streams"); err != nil {
			return s, errInvalidParams
		}
		for _, name := range s.streams {
			if !streamNames[name] && name != "rt_transactions" {
				return s, errStreamMalformed.with("There is no stream %q.", shorten(name))
			}
		}
	}
	for _, part := range []struct {
		name string
		to   *[]xahau.AccountID
	}{{"accounts", &s.accounts}, {"accounts_proposed", &s.proposed}, {"rt_accounts", &s.proposed}} {
		if !r.params.has(part.name) {
			continue
		}
		names, err := r.params.list(part.name)
		if err != nil {
			return s, errInvalidParams
		}
		if len(names) == 0 {
			return s, errActMalformed
		}
		if len(names) > r.s.cfg.Accounts {
			return s, errInvalidParams.with("At most %d accounts can be subscribed to over one connection.", r.s.cfg.Accounts)
		}
		for _, n := range names {
			a, err := parseAccount(n)
			if err != nil {
				return s, err
			}
			*part.to = append(*part.to, a)
		}
	}
	return s, nil
}

func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

func subscribe(r *request) (map[string]any, error) {
	want, err := r.subscription()
	if err != nil {
		return nil, err
	}
	m := map[string]any{}
	c := r.socket
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	more := 0
	for _, a := range want.accounts {
		if _, ok := c.accounts[a]; !ok {
			more++
		}
	}
	for _, a := range want.proposed {
		if _, ok := c.proposed[a]; !ok {
			more++
		}
	}
	if len(c.accounts)+len(c.proposed)+more > r.s.cfg.Accounts {
		return nil, errInvalidParams.with("At most %d accounts can be subscribed to over one connection.", r.s.cfg.Accounts)
	}
	for _, a := range want.accounts {
		c.accounts[a] = r.version
	}
	for _, a := range want.proposed {
		c.proposed[a] = r.version
	}
	for _, name := range want.streams {
		if name == "rt_transactions" {
			name = "transactions_proposed"
		}
		c.streams[name] = r.version
		switch name {
		case "ledger":
			f, err := r.fees()
			if err != nil {
				return nil, err
			}
			last := r.node().Validated()
			maps.Copy(m, ledgerMessage(f, placeOf(last), r.node().NetworkID(), r.s.completeLedgers()))
		case "server":
			random, err := random(r)
			if err != nil {
				return nil, err
			}
			maps.Copy(m, map[string]any{"load_base": 256, "load_factor": 256, "load_factor_server": 256, "server_status": "full",
				"hostid": "embedded", "pubkey_node": r.s.key.NodeBase58(), "random": random["random"]})
		}
	}
	return m, nil
}

func unsubscribe(r *request) (map[string]any, error) {
	want, err := r.subscription()
	if err != nil {
		return nil, err
	}
	c := r.socket
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for _, a := range want.accounts {
		delete(c.accounts, a)
	}
	for _, a := range want.proposed {
		delete(c.proposed, a)
	}
	for _, name := range want.streams {
		if name == "rt_transactions" {
			name = "transactions_proposed"
		}
		delete(c.streams, name)
	}
	return map[string]any{}, nil
}

func ledgerMessage(f view.Fees, at place, network uint32, complete string) map[string]any {
	return map[string]any{
		"fee_base": f.Base, "fee_ref": f.Base, "reserve_base": f.Reserve, "reserve_inc": f.Increment, "network_id": network,
		"ledger_hash": hex256(at.hash), "ledger_index": at.seq, "ledger_time": at.closeTime, "validated_ledgers": complete,
	}
}

// announce tells subscribers of a ledger that has become final: first the ledger,
// then its transactions in order.
func (s *Server) announce(e *standalone.Event) {
	at := placeOf(e.Ledger)
	r := &request{Context: s.ctx, s: s, version: 1}
	var closed []byte
	if f, err := r.fees(); err != nil {
		s.cfg.Log.Error("the ledger could not be announced", "ledger", at.seq, "error", err)
	} else {
		m := ledgerMessage(f, at, s.node.NetworkID(), s.completeLedgers())
		m["type"], m["txn_count"] = "ledgerClosed", e.Ledger.Transactions
		closed = s.encode(m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	listens := false
	for c := range s.sockets {
		if _, ok := c.streams["ledger"]; ok && closed != nil {
			c.push(closed)
		}
		_, all := c.streams["transactions"]
		_, proposed := c.streams["transactions_proposed"]
		listens = listens || all || proposed || len(c.accounts)+len(c.proposed) > 0
	}
	if !listens {
		return
	}
	for _, result := range e.Closed.Results {
		s.tell(result, at)
	}
}

func (s *Server) encode(m map[string]any) []byte {
	b, err := json.Marshal(m)
	if err != nil {
		s.cfg.Log.Error("message to clients", "error", err)
		return nil
	}
	return b
}

// tell tells subscribers of a transaction that has become final. The lock is held.
func (s *Server) tell(result apply.Result, at place) {
	accounts := view.AffectedAccounts(result.Meta)
	var texts [3][]byte // by version of the API
	for c := range s.sockets {
		v := c.streams["transactions"]
		if v == 0 {
			v = c.streams["transactions_proposed"]
		}
		for _, a := range accounts {
			if v != 0 {
				break
			}
			if v = c.accounts[a]; v == 0 {
				v = c.proposed[a]
			}
		}
		if v == 0 {
			continue
		}
		if texts[v] == nil {
			shown, meta, err := s.shown(result.Tx.Tx, result.Meta)
			if err != nil {
				s.cfg.Log.Error("the transaction could not be announced", "transaction", result.Tx.ID, "error", err)
				return
			}
			m := transactionMessage(shown, result.Tx.ID, result.Code, v)
			m["meta"], m["validated"], m["status"] = meta, true, "closed"
			m["ledger_index"], m["ledger_hash"] = at.seq, hex256(at.hash)
			m["close_time_iso"] = isoTime(at.closeTime)
			shown["date"] = at.closeTime
			if v > 1 {
				shown["ledger_index"] = at.seq
			}
			if texts[v] = s.encode(m); texts[v] == nil {
				return
			}
		}
		c.push(texts[v])
	}
}

func transactionMessage(shown map[string]any, id xahau.Hash256, code ter.Code, version int) map[string]any {
	m := map[string]any{
		"type": "transaction", "engine_result": code.String(), "engine_result_code": int(code),
		"engine_result_message": resultMessage(code, nil),
	}
	if version > 1 {
		m["tx_json"], m["hash"] = version2(shown), id.String()
	} else {
		shown["hash"] = id.String()
		m["transaction"] = shown
	}
	return m
}

// propose tells who wants to know early of a transaction in the open ledger.
func (s *Server) propose(sub *standalone.Submission) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var texts [3][]byte
	for c := range s.sockets {
		v := c.streams["transactions_proposed"]
		if v == 0 && len(c.proposed) > 0 {
			for _, value := range sub.Tx.Tx.All() {
				if a, ok := value.(xahau.AccountID); ok && v == 0 {
					v = c.proposed[a]
				}
			}
		}
		if v == 0 {
			continue
		}
		if texts[v] == nil {
			shown, err := s.defs.Map(sub.Tx.Tx)
			if err != nil {
				return
			}
			m := transactionMessage(shown, sub.Tx.ID, sub.Result, v)
			m["validated"], m["status"], m["ledger_current_index"] = false, "proposed", sub.Current
			if texts[v] = s.encode(m); texts[v] == nil {
				return
			}
		}
		c.push(texts[v])
	}
}
