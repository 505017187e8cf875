package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/internal/usermsg"
)

const (
	loadUsers = 100
	// patience is how long after the last news an answer counts as missing.
	patience = 10 * time.Second
	// pacing is how often a sender looks what is due.
	pacing = 2 * time.Millisecond
	// sustainedShare is what part of the offered rate must have been accepted per
	// second, until the last one, for it to count as sustained: that the last
	// ones take their time weighs the more the shorter the step is.
	sustainedShare = 0.9
)

// requiredRate is how many inputs per second a cluster must take.
const requiredRate = 5000

// step is a rate offered for a while.
type step struct {
	rate int // inputs per second
	last time.Duration
}

// prepared is an input that waits to be sent.
type prepared struct {
	user  *loadUser
	frame []byte
}

// fate is what became of an input. Its fields belong to the reader of its user.
type fate struct {
	accepted, output time.Duration // since the step began; 0: not yet
	statuses         uint8
	outputs          uint8
	reason           string
}

// loadUser is one of the users and what it waits for.
type loadUser struct {
	*user
	mine map[uint64]int32 // by the first bytes of the hash, the input's number
	err  error
}

// offered is one step of load in progress.
type offered struct {
	step
	inputs  []prepared
	fates   []fate
	began   time.Time
	settled atomic.Int64 // inputs of which nothing more is awaited
	strange atomic.Int64 // messages that fit no input
	lag     atomic.Int64 // greatest delay of a sender against its schedule, ns
}

// marker begins each payload of load; the input's number follows in hex.
const marker = "#input "

// prepare signs a step's inputs on all processors.
func (b *bench) prepare(users []*loadUser, s step) *offered {
	n := int(float64(s.rate) * s.last.Seconds())
	o := &offered{step: s, inputs: make([]prepared, n), fates: make([]fate, n)}
	first := b.nonce + 1
	b.nonce += uint64(n)
	hashes := make([]uint64, n)
	workers := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				u := users[i%len(users)]
				payload := fmt.Appendf(nil, "%s%08x ", marker, i)
				payload = append(payload, strings.Repeat(".", payloadSize-len(payload))...)
				f, sig := u.input(payload, first+uint64(i), farLedger)
				hash := digest.Sum(sig[:])
				hashes[i] = binary.BigEndian.Uint64(hash[:])
				o.inputs[i] = prepared{u, f}
			}
		})
	}
	wg.Wait()
	for _, u := range users {
		u.mine = make(map[uint64]int32, n/len(users)+1)
	}
	for i, h := range hashes {
		users[i%len(users)].mine[h] = int32(i)
	}
	return o
}

// collect reads what a user is told until the connection ends.
func (o *offered) collect(u *loadUser, done <-chan struct{}) {
	for {
		b, err := u.next()
		if err != nil {
			select {
			case <-done:
			default:
				u.err = err
			}
			return
		}
		o.take(u, b, time.Since(o.began))
	}
}

var (
	statusName = []byte("contract_input_status")
	outputName = []byte("contract_output")
	hashName   = []byte("input_hash")
	yes        = []byte(usermsg.StatusAccepted)
	number8    = []byte(marker)
)

// take finds in a message what it is about without decoding it, which would
// cost more than all the rest of this program.
func (o *offered) take(u *loadUser, b []byte, now time.Duration) {
	head := b[:min(len(b), 64)]
	switch {
	case bytes.Contains(head, statusName):
		i, ok := u.whose(b)
		if !ok {
			o.strange.Add(1)
			return
		}
		f := &o.fates[i]
		f.statuses++
		if bytes.Contains(b[:min(len(b), 96)], yes) {
			f.accepted = max(now, 1)
		} else {
			m, err := usermsg.DecodeMessage(u.protocol, b)
			s, is := m.(*usermsg.InputStatus)
			if err != nil || !is {
				o.strange.Add(1)
				return
			}
			f.reason = s.Reason
			o.settled.Add(1)
		}
	case bytes.Contains(head, outputName):
		for {
			at := bytes.Index(b, number8)
			if at < 0 {
				return
			}
			b = b[at+len(number8):]
			var n [4]byte
			if len(b) < 8 {
				o.strange.Add(1)
				return
			}
			if _, err := hex.Decode(n[:], b[:8]); err != nil {
				o.strange.Add(1)
				continue
			}
			i := binary.BigEndian.Uint32(n[:])
			if int(i) >= len(o.fates) || o.inputs[i].user != u {
				o.strange.Add(1)
				continue
			}
			f := &o.fates[i]
			f.outputs++
			f.output = max(now, 1)
			o.settled.Add(1)
		}
	}
}

// whose finds the input that a status is about.
func (u *loadUser) whose(b []byte) (int32, bool) {
	at := bytes.Index(b, hashName)
	if at < 0 {
		return 0, false
	}
	b = b[at+len(hashName):]
	var h [8]byte
	if u.protocol == usermsg.BSON {
		// A zero byte, four of the length, one of the subtype.
		if len(b) < 6+len(h) {
			return 0, false
		}
		copy(h[:], b[6:])
	} else {
		// A quote, a colon, a quote.
		if len(b) < 3+2*len(h) {
			return 0, false
		}
		if _, err := hex.Decode(h[:], b[3:3+2*len(h)]); err != nil {
			return 0, false
		}
	}
	i, ok := u.mine[binary.BigEndian.Uint64(h[:])]
	return i, ok
}

