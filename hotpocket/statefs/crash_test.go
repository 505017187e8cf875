package statefs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"evernode/internal/digest"
)

// fetchAll brings everything that a version of src consists of into a staging,
// as package statesync does over the network.
func fetchAll(t tb, src *Dir, st Staging, root digest.Hash) {
	t.Helper()
	object := func(kind RefKind, path string, h digest.Hash, i uint32) []byte {
		data, err := src.Object(ctx, Ref{Kind: kind, Path: path, Hash: h, Index: i})
		must(t, err)
		return data
	}
	var dir func(path string, h digest.Hash)
	entries := func(path string, list []Entry) {
		for _, e := range list {
			full := join(path, e.Name)
			switch {
			case e.Kind == KindDir:
				dir(full, e.Hash)
			case e.Kind == KindFile && !st.HasFile(e.Hash):
				if _, count := Groups(e.Size); count == 1 {
					must(t, st.PutFile(e.Hash, object(RefData, full, e.Hash, 0)))
					continue
				}
				f, err := st.OpenFile(ctx, full, e.Size, e.Hash, object(RefList, full, e.Hash, 0))
				must(t, err)
				for _, i := range f.Missing() {
					must(t, f.Put(i, object(RefData, full, e.Hash, i)))
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
			data = object(RefDir, path, h, 0)
			must(t, st.PutNode(RefDir, h, data))
		}
		l, err := DecodeDir(data)
		must(t, err)
		entries(path, l.Inline)
		for _, p := range l.Pages {
			page := object(RefPage, path, p, 0)
			must(t, st.PutNode(RefPage, p, page))
			list, err := DecodePage(page)
			must(t, err)
			entries(path, list)
		}
	}
	dir("", root)
}

const crashEnv = "STATEFS_TEST_CRASH"

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
	cfg := Config{Dir: filepath.Join(dir, "fs"), Log: slog.New(slog.DiscardHandler), failpoint: func(string) {
		if steps--; armed && steps == 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}}
	ledger, err := os.OpenFile(filepath.Join(dir, "ledger"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	must(t, err)
	note := func(what string, v Version) {
		_, err := fmt.Fprintf(ledger, "%s %d %s %s\n", what, v.Seq, v.Root, v.Patch)
		must(t, err)
	}
	d, err := OpenDir(ctx, cfg)
	must(t, err)
	other, err := OpenDir(ctx, Config{Dir: filepath.Join(dir, fmt.Sprint("other", seed)), Log: cfg.Log})
	must(t, err)
	note("start", d.Agreed())
	var views []View
	for seq := d.Agreed().Seq + 1; ; seq++ {
		switch rng.IntN(12) {
		case 0, 1:
			r, err := d.Begin(ctx, seq)
			must(t, err)
			randomChange(t, rng, r.Dir())
			if rng.IntN(2) == 0 {
				_, _, err = r.End(ctx)
				must(t, err)
			}
			must(t, r.Rollback(ctx))
		case 2:
			v := d.Agreed()
			patch := fmt.Append(nil, "patch", seq)
			v.Patch = HashPatch(patch)
			note("maybe", v)
			_, err := d.SetPatch(ctx, patch)
			must(t, err)
		case 3, 4:
			v, err := d.View(ctx)
			must(t, err)
			views = append(views, v)
		case 5:
			for _, v := range views {
				v.Close()
			}
			views = nil
		case 6:
			must(t, d.Close())
			views = nil
			if d, err = OpenDir(ctx, cfg); err != nil {
				t.Fatal(err)
			}
		case 7:
			r, err := other.Begin(ctx, seq)
			must(t, err)
			randomChange(t, rng, r.Dir())
			_, _, err = r.End(ctx)
			must(t, err)
			must(t, r.Commit(ctx))
			v := other.Agreed()
			st, err := d.Stage(ctx)
			must(t, err)
			fetchAll(t, other, st, v.Root)
			note("maybe", v)
			must(t, st.Switch(ctx, v, nil))
			must(t, st.Close())
		default:
			r, err := d.Begin(ctx, seq)
			must(t, err)
			randomChange(t, rng, r.Dir())
			if rng.IntN(4) == 0 {
				write(t, r.Dir()+"/../patch.cfg", fmt.Sprint("by contract ", seq))
			}
			root, patch, err := r.End(ctx)
			must(t, err)
			note("commit", Version{seq, root, patch})
			must(t, r.Commit(ctx))
		}
	}
}

type ledgerLine struct {
	what string
	v    Version
}

func readLedger(t tb, path string) (lines []ledgerLine) {
	data, err := os.ReadFile(path)
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

// checkWhole verifies that a state is what its agreed version says, everywhere.
func checkWhole(t tb, d *Dir) {
	t.Helper()
	v := d.Agreed()
	if d.Damaged() {
		t.Fatalf("version %d is damaged", v.Seq)
	}
	if got := scratchRoot(t, d.paths.state); got != v.Root {
		t.Fatalf("working folder has root %s, agreed is %s", got.Short(), v.Root.Short())
	}
	_, patch, _, err := hashPatchAt(d.work, patchName)
	must(t, err)
	if patch != v.Patch || d.Patch() == nil && !patch.IsZero() || d.Patch() != nil && HashPatch(d.Patch()) != v.Patch {
		t.Fatalf("patch.cfg has hash %s, agreed is %s", patch.Short(), v.Patch.Short())
	}
	view, err := d.View(ctx)
	must(t, err)
	defer view.Close()
	if view.Version() != v {
		t.Fatalf("view of %v, agreed %v", view.Version(), v)
	}
	if d.mounted {
		if got := scratchRoot(t, view.Dir()); got != v.Root {
			t.Fatalf("view has root %s, agreed is %s", got.Short(), v.Root.Short())
		}
	}
	r, err := d.Begin(ctx, v.Seq+1)
	must(t, err)
	root, patch, err := r.End(ctx)
	must(t, err)
	if root != v.Root || patch != v.Patch {
		t.Fatalf("an empty run ends with %s, agreed is %s", root.Short(), v.Root.Short())
	}
	must(t, r.Rollback(ctx))
}

// A process killed between any two steps leaves the last agreed version whole,
// and what the ledger confirmed is there.
func TestKilledAnywhere(t *testing.T) {
	if os.Getenv(crashEnv) != "" {
		t.Skip("this is the child")
	}
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	if s := os.Getenv("STATEFS_TEST_KILLS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 5))
	dir := t.TempDir()
	write(t, dir+"/fs/seed/state/sub/file", "1")
	write(t, dir+"/fs/seed/patch.cfg", "p")
	t.Cleanup(func() { Release(dir + "/fs") })
	powerLost := 0
	for round := range rounds {
		seed := rng.Uint64()
		steps := 1 + rng.IntN(120)
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
			timeout = time.Duration(20+rng.IntN(150)) * time.Millisecond
		}
		timer := time.AfterFunc(timeout, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("round %d (seed %d, %d steps): the child ended by itself: %v\n%s", round, seed, steps, err, out.String())
		}
		Release(filepath.Join(dir, fmt.Sprint("other", seed)))
		must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprint("other", seed))))
		cfg := Config{Dir: dir + "/fs", Log: slog.New(slog.DiscardHandler)}
		var lines []ledgerLine
		if _, err := os.Stat(dir + "/ledger"); err == nil {
			lines = readLedger(t, dir+"/ledger")
		}
		last := len(lines) - 1
		tell := last > 0 && lines[last].what == "commit" && rng.IntN(2) == 0
		if tell {
			cfg.Confirmed = &lines[last].v
		}
		if rng.IntN(4) == 0 {
			// As if the whole machine had gone down: nothing is trusted.
			powerLost++
			m, found, err := openMeta(dir + "/fs/store/meta")
			must(t, err)
			if found {
				m.rec.boot = "another boot"
				must(t, m.write())
			}
			m.f.Close()
		}
		d, err := OpenDir(ctx, cfg)
		if err != nil {
			t.Fatalf("round %d (seed %d, %d steps): %v", round, seed, steps, err)
		}
		got := d.Agreed()
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
		checkWhole(t, d)
		must(t, d.Close())
		os.Remove(dir + "/ledger")
	}
	if m, _ := os.ReadFile("/proc/self/mountinfo"); bytes.Contains(m, []byte(dir)) {
		t.Errorf("mounts are left below %s", dir)
	}
	t.Logf("%d kills, %d of them with everything distrusted", rounds, powerLost)
}

// After a power failure files may have lost their content. Whatever is gone, the
// state comes up with a version it once had, whole, or says that it is damaged.
func TestPowerFailureNeverGivesAWrongRoot(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 8))
		dir := t.TempDir()
		d := openTest(t, dir, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
		known := map[Version]bool{d.Agreed(): true}
		for seq := uint64(1); seq <= 6; seq++ {
			known[commitRun(t, d, seq, func(dir string) { randomChange(t, rng, dir) })] = true
		}
		last := d.Agreed()
		d.flushing.Wait()
		d.mu.Lock()
		d.closed = true // as if killed: nothing is written at the end
		d.mu.Unlock()
		d.release()
		m, _, err := openMeta(dir + "/store/meta")
		must(t, err)
		m.rec.boot = "another boot"
		must(t, m.write())
		m.f.Close()
		// Cut some files short: of the sides, the working folder, the store.
		var files []string
		must(t, filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
			must(t, err)
			if fi.Mode().IsRegular() && fi.Size() > 0 && !strings.HasSuffix(p, "/lock") && !strings.HasSuffix(p, "/meta") {
				files = append(files, p)
			}
			return nil
		}))
		for range rng.IntN(4) {
			if len(files) > 0 {
				p := files[rng.IntN(len(files))]
				fi, err := os.Stat(p)
				must(t, err)
				must(t, os.Chmod(p, 0o600))
				must(t, os.Truncate(p, 0))
				must(t, os.Chmod(p, fi.Mode()))
			}
		}
		d = openTest(t, dir, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
		switch v := d.Agreed(); {
		case d.Damaged():
			outcomes["damaged"]++
			if _, err := d.Begin(ctx, 9); !errors.Is(err, ErrDamaged) {
				t.Fatalf("seed %d: begin on a damaged state: %v", seed, err)
			}
		case !known[v]:
			t.Fatalf("seed %d: came up with %v, which never was", seed, v)
		default:
			if v == last {
				outcomes["last"]++
			} else {
				outcomes["earlier"]++
			}
			checkWhole(t, d)
		}
		must(t, d.Close())
	}
	t.Log(outcomes)
	if outcomes["last"] == 0 {
		t.Error("the last version was never recovered")
	}
}

