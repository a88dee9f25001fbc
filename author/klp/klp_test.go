package klp_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/klp"
	"livemend.dev/livemend/author/relocatable"
)

const source = `
	extern int exported(int), hidden(int), inmodule(int), fromother(int);
	int first(int x) { return exported(x) + hidden(x) + inmodule(x); }
	int second(int x) { return hidden(x) - fromother(x); }
	int (*table[])(int) = { hidden };
`

func compiled(t *testing.T) *relocatable.File {
	t.Helper()
	dir := authortest.Objects(t, authortest.Files{"a.c": source}, append(authortest.Sections(), "-fno-pic", "-g0")...)
	data, err := os.ReadFile(filepath.Join(dir, "a.o"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := relocatable.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func refs() map[string]klp.Ref {
	return map[string]klp.Ref{
		"hidden":    {Object: klp.Vmlinux, Name: "hidden", Position: 2},
		"inmodule":  {Object: "ext4", Name: "static_name", For: "ext4"},
		"fromother": {Object: "jbd2", Name: "fromother", For: "ext4"},
	}
}

// livepatch lists the livepatch relocations that another reader sees: section,
// what it fills, symbol, type and addend.
func livepatch(t *testing.T, data []byte) (relocs, plain []string) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.Sections {
		if s.Type != elf.SHT_RELA {
			continue
		}
		b, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		for ; len(b) > 0; b = b[24:] {
			info := binary.LittleEndian.Uint64(b[8:])
			y := symbols[info>>32-1]
			line := s.Name + " fills " + f.Sections[s.Info].Name + " with " + y.Name + " " + elf.R_X86_64(uint32(info)).String()
			if !strings.HasPrefix(s.Name, ".klp") {
				if y.Section == elf.SHN_UNDEF {
					plain = append(plain, line)
				}
				continue
			}
			if s.Flags != 0x00100000|elf.SHF_ALLOC|elf.SHF_INFO_LINK || s.Entsize != 24 || f.Sections[s.Link].Type != elf.SHT_SYMTAB {
				t.Errorf("%s has flags %v, entries of %d bytes and link %d", s.Name, s.Flags, s.Entsize, s.Link)
			}
			if y.Section != 0xff20 || elf.ST_BIND(y.Info) != elf.STB_GLOBAL {
				t.Errorf("%s is in section %#x, bound %v", y.Name, int(y.Section), elf.ST_BIND(y.Info))
			}
			relocs = append(relocs, line)
		}
	}
	return relocs, plain
}

func TestConvert(t *testing.T) {
	t.Parallel()
	f := compiled(t)
	if err := klp.Convert(f, refs()); err != nil {
		t.Fatal(err)
	}
	data, err := f.Write()
	if err != nil {
		t.Fatal(err)
	}
	relocs, plain := livepatch(t, data)
	want := []string{
		".klp.rela.ext4..text.first fills .text.first with .klp.sym.ext4.static_name,0 R_X86_64_PLT32",
		".klp.rela.vmlinux..text.first fills .text.first with .klp.sym.vmlinux.hidden,2 R_X86_64_PLT32",
		".klp.rela.ext4..text.second fills .text.second with .klp.sym.jbd2.fromother,0 R_X86_64_PLT32",
		".klp.rela.vmlinux..text.second fills .text.second with .klp.sym.vmlinux.hidden,2 R_X86_64_PLT32",
		".klp.rela.vmlinux..data.table fills .data.table with .klp.sym.vmlinux.hidden,2 R_X86_64_64",
	}
	if diff := cmp.Diff(want, relocs); diff != "" {
		t.Errorf("livepatch relocations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{".rela.text.first fills .text.first with exported R_X86_64_PLT32"}, plain); diff != "" {
		t.Errorf("what the module loader resolves (-want +got):\n%s", diff)
	}
}

func TestConvertRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		refs map[string]klp.Ref
	}{
		{"a name that is not there", map[string]klp.Ref{"nowhere": {Object: klp.Vmlinux, Name: "nowhere"}}},
		{"a name that is defined", map[string]klp.Ref{"first": {Object: klp.Vmlinux, Name: "first"}}},
		{"no object", map[string]klp.Ref{"hidden": {Name: "hidden"}}},
		{"an object with a dot", map[string]klp.Ref{"hidden": {Object: "a.b", Name: "hidden"}}},
		{"a long object", map[string]klp.Ref{"hidden": {Object: strings.Repeat("m", 56), Name: "hidden"}}},
		{"a long name", map[string]klp.Ref{"hidden": {Object: klp.Vmlinux, Name: strings.Repeat("n", 128)}}},
		{"a comma", map[string]klp.Ref{"hidden": {Object: klp.Vmlinux, Name: "a,1"}}},
		{"no name", map[string]klp.Ref{"hidden": {Object: klp.Vmlinux}}},
	} {
		if err := klp.Convert(compiled(t), c.refs); !errors.Is(err, klp.ErrConvert) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	f := compiled(t)
	f.Section(".text.first").Flags &^= elf.SHF_ALLOC
	if err := klp.Convert(f, refs()); !errors.Is(err, klp.ErrConvert) {
		t.Errorf("a section that is not loaded: %v", err)
	}
}
