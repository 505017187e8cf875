package view

import (
	"fmt"
	"slices"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/ter"
)

// Info is what a transaction's metadata tells besides the changes.
type Info struct {
	ID     xahau.Hash256
	Index  uint32 // position in the ledger
	Result ter.Code
	// Delivered is what a payment delivered if that is not what it asked for.
	Delivered *xahau.Amount
	// Executions and Emissions are the elements of HookExecutions and
	// HookEmissions.
	Executions, Emissions xahau.Array
}

// Threaded is an entry whose PreviousTxnID changes because a transaction touched
// it or what it owns.
type Threaded struct {
	Index xahau.Hash256
	Entry *xahau.Object
}

// metadata of one transaction in the making.
type metadata struct {
	s        *Sandbox
	info     Info
	nodes    map[xahau.Hash256]*node
	threaded map[xahau.Hash256]*xahau.Object
}

type node struct {
	kind                   Kind
	typ                    xahau.EntryType
	previousID             xahau.Hash256
	previousSeq            uint32
	new, final, previous   *xahau.Object
	hasPreviousTransaction bool
}

// Metadata gives a transaction's metadata for the changes in the sandbox, and the
// entries that must be updated so that they point to the transaction. For
// provisional metadata, as hooks see it, these are not needed.
func (s *Sandbox) Metadata(info Info) (*xahau.Object, []Threaded) {
	m := &metadata{s: s, info: info, nodes: map[xahau.Hash256]*node{}, threaded: map[xahau.Hash256]*xahau.Object{}}
	for _, c := range s.Changes() {
		m.add(c)
	}
	return m.object(), m.updates()
}

// Thread writes what Metadata gave.
func (s *Sandbox) Thread(entries []Threaded) {
	for _, t := range entries {
		s.Update(keylet.Keylet{Type: t.Entry.EntryType(), Index: t.Index}, t.Entry)
	}
}

func (m *metadata) node(index xahau.Hash256, typ xahau.EntryType, kind Kind) *node {
	n, ok := m.nodes[index]
	if !ok {
		n = &node{kind: kind, typ: typ}
		m.nodes[index] = n
	}
	return n
}

func (m *metadata) add(c Change) {
	n := m.node(c.Index, c.After.EntryType(), c.Kind)
	n.kind = c.Kind
	switch c.Kind {
	case Created:
		m.threadOwners(c.After)
		if isThreaded(c.After.EntryType()) {
			m.thread(c.Index, c.After)
		}
		n.new = &xahau.Object{}
		for code, v := range c.After.All() {
			if !isDefault(v) && (shows(code) == showDefault || shows(code) == showAlways) {
				n.new.Set(code, v)
			}
		}
	case Modified:
		if isThreaded(c.After.EntryType()) {
			m.thread(c.Index, c.After)
		}
		n.previous = previousFields(c)
		n.final = &xahau.Object{}
		for code, v := range c.After.All() {
			if s := shows(code); s == showDefault || s == showAlways {
				n.final.Set(code, v)
			}
		}
	case Deleted:
		m.threadOwners(c.Before)
		n.previous = previousFields(c)
		n.final = &xahau.Object{}
		for code, v := range c.After.All() {
			if shows(code) != showNever {
				n.final.Set(code, v)
			}
		}
	}
}

// previousFields gives the old values of the fields that changed. It is nil if
// none did; fields that were added count, though they had no value.
func previousFields(c Change) *xahau.Object {
	old, changed := &xahau.Object{}, false
	for code, v := range c.Before.All() {
		if shows(code) != showDefault {
			continue
		}
		if w := c.After.Get(code); w == nil || !xahau.ValuesEqual(v, w) {
			old.Set(code, v)
			changed = true
		}
	}
	for code := range c.After.All() {
		changed = changed || shows(code) == showDefault && !c.Before.Has(code)
	}
	if !changed {
		return nil
	}
	return old
}

// threadOwners points the accounts that an entry belongs to to the transaction.
func (m *metadata) threadOwners(o *xahau.Object) {
	switch o.EntryType() {
	case xahau.EntryAccountRoot:
	case xahau.EntryRippleState:
		m.threadAccount(o.Amount(field.LowLimit).Issuer())
		m.threadAccount(o.Amount(field.HighLimit).Issuer())
	default:
		for _, code := range []field.Code{field.Account, field.Destination} {
			if a, ok := xahau.Lookup[xahau.AccountID](o, code); ok {
				m.threadAccount(a)
			}
		}
	}
}

func (m *metadata) threadAccount(a xahau.AccountID) {
	k := keylet.Account(a)
	if o := m.s.Read(k); o != nil {
		m.thread(k.Index, o)
	}
}

func (m *metadata) thread(index xahau.Hash256, o *xahau.Object) {
	if t, ok := m.threaded[index]; ok {
		o = t
	}
	previous := o.Hash(field.PreviousTxnID)
	if previous == m.info.ID {
		return
	}
	t := o.Clone()
	t.Set(field.PreviousTxnID, m.info.ID)
	t.Set(field.PreviousTxnLgrSeq, xahau.Uint32(m.s.Ledger().Seq))
	m.threaded[index] = t
	if previous.IsZero() {
		return
	}
	if n := m.node(index, o.EntryType(), Modified); !n.hasPreviousTransaction {
		n.hasPreviousTransaction = true
		n.previousID = previous
		n.previousSeq = o.Uint32(field.PreviousTxnLgrSeq)
	}
}

