package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"livemend.dev/livemend/author/kernel/kallsyms"
	"livemend.dev/livemend/author/klp"
	"livemend.dev/livemend/author/relocatable"
	"livemend.dev/livemend/patch"
)

// stock is a kernel object as it runs on servers: the kernel or one of its
// modules, with the symbols by which the kernel's livepatch code finds things in
// it. A module is given addresses of its own, and so is everything that it
// imports, so that both can be looked at alike.
type stock struct {
	object   string // klp.Vmlinux or the name of the module
	buildID  patch.BuildID
	segments []segment
	symbols  []stockSymbol // in the order of the kernel's table
	byName   map[string][]int
	byAddr   map[uint64][]int
	starts   []uint64 // of all symbols, rising
}

type segment struct {
	addr uint64
	data []byte
}

type stockSymbol struct {
	name     string
	addr     uint64
	size     uint64 // 0 when the table does not say
	global   bool
	imported bool // lies in another object; the address is made up
}

// index makes the lookups after the symbols are there.
func (s *stock) index() {
	s.byName, s.byAddr = map[string][]int{}, map[uint64][]int{}
	for i, y := range s.symbols {
		s.byName[y.name] = append(s.byName[y.name], i)
		s.byAddr[y.addr] = append(s.byAddr[y.addr], i)
		s.starts = append(s.starts, y.addr)
	}
	slices.Sort(s.starts)
	s.starts = slices.Compact(s.starts)
}

// read returns n bytes at addr.
func (s *stock) read(addr, n uint64) ([]byte, bool) {
	for _, g := range s.segments {
		if addr >= g.addr && addr-g.addr < uint64(len(g.data)) && n <= uint64(len(g.data))-(addr-g.addr) {
			return g.data[addr-g.addr:][:n], true
		}
	}
	return nil, false
}

// extent returns the bytes from symbol i to the next one. They may end with
// padding.
func (s *stock) extent(i int) ([]byte, bool) {
	y := s.symbols[i]
	if y.size > 0 {
		return s.read(y.addr, y.size)
	}
	next, _ := slices.BinarySearch(s.starts, y.addr+1)
	if next == len(s.starts) {
		return nil, false
	}
	return s.read(y.addr, s.starts[next]-y.addr)
}

// named reports whether a symbol called name lies at addr, and whether any does.
func (s *stock) named(name string, addr uint64) (same, any bool) {
	for _, i := range s.byAddr[addr] {
		if any = true; s.symbols[i].name == name {
			return true, true
		}
	}
	return false, any
}

// defined returns the symbols called name that lie in the object.
func (s *stock) defined(name string) []int {
	var out []int
	for _, i := range s.byName[name] {
		if !s.symbols[i].imported {
			out = append(out, i)
		}
	}
	return out
}

// position returns how the livepatch code tells the symbol at addr from others
// of its name: 0 when there is one only. ok is false when there is none there.
func (s *stock) position(name string, addr uint64) (n uint, ok bool) {
	all := s.defined(name)
	for at, i := range all {
		if s.symbols[i].addr == addr {
			if len(all) == 1 {
				return 0, true
			}
			return uint(at + 1), true
		}
	}
	return 0, false
}

// maxKernel bounds an unpacked kernel or module, in bytes.
const maxKernel = 512 << 20

