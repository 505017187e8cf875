package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"evernode/xahau"
	"evernode/xahau/standalone"
	"evernode/xahau/standalone/chain"
	"evernode/xahau/standalone/view"
)

// params are a request's fields.
type params map[string]json.RawMessage

// request is one request of a client.
type request struct {
	context.Context
	s       *Server
	socket  *socket // nil over HTTP
	params  params
	version int // of the API
}

func (p params) has(name string) bool {
	v, ok := p[name]
	return ok && !bytes.Equal(v, []byte("null"))
}

// text gives a field of text, "" if it is not there.
func (p params) text(name string) (string, error) {
	if !p.has(name) {
		return "", nil
	}
	var s string
	if json.Unmarshal(p[name], &s) != nil {
		return "", expected(name, "string")
	}
	return s, nil
}

// flag gives a field that is true or false, false if it is not there.
func (p params) flag(name string) (bool, error) {
	if !p.has(name) {
		return false, nil
	}
	var b bool
	if json.Unmarshal(p[name], &b) != nil {
		return false, expected(name, "bool")
	}
	return b, nil
}

// flags reads several fields that are true or false.
func (p params) flags(to map[string]*bool) error {
	for name, at := range to {
		b, err := p.flag(name)
		if err != nil {
			return err
		}
		*at = b
	}
	return nil
}

// number gives a field that is a whole number, or the default.
func (p params) number(name string, or int64) (int64, error) {
	if !p.has(name) {
		return or, nil
	}
	n, err := strconv.ParseInt(strings.Trim(string(p[name]), `"`), 10, 64)
	if err != nil {
		return 0, expected(name, "integer")
	}
	return n, nil
}

// limit gives how many elements an answer has.
func (p params) limit(least, or, most int) (int, error) {
	if !p.has("limit") {
		return or, nil
	}
	n, err := strconv.ParseUint(string(p["limit"]), 10, 32)
	if err != nil {
		return 0, expected("limit", "unsigned integer")
	}
	return min(max(int(n), least), most), nil
}

func (p params) account(name string) (xahau.AccountID, error) {
	if !p.has(name) {
		return xahau.AccountID{}, missing(name)
	}
	s, err := p.text(name)
	if err != nil {
		return xahau.AccountID{}, err
	}
	return parseAccount(s)
}

func parseAccount(s string) (xahau.AccountID, error) {
	if a, err := xahau.ParseAddress(s); err == nil {
		return a, nil
	}
	if k, err := xahau.ParsePublicKey(s); err == nil {
		return k.Account(), nil
	}
	return xahau.AccountID{}, errActMalformed
}

func (p params) hash(name string) (xahau.Hash256, error) {
	if !p.has(name) {
		return xahau.Hash256{}, missing(name)
	}
	s, err := p.text(name)
	if err != nil {
		return xahau.Hash256{}, err
	}
	h, err := xahau.ParseHash256(s)
	if err != nil {
		return xahau.Hash256{}, invalid(name)
	}
	return h, nil
}

// object gives a field that is an object, nil if it is not there or something else.
func (p params) object(name string) params {
	var o params
	if !p.has(name) || json.Unmarshal(p[name], &o) != nil {
		return nil
	}
	return o
}

// ledger is one that a request asks for.
type ledger struct {
	current bool
	closed  chain.Closed // if not current
}

func (r *request) node() *standalone.Ledger { return r.s.node }

// ledger finds the ledger that a request asks for, the current one if it says
// nothing.
func (r *request) ledger() (ledger, error) { return r.ledgerOr("current") }

func (r *request) ledgerOr(or string) (ledger, error) {
	if r.params.has("ledger_hash") {
		s, err := r.params.text("ledger_hash")
		if err != nil {
			return ledger{}, errInvalidParams.with("ledgerHashNotString")
		}
		h, err := xahau.ParseHash256(s)
		if err != nil {
			return ledger{}, errInvalidParams.with("ledgerHashMalformed")
		}
		c, err := r.node().History().LedgerByHash(chain.Hash(h))
		return r.final(c, err)
	}
	raw := r.params["ledger_index"]
	if !r.params.has("ledger_index") {
		if raw = r.params["ledger"]; !r.params.has("ledger") {
			raw = json.RawMessage(or)
		}
	}
	switch s := strings.Trim(string(raw), `"`); s {
	case "current", "":
		return ledger{current: true}, nil
	case "closed", "validated":
		return ledger{closed: r.node().Validated()}, nil
	default:
		if len(s) == 64 {
			if h, err := xahau.ParseHash256(s); err == nil {
				return r.final(r.node().History().LedgerByHash(chain.Hash(h)))
			}
		}
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return ledger{}, errInvalidParams.with("ledgerIndexMalformed")
		}
		if uint32(n) == r.node().Validated().Header.Seq+1 {
			return ledger{current: true}, nil
		}
		return r.final(r.node().History().Ledger(uint32(n)))
	}
}

// final gives a ledger if it counts as validated.
func (r *request) final(c chain.Closed, err error) (ledger, error) {
	if errors.Is(err, chain.ErrNotFound) || err == nil && c.Header.Seq > r.node().Validated().Header.Seq {
		return ledger{}, errLgrNotFound
	}
	return ledger{closed: c}, err
}

// answer begins an answer that is about a ledger.
func (r *request) answer(l ledger) map[string]any {
	if l.current {
		return map[string]any{"ledger_current_index": r.node().Validated().Header.Seq + 1, "validated": false}
	}
	return map[string]any{"ledger_hash": hex256(l.closed.Hash), "ledger_index": l.closed.Header.Seq, "validated": true}
}

// read lets f read a ledger's state.
func (r *request) read(l ledger, f func(v view.Reader) error) error {
	if l.current {
		return r.node().Current(f)
	}
	v, _, err := r.node().State(l.closed)
	if err == nil {
		if err = f(v); v.Err() != nil {
			err = v.Err()
		}
	}
	if errors.Is(err, chain.ErrStateGone) {
		return errLgrNotFound.with("The state of this ledger is not kept any more.")
	}
	return err
}

func hex256(h [32]byte) string { return xahau.Hash256(h).String() }

// show gives an entry as servers do.
func (r *request) show(index xahau.Hash256, o *xahau.Object) (map[string]any, error) {
	m, err := r.s.defs.Map(o)
	if err != nil {
		return nil, err
	}
	m["index"] = index.String()
	return m, nil
}

// list gives a field that is a list of texts, nil if it is not there.
func (p params) list(name string) ([]string, error) {
	if !p.has(name) {
		return nil, nil
	}
	var list []string
	if json.Unmarshal(p[name], &list) != nil {
		return nil, expected(name, "array")
	}
	return list, nil
}
