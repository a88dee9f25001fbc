package main

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"livemend.dev/livemend/demo/show"
	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/internal/guest"
)

// open makes a tour that nothing was shown of.
func open(t *testing.T) *tour {
	t.Helper()
	home := os.Getenv("LIVEMEND_PROGRAMS")
	if home == "" {
		t.Skip("LIVEMEND_PROGRAMS does not name the folder with bin and dist; make test sets it")
	}
	s, err := stage.Open(stage.Options{Program: filepath.Join(home, "bin", "livemend"), Packages: filepath.Join(home, "dist")})
	if err != nil {
		t.Fatal(err)
	}
	tr := &tour{stage: s, password: rand.Text()}
	t.Cleanup(func() {
		if t.Failed() {
			s.Logs(t.Output())
			if tr.server != nil {
				t.Log(tr.server.Log())
			}
		}
		tr.end()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// TestDemonstration is make demo-kernel ARGS=--once.
func TestDemonstration(t *testing.T) {
	tr := open(t)
	var out strings.Builder
	err := show.Run(t.Context(), &out, tr.steps())
	if errors.Is(err, guest.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log(out.String())
	if !strings.Contains(out.String(), "\nwhitepaper: 21 of 21 steps shown\n") {
		t.Error("not 21 of 21 steps were shown")
	}
}
