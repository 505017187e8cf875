package statesync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs"
	"evernode/internal/wire"
)

type handler = func(context.Context, []byte) ([]byte, error)

// forge changes what an honest peer answers to questions of which which is true.
func forge(next handler, lied *atomic.Int64, which func(question, answer) bool, how func(answer) answer) handler {
	return func(ctx context.Context, req []byte) ([]byte, error) {
		_, questions, err := decodeRequest(req)
		if err != nil {
			return nil, err
		}
		reply, err := next(ctx, req)
		if err != nil {
			return nil, err
		}
		answers, err := decodeReply(reply, len(questions))
		if err != nil {
			return nil, err
		}
		out := wire.AppendU32(nil, uint32(len(answers)))
		for i, a := range answers {
			if a.data != nil && which(questions[i], a) {
				a = how(a)
				lied.Add(1)
			}
			out = appendAnswer(out, a)
		}
		return out, nil
	}
}

func flip(a answer) answer {
	data := append([]byte(nil), a.data...)
	data[len(data)/2] ^= 0x10
	return answer{status: a.status, data: data}
}

// One of three peers forges every kind of piece, in every way: it is blamed,
// not asked again, and the state is right. Who is asked first is left to chance
// nowhere: the honest peers are slow until the liar has had his turn.
func TestOneOfThreePeersLies(t *testing.T) {
	fill := func(dir string) {
		fillRandom(21, 15)(dir)
		for i := range 700 {
			os.WriteFile(fmt.Sprintf("%s/many%05d", dir, i), fmt.Append(nil, i), 0o644)
		}
		writeRandom(t, dir+"/large", 5<<20, 3)
	}
	good := newNode(t, fill)
	_, err := good.SetPatch(bg, []byte(`{"version":"1.0"}`))
	must(t, err)
	kind := func(k statefs.RefKind) func(question, answer) bool {
		return func(q question, _ answer) bool { return q.Kind == k }
	}
	for name, c := range map[string]struct {
		which func(question, answer) bool
		how   func(answer) answer
	}{
		"root":       {func(q question, _ answer) bool { return q.Kind == statefs.RefDir && q.Path == "" }, flip},
		"folder":     {kind(statefs.RefDir), flip},
		"page":       {kind(statefs.RefPage), flip},
		"list":       {kind(statefs.RefList), flip},
		"block":      {func(q question, _ answer) bool { return q.Kind == statefs.RefData && q.Path == "large" }, flip},
		"small file": {func(q question, a answer) bool { return q.Kind == statefs.RefData && len(a.data) == 3 }, flip},
		"patch.cfg":  {kind(statefs.RefPatch), flip},
		"empty":      {kind(statefs.RefData), func(answer) answer { return answer{status: statusFound} }},
		"longer": {kind(statefs.RefList), func(a answer) answer {
			return answer{status: statusFound, data: append(a.data[:len(a.data):len(a.data)], make([]byte, 32)...)}
		}},
		"other order": {kind(statefs.RefData), func(a answer) answer { return answer{status: statusFound, data: make([]byte, len(a.data))} }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newNode(t, nil)
			net := newNetwork(good, good, good)
			var lied, after atomic.Int64
			turn := make(chan struct{})
			var once sync.Once
			net.spoil(1, func(next handler) handler {
				next = forge(next, &lied, c.which, c.how)
				return func(ctx context.Context, req []byte) ([]byte, error) {
					reply, err := next(ctx, req)
					if lied.Load() > 0 {
						once.Do(func() { close(turn) })
					}
					return reply, err
				}
			})
			for _, i := range []int{0, 2} {
				net.spoil(i, func(next handler) handler {
					return func(ctx context.Context, req []byte) ([]byte, error) {
						_, questions, _ := decodeRequest(req)
						for _, q := range questions {
							if data, err := good.Object(ctx, q.Ref); err == nil && c.which(q, answer{data: data}) {
								select {
								case <-turn:
								case <-ctx.Done():
									return nil, ctx.Err()
								}
							}
						}
						return next(ctx, req)
					}
				})
			}
			var cl *Client
			cl, blamed := client(b, net)
			cl.cfg.Blame = func(p key.Public, err error) {
				blamed.add(p, err)
				net.spoil(1, func(next handler) handler {
					return func(ctx context.Context, req []byte) ([]byte, error) {
						after.Add(1)
						return next(ctx, req)
					}
				})
			}
			syncTo(t, cl, good.Agreed())
			sameState(t, good, b)
			if lied.Load() == 0 {
				t.Fatal("the liar was not asked")
			}
			if len(blamed.m) != 1 || !errors.Is(blamed.m[peerKey(1)], statefs.ErrMismatch) {
				t.Errorf("blamed %v", blamed.m)
			}
			// Requests that are under way when it is found out may still get there.
			if n := after.Load(); n > int64(cl.cfg.InFlightPeer) {
				t.Errorf("the liar was asked %d times after it was blamed", n)
			}
		})
	}
}

