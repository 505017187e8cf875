package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"evernode/internal/journal/disk"
	"evernode/xahau/standalone/shamap"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func unhash(t testing.TB, s string) Hash {
	t.Helper()
	b, err := hex.DecodeString(s)
	must(t, err)
	return Hash(b)
}

// Headers of ledgers of the main network with their hashes.
func TestHeaderHash(t *testing.T) {
	for _, c := range []struct {
		h                           Header
		parent, txs, accounts, hash string
	}{
		{Header{Seq: 38129, Drops: 99999999999996310, ParentCloseTime: 410424200, CloseTime: 410424200, CloseResolution: 10},
			"3401E5B2E5D3A53EB0891088A5F2D9364BBB6CE5B37A337D2C0660DAF9C4175E",
			"DB83BF807416C5B3499A73130F843CF615AB8E797D79FE7D330ADF1BFA93951A",
			"2C23D15B6B549123FB351E4B5CDE81C564318EB845449CD43C3EA7953C4DB452",
			"E6DB7365949BF9814D76BCC730B01818EB9136A89DB224F3F9F5AAE4569D758E"},
		{Header{Seq: 40000, Drops: 99999999999996310, ParentCloseTime: 410459110, CloseTime: 410459130, CloseResolution: 10},
			"CDFD329A6E418591770695D0FB859113641AC20CB3A1F39AB3D721CEA2685EFE",
			"0000000000000000000000000000000000000000000000000000000000000000",
			"1B536BFBDFC92B9550F2F63D32F7269D451885FFB2CAB374332EBC2D663320E0",
			"16BB8E41DD96D643BC72E1981865C5D76B990464E2EA151FEAC16CDF1AE29388"},
		{Header{Seq: 15202439, Drops: 99998831688050493, ParentCloseTime: 492656460, CloseTime: 492656470, CloseResolution: 10},
			"12724A65B030C15A1573AA28B1BBB5DF3DA4589AA3623675A31CAE69B23B1C4E",
			"325EACC5271322539EEEC2D6A5292471EF1B3E72AE7180533EFC3B8F0AD435C8",
			"D9ABF622DA26EEEE48203085D4BC23B0F77DC6F8724AC33D975DA3CA492D2E44",
			"F4D865D83EB88C1A1911B9E90641919A1314F36E1B099F8E95FE3B7C77BE3349"},
	} {
		h := c.h
		h.ParentHash, h.TxHash, h.AccountHash = unhash(t, c.parent), unhash(t, c.txs), unhash(t, c.accounts)
		if h.Hash() != unhash(t, c.hash) {
			t.Errorf("ledger %d: %X, want %s", h.Seq, h.Hash(), c.hash)
		}
		again, err := ParseHeader(h.Append(nil))
		if err != nil || again != h {
			t.Errorf("%+v became %+v, %v", h, again, err)
		}
	}
	if _, err := ParseHeader(make([]byte, HeaderSize+1)); err == nil {
		t.Error("a header that is too long was taken")
	}
}

// maker makes random ledgers and remembers what was in them.
type maker struct {
	rng   *rand.Rand
	done  []made // one ledger after the other
	state shamap.Map
}

type made struct {
	header Header
	state  map[Hash]string
	txs    []Transaction
}

func newMaker(seed uint64) *maker {
	return &maker{rng: rand.New(rand.NewPCG(seed, 7)), state: shamap.New(shamap.State)}
}

func (m *maker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	return b
}

func account(i int) Account { return Account{0: byte(i * 37), 19: byte(i)} }

