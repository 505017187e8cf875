package remote

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"

	"golang.org/x/sys/unix"
)

// pair returns both ends of a socket.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]net.Conn, 2)
	for i, fd := range fds {
		f := newFile(fd)
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return ends[0], ends[1]
}

// frames writes requests as a node would.
func frames(reqs ...[]byte) []byte {
	var b []byte
	for i, r := range reqs {
		b = wire.AppendU32(b, uint32(len(r)+4))
		b = wire.AppendU32(b, uint32(i+1))
		b = append(b, r...)
	}
	return b
}

func request(o op, body []byte) []byte { return append([]byte{byte(o)}, body...) }

// Whatever comes from the other side of the socket, a server answers or ends the
// connection, and closes the state.
func FuzzServer(f *testing.F) {
	hello := request(opHello, Hello{Confirmed: &statefs.Version{Seq: 3}, Owner: &statefs.Owner{UID: 1, GID: 2}}.encode())
	h := digest.Sum(nil)
	f.Add(frames(hello))
	f.Add(frames(hello, request(opBegin, wire.AppendU64(nil, 1)), request(opEnd, wire.AppendU32(nil, 1)), request(opCommit, wire.AppendU32(nil, 1))))
	f.Add(frames(hello, request(opView, nil), request(opRelease, wire.AppendU32(nil, 1)), request(opPing, nil), request(opCancel, nil)))
	f.Add(frames(hello, request(opObject, appendRef(nil, statefs.Ref{Kind: 1, Path: "a", Hash: h}))))
	f.Add(frames(hello, request(opStage, nil), request(opPutFile, append(append(wire.AppendU32(nil, 1), h[:]...), 0, 0, 0, 1, 7))))
	f.Add(frames(hello, request(opStage, nil), request(opSwitch, wire.AppendBool(appendVersion(wire.AppendU32(nil, 1), statefs.Version{}), false)), request(opClose, nil)))
	f.Fuzz(func(t *testing.T, in []byte) {
		state := &fake{
			setPatch: func([]byte) (digest.Hash, error) { return digest.Hash{}, statefs.ErrBusy },
			begin:    func(context.Context, uint64) (statefs.Run, error) { return &fakeRun{}, nil },
			object:   func(context.Context, statefs.Ref) ([]byte, error) { return nil, statefs.ErrNotFound },
			view:     func(context.Context) (statefs.View, error) { return quietView{}, nil },
			staging:  sink{},
		}
		a, b := pair(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = ServeConn(context.Background(), b, Options{Open: Opened(state)})
		}()
		go func() {
			if _, err := a.Write(in); err == nil {
				_ = a.(*net.UnixConn).CloseWrite()
			}
		}()
		buf := make([]byte, 4096)
		for {
			if _, err := a.Read(buf); err != nil {
				break
			}
		}
		<-done
		a.Close()
		if state.closed > 1 {
			t.Errorf("the state was closed %d times", state.closed)
		}
	})
}

type quietView struct{}

func (quietView) Dir() string              { return "" }
func (quietView) Version() statefs.Version { return statefs.Version{} }
func (quietView) Close() error             { return nil }

// Whatever a state's process answers, a node's calls come to an end.
func FuzzClient(f *testing.F) {
	reply := func(kind uint8, body []byte) []byte { return append([]byte{kind}, body...) }
	st := status{agreed: statefs.Version{Seq: 1}, patch: []byte("{}")}
	hello := reply(flagStatus, wire.AppendU32(st.append(nil, true), protocol))
	f.Add(frames(hello))
	f.Add(frames(hello, reply(0, wire.AppendString(wire.AppendU32(nil, 1), "mnt/rw/state")), reply(0, make([]byte, 64))))
	f.Add(frames(hello, reply(flagError, appendError(nil, statefs.ErrBusy))))
	f.Add(frames(reply(flagError, appendError(nil, ErrTaken))))
	f.Fuzz(func(t *testing.T, in []byte) {
		a, b := pair(t)
		go func() {
			if _, err := b.Write(in); err == nil {
				_ = b.(*net.UnixConn).CloseWrite()
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		l, err := dial(ctx, a, Hello{}, func(status) {})
		if err == nil {
			s := &State{closing: make(chan struct{}), back: make(chan struct{}), views: map[*View]bool{}, viewGone: make(chan struct{}, 1), link: l}
			s.cfg.Patience = time.Millisecond
			if r, err := s.Begin(ctx, 1); err == nil {
				if _, _, err := r.End(ctx); err == nil {
					_ = r.Rollback(ctx)
				}
			}
			l.close(nil)
			<-l.gone
		}
		b.Close()
	})
}

// What is written is what is read.
func FuzzStatus(f *testing.F) {
	st := status{agreed: statefs.Version{Seq: 1}, damaged: true, patch: []byte("{}")}
	f.Add(st.append(nil, true))
	f.Add(st.append(nil, false))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := wire.NewReader(in)
		s := readStatus(r, []byte("before"))
		if r.Close() != nil {
			return
		}
		with := in[8+64+1] == 1
		if got := s.append(nil, with); !bytes.Equal(got, in) && s.patch != nil {
			t.Errorf("%x became %x", in, got)
		}
	})
}
