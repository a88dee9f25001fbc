// Package objdiff compares two builds of the same sources, object by object,
// and says which functions differ in what they do, which are new, and which
// differences cannot become a live patch.
//
// Code is compared with the fields that the linker fills masked, and those
// fields by what they refer to: functions and variables by name, constants and
// strings by content. A function that is equal under that comparison does the
// same in both builds, whatever numbers and places the compiler chose. Numbers
// of source lines in code do not count where debug information proves them.
//
// The package is pure: it reads no files and does not know the binary that
// runs on servers; whether an object is part of it is the linker's question.
package objdiff

import (
	"cmp"
	"debug/elf"
	"maps"
	"slices"
	"strings"

	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
)

// Pair is one object in both builds, and what differs.
type Pair struct {
	Path          string
	Before, After *object.Object // one of them is nil when the object is in one build only

	Changed []*object.Function // of After; each has a namesake in Before
	New     []*object.Function // of After
	Removed []*object.Function // of Before

	Refusals []*refusal.Error // they count when the object is part of the binary
	Notices  []string         // for people to read

	old    map[int]int // variables and constants of After that Before has with equal content
	pinned *Pair       // the same pair with one number for every source line, or nil
}

// Touched reports whether anything differs that a patch must carry or refuse.
func (p *Pair) Touched() bool {
	return len(p.Changed) > 0 || len(p.New) > 0 || len(p.Refusals) > 0
}

// Old returns the variable or constant of Before that symbol i of After is: the
// same object in memory with the same initial content. ok is false when i is
// new or, for a constant, changed.
func (p *Pair) Old(i int) (before int, ok bool) {
	before, ok = p.old[i]
	return before, ok
}

// IsChanged reports whether the function of After called name differs.
func (p *Pair) IsChanged(name string) bool {
	return slices.ContainsFunc(p.Changed, func(f *object.Function) bool { return f.Name == name })
}

// IsNew reports whether Before has no function called name.
func (p *Pair) IsNew(name string) bool {
	return slices.ContainsFunc(p.New, func(f *object.Function) bool { return f.Name == name })
}

// Compare pairs objects by path and compares each pair. The result is sorted
// by path.
func Compare(before, after []*object.Object) []*Pair { return ComparePinned(before, after, nil) }

// ComparePinned is Compare with the comparison of some of the same objects as
// the compiler makes them when __LINE__ is one and the same number everywhere.
// What does not differ there differs in the numbers of source lines only, and is
// left alone.
func ComparePinned(before, after []*object.Object, pinned []*Pair) []*Pair {
	byPath := map[string]*Pair{}
	at := func(path string) *Pair {
		if byPath[path] == nil {
			byPath[path] = &Pair{Path: path, old: map[int]int{}}
		}
		return byPath[path]
	}
	for _, o := range before {
		at(o.Path).Before = o
	}
	for _, o := range after {
		at(o.Path).After = o
	}
	for _, p := range pinned {
		if byPath[p.Path] != nil && p.Before != nil && p.After != nil {
			byPath[p.Path].pinned = p
		}
	}
	pairs := make([]*Pair, 0, len(byPath))
	for _, p := range byPath {
		p.compare()
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, func(a, b *Pair) int { return cmp.Compare(a.Path, b.Path) })
	return pairs
}

func (p *Pair) compare() {
	switch {
	case p.After == nil:
		p.Removed = p.Before.Functions
		return
	case p.Before == nil:
		p.New = p.After.Functions
	}
	if p.After.LTO || (p.Before != nil && p.Before.LTO) {
		p.refuse(refusal.LTO, "", "the object was made for link-time optimisation, so its code is not the code in the binary; build with -fno-lto")
		return
	}
	if p.Before == nil {
		p.compareInitialisers(newSide(&object.Object{}), newSide(p.After))
		p.checkNewStorage()
		return
	}
	before, after := newSide(p.Before), newSide(p.After)
	p.matchVariables(before, after)
	p.compareVariables(before, after)
	p.compareConstants(before, after)
	p.compareFunctions(before, after)
	p.compareInitialisers(before, after)
	p.checkNewStorage()
	p.checkChanged()
}

func (p *Pair) refuse(kind refusal.Kind, name, reason string) {
	place := p.Path
	if name != "" {
		place += " " + name
	}
	p.Refusals = append(p.Refusals, refusal.New(kind, place, reason))
}