func (m *metadata) updates() []Threaded {
	list := make([]Threaded, 0, len(m.threaded))
	for index, o := range m.threaded {
		list = append(list, Threaded{index, o})
	}
	slices.SortFunc(list, func(a, b Threaded) int { return a.Index.Compare(b.Index) })
	return list
}

func (m *metadata) object() *xahau.Object {
	indexes := make([]xahau.Hash256, 0, len(m.nodes))
	for i := range m.nodes {
		indexes = append(indexes, i)
	}
	slices.SortFunc(indexes, xahau.Hash256.Compare)
	affected := make(xahau.Array, 0, len(indexes))
	for _, i := range indexes {
		n := m.nodes[i]
		o := &xahau.Object{}
		o.Set(field.LedgerEntryType, xahau.Uint16(n.typ))
		o.Set(field.LedgerIndex, i)
		if n.hasPreviousTransaction {
			o.Set(field.PreviousTxnID, n.previousID)
			o.Set(field.PreviousTxnLgrSeq, xahau.Uint32(n.previousSeq))
		}
		if n.previous != nil {
			o.Set(field.PreviousFields, n.previous)
		}
		if n.final != nil && n.final.Len() > 0 {
			o.Set(field.FinalFields, n.final)
		}
		if n.new != nil && n.new.Len() > 0 {
			o.Set(field.NewFields, n.new)
		}
		affected = append(affected, xahau.Element{Field: [...]field.Code{field.CreatedNode, field.ModifiedNode, field.DeletedNode}[n.kind], Object: o})
	}
	o := &xahau.Object{}
	o.Set(field.TransactionIndex, xahau.Uint32(m.info.Index))
	o.Set(field.TransactionResult, xahau.Uint8(m.info.Result))
	o.Set(field.AffectedNodes, affected)
	if m.info.Delivered != nil {
		o.Set(field.DeliveredAmount, *m.info.Delivered)
	}
	if len(m.info.Executions) > 0 {
		o.Set(field.HookExecutions, m.info.Executions)
	}
	if len(m.info.Emissions) > 0 {
		o.Set(field.HookEmissions, m.info.Emissions)
	}
	return o
}

// show tells in which parts of metadata a field appears.
type show uint8

const (
	showDefault show = iota
	showAlways       // whenever there is one, but never as previous
	showDeleted      // only when the entry is deleted
	showNever
)

func shows(c field.Code) show {
	switch c {
	case field.LedgerEntryType, field.Indexes:
		return showNever
	case field.PreviousTxnID, field.PreviousTxnLgrSeq:
		return showDeleted
	case field.RootIndex:
		return showAlways
	}
	return showDefault
}

// isThreaded tells whether entries of a type point to the last transaction that
// changed them. Directories, fees and amendments do not on the network.
func isThreaded(t xahau.EntryType) bool {
	switch t {
	case xahau.EntryDirectoryNode, xahau.EntryFeeSettings, xahau.EntryAmendments, xahau.EntryNegativeUNL:
		return false
	}
	f := xahau.EntryFormat(t)
	if f == nil {
		return false
	}
	_, ok := f.Has(field.PreviousTxnID)
	return ok
}

// isDefault tells whether a new entry's field is left out of NewFields.
func isDefault(v xahau.Value) bool {
	switch v := v.(type) {
	case xahau.Uint8:
		return v == 0
	case xahau.Uint16:
		return v == 0
	case xahau.Uint32:
		return v == 0
	case xahau.Uint64:
		return v == 0
	case xahau.Hash128:
		return v == xahau.Hash128{}
	case xahau.Hash160:
		return v == xahau.Hash160{}
	case xahau.Hash256:
		return v.IsZero()
	case xahau.Currency:
		return v == xahau.Currency{}
	case xahau.Amount:
		return v.IsNative() && v.Signum() == 0
	case xahau.Blob:
		return len(v) == 0
	case xahau.Vector:
		return len(v) == 0
	case xahau.Array:
		return len(v) == 0
	case xahau.PathSet:
		return len(v) == 0
	case *xahau.Object:
		return v.Len() == 0
	}
	return false
}

// AffectedAccounts gives the accounts that metadata names, in order: those that
// the transaction is listed for in account_tx and told to subscribers.
func AffectedAccounts(meta *xahau.Object) []xahau.AccountID {
	var list []xahau.AccountID
	add := func(a xahau.AccountID) {
		if !a.IsZero() {
			list = append(list, a)
		}
	}
	for _, n := range meta.Array(field.AffectedNodes) {
		part := field.FinalFields
		if n.Field == field.CreatedNode {
			part = field.NewFields
		}
		o := n.Object.Object(part)
		if o == nil {
			continue
		}
		for code, v := range o.All() {
			switch v := v.(type) {
			case xahau.AccountID:
				add(v)
			case xahau.Amount:
				switch code {
				case field.LowLimit, field.HighLimit, field.TakerPays, field.TakerGets:
					add(v.Issuer())
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b xahau.AccountID) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

// Encode gives an entry in binary form, or nil if there is none.
func Encode(r Reader, index xahau.Hash256) ([]byte, error) {
	o := r.Read(keylet.Keylet{Index: index})
	if err := r.Err(); err != nil || o == nil {
		return nil, err
	}
	b, err := r.Ledger().Defs.Encode(o)
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", index, err)
	}
	return b, nil
}
