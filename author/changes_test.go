package author_test

import "livemend.dev/livemend/author/authortest"

var twoFiles = authortest.Files{
	"a.c": head + `
		HIDE int check(int x) { return x * x + 1; }
		int from_b(int);
		void show(void) { printf("%d %d", check(10), from_b(10)); }`,
	"b.c": head + `
		HIDE int check(int x) { return x * x + 2; }
		int from_b(int x) { return check(x) * 2; }`,
}

var inlined = authortest.Files{"a.c": head + `
	static inline int limit(int x) { return x > 100 ? 100 : x; }
	__attribute__((noinline)) int first(int x) { return limit(x) + 1; }
	__attribute__((noinline)) int second(int x) { return limit(x * 2) + 2; }
	__attribute__((noinline)) int third(int x) { return x * x + 3; }
	void show(void) { printf("%d %d %d", first(500), second(500), third(20)); }`,
}

var text = authortest.Files{"a.c": head + `
	HIDE const char *greet(void) { return "hello"; }
	HIDE void other(void) { puts("other"); }
	void show(void) { puts(greet()); other(); }`,
}

var table = authortest.Files{"a.c": head + `
	int noise;
	__attribute__((noinline)) int next_step(int x) {
		switch (x) {
		case 0: return noise + 17;
		case 1: puts("one"); return 4;
		case 2: return strlen(getenv("HOME") ? "yes" : "no") + 3;
		case 3: return noise * 3 + 1;
		case 4: putchar('4'); return 9;
		case 5: return rand() & 1;
		case 6: return 66;
		}
		return -1;
	}
	void show(void) { printf("%d %d %d %d", next_step(0), next_step(3), next_step(6), next_step(7)); }`,
}

var state = authortest.Files{"a.c": head + `
	HIDE int ticket(void) { static int count = 5; return ++count; }
	HIDE int other(void) { static int count = 50; return ++count; }
	void show(void) { printf("%d %d ", ticket(), other()); }`,
}

var imports = authortest.Files{"a.c": head + `
	int visible = 7;
	__attribute__((noinline)) int api(int x) { return x + visible; }
	__attribute__((noinline)) void say(const char *s) { fputs(s, stdout); fprintf(stderr, "%s", ""); }
	HIDE void work(int x) { char b[32]; snprintf(b, sizeof b, "<%d>", api(x)); say(b); }
	void show(void) { work(1); work(2); fflush(stdout); }`,
}

var pointers = authortest.Files{"a.c": head + `
	HIDE int order(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
	__attribute__((noinline)) int (*chosen(void))(const void *, const void *) { return order; }
	int (*kept)(const void *, const void *);
	__attribute__((noinline)) void sorted(int *v) { if (!kept) kept = order; qsort(v, 3, sizeof *v, kept); printf("%d", kept == chosen()); }
	void show(void) { int v[] = {2, 3, 1}; sorted(v); printf(" %d%d%d", v[0], v[1], v[2]); }`,
}

var labels = authortest.Files{"a.c": head + `
	__attribute__((noinline)) int interpret(const char *p) {
		static const void *const ops[] = {&&stop, &&add, &&sub, &&dbl};
		int x = 1;
		goto *ops[*p++ & 3];
	add: x += 1; goto *ops[*p++ & 3];
	sub: x -= 7; goto *ops[*p++ & 3];
	dbl: x *= 2; goto *ops[*p++ & 3];
	stop: return x;
	}
	void show(void) { printf("%d", interpret("\1\3\3\2\0")); }`,
}

var constants = authortest.Files{"a.c": head + `
	static const int limits[] = {1, 2, 3, 5, 8, 13, 21};
	static const char *const names[] = {"zero", "one", "two"};
	__attribute__((noinline)) int limit(int i) { return limits[i]; }
	__attribute__((noinline)) const char *name(int i) { return names[i]; }
	__attribute__((noinline)) int untouched(int i) { return i; }
	void show(void) { printf("%d %s %d", limit(6), name(2), untouched(1)); }`,
}

var cold = authortest.Files{"a.c": head + `
	__attribute__((cold, noinline)) static void complain(const char *s, int n) { printf("%s%d ", s, n); }
	__attribute__((noinline)) int guarded(int x) {
		if (__builtin_expect(x > 100, 0)) { complain("large", x); complain("very", x); x = 100; }
		return x * 3;
	}
	void show(void) { printf("%d %d", guarded(7), guarded(700)); }`,
}

