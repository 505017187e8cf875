package chain

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"evernode/internal/journal/disk"
	"evernode/xahau/standalone/shamap"
)

var (
	benchEntries = flag.Int("bench-entries", 1_000_000, "entries of the state in the benchmarks")
	benchLedgers = flag.Int("bench-ledgers", 0, "ledgers of TestManyLedgers, which is left out when this is 0")
)

// load makes ledgers of simple payments between random accounts.
type load struct {
	rng      *rand.Rand
	accounts []Account
	state    shamap.Map
	header   Header
	history  []byte // an entry of 8 KB that changes in every ledger, like the list of hashes
}

func accountKey(a Account) Hash { return shamap.Half(append([]byte{0, 0x61}, a[:]...)) }

// fill makes the first ledger, with n accounts.
func fill(t testing.TB, c *Chain, n int) *load {
	t.Helper()
	l := &load{rng: rand.New(rand.NewPCG(1, 1)), state: shamap.New(shamap.State), history: make([]byte, 8300)}
	for range n {
		var a Account
		for i := range a {
			a[i] = byte(l.rng.Uint32())
		}
		l.accounts = append(l.accounts, a)
	}
	for part := range slices.Chunk(l.accounts, 50_000) {
		var changes []shamap.Change
		for _, a := range part {
			changes = append(changes, shamap.Change{Key: accountKey(a), Data: l.bytes(130)})
		}
		l.close(t, c, changes, nil)
	}
	must(t, c.Sync(context.Background(), l.header.Seq))
	return l
}

func (l *load) bytes(n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := l.rng.Uint64()
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b
}

// payments makes what n payments between random accounts change.
func (l *load) payments(n int) (changes []shamap.Change, txs []Transaction) {
	changed := map[Account]bool{}
	for i := range n {
		from, to := l.accounts[l.rng.IntN(len(l.accounts))], l.accounts[l.rng.IntN(len(l.accounts))]
		changed[from], changed[to] = true, true
		tx := Transaction{Blob: l.bytes(240), Meta: l.bytes(450), Accounts: []Account{from, to}, Index: uint32(i)}
		tx.Hash = shamap.Half(tx.Blob)
		txs = append(txs, tx)
	}
	for a := range changed {
		changes = append(changes, shamap.Change{Key: accountKey(a), Data: l.bytes(130)})
	}
	l.history = slices.Clone(l.history)
	l.rng.Uint64()
	copy(l.history, l.bytes(32))
	return append(changes, shamap.Change{Key: Hash{0xaa}, Data: l.history}), txs
}

// close commits a ledger and returns how long hashing and committing took.
func (l *load) close(t testing.TB, c *Chain, changes []shamap.Change, txs []Transaction) (hashing, commit time.Duration) {
	t.Helper()
	start := time.Now()
	state, err := l.state.Apply(changes)
	must(t, err)
	hashing = time.Since(start)
	parent := Hash{}
	if l.header.Seq > 0 {
		parent = l.header.Hash()
	}
	l.header = Header{Seq: l.header.Seq + 1, ParentHash: parent, AccountHash: state.Hash()}
	start = time.Now()
	l.state, err = c.Commit(Ledger{Header: l.header, State: state, Transactions: txs})
	must(t, err)
	return hashing, time.Since(start)
}

func quantiles(d []time.Duration) (p50, p99 float64) {
	slices.Sort(d)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return ms(d[len(d)/2]), ms(d[len(d)*99/100])
}

// folderSize returns the bytes of a folder's files.
func folderSize(t testing.TB, dir string) (n int64) {
	t.Helper()
	names, err := disk.OS{}.List(dir)
	must(t, err)
	for _, name := range names {
		if fi, err := os.Stat(filepath.Join(dir, name)); err == nil {
			n += fi.Size()
		}
	}
	return n
}

