package peers

import (
	"fmt"
	"strings"
	"testing"

	"livemend.dev/livemend/agent/userspace"
	"livemend.dev/livemend/author/refusal"
)

// Cases about what functions and variables look like.
var (
	parameters = library.add("parameters", `
struct pair { long a; double b; };
struct large { long v[6]; };
KEEP long parameters_ints(int a, long b, char c, short d, unsigned e, long f, long g, int h, long i, char j) {
	return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j;
}
KEEP double parameters_floats(double a, float b, double c, double d, float e, double f, double g, double h, double i, double j, long double k) {
	return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j + 11 * k;
}
KEEP struct large parameters_structs(struct pair p, struct large l, struct pair *q) {
	l.v[0] += p.a; l.v[1] += p.b; l.v[5] += q->a;
	return l;
}
KEEP long parameters_varied(int n, ...) {
	va_list l;
	va_start(l, n);
	double sum = 0;
	while (n-- > 0) { sum += va_arg(l, long); sum += va_arg(l, double); }
	va_end(l);
	return sum;
}
long parameters_all(long x) {
	struct pair p = {x, x + 0.5}, q = {7 * x, 0};
	struct large l = {{1, 2, 3, 4, 5, 6}};
	l = parameters_structs(p, l, &q);
	return parameters_ints(x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7, x + 8, x + 9)
		+ 1000 * (long)parameters_floats(x, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		+ 1000000 * (l.v[0] + l.v[1] + l.v[5]) + 100000000 * parameters_varied(3, x, 1.0, 2L, 2.0, 3L, 3.0);
}
`)
	// The red zone is stack below the stack pointer that a leaf function uses.
	redzone = library.add("redzone", `
static volatile int quit, broken, rounds;
long redzone_work(long x) { volatile long v[12]; for (int i = 0; i < 12; i++) v[i] = x + i; return v[11] + v[3]; }
KEEP static long spin(long seed) {
	volatile long v[14];
	for (int i = 0; i < 14; i++) v[i] = seed * i;
	for (volatile int n = 0; n < 20000; n++) { }
	long bad = 0;
	for (int i = 0; i < 14; i++) bad += v[i] != seed * i;
	return bad;
}
static void *spins(void *a) {
	for (long i = 1; !quit; i++) { if (spin(i)) broken++; rounds++; }
	return 0;
}
long redzone_start(long n) {
	while (n-- > 0) { pthread_t t; if (pthread_create(&t, 0, spins, 0)) abort(); }
	return 0;
}
long redzone_rounds(long n) { return rounds; }
long redzone_broken(long n) { return broken; }
`)
	// Its first bytes lie on two pages: see the linker's flag at crossing.
	crossing = (&binary{name: "libcrossing.so", flags: []string{"-shared", "-Wl,--section-start=edge=0x40ffe"}}).add("pagecross", `
static volatile long seen_edge;
__attribute__((section("edge"))) long pagecross(long x) { seen_edge = x; return x + 1; }
`, "-falign-functions=1")
	hidden = library.add("hidden", `
__attribute__((visibility("hidden"))) long hidden_total = 100;
__attribute__((visibility("hidden"))) KEEP long hidden_add(long x) { hidden_total += x; return hidden_total; }
long hidden_call(long x) { return hidden_add(x); }
`)
	visibility = library.add("visibility", `
long visibility(long x) { return x * 5 + (x >> 3); }
`)
	access = library.add("access", `
static long secret = 7;
static struct { long a, b; } box = {1, 2};
long access_get(long x) { return secret + x; }
long access_set(long x) { secret = x; box.b = x; return box.a; }
`)
	// The other file has a variable and a function of the same names.
	accessOne = library.add("accessone", `
static long common = 100;
KEEP static long shift(long x) { common += x; return common; }
long access2_one(long x) { return shift(x); }
`)
	accessTwo = library.add("accesstwo", `
static long common = 200;
KEEP static long shift(long x) { common += 2 * x; return common; }
long access2_two(long x) { return shift(x); }
`)
	accessInProgram = program.add("processaccess", `
static long own_secret = 9;
static long last_seen;
long process_access(long x) { last_seen = x; return own_secret + x; }
long process_access_last(long x) { if (x) own_secret = x; return last_seen; }
`)
	endbr = library.add("endbr64", `
long endbr64(long x) { return x * 3 + (x >> 1); }
long endbr64_caller(long x) { long (*volatile f)(long) = endbr64; return f(x); }
`, "-fcf-protection=branch")
	tiny = library.add("livepatchable", `
long livepatchable_tiny(long x) { return x; }
long livepatchable(long x) { return x * 3 + (x >> 1); }
`)
	ghost = library.add("missing", `
long missing_function(long x) { return x * 3 + (x >> 1); }
`)
	manyFunctions = library.add("insnqueue", manyText())
)

