package userspace

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
)

// Limits on what is read of a process's loaded objects. The loader's own tables
// stay far below; one that passes a limit counts as damaged.
const (
	maxLinked  = 4096 // objects in the loader's list
	maxDynamic = 512  // entries of one dynamic section
	maxNeeded  = 512  // libraries that one object names
	maxPath    = 4096 // bytes of a library's name
)

// Places in the loader's r_debug and link_map (<link.h>), which debuggers rely on.
const (
	debugMap     = 8
	debugState   = 24
	debugBytes   = 40
	linkAddr     = 0
	linkName     = 8
	linkDynamic  = 16
	linkNext     = 24
	linkBytes    = 40
	debugVersion = 2 // the newest that is known
)

// Tags of a dynamic section.
const (
	dynNull       = 0
	dynNeeded     = 1
	dynPLTRelSize = 2
	dynHash       = 4
	dynStrTab     = 5
	dynSymTab     = 6
	dynRela       = 7
	dynRelaSize   = 8
	dynStrSize    = 10
	dynSoname     = 14
	dynDebug      = 21
	dynJmpRel     = 23
	dynGNUHash    = 0x6ffffef5
	dynVerSym     = 0x6ffffff0
	dynVerDef     = 0x6ffffffc
	dynVerNeed    = 0x6ffffffe
	segDynamic    = 2
)

// errLinks says that the loader's tables in the process do not fit together,
// which they do not while it loads or unloads something.
var errLinks = &busyError{"its list of loaded objects is damaged, or is changing"}

// memory is what a process has mapped, to be read as hostile input.
type memory struct {
	io.ReaderAt
	maps []mapping
}

// linked is one object as it lies in a process. Addresses are absolute; zero
// stands for a table that the object has not.
type linked struct {
	file      fileKey
	bias      uint64
	low, high uint64 // everything that the object owns
	dynamic   uint64
	debug     uint64
	name      string   // what others need it as
	needed    []string // without folders
	reached   bool     // by scope

	strtab, strSize, symtab uint64
	gnuHash, hash           uint64
	verSym, verDef, verNeed uint64
	rela, relaSize          uint64
	jmpRel, jmpRelSize      uint64
}

// read fills b from the object's own memory.
func (m *memory) read(o *linked, at uint64, b []byte) error {
	if at < o.low || at > o.high || uint64(len(b)) > o.high-at {
		return errLinks
	}
	return m.bytes(at, b)
}

// bytes fills b from anywhere.
func (m *memory) bytes(at uint64, b []byte) error {
	if at >= addressLimit {
		return errLinks
	}
	if _, err := m.ReadAt(b, int64(at)); err != nil {
		if err == errEnded {
			return err
		}
		return errLinks
	}
	return nil
}

// text reads a text that ends with a zero byte.
func (m *memory) text(at uint64) (string, error) {
	var out []byte
	for len(out) < maxPath {
		// Not over the edge of a page, behind which there may be nothing.
		b := make([]byte, min(64, pageSize-at%pageSize))
		if err := m.bytes(at, b); err != nil {
			return "", err
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return string(append(out, b[:i]...)), nil
		}
		out, at = append(out, b...), at+uint64(len(b))
	}
	return "", errLinks
}

// object reads the headers of the file that is mapped from its start at m.
func (m *memory) object(at *mapping) (*linked, error) {
	var head [elfHeaderSize]byte
	if err := m.bytes(at.start, head[:]); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	n, off := int(le.Uint16(head[56:])), le.Uint64(head[32:])
	if string(head[:7]) != "\x7fELF\x02\x01\x01" || le.Uint16(head[18:]) != elfMachineAMD64 || le.Uint16(head[54:]) != elfPhdrSize ||
		n == 0 || n > maxSegments || off > pageSize || off+uint64(n)*elfPhdrSize > at.end-at.start {
		return nil, errNotELF
	}
	table := make([]byte, n*elfPhdrSize)
	if err := m.bytes(at.start+off, table); err != nil {
		return nil, err
	}
	f := object{low: addressLimit}
	var dynamic, size uint64
	for ; len(table) > 0; table = table[elfPhdrSize:] {
		switch le.Uint32(table) {
		case segLoad:
			if err := f.addLoad(table); err != nil {
				return nil, err
			}
		case segDynamic:
			dynamic, size = le.Uint64(table[16:]), le.Uint64(table[40:])
		}
	}
	if len(f.loads) == 0 || dynamic < f.low || dynamic >= f.high || f.loads[0].off >= pageSize || at.start < f.low {
		return nil, errNotELF
	}
	o := &linked{file: at.file, bias: at.start - f.low}
	o.low, o.high, o.dynamic = at.start, o.bias+f.high, o.bias+dynamic
	return o, m.readDynamic(o, min(size/16, maxDynamic))
}