// BenchmarkClose measures ledgers with 0 and 3000 payments on a state of a
// million entries: hashing the state, Commit, and from there to durable.
func BenchmarkClose(b *testing.B) {
	for _, n := range []int{0, 3000} {
		b.Run(fmt.Sprintf("payments=%d", n), func(b *testing.B) {
			dir := b.TempDir()
			c, err := Open(Config{Dir: dir})
			must(b, err)
			defer c.Close()
			l := fill(b, c, *benchEntries)
			var hashing, commit, synced []time.Duration
			before := c.state.end() + c.history.end()
			for b.Loop() {
				b.StopTimer()
				changes, txs := l.payments(n)
				b.StartTimer()
				h, cm := l.close(b, c, changes, txs)
				start := time.Now()
				must(b, c.Sync(context.Background(), l.header.Seq))
				hashing, commit, synced = append(hashing, h), append(commit, cm), append(synced, time.Since(start))
			}
			for name, d := range map[string][]time.Duration{"hash": hashing, "commit": commit, "sync": synced} {
				p50, p99 := quantiles(d)
				b.ReportMetric(p50, name+"-p50-ms")
				b.ReportMetric(p99, name+"-p99-ms")
			}
			b.ReportMetric(float64(c.state.end()+c.history.end()-before)/float64(b.N)/1024, "KiB/ledger")
		})
	}
}

// BenchmarkRead measures reading from a chain whose cache holds a part.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	c, err := Open(Config{Dir: dir, CheckpointBytes: 4 << 20})
	must(b, err)
	defer c.Close()
	l := fill(b, c, *benchEntries)
	var hashes []Hash
	for range 60 {
		changes, txs := l.payments(1000)
		for _, tx := range txs {
			hashes = append(hashes, tx.Hash)
		}
		l.close(b, c, changes, txs)
	}
	must(b, c.Sync(context.Background(), l.header.Seq))
	b.Run("entry", func(b *testing.B) {
		for b.Loop() {
			data, err := l.state.Get(accountKey(l.accounts[l.rng.IntN(len(l.accounts))]))
			if err != nil || data == nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hot-entry", func(b *testing.B) {
		for b.Loop() {
			data, err := l.state.Get(accountKey(l.accounts[l.rng.IntN(1000)]))
			if err != nil || data == nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("transaction", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Transaction(hashes[l.rng.IntN(len(hashes))]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("account-page", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := c.AccountTransactions(Query{Account: l.accounts[l.rng.IntN(len(l.accounts))], Limit: 200}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpen measures a restart with a million entries and as much to read
// as there can be.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	c, err := Open(Config{Dir: dir})
	must(b, err)
	l := fill(b, c, *benchEntries)
	for c.index.backlog() < 28<<20 || l.header.Seq < 600 {
		n := 0
		if l.header.Seq > 590 {
			n = 1000
		}
		changes, txs := l.payments(n)
		l.close(b, c, changes, txs)
	}
	must(b, c.Close())
	for b.Loop() {
		c, err := Open(Config{Dir: dir})
		must(b, err)
		m, err := c.State(l.header.Seq)
		must(b, err)
		if data, err := m.Get(accountKey(l.accounts[0])); err != nil || data == nil {
			b.Fatal(err)
		}
		b.StopTimer()
		must(b, c.Close())
		b.StartTimer()
	}
}

// TestManyLedgers runs a chain for long and prints size, memory and pace. It is
// for numbers: -bench-ledgers says how many ledgers, each with ten payments.
func TestManyLedgers(t *testing.T) {
	if *benchLedgers == 0 {
		t.Skip("takes long; -bench-ledgers 100000 runs it")
	}
	for name, cfg := range map[string]Config{
		"disk":   {Dir: t.TempDir()},
		"memory": {Dir: "m", FS: Memory(), HistoryLedgers: 2000},
	} {
		c, err := Open(cfg)
		must(t, err)
		l := fill(t, c, 10_000)
		start := time.Now()
		for i := range *benchLedgers {
			changes, txs := l.payments(10)
			l.close(t, c, changes, txs)
			if (i+1)%(max(*benchLedgers/10, 1)) == 0 {
				must(t, c.Sync(context.Background(), l.header.Seq))
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				root, _ := l.state.Root()
				t.Logf("%s: %d ledgers, %.2f ms each; nodes %.1f MB, %.1f MB of them live; ledgers %.1f MB; index %d runs; heap %.1f MB",
					name, i+1, float64(time.Since(start).Milliseconds())/float64(i+1), mb(c.state.end()-c.state.first()), mb(root.Bytes),
					mb(c.history.end()-c.history.first()), len(c.index.runs), mb(m.HeapAlloc))
			}
		}
		must(t, c.Close())
		if name == "disk" {
			t.Logf("disk: %.1f MB in all", mb(uint64(folderSize(t, cfg.Dir))))
			start := time.Now()
			c, err := Open(cfg)
			must(t, err)
			t.Logf("disk: opened in %v", time.Since(start))
			must(t, c.Close())
		}
	}
}

func mb(n uint64) float64 { return float64(n) / 1e6 }