var aliases = authortest.Files{"a.c": head + `
	int real_name(int x) { return x * x + 1; }
	int other_name(int) __attribute__((alias("real_name")));
	__attribute__((noinline)) static int use(int x) { return other_name(x) + real_name(x); }
	void show(void) { printf("%d", use(1)); }`,
}

var hidden = authortest.Files{
	"a.c": head + `
		__attribute__((visibility("hidden"))) int shared(int);
		extern __attribute__((visibility("hidden"))) int total;
		__attribute__((noinline)) int go(int x) { total += x; return shared(x) + total; }
		void show(void) { printf("%d ", go(1)); }`,
	"b.c": head + `
		__attribute__((visibility("hidden"))) int total = 100;
		__attribute__((visibility("hidden"))) int shared(int x) { return x * 10; }`,
}

var tails = authortest.Files{"a.c": head + `
	HIDE int low(int x) { return x * 3 + (x >> 1); }
	HIDE int high(int x) { return x * 5 - (x >> 2); }
	__attribute__((noinline)) int pick(int x) {
		if (x < 10) return low(x + 1);
		for (int i = 0; i < x; i++) if (i * i > x) return high(i);
		return high(x + 2);
	}
	__attribute__((noinline)) int outer(int x) { return pick(x) ^ 1; }
	void show(void) { printf("%d %d %d", pick(3), pick(50), outer(9)); }`,
}

var floats = authortest.Files{"a.c": head + `
	__attribute__((noinline)) double area(double r) { return r * r * 3.0 + (r > 4.0 ? 0.5 : 0.25); }
	__attribute__((noinline)) void grow(float *v) { for (int i = 0; i < 8; i++) v[i] = v[i] * 1.5f + 2.0f; }
	void show(void) { float v[8] = {1, 2}; grow(v); printf("%.2f %.2f %.2f", area(5), v[0], v[1]); }`,
}

var asserts = authortest.Files{"a.c": head + `
	#define CHECK(c) do { if (!(c)) printf("line %d ", __LINE__); } while (0)
	__attribute__((noinline)) int fixed(int x) { return x * x * 3; }
	__attribute__((noinline)) int checked(int x) { CHECK(x < 5); return x + 1; }
	void show(void) { printf("%d ", fixed(7)); printf("%d", checked(7)); }`,
}