// next makes the ledger after the last.
func (m *maker) next(t testing.TB) (Ledger, made, error) {
	t.Helper()
	now := made{state: map[Hash]string{}, header: Header{Seq: 7, Drops: m.rng.Uint64(), CloseTime: m.rng.Uint32(), CloseResolution: 10}}
	if len(m.done) > 0 {
		last := &m.done[len(m.done)-1]
		now.header.Seq, now.header.ParentHash = last.header.Seq+1, last.header.Hash()
		now.state = maps.Clone(last.state)
	}
	var changes []shamap.Change
	keys := slices.SortedFunc(maps.Keys(now.state), func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
	for range m.rng.IntN(12) {
		c := shamap.Change{Key: Hash(m.bytes(32))}
		if len(keys) > 0 && (m.rng.IntN(3) > 0 || len(keys) > 150) {
			c.Key = keys[m.rng.IntN(len(keys))]
		}
		if slices.ContainsFunc(changes, func(o shamap.Change) bool { return o.Key == c.Key }) {
			continue
		}
		if m.rng.IntN(4) == 0 {
			delete(now.state, c.Key)
		} else {
			c.Data = m.bytes(1 + m.rng.IntN(120))
			now.state[c.Key] = string(c.Data)
		}
		changes = append(changes, c)
	}
	state, err := m.state.Apply(changes)
	if err != nil {
		return Ledger{}, now, err
	}
	for i := range m.rng.IntN(6) {
		tx := Transaction{Blob: m.bytes(12 + m.rng.IntN(100)), Meta: m.bytes(m.rng.IntN(200)), Ledger: now.header.Seq, Index: uint32(i), Accounts: []Account{}}
		tx.Hash = shamap.Half(tx.Blob)
		for a := range 6 {
			if m.rng.IntN(1+2*a) == 0 {
				tx.Accounts = append(tx.Accounts, account(a))
			}
		}
		now.txs = append(now.txs, tx)
	}
	tree, err := TransactionTree(now.txs)
	must(t, err)
	now.header.TxHash, now.header.AccountHash = tree.Hash(), state.Hash()
	return Ledger{Header: now.header, State: state, Transactions: now.txs}, now, nil
}

// commit commits the next ledger.
func (m *maker) commit(t testing.TB, c *Chain) error {
	t.Helper()
	l, now, err := m.next(t)
	if err != nil {
		return err
	}
	state, err := c.Commit(l)
	if errors.Is(err, disk.ErrCrashed) {
		m.done = append(m.done, now) // it may turn out to be there
	}
	if err != nil {
		return err
	}
	if state.Hash() != l.Header.AccountHash {
		t.Fatal("Commit returns another state")
	}
	if _, ok := state.Root(); !ok {
		t.Fatal("Commit returns a state that is not saved")
	}
	m.state = state
	m.done = append(m.done, now)
	return nil
}

// cut forgets ledgers behind one that was last before a crash, 0 for all.
func (m *maker) cut(t testing.TB, c *Chain, last uint32) {
	t.Helper()
	if last == 0 {
		m.done, m.state = nil, shamap.New(shamap.State)
		return
	}
	m.done = m.done[:last-m.done[0].header.Seq+1]
	var err error
	m.state, err = c.State(last)
	must(t, err)
}

func sameTx(a, b Transaction) bool {
	return a.Hash == b.Hash && bytes.Equal(a.Blob, b.Blob) && bytes.Equal(a.Meta, b.Meta) && slices.Equal(a.Accounts, b.Accounts) &&
		a.Ledger == b.Ledger && a.Index == b.Index
}

// check compares everything that a chain answers with what was committed.
func (m *maker) check(t testing.TB, c *Chain, states uint32) {
	t.Helper()
	first, last := c.Range()
	if len(m.done) == 0 {
		if _, ok := c.Last(); ok || first != 0 || last != 0 {
			t.Fatalf("ledgers %d to %d, want none", first, last)
		}
		return
	}
	end := m.done[len(m.done)-1].header.Seq
	if last != end || first < m.done[0].header.Seq {
		t.Fatalf("ledgers %d to %d, want %d to %d", first, last, m.done[0].header.Seq, end)
	}
	begin := m.done[0].header.Seq
	for seq := begin; seq <= end; seq++ {
		want := &m.done[seq-begin]
		l, err := c.Ledger(seq)
		if seq < first {
			if !errors.Is(err, ErrNotFound) {
				t.Fatalf("ledger %d, which is not kept: %v", seq, err)
			}
			if _, err := c.LedgerByHash(want.header.Hash()); !errors.Is(err, ErrNotFound) {
				t.Fatalf("ledger %d by hash, which is not kept: %v", seq, err)
			}
			continue
		}
		must(t, err)
		if l.Header != want.header || l.Hash != want.header.Hash() || l.Transactions != len(want.txs) {
			t.Fatalf("ledger %d is %+v", seq, l)
		}
		byHash, err := c.LedgerByHash(l.Hash)
		must(t, err)
		if byHash != l {
			t.Fatalf("ledger %d by hash is %+v", seq, byHash)
		}
		txs, err := c.Transactions(seq)
		must(t, err)
		if !slices.EqualFunc(txs, want.txs, sameTx) {
			t.Fatalf("ledger %d has other transactions", seq)
		}
		for _, w := range want.txs {
			tx, err := c.Transaction(w.Hash)
			must(t, err)
			if !sameTx(tx, w) {
				t.Fatalf("transaction %x is another", w.Hash)
			}
		}
		state, err := c.State(seq)
		if seq+states <= end {
			if !errors.Is(err, ErrStateGone) {
				t.Fatalf("state of ledger %d of %d: %v", seq, end, err)
			}
			continue
		}
		must(t, err)
		if state.Hash() != want.header.AccountHash || state.Len() != len(want.state) {
			t.Fatalf("ledger %d has another state", seq)
		}
		n := 0
		for e, err := range state.All() {
			must(t, err)
			n++
			if want.state[e.Key] != string(e.Data) {
				t.Fatalf("state of ledger %d: entry %x is another", seq, e.Key)
			}
		}
		if n != len(want.state) {
			t.Fatalf("state of ledger %d has %d entries, want %d", seq, n, len(want.state))
		}
	}
	for _, seq := range []uint32{0, begin - 1, end + 1, 1 << 31} {
		if _, err := c.State(seq); !errors.Is(err, ErrNotFound) {
			t.Fatalf("state of ledger %d: %v", seq, err)
		}
	}
	for _, h := range []Hash{{1}, {255}, m.done[len(m.done)-1].header.AccountHash} {
		if _, err := c.Transaction(h); !errors.Is(err, ErrNotFound) {
			t.Fatalf("transaction by a wrong hash: %v", err)
		}
		if _, err := c.LedgerByHash(h); !errors.Is(err, ErrNotFound) {
			t.Fatalf("ledger by a wrong hash: %v", err)
		}
	}
	for range 12 {
		m.checkAccount(t, c, first, end)
	}
}

// checkAccount asks for the transactions of an account, page by page.
func (m *maker) checkAccount(t testing.TB, c *Chain, first, last uint32) {
	t.Helper()
	q := Query{Account: account(m.rng.IntN(7)), Forward: m.rng.IntN(2) == 0, Limit: 1 + m.rng.IntN(9)}
	lo, hi := first, last
	if m.rng.IntN(2) == 0 {
		q.Min = first + uint32(m.rng.IntN(int(last-first)+2))
		lo = max(q.Min, first)
	}
	if m.rng.IntN(2) == 0 {
		q.Max = first + uint32(m.rng.IntN(int(last-first)+4))
		hi = min(q.Max, last)
	}
	var want []Transaction
	for _, l := range m.done {
		for _, tx := range l.txs {
			if tx.Ledger >= lo && tx.Ledger <= hi && slices.Contains(tx.Accounts, q.Account) {
				want = append(want, tx)
			}
		}
	}
	if !q.Forward {
		slices.Reverse(want)
	}
	ask := q
	var got []Transaction
	for {
		txs, next, err := c.AccountTransactions(ask)
		must(t, err)
		got = append(got, txs...)
		if len(txs) > q.Limit || next != nil && len(txs) < q.Limit {
			t.Fatalf("a page of %d with a limit of %d, next %v", len(txs), q.Limit, next)
		}
		if next == nil {
			break
		}
		if len(got) > len(want) {
			break
		}
		ask.After = next
	}
	if !slices.EqualFunc(got, want, sameTx) {
		t.Fatalf("%+v over ledgers %d to %d: %d transactions, want %d", q, first, last, len(got), len(want))
	}
}

// settle waits until everything is durable and the background is at rest.
func (m *maker) settle(t testing.TB, c *Chain) {
	t.Helper()
	last := m.done[len(m.done)-1].header.Seq
	must(t, c.Sync(context.Background(), last))
	for {
		c.mu.Lock()
		settled, kept := c.settled, c.kept
		c.mu.Unlock()
		if settled == last {
			return
		}
		select {
		case <-kept:
		case <-time.After(10 * time.Second):
			t.Fatal("the background does not come to rest")
		}
	}
}

// TestModel commits, closes and opens again, with small files, so that all is
// dropped, merged and collected many times.
func TestModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newMaker(seed)
			cfg := Config{
				Dir: "d", FS: Memory(), StateLedgers: uint32(1 + m.rng.IntN(20)), SegmentBytes: int64(1000 + m.rng.IntN(20000)),
				CheckpointBytes: int64(500 + m.rng.IntN(10000)), CacheBytes: m.rng.IntN(2) * 100000,
			}
			if seed%2 == 1 {
				cfg.HistoryLedgers = uint32(10 + m.rng.IntN(100))
			}
			if seed == 7 {
				cfg.FS, cfg.Dir = disk.OS{}, t.TempDir()
			}
			for range 5 {
				c, err := Open(cfg)
				must(t, err)
				if len(m.done) > 0 {
					m.cut(t, c, m.done[len(m.done)-1].header.Seq)
				}
				for range 60 {
					must(t, m.commit(t, c))
					if m.rng.IntN(20) == 0 {
						m.settle(t, c)
						m.check(t, c, cfg.StateLedgers)
					}
				}
				last := m.done[len(m.done)-1].header.Seq
				must(t, c.Sync(context.Background(), last))
				if c.Durable() != last {
					t.Fatal("synced and not durable")
				}
				must(t, c.Close())
				if _, err := c.Commit(Ledger{}); !errors.Is(err, ErrClosed) {
					t.Fatalf("Commit after Close: %v", err)
				}
			}
			c, err := Open(cfg)
			must(t, err)
			m.check(t, c, cfg.StateLedgers)
			first, last := c.Range()
			if n := last - first + 1; cfg.HistoryLedgers != 0 && n > 6*cfg.HistoryLedgers+50 {
				t.Errorf("%d ledgers are kept, %d were asked for", n, cfg.HistoryLedgers)
			}
			if c.state.first() == 0 {
				t.Error("no node was ever collected")
			}
			if len(c.index.runs) == 0 || len(c.index.runs) > 20 {
				t.Errorf("the index has %d runs", len(c.index.runs))
			}
			must(t, c.Close())
		})
	}
}

