package author_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"livemend.dev/livemend/author"
	"livemend.dev/livemend/author/authortest"
	"livemend.dev/livemend/author/refusal"
)

var cloned = authortest.Files{"a.c": head + `
	struct box { int a, b, c; };
	HIDE int scaled(int x, int by) { for (int i = 0; i < x; i++) by += x ^ i; return by; }
	HIDE int summed(const struct box *b, int unused) { return b->a * 3 + b->b; }
	__attribute__((noinline)) int one(int x) { return scaled(x, 7) + 1; }
	__attribute__((noinline)) int two(int x) { return scaled(x + 1, 7) * 2; }
	__attribute__((noinline)) int three(struct box *b) { return summed(b, 1) + summed(b, 2); }
	void show(void) { struct box b = {1, 2, 3}; printf("%d %d %d", one(3), two(3), three(&b)); }`,
}

var dispatch = authortest.Files{"a.c": head + `
	struct ops { const char *name; int (*run)(int); };
	HIDE int plus(int x) { return (x ^ 1) * 3 + 10; }
	HIDE int minus(int x) { return (x ^ 3) * 3 - 10; }
	static const struct ops fixed[] = {{"plus", plus}, {"minus", minus}};
	static struct ops moving[] = {{"minus", minus}, {"plus", plus}};
	__attribute__((noinline)) int run(int i, int x) { return fixed[i].run(x) * 100 + moving[i].run(x); }
	void show(void) { printf("%d %d", run(0, 50), run(1, 50)); }`,
}

var bindings = authortest.Files{"a.c": head + `
	__attribute__((weak, noinline)) int soft(int x) { return x * 3 + 1; }
	__attribute__((visibility("protected"), noinline)) int kept(int x) { return x * 5 + 1; }
	__attribute__((visibility("protected"))) int level = 4;
	int common_one;
	__attribute__((weak)) int nowhere(int);
	__attribute__((noinline)) int all(int x) { common_one += x; return soft(x) + kept(x) + level + common_one + (nowhere ? 1000 : 0); }
	void show(void) { printf("%d", all(2)); }`,
}

var calls = authortest.Files{
	"a.c": head + `
		int area(int x);
		__attribute__((noinline)) int twice(int x) { return area(x) * 2; }
		void show(void) { printf("%d", twice(3)); }`,
	"b.c": head + `
		HIDE int square(int x) { return x * x; }
		int area(int x) { return square(x) + 1; }`,
}

var kinds = authortest.Files{"a.c": head + `
	enum kind { FIRST, SECOND };
	struct item { enum kind kind; int size; };
	__attribute__((noinline)) int weigh(struct item *i) { return i->kind == SECOND ? i->size * 2 : i->size + 1; }
	void show(void) { struct item i = {SECOND, 21}; printf("%d", weigh(&i)); }`,
}

var library = authortest.Files{"a.c": head + `
	static __thread int mine = 3, other;
	__thread int ours = 4;
	__attribute__((noinline)) int bump(int x) { mine += x; other -= x; return mine + other * 10 + ours++ * 100; }
	void show(void) { printf("%d ", bump(1)); }`,
}