var changes = []change{
	{
		name: "line numbers below the fix", before: asserts, after: edit(asserts, "a.c", "return x * x * 3;", "\n\tif (x > 5)\n\t\treturn 0;\n\treturn x * x * 3;\n"),
		replaces: "fixed", says: "147 line 8 8", then: "0 line 8 8",
	},
	{
		name: "static functions of the same name in two files", before: twoFiles, after: edit(twoFiles, "b.c", "x + 2", "x + 3"),
		replaces: "check", says: "101 204", then: "101 206",
	}, {
		name: "an inlined function pulls in its callers", before: inlined, after: edit(inlined, "a.c", "> 100 ? 100", "> 50 ? 50"),
		replaces: "first second", says: "101 102 403", then: "51 52 403",
	}, {
		name: "a text", before: text, after: edit(text, "a.c", `"hello"`, `"good day"`),
		replaces: "greet", says: "hello\nother\n", then: "good day\nother\n",
	}, {
		name: "a switch with its table", before: table, after: edit(table, "a.c", "noise * 3 + 1", "noise * 3 + 2"),
		replaces: "next_step next_step.cold", says: "17 1 66 -1", then: "17 2 66 -1",
	}, {
		name: "a new function in the same file", before: inlined,
		after: edit(edit(inlined, "a.c", "__attribute__((noinline)) int third", "HIDE int clamp(int x) { return x < 0 ? 0 : x - 19; }\n__attribute__((noinline)) int third"),
			"a.c", "x * x + 3", "clamp(x) + 3"),
		replaces: "third", adds: "clamp", says: "101 102 403", then: "101 102 4",
	}, {
		name: "a new function in a new file", before: twoFiles,
		after: authortest.Files{
			"a.c": twoFiles["a.c"],
			"b.c": head + `
				__attribute__((visibility("hidden"))) int helper(int);
				HIDE int check(int x) { return helper(x) + 2; }
				int from_b(int x) { return check(x) * 2; }`,
			"c.c": head + `
				HIDE int inner(int x) { static int calls; return x + 100 * ++calls; }
				__attribute__((visibility("hidden"))) int helper(int x) { return inner(x) + inner(x); }`,
		},
		replaces: "check from_b", adds: "helper inner", says: "101 204", then: "101 644",
	}, {
		name: "static variables keep their values though their numbers shift", before: state,
		after: edit(state, "a.c", "{ static int count = 50; return ++count; }",
			"{ static int count = 50; static int extra[3]; static char *where = \"x\"; extra[1] += 2; count += extra[1] + *where - 'x'; return count; }"),
		replaces: "other", says: "6 51 ", then: "7 53 ",
	}, {
		name: "imports through the binary's slots", before: imports, after: edit(imports, "a.c", `"<%d>", api(x)`, `"[%d]", api(x) + 1`),
		replaces: "work", says: "<8><9>", then: "[9][10]",
	}, {
		name: "exported functions and variables", before: imports, after: edit(imports, "a.c", "return x + visible;", "visible += 100; return x + visible;"),
		replaces: "api", says: "<8><9>", then: "<108><209>",
	}, {
		name: "imports without a procedure linkage table", before: imports, after: edit(imports, "a.c", `"<%d>", api(x)`, `"[%d]", api(x) + 1`),
		objects: []string{"-fno-plt"}, replaces: "work", says: "<8><9>", then: "[9][10]",
	}, {
		name: "pointers to a replaced function stay equal", before: pointers,
		after:    edit(edit(pointers, "a.c", "*(const int *)a - *(const int *)b", "*(const int *)b - *(const int *)a"), "a.c", `printf("%d", kept`, `printf("<%d", kept`),
		replaces: "order sorted", says: "1 123", then: "<1 321",
	}, {
		name: "a table of labels", before: labels, after: edit(labels, "a.c", "x -= 7", "x -= 8"),
		replaces: "interpret", says: "1", then: "0",
	}, {
		name: "constants and a table of texts", before: constants, after: edit(edit(constants, "a.c", "13, 21", "13, 34"), "a.c", `"two"`, `"two!"`),
		replaces: "limit name", says: "21 two 1", then: "34 two! 1",
	}, {
		name: "a cold part follows its function", before: cold, after: edit(cold, "a.c", "x * 3", "x * 4"),
		replaces: "guarded guarded.cold", says: "large700 very700 21 300", then: "large700 very700 28 400",
	}, {
		name: "a change in the cold part alone", before: cold, after: edit(cold, "a.c", `"very", x`, `"much", x`),
		replaces: "guarded guarded.cold", says: "large700 very700 21 300", then: "large700 much700 21 300",
	}, {
		name: "two names at one address", before: aliases, after: edit(aliases, "a.c", "x * x + 1", "x * x + 11"),
		replaces: "real_name", says: "4", then: "24",
	}, {
		name: "hidden names of other files", before: hidden, after: edit(hidden, "a.c", "total += x;", "total += x + 1000;"),
		replaces: "go", says: "111 ", then: "1112 ",
	}, {
		name: "short jumps between functions", before: tails, after: edit(tails, "a.c", "low(x + 1)", "low(x + 2)"),
		replaces: "pick", says: "14 38 34", then: "17 38 39",
	}, {
		name: "numbers in merged constants", before: floats, after: edit(edit(floats, "a.c", "3.0", "3.5"), "a.c", "2.0f", "3.0f"),
		replaces: "area grow", says: "75.50 3.50 5.00", then: "88.00 4.50 6.00",
	}, {
		name: "functions that indirect branches may enter", before: pointers,
		after:    edit(pointers, "a.c", "*(const int *)a - *(const int *)b", "*(const int *)b - *(const int *)a"),
		objects:  []string{"-fcf-protection"},
		replaces: "order", says: "1 123", then: "1 321",
	}, {
		name: "without optimisation", before: imports, after: edit(imports, "a.c", `"<%d>", api(x)`, `"[%d]", api(x) + 1`),
		objects: []string{"-O0"}, replaces: "work", says: "<8><9>", then: "[9][10]",
	}, {
		name: "a binary that binds its own names", before: imports, after: edit(imports, "a.c", "x + visible", "x + 2 * visible"),
		library: []string{"-Wl,-Bsymbolic", "-Wl,-z,now"}, replaces: "api", says: "<8><9>", then: "<15><16>",
	},
}
