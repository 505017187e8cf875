package volume

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

// scratch hashes a snapshot from its contents alone.
func scratch(t tb, s *Snapshot) digest.Hash {
	t.Helper()
	h, _, _ := scratchDir(t, s, s.Root())
	return h
}

func scratchDir(t tb, s *Snapshot, n *Node) (h digest.Hash, entries, size uint64) {
	t.Helper()
	var list []statefs.Entry
	must(t, n.ReadDir(0, func(_ int, name string, k *Node) bool {
		a := k.Attr()
		e := statefs.Entry{Name: name, Kind: a.Kind, Mode: uint16(a.Mode & permBits)}
		entries++
		switch a.Kind {
		case statefs.KindDir:
			var e2, b2 uint64
			e.Hash, e2, b2 = scratchDir(t, s, k)
			entries, size = entries+e2, size+b2
		case statefs.KindFile:
			data := content1(t, s, k)
			e.Size, e.Hash = uint64(len(data)), digest.Sum(data)
			size += e.Size
		case statefs.KindSymlink:
			var err error
			e.Link, err = k.Readlink()
			must(t, err)
		}
		list = append(list, e)
		return true
	}))
	node, _, err := statefs.EncodeDir(list, entries, size)
	must(t, err)
	return statefs.HashDir(node), entries, size
}

func content1(t tb, s *Snapshot, k *Node) []byte {
	t.Helper()
	f, err := s.Open(k)
	must(t, err)
	defer f.Close()
	data := make([]byte, k.Attr().Size+1)
	n, err := f.ReadAt(data, 0)
	must(t, err)
	if uint64(n) != k.Attr().Size {
		t.Fatalf("read %d of %d bytes", n, k.Attr().Size)
	}
	return data[:n]
}

// checkWhole verifies that a volume is what its agreed version says, everywhere,
// and that it keeps no objects that nobody needs.
func checkWhole(t tb, v *Volume) {
	t.Helper()
	if v.Damaged() {
		t.Fatal("the volume is damaged")
	}
	s, err := v.Snapshot()
	must(t, err)
	defer s.Close()
	if got := scratch(t, s); got != s.Version().Root || s.Version() != v.Agreed() {
		t.Fatalf("contents have root %s, agreed is %v", got.Short(), v.Agreed())
	}
	must(t, v.Begin(ctx, 1<<40))
	got, err := v.End(ctx)
	must(t, err)
	if got != v.Agreed().Root {
		t.Fatalf("an empty run ends with %s, agreed is %v", got.Short(), v.Agreed())
	}
	must(t, v.Rollback(ctx))
}

// fetchAll brings everything that a version of src consists of into a staging,
// as package statesync does over the network.
func fetchAll(t tb, src *Volume, st statefs.Staging, root digest.Hash) {
	t.Helper()
	object := func(kind statefs.RefKind, path string, h digest.Hash, i uint32) []byte {
		data, err := src.Object(ctx, statefs.Ref{Kind: kind, Path: path, Hash: h, Index: i})
		must(t, err)
		return data
	}
	var dir func(path string, h digest.Hash)
	entries := func(path string, list []statefs.Entry) {
		for _, e := range list {
			full := join(path, e.Name)
			switch {
			case e.Kind == statefs.KindDir:
				dir(full, e.Hash)
			case e.Kind == statefs.KindFile && !st.HasFile(e.Hash):
				if _, count := statefs.Groups(e.Size); count == 1 {
					must(t, st.PutFile(e.Hash, object(statefs.RefData, full, e.Hash, 0)))
					continue
				}
				f, err := st.OpenFile(ctx, full, e.Size, e.Hash, object(statefs.RefList, full, e.Hash, 0))
				must(t, err)
				for _, i := range f.Missing() {
					must(t, f.Put(i, object(statefs.RefData, full, e.Hash, i)))
				}
				must(t, f.Close())
			}
		}
	}
	dir = func(path string, h digest.Hash) {
		if st.HasTree(path, h) {
			return
		}
		data, ok := st.Node(h)
		if !ok {
			data = object(statefs.RefDir, path, h, 0)
			must(t, st.PutNode(statefs.RefDir, h, data))
		}
		l, err := statefs.DecodeDir(data)
		must(t, err)
		entries(path, l.Inline)
		for _, p := range l.Pages {
			page, ok := st.Node(p)
			if !ok {
				page = object(statefs.RefPage, path, p, 0)
				must(t, st.PutNode(statefs.RefPage, p, page))
			}
			list, err := statefs.DecodePage(page)
			must(t, err)
			entries(path, list)
		}
	}
	dir("", root)
}

