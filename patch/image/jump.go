package image

import "bytes"

// How an old function is left for the new one on amd64: what stays of it, and
// where the jump goes. Another architecture has its own; how relocations are
// stored is in place.go.

// endbr64 is the instruction that starts a function which indirect branches
// may enter. It stays in place; the jump goes behind it.
var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}

// JumpOff returns where in the old function the jump goes: 0, or 4 when the
// function starts with endbr64.
func (h *Hunk) JumpOff() uint32 {
	if bytes.HasPrefix(h.Entry[:], endbr64) {
		return uint32(len(endbr64))
	}
	return 0
}
