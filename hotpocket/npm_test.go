package hotpocket

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/internal/npmtest"
)

// The unmodified npm packages on both sides: a contract that uses NPL, and an
// app that talks to it in both protocols, with and without trusted keys.
func TestNpmPackages(t *testing.T) {
	clientLib := filepath.Join(npmtest.Install(t, npmtest.Client), "node_modules", "hotpocket-js-client")
	contractLib := filepath.Join(npmtest.Install(t, npmtest.Contract), "node_modules", "hotpocket-nodejs-contract")
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("Node.js is not installed")
	}
	script, err := filepath.Abs("testdata/contract.js")
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, 3, script, func(conf *config.Config) {
		conf.Contract.BinPath = node
		conf.Contract.BinArgs = "contract " + contractLib
		conf.Contract.Consensus.Roundtime = time.Second
	})
	c.inStep("ledgers close", 2, c.nodes...)

	var trusted []string
	for _, k := range c.nodes[0].conf.Contract.UNL {
		trusted = append(trusted, k.String())
	}
	for _, protocol := range []string{"json", "bson"} {
		for name, keys := range map[string]string{"any server": "-", "trusted servers": strings.Join(trusted, ",")} {
			t.Run(protocol+" "+name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				server := fmt.Sprintf("wss://127.0.0.1:%d", c.nodes[0].conf.User.Port)
				out, err := exec.CommandContext(ctx, node, "testdata/client.js", clientLib, protocol, keys, server).Output()
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				got := steps(t, out)
				want := []string{
					`{"reason":"","status":"accepted"}`, `{"reason":"","status":"accepted"}`, `{"reason":"","status":"accepted"}`,
					`{"outputs":["hello 0!","hello 1!","hello 2!"]}`,
					`{"read":"who!"}`,
					`{"members":3,"vote":"synced"}`,
					`{"same":true}`,
				}
				if strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			})
		}
	}
	for _, m := range c.nodes {
		if s, ok := m.status(); !ok || s.Diverged > 0 || s.FailedRuns > 0 {
			t.Errorf("node %s: %+v", filepath.Base(m.dir), s)
		}
	}
}

// steps returns the lines of JSON that a script printed, in canonical form.
func steps(t *testing.T, out []byte) []string {
	t.Helper()
	var got []string
	for line := range strings.Lines(string(out)) {
		var v any
		if json.Unmarshal([]byte(line), &v) != nil {
			continue // the library's own talk
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	return got
}
