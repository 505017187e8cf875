package hook

import (
	"math/rand/v2"
	"testing"
)

// runBody runs a hand-made hook.
func runBody(t testing.TB, m *Machine, code []byte) *Result {
	t.Helper()
	if _, err := m.Validate(ctx, code); err != nil {
		t.Fatal(err)
	}
	s := newScene(t, code)
	return s.run(t, m)
}

// Instructions are counted as the network's interpreter counts them.
func TestInstructionCount(t *testing.T) {
	m := newMachine(t, Config{})
	nop := []byte{0x01}
	const accepting = 4 // up to the call
	for name, c := range map[string]struct {
		body []byte
		want uint64
	}{
		"accept":           {finish(), accepting},
		"return at end":    {zeroEnd, 2},
		"return":           {code(opI64Const, 0, opReturn, zeroEnd), 2},
		"branch out":       {code(opI64Const, 0, opBr, 0, zeroEnd), 3},
		"branch from deep": {code(opBlock, 0x40, opI64Const, 0, opBr, 1, opEnd, zeroEnd), 4},
		"block":            {finish(opBlock, 0x40, nop, opEnd), 3 + accepting},
		"branch to end":    {finish(opBlock, 0x40, opBr, 0, nop, opEnd), 3 + accepting},
		"taken":            {finish(opBlock, 0x40, i32(1), opBrIf, 0, nop, opEnd), 4 + accepting},
		"not taken":        {finish(opBlock, 0x40, i32(0), opBrIf, 0, nop, opEnd), 5 + accepting},
		"if":               {finish(i32(1), opIf, 0x40, nop, opEnd), 4 + accepting},
		"if not":           {finish(i32(0), opIf, 0x40, nop, nop, opEnd), 3 + accepting},
		"if else":          {finish(i32(1), opIf, 0x40, nop, opElse, nop, nop, opEnd), 5 + accepting},
		"else":             {finish(i32(0), opIf, 0x40, nop, opElse, nop, nop, opEnd), 6 + accepting},
		"branch in if":     {finish(i32(1), opIf, 0x40, opBr, 0, opElse, opEnd), 4 + accepting},
		"empty else":       {finish(i32(0), opIf, 0x40, opElse, opEnd), 4 + accepting},
		"loop once":        {finish(loop(1, 1)), 6 + accepting},
		// Three rounds: loop, two constants, call and drop, the condition's get,
		// constant, subtraction and tee, and br_if; at last the end.
		"loop":    {finish(i32(3), 0x21, 1, loop(1, 3, 0x20, 1, i32(1), 0x6b, 0x22, 1, opBrIf, 0)), 2 + 3*10 + 1 + accepting},
		"table 0": {finish(opBlock, 0x40, opBlock, 0x40, i32(0), opBrTable, 1, 0, 1, opEnd, nop, opEnd), 7 + accepting},
		"table 1": {finish(opBlock, 0x40, opBlock, 0x40, i32(7), opBrTable, 1, 0, 1, opEnd, nop, opEnd), 5 + accepting},
		// The guard's third call ends the run, and counts.
		"violated": {finish(loop(1, 2, opBr, 0)), 2*6 + 4},
	} {
		if r := runBody(t, m, newBuilder(c.body...).build()); r.Instructions != c.want {
			t.Errorf("%s: %d instructions, want %d (%v)", name, r.Instructions, c.want, r.Exit)
		}
	}
	trap := runBody(t, m, newBuilder(finish(opUnreachable)...).build())
	if trap.Instructions != 0 || trap.Exit != Failed || trap.Code != -1 {
		t.Errorf("trap: %+v", trap)
	}
}

// program is a random program of blocks, loops and branches, for an interpreter
// that counts by itself.
type program []node

type node struct {
	op   byte // opBlock, opLoop, opIf, opBr, opBrIf, opBrTable, opReturn, 0x01, or opCall for accept
	cond int32
	// body and other are the contents of a block, and what follows else.
	body, other program
	hasElse     bool
	labels      []uint32
	id          int64
}

type maker struct {
	r    *rand.Rand
	left int
	ids  int64
}

func (g *maker) program(depth int) program {
	var p program
	for range g.r.IntN(5) {
		if g.left--; g.left < 0 {
			break
		}
		n := node{op: 0x01, cond: int32(g.r.IntN(3) - 1)}
		switch k := g.r.IntN(12); {
		case k < 6 && depth < 10:
			n.op = []byte{opBlock, opLoop, opIf}[k%3]
			n.body = g.program(depth + 1)
			if n.op == opIf && g.r.IntN(2) == 0 {
				n.hasElse, n.other = true, g.program(depth+1)
			}
			g.ids++
			n.id = g.ids
		case k == 7 || k == 6 && g.r.IntN(4) == 0:
			n.op = []byte{opBr, opBrIf}[k-6]
			n.labels = []uint32{g.r.Uint32N(uint32(depth) + 1)}
		case k == 8 && g.r.IntN(3) == 0:
			n.op = opBrTable
			for range 1 + g.r.IntN(3) {
				n.labels = append(n.labels, g.r.Uint32N(uint32(depth)+1))
			}
		case k == 9 && g.r.IntN(20) == 0:
			n.op = opReturn
		case k == 10 && g.r.IntN(20) == 0:
			n.op = opCall
		}
		p = append(p, n)
	}
	return p
}

// bound of every loop of a program.
const loopBound = 3

