package config

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a configuration file, so that a hostile one
// cannot exhaust the stack of the parser.
const maxDepth = 64

// kind is the kind of a JSON value.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// value is a JSON value that keeps what the standard library's maps lose: the
// order of keys and the digits of numbers. Unknown fields pass through a
// rewrite of a file in this form.
type value struct {
	kind    kind
	text    string // kindString: the text; kindNumber: its literal
	truth   bool   // kindBool
	items   []value
	members []member
	offset  int // where it starts in the text it was read from
}

// member is one key of an object and its value.
type member struct {
	name  string
	value value
}

func stringValue(s string) value { return value{kind: kindString, text: s} }
func boolValue(b bool) value     { return value{kind: kindBool, truth: b} }
func numberValue(n uint64) value {
	return value{kind: kindNumber, text: strconv.FormatUint(n, 10)}
}

// get returns the member of that name, or nil.
func (v *value) get(name string) *value {
	if v == nil {
		return nil
	}
	for i := range v.members {
		if v.members[i].name == name {
			return &v.members[i].value
		}
	}
	return nil
}

// set replaces the member of that name or appends it.
func (v *value) set(name string, m value) {
	if old := v.get(name); old != nil {
		*old = m
		return
	}
	v.members = append(v.members, member{name, m})
}

// merge lays over on top of base: objects are merged key by key, everything
// else in over replaces what base has.
func merge(base, over value) value {
	if base.kind != kindObject || over.kind != kindObject {
		return over
	}
	merged := base
	merged.members = append([]member(nil), base.members...)
	for _, m := range over.members {
		if old := merged.get(m.name); old != nil {
			*old = merge(*old, m.value)
			continue
		}
		merged.members = append(merged.members, m)
	}
	return merged
}

// SyntaxError says where a text stops being JSON.
type SyntaxError struct {
	Line, Column int // counted from 1; the column counts characters
	Problem      string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Problem)
}

