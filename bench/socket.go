package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/usermsg"
)

// The frames of RFC 6455 that occur.
const (
	binaryFrame = 0x82
	closeFrame  = 0x88
	maskBit     = 0x80
	maxFrame    = 64 << 20
)

// frame wraps a message as a client has to: masked. The mask is fixed, because
// it costs the node the same whatever it is.
func frame(payload []byte) []byte {
	mask := [4]byte{0x5A, 0x17, 0xC3, 0x88}
	var b []byte
	switch n := len(payload); {
	case n <= 125:
		b = append(make([]byte, 0, n+6), binaryFrame, maskBit|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(make([]byte, 0, n+8), binaryFrame, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(make([]byte, 0, n+14), binaryFrame, maskBit|127), uint64(n))
	}
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i&3])
	}
	return b
}

// socket is a bare WebSocket over TLS: a user with as little work on its side
// as can be, since it shares the processors with the nodes.
type socket struct {
	conn *tls.Conn
	r    *bufio.Reader
	buf  []byte
}

// open connects and upgrades to a WebSocket.
func open(ctx context.Context, addr string) (*socket, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // nodes have certificates of their own making
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	s := &socket{conn: conn.(*tls.Conn), r: bufio.NewReaderSize(conn, 16<<10)}
	if err := s.upgrade(addr); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return s, nil
}

func (s *socket) upgrade(addr string) error {
	s.conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := io.WriteString(s.conn, "GET / HTTP/1.1\r\nHost: "+addr+
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n")
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("WebSocket upgrade: %w", err)
		}
		if first && !strings.Contains(line, " 101 ") {
			return fmt.Errorf("WebSocket upgrade was answered by %.60q", line)
		}
		if line == "\r\n" {
			return s.conn.SetDeadline(time.Time{})
		}
	}
}

// next returns the payload of the next data frame. It is valid until the next
// call.
func (s *socket) next() ([]byte, error) {
	for {
		var h [10]byte
		if _, err := io.ReadFull(s.r, h[:2]); err != nil {
			return nil, err
		}
		op, n := h[0], uint64(h[1]&0x7F)
		switch n {
		case 126:
			if _, err := io.ReadFull(s.r, h[:2]); err != nil {
				return nil, err
			}
			n = uint64(binary.BigEndian.Uint16(h[:2]))
		case 127:
			if _, err := io.ReadFull(s.r, h[:8]); err != nil {
				return nil, err
			}
			n = binary.BigEndian.Uint64(h[:8])
		}
		if n > maxFrame {
			return nil, fmt.Errorf("frame of %d bytes", n)
		}
		if uint64(cap(s.buf)) < n {
			s.buf = make([]byte, n)
		}
		s.buf = s.buf[:n]
		if _, err := io.ReadFull(s.r, s.buf); err != nil {
			return nil, err
		}
		switch {
		case op == closeFrame && n >= 2:
			return nil, fmt.Errorf("the node closed the connection: %d %s", binary.BigEndian.Uint16(s.buf), s.buf[2:])
		case op == closeFrame:
			return nil, io.EOF
		case op == binaryFrame:
			return s.buf, nil
		}
	}
}

// user is a verified user of one node.
type user struct {
	*socket
	key      key.Private
	protocol usermsg.Protocol
	node     int
}

// login connects a user to a node.
func login(ctx context.Context, node int, addr string, k key.Private, p usermsg.Protocol) (*user, error) {
	s, err := open(ctx, addr)
	if err != nil {
		return nil, err
	}
	s.conn.SetDeadline(time.Now().Add(10 * time.Second))
	err = func() error {
		b, err := s.next()
		if err != nil {
			return err
		}
		c, err := usermsg.DecodeChallenge(b)
		if err != nil {
			return err
		}
		r := usermsg.ChallengeResponse{Sig: k.Sign([]byte(c.Challenge)), Public: k.Public(), Protocol: p, ServerChallenge: "00112233445566778899aabbccddeeff"}
		if _, err := s.conn.Write(frame(usermsg.AppendChallengeResponse(nil, r))); err != nil {
			return err
		}
		// The server's own proof says that this user is verified.
		if b, err = s.next(); err != nil {
			return err
		}
		_, err = usermsg.DecodeServerResponse(b)
		return err
	}()
	if err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("log in at %s: %w", addr, err)
	}
	s.conn.SetDeadline(time.Time{})
	return &user{s, k, p, node}, nil
}

// ask sends one message and waits, at most a while, until done says that what
// came was the last of the answers.
func (u *user) ask(message []byte, done func(usermsg.Message) (bool, error)) error {
	u.conn.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := u.conn.Write(message); err != nil {
		return err
	}
	for {
		b, err := u.next()
		if err != nil {
			return err
		}
		m, err := usermsg.DecodeMessage(u.protocol, b)
		if err != nil {
			return err
		}
		if over, err := done(m); over || err != nil {
			return err
		}
	}
}

// input returns the frame of a signed input and the signature.
func (u *user) input(payload []byte, nonce, maxLedger uint64) ([]byte, key.Signature) {
	c := usermsg.AppendContainer(nil, u.protocol, usermsg.Container{Input: payload, Nonce: nonce, MaxLedgerNo: maxLedger})
	sig := u.key.Sign(c)
	return frame(usermsg.AppendRequest(nil, u.protocol, usermsg.Request{Type: usermsg.RequestInput, Container: c, Sig: sig[:]})), sig
}

func (u *user) leave() {
	if u != nil {
		u.conn.Close()
	}
}
