package hook

import "bytes"

// The sto functions work on serialized objects in the hook's memory. They follow
// the network's own small parser, not its codec, and that parser is lenient: it
// does not check that a field's contents are all there, and knows only the types up
// to 19. Hooks see its results, so they are kept.

const (
	maxStoFields   = 1_024
	maxStoDepth    = 10
	maxStoObject   = 16 * 1_024
	maxStoInjected = 4_096
)

// stoField is where a field stands: its length with header, its id, and where its
// contents begin and how long they are.
type stoField struct {
	length          int
	id              uint32
	payload, inside int
}

// stoNext reads the field at position i.
func (r *run) stoNext(b []byte, i, depth int) (f stoField, ok bool) {
	if depth > maxStoDepth {
		return f, false
	}
	r.spend(priceStep)
	end := len(b)
	at := i
	if at >= end {
		return f, false
	}
	typ, nth := int(b[at]>>4), int(b[at]&15)
	at++
	if at >= end {
		return f, false
	}
	switch {
	case typ > 0 && nth > 0:
	case typ > 0:
		nth = int(b[at])
		at++
	case nth > 0:
		typ = int(b[at])
		at++
	default:
		typ = int(b[at])
		if at++; at >= end {
			return f, false
		}
		nth = int(b[at])
		at++
	}
	if at >= end {
		return f, false
	}
	f.id = uint32(typ)<<16 + uint32(nth)
	if typ < 1 || typ > typeVector || typ > typeAccount && typ < typeObject {
		return f, false
	}
	length := -1
	switch typ {
	case typeBlob, typeAccount, typePathSet, typeVector:
		length = int(b[at])
		if at++; at >= end {
			return f, false
		}
		switch {
		case length <= 192:
		case length <= 240:
			length = (length-193)*256 + int(b[at]) + 193
			at++
		default:
			second := int(b[at])
			if at++; at >= end {
				return f, false
			}
			length = (length-241)*65536 + 12481 + second*256 + int(b[at])
			if at++; at >= end {
				return f, false
			}
		}
	case typeUInt8:
		length = 1
	case typeUInt16:
		length = 2
	case typeUInt32:
		length = 4
	case typeUInt64:
		length = 8
	case typeHash128:
		length = 16
	case typeHash160:
		length = 20
	case typeHash256:
		length = 32
	case typeAmount:
		length = 48
		if b[at]>>6 == 1 {
			length = 8
		}
	}
	f.payload = at - i
	if length >= 0 {
		f.inside = length
		f.length = f.payload + length
		return f, true
	}
	marker := byte(endOfObject)
	if typ == typeArray {
		marker = endOfArray
	}
	for range maxStoFields {
		inner, ok := r.stoNext(b, at, depth+1)
		if !ok {
			return f, false
		}
		if at += inner.length; at >= end {
			return f, false
		}
		if b[at] == marker {
			f.inside = at - i - f.payload
			f.length = at + 1 - i
			return f, true
		}
	}
	return f, false
}

func (r *run) stoValidate(p []uint64) Code {
	ptr, length := lo(p[0]), lo(p[1])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if length < 2 {
		return TooSmall
	}
	b := r.mem[ptr : ptr+length]
	at := 0
	for i := 0; i < maxStoFields && at < len(b); i++ {
		f, ok := r.stoNext(b, at, 0)
		if !ok {
			return 0
		}
		at += f.length
	}
	if at == len(b) {
		return 1
	}
	return 0
}

func span(at, length int) Code { return Code(uint64(at)<<32 + uint64(uint32(length))) }

func (r *run) stoSubfield(p []uint64) Code {
	ptr, length, id := lo(p[0]), lo(p[1]), lo(p[2])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if length < 2 {
		return TooSmall
	}
	b := r.mem[ptr : ptr+length]
	at := 0
	for i := 0; i < maxStoFields && at < len(b); i++ {
		f, ok := r.stoNext(b, at, 0)
		if !ok {
			return ParseError
		}
		if f.id == id {
			if id>>16 == typeArray {
				return span(at, f.length)
			}
			return span(at+f.payload, f.inside)
		}
		at += f.length
	}
	if at != len(b) {
		return ParseError
	}
	return DoesntExist
}

