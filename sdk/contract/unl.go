package contract

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// MaxMessage is the largest NPL message in bytes.
const MaxMessage = 128 << 10

// ErrReadOnly is returned in a read request, which has no NPL.
var ErrReadOnly = errors.New("not available in a read request")

// UNL is the list of the nodes whose word counts, and the node party line (NPL),
// on which the contract's processes on those nodes talk to each other while a
// ledger is executed. What is said there is not replicated: the processes must
// come to one conclusion by themselves before they write it into the state.
type UNL struct {
	members []Member
	npl     *os.File
	buf     []byte
	from    string // sender of the message whose content has not been read
}

// Member is a node of the UNL.
type Member struct {
	// PublicKey names the node, 66 hex digits.
	PublicKey string
	// ActiveOn is when this node last heard of it, Unix milliseconds, 0 if never.
	// It differs between nodes.
	ActiveOn uint64
}

// Message is an NPL message.
type Message struct {
	// From is the public key of the sending node.
	From string
	Data []byte
}

// Members are the members, sorted by key.
func (u *UNL) Members() []Member { return u.members }

// Find finds a member by its public key.
func (u *UNL) Find(publicKey string) (Member, bool) {
	for _, m := range u.members {
		if m.PublicKey == publicKey {
			return m, true
		}
	}
	return Member{}, false
}

// Send sends a message of 1 to MaxMessage bytes to the contract's processes on
// all nodes. This one receives it too, if its node is a member.
func (u *UNL) Send(message []byte) error {
	if u.npl == nil {
		return ErrReadOnly
	}
	if len(message) == 0 || len(message) > MaxMessage {
		return fmt.Errorf("NPL message of %d bytes, it must have 1 to %d", len(message), MaxMessage)
	}
	if _, err := u.npl.Write(message); err != nil {
		return fmt.Errorf("send NPL message: %w", err)
	}
	return nil
}

// Receive waits for the next message until ctx ends. It returns io.EOF when the
// node has closed the line. Messages of one sender come in its order, those of
// different senders in any, and some may never come: a contract should always
// give a deadline. It must not be called concurrently.
func (u *UNL) Receive(ctx context.Context) (Message, error) {
	if u.npl == nil {
		return Message{}, ErrReadOnly
	}
	if err := ctx.Err(); err != nil {
		return Message{}, err
	}
	if err := u.npl.SetReadDeadline(time.Time{}); err != nil {
		return Message{}, fmt.Errorf("receive NPL message: %w", err)
	}
	interrupt := func() { u.npl.SetReadDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(ctx, interrupt)()
	if u.buf == nil {
		u.buf = make([]byte, MaxMessage)
	}
	for {
		n, err := u.npl.Read(u.buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			// The deadline may be that of an earlier call, set late.
			u.npl.SetReadDeadline(time.Time{})
			if ctx.Err() != nil {
				return Message{}, ctx.Err()
			}
		case errors.Is(err, io.EOF):
			return Message{}, io.EOF
		case err != nil:
			return Message{}, fmt.Errorf("receive NPL message: %w", err)
		case u.from == "":
			u.from = string(u.buf[:n])
		default:
			m := Message{From: u.from, Data: append([]byte(nil), u.buf[:n]...)}
			u.from = ""
			return m, nil
		}
	}
}

func loadUNL(object json.RawMessage, fd *int) (*UNL, error) {
	u := new(UNL)
	err := members(object, func(key string, d *json.Decoder) error {
		var m struct {
			ActiveOn uint64 `json:"active_on"`
		}
		if err := d.Decode(&m); err != nil {
			return err
		}
		u.members = append(u.members, Member{key, m.ActiveOn})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the UNL: %w", err)
	}
	if fd != nil {
		// The runtime waits for it only if it does not block; the descriptor is this
		// process's own.
		if err := syscall.SetNonblock(*fd, true); err != nil {
			return nil, fmt.Errorf("open the NPL channel: %w", err)
		}
		u.npl = os.NewFile(uintptr(*fd), "npl")
	}
	return u, nil
}
