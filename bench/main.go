// Command bench measures a cluster of four real nodes on this machine and prints
// a table beside what must hold and beside what the same machine does at best
// without us.
//
// `make bench` runs it. It builds the node program and a contract in C, starts
// the nodes in a folder of its own under the system's folder for temporary
// files, plays all their users itself, and leaves neither process nor file
// behind, also when it is interrupted. With -profile it runs the nodes from its
// own program, which adds what the shipped one has not: profiles over HTTP. It
// measures from outside and changes nothing in a node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"evernode/hotpocket/config"
	"evernode/internal/usermsg"
)

const (
	nodes       = 4
	roundtime   = time.Second
	payloadSize = 100
	// farLedger is further than any run gets.
	farLedger = 1 << 40
)

// section is a part of the bench.
type section struct {
	name  string
	about string
	run   func(*bench, context.Context) error
}

var sections = []section{
	{"read", "read requests", (*bench).runRead},
	{"lone", "inputs one at a time", (*bench).runLone},
	{"idle", "processor and memory without users", (*bench).runIdle},
	{"load", "many inputs of many users", (*bench).runLoad},
	{"sync", "getting a state from peers", (*bench).runSync},
	{"state", "the folder of the state", (*bench).runState},
	{"dead", "read requests and lone inputs with one node dead", (*bench).runDead},
}

// bench is one run.
type bench struct {
	report   report
	cluster  *cluster
	floor    *floor
	protocol usermsg.Protocol
	steps    []step
	nonce    uint64
	profiles *profiles // nil without -profile
	loneDone []loneInput
	loadDone []*outcome
	terminal bool
	shown    time.Time
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == nodeCommand {
		os.Exit(runNode(os.Args[2]))
	}
	if code, ok := runStateChild(os.Args[1:]); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, stop)
	stop()
	os.Exit(code)
}

type flags struct {
	sections, bin, json, steps, protocol, profile string
	long, enforce, keep                           bool
}

func parseFlags() (*flags, error) {
	f := new(flags)
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	flag.StringVar(&f.sections, "run", strings.Join(names, ","), "what to measure")
	flag.StringVar(&f.bin, "bin", "", "the node program; built when not given")
	flag.StringVar(&f.json, "json", "bench.json", "where to write the results as JSON; empty: nowhere")
	flag.StringVar(&f.steps, "load", "2000x5,5500x20,8000x8,11000x8", "rates of load, as inputs per second x seconds, rising")
	flag.StringVar(&f.protocol, "protocol", "bson", "form of the users' messages, json or bson")
	flag.StringVar(&f.profile, "profile", "", "folder for profiles and stage times of the nodes, which then run from this program")
	flag.BoolVar(&f.long, "long", false, "ten minutes of load at 5500 inputs per second, for the memory")
	flag.BoolVar(&f.enforce, "enforce", false, "exit with 1 when something that must hold does not")
	flag.BoolVar(&f.keep, "keep", false, "keep the nodes' folders")
	flag.Parse()
	if flag.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if f.long {
		f.steps = "5500x600"
	}
	return f, nil
}

// chosen returns the sections that -run names, in their own order.
func chosen(names string) ([]section, error) {
	want := strings.Split(names, ",")
	var out []section
	for _, s := range sections {
		if i := slices.Index(want, s.name); i >= 0 {
			out = append(out, s)
			want = slices.Delete(want, i, i+1)
		}
	}
	if len(want) > 0 {
		return nil, fmt.Errorf("-run: there is no section %q", want[0])
	}
	return out, nil
}

func parseSteps(text string) ([]step, error) {
	var out []step
	for part := range strings.SplitSeq(text, ",") {
		rate, last, _ := strings.Cut(part, "x")
		r, err := strconv.Atoi(rate)
		d, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || r < 1 || r > 1_000_000 || d < 1 || d > 3600 {
			return nil, fmt.Errorf("-load: %q is not a rate and seconds, as 5000x20", part)
		}
		out = append(out, step{r, time.Duration(d) * time.Second})
	}
	return out, nil
}

func run(ctx context.Context, restoreSignals func()) int {
	f, err := parseFlags()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	// A second Ctrl-C ends this at once; the nodes end with it.
	context.AfterFunc(ctx, restoreSignals)
	b := &bench{terminal: isTerminal(os.Stderr)}
	err = b.all(ctx, f)
	if len(b.report.rows) > 0 {
		b.clearLine()
		b.report.table(os.Stdout)
		if f.json != "" && err == nil {
			err = b.report.writeJSON(f.json)
		}
	}
	switch {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bench: stopped; nothing is left behind")
		return 130
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	if missed := b.report.missed(); f.enforce && len(missed) > 0 {
		fmt.Fprintln(os.Stderr, "bench: missed:\n  "+strings.Join(missed, "\n  "))
		return 1
	}
	return 0
}

func (b *bench) all(ctx context.Context, f *flags) (err error) {
	todo, err := chosen(f.sections)
	if err != nil {
		return err
	}
	if b.steps, err = parseSteps(f.steps); err != nil {
		return err
	}
	if b.protocol, err = usermsg.ParseProtocol(f.protocol); err != nil {
		return err
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	removeStale()
	dir, err := os.MkdirTemp("", folderPrefix)
	if err != nil {
		return err
	}
	// Says to later runs that this one still lives.
	lock, err := config.Acquire(dir)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		b.cluster.stop()
		err = errors.Join(err, lock.Release())
		if f.keep {
			b.say("the nodes' folders are in %s; remove it when you are done", dir)
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, keptNote), nil, 0o644))
			return
		}
		err = errors.Join(err, remove(dir))
	}()
	b.say("building")
	var command []string
	if f.profile != "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		f.bin = self // nothing to build
		command = []string{self, nodeCommand}
	}
	node, contract, err := build(ctx, dir, root, f.bin)
	if err != nil {
		return err
	}
	if command == nil {
		command = []string{node, "node", "run"}
	}
	if b.cluster, err = newCluster(dir, nodes, contract, f.profile != ""); err != nil {
		return err
	}
	if f.profile != "" {
		if b.profiles, err = newProfiles(f.profile, b.cluster); err != nil {
			return err
		}
	}
	if b.floor, err = newFloor(ctx, dir, contract, b.cluster.nodes[0].dir); err != nil {
		return err
	}
	defer b.floor.close()
	b.say("starting %d nodes in %s", nodes, dir)
	if err := b.cluster.start(ctx, command); err != nil {
		return err
	}
	b.report.note("%d node processes, the contract %s, all users and this program share the processors of this machine; roundtime %v, threshold 66 %%.",
		nodes, filepath.Join("examples", "echo-c"), roundtime)
	for _, s := range todo {
		b.say("%s: %s", s.name, s.about)
		stop := b.profiles.begin(ctx, s.name)
		err := s.run(b, ctx)
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if b.profiles == nil {
		return nil
	}
	return b.stages()
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// say prints a line that stays.
func (b *bench) say(format string, args ...any) {
	b.clearLine()
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// progress shows where it is: on a terminal in a line of its own, elsewhere now
// and then.
func (b *bench) progress(format string, args ...any) {
	every := 5 * time.Second
	if b.terminal {
		every = 100 * time.Millisecond
	}
	if time.Since(b.shown) < every {
		return
	}
	b.shown = time.Now()
	if b.terminal {
		fmt.Fprintf(os.Stderr, "\r\033[K  "+format, args...)
		return
	}
	fmt.Fprintf(os.Stderr, "  "+format+"\n", args...)
}

func (b *bench) clearLine() {
	if b.terminal {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
}
