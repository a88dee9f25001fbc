/* The master: options, the listening socket, workers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "echobeat.h"
#include "echobeatd.h"

static int fail(const char *what)
{
	fprintf(stderr, "echobeatd: %s: %s\n", what, strerror(errno));
	return 1;
}

static int read_secret(const char *path, char *out, int size)
{
	FILE *f = fopen(path, "r");
	int ok;

	if (f == NULL)
		return -1;
	ok = fgets(out, size, f) != NULL;
	fclose(f);
	if (!ok)
		return -1;
	out[strcspn(out, "\n")] = 0;
	return 0;
}

/* Listens on 127.0.0.1 and returns the socket; *port is the port taken. */
static int open_listener(int *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(*port) };
	socklen_t n = sizeof a;
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 128) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &n) < 0) {
		close(fd);
		return -1;
	}
	*port = ntohs(a.sin_port);
	return fd;
}

/* Writes the port to a file that appears complete or not at all. */
static int announce(const char *path, int port)
{
	char temp[4096];
	FILE *f;

	if (snprintf(temp, sizeof temp, "%s.new", path) >= (int)sizeof temp)
		return -1;
	f = fopen(temp, "w");
	if (f == NULL)
		return -1;
	fprintf(f, "%d\n", port);
	if (fclose(f) != 0)
		return -1;
	return rename(temp, path);
}

int main(int argc, char **argv)
{
	const char *secret_file = NULL, *port_file = NULL;
	char secret[256];
	int port = 0, listener, option, status;
	pid_t master = getpid();

	while ((option = getopt(argc, argv, "p:s:a:")) != -1) {
		switch (option) {
		case 'p':
			port = atoi(optarg);
			break;
		case 's':
			secret_file = optarg;
			break;
		case 'a':
			port_file = optarg;
			break;
		default:
			secret_file = NULL;
			optind = argc + 1;
		}
	}
	if (secret_file == NULL || optind != argc) {
		fprintf(stderr, "usage: echobeatd -s SECRET-FILE [-p PORT] [-a PORT-FILE]\n");
		return 2;
	}
	if (read_secret(secret_file, secret, sizeof secret) < 0)
		return fail(secret_file);
	listener = open_listener(&port);
	if (listener < 0)
		return fail("listen on 127.0.0.1");
	for (int i = 0; i < WORKERS; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return fail("fork");
		if (pid == 0) {
			/* Workers do not outlive the master. */
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != master)
				return 1;
			serve(listener, secret);
			return 1;
		}
	}
	if (port_file != NULL && announce(port_file, port) < 0)
		return fail(port_file);
	printf("echobeatd: libechobeat %s, %d workers of %d threads on 127.0.0.1:%d\n", echobeat_version(), WORKERS, THREADS, port);
	fflush(stdout);
	while (wait(&status) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		fprintf(stderr, "echobeatd: a worker was ended by signal %d, so the service ends\n", WTERMSIG(status));
	else
		fprintf(stderr, "echobeatd: a worker ended with status %d, so the service ends\n", WEXITSTATUS(status));
	return 1;
}
