package link

import (
	"cmp"
	"debug/elf"
	"slices"

	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/patch/image"
)

// resolveAll resolves the references of everything that travels, which brings
// more along, until nothing is open. It returns what it must refuse.
func (l *linker) resolveAll() []error {
	var refused []error
	for n := 0; n < len(l.order); n++ {
		p := l.order[n]
		seen := uint64(0) // end of the last field
		for _, r := range p.section.Relocs {
			if r.Width() == 0 {
				continue
			}
			if r.Off < seen {
				refused = append(refused, l.refuse(p, r, refusal.Relocation, "two relocations fill the same field"))
				continue
			}
			seen = r.Off + uint64(r.Width())
			if err := l.resolve(p, r); err != nil {
				refused = append(refused, err)
			}
		}
	}
	return refused
}

func (l *linker) refuse(p *placed, r object.Reloc, kind refusal.Kind, reason string) error {
	what := p.section.Name
	if len(p.section.Functions) > 0 {
		what = p.section.Functions[0].Name
	}
	y := &p.member.pair.After.Symbols[r.Symbol]
	name := y.Name
	if to := p.member.pair.After.SectionOf(r.Symbol); name == "" && to != nil {
		name = to.Name
	}
	return refusal.New(kind, p.member.pair.Path+" "+what, "its reference to "+name+": "+reason)
}

func (l *linker) resolve(p *placed, r object.Reloc) error {
	switch {
	case r.ForThreads():
		return l.threadLocal(p, r)
	case r.Type == elf.R_X86_64_64, r.Type == elf.R_X86_64_PC32, r.Type == elf.R_X86_64_PLT32, r.ThroughGOT():
	default:
		return l.refuse(p, r, refusal.Relocation, "relocations of type "+r.Type.String()+" are not offered")
	}
	o := p.member.pair.After
	ref := ref{from: p, reloc: r}
	var err error
	if slot, ok := l.eagerSlot(o, r); ok {
		ref.to = target{at: slot}
		l.refs = append(l.refs, ref)
		return nil
	}
	if to := o.SectionOf(r.Symbol); to != nil && o.Local(r.Symbol) {
		ref.to, err = l.local(p, r)
	} else {
		ref.to, err = l.global(p, r)
	}
	if err != nil {
		return err
	}
	if r.ThroughGOT() {
		ref.slot = l.slotFor(ref.to)
	}
	if ref.to.section != nil {
		l.place(l.memberOf(p, ref.to.section), ref.to.section)
	}
	l.refs = append(l.refs, ref)
	return nil
}

// eagerSlot returns the binary's own slot for a reference through a slot.
func (l *linker) eagerSlot(o *object.Object, r object.Reloc) (addr uint64, ok bool) {
	name := o.Symbols[r.Symbol].Name
	if !r.ThroughGOT() || o.Local(r.Symbol) || len(l.fresh[name]) > 0 {
		return 0, false
	}
	slot, ok := l.in.Stock.Slots[object.Unversioned(name)]
	return slot.Addr, ok && !slot.Lazy && !slot.Clash
}

// memberOf returns the object that holds s: p's own, or the one that a new
// global name led to.
func (l *linker) memberOf(p *placed, s *object.Section) *member {
	if o := p.member.pair.After; s.Index < len(o.Sections) && o.Sections[s.Index] == s {
		return p.member
	}
	for _, list := range l.fresh {
		for _, d := range list {
			if d.member.pair.After.SectionOf(d.symbol) == s {
				return d.member
			}
		}
	}
	return p.member
}

// local resolves a reference to something that the object itself holds.
func (l *linker) local(p *placed, r object.Reloc) (target, error) {
	o := p.member.pair.After
	to, at, exact := o.TargetOf(p.section, r)
	value := o.Symbols[r.Symbol].Value
	inside := target{section: to, at: value}
	switch to.Class {
	case object.Code:
		return l.localCode(p, r, to, at, inside)
	case object.Merged:
		return inside, nil
	case object.Writable, object.Constant:
		i, ok := o.Covering(to, at)
		if !exact && len(to.Defs) > 1 {
			return target{}, l.refuse(p, r, refusal.Undecodable, "it cannot be told which variable is meant")
		}
		if !ok {
			if to.Class == object.Constant {
				return inside, nil
			}
			return target{}, l.refuse(p, r, refusal.Symbol, "it is a variable without a name")
		}
		y := &o.Symbols[i]
		before, old := p.member.pair.Old(i)
		label := interior(o, to, y.Value, y.Value+y.Size)
		switch {
		case old && label && to.Class == object.Writable:
			return target{}, l.refuse(p, r, refusal.Data, "a running process holds places of the old code in it")
		case !old || label:
			return inside, nil
		}
		n, ok := l.stock.symbol(p.member.pair.Before, p.member.group, before)
		if !ok {
			return target{}, l.refuse(p, r, refusal.Symbol, "the binary's symbols do not tell where "+y.Name+" is")
		}
		return target{at: n.Addr - y.Value + value}, nil
	case object.ThreadLocal:
		return target{}, l.refuse(p, r, refusal.ThreadLocal, "thread-local variables cannot be reached from a patch")
	}
	return target{}, l.refuse(p, r, refusal.Relocation, "section "+to.Name+" does not travel")
}

