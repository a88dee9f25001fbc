package userspace

import (
	"encoding/binary"
	"errors"
	"io"

	"livemend.dev/livemend/patch"
)

// Limits of the ELF reader; it reads program headers and notes, nothing else.
const (
	maxSegments   = 128      // program headers
	maxNoteBytes  = 64 << 10 // of one PT_NOTE
	maxNotes      = 8        // PT_NOTE headers that are looked at
	addressLimit  = 1 << 47  // no address of a program is above it
	elfHeaderSize = 64
	elfPhdrSize   = 56
)

const (
	elfMachineAMD64   = 62
	elfMachineAArch64 = 183
	segLoad           = 1
	segNote           = 4
	segExec           = 1
	noteBuildID       = 3
)

var errNotELF = errors.New("not a 64-bit little-endian ELF file with a build-id")

// load is one PT_LOAD of a file.
type load struct {
	vaddr, off, filesz, memsz uint64
	exec                      bool
}

// object is what the engine needs to know about a mapped file.
type object struct {
	buildID   patch.BuildID
	arch      string // as Go names it, empty for one that the engine does not know
	loads     []load
	low, high uint64 // virtual addresses, without load bias
}

// readObject reads the identity and the segments of an ELF file. Everything in
// it is taken for hostile: whatever is out of line is errNotELF.
func readObject(r io.ReaderAt) (*object, error) {
	var head [elfHeaderSize]byte
	if err := readFull(r, head[:], 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	// Magic, 64 bit, little-endian, version 1; type EXEC or DYN.
	if string(head[:7]) != "\x7fELF\x02\x01\x01" || (le.Uint16(head[16:]) != 2 && le.Uint16(head[16:]) != 3) {
		return nil, errNotELF
	}
	o := &object{low: addressLimit}
	switch le.Uint16(head[18:]) {
	case elfMachineAMD64:
		o.arch = "amd64"
	case elfMachineAArch64:
		o.arch = "arm64"
	}
	phoff, size, n := le.Uint64(head[32:]), le.Uint16(head[54:]), int(le.Uint16(head[56:]))
	if size != elfPhdrSize || n == 0 || n > maxSegments || phoff > 1<<40 {
		return nil, errNotELF
	}
	table := make([]byte, n*elfPhdrSize)
	if err := readFull(r, table, phoff); err != nil {
		return nil, err
	}
	notes := 0
	for ; len(table) > 0; table = table[elfPhdrSize:] {
		switch le.Uint32(table) {
		case segLoad:
			if err := o.addLoad(table); err != nil {
				return nil, err
			}
		case segNote:
			if notes++; notes > maxNotes || o.buildID != "" {
				continue
			}
			if err := o.readNotes(r, table); err != nil {
				return nil, err
			}
		}
	}
	if o.buildID == "" || len(o.loads) == 0 {
		return nil, errNotELF
	}
	return o, nil
}

func (o *object) addLoad(ph []byte) error {
	le := binary.LittleEndian
	l := load{
		exec:   le.Uint32(ph[4:])&segExec != 0,
		off:    le.Uint64(ph[8:]),
		vaddr:  le.Uint64(ph[16:]),
		filesz: le.Uint64(ph[32:]),
		memsz:  le.Uint64(ph[40:]),
	}
	if l.vaddr >= addressLimit || l.memsz >= addressLimit || l.vaddr+l.memsz >= addressLimit ||
		l.off >= addressLimit || l.filesz > l.memsz || l.off%pageSize != l.vaddr%pageSize {
		return errNotELF
	}
	o.loads = append(o.loads, l)
	o.low = min(o.low, l.vaddr&^(pageSize-1))
	o.high = max(o.high, l.vaddr+l.memsz)
	return nil
}

// readNotes looks for a GNU build-id in one PT_NOTE.
func (o *object) readNotes(r io.ReaderAt, ph []byte) error {
	le := binary.LittleEndian
	off, size, align := le.Uint64(ph[8:]), le.Uint64(ph[32:]), le.Uint64(ph[48:])
	if size > maxNoteBytes || off > 1<<40 {
		return errNotELF
	}
	if align != 8 {
		align = 4
	}
	notes := make([]byte, size)
	if err := readFull(r, notes, off); err != nil {
		return err
	}
	for len(notes) >= 12 {
		nameSize, descSize, kind := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:])), le.Uint32(notes[8:])
		descAt := (12 + nameSize + align - 1) &^ (align - 1)
		end := descAt + descSize
		if end > uint64(len(notes)) {
			return errNotELF
		}
		if kind == noteBuildID && nameSize == 4 && string(notes[12:16]) == "GNU\x00" {
			if id := patch.BuildID(hexText(notes[descAt:end])); id.Valid() {
				o.buildID = id
			}
			return nil
		}
		next := (end + align - 1) &^ (align - 1)
		if next > uint64(len(notes)) {
			return nil
		}
		notes = notes[next:]
	}
	return nil
}

// bias returns the difference between addresses in memory and in the file for
// an executable mapping of the file at file offset off, which starts at start.
func (o *object) bias(start, off uint64) (uint64, bool) {
	for _, l := range o.loads {
		first := l.off &^ (pageSize - 1)
		if !l.exec || off < first || off >= l.off+l.filesz {
			continue
		}
		if vaddr := l.vaddr&^(pageSize-1) + (off - first); start >= vaddr {
			return start - vaddr, true
		}
	}
	return 0, false
}

// readFull fills b or fails; a file that ends early is not an ELF file.
func readFull(r io.ReaderAt, b []byte, off uint64) error {
	n, err := r.ReadAt(b, int64(off))
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		return errNotELF
	}
	return err
}

// hexText returns b in lower-case hexadecimal.
func hexText(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}