// A wrong delta may be chance, since the tags in it are short: nobody is blamed
// for a few, and a peer that sends only such cannot hold a sync up.
func TestForgedDeltas(t *testing.T) {
	fill := func(dir string) {
		manyFiles(t, 5, 60, 3000)(dir)
		writeRandom(t, dir+"/large", 8<<20, 3)
	}
	a, b := newNode(t, fill), newNode(t, fill)
	v := a.run(t, 2, func(dir string) {
		for i := range 5 {
			must(t, os.WriteFile(fmt.Sprintf("%s/folder%d/file00007", dir, i), []byte("new"), 0o644))
		}
		f, err := os.OpenFile(dir+"/large", os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		for i := range 60 {
			f.WriteAt([]byte("changed"), int64(i)*128<<10)
		}
	})
	net := newNetwork(a)
	var lied atomic.Int64
	net.spoil(0, func(next handler) handler {
		return forge(next, &lied, func(_ question, a answer) bool { return a.status == statusDelta }, flip)
	})
	c, blamed := client(b, net)
	syncTo(t, c, v)
	sameState(t, a, b)
	if len(blamed.m) > 0 || lied.Load() == 0 {
		t.Errorf("blamed %v for %d wrong deltas", blamed.m, lied.Load())
	}
}

// A fast peer gives most, a slow one its part, and what a silent one was asked
// for is asked of others long before the request to it times out.
func TestFastPeersGiveMost(t *testing.T) {
	good := newNode(t, func(dir string) { writeRandom(t, dir+"/large", 64<<20, 3) })
	b := newNode(t, nil)
	net := newNetwork(good, good, good)
	var given [3]atomic.Int64
	for i := range 3 {
		net.spoil(i, func(next handler) handler {
			var mu sync.Mutex
			return func(ctx context.Context, req []byte) ([]byte, error) {
				reply, err := next(ctx, req)
				var speed float64 // bytes per second
				switch i {
				case 0:
					speed = 100 << 20
				case 1:
					speed = 2 << 20
				case 2:
					<-ctx.Done()
					return nil, ctx.Err()
				}
				mu.Lock() // one line for all requests
				defer mu.Unlock()
				select {
				case <-time.After(time.Duration(float64(len(reply)) / speed * 1e9)):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				given[i].Add(int64(len(reply)))
				return reply, err
			}
		})
	}
	c, blamed := client(b, net)
	begin := time.Now()
	syncTo(t, c, good.Agreed())
	took := time.Since(begin)
	sameState(t, good, b)
	if len(blamed.m) > 0 {
		t.Errorf("blamed %v", blamed.m)
	}
	if fast, slow := given[0].Load(), given[1].Load(); slow > fast/4 || slow == 0 {
		t.Errorf("the fast peer gave %d bytes, the slow one %d", fast, slow)
	}
	if took > 15*time.Second { // a request times out after a minute
		t.Errorf("took %v", took)
	}
}

func TestWindows(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBoard(8)
	p := b.of(peerKey(1))
	for range 20 {
		p.answered(1<<20, 10*time.Millisecond, now)
	}
	if int(p.window) != 8 || p.budget() != softReply {
		t.Errorf("fast: window %v, budget %d", p.window, p.budget())
	}
	for range 60 {
		p.answered(128<<10, 2*time.Second, now)
	}
	if int(p.window) != 1 || p.budget() != leastBudget {
		t.Errorf("slow: window %v, budget %d", p.window, p.budget())
	}
	for range 40 {
		p.answered(256<<10, 100*time.Millisecond, now)
	}
	if int(p.window) != 8 || p.budget() < 500<<10 {
		t.Errorf("recovered: window %v, budget %d", p.window, p.budget())
	}
	p.slow()
	if p.usable() || b.active(now.Add(time.Second)) != 1 || b.active(now.Add(time.Minute)) != 0 {
		t.Errorf("silent: usable %v", p.usable())
	}
}

func TestTurnsAreFair(t *testing.T) {
	turns := newTurns(1)
	greedy, modest := peerKey(1), peerKey(2)
	must(t, turns.take(bg, greedy))
	order := make(chan key.Public, 32)
	waiting := func(n int) {
		for {
			turns.mu.Lock()
			sum := 0
			for _, l := range turns.lanes {
				sum += len(l.waiting)
			}
			turns.mu.Unlock()
			if sum == n {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	ask := func(who key.Public) {
		go func() {
			if turns.take(bg, who) == nil {
				order <- who
				turns.give(who, 1000)
			}
		}()
	}
	for i := range 10 {
		ask(greedy)
		waiting(i + 1)
	}
	for i := range 4 {
		ask(modest)
		waiting(10 + i + 1)
	}
	late, cancel := context.WithCancel(bg)
	gone := make(chan error)
	go func() { gone <- turns.take(late, peerKey(3)) }()
	waiting(15)
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	turns.give(greedy, 1000)
	var got []byte
	for range 14 {
		got = append(got, (<-order)[1])
	}
	// Both get as much while both ask.
	if n := bytes.Count(got[:8], []byte{2}); n != 4 {
		t.Errorf("order %v", got)
	}
	for {
		turns.mu.Lock()
		idle := len(turns.lanes) == 0 && turns.free == 1
		turns.mu.Unlock()
		if idle {
			break
		}
		time.Sleep(time.Millisecond)
	}
}
