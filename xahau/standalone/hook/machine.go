package hook

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"evernode/xahau"
	"evernode/xahau/field"
)

// Config is how a machine is set up. The zero value works.
type Config struct {
	// Log gets what hooks trace, at debug level; nil means none.
	Log *slog.Logger
	// Definitions tell which fields exist; nil means the built-in ones.
	Definitions *xahau.Definitions
	// Modules is how many compiled modules are kept; 0 means 256. A module of an
	// Evernode hook takes a few hundred kilobytes.
	Modules int
	// Budget bounds the work of host functions in one run, in units of about a
	// nanosecond; 0 means 250 million. The same budget ends the same run
	// everywhere, so machines of one network must agree on it.
	Budget int64
}

const (
	defaultModules = 256
	defaultBudget  = 250_000_000
)

// Machine runs hooks. It is safe for use by several goroutines.
type Machine struct {
	runtime wazero.Runtime
	log     *slog.Logger
	known   func(field.Code) bool
	budget  int64
	memory  memories
	// instance is how modules are instantiated: without name, so that there can be
	// several, and without what hooks cannot reach.
	instance wazero.ModuleConfig

	mu      sync.Mutex
	most    int
	modules map[xahau.Hash256]*compiled
	recent  *list.List // of *compiled, the most recently used first
	closed  bool
}

// compiled is a compiled module. It is closed when it has left the cache and no
// run uses it.
type compiled struct {
	hash   xahau.Hash256
	module wazero.CompiledModule
	meter  string
	noMem  bool
	users  int
	kept   *list.Element // nil once it has left the cache
	ready  chan struct{} // closed when module or err is set
	err    error
}

// ErrClosed is the error of a machine that was closed.
var ErrClosed = errors.New("the hook machine is closed")

type runKey struct{}

// New makes a machine.
func New(ctx context.Context, cfg Config) (*Machine, error) {
	m := &Machine{
		log: cfg.Log, most: cfg.Modules, budget: cfg.Budget,
		modules: make(map[xahau.Hash256]*compiled), recent: list.New(),
	}
	m.instance = wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(noRandomness{})
	if m.most <= 0 {
		m.most = defaultModules
	}
	if m.budget <= 0 {
		m.budget = defaultBudget
	}
	defs := cfg.Definitions
	if defs == nil {
		defs = xahau.DefaultDefinitions()
	}
	m.known = func(c field.Code) bool {
		_, ok := defs.FieldByCode(c)
		return ok
	}
	config := wazero.NewRuntimeConfig().WithCoreFeatures(api.CoreFeaturesV2).WithMemoryLimitPages(MaxMemoryPages).WithDebugInfoEnabled(false)
	m.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	env := m.runtime.NewHostModuleBuilder("env")
	for _, f := range functions() {
		env.NewFunctionBuilder().WithGoModuleFunction(host(f)).Export(f.name)
	}
	if _, err := env.Instantiate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("hook machine: %w", err), m.runtime.Close(ctx))
	}
	return m, nil
}

// noRandomness stands for the runtime's own source, which takes longer to make than
// many a hook runs.
type noRandomness struct{}

func (noRandomness) Read([]byte) (int, error) { return 0, io.EOF }

// host makes a function of the runtime from one of the Hook API.
func host(f function) (api.GoModuleFunction, []api.ValueType, []api.ValueType) {
	params := make([]api.ValueType, len(f.params))
	for i := range params {
		params[i] = f.param(i)
	}
	call := f.call
	fn := api.GoModuleFunc(func(ctx context.Context, _ api.Module, stack []uint64) {
		r := ctx.Value(runKey{}).(*run)
		r.enter()
		stack[0] = uint64(call(r, stack))
	})
	return fn, params, []api.ValueType{f.result()}
}

// Close frees what the machine holds.
func (m *Machine) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	return m.runtime.Close(ctx)
}

// Validate tells whether code may be installed: Check, and whether it compiles. It
// keeps the compiled module, as code that is installed soon runs.
func (m *Machine) Validate(ctx context.Context, code []byte) (Verdict, error) {
	v, err := Check(code)
	if err != nil {
		return v, err
	}
	c, err := m.acquire(ctx, xahau.HookHash(code), code)
	if err != nil {
		return Verdict{}, err
	}
	m.release(ctx, c)
	return v, nil
}

// acquire gives the compiled module of a hash, and compiles it if need be.
func (m *Machine) acquire(ctx context.Context, hash xahau.Hash256, code []byte) (*compiled, error) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, ErrClosed
	}
	c := m.modules[hash]
	if c != nil {
		c.users++
		m.recent.MoveToFront(c.kept)
		m.mu.Unlock()
		<-c.ready
	} else {
		c = &compiled{hash: hash, users: 1, ready: make(chan struct{})}
		c.kept = m.recent.PushFront(c)
		m.modules[hash] = c
		evicted := m.evict()
		m.mu.Unlock()
		m.discard(ctx, evicted)
		c.err = m.compile(ctx, c, code)
		close(c.ready)
	}
	if c.err != nil {
		m.mu.Lock()
		m.forget(c)
		m.mu.Unlock()
		m.release(ctx, c)
		return nil, c.err
	}
	return c, nil
}

// evict takes the modules that are too many from the cache and gives those that
// nobody uses.
func (m *Machine) evict() (unused []*compiled) {
	for m.recent.Len() > m.most {
		c := m.recent.Back().Value.(*compiled)
		m.forget(c)
		if c.users == 0 {
			unused = append(unused, c)
		}
	}
	return unused
}

