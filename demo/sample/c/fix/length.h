/* How long a payload is. */
#ifndef LENGTH_H
#define LENGTH_H

#include "session.h"

#define HEADER_SIZE 3

/* Length of the record's payload. n is the length of the whole record. */
static inline size_t payload_length(const uint8_t *record, size_t n)
{
	size_t claimed = (size_t)record[1] << 8 | record[2];
	size_t received = n - HEADER_SIZE;

	return claimed <= received ? claimed : received;
}

#endif
