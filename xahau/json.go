package xahau

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"evernode/xahau/field"
)

// JSON writes an object as servers do: names for transaction types, entry types
// and results, addresses for accounts, upper-case hex for bytes, lower-case hex
// for 64 bit numbers. The keys are sorted.
func (d *Definitions) JSON(o *Object) ([]byte, error) {
	m, err := d.Map(o)
	if err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

// Map gives what JSON writes as Go values, for those who add to it: strings,
// unsigned integers, []any and map[string]any.
func (d *Definitions) Map(o *Object) (map[string]any, error) { return d.toMap(o, 0) }

func (d *Definitions) toMap(o *Object, depth int) (map[string]any, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	m := make(map[string]any, len(o.entries))
	for _, e := range o.entries {
		f, ok := d.codes[e.code]
		if !ok {
			return nil, fmt.Errorf("%s is not defined", d.name(e.code))
		}
		v, err := d.toJSON(e, depth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		m[f.Name] = v
	}
	return m, nil
}

func (d *Definitions) toJSON(e entry, depth int) (any, error) {
	switch v := e.value.(type) {
	case Uint8:
		if e.code == field.TransactionResult {
			return d.ResultName(int(v)), nil
		}
		return uint8(v), nil
	case Uint16:
		switch e.code {
		case field.TransactionType:
			if name, ok := d.transactions.name[int(v)]; ok {
				return name, nil
			}
		case field.LedgerEntryType:
			if name, ok := d.entries.name[int(v)]; ok {
				return name, nil
			}
		}
		return uint16(v), nil
	case Uint32:
		return uint32(v), nil
	case Uint64:
		return strconv.FormatUint(uint64(v), 16), nil
	case Hash128:
		return v.String(), nil
	case Hash160:
		return v.String(), nil
	case Hash256:
		return v.String(), nil
	case Bits:
		return upperHex(v), nil
	case Blob:
		return upperHex(v), nil
	case AccountID:
		return v.String(), nil
	case NoAccount:
		return "", nil
	case Currency:
		return v.String(), nil
	case Amount:
		return v.JSON(), nil
	case Vector:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i].String()
		}
		return list, nil
	case *Object:
		if v == nil {
			return nil, errors.New("no object")
		}
		return d.toMap(v, depth+1)
	case Array:
		list := make([]any, len(v))
		for i, x := range v {
			if x.Object == nil {
				return nil, fmt.Errorf("element %d: no object", i)
			}
			m, err := d.toMap(x.Object, depth+2)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			list[i] = map[string]any{d.name(x.Field): m}
		}
		return list, nil
	case PathSet:
		return pathsJSON(v), nil
	case Issue:
		return v.JSON(), nil
	case Bridge:
		return map[string]any{
			"LockingChainDoor": v.LockingDoor.String(), "LockingChainIssue": v.LockingIssue.JSON(),
			"IssuingChainDoor": v.IssuingDoor.String(), "IssuingChainIssue": v.IssuingIssue.JSON(),
		}, nil
	}
	return nil, fmt.Errorf("a %T cannot be written", e.value)
}

// JSON is the amount as a Go value: a string of drops, or a map of value,
// currency and issuer.
func (a Amount) JSON() any {
	if a.IsNative() {
		return strconv.FormatInt(a.drops, 10)
	}
	return map[string]any{"value": a.value.String(), "currency": a.issue.Currency.String(), "issuer": a.issue.Issuer.String()}
}

// MarshalJSON writes what JSON gives.
func (a Amount) MarshalJSON() ([]byte, error) { return json.Marshal(a.JSON()) }

// UnmarshalJSON reads a string of drops or an object of value, currency and issuer.
func (a *Amount) UnmarshalJSON(b []byte) error {
	v, err := decodeJSON(b)
	if err != nil {
		return err
	}
	*a, err = amountFromJSON(v)
	return err
}

// JSON is the issue as a Go value: a map of currency and, unless native, issuer.
func (i Issue) JSON() any {
	m := map[string]any{"currency": i.Currency.String()}
	if !i.IsNative() {
		m["issuer"] = i.Issuer.String()
	}
	return m
}

