package object

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"livemend.dev/livemend/patch"
)

// maxSpan bounds the addresses in a binary.
const maxSpan = 1 << 32

// Binary is a linked library or program: what of it is loaded, what it is
// called, and through which slots it reaches others. It does not change once
// read.
type Binary struct {
	BuildID  patch.BuildID
	Library  bool // position independent; its bias is chosen when it is loaded
	Program  bool // what a process is started with, rather than loaded by it
	Symbolic bool // its own definitions win over those of other files
	Compiler []string
	Go       bool // made by the Go tool chain
	Slots    map[string]Slot
	PLT      map[uint64]string  // address of a stub to the name that it jumps to
	Exported map[string]Linkage // names in the dynamic symbol table that are defined here
	Imported map[string]Linkage // names in it that others must define
	Needed   []string           // libraries that are loaded with it
	Threads  Threads            // where its thread-local variables are
	Named    []Named            // the static symbol table, when there is one
	segments []segment

	slotNames map[uint64]string // every slot by address
}

// Slot is an entry of the global offset table that the dynamic loader fills.
type Slot struct {
	Addr    uint64
	Lazy    bool // may hold the address of a stub until the first call
	Clash   bool // two versions of the name have slots
	Code    bool // the symbol is known to be a function
	version string
}

// Linkage is how files are bound to each other by one name.
type Linkage struct {
	Version string // the one that plain names mean; empty for none
	Library string // of an import: file name of the library that the version is from
	Type    elf.SymType
	Clash   bool // the name stands for several versions
	Own     bool // of a definition: what the file itself uses, whatever others define
}

// Named is a defined symbol with the source file that the table lists it under.
type Named struct {
	Name    string // without a version
	Version string // or empty
	Default bool   // the version is the one that plain names mean
	File    string // of local symbols
	Group   int    // number of the file's entry in the table; 0 for global symbols
	Addr    uint64
	Size    uint64
	Type    elf.SymType
	Global  bool
}

type segment struct {
	addr uint64
	data []byte // the part in the file
	size uint64 // in memory
	exec bool
}

// Read returns n bytes of the file at the given virtual address; ok is false
// when they are not all in one segment's file content.
func (b *Binary) Read(addr, n uint64) (data []byte, ok bool) {
	for _, s := range b.segments {
		if addr >= s.addr && addr-s.addr <= uint64(len(s.data)) && n <= uint64(len(s.data))-(addr-s.addr) {
			at := addr - s.addr
			return s.data[at : at+n : at+n], true
		}
	}
	return nil, false
}

// Executable reports whether addr lies in executable memory.
func (b *Binary) Executable(addr uint64) bool {
	for _, s := range b.segments {
		if s.exec && addr >= s.addr && addr-s.addr < s.size {
			return true
		}
	}
	return false
}

