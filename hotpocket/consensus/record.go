package consensus

import (
	"fmt"

	"evernode/hotpocket/key"
	"evernode/internal/wire"
)

// The first byte of a persisted record.
const (
	recordEntered = 1
	recordLock    = 2
)

// proven is a candidate with the q votes for it of one attempt.
type proven struct {
	attempt uint32
	header  Header
	votes   []*Ballot
}

func enteredRecord(height uint64, attempt uint32) []byte {
	b := wire.AppendU64([]byte{recordEntered}, height)
	return wire.AppendU32(b, attempt)
}

// lockRecord holds the votes too: after a restart they are what makes others
// accept the candidate again.
func lockRecord(height uint64, l *proven) []byte {
	b := wire.AppendU64([]byte{recordLock}, height)
	b = wire.AppendU32(b, l.attempt)
	b = l.header.Append(b)
	b = wire.AppendU32(b, uint32(len(l.votes)))
	for _, v := range l.votes {
		b = append(b, v.Author[:]...)
		b = append(b, v.Sig[:]...)
	}
	return b
}

func readLock(r *wire.Reader, height uint64, attempt uint32) *proven {
	l := &proven{attempt: attempt, header: readHeader(r)}
	hash := l.header.Hash()
	for n := r.Count(MaxMembers, key.PublicSize+key.SignatureSize); n > 0; n-- {
		v := &Ballot{Phase: Vote, Height: height, Attempt: attempt, Hash: hash}
		r.Fixed(v.Author[:])
		r.Fixed(v.Sig[:])
		l.votes = append(l.votes, v)
	}
	return l
}

// promises is what the records of one height amount to.
type promises struct {
	attempt uint32
	lock    *proven
}

// readPromises replays records and keeps what concerns height.
func readPromises(height uint64, records [][]byte) (promises, error) {
	var p promises
	for i, rec := range records {
		r := wire.NewReader(rec)
		kind, h, attempt := r.U8(), r.U64(), r.U32()
		var locked *proven
		switch kind {
		case recordEntered:
		case recordLock:
			locked = readLock(r, h, attempt)
		default:
			r.Fail(fmt.Errorf("unknown kind %d", kind))
		}
		if err := r.Close(); err != nil {
			return p, fmt.Errorf("consensus record %d of %d: %w", i+1, len(records), err)
		}
		if h != height {
			continue
		}
		p.attempt = max(p.attempt, attempt)
		if locked != nil && (p.lock == nil || attempt > p.lock.attempt) {
			p.lock = locked
		}
	}
	return p, nil
}
