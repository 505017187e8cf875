// Package inputs holds what users send to a contract, from the signed container
// of one input to the ordered list that a ledger hands to the contract.
//
// A node checks the submissions of its users (CheckSubmission, Check), packs
// them into signed Bundles and floods these; every node verifies a bundle once
// (Bundle.Verify) and keeps it in its Pool until a ledger consumes it. When a
// ledger closes, Select computes from its bundles and the replicated nonce table
// (Nonces) which inputs run and which are rejected. Everything here that more
// than one node computes is a pure function of its arguments, so that all nodes
// come to the same answer, whatever order things reached them in.
//
// The package is called by the node's gateway and by its consensus loop. It
// never touches network, disk or clock, and it owns no goroutine: only Check and
// Bundle.Verify spread their work over several, all of which have ended when
// they return.
package inputs

import (
	"errors"
	"fmt"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// Protocol says how the bytes of a container are to be read.
type Protocol uint8

// The two protocols that a user's session can speak. The numbers are part of
// the binary form of a Bundle.
const (
	JSON Protocol = 1
	BSON Protocol = 2
)

// String returns "json" or "bson", the words of the handshake
// (spec/hotpocket.md section 1.3).
func (p Protocol) String() string {
	switch p {
	case JSON:
		return "json"
	case BSON:
		return "bson"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Reason is why an input was not taken, in the exact words that users get in a
// contract_input_status (spec/hotpocket.md section 1.6).
type Reason string

// All reasons there are. None stands for an input that is fine.
const (
	None             Reason = ""
	BadFormat        Reason = "bad_msg_format"
	InvalidType      Reason = "invalid_msg_type"
	BadSignature     Reason = "bad_sig"
	Expired          Reason = "max_ledger_expired"
	OffsetExceeded   Reason = "max_ledger_offset_exceeded"
	NonceExpired     Reason = "nonce_expired"
	AlreadySubmitted Reason = "already_submitted"
	InputsOverflow   Reason = "round_inputs_overflow"
)

// Submission is one input as its user signed it.
type Submission struct {
	User key.Public
	// Container is the exact JSON or BSON document that was signed.
	Container []byte
	// Sig is User's signature of Container.
	Sig key.Signature
	// Protocol says how Container is read. It is not signed and need not be:
	// a BSON document ends with a zero byte and a JSON document cannot, so
	// that no container can be read in both ways.
	Protocol Protocol
}

// Hash returns the name of the input: BLAKE3 of the signature bytes
// (spec/hotpocket.md section 0, fact 7).
func (s *Submission) Hash() digest.Hash { return digest.Sum(s.Sig[:]) }

// Input parses the container and fills in user and hash. It does not verify
// the signature.
func (s *Submission) Input() (Input, error) {
	in, err := Parse(s.Protocol, s.Container)
	if err != nil {
		return Input{}, err
	}
	in.User, in.Hash = s.User, s.Hash()
	return in, nil
}

// Input is one parsed input.
type Input struct {
	User key.Public
	// Hash is the BLAKE3 hash of the user's signature.
	Hash digest.Hash
	// Nonce is at least 1.
	Nonce uint64
	// MaxLedger is the greatest seq_no of a ledger that may hold the input.
	MaxLedger uint64
	// Payload is what the contract reads: the UTF-8 bytes of the JSON text or
	// the bytes of the BSON binary. It may share memory with the container.
	Payload []byte
}

// Parse reads a container (spec/hotpocket.md section 1.4): the fields input,
// nonce and max_ledger_seq_no, in any order, each exactly once; other fields
// are ignored. It leaves User and Hash empty. Payload shares memory with
// container where it can. The error says which field or byte is wrong.
//
// All nodes must agree on what is a container, so the rules are fixed here and
// not left to a library.
//
// JSON: one object by RFC 8259 with nothing but white space around it, valid
// UTF-8, no byte order mark, no unpaired surrogate escape, nested at most
// maxDepth deep. Names are compared after their escapes are resolved. input is
// a text; the numbers are written as plain digits (no sign, fraction or
// exponent) and fit into 64 bits.
//
// BSON: one document whose length field is exact. input is a binary of any
// subtype but the outdated 2; the numbers are int32 or int64 and not negative.
// A value of another field is only measured, not looked into.
func Parse(p Protocol, container []byte) (Input, error) {
	var (
		in  Input
		err error
	)
	switch p {
	case JSON:
		in, err = parseJSON(container)
	case BSON:
		in, err = parseBSON(container)
	default:
		return Input{}, fmt.Errorf("input container of unknown protocol %d", uint8(p))
	}
	if err != nil {
		return Input{}, fmt.Errorf("%s input container: %w", p, err)
	}
	return in, nil
}

// field numbers one of the three fields that Parse looks for.
type field uint8

const (
	fieldOther field = iota
	fieldInput
	fieldNonce
	fieldMaxLedger

	fieldCount = iota
)

func (f field) String() string {
	return [fieldCount]string{"other", "input", "nonce", "max_ledger_seq_no"}[f]
}

func fieldOf(name []byte) field {
	// A conversion in a switch does not allocate.
	switch string(name) {
	case "input":
		return fieldInput
	case "nonce":
		return fieldNonce
	case "max_ledger_seq_no":
		return fieldMaxLedger
	}
	return fieldOther
}

// fieldSet tells which fields were met.
type fieldSet [fieldCount]bool

func (s *fieldSet) add(f field) error {
	if s[f] && f != fieldOther {
		return fmt.Errorf("field %s appears twice", f)
	}
	s[f] = true
	return nil
}

func (s *fieldSet) check(in *Input) error {
	for f := fieldInput; f <= fieldMaxLedger; f++ {
		if !s[f] {
			return fmt.Errorf("field %s is missing", f)
		}
	}
	if in.Nonce == 0 {
		return errors.New("field nonce is 0, must be at least 1")
	}
	return nil
}
