package shamap

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// memStore keeps records in memory, as package chain does on disk.
type memStore struct {
	data    []byte
	base    uint64 // what is before it is dropped
	corrupt bool
}

func (s *memStore) ReadNode(p Place) ([]byte, error) {
	if p.Off < s.base || p.Off+uint64(p.Len) > uint64(len(s.data)) {
		return nil, fmt.Errorf("offset %d is not there", p.Off)
	}
	b := bytes.Clone(s.data[p.Off:][:p.Len])
	if s.corrupt {
		b[len(b)-1] ^= 1
	}
	return b, nil
}

func (s *memStore) write(rec []byte) Place {
	p := Place{Off: uint64(len(s.data)), Len: uint32(len(rec))}
	s.data = append(s.data, rec...)
	return p
}

func (s *memStore) save(m Map) Map {
	saved := m.Save(s.write)
	saved.Keep()
	return saved.Map
}

func mapIn(t testing.TB, c *Cache) Map {
	t.Helper()
	m, err := New(c.kind).In(c)
	must(t, err)
	if _, err := m.In(NewCache(nil, c.kind, 0)); err == nil {
		t.Error("a tree was given two caches")
	}
	if _, err := New(1 - c.kind).In(c); err == nil {
		t.Error("a tree was put into a store of another kind")
	}
	return m
}

type model map[Key]string

func (m model) keys() []Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
}

// fresh builds a tree entry by entry, which must give the same hash.
func (m model) fresh(t testing.TB) Map {
	t.Helper()
	var changes []Change
	for k, v := range m {
		changes = append(changes, Change{k, []byte(v)})
	}
	out, err := New(State).Apply(changes)
	must(t, err)
	return out
}

func check(t testing.TB, m Map, want model, rng *rand.Rand) {
	t.Helper()
	if m.Len() != len(want) {
		t.Fatalf("%d entries, want %d", m.Len(), len(want))
	}
	if h := want.fresh(t).Hash(); m.Hash() != h {
		t.Fatalf("hash %x, built anew %x", m.Hash(), h)
	}
	keys := want.keys()
	var got []Key
	for e, err := range m.All() {
		must(t, err)
		got = append(got, e.Key)
		if string(e.Data) != want[e.Key] {
			t.Fatalf("entry %x has other data", e.Key)
		}
	}
	if !slices.Equal(got, keys) {
		t.Fatalf("keys in order: %d, want %d", len(got), len(keys))
	}
	for range 20 {
		k := randomKey(rng)
		if len(keys) > 0 && rng.IntN(2) == 0 {
			k = keys[rng.IntN(len(keys))]
		}
		data, err := m.Get(k)
		must(t, err)
		if v, ok := want[k]; string(data) != v || (data != nil) != ok {
			t.Fatalf("Get of %x: %x", k, data)
		}
		at, found := slices.BinarySearchFunc(keys, k, func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
		after := at
		if found {
			after++
		}
		one := func(what string, e Entry, ok bool, err error, i int) {
			t.Helper()
			must(t, err)
			if inside := i >= 0 && i < len(keys); ok != inside || ok && (e.Key != keys[i] || string(e.Data) != want[e.Key]) {
				t.Fatalf("%s of %x: %x %v", what, k, e.Key, ok)
			}
		}
		e, ok, err := m.Next(k)
		one("Next", e, ok, err, after)
		e, ok, err = m.Prev(k)
		one("Prev", e, ok, err, at-1)
		e, ok, err = m.First()
		one("First", e, ok, err, min(0, len(keys)-1))
		e, ok, err = m.Last()
		one("Last", e, ok, err, len(keys)-1)
		i := at
		for e, err := range m.From(k) {
			one("From", e, true, err, i)
			if i++; i > at+3 {
				break
			}
		}
		if i < min(at+4, len(keys)) {
			t.Fatalf("From of %x ended at %d of %d", k, i, len(keys))
		}
	}
}

type version struct {
	m    Map
	want model
}

// TestModel makes random changes to many versions, saved and unsaved, and
// compares every one with a plain map, at once and at the end.
func TestModel(t *testing.T) {
	seeds := uint64(30)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 2))
		store := &memStore{}
		cache := NewCache(store, State, rng.IntN(3)*20000)
		versions := []version{{mapIn(t, cache), model{}}}
		for step := range 60 {
			from := versions[max(0, len(versions)-1-rng.IntN(3))]
			want := maps.Clone(from.want)
			keys := want.keys()
			size := 1 + rng.IntN(12)
			if rng.IntN(8) == 0 {
				size = parallelFrom + rng.IntN(400)
			}
			var changes []Change
			for range size {
				c := Change{Key: randomKey(rng)}
				if len(keys) > 0 && rng.IntN(2) == 0 {
					c.Key = keys[rng.IntN(len(keys))]
				}
				if slices.ContainsFunc(changes, func(o Change) bool { return o.Key == c.Key }) {
					continue
				}
				switch rng.IntN(5) {
				case 0, 1:
					delete(want, c.Key)
				case 2:
					c.Data = []byte(want[c.Key])
				default:
					c.Data = randomData(rng)
					want[c.Key] = string(c.Data)
				}
				changes = append(changes, c)
			}
			if rng.IntN(10) == 0 {
				clear(want)
				changes = nil
				for _, k := range keys {
					changes = append(changes, Change{Key: k})
				}
			}
			m, err := from.m.Apply(changes)
			must(t, err)
			if rng.IntN(2) == 0 {
				m = store.save(m)
				if root, ok := m.Root(); !ok || Open(m.cache, root) != m {
					t.Fatal("a saved tree is not its root")
				}
			}
			versions = append(versions, version{m, want})
			check(t, m, want, rng)
			other := versions[rng.IntN(len(versions))]
			checkDiff(t, other, version{m, want})
			checkDiff(t, version{m, want}, other)
			if step%20 == 19 {
				cache = NewCache(store, State, 50000) // a restart: only what is saved is left
				m = store.save(m)
				root, _ := m.Root()
				if len(want) > 0 && int(root.Bytes) != liveBytes(t, m) {
					t.Fatalf("root says %d bytes, %d are there", root.Bytes, liveBytes(t, m))
				}
				versions = append(versions, version{Open(cache, root), want})
			}
		}
		for _, v := range versions {
			check(t, v.m, v.want, rng)
		}
	}
}

