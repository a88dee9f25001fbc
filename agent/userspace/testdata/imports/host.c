// The program that has the patched library loaded. USE adds uses of the other.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int work(int, const char *), count(int);
#ifdef USE
int pick(int);
extern int state;
#endif
#ifdef LEVEL
extern int level;
#endif
static int to[4][2], from[4][2];
static void *counter(void *a) {
	int *in = to[*(int *)a], *out = from[*(int *)a], n;
	while (read(in[0], &n, sizeof n) == sizeof n) {
		n = count(n);
		if (write(out[1], &n, sizeof n) != sizeof n) abort();
	}
	return 0;
}
int main(void) {
	char line[64];
	static int number[4] = {0, 1, 2, 3};
	setvbuf(stdout, 0, _IOLBF, 0);
	for (int i = 0; i < 4; i++) {
		pthread_t t;
		if (pipe(to[i]) || pipe(from[i]) || pthread_create(&t, 0, counter, number + i)) return 1;
	}
	puts("ready");
	while (fgets(line, sizeof line, stdin)) {
		int n, m;
		if (sscanf(line, "work %d", &n) == 1) printf("%d\n", work(n, "four"));
		else if (sscanf(line, "count %d %d", &n, &m) == 2) {
			if (write(to[n][1], &m, sizeof m) != sizeof m || read(from[n][0], &m, sizeof m) != sizeof m) return 1;
			printf("%d\n", m);
		}
#ifdef USE
		else if (sscanf(line, "pick %d", &n) == 1) printf("%d\n", pick(n));
		else if (sscanf(line, "state %d", &n) == 1) { state = n; puts("ok"); }
#endif
#ifdef LEVEL
		else if (sscanf(line, "level %d", &n) == 1) { level = n; puts("ok"); }
#endif
	}
	return 0;
}
