package relocatable

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
)

const (
	headerSize  = 64
	sectionSize = 64
	symbolSize  = 24
)

// Write returns the bytes of a file with the sections in their order, the local
// symbols in front of the others as the format asks, and the tables at its end.
// The same contents give the same bytes. The error wraps ErrFile.
func (f *File) Write() ([]byte, error) {
	w := &writer{file: f, number: map[*Section]int{}, symbol: map[*Symbol]int{}}
	if err := w.count(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	b, err := w.write()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	return b, nil
}

type writer struct {
	file    *File
	number  map[*Section]int
	symbol  map[*Symbol]int
	ordered []*Symbol
	locals  int // with the empty one
	out     bytes.Buffer
	headers []elf.Section64
}

// count numbers sections and symbols.
func (w *writer) count() error {
	if len(w.file.Sections)+4 > MaxSections || len(w.file.Symbols) > MaxSymbols {
		return fmt.Errorf("%d sections and %d symbols are too many", len(w.file.Sections), len(w.file.Symbols))
	}
	for i, s := range w.file.Sections {
		if w.number[s] != 0 {
			return fmt.Errorf("section %s is there twice", s.Name)
		}
		w.number[s] = i + 1
	}
	for _, local := range []bool{true, false} {
		for _, y := range w.file.Symbols {
			if (y.Bind == elf.STB_LOCAL) != local {
				continue
			}
			if w.symbol[y] != 0 {
				return fmt.Errorf("symbol %q is there twice", y.Name)
			}
			w.ordered = append(w.ordered, y)
			w.symbol[y] = len(w.ordered)
		}
		if local {
			w.locals = len(w.ordered) + 1
		}
	}
	return nil
}

// table is a table of names.
type table struct {
	data []byte
	at   map[string]uint32
}

func newTable() *table { return &table{data: []byte{0}, at: map[string]uint32{"": 0}} }

func (t *table) add(name string) uint32 {
	if at, ok := t.at[name]; ok {
		return at
	}
	at := uint32(len(t.data))
	t.at[name] = at
	t.data = append(append(t.data, name...), 0)
	return at
}

func (w *writer) write() ([]byte, error) {
	names, symbols := newTable(), newTable()
	w.out.Write(make([]byte, headerSize))
	w.headers = append(w.headers, elf.Section64{})
	symtab := len(w.file.Sections) + 1
	for _, s := range w.file.Sections {
		h := elf.Section64{
			Name: names.add(s.Name), Type: uint32(s.Type), Flags: uint64(s.Flags), Addralign: s.Align, Entsize: s.EntrySize, Size: s.Size,
		}
		data := s.Data
		switch {
		case s.Type == elf.SHT_RELA:
			if w.number[s.Target] == 0 {
				return nil, fmt.Errorf("section %s fills one that is not there", s.Name)
			}
			h.Link, h.Info, h.Entsize = uint32(symtab), uint32(w.number[s.Target]), relaSize
			var err error
			if data, err = w.relocs(s); err != nil {
				return nil, err
			}
		case s.Link != nil:
			if h.Link = uint32(w.number[s.Link]); h.Link == 0 {
				return nil, fmt.Errorf("section %s is linked to one that is not there", s.Name)
			}
		}
		if s.Type != elf.SHT_NOBITS {
			h.Size = uint64(len(data))
		}
		w.add(h, data)
	}
	table, err := w.symbols(symbols)
	if err != nil {
		return nil, err
	}
	w.add(elf.Section64{
		Name: names.add(".symtab"), Type: uint32(elf.SHT_SYMTAB), Link: uint32(symtab + 1), Info: uint32(w.locals),
		Addralign: 8, Entsize: symbolSize, Size: uint64(len(table)),
	}, table)
	w.add(elf.Section64{Name: names.add(".strtab"), Type: uint32(elf.SHT_STRTAB), Addralign: 1, Size: uint64(len(symbols.data))}, symbols.data)
	name := names.add(".shstrtab")
	w.add(elf.Section64{Name: name, Type: uint32(elf.SHT_STRTAB), Addralign: 1, Size: uint64(len(names.data))}, names.data)
	return w.finish(), nil
}

// add writes the contents of a section and keeps its header.
func (w *writer) add(h elf.Section64, data []byte) {
	if h.Addralign > 1 {
		over := uint64(w.out.Len()) % h.Addralign
		if over > 0 {
			w.out.Write(make([]byte, h.Addralign-over))
		}
	}
	h.Off = uint64(w.out.Len())
	w.out.Write(data)
	w.headers = append(w.headers, h)
}

func (w *writer) relocs(s *Section) ([]byte, error) {
	out := make([]byte, 0, relaSize*len(s.Relocs))
	for _, r := range s.Relocs {
		number := 0
		if r.Symbol != nil {
			if number = w.symbol[r.Symbol]; number == 0 {
				return nil, fmt.Errorf("a relocation of %s is against symbol %q, which is not there", s.Target.Name, r.Symbol.Name)
			}
		}
		out = binary.LittleEndian.AppendUint64(out, r.Off)
		out = binary.LittleEndian.AppendUint64(out, uint64(number)<<32|uint64(uint32(r.Type)))
		out = binary.LittleEndian.AppendUint64(out, uint64(r.Addend))
	}
	return out, nil
}

func (w *writer) symbols(names *table) ([]byte, error) {
	out := make([]byte, symbolSize, symbolSize*(len(w.ordered)+1))
	for _, y := range w.ordered {
		index := y.Index
		if y.Section != nil {
			if index = elf.SectionIndex(w.number[y.Section]); index == 0 {
				return nil, fmt.Errorf("symbol %q lies in section %s, which is not there", y.Name, y.Section.Name)
			}
		}
		out = binary.LittleEndian.AppendUint32(out, names.add(y.Name))
		out = append(out, elf.ST_INFO(y.Bind, y.Type), byte(y.Vis))
		out = binary.LittleEndian.AppendUint16(out, uint16(index))
		out = binary.LittleEndian.AppendUint64(out, y.Value)
		out = binary.LittleEndian.AppendUint64(out, y.Size)
	}
	return out, nil
}

// finish writes the section headers and the file's own.
func (w *writer) finish() []byte {
	for w.out.Len()%8 != 0 {
		w.out.WriteByte(0)
	}
	head := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Shoff: uint64(w.out.Len()),
		Ehsize: headerSize, Shentsize: sectionSize, Shnum: uint16(len(w.headers)), Shstrndx: uint16(len(w.headers) - 1),
	}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_CLASS], head.Ident[elf.EI_DATA], head.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	for _, h := range w.headers {
		put(&w.out, h)
	}
	var front bytes.Buffer
	put(&front, head)
	b := w.out.Bytes()
	copy(b, front.Bytes())
	return slices.Clone(b)
}

// put writes a structure of fixed size, which cannot fail.
func put(to *bytes.Buffer, v any) { _ = binary.Write(to, binary.LittleEndian, v) }
