package usermsg

import (
	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
	"evernode/internal/digest"
)

// Message is one message of a server after the handshake: *InputStatus,
// *Output, *ReadResponse, *Stat, *LCL, *UNLChange, *LedgerCreated, *VoteStatus,
// *ProposalHealth, *Connectivity or *QueryResult.
type Message interface {
	// Append appends the message in the given form (section 1.5).
	Append(b []byte, p Protocol) []byte
}

// InputStatus tells a user what became of an input.
type InputStatus struct {
	Accepted bool
	Reason   string // one of the reasons, when not accepted
	// InputHash is the hash of the input's signature; the zero hash stands
	// for an input that could not be told.
	InputHash   digest.Hash
	LedgerSeqNo uint64 // when accepted
	LedgerHash  digest.Hash
}

// Append implements Message.
func (m *InputStatus) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "contract_input_status")
	if m.Accepted {
		e.text(field("status"), StatusAccepted)
	} else {
		e.text(field("status"), StatusRejected)
		e.text(field("reason"), m.Reason)
	}
	if m.InputHash.IsZero() {
		e.bytes(field("input_hash"), nil)
	} else {
		e.bytes(field("input_hash"), m.InputHash[:])
	}
	if m.Accepted {
		e.uint(field("ledger_seq_no"), m.LedgerSeqNo)
		e.hash(field("ledger_hash"), m.LedgerHash)
	}
	e.end(start, '}')
	return e.b
}

// Output carries all outputs of one run for one user.
type Output struct {
	LedgerSeqNo uint64
	LedgerHash  digest.Hash
	// Outputs are the outputs in the order in which they were made. As read
	// from JSON, an element that is a string is its text, any other value its
	// JSON text.
	Outputs    [][]byte
	OutputHash digest.Hash
	Tree       output.Node // a group
	Signatures []output.Signature

	// JSONTokens holds the elements as they stood in a JSON message, quotes
	// included; it is nil for BSON and not written. What a contract had put
	// out is either the text or the token, see section 1.8.
	JSONTokens [][]byte
}

// Append implements Message.
func (m *Output) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "contract_output")
	e.uint(field("ledger_seq_no"), m.LedgerSeqNo)
	e.hash(field("ledger_hash"), m.LedgerHash)
	outputs := e.array(field("outputs"))
	for i, o := range m.Outputs {
		e.content(element(i), o)
	}
	e.end(outputs, ']')
	e.hash(field("output_hash"), m.OutputHash)
	e.tree(field("hash_tree"), &m.Tree)
	sigs := e.array(field("unl_sig"))
	for i := range m.Signatures {
		pair := e.array(element(i))
		e.bytes(element(0), m.Signatures[i].Key[:])
		e.bytes(element(1), m.Signatures[i].Sig[:])
		e.end(pair, ']')
	}
	e.end(sigs, ']')
	e.end(start, '}')
	return e.b
}

func (e *encoder) tree(a at, n *output.Node) {
	switch n.Kind {
	case output.OwnLeaf:
		e.null(a)
	case output.Group:
		start := e.array(a)
		for i := range n.Children {
			e.tree(element(i), &n.Children[i])
		}
		e.end(start, ']')
	default:
		e.bytes(a, n.Hash[:])
	}
}

// ReadResponse is one output of a read request.
type ReadResponse struct {
	ReplyFor string // the request's id
	Content  []byte // as Output.Outputs
}

// Append implements Message.
func (m *ReadResponse) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "contract_read_response")
	e.text(field("reply_for"), m.ReplyFor)
	e.content(field("content"), m.Content)
	e.end(start, '}')
	return e.b
}

// Stat is the state of a node.
type Stat struct {
	HPVersion                string
	LedgerSeqNo              uint64
	LedgerHash               digest.Hash
	VoteStatus               string
	RoundTime                uint64 // milliseconds
	ContractExecutionEnabled bool
	ReadRequestsEnabled      bool
	IsFullHistoryNode        bool
	WeaklyConnected          bool
	CurrentUNL               []key.Public
	Peers                    []string // host:port, at most MaxStatPeers are sent
	// DivergedRuns is how many runs of the contract since the node's start had
	// another result there than the agreed one. It is ours, and sent only when it
	// is not 0: the original has no such field.
	DivergedRuns uint64
}

// MaxStatPeers is how many peers a stat response names.
const MaxStatPeers = 100

// Append implements Message.
func (m *Stat) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "stat_response")
	e.text(field("hp_version"), m.HPVersion)
	e.uint(field("ledger_seq_no"), m.LedgerSeqNo)
	e.hash(field("ledger_hash"), m.LedgerHash)
	e.text(field("vote_status"), m.VoteStatus)
	e.uint(field("round_time"), m.RoundTime)
	e.boolean(field("contract_execution_enabled"), m.ContractExecutionEnabled)
	e.boolean(field("read_requests_enabled"), m.ReadRequestsEnabled)
	e.boolean(field("is_full_history_node"), m.IsFullHistoryNode)
	e.boolean(field("weakly_connected"), m.WeaklyConnected)
	e.keys(field("current_unl"), m.CurrentUNL)
	peers := e.array(field("peers"))
	for i, s := range m.Peers[:min(len(m.Peers), MaxStatPeers)] {
		e.text(element(i), s)
	}
	e.end(peers, ']')
	if m.DivergedRuns > 0 {
		e.uint(field("diverged_runs"), m.DivergedRuns)
	}
	e.end(start, '}')
	return e.b
}

// LCL names the last closed ledger.
type LCL struct {
	LedgerSeqNo uint64
	LedgerHash  digest.Hash
}

