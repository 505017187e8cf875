package hook

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"evernode/xahau"
)

// What hostile modules do ends soon, with the same result everywhere.
func TestHostile(t *testing.T) {
	m := newMachine(t, Config{})
	sha := func(b *builder) {
		b.types = append(b.types, []byte{4, valI32, valI32, valI32, valI32, 1, valI64})
		b.imports = append(b.imports, imported{"env", "util_sha512h", 0, 3})
		b.exports[0].index = 4
		b.memory = []byte{1, 0, MaxMemoryPages}
	}
	const all = int64(MaxMemoryPages<<16 - 1)
	for name, c := range map[string]struct {
		b    *builder
		exit Exit
		code int64
	}{
		"unreachable":      {newBuilder(finish(opUnreachable)...), Failed, -1},
		"division by zero": {newBuilder(finish(i32(1), i32(0), 0x6d, 0x1a)...), Failed, -1},
		"reads outside":    {newBuilder(finish(i32(65533), 0x28, 2, 0, 0x1a)...), Failed, -1},
		"writes outside":   {newBuilder(finish(i32(-1), i32(5), 0x36, 2, 0)...), Failed, -1},
		"endless loop":     {newBuilder(finish(loop(1, 10_000, opBr, 0))...), Rollback, int64(GuardViolation)},
		"data outside":     {newBuilder(finish()...).with(func(b *builder) { b.data = []byte{1, 0, opI32Const, 0xff, 0xff, 3, opEnd, 2, 1, 2} }), Failed, -1},
		"no memory":        {newBuilder(finish()...).with(func(b *builder) { b.memory = nil }), Failed, -1},
		"empty memory":     {newBuilder(finish()...).with(func(b *builder) { b.memory = []byte{1, 0, 0} }), Accept, 0},
		"silent":           {newBuilder(zeroEnd...), Unset, -1},
		"grows a table": {newBuilder(finish(loop(1, 2000, opRefNull, valFunc, i32(1_000_000), opBulk, 15, 0, 0x1a, i32(1), opBrIf, 0))...).with(
			func(b *builder) { b.table = []byte{1, valFunc, 0, 1} }), Rollback, int64(GuardViolation)},
		"hashes": {newBuilder(finish(loop(1, 5000, i32(0), i32(32), i32(0), i32(all), opCall, 3, 0x1a, opBr, 0))...).with(sha), Failed, -1},
	} {
		start := time.Now()
		r := runBody(t, m, c.b.build())
		took := time.Since(start)
		if r.Exit != c.exit || r.Code != c.code {
			t.Errorf("%s: %v %d, want %v %d", name, r.Exit, r.Code, c.exit, c.code)
		}
		if took > 3*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		t.Logf("%s: %v", name, took)
	}
}

