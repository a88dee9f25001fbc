// The library that the tests patch. Every function is long enough for a jump.
#include <unistd.h>
volatile int seen;
#define FN(n) __attribute__((noinline, aligned(16))) int f##n(int x) { seen = x; return x + n; }
FN(1) FN(2) FN(3) FN(4) FN(5) FN(6) FN(7) FN(8)

// hold stays inside until a byte can be read.
__attribute__((noinline, aligned(16))) int hold(int fd) {
	char c;
	seen = fd;
	int n = read(fd, &c, 1);
	seen = n;
	return 1;
}

// turn never leaves while stay is set, and makes no system call.
__attribute__((noinline, aligned(16))) int turn(volatile int *stay) {
	int n = 0;
	while (*stay) n += seen;
	return n;
}

__attribute__((noinline, aligned(16))) int nested(int fd) { int r = hold(fd); seen = r; return r + 1; }
