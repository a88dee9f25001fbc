package userspace

import (
	"context"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
)

// bench is a library, the one that it needs, and what builds patches for it.
type bench struct {
	t           testing.TB
	dir, source string
	lib         string
}

// newBench builds the libraries; needs says whether one is linked with the other.
func newBench(t testing.TB, needs bool) *bench {
	t.Helper()
	source, err := os.ReadFile("testdata/imports/lib.c")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: t.TempDir(), source: string(source)}
	b.compile("libdep.so.1", "testdata/imports/dep.c", "-shared", "-fPIC", "-Wl,--version-script=testdata/imports/dep.map", "-Wl,-soname,libdep.so.1", "-Wno-attribute-alias")
	b.lib = b.link("lib", b.objects("before", b.source), needs)
	return b
}

func (b *bench) compile(out, source string, args ...string) string {
	b.t.Helper()
	out = filepath.Join(b.dir, out)
	if err := compile(out, source, args...); err != nil {
		b.t.Fatal(err)
	}
	return out
}

// objects compiles a text for a comparison.
func (b *bench) objects(name, text string) string {
	b.t.Helper()
	folder := filepath.Join(b.dir, name)
	if err := os.Mkdir(folder, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "lib.c"), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command("gcc", "-O1", "-g", "-fPIC", "-ffunction-sections", "-fdata-sections", "-c", "lib.c", "-o", "lib.o")
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("gcc: %v\n%s", err, out)
	}
	return folder
}

// link makes the library libNAME.so.
func (b *bench) link(name, objects string, needs bool) string {
	b.t.Helper()
	args := []string{"-shared", "-Wl,-soname,liblib.so"}
	if needs {
		args = append(args, "-Wl,--no-as-needed", filepath.Join(b.dir, "libdep.so.1"))
	}
	return b.compile("lib"+name+".so", filepath.Join(objects, "lib.o"), args...)
}

// request is for a patch to the fixed text.
func (b *bench) request(name, fixed string) author.Request {
	b.t.Helper()
	if fixed == b.source {
		b.t.Fatal("the edit changes nothing")
	}
	return author.Request{
		Before: filepath.Join(b.dir, "before"), After: b.objects(name, fixed), Binary: b.lib, ID: "U-test-1", Level: 1,
		Fixes: []patch.Fix{{CVE: "LIVEMEND-TEST-0001"}},
	}
}

// patch builds one to the text with one thing replaced.
func (b *bench) patch(name, old, new string) Patch {
	b.t.Helper()
	r := b.request(name, strings.Replace(b.source, old, new, 1))
	r.Fixed = b.link(name, r.After, true)
	return b.build(r)
}

