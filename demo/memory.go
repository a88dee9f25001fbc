package main

import (
	"bufio"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memory is the memory of a process, seen from outside.
type memory struct {
	file *os.File
	maps []mapping
}

type mapping struct {
	start, end, offset uint64
	prot, path         string
}

// openMemory opens the memory of the process with this folder below /proc.
func openMemory(proc string) (*memory, error) {
	text, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err != nil {
		return nil, err
	}
	m := &memory{}
	for s := bufio.NewScanner(strings.NewReader(string(text))); s.Scan(); {
		line, err := parseMapping(s.Text())
		if err != nil {
			return nil, err
		}
		m.maps = append(m.maps, line)
	}
	m.file, err = os.Open(filepath.Join(proc, "mem"))
	return m, err
}

func (m *memory) Close() error { return m.file.Close() }

// parseMapping reads one line of /proc/PID/maps.
func parseMapping(line string) (mapping, error) {
	f := strings.Fields(line)
	if len(f) < 5 {
		return mapping{}, fmt.Errorf("%q is no mapping", line)
	}
	from, to, _ := strings.Cut(f[0], "-")
	start, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	offset, err3 := strconv.ParseUint(f[2], 16, 64)
	return mapping{start, end, offset, f[1], strings.Join(f[5:], " ")}, errors.Join(err1, err2, err3)
}

// base returns where address 0 of a library's file is mapped.
func (m *memory) base(path string) (uint64, error) {
	for _, x := range m.maps {
		if x.path == path && x.offset == 0 {
			return x.start, nil
		}
	}
	return 0, fmt.Errorf("%s is not mapped", path)
}

// find returns the mapping at an address.
func (m *memory) find(at uint64) (mapping, bool) {
	for _, x := range m.maps {
		if x.start <= at && at < x.end {
			return x, true
		}
	}
	return mapping{}, false
}

// jump reads the jump instruction at an address and returns where it goes.
func (m *memory) jump(at uint64) (uint64, error) {
	const opcode, size = 0xe9, 5
	var code [4 + size]byte // an endbr64 may come first
	if _, err := m.file.ReadAt(code[:], int64(at)); err != nil {
		return 0, err
	}
	skip := 0
	if [4]byte(code[:4]) == [4]byte{0xf3, 0x0f, 0x1e, 0xfa} {
		skip = 4
	}
	if code[skip] != opcode {
		return 0, fmt.Errorf("there is no jump at %#x but % x", at, code)
	}
	distance := int32(binary.LittleEndian.Uint32(code[skip+1:]))
	return at + uint64(skip+size) + uint64(int64(distance)), nil
}

// symbol returns the address of a function in a library's file.
func symbol(path, name string) (at uint64, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	symbols, err := f.Symbols()
	if err != nil {
		return 0, err
	}
	for _, s := range symbols {
		if s.Name == name && elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			return s.Value, nil
		}
	}
	return 0, fmt.Errorf("%s has no function %s", filepath.Base(path), name)
}
