package gateway

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/inputs"
	"evernode/hotpocket/key"
	"evernode/internal/npmtest"
	"evernode/internal/usermsg"
)

// echo makes the fake node close a ledger for each input and answer it, except
// for one that it refuses.
func (s *server) echo(ctx context.Context, t *testing.T, sigs ...byte) {
	seq := uint64(7)
	for {
		var sub inputs.Submission
		select {
		case sub = <-s.node.submitted:
		case <-ctx.Done():
			return
		}
		parsed, errs := inputs.Check([]inputs.Submission{sub}, 1, nil)
		if errs != nil {
			t.Error(errs[0])
			s.Rejected(sub.User, sub.Hash(), inputs.BadSignature)
			continue
		}
		if string(parsed[0].Payload) == "refuse me" {
			s.Rejected(sub.User, sub.Hash(), inputs.NonceExpired)
			continue
		}
		seq++
		s.Accepted(seq, hashOf(byte(seq)), []AcceptedInput{{sub.User, sub.Hash()}})
		s.Publish(&usermsg.LedgerCreated{Ledger: usermsg.LedgerRecord{SeqNo: seq, Hash: hashOf(byte(seq))}})
		outputs := []UserOutput{{User: testKey(t, 9).Public(), Outputs: [][]byte{[]byte("x")}}, {User: sub.User, Outputs: [][]byte{[]byte("echo: " + string(parsed[0].Payload)), []byte("done")}}}
		for i := range byte(20) {
			outputs = append(outputs, UserOutput{User: testKey(t, 100+i).Public(), Outputs: [][]byte{{i}}})
		}
		tree, unlSigs := sealed(t, outputs, sigs...)
		s.Outputs(seq+1, hashOf(byte(seq+1)), tree, outputs, unlSigs)
		s.Publish(&usermsg.UNLChange{UNL: s.cfg.UNL()})
	}
}

// The client library that everybody uses, unmodified, in both protocols, with
// and without trusted keys.
func TestJavaScriptClient(t *testing.T) {
	dir := npmtest.Install(t, npmtest.Client)
	node := func(fill byte) string { return testKey(t, fill).Public().String() }
	for _, protocol := range []string{"json", "bson"} {
		for name, c := range map[string]struct {
			trusted   string
			signers   []byte
			connected bool
			outputs   int
		}{
			"any":            {"any", nil, true, 2},
			"trusted":        {node(1) + "," + node(2), []byte{1, 2}, true, 2},
			"other trusted":  {node(3), []byte{1, 2}, false, 0},
			"trusted expand": {node(1), []byte{1, 2}, true, 2},
		} {
			t.Run(protocol+" "+name, func(t *testing.T) {
				t.Parallel()
				s := start(t, func(c *Config) {
					c.Clock = nil
					unl := []key.Public{testKey(t, 1).Public(), testKey(t, 2).Public()}
					c.UNL = func() []key.Public { return unl }
				})
				rec := usermsg.LedgerRecord{SeqNo: 9, Timestamp: 1700000000000, Hash: hashOf(9), PrevHash: hashOf(8), StateHash: hashOf(3), ConfigHash: hashOf(4),
					UserHash: hashOf(5), InputHash: hashOf(6), OutputHash: hashOf(7),
					Inputs:  []usermsg.LedgerInput{{Public: testKey(t, 0x2a).Public(), Hash: hashOf(1), Nonce: 1700000000001, Blob: []byte("in")}},
					Outputs: []usermsg.LedgerOutput{{Public: testKey(t, 0x2a).Public(), Hash: hashOf(2), Blobs: [][]byte{[]byte("o1"), []byte("o2")}}}}
				s.node.query = func(q Query) ([]usermsg.LedgerRecord, error) {
					if q.SeqNo != 9 {
						return nil, nil
					}
					return []usermsg.LedgerRecord{rec}, nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				go s.echo(ctx, t, c.signers...)
				cmd := exec.CommandContext(ctx, "node", "testdata/client.js", dir, "wss://"+s.addr, protocol, c.trusted)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v\n%s%s", err, out, stderr.String())
				}
				var seen struct {
					Connected bool
					LCL       struct {
						LedgerSeqNo uint64
						LedgerHash  string
					}
					Stat struct {
						HPVersion  string
						VoteStatus string
						RoundTime  int
						CurrentUNL []string
						Peers      []string
					}
					Read  string
					First struct {
						Hash   string
						Status status
					}
					Second, Refused status
					Outputs         []struct {
						Ledger  uint64
						Hash    string
						Outputs []string
					}
					Ledgers []struct {
						Event string
						Seq   uint64
						Hash  string
					}
					UNL     [][]string
					Ledger  map[string]any
					Missing any
				}
				if err := json.Unmarshal(out, &seen); err != nil {
					t.Fatalf("%v in %s", err, out)
				}
				if seen.Connected != c.connected {
					t.Fatalf("connected is %v, want %v", seen.Connected, c.connected)
				}
				if !c.connected {
					return
				}
				want := func(what string, got, want any) {
					t.Helper()
					if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
						t.Errorf("%s is %s, want %s", what, g, w)
					}
				}
				want("lcl", seen.LCL, fmt.Sprint(struct {
					A uint64
					B string
				}{7, hashOf(7).String()}))
				want("stat", []any{seen.Stat.HPVersion, seen.Stat.VoteStatus, seen.Stat.RoundTime, seen.Stat.Peers}, "[0.6.4 synced 1000 [a:1]]")
				want("read", seen.Read, "read what?")
				want("status", seen.First.Status, status{"accepted", "", 8, hashOf(8).String()})
				want("status", seen.Second, status{"accepted", "", 9, hashOf(9).String()})
				want("status", seen.Refused, status{"rejected", "nonce_expired", 0, ""})
				want("hash's length", len(seen.First.Hash), 64)
				if len(seen.Outputs) != c.outputs {
					t.Fatalf("%d outputs, want %d: %s", len(seen.Outputs), c.outputs, out)
				}
				want("output", seen.Outputs[0].Outputs, []string{`echo: hello "wörld"`, "done"})
				want("output's ledger", seen.Outputs[1].Ledger, 10)
				want("event", seen.Ledgers[0].Event, "ledger_created")
				want("event's ledger", seen.Ledgers[0].Hash, hashOf(8))
				// The library sorts keys as texts in JSON, and in BSON by what they
				// look like as texts.
				slices.Sort(seen.UNL[0])
				want("UNL", seen.UNL[0], []string{node(2), node(1)})
				me := testKey(t, 0x2a).Public().String()
				want("ledger", seen.Ledger, map[string]any{
					"seq": 9, "timestamp": 1.7e12, "hash": hashOf(9), "prev": hashOf(8), "state": hashOf(3), "config": hashOf(4), "user": hashOf(5), "input": hashOf(6), "output": hashOf(7),
					"inputs":  []any{[]any{me, hashOf(1), 1700000000001.0, hex.EncodeToString([]byte("in"))}},
					"outputs": []any{[]any{me, hashOf(2), hex.EncodeToString([]byte("o1")), hex.EncodeToString([]byte("o2"))}},
				})
				want("missing ledger", seen.Missing, nil)
			})
		}
	}
}

type status struct {
	Status      string
	Reason      string
	LedgerSeqNo uint64
	LedgerHash  string
}
