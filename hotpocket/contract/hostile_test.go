package contract_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"evernode/hotpocket/contract"
)

const hostileSource = "testdata/hostile.c"

func hostile(t testing.TB, args string) contract.Program {
	return contract.Program{BinPath: compile(t, hostileSource), BinArgs: args, Limits: contract.Limits{ExecTimeout: 20 * time.Second}}
}

// firstUser is what the first user of a run got.
func firstUser(run contract.Run, res contract.Result) []string { return texts(res)[run.Users[0].Key] }

func exists(t testing.TB, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

func TestOutputsOfOddPrograms(t *testing.T) {
	for _, c := range []struct {
		args   string
		want   []string
		normal bool
	}{
		{"crash", []string{"before", "ab"}, false},
		{"half-header", []string{"whole"}, true},
		{"bytewise", []string{"abc", "", "x"}, true},
		{"huge-header", []string{"abc"}, true},
		{"close-all", []string{"before"}, true},
		{"shutdown", []string{"before"}, true},
		{"exit 7", nil, true},
		{"interrupt", []string{"done"}, true},
		{"seek", []string{"done"}, true},
	} {
		t.Run(c.args, func(t *testing.T) {
			b := newBench(t)
			run := consensusRun(t, []string{"input"}, nil)
			res := b.execute(t, hostile(t, c.args), run)
			if got := firstUser(run, res); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %.100q, want %q", got, c.want)
			}
			if res.Normal() != c.normal || res.TimedOut {
				t.Errorf("ended as %+v", res.Exit)
			}
			if c.args == "exit 7" && res.Exit.Code != 7 {
				t.Errorf("exit code %d", res.Exit.Code)
			}
			if c.args == "crash" && res.Exit.Signal != syscall.SIGSEGV {
				t.Errorf("signal %v", res.Exit.Signal)
			}
			if c.args == "close-all" && !exists(t, filepath.Join(run.Dir, "survived")) {
				t.Error("closing descriptors ended the run")
			}
		})
	}
}

// Whatever a contract does, it is gone when the time is over, and what it wrote
// until then counts.
func TestExecTimeout(t *testing.T) {
	for _, args := range []string{"hang", "spin", "stop", "leave-group"} {
		t.Run(args, func(t *testing.T) {
			b := newBench(t)
			run := consensusRun(t, []string{"x"})
			prog := hostile(t, args)
			prog.Limits.ExecTimeout = 100 * time.Millisecond
			res := b.execute(t, prog, run)
			if !res.TimedOut || res.Normal() || res.Exit.Signal != syscall.SIGKILL {
				t.Errorf("%+v", res)
			}
			if res.Elapsed < 100*time.Millisecond || res.Elapsed > 5*time.Second {
				t.Errorf("ended after %v", res.Elapsed)
			}
			if args == "hang" && !reflect.DeepEqual(firstUser(run, res), []string{"before"}) {
				t.Errorf("outputs %q", firstUser(run, res))
			}
		})
	}
}