// liveBytes walks a saved tree and sums the length of its records.
func liveBytes(t testing.TB, m Map) int {
	sum := 0
	var walk func(r *ref)
	walk = func(r *ref) {
		sum += int(r.len)
		n, err := m.load(r)
		must(t, err)
		if in, ok := n.(*inner); ok {
			for i := range in.kids {
				walk(&in.kids[i])
			}
		}
	}
	walk(&m.root)
	return sum
}

func checkDiff(t testing.TB, a, b version) {
	t.Helper()
	got := maps.Clone(a.want)
	var last *Key
	for d, err := range Diff(a.m, b.m) {
		must(t, err)
		if last != nil && bytes.Compare(last[:], d.Key[:]) >= 0 {
			t.Fatal("differences are not in order")
		}
		last = &d.Key
		if got[d.Key] != string(d.Old) || bytes.Equal(d.Old, d.New) {
			t.Fatalf("difference of %x is wrong", d.Key)
		}
		if d.New == nil {
			delete(got, d.Key)
		} else {
			got[d.Key] = string(d.New)
		}
	}
	if !maps.Equal(got, b.want) {
		t.Fatal("the differences do not lead from one tree to the other")
	}
	for range Diff(a.m, b.m) {
		break // ending early is allowed
	}
}

// TestRefresh collects garbage again and again while the tree changes, and
// drops what is before the oldest node.
func TestRefresh(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	store := &memStore{}
	cache := NewCache(store, State, 0)
	m, want := mapIn(t, cache), model{}
	dropped := 0
	for round := range 150 {
		var changes []Change
		for range 20 {
			c := Change{Key: randomKey(rng), Data: randomData(rng)}
			if _, ok := want[c.Key]; !ok && !slices.ContainsFunc(changes, func(o Change) bool { return o.Key == c.Key }) && len(want) < 1000 {
				changes = append(changes, c)
				want[c.Key] = string(c.Data)
			}
		}
		m2, err := m.Apply(changes)
		must(t, err)
		before := uint64(len(store.data)) / 2
		at := len(store.data)
		m2, err = m2.Refresh(before, 20000)
		must(t, err)
		m = store.save(m2)
		root, _ := m.Root()
		if int(root.Bytes) != liveBytes(t, m) {
			t.Fatalf("round %d: root says %d bytes, %d are there", round, root.Bytes, liveBytes(t, m))
		}
		if written := len(store.data) - at; len(changes) == 0 && written > 20000+64*700 {
			t.Fatalf("%d bytes were written for a budget of 20000", written)
		}
		if root.Oldest > store.base {
			store.base = root.Oldest
			dropped++
		}
	}
	check(t, m, want, rng)
	at := uint64(len(store.data))
	m2, err := m.Refresh(at, 1<<30)
	must(t, err)
	m = store.save(m2)
	if root, _ := m.Root(); root.Oldest < at {
		t.Fatalf("after a whole refresh the oldest node is at %d, before %d", root.Oldest, at)
	}
	store.base = at
	check(t, m, want, rng)
	if dropped < 10 {
		t.Errorf("only %d times something could be dropped", dropped)
	}
}