func TestStagingRefusesWrongData(t *testing.T) {
	src := openTest(t, t.TempDir())
	big := bytes.Repeat([]byte("0123456789"), 50000)
	v := commitRun(t, src, 1, func(dir string) {
		write(t, dir+"/small", "s")
		must(t, os.WriteFile(dir+"/big", big, 0o644))
	})
	d := openTest(t, t.TempDir())
	st, err := d.Stage(ctx)
	must(t, err)
	if _, err := d.Stage(ctx); err == nil {
		t.Error("a second staging was opened")
	}
	mismatch := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: %v", what, err)
		}
	}
	node, err := src.Object(ctx, Ref{Kind: RefDir, Hash: v.Root})
	must(t, err)
	mismatch("node", st.PutNode(RefDir, v.Root, append(bytes.Clone(node), 0)))
	mismatch("node as page", st.PutNode(RefPage, v.Root, node))
	mismatch("file", st.PutFile(digest.Sum([]byte("s")), []byte("t")))
	h, size := digest.Sum(big), uint64(len(big))
	list, err := src.Object(ctx, Ref{Kind: RefList, Path: "big", Hash: h})
	must(t, err)
	bad := bytes.Clone(list)
	bad[5] ^= 1
	_, err = st.OpenFile(ctx, "big", size, h, bad)
	mismatch("list", err)
	_, err = st.OpenFile(ctx, "big", size, h, list[:len(list)-1])
	mismatch("short list", err)
	_, err = st.OpenFile(ctx, "big", size+minGroup, h, list)
	mismatch("list for another size", err)
	f, err := st.OpenFile(ctx, "big", size, h, list)
	must(t, err)
	group, err := src.Object(ctx, Ref{Kind: RefData, Path: "big", Hash: h, Index: 1})
	must(t, err)
	mismatch("group at another place", f.Put(2, group))
	mismatch("short group", f.Put(1, group[1:]))
	if err := f.Put(9999, group); err == nil {
		t.Error("a group behind the end was taken")
	}
	must(t, f.Put(1, group))
	must(t, f.Close())
	if st.HasFile(h) {
		t.Error("an incomplete file counts as there")
	}
	if err := st.Switch(ctx, v, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("switch to an incomplete state: %v", err)
	}
	mismatch("patch", st.Switch(ctx, Version{1, v.Root, digest.Sum(nil)}, []byte("x")))
	f, err = st.OpenFile(ctx, "big", size, h, list)
	must(t, err)
	if n := len(f.Missing()); n != len(list)/32-1 {
		t.Errorf("%d groups missing after one was fetched", n)
	}
	must(t, f.Close())
	fetchAll(t, src, st, v.Root)
	must(t, st.Switch(ctx, v, nil))
	must(t, st.Close())
	checkWhole(t, d)
}
