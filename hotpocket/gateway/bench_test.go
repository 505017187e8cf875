package gateway

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"runtime"
	"testing"

	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/hotpocket/output"
	"evernode/internal/digest"
	"evernode/internal/usermsg"
)

// BenchmarkEcho measures inputs of 100 bytes through real TLS WebSockets: one
// operation is one input submitted, accepted and answered with an output of the
// same length. Signatures are not verified here.
func BenchmarkEcho(b *testing.B) {
	for _, p := range []usermsg.Protocol{usermsg.JSON, usermsg.BSON} {
		for _, users := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d users", p, users), func(b *testing.B) { benchEcho(b, p, users) })
		}
	}
}

func benchEcho(b *testing.B, p usermsg.Protocol, users int) {
	s := start(b)
	done := make(chan struct{})
	per := b.N/users + 1
	go func() { // the node: closes a ledger with whatever has come
		defer close(done)
		state := hashOf(7)
		for left := per * users; left > 0; {
			batch := []inputs.Submission{<-s.node.submitted}
		more:
			for {
				select {
				case sub := <-s.node.submitted:
					batch = append(batch, sub)
				default:
					break more
				}
			}
			left -= len(batch)
			accepted := make([]AcceptedInput, len(batch))
			byUser := map[key.Public]*UserOutput{}
			for i := range batch {
				accepted[i] = AcceptedInput{batch[i].User, batch[i].Hash()}
				o := byUser[batch[i].User]
				if o == nil {
					o = &UserOutput{User: batch[i].User}
					byUser[o.User] = o
				}
				o.Outputs = append(o.Outputs, batch[i].Container[:100])
			}
			var outs []UserOutput
			var hashes []digest.Hash
			for _, o := range byUser {
				o.Hash = output.Hash(o.User, o.Outputs)
				hashes = append(hashes, o.Hash)
				outs = append(outs, *o)
			}
			s.Accepted(1, state, accepted)
			s.Outputs(2, state, output.NewTree(hashes, state), outs, nil)
		}
	}()
	all := make([]*user, users)
	for i := range all {
		all[i] = s.connect(b, byte(50+i), p)
	}
	before := s.Counters()
	b.ReportAllocs()
	b.ResetTimer()
	for _, u := range all {
		in := maskedFrame(usermsg.AppendRequest(nil, p, container(u, string(bytes.Repeat([]byte("x"), 100)), 1)))
		go func() {
			conn := u.ws.NetConn().(*tls.Conn)
			ten := bytes.Repeat(in, 10)
			for left := per; left > 0; {
				n := min(left, 10)
				if _, err := conn.Write(ten[:n*len(in)]); err != nil {
					b.Error(err)
					return
				}
				left -= n
			}
		}()
		go func() {
			for range u.frames {
			}
		}()
	}
	<-done
	b.StopTimer()
	after := s.Counters()
	b.ReportMetric(float64(per*users)/b.Elapsed().Seconds(), "inputs/s")
	b.ReportMetric(float64(after.FramesSent-before.FramesSent)/float64(max(1, after.Writes-before.Writes)), "frames/write")
}

// BenchmarkAccepted measures the statuses of a large ledger for many users.
func BenchmarkAccepted(b *testing.B) {
	s := start(b)
	const users = 50
	batch := make([]AcceptedInput, 0, 1000)
	for i := range users {
		u := s.connect(b, byte(50+i), usermsg.JSON)
		go func() {
			for range u.frames {
			}
		}()
		for range 1000 / users {
			batch = append(batch, AcceptedInput{u.key.Public(), hashOf(1)})
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Accepted(1, hashOf(1), batch)
		for s.budget.used.Load() > 1<<20 {
			runtime.Gosched()
		}
	}
	b.ReportMetric(float64(b.N*len(batch))/b.Elapsed().Seconds(), "statuses/s")
}
