package object

import (
	"debug/elf"

	"livemend.dev/livemend/author/insn"
)

// Instructions splits the code of s. The work is done once. The error is an
// *insn.UnknownError.
func (s *Section) Instructions() ([]insn.Inst, error) { return s.decode() }

// Relative reports whether the linker subtracts the place of the field from
// its value.
func (r Reloc) Relative() bool {
	switch r.Type {
	case elf.R_X86_64_PC32, elf.R_X86_64_PLT32, elf.R_X86_64_PC64, elf.R_X86_64_GOTPC32_TLSDESC,
		elf.R_X86_64_GOTTPOFF, elf.R_X86_64_TLSGD, elf.R_X86_64_TLSLD:
		return true
	}
	return r.ThroughGOT()
}

// ThroughGOT reports whether the field refers to a slot that holds the address
// of the symbol.
func (r Reloc) ThroughGOT() bool {
	switch r.Type {
	case elf.R_X86_64_GOTPCREL, elf.R_X86_64_GOTPCRELX, elf.R_X86_64_REX_GOTPCRELX:
		return true
	}
	return false
}

// ForThreads reports whether the field is part of a thread-local access.
func (r Reloc) ForThreads() bool {
	switch r.Type {
	case elf.R_X86_64_TLSGD, elf.R_X86_64_TLSLD, elf.R_X86_64_DTPOFF32, elf.R_X86_64_DTPOFF64,
		elf.R_X86_64_GOTTPOFF, elf.R_X86_64_TPOFF32, elf.R_X86_64_TPOFF64, elf.R_X86_64_DTPMOD64,
		elf.R_X86_64_GOTPC32_TLSDESC, elf.R_X86_64_TLSDESC_CALL, elf.R_X86_64_TLSDESC:
		return true
	}
	return false
}

// IsBranch reports whether r fills the target of a direct call or jump. In
// front of such a field stands the operation; in front of every other field
// that is relative to the program counter stands a byte below 0x40.
func (s *Section) IsBranch(r Reloc) bool {
	if s.Class != Code || r.Off == 0 || (r.Type != elf.R_X86_64_PC32 && r.Type != elf.R_X86_64_PLT32) {
		return false
	}
	last := s.Data[r.Off-1]
	return last == 0xe8 || last == 0xe9 || (last&0xf0 == 0x80 && r.Off > 1 && s.Data[r.Off-2] == 0x0f)
}

// FieldEnd returns how far behind the field of r the instruction ends that the
// field is relative to: what must be added to the addend to get the target's
// offset. exact is false when the code cannot be read there; the usual 4 is
// returned then.
func (s *Section) FieldEnd(r Reloc) (n int, exact bool) {
	if s.Class != Code || !r.Relative() {
		return 0, true
	}
	if s.IsBranch(r) {
		return 4, true
	}
	list, err := s.Instructions()
	if err != nil {
		return 4, false
	}
	if n, ok := insn.FieldEnd(list, int(r.Off)); ok {
		return n, true
	}
	return 4, false
}

// TargetOf returns the section and offset that r refers to; to is nil when the
// symbol is not defined in a loaded section. exact is as in FieldEnd.
func (o *Object) TargetOf(s *Section, r Reloc) (to *Section, at int64, exact bool) {
	to = o.SectionOf(r.Symbol)
	if to == nil {
		return nil, 0, false
	}
	n, exact := s.FieldEnd(r)
	return to, int64(o.Symbols[r.Symbol].Value) + r.Addend + int64(n), exact
}
