package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"evernode/internal/journal/disk"
	"evernode/xahau/standalone/shamap"
)

// killer is the disk, on which the process kills itself at some operation, a
// write in its middle.
type killer struct {
	disk.FS
	left atomic.Int64
}

func (k *killer) step() bool { return k.left.Add(-1) == 0 }

func (k *killer) die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func (k *killer) before() {
	if k.step() {
		k.die()
	}
}

type killerFile struct {
	disk.File
	k *killer
}

func (k *killer) wrap(f disk.File, err error) (disk.File, error) {
	if err != nil {
		return nil, err
	}
	return killerFile{f, k}, nil
}

func (k *killer) Create(name string) (disk.File, error) { k.before(); return k.wrap(k.FS.Create(name)) }
func (k *killer) Open(name string) (disk.File, error)   { return k.wrap(k.FS.Open(name)) }
func (k *killer) Remove(name string) error              { k.before(); return k.FS.Remove(name) }
func (k *killer) Rename(from, to string) error          { k.before(); return k.FS.Rename(from, to) }
func (k *killer) SyncDir(dir string) error              { k.before(); return k.FS.SyncDir(dir) }
func (k *killer) Lock(name string) (io.Closer, error)   { return k.FS.Lock(name) }

func (f killerFile) WriteAt(b []byte, off int64) (int, error) {
	if f.k.step() {
		f.File.WriteAt(b[:len(b)/2], off)
		f.k.die()
	}
	return f.File.WriteAt(b, off)
}
func (f killerFile) Truncate(n int64) error { f.k.before(); return f.File.Truncate(n) }
func (f killerFile) Sync() error            { f.k.before(); return f.File.Sync() }

// fixedLedger makes a ledger that depends on its sequence and its parent only.
func fixedLedger(t testing.TB, seq uint32, parent Hash, state shamap.Map) (Ledger, []shamap.Change) {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(seq), 9))
	var changes []shamap.Change
	for i := range 1 + rng.IntN(20) {
		key := Hash{0: byte(rng.Uint32()), 9: byte(i)}
		changes = append(changes, shamap.Change{Key: key, Data: bytes.Repeat([]byte{byte(seq), byte(seq >> 8)}, 1+rng.IntN(60))})
	}
	state, err := state.Apply(changes)
	must(t, err)
	var txs []Transaction
	for i := range rng.IntN(4) {
		blob := fmt.Appendf(nil, "transaction %d of ledger %d", i, seq)
		txs = append(txs, Transaction{Hash: shamap.Half(blob), Blob: blob, Meta: blob[:5], Accounts: []Account{{1}, {2, byte(i)}}, Ledger: seq, Index: uint32(i)})
	}
	h := Header{Seq: seq, ParentHash: parent, AccountHash: state.Hash(), CloseTime: seq * 3}
	return Ledger{Header: h, State: state, Transactions: txs}, changes
}

const killEnv = "CHAIN_TEST_KILL"

func killConfig(dir string) Config {
	return Config{Dir: filepath.Join(dir, "chain"), StateLedgers: 16, HistoryLedgers: 200, SegmentBytes: 20000, CheckpointBytes: 15000}
}

// TestKilledChild is the process that is killed.
func TestKilledChild(t *testing.T) {
	args := strings.Fields(os.Getenv(killEnv))
	if len(args) != 2 {
		t.Skip("is run by TestKilledAnywhere")
	}
	cfg := killConfig(args[0])
	k := &killer{FS: disk.OS{}}
	n, err := strconv.ParseInt(args[1], 10, 64)
	must(t, err)
	k.left.Store(n)
	cfg.FS = k
	told, err := os.OpenFile(filepath.Join(args[0], "told"), os.O_WRONLY|os.O_CREATE, 0o600)
	must(t, err)
	cfg.OnDurable = func(seq uint32) {
		if _, err := told.WriteAt(binary.BigEndian.AppendUint32(nil, seq), 0); err != nil {
			t.Error(err)
		}
	}
	c, err := Open(cfg)
	must(t, err)
	seq, parent, state := uint32(1), Hash{}, shamap.New(shamap.State)
	if last, ok := c.Last(); ok {
		seq, parent = last.Header.Seq+1, last.Hash
		state, err = c.State(last.Header.Seq)
		must(t, err)
	}
	for ; ; seq++ {
		l, _ := fixedLedger(t, seq, parent, state)
		state, err = c.Commit(l)
		must(t, err)
		parent = l.Header.Hash()
		if seq%3 == 0 {
			must(t, c.Sync(context.Background(), seq))
		}
	}
}

// TestKilledAnywhere kills a process with SIGKILL at a random operation on the
// disk or a random moment, again and again. What it has reported as durable is
// there.
func TestKilledAnywhere(t *testing.T) {
	if os.Getenv(killEnv) != "" {
		t.Skip("this is the child")
	}
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 5))
	dir := t.TempDir()
	want := map[Hash]string{} // the state of ledger at, and its hash
	at, parent, state := uint32(0), Hash{}, shamap.New(shamap.State)
	for round := range rounds {
		ops := 1 + rng.IntN(400)
		timeout := 20 * time.Second
		if round%4 == 3 {
			ops, timeout = -1, time.Duration(10+rng.IntN(200))*time.Millisecond
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", killEnv, dir, ops))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		must(t, cmd.Start())
		timer := time.AfterFunc(timeout, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("round %d (%d operations): the child ended by itself: %v\n%s", round, ops, err, out.String())
		}
		told := uint32(0)
		if b, err := os.ReadFile(filepath.Join(dir, "told")); err == nil && len(b) == 4 {
			told = binary.BigEndian.Uint32(b)
		}
		c, err := Open(killConfig(dir))
		if err != nil {
			t.Fatalf("round %d (%d operations): %v", round, ops, err)
		}
		first, last := c.Range()
		if last < told || last < at {
			t.Fatalf("round %d (%d operations): ledger %d was durable, %d is the last", round, ops, told, last)
		}
		for at < last {
			at++
			l, changes := fixedLedger(t, at, parent, state)
			state, parent = l.State, l.Header.Hash()
			for _, ch := range changes {
				want[ch.Key] = string(ch.Data)
			}
			if at < first {
				continue
			}
			got, err := c.Ledger(at)
			must(t, err)
			if got.Hash != parent {
				t.Fatalf("ledger %d is another", at)
			}
			txs, err := c.Transactions(at)
			must(t, err)
			for i := range l.Transactions {
				tx, err := c.Transaction(l.Transactions[i].Hash)
				must(t, err)
				if !sameTx(txs[i], l.Transactions[i]) || !sameTx(tx, l.Transactions[i]) {
					t.Fatalf("transaction %d of ledger %d is another", i, at)
				}
			}
		}
		if last > 0 {
			got, err := c.State(last)
			must(t, err)
			n := 0
			for e, err := range got.All() {
				must(t, err)
				n++
				if want[e.Key] != string(e.Data) {
					t.Fatalf("ledger %d: entry %x is another", last, e.Key)
				}
			}
			if n != len(want) {
				t.Fatalf("ledger %d has %d entries, want %d", last, n, len(want))
			}
		}
		must(t, c.Close())
	}
	t.Logf("%d kills, %d ledgers", rounds, at)
}
