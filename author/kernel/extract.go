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

// resolve says what relocation r of s becomes in the patch.
func (c *carrier) resolve(s *object.Section, r object.Reloc, name string) (*relocatable.Symbol, int64, error) {
	y := &c.obj.Symbols[r.Symbol]
	bad := func(kind refusal.Kind, what, reason string) (*relocatable.Symbol, int64, error) {
		return nil, 0, refusal.New(kind, c.pair.Path+" "+name, "its reference to "+what+": "+reason)
	}
	to, at, exact := c.obj.TargetOf(s, r)
	if to == nil {
		if y.Section != object.Undefined {
			return bad(refusal.Relocation, y.Name, "it lies in a section that is not loaded")
		}
		z, err := c.external(y.Name, name)
		return z, r.Addend, err
	}
	// The addend to a symbol that stands for offset 0 of what at is relative to.
	addend := r.Addend + int64(y.Value) - at
	switch {
	case to.Name == asides:
		piece, err := c.aside(to, at, name)
		if err != nil {
			return nil, 0, err
		}
		return c.whole(piece), addend, nil
	case to.Class == object.Merged:
		if !exact || at < 0 || uint64(at) >= to.Size || len(to.Relocs) > 0 {
			return bad(refusal.Undecodable, to.Name, "it cannot be told which text or constant is meant")
		}
		off := c.put(element(to, at), to.Align)
		return c.whole(c.pool), addend + int64(off), nil
	case to.Class == object.Code:
		return c.codeRef(s, r, to, at, addend, name)
	case to.Class == object.Initialiser:
		return bad(refusal.Initialiser, to.Name, "it is gone once the kernel runs")
	}
	i, covered := c.obj.Covering(to, at)
	if !covered {
		if to.Class == object.Constant {
			x, err := c.copied(to, 0, to.Size, name)
			return c.wholeOr(x), addend + at, err
		}
		return bad(refusal.Symbol, to.Name, "it is a variable without a name")
	}
	if !exact && len(to.Defs) > 1 {
		return bad(refusal.Undecodable, to.Name, "it cannot be told which variable is meant")
	}
	v := &c.obj.Symbols[i]
	inside := at - int64(v.Value)
	old, isOld := c.pair.Old(i)
	switch {
	case restarted[to.Name], !isOld && to.Class == object.Constant, !isOld && restarts(v.Name), isOld && to.Class == object.Constant && c.labelled(to, v):
		x, err := c.copied(to, v.Value, v.Value+v.Size, name)
		return c.wholeOr(x), addend + inside, err
	case !isOld:
		return bad(refusal.Data, v.Name, "it is a new variable; a later level of the patch would start it anew, so what it holds would be lost")
	}
	addr, ok := c.proof.where(old)
	if !ok {
		if to.Class == object.Constant && to.Size > 0 && c.obj.Local(i) && strings.Contains(v.Name, ".") {
			x, err := c.copied(to, v.Value, v.Value+v.Size, name) // of the compiler's making; a copy is as good
			return c.wholeOr(x), addend + inside, err
		}
		return bad(refusal.Symbol, v.Name, "it cannot be told where it is in the stock "+c.proof.stock.object)
	}
	z, err := c.known(c.proof.stock, c.pair.Before.Symbols[old].Name, addr, name)
	if err != nil {
		// The view may have put a dot into its name.
		z, err = c.known(c.proof.stock, c.proof.obj.Symbols[old].Name, addr, name)
	}
	return z, addend + inside, err
}

func (c *carrier) wholeOr(x *relocatable.Section) *relocatable.Symbol {
	if x == nil {
		return nil
	}
	return c.whole(x)
}

// labelled reports whether a constant holds places inside functions that travel.
func (c *carrier) labelled(s *object.Section, v *object.Symbol) bool {
	return slices.ContainsFunc(s.Relocs, func(r object.Reloc) bool {
		to, at, _ := c.obj.TargetOf(s, r)
		return r.Off >= v.Value && r.Off < v.Value+v.Size && to != nil && to.Class == object.Code && c.code[to.Index] != nil && at != 0
	})
}

// restarts reports whether a new static is of a kind that may start anew: limits
// on how often something is logged, and keys of the lock checker.
func restarts(name string) bool {
	switch plain(name) {
	case "_rs", "__already_done", "__warned", "__print_once", "__key":
		return true
	}
	return false
}

