package cjson

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// SyntaxError says where and why Parse stopped. Unwrap gives one of the
// package's errors.
type SyntaxError struct {
	Offset int // bytes from the start of the document
	Err    error
}

func (e *SyntaxError) Error() string {
	return e.Err.Error() + " (at byte " + strconv.Itoa(e.Offset) + ")"
}

// Unwrap returns the reason.
func (e *SyntaxError) Unwrap() error { return e.Err }

// Parse reads exactly one JSON value from b. The caller bounds len(b); Parse
// bounds depth and the number of values.
func Parse(b []byte) (Value, error) {
	p := parser{b: b}
	v, err := p.document()
	if err != nil {
		return Value{}, &SyntaxError{Offset: p.at, Err: err}
	}
	return v, nil
}

type parser struct {
	b      []byte
	at     int
	depth  int
	values int
}

func (p *parser) document() (Value, error) {
	v, err := p.value()
	if err != nil {
		return Value{}, err
	}
	p.space()
	if p.at != len(p.b) {
		return Value{}, ErrSyntax
	}
	return v, nil
}

func (p *parser) space() {
	for p.at < len(p.b) {
		switch p.b[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) eat(c byte) bool {
	if p.at < len(p.b) && p.b[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) word(w string) bool {
	if len(p.b)-p.at >= len(w) && string(p.b[p.at:p.at+len(w)]) == w {
		p.at += len(w)
		return true
	}
	return false
}

func (p *parser) value() (Value, error) {
	if p.values++; p.values > MaxValues {
		return Value{}, ErrSize
	}
	p.space()
	if p.at >= len(p.b) {
		return Value{}, ErrSyntax
	}
	switch c := p.b[p.at]; {
	case c == '{':
		return p.nested(p.object)
	case c == '[':
		return p.nested(p.array)
	case c == '"':
		s, err := p.text()
		return String(s), err
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	case p.word("true"):
		return Bool(true), nil
	case p.word("false"):
		return Bool(false), nil
	case p.word("null"):
		return Value{}, nil
	}
	return Value{}, ErrSyntax
}

func (p *parser) nested(read func() (Value, error)) (Value, error) {
	if p.depth++; p.depth > MaxDepth {
		return Value{}, ErrDepth
	}
	p.at++
	v, err := read()
	p.depth--
	return v, err
}

func (p *parser) array() (Value, error) {
	items := []Value{}
	p.space()
	if p.eat(']') {
		return Array(items...), nil
	}
	for {
		v, err := p.value()
		if err != nil {
			return Value{}, err
		}
		items = append(items, v)
		p.space()
		if p.eat(']') {
			return Array(items...), nil
		}
		if !p.eat(',') {
			return Value{}, ErrSyntax
		}
	}
}

func (p *parser) object() (Value, error) {
	members := []Member{}
	ordered := true
	p.space()
	if p.eat('}') {
		return Value{kind: Map, members: members}, nil
	}
	for {
		p.space()
		name, err := p.text()
		if err != nil {
			return Value{}, err
		}
		p.space()
		if !p.eat(':') {
			return Value{}, ErrSyntax
		}
		v, err := p.value()
		if err != nil {
			return Value{}, err
		}
		if n := len(members); n > 0 && members[n-1].Name >= name {
			ordered = false
		}
		members = append(members, Member{name, v})
		p.space()
		if p.eat('}') {
			break
		}
		if !p.eat(',') {
			return Value{}, ErrSyntax
		}
	}
	if !ordered && !sortUnique(members) {
		return Value{}, ErrDuplicate
	}
	return Value{kind: Map, members: members}, nil
}

// sortUnique sorts members by name (heap sort: bounded time on hostile input,
// and no generic sort in the agent) and reports whether all names differ.
func sortUnique(m []Member) bool {
	down := func(i, n int) {
		for {
			c := 2*i + 1
			if c >= n {
				return
			}
			if c+1 < n && m[c].Name < m[c+1].Name {
				c++
			}
			if m[i].Name >= m[c].Name {
				return
			}
			m[i], m[c] = m[c], m[i]
			i = c
		}
	}
	for i := len(m)/2 - 1; i >= 0; i-- {
		down(i, len(m))
	}
	for n := len(m) - 1; n > 0; n-- {
		m[0], m[n] = m[n], m[0]
		down(0, n)
	}
	for i := 1; i < len(m); i++ {
		if m[i-1].Name == m[i].Name {
			return false
		}
	}
	return true
}

func (p *parser) number() (Value, error) {
	start := p.at
	p.eat('-')
	digits := p.at
	for p.at < len(p.b) && '0' <= p.b[p.at] && p.b[p.at] <= '9' {
		p.at++
	}
	if p.at == digits || p.b[digits] == '0' && p.at > digits+1 {
		return Value{}, ErrSyntax
	}
	if p.at < len(p.b) && (p.b[p.at] == '.' || p.b[p.at] == 'e' || p.b[p.at] == 'E') {
		return Value{}, ErrNumber
	}
	n, err := strconv.ParseInt(string(p.b[start:p.at]), 10, 64)
	if err != nil {
		return Value{}, ErrNumber
	}
	return Int(n), nil
}

func (p *parser) text() (string, error) {
	if !p.eat('"') {
		return "", ErrSyntax
	}
	start := p.at
	for p.at < len(p.b) { // the common case: nothing escaped
		switch c := p.b[p.at]; {
		case c == '"':
			s := p.b[start:p.at]
			p.at++
			if !utf8.Valid(s) {
				return "", ErrUTF8
			}
			return string(s), nil
		case c < 0x20:
			return "", ErrSyntax
		case c == '\\':
			return p.escapedText(start)
		default:
			p.at++
		}
	}
	return "", ErrSyntax
}

func (p *parser) escapedText(start int) (string, error) {
	out := append([]byte(nil), p.b[start:p.at]...)
	for p.at < len(p.b) {
		c := p.b[p.at]
		p.at++
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", ErrUTF8
			}
			return string(out), nil
		case c < 0x20:
			return "", ErrSyntax
		case c != '\\':
			out = append(out, c)
		default:
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		}
	}
	return "", ErrSyntax
}

func (p *parser) escape() (rune, error) {
	if p.at >= len(p.b) {
		return 0, ErrSyntax
	}
	c := p.b[p.at]
	p.at++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, err := p.hex4()
		if err != nil || !utf16.IsSurrogate(r) {
			return r, err
		}
		if !p.word(`\u`) {
			return 0, ErrUTF8
		}
		low, err := p.hex4()
		if err != nil {
			return 0, err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return 0, ErrUTF8
		}
		return r, nil
	}
	return 0, ErrSyntax
}

func (p *parser) hex4() (rune, error) {
	if len(p.b)-p.at < 4 {
		return 0, ErrSyntax
	}
	n, err := strconv.ParseUint(string(p.b[p.at:p.at+4]), 16, 16)
	if err != nil {
		return 0, ErrSyntax
	}
	p.at += 4
	return rune(n), nil
}
