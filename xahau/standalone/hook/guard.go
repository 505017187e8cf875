package hook

import (
	"bytes"
	"math"
)

// Bounds of what a module may ask of the machine. The network has none of them;
// they are far above what a hook can use. Compiling takes time in proportion to the
// local variables times the blocks of a function, and to the square of the labels
// in its tables of branches.
const (
	// MaxMemoryPages is the largest memory of a hook, in pages of 64 KiB.
	MaxMemoryPages = 64

	maxLocals       = 8_192
	maxLabels       = 4_096
	maxBlockLocals  = 4_000_000
	maxTables       = 4
	maxTableEntries = 1_024
	maxNesting      = 16
	maxGuards       = 1_024
	maxInstructions = 0xffff
)

// Verdict is what Check finds out about code that may be installed.
type Verdict struct {
	// HookFee and CbakFee are the most instructions that hook and cbak can take,
	// by the network's way of counting; a run costs as many drops. CbakFee is 0
	// without cbak.
	HookFee, CbakFee uint64
	// HasCbak tells whether the module exports cbak.
	HasCbak bool
}

// Check tells whether code may be installed as a hook, by the network's rules. The
// error is a *CodeError. It does not validate what a WebAssembly runtime validates
// (types on the stack, for example): Machine.Validate does both.
func Check(code []byte) (Verdict, error) {
	m, err := inspect(code)
	if err != nil {
		return Verdict{}, err
	}
	return m.verdict, nil
}

// module is what the check and the meter know about a module.
type module struct {
	code     []byte
	verdict  Verdict
	sections []section
	imports  []uint32 // type index of each
	types    []signature
	funcs    []uint32 // type index of each
	globals  int
	exports  []string
	// exportedGlobals is above the highest global variable that is exported.
	exportedGlobals uint64
	bodies          []body

	hookFunc, cbakFunc int // index into bodies; cbakFunc is -1 without cbak
	guardFunc          int // index into imports
	exitFuncs          []uint32
}

type section struct {
	id         byte
	start, end int // of the contents
}

type signature struct {
	params []byte
	result byte
}

// body is a function's code: its locals from start, its instructions from code.
type body struct{ start, code, end int }

