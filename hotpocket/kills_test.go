package hotpocket

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/backend"
	"evernode/hotpocket/statefs/remote"
	"evernode/sdk/client"
)

var (
	kills        = flag.Int("kills", 200, "how many processes TestKillsAtRandom kills")
	seed         = flag.Uint64("seed", 0, "seed of TestKillsAtRandom; 0 takes a new one")
	stateBackend = flag.String("backend", "", "state backend of the tests with processes, fuse or dir")
)

// keepState is the word that makes the test binary a state's process.
const keepState = "keep-state"

// runState is the state's process: the arguments are those that a node appends.
func runState(args []string) int {
	f := flag.NewFlagSet(keepState, flag.ExitOnError)
	dir := f.String("dir", "", "")
	kind := f.String("backend", "", "")
	_ = f.Parse(args) // ends the process
	p := remote.Process{
		Dir: *dir,
		Open: func(ctx context.Context, c statefs.Config) (statefs.State, error) {
			return backend.Open(ctx, *kind, c)
		},
		Log: remote.ChildLog(os.Stderr),
	}
	if err := p.RunChild(context.Background()); err != nil {
		p.Log.Error("the state's process failed", "err", err)
		return 1
	}
	return 0
}

// children returns the processes whose parent is pid, with their command lines.
func children(pid int) map[int]string {
	found := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(f) < 2 || f[1] != strconv.Itoa(pid) {
			continue
		}
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		found[p] = strings.ReplaceAll(string(line), "\x00", " ")
	}
	return found
}

// victim finds a child of a node whose command line has a word; 0 when there is
// none at the moment.
func (p *process) victim(word string) int {
	for pid, line := range children(p.cmd.Process.Pid) {
		if strings.Contains(line, word) {
			return pid
		}
	}
	return 0
}

// scribes is a cluster of processes that run the scribe, with an oracle.
type scribes struct {
	*cluster
	ps     []*process
	oracle *oracle
	rand   *rand.Rand
	next   uint64
	killed map[string]int
}

func newScribes(t *testing.T, n int, bin string, seed uint64) *scribes {
	t.Helper()
	s := &scribes{oracle: newOracle(bin, t), rand: rand.New(rand.NewPCG(seed, uint64(n))), killed: map[string]int{}, next: seed % 1000 * 1000}
	s.cluster, s.ps = processesOf(t, n, bin, func(conf *config.Config) {
		conf.Contract.Consensus.Roundtime = 200 * time.Millisecond
		conf.Contract.Consensus.Mode = "public" // so that all inputs can be read back
		conf.Contract.MaxInputLedgerOffset = 200
	})
	return s
}

// agreed waits until the nodes have the state that the oracle has.
func (s *scribes) agreed(what string) {
	s.t.Helper()
	want := s.oracle.root(s.t).String()
	var of []*member
	for _, p := range s.ps {
		of = append(of, p.member)
	}
	s.eventually(what, func(all []control.Status) bool {
		for _, st := range all {
			if st.StateHash != want || st.VoteStatus != voteSynced || st.Trouble != "" {
				return false
			}
		}
		return true
	}, of...)
}

// input submits the next number through a node and waits until it is in a
// ledger.
func (s *scribes) input(u *user) {
	s.t.Helper()
	n := s.next
	s.next++
	u.reconnected()
	for until := time.Now().Add(30 * time.Second); ; {
		f := u.send(fmt.Sprint("do ", n), 20*time.Second)
		if f.err == nil {
			break
		}
		if f.hash != (client.Hash{}) || time.Now().After(until) {
			s.t.Fatalf("input %d: %v", n, f.err)
		}
		u.reconnected()
	}
	s.oracle.do(n)
}

// kill ends a process of a random node at a random moment, and starts a node
// again. It returns nil when there was no such process in time.
func (s *scribes) kill(kind string) (victim *process) {
	s.t.Helper()
	p := s.ps[s.rand.IntN(len(s.ps))]
	moment := time.Duration(s.rand.IntN(90)) * time.Millisecond
	if kind == "contract" {
		moment /= 3
	}
	if kind == "node" {
		time.Sleep(moment)
		if err := p.cmd.Process.Kill(); err != nil {
			s.t.Fatal(err)
		}
		_ = p.cmd.Wait() // killed
		p.launch()
		s.killed[kind]++
		return p
	}
	word := map[string]string{"state": keepState, "contract": "./contract"}[kind]
	time.Sleep(moment)
	for until := time.Now().Add(50 * time.Millisecond); ; {
		if pid := p.victim(word); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
			s.killed[kind]++
			return p
		}
		if time.Now().After(until) {
			return nil // the contract had done its work
		}
	}
}

// deadMounts lists mounts below a folder that do not answer.
func deadMounts(dir string) []string {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	var dead []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			if _, err := os.ReadDir(f[4]); err != nil {
				dead = append(dead, f[4]+": "+err.Error())
			}
		}
	}
	return dead
}

