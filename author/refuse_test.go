package author_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/refusal"
)

// bad is a change that must not become a patch.
type bad struct {
	name          string
	before, after authortest.Files
	objects       []string         // flags of the objects beside those for sections
	library       []string         // flags of the library, which is built like the old objects
	stock         authortest.Files // of the library; nil for the old sources
	together      bool             // true: without the flags for sections
	kind          refusal.Kind
	place         string // part of the refusal's place
}

var plain = authortest.Files{"a.c": head + `
	int table[] = {1, 2, 3};
	__thread int own;
	const int limit = 100;
	static int (*const calls[])(int) = {abs, abs};
	__attribute__((noinline)) int work(int x) { return x * x + table[x & 1]; }
	__attribute__((noinline)) int tiny(int x) { return x; }
	__attribute__((noinline)) int mine(int x) { return own += x * 3; }
	__attribute__((noinline)) int call(int x) { return calls[x & 1](x) * 5; }
	__attribute__((constructor)) void start(void) { table[2] = 9; }
	void show(void) { printf("%d %d %d %d %d", work(1), tiny(2), mine(3), call(4), limit); }`,
}

// twins has two hidden functions and two variables that differ by name alone.
var twins = authortest.Files{
	"a.c": head + `
		__attribute__((visibility("hidden"))) int left(int), right(int);
		extern __attribute__((visibility("hidden"))) int total, count;
		__attribute__((noinline)) int go(int x) { total += x; return left(x) + total * count; }
		void show(void) { printf("%d", go(1)); }`,
	"b.c": head + `
		__attribute__((visibility("hidden"))) int total, count;
		__attribute__((visibility("hidden"))) int left(int x) { return x * 10; }
		__attribute__((visibility("hidden"))) int right(int x) { return x * 20; }`,
}

var threads = authortest.Files{"a.c": head + `
	__thread int shared;
	__thread int unused = 1;
	__attribute__((noinline)) int bump(int x) { return *(int *)&shared += x; }
	__attribute__((noinline)) int work(int x) { return x * x; }
	void show(void) { printf("%d %d", bump(1), work(2)); }`,
}

var loop = authortest.Files{"a.c": head + `
	asm(".section .text.spin,\"ax\",@progbits; .globl spin; .type spin,@function;"
	    "spin: xor %eax,%eax; mov $7,%ecx; 1: inc %eax; 2: inc %ecx; cmp %edi,%eax; jb 1b; ret; .size spin,.-spin; .text");
	__attribute__((noinline)) int work(int x) { return x * 5 - (x >> 1); }
	void show(void) { printf("%d", work(2)); }`,
}

var writableLabels = authortest.Files{"a.c": head + `
	__attribute__((noinline)) int interpret(const char *p, int patch) {
		static const void *ops[] = {&&stop, &&add, &&sub};
		int x = 1;
		if (patch) ops[patch] = &&stop;
		goto *ops[*p++ & 3];
	add: x += 1; goto *ops[*p++ & 3];
	sub: x -= 7; goto *ops[*p++ & 3];
	stop: return x;
	}
	void show(void) { printf("%d", interpret("\1\2\0", 0)); }`,
}

const workBody = "return x * x + table[x & 1];"

