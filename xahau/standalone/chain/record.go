package chain

import (
	"encoding/binary"
	"fmt"
	"math"

	"evernode/xahau/standalone/shamap"
)

// What the frame of a ledger in the stream of ledgers holds, integers
// big-endian:
//
//	ledger       'L' | header 118 | hash 32 | root of the state: off u48, len u24, oldest u48,
//	             count u48, bytes u48 | end of the stream of nodes u48 | transactions u32 |
//	             their bytes u32 | crc u32
//	transaction  'T' | length u32 of all this | hash 32 | ledger u32 | index u32 | accounts u16 |
//	             length of blob u32 | accounts 20 each | blob | metadata | crc u32
//
// A CRC covers what is before it in the record.
const (
	tagLedger      = 'L'
	tagTransaction = 'T'
	ledgerRecord   = 1 + HeaderSize + 32 + 6 + 3 + 6 + 6 + 6 + 6 + 4 + 4 + 4
	txFixed        = 1 + 4 + 32 + 4 + 4 + 2 + 4
)

// place says where a record stands in the stream of ledgers.
type place struct {
	off uint64 // below 2^48
	len uint32
}

// info is what is kept of a ledger besides its transactions.
type info struct {
	header   Header
	hash     Hash
	root     shamap.Root
	stateEnd uint64 // end of the stream of nodes after this ledger
	txs      uint32
	txBytes  uint32
	at       place
}

func appendLedger(b []byte, l *info) []byte {
	at := len(b)
	b = append(b, tagLedger)
	b = l.header.Append(b)
	b = append(b, l.hash[:]...)
	b = appendUint48(b, l.root.Place.Off)
	b = append(b, byte(l.root.Place.Len>>16), byte(l.root.Place.Len>>8), byte(l.root.Place.Len))
	b = appendUint48(b, l.root.Oldest)
	b = appendUint48(b, l.root.Count)
	b = appendUint48(b, l.root.Bytes)
	b = appendUint48(b, l.stateEnd)
	b = binary.BigEndian.AppendUint32(b, l.txs)
	b = binary.BigEndian.AppendUint32(b, l.txBytes)
	return binary.BigEndian.AppendUint32(b, checksum(b[at:]))
}

// parseLedger reads a ledger's record, of which b is at least the length.
func parseLedger(b []byte, off uint64) (*info, error) {
	if len(b) < ledgerRecord || b[0] != tagLedger || binary.BigEndian.Uint32(b[ledgerRecord-4:]) != checksum(b[:ledgerRecord-4]) {
		return nil, fmt.Errorf("%w: no record of a ledger at offset %d", ErrDamaged, off)
	}
	h, err := ParseHeader(b[1 : 1+HeaderSize])
	if err != nil {
		return nil, err
	}
	l := &info{header: h, at: place{off, ledgerRecord}}
	b = b[1+HeaderSize:]
	l.hash = Hash(b[:32])
	l.root = shamap.Root{
		Hash:   h.AccountHash,
		Place:  shamap.Place{Off: uint48(b[32:]), Len: uint32(b[38])<<16 | uint32(b[39])<<8 | uint32(b[40])},
		Oldest: uint48(b[41:]), Count: uint48(b[47:]), Bytes: uint48(b[53:]),
	}
	l.stateEnd = uint48(b[59:])
	l.txs, l.txBytes = binary.BigEndian.Uint32(b[65:]), binary.BigEndian.Uint32(b[69:])
	return l, nil
}

func appendTransaction(b []byte, t *Transaction, ledger uint32, index int) ([]byte, error) {
	n := txFixed + 20*len(t.Accounts) + len(t.Blob) + len(t.Meta) + 4
	if len(t.Accounts) > math.MaxUint16 {
		return nil, fmt.Errorf("transaction %x affects %d accounts, at most %d are allowed", t.Hash, len(t.Accounts), math.MaxUint16)
	}
	if len(t.Blob) == 0 || n > maxFrame {
		return nil, fmt.Errorf("transaction %x has %d bytes and %d bytes of metadata", t.Hash, len(t.Blob), len(t.Meta))
	}
	at := len(b)
	b = append(b, tagTransaction)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = append(b, t.Hash[:]...)
	b = binary.BigEndian.AppendUint32(b, ledger)
	b = binary.BigEndian.AppendUint32(b, uint32(index))
	b = binary.BigEndian.AppendUint16(b, uint16(len(t.Accounts)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(t.Blob)))
	for i := range t.Accounts {
		b = append(b, t.Accounts[i][:]...)
	}
	b = append(b, t.Blob...)
	b = append(b, t.Meta...)
	return binary.BigEndian.AppendUint32(b, checksum(b[at:])), nil
}

// parseTransaction reads the record at the beginning of b, of which blob and
// metadata become a part, and returns the rest.
func parseTransaction(b []byte, off uint64) (t Transaction, rest []byte, err error) {
	damaged := func() (Transaction, []byte, error) {
		return Transaction{}, nil, fmt.Errorf("%w: no record of a transaction at offset %d", ErrDamaged, off)
	}
	if len(b) < txFixed+4 || b[0] != tagTransaction {
		return damaged()
	}
	n := uint64(binary.BigEndian.Uint32(b[1:]))
	if n < txFixed+4 || n > uint64(len(b)) || binary.BigEndian.Uint32(b[n-4:]) != checksum(b[:n-4]) {
		return damaged()
	}
	b, rest = b[:n-4:n-4], b[n:]
	t.Hash = Hash(b[5:37])
	t.Ledger, t.Index = binary.BigEndian.Uint32(b[37:]), binary.BigEndian.Uint32(b[41:])
	accounts, blob := int(binary.BigEndian.Uint16(b[45:])), int(binary.BigEndian.Uint32(b[47:]))
	b = b[txFixed:]
	if uint64(accounts)*20+uint64(blob) > uint64(len(b)) {
		return damaged()
	}
	t.Accounts = make([]Account, accounts)
	for i := range t.Accounts {
		t.Accounts[i] = Account(b[:20])
		b = b[20:]
	}
	t.Blob, t.Meta = b[:blob:blob], b[blob:]
	return t, rest, nil
}

func appendUint48(b []byte, v uint64) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(v>>32))
	return binary.BigEndian.AppendUint32(b, uint32(v))
}

func uint48(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}

func appendPlace(b []byte, p place) []byte {
	return binary.BigEndian.AppendUint32(appendUint48(b, p.off), p.len)
}

func parsePlace(b []byte) place {
	return place{uint48(b), binary.BigEndian.Uint32(b[6:])}
}
