package object

import (
	"cmp"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Limits on the debug information of one object.
const (
	maxLines = 16_000_000
	maxUnits = 100_000
)

// ErrNoDebug is wrapped when an object has no debug information that can be
// used.
var ErrNoDebug = errors.New("there is no debug information")

// Debug is the debug information of one object. Addresses of code in it are
// those that CodeAddress gives, so that each section keeps a range of its own.
type Debug struct {
	Data    *dwarf.Data
	lines   map[int][]Line
	sources map[string][]definition // by file, by rising line
}

// definition is where a function of the source begins.
type definition struct {
	line int
	name string
}

// Line says from which line of the source the code comes that starts at Off of
// its section.
type Line struct {
	Off    uint64
	File   string // without its folder
	Line   int
	Column int // 0 when the compiler does not say
}

// sectionShift keeps the addresses of sections apart; no section is as large.
const sectionShift = 32

// CodeAddress returns the address that debug information gives offset off of
// section s.
func CodeAddress(s *Section, off uint64) uint64 { return uint64(s.Index)<<sectionShift + off }

// SectionAt returns the number of the section that holds an address of debug
// information.
func SectionAt(addr uint64) int { return int(addr >> sectionShift) }

// Debug returns the object's debug information. The work is done once. The
// error wraps ErrNoDebug when there is none, else ErrFile.
func (o *Object) Debug() (*Debug, error) {
	if o.debug == nil {
		return nil, ErrNoDebug
	}
	return o.debug()
}

// Lines returns where the code of section s comes from, by rising offset; rows
// for one offset stay in the compiler's order.
func (d *Debug) Lines(s *Section) []Line { return d.lines[s.Index] }

// LineAt returns where the code at offset off of section s comes from.
func (d *Debug) LineAt(s *Section, off uint64) (Line, bool) {
	rows := d.lines[s.Index]
	i, _ := slices.BinarySearchFunc(rows, off+1, func(l Line, off uint64) int { return cmp.Compare(l.Off, off) })
	if i == 0 {
		return Line{}, false
	}
	return rows[i-1], true
}

// SourceFunction returns the name of the function of the source that holds a
// line, whatever the compiler made of it; empty when none begins before it.
func (d *Debug) SourceFunction(l Line) string {
	list := d.sources[l.File]
	i, _ := slices.BinarySearchFunc(list, l.Line+1, func(f definition, line int) int { return cmp.Compare(f.line, line) })
	if i == 0 {
		return ""
	}
	return list[i-1].name
}

func (o *Object) readDebug(data []byte) (*Debug, error) {
	d := &Debug{lines: map[int][]Line{}, sources: map[string][]definition{}}
	err := guard(o.Path, func() error {
		f, err := open(data)
		if err != nil {
			return err
		}
		if d.Data, err = o.dwarf(f); err != nil {
			return err
		}
		if err := d.readLines(); err != nil {
			return err
		}
		return d.readSources()
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// dwarf reads the debug sections of f and fills their relocations. debug/elf
// would give the code of every section the address 0.
func (o *Object) dwarf(f *elf.File) (*dwarf.Data, error) {
	parts := map[string][]byte{}
	total := uint64(0)
	for i, s := range f.Sections {
		name, found := strings.CutPrefix(s.Name, ".debug_")
		if !found || s.Type == elf.SHT_RELA || name == "macro" {
			continue
		}
		if name == "types" || parts[name] != nil {
			return nil, fmt.Errorf("%w in one piece; build without -fdebug-types-section", ErrNoDebug)
		}
		if total += s.Size; s.Size > MaxBytes || total > MaxBytes {
			return nil, errors.New("its debug information is too large")
		}
		b, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("section %s: %w", s.Name, err)
		}
		b = slices.Clone(b)
		if err := o.fill(f, i, b); err != nil {
			return nil, fmt.Errorf("section %s: %w", s.Name, err)
		}
		parts[name] = b
	}
	if len(parts["info"]) == 0 {
		return nil, fmt.Errorf("%w; build with -g", ErrNoDebug)
	}
	d, err := dwarf.New(parts["abbrev"], nil, nil, parts["info"], parts["line"], nil, parts["ranges"], parts["str"])
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"addr", "line_str", "str_offsets", "rnglists"} {
		if parts[name] == nil {
			continue
		}
		if err := d.AddSection(".debug_"+name, parts[name]); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// fill applies the relocations of debug section number to.
func (o *Object) fill(f *elf.File, to int, b []byte) error {
	for _, s := range f.Sections {
		if s.Type != elf.SHT_RELA || int(s.Info) != to {
			continue
		}
		list, err := content(s)
		if err != nil {
			return err
		}
		for ; len(list) >= relaBytes; list = list[relaBytes:] {
			r := rela(list)
			if r.Symbol >= len(o.Symbols) || r.Off > uint64(len(b)) || uint64(r.Width()) > uint64(len(b))-r.Off {
				return errors.New("a relocation is out of range")
			}
			value := o.Symbols[r.Symbol].Value + uint64(r.Addend)
			if at := o.SectionOf(r.Symbol); at != nil {
				value = CodeAddress(at, value)
			}
			switch r.Type {
			case elf.R_X86_64_64:
				binary.LittleEndian.PutUint64(b[r.Off:], value)
			case elf.R_X86_64_32:
				binary.LittleEndian.PutUint32(b[r.Off:], uint32(value))
			case elf.R_X86_64_NONE, elf.R_X86_64_DTPOFF32, elf.R_X86_64_DTPOFF64: // places of thread-local variables
			default:
				return fmt.Errorf("relocations of type %s are not known there", r.Type)
			}
		}
	}
	return nil
}

func (d *Debug) readLines() error {
	r := d.Data.Reader()
	rows := 0
	for units := 0; ; units++ {
		unit, err := r.Next()
		if err != nil || unit == nil {
			return sortLines(d.lines, err)
		}
		if units == maxUnits {
			return errors.New("its debug information has too many units")
		}
		r.SkipChildren()
		lines, err := d.Data.LineReader(unit)
		if err != nil {
			return err
		}
		if lines == nil {
			continue
		}
		for {
			var e dwarf.LineEntry
			err := lines.Next(&e)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if rows++; rows > maxLines {
				return errors.New("its debug information has too many lines")
			}
			if e.EndSequence || e.File == nil {
				continue
			}
			n := SectionAt(e.Address)
			d.lines[n] = append(d.lines[n], Line{Off: e.Address - uint64(n)<<sectionShift, File: path.Base(e.File.Name), Line: e.Line, Column: e.Column})
		}
	}
}

// readSources lists the functions that the source defines, inline ones included.
func (d *Debug) readSources() error {
	r := d.Data.Reader()
	var files []*dwarf.LineFile
	for {
		e, err := r.Next()
		if err != nil || e == nil {
			for _, list := range d.sources {
				slices.SortStableFunc(list, func(a, b definition) int { return cmp.Compare(a.line, b.line) })
			}
			return err
		}
		switch e.Tag {
		case dwarf.TagCompileUnit:
			files = nil
			if lines, err := d.Data.LineReader(e); err != nil {
				return err
			} else if lines != nil {
				files = lines.Files()
			}
		case dwarf.TagSubprogram:
			r.SkipChildren()
			file, inFile := e.Val(dwarf.AttrDeclFile).(int64)
			line, onLine := e.Val(dwarf.AttrDeclLine).(int64)
			name, named := e.Val(dwarf.AttrName).(string)
			if _, only := e.Val(dwarf.AttrDeclaration).(bool); only || !inFile || !onLine || !named || file < 0 || file >= int64(len(files)) || files[file] == nil {
				continue
			}
			at := path.Base(files[file].Name)
			d.sources[at] = append(d.sources[at], definition{int(line), name})
		default:
			if e.Tag != dwarf.TagNamespace {
				r.SkipChildren()
			}
		}
	}
}

func sortLines(lines map[int][]Line, err error) error {
	for _, list := range lines {
		slices.SortStableFunc(list, func(a, b Line) int { return cmp.Compare(a.Off, b.Off) })
	}
	return err
}