func inspect(code []byte) (*module, error) {
	if len(code) > MaxCode {
		return nil, refuse(LogWasmTooBig, 0, "%d bytes are more than %d", len(code), MaxCode)
	}
	if len(code) < minCode {
		return nil, refuse(LogWasmTooSmall, 0, "%d bytes are fewer than any hook has", len(code))
	}
	if !bytes.HasPrefix(code, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, refuse(LogWasmBadMagic, 0, "not a WebAssembly module of version 1")
	}
	m := &module{code: code, guardFunc: -1, hookFunc: -1, cbakFunc: -1}
	if err := m.split(); err != nil {
		return nil, err
	}
	// The order of these decides which of several errors is told, as on the network.
	var hookExport, cbakExport = -1, -1
	var names []importName
	for _, s := range m.sections {
		r := &reader{b: code, i: s.start, end: s.end}
		var err error
		switch s.id {
		case secImport:
			names, err = m.readImports(r)
		case secFunction:
			err = m.readFunctions(r)
		case secExport:
			hookExport, cbakExport, err = m.readExports(r)
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case len(m.imports) == 0:
		return nil, refuse(LogImportsMissing, 0, "a hook imports at least _g and accept or rollback")
	case hookExport < 0:
		return nil, refuse(LogExportsMissing, 0, "a hook exports hook")
	}
	if err := m.entryPoints(hookExport, cbakExport); err != nil {
		return nil, err
	}
	hookType := m.funcs[m.hookFunc]
	for _, s := range m.sections {
		r := &reader{b: code, i: s.start, end: s.end}
		var err error
		switch s.id {
		case secType:
			err = m.readTypes(r, names, hookType)
		case secTable:
			err = m.readTables(r)
		case secMemory:
			err = m.readMemory(r)
		case secGlobal:
			err = m.readGlobals(r)
		case secElement:
			err = m.readElements(r)
		case secData:
			err = m.readData(r)
		case secCode:
			err = m.readCode(r)
		case secStart:
			err = refuse(LogWasmValidation, s.start, "a hook has no start function")
		}
		if err == nil && r.i != r.end && s.id != secImport && s.id != secFunction && s.id != secExport {
			err = refuse(LogWasmValidation, r.i, "section %d has %d bytes too many", s.id, r.left())
		}
		if err != nil {
			return nil, err
		}
	}
	if int(hookType) >= len(m.types) {
		return nil, refuse(LogFuncTypeless, 0, "hook has no type")
	}
	if m.exportedGlobals > uint64(m.globals) {
		return nil, refuse(LogWasmValidation, 0, "global variable %d of %d is exported", m.exportedGlobals-1, m.globals)
	}
	if len(m.bodies) != len(m.funcs) {
		return nil, refuse(LogWasmValidation, 0, "%d functions have %d bodies", len(m.funcs), len(m.bodies))
	}
	for _, t := range m.imports {
		if int(t) >= len(m.types) {
			return nil, refuse(LogFuncTypeInvalid, 0, "an import has type %d of %d", t, len(m.types))
		}
	}
	return m, nil
}

func (m *module) split() error {
	r := &reader{b: m.code, i: 8, end: len(m.code)}
	last := byte(0)
	for r.left() > 0 {
		start := r.i
		id, err := r.byte()
		if err != nil {
			return err
		}
		if id == secCustom {
			return refuse(LogCustomSection, start, "custom sections are not allowed; strip the module")
		}
		if id <= last {
			return refuse(LogSectionsOutOfSequence, start, "section %d after section %d", id, last)
		}
		if id > secData {
			return refuse(LogWasmValidation, start, "unknown section %d", id)
		}
		last = id
		n, err := r.u32()
		if err != nil {
			return err
		}
		if int64(n) > int64(r.left()) {
			return refuse(LogShortHook, start, "section %d should have %d bytes, but the module ends", id, n)
		}
		m.sections = append(m.sections, section{id, r.i, r.i + int(n)})
		r.i += int(n)
	}
	return nil
}

type importName struct {
	name string
	typ  uint32
}

func (m *module) readImports(r *reader) ([]importName, error) {
	whitelist := whitelist()
	n, err := r.count()
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, refuse(LogImportsMissing, r.i, "a hook imports at least _g and accept or rollback")
	}
	var names []importName
	for i := range n {
		start := r.i
		from, err := m.name(r, LogImportModuleBad)
		if err != nil {
			return nil, err
		}
		if from != "env" {
			return nil, refuse(LogImportModuleEnv, start, "import from a module other than env")
		}
		name, err := m.name(r, LogImportNameBad)
		if err != nil {
			return nil, err
		}
		kind, err := r.byte()
		if err != nil {
			return nil, err
		}
		if kind != 0 {
			return nil, refuse(LogImportIllegal, start, "only functions can be imported")
		}
		typ, err := r.u32()
		if err != nil {
			return nil, err
		}
		switch name {
		case guardName:
			m.guardFunc = i
			m.exitFuncs = append(m.exitFuncs, uint32(i))
		case "accept", "rollback":
			m.exitFuncs = append(m.exitFuncs, uint32(i))
		}
		if whitelist[name] == nil {
			return nil, refuse(LogImportIllegal, start, "%q is not a function of the Hook API", clip(name))
		}
		m.imports = append(m.imports, typ)
		names = append(names, importName{name, typ})
	}
	if m.guardFunc < 0 {
		return nil, refuse(LogGuardImport, r.i, "_g is not imported")
	}
	return names, nil
}

func clip(s string) string { return s[:min(len(s), 64)] }

func whitelist() map[string]*function {
	list := functions()
	w := make(map[string]*function, len(list))
	for i := range list {
		w[list[i].name] = &list[i]
	}
	return w
}

func (m *module) name(r *reader, log LogCode) (string, error) {
	start := r.i
	n, err := r.u32()
	if err != nil {
		return "", err
	}
	if n == 0 || int64(n) > int64(r.left()) {
		return "", refuse(log, start, "a name of %d bytes", n)
	}
	s := string(r.b[r.i : r.i+int(n)])
	return s, r.skip(int(n))
}

