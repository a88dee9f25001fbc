package inventory

import (
	"encoding/binary"
	"io"

	"livemend.dev/livemend/patch"
)

// Limits of the ELF reader.
const (
	maxHeaders   = 128      // program headers
	maxNotes     = 8        // PT_NOTE segments that are read
	maxNoteBytes = 64 << 10 // of one PT_NOTE
	maxOffset    = 1 << 40  // in a file
)

// readBuildID returns the GNU build-id of an ELF file, in lower-case
// hexadecimal. ok is false for anything else, however it is malformed.
func readBuildID(r io.ReaderAt) (id string, ok bool) {
	var head [64]byte
	if _, err := r.ReadAt(head[:52], 0); err != nil || string(head[:4]) != "\x7fELF" || head[5] != 1 {
		return "", false
	}
	le := binary.LittleEndian
	var phoff uint64
	var size, count int
	wide := head[4] == 2
	switch {
	case wide:
		if _, err := r.ReadAt(head[:], 0); err != nil {
			return "", false
		}
		phoff, size, count = le.Uint64(head[32:]), int(le.Uint16(head[54:])), int(le.Uint16(head[56:]))
	case head[4] == 1:
		phoff, size, count = uint64(le.Uint32(head[28:])), int(le.Uint16(head[42:])), int(le.Uint16(head[44:]))
	default:
		return "", false
	}
	if want := map[bool]int{true: 56, false: 32}[wide]; size != want || count > maxHeaders || phoff > maxOffset {
		return "", false
	}
	table := make([]byte, size*count)
	if n, _ := r.ReadAt(table, int64(phoff)); n != len(table) { // io.EOF may come with the last byte
		return "", false
	}
	for notes := 0; len(table) > 0 && notes < maxNotes; table = table[size:] {
		if le.Uint32(table) != 4 { // PT_NOTE
			continue
		}
		notes++
		var off, length, align uint64
		if wide {
			off, length, align = le.Uint64(table[8:]), le.Uint64(table[32:]), le.Uint64(table[48:])
		} else {
			off, length, align = uint64(le.Uint32(table[4:])), uint64(le.Uint32(table[16:])), uint64(le.Uint32(table[28:]))
		}
		if off > maxOffset || length > maxNoteBytes {
			continue
		}
		section := make([]byte, length)
		if n, _ := r.ReadAt(section, int64(off)); n != len(section) {
			continue
		}
		if align != 8 {
			align = 4
		}
		if id, ok := patch.NoteBuildID(section, align); ok {
			return string(id), true
		}
	}
	return "", false
}
