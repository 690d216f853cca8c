package dedup

import (
	"bytes"
	"strings"
)

// unquoted returns what a header's value stands for as a key: of a complete string
// of RFC 9651 what it says, of anything else its bytes. It shares v's memory where
// it can.
func unquoted(v []byte) []byte {
	s := sfParser{bytes.Trim(v, " ")}
	if len(s.b) == 0 || s.b[0] != '"' {
		return v
	}
	inside, ok := s.str()
	if !ok || !s.parameters() || len(s.b) > 0 {
		return v
	}
	if bytes.IndexByte(inside, '\\') < 0 {
		return inside
	}
	out := make([]byte, 0, len(inside))
	for i := 0; i < len(inside); i++ {
		if inside[i] == '\\' {
			i++
		}
		out = append(out, inside[i])
	}
	return out
}

// quoted returns the header value that HeaderKey reads as the key. That is the key
// itself, unless it looks like a string of RFC 9651. Derived keys, which no header
// can carry, are put into words.
func quoted(key Key) []byte {
	v := []byte(key)
	switch {
	case len(v) > 0 && v[0] == derived:
		return []byte(key.String())
	case bytes.Equal(unquoted(v), v):
		return v
	}
	return []byte(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(string(key)) + `"`)
}

// sfParser takes a structured field of RFC 9651 apart.
type sfParser struct{ b []byte }

// char takes the byte c, if it is next.
func (p *sfParser) char(c byte) bool {
	if len(p.b) == 0 || p.b[0] != c {
		return false
	}
	p.b = p.b[1:]
	return true
}

// span takes the bytes that belong to a set, and says whether there were any.
func (p *sfParser) span(in func(c byte) bool) bool {
	n := 0
	for n < len(p.b) && in(p.b[n]) {
		n++
	}
	p.b = p.b[n:]
	return n > 0
}

// str takes a string, and returns what is inside the quotes, its escapes included.
func (p *sfParser) str() (inside []byte, ok bool) {
	if !p.char('"') {
		return nil, false
	}
	for i := 0; i < len(p.b); i++ {
		switch c := p.b[i]; {
		case c == '"':
			inside, p.b = p.b[:i:i], p.b[i+1:]
			return inside, true
		case c == '\\':
			if i++; i == len(p.b) || p.b[i] != '"' && p.b[i] != '\\' {
				return nil, false
			}
		case c < ' ' || c > '~':
			return nil, false
		}
	}
	return nil, false
}

// parameters takes the parameters of an item, up to the end of the field.
func (p *sfParser) parameters() bool {
	for p.char(';') {
		p.span(func(c byte) bool { return c == ' ' })
		if len(p.b) == 0 || !isLower(p.b[0]) && p.b[0] != '*' {
			return false
		}
		p.span(func(c byte) bool { return isLower(c) || isDigit(c) || strings.IndexByte("_-.*", c) >= 0 })
		if p.char('=') && !p.bare() {
			return false
		}
	}
	return true
}

// bare takes a bare item: a string, number, token, byte sequence, boolean, date or
// display string.
func (p *sfParser) bare() bool {
	if len(p.b) == 0 {
		return false
	}
	switch c := p.b[0]; {
	case c == '"':
		_, ok := p.str()
		return ok
	case c == '-' || isDigit(c):
		return p.number(true)
	case c == '*' || isLetter(c):
		return p.span(func(c byte) bool {
			return isLetter(c) || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~:/", c) >= 0
		})
	case c == ':':
		p.b = p.b[1:]
		p.span(func(c byte) bool { return isLetter(c) || isDigit(c) || strings.IndexByte("+/=", c) >= 0 })
		return p.char(':')
	case c == '?':
		p.b = p.b[1:]
		return p.char('0') || p.char('1')
	case c == '@':
		p.b = p.b[1:]
		return p.number(false)
	case c == '%':
		p.b = p.b[1:]
		return p.display()
	}
	return false
}

// number takes an integer of at most 15 digits, or a decimal, if one may stand
// there, of at most 12 and 3.
func (p *sfParser) number(decimal bool) bool {
	p.char('-')
	whole := len(p.b)
	p.span(isDigit)
	whole -= len(p.b)
	if !decimal || !p.char('.') {
		return whole >= 1 && whole <= 15
	}
	part := len(p.b)
	p.span(isDigit)
	part -= len(p.b)
	return whole >= 1 && whole <= 12 && part >= 1 && part <= 3
}

// display takes a display string behind its percent sign.
func (p *sfParser) display() bool {
	if !p.char('"') {
		return false
	}
	for len(p.b) > 0 {
		c := p.b[0]
		p.b = p.b[1:]
		switch {
		case c == '"':
			return true
		case c == '%':
			if len(p.b) < 2 || !isHex(p.b[0]) || !isHex(p.b[1]) {
				return false
			}
			p.b = p.b[2:]
		case c < ' ' || c > '~':
			return false
		}
	}
	return false
}

func isLower(c byte) bool  { return 'a' <= c && c <= 'z' }
func isLetter(c byte) bool { return isLower(c | 0x20) }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isHex(c byte) bool    { return isDigit(c) || 'a' <= c && c <= 'f' }