// TestIndexAnew loses or damages the index: it comes back from the ledgers.
func TestIndexAnew(t *testing.T) {
	for _, c := range []struct {
		what string
		harm func(t *testing.T, fs disk.FS, names []string)
	}{
		{"list of files missing", func(t *testing.T, fs disk.FS, _ []string) { must(t, fs.Remove("d/index")) }},
		{"list of files damaged", func(t *testing.T, fs disk.FS, _ []string) { flip(t, fs, "d/index", 20) }},
		{"a file missing", func(t *testing.T, fs disk.FS, names []string) { must(t, fs.Remove(names[0])) }},
		{"a file damaged", func(t *testing.T, fs disk.FS, names []string) { flip(t, fs, names[0], 9) }},
	} {
		m := newMaker(11)
		cfg := Config{Dir: "d", FS: Memory(), StateLedgers: 5, SegmentBytes: 5000, CheckpointBytes: 3000}
		ch, err := Open(cfg)
		must(t, err)
		for range 100 {
			must(t, m.commit(t, ch))
		}
		must(t, ch.Close())
		names, err := cfg.FS.List("d")
		must(t, err)
		var runs []string
		for _, n := range names {
			if strings.HasPrefix(n, "index-") {
				runs = append(runs, "d/"+n)
			}
		}
		c.harm(t, cfg.FS, runs)
		var log bytes.Buffer
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		ch, err = Open(cfg)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		m.check(t, ch, 5)
		if c.what != "list of files missing" && !strings.Contains(log.String(), "built anew") {
			t.Errorf("%s: nothing was said: %s", c.what, log.String())
		}
		if len(ch.index.runs) == 0 {
			t.Errorf("%s: the index was not written again", c.what)
		}
		must(t, ch.Close())
	}
}