var refusals = []bad{
	{name: "nothing changed", before: plain, after: plain, kind: refusal.Nothing},
	{name: "an initial value", before: plain, after: edit(plain, "a.c", "{1, 2, 3}", "{1, 2, 4}"), kind: refusal.Data, place: "table"},
	{name: "the size of a variable", before: plain, after: edit(plain, "a.c", "{1, 2, 3}", "{1, 2, 3, 0}"), kind: refusal.Data, place: "table"},
	{name: "a variable becomes thread-local", before: plain, after: edit(plain, "a.c", "int table[]", "__thread int table[]"), kind: refusal.ThreadLocal, place: "table"},
	{name: "a new thread-local variable", before: plain, after: edit(plain, "a.c", workBody, "static __thread int n; return x + ++n;"), kind: refusal.ThreadLocal, place: "n."},
	{name: "a thread-local variable without a slot", before: threads, after: edit(threads, "a.c", "return x * x;", "return x * x + unused;"), kind: refusal.ThreadLocal, place: "work"},
	{name: "a thread-local variable through a descriptor", before: threads, after: edit(threads, "a.c", "&shared += x", "&shared += 2 * x"), objects: []string{"-mtls-dialect=gnu2"}, library: []string{"-mtls-dialect=gnu2"}, kind: refusal.ThreadLocal, place: "bump"},
	{name: "a thread-local variable that grows", before: threads, after: edit(threads, "a.c", "__thread int shared", "__thread int shared[2]"), kind: refusal.ThreadLocal, place: "shared"},
	{name: "a constant that others read", before: plain, after: edit(plain, "a.c", "limit = 100", "limit = 101"), kind: refusal.Constant, place: "limit"},
	{name: "a table of functions", before: plain, after: edit(plain, "a.c", "{abs, abs}", "{abs, labs}"), kind: refusal.Constant, place: "calls"},
	{name: "a function too small for a jump", before: plain, after: edit(plain, "a.c", "tiny(int x) { return x; }", "tiny(int x) { return x * 77; }"), kind: refusal.Small, place: "tiny"},
	{name: "code that has run already", before: plain, after: edit(plain, "a.c", "table[2] = 9", "table[2] = 8"), kind: refusal.Initialiser, place: "start"},
	{name: "more code at load time", before: plain, after: edit(plain, "a.c", "void show", "__attribute__((constructor)) void also(void) { table[1] = 3; }\nvoid show"), kind: refusal.Initialiser, place: "init_array"},
	{name: "a new import", before: plain, after: edit(plain, "a.c", workBody, "return x + getpagesize();"), kind: refusal.Import, place: "work"},
	{name: "one section for all", before: plain, after: edit(plain, "a.c", "x * x", "x * x * x"), together: true, kind: refusal.Sections, place: "work"},
	{name: "link-time optimisation", before: plain, after: edit(plain, "a.c", "x * x", "x * x * x"), objects: []string{"-flto"}, kind: refusal.LTO, place: "a.o"},
	{name: "another level of optimisation", before: plain, after: edit(plain, "a.c", "x * x", "x * x * x"), library: []string{"-O1"}, kind: refusal.Foreign, place: "a.o"},
	{name: "other sources", before: edit(plain, "a.c", "x * 3", "x * 5"), after: edit(plain, "a.c", "x * x", "x * x * x"), stock: plain, kind: refusal.Foreign, place: "mine"},
	{name: "the same code with another callee", before: twoFiles, after: edit(twoFiles, "a.c", "x * x", "x * x * x"), stock: edit(twoFiles, "a.c", "from_b", "from_c"), kind: refusal.Foreign, place: "show"},
	{name: "the same code with another hidden callee", before: twins, after: edit(twins, "a.c", "total +=", "total -="), stock: edit(twins, "a.c", "left(x)", "right(x)"), kind: refusal.Foreign, place: "go"},
	{name: "the same code with another variable", before: twins, after: edit(twins, "a.c", "total +=", "total -="), stock: edit(twins, "a.c", "total +=", "count +="), kind: refusal.Foreign, place: "go"},
	{name: "the same instructions with another jump", before: loop, after: edit(loop, "a.c", "x * 5", "x * 7"), stock: edit(loop, "a.c", "jb 1b", "jb 2b"), kind: refusal.Foreign, place: "spin"},
	{name: "a variable with places inside a function", before: writableLabels, after: edit(writableLabels, "a.c", "x -= 7", "x -= 8"), kind: refusal.Data, place: "interpret"},
	{name: "exceptions", before: plain, after: edit(plain, "a.c", workBody, "__attribute__((cleanup(free_it))) char *p = 0; show(); return x + *p;"), objects: []string{"-fexceptions"}, kind: refusal.Exceptions, place: "work"},
	{
		name:   "an indirect function",
		before: edit(plain, "a.c", "void show", "static int fast(int x) { return x; }\nstatic void *resolve(void) { return fast; }\nint chosen(int) __attribute__((ifunc(\"resolve\")));\nvoid show"),
		after:  edit(plain, "a.c", "void show", "static int fast(int x) { return x; }\nstatic int slow(int x) { return x; }\nstatic void *resolve(void) { return getenv(\"S\") ? slow : fast; }\nint chosen(int) __attribute__((ifunc(\"resolve\")));\nvoid show"),
		kind:   refusal.IFunc, place: "a.o",
	}, {
		name:   "a jump into the entry",
		before: edit(plain, "a.c", "void show", "asm(\".section .text.spin,\\\"ax\\\",@progbits; .globl spin; .type spin,@function; spin: xor %eax,%eax; 1: inc %eax; cmp %edi,%eax; jb 1b; ret; .size spin,.-spin; .text\");\nvoid show"),
		after:  edit(plain, "a.c", "void show", "asm(\".section .text.spin,\\\"ax\\\",@progbits; .globl spin; .type spin,@function; spin: xor %eax,%eax; 1: inc %eax; cmp %edi,%eax; jbe 1b; ret; .size spin,.-spin; .text\");\nvoid show"),
		kind:   refusal.Branch, place: "spin",
	}, {
		name:   "a return into the entry",
		before: edit(plain, "a.c", "void show", "asm(\".section .text.spin,\\\"ax\\\",@progbits; .globl spin; .type spin,@function; spin: push %rbx; call *%rdi; inc %eax; pop %rbx; ret; .size spin,.-spin; .text\");\nvoid show"),
		after:  edit(plain, "a.c", "void show", "asm(\".section .text.spin,\\\"ax\\\",@progbits; .globl spin; .type spin,@function; spin: push %rbx; call *%rdi; dec %eax; pop %rbx; ret; .size spin,.-spin; .text\");\nvoid show"),
		kind:   refusal.Branch, place: "spin",
	}, {
		name:   "code that cannot be read",
		before: edit(plain, "a.c", "void show", "asm(\".section .text.wide,\\\"ax\\\",@progbits; .globl wide; .type wide,@function; wide: vpaddd %ymm1,%ymm0,%ymm0; mov $1,%eax; ret; .size wide,.-wide; .text\");\nvoid show"),
		after:  edit(plain, "a.c", "void show", "asm(\".section .text.wide,\\\"ax\\\",@progbits; .globl wide; .type wide,@function; wide: vpaddd %ymm1,%ymm0,%ymm0; mov $2,%eax; ret; .size wide,.-wide; .text\");\nvoid show"),
		kind:   refusal.Undecodable, place: "wide",
	}, {
		name:   "static variables that cannot be told apart",
		before: edit(plain, "a.c", workBody, "{ static int n; n += x; } { static int n; return x + n++; }"),
		after:  edit(plain, "a.c", workBody, "{ static int n; return 3 * x + n++; }"),
		kind:   refusal.Symbol, place: "n.",
	}, {
		name:   "a function that moved to another file",
		before: authortest.Files{"a.c": plain["a.c"], "b.c": head + "int other(int x) { return x * 31 + 7; }"},
		after:  authortest.Files{"a.c": edit(plain, "a.c", "void show", "int other(int x) { return x * 31 + 8; }\nvoid show")["a.c"], "b.c": head},
		kind:   refusal.Symbol, place: "other",
	},
}

