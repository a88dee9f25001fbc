// Package ownership finds changes that may alter who frees an object. Such a fix
// is right for objects that the new code makes, and wrong for those that the old
// code made and a running process still holds: freed twice, or never. Code alone
// does not show it, so the package asks for a person's word when a function that
// frees changes together with another one that now allocates or frees otherwise.
//
// What a function allocates and frees is told by the names of what it refers to.
// Debug information tells which function of the source that is: code that the
// compiler copies or moves between functions has not changed. Calls through
// pointers in an object are not seen. The package is pure.
package ownership

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode"

	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
)

// maxReasons bounds the functions that one refusal explains.
const maxReasons = 6

// Check returns at most one refusal for all the pairs. Its place is the names
// of the functions concerned.
func Check(pairs []*objdiff.Pair) []*refusal.Error {
	var all []*function
	for _, p := range pairs {
		all = append(all, functions(p)...)
	}
	var names, reasons []string
	for _, f := range all {
		differs := f.differs()
		alters := differs != "" && slices.ContainsFunc(all, func(g *function) bool { return g != f && g.frees() })
		frees := f.frees() && slices.ContainsFunc(all, func(g *function) bool { return g != f && g.differs() != "" })
		if !alters && !frees {
			continue
		}
		if differs == "" {
			differs = "frees (" + strings.Join(slices.Sorted(maps.Keys(f.after.of(Release))), ", ") + ") and changed"
		}
		if !slices.Contains(names, f.name) {
			names = append(names, f.name)
		}
		reasons = append(reasons, f.name+" "+differs)
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	slices.Sort(reasons)
	if n := len(reasons); n > maxReasons {
		reasons = append(reasons[:maxReasons:maxReasons], fmt.Sprintf("and %d functions more", n-maxReasons))
	}
	return []*refusal.Error{refusal.New(refusal.Ownership, strings.Join(names, ", "),
		"who frees what may have changed ("+strings.Join(reasons, "; ")+"); objects that the old code made and that live on may be freed twice or never, and a person must look at that")}
}

// Role is what a name says about memory.
type Role uint8

// The roles.
const (
	None    Role = iota
	Acquire      // allocates, copies or takes a reference
	Release      // frees or drops a reference
)

// counts says how often names that have a role are referred to.
type counts map[string]int

func (c counts) of(role Role) counts {
	out := counts{}
	for name, n := range c {
		if RoleOf(name) == role {
			out[name] = n
		}
	}
	return out
}

// function is one function that differs, with its parts and clones.
type function struct {
	name          string
	old           bool // false when the function is new
	before, after counts
	moved         map[string]bool // what the source refers to otherwise than before
	all           bool            // that is not known: everything may be
	calls         map[string]bool // what the new code refers to
	split         bool            // code moved between it and a new function that the old one calls
}

// frees reports whether the function is an old one that frees.
func (f *function) frees() bool {
	return f.old && len(f.after.of(Release))+len(f.before.of(Release)) > 0
}

// differs says how the function allocates or frees otherwise than before. More
// or fewer places that free the same way do not count: compilers double them,
// and error paths come and go.
func (f *function) differs() string {
	if f.split {
		return ""
	}
	var why []string
	for _, n := range changed(f.before, f.after) {
		if f.all || f.moved[n] {
			why = append(why, fmt.Sprintf("refers to %s %d instead of %d times", n, f.after[n], f.before[n]))
		}
	}
	return strings.Join(why, ", ")
}

// changed returns the names whose counts differ in a way that matters.
func changed(before, after counts) (names []string) {
	all := slices.Collect(maps.Keys(before))
	all = slices.AppendSeq(all, maps.Keys(after))
	slices.Sort(all)
	for _, n := range slices.Compact(all) {
		was, is := before[n], after[n]
		if was != is && (RoleOf(n) == Acquire || was == 0 || is == 0) {
			names = append(names, n)
		}
	}
	return names
}

// sites counts the places in an object's source, function by function, that
// refer to a name with a role. ok is false when there is no debug information to
// tell.
func sites(o *object.Object) (count map[string]counts, ok bool) {
	debug, err := o.Debug()
	if err != nil {
		return nil, false
	}
	type site struct {
		name, file   string
		line, column int
	}
	count = map[string]counts{}
	seen := map[site]bool{}
	for _, f := range o.Functions {
		for off, name := range references(o, f) {
			at, known := debug.LineAt(f.Section, off)
			if !known {
				return nil, false
			}
			s := site{name, at.File, at.Line, at.Column}
			if seen[s] {
				continue
			}
			seen[s] = true
			in := at.File + " " + debug.SourceFunction(at)
			if count[in] == nil {
				count[in] = counts{}
			}
			count[in][name]++
		}
	}
	return count, true
}

// moved returns the names that some function of the source refers to otherwise
// than before; all is true when that cannot be told.
func moved(p *objdiff.Pair) (names map[string]bool, all bool) {
	if p.Before == nil || p.After == nil {
		return nil, true
	}
	was, ok := sites(p.Before)
	is, ok2 := sites(p.After)
	if !ok || !ok2 {
		return nil, true
	}
	names = map[string]bool{}
	for _, side := range []map[string]counts{was, is} {
		for in := range side {
			for _, name := range changed(was[in], is[in]) {
				names[name] = true
			}
		}
	}
	return names, false
}

// functions returns what differs in one object, in the order of the names.
func functions(p *objdiff.Pair) []*function {
	names, all := moved(p)
	byName := map[string]*function{}
	at := func(f *object.Function) *function {
		name := origin(f.Name)
		if byName[name] == nil {
			byName[name] = &function{name: name, before: counts{}, after: counts{}, moved: names, all: all, calls: map[string]bool{}}
		}
		return byName[name]
	}
	for _, f := range p.New {
		at(f)
	}
	for _, f := range p.Changed {
		at(f).old = true
	}
	count := func(o *object.Object, side func(*function) counts) {
		if o == nil {
			return
		}
		for _, f := range o.Functions {
			if d := byName[origin(f.Name)]; d != nil {
				add(side(d), o, f)
			}
		}
	}
	count(p.Before, func(f *function) counts { return f.before })
	count(p.After, func(f *function) counts { return f.after })
	for _, f := range p.After.Functions {
		if d := byName[origin(f.Name)]; d != nil {
			for _, name := range named(p.After, f) {
				d.calls[name] = true
			}
		}
	}
	var out []*function
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	markSplits(out)
	return out
}

// markSplits finds functions of which a part became a new function that they
// call: what they allocated and freed then happens as before.
func markSplits(all []*function) {
	for _, f := range all {
		for _, g := range all {
			if !f.old || g.old || !f.calls[g.name] || len(g.after) == 0 {
				continue
			}
			lost := maps.Clone(f.before)
			for n, count := range f.after {
				lost[n] -= count
			}
			maps.DeleteFunc(lost, func(_ string, count int) bool { return count == 0 })
			if maps.Equal(lost, g.after) {
				f.split, g.split = true, true
			}
		}
	}
}

// add counts what the code of f refers to.
func add(c counts, o *object.Object, f *object.Function) {
	for _, name := range references(o, f) {
		c[name]++
	}
}

// references yields what the code of f refers to that has a role, and the offset
// in its section.
func references(o *object.Object, f *object.Function) iter.Seq2[uint64, string] {
	return func(yield func(uint64, string) bool) {
		for off, name := range named(o, f) {
			if name != origin(f.Name) && RoleOf(name) != None && !yield(off, name) {
				return
			}
		}
	}
}

// named yields the names of all that the code of f refers to, functions of the
// object by their origin, and the offset in its section.
func named(o *object.Object, f *object.Function) iter.Seq2[uint64, string] {
	return func(yield func(uint64, string) bool) {
		for _, r := range f.Section.Relocs {
			name := object.Unversioned(o.Symbols[r.Symbol].Name)
			if to, off, _ := o.TargetOf(f.Section, r); to != nil && to.Class == object.Code {
				if g := o.FunctionAt(to, off); g != nil {
					name = origin(g.Name)
				}
			}
			if !yield(r.Off, name) {
				return
			}
		}
	}
}

// origin cuts what the compiler puts behind names of parts and clones.
func origin(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return name[:i]
	}
	return name
}

// RoleOf judges a name by its words: xmlFreeNode, png_free_data, strdup.
func RoleOf(name string) Role {
	role := None
	for _, w := range words(name) {
		switch {
		case strings.HasPrefix(w, "free"), strings.HasSuffix(w, "free"), strings.HasSuffix(w, "dealloc"):
			return Release
		}
		switch w {
		case "destroy", "release", "unref", "decref", "delete", "dispose":
			return Release
		case "new", "create", "clone", "ref", "incref":
			role = Acquire
		}
		if strings.Contains(w, "alloc") || strings.HasSuffix(w, "dup") {
			role = Acquire
		}
	}
	return role
}

// words splits a name at underscores, digits and capitals, in lower case.
func words(name string) []string {
	var out []string
	var word strings.Builder
	flush := func() {
		if word.Len() > 0 {
			out = append(out, strings.ToLower(word.String()))
			word.Reset()
		}
	}
	lower := false
	for _, c := range name {
		if !unicode.IsLetter(c) || (lower && unicode.IsUpper(c)) {
			flush()
		}
		if unicode.IsLetter(c) {
			word.WriteRune(c)
		}
		lower = unicode.IsLower(c)
	}
	flush()
	return out
}
