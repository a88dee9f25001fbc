package debian

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestContributions(t *testing.T) {
	const text = `Archive member included to satisfy reference by file (symbol)

lib/x.a(c.o)                  a.o (f)

Memory Configuration

LOAD /usr/lib/crti.o
LOAD a.o
 .text          0x0000000000001000       0x10 a.o
 .text.a_function_with_a_long_name
                0x0000000000001010        0x5 lib/x.a(c.o)
                0x0000000000001010                a_function_with_a_long_name
 .data          0x0000000000002000        0x0 a.o
 *fill*         0x0000000000001015        0xb 
 .note          0x0000000000003000       0x24 /usr/lib/crti.o
 .rodata        0x0000000000004000       0x24 /usr/lib/libc.so
 .rodata        0x0000000000004000       0x24 sub dir/b.o
`
	got, err := contributions(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []contribution{{"a.o", ""}, {"lib/x.a", "c.o"}, {"/usr/lib/crti.o", ""}, {"sub dir/b.o", ""}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(contribution{})); diff != "" {
		t.Error(diff)
	}
}

// gcc runs the compiler in dir.
func gcc(t *testing.T, dir string, args ...string) {
	t.Helper()
	run(t, dir, "gcc", args...)
}

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := writeFile(name, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// The recording linker links as the real one and keeps exactly the objects
// that went in: plain ones and members of archives with short and long names, and
// of thin ones, which only name them.
func TestRecordingLinker(t *testing.T) {
	work, tree := t.TempDir(), filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(filepath.Join(work, "links"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := strings.ReplaceAll(recorder("libx.so.1"), inside, work)
	write(t, filepath.Join(work, "bin/ld"), script)
	if err := os.Chmod(filepath.Join(work, "bin/ld"), 0o755); err != nil {
		t.Fatal(err)
	}
	const longName = "a_member_with_a_long_name"
	for _, name := range []string{"a", "b", longName, "unused", "named"} {
		write(t, filepath.Join(tree, "src", name+".c"), fmt.Sprintf("int f_%s(void) { return %d; }", name, len(name)))
		gcc(t, filepath.Join(tree, "src"), "-fPIC", "-c", name+".c")
	}
	src := filepath.Join(tree, "src")
	run(t, src, "ar", "rc", "part.a", "b.o", longName+".o")
	run(t, tree, "ar", "rcT", "thin.a", "src/named.o")
	write(t, filepath.Join(src, "a.c"), "static __attribute__((noinline)) int local(int x) { return x * 3; } int f_a(int x) { return local(x); }")
	gcc(t, src, "-O1", "-fPIC", "-c", "a.c")
	link := []string{"-shared", "-Wl,-x", "-Wl,--build-id", "a.o", "-Wl,--whole-archive", "part.a", "../thin.a", "-Wl,--no-whole-archive"}
	gcc(t, src, append(link, "-o", "plain.so")...)
	gcc(t, src, append(link, "-B"+filepath.Join(work, "bin"), "-o", "libx.so.1.2")...)
	gcc(t, src, append(link, "-B"+filepath.Join(work, "bin"), "-o", "other.so")...)

	links, err := readLinks(filepath.Join(work, "links"))
	if err != nil {
		t.Fatal(err)
	}
	if len(links) != 1 || sameLink(links, filepath.Join(src, "libx.so.1.2")) != links[0] {
		t.Fatalf("recorded %d links, want the one of libx", len(links))
	}
	plain, err := os.ReadFile(filepath.Join(src, "plain.so"))
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := os.ReadFile(links[0].output())
	if err != nil || !bytes.Equal(plain, recorded) {
		t.Errorf("the recording linker makes another file (%v)", err)
	}
	// Local names are kept although the package leaves them out.
	stock, err := openELF(links[0].output())
	if err != nil {
		t.Fatal(err)
	}
	named, err := openELF(links[0].named())
	if err != nil {
		t.Fatal(err)
	}
	if is, why := compare(stock, named); is != sameLoad {
		t.Errorf("with local names it is %v (%s)", is, why)
	}
	symbols, err := named.file.Symbols()
	if err != nil || !slices.ContainsFunc(symbols, func(y elf.Symbol) bool { return y.Name == "local" }) {
		t.Errorf("the local name is missing (%v)", err)
	}
	objects := filepath.Join(work, "objects")
	n, err := links[0].extract(objects, tree)
	if err != nil || n != 4 {
		t.Errorf("%d objects, %v; want 4", n, err)
	}
	for object, from := range map[string]string{"src/a.o": "a.o", "src/named.o": "named.o", "src/part.a/b.o": "b.o", "src/part.a/" + longName + ".o": longName + ".o"} {
		got, err := os.ReadFile(filepath.Join(objects, object))
		want, err2 := os.ReadFile(filepath.Join(src, from))
		if err != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not the compiler's (%v, %v)", object, err, err2)
		}
	}
}

func TestDamagedArchives(t *testing.T) {
	header := func(name string, size int) string { return fmt.Sprintf("%-16s%-32s%-10d`\n", name, "", size) }
	for name, text := range map[string]string{
		"nothing":        "",
		"thin":           "!<thin>\n",
		"cut header":     "!<arch>\nabc",
		"cut member":     "!<arch>\n" + header("a.o/", 5) + "1234",
		"negative size":  "!<arch>\n" + header("a.o/", -5) + "1234",
		"no long names":  "!<arch>\n" + header("/0", 4) + "1234",
		"wrong position": "!<arch>\n" + header("//", 4) + "a.o\n" + header("/9", 4) + "1234",
	} {
		if _, err := members([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	twice, err := members([]byte("!<arch>\n" + header("a.o/", 4) + "1234" + header("a.o/", 3) + "567\n" + header("b.o/", 2) + "89"))
	if err != nil {
		t.Fatal(err)
	}
	if twice["a.o"] != nil || string(twice["b.o"]) != "89" {
		t.Errorf("members %q: a name that stands for two members must not be taken", twice)
	}
}

// Only a rebuild with the same code is good as a twin.
func TestCompare(t *testing.T) {
	dir := t.TempDir()
	build := func(name, source string, flags ...string) *elfFile {
		t.Helper()
		write(t, filepath.Join(dir, "lib.c"), source)
		out := filepath.Join(dir, name)
		gcc(t, dir, append([]string{"-O1", "-fPIC", "-shared", "-Wl,--build-id", "-o", out, "lib.c"}, flags...)...)
		f, err := openELF(out)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	const source = `int g(int); const char *f(void) { return "text 1"; } int h(int x) { return g(x) + 1; } int v = 5;`
	stock := build("stock.so", source, "-s")
	for _, test := range []struct {
		name  string
		file  *elfFile
		want  likeness
		words string
	}{
		{"same", build("same.so", source, "-s"), sameID, ""},
		{"unstripped", build("names.so", source), sameLoad, ""},
		{"with debug information", build("debug.so", source, "-g"), sameLoad, ""},
		{"other text", build("text.so", strings.Replace(source, "text 1", "text 2", 1)), sameCode, ".rodata"},
		{"other code", build("code.so", strings.Replace(source, "+ 1", "+ 2", 1)), unlike, "function h "},
		{"other variable", build("data.so", strings.Replace(source, "= 5", "= 6", 1)), unlike, ".data"},
		{"more code", build("more.so", source+"int k(int x) { return h(x) * g(x); }"), unlike, ""},
	} {
		is, why := compare(stock, test.file)
		if is != test.want || !strings.Contains(why, test.words) {
			t.Errorf("%s: %v (%s), want %v about %q", test.name, is, why, test.want, test.words)
		}
	}
	twin, err := renamed(stock, build("names.so", source))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "twin.so"), string(twin))
	again, err := openELF(filepath.Join(dir, "twin.so"))
	if err != nil {
		t.Fatal(err)
	}
	if is, why := compare(stock, again); is != sameID {
		t.Errorf("the twin under the stock file's build-id: %v %s", is, why)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.so"), stock.data[:len(stock.data)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openELF(filepath.Join(dir, "bad.so")); err == nil {
		t.Error("half a file was read")
	}
}
