// Package authortest builds small C libraries for the tests of the author
// packages and runs a linked image in a process of its own: it loads the
// library, puts the image where an agent would, writes the jumps and shows what
// the library does before and after. It is for tests only.
package authortest

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	_ "embed"

	"livemend.dev/livemend/patch/image"
)

// Files are C sources by name.
type Files map[string]string

// Flags of every build; sections only for objects that are compared.
var (
	common   = []string{"-std=gnu11", "-O2", "-fPIC", "-g", "-w"}
	sections = []string{"-ffunction-sections", "-fdata-sections"}
)

// Sections are the flags that objects need for a comparison.
func Sections() []string { return slices.Clone(sections) }

// Objects compiles files into a new folder, one object each, with the common
// flags and those given.
func Objects(t testing.TB, files Files, flags ...string) string {
	t.Helper()
	from, to := write(t, files), t.TempDir()
	for _, name := range names(files) {
		run(t, from, "gcc", slices.Concat(common, flags, []string{"-c", "-o", filepath.Join(to, strings.TrimSuffix(name, ".c")+".o"), name})...)
	}
	return to
}

// Library links files, compiled without sections, into a library with symbols
// and a stripped copy of it, as distributions ship them.
func Library(t testing.TB, files Files, flags ...string) (stripped, twin string) {
	t.Helper()
	from, to := write(t, files), t.TempDir()
	stripped, twin = filepath.Join(to, "libtest.so"), filepath.Join(to, "libtest.so.debug")
	run(t, from, "gcc", slices.Concat(common, []string{"-shared", "-Wl,--build-id=sha1", "-o", twin}, names(files), flags)...)
	run(t, from, "objcopy", "--strip-all", twin, stripped)
	return stripped, twin
}

func names(files Files) []string { return slices.Sorted(maps.Keys(files)) }

func write(t testing.TB, files Files) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Run runs a tool of the compiler in dir and fails the test when it fails.
func Run(t testing.TB, dir, name string, args ...string) {
	t.Helper()
	run(t, dir, name, args...)
}

func run(t testing.TB, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

//go:embed testdata/runner.c
var runnerSource string

var runner struct {
	sync.Mutex
	dir, path string
}

// Main builds the runner, runs the tests and removes the runner. Tests that
// call Apply call it from TestMain.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "runner-*")
	if err != nil {
		panic(err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			panic(err)
		}
	}()
	runner.dir = dir
	return m.Run()
}

func runnerPath(t testing.TB) string {
	t.Helper()
	runner.Lock()
	defer runner.Unlock()
	if runner.dir == "" {
		t.Fatal("the test has no TestMain that calls authortest.Main")
	}
	if runner.path == "" {
		source, path := filepath.Join(runner.dir, "runner.c"), filepath.Join(runner.dir, "runner")
		if err := os.WriteFile(source, []byte(runnerSource), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, runner.dir, "gcc", "-O1", "-Wall", "-Werror", "-o", path, source, "-ldl")
		runner.path = path
	}
	return runner.path
}

// Apply loads the library in a new process, calls its function show, applies f
// and calls show again. It returns what show printed each time.
func Apply(t testing.TB, library string, f *image.File) (before, after string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), runnerPath(t), library)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	where, child, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := where.Close(); err != nil {
			t.Error(err)
		}
	}()
	cmd.ExtraFiles = []*os.File{child}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := child.Close(); err != nil {
		t.Fatal(err)
	}
	var place struct{ Bias, Image uint64 }
	err = binary.Read(where, binary.LittleEndian, &place)
	if err == nil {
		err = send(in, f, place.Image, place.Bias)
	}
	if closeErr := in.Close(); err == nil {
		err = closeErr
	}
	if waitErr := cmd.Wait(); err != nil || waitErr != nil {
		t.Fatalf("the runner: %v, %v\n%s%s", err, waitErr, out.String(), problems.String())
	}
	before, after, found := strings.Cut(out.String(), "\x00")
	if !found {
		t.Fatalf("the runner printed no mark: %q", out.String())
	}
	return before, after
}

// send writes what the runner must do.
func send(w io.Writer, f *image.File, at, bias uint64) error {
	placed, err := f.Place(at, bias)
	if err != nil {
		return err
	}
	words := []uint64{uint64(len(placed)), uint64(len(f.Segments))}
	for _, s := range f.Segments {
		words = append(words, uint64(s.Size), uint64(s.Prot))
	}
	words = append(words, uint64(len(f.Hunks)))
	for i := range f.Hunks {
		h := &f.Hunks[i]
		words = append(words, bias+h.Off+uint64(h.JumpOff()), at+uint64(h.New))
	}
	if err := binary.Write(w, binary.LittleEndian, words); err != nil {
		return err
	}
	_, err = w.Write(placed)
	return err
}
