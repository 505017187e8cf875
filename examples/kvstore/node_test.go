package main

import (
	"os"
	"path/filepath"
	"testing"

	"evernode/hotpocket/contract"
	"evernode/hotpocket/key"
)

// The test program is the contract too, when the node's environment says so.
func TestMain(m *testing.M) {
	if os.Getenv("KVSTORE") == "1" {
		main()
	}
	os.Exit(m.Run())
}

// The store keeps its content from run to run, and read requests see it.
func TestUnderANode(t *testing.T) {
	r := contract.NewRunner(contract.Options{})
	defer r.Close()
	seed := make([]byte, 32)
	node, err := key.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ask := func(mode contract.Mode, inputs ...string) (out []string) {
		t.Helper()
		user := contract.UserIO{Key: node.Public()}
		for _, in := range inputs {
			user.Inputs = append(user.Inputs, []byte(in))
		}
		res, err := r.Execute(t.Context(),
			contract.Program{BinPath: os.Args[0], Environment: map[string]string{"KVSTORE": "1"}},
			contract.Run{Mode: mode, Dir: dir, ContractID: "id", NodeKey: node, Users: []contract.UserIO{user}}, contract.Hooks{})
		if err != nil || !res.Normal() || len(res.Outputs) != 1 {
			t.Fatalf("%v, %+v", err, res)
		}
		for _, m := range res.Outputs[0].Messages {
			out = append(out, string(m))
		}
		return out
	}
	if got := ask(contract.Consensus, "set a 1", "set b 2", "get a"); got[0] != "ok" || got[2] != "1" {
		t.Errorf("%q", got)
	}
	if got := ask(contract.Consensus, "del a", `{"op":"get","key":"a"}`); got[1] != `{"ok":false,"error":"not found"}` {
		t.Errorf("%q", got)
	}
	if got := ask(contract.ReadRequest, "keys"); got[0] != "b" {
		t.Errorf("%q", got)
	}
	if got := ask(contract.ReadRequest, "set c 3"); got[0] == "ok" {
		t.Errorf("%q", got)
	}
}
