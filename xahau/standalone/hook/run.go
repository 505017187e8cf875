package hook

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"

	"github.com/tetratelabs/wazero/sys"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

// run is one run of a hook.
type run struct {
	c    *Context
	call *Call
	log  *slog.Logger

	mem    []byte
	noMem  bool
	budget int64
	err    error // a failure of the ledger's store, or of the context
	done   <-chan struct{}
	doneIs func() error

	ended  bool
	result Result

	known       func(field.Code) bool
	guards      map[uint32]*uint32
	guardID     uint32 // the guard that was called last, and its count
	guardCount  *uint32
	ownScale    int64 // of the account's state, once it is known
	slots       map[uint32]slot
	slotsFree   []uint32
	slotCounter uint32
	emitNonces  uint16
	nonces      map[xahau.Hash256]bool
	nonceCount  uint16
	reserved    int64 // transactions that etxn_reserve was called for; -1 before
	overrides   int
	skips       map[xahau.Hash256]bool
	noForeign   bool
	traced      int
	failed      *Transaction // of a callback for a transaction that expired
}

// Prices of host functions in units of the budget, each about a nanosecond on a
// machine of 2024. They are rough on purpose: what counts is that no sequence of
// calls takes long, and that the same calls cost the same everywhere.
const (
	priceCall      = 200
	priceByte      = 1
	priceHashByte  = 3
	priceLookup    = 5_000
	priceVerify    = 100_000
	priceEmission  = 100_000
	priceKeylet    = 2_000
	priceFloat     = 500
	priceStep      = 20
	maxTracedBytes = 1 << 16
)

// errEnd is what a host function panics with to end the run.
var errEnd = sys.NewExitError(0)

func (r *run) end() { panic(errEnd) }

// spend takes from the budget, and ends the run when it is used up.
func (r *run) spend(n int) {
	if r.budget -= int64(n); r.budget < 0 {
		r.fail()
	}
}

// fail ends the run as a trap does.
func (r *run) fail() {
	r.result.Exit, r.result.Code, r.result.Reason = Failed, -1, nil
	r.ended = true
	r.end()
}

// abort ends the run with an error that is not the hook's.
func (r *run) abort(err error) {
	r.err = err
	r.fail()
}

// enter is called before every host function.
func (r *run) enter() {
	if r.noMem {
		r.fail()
	}
	select {
	case <-r.done:
		r.abort(r.doneIs())
	default:
	}
	r.spend(priceCall)
}

// outside tells whether a buffer is not within the hook's memory. An empty buffer
// must begin within it too.
func (r *run) outside(ptr, length uint32) bool {
	return uint64(ptr) >= uint64(len(r.mem)) || uint64(ptr)+uint64(length) > uint64(len(r.mem))
}

// bytes gives a buffer that is known to be within memory.
func (r *run) bytes(ptr, length uint32) []byte {
	r.spend(int(length) * priceByte)
	return r.mem[ptr : ptr+length]
}

// write copies as much of data as fits into the buffer and gives its length.
func (r *run) write(ptr, length uint32, data []byte) Code {
	n := min(int64(len(data)), int64(length))
	if uint64(ptr)+uint64(n) > uint64(len(r.mem)) {
		return OutOfBounds
	}
	r.spend(int(n) * priceByte)
	copy(r.mem[ptr:], data[:n])
	return Code(n)
}

// give returns a value as the functions do that can also give it as a number: with
// ptr 0 the value itself is the result, else it is written whole.
func (r *run) give(ptr, length uint32, value []byte) Code {
	if len(value) == 0 {
		return 0
	}
	if ptr == 0 {
		return asNumber(value)
	}
	if int64(len(value)) > int64(length) {
		return TooSmall
	}
	return r.write(ptr, length, value)
}

// asNumber is a value of at most 8 bytes as a number, the highest byte first.
func asNumber(b []byte) Code {
	if len(b) > 8 {
		return TooBig
	}
	v := uint64(0)
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	if v>>63 != 0 {
		return TooBig
	}
	return Code(v)
}

