package link

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"

	"livemend.dev/livemend/author/insn"
	"livemend.dev/livemend/author/object"
)

// proof compares one object of the old build with the binary.
type proof struct {
	stock *stock
	obj   *object.Object
	group int
}

// function says how the code of f differs from the binary's code at n; the
// empty text means that it does not. Fields that a linker fills are compared by
// what they refer to wherever the binary can tell.
func (p *proof) function(f *object.Function, n object.Named) string {
	y := &p.obj.Symbols[f.Symbol]
	from, to := y.Value, y.Value+y.Size
	if y.Size == 0 {
		to = f.Section.Size
	}
	stock, ok := p.stock.bin.Read(n.Addr, n.Size)
	if !ok {
		return "the binary has no such bytes"
	}
	ours := f.Section.Data[from:to]
	fields := fieldsOf(f.Section, from, to)
	c := &codes{proof: p, section: f.Section, base: from, ours: ours, theirs: stock, addr: n.Addr, fields: fields}
	if c.flat() == "" {
		return ""
	}
	// A build without a section per function has shorter jumps and other
	// padding; the instructions are the same.
	return c.stream()
}

// codes is one function in both forms.
type codes struct {
	*proof
	section *object.Section
	base    uint64 // where ours starts in the section
	ours    []byte
	theirs  []byte // in the binary
	addr    uint64 // of theirs
	fields  map[int]object.Reloc
}

// flat compares byte by byte.
func (c *codes) flat() string {
	if len(c.ours) != len(c.theirs) {
		return fmt.Sprintf("it has %d bytes, the binary's has %d", len(c.ours), len(c.theirs))
	}
	masked := make([]bool, len(c.ours))
	for off, r := range c.fields {
		skip := 0
		if r.ThroughGOT() && off >= 2 && relaxed(c.ours[off-2:off+4], c.theirs[off-2:off+4]) {
			skip = 2
		}
		for i := off - skip; i < off+r.Width() && i < len(masked); i++ {
			masked[i] = true
		}
	}
	for i := range c.ours {
		if !masked[i] && c.ours[i] != c.theirs[i] {
			return fmt.Sprintf("it differs from the binary's at offset %#x", i)
		}
	}
	for off, r := range c.fields {
		if r.ThroughGOT() && off >= 2 && c.ours[off-2] == 0xff && c.theirs[off-2] != 0xff {
			continue // a relaxed call or jump; its field has moved
		}
		if r.Width() != 4 || off+4 > len(c.theirs) {
			continue
		}
		lea := r.ThroughGOT() && off >= 2 && c.ours[off-2] == 0x8b && c.theirs[off-2] == 0x8d
		if why := c.field(r, uint64(off), c.disp(off), lea); why != "" {
			return why
		}
	}
	return ""
}

func (c *codes) disp(off int) int64 {
	return int64(int32(binary.LittleEndian.Uint32(c.theirs[off:])))
}

// stream compares instruction by instruction, without alignment and whatever
// the length of jumps.
func (c *codes) stream() string {
	ours, err := insn.Decode(c.ours)
	if err != nil {
		return "it differs from the binary's, and its instructions cannot be read: " + err.Error()
	}
	theirs, err := insn.Decode(c.theirs)
	if err != nil {
		return "it differs from the binary's, whose instructions cannot be read: " + err.Error()
	}
	ours, theirs = withoutPads(ours), withoutPads(theirs)
	if len(ours) != len(theirs) {
		return fmt.Sprintf("it has %d instructions, the binary's has %d", len(ours), len(theirs))
	}
	for i := range ours {
		if why := c.same(ours, theirs, ours[i], theirs[i]); why != "" {
			return fmt.Sprintf("instruction %d at offset %#x: %s", i, ours[i].Off, why)
		}
	}
	return ""
}

// same compares two instructions at the same place of two lists.
func (c *codes) same(ours, theirs []insn.Inst, a, b insn.Inst) string {
	differs := "it differs from the binary's"
	r, filled := c.fields[a.RelOff]
	filled = filled && a.Rel != 0
	branches := a.Kind == insn.Branch && b.Kind == insn.Branch
	if branches && a.Op != b.Op || a.Kind != b.Kind && !filled {
		return differs
	}
	switch {
	case a.Rel != 0 && !filled: // to a place in this function
		if b.Rel == 0 || (!branches && (a.Len != b.Len || !c.equalBut(a, b))) {
			return differs
		}
		if index(ours, a.Target(c.ours)) != index(theirs, b.Target(c.theirs)) {
			return "it goes elsewhere than the binary's"
		}
		return ""
	case branches:
		// The field of a short jump has another place and width.
		target := int64(c.addr) + b.Target(c.theirs)
		return c.value(r, target-4-r.Addend, false)
	}
	if a.Len != b.Len && !(r.ThroughGOT() && a.Len == b.Len+1) {
		return differs
	}
	if filled && r.ThroughGOT() && a.RelOff >= 2 && b.RelOff >= 1 && relaxedAt(c.ours[a.Off:a.End()], c.theirs[b.Off:]) {
		return ""
	}
	if a.Len != b.Len || !c.equalBut(a, b) {
		return differs
	}
	if !filled || b.Rel != 4 {
		return ""
	}
	return c.field(r, uint64(b.RelOff), c.disp(b.RelOff), false)
}

