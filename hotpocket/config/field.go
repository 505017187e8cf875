package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"evernode/hotpocket/key"
)

// FieldError says which field of a configuration cannot be used and what would
// be allowed there.
type FieldError struct {
	Field   string // dotted path, e.g. "contract.consensus.roundtime"
	Line    int    // line in the file, 0 when unknown
	Value   string // what stands there; never a secret; "" when it is missing
	Allowed string // what may stand there
}

func (e *FieldError) Error() string {
	where := e.Field
	if e.Line > 0 {
		where = fmt.Sprintf("%s (line %d)", e.Field, e.Line)
	}
	if e.Value == "" {
		return fmt.Sprintf("%s is missing; allowed: %s", where, e.Allowed)
	}
	return fmt.Sprintf("%s is %s; allowed: %s", where, e.Value, e.Allowed)
}

// codec moves one field between its Go form and its JSON form and knows what
// is allowed there. It is the only place that knows, so that reading a file and
// checking a value in memory cannot differ.
type codec struct {
	get func() value
	// set stores v, or returns what would be allowed.
	set func(v value) (allowed string)
	// secret fields never appear in messages.
	secret bool
	// required fields have no sensible default.
	required bool
	// ours marks fields that the original does not know; they may be missing
	// even where the original demands all of its own.
	ours bool
}

// binder visits the fields of a configuration in the order of the file.
type binder interface {
	section(name string, visit func(binder))
	field(name string, c codec)
}

// encoder builds the JSON form: known fields in order, then the fields that
// we do not know in the order in which they were found.
type encoder struct {
	object value
	extra  *value // what was read; nil when nothing was
}

func (e *encoder) section(name string, visit func(binder)) {
	inner := encoder{value{kind: kindObject}, e.extra.get(name)}
	visit(&inner)
	e.object.set(name, inner.finish())
}

func (e *encoder) field(name string, c codec) { e.object.set(name, c.get()) }

func (e *encoder) finish() value {
	if e.extra != nil {
		for _, m := range e.extra.members {
			if e.object.get(m.name) == nil {
				e.object.members = append(e.object.members, m)
			}
		}
	}
	return e.object
}

// decoder stores what it finds and collects every problem, so that a user
// repairs a file once and not field by field.
type decoder struct {
	object *value // nil when the section is missing
	path   string
	text   []byte // for line numbers; may be nil
	strict bool   // missing fields are errors
	errs   *[]error
}

func (d *decoder) name(field string) string {
	if d.path == "" {
		return field
	}
	return d.path + "." + field
}

func (d *decoder) fail(field string, v *value, shown, allowed string) {
	e := &FieldError{Field: d.name(field), Value: shown, Allowed: allowed}
	if v != nil && d.text != nil {
		e.Line, _ = position(d.text, v.offset)
	}
	*d.errs = append(*d.errs, e)
}

func (d *decoder) section(name string, visit func(binder)) {
	v := d.object.get(name)
	if v != nil && v.kind != kindObject {
		d.fail(name, v, show(*v), "an object")
		return
	}
	visit(&decoder{v, d.name(name), d.text, d.strict, d.errs})
}

func (d *decoder) field(name string, c codec) {
	v := d.object.get(name)
	if v == nil {
		if c.required || (d.strict && !c.ours) {
			// The rule is told by offering a value that nobody accepts.
			d.fail(name, d.object, "", c.set(value{}))
		}
		return
	}
	if allowed := c.set(*v); allowed != "" {
		shown := show(*v)
		if c.secret {
			shown = "not usable (not shown)"
		}
		d.fail(name, v, shown, allowed)
	}
}

// namedField is a field's dotted path and its value as JSON.
type namedField struct{ name, text string }

// lister collects the fields with their values.
type lister struct {
	path  string
	found *[]namedField
}

func (l lister) section(name string, visit func(binder)) { visit(lister{l.path + "." + name, l.found}) }

func (l lister) field(name string, c codec) {
	*l.found = append(*l.found, namedField{l.path + "." + name, string(format(c.get()))})
}

