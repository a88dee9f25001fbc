/* libechobeat: answers heartbeat requests. Part of Livemend's demonstration:
 * it carries a planted out-of-bounds read, LIVEMEND-2026-0001. Never use it. */
#ifndef ECHOBEAT_H
#define ECHOBEAT_H

#include <stddef.h>
#include <stdint.h>

/* Largest record that a peer may send, and largest answer. */
#define ECHOBEAT_MAX_RECORD 128
#define ECHOBEAT_MAX_ANSWER 512

/* Kinds of record: the first byte. Then two bytes of claimed payload length
 * (big-endian), then the payload. */
enum echobeat_kind {
	ECHOBEAT_BEAT = 1,   /* answer: the payload again */
	ECHOBEAT_DIGEST = 2, /* answer: a checksum of the payload */
	ECHOBEAT_STATUS = 3, /* answer: a line of text about this session */
	ECHOBEAT_ERROR = 15, /* answers only */
};

/* One connection. */
struct echobeat_session;

/* Opens a session that keeps secret (its first 47 bytes). NULL without memory. */
struct echobeat_session *echobeat_open(const char *secret);
void echobeat_close(struct echobeat_session *s);

/* Answers one record into out (at least ECHOBEAT_MAX_ANSWER bytes) and returns
 * the answer's length, or -1 when the record is no record. An answer: kind (1),
 * requests served on this session (4, big-endian), payload. */
int echobeat_answer(struct echobeat_session *s, const uint8_t *record, size_t n, uint8_t *out);

/* Version of the library, for people. */
const char *echobeat_version(void);

#endif
