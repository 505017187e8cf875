package contract

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"syscall"
)

// User is a user of the contract.
type User struct {
	// PublicKey names the user, 66 hex digits.
	PublicKey string
	// Inputs are the user's inputs of this ledger, in order. They are mapped from a
	// file: reading one costs nothing before its bytes are touched. They are valid
	// as long as the program runs.
	Inputs [][]byte

	mu sync.Mutex
	fd int
}

// Send sends an output to the user. It is delivered once the nodes have agreed on
// it, and not at all when they do not. Any bytes are allowed, none at all too.
// It is safe for concurrent use, but the order of outputs must be the same on
// all nodes.
func (u *User) Send(message []byte) error {
	if uint64(len(message)) > math.MaxUint32 {
		return fmt.Errorf("output of %d bytes, at most %d are possible", len(message), uint32(math.MaxUint32))
	}
	// One piece, as long as copying is cheaper than another system call.
	var small [4 << 10]byte
	head := binary.BigEndian.AppendUint32(small[:0], uint32(len(message)))
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(message) <= len(small)-4 {
		return u.write(append(head, message...))
	}
	if err := u.write(head); err != nil {
		return err
	}
	return u.write(message)
}

// SendJSON sends v as JSON.
func (u *User) SendJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return u.Send(b)
}

func (u *User) write(b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(u.fd, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("send output to %.10s: %w", u.PublicKey, err)
		}
		b = b[n:]
	}
	return nil
}

// loadUsers reads the users and maps their inputs.
func loadUsers(object json.RawMessage, inputFD int) ([]*User, error) {
	var users []*User
	var file []byte
	mapped := false
	err := members(object, func(key string, d *json.Decoder) error {
		var parts []json.RawMessage
		if err := d.Decode(&parts); err != nil {
			return err
		}
		if len(parts) == 0 {
			return errors.New("a user without descriptor")
		}
		u := &User{PublicKey: key}
		if err := json.Unmarshal(parts[0], &u.fd); err != nil {
			return err
		}
		for _, p := range parts[1:] {
			var place [2]json.Number
			if err := json.Unmarshal(p, &place); err != nil {
				return err
			}
			offset, err := number(place[0])
			if err != nil {
				return err
			}
			size, err := number(place[1])
			if err != nil {
				return err
			}
			if !mapped {
				if file, err = mapInputs(inputFD); err != nil {
					return err
				}
				mapped = true
			}
			if offset > len(file) || size > len(file)-offset {
				return fmt.Errorf("input at %d of %d bytes is outside of the input file of %d", offset, size, len(file))
			}
			u.Inputs = append(u.Inputs, file[offset:offset+size:offset+size])
		}
		users = append(users, u)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the users: %w", err)
	}
	return users, nil
}

// mapInputs maps the input file, privately, so that a contract may even change
// an input in place.
func mapInputs(fd int) ([]byte, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("input file: %w", err)
	}
	if st.Size == 0 {
		return []byte{}, nil
	}
	b, err := syscall.Mmap(fd, 0, int(st.Size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map input file: %w", err)
	}
	return b, nil
}
