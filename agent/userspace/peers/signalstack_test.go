package peers

import "testing"

var signalStack = library.add("signalstack", `
static int gate[2];
static volatile int inside, done;
static volatile long result;
static pthread_t one;
static void handler(int s) {
	char c;
	inside = 1;
	if (read(gate[0], &c, 1) != 1) abort();
}
// interrupted is what the handler interrupts; it does not wait for anything.
KEEP long interrupted(long x) {
	while (!inside) x++;
	return x * 0 + 5;
}
KEEP long signal_caller(long x) { return interrupted(x) * 2; }
static void *works(void *a) {
	stack_t s = {.ss_sp = malloc(64 << 10), .ss_size = 64 << 10};
	sigaltstack(&s, 0);
	done = 1;
	result = signal_caller(1);
	return 0;
}
long signal_start(long n) {
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
	if (pipe(gate) || sigaction(SIGUSR1, &sa, 0) || pthread_create(&one, 0, works, 0)) abort();
	while (!done) usleep(100);
	return pthread_kill(one, SIGUSR1);
}
long signal_inside(long n) { return inside; }
long signal_release(long n) {
	if (write(gate[1], "x", 1) != 1) abort();
	return pthread_join(one, 0);
}
long signal_result(long n) { return result; }
`)

// A signal handler has a stack of its own; the functions that it interrupted
// are on the other one.
func TestSignalStack(t *testing.T) {
	for name, pair := range map[string][2]string{
		"interrupted": {"x * 0 + 5", "x * 0 + 6"},
		"its caller":  {"interrupted(x) * 2", "interrupted(x) * 3"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			fix := signalStack.fix(t, 1, pair[:]...)
			p.want("signal_start", "0")
			p.reaches("signal_inside", 1)
			p.busy(applying, fix)
			p.want("signal_release", "0")
			p.want("signal_result", "10")
			p.apply(fix)
		})
	}
}