// due is when an input is to be sent, since the step began.
func (o *offered) due(i int) time.Duration {
	return time.Duration(float64(i) / float64(o.rate) * float64(time.Second))
}

// send offers the inputs of the users of one node, each at its time. What is due
// for one user at the same moment goes out in one write.
func (o *offered) send(ctx context.Context, node int) error {
	var mine []int
	for i := range o.inputs {
		if o.inputs[i].user.node == node {
			mine = append(mine, i)
		}
	}
	t := time.NewTicker(pacing)
	defer t.Stop()
	for len(mine) > 0 {
		now := time.Since(o.began)
		if now < o.due(mine[0]) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
			}
			continue
		}
		for len(mine) > 0 && o.due(mine[0]) <= now {
			p := &o.inputs[mine[0]]
			if late := int64(time.Since(o.began) - o.due(mine[0])); late > o.lag.Load() {
				o.lag.Store(late)
			}
			if _, err := p.user.conn.Write(p.frame); err != nil {
				return fmt.Errorf("send to node %d: %w", node+1, err)
			}
			p.frame = nil
			mine = mine[1:]
		}
	}
	return nil
}

// outcome is what a step came to.
type outcome struct {
	rate             float64 // accepted per second, from the first due to the last accepted
	accepted, output samples // since an input was due
	rejected         map[string]int
	missing          int // without a status, or accepted and without an output
	twice            int // with more than one of either
	strange          int
	lag              time.Duration
	client           time.Duration // processor time
	nodes            usage
	elapsed          time.Duration
	busy             time.Duration // of the whole machine
	memory           []float64     // of each node afterwards, MiB
	began            time.Time
}

func (r *outcome) sustained(s step) bool {
	return len(r.rejected) == 0 && r.missing == 0 && r.twice == 0 && r.strange == 0 && r.rate >= sustainedShare*float64(s.rate)
}

// offer carries out one step.
func (b *bench) offer(ctx context.Context, s step) (*outcome, error) {
	users := make([]*loadUser, loadUsers)
	var logins sync.WaitGroup
	errs := make([]error, loadUsers)
	for i := range users {
		logins.Go(func() {
			k, err := key.Generate()
			if err == nil {
				var u *user
				at := i % len(b.cluster.nodes)
				u, err = login(ctx, at, b.cluster.nodes[at].user, k, b.protocol)
				users[i] = &loadUser{user: u}
			}
			errs[i] = err
		})
	}
	logins.Wait()
	done := make(chan struct{})
	var readers sync.WaitGroup
	finish := sync.OnceFunc(func() {
		close(done)
		for _, u := range users {
			if u != nil {
				u.leave()
			}
		}
		readers.Wait()
	})
	defer finish()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	b.progress("load %d/s: signing", s.rate)
	o := b.prepare(users, s)
	runtime.GC() // not in the middle of it
	before, err := b.cluster.usage()
	if err != nil {
		return nil, err
	}
	own := ownUsage()
	busy, err := busyOf()
	if err != nil {
		return nil, err
	}
	o.began = time.Now()
	for _, u := range users {
		readers.Go(func() { o.collect(u, done) })
	}
	var senders sync.WaitGroup
	failed := make([]error, len(b.cluster.nodes))
	for i := range b.cluster.nodes {
		senders.Go(func() { failed[i] = o.send(ctx, i) })
	}
	sent := make(chan struct{})
	go func() { senders.Wait(); close(sent) }()
	if err := b.settle(ctx, o, sent); err != nil {
		for _, u := range users {
			u.conn.Close() // a sender may wait for a node that reads no more
		}
		<-sent
		return nil, err
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	r := &outcome{began: o.began, elapsed: time.Since(o.began), client: ownUsage() - own}
	if r.memory, err = b.cluster.resident(); err != nil {
		return nil, err
	}
	after, err := b.cluster.usage()
	if err != nil {
		return nil, err
	}
	for i := range after {
		d := after[i].minus(before[i])
		r.nodes.own += d.own
		r.nodes.children += d.children
	}
	if now, err := busyOf(); err == nil {
		r.busy = now - busy
	}
	finish()
	for _, u := range users {
		if u.err != nil {
			return nil, fmt.Errorf("a user at node %d was cut off: %w", u.node+1, u.err)
		}
	}
	o.count(r)
	return r, nil
}

// settle waits until every input has its answers, or nothing more comes.
func (b *bench) settle(ctx context.Context, o *offered, sent <-chan struct{}) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last int64
	news := time.Now()
	sending := true
	for {
		n := o.settled.Load()
		if n != last {
			last, news = n, time.Now()
		}
		b.progress("load %d/s: %d of %d inputs have their output", o.rate, n, len(o.inputs))
		if !sending && (n >= int64(len(o.inputs)) || time.Since(news) > patience) {
			return nil
		}
		if sending && time.Since(news) > 3*patience {
			return fmt.Errorf("load %d/s: nothing has been accepted for %v", o.rate, 3*patience)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sent:
			sending, sent = false, nil
		case <-tick.C:
		}
	}
}

