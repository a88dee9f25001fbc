// A library for the red team's tests: it is loaded into the program and maps
// the files that HOSTILE names, or as many pages as MAPPINGS says, as if they
// were code.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((constructor)) static void begin(void) {
	char *list = getenv("HOSTILE"), *many = getenv("MAPPINGS");
	for (char *path = list ? strtok(list, ":") : 0; path; path = strtok(0, ":")) {
		struct stat st;
		int fd = open(path, O_RDONLY);
		if (fd < 0 || fstat(fd, &st)) abort();
		// Twice, so that one of the two has the headers at an offset.
		if (mmap(0, st.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED) abort();
		if (st.st_size > 4096 && mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 4096) == MAP_FAILED) abort();
		close(fd);
	}
	// Neighbours differ in what they allow, so that the kernel keeps them apart.
	long n = many ? atol(many) : 0;
	char *at = n ? mmap(0, n * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : 0;
	for (long i = 0; i < n; i += 2)
		if (mprotect(at + i * 4096, 4096, PROT_READ | PROT_WRITE)) break;
}
