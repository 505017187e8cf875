package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/mount"
)

const (
	// Every measurement is the best of so many; short ones of more.
	stateRounds = 7
	stateShort  = 15

	stateLarge    = 512
	stateSmall    = 64
	stateExisting = 256
	stateFiles    = 10_000
	stateRandom   = 20_000
	stateRewrite  = 100
)

// ground is a folder to work in: one of the disk, or one that a process of its
// own serves.
type ground struct {
	name string
	dir  string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// runState measures what a contract sees of its folder, beside the disk below it
// and beside go-fuse's own example of a file system.
func (b *bench) runState(ctx context.Context) error {
	dir, err := os.MkdirTemp(filepath.Dir(b.cluster.nodes[0].dir), "state")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(statefs.Release(dir+"/"+serveOurs), os.RemoveAll(dir)) }()
	native := &ground{name: "native", dir: dir + "/native"}
	if err := os.Mkdir(native.dir, 0o755); err != nil {
		return err
	}
	// The processes that serve the others end with this one, and take their
	// mounts along.
	grounds := []*ground{native}
	defer func() {
		for _, g := range grounds {
			g.close()
		}
	}()
	for _, kind := range []string{serveOurs, serveLoopback, serveLoopbackPassthrough} {
		g, err := startGround(ctx, kind, filepath.Join(dir, kind))
		if errors.Is(err, mount.ErrUnavailable) {
			b.report.note("The state folder is not measured: %v", err)
			return nil
		}
		if err != nil {
			return err
		}
		grounds = append(grounds, g)
	}
	s := &stateBench{b: b, native: native, ours: grounds[1], loopback: grounds[2], passthrough: grounds[3]}
	for _, part := range []func(context.Context) error{s.stream, s.smallCalls, s.files, s.random, s.roots} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	b.report.note("The state folder: every figure is the best of %d or more, taken in turns in one file system; before each, the disk is flushed and the serving process has nothing left to do. Peers are the plain folder and go-fuse's loopback example, each served by a process of its own, as our state is.", stateRounds)
	return nil
}

// startGround starts a process that serves a folder.
func startGround(ctx context.Context, kind, dir string) (*ground, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	g := &ground{name: strings.ReplaceAll(kind, "-", " "), cmd: exec.CommandContext(ctx, self, stateServeCommand, kind, dir)}
	g.cmd.Cancel = func() error { return g.in.Close() }
	g.cmd.WaitDelay = 10 * time.Second
	var errs strings.Builder
	g.cmd.Stderr = io.MultiWriter(os.Stderr, &errs)
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	g.out = bufio.NewReader(out)
	line, err := g.out.ReadString('\n')
	if err != nil {
		g.close()
		if strings.Contains(errs.String(), mount.ErrUnavailable.Error()) {
			return nil, mount.ErrUnavailable
		}
		return nil, fmt.Errorf("serve a folder of kind %s: %w", kind, err)
	}
	g.dir = strings.TrimSuffix(line, "\n")
	return g, nil
}

func (g *ground) close() {
	if g.cmd == nil {
		return
	}
	g.in.Close()
	_ = g.cmd.Wait()
}

// work does something in the folder, in a process of its own.
func (g *ground) work(ctx context.Context, kind string, n int) (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, stateWorkCommand, kind, g.dir, strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s in the folder %s: %w", kind, g.name, err)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return time.Duration(ns), err
}

