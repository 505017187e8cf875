package inputs

import (
	"errors"
	"fmt"
	"slices"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

const (
	// MaxPresence is the greatest number of users in a Presence.
	MaxPresence = 100_000

	presenceTag = "evernode hotpocket users of a node, version 1"
)

// Presence says which users are connected to one node. It carries no signature:
// a node signs its digest in its proposals.
type Presence struct {
	// Origin is the node. It is part of the digest, so that nobody can
	// report another node's list as his own without holding it.
	Origin key.Public
	// Users are sorted bytewise and distinct.
	Users []key.Public

	encoded []byte
	digest  digest.Hash
}

// NewPresence makes the list of the users connected to origin, in any order and
// with repetitions; users itself is left alone.
func NewPresence(origin key.Public, users []key.Public) (*Presence, error) {
	users = slices.Clone(users)
	slices.SortFunc(users, key.Public.Compare)
	users = slices.Compact(users)
	if len(users) > MaxPresence {
		return nil, fmt.Errorf("presence of %d users, at most %d are allowed", len(users), MaxPresence)
	}
	b := append(make([]byte, 0, key.PublicSize*(1+len(users))+4), origin[:]...)
	b = wire.AppendU32(b, uint32(len(users)))
	for i := range users {
		b = append(b, users[i][:]...)
	}
	return &Presence{Origin: origin, Users: users, encoded: b, digest: digest.Tagged(presenceTag, b)}, nil
}

// DecodePresence reads an encoded list and checks that it is sorted and within
// its limits. It keeps b, which must not change any more.
//
// The form is: origin (33 bytes), count (4 bytes, big-endian), users (33 each).
func DecodePresence(b []byte) (*Presence, error) {
	p := &Presence{encoded: b}
	r := wire.NewReader(b)
	r.Fixed(p.Origin[:])
	p.Users = make([]key.Public, r.Count(MaxPresence, key.PublicSize))
	for i := range p.Users {
		r.Fixed(p.Users[i][:])
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	if p.Origin[0] != key.Prefix {
		return nil, errors.New("presence: origin's key has the wrong prefix")
	}
	for i := range p.Users {
		if p.Users[i][0] != key.Prefix {
			return nil, fmt.Errorf("presence: key of user %d has the wrong prefix", i)
		}
		if i > 0 && p.Users[i].Compare(p.Users[i-1]) <= 0 {
			return nil, fmt.Errorf("presence: user %d is out of order", i)
		}
	}
	p.digest = digest.Tagged(presenceTag, b)
	return p, nil
}

// Encoded returns the binary form, which must not be changed.
func (p *Presence) Encoded() []byte { return p.encoded }

// Digest names the list.
func (p *Presence) Digest() digest.Hash { return p.digest }

// Union returns the users of all lists, sorted and distinct.
func Union(lists ...*Presence) []key.Public {
	n := 0
	for _, p := range lists {
		n += len(p.Users)
	}
	all := make([]key.Public, 0, n)
	for _, p := range lists {
		all = append(all, p.Users...)
	}
	slices.SortFunc(all, key.Public.Compare)
	return slices.Compact(all)
}

// UserHash returns BLAKE3 over the concatenated keys of the users, which must be
// sorted, or zero when there are none (spec/hotpocket.md section 4.1).
func UserHash(users []key.Public) digest.Hash {
	if len(users) == 0 {
		return digest.Hash{}
	}
	b := make([]byte, 0, len(users)*key.PublicSize)
	for i := range users {
		b = append(b, users[i][:]...)
	}
	return digest.Sum(b)
}
