package contract_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/contract"
)

func TestEchoInC(t *testing.T) {
	b := newBench(t)
	prog := contract.Program{BinPath: compile(t, echoSource)}
	big := strings.Repeat("0123456789abcdef", 256<<10/16)
	run := consensusRun(t,
		[]string{"hello", "", "wörld"},
		nil,
		[]string{strings.Repeat("p", 4096), big, "last"})
	res := b.execute(t, prog, run)
	if !res.Normal() || res.Exit.Code != 0 {
		t.Fatalf("run ended as %+v; log:\n%s", res.Exit, b.log)
	}
	got := texts(res)
	for i, u := range run.Users {
		var want []string
		for _, in := range u.Inputs {
			want = append(want, string(in))
		}
		if !reflect.DeepEqual(got[u.Key], want) {
			t.Errorf("user %d got %.80q, want %.80q", i, got[u.Key], want)
		}
	}
	if len(res.Outputs) != 2 || res.Outputs[0].Key != run.Users[0].Key {
		t.Errorf("outputs of %d users, want the first and the third in order", len(res.Outputs))
	}
}

func TestReadRequest(t *testing.T) {
	b := newBench(t)
	run := consensusRun(t, []string{"question"})
	run.Mode = contract.ReadRequest
	res := b.execute(t, contract.Program{BinPath: compile(t, echoSource)}, run)
	if got := texts(res)[run.Users[0].Key]; !reflect.DeepEqual(got, []string{"question"}) {
		t.Errorf("got %q", got)
	}
	run.Users = append(run.Users, run.Users[0])
	if _, err := b.Execute(t.Context(), contract.Program{}, run, contract.Hooks{}); err == nil {
		t.Error("a read request with two users was accepted")
	}
}

// A program that cannot be executed makes a run without outputs and a log line
// that names the path and the reason.
func TestStartFailures(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("plain", "#!/bin/sh\n", 0o644)
	write("garbage", "neither", 0o755)
	write("orphan", "#!/no/such/shell\n", 0o755)
	for _, c := range []struct{ path, want string }{
		{"missing", "PATH is not searched"},
		{"./missing", "there is no such file"},
		{"", "no bin_path"},
		{".", "it is a folder"},
		{"plain", "not executable"},
		{"garbage", "neither a program"},
		{"orphan", "interpreter"},
	} {
		b := newBench(t)
		run := consensusRun(t, []string{"x"})
		run.Dir = dir
		res := b.execute(t, contract.Program{BinPath: c.path}, run)
		if res.StartError == nil || len(res.Outputs) != 0 || res.Normal() {
			t.Errorf("%q: result %+v", c.path, res)
			continue
		}
		if !strings.Contains(res.StartError.Error(), c.want) || !strings.Contains(res.StartError.Error(), fmt.Sprintf("%q", c.path)) {
			t.Errorf("%q: error %q has no %q", c.path, res.StartError, c.want)
		}
	}
	b := newBench(t)
	run := consensusRun(t)
	run.Dir = filepath.Join(dir, "nowhere")
	if res := b.execute(t, contract.Program{BinPath: "/bin/true"}, run); res.StartError == nil ||
		!strings.Contains(res.StartError.Error(), "working directory") {
		t.Errorf("missing folder: %v", res.StartError)
	}
}

func BenchmarkEcho(b *testing.B) {
	for _, c := range []struct{ users, inputs int }{{1, 1}, {100, 10}, {1000, 1}} {
		b.Run(fmt.Sprintf("users=%d/inputs=%d", c.users, c.users*c.inputs), func(b *testing.B) {
			bench := newBench(b)
			prog := contract.Program{BinPath: compile(b, echoSource)}
			var inputs [][]string
			for range c.users {
				var list []string
				for i := range c.inputs {
					list = append(list, fmt.Sprintf("input number %d, about one hundred bytes long %s", i, strings.Repeat("x", 50)))
				}
				inputs = append(inputs, list)
			}
			run := consensusRun(b, inputs...)
			for b.Loop() {
				res := bench.execute(b, prog, run)
				if len(res.Outputs) != c.users || len(res.Outputs[0].Messages) != c.inputs {
					b.Fatalf("%d outputs", len(res.Outputs))
				}
			}
		})
	}
}

// What runs cost besides: a bare process start by the standard library as the
// yardstick, and the price of limits and control groups.
func BenchmarkStart(b *testing.B) {
	path := compile(b, echoSource)
	b.Run("peer=os/exec", func(b *testing.B) {
		for b.Loop() {
			exec.Command(path).Run() // it finds no node and ends
		}
	})
	run := consensusRun(b, []string{"x"})
	b.Run("plain", func(b *testing.B) {
		bench := newBench(b)
		for b.Loop() {
			bench.execute(b, contract.Program{BinPath: path}, run)
		}
	})
	b.Run("limits", func(b *testing.B) {
		bench := newBench(b)
		prog := contract.Program{BinPath: path, Limits: contract.Limits{CPUSeconds: 10, MemoryBytes: 1 << 30, OpenFiles: 100, ExecTimeout: time.Second}}
		for b.Loop() {
			bench.execute(b, prog, run)
		}
	})
	b.Run("cgroup", func(b *testing.B) {
		dir := cgroupFolder(b)
		bench := newBench(b, func(o *contract.Options) { o.Cgroup = dir })
		for b.Loop() {
			bench.execute(b, contract.Program{BinPath: path}, run)
		}
	})
	b.Run("node", func(b *testing.B) {
		prog := nodeProgram(b, `new HotPocket.Contract().init(async ctx => { await ctx.users.list()[0].send("x"); });`)
		bench := newBench(b)
		for b.Loop() {
			bench.execute(b, prog, run)
		}
	})
}
