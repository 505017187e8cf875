package chain

import (
	"encoding/binary"
	"hash/crc32"
)

// The layout of a segment file, integers big-endian.
//
//	header   magic "EVLS" | version u32 | offset of the file in the stream u64 | salt u64 | crc u32
//	frame    length u32 | ledger u32 | durable ledger u32 | crc of payload u32 | crc u32 | payload
//
// One frame is what one ledger adds to a stream. A frame's second CRC covers
// the salt, the offset of the frame in the stream and the four fields before
// it. It is random, so that nobody can hand us a payload that contains what
// looks like a frame of our own.
const (
	segmentMagic   = "EVLS"
	segmentVersion = 1
	segmentHeader  = 28
	frameHeader    = 20
	maxFrame       = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// frame is the header of a frame that stands at off.
type frame struct {
	off     uint64
	size    uint32 // of the payload
	ledger  uint32
	durable uint32 // last ledger that was durable when the frame was written
	sum     uint32
}

func (f *frame) end() uint64 { return f.off + frameHeader + uint64(f.size) }

func appendSegmentHeader(b []byte, base, salt uint64) []byte {
	at := len(b)
	b = append(b, segmentMagic...)
	b = binary.BigEndian.AppendUint32(b, segmentVersion)
	b = binary.BigEndian.AppendUint64(b, base)
	b = binary.BigEndian.AppendUint64(b, salt)
	return binary.BigEndian.AppendUint32(b, checksum(b[at:]))
}

// parseSegmentHeader returns the salt; ok is false when b is no header of a
// segment at base.
func parseSegmentHeader(b []byte, base uint64) (salt uint64, ok bool) {
	if len(b) < segmentHeader || string(b[:4]) != segmentMagic || binary.BigEndian.Uint32(b[4:]) != segmentVersion ||
		binary.BigEndian.Uint64(b[8:]) != base || binary.BigEndian.Uint32(b[24:]) != checksum(b[:24]) {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[16:]), true
}

// putFrame fills in the header in front of a payload: b is frameHeader bytes
// and the payload.
func putFrame(b []byte, salt, off uint64, ledger, durable uint32) {
	binary.BigEndian.PutUint32(b, uint32(len(b)-frameHeader))
	binary.BigEndian.PutUint32(b[4:], ledger)
	binary.BigEndian.PutUint32(b[8:], durable)
	binary.BigEndian.PutUint32(b[12:], checksum(b[frameHeader:]))
	binary.BigEndian.PutUint32(b[16:], frameSum(b, salt, off))
}

func frameSum(b []byte, salt, off uint64) uint32 {
	var h [32]byte
	binary.BigEndian.PutUint64(h[:], salt)
	binary.BigEndian.PutUint64(h[8:], off)
	copy(h[16:], b[:16])
	return checksum(h[:])
}

// parseFrame reads the header of a frame; ok is false when there is none.
func parseFrame(b []byte, salt, off uint64) (f frame, ok bool) {
	if len(b) < frameHeader || binary.BigEndian.Uint32(b[16:]) != frameSum(b, salt, off) {
		return f, false
	}
	f = frame{
		off: off, size: binary.BigEndian.Uint32(b), ledger: binary.BigEndian.Uint32(b[4:]),
		durable: binary.BigEndian.Uint32(b[8:]), sum: binary.BigEndian.Uint32(b[12:]),
	}
	return f, f.size <= maxFrame
}

// provedDurable looks for frame headers anywhere in b, which stands at off, and
// returns the highest ledger that one of them proves to have been durable.
func provedDurable(b []byte, salt, off uint64) uint32 {
	var ledger uint32
	for i := 0; i+frameHeader <= len(b); i++ {
		// The cheap condition comes first: this looks at every byte.
		if binary.BigEndian.Uint32(b[i:]) > maxFrame {
			continue
		}
		if f, ok := parseFrame(b[i:], salt, off+uint64(i)); ok {
			ledger = max(ledger, f.durable)
		}
	}
	return ledger
}