func flip(t *testing.T, fs disk.FS, name string, at int64) {
	t.Helper()
	f, err := fs.Open(name)
	must(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	must(t, err)
	b[0] ^= 0x40
	_, err = f.WriteAt(b, at)
	must(t, err)
}

// TestDamage flips bytes in the streams: either it is refused with the file's
// name, or reading says so; wrong data is never returned.
func TestDamage(t *testing.T) {
	m := newMaker(12)
	fs := Memory()
	cfg := Config{Dir: "d", FS: fs, StateLedgers: 30, SegmentBytes: 8000}
	c, err := Open(cfg)
	must(t, err)
	for range 30 {
		must(t, m.commit(t, c))
		must(t, c.Sync(context.Background(), m.done[len(m.done)-1].header.Seq))
	}
	must(t, c.Close())
	names, err := fs.List("d")
	must(t, err)
	refused, lastLost := 0, 0
	for range 200 {
		name := "d/" + names[m.rng.IntN(len(names))]
		f, err := fs.Open(name)
		if err != nil {
			continue // the lock
		}
		size, _ := f.Size()
		if size == 0 {
			continue
		}
		at := m.rng.Int64N(size)
		flip(t, fs, name, at)
		c, err := Open(cfg)
		switch {
		case err == nil:
			// Only the last ledger may have been given up: nothing says that it was
			// durable.
			_, last := c.Range()
			if end := m.done[len(m.done)-1].header.Seq; last < end-1 {
				t.Fatalf("%s damaged at %d of %d: the last ledger is %d instead of %d", name, at, size, last, end)
			}
			lastLost++
			must(t, c.Close())
			// What was cut is gone; make it again for the next round.
			m = newMaker(12)
			for _, n := range names {
				fs.Remove("d/" + n)
			}
			c, err = Open(cfg)
			must(t, err)
			for range 30 {
				must(t, m.commit(t, c))
				must(t, c.Sync(context.Background(), m.done[len(m.done)-1].header.Seq))
			}
			must(t, c.Close())
			names, err = fs.List("d")
			must(t, err)
			continue
		case errors.Is(err, ErrDamaged):
			refused++
			if !strings.Contains(err.Error(), "ledger") {
				t.Errorf("the error does not say where: %v", err)
			}
		default:
			t.Fatalf("%s damaged at %d: %v", name, at, err)
		}
		flip(t, fs, name, at)
	}
	if refused < 100 {
		t.Errorf("%d refused, %d times a last ledger lost", refused, lastLost)
	}
	c, err = Open(cfg)
	must(t, err)
	m.check(t, c, 30)
	must(t, c.Close())
}

func TestRefusals(t *testing.T) {
	m := newMaker(13)
	cfg := Config{Dir: "d", FS: Memory()}
	c, err := Open(cfg)
	must(t, err)
	if _, err := Open(cfg); err == nil {
		t.Error("a folder was opened twice")
	}
	must(t, m.commit(t, c))
	must(t, m.commit(t, c))
	l, _, err := m.next(t)
	must(t, err)
	for what, change := range map[string]func(*Ledger){
		"a ledger too early":   func(l *Ledger) { l.Header.Seq-- },
		"a ledger too late":    func(l *Ledger) { l.Header.Seq++ },
		"another parent":       func(l *Ledger) { l.Header.ParentHash[3]++ },
		"another state":        func(l *Ledger) { l.Header.AccountHash[3]++ },
		"a transaction of 0 B": func(l *Ledger) { l.Transactions = []Transaction{{}} },
		"65536 accounts":       func(l *Ledger) { l.Transactions = []Transaction{{Blob: []byte{1}, Accounts: make([]Account, 65536)}} },
		"a state of another kind": func(l *Ledger) {
			l.State, _ = shamap.New(shamap.Candidates).Set(Hash{}, []byte{1})
			l.Header.AccountHash = l.State.Hash()
		},
	} {
		bad := l
		change(&bad)
		if _, err := c.Commit(bad); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if err := c.Sync(context.Background(), 1000); !errors.Is(err, ErrNotFound) {
		t.Errorf("Sync of a ledger that is not there: %v", err)
	}
	must(t, m.commit(t, c))
	m.check(t, c, 512)
	must(t, c.Close())
	must(t, c.Close())
}

// TestFullDisk fills the disk: ledgers are refused until there is room again,
// and nothing is lost.
func TestFullDisk(t *testing.T) {
	m := newMaker(14)
	fs := disk.NewMem()
	cfg := Config{Dir: "d", FS: fs, StateLedgers: 4, SegmentBytes: 3000, CheckpointBytes: 2000}
	c, err := Open(cfg)
	must(t, err)
	refused := 0
	for i := range 200 {
		if i%20 == 10 {
			fs.Limit(fs.Used() + 1500)
		}
		err := m.commit(t, c)
		for n := 0; err != nil; n++ {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("ledger %d: %v", i, err)
			}
			refused++
			if n == 3 {
				fs.Limit(0)
			}
			if n > 10 {
				t.Fatal(err)
			}
			err = m.commit(t, c)
		}
	}
	fs.Limit(0)
	if refused < 10 {
		t.Errorf("only %d ledgers were refused", refused)
	}
	m.check(t, c, 4)
	must(t, c.Close())
	c, err = Open(cfg)
	must(t, err)
	m.check(t, c, 4)
	must(t, c.Close())
}

// TestFailedSync fails a sync: nothing is reported as durable any more.
func TestFailedSync(t *testing.T) {
	m := newMaker(15)
	fs := disk.NewMem()
	c, err := Open(Config{Dir: "d", FS: fs, SegmentBytes: 1 << 20})
	must(t, err)
	must(t, m.commit(t, c))
	must(t, c.Sync(context.Background(), 7))
	fs.FailWith(func(op disk.Op, _ string) error {
		if op == disk.OpSync {
			return syscall.EIO
		}
		return nil
	})
	must(t, m.commit(t, c))
	if err := c.Sync(context.Background(), 8); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Errorf("Sync: %v", err)
	}
	<-c.Failed()
	if c.Durable() != 7 {
		t.Errorf("ledger %d is durable", c.Durable())
	}
	if err := m.commit(t, c); !errors.Is(err, ErrFailed) {
		t.Errorf("Commit: %v", err)
	}
	if err := c.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("Close: %v", err)
	}
}

