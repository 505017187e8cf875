package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/usermsg"
)

const (
	readSamples = 200
	loneSamples = 200
	// With a node dead, fewer are enough for a median.
	deadReads = 100
	deadLone  = 60

	readPause = 15 * time.Millisecond // on average
	// An input costs two ledgers, one that accepts it and one that confirms its
	// output, and the tempo allows ten in a roundtime of a second. Inputs that
	// come faster than that wait for the tempo, which is not what is measured
	// here.
	lonePause = 250 * time.Millisecond // on average
)

// everyone is a user at each live node.
type everyone []*user

func (b *bench) logins(ctx context.Context) (everyone, error) {
	var all everyone
	for i, n := range b.cluster.nodes {
		if n.expected {
			continue
		}
		k, err := key.Generate()
		if err != nil {
			return nil, err
		}
		u, err := login(ctx, i, n.user, k, b.protocol)
		if err != nil {
			all.leave()
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

func (e everyone) leave() {
	for _, u := range e {
		u.leave()
	}
}

// pause waits between half and one and a half of d.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// reads measures read requests, one at a time, at all live nodes in turn, and
// the contract by itself between them.
func (b *bench) reads(ctx context.Context, n int) (read, floor samples, err error) {
	users, err := b.logins(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer users.leave()
	payload := strings.Repeat("r", payloadSize)
	for i := range n {
		if err := pause(ctx, readPause); err != nil {
			return nil, nil, err
		}
		f, err := b.floor.run()
		if err != nil {
			return nil, nil, err
		}
		u := users[i%len(users)]
		id := strconv.Itoa(i)
		message := frame(usermsg.AppendRequest(nil, b.protocol, usermsg.Request{Type: usermsg.RequestRead, ID: id, Content: []byte(payload)}))
		start := time.Now()
		err = u.ask(message, func(m usermsg.Message) (bool, error) {
			r, ok := m.(*usermsg.ReadResponse)
			switch {
			case !ok || r.ReplyFor != id:
				return false, nil
			case string(r.Content) != payload:
				return false, fmt.Errorf("answered %.40q", r.Content)
			}
			return true, nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("read request at node %d: %w", u.node+1, err)
		}
		read, floor = append(read, time.Since(start)), append(floor, f)
		b.progress("read requests: %d of %d", i+1, n)
	}
	return read, floor, nil
}

// loneInput is the life of one input.
type loneInput struct {
	node             int
	sent             time.Time
	accepted, output time.Duration // since sent
	ledger           uint64        // that accepted it
}

// lone measures inputs one at a time, at all live nodes in turn.
func (b *bench) lone(ctx context.Context, n int) (inputs []loneInput, floor samples, err error) {
	users, err := b.logins(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer users.leave()
	for i := range n {
		// The floor is measured in the middle of the pause, when the cluster has
		// nothing to do.
		if err := pause(ctx, lonePause/2); err != nil {
			return nil, nil, err
		}
		f, err := b.floor.input()
		if err != nil {
			return nil, nil, err
		}
		if err := pause(ctx, lonePause/2); err != nil {
			return nil, nil, err
		}
		u := users[i%len(users)]
		in, err := b.loneInput(u)
		if err != nil {
			return nil, nil, fmt.Errorf("input at node %d: %w", u.node+1, err)
		}
		inputs, floor = append(inputs, in), append(floor, f)
		b.progress("lone inputs: %d of %d", i+1, n)
	}
	return inputs, floor, nil
}

func (b *bench) loneInput(u *user) (loneInput, error) {
	b.nonce++
	payload := fmt.Sprintf("%-*d", payloadSize, b.nonce)
	message, sig := u.input([]byte(payload), b.nonce, farLedger)
	hash := digest.Sum(sig[:])
	in := loneInput{node: u.node, sent: time.Now()}
	err := u.ask(message, func(m usermsg.Message) (bool, error) {
		switch m := m.(type) {
		case *usermsg.InputStatus:
			switch {
			case m.InputHash != hash:
				return false, fmt.Errorf("status of another input")
			case !m.Accepted:
				return false, fmt.Errorf("rejected: %s", m.Reason)
			case in.accepted > 0:
				return false, fmt.Errorf("accepted twice")
			}
			in.accepted, in.ledger = time.Since(in.sent), m.LedgerSeqNo
		case *usermsg.Output:
			if len(m.Outputs) != 1 || strings.TrimSpace(string(m.Outputs[0])) != strings.TrimSpace(payload) {
				return false, fmt.Errorf("got other outputs than the input's echo")
			}
			if in.accepted == 0 {
				return false, fmt.Errorf("output before the input was accepted")
			}
			in.output = time.Since(in.sent)
			return true, nil
		}
		return false, nil
	})
	return in, err
}

// times takes one of the times out of each.
func times(inputs []loneInput, of func(loneInput) time.Duration) samples {
	var out samples
	for _, in := range inputs {
		out = append(out, of(in))
	}
	return out
}

func toAccepted(in loneInput) time.Duration { return in.accepted }
func toOutput(in loneInput) time.Duration   { return in.output }

func (b *bench) runRead(ctx context.Context) error {
	read, floor, err := b.reads(ctx, readSamples)
	if err != nil {
		return err
	}
	const peer = "(the contract by itself)"
	b.report.add("read request p50", read.quantile(.5), "ms").beside(floor.quantile(.5), peer).must(atMost(8))
	b.report.add("read request p99", read.quantile(.99), "ms").beside(floor.quantile(.99), peer)
	b.report.note("read request: %d, one at a time at all nodes in turn, from sending to the answer, cluster idle; beside it, between any two, the same contract started directly with a file and a pipe.", readSamples)
	return nil
}

func (b *bench) runLone(ctx context.Context) error {
	inputs, floor, err := b.lone(ctx, loneSamples)
	if err != nil {
		return err
	}
	b.loneDone = inputs
	const peer = "(connection, signature, 2 syncs, contract)"
	a, o := times(inputs, toAccepted), times(inputs, toOutput)
	b.report.add("lone input accepted p50", a.quantile(.5), "ms")
	b.report.add("lone input accepted p99", a.quantile(.99), "ms")
	b.report.add("lone input output p50", o.quantile(.5), "ms").beside(floor.quantile(.5), peer).must(atMost(15))
	b.report.add("lone input output p99", o.quantile(.99), "ms").beside(floor.quantile(.99), peer)
	b.report.note("lone input: %d, one at a time at all nodes in turn, pauses of %v to %v, so that the tempo (10 ledgers in a roundtime of %v, two for each input) never holds one up; beside it a TLS echo on loopback that verifies one signature, syncs twice and starts the contract for each message.",
		loneSamples, lonePause/2, 3*lonePause/2, roundtime)
	return nil
}

// runDead repeats reads and lone inputs after a node was killed.
func (b *bench) runDead(ctx context.Context) error {
	const reading, waiting = "read request p50", "lone input output p50"
	if _, ok := b.report.find(reading); !ok {
		if err := b.runRead(ctx); err != nil {
			return err
		}
	}
	if _, ok := b.report.find(waiting); !ok {
		if err := b.runLone(ctx); err != nil {
			return err
		}
	}
	victim := len(b.cluster.nodes) - 1
	b.cluster.nodes[victim].kill()
	// One heartbeat without it, after which nobody expects it any more.
	if err := pause(ctx, 2*roundtime); err != nil {
		return err
	}
	read, _, err := b.reads(ctx, deadReads)
	if err != nil {
		return err
	}
	inputs, _, err := b.lone(ctx, deadLone)
	if err != nil {
		return err
	}
	with, _ := b.report.find(reading)
	b.report.add("one node dead: read request p50", read.quantile(.5), "ms").beside(with, "(with all four)").must(&target{limit: 1.5, of: true})
	with, _ = b.report.find(waiting)
	o := times(inputs, toOutput)
	b.report.add("one node dead: lone input output p50", o.quantile(.5), "ms").beside(with, "(with all four)").must(&target{limit: 1.5, of: true})
	b.report.add("one node dead: lone input output p99", o.quantile(.99), "ms")
	b.report.note("one node dead: node %d of 4 killed with SIGKILL and not restarted; %d reads and %d lone inputs at the other three.", victim+1, deadReads, deadLone)
	return nil
}
