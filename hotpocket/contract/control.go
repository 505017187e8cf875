package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// PeerChange is a contract's wish to change the node's known peers
// (spec/hotpocket.md section 2.6). Peers are "host:port".
type PeerChange struct {
	Add    []string
	Remove []string
	// ReplaceAll means that Add is the whole new list.
	ReplaceAll bool
}

// errControlUnknown marks a well-formed message of a type that means nothing to
// this node.
var errControlUnknown = errors.New("unknown type")

// maxPeerChange bounds both lists of a change; a packet has room for more.
const maxPeerChange = 4096

// parseControl reads a message that a contract sent on its control socket.
func parseControl(b []byte) (PeerChange, error) {
	var msg struct {
		Type   string          `json:"type"`
		Add    *[]string       `json:"add"`
		Remove json.RawMessage `json:"remove"`
	}
	// Contracts in C may send their terminating zero.
	b = bytes.TrimRight(b, "\x00")
	var head struct {
		Type *string `json:"type"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return PeerChange{}, fmt.Errorf("control message: %w", err)
	}
	if head.Type == nil {
		return PeerChange{}, errors.New(`control message has no "type"`)
	}
	if *head.Type != "peer_changeset" {
		return PeerChange{}, fmt.Errorf("control message of %w %.40q", errControlUnknown, *head.Type)
	}
	if err := json.Unmarshal(b, &msg); err != nil {
		return PeerChange{}, fmt.Errorf("peer_changeset: %w", err)
	}
	if msg.Add == nil {
		return PeerChange{}, errors.New(`peer_changeset: "add" must be an array`)
	}
	change := PeerChange{Add: *msg.Add}
	var all string
	switch {
	case json.Unmarshal(msg.Remove, &all) == nil && all == "*":
		change.ReplaceAll = true
	case len(msg.Remove) == 0 || msg.Remove[0] != '[' || json.Unmarshal(msg.Remove, &change.Remove) != nil:
		return PeerChange{}, errors.New(`peer_changeset: "remove" must be an array of peers or "*"`)
	}
	if len(change.Add)+len(change.Remove) > maxPeerChange {
		return PeerChange{}, fmt.Errorf("peer_changeset: %d peers, at most %d are allowed", len(change.Add)+len(change.Remove), maxPeerChange)
	}
	for _, list := range [][]string{change.Add, change.Remove} {
		for _, p := range list {
			if err := checkPeer(p); err != nil {
				return PeerChange{}, fmt.Errorf("peer_changeset: %w", err)
			}
		}
	}
	return change, nil
}

func checkPeer(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return fmt.Errorf("peer %.80q is not host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("peer %.80q has no valid port", s)
	}
	return nil
}

// controlFromContract takes a control message that the contract sent.
func (e *Execution) controlFromContract(b []byte) {
	if len(b) > MaxPacket {
		e.complain("contract sent a control message that is too large, it is ignored", "limit", MaxPacket)
		return
	}
	change, err := parseControl(b)
	switch {
	case errors.Is(err, errControlUnknown):
		e.log.Debug("control message ignored", "reason", err)
	case err != nil:
		e.complain("contract sent a malformed control message, it is ignored", "error", err)
	case e.hooks.Peers != nil:
		e.hooks.Peers(change)
	}
}

// SendControl sends the contract a message on its control socket, JSON by
// convention. The bytes must not be changed afterwards. It never blocks; what
// the contract leaves unread beyond the bounds of its queue is dropped.
func (e *Execution) SendControl(msg []byte) error {
	if len(msg) == 0 || len(msg) > MaxPacket {
		return fmt.Errorf("control message of %d bytes, it must have 1 to %d", len(msg), MaxPacket)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.controlIn.push(msg) {
		e.watch(tagControl)
	}
	return nil
}
