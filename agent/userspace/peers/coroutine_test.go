package peers

import (
	"testing"

	"livemend.dev/livemend/agent/userspace"
)

// Coroutines that lie suspended are on no thread's stack, so nobody sees them.
// Their frames in old code simply finish there: it stays as it is but for the
// first bytes, into which nothing returns. What is not promised is that such a
// frame calls old functions only.
var coroutines = library.add("coro", `
enum { MANY = 40, BYTES = 64 << 10 };
static __thread ucontext_t home;
static ucontext_t one;
static char *stack;
static volatile long got;
static int gate[2];
static volatile int inside, quit, broken, rounds;

// coro_deep is suspended in the middle and uses its argument afterwards.
KEEP long coro_deep(ucontext_t *self, ucontext_t *back, long x) {
	long before = x * 3;
	if (swapcontext(self, back)) abort();
	return before + x + 1;
}
static void body(long x) { got = coro_deep(&one, &home, x); }
long coro_start(long x) {
	stack = malloc(BYTES);
	getcontext(&one);
	one.uc_stack.ss_sp = stack;
	one.uc_stack.ss_size = BYTES;
	one.uc_link = &home;
	makecontext(&one, (void (*)(void))body, 1, x);
	return swapcontext(&home, &one);
}
long coro_resume(long x) {
	if (swapcontext(&home, &one)) abort();
	return got;
}

// A coroutine that blocks while it runs on a thread.
KEEP long coro_block(long x) {
	char c;
	inside = 1;
	if (read(gate[0], &c, 1) != 1) abort();
	return x + 1;
}
static void blocking(long x) { got = coro_block(x); }
static void *runs_blocking(void *a) {
	ucontext_t other, here;
	getcontext(&other);
	other.uc_stack.ss_sp = malloc(BYTES);
	other.uc_stack.ss_size = BYTES;
	other.uc_link = &here;
	makecontext(&other, (void (*)(void))blocking, 1, 5L);
	swapcontext(&here, &other);
	inside = 0;
	return 0;
}
long coro_start_blocking(long n) {
	pthread_t t;
	if (pipe(gate)) abort();
	return pthread_create(&t, 0, runs_blocking, 0);
}
long coro_inside(long n) { return inside; }
long coro_release(long n) { return write(gate[1], "x", 1); }

// A thread that goes round many coroutines, each suspended in coro_deep.
static void *goes_round(void *a) {
	ucontext_t *list = calloc(MANY, sizeof *list), here;
	long *results = calloc(MANY, sizeof *results);
	void loop(ucontext_t *self, ucontext_t *back, long *result, long i) {
		for (;;) *result = coro_deep(self, back, i);
	}
	for (long i = 0; i < MANY; i++) {
		getcontext(&list[i]);
		list[i].uc_stack.ss_sp = malloc(BYTES);
		list[i].uc_stack.ss_size = BYTES;
		makecontext(&list[i], (void (*)(void))loop, 4, &list[i], &here, &results[i], i);
	}
	while (!quit) {
		for (long i = 0; i < MANY; i++) {
			swapcontext(&here, &list[i]);
			if (results[i] && results[i] != 4 * i + 1 && results[i] != 4 * i + 2) broken++;
		}
		rounds++;
		usleep(100);
	}
	return 0;
}
long coro_start_many(long n) {
	while (n-- > 0) { pthread_t t; if (pthread_create(&t, 0, goes_round, 0)) abort(); }
	return 0;
}
long coro_rounds(long n) { rounds = n ? 0 : rounds; return rounds; }
long coro_broken(long n) { return broken; }
`)

func coroutineFix(t *testing.T) userspace.Patch {
	t.Helper()
	return coroutines.fix(t, 1, "return before + x + 1;", "return before + x + 2;", "return x + 1;", "return x + 2;")
}

func failCoro(t *testing.T) {
	t.Run("suspended", func(t *testing.T) {
		p := start(t)
		fix := coroutineFix(t)
		p.want("coro_start 5", "0")
		p.apply(fix)
		p.want("coro_resume", "21") // the old code to its end
		p.want("coro_start 5", "0")
		p.revert(fix)
		p.want("coro_resume", "22") // the new code to its end
		p.want("coro_start 5", "0")
		p.want("coro_resume", "21")
	})
	// One that a thread runs on is seen like any stack.
	t.Run("running", func(t *testing.T) {
		p := start(t)
		fix := coroutineFix(t)
		p.want("coro_start_blocking", "0")
		p.reaches("coro_inside", 1)
		p.busy(applying, fix)
		p.want("coro_release", "1")
		p.apply(fix)
	})
}

func failCoroListed(t *testing.T) {
	p := start(t)
	fix := coroutineFix(t)
	p.want("coro_start_many 3", "0")
	for range 10 {
		p.apply(fix)
		p.ask("coro_rounds 1")
		p.reaches("coro_rounds", 10)
		p.revert(fix)
		p.ask("coro_rounds 1")
		p.reaches("coro_rounds", 10)
	}
	p.want("coro_broken", "0")
}
