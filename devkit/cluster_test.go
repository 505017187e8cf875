package devkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/config"
)

const override = `{"contract":{"bin_path":"run","bin_args":"a b","environment":{"A":"1"}}}`

func TestLifeOfACluster(t *testing.T) {
	bundle := testBundle(t, map[string]string{
		"run": "#!/bin/true", "hp.cfg.override": override, "sub/data": "x", "disparate/2/secret": "two",
	})
	if err := os.Symlink("data", filepath.Join(bundle, "sub", "link")); err != nil {
		t.Fatal(err)
	}
	c, _ := testDeploy(t, bundle)
	ctx := t.Context()

	for i := 1; i <= 3; i++ {
		l := config.Layout(c.NodeDir(i))
		entries, err := os.ReadDir(l.SeedState())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if !slices.Equal(names, []string{"run", "sub"}) {
			t.Errorf("node %d has state %v", i, names)
		}
		if to, _ := os.Readlink(filepath.Join(l.SeedState(), "sub", "link")); to != "data" {
			t.Errorf("node %d: the link points to %q", i, to)
		}
		_, err = os.Stat(filepath.Join(l.Seed(), "secret"))
		if (err == nil) != (i == 2) {
			t.Errorf("node %d: private file: %v", i, err)
		}
		cfg, err := config.Load(c.NodeDir(i))
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Contract.BinPath != "run" || len(cfg.Contract.UNL) != 3 || len(cfg.Mesh.KnownPeers) != 2 ||
			cfg.Contract.Consensus.Roundtime != 100*time.Millisecond || cfg.Contract.ID != c.state.ContractID {
			t.Errorf("node %d: configuration %s", i, cfg.Contract.Patch.Text())
		}
	}

	nodes, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := WriteJSON(&buf, nodes); err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(buf.Bytes(), &rows); err != nil {
		t.Fatal(err)
	}
	want := []string{"ledger_hash", "ledger_seq_no", "node", "patch_hash", "peer_port", "peers", "pid", "public_key",
		"running", "state_hash", "user_port", "users", "vote_status"}
	for i, row := range rows {
		var keys []string
		for k := range row {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		if !slices.Equal(keys, want) {
			t.Errorf("status has the fields %v, want %v", keys, want)
		}
		if row["node"] != float64(i+1) || row["running"] != true || row["ledger_seq_no"].(float64) < 1 || row["vote_status"] != "synced" {
			t.Errorf("status %v", row)
		}
	}

	// One stops, one dies, both come back under new processes.
	if err := c.Stop(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if nodes, err = c.Status(ctx); err != nil {
		t.Fatal(err)
	}
	if nodes[0].Running || nodes[1].Running || !nodes[2].Running || nodes[0].PID != 0 || nodes[0].VoteStatus != "unknown" {
		t.Errorf("after stop and kill: %+v", nodes)
	}
	if err := c.Kill(ctx, 2); err == nil {
		t.Error("a dead node was killed")
	}
	third := nodes[2].PID
	// As another command would, after a restart of the terminal.
	again, err := Open(c.Dir(), c.env)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Start(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if nodes, err = again.Status(ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if !n.Running {
			t.Errorf("node %d does not run", n.Node)
		}
	}
	if nodes[2].PID != third {
		t.Error("a running node was started again")
	}

	n, err := again.Spawn(ctx)
	if err != nil || n != 4 {
		t.Fatalf("spawn: node %d, %v", n, err)
	}
	cfg, err := config.Load(again.NodeDir(4))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Contract.Member(cfg.Node.PublicKey) || len(cfg.Contract.UNL) != 1 || len(cfg.Mesh.KnownPeers) != 1 ||
		cfg.Contract.ID != again.state.ContractID || cfg.Contract.BinPath != config.BinPathPlaceholder {
		t.Errorf("the spawned node knows %s", cfg.Contract.Patch.Text())
	}

	var logs bytes.Buffer
	if err := again.Logs(ctx, &logs, 1, 1, false); err != nil || !strings.HasPrefix(logs.String(), "fake node runs in") {
		t.Errorf("logs %q, %v", &logs, err)
	}

	if nodes, err = again.Status(ctx); err != nil {
		t.Fatal(err)
	}
	if err := again.Clean(ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if p, err := identify(n.PID); err == nil && p.alive() {
			t.Errorf("node %d still runs", n.Node)
		}
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the work folder is still there: %v", err)
	}
	if _, err := Open(c.Dir(), c.env); !errors.Is(err, ErrNoCluster) {
		t.Errorf("after clean: %v", err)
	}
}

func TestRedeployKeepsWhoTheNodesAre(t *testing.T) {
	c, _ := testDeploy(t, testBundle(t, map[string]string{"run": "", "old": "", "hp.cfg.override": override}))
	before, err := c.configs()
	if err != nil {
		t.Fatal(err)
	}
	leftover := filepath.Join(c.NodeDir(1), "consensus.journal")
	if err := os.WriteFile(leftover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	next := testBundle(t, map[string]string{"main": "", "hp.cfg.override": `{"contract":{"bin_path":"main","unl":["` +
		before[0].Node.PublicKey.String() + `"],"id":"other","consens":{"roundtime":5},"environment":{"free":"1"}},"user":{"port":1,"idle_timeout":5},"mash":1}`})
	env, r := fakeEnv(t)
	if _, err := Deploy(t.Context(), c.Dir(), next, DeployOptions{Nodes: 4}, env); err == nil || !strings.Contains(err.Error(), "evernode dev clean") {
		t.Errorf("another number of nodes: %v", err)
	}
	taken, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	if _, err := Deploy(t.Context(), c.Dir(), next, DeployOptions{UserPort: port}, env); err == nil || !strings.Contains(err.Error(), "--user-port") {
		t.Errorf("other ports, of which one is taken: %v", err)
	}
	for i := 1; i <= 3; i++ {
		if _, running := c.process(i); !running {
			t.Errorf("node %d was stopped for a deployment that could not be", i)
		}
	}
	c2, err := Deploy(t.Context(), c.Dir(), next, DeployOptions{Threshold: 100}, env)
	if err != nil {
		t.Fatal(err)
	}
	after, err := c2.configs()
	if err != nil {
		t.Fatal(err)
	}
	for i := range after {
		a, b := after[i], before[i]
		if a.Node.PublicKey != b.Node.PublicKey || a.Contract.ID != b.Contract.ID || a.User.Port != b.User.Port ||
			!slices.Equal(a.Contract.UNL, b.Contract.UNL) || a.Contract.Consensus.Roundtime != b.Contract.Consensus.Roundtime {
			t.Errorf("node %d became another", i+1)
		}
		if a.Contract.BinPath != "main" || a.Contract.BinArgs != "" || len(a.Contract.Environment) != 1 ||
			a.Contract.Consensus.Threshold != 100 || a.User.IdleTimeout != 5*time.Millisecond {
			t.Errorf("node %d: configuration %s", i+1, a.Contract.Patch.Text())
		}
	}
	if _, err := os.Stat(filepath.Join(config.Layout(c.NodeDir(1)).SeedState(), "old")); err == nil {
		t.Error("the old contract's files are still there")
	}
	if _, err := os.Stat(leftover); err == nil {
		t.Error("what the node remembered of the old ledgers is still there")
	}
	for _, want := range []string{"all 3 must agree", "contract.id, contract.unl, user.port", "no effect: contract.consens, mash;"} {
		if !strings.Contains(r.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, r)
		}
	}
}

func TestDeploySaysWhatIsWrongAndWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	ok := map[string]string{"run": "", "hp.cfg.override": override}
	file := filepath.Join(testBundle(t, ok), "run")
	notExecutable := testBundle(t, ok)
	if err := os.Chmod(filepath.Join(notExecutable, "run"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		bundle string
		change func(*DeployOptions)
		want   []string
	}{
		{"no folder", "/nowhere", nil, []string{"/nowhere", "is not there", "dev new"}},
		{"a file", file, nil, []string{"is a file"}},
		{"no override", testBundle(t, map[string]string{"run": ""}), nil, []string{"which program", "hp.cfg.override", "bin_path"}},
		{"bad override", testBundle(t, map[string]string{"hp.cfg.override": "{\n}x"}), nil, []string{"hp.cfg.override: line 2, column 2"}},
		{"bad field", testBundle(t, map[string]string{"hp.cfg.override": `{"contract":{"version":""}}`}), nil, []string{"contract.version", "allowed"}},
		{"program missing", testBundle(t, map[string]string{"hp.cfg.override": override}), nil, []string{"bin_path is run", "build the contract"}},
		{"program not installed", testBundle(t, map[string]string{"hp.cfg.override": `{"contract":{"bin_path":"/no/node"}}`}), nil, []string{"/no/node", "not on this machine"}},
		{"program is a folder", testBundle(t, map[string]string{"run/x": "", "hp.cfg.override": override}), nil, []string{"is a folder"}},
		{"not executable", notExecutable, nil, []string{"chmod +x"}},
		{"disparate of nobody", testBundle(t, map[string]string{"run": "", "hp.cfg.override": override, "disparate/x/y": ""}), nil, []string{"disparate/x", "1, 2"}},
		{"user port taken", testBundle(t, ok), func(o *DeployOptions) { o.UserPort = port }, []string{strconv.Itoa(port), "process " + strconv.Itoa(os.Getpid()), "--user-port"}},
		{"peer port taken", testBundle(t, ok), func(o *DeployOptions) { o.PeerPort = port }, []string{strconv.Itoa(port), "--peer-port"}},
		{"ports overlap", testBundle(t, ok), func(o *DeployOptions) { o.PeerPort = o.UserPort + 1 }, []string{"overlap"}},
		{"ports too high", testBundle(t, ok), func(o *DeployOptions) { o.PeerPort = 65534 }, []string{"65535"}},
		{"threshold", testBundle(t, ok), func(o *DeployOptions) { o.Threshold = 49 }, []string{"--threshold is 49", "50 to 100"}},
		{"nodes", testBundle(t, ok), func(o *DeployOptions) { o.Nodes = 129 }, []string{"--nodes is 129", "1 to 128"}},
		{"roundtime", testBundle(t, ok), func(o *DeployOptions) { o.Roundtime = 2 * time.Hour }, []string{"--roundtime"}},
		{"crash", testBundle(t, map[string]string{"run": "", "crash": "", "hp.cfg.override": override}), nil, []string{"node", "ended", "not to my taste", "dev logs"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, _ := fakeEnv(t)
			o := testOptions(t)
			if tt.change != nil {
				tt.change(&o)
			}
			work := filepath.Join(t.TempDir(), "work")
			c, err := Deploy(t.Context(), work, tt.bundle, o, env)
			if err == nil {
				t.Error("deployed")
			} else {
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %q lacks %q", err, want)
					}
				}
			}
			if c != nil && c.state.Deployed {
				if err := c.Clean(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if _, err := os.Stat(work); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a failed deployment leaves its work folder: %v", err)
			}
		})
	}
}

func TestDeployRefusesOverlappingFolders(t *testing.T) {
	bundle := testBundle(t, map[string]string{"run": "", "hp.cfg.override": override})
	env, _ := fakeEnv(t)
	for _, work := range []string{bundle, filepath.Join(bundle, "work"), filepath.Dir(bundle)} {
		if _, err := Deploy(t.Context(), work, bundle, testOptions(t), env); err == nil || !strings.Contains(err.Error(), "must lie apart") {
			t.Errorf("work folder %s: %v", work, err)
		}
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Deploy(t.Context(), foreign, bundle, testOptions(t), env); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a folder with other files: %v", err)
	}
}

// A number in cluster.json may name another process by now.
func TestRecycledProcessIsNeverTouched(t *testing.T) {
	c, _ := testDeploy(t, testBundle(t, map[string]string{"run": "", "hp.cfg.override": override}))
	if err := c.Stop(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	innocent := exec.Command("sleep", "300")
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	defer innocent.Wait()
	defer innocent.Process.Kill()
	id, err := identify(innocent.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []process{{id.PID, id.Start - 1, id.Boot}, {id.PID, id.Start, "another start of the machine"}} {
		c.state.Nodes[0].Process = other
		if err := c.save(); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if err := c.Kill(t.Context(), 1); err == nil {
			t.Error("kill took the process for the node")
		}
		if !id.alive() {
			t.Fatal("an innocent process was ended")
		}
	}
}

// What a killed node leaves running ends with the next stop.
func TestOrphansAreSwept(t *testing.T) {
	c, _ := testDeploy(t, testBundle(t, map[string]string{"run": "", "orphan": "", "hp.cfg.override": override}))
	text, err := os.ReadFile(filepath.Join(c.NodeDir(1), "orphan.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if !orphan.alive() {
		t.Fatal("the orphan ended by itself, so this test shows nothing")
	}
	if err := c.Stop(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if orphan.alive() {
		t.Error("the orphan still runs")
	}
}

func TestMountsAreUndone(t *testing.T) {
	c, _ := testDeploy(t, testBundle(t, map[string]string{"run": "", "hp.cfg.override": override}))
	point := filepath.Join(c.NodeDir(2), "contract_fs", "a mount")
	if err := os.MkdirAll(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "none", point).CombinedOutput(); err != nil {
		t.Skipf("mounting is not permitted here: %s", out)
	}
	if got := mountsBelow(c.NodeDir(2)); !slices.Equal(got, []string{point}) {
		t.Errorf("mounts %v", got)
	}
	if err := c.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := mountsBelow(filepath.Dir(c.Dir())); len(got) != 0 {
		t.Errorf("mounts after clean: %v", got)
	}
}

func TestTwoCommandsAtOnce(t *testing.T) {
	c, _ := testDeploy(t, testBundle(t, map[string]string{"run": "", "hp.cfg.override": override}))
	lock, err := config.Acquire(c.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "another evernode dev command") {
		t.Errorf("error %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestCleanKeepsForeignFiles(t *testing.T) {
	c, r := testDeploy(t, testBundle(t, map[string]string{"run": "", "hp.cfg.override": override}))
	mine := filepath.Join(c.Dir(), "notes.txt")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(c.Dir()); len(entries) != 1 || !strings.Contains(r.String(), "notes.txt") {
		t.Errorf("left %v, reported %s", entries, r)
	}
}

func TestLogs(t *testing.T) {
	c := &Cluster{dir: t.TempDir(), state: state{Nodes: make([]record, 2)}}
	if err := c.Logs(t.Context(), &bytes.Buffer{}, 3, 1, false); err == nil || !strings.Contains(err.Error(), "nodes 1 to 2") {
		t.Errorf("node 3 of 2: %v", err)
	}
	if err := c.Logs(t.Context(), &bytes.Buffer{}, 1, 1, false); err == nil || !strings.Contains(err.Error(), "dev start 1") {
		t.Errorf("no log: %v", err)
	}
	for _, tt := range []struct {
		text  string
		lines int
		want  string
	}{
		{"a\nb\nc\n", 2, "b\nc\n"}, {"a\nb\nc", 2, "b\nc"}, {"a\n", 5, "a\n"}, {"", 5, ""}, {"\n\n\n", 1, "\n"},
	} {
		if err := os.WriteFile(c.LogFile(1), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := c.Logs(t.Context(), &got, 1, tt.lines, false); err != nil || got.String() != tt.want {
			t.Errorf("%d lines of %q: %q, %v", tt.lines, tt.text, &got, err)
		}
	}

	// Following shows what is added, and a file that is begun anew.
	if err := os.WriteFile(c.LogFile(1), []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	lines := make(chan string, 16)
	done := make(chan error, 1)
	go func() { done <- c.Logs(ctx, lineWriter(lines), 1, 1, true) }()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-lines:
			if got != want {
				t.Errorf("followed %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q was not shown", want)
		}
	}
	expect("one\n")
	f, err := os.OpenFile(c.LogFile(1), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("two\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	expect("two\n")
	if err := os.WriteFile(c.LogFile(1), []byte("3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("3\n")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// lineWriter hands on what is written, unless it is nothing.
type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) {
	if len(b) > 0 {
		w <- string(b)
	}
	return len(b), nil
}