// localCode resolves a reference to code in the same object.
func (l *linker) localCode(p *placed, r object.Reloc, to *object.Section, at int64, inside target) (target, error) {
	o, pair := p.member.pair.After, p.member.pair
	f := o.FunctionAt(to, at)
	if f == nil || !f.Alone {
		return target{}, l.refuse(p, r, refusal.Sections, "its code shares a section; build with -ffunction-sections")
	}
	ours := pair.IsChanged(f.Name) || pair.IsNew(f.Name)
	relativeTable := p.section.Class != object.Code && r.Relative()
	own := len(p.section.Functions) > 0 && family(f, p.section.Functions[0])
	switch {
	case pair.IsNew(f.Name):
		return inside, nil
	case relativeTable || at != 0 || f.Parent() != "":
		if !ours {
			return target{}, l.refuse(p, r, refusal.Sections, "a place inside a function that did not change")
		}
		return inside, nil
	case own && p.section.IsBranch(r):
		return inside, nil
	}
	// Calls and pointers go to the old entry, which jumps to the new code: one
	// address per function, however many levels of patches follow.
	n, ok := l.stock.symbol(o, p.member.group, f.Symbol)
	if !ok {
		return target{}, l.refuse(p, r, refusal.Symbol, "the binary's symbols do not tell where "+f.Name+" is")
	}
	return target{at: n.Addr - uint64(o.Symbols[f.Symbol].Value) + inside.at}, nil
}

// global resolves a reference by a name that objects share.
func (l *linker) global(p *placed, r object.Reloc) (target, error) {
	o := p.member.pair.After
	y := &o.Symbols[r.Symbol]
	name := object.Unversioned(y.Name)
	if to, at, _ := o.TargetOf(p.section, r); to != nil && to.Class == object.Code && !r.ThroughGOT() && at != int64(y.Value) {
		return target{}, l.refuse(p, r, refusal.Relocation, "a place inside a function, by the function's name")
	}
	if list := l.fresh[y.Name]; len(list) > 0 {
		return l.newGlobal(p, r, list)
	}
	slot, hasSlot := l.in.Stock.Slots[name]
	if hasSlot && slot.Clash {
		return target{}, l.refuse(p, r, refusal.Symbol, "the binary uses two versions of it")
	}
	if hasSlot && p.section.IsBranch(r) {
		return l.stubFor(name, slot.Addr), nil
	}
	n, ok, clash := l.stock.global(y.Name)
	switch {
	case clash:
		return target{}, l.refuse(p, r, refusal.Symbol, "the binary has several of that name")
	case ok && n.Type == elf.STT_GNU_IFUNC:
		return target{}, l.refuse(p, r, refusal.IFunc, "which implementation runs was chosen when the library was loaded")
	case ok && n.Type == elf.STT_OBJECT && !hasSlot && l.interposable(name):
		// The program may own the copy that counts.
		return l.lookedUp(p, r, name, l.in.Stock.Exported[name])
	case ok:
		return target{at: n.Addr}, nil
	case hasSlot && slot.Code:
		return l.stubFor(name, slot.Addr), nil
	case hasSlot:
		return l.lookedUp(p, r, name, l.in.Stock.Imported[name])
	}
	return l.newImport(p, r, name)
}

// newGlobal resolves a name that the fix brings.
func (l *linker) newGlobal(p *placed, r object.Reloc, list []definition) (target, error) {
	own := slices.IndexFunc(list, func(d definition) bool { return d.member.pair == p.member.pair })
	if own >= 0 {
		list = list[own : own+1]
	}
	if len(list) > 1 {
		return target{}, l.refuse(p, r, refusal.Symbol, "several new objects define it")
	}
	d := list[0]
	pair := d.member.pair
	if pair.Before == nil && len(pair.Refusals) > 0 {
		return target{}, pair.Refusals[0]
	}
	s := pair.After.SectionOf(d.symbol)
	if s.Class == object.ThreadLocal || s.Class == object.Initialiser || s.Class == object.Ignored {
		return target{}, l.refuse(p, r, refusal.ThreadLocal, "it cannot travel")
	}
	if s.Class == object.Code && (len(s.Functions) != 1 || !s.Functions[0].Alone) {
		return target{}, l.refuse(p, r, refusal.Sections, "it shares a section; build with -ffunction-sections")
	}
	return target{section: s, at: pair.After.Symbols[d.symbol].Value}, nil
}

func sortRelocs(list []image.Reloc) {
	slices.SortFunc(list, func(a, b image.Reloc) int { return cmp.Compare(a.Off, b.Off) })
}
