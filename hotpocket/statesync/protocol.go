// Package statesync moves states between nodes: it serves the pieces of the
// local state to peers, and brings the local state to a root that the cluster
// agreed on by fetching what is missing from many peers at once.
//
// It walks the wanted tree from its root down. A piece is asked for by its
// hash, so the answer proves itself on arrival, whoever gave it: a peer that
// answers wrongly is named to the node and not asked again, one that does not
// have a piece is passed over for it. Subtrees, files and blocks that the local
// state has already are not fetched, and what an interrupted sync has fetched
// is used by the next. Package statefs holds the pieces on disk; the node hands
// in the transport and decides what to fetch and when. This package knows
// nothing of consensus and never decides whether a root is the right one.
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
	maxRefs   = 256
	maxPath   = 64 << 10
	softReply = 1 << 20

	// MaxRequest and MaxReply are what a transport has to carry, in bytes.
	MaxRequest = 1 << 20
	MaxReply   = softReply + statefs.MaxObject + 16*maxRefs

	// MaxBlob is the largest value that Blob fetches.
	MaxBlob = statefs.MaxObject
)

const protocolVersion = 1

type status uint8

const (
	statusFound   status = 0
	statusMissing status = 1 // the peer does not have it
	statusLater   status = 2 // the reply was full; ask again
)

type answer struct {
	status status
	data   []byte
}

// A request is u8 version, u32 count, and for each reference u8 kind, path,
// 32-byte hash, u32 index.
func encodeRequest(refs []statefs.Ref) []byte {
	b := wire.AppendU8(nil, protocolVersion)
	b = wire.AppendU32(b, uint32(len(refs)))
	for i := range refs {
		r := &refs[i]
		b = wire.AppendU8(b, uint8(r.Kind))
		b = wire.AppendString(b, r.Path)
		b = append(b, r.Hash[:]...)
		b = wire.AppendU32(b, r.Index)
	}
	return b
}

// refBytes is the size of a reference in a request, without its path.
const refBytes = 1 + 4 + digest.Size + 4

func decodeRequest(b []byte) ([]statefs.Ref, error) {
	if len(b) > MaxRequest {
		return nil, fmt.Errorf("sync request of %d bytes, at most %d are allowed", len(b), MaxRequest)
	}
	r := wire.NewReader(b)
	if v := r.U8(); r.Err() == nil && v != protocolVersion {
		return nil, fmt.Errorf("sync request of version %d, this node speaks %d", v, protocolVersion)
	}
	n := r.Count(maxRefs, refBytes)
	refs := make([]statefs.Ref, n)
	for i := range refs {
		ref := &refs[i]
		ref.Kind = statefs.RefKind(r.U8())
		ref.Path = r.String(maxPath)
		r.Fixed(ref.Hash[:])
		ref.Index = r.U32()
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("sync request: %w", err)
	}
	return refs, nil
}

// A reply is u32 count and for each reference, in the order of the request, u8
// status and, when found, the bytes.
func appendAnswer(b []byte, a answer) []byte {
	b = wire.AppendU8(b, uint8(a.status))
	if a.status == statusFound {
		b = wire.AppendBytes(b, a.data)
	}
	return b
}

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
		case statusFound:
			a.data = r.View(statefs.MaxObject)
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
