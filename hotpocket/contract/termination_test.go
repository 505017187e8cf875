package contract

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"evernode/hotpocket/key"
)

func member(n byte) key.Public {
	var k key.Public
	k[0], k[1] = key.Prefix, n
	return k
}

func TestReportRoundTrip(t *testing.T) {
	for _, r := range []report{
		{received: map[key.Public]uint64{}},
		{ended: true, sent: 1 << 60, received: map[key.Public]uint64{}},
		{sent: 3, received: map[key.Public]uint64{member(1): 1, member(2): 1 << 40}},
	} {
		got, err := parseReport(r.encode())
		if err != nil || !reflect.DeepEqual(*got, r) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	}
}

func FuzzParseReport(f *testing.F) {
	f.Add((&report{sent: 3, received: map[key.Public]uint64{member(1): 1, member(2): 300}}).encode())
	f.Add((&report{ended: true}).encode())
	f.Add([]byte{packetQuiet, 0, 0, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReport(b)
		if err != nil {
			return
		}
		again, err := parseReport(r.encode())
		if err != nil {
			t.Fatal(err)
		}
		for k, n := range r.received {
			if n == 0 {
				delete(r.received, k) // not told, as it says nothing
			}
		}
		if !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}

// Contracts that send at random when they receive, a network that delays at
// random, runners that look and report at random: nobody may be told that no
// message can come while one still comes, and in the end everybody is told.
func TestTerminationIsSound(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		n := 2 + rnd.IntN(4)
		var unl []UNLMember
		for i := range n {
			unl = append(unl, UNLMember{Key: member(byte(i + 1))})
		}
		run := &Run{UNL: unl}
		type message struct {
			from, to int
			report   *report // nil: a message of the contract
		}
		nodes := make([]termination, n)
		awake := make([]bool, n) // the contract is doing something and may send
		ended := make([]bool, n)
		told := make([]bool, n)
		budget := 30                      // of messages that contracts may still send
		network := make([][]message, n*n) // in order between each two
		for i := range nodes {
			nodes[i].received = map[key.Public]uint64{}
			nodes[i].reports = map[key.Public]*report{}
			awake[i] = true
		}
		broadcast := func(from int, r *report) {
			for to := range n {
				if to != from {
					network[from*n+to] = append(network[from*n+to], message{from, to, r})
				}
			}
		}
		check := func(i int) {
			if !told[i] && nodes[i].complete(unl[i].Key, unl) {
				told[i] = true
			}
		}
		for step := 0; step < 100000; step++ {
			i := rnd.IntN(n)
			switch rnd.IntN(4) {
			case 0: // the contract acts
				switch {
				case !awake[i]:
				case budget > 0 && rnd.IntN(2) == 0:
					budget--
					nodes[i].moved(time.Now())
					nodes[i].sent++
					broadcast(i, nil)
				case rnd.IntN(8) == 0 && !ended[i]:
					awake[i], ended[i] = false, true
					r := report{ended: true, sent: nodes[i].sent}
					broadcast(i, &r)
				default:
					awake[i] = false
				}
			case 1: // the runner looks
				if !awake[i] && !ended[i] {
					nodes[i].quiet = true
					if b := nodes[i].report(run); b != nil {
						r, err := parseReport(b)
						if err != nil {
							t.Fatal(err)
						}
						broadcast(i, r)
					}
					check(i)
				}
			default: // the network delivers
				q := rnd.IntN(n * n)
				if len(network[q]) == 0 {
					continue
				}
				m := network[q][0]
				network[q] = network[q][1:]
				if m.report != nil {
					nodes[m.to].reports[unl[m.from].Key] = m.report
					check(m.to)
					continue
				}
				nodes[m.to].received[unl[m.from].Key]++
				nodes[m.to].moved(time.Now())
				if told[m.to] {
					t.Fatalf("seed %d: node %d was told that nothing can come, and something came", seed, m.to)
				}
				awake[m.to] = awake[m.to] || !ended[m.to]
			}
		}
		for i := range told {
			if !told[i] && !ended[i] {
				t.Fatalf("seed %d: node %d was never told", seed, i)
			}
		}
	}
}

// A node outside the UNL hears messages too and must have heard all.
func TestTerminationOutsideTheUNL(t *testing.T) {
	unl := []UNLMember{{Key: member(1)}, {Key: member(2)}}
	told := termination{quiet: true, received: map[key.Public]uint64{member(1): 2, member(2): 1}, reports: map[key.Public]*report{
		member(1): {sent: 2, received: map[key.Public]uint64{member(2): 1}},
		member(2): {sent: 1, ended: true},
	}}
	if !told.complete(member(9), unl) {
		t.Error("all has been heard")
	}
	told.received[member(1)] = 1
	if told.complete(member(9), unl) {
		t.Error("a message is still to come")
	}
}