func (b *bench) build(r author.Request) Patch {
	b.t.Helper()
	result, err := author.Build(context.Background(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	f, err := image.Decode(result.Artifact)
	if err != nil {
		b.t.Fatal(err)
	}
	return Patch{File: f, SHA256: sha256.Sum256(result.Artifact), Level: 1}
}

// start runs a program with the library.
func (b *bench) start(name string, flags []string, env ...string) *host {
	b.t.Helper()
	args := append([]string{"-L" + b.dir, "-llib", "-Wl,--allow-shlib-undefined", "-lpthread"}, flags...)
	cmd := exec.Command(b.compile(name, "testdata/imports/host.c", args...))
	cmd.Env = append([]string{"LD_LIBRARY_PATH=" + b.dir}, env...)
	return startProgram(b.t, cmd)
}

// user flags make the program itself use the other library, and own its variable.
func (b *bench) user(more ...string) []string {
	return append([]string{"-DUSE", "-no-pie", "-fno-pie", filepath.Join(b.dir, "libdep.so.1")}, more...)
}

const (
	oldWork = "return x + !s + 1;"
	newWork = "return add(x) + 10 * state + (int)strlen(s);"
)

// A fix calls what the library never called: a function in its newest version,
// a variable, and a function of which the C library has several.
func TestNewImports(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	p := b.patch("after", oldWork, newWork)
	want := []image.Import{
		{Name: "add", Version: "V_2", Kind: image.Function},
		{Name: "state", Version: "V_1", Kind: image.Data},
		{Name: "strlen", Version: "GLIBC_2.2.5", Kind: image.Function},
	}
	for i, m := range p.File.Imports {
		if len(p.File.Imports) != len(want) || m != want[i] {
			t.Fatalf("imports %+v", p.File.Imports)
		}
	}
	e := testEngine()
	plain := b.start("plain", nil)
	copied := b.start("copied", b.user())
	lazy := b.start("lazy", b.user("-Wl,-z,lazy"))
	interposed := b.start("interposed", nil, "LD_PRELOAD="+b.compile("interpose.so", "testdata/imports/interpose.c", "-shared", "-fPIC"))
	copied.want("state 7", "ok")
	results, err := e.Apply(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{plain, copied, lazy, interposed} {
		if r := of(t, results, h.pid()); r.Outcome != Patched {
			t.Fatalf("%+v", r)
		}
	}
	plain.want("work 1", "2055")
	copied.want("work 1", "2075")
	lazy.want("work 1", "2055")
	interposed.want("work 1", "5055")
	copied.want("state 9", "ok")
	copied.want("work 1", "2095")
	plain.do(e.Status, p, Patched)
	plain.do(e.Apply, p, Already)
	plain.do(e.Revert, p, Reverted)
	plain.want("work 1", "2")
	before := len(plain.maps())
	plain.do(e.Apply, p, Patched)
	plain.want("work 1", "2055")
	if n := len(plain.maps()); n != before {
		t.Errorf("the image was mapped again: %d mappings, then %d", before, n)
	}
}

// The choice among implementations is taken from who made it; where nobody did,
// the process is left alone.
func TestNewImportOfChosenFunction(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	p := b.patch("after", oldWork, "return pick(x) + !s;")
	e := testEngine()
	now, lazy, unused := b.start("now", b.user("-Wl,-z,now")), b.start("lazy", b.user("-Wl,-z,lazy")), b.start("unused", nil)
	now.do(e.Apply, p, Patched)
	now.want("work 1", "71")
	for _, h := range []*host{lazy, unused} {
		r := h.do(e.Apply, p, Failed)
		if !strings.Contains(r.Reason, "pick@V_1") {
			t.Errorf("reason %q", r.Reason)
		}
		h.want("work 1", "2")
	}
	lazy.want("pick 2", "72")
	lazy.do(e.Apply, p, Patched)
	lazy.want("work 1", "71")
}

// A library that is not loaded defines nothing.
func TestNewImportIsMissing(t *testing.T) {
	t.Parallel()
	b := newBench(t, false)
	p := b.patch("after", oldWork, newWork)
	e := testEngine()
	h := b.start("host", nil)
	before := len(h.maps())
	if r := h.do(e.Apply, p, Failed); !strings.Contains(r.Reason, "add@V_2") {
		t.Errorf("reason %q", r.Reason)
	}
	h.want("work 1", "2")
	if n := len(h.maps()); n != before {
		t.Errorf("it has %d mappings, before %d", n, before)
	}
}

// Versions come from the libraries when there is no linked result.
func TestNewImportFromDependency(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	r := b.request("after", strings.Replace(b.source, oldWork, "return add(x);", 1))
	if _, err := author.Build(context.Background(), r); err == nil || !strings.Contains(err.Error(), "--dependency FILE") {
		t.Fatalf("without them: %v", err)
	}
	r.Dependencies = []string{filepath.Join(b.dir, "libdep.so.1")}
	p := b.build(r)
	h := b.start("host", nil)
	h.do(testEngine().Apply, p, Patched)
	h.want("work 1", "2001")
}

// The program may own the copy of a library's variable.
func TestVariableOfTheProgram(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	p := b.patch("after", oldWork, "return 10 * level + !s;")
	e := testEngine()
	library, program := b.start("library", nil), b.start("program", []string{"-DLEVEL", "-no-pie", "-fno-pie"})
	program.want("level 8", "ok")
	library.do(e.Apply, p, Patched)
	program.do(e.Apply, p, Already) // by the call before
	library.want("work 1", "30")
	program.want("work 1", "80")
}

// Processes are many; what each one costs beside the others' is here.
func BenchmarkImports(b *testing.B) {
	bench := newBench(b, true)
	p := bench.patch("after", oldWork, newWork)
	host := bench.start("host", nil)
	found, err := testEngine().Find(context.Background(), p.File.BuildID)
	if err != nil || len(found) != 1 {
		b.Fatalf("%v, %v", found, err)
	}
	h, err := pin(found[0])
	if err != nil {
		b.Fatal(err)
	}
	defer h.close()
	t, err := testEngine().locate(h, p.File.BuildID, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := t.imports(p.File); err != nil {
			b.Fatal(err)
		}
	}
	host.want("work 1", "2")
}

// Every thread keeps its own value of a thread-local variable.
func TestThreadLocalVariables(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	p := b.patch("after", "return mine + 100 * ours;", "mine += 3; return 2 * mine + 1000 * ours;")
	e := testEngine()
	h := b.start("host", nil)
	h.want("count 0 1", "101")
	h.want("count 1 5", "505")
	h.do(e.Apply, p, Patched)
	h.want("count 0 2", "3012") // mine 1+2+3, ours 1+2
	h.want("count 1 1", "6018") // mine 5+1+3, ours 5+1
	h.want("count 2 4", "4014")
	h.do(e.Revert, p, Reverted)
	h.want("count 0 0", "306")
	h.want("count 1 0", "609")
	h.want("count 2 0", "407")
	h.want("count 3 1", "101")
}
