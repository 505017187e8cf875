// Package demo is the demonstration that `make demo` runs: four nodes with a
// contract, two users on two of them, the death of a node and its return, each
// claim checked and not only shown.
//
// It uses the developer's cluster and the library for users as anybody could,
// and leaves nothing behind.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"evernode/devkit"
	"evernode/hotpocket/key"
	"evernode/sdk/client"
)

const (
	nodes = 4
	// limit is how long the demonstration may take in all.
	limit = 55 * time.Second
)

// Options are what the demonstration is given.
type Options struct {
	Bundle string   // folder with the key-value contract, ready to deploy
	Node   []string // command that runs a node
	Out    io.Writer
}

// Run runs the demonstration. It returns an error that says what failed when
// anything is not as it should be.
func Run(ctx context.Context, o Options) (err error) {
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the demonstration took longer than %v", limit))
	defer cancel()
	dir, err := os.MkdirTemp("", "evernode-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{out: o.Out}
	d.title("Four nodes, each a process of its own, with a key-value contract")
	userPort, peerPort, err := freePorts()
	if err != nil {
		return err
	}
	work := filepath.Join(dir, "cluster")
	env := devkit.Env{Node: o.Node, Report: devkit.Quiet{}}
	d.c, err = devkit.Deploy(ctx, work, o.Bundle, devkit.DeployOptions{Nodes: nodes, UserPort: userPort, PeerPort: peerPort}, env)
	defer func() {
		// Whatever happened, and even when we were told to stop.
		cleanCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if c, openErr := devkit.Open(work, env); openErr == nil {
			err = errors.Join(err, c.Clean(cleanCtx))
		}
	}()
	if err == nil {
		if err = d.story(ctx); err != nil {
			d.lastWords()
		}
	}
	for _, cl := range d.clients {
		cl.Close()
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w (while: %v)", cause, err)
		}
		return err
	}
	if err := d.cleanUp(ctx); err != nil {
		return err
	}
	d.printf("\nAll of it held, in %.1f s.\n", time.Since(begin).Seconds())
	return nil
}

