package hotpocket

import (
	"context"
	"errors"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/statefs"
)

// states fetches and serves the contract's state.
type states struct {
	n     *node
	state statefs.State
}

func newStates(n *node, state statefs.State) *states { return &states{n, state} }

// Serve answers a peer's request.
func (s *states) Serve(ctx context.Context, payload []byte) ([]byte, error) {
	return nil, errors.New("TODO")
}

// fetchState gets the state that the members agreed on after the run of ledger
// seq.
func (n *node) fetchState(ctx context.Context, seq uint64, want consensus.Result) error {
	return errors.New("TODO")
}
