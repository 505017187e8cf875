package hook

// Reading WebAssembly's binary format: numbers, and instructions with their
// immediates. The guard check and the meter walk code with the same reader, so
// they cannot disagree on where an instruction begins.

// Section ids.
const (
	secCustom   = 0
	secType     = 1
	secImport   = 2
	secFunction = 3
	secTable    = 4
	secMemory   = 5
	secGlobal   = 6
	secExport   = 7
	secStart    = 8
	secElement  = 9
	secCode     = 10
	secData     = 11
)

// Value types.
const (
	valI32  = 0x7f
	valI64  = 0x7e
	valF64  = 0x7c
	valVec  = 0x7b
	valFunc = 0x70
	valExt  = 0x6f
)

// Instructions with a meaning here.
const (
	opUnreachable = 0x00
	opBlock       = 0x02
	opLoop        = 0x03
	opIf          = 0x04
	opElse        = 0x05
	opEnd         = 0x0b
	opBr          = 0x0c
	opBrIf        = 0x0d
	opBrTable     = 0x0e
	opReturn      = 0x0f
	opCall        = 0x10
	opCallInd     = 0x11
	opSelectT     = 0x1c
	opGlobalGet   = 0x23
	opGlobalSet   = 0x24
	opMemoryGrow  = 0x40
	opI32Const    = 0x41
	opI64Const    = 0x42
	opI64Add      = 0x7c
	opRefNull     = 0xd0
	opRefFunc     = 0xd2
	opBulk        = 0xfc
	opVector      = 0xfd
)

// reader reads from i up to end.
type reader struct {
	b   []byte
	i   int
	end int
}

func (r *reader) left() int { return r.end - r.i }

func (r *reader) byte() (byte, error) {
	if r.i >= r.end {
		return 0, refuse(LogShortHook, r.i, "the module ends early")
	}
	c := r.b[r.i]
	r.i++
	return c, nil
}

func (r *reader) skip(n int) error {
	if n > r.left() {
		return refuse(LogShortHook, r.i, "the module ends early")
	}
	r.i += n
	return nil
}

// u32 reads an unsigned number of at most 5 bytes.
func (r *reader) u32() (uint32, error) {
	start := r.i
	var v uint64
	for shift := 0; ; shift += 7 {
		c, err := r.byte()
		if err != nil {
			return 0, err
		}
		v |= uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			break
		}
		if shift == 28 {
			return 0, refuse(LogWasmValidation, start, "a number has too many bytes")
		}
	}
	if v > 0xffff_ffff {
		return 0, refuse(LogWasmValidation, start, "a number is too large")
	}
	return uint32(v), nil
}

// signed reads a signed number of at most size bits.
func (r *reader) signed(size int) (int64, error) {
	start := r.i
	var v int64
	for shift := 0; ; shift += 7 {
		c, err := r.byte()
		if err != nil {
			return 0, err
		}
		v |= int64(c&0x7f) << shift
		if c&0x80 == 0 {
			if shift+7 < 64 && c&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			break
		}
		if shift+7 >= size {
			return 0, refuse(LogWasmValidation, start, "a number has too many bytes")
		}
	}
	if size < 64 && (v < -1<<(size-1) || v >= 1<<(size-1)) {
		return 0, refuse(LogWasmValidation, start, "a number is too large")
	}
	return v, nil
}

// count reads the length of a vector whose items take at least one byte each.
func (r *reader) count() (int, error) {
	start := r.i
	n, err := r.u32()
	if err != nil {
		return 0, err
	}
	if int64(n) > int64(r.left()) {
		return 0, refuse(LogShortHook, start, "%d items cannot be in the %d bytes left", n, r.left())
	}
	return int(n), nil
}

// instruction is an instruction with the immediates that matter here.
type instruction struct {
	op    byte
	sub   uint32 // of opBulk and opVector
	arg   uint32 // index, label or function
	arg2  uint32
	block int64    // block type, as it reads as a signed number
	table []uint32 // labels of opBrTable, the default last
}

func (r *reader) instruction() (ins instruction, err error) {
	start := r.i
	if ins.op, err = r.byte(); err != nil {
		return ins, err
	}
	switch op := ins.op; {
	case op == opBlock || op == opLoop || op == opIf:
		ins.block, err = r.signed(33)
	case op == opBr || op == opBrIf || op == opCall || op == opRefFunc,
		op >= 0x20 && op <= 0x26:
		ins.arg, err = r.u32()
	case op == opBrTable:
		n := 0
		if n, err = r.count(); err != nil {
			return ins, err
		}
		ins.table = make([]uint32, n+1)
		for i := range ins.table {
			if ins.table[i], err = r.u32(); err != nil {
				return ins, err
			}
		}
	case op == opCallInd || op >= 0x28 && op <= 0x3e:
		if ins.arg, err = r.u32(); err == nil {
			ins.arg2, err = r.u32()
		}
	case op == opSelectT:
		n := 0
		if n, err = r.count(); err != nil {
			return ins, err
		}
		for range n {
			t, err := r.byte()
			if err != nil {
				return ins, err
			}
			if (t < valVec || t > valI32) && t != valFunc && t != valExt {
				return ins, refuse(LogGuardMissing, start, "invalid type %#x in a select", t)
			}
		}
	case op == 0x3f || op == opMemoryGrow:
		err = r.skip(1)
	case op == opI32Const:
		_, err = r.signed(32)
	case op == opI64Const:
		_, err = r.signed(64)
	case op == 0x43:
		err = r.skip(4)
	case op == 0x44:
		err = r.skip(8)
	case op == opRefNull:
		t, err := r.byte()
		if err != nil {
			return ins, err
		}
		if t != valFunc && t != valExt {
			return ins, refuse(LogGuardMissing, start, "invalid reference type %#x", t)
		}
	case op == opBulk:
		err = r.bulk(&ins, start)
	case op == opVector:
		err = r.vector(&ins)
	case op <= opUnreachable+1 || op == opElse || op == opEnd || op == opReturn,
		op == 0x1a || op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
		// No immediates.
	default:
		return ins, refuse(LogGuardMissing, start, "unknown instruction %#x", op)
	}
	return ins, err
}

func (r *reader) bulk(ins *instruction, start int) (err error) {
	if ins.sub, err = r.u32(); err != nil {
		return err
	}
	switch ins.sub {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating truncation
		return nil
	case 10, 11:
		return refuse(LogGuardMissing, start, "memory.copy and memory.fill are not allowed")
	case 9, 13, 15, 16, 17: // data.drop, elem.drop, table.grow, size, fill
		_, err = r.u32()
		return err
	case 12, 14: // table.init, table.copy
		if _, err = r.u32(); err == nil {
			_, err = r.u32()
		}
		return err
	case 8: // memory.init
		if _, err = r.u32(); err == nil {
			err = r.skip(1)
		}
		return err
	}
	return refuse(LogGuardMissing, start, "illegal instruction 0xfc %d", ins.sub)
}

func (r *reader) vector(ins *instruction) (err error) {
	if ins.sub, err = r.u32(); err != nil {
		return err
	}
	v := ins.sub
	if v <= 11 || v >= 84 && v <= 93 { // loads and stores
		if _, err = r.u32(); err == nil {
			_, err = r.u32()
		}
		if err != nil {
			return err
		}
	}
	switch {
	case v >= 84 && v <= 91, v >= 21 && v <= 34: // a lane
		return r.skip(1)
	case v == 12 || v == 13: // a constant, a shuffle
		return r.skip(16)
	}
	return nil
}
