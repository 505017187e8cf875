package client

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/usermsg"
)

// Protocol is the form in which messages travel.
type Protocol uint8

// The two protocols. JSON is the default, as in the JavaScript client. With it
// inputs and outputs are text; BSON carries any bytes.
const (
	JSON Protocol = iota
	BSON
)

func (p Protocol) wire() usermsg.Protocol {
	if p == BSON {
		return usermsg.BSON
	}
	return usermsg.JSON
}

// Hash is a 32-byte BLAKE3 hash.
type Hash [32]byte

// String returns 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// LedgerRef names a closed ledger.
type LedgerRef struct {
	SeqNo uint64
	Hash  Hash
}

// Output is what a contract had to say to the user in one run.
type Output struct {
	// Ledger confirms the outputs. The inputs of the run are in the ledger
	// before it.
	Ledger LedgerRef
	// Outputs are the outputs in the order in which they were made. With JSON,
	// an output that is a JSON string arrives without its quotes.
	Outputs [][]byte
	Hash    Hash
	// Verified says that enough trusted nodes have signed the outputs.
	Verified bool
	// Server delivered the outputs.
	Server string
}

// Channel is a stream of events to which a client can subscribe.
type Channel uint8

// The channels.
const (
	UNLChange Channel = iota
	LedgerEvents
	HealthEvents
	channelCount
)

var channelOnWire = [channelCount]usermsg.Channel{usermsg.ChannelUNLChange, usermsg.ChannelLedgerEvent, usermsg.ChannelHealthEvent}

// Ledger is a closed ledger as a node tells it.
type Ledger struct {
	SeqNo      uint64
	Timestamp  time.Time
	Hash       Hash
	PrevHash   Hash
	StateHash  Hash
	ConfigHash Hash
	UserHash   Hash
	InputHash  Hash
	OutputHash Hash
	Inputs     []LedgerInput  // if asked for and kept by the node
	Outputs    []LedgerOutput // if asked for and kept by the node
}

// LedgerInput is an input in a ledger. Its blob is empty when it is another
// user's and the contract is private.
type LedgerInput struct {
	User  key.Public
	Hash  Hash
	Nonce uint64
	Blob  []byte
}

// LedgerOutput holds the outputs for one user in a ledger.
type LedgerOutput struct {
	User  key.Public
	Hash  Hash
	Blobs [][]byte
}

func ledgerOf(r *usermsg.LedgerRecord) Ledger {
	l := Ledger{SeqNo: r.SeqNo, Timestamp: time.UnixMilli(int64(r.Timestamp)), Hash: Hash(r.Hash), PrevHash: Hash(r.PrevHash), StateHash: Hash(r.StateHash),
		ConfigHash: Hash(r.ConfigHash), UserHash: Hash(r.UserHash), InputHash: Hash(r.InputHash), OutputHash: Hash(r.OutputHash)}
	for _, in := range r.Inputs {
		l.Inputs = append(l.Inputs, LedgerInput{in.Public, Hash(in.Hash), in.Nonce, in.Blob})
	}
	for _, out := range r.Outputs {
		l.Outputs = append(l.Outputs, LedgerOutput{out.Public, Hash(out.Hash), out.Blobs})
	}
	return l
}

// NodeStatus is how a node describes itself.
type NodeStatus struct {
	HPVersion                string
	Ledger                   LedgerRef
	VoteStatus               string // unknown, unreliable, desync or synced
	RoundTime                time.Duration
	ContractExecutionEnabled bool
	ReadRequestsEnabled      bool
	FullHistory              bool
	WeaklyConnected          bool
	UNL                      []key.Public
	Peers                    []string // host:port
	// DivergedRuns is how many runs of the contract since the node's start had
	// another result there than the agreed one: more than 0 asks whether the
	// contract is deterministic. Nodes of the original do not tell.
	DivergedRuns uint64
}

// Latency sums up measured times.
type Latency struct {
	Min, Max, Avg time.Duration
}

func latencyOf(l usermsg.Latency) Latency {
	ms := func(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }
	return Latency{ms(l.Min), ms(l.Max), ms(l.Avg)}
}

// Health is a health event. One of the two parts is set.
type Health struct {
	Proposal     *ProposalHealth
	Connectivity *Connectivity
}

// ProposalHealth is about how proposals travel.
type ProposalHealth struct {
	Comm, Read Latency
	BatchSize  uint64
}

// Connectivity is about a node's peers.
type Connectivity struct {
	PeerCount       uint64
	WeaklyConnected bool
}

// Handler holds the functions that are called with what happens. Each may be
// nil. The server is the one that said so.
type Handler struct {
	// Output is called with the outputs of each run, once, however many nodes
	// deliver them.
	Output func(Output)
	// Untrusted is called with outputs that could not be verified and were
	// therefore not given to Output.
	Untrusted func(Output, error)
	// Connection is called when a server was connected to or lost.
	Connection func(server string, connected bool)
	// UNLChange, Ledger, VoteStatus and Health are called for the channels that
	// the client subscribed to.
	UNLChange  func(server string, unl []key.Public)
	Ledger     func(server string, l Ledger)
	VoteStatus func(server, status string)
	Health     func(server string, h Health)
}

// Errors of a client. More detail may be wrapped around them.
var (
	// ErrNotConnected: no node is connected at the moment.
	ErrNotConnected = errors.New("not connected to any node")
	// ErrConnectionLost: the connection broke before the answer came. An input
	// may have been taken nevertheless.
	ErrConnectionLost = errors.New("connection was lost before the answer came")
	// ErrDisconnected: the client has given up because it could not keep its
	// connections.
	ErrDisconnected = errors.New("required connections could not be kept")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("client is closed")
	// ErrNoStatus: the last ledger in which the input could have been is
	// closed, and nothing was heard of the input.
	ErrNoStatus = errors.New("ledgers went by without a word about the input")
	// ErrNotFound: the node does not have the ledger.
	ErrNotFound = errors.New("ledger is not known to the node")
	// ErrQueryFailed: the node could not answer a ledger query.
	ErrQueryFailed = errors.New("node could not answer the query")
)

// Reasons of a RejectedError.
const (
	ReasonBadFormat            = "bad_msg_format"
	ReasonInvalidType          = "invalid_msg_type"
	ReasonBadSignature         = "bad_sig"
	ReasonLedgerExpired        = "max_ledger_expired"
	ReasonLedgerOffsetExceeded = "max_ledger_offset_exceeded"
	ReasonNonceExpired         = "nonce_expired"
	ReasonAlreadySubmitted     = "already_submitted"
	// ReasonOverflow also says that the node is too busy.
	ReasonOverflow = "round_inputs_overflow"
)

// RejectedError says that the cluster did not take an input.
type RejectedError struct {
	Reason string
}

// Error implements error.
func (e *RejectedError) Error() string { return fmt.Sprintf("input was rejected: %s", e.Reason) }
