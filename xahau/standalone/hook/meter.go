package hook

// The network reports how many instructions a run took (HookInstructionCount), as
// its interpreter counts them. A compiler has no such count, so the meter rewrites
// hook and cbak before they are compiled: a global variable, exported to the
// machine, is advanced at the beginning of every piece of code that runs from its
// first instruction to its last.
//
// How the interpreter counts: every instruction once each time it is reached, the
// immediates of a loop's guard included. A branch back to a loop reaches the loop
// instruction again; a branch out of a block or if reaches its end; both ways
// through an if with else reach the else. A function's last end is reached unless
// the function returns by return. An instruction that ends the run (the call of
// accept) counts.

// instrument gives the module with the meter in it, and the name under which the
// global is exported.
func (m *module) instrument() (code []byte, global string) {
	global = "m"
	for taken := true; taken; {
		taken = false
		for _, e := range m.exports {
			if e == global {
				taken, global = true, global+"'"
				break
			}
		}
	}
	out := make([]byte, 0, len(m.code)*3/2)
	out = append(out, m.code[:8]...)
	wroteGlobals := false
	for _, s := range m.sections {
		if s.id > secGlobal && !wroteGlobals {
			out = appendSection(out, secGlobal, m.meterGlobals(section{}))
			wroteGlobals = true
		}
		content := m.code[s.start:s.end]
		switch s.id {
		case secTable:
			content = m.boundedTables(s)
		case secGlobal:
			content = m.meterGlobals(s)
			wroteGlobals = true
		case secExport:
			content = m.meterExports(s, global)
		case secCode:
			content = m.meterCode()
		}
		out = appendSection(out, s.id, content)
	}
	return out, global
}

func appendSection(out []byte, id byte, content []byte) []byte {
	out = append(out, id)
	out = appendU32(out, uint32(len(content)))
	return append(out, content...)
}

func appendU32(out []byte, v uint32) []byte {
	for v >= 0x80 {
		out = append(out, byte(v)|0x80)
		v >>= 7
	}
	return append(out, byte(v))
}

func appendI64(out []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(out, c)
		}
		out = append(out, c|0x80)
	}
}

// afterCount gives what follows the count of items at the start of a section.
func (m *module) afterCount(s section) []byte {
	if s.end == 0 {
		return nil
	}
	r := &reader{b: m.code, i: s.start, end: s.end}
	if _, err := r.u32(); err != nil {
		return nil
	}
	return m.code[r.i:s.end]
}

func (m *module) meterGlobals(s section) []byte {
	out := appendU32(nil, uint32(m.globals+1))
	out = append(out, m.afterCount(s)...)
	return append(out, valI64, 1, opI64Const, 0, opEnd)
}

func (m *module) meterExports(s section, name string) []byte {
	out := appendU32(nil, uint32(len(m.exports)+1))
	out = append(out, m.afterCount(s)...)
	out = appendU32(out, uint32(len(name)))
	out = append(out, name...)
	out = append(out, 3)
	return appendU32(out, uint32(m.globals))
}

// boundedTables gives every table the largest size that the machine allows, so
// that table.grow fails beyond it instead of taking memory.
func (m *module) boundedTables(s section) []byte {
	r := &reader{b: m.code, i: s.start, end: s.end}
	n, err := r.count()
	if err != nil {
		return m.code[s.start:s.end]
	}
	out := appendU32(nil, uint32(n))
	for range n {
		typ, _ := r.byte()
		flag, _ := r.byte()
		low, _ := r.u32()
		high := uint32(maxTableEntries)
		if flag == 1 {
			own, _ := r.u32()
			if own < low {
				// Invalid, and for the compiler to refuse.
				high = own
			} else {
				high = min(own, maxTableEntries)
			}
		}
		out = append(out, typ, 1)
		out = appendU32(out, low)
		out = appendU32(out, high)
	}
	return out
}

func (m *module) meterCode() []byte {
	out := appendU32(nil, uint32(len(m.bodies)))
	for j, b := range m.bodies {
		content := m.code[b.start:b.end]
		if j == m.hookFunc || j == m.cbakFunc {
			content = m.meterBody(b)
		}
		out = appendU32(out, uint32(len(content)))
		out = append(out, content...)
	}
	return out
}

// piece is a stretch of code that runs as a whole.
type piece struct {
	code  []byte
	count int64
}

func (m *module) meterBody(b body) []byte {
	out := make([]byte, 0, (b.end-b.start)*2)
	out = append(out, m.code[b.start:b.code]...)
	var p piece
	flush := func() {
		if p.count > 0 {
			out = append(out, opGlobalGet)
			out = appendU32(out, uint32(m.globals))
			out = append(out, opI64Const)
			out = appendI64(out, p.count)
			out = append(out, opI64Add, opGlobalSet)
			out = appendU32(out, uint32(m.globals))
		}
		out = append(out, p.code...)
		p = piece{code: p.code[:0]}
	}
	// The body goes into a block of its own, so that branches to the function's
	// label pass by its last end, which counts.
	out = append(out, opBlock, valI64)
	r := &reader{b: m.code, i: b.code, end: b.end}
	depth := 0
	for r.left() > 0 {
		start := r.i
		ins, err := r.instruction()
		if err != nil {
			// The check has read the same code.
			return m.code[b.start:b.end]
		}
		text := m.code[start:r.i]
		switch ins.op {
		case opBlock, opIf:
			depth++
			p.code = append(p.code, text...)
			p.count++
			if ins.op == opIf {
				flush()
			}
		case opLoop:
			depth++
			p.code = append(p.code, text...)
			flush()
			p.count++
		case opElse:
			p.count++ // reached at the end of the one way
			p.code = append(p.code, text...)
			flush()
			p.count++ // and by jumping to the other
		case opEnd:
			p.code = append(p.code, text...)
			flush()
			p.count++
			if depth--; depth < 0 {
				// This end closed our block.
				p.code = append(p.code, opEnd)
				flush()
				return out
			}
		case opBr, opBrIf, opBrTable, opReturn, opUnreachable:
			p.code = append(p.code, text...)
			p.count++
			flush()
		case opCall:
			p.code = append(p.code, text...)
			p.count++
			for _, f := range m.exitFuncs {
				if f == ins.arg {
					flush()
					break
				}
			}
		default:
			p.code = append(p.code, text...)
			p.count++
		}
	}
	return m.code[b.start:b.end]
}
