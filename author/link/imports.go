package link

import (
	"debug/elf"
	"slices"

	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/patch/image"
)

// interposable reports whether the binary's own variable may have its place in
// the program instead.
func (l *linker) interposable(name string) bool {
	link, exported := l.in.Stock.Exported[name]
	return exported && !link.Own && !l.in.Stock.Program && !l.in.Stock.Symbolic
}

// newImport resolves a name that the binary does not import.
func (l *linker) newImport(p *placed, r object.Reloc, name string) (target, error) {
	if p.member.pair.After.Symbols[r.Symbol].Vis != elf.STV_DEFAULT {
		return target{}, l.refuse(p, r, refusal.Import, "it is hidden, and nothing of the binary or the new objects defines it")
	}
	if l.in.Fixed != nil {
		link, ok := l.in.Fixed.Imported[name]
		if !ok {
			return target{}, l.refuse(p, r, refusal.Import, "neither the binary nor the linked result of the new build imports it")
		}
		if link.Library != "" && !slices.Contains(l.in.Stock.Needed, link.Library) {
			l.note(name + " is from " + link.Library + ", which the binary does not load itself; processes without it will be left alone")
		}
		return l.lookedUp(p, r, name, link)
	}
	for _, d := range l.in.Dependencies {
		if link, ok := d.Exported[name]; ok {
			return l.lookedUp(p, r, name, link)
		}
	}
	if len(l.in.Dependencies) > 0 {
		return target{}, l.refuse(p, r, refusal.Import, "the binary does not import it, and none of the libraries given with --dependency defines it")
	}
	return target{}, l.refuse(p, r, refusal.Import, "the binary does not import it, so its version is not known: give the linked result of the new build (--fixed FILE), or the libraries that the binary needs (--dependency FILE)")
}

// lookedUp resolves a name to what each process finds under it.
func (l *linker) lookedUp(p *placed, r object.Reloc, name string, link object.Linkage) (target, error) {
	if link.Clash {
		return target{}, l.refuse(p, r, refusal.Symbol, "it is used in two versions")
	}
	m := image.Import{Name: name, Version: link.Version}
	switch link.Type {
	case elf.STT_FUNC, elf.STT_GNU_IFUNC:
		m.Kind = image.Function
	case elf.STT_OBJECT, elf.STT_COMMON:
		m.Kind = image.Data
	default:
		if !p.section.IsBranch(r) && !isCall(p.section, r) {
			return target{}, l.refuse(p, r, refusal.Import, "it cannot be told whether it is a function or data")
		}
		m.Kind = image.Function
	}
	to := target{imported: l.nameFor(m)}
	switch {
	case r.ThroughGOT():
		return to, nil
	case r.Type == elf.R_X86_64_64 && r.Addend == 0 && p.segment == segConst:
		return to, nil
	case m.Kind == image.Function:
		return l.addStub(stub{name: name, own: l.slotFor(to)}), nil
	}
	return target{}, l.refuse(p, r, refusal.Import, "the address of an imported variable is known only to the loader; build with -fPIC")
}

// nameFor returns 1 + the number of an import. One name has one kind.
func (l *linker) nameFor(m image.Import) int {
	i := slices.IndexFunc(l.names, func(n image.Import) bool { return n.Name == m.Name && n.Version == m.Version })
	if i < 0 {
		i = len(l.names)
		l.names = append(l.names, m)
	}
	return i + 1
}

// note adds a notice once.
func (l *linker) note(text string) {
	if !slices.Contains(l.notices, text) {
		l.notices = append(l.notices, text)
	}
}

// isCall reports whether r is the slot of an indirect call or jump.
func isCall(s *object.Section, r object.Reloc) bool {
	return r.ThroughGOT() && r.Off >= 2 && s.Data[r.Off-2] == 0xff && (s.Data[r.Off-1] == 0x15 || s.Data[r.Off-1] == 0x25)
}
