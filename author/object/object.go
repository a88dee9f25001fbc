// Package object reads the ELF files of the author tools: relocatable objects
// that a compiler made, and the linked binary that runs on servers. Files come
// from builds of other people's sources, so everything read is bounded and
// checked; debug/elf does the parsing and its panics become errors.
//
// It states what the files say. It must not compare builds, choose symbols or
// read directories.
package object

import (
	"bytes"
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

// Limits on one file. They are far above what compilers and linkers make.
const (
	MaxBytes    = 512 << 20 // of a file, and of all its loaded sections together
	MaxSections = 60_000    // beside the reserved numbers at 0xff00
	MaxSymbols  = 2_000_000
	MaxRelocs   = 4_000_000
)

// ErrFile is wrapped by the errors of this package.
var ErrFile = errors.New("cannot read the ELF file")

// Class says what a section holds, as far as live patches care.
type Class uint8

// The classes of section.
const (
	Ignored     Class = iota // not loaded, or notes and unwind tables
	Code                     //
	Constant                 // read-only once the program runs
	Merged                   // constants or strings that the linker may merge
	Writable                 //
	ThreadLocal              //
	Initialiser              // run or read only when the file is loaded
)

// Object is one relocatable object. It does not change once read.
type Object struct {
	Path      string     // relative to its tree, with slashes
	Source    string     // name of the source file, or empty
	Sections  []*Section // by section number; nil for what is not loaded
	Symbols   []Symbol   // by symbol number; the first is empty
	Functions []*Function
	Compiler  []string // from .comment
	LTO       bool     // holds intermediate code
	Unwinds   bool     // holds tables of exception handlers, or names of C++
}

// Section is one loaded section of an object.
type Section struct {
	Index   int
	Name    string
	Class   Class
	Strings bool // Merged: NUL-terminated
	Grouped bool // belongs to a COMDAT group
	Entry   uint64
	Align   uint64
	Size    uint64
	Data    []byte  // nil when it is all zero
	Relocs  []Reloc // by rising offset
	Defs    []int   // named functions and variables in it, by rising value

	Functions []*Function // in Code, by rising value

	decode func() ([]insn.Inst, error)
}

// Symbol is one symbol of an object.
type Symbol struct {
	Name    string
	Value   uint64 // offset in the section
	Size    uint64
	Section int // number of a section, or one of the values below
	Type    elf.SymType
	Bind    elf.SymBind
	Vis     elf.SymVis
}

// Values of Symbol.Section that are not the number of a section.
const (
	Undefined = 0
	Absolute  = -1
	Common    = -2
)

// Reloc is one relocation of a section.
type Reloc struct {
	Off    uint64
	Type   elf.R_X86_64
	Symbol int
	Addend int64
}

// Width returns the bytes of the field that the relocation fills.
func (r Reloc) Width() int {
	switch r.Type {
	case elf.R_X86_64_64, elf.R_X86_64_PC64, elf.R_X86_64_DTPOFF64, elf.R_X86_64_TPOFF64,
		elf.R_X86_64_GOTOFF64, elf.R_X86_64_SIZE64, elf.R_X86_64_GOT64, elf.R_X86_64_GOTPC64:
		return 8
	case elf.R_X86_64_16, elf.R_X86_64_PC16:
		return 2
	case elf.R_X86_64_8, elf.R_X86_64_PC8:
		return 1
	case elf.R_X86_64_NONE, elf.R_X86_64_TLSDESC_CALL:
		return 0
	}
	return 4
}

// Function is one function of an object.
type Function struct {
	Name    string
	Symbol  int // that gave the name
	Section *Section
	Alone   bool // its section holds nothing else
}

// Parent returns the function from which the compiler split this one as a cold
// part, or the empty text.
func (f *Function) Parent() string {
	parent, rest, found := strings.Cut(f.Name, ".cold")
	if !found || parent == "" || (rest != "" && rest[0] != '.') {
		return ""
	}
	return parent
}

// Local reports whether other objects cannot name symbol i.
func (o *Object) Local(i int) bool { return o.Symbols[i].Bind == elf.STB_LOCAL }

// SectionOf returns the loaded section that holds symbol i, or nil.
func (o *Object) SectionOf(i int) *Section {
	if n := o.Symbols[i].Section; n > 0 && n < len(o.Sections) {
		return o.Sections[n]
	}
	return nil
}

// Covering returns the named symbol of s whose bytes include off; ok is false
// when there is none.
func (o *Object) Covering(s *Section, off int64) (symbol int, ok bool) {
	for _, i := range s.Defs {
		y := &o.Symbols[i]
		if off >= int64(y.Value) && (off < int64(y.Value+y.Size) || off == int64(y.Value)) {
			return i, true
		}
	}
	// A pointer to just behind the end belongs to the last one.
	for _, i := range s.Defs {
		y := &o.Symbols[i]
		if off == int64(y.Value+y.Size) {
			return i, true
		}
	}
	return 0, false
}

// FunctionAt returns the function of section s that includes off, or nil.
func (o *Object) FunctionAt(s *Section, off int64) *Function {
	var last *Function
	for _, f := range s.Functions {
		if int64(o.Symbols[f.Symbol].Value) <= off {
			last = f
		}
	}
	return last
}

// Read reads a relocatable amd64 object. The error wraps ErrFile.
func Read(path string, data []byte) (*Object, error) {
	o := &Object{Path: path}
	err := guard(path, func() error {
		f, err := open(data)
		if err != nil {
			return err
		}
		if f.Type != elf.ET_REL {
			return errors.New("it is not a relocatable object")
		}
		if err := o.readSymbols(f); err != nil {
			return err
		}
		return o.readSections(f)
	})
	if err != nil {
		return nil, err
	}
	o.findFunctions()
	return o, nil
}

// guard runs read, turns a panic of debug/elf into an error and names the file.
func guard(path string, read func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w %s: it is damaged: %v", ErrFile, path, p)
		}
	}()
	if err := read(); err != nil {
		return fmt.Errorf("%w %s: %w", ErrFile, path, err)
	}
	return nil
}

func open(data []byte) (*elf.File, error) {
	if len(data) > MaxBytes {
		return nil, errors.New("it is too large")
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB || f.Machine != elf.EM_X86_64 {
		return nil, errors.New("it is not for amd64")
	}
	if len(f.Sections) > MaxSections {
		return nil, errors.New("it has too many sections")
	}
	return f, nil
}

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