func TestCancel(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	e, err := b.Start(ctx, hostile(t, "hang"), consensusRun(t, []string{"x"}), contract.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if res := within(t, 10*time.Second, e); !res.Canceled || res.Normal() {
		t.Errorf("%+v", res)
	}
	// A run that is over takes no notice of what still arrives.
	e.Kill()
	if err := e.DeliverNPL(testKey(t, 5).Public(), []byte("\x01late")); err != nil {
		t.Error(err)
	}
	if err := e.SendControl([]byte("{}")); err != nil {
		t.Error(err)
	}
	if _, err := b.Execute(ctx, hostile(t, "hang"), consensusRun(t), contract.Hooks{}); err == nil {
		t.Error("a run was started for a canceled context")
	}
}

// No process of the run's group acts after the run.
func TestChildrenEndWithTheRun(t *testing.T) {
	b := newBench(t)
	run := consensusRun(t, []string{"x"})
	res := b.execute(t, hostile(t, "child"), run)
	if got := firstUser(run, res); !reflect.DeepEqual(got, []string{"parent"}) {
		t.Errorf("outputs %q", got)
	}
	if res.Elapsed > 250*time.Millisecond {
		t.Skip("the machine is too busy for this test")
	}
	// The child would act 300 ms after the start.
	time.Sleep(400 * time.Millisecond)
	if exists(t, filepath.Join(run.Dir, "late")) {
		t.Error("a child went on after the run")
	}
	if res := b.execute(t, hostile(t, "ignore-term-child"), run); !res.Normal() {
		t.Errorf("%+v", res)
	}
}

// A process that leaves the group and the session is not found, but it cannot
// hold the run up, and its words after the end are not heard.
func TestDaemonDoesNotHoldTheRun(t *testing.T) {
	b := newBench(t)
	run := consensusRun(t, []string{"x"})
	start := time.Now()
	res := b.execute(t, hostile(t, "daemon"), run)
	if took := time.Since(start); took > time.Second {
		t.Errorf("the run took %v", took)
	}
	if got := firstUser(run, res); len(got) == 0 || got[0] != "parent" {
		t.Errorf("outputs %q", got)
	}
}

func TestUserOutputLimit(t *testing.T) {
	b := newBench(t)
	run := consensusRun(t, []string{"x"})
	prog := hostile(t, "flood 8")
	prog.Limits.UserOutputBytes = 3<<20 + 1000
	res := b.execute(t, prog, run)
	// Two whole messages, and what is left for the third after three headers.
	got := firstUser(run, res)
	if len(got) != 3 || len(got[0]) != 1<<20 || len(got[1]) != 1<<20 || len(got[2]) != 1<<20 {
		var sizes []int
		for _, m := range got {
			sizes = append(sizes, len(m))
		}
		if want := []int{1 << 20, 1 << 20, 1 << 20, 1000 - 16}; !reflect.DeepEqual(sizes, want) {
			t.Errorf("messages of %v bytes, want %v", sizes, want)
		}
	}
	if !res.Normal() || res.Exit.Code != 0 {
		t.Errorf("the limit disturbed the contract: %+v", res.Exit)
	}
	b.logged(t, "user_output_bytes")
}

// A run that exceeds the memory for outputs loses all of them, and that memory is
// not exceeded, whether it sends much or nothing very often.
func TestTotalOutputLimit(t *testing.T) {
	for _, args := range []string{"flood 40", "empty-flood 4", "flood 4"} {
		b := newBench(t)
		run := consensusRun(t, []string{"x"}, nil)
		prog := hostile(t, args)
		prog.Limits.TotalOutputBytes = 8 << 20
		res := b.execute(t, prog, run)
		if lost := args != "flood 4"; res.OutputsLost != lost || lost != (len(res.Outputs) == 0) {
			t.Errorf("%s: lost %v, %d outputs", args, res.OutputsLost, len(res.Outputs))
		}
		if !res.Normal() || res.Exit.Code != 0 {
			t.Errorf("%s: the limit disturbed the contract: %+v", args, res.Exit)
		}
	}
}

// A contract that sends NPL and never reads it is not held up, nor is the node.
func TestNPLNeverRead(t *testing.T) {
	b := newBench(t)
	run := consensusRun(t, []string{"x"})
	sent := 0
	e, err := b.Start(t.Context(), hostile(t, "npl-flood 600"), run, contract.Hooks{NPL: func([]byte) { sent++ }})
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if err := e.DeliverNPL(testKey(t, 9).Public(), []byte("\x01from another node")); err != nil {
			t.Fatal(err)
		}
	}
	res := within(t, 20*time.Second, e)
	if got := firstUser(run, res); !res.Normal() || !reflect.DeepEqual(got, []string{"sent"}) || sent != 600 {
		t.Errorf("%+v, %d messages sent", res, sent)
	}
	b.logged(t, "did not read its NPL messages")
}

func TestNPLOutputLimit(t *testing.T) {
	b := newBench(t)
	run := consensusRun(t, []string{"x"})
	prog := hostile(t, "npl-flood 10")
	prog.Limits.NPLOutputBytes = 3*contract.MaxPacket + 5
	sent := 0
	res := b.executeHooks(t, prog, run, contract.Hooks{NPL: func([]byte) { sent++ }})
	if sent != 3 || !res.Normal() || res.Exit.Code != 0 || len(res.Outputs) != 1 {
		t.Errorf("%d messages sent, %+v", sent, res)
	}
	b.logged(t, "npl_output_bytes")
}

