package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evernode/devkit"
	"evernode/hotpocket/config"
)

// A node is spawned into a cluster, another one made by hand for it; what is
// wrong is refused before anything is made.
func TestSpawnAndJoin(t *testing.T) {
	work := filepath.Join(t.TempDir(), "work")
	user, peer := ports(t, 24100)
	dev := func(args ...string) string {
		t.Helper()
		out, errOut, code := evernode(t, append([]string{"dev", "--dir", work}, args...)...)
		if code != 0 {
			t.Fatalf("dev %s: %s", strings.Join(args, " "), errOut)
		}
		return out
	}
	bundle := kvstore(t)
	dev("deploy", bundle, "--detach", "--nodes", "3", "--roundtime", "200", "--user-port", user, "--peer-port", peer)
	defer dev("clean")
	dev("spawn")
	var nodes []devkit.NodeStatus
	if err := json.Unmarshal([]byte(dev("status", "--json")), &nodes); err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 4 || nodes[3].VoteStatus != "synced" || nodes[3].StateHash != nodes[0].StateHash || nodes[3].Peers < 3 {
		t.Errorf("after a spawn: %+v", nodes)
	}
	first, err := config.Load(filepath.Join(work, "node1"))
	if err != nil {
		t.Fatal(err)
	}
	id, member, follower := first.Contract.ID, nodes[1].PublicKey, nodes[3].PublicKey
	address := "127.0.0.1:" + peer
	dir := filepath.Join(t.TempDir(), "node")
	join := func(args ...string) (string, string, int) {
		return evernode(t, append([]string{"node", "join", dir, "--timeout", "10s"}, args...)...)
	}
	for _, x := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--contract", id, "--peer", address, "--member", follower}, 1, "is none"},
		{[]string{"--contract", "another", "--peer", address, "--member", member}, 1, "another contract id"},
		{[]string{"--contract", id, "--peer", "127.0.0.1:1", "--member", member, "--timeout", "300ms"}, 1, "127.0.0.1:1: dial tcp"},
		{[]string{"--contract", id, "--peer", "127.0.0.1", "--member", member}, 2, "known_peers"},
		{[]string{"--contract", id, "--peer", address, "--member", "ed00"}, 2, "--member ed00"},
		{[]string{"--contract", id, "--peer", address}, 2, "at least one member"},
		{[]string{"--peer", address, "--member", member}, 2, "contract's id"},
	} {
		_, errOut, code := join(x.args...)
		if code != x.code || !strings.Contains(errOut, x.want) {
			t.Errorf("%v: exit code %d, %s", x.args, code, errOut)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Fatalf("%v: a folder was made", x.args)
		}
	}
	out, errOut, code := join("--contract", id, "--peer", address, "--member", member, "--user-port", "24098", "--peer-port", "24099", "--observer")
	if code != 0 || !strings.Contains(out, "3 members of whom 2 must agree") {
		t.Fatalf("%s%s", out, errOut)
	}
	c, err := config.Load(dir)
	if err != nil || c.User.Port != 24098 || c.Mesh.Port != 24099 || !c.Node.Observer() || !strings.Contains(out, c.Node.PublicKey.String()) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, errOut, code := join("--contract", id, "--peer", address, "--member", member); code != 1 || !strings.Contains(errOut, "not empty") {
		t.Errorf("over a node: exit code %d, %s", code, errOut)
	}
}
