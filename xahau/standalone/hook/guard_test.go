package hook

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// Every way to be refused, by the network's name of it.
func TestRefused(t *testing.T) {
	ok := finish()
	good := func() *builder { return newBuilder(ok...) }
	// Every loop that is not as it should be.
	badLoop := func(parts ...any) []byte {
		return newBuilder(finish(opLoop, 0x40, code(parts...), opEnd)...).build()
	}
	guard := code(i32(1), i32(5), opCall, 0, 0x1a)
	for name, c := range map[string]struct {
		code []byte
		log  LogCode
	}{
		"empty":                 {nil, LogWasmTooSmall},
		"too small":             {make([]byte, 62), LogWasmTooSmall},
		"too big":               {make([]byte, MaxCode+1), LogWasmTooBig},
		"no magic":              {make([]byte, 100), LogWasmBadMagic},
		"version 2":             {append([]byte("\x00asm\x02\x00\x00\x00"), good().build()[8:]...), LogWasmBadMagic},
		"custom section":        {appendSection(good().build(), secCustom, []byte("\x04name")), LogCustomSection},
		"section twice":         {appendSection(good().build(), secCode, []byte{0}), LogSectionsOutOfSequence},
		"sections in disorder":  {appendSection(good().build(), secMemory, []byte{0}), LogSectionsOutOfSequence},
		"count of data":         {appendSection(good().build(), 12, []byte{0}), LogWasmValidation},
		"truncated":             {good().build()[:80], LogShortHook},
		"length too large":      {append(good().build(), secData, 100), LogShortHook},
		"endless number":        {append(good().build(), secData, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), LogWasmValidation},
		"no imports":            {good().with(func(b *builder) { b.imports = nil }).build(), LogImportsMissing},
		"empty imports":         {good().with(func(b *builder) { b.imports = []imported{} }).build(), LogImportsMissing},
		"import from elsewhere": {good().with(func(b *builder) { b.imports[1].module = "sys" }).build(), LogImportModuleEnv},
		"import from nowhere":   {good().with(func(b *builder) { b.imports[1].module = "" }).build(), LogImportModuleBad},
		"import of nothing":     {good().with(func(b *builder) { b.imports[1].name = "" }).build(), LogImportNameBad},
		"import of a memory":    {good().with(func(b *builder) { b.imports[1].kind = 2 }).build(), LogImportIllegal},
		"import of a stranger":  {good().with(func(b *builder) { b.imports[1].name = "exit" }).build(), LogImportIllegal},
		"import of the future":  {good().with(func(b *builder) { b.imports[1].name = "prepare" }).build(), LogImportIllegal},
		"no guard imported":     {good().with(func(b *builder) { b.imports[0].name, b.imports[0].typ = "accept", 2 }).build(), LogGuardImport},
		"no functions":          {good().with(func(b *builder) { b.funcs = []uint32{} }).build(), LogFuncsMissing},
		"no exports":            {good().with(func(b *builder) { b.exports = nil }).build(), LogExportsMissing},
		"empty exports":         {good().with(func(b *builder) { b.exports = []exported{} }).build(), LogExportsMissing},
		"no hook exported":      {good().with(func(b *builder) { b.exports[0].name = "hock" }).build(), LogExportMissing},
		"hook is a memory":      {good().with(func(b *builder) { b.exports[0].kind = 2 }).build(), LogExportHookFunc},
		"cbak is a memory":      {good().with(func(b *builder) { b.exports = append(b.exports, exported{"cbak", 2, 0}) }).build(), LogExportCbakFunc},
		"hook is an import":     {good().with(func(b *builder) { b.exports[0].index = 1 }).build(), LogFuncTypeless},
		"hook is not there":     {good().with(func(b *builder) { b.exports[0].index = 9 }).build(), LogFuncTypeless},
		"cbak is not there":     {good().with(func(b *builder) { b.exports = append(b.exports, exported{"cbak", 0, 9}) }).build(), LogFuncTypeless},
		"cbak is hook":          {good().with(func(b *builder) { b.exports = append(b.exports, exported{"cbak", 0, 3}) }).build(), LogHookCbakDiffTypes},
		"cbak is of another type": {good().with(func(b *builder) {
			b.exports = append(b.exports, exported{"cbak", 0, 4})
			b.funcs = append(b.funcs, 1)
			b.bodies = append(b.bodies, code(i32(0), opEnd))
		}).build(), LogHookCbakDiffTypes},
		"type of nothing":      {good().with(func(b *builder) { b.types = append(b.types, []byte{0, 1, valI64}) }).build(), LogFuncTypeInvalid},
		"type not there":       {good().with(func(b *builder) { b.imports[2].typ = 7 }).build(), LogFuncTypeInvalid},
		"hook without type":    {good().with(func(b *builder) { b.funcs[0] = 7 }).build(), LogFuncTypeInvalid},
		"hook takes two":       {good().with(func(b *builder) { b.types[0] = []byte{2, valI32, valI32, 1, valI64} }).build(), LogParamHookCbak},
		"hook takes a long":    {good().with(func(b *builder) { b.types[0] = []byte{1, valI64, 1, valI64} }).build(), LogParamHookCbak},
		"hook returns an int":  {good().with(func(b *builder) { b.types[0] = []byte{1, valI32, 1, valI32} }).build(), LogReturnHookCbak},
		"hook returns nothing": {good().with(func(b *builder) { b.types[0] = []byte{1, valI32, 0} }).build(), LogFuncReturnCount},
		"guard takes one":      {good().with(func(b *builder) { b.types[1] = []byte{1, valI32, 1, valI32} }).build(), LogFuncTypeInvalid},
		"guard takes longs":    {good().with(func(b *builder) { b.types[1] = []byte{2, valI64, valI32, 1, valI32} }).build(), LogFuncParamInvalid},
		"guard returns a long": {good().with(func(b *builder) { b.types[1] = []byte{2, valI32, valI32, 1, valI64} }).build(), LogFuncReturnInvalid},
		"guard takes vectors":  {good().with(func(b *builder) { b.types[1] = []byte{2, valVec, valI32, 1, valI32} }).build(), LogFuncParamInvalid},
		"guard returns itself": {good().with(func(b *builder) { b.types[1] = []byte{2, valI32, valI32, 1, valFunc} }).build(), LogFuncReturnInvalid},
		"two functions of one type": {good().with(func(b *builder) {
			b.imports = append(b.imports, imported{"env", "float_one", 0, 2})
			b.exports[0].index = 4
		}).build(), LogFuncTypeInvalid},
		"hook's type for an import": {good().with(func(b *builder) {
			b.imports = append(b.imports, imported{"env", "float_one", 0, 0})
			b.exports[0].index = 4
		}).build(), LogFuncTypeInvalid},
		"start function":    {good().with(func(b *builder) { b.start = []byte{3} }).build(), LogWasmValidation},
		"huge memory":       {good().with(func(b *builder) { b.memory = []byte{1, 0, MaxMemoryPages + 1} }).build(), LogWasmValidation},
		"two memories":      {good().with(func(b *builder) { b.memory = []byte{2, 0, 1, 0, 1} }).build(), LogWasmValidation},
		"shared memory":     {good().with(func(b *builder) { b.memory = []byte{1, 3, 1, 1} }).build(), LogWasmValidation},
		"huge table":        {good().with(func(b *builder) { b.table = []byte{1, valFunc, 0, 0xff, 0xff, 0x7f} }).build(), LogWasmValidation},
		"many tables":       {good().with(func(b *builder) { b.table = append([]byte{5}, repeat(5, valFunc, 0, 1)...) }).build(), LogWasmValidation},
		"many types":        {bytes.Replace(good().build(), []byte{3, 0x60}, []byte{0x7f, 0x60}, 1), LogShortHook},
		"many globals":      {good().with(func(b *builder) { b.globals = []byte{0xff, 0xff, 0xff, 0xff, 0x0f} }).build(), LogShortHook},
		"calls in a global": {good().with(func(b *builder) { b.globals = []byte{1, valI32, 0, opCall, 0, opEnd} }).build(), LogWasmValidation},
		"many elements":     {good().with(func(b *builder) { b.elements = []byte{1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f} }).build(), LogShortHook},
		"data too long":     {good().with(func(b *builder) { b.data = []byte{1, 0, opI32Const, 0, opEnd, 0xff, 0xff, 0x03} }).build(), LogShortHook},
		"many locals":       {good().with(func(b *builder) { b.locals = []byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f, valI32} }).build(), LogWasmValidation},
		"many locals with many blocks": {newBuilder(finish(repeat(2_000, opBlock, 0x40, opEnd))...).with(func(b *builder) {
			b.locals = code(1, appendU32(nil, 2_001), valI64)
		}).build(), LogWasmValidation},
		"many labels":        {newBuilder(finish(i32(1), opBrTable, appendU32(nil, maxLabels), repeat(maxLabels+1, 0))...).build(), LogWasmValidation},
		"locals of no type":  {good().with(func(b *builder) { b.locals = []byte{1, 1, valVec} }).build(), LogTypeInvalid},
		"function too many":  {good().with(func(b *builder) { b.bodies = append(b.bodies, zeroEnd) }).build(), LogWasmValidation},
		"function too few":   {good().with(func(b *builder) { b.funcs = append(b.funcs, 0) }).build(), LogWasmValidation},
		"no code":            {good().with(func(b *builder) { b.bodies = nil }).build(), LogWasmValidation},
		"body without end":   {newBuilder(yes...).build(), LogShortHook},
		"body without code":  {newBuilder().build(), LogShortHook},
		"code after the end": {newBuilder(finish(opEnd)...).build(), LogGuardMissing},
		"unknown op":         {newBuilder(finish(0x06)...).build(), LogGuardMissing},
		"tail call":          {newBuilder(finish(0x12, 1)...).build(), LogGuardMissing},
		"atomic op":          {newBuilder(finish(0xfe, 0)...).build(), LogGuardMissing},
		"grow":               {newBuilder(finish(i32(1), opMemoryGrow, 0, 0x1a)...).build(), LogMemoryGrow},
		"copy":               {newBuilder(finish(i32(1), i32(1), i32(1), opBulk, 10, 0, 0)...).build(), LogGuardMissing},
		"fill":               {newBuilder(finish(i32(1), i32(1), i32(1), opBulk, 11, 0)...).build(), LogGuardMissing},
		"call of itself":     {newBuilder(finish(i32(1), opCall, 3, 0x1a)...).build(), LogCallIllegal},
		"indirect call":      {newBuilder(finish(i32(1), i32(0), opCallInd, 0, 0, 0x1a)...).build(), LogCallIndirect},

		"loop without guard":    {badLoop(), LogGuardMissing},
		"guard after something": {badLoop(0x01, guard), LogGuardMissing},
		"guard in a block":      {badLoop(opBlock, 0x40, guard, opEnd), LogGuardMissing},
		"guard by variable":     {badLoop(0x20, 0, i32(5), opCall, 0, 0x1a), LogGuardMissing},
		"bound by variable":     {badLoop(i32(1), 0x20, 0, opCall, 0, 0x1a), LogGuardMissing},
		"no call":               {badLoop(i32(1), i32(5), 0x1a, 0x1a), LogGuardMissing},
		"call of another":       {badLoop(i32(1), i32(5), i32(5), opCall, 1, 0x1a), LogGuardMissing},
		"call of not guard":     {badLoop(i32(1), i32(5), opCall, 2, 0x1a), LogGuardMissing},
		"bound 0":               {badLoop(i32(1), i32(0), opCall, 0, 0x1a), LogGuardMissing},
		"bound of two meanings": {badLoop(i32(1), opI32Const, 0x7f, opCall, 0, 0x1a), LogGuardParameters},
		"bound below zero":      {badLoop(i32(1), opI32Const, 0xff, 0xff, 0xff, 0xff, 0x7f, opCall, 0, 0x1a), LogInstructionExcess},
		"too long a loop":       {newBuilder(finish(loop(1, 60_000, 0x01))...).build(), LogInstructionExcess},
		"too long in sum":       {newBuilder(finish(loop(1, 200, loop(2, 40_000)))...).build(), LogInstructionExcess},
		"too much code":         {newBuilder(finish(repeat(65_500, 0x01))...).build(), LogWasmTooBig},
		"nested too deeply":     {newBuilder(finish(repeat(17, opBlock, 0x40), repeat(17, opEnd))...).build(), LogNestingLimit},
		"too many guards":       {newBuilder(finish(repeat(1026, code(i32(1), i32(1), opCall, 0, 0x1a)...))...).build(), LogGuardMissing},
	} {
		_, err := Check(c.code)
		var refused *CodeError
		if !errors.As(err, &refused) || refused.Log != c.log {
			t.Errorf("%s: %v, want %v", name, err, c.log)
		}
	}
}