// Modules that are as hard to compile as can be.
func TestCompilingIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	m := newMachine(t, Config{})
	const few = 2_000
	manyLocals := func(b *builder) { b.locals = code(1, appendU32(nil, few), valI64) }
	// Every block sets a local, so that locals meet wherever branches do.
	var sets, ifs []byte
	for i := range 1_990 {
		sets = append(sets, code(opI64Const, byte(i&63), 0x21, appendU32(nil, uint32(1+i%few)), opBlock, 0x40, i32(1), opBrIf, 0, opEnd)...)
	}
	for i := range 1_990 {
		ifs = append(ifs, code(0x20, 0, opIf, 0x40, opI64Const, 5, 0x21, appendU32(nil, uint32(1+i%few)), opEnd)...)
	}
	table := code(opBlock, 0x40, i32(1), opBrTable, appendU32(nil, 4_000), repeat(4_001, 0), opEnd)
	var loops []byte
	for i := range 1_000 {
		loops = append(loops, loop(int64(i), 1, code(0x20, appendU32(nil, uint32(1+i%few)), 0x21, appendU32(nil, uint32(1+(i*7)%few))))...)
	}
	loads := code(repeat(8_000, code(i32(5), 0x29, 3, 0, 0x1a)...))
	adds := code(opI64Const, 1, repeat(16_000, opI64Const, 1, opI64Add), 0x1a)
	stack := code(repeat(20_000, opI64Const, 1), repeat(20_000, 0x1a))
	for name, b := range map[string]*builder{
		"sets":  newBuilder(finish(sets)...).with(manyLocals),
		"ifs":   newBuilder(finish(ifs)...).with(manyLocals),
		"table": newBuilder(finish(table)...),
		"loops": newBuilder(finish(loops)...).with(manyLocals),
		"loads": newBuilder(finish(loads)...),
		"adds":  newBuilder(finish(adds)...),
		"stack": newBuilder(finish(stack)...),
	} {
		start := time.Now()
		_, err := m.Validate(ctx, b.build())
		took := time.Since(start)
		t.Logf("%s, %d bytes: %v %v", name, len(b.build()), took, err)
		if took > 20*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

// Random modules never break the machine.
func TestMutantsDoNoHarm(t *testing.T) {
	m := newMachine(t, Config{Modules: 2})
	r := rand.New(rand.NewPCG(1, 2))
	names, err := testHooks.ReadDir("testdata/hooks")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for i := 0; i < 3_000; i++ {
		f, err := testHooks.ReadFile("testdata/hooks/" + names[r.IntN(len(names))].Name())
		if err != nil {
			t.Fatal(err)
		}
		code := mutate(r, f)
		if _, err := m.Validate(ctx, code); err != nil {
			continue
		}
		ran++
		s := newScene(t, code)
		start := time.Now()
		if _, err := m.Run(ctx, s.c, s.call); err != nil {
			t.Fatalf("mutant %d: %v", i, err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("mutant %d took %v", i, took)
		}
	}
	t.Logf("%d mutants ran", ran)
	if ran < 100 {
		t.Error("too few mutants are valid")
	}
}

func TestStoreFailureEndsTheRun(t *testing.T) {
	m := newMachine(t, Config{})
	broken := errors.New("disk on fire")
	for _, name := range []string{"state", "state_set", "slot_set", "hook_hash", "ledger_keylet"} {
		s := newScene(t, wasm(t, name))
		s.w.fail = broken
		if r, err := m.Run(ctx, s.c, s.call); !errors.Is(err, broken) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	// A hook that does not look at the ledger does not notice.
	s := newScene(t, wasm(t, "hook_pos"))
	s.w.fail = broken
	if r := s.run(t, m); r.Exit != Accept {
		t.Error(r.Exit)
	}
}

func TestContextEndsTheRun(t *testing.T) {
	m := newMachine(t, Config{})
	c, cancel := context.WithCancel(ctx)
	s := newScene(t, newBuilder(finish(loop(1, 60_000/3, opBr, 0))...).build())
	cancel()
	if _, err := m.Run(c, s.c, s.call); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// In the middle of a run, at the next host function.
	c, cancel = context.WithCancel(ctx)
	s = newScene(t, wasm(t, "state"))
	s.c.Ledger = cancelling{s.w, cancel}
	if _, err := m.Run(c, s.c, s.call); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if r := newScene(t, wasm(t, "state")).run(t, m); r.Exit != Accept {
		t.Error("the machine does not run after that")
	}
}

// cancelling is a ledger during whose first read the context ends.
type cancelling struct {
	*world
	cancel context.CancelFunc
}

func (c cancelling) Entry(i xahau.Hash256) ([]byte, error) {
	c.cancel()
	return c.world.Entry(i)
}

// Runs of several goroutines, with more modules than are kept, give what one gives.
func TestConcurrentRuns(t *testing.T) {
	m := newMachine(t, Config{Modules: 2})
	names := []string{"state", "slot", "otxn_field", "sto_subfield", "hook_param"}
	want := make(map[string]uint64)
	for _, n := range names {
		_, r := accepts(t, m, n)
		want[n] = r.Instructions
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 8 {
				n := names[(g+i)%len(names)]
				s := newScene(t, wasm(t, n))
				r, err := m.Run(ctx, s.c, s.call)
				if err != nil || r.Exit != Accept || r.Instructions != want[n] {
					t.Errorf("%s: %v %v", n, r, err)
				}
			}
		}()
	}
	wg.Wait()
	if n := m.recent.Len(); n != 2 || len(m.modules) != 2 {
		t.Errorf("%d modules are kept", n)
	}
}

// Memory is clean for every run, whoever had it before.
func TestMemoryIsCleared(t *testing.T) {
	m := newMachine(t, Config{})
	dirty := newBuilder(finish(i32(0), i32(1000), 0x36, 2, 0, i32(60000), i32(-1), 0x36, 2, 0)...).build()
	// Traps unless the words are zero.
	clean := newBuilder(finish(i32(0), 0x28, 2, 0, i32(60000), 0x28, 2, 0, 0x72, opIf, 0x40, opUnreachable, opEnd)...).build()
	for range 20 {
		if r := runBody(t, m, dirty); r.Exit != Accept {
			t.Fatal(r.Exit)
		}
		if r := runBody(t, m, clean); r.Exit != Accept {
			t.Fatal("memory of another run")
		}
	}
}

func TestClosedMachine(t *testing.T) {
	m, err := New(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(ctx); err != nil {
		t.Fatal(err)
	}
	s := newScene(t, wasm(t, "hook_pos"))
	if _, err := m.Run(ctx, s.c, s.call); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// What a run takes is given back.
func TestRunsLeaveNothingBehind(t *testing.T) {
	m := newMachine(t, Config{})
	s := newScene(t, wasm(t, "large"))
	heap := func(n int) uint64 {
		for range n {
			s.call.States = NewStates()
			s.run(t, m)
		}
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap(500)
	if after := heap(3_000); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}