// write gives the program as code. Branches to the function leave 0 for its result.
func (p program) write(depth uint32) (out []byte) {
	for _, n := range p {
		switch n.op {
		case opBlock:
			out = append(out, code(opBlock, 0x40, n.body.write(depth+1), opEnd)...)
		case opLoop:
			out = append(out, loop(n.id, loopBound, n.body.write(depth+1))...)
		case opIf:
			out = append(out, code(i32(int64(n.cond)), opIf, 0x40, n.body.write(depth+1))...)
			if n.hasElse {
				out = append(append(out, opElse), n.other.write(depth+1)...)
			}
			out = append(out, opEnd)
		case opBr:
			out = append(out, code(opBr, appendU32(nil, n.labels[0]))...)
		case opBrIf:
			out = append(out, code(i32(int64(n.cond)), opBrIf, appendU32(nil, n.labels[0]))...)
		case opBrTable:
			out = append(out, i32(int64(n.cond))...)
			out = appendU32(append(out, opBrTable), uint32(len(n.labels)-1))
			for _, l := range n.labels {
				out = appendU32(out, l)
			}
		case opReturn:
			out = append(out, opI64Const, 0, opReturn)
		case opCall:
			out = append(out, yes...)
		default:
			out = append(out, 0x01)
		}
	}
	return out
}

// Where an interpreter goes on: in sequence, at a label, or nowhere.
const (
	goesOn  = -1
	returns = -2
	ends    = -3
)

type counter struct {
	n      uint64
	guards map[int64]int
}

func (c *counter) run(p program) int {
	for _, n := range p {
		to := goesOn
		switch n.op {
		case opBlock:
			c.n++
			if to = c.run(n.body); to == goesOn || to == 0 {
				c.n++ // its end, by both ways
			}
		case opLoop:
			for {
				c.n += 4 // the loop and its guard
				if c.guards[n.id]++; c.guards[n.id] > loopBound {
					return ends
				}
				c.n++
				if to = c.run(n.body); to != 0 {
					break
				}
			}
			if to == goesOn {
				c.n++
			}
		case opIf:
			c.n += 2
			switch {
			case n.cond != 0:
				if to = c.run(n.body); to == goesOn && n.hasElse {
					c.n++
				}
			case n.hasElse:
				c.n++
				to = c.run(n.other)
			}
			if to == goesOn || to == 0 {
				c.n++
			}
		case opBr:
			c.n++
			return int(n.labels[0])
		case opBrIf:
			c.n += 2
			if n.cond != 0 {
				return int(n.labels[0])
			}
		case opBrTable:
			c.n += 2
			i := len(n.labels) - 1
			if n.cond >= 0 && int(n.cond) < i {
				i = int(n.cond)
			}
			return int(n.labels[i])
		case opReturn:
			c.n += 2
			return returns
		case opCall:
			c.n += 4
			return ends
		default:
			c.n++
		}
		switch {
		case to > 0:
			return to - 1 // past a block that the label does not name
		case to == returns, to == ends:
			return to
		}
	}
	return goesOn
}

// An interpreter that counts step by step and the meter agree on random programs.
func TestMeterAgreesWithAnInterpreter(t *testing.T) {
	m := newMachine(t, Config{Modules: 4})
	r := rand.New(rand.NewPCG(7, 11))
	longest := uint64(0)
	for i := range 400 {
		g := &maker{r: r, left: 150}
		p := g.program(0)
		// The program is in a block, so that branches out of it end in accept.
		whole := program{{op: opBlock, body: p}}
		body := finish(whole.write(0))
		c := &counter{guards: make(map[int64]int)}
		switch c.run(whole) {
		case goesOn, 0:
			c.n += 4
		}
		module := newBuilder(body...).build()
		v, err := Check(module)
		if err != nil {
			continue // too long
		}
		got := runBody(t, m, module).Instructions
		if got != c.n {
			t.Fatalf("program %d: %d instructions, the interpreter counts %d\n%x", i, got, c.n, body)
		}
		// The price covers what runs, but for the guards and returns to loops that
		// the network forgets: four instructions a round.
		if guards := uint64(0); got > v.HookFee {
			for _, n := range c.guards {
				guards += uint64(n)
			}
			if got > v.HookFee+4*guards {
				t.Errorf("program %d: %d instructions for %d", i, got, v.HookFee)
			}
		}
		longest = max(longest, got)
	}
	t.Logf("the longest program took %d instructions", longest)
	if longest < 100 {
		t.Errorf("the longest program took %d instructions", longest)
	}
}

// The meter finds a name that the module does not use, and its global is not in
// reach of the hook.
func TestMeterName(t *testing.T) {
	m := newMachine(t, Config{})
	b := newBuilder(finish(0x23, 0, 0x1a)...).with(func(b *builder) {
		b.globals = []byte{1, valI32, 0, opI32Const, 5, opEnd}
		b.exports = append(b.exports, exported{"m", 3, 0}, exported{"m'", 3, 0})
	})
	if r := runBody(t, m, b.build()); r.Instructions != 6 {
		t.Errorf("%d instructions", r.Instructions)
	}
	for name, b := range map[string]*builder{
		"written":  newBuilder(finish(opI64Const, 0, opGlobalSet, 0)...),
		"read":     newBuilder(finish(opGlobalGet, 0, 0x1a)...),
		"exported": newBuilder(finish()...).with(func(b *builder) { b.exports = append(b.exports, exported{"x", 3, 0}) }),
		"overflow": newBuilder(finish()...).with(func(b *builder) { b.exports = append(b.exports, exported{"x", 3, 0xffffffff}) }),
		"constant": newBuilder(finish()...).with(func(b *builder) { b.data = []byte{1, 0, opGlobalGet, 0, opEnd, 0} }),
	} {
		if _, err := m.Validate(ctx, b.build()); err == nil {
			t.Errorf("the meter can be %s", name)
		}
	}
}
