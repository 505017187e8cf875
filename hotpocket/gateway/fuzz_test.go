package gateway

import (
	"bytes"
	"testing"
	"time"

	"evernode/internal/usermsg"
)

// FuzzFrameGuard has the guard follow the same bytes in pieces of different
// sizes: it must come to the same verdict at the same byte, never ask for more
// than the current frame, and give back what it took.
func FuzzFrameGuard(f *testing.F) {
	f.Add(maskedFrame([]byte("hello")), byte(1))
	f.Add(append(maskedFrame(make([]byte, 70_000)), 0x89, 0x80, 1, 2, 3, 4), byte(7))
	f.Add([]byte{0x02, 0x81, 0, 0, 0, 0, 'x', 0x80, 0x81, 0, 0, 0, 0, 'y'}, byte(3))
	f.Add([]byte{0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, byte(2))
	f.Fuzz(func(t *testing.T, data []byte, piece byte) {
		shared := &budget{limit: 1 << 20}
		whole := frameGuard{limit: 80_000, budget: shared}
		code, problem := whole.inspect(data)
		whole.release()
		if n := shared.used.Load(); n != 0 {
			t.Fatalf("%d bytes were not given back", n)
		}
		parts := frameGuard{limit: 80_000, budget: shared}
		for rest := data; len(rest) > 0; {
			want := parts.want()
			if want < 1 || want > 80_000 {
				t.Fatalf("asks for %d bytes", want)
			}
			n := min(len(rest), want, int(piece)+1)
			partCode, partProblem := parts.inspect(rest[:n])
			rest = rest[n:]
			if partProblem != "" {
				if partCode != code || partProblem != problem {
					t.Fatalf("%d %s in pieces, %d %s as a whole", partCode, partProblem, code, problem)
				}
				return
			}
			if parts.claimed < 0 || parts.message > 80_000 || parts.left < 0 {
				t.Fatalf("%+v", parts)
			}
		}
		if problem != "" {
			t.Fatalf("%d %s as a whole, nothing in pieces", code, problem)
		}
	})
}

// FuzzFrames feeds a whole server with what a verified user may send; the
// server must survive it and go on serving others.
func FuzzFrames(f *testing.F) {
	f.Add(maskedFrame([]byte(`{"type":"lcl"}`)))
	f.Add([]byte{0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0xC1, 0x80, 0, 0, 0, 0, 0x88, 0x80, 0, 0, 0, 0})
	f.Add([]byte{0x03, 0x05, 1, 2, 3, 4, 5})
	s := start(f)
	good := s.connect(f, 3, usermsg.JSON)
	f.Fuzz(func(t *testing.T, data []byte) {
		u := s.connect(t, 4, usermsg.JSON)
		conn := u.ws.NetConn()
		conn.SetDeadline(time.Now().Add(patience))
		conn.Write(data)
		conn.Close()
		good.t = t
		good.sync()
	})
}

func TestHeader(t *testing.T) {
	for n, want := range map[int][]byte{
		0: {0x82, 0}, 125: {0x82, 125}, 126: {0x82, 126, 0, 126}, 65535: {0x82, 126, 0xFF, 0xFF}, 65536: {0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0},
	} {
		if got := appendHeader(nil, n); !bytes.Equal(got, want) {
			t.Errorf("%d: %x, want %x", n, got, want)
		}
	}
}
