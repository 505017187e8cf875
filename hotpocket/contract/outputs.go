package contract

import "encoding/binary"

// frameHeader is the length of a frame's header, the length of what follows as
// an unsigned big-endian number (spec/hotpocket.md section 2.4).
const frameHeader = 4

// frames cuts the byte stream of one user's socket into messages.
type frames struct {
	messages [][]byte
	header   [frameHeader]byte
	have     int    // bytes of the header present
	body     []byte // what there is of the current message
	want     int    // bytes still missing of it
	open     bool   // a header was read and its message is not complete
	taken    uint64 // bytes taken so far, headers included
	dropped  uint64 // bytes thrown away over the limit
}

// budget is the memory that all outputs of a run may still take. Each message
// counts with a little for its place in the list, so that empty messages are
// not free.
type budget struct {
	left     uint64
	exceeded bool
}

const messageCost = 32

func (g *budget) take(n uint64) bool {
	if g.exceeded || n > g.left {
		g.exceeded = true
		return false
	}
	g.left -= n
	return true
}

// write takes the next bytes of the stream. What lies beyond the limit (0 is
// none) is thrown away, and everything once the budget is exceeded. Memory is
// taken for bytes that arrived, never for a length that was only announced.
func (f *frames) write(b []byte, limit uint64, g *budget) {
	if limit > 0 {
		room := limit - min(limit, f.taken)
		if uint64(len(b)) > room {
			f.dropped += uint64(len(b)) - room
			b = b[:room]
		}
	}
	f.taken += uint64(len(b))
	for len(b) > 0 {
		if g.exceeded {
			return
		}
		if !f.open {
			n := copy(f.header[f.have:], b)
			f.have += n
			b = b[n:]
			if f.have < frameHeader {
				return
			}
			f.have, f.open, f.body = 0, true, nil
			f.want = int(binary.BigEndian.Uint32(f.header[:]))
			if !g.take(messageCost) {
				return
			}
		}
		n := min(f.want, len(b))
		if !g.take(uint64(n)) {
			return
		}
		if f.body == nil {
			// A message is mostly there in one piece or close to it.
			f.body = make([]byte, 0, min(f.want, max(n, 4096)))
		}
		f.body = append(f.body, b[:n]...)
		f.want -= n
		b = b[n:]
		if f.want == 0 {
			f.close()
		}
	}
}

// end takes a message that was cut short as it is. Bytes of a header that was
// not completed are no message.
func (f *frames) end() {
	if f.open {
		f.close()
	}
}

func (f *frames) close() {
	if f.body == nil {
		f.body = []byte{}
	}
	f.messages = append(f.messages, f.body)
	f.open, f.body, f.want = false, nil, 0
}
