package userspace

import (
	"encoding/binary"

	"livemend.dev/livemend/patch/image"
)

// Limits of the symbol lookup in one process.
const (
	maxChain    = 1 << 12 // symbols with the same hash
	maxVersions = 1 << 12 // versions of one object
	maxSlots    = 1 << 21 // relocations that are looked at for the sake of one name
	slotChunk   = 1 << 10 // relocations read at a time
)

const (
	symBytes  = 24
	relaBytes = 24

	typeNone   = 0
	typeObject = 1
	typeFunc   = 2
	typeCommon = 5
	typeIFunc  = 10

	bindLocal = 0

	sectionNone = 0
	sectionAbs  = 0xfff1

	relocGlobDat   = 6
	relocJumpSlot  = 7
	relocIRelative = 37

	versionHidden = 0x8000
	versionLocal  = 0
	versionBase   = 1
)

// defined is one definition in a dynamic symbol table.
type defined struct {
	owner *linked
	kind  byte
	value uint64 // without the bias
	size  uint64
}

// imports finds the addresses of the names that f wants, in their order.
func (t *target) imports(f *image.File) ([]uint64, error) {
	if len(f.Imports) == 0 {
		return nil, nil
	}
	m := &memory{t.h, t.maps}
	list, err := m.links()
	if err != nil {
		return nil, err
	}
	in := scope(list, t.bias)
	if len(in) == 0 {
		return nil, &refusal{"the library is not in its loader's list, so that the patch's imports cannot be looked up"}
	}
	out := make([]uint64, 0, len(f.Imports))
	for _, want := range f.Imports {
		at, err := m.address(list, in, want)
		if err != nil {
			return nil, err
		}
		out = append(out, at)
	}
	return out, nil
}

// importName names an import for people.
func importName(i image.Import) string {
	if i.Version == "" {
		return i.Name
	}
	return i.Name + "@" + i.Version
}

// address returns where the first object of the scope that defines want has it.
func (m *memory) address(list, in []*linked, want image.Import) (uint64, error) {
	for _, o := range in {
		s, ok, err := m.lookup(o, want)
		if err != nil {
			return 0, err
		}
		if !ok {
			continue
		}
		at := o.bias + s.value
		switch {
		case want.Kind == image.Data:
			if s.kind != typeObject && s.kind != typeCommon && s.kind != typeNone {
				return 0, &refusal{"its " + importName(want) + ", which the patch needs, is not data"}
			}
			if at < o.low || at >= o.high || s.size > o.high-at || !m.allows(at, protRead) {
				return 0, errLinks
			}
			return at, nil
		case s.kind == typeIFunc:
			return m.chosen(list, s, want)
		case s.kind != typeFunc && s.kind != typeNone:
			return 0, &refusal{"its " + importName(want) + ", which the patch needs, is not a function"}
		case !m.runs(o, at):
			return 0, errLinks
		}
		return at, nil
	}
	return 0, &refusal{"no object that it has loaded with the library defines " + importName(want) + ", which the patch needs"}
}

// allows reports whether at is mapped with the protection.
func (m *memory) allows(at uint64, p prot) bool {
	in := find(m.maps, at)
	return in != nil && in.prot&p == p
}

// runs reports whether at is executable memory of the object's file.
func (m *memory) runs(o *linked, at uint64) bool {
	in := find(m.maps, at)
	return in != nil && in.kind == kindFile && in.file == o.file && in.prot&protExec != 0 && at >= o.low && at < o.high
}

// lookup looks for a definition of the name and version in one object.
func (m *memory) lookup(o *linked, want image.Import) (defined, bool, error) {
	if o.gnuHash == 0 || o.symtab == 0 || o.strtab == 0 {
		if o.hash != 0 {
			return defined{}, false, &refusal{"its " + o.name + " has no hash table of the kind that the agent reads"}
		}
		return defined{}, false, nil
	}
	h := uint32(5381)
	for i := range len(want.Name) {
		h = h*33 + uint32(want.Name[i])
	}
	var head [16]byte
	if err := m.read(o, o.gnuHash, head[:]); err != nil {
		return defined{}, false, err
	}
	le := binary.LittleEndian
	buckets, first, bloom, shift := le.Uint32(head[:]), le.Uint32(head[4:]), le.Uint32(head[8:]), le.Uint32(head[12:])
	if buckets == 0 || bloom == 0 {
		return defined{}, false, nil
	}
	filter, err := m.u64(o, o.gnuHash+16+8*uint64(h/64%bloom))
	if err != nil || filter>>(h%64)&1 == 0 || filter>>(h>>(shift%32)%64)&1 == 0 {
		return defined{}, false, err
	}
	table := o.gnuHash + 16 + 8*uint64(bloom)
	i, err := m.u32(o, table+4*uint64(h%buckets))
	if err != nil || i < first {
		return defined{}, false, err
	}
	chain := table + 4*uint64(buckets)
	for range maxChain {
		c, err := m.u32(o, chain+4*uint64(i-first))
		if err != nil {
			return defined{}, false, err
		}
		if c|1 == h|1 {
			s, ok, err := m.define(o, i, want)
			if ok || err != nil {
				return s, ok, err
			}
		}
		if c&1 != 0 {
			return defined{}, false, nil
		}
		if i++; i == 0 {
			break
		}
	}
	return defined{}, false, errLinks
}

