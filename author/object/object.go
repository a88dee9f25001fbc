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
	"debug/elf"
	"errors"
	"fmt"
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

	debug func() (*Debug, error)
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
	// The file's bytes are kept: few objects are touched by a fix, and only
	// their debug information is ever looked at.
	o.debug = sync.OnceValues(func() (*Debug, error) { return o.readDebug(data) })
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
