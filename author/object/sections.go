package object

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"livemend.dev/livemend/author/insn"
)

func (o *Object) readSymbols(f *elf.File) error {
	list, err := f.Symbols()
	if err != nil {
		return err
	}
	if len(list) > MaxSymbols {
		return errors.New("it has too many symbols")
	}
	o.Symbols = make([]Symbol, 1, len(list)+1)
	for _, s := range list {
		y := Symbol{
			Name: s.Name, Value: s.Value, Size: s.Size,
			Type: elf.ST_TYPE(s.Info), Bind: elf.ST_BIND(s.Info), Vis: elf.ST_VISIBILITY(s.Other),
		}
		if s.Value > MaxBytes || s.Size > math.MaxInt32 {
			return fmt.Errorf("symbol %q is out of range", s.Name)
		}
		switch {
		case s.Section == elf.SHN_ABS:
			y.Section = Absolute
		case s.Section == elf.SHN_COMMON:
			y.Section = Common
		case int(s.Section) < len(f.Sections):
			y.Section = int(s.Section)
		default:
			return fmt.Errorf("symbol %q lies in an unknown section", s.Name)
		}
		if y.Type == elf.STT_FILE && o.Source == "" {
			o.Source = y.Name
		}
		if strings.HasPrefix(y.Name, "_Z") || strings.HasPrefix(y.Name, "__gxx_personality") {
			o.Unwinds = true
		}
		o.Symbols = append(o.Symbols, y)
	}
	return nil
}

func (o *Object) readSections(f *elf.File) error {
	o.Sections = make([]*Section, len(f.Sections))
	total := uint64(0)
	for i, s := range f.Sections {
		switch {
		case strings.HasPrefix(s.Name, ".gnu.lto_"), strings.HasPrefix(s.Name, ".gnu.debuglto_"):
			o.LTO = true
		case s.Name == ".comment":
			b, err := content(s)
			if err != nil {
				return err
			}
			o.Compiler = texts(b)
		case strings.HasPrefix(s.Name, ".gcc_except_table") && s.Size > 0:
			o.Unwinds = true
		}
		if s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		if total += s.Size; s.Size > MaxBytes || total > MaxBytes {
			return errors.New("its sections are too large")
		}
		x := &Section{
			Index: i, Name: s.Name, Class: class(s), Strings: s.Flags&elf.SHF_STRINGS != 0,
			Grouped: s.Flags&elf.SHF_GROUP != 0, Entry: s.Entsize, Align: s.Addralign, Size: s.Size,
		}
		if s.Type != elf.SHT_NOBITS {
			b, err := content(s)
			if err != nil {
				return err
			}
			x.Data = b
		}
		x.decode = sync.OnceValues(func() ([]insn.Inst, error) { return insn.Decode(x.Data) })
		o.Sections[i] = x
	}
	if err := o.readRelocs(f); err != nil {
		return err
	}
	for i := 1; i < len(o.Symbols); i++ {
		y := &o.Symbols[i]
		s := o.SectionOf(i)
		if s == nil {
			continue
		}
		if y.Value > s.Size || y.Size > s.Size-y.Value {
			return fmt.Errorf("symbol %q lies outside its section", y.Name)
		}
		if named(y) {
			s.Defs = append(s.Defs, i)
		}
	}
	for _, s := range o.Sections {
		if s != nil {
			slices.SortStableFunc(s.Defs, func(a, b int) int { return cmp.Compare(o.Symbols[a].Value, o.Symbols[b].Value) })
		}
	}
	return nil
}

// named reports whether y names a function or a variable of the source, rather
// than a section, a file or a label.
func named(y *Symbol) bool {
	switch y.Type {
	case elf.STT_FUNC, elf.STT_OBJECT, elf.STT_TLS, elf.STT_GNU_IFUNC:
		return y.Name != ""
	case elf.STT_NOTYPE:
		return y.Name != "" && y.Bind != elf.STB_LOCAL // from assembler sources
	}
	return false
}