// define reports whether symbol i defines the name in a version that a
// reference to want may be bound to.
func (m *memory) define(o *linked, i uint32, want image.Import) (s defined, ok bool, err error) {
	var b [symBytes]byte
	if err := m.read(o, o.symtab+symBytes*uint64(i), b[:]); err != nil {
		return s, false, err
	}
	le := binary.LittleEndian
	section := le.Uint16(b[6:])
	s = defined{owner: o, kind: b[4] & 15, value: le.Uint64(b[8:]), size: le.Uint64(b[16:])}
	if section == sectionNone || section == sectionAbs || b[4]>>4 == bindLocal || s.value == 0 || s.value >= addressLimit {
		return s, false, nil
	}
	if same, err := m.equal(o, uint64(le.Uint32(b[:])), want.Name); err != nil || !same {
		return s, false, err
	}
	if o.verSym == 0 {
		return s, true, nil
	}
	v, err := m.u16(o, o.verSym+2*uint64(i))
	if err != nil {
		return s, false, err
	}
	hidden, n := v&versionHidden != 0, v&^versionHidden
	switch {
	case n == versionLocal:
		return s, false, nil
	case n == versionBase || want.Version == "":
		return s, !hidden, nil
	}
	if ok, err = m.defines(o, n, want.Version); !ok && err == nil {
		// A program's copy of a variable bears the version that it wanted.
		ok, err = m.needs(o, n, want.Version)
	}
	return s, ok, err
}

// defines reports whether version number n of the object is called name.
func (m *memory) defines(o *linked, n uint16, name string) (bool, error) {
	if o.verDef == 0 {
		return false, nil
	}
	at := o.verDef
	for range maxVersions {
		var b [20]byte
		if err := m.read(o, at, b[:]); err != nil {
			return false, err
		}
		le := binary.LittleEndian
		if le.Uint16(b[4:]) == n {
			off, err := m.u32(o, at+uint64(le.Uint32(b[12:])))
			if err != nil {
				return false, err
			}
			return m.equal(o, uint64(off), name)
		}
		next := uint64(le.Uint32(b[16:]))
		if next == 0 {
			return false, nil
		}
		at += next
	}
	return false, errLinks
}

// needs reports whether version number n, which the object wants of another, is
// called name.
func (m *memory) needs(o *linked, n uint16, name string) (bool, error) {
	left := maxVersions
	for at := o.verNeed; at != 0 && left > 0; left-- {
		var b [16]byte
		if err := m.read(o, at, b[:]); err != nil {
			return false, err
		}
		le := binary.LittleEndian
		for aux := at + uint64(le.Uint32(b[8:])); left > 0; left-- {
			var a [16]byte
			if err := m.read(o, aux, a[:]); err != nil {
				return false, err
			}
			if le.Uint16(a[6:])&^versionHidden == n {
				return m.equal(o, uint64(le.Uint32(a[8:])), name)
			}
			next := uint64(le.Uint32(a[12:]))
			if next == 0 {
				break
			}
			aux += next
		}
		next := uint64(le.Uint32(b[12:]))
		if next == 0 {
			return false, nil
		}
		at += next
	}
	return false, nil
}

// chosen returns the implementation that the loader chose for a function with
// several. The function that chooses is never run: the choice stands in the
// slots of those who use the name, and in the owner's own.
func (m *memory) chosen(list []*linked, s defined, want image.Import) (uint64, error) {
	left := maxSlots
	for _, o := range list {
		for _, table := range [...][2]uint64{{o.rela, o.relaSize}, {o.jmpRel, o.jmpRelSize}} {
			at, err := m.chosenIn(o, table[0], table[1]/relaBytes, &left, s, want)
			if at != 0 || err != nil {
				return at, err
			}
		}
	}
	return 0, &refusal{"which implementation of " + importName(want) + " runs in it cannot be told: nothing in it uses the function yet"}
}

