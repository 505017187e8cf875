package consensus

import (
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// Now is the time at which an event happens, handed in by the caller.
type Now struct {
	// Mono is a monotonic clock since any fixed moment.
	Mono time.Duration
	// Clock is the wall clock in milliseconds since 1970. It may jump; it is
	// only ever reported to the other members.
	Clock uint64
}

// Action is what the caller of a Core has to do, in the order given: a
// Persist, Send, Close, Want, Behind or Notice.
//
// A Send must not leave before every Persist and Close that was given before
// it, in this or an earlier step, is durable. That is the whole of the
// protocol's demand on the disk. It goes for everything that leaves the node:
// a ledger is not served to peers, and nothing that follows from it is told to
// users, before its Close is durable. Until then the lock behind this node's own
// commit may not be on disk either, and a crash could forget both.
type Action interface{ action() }

// Persist asks for a record to be appended to the node's journal. After a
// restart the records since the last durable ledger are given back in Restored.
type Persist struct {
	Record []byte
	// Locked is the candidate that the record locks, nil for other records. Its
	// bundles and lists of users have to be durable too: whatever closes is
	// held by q members, even if all of them lose power at once.
	Locked *Header
}

// Send asks for a message to be sent to everybody or, with a To that is not
// zero, to one node.
type Send struct {
	To      key.Public
	Message Message
	// Again says that the message was sent before and may have been lost.
	Again bool
}

// Close says that a ledger has closed. It is to be persisted with its
// certificate, and Core.Advance has to be called before the protocol goes on.
type Close struct {
	Header      Header
	Hash        digest.Hash
	Certificate Certificate
	// OutputSigs are the members' signatures of Header.Result.Output that came
	// with their proposals.
	OutputSigs []Signed
}

// Want asks for content that others hold: a bundle, a list of users, or with
// Header set a candidate ledger, which comes back through Core.HeaderArrived.
// From is who should have it; as long as it is needed and has not come, the
// next one who should is named in another Want a moment later.
type Want struct {
	Hash   digest.Hash
	Header bool
	From   []key.Public
}

// Behind says that From seems to have a ledger of that height, while this node
// cannot reach it by messages alone: it has to fetch ledgers with their
// certificates. It is a claim, of a liar maybe, or a guess after a long silence;
// another Behind may name somebody else.
type Behind struct {
	Height uint64
	From   key.Public
}

// Notice is something an operator may want to read in the log.
type Notice struct {
	Text string
	// Fault says that Member did something an honest member never does.
	Fault  bool
	Member key.Public
}

func (Persist) action() {}
func (Send) action()    {}
func (Close) action()   {}
func (Want) action()    {}
func (Behind) action()  {}
func (Notice) action()  {}
