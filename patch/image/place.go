package image

import (
	"encoding/binary"
	"strconv"
)

// userEnd is the first address that no amd64 process can use.
const userEnd = 1 << 47

// width returns the bytes of a field, or 0 for an unknown form.
func (f Form) width() uint64 {
	switch f {
	case Rel32:
		return 4
	case Abs64:
		return 8
	}
	return 0
}

// Place returns the bytes of the whole image, all segments with their zero
// rests, for the case that its first segment lies at imageAddr and the library
// is loaded with the given bias; imports are the addresses of f.Imports, in
// their order. f must have passed Check. The error wraps
// ErrPlace when a 32-bit field cannot reach its target from there: a place
// nearer to the library will do.
func (f *File) Place(imageAddr, bias uint64, imports ...uint64) ([]byte, error) {
	size := uint64(f.Size())
	if imageAddr%PageSize != 0 || imageAddr >= userEnd-size || bias >= userEnd {
		return nil, &Error{Kind: ErrPlace, Reason: "the address is not the start of a page that a process can use"}
	}
	if len(imports) != len(f.Imports) {
		return nil, &Error{Kind: ErrPlace, Reason: "not every import has an address"}
	}
	out := make([]byte, size)
	start := 0
	for _, s := range f.Segments {
		copy(out[start:], s.Data)
		start += int(s.Size)
	}
	for i, r := range f.Relocs {
		target := imageAddr + uint64(r.Addend)
		switch r.Base {
		case Library:
			target = bias + uint64(r.Addend)
		case Imported:
			target = imports[r.Addend]
		}
		field := out[r.Off:]
		if r.Form == Abs64 {
			binary.LittleEndian.PutUint64(field, target)
			continue
		}
		distance := int64(target - (imageAddr + uint64(r.Off)))
		if distance != int64(int32(distance)) {
			return nil, &Error{Kind: ErrPlace, Reason: "relocation " + strconv.Itoa(i) + " is more than 2 GiB from its target"}
		}
		binary.LittleEndian.PutUint32(field, uint32(distance))
	}
	return out, nil
}
