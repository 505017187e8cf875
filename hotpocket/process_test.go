package hotpocket

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/contract"
	"evernode/hotpocket/control"
)

// nodeFolder is the variable that makes the test binary run a node.
const nodeFolder = "HOTPOCKET_TEST_NODE"

// leapVariable is the variable with tuning.leapFrom of that node.
const leapVariable = "HOTPOCKET_TEST_LEAP"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == keepState {
		os.Exit(runState(os.Args[2:]))
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		fmt.Fprintln(os.Stderr, "this is a test binary; it knows no", os.Args[1])
		os.Exit(2)
	}
	if dir := os.Getenv(nodeFolder); dir != "" {
		os.Exit(runNode(dir))
	}
	os.Exit(m.Run())
}

func runNode(dir string) int {
	if err := contract.CloseOnExecAll(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var tune tuning
	if n, err := strconv.ParseUint(os.Getenv(leapVariable), 10, 64); err == nil {
		tune.leapFrom = n
	}
	state := StateOptions{Command: []string{"/proc/self/exe", keepState}}
	if err := Run(ctx, dir, Options{Version: "test", Log: log, State: state, tune: tune}); err != nil {
		log.Error("node failed", "err", err)
		return 1
	}
	return 0
}

// process is a node in a process of its own.
type process struct {
	*member
	cmd *exec.Cmd
	out *os.File
}

func (p *process) launch() {
	p.c.t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), nodeFolder+"="+p.dir, fmt.Sprint(leapVariable, "=", p.c.tune.leapFrom))
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		p.c.t.Fatal(err)
	}
}

// end sends a signal and waits for the process.
func (p *process) end(sig os.Signal) error {
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("node %s was gone before: %w", filepath.Base(p.dir), err)
	}
	err := p.cmd.Wait()
	p.cmd = nil
	return err
}

func processes(t *testing.T, n int, change func(*config.Config)) (*cluster, []*process) {
	t.Helper()
	return processesOf(t, n, trial(t), change)
}

func processesOf(t *testing.T, n int, bin string, change func(*config.Config)) (*cluster, []*process) {
	t.Helper()
	c := makeCluster(t, n, n, bin, func(_ int, conf *config.Config) {
		full(conf)
		if *stateBackend != "" {
			conf.HPFS.Backend = *stateBackend
		}
		conf.Contract.Consensus.Roundtime = 300 * time.Millisecond
		if change != nil {
			change(conf)
		}
	})
	return c, c.processes()
}

// processes starts all nodes of a cluster, each in a process of its own.
func (c *cluster) processes() []*process {
	t := c.t
	t.Helper()
	var ps []*process
	for _, m := range c.nodes {
		out, err := os.Create(filepath.Join(filepath.Dir(m.dir), filepath.Base(m.dir)+".log"))
		if err != nil {
			t.Fatal(err)
		}
		p := &process{member: m, out: out}
		ps = append(ps, p)
		p.launch()
	}
	t.Cleanup(func() {
		for _, p := range ps {
			if err := p.end(syscall.SIGTERM); err != nil {
				t.Errorf("node %s did not stop cleanly: %v", filepath.Base(p.dir), err)
			}
			p.out.Close()
			if t.Failed() {
				b, _ := os.ReadFile(p.out.Name())
				t.Logf("log of node %s:\n%s", filepath.Base(p.dir), b[max(0, len(b)-20000):])
				if keep := os.Getenv("HOTPOCKET_TEST_KEEP"); keep != "" {
					_ = os.WriteFile(filepath.Join(keep, filepath.Base(p.dir)+".log"), b, 0o644)
				}
			}
		}
	})
	c.inStep("ledgers close", 1, c.nodes...)
	return ps
}

// Real processes are killed at random moments, some alone, some all at once,
// under the inputs of users on all of them.
func TestKilledProcesses(t *testing.T) {
	for _, n := range []int{1, 3, 4} {
		t.Run(fmt.Sprint(n, " nodes"), func(t *testing.T) {
			t.Parallel()
			c, ps := processes(t, n, nil)
			stop := make(chan struct{})
			wait := c.traffic(stop, c.nodes...)
			kill := func(of ...*process) {
				time.Sleep(time.Duration(50+rand.IntN(500)) * time.Millisecond)
				for _, p := range of {
					if err := p.cmd.Process.Kill(); err != nil {
						t.Errorf("node %s was gone before: %v", filepath.Base(p.dir), err)
					}
				}
				for _, p := range of {
					_ = p.cmd.Wait() // killed
					p.launch()
				}
			}
			for range 4 {
				kill(ps...)
				for range 3 {
					kill(ps[rand.IntN(n)])
				}
			}
			time.Sleep(300 * time.Millisecond)
			close(stop)
			fates := wait()
			kill(ps...)
			c.inStep("all are in step after all were killed", 0, c.nodes...)
			c.healthy(c.nodes...)
			c.verify(fates, c.nodes...)
		})
	}
}

// All are killed while a contract has been running for many heartbeats: the run
// begins anew, and nothing is lost or done twice.
func TestAllKilledDuringALongRun(t *testing.T) {
	t.Parallel()
	c, ps := processes(t, 3, func(conf *config.Config) { conf.Contract.Consensus.Roundtime = 30 * time.Millisecond })
	u := c.nodes[0].user()
	f := u.send("sleep 2500", 10*time.Second)
	if f.err != nil {
		t.Fatal(f.err)
	}
	c.eventually("many heartbeats pass", func(all []control.Status) bool {
		return all[0].LedgerSeqNo > f.ref.SeqNo+2*trimEvery/3
	}, c.nodes...)
	for _, p := range ps {
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range ps {
		_ = p.cmd.Wait() // killed
		p.launch()
	}
	u.reconnected()
	g := c.nodes[1].user().send("after", 15*time.Second)
	if g.err != nil {
		t.Fatal(g.err)
	}
	c.inStep("in step", g.ref.SeqNo+1, c.nodes...)
	c.verify([]fate{f, g}, c.nodes...)
}

// A node that was frozen for a while catches up, and still answers its users.
func TestFrozenNodeAnswersItsUsers(t *testing.T) {
	t.Parallel()
	c, ps := processes(t, 4, func(conf *config.Config) {
		conf.Contract.Consensus.Roundtime = 200 * time.Millisecond
		conf.Contract.MaxInputLedgerOffset = 100
	})
	stop := make(chan struct{})
	wait := c.traffic(stop, c.nodes...)
	for i := range 3 {
		p := ps[i]
		if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	close(stop)
	fates := wait()
	c.inStep("all are in step", 0, c.nodes...)
	c.healthy(c.nodes...)
	c.verify(fates, c.nodes...)
}