func TestErrors(t *testing.T) {
	m := New(State)
	if _, err := m.Set(Key{}, nil); err == nil {
		t.Error("an entry without data was set")
	}
	if _, err := m.Set(Key{}, make([]byte, MaxData+1)); err == nil {
		t.Error("an entry that is too long was set")
	}
	if _, err := m.Apply([]Change{{Key{1}, []byte("a")}, {Key{}, []byte("b")}, {Key{1}, nil}}); err == nil {
		t.Error("two changes of one entry were made")
	}
	store := &memStore{}
	m = mapIn(t, NewCache(store, State, 0))
	var err error
	for i := range 50 {
		m, err = m.Set(Key{byte(i * 5), byte(i)}, []byte{byte(i)})
		must(t, err)
	}
	m = store.save(m)
	store.corrupt = true
	want := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s in a damaged store: %v", what, err)
		}
	}
	_, err = m.Get(Key{5, 1})
	want("Get", err)
	_, err = m.Set(Key{5, 1}, []byte("x"))
	want("Set", err)
	_, err = m.Refresh(1<<40, 1000)
	want("Refresh", err)
	_, _, err = m.Next(Key{})
	want("Next", err)
	_, _, err = m.Prev(Key{255})
	want("Prev", err)
	count := 0
	for _, err := range m.All() {
		want("All", err)
		count++
	}
	for _, err := range Diff(m, New(State)) {
		want("Diff", err)
		count++
	}
	if count != 2 {
		t.Errorf("%d errors yielded", count)
	}
	store.corrupt, store.base = false, 1<<40
	if _, err := m.Get(Key{5, 1}); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("Get from what is dropped: %v", err)
	}
}

func TestTransactionEntry(t *testing.T) {
	for _, c := range []struct {
		n      int
		prefix string
	}{{0, "00"}, {192, "c0"}, {193, "c100"}, {12480, "f0ff"}, {12481, "f10000"}, {918744, "fed417"}} {
		b, err := TransactionEntry(make([]byte, c.n), []byte{7})
		must(t, err)
		want := append(append(unhex(t, c.prefix), make([]byte, c.n)...), 1, 7)
		if !bytes.Equal(b, want) {
			t.Errorf("%d bytes begin with %x", c.n, b[:3])
		}
	}
	if _, err := TransactionEntry(nil, make([]byte, 918745)); err == nil {
		t.Error("metadata that is too long was taken")
	}
}

// FuzzDecodeNode reads arbitrary bytes as nodes: no panic, and what is taken
// is written the same again.
func FuzzDecodeNode(f *testing.F) {
	store := &memStore{}
	m, err := New(State).Apply([]Change{{Key{1}, []byte("one")}, {Key{2}, []byte("two")}, {Key{1, 1}, []byte("three")}})
	must(f, err)
	m.Save(func(rec []byte) Place {
		f.Add(bytes.Clone(rec))
		return store.write(rec)
	})
	f.Add([]byte{})
	f.Add([]byte{2, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeNode(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		var again []byte
		switch n := n.(type) {
		case *leaf:
			again = appendLeaf(nil, n)
		case *inner:
			again = appendInner(nil, n)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
		if checkNode(n, State, &ref{}) == nil {
			t.Error("a node has the zero hash")
		}
	})
}