func (r *run) stoSubarray(p []uint64) Code {
	ptr, length, index := lo(p[0]), lo(p[1]), lo(p[2])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if length < 2 {
		return TooSmall
	}
	b := r.mem[ptr : ptr+length]
	at := 0
	if b[0]&0xf0 == 0xf0 {
		// The array comes with its header and end marker.
		at = 1
		if b[0] == 0xf0 {
			at = 2
		}
		b = b[:len(b)-1]
	}
	if at >= len(b) {
		return ParseError
	}
	for i := uint32(0); i < maxStoFields && at < len(b); i++ {
		f, ok := r.stoNext(b, at, 0)
		if !ok {
			return ParseError
		}
		if i == index {
			return span(at, f.length)
		}
		at += f.length
	}
	if at != len(b) {
		return ParseError
	}
	return DoesntExist
}

func (r *run) stoEmplace(p []uint64) Code {
	return r.emplace(lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3]), lo(p[4]), lo(p[5]), lo(p[6]))
}

func (r *run) stoErase(p []uint64) Code {
	length := lo(p[3])
	c := r.emplace(lo(p[0]), lo(p[1]), lo(p[2]), length, 0, 0, lo(p[4]))
	if c > 0 && c == Code(length) {
		return DoesntExist
	}
	return c
}

// overlap tells whether any two of some buffers, given by pointer and length, have
// memory in common.
func overlap(buffers ...[2]uint32) bool {
	for i, x := range buffers {
		for _, y := range buffers[i+1:] {
			xe, ye := uint64(x[0])+uint64(x[1]), uint64(y[0])+uint64(y[1])
			if ye > uint64(x[0]) && xe > uint64(y[0]) {
				return true
			}
		}
	}
	return false
}

// emplace writes an object with a field put in, or taken out if there is no field.
func (r *run) emplace(wptr, wlen, sptr, slen, fptr, flen, id uint32) Code {
	if r.outside(wptr, wlen) || r.outside(sptr, slen) || r.outside(fptr, flen) {
		return OutOfBounds
	}
	if wlen < slen+flen {
		return TooSmall
	}
	if slen > maxStoObject {
		return TooBig
	}
	if slen < 2 {
		return TooSmall
	}
	erase := flen == 0 && fptr == 0
	if erase {
		if overlap([2]uint32{wptr, wlen}, [2]uint32{sptr, slen}) {
			return MemOverlap
		}
	} else {
		if flen > maxStoInjected {
			return TooBig
		}
		if flen < 2 {
			return TooSmall
		}
		if overlap([2]uint32{wptr, wlen}, [2]uint32{sptr, slen}, [2]uint32{fptr, flen}) {
			return MemOverlap
		}
	}
	source, inject := r.bytes(sptr, slen), r.bytes(fptr, flen)
	if !erase && fptr == 0 {
		// The network takes a field at address 0 for none.
		inject = nil
	} else if !erase {
		if f, ok := r.stoNext(inject, 0, 0); !ok || f.id != id {
			return ParseError
		}
	}
	at, from, to := 0, len(source), len(source)
	for i := 0; i < maxStoFields && at < len(source); i++ {
		f, ok := r.stoNext(source, at, 0)
		if !ok {
			return ParseError
		}
		if f.id >= id {
			from, to = at, at
			if f.id == id {
				to = at + f.length
			}
			break
		}
		at += f.length
	}
	if at > len(source) {
		return ParseError
	}
	out := make([]byte, 0, len(source)+len(inject))
	out = append(append(out, source[:from]...), inject...)
	if to < len(source) {
		out = append(out, source[to:]...)
	}
	return r.write(wptr, wlen, bytes.Clone(out))
}