// Empty and too large messages do no harm, and those around them are taken.
func TestNPLOddMessages(t *testing.T) {
	b := newBench(t)
	var got []string
	res := b.executeHooks(t, hostile(t, "npl-odd"), consensusRun(t, []string{"x"}), contract.Hooks{NPL: func(p []byte) {
		got = append(got, string(p))
	}})
	if want := []string{"\x01fine", "\x01last"}; !res.Normal() || !reflect.DeepEqual(got, want) {
		t.Errorf("%.100q, %+v", got, res)
	}
	b.logged(t, "too large")

	// A node that may not speak on NPL throws messages away, and does not echo them.
	b = newBench(t)
	if res := b.execute(t, hostile(t, "npl-flood 50"), consensusRun(t, []string{"x"})); !res.Normal() || len(res.Outputs) != 1 {
		t.Errorf("%+v", res)
	}
}

func TestDeliverNPLRefuses(t *testing.T) {
	b := newBench(t)
	e, err := b.Start(t.Context(), hostile(t, "npl-reader"), consensusRun(t, []string{"x"}), contract.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	other := testKey(t, 9).Public()
	for _, p := range []string{"", "\x01", "\x07abc", "\x02", "\x02\x00\x00", "\x01" + strings.Repeat("x", contract.MaxPacket+1)} {
		if err := e.DeliverNPL(other, []byte(p)); err == nil {
			t.Errorf("packet %.20q was accepted", p)
		}
	}
	if err := e.DeliverNPL(other, []byte("\x01content")); err != nil {
		t.Error(err)
	}
	res := within(t, 10*time.Second, e)
	want := []string{other.String(), "content"}
	if len(res.Outputs) != 1 || !reflect.DeepEqual(texts(res)[res.Outputs[0].Key], want) {
		t.Errorf("%+v", res)
	}
}

// A program that is not built upon libuv and leaves a thread behind that reads
// NPL ends too; one that waits for NPL in its main thread is let waiting.
func TestQuietWithoutLibuv(t *testing.T) {
	b := newBench(t, noGrace)
	c := newCluster(t, 1)
	if res := within(t, 10*time.Second, c.start(t, b, 0, hostile(t, "npl-thread"))); !res.Normal() {
		t.Errorf("%+v", res)
	}
	prog := hostile(t, "npl-reader")
	prog.Limits.ExecTimeout = 300 * time.Millisecond
	b = newBench(t, func(o *contract.Options) { o.NPLGrace = time.Millisecond })
	if res := within(t, 10*time.Second, newCluster(t, 1).start(t, b, 0, prog)); !res.TimedOut {
		t.Errorf("%+v", res)
	}
}

func TestControlMessages(t *testing.T) {
	b := newBench(t)
	var got []contract.PeerChange
	res := b.executeHooks(t, hostile(t, "control-odd"), consensusRun(t, []string{"x"}), contract.Hooks{Peers: func(c contract.PeerChange) {
		got = append(got, c)
	}})
	if want := []contract.PeerChange{{Add: []string{"good:1"}, ReplaceAll: true}}; !res.Normal() || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %+v", got, res)
	}
	for _, want := range []string{"too large", "cannot unmarshal array", "contract_end", "must be an array", "not host:port"} {
		b.logged(t, want)
	}

	run := consensusRun(t, []string{"x"})
	e, err := b.Start(t.Context(), hostile(t, "control-echo"), run, contract.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	if e.SendControl(nil) == nil || e.SendControl(make([]byte, contract.MaxPacket+1)) == nil {
		t.Error("a control message of a forbidden size was accepted")
	}
	if err := e.SendControl([]byte(`{"type":"hello"}`)); err != nil {
		t.Error(err)
	}
	if got := firstUser(run, within(t, 10*time.Second, e)); !reflect.DeepEqual(got, []string{`{"type":"hello"}`}) {
		t.Errorf("the contract heard %q", got)
	}
}

// The contract gets its own descriptors and nothing else of the node's.
func TestDescriptors(t *testing.T) {
	secret, err := os.Open("/etc/hostname")
	if err != nil {
		t.Skip(err)
	}
	defer secret.Close()
	b := newBench(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 4 { // beside other runs, whose descriptors come and go
		wg.Go(func() {
			for range 20 {
				b.Execute(t.Context(), hostile(t, "exit 0"), consensusRun(t, []string{"x"}), contract.Hooks{})
			}
		})
	}
	for range 20 {
		run := consensusRun(t, []string{"x"}, nil)
		got := firstUser(run, b.execute(t, hostile(t, "descriptors"), run))
		want := "0=/memfd:stdin (deleted)\n1=\n2=\n3=/memfd:user_in (deleted)\n4=socket:\n5=socket:\n6=socket:\n7=socket:\n"
		if len(got) != 1 || got[0] != want {
			t.Fatalf("consensus run has %q", got)
		}
		run.Mode, run.Users = contract.ReadRequest, run.Users[:1]
		got = firstUser(run, b.execute(t, hostile(t, "descriptors"), run))
		want = "0=/memfd:stdin (deleted)\n1=\n2=\n3=/memfd:user_in (deleted)\n4=socket:\n5=socket:\n"
		if len(got) != 1 || got[0] != want {
			t.Fatalf("read request has %q", got)
		}
	}
}

func TestProcessSettings(t *testing.T) {
	b := newBench(t)
	run := consensusRun(t, []string{"x"})
	about := func(change func(*contract.Program)) string {
		t.Helper()
		prog := hostile(t, "about  two  ")
		change(&prog)
		res := b.execute(t, prog, run)
		got := firstUser(run, res)
		if len(got) != 1 {
			t.Fatalf("outputs %q, %+v; log:\n%s", got, res, b.log)
		}
		return got[0]
	}
	var own syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	got := about(func(*contract.Program) {})
	if !strings.HasPrefix(got, "args=3 env=, uid=") || !strings.Contains(got, "leader=1 cpu=-1 data=-1 ") || !strings.HasSuffix(got, " signals=0") {
		t.Errorf("%s", got)
	}
	got = about(func(p *contract.Program) {
		p.Environment = map[string]string{"ONLY": "this one=x"}
		p.Limits.CPUSeconds, p.Limits.MemoryBytes, p.Limits.OpenFiles = 33, 100<<20, 44
	})
	if !strings.Contains(got, "env=ONLY=this one=x, ") || !strings.Contains(got, "cpu=33 data=104857600 files=44 ") {
		t.Errorf("%s", got)
	}
	if os.Getuid() != 0 {
		t.Skip("running as another user needs root")
	}
	for _, limited := range []bool{false, true} {
		// The contract's file lies in a folder that only root may enter.
		dir := t.TempDir()
		for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(compile(t, hostileSource))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "program")
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
		got = about(func(p *contract.Program) {
			p.BinPath, p.RunAs = path, &contract.Credential{UID: 12345, GID: 23456}
			if limited {
				p.Limits.OpenFiles = 50
			}
		})
		if !strings.Contains(got, "uid=12345 gid=23456 groups=0 ") || limited != strings.Contains(got, "files=50 ") {
			t.Errorf("%s", got)
		}
	}
	// A program that begins in the dynamic loader.
	prog := shell("exit $(ulimit -n)")
	prog.RunAs, prog.Limits.OpenFiles, prog.Limits.CPUSeconds = &contract.Credential{UID: 12345, GID: 23456}, 61, 1000
	run.Dir = "/"
	if res := b.execute(t, prog, run); !res.Normal() || res.Exit.Code != 61 {
		t.Errorf("%+v", res)
	}
	// More than the node itself has cannot be given, and is no reason to fail.
	prog.Limits.OpenFiles = 1 << 40
	if res := b.execute(t, prog, run); !res.Normal() {
		t.Errorf("%+v", res)
	}
}

func TestMemoryLimit(t *testing.T) {
	b := newBench(t)
	run := consensusRun(t, []string{"x"})
	for args, want := range map[string]string{"memory 10": "granted", "memory 200": "refused"} {
		prog := hostile(t, args)
		prog.Limits.MemoryBytes = 100 << 20
		if got := firstUser(run, b.execute(t, prog, run)); !reflect.DeepEqual(got, []string{want}) {
			t.Errorf("%s: %q", args, got)
		}
	}
}

func TestCPULimit(t *testing.T) {
	b := newBench(t)
	prog := hostile(t, "spin")
	prog.Limits.CPUSeconds = 1
	res := b.execute(t, prog, consensusRun(t, []string{"x"}))
	if res.Normal() || res.TimedOut || res.Exit.Signal != syscall.SIGKILL || res.CPU < 900*time.Millisecond {
		t.Errorf("%+v", res)
	}
}

// Runs beside each other do not get in each other's way.
func TestConcurrentRuns(t *testing.T) {
	b := newBench(t)
	prog := contract.Program{BinPath: compile(t, echoSource), Limits: contract.Limits{OpenFiles: 100}}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				in := fmt.Sprintf("input %d of %d", j, i)
				run := consensusRun(t, []string{in})
				if i%2 == 0 {
					run.Mode = contract.ReadRequest
				}
				res, err := b.Execute(t.Context(), prog, run, contract.Hooks{})
				if err != nil {
					t.Error(err)
					return
				}
				if got := firstUser(run, res); !reflect.DeepEqual(got, []string{in}) {
					t.Errorf("got %q, want %q", got, in)
				}
			}
		})
	}
	wg.Wait()
}

