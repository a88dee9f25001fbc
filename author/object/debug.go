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
	Data  *dwarf.Data
	lines map[int][]Line
}

// Line says from which line of the source the code comes that starts at Off of
// its section.
type Line struct {
	Off  uint64
	File string // without its folder
	Line int
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

func (o *Object) readDebug(data []byte) (*Debug, error) {
	d := &Debug{lines: map[int][]Line{}}
	err := guard(o.Path, func() error {
		f, err := open(data)
		if err != nil {
			return err
		}
		if d.Data, err = o.dwarf(f); err != nil {
			return err
		}
		return d.readLines()
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
			d.lines[n] = append(d.lines[n], Line{Off: e.Address - uint64(n)<<sectionShift, File: path.Base(e.File.Name), Line: e.Line})
		}
	}
}

func sortLines(lines map[int][]Line, err error) error {
	for _, list := range lines {
		slices.SortStableFunc(list, func(a, b Line) int { return cmp.Compare(a.Off, b.Off) })
	}
	return err
}
