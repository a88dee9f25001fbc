package layout_test

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/layout"
	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
)

// FuzzCheck puts any bytes in the place of debug information: the check ends
// with an answer, and the same one each time.
func FuzzCheck(f *testing.F) {
	read := func(text string) ([]byte, *object.Object) {
		dir := authortest.Objects(f, authortest.Files{"a.c": text}, authortest.Sections()...)
		data, err := os.ReadFile(filepath.Join(dir, "a.o"))
		if err != nil {
			f.Fatal(err)
		}
		o, err := object.Read("a.o", data)
		if err != nil {
			f.Fatal(err)
		}
		return data, o
	}
	_, before := read(source)
	good, _ := read(strings.Replace(source, "* 3", "* 5", 1))
	file, err := elf.NewFile(bytes.NewReader(good))
	if err != nil {
		f.Fatal(err)
	}
	info, abbrev, rest := file.Section(".debug_info"), file.Section(".debug_abbrev"), file.Section(".debug_str")
	part := func(s *elf.Section) []byte { return good[s.Offset : s.Offset+s.Size] }
	f.Add(part(info), part(abbrev), part(rest))
	f.Fuzz(func(t *testing.T, i, a, r []byte) {
		data := bytes.Clone(good)
		for _, p := range []struct {
			s *elf.Section
			b []byte
		}{{info, i}, {abbrev, a}, {rest, r}} {
			copy(data[p.s.Offset:p.s.Offset+p.s.Size], p.b)
		}
		o, err := object.Read("a.o", data)
		if err != nil {
			t.Fatalf("debug information is no part of what runs, and reading it failed: %v", err)
		}
		one := layout.Check(objdiff.Compare([]*object.Object{before}, []*object.Object{o}))
		two := layout.Check(objdiff.Compare([]*object.Object{before}, []*object.Object{o}))
		if len(one) != len(two) {
			t.Fatalf("%d objections, then %d", len(one), len(two))
		}
	})
}
