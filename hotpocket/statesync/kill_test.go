package statesync

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"evernode/hotpocket/key"
	"evernode/hotpocket/mesh"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

// counted counts the bytes of files that are served, and calls at once they
// reach limit.
type counted struct {
	Source
	served atomic.Int64
	limit  atomic.Int64
	at     chan struct{}
}

func (c *counted) Object(ctx context.Context, ref statefs.Ref) ([]byte, error) {
	data, err := c.Source.Object(ctx, ref)
	if err == nil && ref.Kind == statefs.RefData {
		if n := c.served.Add(int64(len(data))); n >= c.limit.Load() && n-int64(len(data)) < c.limit.Load() {
			c.at <- struct{}{}
		}
	}
	return data, err
}

const (
	envChild = "STATESYNC_TEST_CHILD" // folder, peer address, root
	childRan = "the state is here"
)

// TestChild is not a test: it is the process that TestKilledInTheMiddle kills.
func TestChild(t *testing.T) {
	args := strings.Fields(os.Getenv(envChild))
	if len(args) != 3 {
		t.Skip("only runs as a child of another test")
	}
	root, err := digest.Parse(args[2])
	must(t, err)
	d, err := statefs.OpenDir(bg, statefs.Config{Dir: args[0], Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	k, err := key.Generate()
	must(t, err)
	l := &loop{ups: make(chan key.Public, 4)}
	l.mesh, err = mesh.New(mesh.Config{Key: k, ContractID: "sync", KnownPeers: args[1:2]}, l, slog.New(slog.DiscardHandler))
	must(t, err)
	ctx, cancel := context.WithTimeout(bg, time.Minute)
	defer cancel()
	go l.mesh.Run(ctx)
	c := NewClient(Config{State: d, Transport: l, Peers: l.peers})
	if _, err := c.Sync(ctx, statefs.Version{Seq: 1, Root: root}); err != nil {
		t.Fatal(err)
	}
	must(t, d.Close())
	fmt.Println(childRan)
}

// A node is killed in the middle of a large file, twice. What it had fetched is
// not fetched again.
func TestKilledInTheMiddle(t *testing.T) {
	const size = 80 << 20
	src := newNode(t, func(dir string) { writeRandom(t, dir+"/large", size, 7) })
	served := &counted{Source: src.Dir, at: make(chan struct{}, 1)}
	k, err := key.Generate()
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l := &loop{ups: make(chan key.Public, 16), server: NewServer(ServerConfig{State: served})}
	l.mesh, err = mesh.New(mesh.Config{Key: k, ContractID: "sync", Listener: listener}, l, slog.New(slog.DiscardHandler))
	must(t, err)
	ctx, cancel := context.WithCancel(bg)
	ended := make(chan struct{})
	go func() { defer close(ended); l.mesh.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })

	dir := t.TempDir()
	start := func() (*exec.Cmd, *bufio.Reader) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
		cmd.Env = append(os.Environ(), envChild+"="+fmt.Sprint(dir, " ", listener.Addr(), " ", src.Agreed().Root))
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd, bufio.NewReader(out)
	}
	kills := 0
	for _, limit := range []int64{size / 4, size / 2} {
		served.limit.Store(limit)
		cmd, _ := start()
		select {
		case <-served.at:
			must(t, cmd.Process.Kill())
			cmd.Wait()
			kills++
		case <-time.After(30 * time.Second):
			t.Fatalf("only %d bytes were asked for", served.served.Load())
		}
	}
	served.limit.Store(1 << 62)
	cmd, out := start()
	said := ""
	for {
		line, err := out.ReadString('\n')
		said += line
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said, childRan) {
		t.Fatalf("the last process: %v, %s", err, said)
	}
	// What was under way to a process when it was killed may be lost.
	n := served.served.Load()
	t.Logf("killed %d times; %d bytes of a file of %d were served", kills, n, size)
	if lost := int64(kills) * (maxFlight + 8<<20); n > size+lost || n < size {
		t.Errorf("%d bytes were served, want at most %d + %d", n, size, lost)
	}
	b := &node{path: dir}
	b.open(t)
	defer b.Close()
	if x, y := tree(t, src.state()), tree(t, b.state()); x != y {
		t.Errorf("folders differ:\n%s\n%s", x, y)
	}
}
