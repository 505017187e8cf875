package xahau

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"evernode/xahau/field"
)

//go:embed definitions.json
var embedded []byte

// maxDefinitions bounds the definitions a server may send, in bytes.
const maxDefinitions = 4 << 20

// Field is what the definitions say of a field.
type Field struct {
	Name string
	Code field.Code
	// Type is the name of the type, such as "UInt32".
	Type string
	// Serialized fields are part of the binary form, Signing ones also of what
	// is signed.
	Serialized, Signing bool

	kind kind
}

// Definitions are the fields, types and names of a ledger. They do not change
// and may be used by any number of goroutines.
type Definitions struct {
	fields       map[string]*Field
	codes        map[field.Code]*Field
	transactions names
	entries      names
	results      names
	native       string
	hash         Hash256
	source       []byte
}

// names maps between names and numbers. A number may have several names; the
// first of them is the one that is written.
type names struct {
	number map[string]int
	name   map[int]string
}

func (n *names) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("is not an object")
	}
	n.number, n.name = map[string]int{}, map[int]string{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		var v int
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("%v: %w", t, err)
		}
		name := t.(string)
		if _, ok := n.number[name]; !ok {
			n.number[name] = v
		}
		if _, ok := n.name[v]; !ok {
			n.name[v] = name
		}
	}
	return nil
}

var defaultDefinitions = sync.OnceValue(func() *Definitions {
	d, err := ParseDefinitions(embedded)
	if err != nil {
		panic(fmt.Sprintf("embedded definitions: %v", err))
	}
	return d
})

// DefaultDefinitions are the network's, as embedded in the program.
func DefaultDefinitions() *Definitions { return defaultDefinitions() }

// ParseDefinitions reads definitions in the form of the answer to
// server_definitions, with or without "result" around them.
func ParseDefinitions(data []byte) (*Definitions, error) {
	if len(data) > maxDefinitions {
		return nil, fmt.Errorf("definitions: %d bytes are too many", len(data))
	}
	type content struct {
		Fields       [][2]json.RawMessage `json:"FIELDS"`
		Types        map[string]int       `json:"TYPES"`
		Transactions names                `json:"TRANSACTION_TYPES"`
		Entries      names                `json:"LEDGER_ENTRY_TYPES"`
		Results      names                `json:"TRANSACTION_RESULTS"`
		Native       string               `json:"native_currency_code"`
		Hash         *Hash256             `json:"hash"`
	}
	var wrapper struct {
		content
		Result *content `json:"result"`
	}
	if err := json.Unmarshal(data, &wrapper); err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	c := &wrapper.content
	if wrapper.Result != nil {
		c = wrapper.Result
	}
	if len(c.Fields) == 0 || len(c.Types) == 0 || c.Transactions.number == nil {
		return nil, errors.New("definitions: FIELDS, TYPES or TRANSACTION_TYPES is missing")
	}
	d := &Definitions{
		fields:       map[string]*Field{},
		codes:        map[field.Code]*Field{},
		transactions: c.Transactions,
		entries:      c.Entries,
		results:      c.Results,
		native:       c.Native,
		source:       bytes.Clone(data),
	}
	if d.native == "" {
		d.native = "XAH"
	}
	for i, f := range c.Fields {
		var name string
		var info struct {
			Nth        int    `json:"nth"`
			Serialized bool   `json:"isSerialized"`
			Signing    bool   `json:"isSigningField"`
			Type       string `json:"type"`
		}
		if err := errors.Join(json.Unmarshal(f[0], &name), json.Unmarshal(f[1], &info)); err != nil {
			return nil, fmt.Errorf("definitions: field %d: %w", i, err)
		}
		typ, ok := c.Types[info.Type]
		if !ok {
			return nil, fmt.Errorf("definitions: field %s is of type %q, which is not defined", shorten(name), shorten(info.Type))
		}
		if typ < 1 || typ > 0xffff || info.Nth < 1 || info.Nth > 0xffff {
			continue // markers without a code
		}
		if info.Serialized && (typ > 255 || info.Nth > 255) {
			return nil, fmt.Errorf("definitions: field %s has no binary form with type %d and number %d", shorten(name), typ, info.Nth)
		}
		entry := &Field{
			Name:       name,
			Code:       field.NewCode(typ, info.Nth),
			Type:       info.Type,
			Serialized: info.Serialized,
			Signing:    info.Signing,
			kind:       kindOf(info.Type),
		}
		if _, ok := d.fields[name]; ok {
			continue // servers name some fields twice
		}
		d.fields[name] = entry
		if _, ok := d.codes[entry.Code]; !ok {
			d.codes[entry.Code] = entry
		}
	}
	for name, written := range writtenNames {
		if n, ok := d.transactions.number[name]; ok && d.transactions.name[n] == name {
			if _, taken := d.transactions.number[written]; !taken {
				d.transactions.number[written], d.transactions.name[n] = n, written
			}
		}
	}
	if c.Hash != nil {
		d.hash = *c.Hash
	} else {
		d.hash = Sha512Half(data)
	}
	return d, nil
}