// compareFunctions finds changed, new and removed functions. A function and
// its cold part are one: they jump into each other.
func (p *Pair) compareFunctions(before, after *side) {
	old := map[string]*object.Function{}
	for _, f := range p.Before.Functions {
		old[f.Name] = f
	}
	changed := map[string]bool{}
	var lines []string
	for _, f := range p.After.Functions {
		o := old[f.Name]
		if o == nil {
			p.New = append(p.New, f)
			if parent := f.Parent(); parent != "" {
				changed[parent] = true
			}
			continue
		}
		delete(old, f.Name)
		if before.section(o.Section) == after.section(f.Section) {
			continue
		}
		if !o.Alone || !f.Alone {
			p.refuse(refusal.Sections, f.Name, "it shares a section with other functions, so what changed cannot be told; build with -ffunction-sections")
			continue
		}
		if onlyLines(before, after, o, f) || p.pinnedSame(f.Name) {
			lines = append(lines, f.Name)
			continue
		}
		changed[f.Name] = true
	}
	p.noteLines(lines)
	for _, f := range p.Before.Functions {
		if old[f.Name] == f {
			p.Removed = append(p.Removed, f)
			if parent := f.Parent(); parent != "" {
				changed[parent] = true
			}
		}
	}
	for _, f := range p.After.Functions {
		if parent := f.Parent(); parent != "" && changed[f.Name] {
			changed[parent] = true
		}
	}
	for _, f := range p.After.Functions {
		if (changed[f.Name] || changed[f.Parent()]) && !p.IsNew(f.Name) {
			p.Changed = append(p.Changed, f)
		}
	}
	p.compareNameless(before, after)
}

// compareNameless holds code that belongs to no function to equality.
func (p *Pair) compareNameless(before, after *side) {
	keys := func(v *side) map[string]string {
		out := map[string]string{}
		for _, s := range v.obj.Sections {
			if s != nil && s.Class == object.Code && s.Size > 0 && len(s.Functions) == 0 {
				out[s.Name] += v.section(s)
			}
		}
		return out
	}
	was, is := keys(before), keys(after)
	for _, name := range union(was, is) {
		if was[name] != is[name] {
			p.refuse(refusal.Sections, name, "code without a function name changed")
		}
	}
}

// compareInitialisers holds what runs at load time to equality: a running
// process has it behind itself.
func (p *Pair) compareInitialisers(before, after *side) {
	keys := func(v *side) map[string]string {
		out := map[string]string{}
		for _, s := range v.obj.Sections {
			if s != nil && s.Class == object.Initialiser && s.Size > 0 {
				out[s.Name] += v.section(s)
			}
		}
		return out
	}
	was, is := keys(before), keys(after)
	for _, name := range union(was, is) {
		if was[name] != is[name] {
			p.refuse(refusal.Initialiser, name, "the list of functions that run when the library is loaded or unloaded changed")
		}
	}
}

// checkNewStorage refuses new storage that a running process has no place for.
func (p *Pair) checkNewStorage() {
	wasIFunc := map[string]bool{}
	if p.Before != nil {
		for i := range p.Before.Symbols {
			if y := &p.Before.Symbols[i]; y.Type == elf.STT_GNU_IFUNC {
				wasIFunc[y.Name] = true
			}
		}
	}
	for i := range p.After.Symbols {
		y := &p.After.Symbols[i]
		_, old := p.old[i]
		switch {
		case y.Type == elf.STT_GNU_IFUNC && !wasIFunc[y.Name]:
			p.refuse(refusal.IFunc, y.Name, "a new function is chosen by a resolver when the library is loaded")
		case y.Type == elf.STT_TLS && y.Section != object.Undefined && !old:
			p.refuse(refusal.ThreadLocal, y.Name, "a thread-local variable is new or changed; running threads have no place for it")
		case y.Section == object.Common && !old:
			p.refuse(refusal.Data, y.Name, "a common variable is new or changed; build with -fno-common")
		}
	}
}

// checkChanged refuses changed functions that a jump cannot replace.
func (p *Pair) checkChanged() {
	atLoad := map[string]bool{}
	for _, s := range p.After.Sections {
		if s == nil || s.Class != object.Initialiser || strings.HasPrefix(s.Name, ".fini") || strings.HasPrefix(s.Name, ".dtors") {
			continue
		}
		for _, r := range s.Relocs {
			if to := p.After.SectionOf(r.Symbol); to != nil && to.Class == object.Code {
				if f := p.After.FunctionAt(to, int64(p.After.Symbols[r.Symbol].Value)+r.Addend); f != nil {
					atLoad[f.Name] = true
				}
			}
		}
	}
	for _, f := range p.Changed {
		if atLoad[f.Name] {
			p.refuse(refusal.Initialiser, f.Name, "it runs when the library is loaded, which is over in a running process")
		}
		if f.Section.Grouped {
			p.refuse(refusal.Symbol, f.Name, "it is in a COMDAT group: other libraries may carry the copy that runs")
		}
		for _, i := range f.Section.Defs {
			if p.After.Symbols[i].Type == elf.STT_GNU_IFUNC {
				p.refuse(refusal.IFunc, f.Name, "it chose an implementation when the library was loaded, which is over in a running process")
			}
		}
	}
	if len(p.Changed) > 0 && p.After.Unwinds {
		p.refuse(refusal.Exceptions, p.Changed[0].Name, "exceptions may pass through this object, and new code has no unwind tables in a running process")
	}
}

// union returns the sorted names of both maps, each once.
func union(a, b map[string]string) []string {
	all := slices.Collect(maps.Keys(a))
	all = slices.AppendSeq(all, maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}
