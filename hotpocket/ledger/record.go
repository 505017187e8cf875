package ledger

import (
	"fmt"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// Limits of what is stored.
const (
	// MaxBody is the greatest length of a Record's Body in bytes.
	MaxBody = 16 << 20
	// MaxRaw is the greatest encoded length of a ledger's raw data in bytes.
	MaxRaw = 512 << 20
	// MaxPromise is the greatest length of a promise in bytes.
	MaxPromise = 16 << 20
	// MaxMeta is the greatest length of one named value in bytes.
	MaxMeta = 1 << 20
)

// Record is one closed ledger in a form that knows nothing of the protocol.
type Record struct {
	Seq  uint64      // 1, 2, 3, …; ledger 0 is never stored
	Hash digest.Hash // identifies this ledger
	Prev digest.Hash // Hash of ledger Seq-1
	Time uint64      // milliseconds since 1970, not falling from ledger to ledger
	Body []byte      // header and certificate as the protocol encodes them
}

// RawInput is a user input that a ledger contains.
type RawInput struct {
	User  key.Public
	Hash  digest.Hash
	Nonce uint64
	Blob  []byte
}

// RawOutput is what the contract sent to one user in one run.
type RawOutput struct {
	User  key.Public
	Hash  digest.Hash // spec/hotpocket.md section 1.9: over the user's key and all blobs
	Blobs [][]byte
}

// Raw is the bulk data of a ledger. Outputs are those whose tree root the
// ledger itself contains: they come from the run that an earlier ledger
// started and this one confirmed, as users receive them (spec/hotpocket.md
// sections 1.7 and 1.11).
//
// A nil list means that the part is not known; a list that is empty but not
// nil says that the ledger has none.
type Raw struct {
	Inputs  []RawInput
	Outputs []RawOutput
}

func appendRecord(b []byte, r Record) []byte {
	b = wire.AppendU64(b, r.Seq)
	b = append(b, r.Hash[:]...)
	b = append(b, r.Prev[:]...)
	b = wire.AppendU64(b, r.Time)
	return wire.AppendBytes(b, r.Body)
}

func readRecord(r *wire.Reader) Record {
	var rec Record
	rec.Seq = r.U64()
	r.Fixed(rec.Hash[:])
	r.Fixed(rec.Prev[:])
	rec.Time = r.U64()
	rec.Body = r.Bytes(MaxBody)
	if r.Err() == nil && rec.Seq == 0 {
		r.Fail(fmt.Errorf("ledger with number 0"))
	}
	return rec
}

func parseRecord(b []byte) (Record, error) {
	r := wire.NewReader(b)
	rec := readRecord(r)
	if err := r.Close(); err != nil {
		return Record{}, fmt.Errorf("ledger record: %w", err)
	}
	return rec, nil
}

func (r Record) check() error {
	if r.Seq == 0 {
		return fmt.Errorf("ledger with number 0 cannot be stored")
	}
	if len(r.Body) > MaxBody {
		return fmt.Errorf("ledger %d has a body of %d bytes, at most %d are allowed", r.Seq, len(r.Body), MaxBody)
	}
	return nil
}

// clone copies what the caller may change.
func (r Record) clone() Record {
	r.Body = append(make([]byte, 0, len(r.Body)), r.Body...)
	return r
}

// The two parts of raw data, as stored: an empty encoding is an unknown part.
const (
	partInputs = iota
	partOutputs
	parts
)

func encodeInputs(in []RawInput) []byte {
	if in == nil {
		return nil
	}
	b := wire.AppendU32(nil, uint32(len(in)))
	for _, v := range in {
		b = append(b, v.User[:]...)
		b = append(b, v.Hash[:]...)
		b = wire.AppendU64(b, v.Nonce)
		b = wire.AppendBytes(b, v.Blob)
	}
	return b
}

func encodeOutputs(out []RawOutput) []byte {
	if out == nil {
		return nil
	}
	b := wire.AppendU32(nil, uint32(len(out)))
	for _, v := range out {
		b = append(b, v.User[:]...)
		b = append(b, v.Hash[:]...)
		b = wire.AppendU32(b, uint32(len(v.Blobs)))
		for _, blob := range v.Blobs {
			b = wire.AppendBytes(b, blob)
		}
	}
	return b
}

// size returns the length of the encoding of both parts.
func (r Raw) size() int {
	n := 8
	for _, v := range r.Inputs {
		n += key.PublicSize + digest.Size + 12 + len(v.Blob)
	}
	for _, v := range r.Outputs {
		n += key.PublicSize + digest.Size + 4
		for _, blob := range v.Blobs {
			n += 4 + len(blob)
		}
	}
	return n
}

func parseInputs(b []byte) ([]RawInput, error) {
	r := wire.NewReader(b)
	const least = key.PublicSize + digest.Size + 8 + 4
	in := make([]RawInput, r.Count(MaxRaw, least))
	for i := range in {
		r.Fixed(in[i].User[:])
		r.Fixed(in[i].Hash[:])
		in[i].Nonce = r.U64()
		in[i].Blob = r.View(MaxRaw)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("raw inputs: %w", err)
	}
	return in, nil
}

func parseOutputs(b []byte) ([]RawOutput, error) {
	r := wire.NewReader(b)
	const least = key.PublicSize + digest.Size + 4
	out := make([]RawOutput, r.Count(MaxRaw, least))
	for i := range out {
		r.Fixed(out[i].User[:])
		r.Fixed(out[i].Hash[:])
		out[i].Blobs = make([][]byte, r.Count(MaxRaw, 4))
		for j := range out[i].Blobs {
			out[i].Blobs[j] = r.View(MaxRaw)
		}
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("raw outputs: %w", err)
	}
	return out, nil
}
