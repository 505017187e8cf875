package devkit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/key"
	"evernode/sdk/client"
)

const usersDir = "users"

// userName is what a user of the cluster may be called; it becomes a file name.
var userName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

// UserKey returns the key of a user of this cluster, made when the name is used
// for the first time.
func (c *Cluster) UserKey(name string) (key.Private, error) {
	if !userName.MatchString(name) {
		return key.Private{}, fmt.Errorf("%q cannot be a user's name; use letters, digits, _ and -", name)
	}
	path := filepath.Join(c.dir, usersDir, name+".key")
	text, err := os.ReadFile(path)
	if err == nil {
		k, err := key.ParsePrivate(strings.TrimSpace(string(text)))
		if err != nil {
			return key.Private{}, fmt.Errorf("%s: %w; remove the file to get a new key", path, err)
		}
		return k, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return key.Private{}, err
	}
	k, err := key.Generate()
	if err != nil {
		return key.Private{}, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return key.Private{}, err
	}
	return k, config.WriteFile(path, []byte(k.Hex()+"\n"), 0o600)
}

// Connect connects a user to node n. Every output for the user is handed to
// outputs, which must not block for long.
func (c *Cluster) Connect(ctx context.Context, n int, user key.Private, outputs func(client.Output)) (*client.Client, error) {
	if _, err := c.choose(n); err != nil || n == 0 {
		return nil, fmt.Errorf("there is no node %d; this cluster has nodes 1 to %d", n, c.Size())
	}
	if _, running := c.process(n); !running {
		return nil, fmt.Errorf("node %d does not run; start it with evernode dev start %d, or talk to another with --node", n, n)
	}
	cl, err := client.Connect(ctx, client.Options{
		Servers:    []string{"wss://" + c.UserAddr(n)},
		Key:        user,
		ContractID: c.state.ContractID,
		// Outputs keep their bytes only with BSON.
		Protocol: client.BSON,
		Handler:  client.Handler{Output: outputs},
	})
	if err != nil {
		return nil, fmt.Errorf("connect to node %d at %s: %w; see evernode dev logs %d", n, c.UserAddr(n), err, n)
	}
	return cl, nil
}

// Reply is what became of an input.
type Reply struct {
	Accepted client.LedgerRef // the ledger that holds the input
	Output   client.LedgerRef // the ledger that confirms the outputs
	Outputs  [][]byte         // none when the contract said nothing or its run was undone
}

// Input submits an input through node n and waits for what the contract says to
// it. accepted, which may be nil, is called when the input is in a ledger.
func (c *Cluster) Input(ctx context.Context, n int, user key.Private, input []byte, accepted func(client.LedgerRef)) (Reply, error) {
	outputs := make(chan client.Output, 64)
	cl, err := c.Connect(ctx, n, user, func(o client.Output) {
		select {
		case outputs <- o:
		case <-ctx.Done():
		}
	})
	if err != nil {
		return Reply{}, err
	}
	defer cl.Close()
	s, err := cl.Submit(ctx, input)
	if err != nil {
		return Reply{}, err
	}
	at, err := s.Wait(ctx)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return Reply{}, fmt.Errorf("node %d did not say in time what became of the input, which may yet be accepted: %w; does the cluster close ledgers, or does a contract run for long? See evernode dev status and evernode dev logs %d", n, err, n)
		}
		if limit := 5 << 20; errors.Is(err, client.ErrConnectionLost) && len(input) > limit {
			return Reply{}, fmt.Errorf("%w; the input has %d bytes, and node %d takes messages of up to user.max_bytes_per_msg, 5 MiB unless hp.cfg says otherwise", err, len(input), n)
		}
		return Reply{}, explain(err)
	}
	if accepted != nil {
		accepted(at)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	settled := 0
	for {
		select {
		case o := <-outputs:
			// Earlier outputs are those of earlier inputs of the same user.
			if o.Ledger.SeqNo > at.SeqNo {
				return Reply{at, o.Ledger, o.Outputs}, nil
			}
		case <-cl.Done():
			return Reply{}, fmt.Errorf("node %d was lost before the output came: %w", n, cl.Err())
		case <-ctx.Done():
			return Reply{Accepted: at}, fmt.Errorf("the input is in ledger %d, but there was no output in time: %w; see evernode dev logs %d", at.SeqNo, ctx.Err(), n)
		case <-tick.C:
			// A contract may have nothing to say: its run is over and its
			// result confirmed when it does not run some ledgers later.
			status, err := control.Fetch(ctx, c.NodeDir(n))
			if err == nil && !status.ContractRunning && status.LedgerSeqNo >= at.SeqNo+2 {
				settled++
			}
			if settled >= 5 {
				return Reply{Accepted: at}, nil
			}
		}
	}
}

// explain adds to a rejection what it means.
func explain(err error) error {
	var rejected *client.RejectedError
	if !errors.As(err, &rejected) {
		return err
	}
	meaning := map[string]string{
		client.ReasonLedgerExpired:        "no ledger took it in time; is the cluster making ledgers? See evernode dev status",
		client.ReasonLedgerOffsetExceeded: "it may expire too far ahead; see contract.max_input_ledger_offset",
		client.ReasonNonceExpired:         "the user submitted a later input already, perhaps from another terminal; try again, or use another --user",
		client.ReasonOverflow:             "the user has too much pending, or the node is too busy; try again later, or raise contract.round_limits.user_input_bytes",
	}[rejected.Reason]
	if meaning == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, meaning)
}

// Read asks node n a question, which only that node answers from its state.
func (c *Cluster) Read(ctx context.Context, n int, user key.Private, request []byte) ([]byte, error) {
	cl, err := c.Connect(ctx, n, user, nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	answer, err := cl.Read(ctx, request)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("the contract said nothing to the read request on node %d; see evernode dev logs %d", n, n)
	}
	return answer, err
}