// position turns an offset in text into a line and a column.
func position(text []byte, offset int) (line, column int) {
	offset = min(offset, len(text))
	before := string(text[:offset])
	line = 1 + strings.Count(before, "\n")
	return line, 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// parse reads one JSON value that fills the whole text. It is strict: no
// comments, no trailing commas, no key twice in one object, valid UTF-8 only.
func parse(text []byte) (v value, err error) {
	p := parser{text: text}
	defer func() {
		if p.failure != nil {
			v, err = value{}, p.failure
		}
	}()
	p.space()
	v = p.value(0)
	p.space()
	if p.failure == nil && p.at < len(text) {
		p.fail(p.at, "there is more text after the end of the JSON value")
	}
	return v, nil
}

// parser holds the place in the text and the first failure; after a failure
// every method returns at once.
type parser struct {
	text    []byte
	at      int
	failure error
}

func (p *parser) fail(at int, problem string) {
	if p.failure == nil {
		line, column := position(p.text, at)
		p.failure = &SyntaxError{line, column, problem}
	}
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\r', '\n':
			p.at++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

// found describes what stands at the current place, for messages.
func (p *parser) found() string {
	if p.at >= len(p.text) {
		return "the end of the file"
	}
	r, _ := utf8.DecodeRune(p.text[p.at:])
	return strconv.QuoteRune(r)
}

func (p *parser) value(depth int) value {
	if depth > maxDepth {
		p.fail(p.at, fmt.Sprintf("nested more than %d levels deep", maxDepth))
	}
	if p.failure != nil {
		return value{}
	}
	start := p.at
	v := value{}
	switch c := p.peek(); {
	case c == '{':
		v = p.object(depth)
	case c == '[':
		v = p.array(depth)
	case c == '"':
		v = stringValue(p.str())
	case c == '-' || (c >= '0' && c <= '9'):
		v = p.number()
	default:
		switch {
		case p.word("true"):
			v = boolValue(true)
		case p.word("false"):
			v = boolValue(false)
		case p.word("null"):
		default:
			p.fail(p.at, "expected a JSON value, found "+p.found())
		}
	}
	v.offset = start
	return v
}

func (p *parser) word(w string) bool {
	if !strings.HasPrefix(string(p.text[p.at:min(len(p.text), p.at+len(w))]), w) {
		return false
	}
	p.at += len(w)
	return true
}

func (p *parser) object(depth int) value {
	v := value{kind: kindObject}
	p.at++
	p.space()
	if p.peek() == '}' {
		p.at++
		return v
	}
	for p.failure == nil {
		p.space()
		nameAt := p.at
		if p.peek() != '"' {
			p.fail(p.at, "expected a key in double quotes, found "+p.found())
			break
		}
		name := p.str()
		if p.failure == nil && v.get(name) != nil {
			p.fail(nameAt, fmt.Sprintf("the key %q is there twice", name))
		}
		p.space()
		if p.failure == nil && p.peek() != ':' {
			p.fail(p.at, "expected ':' after the key, found "+p.found())
		}
		if p.failure != nil {
			break
		}
		p.at++
		p.space()
		v.members = append(v.members, member{name, p.value(depth + 1)})
		p.space()
		if p.failure != nil {
			break
		}
		switch p.peek() {
		case ',':
			p.at++
		case '}':
			p.at++
			return v
		default:
			p.fail(p.at, "expected ',' or '}', found "+p.found())
		}
	}
	return v
}

func (p *parser) array(depth int) value {
	v := value{kind: kindArray}
	p.at++
	p.space()
	if p.peek() == ']' {
		p.at++
		return v
	}
	for p.failure == nil {
		p.space()
		v.items = append(v.items, p.value(depth+1))
		p.space()
		if p.failure != nil {
			break
		}
		switch p.peek() {
		case ',':
			p.at++
		case ']':
			p.at++
			return v
		default:
			p.fail(p.at, "expected ',' or ']', found "+p.found())
		}
	}
	return v
}

func (p *parser) digits() bool {
	start := p.at
	for p.peek() >= '0' && p.peek() <= '9' {
		p.at++
	}
	return p.at > start
}

func (p *parser) number() value {
	start := p.at
	if p.peek() == '-' {
		p.at++
	}
	if p.peek() == '0' {
		p.at++
	} else if !p.digits() {
		p.fail(p.at, "expected a digit, found "+p.found())
	}
	if p.peek() == '.' {
		p.at++
		if !p.digits() {
			p.fail(p.at, "expected a digit after the point, found "+p.found())
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.at++
		if c := p.peek(); c == '+' || c == '-' {
			p.at++
		}
		if !p.digits() {
			p.fail(p.at, "expected a digit in the exponent, found "+p.found())
		}
	}
	return value{kind: kindNumber, text: string(p.text[start:p.at])}
}

func (p *parser) str() string {
	start := p.at
	p.at++
	var b strings.Builder
	for p.at < len(p.text) {
		c := p.text[p.at]
		switch {
		case c == '"':
			p.at++
			return b.String()
		case c == '\\':
			p.escape(&b)
			if p.failure != nil {
				return ""
			}
		case c < 0x20:
			p.fail(p.at, "a line break or control character inside a string must be escaped")
			return ""
		default:
			r, n := utf8.DecodeRune(p.text[p.at:])
			if r == utf8.RuneError && n == 1 {
				p.fail(p.at, "the string is not valid UTF-8")
				return ""
			}
			b.WriteRune(r)
			p.at += n
		}
	}
	p.fail(start, "the string that starts here has no closing quote")
	return ""
}

// escape reads one backslash escape.
func (p *parser) escape(b *strings.Builder) {
	start := p.at
	p.at++
	c := p.peek()
	p.at++
	switch c {
	case '"', '\\', '/':
		b.WriteByte(c)
	case 'b':
		b.WriteByte('\b')
	case 'f':
		b.WriteByte('\f')
	case 'n':
		b.WriteByte('\n')
	case 'r':
		b.WriteByte('\r')
	case 't':
		b.WriteByte('\t')
	case 'u':
		r := p.hex4(start)
		if utf16.IsSurrogate(r) {
			if !p.word(`\u`) {
				p.fail(start, "half of a surrogate pair stands alone")
				return
			}
			if r = utf16.DecodeRune(r, p.hex4(start)); r == utf8.RuneError {
				p.fail(start, "half of a surrogate pair stands alone")
				return
			}
		}
		b.WriteRune(r)
	default:
		p.fail(start, "unknown escape in a string")
	}
}

func (p *parser) hex4(start int) rune {
	if p.at+4 > len(p.text) {
		p.fail(start, `expected four hex digits after \u`)
		return 0
	}
	n, err := strconv.ParseUint(string(p.text[p.at:p.at+4]), 16, 16)
	if err != nil {
		p.fail(start, `expected four hex digits after \u`)
		return 0
	}
	p.at += 4
	return rune(n)
}

// format writes v exactly as JavaScript's JSON.stringify(v, null, 4) does,
// without a newline at the end, except that numbers keep their digits. The
// bytes of patch.cfg are hashed, so its layout matters.
func format(v value) []byte { return appendValue(nil, v, 0) }

func appendValue(b []byte, v value, level int) []byte {
	switch v.kind {
	case kindNull:
		return append(b, "null"...)
	case kindBool:
		return strconv.AppendBool(b, v.truth)
	case kindNumber:
		return append(b, v.text...)
	case kindString:
		return appendString(b, v.text)
	case kindArray:
		if len(v.items) == 0 {
			return append(b, "[]"...)
		}
		b = append(b, '[')
		for i, item := range v.items {
			b = appendValue(appendBreak(b, i > 0, level+1), item, level+1)
		}
		return append(appendBreak(b, false, level), ']')
	default:
		if len(v.members) == 0 {
			return append(b, "{}"...)
		}
		b = append(b, '{')
		for i, m := range v.members {
			b = appendString(appendBreak(b, i > 0, level+1), m.name)
			b = appendValue(append(b, ": "...), m.value, level+1)
		}
		return append(appendBreak(b, false, level), '}')
	}
}

// appendBreak starts a new line, after a comma if one is due.
func appendBreak(b []byte, comma bool, level int) []byte {
	if comma {
		b = append(b, ',')
	}
	b = append(b, '\n')
	for range level {
		b = append(b, "    "...)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			b = append(b, '\\', byte(r))
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			if r < 0x20 {
				b = fmt.Appendf(b, `\u%04x`, r)
			} else {
				b = utf8.AppendRune(b, r)
			}
		}
	}
	return append(b, '"')
}
