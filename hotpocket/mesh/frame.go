package mesh

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"evernode/hotpocket/key"
	"evernode/internal/wire"
)

// frameType is the byte after a frame's length.
type frameType uint8

const (
	frameHello      frameType = 1  // hello: first frame of either side
	frameBye        frameType = 2  // code u8, text: the sender closes and says why
	framePing       frameType = 3  // 8 bytes to be echoed
	framePong       frameType = 4  // the 8 bytes, sender's clock in ms u64
	frameMessage    frameType = 5  // kind u8, payload
	frameFlood      frameType = 6  // kind u8, scope u8, author 33 bytes, payload
	frameNeighbours frameType = 7  // count u32, that many keys of 33 bytes
	frameAskPeers   frameType = 8  // empty
	framePeers      frameType = 9  // count u32, that many address strings
	frameOpenBulk   frameType = 10 // attempt u32 last attached: please dial the bulk connection
	frameRequest    frameType = 11 // id u32, milliseconds left u32, kind u8, payload
	frameResponse   frameType = 12 // id u32, status u8, payload or error text
	frameCancel     frameType = 13 // id u32
)

const (
	frameHead      = 5 // length and type
	messageHead    = 1
	floodHead      = 2 + key.PublicSize
	requestHead    = 9
	responseHead   = 5
	maxHello       = 1024
	maxBye         = 256
	maxNeighbours  = 4096
	maxSharedPeers = 256
	maxErrorText   = 1024
)

// bodyLimit is the longest body a frame of type t may have, or -1 for an
// unknown type.
func bodyLimit(t frameType, maxMessage int) int {
	switch t {
	case frameHello:
		return maxHello
	case frameBye:
		return maxBye
	case framePing:
		return 8
	case framePong:
		return 16
	case frameMessage:
		return messageHead + maxMessage
	case frameFlood:
		return floodHead + maxMessage
	case frameNeighbours:
		return 4 + maxNeighbours*key.PublicSize
	case frameAskPeers:
		return 0
	case frameOpenBulk:
		return 4
	case framePeers:
		return 4 + maxSharedPeers*(4+maxAddress)
	case frameRequest:
		return requestHead + maxMessage
	case frameResponse:
		return responseHead + max(maxMessage, maxErrorText)
	case frameCancel:
		return 4
	}
	return -1
}

// newFrame returns the head of a frame whose body will have n bytes, with room
// for them.
func newFrame(t frameType, n int) []byte {
	b := make([]byte, 0, frameHead+n)
	return append(wire.AppendU32(b, uint32(1+n)), byte(t))
}

func messageFrame(kind Kind, payload []byte) []byte {
	return append(append(newFrame(frameMessage, messageHead+len(payload)), byte(kind)), payload...)
}

func floodFrame(kind Kind, scope Scope, author key.Public, payload []byte) []byte {
	b := append(newFrame(frameFlood, floodHead+len(payload)), byte(kind), byte(scope))
	return append(append(b, author[:]...), payload...)
}

func neighboursFrame(keys []key.Public) []byte {
	b := newFrame(frameNeighbours, 4+len(keys)*key.PublicSize)
	b = wire.AppendU32(b, uint32(len(keys)))
	for _, k := range keys {
		b = append(b, k[:]...)
	}
	return b
}

func parseNeighbours(body []byte) (map[key.Public]struct{}, error) {
	r := wire.NewReader(body)
	n := r.Count(maxNeighbours, key.PublicSize)
	keys := make(map[key.Public]struct{}, n)
	for range n {
		var k key.Public
		r.Fixed(k[:])
		keys[k] = struct{}{}
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("list of neighbours: %w", err)
	}
	return keys, nil
}

func peersFrame(addresses []string) []byte {
	n := 4
	for _, a := range addresses {
		n += 4 + len(a)
	}
	b := wire.AppendU32(newFrame(framePeers, n), uint32(len(addresses)))
	for _, a := range addresses {
		b = wire.AppendString(b, a)
	}
	return b
}

func parsePeers(body []byte) ([]string, error) {
	r := wire.NewReader(body)
	n := r.Count(maxSharedPeers, 4)
	addresses := make([]string, 0, n)
	for range n {
		addresses = append(addresses, r.String(maxAddress))
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("list of peers: %w", err)
	}
	return addresses, nil
}

func byeFrame(code byeCode, text string) []byte {
	text = text[:min(len(text), maxBye-1)]
	return append(append(newFrame(frameBye, 1+len(text)), byte(code)), text...)
}

func parseBye(body []byte) *ByeError {
	if len(body) == 0 {
		return &ByeError{}
	}
	return &ByeError{code: byeCode(body[0]), Text: string(body[1:])}
}

// growStep is how much is allocated for a long frame before its bytes arrive,
// so that a length alone costs the sender's announcement and not our memory.
const growStep = 256 << 10

// readFrame reads one frame, whose body is the caller's to keep. A frame that
// no honest peer sends is a *protocolError, before anything is allocated for it.
func readFrame(in *bufio.Reader, maxMessage int) (frameType, []byte, error) {
	t, size, err := readHead(in, maxMessage)
	if err != nil {
		return 0, nil, err
	}
	body, err := readBody(in, size)
	if err != nil {
		return 0, nil, err
	}
	return t, body, nil
}

// readHead reads the head of a frame and returns the length of its body.
func readHead(in *bufio.Reader, maxMessage int) (t frameType, size int, err error) {
	head, err := in.Peek(frameHead)
	if err != nil {
		if errors.Is(err, io.EOF) && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, 0, err
	}
	n, t := int64(binary.BigEndian.Uint32(head)), frameType(head[4])
	limit := bodyLimit(t, maxMessage)
	if limit < 0 {
		return 0, 0, &protocolError{fmt.Errorf("unknown frame type %d", t)}
	}
	if n < 1 || n-1 > int64(limit) {
		return 0, 0, &protocolError{fmt.Errorf("frame of type %d has a length of %d, at most %d is allowed", t, n, limit+1)}
	}
	in.Discard(frameHead)
	return t, int(n - 1), nil
}

// readBody reads size bytes.
func readBody(in *bufio.Reader, size int) ([]byte, error) {
	body := make([]byte, min(size, growStep))
	for have := 0; ; {
		if err := fill(in, body[have:]); err != nil {
			return nil, err
		}
		have = len(body)
		if have == size {
			return body, nil
		}
		grown := make([]byte, min(size, 2*have))
		copy(grown, body)
		body = grown
	}
}

// fill reads as many bytes as b has room for, in the middle of a frame.
func fill(in *bufio.Reader, b []byte) error {
	_, err := io.ReadFull(in, b)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
