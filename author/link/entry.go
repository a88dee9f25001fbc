package link

import (
	"fmt"

	"livemend.dev/livemend/author/insn"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/patch/image"
)

// checkEntry refuses function f of object o when something jumps into the
// bytes behind the first one that the jump will replace, or returns into them:
// the agent sees what returns on threads' stacks, but not on those of suspended
// coroutines.
func checkEntry(o *object.Object, f *object.Function, jump int64) error {
	place := o.Path + " " + f.Name
	inside := func(at int64) bool { return at > jump && at < jump+image.JumpSize }
	list, err := f.Section.Instructions()
	if err != nil {
		return refusal.New(refusal.Undecodable, place, "its machine code cannot be read, so jumps into its entry cannot be ruled out: "+err.Error())
	}
	filled := map[int]bool{}
	for _, r := range f.Section.Relocs {
		filled[int(r.Off)] = true
	}
	for _, i := range list {
		if i.Rel != 0 && !filled[i.RelOff] && inside(i.Target(f.Section.Data)) {
			return refusal.New(refusal.Branch, place, fmt.Sprintf("its code at %#x refers to its entry", i.Off))
		}
		if i.Kind == insn.Call && inside(int64(i.End())) {
			return refusal.New(refusal.Branch, place, fmt.Sprintf("its call at %#x returns into its entry", i.Off))
		}
	}
	for _, s := range o.Sections {
		if s == nil || s.Class == object.Ignored {
			continue
		}
		for _, r := range s.Relocs {
			to, at, exact := o.TargetOf(s, r)
			if to != f.Section {
				continue
			}
			if s.Class != object.Code && r.Relative() {
				at -= int64(r.Off) - tableStart(o, s, int64(r.Off))
			}
			if inside(at) || !exact && at >= jump-image.JumpSize && at < jump+2*image.JumpSize && at != 0 {
				return refusal.New(refusal.Branch, place, "section "+s.Name+" refers to its entry")
			}
		}
	}
	return nil
}

// tableStart returns the start of the switch table in s that includes off: the
// last place up to there that code refers to. Entries of such a table are
// relative to its start.
func tableStart(o *object.Object, s *object.Section, off int64) int64 {
	start := int64(0)
	for _, c := range o.Sections {
		if c == nil || c.Class != object.Code {
			continue
		}
		for _, r := range c.Relocs {
			if to, at, _ := o.TargetOf(c, r); to == s && at <= off && at > start {
				start = at
			}
		}
	}
	return start
}

// interior reports whether constant or variable i of o holds addresses of labels
// inside functions, so that it is only good together with the very code that it
// was made with.
func interior(o *object.Object, s *object.Section, from, to uint64) bool {
	for _, r := range s.Relocs {
		if r.Off < from || r.Off >= to {
			continue
		}
		if c := o.SectionOf(r.Symbol); c != nil && c.Class == object.Code {
			if r.Relative() || int64(o.Symbols[r.Symbol].Value)+r.Addend != 0 {
				return true
			}
		}
	}
	return false
}

// family reports whether a and b are one function: the same, or one the cold
// part of the other.
func family(a, b *object.Function) bool {
	return a == b || a.Parent() == b.Name || b.Parent() == a.Name || (a.Parent() != "" && a.Parent() == b.Parent())
}
