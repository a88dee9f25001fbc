package link

// What the linker knows of amd64 machine code beside package insn: the stub that
// it makes. Relocations are told apart in author/object.

const (
	stubBytes = 16
	stubField = 6
	stubNext  = 10
	trap      = 0xcc // fills executable gaps
)

// stubCode is endbr64; jmp *disp32(%rip), then fill.
var stubCode = [stubBytes]byte{0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0, 0, 0, 0, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc}