// readVmlinux reads the kernel itself.
func readVmlinux(data []byte) (s *stock, err error) {
	defer func() { // debug/elf may panic on damaged files
		if p := recover(); p != nil {
			s, err = nil, fmt.Errorf("the kernel image is damaged: %v", p)
		}
	}()
	if len(data) > maxKernel {
		return nil, errors.New("the kernel image is too large")
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("reading the kernel image: %w", err)
	}
	if f.Machine != elf.EM_X86_64 {
		return nil, errors.New("the kernel image is not for amd64")
	}
	s = &stock{object: klp.Vmlinux}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Off <= uint64(len(data)) && p.Filesz <= uint64(len(data))-p.Off {
			s.segments = append(s.segments, segment{p.Vaddr, data[p.Off:][:p.Filesz]})
		}
	}
	if notes := f.Section(".notes"); notes != nil {
		b, err := notes.Data()
		if err != nil {
			return nil, fmt.Errorf("reading the kernel image: %w", err)
		}
		s.buildID, _ = patch.NoteBuildID(b, notes.Addralign)
	}
	if !s.buildID.Valid() {
		return nil, errors.New("the kernel image has no build-id")
	}
	list, err := kallsyms.Read(data)
	if err != nil {
		return nil, err
	}
	for _, y := range list {
		s.symbols = append(s.symbols, stockSymbol{name: y.Name, addr: y.Addr, global: y.Global()})
	}
	s.index()
	return s, nil
}

// Where modules and what they import are put. The distances fit into 32 bits.
const (
	moduleBase  = 0xffffffffa0000000
	importBase  = 0xffffffffc0000000
	importSpace = 1 << 12
)

// readModule reads a module as it is in a package.
func readModule(name string, data []byte) (*stock, error) {
	f, err := relocatable.Read(data)
	if err != nil {
		return nil, fmt.Errorf("reading module %s: %w", name, err)
	}
	s := &stock{object: name}
	at := map[*relocatable.Section]uint64{}
	content := map[*relocatable.Section][]byte{}
	next := uint64(moduleBase)
	for _, x := range f.Sections {
		if x.Flags&elf.SHF_ALLOC == 0 || x.Type == elf.SHT_RELA {
			continue
		}
		align := max(x.Align, 1)
		next = (next + align - 1) / align * align
		at[x] = next
		next += x.Size
		if x.Type != elf.SHT_NOBITS {
			content[x] = bytes.Clone(x.Data)
			s.segments = append(s.segments, segment{at[x], content[x]})
		}
	}
	address := map[*relocatable.Symbol]uint64{}
	imports := uint64(importBase)
	for _, y := range f.Symbols {
		z := stockSymbol{name: y.Name, size: y.Size, global: y.Bind != elf.STB_LOCAL}
		switch {
		case y.Undefined() && y.Name != "":
			z.addr, z.imported = imports, true
			imports += importSpace
		case y.Section != nil && at[y.Section] != 0:
			z.addr = at[y.Section] + y.Value
		default:
			continue
		}
		address[y] = z.addr
		if y.Name != "" && y.Type != elf.STT_SECTION {
			s.symbols = append(s.symbols, z)
		}
	}
	for _, x := range f.Sections {
		if x.Type == elf.SHT_RELA && content[x.Target] != nil {
			if err := apply(content[x.Target], at[x.Target], x.Relocs, address); err != nil {
				return nil, fmt.Errorf("reading module %s: section %s: %w", name, x.Target.Name, err)
			}
		}
	}
	s.index()
	return s, nil
}

// apply fills fields as the module loader does.
func apply(data []byte, base uint64, relocs []relocatable.Reloc, address map[*relocatable.Symbol]uint64) error {
	for _, r := range relocs {
		value := address[r.Symbol] + uint64(r.Addend)
		width := 4
		switch r.Type {
		case elf.R_X86_64_NONE:
			continue
		case elf.R_X86_64_64:
			width = 8
		case elf.R_X86_64_PC64:
			width, value = 8, value-base-r.Off
		case elf.R_X86_64_PC32, elf.R_X86_64_PLT32:
			value -= base + r.Off
		case elf.R_X86_64_32, elf.R_X86_64_32S:
		default:
			return fmt.Errorf("relocations of type %s are not known in modules", r.Type)
		}
		if r.Off > uint64(len(data)) || uint64(width) > uint64(len(data))-r.Off {
			return errors.New("a relocation is out of range")
		}
		if width == 8 {
			binary.LittleEndian.PutUint64(data[r.Off:], value)
		} else {
			binary.LittleEndian.PutUint32(data[r.Off:], uint32(value))
		}
	}
	return nil
}
