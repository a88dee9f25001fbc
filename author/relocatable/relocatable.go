// Package relocatable reads, changes and writes relocatable ELF files for
// amd64: objects of a compiler and kernel modules. Unlike package object, which
// says what an object means, it keeps everything that is in the file, whether it
// is loaded or not, so that what is written holds all that was read.
//
// Files come from builds of other people's sources, so everything read is
// bounded and checked. The package is pure and does not know live patches.
package relocatable

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Limits on one file. They are far above what compilers make.
const (
	MaxBytes    = 256 << 20
	MaxSections = 60_000 // beside the reserved numbers at 0xff00
	MaxSymbols  = 1_000_000
	MaxRelocs   = 4_000_000
	MaxAlign    = 1 << 16 // of a section
)

// ErrFile is wrapped by the errors of this package.
var ErrFile = errors.New("cannot use the relocatable file")

// File is one relocatable file. Sections and symbols refer to each other by
// pointers, so that they can be taken out and put in; the tables of symbols and
// names are made when it is written.
type File struct {
	Sections []*Section
	Symbols  []*Symbol
}

// Section is one section. A section of relocations has Relocs instead of Data.
type Section struct {
	Name      string
	Type      elf.SectionType
	Flags     elf.SectionFlag
	Align     uint64
	EntrySize uint64
	Data      []byte
	Size      uint64   // of SHT_NOBITS, which has no data
	Link      *Section // with SHF_LINK_ORDER
	Target    *Section // what relocations fill
	Relocs    []Reloc
}

// Symbol is one symbol. Index counts when Section is nil: undefined, absolute,
// common, or another reserved number.
type Symbol struct {
	Name    string
	Section *Section
	Index   elf.SectionIndex
	Value   uint64
	Size    uint64
	Type    elf.SymType
	Bind    elf.SymBind
	Vis     elf.SymVis
}

// Undefined reports whether another file has to define the symbol.
func (y *Symbol) Undefined() bool { return y.Section == nil && y.Index == elf.SHN_UNDEF }

// Reloc is one relocation. Symbol is nil for none.
type Reloc struct {
	Off    uint64
	Type   elf.R_X86_64
	Symbol *Symbol
	Addend int64
}

