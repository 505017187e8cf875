package usermsg

import (
	"errors"
	"fmt"

	"evernode/hotpocket/key"
)

// ChallengeSize is the length of a user challenge's text: 32 hex digits.
const ChallengeSize = 32

// maxServerChallenge is how long the challenge that a user puts to the server
// may be, in bytes.
const maxServerChallenge = 32

// Challenge is the first message of a server (section 1.3).
type Challenge struct {
	HPVersion       string
	ContractID      string
	ContractVersion string
	Challenge       string // 32 lower-case hex digits; the user signs this text
}

// AppendChallenge appends c as JSON, which the handshake always is.
func AppendChallenge(b []byte, c Challenge) []byte {
	e := encoder{b: b}
	start := e.begin()
	e.text(field("hp_version"), c.HPVersion)
	e.text(field("type"), "user_challenge")
	e.text(field("contract_id"), c.ContractID)
	e.text(field("contract_version"), c.ContractVersion)
	e.text(field("challenge"), c.Challenge)
	e.end(start, '}')
	return e.b
}

// DecodeChallenge reads what AppendChallenge writes.
func DecodeChallenge(data []byte) (Challenge, error) {
	var c Challenge
	var typ string
	err := decodeObject(JSON, data, func(k []byte, v value) (err error) {
		switch string(k) {
		case "type":
			typ, err = v.text()
		case "hp_version":
			c.HPVersion, err = v.text()
		case "contract_id":
			c.ContractID, err = v.text()
		case "contract_version":
			c.ContractVersion, err = v.text()
		case "challenge":
			c.Challenge, err = v.text()
		}
		return err
	})
	switch {
	case err != nil:
	case typ != "user_challenge":
		err = fmt.Errorf("type is %.40q", typ)
	case c.HPVersion == "":
		err = errors.New("no hp_version")
	case c.ContractID == "":
		err = errors.New("no contract_id")
	case c.ContractVersion == "":
		err = errors.New("no contract_version")
	case c.Challenge == "":
		err = errors.New("no challenge")
	}
	if err != nil {
		return Challenge{}, fmt.Errorf("user challenge: %w", err)
	}
	return c, nil
}

// ChallengeResponse is the first message of a user.
type ChallengeResponse struct {
	Sig             key.Signature // over the text of the challenge
	Public          key.Public
	ServerChallenge string // "" when the user does not ask the server to prove itself
	Protocol        Protocol
}

// AppendChallengeResponse appends r as JSON.
func AppendChallengeResponse(b []byte, r ChallengeResponse) []byte {
	e := encoder{b: b}
	start := e.begin()
	e.text(field("type"), "user_challenge_response")
	e.bytes(field("sig"), r.Sig[:])
	e.bytes(field("pubkey"), r.Public[:])
	if r.ServerChallenge != "" {
		e.text(field("server_challenge"), r.ServerChallenge)
	}
	e.text(field("protocol"), r.Protocol.String())
	e.end(start, '}')
	return e.b
}

// DecodeChallengeResponse reads the first message of a user. It checks the
// form only; the signature is for the caller to verify.
func DecodeChallengeResponse(data []byte) (ChallengeResponse, error) {
	var r ChallengeResponse
	var typ, protocol string
	var sig, pub bool
	err := decodeObject(JSON, data, func(k []byte, v value) (err error) {
		switch string(k) {
		case "type":
			typ, err = v.text()
		case "sig":
			err, sig = v.fixed(r.Sig[:]), true
		case "pubkey":
			r.Public, err = v.public()
			pub = true
		case "server_challenge":
			r.ServerChallenge, err = v.text()
			if n := len(r.ServerChallenge); err == nil && (n == 0 || n > maxServerChallenge) {
				err = fmt.Errorf("has %d bytes, want 1 to %d", n, maxServerChallenge)
			}
		case "protocol":
			protocol, err = v.text()
		}
		return err
	})
	switch {
	case err != nil:
	case typ != "user_challenge_response":
		err = fmt.Errorf("type is %.40q", typ)
	case !sig:
		err = errors.New("no sig")
	case !pub:
		err = errors.New("no pubkey")
	default:
		r.Protocol, err = ParseProtocol(protocol)
	}
	if err != nil {
		return ChallengeResponse{}, fmt.Errorf("user challenge response: %w", err)
	}
	return r, nil
}

// ServerResponse is the server's answer to a user's challenge.
type ServerResponse struct {
	Sig    key.Signature // over ServerProof
	Public key.Public
	UNL    []key.Public // sorted
}

// ServerProof returns the text that a server signs to prove itself.
func ServerProof(serverChallenge, contractID, contractVersion string) []byte {
	return []byte(serverChallenge + contractID + contractVersion)
}

// AppendServerResponse appends r as JSON.
func AppendServerResponse(b []byte, r ServerResponse) []byte {
	e := encoder{b: b}
	start := e.begin()
	e.text(field("type"), "server_challenge_response")
	e.bytes(field("sig"), r.Sig[:])
	e.bytes(field("pubkey"), r.Public[:])
	e.keys(field("unl"), r.UNL)
	e.end(start, '}')
	return e.b
}

// DecodeServerResponse reads what AppendServerResponse writes.
func DecodeServerResponse(data []byte) (ServerResponse, error) {
	var r ServerResponse
	var typ string
	var sig, pub bool
	err := decodeObject(JSON, data, func(k []byte, v value) (err error) {
		switch string(k) {
		case "type":
			typ, err = v.text()
		case "sig":
			err, sig = v.fixed(r.Sig[:]), true
		case "pubkey":
			r.Public, err = v.public()
			pub = true
		case "unl":
			r.UNL, err = v.keys()
		}
		return err
	})
	switch {
	case err != nil:
	case typ != "server_challenge_response":
		err = fmt.Errorf("type is %.40q", typ)
	case !sig || !pub:
		err = errors.New("no sig or no pubkey")
	}
	if err != nil {
		return ServerResponse{}, fmt.Errorf("server challenge response: %w", err)
	}
	return r, nil
}

func decodeObject(p Protocol, data []byte, f func(k []byte, v value) error) error {
	doc, err := document(p, data)
	if err != nil {
		return err
	}
	return doc.object(f)
}

func (v value) keys() ([]key.Public, error) {
	out := []key.Public{}
	err := v.array(func(e value) error {
		p, err := e.public()
		out = append(out, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
