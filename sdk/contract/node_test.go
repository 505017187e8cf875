package contract_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	runner "evernode/hotpocket/contract"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
	"evernode/sdk/contract"
)

// The test program is the contract too, when the node's environment says so.
func TestMain(m *testing.M) {
	if os.Getenv("SDK_CONTRACT") == "1" {
		contract.Run(probe)
	}
	os.Exit(m.Run())
}

// probe does what its inputs say.
func probe(ctx *contract.Context) error {
	for _, u := range ctx.Users {
		for _, in := range u.Inputs {
			reply, err := command(ctx, string(in))
			if err != nil {
				reply = "error: " + err.Error()
			}
			if err := u.Send([]byte(reply)); err != nil {
				return err
			}
		}
	}
	return nil
}

func command(ctx *contract.Context, in string) (string, error) {
	switch in {
	case "about":
		return fmt.Sprintf("%s %v %d %.8s %d users %d members", ctx.Mode, ctx.ReadOnly, ctx.LedgerSeq, ctx.LedgerHash, len(ctx.Users), len(ctx.UNL.Members())), nil
	case "npl":
		limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := ctx.UNL.Send([]byte("from " + ctx.PublicKey[:6])); err != nil {
			return "", err
		}
		var heard []string
		for len(heard) < len(ctx.UNL.Members()) {
			m, err := ctx.UNL.Receive(limit)
			if err != nil {
				return "", err
			}
			if string(m.Data) != "from "+m.From[:6] {
				return "", fmt.Errorf("%q from %s", m.Data, m.From)
			}
			heard = append(heard, m.From)
		}
		slices.Sort(heard)
		return strings.Join(heard, " "), nil
	case "config":
		cfg, err := ctx.Config()
		if err != nil {
			return "", err
		}
		cfg.Version += ".1"
		return cfg.Version, ctx.UpdateConfig(cfg)
	case "peers":
		return "asked", ctx.UpdatePeers([]string{"node5:22860"}, []string{"node6:22860"})
	case "write":
		return "written", os.WriteFile("file", []byte("x"), 0o644)
	case "environment":
		return strings.Join(os.Environ(), " "), nil
	}
	return "", fmt.Errorf("unknown command %q", in)
}

func nodeKey(t *testing.T, n byte) key.Private {
	t.Helper()
	k, err := key.FromSeed(append(make([]byte, 31), n))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func run(t *testing.T, node key.Private, unl []runner.UNLMember, inputs ...string) runner.Run {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	user := runner.UserIO{Key: nodeKey(t, 200).Public()}
	for _, in := range inputs {
		user.Inputs = append(user.Inputs, []byte(in))
	}
	return runner.Run{
		Mode: runner.Consensus, Dir: dir, HPVersion: "0.6.4", ContractID: "id", NodeKey: node,
		LedgerSeq: 9, LedgerHash: digest.Sum([]byte("nine")), Timestamp: 1, Users: []runner.UserIO{user}, UNL: unl,
	}
}

var program = runner.Program{BinPath: os.Args[0], Environment: map[string]string{"SDK_CONTRACT": "1"}}

func replies(t *testing.T, res runner.Result) []string {
	t.Helper()
	if !res.Normal() || res.Exit.Code != 0 || len(res.Outputs) != 1 {
		t.Fatalf("run ended as %+v", res)
	}
	var out []string
	for _, m := range res.Outputs[0].Messages {
		out = append(out, string(m))
	}
	return out
}

func TestUnderANode(t *testing.T) {
	r := runner.NewRunner(runner.Options{})
	defer r.Close()
	node := nodeKey(t, 1)
	ru := run(t, node, []runner.UNLMember{{Key: node.Public()}}, "about", "config", "peers", "write", "environment", "nonsense")
	cfg := contract.Config{
		Version: "1.0", UNL: []string{node.Public().String()}, BinPath: "x",
		Consensus: contract.Agreement{Mode: "public", RoundTime: 1000, StageSlice: 25, Threshold: 80},
		NPL:       contract.NPLSettings{Mode: "private"},
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	patch := filepath.Join(filepath.Dir(ru.Dir), "patch.cfg")
	if err := os.WriteFile(patch, text, 0o644); err != nil {
		t.Fatal(err)
	}
	var peers runner.PeerChange
	res, err := r.Execute(t.Context(), program, ru, runner.Hooks{Peers: func(c runner.PeerChange) { peers = c }})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		fmt.Sprintf("consensus false 9 %.8s 1 users 1 members", ru.LedgerHash), "1.0.1", "asked", "written", "SDK_CONTRACT=1",
		`error: unknown command "nonsense"`,
	}
	if got := replies(t, res); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !slices.Equal(peers.Add, []string{"node5:22860"}) || !slices.Equal(peers.Remove, []string{"node6:22860"}) || peers.ReplaceAll {
		t.Errorf("peer change %+v", peers)
	}
	if text, err := os.ReadFile(patch); err != nil || !strings.HasPrefix(string(text), "{\n    \"version\": \"1.0.1\",\n") {
		t.Errorf("configuration %.40s, %v", text, err)
	}
}

func TestReadRequestUnderANode(t *testing.T) {
	r := runner.NewRunner(runner.Options{})
	defer r.Close()
	for in, want := range map[string]string{
		"about": "read_req true 0  1 users 1 members",
		"npl":   "error: not available in a read request",
	} {
		ru := run(t, nodeKey(t, 1), []runner.UNLMember{{Key: nodeKey(t, 1).Public()}}, in)
		ru.Mode = runner.ReadRequest
		res, err := r.Execute(t.Context(), program, ru, runner.Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		if got := replies(t, res); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

// Three nodes exchange a message over NPL, each through its own runner.
func TestNPLBetweenNodes(t *testing.T) {
	const nodes = 3
	var keys []key.Private
	var unl []runner.UNLMember
	for i := range byte(nodes) {
		keys = append(keys, nodeKey(t, i+1))
		unl = append(unl, runner.UNLMember{Key: keys[i].Public()})
	}
	// What is sent before all runs have started waits for them.
	var mu sync.Mutex
	var all []*runner.Execution
	type packet struct {
		from int
		data []byte
	}
	var early []packet
	deliver := func(p packet) {
		for i, e := range all {
			if i != p.from {
				if err := e.DeliverNPL(keys[p.from].Public(), p.data); err != nil {
					t.Error(err)
				}
			}
		}
	}
	for i := range nodes {
		r := runner.NewRunner(runner.Options{})
		defer r.Close()
		e, err := r.Start(t.Context(), program, run(t, keys[i], unl, "npl"), runner.Hooks{NPL: func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			if len(all) < nodes {
				early = append(early, packet{i, b})
				return
			}
			deliver(packet{i, b})
		}})
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		all = append(all, e)
		mu.Unlock()
	}
	mu.Lock()
	for _, p := range early {
		deliver(p)
	}
	mu.Unlock()
	var want []string
	for _, k := range keys {
		want = append(want, k.Public().String())
	}
	slices.Sort(want)
	for i, e := range all {
		if got := replies(t, e.Wait()); len(got) != 1 || got[0] != strings.Join(want, " ") {
			t.Errorf("node %d heard %q", i, got)
		}
	}
}