// The processes of a state, of nodes and of contracts are killed at random
// moments. After each the agreed state is what follows from the inputs, and
// nothing is left hanging.
func TestKillsAtRandom(t *testing.T) {
	from := *seed
	if from == 0 {
		from = rand.Uint64()%1e6 + 1
	}
	t.Logf("go test -run TestKillsAtRandom -seed %d -kills %d", from, *kills)
	bin := buildGo(t, "./testdata/scribe")
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n, " nodes"), func(t *testing.T) {
			t.Parallel()
			s := newScribes(t, n, bin, from)
			s.agreed("the first state")
			start := time.Now()
			users := make([]*user, n)
			kinds := []string{"state", "node"}
			if n > 1 {
				// Of a node that is alone, what a killed contract has left is the
				// agreed state.
				kinds = append(kinds, "contract")
			}
			for done := 0; done < *kills/2; {
				kind := kinds[s.rand.IntN(len(kinds))]
				if kind == "contract" || s.rand.IntN(4) > 0 {
					i := s.rand.IntN(n)
					if users[i] == nil {
						users[i] = s.ps[i].user()
					}
					s.input(users[i])
				}
				p := s.kill(kind)
				s.agreed(fmt.Sprintf("after %v with seed %d", s.killed, from))
				if p == nil {
					continue
				}
				done++
				if i := slices.Index(s.ps, p); kind == "node" && users[i] != nil {
					// A new user connects at once, an old one waits a moment.
					users[i].Close()
					users[i] = nil
				}
				if t.Failed() {
					return
				}
			}
			users[0] = s.ps[0].user()
			s.input(users[0])
			s.agreed("after everything")
			t.Logf("killed %v in %v", s.killed, time.Since(start).Round(time.Millisecond))
			for _, p := range s.ps {
				if dead := deadMounts(p.dir); len(dead) > 0 {
					t.Errorf("dead mounts: %v", dead)
				}
				if err := s.oracle.compare(filepath.Join(config.Layout(p.dir).ContractFS(), "mnt", "rw", "state")); err != nil {
					t.Errorf("node %s: %v", filepath.Base(p.dir), err)
				}
			}
			s.chains(bin, users[0])
		})
	}
}

// chains computes the state anew from the inputs in the ledgers of a node, and
// compares it with what every ledger says.
func (s *scribes) chains(bin string, u *user) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	last, err := u.LastLedger(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	o := newOracle(bin, s.t)
	roots := []string{o.root(s.t).String()} // after each ledger with inputs
	at, inputs := 0, 0
	for seq := uint64(1); seq <= last.SeqNo; seq++ {
		l, err := u.Ledger(ctx, seq, true, false)
		if err != nil {
			s.t.Fatalf("ledger %d: %v", seq, err)
		}
		is := l.StateHash.String()
		if i := slices.Index(roots[at:], is); i >= 0 {
			at += i
		} else {
			s.t.Fatalf("ledger %d has state %s, which does not follow from the inputs before it", seq, is)
		}
		slices.SortFunc(l.Inputs, func(a, b client.LedgerInput) int {
			if c := a.User.Compare(b.User); c != 0 {
				return c
			}
			return int(a.Nonce) - int(b.Nonce)
		})
		for _, in := range l.Inputs {
			n, err := strconv.ParseUint(strings.TrimPrefix(string(in.Blob), "do "), 10, 64)
			if err != nil {
				s.t.Fatalf("ledger %d: input %q", seq, in.Blob)
			}
			o.do(n)
			inputs++
		}
		if len(l.Inputs) > 0 {
			roots = append(roots, o.root(s.t).String())
		}
	}
	if got, want := roots[len(roots)-1], s.oracle.root(s.t).String(); got != want {
		s.t.Errorf("the ledgers' inputs lead to %s, the inputs that were accepted to %s", got, want)
	}
	s.t.Logf("%d ledgers with %d inputs lead to the agreed states", last.SeqNo, inputs)
}

// The process of a state is killed again and again while it fetches one, and
// while others read: the sync goes on where it was, and reads end.
func TestStateDiesDuringSync(t *testing.T) {
	bin := buildGo(t, "./testdata/scribe")
	for _, kind := range backends(t) {
		t.Run(kind, func(t *testing.T) {
			s := &scribes{oracle: newOracle(bin, t), next: 1}
			s.cluster, s.ps = processesOf(t, 3, bin, func(conf *config.Config) {
				conf.HPFS.Backend = kind
				conf.Contract.Consensus.Roundtime = 300 * time.Millisecond
			})
			s.agreed("the first state")
			u, late := s.ps[0].user(), s.ps[2]
			s.input(u)
			if err := late.end(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if f := u.send("fill 48", 20*time.Second); f.err != nil {
				t.Fatal(f.err)
			}
			s.oracle.files["fill"] = &oracleFile{kind: statefs.KindFile, mode: 0o644, data: make([]byte, 48<<20)}
			s.input(u)
			if err := os.RemoveAll(config.Layout(late.dir).ContractFS()); err != nil {
				t.Fatal(err)
			}
			late.launch()
			read := s.ps[1].user()
			answered := 0
			for i := range 8 {
				time.Sleep(time.Duration(30+20*i) * time.Millisecond)
				for _, p := range []*process{late, s.ps[1]} {
					if pid := p.victim(keepState); pid != 0 {
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
				}
				ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
				b, err := read.Read(ctx, []byte("ping 7"))
				if err == nil && string(b) == "done 7" {
					answered++
				}
				if ctx.Err() != nil {
					t.Error("a read request hangs")
				}
				cancel()
			}
			s.agreed("the late node has the state")
			if st, ok := s.ps[1].status(); !ok || st.StateRestarts < 4 {
				t.Errorf("the state's process was started again %d times", st.StateRestarts)
			}
			if answered < 4 {
				t.Errorf("%d of 8 read requests were answered", answered)
			}
			s.input(u)
			s.agreed("and goes on")
		})
	}
}
