package hotpocket

import (
	"context"
	"fmt"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/control"
	"evernode/hotpocket/key"
	"evernode/hotpocket/mesh"
	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statesync"
)

// states fetches and serves the contract's state.
type states struct {
	n         *node
	client    *statesync.Client
	server    *statesync.Server
	published time.Time // when progress was last put where it is asked for
	shown     time.Time // when it was last logged
}

// stateTransport carries the requests of statesync over the mesh.
type stateTransport struct{ n *node }

func (t stateTransport) Request(ctx context.Context, to key.Public, payload []byte) ([]byte, error) {
	return t.n.mesh.Request(ctx, to, kindState, payload)
}

// RequestInto implements statesync.BufferedTransport.
func (t stateTransport) RequestInto(ctx context.Context, to key.Public, payload, buf []byte) ([]byte, error) {
	return t.n.mesh.RequestInto(ctx, to, kindState, payload, buf)
}

// Recycle implements mesh.Recycler.
func (n *node) Recycle(kind mesh.Kind, answer []byte) {
	if kind == kindState {
		n.states.server.Recycle(answer)
	}
}

func newStates(n *node, state statefs.State, upload uint64) *states {
	s := &states{n: n}
	s.client = statesync.NewClient(statesync.Config{
		State:     state,
		Transport: stateTransport{n},
		Peers:     func() []key.Public { return n.peersFrom(nil) },
		Blame: func(peer key.Public, reason error) {
			n.log.Warn("a peer sent a wrong piece of the state", "peer", peer.Short(), "err", reason)
			n.mesh.ReportBad(peer, mesh.BadMessage)
		},
		Progress: s.progress,
		Log:      n.log,
	})
	s.server = statesync.NewServer(statesync.ServerConfig{State: state, BytesPerSecond: int(upload), Log: n.log})
	return s
}

// progress tells the operator how far a sync is, a line every two seconds.
func (s *states) progress(p statesync.Progress) {
	now := time.Now()
	if now.Sub(s.published) < publishEvery && !p.Switching {
		return
	}
	s.published = now
	c := &control.Sync{
		What: "state", Done: p.FetchedBytes, Total: p.TotalBytes, Here: p.DoneBytes, Entries: p.TotalEntries,
		Rate: uint64(p.Rate), Left: int64((p.Left + time.Second - 1) / time.Second), Peers: p.Peers, Finishing: p.Switching,
	}
	s.n.syncing.Store(c)
	if now.Sub(s.shown) < 2*time.Second && !p.Switching {
		return
	}
	s.shown = now
	s.n.log.Info("fetching the agreed state", "run", p.Target.Seq, "here", c.Progress(), "fetched_bytes", p.FetchedBytes, "pieces", p.FetchedPieces,
		"entries", p.TotalEntries, "missing", p.Waiting, "refused", p.Refused)
}

// publishEvery is how often the progress is put where it is asked for.
const publishEvery = 50 * time.Millisecond

// version names the state that a ledger expects to run on.
func version(h *consensus.Header) statefs.Version {
	return statefs.Version{Seq: h.Run, Root: h.Result.State, Patch: h.Result.Patch}
}

// fetchState brings the state to what a ledger expects, or to what a later one
// does that closed meanwhile.
func (n *node) fetchState(ctx context.Context, h *consensus.Header) error {
	n.syncing.Store(&control.Sync{What: "state"})
	defer n.syncing.Store(nil)
	_, err := n.states.client.Sync(ctx, version(h))
	n.counts.synced(n.syncing.Load(), err)
	if err != nil {
		return fmt.Errorf("fetch the state of ledger %d: %w", h.Run, err)
	}
	return nil
}
