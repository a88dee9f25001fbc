package layout

import (
	"debug/dwarf"
	"errors"
	"fmt"
	"slices"

	"livemend.dev/livemend/author/object"
)

// Limits on the debug information of one object.
const (
	maxEntries = 8_000_000
	maxDepth   = 500 // of entries in each other, and of types of types
)

// die is one entry that describes a type or a part of one.
type die struct {
	tag      dwarf.Tag
	name     string
	of       dwarf.Offset // the type that it refers to
	typed    bool
	declared bool
	size     int64
	at       string // place of a member
	value    string // of an enumerator, or number of elements of an array
	encoding int64
	children []*die
}

// types are the types of one object.
type types struct {
	named map[string][]*form // by kind and name
	enums []*form            // without a name
	code  map[int]bool       // sections whose code belongs to described functions
}

// readTypes reads the types of an object.
func readTypes(o *object.Object) (t *types, err error) {
	debug, err := o.Debug()
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("the debug information is damaged: %v", p)
		}
	}()
	r := &reader{data: debug.Data, all: map[dwarf.Offset]*die{}, code: map[int]bool{}}
	if err := r.read(); err != nil {
		return nil, err
	}
	return r.types()
}

type reader struct {
	data  *dwarf.Data
	all   map[dwarf.Offset]*die
	order []dwarf.Offset
	code  map[int]bool
	basic bool // the unit at hand describes a basic type
	runs  bool // the unit at hand describes code
}

// read collects the entries that say something about types.
func (r *reader) read() error {
	in := r.data.Reader()
	var stack []*die
	for n := 0; ; n++ {
		e, err := in.Next()
		if err != nil {
			return err
		}
		if e == nil {
			return r.endUnit()
		}
		if n == maxEntries || len(stack) > maxDepth {
			return errors.New("the debug information is too large or too deep")
		}
		if e.Tag == 0 {
			if len(stack) > 0 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		if err := r.unit(e); err != nil {
			return err
		}
		d, err := r.entry(e)
		if err != nil {
			return err
		}
		if d != nil {
			r.all[e.Offset] = d
			r.order = append(r.order, e.Offset)
			if k := len(stack); k > 0 && stack[k-1] != nil {
				stack[k-1].children = append(stack[k-1].children, d)
			}
		}
		if e.Children {
			stack = append(stack, d)
		}
	}
}

const gnuDwoName = dwarf.Attr(0x2130)

// unit looks at entries for what makes the information unusable.
func (r *reader) unit(e *dwarf.Entry) error {
	switch e.Tag {
	case dwarf.TagCompileUnit, dwarf.TagSkeletonUnit:
		if e.Val(dwarf.AttrDwoName) != nil || e.Val(gnuDwoName) != nil {
			return errors.New("the debug information is in another file; build without -gsplit-dwarf")
		}
		return r.endUnit()
	case dwarf.TagPartialUnit, dwarf.TagTypeUnit, dwarf.TagImportedUnit:
		return errors.New("the debug information is not in one piece")
	case dwarf.TagBaseType:
		r.basic = true
	case dwarf.TagSubprogram:
		ranges, err := r.data.Ranges(e)
		if err != nil {
			return err
		}
		for _, at := range ranges {
			r.code[object.SectionAt(at[0])] = true
			r.runs = true
		}
	}
	return nil
}

// endUnit refuses units that describe functions but no types: so does -g1.
func (r *reader) endUnit() error {
	if r.runs && !r.basic {
		return errors.New("the debug information describes functions but no types, as that of assembler and of -g1 does; build with -g")
	}
	r.runs, r.basic = false, false
	return nil
}

var kept = []dwarf.Tag{
	dwarf.TagArrayType, dwarf.TagClassType, dwarf.TagEnumerationType, dwarf.TagEnumerator, dwarf.TagFormalParameter,
	dwarf.TagMember, dwarf.TagPointerType, dwarf.TagReferenceType, dwarf.TagRvalueReferenceType, dwarf.TagStructType,
	dwarf.TagSubroutineType, dwarf.TagSubrangeType, dwarf.TagTypedef, dwarf.TagUnionType, dwarf.TagUnspecifiedParameters,
	dwarf.TagInheritance, dwarf.TagBaseType, dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType,
	dwarf.TagAtomicType, dwarf.TagUnspecifiedType, dwarf.TagPtrToMemberType,
}

// entry returns what e says about a type, or nil.
func (r *reader) entry(e *dwarf.Entry) (*die, error) {
	if !slices.Contains(kept, e.Tag) {
		return nil, nil
	}
	d := &die{tag: e.Tag, size: -1}
	d.name, _ = e.Val(dwarf.AttrName).(string)
	d.declared, _ = e.Val(dwarf.AttrDeclaration).(bool)
	if n, ok := e.Val(dwarf.AttrByteSize).(int64); ok {
		d.size = n
	}
	d.encoding, _ = e.Val(dwarf.AttrEncoding).(int64)
	switch of := e.Val(dwarf.AttrType).(type) {
	case nil:
	case dwarf.Offset:
		d.of, d.typed = of, true
	default:
		return nil, errors.New("the debug information is not in one piece; build without -fdebug-types-section")
	}
	switch e.Tag {
	case dwarf.TagMember, dwarf.TagInheritance:
		d.at = place(e)
	case dwarf.TagEnumerator:
		d.value = fmt.Sprint(e.Val(dwarf.AttrConstValue))
	case dwarf.TagSubrangeType:
		d.value = count(e)
	}
	return d, nil
}

// place says where in its struct a member lies.
func place(e *dwarf.Entry) string {
	start := e.Val(dwarf.AttrDataMemberLoc)
	wide := e.Val(dwarf.AttrBitSize)
	switch {
	case wide == nil && start == nil:
		return "byte 0"
	case wide == nil:
		return fmt.Sprintf("byte %v", start)
	case e.Val(dwarf.AttrDataBitOffset) != nil:
		return fmt.Sprintf("bit %v (%v wide)", e.Val(dwarf.AttrDataBitOffset), wide)
	}
	if start == nil {
		start = 0
	}
	return fmt.Sprintf("byte %v bit %v (%v wide)", start, e.Val(dwarf.AttrBitOffset), wide)
}

// count returns the number of elements of one dimension of an array.
func count(e *dwarf.Entry) string {
	if n, ok := e.Val(dwarf.AttrCount).(int64); ok {
		return fmt.Sprint(n)
	}
	if top, ok := e.Val(dwarf.AttrUpperBound).(int64); ok {
		return fmt.Sprint(top + 1)
	}
	return "any number of"
}