func (m *module) readFunctions(r *reader) error {
	n, err := r.count()
	if err != nil {
		return err
	}
	if n == 0 {
		return refuse(LogFuncsMissing, r.i, "no functions")
	}
	for range n {
		t, err := r.u32()
		if err != nil {
			return err
		}
		m.funcs = append(m.funcs, t)
	}
	return nil
}

func (m *module) readExports(r *reader) (hook, cbak int, err error) {
	hook, cbak = -1, -1
	n, err := r.count()
	if err != nil {
		return 0, 0, err
	}
	if n == 0 {
		return 0, 0, refuse(LogExportsMissing, r.i, "a hook exports hook")
	}
	for range n {
		start := r.i
		size, err := r.u32()
		if err != nil {
			return 0, 0, err
		}
		if int64(size) > int64(r.left()) {
			return 0, 0, refuse(LogShortHook, start, "the module ends early")
		}
		name := string(r.b[r.i : r.i+int(size)])
		r.i += int(size)
		kind, err := r.byte()
		if err != nil {
			return 0, 0, err
		}
		index, err := r.u32()
		if err != nil {
			return 0, 0, err
		}
		m.exports = append(m.exports, name)
		if kind == 3 {
			m.exportedGlobals = max(m.exportedGlobals, uint64(index)+1)
		}
		switch name {
		case "hook":
			if kind != 0 {
				return 0, 0, refuse(LogExportHookFunc, start, "hook is not a function")
			}
			hook = int(index)
		case "cbak":
			if kind != 0 {
				return 0, 0, refuse(LogExportCbakFunc, start, "cbak is not a function")
			}
			cbak = int(index)
		}
	}
	if hook < 0 {
		return 0, 0, refuse(LogExportMissing, r.i, "a hook exports hook")
	}
	return hook, cbak, nil
}

func (m *module) entryPoints(hook, cbak int) error {
	m.hookFunc = hook - len(m.imports)
	if m.hookFunc < 0 || m.hookFunc >= len(m.funcs) {
		return refuse(LogFuncTypeless, 0, "hook is not a function of the module")
	}
	if cbak < 0 {
		return nil
	}
	m.cbakFunc = cbak - len(m.imports)
	if m.cbakFunc < 0 || m.cbakFunc >= len(m.funcs) {
		return refuse(LogFuncTypeless, 0, "cbak is not a function of the module")
	}
	if m.cbakFunc == m.hookFunc {
		// The network lets them be one; then it has no instruction count for cbak.
		return refuse(LogHookCbakDiffTypes, 0, "hook and cbak are the same function")
	}
	if m.funcs[m.hookFunc] != m.funcs[m.cbakFunc] {
		return refuse(LogHookCbakDiffTypes, 0, "hook and cbak have different types")
	}
	m.verdict.HasCbak = true
	return nil
}

func isNumber(t byte) bool { return t >= valF64 && t <= valI32 }