// equalBut compares two instructions without the bytes of their relocations and
// relative fields.
func (c *codes) equalBut(a, b insn.Inst) bool {
	for i := range a.Len {
		if c.ours[a.Off+i] != c.theirs[b.Off+i] && !c.inField(a, a.Off+i) {
			return false
		}
	}
	return true
}

func (c *codes) inField(a insn.Inst, off int) bool {
	if a.Rel != 0 && off >= a.RelOff && off < a.RelOff+a.Rel {
		return true
	}
	for at := max(a.Off, off-7); at <= off; at++ {
		if r, ok := c.fields[at]; ok && off < at+r.Width() {
			return true
		}
	}
	return false
}

// index returns the number of the first instruction at or behind off; -1 when
// off lies in front of the code.
func index(list []insn.Inst, off int64) int {
	if off < 0 {
		return -1
	}
	i, _ := slices.BinarySearchFunc(list, off, func(in insn.Inst, off int64) int { return cmp.Compare(int64(in.Off), off) })
	return i
}

// field compares what relocation r refers to with what the binary's 4-byte
// field at offset off of the function, holding disp, refers to.
func (c *codes) field(r object.Reloc, off uint64, disp int64, direct bool) string {
	if !r.Relative() || r.ForThreads() {
		return ""
	}
	return c.value(r, int64(c.addr+off)+disp-r.Addend, direct)
}

// value compares the symbol of r with the address that the binary's linker
// took for it. direct is true when the slot was relaxed away.
func (c *codes) value(r object.Reloc, addr int64, direct bool) string {
	y := &c.obj.Symbols[r.Symbol]
	at := uint64(addr)
	wrong := "it refers to " + y.Name + " where the binary's refers to something else"
	if r.ThroughGOT() && !direct {
		if name := c.stock.bin.SlotName(at); name != "" && name != object.Unversioned(y.Name) {
			return wrong
		}
		return ""
	}
	if name, ok := c.stock.bin.PLT[at]; ok {
		if name != object.Unversioned(y.Name) {
			return wrong
		}
		return ""
	}
	to := c.obj.SectionOf(r.Symbol)
	if to == nil || (y.Name != "" && !c.obj.Local(r.Symbol)) {
		n, ok, clash := c.stock.global(y.Name)
		if ok && !clash && n.Addr != at {
			return wrong
		}
		return ""
	}
	return c.local(r, to, at, wrong)
}

// local compares a reference to something that the object itself holds.
func (c *codes) local(r object.Reloc, to *object.Section, at uint64, wrong string) string {
	_, off, exact := c.obj.TargetOf(c.section, r)
	target := at + uint64(off-int64(c.obj.Symbols[r.Symbol].Value)) // in the binary
	switch to.Class {
	case object.Code:
		if f := c.obj.FunctionAt(to, off); f != nil && off == int64(c.obj.Symbols[f.Symbol].Value) {
			if n, ok := c.stock.symbol(c.obj, c.group, f.Symbol); ok && n.Addr != target {
				return wrong
			}
		}
	case object.Writable, object.Constant:
		if i, ok := c.obj.Covering(to, off); ok && exact {
			n, ok := c.stock.symbol(c.obj, c.group, i)
			if ok && n.Addr+uint64(off-int64(c.obj.Symbols[i].Value)) != target {
				return "it refers to " + c.obj.Symbols[i].Name + " where the binary's refers to something else"
			}
		}
	case object.Merged:
		if !exact || off < 0 || uint64(off) >= to.Size || len(to.Relocs) > 0 {
			return ""
		}
		size := element(to, off)
		if theirs, ok := c.stock.bin.Read(target, size); !ok || !bytes.Equal(theirs, to.Data[off:off+int64(size)]) {
			return "it refers to another text or constant than the binary's"
		}
	}
	return ""
}

// element returns the bytes of the merged element at off, with its end mark.
func element(s *object.Section, off int64) uint64 {
	if s.Entry == 0 {
		return 0
	}
	if !s.Strings {
		return min(s.Entry, s.Size-uint64(off))
	}
	for end := uint64(off); end+s.Entry <= s.Size; end += s.Entry {
		if unit := s.Data[end : end+s.Entry]; bytes.Count(unit, []byte{0}) == len(unit) {
			return end + s.Entry - uint64(off)
		}
	}
	return s.Size - uint64(off)
}

// data says how variable or constant i differs from the binary's at n. Fields
// of relocations are not compared.
func (p *proof) data(s *object.Section, i int, n object.Named) string {
	y := &p.obj.Symbols[i]
	if y.Size != n.Size {
		return fmt.Sprintf("it has %d bytes, the binary's has %d", y.Size, n.Size)
	}
	stock, ok := p.stock.bin.Read(n.Addr, n.Size)
	if !ok || s.Data == nil || y.Type == elf.STT_TLS {
		return "" // all zero; not in the file
	}
	ours := bytes.Clone(s.Data[y.Value : y.Value+y.Size])
	theirs := bytes.Clone(stock)
	for off, r := range fieldsOf(s, y.Value, y.Value+y.Size) {
		end := min(off+r.Width(), len(ours))
		clear(ours[off:end])
		clear(theirs[off:end])
	}
	if !bytes.Equal(ours, theirs) {
		return "its initial value differs from the binary's"
	}
	return ""
}
