package hook

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/xfl"
)

// slot holds an object or a field of one: its code, and its value in serialized
// form.
type slot struct {
	code  field.Code
	value []byte
}

// Codes of whole objects, which are no fields of any other.
const (
	wholeTransaction field.Code = 10001<<16 | 257
	wholeEntry       field.Code = 10002<<16 | 257
	wholeMetadata    field.Code = 10004<<16 | 257
	// Metadata that was made here is a field's object on the network.
	madeMetadata field.Code = typeObject<<16 | 2
)

func (s slot) isObject() bool {
	return s.code.Type() == typeObject || s.code.Type() > 10000
}

// noFreeSlot tells whether all slots are taken.
func (r *run) noFreeSlot() bool { return len(r.slots) >= maxSlots }

// freeSlot finds a free slot the way the network does: first those that were
// cleared, in the order in which they were, even if they are in use again.
func (r *run) freeSlot() (uint32, bool) {
	if len(r.slotsFree) > 0 {
		n := r.slotsFree[0]
		r.slotsFree = r.slotsFree[1:]
		return n, true
	}
	for {
		r.slotCounter++
		if r.slotCounter > maxSlots {
			return 0, false
		}
		if _, taken := r.slots[r.slotCounter]; !taken {
			return r.slotCounter, true
		}
	}
}

// put fills a slot, or a free one if n is 0, and gives its number.
func (r *run) put(n uint32, s slot) Code {
	if n == 0 {
		if r.noFreeSlot() {
			return NoFreeSlots
		}
		free, ok := r.freeSlot()
		if !ok {
			return NoFreeSlots
		}
		n = free
	}
	if r.slots == nil {
		r.slots = make(map[uint32]slot)
	}
	r.slots[n] = s
	return Code(n)
}

// fieldValue is a field's value as hooks get it: accounts without length prefix.
func fieldValue(code field.Code, value []byte) []byte {
	if code.Type() == typeAccount && len(value) > 0 {
		return value[1:]
	}
	return value
}

func (r *run) slotRead(p []uint64) Code {
	ptr, length, n := lo(p[0]), lo(p[1]), lo(p[2])
	if ptr == 0 {
		if length != 0 {
			return InvalidArgument
		}
	} else {
		if r.outside(ptr, length) {
			return OutOfBounds
		}
		if length < 1 {
			return TooSmall
		}
	}
	s, ok := r.slots[n]
	if !ok {
		return DoesntExist
	}
	return r.give(ptr, length, fieldValue(s.code, s.value))
}

func (r *run) slotClear(p []uint64) Code {
	n := lo(p[0])
	if _, ok := r.slots[n]; !ok {
		return DoesntExist
	}
	delete(r.slots, n)
	r.slotsFree = append(r.slotsFree, n)
	return 1
}

func (r *run) slotCount(p []uint64) Code {
	s, ok := r.slots[lo(p[0])]
	if !ok {
		return DoesntExist
	}
	if s.code.Type() != typeArray {
		return NotAnArray
	}
	r.spend(len(s.value) * priceByte)
	return Code(len(items(s.value)))
}

// slotSet loads an entry by its keylet, or a transaction by its id.
func (r *run) slotSet(p []uint64) Code {
	ptr, length, n := lo(p[0]), lo(p[1]), lo(p[2])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if length != 32 && length != keylet.Size || n > maxSlots {
		return InvalidArgument
	}
	if n == 0 && r.noFreeSlot() {
		return NoFreeSlots
	}
	b := r.bytes(ptr, length)
	if length == 32 {
		r.spend(priceLookup)
		tx, err := r.c.Ledger.Transaction(xahau.Hash256(b))
		if err != nil {
			r.abort(err)
		}
		if tx == nil {
			return DoesntExist
		}
		return r.put(n, slot{wholeTransaction, tx})
	}
	k, err := keylet.FromBytes(b)
	if err != nil || k.Index.IsZero() {
		return DoesntExist
	}
	e := r.entry(k.Index)
	if e == nil || !isEntryOf(e, k.Type) {
		return DoesntExist
	}
	return r.put(n, slot{wholeEntry, e})
}

// isEntryOf tells whether an entry is of the type of a keylet.
func isEntryOf(entry []byte, t xahau.EntryType) bool {
	p, ok := findPart(entry, field.LedgerEntryType)
	if !ok {
		return false
	}
	is := xahau.EntryType(binary.BigEndian.Uint16(p.body))
	switch t {
	case entryAny:
		return true
	case entryChild:
		return is != xahau.EntryDirectoryNode
	}
	return is == t
}

func (r *run) slotSize(p []uint64) Code {
	s, ok := r.slots[lo(p[0])]
	if !ok {
		return DoesntExist
	}
	return Code(len(s.value))
}