func (o *Object) readRelocs(f *elf.File) error {
	total := 0
	for _, s := range f.Sections {
		if s.Type == elf.SHT_REL {
			return errors.New("it has relocations without addends")
		}
		if s.Type != elf.SHT_RELA || int(s.Info) >= len(o.Sections) || o.Sections[s.Info] == nil {
			continue
		}
		to := o.Sections[s.Info]
		b, err := content(s)
		if err != nil {
			return err
		}
		if total += len(b) / relaBytes; total > MaxRelocs {
			return errors.New("it has too many relocations")
		}
		for ; len(b) >= relaBytes; b = b[relaBytes:] {
			r := rela(b)
			if r.Symbol >= len(o.Symbols) || r.Off > to.Size || uint64(r.Width()) > to.Size-r.Off || to.Data == nil {
				return fmt.Errorf("a relocation of %s is out of range", to.Name)
			}
			if r.Addend < -MaxBytes || r.Addend > MaxBytes {
				return fmt.Errorf("a relocation of %s points out of range", to.Name)
			}
			to.Relocs = append(to.Relocs, r)
		}
		slices.SortStableFunc(to.Relocs, func(a, b Reloc) int { return cmp.Compare(a.Off, b.Off) })
	}
	return nil
}

const relaBytes = 24

func rela(b []byte) Reloc {
	info := binary.LittleEndian.Uint64(b[8:])
	return Reloc{
		Off:    binary.LittleEndian.Uint64(b),
		Type:   elf.R_X86_64(uint32(info)),
		Symbol: int(info >> 32),
		Addend: int64(binary.LittleEndian.Uint64(b[16:])),
	}
}

func class(s *elf.Section) Class {
	switch {
	case s.Type == elf.SHT_NOTE, s.Name == ".eh_frame", strings.HasPrefix(s.Name, ".gcc_except_table"):
		return Ignored
	case s.Flags&elf.SHF_EXECINSTR != 0:
		return Code
	case s.Type == elf.SHT_INIT_ARRAY, s.Type == elf.SHT_FINI_ARRAY, s.Type == elf.SHT_PREINIT_ARRAY,
		strings.HasPrefix(s.Name, ".ctors"), strings.HasPrefix(s.Name, ".dtors"):
		return Initialiser
	case s.Flags&elf.SHF_TLS != 0:
		return ThreadLocal
	case strings.HasPrefix(s.Name, ".data.rel.ro"):
		return Constant
	case s.Flags&elf.SHF_WRITE != 0:
		return Writable
	case s.Flags&elf.SHF_MERGE != 0 && s.Entsize > 0:
		return Merged
	}
	return Constant
}

func content(s *elf.Section) ([]byte, error) {
	if s.Flags&elf.SHF_COMPRESSED != 0 {
		return nil, fmt.Errorf("section %s is compressed", s.Name)
	}
	if s.Size > MaxBytes {
		return nil, fmt.Errorf("section %s is too large", s.Name)
	}
	b, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", s.Name, err)
	}
	return b, nil
}

// texts splits NUL-separated texts, each once, in their order.
func texts(b []byte) []string {
	var out []string
	for t := range strings.SplitSeq(string(b), "\x00") {
		if t != "" && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

// findFunctions names what the code sections hold. Of several names for one
// place the one in the section's own name counts, then the global one.
func (o *Object) findFunctions() {
	for _, s := range o.Sections {
		if s == nil || s.Class != Code {
			continue
		}
		for _, i := range s.Defs {
			if n := len(s.Functions); n > 0 && o.Symbols[s.Functions[n-1].Symbol].Value == o.Symbols[i].Value {
				if last := s.Functions[n-1]; o.better(s, i, last.Symbol) {
					last.Name, last.Symbol = o.Symbols[i].Name, i
				}
				continue
			}
			s.Functions = append(s.Functions, &Function{Name: o.Symbols[i].Name, Symbol: i, Section: s})
		}
		if f := s.Functions; len(f) == 1 && o.Symbols[f[0].Symbol].Value == 0 {
			f[0].Alone = true
		}
		o.Functions = append(o.Functions, s.Functions...)
	}
}

func (o *Object) better(s *Section, a, b int) bool {
	own := func(i int) bool { return strings.HasSuffix(s.Name, "."+o.Symbols[i].Name) }
	if own(a) != own(b) {
		return own(a)
	}
	return o.Local(b) && !o.Local(a)
}
