// Package statesync moves states between nodes: it serves the pieces of the
// local state to peers, and brings the local state to a root that the cluster
// agreed on by fetching what is missing from many peers at once.
//
// It walks the wanted tree from its root down. A piece is asked for by its
// hash, so the answer proves itself on arrival, whoever gave it: a peer that
// answers wrongly is named to the node and not asked again, one that does not
// have a piece is passed over for it, and what one is slow with is asked of
// another. Subtrees, files and blocks that the local state has already are not
// fetched, of blocks and folders that changed a little only the changes are, and
// what an interrupted sync has fetched is used by the next. Package statefs
// holds the pieces on disk; the node hands in the transport and decides what to
// fetch and when. This package knows nothing of consensus and never decides
// whether a root is the right one.
//
// # Memory
//
// A Client needs memory that does not grow with the state: at most maxFlight
// bytes of answers under way and being stored, maxQueue pieces known to be
// missing, maxHeld bytes of folders and lists of groups whose content is being
// fetched, and the folders on the path from the root to them. A Server needs
// one answer for each request that it answers at a time. What a backend of
// statefs keeps of a state comes on top.
package statesync

import (
	"fmt"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// RefBlob asks for an opaque value by its plain BLAKE3 hash, whatever the
// node's Blobs function has under it. It continues the kinds of statefs.
const RefBlob statefs.RefKind = 6

// Limits of a message. A reply carries at least one piece, and no more once it
// has grown past softReply, so it stays below MaxReply.
const (
	maxRefs   = 1024
	maxPath   = 64 << 10
	maxHave   = 64 << 10
	softReply = 1 << 20

	// MaxRequest and MaxReply are what a transport has to carry, in bytes.
	MaxRequest = 1 << 20
	MaxReply   = softReply + statefs.MaxObject + 16*maxRefs

	// MaxBlob is the largest value that Blob fetches.
	MaxBlob = statefs.MaxObject
)

const protocolVersion = 2

type status uint8

const (
	statusFound   status = 0
	statusMissing status = 1 // the peer does not have it
	statusLater   status = 2 // the reply was full; ask again
	statusDelta   status = 3 // how it follows from what the asker has (delta.go)
)

type answer struct {
	status status
	data   []byte
	at     int // where data begins in the reply
}

// question is one reference of a request. have, which may be empty, tells what
// the asker has in its place (delta.go).
type question struct {
	statefs.Ref
	have []byte
}

// Flags beside the kind of a question.
const (
	flagHave     = 0x80 // have follows
	flagSameHash = 0x40 // the hash is that of the question before
	kindMask     = 0x3f
)

// A request is u8 version, the 32-byte root that the asker is after, u32 count,
// and for each question u8 kind and flags, u16 how many bytes the path shares
// with the one before, the rest of the path, unless flagSameHash the 32-byte
// hash, u32 index, and with flagHave the bytes of have.
func encodeRequest(root digest.Hash, questions []question) []byte {
	b := wire.AppendU8(make([]byte, 0, 64+64*len(questions)), protocolVersion)
	b = append(b, root[:]...)
	b = wire.AppendU32(b, uint32(len(questions)))
	var last statefs.Ref
	for i := range questions {
		q := &questions[i]
		kind, shared := uint8(q.Kind), shared(last.Path, q.Path)
		if len(q.have) > 0 {
			kind |= flagHave
		}
		if i > 0 && q.Hash == last.Hash {
			kind |= flagSameHash
		}
		b = wire.AppendU8(b, kind)
		b = wire.AppendU16(b, uint16(shared))
		b = wire.AppendString(b, q.Path[shared:])
		if kind&flagSameHash == 0 {
			b = append(b, q.Hash[:]...)
		}
		b = wire.AppendU32(b, q.Index)
		if len(q.have) > 0 {
			b = wire.AppendBytes(b, q.have)
		}
		last = q.Ref
	}
	return b
}

// questionBytes is the least a question takes in a request.
const questionBytes = 1 + 2 + 4 + 4

// requestSize is how many bytes a question takes at most.
func (q *question) requestSize() int {
	return questionBytes + len(q.Path) + digest.Size + 4 + len(q.have)
}

func shared(a, b string) int {
	n := min(len(a), len(b), 1<<16-1)
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func decodeRequest(b []byte) (root digest.Hash, questions []question, err error) {
	if len(b) > MaxRequest {
		return root, nil, fmt.Errorf("sync request of %d bytes, at most %d are allowed", len(b), MaxRequest)
	}
	r := wire.NewReader(b)
	if v := r.U8(); r.Err() == nil && v != protocolVersion {
		return root, nil, fmt.Errorf("sync request of version %d, this node speaks %d", v, protocolVersion)
	}
	r.Fixed(root[:])
	questions = make([]question, r.Count(maxRefs, questionBytes))
	var last statefs.Ref
	for i := range questions {
		q := &questions[i]
		kind := r.U8()
		q.Kind = statefs.RefKind(kind & kindMask)
		same := int(r.U16())
		rest := r.String(maxPath)
		if r.Err() == nil && (same > len(last.Path) || same+len(rest) > maxPath) {
			r.Fail(fmt.Errorf("path shares %d bytes with one of %d", same, len(last.Path)))
		}
		if r.Err() != nil {
			break
		}
		if q.Path = rest; same > 0 {
			q.Path = last.Path[:same] + rest
		}
		if q.Hash = last.Hash; kind&flagSameHash == 0 {
			r.Fixed(q.Hash[:])
		}
		q.Index = r.U32()
		if kind&flagHave != 0 {
			q.have = r.View(maxHave)
		}
		last = q.Ref
	}
	if err := r.Close(); err != nil {
		return root, nil, fmt.Errorf("sync request: %w", err)
	}
	return root, questions, nil
}

// A reply is u32 count and for each question, in the order of the request, u8
// status and, when found or told as a delta, the bytes.
func appendAnswer(b []byte, a answer) []byte {
	b = wire.AppendU8(b, uint8(a.status))
	if a.status == statusFound || a.status == statusDelta {
		b = wire.AppendBytes(b, a.data)
	}
	return b
}

// decodeReply reads a reply. The answers point into b.
func decodeReply(b []byte, want int) ([]answer, error) {
	if len(b) > MaxReply {
		return nil, fmt.Errorf("sync reply of %d bytes, at most %d are allowed", len(b), MaxReply)
	}
	r := wire.NewReader(b)
	n := r.Count(maxRefs, 1)
	if r.Err() == nil && n != want {
		return nil, fmt.Errorf("sync reply has %d answers to %d questions", n, want)
	}
	answers := make([]answer, n)
	for i := range answers {
		a := &answers[i]
		a.status = status(r.U8())
		switch a.status {
		case statusFound, statusDelta:
			a.data = r.View(statefs.MaxObject)
			a.at = len(b) - r.Len() - len(a.data)
		case statusMissing, statusLater:
		default:
			r.Fail(fmt.Errorf("unknown status %d", a.status))
		}
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("sync reply: %w", err)
	}
	return answers, nil
}
