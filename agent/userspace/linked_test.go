package userspace

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/patch/image"
)

// fake is the memory of a process that was made up: pieces at addresses.
type fake map[uint64][]byte

func (f fake) ReadAt(b []byte, addr int64) (int, error) {
	for at, piece := range f {
		if off := uint64(addr) - at; uint64(addr) >= at && off <= uint64(len(piece)) && uint64(len(b)) <= uint64(len(piece))-off {
			return copy(b, piece[off:]), nil
		}
	}
	return 0, unix.EIO
}

const (
	fakeProgram = 0x555500000000
	fakeLibrary = 0x7f0000000000
	fakeLinks   = 0x7f1000000000
)

// fakeProcess loads a program and a library, and lists them as a loader does.
func fakeProcess(t testing.TB, program, library string) (*memory, fake) {
	t.Helper()
	f := fake{}
	m := &memory{ReaderAt: f}
	le := binary.LittleEndian
	links := make([]byte, pageSize)
	for i, path := range []string{program, library} {
		base := []uint64{fakeProgram, fakeLibrary}[i]
		file, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var lay []byte
		var dynamic uint64
		for _, p := range file.Progs {
			if p.Type == elf.PT_DYNAMIC {
				dynamic = p.Vaddr
			}
			if p.Type != elf.PT_LOAD {
				continue
			}
			lay = append(lay, make([]byte, max(0, (int(p.Vaddr+p.Memsz)+4095)&^4095-len(lay)))...)
			if _, err := p.ReadAt(lay[p.Vaddr:p.Vaddr+p.Filesz], 0); err != nil {
				t.Fatal(err)
			}
			m.maps = append(m.maps, mapping{
				start: base + p.Vaddr&^4095, end: base + (p.Vaddr+p.Memsz+4095)&^4095, off: p.Off &^ 4095,
				prot: protRead | prot(p.Flags&elf.PF_X)<<2, kind: kindFile, file: fileKey{1, uint64(i + 1)},
			})
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		for at := dynamic; le.Uint64(lay[at:]) != dynNull; at += 16 {
			if le.Uint64(lay[at:]) == dynDebug {
				le.PutUint64(lay[at+8:], fakeLinks)
			}
		}
		f[base] = lay
		link := links[64+64*i:]
		le.PutUint64(link[linkAddr:], base)
		le.PutUint64(link[linkName:], fakeLinks+200)
		le.PutUint64(link[linkDynamic:], base+dynamic)
		if i == 0 {
			le.PutUint64(link[linkNext:], fakeLinks+128)
		}
	}
	le.PutUint32(links, 1)
	le.PutUint64(links[debugMap:], fakeLinks+64)
	copy(links[200:], "/lib/any")
	f[fakeLinks] = links
	return m, f
}

var fakeImports = []image.Import{
	{Name: "f1", Kind: image.Function},
	{Name: "seen", Kind: image.Data},
	{Name: "absent", Version: "V_1", Kind: image.Function},
}

// resolve looks everything up.
func (m *memory) resolve() (found []uint64, err error) {
	list, err := m.links()
	if err != nil {
		return nil, err
	}
	for _, want := range fakeImports {
		at, err := m.address(list, scope(list, fakeLibrary), want)
		if err != nil {
			return found, err
		}
		found = append(found, at)
	}
	return found, nil
}

func TestLookup(t *testing.T) {
	m, _ := fakeProcess(t, hostPath, libPath)
	found, err := m.resolve()
	var r *refusal
	if !errors.As(err, &r) || len(found) != 2 {
		t.Fatalf("%#x, %v", found, err)
	}
	for i, at := range found {
		if want, _ := symbol(t, libPath, fakeImports[i].Name); at != fakeLibrary+want {
			t.Errorf("%s at %#x, want %#x", fakeImports[i].Name, at, fakeLibrary+want)
		}
	}
}

func TestLookupWhileLoading(t *testing.T) {
	m, f := fakeProcess(t, hostPath, libPath)
	f[fakeLinks][debugState] = 1
	var busy *busyError
	if _, err := m.resolve(); !errors.As(err, &busy) {
		t.Errorf("while the loader works: %v", err)
	}
	f[fakeLinks][debugState] = 0
	copy(f[fakeLinks][128+linkNext:], f[fakeLinks][64+linkNext:64+linkNext+8])
	if _, err := m.resolve(); !errors.As(err, &busy) {
		t.Errorf("a list without an end: %v", err)
	}
}

func TestScope(t *testing.T) {
	object := func(bias uint64, name string, needed ...string) *linked {
		return &linked{bias: bias, name: name, needed: needed}
	}
	list := []*linked{
		object(1, "program", "a.so", "c.so"), object(2, "preloaded.so", "c.so"), object(3, "a.so", "c.so"), object(4, "c.so"),
		object(5, "plugin.so", "c.so"), object(6, "late.so", "own.so", "c.so"), object(7, "own.so"),
	}
	for _, c := range []struct {
		bias uint64
		want []uint64
	}{
		{3, []uint64{1, 2, 3, 4}},
		{6, []uint64{1, 2, 3, 4, 6, 7}},
		{9, nil},
	} {
		var got []uint64
		for _, o := range scope(list, c.bias) {
			got = append(got, o.bias)
		}
		if len(got) != len(c.want) {
			t.Fatalf("of %d: %v, want %v", c.bias, got, c.want)
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("of %d: %v, want %v", c.bias, got, c.want)
			}
		}
	}
}

// FuzzLookup spoils bytes of the process: where, and what to put there.
func FuzzLookup(f *testing.F) {
	m, memory := fakeProcess(f, hostPath, libPath)
	f.Add([]byte{})
	f.Add([]byte{2, 0, 0, 72, 1})
	f.Add([]byte{1, 0, 2, 0xe0, 0xff, 1, 0, 2, 0xe8, 0xff})
	f.Fuzz(func(t *testing.T, edits []byte) {
		bases := []uint64{fakeProgram, fakeLibrary, fakeLinks}
		type undo struct {
			at *byte
			is byte
		}
		var back []undo
		for ; len(edits) >= 5; edits = edits[5:] {
			piece := memory[bases[int(edits[0])%len(bases)]]
			at := &piece[(int(edits[1])<<16|int(edits[2])<<8|int(edits[3]))%len(piece)]
			back = append(back, undo{at, *at})
			*at = edits[4]
		}
		found, err := m.resolve()
		if len(found) > 0 && !m.allows(found[0], protExec) {
			t.Errorf("a function at %#x, which is no code (%v)", found[0], err)
		}
		for i := len(back) - 1; i >= 0; i-- {
			*back[i].at = back[i].is
		}
	})
}