func pathsJSON(paths PathSet) []any {
	list := make([]any, len(paths))
	for i, p := range paths {
		steps := make([]any, len(p))
		for j, s := range p {
			m := map[string]any{"type": s.typ()}
			if s.HasAccount {
				m["account"] = s.Account.String()
			}
			if s.HasCurrency {
				m["currency"] = s.Currency.String()
			}
			if s.HasIssuer {
				m["issuer"] = s.Issuer.String()
			}
			steps[j] = m
		}
		list[i] = steps
	}
	return list
}

// ParseJSON reads an object in the form of JSON. Names that the definitions do
// not have are an error. X-addresses are read where addresses are, and give a
// transaction's Account and Destination their tags.
func (d *Definitions) ParseJSON(data []byte) (*Object, error) { return d.parseJSON(data, false) }

// ParseServerJSON is ParseJSON for what servers send, who add names of their own
// such as "hash" and "date" to objects: it leaves out what the definitions do not
// have at the top level.
func (d *Definitions) ParseServerJSON(data []byte) (*Object, error) { return d.parseJSON(data, true) }

func (d *Definitions) parseJSON(data []byte, lenient bool) (*Object, error) {
	v, err := decodeJSON(data)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("is not a JSON object")
	}
	return d.fromMap(m, lenient, 0)
}

// FromMap is ParseJSON for a decoded JSON object, whose numbers may be
// json.Number or Go's numbers.
func (d *Definitions) FromMap(m map[string]any) (*Object, error) { return d.fromMap(m, false, 0) }

func decodeJSON(data []byte) (any, error) {
	if len(data) > 4*MaxObject {
		return nil, fmt.Errorf("%d bytes of JSON are too many", len(data))
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("more than one JSON value")
	}
	return v, nil
}

