#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { room = 32 << 20, page = 4096, prots = 3 };

static void fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static uint64_t word(void)
{
	uint64_t w;
	if (fread(&w, sizeof w, 1, stdin) != 1)
		fail("input ends");
	return w;
}

/* room near the library, so that 32-bit distances reach it */
static char *near(uint64_t bias)
{
	for (uint64_t step = 64 << 20; step < (1u << 30); step += 32 << 20) {
		void *want = (void *)((bias + step) & -(uint64_t)page);
		void *got = mmap(want, room, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (got == want)
			return got;
	}
	fail("no room");
	return 0;
}

int main(int argc, char **argv)
{
	static const int prot[prots + 1] = { 0, PROT_READ, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE };
	void *lib = argc == 2 ? dlopen(argv[1], RTLD_LAZY) : 0;
	if (!lib)
		fail("no library");
	void (*show)(void) = dlsym(lib, "show");
	struct link_map *map;
	if (!show || dlinfo(lib, RTLD_DI_LINKMAP, &map))
		fail("no show");
	uint64_t place[2] = { map->l_addr, 0 };
	char *image = near(place[0]);
	place[1] = (uint64_t)image;
	show();
	putchar(0);
	fflush(stdout);
	if (write(3, place, sizeof place) != sizeof place)
		fail("cannot report");

	uint64_t size = word(), segments = word(), seg[8][2];
	for (uint64_t i = 0; i < segments && i < 8; i++)
		seg[i][0] = word(), seg[i][1] = word();
	uint64_t hunks = word(), (*hunk)[2] = calloc(hunks, sizeof *hunk);
	for (uint64_t i = 0; i < hunks; i++)
		hunk[i][0] = word(), hunk[i][1] = word();
	if (size > room || fread(image, 1, size, stdin) != size)
		fail("no image");
	char *at = image;
	for (uint64_t i = 0; i < segments && i < 8; at += seg[i][0], i++)
		if (seg[i][1] > prots || mprotect(at, seg[i][0], prot[seg[i][1]]))
			fail("mprotect");
	for (uint64_t i = 0; i < hunks; i++) {
		char jump[5] = { (char)0xe9 };
		int32_t distance = (int32_t)(hunk[i][1] - hunk[i][0] - 5);
		void *start = (void *)(hunk[i][0] & -(uint64_t)page);
		memcpy(jump + 1, &distance, 4);
		if (mprotect(start, 2 * page, PROT_READ | PROT_WRITE | PROT_EXEC))
			fail("mprotect of the library");
		memcpy((void *)hunk[i][0], jump, 5);
	}
	show();
	fflush(stdout);
	return 0;
}