// codeRef resolves a reference to code of the same object.
func (c *carrier) codeRef(s *object.Section, r object.Reloc, to *object.Section, at, addend int64, name string) (*relocatable.Symbol, int64, error) {
	bad := func(kind refusal.Kind, what, reason string) (*relocatable.Symbol, int64, error) {
		return nil, 0, refusal.New(kind, c.pair.Path+" "+name, "its reference to "+what+": "+reason)
	}
	f := c.obj.FunctionAt(to, at)
	if f == nil {
		return bad(refusal.Sections, to.Name, "it is code without a name")
	}
	inside := at - int64(c.obj.Symbols[f.Symbol].Value)
	new := c.code[to.Index]
	switch {
	case new != nil && (s.Class != object.Code || s.Index == to.Index || s.IsBranch(r) || inside != 0 || f.Parent() != ""):
		if s.Class != object.Code && inside == 0 && carried[s.Name] == 0 {
			break // a table of functions; those that are replaced keep their address
		}
		return c.whole(new), addend + at, nil
	case new != nil && c.pair.IsNew(f.Name):
		return bad(refusal.Data, f.Name, "the address of a new function would be held where the kernel does not look before the patch is unloaded")
	case new != nil && c.helpers[f.Name]:
		return bad(refusal.Branch, f.Name, "it cannot be replaced by itself, as it does not call the tracer at its start, and its address is held")
	case new == nil && inside != 0:
		return bad(refusal.Sections, f.Name, "a place inside a function that did not change")
	}
	// A pointer to a function is the old one's, whose entry leads to the new code:
	// it may outlive the patch.
	old := slices.IndexFunc(c.proof.obj.Functions, func(o *object.Function) bool { return o.Name == f.Name })
	if old < 0 {
		return bad(refusal.Symbol, f.Name, "the old build has no such function")
	}
	addr, ok := c.proof.where(c.proof.obj.Functions[old].Symbol)
	if !ok {
		return bad(refusal.Symbol, f.Name, "it cannot be told which function of this name in the stock "+c.proof.stock.object+" it is")
	}
	z, err := c.known(c.proof.stock, f.Name, addr, name)
	return z, addend + inside, err
}

// known returns the symbol for something at a known address of a stock object.
func (c *carrier) known(s *stock, what string, addr uint64, name string) (*relocatable.Symbol, error) {
	if s == c.kernel && c.exports[what] == klp.Vmlinux && len(s.defined(what)) == 1 {
		return c.imported(what), nil
	}
	position, ok := s.position(what, addr)
	if !ok {
		return nil, refusal.New(refusal.Symbol, c.pair.Path+" "+name, "its reference to "+what+": the stock "+s.object+" lists no such symbol where it lies")
	}
	return c.refer(c.ref(s.object, what, position)), nil
}

// ref returns how the livepatch code finds something.
func (c *carrier) ref(object, name string, position uint) klp.Ref {
	r := klp.Ref{Object: object, Name: name, Position: position}
	if object != klp.Vmlinux {
		r.For = c.proof.stock.object
	}
	return r
}

// trampoline is in front of the names of what static calls call. A name with it
// is changed at run time wherever the module loader finds it called, which goes
// wrong where another module owns it; by another name the trampoline itself is
// called, which is always right.
const trampoline = "__SCT__"

// external resolves a name that another object defines.
func (c *carrier) external(what, name string) (*relocatable.Symbol, error) {
	own := c.proof.stock
	if own != c.kernel {
		if y, err := c.global(own, what, name); y != nil || err != nil {
			return y, err
		}
	}
	if c.exports[what] == klp.Vmlinux {
		return c.imported(what), nil
	}
	if y, err := c.global(c.kernel, what, name); y != nil || err != nil {
		return y, err
	}
	if by := c.exports[what]; by != "" && own != c.kernel {
		return c.refer(c.ref(by, what, 0)), nil
	}
	return nil, refusal.New(refusal.Import, c.pair.Path+" "+name, "its reference to "+what+": the stock kernel has no such symbol; the fix needs something that is not there yet")
}

// global returns the symbol for what a stock object offers to its other parts;
// nil when it offers none.
func (c *carrier) global(s *stock, what, name string) (*relocatable.Symbol, error) {
	var found []int
	for _, i := range s.defined(what) {
		if s.symbols[i].global {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		// Hidden names and those of the linker are in the table as local ones.
		found = s.defined(what)
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return c.known(s, what, s.symbols[found[0]].addr, name)
	}
	return nil, refusal.New(refusal.Symbol, c.pair.Path+" "+name, "its reference to "+what+": "+s.object+" has several of that name")
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