// idle waits until the process that serves the folder has done what it put off,
// as removing what was deleted before.
func (g *ground) idle(ctx context.Context) error {
	if g.cmd == nil {
		return nil
	}
	var last usage
	for quiet := 0; quiet < 3; {
		u, err := usageOf(g.cmd.Process.Pid)
		if err != nil {
			return err
		}
		if u.minus(last).all() > tick {
			quiet = 0
		} else {
			quiet++
		}
		last = u
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// end ends the run that is open in ours and begins the next.
func (g *ground) end() (root, commit time.Duration, err error) {
	if _, err := io.WriteString(g.in, "end\n"); err != nil {
		return 0, 0, err
	}
	line, err := g.out.ReadString('\n')
	if err != nil {
		return 0, 0, err
	}
	var a, c int64
	if _, err := fmt.Sscan(line, &a, &c); err != nil {
		return 0, 0, err
	}
	return time.Duration(a), time.Duration(c), nil
}

// stateBench measures one thing after the other.
type stateBench struct {
	b                                   *bench
	native, ours, loopback, passthrough *ground
}

func (s *stateBench) all() []*ground {
	return []*ground{s.native, s.loopback, s.passthrough, s.ours}
}

// best does the same work in all folders, in turns, and returns the shortest time
// of each. before, when not nil, prepares a folder.
func (s *stateBench) best(ctx context.Context, kind string, n, rounds int, before func(*ground) error) (map[*ground]float64, error) {
	best := make(map[*ground]float64)
	for round := range rounds {
		for _, g := range s.all() {
			s.b.progress("%s in the folder %s, %d of %d", kind, g.name, round+1, rounds)
			if before != nil {
				if err := before(g); err != nil {
					return nil, err
				}
			}
			if err := g.idle(ctx); err != nil {
				return nil, err
			}
			syscall.Sync()
			took, err := g.work(ctx, kind, n)
			if err != nil {
				return nil, err
			}
			if t := took.Seconds(); round == 0 || t < best[g] {
				best[g] = t
			}
		}
	}
	return best, nil
}

func (s *stateBench) clear(ctx context.Context) func(*ground) error {
	return func(g *ground) error {
		_, err := g.work(ctx, "clear", 0)
		return err
	}
}

// rates adds a row for ours and, without a target, for the examples, each beside
// the native folder.
func (s *stateBench) rates(what, unit string, amount float64, best map[*ground]float64) *measurement {
	for _, g := range []*ground{s.loopback, s.passthrough} {
		s.b.report.add("state: "+what+", "+g.name, amount/best[g], unit).beside(amount/best[s.native], "(native)")
	}
	return s.b.report.add("state: "+what, amount/best[s.ours], unit).beside(amount/best[s.native], "(native)")
}

// stream writes and reads a large file in large calls.
func (s *stateBench) stream(ctx context.Context) error {
	best, err := s.best(ctx, "write", stateLarge, stateShort, s.clear(ctx))
	if err != nil {
		return err
	}
	s.rates("write 512 MB", "MB/s", stateLarge*1.048576, best).must(&target{limit: 0.9, least: true, of: true})
	if best, err = s.best(ctx, "read", 0, stateShort, nil); err != nil {
		return err
	}
	s.rates("read 512 MB", "MB/s", stateLarge*1.048576, best).must(&target{limit: 0.9, least: true, of: true})
	return nil
}

func (s *stateBench) smallCalls(ctx context.Context) error {
	best, err := s.best(ctx, "write-small", stateSmall, stateShort, s.clear(ctx))
	if err != nil {
		return err
	}
	s.rates("write a new file in 4 KB calls", "MB/s", stateSmall*1.048576, best).must(&target{limit: 0.5, least: true, of: true})
	return nil
}

// files creates many small files and looks at them.
func (s *stateBench) files(ctx context.Context) error {
	best, err := s.best(ctx, "create", stateFiles, stateRounds, s.clear(ctx))
	if err != nil {
		return err
	}
	s.rates("create 10,000 files of 1 KB", "files/s", stateFiles, best)
	s.b.report.add("state: create 10,000 files of 1 KB, beside loopback", stateFiles/best[s.ours], "files/s").
		beside(stateFiles/best[s.loopback], "(loopback)").must(&target{limit: 2, least: true, of: true})
	if best, err = s.best(ctx, "stat", stateFiles, stateShort, nil); err != nil {
		return err
	}
	s.rates("stat of a warm tree", "files/s", stateFiles, best).must(&target{limit: 0.8, least: true, of: true})
	return nil
}

// random writes here and there into a file that is there before the run, in ours
// as part of the agreed state.
func (s *stateBench) random(ctx context.Context) error {
	for _, g := range s.all() {
		if _, err := g.work(ctx, "existing", stateExisting); err != nil {
			return err
		}
	}
	best, err := s.best(ctx, "random", stateRandom, stateRounds, func(g *ground) error {
		if g != s.ours {
			return nil
		}
		_, _, err := g.end()
		return err
	})
	if err != nil {
		return err
	}
	s.rates("random 4 KB writes into 256 MB", "calls/s", stateRandom, best)
	s.b.report.add("state: random 4 KB writes into 256 MB, beside loopback", stateRandom/best[s.ours], "calls/s").
		beside(stateRandom/best[s.loopback], "(loopback)").must(&target{limit: 1, least: true, of: true})
	return nil
}

// roots measures the end of a run after small and large changes.
func (s *stateBench) roots(ctx context.Context) error {
	g := s.ours
	if _, _, err := g.end(); err != nil {
		return err
	}
	touched, rewritten, commit := math.Inf(1), math.Inf(1), math.Inf(1)
	var all samples
	for i := range 3 * stateRounds {
		if _, err := g.work(ctx, "touch", i*131%stateFiles); err != nil {
			return err
		}
		root, done, err := g.end()
		if err != nil {
			return err
		}
		all = append(all, root)
		touched, commit = min(touched, root.Seconds()), min(commit, done.Seconds())
	}
	s.b.report.add("state: root after touching one file of 10,000, best", touched*1e3, "ms").must(atMost(2))
	s.b.report.add("state: root after touching one file of 10,000, p50", all.quantile(.5), "ms").must(atMost(2))
	s.b.report.add("state: commit of that, and begin of the next run", commit*1e3, "ms")
	hash := math.Inf(1)
	for range stateRounds {
		if _, err := g.work(ctx, "write-small", stateRewrite); err != nil {
			return err
		}
		root, _, err := g.end()
		if err != nil {
			return err
		}
		rewritten = min(rewritten, root.Seconds())
		hash = min(hash, hashAll(stateRewrite<<20).Seconds())
	}
	s.b.report.add("state: root after rewriting 100 MB", rewritten*1e3, "ms").
		beside(hash*1e3, "(BLAKE3 of it in memory, all cores)").must(&target{limit: 1.3, of: true})
	return nil
}

// hashAll hashes so many bytes of memory on all cores.
func hashAll(size int) time.Duration {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 11)
	}
	group, count := statefs.Groups(uint64(size))
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				from := uint64(i) * group
				statefs.GroupValue(uint64(size), i, data[from:min(from+group, uint64(size))])
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}
