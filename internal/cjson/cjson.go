// Package cjson reads strict JSON and writes canonical JSON without reflection.
//
// It exists because everything that is signed in Livemend is JSON, and because
// the agent must stay small: encoding/json alone costs its package 126 kB.
// The reader refuses what two parsers could understand differently (duplicate
// names, invalid UTF-8, numbers that are not integers, anything after the
// value) and bounds what a hostile document can cost. The writer produces the
// one canonical form over which signatures are made (OLPC canonical JSON, as
// the TUF specification 1.0 section 4.2 asks for: names sorted by code unit,
// no white space, only " and \ escaped).
//
// It must not learn about types of other packages, use reflection, or import
// fmt. It is pure and its values may be shared between goroutines.
package cjson

import (
	"errors"
	"slices"
	"strings"
)

// Limits on any document. They are far above what Livemend writes.
const (
	MaxDepth  = 32        // nesting of arrays and objects
	MaxValues = 1_000_000 // values in one document
)

// Errors that Parse returns, wrapped with the byte offset where it stopped.
var (
	ErrSyntax    = errors.New("not valid JSON")
	ErrDuplicate = errors.New("the same name twice in one object")
	ErrDepth     = errors.New("nested too deep")
	ErrSize      = errors.New("too many values")
	ErrNumber    = errors.New("number is not a 64-bit integer")
	ErrUTF8      = errors.New("text is not valid UTF-8")
)

// Kind says what a Value is.
type Kind uint8

// The kinds of a Value. The zero Value is Null.
const (
	Null Kind = iota
	Boolean
	Integer
	Text
	List
	Map
)

// Member is one name and its value in an object.
type Member struct {
	Name  string
	Value Value
}

// Value is one immutable JSON value. The zero Value is null.
type Value struct {
	kind    Kind
	num     int64
	text    string
	items   []Value
	members []Member // sorted by name
}

// String makes a text value.
func String(s string) Value { return Value{kind: Text, text: s} }

// Int makes an integer value.
func Int(n int64) Value { return Value{kind: Integer, num: n} }

// Bool makes a boolean value.
func Bool(b bool) Value {
	if b {
		return Value{kind: Boolean, num: 1}
	}
	return Value{kind: Boolean}
}

// Array makes a list of the given values.
func Array(items ...Value) Value { return Value{kind: List, items: items} }

// Strings makes a list of text values.
func Strings(items []string) Value {
	out := make([]Value, len(items))
	for i, s := range items {
		out[i] = String(s)
	}
	return Array(out...)
}

// Object makes an object. Of members with the same name the last one counts.
func Object(members ...Member) Value {
	sorted := make([]Member, 0, len(members))
	for _, m := range members {
		i, found := find(sorted, m.Name)
		if found {
			sorted[i] = m
			continue
		}
		sorted = slices.Insert(sorted, i, m)
	}
	return Value{kind: Map, members: sorted}
}

// F makes a Member; it keeps object literals short.
func F(name string, v Value) Member { return Member{Name: name, Value: v} }

func find(sorted []Member, name string) (int, bool) {
	lo, hi := 0, len(sorted)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := strings.Compare(sorted[mid].Name, name); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// Kind returns what v is.
func (v Value) Kind() Kind { return v.kind }

// Text returns the text of v and whether v is text.
func (v Value) Text() (string, bool) { return v.text, v.kind == Text }

// Int returns the integer v and whether v is one.
func (v Value) Int() (int64, bool) { return v.num, v.kind == Integer }

// Bool returns the boolean v and whether v is one.
func (v Value) Bool() (value, ok bool) { return v.num == 1, v.kind == Boolean }

// Items returns the values of a list; nil when v is not a list. The caller
// must not change the slice.
func (v Value) Items() []Value { return v.items }

// Members returns the members of an object, sorted by name; nil when v is not
// an object. The caller must not change the slice.
func (v Value) Members() []Member { return v.members }

// Get returns the member called name and whether v is an object that has it.
func (v Value) Get(name string) (Value, bool) {
	i, ok := find(v.members, name)
	if !ok {
		return Value{}, false
	}
	return v.members[i].Value, true
}

// Canonical returns v in canonical form: the bytes that are signed. Control
// characters in a text stand raw in it, as canonical JSON demands, so it is
// not always JSON; what is stored or sent is written by JSON.
func (v Value) Canonical() []byte { return v.append(nil, appendCanonicalText) }

// JSON returns v as compact JSON: the canonical form, with control characters
// escaped so that Parse reads it back.
func (v Value) JSON() []byte { return v.append(nil, appendJSONText) }

func (v Value) append(b []byte, text func([]byte, string) []byte) []byte {
	switch v.kind {
	case Boolean:
		if v.num == 1 {
			return append(b, "true"...)
		}
		return append(b, "false"...)
	case Integer:
		return appendInt(b, v.num)
	case Text:
		return text(b, v.text)
	case List:
		b = append(b, '[')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.append(b, text)
		}
		return append(b, ']')
	case Map:
		b = append(b, '{')
		for i, m := range v.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = text(b, m.Name)
			b = append(b, ':')
			b = m.Value.append(b, text)
		}
		return append(b, '}')
	default:
		return append(b, "null"...)
	}
}

func appendInt(b []byte, n int64) []byte {
	var buf [20]byte
	i := len(buf)
	u := uint64(n)
	if n < 0 {
		u = -u
	}
	for {
		i--
		buf[i] = byte('0' + u%10)
		if u /= 10; u == 0 {
			break
		}
	}
	if n < 0 {
		i--
		buf[i] = '-'
	}
	return append(b, buf[i:]...)
}

func appendCanonicalText(b []byte, s string) []byte { return appendText(b, s, 0) }

func appendJSONText(b []byte, s string) []byte { return appendText(b, s, 0x20) }

// appendText writes s, with " and \ and everything below escapeBelow escaped.
func appendText(b []byte, s string, escapeBelow byte) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < escapeBelow:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