// readTypes checks that every type is that of an import or of hook and cbak.
func (m *module) readTypes(r *reader, names []importName, hookType uint32) error {
	whitelist := whitelist()
	users := make(map[uint32][]*function)
	for _, n := range names {
		users[n.typ] = append(users[n.typ], whitelist[n.name])
	}
	n, err := r.count()
	if err != nil {
		return err
	}
	for j := range uint32(n) {
		start := r.i
		form, err := r.byte()
		if err != nil {
			return err
		}
		if form != 0x60 {
			return refuse(LogFuncTypeInvalid, start, "type %d is not a function's", j)
		}
		if len(users[j]) == 0 && j != hookType {
			return refuse(LogFuncTypeInvalid, start, "type %d is not used by an import, hook or cbak", j)
		}
		var sig signature
		params, err := r.count()
		if err != nil {
			return err
		}
		if j == hookType && params != 1 {
			return refuse(LogParamHookCbak, start, "hook and cbak take one parameter of 32 bits")
		}
		for range params {
			t, err := r.byte()
			if err != nil {
				return err
			}
			if !isNumber(t) {
				return refuse(LogFuncParamInvalid, start, "parameter type %#x of type %d", t, j)
			}
			if j == hookType && t != valI32 {
				return refuse(LogParamHookCbak, start, "hook and cbak take one parameter of 32 bits")
			}
			sig.params = append(sig.params, t)
		}
		results, err := r.count()
		if err != nil {
			return err
		}
		if results != 1 {
			return refuse(LogFuncReturnCount, start, "type %d has %d results instead of one", j, results)
		}
		if sig.result, err = r.byte(); err != nil {
			return err
		}
		if !isNumber(sig.result) {
			return refuse(LogFuncReturnInvalid, start, "result type %#x of type %d", sig.result, j)
		}
		if j == hookType && sig.result != valI64 {
			return refuse(LogReturnHookCbak, start, "hook and cbak return 64 bits")
		}
		for _, f := range users[j] {
			if len(f.params) != len(sig.params) {
				return refuse(LogFuncTypeInvalid, start, "%s takes %d parameters, not %d", f.name, len(f.params), len(sig.params))
			}
			for i, t := range sig.params {
				if f.param(i) != t {
					return refuse(LogFuncParamInvalid, start, "parameter %d of %s has the wrong type", i, f.name)
				}
			}
			if f.result() != sig.result {
				return refuse(LogFuncReturnInvalid, start, "%s has the wrong result type", f.name)
			}
		}
		m.types = append(m.types, sig)
	}
	return nil
}

// limits reads the limits of a table or memory.
func limits(r *reader) (low uint32, err error) {
	flag, err := r.byte()
	if err != nil {
		return 0, err
	}
	if flag > 1 {
		return 0, refuse(LogWasmValidation, r.i-1, "unknown kind of limits %d", flag)
	}
	if low, err = r.u32(); err != nil || flag == 0 {
		return low, err
	}
	_, err = r.u32()
	return low, err
}

func (m *module) readTables(r *reader) error {
	n, err := r.count()
	if err != nil {
		return err
	}
	if n > maxTables {
		return refuse(LogWasmValidation, r.i, "%d tables are more than %d", n, maxTables)
	}
	for range n {
		t, err := r.byte()
		if err != nil {
			return err
		}
		if t != valFunc && t != valExt {
			return refuse(LogWasmValidation, r.i-1, "unknown table type %#x", t)
		}
		low, err := limits(r)
		if err != nil {
			return err
		}
		if low > maxTableEntries {
			return refuse(LogWasmValidation, r.i, "a table of %d entries; the most is %d", low, maxTableEntries)
		}
	}
	return nil
}

func (m *module) readMemory(r *reader) error {
	n, err := r.count()
	if err != nil {
		return err
	}
	if n > 1 {
		return refuse(LogWasmValidation, r.i, "%d memories", n)
	}
	for range n {
		low, err := limits(r)
		if err != nil {
			return err
		}
		if low > MaxMemoryPages {
			return refuse(LogWasmValidation, r.i, "a memory of %d pages; the most is %d", low, MaxMemoryPages)
		}
	}
	return nil
}

// constant reads a constant expression.
func (m *module) constant(r *reader) error {
	for {
		start := r.i
		ins, err := r.instruction()
		if err != nil {
			return err
		}
		switch op := ins.op; {
		case op == opEnd:
			return nil
		case op == opI32Const, op == opI64Const, op == 0x43, op == 0x44, op == opRefNull, op == opRefFunc,
			op == opVector && ins.sub == 12:
			// No global.get: it could only name an imported variable.
		default:
			return refuse(LogWasmValidation, start, "instruction %#x in a constant", op)
		}
	}
}

func (m *module) readGlobals(r *reader) error {
	n, err := r.count()
	if err != nil {
		return err
	}
	m.globals = n
	for range n {
		if err := r.skip(2); err != nil {
			return err
		}
		if err := m.constant(r); err != nil {
			return err
		}
	}
	return nil
}

