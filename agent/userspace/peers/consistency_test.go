package peers

import (
	"fmt"
	"testing"
	"time"

	"livemend.dev/livemend/agent/userspace"
)

// Cases about what threads are in the middle of when the patch comes.
var (
	recursion = library.add("recursion", `
static int gate[2];
static volatile long deep, result;
KEEP long recursion(long n) {
	if (n <= 1) return 1;
	if (n == deep) { char c; deep = 0; if (read(gate[0], &c, 1) != 1) abort(); }
	return n * recursion(n - 1) + 0;
}
KEEP long recursion2_odd(long n);
KEEP long recursion2_even(long n) { return n == 0 ? 100 : recursion2_odd(n - 1) + 1; }
KEEP long recursion2_odd(long n) { return n == 0 ? 200 : recursion2_even(n - 1) + 1; }
static void *descends(void *a) { result = recursion(10); return 0; }
long recursion_start(long at) {
	pthread_t t;
	if (pipe(gate)) abort();
	deep = at;
	return pthread_create(&t, 0, descends, 0);
}
long recursion_deep(long n) { return deep == 0; }
long recursion_release(long n) { return write(gate[1], "x", 1); }
long recursion_result(long n) { return result; }
`)
	blocked = library.add("blocked", `
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile long result;
static volatile int waiting;
KEEP static long blocked_first(long x) { return x * 10; }
KEEP static long blocked_second(long x) { return x * 100; }
KEEP long blocked_work(long x) {
	long a = blocked_first(x);
	waiting = 1;
	pthread_mutex_lock(&lock);
	pthread_mutex_unlock(&lock);
	return a + blocked_second(x);
}
static void *works(void *a) { result = blocked_work(1); return 0; }
long blocked_start(long n) {
	pthread_t t;
	pthread_mutex_lock(&lock);
	return pthread_create(&t, 0, works, 0);
}
long blocked_waiting(long n) { return waiting; }
long blocked_release(long n) { return pthread_mutex_unlock(&lock); }
long blocked_result(long n) { return result; }
long blocked_other(long x) { return x * 10 + (x >> 1); }
`)
	contract = library.add("contract", `
static volatile int quit, broken, rounds;
KEEP long contract_seal(long x) { return x ^ 0x1111; }
KEEP long contract_open(long x) { return x ^ 0x1111; }
KEEP long contract_use(long x) {
	long sealed = contract_seal(x);
	for (volatile int i = 0; i < 300; i++) { }
	return contract_open(sealed) + 0;
}
static void *uses(void *a) {
	for (long i = 1; !quit; i++) {
		long got = contract_use(i);
		if (got != i && got != i + 1000000) broken++;
		rounds++;
		usleep(20);
	}
	return 0;
}
long contract_start(long n) {
	while (n-- > 0) { pthread_t t; if (pthread_create(&t, 0, uses, 0)) abort(); }
	return 0;
}
long contract_rounds(long n) { rounds = n ? 0 : rounds; return rounds; }
long contract_broken(long n) { return broken; }
`)
	deadlock = library.add("deadlock", `
static volatile int quit, rounds;
KEEP long deadlock_work(long x) { return x * 10 + (x >> 1); }
static void *allocates(void *a) {
	void *kept[32] = {0};
	for (unsigned i = 0; !quit; i++) {
		free(kept[i % 32]);
		kept[i % 32] = malloc(i * 37 % 4000);
		rounds++;
	}
	return 0;
}
long deadlock_start(long n) {
	mallopt(-8 /* M_ARENA_MAX */, 1); // all threads share one lock
	while (n-- > 0) { pthread_t t; if (pthread_create(&t, 0, allocates, 0)) abort(); }
	return 0;
}
long deadlock_rounds(long n) { return rounds; }
`)
	// The loader's lock is held while its list of libraries is walked.
	dlsymLock = library.add("dlsymlock", `
struct dl_phdr_info;
extern int dl_iterate_phdr(int (*)(struct dl_phdr_info *, size_t, void *), void *);
static int gate[2];
static volatile int holds;
KEEP long dlsym_lock_work(long x) { return x * 10 + (x >> 1); }
static int callback(struct dl_phdr_info *i, size_t n, void *a) {
	char c;
	holds = 1;
	if (read(gate[0], &c, 1) != 1) abort();
	return 1;
}
static void *walks(void *a) { dl_iterate_phdr(callback, 0); holds = 0; return 0; }
long dlsym_lock_start(long n) {
	pthread_t t;
	if (pipe(gate)) abort();
	return pthread_create(&t, 0, walks, 0);
}
long dlsym_lock_holds(long n) { return holds; }
long dlsym_lock_release(long n) { return write(gate[1], "x", 1); }
`)
	unsafe = library.add("asunsafe", `
static volatile int rounds, broken, quit;
KEEP long asunsafe_work(long x) { return x * 10 + 1; }
static void handler(int s) {
	long got = asunsafe_work(4);
	if (got != 41 && got != 81) broken++;
	rounds++;
}
static void *converts(void *a) {
	char text[200];
	while (!quit) {
		char *p = malloc(100);
		snprintf(text, sizeof text, "%g %s %ld", 1.5, "x", strtol("0x77", 0, 0));
		free(p);
	}
	return 0;
}
#include <sys/time.h>
long asunsafe_start(long n) {
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
	struct itimerval every = {{0, 1000}, {0, 1000}};
	while (n-- > 0) { pthread_t t; if (pthread_create(&t, 0, converts, 0)) abort(); }
	sigaction(SIGALRM, &sa, 0);
	return setitimer(ITIMER_REAL, &every, 0);
}
long asunsafe_rounds(long n) { rounds = n ? 0 : rounds; return rounds; }
long asunsafe_broken(long n) { return broken; }
`)
	cancel = library.add("cancel", `
static int gate[2];
static pthread_t one;
static volatile int inside, cleaned;
static void clean(void *a) { cleaned++; }
// cancel_wait waits for a byte that never comes, with something to clean up.
KEEP long cancel_wait(long x) {
	char c;
	pthread_cleanup_push(clean, 0);
	inside = 1;
	if (read(gate[0], &c, 1) != 1) abort();
	pthread_cleanup_pop(0);
	return x + 1;
}
long cancel_work(long x) { return x * 10 + (x >> 1); }
static void *waits(void *a) { return (void *)cancel_wait(1); }
long cancel_start(long n) {
	inside = cleaned = 0;
	if (!gate[0] && pipe(gate)) abort();
	return pthread_create(&one, 0, waits, 0);
}
long cancel_inside(long n) { return inside; }
long cancel_now(long n) {
	void *got;
	if (pthread_cancel(one) || pthread_join(one, &got)) abort();
	return (got == PTHREAD_CANCELED) * 10 + cleaned;
}
`)
	queue = library.add("pcqueue", `
enum { SLOTS = 8 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER, room = PTHREAD_COND_INITIALIZER;
static long ring[SLOTS];
static unsigned head, tail;
static volatile long taken, broken;
KEEP void pcqueue_put(long v) {
	pthread_mutex_lock(&lock);
	while (head - tail == SLOTS) pthread_cond_wait(&room, &lock);
	ring[head++ % SLOTS] = v * 2;
	pthread_cond_signal(&more);
	pthread_mutex_unlock(&lock);
}
KEEP long pcqueue_take(void) {
	pthread_mutex_lock(&lock);
	while (head == tail) pthread_cond_wait(&more, &lock);
	long v = ring[tail++ % SLOTS];
	pthread_cond_signal(&room);
	pthread_mutex_unlock(&lock);
	return v / 2;
}
long pcqueue_weight(long x) { return x * 3 + (x >> 2); }
static void *puts_in(void *a) { for (long i = 1;; i++) { pcqueue_put(i); if (i % 64 == 0) usleep(500); } }
static void *takes_out(void *a) {
	for (long i = 1;; i++) { if (pcqueue_take() != i) broken++; taken++; }
}
long pcqueue_start(long n) {
	pthread_t t;
	return pthread_create(&t, 0, puts_in, 0) + pthread_create(&t, 0, takes_out, 0);
}
long pcqueue_taken(long n) { taken = n ? 0 : taken; return taken; }
long pcqueue_broken(long n) { return broken; }
`)
)

