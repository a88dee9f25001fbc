package objdiff

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"livemend.dev/livemend/author/object"
)

// side is one object with what its references mean. Texts that two sides make
// are equal exactly when the code or data they stand for does the same.
type side struct {
	obj   *object.Object
	names map[int]string    // variables whose name differs from the other side's
	memo  map[extent]string // content keys; empty while one is being made
}

type extent struct {
	section  int
	from, to uint64
}

func newSide(o *object.Object) *side {
	return &side{obj: o, names: map[int]string{}, memo: map[extent]string{}}
}

// section returns the key of a whole section.
func (v *side) section(s *object.Section) string { return v.content(s, 0, s.Size) }

// definition returns the key of the bytes of symbol i, which lies in s.
func (v *side) definition(s *object.Section, i int) string {
	y := &v.obj.Symbols[i]
	return v.content(s, y.Value, y.Value+y.Size)
}

// content returns a key for bytes [from, to) of s: the bytes with the fields of
// relocations masked, and what each of those refers to.
func (v *side) content(s *object.Section, from, to uint64) string {
	id := extent{s.Index, from, to}
	if key, ok := v.memo[id]; ok {
		if key == "" { // constants that point to each other in a circle
			return fmt.Sprintf("circle %s %d", s.Name, from)
		}
		return key
	}
	v.memo[id] = ""
	body, refers := v.masked(s, from, to)
	h := sha256.New()
	fmt.Fprintf(h, "%s%d\n", refers, len(body))
	h.Write(body)
	key := hex.EncodeToString(h.Sum(nil))
	v.memo[id] = key
	return key
}

// masked returns bytes [from, to) of s with the fields of relocations zeroed,
// and a text of what those refer to.
func (v *side) masked(s *object.Section, from, to uint64) (body []byte, refers string) {
	body = make([]byte, to-from)
	if s.Data != nil {
		copy(body, s.Data[from:to])
	}
	var b strings.Builder
	for _, r := range s.Relocs {
		if r.Off < from || r.Off+uint64(r.Width()) > to {
			continue
		}
		clear(body[r.Off-from:][:r.Width()])
		fmt.Fprintf(&b, "%d %d %q\n", r.Off-from, r.Type, v.meaning(s, r))
	}
	return body, b.String()
}

// meaning says what relocation r of section s refers to.
func (v *side) meaning(s *object.Section, r object.Reloc) string {
	y := &v.obj.Symbols[r.Symbol]
	switch y.Section {
	case object.Undefined:
		return fmt.Sprintf("external %s%+d", y.Name, r.Addend)
	case object.Absolute:
		return fmt.Sprintf("absolute %d", int64(y.Value)+r.Addend)
	case object.Common:
		return fmt.Sprintf("variable %s%+d", v.name(r.Symbol), r.Addend)
	}
	to, at, exact := v.obj.TargetOf(s, r)
	if to == nil {
		return fmt.Sprintf("not loaded %s%+d", y.Name, r.Addend)
	}
	switch to.Class {
	case object.Code:
		if f := v.obj.FunctionAt(to, at); f != nil {
			return fmt.Sprintf("function %s%+d", f.Name, at-int64(v.obj.Symbols[f.Symbol].Value))
		}
	case object.Writable, object.ThreadLocal:
		if i, ok := v.obj.Covering(to, at); ok {
			return fmt.Sprintf("variable %s%+d", v.name(i), at-int64(v.obj.Symbols[i].Value))
		}
	case object.Merged:
		if text, ok := element(to, at); ok && exact && len(to.Relocs) == 0 {
			return "constant " + text
		}
		return fmt.Sprintf("constants %s%+d", v.section(to), at)
	case object.Constant:
		if i, ok := v.obj.Covering(to, at); ok && exact {
			return fmt.Sprintf("constant %s%+d", v.definition(to, i), at-int64(v.obj.Symbols[i].Value))
		}
		return fmt.Sprintf("constants %s%+d", v.section(to), at)
	}
	return fmt.Sprintf("section %s%+d", to.Name, at)
}

func (v *side) name(i int) string {
	if n, ok := v.names[i]; ok {
		return n
	}
	return v.obj.Symbols[i].Name
}

// element returns the string or constant of a merged section at offset at.
func element(s *object.Section, at int64) (text string, ok bool) {
	if at < 0 || at >= int64(len(s.Data)) || s.Entry == 0 {
		return "", false
	}
	rest := s.Data[at:]
	if !s.Strings {
		if uint64(len(rest)) < s.Entry {
			return "", false
		}
		return string(rest[:s.Entry]), true
	}
	for end := 0; end+int(s.Entry) <= len(rest); end += int(s.Entry) {
		if unit := rest[end:][:s.Entry]; bytes.Count(unit, []byte{0}) == len(unit) {
			return string(rest[:end]), true
		}
	}
	return "", false
}

// base cuts the number that the compiler puts behind names of static locals.
func base(name string) string {
	cut := strings.TrimRight(name, "0123456789")
	if cut == name || !strings.HasSuffix(cut, ".") || cut == "." {
		return name
	}
	return cut[:len(cut)-1]
}

// origin cuts what the compiler puts behind names of parts and clones.
func origin(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return name[:i]
	}
	return name
}
