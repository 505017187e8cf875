package devkit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"text/tabwriter"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
)

// NodeStatus is what is known of one node of the cluster. Its JSON form is what
// `evernode dev status --json` prints; hashes and keys are lower-case hex. Of a
// node that does not run only the first fields say something.
type NodeStatus struct {
	Node        int    `json:"node"` // counted from 1
	PublicKey   string `json:"public_key"`
	UserPort    int    `json:"user_port"`
	PeerPort    int    `json:"peer_port"`
	PID         int    `json:"pid"` // 0 when it does not run
	Running     bool   `json:"running"`
	LedgerSeqNo uint64 `json:"ledger_seq_no"`
	LedgerHash  string `json:"ledger_hash"`
	StateHash   string `json:"state_hash"`
	PatchHash   string `json:"patch_hash"`
	VoteStatus  string `json:"vote_status"` // "unknown", "unreliable", "desync" or "synced"
	Peers       int    `json:"peers"`       // connected peers
	Users       int    `json:"users"`       // connected users
	// Sync is what the node is fetching, absent when it has all it needs.
	Sync *control.Sync `json:"sync,omitempty"`
	// Trouble is what keeps the node from executing or keeping the state.
	Trouble string `json:"trouble,omitempty"`

	member bool
	silent string // why a running node did not answer
}

// Status asks all nodes, in order.
func (c *Cluster) Status(ctx context.Context) ([]NodeStatus, error) {
	cfgs, err := c.configs()
	if err != nil {
		return nil, err
	}
	all := make([]NodeStatus, len(cfgs))
	var asked sync.WaitGroup
	for at, cfg := range cfgs {
		asked.Go(func() { all[at] = c.nodeStatus(ctx, at+1, cfg) })
	}
	asked.Wait()
	return all, nil
}

func (c *Cluster) nodeStatus(ctx context.Context, i int, cfg *config.Config) NodeStatus {
	n := NodeStatus{
		Node:       i,
		PublicKey:  cfg.Node.PublicKey.String(),
		UserPort:   cfg.User.Port,
		PeerPort:   cfg.Mesh.Port,
		VoteStatus: "unknown",
		member:     cfg.Contract.Member(cfg.Node.PublicKey), // a spawned node may have become one
	}
	p, running := c.process(i)
	if !running {
		return n
	}
	n.PID, n.Running = p.PID, true
	s, err := control.Fetch(ctx, c.NodeDir(i))
	if err != nil {
		n.silent = err.Error()
		return n
	}
	n.LedgerSeqNo, n.LedgerHash = s.LedgerSeqNo, s.LedgerHash
	n.StateHash, n.PatchHash, n.VoteStatus = s.StateHash, s.PatchHash, s.VoteStatus
	n.Peers, n.Users, n.Sync = s.Peers, s.Users, s.Sync
	n.Trouble = s.Trouble
	return n
}

// WriteJSON writes the status of all nodes as one array.
func WriteJSON(w io.Writer, nodes []NodeStatus) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(nodes)
}

// WriteTable writes the status of all nodes for a person, and below the table
// what a node is fetching and what keeps it from its work.
func WriteTable(w io.Writer, nodes []NodeStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tRUNS\tLEDGER\tHASH\tSTATE\tVOTES\tPEERS\tUSERS\tUSER PORT\tPEER PORT\tPROCESS")
	for _, n := range nodes {
		name := fmt.Sprint(n.Node)
		if !n.member {
			name += " (follows)"
		}
		if !n.Running {
			fmt.Fprintf(t, "%s\tno\t-\t-\t-\t-\t-\t-\t%d\t%d\t-\n", name, n.UserPort, n.PeerPort)
			continue
		}
		if n.silent != "" {
			fmt.Fprintf(t, "%s\tno answer\t-\t-\t-\t-\t-\t-\t%d\t%d\t%d\n", name, n.UserPort, n.PeerPort, n.PID)
			continue
		}
		fmt.Fprintf(t, "%s\tyes\t%d\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", name, n.LedgerSeqNo, short(n.LedgerHash), short(n.StateHash),
			n.VoteStatus+progress(n.Sync), n.Peers, n.Users, n.UserPort, n.PeerPort, n.PID)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Trouble != "" {
			if _, err := fmt.Fprintf(w, "Node %d has a problem: %s\n", n.Node, n.Trouble); err != nil {
				return err
			}
		}
		if n.Sync == nil {
			continue
		}
		if _, err := fmt.Fprintf(w, "Node %d is fetching %s: %s\n", n.Node, n.Sync.What, n.Sync.Progress()); err != nil {
			return err
		}
	}
	return nil
}

// progress is what the table tells of what a node fetches.
func progress(s *control.Sync) string {
	if s == nil {
		return ""
	}
	return " (fetches " + s.What + ")"
}

// short is the part of a hash that a person compares.
func short(hash string) string {
	if len(hash) > 8 {
		return hash[:8]
	}
	if hash == "" {
		return "-"
	}
	return hash
}