func init() { ghost.apart = true }

const queued = 60

// manyText has many functions that the sum of all calls.
func manyText() string {
	var b strings.Builder
	b.WriteString("static volatile long seen_queue;\n")
	for i := range queued {
		fmt.Fprintf(&b, "KEEP long insn_queue_%d(long x) { seen_queue = x; return x + 1; }\n", i)
	}
	b.WriteString("long insn_queue(long x) {\n\tlong sum = 0;\n")
	for i := range queued {
		fmt.Fprintf(&b, "\tsum += insn_queue_%d(x);\n", i)
	}
	b.WriteString("\treturn sum;\n}\n")
	return b.String()
}

// shapes are the cases that change one binary's code and look at the answers.
func shapes(t *testing.T) {
	t.Run("parameters", func(t *testing.T) {
		p := start(t)
		fix := parameters.fix(t, 1, "10 * j;\n}\nKEEP double", "11 * j;\n}\nKEEP double", "10 * j + 11 * k", "20 * j + 11 * k",
			"l.v[1] += p.b;", "l.v[1] += 2 * p.b;", "va_arg(l, double); }", "2 * va_arg(l, double); }")
		before := p.number("parameters_all 10")
		p.apply(fix)
		// One more tenth int (19), ten more tenth floats (9), the pair's 10.5
		// as 21 instead of 10, and 6.0 more of the varied ones.
		p.want("parameters_all 10", fmt.Sprint(before+19+1000*90+1000000*11+100000000*6))
		p.revert(fix)
		p.want("parameters_all 10", fmt.Sprint(before))
	})
	t.Run("redzone", func(t *testing.T) {
		p := start(t)
		fix := redzone.fix(t, 1, "return v[11] + v[3];", "return v[11] + v[4];")
		p.want("redzone_start 2", "0")
		for range 10 {
			p.want("redzone_work 1", "16")
			p.apply(fix)
			p.want("redzone_work 1", "17")
			p.revert(fix)
		}
		p.reaches("redzone_rounds", p.number("redzone_rounds")+10)
		p.want("redzone_broken", "0")
	})
	t.Run("pagecross", func(t *testing.T) {
		p := startWith(t, crossing.binary)
		fix := crossing.fix(t, 1, "x + 1", "x + 2")
		if at := fix.File.Hunks[0].Off; at%4096 != 4094 {
			t.Fatalf("the function lies at %#x", at)
		}
		p.want("pagecross 5", "6")
		p.apply(fix)
		p.want("pagecross 5", "7")
		p.revert(fix)
		p.want("pagecross 5", "6")
	})
	t.Run("hidden", func(t *testing.T) {
		p := start(t)
		fix := hidden.fix(t, 1, "hidden_total += x; return hidden_total;", "hidden_total += 2 * x; return hidden_total + 1;")
		p.want("hidden_call 5", "105")
		p.apply(fix)
		p.want("hidden_call 5", "116")
		p.want("known hidden_add", "no")
	})
	// What the patch brings is nobody else's: neither does a lookup find it nor
	// does it take the place of the program's own.
	t.Run("visibility", func(t *testing.T) {
		p := start(t)
		fix := visibility.fix(t, 1, "long visibility(long x) {", "KEEP long simplest(long x) { return x + 1000; }\nKEEP long visibility_new(long x) { return x; }\nlong visibility(long x) { x = simplest(visibility_new(x));")
		p.apply(fix)
		p.want("visibility 0", fmt.Sprint(1000*5+1000/8))
		p.want("simplest 5", "6")
		p.want("known visibility_new", "no")
	})
	t.Run("access", func(t *testing.T) {
		p := start(t)
		fix := access.fix(t, 1, "return secret + x;", "secret++; return secret * 10 + box.b + x;")
		p.want("access_set 20", "1")
		p.apply(fix)
		p.want("access_get 5", "235")
		p.want("access_set 1", "1")
		p.want("access_get 5", "26")
		p.revert(fix)
		p.want("access_get 0", "2") // as the patch left it
	})
	t.Run("access2", func(t *testing.T) {
		p := start(t)
		fix := accessTwo.fix(t, 1, "return shift(x); }", "return shift(x) + 1000 * common; }")
		p.apply(fix)
		p.want("access2_one 5", "105")
		p.want("access2_two 5", "210210")
		p.revert(fix)
		p.want("access2_two 5", "220")
		p.want("access2_one 5", "110")
		p.apply(accessOne.fix(t, 1, "return shift(x); }", "return shift(x) + 1000 * common; }"))
		p.want("access2_one 5", "115115")
	})
	t.Run("process_access", func(t *testing.T) {
		p := start(t)
		fix := accessInProgram.fix(t, 1, "last_seen = x; return own_secret + x;", "last_seen = 2 * x; return ++own_secret + x;")
		p.want("process_access 1", "10")
		p.apply(fix)
		p.want("process_access 1", "11")
		p.want("process_access_last", "2")
		p.revert(fix)
		p.want("process_access 1", "11")
	})
	t.Run("endbr64", func(t *testing.T) {
		p := start(t)
		fix := endbr.fix(t, 1, "x * 3", "x * 4")
		if fix.File.Hunks[0].JumpOff() != 4 {
			t.Fatal("the compiler made no endbr64")
		}
		p.want("endbr64_caller 2", "7")
		p.apply(fix)
		p.want("endbr64_caller 2", "9")
		p.revert(fix)
		p.want("endbr64_caller 2", "7")
	})
	t.Run("livepatchable", func(t *testing.T) {
		if _, err := tiny.try(t, 1, "return x; }", "return x * 77; }"); !refusal.Is(err, refusal.Small) {
			t.Errorf("a function without room for a jump: %v", err)
		}
		p := start(t)
		p.apply(tiny.fix(t, 1, "x * 3", "x * 4"))
		p.want("livepatchable 2", "9")
	})
	t.Run("missing_function", func(t *testing.T) {
		if _, err := ghost.try(t, 1, "x * 3", "x * 4"); !refusal.Is(err, refusal.Nothing) {
			t.Errorf("a function that the library has not: %v", err)
		}
	})
	t.Run("insn_queue", func(t *testing.T) {
		p := start(t)
		fix := manyFunctions.fix(t, 1, "return x + 1;", "return x + 3;")
		if n := len(fix.File.Hunks); n != queued {
			t.Errorf("%d functions are redirected, want %d", n, queued)
		}
		p.want("insn_queue 1", fmt.Sprint(2*queued))
		p.apply(fix)
		p.want("insn_queue 1", fmt.Sprint(4*queued))
		p.does(engine(patience).Status, fix, userspace.Patched)
		p.revert(fix)
		p.want("insn_queue 1", fmt.Sprint(2*queued))
	})
}
