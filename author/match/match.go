// Package match compares the machine code of a function in an object with the
// same function in a linked file: all but the fields that a linker fills, which
// it hands to its caller with what the linked file has there. A file that was
// built without a section for each function has shorter jumps and other padding;
// the instructions must be the same.
//
// The package is pure. It does not know what symbols stand for.
package match

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"livemend.dev/livemend/author/insn"
	"livemend.dev/livemend/author/object"
)

// Code is one function in both forms.
type Code struct {
	Section  *object.Section
	From, To uint64 // where it lies in the section
	Theirs   []byte // in the linked file
	Addr     uint64 // of Theirs

	// Value is called with the address that the linked file has for the symbol of
	// a relocation; direct is true when a slot was relaxed away. It returns what is
	// wrong with that, or the empty text. When a first way of comparing fails, it is
	// called again for all of them.
	Value func(r object.Reloc, addr int64, direct bool) string

	// Absolute is the same for fields that are not relative to their place. It may
	// be nil.
	Absolute func(r object.Reloc, value int64) string

	ours   []byte
	fields map[int]object.Reloc
}

// Differs says how the code differs from the linked file's; the empty text means
// that it does not.
func (c *Code) Differs() string {
	c.ours = c.Section.Data[c.From:c.To]
	c.fields = Fields(c.Section, c.From, c.To)
	if c.flat() == "" {
		return ""
	}
	return c.stream()
}

// flat compares byte by byte.
func (c *Code) flat() string {
	if len(c.ours) != len(c.Theirs) {
		return fmt.Sprintf("it has %d bytes, the binary's has %d", len(c.ours), len(c.Theirs))
	}
	masked := make([]bool, len(c.ours))
	for off, r := range c.fields {
		skip := 0
		if r.ThroughGOT() && off >= 2 && relaxed(c.ours[off-2:off+4], c.Theirs[off-2:off+4]) {
			skip = 2
		}
		for i := off - skip; i < off+r.Width() && i < len(masked); i++ {
			masked[i] = true
		}
	}
	for i := range c.ours {
		if !masked[i] && c.ours[i] != c.Theirs[i] {
			return fmt.Sprintf("it differs from the binary's at offset %#x", i)
		}
	}
	for off, r := range c.fields {
		if r.ThroughGOT() && off >= 2 && c.ours[off-2] == 0xff && c.Theirs[off-2] != 0xff {
			continue // a relaxed call or jump; its field has moved
		}
		if r.Width() != 4 || off+4 > len(c.Theirs) {
			continue
		}
		lea := r.ThroughGOT() && off >= 2 && c.ours[off-2] == 0x8b && c.Theirs[off-2] == 0x8d
		if why := c.field(r, uint64(off), c.disp(off), lea); why != "" {
			return why
		}
	}
	return ""
}

func (c *Code) disp(off int) int64 {
	return int64(int32(binary.LittleEndian.Uint32(c.Theirs[off:])))
}

// stream compares instruction by instruction, without alignment and whatever
// the length of jumps.
func (c *Code) stream() string {
	ours, err := insn.Decode(c.ours)
	if err != nil {
		return "it differs from the binary's, and its instructions cannot be read: " + err.Error()
	}
	theirs, err := insn.Decode(c.Theirs)
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
func (c *Code) same(ours, theirs []insn.Inst, a, b insn.Inst) string {
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
		if index(ours, a.Target(c.ours)) != index(theirs, b.Target(c.Theirs)) {
			return "it goes elsewhere than the binary's"
		}
		return ""
	case branches:
		// The field of a short jump has another place and width.
		target := int64(c.Addr) + b.Target(c.Theirs)
		return c.Value(r, target-4-r.Addend, false)
	}
	if a.Len != b.Len && !(r.ThroughGOT() && a.Len == b.Len+1) {
		return differs
	}
	if filled && r.ThroughGOT() && a.RelOff >= 2 && b.RelOff >= 1 && relaxedAt(c.ours[a.Off:a.End()], c.Theirs[b.Off:]) {
		return ""
	}
	if a.Len != b.Len || !c.equalBut(a, b) {
		return differs
	}
	if filled && b.Rel == 4 {
		if why := c.field(r, uint64(b.RelOff), c.disp(b.RelOff), false); why != "" {
			return why
		}
	}
	return c.absolutes(a, b)
}

// absolutes hands on the fields of an instruction that are not relative.
func (c *Code) absolutes(a, b insn.Inst) string {
	for at := a.Off; at < a.End(); at++ {
		r, ok := c.fields[at]
		if !ok || r.Relative() || r.Width() != 4 {
			continue
		}
		off := b.Off + at - a.Off
		if off+4 > len(c.Theirs) {
			return "it differs from the binary's"
		}
		if why := c.field(r, uint64(off), c.disp(off), false); why != "" {
			return why
		}
	}
	return ""
}

// equalBut compares two instructions without the bytes of their relocations and
// relative fields.
func (c *Code) equalBut(a, b insn.Inst) bool {
	for i := range a.Len {
		if c.ours[a.Off+i] != c.Theirs[b.Off+i] && !c.inField(a, a.Off+i) {
			return false
		}
	}
	return true
}

func (c *Code) inField(a insn.Inst, off int) bool {
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
func (c *Code) field(r object.Reloc, off uint64, disp int64, direct bool) string {
	switch {
	case r.ForThreads():
		return ""
	case !r.Relative():
		if c.Absolute == nil {
			return ""
		}
		return c.Absolute(r, disp-r.Addend)
	}
	return c.Value(r, int64(c.Addr+off)+disp-r.Addend, direct)
}

// Fields returns the relocations that fill bytes [from, to) of s, by their offset
// behind from.
func Fields(s *object.Section, from, to uint64) map[int]object.Reloc {
	out := map[int]object.Reloc{}
	for _, r := range s.Relocs {
		if r.Off >= from && r.Off < to && r.Width() > 0 {
			out[int(r.Off-from)] = r
		}
	}
	return out
}

// withoutPads drops the instructions that only align others.
func withoutPads(list []insn.Inst) []insn.Inst {
	out := make([]insn.Inst, 0, len(list))
	for _, i := range list {
		if i.Kind != insn.Pad {
			out = append(out, i)
		}
	}
	return out
}

// relaxed reports whether the linker turned a use of a slot, the bytes from two
// in front of the field, into a direct use.
func relaxed(ours, stock []byte) bool {
	switch {
	case ours[0] == 0x8b && stock[0] == 0x8d:
		return ours[1] == stock[1]
	case ours[0] == 0xff && ours[1] == 0x15:
		return stock[0] == 0x67 && stock[1] == 0xe8
	case ours[0] == 0xff && ours[1] == 0x25:
		return stock[0] == 0xe9 && stock[5] == 0x90
	}
	return false
}

// relaxedAt is relaxed for whole instructions, whatever their prefixes.
func relaxedAt(ours, stock []byte) bool {
	front := len(ours) - 6
	return front >= 0 && len(stock) >= len(ours) && bytes.Equal(ours[:front], stock[:front]) && relaxed(ours[front:], stock[front:])
}