// ReadBinary reads a linked amd64 library or program. The result keeps data,
// which must not change any more. The error wraps ErrFile.
func ReadBinary(path string, data []byte) (*Binary, error) {
	b := &Binary{Slots: map[string]Slot{}, PLT: map[uint64]string{}, Exported: map[string]Linkage{}, Imported: map[string]Linkage{}, slotNames: map[uint64]string{}}
	b.Threads = newThreads()
	err := guard(path, func() error {
		f, err := open(data)
		if err != nil {
			return err
		}
		if f.Type != elf.ET_DYN && f.Type != elf.ET_EXEC {
			return errors.New("it is not a linked library or program")
		}
		b.Library, b.Program = f.Type == elf.ET_DYN, f.Type == elf.ET_EXEC
		if err := b.readSections(f); err != nil {
			return err
		}
		if err := b.readSegments(f, data); err != nil {
			return err
		}
		if err := b.readNames(f); err != nil {
			return err
		}
		if err := b.readSlots(f); err != nil {
			return err
		}
		b.finishThreads()
		if err := b.readSymbolic(f); err != nil {
			return err
		}
		return b.readPLT(f)
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Binary) readSections(f *elf.File) error {
	for _, s := range f.Sections {
		switch s.Name {
		case ".go.buildinfo", ".gopclntab", ".note.go.buildid":
			b.Go = true
		case ".note.gnu.build-id":
			note, err := content(s)
			if err != nil {
				return err
			}
			if b.BuildID, err = buildID(note); err != nil {
				return err
			}
		case ".comment":
			if s.Type == elf.SHT_NOBITS {
				continue
			}
			text, err := content(s)
			if err != nil {
				return err
			}
			b.Compiler = texts(text)
		}
	}
	if b.BuildID == "" {
		return errors.New("it has no build-id; nothing could identify it on a server")
	}
	return nil
}

// buildID reads the one note of a .note.gnu.build-id section.
func buildID(note []byte) (patch.BuildID, error) {
	const header = 16 // three words and "GNU\0"
	if len(note) < header || string(note[12:16]) != "GNU\x00" || binary.LittleEndian.Uint32(note[8:]) != 3 {
		return "", errors.New("its build-id note is damaged")
	}
	size := binary.LittleEndian.Uint32(note[4:])
	if uint64(size) > uint64(len(note)-header) {
		return "", errors.New("its build-id note is damaged")
	}
	id := patch.BuildID(hex.EncodeToString(note[header : header+size]))
	if !id.Valid() {
		return "", errors.New("its build-id is too short or too long")
	}
	return id, nil
}

func (b *Binary) readSegments(f *elf.File, data []byte) error {
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD && p.Type != elf.PT_TLS {
			continue
		}
		if p.Memsz > maxSpan || p.Vaddr > maxSpan || p.Align > maxSpan {
			return errors.New("a segment is out of range")
		}
		if p.Type == elf.PT_TLS {
			b.Threads.size, b.Threads.align = p.Memsz, max(p.Align, 1)
			continue
		}
		s := segment{addr: p.Vaddr, size: p.Memsz, exec: p.Flags&elf.PF_X != 0}
		// A file of debug symbols alone has segments without content.
		if p.Off <= uint64(len(data)) && p.Filesz <= uint64(len(data))-p.Off {
			s.data = data[p.Off : p.Off+p.Filesz]
		}
		b.segments = append(b.segments, s)
	}
	return nil
}

func (b *Binary) readNames(f *elf.File) error {
	list, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return err
	}
	if len(list) > MaxSymbols {
		return errors.New("it has too many symbols")
	}
	file, group := "", 0
	for _, s := range list {
		bind, kind := elf.ST_BIND(s.Info), elf.ST_TYPE(s.Info)
		if kind == elf.STT_FILE {
			file, group = s.Name, group+1
			continue
		}
		if s.Section == elf.SHN_UNDEF || s.Section == elf.SHN_ABS || s.Name == "" || kind == elf.STT_SECTION {
			continue
		}
		n := Named{Name: Unversioned(s.Name), Addr: s.Value, Size: s.Size, Type: kind, Global: bind != elf.STB_LOCAL}
		if !n.Global {
			n.File, n.Group = file, group
		}
		_, n.Version, _ = strings.Cut(s.Name, "@")
		n.Version, n.Default = strings.CutPrefix(n.Version, "@")
		b.Named = append(b.Named, n)
	}
	slices.SortStableFunc(b.Named, func(x, y Named) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Addr, y.Addr))
	})
	return nil
}

// Unversioned cuts @VERSION or @@VERSION.
func Unversioned(name string) string {
	if base, _, found := strings.Cut(name, "@"); found && base != "" {
		return base
	}
	return name
}

// Lookup returns the defined symbols called name. The caller must not change
// the slice.
func (b *Binary) Lookup(name string) []Named {
	from, _ := slices.BinarySearchFunc(b.Named, name, func(n Named, t string) int { return cmp.Compare(n.Name, t) })
	to := from
	for to < len(b.Named) && b.Named[to].Name == name {
		to++
	}
	return b.Named[from:to:to]
}

