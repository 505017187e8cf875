package view

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/shamap"
	"evernode/xahau/ter"
)

func testLedger() Ledger {
	return Ledger{Seq: 7, Fees: Fees{Base: 10, Reserve: 1_000_000, Increment: 200_000}, Defs: xahau.DefaultDefinitions()}
}

func empty() *Closed { return NewClosed(shamap.New(shamap.State), testLedger()) }

func ticket(n uint32) (keylet.Keylet, *xahau.Object) {
	k := keylet.Ticket(xahau.AccountOne, n)
	o := NewEntry(k)
	o.Set(field.TicketSequence, xahau.Uint32(n))
	return k, o
}

// TestSandboxes makes random changes in a stack of sandboxes and compares with a
// map, in the middle and after everything was applied.
func TestSandboxes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	base := NewSandbox(empty())
	model := map[xahau.Hash256]uint32{}
	for round := range 300 {
		isolated := NewIsolated(base)
		stack := []*Sandbox{isolated, NewSandbox(isolated)}
		trial := map[xahau.Hash256]uint32{}
		for k, v := range model {
			trial[k] = v
		}
		for step := range 20 {
			top := stack[step/10]
			if step == 10 {
				// From here on only the inner one changes.
				top = stack[1]
			}
			k, o := ticket(uint32(r.IntN(40)))
			o.Set(field.Flags, xahau.Uint32(round*100+step))
			switch _, ok := trial[k.Index]; {
			case !ok:
				top.Insert(k, o)
				trial[k.Index] = o.Flags()
			case r.IntN(2) == 0:
				top.Update(k, o)
				trial[k.Index] = o.Flags()
			default:
				top.Erase(k)
				delete(trial, k.Index)
			}
			compare(t, top, trial)
		}
		if r.IntN(3) == 0 {
			compare(t, base, model)
			continue
		}
		stack[1].Apply(stack[0])
		compare(t, stack[0], trial)
		stack[0].Apply(base)
		model = trial
		compare(t, base, model)
	}
	if err := base.Err(); err != nil {
		t.Fatal(err)
	}
}

