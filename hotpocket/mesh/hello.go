package mesh

import (
	"errors"
	"fmt"
	"time"

	"evernode/internal/digest"
	"evernode/internal/wire"
)

// protocolVersion is the only version this node speaks.
const protocolVersion = 1

// helloMagic starts every hello; what follows it and the version may change
// with the version.
const helloMagic = "HPmesh"

// class tells the two connections between two nodes apart.
type class uint8

const (
	classUrgent class = 1
	classBulk   class = 2
)

const (
	flagObserver = 1 << iota
	flagForwards
)

// hello is what each side says first.
type hello struct {
	Contract digest.Hash // of the contract id: an outsider who asks does not learn it
	Class    class
	Session  [16]byte // chosen by the dialer, ties a bulk connection to its session
	Instance [16]byte // random per process: tells a restart from a second connection
	Port     uint16   // where the sender listens, 0 if it does not
	Flags    uint8
	// MaxMessage is the largest payload that the sender accepts, in bytes.
	MaxMessage uint32
	// Attempt numbers the dialer's bulk connections of a session from 1.
	Attempt uint32
	// Time is the sender's clock in milliseconds since 1970.
	Time uint64
}

func contractTag(id string) digest.Hash {
	return digest.Tagged("hotpocket mesh contract", []byte(id))
}

func (h hello) frame() []byte {
	var b []byte
	b = append(b, helloMagic...)
	b = wire.AppendU16(b, protocolVersion)
	b = append(b, h.Contract[:]...)
	b = wire.AppendU8(b, uint8(h.Class))
	b = append(b, h.Session[:]...)
	b = append(b, h.Instance[:]...)
	b = wire.AppendU16(b, h.Port)
	b = wire.AppendU8(b, h.Flags)
	b = wire.AppendU32(b, h.MaxMessage)
	b = wire.AppendU32(b, h.Attempt)
	b = wire.AppendU64(b, h.Time)
	return append(newFrame(frameHello, len(b)), b...)
}

// versionError is a hello of another protocol version.
type versionError uint16

func (v versionError) Error() string {
	return fmt.Sprintf("the other side speaks mesh protocol version %d, this node speaks %d", uint16(v), protocolVersion)
}

func parseHello(body []byte) (hello, error) {
	var h hello
	var magic [len(helloMagic)]byte
	r := wire.NewReader(body)
	r.Fixed(magic[:])
	version := r.U16()
	if r.Err() == nil && string(magic[:]) != helloMagic {
		return h, errors.New("hello: not from a mesh node")
	}
	if r.Err() == nil && version != protocolVersion {
		return h, versionError(version)
	}
	r.Fixed(h.Contract[:])
	h.Class = class(r.U8())
	r.Fixed(h.Session[:])
	r.Fixed(h.Instance[:])
	h.Port = r.U16()
	h.Flags = r.U8()
	h.MaxMessage = r.U32()
	h.Attempt = r.U32()
	h.Time = r.U64()
	if err := r.Close(); err != nil {
		return hello{}, fmt.Errorf("hello: %w", err)
	}
	if h.Class != classUrgent && h.Class != classBulk {
		return hello{}, fmt.Errorf("hello: connection class %d is unknown", h.Class)
	}
	return h, nil
}

func unixMilli(t time.Time) uint64 { return uint64(max(t.UnixMilli(), 0)) }

// byeCode is the reason for a close in a form that the other side acts on.
type byeCode uint8

const (
	byeOther     byeCode = 0
	byeShutdown  byeCode = 1 // the node stops; dial again soon
	byeDuplicate byeCode = 2 // there is, or will be, another connection
	byeContract  byeCode = 3 // another contract; do not dial again
	byeVersion   byeCode = 4 // another protocol version
	byeFull      byeCode = 5 // no room
	byeLimit     byeCode = 6 // a limit was broken
	byeRemoved   byeCode = 7 // the operator or contract removed the peer
	byeReplaced  byeCode = 8 // a newer connection took its place
)

// ByeError is the reason that a peer gave for closing or refusing a connection.
type ByeError struct {
	code byeCode
	Text string
}

// Error implements error.
func (e *ByeError) Error() string { return fmt.Sprintf("the peer says: %q", e.Text) }