type demo struct {
	out     io.Writer
	c       *devkit.Cluster
	step    int
	clients []*client.Client
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

func (d *demo) title(text string) {
	d.step++
	d.printf("\n%d. %s\n\n", d.step, text)
}

// person is a user who submits through one node and listens at several.
type person struct {
	name     string
	at       int // node
	key      key.Private
	main     *client.Client
	outputs  map[int]chan client.Output // by node
	listener map[int]*client.Client
}

func (d *demo) story(ctx context.Context) error {
	status, err := d.c.Status(ctx)
	if err != nil {
		return err
	}
	d.table(status)

	d.title("Two users submit inputs through two different nodes")
	alice, err := d.join(ctx, "alice", 1)
	if err != nil {
		return err
	}
	bob, err := d.join(ctx, "bob", 2)
	if err != nil {
		return err
	}
	if err := d.say(ctx, alice, "set fruit apple", "ok", 1, 2, 3, 4); err != nil {
		return err
	}
	if err := d.say(ctx, bob, "set colour green", "ok", 1, 2, 3, 4); err != nil {
		return err
	}
	if err := d.say(ctx, bob, "get fruit", "apple", 1, 2, 3, 4); err != nil {
		return err
	}

	d.title("All four nodes have the same state")
	if err := d.sameState(ctx, 1, 2, 3, 4); err != nil {
		return err
	}

	const victim = 4
	d.title(fmt.Sprintf("Node %d is killed with SIGKILL; the others go on", victim))
	if err := d.c.Kill(ctx, victim); err != nil {
		return err
	}
	if err := d.say(ctx, alice, "set fruit pear", "ok", 1, 2, 3); err != nil {
		return err
	}
	if err := d.say(ctx, bob, "get fruit", "pear", 1, 2, 3); err != nil {
		return err
	}
	if err := d.sameState(ctx, 1, 2, 3); err != nil {
		return err
	}

	d.title(fmt.Sprintf("Node %d is started again and catches up", victim))
	begin := time.Now()
	if err := d.c.Start(ctx, victim); err != nil {
		return err
	}
	if err := d.sameState(ctx, 1, 2, 3, victim); err != nil {
		return err
	}
	d.printf("   caught up in %.1f s\n", time.Since(begin).Seconds())
	answer, err := d.c.Read(ctx, victim, alice.key, []byte("get fruit"))
	if err != nil {
		return err
	}
	d.printf("   a read request to node %d, which missed it: get fruit -> %q\n", victim, answer)
	if string(answer) != "pear" {
		return fmt.Errorf("node %d answers %q from its state, not %q", victim, answer, "pear")
	}
	return nil
}

// join connects a user to all nodes: to one for submitting, and to the others
// to see what they deliver.
func (d *demo) join(ctx context.Context, name string, at int) (*person, error) {
	k, err := d.c.UserKey(name)
	if err != nil {
		return nil, err
	}
	p := &person{name: name, at: at, key: k, outputs: map[int]chan client.Output{}, listener: map[int]*client.Client{}}
	for n := 1; n <= nodes; n++ {
		ch := make(chan client.Output, 16)
		cl, err := d.c.Connect(ctx, n, k, func(o client.Output) { ch <- o })
		if err != nil {
			return nil, err
		}
		d.clients = append(d.clients, cl)
		p.outputs[n], p.listener[n] = ch, cl
		if n == at {
			p.main = cl
		}
	}
	return p, nil
}

// say submits an input and checks what each of the listening nodes delivers.
func (d *demo) say(ctx context.Context, p *person, input, want string, listening ...int) error {
	begin := time.Now()
	s, err := p.main.Submit(ctx, []byte(input))
	if err != nil {
		return fmt.Errorf("%s through node %d: %w", p.name, p.at, err)
	}
	at, err := s.Wait(ctx)
	if err != nil {
		return fmt.Errorf("%s through node %d: %w", p.name, p.at, err)
	}
	accepted := time.Since(begin)
	var first client.Output
	for i, n := range listening {
		o, err := p.next(ctx, n, at.SeqNo)
		if err != nil {
			return err
		}
		if i == 0 {
			first = o
			continue
		}
		if o.Hash != first.Hash || o.Ledger != first.Ledger || !slices.EqualFunc(o.Outputs, first.Outputs, bytes.Equal) {
			return fmt.Errorf("nodes %d and %d deliver different outputs to %s: %q with ledger %d, %q with ledger %d",
				listening[0], n, p.name, first.Outputs, first.Ledger.SeqNo, o.Outputs, o.Ledger.SeqNo)
		}
	}
	if len(first.Outputs) != 1 || string(first.Outputs[0]) != want {
		return fmt.Errorf("the contract says %q to %q of %s, not %q", first.Outputs, input, p.name, want)
	}
	// The ledger that holds the input must be the same one everywhere.
	for _, n := range listening {
		l, err := p.listener[n].Ledger(ctx, at.SeqNo, false, false)
		if err != nil {
			return fmt.Errorf("ask node %d for ledger %d: %w", n, at.SeqNo, err)
		}
		if l.Hash != at.Hash {
			return fmt.Errorf("node %d has another ledger %d: %s, not %s", n, at.SeqNo, l.Hash, at.Hash)
		}
	}
	d.printf("   %-5s -> node %d   %-18s accepted in ledger %d (%s…) after %d ms\n",
		p.name, p.at, input, at.SeqNo, at.Hash.String()[:8], accepted.Milliseconds())
	d.printf("   %-5s <- nodes %-21s %q, hash %s…, confirmed by ledger %d\n",
		"", join(listening), want, first.Hash.String()[:8], first.Ledger.SeqNo)
	return nil
}

// next waits for the outputs that node n delivers for the input in ledger seq.
func (p *person) next(ctx context.Context, n int, seq uint64) (client.Output, error) {
	for {
		select {
		case o := <-p.outputs[n]:
			if o.Ledger.SeqNo > seq {
				return o, nil
			}
		case <-p.listener[n].Done():
			return client.Output{}, fmt.Errorf("%s lost node %d: %w", p.name, n, p.listener[n].Err())
		case <-ctx.Done():
			return client.Output{}, fmt.Errorf("node %d delivers no output to %s: %w", n, p.name, ctx.Err())
		}
	}
}

// sameState waits until the nodes have closed the same ledger and checks that
// they have one state.
func (d *demo) sameState(ctx context.Context, which ...int) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := d.c.Status(ctx)
		if err != nil {
			return err
		}
		equal, same := true, true
		first := all[which[0]-1]
		for _, n := range which {
			s := all[n-1]
			if !s.Running {
				return fmt.Errorf("node %d does not run", n)
			}
			// Heartbeats close while we ask, so ask until all show one ledger.
			equal = equal && s.LedgerSeqNo == first.LedgerSeqNo && s.LedgerSeqNo > 0 && s.VoteStatus == "synced"
			same = same && s.LedgerHash == first.LedgerHash && s.StateHash == first.StateHash && s.PatchHash == first.PatchHash
		}
		if equal && same {
			d.table(all)
			return nil
		}
		select {
		case <-ctx.Done():
			d.table(all)
			if equal {
				return fmt.Errorf("nodes %s have closed ledger %d but differ", join(which), first.LedgerSeqNo)
			}
			return fmt.Errorf("nodes %s do not come to the same ledger: %w", join(which), ctx.Err())
		case <-tick.C:
		}
	}
}

