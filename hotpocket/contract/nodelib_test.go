package contract_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/hotpocket/contract"
	"evernode/hotpocket/key"
	"evernode/internal/npmtest"
)

// nodePrelude loads the unmodified library from npm, once per machine.
func nodePrelude(t testing.TB) (node string) {
	t.Helper()
	dir := npmtest.Install(t, npmtest.Contract)
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("Node.js is not installed")
	}
	t.Setenv("CONTRACT_TEST_LIBRARY", filepath.Join(dir, "node_modules/hotpocket-nodejs-contract"))
	return node
}

// nodeProgram is a contract in JavaScript. The script sees HotPocket, fs, a
// function sleep and the variables of the environment.
func nodeProgram(t testing.TB, script string, env ...string) contract.Program {
	t.Helper()
	node := nodePrelude(t)
	path := filepath.Join(t.TempDir(), "contract.js")
	text := fmt.Sprintf("const HotPocket = require(%q), fs = require('fs');\nconst sleep = ms => new Promise(r => setTimeout(r, ms));\n%s\n",
		os.Getenv("CONTRACT_TEST_LIBRARY"), script)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p := contract.Program{BinPath: node, BinArgs: path, Environment: map[string]string{}}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		p.Environment[k] = v
	}
	return p
}

// cluster runs a contract on several nodes that carry each other's NPL packets.
// A packet for a run that has not begun waits for it.
type cluster struct {
	mu      sync.Mutex
	keys    []key.Private
	unl     []contract.UNLMember
	running []*contract.Execution
	early   [][]nplPacket
	silent  map[int]bool // members whose packets get lost
}

type nplPacket struct {
	from key.Public
	data []byte
}

func newCluster(t testing.TB, n int) *cluster {
	c := &cluster{running: make([]*contract.Execution, n), early: make([][]nplPacket, n), silent: map[int]bool{}}
	for i := range n {
		k := testKey(t, i+1)
		c.keys = append(c.keys, k)
		c.unl = append(c.unl, contract.UNLMember{Key: k.Public()})
	}
	return c
}

func (c *cluster) send(t testing.TB, from int, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent[from] {
		return
	}
	for i, e := range c.running {
		p := nplPacket{c.keys[from].Public(), data}
		switch {
		case i == from:
		case e == nil:
			c.early[i] = append(c.early[i], p)
		default:
			if err := e.DeliverNPL(p.from, p.data); err != nil {
				t.Error(err)
			}
		}
	}
}

func (c *cluster) start(t testing.TB, b *bench, i int, prog contract.Program) *contract.Execution {
	t.Helper()
	run := consensusRun(t, []string{"go"})
	run.NodeKey, run.UNL = c.keys[i], c.unl
	e, err := b.Start(t.Context(), prog, run, contract.Hooks{NPL: func(data []byte) { c.send(t, i, data) }})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[i] = e
	for _, p := range c.early[i] {
		if err := e.DeliverNPL(p.from, p.data); err != nil {
			t.Error(err)
		}
	}
	return e
}

// within fails the test if the run has not ended by itself in time.
func within(t testing.TB, limit time.Duration, e *contract.Execution) contract.Result {
	t.Helper()
	select {
	case <-e.Done():
	case <-time.After(limit):
		e.Kill()
		e.Wait()
		t.Fatalf("the run did not end within %v", limit)
	}
	return e.Wait()
}

// noGrace makes sure that a test which ends in time did so without the time limit.
func noGrace(o *contract.Options) { o.NPLGrace = time.Hour }

