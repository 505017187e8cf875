package statesync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// Source is the part of a statefs.State that is served.
type Source interface {
	Object(ctx context.Context, ref statefs.Ref) ([]byte, error)
}

// ServerConfig says what a Server serves and how much.
type ServerConfig struct {
	State Source
	// Blobs, when not nil, finds other values by their plain BLAKE3 hash.
	Blobs func(digest.Hash) ([]byte, bool)
	// BytesPerSecond bounds the upload to all peers together; 0 is unlimited.
	BytesPerSecond int
	// Parallel is how many requests are answered at a time; 0 stands for 4.
	Parallel int
	Log      *slog.Logger
}

// Server answers the requests of peers. Serve may be called from many
// goroutines.
type Server struct {
	cfg   ServerConfig
	slots *semaphore.Weighted
	limit *rate.Limiter
}

// NewServer returns a Server.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Parallel <= 0 {
		cfg.Parallel = 4
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, slots: semaphore.NewWeighted(int64(cfg.Parallel))}
	if cfg.BytesPerSecond > 0 {
		s.limit = rate.NewLimiter(rate.Limit(cfg.BytesPerSecond), max(cfg.BytesPerSecond, MaxReply))
	}
	return s
}

// Serve answers one request. An error means that the request was malformed or
// that ctx ended; pieces that are not at hand are part of a regular reply.
func (s *Server) Serve(ctx context.Context, request []byte) ([]byte, error) {
	refs, err := decodeRequest(request)
	if err != nil {
		return nil, err
	}
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("serve state: %w", err)
	}
	defer s.slots.Release(1)
	reply := wire.AppendU32(nil, uint32(len(refs)))
	for _, ref := range refs {
		if len(reply) > softReply {
			reply = appendAnswer(reply, answer{status: statusLater})
			continue
		}
		data, err := s.find(ctx, ref)
		switch {
		case err == nil:
			reply = appendAnswer(reply, answer{statusFound, data})
		case ctx.Err() != nil:
			return nil, fmt.Errorf("serve state: %w", ctx.Err())
		default:
			if !errors.Is(err, statefs.ErrNotFound) {
				s.cfg.Log.Warn("cannot serve a piece of the state", "error", err)
			}
			reply = appendAnswer(reply, answer{status: statusMissing})
		}
	}
	if s.limit != nil {
		if err := s.limit.WaitN(ctx, min(len(reply), s.limit.Burst())); err != nil {
			return nil, fmt.Errorf("serve state: %w", err)
		}
	}
	return reply, nil
}

func (s *Server) find(ctx context.Context, ref statefs.Ref) ([]byte, error) {
	if ref.Kind != RefBlob {
		return s.cfg.State.Object(ctx, ref)
	}
	if s.cfg.Blobs != nil {
		if data, ok := s.cfg.Blobs(ref.Hash); ok && len(data) <= MaxBlob {
			return data, nil
		}
	}
	return nil, statefs.ErrNotFound
}
