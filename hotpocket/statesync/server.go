package statesync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"

	"golang.org/x/time/rate"
)

// Source is the part of a statefs.State that is served. One that is a Viewer as
// well is served in whole versions, and one that is an Appender at less cost.
type Source interface {
	Object(ctx context.Context, ref statefs.Ref) ([]byte, error)
}

// Appender is Source's Object without the copy: AppendObject appends the piece
// to b. On an error b is returned as it was.
type Appender interface {
	AppendObject(ctx context.Context, ref statefs.Ref, b []byte) ([]byte, error)
}

// ServerConfig says what a Server serves and how much.
type ServerConfig struct {
	State Source
	// Blobs, when not nil, finds other values by their plain BLAKE3 hash.
	Blobs func(digest.Hash) ([]byte, bool)
	// BytesPerSecond bounds the upload to all peers together; 0 is unlimited.
	BytesPerSecond int
	// Parallel is how many requests are answered at a time; 0 stands for two for
	// each processor.
	Parallel int
	Log      *slog.Logger
}

// Server answers the requests of peers. Its methods may be called from many
// goroutines.
type Server struct {
	cfg   ServerConfig
	turns *turns
	pins  pins
	limit *rate.Limiter
	full  int // bytes after which a reply takes no further piece
	pool  sync.Pool
}

// NewServer returns a Server. Close ends it.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Parallel <= 0 {
		cfg.Parallel = 2 * runtime.GOMAXPROCS(0)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, turns: newTurns(cfg.Parallel), full: softReply}
	s.pins.source, _ = cfg.State.(Viewer)
	if cfg.BytesPerSecond > 0 {
		s.limit = rate.NewLimiter(rate.Limit(cfg.BytesPerSecond), max(cfg.BytesPerSecond/4, MaxReply))
		// Short replies, so that each peer gets its next one soon.
		s.full = min(softReply, max(cfg.BytesPerSecond/8, 16<<10))
	}
	return s
}

// Close lets go of the versions that are kept for peers.
func (s *Server) Close() { s.pins.close() }

// Recycle takes a reply back whose bytes nobody needs any more. Calling it is
// not required.
func (s *Server) Recycle(reply []byte) {
	if cap(reply) >= softReply && cap(reply) <= 2*softReply {
		reply = reply[:0]
		s.pool.Put(&reply)
	}
}

func (s *Server) buffer() []byte {
	if b, ok := s.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 0, softReply+softReply/4)
}

// Serve answers one request of a peer. An error means that the request was
// malformed or that ctx ended; pieces that are not at hand are part of a regular
// reply. When several peers ask, those that were given less go first.
func (s *Server) Serve(ctx context.Context, from key.Public, request []byte) ([]byte, error) {
	root, questions, err := decodeRequest(request)
	if err != nil {
		return nil, err
	}
	if err := s.turns.take(ctx, from); err != nil {
		return nil, fmt.Errorf("serve state: %w", err)
	}
	sent := 0
	defer func() { s.turns.give(from, sent) }()
	kept := s.pins.use(ctx, root)
	defer s.pins.release(kept)
	reply := wire.AppendU32(s.buffer(), uint32(len(questions)))
	for i := range questions {
		if len(reply) > s.full {
			reply = appendAnswer(reply, answer{status: statusLater})
			continue
		}
		if reply, err = s.answer(ctx, reply, &questions[i], kept); err != nil {
			return nil, fmt.Errorf("serve state: %w", err)
		}
	}
	if s.limit != nil {
		if err := s.limit.WaitN(ctx, min(len(reply), s.limit.Burst())); err != nil {
			return nil, fmt.Errorf("serve state: %w", err)
		}
	}
	sent = len(reply)
	if sent < softReply/8 { // not worth holding on to a large buffer until it has left
		short := bytes.Clone(reply)
		s.Recycle(reply)
		reply = short
	}
	return reply, nil
}

// answer appends the answer to a question.
func (s *Server) answer(ctx context.Context, reply []byte, q *question, kept *pin) ([]byte, error) {
	start := len(reply)
	reply = wire.AppendU32(wire.AppendU8(reply, uint8(statusFound)), 0)
	head := len(reply)
	reply, err := s.find(ctx, reply, q.Ref, kept)
	if err == nil && len(reply)-head > statefs.MaxObject {
		err = fmt.Errorf("piece of %d bytes", len(reply)-head)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !errors.Is(err, statefs.ErrNotFound) {
			s.cfg.Log.Warn("cannot serve a piece of the state", "error", err)
		}
		return appendAnswer(reply[:start], answer{status: statusMissing}), nil
	}
	end := len(reply)
	if len(q.have) > 0 {
		worth := false
		switch q.Kind {
		case statefs.RefData:
			reply, worth = appendBlockDelta(reply, reply[head:end], q.have)
		case statefs.RefDir, statefs.RefPage:
			reply, worth = appendNodeDelta(reply, q.Kind, reply[head:end], q.have)
		}
		if worth {
			reply[start] = byte(statusDelta)
			reply = append(reply[:head], reply[end:]...)
		}
	}
	putLength(reply[start+1:], len(reply)-head)
	return reply, nil
}

func putLength(b []byte, n int) { wire.AppendU32(b[:0], uint32(n)) }

// find appends a piece. On an error the reply may have grown.
func (s *Server) find(ctx context.Context, reply []byte, ref statefs.Ref, kept *pin) ([]byte, error) {
	if ref.Kind == RefBlob {
		if s.cfg.Blobs != nil {
			if data, ok := s.cfg.Blobs(ref.Hash); ok && len(data) <= MaxBlob {
				return append(reply, data...), nil
			}
		}
		return reply, statefs.ErrNotFound
	}
	var data []byte
	var err error
	if a, ok := s.cfg.State.(Appender); ok {
		var grown []byte
		if grown, err = a.AppendObject(ctx, ref, reply); err == nil {
			return grown, nil
		}
	} else {
		data, err = s.cfg.State.Object(ctx, ref)
	}
	if errors.Is(err, statefs.ErrNotFound) && kept != nil {
		data, err = kept.file(ctx, ref)
	}
	return append(reply, data...), err
}
