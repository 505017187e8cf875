package remote

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// A frame is a 4-byte length of what follows, a 4-byte number and one byte that
// says what the frame is: for a request its op, for a reply its flags. A reply
// has the number of its request, and replies come in any order.
//
// The first request of a connection is opHello; nothing else is answered before
// it has succeeded.

const (
	// magic begins a hello, so that another protocol's client is told apart
	// from another version of this one.
	magic = 0x65767374 // "evst"
	// protocol is the version of this protocol. A node and a state of different
	// versions refuse each other.
	protocol = 1

	frameHead = 9
	// maxFrame bounds a frame: the largest object, a patch.cfg beside it, and
	// what else may stand there.
	maxFrame = statefs.MaxObject + statefs.MaxPatch + 256<<10
	// maxPath bounds the path of a file in a state: MaxDepth names.
	maxPath = (statefs.MaxDepth + 2) * 256
	// maxText bounds paths of folders and error texts.
	maxText = 16 << 10
	// maxMissing bounds the groups of a file: a list of them is one object.
	maxMissing = statefs.MaxObject / digest.Size
)

// op is what a request asks for.
type op uint8

const (
	opHello    op = 1
	opPing     op = 2
	opCancel   op = 3 // of the request with this number; has no reply
	opBegin    op = 4
	opEnd      op = 5
	opCommit   op = 6
	opRollback op = 7
	opView     op = 8
	opRelease  op = 9 // of a view, a staging or a file on its way
	opObject   op = 10
	opSetPatch op = 11
	opStage    op = 12
	opHasTree  op = 13
	opNode     op = 14
	opPutNode  op = 15
	opHasFile  op = 16
	opPutFile  op = 17
	opOpenFile op = 18
	opPut      op = 19
	opSwitch   op = 20
	opClose    op = 21
	opPutRun   op = 22
)

// Flags of a reply.
const (
	flagError  = 1 // the body is an error
	flagStatus = 2 // a status stands before the body, because it has changed
)

// framer reads and writes frames. Writing is for several goroutines, reading for
// one.
type framer struct {
	conn net.Conn
	in   *bufio.Reader

	mu   sync.Mutex
	head []byte
}