// writtenNames are the names that transactions are written with where servers'
// definitions call the types otherwise.
var writtenNames = map[string]string{"Amendment": "EnableAmendment", "Fee": "SetFee"}

// Source is the JSON that the definitions were read from.
func (d *Definitions) Source() []byte { return bytes.Clone(d.source) }

// Hash identifies the definitions: what the server called them, else the
// SHA-512Half of the JSON.
func (d *Definitions) Hash() Hash256 { return d.hash }

// Native is the code of the native currency, "XAH".
func (d *Definitions) Native() string { return d.native }

// Field finds a field by name.
func (d *Definitions) Field(name string) (*Field, bool) {
	f, ok := d.fields[name]
	return f, ok
}

// FieldByCode finds a field by code.
func (d *Definitions) FieldByCode(c field.Code) (*Field, bool) {
	f, ok := d.codes[c]
	return f, ok
}

// Fields gives all fields in no order.
func (d *Definitions) Fields() []*Field {
	list := make([]*Field, 0, len(d.fields))
	for _, f := range d.fields {
		list = append(list, f)
	}
	return list
}

// name is how messages call a field.
func (d *Definitions) name(c field.Code) string {
	if f, ok := d.codes[c]; ok {
		return f.Name
	}
	return fmt.Sprintf("field %d of type %d", c.Nth(), c.Type())
}

// TransactionType finds the number of a transaction type by name.
func (d *Definitions) TransactionType(name string) (TransactionType, bool) {
	n, ok := d.transactions.number[name]
	return TransactionType(n), ok && n >= 0
}

// TransactionName is the name of a transaction type, or its number.
func (d *Definitions) TransactionName(t TransactionType) string {
	if name, ok := d.transactions.name[int(t)]; ok {
		return name
	}
	return fmt.Sprintf("%d", t)
}

// EntryType finds the number of a ledger entry type by name.
func (d *Definitions) EntryType(name string) (EntryType, bool) {
	n, ok := d.entries.number[name]
	return EntryType(n), ok && n >= 0
}

// EntryName is the name of a ledger entry type, or its number.
func (d *Definitions) EntryName(t EntryType) string {
	if name, ok := d.entries.name[int(t)]; ok {
		return name
	}
	return fmt.Sprintf("%d", t)
}

// Result finds the number of an engine result by name.
func (d *Definitions) Result(name string) (int, bool) {
	n, ok := d.results.number[name]
	return n, ok
}

// ResultName is the name of an engine result, or its number.
func (d *Definitions) ResultName(code int) string {
	if name, ok := d.results.name[code]; ok {
		return name
	}
	return fmt.Sprintf("%d", code)
}

// TransactionTypes gives the numbers of all transaction types, in no order.
func (d *Definitions) TransactionTypes() []TransactionType {
	var list []TransactionType
	for n := range d.transactions.name {
		if n >= 0 {
			list = append(list, TransactionType(n))
		}
	}
	return list
}

// EntryTypes gives the numbers of all ledger entry types, in no order.
func (d *Definitions) EntryTypes() []EntryType {
	var list []EntryType
	for n := range d.entries.name {
		if n > 0 {
			list = append(list, EntryType(n))
		}
	}
	return list
}