// features are what security fixes need beside changes.
var features = []change{
	{
		name: "clones of a function with constant arguments", before: cloned, after: edit(cloned, "a.c", "by += x ^ i", "by += x | i"),
		replaces: "scaled.constprop.0", says: "14 58 10", then: "17 58 10",
	}, {
		name: "a clone comes", before: cloned, after: edit(cloned, "a.c", "scaled(x + 1, 7)", "scaled(x + 1, 9)"),
		replaces: "one two", adds: "scaled", says: "14 58 10", then: "14 62 10",
	}, {
		name: "a clone with other arguments", before: cloned, after: edit(cloned, "a.c", "return b->a * 3 + b->b;", "return b->a * 3 + b->b + unused * b->c;"),
		replaces: "three", adds: "summed.isra.0", says: "14 58 10", then: "14 58 19",
	}, {
		name: "pointers to changed static functions in tables", before: dispatch, after: edit(dispatch, "a.c", "* 3 - 10", "* 3 - 20"),
		replaces: "minus", says: "16437 13863", then: "16427 12863",
	}, {
		name: "weak, protected and common names", before: bindings, after: edit(bindings, "a.c", "return soft(x)", "return 1 + soft(x)"),
		objects: []string{"-fcommon"}, replaces: "all", says: "24", then: "27",
	}, {
		name: "a changed weak function", before: bindings, after: edit(edit(bindings, "a.c", "x * 3 + 1", "x * 3 + 2"), "a.c", "x * 5 + 1", "x * 5 + 3"),
		replaces: "kept soft", says: "24", then: "29",
	}, {
		name: "a new global function called from another object", before: calls,
		after:    edit(edit(calls, "a.c", "return area(x) * 2", "int volume(int); return volume(x)"), "b.c", "int area", "int volume(int x) { return square(x) * x + 5; }\nint area"),
		replaces: "twice", adds: "volume", says: "20", then: "32",
	}, {
		name: "a static function that is gone", before: calls, after: edit(calls, "b.c", "square(x) + 1", "x + 2"),
		replaces: "area", says: "20", then: "10",
	}, {
		name: "one more value at the end of an enumeration", before: kinds,
		after:    edit(edit(kinds, "a.c", "FIRST, SECOND", "FIRST, SECOND, THIRD"), "a.c", "i->size * 2", "i->kind == THIRD ? 0 : i->size * 4"),
		replaces: "weigh", says: "42", then: "84",
	}, {
		name: "a switch where indirect jumps are tracked", before: table, after: edit(table, "a.c", "noise * 3 + 1", "noise * 3 + 2"),
		objects: []string{"-fcf-protection"}, replaces: "next_step next_step.cold", says: "17 1 66 -1", then: "17 2 66 -1",
	}, {
		name: "thread-local variables", before: library, after: edit(library, "a.c", "other * 10", "other * 10 + 5000"),
		replaces: "bump", says: "394 ", then: "5485 ",
	}, {
		name: "thread-local variables at a fixed distance", before: library, after: edit(library, "a.c", "other * 10", "other * 10 + 5000"),
		objects: []string{"-ftls-model=initial-exec"}, replaces: "bump", says: "394 ", then: "5485 ",
	}, {
		name: "thread-local variables without a procedure linkage table", before: library, after: edit(library, "a.c", "other * 10", "other * 10 + 5000"),
		objects: []string{"-fno-plt"}, replaces: "bump", says: "394 ", then: "5485 ",
	},
}

// traps are changes like those that must not become a patch.
var traps = []bad{
	{name: "a value in the middle of an enumeration", before: kinds, after: edit(kinds, "a.c", "FIRST, SECOND", "FIRST, MIDDLE, SECOND"), kind: refusal.Layout, place: "kind"},
	{name: "a structure that grows", before: kinds, after: edit(edit(kinds, "a.c", "int size; };", "int size, more; };"), "a.c", "i->size * 2", "i->size * i->more"), kind: refusal.Layout, place: "item"},
	{name: "a hidden name that nobody defines", before: calls, after: edit(calls, "a.c", "return area(x) * 2", `extern __attribute__((visibility("hidden"))) int lost(int); return lost(x)`), kind: refusal.Import, place: "twice"},
}

// A C object of a library that has C++ beside it is patched like any other; the
// C++ itself is not.
func TestBuildBesideExceptions(t *testing.T) {
	t.Parallel()
	c := authortest.Files{"a.c": head + `
		int careful(int);
		__attribute__((noinline)) int work(int x) { return careful(x) * 3; }
		void show(void) { printf("%d", work(2)); }`,
	}
	const careful = `
		struct guard { ~guard() { __asm__ volatile(""); } };
		static void check(int x) { if (x > 1) throw x; }
		extern "C" int careful(int x) { try { guard g; check(x); } catch (int e) { return e + 5; } return 0; }`
	dir := t.TempDir()
	plus := func(folder, text string) string {
		t.Helper()
		source, object := filepath.Join(dir, "plus.cc"), filepath.Join(folder, "plus.o")
		if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		authortest.Run(t, dir, "g++", "-O2", "-g", "-fPIC", "-ffunction-sections", "-fdata-sections", "-c", source, "-o", object)
		return object
	}
	before, after := authortest.Objects(t, c, authortest.Sections()...), authortest.Objects(t, edit(c, "a.c", "* 3", "* 4"), authortest.Sections()...)
	object := plus(before, careful)
	plus(after, careful)
	binary, twin := authortest.Library(t, c, object, "-lstdc++")
	r, err := author.Build(t.Context(), request(t, before, after, binary, twin))
	if err != nil {
		t.Fatal(err)
	}
	if says, then := authortest.Apply(t, binary, r.Image); says != "21" || then != "28" {
		t.Errorf("it says %q, then %q", says, then)
	}
	plus(after, strings.Replace(careful, "e + 5", "e + 6", 1))
	_, err = author.Build(t.Context(), request(t, before, after, binary, twin))
	checkRefusal(t, err, refusal.Exceptions, "careful")
}
