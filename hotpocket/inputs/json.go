package inputs

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep the values of ignored JSON fields may be nested.
const maxDepth = 128

// jsonScanner walks over a JSON text. It reads exactly the grammar of RFC 8259
// and allocates nothing, except for texts that need unescaping.
type jsonScanner struct {
	b []byte
	i int
}

func parseJSON(b []byte) (Input, error) {
	var (
		in  Input
		met fieldSet
		s   = jsonScanner{b: b}
	)
	s.space()
	if !s.accept('{') {
		return in, s.unexpected("'{'")
	}
	s.space()
	for first := true; ; first = false {
		if s.accept('}') {
			if first {
				break
			}
			return in, errors.New("a comma is followed by no field")
		}
		name, escaped, err := s.text()
		if err != nil {
			return in, err
		}
		if escaped {
			name = unescape(name)
		}
		f := fieldOf(name)
		if err := met.add(f); err != nil {
			return in, err
		}
		s.space()
		if !s.accept(':') {
			return in, s.unexpected("':'")
		}
		s.space()
		switch f {
		case fieldInput:
			if s.peek() != '"' {
				return in, errors.New("field input is not a text")
			}
			v, escaped, err := s.text()
			if err != nil {
				return in, err
			}
			if escaped {
				v = unescape(v)
			}
			in.Payload = v
		case fieldNonce:
			if in.Nonce, err = s.unsigned(f); err != nil {
				return in, err
			}
		case fieldMaxLedger:
			if in.MaxLedger, err = s.unsigned(f); err != nil {
				return in, err
			}
		default:
			if err := s.skip(1); err != nil {
				return in, err
			}
		}
		s.space()
		if s.accept(',') {
			s.space()
			continue
		}
		if !s.accept('}') {
			return in, s.unexpected("',' or '}'")
		}
		break
	}
	s.space()
	if s.i != len(b) {
		return in, s.unexpected("the end")
	}
	return in, met.check(&in)
}

// peek returns the next byte, or 0 at the end. A zero byte is no part of JSON's
// grammar, so that the two need not be told apart.
func (s *jsonScanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *jsonScanner) accept(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *jsonScanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *jsonScanner) unexpected(want string) error {
	if s.i >= len(s.b) {
		return fmt.Errorf("ends where %s is due", want)
	}
	return fmt.Errorf("byte %d is 0x%02x where %s is due", s.i, s.b[s.i], want)
}

// plain tells whether a byte stands for itself in a text: ASCII without control
// characters, quote and backslash.
func plain(c byte) bool { return 0x20 <= c && c < 0x80 && c != '"' && c != '\\' }

// text reads a text and returns what is between its quotes, checked but with
// escapes still in it; escaped tells whether there are any.
func (s *jsonScanner) text() (raw []byte, escaped bool, err error) {
	if !s.accept('"') {
		return nil, false, s.unexpected("a text")
	}
	b, start, wide := s.b, s.i, false
	i := start
	for {
		for i < len(b) && plain(b[i]) {
			i++
		}
		if i >= len(b) {
			return nil, false, errors.New("ends inside a text")
		}
		switch c := b[i]; {
		case c == '"':
			s.i = i + 1
			raw = b[start:i:i]
			if wide && !utf8.Valid(raw) {
				return nil, false, fmt.Errorf("text at byte %d is not valid UTF-8", start)
			}
			return raw, escaped, nil
		case c == '\\':
			n := escapeLen(b[i:])
			if n == 0 {
				return nil, false, fmt.Errorf("bad escape at byte %d", i)
			}
			i += n
			escaped = true
		case c < 0x20:
			return nil, false, fmt.Errorf("byte %d is the control character 0x%02x inside a text", i, c)
		default:
			wide = true
			i++
		}
	}
}

// escapeLen returns the length of the escape that b starts with, both halves of
// a surrogate pair taken together, or 0 when it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		r := hex4(b)
		switch {
		case r < 0:
			return 0
		case !utf16.IsSurrogate(r):
			return 6
		case utf16.DecodeRune(r, hex4(b[6:])) != utf8.RuneError:
			return 12
		}
	}
	return 0
}

// hex4 returns the code unit of the escape \uXXXX that b starts with, or -1.
func hex4(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unescape resolves the escapes of a text that text has checked.
func unescape(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			i++
			continue
		}
		n := escapeLen(raw[i:])
		switch c := raw[i+1]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(raw[i:])
			if n == 12 {
				r = utf16.DecodeRune(r, hex4(raw[i+6:]))
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
		i += n
	}
	return out
}

// digits skips decimal digits and returns how many there were.
func (s *jsonScanner) digits() int {
	start := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i - start
}

// number skips a number.
func (s *jsonScanner) number() error {
	s.accept('-')
	if !s.accept('0') && s.digits() == 0 {
		return s.unexpected("a digit")
	}
	if s.accept('.') && s.digits() == 0 {
		return s.unexpected("a digit")
	}
	if s.accept('e') || s.accept('E') {
		if !s.accept('+') {
			s.accept('-')
		}
		if s.digits() == 0 {
			return s.unexpected("a digit")
		}
	}
	return nil
}

// unsigned reads the number of field f.
func (s *jsonScanner) unsigned(f field) (uint64, error) {
	start := s.i
	if s.number() != nil {
		return 0, fmt.Errorf("field %s is not a number", f)
	}
	var v uint64
	for _, c := range s.b[start:s.i] {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("field %s is not an unsigned integer", f)
		}
		d := uint64(c - '0')
		if v > (math.MaxUint64-d)/10 {
			return 0, fmt.Errorf("field %s does not fit into 64 bits", f)
		}
		v = v*10 + d
	}
	return v, nil
}

// skip checks and skips any value at the given depth.
func (s *jsonScanner) skip(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch c := s.peek(); c {
	case '"':
		_, _, err := s.text()
		return err
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	case '[':
		return s.skipList(']', depth, func() error { return s.skip(depth + 1) })
	case '{':
		return s.skipList('}', depth, func() error {
			if _, _, err := s.text(); err != nil {
				return err
			}
			s.space()
			if !s.accept(':') {
				return s.unexpected("':'")
			}
			s.space()
			return s.skip(depth + 1)
		})
	default:
		if c != '-' && (c < '0' || c > '9') {
			return s.unexpected("a value")
		}
		return s.number()
	}
}

// skipList skips the elements of an array or object that ends with end.
func (s *jsonScanner) skipList(end byte, depth int, element func() error) error {
	s.i++
	s.space()
	if s.accept(end) {
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		s.space()
		if s.accept(end) {
			return nil
		}
		if !s.accept(',') {
			return s.unexpected("',' or '" + string(rune(end)) + "'")
		}
		s.space()
	}
}

func (s *jsonScanner) word(w string) error {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return s.unexpected(w)
	}
	s.i += len(w)
	return nil
}
