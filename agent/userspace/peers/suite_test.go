package peers

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/author"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

// work is the folder of everything that is compiled. Nothing of it is made
// twice in one run, however often the tests are repeated.
var work string

func TestMain(m *testing.M) {
	var err error
	if work, err = os.MkdirTemp("", "peers"); err != nil {
		panic(err)
	}
	// Programs with other users and roots must get there.
	if err := os.Chmod(work, 0o755); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := os.RemoveAll(work); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// binary is a library or a program made of several sources. It runs stripped,
// as distributions ship it; the author tools get the unstripped one as its twin.
type binary struct {
	name    string
	flags   []string // of the linker
	code    string   // the compiler's flag for code that may lie anywhere; -fPIC when empty
	sources []*source
	stays   bool // it is not stripped

	once       sync.Once
	path, twin string
	objects    string // folder of the objects before any fix
	err        error
}

// source is one file of a binary, before any fix.
type source struct {
	binary *binary
	name   string // with .c or .cc
	text   string
	flags  []string // of the compiler
	apart  bool     // it is not linked into the binary

	mu    sync.Mutex
	fixed map[string]*author.Result
}

// The binaries that most cases share, so that little is compiled.
var (
	program = &binary{name: "program", code: "-fPIE", flags: []string{"-pie", "-rdynamic", "-Wl,-rpath,$ORIGIN", "-ldl", "-lpthread"}}
	library = &binary{name: "libcase.so", flags: []string{"-shared", "-Wl,-soname,libcase.so", "-lpthread"}}
)

// add makes a file part of a binary; package variables do it, before any test.
func (b *binary) add(name, text string, flags ...string) *source {
	if filepath.Ext(name) == "" {
		name += ".c"
	}
	s := &source{binary: b, name: name, text: text, flags: flags, fixed: make(map[string]*author.Result)}
	b.sources = append(b.sources, s)
	return s
}

// heads is what every source starts with.
const heads = `#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#define KEEP __attribute__((noinline, noclone))
`

var compileFlags = []string{"-O2", "-g", "-w", "-ffunction-sections", "-fdata-sections", "-c"}

func run(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %v\n%s", name, args, err, out)
	}
	return nil
}

// compiler returns the compiler of a source and how its object is called.
func (s *source) compiler() (tool, object string) {
	if ext := filepath.Ext(s.name); ext != ".c" {
		return "g++", strings.TrimSuffix(s.name, ext) + ".o"
	}
	return "gcc", strings.TrimSuffix(s.name, ".c") + ".o"
}

func (s *source) compile(dir, text string) error {
	if err := os.WriteFile(filepath.Join(dir, s.name), []byte(text), 0o644); err != nil {
		return err
	}
	tool, _ := s.compiler()
	return run(dir, tool, slices.Concat(compileFlags, []string{cmp.Or(s.binary.code, "-fPIC")}, s.flags, []string{s.name})...)
}

// folder makes a new folder in work.
func folder() (string, error) {
	dir, err := os.MkdirTemp(work, "")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// build compiles and links the binary, once.
func (b *binary) build(t testing.TB) {
	t.Helper()
	b.once.Do(func() { b.err = b.make() })
	if b.err != nil {
		t.Fatal(b.err)
	}
}

func (b *binary) make() error {
	var err error
	if b.objects, err = folder(); err != nil {
		return err
	}
	const atOnce = 3
	turn := make(chan struct{}, atOnce)
	errs := make(chan error, len(b.sources))
	for _, s := range b.sources {
		go func() {
			turn <- struct{}{}
			errs <- s.compile(b.objects, heads+s.text)
			<-turn
		}()
	}
	for range b.sources {
		if e := <-errs; e != nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	// A build-id of its own, so that tests which run at the same time elsewhere
	// do not meet each other's processes.
	id := make([]byte, 20)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	b.path, b.twin = filepath.Join(work, b.name), filepath.Join(work, b.name+".twin")
	if err := b.link(b.objects, b.twin, "-Wl,--build-id=0x"+hex.EncodeToString(id)); err != nil {
		return err
	}
	if b.stays {
		return run(work, "cp", b.twin, b.path)
	}
	return run(work, "objcopy", "--strip-all", b.twin, b.path)
}

// link links the objects in a folder as the binary is linked.
func (b *binary) link(dir, to string, flags ...string) error {
	var objects []string
	tool := "gcc"
	for _, s := range b.sources {
		compiler, object := s.compiler()
		if s.apart {
			continue
		}
		if compiler != "gcc" {
			tool = compiler
		}
		objects = append(objects, filepath.Join(dir, object))
	}
	return run(work, tool, slices.Concat([]string{"-o", to}, flags, objects, b.flags)...)
}

// fix makes the patch of the given level in which old texts of the source are
// replaced by new ones, given in pairs.
func (s *source) fix(t testing.TB, level int64, pairs ...string) userspace.Patch {
	t.Helper()
	r, err := s.try(t, level, pairs...)
	if err != nil {
		t.Fatal(err)
	}
	f, err := image.Decode(r.Artifact)
	if err != nil {
		t.Fatal(err)
	}
	return userspace.Patch{File: f, SHA256: sha256.Sum256(r.Artifact), Level: level}
}

// try is fix for changes that the author tools may refuse.
func (s *source) try(t testing.TB, level int64, pairs ...string) (*author.Result, error) {
	t.Helper()
	s.binary.build(t)
	key := fmt.Sprint(level, pairs)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.fixed[key]; r != nil {
		return r, nil
	}
	text := s.text
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%s has no %q", s.name, pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	after, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.compile(after, heads+text); err != nil {
		t.Fatal(err)
	}
	for _, other := range s.binary.sources {
		if _, object := other.compiler(); other != s {
			if err := os.Link(filepath.Join(s.binary.objects, object), filepath.Join(after, object)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What the fix is the first to import has its version there.
	fixed := filepath.Join(after, "fixed")
	if err := s.binary.link(after, fixed, "-Wl,--build-id"); err != nil {
		t.Fatal(err)
	}
	r, err := author.Build(t.Context(), author.Request{
		Before: s.binary.objects, After: after, Binary: s.binary.path, Twin: s.binary.twin, Fixed: fixed,
		ID: "U-test-1", Level: level, Fixes: []patch.Fix{{CVE: "LIVEMEND-TEST-0001"}},
	})
	if err == nil {
		s.fixed[key] = r
	}
	return r, err
}
