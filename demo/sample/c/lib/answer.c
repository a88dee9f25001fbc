/* From a record to its answer. */
#include <stdio.h>
#include <string.h>

#include "length.h"

#define ANSWER_HEADER 5

static void put_header(const struct echobeat_session *s, uint8_t kind, uint8_t *out)
{
	out[0] = kind;
	out[1] = s->served >> 24;
	out[2] = s->served >> 16;
	out[3] = s->served >> 8;
	out[4] = s->served;
}

/* The payload again. */
__attribute__((noipa)) static int answer_beat(struct echobeat_session *s, const uint8_t *record, size_t n, uint8_t *out)
{
	size_t length = payload_length(record, n);

	memcpy(out + ANSWER_HEADER, &s->arena, length);
	return ANSWER_HEADER + (int)length;
}

/* A checksum of the payload, as text. */
__attribute__((noipa)) static int answer_digest(struct echobeat_session *s, const uint8_t *record, size_t n, uint8_t *out)
{
	const uint8_t *p = (const uint8_t *)&s->arena;
	size_t length = payload_length(record, n);
	uint32_t a = 1, b = 0;

	for (size_t i = 0; i < length; i++) {
		a = (a + p[i]) % 65521;
		b = (b + a) % 65521;
	}
	return ANSWER_HEADER + snprintf((char *)out + ANSWER_HEADER, ECHOBEAT_MAX_ANSWER - ANSWER_HEADER,
		"adler32 %08x over %zu bytes", b << 16 | a, length);
}

static int answer_status(struct echobeat_session *s, uint8_t *out)
{
	return ANSWER_HEADER + snprintf((char *)out + ANSWER_HEADER, ECHOBEAT_MAX_ANSWER - ANSWER_HEADER,
		"echobeat %s, %u requests served", echobeat_version(), s->served);
}

int echobeat_answer(struct echobeat_session *s, const uint8_t *record, size_t n, uint8_t *out)
{
	int length;

	if (n < HEADER_SIZE || n > ECHOBEAT_MAX_RECORD)
		return -1;
	memset(s->arena.payload, 0, sizeof s->arena.payload);
	memcpy(s->arena.payload, record + HEADER_SIZE, n - HEADER_SIZE);
	s->served++;
	put_header(s, record[0], out);
	switch (record[0]) {
	case ECHOBEAT_BEAT:
		length = answer_beat(s, record, n, out);
		break;
	case ECHOBEAT_DIGEST:
		length = answer_digest(s, record, n, out);
		break;
	case ECHOBEAT_STATUS:
		length = answer_status(s, out);
		break;
	default:
		put_header(s, ECHOBEAT_ERROR, out);
		length = ANSWER_HEADER;
	}
	return length;
}