func newFramer(conn net.Conn) *framer {
	if u, ok := conn.(*net.UnixConn); ok {
		// A piece of a state should pass without many changes of process. What
		// the system does not grant costs only time.
		_ = u.SetReadBuffer(4 << 20)
		_ = u.SetWriteBuffer(4 << 20)
	}
	return &framer{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
}

// frame is what has been read. The body belongs to the reader.
type frame struct {
	id   uint32
	kind uint8
	body []byte
}

// read reads a frame. place, when not nil, says where a body of n bytes goes.
func (f *framer) read(place func(id uint32, kind uint8, n int) []byte) (frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(f.in, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < frameHead-4 || n > maxFrame {
		return frame{}, fmt.Errorf("frame of %d bytes, at most %d are allowed", n, maxFrame)
	}
	id, kind, size := binary.BigEndian.Uint32(head[4:]), head[8], int(n-(frameHead-4))
	var body []byte
	if place != nil {
		body = place(id, kind, size)
	}
	if body == nil {
		body = make([]byte, size)
	}
	if _, err := io.ReadFull(f.in, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	return frame{id, kind, body}, nil
}

// write sends a frame whose body is the parts in a row. before, when not nil, is
// called first, in the order in which frames go out, and may put bytes in front
// of the body and flags into kind.
func (f *framer) write(id uint32, kind uint8, before func([]byte) (uint8, []byte), parts ...[]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	head := append(f.head[:0], make([]byte, frameHead)...)
	if before != nil {
		var flags uint8
		flags, head = before(head)
		kind |= flags
	}
	n := len(head)
	for _, p := range parts {
		n += len(p)
	}
	if n-4 > maxFrame {
		return fmt.Errorf("frame of %d bytes, at most %d are allowed", n-4, maxFrame)
	}
	binary.BigEndian.PutUint32(head, uint32(n-4))
	binary.BigEndian.PutUint32(head[4:], id)
	head[8] = kind
	bufs := make(net.Buffers, 0, 1+len(parts))
	bufs = append(bufs, head)
	for _, p := range parts {
		switch {
		case len(p) == 0:
		case len(p) < 4<<10 && len(bufs) == 1:
			head = append(head, p...)
			bufs[0] = head
		default:
			bufs = append(bufs, p)
		}
	}
	if cap(head) <= 64<<10 {
		f.head = head
	}
	_, err := bufs.WriteTo(f.conn)
	return err
}

// Hello is what a node says first.
type Hello struct {
	// Confirmed is the newest version that the node knows to be agreed, as
	// statefs.Config.Confirmed.
	Confirmed *statefs.Version
	// Owner is who the contract's files belong to, as statefs.Config.Owner.
	Owner *statefs.Owner
}

func (h Hello) encode() []byte {
	b := wire.AppendU32(nil, magic)
	b = wire.AppendU32(b, protocol)
	b = wire.AppendBool(b, h.Confirmed != nil)
	if h.Confirmed != nil {
		b = appendVersion(b, *h.Confirmed)
	}
	b = wire.AppendBool(b, h.Owner != nil)
	if h.Owner != nil {
		b = wire.AppendU32(b, uint32(h.Owner.UID))
		b = wire.AppendU32(b, uint32(h.Owner.GID))
	}
	return b
}

func decodeHello(body []byte) (h Hello, err error) {
	r := wire.NewReader(body)
	if m := r.U32(); r.Err() == nil && m != magic {
		return h, errors.New("whoever connected does not speak the protocol of states")
	}
	if v := r.U32(); r.Err() == nil && v != protocol {
		return h, fmt.Errorf("%w: the node speaks version %d of its protocol, the state's process version %d; use the same evernode for both", ErrVersion, v, protocol)
	}
	if r.Bool() {
		v := readVersion(r)
		h.Confirmed = &v
	}
	if r.Bool() {
		h.Owner = &statefs.Owner{UID: int(r.U32()), GID: int(r.U32())}
	}
	if err := r.Close(); err != nil {
		return h, fmt.Errorf("hello: %w", err)
	}
	return h, nil
}

// status is what a State tells without being asked over the socket. It goes out
// with the first reply after it has changed.
type status struct {
	agreed  statefs.Version
	damaged bool
	patch   []byte // nil: none
}

func (s *status) append(b []byte, withPatch bool) []byte {
	b = appendVersion(b, s.agreed)
	b = wire.AppendBool(b, s.damaged)
	b = wire.AppendBool(b, withPatch)
	if withPatch {
		b = wire.AppendBool(b, s.patch != nil)
		b = wire.AppendBytes(b, s.patch)
	}
	return b
}

// readStatus reads a status; the patch.cfg stays the one of before when it did
// not come along.
func readStatus(r *wire.Reader, before []byte) status {
	s := status{agreed: readVersion(r), damaged: r.Bool(), patch: before}
	if r.Bool() {
		is := r.Bool()
		s.patch = r.Bytes(statefs.MaxPatch)
		switch {
		case !is:
			s.patch = nil
		case s.patch == nil:
			s.patch = []byte{}
		}
	}
	return s
}

func appendVersion(b []byte, v statefs.Version) []byte {
	b = wire.AppendU64(b, v.Seq)
	b = append(b, v.Root[:]...)
	return append(b, v.Patch[:]...)
}

func readVersion(r *wire.Reader) (v statefs.Version) {
	v.Seq = r.U64()
	r.Fixed(v.Root[:])
	r.Fixed(v.Patch[:])
	return v
}

func readHash(r *wire.Reader) (h digest.Hash) {
	r.Fixed(h[:])
	return h
}

func appendRef(b []byte, ref statefs.Ref) []byte {
	b = wire.AppendU8(b, uint8(ref.Kind))
	b = append(b, ref.Hash[:]...)
	b = wire.AppendU32(b, ref.Index)
	return wire.AppendString(b, ref.Path)
}

func readRef(r *wire.Reader) statefs.Ref {
	ref := statefs.Ref{Kind: statefs.RefKind(r.U8()), Hash: readHash(r), Index: r.U32()}
	ref.Path = r.String(maxPath)
	return ref
}
