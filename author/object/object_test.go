package object_test

import (
	"debug/elf"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/object"
)

var library = authortest.Files{"a.c": `
	#include <stdio.h>
	int counter = 3;
	static int table[4];
	static const char *const names[] = {"a", "b"};
	__attribute__((noinline)) static int inner(int x) { return x * table[x & 3]++ + counter; }
	int outer(int x) { puts(names[x & 1]); return inner(x) + 1; }`,
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRead(t *testing.T) {
	dir := authortest.Objects(t, library, append(authortest.Sections(), "-g")...)
	data := read(t, filepath.Join(dir, "a.o"))
	o, err := object.Read("a.o", data)
	if err != nil {
		t.Fatal(err)
	}
	if o.Source != "a.c" || len(o.Compiler) != 1 || o.LTO || o.Unwinds {
		t.Errorf("source %q, compiler %q, LTO %v, unwinds %v", o.Source, o.Compiler, o.LTO, o.Unwinds)
	}
	var functions []string
	for _, f := range o.Functions {
		if !f.Alone {
			t.Errorf("%s is not alone", f.Name)
		}
		functions = append(functions, f.Name)
	}
	slices.Sort(functions)
	if !slices.Equal(functions, []string{"inner", "outer"}) {
		t.Errorf("functions %v", functions)
	}
	classes := map[string]object.Class{}
	for _, s := range o.Sections {
		if s == nil {
			continue
		}
		for _, i := range s.Defs {
			classes[o.Symbols[i].Name] = s.Class
		}
	}
	for name, want := range map[string]object.Class{
		"counter": object.Writable, "table": object.Writable, "names": object.Constant, "inner": object.Code,
	} {
		if classes[name] != want {
			t.Errorf("%s has class %d, want %d", name, classes[name], want)
		}
	}
	if p := object.Producer(data); p == "" {
		t.Error("the debug information names no compiler")
	}
}

func TestReadBinary(t *testing.T) {
	stripped, twin := authortest.Library(t, library)
	b, err := object.ReadBinary("lib", read(t, stripped))
	if err != nil {
		t.Fatal(err)
	}
	names, err := object.ReadBinary("twin", read(t, twin))
	if err != nil {
		t.Fatal(err)
	}
	if b.BuildID != names.BuildID || !b.BuildID.Valid() || !b.Library {
		t.Errorf("build-ids %s and %s", b.BuildID, names.BuildID)
	}
	if len(b.Named) != 0 {
		t.Error("the stripped file has names")
	}
	slot, ok := b.Slots["puts"]
	if !ok || !slot.Lazy || !slot.Code || b.SlotName(slot.Addr) != "puts" {
		t.Errorf("slot of puts: %+v", slot)
	}
	if !slices.Contains(slices.Collect(maps.Values(b.PLT)), "puts") {
		t.Errorf("stubs: %v", b.PLT)
	}
	_, inner := b.Exported["inner"]
	_, puts := b.Exported["puts"]
	if b.Exported["outer"].Type != elf.STT_FUNC || inner || puts || b.Imported["puts"].Version == "" || !slices.Contains(b.Needed, "libc.so.6") {
		t.Errorf("exported: %v", b.Exported)
	}
	named := names.Lookup("inner")
	if len(named) != 1 || named[0].Global || named[0].File != "a.c" || !b.Executable(named[0].Addr) {
		t.Fatalf("inner: %+v", named)
	}
	if code, ok := b.Read(named[0].Addr, named[0].Size); !ok || len(code) != int(named[0].Size) {
		t.Error("inner has no code")
	}
	for _, bad := range [][2]uint64{{1 << 40, 1}, {named[0].Addr, 1 << 40}, {^uint64(0), 2}} {
		if _, ok := b.Read(bad[0], bad[1]); ok {
			t.Errorf("bytes at %#x, %d of them", bad[0], bad[1])
		}
	}
}

func TestReadRefuses(t *testing.T) {
	dir := authortest.Objects(t, library)
	stripped, _ := authortest.Library(t, library)
	bare, _ := authortest.Library(t, library, "-Wl,--build-id=none")
	if _, err := object.Read("x", read(t, stripped)); !errors.Is(err, object.ErrFile) {
		t.Errorf("a library as an object: %v", err)
	}
	for name, path := range map[string]string{"an object": filepath.Join(dir, "a.o"), "no build-id": bare} {
		if _, err := object.ReadBinary("x", read(t, path)); !errors.Is(err, object.ErrFile) {
			t.Errorf("%s as a binary: %v", name, err)
		}
	}
}

// FuzzRead feeds damaged files: an error is fine, a panic or endless memory is not.
func FuzzRead(f *testing.F) {
	dir := authortest.Objects(f, library, authortest.Sections()...)
	stripped, twin := authortest.Library(f, library)
	f.Add(read(f, filepath.Join(dir, "a.o")))
	f.Add(read(f, stripped))
	f.Add(read(f, twin))
	f.Fuzz(func(t *testing.T, data []byte) {
		if o, err := object.Read("fuzz", data); err == nil {
			for _, s := range o.Sections {
				if s == nil {
					continue
				}
				for _, r := range s.Relocs {
					if to, at, _ := o.TargetOf(s, r); to != nil {
						o.Covering(to, at)
						o.FunctionAt(to, at)
					}
				}
			}
		}
		if b, err := object.ReadBinary("fuzz", data); err == nil {
			b.Read(0, 16)
			b.Lookup("outer")
		}
		object.Producer(data)
	})
}