func TestBuildRefuses(t *testing.T) {
	for _, c := range slices.Concat(refusals, traps) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			flags := slices.Clone(c.objects)
			if !c.together {
				flags = append(flags, authortest.Sections()...)
			}
			if slices.Contains(c.objects, "-fexceptions") {
				free := "void show(void); static void free_it(char **p) { *p = 0; show(); }\nconst int limit"
				c.before, c.after = edit(c.before, "a.c", "const int limit", free), edit(c.after, "a.c", "const int limit", free)
			}
			before, after := authortest.Objects(t, c.before, flags...), authortest.Objects(t, c.after, flags...)
			if c.stock == nil {
				c.stock = c.before
			}
			binary, twin := authortest.Library(t, c.stock, c.library...)
			_, err := author.Build(t.Context(), request(t, before, after, binary, twin))
			checkRefusal(t, err, c.kind, c.place)
		})
	}
}

func checkRefusal(t *testing.T, err error, kind refusal.Kind, place string) {
	t.Helper()
	if !refusal.Is(err, kind) {
		t.Fatalf("want a refusal of kind %s, have: %v", kind, err)
	}
	for _, r := range refusal.All(err) {
		if r.Kind == kind && strings.Contains(r.Place, place) {
			return
		}
	}
	t.Fatalf("the refusal does not name %q: %v", place, err)
}

