package peers

import (
	"testing"

	"livemend.dev/livemend/agent/userspace"
)

var (
	inProgram = program.add("simplest", `
long simplest(long x) { return x + 1; }
`)
	inLibrary = library.add("shared", `
long shared(long x) { return x + 1; }
`)
	funcInProgram = program.add("newfunc", `
static long total;
long new_func(long x) { total += x; return total; }
`)
	varInProgram = program.add("newvar", `
long new_var(long x) { return x * 3 - (x >> 2); }
`)
	origInLibrary = library.add("reforig", `
static long kept = 5;
KEEP static long own_orig(long x) { kept++; return x * 3; }
KEEP long other_orig(long x) { return x + kept; }
KEEP long ref_orig(long x) { return own_orig(x); }
static volatile int quit, rounds, broken;
static void *caller(void *a) {
	while (!quit) {
		long got = ref_orig(7);
		if (got != 21 && (got < 1010 || got > 1030)) broken++; // others change kept meanwhile
		rounds++;
		usleep(50); // most of the time outside
	}
	return 0;
}
long ref_orig_start(long n) {
	while (n-- > 0) { pthread_t t; if (pthread_create(&t, 0, caller, 0)) abort(); }
	return 0;
}
long ref_orig_rounds(long n) { rounds = n ? 0 : rounds; return rounds; }
long ref_orig_broken(long n) { return broken; }
`)
	rodataInProgram = program.add("refrodata", `
long ref_rodata(long x) { return strlen("before") + x; }
`)
	levels = library.add("patchlevel", `
static volatile long level_seen;
long patchlevel(long x) { level_seen = x; return 0; }
long patchlevel_one(long x) { level_seen = x; return x * 2; }
long patchlevel_two(long x) { level_seen = x; return x * 3; }
`)
	busy = library.add("busy", `
static int gate[2];
static volatile int inside, turning;
KEEP long busy_wait(long x) {
	char c;
	__atomic_fetch_add(&inside, 1, __ATOMIC_SEQ_CST);
	if (read(gate[0], &c, 1) != 1) abort();
	__atomic_fetch_sub(&inside, 1, __ATOMIC_SEQ_CST);
	return x + 1;
}
KEEP long busy_caller(long x) { return busy_wait(x) * 2; }
KEEP long busy_top(long x) { inside++; while (turning) x++; inside--; return x; }
static void *waits(void *a) { busy_caller(1); return 0; }
static void *turns(void *a) { busy_top(0); return 0; }
long busy_start(long n) {
	if (!gate[0] && pipe(gate)) abort();
	while (n-- > 0) { pthread_t t; if (pthread_create(&t, 0, waits, 0)) abort(); }
	return 0;
}
long busy_start_top(long n) {
	pthread_t t;
	turning = 1;
	return pthread_create(&t, 0, turns, 0);
}
long busy_inside(long n) { return inside; }
long busy_release(long n) {
	turning = 0;
	while (gate[1] && n-- > 0) if (write(gate[1], "x", 1) != 1) abort();
	return 0;
}
long busy_add(long x) { return x + 1; }
`)
	threading = library.add("threading", `
static volatile int rounds;
KEEP long threading_work(long x) { return x + 1; }
static void *born(void *a) { threading_work(1); return 0; }
static void *breeds(void *a) {
	for (;;) {
		pthread_t t;
		if (!pthread_create(&t, 0, born, 0)) pthread_join(t, 0);
		rounds++;
	}
}
long threading_start(long n) {
	while (n-- > 0) { pthread_t t; if (pthread_create(&t, 0, breeds, 0)) abort(); }
	return 0;
}
long threading_rounds(long n) { return rounds; }
`)
)