// middle are the cases in which the patch meets threads at a bad moment.
func middle(t *testing.T) {
	t.Run("recursion", func(t *testing.T) {
		p := start(t)
		fix := recursion.fix(t, 1, "recursion(n - 1) + 0", "recursion(n - 1) + 1")
		p.want("recursion 5", "120")
		p.apply(fix)
		p.want("recursion 3", "10") // 3*(2*1+1)+1
		p.revert(fix)
		p.want("recursion 5", "120")
	})
	// A descent that has begun ends in the code in which it began.
	t.Run("recursion2", func(t *testing.T) {
		p := start(t)
		fix := recursion.fix(t, 1, "recursion(n - 1) + 0", "recursion(n - 1) + 1",
			"recursion2_odd(n - 1) + 1", "recursion2_odd(n - 1) + 10", "recursion2_even(n - 1) + 1", "recursion2_even(n - 1) + 100")
		p.want("recursion_start 6", "0")
		p.reaches("recursion_deep", 1)
		p.busy(applying, fix)
		p.want("recursion2_even 3", "203")
		p.want("recursion_release", "1")
		p.apply(fix)
		p.want("recursion_result", fmt.Sprint(3628800))
		p.want("recursion2_even 3", "320")
	})
	// The libraries that libpulp prepares switch a blocked call in the middle.
	t.Run("blocked", func(t *testing.T) {
		p := start(t)
		fix := blocked.fix(t, 1, "blocked_first(long x) { return x * 10", "blocked_first(long x) { return x * 20",
			"blocked_second(long x) { return x * 100", "blocked_second(long x) { return x * 200", "return a + blocked_second(x);", "return a + blocked_second(x) + 1;")
		p.want("blocked_start", "0")
		p.reaches("blocked_waiting", 1)
		p.busy(applying, fix)
		p.want("blocked_release", "0")
		p.apply(fix)
		p.want("blocked_result", "110")
		p.want("blocked_work 1", "221")
		// A thread that waits in functions which do not change is in nobody's way.
		p = start(t)
		other := blocked.fix(t, 1, "x * 10 + (x >> 1)", "x * 10 + (x >> 1) + 1")
		p.want("blocked_start", "0")
		p.apply(other)
		p.want("blocked_other 2", "22")
		p.want("blocked_release", "0")
	})
	// Both ends of what functions agreed on change at once for every caller that
	// is part of the patch: nobody is between them then.
	t.Run("contract", func(t *testing.T) {
		p := start(t)
		fix := contract.fix(t, 1, "x ^ 0x1111", "x ^ 0x2222", "contract_open(sealed) + 0", "contract_open(sealed) + 1000000")
		if n := len(fix.File.Hunks); n != 3 {
			t.Errorf("%d functions are redirected, want 3", n)
		}
		p.want("contract_start 4", "0")
		for range 10 {
			p.apply(fix)
			p.ask("contract_rounds 1")
			p.reaches("contract_rounds", 20)
			p.revert(fix)
			p.ask("contract_rounds 1")
			p.reaches("contract_rounds", 20)
		}
		p.want("contract_broken", "0")
	})
	// The engine needs none of the target's locks, whoever holds them.
	t.Run("deadlock", func(t *testing.T) {
		p := start(t)
		fix := deadlock.fix(t, 1, "x * 10", "x * 20")
		p.want("deadlock_start 4", "0")
		for range 10 {
			p.apply(fix)
			p.want("deadlock_work 1", "20")
			p.revert(fix)
		}
		p.reaches("deadlock_rounds", p.number("deadlock_rounds")+1000)
	})
	t.Run("dlsym_lock", func(t *testing.T) {
		p := start(t)
		fix := dlsymLock.fix(t, 1, "x * 10", "x * 20")
		p.want("dlsym_lock_work 1", "10") // looks the name up before the lock is taken
		p.want("dlsym_lock_start", "0")
		p.reaches("dlsym_lock_holds", 1)
		p.apply(fix)
		p.want("dlsym_lock_release", "1")
		p.want("dlsym_lock_work 1", "20")
	})
	t.Run("asunsafe_conversion", func(t *testing.T) {
		p := start(t)
		fix := unsafe.fix(t, 1, "x * 10 + 1", "x * 20 + 1")
		p.want("asunsafe_start 2", "0")
		for range 8 {
			p.apply(fix)
			p.want("asunsafe_work 1", "21")
			p.revert(fix)
		}
		p.ask("asunsafe_rounds 1")
		p.reaches("asunsafe_rounds", 20)
		p.want("asunsafe_broken", "0")
	})
	// A thread is cancelled beside the patch, and inside the new code.
	t.Run("cancel", func(t *testing.T) {
		p := start(t)
		beside, within := cancel.fix(t, 1, "x * 10", "x * 20"), cancel.fix(t, 2, "x * 10", "x * 30", "return x + 1;", "return x + 2;")
		p.want("cancel_start", "0")
		p.reaches("cancel_inside", 1)
		p.apply(beside)
		p.want("cancel_now", "11")
		p.apply(within)
		p.want("cancel_start", "0")
		p.reaches("cancel_inside", 1)
		p.want("cancel_now", "11")
		p.revert(within)
		p.want("cancel_work 1", "10")
	})
	t.Run("pcqueue", func(t *testing.T) {
		p := start(t)
		// What lies in the queue was put there by either code.
		fix := queue.fix(t, 1, "x * 3 + (x >> 2)", "x * 4")
		inner := queue.fix(t, 2, "x * 3 + (x >> 2)", "x * 5", "ring[head++ % SLOTS] = v * 2;", "{ ring[head % SLOTS] = v + v; head++; if (v < 0) abort(); }")
		p.want("pcqueue_start", "0")
		for range 10 {
			p.apply(fix)
			p.want("pcqueue_weight 2", "8")
			p.ask("pcqueue_taken 1")
			p.reaches("pcqueue_taken", 100)
			p.revert(fix)
		}
		// The consumer waits in a changed function most of the time: either it
		// is caught outside, or the program stays as it is.
		r := all(t, engine(2*time.Second).Apply, inner)[p.pid()]
		if r.Outcome != userspace.Patched && r.Outcome != userspace.Failed {
			t.Errorf("%+v", r)
		}
		t.Logf("the functions of the queue itself: %s %s", r.Outcome, r.Reason)
		p.ask("pcqueue_taken 1")
		p.reaches("pcqueue_taken", 100)
		p.want("pcqueue_broken", "0")
	})
}