// Append implements Message.
func (m *LCL) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "lcl_response")
	e.uint(field("ledger_seq_no"), m.LedgerSeqNo)
	e.hash(field("ledger_hash"), m.LedgerHash)
	e.end(start, '}')
	return e.b
}

// UNLChange announces a new UNL.
type UNLChange struct {
	UNL []key.Public // sorted
}

// Append implements Message.
func (m *UNLChange) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "unl_change")
	e.keys(field("unl"), m.UNL)
	e.end(start, '}')
	return e.b
}

// LedgerRecord is a closed ledger as users see it (section 1.11).
type LedgerRecord struct {
	SeqNo      uint64
	Timestamp  uint64 // milliseconds since 1970
	Hash       digest.Hash
	PrevHash   digest.Hash
	StateHash  digest.Hash
	ConfigHash digest.Hash
	UserHash   digest.Hash
	InputHash  digest.Hash
	OutputHash digest.Hash

	// Inputs and Outputs are part of the message when they are not nil, even
	// if they are empty.
	Inputs  []LedgerInput
	Outputs []LedgerOutput
}

// LedgerInput is an input of a closed ledger.
type LedgerInput struct {
	Public key.Public
	Hash   digest.Hash
	Nonce  uint64
	Blob   []byte
}

// LedgerOutput holds the outputs for one user of a closed ledger.
type LedgerOutput struct {
	Public key.Public
	Hash   digest.Hash
	Blobs  [][]byte
}

func (e *encoder) record(r *LedgerRecord) {
	e.uint(field("seq_no"), r.SeqNo)
	e.uint(field("timestamp"), r.Timestamp)
	e.hash(field("hash"), r.Hash)
	e.hash(field("prev_hash"), r.PrevHash)
	e.hash(field("state_hash"), r.StateHash)
	e.hash(field("config_hash"), r.ConfigHash)
	e.hash(field("user_hash"), r.UserHash)
	e.hash(field("input_hash"), r.InputHash)
	e.hash(field("output_hash"), r.OutputHash)
	if r.Inputs != nil {
		list := e.array(field("inputs"))
		for i := range r.Inputs {
			in := &r.Inputs[i]
			one := e.object(element(i))
			e.bytes(field("pubkey"), in.Public[:])
			e.bytes(field("hash"), in.Hash[:])
			e.uint(field("nonce"), in.Nonce)
			e.bytes(field("blob"), in.Blob)
			e.end(one, '}')
		}
		e.end(list, ']')
	}
	if r.Outputs != nil {
		list := e.array(field("outputs"))
		for i := range r.Outputs {
			out := &r.Outputs[i]
			one := e.object(element(i))
			e.bytes(field("pubkey"), out.Public[:])
			e.bytes(field("hash"), out.Hash[:])
			blobs := e.array(field("blobs"))
			for j, blob := range out.Blobs {
				e.bytes(element(j), blob)
			}
			e.end(blobs, ']')
			e.end(one, '}')
		}
		e.end(list, ']')
	}
}

// LedgerCreated is the ledger_event of a closed ledger.
type LedgerCreated struct {
	Ledger LedgerRecord
}

// Append implements Message.
func (m *LedgerCreated) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "ledger_event")
	e.text(field("event"), "ledger_created")
	ledger := e.object(field("ledger"))
	e.record(&m.Ledger)
	e.end(ledger, '}')
	e.end(start, '}')
	return e.b
}

// VoteStatus is the ledger_event of a changed vote status.
type VoteStatus struct {
	Status string
}

// Append implements Message.
func (m *VoteStatus) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "ledger_event")
	e.text(field("event"), "vote_status")
	e.text(field("vote_status"), m.Status)
	e.end(start, '}')
	return e.b
}

// Latency sums up measured times in milliseconds.
type Latency struct {
	Min, Max, Avg uint64
}

func (e *encoder) latency(a at, l Latency) {
	start := e.object(a)
	e.uint(field("min"), l.Min)
	e.uint(field("max"), l.Max)
	e.uint(field("avg"), l.Avg)
	e.end(start, '}')
}

// ProposalHealth is the health_event about proposals.
type ProposalHealth struct {
	CommLatency Latency
	ReadLatency Latency
	BatchSize   uint64
}

// Append implements Message.
func (m *ProposalHealth) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "health_event")
	e.text(field("event"), "proposal")
	e.latency(field("comm_latency"), m.CommLatency)
	e.latency(field("read_latency"), m.ReadLatency)
	e.uint(field("batch_size"), m.BatchSize)
	e.end(start, '}')
	return e.b
}

// Connectivity is the health_event about peers.
type Connectivity struct {
	PeerCount       uint64
	WeaklyConnected bool
}

// Append implements Message.
func (m *Connectivity) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "health_event")
	e.text(field("event"), "connectivity")
	e.uint(field("peer_count"), m.PeerCount)
	e.boolean(field("weakly_connected"), m.WeaklyConnected)
	e.end(start, '}')
	return e.b
}

// ErrorExecFailure is the error of a ledger query that could not be answered.
const ErrorExecFailure = "exec_failure"

// QueryResult answers a ledger query.
type QueryResult struct {
	ReplyFor string
	Error    string // "" travels as null
	Results  []LedgerRecord
}

// Append implements Message.
func (m *QueryResult) Append(b []byte, p Protocol) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), "ledger_query_result")
	e.text(field("reply_for"), m.ReplyFor)
	if m.Error == "" {
		e.null(field("error"))
	} else {
		e.text(field("error"), m.Error)
	}
	list := e.array(field("results"))
	for i := range m.Results {
		one := e.object(element(i))
		e.record(&m.Results[i])
		e.end(one, '}')
	}
	e.end(list, ']')
	e.end(start, '}')
	return e.b
}
