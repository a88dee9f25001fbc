/* A worker: threads that each own an epoll instance and the connections that
 * they accepted. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "echobeat.h"
#include "echobeatd.h"

#define EVENTS 32

/* Length prefix of records and answers on the wire, big-endian. */
#define PREFIX 2

struct connection {
	int fd;
	struct echobeat_session *session;
	size_t have;
	uint8_t in[PREFIX + ECHOBEAT_MAX_RECORD];
};

struct worker {
	int listener;
	const char *secret;
};

static void drop(struct connection *c)
{
	close(c->fd);
	echobeat_close(c->session);
	free(c);
}

/* Sends one answer. The answers are small and the peer waits for each, so a
 * full socket buffer means a broken peer. */
static int send_answer(int fd, const uint8_t *answer, int n)
{
	uint8_t out[PREFIX + ECHOBEAT_MAX_ANSWER];

	out[0] = n >> 8;
	out[1] = n;
	memcpy(out + PREFIX, answer, n);
	return send(fd, out, PREFIX + n, MSG_NOSIGNAL) == PREFIX + n ? 0 : -1;
}

/* Answers every whole record that has arrived. */
static int answer_all(struct connection *c)
{
	uint8_t answer[ECHOBEAT_MAX_ANSWER];

	while (c->have >= PREFIX) {
		size_t n = (size_t)c->in[0] << 8 | c->in[1];
		int length;

		if (n > ECHOBEAT_MAX_RECORD)
			return -1;
		if (c->have < PREFIX + n)
			return 0;
		length = echobeat_answer(c->session, c->in + PREFIX, n, answer);
		if (length < 0 || send_answer(c->fd, answer, length) < 0)
			return -1;
		c->have -= PREFIX + n;
		memmove(c->in, c->in + PREFIX + n, c->have);
	}
	return 0;
}

static void on_readable(struct connection *c)
{
	for (;;) {
		ssize_t n = recv(c->fd, c->in + c->have, sizeof c->in - c->have, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0 || (c->have += n, answer_all(c) < 0)) {
			drop(c);
			return;
		}
	}
}

static void on_connect(int epoll, const struct worker *w)
{
	int fd = accept4(w->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct connection *c;

	if (fd < 0)
		return;
	c = calloc(1, sizeof *c);
	if (c == NULL) {
		close(fd);
		return;
	}
	c->fd = fd;
	c->session = echobeat_open(w->secret);
	if (c->session == NULL || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = c }) < 0)
		drop(c);
}

static void *loop(void *arg)
{
	const struct worker *w = arg;
	struct epoll_event events[EVENTS];
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	/* Exclusive: one of the waiting threads takes a new connection. */
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, w->listener, &(struct epoll_event){ .events = EPOLLIN | EPOLLEXCLUSIVE }) < 0) {
		perror("echobeatd: epoll");
		exit(1);
	}
	for (;;) {
		int n = epoll_wait(epoll, events, EVENTS, -1);

		/* A signal or a tracer must not be seen as an error here: a spurious
		 * EINTR ends the worker, so that the demonstration would show it. */
		if (n < 0) {
			perror("echobeatd: epoll_wait");
			exit(1);
		}
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr == NULL)
				on_connect(epoll, w);
			else
				on_readable(events[i].data.ptr);
		}
	}
	return NULL;
}

void serve(int listener, const char *secret)
{
	struct worker w = { .listener = listener, .secret = secret };

	for (int i = 1; i < THREADS; i++) {
		pthread_t t;

		if (pthread_create(&t, NULL, loop, &w) != 0) {
			fprintf(stderr, "echobeatd: cannot start a thread\n");
			return;
		}
	}
	loop(&w);
}
