package hook

import (
	"slices"
	"testing"
)

// builder makes modules by hand, good ones and bad ones. Its functions 0 to 2 are
// _g, accept and rollback, type 0 is that of hook.
type builder struct {
	types    [][]byte // contents of function types
	imports  []imported
	funcs    []uint32
	table    []byte
	memory   []byte
	globals  []byte
	exports  []exported
	start    []byte
	elements []byte
	locals   []byte
	bodies   [][]byte
	data     []byte
	after    []byte // sections that do not belong
}

type imported struct {
	module, name string
	kind         byte
	typ          uint32
}

type exported struct {
	name  string
	kind  byte
	index uint32
}

func newBuilder(body ...byte) *builder {
	return &builder{
		types:   [][]byte{{1, valI32, 1, valI64}, {2, valI32, valI32, 1, valI32}, {3, valI32, valI32, valI64, 1, valI64}},
		imports: []imported{{"env", "_g", 0, 1}, {"env", "accept", 0, 2}, {"env", "rollback", 0, 2}},
		funcs:   []uint32{0},
		memory:  []byte{1, 0, 1},
		exports: []exported{{"hook", 0, 3}},
		locals:  []byte{1, 1, valI32},
		bodies:  [][]byte{body},
	}
}

func (b *builder) with(f func(*builder)) *builder {
	f(b)
	return b
}

func vector[T any](items []T, write func([]byte, T) []byte) []byte {
	out := appendU32(nil, uint32(len(items)))
	for _, it := range items {
		out = write(out, it)
	}
	return out
}

func appendName(out []byte, s string) []byte {
	return append(appendU32(out, uint32(len(s))), s...)
}

func (b *builder) build() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, content []byte) {
		if content != nil {
			out = appendSection(out, id, content)
		}
	}
	section(secType, vector(b.types, func(o, t []byte) []byte { return append(append(o, 0x60), t...) }))
	if b.imports != nil {
		section(secImport, vector(b.imports, func(o []byte, i imported) []byte {
			o = appendName(appendName(o, i.module), i.name)
			return appendU32(append(o, i.kind), i.typ)
		}))
	}
	if b.funcs != nil {
		section(secFunction, vector(b.funcs, appendU32))
	}
	section(secTable, b.table)
	section(secMemory, b.memory)
	section(secGlobal, b.globals)
	if b.exports != nil {
		section(secExport, vector(b.exports, func(o []byte, e exported) []byte {
			return appendU32(append(appendName(o, e.name), e.kind), e.index)
		}))
	}
	section(secStart, b.start)
	section(secElement, b.elements)
	if b.bodies != nil {
		section(secCode, vector(b.bodies, func(o, body []byte) []byte {
			content := append(slices.Clone(b.locals), body...)
			return append(appendU32(o, uint32(len(content))), content...)
		}))
	}
	section(secData, b.data)
	return append(out, b.after...)
}

// Pieces of code.
var (
	// yes accepts and drops what accept returns: 5 instructions, of which the last
	// is never reached.
	yes = []byte{opI32Const, 0, opI32Const, 0, opI64Const, 0, opCall, 1, 0x1a}
	// zeroEnd is the end of a function that returns 0.
	zeroEnd = []byte{opI64Const, 0, opEnd}
)

func code(parts ...any) (out []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			out = append(out, byte(p))
		case byte:
			out = append(out, p)
		case []byte:
			out = append(out, p...)
		default:
			panic(p)
		}
	}
	return out
}

func i32(v int64) []byte { return appendI64([]byte{opI32Const}, v) }

// loop is a loop with a guard.
func loop(id, bound int64, body ...any) []byte {
	return code(opLoop, 0x40, i32(id), i32(bound), opCall, 0, 0x1a, code(body...), opEnd)
}

func repeat(n int, b ...byte) (out []byte) {
	for range n {
		out = append(out, b...)
	}
	return out
}

// finish ends a body with accept.
func finish(parts ...any) []byte { return code(code(parts...), yes, zeroEnd) }

func TestBuilderMakesGoodModules(t *testing.T) {
	m := newMachine(t, Config{})
	v, err := m.Validate(ctx, newBuilder(finish()...).build())
	if err != nil {
		t.Fatal(err)
	}
	if v.HookFee != 7 || v.HasCbak {
		t.Errorf("%+v", v)
	}
}
