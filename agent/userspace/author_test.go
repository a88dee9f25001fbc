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

// A patch that the author tools made from two builds, with a new static
// function, a new variable, a constant table and calls back into the library,
// works in a running process.
func TestAuthoredPatch(t *testing.T) {
	dir := t.TempDir()
	source, err := os.ReadFile("testdata/lib.c")
	if err != nil {
		t.Fatal(err)
	}
	const fixed = `
static const int table[] = {10, 20, 30, 40};
static int calls;
__attribute__((noinline)) static int helper(int x) { return table[x & 3]; }
__attribute__((noinline, aligned(16))) int f2(int);
__attribute__((noinline, aligned(16))) int f1(int x) { seen = x; calls++; return f2(x) + helper(x) + 1000 * calls; }
`
	build := func(name, text string) string {
		t.Helper()
		folder := filepath.Join(dir, name)
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		c := filepath.Join(folder, "lib.c")
		if err := os.WriteFile(c, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("gcc", "-O1", "-g", "-fPIC", "-ffunction-sections", "-fdata-sections", "-c", "lib.c", "-o", "lib.o")
		cmd.Dir = folder
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, out)
		}
		return folder
	}
	before := build("before", string(source))
	after := build("after", strings.Replace(string(source), "FN(1)", fixed, 1))
	lib, landing := filepath.Join(dir, "libtarget.so"), filepath.Join(filepath.Dir(libPath), "landing.o")
	if err := compile(lib, filepath.Join(before, "lib.o"), landing, "-shared"); err != nil {
		t.Fatal(err)
	}
	result, err := author.Build(context.Background(), author.Request{
		Before: before, After: after, Binary: lib, ID: "U-test-1", Level: 1,
		Fixes: []patch.Fix{{CVE: "LIVEMEND-TEST-0001"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := image.Decode(result.Artifact)
	if err != nil {
		t.Fatal(err)
	}
	p := Patch{File: f, SHA256: sha256.Sum256(result.Artifact), Level: 1}
	cmd := exec.Command(hostPath)
	cmd.Env = []string{"LD_LIBRARY_PATH=" + dir}
	h := startProgram(t, cmd)
	e := testEngine()
	h.want("f1 2", "3")
	h.do(e.Apply, p, Patched)
	h.want("f1 2", "1034")
	h.want("f1 3", "2045")
	h.do(e.Revert, p, Reverted)
	h.want("f1 2", "3")
	h.do(e.Apply, p, Patched)
	h.want("f1 2", "3034") // the image and its variable stayed
}
