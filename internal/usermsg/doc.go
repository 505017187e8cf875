// Package usermsg is the message codec of the user protocol: what users and
// nodes say to each other over a WebSocket, in JSON and in BSON, byte for byte
// as spec/hotpocket.md sections 1.3 to 1.12 describe it.
//
// The gateway of a node and the client library share it: either side of every
// message is here, so that the two cannot drift apart. Writing is appending to
// a slice, reading returns values that alias nothing of what was read. Each
// message is written once, against an encoder that knows both forms, and read
// once, against a value that hides which form it came in.
//
// The package holds no state, does no I/O, verifies no signature and decides
// nothing: whether an input is acceptable is for others to say.
package usermsg

import (
	"errors"
	"fmt"
)

// Protocol is the form in which messages travel after the handshake.
type Protocol uint8

// The two forms of spec/hotpocket.md section 1.4.
const (
	JSON Protocol = iota
	BSON
)

// String returns the protocol's name in the handshake, "json" or "bson".
func (p Protocol) String() string {
	switch p {
	case JSON:
		return "json"
	case BSON:
		return "bson"
	}
	return fmt.Sprintf("protocol(%d)", uint8(p))
}

// ParseProtocol reads "json" or "bson".
func ParseProtocol(s string) (Protocol, error) {
	switch s {
	case "json":
		return JSON, nil
	case "bson":
		return BSON, nil
	}
	return 0, fmt.Errorf("protocol %q, want json or bson", s)
}

// The two statuses of an input.
const (
	StatusAccepted = "accepted"
	StatusRejected = "rejected"
)

// The vote statuses of a node.
const (
	VoteUnknown    = "unknown"
	VoteUnreliable = "unreliable"
	VoteDesync     = "desync"
	VoteSynced     = "synced"
)

// ErrUnknownType is the error of a well-formed message whose type nobody
// knows.
var ErrUnknownType = errors.New("unknown message type")