// count makes the totals, when all readers have ended.
func (o *offered) count(r *outcome) {
	var last time.Duration
	r.rejected = map[string]int{}
	for i := range o.fates {
		f := &o.fates[i]
		switch {
		case f.statuses > 1 || f.outputs > 1:
			r.twice++
		case f.reason != "":
			r.rejected[f.reason]++
		case f.statuses == 0 || f.outputs == 0:
			r.missing++
		}
		if f.accepted > 0 {
			r.accepted = append(r.accepted, f.accepted-o.due(i))
			last = max(last, f.accepted)
		}
		if f.output > 0 {
			r.output = append(r.output, f.output-o.due(i))
		}
	}
	if last > 0 {
		r.rate = float64(len(r.accepted)) / max(last, o.last).Seconds()
	}
	r.strange = int(o.strange.Load())
	r.lag = time.Duration(o.lag.Load())
}

// says is one line about a step.
func (r *outcome) says(s step) string {
	var faults []string
	for reason, n := range r.rejected {
		faults = append(faults, fmt.Sprintf("%d rejected (%s)", n, reason))
	}
	slices.SortFunc(faults, cmp.Compare)
	for _, f := range []struct {
		n    int
		what string
	}{{r.missing, "without an answer"}, {r.twice, "answered twice"}, {r.strange, "answers that fit no input"}} {
		if f.n > 0 {
			faults = append(faults, fmt.Sprintf("%d %s", f.n, f.what))
		}
	}
	if len(faults) == 0 {
		faults = []string{"every input accepted once and answered once"}
	}
	cores := func(d time.Duration) string { return number(percent(d, r.elapsed)) + " %" }
	return fmt.Sprintf("%d/s for %v: accepted %s/s, p50 %s ms, p99 %s ms; output p50 %s ms, p99 %s ms; %s; processors: nodes %s, contracts %s, load client %s, others %s; client at most %s ms late; memory of the largest node %s MB",
		s.rate, s.last, number(r.rate), number(r.accepted.quantile(.5)), number(r.accepted.quantile(.99)),
		number(r.output.quantile(.5)), number(r.output.quantile(.99)), strings.Join(faults, ", "),
		cores(r.nodes.own), cores(r.nodes.children), cores(r.client), cores(r.busy-r.nodes.all()-r.client),
		number(float64(r.lag)/float64(time.Millisecond)), number(slices.Max(r.memory)))
}

func (b *bench) runLoad(ctx context.Context) error {
	limit, err := verifyRate()
	if err != nil {
		return err
	}
	limit /= float64(len(b.cluster.nodes))
	before, err := b.cluster.resident()
	if err != nil {
		return err
	}
	var best, required *outcome
	var bestStep, requiredStep step
	for _, s := range b.steps {
		r, err := b.offer(ctx, s)
		if err != nil {
			return err
		}
		b.say("load %s", r.says(s))
		b.report.note("load %s.", r.says(s))
		b.loadDone = append(b.loadDone, r)
		if required == nil || requiredStep.rate < requiredRate {
			required, requiredStep = r, s
		}
		if err := b.cluster.check(ctx); err != nil {
			return fmt.Errorf("after a load of %d/s: %w", s.rate, err)
		}
		if !r.sustained(s) {
			if best == nil {
				best, bestStep = r, s
			}
			break
		}
		best, bestStep = r, s
	}
	rate := best.rate
	if !best.sustained(bestStep) {
		rate = 0
	}
	b.report.add("sustained inputs", rate, "/s").beside(limit, "(verifying 4 times each, nothing else)").must(atLeast(requiredRate))
	b.report.add("accepted at that rate p50", best.accepted.quantile(.5), "ms")
	b.report.add("accepted at that rate p99", best.accepted.quantile(.99), "ms")
	b.report.add("output at that rate p50", best.output.quantile(.5), "ms")
	b.report.add("output at that rate p99", best.output.quantile(.99), "ms")
	b.report.add("load client's processor use", percent(best.client, best.elapsed), "%")
	b.report.note("sustained inputs: the highest rate offered at which all inputs were accepted exactly once, all had their output, and at least %.0f %% of the rate was accepted per second from the first one due to the last one accepted; %d users over all nodes, inputs of %d bytes signed beforehand (%s); latencies count from when an input was due. The client runs on the same processors. 0 when no rate was sustained.",
		100*sustainedShare, loadUsers, payloadSize, b.protocol)
	b.report.add("memory of a node before load", slices.Max(before), "MB")
	b.report.add(fmt.Sprintf("memory of a node after load at %d/s", requiredStep.rate), slices.Max(required.memory), "MB").must(atMost(60))
	b.report.note("memory: resident set of the largest node right after the load at the first rate of at least %d/s; all: %s MB.", requiredRate, join(required.memory))
	return nil
}
