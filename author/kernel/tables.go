package kernel

import (
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"livemend.dev/livemend/author/klp"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/author/relocatable"
)

// entry is one entry of a table that describes places in functions.
type entry struct {
	from, end uint64
	relocs    []relocatable.Reloc
}

// entries splits a table. Each entry has the same number of relocations, at the
// same places.
func entries(f *relocatable.File, s *relocatable.Section, relocs int) ([]entry, error) {
	var all []relocatable.Reloc
	for _, x := range f.Sections {
		if x.Target == s {
			all = append(all, x.Relocs...)
		}
	}
	slices.SortStableFunc(all, func(a, b relocatable.Reloc) int { return int(int64(a.Off) - int64(b.Off)) })
	odd := fmt.Errorf("the entries of table %s are not of the form that is known", s.Name)
	if len(all)%relocs != 0 {
		return nil, odd
	}
	var out []entry
	for i := 0; i < len(all); i += relocs {
		e := entry{from: all[i].Off, end: s.Size, relocs: all[i : i+relocs]}
		if i+relocs < len(all) {
			e.end = all[i+relocs].Off
		}
		if n := len(out); n > 0 {
			first := out[0]
			if e.from-out[n-1].from != first.end-first.from || e.end-e.from > first.end-first.from {
				return nil, odd
			}
			for k := range e.relocs {
				if e.relocs[k].Off-e.from != first.relocs[k].Off-first.from {
					return nil, odd
				}
			}
		}
		out = append(out, e)
	}
	if len(out) > 0 && out[0].from != 0 {
		return nil, odd
	}
	return out, nil
}

// table carries the entries of a table that describe functions that travel, and
// refuses tables that do and are not known.
func (c *carrier) table(number int, s *relocatable.Section) error {
	relocs := carried[s.Name]
	if relocs == 0 {
		return c.unknown(s)
	}
	list, err := entries(c.raw, s, relocs)
	if err != nil {
		return refusal.New(refusal.Undecodable, c.pair.Path, err.Error())
	}
	for _, e := range list {
		first := e.relocs[0].Symbol
		if first == nil || first.Section == nil || c.code[c.numberOf(first.Section)] == nil {
			continue
		}
		if s.Name == "__jump_table" {
			leave, err := c.switched(s, e)
			if err != nil {
				return err
			}
			if leave {
				continue
			}
		}
		if err := c.entry(s, e); err != nil {
			return err
		}
	}
	return nil
}

func (c *carrier) numberOf(s *relocatable.Section) int { return slices.Index(c.rawOf, s) }

// entry adds one entry to the patch's table of the same name.
func (c *carrier) entry(s *relocatable.Section, e entry) error {
	i := slices.IndexFunc(c.file.Sections, func(x *relocatable.Section) bool { return x.Name == s.Name && x.Type == s.Type })
	if i < 0 {
		i = len(c.file.Sections)
		c.section(&relocatable.Section{Name: s.Name, Type: s.Type, Flags: s.Flags &^ (elf.SHF_MERGE | elf.SHF_STRINGS), Align: s.Align, EntrySize: s.EntrySize})
	}
	to := c.file.Sections[i]
	// The last entry of another object's table may lack the space up to the next.
	for align := max(s.Align, 1); uint64(len(to.Data))%align != 0; {
		to.Data = append(to.Data, 0)
	}
	at := uint64(len(to.Data))
	data := s.Data[e.from:e.end]
	to.Data = append(to.Data, data...)
	to.Size = uint64(len(to.Data))
	var list []relocatable.Reloc
	for n, r := range e.relocs {
		y, addend, err := c.described(s, e, n)
		if err != nil {
			return err
		}
		list = append(list, relocatable.Reloc{Off: at + r.Off - e.from, Type: r.Type, Symbol: y, Addend: addend})
	}
	c.relocs(to, list)
	return nil
}

// described resolves relocation n of an entry.
func (c *carrier) described(s *relocatable.Section, e entry, n int) (*relocatable.Symbol, int64, error) {
	r := e.relocs[n]
	name := s.Name
	number := slices.Index(c.raw.Symbols, r.Symbol) + 1
	if r.Symbol == nil || number == 0 {
		return nil, 0, refusal.New(refusal.Undecodable, c.pair.Path, "an entry of table "+name+" refers to nothing")
	}
	if s.Name == ".altinstructions" && n == 1 {
		return c.replacement(s, e, r)
	}
	if s.Flags&elf.SHF_ALLOC == 0 { // for objtool; places in code only
		to := c.numberOf(r.Symbol.Section)
		if c.code[to] == nil {
			return nil, 0, refusal.New(refusal.Undecodable, c.pair.Path, "an entry of table "+name+" refers to more than one function")
		}
		return c.whole(c.code[to]), r.Addend + int64(r.Symbol.Value), nil
	}
	table := c.obj.Sections[c.numberOf(s)]
	return c.resolve(table, object.Reloc{Off: r.Off, Type: r.Type, Symbol: number, Addend: r.Addend}, "table "+name)
}