// The bound of instructions is the network's: what is in a loop counts as often as
// the guard allows, loops in loops by their own guards, and guards do not count.
func TestWorstCase(t *testing.T) {
	for name, c := range map[string]struct {
		body []byte
		want uint64
	}{
		"nothing":   {finish(), 7},
		"block":     {finish(opBlock, 0x40, 0x01, opEnd), 7 + 1 + 2},
		"both ways": {finish(i32(1), opIf, 0x40, 0x01, opElse, 0x01, opEnd), 7 + 2 + 4},
		// drop, nop and end run ten times; the loop itself once.
		"loop": {finish(loop(1, 10, 0x01)), 7 + 1 + 10*3},
		// The inner loop's guard counts all its iterations.
		"inner":        {finish(loop(1, 10, loop(2, 50))), 7 + 1 + 10*(3+10)},
		"inner rarely": {finish(loop(1, 10, loop(2, 5))), 7 + 1 + 10*(3+1)},
		"inner block":  {finish(loop(1, 10, opBlock, 0x40, 0x01, opEnd)), 7 + 1 + 10*(3+2)},
		"deepest":      {finish(repeat(16, opBlock, 0x40), repeat(16, opEnd)), 7 + 32},
		"most":         {finish(repeat(65_300, 0x01)), 7 + 65_300},
	} {
		v, err := Check(newBuilder(c.body...).build())
		if err != nil || v.HookFee != c.want {
			t.Errorf("%s: %d, %v, want %d", name, v.HookFee, err, c.want)
		}
	}
	two := newBuilder(finish()...).with(func(b *builder) {
		b.exports = append(b.exports, exported{"cbak", 0, 4}, exported{"memory", 2, 0})
		b.funcs = append(b.funcs, 0)
		b.bodies = append(b.bodies, finish(0x01, 0x01))
	})
	v, err := Check(two.build())
	if err != nil || v != (Verdict{HookFee: 7, CbakFee: 9, HasCbak: true}) {
		t.Errorf("%+v, %v", v, err)
	}
}

