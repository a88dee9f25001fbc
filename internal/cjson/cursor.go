package cjson

import "errors"

// ErrField is what Cursor reports, wrapped in a FieldError that names the field.
var ErrField = errors.New("missing or of the wrong type")

// FieldError names the field that was missing, of the wrong type or over its limit.
type FieldError struct {
	Field string
	Err   error
}

func (e *FieldError) Error() string { return "field " + e.Field + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *FieldError) Unwrap() error { return e.Err }

// Cursor reads the fields of one object and remembers the first error, so that
// a decoder is a list of assignments with one check at its end. Fields that are
// not asked for are ignored: newer writers may add some. Not for concurrent use.
type Cursor struct {
	v   Value
	err *error
}

// Fields starts reading the object v. If v is no object, every read fails.
func Fields(v Value) Cursor {
	c := Cursor{v: v, err: new(error)}
	if v.kind != Map {
		*c.err = &FieldError{"(document)", ErrField}
	}
	return c
}

// Err returns the first error of any read through this cursor.
func (c Cursor) Err() error { return *c.err }

// Fail records err for the field name, unless an earlier error is kept already.
func (c Cursor) Fail(name string, err error) {
	if *c.err == nil {
		*c.err = &FieldError{name, err}
	}
}

// Has reports whether the object has the field.
func (c Cursor) Has(name string) bool {
	_, ok := c.v.Get(name)
	return ok
}

// Value returns the required field whatever it is.
func (c Cursor) Value(name string) Value {
	v, ok := c.v.Get(name)
	if !ok {
		c.Fail(name, ErrField)
	}
	return v
}

// Text returns a required text of at most max bytes.
func (c Cursor) Text(name string, max int) string {
	s, ok := c.Value(name).Text()
	if !ok || len(s) > max {
		c.Fail(name, ErrField)
		return ""
	}
	return s
}

// OptText returns a text of at most max bytes, or "" when the field is absent.
func (c Cursor) OptText(name string, max int) string {
	if !c.Has(name) {
		return ""
	}
	return c.Text(name, max)
}

// Int returns a required integer.
func (c Cursor) Int(name string) int64 {
	n, ok := c.Value(name).Int()
	if !ok {
		c.Fail(name, ErrField)
	}
	return n
}

// OptInt returns an integer, or 0 when the field is absent.
func (c Cursor) OptInt(name string) int64 {
	if !c.Has(name) {
		return 0
	}
	return c.Int(name)
}

// Bool returns a required boolean.
func (c Cursor) Bool(name string) bool {
	b, ok := c.Value(name).Bool()
	if !ok {
		c.Fail(name, ErrField)
	}
	return b
}

// Items returns the values of a required list of at most max items.
func (c Cursor) Items(name string, max int) []Value {
	v := c.Value(name)
	if v.kind != List || len(v.items) > max {
		c.Fail(name, ErrField)
		return nil
	}
	return v.items
}

// Texts returns a required list of at most max texts of at most maxLen bytes.
func (c Cursor) Texts(name string, max, maxLen int) []string {
	items := c.Items(name, max)
	out := make([]string, 0, len(items))
	for _, v := range items {
		s, ok := v.Text()
		if !ok || len(s) > maxLen {
			c.Fail(name, ErrField)
			return nil
		}
		out = append(out, s)
	}
	return out
}

// Object returns a cursor over a required object field. It shares this
// cursor's error.
func (c Cursor) Object(name string) Cursor { return c.Nested(name, c.Value(name)) }

// Nested returns a cursor over v, an object found under the field name. It
// shares this cursor's error.
func (c Cursor) Nested(name string, v Value) Cursor {
	if v.kind != Map {
		c.Fail(name, ErrField)
	}
	return Cursor{v: v, err: c.err}
}