// switched decides about a switchable jump whose switch lies in the patched
// module: the kernel sets jumps up when it loads the patch, before that module
// need be there. A tracepoint is left switched off in the new code, which is told;
// whatever else depends on a switch is refused.
func (c *carrier) switched(s *relocatable.Section, e entry) (leave bool, err error) {
	if c.proof.stock == c.kernel {
		return false, nil
	}
	r := e.relocs[2]
	number := slices.Index(c.raw.Symbols, r.Symbol) + 1
	if number == 0 {
		return false, nil // refused later
	}
	what := c.obj.Symbols[number].Name
	to, at, _ := c.obj.TargetOf(c.obj.Sections[c.numberOf(s)], object.Reloc{Off: r.Off, Type: r.Type, Symbol: number, Addend: r.Addend})
	switch {
	case to != nil && restarted[to.Name]:
		return false, nil // it travels
	case to != nil:
		if i, ok := c.obj.Covering(to, at); ok {
			what = c.obj.Symbols[i].Name
		}
	case len(c.proof.stock.defined(what)) == 0 && (c.exports[what] == klp.Vmlinux || len(c.kernel.defined(what)) > 0):
		return false, nil
	}
	if name, ok := strings.CutPrefix(what, "__tracepoint_"); ok {
		c.off[name] = true
		return true, nil
	}
	return false, refusal.New(refusal.Relocation, c.pair.Path, "a changed function has a jump that is switched by "+what+" of module "+c.proof.stock.object+"; the kernel sets such jumps up before the module need be loaded")
}

// replacement carries the code that an alternative puts in place: the entry's
// last byte is its length.
func (c *carrier) replacement(s *relocatable.Section, e entry, r relocatable.Reloc) (*relocatable.Symbol, int64, error) {
	data := s.Data[e.from:e.end]
	length := uint64(data[len(data)-1])
	from := uint64(r.Addend + int64(r.Symbol.Value))
	source := c.obj.Sections[c.numberOf(r.Symbol.Section)]
	if source == nil || source.Name != replacements || from+length > source.Size {
		return nil, 0, refusal.New(refusal.Undecodable, c.pair.Path, "an alternative's code lies where it is not looked for")
	}
	i := slices.IndexFunc(c.file.Sections, func(x *relocatable.Section) bool { return x.Name == replacements })
	if i < 0 {
		i = len(c.file.Sections)
		c.section(&relocatable.Section{Name: replacements, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Align: 1})
	}
	to := c.file.Sections[i]
	at := uint64(len(to.Data))
	to.Data = append(to.Data, source.Data[from:from+length]...)
	var list []relocatable.Reloc
	for _, x := range source.Relocs {
		if x.Off < from || x.Off >= from+length {
			continue
		}
		y, addend, err := c.resolve(source, x, "table "+s.Name)
		if err != nil {
			return nil, 0, err
		}
		list = append(list, relocatable.Reloc{Off: at + x.Off - from, Type: x.Type, Symbol: y, Addend: addend})
	}
	c.relocs(to, list)
	return c.whole(to), int64(at), nil
}

// aside carries the code that a function jumps to until alternatives are in
// place. It ends with a jump back.
func (c *carrier) aside(s *object.Section, at int64, name string) (*relocatable.Section, error) {
	id := extent{s.Index, int(at)}
	if x := c.data[id]; x != nil {
		return x, nil
	}
	list, err := s.Instructions()
	if err != nil {
		return nil, refusal.New(refusal.Undecodable, c.pair.Path+" "+name, "the code beside it cannot be read: "+err.Error())
	}
	for _, in := range list {
		if int64(in.Off) < at || in.Len != 5 || s.Data[in.Off] != 0xe9 {
			continue
		}
		x := c.section(&relocatable.Section{
			Name: asides, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Align: 1, Data: slices.Clone(s.Data[at:in.End()]),
		})
		c.data[id] = x
		return x, c.fill(x, s, uint64(at), uint64(in.End()), name)
	}
	return nil, refusal.New(refusal.Undecodable, c.pair.Path+" "+name, "the end of the code beside it is not found")
}

// unknown refuses a table that describes functions that travel and is not known.
func (c *carrier) unknown(s *relocatable.Section) error {
	switch {
	case remade[s.Name], meaningless[s.Name], exports(s.Name), restarted[s.Name], startup(s.Name), s.Name == replacements, s.Name == asides,
		s.Type == elf.SHT_NOBITS, s.Type == elf.SHT_NOTE:
		return nil
	}
	for _, front := range []string{".text", ".data", ".rodata", ".bss", ".debug", ".comment", ".note", ".ref", ".sched.text", ".static_call.text", ".noinstr.text", ".kprobes.text"} {
		if strings.HasPrefix(s.Name, front) {
			return nil
		}
	}
	for _, x := range c.raw.Sections {
		if x.Target != s {
			continue
		}
		for _, r := range x.Relocs {
			if r.Symbol != nil && r.Symbol.Section != nil && c.code[c.numberOf(r.Symbol.Section)] != nil {
				return refusal.New(refusal.Undecodable, c.pair.Path, "table "+s.Name+" describes a function that changed, and it is not known what a patch must do with it")
			}
		}
	}
	return nil
}