var crashSeeds = flag.Int("crash-seeds", 150, "number of seeds of the crash test")

// TestCrash runs a chain on a disk that loses power at a random operation,
// again and again. Whatever was reported as durable is there afterwards, whole,
// and the chain goes on from it.
func TestCrash(t *testing.T) {
	cuts, kept := 0, 0
	for seed := range uint64(*crashSeeds) {
		n, k := crashOnce(t, seed)
		cuts += n
		kept += k
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d times ledgers that were not durable were lost, %d times some survived", cuts, kept)
	if *crashSeeds >= 50 && (cuts == 0 || kept == 0) {
		t.Error("the test did not reach both: it proves nothing")
	}
}

func crashOnce(t *testing.T, seed uint64) (cuts, kept int) {
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	m := newMaker(seed)
	mem := disk.NewMem()
	cfg := Config{
		Dir: "d", StateLedgers: uint32(1 + m.rng.IntN(8)), SegmentBytes: int64(500 + m.rng.IntN(6000)),
		CheckpointBytes: int64(500 + m.rng.IntN(4000)), CacheBytes: m.rng.IntN(2) * 50000,
	}
	if m.rng.IntN(2) == 0 {
		cfg.HistoryLedgers = uint32(5 + m.rng.IntN(20))
	}
	durable := uint32(0)
	for range 6 {
		mem.CrashAfter(m.rng.IntN(400))
		cfg.FS = mem
		var mu sync.Mutex
		cfg.OnDurable = func(seq uint32) {
			mu.Lock()
			defer mu.Unlock()
			if seq < durable {
				t.Errorf("durable went from %d to %d", durable, seq)
			}
			durable = seq
		}
		c, err := Open(cfg)
		if err == nil {
			_, last := c.Range()
			end := uint32(0)
			if len(m.done) > 0 {
				end = m.done[len(m.done)-1].header.Seq
			}
			if last < durable || last > end {
				t.Fatalf("ledgers up to %d were durable and up to %d committed; found up to %d", durable, end, last)
			}
			if last < end {
				cuts++
			} else if last > durable {
				kept++
			}
			m.cut(t, c, last)
			durable = last
			if ok := checkUnlessCrashed(t, m, c, mem, cfg.StateLedgers); ok {
				for range 60 {
					if err := m.commit(t, c); err != nil {
						if !errors.Is(err, disk.ErrCrashed) {
							t.Fatal(err)
						}
						break
					}
					if m.rng.IntN(3) == 0 {
						c.Sync(context.Background(), m.done[len(m.done)-1].header.Seq)
					}
				}
			}
			if err := c.Close(); err != nil && !errors.Is(err, disk.ErrCrashed) {
				t.Fatal(err)
			}
		} else if !errors.Is(err, disk.ErrCrashed) {
			t.Fatalf("opening: %v", err)
		}
		mem = mem.Crash(m.rng)
	}
	cfg.FS = mem
	c, err := Open(cfg)
	must(t, err)
	_, last := c.Range()
	m.cut(t, c, last)
	m.check(t, c, cfg.StateLedgers)
	must(t, c.Close())
	return cuts, kept
}

// checkUnlessCrashed checks a chain as long as the machine runs.
func checkUnlessCrashed(t *testing.T, m *maker, c *Chain, mem *disk.Mem, states uint32) bool {
	if _, err := mem.List("d"); err != nil {
		return false
	}
	// The crash comes with an operation that changes something; the background
	// may do one during the check, after which reading fails.
	probe := &probe{TB: t, mem: mem}
	defer func() {
		if r := recover(); r != nil && r != probe {
			panic(r)
		}
	}()
	m.check(probe, c, states)
	return true
}

// probe is a test that ends quietly when the machine has crashed.
type probe struct {
	testing.TB
	mem *disk.Mem
}

func (p *probe) Fatal(args ...any) { p.end(fmt.Sprint(args...)) }
func (p *probe) Fatalf(format string, args ...any) {
	p.end(fmt.Sprintf(format, args...))
}

func (p *probe) end(what string) {
	if _, err := p.mem.List("d"); errors.Is(err, disk.ErrCrashed) {
		panic(p)
	}
	p.TB.Helper()
	p.TB.Fatal(what)
}

// TestSeek compares looking up in runs of many sizes with a plain search.
func TestSeek(t *testing.T) {
	m := newMaker(16)
	fs := Memory()
	must(t, fs.MkdirAll("d"))
	for _, n := range []int{0, 1, 96, 97, 98, 500, 5000} {
		for _, skew := range []bool{false, true} {
			var keys []Hash
			for i := range n {
				h := Hash(m.bytes(32))
				if skew {
					h = Hash{0: 7, 31: byte(i)}
					binary.BigEndian.PutUint32(h[20:], uint32(i*3))
				}
				keys = append(keys, h)
			}
			slices.SortFunc(keys, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
			keys = slices.Compact(keys)
			var s sections
			for i, k := range keys {
				s.hashes = appendHashRecord(s.hashes, k, place{uint64(i), 1})
			}
			r, err := writeRun(fs, "d/"+runName(1, 2), 1, 2, 0, func(w *runWriter) error { return w.fillFrom(s) })
			must(t, err)
			r, err = openRun(fs, "d/"+r.name, r.name, 0)
			must(t, err)
			for range 300 {
				k := Hash(m.bytes(32))
				if len(keys) > 0 && m.rng.IntN(2) == 0 {
					k = keys[m.rng.IntN(len(keys))]
					k[31] += byte(m.rng.IntN(3)) - 1
				}
				want, found := slices.BinarySearchFunc(keys, k, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
				c := cursor{r: r, section: hashSection}
				must(t, c.seek(k[:]))
				if c.i != int64(want) {
					t.Fatalf("%d keys: at %d, want %d", len(keys), c.i, want)
				}
				p, ok, err := r.hash(k)
				must(t, err)
				if ok != found || ok && p.off != uint64(want) {
					t.Fatalf("%d keys: found %v at %d, want %v at %d", len(keys), ok, p.off, found, want)
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	m := newMaker(17)
	tx := Transaction{Hash: Hash{1}, Blob: []byte("blob"), Meta: []byte("meta"), Accounts: []Account{{2}}}
	b, err := appendTransaction(nil, &tx, 3, 4)
	must(f, err)
	f.Add(b)
	l := info{header: Header{Seq: 5}, root: shamap.Root{Place: shamap.Place{Off: 6, Len: 7}, Oldest: 5, Count: 8, Bytes: 9}, stateEnd: 10, txs: 11, txBytes: 12}
	f.Add(appendLedger(nil, &l))
	f.Add(appendManifest(nil, checkpoint{9, 2, 3}, []*run{{first: 1, last: 4}, {first: 5, last: 9, level: 2}}))
	fr := append(make([]byte, frameHeader), m.bytes(30)...)
	putFrame(fr, 1, 2, 3, 4)
	f.Add(fr)
	f.Fuzz(func(t *testing.T, b []byte) {
		seal := func(b []byte) []byte { // so that what is behind the CRC is reached
			if len(b) < 4 {
				return b
			}
			return binary.BigEndian.AppendUint32(bytes.Clone(b[:len(b)-4]), checksum(b[:len(b)-4]))
		}
		for _, b := range [][]byte{b, seal(b)} {
			if tx, rest, err := parseTransaction(b, 0); err == nil {
				again, err := appendTransaction(nil, &tx, tx.Ledger, int(tx.Index))
				if len(tx.Blob) > 0 && (err != nil || !bytes.Equal(again, b[:len(b)-len(rest)])) {
					t.Errorf("%x became %x, %v", b, again, err)
				}
			}
			if l, err := parseLedger(b, 0); err == nil {
				if again := appendLedger(nil, l); !bytes.Equal(again, b[:ledgerRecord]) {
					t.Errorf("%x became %x", b, again)
				}
			}
			if c, parts, err := parseManifest(b); err == nil {
				var runs []*run
				for _, p := range parts {
					runs = append(runs, &run{first: p.first, last: p.last, level: p.level})
				}
				if again := appendManifest(nil, c, runs); !bytes.Equal(again, b) {
					t.Errorf("%x became %x", b, again)
				}
			}
			parseFrame(b, 1, 2)
			provedDurable(b, 1, 2)
			parseSegmentHeader(b, 0)
		}
	})
}
