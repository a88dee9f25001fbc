package layout

import (
	"debug/dwarf"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// form is what a type looks like in memory.
type form struct {
	kind    string
	size    int64
	members []member
	values  []value
	target  string // of a typedef
}

type member struct{ name, at, of string }

type value struct{ name, is string }

// differs says how n, the new form, must not differ from f. An enum may get
// values that no object holds yet.
func (f *form) differs(n *form) []string {
	var why []string
	if f.kind != n.kind {
		return []string{"it was " + f.kind + " and is " + n.kind}
	}
	if f.target != n.target {
		why = append(why, "it was "+f.target+" and is "+n.target)
	}
	if f.size != n.size {
		why = append(why, fmt.Sprintf("its size changed from %d to %d bytes", f.size, n.size))
	}
	for _, m := range f.members {
		i := slices.IndexFunc(n.members, func(x member) bool { return x.name == m.name })
		if i < 0 {
			why = append(why, "member "+m.name+" at "+m.at+" is gone")
			continue
		}
		if x := n.members[i]; x.at != m.at {
			why = append(why, "member "+m.name+" moved from "+m.at+" to "+x.at)
		}
		if x := n.members[i]; x.of != m.of {
			why = append(why, "member "+m.name+" was "+m.of+" and is "+x.of)
		}
	}
	for _, m := range n.members {
		if !slices.ContainsFunc(f.members, func(x member) bool { return x.name == m.name }) {
			why = append(why, "member "+m.name+" at "+m.at+" is new")
		}
	}
	for _, v := range f.values {
		i := slices.IndexFunc(n.values, func(x value) bool { return x.name == v.name })
		switch {
		case i < 0:
			why = append(why, "value "+v.name+" ("+v.is+") is gone")
		case n.values[i].is != v.is:
			why = append(why, "value "+v.name+" changed from "+v.is+" to "+n.values[i].is)
		}
	}
	return why
}

func (f *form) sharesValue(n *form) bool {
	return slices.ContainsFunc(f.values, func(v value) bool {
		return slices.ContainsFunc(n.values, func(x value) bool { return x.name == v.name })
	})
}

func (f *form) equal(n *form) bool {
	return f.kind == n.kind && f.size == n.size && f.target == n.target && slices.Equal(f.members, n.members) && slices.Equal(f.values, n.values)
}

// types makes the forms of all types that were read.
func (r *reader) types() (*types, error) {
	t := &types{named: map[string][]*form{}, code: r.code}
	m := &maker{all: r.all, memo: map[dwarf.Offset]string{}}
	through := map[*die]bool{} // nameless types that a typedef names
	for _, d := range r.all {
		if d.tag == dwarf.TagTypedef {
			through[m.nameless(d)] = true
		}
	}
	for _, off := range r.order {
		d := r.all[off]
		if d.declared || through[d] {
			continue
		}
		var f *form
		name := kind(d.tag) + " " + d.name
		switch {
		case d.tag == dwarf.TagTypedef:
			f = m.typedef(d)
		case aggregate(d.tag) && d.name != "":
			f = m.aggregate(d)
		case d.tag == dwarf.TagEnumerationType && len(d.children) > 0:
			t.enums = append(t.enums, m.aggregate(d))
			continue
		default:
			continue
		}
		if !slices.ContainsFunc(t.named[name], f.equal) {
			t.named[name] = append(t.named[name], f)
		}
	}
	return t, m.err
}

// maker turns entries into forms and texts and keeps the first error.
type maker struct {
	all  map[dwarf.Offset]*die
	memo map[dwarf.Offset]string
	err  error
}

func (m *maker) fail(reason string) string {
	if m.err == nil {
		m.err = errors.New("the debug information is damaged: " + reason)
	}
	return "?"
}

func kind(tag dwarf.Tag) string {
	switch tag {
	case dwarf.TagStructType, dwarf.TagClassType:
		return "struct"
	case dwarf.TagUnionType:
		return "union"
	case dwarf.TagEnumerationType:
		return "enum"
	case dwarf.TagTypedef:
		return "typedef"
	}
	return ""
}

func aggregate(tag dwarf.Tag) bool {
	k := kind(tag)
	return k == "struct" || k == "union" || k == "enum"
}

// aggregate returns the form of a struct, union or enum.
func (m *maker) aggregate(d *die) *form { return m.body(d, 0) }

func (m *maker) body(d *die, depth int) *form {
	f := &form{kind: kind(d.tag), size: d.size}
	for _, c := range d.children {
		switch c.tag {
		case dwarf.TagMember, dwarf.TagInheritance:
			name := c.name
			if name == "" {
				name = f.nameless(c.at)
			}
			f.members = append(f.members, member{name: name, at: c.at, of: m.of(c, depth+1)})
		case dwarf.TagEnumerator:
			f.values = append(f.values, value{c.name, c.value})
		}
	}
	return f
}

// nameless names a member without a name by its place; several of a union have
// the same, and are told apart by their order.
func (f *form) nameless(at string) string {
	name := "without a name at " + at
	for n := 2; slices.ContainsFunc(f.members, func(m member) bool { return m.name == name }); n++ {
		name = fmt.Sprintf("%d without a name at %s", n, at)
	}
	return name
}

// typedef returns the form of a typedef: that of the nameless type behind it, or
// a text.
func (m *maker) typedef(d *die) *form {
	if behind := m.nameless(d); behind != nil {
		return m.aggregate(behind)
	}
	return &form{kind: "typedef", target: m.of(d, 0)}
}

// nameless returns the struct, union or enum without a name that d is a name
// for, or nil.
func (m *maker) nameless(d *die) *die {
	for range maxDepth {
		if !d.typed {
			return nil
		}
		d = m.all[d.of]
		switch {
		case d == nil:
			return nil
		case aggregate(d.tag) && d.name == "":
			return d
		case qualifier(d.tag):
		default:
			return nil
		}
	}
	return nil
}

func qualifier(tag dwarf.Tag) bool {
	return tag == dwarf.TagConstType || tag == dwarf.TagVolatileType || tag == dwarf.TagRestrictType
}

// of returns a text for the type that d refers to. Equal texts are the same in
// memory, given that types with a name, which are compared on their own, are.
func (m *maker) of(d *die, depth int) string {
	if !d.typed {
		return "void"
	}
	if depth > maxDepth {
		return m.fail("types are nested too deeply")
	}
	if known, ok := m.memo[d.of]; ok {
		if known == "" {
			return m.fail("a type holds itself")
		}
		return known
	}
	to := m.all[d.of]
	if to == nil {
		return m.fail("a type is missing")
	}
	m.memo[d.of] = ""
	s := m.describe(to, depth)
	if len(s) > 1<<16 {
		return m.fail("a type is too large")
	}
	m.memo[d.of] = s
	return s
}

func (m *maker) describe(d *die, depth int) string {
	next := depth + 1
	switch d.tag {
	case dwarf.TagTypedef:
		if m.nameless(d) != nil {
			return d.name
		}
		return m.of(d, next)
	case dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType:
		return m.of(d, next)
	case dwarf.TagAtomicType:
		return "atomic " + m.of(d, next)
	case dwarf.TagPointerType, dwarf.TagReferenceType, dwarf.TagRvalueReferenceType:
		return "pointer to " + m.of(d, next)
	case dwarf.TagBaseType:
		return basic(d)
	case dwarf.TagArrayType:
		return m.array(d, next)
	case dwarf.TagSubroutineType:
		return m.function(d, next)
	case dwarf.TagStructType, dwarf.TagClassType, dwarf.TagUnionType, dwarf.TagEnumerationType:
		if d.name != "" {
			return kind(d.tag) + " " + d.name
		}
		if d.tag == dwarf.TagEnumerationType { // its values are compared on their own
			return fmt.Sprintf("enum of %d bytes", d.size)
		}
		f := m.body(d, depth)
		parts := make([]string, len(f.members))
		for i, x := range f.members {
			parts[i] = x.name + " at " + x.at + ": " + x.of
		}
		return fmt.Sprintf("%s of %d bytes {%s}", f.kind, f.size, strings.Join(parts, ", "))
	}
	return fmt.Sprintf("type %d %s of %d bytes", d.tag, d.name, d.size)
}

func (m *maker) array(d *die, depth int) string {
	s := "array of "
	for _, c := range d.children {
		if c.tag == dwarf.TagSubrangeType {
			s += c.value + " x "
		}
	}
	return s + m.of(d, depth)
}

func (m *maker) function(d *die, depth int) string {
	var args []string
	for _, c := range d.children {
		switch c.tag {
		case dwarf.TagFormalParameter:
			args = append(args, m.of(c, depth))
		case dwarf.TagUnspecifiedParameters:
			args = append(args, "...")
		}
	}
	return "function (" + strings.Join(args, ", ") + ") giving " + m.of(d, depth)
}

// Encodings of basic types, from the DWARF standard.
const (
	encFloat        = 0x04
	encSigned       = 0x05
	encSignedChar   = 0x06
	encUnsigned     = 0x07
	encUnsignedChar = 0x08
)

// basic names a basic type by its form: int and long may be the same.
func basic(d *die) string {
	switch d.encoding {
	case encSigned, encSignedChar:
		return fmt.Sprintf("int%d", 8*d.size)
	case encUnsigned, encUnsignedChar:
		return fmt.Sprintf("uint%d", 8*d.size)
	case encFloat:
		return fmt.Sprintf("float%d", 8*d.size)
	}
	return fmt.Sprintf("%s of %d bytes", d.name, d.size)
}