// TestLibcareplus has every case of libcareplus' list under its name there.
func TestLibcareplus(t *testing.T) {
	t.Run("simplest", func(t *testing.T) {
		p := start(t)
		fix := inProgram.fix(t, 1, "x + 1", "x + 2")
		p.want("simplest 5", "6")
		p.apply(fix)
		p.want("simplest 5", "7")
		p.revert(fix)
		p.want("simplest 5", "6")
	})
	t.Run("shared", func(t *testing.T) {
		p := start(t)
		fix := inLibrary.fix(t, 1, "x + 1", "x + 2")
		p.want("shared 5", "6")
		p.apply(fix)
		p.want("shared 5", "7")
		p.revert(fix)
		p.want("shared 5", "6")
	})
	// Program and library are patched one beside the other, and go back alone.
	t.Run("both", func(t *testing.T) {
		p := start(t)
		one, two := inProgram.fix(t, 1, "x + 1", "x + 2"), inLibrary.fix(t, 1, "x + 1", "x + 2")
		p.apply(one)
		p.apply(two)
		p.want("simplest 5", "7")
		p.want("shared 5", "7")
		p.revert(one)
		p.want("simplest 5", "6")
		p.want("shared 5", "7")
	})
	t.Run("new_func", func(t *testing.T) {
		p := start(t)
		fix := funcInProgram.fix(t, 1, "long new_func(long x) {", `
KEEP static long twice(long x) { return x + x; }
KEEP long brand_new(long x) { return twice(x) + 1; }
long new_func(long x) { x = brand_new(x);`)
		p.want("new_func 5", "5")
		p.apply(fix)
		p.want("new_func 5", "16") // on top of the total that was there
		p.revert(fix)
		p.want("new_func 1", "17")
	})
	// New variables keep their values from call to call.
	t.Run("new_var", func(t *testing.T) {
		p := start(t)
		fix := varInProgram.fix(t, 1, "long new_var(long x) { return x * 3 - (x >> 2); }", `
long brand_new_var = 100;
static long calls;
static int zeros[5000];
long new_var(long x) { static long last = 7; long was = last; last = x; zeros[x]++; return (brand_new_var += x) + 1000 * ++calls + 100000 * was + zeros[x]; }`)
		p.apply(fix)
		p.want("new_var 5", "701106")
		p.want("new_var 5", "502112")
	})
	t.Run("ref_orig_single", func(t *testing.T) {
		p := start(t)
		fix := origInLibrary.fix(t, 1, "return own_orig(x);", "return own_orig(x) + other_orig(1000) - kept;")
		p.want("ref_orig 7", "21")
		p.apply(fix)
		p.want("ref_orig 7", "1021")
		p.revert(fix)
		p.want("ref_orig 7", "21")
	})
	t.Run("ref_orig_threads", func(t *testing.T) {
		p := start(t)
		fix := origInLibrary.fix(t, 1, "return own_orig(x);", "return own_orig(x) + other_orig(1000) - kept;")
		p.want("ref_orig_start 6", "0")
		for range 5 {
			p.apply(fix)
			p.ask("ref_orig_rounds 1")
			p.reaches("ref_orig_rounds", 100)
			p.revert(fix)
		}
		p.want("ref_orig_broken", "0")
	})
	t.Run("ref_rodata", func(t *testing.T) {
		p := start(t)
		fix := rodataInProgram.fix(t, 1, `long ref_rodata(long x) { return strlen("before") + x; }`, `
static const long table[] = {3, 1, 4, 1, 5, 9, 2, 6};
static const char *const names[] = {"zero", "one", "two", "three"};
long ref_rodata(long x) {
	switch (x) {
	case 0: return strlen(names[0]); case 1: return puts("a text of its own"); case 2: return table[5];
	case 3: return names[3][4]; case 4: return names[2][0] + table[0]; case 5: return strcmp(names[2], "two") + 55;
	case 6: return strcmp(names[1], "one"); case 7: return table[x];
	}
	return -1;
}`)
		p.want("ref_rodata 0", "6")
		p.apply(fix)
		for x, want := range []string{"4", "", "9", "101", "119", "55", "0", "6", "-1"} {
			if want != "" {
				p.want("ref_rodata "+string(rune('0'+x)), want)
			}
		}
		p.want("ref_rodata 1", "a text of its own")
		if got := p.line(); got == "" || got[0] == '-' {
			t.Errorf("puts returned %q", got)
		}
	})
	t.Run("patchlevel", func(t *testing.T) {
		p := start(t)
		one := levels.fix(t, 1, "return 0;", "return 1;", "x * 2", "x * 20")
		two := levels.fix(t, 2, "return 0;", "return 2;", "x * 3", "x * 30")
		p.apply(one)
		p.want("patchlevel", "1")
		p.want("patchlevel_one 1", "20")
		p.apply(two)
		p.want("patchlevel", "2")
		p.want("patchlevel_one 1", "2") // level 2 does without
		p.want("patchlevel_two 1", "30")
		p.does(engine(patience).Apply, one, userspace.Already)
		p.revert(two)
		p.want("patchlevel", "0")
		p.want("patchlevel_two 1", "3")
		p.apply(one)
		p.want("patchlevel", "1")
	})
	t.Run("ref_glibc", refGlibc)
	t.Run("shared_ref_glibc", sharedRefGlibc)
	t.Run("ref_glibc_data", refGlibcData)
	t.Run("ifunc", ifunc)
	t.Run("tls_simple", tlsSimple)
	t.Run("tls_shared", tlsShared)
	// The patch waits until the thread has left the function.
	t.Run("frame_finish", func(t *testing.T) {
		p := start(t)
		fix := busyFix(t)
		p.want("busy_start 1", "0")
		p.reaches("busy_inside", 1)
		done := make(chan userspace.Result)
		go func() { done <- all(t, engine(patience).Apply, fix)[p.pid()] }()
		p.waitMapped()
		p.want("busy_release 1", "0")
		if r := <-done; r.Outcome != userspace.Patched {
			t.Errorf("%+v, want it patched", r)
		}
		p.want("busy_add 1", "3")
	})
	t.Run("fail_busy_single", func(t *testing.T) { failBusy(t, "busy_start 1", 1) })
	t.Run("fail_busy_single_top", func(t *testing.T) { failBusy(t, "busy_start_top", 1) })
	t.Run("fail_busy_threads", func(t *testing.T) { failBusy(t, "busy_start 8", 8) })
	t.Run("fail_coro", failCoro)
	t.Run("fail_coro_listed", failCoroListed)
	// Threads come and go all the time; the patch is applied all the same.
	t.Run("fail_threading", func(t *testing.T) {
		p := start(t)
		fix := threading.fix(t, 1, "x + 1", "x + 2")
		p.want("threading_start 4", "0")
		for range 10 {
			p.apply(fix)
			p.want("threading_work 1", "3")
			p.revert(fix)
			p.want("threading_work 1", "2")
		}
		p.reaches("threading_rounds", p.number("threading_rounds")+10)
	})
	// A thread inside the new code keeps the undo away until it leaves.
	t.Run("fail_unpatch", func(t *testing.T) {
		p := start(t)
		fix := busyFix(t)
		p.apply(fix)
		p.want("busy_start 1", "0")
		p.reaches("busy_inside", 1)
		p.busy(reverting, fix)
		p.want("busy_add 1", "3")
		p.does(engine(patience).Status, fix, userspace.Patched)
		p.want("busy_release 1", "0")
		p.revert(fix)
		p.want("busy_add 1", "2")
	})
	// A program that becomes another one leaves the patch behind and takes it anew.
	t.Run("execve", func(t *testing.T) {
		p := start(t)
		fix := inLibrary.fix(t, 1, "x + 1", "x + 2")
		p.apply(fix)
		p.want("shared 5", "7")
		p.want("exec "+program.path, "ready")
		p.want("shared 5", "6")
		p.does(engine(patience).Status, fix, userspace.Unpatched)
		p.apply(fix)
		p.want("shared 5", "7")
	})
}

