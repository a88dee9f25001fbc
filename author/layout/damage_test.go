package layout_test

import (
	"bytes"
	"debug/elf"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/layout"
	"livemend.dev/livemend/author/objdiff"
	"livemend.dev/livemend/author/object"
)

// TestDamage changes bytes of debug information: whatever they say, the check
// ends with an answer.
func TestDamage(t *testing.T) {
	t.Parallel()
	before := objects(t, authortest.Files{"a.c": source})
	dir := authortest.Objects(t, authortest.Files{"a.c": strings.Replace(source, "* 3", "* 5", 1)}, authortest.Sections()...)
	good, err := os.ReadFile(filepath.Join(dir, "a.o"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	refused, checked := 0, 0
	for _, name := range []string{".debug_info", ".debug_abbrev", ".debug_line", ".debug_rnglists", ".debug_str"} {
		s := f.Section(name)
		if s == nil {
			t.Fatal("the object has no " + name)
		}
		for range 200 {
			data := bytes.Clone(good)
			for range 1 + random.IntN(3) {
				data[s.Offset+random.Uint64N(s.Size)] = byte(random.Uint32())
			}
			o, err := object.Read("a.o", data)
			if err != nil {
				t.Fatalf("%s: it is no part of what runs, and reading it failed: %v", name, err)
			}
			checked++
			if len(layout.Check(objdiff.Compare(before, []*object.Object{o}))) > 0 {
				refused++
			}
		}
	}
	if refused == 0 || refused == checked {
		t.Errorf("of %d damaged objects %d were refused", checked, refused)
	}
}
