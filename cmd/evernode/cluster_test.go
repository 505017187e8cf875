package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evernode/devkit"
	"evernode/devkit/demo"
)

// A cluster runs its nodes, and a node its state, with the program that it was
// started by, which here is the test binary. Whatever it is asked for that is
// not a test it must do instead of the tests: they would start it again, and so
// on without end.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		main()
		return
	}
	os.Exit(m.Run())
}

// kvstore builds the example contract into a folder to deploy.
func kvstore(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "kvstore"), "evernode/examples/kvstore")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the contract: %v\n%s", err, out)
	}
	text, err := os.ReadFile("../../examples/kvstore/hp.cfg.override")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hp.cfg.override"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ports finds free ports for a cluster, apart from those that other tests
// running now may find.
func ports(t *testing.T, from int) (user, peer string) {
	t.Helper()
	const n = 6
	for base := from; base < from+2000; base += 2 * n {
		free := true
		for p := base; p < base+2*n && free; p++ {
			l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", p))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return fmt.Sprint(base), fmt.Sprint(base + n)
		}
	}
	t.Fatal("no free ports")
	return "", ""
}

func TestDemonstration(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = demo.Run(t.Context(), demo.Options{Bundle: kvstore(t), Node: []string{self, "node", "run"}, Out: &out})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !strings.Contains(out.String(), "All of it held") {
		t.Errorf("it printed\n%s", &out)
	}
}

// TestDevelopersDay goes through the commands as a developer does.
func TestDevelopersDay(t *testing.T) {
	work := filepath.Join(t.TempDir(), "work")
	user, peer := ports(t, 21000)
	dev := func(args ...string) (out, errOut string) {
		t.Helper()
		out, errOut, code := evernode(t, append([]string{"dev", "--dir", work}, args...)...)
		if code != 0 {
			t.Fatalf("dev %v: exit code %d\n%s", args, code, errOut)
		}
		return out, errOut
	}
	fails := func(want string, args ...string) {
		t.Helper()
		if _, errOut, code := evernode(t, append([]string{"dev", "--dir", work}, args...)...); code == 0 || !strings.Contains(errOut, want) {
			t.Errorf("dev %v: exit code %d, %q, want %q", args, code, errOut, want)
		}
	}
	bundle := kvstore(t)
	dev("deploy", bundle, "--user-port", user, "--peer-port", peer, "--roundtime", "500", "--detach")
	defer evernode(t, "dev", "--dir", work, "clean")

	status := func() (nodes []devkit.NodeStatus) {
		t.Helper()
		out, _ := dev("status", "--json")
		if err := json.Unmarshal([]byte(out), &nodes); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return nodes
	}
	for _, n := range status() {
		if !n.Running || n.LedgerSeqNo < 1 || len(n.LedgerHash) != 64 || len(n.StateHash) != 64 || len(n.PatchHash) != 64 {
			t.Errorf("after deploy --detach: %+v", n)
		}
	}
	if out, errOut := dev("input", "set a b"); out != "ok\n" || !strings.Contains(errOut, "accepted in ledger") {
		t.Errorf("input: %q, %q", out, errOut)
	}
	// Another node may be a moment behind the one that delivered the output.
	for begin := time.Now(); ; {
		out, _ := dev("read", "get a", "--node", "3")
		if out == "b\n" {
			break
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("read: %q", out)
		}
	}
	if out, _ := dev("input", "get a", "--node", "2", "--user", "bob"); out != "b\n" {
		t.Errorf("another user: %q", out)
	}
	dev("stop", "2")
	fails("node 2 does not run", "read", "get a", "--node", "2")
	if out, _ := dev("input", "set a c"); out != "ok\n" {
		t.Errorf("with one node down: %q", out)
	}
	dev("start", "2")
	if out, _ := dev("logs", "2", "-n", "50"); !strings.Contains(out, "node started") {
		t.Errorf("logs: %q", out)
	}

	// A restart of the machine ends all processes; the state stays.
	dev("stop")
	for _, n := range status() {
		if n.Running || n.PID != 0 {
			t.Errorf("after stop: %+v", n)
		}
	}
	dev("start")
	if out, _ := dev("input", "get a"); out != "c\n" {
		t.Errorf("after a restart of all: %q", out)
	}

	// A new deployment begins anew on the same nodes.
	before := status()
	dev("deploy", bundle, "--detach")
	after := status()
	for i := range after {
		if after[i].PublicKey != before[i].PublicKey || after[i].UserPort != before[i].UserPort {
			t.Errorf("node %d became another: %+v", i+1, after[i])
		}
	}
	if out, _ := dev("input", "get a"); out != "error: not found\n" {
		t.Errorf("after a new deployment: %q", out)
	}
	dev("clean")
	if _, err := os.Stat(work); err == nil {
		t.Error("clean left the work folder")
	}
	fails("there is no cluster", "status")
}

