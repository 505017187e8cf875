package usermsg

import (
	"errors"
	"unicode/utf8"
)

// maxDepth bounds how deeply arrays and objects may nest, in what we read and
// in what we embed. It keeps the recursion of a hostile message shallow.
const maxDepth = 512

var errJSON = errors.New("not valid JSON")

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// validJSON reports whether b is one JSON text with nothing around it.
func validJSON(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	_, end, err := scanJSON(b, 0, 0)
	return err == nil && end == len(b)
}

// scanJSON checks the value that starts at b[i] and returns it with the index
// after it. It expects b to be valid UTF-8.
func scanJSON(b []byte, i, depth int) (value, int, error) {
	if i >= len(b) {
		return value{}, i, errJSON
	}
	switch c := b[i]; {
	case c == '"':
		end, escaped, ok := scanString(b, i)
		if !ok {
			return value{}, i, errJSON
		}
		return value{kind: kindString, escaped: escaped, data: b[i+1 : end-1], token: b[i:end]}, end, nil
	case c == '{' || c == '[':
		end, err := scanNested(b, i, depth+1)
		if err != nil {
			return value{}, i, err
		}
		k := kindObject
		if c == '[' {
			k = kindArray
		}
		return value{kind: k, data: b[i:end], token: b[i:end]}, end, nil
	case c == '-' || (c >= '0' && c <= '9'):
		end, integer, ok := scanNumber(b, i)
		if !ok {
			return value{}, i, errJSON
		}
		k := kindNumber
		if integer {
			k = kindInt
		}
		return value{kind: k, data: b[i:end], token: b[i:end]}, end, nil
	default:
		for _, lit := range []struct {
			text string
			kind kind
		}{{"true", kindBool}, {"false", kindBool}, {"null", kindNull}} {
			end := i + len(lit.text)
			if end <= len(b) && string(b[i:end]) == lit.text {
				return value{kind: lit.kind, data: b[i:end], token: b[i:end]}, end, nil
			}
		}
		return value{}, i, errJSON
	}
}

// scanNested checks the object or array that starts at b[i].
func scanNested(b []byte, i, depth int) (int, error) {
	if depth > maxDepth {
		return i, errors.New("nested too deeply")
	}
	object := b[i] == '{'
	closer := byte(']')
	if object {
		closer = '}'
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == closer {
		return i + 1, nil
	}
	for {
		if object {
			if i >= len(b) || b[i] != '"' {
				return i, errJSON
			}
			end, _, ok := scanString(b, i)
			if !ok {
				return i, errJSON
			}
			i = skipSpace(b, end)
			if i >= len(b) || b[i] != ':' {
				return i, errJSON
			}
			i = skipSpace(b, i+1)
		}
		_, end, err := scanJSON(b, i, depth)
		if err != nil {
			return i, err
		}
		i = skipSpace(b, end)
		if i >= len(b) {
			return i, errJSON
		}
		switch b[i] {
		case ',':
			i = skipSpace(b, i+1)
		case closer:
			return i + 1, nil
		default:
			return i, errJSON
		}
	}
}

// scanString checks the string whose opening quote is b[i] and returns the
// index after its closing quote.
func scanString(b []byte, i int) (end int, escaped, ok bool) {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, escaped, true
		case c < 0x20:
			return i, escaped, false
		case c == '\\':
			escaped = true
			i++
			if i >= len(b) {
				return i, escaped, false
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(b, i+1); !ok {
					return i, escaped, false
				}
				i += 4
			default:
				return i, escaped, false
			}
		}
	}
	return i, escaped, false
}

func scanNumber(b []byte, i int) (end int, integer, ok bool) {
	digits := func() bool {
		start := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return i > start
	}
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return i, false, false
	}
	integer = true
	if i < len(b) && b[i] == '.' {
		integer = false
		i++
		if !digits() {
			return i, false, false
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		integer = false
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return i, false, false
		}
	}
	return i, integer, true
}

func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// appendUnescaped appends the text of a checked JSON string without its
// quotes. A lone surrogate, which no UTF-8 text can hold, becomes U+FFFD and
// makes whole false.
func appendUnescaped(dst, s []byte) (out []byte, whole bool) {
	whole = true
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '\\' {
			dst = append(dst, c)
			continue
		}
		i++
		switch s[i] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := hex4(s, i+1)
			i += 4
			if r >= 0xD800 && r < 0xE000 {
				low, ok := rune(0), false
				if r < 0xDC00 && i+2 < len(s) && s[i+1] == '\\' && s[i+2] == 'u' {
					low, ok = hex4(s, i+3)
				}
				if ok && low >= 0xDC00 && low < 0xE000 {
					r = 0x10000 + (r-0xD800)<<10 + (low - 0xDC00)
					i += 6
				} else {
					r, whole = utf8.RuneError, false
				}
			}
			dst = utf8.AppendRune(dst, r)
		default: // the quote, the backslash and the slash stand for themselves
			dst = append(dst, s[i])
		}
	}
	return dst, whole
}

const hexDigits = "0123456789abcdef"

// appendQuoted appends s as a JSON string, with quotes. Bytes that are not
// UTF-8 become U+FFFD, because JSON has no way to say them.
func appendQuoted[T []byte | string](b []byte, s T) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := decodeRune(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			b = append(append(b, s[start:i]...), "\uFFFD"...)
			i++
			start = i
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

func decodeRune[T []byte | string](s T) (rune, int) {
	var buf [utf8.UTFMax]byte
	return utf8.DecodeRune(buf[:copy(buf[:], s)])
}

// looksLikeJSON is the text rule by which a contract's output is taken for a
// JSON value rather than for text (section 1.8). It is only about the shape.
func looksLikeJSON(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	first, last := b[0], b[len(b)-1]
	switch {
	case first == '"' && last == '"', first == '{' && last == '}', first == '[' && last == ']':
		return true
	case string(b) == "true", string(b) == "false":
		return true
	}
	dots := 0
	for _, c := range b {
		switch {
		case c == '.':
			dots++
		case c < '0' || c > '9':
			return false
		}
	}
	return dots <= 1
}

// appendContent appends the bytes of a contract as section 1.8 says: as the
// JSON value that they are, or as a string. The original embeds whatever has
// the shape of a value; here it must also be one, so that a message is always
// valid JSON.
func appendContent(b, content []byte) []byte {
	if looksLikeJSON(content) && validJSON(content) {
		return append(b, content...)
	}
	return appendQuoted(b, content)
}