// show prints a value for a message, cut to a readable length.
func show(v value) string {
	switch v.kind {
	case kindObject:
		return "an object"
	case kindArray:
		if len(v.items) == 0 {
			return "an empty list"
		}
		if len(v.items) > 4 {
			return fmt.Sprintf("a list of %d", len(v.items))
		}
		parts := make([]string, len(v.items))
		for i, item := range v.items {
			parts[i] = show(item)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	default:
		s := string(format(v))
		if len(s) > 80 {
			s = strings.ToValidUTF8(s[:77], "") + "…"
		}
		return s
	}
}

// text is a string for which ok holds; allowed says it in words.
func text(p *string, allowed string, ok func(string) bool) codec {
	return codec{
		get: func() value { return stringValue(*p) },
		set: func(v value) string {
			if v.kind != kindString || strings.ContainsRune(v.text, 0) || !ok(v.text) {
				return allowed
			}
			*p = v.text
			return ""
		},
	}
}

func anyText(p *string) codec {
	return text(p, "a text", func(string) bool { return true })
}

func nonEmpty(p *string) codec {
	return text(p, "a text that is not empty", func(s string) bool { return s != "" })
}

func oneOf(p *string, choices ...string) codec {
	return text(p, strings.Join(choices, ", "), func(s string) bool { return slices.Contains(choices, s) })
}

func flag(p *bool) codec {
	return codec{
		get: func() value { return boolValue(*p) },
		set: func(v value) string {
			if v.kind != kindBool {
				return "true or false"
			}
			*p = v.truth
			return ""
		},
	}
}

// whole is a whole number from low to high, in any integer type.
func whole[T ~int | ~int64 | ~uint64](p *T, low, high T) codec {
	return codec{
		get: func() value { return numberValue(uint64(*p)) },
		set: func(v value) string {
			n, err := strconv.ParseUint(v.text, 10, 64)
			if v.kind != kindNumber || err != nil || n < uint64(low) || n > uint64(high) {
				if uint64(high) == math.MaxUint64 {
					return fmt.Sprintf("a whole number from %d", low)
				}
				return fmt.Sprintf("a whole number from %d to %d", low, high)
			}
			*p = T(n)
			return ""
		},
	}
}

func count(p *uint64) codec { return whole(p, 0, math.MaxUint64) }

// millis is a duration written as a whole number of milliseconds.
func millis(p *time.Duration, low, high uint64) codec {
	ms := uint64(*p / time.Millisecond)
	c := whole(&ms, low, high)
	set := c.set
	c.get = func() value { return numberValue(uint64(*p / time.Millisecond)) }
	c.set = func(v value) string {
		allowed := set(v)
		if allowed == "" {
			*p = time.Duration(ms) * time.Millisecond
			return ""
		}
		return allowed + " (milliseconds)"
	}
	return c
}

// maxMillis is the longest duration in milliseconds that Go can hold.
const maxMillis = uint64(math.MaxInt64 / int64(time.Millisecond))

// list is a list of texts, each of which ok accepts.
func list(p *[]string, least int, allowed string, ok func(string) bool) codec {
	return codec{
		get: func() value {
			v := value{kind: kindArray}
			for _, s := range *p {
				v.items = append(v.items, stringValue(s))
			}
			return v
		},
		set: func(v value) string {
			if v.kind != kindArray || len(v.items) < least {
				return allowed
			}
			found := make([]string, 0, len(v.items))
			for _, item := range v.items {
				if item.kind != kindString || !ok(item.text) {
					return allowed
				}
				found = append(found, item.text)
			}
			*p = found
			return ""
		},
	}
}

// members is a UNL: a set of public keys. A key that is listed twice counts
// once, as in the original.
func members(p *[]key.Public) codec {
	allowed := fmt.Sprintf("a list of 1 to %d public keys (66 hex digits starting with ed)", MaxUNL)
	return codec{
		get: func() value {
			v := value{kind: kindArray}
			for _, k := range *p {
				v.items = append(v.items, stringValue(k.String()))
			}
			return v
		},
		set: func(v value) string {
			if v.kind != kindArray || len(v.items) == 0 || len(v.items) > MaxUNL {
				return allowed
			}
			found := make([]key.Public, 0, len(v.items))
			for _, item := range v.items {
				k, err := key.ParsePublic(item.text)
				if item.kind != kindString || err != nil {
					return allowed
				}
				if !slices.Contains(found, k) {
					found = append(found, k)
				}
			}
			*p = found
			return ""
		},
	}
}

func publicKey(p *key.Public) codec {
	return codec{
		required: true,
		get:      func() value { return stringValue(p.String()) },
		set: func(v value) string {
			k, err := key.ParsePublic(v.text)
			if v.kind != kindString || err != nil {
				return "66 hex digits starting with ed"
			}
			*p = k
			return ""
		},
	}
}

func privateKey(p *key.Private) codec {
	return codec{
		required: true,
		secret:   true,
		get: func() value {
			if p.IsZero() {
				return stringValue("")
			}
			return stringValue(p.Hex())
		},
		set: func(v value) string {
			k, err := key.ParsePrivate(v.text)
			if v.kind != kindString || err != nil {
				return "130 hex digits starting with ed, whose last 64 are the public key"
			}
			*p = k
			return ""
		},
	}
}

// Variable is one environment variable of the contract.
type Variable struct {
	Name, Value string
}

// Environment is the whole environment of the contract, in file order.
type Environment []Variable

// Strings returns the variables as NAME=value, the form that execve takes.
func (e Environment) Strings() []string {
	s := make([]string, len(e))
	for i, v := range e {
		s[i] = v.Name + "=" + v.Value
	}
	return s
}

// Equal reports whether both hold the same variables, in whatever order.
func (e Environment) Equal(o Environment) bool {
	return slices.Equal(e.sorted(), o.sorted())
}

// sorted returns the variables in the order of their names.
func (e Environment) sorted() Environment {
	return slices.SortedFunc(slices.Values(e), func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
}

func environment(p *Environment) codec {
	return codec{
		get: func() value {
			v := value{kind: kindObject}
			for _, e := range *p {
				v.members = append(v.members, member{e.Name, stringValue(e.Value)})
			}
			return v
		},
		set: func(v value) string {
			const allowed = "an object of texts whose names are not empty and hold no '='"
			if v.kind != kindObject {
				return allowed
			}
			found := make(Environment, 0, len(v.members))
			for _, m := range v.members {
				if m.value.kind != kindString || m.name == "" ||
					strings.ContainsAny(m.name, "=\x00") || strings.ContainsRune(m.value.text, 0) {
					return allowed
				}
				found = append(found, Variable{m.name, m.value.text})
			}
			*p = found
			return ""
		},
	}
}

// required marks a field for which there is no default.
func required(c codec) codec {
	c.required = true
	return c
}

// ours marks a field that the original does not know.
func ours(c codec) codec {
	c.ours = true
	return c
}

// join makes one error out of many problems, or nil out of none.
func join(errs []error) error { return errors.Join(errs...) }