func (r *run) slotSubarray(p []uint64) Code {
	parent, index, n := lo(p[0]), lo(p[1]), lo(p[2])
	s, ok := r.slots[parent]
	switch {
	case !ok:
		return DoesntExist
	case s.code.Type() != typeArray:
		return NotAnArray
	case n == 0 && r.noFreeSlot():
		return NoFreeSlots
	case n > maxSlots:
		return InvalidArgument
	}
	r.spend(len(s.value) * priceByte)
	it, ok := item(s.value, index)
	if !ok {
		return DoesntExist
	}
	return r.put(n, slot{it.code, it.value})
}

func (r *run) slotSubfield(p []uint64) Code {
	parent, id, n := lo(p[0]), field.Code(lo(p[1])), lo(p[2])
	s, ok := r.slots[parent]
	switch {
	case !ok:
		return DoesntExist
	case n == 0 && r.noFreeSlot():
		return NoFreeSlots
	case n > maxSlots:
		return InvalidArgument
	case !r.known(id):
		return InvalidField
	case !s.isObject():
		return NotAnObject
	}
	r.spend(len(s.value) * priceByte)
	f, ok := findPart(s.value, id)
	if !ok {
		return DoesntExist
	}
	return r.put(n, slot{f.code, f.value})
}

func (r *run) slotType(p []uint64) Code {
	s, ok := r.slots[lo(p[0])]
	if !ok {
		return DoesntExist
	}
	switch lo(p[1]) {
	case 0:
		return Code(s.code)
	case 1:
		if s.code.Type() != typeAmount {
			return NotAnAmount
		}
		if len(s.value) == 8 {
			return 1
		}
		return 0
	}
	return InvalidArgument
}

// slotFloat gives an amount as a number, native ones in units of a million drops.
func (r *run) slotFloat(p []uint64) Code {
	s, ok := r.slots[lo(p[0])]
	if !ok {
		return DoesntExist
	}
	if s.code.Type() != typeAmount {
		return NotAnAmount
	}
	if len(s.value) == 8 {
		f, err := xfl.FromDrops(nativeDrops(s.value))
		return floatResult(r, f, err)
	}
	f, err := xfl.FromIssued(binary.BigEndian.Uint64(s.value))
	return floatResult(r, f, err)
}

// metaSlot loads the metadata of the transaction that was applied.
func (r *run) metaSlot(p []uint64) Code {
	n := lo(p[0])
	if r.c.Meta == nil || r.call.Mode == Strong {
		return PrerequisiteNotMet
	}
	if n > maxSlots {
		return InvalidArgument
	}
	return r.put(n, slot{madeMetadata, r.c.Meta})
}

// xpopSlot loads the transaction and the metadata that an Import proves to be on
// another network.
func (r *run) xpopSlot(p []uint64) Code {
	tx, meta := lo(p[0]), lo(p[1])
	if r.c.Tx.typ != xahau.TxImport {
		return PrerequisiteNotMet
	}
	if tx > maxSlots || meta > maxSlots {
		return InvalidArgument
	}
	needed := 0
	if tx == 0 {
		needed++
	}
	if meta == 0 {
		needed++
	}
	if maxSlots-len(r.slots) < needed {
		return NoFreeSlots
	}
	if needed == 0 && tx == meta {
		return InvalidArgument
	}
	// Slots are allocated before the proof is read, and stay so if it is bad.
	for _, n := range []*uint32{&tx, &meta} {
		if *n == 0 {
			free, ok := r.freeSlot()
			if !ok {
				return NoFreeSlots
			}
			*n = free
		}
	}
	innerTx, innerMeta, err := r.innerTransaction()
	if err != nil {
		return InvalidTxn
	}
	r.put(tx, slot{wholeTransaction, innerTx})
	r.put(meta, slot{wholeMetadata, innerMeta})
	return Code(uint64(tx)<<16 | uint64(meta))
}

func (r *run) innerTransaction() (tx, meta []byte, err error) {
	blob, ok := r.c.Tx.fields.get(field.Blob)
	if !ok {
		return nil, nil, errors.New("no proof")
	}
	r.spend(len(blob.body) * 20)
	var proof struct {
		Transaction struct {
			Blob string `json:"blob"`
			Meta string `json:"meta"`
		} `json:"transaction"`
	}
	if err := json.Unmarshal(blob.body, &proof); err != nil {
		return nil, nil, err
	}
	if tx, err = hex.DecodeString(proof.Transaction.Blob); err != nil {
		return nil, nil, err
	}
	if meta, err = hex.DecodeString(proof.Transaction.Meta); err != nil {
		return nil, nil, err
	}
	for _, b := range [][]byte{tx, meta} {
		if len(b) == 0 {
			return nil, nil, errWire
		}
		if _, err = parts(b); err != nil {
			return nil, nil, err
		}
	}
	return tx, meta, nil
}