func (d *demo) table(all []devkit.NodeStatus) {
	for _, s := range all {
		if !s.Running {
			d.printf("   node %d   does not run\n", s.Node)
			continue
		}
		d.printf("   node %d   process %-7d ledger %-4d hash %.8s…   state %.16s…\n", s.Node, s.PID, s.LedgerSeqNo, s.LedgerHash, s.StateHash)
	}
}

// lastWords shows the end of every node's log, which is removed with the
// cluster.
func (d *demo) lastWords() {
	for n := 1; n <= nodes; n++ {
		d.printf("\n   last words of node %d:\n", n)
		if err := d.c.Logs(context.Background(), d.out, n, 10, false); err != nil {
			d.printf("   %v\n", err)
		}
	}
}

// cleanUp removes the cluster and checks that nothing of it is left.
func (d *demo) cleanUp(ctx context.Context) error {
	d.title("Everything is removed")
	all, err := d.c.Status(ctx)
	if err != nil {
		return err
	}
	if err := d.c.Clean(ctx); err != nil {
		return err
	}
	for _, s := range all {
		// A number that was given to another process meanwhile is no trace.
		line, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.PID), "cmdline"))
		if s.PID != 0 && bytes.Contains(line, []byte(d.c.Dir())) {
			return fmt.Errorf("node %d still runs as process %d", s.Node, s.PID)
		}
	}
	if _, err := os.Stat(d.c.Dir()); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the work folder %s is still there", d.c.Dir())
	}
	d.printf("   no process and no file is left\n")
	return nil
}

func join(numbers []int) string {
	s := make([]string, len(numbers))
	for i, n := range numbers {
		s[i] = strconv.Itoa(n)
	}
	return strings.Join(s, ", ")
}

// freePorts finds two ranges of free ports, so that the demonstration runs
// beside whatever uses the usual ones.
func freePorts() (user, peer int, err error) {
	for base := 18081; base < 60000; base += 2*nodes + 3 {
		if allFree(base, 2*nodes) {
			return base, base + nodes, nil
		}
	}
	return 0, 0, fmt.Errorf("there are no %d free ports in a row", 2*nodes)
}

func allFree(base, n int) bool {
	for p := base; p < base+n; p++ {
		l, err := net.Listen("tcp4", "0.0.0.0:"+strconv.Itoa(p))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