func randomRun(rng *rand.Rand, v *Volume) {
	for range 1 + rng.IntN(25) {
		_, _ = randomOp(rng)(vol{v})
	}
}

const crashEnv = "VOLUME_TEST_CRASH"

// TestCrashChild is the process that is killed. It does what a node does: runs,
// of which it writes down those that are confirmed before it commits them,
// rollbacks, views, changed configurations, syncs, restarts.
func TestCrashChild(t *testing.T) {
	args := strings.Fields(os.Getenv(crashEnv))
	if len(args) != 3 {
		t.Skip("is run by TestKilledAnywhere")
	}
	dir := args[0]
	seed, _ := strconv.ParseUint(args[1], 10, 64)
	steps, _ := strconv.Atoi(args[2])
	rng := rand.New(rand.NewPCG(seed, 3))
	armed := steps > 0
	stepping := make(chan struct{}, 1)
	stepping <- struct{}{}
	cfg := Config{Dir: filepath.Join(dir, "vol"), Log: quiet(), Passthrough: true, failpoint: func(string) {
		<-stepping
		if steps--; armed && steps == 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		stepping <- struct{}{}
	}}
	ledger, err := os.OpenFile(filepath.Join(dir, "ledger"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	must(t, err)
	note := func(what string, v statefs.Version) {
		_, err := fmt.Fprintf(ledger, "%s %d %s %s\n", what, v.Seq, v.Root, v.Patch)
		must(t, err)
	}
	v, err := Open(ctx, cfg)
	must(t, err)
	other, err := Open(ctx, Config{Dir: filepath.Join(dir, fmt.Sprint("other", seed)), Log: cfg.Log})
	must(t, err)
	note("start", v.Agreed())
	var views []*Snapshot
	for seq := v.Agreed().Seq + 1; ; seq++ {
		switch rng.IntN(14) {
		case 0, 1:
			must(t, v.Begin(ctx, seq))
			randomRun(rng, v)
			if rng.IntN(2) == 0 {
				_, err = v.End(ctx)
				must(t, err)
			}
			must(t, v.Rollback(ctx))
		case 2:
			next := v.Agreed()
			patch := fmt.Append(nil, "patch", seq)
			next.Patch = statefs.HashPatch(patch)
			note("maybe", next)
			_, err := v.SetPatch(ctx, patch)
			must(t, err)
		case 3, 4:
			s, err := v.Snapshot()
			must(t, err)
			views = append(views, s)
		case 5:
			for _, s := range views {
				if got := scratch(t, s); got != s.Version().Root {
					t.Fatalf("a view of %v has root %s", s.Version(), got.Short())
				}
				s.Close()
			}
			views = nil
		case 6:
			must(t, v.Close())
			views = nil
			if v, err = Open(ctx, cfg); err != nil {
				t.Fatal(err)
			}
		case 7:
			must(t, other.Begin(ctx, seq))
			randomRun(rng, other)
			_, err = other.End(ctx)
			must(t, err)
			must(t, other.Commit(ctx, nil))
			next := other.Agreed()
			st, err := v.Stage(ctx)
			must(t, err)
			fetchAll(t, other, st, next.Root)
			note("maybe", next)
			must(t, st.Switch(ctx, next, nil))
			must(t, st.Close())
		default:
			must(t, v.Begin(ctx, seq))
			randomRun(rng, v)
			root, err := v.End(ctx)
			must(t, err)
			var patch []byte
			next := statefs.Version{Seq: seq, Root: root}
			if rng.IntN(2) == 0 {
				patch = v.Patch()
				if patch != nil {
					next.Patch = statefs.HashPatch(patch)
				}
			}
			note("commit", next)
			must(t, v.Commit(ctx, patch))
		}
	}
}

type ledgerLine struct {
	what string
	v    statefs.Version
}

func readLedger(t tb, path string) (lines []ledgerLine) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	must(t, err)
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		var l ledgerLine
		var root, patch string
		if n, _ := fmt.Sscanf(sc.Text(), "%s %d %s %s", &l.what, &l.v.Seq, &root, &patch); n != 4 {
			break
		}
		l.v.Root, err = digest.Parse(root)
		must(t, err)
		l.v.Patch, err = digest.Parse(patch)
		must(t, err)
		lines = append(lines, l)
	}
	return lines
}

