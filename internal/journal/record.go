package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The layout of a segment file, all integers big-endian.
//
//	header   magic "EVJL" | version u32 | first LSN u64 | salt u64 | crc u32 of all this
//	record   length of payload u32 | crc u32 | kind u8 | payload
//
// and zeros to the end. A record's CRC32C covers the segment's salt and first
// LSN, the offset of the record in the file, its length, its kind and its
// payload. The salt is random, so that nobody can hand us a payload that
// contains what looks like a record of our own.
const (
	magic         = "EVJL"
	version       = 1
	headerSize    = 28
	recordSize    = 9 // before the payload
	kindMark      = 0xFF
	markSize      = recordSize + 8
	maxPayload    = 1 << 30
	namePattern   = "%020d.log"
	spareName     = "spare"
	spareTempName = "spare.tmp"
	lockName      = "lock"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errInvalid is the internal sign of bytes that are no record. Whether that is
// a torn tail or damage is for the caller to tell.
var errInvalid = errors.New("no valid record")

// seal is what binds records to their segment.
type seal struct {
	first uint64 // LSN of the segment's first record
	salt  uint64
}

func appendHeader(b []byte, s seal) []byte {
	at := len(b)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint64(b, s.first)
	b = binary.BigEndian.AppendUint64(b, s.salt)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

func parseHeader(b []byte) (seal, error) {
	if len(b) < headerSize || string(b[:4]) != magic ||
		binary.BigEndian.Uint32(b[24:]) != crc32.Checksum(b[:24], castagnoli) {
		return seal{}, errInvalid
	}
	if v := binary.BigEndian.Uint32(b[4:]); v != version {
		return seal{}, fmt.Errorf("written in format version %d, this program knows version %d", v, version)
	}
	return seal{first: binary.BigEndian.Uint64(b[8:]), salt: binary.BigEndian.Uint64(b[16:])}, nil
}

// appendRecord appends a record that will stand at offset off of its segment.
func appendRecord(b []byte, s seal, off int64, kind byte, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, recordSum(s, off, kind, payload))
	b = append(b, kind)
	return append(b, payload...)
}

func recordSum(s seal, off int64, kind byte, payload []byte) uint32 {
	var h [29]byte
	binary.BigEndian.PutUint64(h[:], s.first)
	binary.BigEndian.PutUint64(h[8:], s.salt)
	binary.BigEndian.PutUint64(h[16:], uint64(off))
	binary.BigEndian.PutUint32(h[24:], uint32(len(payload)))
	h[28] = kind
	return crc32.Update(crc32.Checksum(h[:], castagnoli), castagnoli, payload)
}

// parseRecord reads the record at offset off of a segment whose content from
// there on is b. The payload is a part of b; n is the record's whole length.
func parseRecord(b []byte, s seal, off int64) (kind byte, payload []byte, n int, err error) {
	if len(b) < recordSize {
		return 0, nil, 0, errInvalid
	}
	size := binary.BigEndian.Uint32(b)
	if size > maxPayload || int64(size) > int64(len(b)-recordSize) {
		return 0, nil, 0, errInvalid
	}
	n = recordSize + int(size)
	kind, payload = b[8], b[recordSize:n:n]
	if binary.BigEndian.Uint32(b[4:]) != recordSum(s, off, kind, payload) {
		return 0, nil, 0, errInvalid
	}
	if kind == kindMark && len(payload) != markSize-recordSize {
		return 0, nil, 0, errInvalid
	}
	return kind, payload, n, nil
}

// provedDurable looks for a mark after the first invalid record: a mark says
// up to which LSN the log was durable when it was written. It returns the
// highest such LSN, 0 when there is none. b is the segment from offset off.
func provedDurable(b []byte, s seal, off int64) uint64 {
	var lsn uint64
	for i := 0; i+markSize <= len(b); i++ {
		// The two cheap conditions come first: this looks at every byte.
		if b[i+8] != kindMark || binary.BigEndian.Uint32(b[i:]) != markSize-recordSize {
			continue
		}
		if _, payload, _, err := parseRecord(b[i:i+markSize], s, off+int64(i)); err == nil {
			lsn = max(lsn, binary.BigEndian.Uint64(payload))
		}
	}
	return lsn
}
