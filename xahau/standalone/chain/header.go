package chain

import (
	"encoding/binary"
	"fmt"

	"evernode/xahau/standalone/shamap"
)

// HeaderSize is the length of a header's binary form.
const HeaderSize = 118

// prefixLedger is "LWR\0".
const prefixLedger = 'L'<<24 | 'W'<<16 | 'R'<<8

// NoConsensusTime is the bit of CloseFlags that says that the close time was
// not agreed on.
const NoConsensusTime = 1

// Header is a ledger's header. Times are in seconds since 2000-01-01 UTC.
type Header struct {
	Seq             uint32
	Drops           uint64 // all native currency there is
	ParentHash      Hash
	TxHash          Hash // root of TransactionTree
	AccountHash     Hash // root of the state
	ParentCloseTime uint32
	CloseTime       uint32
	CloseResolution uint8 // seconds
	CloseFlags      uint8
}

// Append appends the binary form: sequence, drops, parent hash, transaction
// hash, account hash, parent close time, close time, resolution, flags, all
// big-endian. It is what ledger_data returns in binary mode.
func (h Header) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, h.Seq)
	b = binary.BigEndian.AppendUint64(b, h.Drops)
	b = append(b, h.ParentHash[:]...)
	b = append(b, h.TxHash[:]...)
	b = append(b, h.AccountHash[:]...)
	b = binary.BigEndian.AppendUint32(b, h.ParentCloseTime)
	b = binary.BigEndian.AppendUint32(b, h.CloseTime)
	return append(b, h.CloseResolution, h.CloseFlags)
}

// ParseHeader reads the binary form.
func ParseHeader(b []byte) (Header, error) {
	if len(b) != HeaderSize {
		return Header{}, fmt.Errorf("a ledger header has %d bytes, not %d", HeaderSize, len(b))
	}
	return Header{
		Seq: binary.BigEndian.Uint32(b), Drops: binary.BigEndian.Uint64(b[4:]),
		ParentHash: Hash(b[12:44]), TxHash: Hash(b[44:76]), AccountHash: Hash(b[76:108]),
		ParentCloseTime: binary.BigEndian.Uint32(b[108:]), CloseTime: binary.BigEndian.Uint32(b[112:]),
		CloseResolution: b[116], CloseFlags: b[117],
	}, nil
}

// Hash returns the ledger's hash: SHA-512Half over "LWR\0" and the binary form.
func (h Header) Hash() Hash {
	return shamap.Half(h.Append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+HeaderSize), prefixLedger)))
}
