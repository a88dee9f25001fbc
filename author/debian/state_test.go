package debian

import (
	"os"
	"path/filepath"
	"testing"
)

// A stage counts as finished only with the same inputs and untouched products.
func TestState(t *testing.T) {
	work := t.TempDir()
	open := func() *state {
		t.Helper()
		s, err := openState(work)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	product := filepath.Join(work, "objects", "a.o")
	if err := writeFile(product, []byte("code")); err != nil {
		t.Fatal(err)
	}
	s := open()
	if _, ok := s.finished("before", "in"); ok {
		t.Error("a stage is finished that never ran")
	}
	if err := s.finish("before", "in", map[string]string{"k": "v"}, "objects"); err != nil {
		t.Fatal(err)
	}
	if facts, ok := open().finished("before", "in"); !ok || facts["k"] != "v" {
		t.Errorf("read again: %v %v", facts, ok)
	}
	if _, ok := open().finished("before", "other"); ok {
		t.Error("finished with other inputs")
	}
	if err := os.WriteFile(product, []byte("core"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok := open().finished("before", "in"); ok {
		t.Error("finished although its product changed")
	}
	if err := os.Remove(product); err != nil {
		t.Fatal(err)
	}
	if _, ok := open().finished("before", "in"); ok {
		t.Error("finished although its product is gone")
	}
	if err := os.WriteFile(filepath.Join(work, "state.json"), []byte("{damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok := open().finished("before", "in"); ok {
		t.Error("finished by a damaged state file")
	}
}

// A state file must not make a run look outside its work folder.
func TestStateStaysInside(t *testing.T) {
	work := t.TempDir()
	s, err := openState(work)
	if err != nil {
		t.Fatal(err)
	}
	s.stages["x"] = stage{Inputs: "in", Products: map[string]string{"../y": ""}}
	if _, ok := s.finished("x", "in"); ok {
		t.Error("a product outside the work folder counts")
	}
}

func TestDigest(t *testing.T) {
	if digest("a", "bc") == digest("ab", "c") {
		t.Error("the digest does not tell parts apart")
	}
}