func (m *module) readElements(r *reader) error {
	n, err := r.count()
	if err != nil {
		return err
	}
	for range n {
		kind, err := r.u32()
		if err != nil {
			return err
		}
		if kind > 7 {
			return refuse(LogWasmValidation, r.i, "unknown kind of elements %d", kind)
		}
		passive, explicit, exprs := kind&1 != 0, kind&2 != 0, kind&4 != 0
		if !passive {
			if explicit {
				if _, err := r.u32(); err != nil {
					return err
				}
			}
			if err := m.constant(r); err != nil {
				return err
			}
		}
		if passive || explicit {
			if err := r.skip(1); err != nil {
				return err
			}
		}
		items, err := r.count()
		if err != nil {
			return err
		}
		for range items {
			if exprs {
				err = m.constant(r)
			} else {
				_, err = r.u32()
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *module) readData(r *reader) error {
	n, err := r.count()
	if err != nil {
		return err
	}
	for range n {
		kind, err := r.u32()
		if err != nil {
			return err
		}
		if kind > 2 {
			return refuse(LogWasmValidation, r.i, "unknown kind of data %d", kind)
		}
		if kind == 2 {
			if _, err := r.u32(); err != nil {
				return err
			}
		}
		if kind != 1 {
			if err := m.constant(r); err != nil {
				return err
			}
		}
		size, err := r.u32()
		if err != nil {
			return err
		}
		if int64(size) > int64(r.left()) {
			return refuse(LogShortHook, r.i, "the module ends early")
		}
		r.i += int(size)
	}
	return nil
}

func (m *module) readCode(r *reader) error {
	n, err := r.count()
	if err != nil {
		return err
	}
	for j := range n {
		size, err := r.u32()
		if err != nil {
			return err
		}
		if int64(size) > int64(r.left()) {
			return refuse(LogShortHook, r.i, "the module ends early")
		}
		f := &reader{b: r.b, i: r.i, end: r.i + int(size)}
		b := body{start: f.i, end: f.end}
		groups, err := f.count()
		if err != nil {
			return err
		}
		locals := uint64(0)
		for range groups {
			k, err := f.u32()
			if err != nil {
				return err
			}
			if locals += uint64(k); locals > maxLocals {
				return refuse(LogWasmValidation, f.i, "more than %d local variables", maxLocals)
			}
			t, err := f.byte()
			if err != nil {
				return err
			}
			if !isNumber(t) {
				return refuse(LogTypeInvalid, f.i-1, "local variable of type %#x", t)
			}
		}
		b.code = f.i
		count, err := m.guards(f, locals)
		if err != nil {
			return err
		}
		switch j {
		case m.hookFunc:
			m.verdict.HookFee = count
		case m.cbakFunc:
			m.verdict.CbakFee = count
		}
		m.bodies = append(m.bodies, b)
		r.i = f.end
	}
	return nil
}

// block is a block that is open, for the count of instructions. bound is how often
// it can run at most, by the guard of the innermost loop.
type block struct {
	bound uint32
	own   uint64 // instructions of the block itself
	inner uint64 // worst case of the blocks in it
}

// worst is the most instructions a block can add to the one around it. The network
// computes with binary floating point, and so must this.
func (b block) worst(outer uint32) uint64 {
	f := float64(b.own+b.inner) * (float64(b.bound) / float64(outer))
	switch {
	case f < 1:
		return 1
	case f >= math.MaxUint64:
		return math.MaxUint64 / 2
	}
	return uint64(f)
}

// guards walks a function: it finds the guard at the top of every loop and gives
// the most instructions that the function can take.
func (m *module) guards(r *reader, locals uint64) (uint64, error) {
	if r.left() == 0 {
		return 0, refuse(LogShortHook, r.i, "a function without code")
	}
	stack := []block{{bound: 1}}
	deepest, guards := 0, 0
	blocks, labels := uint64(0), 0
	tooMany := func(at int) error {
		return refuse(LogGuardMissing, at, "more than %d guards", maxGuards)
	}
	for {
		start := r.i
		ins, err := r.instruction()
		if err != nil {
			return 0, err
		}
		top := &stack[len(stack)-1]
		top.own++
		switch ins.op {
		case opBlock, opLoop, opIf:
			if blocks++; blocks*locals > maxBlockLocals {
				return 0, refuse(LogWasmValidation, start, "%d blocks with %d local variables", blocks, locals)
			}
			bound := top.bound
			if len(stack) == 1 {
				bound = 1
			}
			if ins.op == opLoop {
				if bound, err = m.loopGuard(r); err != nil {
					return 0, err
				}
				if guards++; guards > maxGuards+1 {
					return 0, tooMany(start)
				}
			}
			// Deeper levels matter no more once there are too many; do not let
			// them grow the stack.
			stack = append(stack, block{bound: bound})
			deepest = max(deepest, len(stack)-1)
		case opEnd:
			if len(stack) == 1 {
				if r.left() > 0 {
					return 0, refuse(LogGuardMissing, start, "the function ends before its code does")
				}
				if deepest > maxNesting {
					return 0, refuse(LogNestingLimit, start, "%d nested blocks; the most is %d", deepest, maxNesting)
				}
				total := top.own + top.inner
				if total >= maxInstructions {
					return 0, refuse(LogInstructionExcess, start, "up to %d instructions; the most is %d", total, maxInstructions-1)
				}
				return total, nil
			}
			outer := &stack[len(stack)-2]
			outer.inner += top.worst(outer.bound)
			if outer.inner > math.MaxUint64/4 {
				outer.inner = math.MaxUint64 / 4
			}
			stack = stack[:len(stack)-1]
		case opCall:
			if int64(ins.arg) >= int64(len(m.imports)) {
				return 0, refuse(LogCallIllegal, start, "a hook cannot call functions of its own")
			}
			if int(ins.arg) == m.guardFunc {
				if guards++; guards > maxGuards+1 {
					return 0, tooMany(start)
				}
			}
		case opGlobalGet, opGlobalSet:
			// The meter adds a variable behind these, which must stay out of reach.
			if int64(ins.arg) >= int64(m.globals) {
				return 0, refuse(LogWasmValidation, start, "global variable %d of %d", ins.arg, m.globals)
			}
		case opBrTable:
			if labels += len(ins.table); labels > maxLabels {
				return 0, refuse(LogWasmValidation, start, "more than %d labels in tables of branches", maxLabels)
			}
		case opCallInd:
			return 0, refuse(LogCallIndirect, start, "indirect calls are not allowed")
		case opMemoryGrow:
			return 0, refuse(LogMemoryGrow, start, "memory.grow is not allowed")
		}
	}
}

// loopGuard reads the three instructions that must follow a loop, which push two
// constants and call _g, and gives the bound.
func (m *module) loopGuard(r *reader) (uint32, error) {
	if _, _, err := m.guardConstant(r, "first"); err != nil {
		return 0, err
	}
	at := r.i
	unsigned, signed, err := m.guardConstant(r, "second")
	if err != nil {
		return 0, err
	}
	call := r.i
	op, err := r.byte()
	if err != nil {
		return 0, err
	}
	if op != opCall {
		return 0, refuse(LogGuardMissing, call, "no call of _g after the two constants at the start of a loop")
	}
	f, err := r.u32()
	if err != nil {
		return 0, err
	}
	if unsigned == 0 {
		return 0, refuse(LogGuardMissing, at, "a guard cannot allow 0 iterations")
	}
	if int64(f) != int64(m.guardFunc) {
		return 0, refuse(LogGuardMissing, call, "the function called at the start of a loop is not _g")
	}
	if uint32(signed) != unsigned {
		// The network reads the bound as an unsigned number, the code that runs
		// as a signed one; 0x7f would be 127 to the one, 4294967295 to the other.
		return 0, refuse(LogGuardParameters, at, "the bound of a guard reads as %d and as %d", unsigned, uint32(signed))
	}
	return unsigned, nil
}

func (m *module) guardConstant(r *reader, which string) (unsigned uint32, signed int64, err error) {
	start := r.i
	op, err := r.byte()
	if err != nil {
		return 0, 0, err
	}
	if op != opI32Const {
		return 0, 0, refuse(LogGuardMissing, start, "no %s i32.const after a loop", which)
	}
	at := r.i
	if signed, err = r.signed(32); err != nil {
		return 0, 0, err
	}
	var v uint64
	for i, shift := at, 0; i < r.i; i, shift = i+1, shift+7 {
		v |= uint64(r.b[i]&0x7f) << shift
	}
	return uint32(v), signed, nil
}