func (m *memory) chosenIn(o *linked, at, n uint64, left *int, s defined, want image.Import) (uint64, error) {
	if at == 0 {
		return 0, nil
	}
	if n > uint64(*left) {
		return 0, nil // another object may tell
	}
	*left -= int(n)
	chunk := make([]byte, min(n, slotChunk)*relaBytes)
	for ; n > 0; n -= min(n, slotChunk) {
		part := chunk[:min(n, slotChunk)*relaBytes]
		if err := m.read(o, at, part); err != nil {
			return 0, err
		}
		at += uint64(len(part))
		for ; len(part) > 0; part = part[relaBytes:] {
			info := word(part, 1)
			switch uint32(info) {
			case relocIRelative:
				if o != s.owner || word(part, 2) != s.value {
					continue
				}
			case relocGlobDat, relocJumpSlot:
				// The owner's own may still lead to a stub of it.
				if o == s.owner {
					continue
				}
				if same, err := m.uses(o, info>>32, want); err != nil || !same {
					if err != nil {
						return 0, err
					}
					continue
				}
			default:
				continue
			}
			v, err := m.u64(o, o.bias+word(part, 0))
			if err != nil {
				return 0, err
			}
			if m.runs(s.owner, v) && v != s.owner.bias+s.value {
				return v, nil
			}
		}
	}
	return 0, nil
}

// uses reports whether symbol i of o is a use of exactly want.
func (m *memory) uses(o *linked, i uint64, want image.Import) (bool, error) {
	if o.symtab == 0 || o.strtab == 0 {
		return false, nil
	}
	var b [symBytes]byte
	if err := m.read(o, o.symtab+symBytes*i, b[:]); err != nil {
		return false, err
	}
	le := binary.LittleEndian
	if le.Uint16(b[6:]) != sectionNone {
		return false, nil
	}
	if same, err := m.equal(o, uint64(le.Uint32(b[:])), want.Name); err != nil || !same {
		return false, err
	}
	if o.verSym == 0 {
		return want.Version == "", nil
	}
	v, err := m.u16(o, o.verSym+2*i)
	if err != nil {
		return false, err
	}
	if v &^= versionHidden; v <= versionBase {
		return want.Version == "", nil
	}
	return m.needs(o, v, want.Version)
}

// equal compares a text of the object's string table with s.
func (m *memory) equal(o *linked, off uint64, s string) (bool, error) {
	if off >= o.strSize || uint64(len(s)) >= o.strSize-off {
		return false, nil
	}
	b := make([]byte, len(s)+1)
	if err := m.read(o, o.strtab+off, b); err != nil {
		return false, err
	}
	return string(b[:len(s)]) == s && b[len(s)] == 0, nil
}

func (m *memory) u16(o *linked, at uint64) (uint16, error) {
	var b [2]byte
	err := m.read(o, at, b[:])
	return binary.LittleEndian.Uint16(b[:]), err
}

func (m *memory) u32(o *linked, at uint64) (uint32, error) {
	var b [4]byte
	err := m.read(o, at, b[:])
	return binary.LittleEndian.Uint32(b[:]), err
}

func (m *memory) u64(o *linked, at uint64) (uint64, error) {
	var b [8]byte
	err := m.read(o, at, b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

// standing returns the addresses that the image at c holds for the imports of
// f. ok is false when they cannot be what the agent put there: not all slots of
// a name agree, or one leads nowhere.
func (t *target) standing(c *carrier, f *image.File) (at []uint64, ok bool, err error) {
	at = make([]uint64, len(f.Imports))
	for _, r := range f.Relocs {
		if r.Base != image.Imported || at[r.Addend] != 0 {
			continue // the other slots are compared with the first
		}
		var b [8]byte
		if _, err := t.h.ReadAt(b[:], int64(c.image+uint64(r.Off))); err != nil {
			return nil, false, err
		}
		v, p := word(b[:], 0), protRead
		if f.Imports[r.Addend].Kind == image.Function {
			p = protExec
		}
		if m := find(t.maps, v); m == nil || m.prot&p == 0 {
			return nil, false, nil
		}
		at[r.Addend] = v
	}
	return at, true, nil
}
