package relocatable_test

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/relocatable"
)

const source = `
	extern int other(const char *);
	static int counter = 3;
	static int zero[100];
	static int local(int x) { return other("text") + x + counter++ + zero[x]; }
	int (*table[])(int) = { local, 0 };
	int global(int x) { return local(x) * 2; }
`

func compiled(t testing.TB, flags ...string) []byte {
	t.Helper()
	dir := authortest.Objects(t, authortest.Files{"a.c": source}, append(authortest.Sections(), flags...)...)
	data, err := os.ReadFile(filepath.Join(dir, "a.o"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// contents lists what another reader sees in a file.
func contents(t *testing.T, data []byte) (sections, symbols []string, bodies map[string][]byte) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	bodies = map[string][]byte{}
	for _, s := range f.Sections {
		if s.Type == elf.SHT_NULL || s.Type == elf.SHT_SYMTAB || s.Type == elf.SHT_STRTAB {
			continue
		}
		sections = append(sections, s.Name+" "+s.Type.String()+" "+s.Flags.String())
		if s.Type != elf.SHT_RELA && s.Type != elf.SHT_NOBITS {
			if bodies[s.Name], err = s.Data(); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, y := range list {
		where := y.Section.String()
		if int(y.Section) < len(f.Sections) {
			where = f.Sections[y.Section].Name
		}
		symbols = append(symbols, y.Name+" in "+where+" "+elf.ST_TYPE(y.Info).String()+" "+elf.ST_BIND(y.Info).String())
	}
	return sections, symbols, bodies
}

// What is written is what was read, as another reader sees it, and is read again
// as the same.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	data := compiled(t)
	f, err := relocatable.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	written, err := f.Write()
	if err != nil {
		t.Fatal(err)
	}
	wantSections, wantSymbols, wantBodies := contents(t, data)
	sections, symbols, bodies := contents(t, written)
	if diff := cmp.Diff(wantSections, sections); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantSymbols, symbols); diff != "" {
		t.Errorf("symbols (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantBodies, bodies); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
	g, err := relocatable.Read(written)
	if err != nil {
		t.Fatal(err)
	}
	again, err := g.Write()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(written, again) {
		t.Error("reading and writing again gives other bytes")
	}
	relocs := func(f *relocatable.File) (out []string) {
		for _, s := range f.Sections {
			for _, r := range s.Relocs {
				name := r.Symbol.Name
				if r.Symbol.Section != nil {
					name += " in " + r.Symbol.Section.Name
				}
				out = append(out, s.Target.Name+" "+r.Type.String()+" "+name)
			}
		}
		return out
	}
	if diff := cmp.Diff(relocs(f), relocs(g)); diff != "" || len(relocs(f)) < 6 {
		t.Errorf("relocations (-want +got):\n%s", diff)
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	data := compiled(t)
	for name, b := range map[string][]byte{
		"nothing": nil, "text": []byte("#!/bin/sh\n"), "cut short": data[:len(data)/2],
		"a program": func() []byte { b := bytes.Clone(data); b[16] = byte(elf.ET_EXEC); return b }(),
		"for arm":   func() []byte { b := bytes.Clone(data); b[18] = byte(elf.EM_AARCH64); return b }(),
	} {
		if _, err := relocatable.Read(b); !errors.Is(err, relocatable.ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file whose parts refer to what is not in it is not written.
func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	text := &relocatable.Section{Name: ".text", Type: elf.SHT_PROGBITS}
	rela := &relocatable.Section{Name: ".rela.text", Type: elf.SHT_RELA, Target: text, Relocs: []relocatable.Reloc{{Symbol: &relocatable.Symbol{Name: "x"}}}}
	for name, f := range map[string]*relocatable.File{
		"a symbol of another file":  {Sections: []*relocatable.Section{text, rela}},
		"a section of another file": {Sections: []*relocatable.Section{{Name: ".rela.text", Type: elf.SHT_RELA, Target: text}}},
		"a symbol's section":        {Symbols: []*relocatable.Symbol{{Name: "y", Section: text}}},
		"a section twice":           {Sections: []*relocatable.Section{text, text}},
	} {
		if _, err := f.Write(); !errors.Is(err, relocatable.ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(compiled(f, "-g0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := relocatable.Read(data)
		if err != nil {
			if !errors.Is(err, relocatable.ErrFile) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		if _, err := file.Write(); err != nil && !errors.Is(err, relocatable.ErrFile) {
			t.Errorf("an error of another kind: %v", err)
		}
	})
}