func (d *Definitions) fromMap(m map[string]any, lenient bool, depth int) (*Object, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	o := &Object{entries: make([]entry, 0, len(m))}
	tags := map[field.Code]Uint32{}
	for name, j := range m {
		f, ok := d.fields[name]
		if !ok {
			if lenient {
				continue
			}
			return nil, fmt.Errorf("field %q is not defined", shorten(name))
		}
		if depth == 0 && f.kind == kindAccount {
			if tag, ok := tagField(f.Code); ok {
				if s, isString := j.(string); isString && (strings.HasPrefix(s, "X") || strings.HasPrefix(s, "T")) {
					x, err := ParseXAddress(s)
					if err != nil {
						return nil, fmt.Errorf("%s: %w", name, err)
					}
					if x.HasTag {
						tags[tag] = Uint32(x.Tag)
					}
					o.Set(f.Code, x.Account)
					continue
				}
			}
		}
		v, err := d.fromJSON(f, j, depth)
		if err != nil {
			if lenient && !f.Serialized {
				continue
			}
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		o.Set(f.Code, v)
	}
	for c, tag := range tags {
		if have, ok := Lookup[Uint32](o, c); ok && have != tag {
			return nil, fmt.Errorf("%s: %d differs from that of the X-address, %d", d.name(c), have, tag)
		}
		o.Set(c, tag)
	}
	return o, nil
}

func tagField(c field.Code) (field.Code, bool) {
	switch c {
	case field.Account:
		return field.SourceTag, true
	case field.Destination:
		return field.DestinationTag, true
	}
	return 0, false
}

func (d *Definitions) fromJSON(f *Field, j any, depth int) (Value, error) {
	switch f.kind {
	case kindUint8, kindUint16, kindUint32:
		n, err := d.smallNumber(f, j)
		if err != nil {
			return nil, err
		}
		switch f.kind {
		case kindUint8:
			return Uint8(n), nil
		case kindUint16:
			return Uint16(n), nil
		}
		return Uint32(n), nil
	case kindUint64:
		if s, ok := j.(string); ok {
			n, err := strconv.ParseUint(s, 16, 64)
			if err != nil {
				return nil, fmt.Errorf("%q is not 64 bits in hex", shorten(s))
			}
			return Uint64(n), nil
		}
		n, err := jsonNumber(j, math.MaxUint64)
		return Uint64(n), err
	case kindAmount:
		return amountFromJSON(j)
	case kindIssue:
		return issueFromJSON(j)
	case kindObject:
		m, ok := j.(map[string]any)
		if !ok {
			return nil, errors.New("is not an object")
		}
		return valueOf(d.fromMap(m, false, depth+1))
	case kindArray:
		return d.arrayFromJSON(j, depth+1)
	case kindPathSet:
		return pathsFromJSON(j)
	case kindBridge:
		return bridgeFromJSON(j)
	case kindVector:
		list, ok := j.([]any)
		if !ok {
			return nil, errors.New("is not a list")
		}
		v := make(Vector, len(list))
		for i, x := range list {
			s, _ := x.(string)
			if err := parseHex(v[i][:], s); err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
		}
		return v, nil
	}
	s, ok := j.(string)
	if !ok {
		return nil, errors.New("is not a string")
	}
	switch f.kind {
	case kindHash128:
		var h Hash128
		if s == "" {
			return h, nil // as servers write that there is none
		}
		err := parseHex(h[:], s)
		return h, err
	case kindHash160:
		var h Hash160
		err := parseHex(h[:], s)
		return h, err
	case kindHash256:
		var h Hash256
		err := parseHex(h[:], s)
		return h, err
	case kindBits:
		b := make(Bits, bitsWidth(f.Type))
		return b, parseHex(b, s)
	case kindBlob:
		b, err := hex.DecodeString(s)
		if err != nil {
			return nil, errors.New("is not hex")
		}
		return Blob(b), nil
	case kindAccount:
		if s == "" {
			return NoAccount{}, nil
		}
		return valueOf(accountFromJSON(s))
	case kindCurrency:
		return valueOf(ParseCurrency(s))
	}
	return nil, fmt.Errorf("type %s is not supported", f.Type)
}

// valueOf keeps a failed conversion from becoming a value.
func valueOf[T Value](v T, err error) (Value, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func accountFromJSON(s string) (AccountID, error) {
	if len(s) == 40 {
		var a AccountID
		if err := parseHex(a[:], s); err == nil {
			return a, nil
		}
	}
	return ParseAddress(s)
}

func (d *Definitions) smallNumber(f *Field, j any) (uint64, error) {
	if s, ok := j.(string); ok {
		var n int
		found := false
		switch f.Code {
		case field.TransactionType:
			n, found = d.transactions.number[s]
		case field.LedgerEntryType:
			n, found = d.entries.number[s]
		case field.TransactionResult:
			n, found = d.results.number[s]
		}
		if found {
			j = n
		} else {
			j = json.Number(s)
		}
	}
	most := uint64(math.MaxUint32)
	switch f.kind {
	case kindUint8:
		most = math.MaxUint8
	case kindUint16:
		most = math.MaxUint16
	}
	return jsonNumber(j, most)
}

func jsonNumber(j any, most uint64) (uint64, error) {
	var n uint64
	switch j := j.(type) {
	case json.Number:
		v, err := strconv.ParseUint(j.String(), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a number from 0 to %d", shorten(j.String()), most)
		}
		n = v
	case float64:
		if j < 0 || j != math.Trunc(j) || j >= 1<<63 {
			return 0, fmt.Errorf("%v is not a number from 0 to %d", j, most)
		}
		n = uint64(j)
	case int:
		if j < 0 {
			return 0, fmt.Errorf("%d is not a number from 0 to %d", j, most)
		}
		n = uint64(j)
	case uint8:
		n = uint64(j)
	case uint16:
		n = uint64(j)
	case uint32:
		n = uint64(j)
	case uint64:
		n = j
	default:
		return 0, errors.New("is not a number")
	}
	if n > most {
		return 0, fmt.Errorf("%d is not a number from 0 to %d", n, most)
	}
	return n, nil
}

func stringsOf(j any, allowed ...string) (map[string]string, error) {
	m, ok := j.(map[string]any)
	if !ok {
		return nil, errors.New("is not an object")
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		s, ok := v.(string)
		known := false
		for _, a := range allowed {
			known = known || a == k
		}
		if !ok || !known {
			return nil, fmt.Errorf("%q does not belong here", shorten(k))
		}
		out[k] = s
	}
	return out, nil
}

func amountFromJSON(j any) (Amount, error) {
	switch v := j.(type) {
	case string:
		return parseDrops(v)
	case map[string]any:
		m, err := stringsOf(v, "value", "currency", "issuer")
		if err != nil {
			return Amount{}, err
		}
		return parseIssued(m["value"], m["currency"], m["issuer"])
	}
	return Amount{}, errors.New("is neither a string of drops nor an object")
}

func issueFromJSON(j any) (Value, error) {
	m, err := stringsOf(j, "currency", "issuer")
	if err != nil {
		return nil, err
	}
	return valueOf(parseIssue(m["currency"], m["issuer"]))
}

func (d *Definitions) arrayFromJSON(j any, depth int) (Value, error) {
	list, ok := j.([]any)
	if !ok {
		return nil, errors.New("is not a list")
	}
	a := make(Array, 0, len(list))
	for i, x := range list {
		m, ok := x.(map[string]any)
		if !ok || len(m) != 1 {
			return nil, fmt.Errorf("element %d is not an object with one key", i)
		}
		for name, inner := range m {
			f, ok := d.fields[name]
			if !ok || f.kind != kindObject {
				return nil, fmt.Errorf("element %d: %q is not an object's name", i, shorten(name))
			}
			fields, ok := inner.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("element %d: %s is not an object", i, name)
			}
			o, err := d.fromMap(fields, false, depth+1)
			if err != nil {
				return nil, fmt.Errorf("element %d: %s: %w", i, name, err)
			}
			a = append(a, Element{f.Code, o})
		}
	}
	return a, nil
}

func pathsFromJSON(j any) (Value, error) {
	list, ok := j.([]any)
	if !ok {
		return nil, errors.New("is not a list of paths")
	}
	set := make(PathSet, 0, len(list))
	for i, x := range list {
		steps, ok := x.([]any)
		if !ok {
			return nil, fmt.Errorf("path %d is not a list of steps", i)
		}
		path := make(Path, 0, len(steps))
		for n, y := range steps {
			s, err := stepFromJSON(y)
			if err != nil {
				return nil, fmt.Errorf("path %d: step %d: %w", i, n, err)
			}
			path = append(path, s)
		}
		set = append(set, path)
	}
	return set, nil
}

func stepFromJSON(j any) (s PathStep, err error) {
	m, ok := j.(map[string]any)
	if !ok {
		return s, errors.New("is not an object")
	}
	for k, v := range m {
		if k == "type" || k == "type_hex" {
			continue // follows from the rest
		}
		text, ok := v.(string)
		if !ok {
			return s, fmt.Errorf("%q is not a string", shorten(k))
		}
		switch k {
		case "account":
			s.HasAccount = true
			s.Account, err = accountFromJSON(text)
		case "currency":
			s.HasCurrency = true
			s.Currency, err = ParseCurrency(text)
		case "issuer":
			s.HasIssuer = true
			s.Issuer, err = accountFromJSON(text)
		default:
			err = fmt.Errorf("%q does not belong here", shorten(k))
		}
		if err != nil {
			return s, err
		}
	}
	if s.typ() == 0 {
		return s, errEmptyStep
	}
	return s, nil
}

func bridgeFromJSON(j any) (Value, error) {
	m, ok := j.(map[string]any)
	if !ok || len(m) != 4 {
		return nil, errors.New("is not an object of two doors and two issues")
	}
	var b Bridge
	for _, end := range []struct {
		name  string
		door  *AccountID
		issue *Issue
	}{{"Locking", &b.LockingDoor, &b.LockingIssue}, {"Issuing", &b.IssuingDoor, &b.IssuingIssue}} {
		s, _ := m[end.name+"ChainDoor"].(string)
		door, err := accountFromJSON(s)
		if err != nil {
			return nil, fmt.Errorf("%sChainDoor: %w", end.name, err)
		}
		issue, err := issueFromJSON(m[end.name+"ChainIssue"])
		if err != nil {
			return nil, fmt.Errorf("%sChainIssue: %w", end.name, err)
		}
		*end.door, *end.issue = door, issue.(Issue)
	}
	return b, nil
}