// Section returns the first section called name, or nil.
func (f *File) Section(name string) *Section {
	i := slices.IndexFunc(f.Sections, func(s *Section) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return f.Sections[i]
}

// Read reads a file. The error wraps ErrFile. Section and symbol number n of the
// file are the results' [n-1] only as far as no table of symbols or names lies in
// front; Numbered tells.
func Read(data []byte) (*File, error) {
	f, _, err := Numbered(data)
	return f, err
}

// Numbered is Read that also says which number of a section became which, with
// nil for tables of symbols and names. Symbols keep their order: number n is
// Symbols[n-1].
func Numbered(data []byte) (f *File, byNumber []*Section, err error) {
	defer func() { // debug/elf may panic on damaged files
		if p := recover(); p != nil {
			f, byNumber, err = nil, nil, fmt.Errorf("%w: it is damaged: %v", ErrFile, p)
		}
	}()
	r := &reader{file: &File{}}
	if err := r.read(data); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	return r.file, r.sections, nil
}

type reader struct {
	elf      *elf.File
	file     *File
	sections []*Section // by number
	symbols  []*Symbol  // by number
}

func (r *reader) read(data []byte) error {
	if len(data) > MaxBytes {
		return errors.New("it is too large")
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return err
	}
	switch {
	case f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB || f.Machine != elf.EM_X86_64:
		return errors.New("it is not for amd64")
	case f.Type != elf.ET_REL:
		return errors.New("it is not a relocatable file")
	case len(f.Sections) > MaxSections:
		return errors.New("it has too many sections")
	}
	r.elf = f
	if err := r.readSections(); err != nil {
		return err
	}
	if err := r.readSymbols(); err != nil {
		return err
	}
	return r.readRelocs()
}

func (r *reader) readSections() error {
	r.sections = make([]*Section, len(r.elf.Sections))
	total := uint64(0)
	for i, s := range r.elf.Sections {
		switch s.Type {
		case elf.SHT_NULL, elf.SHT_SYMTAB, elf.SHT_STRTAB:
			continue
		case elf.SHT_REL, elf.SHT_SYMTAB_SHNDX, elf.SHT_DYNSYM:
			return fmt.Errorf("sections of type %s are not supported", s.Type)
		case elf.SHT_GROUP:
			return errors.New("it has groups of sections, which may only be linked once")
		}
		if total += s.FileSize; s.FileSize > MaxBytes || total > MaxBytes || s.Size > MaxBytes {
			return errors.New("its sections are too large")
		}
		if s.Addralign > MaxAlign || s.Flags&elf.SHF_COMPRESSED != 0 {
			return fmt.Errorf("section %s is compressed or badly aligned", s.Name)
		}
		x := &Section{Name: s.Name, Type: s.Type, Flags: s.Flags, Align: s.Addralign, EntrySize: s.Entsize, Size: s.Size}
		if s.Type != elf.SHT_NOBITS {
			b, err := s.Data()
			if err != nil {
				return fmt.Errorf("section %s: %w", s.Name, err)
			}
			x.Data = b
		}
		r.sections[i] = x
		r.file.Sections = append(r.file.Sections, x)
	}
	for i, s := range r.elf.Sections {
		if r.sections[i] != nil && s.Flags&elf.SHF_LINK_ORDER != 0 {
			if r.sections[i].Link = r.at(s.Link); r.sections[i].Link == nil {
				return fmt.Errorf("section %s is linked to none", s.Name)
			}
		}
	}
	return nil
}

func (r *reader) at(number uint32) *Section {
	if int64(number) >= int64(len(r.sections)) {
		return nil
	}
	return r.sections[number]
}

func (r *reader) readSymbols() error {
	list, err := r.elf.Symbols()
	if errors.Is(err, elf.ErrNoSymbols) {
		list, err = nil, nil
	}
	if err != nil {
		return err
	}
	if len(list) > MaxSymbols {
		return errors.New("it has too many symbols")
	}
	r.symbols = make([]*Symbol, 1, len(list)+1)
	for _, s := range list {
		y := &Symbol{
			Name: s.Name, Value: s.Value, Size: s.Size,
			Type: elf.ST_TYPE(s.Info), Bind: elf.ST_BIND(s.Info), Vis: elf.ST_VISIBILITY(s.Other),
		}
		switch {
		case s.Section == elf.SHN_UNDEF || s.Section >= elf.SHN_LORESERVE:
			y.Index = s.Section
		default:
			if y.Section = r.at(uint32(s.Section)); y.Section == nil {
				return fmt.Errorf("symbol %q lies in an unknown section", s.Name)
			}
		}
		r.symbols = append(r.symbols, y)
	}
	r.file.Symbols = slices.Clone(r.symbols[1:])
	return nil
}

const relaSize = 24

func (r *reader) readRelocs() error {
	total := 0
	for i, s := range r.elf.Sections {
		x := r.sections[i]
		if s.Type != elf.SHT_RELA {
			continue
		}
		if x.Target = r.at(s.Info); x.Target == nil || x.Target.Type == elf.SHT_RELA {
			return fmt.Errorf("section %s fills an unknown section", s.Name)
		}
		if total += len(x.Data) / relaSize; total > MaxRelocs || len(x.Data)%relaSize != 0 {
			return fmt.Errorf("section %s has too many relocations, or half of one", s.Name)
		}
		for b := x.Data; len(b) > 0; b = b[relaSize:] {
			info := binary.LittleEndian.Uint64(b[8:])
			c := Reloc{Off: binary.LittleEndian.Uint64(b), Type: elf.R_X86_64(uint32(info)), Addend: int64(binary.LittleEndian.Uint64(b[16:]))}
			if info>>32 >= uint64(len(r.symbols)) || c.Off > x.Target.Size {
				return fmt.Errorf("a relocation of %s is out of range", x.Target.Name)
			}
			c.Symbol = r.symbols[info>>32]
			x.Relocs = append(x.Relocs, c)
		}
		x.Data = nil
	}
	return nil
}
