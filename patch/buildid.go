package patch

import (
	"encoding/binary"

	"livemend.dev/livemend/internal/hextext"
)

// NoteBuildID finds the GNU build-id among ELF notes whose parts are aligned to
// align bytes, as they lie in a file, in /sys/kernel/notes or in the notes of a
// loaded module. ok is false when there is none or the notes are malformed.
func NoteBuildID(notes []byte, align uint64) (id BuildID, ok bool) {
	le := binary.LittleEndian
	for len(notes) >= 12 {
		nameLen, descLen, kind := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:])), le.Uint32(notes[8:])
		desc := (12 + nameLen + align - 1) &^ (align - 1)
		end := desc + descLen
		if end > uint64(len(notes)) {
			return "", false
		}
		if kind == 3 && nameLen == 4 && string(notes[12:16]) == "GNU\x00" {
			id := BuildID(hextext.Encode(notes[desc:end]))
			return id, id.Valid()
		}
		next := (end + align - 1) &^ (align - 1)
		if next > uint64(len(notes)) {
			return "", false
		}
		notes = notes[next:]
	}
	return "", false
}
