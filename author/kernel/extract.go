package kernel

import (
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"

	"livemend.dev/livemend/author/klp"
	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
	"livemend.dev/livemend/author/refusal"
	"livemend.dev/livemend/author/relocatable"
)

// change is one function of the kernel that a patch replaces.
type change struct {
	object   string // klp.Vmlinux or a module
	name     string
	position uint
	alias    string // of the new code, for the module's own source
	size     int64
}

// cargo is the object that goes into the module: the new code of all touched
// objects, what it needs, and what its references mean.
type cargo struct {
	file    *relocatable.File
	refs    map[string]klp.Ref
	changes []change

	kernel  *stock
	exports map[string]string // exported name to what exports it
	byRef   map[klp.Ref]*relocatable.Symbol
	plain   map[string]*relocatable.Symbol // exported names
	pool    *relocatable.Section           // strings and constants
	pooled  map[string]uint64
	symbols map[*relocatable.Section]*relocatable.Symbol // of whole sections
}

func newCargo(kernel *stock, exports map[string]string) *cargo {
	return &cargo{
		file: &relocatable.File{}, refs: map[string]klp.Ref{}, kernel: kernel, exports: exports,
		byRef: map[klp.Ref]*relocatable.Symbol{}, plain: map[string]*relocatable.Symbol{}, pooled: map[string]uint64{},
		symbols: map[*relocatable.Section]*relocatable.Symbol{},
	}
}

// section adds a section.
func (c *cargo) section(s *relocatable.Section) *relocatable.Section {
	c.file.Sections = append(c.file.Sections, s)
	return s
}

func (c *cargo) symbol(y *relocatable.Symbol) *relocatable.Symbol {
	c.file.Symbols = append(c.file.Symbols, y)
	return y
}

// whole returns the symbol that stands for the start of a section.
func (c *cargo) whole(s *relocatable.Section) *relocatable.Symbol {
	if c.symbols[s] == nil {
		c.symbols[s] = c.symbol(&relocatable.Symbol{Section: s, Type: elf.STT_SECTION})
	}
	return c.symbols[s]
}

// put returns where text, aligned, lies among the patch's strings and constants.
func (c *cargo) put(text []byte, align uint64) uint64 {
	key := fmt.Sprintf("%d %s", align, text)
	if at, ok := c.pooled[key]; ok {
		return at
	}
	if c.pool == nil {
		c.pool = c.section(&relocatable.Section{Name: ".rodata.livemend", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC, Align: 1})
	}
	align = max(align, 1)
	c.pool.Align = max(c.pool.Align, align)
	for uint64(len(c.pool.Data))%align != 0 {
		c.pool.Data = append(c.pool.Data, 0)
	}
	at := uint64(len(c.pool.Data))
	c.pool.Data = append(c.pool.Data, text...)
	c.pooled[key] = at
	return at
}

// refer returns the undefined symbol for a name that the kernel's livepatch code
// looks up. Two things of one name get two symbols.
func (c *cargo) refer(r klp.Ref) *relocatable.Symbol {
	if y := c.byRef[r]; y != nil {
		return y
	}
	name := r.Name
	if rest, ok := strings.CutPrefix(name, trampoline); ok {
		name = "static_call." + rest
	}
	plain := name
	for n := 2; c.plain[name] != nil || c.refs[name] != (klp.Ref{}); n++ {
		name = fmt.Sprintf("%s.%d", plain, n)
	}
	y := c.symbol(&relocatable.Symbol{Name: name, Bind: elf.STB_GLOBAL})
	c.byRef[r], c.refs[name] = y, r
	return y
}

// imported returns the undefined symbol for an exported name.
func (c *cargo) imported(name string) *relocatable.Symbol {
	if c.plain[name] == nil {
		c.plain[name] = c.symbol(&relocatable.Symbol{Name: name, Bind: elf.STB_GLOBAL})
	}
	return c.plain[name]
}

// carrier takes the new code out of one object.
type carrier struct {
	*cargo
	pair  *objdiff.Pair // of views
	obj   *object.Object
	raw   *relocatable.File
	rawOf []*relocatable.Section // by section number
	proof *proof

	helpers map[string]bool // changed functions that only travel; their callers are replaced

	code map[int]*relocatable.Section    // functions that travel, by section number
	data map[extent]*relocatable.Section // constants and variables that travel
	off  map[string]bool                 // tracepoints that the new code cannot be asked to report
}

type extent struct{ section, from int }

