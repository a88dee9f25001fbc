package link

import "bytes"

// What the linker knows of amd64 machine code beside package insn: the stub
// that it makes, and what other linkers make of the use of a slot. Relocations
// are told apart in author/object.

const (
	stubBytes = 16
	stubField = 6
	stubNext  = 10
	trap      = 0xcc // fills executable gaps
)

// stubCode is endbr64; jmp *disp32(%rip), then fill.
var stubCode = [stubBytes]byte{0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0, 0, 0, 0, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc}

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
