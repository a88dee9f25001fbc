// The program that the tests patch. It reads one command per line, calls the
// function that the command names with the number behind it, and answers with
// what the function returned. A few commands are its own.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

long serve(FILE *in);

int main(void) {
	setvbuf(stdout, 0, _IOLBF, 0);
	puts("ready");
	return serve(stdin);
}

static void *opened;
static int child = -1;

// lookup asks the opened library first: a name that it found for the program
// as a whole would keep it from being closed.
static void *lookup(const char *name) {
#ifdef STATIC
	long simplest(long);
	return strcmp(name, "simplest") ? 0 : (void *)simplest;
#else
	void *f = opened ? dlsym(opened, name) : 0;
	return f ? f : dlsym(RTLD_DEFAULT, name);
#endif
}

// own carries out a command of the program itself and returns whether it did.
static int own(const char *name, char *rest) {
	rest[strcspn(rest, "\n")] = 0;
	if (!strcmp(name, "open")) {
		opened = dlopen(rest, RTLD_NOW);
		puts(opened ? "ok" : dlerror());
	} else if (!strcmp(name, "close")) {
		puts(dlclose(opened) ? dlerror() : "ok");
		opened = 0;
	} else if (!strcmp(name, "known")) {
		puts(lookup(rest) ? "yes" : "no");
	} else if (!strcmp(name, "exec")) {
		char *args[] = {rest, 0};
		execv(rest, args);
		puts("failed");
	} else if (!strcmp(name, "fork")) {
		int p[2];
		if (pipe(p)) abort();
		pid_t pid = fork();
		if (pid == 0) {
			dup2(p[0], 0);
			close(p[1]);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			clearerr(stdin);
			return 1;
		}
		close(p[0]);
		child = p[1];
		printf("%d\n", pid);
	} else if (!strcmp(name, "child")) {
		strcat(rest, "\n");
		if (write(child, rest, strlen(rest)) < 0) abort();
	} else {
		return 0;
	}
	return 1;
}

__attribute__((noinline)) long serve(FILE *in) {
	char line[4096], name[64];
	while (fgets(line, sizeof line, in)) {
		int at = 0;
		long n = 0;
		name[0] = 0;
		sscanf(line, "%63s %n%ld", name, &at, &n);
		if (own(name, line + at)) continue;
		long (*f)(long) = (long (*)(long))lookup(name);
		if (f) printf("%ld\n", f(n));
		else printf("unknown %s\n", name);
	}
	return 0;
}