func (m *Machine) forget(c *compiled) {
	if c.kept != nil {
		m.recent.Remove(c.kept)
		c.kept = nil
		delete(m.modules, c.hash)
	}
}

func (m *Machine) release(ctx context.Context, c *compiled) {
	m.mu.Lock()
	c.users--
	last := c.users == 0 && c.kept == nil
	m.mu.Unlock()
	if last {
		m.discard(ctx, []*compiled{c})
	}
}

func (m *Machine) discard(ctx context.Context, modules []*compiled) {
	for _, c := range modules {
		if c.module != nil {
			_ = c.module.Close(ctx) // never fails for modules without files
		}
	}
}

// compile checks code again, as the meter needs to know the module; it takes a
// hundredth of the time of compiling.
func (m *Machine) compile(ctx context.Context, c *compiled, code []byte) (err error) {
	mod, err := inspect(code)
	if err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			err = refuse(LogWasmTestFailure, 0, "the compiler gave up: %v", p)
		}
	}()
	metered, meter := mod.instrument()
	c.meter = meter
	c.noMem = true
	for _, s := range mod.sections {
		if s.id == secMemory && mod.code[s.start] == 1 {
			c.noMem = false
		}
	}
	if c.module, err = m.runtime.CompileModule(context.WithoutCancel(ctx), metered); err != nil {
		return refuse(LogWasmTestFailure, 0, "%v", err)
	}
	return nil
}

// Run runs a hook. The error is about the ledger's store, the context or code that
// Validate would refuse; whatever the hook does wrong is in the result.
func (m *Machine) Run(ctx context.Context, c *Context, call *Call) (*Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	mod, err := m.acquire(ctx, call.Hash, call.Code)
	if err != nil {
		return nil, fmt.Errorf("hook %s: %w", call.Hash, err)
	}
	defer m.release(ctx, mod)
	r := &run{c: c, call: call, log: m.log, budget: m.budget, noMem: mod.noMem, known: m.known}
	if err := r.begin(ctx); err != nil {
		return nil, fmt.Errorf("hook %s: %w", call.Hash, err)
	}
	if err := m.execute(ctx, mod, r); err != nil {
		return nil, fmt.Errorf("hook %s: %w", call.Hash, err)
	}
	r.finish()
	return &r.result, nil
}

func (m *Machine) execute(ctx context.Context, mod *compiled, r *run) error {
	// The runtime must not see the context's end: runs end by themselves, and the
	// machine looks at the context in every host function.
	wctx := context.WithoutCancel(ctx)
	wctx = experimental.WithMemoryAllocator(wctx, &m.memory)
	wctx = context.WithValue(wctx, runKey{}, r)
	instance, err := m.runtime.InstantiateModule(wctx, mod.module, m.instance)
	if err != nil {
		// A data segment outside of memory.
		r.result.Exit = Failed
		return nil
	}
	defer instance.Close(wctx)
	if !mod.noMem {
		r.mem, _ = instance.Memory().Read(0, instance.Memory().Size())
	}
	name := "hook"
	if r.call.Mode == Callback {
		name = "cbak"
	}
	f := instance.ExportedFunction(name)
	if f == nil {
		r.result.Exit = Failed
		return nil
	}
	stack := [1]uint64{r.mode()}
	err = f.CallWithStack(wctx, stack[:])
	if r.err != nil {
		return r.err
	}
	var exit *sys.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		// A trap.
		r.result.Exit, r.result.Code, r.result.Reason = Failed, -1, nil
	case r.result.Exit != Failed:
		r.result.Instructions = instance.ExportedGlobal(mod.meter).Get()
	}
	return nil
}

// finish completes the result.
func (r *run) finish() {
	if r.result.Overrides == nil {
		r.result.Overrides = r.call.Overrides
	}
	r.result.Skips = sortedHashes(r.skips)
}

// memories lends memories to instances and clears them afterwards, because making
// a new one for each run keeps the garbage collector busy.
type memories struct {
	mu   sync.Mutex
	free [][]byte
}

const (
	keptMemories   = 8
	keptMemorySize = 16 << 16
)

// Allocate is called by the runtime.
func (m *memories) Allocate(_, _ uint64) experimental.LinearMemory { return &memory{from: m} }

type memory struct {
	from *memories
	b    []byte
}

// Reallocate is called once by the runtime, as hooks cannot grow their memory.
func (l *memory) Reallocate(size uint64) []byte {
	if size > MaxMemoryPages<<16 {
		return nil
	}
	if l.b == nil {
		l.b = l.from.take(int(size))
	}
	return l.b[:size]
}

// Free gives the memory back.
func (l *memory) Free() {
	l.from.give(l.b)
	l.b = nil
}

func (m *memories) take(size int) []byte {
	m.mu.Lock()
	for i, b := range m.free {
		if cap(b) >= size {
			last := len(m.free) - 1
			m.free[i], m.free[last] = m.free[last], nil
			m.free = m.free[:last]
			m.mu.Unlock()
			return b[:size]
		}
	}
	m.mu.Unlock()
	return make([]byte, size)
}

func (m *memories) give(b []byte) {
	if b == nil || cap(b) > keptMemorySize {
		return
	}
	clear(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.free) < keptMemories {
		m.free = append(m.free, b)
	}
}
