package api

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"evernode/xahau"
	"evernode/xahau/standalone"
	"evernode/xahau/standalone/view"
)

func ping(r *request) (map[string]any, error) { return map[string]any{}, nil }

func random(r *request) (map[string]any, error) {
	var b xahau.Hash256
	rand.Read(b[:]) // never fails
	return map[string]any{"random": b.String()}, nil
}

// fees are those of the last validated ledger.
func (r *request) fees() (view.Fees, error) {
	var f view.Fees
	err := r.read(ledger{closed: r.node().Validated()}, func(v view.Reader) error {
		f = v.Ledger().Fees
		return nil
	})
	return f, err
}

// completeLedgers names the ledgers that are kept.
func (s *Server) completeLedgers() string {
	first, last := s.node.First(), s.node.Validated().Header.Seq
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// status is what server_info and server_state have in common.
func (r *request) status() map[string]any {
	s := r.s
	return map[string]any{
		"build_version": s.cfg.Version, "complete_ledgers": s.completeLedgers(), "network_id": r.node().NetworkID(),
		"peers": 0, "server_state": "full", "uptime": s.uptime(), "pubkey_node": s.key.NodeBase58(),
		"time":              r.node().Now().UTC().Format("2006-Jan-02 15:04:05.000000 UTC"),
		"validation_quorum": 1, "io_latency_ms": 1, "amendment_blocked": false,
		"last_close": map[string]any{"converge_time_s": 0, "proposers": 1},
		"ports":      []any{},
	}
}

func serverInfo(r *request) (map[string]any, error) {
	f, err := r.fees()
	if err != nil {
		return nil, err
	}
	last := r.node().Validated()
	info := r.status()
	delete(info, "amendment_blocked")
	native := func(drops int64) float64 { return float64(drops) / 1e6 }
	info["hostid"] = "embedded"
	info["load_factor"] = 1
	info["validated_ledger"] = map[string]any{
		"age": r.age(), "seq": last.Header.Seq, "hash": hex256(last.Hash),
		"base_fee_xrp": native(f.Base), "reserve_base_xrp": native(f.Reserve), "reserve_inc_xrp": native(f.Increment),
		"base_fee_native": native(f.Base), "reserve_base_native": native(f.Reserve), "reserve_inc_native": native(f.Increment),
	}
	return map[string]any{"info": info}, nil
}

// age is how long ago the last ledger was closed, in seconds.
func (r *request) age() int64 {
	d := r.node().Now().Sub(xahau.Time(r.node().Validated().Header.CloseTime))
	return max(int64(d/time.Second), 0)
}

func serverState(r *request) (map[string]any, error) {
	f, err := r.fees()
	if err != nil {
		return nil, err
	}
	last := r.node().Validated()
	state := r.status()
	state["load_base"], state["load_factor"], state["load_factor_server"] = 256, 256, 256
	state["last_close"] = map[string]any{"converge_time": 0, "proposers": 1}
	state["validated_ledger"] = map[string]any{
		"base_fee": f.Base, "close_time": last.Header.CloseTime, "hash": hex256(last.Hash),
		"reserve_base": f.Reserve, "reserve_inc": f.Increment, "seq": last.Header.Seq,
	}
	return map[string]any{"state": state}, nil
}

func serverDefinitions(r *request) (map[string]any, error) {
	if r.params.has("hash") {
		h, err := r.params.hash("hash")
		if err != nil {
			return nil, err
		}
		if h == r.s.defs.Hash() {
			return map[string]any{"hash": h.String()}, nil
		}
	}
	m := make(map[string]any, len(r.s.definitions))
	for k, v := range r.s.definitions {
		m[k] = v
	}
	return m, nil
}

func fee(r *request) (map[string]any, error) {
	f, err := r.fees()
	if err != nil {
		return nil, err
	}
	drops, least := f.Base, f.Base
	if r.params.has("tx_blob") {
		blob, err := r.blob("tx_blob")
		if err != nil {
			return nil, err
		}
		if drops, err = r.node().Fee(blob); err != nil {
			return nil, malformed(err)
		}
	}
	in, held := r.node().OpenTransactions()
	text := func(n int64) string { return fmt.Sprint(n) }
	return map[string]any{
		"current_ledger_size": text(int64(in)), "current_queue_size": text(int64(held)), "expected_ledger_size": "1000", "max_queue_size": "2048",
		"drops":                map[string]any{"base_fee": text(drops), "median_fee": text(least), "minimum_fee": text(drops), "open_ledger_fee": text(drops)},
		"fee_hooks_feeunits":   text(max(drops-least, 0)),
		"levels":               map[string]any{"median_level": "256", "minimum_level": "256", "open_ledger_level": "256", "reference_level": "256"},
		"ledger_current_index": r.node().Validated().Header.Seq + 1,
	}, nil
}

// blob gives a field of bytes in hex.
func (r *request) blob(name string) ([]byte, error) {
	s, err := r.params.text(name)
	if err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, errInvalidParams.with("Field '%s' is not hex.", name)
	}
	return b, nil
}

// malformed turns the error of a transaction that cannot be read into a refusal.
func malformed(err error) error {
	var m *standalone.MalformedError
	if errors.As(err, &m) {
		return errInvalidTx.extra("error_exception", m.Error())
	}
	return err
}

func walletPropose(r *request) (map[string]any, error) {
	kind := xahau.Secp256k1
	name, err := r.params.text("key_type")
	if err != nil {
		return nil, err
	}
	switch name {
	case "", "secp256k1":
	case "ed25519":
		kind = xahau.Ed25519
	default:
		return nil, errBadKeyType
	}
	var seed xahau.Seed
	given := 0
	for _, field := range []string{"passphrase", "secret", "seed", "seed_hex"} {
		if !r.params.has(field) {
			continue
		}
		if given++; given > 1 {
			return nil, errInvalidParams.with("Exactly one of the following must be specified: passphrase, secret, seed or seed_hex")
		}
		text, err := r.params.text(field)
		if err != nil {
			return nil, err
		}
		parsed, parseErr := xahau.ParseSeed(text)
		switch {
		case field == "seed_hex":
			b, err := hex.DecodeString(text)
			if err != nil || len(b) != xahau.SeedSize {
				return nil, errBadSeed
			}
			seed = xahau.SeedFromEntropy([xahau.SeedSize]byte(b), kind)
		case parseErr == nil:
			if name != "" && parsed.Type() != kind && parsed.Type() == xahau.Ed25519 {
				return nil, errBadSeed
			}
			if parsed.Type() == xahau.Ed25519 {
				kind = xahau.Ed25519
			}
			seed = xahau.SeedFromEntropy(parsed.Entropy(), kind)
		case field == "seed":
			return nil, errBadSeed
		default:
			seed = xahau.SeedFromPassphrase(text, kind)
		}
	}
	if given == 0 {
		if seed, err = xahau.NewSeed(rand.Reader, kind); err != nil {
			return nil, err
		}
	}
	public, entropy := seed.KeyPair().Public(), seed.Entropy()
	secret := seed.Secret()
	return map[string]any{
		"account_id": seed.KeyPair().Account().String(), "key_type": kind.String(), "master_seed": secret,
		"master_seed_hex": fmt.Sprintf("%X", entropy[:]), "public_key": public.Base58(), "public_key_hex": public.String(),
	}, nil
}

func ledgerAccept(r *request) (map[string]any, error) {
	if !r.s.cfg.Manual {
		return nil, errNotStandAlone
	}
	c, err := r.node().Accept(r)
	if err != nil {
		return nil, err
	}
	return map[string]any{"ledger_current_index": c.Header.Seq + 1}, nil
}
