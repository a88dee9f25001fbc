package object

import (
	"debug/elf"
	"encoding/binary"
)

// Threads says how a binary reaches thread-local variables: its own ones by
// their offset in the block that each thread has of them, all through slots
// that the dynamic loader fills.
type Threads struct {
	size, align uint64 // of the block
	tpoff       map[threadKey]uint64
	pairs       map[threadKey]uint64
	module      []uint64          // slots of the binary's own module number
	offsets     map[uint64]uint64 // what loader and linker put behind a module number
	names       map[uint64]string // the same by name
}

// threadKey is a variable by name, or one of the binary's own by offset.
type threadKey struct {
	name string
	off  uint64
}

func newThreads() Threads {
	return Threads{tpoff: map[threadKey]uint64{}, pairs: map[threadKey]uint64{}, offsets: map[uint64]uint64{}, names: map[uint64]string{}}
}

// addThreadSlot notes a slot that the loader fills for the variable called
// name, or for one of the binary's own when name is empty.
func (b *Binary) addThreadSlot(name string, r Reloc) {
	t := &b.Threads
	key := threadKey{name: name}
	switch r.Type {
	case elf.R_X86_64_TPOFF64:
		key.off = uint64(r.Addend)
		t.tpoff[key] = r.Off
	case elf.R_X86_64_DTPMOD64:
		if name != "" {
			t.names[r.Off] = name
			return
		}
		t.module = append(t.module, r.Off)
	case elf.R_X86_64_DTPOFF64:
		// Such a slot follows that of the module number.
		if name != "" && r.Addend == 0 {
			t.pairs[key] = r.Off - 8
			return
		}
		t.offsets[r.Off] = uint64(r.Addend)
	}
}

// finishThreads joins the module numbers and offsets of the binary's own variables.
func (b *Binary) finishThreads() {
	t := &b.Threads
	for _, at := range t.module {
		off, ok := t.offsets[at+8]
		if !ok {
			stored, read := b.Read(at+8, 8)
			if !read {
				continue
			}
			off = binary.LittleEndian.Uint64(stored)
		}
		t.pairs[threadKey{off: off}] = at
	}
	for key, at := range t.pairs {
		if key.name != "" && t.names[at] != key.name {
			delete(t.pairs, key) // not a pair of one name
		}
	}
}

// OffsetSlot returns the slot that holds the distance of a variable from the
// thread pointer: of the one called name, or when that is empty of the binary's
// own at off.
func (t *Threads) OffsetSlot(name string, off uint64) (addr uint64, ok bool) {
	addr, ok = t.tpoff[threadKey{name, off}]
	return addr, ok
}

// PairSlot returns the pair of slots that __tls_get_addr takes for a variable.
func (t *Threads) PairSlot(name string, off uint64) (addr uint64, ok bool) {
	addr, ok = t.pairs[threadKey{name, off}]
	return addr, ok
}

// FromPointer returns the distance of a program's own variable from the thread
// pointer, which the linker knows; of a library only the loader does.
func (t *Threads) FromPointer(off uint64) int64 {
	if t.align == 0 {
		return 0
	}
	return int64(off) - int64((t.size+t.align-1)&^(t.align-1))
}