// Projects from templates run as they come.
func TestTemplatesRun(t *testing.T) {
	for _, tt := range []struct {
		template string
		build    string
		bundle   string
	}{
		{"go-starter", "make build", "dist"},
		{"c-starter", "make", "dist"},
		{"nodejs-starter", "npm install --no-audit --no-fund --prefix contract", "contract"},
	} {
		t.Run(tt.template, func(t *testing.T) {
			_, dir, err := devkit.NewProject(tt.template, "hello", t.TempDir(), "../..")
			if err != nil {
				t.Fatal(err)
			}
			build := exec.Command("sh", "-c", tt.build)
			build.Dir = dir
			if out, err := build.CombinedOutput(); err != nil {
				t.Skipf("%s does not work here: %v: %s", tt.build, err, lastLine(out))
			}
			work := filepath.Join(t.TempDir(), "work")
			user, peer := ports(t, 24000)
			dev := func(args ...string) string {
				t.Helper()
				out, errOut, code := evernode(t, append([]string{"dev", "--dir", work}, args...)...)
				if code != 0 {
					t.Fatalf("dev %v: exit code %d\n%s", args, code, errOut)
				}
				return out
			}
			dev("deploy", filepath.Join(dir, tt.bundle), "--nodes", "3", "--user-port", user, "--peer-port", peer, "--detach")
			defer dev("clean")
			for _, say := range []struct{ command, text, want string }{
				{"input", "get", "nothing is set"},
				{"input", "set hello there", "ok"},
				{"read", "get", "hello there"},
				{"read", "set x", "a read request cannot set anything; send this as an input"},
				{"input", "get", "hello there"},
			} {
				if got := dev(say.command, say.text); got != say.want+"\n" {
					t.Errorf("%s %q: %q, want %q", say.command, say.text, got, say.want)
				}
			}
			if got := dev("input", "stat"); !strings.HasPrefix(got, "ledger ") || !strings.HasSuffix(got, "users\n") {
				t.Errorf("stat: %q", got)
			}
			if got := dev("input", "dance"); !strings.HasPrefix(got, "unknown command") {
				t.Errorf("unknown command: %q", got)
			}
			if tt.template == "go-starter" {
				client := exec.Command("go", "run", "./client", "by client", "wss://127.0.0.1:"+user)
				client.Dir = dir
				out, err := client.CombinedOutput()
				if err != nil || !strings.Contains(string(out), "read from the node's state: by client") {
					t.Errorf("the client: %v\n%s", err, out)
				}
			}
			if tt.template == "nodejs-starter" {
				install := exec.Command("npm", "install", "--no-audit", "--no-fund", "--prefix", "client")
				install.Dir = dir
				if out, err := install.CombinedOutput(); err != nil {
					t.Skipf("npm install does not work here: %v: %s", err, lastLine(out))
				}
				client := exec.Command("node", "client/client.js", "wss://127.0.0.1:"+user)
				client.Dir = dir
				client.Stdin = strings.NewReader("set by client\nread get\n")
				out, err := client.CombinedOutput()
				if err != nil || !strings.Contains(string(out), "accepted in ledger") || !strings.Contains(string(out), ": ok") {
					t.Errorf("the client: %v\n%s", err, out)
				}
			}
		})
	}
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