func compare(t *testing.T, r Reader, model map[xahau.Hash256]uint32) {
	t.Helper()
	var want []xahau.Hash256
	for k := range model {
		want = append(want, k)
	}
	slices.SortFunc(want, xahau.Hash256.Compare)
	var got []xahau.Hash256
	var low, high xahau.Hash256
	for i := range high {
		high[i] = 0xFF
	}
	for i, ok := r.Next(low, high); ok; i, ok = r.Next(i, high) {
		got = append(got, i)
		if o := r.Read(keylet.Keylet{Index: i}); o == nil || o.Flags() != model[i] {
			t.Fatalf("entry %s is %v, want flags %d", i, o, model[i])
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
}

// TestFailures checks that impossible changes are errors of the isolated sandbox
// and of no other.
func TestFailures(t *testing.T) {
	base := NewSandbox(empty())
	k, o := ticket(1)
	base.Insert(k, o)
	for name, f := range map[string]func(v View){
		"insert twice":      func(v View) { v.Insert(k, o) },
		"update nothing":    func(v View) { n, o := ticket(2); v.Update(n, o) },
		"erase nothing":     func(v View) { n, _ := ticket(2); v.Erase(n) },
		"erase twice":       func(v View) { v.Erase(k); v.Erase(k) },
		"update the erased": func(v View) { v.Erase(k); v.Update(k, o) },
		"no such account":   func(v View) { AddDrops(v, xahau.AccountOne, 1) },
		"no such owner":     func(v View) { AdjustOwnerCount(v, xahau.AccountOne, 1) },
	} {
		s := NewIsolated(base)
		f(NewSandbox(s))
		f(s)
		if s.Err() == nil {
			t.Errorf("%s: no error", name)
		}
		if base.Err() != nil {
			t.Fatalf("%s: %v", name, base.Err())
		}
		s.Discard()
		if s.Err() != nil {
			t.Errorf("%s: the error stays", name)
		}
	}
}

// TestDirectories adds and removes random indexes and compares with a list.
func TestDirectories(t *testing.T) {
	for _, keepOrder := range []bool{false, true} {
		for _, keepRoot := range []bool{false, true} {
			t.Run(fmt.Sprintf("order %v root %v", keepOrder, keepRoot), func(t *testing.T) {
				r := rand.New(rand.NewPCG(3, 4))
				v := NewSandbox(empty())
				root := keylet.OwnerDirectory(xahau.AccountOne)
				type at struct {
					index xahau.Hash256
					page  uint64
				}
				var model []at
				next := byte(0)
				for step := range 6000 {
					// The list grows and shrinks in waves.
					if grow := r.IntN(100) < 70-step/1000%2*45; grow || len(model) == 0 {
						next++
						index := xahau.Sha512Half([]byte{next, byte(step), byte(step >> 8)})
						add := DirInsert
						if keepOrder {
							add = DirAppend
						}
						page, ok := add(v, root, index, OwnedBy(xahau.AccountOne))
						if !ok {
							t.Fatal("full")
						}
						model = append(model, at{index, page})
					} else {
						i := r.IntN(len(model))
						if !DirRemove(v, root, model[i].page, model[i].index, keepRoot) {
							t.Fatalf("step %d: an index is gone", step)
						}
						model = slices.Delete(model, i, i+1)
					}
					if step%50 == 0 || len(model) < 3 {
						var got, want []xahau.Hash256
						for i := range Dir(v, root) {
							got = append(got, i)
						}
						for _, x := range model {
							want = append(want, x.index)
						}
						if !keepOrder {
							slices.SortFunc(got, xahau.Hash256.Compare)
							slices.SortFunc(want, xahau.Hash256.Compare)
						}
						if !slices.Equal(got, want) {
							t.Fatalf("step %d: %d entries, want %d", step, len(got), len(want))
						}
						if len(model) == 0 && !keepRoot && v.Len() != 0 {
							t.Fatalf("step %d: %d pages of an empty directory are left", step, v.Len())
						}
					}
				}
				if err := v.Err(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestDirectoryIsFull(t *testing.T) {
	v := NewSandbox(empty())
	root := keylet.OwnerDirectory(xahau.AccountOne)
	if _, ok := DirInsert(v, root, xahau.Hash256{1}, OwnedBy(xahau.AccountOne)); !ok {
		t.Fatal("no first entry")
	}
	// Pretend that the pages up to the last are full.
	first := Edit(v, root)
	first.Set(field.IndexPrevious, xahau.Uint64(maxPages-1))
	v.Update(root, first)
	k := keylet.Page(root.Index, maxPages-1)
	last := NewEntry(k)
	last.Set(field.RootIndex, root.Index)
	last.Set(field.Indexes, make(xahau.Vector, PageEntries))
	v.Insert(k, last)
	if _, ok := DirInsert(v, root, xahau.Hash256{2}, OwnedBy(xahau.AccountOne)); ok {
		t.Fatal("a page too many")
	}
}

// TestMetadata checks the parts of metadata field by field for a line that is
// created, changed and deleted.
func TestMetadata(t *testing.T) {
	base := NewSandbox(empty())
	low, high := xahau.AccountID{1}, xahau.AccountID{2}
	for _, a := range []xahau.AccountID{low, high} {
		k := keylet.Account(a)
		o := NewEntry(k)
		o.Set(field.Account, a)
		o.Set(field.Balance, xahau.Drops(5_000_000))
		o.Set(field.OwnerCount, xahau.Uint32(0))
		o.Set(field.PreviousTxnID, xahau.Hash256{9})
		o.Set(field.PreviousTxnLgrSeq, xahau.Uint32(3))
		base.Insert(k, o)
	}
	c := xahau.MustCurrency("USD")
	step := func(id byte, f func(v View)) *xahau.Object {
		t.Helper()
		s := NewIsolated(base)
		f(s)
		meta, threaded := s.Metadata(Info{ID: xahau.Hash256{id}, Index: 4, Result: ter.TesSUCCESS})
		s.Thread(threaded)
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		s.Apply(base)
		if meta.Uint32(field.TransactionIndex) != 4 {
			t.Error("wrong index")
		}
		return meta
	}
	node := func(meta *xahau.Object, index xahau.Hash256) xahau.Element {
		t.Helper()
		for _, e := range meta.Array(field.AffectedNodes) {
			if e.Object.Hash(field.LedgerIndex) == index {
				return e
			}
		}
		t.Fatalf("no node %s in %v", index, meta)
		return xahau.Element{}
	}
	line := keylet.Line(low, high, c)

	usd := func(text string, issuer xahau.AccountID) xahau.Amount {
		a, err := xahau.ParseAmount(text + "/USD/" + issuer.String())
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	meta := step(21, func(v View) {
		if code := TrustCreate(v, NewLine{Account: high, Peer: low, Limit: usd("5", high), Balance: usd("0", high), NoRipple: true}); code != ter.TesSUCCESS {
			t.Fatal(code)
		}
	})
	n := node(meta, line.Index)
	fresh := n.Object.Object(field.NewFields)
	if n.Field != field.CreatedNode || fresh.Amount(field.Balance).Signum() != 0 || !fresh.Has(field.Balance) || fresh.Has(field.LowNode) ||
		fresh.Has(field.LedgerEntryType) || fresh.Has(field.PreviousTxnID) || fresh.Flags() != xahau.LsfHighReserve|xahau.LsfHighNoRipple|xahau.LsfLowNoRipple {
		t.Errorf("created line: %v", n.Object)
	}
	n = node(meta, keylet.Account(high).Index)
	if n.Field != field.ModifiedNode || n.Object.Object(field.PreviousFields).Len() != 1 || n.Object.Object(field.FinalFields).Uint32(field.OwnerCount) != 1 ||
		n.Object.Hash(field.PreviousTxnID) != (xahau.Hash256{9}) || n.Object.Uint32(field.PreviousTxnLgrSeq) != 3 {
		t.Errorf("owner: %v", n.Object)
	}
	// The other account did not change, but the line that it shares did.
	n = node(meta, keylet.Account(low).Index)
	if n.Object.Has(field.FinalFields) || n.Object.Has(field.PreviousFields) || n.Object.Hash(field.PreviousTxnID) != (xahau.Hash256{9}) {
		t.Errorf("peer: %v", n.Object)
	}

	meta = step(22, func(v View) {
		if code := Credit(v, low, high, usd("2", high)); code != ter.TesSUCCESS {
			t.Fatal(code)
		}
	})
	n = node(meta, line.Index)
	if len(meta.Array(field.AffectedNodes)) != 1 || n.Object.Object(field.PreviousFields).Len() != 1 || n.Object.Hash(field.PreviousTxnID) != (xahau.Hash256{21}) ||
		n.Object.Object(field.FinalFields).Amount(field.Balance) != usd("-2", xahau.AccountOne) {
		t.Errorf("changed line: %v", meta)
	}

	meta = step(23, func(v View) {
		o := Edit(v, line)
		o.Set(field.HighQualityIn, xahau.Uint32(5))
		v.Update(line, o)
	})
	// A field that was not there before has no value before, but the part is there.
	n = node(meta, line.Index)
	if p := n.Object.Object(field.PreviousFields); p == nil || p.Len() != 0 {
		t.Errorf("line with one more field: %v", n.Object)
	}

	meta = step(24, func(v View) {
		o := Edit(v, line)
		o.Set(field.HighLimit, usd("0", high))
		o.Delete(field.HighQualityIn)
		v.Update(line, o)
		if code := Credit(v, high, low, usd("2", high)); code != ter.TesSUCCESS {
			t.Fatal(code)
		}
	})
	n = node(meta, line.Index)
	final := n.Object.Object(field.FinalFields)
	if n.Field != field.DeletedNode || final.Hash(field.PreviousTxnID) != (xahau.Hash256{23}) || final.Amount(field.Balance).Signum() != 0 ||
		n.Object.Object(field.PreviousFields).Amount(field.Balance) != usd("-2", xahau.AccountOne) {
		t.Errorf("deleted line: %v", n.Object)
	}
	if accounts := AffectedAccounts(meta); !slices.Equal(accounts, []xahau.AccountID{low, high}) {
		t.Errorf("affected: %v", accounts)
	}
}