func (b *Binary) readSlots(f *elf.File) error {
	dynamic, err := f.DynamicSymbols()
	if errors.Is(err, elf.ErrNoSymbols) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, s := range dynamic {
		b.addLinkage(s)
	}
	if b.Needed, err = f.DynString(elf.DT_NEEDED); err != nil {
		return err
	}
	for _, s := range f.Sections {
		if s.Type != elf.SHT_RELA || s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		table, err := content(s)
		if err != nil {
			return err
		}
		if len(table)/relaBytes > MaxRelocs {
			return errors.New("it has too many relocations")
		}
		for ; len(table) >= relaBytes; table = table[relaBytes:] {
			r := rela(table)
			lazy := r.Type == elf.R_X86_64_JMP_SLOT
			if r.Symbol > len(dynamic) {
				return fmt.Errorf("a relocation of %s is out of range", s.Name)
			}
			if r.ForThreads() {
				name := ""
				if r.Symbol != 0 {
					name = dynamic[r.Symbol-1].Name
				}
				b.addThreadSlot(name, r)
				continue
			}
			if r.Symbol == 0 || (!lazy && r.Type != elf.R_X86_64_GLOB_DAT) {
				continue
			}
			b.addSlot(dynamic[r.Symbol-1], r.Off, lazy)
		}
	}
	return nil
}

// addLinkage notes a dynamic symbol. Old versions, which new code is never
// bound to, do not count.
func (b *Binary) addLinkage(s elf.Symbol) {
	table := b.Imported
	if s.Section != elf.SHN_UNDEF {
		if s.HasVersion && s.VersionIndex.IsHidden() {
			return
		}
		table = b.Exported
	}
	old, again := table[s.Name]
	table[s.Name] = Linkage{
		Version: s.Version, Library: s.Library, Type: elf.ST_TYPE(s.Info),
		Clash: again && (old.Clash || old.Version != s.Version),
		Own:   elf.ST_VISIBILITY(s.Other) == elf.STV_PROTECTED,
	}
}

// addSlot prefers, of two slots for one name, the one that the loader fills at
// once.
func (b *Binary) addSlot(s elf.Symbol, addr uint64, lazy bool) {
	b.slotNames[addr] = s.Name
	slot := Slot{Addr: addr, Lazy: lazy, version: s.Version}
	slot.Code = lazy || elf.ST_TYPE(s.Info) == elf.STT_FUNC || elf.ST_TYPE(s.Info) == elf.STT_GNU_IFUNC
	if old, ok := b.Slots[s.Name]; ok {
		if !old.Lazy {
			slot.Addr, slot.Lazy = old.Addr, false
		}
		slot.Code = slot.Code || old.Code
		slot.Clash = old.Clash || old.version != s.Version
	}
	b.Slots[s.Name] = slot
}

func (b *Binary) readSymbolic(f *elf.File) error {
	old, err := f.DynValue(elf.DT_SYMBOLIC)
	if err != nil {
		return err
	}
	flags, err := f.DynValue(elf.DT_FLAGS)
	if err != nil {
		return err
	}
	more, err := f.DynValue(elf.DT_FLAGS_1)
	if err != nil {
		return err
	}
	for _, v := range more {
		b.Program = b.Program || elf.DynFlag1(v)&elf.DF_1_PIE != 0
	}
	b.Symbolic = len(old) > 0
	for _, v := range flags {
		b.Symbolic = b.Symbolic || elf.DynFlag(v)&elf.DF_SYMBOLIC != 0
	}
	return nil
}

// SlotName returns the symbol that the slot at addr is for, or the empty text.
func (b *Binary) SlotName(addr uint64) string { return b.slotNames[addr] }

// readPLT finds the stubs through which the binary calls by slot: an indirect
// jump at a multiple of 8, perhaps behind endbr64.
func (b *Binary) readPLT(f *elf.File) error {
	for _, s := range f.Sections {
		if s.Type != elf.SHT_PROGBITS || !strings.HasPrefix(s.Name, ".plt") {
			continue
		}
		code, err := content(s)
		if err != nil {
			return err
		}
		for off := 0; off < len(code); off += 8 {
			at := bytes.TrimPrefix(code[off:], []byte{0xf3, 0x0f, 0x1e, 0xfa})
			at = bytes.TrimPrefix(at, []byte{0xf2})
			if len(at) < 6 || at[0] != 0xff || at[1] != 0x25 {
				continue
			}
			end := s.Addr + uint64(len(code)-len(at)) + 6
			target := end + uint64(int64(int32(binary.LittleEndian.Uint32(at[2:]))))
			if name, ok := b.slotNames[target]; ok {
				b.PLT[s.Addr+uint64(off)] = name
			}
		}
	}
	return nil
}
