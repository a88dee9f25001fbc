package link

import (
	"bytes"
	"debug/elf"
	"fmt"

	"livemend.dev/livemend/author/match"
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
	c := &codes{proof: p, section: f.Section}
	return (&match.Code{Section: f.Section, From: from, To: to, Theirs: stock, Addr: n.Addr, Value: c.value}).Differs()
}

// codes is one function that is compared.
type codes struct {
	*proof
	section *object.Section
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
	for off, r := range match.Fields(s, y.Value, y.Value+y.Size) {
		end := min(off+r.Width(), len(ours))
		clear(ours[off:end])
		clear(theirs[off:end])
	}
	if !bytes.Equal(ours, theirs) {
		return "its initial value differs from the binary's"
	}
	return ""
}
