package hotpocket

import (
	"context"
	"fmt"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/gateway"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/ledger"
	"evernode/internal/digest"
	"evernode/internal/usermsg"
)

// reasonFailed is the reason that users are given for inputs of a run that the
// members could not agree on. It is ours: the original halts in that case.
const reasonFailed inputs.Reason = "execution_failed"

// The node as the gateway sees it.
var _ gateway.Node = (*node)(nil)

// Submit implements gateway.Node.
func (n *node) Submit(s inputs.Submission) inputs.Reason { return n.intake.submit(s) }

// Read implements gateway.Node.
func (n *node) Read(ctx context.Context, user key.Public, content []byte) ([][]byte, error) {
	return n.exec.read(ctx, user, content)
}

// LastLedger implements gateway.Node.
func (n *node) LastLedger() (uint64, digest.Hash) {
	last := n.last.Load()
	return last.seq, last.hash
}

// Stat implements gateway.Node.
func (n *node) Stat() usermsg.Stat {
	conf, last := n.conf.Load(), n.last.Load()
	s := usermsg.Stat{
		LedgerSeqNo:              last.seq,
		LedgerHash:               last.hash,
		VoteStatus:               n.voteStatus(),
		RoundTime:                uint64(conf.Contract.Consensus.Roundtime / time.Millisecond),
		ContractExecutionEnabled: conf.Contract.Execute,
		ReadRequestsEnabled:      conf.Contract.Execute && conf.User.ConcurrentReadRequests > 0,
		IsFullHistoryNode:        conf.Node.History == "full",
		WeaklyConnected:          n.mesh.WeaklyConnected(),
		CurrentUNL:               parameters(conf).Members,
		DivergedRuns:             n.exec.diverged.Load(),
	}
	for _, p := range n.mesh.Peers() {
		if p.Address != "" {
			s.Peers = append(s.Peers, p.Address)
		}
	}
	return s
}

// tellFailed tells users that a run with their inputs was undone.
func (n *node) tellFailed(of []inputs.UserInputs) {
	for i := range of {
		for _, in := range of[i].Inputs {
			n.gate.Rejected(in.User, in.Hash, reasonFailed)
		}
	}
}

// keepsRaw reports whether inputs and outputs are kept for queries.
func (n *node) keepsRaw() bool {
	c := n.conf.Load().Node
	return c.History == "full" || c.HistoryConfig.MaxRawShards > 0
}

func (n *node) keepInputs(seq uint64, sel inputs.Selection) {
	if !n.keepsRaw() {
		return
	}
	raw := ledger.Raw{Inputs: []ledger.RawInput{}}
	for i := range sel.Users {
		for _, in := range sel.Users[i].Inputs {
			raw.Inputs = append(raw.Inputs, ledger.RawInput{User: in.User, Hash: in.Hash, Nonce: in.Nonce, Blob: in.Payload})
		}
	}
	if _, err := n.store.AppendRaw(seq, raw); err != nil {
		n.log.Error("the inputs of a ledger could not be kept", "ledger", seq, "err", err)
	}
}

func (n *node) keepOutputs(seq uint64, f *finished) {
	if !n.keepsRaw() {
		return
	}
	raw := ledger.Raw{Outputs: []ledger.RawOutput{}}
	for i := range f.outputs {
		o := &f.outputs[i]
		raw.Outputs = append(raw.Outputs, ledger.RawOutput{User: o.Key, Hash: f.hashes[o.Key], Blobs: o.Messages})
	}
	if _, err := n.store.AppendRaw(seq, raw); err != nil {
		n.log.Error("the outputs of a run could not be kept", "ledger", seq, "err", err)
	}
}

// Query implements gateway.Node.
func (n *node) Query(_ context.Context, q gateway.Query) ([]usermsg.LedgerRecord, error) {
	if q.SeqNo == 0 {
		return []usermsg.LedgerRecord{{}}, nil
	}
	r, ok, err := n.store.Get(q.SeqNo)
	if err != nil || !ok {
		return nil, err
	}
	h, _, err := consensus.DecodeLedger(r.Body)
	if err != nil {
		return nil, fmt.Errorf("ledger %d: %w", q.SeqNo, err)
	}
	rec := n.record(&h, r.Hash)
	if err := n.addConsumed(&rec, &h); err != nil {
		return nil, err
	}
	if !q.Inputs && !q.Outputs {
		return []usermsg.LedgerRecord{rec}, nil
	}
	raw, _, err := n.store.RawOf(q.SeqNo)
	if err != nil {
		return nil, fmt.Errorf("ledger %d: %w", q.SeqNo, err)
	}
	if q.Inputs {
		rec.Inputs = []usermsg.LedgerInput{}
		for _, in := range raw.Inputs {
			rec.Inputs = append(rec.Inputs, usermsg.LedgerInput{Public: in.User, Hash: in.Hash, Nonce: in.Nonce, Blob: in.Blob})
		}
	}
	if q.Outputs {
		rec.Outputs = []usermsg.LedgerOutput{}
		for _, o := range raw.Outputs {
			rec.Outputs = append(rec.Outputs, usermsg.LedgerOutput{Public: o.User, Hash: o.Hash, Blobs: o.Blobs})
		}
	}
	return []usermsg.LedgerRecord{rec}, nil
}

// record is a ledger as users see it, without the hashes of users and inputs.
func (n *node) record(h *consensus.Header, hash digest.Hash) usermsg.LedgerRecord {
	return usermsg.LedgerRecord{
		SeqNo:      h.Height,
		Timestamp:  h.Time,
		Hash:       hash,
		PrevHash:   h.Prev,
		StateHash:  h.Result.State,
		ConfigHash: h.Result.Patch,
		OutputHash: h.Result.Output,
	}
}

// addConsumed fills in the hashes of users and inputs of a ledger. They are
// agreed on with the result of its run, so a later ledger holds them; of the
// newest, which waits for that, the executor knows them.
func (n *node) addConsumed(rec *usermsg.LedgerRecord, h *consensus.Header) error {
	if !h.StartsRun() {
		return nil // a heartbeat has neither
	}
	for seq := h.Height + 1; ; seq++ {
		r, ok, err := n.store.Get(seq)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		next, _, err := consensus.DecodeLedger(r.Body)
		if err != nil {
			return fmt.Errorf("ledger %d: %w", seq, err)
		}
		if next.Outcome != consensus.Pending {
			rec.UserHash, rec.InputHash = next.Result.Users, next.Result.Inputs
			return nil
		}
	}
	if c := n.newest.Load(); c != nil && c.seq == h.Height {
		rec.UserHash, rec.InputHash = c.users, c.inputs
	}
	return nil
}

// newest is what the executor knows of the ledger it takes up.
type newest struct {
	seq           uint64
	users, inputs digest.Hash
}