func TestNodeLibrary(t *testing.T) {
	prog := nodeProgram(t, `
		new HotPocket.Contract().init(async ctx => {
			for (const user of ctx.users.list())
				for (const input of user.inputs) {
					const text = (await ctx.users.read(input)).toString();
					if (text === "config") {
						const config = await ctx.getConfig();
						config.version = "2.0";
						await ctx.updateConfig(config);
						await user.send({version: (await ctx.getConfig()).version});
					} else if (text === "peers") {
						await ctx.updatePeers(["a.example:22860"], ["b.example:22861"]);
						await ctx.updatePeers([], "*");
						await user.send("asked");
					} else if (text === "about") {
						await user.send([ctx.contractId, ctx.publicKey, ctx.privateKey.length, ctx.readonly, ctx.timestamp,
							ctx.lclSeqNo, ctx.lclHash, ctx.users.count(), ctx.unl.count(), ctx.unl.list().map(n => n.activeOn)]);
					} else
						await user.send(Buffer.from(text));
				}
			fs.writeFileSync("state.txt", "written");
		});`)
	b := newBench(t)
	run := consensusRun(t, []string{"about", "config", "peers", strings.Repeat("x", 1<<20)}, nil, []string{"", "ü"})
	run.Dir = filepath.Join(run.Dir, "state")
	if err := os.Mkdir(run.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	patch := filepath.Join(filepath.Dir(run.Dir), "patch.cfg")
	config := map[string]any{
		"version": "1.0", "unl": []string{run.NodeKey.Public().String()}, "bin_path": "x", "bin_args": "",
		"max_input_ledger_offset": 10, "consensus": map[string]any{"mode": "public", "roundtime": 1000, "stage_slice": 25, "threshold": 80},
		"npl": map[string]any{"mode": "public"}, "round_limits": map[string]any{},
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(patch, text, 0o644); err != nil {
		t.Fatal(err)
	}
	var changes []contract.PeerChange
	res := b.executeHooks(t, prog, run, contract.Hooks{Peers: func(c contract.PeerChange) { changes = append(changes, c) }})
	if !res.Normal() || res.Exit.Code != 0 {
		t.Fatalf("run ended as %+v\n%s", res.Exit, b.log)
	}
	got := texts(res)
	pub := run.NodeKey.Public().String()
	want := []string{
		fmt.Sprintf(`["%s","%s",130,false,1700000000123,7,"%s",3,1,[1700000000000]]`, run.ContractID, pub, run.LedgerHash),
		`{"version":"2.0"}`, `"asked"`, strings.Repeat("x", 1<<20),
	}
	if g := got[run.Users[0].Key]; !reflect.DeepEqual(g, want) {
		t.Errorf("first user got %.300q, want %.300q", g, want)
	}
	if g := got[run.Users[2].Key]; !reflect.DeepEqual(g, []string{"", "ü"}) {
		t.Errorf("third user got %q", g)
	}
	wantChanges := []contract.PeerChange{
		{Add: []string{"a.example:22860"}, Remove: []string{"b.example:22861"}},
		{Add: []string{}, ReplaceAll: true},
	}
	if !reflect.DeepEqual(changes, wantChanges) {
		t.Errorf("peer changes %+v", changes)
	}
	if text, err := os.ReadFile(patch); err != nil || !strings.Contains(string(text), `"version": "2.0"`) {
		t.Errorf("patch.cfg %s, %v", text, err)
	}

	// The same program answers a read request.
	run.Mode, run.Users = contract.ReadRequest, []contract.UserIO{{Key: run.Users[0].Key, Inputs: [][]byte{[]byte("about")}}}
	res = b.execute(t, prog, run)
	if g := texts(res)[run.Users[0].Key]; len(g) != 1 || g[0] != fmt.Sprintf(`["%s","%s",130,true,0,null,null,1,0,[]]`, run.ContractID, pub) {
		t.Errorf("read request got %q", g)
	}
}

// A large cluster's arguments do not fit into a pipe.
func TestNodeLibraryManyUsers(t *testing.T) {
	prog := nodeProgram(t, `
		new HotPocket.Contract().init(async ctx => {
			for (const user of ctx.users.list())
				await user.send(String(ctx.users.count()));
		}, "bson");`)
	run := consensusRun(t, make([][]string, 1500)...)
	res := newBench(t).execute(t, prog, run)
	if len(res.Outputs) != 1500 || string(res.Outputs[1499].Messages[0]) != "1500" {
		t.Errorf("%d outputs", len(res.Outputs))
	}
}

// The library's forced end by SIGINT is a normal end.
func TestNodeLibraryForceTerminate(t *testing.T) {
	prog := nodeProgram(t, `
		new HotPocket.Contract().init(async ctx => {
			ctx.unl.onMessage(() => {});
			await ctx.users.list()[0].send("done");
		}, "json", true);`)
	run := consensusRun(t, []string{"go"})
	res := newBench(t).execute(t, prog, run)
	if !res.Normal() || res.Exit.Signal != os.Interrupt {
		t.Errorf("run ended as %+v", res.Exit)
	}
	if got := texts(res)[run.Users[0].Key]; !reflect.DeepEqual(got, []string{`"done"`}) {
		t.Errorf("got %q", got)
	}
}

// rndContract is what hpdevkit's NPL template does: every node sends a number,
// waits for those of all others, and nothing ends the program by force.
const rndContract = `
	new HotPocket.Contract().init(async ctx => {
		const numbers = {};
		const all = new Promise(resolve => ctx.unl.onMessage((node, msg) => {
			numbers[node.publicKey] = JSON.parse(msg.toString()).number;
			if (Object.keys(numbers).length == Number(process.env.NEED || ctx.unl.count())) resolve();
		}));
		await sleep(Number(process.env.DELAY || 0));
		await ctx.unl.send(JSON.stringify({number: parseInt(ctx.publicKey.substring(2, 6), 16)}));
		await all;
		await ctx.users.list()[0].send(Object.values(numbers).sort((a, b) => a - b));
	});`

func TestNodeLibraryNPLAlone(t *testing.T) {
	prog := nodeProgram(t, rndContract)
	b := newBench(t, noGrace)
	c := newCluster(t, 1)
	res := within(t, 10*time.Second, c.start(t, b, 0, prog))
	if !res.Normal() || len(res.Outputs) != 1 {
		t.Fatalf("%+v\n%s", res, b.log)
	}
	t.Logf("ended after %v", res.Elapsed)
}

// A program that listens to NPL and hears nothing ends too.
func TestNodeLibraryNPLUnused(t *testing.T) {
	prog := nodeProgram(t, `new HotPocket.Contract().init(async ctx => { ctx.unl.onMessage(() => {}); });`)
	b := newBench(t, noGrace)
	c := newCluster(t, 3)
	var all []*contract.Execution
	for i := range c.keys {
		all = append(all, c.start(t, b, i, prog))
	}
	for _, e := range all {
		within(t, 10*time.Second, e)
	}
}

// One of the nodes is slow. The others wait for it without a time limit of their
// own, and none of them may be cut off before it has spoken; then all end without
// the runner's time limit.
func TestNodeLibraryNPLCluster(t *testing.T) {
	b := newBench(t, noGrace)
	c := newCluster(t, 3)
	var all []*contract.Execution
	for i := range c.keys {
		delay := "DELAY=0"
		if i == 1 {
			delay = "DELAY=700"
		}
		all = append(all, c.start(t, b, i, nodeProgram(t, rndContract, delay)))
	}
	var last string
	for i, e := range all {
		res := within(t, 10*time.Second, e)
		if !res.Normal() || len(res.Outputs) != 1 {
			t.Fatalf("node %d: %+v\n%s", i, res, b.log)
		}
		got := string(res.Outputs[0].Messages[0])
		if strings.Count(got, ",") != 2 || last != "" && got != last {
			t.Errorf("node %d got %s, the one before %s", i, got, last)
		}
		last = got
		t.Logf("node %d ended after %v", i, res.Elapsed)
	}
}

// When a member of the UNL does not answer, the time limit decides.
func TestNodeLibraryNPLMemberDown(t *testing.T) {
	b := newBench(t, func(o *contract.Options) { o.NPLGrace = 300 * time.Millisecond })
	c := newCluster(t, 3)
	prog := nodeProgram(t, rndContract, "NEED=2")
	var all []*contract.Execution
	for i := range 2 {
		all = append(all, c.start(t, b, i, prog))
	}
	for i, e := range all {
		res := within(t, 10*time.Second, e)
		if !res.Normal() || len(res.Outputs) != 1 || strings.Count(string(res.Outputs[0].Messages[0]), ",") != 1 {
			t.Errorf("node %d: %+v", i, res)
		}
		if res.Elapsed < 300*time.Millisecond {
			t.Errorf("node %d ended after %v, before the time limit", i, res.Elapsed)
		}
	}
}

// A contract that waits for something else than NPL is not quiet.
func TestNodeLibraryBusy(t *testing.T) {
	for name, script := range map[string]string{
		"timer":        `await sleep(400);`,
		"child":        `await new Promise(r => require("child_process").exec("sleep 0.4", {env: {PATH: "/usr/bin:/bin"}}, r));`,
		"socket":       `await new Promise(r => { const s = require("net").createServer(c => setTimeout(() => { s.close(); c.destroy(); r(); }, 400)).listen(0, "127.0.0.1", () => require("net").connect(s.address().port, "127.0.0.1").on("close", () => {})); });`,
		"thread":       `await new Promise(r => require("crypto").scrypt("a", "b", 64, {N: 1 << 16, maxmem: 1 << 28}, r));`,
		"unused timer": `setTimeout(() => {}, 1e6).unref(); await sleep(400);`,
		"compute":      `for (const end = Date.now() + 400; Date.now() < end;);`,
	} {
		t.Run(name, func(t *testing.T) {
			prog := nodeProgram(t, `
				new HotPocket.Contract().init(async ctx => {
					let heard = 0;
					ctx.unl.onMessage(() => { heard++; });
					`+script+`
					await ctx.unl.send("after");
					while (!heard) await sleep(1);
					await ctx.users.list()[0].send("heard");
				});`)
			b := newBench(t, func(o *contract.Options) { o.NPLGrace = time.Millisecond })
			c := newCluster(t, 1)
			res := within(t, 10*time.Second, c.start(t, b, 0, prog))
			if len(res.Outputs) != 1 || !slices.Equal(texts(res)[res.Outputs[0].Key], []string{`"heard"`}) {
				t.Errorf("%+v\n%s", res, b.log)
			}
		})
	}
}

// The example is run as its README says: from the state folder, by index.js.
func TestEchoInNode(t *testing.T) {
	node := nodePrelude(t)
	run := consensusRun(t, []string{"hello", "", "wörld"}, []string{`{"a":1}`})
	text, err := os.ReadFile("../../examples/echo-node/index.js")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run.Dir, "index.js"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(os.Getenv("CONTRACT_TEST_LIBRARY")), filepath.Join(run.Dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	got := texts(newBench(t).execute(t, contract.Program{BinPath: node, BinArgs: "index.js"}, run))
	if !slices.Equal(got[run.Users[0].Key], []string{"hello", "", "wörld"}) || !slices.Equal(got[run.Users[1].Key], []string{`{"a":1}`}) {
		t.Errorf("got %q", got)
	}
}