// A process killed between any two steps leaves the last agreed version whole,
// and what the ledger confirmed is there.
func TestKilledAnywhere(t *testing.T) {
	if os.Getenv(crashEnv) != "" {
		t.Skip("this is the child")
	}
	rounds := 60
	if testing.Short() {
		rounds = 8
	}
	if s := os.Getenv("VOLUME_TEST_KILLS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 5))
	dir := t.TempDir()
	otherBoot := 0
	for round := range rounds {
		seed := rng.Uint64()
		steps := 1 + rng.IntN(150)
		byTime := round%4 == 3
		if byTime {
			steps = 0
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", crashEnv, dir, seed, steps))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		must(t, cmd.Start())
		timeout := 20 * time.Second
		if byTime {
			timeout = time.Duration(20+rng.IntN(200)) * time.Millisecond
		}
		timer := time.AfterFunc(timeout, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("round %d (seed %d, %d steps): the child ended by itself: %v\n%s", round, seed, steps, err, out.String())
		}
		must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprint("other", seed))))
		lines := readLedger(t, dir+"/ledger")
		cfg := Config{Dir: dir + "/vol", Log: quiet(), Passthrough: true}
		last := len(lines) - 1
		tell := last > 0 && lines[last].what == "commit" && rng.IntN(2) == 0
		if tell {
			cfg.Confirmed = &lines[last].v
		}
		if rng.IntN(4) == 0 {
			// As if the whole machine had gone down, which cost nothing.
			otherBoot++
			cfg.boot = "another"
		}
		v, err := Open(ctx, cfg)
		if err != nil {
			t.Fatalf("round %d (seed %d, %d steps): %v", round, seed, steps, err)
		}
		got := v.Agreed()
		ok := last < 0
		for i := max(0, last-1); i <= last; i++ {
			ok = ok || got == lines[i].v
		}
		if tell {
			ok = got == lines[last].v
		}
		if !ok {
			t.Fatalf("round %d (seed %d, %d steps): agreed is %v, the ledger ends with %v, confirmed %v", round, seed, steps, got, lines[max(0, last-2):], tell)
		}
		checkWhole(t, v)
		must(t, v.Close())
		checkObjects(t, dir+"/vol")
		os.Remove(dir + "/ledger")
	}
	t.Logf("%d kills, after %d of them another boot", rounds, otherBoot)
}

// checkObjects verifies that a closed volume holds exactly the objects that its
// version needs.
func checkObjects(t tb, dir string) {
	t.Helper()
	v, err := Open(ctx, Config{Dir: dir, Log: quiet()})
	must(t, err)
	defer v.Close()
	v.sweep.stop()
	want := make(map[uint64]bool)
	for id := range v.stage.objects() {
		want[id] = true
	}
	must(t, eachFile(v.agreed.root, "", func(_ string, n *node) error {
		n.objects(func(id, _ uint64) {
			if want[id] {
				t.Fatalf("object %x is used twice", id)
			}
			want[id] = true
		})
		return nil
	}))
	for id := range want {
		want[objectOf(id)] = true
	}
	must(t, v.store.list(func(_ int, name string) error {
		id, err := strconv.ParseUint(strings.TrimSuffix(name, sideSuffix), 16, 64)
		must(t, err)
		if !want[id] {
			t.Fatalf("object %s is left over", name)
		}
		return nil
	}))
}