// entry reads an entry of the ledger.
func (r *run) entry(index xahau.Hash256) []byte {
	r.spend(priceLookup)
	b, err := r.c.Ledger.Entry(index)
	if err != nil {
		r.abort(err)
	}
	return b
}

func (r *run) object(k keylet.Keylet) object {
	b := r.entry(k.Index)
	if b == nil {
		return nil
	}
	o, err := parts(b)
	if err != nil {
		r.abort(errors.Join(errors.New("entry "+k.Index.String()), err))
	}
	return o
}

// otxn is the transaction that otxn functions speak of.
func (r *run) otxn() *Transaction {
	if r.failed != nil {
		return r.failed
	}
	return r.c.Tx
}

func lo(v uint64) uint32 { return uint32(v) }

// guard is _g: it counts how often the code at a guard ran.
func (r *run) guard(p []uint64) Code {
	id, most := lo(p[0]), lo(p[1])
	if r.guardCount == nil || r.guardID != id {
		r.guardID = id
		if r.guardCount = r.guards[id]; r.guardCount == nil {
			r.guardCount = new(uint32)
			r.guards[id] = r.guardCount
		}
	}
	if *r.guardCount++; *r.guardCount > most {
		r.result.Exit, r.result.Code = Rollback, int64(GuardViolation)
		r.ended = true
		r.end()
	}
	return 1
}

func (r *run) accept(p []uint64) Code   { return r.exit(p, Accept) }
func (r *run) rollback(p []uint64) Code { return r.exit(p, Rollback) }

func (r *run) exit(p []uint64, how Exit) Code {
	ptr, length := lo(p[0]), min(lo(p[1]), maxReason)
	if ptr != 0 {
		if r.outside(ptr, length) {
			return OutOfBounds
		}
		r.result.Reason = append([]byte{}, plain(r.mem[ptr:ptr+length])...)
	}
	r.result.Exit, r.result.Code = how, int64(p[2])
	r.ended = true
	r.end()
	return 0
}

// plain makes plain text of what looks like UTF-16, which some compilers use.
func plain(b []byte) []byte {
	if len(b) == 0 || len(b)%2 != 0 {
		return b
	}
	for i := 0; i < len(b); i += 2 {
		if b[i] == 0 || b[i+1] != 0 {
			return b
		}
	}
	out := make([]byte, len(b)/2)
	for i := range out {
		out[i] = b[2*i]
	}
	return out
}

// begin prepares what a run needs besides the module.
func (r *run) begin(ctx context.Context) error {
	r.guards = make(map[uint32]*uint32)
	r.reserved = -1
	r.done, r.doneIs = ctx.Done(), ctx.Err
	r.result = Result{Hash: r.call.Hash, Account: r.call.Account, Mode: r.call.Mode, Exit: Unset, Code: -1}
	if r.call.Mode != Callback || r.c.Tx.typ != xahau.TxEmitFailure {
		return nil
	}
	// The callback of a transaction that expired sees that transaction. It is
	// still in the emitted directory.
	id, ok := r.c.Tx.fields.hash(field.TransactionHash)
	if !ok {
		return errors.New("EmitFailure without TransactionHash")
	}
	b, err := r.c.Ledger.Entry(keylet.EmittedTxn(id).Index)
	if err != nil {
		return err
	}
	if b == nil {
		return errors.New("EmitFailure for a transaction that is not in the emitted directory")
	}
	p, ok := findPart(b, field.EmittedTxn)
	if !ok {
		return errors.New("entry without EmittedTxn")
	}
	r.failed, err = NewTransaction(p.value, id)
	return err
}

func (r *run) mode() uint64 {
	switch r.call.Mode {
	case Weak:
		return 1
	case Again:
		return 2
	case Callback:
		if r.failed != nil {
			return 1
		}
	}
	return 0
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
