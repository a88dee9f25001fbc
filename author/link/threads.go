package link

import (
	"debug/elf"

	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
)

// threadLocal resolves a reference to a thread-local variable that the binary
// has or uses already: through the slots that the loader filled for it, or by
// its place in the block that every thread has.
func (l *linker) threadLocal(p *placed, r object.Reloc) error {
	name, off, own, err := l.threadVariable(p, r)
	if err != nil {
		return err
	}
	t := &l.in.Stock.Threads
	ref := ref{from: p, reloc: r}
	var ok bool
	switch r.Type {
	case elf.R_X86_64_GOTTPOFF:
		ref.to.at, ok = eitherSlot(t.OffsetSlot, name, off, own)
		if !ok && own && l.in.Stock.Program {
			ref.slot, ok = l.slotFor(target{fixed: true, at: uint64(t.FromPointer(off))}), true
		}
	case elf.R_X86_64_TLSGD:
		ref.to.at, ok = eitherSlot(t.PairSlot, name, off, own)
	case elf.R_X86_64_TLSLD:
		ref.to.at, ok = t.PairSlot("", 0)
	case elf.R_X86_64_DTPOFF32:
		ref.to, ok = target{fixed: true, at: off}, own
	case elf.R_X86_64_TPOFF32:
		ref.to, ok = target{fixed: true, at: uint64(t.FromPointer(off))}, own && l.in.Stock.Program
	default:
		return l.refuse(p, r, refusal.ThreadLocal, "accesses of type "+r.Type.String()+" are not offered; build with -mtls-dialect=gnu")
	}
	if !ok {
		return l.refuse(p, r, refusal.ThreadLocal, "the binary itself has no slot for this kind of access to the thread-local variable")
	}
	l.refs = append(l.refs, ref)
	return nil
}

// eitherSlot looks for a slot by name and by offset.
func eitherSlot(find func(string, uint64) (uint64, bool), name string, off uint64, own bool) (uint64, bool) {
	if name != "" {
		if at, ok := find(name, 0); ok {
			return at, true
		}
	}
	if !own {
		return 0, false
	}
	return find("", off)
}

// threadVariable says which variable is meant: its name when others can use it,
// and where it is among the binary's own ones.
func (l *linker) threadVariable(p *placed, r object.Reloc) (name string, off uint64, own bool, err error) {
	o, pair := p.member.pair.After, p.member.pair
	y := &o.Symbols[r.Symbol]
	to := o.SectionOf(r.Symbol)
	if to == nil {
		if r.Type == elf.R_X86_64_TLSLD && y.Name == "" {
			return "", 0, true, nil
		}
		name = object.Unversioned(y.Name)
		n, own := l.stock.threadGlobal(name)
		return name, n.Addr, own, nil
	}
	value := y.Value
	i, ok := o.Covering(to, int64(value))
	if !ok || o.Symbols[i].Type != elf.STT_TLS {
		return "", 0, false, l.refuse(p, r, refusal.ThreadLocal, "it cannot be told which variable is meant")
	}
	before, old := pair.Old(i)
	if !old {
		return "", 0, false, l.refuse(p, r, refusal.ThreadLocal, "the thread-local variable is new; running threads have no place for it")
	}
	y = &o.Symbols[i]
	var n object.Named
	if pair.Before.Local(before) {
		n, ok = l.stock.local(p.member.group, pair.Before.Symbols[before].Name)
	} else {
		name = object.Unversioned(y.Name)
		n, ok = l.stock.threadGlobal(name)
	}
	if !ok || n.Type != elf.STT_TLS {
		return "", 0, false, l.refuse(p, r, refusal.ThreadLocal, "the binary's symbols do not tell where it is")
	}
	return name, n.Addr + value - y.Value, true, nil
}
