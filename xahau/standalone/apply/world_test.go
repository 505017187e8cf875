package apply

import (
	"bytes"
	"context"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/chain"
	"evernode/xahau/standalone/shamap"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

const (
	testNetwork = 21338
	testTime    = 780_000_000
)

// world is a network of one server in a test: named accounts, an open ledger, and
// checks of every ledger that is closed.
type world struct {
	t     testing.TB
	defs  *xahau.Definitions
	cfg   Config
	keys  map[string]xahau.KeyPair
	last  chain.Header
	state shamap.Map
	open  *Open
}

func newWorld(t testing.TB, balances map[string]int64) *world {
	t.Helper()
	w := &world{t: t, defs: xahau.DefaultDefinitions(), keys: map[string]xahau.KeyPair{}}
	w.cfg = Config{Engine: &tx.Engine{Table: tx.Standard().Add(tx.URITokens()).Add(tx.Offers())}, NetworkID: testNetwork, Defs: w.defs}
	g := Genesis{CloseTime: testTime, Accounts: []Account{{ID: w.account("root"), Balance: 1_000_000_000_000_000}}}
	names := make([]string, 0, len(balances))
	for name := range balances {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		g.Accounts = append(g.Accounts, Account{ID: w.account(name), Balance: balances[name], Sequence: 1})
	}
	l, err := g.Ledger(w.defs)
	if err != nil {
		t.Fatal(err)
	}
	w.last, w.state = l.Header, l.State
	w.next(nil)
	return w
}

func (w *world) next(held []Held) {
	w.t.Helper()
	o, err := Next(context.Background(), w.cfg, w.last, w.state, held)
	if err != nil {
		w.t.Fatal(err)
	}
	w.open = o
}

// key is the key pair that a name stands for: Ed25519 if it begins with a vowel.
func (w *world) key(name string) xahau.KeyPair {
	k, ok := w.keys[name]
	if !ok {
		kind := xahau.Secp256k1
		if bytes.ContainsAny([]byte(name[:1]), "aeiou") {
			kind = xahau.Ed25519
		}
		k = xahau.SeedFromPassphrase(name, kind).KeyPair()
		w.keys[name] = k
	}
	return k
}

func (w *world) account(name string) xahau.AccountID { return w.key(name).Account() }

// fill adds what a transaction needs in general and lacks.
func (w *world) fill(t *xahau.Object) *xahau.Object {
	t = t.Clone()
	if !t.Has(field.Sequence) {
		n := xahau.Uint32(0)
		if root := w.open.View().Read(keylet.Account(t.Account(field.Account))); root != nil && !t.Has(field.TicketSequence) {
			n = xahau.Uint32(root.Uint32(field.Sequence))
		}
		t.Set(field.Sequence, n)
	}
	if !t.Has(field.NetworkID) {
		t.Set(field.NetworkID, xahau.Uint32(testNetwork))
	}
	if !t.Has(field.Fee) {
		t.Set(field.Fee, xahau.Drops(w.cfg.Engine.Fee(w.open.View(), t)))
	}
	return t
}

func (w *world) prepare(blob []byte) *tx.Prepared {
	w.t.Helper()
	p, err := tx.Prepare(w.defs, blob)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) sign(t *xahau.Object, name string) *tx.Prepared {
	w.t.Helper()
	s, err := w.defs.Sign(w.fill(t), w.key(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.prepare(s.Blob)
}

func (w *world) submit(p *tx.Prepared) ter.Code {
	w.t.Helper()
	code, err := w.open.Submit(context.Background(), p)
	if err != nil {
		w.t.Fatal(err)
	}
	return code
}

// close closes the ledger some seconds later and checks it.
func (w *world) close(seconds uint32) *Closed {
	w.t.Helper()
	before := w.state
	c, err := w.open.Close(context.Background(), w.last.CloseTime+seconds)
	if err != nil {
		w.t.Fatal(err)
	}
	w.last, w.state = c.Ledger.Header, c.Ledger.State
	if err := checkLedger(w.defs, before, c); err != nil {
		w.t.Fatalf("ledger %d: %v", w.last.Seq, err)
	}
	w.next(c.Held)
	return c
}

// checkLedger checks what must hold after every ledger.
func checkLedger(defs *xahau.Definitions, before shamap.Map, c *Closed) error {
	entries := map[xahau.Hash256]*xahau.Object{}
	for e, err := range c.Ledger.State.All() {
		if err != nil {
			return err
		}
		o, err := defs.Decode(e.Data)
		if err != nil {
			return err
		}
		if err := defs.CheckEntry(o); err != nil {
			return fmt.Errorf("entry %s: %w", xahau.Hash256(e.Key), err)
		}
		entries[e.Key] = o
	}
	if c.Ledger.State.Hash() != c.Ledger.Header.AccountHash {
		return fmt.Errorf("the header has another state hash")
	}
	if err := checkDrops(entries, c.Ledger.Header.Drops); err != nil {
		return err
	}
	if err := checkLines(entries); err != nil {
		return err
	}
	if err := checkOwners(entries); err != nil {
		return err
	}
	if err := checkHooks(entries); err != nil {
		return err
	}
	return checkMetadata(defs, before, entries, c)
}

func checkDrops(entries map[xahau.Hash256]*xahau.Object, total uint64) error {
	sum := uint64(0)
	for _, o := range entries {
		if o.EntryType() == xahau.EntryAccountRoot {
			if o.Amount(field.Balance).Drops() < 0 {
				return fmt.Errorf("%s has a balance of %s", o.Account(field.Account), o.Amount(field.Balance))
			}
			sum += uint64(o.Amount(field.Balance).Drops())
		}
	}
	if sum != total {
		return fmt.Errorf("the accounts have %d drops, the header says %d", sum, total)
	}
	return nil
}

// checkLines checks that trust lines are what their index says, and that what
// issuers owe and what holders have cancel out.
func checkLines(entries map[xahau.Hash256]*xahau.Object) error {
	sums := map[xahau.Currency]*big.Rat{}
	for index, o := range entries {
		if o.EntryType() != xahau.EntryRippleState {
			continue
		}
		low, high, balance := o.Amount(field.LowLimit), o.Amount(field.HighLimit), o.Amount(field.Balance)
		c := balance.Currency()
		a, b := low.Issuer(), high.Issuer()
		if bytes.Compare(a[:], b[:]) >= 0 || low.Currency() != c || high.Currency() != c || balance.Issuer() != xahau.AccountOne ||
			keylet.Line(a, b, c).Index != index {
			return fmt.Errorf("trust line %s is not what its index says: %v", index, o)
		}
		for _, x := range []xahau.AccountID{a, b} {
			if entries[keylet.Account(x).Index] == nil {
				return fmt.Errorf("trust line %s of %s, who does not exist", index, x)
			}
		}
		sum := sums[c]
		if sum == nil {
			sum = new(big.Rat)
			sums[c] = sum
		}
		sum.Add(sum, view.SideOf(a, b).Signed(balance).Value().Rat())
		sum.Add(sum, view.SideOf(b, a).Signed(balance).Value().Rat())
	}
	for c, sum := range sums {
		if sum.Sign() != 0 {
			return fmt.Errorf("the balances of %s add up to %s", c, sum)
		}
	}
	return nil
}

// owner is an account in whose directory an entry is, and the page that it names.
type owner struct {
	account xahau.AccountID
	page    uint64
	count   int // for the owner count
}

// owners gives the accounts in whose directories an entry must be.
func owners(o *xahau.Object) []owner {
	node := o.Uint64(field.OwnerNode)
	switch o.EntryType() {
	case xahau.EntryRippleState:
		low, high := 0, 0
		if o.Flags()&xahau.LsfLowReserve != 0 {
			low = 1
		}
		if o.Flags()&xahau.LsfHighReserve != 0 {
			high = 1
		}
		return []owner{{o.Amount(field.LowLimit).Issuer(), o.Uint64(field.LowNode), low}, {o.Amount(field.HighLimit).Issuer(), o.Uint64(field.HighNode), high}}
	case xahau.EntryCheck:
		return []owner{{o.Account(field.Account), node, 1}, {o.Account(field.Destination), o.Uint64(field.DestinationNode), 0}}
	case xahau.EntryTicket, xahau.EntryDepositPreauth, xahau.EntryOffer:
		return []owner{{o.Account(field.Account), node, 1}}
	case xahau.EntryURIToken:
		return []owner{{o.Account(field.Owner), node, 1}}
	case xahau.EntryHook:
		return []owner{{o.Account(field.Account), node, hookReserve(o)}}
	}
	return nil
}

func checkOwners(entries map[xahau.Hash256]*xahau.Object) error {
	type place struct {
		root xahau.Hash256
		page uint64
	}
	listed := map[xahau.Hash256][]place{} // where entries are listed
	pages := 0
	counts := map[xahau.AccountID]int{}
	for index, o := range entries {
		if o.EntryType() != xahau.EntryDirectoryNode || o.Hash(field.RootIndex) != index {
			continue
		}
		// Walk the ring from the root on.
		before, number := uint64(0), uint64(0)
		for {
			k := keylet.Page(index, number)
			page := entries[k.Index]
			if page == nil {
				return fmt.Errorf("directory %s has no page %d", index, number)
			}
			pages++
			if number != 0 && page.Uint64(field.IndexPrevious) != before {
				return fmt.Errorf("directory %s: page %d follows %d, not %d", index, number, before, page.Uint64(field.IndexPrevious))
			}
			list := page.Vector(field.Indexes)
			if len(list) > view.PageEntries || len(list) == 0 && number != 0 {
				return fmt.Errorf("directory %s: page %d has %d entries", index, number, len(list))
			}
			if page.Hash(field.RootIndex) != index || page.Account(field.Owner) != o.Account(field.Owner) {
				return fmt.Errorf("directory %s: page %d is another's", index, number)
			}
			for _, i := range list {
				e := entries[i]
				if e == nil {
					return fmt.Errorf("directory %s lists %s, which does not exist", index, i)
				}
				listed[i] = append(listed[i], place{index, number})
				if e.EntryType() == xahau.EntryHookState {
					counts[o.Account(field.Owner)] += stateEntries(entries, o.Account(field.Owner))
				}
				if e.EntryType() == xahau.EntrySignerList {
					counts[o.Account(field.Owner)]++
					if keylet.SignerList(o.Account(field.Owner)).Index != i {
						return fmt.Errorf("directory %s lists the signers of another", index)
					}
				}
			}
			before = number
			if number = page.Uint64(field.IndexNext); number == 0 {
				break
			}
		}
		if o.Uint64(field.IndexPrevious) != before {
			return fmt.Errorf("directory %s: the last page is %d, the root says %d", index, before, o.Uint64(field.IndexPrevious))
		}
	}
	tickets := map[xahau.AccountID]uint32{}
	for index, o := range entries {
		switch o.EntryType() {
		case xahau.EntryDirectoryNode:
			pages--
		case xahau.EntryTicket:
			tickets[o.Account(field.Account)]++
		}
		var want []place
		for _, x := range owners(o) {
			counts[x.account] += x.count
			want = append(want, place{keylet.OwnerDirectory(x.account).Index, x.page})
		}
		if o.EntryType() == xahau.EntryEmittedTxn {
			want = append(want, place{keylet.EmittedDirectory().Index, o.Uint64(field.OwnerNode)})
		}
		if o.EntryType() == xahau.EntryHookState {
			if len(listed[index]) != 1 || listed[index][0].page != o.Uint64(field.OwnerNode) {
				return fmt.Errorf("hook state %s is listed at %v", index, listed[index])
			}
			continue
		}
		if o.EntryType() == xahau.EntryOffer {
			want = append(want, place{o.Hash(field.BookDirectory), o.Uint64(field.BookNode)})
		}
		if o.EntryType() == xahau.EntrySignerList {
			if len(listed[index]) != 1 {
				return fmt.Errorf("signers %s are listed %d times", index, len(listed[index]))
			}
			continue
		}
		got := listed[index]
		if len(got) != len(want) {
			return fmt.Errorf("entry %s is listed %d times, want %d: %v", index, len(got), len(want), o)
		}
		for _, x := range want {
			if !slices.Contains(got, x) {
				return fmt.Errorf("entry %s is not where it says it is", index)
			}
		}
	}
	if pages != 0 {
		return fmt.Errorf("%d pages of directories are in no directory", -pages)
	}
	for _, o := range entries {
		if o.EntryType() != xahau.EntryAccountRoot {
			continue
		}
		a := o.Account(field.Account)
		if int(o.Uint32(field.OwnerCount)) != counts[a] {
			return fmt.Errorf("%s owns %d entries, OwnerCount is %d", a, counts[a], o.Uint32(field.OwnerCount))
		}
		if o.Uint32(field.TicketCount) != tickets[a] {
			return fmt.Errorf("%s has %d tickets, TicketCount is %d", a, tickets[a], o.Uint32(field.TicketCount))
		}
		delete(counts, a)
	}
	for a, n := range counts {
		if n != 0 {
			return fmt.Errorf("%s owns %d entries and does not exist", a, n)
		}
	}
	return nil
}

// isZero tells whether a value is one that metadata leaves out of new entries.
func isZero(v xahau.Value) bool {
	switch v := v.(type) {
	case xahau.Uint8:
		return v == 0
	case xahau.Uint32:
		return v == 0
	case xahau.Uint64:
		return v == 0
	case xahau.Amount:
		return v.Signum() == 0
	case xahau.Hash256:
		return v.IsZero()
	}
	return false
}

// checkMetadata replays the metadata on the state before and compares the outcome
// with the state after.
func checkMetadata(defs *xahau.Definitions, before shamap.Map, after map[xahau.Hash256]*xahau.Object, c *Closed) error {
	now := map[xahau.Hash256]*xahau.Object{}
	get := func(i xahau.Hash256) (*xahau.Object, error) {
		if o, ok := now[i]; ok {
			return o, nil
		}
		b, err := before.Get(shamap.Key(i))
		if err != nil || b == nil {
			return nil, err
		}
		return defs.Decode(b)
	}
	for n, r := range c.Results {
		if got := r.Meta.Uint32(field.TransactionIndex); got != uint32(n) {
			return fmt.Errorf("transaction %d has index %d", n, got)
		}
		var last xahau.Hash256
		for _, node := range r.Meta.Array(field.AffectedNodes) {
			i := node.Object.Hash(field.LedgerIndex)
			if i.Compare(last) <= 0 {
				return fmt.Errorf("%s: the nodes are not in order", r.Tx.ID)
			}
			last = i
			old, err := get(i)
			if err != nil {
				return err
			}
			if (old == nil) != (node.Field == field.CreatedNode) {
				return fmt.Errorf("%s: node %s: %v", r.Tx.ID, i, node.Object)
			}
			// The first threading of accounts of the first ledger is in no metadata.
			if id := node.Object.Hash(field.PreviousTxnID); !id.IsZero() && id != old.Hash(field.PreviousTxnID) && !old.Hash(field.PreviousTxnID).IsZero() {
				return fmt.Errorf("%s: node %s names a wrong transaction before", r.Tx.ID, i)
			}
			if p := node.Object.Object(field.PreviousFields); p != nil {
				for code, v := range p.All() {
					if w := old.Get(code); w == nil && !isZero(v) || w != nil && !xahau.ValuesEqual(v, w) {
						return fmt.Errorf("%s: node %s: a previous field is wrong: %v", r.Tx.ID, i, node.Object)
					}
				}
			}
			switch node.Field {
			case field.DeletedNode:
				now[i] = nil
			case field.CreatedNode:
				now[i] = node.Object.Object(field.NewFields).Clone()
			default:
				o := old
				if f := node.Object.Object(field.FinalFields); f != nil {
					o = f.Clone()
					// Fields that changed but are not in PreviousFields would be missed.
					p := node.Object.Object(field.PreviousFields)
					for code, v := range old.All() {
						switch code {
						case field.LedgerEntryType, field.Indexes, field.PreviousTxnID, field.PreviousTxnLgrSeq, field.RootIndex:
							continue
						}
						if w := f.Get(code); (w == nil || !xahau.ValuesEqual(v, w)) && (p == nil || !p.Has(code)) {
							return fmt.Errorf("%s: node %s: a changed field is not among the previous: %v", r.Tx.ID, i, node.Object)
						}
					}
				} else {
					o = o.Clone()
				}
				now[i] = o
			}
			if o := now[i]; o != nil {
				o.Set(field.PreviousTxnID, r.Tx.ID)
			}
		}
	}
	for i, o := range now {
		real := after[i]
		if (real == nil) != (o == nil) {
			return fmt.Errorf("entry %s: the metadata says %v, the state %v", i, o, real)
		}
		if real == nil {
			continue
		}
		for code, v := range real.All() {
			switch code {
			case field.LedgerEntryType, field.Indexes, field.PreviousTxnLgrSeq, field.RootIndex:
				continue
			case field.PreviousTxnID:
				if real.Hash(code) != o.Hash(code) && !o.Hash(code).IsZero() {
					return fmt.Errorf("entry %s is threaded to %s, not %s", i, real.Hash(code), o.Hash(code))
				}
				continue
			}
			w := o.Get(code)
			if w == nil {
				continue // a default value of a new entry
			}
			if !xahau.ValuesEqual(v, w) {
				return fmt.Errorf("entry %s: the metadata says %v, the state %v", i, o, real)
			}
		}
	}
	// What no metadata names has not changed, but for what belongs to no transaction.
	for d, err := range shamap.Diff(before, c.Ledger.State) {
		if err != nil {
			return err
		}
		if _, ok := now[d.Key]; ok {
			continue
		}
		o := after[d.Key]
		if o != nil && o.EntryType() == xahau.EntryAccountRoot && d.Old != nil {
			// An account of the first ledger that is threaded for the first time.
			old, err := defs.Decode(d.Old)
			if err != nil {
				return err
			}
			if old.Hash(field.PreviousTxnID).IsZero() {
				old.Set(field.PreviousTxnID, o.Get(field.PreviousTxnID))
				old.Set(field.PreviousTxnLgrSeq, o.Get(field.PreviousTxnLgrSeq))
				if old.Equal(o) {
					continue
				}
			}
		}
		if o == nil || o.EntryType() != xahau.EntryLedgerHashes {
			return fmt.Errorf("entry %s changed and is in no metadata", xahau.Hash256(d.Key))
		}
	}
	return nil
}
