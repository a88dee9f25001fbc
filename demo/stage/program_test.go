package stage

import (
	"errors"
	"strings"
	"testing"
)

func TestProgram(t *testing.T) {
	s := newSpawner()
	dir := t.TempDir()
	p, err := s.start(dir, "speaker", []string{"WORD=hello"}, "/bin/sh", "-c", `echo first; echo "ready at $WORD"; read -r x < /dev/null; exec sleep 1000`)
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := p.Line(t.Context(), "ready at "); err != nil || rest != "hello" {
		t.Errorf("%q, %v", rest, err)
	}
	for range 2 {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.Line(t.Context(), "never said"); !errors.Is(err, errEnded) {
		t.Errorf("a line of an ended program: %v", err)
	}
}

func TestProgramThatFails(t *testing.T) {
	p, err := newSpawner().start(t.TempDir(), "broken", nil, "/bin/sh", "-c", "echo no such database >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Line(t.Context(), "ready"); err == nil || !strings.Contains(err.Error(), "no such database") {
		t.Errorf("the error does not show the log: %v", err)
	}
	if _, err := newSpawner().start(t.TempDir(), "absent", nil, "/does/not/exist"); err == nil {
		t.Error("a program that is not there was started")
	}
}
