package guest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shownLog is how much of the console a failed test shows, in bytes.
const shownLog = 12 << 10

// Machine is the guest of one test. Its methods end the test when the guest
// cannot do what is asked; the guest's own, which return errors, are below
// Guest.
type Machine struct {
	*Guest
	t testing.TB
}

// Boot starts a guest that ends with the test. Where none can be booted, or a
// package has left the archive, the test is skipped and says why. A test that
// fails shows the end of the guest's console.
func Boot(t testing.TB, c Config) *Machine {
	t.Helper()
	g, err := Start(t.Context(), c)
	skipWithout(t, err)
	t.Cleanup(func() {
		g.Kill()
		if t.Failed() {
			log := g.Log()
			t.Logf("the guest's console:\n%s", log[max(0, len(log)-shownLog):])
		}
	})
	return &Machine{g, t}
}

func skipWithout(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Disk returns an image for Config.Disk that lives as long as the test.
func Disk(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	skipWithout(t, MakeDisk(t.Context(), path, 32))
	return path
}

// Built returns the path of a Go program that was built for guests, for
// Config.Files.
func Built(t testing.TB, importPath string, flags ...string) string {
	t.Helper()
	b, err := Program(t.Context(), importPath, flags...)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), filepath.Base(importPath))
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Run runs a program to its end.
func (m *Machine) Run(c Command) Result {
	m.t.Helper()
	r, err := m.Guest.Run(c)
	if err != nil {
		m.t.Fatalf("%s: %v", strings.Join(c.Args, " "), err)
	}
	return r
}

// Start starts a program, which is killed with the guest at the latest.
func (m *Machine) Start(c Command) *Process {
	m.t.Helper()
	p, err := m.Guest.Start(c)
	if err != nil {
		m.t.Fatalf("%s: %v", strings.Join(c.Args, " "), err)
	}
	return p
}

// Put writes a file that everybody may read and run.
func (m *Machine) Put(path string, b []byte) {
	m.t.Helper()
	if err := m.Guest.Put(path, b); err != nil {
		m.t.Fatal(err)
	}
}

// Text returns a file without the space around it.
func (m *Machine) Text(path string) string {
	m.t.Helper()
	b, err := m.Get(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// Expect waits until the console has said text.
func (m *Machine) Expect(text string) {
	m.t.Helper()
	if err := m.Guest.Expect(m.t.Context(), text, 2*time.Minute); err != nil {
		m.t.Fatal(err)
	}
}

// Ended waits until the machine has ended by itself, as after a panic.
func (m *Machine) Ended() {
	m.t.Helper()
	if err := m.Wait(m.t.Context(), 2*time.Minute); err != nil {
		m.t.Fatal(err)
	}
}

// PowerOff ends the guest in good order.
func (m *Machine) PowerOff() {
	m.t.Helper()
	if err := m.Guest.PowerOff(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

func containsText(b *bytes.Buffer, text string) bool { return bytes.Contains(b.Bytes(), []byte(text)) }
