// A library for the tests: a thread of it makes mappings grow and shrink all
// the time.
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGES = 1200 };

static void *flickers(void *a) {
	char *at = a;
	for (;;) {
		for (long i = 0; i < PAGES; i += 3) mprotect(at + (i + 1) * 4096, 4096, PROT_READ | PROT_WRITE);
		for (long i = 0; i < PAGES; i += 3) mprotect(at + (i + 1) * 4096, 4096, PROT_READ);
	}
}

__attribute__((constructor)) static void begin(void) {
	pthread_t t;
	char *at = mmap(0, PAGES * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED) abort();
	for (long i = 0; i < PAGES; i += 3) mprotect(at + i * 4096, 4096, PROT_READ | PROT_WRITE);
	if (pthread_create(&t, 0, flickers, at)) abort();
}
