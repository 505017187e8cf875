package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"
)

// PostExecScript is the name of a script that the node runs after the contract's
// process has ended, if it is in the state folder: with the ledger's number and
// hash as arguments. It is deleted when it ends with 0 and kept when it ends with
// 3 to 125.
const PostExecScript = "post_exec.sh"

// Mode says what the program was started for.
type Mode string

// The modes.
const (
	Consensus   Mode = "consensus"          // a ledger was closed
	ReadRequest Mode = "read_req"           // a user asked for something
	Fallback    Mode = "consensus_fallback" // no ledger could be closed
)

// Context is what the node tells the contract and the ways to answer.
type Context struct {
	// ContractID is the same on all nodes of a cluster.
	ContractID string
	// HPVersion is the version of the protocol.
	HPVersion string
	// PublicKey names this node, 66 hex digits; PrivateKey is its secret, 130 hex
	// digits. Both differ between nodes.
	PublicKey, PrivateKey string
	// Mode is why the program runs. ReadOnly is true in a read request.
	Mode     Mode
	ReadOnly bool
	// Timestamp is that of the ledger, the only clock all nodes agree on, in Unix
	// milliseconds; 0 in a read request.
	Timestamp uint64
	// LedgerSeq and LedgerHash (64 hex digits) are of the ledger that holds the
	// inputs; 0 and empty in a read request.
	LedgerSeq  uint64
	LedgerHash string
	// Users are those connected to any node of the cluster, in the same order
	// everywhere. In a read request there is one, with one input.
	Users []*User
	// UNL is the list of nodes that decide, and the channel between them.
	UNL *UNL

	controlFD int
}

// Time is the ledger's time in UTC; the zero time in a read request.
func (c *Context) Time() time.Time {
	if c.Timestamp == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(c.Timestamp)).UTC()
}

// User finds a user by public key, nil if not connected.
func (c *Context) User(publicKey string) *User {
	for _, u := range c.Users {
		if u.PublicKey == publicKey {
			return u
		}
	}
	return nil
}

// Run calls fn with what the node tells on standard input, and ends the program
// when fn returns. An error is printed to standard error and makes the exit code
// 1; the node takes outputs and state as they are all the same, so a contract
// that wants a failed operation undone must see to that.
func Run(fn func(*Context) error) {
	ctx, err := Load(os.Stdin)
	if err == nil {
		err = fn(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "contract:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// arguments is the JSON on standard input (spec/hotpocket.md section 2.2).
type arguments struct {
	HPVersion  string          `json:"hp_version"`
	ContractID string          `json:"contract_id"`
	PublicKey  string          `json:"public_key"`
	PrivateKey string          `json:"private_key"`
	Timestamp  uint64          `json:"timestamp"`
	ReadOnly   bool            `json:"readonly"`
	Mode       Mode            `json:"mode"`
	LedgerSeq  uint64          `json:"lcl_seq_no"`
	LedgerHash string          `json:"lcl_hash"`
	NPL        *int            `json:"npl_fd"`
	Control    int             `json:"control_fd"`
	UserIn     int             `json:"user_in_fd"`
	Users      json.RawMessage `json:"users"`
	UNL        json.RawMessage `json:"unl"`
}

// Load reads what the node tells from r, usually os.Stdin. Run calls it; a
// program calls it only to use the Context in its own way. The descriptors named
// there must be open.
func Load(r io.Reader) (*Context, error) {
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return nil, errors.New("this program is a contract: it is run by a HotPocket node")
		}
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read the node's arguments: %w", err)
	}
	var args arguments
	if err := json.Unmarshal(text, &args); err != nil {
		return nil, fmt.Errorf("read the node's arguments: %w", err)
	}
	c := &Context{
		ContractID: args.ContractID, HPVersion: args.HPVersion,
		PublicKey: args.PublicKey, PrivateKey: args.PrivateKey,
		Mode: args.Mode, ReadOnly: args.ReadOnly, Timestamp: args.Timestamp,
		LedgerSeq: args.LedgerSeq, LedgerHash: args.LedgerHash, controlFD: args.Control,
	}
	switch {
	case c.Mode == "" && c.ReadOnly:
		c.Mode = ReadRequest
	case c.Mode == "":
		c.Mode = Consensus
	case c.Mode == ReadRequest:
		c.ReadOnly = true
	}
	if c.Users, err = loadUsers(args.Users, args.UserIn); err != nil {
		return nil, err
	}
	if c.UNL, err = loadUNL(args.UNL, args.NPL); err != nil {
		return nil, err
	}
	return c, nil
}

// members calls fn for each member of a JSON object in the order of the text,
// which encoding/json does not keep.
func members(object json.RawMessage, fn func(key string, d *json.Decoder) error) error {
	if len(object) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(object))
	if t, err := d.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return errors.New("not an object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok {
			return errors.New("a member has no name")
		}
		if err := fn(name, d); err != nil {
			return err
		}
	}
	return nil
}

// UpdatePeers asks the node to connect to some peers, "host:port", and to forget
// others.
func (c *Context) UpdatePeers(add, remove []string) error {
	// The node wants arrays, never null.
	return c.control(map[string]any{"type": "peer_changeset", "add": append([]string{}, add...), "remove": append([]string{}, remove...)})
}

// ReplacePeers asks the node to know exactly the given peers.
func (c *Context) ReplacePeers(peers []string) error {
	return c.control(map[string]any{"type": "peer_changeset", "add": append([]string{}, peers...), "remove": "*"})
}

func (c *Context) control(message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("control message of %d bytes, at most %d are allowed", len(b), MaxMessage)
	}
	for {
		_, err := syscall.Write(c.controlFD, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("control message: %w", err)
		}
		return nil
	}
}

func number(n json.Number) (int, error) {
	v, err := strconv.ParseInt(n.String(), 10, 63)
	if err != nil || v < 0 {
		return 0, fmt.Errorf("%q is not a position", n)
	}
	return int(v), nil
}
