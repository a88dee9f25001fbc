// The program that the tests patch. It reads one command per line and answers
// each with one line.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int f1(int), f2(int), f3(int), f4(int), f5(int), f6(int), f7(int), f8(int);
int hold(int), nested(int), turn(volatile int *), landing(int);
static int (*table[])(int) = {f1, f2, f3, f4, f5, f6, f7, f8};
static volatile int stay = 1, quit, broken;
static volatile long eintr, rounds, signals, waits;
static int gate[2], ready[2];

static void announce(void) { if (write(ready[1], "x", 1) != 1) abort(); }
static void expect(int n) { char c; while (n-- > 0) if (read(ready[0], &c, 1) != 1) abort(); }
static void onsignal(int s) { (void)s; __atomic_fetch_add(&signals, 1, __ATOMIC_SEQ_CST); }

static void *sleeper(void *a) { (void)a; announce(); for (;;) pause(); }
static void *spinner(void *a) { (void)a; announce(); while (!quit) rounds++; return 0; }
static void *holder(void *a) { (void)a; announce(); hold(gate[0]); announce(); return 0; }
static void *nester(void *a) { (void)a; announce(); nested(gate[0]); announce(); return 0; }
static void *turner(void *a) { (void)a; announce(); turn(&stay); announce(); return 0; }
static void *caller(void *a) {
	(void)a;
	announce();
	// Functions of one patch are switched together: both old or both new.
	while (!quit) {
		int x = f1(0), y = f2(0);
		if ((x < 50) != (y < 50) && (f1(0) < 50) != (y < 50)) broken = 1;
		for (volatile int i = 0; i < 200; i++) {}
		rounds++;
	}
	return 0;
}
static void *poller(void *a) {
	(void)a;
	int e = epoll_create1(0), p[2];
	struct epoll_event ev = {.events = EPOLLIN};
	if (pipe(p) || epoll_ctl(e, EPOLL_CTL_ADD, p[0], &ev)) abort();
	announce();
	for (;;) {
		waits++;
		if (epoll_wait(e, &ev, 1, -1) < 0 && errno == EINTR) eintr++;
	}
}
static void *semer(void *a) {
	(void)a;
	int s = semget(IPC_PRIVATE, 1, 0600);
	struct sembuf op = {0, -1, 0};
	announce();
	for (;;) {
		waits++;
		int r = semop(s, &op, 1);
		if (r < 0 && errno == EINTR) eintr++;
		if (r < 0 && errno == EIDRM) return 0;
	}
}
static void *born(void *a) { return a; }
static void *breeder(void *a) {
	(void)a;
	announce();
	while (!quit) {
		pthread_t t;
		if (!pthread_create(&t, 0, born, 0)) pthread_join(t, 0);
		rounds++;
	}
	return 0;
}
static void *vforker(void *a) {
	(void)a;
	announce();
	pid_t p = vfork();
	if (p == 0) {
		char c;
		if (syscall(SYS_read, gate[0], &c, 1) != 1) _exit(1);
		_exit(0);
	}
	waitpid(p, 0, 0);
	announce();
	return 0;
}

static void start(int n, void *(*f)(void *)) {
	for (int i = 0; i < n; i++) {
		pthread_t t;
		pthread_attr_t at;
		pthread_attr_init(&at);
		pthread_attr_setstacksize(&at, 128 << 10);
		if (pthread_create(&t, &at, f, 0)) abort();
		pthread_detach(t);
	}
	expect(n);
}

static void filter(int nr) {
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {4, code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog)) abort();
}

int main(int argc, char **argv) {
	char line[256], name[64];
	int child = -1;
	setvbuf(stdout, 0, _IOLBF, 0);
	if (pipe(gate) || pipe(ready)) return 1;
	if (argc > 1 && !strcmp(argv[1], "chroot") && (chroot(argv[2]) || chdir("/"))) return 1;
	puts("ready");
	while (fgets(line, sizeof line, stdin)) {
		int n = 1;
		name[0] = 0;
		sscanf(line, "%63s %d", name, &n);
		if (name[0] == 'f' && name[1] >= '1' && name[1] <= '8' && !name[2]) { printf("%d\n", table[name[1] - '1'](n)); continue; }
		if (!strcmp(name, "landing")) { printf("%d\n", landing(n)); continue; }
		if (!strcmp(name, "eintr")) { printf("%ld\n", eintr); continue; }
		if (!strcmp(name, "signals")) { printf("%ld\n", signals); continue; }
		if (!strcmp(name, "waits")) { printf("%ld\n", waits); continue; }
		if (!strcmp(name, "rounds")) { printf("%ld\n", rounds); continue; }
		if (!strcmp(name, "broken")) { printf("%d\n", broken); continue; }
		if (!strcmp(name, "sleep")) start(n, sleeper);
		else if (!strcmp(name, "spin")) start(n, spinner);
		else if (!strcmp(name, "call")) start(n, caller);
		else if (!strcmp(name, "poll")) start(n, poller);
		else if (!strcmp(name, "sem")) start(n, semer);
		else if (!strcmp(name, "breed")) start(n, breeder);
		else if (!strcmp(name, "hold")) start(n, holder);
		else if (!strcmp(name, "nest")) start(n, nester);
		else if (!strcmp(name, "turn")) start(n, turner);
		else if (!strcmp(name, "vfork")) start(n, vforker);
		else if (!strcmp(name, "stopturn")) { stay = 0; expect(1); }
		else if (!strcmp(name, "release")) { if (write(gate[1], "x", 1) != 1) abort(); expect(1); }
		else if (!strcmp(name, "quit")) quit = 1;
		else if (!strcmp(name, "filter")) filter(SYS_mmap);
		else if (!strcmp(name, "mdwe")) { if (prctl(65, 1, 0, 0, 0)) { printf("errno %d\n", errno); continue; } }
		else if (!strcmp(name, "ignore")) signal(n, SIG_IGN);
		else if (!strcmp(name, "catch")) { struct sigaction sa = {.sa_handler = onsignal, .sa_flags = SA_RESTART}; sigaction(n, &sa, 0); }
		else if (!strcmp(name, "block") || !strcmp(name, "unblock")) {
			sigset_t one;
			sigemptyset(&one), sigaddset(&one, n);
			sigprocmask(name[0] == 'b' ? SIG_BLOCK : SIG_UNBLOCK, &one, 0);
		}
		else if (!strcmp(name, "ignored")) { struct sigaction sa; sigaction(n, 0, &sa); printf("%d\n", sa.sa_handler == SIG_IGN); continue; }
		else if (!strcmp(name, "undump")) prctl(PR_SET_DUMPABLE, 0);
		else if (!strcmp(name, "exec")) { execl("/bin/cat", "cat", (char *)0); abort(); }
		else if (!strcmp(name, "mainexit")) { puts("ok"); pthread_exit(0); }
		else if (!strcmp(name, "fork")) {
			int p[2];
			if (pipe(p)) abort();
			pid_t pid = fork();
			if (pid == 0) { dup2(p[0], 0); close(p[1]); prctl(PR_SET_PDEATHSIG, SIGKILL); clearerr(stdin); continue; }
			close(p[0]);
			child = p[1];
			printf("%d\n", pid);
			continue;
		}
		else if (!strcmp(name, "child")) { char *rest = line + 6; if (write(child, rest, strlen(rest)) < 0) abort(); continue; }
		else { printf("unknown %s\n", name); continue; }
		puts("ok");
	}
	return 0;
}
