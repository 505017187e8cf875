package contract

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Descriptor numbers in the contract. Users' sockets follow the last of them. A
// read request has no NPL socket, so its users begin one lower.
const (
	childUserIn  = 3
	childControl = 4
	childNPL     = 5
)

// appendArgs appends the JSON object that the contract finds on its standard
// input (spec/hotpocket.md section 2.2). The keys have the original's order;
// "mode", which is not in the original's release, comes last.
func appendArgs(b []byte, run *Run, spans [][]span) ([]byte, error) {
	consensus := run.Mode == Consensus
	b = append(b, `{"hp_version":`...)
	b = appendJSONString(b, run.HPVersion)
	b = append(b, `,"contract_id":`...)
	b = appendJSONString(b, run.ContractID)
	b = append(b, `,"public_key":"`...)
	pub := run.NodeKey.Public()
	b = hex.AppendEncode(b, pub[:])
	b = append(b, `","private_key":"`...)
	b = append(b, run.NodeKey.Hex()...)
	b = append(b, `","timestamp":`...)
	if consensus {
		b = strconv.AppendUint(b, run.Timestamp, 10)
		b = append(b, `,"readonly":false,"lcl_seq_no":`...)
		b = strconv.AppendUint(b, run.LedgerSeq, 10)
		b = append(b, `,"lcl_hash":"`...)
		b = hex.AppendEncode(b, run.LedgerHash[:])
		b = append(b, `","npl_fd":`...)
		b = strconv.AppendInt(b, childNPL, 10)
	} else {
		b = append(b, `0,"readonly":true`...)
	}
	b = append(b, `,"control_fd":`...)
	b = strconv.AppendInt(b, childControl, 10)
	b = append(b, `,"user_in_fd":`...)
	b = strconv.AppendInt(b, childUserIn, 10)
	b = append(b, `,"users":{`...)
	fd := firstUserFD(run.Mode)
	for i := range run.Users {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = hex.AppendEncode(b, run.Users[i].Key[:])
		b = append(b, `":[`...)
		b = strconv.AppendInt(b, int64(fd+i), 10)
		for _, s := range spans[i] {
			b = append(b, `,[`...)
			b = strconv.AppendInt(b, s.offset, 10)
			b = append(b, ',')
			b = strconv.AppendInt(b, int64(s.size), 10)
			b = append(b, ']')
		}
		b = append(b, ']')
	}
	b = append(b, `},"unl":{`...)
	for i := range run.UNL {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = hex.AppendEncode(b, run.UNL[i].Key[:])
		b = append(b, `":{"active_on":`...)
		b = strconv.AppendUint(b, run.UNL[i].ActiveOn, 10)
		b = append(b, '}')
	}
	b = append(b, `},"mode":`...)
	b = appendJSONString(b, string(run.Mode))
	return append(b, '}'), nil
}

func appendJSONString(b []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil { // a string always marshals
		return append(b, `""`...)
	}
	return append(b, q...)
}

// firstUserFD is the descriptor number of the first user's socket.
func firstUserFD(m Mode) int {
	if m == Consensus {
		return childNPL + 1
	}
	return childNPL
}

// memoryFile makes an anonymous file with the given content, positioned at its
// start. As a standard input it can be read in one piece or in many, of any
// size, and ends; a pipe holds only 64 KiB before its writer blocks.
func memoryFile(name string, content []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make memory file: %w", err)
	}
	for off := 0; off < len(content); {
		n, err := unix.Pwrite(fd, content[off:], int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("write memory file: %w", err)
		}
		off += n
	}
	return fd, nil
}
