package xahau

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"evernode/xahau/field"
)

//go:embed formats.txt
var formatText string

// Presence is whether a field must be there.
type Presence uint8

// A field with the presence Default is absent when its value is the default one.
const (
	Required Presence = iota
	Optional
	Default
)

// FormatField is a field of a format.
type FormatField struct {
	Field    field.Code
	Presence Presence
}

// Format is which fields a kind of transaction, ledger entry or part has,
// including those that all of them share.
type Format struct {
	Name   string
	Fields []FormatField
	index  map[field.Code]Presence
}

// Has tells whether the format knows a field, and how.
func (f *Format) Has(c field.Code) (Presence, bool) {
	p, ok := f.index[c]
	return p, ok
}

type formatSet struct {
	transactions map[TransactionType]*Format
	entries      map[EntryType]*Format
	parts        map[field.Code]*Format
}

var formats = sync.OnceValue(func() *formatSet {
	set, err := parseFormats(formatText, DefaultDefinitions())
	if err != nil {
		panic(fmt.Sprintf("embedded formats: %v", err))
	}
	return set
})

// TransactionFormat is the format of a transaction type as far as this program
// knows it, nil for others.
func TransactionFormat(t TransactionType) *Format { return formats().transactions[t] }

// EntryFormat is the format of a ledger entry type, nil for unknown ones.
func EntryFormat(t EntryType) *Format { return formats().entries[t] }

// PartFormat is the format of an object inside transactions and entries, by its
// field; nil for those of which any fields are allowed.
func PartFormat(c field.Code) *Format { return formats().parts[c] }

func parseFormats(text string, d *Definitions) (*formatSet, error) {
	set := &formatSet{map[TransactionType]*Format{}, map[EntryType]*Format{}, map[field.Code]*Format{}}
	common := map[string][]FormatField{}
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] == "#" {
			continue
		}
		kind, name := words[0], words[1]
		f := &Format{Name: name, Fields: append([]FormatField(nil), common[kind]...), index: map[field.Code]Presence{}}
		for _, w := range words[2:] {
			p := Required
			if s, ok := strings.CutSuffix(w, "?"); ok {
				w, p = s, Optional
			} else if s, ok := strings.CutSuffix(w, "~"); ok {
				w, p = s, Default
			}
			def, ok := d.Field(w)
			if !ok {
				return nil, fmt.Errorf("%s %s: field %s is not defined", kind, name, w)
			}
			f.Fields = append(f.Fields, FormatField{def.Code, p})
		}
		for _, x := range f.Fields {
			f.index[x.Field] = x.Presence
		}
		if name == "*" {
			common[kind] = f.Fields
			continue
		}
		ok := false
		switch kind {
		case "tx":
			var t TransactionType
			if t, ok = d.TransactionType(name); ok {
				set.transactions[t] = f
			}
		case "entry":
			var t EntryType
			if t, ok = d.EntryType(name); ok {
				set.entries[t] = f
			}
		case "part":
			var def *Field
			if def, ok = d.Field(name); ok {
				set.parts[def.Code] = f
			}
		}
		if !ok {
			return nil, fmt.Errorf("%s %s is not defined", kind, name)
		}
	}
	return set, nil
}

// CheckTransaction tells whether a transaction has the fields of its type: all
// that must be there and no others. A type that this program does not know is
// let through.
func (d *Definitions) CheckTransaction(tx *Object) error {
	if !tx.Has(field.TransactionType) {
		return fmt.Errorf("transaction: TransactionType is missing")
	}
	f := TransactionFormat(tx.TransactionType())
	if f == nil {
		return nil
	}
	return d.checkFormat(f, tx)
}

// CheckEntry is CheckTransaction for a ledger entry.
func (d *Definitions) CheckEntry(o *Object) error {
	if !o.Has(field.LedgerEntryType) {
		return fmt.Errorf("ledger entry: LedgerEntryType is missing")
	}
	f := EntryFormat(o.EntryType())
	if f == nil {
		return nil
	}
	return d.checkFormat(f, o)
}

func (d *Definitions) checkFormat(f *Format, o *Object) error {
	for _, x := range f.Fields {
		if x.Presence == Required && !o.Has(x.Field) {
			return fmt.Errorf("%s: %s is missing", f.Name, d.name(x.Field))
		}
	}
	for c, v := range o.All() {
		def, ok := d.codes[c]
		if !ok || !def.Serialized {
			continue
		}
		if _, ok := f.index[c]; !ok {
			return fmt.Errorf("%s: %s does not belong here", f.Name, d.name(c))
		}
		switch v := v.(type) {
		case *Object:
			if part := PartFormat(c); part != nil {
				if err := d.checkFormat(part, v); err != nil {
					return fmt.Errorf("%s: %w", f.Name, err)
				}
			}
		case Array:
			for i, e := range v {
				part := PartFormat(e.Field)
				if part == nil || e.Object == nil {
					continue
				}
				if err := d.checkFormat(part, e.Object); err != nil {
					return fmt.Errorf("%s: %s: element %d: %w", f.Name, d.name(c), i, err)
				}
			}
		}
	}
	return nil
}