// busyFix changes functions that threads are in, and one that they are not in.
func busyFix(t *testing.T) userspace.Patch {
	t.Helper()
	return busy.fix(t, 1, "busy_caller(long x) { return busy_wait(x) * 2; }", "busy_caller(long x) { return busy_wait(x) * 2 + 1; }",
		"while (turning) x++;", "while (turning) x += 2;", "busy_add(long x) { return x + 1; }", "busy_add(long x) { return x + 2; }")
}

// failBusy lets threads stay in a function: no patch, and nothing is left
// behind. A program that is not in there yet takes it.
func failBusy(t *testing.T, enter string, n int) {
	t.Helper()
	p := start(t)
	fix := busyFix(t)
	p.want(enter, "0")
	p.reaches("busy_inside", n)
	before := len(p.maps())
	p.busy(applying, fix)
	p.want("busy_add 1", "2")
	p.does(engine(patience).Status, fix, userspace.Unpatched)
	if after := len(p.maps()); after != before {
		t.Errorf("%d mappings, %d before", after, before)
	}
	p.want("busy_release "+string(rune('0'+n)), "0")
	p.apply(fix)
	p.want("busy_add 1", "3")
	early := start(t)
	early.apply(fix)
	early.want(enter, "0")
	early.reaches("busy_inside", n)
	early.want("busy_add 1", "3")
}
