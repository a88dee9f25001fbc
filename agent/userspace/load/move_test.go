package load

import (
	"crypto/rand"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/author/insn"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

// A patch needs new code that does what the old code did, for functions that
// are called all the time, and a build from source takes minutes. So the new
// code is the old machine code, moved into the image. Branches inside the
// function stay as they are; whatever else is relative to the program counter
// is made to reach the library again. A jump table leads back into the old
// body, which is whole but for its first bytes, so that is right, too.

// library is a copy of a stock library with a build-id of its own: its code is
// the distribution's, byte by byte, but no process outside the test maps it.
type library struct {
	name string // soname
	path string
	file []byte
	id   patch.BuildID
	syms []elf.Symbol
}

// copyLibrary copies the library at from into the folder.
func copyLibrary(from, dir string) (*library, error) {
	l := &library{name: filepath.Base(from), path: filepath.Join(dir, filepath.Base(from))}
	var err error
	if l.file, err = os.ReadFile(from); err != nil {
		return nil, err
	}
	f, err := elf.Open(from)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	note := f.Section(".note.gnu.build-id")
	if note == nil || note.Size != 16+20 {
		return nil, fmt.Errorf("%s has no build-id of 20 bytes", from)
	}
	id := l.file[note.Offset+16:][:20]
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	l.id = patch.BuildID(hex.EncodeToString(id))
	if l.syms, err = f.DynamicSymbols(); err != nil {
		return nil, err
	}
	return l, os.WriteFile(l.path, l.file, 0o755)
}

// function returns address and code of an exported function.
func (l *library) function(name string) (uint64, []byte, error) {
	f, err := elf.Open(l.path)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	for _, s := range l.syms {
		if s.Name != name || elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF {
			continue
		}
		section := f.Sections[s.Section]
		code := make([]byte, s.Size)
		_, err := section.ReadAt(code, int64(s.Value-section.Addr))
		return s.Value, code, err
	}
	return 0, nil, fmt.Errorf("%s exports no function %s", l.name, name)
}

// errFixed says that a function's code cannot be moved.
var errFixed = errors.New("cannot be moved")

// move returns what makes code, which lies at vaddr in the library, work at
// offset at of an image.
func move(code []byte, vaddr uint64, at uint32) ([]image.Reloc, error) {
	list, err := insn.Decode(code)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFixed, err)
	}
	var h image.Hunk
	copy(h.Entry[:], code)
	site := int64(h.JumpOff())
	var relocs []image.Reloc
	for _, in := range list {
		if in.Rel == 0 {
			continue
		}
		to := in.Target(code)
		switch {
		case in.Kind == insn.Branch && to > site && to < site+image.JumpSize:
			return nil, fmt.Errorf("%w: it branches into its first bytes", errFixed)
		case in.Kind == insn.Branch && to >= 0 && to < int64(len(code)):
			// moves with it
		case in.Rel != 4:
			return nil, fmt.Errorf("%w: a short branch leaves it", errFixed)
		default:
			relocs = append(relocs, image.Reloc{
				Off: at + uint32(in.RelOff), Base: image.Library, Form: image.Rel32,
				Addend: int64(vaddr) + to - int64(in.End()-in.RelOff),
			})
		}
	}
	return relocs, nil
}

// counter is the instruction that every moved function starts with: it counts
// the call in the image's own memory, as proof that the new code is run.
var counter = []byte{0xf0, 0x48, 0xff, 0x05, 0, 0, 0, 0} // lock inc qword [rip+n]

// makePatch returns a patch that moves the functions. Levels with another start
// put them elsewhere in the image.
func (l *library) makePatch(level int64, start int, names []string) (userspace.Patch, error) {
	f := &image.File{BuildID: l.id, Arch: "amd64"}
	text := make([]byte, start)
	type field struct{ off, counter int }
	var fields []field
	for i, name := range names {
		vaddr, code, err := l.function(name)
		if err != nil {
			return userspace.Patch{}, err
		}
		for len(text)%16 != 0 {
			text = append(text, 0xcc)
		}
		h := image.Hunk{Name: name, Off: vaddr, Size: uint32(len(code)), OldHash: sha256.Sum256(code), New: uint32(len(text))}
		copy(h.Entry[:], code)
		f.Hunks = append(f.Hunks, h)
		fields = append(fields, field{len(text) + 4, 8 * i})
		text = append(text, counter...)
		relocs, err := move(code, vaddr, uint32(len(text)))
		if err != nil {
			return userspace.Patch{}, fmt.Errorf("%s of %s %w", name, l.name, err)
		}
		f.Relocs = append(f.Relocs, relocs...)
		text = append(text, code...)
	}
	size := uint32(len(text)+image.PageSize-1) &^ (image.PageSize - 1)
	for _, c := range fields {
		f.Relocs = append(f.Relocs, image.Reloc{
			Off: uint32(c.off), Base: image.Image, Form: image.Rel32, Addend: int64(size) + int64(c.counter) - 4,
		})
	}
	f.Segments = []image.Segment{
		{Prot: image.ReadExec, Size: size, Data: text},
		{Prot: image.ReadWrite, Size: image.PageSize},
	}
	slices.SortFunc(f.Relocs, func(a, b image.Reloc) int { return int(a.Off) - int(b.Off) })
	slices.SortFunc(f.Hunks, func(a, b image.Hunk) int { return int(a.Off) - int(b.Off) })
	artifact, err := image.Encode(f)
	if err != nil {
		return userspace.Patch{}, err
	}
	decoded, err := image.Decode(artifact)
	if err != nil {
		return userspace.Patch{}, err
	}
	return userspace.Patch{File: decoded, SHA256: sha256.Sum256(artifact), Level: level}, nil
}

// calls returns how often a process has called the new code of a function since
// its image was mapped; ok is false when the function is not redirected.
func calls(mem *os.File, bias uint64, h *image.Hunk) (n uint64, ok bool, err error) {
	read := func(at uint64, b []byte) {
		if err == nil {
			_, err = mem.ReadAt(b, int64(at))
		}
	}
	relative := func(field []byte, end uint64) uint64 {
		return end + uint64(int64(int32(binary.LittleEndian.Uint32(field))))
	}
	site := bias + h.Off + uint64(h.JumpOff())
	var jump [image.JumpSize]byte
	var first [8]byte
	if read(site, jump[:]); err != nil || jump[0] != 0xe9 {
		return 0, false, err
	}
	entry := relative(jump[1:], site+uint64(len(jump)))
	if read(entry, first[:]); err != nil || string(first[:4]) != string(counter[:4]) {
		return 0, false, err
	}
	var value [8]byte
	read(relative(first[4:], entry+uint64(len(first))), value[:])
	return binary.LittleEndian.Uint64(value[:]), err == nil, err
}