// A module that breaks in the compiler is refused with the network's code for it.
func TestWhatDoesNotCompileIsRefused(t *testing.T) {
	m := newMachine(t, Config{})
	for name, body := range map[string][]byte{
		"empty stack":   code(0x1a, zeroEnd),
		"wrong type":    code(opI32Const, 0, opEnd),
		"no such label": code(opBr, 9, zeroEnd),
		"no such local": code(0x20, 50, zeroEnd),
	} {
		_, err := m.Validate(ctx, newBuilder(body...).with(func(b *builder) { b.data = []byte{1, 0, opI32Const, 0, opEnd, 5, 1, 2, 3, 4, 5} }).build())
		var refused *CodeError
		if !errors.As(err, &refused) || refused.Log != LogWasmTestFailure {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLogCodesHaveNames(t *testing.T) {
	if s := LogGuardMissing.String(); s != "GUARD_MISSING" {
		t.Error(s)
	}
	if s := LogCode(999).String(); s != "HookSet(999)" {
		t.Error(s)
	}
}

// mutate changes some bytes of a module.
func mutate(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(4) {
		switch i := r.IntN(len(b)); r.IntN(4) {
		case 0:
			b[i] = byte(r.Uint32())
		case 1:
			b[i] ^= 1 << r.IntN(8)
		case 2:
			b = append(b[:i:i], b[i+1:]...)
		case 3:
			b = append(b[:i:i], append([]byte{byte(r.Uint32())}, b[i:]...)...)
		}
	}
	return b
}

func FuzzCheck(f *testing.F) {
	names, err := testHooks.ReadDir("testdata/hooks")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		b, err := testHooks.ReadFile("testdata/hooks/" + n.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(newBuilder(finish(loop(1, 10, loop(2, 50)))...).build())
	f.Fuzz(func(t *testing.T, code []byte) {
		m, err := inspect(code)
		if err != nil {
			return
		}
		if m.verdict.HookFee >= maxInstructions || m.verdict.CbakFee >= maxInstructions {
			t.Errorf("%+v", m.verdict)
		}
		// What is checked can be rewritten, and stays of the same structure.
		metered, _ := m.instrument()
		if len(metered) < len(code) {
			t.Errorf("%d bytes became %d", len(code), len(metered))
		}
	})
}