// readDynamic reads where the object's tables are.
func (m *memory) readDynamic(o *linked, n uint64) error {
	table := make([]byte, 16*n)
	if err := m.read(o, o.dynamic, table); err != nil {
		return err
	}
	var soname uint64
	var needed []uint64
	for ; len(table) > 0; table = table[16:] {
		tag, v := word(table, 0), word(table, 1)
		var at *uint64
		switch tag {
		case dynNull:
			table = table[:16]
			continue
		case dynNeeded:
			if len(needed) < maxNeeded {
				needed = append(needed, v)
			}
			continue
		case dynSoname:
			soname = v
			continue
		case dynDebug:
			o.debug = v
			continue
		case dynStrSize:
			o.strSize = v
			continue
		case dynRelaSize:
			o.relaSize = v
			continue
		case dynPLTRelSize:
			o.jmpRelSize = v
			continue
		case dynHash:
			at = &o.hash
		case dynStrTab:
			at = &o.strtab
		case dynSymTab:
			at = &o.symtab
		case dynRela:
			at = &o.rela
		case dynJmpRel:
			at = &o.jmpRel
		case dynGNUHash:
			at = &o.gnuHash
		case dynVerSym:
			at = &o.verSym
		case dynVerDef:
			at = &o.verDef
		case dynVerNeed:
			at = &o.verNeed
		default:
			continue
		}
		// Some loaders turn offsets into addresses where they stand.
		if v < o.low || v >= o.high {
			v += o.bias
		}
		if v < o.low || v >= o.high {
			return errLinks
		}
		*at = v
	}
	var err error
	if soname != 0 {
		if o.name, err = m.string(o, soname); err != nil {
			return err
		}
	}
	for _, v := range needed {
		name, err := m.string(o, v)
		if err != nil {
			return err
		}
		o.needed = append(o.needed, base(name))
	}
	return nil
}

// string reads a text of the object's string table.
func (m *memory) string(o *linked, off uint64) (string, error) {
	if off >= o.strSize || o.strSize >= addressLimit || o.strtab == 0 {
		return "", errLinks
	}
	return m.text(o.strtab + off)
}

// links returns the objects of the process in the order of its loader's list,
// the program first. The kernel's own object is not in it.
func (m *memory) links() ([]*linked, error) {
	var objects []*linked
	var debug uint64
	for i := range m.maps {
		at := &m.maps[i]
		if at.kind != kindFile || at.off != 0 || at.prot&protRead == 0 || len(objects) == maxLinked {
			continue
		}
		o, err := m.object(at)
		if err == errEnded {
			return nil, err
		}
		if err != nil {
			continue // no object, or one that the loader does not know either
		}
		objects = append(objects, o)
		if debug == 0 {
			debug = o.debug // only programs have it
		}
	}
	if debug == 0 {
		return nil, &refusal{"it has no list of loaded objects, in which the patch's imports could be looked up"}
	}
	var head [debugBytes]byte
	if err := m.bytes(debug, head[:]); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if v := le.Uint32(head[:]); v == 0 || v > debugVersion || le.Uint32(head[debugState:]) != 0 {
		return nil, errLinks
	}
	var list []*linked
	next := le.Uint64(head[debugMap:])
	for n := 0; next != 0; n++ {
		var link [linkBytes]byte
		if n == maxLinked {
			return nil, errLinks
		}
		if err := m.bytes(next, link[:]); err != nil {
			return nil, err
		}
		for i, o := range objects {
			if o == nil || o.dynamic != le.Uint64(link[linkDynamic:]) || o.bias != le.Uint64(link[linkAddr:]) {
				continue
			}
			if o.name == "" {
				path, err := m.text(le.Uint64(link[linkName:]))
				if err != nil {
					return nil, err
				}
				o.name = base(path)
			}
			list = append(list, o)
			objects[i] = nil // in the list once
			break
		}
		next = le.Uint64(link[linkNext:])
	}
	if len(list) == 0 {
		return nil, errLinks
	}
	return list, nil
}

// scope returns the objects in which the loader would look for a name that the
// library at bias uses: those that the program was started with, then those
// that the library itself needs. None of them goes away before the library
// does; plug-ins that happen to define the name are not among them.
func scope(list []*linked, bias uint64) []*linked {
	var library *linked
	for _, o := range list {
		if o.reached = false; o.bias == bias {
			library = o
		}
	}
	if library == nil {
		return nil
	}
	// What stands between the program and the first library that it needs was
	// preloaded.
	first := 1
	for first < len(list) && !slices.Contains(list[0].needed, list[first].name) {
		first++
	}
	if first == len(list) {
		first = 1
	}
	reach(list, list[:first:first])
	var out []*linked
	for _, o := range list {
		if o.reached {
			out = append(out, o)
		}
	}
	if !library.reached {
		out = append(out, reach(list, []*linked{library})...)
	}
	return out
}

// reach marks the given objects and all that they need, and returns them in the
// order in which the loader meets them.
func reach(list, from []*linked) []*linked {
	for _, o := range from {
		o.reached = true
	}
	for i := 0; i < len(from); i++ {
		for _, name := range from[i].needed {
			for _, o := range list {
				if o.name != name {
					continue
				}
				if !o.reached {
					o.reached = true
					from = append(from, o)
				}
				break
			}
		}
	}
	return from
}

// base cuts the folders off a path.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