// TestBuildRefusesBinaries has what is wrong with the binary or its twin.
func TestBuildRefusesBinaries(t *testing.T) {
	t.Parallel()
	before := authortest.Objects(t, plain, authortest.Sections()...)
	fixed := edit(plain, "a.c", "x * x", "x * x * x")
	after := authortest.Objects(t, fixed, authortest.Sections()...)
	binary, twin := authortest.Library(t, plain)
	_, otherTwin := authortest.Library(t, fixed)
	dir := t.TempDir()
	goBinary := filepath.Join(dir, "go.so")
	if err := os.WriteFile(filepath.Join(dir, "note"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	authortest.Run(t, dir, "objcopy", "--add-section", ".go.buildinfo=note", twin, goBinary)
	damaged := filepath.Join(dir, "damaged.so")
	content, err := os.ReadFile(twin)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(content), "%d %d %d %d %d")
	content[at] = '#'
	if err := os.WriteFile(damaged, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, binary, twin string
		kind               refusal.Kind
		place              string
	}{
		{"stripped and no twin", binary, "", refusal.Symbol, "binary"},
		{"the twin of another build", binary, otherTwin, refusal.Foreign, "twin"},
		{"a Go program", goBinary, "", refusal.Language, "binary"},
		{"a text that differs", damaged, "", refusal.Foreign, "show"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := author.Build(t.Context(), request(t, before, after, c.binary, c.twin))
			checkRefusal(t, err, c.kind, c.place)
		})
	}
	t.Run("a binary with its own symbols needs no twin", func(t *testing.T) {
		if _, err := author.Build(t.Context(), request(t, before, after, twin, "")); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("the fixed binary", func(t *testing.T) {
		_, err := author.Build(t.Context(), request(t, before, after, otherTwin, ""))
		checkRefusal(t, err, refusal.Foreign, "work")
	})
}

// TestBuildReadsOnlyObjects has trees that are not builds.
func TestBuildReadsOnlyObjects(t *testing.T) {
	t.Parallel()
	binary, twin := authortest.Library(t, plain)
	good := authortest.Objects(t, plain, authortest.Sections()...)
	empty, broken := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "a.o"), []byte("\x7fELF\x02\x01\x01 and then nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, before, after, binary string }{
		{"no objects", empty, good, binary},
		{"a broken object", good, broken, binary},
		{"no folder", filepath.Join(empty, "none"), good, binary},
		{"an object for a binary", good, good, filepath.Join(good, "a.o")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := author.Build(t.Context(), request(t, c.before, c.after, c.binary, twin)); err == nil || len(refusal.All(err)) > 0 {
				t.Fatalf("want an error that is no refusal, have %v", err)
			}
		})
	}
}
