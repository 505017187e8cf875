package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"evernode/hotpocket/config"
	"evernode/hotpocket/consensus"
	"evernode/hotpocket/statefs"
)

// contractIDMeta is the name under which the store remembers whose ledgers it
// holds.
const contractIDMeta = "contract_id"

// configure brings hp.cfg and the agreed patch.cfg together: before the first
// ledger the operator's file decides, afterwards what the members agreed on.
func (n *node) configure(ctx context.Context, conf *config.Config, state statefs.State, last *consensus.Header) (*config.Config, error) {
	if err := n.sameContract(conf.Contract.ID, last.Height); err != nil {
		return nil, err
	}
	if last.Height == 0 && joins(conf) {
		// The agreed configuration is that of the members; see join.
		n.conf.Store(conf)
		return conf, nil
	}
	if last.Height == 0 || last.Result.Patch.IsZero() {
		text := conf.PatchText(state.Patch())
		hash, err := state.SetPatch(ctx, text)
		if err != nil {
			return nil, fmt.Errorf("write patch.cfg: %w", err)
		}
		if err := n.patches.put(hash, text); err != nil {
			return nil, err
		}
		next, err := n.patches.apply(conf, hash)
		if err != nil {
			return nil, fmt.Errorf("patch.cfg made from hp.cfg: %w", err)
		}
		n.conf.Store(next)
		return next, nil
	}
	if b := state.Patch(); b != nil {
		if err := n.patches.put(statefs.HashPatch(b), b); err != nil {
			return nil, err
		}
	}
	next, err := n.patches.apply(conf, last.Result.Patch)
	if errors.Is(err, errNoPatch) {
		// It ended before it had the content; peers have it.
		n.conf.Store(conf)
		return conf, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configuration agreed by ledger %d: %w", last.Height, err)
	}
	n.conf.Store(next)
	n.overrule(conf, next)
	return next, nil
}

// confirmed returns the newest version of the state that the ledgers record as
// agreed, nil for none. Heartbeats and runs without a result come after it.
func (n *node) confirmed(last *consensus.Header) (*statefs.Version, error) {
	h := *last
	for h.Height > 0 && h.Outcome != consensus.Agreed {
		r, ok, err := n.store.Get(h.Height - 1)
		if err != nil {
			return nil, fmt.Errorf("look for the last agreed state: %w", err)
		}
		if !ok {
			return nil, nil
		}
		if h, _, err = consensus.DecodeLedger(r.Body); err != nil {
			return nil, fmt.Errorf("ledger %d: %w", r.Seq, err)
		}
	}
	if h.Height == 0 {
		return nil, nil
	}
	return &statefs.Version{Seq: h.Run, Root: h.Result.State, Patch: h.Result.Patch}, nil
}

// sameContract refuses ledgers of another contract: with a changed contract.id
// the node would go on with them among strangers, or agree with nobody and never
// say why. Promises count as well as ledgers, for both are bound to the id.
func (n *node) sameContract(id string, height uint64) error {
	had := string(n.store.Meta(contractIDMeta))
	switch {
	case had == id:
		return nil
	case had == "":
		// What follows in the journal is not durable before this is.
		if _, err := n.store.SetMeta(contractIDMeta, []byte(id)); err != nil {
			return fmt.Errorf("remember the contract's id: %w", err)
		}
		return nil
	case height == 0:
		return fmt.Errorf("contract.id in hp.cfg is %q, but this node was started for contract %q before; "+
			"put that id back, or remove the node's ledger_fs (it holds no ledger yet)", id, had)
	}
	return fmt.Errorf("contract.id in hp.cfg is %q, but the %d ledgers of this node belong to contract %q; "+
		"put that id back, or remove contract_fs and ledger_fs to start the other contract", id, height, had)
}

// overrule tells the operator which fields of hp.cfg the members have agreed on
// otherwise, keeps the file and writes the agreed fields into hp.cfg. The file
// may also be the one from before a change of the contract, when the node was
// killed before it had written the new one.
func (n *node) overrule(conf, agreed *config.Config) {
	fields := conf.Contract.Patch.Differences(agreed.Contract.Patch)
	if len(fields) == 0 {
		return
	}
	kept, err := config.KeepCopy(string(n.dir), "edited")
	if err == nil {
		err = agreed.Save(string(n.dir))
	}
	n.log.Warn("fields of hp.cfg differ from what the members agreed on; the agreed ones are in force and hp.cfg is rewritten with them. "+
		"To change them, let the contract write patch.cfg, or start the chain anew by removing contract_fs and ledger_fs on all members",
		"fields", strings.Join(fields, ", "), "your_file", kept)
	if err != nil {
		n.log.Error("hp.cfg could not be written", "err", err)
	}
}