// carry adds the changed and new functions of one object and the tables that
// describe them.
func (c *carrier) carry() []error {
	c.code, c.data, c.off = map[int]*relocatable.Section{}, map[extent]*relocatable.Section{}, map[string]bool{}
	for _, f := range slices.Concat(c.pair.Changed, c.pair.New) {
		s := f.Section
		if c.code[s.Index] == nil {
			c.code[s.Index] = c.section(&relocatable.Section{
				Name: s.Name, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Align: s.Align, Data: slices.Clone(s.Data),
			})
		}
	}
	var refused []error
	for _, f := range slices.Concat(c.pair.Changed, c.pair.New) {
		if err := c.name(f); err != nil {
			refused = append(refused, err)
		}
		if err := c.fill(c.code[f.Section.Index], c.obj.Sections[f.Section.Index], 0, f.Section.Size, f.Name); err != nil {
			refused = append(refused, err)
		}
	}
	for i, s := range c.rawOf {
		if s == nil || s.Type == elf.SHT_RELA {
			continue
		}
		if err := c.table(i, s); err != nil {
			refused = append(refused, err)
		}
	}
	return refused
}

// name gives the new code its symbols, and for a changed function says what is
// replaced.
func (c *carrier) name(f *object.Function) error {
	y := &c.obj.Symbols[f.Symbol]
	size := y.Size
	if size == 0 {
		size = f.Section.Size
	}
	c.symbol(&relocatable.Symbol{Name: y.Name, Section: c.code[f.Section.Index], Value: y.Value, Size: size, Type: elf.STT_FUNC})
	if c.pair.IsNew(f.Name) || f.Parent() != "" || c.helpers[f.Name] {
		return nil
	}
	old := slices.IndexFunc(c.pair.Before.Functions, func(o *object.Function) bool { return o.Name == f.Name })
	before := c.pair.Before.Functions[old]
	place := c.pair.Path + " " + f.Name
	if !traced(c.pair.Before, before) || !traced(c.pair.After, f) {
		return refusal.New(refusal.Branch, place, "it has no call of the tracer at its start (it is marked notrace or noinstr), which is where a live patch takes over")
	}
	if c.proof.overridden[f.Name] {
		return refusal.New(refusal.Foreign, place, "it is weak, and "+c.proof.stock.object+" runs another object's function of this name")
	}
	addr, ok := c.proof.where(before.Symbol)
	position, found := c.proof.stock.position(f.Name, addr)
	if !ok || !found {
		return refusal.New(refusal.Symbol, place, "it cannot be told which function of this name in "+c.proof.stock.object+" it is")
	}
	alias := fmt.Sprintf("livemend_new_%d", len(c.changes))
	c.symbol(&relocatable.Symbol{Name: alias, Section: c.code[f.Section.Index], Value: y.Value, Size: size, Type: elf.STT_FUNC, Bind: elf.STB_GLOBAL})
	c.changes = append(c.changes, change{object: c.proof.stock.object, name: f.Name, position: position, alias: alias, size: int64(size)})
	return nil
}

// traced reports whether the function starts with a call of the tracer, behind a
// mark for indirect calls.
func traced(o *object.Object, f *object.Function) bool {
	start := o.Symbols[f.Symbol].Value
	for _, r := range f.Section.Relocs {
		if r.Off == start+1 || r.Off == start+5 {
			return o.Symbols[r.Symbol].Name == "__fentry__"
		}
	}
	return false
}

// fill gives to the relocations of bytes [from, end) of s, which lie in it from 0.
func (c *carrier) fill(to *relocatable.Section, s *object.Section, from, end uint64, name string) error {
	var list []relocatable.Reloc
	var refused []error
	for _, r := range s.Relocs {
		if r.Off < from || r.Off >= end || r.Type == elf.R_X86_64_NONE {
			continue
		}
		y, addend, err := c.resolve(s, r, name)
		if err != nil {
			refused = append(refused, err)
			continue
		}
		list = append(list, relocatable.Reloc{Off: r.Off - from, Type: r.Type, Symbol: y, Addend: addend})
	}
	c.relocs(to, list)
	return errors.Join(refused...)
}

func (c *cargo) relocs(to *relocatable.Section, list []relocatable.Reloc) {
	if len(list) == 0 {
		return
	}
	i := slices.IndexFunc(c.file.Sections, func(s *relocatable.Section) bool { return s.Target == to })
	if i < 0 {
		i = len(c.file.Sections)
		c.section(&relocatable.Section{Name: ".rela" + to.Name, Type: elf.SHT_RELA, Flags: elf.SHF_INFO_LINK, Align: 8, Target: to})
	}
	c.file.Sections[i].Relocs = append(c.file.Sections[i].Relocs, list...)
}

// copied returns bytes [from, end) of constants or variables as a section of the
// patch.
func (c *carrier) copied(s *object.Section, from, end uint64, name string) (*relocatable.Section, error) {
	id := extent{s.Index, int(from)}
	if x := c.data[id]; x != nil {
		return x, nil
	}
	raw := c.rawOf[s.Index]
	x := &relocatable.Section{Name: raw.Name, Type: raw.Type, Flags: raw.Flags &^ (elf.SHF_MERGE | elf.SHF_STRINGS), Align: raw.Align, Size: end - from}
	if s.Data != nil {
		x.Data = slices.Clone(s.Data[from:end])
	}
	c.data[id] = c.section(x)
	return x, c.fill(x, s, from, end, name)
}
