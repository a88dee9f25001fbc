// Package insn splits amd64 machine code into instructions, as far as the
// author tools must understand it: where instructions end, which of their bytes
// are relative to the program counter, which only fill space and which branch.
// It is pure and must not know about symbols or files.
package insn

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/arch/x86/x86asm"
)

// Kind says what an instruction is to the author tools.
type Kind uint8

// The kinds of instruction.
const (
	Other  Kind = iota
	Pad         // does nothing: alignment
	Branch      // relative jump, with or without condition, that has a short and a long form
	Call        // goes on behind itself later
)

// Inst is one instruction.
type Inst struct {
	Off, Len int // within the code
	Kind     Kind
	Op       int // equal for equal operations, whatever their encoding
	Rel      int // bytes of the field that is relative to the end of the instruction, or 0
	RelOff   int // where in the code that field starts
}

// End is the offset of the next instruction.
func (i Inst) End() int { return i.Off + i.Len }

// Target returns where the relative field points, as an offset within code.
// It is meaningful only when Rel is not 0 and no relocation fills the field.
func (i Inst) Target(code []byte) int64 {
	field := code[i.RelOff:]
	switch i.Rel {
	case 1:
		return int64(i.End()) + int64(int8(field[0]))
	case 4:
		return int64(i.End()) + int64(int32(binary.LittleEndian.Uint32(field)))
	}
	return -1
}

// UnknownError says where the decoder met an instruction that it does not know.
type UnknownError struct{ Off int }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("unknown instruction at offset %#x", e.Off)
}

// endbr64 and endbr32 are not known to x86asm.
var (
	endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}
	endbr32 = []byte{0xf3, 0x0f, 0x1e, 0xfb}
)

// Decode splits code from its first to its last byte. The error is an
// *UnknownError; the instructions in front of it are returned with it.
func Decode(code []byte) ([]Inst, error) {
	list := make([]Inst, 0, len(code)/4)
	for off := 0; off < len(code); {
		rest := code[off:]
		if bytes.HasPrefix(rest, endbr64) || bytes.HasPrefix(rest, endbr32) {
			list = append(list, Inst{Off: off, Len: len(endbr64)})
			off += len(endbr64)
			continue
		}
		in, err := x86asm.Decode(rest, 64)
		// VEX and EVEX encodings are only partly known to x86asm: their
		// relative operands are not reported, so they count as unknown, like
		// jumps of 16 bits, which no compiler makes.
		if err != nil || in.Op == 0 || in.Len <= 0 || in.Len > len(rest) || vex(rest[0]) || in.PCRel == 2 {
			return list, &UnknownError{Off: off}
		}
		i := Inst{Off: off, Len: in.Len, Op: int(in.Op), Rel: in.PCRel, RelOff: off + in.PCRelOff}
		switch {
		case in.Op == x86asm.NOP, in.Op == x86asm.XCHG && bytes.Equal(rest[:in.Len], []byte{0x66, 0x90}):
			i.Kind, i.Rel = Pad, 0
		case jump(in.Op) && in.PCRel != 0 && !ripMemory(in):
			i.Kind = Branch
		case in.Op == x86asm.CALL:
			i.Kind = Call
		}
		list = append(list, i)
		off += in.Len
	}
	return list, nil
}

func vex(first byte) bool { return first == 0xc4 || first == 0xc5 || first == 0x62 }

// ripMemory reports whether the relative field belongs to a memory operand, as
// in an indirect jump through a slot.
func ripMemory(in x86asm.Inst) bool {
	_, isMem := in.Args[0].(x86asm.Mem)
	return isMem
}

func jump(op x86asm.Op) bool {
	switch op {
	case x86asm.JMP, x86asm.JA, x86asm.JAE, x86asm.JB, x86asm.JBE, x86asm.JE, x86asm.JNE,
		x86asm.JG, x86asm.JGE, x86asm.JL, x86asm.JLE, x86asm.JO, x86asm.JNO, x86asm.JP,
		x86asm.JNP, x86asm.JS, x86asm.JNS, x86asm.JECXZ, x86asm.JRCXZ,
		x86asm.LOOP, x86asm.LOOPE, x86asm.LOOPNE:
		return true
	}
	return false
}

// FieldEnd returns how many bytes lie between the start of the 4-byte field at
// off and the end of the instruction that holds it. ok is false when that
// cannot be known.
func FieldEnd(list []Inst, off int) (n int, ok bool) {
	lo, hi := 0, len(list)
	for lo < hi {
		if mid := (lo + hi) / 2; list[mid].End() <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(list) || off < list[lo].Off {
		return 0, false
	}
	return list[lo].End() - off, true
}