// Runs leave no descriptors and no processes behind.
func TestNothingIsLeftBehind(t *testing.T) {
	b := newBench(t)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(entries)
	}
	once := func() {
		b.execute(t, hostile(t, "crash"), consensusRun(t, []string{"x"}, nil))
		b.execute(t, hostile(t, "close-all"), consensusRun(t, []string{"x"}))
		b.execute(t, contract.Program{BinPath: "missing"}, consensusRun(t, []string{"x"}, nil))
		run := consensusRun(t, []string{"x"})
		run.Mode = contract.ReadRequest
		b.execute(t, hostile(t, "exit 3"), run)
	}
	once()
	before := count()
	for range 5 {
		once()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors open before, %d after", before, after)
	}
	var ws syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil); err != syscall.ECHILD {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
}

// A contract cannot fill the node's log with its mistakes.
func TestComplaintsAreBounded(t *testing.T) {
	b := newBench(t)
	b.execute(t, hostile(t, "control-flood"), consensusRun(t, []string{"x"}))
	if n := strings.Count(b.log.String(), "\n"); n > 12 {
		t.Errorf("%d lines were logged", n)
	}
	b.logged(t, "not logged")
}

// A closed runner says so.
func TestClosedRunner(t *testing.T) {
	r := contract.NewRunner(contract.Options{})
	r.Close()
	if _, err := r.Execute(t.Context(), hostile(t, "exit 0"), consensusRun(t), contract.Hooks{}); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Error(err)
	}
}

// Contracts die with the node.
func TestContractDiesWithTheNode(t *testing.T) {
	if os.Getenv("CONTRACT_TEST_DIE") != "" {
		r := contract.NewRunner(contract.Options{})
		r.Execute(t.Context(), hostile(t, "hang"), consensusRun(t, []string{"x"}), contract.Hooks{})
		return
	}
	compile(t, hostileSource)
	cmd := exec.Command(os.Args[0], "-test.run=^TestContractDiesWithTheNode$")
	cmd.Env = append(os.Environ(), "CONTRACT_TEST_DIE=1", "TMPDIR="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	child := ""
	poll(t, "the contract to start", func() bool {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			for _, pid := range strings.Fields(string(b)) {
				if comm, _ := os.ReadFile("/proc/" + pid + "/comm"); string(comm) == "hostile\n" {
					child = pid
				}
			}
		}
		return child != ""
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	poll(t, "the contract to die", func() bool {
		b, err := os.ReadFile("/proc/" + child + "/stat")
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}

func poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
