package hotpocket

import (
	"context"
	"fmt"
	"os"
	"time"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/control"
	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs/remote"
	"evernode/internal/digest"
	"evernode/internal/usermsg"
)

// lastLedger is what everybody may ask about the last closed ledger.
type lastLedger struct {
	seq    uint64
	hash   digest.Hash
	time   uint64
	result consensus.Result
}

// The vote statuses of spec/hotpocket.md section 4.5.
const (
	voteUnknown    = "unknown"
	voteUnreliable = "unreliable"
	voteDesync     = "desync"
	voteSynced     = "synced"
)

// silentRounds is after how many round times without a ledger the vote status
// becomes unreliable.
const silentRounds = 5

// voteStatus says how this node stands to the others: unknown before the first
// ledger since its start, desync while it fetches what it lacks, unreliable when
// no ledger has closed for long.
func (n *node) voteStatus() string {
	at := n.closedAt.Load()
	switch {
	case at == 0:
		return voteUnknown
	case !n.exec.synced.Load() || n.catching.Load() || n.exec.waiting() > 1:
		return voteDesync
	case time.Since(time.UnixMilli(at)) > silentRounds*n.conf.Load().Contract.Consensus.Roundtime+time.Second:
		return voteUnreliable
	}
	return voteSynced
}

// watch publishes changes of the vote status.
func (n *node) watch(ctx context.Context) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.store.Failed():
			return n.store.Err()
		case <-n.content.journal.Failed():
			return fmt.Errorf("keep pending inputs: %w", n.content.journal.Err())
		case <-tick.C:
		}
		if s := n.voteStatus(); s != last {
			if last != "" {
				n.log.Info("vote status", "was", last, "is", s)
			}
			last = s
			n.publish(&usermsg.VoteStatus{Status: s})
		}
	}
}

func (n *node) publish(m usermsg.Message) {
	if err := n.gate.Publish(m); err != nil {
		n.log.Error("an event could not be published", "err", err)
	}
}

// created tells subscribers about a ledger and keeps what a query of it needs.
func (n *node) created(t task, users []key.Public, sel inputs.Selection) {
	c := &newest{t.Header.Height, inputs.UserHash(users), sel.InputHash()}
	n.newest.Store(c)
	if t.replay {
		return
	}
	rec := n.record(&t.Header, t.Hash)
	rec.UserHash, rec.InputHash = c.users, c.inputs
	n.publish(&usermsg.LedgerCreated{Ledger: rec})
}

// connectivity publishes how well this node is connected.
func (n *node) connectivity() {
	n.publish(&usermsg.Connectivity{PeerCount: uint64(len(n.mesh.Peers())), WeaklyConnected: n.mesh.WeaklyConnected()})
}

// Status implements control.Node.
func (n *node) Status(context.Context) (control.Status, error) {
	conf, last := n.conf.Load(), n.last.Load()
	users, _ := n.gate.Users()
	count, _ := n.content.pending()
	agreed := n.exec.state.Agreed()
	s := control.Status{
		PublicKey:       n.key.Public().String(),
		ContractID:      conf.Contract.ID,
		ContractVersion: conf.Contract.Version,
		Version:         n.opt.Version,
		HPVersion:       hpVersion,
		PID:             os.Getpid(),
		StartedAt:       n.startedAt.UnixMilli(),
		Role:            conf.Node.Role,
		LedgerSeqNo:     last.seq,
		LedgerHash:      last.hash.String(),
		LedgerTime:      int64(last.time),
		StateHash:       agreed.Root.String(),
		PatchHash:       agreed.Patch.String(),
		VoteStatus:      n.voteStatus(),
		Users:           len(users),
		ClusterUsers:    int(n.exec.users.Load()),
		WeaklyConnected: n.mesh.WeaklyConnected(),
		PendingInputs:   count + n.intake.queued(),
		ContractRunning: n.exec.running.Load(),
		Diverged:        n.exec.diverged.Load(),
		FailedRuns:      n.exec.failed.Load(),
	}
	if conf.User.Listen {
		s.UserPort = conf.User.Port
	}
	if conf.Mesh.Listen {
		s.PeerPort = conf.Mesh.Port
	}
	for _, m := range conf.Contract.UNL {
		s.UNL = append(s.UNL, m.String())
	}
	for _, p := range n.mesh.Peers() {
		s.Peers++
		if p.InUNL {
			s.PeersInUNL++
		}
	}
	s.Sync = n.syncing.Load()
	s.Trouble = n.exec.trouble.now(n.exec.state)
	if r, ok := n.exec.state.(*remote.State); ok {
		s.StateRestarts = r.Restarts()
	}
	return s, nil
}
