package contract_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"evernode/hotpocket/contract"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// binaries keeps compiled test contracts for the time of the test process.
type binaries struct {
	mu    sync.Mutex
	dir   string
	built map[string]string
}

var compiled = &binaries{built: map[string]string{}}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "contract-test")
	if err != nil {
		panic(err)
	}
	compiled.dir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// compile builds a C file and returns the program's path.
func compile(t testing.TB, source string) string {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("no C compiler (cc) on this machine")
	}
	compiled.mu.Lock()
	defer compiled.mu.Unlock()
	if p, ok := compiled.built[source]; ok {
		return p
	}
	out := filepath.Join(compiled.dir, strings.ReplaceAll(filepath.Base(source), ".c", ""))
	cmd := exec.Command("cc", "-static", "-O2", "-Wall", "-Werror", "-I", "../../examples/echo-c", "-o", out, source)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", source, err, msg)
	}
	compiled.built[source] = out
	return out
}

const echoSource = "../../examples/echo-c/echo.c"

func testKey(t testing.TB, n int) key.Private {
	t.Helper()
	seed := make([]byte, 32)
	seed[0], seed[1] = byte(n), byte(n>>8)
	k, err := key.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// bench is a runner with what it logged.
type bench struct {
	*contract.Runner
	log *logBuffer
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newBench(t testing.TB, change ...func(*contract.Options)) *bench {
	t.Helper()
	b := &bench{log: new(logBuffer)}
	o := contract.Options{Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, c := range change {
		c(&o)
	}
	b.Runner = contract.NewRunner(o)
	t.Cleanup(b.Close)
	return b
}

// consensusRun is a run in a fresh folder with the given inputs, one user each
// list.
func consensusRun(t testing.TB, inputs ...[]string) contract.Run {
	t.Helper()
	node := testKey(t, 1)
	run := contract.Run{
		Mode: contract.Consensus, Dir: t.TempDir(), HPVersion: "0.6.4", ContractID: "3c349abe-4d70-4f50-9fa6-018f1f2530ab",
		NodeKey: node, LedgerSeq: 7, LedgerHash: digest.Sum([]byte("ledger 7")), Timestamp: 1700000000123,
		UNL: []contract.UNLMember{{Key: node.Public(), ActiveOn: 1700000000000}},
	}
	for i, list := range inputs {
		u := contract.UserIO{Key: testKey(t, 1000+i).Public()}
		for _, in := range list {
			u.Inputs = append(u.Inputs, []byte(in))
		}
		run.Users = append(run.Users, u)
	}
	return run
}

// execute runs a program to its end, which must come in time.
func (b *bench) execute(t testing.TB, prog contract.Program, run contract.Run) contract.Result {
	t.Helper()
	return b.executeHooks(t, prog, run, contract.Hooks{})
}

func (b *bench) executeHooks(t testing.TB, prog contract.Program, run contract.Run, hooks contract.Hooks) contract.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	res, err := b.Execute(ctx, prog, run, hooks)
	if err != nil {
		t.Fatal(err)
	}
	if res.Canceled {
		t.Fatalf("the run did not end by itself; log:\n%s", b.log)
	}
	return res
}

// texts are the outputs of a result as text, by user.
func texts(res contract.Result) map[key.Public][]string {
	out := map[key.Public][]string{}
	for _, u := range res.Outputs {
		for _, m := range u.Messages {
			out[u.Key] = append(out[u.Key], string(m))
		}
	}
	return out
}

func (b *bench) logged(t testing.TB, want string) {
	t.Helper()
	if !strings.Contains(b.log.String(), want) {
		t.Errorf("log has no %q:\n%s", want, b.log)
	}
}
