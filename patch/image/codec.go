package image

import (
	"encoding/binary"
	"strconv"

	"livemend.dev/livemend/patch"
)

// The format, all integers little-endian:
//
//	magic "LMPIMAGE", u32 version
//	u8 length, architecture; u8 length, build-id as text
//	u32 count, imports: u16 length, name; u16 length, version; u8 kind
//	u32 count, segments: u8 protection, u32 size, u32 length, data
//	u32 count, relocations: u32 offset, u8 base, u8 form, u64 addend
//	u32 count, hunks: u16 length, name, u64 offset, u32 size, 32 bytes hash, 16 bytes entry, u32 new
//
// One File has one encoding, and nothing may follow it.
const (
	magic   = "LMPIMAGE"
	version = 2
)

// Fixed parts of the items, in bytes. Counts are checked against the bytes that
// are left, so a lying count cannot make the reader allocate.
const (
	importBytes  = 2 + 2 + 1
	segmentBytes = 1 + 4 + 4
	relocBytes   = 4 + 1 + 1 + 8
	hunkBytes    = 2 + 8 + 4 + 32 + EntrySize + 4
)

// Encode returns the artifact of f. It returns the error of Check for a File
// that may not be applied.
func Encode(f *File) ([]byte, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	size := len(magic) + 64 + len(f.Arch) + len(f.BuildID) + len(f.Relocs)*relocBytes
	for _, m := range f.Imports {
		size += importBytes + len(m.Name) + len(m.Version)
	}
	for _, s := range f.Segments {
		size += segmentBytes + len(s.Data)
	}
	for i := range f.Hunks {
		size += hunkBytes + len(f.Hunks[i].Name)
	}
	le := binary.LittleEndian
	b := make([]byte, 0, size)
	b = append(b, magic...)
	b = le.AppendUint32(b, version)
	b = append(append(b, byte(len(f.Arch))), f.Arch...)
	b = append(append(b, byte(len(f.BuildID))), f.BuildID...)
	b = le.AppendUint32(b, uint32(len(f.Imports)))
	for _, m := range f.Imports {
		b = append(le.AppendUint16(b, uint16(len(m.Name))), m.Name...)
		b = append(le.AppendUint16(b, uint16(len(m.Version))), m.Version...)
		b = append(b, byte(m.Kind))
	}
	b = le.AppendUint32(b, uint32(len(f.Segments)))
	for _, s := range f.Segments {
		b = append(b, byte(s.Prot))
		b = le.AppendUint32(b, s.Size)
		b = le.AppendUint32(b, uint32(len(s.Data)))
		b = append(b, s.Data...)
	}
	b = le.AppendUint32(b, uint32(len(f.Relocs)))
	for _, r := range f.Relocs {
		b = le.AppendUint32(b, r.Off)
		b = append(b, byte(r.Base), byte(r.Form))
		b = le.AppendUint64(b, uint64(r.Addend))
	}
	b = le.AppendUint32(b, uint32(len(f.Hunks)))
	for i := range f.Hunks {
		h := &f.Hunks[i]
		b = le.AppendUint16(b, uint16(len(h.Name)))
		b = append(b, h.Name...)
		b = le.AppendUint64(b, h.Off)
		b = le.AppendUint32(b, h.Size)
		b = append(b, h.OldHash[:]...)
		b = append(b, h.Entry[:]...)
		b = le.AppendUint32(b, h.New)
	}
	return b, nil
}

// Decode reads an artifact and checks it. The result shares no memory with
// data. The error wraps ErrFormat, or ErrRule when the bytes are well formed but
// Check refuses what they say.
func Decode(data []byte) (*File, error) {
	r := &reader{rest: data}
	if string(r.take(len(magic))) != magic {
		return nil, format("it does not start as one")
	}
	if v := r.u32(); v != version {
		return nil, format("version " + strconv.FormatUint(uint64(v), 10) + " is not known; a newer program may read it")
	}
	f := &File{}
	f.Arch = string(r.take(int(r.u8())))
	f.BuildID = patch.BuildID(r.take(int(r.u8())))
	if n := r.count("imports", MaxImports, importBytes); n > 0 {
		f.Imports = make([]Import, n)
		for i := range f.Imports {
			m := &f.Imports[i]
			m.Name = string(r.take(int(r.u16())))
			m.Version = string(r.take(int(r.u16())))
			m.Kind = ImportKind(r.u8())
		}
	}
	for n := r.count("segments", MaxSegments, segmentBytes); n > 0; n-- {
		s := Segment{Prot: Prot(r.u8()), Size: r.u32()}
		s.Data = append([]byte(nil), r.take(r.length(MaxSize))...)
		f.Segments = append(f.Segments, s)
	}
	if n := r.count("relocations", MaxRelocs, relocBytes); n > 0 {
		f.Relocs = make([]Reloc, n)
		for i := range f.Relocs {
			f.Relocs[i] = Reloc{Off: r.u32(), Base: Base(r.u8()), Form: Form(r.u8()), Addend: int64(r.u64())}
		}
	}
	if n := r.count("functions", MaxHunks, hunkBytes); n > 0 {
		f.Hunks = make([]Hunk, n)
		for i := range f.Hunks {
			h := &f.Hunks[i]
			h.Name = string(r.take(int(r.u16())))
			h.Off, h.Size = r.u64(), r.u32()
			copy(h.OldHash[:], r.take(len(h.OldHash)))
			copy(h.Entry[:], r.take(len(h.Entry)))
			h.New = r.u32()
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(r.rest) != 0 {
		return nil, format("bytes follow its end")
	}
	if err := f.Check(); err != nil {
		return nil, err
	}
	return f, nil
}

// reader takes fields off the front of rest. After the first error it gives
// zeros, so a caller may read on and look at err once.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) take(n int) []byte {
	if r.err == nil && n > len(r.rest) {
		r.err = format("it ends too early")
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// length reads the length of a field that holds at most limit bytes.
func (r *reader) length(limit uint32) int {
	n := r.u32()
	if r.err == nil && n > limit {
		r.err = format("a part is too large")
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

// count reads how many items of at least itemBytes follow.
func (r *reader) count(what string, limit, itemBytes uint32) int {
	n := r.u32()
	if r.err == nil && (n > limit || uint64(n)*uint64(itemBytes) > uint64(len(r.rest))) {
		r.err = format("it claims more " + what + " than it can hold")
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func format(what string) error { return &Error{Kind: ErrFormat, Reason: what} }
