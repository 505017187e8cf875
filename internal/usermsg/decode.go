package usermsg

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"evernode/hotpocket/output"
)

// maxTreeDepth bounds the depth of a hash tree. A tree of 16 children a node
// and this depth has more leaves than there can be users.
const maxTreeDepth = 16

// DecodeMessage reads one message of a server after the handshake. The error is
// ErrUnknownType for a message of no known type. Nothing in the result aliases
// data.
func DecodeMessage(p Protocol, data []byte) (Message, error) {
	doc, err := document(p, data)
	if err != nil {
		return nil, err
	}
	var typ, event string
	err = doc.object(func(k []byte, v value) (err error) {
		switch string(k) {
		case "type":
			typ, err = v.text()
		case "event":
			event, err = v.text()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var m interface {
		Message
		take(k string, v value) error
	}
	// The fields without which the message says nothing.
	var required []string
	switch typ {
	case "contract_input_status":
		m, required = new(InputStatus), []string{"status", "input_hash"}
	case "contract_output":
		m, required = new(Output), []string{"ledger_seq_no", "ledger_hash", "outputs", "output_hash", "hash_tree", "unl_sig"}
	case "contract_read_response":
		m, required = new(ReadResponse), []string{"reply_for", "content"}
	case "stat_response":
		m, required = new(Stat), []string{"hp_version", "ledger_seq_no", "ledger_hash", "vote_status", "current_unl", "peers"}
	case "lcl_response":
		m, required = new(LCL), []string{"ledger_seq_no", "ledger_hash"}
	case "unl_change":
		m, required = new(UNLChange), []string{"unl"}
	case "ledger_query_result":
		m, required = new(QueryResult), []string{"reply_for", "results"}
	case "ledger_event":
		switch event {
		case "ledger_created":
			m, required = new(LedgerCreated), []string{"ledger"}
		case "vote_status":
			m, required = new(VoteStatus), []string{"vote_status"}
		}
	case "health_event":
		switch event {
		case "proposal":
			m, required = new(ProposalHealth), []string{"comm_latency", "read_latency", "batch_size"}
		case "connectivity":
			m, required = new(Connectivity), []string{"peer_count", "weakly_connected"}
		}
	}
	if m == nil {
		return nil, fmt.Errorf("%w: %.40q %.40q", ErrUnknownType, typ, event)
	}
	ledger, reason := false, false
	err = doc.object(func(k []byte, v value) error {
		ledger = ledger || string(k) == "ledger_hash"
		reason = reason || string(k) == "reason"
		if i := slices.Index(required, string(k)); i >= 0 {
			required = slices.Delete(required, i, i+1)
		}
		return m.take(string(k), v)
	})
	if st, ok := m.(*InputStatus); ok && err == nil {
		switch {
		case st.Accepted && !ledger:
			required = append(required, "ledger_hash")
		case !st.Accepted && !reason:
			required = append(required, "reason")
		}
	}
	if err == nil && len(required) > 0 {
		err = fmt.Errorf("no %s", required[0])
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	return m, nil
}

func (m *InputStatus) take(k string, v value) (err error) {
	switch k {
	case "status":
		switch {
		case v.is(StatusAccepted):
			m.Accepted = true
		case !v.is(StatusRejected):
			return errors.New("neither accepted nor rejected")
		}
	case "reason":
		m.Reason, err = v.text()
	case "input_hash":
		if v.size() > 0 {
			m.InputHash, err = v.hash()
		}
	case "ledger_seq_no":
		m.LedgerSeqNo, err = v.uint()
	case "ledger_hash":
		m.LedgerHash, err = v.hash()
	}
	return err
}

// said returns what a contract said: binary in BSON, in JSON the text of a
// string or any other value as it stands.
func (v value) said() ([]byte, error) {
	if v.bson {
		return v.appendBytes(make([]byte, 0, v.size()))
	}
	if v.kind != kindString {
		return bytes.Clone(v.token), nil
	}
	// Half a surrogate pair in a contract's own JSON is not ours to refuse.
	b, _ := appendUnescaped(make([]byte, 0, v.size()), v.data)
	return b, nil
}

func (m *Output) take(k string, v value) (err error) {
	switch k {
	case "ledger_seq_no":
		m.LedgerSeqNo, err = v.uint()
	case "ledger_hash":
		m.LedgerHash, err = v.hash()
	case "outputs":
		m.Outputs, m.JSONTokens = [][]byte{}, nil
		return v.array(func(v value) error {
			b, err := v.said()
			m.Outputs = append(m.Outputs, b)
			if !v.bson {
				m.JSONTokens = append(m.JSONTokens, bytes.Clone(v.token))
			}
			return err
		})
	case "output_hash":
		m.OutputHash, err = v.hash()
	case "hash_tree":
		if v.kind != kindArray {
			return v.wrong("an array")
		}
		m.Tree, err = v.tree(0)
	case "unl_sig":
		m.Signatures = nil
		return v.array(func(v value) error {
			var s output.Signature
			n := 0
			err := v.array(func(v value) (err error) {
				switch n {
				case 0:
					s.Key, err = v.public()
				case 1:
					err = v.fixed(s.Sig[:])
				}
				n++
				return err
			})
			if err == nil && n != 2 {
				err = fmt.Errorf("has %d elements, want key and signature", n)
			}
			m.Signatures = append(m.Signatures, s)
			return err
		})
	}
	return err
}

// tree reads any nesting of arrays; whether it is a tree of section 1.9 is for
// those to check who compute its root.
func (v value) tree(depth int) (n output.Node, err error) {
	switch v.kind {
	case kindNull:
		n.Kind = output.OwnLeaf
	case kindArray:
		if depth == maxTreeDepth {
			return n, errors.New("hash tree is too deep")
		}
		n.Kind, n.Children = output.Group, []output.Node{}
		err = v.array(func(v value) error {
			c, err := v.tree(depth + 1)
			n.Children = append(n.Children, c)
			return err
		})
	default:
		n.Hash, err = v.hash()
	}
	return n, err
}

func (m *ReadResponse) take(k string, v value) (err error) {
	switch k {
	case "reply_for":
		m.ReplyFor, err = v.text()
	case "content":
		m.Content, err = v.said()
	}
	return err
}

func (m *Stat) take(k string, v value) (err error) {
	switch k {
	case "hp_version":
		m.HPVersion, err = v.text()
	case "ledger_seq_no":
		m.LedgerSeqNo, err = v.uint()
	case "ledger_hash":
		m.LedgerHash, err = v.hash()
	case "vote_status":
		m.VoteStatus, err = v.text()
	case "round_time":
		m.RoundTime, err = v.uint()
	case "contract_execution_enabled":
		m.ContractExecutionEnabled, err = v.boolean()
	case "read_requests_enabled":
		m.ReadRequestsEnabled, err = v.boolean()
	case "is_full_history_node":
		m.IsFullHistoryNode, err = v.boolean()
	case "weakly_connected":
		m.WeaklyConnected, err = v.boolean()
	case "diverged_runs":
		m.DivergedRuns, err = v.uint()
	case "current_unl":
		m.CurrentUNL, err = v.keys()
	case "peers":
		m.Peers = []string{}
		return v.array(func(v value) error {
			s, err := v.text()
			m.Peers = append(m.Peers, s)
			return err
		})
	}
	return err
}

func (m *LCL) take(k string, v value) (err error) {
	switch k {
	case "ledger_seq_no":
		m.LedgerSeqNo, err = v.uint()
	case "ledger_hash":
		m.LedgerHash, err = v.hash()
	}
	return err
}

func (m *UNLChange) take(k string, v value) (err error) {
	if k == "unl" {
		m.UNL, err = v.keys()
	}
	return err
}

func (m *VoteStatus) take(k string, v value) (err error) {
	if k == "vote_status" {
		m.Status, err = v.text()
	}
	return err
}

func (m *LedgerCreated) take(k string, v value) error {
	if k != "ledger" {
		return nil
	}
	return v.object(m.Ledger.take)
}

func (r *LedgerRecord) take(k []byte, v value) (err error) {
	switch string(k) {
	case "seq_no":
		r.SeqNo, err = v.uint()
	case "timestamp":
		r.Timestamp, err = v.uint()
	case "hash":
		r.Hash, err = v.hash()
	case "prev_hash":
		r.PrevHash, err = v.hash()
	case "state_hash":
		r.StateHash, err = v.hash()
	case "config_hash":
		r.ConfigHash, err = v.hash()
	case "user_hash":
		r.UserHash, err = v.hash()
	case "input_hash":
		r.InputHash, err = v.hash()
	case "output_hash":
		r.OutputHash, err = v.hash()
	case "inputs":
		r.Inputs = []LedgerInput{}
		return v.array(func(v value) error {
			var in LedgerInput
			err := v.object(func(k []byte, v value) (err error) {
				switch string(k) {
				case "pubkey":
					in.Public, err = v.public()
				case "hash":
					in.Hash, err = v.hash()
				case "nonce":
					in.Nonce, err = v.uint()
				case "blob":
					in.Blob, err = v.appendBytes(nil)
				}
				return err
			})
			r.Inputs = append(r.Inputs, in)
			return err
		})
	case "outputs":
		r.Outputs = []LedgerOutput{}
		return v.array(func(v value) error {
			var out LedgerOutput
			err := v.object(func(k []byte, v value) (err error) {
				switch string(k) {
				case "pubkey":
					out.Public, err = v.public()
				case "hash":
					out.Hash, err = v.hash()
				case "blobs":
					out.Blobs = [][]byte{}
					return v.array(func(v value) error {
						b, err := v.appendBytes(nil)
						out.Blobs = append(out.Blobs, b)
						return err
					})
				}
				return err
			})
			r.Outputs = append(r.Outputs, out)
			return err
		})
	}
	return err
}

func (l *Latency) take(k []byte, v value) (err error) {
	switch string(k) {
	case "min":
		l.Min, err = v.uint()
	case "max":
		l.Max, err = v.uint()
	case "avg":
		l.Avg, err = v.uint()
	}
	return err
}

func (m *ProposalHealth) take(k string, v value) (err error) {
	switch k {
	case "comm_latency":
		return v.object(m.CommLatency.take)
	case "read_latency":
		return v.object(m.ReadLatency.take)
	case "batch_size":
		m.BatchSize, err = v.uint()
	}
	return err
}

func (m *Connectivity) take(k string, v value) (err error) {
	switch k {
	case "peer_count":
		m.PeerCount, err = v.uint()
	case "weakly_connected":
		m.WeaklyConnected, err = v.boolean()
	}
	return err
}

func (m *QueryResult) take(k string, v value) (err error) {
	switch k {
	case "reply_for":
		m.ReplyFor, err = v.text()
	case "error":
		if v.kind != kindNull {
			m.Error, err = v.text()
		}
	case "results":
		m.Results = []LedgerRecord{}
		return v.array(func(v value) error {
			var r LedgerRecord
			err := v.object(r.take)
			m.Results = append(m.Results, r)
			return err
		})
	}
	return err
}
